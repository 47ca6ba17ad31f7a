"""The CUDA kernels on NumPy arrays: their text compiled as C++, their wrappers as they are.

`cupy` below is what `scratchvae.kernels.cuda` sees of CuPy: `empty` and `RawModule`. Here `empty`
gives an array full of NaN amid guards, and a launch runs the blocks in an order drawn anew. It
checks every argument against the kernel's declaration, that what is declared const is not changed,
and that the guards are whole.
"""

import ctypes
import functools
import itertools
import re
import shutil
import subprocess
import tempfile
import types
from pathlib import Path

import numpy as np
import standin

from scratchvae import kernels
from scratchvae.kernels import cuda

COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
GUARD = 64  # elements before and behind every array
NAN_BITS = {"float32": 0x7FC00000, "float64": 0x7FF8 << 48}
TAGS = itertools.count(1)

C_TYPES = {
    "real": None,
    "index": np.dtype(np.int64),
    "byte": np.dtype(np.uint8),
    "double": np.dtype(np.float64),
}


def declarations(source):
    """Return {kernel: [(its parameter's type, is it const, is it an array)]}."""
    found = {}
    for name, parameters in re.findall(r"^KERNEL\((\w+), (.*?)\) \{", source, re.S | re.M):
        found[name] = [
            (re.search(r"(?:const )?(\w+)", p)[1], "const " in p, "*" in p)
            for p in parameters.split(",")
        ]
    return found


@functools.cache
def build(source, options):
    """Return the loaded library; `options` as for NVRTC, of which only -D mean anything here."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
        defined = [option for option in options if option.startswith("-D")]
        subprocess.run(
            [COMPILER, *flags, *defined, "-x", "c++", "-", "-o", library],
            input=source,
            text=True,
            check=True,
            capture_output=True,
        )
        return ctypes.CDLL(str(library))


class Guarded(np.ndarray):
    """An array inside a buffer of poison; its views know the buffer too."""

    def __array_finalize__(self, parent):
        self.buffer = getattr(parent, "buffer", None)
        self.guard = getattr(parent, "guard", None)


def poison(dtype):
    """Return NaN, or the integer -1 as `dtype`.

    The last bits of each NaN are its own. A NaN that a kernel reads where it should not, and writes
    where it should not, so does not look like the one that was there.
    """
    if dtype.name not in NAN_BITS:
        return np.array(-1).astype(dtype)
    bits = NAN_BITS[dtype.name] + next(TAGS)
    return np.array(bits, f"u{dtype.itemsize}").view(dtype)


def empty(shape, dtype):
    dtype = np.dtype(dtype)
    n = int(np.prod(shape, dtype=np.int64))
    buffer = np.full(n + 2 * GUARD, poison(dtype))
    a = buffer[GUARD : GUARD + n].reshape(shape).view(Guarded)
    a.buffer, a.guard = buffer, buffer[:GUARD].tobytes()
    return a


def guarded(a, gap=0):
    """Return a copy of `a` amid guards, with a gap of poison behind every row of a matrix."""
    a = np.asarray(a)
    copy = empty((*a.shape[:-1], a.shape[-1] + gap), a.dtype)[..., : a.shape[-1]]
    copy[...] = a
    return copy


def require_whole_guards(a):
    """Of an array that `empty` made: nothing but its own elements has changed."""
    assert a.buffer[:GUARD].tobytes() == a.guard, "written before the array"
    assert a.buffer[-GUARD:].tobytes() == a.guard, "written behind the array"


class HostModule:
    """What CuPy's RawModule is to the wrappers."""

    launched: list  # of names, since `put_in_place_of_numpy`
    rng: np.random.Generator
    extra: tuple = ()

    def __init__(self, code, options):
        self.declared = declarations(code)
        self.dtype = np.dtype(np.float64 if "-DREAL=double" in options else np.float32)
        self.library = build(code, (*options, *HostModule.extra))

    def get_function(self, name):
        declared, function = self.declared[name], getattr(self.library, name)

        def launch(grid, threads, args):
            (blocks,) = grid
            assert 1 <= blocks <= cuda.MAX_BLOCKS
            assert threads == (cuda.THREADS,)
            assert len(args) == len(declared), f"{name} takes {len(declared)} arguments"
            before, converted = [], []
            for arg, (c_type, const, is_array) in zip(args, declared, strict=True):
                if is_array:
                    assert arg.dtype == (C_TYPES[c_type] or self.dtype), (name, c_type, arg.dtype)
                    converted.append(ctypes.c_void_p(arg.ctypes.data))
                    if const:
                        before.append((arg, arg.tobytes()))
                else:
                    kind, c = {
                        "index": (int, ctypes.c_longlong),
                        "double": (float, ctypes.c_double),
                    }[c_type]
                    assert type(arg) is kind, (name, c_type, arg)
                    converted.append(c(arg))
            for block in HostModule.rng.permutation(blocks):
                function(ctypes.c_longlong(block), ctypes.c_longlong(blocks), *converted)
            for arg, old in before:
                assert arg.tobytes() == old, f"{name} changed what is const"
            for arg in args:
                if getattr(arg, "buffer", None) is not None:
                    require_whole_guards(arg)
            HostModule.launched.append(name)

        return launch


class DeviceModule(HostModule):
    """CuPy's RawModule for the arrays of the stand-in, which counts the launches."""

    def get_function(self, name):
        launch = super().get_function(name)

        def on_device(grid, threads, args):
            standin._counts.launches += 1
            launch(grid, threads, standin._unwrapped(args))

        return on_device


class Namespace(types.SimpleNamespace):
    """A namespace that may be the key of a cache, as a module may."""

    __hash__ = object.__hash__


cupy = Namespace(RawModule=HostModule, empty=empty)


def put_in_place_of_numpy(monkeypatch, rng, extra=()):
    """Let every marked function of NumPy arrays go to its CUDA kernel; return what is launched."""
    HostModule.launched, HostModule.rng, HostModule.extra = [], rng, tuple(extra)
    for name in ("_module", "_function"):  # caches of the test's own
        monkeypatch.setattr(cuda, name, functools.cache(getattr(cuda, name).__wrapped__))
    monkeypatch.setattr(cuda, "namespace", lambda x: cupy)
    monkeypatch.setattr(kernels, "find", lambda name, x: getattr(cuda, name))
    return HostModule.launched
