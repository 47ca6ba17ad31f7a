"""What the comparisons with PyTorch and JAX share: how to import them, and what to compare."""

import importlib
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import strategies as draws
from hypothesis import strategies as st

import scratchvae as sv
from scratchvae import free_bits, gaussian
from scratchvae import likelihoods as lik
from scratchvae.activations import ACTIVATIONS


def import_oracle(name):
    """Import a module to compare with, or skip; fail if SCRATCHVAE_REQUIRE_ORACLES is 1."""
    __tracebackhide__ = True  # so that pytest names the file that is skipped, and not this one
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name or os.environ.get("SCRATCHVAE_REQUIRE_ORACLES") == "1":
            raise
        pytest.skip(f"{name} is not installed: nothing to compare with", allow_module_level=True)


# ------------------------------------------------------------------------------- whole gradients

# The cases to parametrize with, so that every run sees each of them often; hypothesis draws the
# rest of a model's options.
LIKELIHOODS = ["bernoulli", "gaussian", "shared", "per-dimension"]
options = st.fixed_dictionaries(
    {
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "variance": st.floats(0.01, 10),
        "beta": st.sampled_from([0.0, 1.0]) | st.floats(0, 10),
    }
)


class Drawn(NamedTuple):
    """A float64 model, its options, and what to run it on."""

    model: sv.Autoencoder
    activation: str
    likelihood: str
    variance: float | str
    x: np.ndarray  # (B, D)
    eps: np.ndarray  # (B, Z)


def build(kind, likelihood, sizes, hidden, options, binary, seed):
    """Make a model and its data; `likelihood` is one of LIKELIHOODS, `sizes` is (D, Z, B)."""
    data_dim, latent_dim, n = sizes
    activation, variance, beta = (options[name] for name in ("activation", "variance", "beta"))
    if likelihood in ("shared", "per-dimension"):
        likelihood, variance = "gaussian", likelihood
    own = {"activation": activation, "likelihood": likelihood, "variance": variance}
    if kind is sv.VAE:
        own["beta"] = beta
    model = kind(data_dim, hidden, latent_dim, dtype="float64", rng=seed, **own)
    rng = np.random.default_rng([seed, 1])
    x, eps = rng.uniform(size=(n, data_dim)), rng.normal(size=(n, latent_dim))
    return Drawn(model, activation, likelihood, variance, np.round(x) if binary else x, eps)


def assert_equal_gradients(model, expected, rtol):
    """Compare block by block, so that no large block hides an error in a small one.

    Rounding is relative to a block's length, unless its summands cancel: hence the second summand,
    which is `rtol` of a block 1/10,000 as long as the whole gradient.
    """
    assert set(expected) == set(model.params.names)
    whole = np.sqrt(sum(np.sum(e**2) for e in expected.values()))
    for name, e in expected.items():
        error = np.linalg.norm(model.params[name].grad - e)
        assert error <= rtol * (np.linalg.norm(e) + 1e-4 * whole), name


# ------------------------------------------------------------- forward/backward pairs for checkers


class Pair(NamedTuple):
    """A forward and its backward in the form that other libraries' gradient checkers take."""

    vjp: Callable  # vjp(*args) -> (y, pull), where pull(dy) -> the gradient of each argument
    args: tuple[np.ndarray, ...]

    def with_one_entry_wrong(self, i):
        """Return this pair with 0.001 added to the first entry of the gradient of argument i."""

        def vjp(*args):
            y, pull = self.vjp(*args)

            def wrong(dy):
                grads = [np.array(g) for g in pull(dy)]
                grads[i].flat[0] += 1e-3
                return tuple(grads)

            return y, wrong

        return Pair(vjp, self.args)


def of_functions(forward, backward, args, data=(), noise=()):
    """A pair of functions; arguments without a gradient come first (data) or last (noise)."""

    def vjp(*args):
        y, cache = forward(*data, *args, *noise)

        def pull(dy):
            grads = backward(dy, cache)
            return grads if isinstance(grads, tuple) else (grads,)

        return y, pull

    return Pair(vjp, tuple(args))


def of_layer(layer, *inputs):
    """A layer as a function of its input, if it has one, and of its parameters."""
    parameters = [p for _, p in layer.named_parameters()]

    def vjp(*args):
        x, values = args[: len(inputs)], args[len(inputs) :]

        def write():
            for p, value in zip(parameters, values, strict=True):
                p.value[...], p.grad[...] = value, 0

        write()
        y, cache = layer.forward(*x)

        def pull(dy):
            write()  # other calls may have come in between, and a backward reads the parameters
            dx = layer.backward(dy, cache)
            return *((dx,) if inputs else ()), *(p.grad.copy() for p in parameters)

        return y, pull

    return Pair(vjp, (*inputs, *(p.value.copy() for p in parameters)))


class LossOf:
    """The losses (B,) of a model as a layer without input, whose parameters are the model's."""

    def __init__(self, case):
        self.model, self.x, self.eps = case.model, case.x, case.eps

    def named_parameters(self):
        return ((name, self.model.params[name]) for name in self.model.params.names)

    def forward(self):
        terms, cache = self.model.forward(self.x, self.eps)
        return terms.loss, cache

    def backward(self, dloss, cache):
        self.model.backward(dloss, cache)


def pairs(rng):
    """Yield (name, Pair) for every pair of functions, layer and kind of model, on new numbers.

    Sizes are small, because the checkers go through all entries in Python. ReLUs stay away from 0.
    """
    b, normal = (3, 4), rng.standard_normal
    for name, functions in ACTIVATIONS.items():
        yield name, of_functions(*functions, [draws.away_from_zero(2 * normal(b), 1e-3)])

    one, back = gaussian.reparameterize, gaussian.reparameterize_backward
    for label, shape in {"": b, " of 2 draws": (2, *b)}.items():
        args = [normal(b), normal(b)]
        yield f"reparameterize{label}", of_functions(one, back, args, noise=[normal(shape)])
    one, back = gaussian.kl_standard_normal, gaussian.kl_standard_normal_backward
    yield "kl_standard_normal", of_functions(one, back, [normal(b), normal(b)])
    one, back = free_bits.kl_free_bits, free_bits.kl_free_bits_backward
    # Each KL is 2 or more, or next to 0, and so far from the limit, where there is a kink.
    mu = (2 + abs(normal(b))) * rng.integers(0, 2, b)
    yield "kl_free_bits", of_functions(one, back, [mu, 0.1 * normal(b)], noise=[0.5])

    shapes = {"": b, " shared": (), " per dimension": (4,), " per row": (3, 1), " (1,)": (1,)}
    for label, shape in shapes.items():
        one, back = gaussian.log_density, gaussian.log_density_backward
        logvar = np.array(normal(shape))
        yield f"log_density{label}", of_functions(one, back, [normal(b), normal(b), logvar])
        one, back = lik.gaussian_nll, lik.gaussian_nll_backward
        yield f"gaussian_nll{label}", of_functions(one, back, [normal(b), logvar], [normal(b)])
    one, back = lik.bernoulli_nll, lik.bernoulli_nll_backward
    for label, x in {"": draws.bits(rng, b), " grey": rng.random(b)}.items():
        yield f"bernoulli_nll{label}", of_functions(one, back, [3 * normal(b)], [x])

    def linear(n_in, n_out):
        return sv.Linear(n_in, n_out, rng=rng, dtype="float64")

    yield "Linear", of_layer(linear(4, 5), normal(b))
    for name in ("relu", "silu"):
        stack = sv.Sequential([linear(4, 6), sv.Activation(name), linear(6, 2)])
        draws.clear_of_kinks(stack, x := normal(b))
        yield f"Sequential {name}", of_layer(stack, x)

    for kind, own in [
        (sv.VAE, {"activation": "relu"}),
        (sv.VAE, {"activation": "tanh", "beta": 0.0}),
        (sv.VAE, {"activation": "silu", "beta": 4.0, "hidden": (4, 3)}),
        (sv.VAE, {"activation": "softplus", "likelihood": "gaussian", "variance": 0.5}),
        (sv.VAE, {"activation": "sigmoid", "likelihood": "gaussian", "variance": "shared"}),
        (sv.VAE, {"activation": "tanh", "likelihood": "gaussian", "variance": "per-dimension"}),
        (sv.Autoencoder, {"activation": "relu"}),
        (sv.Autoencoder, {"activation": "silu", "likelihood": "gaussian", "variance": "shared"}),
    ]:
        case = draws.make_case(kind, 3, 5, 2, int(rng.integers(2**32)), **{"hidden": (4,), **own})
        yield " ".join([kind.__name__, *map(str, own.values())]), of_layer(LossOf(case))


PAIRS = [name for name, _ in pairs(np.random.default_rng())]
