"""A stand-in for CuPy on machines without a GPU: it computes with NumPy and is as strict as CuPy.

Its arrays refuse to become NumPy arrays by themselves and to be mixed with them. So code that runs
on it does not depend on arrays being in host memory. It knows nothing of CuPy's own gaps.
"""

import operator
import types

import numpy as np


class DeviceArray:
    """An array that only `get` brings back to the host."""

    __array_ufunc__ = None  # `host + device` must come to __radd__ below, and fail there

    def __init__(self, hidden):
        self._hidden = hidden

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to a NumPy array")

    def __array_namespace__(self):
        return cupy

    def get(self):
        return self._hidden.copy()

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._hidden.ctypes.data)

    def __len__(self):
        return len(self._hidden)

    def __float__(self):
        return float(self._hidden)

    def __bool__(self):
        return bool(self._hidden)

    def __getitem__(self, index):
        return _wrapped(self._hidden[_unwrapped(index)])

    def __setitem__(self, index, value):
        self._hidden[_unwrapped(index)] = _unwrapped(value)

    def __getattr__(self, name):
        if name.startswith("__"):  # such as __array_interface__, a back door to the host
            raise AttributeError(name)
        found = getattr(self._hidden, name)
        return _on_device(found) if callable(found) else _wrapped(found)


def _unwrapped(x):
    if isinstance(x, DeviceArray):
        return x._hidden
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array among device arrays")
    if isinstance(x, tuple | list):
        return type(x)(_unwrapped(item) for item in x)
    return x


def _wrapped(x):
    if isinstance(x, np.ndarray | np.generic):
        return DeviceArray(np.asarray(x))
    if isinstance(x, list):
        return [_wrapped(item) for item in x]
    return x


def _on_device(function):
    def call(*args, **kwargs):
        kwargs = {name: _unwrapped(value) for name, value in kwargs.items()}
        return _wrapped(function(*_unwrapped(args), **kwargs))

    return call


def _in_place(function):
    def call(self, other):
        function(self._hidden, _unwrapped(other))
        return self

    return call


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
    _operator = getattr(operator, _name)
    setattr(DeviceArray, f"__{_name}__", _on_device(_operator))
    setattr(DeviceArray, f"__r{_name}__", _on_device(lambda a, b, f=_operator: f(b, a)))
    setattr(DeviceArray, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs"):
    setattr(DeviceArray, f"__{_name}__", _on_device(getattr(operator, _name)))


def _asarray(x, dtype=None):
    """Move what comes from the host, as CuPy's does; leave what is here."""
    hidden = x._hidden if isinstance(x, DeviceArray) else np.array(x, dtype=dtype)
    return DeviceArray(np.asarray(hidden, dtype=dtype))


def _attribute(name):
    found = getattr(np, name)
    return _on_device(found) if callable(found) and not isinstance(found, type) else found


cupy = types.ModuleType("cupy")
cupy.__getattr__ = _attribute
cupy.asarray = _asarray
cupy.array = lambda x: DeviceArray(np.array(_asarray(x)._hidden))
cupy.cuda = types.SimpleNamespace(is_available=lambda: True)
