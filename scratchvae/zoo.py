"""A zoo of wrong VAEs: what hand-written ones get wrong, a few lines each.

Each class is `VAE` with one formula replaced, and its docstring says what was got wrong and why
that is tempting. Most replace forward and backward so that the two agree: a gradient check passes
them, and only a comparison with what the formula is meant to be finds them. `ENTRIES` at the end
lists all of them with the checks of `CHECKS` that find each.

This module is for tests, demos and exercises. ``import scratchvae`` does not load it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .activations import sigmoid
from .backend import Array, namespace
from .errors import InputError
from .gaussian import LOG_2PI, log_density, log_density_backward
from .layers import backward_parameters
from .likelihoods import Gaussian
from .vae import VAE, Terms

# ------------------------------------------------------------------------------------- the draw


class SigmaIsExpLogvar(VAE):
    """sigma = exp(logvar): exp undoes log, and the half is forgotten.

    Tempting because the loss that it prints is lower than the right one. Wherever sigma < 1 the
    draws are narrower than the posterior whose KL is paid.
    """

    def reparameterize(self, mu: Array, logvar: Array, eps: Array) -> tuple[Array, Any]:
        """Return z = mu + exp(logvar) eps, and the cache."""
        return super().reparameterize(mu, 2 * logvar, eps)  # exp(2 logvar / 2) = exp(logvar)

    def reparameterize_backward(self, dz: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of this draw."""
        dmu, dlogvar = super().reparameterize_backward(dz, cache)
        return dmu, 2 * dlogvar


class NoiseDrawnAgain(VAE):
    """The backward pass draws a new eps.

    Tempting because eps is only noise, and there is one array less to keep. But the gradient
    belongs to the draw that was decoded. The gradient for mu does not contain eps, so training
    still goes somewhere.
    """

    def reparameterize_backward(self, dz: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of another draw."""
        sigma, eps = cache
        again = self.draw_eps(eps.shape[-2], self.rng)  # the shape of eps
        return super().reparameterize_backward(dz, (sigma, again))


class LogHalfSigma(VAE):
    """z = mu + log(0.5 sigma) eps, the formula in the question that this project began with.

    It is exp(0.5 log(sigma^2)), remembered with log and exp exchanged. The noise vanishes where
    sigma = 2, and grows without bound where the encoder is sure, sigma -> 0.
    """

    def reparameterize(self, mu: Array, logvar: Array, eps: Array) -> tuple[Array, Any]:
        """Return z, and a cache with which the backward of `VAE` is right."""
        xp = namespace(mu)
        sigma = xp.exp(0.5 * logvar)  # (B, Z)
        z = mu + xp.log(0.5 * sigma) * eps
        # log(0.5 sigma) = logvar / 2 - log 2 has the derivative 1/2, as sigma has where it is 1.
        return z, (xp.ones_like(sigma), eps)


# ------------------------------------------------------------------------------------- averages


class KLAveraged(VAE):
    """The KL is averaged over the Z latent dimensions, the reconstruction summed: beta = 1/Z.

    Tempting because `mean()` looks like a tidier `sum()`, and the loss comes out lower.
    """

    def kl(self, mu: Array, logvar: Array) -> tuple[Array, Any]:
        """Return the average (B,), and the cache."""
        kl, cache = super().kl(mu, logvar)
        return kl / self.latent_dim, cache

    def kl_backward(self, dkl: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of the average."""
        return super().kl_backward(dkl / self.latent_dim, cache)


class ReconstructionAveraged(VAE):
    """The reconstruction is averaged over the D pixels, the KL summed: beta = D, all divided by D.

    Tempting because a mean over pixels and batch is what loss functions do by default.
    """

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return the average (B,), and the cache."""
        nll, cache = super().nll(x, output)
        return nll / self.data_dim, cache

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return doutput of the average."""
        return super().nll_backward(dnll / self.data_dim, cache)


class BothAveraged(KLAveraged, ReconstructionAveraged):
    """Both terms are averaged over their dimensions: beta = D/Z, and a loss divided by D.

    Tempting because it treats the two terms alike. But their numbers of dimensions differ.
    """


# ------------------------------------------------------------------------------------------- KL


class KLSigmaCubed(VAE):
    """(mu^2 + sigma^3 - 1 - logvar) / 2: a slip in the power.

    Tempting because an untrained model, whose sigma is near 1, hardly shows it.
    """

    def kl(self, mu: Array, logvar: Array) -> tuple[Array, Any]:
        """Return the wrong KL (B,), and the cache."""
        cube = namespace(mu).exp(1.5 * logvar)  # (B, Z), should be exp(logvar)
        return 0.5 * (mu * mu + cube - 1 - logvar).sum(axis=-1), (mu, cube)

    def kl_backward(self, dkl: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of the wrong KL."""
        mu, cube = cache
        return dkl[..., None] * mu, dkl[..., None] * 0.5 * (1.5 * cube - 1)


class KLNegated(VAE):
    """The KL is subtracted from the loss.

    Tempting because the bound is log p(x|z) minus the KL, and the loss is minus the bound: one of
    the two signs gets lost.
    """

    def kl(self, mu: Array, logvar: Array) -> tuple[Array, Any]:
        """Return minus the KL (B,), and the cache."""
        kl, cache = super().kl(mu, logvar)
        return -kl, cache

    def kl_backward(self, dkl: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of minus the KL."""
        return super().kl_backward(-dkl, cache)


class KLLogvarAdded(VAE):
    """(mu^2 + sigma^2 - 1 + logvar) / 2: one sign is wrong inside the sum.

    Tempting because -(1 + logvar - mu^2 - sigma^2) / 2 has four signs to turn, and the result is 0
    at the prior, as it should be.
    """

    def kl(self, mu: Array, logvar: Array) -> tuple[Array, Any]:
        """Return the wrong KL (B,), and the cache."""
        kl, cache = super().kl(mu, logvar)
        return kl + logvar.sum(axis=-1), cache  # -logvar/2 becomes +logvar/2

    def kl_backward(self, dkl: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of the wrong KL."""
        dmu, dlogvar = super().kl_backward(dkl, cache)
        return dmu, dlogvar + dkl[..., None]


class KLHalfMisplaced(VAE):
    """mu^2 + sigma^2 - log(sigma) - 1/2: log(sigma^2)/2 = log(sigma), the other halves are lost.

    Tempting because it is never negative. It is the divergence from N(0, 1/2), plus log(2)/2 for
    each dimension.
    """

    def kl(self, mu: Array, logvar: Array) -> tuple[Array, Any]:
        """Return the wrong KL (B,), and the cache."""
        variance = namespace(mu).exp(logvar)  # (B, Z)
        return (mu * mu + variance - 0.5 * logvar - 0.5).sum(axis=-1), (mu, variance)

    def kl_backward(self, dkl: Array, cache: Any) -> tuple[Array, Array]:
        """Return (dmu, dlogvar) of the wrong KL."""
        mu, variance = cache
        return dkl[..., None] * 2 * mu, dkl[..., None] * (variance - 0.5)


# ----------------------------------------------------------------------------------- likelihoods


class LossOfProbabilities(VAE):
    """-log(y + 1e-9) of a probability y = sigmoid(logit), with its own exact gradient.

    Tempting because it is the textbook's formula, and 1e-9 keeps it from log(0). It also keeps the
    loss of a pixel below 20.73 nats, and the gradient near 0 where the model is surely wrong.
    """

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return the loss (B,) for logits, and the cache."""
        log, y = namespace(output).log, sigmoid(output)[0]  # (B, D)
        nll = -(x * log(y + 1e-9) + (1 - x) * log(1 - y + 1e-9)).sum(axis=-1)  # (B,)
        return nll, (x, y)

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return the gradient for the logits, through the probabilities."""
        x, y = cache
        dy = -x / (y + 1e-9) + (1 - x) / (1 - y + 1e-9)  # (B, D)
        return dnll[..., None] * dy * y * (1 - y)


class LossOfProbabilitiesGradientOfLogits(LossOfProbabilities):
    """The same loss with the gradient y - x, which is right for a loss on logits.

    Tempting because every text says so, and because training is then right: only the printed loss
    is not.
    """

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return the gradient that the loss on logits has."""
        x, y = cache
        return dnll[..., None] * (y - x)


class GaussianWithoutConstant(VAE):
    """The Gaussian likelihood without D/2 log(2 pi).

    Tempting because a constant has no gradient, and because the loss is then 0 where the fit is
    perfect at sigma = 1. But no density has that loss.
    """

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return the loss (B,), and the cache."""
        nll, cache = super().nll(x, output)
        return nll - 0.5 * self.data_dim * LOG_2PI, cache


class GaussianWithoutLogvar(GaussianWithoutConstant):
    """(x - mean)^2 / (2 sigma^2) alone, with one sigma that is learned.

    Tempting because log(sigma) is a constant too, as long as sigma is not learned.
    """

    likelihood: Gaussian

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return the loss (B,), and the cache."""
        nll, cache = super().nll(x, output)
        return nll - 0.5 * self.data_dim * self.likelihood.one_logvar(), cache

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return doutput; add to the gradient for the one logvar what is left of it."""
        doutput = super().nll_backward(dnll, cache)
        if not self.likelihood.logvar.constant:
            self.likelihood.logvar.add(-0.5 * self.data_dim * dnll.sum())
        return doutput


class SquaredError(VAE):
    """The sum of (x - mean)^2: a Gaussian of variance 1/2 without its constant.

    Tempting because it is the reconstruction error. Beside a KL in nats its unit is not free.
    """

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return the squared error (B,) of the means, and the cache."""
        diff = x - output  # (B, D)
        return (diff * diff).sum(axis=-1), diff

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return the gradient for the means."""
        diff = cache
        return dnll[..., None] * -2 * diff


class CrossEntropyOnGrey(VAE):
    """Nothing is changed: binary cross-entropy on grey pixels, reported as -log p(x|z).

    Tempting because it trains well and has the right minimum. But no density has that loss.
    """


# --------------------------------------------------------------------------- importance weights


def importance_weighted_loss(log_w: Array) -> tuple[Array, Any]:
    """Return -log(mean_k w_k), (B,), for log w (K, B), and the cache."""
    xp, top = namespace(log_w), log_w.max(axis=0)  # the largest is taken out: no overflow
    w = xp.exp(log_w - top)  # (K, B)
    total = w.sum(axis=0)  # (B,)
    return math.log(len(w)) - top - xp.log(total), w / total


def importance_weighted_loss_backward(dloss: Array, cache: Any) -> Array:
    """Return dlog_w (K, B): each draw counts with its normalised weight."""
    normalised = cache  # (K, B)
    return -dloss * normalised


class ImportanceWeightedVAE(VAE):
    """The right one: a VAE whose loss is -log(mean_k w_k) of K draws for each example.

    The weight of a draw is w_k = p(x|z_k) p(z_k) / q(z_k|x), and the noise is (K, B, Z).
    """

    K = 5

    def set_beta(self, beta: float) -> None:
        """Raise InputError unless beta is 1: the KL is no term of this loss, to be weighed."""
        if beta != 1:
            raise InputError(
                f"beta is {beta}: importance weights have no KL term, so leave it at 1"
            )
        super().set_beta(beta)

    combine = staticmethod(importance_weighted_loss)
    combine_backward = staticmethod(importance_weighted_loss_backward)

    def noise_shape(self, n: int) -> tuple[int, ...]:
        """Return (K, n, Z)."""
        return self.K, n, self.latent_dim

    def log_ratio(self, mu: Array, logvar: Array, z: Array) -> tuple[Array, Any]:
        """Return log p(z) - log q(z|x), (K, B), and the cache."""
        log_q, cache = log_density(z, mu, logvar)  # (K, B)
        return self.log_prior(z) - log_q, (z, cache)

    def log_ratio_backward(self, dratio: Array, cache: Any) -> tuple[Array, Array, Array]:
        """Return (dz, dmu, dlogvar) from dratio (K, B)."""
        z, q_cache = cache
        dz, dmu, dlogvar = log_density_backward(-dratio, q_cache)
        return dz - dratio[..., None] * z, dmu, dlogvar  # log p(z) has the gradient -z

    def forward(self, x: Any, eps: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache; the KL is not separate."""
        x = self.as_batch("x", x, self.data_dim)
        eps = self.noise(eps, len(x))  # (K, B, Z)
        code, encoder_cache = self.encoder.forward(x)  # (B, 2Z)
        mu, logvar = self.split(code)  # (B, Z) each
        z, z_cache = self.reparameterize(mu, logvar, eps)  # (K, B, Z)
        output, decoder_cache = self.decoder.forward(z.reshape(-1, self.latent_dim))
        nll, nll_cache = self.nll(x, output.reshape(*z.shape[:2], -1))  # (K, B)
        ratio, ratio_cache = self.log_ratio(mu, logvar, z)  # (K, B)
        loss, w_cache = self.combine(ratio - nll)  # (B,)
        caches = encoder_cache, z_cache, decoder_cache, nll_cache, ratio_cache, w_cache
        return Terms(loss, loss, 0 * loss), caches

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,)."""
        encoder_cache, z_cache, decoder_cache, nll_cache, ratio_cache, w_cache = cache
        dlog_w = self.combine_backward(dloss, w_cache)  # (K, B)
        doutput = self.nll_backward(-dlog_w, nll_cache)  # (K, B, D)
        dz = self.decoder.backward(doutput.reshape(-1, doutput.shape[-1]), decoder_cache)
        dz_ratio, dmu_ratio, dlogvar_ratio = self.log_ratio_backward(dlog_w, ratio_cache)
        dz = dz.reshape(dz_ratio.shape) + dz_ratio  # (K, B, Z)
        dmu, dlogvar = self.reparameterize_backward(dz, z_cache)  # (B, Z) each
        dcode = namespace(dz).concatenate([dmu + dmu_ratio, dlogvar + dlogvar_ratio], axis=1)
        backward_parameters(self.encoder, dcode, encoder_cache)  # dcode (B, 2Z)


class WeightsOfTheLoss(ImportanceWeightedVAE):
    """The weights are a softmax of the losses -log w_k: the worst draw counts most.

    Tempting because the loss is what the code has at hand. The loss of the batch is still right;
    its gradient is not.
    """

    @staticmethod
    def combine(log_w: Array) -> tuple[Array, Any]:
        """Return the right loss (B,), and the weights of the wrong sign as cache."""
        loss, _ = importance_weighted_loss(log_w)
        _, normalised = importance_weighted_loss(-log_w)
        return loss, normalised


class AnalyticKLInside(ImportanceWeightedVAE):
    """log w_k = log p(x|z_k) - KL: the analytic divergence instead of its value at the draw.

    Tempting because the ELBO may use either, and the analytic one is less noisy. Inside the log of
    a mean they are not alike.
    """

    def log_ratio(self, mu: Array, logvar: Array, z: Array) -> tuple[Array, Any]:
        """Return -KL for every draw, (K, B), and the cache."""
        kl, cache = self.kl(mu, logvar)  # (B,)
        return namespace(z).broadcast_to(-kl, z.shape[:2]), (z, cache)

    def log_ratio_backward(self, dratio: Array, cache: Any) -> tuple[Array, Array, Array]:
        """Return (dz, dmu, dlogvar); the KL does not depend on z."""
        z, kl_cache = cache
        return 0 * z, *self.kl_backward(-dratio.sum(axis=0), kl_cache)


class WeightsNotConstant(ImportanceWeightedVAE):
    """The loss sum_k w~_k (-log w_k), differentiated through the normalised weights w~ too.

    Tempting because with w~ held constant this sum has the right gradient, and automatic
    differentiation holds nothing constant unless told to. The right value it never has.
    """

    @staticmethod
    def combine(log_w: Array) -> tuple[Array, Any]:
        """Return the sum (B,), and the cache."""
        _, normalised = importance_weighted_loss(log_w)  # (K, B)
        return -(normalised * log_w).sum(axis=0), (log_w, normalised)

    @staticmethod
    def combine_backward(dloss: Array, cache: Any) -> Array:
        """Return dlog_w (K, B)."""
        log_w, normalised = cache  # (K, B) each
        mean = (normalised * log_w).sum(axis=0)  # (B,)
        return -dloss * normalised * (1 + log_w - mean)


# -------------------------------------------------------------------------------------- the list

CHECKS = {
    "gradients": "backward agrees with differences of forward",
    "sampler": "the draws have the distribution N(mu, sigma^2)",
    "monte_carlo_kl": "the KL is the mean of log q(z) - log p(z) over the draws",
    "kl_invariants": "the KL is never negative, and 0 at the prior",
    "units": "both terms are numbers of nats that are known in closed form",
    "bound": "the expected bound does not exceed log p(x)",
    "density": "exp(-loss) of the reconstruction sums or integrates to 1",
    "weights": "the loss of K draws is -log of the mean of their importance weights",
}


class Entry(NamedTuple):
    """A wrong model, and what finds it."""

    model: type[VAE]
    wrong: str  # what is wrong, in a few words
    found_by: tuple[str, ...]  # the names of all checks of `CHECKS` that fail
    pixels: str = "bits"  # the data that it is for: "bits", "grey" in [0, 1] or "real"


ENTRIES = (
    Entry(SigmaIsExpLogvar, "σ = exp(logvar)", ("sampler", "monte_carlo_kl", "bound")),
    Entry(NoiseDrawnAgain, "ε drawn again in backward", ("gradients",)),
    Entry(LogHalfSigma, "z = μ + log(0.5 σ) ε", ("sampler", "monte_carlo_kl")),
    Entry(KLAveraged, "KL: mean over dimensions", ("monte_carlo_kl", "units", "bound")),
    Entry(
        ReconstructionAveraged, "reconstruction: mean over pixels", ("units", "bound", "density")
    ),
    Entry(
        BothAveraged,
        "both: mean over dimensions",
        ("monte_carlo_kl", "units", "bound", "density"),
    ),
    Entry(KLSigmaCubed, "KL: σ³ for σ²", ("monte_carlo_kl", "kl_invariants", "units", "bound")),
    Entry(KLNegated, "KL: subtracted", ("monte_carlo_kl", "kl_invariants", "units", "bound")),
    Entry(
        KLLogvarAdded,
        "KL: + for − logvar",
        ("monte_carlo_kl", "kl_invariants", "units", "bound"),
    ),
    Entry(KLHalfMisplaced, "KL: log σ for log σ²", ("monte_carlo_kl", "kl_invariants", "units")),
    # The 1e-9 is seen at tolerances below 2e-9 only, or at large logits.
    Entry(LossOfProbabilities, "log(y + 1e-9) of probabilities", ("units", "density")),
    Entry(
        LossOfProbabilitiesGradientOfLogits,
        "log(y + 1e-9) with the gradient y − x",
        ("units", "density"),
    ),
    Entry(
        GaussianWithoutConstant,
        "Gaussian without log 2π",
        ("units", "bound", "density"),
        pixels="real",
    ),
    Entry(
        GaussianWithoutLogvar,
        "Gaussian without log σ²",
        ("units", "bound", "density"),
        pixels="real",
    ),
    Entry(SquaredError, "squared error for −log p", ("units", "bound", "density"), pixels="real"),
    Entry(CrossEntropyOnGrey, "cross-entropy of grey pixels", ("density",), pixels="grey"),
    Entry(WeightsOfTheLoss, "weights: softmax of the losses", ("gradients",)),
    Entry(AnalyticKLInside, "weights: the analytic KL inside", ("weights",)),
    Entry(WeightsNotConstant, "weights: not held constant", ("weights",)),
)
