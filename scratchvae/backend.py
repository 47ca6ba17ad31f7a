"""NumPy or CuPy: the array namespace, random numbers and transfers.

This is the only file that imports CuPy. A model holds one :class:`Backend`; functions of arrays
take their namespace from their arguments, through :func:`namespace`. So models on both can live in
one process, and there is no global switch.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import InputError, require_unmasked

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray: no type names both without importing both
RandomSource: TypeAlias = (
    "int | Sequence[int] | np.random.SeedSequence | np.random.Generator | None"
)

NO_CUDA = (
    "the cupy backend needs an NVIDIA GPU with its driver and CuPy, and {found}: "
    "install the extra that fits the driver, pip install 'scratchvae[cuda13]' or "
    "'scratchvae[cuda12]', or use backend='numpy' (--device cpu)"
)


PIECE = 2**24  # bytes of host memory that are sent to a GPU at once


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep the memory that NumPy frees; return whether it was told.

    By default malloc gives large blocks back to the system at every free, and the next step faults
    them in again page by page: at batch 1,024 that takes a third of a training step. The setting
    holds for the whole process, so importing scratchvae leaves it alone; ``Trainer.run`` calls this
    function when training begins. Call it yourself, once, before a training loop of your own.
    """
    trim_threshold, mmap_threshold = -1, -3  # of mallopt, as in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    # 32 MiB is the most that glibc takes for the first: arrays above it are rare and slow anyway.
    return bool(mallopt(mmap_threshold, 2**25) and mallopt(trim_threshold, 2**30))


def get_rng(rng: RandomSource) -> np.random.Generator:
    """Return NumPy's generator for a seed, a new one for None, or the generator that is given.

    Raises
    ------
    InputError
        If it is none of these.
    """
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise InputError(
            f"rng is {rng!r}: expected a seed, an integer of 0 or more, a numpy.random.Generator "
            "or None"
        ) from None


def namespace(x: Array) -> Any:
    """Return the module whose functions work on `x`: ``numpy`` or ``cupy``."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules["cupy"]  # whose arrays, as of CuPy 14, do not offer the method


def asnumpy(x: Array) -> np.ndarray[Any, Any]:
    """Return `x` as a NumPy array, copied from the device when it lives on one."""
    return x.get() if _is_cupys(x) else np.asarray(x)


def _is_cupys(x: Any) -> bool:
    # A pandas frame has a method `get` as well, a tensor of PyTorch the interface. The type is
    # asked, since a tensor that requires a gradient raises an error of its own.
    return hasattr(type(x), "__cuda_array_interface__") and hasattr(x, "get")


def on_host(x: Any) -> np.ndarray[Any, Any]:
    """Return data that somebody hands in as a NumPy array, wherever they lie.

    Raises
    ------
    InputError
        If they are an array of another library that cannot be taken over.
    """
    if _is_cupys(x):
        return asnumpy(x)
    if isinstance(x, np.ndarray | np.generic) or not hasattr(x, "__dlpack__"):
        return np.asarray(x)
    on_device = False
    with suppress(Exception):  # which is told below
        on_device = x.__dlpack_device__()[0] == 2  # kDLCUDA
    return asnumpy(get_backend("cupy" if on_device else "numpy")._from_dlpack(x))


def blocks(vector: Array) -> list[slice]:
    """Return slices that cover a long vector, each of the size that is fastest to work on.

    On the CPU that is 16k elements: 64 KiB in float32, so that the vectors which Adam reads and
    writes stay in a core's cache. On a GPU one slice covers all of it.
    """
    n = len(vector)
    size = 16_384 if isinstance(vector, np.ndarray) else max(n, 1)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def flush_subnormals(*vectors: Array) -> None:
    """Set subnormal numbers to zero, in place: in float32 those below 1.2e-38.

    A number that shrinks by a factor at every step, such as the running mean of a gradient that has
    become zero, ends up subnormal and stays there, because rounding keeps it from reaching zero. A
    CPU may take a hundred cycles for an operation with such a number: on MNIST it made Adam five
    times as slow. A GPU computes with them at full speed, so there nothing is done: an assignment
    through a mask would make the host wait for it.
    """
    for vector in vectors:
        if isinstance(vector, np.ndarray) and vector.dtype.kind in "fc":  # others have none
            vector[np.abs(vector) < np.finfo(vector.dtype).tiny] = 0


@dataclass(frozen=True)
class Backend:
    """Where a model's arrays live and how they get there.

    Attributes
    ----------
    name : str
        ``"numpy"`` or ``"cupy"``.
    noise : str
        Who draws the noise of training and sampling: ``"host"``, so that a CPU and a GPU see the
        same numbers, or ``"device"``, which copies nothing.
    """

    name: str
    noise: str = "host"

    @property
    def xp(self) -> Any:
        """The array namespace: the module ``numpy`` or ``cupy``."""
        if self.name == "numpy":
            return np
        import cupy

        return cupy

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Return `x` as an array of this backend, moved to its device if need be.

        Arrays of other libraries come in through DLPack, without a copy if they are on this device.

        Raises
        ------
        InputError
            If `x` cannot be taken over, such as a PyTorch tensor that requires a gradient, if it
            is masked or holds something else than real numbers, or if the GPU has too little
            memory for it.
        """
        if _is_cupys(x):
            x = x.get() if self.name == "numpy" else x
        elif hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray | np.generic):
            x = self._from_dlpack(x)
        if not hasattr(type(x), "__cuda_array_interface__"):
            x = _numbers(x)
        elif getattr(x.dtype, "kind", "") == "c":
            raise InputError(f"found an array of {x.dtype}: expected real numbers")
        try:
            if self.name == "cupy" and isinstance(x, np.ndarray) and x.nbytes > PIECE:
                return self._in_pieces(x, dtype)
            return self.xp.asarray(x, dtype=dtype)
        except Exception as error:
            if sentence := cuda_error(error):
                raise InputError(sentence) from error
            raise

    @property
    def device(self) -> str:
        """The device that the arrays are on, in words."""
        if self.name == "numpy":
            return "the CPU"
        runtime = self.xp.cuda.runtime
        return f"CUDA ({runtime.getDeviceProperties(runtime.getDevice())['name'].decode()})"

    def _in_pieces(self, x: np.ndarray[Any, Any], dtype: Any) -> Array:
        # CuPy sends a copy by way of pinned memory, as much as the array needs, rounded up to a
        # power of two, and keeps that memory.
        # A GPU's numbers have the host's order of bytes, whatever that of `x` is.
        moved = self.xp.empty(x.shape, dtype=np.dtype(dtype or x.dtype).newbyteorder("="))
        rows = max(1, PIECE // x[:1].nbytes)
        for i in range(0, len(x), rows):
            moved[i : i + rows] = self.xp.asarray(x[i : i + rows], dtype=dtype)
        return moved

    def _from_dlpack(self, x: Any) -> Array:
        try:
            on_host = x.__dlpack_device__()[0] in (1, 3)  # kDLCPU, kDLCUDAHost: pinned memory
            return (np if on_host else self.xp).from_dlpack(x)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            found = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"an array of type {type(x).__module__}.{type(x).__name__} cannot be taken over "
                f"through DLPack ({found}): expected a plain array in the memory of "
                f"{'the host' if self.name == 'numpy' else 'the host or of the GPU'}"
            ) from None

    def standard_normal(self, rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
        """Return draws from N(0, 1), by `rng` or, on the device, from a key that `rng` draws."""
        if self.noise == "host":
            return self.xp.asarray(rng.standard_normal(shape, dtype=np.dtype(dtype).type))
        with _keyed(self.xp, rng) as generator:
            return generator.standard_normal(shape, dtype=dtype)

    def uniform(self, rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
        """Return draws from the uniform distribution on [0, 1), in the same way."""
        if self.noise == "host":
            return self.xp.asarray(rng.random(shape, dtype=np.dtype(dtype).type))
        with _keyed(self.xp, rng) as generator:
            return generator.random_sample(shape, dtype=dtype)


def _numbers(x: Any) -> Any:
    """Return `x` as an array of the host; raise InputError if that holds no real numbers."""
    require_unmasked("found", x)
    try:
        x = np.asarray(x)
    except ValueError as error:  # lists of several lengths
        raise InputError(f"no array can be made of a {type(x).__name__}: {error}") from None
    if x.dtype.kind in "cOSUMm":
        raise InputError(f"found an array of {x.dtype}: expected real numbers")
    return x


_drawing = threading.Lock()


@contextmanager
def _keyed(xp: Any, rng: np.random.Generator) -> Iterator[Any]:
    """Yield the device's generator at the start of a stream that one number of `rng` chooses.

    So `rng` holds all of the state, and a run that is resumed repeats its noise. Other threads wait
    for their turn.
    """
    generator = _device_generator(xp)
    with _drawing:
        generator.seed(int(rng.integers(2**64, dtype=np.uint64)))
        yield generator


@functools.cache
def _device_generator(xp: Any) -> Any:
    # Philox is a function of key and counter: it has no long state that a new key would rebuild.
    return xp.random.RandomState(0, xp.cuda.curand.CURAND_RNG_PSEUDO_PHILOX4_32_10)


def get_backend(name: str | Backend, noise: str | None = None) -> Backend:
    """Return the backend called `name`.

    Parameters
    ----------
    name : {"numpy", "cupy"} or Backend
    noise : {"host", "device"}, optional
        As for `Backend`: "device" for CuPy if not given. On the CPU the host draws it always.

    Raises
    ------
    InputError
        If a name is unknown, or if it is ``"cupy"`` and CuPy or a CUDA device is missing.
    """
    if noise not in (None, "host", "device"):
        raise InputError(f"unknown noise {noise!r}: expected 'host' or 'device'")
    if isinstance(name, Backend):
        return name
    if name == "numpy":
        return Backend("numpy")
    if name == "cupy":
        _import_cupy()  # which finds out whether there is a device
        return Backend("cupy", noise or "device")
    raise InputError(f"unknown backend {name!r}: expected 'numpy' or 'cupy'")


def cuda_is_available() -> bool:
    """Tell whether ``get_backend("cupy")`` would succeed."""
    try:
        _import_cupy()
    except InputError:
        return False
    return True


def backend_of(device: str) -> str:
    """Return "numpy" for "cpu" and "cupy" for "cuda"; for "auto" the latter if there is a GPU."""
    if device == "auto":
        device = "cuda" if cuda_is_available() else "cpu"
    return {"cpu": "numpy", "cuda": "cupy"}[device]


def cuda_error(error: BaseException) -> str | None:
    """Return a sentence for an error that CuPy raises because CUDA failed, None for any other."""
    cupy = sys.modules.get("cupy")
    # Known by where it comes from: cuBLAS's and cuRAND's modules cannot be named before they load.
    source = type(error).__module__
    if cupy is None or not source.startswith(("cupy.cuda.", "cupy_backends.")):
        return None
    found = str(error).rstrip(".").replace("\n", " ")
    if isinstance(error, cupy.cuda.memory.OutOfMemoryError):
        wanted = next((word for word in found.split() if word[0].isdigit()), "more")
        free, total = cupy.cuda.runtime.memGetInfo()
        return (
            f"too little memory on the GPU: {wanted} bytes were wanted, {free:,} of {total:,} are "
            "free: take a smaller model, batch or data set, or the CPU (--device cpu)"
        )
    return (
        f"CUDA failed ({found}): see that CuPy fits the driver, as `nvidia-smi` and "
        "`python -c 'import cupy; cupy.show_config()'` show them, or take the CPU "
        "(--device cpu)"
    )


def blas_threads(model: Any, batch_size: int) -> AbstractContextManager[object]:
    """Return a context in which the matrix products of a small model run on one thread.

    Products as small as those for the digits gain nothing from a second thread. But where another
    process keeps its core busy, each of them waits for the scheduler: a run of 3 seconds then takes
    minutes. On a GPU there is nothing to limit.
    """
    if model.backend.name != "numpy":
        return nullcontext()
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:  # where the source tree runs on NumPy alone, as for gpu-check
        return nullcontext()
    largest = max(model.params[name].value.size for name in model.params.names)  # n_in n_out
    limits: AbstractContextManager[object] = threadpool_limits(
        1 if 2 * batch_size * largest < 20e6 else None, user_api="blas"
    )
    return limits


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        found = "CuPy is not installed"
        if getattr(error, "name", "") != "cupy":  # it is, and cannot load what it needs
            text = str(error)
            cause = (text.partition("Original error:")[2] or text).strip().splitlines()
            found = f"CuPy cannot be imported ({cause[0] if cause else type(error).__name__})"
        raise InputError(NO_CUDA.format(found=found)) from None
    if not cupy.cuda.is_available():
        raise InputError(NO_CUDA.format(found=_why_not(cupy.cuda.runtime)))
    try:  # load them now: a missing one must not end a training run
        _ = cupy.cuda.cublas, cupy.cuda.curand, cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError):  # the latter is NVRTC's
        found = "CuPy does not find CUDA's libraries cuBLAS, cuRAND and NVRTC"
        raise InputError(NO_CUDA.format(found=found)) from None
    return cupy


def _why_not(runtime: Any) -> str:
    """Return why CuPy has no device, which `is_available` does not tell."""
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "there is no driver"
    try:
        runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error):
            knows, wants = (f"{v // 1000}.{v % 1000 // 10}" for v in (driver, needed))
            return f"the driver knows CUDA {knows} where this CuPy wants {wants}"
    return "CuPy finds no CUDA device"


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
