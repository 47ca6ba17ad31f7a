"""The cupy backend on a stand-in: the same code, and nothing in it that needs host memory."""

import itertools
import json
import sys

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import checkpoint, gradcheck
from scratchvae.backend import asnumpy, get_backend
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


def computed(f, args):
    """Return what a pair, a layer or a model gives on its backend, and all its gradients."""
    if hasattr(f, "loss_and_grad"):
        return [*f.loss_and_grad(*args), f.params.grad]
    owner = not callable(f)
    y, cache = f.forward(*args) if owner else f(*args)
    backward = f.backward if owner else getattr(sys.modules[f.__module__], f"{f.__name__}_backward")
    dx = backward(1 + 0 * y, cache)
    parameters = [p.grad for _, p in f.named_parameters()] if hasattr(f, "named_parameters") else []
    return [y, *(dx if isinstance(dx, tuple) else [dx]), *parameters]


def test_every_gradient_is_right_there_too(rng):
    """The host's are checked elsewhere; the stand-in computes as NumPy does, so bit by bit."""
    names, seed = [], int(rng.integers(2**32))
    cases = sys.modules["scratchvae.gradcheck.suite"]._cases
    both = [cases(get_backend(b), np.random.default_rng(seed)) for b in ("numpy", "cupy")]
    for (name, f, args), (_, on_device, device_args) in zip(*both, strict=True):
        names.append(name)
        found, expected = computed(on_device, device_args), computed(f, args)
        assert len(found) == len(expected) > 1
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(asnumpy(one), asnumpy(other), err_msg=name)
    assert len(names) == 50


def test_gradients_are_checked_there_too():
    reports = gradcheck.suite("cupy")
    checked = {r.name: r for r in itertools.islice(reports, 25)}
    for name in "tanh", "reparameterize, K samples", "Linear", "Conv2D", "VAE bernoulli relu":
        assert checked[name].ok, checked[name].message


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
