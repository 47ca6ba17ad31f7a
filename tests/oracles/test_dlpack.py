"""Arrays of PyTorch and JAX come in, and NumPy's go out to them, without a copy on the way."""

import numpy as np
import pytest
from oracle import import_oracle

import scratchvae as sv
from scratchvae.backend import get_backend

torch = import_oracle("torch")
jax = import_oracle("jax")


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_a_model_takes_the_arrays_of_another_library(rng, library):
    x = rng.uniform(size=(5, 6)).astype(np.float32)
    eps = rng.standard_normal((5, 2)).astype(np.float32)
    foreign = {"torch": torch.from_numpy, "jax": jax.numpy.asarray}[library]
    model = sv.VAE(6, hidden=(4,), latent_dim=2, rng=1)
    expected = float(model.loss_and_grad(x, eps).loss)
    assert float(model.loss_and_grad(foreign(x), foreign(eps)).loss) == expected
    np.testing.assert_array_equal(model.reconstruct(foreign(x)), model.reconstruct(x))


def test_a_tensor_on_the_cpu_is_shared_and_so_is_what_goes_out(rng):
    tensor = torch.from_numpy(rng.uniform(size=(5, 6)))
    taken = get_backend("numpy").asarray(tensor)
    tensor[0, 0] = 7
    assert taken[0, 0] == 7
    model = sv.VAE(6, hidden=(4,), latent_dim=2, rng=1)
    params = torch.from_dlpack(model.params.value)
    model.params.value[0] = 3
    assert float(params[0]) == 3


def test_a_tensor_that_requires_a_gradient_is_refused_in_one_sentence():
    model = sv.VAE(6, hidden=(4,), latent_dim=2, rng=1)
    with pytest.raises(sv.InputError) as raised:
        model.encode(torch.ones(5, 6, requires_grad=True))
    message = str(raised.value)
    assert "torch.Tensor cannot be taken over through DLPack" in message
    assert "gradient" in message
    assert "detach" in message
    assert "\n" not in message


def test_a_tensor_without_data_is_refused_in_one_sentence():
    with pytest.raises(sv.InputError, match=r"torch\.Tensor cannot be taken over through DLPack"):
        get_backend("numpy").asarray(torch.empty(2, device="meta"))


def test_tensors_serve_as_data_and_labels(rng):
    x, y = rng.uniform(size=(20, 6)).astype(np.float32), rng.integers(0, 3, 20)
    given = sv.datasets.Dataset.from_arrays(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_array_equal(given.train, x[:18])
    np.testing.assert_array_equal(given.test_labels, y[18:])
    model = sv.ConditionalVAE(6, (4,), 2, classes=3, rng=1)
    mu, _ = model.encode(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_array_equal(mu, model.encode(x, y)[0])
    plain = sv.VAE(6, (4,), 2, rng=1)
    assert sv.Trainer(plain, sv.Adam(plain.params), torch.from_numpy(x)).dataset.data_dim == 6


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(20, 6, requires_grad=True),
        lambda: torch.empty(20, 6, device="meta"),
        lambda: torch.ones(20, 6).bfloat16(),
    ],
)
def test_data_that_cannot_be_taken_over_are_refused_in_one_sentence(make):
    model = sv.VAE(6, (4,), 2, rng=1)
    conditional = sv.ConditionalVAE(6, (4,), 2, classes=3, rng=1)
    for use in (
        lambda: sv.datasets.Dataset.from_arrays(make()),
        lambda: sv.datasets.Dataset.from_arrays(np.ones((20, 6)), test=make()),
        lambda: sv.datasets.Dataset.from_arrays(np.ones((20, 6)), make()),
        lambda: sv.Trainer(model, sv.Adam(model.params), make()),
        lambda: conditional.encode(np.ones((20, 6)), make()),
    ):
        with pytest.raises(sv.InputError) as raised:
            use()
        assert "torch.Tensor cannot be taken over through DLPack" in str(raised.value)
        assert "\n" not in str(raised.value)
