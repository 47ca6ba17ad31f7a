"""A zoo of wrong variational autoencoders: what hand-written ones get wrong, a few lines each.

Every class is the right model with one formula changed, and says what was got wrong and why it is
tempting. Each has its backward below its forward, and most of these agree with each other: only
`NoiseDrawnAgain`, `LossOfProbabilitiesGradientOfLogits` and `WeightsOfTheLoss` are errors that a
gradient check can see. `test_bug_zoo.py` holds what finds the others.
"""

from __future__ import annotations

import math

import numpy as np

from scratchvae import VAE
from scratchvae.activations import sigmoid
from scratchvae.gaussian import (
    LOG_2PI,
    kl_standard_normal,
    kl_standard_normal_backward,
    log_density,
    log_density_backward,
    reparameterize,
    reparameterize_backward,
)
from scratchvae.vae import Terms


class OpenVAE(VAE):
    """The right VAE, with its three formulas as methods: a subclass can get one of them wrong."""

    pixels = "bits"  # what the decoder is a density of: "bits", "grey" in [0, 1], or "real" numbers

    def reparameterize(self, mu, logvar, eps):
        return reparameterize(mu, logvar, eps)

    def reparameterize_backward(self, dz, cache):
        return reparameterize_backward(dz, cache)

    def kl(self, mu, logvar):
        return kl_standard_normal(mu, logvar)

    def kl_backward(self, dkl, cache):
        return kl_standard_normal_backward(dkl, cache)

    def nll(self, x, output):
        return self.likelihood.nll(x, output)

    def nll_backward(self, dnll, cache):
        return self.likelihood.nll_backward(dnll, cache)

    def forward(self, x, eps=None):
        x = self._as_batch("x", x, self.data_dim)
        eps = self.draw_eps(len(x), self.rng) if eps is None else eps
        code, encoder_cache = self.encoder.forward(x)  # (B, 2Z)
        mu, logvar = self._split(code)  # (B, Z) each
        z, z_cache = self.reparameterize(mu, logvar, eps)  # (B, Z)
        output, decoder_cache = self.decoder.forward(z)  # (B, output_dim)
        nll, nll_cache = self.nll(x, output)  # (B,)
        kl, kl_cache = self.kl(mu, logvar)  # (B,)
        caches = encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache
        return Terms(nll + self.beta * kl, nll, kl), caches

    def backward(self, dloss, cache):
        encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache = cache
        doutput = self.nll_backward(dloss, nll_cache)  # (B, output_dim)
        dz = self.decoder.backward(doutput, decoder_cache)  # (B, Z)
        dmu_z, dlogvar_z = self.reparameterize_backward(dz, z_cache)  # (B, Z) each
        dmu_kl, dlogvar_kl = self.kl_backward(self.beta * dloss, kl_cache)  # (B, Z) each
        dcode = np.concatenate([dmu_z + dmu_kl, dlogvar_z + dlogvar_kl], axis=1)  # (B, 2Z)
        self.encoder.backward(dcode, encoder_cache, input_gradient=False)


# ------------------------------------------------------------------------------------- the draw


class SigmaIsExpLogvar(OpenVAE):
    """sigma = exp(logvar): exp undoes log, and the half is forgotten.

    Tempting because the loss that it prints is lower than the right one. Draws are narrower than
    the posterior whose KL is paid, wherever sigma < 1.
    """

    def reparameterize(self, mu, logvar, eps):
        sigma = np.exp(logvar)  # (B, Z), should be exp(logvar / 2)
        return mu + sigma * eps, (sigma, eps)

    def reparameterize_backward(self, dz, cache):
        sigma, eps = cache
        return dz, dz * eps * sigma


class NoiseDrawnAgain(OpenVAE):
    """eps drawn afresh in the backward pass.

    Tempting because eps is only noise, and one array less to keep. But the gradient belongs to the
    draw that was decoded. That of mu does not contain eps, so that training still goes somewhere.
    """

    def reparameterize_backward(self, dz, cache):
        sigma, eps = cache
        return reparameterize_backward(dz, (sigma, self.draw_eps(len(eps), self.rng)))


class LogHalfSigma(OpenVAE):
    """z = mu + log(0.5 sigma) eps, the formula in the question that this project began with.

    It is exp(0.5 log(sigma^2)) remembered with log and exp exchanged. The noise is gone where
    sigma = 2, and grows without bound where the encoder is sure, sigma -> 0.
    """

    def reparameterize(self, mu, logvar, eps):
        sigma = np.exp(0.5 * logvar)  # (B, Z)
        return mu + np.log(0.5 * sigma) * eps, eps

    def reparameterize_backward(self, dz, cache):
        eps = cache
        return dz, dz * eps * 0.5  # log(0.5 sigma) = logvar / 2 - log 2


# ------------------------------------------------------------------------------------- averages


class KLAveraged(OpenVAE):
    """KL averaged over the Z latent dimensions, reconstruction summed: beta = 1/Z.

    Tempting because `mean()` looks like a tidier `sum()`, and the loss comes out lower.
    """

    def kl(self, mu, logvar):
        kl, cache = super().kl(mu, logvar)
        return kl / self.latent_dim, cache

    def kl_backward(self, dkl, cache):
        return super().kl_backward(dkl / self.latent_dim, cache)


class ReconstructionAveraged(OpenVAE):
    """Reconstruction averaged over the D pixels, KL summed: beta = D, and a loss divided by D.

    Tempting because a mean over pixels and batch is what a loss function does by default.
    """

    def nll(self, x, output):
        nll, cache = super().nll(x, output)
        return nll / self.data_dim, cache

    def nll_backward(self, dnll, cache):
        return super().nll_backward(dnll / self.data_dim, cache)


class BothAveraged(KLAveraged, ReconstructionAveraged):
    """Both averaged: beta = D/Z, and a loss divided by D.

    Tempting because it treats both terms alike. They have not the same number of dimensions.
    """


# ------------------------------------------------------------------------------------------- KL


class KLSigmaCubed(OpenVAE):
    """(mu^2 + sigma^3 - 1 - logvar) / 2, a slip in the power.

    Tempting because an untrained model, whose sigma is near 1, hardly shows it.
    """

    def kl(self, mu, logvar):
        cube = np.exp(1.5 * logvar)  # (B, Z), should be exp(logvar)
        return 0.5 * (mu**2 + cube - 1 - logvar).sum(axis=-1), (mu, cube)

    def kl_backward(self, dkl, cache):
        mu, cube = cache
        return dkl[..., None] * mu, dkl[..., None] * 0.5 * (1.5 * cube - 1)


class KLNegated(OpenVAE):
    """The KL subtracted from the loss.

    Tempting because the bound is log p(x|z) minus the KL, and the loss is minus the bound: one of
    the two signs is lost.
    """

    def kl(self, mu, logvar):
        kl, cache = super().kl(mu, logvar)
        return -kl, cache

    def kl_backward(self, dkl, cache):
        return super().kl_backward(-dkl, cache)


class KLLogvarAdded(OpenVAE):
    """(mu^2 + sigma^2 - 1 + logvar) / 2: one sign wrong inside the sum.

    Tempting because -(1 + logvar - mu^2 - sigma^2) / 2 has four signs to turn, and the result
    is 0 at the prior, as it should be.
    """

    def kl(self, mu, logvar):
        kl, cache = super().kl(mu, logvar)
        return kl + logvar.sum(axis=-1), cache  # -logvar/2 becomes +logvar/2

    def kl_backward(self, dkl, cache):
        dmu, dlogvar = super().kl_backward(dkl, cache)
        return dmu, dlogvar + dkl[..., None]


class KLHalfMisplaced(OpenVAE):
    """mu^2 + sigma^2 - log(sigma) - 1/2: log(sigma^2)/2 = log(sigma); the other halves are lost.

    Tempting because it is never negative. It is the divergence from N(0, 1/2), plus
    log(2)/2 for each dimension.
    """

    def kl(self, mu, logvar):
        variance = np.exp(logvar)  # (B, Z)
        return (mu**2 + variance - 0.5 * logvar - 0.5).sum(axis=-1), (mu, variance)

    def kl_backward(self, dkl, cache):
        mu, variance = cache
        return dkl[..., None] * 2 * mu, dkl[..., None] * (variance - 0.5)


# ----------------------------------------------------------------------------------- likelihoods


class LossOfProbabilities(OpenVAE):
    """-log(y + 1e-9) of a probability y = sigmoid(logit), with its own exact gradient.

    Tempting because it is the textbook's formula, and 1e-9 keeps it from log(0). It also keeps the
    loss of a pixel below 20.73 nats, and the gradient near 0 where the model is surely wrong.
    """

    def nll(self, x, logits):
        y = sigmoid(logits)[0]  # (B, D)
        nll = -(x * np.log(y + 1e-9) + (1 - x) * np.log(1 - y + 1e-9)).sum(axis=-1)  # (B,)
        return nll, (x, y)

    def nll_backward(self, dnll, cache):
        x, y = cache
        dy = -x / (y + 1e-9) + (1 - x) / (1 - y + 1e-9)  # (B, D)
        return dnll[..., None] * dy * y * (1 - y)


class LossOfProbabilitiesGradientOfLogits(LossOfProbabilities):
    """The same loss with the gradient y - x that is right for a loss on logits.

    Tempting because every text says so, and because training is then right: only the printed loss
    is not.
    """

    def nll_backward(self, dnll, cache):
        x, y = cache
        return dnll[..., None] * (y - x)


class GaussianWithoutConstant(OpenVAE):
    """The Gaussian likelihood without D/2 log(2 pi).

    Tempting because a constant has no gradient, and because the loss is then 0 where the fit is
    perfect at sigma = 1. But no density has that loss.
    """

    pixels = "real"

    def nll(self, x, output):
        nll, cache = super().nll(x, output)
        return nll - 0.5 * self.data_dim * LOG_2PI, cache


class GaussianWithoutLogvar(GaussianWithoutConstant):
    """(x - mean)^2 / (2 sigma^2) alone, with one sigma that is learned.

    Tempting because log(sigma) is a constant too, as long as sigma is not learned.
    """

    def nll(self, x, output):
        nll, cache = super().nll(x, output)
        return nll - 0.5 * self.data_dim * self.likelihood.logvar.value, cache

    def nll_backward(self, dnll, cache):
        doutput = super().nll_backward(dnll, cache)
        self.likelihood.logvar.grad -= 0.5 * self.data_dim * dnll.sum()
        return doutput


class SquaredError(OpenVAE):
    """The sum of (x - mean)^2: a Gaussian of variance 1/2 without its constant.

    Tempting because it is the reconstruction error. Beside a KL in nats its unit is not free.
    """

    pixels = "real"

    def nll(self, x, mean):
        return ((x - mean) ** 2).sum(axis=-1), x - mean  # (B,)

    def nll_backward(self, dnll, cache):
        return dnll[..., None] * -2 * cache


class CrossEntropyOnGrey(OpenVAE):
    """Nothing is changed: binary cross-entropy, on grey pixels, reported as -log p(x|z).

    Tempting because it trains well and has the right minimum. But no density has that loss.
    """

    pixels = "grey"


# --------------------------------------------------------------------------- importance weights


def importance_weighted_loss(log_w):
    """Return -log(mean_k w_k), (B,), from log w (K, B), and the cache."""
    log_sum = np.logaddexp.reduce(log_w, axis=0)  # (B,)
    return math.log(len(log_w)) - log_sum, np.exp(log_w - log_sum)  # the cache: w~, (K, B)


def importance_weighted_loss_backward(dloss, cache):
    """Return dlog_w, (K, B): each draw counts with its normalised weight w~."""
    normalised = cache  # (K, B)
    return -dloss * normalised


class ImportanceWeightedVAE(VAE):
    """The right importance-weighted objective: a VAE whose loss is -log(mean_k w_k) of K draws.

    w_k = p(x|z_k) p(z_k) / q(z_k|x), and the noise `eps` is (K, B, Z).
    """

    combine = staticmethod(importance_weighted_loss)
    combine_backward = staticmethod(importance_weighted_loss_backward)

    def log_ratio(self, mu, logvar, z):
        """Return log p(z) - log q(z|x), (K, B)."""
        zero = np.zeros_like(mu)
        log_p, p_cache = log_density(z, zero, zero)  # (K, B)
        log_q, q_cache = log_density(z, mu, logvar)  # (K, B)
        return log_p - log_q, (p_cache, q_cache)

    def log_ratio_backward(self, dratio, cache):
        p_cache, q_cache = cache
        dz_p, _, _ = log_density_backward(dratio, p_cache)
        dz_q, dmu, dlogvar = log_density_backward(-dratio, q_cache)
        return dmu, dlogvar, dz_p + dz_q

    def forward(self, x, eps):
        code, encoder_cache = self.encoder.forward(x)  # (B, 2Z)
        mu, logvar = self._split(code)  # (B, Z) each
        z, z_cache = reparameterize(mu, logvar, eps)  # (K, B, Z)
        output, decoder_cache = self.decoder.forward(z.reshape(-1, self.latent_dim))  # (K B, D)
        nll, nll_cache = self.likelihood.nll(x, output.reshape(*z.shape[:2], -1))  # (K, B)
        ratio, ratio_cache = self.log_ratio(mu, logvar, z)  # (K, B)
        loss, w_cache = self.combine(ratio - nll)  # (B,)
        caches = encoder_cache, z_cache, decoder_cache, nll_cache, ratio_cache, w_cache
        return Terms(loss, loss, 0 * loss), caches

    def backward(self, dloss, cache):
        encoder_cache, z_cache, decoder_cache, nll_cache, ratio_cache, w_cache = cache
        dlog_w = self.combine_backward(dloss, w_cache)  # (K, B)
        doutput = self.likelihood.nll_backward(-dlog_w, nll_cache)  # (K, B, D)
        dz = self.decoder.backward(doutput.reshape(-1, doutput.shape[-1]), decoder_cache)
        dmu, dlogvar, dz_ratio = self.log_ratio_backward(dlog_w, ratio_cache)
        dmu_z, dlogvar_z = reparameterize_backward(dz.reshape(dz_ratio.shape) + dz_ratio, z_cache)
        dcode = np.concatenate([dmu + dmu_z, dlogvar + dlogvar_z], axis=1)  # (B, 2Z)
        self.encoder.backward(dcode, encoder_cache, input_gradient=False)


class WeightsOfTheLoss(ImportanceWeightedVAE):
    """Weights that are a softmax of the losses -log w_k: the worst draw counts most.

    Tempting because the loss is what the code has at hand. The loss of the batch stays the right
    one; its gradient does not.
    """

    @staticmethod
    def combine(log_w):
        loss, _ = importance_weighted_loss(log_w)
        return loss, importance_weighted_loss(-log_w)[1]

    combine_backward = staticmethod(importance_weighted_loss_backward)


class AnalyticKLInside(ImportanceWeightedVAE):
    """log w_k = log p(x|z_k) - KL: the analytic divergence in place of its value at the draw.

    Tempting because the ELBO may use either, and the analytic one has less noise. Inside the log
    of a mean they are not alike.
    """

    def log_ratio(self, mu, logvar, z):
        kl, cache = kl_standard_normal(mu, logvar)  # (B,)
        return np.broadcast_to(-kl, z.shape[:2]), (cache, z)

    def log_ratio_backward(self, dratio, cache):
        kl_cache, z = cache
        return *kl_standard_normal_backward(-dratio.sum(axis=0), kl_cache), np.zeros_like(z)


class WeightsNotConstant(ImportanceWeightedVAE):
    """The loss sum_k w~_k (-log w_k), differentiated through the weights w~ too.

    Tempting because with w~ held constant this sum has the right gradient, and an automatic
    differentiation holds nothing constant unless told to. The right value it never has.
    """

    @staticmethod
    def combine(log_w):
        _, normalised = importance_weighted_loss(log_w)  # (K, B)
        return -(normalised * log_w).sum(axis=0), (log_w, normalised)

    @staticmethod
    def combine_backward(dloss, cache):
        log_w, normalised = cache  # (K, B) each
        mean = (normalised * log_w).sum(axis=0)  # (B,)
        return -dloss * normalised * (1 + log_w - mean)


def weights_held_constant(log_w, weights):
    """Return the loss sum_k weights_k (-log w_k), (B,), for weights (K, B) that are handed in."""
    return -(weights * log_w).sum(axis=0), weights


def weights_held_constant_backward(dloss, cache):
    """Return dlog_w, (K, B)."""
    weights = cache
    return -dloss * weights
