r"""A prior that is learned: a mixture of K Gaussians instead of N(0, I).

    p(z) = sum_k pi_k N(z; m_k, diag(s_k^2)),  KL(q || p) = -(entropy of q) - E_q[log p(z)]

It goes where the codes of the data lie. But no formula gives its KL from q = N(mu, diag(sigma^2)),
since the logarithm of a sum has no mean in closed form. The entropy of q has one; log p(z) is taken
at the draw that the decoder sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .backend import (
    Array,
    Backend,
    RandomSource,
    asnumpy,
    get_backend,
    get_dtype,
    get_rng,
    namespace,
)
from .errors import check_size
from .gaussian import LOG_2PI, reparameterize
from .parameters import Parameter


class MixturePrior:
    """A mixture of K Gaussians whose weights, means and variances are learned with the model.

    It begins near N(0, I): equal weights, variances of 1/2, and means drawn from N(0, 1/2), so that
    mean and variance of the whole are about 0 and 1. The means must differ, since components that
    are equal have equal gradients, and so stay equal.

    Parameters
    ----------
    latent_dim : int
        Z, that of the model.
    components : int
        K.
    rng : None, int, SeedSequence or Generator
        Draws the means. With the default all mixtures of one size begin alike.
    backend, dtype : optional
        As for :class:`~scratchvae.VAE`. If they are not given they are those of the model that the
        prior is handed to, and until then NumPy and float64. A model refuses others than its own.

    Attributes
    ----------
    logits : Parameter
        (K,); pi is their softmax.
    mean, logvar : Parameter
        (K, Z); m_k and log(s_k^2).
    """

    kind = "mixture"  # the name under which a model builds it
    standard = False  # its KL is `kl` below, and not that of VAE

    def __init__(
        self,
        latent_dim: int,
        components: int,
        *,
        rng: RandomSource = 0,
        backend: str | Backend | None = None,
        dtype: Any = None,
    ) -> None:
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.components = check_size("components", components)
        self._backend, self._dtype = backend, dtype
        mean = get_rng(rng).standard_normal((self.components, self.latent_dim))
        self.mean = Parameter(0.5**0.5 * mean)
        self.logvar = Parameter(np.full_like(mean, np.log(0.5)))
        self.logits = Parameter(np.zeros(self.components))
        self.adopt("numpy", "float64")

    def adopt(self, backend: str | Backend, dtype: Any) -> None:
        """Make the parameters arrays of a model's backend and dtype, unless others were asked for.

        They are new ones where that changes them.
        """
        backend = get_backend(backend if self._backend is None else self._backend)
        dtype = get_dtype(dtype if self._dtype is None else self._dtype)
        for name, p in self.named_parameters():
            if namespace(p.value) is not backend.xp or p.value.dtype != dtype:
                setattr(self, name, Parameter(backend.asarray(p.value, dtype=dtype)))

    def log_density(self, z: Array) -> tuple[Array, Any]:
        """Return log p(z) in nats, (...), for codes z (..., Z), and the cache."""
        # Everything is in float64: the square below is a difference of large numbers where a
        # component is narrow and far from 0.
        xp, shape, dtype = namespace(z), z.shape[:-1], z.dtype
        z = z.reshape(-1, self.latent_dim).astype(np.float64)  # (N, Z)
        logits, mean, logvar = (p.value.astype(np.float64) for _, p in self.named_parameters())
        precision = xp.exp(-logvar)  # (K, Z)
        # [mixture-square]  sum_j (z_j - m_j)^2 / s_j^2 as matrix products: no array (N, K, Z)
        square = (z * z) @ precision.T - 2 * (z @ (mean * precision).T)  # (N, K)
        square += (mean * mean * precision).sum(axis=1)
        # [mixture-component]  log pi_k + log N(z; m_k, s_k^2)
        log_pi = logits - _log_sum_exp(logits)  # (K,)
        log_each = log_pi - 0.5 * (LOG_2PI + logvar).sum(axis=1) - 0.5 * square  # (N, K)
        # [mixture-log-density]
        log_p = _log_sum_exp(log_each)  # (N, 1)
        # [mixture-responsibility]  the share of component k in p(z)
        r = xp.exp(log_each - log_p)  # (N, K)
        cache = r, z, mean, precision, xp.exp(log_pi), dtype
        return log_p.reshape(shape).astype(dtype), cache

    def log_density_backward(self, dlogp: Array, cache: Any) -> Array:
        """Add to the gradients of logits, mean and logvar; return dz (..., Z) for dlogp (...)."""
        r, z, mean, precision, pi, dtype = cache
        weight = dlogp.reshape(-1, 1) * r  # (N, K)
        total = weight.sum(axis=0)  # (K,)
        # [mixture-grad-logits]
        self.logits.add(total - pi * total.sum())  # (K,)
        total = total[:, None]  # (K, 1)
        z1, z2 = weight.T @ z, weight.T @ (z * z)  # (K, Z) each: sums over the rows
        # [mixture-grad-mean]
        self.mean.add((z1 - total * mean) * precision)  # (K, Z)
        # [mixture-grad-logvar]
        square = (z2 - 2 * mean * z1 + total * mean * mean) * precision  # (K, Z)
        self.logvar.add(0.5 * (square - total))
        # [mixture-grad-z]
        dz = weight @ (mean * precision) - z * (weight @ precision)  # (N, Z)
        return dz.reshape(*dlogp.shape, -1).astype(dtype)

    def kl(self, mu: Array, logvar: Array, z: Array) -> tuple[Array, Any]:
        """Return an estimate of KL(q || p) in nats, (B,), at the draw z, and the cache.

        Its mean over the draws z (B, Z) of q = N(mu, diag(sigma^2)) is the KL. One that is small
        may be estimated as negative.
        """
        log_p, cache = self.log_density(z)  # (B,)
        # [mixture-kl]  minus the entropy of q, which is known, and minus log p at the draw
        kl = -0.5 * (LOG_2PI + 1 + logvar).sum(axis=-1) - log_p  # (B,)
        return kl, (z - mu, cache)

    def kl_backward(self, dkl: Array, cache: Any) -> tuple[Array, Array]:
        """Add to the parameters' gradients; return (dmu, dlogvar), (B, Z), from dkl (B,)."""
        moved, p_cache = cache  # sigma eps, (B, Z)
        # [mixture-kl-grad]  through z = mu + sigma eps, and logvar through the entropy as well
        dz = self.log_density_backward(-dkl, p_cache)  # (B, Z)
        return dz, 0.5 * (dz * moved - dkl[..., None])

    def draw(self, eps: Array, rng: np.random.Generator) -> Array:
        """Return codes (n, Z): `rng` picks a component for each, and eps (n, Z) moves it."""
        logits = asnumpy(self.logits.value).astype(np.float64)  # (K,)
        pi = np.exp(logits - _log_sum_exp(logits))
        k = namespace(eps).asarray(rng.choice(self.components, len(eps), p=pi))  # (n,)
        return reparameterize(self.mean.value[k], self.logvar.value[k], eps)[0]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield logits, mean and logvar."""
        yield from (("logits", self.logits), ("mean", self.mean), ("logvar", self.logvar))

    def __repr__(self) -> str:
        return f"MixturePrior({self.latent_dim}, {self.components})"


def _log_sum_exp(a: Array) -> Array:
    """Return log of the sum of exp(a) over the last axis, which stays; exp does not overflow."""
    xp, top = namespace(a), a.max(axis=-1, keepdims=True)
    return top + xp.log(xp.exp(a - top).sum(axis=-1, keepdims=True))
