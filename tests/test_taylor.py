"""The Taylor test: right gradients pass, wrong ones do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scratchvae import VAE, Linear
from scratchvae.gaussian import kl_standard_normal, kl_standard_normal_backward
from scratchvae.gradcheck import taylor


def wrong_kl_backward(dkl, cache):
    dmu, dlogvar = kl_standard_normal_backward(dkl, cache)
    return dmu, 0.9 * dlogvar


# Five steps apart by sqrt(10) fix the order to a few hundredths, unless the h^2 term happens to be
# tiny along v; then the order is 3 at large steps, and still above 1.9 at small ones.


def test_the_order_is_2_where_the_gradient_is_right(rng):
    result = taylor(kl_standard_normal, list(rng.standard_normal((2, 4, 3))), rng=rng)
    assert result.ok
    assert result.order > 1.9
    assert "The gradient is right: it falls like h^2." in str(result)


def test_the_order_is_1_where_it_is_wrong(rng):
    args = list(rng.standard_normal((2, 4, 3)))
    result = taylor(kl_standard_normal, wrong_kl_backward, args, rng=rng)
    assert not result.ok
    # At h < 1e-4 the h^2 term is below a thousandth of the other, unless that cancels along v.
    assert result.order == pytest.approx(1, abs=0.4)
    assert "The gradient is wrong: it falls like h only." in str(result)


def test_a_linear_function_leaves_no_remainder(rng):
    result = taylor(Linear(5, 3, dtype="float64"), [np.zeros((4, 5))], rng=rng)
    assert result.ok  # x W is of second order in both, so the remainder is h^2 u V
    result = taylor(lambda x: (3 * x, None), lambda dy, _: 3 * dy, [np.ones(4)], rng=rng)
    assert result.order == math.inf
    assert "the remainder is zero to rounding" in str(result)


def test_the_remainder_is_taylors(rng):
    """For f = x^2 it is h^2 v^2 exactly."""
    result = taylor(lambda x: (x * x, x), lambda dy, x: 2 * x * dy, [np.ones(1)], rng=rng)
    remainder, steps = np.array(result.remainder), np.array(result.steps)
    expected = remainder[0] * (steps / steps[0]) ** 2
    # Either side is off by rounding: it hides all steps where v is small, few of them elsewhere.
    np.testing.assert_allclose(remainder, expected, rtol=1e-9, atol=4 * result.rounding)


def test_a_model(rng):
    model = VAE(6, (5,), 2, activation="tanh", dtype="float64", rng=rng)
    x = rng.integers(0, 2, (4, 6)).astype(float)
    before = model.params.value.copy()
    assert taylor(model, (x,), rng=rng).order > 1.9
    assert taylor(model, (x, rng.standard_normal((4, 2))), rng=rng).order > 1.9
    np.testing.assert_array_equal(model.params.value, before)


def test_its_seed_repeats_it(rng):
    args = list(rng.standard_normal((2, 4, 3)))
    first = taylor(kl_standard_normal, args)
    assert taylor(kl_standard_normal, args, rng=first.seed) == first
    assert taylor(kl_standard_normal, args).seed != first.seed
