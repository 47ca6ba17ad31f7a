"""The negative log-likelihoods against SciPy's distributions, and that they are normalised."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from scratchvae.backend import get_backend
from scratchvae.errors import InputError
from scratchvae.likelihoods import (
    Bernoulli,
    Gaussian,
    bernoulli_nll,
    bernoulli_nll_backward,
    gaussian_nll,
    gaussian_nll_backward,
    get_likelihood,
)

NUMPY = get_backend("numpy")
DTYPES = ["float32", "float64"]


def gaussian(data_dim, variance, dtype="float64"):
    return Gaussian(data_dim, variance, NUMPY, dtype)


@pytest.mark.proves("bernoulli")
def test_bernoulli_is_scipys_on_binary_data(rng):
    x, logits = rng.integers(0, 2, (20, 6)).astype(float), rng.uniform(-5, 5, (20, 6))
    nll, _ = bernoulli_nll(x, logits)
    expected = -stats.bernoulli.logpmf(x, special.expit(logits)).sum(axis=1)
    # The reference takes log(1 - p) of a rounded p: 1e-16 is divided by 1 - p > e^-5/2, which
    # makes 4e-14 for a pixel, 2.4e-13 for six.
    assert np.allclose(nll, expected, rtol=0, atol=1e-12)


def test_bernoulli_is_the_cross_entropy_on_grey_data(rng):
    x, logits = rng.uniform(0, 1, (20, 6)), rng.uniform(-5, 5, (20, 6))
    x[0] = [0, 1, 0, 1, 0.5, 0.5]
    p = special.expit(logits)
    expected = -(special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(axis=1)
    # As above.
    assert np.allclose(bernoulli_nll(x, logits)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.proves("bernoulli", "bernoulli-grad")
@pytest.mark.parametrize("dtype", DTYPES)
def test_bernoulli_is_exact_at_extreme_logits(dtype):
    """A loss on probabilities is infinite or flat where the model is surely wrong."""
    x = np.array([[1], [0], [1], [0]], dtype)
    logits = np.array([[1e4], [1e4], [-1e4], [-1e4]], dtype)
    nll, cache = bernoulli_nll(x, logits)
    gradient = bernoulli_nll_backward(np.ones(4, dtype), cache)
    assert nll.dtype == gradient.dtype == dtype
    assert np.array_equal(nll, [0, 1e4, 1e4, 0])
    assert np.array_equal(gradient[:, 0], [0, 1, -1, 0])


@pytest.mark.proves("bernoulli")
def test_bernoulli_sums_to_1_over_all_images(rng):
    images = np.array(list(itertools.product([0.0, 1.0], repeat=4)))  # (16, 4)
    logits = np.broadcast_to(rng.normal(0, 3, 4), (16, 4))
    # 16 positive summands, each from an exponent of size up to 40 rounded to 1e-16 of itself.
    assert abs(np.exp(-bernoulli_nll(images, logits)[0]).sum() - 1) < 1e-13


@pytest.mark.proves("gaussian-nll")
def test_gaussian_is_scipys_with_its_constant(rng):
    x, mean = rng.normal(0, 2, (2, 20, 6))
    logvar = rng.uniform(-3, 3, (20, 6))
    nll, _ = gaussian_nll(x, mean, logvar)
    expected = -stats.norm.logpdf(x, mean, np.exp(logvar / 2))
    # Some 20 roundings of 1e-16, relative to the sum of the summands' sizes; five times as much.
    tolerance = 1e-14 * (np.abs(expected) + np.abs(logvar) + 2).sum(axis=1)
    assert np.all(np.abs(nll - expected.sum(axis=1)) < tolerance)


@pytest.mark.proves("gaussian-nll")
@pytest.mark.parametrize("logvar", [-4.0, 0.0, 3.0])
def test_gaussian_integrates_to_1(logvar):
    mean, sigma = 0.7, math.exp(logvar / 2)

    def density(x):
        return math.exp(-gaussian_nll(np.array([[x]]), np.array([[mean]]), np.array(logvar))[0][0])

    # Beyond 12 sigma lies 4e-33 of the mass; quad bounds its own error, 1e-12 is for rounding.
    integral, error = integrate.quad(density, mean - 12 * sigma, mean + 12 * sigma)
    assert error < 1e-6
    assert abs(integral - 1) < error + 1e-12


def test_a_density_above_1_gives_a_negative_loss():
    nll, _ = gaussian_nll(np.zeros((1, 3)), np.zeros((1, 3)), np.array(-10.0))
    # Exactly 3 (log(2 pi) - 10) / 2, in a handful of roundings.
    assert nll[0] == pytest.approx(1.5 * (math.log(2 * math.pi) - 10), rel=1e-15)


@pytest.mark.parametrize("variance", [0.25, 4, np.float32(0.25), np.int64(4)])
def test_a_number_fixes_the_variance(rng, variance):
    x, mean = rng.normal(size=(2, 5, 3))
    likelihood = gaussian(3, variance)
    nll, cache = likelihood.nll(x, mean)
    expected = -stats.norm.logpdf(x, mean, math.sqrt(variance)).sum(axis=1)
    # exp(-log(variance)) and a dozen more roundings of 1e-16, relative to summands of about 10.
    assert np.allclose(nll, expected, rtol=1e-14, atol=1e-14)
    assert likelihood.nll_backward(np.ones(5), cache).shape == (5, 3)
    assert not list(likelihood.named_parameters())


def test_per_dimension_variance_is_the_second_half_of_the_output(rng):
    x, mean, logvar = rng.normal(size=(3, 5, 4))
    dnll = rng.normal(size=5)
    likelihood = gaussian(4, "per-dimension")
    assert likelihood.output_dim == 8
    output = np.concatenate([mean, logvar], axis=1)  # (B, 2D)
    nll, cache = likelihood.nll(x, output)
    expected, expected_cache = gaussian_nll(x, mean, logvar)
    assert np.array_equal(nll, expected)
    halves = gaussian_nll_backward(dnll, expected_cache)
    assert np.array_equal(likelihood.nll_backward(dnll, cache), np.concatenate(halves, axis=1))
    assert np.array_equal(likelihood.mean(output), mean)
    assert not list(likelihood.named_parameters())


def test_k_samples_of_a_batch_are_k_batches(rng):
    x, outputs = rng.normal(size=(5, 4)), rng.normal(size=(3, 5, 8))  # (B, D), (K, B, 2D)
    dnll = rng.normal(size=(3, 5))
    likelihood = gaussian(4, "per-dimension")
    nll, cache = likelihood.nll(x, outputs)
    gradient = likelihood.nll_backward(dnll, cache)
    for k in range(3):
        alone, cache = likelihood.nll(x, outputs[k])
        assert np.array_equal(nll[k], alone)
        assert np.array_equal(gradient[k], likelihood.nll_backward(dnll[k], cache))


def test_the_best_shared_variance_is_the_mean_squared_error(rng):
    x, mean = rng.normal(0, 3, (2, 50, 4))
    likelihood = gaussian(4, "shared")
    ((name, logvar),) = likelihood.named_parameters()
    assert name == "logvar"
    assert logvar.value == 0  # it starts as the unit variance

    def loss_and_gradient():
        logvar.grad[...] = 0
        nll, cache = likelihood.nll(x, mean)
        likelihood.nll_backward(np.full(50, 1 / 50), cache)
        return nll.mean(), logvar.grad[0]

    best = np.log(np.mean((x - mean) ** 2))
    logvar.value[...] = best
    least, slope = loss_and_gradient()
    # A sum of 200 summands of size 1, each divided by 50, that cancel but for their roundings.
    assert abs(slope) < 200 * 4 * np.finfo(float).eps
    for side in (-0.1, 0.1):
        logvar.value[...] = best + side
        loss, slope = loss_and_gradient()
        assert loss > least
        assert slope * side > 0


def test_the_gradient_of_a_shared_variance_accumulates(rng):
    x, mean = rng.normal(size=(2, 5, 3))
    likelihood = gaussian(3, "shared")
    _, cache = likelihood.nll(x, mean)
    likelihood.nll_backward(np.ones(5), cache)
    once = likelihood.logvar.grad.copy()
    likelihood.nll_backward(np.ones(5), cache)
    assert once != 0
    assert np.array_equal(likelihood.logvar.grad, 2 * once)  # doubling is exact


def test_means_are_the_distributions_own(rng):
    output = rng.normal(size=(5, 3))
    # SciPy's and ours both round a few times in the last place.
    assert np.allclose(Bernoulli(3).mean(output), special.expit(output), rtol=1e-15, atol=0)
    assert np.array_equal(gaussian(3, 1.0).mean(output), output)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variance", [0.3, "shared", "per-dimension"])
def test_the_dtype_is_kept_and_no_argument_is_changed(rng, dtype, variance):
    for likelihood in (Bernoulli(3), gaussian(3, variance, dtype)):
        x = rng.uniform(size=(5, 3)).astype(dtype)
        output = rng.normal(size=(5, likelihood.output_dim)).astype(dtype)
        dnll = np.ones(5, dtype)
        for array in (x, output, dnll):
            array.setflags(write=False)  # whoever writes into it raises ValueError
        nll, cache = likelihood.nll(x, output)
        gradient = likelihood.nll_backward(dnll, cache)
        assert nll.dtype == gradient.dtype == likelihood.mean(output).dtype == dtype
        assert gradient.shape == output.shape


@pytest.mark.parametrize("variance", [0, -1.0, math.inf, math.nan, True, None, "learned"])
def test_an_unusable_variance_is_named(variance):
    with pytest.raises(InputError, match=f"variance is {variance!r}: expected a positive number"):
        gaussian(3, variance)


def test_an_unknown_likelihood_is_named():
    with pytest.raises(InputError) as error:
        get_likelihood("poisson", 3, 1.0, NUMPY, "float64")
    assert str(error.value) == (
        "unknown likelihood 'poisson': expected 'bernoulli', 'gaussian' or an object with binary, "
        "output_dim, nll, nll_backward, mean"
    )
