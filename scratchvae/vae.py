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
from typing import Any, NamedTuple

import numpy as np

from . import gaussian
from .backend import Array, Backend, RandomSource, get_backend, get_dtype, get_rng, namespace
from .errors import InputError, check_each, check_number, check_size
from .free_bits import kl_free_bits, kl_free_bits_backward
from .layers import Layer, backward_parameters
from .likelihoods import Likelihood, get_likelihood
from .model import Model
from .networks import get_network
from .priors import Prior, get_prior, options_of, require_formulas, require_prior
from .shapes import require_code_shapes, require_prior_shapes


class Terms(NamedTuple):
    """loss = reconstruction + beta * kl, in nats: one value per example (B,), or their mean."""

    loss: Array
    reconstruction: Array
    kl: Array

    def __repr__(self) -> str:
        def text(term: Array) -> str:
            return f"{float(term):.6g}" if np.ndim(term) == 0 else repr(term)

        return f"Terms({', '.join(f'{k}={text(term)}' for k, term in self._asdict().items())})"


class Autoencoder(Model):
    """Encoder and decoder without mu, sigma and KL: a code is a point.

    Parameters
    ----------
    data_dim : int
        D, the number of values of one example.
    hidden : sequence of int, optional
        The widths of the encoder's hidden layers, (400,) by default; the decoder has them in
        reverse. Not together with an encoder or a decoder of your own. In the network "conv" they
        are channels, (32, 64) by default.
    latent_dim : int
        Z, the length of a code.
    activation : str
        After every hidden layer, one of :mod:`scratchvae.activations`. There is none after the
        last, so mu, logvar and logits are free.
    likelihood : {"bernoulli", "gaussian"} or Likelihood
        What the decoder's output means: logits of pixels that are 0 or 1, or means of real ones.
    variance : float, "shared" or "per-dimension"
        Of the Gaussian likelihood: fixed, one learned for all pixels, or given by the decoder.
    backend : {"numpy", "cupy"}
    dtype : {"float32", "float64"}
    rng : None, int, SeedSequence or Generator
        Where initial parameters, and later every draw that is not handed in, come from.
    network : {"dense", "conv"}
        Of what the stacks are built: of Linear layers, or of convolutions, see `networks`.
    image_shape : (H, W), optional
        Of the examples, which "conv" must know.
    encoder, decoder : Layer, optional
        Parts of your own instead of these stacks. The encoder turns x (B, D) into codes
        (B, Z), a VAE's into [mu | logvar] (B, 2Z). The decoder turns codes (B, Z) into what the
        likelihood reads, (B, likelihood.output_dim).

    Attributes
    ----------
    params : Parameters
        ``params.value`` and ``params.grad`` (P,), ``params["encoder.0.W"]``, ``params.names``.
    encoder, decoder : Layer
    has_posterior : bool
        Whether a code is a draw from q(z|x): then there are a KL, a prior and a bound.

    Raises
    ------
    InputError
        If a size is not a positive integer, a name is unknown, or a part is not a layer of the
        right width; in methods for wrong shapes, and if a part was changed behind `params`.
    """

    kind = "ae"
    has_posterior = False
    beta: float | None = None  # the weight of the KL term, where there is one

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] | None = None,
        latent_dim: int = 20,
        *,
        activation: str = "relu",
        likelihood: str | Likelihood = "bernoulli",
        variance: float | str = 1.0,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
        rng: RandomSource = None,
        network: str = "dense",
        image_shape: Sequence[int] | None = None,
        encoder: Layer | None = None,
        decoder: Layer | None = None,
    ) -> None:
        self.data_dim = check_size("data_dim", data_dim)
        self.latent_dim = check_size("latent_dim", latent_dim)
        handed_in = [p for p in (encoder, decoder) if p is not None]
        if hidden is not None and handed_in:
            raise InputError(
                f"hidden is {hidden!r} beside a part of your own: it describes the stacks that the "
                "model builds itself, so leave it out; scratchvae.layers.dense builds such a stack"
            )
        for name, value, default in (
            ("activation", activation, "relu"),
            ("network", network, "dense"),
        ):
            if value != default and len(handed_in) == 2:
                raise InputError(
                    f"{name} is {value!r} beside two parts of your own: it describes the stacks "
                    "that the model builds itself, so leave it out"
                )
        kind = get_network(network)
        hidden = check_each("hidden", kind.hidden if hidden is None else hidden, check_size)
        self.backend, self.dtype = get_backend(backend), get_dtype(dtype)
        self.rng = get_rng(rng)
        self.likelihood = get_likelihood(likelihood, data_dim, variance, self.backend, self.dtype)
        widths = self.widths()
        own = {"rng": self.rng, "backend": self.backend, "dtype": self.dtype}
        build = kind(hidden, activation, image_shape, **own)
        build.require_width(data_dim)
        if encoder is None:
            encoder = build.encoder(*widths["encoder"])
        if decoder is None:
            decoder = build.decoder(*widths["decoder"])
        self.encoder, self.decoder = encoder, decoder
        self.gather()
        self._options = {"hidden": hidden, "activation": activation}
        self._options |= {"network": network, "image_shape": build.image_shape}
        variance = variance if isinstance(variance, str) else float(variance)
        self._options |= {"likelihood": likelihood, "variance": variance}
        self._stacks = self._in_words() if not handed_in else None

    def encode(self, x: Any) -> Any:
        """Return the codes (B, Z) of x (B, D)."""
        return self.encoder.forward(self.as_rows(x))[0]

    def decode(self, z: Any) -> Array:
        """Return the mean (B, D) of p(x|z) for codes z (B, Z)."""
        output, _ = self.decoder.forward(self.as_batch("z", z, self.latent_dim))
        return self.likelihood.mean(output)

    def mean_code(self, x: Any) -> Array:
        """Return the code (B, Z) that stands for each x (B, D): here there is only one."""
        return self.codes(x)

    def codes(self, x: Any, eps: Any = None) -> Array:
        """Return the codes (B, Z) that are decoded for x (B, D); `eps` is not used."""
        code: Array = self.encode(x)
        return code

    def reconstruct(self, x: Any) -> Array:
        """Return the decoded mean codes of x (B, D)."""
        x = self.as_rows(x)
        inputs = self.decoder_input(self.mean_code(x), x)  # (B, Z)
        return self.likelihood.mean(self.decoder.forward(inputs)[0])

    def sample(self, n: int, rng: RandomSource = None) -> Array:
        """Raise InputError: there is no prior to sample codes from."""
        raise InputError("an autoencoder has no prior to sample from: expected a VAE")

    def set_beta(self, beta: float) -> None:
        """Raise InputError: the loss has no KL term that beta could weigh."""
        raise InputError("an autoencoder's loss has no KL term, and so no beta: expected a VAE")

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return -log p(x|z) in nats, (...), for the output (..., output_dim), and a cache."""
        return self.likelihood.nll(x, output)

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return doutput (..., output_dim) from dnll (...)."""
        return self.likelihood.nll_backward(dnll, cache)

    def forward(self, x: Any, eps: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache; `eps` is not used."""
        x = self.as_rows(x)
        z, encoder_cache = self.encoder.forward(x)  # (B, Z)
        output, decoder_cache = self.decoder.forward(self.decoder_input(z, x))  # (B, output_dim)
        nll, nll_cache = self.nll(x, output)  # (B,)
        return Terms(nll, nll, 0 * nll), (encoder_cache, decoder_cache, nll_cache)

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,), the weight of each example's loss."""
        encoder_cache, decoder_cache, nll_cache = cache
        doutput = self.nll_backward(dloss, nll_cache)  # (B, output_dim)
        dz = self.decoder_input_backward(self.decoder.backward(doutput, decoder_cache))  # (B, Z)
        backward_parameters(self.encoder, dz, encoder_cache)
        self.params.complete_gradient()

    def loss_and_grad(self, x: Any, eps: Any = None, batch_size: int | None = None) -> Terms:
        """Return the batch's loss in nats and leave its gradient in ``params.grad``.

        Parameters
        ----------
        x : (B, D)
            Values in [0, 1] for the Bernoulli likelihood.
        eps : (B, Z), optional
            Draws from N(0, 1), in the shape that `noise_shape` gives; drawn from the model's
            generator if not given.
        batch_size : int, optional
            B, if `x` is a part of a batch; loss and gradient are then its share of the whole's.

        Returns
        -------
        Terms
            Float64 scalars. They are not checked to be finite.
        """
        self.check_parts()
        if batch_size is not None:
            check_number("batch_size", batch_size, positive=True)
        self.require_terms(found := self.forward(x, eps))
        terms, cache = found  # (B,) each
        xp, n = self.backend.xp, batch_size or len(terms.loss)
        self.params.forget_gradient()
        # [batch-mean]
        self.backward(xp.full(len(terms.loss), 1 / n, dtype=self.dtype), cache)
        self.params.complete_gradient()
        return Terms(*(term.sum(dtype=xp.float64) / n for term in terms))


class VAE(Autoencoder):
    """The variational autoencoder: a code is a draw from q(z|x) = N(mu, diag(sigma^2)).

    The draw, the KL and the likelihood are methods, each with its backward: a subclass replaces a
    formula by replacing its pair.

    Parameters
    ----------
    data_dim, hidden, latent_dim : as for :class:`Autoencoder`
    activation, likelihood, variance : as for :class:`Autoencoder`
    beta : float
        The weight of the KL term. With 1 the loss is the negative evidence lower bound.
    free_bits : float
        The KL in nats that each latent dimension may have free of charge: where it is not 0 the
        loss holds the larger of the two, dimension by dimension, and `Terms.kl` is still the KL.
    prior : {"normal", "mixture"} or Prior
        p(z): N(0, I), or a mixture of Gaussians that is learned, a
        :class:`~scratchvae.MixturePrior`.
    components : int, optional
        Of the mixture, 10 if not given.
    backend, dtype, rng : as for :class:`Autoencoder`
    network, image_shape, encoder, decoder : as for :class:`Autoencoder`
    """

    kind = "vae"
    free: tuple[str, ...] = ("beta", "free_bits")
    has_posterior = True
    beta: float

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] | None = None,
        latent_dim: int = 20,
        *,
        activation: str = "relu",
        likelihood: str | Likelihood = "bernoulli",
        variance: float | str = 1.0,
        beta: float = 1.0,
        free_bits: float = 0.0,
        prior: str | Prior = "normal",
        components: int | None = None,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
        rng: RandomSource = None,
        network: str = "dense",
        image_shape: Sequence[int] | None = None,
        encoder: Layer | None = None,
        decoder: Layer | None = None,
    ) -> None:
        self.free_bits = check_number("free_bits", free_bits)
        rng = get_rng(rng)
        self.prior = get_prior(prior, latent_dim, components, rng)
        self.set_beta(beta)
        super().__init__(
            data_dim, hidden, latent_dim, activation=activation, likelihood=likelihood,
            variance=variance, backend=backend, dtype=dtype, rng=rng, network=network,
            image_shape=image_shape, encoder=encoder, decoder=decoder,
        )  # fmt: skip

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return what `Model.widths` does; the encoder gives [mu | logvar], 2Z numbers."""
        return {**super().widths(), "encoder": (self.data_dim, 2 * self.latent_dim)}

    def set_beta(self, beta: float) -> None:
        """Set the weight of the KL term; InputError unless it is a finite number, 0 or larger."""
        self.beta = check_number("beta", beta)

    def check_options(self) -> None:
        """Raise InputError if an option or a formula, set by hand, is one that the loss cannot use.

        `gather` asks, as the constructor does, and `check_parts` before every use.
        """
        self.beta = check_number("beta", self.beta)
        self.free_bits = check_number("free_bits", self.free_bits)
        require_formulas(self)

    def require_contracts(self) -> None:
        """Do what `Model.require_contracts` does, for the prior too."""
        super().require_contracts()
        require_prior(self)

    def check_parts(self) -> None:
        """Do what `Model.check_parts` and `check_options` do."""
        super().check_parts()
        self.check_options()

    def config(self) -> dict[str, Any]:
        """Return what `Autoencoder.config` does, with beta, free_bits and the prior."""
        config = {**super().config(), "beta": float(self.beta), "free_bits": self.free_bits}
        return config | options_of(self.prior)

    def gather(self) -> None:
        """Do what `Model.gather` does; raise InputError too if prior or options do not fit."""
        self.require_contracts()
        require_prior_shapes(self)
        self.check_options()
        super().gather()

    def require_formula_shapes(self) -> None:
        """Do what `Model.require_formula_shapes` does, for a draw and a KL of one's own too."""
        super().require_formula_shapes()
        names = [name for name in ("reparameterize", "kl") if self.replaces(name)]
        require_code_shapes(self, names)

    def replaces(self, name: str) -> bool:
        """Return whether the formula of that name, or its backward, is another than VAE's."""
        pair = name, f"{name}_backward"
        return any(getattr(self, one) is not getattr(VAE, one) for one in pair)

    # The formulas, each with its backward. [sigma], [kl] and the others are in `gaussian`.
    # `kl` is that from N(0, I): any other prior brings a KL of its own.
    reparameterize = staticmethod(gaussian.reparameterize)  # (mu, logvar, eps) -> (z, cache)
    reparameterize_backward = staticmethod(gaussian.reparameterize_backward)
    kl = staticmethod(gaussian.kl_standard_normal)  # (mu, logvar) -> (kl (B,), cache)
    kl_backward = staticmethod(gaussian.kl_standard_normal_backward)

    def noise_shape(self, n: int) -> tuple[int, ...]:
        """Return (n, Z): one draw of the posterior for each example."""
        return n, self.latent_dim

    def draw_prior(self, n: int, rng: np.random.Generator) -> Array:
        """Return n codes drawn from the prior p(z), (n, Z)."""
        eps = self.backend.standard_normal(rng, (n, self.latent_dim), self.dtype)
        return self.prior.draw(eps, rng)

    def log_prior(self, z: Array) -> Array:
        """Return log p(z) in nats for codes z (..., Z), (...)."""
        log_p: Array = self.prior.log_density(z)[0]
        return log_p

    def sample(self, n: int, rng: RandomSource = None) -> Array:
        """Return the decoded means (n, D) of n draws from the prior.

        The draws come from `rng`, or from the model's own generator if it is None.
        """
        rng = self.rng if rng is None else get_rng(rng)
        return self.decode(self.draw_prior(check_size("n", n), rng))

    def encode(self, x: Any) -> tuple[Array, Array]:
        """Return the parameters (mu, logvar) of q(z|x), (B, Z) each, for x (B, D)."""
        return self.split(super().encode(x))

    def mean_code(self, x: Any) -> Array:
        """Return the mean mu (B, Z) of q(z|x) for each x (B, D)."""
        return self.encode(x)[0]

    def codes(self, x: Any, eps: Any = None) -> Array:
        """Return draws z from q(z|x) for x (B, D), by the noise eps: (B, Z), or in its shape."""
        x = self.as_rows(x)
        return self.reparameterize(*self.encode(x), self.noise(eps, len(x)))[0]

    def forward(self, x: Any, eps: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache for `backward`."""
        x = self.as_rows(x)
        eps = self.noise(eps, len(x))  # (B, Z)
        code, encoder_cache = self.encoder.forward(x)  # (B, 2Z)
        mu, logvar = self.split(code)  # (B, Z) each
        z, z_cache = self.reparameterize(mu, logvar, eps)  # (B, Z)
        output, decoder_cache = self.decoder.forward(self.decoder_input(z, x))  # (B, output_dim)
        nll, nll_cache = self.nll(x, output)  # (B,)
        if self.prior.standard:
            kl, kl_cache = self.kl(mu, logvar)  # (B,)
        else:
            kl, kl_cache = self.prior.kl(mu, logvar, z)  # (B,) estimated at the draw
        charged = kl
        if self.free_bits:
            charged, kl_cache = kl_free_bits(mu, logvar, self.free_bits)  # (B,)
        # [negative-elbo]
        terms = Terms(nll + self.beta * charged, nll, kl)
        return terms, (encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache)

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,), the weight of each example's loss."""
        encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache = cache
        doutput = self.nll_backward(dloss, nll_cache)  # (B, output_dim)
        dz = self.decoder_input_backward(self.decoder.backward(doutput, decoder_cache))  # (B, Z)
        # [two-paths]  mu and logvar reach the loss through z and through the KL: gradients add
        dmu_z, dlogvar_z = self.reparameterize_backward(dz, z_cache)  # (B, Z) each
        kl_backward = self.kl_backward if self.prior.standard else self.prior.kl_backward
        kl_backward = kl_free_bits_backward if self.free_bits else kl_backward
        dmu_kl, dlogvar_kl = kl_backward(self.beta * dloss, kl_cache)  # (B, Z) each
        dcode = namespace(dz).concatenate([dmu_z + dmu_kl, dlogvar_z + dlogvar_kl], axis=1)
        backward_parameters(self.encoder, dcode, encoder_cache)  # dcode (B, 2Z)
        self.params.complete_gradient()

    def split(self, code: Array) -> tuple[Array, Array]:
        """Return the two halves of the encoder's output (B, 2Z): mu and logvar, (B, Z) each."""
        return code[:, : self.latent_dim], code[:, self.latent_dim :]
