"""Predict: what does a code cost?

About 10 minutes. In one latent dimension every example has a posterior N(mu, sigma^2), with the
same small sigma. The means mu of the examples are spread out so that the draws of all examples
together have the distribution of the prior: mu ~ N(0, 1 - sigma^2).

How many nats of KL does this dimension cost on average over the examples? Think of a drawer of
width 1 that is divided into compartments of width sigma: how much does it say to name one?

Task: before you run anything, write the law that you expect as a function of sigma. It is compared
with the KL of many drawn examples for several sigma from 0.05 to 0.5, and may be off by 5%.
"""

import numpy as np


def answer(sigma):
    """Return the mean KL in nats."""
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian
from scratchvae.exercises.kinds import Predict


def _truth(rng, sigma):
    mu = np.sqrt(1 - sigma**2) * rng.standard_normal((100_000, 1))  # (N, 1)
    logvar = np.full_like(mu, 2 * np.log(sigma))
    return gaussian.kl_standard_normal(mu, logvar)[0].mean()


exercise = Predict(
    what="the mean KL in nats",
    truth=_truth,
    args=lambda rng: [float(rng.uniform(0.05, 0.5))],
    relative=0.05,
    usual=(
        (
            lambda sigma: 0.5 * (sigma**2 - 1) - np.log(sigma),
            "That is the KL at mu = 0 alone. The means are spread out, and the mean of mu^2 is "
            "1 - sigma^2.",
        ),
        (
            lambda sigma: -2 * np.log(sigma),
            "That is -log(sigma^2): the KL holds half of it.",
        ),
        (
            lambda sigma: -np.log2(sigma),
            "That is the answer in bits: a KL in nats has the natural logarithm.",
        ),
    ),
    hints=(
        "Write down the KL, (mu^2 + sigma^2 - 1 - log(sigma^2)) / 2, and take the mean over mu.",
        "The mean of mu^2 is its variance, 1 - sigma^2.",
    ),
    derivation="""
        The mean of (mu^2 + sigma^2 - 1 - log(sigma^2)) / 2 over mu with E[mu^2] = 1 - sigma^2 is
        -log(sigma^2) / 2 = log(1 / sigma): all else cancels. So a dimension that tells 1/sigma
        places apart costs log(1/sigma) nats. With sigma = 1 it says nothing and costs nothing.
        """,
    page="derivations/kl",
    solution=(gaussian.kl_per_dimension,),
    answer="""
        def answer(sigma):
            from scratchvae import gaussian

            mu = np.sqrt(1 - sigma**2) * np.random.default_rng().standard_normal((100_000, 1))
            return gaussian.kl_standard_normal(mu, np.full_like(mu, 2 * np.log(sigma)))[0].mean()
        """,
)
