"""Repair: a KL that hardly counts.

About 10 minutes. In this VAE every latent dimension is in use, the reconstructions are sharp, and
samples from the prior are rubbish: as if beta were far below 1. The error is in the KL below.
Forward and backward agree with each other, so a gradient check passes. The KL that is meant is

    the mean of log q(z) - log p(z) over draws z of q = N(mu, sigma^2), with p = N(0, 1),
    each a sum over the Z latent dimensions                     equations (kl) and (kl-sum)

Task: first write find_the_bug, a test that finds the error. Its argument is the function to test:
it is run with the one below and with the right one. Then mend kl_standard_normal and its backward.
"""

import numpy as np


def kl_standard_normal(mu, logvar):
    """Return the divergence of N(mu, sigma^2) from N(0, 1) in nats, (B,), and the cache."""
    kl = 0.5 * (mu * mu + np.exp(logvar) - 1 - logvar).mean(axis=1)
    return kl, (mu, logvar)


def kl_standard_normal_backward(dkl, cache):
    """Return (dmu, dlogvar), (B, Z) each, from dkl (B,)."""
    mu, logvar = cache
    dkl = dkl[:, None] / mu.shape[1]
    return dkl * mu, dkl * 0.5 * (np.exp(logvar) - 1)


def find_the_bug(kl_standard_normal):
    """Raise AssertionError if it is not the divergence in nats."""
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian, zoo
from scratchvae.exercises.kinds import Repair, normals, of_zoo, require_divergence

exercise = Repair(
    pair=(gaussian.kl_standard_normal, gaussian.kl_standard_normal_backward),
    bug=of_zoo(zoo.KLAveraged, "kl"),
    args=normals(2),
    wrt=("mu", "logvar"),
    meaning=require_divergence,
    hints=(
        "Find a case that you can do by hand. With one dimension, what is the KL of N(1, 1)?",
        "The error does not show with one dimension. What is the KL of two such dimensions?",
        "The dimensions of q are independent, so their divergences add: a sum, not a mean.",
    ),
    derivation="""
        q and p are products over the dimensions, so log q(z) - log p(z) is a sum over them, and so
        is its mean. Averaged over Z dimensions it is the KL with beta = 1/Z, by accident. N(1, 1)
        has the divergence 1/2 from N(0, 1), so Z such dimensions have Z/2.
        """,
    page="derivations/kl",
    solution=(
        gaussian.kl_per_dimension,
        gaussian.kl_standard_normal,
        gaussian.kl_standard_normal_backward,
    ),
    answer="from scratchvae.gaussian import kl_standard_normal, kl_standard_normal_backward",
    code="""
        def find_the_bug(kl_standard_normal):
            # By hand: N(1, 1) has the divergence 1/2, and the dimensions add.
            kl, _ = kl_standard_normal(np.ones((1, 3)), np.zeros((1, 3)))
            assert abs(kl[0] - 1.5) < 1e-12
        """,
)
