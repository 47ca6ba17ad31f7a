"""Derive: the gradients of the log density of a Gaussian.

About 15 minutes. The log density in nats of z under N(mu, sigma^2), summed over its dimensions:

    logp = sum of -(log(2 pi) + logvar + (z - mu)^2 / sigma^2) / 2    equation (log-density)
    dz = ?                                                            equation (log-density-grad-z)
    dmu = ?                                                           equation (log-density-grad-mu)
    dlogvar = ?                                                   equation (log-density-grad-logvar)

With it you can score draws, train with importance weights, and write the next exercise.

Task: write log_density_backward.
"""

import numpy as np


def log_density(z, mu, logvar):
    """Return log N(z; mu, sigma^2), (B,), and the cache; the arguments are (B, Z)."""
    diff = z - mu
    precision = np.exp(-logvar)  # 1 / sigma^2
    logp = -0.5 * (np.log(2 * np.pi) + logvar + diff**2 * precision).sum(axis=1)
    return logp, (diff, precision)


def log_density_backward(dlogp, cache):
    """Return (dz, dmu, dlogvar), (B, Z) each, from dlogp (B,)."""
    diff, precision = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian
from scratchvae.exercises.kinds import Derive, normals


def _no_normaliser(dlogp, z, mu, logvar):
    dz = -dlogp[:, None] * (z - mu) * np.exp(-logvar)
    return dz, -dz, -0.5 * dz * (z - mu)


def _all_same_sign(dlogp, z, mu, logvar):
    dz, _, dlogvar = gaussian.log_density_backward(dlogp, gaussian.log_density(z, mu, logvar)[1])
    return dz, dz, dlogvar


exercise = Derive(
    pair=(gaussian.log_density, gaussian.log_density_backward),
    args=normals(3),
    wrt=("z", "mu", "logvar"),
    usual=(
        (
            _no_normaliser,
            "log_density_backward forgets that logvar is in the sum by itself, too: dlogvar lacks "
            "the term -1/2.",
        ),
        (
            _all_same_sign,
            "log_density_backward gives dmu the sign of dz: only z - mu enters, so dmu = -dz.",
        ),
    ),
    hints=(
        "Only diff = z - mu enters. Find the gradient of diff first: dz is it, and dmu minus it.",
        "precision = exp(-logvar) has the derivative -precision with respect to logvar.",
        "Two terms depend on logvar: logvar itself, and diff^2 precision.",
    ),
    derivation="""
        One summand is -(log(2 pi) + logvar + d^2 p) / 2 with d = z - mu and p = exp(-logvar). Its
        derivative with respect to d is -d p: that is dz, and dmu = -dz. With respect to logvar it
        is -(1 - d^2 p) / 2 = (d^2 p - 1) / 2, which is 0 on average where z is drawn from this
        very density. The package's lines also sum over axes along which an argument is broadcast.
        """,
    page="derivations/log-density",
    solution=(gaussian.log_density_backward,),
    answer="from scratchvae.gaussian import log_density, log_density_backward",
)
