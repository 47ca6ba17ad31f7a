"""Derive: the gradients of a Gaussian likelihood with a learned variance.

About 10 minutes. The decoder gives the mean of every pixel, and one number logvar, of shape (1,),
is the log variance of all of them: a parameter, learned with the others.

    nll = sum of (log(2 pi) + logvar + (x - mean)^2 / sigma^2) / 2    equation (gaussian-nll)
    dmean = ?                                                         equation (gaussian-nll-grad)
    dlogvar = ?                                                       of shape (1,)

Task: write gaussian_nll_backward. The data x need no gradient.
"""

import numpy as np


def gaussian_nll(x, mean, logvar):
    """Return -log p(x), (B,), and the cache; x and mean are (B, D), logvar is (1,)."""
    diff = x - mean
    precision = np.exp(-logvar)  # (1,), 1 / sigma^2
    nll = 0.5 * (np.log(2 * np.pi) + logvar + diff**2 * precision).sum(axis=1)
    return nll, (diff, precision)


def gaussian_nll_backward(dnll, cache):
    """Return (dmean, dlogvar), (B, D) and (1,), from dnll (B,)."""
    diff, precision = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian, likelihoods
from scratchvae.exercises.kinds import Derive


def _args(rng):
    shape = rng.permutation(np.arange(2, 6))[:2]  # B is not D
    return [rng.standard_normal(shape) for _ in range(2)] + [rng.standard_normal(1)]


def _wrong(change):
    """Return a backward whose summands (B, D) of dlogvar are changed into dlogvar."""

    def backward(dnll, x, mean, logvar):
        diff, precision = x - mean, np.exp(-logvar)
        terms = dnll[:, None] * 0.5 * (1 - diff**2 * precision)
        return dnll[:, None] * -diff * precision, change(terms, dnll, diff)

    return backward


exercise = Derive(
    pair=(likelihoods.gaussian_nll, likelihoods.gaussian_nll_backward),
    args=_args,
    wrt=("mean", "logvar"),
    usual=(
        (
            _wrong(lambda terms, dnll, diff: terms),
            "gaussian_nll_backward does not sum dlogvar: the one logvar is broadcast along both "
            "axes, so its gradient is the sum over both.",
        ),
        (
            _wrong(lambda terms, dnll, diff: terms.mean().reshape(1)),
            "gaussian_nll_backward averages dlogvar over pixels and examples: one logvar reaches "
            "all of them, and gradients that meet add.",
        ),
        (
            _wrong(
                lambda terms, dnll, diff: (
                    terms.sum() - 0.5 * (diff.shape[1] - 1) * dnll.sum()
                ).reshape(1)
            ),
            "gaussian_nll_backward counts logvar once for each image: it is in the summand of "
            "every pixel, so its 1/2 counts D times.",
        ),
        (
            _wrong(lambda terms, dnll, diff: (terms - 0.5 * dnll[:, None]).sum().reshape(1)),
            "gaussian_nll_backward forgets that logvar is in the sum by itself, too: without that "
            "term the variance would grow without end.",
        ),
    ),
    hints=(
        "It is minus the log density of the last exercise, at x: what changes in its gradients?",
        "One logvar is used by B times D summands. Gradients that meet in one number add.",
        "Compute the gradient as if logvar were (B, D), then sum it over both axes: "
        ".sum().reshape(1).",
    ),
    derivation="""
        One summand is (log(2 pi) + logvar + d^2 p) / 2 with d = x - mean and p = exp(-logvar). So
        dmean = dnll (-d p), and each pixel gives logvar the gradient dnll (1 - d^2 p) / 2. logvar
        is broadcast along both axes, so its gradient is summed over both. It is 0 where sigma^2 is
        the mean squared error: that is the best variance. The package has it from log_density.
        """,
    page="derivations/gaussian-likelihood",
    solution=(likelihoods.gaussian_nll_backward, gaussian.log_density_backward, gaussian._sum_to),
    answer="from scratchvae.likelihoods import gaussian_nll, gaussian_nll_backward",
)
