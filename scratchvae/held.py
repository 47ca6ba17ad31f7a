"""What an object holds: in its attributes, and in lists, functions and other objects there."""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
from collections import UserList, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np

STANDARD = sysconfig.get_path("stdlib")

CONTAINERS = (Mapping, list, tuple, set, frozenset, deque, UserList, np.ndarray)
FUNCTIONS = (FunctionType, MethodType, functools.partial, staticmethod, classmethod)

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
    # By id, with the object, so that its id stays its own; a stack, since chains may be long.
    seen: dict[int, Any] = {}
    stack = [("", x, False)]
    while stack:
        name, x, by_function = stack.pop()
        if id(x) in seen:
            continue
        verdict = None
        with suppress(Exception):  # what is asked for may be an attribute that raises
            verdict = wanted(x)
        if by_function and verdict is None and not _leads_on(x):
            continue  # and is not seen: it may be held in another way too
        seen[id(x)] = x
        if verdict:
            yield name, x
        elif verdict is None:
            by_function = isinstance(x, FUNCTIONS) or (by_function and isinstance(x, CONTAINERS))
            children: list[tuple[str, Any, bool]] = []
            with suppress(Exception):  # of what is closed, say
                children += ((n, v, by_function) for n, v in _elements(x, name))
            children += ((n, v, by_function) for n, v in _attributes(x, name))
            stack += reversed(children)


def _leads_on(x: Any) -> bool:
    """Return whether to look into what a function keeps, which may be a whole program."""
    with suppress(Exception):
        layer = hasattr(x, "forward") and hasattr(x, "backward")
        return layer or isinstance(x, FUNCTIONS + CONTAINERS)
    return False


def _elements(x: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what is in a container or a function."""
    if isinstance(x, Mapping):
        for key, value in list(x.items()):
            yield f"{name}[{key!r}]", value
    elif isinstance(x, np.ndarray):
        for i, value in enumerate(x.ravel().tolist() if x.dtype == object else ()):
            yield f"{name}[{i}]", value
    elif isinstance(x, CONTAINERS):
        for i, value in enumerate(x):
            yield f"{name}[{i}]", value
    elif isinstance(x, MethodType):
        yield f"{name}.__self__", x.__self__
    elif isinstance(x, functools.partial):
        for part in ("func", "args", "keywords"):
            yield f"{name}.{part}", getattr(x, part)
    elif isinstance(x, FunctionType):
        for variable, value in _of_function(x):
            yield f"{name}.{variable}", value
    elif isinstance(x, staticmethod | classmethod):
        yield name, x.__func__


def _attributes(x: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object that is somebody's own, and those of its class."""
    if inspect.isclass(x) or (_is_foreign(x) and not isinstance(x, SimpleNamespace)):
        return
    kinds = reversed([k for k in type(x).__mro__ if not _is_library(k.__module__)])
    attributes = {n: v for k in kinds for n, v in vars(k).items()}
    for n, value in (attributes | getattr(x, "__dict__", {})).items():
        if n[:2] != "__":
            if inspect.ismemberdescriptor(value):  # of __slots__
                value = getattr(x, n, None)
            yield f"{name}.{n}".strip("."), value


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
    return _is_library(kind.__module__)


@functools.cache
def _is_library(module: str) -> bool:
    """Return whether a module is Python's own or NumPy's: nobody's layers, not looked into."""
    package = module.partition(".")[0]
    if package in ("numpy", "cupy"):
        return True
    if package not in sys.stdlib_module_names:
        return False
    # A project may have a folder `code`, as Python has a module.
    file = getattr(sys.modules.get(package), "__file__", None)  # there is none for what is built in
    return file is None or file.startswith(STANDARD)
