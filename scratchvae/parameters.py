"""Every parameter of a model in one flat vector, every gradient in another, and named views.

Because the views and the vectors share memory, zeroing the gradient, an optimizer's step, saving
and comparing are each one operation on one array, and a gradient check is ``value + h * v``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .backend import Array, namespace
from .errors import InputError


class _ValueAndGradient:
    """A pair of arrays, `value` and `grad`, that may be written into but not replaced.

    An assignment such as ``p.grad = x.T @ dy`` would quietly cut the view off the flat vector that
    the optimizer reads. It raises instead; ``p.grad += ...`` and ``p.value[...] = ...`` write in
    place and are fine.
    """

    def __init__(self, value: Array, grad: Array) -> None:
        self._value, self._grad = value, grad

    @property
    def value(self) -> Array:
        return self._value

    @value.setter
    def value(self, new: Array) -> None:
        self._refuse_replacement("value", self._value, new)

    @property
    def grad(self) -> Array:
        """The gradient, in the shape of `value`."""
        self._require_complete()
        return self._grad

    @grad.setter
    def grad(self, new: Array) -> None:
        self._refuse_replacement("grad", self._grad, new)

    def _require_complete(self) -> None:
        """Raise InputError if the gradient is still the one of an earlier batch."""
        raise NotImplementedError

    @staticmethod
    def _refuse_replacement(what: str, old: Array, new: Array) -> None:
        if new is not old:  # `p.grad += g` comes here too, with the very same array
            how = "add to it with `.grad += `"  # to write over it would lose what others added
            how = how if what == "grad" else "write into it with `.value[...] = `"
            raise AttributeError(
                f"`.{what}` is a view of the model's flat vector and cannot be replaced: {how}"
            )


class Parameter(_ValueAndGradient):
    """One array of a layer, such as a weight matrix, and the loss's gradient with respect to it.

    It starts with a copy of `value`, so that a layer works alone; :class:`Parameters` moves it
    into the model's flat vectors. So always read ``p.value`` and ``p.grad``: an array that you
    keep beside them does not move along.

    A layer's backward adds to the gradient, with `add`, `add_product` or ``p.grad += ...``. The
    first two know when the gradient is still the one of the last batch, and write over it then: a
    pass over the memory less than zeroing it and adding.

    Attributes
    ----------
    constant : bool
        Set it to True, and the layer need not name the parameter: nothing trains it.
    """

    constant = False

    def __init__(self, value: Array) -> None:
        if isinstance(value, np.generic):
            value = np.asarray(value)
        if getattr(getattr(value, "dtype", None), "kind", None) != "f":
            kind = getattr(value, "dtype", type(value).__name__)
            raise InputError(f"a Parameter's value is {kind}: expected an array of floats")
        super().__init__(value.copy(), namespace(value).zeros_like(value))
        self._vector: Array = None  # the flat vector that `value` is a part of, if any
        self._is_left = False  # the gradient is left from the last batch, to be written over
        self._was_added = False  # `add` or `add_product` have written this gradient

    def _require_complete(self) -> None:
        if self._is_left:
            raise InputError(
                "this gradient is left from an earlier batch: either a backward pass broke off "
                "before it came here, or it is read before `.add(d)` has written over it, or a "
                "layer adds to one parameter with both `.add(d)` and `.grad += d`, where it should "
                "use `.add(d)` only"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both arrays."""
        return tuple(self._value.shape)

    def add(self, d: Array) -> None:
        """Add `d` to the gradient."""
        if self._is_left:
            self._grad[...] = d
        else:
            self._grad += d
        self._is_left, self._was_added = False, True

    def add_product(self, a: Array, b: Array) -> None:
        """Add ``a @ b`` to the gradient."""
        if self._is_left:
            namespace(a).matmul(a, b, out=self._grad)
        else:
            self._grad += a @ b
        self._is_left, self._was_added = False, True

    def forget_gradient(self) -> None:
        """Make the gradient zero for what adds to it next."""
        # Whoever writes `.grad += d` reads what is there, so that has to be zero. A parameter that
        # only `add` wrote last time can do without.
        self._is_left, self._was_added = self._was_added, False
        if not self._is_left:
            self._grad[...] = 0

    def complete_gradient(self) -> None:
        """Zero the gradient if nothing was added to it since it was forgotten."""
        if self._is_left:
            self._is_left = False
            self._grad[...] = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_vector": None}  # a copy of one layer does not take all others along

    def __repr__(self) -> str:
        return f"Parameter({self.shape}, {self._value.dtype})"


class Parameters(_ValueAndGradient):
    """All parameters of a model: flat `value` and `grad` of shape (P,), and each one by its name.

    Parameters
    ----------
    named : iterable of (str, Parameter)
        In the order in which they will lie in the vectors. At least one; all of one dtype.

    Raises
    ------
    InputError
        If there is none, if two have one name, if one parameter has two names, or is a constant.
    """

    def __init__(self, named: Iterable[tuple[str, Parameter]]) -> None:
        self._pairs = list(named)
        for name, p in self._pairs:
            if not isinstance(p, Parameter):
                raise InputError(f"{name} is a {type(p).__name__}: expected a Parameter")
        self._parameters = dict(self._pairs)
        if not self._pairs:
            raise InputError("there are no parameters to gather: expected one at least")
        _refuse_constants(self._pairs)
        names = [name for name, _ in self._pairs]
        if len(self._parameters) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two parameters are named {twice!r}: expected a name for each")
        first: dict[int, str] = {}
        for name, p in self._pairs:
            if id(p) in first:
                raise InputError(
                    f"{first[id(p)]} and {name} are one and the same parameter, as where a layer "
                    "stands at two places: expected a layer of its own for each, or, where one "
                    "shares the parameter of another, its name from one of them only"
                )
            first[id(p)] = name
        xp = namespace(self._pairs[0][1].value)
        value = xp.concatenate([p.value.ravel() for _, p in self._pairs])  # (P,)
        super().__init__(value, xp.zeros_like(value))
        self._make_views()

    def _make_views(self) -> None:
        """Let every parameter's arrays be parts of the flat vectors."""
        self._slices: dict[str, slice] = {}
        start = 0
        for name, p in self._pairs:
            self._slices[name] = slice(start, start + p._value.size)
            start += p._value.size
            p._value, p._grad = self.view(self._value, name), self.view(self._grad, name)
            p._vector = self._value

    def __getstate__(self) -> Any:
        self.require_current()
        return self._pairs, self._value, self._grad

    def __setstate__(self, state: Any) -> None:
        # A copy, or what comes out of a pickle, has parameters and vectors, but no views yet.
        self._pairs, self._value, self._grad = state
        self._parameters = dict(self._pairs)
        self._make_views()

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

    def _require_complete(self) -> None:
        if any(p._is_left for p in self._parameters.values()):
            raise InputError(
                "the gradient is left from an earlier batch, and layers will write over it: add to "
                "params.grad after super().backward(...), not before; if a backward pass broke "
                "off, compute the gradient anew"
            )

    def __repr__(self) -> str:
        n = len(self)
        return f"Parameters({self.value.size:,} numbers of {self.value.dtype}, in {n} arrays)"

    def view(self, vector: Array, name: str) -> Array:
        """Return the part of a flat (P,) vector that belongs to `name`, in its shape."""
        return vector[self._slices[name]].reshape(self._parameters[name].shape)

    def forget_gradient(self) -> None:
        """Make the gradient zero for what adds to it next, see `Parameter`."""
        for p in self._parameters.values():
            p.forget_gradient()

    def complete_gradient(self) -> None:
        """Zero the gradient of each parameter that nothing was added to since."""
        for p in self._parameters.values():
            p.complete_gradient()

    def require_current(self) -> None:
        """Raise InputError if a parameter has since been gathered into other vectors."""
        for name, p in self._pairs:
            if p._vector is not self._value:
                raise InputError(
                    f"{name} now belongs to other vectors than these, since it was gathered again "
                    "or handed to another model: make a new optimizer of the present model.params, "
                    "and give each model parts of its own"
                )

    def require(self, named: Iterable[tuple[str, Parameter]]) -> None:
        """Raise InputError unless `named` are the parameters that these vectors hold."""
        pairs = list(named)
        _refuse_constants(pairs)
        both = zip(pairs, self._pairs, strict=False)
        as_before = all(n == m and p is q for (n, p), (m, q) in both)
        if len(pairs) != len(self._pairs) or not as_before:
            now, before = ([(n, id(p)) for n, p in some] for some in (pairs, self._pairs))
            same = {*now} & {*before}
            changed = [pair[0] for pair in (*now, *before) if pair not in same]
            raise InputError(
                "a part of the model was changed after its parameters had been gathered "
                f"({changed[0] if changed else 'their order'} is not what it was): call "
                "model.gather() and make a new optimizer, or hand the part in when the model is "
                "built, as encoder= or decoder="
            )
        self.require_current()

    def check_views(self) -> None:
        """Raise RuntimeError naming the first parameter that is no longer part of the vectors.

        The setters above stop the usual mistake; this finds what went round them, such as a
        parameter that was gathered into a second model.
        """
        for name, p in self._pairs:
            for what, view, vector in (
                ("value", p._value, self._value),
                ("grad", p._grad, self._grad),
            ):
                home = self.view(vector, name)
                if _address(view) != _address(home) or view.shape != home.shape:
                    raise RuntimeError(
                        f"{name}.{what} is not a view of the model's flat vector any more, "
                        "so the optimizer would not reach it"
                    )


def _refuse_constants(pairs: list[tuple[str, Parameter]]) -> None:
    for name, p in pairs:
        if getattr(p, "constant", False):
            raise InputError(
                f"{name} is a constant, and named_parameters names it, so it would be trained: "
                "leave it out there, or set its `constant` to False"
            )


def _address(x: Array) -> int:
    return int(x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr)
