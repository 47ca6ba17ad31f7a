r"""The heart of a VAE: what the vectors mu and logvar mean, and the gradients that reach them.

For one example x the encoder gives two vectors, mu and logvar = log(sigma^2), both (Z,). They are
the parameters of a distribution over codes, q(z|x) = N(mu, diag(sigma^2)): mu says where the codes
of x lie, sigma how far they spread. Each function here has its backward directly below it. Leading
axes are free (a batch, or K samples of a batch) and broadcast; the last axis is summed.

Sources: D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes", 2013, section 2.4 for the
reparameterisation and appendix B for the KL.
"""

from __future__ import annotations

import math

from .backend import Array, namespace
from .kernels import compiled

LOG_2PI = math.log(2 * math.pi)


@compiled
def reparameterize(mu: Array, logvar: Array, eps: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return draws z from N(mu, sigma^2), made from the noise eps, and the cache.

    Since z is a function of mu and logvar, gradients can pass through the draw.

    Parameters
    ----------
    mu, logvar : (B, Z)
    eps : (B, Z) or (K, B, Z), as z
        Draws from N(0, 1). They are an argument so that a check can use the same ones again.
    """
    # [sigma]  logvar = log(sigma^2), hence sigma = exp(logvar / 2) and not exp(logvar)
    sigma = namespace(mu).exp(0.5 * logvar)  # (B, Z)
    # [reparameterize]
    z = mu + sigma * eps  # (B, Z)
    return z, (sigma, eps)


@compiled
def reparameterize_backward(dz: Array, cache: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return (dmu, dlogvar), (B, Z) each, for the noise that the forward pass used."""
    sigma, eps = cache
    # [reparameterize-grad-mu]
    dmu = _sum_to(dz, sigma.shape)  # (B, Z)
    # [reparameterize-grad-logvar]  dsigma/dlogvar = sigma / 2
    dlogvar = _sum_to(dz * eps, sigma.shape) * (0.5 * sigma)  # (B, Z)
    return dmu, dlogvar


def kl_per_dimension(mu: Array, logvar: Array) -> Array:
    """Return the KL divergence of each N(mu_j, sigma_j^2) from N(0, 1) in nats, (B, Z)."""
    # [kl]  (mu^2 + sigma^2 - 1 - logvar) / 2; expm1(logvar) = sigma^2 - 1 without cancellation
    return 0.5 * (mu * mu + namespace(mu).expm1(logvar) - logvar)  # (B, Z)


@compiled
def kl_standard_normal(mu: Array, logvar: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return KL(N(mu, diag(sigma^2)) || N(0, I)) in nats, (B,), and the cache.

    It is 0 only where mu = 0 and logvar = 0, and positive elsewhere.
    """
    # [kl-sum]  the dimensions of q are independent, so their divergences add: a sum, not a mean
    return kl_per_dimension(mu, logvar).sum(axis=-1), (mu, logvar)  # (B,)


@compiled
def kl_standard_normal_backward(dkl: Array, cache: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return (dmu, dlogvar), (B, Z), from dkl (B,)."""
    mu, logvar = cache
    # [kl-grad-mu]
    dmu = dkl[..., None] * mu  # (B, Z)
    # [kl-grad-logvar]
    dlogvar = dkl[..., None] * (0.5 * namespace(mu).expm1(logvar))  # (B, Z)
    return dmu, dlogvar


def log_density(z: Array, mu: Array, logvar: Array) -> tuple[Array, tuple[Array, ...]]:
    """Return log N(z; mu, diag(sigma^2)) in nats, with its constant, (B,), and the cache.

    `logvar` may have any shape that broadcasts to (B, Z), such as () for one shared variance.
    """
    logvar = namespace(z).asarray(logvar, dtype=z.dtype)
    diff = z - mu  # (B, Z)
    precision = namespace(z).exp(-logvar)  # like logvar
    # [log-density]  -(log(2 pi) + log(sigma^2) + (z - mu)^2 / sigma^2) / 2, summed over dimensions
    logp = -0.5 * (LOG_2PI + logvar + diff * diff * precision).sum(axis=-1)  # (B,)
    return logp, (diff, precision, z.shape, mu.shape)


def log_density_backward(dlogp: Array, cache: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Return (dz, dmu, dlogvar), each in the shape of its argument, from dlogp (B,)."""
    diff, precision, z_shape, mu_shape = cache
    # [log-density-grad-z]
    dz = dlogp[..., None] * (-diff * precision)  # (B, Z)
    # [log-density-grad-logvar]
    dlogvar = dlogp[..., None] * (0.5 * (diff * diff * precision - 1))  # (B, Z)
    # [log-density-grad-mu]  only z - mu enters, so dmu = -dz
    return _sum_to(dz, z_shape), _sum_to(-dz, mu_shape), _sum_to(dlogvar, precision.shape)


def _sum_to(d: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which its argument, of `shape`, was broadcast."""
    if d.shape == shape:
        return d
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] != 1)
    return d.sum(axis=stretched, keepdims=True)
