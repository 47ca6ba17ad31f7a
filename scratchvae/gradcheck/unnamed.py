"""What a layer's forward reads and no named parameter covers: its gradient is checked by nobody."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from scratchvae.backend import Array, namespace

from .slopes import OutOfTime, sizes_of, time_limit

MOVES = (2.0**-6, -1.0)  # in units of size: far too, for what is small beside the rest
REASON = (
    "forward reads it and named_parameters does not name it: name it, or make it read-only, "
    "a.flags.writeable = False, if it is a constant"
)
FOREIGN = {*sys.stdlib_module_names, "numpy", "cupy"}  # whose objects hold no arrays of a layer


def unnamed(
    owner: Any, known: Sequence[Any], forward: Callable[[], Array], limit: float
) -> dict[str, str]:
    """Return the name of every such array, with the reason why it is not checked.

    `known` are the arguments and parameters. Whether forward reads an array is found by moving it:
    its result moves too. A read-only array is a constant.
    """
    y, found = forward().copy(), {}  # a copy: the owner may hold it
    for name, a in _held(owner, "", set()):
        xp = namespace(a)
        near = [k for k in known if hasattr(k, "dtype") and xp is namespace(k)]
        own = not any(xp.may_share_memory(a, k) for k in near)
        if own and getattr(a.flags, "writeable", True) and _moves(a, y, forward, limit):
            found[re.sub(r"\._?value$", "", name)] = REASON  # of a Parameter
    return found


def _moves(a: Array, y: Array, forward: Callable[[], Array], limit: float) -> bool:
    """Tell whether forward's result moves with the array, which is put back."""
    old, xp = a.copy(), namespace(a)
    rng = np.random.default_rng(0)
    try:
        for step in MOVES:
            a[...] = old + step * xp.asarray(sizes_of(old) * rng.uniform(0.5, 1, old.shape))
            with time_limit(limit), np.errstate(all="ignore"):
                moved = forward()
            if moved.shape != y.shape or bool((moved != y).any()):
                return True
        return False
    except (Exception, OutOfTime):  # it raises there, so it reads it
        return True
    finally:
        a[...] = old


def _held(x: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Array]]:
    """Yield the float arrays that an object holds, in lists, dicts and other objects too."""
    if id(x) in seen:
        return
    seen.add(id(x))
    if hasattr(x, "dtype"):
        if getattr(x.dtype, "kind", "") == "f" and hasattr(x, "flags") and x.size:
            yield name, x
    elif isinstance(x, Mapping):
        for key, value in list(x.items()):
            yield from _held(value, f"{name}[{key!r}]", seen)
    elif isinstance(x, list | tuple):
        for i, value in enumerate(x):
            yield from _held(value, f"{name}[{i}]", seen)
    elif not inspect.isclass(x) and (
        isinstance(x, SimpleNamespace) or type(x).__module__.partition(".")[0] not in FOREIGN
    ):
        kinds = reversed([k for k in type(x).__mro__ if k.__module__ not in FOREIGN])
        attributes = {n: v for k in kinds for n, v in vars(k).items()} | getattr(x, "__dict__", {})
        for n, value in attributes.items():
            if n[:2] != "__":
                if inspect.ismemberdescriptor(value):  # of __slots__
                    value = getattr(x, n, None)
                yield from _held(value, f"{name}.{n}".strip("."), seen)
