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
from scratchvae.gradcheck import GradientError, check, check_model
from scratchvae.gradcheck.diagnosis import Evidence, some_coordinates

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


UNITS = np.array([1, 1e6, 1e12])


def in_units(x, units=UNITS):
    """Give the same in three units, such as J, MJ and eV."""
    return np.stack([x * unit for unit in units]), units


def in_far_units(x):
    return in_units(x, UNITS**2 * np.array([1, 1e6, 1e9]))


def in_units_backward(dy, units):
    return np.tensordot(units, dy, 1)


def mixed(x):
    """Add the sum to each entry, and measure the first of these in a far smaller unit."""
    w = np.where(np.arange(len(x)), 1, 1e12)
    return w * (x + x.sum()), w


def mixed_backward(dy, w):
    return w * dy + (w * dy).sum()


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


def draw(a, w):
    return w + a**2 * w, (a, w)


def draw_backward(dz, cache):
    a, w = cache
    return dz * 2 * a * w, dz * (1 + a**2)


def penalised(w):
    return w**2 + 1e-4 * abs(w), w


def penalised_backward(dy, w):
    return dy * (2 * w + 1e-4 * np.sign(w))


def unit_length(x):
    n = np.sqrt((x * x).sum(axis=1, keepdims=True))
    return x / n, (x / n, n)


def unit_length_backward(dy, cache):
    y, n = cache
    return (dy - y * (dy * y).sum(axis=1, keepdims=True)) / n


def unit_mean_square(x):
    n = np.sqrt((x * x).mean(axis=1, keepdims=True))
    return x / n, (x / n, n)


def unit_mean_square_backward(dy, cache):
    y, n = cache
    return (dy - y * (dy * y).mean(axis=1, keepdims=True)) / n


def centred(x, gain):
    d = x - x.mean(axis=1, keepdims=True)
    return gain * d, (d, gain)


def centred_backward(dy, cache):
    d, gain = cache
    return gain * (dy - dy.mean(axis=1, keepdims=True)), (dy * d).sum(axis=1, keepdims=True)


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


def of_both_signs(rng):
    """Draw x with both signs in the entries after the first, too."""
    return [rng.uniform(0.5, 1, D) * np.where(np.arange(D) % 2, -1, 1)]


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
    "one output alone, beside far larger ones": (
        *(in_units, in_units_backward, lambda dy, units: dy[0] * units[0], normal((D,))),
        *("wrong axis", "counts index 0 of axis 0 of dy alone, where all 3 reach x"),
    ),
    "an output left out that drowns the others": (
        *(in_units, in_units_backward, lambda dy, units: dy[0] + dy[1] * units[1], normal((D,))),
        *("", "relative error\n"),  # not one output alone: two are counted
    ),
    "an output left out that drowns the first": (
        *(in_far_units, in_units_backward, lambda dy, units: dy[0] + dy[1] * units[1]),
        *(normal((D,)), "", "relative error\n"),  # that two are counted, no digit shows
    ),
    "an output of its own alone, where one drowns another": (
        *(mixed, mixed_backward, lambda dy, w: 2 * w * dy + dy[1], of_both_signs),
        *("", "relative error\n"),  # it counts a second one for all
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
        *("wrong axis", "the gradient for the sum of dy over axis 0 instead of dy"),
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
    "a part in float32": (
        *(cube, cube_backward, lambda dy, x: dy * np.float64(np.float32(3 * x**2))),
        *(x_only, "precision", "Each of its numbers is dy times one of float32"),
    ),
    "a few digits": (
        *(cube, cube_backward, lambda dy, x: cube_backward(dy, x) * (1 + 1e-6 * np.sin(99 * x))),
        *(x_only, "", "relative error"),
    ),
    "a factor of x missing": (
        *(cube, cube_backward, lambda dy, x: dy * 3 * x, x_only),
        *("missing factor", "It lacks the factor x."),
    ),
    "a factor of y missing": (
        *(tanh, tanh_backward, lambda dy, y: dy * (1 - y), x_only),
        *("missing factor", r"It lacks the factor \(1 \+ y\)."),
    ),
    "a factor of another argument too many": (
        *(
            draw,
            draw_backward,
            lambda dz, c: (draw_backward(dz, c)[0], dz * (1 + c[0] ** 2) * c[0]),
        ),
        *(normal((B, D), (B, D)), "missing factor"),
        "The factor a enters once too often.",
    ),
    "a small term missing": (
        *(penalised, penalised_backward, lambda dy, w: dy * 2 * w, x_only),
        *("missing term", r"The term 0.0001 dy sign\(w\) is missing."),
    ),
    "a norm held fixed": (
        *(unit_length, unit_length_backward, lambda dy, c: dy / c[1], x_only),
        *("missing term", "off by [xy] times one number for all of axis 1, as where a sum"),
    ),
    "a norm by the mean with the derivative of one by the sum": (
        *(unit_mean_square, unit_mean_square_backward, unit_length_backward, x_only),
        *("missing term", "a sum over that axis, .*, is missing or has a wrong factor"),
    ),
    "a mean held fixed": (
        *(centred, centred_backward),
        lambda dy, c: (c[1] * dy, centred_backward(dy, c)[1]),
        *(normal((B, D), (B, 1)), "missing term"),
        "It is off by one number for all of axis 1, as where a sum over that axis, such as",
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


# ------------------------------------------------------------------- wrong, or undecided


def test_a_kink_near_by_is_seen_past(rng):
    """Smaller steps do not reach it: the slope there is as plain as anywhere."""
    (x,) = off_zero(rng)
    x[1, 2] = 1e-4
    assert check(leaky, leaky_backward, [x], rng=rng).ok


def test_a_kink_at_the_very_point(rng):
    """There the central difference is the same for every h: only the two sides tell."""
    (x,) = off_zero(rng)
    x[0, 0] = 0
    report = verdict_on(leaky, leaky_backward, [x], rng=rng)
    assert (report.verdict, report.cause) == ("cannot tell", "kink")
    assert "a kink or a jump at x[0, 0] = 0, or" in report.message


@pytest.mark.proves("finite-differences-verdict")
def test_a_slope_between_those_of_the_two_sides_is_no_error_and_one_beyond_them_is(rng):
    x = np.zeros(3)
    slopes = (0.1, "cannot tell"), (0.5, "cannot tell"), (1.0, "cannot tell"), (1.01, "wrong")
    for slope, verdict in slopes:
        report = verdict_on(leaky, lambda dy, x, s=slope: s * dy, [x], rng=rng)
        assert report.verdict == verdict


def test_a_small_kink_beside_a_large_slope(rng):
    x = np.array([1e-5, 1.0])
    steep = (lambda x: (1e4 * x + np.maximum(x, 0), x), lambda dy, x: dy * (1e4 + (x > 0)))
    assert check(*steep, [x], rng=rng).ok
    assert verdict_on(steep[0], scaled(steep[1], 1.01), [x], rng=rng).verdict == "wrong"


def test_a_jump(rng):
    x = rng.uniform(0.1, 1, (B, D))
    x[2, 1] = 1e-4
    jump = (lambda x: (x + (x > 0), None), lambda dy, _: dy)
    assert check(*jump, [x], rng=rng).ok
    x[2, 1] = 0
    report = verdict_on(*jump, [x], rng=rng)
    assert (report.verdict, report.cause) == ("cannot tell", "kink")
    assert "a kink or a jump at x[2, 1] = 0, or" in report.message


def test_kinks_that_no_single_step_seems_to_cross(rng):
    """Where both arguments move together the kinks of a + b are within reach."""
    args = [np.full((B, D), 1.0), np.full((B, D), -1 + 1.5e-3)]
    pair = (lambda a, b: (np.maximum(a + b, 0), a + b), lambda dy, s: (dy * (s > 0),) * 2)
    assert check(*pair, args, rng=rng).ok


def test_kinks_whose_jumps_cancel_along_a_direction_accuse_nobody(rng):
    """As two units of a ReLU layer, one of them subtracted: only the jump that is left is seen.

    One direction in 30 or so takes for smooth what has another slope than backward's, and there are
    200. No entry is wrong, so none of them may accuse.
    """
    x = rng.uniform(0.5, 1, 1000)
    x[[10, 13]] = 0  # of so many only some are looked at, and halving a direction parts these two

    def forward(x):
        return x.sum() + 0.5 * (abs(x[10]) - abs(x[13])), x

    def backward(dy, x):
        dx = np.ones_like(x)
        dx[[10, 13]] += 0.5, -0.5
        return dy * dx

    report = verdict_on(forward, backward, [x], rng=rng, directions=200)
    assert report.verdict == "cannot tell"
    assert report.cause in ("kinks", "kink")  # now and then one of the two is looked at
    if report.cause == "kinks":
        assert "None of the entries looked at is wrong by itself" in report.message


def test_a_wrong_gradient_beside_a_kink_is_still_wrong(rng):
    (x,) = off_zero(rng)
    x[1, 2] = 0
    report = verdict_on(leaky, scaled(leaky_backward, -1), [x], rng=rng)
    assert (report.verdict, report.cause) == ("wrong", "sign")


def test_what_is_left_out_is_named(rng):
    """A slope of 0.5 at the kink itself lies between 0.1 and 1."""
    (x,) = off_zero(rng)
    x[1, 2] = 0
    wrong = on_last(scaled(leaky_backward, -1), lambda dx: with_entry(dx, (1, 2), -0.5 * dx[1, 2]))

    def backward(dy, x):
        return with_entry(wrong(dy, x), (1, 2), 0.5 * dy[1, 2])

    report = verdict_on(leaky, backward, [x], rng=rng)
    assert (report.verdict, report.cause) == ("wrong", "sign")
    assert "Left out, since the forward pass does not decide: x[1, 2]." in report.message


def test_a_forward_pass_in_float32(rng):
    """Steps of its own size know the slope to 5 digits: enough to find most errors."""
    x = rng.uniform(0.5, 1, (B, D))

    def narrow(x):
        return np.float64(np.float32(x) ** 3), x

    def narrower(x):  # by three digits
        return np.float64(np.float32(1000 + x**3)), x

    report = verdict_on(narrower, cube_backward, [x], rng=rng)
    assert (report.verdict, report.cause) == ("cannot tell", "precision")
    assert "Each value of the forward pass is one of float32" in report.message
    report = verdict_on(narrow, scaled(cube_backward, 2), [x], rng=rng)
    assert (report.verdict, report.cause) == ("wrong", "factor")


INTERVAL = pytest.mark.proves("finite-differences-interval")


@pytest.mark.parametrize(
    "waves", [pytest.param(1e-8, marks=INTERVAL), pytest.param(500, marks=INTERVAL), 1e8]
)
def test_the_step_is_that_of_the_function(rng, waves):
    """Narrower or wider than the argument by far, it is measured by steps of its own size.

    At 1e8 waves rounding x itself moves the wave by 1e-8 of its length: no step knows more than
    some six digits, and not every coordinate is then known well enough.
    """
    x = rng.standard_normal((B, D))
    sine = (lambda x: (np.sin(waves * x), x), lambda dy, x: waves * np.cos(waves * x) * dy)
    if waves < 1e7:
        assert check(*sine, [x], rng=rng).ok
    report = verdict_on(sine[0], scaled(sine[1], 3), [x], rng=rng)
    assert report.verdict == "wrong"
    assert report.cause == "factor" or waves > 1e7


@pytest.mark.parametrize("waves", [1e3, 1e4])
def test_where_larger_steps_leap_over_a_wave_a_smaller_first_step_decides(rng, waves):
    """They find other slopes, as where a part is in float32 that small steps do not move."""
    x = rng.standard_normal((B, D))
    sine = (lambda x: (np.sin(waves * x), x), lambda dy, x: waves * np.cos(waves * x) * dy)
    for factor in 0.5, 1 / waves:
        wrong = sine[0], scaled(sine[1], factor)
        report = verdict_on(*wrong, [x], rng=rng, step=0.1 / waves)
        assert (report.verdict, report.cause) == ("wrong", "factor")
        report = verdict_on(*wrong, [x[:1, :1]], rng=rng)
        if report.verdict == "cannot tell":
            assert report.cause == "detail"
            assert "Small steps see one slope near x[0, 0] = " in report.message


def test_no_cause_is_found_in_steps_that_leap_over_a_wave(rng):
    """All but the smallest steps find that sin(3e8 x) does not move, as if a term were missing.

    In some one of 20 draws no step knows a slope that excludes the wrong one. Without the rule a
    term is named in one of five, so that 50 draws miss it once in 70,000 runs.
    """
    pair = lambda x: (np.sin(3e8 * x), x), lambda dy, x: 3e8 * np.sin(3e8 * x) * dy
    verdicts = []
    for _ in range(50):
        report = verdict_on(*pair, [rng.standard_normal((2, 2))], rng=rng)
        assert report.cause in ("", "rounding", "curvature", "kink", "detail")
        verdicts.append(report.verdict)
    assert verdicts.count("wrong") >= 30


@pytest.mark.parametrize("x", [6.0, 9.5, 10.0, 12.0, 30.0, 300.0])
def test_what_is_saturated_is_not_taken_for_what_does_not_depend_on_x(rng, x):
    """The second output moves only where x comes near 0; until then its slope is not known."""

    def forward(x):
        return np.array([np.exp(-5 * abs(x[0])), 1 / (1 + np.exp(-4 * abs(x[0])))]), x[0]

    def backward(dy, x):
        return np.array([4 * dy[1] * np.exp(-4 * x) - 5 * dy[0] * np.exp(-5 * x)])

    assert verdict_on(forward, backward, [np.array([x])], rng=rng).verdict == "cannot tell"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", [355.0, 700.0, 709.0])
def test_numbers_that_overflow_in_the_comparison_warn_of_nothing(rng, x):
    exp = (lambda x: (np.exp(x), np.exp(x)), lambda dy, y: dy * y)
    for factor in 1, 2:
        verdict_on(exp[0], scaled(exp[1], factor), [np.array([x, 1.0])], rng=rng)


def test_a_pattern_of_all_coordinates_is_no_cause(rng):
    """Where x is positive everywhere, and the rest masked, nothing is right elsewhere."""
    x, mask = rng.uniform(0.5, 1.5, 8), np.array([1, 0, 1, 1, 0, 1, 1, 1.0])
    report = verdict_on(lambda x: (mask * x**3, x), lambda dy, x: dy * 3 * mask * x, [x], rng=rng)
    assert report.cause == "missing factor"
    assert "It lacks the factor" in report.message


def test_nothing_is_named_for_what_is_tiny_beside_the_right_one(rng):
    """In SI units a missing 1/x leaves 1e-10 of it, and any two such arrays would agree."""
    x = rng.uniform(0.5, 1.7, (B, D)) * 1e-10
    report = verdict_on(lambda x: (np.log(x), x), lambda dy, x: 1.0 * dy, [x], rng=rng)
    assert (report.verdict, report.cause) == ("wrong", "passed on")
    report = verdict_on(lambda x: (x * x / 2, x), lambda dy, x: x * x * dy, [x], rng=rng)
    assert "It is the gradient of log(x) where that of x belongs" in report.message


def test_a_loss_whose_backward_forgets_dy(rng):
    x = rng.standard_normal((B, D))
    report = verdict_on(lambda x: ((x * x).mean(), x), lambda dy, x: 2 * x / x.size, [x], rng=rng)
    assert report.cause == "without dy"


def test_what_rounding_hides_is_never_right(rng):
    x = rng.uniform(1, 2, (B, D))
    x[0, 0] = 1.99  # where the largest step does move the last digit
    square = (lambda x: (1e17 + x**2, x), lambda dy, x: dy * 2 * x)
    for factor in (1, 0):
        report = verdict_on(square[0], scaled(square[1], factor), [x], rng=rng)
        assert (report.verdict, report.cause) == ("cannot tell", "rounding")
        assert "Rounding hides it: moving x[0, 0] = " in report.message
    # On 1e12 it is known to some digits: too few to confirm, enough to refute.
    report = verdict_on(lambda x: (1e12 + x**2, x), scaled(square[1], 0), [x], rng=rng)
    assert (report.verdict, report.cause) == ("wrong", "zero")


@pytest.mark.proves("finite-differences-interval")
def test_every_coordinate_has_a_scale_of_its_own(rng):
    """Precisions of exp(20) and 1: the second coordinate must not hide behind the first."""
    args = [*rng.standard_normal((2, B, 2)), np.array([[-20.0, 0.0]] * B)]

    def nll(x, mean, logvar):
        e = (x - mean) * np.exp(-logvar / 2)
        return 0.5 * e * e, (e, logvar)

    def nll_backward(dy, cache, second=1.0):
        e, logvar = cache
        return -dy * e * np.exp(-logvar / 2) * np.array([1, second])

    assert check(nll, nll_backward, args, wrt=[1], rng=rng).ok
    report = verdict_on(nll, lambda dy, c: nll_backward(dy, c, 0.0), args, wrt=[1], rng=rng)
    assert report.verdict == "wrong"
    assert "for mean[" in report.message


def test_outside_of_its_domain_a_function_is_not_asked(rng):
    def deviation(s):
        if (s <= 0).any():
            raise ValueError("must be positive")
        return np.log(s), s

    assert check(deviation, lambda dy, s: dy / s, [rng.uniform(1e-6, 1, (B, D))], rng=rng).ok
    root = (lambda x: (np.sqrt(x), x), lambda dy, x: dy * 0.5 / np.sqrt(x))
    with np.errstate(divide="ignore"):
        report = verdict_on(*root, [np.array([0.0, 1.0])], rng=rng)
    assert (report.verdict, report.cause) == ("cannot tell", "domain")


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


def one_layer(x):
    y = np.tanh(x @ W_ONE)
    return y, (x, y)


def one_layer_backward(dy, cache):
    return (dy * (1 - cache[1] ** 2)) @ W_ONE.T


def relu_loss(x):
    h = x @ W_ONE
    y = np.maximum(h, 0) @ W_ONE[:30, :3]
    return (y * y).mean(), (h, y)


def relu_loss_backward(dy, cache):
    h, y = cache
    return ((2 * dy * y / y.size) @ W_ONE[:30, :3].T * (h > 0)) @ W_ONE.T


W_ONE = np.random.default_rng(0).standard_normal((40, 30))


@pytest.mark.parametrize(
    ("f", "backward"), [(one_layer, one_layer_backward), (relu_loss, relu_loss_backward)]
)
def test_one_wrong_entry_among_many_that_sums_mix(f, backward, rng):
    """Rounding at the smallest steps, and kinks far away, do not spare what the others exclude."""
    x = rng.standard_normal((30, 40))
    k = int(rng.integers(30)), int(rng.integers(40))

    def doubled(dy, cache):
        dx = backward(dy, cache)
        dx[k] += np.abs(dx).max()
        return dx

    report = verdict_on(f, doubled, [x])
    assert (report.verdict, report.cause) == ("wrong", "some coordinates")
    assert f"for x[{k[0]}, {k[1]}] backward gives" in report.message


def batch_norm(x):
    """Take the variance for E x^2 - m^2, which loses its digits."""
    m = x.mean(axis=0)
    s = np.sqrt((x * x).mean(axis=0) - m * m)
    return (x - m) / s, ((x - m) / s, s)


def batch_norm_backward(dy, cache):
    y, s = cache
    return (dy - dy.mean(axis=0) - y * (dy * y).mean(axis=0)) / s


def test_a_variance_that_cancels_is_no_kink(rng):
    """To large steps what it gives looks like one."""
    report = verdict_on(batch_norm, batch_norm_backward, [1e4 + rng.standard_normal((8, 4))])
    assert (report.verdict, report.cause) == ("cannot tell", "rounding")


@pytest.mark.parametrize("seed", [2, 19, 20, None])
def test_a_variance_without_digits_accuses_nobody(seed, rng):
    """The smallest steps do not move it, and to the largest ones y stands still at 1 or -1.

    With the seeds given, a checker that believes either is wrong about a right gradient.
    """
    seed = int(rng.integers(2**32)) if seed is None else seed
    x = 1e6 + np.random.default_rng(seed).standard_normal((8, 4))
    assert verdict_on(batch_norm, batch_norm_backward, [x], rng=seed).verdict == "cannot tell"


# ------------------------------------------------------------------------------- the contract


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
        (cube, cube_backward, [np.arange(3)], "argument x of cube is int64: gradients a"),
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


@pytest.mark.parametrize("shape", [(3000,), (60, 50)])
def test_a_forgotten_mean_over_many_entries_is_a_factor(shape, rng):
    """Backward's numbers are as far from the differences as these are off, 3,000 times."""
    report = verdict_on(
        lambda x: ((x * x).mean(), x), lambda dy, x: dy * 2 * x, [rng.standard_normal(shape)]
    )
    assert report.cause == "factor"
    assert re.search("It is (about )?3000 times the right one", report.message)
    assert "so a mean over" in report.message


def test_one_wrong_entry_is_not_said_to_be_a_whole_row(rng):
    def backward(dy, x):
        dx = 2 * x * dy
        dx[77, 13] *= 1.5
        return dx

    with pytest.raises(GradientError) as caught:
        check(lambda x: (x**2, x), backward, [rng.standard_normal((100, 100))], rng=rng)
    assert "x[77, 13]" in str(caught.value)
    assert " of axis " not in str(caught.value)


def test_a_term_without_dy_beside_a_scalar_loss_is_one_of_two_that_fit(rng):
    with pytest.raises(GradientError, match=r"or the term 0\.1 w is not multiplied by dy\."):
        check(
            lambda w: ((w**4).sum() + 0.05 * (w**2).sum(), w),
            lambda d, w: d * 4 * w**3 + 0.1 * w,
            [rng.standard_normal((4, 5))],
            rng=rng,
        )


@pytest.mark.parametrize(
    ("undecided", "said"),
    [
        (0, ["It is wrong in 1 of 12 coordinates and right elsewhere."]),
        (3, ["It is wrong in 1 of 9 coordinates that could be decided and right in the others."]),
        (5, []),
    ],
)
def test_where_most_is_undecided_nothing_is_said_of_elsewhere(undecided, said, rng):
    right = rng.uniform(1, 2, 12)
    given, doubtful = right.copy(), np.arange(12) < undecided
    given[9] *= 1.5
    value = np.ones(12)  # which has nothing to do with it
    e = Evidence("x", value, given, right, np.full(12, 1e-12), doubtful, np.ones(12))
    assert [sentence for _, sentence in some_coordinates(e)] == said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1], ["It is wrong in 1 of 20 coordinates that were looked at and right in the others."]),
        (
            [1, 3],
            ["It is wrong in 2 of 20 coordinates that were looked at and right in the others."],
        ),
    ],
)
def test_of_a_large_array_only_what_was_looked_at_is_said(wrong, said, rng):
    """No sign and no row is named for one or two wrong entries of a few dozen."""
    right = np.full((60, 10), np.nan)
    right.ravel()[:20] = rng.uniform(1, 2, 20)
    given = np.where(np.isfinite(right), right, 1.0)
    given.ravel()[wrong] *= 1.5
    value = np.full((60, 10), -1.0)
    value.ravel()[wrong] = 1.0
    e = Evidence("x", value, given, right, 0 * given + 1e-12, given < 0, np.ones(12))
    assert [sentence for _, sentence in some_coordinates(e)] == said


def test_a_row_of_which_one_entry_is_known_is_not_said_to_be_wrong(rng):
    right = rng.uniform(1, 2, (8, 3))
    given, doubtful = right.copy(), np.zeros((8, 3), bool)
    given[5, 1] *= 1.5
    doubtful[5, [0, 2]] = True
    e = Evidence("x", right, given, right, np.full((8, 3), 1e-12), doubtful, np.ones((8, 3)))
    found = [sentence for _, sentence in some_coordinates(e)]
    assert found
    assert not any(" of axis " in sentence for sentence in found)
