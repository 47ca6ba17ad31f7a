"""Loss, gradients and training against PyTorch's autograd, distributions and optimizers.

The PyTorch side is written from the definitions and shares nothing with the package but the
numbers: weights, data and noise.
"""

import importlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scratchvae as sv


def import_oracle(name):
    """Import a module to compare with, or skip; fail if SCRATCHVAE_REQUIRE_ORACLES is 1."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name or os.environ.get("SCRATCHVAE_REQUIRE_ORACLES") == "1":
            raise
        pytest.skip(f"{name} is not installed: nothing to compare with", allow_module_level=True)


torch = import_oracle("torch")
torch.set_num_threads(1)  # the cases are small, and a second pool of threads would only spin

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),  # theirs is linear above 20
    "silu": torch.nn.functional.silu,
}


class TorchModel:
    """The same model for autograd, starting from the same weights in float64."""

    def __init__(self, model, activation, likelihood, variance):
        self.activation = ACTIVATIONS[activation]
        self.likelihood, self.variance = likelihood, variance
        self.variational = isinstance(model, sv.VAE)
        self.beta = model.beta if self.variational else 0.0
        self.weights = {
            name: torch.tensor(model.params[name].value, dtype=torch.float64, requires_grad=True)
            for name in model.params.names
        }

    def stack(self, part, x):
        numbers = sorted({int(name.split(".")[1]) for name in self.weights if part in name})
        for i in numbers:
            if i > 0:
                x = self.activation(x)
            x = x @ self.weights[f"{part}.{i}.W"] + self.weights[f"{part}.{i}.b"]
        return x

    def log_likelihood(self, x, output):
        if self.likelihood == "bernoulli":
            if torch.all((x == 0) | (x == 1)):
                return torch.distributions.Bernoulli(logits=output).log_prob(x)
            return -torch.nn.functional.binary_cross_entropy_with_logits(
                output, x, reduction="none"
            )
        if self.variance == "per-dimension":
            output, logvar = output.chunk(2, dim=1)
            sigma = (logvar / 2).exp()
        elif self.variance == "shared":
            sigma = self.weights["likelihood.logvar"].exp().sqrt()
        else:
            sigma = torch.tensor(self.variance, dtype=torch.float64).sqrt()
        return torch.distributions.Normal(output, sigma).log_prob(x)

    def terms(self, x, eps):
        """Return loss, reconstruction and KL, and leave the gradients in the weights."""
        x, eps = (torch.tensor(a, dtype=torch.float64) for a in (x, eps))
        code, kl = self.stack("encoder", x), torch.zeros(())
        if self.variational:
            mu, logvar = code.chunk(2, dim=1)
            q = torch.distributions.Normal(mu, logvar.exp().sqrt())
            prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
            kl = torch.distributions.kl_divergence(q, prior).sum(dim=1).mean()
            code = q.loc + q.scale * eps
        output = self.stack("decoder", code)
        reconstruction = -self.log_likelihood(x, output).sum(dim=1).mean()
        loss = reconstruction + self.beta * kl
        for weight in self.weights.values():
            weight.grad = None
        loss.backward()
        return [term.item() for term in (loss, reconstruction, kl)]


def assert_equal_gradients(model, reference, rtol):
    """Compare block by block, so that no large block hides an error in a small one.

    Rounding is relative to a block's length, unless its summands cancel: hence the second summand,
    which is `rtol` of a block 1/10,000 as long as the whole gradient.
    """
    expected = {name: weight.grad.numpy() for name, weight in reference.weights.items()}
    whole = np.sqrt(sum(np.sum(e**2) for e in expected.values()))
    for name, e in expected.items():
        error = np.linalg.norm(model.params[name].grad - e)
        assert error <= rtol * (np.linalg.norm(e) + 1e-4 * whole), name


# Parametrized, so that every run sees each of them often; hypothesis draws the rest.
@pytest.mark.proves("negative-elbo", "two-paths", "batch-mean")
@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "shared", "per-dimension"])
@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 7)),
    hidden=st.lists(st.integers(1, 8), max_size=3),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    variance=st.floats(0.01, 10),
    beta=st.sampled_from([0.0, 1.0]) | st.floats(0, 10),
    binary=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_loss_and_gradients_are_autograds(
    kind, likelihood, sizes, hidden, activation, variance, beta, binary, seed
):
    data_dim, latent_dim, n = sizes
    if likelihood in ("shared", "per-dimension"):
        likelihood, variance = "gaussian", likelihood
    options = {"activation": activation, "likelihood": likelihood, "variance": variance}
    if kind is sv.VAE:
        options["beta"] = beta
    model = kind(data_dim, hidden, latent_dim, dtype="float64", rng=seed, **options)
    rng = np.random.default_rng([seed, 1])
    x, eps = rng.uniform(size=(n, data_dim)), rng.normal(size=(n, latent_dim))
    if binary:
        x = np.round(x)
    reference = TorchModel(model, activation, likelihood, variance)
    expected = reference.terms(x, eps)
    # Both sides round to 1e-16 some thousand times at most and no sum has more than 20 terms: well
    # below 1e-12, so 1e-10 leaves two digits, and a wrong formula is wrong in the first or second.
    assert model.loss_and_grad(x, eps) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert_equal_gradients(model, reference, rtol=1e-10)


def test_float32_gradients_are_autograds_of_float64(rng):
    # tanh: a ReLU may switch where the two precisions differ in the sign of an input near 0.
    model = sv.VAE(64, (32,), 8, activation="tanh", rng=rng)
    x, eps = (rng.uniform(size=(16, k)).astype("float32") for k in (64, 8))
    reference = TorchModel(model, "tanh", "bernoulli", 1.0)
    expected = reference.terms(x, eps)
    # Four sums of up to 64 terms forward and four backward, a rounding of 6e-8 each: at most 3e-5
    # if all had one sign. Biases cancel by up to a factor of 10, which is left for them.
    assert model.loss_and_grad(x, eps) == pytest.approx(expected, rel=3e-5)
    assert_equal_gradients(model, reference, rtol=3e-4)


@pytest.mark.proves("sgd", "adam-bias", "adam-moments", "adam-step")
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (sv.Adam, torch.optim.Adam, {"lr": 1e-2}),
        (sv.Adam, torch.optim.Adam, {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-4}),
        (sv.SGD, torch.optim.SGD, {"lr": 1e-2}),
        (sv.SGD, torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    ],
)
def test_ten_training_steps_are_torchs(rng, ours, theirs, options):
    kind = {"likelihood": "gaussian", "variance": "shared", "beta": 0.5}
    model = sv.VAE(12, (10,), 3, dtype="float64", rng=rng, **kind)
    reference = TorchModel(model, "relu", "gaussian", "shared")
    optimizer = ours(model.params, **options)
    their_optimizer = theirs(reference.weights.values(), **options)
    for _ in range(10):
        x, eps = rng.uniform(size=(8, 12)), rng.normal(size=(8, 3))
        expected = reference.terms(x, eps)
        # Adam divides by a root that may be as small as its eps, 1e-8, and so may turn a gradient's
        # rounding of 1e-17 into 1e-9 of a rate of 1e-2, ten times over.
        assert model.loss_and_grad(x, eps) == pytest.approx(expected, rel=1e-10)
        optimizer.step()
        their_optimizer.step()
        for name, weight in reference.weights.items():
            error = np.abs(model.params[name].value - weight.detach().numpy()).max()
            assert error < 1e-10, name
