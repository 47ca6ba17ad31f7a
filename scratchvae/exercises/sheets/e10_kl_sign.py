"""Repair: a KL with a wrong sign.

About 10 minutes. While this VAE trains, its KL falls below 0 and goes on falling. The error is in
the KL below. Forward and backward agree with each other, and at the prior, mu = 0 and logvar = 0,
the KL is 0 as it should be. A divergence has one more property, whatever mu and logvar.

Task: first write find_the_bug, a test that finds the error. Its argument is the function to test:
it is run with the one below and with the right one. Then mend kl_standard_normal and its backward.
"""

import numpy as np


def kl_standard_normal(mu, logvar):
    """Return the divergence of N(mu, sigma^2) from N(0, 1) in nats, (B,), and the cache."""
    kl = 0.5 * (mu * mu + np.exp(logvar) - 1 + logvar).sum(axis=1)
    return kl, (mu, logvar)


def kl_standard_normal_backward(dkl, cache):
    """Return (dmu, dlogvar), (B, Z) each, from dkl (B,)."""
    mu, logvar = cache
    return dkl[:, None] * mu, dkl[:, None] * 0.5 * (np.exp(logvar) + 1)


def find_the_bug(kl_standard_normal):
    """Raise AssertionError if it cannot be a divergence."""
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian, zoo
from scratchvae.exercises.kinds import Repair, normals, of_zoo, require_divergence

exercise = Repair(
    pair=(gaussian.kl_standard_normal, gaussian.kl_standard_normal_backward),
    bug=of_zoo(zoo.KLLogvarAdded, "kl"),
    args=normals(2),
    wrt=("mu", "logvar"),
    meaning=require_divergence,
    hints=(
        "May a divergence be negative?",
        "It is never negative. Which logvar makes this one negative, at mu = 0?",
        "Turn the sign of logvar in the sum, and of what it gives the gradient: (exp(logvar) - 1) "
        "/ 2 is 0 at logvar = 0, where the divergence has its minimum.",
    ),
    derivation="""
        The summand is (mu^2 + sigma^2 - 1 - logvar) / 2. Since exp(l) >= 1 + l, it is never
        negative, and it is 0 at mu = 0, logvar = 0 alone. With + logvar it falls without bound as
        sigma goes to 0: the model is paid for being sure.
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
            logvar = np.linspace(-5, 3, 100)[:, None]
            kl, _ = kl_standard_normal(np.zeros_like(logvar), logvar)
            assert (kl >= 0).all()
        """,
)
