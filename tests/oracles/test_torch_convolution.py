"""Convolutions against PyTorch's, at drawn geometries: their values and autograd's gradients."""

from pathlib import Path

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from oracle import assert_equal_gradients, import_oracle

import scratchvae as sv

torch = import_oracle("torch")
torch.set_num_threads(1)  # the cases are small
F = torch.nn.functional


def leaf(a):
    return torch.tensor(a, dtype=torch.float64, requires_grad=True)


def assert_same(layer, x, convolve, rng):
    """Compare the output and the gradients of x, W and b with those of PyTorch's function."""
    leaves = [leaf(a) for a in (x, layer.W.value, layer.b.value)]
    expected = convolve(*leaves)
    y, cache = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(dy))
    dx = layer.backward(dy, cache)
    found = y, dx, layer.W.grad, layer.b.grad
    for a, tensor in zip(found, (expected.detach(), *(t.grad for t in leaves)), strict=True):
        # Sums of less than 2,000 numbers of size 1: their rounding is below 1e-12.
        np.testing.assert_allclose(a, tensor.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.proves("conv", "conv-size", "patches", "conv-grad-W", "conv-grad-b", "conv-grad-x")
@settings(max_examples=80)
@given(geometry=draws.geometries(), rng=draws.generators())
def test_a_convolution_is_torchs(geometry, rng):
    kernel, stride, padding = geometry.windows
    channels = geometry.large[0], geometry.small[0]
    layer = sv.Conv2D(*channels, kernel, stride, padding, rng=rng, dtype="float64")
    x = rng.standard_normal((geometry.b, *geometry.large))
    assert_same(layer, x, lambda x, W, b: F.conv2d(x, W, b, stride, padding), rng)


@pytest.mark.proves("conv-transpose", "conv-transpose-size", "conv-transpose-grad-x")
@pytest.mark.proves("patches-grad", "conv-grad-W")
@settings(max_examples=80)
@given(geometry=draws.geometries(), rng=draws.generators())
def test_a_transposed_convolution_is_torchs(geometry, rng):
    kernel, stride, padding = geometry.windows
    more, channels = geometry.output_padding, (geometry.small[0], geometry.large[0])
    layer = sv.ConvTranspose2D(*channels, kernel, stride, padding, more, rng=rng, dtype="float64")
    x = rng.standard_normal((geometry.b, *geometry.small))
    assert_same(layer, x, lambda x, W, b: F.conv_transpose2d(x, W, b, stride, padding, more), rng)


@pytest.mark.parametrize("ours", [sv.Conv2D, sv.ConvTranspose2D])
def test_initial_parameters_are_as_large_as_torchs(ours):
    theirs = {"Conv2D": torch.nn.Conv2d, "ConvTranspose2D": torch.nn.ConvTranspose2d}
    torch.manual_seed(0)
    layer, reference = ours(40, 50, (3, 4), rng=0), theirs[ours.__name__](40, 50, (3, 4))
    assert layer.W.shape == tuple(reference.weight.shape)
    # The largest of 24,000 uniform numbers is within 1e-3 of the bound; of 50 within a fifth.
    for a, tensor, near in (layer.W, reference.weight, 1e-3), (layer.b, reference.bias, 0.2):
        assert np.abs(a.value).max() == pytest.approx(tensor.abs().max().item(), rel=near)


def test_the_network_is_torchs(rng):
    """Loss and every gradient of the network of `--network conv`, tanh instead of relu."""
    model = sv.VAE(
        160, (3, 4), 2, network="conv", image_shape=(8, 20), activation="tanh",
        dtype="float64", rng=rng,
    )  # fmt: skip
    weights = {name: leaf(model.params[name].value) for name in model.params.names}

    def part(name, kind, i, x):
        W, b = (weights[f"{name}.{i}.{p}"] for p in "Wb")
        return kind(x, W, b)

    def linear(x, W, b):
        return x @ W + b

    def conv(x, W, b):
        return F.conv2d(x, W, b, 2, 1)

    def grow(x, W, b):
        return F.conv_transpose2d(x, W, b, 2, 1, 1)

    x, eps = rng.random((5, 160)), rng.standard_normal((5, 2))
    h = torch.tensor(x).reshape(5, 1, 8, 20)
    h = torch.tanh(part("encoder", conv, 1, h))
    h = torch.tanh(part("encoder", conv, 3, h))
    mu, logvar = part("encoder", linear, 6, h.flatten(1)).chunk(2, dim=1)
    h = torch.tanh(part("decoder", linear, 0, mu + (logvar / 2).exp() * torch.tensor(eps)))
    h = torch.tanh(part("decoder", grow, 3, h.reshape(5, 4, 2, -1)))
    logits = part("decoder", grow, 5, h).flatten(1)
    nll = F.binary_cross_entropy_with_logits(logits, torch.tensor(x), reduction="sum")
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
    loss = (nll + kl) / 5
    loss.backward()
    assert model.loss_and_grad(x, eps).loss == pytest.approx(loss.item(), rel=1e-10)
    gradients = {name: weight.grad.numpy() for name, weight in weights.items()}
    assert_equal_gradients(model, gradients, rtol=1e-10)


def test_the_benchmark_trains_its_network_of_convolutions(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "demos" / "benchmarks")
    import contestants

    case = contestants.Case((784, 2, 3, 3), "relu", 8, n=64, network="conv")
    contestants.torch_example(case)(2)
