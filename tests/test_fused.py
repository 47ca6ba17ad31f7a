"""The usual VAE's gradient with its operations taken together: that of the page, or not at all."""

import sys

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import fused, kernels
from scratchvae.activations import ACTIVATIONS
from scratchvae.kernels import cuda
from scratchvae.layers import Activation, Linear, Sequential, dense
from scratchvae.parallel import in_parts

OWN = {"dtype": "float64"}


def a_batch(rng, n=9, d=6, z=3):
    return rng.uniform(size=(n, d)), rng.standard_normal((n, z))


@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("share", [None, 20])
def test_loss_and_gradient_are_those_of_the_page(rng, activation, hidden, share):
    """To 1e-13, some hundred roundings: sums over the batch are made in another order."""
    seed, beta = int(rng.integers(2**31)), float(rng.uniform(0.1, 2))
    options = {"activation": activation, "beta": beta, "rng": seed, **OWN}
    page, together = (sv.VAE(6, hidden, 3, **options) for _ in range(2))
    assert fused.is_usual(together)
    for _ in range(2):  # the gradient of the batch before is written over
        x, eps = a_batch(rng)
        expected = page.loss_and_grad(x, eps, share)
        found = fused.loss_and_grad(together, x, eps, share)
        np.testing.assert_allclose(found, expected, rtol=1e-13)
        for name in page.params.names:
            grad = page.params[name].grad
            atol = 1e-13 * np.abs(grad).max()
            np.testing.assert_allclose(together.params[name].grad, grad, rtol=0, atol=atol)


def test_the_noise_is_the_models_own(rng):
    seed, (x, _) = int(rng.integers(2**31)), a_batch(rng)
    page, together = (sv.VAE(6, (8,), 3, rng=seed, **OWN) for _ in range(2))
    found = fused.loss_and_grad(together, x)
    np.testing.assert_allclose(found, page.loss_and_grad(x), rtol=1e-13)


def test_what_the_page_refuses_is_refused(rng):
    model, (x, eps) = sv.VAE(6, (8,), 3, rng=1, **OWN), a_batch(rng)
    for wrong in (x[:, :5], eps), (x, eps[:4]), (x + 1, eps):
        with pytest.raises(sv.InputError):
            fused.loss_and_grad(model, *wrong)
    model.encoder = dense([6, 6], rng=1, dtype="float64")
    with pytest.raises(sv.InputError, match="a part of the model was changed"):
        fused.loss_and_grad(model, x, eps)


class OwnLinear(Linear):
    def forward(self, x):
        return super().forward(x)


class OwnLikelihood(sv.likelihoods.Bernoulli):
    def nll(self, x, output):
        return super().nll(x, output)


def with_own(name):
    """Return a model whose class has `name`, one of those that the file knows, of its own."""

    def own(self, *args, **named):
        return getattr(super(kind, self), name)(*args, **named)

    kind = type("Own", (sv.VAE,), {name: own})
    return kind(6, (8,), 3, rng=1, **OWN)


def with_layers(*layers):
    """Return a model with an encoder of these layers."""
    return sv.VAE(6, latent_dim=3, encoder=Sequential(layers), rng=1, **OWN)


def with_attribute():
    model = sv.VAE(6, (8,), 3, rng=1, **OWN)
    model.kl = sv.gaussian.kl_standard_normal.__wrapped__
    return model


def linear(n_in, n_out, kind=Linear):
    return kind(n_in, n_out, rng=1, dtype="float64")


OTHERS = {
    **{name: lambda name=name: with_own(name) for name in fused.VAES if name != "loss_and_grad"},
    "attribute": with_attribute,
    "autoencoder": lambda: sv.Autoencoder(6, (8,), 3, rng=1, **OWN),
    "iwae": lambda: sv.IWAE(6, (8,), 3, samples=2, rng=1, **OWN),
    "free bits": lambda: sv.VAE(6, (8,), 3, free_bits=0.1, rng=1, **OWN),
    "prior": lambda: sv.VAE(6, (8,), 3, prior="mixture", rng=1, **OWN),
    "gaussian": lambda: sv.VAE(6, (8,), 3, likelihood="gaussian", rng=1, **OWN),
    "likelihood": lambda: sv.VAE(6, (8,), 3, likelihood=OwnLikelihood(6), rng=1, **OWN),
    "linear": lambda: with_layers(linear(6, 6, OwnLinear)),
    "no activation": lambda: with_layers(linear(6, 4), linear(4, 6)),
    "activation at the end": lambda: with_layers(linear(6, 6), Activation("relu")),
    "a stack in a stack": lambda: with_layers(Sequential([linear(6, 6)])),
    "a lone layer": lambda: sv.VAE(6, latent_dim=3, encoder=linear(6, 6), rng=1, **OWN),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_model_goes_its_own_way(monkeypatch, rng, other):
    model, (x, eps) = OTHERS[other](), a_batch(rng)
    eps = rng.standard_normal(model.noise_shape(len(x)) or (0,))
    assert not fused.is_usual(model)
    expected = model.loss_and_grad(x, eps)
    grad = model.params.grad.copy()
    for name in ("code_and_kl", "bernoulli_nll_and_gradient"):
        monkeypatch.setattr(fused, name, None)  # what is not to be called
    assert fused.loss_and_grad(model, x, eps) == expected
    np.testing.assert_array_equal(model.params.grad, grad)


def test_a_method_of_ones_own_is_called(rng):
    """As in a subclass that wraps it."""
    calls, (x, eps) = [], a_batch(rng)

    class Own(sv.VAE):
        def loss_and_grad(self, x, eps=None):
            calls.append(len(x))
            return super().loss_and_grad(x, eps)

    fused.loss_and_grad(Own(6, (8,), 3, rng=1, **OWN), x, eps)
    assert calls == [9]


@pytest.mark.parametrize(
    ("backend", "module", "taken"),
    [("cupy", cuda, True), ("cupy", None, False), ("numpy", cuda, False)],
)
def test_the_trainer_takes_it_where_there_are_kernels_for_a_gpu(
    monkeypatch, backend, module, taken
):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    model = sv.VAE(6, (8,), 3, rng=1, backend=backend)
    monkeypatch.setattr(standin.cupy, "ndarray", standin.DeviceArray)
    monkeypatch.setattr(kernels, "_cuda", lambda: module)
    with in_parts(model, 128) as step:
        assert (getattr(step, "func", None) is fused.loss_and_grad) == taken
