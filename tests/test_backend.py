"""NumPy passes through, and a missing GPU is said in one sentence. No GPU is needed here."""

import re
import subprocess
import sys
import types

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import scratchvae as sv
from scratchvae import backend
from scratchvae.backend import (
    asnumpy,
    blocks,
    cuda_is_available,
    flush_subnormals,
    get_backend,
    get_dtype,
    namespace,
)


class OnDevice:
    """What asnumpy needs of a device array."""

    __cuda_array_interface__ = None

    def __init__(self, host):
        self.host = host

    def get(self):
        return self.host


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_subnormal_numbers_are_flushed(dtype):
    tiny, zero = np.finfo(dtype).tiny, np.zeros((), dtype)[()]
    smallest, below = np.nextafter(zero, tiny), np.nextafter(tiny, zero)
    x = np.array([tiny, below, smallest, -tiny, -below, np.inf, np.nan, 1], dtype)
    y = x[1:3].copy()
    flush_subnormals(x, y)
    np.testing.assert_array_equal(x, [tiny, 0, 0, -tiny, 0, np.inf, np.nan, 1])
    np.testing.assert_array_equal(y, [0, 0])


def test_numpy_arrays_pass_through_uncopied():
    x, numpy = np.ones(3), get_backend("numpy")
    assert numpy.xp is np
    assert namespace(x) is np
    assert asnumpy(x) is x
    assert numpy.asarray(x) is x
    assert numpy.asarray(x, dtype="float64") is x
    assert numpy.asarray(x, dtype="float32").dtype == np.float32
    assert get_backend(numpy) is numpy


def test_device_arrays_are_fetched():
    host = np.arange(3.0)
    assert asnumpy(OnDevice(host)) is host
    assert get_backend("numpy").asarray(OnDevice(host)) is host


def test_arrays_that_name_no_namespace_are_cupys(monkeypatch):
    cupy = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert namespace(OnDevice(np.ones(1))) is cupy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_is_the_generators_own_in_the_dtype_asked_for(dtype):
    drawn = get_backend("numpy").standard_normal(np.random.default_rng(1), (4, 3), dtype)
    expected = np.random.default_rng(1).standard_normal((4, 3), dtype=np.dtype(dtype).type)
    assert drawn.dtype == dtype
    assert np.array_equal(drawn, expected)


class CUDARuntimeError(RuntimeError):
    pass


def without_gpu(error, driver=13000):
    """A CuPy that counts no devices, or reports why it cannot count them."""

    def count():
        if error:
            raise CUDARuntimeError(error)
        return 0

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        is_available=lambda: False,
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 12090,
            getDeviceCount=count,
        ),
    )
    return cupy


class CudaWithoutLibraries:
    def is_available(self):
        return True

    def __getattr__(self, name):
        raise ImportError(f"Failure finding lib{name}.so")


class CudaWithoutNvrtc(CudaWithoutLibraries):
    cublas = curand = None

    class nvrtc:
        @staticmethod
        def getVersion():
            raise RuntimeError("Failure finding libnvrtc.so")  # as cuda.pathfinder does


def without_libraries(cuda):
    cupy = types.ModuleType("cupy")
    cupy.cuda = cuda
    return cupy


# As CuPy words it, whose own message begins with a line of "=".
NO_LIBRARY = """
================
Failed to import CuPy.

Original error:
  ImportError: libstdc++.so.6: version 'GLIBCXX_3.4.30' not found
================
"""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (NO_LIBRARY, "ImportError: libstdc++.so.6: version 'GLIBCXX_3.4.30' not found"),
        ("libnvrtc.so.12: cannot open", "libnvrtc.so.12: cannot open"),
        ("", "ImportError"),
    ],
)
def test_a_cupy_that_cannot_be_imported_is_not_called_missing(monkeypatch, tmp_path, said, reason):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    (tmp_path / "cupy.py").write_text(f"raise ImportError({said!r})")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = re.escape(f"driver and CuPy, and CuPy cannot be imported ({reason}): install")
    with pytest.raises(sv.InputError, match=sentence):
        get_backend("cupy")


# sys.modules["cupy"] = None makes `import cupy` fail as if it were not installed.
@pytest.mark.parametrize(
    ("cupy", "found"),
    [
        (None, "CuPy is not installed"),
        (without_gpu(None), "CuPy finds no CUDA device"),
        (without_gpu("cudaErrorNoDevice: no CUDA-capable device"), "CuPy finds no CUDA device"),
        (without_gpu("cudaErrorInsufficientDriver: ...", driver=0), "there is no driver"),
        (
            without_gpu("cudaErrorInsufficientDriver: CUDA driver version is", driver=11080),
            "the driver knows CUDA 11.8 where this CuPy wants 12.9",
        ),
        (without_libraries(CudaWithoutLibraries()), "CuPy does not find CUDA's libraries"),
        (without_libraries(CudaWithoutNvrtc()), "libraries cuBLAS, cuRAND and NVRTC"),
    ],
)
def test_a_missing_gpu_is_one_sentence_that_says_what_to_do(monkeypatch, cupy, found):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert not cuda_is_available()
    for ask in (get_backend, lambda name: sv.VAE(4, (3,), 2, backend=name)):
        with pytest.raises(sv.InputError) as raised:
            ask("cupy")
        message = str(raised.value)
        assert found in message
        assert "pip install 'scratchvae[cuda13]'" in message
        assert "backend='numpy'" in message
        assert "\n" not in message
        assert ". " not in message
        assert not message.endswith(".")
        assert raised.value.__cause__ is None  # no second traceback above the sentence
        assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_an_unknown_backend_is_named():
    with pytest.raises(sv.InputError, match="unknown backend 'tpu': expected 'numpy' or 'cupy'"):
        get_backend("tpu")


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("f8"), float])
def test_both_float_types_are_understood_in_every_spelling(dtype):
    assert get_dtype(dtype) == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "int8", "complex64", "nonsense", 3])
def test_other_dtypes_are_named(dtype):
    with pytest.raises(sv.InputError, match=f"unknown dtype {dtype!r}: expected 'float32' or"):
        get_dtype(dtype)


@pytest.mark.parametrize("n", [0, 1, 7, 16_383, 16_384, 16_385, 32_768, 40_001])
def test_blocks_cover_everything_once_and_none_is_too_long(n):
    parts = blocks(np.zeros(n))
    assert [i for part in parts for i in range(n)[part]] == list(range(n))
    assert all(0 < part.stop - part.start <= 16_384 for part in parts)


def test_a_device_vector_is_one_block():
    class Vector(OnDevice):
        def __len__(self):
            return len(self.host)

    assert blocks(Vector(np.zeros(40_001))) == [slice(0, 40_001)]


def test_no_dtype_is_not_taken_for_float64():
    """NumPy itself compares its float64 equal to None."""
    with pytest.raises(sv.InputError, match="unknown dtype None: expected 'float32' or 'float64'"):
        get_dtype(None)


TELLS_THE_ALLOCATOR = """
import ctypes
import numpy as np

told = []

class Library(ctypes.CDLL):
    @staticmethod
    def mallopt(what, value):
        told.append((what, value))
        return 1

ctypes.CDLL = Library
import scratchvae as sv
from scratchvae import cli, training

assert told == [], "importing it changed the process"
data = sv.datasets.load("digits")
model = sv.VAE(64, (4,), 2)
trainer = training.Trainer(model, sv.Adam(model.params), data, batch_size=500)
model.loss_and_grad(np.zeros((2, 64)))
assert told == [], "building a model changed the process"
trainer.run(1)
assert told == [(-3, 2**25), (-1, 2**30)], told
trainer.run(2)
assert sv.backend.keep_freed_memory()
assert len(told) == 2, "told more than once"
"""


def test_the_allocator_is_told_once_when_training_begins_and_not_on_import():
    done = subprocess.run(
        [sys.executable, "-c", TELLS_THE_ALLOCATOR], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("batch_size", "threads"), [(99, 1), (100, 2)])
def test_only_the_products_of_a_small_model_are_kept_to_one_thread(batch_size, threads):
    def found():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    model = sv.VAE(1000, (100,), 2)  # the largest product has 2 * 1e5 operations an example
    with threadpool_limits(2, "blas"):  # another number than 1, on any machine
        with backend.blas_threads(model, batch_size):
            assert found() == {threads}
        assert found() == {2}


def test_another_c_library_is_left_alone(monkeypatch):
    class WithoutMallopt:
        def __init__(self, name):
            pass

    monkeypatch.setattr("ctypes.CDLL", WithoutMallopt)
    assert not backend.keep_freed_memory.__wrapped__()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_array(np.ones((2, 4)), np.eye(2, 4)), "found a masked array: expected one w"),
        (np.full((2, 4), None), "found an array of object: expected real numbers"),
        (np.ones((2, 4)) * 1j, "found an array of complex128: expected real numbers"),
        ("abc", "found an array of <U3: expected real numbers"),
        ([[1, 2], [3]], "no array can be made of a list: "),
    ],
)
def test_what_holds_no_real_numbers_is_refused(x, message):
    model = sv.VAE(4, (3,), 2)
    for use in model.loss_and_grad, model.encode, model.reconstruct:
        with pytest.raises(sv.InputError, match=f"^{message}"):
            use(x)
    model.loss_and_grad([[0, 1, 1, 0], [True, 0.5, 0, 0]])


@pytest.mark.parametrize("rng", [-1, "a", 1.5])
def test_what_is_no_source_of_random_numbers_is_one_sentence(rng):
    model, x = sv.VAE(3, (4,), 2), np.full((2, 3), 0.5)
    for use in (
        lambda: sv.VAE(3, (4,), 2, rng=rng),
        lambda: sv.Linear(3, 4, rng=rng),
        lambda: sv.Conv2D(1, 2, 3, rng=rng),
        lambda: sv.MixturePrior(2, 3, rng=rng),
        lambda: sv.layers.dense([2, 3], rng=rng),
        lambda: model.sample(3, rng=rng),
        lambda: sv.ConditionalVAE(3, (4,), 2, classes=2).sample(3, rng=rng),
        lambda: sv.evaluation.elbo(model, [x], rng=rng),
        lambda: sv.evaluation.importance_weighted_bound(model, [x], 2, rng=rng),
    ):
        with pytest.raises(sv.InputError) as error:
            use()
        assert str(error.value) == (
            f"rng is {rng!r}: expected a seed, an integer of 0 or more, a numpy.random.Generator "
            "or None"
        )
