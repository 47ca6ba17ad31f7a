r"""Activations as forward/backward pairs, element by element.

Every ``f(x)`` returns ``(y, cache)`` and ``f_backward(dy, cache)`` returns ``dx = f'(x) * dy``, all
of the shape of `x`. The cache holds whatever makes the derivative cheapest: the output where the
derivative is a function of it, else the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .backend import Array, namespace
from .kernels import compiled


def relu(x: Array) -> tuple[Array, Array]:
    """Return ``max(x, 0)`` and the cache."""
    # [relu]
    y = namespace(x).maximum(x, 0)  # (...)
    return y, y


@compiled
def relu_backward(dy: Array, cache: Array) -> Array:
    """Return dx. At 0, where relu has no derivative, it is taken to be 0."""
    y = cache
    # [relu-grad]
    return dy * (y > 0)  # (...)


def tanh(x: Array) -> tuple[Array, Array]:
    """Return ``tanh(x)`` and the cache."""
    # [tanh]
    y = namespace(x).tanh(x)  # (...)
    return y, y


@compiled
def tanh_backward(dy: Array, cache: Array) -> Array:
    """Return dx."""
    y = cache
    # [tanh-grad]
    return dy * (1 - y * y)  # (...)


def sigmoid(x: Array) -> tuple[Array, Array]:
    """Return ``1 / (1 + exp(-x))`` and the cache; exact to rounding in both tails."""
    xp = namespace(x)
    # [sigmoid]  1/(1 + e) where x >= 0 and e/(1 + e) where x < 0, so that exp never overflows:
    # e <= 1, hence the maximum is 1 in the first case and e in the second.
    e = xp.exp(-xp.abs(x))  # (...)
    y = xp.maximum(e, x >= 0) / (1 + e)  # (...)
    return y, y


@compiled
def sigmoid_backward(dy: Array, cache: Array) -> Array:
    """Return dx."""
    y = cache
    # [sigmoid-grad]
    return dy * y * (1 - y)  # (...)


def softplus(x: Array) -> tuple[Array, Array]:
    """Return ``log(1 + exp(x))`` and the cache; finite for every finite x."""
    xp = namespace(x)
    # [softplus]  log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x))), x  # (...)


@compiled
def softplus_backward(dy: Array, cache: Array) -> Array:
    """Return dx."""
    x = cache
    # [softplus-grad]
    return dy * sigmoid(x)[0]  # (...)


def silu(x: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return ``x * sigmoid(x)`` and the cache."""
    s, _ = sigmoid(x)
    # [silu]
    return x * s, (x, s)  # (...)


@compiled
def silu_backward(dy: Array, cache: tuple[Array, Array]) -> Array:
    """Return dx."""
    x, s = cache
    # [silu-grad]
    return dy * (s + x * s * (1 - s))  # (...)


def elu(x: Array) -> tuple[Array, Array]:
    """Return x where it is positive, ``exp(x) - 1`` where it is not, and the cache."""
    xp = namespace(x)
    # [elu]  one of the two terms is 0; expm1 keeps the digits of exp(x) - 1 near 0
    return xp.maximum(x, 0) + xp.expm1(xp.minimum(x, 0)), x  # (...)


@compiled
def elu_backward(dy: Array, cache: Array) -> Array:
    """Return dx."""
    x, xp = cache, namespace(cache)
    # [elu-grad]  exp(0) = 1 where x >= 0
    return dy * xp.exp(xp.minimum(x, 0))  # (...)


Pair = tuple[Callable[[Array], tuple[Array, Any]], Callable[[Array, Any], Array]]

ACTIVATIONS: dict[str, Pair] = {
    "relu": (relu, relu_backward),
    "tanh": (tanh, tanh_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "softplus": (softplus, softplus_backward),
    "silu": (silu, silu_backward),
    "elu": (elu, elu_backward),
}
