"""Layers: what owns parameters, and what chains them.

A layer keeps nothing between its forward and its backward but in the cache, and gives a new array
at each call, so it may be called twice before its backward. A parameter's gradient is added to, an
input's is returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

from .activations import ACTIVATIONS
from .backend import Array, Backend, RandomSource, get_backend, get_dtype, get_rng
from .errors import InputError, check_size, short
from .parameters import Parameter


class Layer(Protocol):
    """What an encoder, a decoder and every layer of them must have: these two methods.

    A layer with parameters also has ``named_parameters()``, which yields pairs of a name and a
    :class:`~scratchvae.Parameter`. It may have ``backward_parameters(dy, cache)`` as well: the
    backward where nobody needs dx, as in the first layer.
    """

    def forward(self, x: Array, /) -> tuple[Array, Any]:
        """Return y (B, n_out) for x (B, n_in), and the cache: all that backward may read."""

    def backward(self, dy: Array, cache: Any, /) -> Array:
        """Add to the parameters' gradients; return dx (B, n_in) for dy (B, n_out)."""


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
        backend, dtype, rng = get_backend(backend), get_dtype(dtype), get_rng(rng)
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

    def backward(self, dy: Array, cache: Array) -> Array:
        """Add to the gradients of W and b; return dx (B, n_in)."""
        self.backward_parameters(dy, cache)
        # [linear-grad-x]
        return dy @ self.W.value.T  # (B, n_in)

    def backward_parameters(self, dy: Array, cache: Array) -> None:
        """Add to the gradients of W and b alone."""
        x = cache
        # [linear-grad-W]
        self.W.add_product(x.T, dy)  # W.grad += x.T dy, (n_in, n_out)
        # [linear-grad-b]
        self.b.add(dy.sum(axis=0))  # (n_out,)

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
        pair: Any = ACTIVATIONS[name]  # of one's own, perhaps
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(f"ACTIVATIONS[{name!r}] is no pair: expected (forward, backward)")
        self.name, self._pair = name, pair
        self.forward, self.backward = self._pair

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield nothing: there is nothing to learn."""
        yield from ()

    def __repr__(self) -> str:
        changed = "" if (self.forward, self.backward) == self._pair else ", changed"
        return f"Activation({self.name!r}{changed})"


class Sequential:
    """Layers one after the other: the chain rule as a loop."""

    def __init__(self, layers: Sequence[Layer], *others: Layer) -> None:
        if others or not isinstance(layers, Iterable):
            found = f"{1 + len(others)} arguments" if others else short(layers)
            raise InputError(f"layers is {found}: expected a sequence of layers, such as a list")
        self.layers = list(layers)
        for i, layer in enumerate(self.layers):
            require_layer(f"layer {i} of the Sequential", layer)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the last layer's output, and of every layer the cache and its input's shape."""
        caches, shapes = [], []
        for layer in self.layers:
            shapes.append(x.shape)
            x, cache = layer.forward(x)
            caches.append(cache)
        return x, (caches, shapes)

    def backward(self, dy: Array, cache: Any) -> Array:
        """Walk back through the layers; return the gradient for the first one's input."""
        return self._back_to(0, dy, cache)

    def backward_parameters(self, dy: Array, cache: Any) -> None:
        """Walk back in the same way, but without dx: a sixth fewer products in a training step."""
        if self.layers:
            backward_parameters(self.layers[0], self._back_to(1, dy, cache), cache[0][0])

    def _back_to(self, first: int, dy: Array, cache: Any) -> Array:
        caches, shapes = cache
        # [chain-rule]
        for i in reversed(range(first, len(self.layers))):
            dy = self.layers[i].backward(dy, caches[i])
            if getattr(dy, "shape", None) != shapes[i]:  # one that broadcasts would go unnoticed
                raise wrong_dx(f"layer {i}, {in_words(self.layers[i])},", dy, shapes[i])
        return dy

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """Yield the layers in their order, named by their position."""
        for i, layer in enumerate(self.layers):
            yield str(i), layer

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield each layer's parameters, named ``{position}.{name}``."""
        for i, layer in enumerate(self.layers):
            for name, p in named(layer):
                yield f"{i}.{name}", p

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(map(in_words, self.layers))}])"


def dense(
    sizes: Sequence[int],
    activation: str = "relu",
    *,
    rng: RandomSource = None,
    backend: str | Backend = "numpy",
    dtype: Any = "float32",
) -> Sequential:
    """Return Linear layers of these sizes with an activation between them, but none at the end.

    Parameters
    ----------
    sizes : sequence of int
        n_in of the first layer, then n_out of each.
    activation : str
        As for :class:`~scratchvae.Activation`.
    rng, backend, dtype
        As for :class:`~scratchvae.Linear`.
    """
    rng = get_rng(rng)
    layers: list[Layer] = []
    for n_in, n_out in pairwise(sizes):
        layers.append(Linear(n_in, n_out, rng=rng, backend=backend, dtype=dtype))
        layers.append(Activation(activation))
    return Sequential(layers[:-1])


def named(layer: Any) -> Iterator[tuple[str, Parameter]]:
    """Return an iterator over the named parameters of a layer, which may have none."""
    if isinstance(layer, type):
        raise InputError(f"a part is the class {layer.__name__}: expected an object of it")
    return iter(layer.named_parameters() if hasattr(layer, "named_parameters") else ())


def backward_parameters(layer: Any, dy: Array, cache: Any) -> None:
    """Do a layer's backward where nobody needs dx, in the way that is the cheapest for it."""
    if belongs_to(layer, "backward_parameters", "backward"):
        layer.backward_parameters(dy, cache)
    else:
        layer.backward(dy, cache)


def belongs_to(layer: Any, method: str, other: str) -> bool:
    """Return whether a layer has `method`, and it was written for the layer's `other` method.

    A subclass that overrides `other` inherits `method` from a class that knows nothing of it.
    """
    for names in (
        vars(layer) if hasattr(layer, "__dict__") else {},
        *map(vars, type(layer).__mro__),
    ):
        if method in names:
            return True
        if other in names:
            return False
    return False


def in_words(layer: Any) -> str:
    """Return a layer's repr or, if its class has none of its own, the name of the class.

    The addresses of functions and other objects in it are left out: they differ between processes.
    """
    text = repr(layer) if "__repr__" in vars(type(layer)) else f"{type(layer).__name__}()"
    return re.sub(" at 0x[0-9a-fA-F]+", "", text)


def wrong_dx(what: str, dx: Any, shape: tuple[int, ...]) -> InputError:
    """Return the error that a backward gives `dx`, where an array of another shape was expected."""
    found = "an array of shape" if hasattr(dx, "shape") else "a"
    kind = getattr(dx, "shape", type(dx).__name__)
    return InputError(
        f"{what} has a backward that returns {found} {kind}: expected dx, an array of shape {shape}"
    )


def require_layer(what: str, layer: Any) -> None:
    """Raise InputError unless `layer` has forward and backward; `what` says where it stands."""
    contract = "a layer has forward(x) -> (y, cache) and backward(dy, cache) -> dx"
    if isinstance(layer, type):
        raise InputError(f"{what} is the class {layer.__name__}: expected an object of it")
    for method in ("forward", "backward"):
        if not callable(getattr(layer, method, None)):
            found = short(layer) if hasattr(layer, "shape") else in_words(layer)
            raise InputError(f"{what} is {found}, which has no {method}: {contract}")
