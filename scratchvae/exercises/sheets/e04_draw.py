"""Derive: the gradient of a draw.

About 10 minutes. The encoder gives mu and logvar = log(sigma^2) for each example, and a code is a
draw from N(mu, sigma^2). A draw has no gradient. But written like this it has, since z is a
function of mu and logvar, and the noise eps from N(0, 1) is an argument like any other:

    sigma = exp(logvar / 2)   equation (sigma)
    z = mu + sigma * eps      equation (reparameterize)
    dmu = ?                   equation (reparameterize-grad-mu)
    dlogvar = ?               equation (reparameterize-grad-logvar)

Task: write reparameterize_backward. eps is noise and needs no gradient.
"""

import numpy as np


def reparameterize(mu, logvar, eps):
    """Return draws z from N(mu, sigma^2), and the cache; all arrays are (B, Z)."""
    sigma = np.exp(0.5 * logvar)
    z = mu + sigma * eps
    return z, (sigma, eps)


def reparameterize_backward(dz, cache):
    """Return (dmu, dlogvar)."""
    sigma, eps = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import gaussian
from scratchvae.exercises.kinds import Derive, normals

exercise = Derive(
    pair=(gaussian.reparameterize, gaussian.reparameterize_backward),
    args=normals(3),
    wrt=("mu", "logvar"),
    usual=(
        (
            lambda dz, mu, logvar, eps: (dz, 0 * dz),
            "reparameterize_backward gives logvar no gradient: z depends on it through sigma.",
        ),
        (
            lambda dz, mu, logvar, eps: (dz, dz * eps),
            "reparameterize_backward returns the gradient of sigma where that of logvar belongs: "
            "multiply by dsigma/dlogvar.",
        ),
    ),
    hints=(
        "z reaches the loss through dz. How much does z move when mu moves by a little?",
        "For logvar use the chain rule: dz/dlogvar = dz/dsigma * dsigma/dlogvar.",
        "The derivative of exp(logvar / 2) is exp(logvar / 2) / 2, which is sigma / 2.",
    ),
    derivation="""
        dz/dmu = 1, so dmu = dz. dz/dsigma = eps and dsigma/dlogvar = sigma/2, so
        dlogvar = dz * eps * sigma / 2. The same eps as in the forward pass: the gradient belongs
        to the draw that was made.
        """,
    page="derivations/reparameterisation",
    solution=(gaussian.reparameterize_backward,),
    answer="from scratchvae.gaussian import reparameterize_backward",
)
