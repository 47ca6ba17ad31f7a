"""Reproduce: -log p(x) by importance samples.

About 15 minutes. The loss of a VAE is a bound on -log p(x). With K draws z of q(z|x) one can come
nearer. Each draw has a weight, and the mean of the weights is an estimate of p(x):

    log w[k] = log p(x|z[k]) + log p(z[k]) - log q(z[k]|x)      equation (importance-weight)
    nll = -log(mean of w[k] over k)                             equation (importance-weighted-bound)

This is what papers report. log_w is (K, B), for B examples, and a log weight of an image may well
be -800: exp(-800) is 0 in float64, and its log is not finite.

Task: write nll. It is compared with drawn weights, and then run on a VAE that is trained for this:
it has to give what `scratchvae evaluate --nll-samples 1000` would print.
"""

import numpy as np


def nll(log_w):
    """Return -log of the mean weight of each example, (B,), for log weights (K, B)."""
    raise NotImplementedError


# --- what judges it

from scratchvae import VAE, Adam, Trainer, datasets, evaluation
from scratchvae.exercises.kinds import Formula, Wrong, get, worst


def _right(log_w):
    return np.log(len(log_w)) - evaluation.log_sum_exp(log_w)


def _args(rng):
    k, b = rng.permutation(np.arange(3, 8))[:2]
    size = rng.permutation([-4000, -800, -30, *rng.uniform(-1000, 0, b - 3)])  # each example's own
    log_w = size + 3 * rng.standard_normal((k, b))
    log_w[rng.integers(k), size == -4000] = -2000  # whatever else is taken out, its exp overflows
    return [log_w]


def _taken_out(of):
    """Return nll by the way of another log weight than the largest."""

    def nll(log_w):
        a = of(log_w, axis=0)
        return -a - np.log(np.exp(log_w - a).mean(axis=0))

    return nll


class _Nll(Formula):
    def judge(self, answer, rng):
        found = super().judge(answer, rng)
        data = datasets.load("digits")
        model = VAE(64, (100,), 2, rng=rng)
        trainer = Trainer(model, Adam(model.params), data, batch_size=50)
        trainer.run(10)
        x = datasets.to_float(data.test, data.scale, model.dtype)[:100]
        seed, k = int(rng.integers(2**32)), 1000
        bound = evaluation.elbo(model, [x], rng=seed, samples=k).loss
        true = -evaluation.importance_weighted_bound(model, [x[:10]], k, seed)
        eps = np.random.default_rng(seed).standard_normal((k, 10, 2)).astype(model.dtype)
        mine = get(answer, "nll")(evaluation.log_importance_weights(model, x[:10], eps))
        if np.shape(mine) != (10,) or not np.abs(mine - true).max() < 0.5:
            raise Wrong(
                "For weights of a trained model in float32 nll is off.", worst("nll", mine, true)
            )
        log_w = evaluation.log_importance_weights(
            model, x, np.random.default_rng(seed).standard_normal((k, 100, 2)).astype(model.dtype)
        )
        mean = float(np.mean(get(answer, "nll")(log_w)))
        return (
            f"{found}\nOn 100 test digits the loss is {bound:.2f} nats, and -log p(x) by {k:,} "
            f"samples {mean:.2f}: the bound is that loose."
        )


exercise = _Nll(
    name="nll",
    true=_right,
    args=_args,
    returns=("nll",),
    usual=(
        (
            lambda log_w: -log_w.mean(axis=0),
            "nll takes the mean of the logs, which is the ELBO again: the log of the mean is the "
            "nearer bound.",
        ),
        (
            lambda log_w: -evaluation.log_sum_exp(log_w),
            "nll takes the sum of the weights: their mean lacks the term log K.",
        ),
        (
            lambda log_w: evaluation.log_sum_exp(log_w) - np.log(len(log_w)),
            "nll has the wrong sign: it is minus the log.",
        ),
        *(
            (
                _taken_out(of),
                "nll is infinite: exp of a log weight near -800 is 0, also after the largest of "
                "another example is taken out. Take out the largest log weight of each example "
                "first, and add it again behind the log.",
            )
            for of in (lambda log_w, axis: 0, lambda log_w, axis: log_w.max())
        ),
        *(
            (
                _taken_out(of),
                "nll overflows where one log weight is far above the others: take out the largest "
                "of each example, so that no exp is above 1.",
            )
            for of in (np.min, np.mean)
        ),
        (
            lambda log_w: -log_w.max(axis=0),
            "nll takes the largest weight of each example alone: expected the mean of its K.",
        ),
        (
            lambda log_w: np.log(log_w.shape[1]) - evaluation.log_sum_exp(log_w.T),
            "nll averages over the examples: the K weights of an example are along the first axis.",
        ),
    ),
    hints=(
        "For any number a: log(sum of exp(log_w)) = a + log(sum of exp(log_w - a)).",
        "With a the largest log weight of each example the largest exp is 1: nothing overflows, "
        "and what underflows does not count.",
        "The mean is the sum divided by K, so its log is the log of the sum less log K.",
    ),
    derivation="""
        E_q[w] = p(x), so the mean of K weights is an unbiased estimate of p(x), and by Jensen's
        inequality its log is below log p(x) on average: a bound, the ELBO for K = 1, that becomes
        tight as K grows. With a = max log w, log(mean w) = a + log(sum exp(log w - a)) - log K.
        """,
    page="derivations/importance-weighted-bound",
    solution=(evaluation.importance_weighted_bound, evaluation.log_sum_exp),
    answer="""
        def nll(log_w):
            from scratchvae import evaluation

            return np.log(len(log_w)) - evaluation.log_sum_exp(log_w)
        """,
    limit=300.0,
)
