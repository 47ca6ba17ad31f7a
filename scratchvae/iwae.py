r"""The importance-weighted autoencoder: a VAE that draws K codes of each example in every step.

    z_k = mu + sigma eps_k,  w_k = p(x|z_k) p(z_k) / q(z_k|x),  loss = -log(mean of w_1, ..., w_K)

The loss bounds -log p(x) from above, on average the more tightly the larger K is. Its gradient is
that of the log weights, each times its share of the sum of all weights.

Sources: Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted Autoencoders", 2016; for
``gradient="dreg"`` G. Tucker et al., "Doubly Reparameterized Gradient Estimators for Monte Carlo
Objectives", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .backend import Array, namespace
from .errors import InputError, check_size
from .evaluation import log_sum_exp
from .gaussian import log_density, log_density_backward
from .layers import backward_parameters
from .vae import VAE, Terms

ROWS = 10_000  # codes that go through the decoder at once; if one draw of a batch has more, those
GRADIENTS = ("standard", "dreg")
NO_KL = "importance weights have no KL term"


class IWAE(VAE):
    """The VAE whose loss is minus the importance-weighted bound with K draws.

    The memory of a step does not grow with K, but for the noise and the weights. Where a batch has
    more than `ROWS` codes, the decoder's forward pass runs twice: no draw can go backward before
    the weights of all are known, and no cache is kept until then.

    `Terms.reconstruction` is -log p(x|z) of a code that is picked among the K by its weight, and
    `Terms.kl` is the rest of the loss: on average the KL that such a code costs.

    Parameters
    ----------
    data_dim, hidden, latent_dim : as for :class:`~scratchvae.Autoencoder`
    samples : int
        K. With 1 the loss is that of a VAE, with log q(z|x) - log p(z) at the draw as its KL.
    gradient : {"standard", "dreg"}
        Of the encoder: the derivative of the loss, or the doubly reparameterised one, which is the
        same on average only, and less noisy for large K. The decoder has the derivative in both.
    **options
        As for :class:`~scratchvae.VAE`; beta stays 1 and free_bits 0.
    """

    kind = "iwae"
    free = (*VAE.free, "samples", "gradient")

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] | None = None,
        latent_dim: int = 20,
        *,
        samples: int,
        gradient: str = "standard",
        **options: Any,
    ) -> None:
        self.samples, self.gradient = samples, gradient
        super().__init__(data_dim, hidden, latent_dim, **options)

    def check_options(self) -> None:
        """Do what `VAE.check_options` does, for samples and gradient too, and for the KL."""
        super().check_options()
        self.samples = check_size("samples", self.samples)
        if self.gradient not in GRADIENTS:
            raise InputError(
                f"gradient is {self.gradient!r}: expected one of {', '.join(GRADIENTS)}"
            )
        for name, fixed in ("beta", 1), ("free_bits", 0):
            if getattr(self, name) != fixed:
                raise InputError(
                    f"{name} is {getattr(self, name)}: {NO_KL} that it could change, so leave it "
                    f"at {fixed}"
                )
        for name in "kl", "kl_backward":
            if getattr(self, name) is not getattr(VAE, name):
                raise InputError(f"the model replaces VAE.{name}: {NO_KL} that would use it")
        if type(self).log_prior is not VAE.log_prior:
            raise InputError(
                "the model replaces VAE.log_prior, and the weights are those of the prior, with "
                "the backward of its density: hand in one of your own, as prior="
            )
        if self.replaces("reparameterize") and type(self).log_weights is IWAE.log_weights:
            raise InputError(
                "the model replaces the draw of VAE, and the weights divide by the density of that "
                "draw: replace log_weights and log_weights_backward too, which hold the density"
            )

    def config(self) -> dict[str, Any]:
        """Return what `VAE.config` does, with samples and gradient."""
        return {**super().config(), "samples": self.samples, "gradient": self.gradient}

    def noise_shape(self, n: int) -> tuple[int, ...]:
        """Return (K, n, Z): K draws of the posterior for each example."""
        return self.samples, n, self.latent_dim

    def log_weights(self, x: Array, mu: Array, logvar: Array, eps: Array) -> tuple[Array, ...]:
        """Return log w and -log p(x|z), (k, B) each, for k draws by eps (k, B, Z), and a cache."""
        z, z_cache = self.reparameterize(mu, logvar, eps)  # (k, B, Z)
        inputs = self.decoder_input(z, x)  # (k, B, Z)
        output, decoder_cache = self.decoder.forward(inputs.reshape(-1, inputs.shape[-1]))
        nll, nll_cache = self.nll(x, output.reshape(*z.shape[:2], -1))  # (k, B)
        log_q, q_cache = log_density(z, mu, logvar)  # (k, B)
        log_p, p_cache = self.prior.log_density(z)  # (k, B)
        return log_p - log_q - nll, nll, (z_cache, decoder_cache, nll_cache, q_cache, p_cache)

    def log_weights_backward(self, dlog_w: Array, weights: Array, cache: Any) -> tuple[Array, ...]:
        """Return (dmu, dlogvar), (B, Z) each, from dlog_w and normalised weights, (k, B) each."""
        z_cache, decoder_cache, nll_cache, q_cache, p_cache = cache
        doutput = self.nll_backward(-dlog_w, nll_cache)  # (k, B, output_dim)
        dinput = self.decoder.backward(doutput.reshape(-1, doutput.shape[-1]), decoder_cache)
        dz = self.decoder_input_backward(dinput.reshape(*doutput.shape[:2], -1))  # (k, B, Z)
        # [importance-weight-grad]  three densities depend on z, and log q on mu and logvar too
        dz_q, dmu_q, dlogvar_q = log_density_backward(-dlog_w, q_cache)
        dz_p = self.prior.log_density_backward(dlog_w, p_cache)  # (k, B, Z)
        dz = dz + dz_q + dz_p  # (k, B, Z)
        if self.gradient == "dreg":
            # [doubly-reparameterized]  each draw with its weight once more, only through z
            return self.reparameterize_backward(weights[..., None] * dz, z_cache)
        dmu, dlogvar = self.reparameterize_backward(dz, z_cache)  # (B, Z) each
        return dmu + dmu_q, dlogvar + dlogvar_q

    def forward(self, x: Any, eps: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache for `backward`."""
        x = self.as_rows(x)
        eps, xp = self.noise(eps, len(x)), self.backend.xp  # (K, B, Z)
        code, encoder_cache = self.encoder.forward(x)  # (B, 2Z)
        mu, logvar = self.split(code)  # (B, Z) each
        draws, parts = _draws_at_once(eps), []
        for some in draws:
            *part, cache = self.log_weights(x, mu, logvar, eps[some])
            parts.append(part)
            cache = cache if len(draws) == 1 else None
        log_w, nll = (xp.concatenate(part) for part in zip(*parts, strict=True))  # (K, B) each
        # [importance-weighted-loss]  minus the log of the mean weight
        log_sum = log_sum_exp(log_w)  # (B,)
        loss = math.log(self.samples) - log_sum  # (B,)
        # [normalised-weights]
        weights = xp.exp(log_w - log_sum)  # (K, B)
        # [importance-weighted-terms]
        reconstruction = (weights * nll).sum(axis=0)  # (B,)
        terms = Terms(loss, reconstruction, loss - reconstruction)
        return terms, (x, eps, mu, logvar, log_w, weights, encoder_cache, cache)

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,), the weight of each example's loss."""
        x, eps, mu, logvar, log_w, weights, encoder_cache, only = cache
        dcode, draws = 0, _draws_at_once(eps)
        for some in draws:
            # [importance-weighted-grad]  the derivative of the log of a sum of exponentials
            dlog_w = -dloss * weights[some]  # (k, B)
            # The cache has no name, so that it is gone before the next one is made.
            d = self.log_weights_backward(
                dlog_w,
                weights[some],
                only if len(draws) == 1 else self._again(log_w[some], x, mu, logvar, eps[some]),
            )
            dcode = dcode + namespace(mu).concatenate(d, axis=1)  # (B, 2Z)
        backward_parameters(self.encoder, dcode, encoder_cache)
        self.params.complete_gradient()

    def _again(self, log_w: Array, *args: Array) -> Any:
        """Return the cache of draws that go through the decoder again, to the same weights."""
        again, _, cache = self.log_weights(*args)
        # A GPU is not asked: it would have to be waited for.
        if self.backend.name == "numpy" and not np.array_equal(again, log_w, equal_nan=True):
            raise InputError(
                f"the decoder gives other numbers for the same codes, as with dropout: more than "
                f"{ROWS:,} codes a batch go through it twice, so take fewer samples or a smaller "
                "batch, or a decoder that is no random one"
            )
        return cache


def _draws_at_once(eps: Array) -> list[slice]:
    k = max(1, ROWS // eps.shape[1])
    return [slice(i, i + k) for i in range(0, len(eps), k)]
