r"""How good a model is: its bounds on log p(x) in nats, and what its latent dimensions carry.

Every function takes the data as an iterable of float batches (B, D), so that a data set never has
to be in memory as floats. For a model that is given labels they are what its `rows` returns, and
the bounds are on log p(x|y). Those that draw noise take it from their `rng`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from .backend import Array, RandomSource, asnumpy, get_rng, namespace
from .errors import InputError, check_size
from .gaussian import kl_per_dimension, log_density, reparameterize
from .layers import in_words
from .shapes import to_try
from .vae import VAE, Autoencoder, Terms

ROWS_AT_ONCE = 10_000  # of decoder output: 31 MB for MNIST in float32; on a GPU ten times as many
WIDTH = 784  # of the widest layer; where one is wider, so many fewer rows


def elbo(
    model: Autoencoder, batches: Iterable[Array], rng: RandomSource = None, samples: int = 1
) -> Terms:
    """Return loss, reconstruction and KL in nats per example, averaged over the data.

    The evidence lower bound is ``-(reconstruction + kl)``, and for beta = 1 it is ``-loss``.

    Parameters
    ----------
    model : Autoencoder or VAE
    batches : iterable of (B, D)
    rng : None, int, SeedSequence or Generator
    samples : int
        How many draws of z per example. More of them make the mean less noisy, but not the bound
        tighter.
    """
    check_size("samples", samples)
    rng = get_rng(rng)
    xp = model.backend.xp
    _require_batches(batches)
    totals, n = xp.zeros(3), 0  # on the device until the end: reading a number waits for a GPU
    for x in batches:
        for _ in range(samples):
            found = model.forward(x, model.draw_eps(len(x), rng))
            model.require_terms(found, len(x))
            terms, _ = found  # (B,) each
            totals += xp.stack([t.sum(dtype=np.float64) for t in terms])  # (3,)
            n += len(x)
    _require_examples(n)
    return Terms(*(asnumpy(totals) / n))


def log_importance_weights(
    model: VAE, x: Array, eps: Array, posterior: tuple[Array, Array] | None = None
) -> Array:
    """Return log p(x|z) + log p(z) - log q(z|x) in nats, (K, B), at z = mu + sigma eps.

    The draws are from N(mu, sigma^2), whose density divides, also where a subclass of `VAE` draws
    otherwise in training: so the bound that the weights give holds for any decoder and any code.

    Parameters
    ----------
    model : VAE
    x : (B, D)
    eps : (K, B, Z)
    posterior : (mu, logvar), optional
        What ``model.encode(x)`` returns, where it is known already.
    """
    x = model.as_rows(x)
    mu, logvar = posterior or model.encode(x)  # (B, Z) each
    z, _ = reparameterize(mu, logvar, eps)  # (K, B, Z)
    inputs = model.decoder_input(z, x)  # (K, B, Z)
    output, _ = model.decoder.forward(inputs.reshape(-1, inputs.shape[-1]))  # (K B, output_dim)
    nll, _ = model.nll(x, output.reshape(*z.shape[:2], -1))  # (K, B)
    # [importance-weight]
    return model.log_prior(z) - log_density(z, mu, logvar)[0] - nll  # (K, B)


def importance_weighted_bound(
    model: VAE, batches: Iterable[Array], samples: int, rng: RandomSource = None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the importance-weighted bound on log p(x) of every example in nats, (N,).

    It is log of the mean of `samples` importance weights: in expectation at least the ELBO, at most
    log p(x), and never falling with more samples. Minus its mean over the data, with a few thousand
    samples, is what papers report as the negative log-likelihood. Memory does not grow with
    `samples`.

    Raises
    ------
    InputError
        If `model` is a plain autoencoder, which has no density, or if its likelihood does not take
        K draws of an example.

    Notes
    -----
    Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted Autoencoders", 2016, equation 8.
    """
    _require_posterior(model, "the importance-weighted bound")
    model.try_formulas()
    _require_density(model)
    check_size("samples", samples)
    rng, xp = get_rng(rng), model.backend.xp
    _require_batches(batches)
    rows, bounds = _rows_at_once(model), []
    for batch in batches:
        for x in (model.as_rows(batch[i : i + rows]) for i in range(0, len(batch), rows)):
            at_once, posterior = rows // len(x), model.encode(x)
            if any(part.shape != (len(x), model.latent_dim) for part in posterior):
                raise InputError(
                    "the weights of the bound are those of codes from N(mu, exp(logvar)), and the "
                    "model's encode gives something else than mu and logvar"
                )
            log_sum = xp.full(len(x), -np.inf)  # (B,) log of their sum, in float64
            for start in range(0, samples, at_once):
                shape = (min(at_once, samples - start), len(x), model.latent_dim)
                eps = model.backend.standard_normal(rng, shape, model.dtype)  # (K, B, Z)
                log_w = log_importance_weights(model, x, eps, posterior)  # (K, B)
                log_sum = log_sum_exp(xp.concatenate([log_sum[None], log_w]))  # (B,) in float64
            # [importance-weighted-bound]
            bounds.append(log_sum - math.log(samples))
    _require_examples(len(bounds))
    return asnumpy(xp.concatenate(bounds))


def _require_density(model: VAE) -> None:
    """Raise InputError if the model's prior is not the one whose density it tells."""
    own = {n: getattr(model, n) for n in ("draw_prior", "log_prior")}
    own = {n: getattr(f, "__func__", f) is not getattr(VAE, n) for n, f in own.items()}
    if model.replaces("kl") and own["draw_prior"] and not own["log_prior"]:
        raise InputError(
            "the model replaces kl and draw_prior, and so its prior, but not log_prior, by which "
            "the bound weighs the codes: replace log_prior(z) too, the log density of z in nats"
        )


def _rows_at_once(model: VAE) -> int:
    """Return how many codes go through the decoder at once, from the width of its widest layer."""
    code = model.backend.xp.zeros((1, model.widths()["decoder"][0]), dtype=model.dtype)
    cache: Any = None
    with np.errstate(all="ignore"), suppress(Exception):  # a norm may divide by 0, or refuse it
        _, cache = to_try(model.decoder).forward(code)
    widest = max(model.likelihood.output_dim, _largest(cache))
    rows = ROWS_AT_ONCE if model.backend.name == "numpy" else 10 * ROWS_AT_ONCE
    return max(1, rows * WIDTH // max(WIDTH, widest))


def _largest(cache: Any) -> int:
    """Return the size of the largest array in a cache of tuples and lists."""
    if isinstance(cache, tuple | list):
        return max(map(_largest, cache), default=0)
    return int(getattr(cache, "size", 0))


def log_sum_exp(a: Array) -> Array:
    """Return log of the sum over k of exp(a[k]), (B,), for a (K, B); a weight may be 0: -inf."""
    xp = namespace(a)
    # [log-sum-exp]  the largest is taken out, so that exp does not overflow
    top = a.max(axis=0)  # (B,)
    top = xp.where(top == -np.inf, 0, top)
    with np.errstate(divide="ignore"):  # log 0 = -inf where every weight is 0
        return top + xp.log(xp.exp(a - top).sum(axis=0))  # (B,)


def kl_of_dimensions(model: VAE, batches: Iterable[Array]) -> Array:
    """Return the mean KL of each latent dimension from the prior in nats, (Z,), as NumPy array.

    Raises
    ------
    InputError
        If `model` is a plain autoencoder, or its prior or its KL is another than that of N(0, I).
    """
    _require_posterior(model, "the KL")
    if not model.prior.standard:
        raise InputError(
            f"the KL of each dimension needs the prior N(0, I): from {in_words(model.prior)} only "
            "that of the whole code is known"
        )
    if model.replaces("kl"):
        raise InputError(
            "the KL of each dimension is that of VAE, and the model replaces it with another"
        )
    _require_batches(batches)
    totals, n = model.backend.xp.zeros(model.latent_dim), 0
    for x in batches:
        totals += kl_per_dimension(*model.encode(x)).sum(axis=0, dtype=np.float64)
        n += len(x)
    _require_examples(n)
    return asnumpy(totals / n)


def active_units(model: Autoencoder, batches: Iterable[Array], threshold: float = 0.01) -> int:
    """Count the latent dimensions whose mean code varies over the data by more than `threshold`.

    Notes
    -----
    Burda et al. (see `importance_weighted_bound`) call them active: Var_x(E_q[z_j]) > 0.01.
    """
    _require_batches(batches)
    zeros = model.backend.xp.zeros
    sums, squares, n = zeros(model.latent_dim), zeros(model.latent_dim), 0
    for x in batches:
        mu = model.mean_code(x).astype(np.float64)  # (B, Z)
        sums, squares, n = sums + mu.sum(axis=0), squares + (mu * mu).sum(axis=0), n + len(mu)
    _require_examples(n)
    return int((squares / n - (sums / n) ** 2 > threshold).sum())


def _require_batches(batches: Any) -> None:
    if not isinstance(batches, Iterable):
        raise InputError(
            f"batches is {batches!r}: expected an iterable of arrays (B, D), such as [x]"
        )


def _require_examples(n: int) -> None:
    if n == 0:
        raise InputError("batches holds no example: expected at least one")


def _require_posterior(model: Autoencoder, what: str) -> None:
    if not model.has_posterior:
        raise InputError(f"{what} needs a VAE: an autoencoder has no q(z|x)")
