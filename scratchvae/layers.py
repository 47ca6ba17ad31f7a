"""Layers: what owns parameters, and what chains them.

A layer is any object with ``forward(x) -> (y, cache)`` and ``backward(dy, cache) -> dx``, where the
cache holds all that backward may read: no hidden state, so one layer may be called twice before its
backward. A parameter's gradient is added to, an input's returned; owners have `named_parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from .activations import ACTIVATIONS
from .backend import Array, Backend, RandomSource, get_backend, get_dtype
from .errors import InputError, check_size
from .parameters import Parameter

Layer: TypeAlias = Any  # forward(x) -> (y, cache) and backward(dy, cache) -> dx


class Linear:
    """``y = x W + b``.

    Parameters
    ----------
    n_in, n_out : int
    rng : None, int, SeedSequence or Generator
        Draws W (n_in, n_out) and b (n_out,) uniformly from ±1/sqrt(n_in): the rule of
        ``torch.nn.Linear``, so that published runs can be repeated.
    backend, dtype
        As for :class:`~scratchvae.VAE`.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        rng: RandomSource = None,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
    ) -> None:
        self.n_in, self.n_out = check_size("n_in", n_in), check_size("n_out", n_out)
        backend, dtype, rng = get_backend(backend), get_dtype(dtype), np.random.default_rng(rng)
        # Drawn on the host in float64, so that one seed means one model on every backend and dtype.
        bound = n_in**-0.5
        self.W = Parameter(backend.asarray(rng.uniform(-bound, bound, (n_in, n_out)), dtype=dtype))
        self.b = Parameter(backend.asarray(rng.uniform(-bound, bound, n_out), dtype=dtype))

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return y (B, n_out) for x (B, n_in), and the cache."""
        # [linear]
        y = x @ self.W.value  # (B, n_out)
        y += self.b.value
        return y, x

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array:
        """Add to the gradients of W and b; return dx (B, n_in), or None if it is not wanted."""
        x = cache
        # [linear-grad-W]
        self.W.add_product(x.T, dy)  # W.grad += x.T dy, (n_in, n_out)
        # [linear-grad-b]
        self.b.grad += dy.sum(axis=0)  # (n_out,)
        # [linear-grad-x]
        return dy @ self.W.value.T if input_gradient else None  # (B, n_in)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield W and b."""
        yield from (("W", self.W), ("b", self.b))

    def __repr__(self) -> str:
        return f"Linear({self.n_in}, {self.n_out})"


class Activation:
    """One of the pairs of `activations`, by its name, as a layer."""

    def __init__(self, name: str) -> None:
        if name not in ACTIVATIONS:
            raise InputError(
                f"unknown activation {name!r}: expected one of {', '.join(ACTIVATIONS)}"
            )
        self.name = name
        self.forward, self.backward = ACTIVATIONS[name]

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"


class Sequential:
    """Layers one after the other: the chain rule as a loop."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def forward(self, x: Array) -> tuple[Array, list[Any]]:
        """Return the last layer's output and every layer's cache."""
        caches = []
        for layer in self.layers:
            x, cache = layer.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, dy: Array, cache: list[Any], *, input_gradient: bool = True) -> Array:
        """Walk back through the layers; return the gradient in the first one's input.

        `input_gradient=False` returns None, and saves a sixth of a training step's products.
        """
        # [chain-rule]
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            if i == 0 and not input_gradient and isinstance(layer, Linear):
                return layer.backward(dy, cache[i], input_gradient=False)
            dy = layer.backward(dy, cache[i])
        return dy

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield each layer's parameters, named ``{position}.{name}``."""
        for i, layer in enumerate(self.layers):
            for name, p in getattr(layer, "named_parameters", tuple)():
                yield f"{i}.{name}", p

    def __repr__(self) -> str:
        return f"Sequential({self.layers!r})"
