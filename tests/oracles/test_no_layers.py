"""The benchmark's step without layers, which Numba compiles, is the step of the model."""

from pathlib import Path

import numpy as np
import pytest
from oracle import import_oracle

import scratchvae as sv

import_oracle("numba")
FOLDER = Path(__file__).resolve().parents[2] / "demos" / "benchmarks"


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden", [(7,), (7, 6)])
def test_it_has_the_loss_and_gradient_of_the_model(activation, hidden, rng, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import contestants

    case = contestants.Case((784, *hidden, 3), activation, 5, n=64)
    step = contestants.no_layers(case, np.float64)
    seed = int(rng.integers(2**32))
    model = sv.VAE(784, hidden, 3, activation=activation, dtype="float64", rng=seed)
    linear = [p for p in model.params.names if p.endswith("W")]
    for name, (w, b) in zip(linear, step.weights, strict=True):
        w[...], b[...] = model.params[name].value, model.params[f"{name[:-1]}b"].value
    x, eps = rng.random((5, 784)), rng.standard_normal((5, 3))
    loss = step.gradient(x, eps)
    # Sums of some hundred float64 numbers in another order.
    assert loss == pytest.approx(float(model.loss_and_grad(x, eps).loss), rel=1e-12)
    for name, (dw, db) in zip(linear, step.gradients, strict=True):
        for ours, its in (model.params[name], dw), (model.params[f"{name[:-1]}b"], db):
            np.testing.assert_allclose(its, ours.grad, rtol=1e-10, atol=1e-13)
    step(65)  # over the end of epochs, and what is done every 64 steps
