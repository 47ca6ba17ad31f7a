"""Derive: the gradient of the KL divergence.

About 10 minutes. The loss pays for each code that its posterior N(mu, sigma^2) differs from the
prior N(0, 1). In nats, summed over the Z latent dimensions,

    kl = sum of (mu^2 + sigma^2 - 1 - logvar) / 2         equations (kl) and (kl-sum)
    dmu = ?                                               equation (kl-grad-mu)
    dlogvar = ?                                           equation (kl-grad-logvar)

with logvar = log(sigma^2). kl has one value for each example, (B,), and so has dkl.

Task: write kl_standard_normal_backward.
"""

import numpy as np


def kl_standard_normal(mu, logvar):
    """Return the divergence of N(mu, sigma^2) from N(0, 1), (B,), and the cache."""
    kl = 0.5 * (mu * mu + np.exp(logvar) - 1 - logvar).sum(axis=1)
    return kl, (mu, logvar)


def kl_standard_normal_backward(dkl, cache):
    """Return (dmu, dlogvar), (B, Z) each, from dkl (B,)."""
    mu, logvar = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian
from scratchvae.exercises.kinds import Derive, normals

exercise = Derive(
    pair=(gaussian.kl_standard_normal, gaussian.kl_standard_normal_backward),
    args=normals(2),
    wrt=("mu", "logvar"),
    usual=(
        (
            lambda dkl, mu, logvar: (dkl[:, None] * mu, dkl[:, None] * 0.5 * np.exp(logvar)),
            "kl_standard_normal_backward forgets that logvar itself is in the sum, with a minus: "
            "dlogvar lacks the term -1/2.",
        ),
        (
            lambda dkl, mu, logvar: (dkl[:, None] * mu, dkl[:, None] * (np.exp(logvar) - 1)),
            "kl_standard_normal_backward gives 2 times the right dlogvar: the factor 1/2 in front "
            "of the sum is missing. In dmu the square's 2 cancels it.",
        ),
        (
            lambda dkl, mu, logvar: (
                dkl[:, None] * mu,
                dkl[:, None] * (np.exp(logvar / 2) - np.exp(-logvar / 2)),
            ),
            "kl_standard_normal_backward returns the gradient of sigma where that of logvar "
            "belongs: multiply by dsigma/dlogvar = sigma / 2.",
        ),
    ),
    hints=(
        "Each dimension has its own mu and logvar, so differentiate one summand of the sum.",
        "sigma^2 = exp(logvar): what is its derivative with respect to logvar?",
        "dkl is (B,) and the gradients are (B, Z): dkl[:, None] is (B, 1) and reaches every "
        "dimension.",
    ),
    derivation="""
        One summand is (mu^2 + exp(logvar) - 1 - logvar) / 2. Its derivative with respect to mu is
        2 mu / 2 = mu, and with respect to logvar (exp(logvar) - 1) / 2. Both are 0 at mu = 0,
        logvar = 0, where the posterior is the prior. expm1(logvar) is exp(logvar) - 1 without
        cancellation near 0.
        """,
    page="derivations/kl",
    solution=(gaussian.kl_standard_normal_backward,),
    answer="from scratchvae.gaussian import kl_standard_normal_backward",
)
