"""The checker names the cause: wrong backward passes, each with the sentence that it must get.

Every wrong backward stands beside the right one, which passes; so nothing but the planted error can
be what the sentence speaks of.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from scratchvae import VAE, InputError, Linear
from scratchvae.activations import tanh, tanh_backward
from scratchvae.gaussian import (
    kl_standard_normal,
    kl_standard_normal_backward,
    reparameterize,
    reparameterize_backward,
)
from scratchvae.gradcheck import STEP, GradientError, check, check_model

B, D = 4, 5


def verdict_on(f, backward, args, **options):
    """Return the report of a check that must fail."""
    pair = (f,) if backward is None else (f, backward)
    with pytest.raises(GradientError) as caught:
        check(*pair, args, **options)
    assert caught.value.report.message == str(caught.value)
    return caught.value.report


def cube(x):
    return x**3, x


def cube_backward(dy, x):
    return 3 * x**2 * dy


def shift(x, b):
    """Add one vector b to every row of x."""
    return x + b, None


def shift_backward(dy, _):
    return dy, dy.sum(axis=0)


def product(a, w):
    return a @ w, (a, w)


def product_backward(dy, cache):
    a, w = cache
    return dy @ w.T, a.T @ dy


def spread(sigma):
    """Give the entropy of N(., sigma^2), but for a constant, written in sigma."""
    return np.log(sigma) + 0.1 * sigma, sigma


def spread_backward(dy, sigma):
    return dy * (1 / sigma + 0.1)


def half_square(x):
    """Half the squared length of each row: (B, D) -> (B,)."""
    return 0.5 * (x * x).sum(axis=1), x


def half_square_backward(dy, x):
    return dy[:, None] * x


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, y


def softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(axis=1, keepdims=True))


def leaky(x):
    return np.where(x > 0, x, 0.1 * x), x


def leaky_backward(dy, x):
    return dy * np.where(x > 0, 1, 0.1)


def kl_of_sigma_backward(dkl, cache):
    """Give the gradient in sigma, sigma - 1/sigma, for that in logvar."""
    mu, logvar = cache
    sigma = np.exp(logvar / 2)
    return dkl[:, None] * mu, dkl[:, None] * (sigma - 1 / sigma)


def kl_of_variance_backward(dkl, cache):
    dmu, dlogvar = kl_standard_normal_backward(dkl, cache)
    return dmu, dlogvar * np.exp(-cache[1])


def kl_chained_twice_backward(dkl, cache):
    dmu, dlogvar = kl_standard_normal_backward(dkl, cache)
    return dmu, dlogvar * np.exp(cache[1] / 2) / 2


def scaled(backward, factor):
    """Multiply the last gradient that a backward gives."""

    def wrong(dy, cache):
        given = backward(dy, cache)
        if isinstance(given, tuple):
            return *given[:-1], given[-1] * factor
        return given * factor

    return wrong


def on_last(backward, change):
    """Change the last gradient that a backward gives."""

    def wrong(dy, cache):
        given = backward(dy, cache)
        return (*given[:-1], change(given[-1])) if isinstance(given, tuple) else change(given)

    return wrong


def with_entry(dx, index, value):
    dx = dx.copy()
    dx[index] = value
    return dx


def normal(*shapes):
    return lambda rng: [rng.standard_normal(shape) for shape in shapes]


def positive(*shape):
    return lambda rng: [rng.uniform(0.5, 2, shape)]


def off_zero(rng):
    """Draw x of both signs, clear of a kink at 0."""
    signs = np.where(rng.permutation(B * D).reshape(B, D) % 3 == 0, -1.0, 1.0)
    return [signs * rng.uniform(0.1, 1, (B, D))]


def few_beyond_1(rng):
    """Draw x with a quarter of the entries farther than 1 from 0."""
    sizes = np.concatenate([rng.uniform(1.1, 2, B * D // 4), rng.uniform(0, 0.9, B * D * 3 // 4)])
    return [rng.permutation(sizes * rng.choice([-1, 1], B * D)).reshape(B, D)]


x_only, kl_args, square = normal((B, D)), normal((B, D), (B, D)), normal((3, 3), (3, 3))
kl, kl_backward = kl_standard_normal, kl_standard_normal_backward

WRONG = {
    # name: (forward, right backward, wrong backward, arguments, cause, words of the sentence)
    "sign": (cube, cube_backward, scaled(cube_backward, -1), x_only, "sign", "Its sign is wrong"),
    "zero": (cube, cube_backward, scaled(cube_backward, 0), x_only, "zero", "is zero everywhere"),
    "dropped half": (
        *(kl, kl_backward, scaled(kl_backward, 2), kl_args),
        *("factor", "2 times .* a factor 1/2 is missing"),
    ),
    "half too many": (
        *(cube, cube_backward, scaled(cube_backward, 0.5), x_only),
        *("factor", "0.5 times .* there is a factor 1/2 too many"),
    ),
    "mean over the batch missing": (
        *(half_square, half_square_backward, scaled(half_square_backward, B), x_only),
        *("factor", "4 times .* 4 is the size of the batch, so a mean over it is missing"),
    ),
    "mean over the batch twice": (
        *(half_square, half_square_backward, scaled(half_square_backward, 1 / B), x_only),
        *("factor", "0.25 times .* 1 / 4 where 4 is the size of the batch, so a mean over it is"),
    ),
    "mean over the dimensions missing": (
        *(half_square, half_square_backward, scaled(half_square_backward, D), x_only),
        *("factor", "5 times .* 5 is the length of x's last axis, so a mean over it is missing"),
    ),
    "mean over the dimensions": (
        *(half_square, half_square_backward, scaled(half_square_backward, 1 / D), x_only),
        *("factor", "0.2 times .* 1 / 5 where 5 is the length of x's last axis"),
    ),
    "mean over both": (
        *(half_square, half_square_backward, scaled(half_square_backward, 1 / B / D), x_only),
        *(
            "factor",
            "0.05 times .* 1 / 20 where 20 is the size of the batch times the length of x's last",
        ),
    ),
    "some factor": (
        *(cube, cube_backward, scaled(cube_backward, 1.7), x_only),
        *("factor", "1.7 times the right one in every coordinate looked at.$"),
    ),
    "mean in place of the sum over a broadcast axis": (
        *(shift, shift_backward, scaled(shift_backward, 1 / B), normal((B, D), D)),
        *("factor", "1 / 4 where 4 is the size of the batch"),
    ),
    "transposed": (
        *(product, product_backward, on_last(product_backward, np.transpose), square),
        *("transposed", "It is the right one transposed"),
    ),
    "transposed, not square": (
        *(product, product_backward, on_last(product_backward, np.transpose)),
        *(normal((B, D), (D, 3)), "right numbers in another shape"),
        r"has shape \(3, 5\): expected \(5, 3\).*\n.*the right one transposed",
    ),
    "a transpose missing inside": (
        *(product, product_backward, lambda dy, c: (dy @ c[1], c[0].T @ dy), square),
        *("jacobian not transposed", "J dy where J\\^T dy belongs"),
    ),
    "not summed over a broadcast axis": (
        *(shift, shift_backward, lambda dy, _: (dy, dy), normal((B, D), D)),
        *("not summed", r"of b has shape \(4, 5\): expected \(5,\).*\n.*a missing sum"),
    ),
    "summed over the wrong axis": (
        *(shift, shift_backward, lambda dy, _: (dy, dy.sum(axis=1)), normal((B, D), D)),
        *("not summed", "sums over axis 1 of dy, which is not the one"),
    ),
    "summed over the wrong axis, square": (
        *(shift, shift_backward, lambda dy, _: (dy, dy.sum(axis=1)), normal((B, B), B)),
        *("wrong axis", "sums over the wrong axis"),
    ),
    "one example alone": (
        *(shift, shift_backward, lambda dy, _: (dy, dy[0]), normal((B, D), D)),
        *("wrong axis", "counts index 0 of axis 0 of dy alone, where all 4 reach b"),
    ),
    "another shape": (
        *(shift, shift_backward, lambda dy, _: (dy, dy.sum(0, keepdims=True)), normal((B, D), D)),
        *("right numbers in another shape", "Its numbers are the right ones: reshape it"),
    ),
    "of sigma for logvar": (
        *(kl, kl_backward, kl_of_sigma_backward, kl_args),
        *("quantity", "the gradient of sigma where that of logvar belongs"),
    ),
    "of the variance for logvar": (
        *(kl, kl_backward, kl_of_variance_backward, kl_args),
        *("quantity", r"gradient of exp\(logvar\) where that of logvar belongs"),
    ),
    "of logvar for sigma": (
        *(spread, spread_backward, lambda dy, s: spread_backward(dy, s) * s / 2, positive(B, D)),
        *("quantity", "gradient of logvar = log sigma\\^2 where that of sigma belongs"),
    ),
    "of the logarithm": (
        *(spread, spread_backward, lambda dy, s: spread_backward(dy, s) * s, positive(B, D)),
        *("quantity", r"gradient of log\(sigma\) where that of sigma belongs"),
    ),
    "of the variance for sigma": (
        *(spread, spread_backward, lambda dy, s: spread_backward(dy, s) / 2 / s, positive(B, D)),
        *("quantity", r"gradient of sigma\^2 where that of sigma belongs"),
    ),
    "chained twice": (
        *(kl, kl_backward, kl_chained_twice_backward, kl_args),
        *("quantity", "times dsigma/dlogvar = sigma / 2: that factor enters once too often"),
    ),
    "swapped": (
        *(product, product_backward, lambda dy, c: product_backward(dy, c)[::-1], square),
        *("swapped", "The gradients of a and w are swapped"),
    ),
    "halves swapped": (
        *(cube, cube_backward, lambda dy, x: np.roll(cube_backward(dy, x), 3, 1), normal((B, 6))),
        *("order", "two halves along axis 1 swapped"),
    ),
    "reversed": (
        *(cube, cube_backward, lambda dy, x: cube_backward(dy, x)[::-1], x_only),
        *("order", "in reverse order along axis 0"),
    ),
    "derivative missing": (
        *(cube, cube_backward, lambda dy, x: dy, x_only),
        *("passed on", "It is dy itself: the derivative of the forward pass is missing"),
    ),
    "dy missing": (
        *(cube, cube_backward, lambda dy, x: 3 * x**2, x_only),
        *("without dy", "does not multiply by dy"),
    ),
    "dy summed before its use": (
        *(cube, cube_backward, lambda dy, x: cube_backward(dy.sum(0, keepdims=True), x), x_only),
        *("wrong axis", "the gradient for the sum of dy over axis 0 in place of dy"),
    ),
    "right for some signs only": (
        *(leaky, leaky_backward, lambda dy, x: dy * np.where(x > 0, 1, 0.2), off_zero),
        *("some coordinates", "those where x < 0, and right elsewhere"),
    ),
    "one row": (
        *(cube, cube_backward, lambda dy, x: with_entry(cube_backward(dy, x), 2, 7.0), x_only),
        *("some coordinates", "wrong at index 2 of axis 0, and right elsewhere"),
    ),
    "clipped": (
        *(cube, cube_backward, lambda dy, x: dy * np.minimum(3 * x**2, 3), few_beyond_1),
        *("some coordinates", r"in 5 of 20 coordinates, those where \|x\| >= 1\..*right elsewhere"),
    ),
    "float32": (
        *(cube, cube_backward, lambda dy, x: np.float64(np.float32(cube_backward(dy, x)))),
        *(x_only, "precision", "of float32"),
    ),
    "a few digits": (
        *(cube, cube_backward, lambda dy, x: cube_backward(dy, x) * (1 + 1e-6 * np.sin(99 * x))),
        *(x_only, "precision", "agrees with the right one to . digits only"),
    ),
    "softmax without its sum": (
        *(softmax, softmax_backward, lambda dy, y: y * (1 - y) * dy, x_only),
        *("diagonal only", "each entry of y to depend on its own input alone"),
    ),
    "another derivative": (
        *(tanh, tanh_backward, lambda dy, y: dy * (1 - np.arctanh(y) ** 2), x_only),
        *("", "relative error\n"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_cause_is_named(rng, name):
    forward, right, wrong, draw, cause, words = WRONG[name]
    args = draw(rng)
    assert check(forward, right, args, rng=rng).ok
    report = verdict_on(forward, wrong, args, rng=rng)
    assert (report.verdict, report.cause) == ("wrong", cause), report.message
    assert re.search(words, report.message), report.message


def test_there_are_enough_of_them():
    assert len(WRONG) >= 15
    assert len({cause for *_, cause, _ in WRONG.values()}) >= 15


# ------------------------------------------------------------------- wrong, or not to be told


def test_a_kink_is_no_error(rng):
    """At |x| < h the difference mixes two slopes; the value is named, and backward not blamed."""
    (x,) = off_zero(rng)
    x[1, 2] = STEP / 8
    report = verdict_on(leaky, leaky_backward, [x])
    assert (report.verdict, report.cause) == ("cannot tell", "kink")
    assert "kink within a step, 0.001, of x[1, 2] = 0.000125:" in report.message


def test_a_kink_at_the_very_point(rng):
    """There the central difference is the same for every h: only the two sides tell."""
    (x,) = off_zero(rng)
    x[0, 0] = 0
    report = verdict_on(leaky, leaky_backward, [x])
    assert (report.verdict, report.cause) == ("cannot tell", "kink")
    assert "of x[0, 0] = 0:" in report.message


def test_a_jump(rng):
    x = rng.uniform(0.1, 1, (B, D))
    x[2, 1] = STEP / 3
    report = verdict_on(lambda x: (x + (x > 0), None), lambda dy, _: dy, [x])
    assert (report.verdict, report.cause) == ("cannot tell", "kink")


def test_a_wrong_gradient_beside_a_kink_is_still_wrong(rng):
    (x,) = off_zero(rng)
    x[1, 2] = STEP / 8
    report = verdict_on(leaky, scaled(leaky_backward, -1), [x])
    assert (report.verdict, report.cause) == ("wrong", "sign")
    assert (
        "Left out, since the forward pass has a kink there: x[1, 2] = 0.000125." in report.message
    )


def test_a_forward_pass_in_float32_cannot_tell(rng):
    """Its rounding, divided by h, is about 1e-5 of the slope: no difference is better."""
    x = rng.standard_normal((B, D))

    def narrow(x):
        return np.float64(np.float32(x) ** 3), x

    report = verdict_on(narrow, cube_backward, [x])
    assert (report.verdict, report.cause) == ("cannot tell", "precision")
    assert "Each value of the forward pass is one of float32" in report.message
    report = verdict_on(narrow, scaled(cube_backward, 2), [x])
    assert (report.verdict, report.cause) == ("wrong", "factor")


def test_a_function_too_curved_for_the_step_cannot_tell(rng):
    """At 500 waves to the unit h^4 f^(5) is large: the step is too long, and says so."""
    x = rng.standard_normal((B, D))
    sine = (lambda x: (np.sin(500 * x), x), lambda dy, x: 500 * np.cos(500 * x) * dy)
    report = verdict_on(*sine, [x])
    assert (report.verdict, report.cause) == ("cannot tell", "numerical error")
    assert "curves too much for the step, 0.001. Take another step" in report.message
    assert check(*sine, [x], step=1e-5).ok
    report = verdict_on(sine[0], scaled(sine[1], 3), [x])
    assert (report.verdict, report.cause) == ("wrong", "factor")
    assert "It is about 3 times the right one" in report.message


def test_the_right_gradients_are_named_too(rng):
    report = verdict_on(product, scaled(product_backward, 1.5), square(rng))
    assert report.message.endswith("\nRight: a.")


# ----------------------------------------------------------------------------- layers, models


class Tampered(Linear):
    def __init__(self, *sizes, **factors):
        super().__init__(*sizes, dtype="float64")
        self.factors = factors

    def backward(self, dy, cache):
        old = {name: p.grad.copy() for name, p in self.named_parameters()}
        dx = super().backward(dy, cache)
        for name, factor in self.factors.items():
            p = getattr(self, name)
            p.grad[...] = old[name] + factor * (p.grad - old[name])
        return dx


def test_a_layer_whose_bias_gradient_is_averaged(rng):
    report = verdict_on(Tampered(D, 3, b=1 / B), None, [rng.standard_normal((B, D))])
    assert report.cause == "factor"
    assert "the gradient of b is wrong" in report.message
    assert "1 / 4 where 4 is the size of the batch" in report.message
    assert report.message.endswith("Right: x, W.")


def test_a_model_that_forgets_the_mean_over_the_batch(rng):
    class Summed(VAE):
        def loss_and_grad(self, x, eps=None):
            terms = super().loss_and_grad(x, eps)
            self.params.grad *= len(x)
            return terms

    model = Summed(7, (6,), 3, activation="tanh", dtype="float64", rng=rng)
    with pytest.raises(GradientError, match="4 is the size of the batch, so a mean over it is"):
        check_model(model, rng.integers(0, 2, (B, 7)).astype(float))


def test_one_wrong_entry_among_many_is_found(rng):
    """Too many to look at each: the direction that disagrees is halved until one entry is left."""
    x = rng.standard_normal((300, 40))
    wrong = on_last(cube_backward, lambda dx: with_entry(dx, (3, 4), 99))
    report = verdict_on(cube, wrong, [x])
    assert (report.verdict, report.cause) == ("wrong", "some coordinates")
    assert "for x[3, 4] backward gives 99 and the forward pass" in report.message


# ------------------------------------------------------------------------------- bad manners


def test_noise_drawn_again_in_backward_is_told_from_a_used_up_cache(rng):
    def redraws(dz, cache):
        sigma, _ = cache
        return reparameterize_backward(dz, (sigma, rng.standard_normal(sigma.shape)))

    args = list(rng.standard_normal((3, B, 2)))
    report = verdict_on(reparameterize, redraws, args)
    assert report.cause == "noise"
    assert "it draws noise again" in report.message
    report = verdict_on(
        lambda x: (x**3, [x]), lambda dy, c: 3 * c.pop() ** 2 * dy if c else 0 * dy, args[:1]
    )
    assert report.cause == "cache"


# --------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("f", "backward", "args", "says"),
    [
        (lambda x: None, cube_backward, [np.ones(3)], "returns None: expected (y, cache)"),
        (lambda x: x**3, cube_backward, [np.ones(3)], "an array of shape (3,): expected (y, cache"),
        (lambda x: (x, x, x), cube_backward, [np.ones(3)], "a tuple of 3: expected (y, cache)"),
        (lambda x: ([1.0], x), cube_backward, [np.ones(3)], "y of <lambda> is a list: expected"),
        (cube, lambda dy, x: None, [np.ones(3)], "cube's backward returns is None: expected an"),
        (cube, lambda dy, x: "no", [np.ones(3)], "backward returns is a str: expected an array"),
        (cube, lambda dy, x: (dy, dy), [np.ones(3)], "2 gradients for 1 arguments, ['x']"),
        (cube, cube_backward, [np.arange(3)], "cube gives int64 for x int64: gradients a"),
        (cube, cube_backward, [np.ones(3, "f")], "argument x of cube is float32: gradients are"),
        (cube, cube_backward, [[1.0, 2.0]], "argument x of cube is a list: gradients are checked"),
        (cube, cube_backward, [np.array([1, np.nan])], "x of cube has values that are n"),
        (lambda x: (np.float32(x), x), cube_backward, [np.ones(3)], "gives float32 for x float64"),
        (product, product_backward, [np.ones((2, 3)), np.ones((2, 3))],
         "forward of product raised ValueError for arrays of (2, 3), (2, 3): matmul"),
        (cube, lambda dy, x: dy @ x, [np.ones((2, 3))], "backward of cube raised ValueError"),
        (cube, cube_backward, [], "forward of cube raised TypeError"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(f, backward, args, says):
    with pytest.raises(InputError) as caught:
        check(f, backward, args)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_argument_without_a_gradient_may_have_none(rng):
    """None stands for it, as in a backward that returns (None, dw)."""
    args = square(rng)
    report = check(product, lambda dy, c: (None, product_backward(dy, c)[1]), args)
    assert {c.name.split("[")[0] for c in report.checks} == {"w"}


def test_a_scalar_result_may_be_a_float(rng):
    report = check(
        lambda x: (float((x * x).sum()), x), lambda dy, x: 2 * dy * x, [rng.standard_normal(3)]
    )
    assert report.ok
