"""NumPy or CuPy: the array namespace, random numbers and transfers.

This is the only file that imports CuPy. A model holds one :class:`Backend`; functions of arrays
ask the arrays themselves through :func:`namespace`. So models on both live in one process, and no
global switch exists.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import InputError

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray: no type names both without importing both
RandomSource: TypeAlias = (
    "int | Sequence[int] | np.random.SeedSequence | np.random.Generator | None"
)

NO_CUDA = (
    "the cupy backend needs an NVIDIA GPU with its driver and CuPy, and {found}: "
    "install the extra that fits the driver, pip install 'scratchvae[cuda13]' or "
    "'scratchvae[cuda12]', or use backend='numpy' (--device cpu)"
)


def _keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what NumPy frees; return whether it was told.

    By default it gives large blocks back to the system at every free, and the next step faults
    them in again page by page: at batch 1,024 a third of a training step.
    """
    trim_threshold, mmap_threshold = -1, -3  # of mallopt, as in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    # 32 MiB is the most that glibc takes for the first: arrays above it are rare and slow anyway.
    return bool(mallopt(mmap_threshold, 2**25) and mallopt(trim_threshold, 2**30))


_keep_freed_memory()


def namespace(x: Array) -> Any:
    """Return the module whose functions work on `x`: ``numpy`` or ``cupy``."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules["cupy"]  # whose arrays, as of CuPy 14, do not offer the method


def asnumpy(x: Array) -> np.ndarray[Any, Any]:
    """Return `x` as a NumPy array, copied from the device when it lives on one."""
    return x.get() if hasattr(x, "get") else np.asarray(x)


def blocks(vector: Array) -> list[slice]:
    """Return slices that cover a long vector, each one of the size that is fastest to work on.

    On the CPU that is 16k elements: 64 KiB in float32, so that the five vectors which Adam reads
    and writes stay in a core's cache. On a GPU it is all of them.
    """
    n = len(vector)
    size = 16_384 if isinstance(vector, np.ndarray) else max(n, 1)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


@dataclass(frozen=True)
class Backend:
    """Where a model's arrays live and how they get there.

    Attributes
    ----------
    name : str
        ``"numpy"`` or ``"cupy"``.
    xp : module
        The array namespace.
    """

    name: str
    xp: Any

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Return `x` as an array of this backend, moved to its device if need be."""
        if self.name == "numpy":
            x = asnumpy(x)
        return self.xp.asarray(x, dtype=dtype)

    def standard_normal(self, rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
        """Draw N(0, 1) numbers on the host, so that every backend sees the same ones."""
        return self.xp.asarray(rng.standard_normal(shape, dtype=np.dtype(dtype).type))


def get_backend(name: str | Backend) -> Backend:
    """Return the backend called `name`.

    Raises
    ------
    InputError
        If the name is unknown, or if it is ``"cupy"`` and CuPy or a CUDA device is missing.
    """
    if isinstance(name, Backend):
        return name
    if name == "numpy":
        return Backend("numpy", np)
    if name == "cupy":
        return Backend("cupy", _import_cupy())
    raise InputError(f"unknown backend {name!r}: expected 'numpy' or 'cupy'")


def cuda_is_available() -> bool:
    """Tell whether ``get_backend("cupy")`` would succeed."""
    try:
        _import_cupy()
    except InputError:
        return False
    return True


def backend_of(device: str) -> str:
    """Return "numpy" for "cpu" and "cupy" for "cuda"; "auto" is the latter where it can be."""
    if device == "auto":
        device = "cuda" if cuda_is_available() else "cpu"
    return {"cpu": "numpy", "cuda": "cupy"}[device]


def blas_threads(model: Any, batch_size: int) -> AbstractContextManager[object]:
    """Return a context in which the matrix products of a small model run on one thread.

    Products as small as the digits' gain nothing from a second thread. But where another process
    holds its core each of them waits for the scheduler: a run of 3 seconds then takes minutes.
    """
    from threadpoolctl import threadpool_limits

    largest = max(model.params[name].value.size for name in model.params.names)  # n_in n_out
    limits: AbstractContextManager[object] = threadpool_limits(
        1 if 2 * batch_size * largest < 20e6 else None, user_api="blas"
    )
    return limits


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise InputError(NO_CUDA.format(found="CuPy is not installed")) from None
    if not cupy.cuda.is_available():
        raise InputError(NO_CUDA.format(found="CuPy finds no CUDA device"))
    return cupy


def get_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64 as a NumPy dtype.

    Raises
    ------
    InputError
        If `dtype` is any other type.
    """
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        if dtype is not None and dtype in (known, known.name, known.type):  # None == float64
            return known
    raise InputError(f"unknown dtype {dtype!r}: expected 'float32' or 'float64'")
