"""The package's two exceptions, and the checks of arguments that raise the first."""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np


class InputError(ValueError):
    """An argument, a file or an option cannot be used; the message is one sentence that says why.

    The command line prints the message on standard error and exits with code 2.
    """


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not finite any more; the message names the step and the layer."""


def check_size(name: str, n: object) -> int:
    """Return `n`; raise InputError unless it is a positive integer."""
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise InputError(f"{name} is {n!r}: expected a positive integer")
    return int(n)


def check_seed(name: str, n: object) -> int:
    """Return `n`; raise InputError unless it is an integer that is not negative."""
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 0:
        raise InputError(f"{name} is {n!r}: expected 0 or a larger integer")
    return int(n)


def check_number(name: str, x: object, *, below: float = math.inf, positive: bool = False) -> float:
    """Return `x`; raise InputError unless it is a number in [0, below), or in (0, below)."""
    if not isinstance(x, Real) or not 0 <= float(x) < below or (positive and float(x) == 0):
        wanted = f"a number in {'(' if positive else '['}0, {below})"
        if below == math.inf:
            wanted = "a finite number larger than 0" if positive else "a finite number, 0 or larger"
        raise InputError(f"{name} is {x!r}: expected {wanted}")
    return float(x)


def check_each(
    name: str, values: Any, check: Callable[..., Any], length: int | None = None, **limits: Any
) -> tuple[Any, ...]:
    """Check every element of a sequence; return the results as a tuple.

    Raises
    ------
    InputError
        If `values` is not a sequence, or not one of `length` elements; and what `check` raises.
    """
    each = tuple(values) if isinstance(values, Iterable) else None
    if each is None or len(each) != (length or len(each)):
        wanted = f" of {length}" if length else f", such as ({values!r},)"
        raise InputError(f"{name} is {values!r}: expected a sequence{wanted}")
    return tuple(check(name, value, **limits) for value in each)


def check_labels(name: str, labels: Any, n: int, classes: int) -> Any:
    """Return labels as a NumPy array (n,), or () for one label of all n examples.

    Raises
    ------
    InputError
        If there are none, or they are not integers from 0 to `classes` - 1.
    """
    one = f"an integer from 0 to {classes - 1}"
    if labels is None:
        raise InputError(f"{name} are missing: expected {one} for each of {n} examples")
    found = np.asarray(labels)
    integers = found.dtype.kind in ("i", "u") and found.shape in ((), (n,))
    if found.ndim == 0 and not (integers and 0 <= found < classes):
        raise InputError(f"{name} is {found.item()!r}: expected {one}")
    if not integers:
        raise InputError(
            f"{name} has shape {found.shape} and type {found.dtype}: expected {one} for each of "
            f"{n} examples"
        )
    outside = found[(found < 0) | (found >= classes)]
    if outside.size:
        raise InputError(f"found {outside.flat[0]} in {name}: expected {one}")
    return found
