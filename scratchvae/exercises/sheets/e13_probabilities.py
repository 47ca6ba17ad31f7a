"""Repair: a loss that cannot exceed 20.7 nats for a pixel.

About 15 minutes. Somebody took the textbook's formula for the Bernoulli loss, got a log(0), and
added 1e-9. Forward and backward agree with each other. But where the model is sure and wrong, the
loss stops growing, and the gradient, which should pull hardest there, vanishes.

    nll = sum of -x log s(l) - (1 - x) log(1 - s(l))    equation (bernoulli), s(l) the sigmoid

Task: first write find_the_bug, a test that finds the error. Its argument is the function to test:
it is run with the one below and with the right one. Then mend bernoulli_nll and its
backward: take logits, as in 11_bernoulli.py.
"""

import numpy as np


def bernoulli_nll(x, logits):
    """Return -log p(x) in nats, (B,), and the cache; x and logits are (B, D)."""
    y = 1 / (1 + np.exp(-logits))
    nll = -(x * np.log(y + 1e-9) + (1 - x) * np.log(1 - y + 1e-9)).sum(axis=1)
    return nll, (x, y)


def bernoulli_nll_backward(dnll, cache):
    """Return dlogits, (B, D), from dnll (B,)."""
    x, y = cache
    dy = -x / (y + 1e-9) + (1 - x) / (1 - y + 1e-9)
    return dnll[:, None] * dy * y * (1 - y)


def find_the_bug(bernoulli_nll):
    """Raise AssertionError if it is not -log p(x), for logits of any size."""
    raise NotImplementedError


# --- what judges it

from scratchvae import likelihoods, zoo
from scratchvae.exercises.kinds import Repair, of_zoo


def _args(rng):
    shape = rng.permutation(np.arange(2, 6))[:2]
    x, logits = rng.integers(0, 2, shape).astype(float), 2 * rng.standard_normal(shape)
    x.flat[:2], logits.flat[:2] = (0, 1), (800, -800)  # sure and wrong: exp(800) overflows
    return [x, logits]


exercise = Repair(
    pair=(likelihoods.bernoulli_nll, likelihoods.bernoulli_nll_backward),
    bug=of_zoo(zoo.LossOfProbabilities, "nll"),
    args=_args,
    wrt=("logits",),
    hints=(
        "Where is 1e-9 not small? Where y or 1 - y is smaller still.",
        "Let a pixel be 0 and its logit 40. What is -log(1 - s(40)), to a few digits?",
        "log(1 + exp(l)) is finite for every l if it is written max(l, 0) + log1p(exp(-|l|)).",
    ),
    derivation="""
        For x = 0 the loss of a pixel is log(1 + exp(l)), about l for large l; here it is
        -log(1e-9) = 20.7 at most. On logits nothing has to be added: softplus(l) - x l is exact,
        and its gradient s(l) - x does not vanish where the model is sure and wrong.
        """,
    page="derivations/bernoulli",
    solution=(likelihoods.bernoulli_nll, likelihoods.bernoulli_nll_backward),
    answer="from scratchvae.likelihoods import bernoulli_nll, bernoulli_nll_backward",
    code="""
        def find_the_bug(bernoulli_nll):
            # A pixel that is 0, with a logit of 40, has the loss log(1 + exp(40)) = 40.
            nll, _ = bernoulli_nll(np.zeros((1, 1)), np.full((1, 1), 40.0))
            assert abs(nll[0] - 40) < 1e-9
        """,
)
