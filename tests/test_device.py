"""The cupy backend on a stand-in: the same code, and nothing in it that needs host memory."""

import json
import sys

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import checkpoint, gradcheck
from scratchvae.backend import get_backend
from scratchvae.cli import main


@pytest.fixture(autouse=True)
def _device(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.chdir(tmp_path)


def test_the_stand_in_is_strict():
    device, host = standin.cupy.asarray([1.0, 2.0]), np.ones(2)
    for mix in (
        lambda: device + host,
        lambda: host + device,
        lambda: device.__iadd__(host),
        lambda: device[np.array([0])],
        lambda: standin.cupy.exp(host),
        lambda: np.asarray(device),
    ):
        with pytest.raises(TypeError):
            mix()


def test_every_gradient_is_right_there_too():
    for report in gradcheck.suite("cupy"):
        assert report.ok, report.message


def test_models_on_both_backends_live_side_by_side(rng):
    seed, x = int(rng.integers(2**31)), rng.uniform(size=(5, 6))
    host, device = (
        sv.VAE(6, hidden=(4,), latent_dim=2, rng=seed, backend=get_backend(b, noise="host"))
        for b in ("numpy", "cupy")
    )
    assert float(host.loss_and_grad(x).loss) == float(device.loss_and_grad(x).loss)
    np.testing.assert_array_equal(device.params.grad.get(), host.params.grad)


OPTIONS = [
    ["--binarize", "dynamic"],
    ["--model", "ae"],
    ["--likelihood", "gaussian", "--variance", "shared", "--optimizer", "sgd", "--lr", "1e-4"],
    ["--likelihood", "gaussian", "--variance", "per-dimension", "--latent", "3"],
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_is_the_same_on_both_and_goes_on_on_the_other(options):
    """With noise drawn on the host, and the stand-in computes as NumPy does: bit by bit."""
    quick = ["train", "--hidden", "8", "--noise", "host", *options]
    assert main([*quick, "--epochs", "2", "--device", "cpu", "--out", "host"]) == 0
    assert main([*quick, "--epochs", "1", "--device", "cuda", "--out", "moved"]) == 0
    resume = ["train", "--resume", "--epochs", "2", "--out", "moved"]
    assert main([*resume, "--device", "cuda"]) == 0
    host, moved = (checkpoint.load(f"{f}/checkpoint.safetensors")[0] for f in ("host", "moved"))
    for name, a in host.items():
        np.testing.assert_array_equal(moved[name], a)
    assert main(["train", "--resume", "--epochs", "3", "--out", "moved", "--device", "cpu"]) == 0


def test_evaluate_and_sample_there(capsys):
    quick = ["train", "--hidden", "8", "--epochs", "1", "--noise", "host"]
    assert main([*quick, "--device", "cpu", "--out", "r"]) == 0
    found = []
    for device in ("cpu", "cuda"):
        capsys.readouterr()
        argv = ["evaluate", "r", "--nll-samples", "7", "--json", "--device", device]
        assert main(argv) == 0
        found.append(json.loads(capsys.readouterr().out))
        assert main(["sample", "r", "--out", f"{device}.png", "--device", device]) == 0
    assert found[0] == found[1]
