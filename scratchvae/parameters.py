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


class _Here(threading.local):
    """What a thread has of its own: where its gradient lies, and whether it is yet to be zeroed."""

    grad: Array = None  # where all threads have it
    to_zero = False


class _ValueAndGradient:
    """A pair of arrays, `value` and `grad`, that may be written into but not exchanged.

    An assignment such as ``p.grad = x.T @ dy`` would quietly cut the view off the flat vector that
    the optimizer reads. It raises instead; ``p.grad += ...`` and ``p.grad[...] = ...`` write in
    place and are fine.
    """

    def __init__(self, value: Array, grad: Array) -> None:
        self._value, self._grad, self._here = value, grad, _Here()

    @property
    def value(self) -> Array:
        return self._value

    @value.setter
    def value(self, new: Array) -> None:
        self._refuse_exchange("value", self._value, new)

    @property
    def grad(self) -> Array:
        here = self._here
        grad = self._grad if here.grad is None else here.grad
        if here.to_zero:
            here.to_zero = False
            self._zero(grad)
        return grad

    @grad.setter
    def grad(self, new: Array) -> None:
        self._refuse_exchange("grad", self.grad, new)

    def _zero(self, grad: Array) -> None:
        grad[...] = 0

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

    def add_product(self, a: Array, b: Array) -> None:
        """Do ``grad += a @ b``, in one pass where the gradient is zero and yet to be written."""
        if self._here.to_zero:
            self._here.to_zero = False
            namespace(a).matmul(a, b, out=self.grad)
        else:
            self.grad += a @ b


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
    def gradient_from_zero(self) -> Iterator[None]:
        """Let the gradient be zero when the context begins, but write no zeros that can be spared.

        Each parameter's is zeroed when it is first read or added to, except by `add_product`, which
        writes over what is there; what was not touched is zeroed at the end.
        """
        for holder in (self, *self._parameters.values()):
            holder._here.to_zero = True
        try:
            yield
        finally:
            self._zero(self.grad)

    def _zero(self, grad: Array) -> None:
        for p in self._parameters.values():
            _ = p.grad  # which zeroes those that nothing has touched

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
            self._here.grad = None
            for p in self._parameters.values():
                p._here.grad = None

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
