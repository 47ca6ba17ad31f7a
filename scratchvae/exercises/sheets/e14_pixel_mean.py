"""Repair: a VAE whose latent units die.

About 10 minutes. After a few epochs the KL of this VAE is 0, no latent unit is in use, and all
reconstructions are the same grey blur. Its KL is right. The error is in the reconstruction term
below, and forward and backward agree with each other. What is meant is -log p(x), in nats, of the
whole image, equation (bernoulli): exp(-nll) is the probability of that image.

Task: first write find_the_bug, a test that finds the error. Its argument is the function to test:
it is run with the one below and with the right one. Then mend bernoulli_nll and its backward.
"""

import numpy as np


def bernoulli_nll(x, logits):
    """Return -log p(x) in nats, (B,), and the cache; x and logits are (B, D)."""
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    nll = (softplus - x * logits).mean(axis=1)
    return nll, (x, logits)


def bernoulli_nll_backward(dnll, cache):
    """Return dlogits, (B, D), from dnll (B,)."""
    x, logits = cache
    return dnll[:, None] / x.shape[1] * (1 / (1 + np.exp(-logits)) - x)


def find_the_bug(bernoulli_nll):
    """Raise AssertionError if exp(-nll) is not the probability of an image."""
    raise NotImplementedError


# --- what judges it

from scratchvae import likelihoods, zoo
from scratchvae.exercises.kinds import Repair, of_zoo


def _args(rng):
    shape = rng.permutation(np.arange(2, 6))[:2]
    x, logits = rng.random(shape), 2 * rng.standard_normal(shape)
    x.flat[:2], logits.flat[:2] = (0, 1), (800, -800)  # sure and wrong: exp(800) overflows
    return [x, logits]


exercise = Repair(
    pair=(likelihoods.bernoulli_nll, likelihoods.bernoulli_nll_backward),
    bug=of_zoo(zoo.ReconstructionAveraged, "nll"),
    args=_args,
    wrt=("logits",),
    hints=(
        "With all logits 0 every image of D pixels has the same probability. Which?",
        "It is 2^-D, so nll = D log 2. Or: the probabilities of all images of two pixels add up "
        "to 1.",
        "The pixels are independent, so their log probabilities add: a sum, not a mean.",
    ),
    derivation="""
        p(x|z) is a product over the pixels, so -log p(x|z) is a sum over them. Averaged, it is
        divided by D, and beside it the KL counts D times too much: beta = D by accident, 784 for
        MNIST. No code is worth that price, so the posterior collapses to the prior.
        """,
    page="derivations/kl-weight",
    solution=(likelihoods.bernoulli_nll, likelihoods.bernoulli_nll_backward),
    answer="from scratchvae.likelihoods import bernoulli_nll, bernoulli_nll_backward",
    code="""
        def find_the_bug(bernoulli_nll):
            images = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)  # all of two pixels
            logits = np.tile(np.random.default_rng().standard_normal(2), (4, 1))
            nll, _ = bernoulli_nll(images, logits)
            assert abs(np.exp(-nll).sum() - 1) < 1e-12
        """,
)
