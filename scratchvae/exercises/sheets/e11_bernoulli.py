"""Derive: the gradient of the Bernoulli loss, from logits.

About 10 minutes. The decoder gives a logit l for every pixel, and the pixel is 1 with probability
s(l) = 1 / (1 + exp(-l)). The loss of an image x is -log p(x), summed over its D pixels:

    nll = sum of -x log s(l) - (1 - x) log(1 - s(l))
        = sum of softplus(l) - x l          equation (bernoulli), softplus(l) = log(1 + exp(l))
    dlogits = ?                             equation (bernoulli-grad)

The second line is why losses take logits: it is finite for every l.

Task: write bernoulli_nll_backward. The data x need no gradient.
"""

import numpy as np


def bernoulli_nll(x, logits):
    """Return -log p(x) in nats, (B,), and the cache; x and logits are (B, D)."""
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    nll = (softplus - x * logits).sum(axis=1)
    return nll, (x, logits)


def bernoulli_nll_backward(dnll, cache):
    """Return dlogits, (B, D), from dnll (B,)."""
    x, logits = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import likelihoods
from scratchvae.activations import sigmoid
from scratchvae.exercises.kinds import Derive


def _args(rng):
    shape = rng.permutation(np.arange(4, 8))[:2]  # B is not D, and no two mistakes agree by chance
    x, logits = rng.random(shape), 2 * rng.standard_normal(shape)  # grey: 0, 1 and between
    x.flat[:2], logits.flat[:2] = (0, 1), (800, -800)  # sure and wrong: exp(800) overflows
    return [x, logits]


def _of_probabilities(dnll, x, logits):
    y = sigmoid(logits)[0]
    return dnll[:, None] * (-x / y + (1 - x) / (1 - y))


exercise = Derive(
    pair=(likelihoods.bernoulli_nll, likelihoods.bernoulli_nll_backward),
    args=_args,
    wrt=("logits",),
    usual=(
        (
            _of_probabilities,
            "bernoulli_nll_backward returns the gradient of the probabilities where that of the "
            "logits belongs: multiply by ds/dl = s (1 - s).",
        ),
        (
            lambda dnll, x, logits: dnll[:, None] * (logits - x),
            "bernoulli_nll_backward takes the logits for probabilities: the derivative of "
            "softplus(l) is s(l), not l.",
        ),
        (
            lambda dnll, x, logits: dnll[:, None] * (sigmoid(logits)[0] - x) / len(dnll),
            "bernoulli_nll_backward averages over the batch: whoever calls it puts the mean into "
            "dnll, once.",
        ),
    ),
    hints=(
        "Differentiate softplus(l) - x l for one pixel.",
        "The derivative of log(1 + exp(l)) is exp(l) / (1 + exp(l)), the sigmoid of l. Write it so "
        "that a logit of 800 gives no infinity divided by another.",
        "dnll is (B,) and dlogits (B, D): dnll[:, None] reaches every pixel of an example.",
    ),
    derivation="""
        d softplus(l)/dl = exp(l) / (1 + exp(l)) = s(l), so dlogits = dnll (s(l) - x): what the
        model says less what is there. The package writes s(l) as exp(l - softplus(l)), since
        log s(l) = l - softplus(l), and has softplus(l) from the forward pass.
        """,
    page="derivations/bernoulli",
    solution=(likelihoods.bernoulli_nll_backward,),
    answer="from scratchvae.likelihoods import bernoulli_nll, bernoulli_nll_backward",
)
