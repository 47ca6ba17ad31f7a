r"""The models: a plain autoencoder and the variational one, from data to gradient on one page each.

    x --encoder--> mu, logvar --reparameterize--> z --decoder--> output --likelihood--> -log p(x|z)
                       |
                       +----> KL(q(z|x) || N(0, I))

The loss of one example is the negative evidence lower bound in nats, -log p(x|z) + beta KL, for one
draw z of q(z|x): dimensions are summed. The loss of a batch is the mean over its examples. Both
rules hold everywhere, and 1/B enters in one place, `loss_and_grad`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import checkpoint
from .backend import Array, Backend, RandomSource, get_backend, get_dtype, namespace
from .errors import InputError, check_each, check_number, check_size
from .free_bits import kl_free_bits, kl_free_bits_backward
from .gaussian import (
    kl_standard_normal,
    kl_standard_normal_backward,
    reparameterize,
    reparameterize_backward,
)
from .layers import Activation, Layer, Linear, Sequential
from .likelihoods import get_likelihood
from .parameters import Parameters


class Terms(NamedTuple):
    """loss = reconstruction + beta * kl, in nats: one value per example (B,), or their mean."""

    loss: Array
    reconstruction: Array
    kl: Array


class Autoencoder:
    """Encoder and decoder without mu, sigma and KL: a code is a point.

    Parameters
    ----------
    data_dim : int
        D, the number of values of one example.
    hidden : sequence of int
        The widths of the encoder's hidden layers; the decoder has them in reverse.
    latent_dim : int
        Z, the length of a code.
    activation : {"relu", "tanh", "sigmoid", "softplus", "silu"}
        After every hidden layer. There is none after the last, so mu, logvar and logits are free.
    likelihood : {"bernoulli", "gaussian"}
        What the decoder's output means: logits of pixels that are 0 or 1, or means of real ones.
    variance : float, "shared" or "per-dimension"
        Of the Gaussian likelihood: fixed, one learned for all pixels, or given by the decoder.
    backend : {"numpy", "cupy"}
    dtype : {"float32", "float64"}
    rng : None, int, SeedSequence or Generator
        Where initial parameters, and later every draw that is not handed in, come from.

    Attributes
    ----------
    params : Parameters
        ``params.value`` and ``params.grad`` (P,), ``params["encoder.0.W"]``, ``params.names``.
    encoder, decoder : Sequential

    Raises
    ------
    InputError
        If a size is not a positive integer or a name is unknown; in methods for wrong shapes.
    """

    code_parts = 1  # the encoder's output is (B, code_parts * Z)

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] = (400,),
        latent_dim: int = 20,
        *,
        activation: str = "relu",
        likelihood: str = "bernoulli",
        variance: float | str = 1.0,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
        rng: RandomSource = None,
    ) -> None:
        self.data_dim = check_size("data_dim", data_dim)
        self.latent_dim = check_size("latent_dim", latent_dim)
        hidden = check_each("hidden", hidden, check_size)
        self.backend, self.dtype = get_backend(backend), get_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        self.likelihood = get_likelihood(likelihood, data_dim, variance, self.backend, self.dtype)

        self._config = {"data_dim": self.data_dim, "hidden": hidden, "latent_dim": self.latent_dim}
        self._config |= {"activation": activation, "likelihood": likelihood, "variance": variance}
        self._config |= {"dtype": self.dtype.name}

        def stack(sizes: Sequence[int]) -> Sequential:
            how: Any = {"rng": self.rng, "backend": self.backend, "dtype": self.dtype}
            layers: list[Layer] = []
            for n_in, n_out in pairwise(sizes):
                layers += [Linear(n_in, n_out, **how), Activation(activation)]
            return Sequential(layers[:-1])  # none on the heads

        self.encoder = stack([data_dim, *hidden, self.code_parts * latent_dim])
        self.decoder = stack([latent_dim, *reversed(hidden), self.likelihood.output_dim])
        self.params = Parameters(
            (f"{part}.{name}", p)
            for part in ("encoder", "decoder", "likelihood")
            for name, p in getattr(self, part).named_parameters()
        )

    def config(self) -> dict[str, Any]:
        """Return the options from which :func:`scratchvae.load` builds this model again."""
        return {"kind": "ae"} | self._config

    def save(self, path: str | Path) -> None:
        """Write parameters and options to a .safetensors file, for :func:`scratchvae.load`."""
        arrays = {name: self.params[name].value for name in self.params.names}
        checkpoint.save(path, arrays, {"config": {"model": self.config()}})

    def encode(self, x: Any) -> Any:
        """Return the codes (B, Z) of x (B, D)."""
        return self.encoder.forward(self._as_batch("x", x, self.data_dim))[0]

    def decode(self, z: Any) -> Array:
        """Return the mean (B, D) of p(x|z) for codes z (B, Z)."""
        output, _ = self.decoder.forward(self._as_batch("z", z, self.latent_dim))
        return self.likelihood.mean(output)

    def reconstruct(self, x: Any) -> Array:
        """Return the decoded codes of x (B, D); a VAE's are its posterior means."""
        code = self.encode(x)
        return self.decode(code[0] if isinstance(code, tuple) else code)

    def draw_eps(self, n: int, rng: np.random.Generator) -> Array | None:
        """Return the noise for n examples: None, since a code of this model has none."""
        return None

    def forward(self, x: Any, eps: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache; `eps` is not used."""
        x = self._as_batch("x", x, self.data_dim)
        z, encoder_cache = self.encoder.forward(x)  # (B, Z)
        output, decoder_cache = self.decoder.forward(z)  # (B, output_dim)
        nll, nll_cache = self.likelihood.nll(x, output)  # (B,)
        return Terms(nll, nll, 0 * nll), (encoder_cache, decoder_cache, nll_cache)

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,), the weight of each example's loss."""
        encoder_cache, decoder_cache, nll_cache = cache
        doutput = self.likelihood.nll_backward(dloss, nll_cache)  # (B, output_dim)
        dz = self.decoder.backward(doutput, decoder_cache)  # (B, Z)
        self.encoder.backward(dz, encoder_cache, input_gradient=False)

    def loss_and_grad(self, x: Any, eps: Any = None, batch_size: int | None = None) -> Terms:
        """Return the batch's loss in nats and leave its gradient in ``params.grad``.

        Parameters
        ----------
        x : (B, D)
            Values in [0, 1] for the Bernoulli likelihood.
        eps : (B, Z), optional
            Draws from N(0, 1); drawn from the model's generator if not given.
        batch_size : int, optional
            B, if `x` is a part of a batch; loss and gradient are then its share of the whole's.

        Returns
        -------
        Terms
            Float64 scalars. They are not checked to be finite.
        """
        terms, cache = self.forward(x, eps)  # (B,) each
        xp, n = self.backend.xp, batch_size or len(terms.loss)
        with self.params.gradient_from_zero():
            # [batch-mean]
            self.backward(xp.full(len(terms.loss), 1 / n, dtype=self.dtype), cache)
        return Terms(*(term.sum(dtype=xp.float64) / n for term in terms))

    def _as_batch(self, name: str, x: Any, width: int) -> Array:
        x = self.backend.asarray(x, dtype=self.dtype)
        if x.ndim != 2 or x.shape[1] != width or len(x) == 0:
            raise InputError(f"{name} has shape {x.shape}: expected (batch size, {width})")
        return x


class VAE(Autoencoder):
    """The variational autoencoder: a code is a draw from q(z|x) = N(mu, diag(sigma^2)).

    Parameters
    ----------
    data_dim, hidden, latent_dim : as for :class:`Autoencoder`
    beta : float
        The weight of the KL term. With 1 the loss is the negative evidence lower bound.
    free_bits : float
        The KL in nats that each latent dimension has for nothing: where it is not 0 the loss holds
        the larger of the two, dimension by dimension, and `Terms.kl` is still the KL.
    **options : as for :class:`Autoencoder`
    """

    code_parts = 2  # the encoder's output is [mu | logvar], (B, 2Z)

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] = (400,),
        latent_dim: int = 20,
        *,
        beta: float = 1.0,
        free_bits: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(data_dim, hidden, latent_dim, **options)
        self.beta = check_number("beta", beta)
        self.free_bits = check_number("free_bits", free_bits)

    def config(self) -> dict[str, Any]:
        """Return the options from which :func:`scratchvae.load` builds this model again."""
        own = {"kind": "vae", "beta": self.beta, "free_bits": self.free_bits}
        return super().config() | own

    def encode(self, x: Any) -> tuple[Array, Array]:
        """Return the parameters (mu, logvar) of q(z|x), (B, Z) each, for x (B, D)."""
        return self._split(super().encode(x))

    def sample(self, n: int, rng: RandomSource = None) -> Array:
        """Return the decoded means (n, D) of n draws z ~ N(0, I), by default by the model's rng."""
        rng = self.rng if rng is None else np.random.default_rng(rng)
        return self.decode(self.draw_eps(check_size("n", n), rng))

    def draw_eps(self, n: int, rng: np.random.Generator) -> Array:
        """Draw the noise for n examples, (n, Z)."""
        return self.backend.standard_normal(rng, (n, self.latent_dim), self.dtype)

    def forward(self, x: Any, eps: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache for `backward`."""
        x = self._as_batch("x", x, self.data_dim)
        eps = self.draw_eps(len(x), self.rng) if eps is None else eps
        eps = self._as_batch("eps", eps, self.latent_dim)
        if len(eps) != len(x):
            raise InputError(f"eps has {len(eps)} rows: expected {len(x)}, as many as x")
        code, encoder_cache = self.encoder.forward(x)  # (B, 2Z)
        mu, logvar = self._split(code)  # (B, Z) each
        z, z_cache = reparameterize(mu, logvar, eps)  # (B, Z)
        output, decoder_cache = self.decoder.forward(z)  # (B, output_dim)
        nll, nll_cache = self.likelihood.nll(x, output)  # (B,)
        kl, kl_cache = kl_standard_normal(mu, logvar)  # (B,)
        charged = kl
        if self.free_bits:
            charged, kl_cache = kl_free_bits(mu, logvar, self.free_bits)  # (B,)
        # [negative-elbo]
        terms = Terms(nll + self.beta * charged, nll, kl)
        return terms, (encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache)

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,), the weight of each example's loss."""
        encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache = cache
        doutput = self.likelihood.nll_backward(dloss, nll_cache)  # (B, output_dim)
        dz = self.decoder.backward(doutput, decoder_cache)  # (B, Z)
        # [two-paths]  mu and logvar reach the loss through z and through the KL: gradients add
        dmu_z, dlogvar_z = reparameterize_backward(dz, z_cache)  # (B, Z) each
        kl_backward = kl_free_bits_backward if self.free_bits else kl_standard_normal_backward
        dmu_kl, dlogvar_kl = kl_backward(self.beta * dloss, kl_cache)  # (B, Z) each
        dcode = namespace(dz).concatenate([dmu_z + dmu_kl, dlogvar_z + dlogvar_kl], axis=1)
        self.encoder.backward(dcode, encoder_cache, input_gradient=False)  # dcode (B, 2Z)

    def _split(self, code: Array) -> tuple[Array, Array]:
        return code[:, : self.latent_dim], code[:, self.latent_dim :]
