"""The activations' values and derivatives, to units in the last place, in both dtypes."""

import inspect
import math

import numpy as np
import pytest
from scipy import special

from scratchvae import activations
from scratchvae.activations import ACTIVATIONS

DTYPES = ["float32", "float64"]


def expit(x):
    # SciPy's returns 0 where the result is subnormal; below -50 it is exp(x) to within 1e-21.
    tiny = np.array([math.exp(v) for v in np.minimum(x, -50)])
    return np.where(x < -50, tiny, special.expit(x))


# What SciPy, or another formula, gives for the value and for the derivative.
REFERENCES = {
    "relu": (lambda x: np.where(x > 0, x, 0), lambda x: (x > 0).astype(float)),
    "tanh": (
        lambda x: np.array([math.tanh(v) for v in x]),
        lambda x: 4 * expit(2 * x) * expit(-2 * x),
    ),
    "sigmoid": (expit, lambda x: expit(x) * expit(-x)),
    "softplus": (lambda x: np.logaddexp(0, x), expit),
    "silu": (lambda x: x * expit(x), lambda x: expit(x) * (1 + x * expit(-x))),
    "elu": (
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.exp(np.minimum(x, 0)),
    ),
}


def inputs(rng, dtype):
    """Numbers of every size, among them those whose exp is subnormal, and both extremes."""
    special_ones = [0, -0.0, 1e4, -1e4, -88, -95, -103, -104, -709, -720, -744, -745, -750, 710]
    sizes = 10.0 ** rng.uniform(-8, 2.9, 2000)
    signs = rng.choice([-1.0, 1.0], 2000)
    return np.concatenate([special_ones, rng.uniform(-20, 20, 2000), signs * sizes]).astype(dtype)


def test_every_pair_is_in_the_table():
    """Then the models know it by its name, and all that is said of activations is tested of it."""
    functions = {name for name, f in vars(activations).items() if inspect.isfunction(f)}
    for name in sorted(name for name in functions if f"{name}_backward" in functions):
        pair = getattr(activations, name), getattr(activations, f"{name}_backward")
        assert ACTIVATIONS.get(name) == pair, (
            f'enter "{name}": ({name}, {name}_backward) in ACTIVATIONS of activations.py'
        )


def test_every_activation_has_a_reference():
    missing = set(ACTIVATIONS) - set(REFERENCES)
    assert not missing, (
        f"enter value and derivative of {', '.join(sorted(missing))} in REFERENCES of "
        "tests/test_activations.py, by a library or by another formula than the package's"
    )
    assert set(REFERENCES) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.proves(n)) for n in ACTIVATIONS]
)
def test_values_are_right_to_a_few_units_in_the_last_place(rng, name, dtype):
    x = inputs(rng, dtype)
    y, _ = ACTIVATIONS[name][0](x)
    expected = REFERENCES[name][0](x.astype(np.float64))
    assert y.dtype == dtype
    # NumPy's exp, log1p and tanh are each good to 2 units in the last place or better, and no
    # formula here takes more than three roundings besides.
    unit = np.spacing(np.abs(expected).astype(dtype)).astype(np.float64)
    if name == "silu":  # x times a sigmoid whose own last unit may be that of a subnormal number
        unit += np.abs(x) * np.spacing(expit(x.astype(np.float64)).astype(dtype))
    assert np.all(np.abs(y - expected) <= 5 * unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.proves(f"{n}-grad")) for n in ACTIVATIONS]
)
def test_derivatives_are_right_to_a_few_units_of_1(rng, name, dtype):
    forward, backward = ACTIVATIONS[name]
    x, dy = inputs(rng, dtype), np.asarray(3, dtype)
    dx = backward(np.broadcast_to(dy, x.shape), forward(x)[1])
    assert dx.dtype == dtype
    # Written in the output, as 1 - y^2, a derivative has an absolute error of some units of 1's
    # last place. In silu's, x, here up to 20 where the rest is not nothing, multiplies it.
    tolerance = 3 * (100 if name == "silu" else 5) * np.finfo(dtype).eps
    assert np.all(np.abs(dx - 3 * REFERENCES[name][1](x.astype(np.float64))) <= tolerance)


def test_relu_has_derivative_0_at_0():
    forward, backward = ACTIVATIONS["relu"]
    x = np.array([-0.0, 0.0, 5e-324, -5e-324])
    y, cache = forward(x)
    assert np.array_equal(y, [0, 0, 5e-324, 0])
    assert np.array_equal(backward(np.ones(4), cache), [0, 0, 1, 0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_argument_is_changed(rng, name):
    forward, backward = ACTIVATIONS[name]
    x, dy = rng.normal(size=(2, 4, 3))
    x.setflags(write=False)  # whoever writes into it raises ValueError
    dy.setflags(write=False)
    y, cache = forward(x)
    assert y.shape == x.shape
    first = backward(dy, cache)
    assert np.array_equal(first, backward(dy, cache))  # so it may be called twice
