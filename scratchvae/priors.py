"""Priors: p(z), which the KL compares q(z|x) with, and from which new codes are drawn.

The default is N(0, I); `mixture` holds one that is learned. A model looks its prior up here by its
name, or takes one that is handed in.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from . import gaussian
from .backend import Array, namespace
from .errors import InputError
from .layers import in_words
from .mixture import MixturePrior

COMPONENTS = {"normal": 1, "mixture": 10}  # by the name of the prior, unless told otherwise


class Prior(Protocol):
    """What a VAE needs of p(z); it may have `named_parameters` as a layer has.

    `standard` says that it is N(0, I), whose KL `VAE.kl` computes. Any other prior has ``kl(mu,
    logvar, z) -> (kl (B,), cache)`` and ``kl_backward(dkl (B,), cache) -> (dmu, dlogvar)`` too.
    """

    standard: bool

    def log_density(self, z: Array, /) -> tuple[Array, Any]:
        """Return log p(z) in nats, (...), for codes z (..., Z), and the cache."""

    def log_density_backward(self, dlogp: Array, cache: Any, /) -> Array:
        """Add to the parameters' gradients; return dz (..., Z) for dlogp (...)."""

    def draw(self, eps: Array, rng: np.random.Generator, /) -> Array:
        """Return codes (n, Z) by the noise eps (n, Z); `rng` draws what else is random."""


class StandardNormal:
    """N(0, I): its KL from q(z|x) is `gaussian.kl_standard_normal`."""

    kind = "normal"
    standard = True

    def log_density(self, z: Array) -> tuple[Array, Any]:
        """Return log p(z) in nats, (...), for codes z (..., Z), and the cache."""
        zero = namespace(z).zeros((), dtype=z.dtype)  # mean and logvar
        return gaussian.log_density(z, zero, zero)

    def log_density_backward(self, dlogp: Array, cache: Any) -> Array:
        """Return dz (..., Z) for dlogp (...)."""
        return gaussian.log_density_backward(dlogp, cache)[0]

    def draw(self, eps: Array, rng: np.random.Generator) -> Array:
        """Return eps (n, Z) itself."""
        return eps

    def __repr__(self) -> str:
        return "StandardNormal()"


def get_prior(
    name: str | Prior, latent_dim: int, components: int | None, rng: np.random.Generator
) -> Prior:
    """Return the prior called "normal" or "mixture", or the one that was handed in.

    Raise InputError if there are `components` of something that is no mixture.
    """
    if isinstance(name, str) and name == "mixture":
        components = COMPONENTS[name] if components is None else components
        return MixturePrior(latent_dim, components, rng=rng)
    if components is not None:
        raise InputError(
            f"components is {components!r} with the prior {name!r}: expected it with "
            "prior='mixture' only"
        )
    if isinstance(name, str) and name == "normal":
        return StandardNormal()
    return name  # type: ignore[return-value]  # `require_prior` looks at what it is


def require_prior(model: Any) -> None:
    """Raise InputError unless the prior of a VAE is one that fits it.

    A mixture that was made without backend and dtype takes over those of the model.
    """
    prior, own = model.prior, "" if getattr(model.prior, "standard", False) else ", kl, kl_backward"
    needed = f"standard, log_density, log_density_backward, draw{own}"
    if isinstance(prior, str | type) or not all(hasattr(prior, n) for n in needed.split(", ")):
        raise InputError(
            f"unknown prior {prior!r}: expected 'normal', 'mixture' or an object with {needed}"
        )
    if getattr(prior, "latent_dim", model.latent_dim) != model.latent_dim:
        raise InputError(
            f"the prior is {in_words(prior)}, for codes of {prior.latent_dim} numbers: expected "
            f"one for {model.latent_dim}, the latent_dim of the model"
        )
    if hasattr(prior, "adopt"):
        prior.adopt(model.backend, model.dtype)


def require_formulas(model: Any) -> None:
    """Raise InputError if a VAE has a formula of its own that its loss would pass over.

    The KL of a prior that is not N(0, I), or that of free bits, replaces `VAE.kl`.
    """
    prior, free_bits = model.prior, model.free_bits
    if prior.standard:
        if free_bits and model.replaces("kl"):
            raise InputError(
                f"free_bits is {free_bits}: it charges the KL of VAE, which the model replaces "
                "with another, so leave it at 0"
            )
        return
    text = in_words(prior)
    if free_bits:
        raise InputError(
            f"free_bits is {free_bits}: it charges the KL of each latent dimension, and from "
            f"{text} there is one of the whole code only, so leave it at 0"
        )
    for name, of_vae in (
        ("reparameterize", gaussian.reparameterize),
        ("kl", gaussian.kl_standard_normal),
        ("kl_backward", gaussian.kl_standard_normal_backward),
    ):
        if getattr(model, name) is not of_vae:
            raise InputError(
                f"the prior {text} brings a KL of its own, at the draw of VAE, and the model "
                f"replaces VAE.{name}: expected the prior 'normal'"
            )


def options_of(prior: Any) -> dict[str, Any]:
    """Return the options of a model that build its prior again; of the default there are none.

    For a prior of your own there is none: the kind of the model is None then.
    """
    kind = vars(type(prior)).get("kind")  # as a model's: a subclass may be another prior
    if kind == "normal":
        return {}
    if kind == "mixture":
        return {"prior": "mixture", "components": prior.components}
    return {"kind": None, "prior": in_words(prior)}
