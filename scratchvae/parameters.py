"""Every parameter of a model in one flat vector, every gradient in another, and named views.

Because the views and the vectors share memory, zeroing the gradient, an optimizer's step, saving
and comparing are each one operation on one array, and a gradient check is ``value + h * v``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from .backend import Array, namespace
from .errors import InputError


class _ValueAndGradient:
    """A pair of arrays, `value` and `grad`, that may be written into but not exchanged.

    An assignment such as ``p.grad = x.T @ dy`` would quietly cut the view off the flat vector that
    the optimizer reads. It raises instead; ``p.grad += ...`` and ``p.grad[...] = ...`` write in
    place and are fine.
    """

    def __init__(self, value: Array, grad: Array) -> None:
        self._value, self._grad, self._here = value, grad, threading.local()

    @property
    def value(self) -> Array:
        return self._value

    @value.setter
    def value(self, new: Array) -> None:
        self._refuse_exchange("value", self._value, new)

    @property
    def grad(self) -> Array:
        return getattr(self._here, "grad", self._grad)

    @grad.setter
    def grad(self, new: Array) -> None:
        self._refuse_exchange("grad", self.grad, new)

    @staticmethod
    def _refuse_exchange(what: str, old: Array, new: Array) -> None:
        if new is not old:  # `p.grad += g` comes here too, with the very same array
            raise AttributeError(
                f"`.{what}` is a view of the model's flat vector and cannot be exchanged: "
                f"write into it with `.{what}[...] = ` or add to it with `.{what} += `"
            )


class Parameter(_ValueAndGradient):
    """One named array of a layer, such as a weight matrix, and the gradient of the loss in it.

    It starts with memory of its own, so that a layer works alone; :class:`Parameters` moves it
    into the model's flat vectors.
    """

    def __init__(self, value: Array) -> None:
        super().__init__(value, namespace(value).zeros_like(value))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both arrays."""
        return tuple(self.value.shape)


class Parameters(_ValueAndGradient):
    """All parameters of a model: flat `value` and `grad` of shape (P,), and each one by its name.

    Parameters
    ----------
    named : iterable of (str, Parameter)
        In the order in which they will lie in the vectors. At least one; all of one dtype.
    """

    def __init__(self, named: Iterable[tuple[str, Parameter]]) -> None:
        pairs = list(named)
        self._parameters = dict(pairs)
        if len(self._parameters) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two parameters are named {twice!r}: expected a name for each")
        xp = namespace(next(iter(self._parameters.values())).value)
        parts = [p.value.ravel() for p in self._parameters.values()]
        value = xp.concatenate(parts)  # (P,)
        super().__init__(value, xp.zeros_like(value))
        self._slices: dict[str, slice] = {}
        start = 0
        for name, p in self._parameters.items():
            self._slices[name] = slice(start, start + p.value.size)
            start += p.value.size
            p._value, p._grad = self.view(value, name), self.view(self.grad, name)

    @property
    def names(self) -> list[str]:
        """The parameters' names, in the order of the flat vectors."""
        return list(self._parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def view(self, vector: Array, name: str) -> Array:
        """Return the part of a flat (P,) vector that belongs to `name`, in its shape."""
        return vector[self._slices[name]].reshape(self._parameters[name].shape)

    @contextmanager
    def gradient_in(self, vector: Array) -> Iterator[None]:
        """Give this thread `vector` (P,) for the gradient while the context lasts.

        Other threads keep theirs, so each can take a part of a batch through the same model.
        """
        self._here.grad = vector
        for name, p in self._parameters.items():
            p._here.grad = self.view(vector, name)
        try:
            yield
        finally:
            del self._here.grad
            for p in self._parameters.values():
                del p._here.grad

    def check_views(self) -> None:
        """Raise RuntimeError naming the first parameter that is no longer part of the vectors.

        The setters above stop the usual mistake; this finds what went round them, such as a
        parameter that was gathered into a second model.
        """
        for name, p in self._parameters.items():
            for what, view, vector in (
                ("value", p.value, self.value),
                ("grad", p.grad, self.grad),
            ):
                home = self.view(vector, name)
                if _address(view) != _address(home) or view.shape != home.shape:
                    raise RuntimeError(
                        f"{name}.{what} is not a view of the model's flat vector any more, "
                        "so the optimizer would not reach it"
                    )


def _address(x: Array) -> int:
    return int(x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr)
