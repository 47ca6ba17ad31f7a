"""What CUDA refuses, and arrays of other libraries: one sentence each, and nothing lost."""

import sys
from pathlib import Path

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import backend, checkpoint
from scratchvae.backend import asnumpy, cuda_error, get_backend
from scratchvae.cli import main
from scratchvae.datasets import Dataset
from scratchvae.training import Trainer

OUT_OF_MEMORY = standin.OutOfMemoryError("Out of memory allocating 6,000,000 bytes (allocated so")
TOO_LITTLE = (
    "too little memory on the GPU: 6,000,000 bytes were wanted, 1,048,576 of 1,073,741,824 are "
    "free: take a smaller model, batch or data set, or the CPU (--device cpu)"
)
INSUFFICIENT = standin.CUDARuntimeError(
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
)


@pytest.fixture(autouse=True)
def _device(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.chdir(tmp_path)


def refusing(error):
    def refuse(*args, **kwargs):
        raise error

    return refuse


def test_a_data_set_too_large_for_the_device_says_what_it_wants_and_what_is_free(rng, monkeypatch):
    images = rng.integers(0, 256, (50, 6), dtype=np.uint8)
    dataset = Dataset("drawn", images[:40], images[40:], None, None, 255.0, (2, 3))
    model = sv.VAE(6, hidden=(8,), latent_dim=2, rng=1, backend="cupy")
    optimizer = sv.Adam(model.params)
    monkeypatch.setattr(standin.cupy, "asarray", refusing(OUT_OF_MEMORY))
    with pytest.raises(sv.InputError) as raised:
        Trainer(model, optimizer, dataset)
    assert str(raised.value) == TOO_LITTLE


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OUT_OF_MEMORY, TOO_LITTLE),
        (INSUFFICIENT, "CUDA failed (cudaErrorInsufficientDriver: CUDA driver version is insuffi"),
        (standin.CompileException("line 1\nline 2"), "CUDA failed (line 1 line 2): see that CuPy"),
        (standin.CUDADriverError("CUDA_ERROR_INVALID_HANDLE: invalid"), "CUDA failed (CUDA_ERROR_"),
        (standin.CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"), "CUDA failed (CUBLAS_STATUS_ALLOC_F"),
        (standin.CURANDError("CURAND_STATUS_LAUNCH_FAILURE"), "CUDA failed (CURAND_STATUS_LAUNCH"),
        (standin.NVRTCError("NVRTC_ERROR_COMPILATION (6)"), "CUDA failed (NVRTC_ERROR_COMPILATION"),
    ],
)
def test_the_command_line_says_it_in_one_line_and_keeps_the_last_checkpoint(
    monkeypatch, capsys, error, says
):
    train = ["train", "--hidden", "8", "--out", "r", "--device", "cuda"]
    assert main([*train, "--epochs", "1"]) == 0
    before = Path("r/checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(sv.VAE, "loss_and_grad", refusing(error))
    assert main([*train, "--resume", "--epochs", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"scratchvae train: {says}")
    assert Path("r/checkpoint.safetensors").read_bytes() == before
    checkpoint.load("r/checkpoint.safetensors")


def test_other_errors_stay_what_they_are(monkeypatch):
    assert cuda_error(MemoryError()) is None
    monkeypatch.setattr(sv.VAE, "loss_and_grad", refusing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["train", "--hidden", "8", "--epochs", "1", "--device", "cuda"])
    monkeypatch.delitem(sys.modules, "cupy")
    assert cuda_error(OUT_OF_MEMORY) is None


def test_auto_says_that_it_took_the_gpu(capsys):
    assert main(["train", "--hidden", "8", "--epochs", "1", "--out", "r"]) == 0
    assert "float32 on CUDA (the stand-in); " in capsys.readouterr().out
    for device, says in (
        ("auto", "--device auto: running on CUDA (the stand-in)\n"),
        ("cuda", ""),
        ("cpu", ""),
    ):
        assert main(["sample", "r", "--out", "s.png", "--device", device]) == 0
        assert capsys.readouterr().err == says


class Foreign:
    """An array of another library, in the memory of the host or of a device."""

    def __init__(self, x, place=1, error=None):
        self.x, self.place, self.error = x, place, error

    def __dlpack_device__(self):
        return (self.place, 0)

    def __dlpack__(self, **how):
        if self.error is not None:
            raise self.error
        return self.x.__dlpack__(**how)


@pytest.mark.parametrize("place", [1, 3])  # the host's memory, and that which CUDA has pinned
@pytest.mark.parametrize("name", ["numpy", "cupy"])
def test_arrays_of_other_libraries_come_in_through_dlpack(rng, name, place):
    x = rng.uniform(size=(4, 6)).astype(np.float32)
    options = {"backend": get_backend(name, noise="host"), "rng": 5}
    models = [sv.VAE(6, hidden=(8,), latent_dim=2, **options) for _ in range(2)]
    with standin.counting() as count:
        found = models[0].loss_and_grad(Foreign(x, place))
    assert count.waits == 0
    assert float(found.loss) == float(models[1].loss_and_grad(x).loss)


@pytest.mark.parametrize("name", ["numpy", "cupy"])
def test_a_table_with_a_method_get_is_no_array_of_cupys(rng, name):
    """As a pandas frame has one, which looks a column up."""

    class Table:
        get, x = {}.get, rng.uniform(size=(4, 6))

        def __array__(self, dtype=None, copy=None):
            return self.x

    np.testing.assert_array_equal(asnumpy(get_backend(name).asarray(Table())), Table.x)
    np.testing.assert_array_equal(asnumpy(Table()), Table.x)


@pytest.mark.parametrize("shape", [(100,), (17, 6), (3, 40), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_a_large_array_goes_to_the_device_in_pieces(rng, monkeypatch, shape, dtype):
    """CuPy keeps as much pinned memory as the largest copy needs, rounded up to a power of two."""
    sent, asarray = [], standin.cupy.asarray

    def send(x, dtype=None):
        sent.append(x.nbytes)
        return asarray(x, dtype=dtype)

    monkeypatch.setattr(standin.cupy, "asarray", send)
    monkeypatch.setattr(backend, "PIECE", 160)
    x = rng.uniform(size=shape)
    found = get_backend("cupy").asarray(x, dtype=dtype)
    assert found.dtype == (dtype or x.dtype)
    np.testing.assert_array_equal(found.get(), x.astype(found.dtype))
    row = x[:1].nbytes
    assert max(sent) <= max(160, row)
    assert sum(sent) == x.nbytes


def test_pieces_are_small_beside_the_data_and_large_beside_a_batch():
    assert 2**20 <= backend.PIECE <= 2**26


def test_numbers_of_another_order_of_bytes_get_the_gpus(monkeypatch, rng):
    """CuPy converts what it copies, and believes what `empty` is asked for."""
    monkeypatch.setattr(backend, "PIECE", 160)
    x = rng.uniform(size=(30, 4)).astype(">f4")
    found = get_backend("cupy").asarray(x)
    assert found.dtype == np.dtype("float32")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found.get(), x)


def test_an_array_in_host_memory_is_shared_not_copied(rng):
    x = rng.uniform(size=(4, 6))
    assert np.shares_memory(get_backend("numpy").asarray(Foreign(x)), x)


@pytest.mark.parametrize(
    ("name", "place", "error", "expected"),
    [
        ("numpy", 1, BufferError("Can't export tensors that require gradient."), "of the host"),
        ("cupy", 1, TypeError("it is of type bfloat16"), "of the host or of the GPU"),
        ("numpy", 2, BufferError("Unsupported device in DLTensor."), "of the host"),
    ],
)
def test_what_cannot_come_in_is_one_sentence(rng, name, place, error, expected):
    with pytest.raises(sv.InputError) as raised:
        get_backend(name).asarray(Foreign(np.ones(3), place, error))
    message = str(raised.value)
    start = "an array of type test_device_refusals.Foreign cannot be taken over through DLPack ("
    assert message.startswith(start)
    assert message.endswith(f"): expected a plain array in the memory {expected}")
    assert f"({str(error).rstrip('.')})" in message


def test_complex_numbers_on_the_device_are_refused_as_others_are(rng):
    model = sv.VAE(6, (4,), 2, rng=1, backend="cupy")
    x = standin.cupy.asarray(rng.random((5, 6)) + 1j)
    with pytest.raises(sv.InputError, match=r"^found an array of complex128: expected real numb"):
        model.encode(x)
