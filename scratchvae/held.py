"""What an object holds: in its attributes, and in lists, functions and other objects there."""

from __future__ import annotations

import functools
import inspect
import sys
from collections import UserList, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np

FOREIGN = {*sys.stdlib_module_names, "numpy", "cupy"}  # nobody's layers: not looked into

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, not in C


def held(x: Any, wanted: Callable[[Any], bool | None]) -> Iterator[tuple[str, Any]]:
    """Yield what is wanted in x, each once, after its name, such as ``layers[0].W``.

    Parameters
    ----------
    x : object
    wanted : function
        Returns True for what is to be yielded, False for what is to be passed over with all that
        it holds, and None for what is to be looked into.
    """
    yield from _held(x, "", wanted, set())


def _held(
    x: Any, name: str, wanted: Callable[[Any], bool | None], seen: set[int]
) -> Iterator[tuple[str, Any]]:
    if id(x) in seen:
        return
    seen.add(id(x))
    verdict = wanted(x)
    if verdict is not None:
        if verdict:
            yield name, x
    elif isinstance(x, Mapping):
        for key, value in list(x.items()):
            yield from _held(value, f"{name}[{key!r}]", wanted, seen)
    elif isinstance(x, list | tuple | set | frozenset | deque | UserList):
        for i, value in enumerate(x):
            yield from _held(value, f"{name}[{i}]", wanted, seen)
    elif isinstance(x, np.ndarray):
        # One by one: a list of them would not last, and another object may then have its id.
        for i, value in enumerate(x.ravel().tolist() if x.dtype == object else ()):
            yield from _held(value, f"{name}[{i}]", wanted, seen)
    elif isinstance(x, MethodType):
        yield from _held(x.__self__, f"{name}.__self__", wanted, seen)
    elif isinstance(x, functools.partial):
        for part in ("func", "args", "keywords"):
            yield from _held(getattr(x, part), f"{name}.{part}", wanted, seen)
    elif isinstance(x, FunctionType):
        for variable, value in _of_function(x):
            yield from _held(value, f"{name}.{variable}", wanted, seen)
    elif isinstance(x, staticmethod | classmethod):
        yield from _held(x.__func__, name, wanted, seen)
    elif not inspect.isclass(x) and (isinstance(x, SimpleNamespace) or not _is_foreign(x)):
        kinds = reversed([k for k in type(x).__mro__ if k.__module__ not in FOREIGN])
        attributes = {n: v for k in kinds for n, v in vars(k).items()} | getattr(x, "__dict__", {})
        for n, value in attributes.items():
            if n[:2] != "__":
                if inspect.ismemberdescriptor(value):  # of __slots__
                    value = getattr(x, n, None)
                yield from _held(value, f"{name}.{n}".strip("."), wanted, seen)


def _of_function(f: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function keeps: the variables around it, and its default arguments."""
    for variable, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            yield variable, cell.cell_contents
    yield "__defaults__", f.__defaults__
    yield from (f.__kwdefaults__ or {}).items()


def _is_foreign(x: Any) -> bool:
    kind = type(x)
    if kind.__module__ == "builtins":  # also of a class that `exec` made without a __name__
        return not kind.__flags__ & HEAP_TYPE
    return kind.__module__.partition(".")[0] in FOREIGN
