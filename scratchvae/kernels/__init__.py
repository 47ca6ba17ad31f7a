"""Compiled kernels that may take the place of a function of arrays: one pass instead of several.

The NumPy text of a function marked :func:`compiled` is its definition. It is what runs wherever no
kernel is at hand, and what the tests hold every kernel to. A kernel has the name of its function,
takes the same arguments and returns the same values; the cache of a pair may differ, since only its
own backward reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(definition: Function) -> Function:
    """Let a kernel of the same name compute this function where there is one for its arrays."""
    name = definition.__name__

    @functools.wraps(definition)
    def function(*args: Any) -> Any:
        kernel = find(name, args[0])
        return definition(*args) if kernel is None else kernel(*args)

    return function  # type: ignore[return-value]  # it has the definition's signature


def find(name: str, x: Any) -> Callable[..., Any] | None:
    """Return the kernel called `name` for arrays like `x`, or None."""
    if isinstance(x, np.ndarray):
        return None
    return None
