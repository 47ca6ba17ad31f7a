"""Repair: a draw that is too narrow, or too wide.

About 15 minutes. This VAE prints a lower loss than its author expected, its gradient check passes,
and its samples are worse. The error is in the draw below. Forward and backward agree with each
other, so no gradient check can see it: what is drawn is not what is meant, N(mu, sigma^2) with
logvar = log(sigma^2), equation (sigma).

Task: first write find_the_bug, a test that finds the error. Its argument is the function to test:
it is run with the one below and with the right one. Then mend reparameterize and its backward.
"""

import numpy as np


def reparameterize(mu, logvar, eps):
    """Return draws z from N(mu, sigma^2), made from the noise eps, and the cache."""
    sigma = np.exp(logvar)
    z = mu + sigma * eps
    return z, (sigma, eps)


def reparameterize_backward(dz, cache):
    """Return (dmu, dlogvar)."""
    sigma, eps = cache
    return dz, dz * eps * sigma


def find_the_bug(reparameterize):
    """Raise AssertionError if draws do not have the distribution that mu and logvar say."""
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian, zoo
from scratchvae.exercises.kinds import Repair, normals, of_zoo, require_sampler

exercise = Repair(
    pair=(gaussian.reparameterize, gaussian.reparameterize_backward),
    bug=of_zoo(zoo.SigmaIsExpLogvar, "reparameterize"),
    args=normals(3),
    wrt=("mu", "logvar"),
    meaning=require_sampler,
    hints=(
        "A test compares with what is meant. What is the variance of many draws meant to be?",
        "Choose mu and logvar (not 0!), draw 100,000 times and compare z.var() with "
        "np.exp(logvar). How far off may it be by chance? The relative error of a variance of n "
        "draws is about sqrt(2 / n).",
        "logvar = log(sigma^2) = 2 log(sigma), so sigma = exp(logvar / 2). The derivative of that "
        "has a factor 1/2.",
    ),
    derivation="""
        logvar = log(sigma^2), so sigma = exp(logvar / 2), and dsigma/dlogvar = sigma / 2. With
        sigma = exp(logvar) the draws are too narrow wherever sigma < 1, and the KL of another
        distribution is paid than the one that is drawn from: the printed loss is too low.
        """,
    page="derivations/reparameterisation",
    solution=(gaussian.reparameterize, gaussian.reparameterize_backward),
    answer="from scratchvae.gaussian import reparameterize, reparameterize_backward",
    code="""
        def find_the_bug(reparameterize):
            n, logvar = 100_000, -2.0
            eps = np.random.default_rng().standard_normal(n)
            z, _ = reparameterize(np.full(n, 1.0), np.full(n, logvar), eps)
            # Chance moves the variance by about sqrt(2 / n) of itself, half a percent.
            assert abs(z.var() / np.exp(logvar) - 1) < 0.05
        """,
)
