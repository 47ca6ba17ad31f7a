"""The gradient of the usual VAE in half the launches, for training on a GPU.

There each operation of the text is a launch, which costs the host microseconds whatever the size of
the arrays. Here the operations between two matrix products are one function each. Its NumPy code
calls the formulas on their own pages and is its definition; a kernel takes its place on a GPU, see
`kernels`. What stands in `vae` and `layers` defines the whole, and the tests compare the two.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from . import gaussian, likelihoods
from .activations import ACTIVATIONS, relu
from .backend import Array, namespace
from .kernels import compiled
from .layers import Linear, Sequential
from .vae import VAE, Autoencoder, Terms

# The functions that this file takes together. A model that has another instead of one of them
# is left alone.
VAES = {
    "loss_and_grad": Autoencoder.loss_and_grad,
    "forward": VAE.forward,
    "backward": VAE.backward,
    "split": VAE.split,
    "decoder_input": Autoencoder.decoder_input,
    "decoder_input_backward": Autoencoder.decoder_input_backward,
    "nll": Autoencoder.nll,
    "nll_backward": Autoencoder.nll_backward,
    "reparameterize": gaussian.reparameterize,
    "reparameterize_backward": gaussian.reparameterize_backward,
    "kl": gaussian.kl_standard_normal,
    "kl_backward": gaussian.kl_standard_normal_backward,
}
BERNOULLIS = {
    "nll": likelihoods.bernoulli_nll,
    "nll_backward": likelihoods.bernoulli_nll_backward,
}
PASSES = ("forward", "backward", "backward_parameters")
LINEARS = {name: getattr(Linear, name) for name in PASSES}
SEQUENTIALS = {name: getattr(Sequential, name) for name in PASSES}


def loss_and_grad(model: Any, x: Any, eps: Any = None, batch_size: int | None = None) -> Terms:
    """Do what ``model.loss_and_grad`` does: call it, unless the model is one that this file knows.

    That is a VAE with stacks of Linear layers and activations, the Bernoulli likelihood and the
    prior N(0, I), whose formulas are those of the library.
    """
    if not is_usual(model):
        part = {} if batch_size is None else {"batch_size": batch_size}
        terms: Terms = model.loss_and_grad(x, eps, **part)  # which one's own may not take
        return terms
    model.check_parts()
    x = model.as_rows(x)  # (B, D)
    eps, n = model.noise(eps, len(x)), batch_size or len(x)
    encoder, decoder = model.encoder.layers, model.decoder.layers
    product, encoder_caches = _forward(encoder, x)  # (B, 2Z)
    code, z, sigma, kl = code_and_kl(product, encoder[-1].b.value, eps)
    product, decoder_caches = _forward(decoder, z)  # (B, D)
    nll, dlogits = bernoulli_nll_and_gradient(x, product, decoder[-1].b.value, 1 / n)
    model.params.forget_gradient()
    dz = _backward(decoder, dlogits, decoder_caches) @ decoder[0].W.value.T  # (B, Z)
    dcode = code_gradient(dz, eps, code, sigma, model.beta / n)  # (B, 2Z)
    _backward(encoder, dcode, encoder_caches)
    model.params.complete_gradient()
    return Terms(*batch_means(nll, kl, model.beta, n))


def is_usual(model: Any) -> bool:
    """Tell whether all of a model's formulas and layers are those that this file knows."""
    return (
        _has(model, VAES)
        and _has(model.likelihood, BERNOULLIS)
        and model.prior.standard
        and not model.free_bits
        and _is_dense(model.encoder)
        and _is_dense(model.decoder)
    )


def _is_dense(stack: Any) -> bool:
    """Tell whether a part is Linear layers with an activation between them, but none at the end."""
    return (
        _has(stack, SEQUENTIALS)
        and len(stack.layers) % 2 == 1
        and all(_has(layer, LINEARS) for layer in stack.layers[::2])
        and all((f.forward, f.backward) in ACTIVATIONS.values() for f in stack.layers[1::2])
    )


def _has(thing: Any, functions: Mapping[str, Any]) -> bool:
    for name, function in functions.items():  # plain, since it is asked in every step
        method = getattr(thing, name, None)
        if getattr(method, "__func__", method) is not function:
            return False
    return True


def _forward(layers: list[Any], x: Array) -> tuple[Array, list[Any]]:
    """Return the last layer's output, without its bias, and every layer's cache."""
    caches = []
    for linear, activation in zip(layers[:-1:2], layers[1::2], strict=True):
        y = x @ linear.W.value  # (B, n_out)
        caches.append(x)
        if activation.forward is relu:
            x = cache = bias_and_relu(y, linear.b.value)  # (B, n_out)
        else:
            y += linear.b.value
            x, cache = activation.forward(y)  # (B, n_out)
        caches.append(cache)
    return x @ layers[-1].W.value, [*caches, x]


def _backward(layers: list[Any], dy: Array, caches: list[Any]) -> Array:
    """Add to the gradients of all layers; return the gradient for the first one's output."""
    for i in reversed(range(0, len(layers), 2)):
        linear, x = layers[i], caches[i]
        linear.W.add_product(x.T, dy)  # (n_in, n_out)
        # The sum over the batch is a product as well, which goes where it belongs in one launch.
        linear.b.add_product(_ones(namespace(dy), len(dy), dy.dtype), dy)  # (n_out,)
        if i > 0:
            dy = layers[i - 1].backward(dy @ linear.W.value.T, caches[i - 1])  # (B, n_in)
    return dy


@functools.lru_cache(maxsize=8)  # a batch, and the shorter one at the end of an epoch
def _ones(xp: Any, n: int, dtype: Any) -> Array:
    return xp.ones(n, dtype=dtype)


@compiled
def bias_and_relu(y: Array, b: Array) -> Array:
    """Return relu(y + b), (B, n_out), for y = x W without its bias."""
    return relu(y + b)[0]


@compiled
def code_and_kl(product: Array, b: Array, eps: Array) -> tuple[Array, ...]:
    """Return the code [mu | logvar] = product + b (B, 2Z), a draw z, sigma (B, Z) and KL (B,)."""
    code = product + b  # (B, 2Z)
    mu, logvar = _halves(code)  # (B, Z) each
    z, (sigma, _) = gaussian.reparameterize(mu, logvar, eps)  # (B, Z)
    return code, z, sigma, gaussian.kl_standard_normal(mu, logvar)[0]


@compiled
def code_gradient(dz: Array, eps: Array, code: Array, sigma: Array, dkl: float) -> Array:
    """Return dcode = [dmu | dlogvar], (B, 2Z); `dkl` is the weight of each example's KL."""
    xp, (mu, logvar) = namespace(dz), _halves(code)  # (B, Z) each
    through_z = gaussian.reparameterize_backward(dz, (sigma, eps))
    weights = xp.full(len(dz), dkl, dtype=dz.dtype)  # (B,)
    through_kl = gaussian.kl_standard_normal_backward(weights, (mu, logvar))
    return xp.concatenate(through_z, axis=1) + xp.concatenate(through_kl, axis=1)  # (B, 2Z)


@compiled
def bernoulli_nll_and_gradient(
    x: Array, product: Array, b: Array, dnll: float
) -> tuple[Array, Array]:
    """Return -log p(x) (B,) and dlogits (B, D), for logits = product + b, (B, D).

    The weight `dnll` of each example is known before the loss is, so both come from one pass.
    """
    nll, cache = likelihoods.bernoulli_nll(x, product + b)  # (B,)
    weights = namespace(nll).full(len(nll), dnll, dtype=nll.dtype)  # (B,)
    return nll, likelihoods.bernoulli_nll_backward(weights, cache)


@compiled
def batch_means(nll: Array, kl: Array, beta: float, n: int) -> Array:
    """Return loss, reconstruction and KL of n examples, (3,) in float64, from those of each, (B,).

    They are sums divided by n, where B is n or, of a part of a batch, less.
    """
    xp = namespace(nll)
    terms = nll + beta * kl, nll, kl  # (B,) each
    return xp.stack([term.sum(dtype=xp.float64) / n for term in terms])  # (3,)


def _halves(code: Array) -> tuple[Array, Array]:
    z = code.shape[1] // 2
    return code[:, :z], code[:, z:]
