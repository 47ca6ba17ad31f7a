r"""Free bits: a KL term that lets each latent dimension carry some nats free of charge."""

from __future__ import annotations

from .backend import Array, namespace
from .gaussian import kl_per_dimension, kl_standard_normal_backward


def kl_free_bits(mu: Array, logvar: Array, free: float) -> tuple[Array, tuple[Array, ...]]:
    """Return the sum over j of max(KL_j, free) in nats, (B,), and the cache.

    A dimension that carries no more than `free` nats about an example is not charged for them, so
    it need not collapse to the prior: D. P. Kingma et al., 2016, appendix C.8. There KL_j is the
    mean over the batch; here it is that of each example, so that the loss of one does not depend
    on the others.
    """
    kl = kl_per_dimension(mu, logvar)  # (B, Z)
    # [free-bits]
    return namespace(mu).maximum(kl, free).sum(axis=-1), (mu, logvar, kl > free)  # (B,)


def kl_free_bits_backward(dkl: Array, cache: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return (dmu, dlogvar), (B, Z), from dkl (B,)."""
    mu, logvar, charged = cache
    dmu, dlogvar = kl_standard_normal_backward(dkl, (mu, logvar))  # (B, Z) each
    # [free-bits-grad]  a constant where nothing is charged
    return dmu * charged, dlogvar * charged  # (B, Z) each
