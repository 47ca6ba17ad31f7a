"""Repair: a likelihood that is none.

About 10 minutes. This VAE for real-valued data has a loss that its author reports as -log p(x).
Another group, with the same model, reports 0.92 nats more for every dimension of the data. The
error is in the Gaussian below, and no gradient can show it.

    p(x) = N(x; mean, sigma^2) is a density: its integral over all x is 1    equation (gaussian-nll)

Task: first write find_the_bug, a test that finds the error. Its argument is the function to test:
it is run with the one below and with the right one. Then mend gaussian_nll.
"""

import numpy as np


def gaussian_nll(x, mean, logvar):
    """Return -log p(x), (B,), and the cache; x and mean are (B, D), logvar is (1,)."""
    diff = x - mean
    precision = np.exp(-logvar)  # (1,), 1 / sigma^2
    nll = 0.5 * (logvar + diff**2 * precision).sum(axis=1)
    return nll, (diff, precision)


def gaussian_nll_backward(dnll, cache):
    """Return (dmean, dlogvar), (B, D) and (1,), from dnll (B,)."""
    diff, precision = cache
    dmean = dnll[:, None] * -diff * precision
    dlogvar = (dnll[:, None] * 0.5 * (1 - diff**2 * precision)).sum().reshape(1)
    return dmean, dlogvar


def find_the_bug(gaussian_nll):
    """Raise AssertionError if exp(-nll) is not a density."""
    raise NotImplementedError


# --- what judges it

from scratchvae import likelihoods, zoo
from scratchvae.exercises.kinds import Repair


def _bug(x, mean, logvar):
    model = zoo.GaussianWithoutConstant(
        x.shape[-1], (), 1, likelihood="gaussian", variance="per-dimension", dtype="float64"
    )
    output = np.broadcast_arrays(x, mean, logvar)[1:]
    return model.nll(x, np.concatenate(output, axis=-1))


def _args(rng):
    shape = rng.permutation(np.arange(2, 6))[:2]
    return [rng.standard_normal(shape) for _ in range(2)] + [rng.standard_normal(1)]


exercise = Repair(
    pair=(likelihoods.gaussian_nll, likelihoods.gaussian_nll_backward),
    bug=_bug,
    args=_args,
    wrt=("mean", "logvar"),
    hints=(
        "What is the density of N(0, 1) at 0? What does this function say?",
        "exp(-nll) is to have the integral 1 over x: for D = 1, sum it over a fine grid times the "
        "step of the grid. Or compare with scipy.stats.norm.logpdf.",
        "The density of N(0, 1) at 0 is 1 / sqrt(2 pi), so nll is log(2 pi) / 2 there, for every "
        "dimension.",
    ),
    derivation="""
        log N(x; m, sigma^2) = -(log(2 pi) + logvar + (x - m)^2 / sigma^2) / 2. The constant has no
        gradient, so training does not miss it. But log(2 pi) / 2 = 0.919 nats for each dimension
        is missing from what is reported, and no density has that loss.
        """,
    page="derivations/gaussian-likelihood",
    solution=(likelihoods.gaussian_nll,),
    answer="from scratchvae.likelihoods import gaussian_nll, gaussian_nll_backward",
    code="""
        def find_the_bug(gaussian_nll):
            x = np.arange(-12, 12, 0.01)[:, None]
            nll, _ = gaussian_nll(x, np.zeros_like(x), np.zeros(1))
            assert abs(np.exp(-nll).sum() * 0.01 - 1) < 1e-9
        """,
)
