"""A stand-in for CuPy on machines without a GPU: it computes with NumPy and is as strict as CuPy.

Its arrays refuse to become NumPy arrays by themselves and to be mixed with them. So code that runs
on it does not depend on arrays being in host memory. It has only CuPy's functions and methods, with
only CuPy's arguments: they are recorded in cupy_record.json, so CuPy itself need not be installed.
And it counts what would make the host wait for a GPU, what would be copied to one, and what would
be launched there; see `counting`.
"""

import contextlib
import functools
import operator
import types
import warnings
from dataclasses import dataclass

import cupy_record
import numpy as np

RECORD = cupy_record.load()


@dataclass
class Counts:
    """How often the host waited for the device; arrays copied there; launches there."""

    waits: int = 0
    copies: int = 0
    launches: int = 0


_counts = Counts()
_may_wait = True


def _wait(waits=True):
    """Count a wait, if this is one; raise where `allow_synchronize` has forbidden it."""
    _counts.waits += bool(waits)
    if waits and not _may_wait:
        raise DeviceSynchronized("Device synchronization was detected while disallowed.")


@contextlib.contextmanager
def allow_synchronize(allow):
    """As cupyx's function, which warns that it does not see every wait."""
    global _may_wait
    warnings.warn("cupyx.allow_synchronize will be removed", stacklevel=1)
    before, _may_wait = _may_wait, allow
    try:
        yield
    finally:
        _may_wait = before


@contextlib.contextmanager
def counting():
    """Give a `Counts` that holds, once the block is done, what it took."""
    taken, before = Counts(), vars(_counts).copy()
    yield taken
    for name, count in before.items():
        setattr(taken, name, getattr(_counts, name) - count)


# What gives a new view of the same memory, if it can; what gives memory that nothing is in, or no
# array.
_VIEWS = {
    "asarray", "ascontiguousarray", "atleast_1d", "atleast_2d", "broadcast_to", "diagonal",
    "expand_dims", "moveaxis", "ravel", "reshape", "squeeze", "swapaxes", "transpose", "view",
}  # fmt: skip
_NO_LAUNCH = {"empty", "empty_like"} | {"finfo", "iinfo", "result_type", "dtype"}


def _launch(name, args, result):
    """Count the launches of a function or method: one, but one for each array that is joined.

    The product of two vectors is two, of the numbers and of their sum: CuPy does not ask cuBLAS. At
    least so many: some of CuPy's functions, such as `var`, are several kernels.
    """
    if name in _NO_LAUNCH:
        return
    if name in _VIEWS and np.may_share_memory(_unwrapped(result), _unwrapped(args[0])):
        return
    if name in ("concatenate", "stack"):
        _counts.launches += len(args[0])
    elif name == "matmul":
        # cuBLAS takes one dtype: other arrays are converted before it, or after it into `out`.
        product = np.result_type(*(x.dtype for x in args[:2]))
        others = sum(x.dtype != product for x in (*args[:2], result))
        _counts.launches += (2 if result.ndim == 0 else 1) + others
    else:
        _counts.launches += 1


class DeviceArray:
    """An array that only `get` brings back to the host."""

    __array_ufunc__ = None  # `host + device` must come to __radd__ below, and fail there

    def __init__(self, hidden):
        self._hidden = hidden

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to a NumPy array")

    @property
    def __cuda_array_interface__(self):
        raise NotImplementedError("nobody but CUDA can use it")

    def get(self):
        _wait()
        return self._hidden.copy()

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._hidden.ctypes.data)

    def __len__(self):
        return len(self._hidden)

    def __iter__(self):
        return iter([_wrapped(np.asarray(item)) for item in self._hidden])

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return _asarray, (self.get(),)

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    def __getitem__(self, index):
        _wait(_is_mask(index))  # the host must know how many there are
        _counts.launches += _has_array(index)
        return _wrapped(self._hidden[_unwrapped(index)])

    def __setitem__(self, index, value):
        _wait(_is_mask(index))  # whatever the value: CuPy counts the entries that are set
        _counts.launches += 1
        self._hidden[_unwrapped(index)] = _unwrapped(value)

    def __dlpack_device__(self):
        return (2, 0)  # CUDA, the first device

    def __dlpack__(self, **how):
        raise BufferError("the memory of a device array is not on the host")

    def __getattr__(self, name):
        if name.startswith("__"):  # such as __array_interface__, a back door to the host
            raise AttributeError(name)
        if name not in RECORD["cupy.ndarray"]:
            raise AttributeError(f"CuPy's arrays have no {name!r}")
        # It is looked up in the record once.
        setattr(DeviceArray, name, _attribute(name))
        return getattr(self, name)


def _attribute(name):
    """Return a method of DeviceArray, or a property, that does what NumPy's does."""
    found = getattr(np.ndarray, name)
    if not callable(found):
        return property(lambda self: _wrapped(getattr(self._hidden, name)))
    if name in ("tolist", "item"):
        return _waiting(name)
    method = _on_device(found, _method_check(name), name)

    def waiting(self, *args, **kwargs):
        _wait()
        return method(self, *args, **kwargs)

    return waiting if name in _WAITING_METHODS else method


# These are no arrays, and are asked for most.
for _name in ("dtype", "flags", "nbytes", "ndim", "shape", "size", "strides"):
    setattr(DeviceArray, _name, property(operator.attrgetter(f"_hidden.{_name}")))


def _has_array(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, DeviceArray | list) for part in parts)


def _is_mask(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        part.dtype == bool if isinstance(part, DeviceArray) else _of_bools(part) for part in parts
    )


def _of_bools(x):
    return isinstance(x, list) and bool(x) and np.asarray(x).dtype == bool


def _waiting(name):
    def call(self, *args):
        _wait()
        return getattr(self._hidden, name)(*args)

    return call


for _name in ("__float__", "__int__", "__bool__", "__index__", "__complex__"):
    setattr(DeviceArray, _name, _waiting(_name))


def _unwrapped(x):
    if type(x) is DeviceArray:
        return x._hidden
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array among device arrays")
    if isinstance(x, (tuple, list)):
        return (list if isinstance(x, list) else tuple)([_unwrapped(item) for item in x])
    return x


def _wrapped(x):
    if isinstance(x, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(x))
    if isinstance(x, (tuple, list)):
        return type(x)([_wrapped(item) for item in x])
    return x


def _on_device(function, check=None, name=""):
    """Return the function, or the method of NumPy's arrays, for device arrays."""

    def call(*args, **kwargs):
        if check is not None:
            check(*args, **kwargs)
        if kwargs:
            kwargs = {key: _unwrapped(value) for key, value in kwargs.items()}
        result = _wrapped(function(*[_unwrapped(arg) for arg in args], **kwargs))
        _launch(name, args, result)
        return result

    return call


def _in_place(function):
    def call(self, other):
        _counts.launches += 1
        function(self._hidden, _unwrapped(other))
        return self

    return call


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_"):
    _operator, _method = getattr(operator, _name), _name.strip("_")
    setattr(DeviceArray, f"__{_method}__", _on_device(_operator, name=_method))
    setattr(DeviceArray, f"__r{_method}__", _on_device(lambda a, b, f=_operator: f(b, a)))
    setattr(DeviceArray, f"__i{_method}__", _in_place(getattr(operator, f"i{_method}")))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "invert"):
    setattr(DeviceArray, f"__{_name}__", _on_device(getattr(operator, _name)))


# --- What CuPy takes -----------------------------------------------------------------------------


def _check_of(name, recorded):
    """Return a function that raises TypeError for arguments that CuPy's function refuses.

    `recorded` is what the record says of it; where that is nothing, None is returned.
    """
    if recorded is None:
        return None
    if recorded == "ufunc":
        allowed = {"out", "dtype", "casting"}

        def check(*args, **kwargs):
            if surplus := kwargs.keys() - allowed:
                raise TypeError(f"CuPy's {name} takes no {', '.join(surplus)}")

        return check
    signature = cupy_record.signature(recorded)

    @functools.cache
    def check_names(n, names):
        signature.bind(*[None] * n, **dict.fromkeys(names))

    return lambda *args, **kwargs: check_names(len(args), tuple(kwargs))


def _method_check(name):
    """Take the arguments of a method from the function of the same name, which calls it."""
    recorded = RECORD["cupy"].get(name)
    # The methods of the last two take the axes one by one as well.
    if recorded == "ufunc" or name in ("transpose", "reshape"):
        recorded = None
    return _check_of(name, recorded)


# Functions whose result has a size that depends on numbers, or that look at one: those of which
# CuPy's documentation says that they may synchronize the device, and those that call such.
_WAITING = {
    "allclose", "argwhere", "array2string", "array_equal", "array_repr", "array_str",
    "asarray_chkfinite", "asnumpy", "average", "bincount", "choose", "compress",
    "count_nonzero", "delete", "extract", "flatnonzero", "gradient", "histogram", "histogram2d",
    "histogramdd", "in1d", "interp", "intersect1d", "isin", "ix_", "mask_indices", "nanmax",
    "nanmin", "nonzero", "percentile", "place", "quantile", "ravel_multi_index",
    "real_if_close", "repeat", "save", "savetxt", "savez", "savez_compressed", "setdiff1d",
    "setxor1d", "shares_memory", "tril_indices", "trim_zeros", "triu_indices", "union1d",
    "unique", "unique_all", "unique_counts", "unique_inverse", "unique_values", "unravel_index",
}  # fmt: skip


_WAITING_METHODS = {
    "choose", "compress", "dump", "dumps", "item", "nonzero", "repeat", "tobytes", "tofile",
    "tolist",
}  # fmt: skip


class Namespace(types.ModuleType):
    """NumPy's module for device arrays, without what CuPy's lacks."""

    def __init__(self, name, numpy):
        super().__init__(name)
        self._numpy = numpy

    def __getattr__(self, name):
        if (submodule := f"{self.__name__}.{name}") in RECORD and name != "ndarray":
            return Namespace(submodule, getattr(self._numpy, name))
        if name not in RECORD[self.__name__]:
            raise AttributeError(f"{self.__name__} has no {name!r}, or it is not recorded")
        found = getattr(self._numpy, name)
        if not callable(found) or isinstance(found, type):
            return found
        vars(self)[name] = self._counted(name, found)  # it is looked up more often than made
        return vars(self)[name]

    def _counted(self, name, found):
        call = _on_device(found, _check_of(name, RECORD[self.__name__][name]), name)

        def counted(*args, **kwargs):
            _wait(name in _WAITING or (name == "where" and len(args) == 1))
            # Of an array that says how many numbers there will be.
            _wait(name in ("arange", "linspace") and any(isinstance(a, DeviceArray) for a in args))
            _wait(self._numpy is np.linalg and name != "norm")  # may report an error
            return call(*args, **kwargs)

        return counted


def _asarray(x, dtype=None):
    """Move what comes from the host, as CuPy's does; leave what is here."""
    if isinstance(x, DeviceArray):
        moved = DeviceArray(np.asarray(x._hidden, dtype=dtype))
        _launch("asarray", [x], moved)
        return moved
    _counts.copies += 1
    return DeviceArray(np.array(x, dtype=dtype))


def _array(x, dtype=None):
    _counts.launches += isinstance(x, DeviceArray)
    return DeviceArray(np.array(_asarray(x, dtype)._hidden))


def _asnumpy(x):
    return x.get() if isinstance(x, DeviceArray) else np.asarray(x)


def _from_dlpack(x):
    if not isinstance(x, DeviceArray):
        raise BufferError("not an array on the device")
    return DeviceArray(x._hidden)


class _NeverAnArray:
    """The type that asks for a kernel on the GPU: the stand-in's arrays must not be of it."""


class RandomState:
    """What scratchvae uses of CuPy's class: draws on the device, from a key."""

    def __init__(self, seed=None, method=None):
        self.method = method
        self.seed(seed)

    def seed(self, seed=None):
        assert seed is None or 0 <= seed < 2**64
        self._rng = np.random.default_rng(seed)

    def standard_normal(self, size=None, dtype=float):
        _counts.launches += 1
        return DeviceArray(self._rng.standard_normal(size, np.dtype(dtype).type))

    def random_sample(self, size=None, dtype=float):
        _counts.launches += 1
        return DeviceArray(self._rng.random(size, np.dtype(dtype).type))


def _error(module, name, base):
    """Return an exception type that looks like one of CuPy's."""
    return type(name, (base,), {"__module__": module})


# A message is "Out of memory allocating `size` bytes (allocated so far: `total` bytes)."; of the
# others it is the name of the error, a colon, a sentence.
OutOfMemoryError = _error("cupy.cuda.memory", "OutOfMemoryError", MemoryError)
CompileException = _error("cupy.cuda.compiler", "CompileException", Exception)
CUDARuntimeError = _error("cupy_backends.cuda.api.runtime", "CUDARuntimeError", RuntimeError)
CUDADriverError = _error("cupy_backends.cuda.api.driver", "CUDADriverError", RuntimeError)
CUBLASError = _error("cupy_backends.cuda.libs.cublas", "CUBLASError", RuntimeError)
CURANDError = _error("cupy_backends.cuda.libs.curand", "CURANDError", RuntimeError)
NVRTCError = _error("cupy_backends.cuda.libs.nvrtc", "NVRTCError", RuntimeError)
DeviceSynchronized = _error("cupy._core.syncdetect", "DeviceSynchronized", RuntimeError)


cupy = Namespace("cupy", np)
cupy.__version__ = RECORD["version"]
cupy.asarray, cupy.array = _asarray, _array
cupy.asnumpy, cupy.from_dlpack = _asnumpy, _from_dlpack
cupy.ndarray = _NeverAnArray
cupy.random = types.SimpleNamespace(RandomState=RandomState)
cupy.cuda = types.SimpleNamespace(
    is_available=lambda: True,
    curand=types.SimpleNamespace(CURAND_RNG_PSEUDO_PHILOX4_32_10=161),
    cublas=None,
    nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)),
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    compiler=types.SimpleNamespace(CompileException=CompileException),
    runtime=types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        memGetInfo=lambda: (2**20, 2**30),
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: {"name": b"the stand-in"},
    ),
)
cupyx = types.SimpleNamespace(allow_synchronize=allow_synchronize)
