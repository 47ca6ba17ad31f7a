"""Compiled kernels that replace functions of arrays: one pass over the memory instead of several.

The NumPy code of a function marked :func:`compiled` is its definition. It runs where there is no
kernel, and the tests compare every kernel with it. A kernel has the name of its function
and takes the same arguments; the cache of a pair may differ, since only its own backward reads it.

`host` has those for the CPU, which need Numba, and `cuda` those for CuPy's arrays. With
``SCRATCHVAE_COMPILED=0`` in the environment none is used.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(definition: Function) -> Function:
    """Return a function that a kernel of the same name computes, if there is one for its arrays."""
    name = definition.__name__

    @functools.wraps(definition)
    def function(*args: Any, **named: Any) -> Any:
        kernel = find(name, args[0]) if args and not named else None
        result = kernel(*args) if kernel else NotImplemented
        return definition(*args, **named) if result is NotImplemented else result

    return function  # type: ignore[return-value]  # it has the definition's signature


def find(name: str, x: Any) -> Callable[..., Any] | None:
    """Return the kernel called `name` for arrays that live where `x` does, or None.

    The kernel itself returns NotImplemented for arguments that it was not made for.
    """
    if isinstance(x, np.ndarray):
        return getattr(_host(), name, None)
    return getattr(_cuda(), name, None) if _is_cupy(x) else None


@functools.cache
def _host() -> ModuleType | None:
    if _switched_off():
        return None
    try:
        from . import host
    except ImportError:  # no Numba, or one that does not know this NumPy
        return None
    return host


@functools.cache
def _cuda() -> ModuleType | None:
    if _switched_off():
        return None
    from . import cuda

    return cuda


def _is_cupy(x: Any) -> bool:
    cupy = sys.modules.get("cupy")  # imported already if x is one of its arrays
    return cupy is not None and isinstance(x, cupy.ndarray)


def _switched_off() -> bool:
    return os.environ.get("SCRATCHVAE_COMPILED") == "0"
