"""The sampler, the divergence and the density against distributions known from elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchvae.free_bits import kl_free_bits, kl_free_bits_backward
from scratchvae.gaussian import (
    kl_per_dimension,
    kl_standard_normal,
    kl_standard_normal_backward,
    log_density,
    log_density_backward,
    reparameterize,
    reparameterize_backward,
)

DTYPES = ["float32", "float64"]

# A normal variable leaves 5.5 standard deviations with probability 3.8e-8. No test below looks at
# more than 12 such statistics, so none raises a false alarm more often than 5e-7 per run.
SIGMAS = 5.5


def frozen(*arrays):
    """Make arrays read-only: whoever writes into one raises ValueError."""
    for a in arrays:
        a.setflags(write=False)
    return arrays


@pytest.mark.proves("sigma", "reparameterize")
def test_draws_have_mean_mu_and_variance_exp_logvar(rng):
    """Finds sigma = exp(logvar), which no gradient check can: its backward agrees with it."""
    n = 200_000
    mu = np.array([-2.0, 0.0, 0.5, 1.0, 3.0, 10.0])  # (Z,)
    logvar = np.array([-3.0, -1.0, -0.3, 0.3, 1.0, 2.0])  # (Z,)
    z, _ = reparameterize(mu, logvar, rng.standard_normal((n, 6)))  # (n, Z)
    variance = np.exp(logvar)
    # The mean of n draws has variance sigma^2/n; their variance, relative to its own, has 2/(n-1).
    assert np.all(np.abs(z.mean(axis=0) - mu) < SIGMAS * np.sqrt(variance / n))
    assert np.all(np.abs(z.var(axis=0, ddof=1) / variance - 1) < SIGMAS * math.sqrt(2 / (n - 1)))


@pytest.mark.proves("kl", "kl-sum")
def test_kl_is_the_mean_log_ratio_of_the_densities_at_its_own_draws(rng):
    n = 200_000
    mu, logvar = rng.uniform(-1.5, 1.5, (2, 3)), rng.uniform(-2, 2, (2, 3))  # (B, Z) each
    variance = np.exp(logvar)
    z, _ = reparameterize(mu, logvar, rng.standard_normal((n, 2, 3)))  # (n, B, Z)
    log_q = stats.norm.logpdf(z, mu, np.sqrt(variance)).sum(axis=-1)  # (n, B)
    log_p = stats.norm.logpdf(z).sum(axis=-1)  # (n, B)
    # One draw's log ratio is a constant + sum of mu sigma e + (sigma^2 - 1) e^2 / 2, whose variance
    # is mu^2 sigma^2 + (sigma^2 - 1)^2 / 2 in each dimension.
    standard_error = np.sqrt((mu**2 * variance + (variance - 1) ** 2 / 2).sum(axis=-1) / n)  # (B,)
    kl, _ = kl_standard_normal(mu, logvar)
    assert np.all(np.abs((log_q - log_p).mean(axis=0) - kl) < SIGMAS * standard_error)


@pytest.mark.proves("kl", "kl-sum")
def test_kl_agrees_with_the_formula_for_any_two_multivariate_normals(rng):
    z_dim = 5
    for _ in range(50):
        mu, logvar = rng.normal(0, 2, z_dim), rng.normal(0, 2, z_dim)
        # The divergence does not change when the coordinates are turned and shifted for both.
        turn, _ = np.linalg.qr(rng.standard_normal((z_dim, z_dim)))
        shift = rng.standard_normal(z_dim)
        mean_q, mean_p = turn @ mu + shift, shift
        cov_q, cov_p = turn @ np.diag(np.exp(logvar)) @ turn.T, turn @ turn.T
        trace = np.trace(np.linalg.solve(cov_p, cov_q))
        square = (mean_p - mean_q) @ np.linalg.solve(cov_p, mean_p - mean_q)
        log_det = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
        expected = 0.5 * (trace + square - z_dim + log_det)
        kl, _ = kl_standard_normal(mu, logvar)
        # The log determinant of cov_q loses as many digits as its condition number has; the
        # remaining hundred or so roundings of 1e-16 are relative to the largest summand.
        condition = np.exp(logvar.max() - logvar.min())
        tolerance = 1e-14 * (condition + trace + square + np.abs(logvar).sum())
        assert abs(kl - expected) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@given(mu=st.floats(-50, 50, width=32), logvar=st.floats(-50, 50, width=32))
def test_kl_is_not_negative(dtype, mu, logvar):
    kl, _ = kl_standard_normal(np.array([mu], dtype), np.array([logvar], dtype))
    # expm1 may be wrong by 4 units in the last place (NumPy's own tests allow float32's that), and
    # for a tiny logvar, where the exact KL is logvar^2/4, nothing covers that error.
    assert kl >= -2 * np.finfo(dtype).eps * abs(logvar)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kl_is_exactly_0_at_the_prior(dtype):
    zero = np.zeros((3, 4), dtype)
    kl, cache = kl_standard_normal(zero, zero)
    assert np.array_equal(kl, np.zeros(3))
    for gradient in kl_standard_normal_backward(np.ones(3, dtype), cache):
        assert np.array_equal(gradient, zero)


@pytest.mark.proves("kl")
def test_kl_of_a_tiny_logvar_is_accurate():
    logvar = np.array([-1e-3, 1e-3, -1e-4, 1e-4, 1e-5, -1e-6, 1e-7])[:, None]  # (B, 1)
    # (exp(l) - 1 - l)/2 as a series; the next summand is 1e-11 of the first at most.
    series = 0.5 * sum(logvar**k / math.factorial(k) for k in (2, 3, 4, 5))
    kl, _ = kl_standard_normal(np.zeros_like(logvar), logvar)
    # What is left are the roundings of expm1(l) and of the difference, both of l's size; exp(l) - 1
    # would bring those of 1, a thousand times and more too large.
    assert np.all(np.abs(kl - series[:, 0]) <= 2 * np.finfo(float).eps * np.abs(logvar[:, 0]))


@pytest.mark.proves("kl-sum")
def test_kl_sums_its_dimensions(rng):
    mu, logvar = rng.normal(size=(2, 7, 5))
    terms = kl_per_dimension(mu, logvar)  # (B, Z)
    assert terms.shape == (7, 5)
    for j in range(5):
        alone, _ = kl_standard_normal(mu[:, j : j + 1], logvar[:, j : j + 1])
        assert np.array_equal(alone, terms[:, j])
    # Five summands, all positive, in whatever order: four roundings of 1e-16 each.
    assert np.allclose(kl_standard_normal(mu, logvar)[0], terms.sum(axis=1), rtol=1e-15, atol=0)


@pytest.mark.proves("log-density")
@pytest.mark.parametrize("logvar_shape", [(4, 6), (4, 1), (1, 6), (6,), (1,), ()])
def test_log_density_is_scipys(rng, logvar_shape):
    z, mu = rng.normal(0, 3, (2, 4, 6))
    logvar = rng.uniform(-3, 3, logvar_shape)
    logp, _ = log_density(z, mu, logvar)
    assert logp.shape == (4,)
    expected = stats.norm.logpdf(z, mu, np.exp(logvar / 2))  # (B, Z)
    # Both sides square (z - mu)/sigma and add 6 summands: some 20 roundings of 1e-16 each, relative
    # to the sum of the summands' sizes. 1e-14 is five times as much.
    tolerance = 1e-14 * (np.abs(expected) + np.abs(logvar) + 2).sum(axis=1)
    assert np.all(np.abs(logp - expected.sum(axis=1)) < tolerance)
    for b in range(4):
        variance = np.broadcast_to(np.exp(logvar), (4, 6))[b]
        joint = stats.multivariate_normal.logpdf(z[b], mu[b], np.diag(variance))
        # SciPy decomposes the covariance: its condition, up to e^6 = 400, multiplies the rounding.
        assert abs(logp[b] - joint) < 400 * tolerance[b]


def test_leading_axes_broadcast(rng):
    mu, logvar = rng.normal(size=(2, 4, 3))  # (B, Z)
    eps = rng.normal(size=(5, 4, 3))  # (K, B, Z)
    z, _ = reparameterize(mu, logvar, eps)
    logp, _ = log_density(z, mu, logvar)
    assert logp.shape == (5, 4)
    for k in range(5):
        assert np.array_equal(z[k], reparameterize(mu, logvar, eps[k])[0])
        assert np.array_equal(logp[k], log_density(z[k], mu, logvar)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logvar", [0.5, np.array([0.5]), np.float32(0.5)])
def test_a_log_density_has_the_dtype_of_its_point(rng, dtype, logvar):
    """A float64 variance must not turn a float32 model's loss, and all behind it, into float64."""
    z, mu = rng.normal(size=(2, 5, 3)).astype(dtype)
    logp, cache = log_density(z, mu, logvar)
    assert logp.dtype == dtype
    assert all(gradient.dtype == dtype for gradient in log_density_backward(logp, cache))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_extreme_logvar_stays_finite_in_its_dtype(dtype, extreme):
    """Warnings are errors here, so an overflow on the way to a finite result is found too."""
    mu, eps = np.array([[1.0, -2.0]], dtype), np.array([[3.0, -0.5]], dtype)
    logvar, one = np.full((1, 2), extreme, dtype), np.ones(1, dtype)
    z, z_cache = reparameterize(mu, logvar, eps)
    kl, kl_cache = kl_standard_normal(mu, logvar)
    logp, logp_cache = log_density(z, mu, logvar)
    results = [
        *(z, kl, logp, kl_per_dimension(mu, logvar)),
        *reparameterize_backward(mu, z_cache),
        *kl_standard_normal_backward(one, kl_cache),
        *log_density_backward(one, logp_cache),
    ]
    for result in results:
        assert result.dtype == dtype
        assert np.all(np.isfinite(result))


def test_no_argument_or_cache_is_changed(rng):
    mu, logvar, eps, z = frozen(*rng.normal(size=(4, 5, 3)))
    (dkl,) = frozen(rng.normal(size=5))
    for forward, arguments, backward, dy in [
        (reparameterize, (mu, logvar, eps), reparameterize_backward, eps),
        (kl_standard_normal, (mu, logvar), kl_standard_normal_backward, dkl),
        (log_density, (z, mu, logvar), log_density_backward, dkl),
    ]:
        _, cache = forward(*arguments)
        frozen(*(part for part in cache if isinstance(part, np.ndarray)))
        backward(dy, cache)


@pytest.mark.proves("free-bits")
def test_free_bits_charge_each_dimension_at_least_its_free_share(rng):
    mu, logvar = rng.uniform(-1, 1, (2, 5, 3))
    kl = kl_per_dimension(mu, logvar)
    for free in (0.0, 0.1, 0.5, 100.0):
        charged, _ = kl_free_bits(mu, logvar, free)
        by_hand = [sum(max(k, free) for k in row) for row in kl.tolist()]
        np.testing.assert_allclose(charged, by_hand, rtol=1e-14)  # three additions


def test_free_bits_sum_the_last_axis_whatever_stands_before_it(rng):
    mu, logvar = rng.uniform(-1, 1, (2, 4, 5, 3))  # (K, B, Z) each
    of_each = [kl_free_bits(m, lv, 0.2)[0] for m, lv in zip(mu, logvar, strict=True)]
    np.testing.assert_array_equal(kl_free_bits(mu, logvar, 0.2)[0], of_each)


@pytest.mark.proves("free-bits-grad")
def test_what_is_free_has_no_gradient_and_what_is_charged_has_the_kls(rng):
    mu, logvar = rng.uniform(-1, 1, (2, 5, 3))
    kl, dkl = kl_per_dimension(mu, logvar), rng.standard_normal(5)
    free = np.median(kl)
    charged = kl > free
    assert 0 < charged.sum() < charged.size
    ours = kl_free_bits_backward(dkl, kl_free_bits(mu, logvar, free)[1])
    full = kl_standard_normal_backward(dkl, (mu, logvar))
    for d, d_full in zip(ours, full, strict=True):
        np.testing.assert_array_equal(d, np.where(charged, d_full, 0))
