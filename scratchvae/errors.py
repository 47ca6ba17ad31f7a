"""The package's exceptions and its warning, and the checks of arguments that raise the first."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from inspect import isroutine
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

Count = Annotated[int, range(2**63)]  # what a file may hold where it counts something


class InputError(ValueError):
    """An argument, a file or an option cannot be used; the message is one sentence that says why.

    The command line prints the message on standard error and exits with code 2.
    """

    def __str__(self) -> str:
        return on_one_line(super().__str__())  # whatever a file in it is called


class InputWarning(UserWarning):
    """An argument or a file can be used, but is perhaps not what was meant; one sentence."""


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not finite any more; the message names the step and the layer."""


class RanksDifferError(ArithmeticError):
    """The processes of a distributed run no longer hold the same parameters, state or options."""


def on_one_line(names: Iterable[str]) -> str:
    """Return names with commas between; what would break the line is written as an escape."""
    text = names if isinstance(names, str) else ", ".join(names)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def counted(n: int, thing: str) -> str:
    """Return the number of things in words, such as "1 epoch" and "2 epochs"."""
    return f"{n:,} {thing}{'s' * (n != 1)}"


def check_size(name: str, n: object) -> int:
    """Return `n`; raise InputError unless it is a positive integer, and one that an array knows."""
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise InputError(f"{name} is {short(n)}: expected a positive integer")
    if int(n) >= 2**63:
        raise InputError(f"{name} is {short(n)}: expected a positive integer below 2^63")
    return int(n)


def check_count(name: str, n: object) -> int:
    """Return `n`; raise InputError unless it is a positive integer or 0."""
    return 0 if n == 0 and not isinstance(n, bool) else check_size(name, n)


def check_seed(name: str, n: object) -> int:
    """Return `n`; raise InputError unless it is an integer that is not negative."""
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 0:
        raise InputError(f"{name} is {short(n)}: expected 0 or a larger integer")
    if int(n) >= 2**128:
        raise InputError(f"{name} is {short(n)}: expected an integer below 2^128")
    return int(n)


def check_number(name: str, x: object, *, below: float = math.inf, positive: bool = False) -> float:
    """Return `x`; raise InputError unless it is a number in [0, below), or in (0, below)."""
    try:
        number = float(x) if isinstance(x, Real) and not isinstance(x, bool) else math.nan
    except OverflowError:  # an integer above 10^308
        number = math.inf
    if not 0 <= number < below or (positive and number == 0):
        wanted = f"a number in {'(' if positive else '['}0, {below})"
        if below == math.inf:
            wanted = "a finite number larger than 0" if positive else "a finite number, 0 or larger"
        raise InputError(f"{name} is {short(x)}: expected {wanted}")
    return number


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


def require_methods(what: str, owner: object) -> None:
    """Raise InputError if a number, or the like, has the name of a method, which it hides."""
    for name, value in vars(owner).items():
        if isroutine(getattr(type(owner), name, None)) and not callable(value):
            raise InputError(
                f"{what} has set its {name} to {short(value)}, and that is a method of "
                f"{type(owner).__name__}: expected another name"
            )


def check_type(name: str, value: Any, kind: Any) -> None:
    """Raise InputError unless what a file holds is of the type that an annotation says.

    A float is finite and may be written as an integer, a tuple may be a list, as JSON has it, and a
    TypedDict has its required keys and may have others.
    """
    origin, args = get_origin(kind), get_args(kind)
    wanted: str | None = None
    if is_typeddict(kind):
        check_type(name, value, dict[str, Any])
        if missing := sorted(kind.__required_keys__ - value.keys()):
            raise InputError(f"{name} lacks {missing[0]}")
        for key, of in get_type_hints(kind, include_extras=True).items():
            if key in value:
                check_type(key, value[key], of)
    elif origin in (list, tuple, dict, Sequence):
        if isinstance(value, dict if origin is dict else list | tuple):
            for element in value.values() if isinstance(value, dict) else value:
                check_type(name, element, args[origin is dict])
        else:
            wanted = "names with values" if origin is dict else "a list"
    elif origin in (Union, UnionType):
        for one in args:
            with suppress(InputError):
                return check_type(name, value, one)
        wanted = " or ".join(getattr(one, "__name__", str(one)) for one in args)
    elif not _is_of(value, kind):
        wanted = str(getattr(kind, "__name__", kind))
        wanted = {Count: "0 or a larger integer", float: "a finite number"}.get(kind, wanted)
    if wanted is not None:
        raise InputError(f"{name} is {short(value)}: expected {wanted}")


def short(value: Any) -> str:
    """Return a value as a sentence may show it."""
    if isinstance(value, int) and abs(value) >= 2**63:  # Python refuses to write very long ones
        return "an integer of more than 63 bits"
    text = ascii(value)
    return text if len(text) < 40 else f"{text[:30]}..."


def _is_of(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is Count:
        return type(value) is int and value in get_args(Count)[1]
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e308
    return type(value) is kind  # so that True is no integer


def require_unmasked(head: str, a: Any) -> None:
    """Raise InputError if `a` is a masked array; `head` begins the sentence, such as "x is"."""
    if np.ma.isMaskedArray(a):
        raise InputError(
            f"{head} a masked array: expected one without a mask, so fill in what is masked or "
            "leave its rows out"
        )


def check_labels(name: str, labels: Any, n: int, classes: int) -> Any:
    """Return labels as a NumPy array (n,), or () for one label of all n examples.

    Raises
    ------
    InputError
        If there are none, or they are masked or not integers from 0 to `classes` - 1.
    """
    require_unmasked(f"{name} is", labels)
    one = f"an integer from 0 to {classes - 1}"
    if labels is None:
        raise InputError(f"{name} are missing: expected {one} for each of {n} examples")
    try:
        found = np.asarray(labels)
    except ValueError:  # lists of several lengths
        raise InputError(f"{name} are no array: expected {one} for each of {n} examples") from None
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
