"""The mixture prior: its density, its KL and their gradients, and the models that have one.

That they are PyTorch's: oracles/test_torch_priors.py.
"""

import copy
import json
import pickle
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import standin
from scipy import integrate, special, stats

import scratchvae as sv
from scratchvae import checkpoint, evaluation, gaussian, parallel, plots, priors
from scratchvae.backend import asnumpy, get_backend
from scratchvae.cli import main
from scratchvae.datasets import Dataset
from scratchvae.gradcheck import check, check_model
from scratchvae.run import Options


def mixture(rng, components=4, latent_dim=3, spread=1.0, **own):
    """A mixture whose components differ in all; with a small spread none is far from the others."""
    prior = sv.MixturePrior(latent_dim, components, **{"dtype": "float64", **own})
    for p, scale in (prior.logits, 1.0), (prior.mean, 1.5), (prior.logvar, 0.7):
        p.value[...] = spread * scale * rng.normal(size=p.shape)
    return prior


def by_scipy(prior, z):
    """Return log pi_k + log N(z; m_k, s_k^2), (..., K), from its definition."""
    scale = np.exp(prior.logvar.value / 2)
    log_n = stats.norm.logpdf(z[..., None, :], prior.mean.value, scale).sum(axis=-1)
    return special.log_softmax(prior.logits.value) + log_n


def make(rng, kind=sv.VAE, components=4, **options):
    """A float64 model of 6 pixels with such a prior."""
    options = {"hidden": (5,), "latent_dim": 2, "activation": "tanh", "dtype": "float64", **options}
    # A component that no code is near has a gradient too small for a difference quotient.
    options = {"prior": mixture(rng, components, 2, spread=0.4), **options}
    return kind(6, rng=rng, **options)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (4, 6)).astype(np.float64)


# ----------------------------------------------------------------------------------------- density


@pytest.mark.proves("mixture-square", "mixture-component", "mixture-log-density")
@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (7, 3), (2, 5, 3)])
def test_the_density_is_scipys(rng, shape, components):
    prior, z = mixture(rng, components), 2 * rng.normal(size=shape)
    log_p, _ = prior.log_density(z)
    assert log_p.shape == shape[:-1]
    # Squares of up to some thousand, from some hundred roundings of 1e-16 each.
    expected = special.logsumexp(by_scipy(prior, z), axis=-1)
    np.testing.assert_allclose(log_p, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.proves("mixture-grad-logits", "mixture-grad-mean", "mixture-grad-logvar")
@pytest.mark.proves("mixture-grad-z")
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3)])
def test_its_gradients_are_difference_quotients(rng, shape):
    prior = mixture(rng, spread=0.4)
    layer = SimpleNamespace(
        forward=prior.log_density,
        backward=prior.log_density_backward,
        named_parameters=prior.named_parameters,
    )
    report = check(layer, [rng.normal(size=shape)], rng=int(rng.integers(2**31)))
    assert report.ok
    assert report.error < 1e-7


@pytest.mark.proves("mixture-responsibility", "mixture-grad-logits", "mixture-grad-mean")
@pytest.mark.proves("mixture-grad-logvar", "mixture-grad-z")
def test_its_gradients_are_what_is_written_here(rng):
    """With the array (B, K, Z) of all differences, which the package avoids."""
    prior, z, dlogp = mixture(rng), rng.normal(size=(6, 3)), rng.normal(size=6)
    _, cache = prior.log_density(z)
    dz = prior.log_density_backward(dlogp, cache)
    r = special.softmax(by_scipy(prior, z), axis=1)  # (B, K)
    apart = (z[:, None] - prior.mean.value) / np.exp(prior.logvar.value / 2)  # (B, K, Z)
    pull = apart / np.exp(prior.logvar.value / 2)
    pi = special.softmax(prior.logits.value)
    expected = {
        "z": (dlogp[:, None, None] * r[..., None] * -pull).sum(axis=1),
        "logits": (dlogp[:, None] * (r - pi)).sum(axis=0),
        "mean": (dlogp[:, None, None] * r[..., None] * pull).sum(axis=0),
        "logvar": (dlogp[:, None, None] * r[..., None] * (apart**2 - 1) / 2).sum(axis=0),
    }
    found = {"z": dz} | {name: p.grad for name, p in prior.named_parameters()}
    for name, gradient in expected.items():
        atol = 1e-11 * abs(gradient).max()
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=atol, err_msg=name)


def test_gradients_add_up_over_calls_and_leave_the_arguments_alone(rng):
    prior, z, dlogp = mixture(rng), rng.normal(size=(6, 3)), rng.normal(size=6)
    for a in z, dlogp:
        a.flags.writeable = False
    _, cache = prior.log_density(z)
    prior.log_density_backward(dlogp, cache)
    once = [p.grad.copy() for _, p in prior.named_parameters()]
    prior.log_density_backward(dlogp, cache)
    for (_, p), gradient in zip(prior.named_parameters(), once, strict=True):
        np.testing.assert_array_equal(p.grad, 2 * gradient)


def test_a_narrow_component_far_from_zero_keeps_its_digits_in_float32(rng):
    """Expanded in float32, the square would be a difference of numbers near 10^7."""
    prior = mixture(rng, 3, 4, dtype="float32")
    prior.mean.value[...] = rng.uniform(2, 4, (3, 4))
    prior.logvar.value[...] = 2 * np.log(1e-3)
    eps = rng.normal(size=(50, 4))
    z = (prior.mean.value[np.arange(50) % 3] + 1e-3 * eps).astype(np.float32)
    log_p, cache = prior.log_density(z)
    assert log_p.dtype == np.float32
    as_double = SimpleNamespace(**{n: sv.Parameter(p.value.astype(np.float64))
                                   for n, p in prior.named_parameters()})  # fmt: skip
    expected = special.logsumexp(by_scipy(as_double, z.astype(np.float64)), axis=1)
    np.testing.assert_allclose(log_p, expected, rtol=1e-6, atol=1e-6)  # as float32 rounds them
    dz = prior.log_density_backward(np.ones(50, np.float32), cache)
    assert dz.dtype == np.float32
    nearest = z.astype(np.float64) - prior.mean.value[np.arange(50) % 3].astype(np.float64)
    precision = np.exp(-prior.logvar.value.astype(np.float64))[0]
    np.testing.assert_allclose(dz, -nearest * precision, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("ratio", [1e3, 1e5, 1e7])
def test_the_error_of_the_square_is_what_the_derivation_says(rng, ratio):
    prior, eps = sv.MixturePrior(1, 1), rng.normal(size=(50, 1))
    prior.mean.value[...], prior.logvar.value[...] = ratio, 0
    expected = stats.norm.logpdf(ratio + eps, ratio)[:, 0]
    # 1e-10 nats at 1e3 and 0.01 at 1e7, with the larger eps some three times that.
    atol = 3e-16 * ratio**2
    np.testing.assert_allclose(prior.log_density(ratio + eps)[0], expected, rtol=0, atol=atol)


def test_codes_and_weights_too_far_for_a_float_are_no_nan(rng):
    prior = mixture(rng)
    prior.logits.value[...] = [-2000, 0, 2000, 1999]
    z = np.array([[1e6, 0, 0], [0, -1e6, 1e6], [0, 0, 0]])
    log_p, cache = prior.log_density(z)
    assert np.isfinite(log_p).all()
    assert log_p[0] < -1e10
    assert np.isfinite(prior.log_density_backward(np.ones(3), cache)).all()
    for _, p in prior.named_parameters():
        assert np.isfinite(p.grad).all()


def test_no_array_has_a_number_for_each_component_and_dimension_of_each_code(rng):
    """In bytes: (B, K) is 400 kB here, (B, K, Z) would be 16 MB."""
    prior, z = mixture(rng, 500, 40), rng.normal(size=(100, 40))

    def step():
        _, cache = prior.kl(0.5 * z, 0 * z, z)
        prior.kl_backward(np.ones(100), cache)

    step()
    tracemalloc.start()
    try:
        step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * (100 * 500 * 8)


# ---------------------------------------------------------------------------------------------- KL


def nodes(n, latent_dim):
    """Return noise (N, Z) and weights (N,) that give means over N(0, I) by quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(n)
    eps = np.stack(np.meshgrid(*[points] * latent_dim)).reshape(latent_dim, -1).T
    each = np.stack(np.meshgrid(*[weights / weights.sum()] * latent_dim)).reshape(latent_dim, -1)
    return eps, each.prod(axis=0)


def mean_kl(prior, mu, logvar, n):
    """Return the KL of one q, averaged over its draws, and (dmu, dlogvar), by quadrature."""
    eps, weights = nodes(n, len(mu))
    at = [np.tile(a, (len(eps), 1)) for a in (mu, logvar)]
    kl, cache = prior.kl(*at, mu + np.exp(logvar / 2) * eps)
    return weights @ kl, *(d.sum(axis=0) for d in prior.kl_backward(weights, cache))


@pytest.mark.proves("mixture-kl", "mixture-kl-grad")
def test_one_component_with_mean_0_and_variance_1_has_the_kl_from_n_0_i_on_average(rng):
    prior, mu, logvar = sv.MixturePrior(2, 1), rng.normal(size=2), rng.normal(size=2)
    prior.mean.value[...], prior.logvar.value[...] = 0, 0
    kl, cache = gaussian.kl_standard_normal(mu[None], logvar[None])
    expected = kl[0], *(d[0] for d in gaussian.kl_standard_normal_backward(np.ones(1), cache))
    # log p is a quadratic, for which 3 nodes are exact.
    for found, e in zip(mean_kl(prior, mu, logvar, 3), expected, strict=True):
        np.testing.assert_allclose(found, e, rtol=1e-12, atol=1e-12)


@pytest.mark.proves("mixture-kl")
def test_its_mean_is_the_kl_by_integration(rng):
    prior, mu, logvar = mixture(rng, 3, 1), rng.normal(size=1), rng.normal(size=1)
    sigma = np.exp(logvar[0] / 2)

    def integrand(z):
        log_q = stats.norm.logpdf(z, mu[0], sigma)
        return np.exp(log_q) * (log_q - special.logsumexp(by_scipy(prior, np.array([z]))))

    ends = mu[0] - 12 * sigma, mu[0] + 12 * sigma  # outside there are less than 1e-30
    expected, error = integrate.quad(integrand, *ends, epsabs=1e-11, epsrel=1e-11, limit=500)
    assert error < 1e-8
    # A sum over an even grid, which converges faster than any power of its step.
    eps = np.linspace(-12, 12, 10_001)[:, None]
    at = [np.broadcast_to(a, eps.shape) for a in (mu, logvar)]
    kl, _ = prior.kl(*at, mu + sigma * eps)
    found = (kl * stats.norm.pdf(eps[:, 0])).sum() * 24 / 10_000
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.proves("mixture-kl", "mixture-kl-grad")
def test_the_entropy_replaces_log_q_and_no_gradient_changes(rng):
    """log q at the draw depends on eps^2 where its mean has 1: a number without a gradient."""
    prior, eps = mixture(rng), rng.normal(size=(5, 3))
    mu, logvar, dkl = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=5)
    z, z_cache = gaussian.reparameterize(mu, logvar, eps)
    kl, cache = prior.kl(mu, logvar, z)
    log_q, q_cache = gaussian.log_density(z, mu, logvar)
    log_p, p_cache = prior.log_density(z)
    np.testing.assert_allclose(kl + (1 - eps**2).sum(axis=1) / 2, log_q - log_p, rtol=1e-11)
    dz, dmu, dlogvar = gaussian.log_density_backward(dkl, q_cache)
    dz = dz + prior.log_density_backward(-dkl, p_cache)
    dmu_z, dlogvar_z = gaussian.reparameterize_backward(dz, z_cache)
    for found, e in zip(
        prior.kl_backward(dkl, cache), (dmu + dmu_z, dlogvar + dlogvar_z), strict=True
    ):
        np.testing.assert_allclose(found, e, rtol=1e-11, atol=1e-11)


def test_which_of_the_two_is_less_noisy_depends_on_sigma(rng):
    """The page's rule: the entropy where sigma^2 < 1/2, log q where the posterior is wider."""
    prior = sv.MixturePrior(1, 1)
    prior.mean.value[...], prior.logvar.value[...] = 0, 0
    eps = rng.normal(size=(50_000, 1))
    for variance in 0.1, 0.9:
        logvar = np.full_like(eps, np.log(variance))
        z = variance**0.5 * eps
        kl = prior.kl(0 * eps, logvar, z)[0]
        at_draw = gaussian.log_density(z, 0 * eps, logvar)[0] - prior.log_density(z)[0]
        # Variances of 50,000 squares: 1% off.
        assert kl.var() == pytest.approx(variance**2 / 2, rel=0.1)
        assert at_draw.var() == pytest.approx((1 - variance) ** 2 / 2, rel=0.1)


def test_the_best_single_gaussian_has_the_moments_of_all_codes(rng):
    """At the mean and the variance of the codes of all examples together nothing pulls at it."""
    mu, logvar = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    prior = sv.MixturePrior(2, 1)
    mean = mu.mean(axis=0)
    variance = (np.exp(logvar) + mu**2).mean(axis=0) - mean**2
    prior.mean.value[...], prior.logvar.value[...] = mean, np.log(variance)
    for m, lv in zip(mu, logvar, strict=True):
        mean_kl(prior, m, lv, 3)
    for _, p in prior.named_parameters():
        assert abs(p.grad).max() < 1e-12  # sums of some ten numbers near 1
    prior.mean.value[...] *= 1.01
    mean_kl(prior, mu[0], logvar[0], 3)
    assert abs(prior.mean.grad).max() > 1e-4


# ------------------------------------------------------------------------------ its start and draws


def test_it_starts_as_different_components_that_are_together_about_n_0_i(rng):
    prior = sv.MixturePrior(3, 4000, rng=rng)
    np.testing.assert_array_equal(prior.logits.value, 0)
    np.testing.assert_allclose(np.exp(prior.logvar.value), 0.5, rtol=1e-15)
    m = prior.mean.value
    assert len(np.unique(m)) == m.size
    # 6 standard errors of means of 4,000 numbers: sqrt(1/2) and, of squares, sqrt(2)/2 over 63.
    assert abs(m.mean(axis=0)).max() < 6 * 0.5**0.5 / 63
    assert abs((m**2).mean(axis=0) + 0.5 - 1).max() < 6 * 0.5 * 2**0.5 / 63


def test_its_start_is_repeated_by_its_seed_on_every_dtype():
    one, other = sv.MixturePrior(3, 4), sv.MixturePrior(3, 4, dtype="float32")
    assert (one.mean.value.dtype, other.mean.value.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(one.mean.value.astype(np.float32), other.mean.value)
    assert not np.array_equal(one.mean.value, sv.MixturePrior(3, 4, rng=1).mean.value)


def test_draws_are_of_the_mixture(rng):
    prior = mixture(rng, 3, 1)
    prior.mean.value[:, 0] = -3, 0, 4  # apart, and not equally likely: either could hide an error
    prior.logits.value[...] = rng.permutation([-1, 0, 1])
    z = prior.draw(rng.normal(size=(20_000, 1)), rng)[:, 0]
    pi = special.softmax(prior.logits.value)
    scale = np.exp(prior.logvar.value[:, 0] / 2)
    mean = prior.mean.value[:, 0]
    assert stats.kstest(z, lambda a: stats.norm.cdf(a[:, None], mean, scale) @ pi).pvalue > 1e-9


def test_draws_in_float32_need_no_weights_that_add_up_to_1_in_it(rng):
    for _ in range(20):
        prior = mixture(rng, 500, 2, dtype="float32")
        z = prior.draw(rng.standard_normal((7, 2), dtype=np.float32), rng)
        assert (z.shape, z.dtype) == ((7, 2), np.float32)


def test_all_dimensions_of_a_draw_are_of_one_component(rng):
    prior, n = mixture(rng, 3, 2), 3000
    prior.mean.value[...] = [[-100, -100], [0, 0], [100, 100]]
    eps = rng.normal(size=(n, 2))
    z = prior.draw(eps, rng)
    k = (z[:, 0].round(-2) / 100 + 1).astype(int)
    np.testing.assert_allclose(
        z, prior.mean.value[k] + np.exp(prior.logvar.value[k] / 2) * eps, rtol=1e-12, atol=1e-12
    )
    pi = special.softmax(prior.logits.value)
    apart = np.bincount(k, minlength=3) / n - pi
    assert np.all(abs(apart) < 6 * np.sqrt(pi * (1 - pi) / n) + 1e-12)


def test_samples_are_decoded_draws_that_a_seed_repeats(rng):
    model = make(rng)
    z = model.draw_prior(5, np.random.default_rng(3))
    generator = np.random.default_rng(3)
    eps = generator.standard_normal((5, 2))
    np.testing.assert_array_equal(z, model.prior.draw(eps, generator))
    np.testing.assert_array_equal(model.sample(5, 3), model.decode(z))
    assert not np.array_equal(model.sample(5, 4), model.sample(5, 3))


# ------------------------------------------------------------------------------------------- models


@pytest.mark.proves("mixture-kl-grad")
@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("variance", [None, 0.5, "shared", "per-dimension"])
def test_the_gradient_of_a_vae_is_the_derivative_of_its_loss(rng, x, variance, beta):
    own = {"likelihood": "gaussian", "variance": variance} if variance else {}
    model = make(rng, beta=beta, **own)
    assert model.params.names[-3:] == ["prior.logits", "prior.mean", "prior.logvar"]
    report = check_model(model, x, model.draw_eps(4, rng), rng=int(rng.integers(2**31)))
    assert report.ok
    assert report.error < 1e-7


@pytest.mark.parametrize("kind", [sv.IWAE, sv.ConditionalVAE])
def test_so_are_those_of_the_other_models(rng, x, kind):
    own = {"samples": 3} if kind is sv.IWAE else {"classes": 3}
    model = make(rng, kind, **own)
    rows = model.rows(x, rng.integers(0, 3, 4))
    report = check_model(model, rows, model.draw_eps(4, rng), rng=int(rng.integers(2**31)))
    assert report.ok
    assert report.error < 1e-7


@pytest.mark.proves("mixture-kl")
def test_the_kl_of_the_loss_is_taken_at_the_draw_that_is_decoded(rng, x):
    model = make(rng, beta=0.3)
    eps = model.draw_eps(4, rng)
    terms, _ = model.forward(x, eps)
    mu, logvar = model.encode(x)
    log_p = special.logsumexp(by_scipy(model.prior, model.codes(x, eps)), axis=1)
    kl = -stats.norm.entropy(mu, np.exp(logvar / 2)).sum(axis=1) - log_p
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(terms.loss, terms.reconstruction + 0.3 * kl, rtol=1e-12)


def test_a_model_with_the_default_prior_is_what_it_was(rng, x):
    plain = sv.VAE(6, (5,), 2, dtype="float64", rng=1)
    named = sv.VAE(6, (5,), 2, dtype="float64", rng=1, prior="normal")
    handed_in = sv.VAE(6, (5,), 2, dtype="float64", rng=1, prior=priors.StandardNormal())
    eps = plain.draw_eps(4, rng)
    for model in plain, named, handed_in:
        assert model.loss_and_grad(x, eps) == plain.loss_and_grad(x, eps)
        np.testing.assert_array_equal(model.params.grad, plain.params.grad)
        assert repr(model) == "VAE(6, hidden=(5,), latent_dim=2, dtype='float64')"
        assert model.config() == plain.config()
        z = model.draw_prior(3, np.random.default_rng(5))
        np.testing.assert_array_equal(z, np.random.default_rng(5).standard_normal((3, 2)))
        expected = stats.norm.logpdf(z).sum(axis=1)
        np.testing.assert_allclose(model.log_prior(z), expected, rtol=1e-14)


def linear(rng, prior):
    """Return a VAE with a linear decoder and log p(x), a mixture of Gaussians in closed form."""
    model = sv.VAE(
        3, (), 2, likelihood="gaussian", variance=0.6, dtype="float64", prior=prior, rng=rng
    )
    w, b = model.params["decoder.0.W"].value, model.params["decoder.0.b"].value
    pi = special.softmax(prior.logits.value)

    def log_p(x):
        each = [
            stats.multivariate_normal.logpdf(x, m @ w + b, w.T * v @ w + 0.6 * np.eye(3))
            for m, v in zip(prior.mean.value, np.exp(prior.logvar.value), strict=True)
        ]
        return special.logsumexp(np.log(pi)[:, None] + np.array(each), axis=0)

    return model, log_p


def test_importance_weights_have_the_mean_p_of_x(rng):
    model, log_p = linear(rng, mixture(rng, 3, 2))
    x = rng.normal(size=(3, 3))
    model.params["encoder.0.b"].value[2:] = 2.5  # a wide q, so that no weight is huge
    w = np.exp(
        evaluation.log_importance_weights(model, x, rng.normal(size=(100_000, 3, 2))) - log_p(x)
    )
    assert np.all(abs(w.mean(axis=0) - 1) < 6 * w.std(axis=0) / 100_000**0.5)
    assert w.std(axis=0).max() < 30
    bound = evaluation.importance_weighted_bound(model, [x], 5000, rng)
    np.testing.assert_allclose(bound, log_p(x), atol=0.5)


def test_the_loss_of_an_iwae_is_the_bound_of_the_evaluation(rng, x):
    model = make(rng, sv.IWAE, samples=5)
    eps = model.draw_eps(4, rng)
    log_w = evaluation.log_importance_weights(model, x, eps)
    expected = np.log(5) - special.logsumexp(log_w, axis=0)
    np.testing.assert_allclose(model.forward(x, eps)[0].loss, expected, rtol=1e-13)


def test_a_conditional_vae_draws_its_codes_from_it(rng):
    model = make(rng, sv.ConditionalVAE, classes=3)
    z = model.draw_prior(4, np.random.default_rng(2))
    generator = np.random.default_rng(2)
    expected = model.prior.draw(generator.standard_normal((4, 2)), generator)
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(model.sample(4, 2, label=1), model.decode(z, 1))


def test_a_large_batch_is_taken_in_parts(rng, monkeypatch):
    info = [{"user_api": "blas", "num_threads": 2}]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: info)
    model = make(rng)
    x, eps = rng.random((1024, 6)), model.draw_eps(1024, rng)
    expected, gradient = model.loss_and_grad(x, eps), model.params.grad.copy()
    with parallel.in_parts(model, 1024) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        found = loss_and_grad(x, eps)
    # Sums of 1,024 float64 numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    atol = 1e-12 * abs(gradient).max()
    np.testing.assert_allclose(model.params.grad, gradient, rtol=0, atol=atol)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_parameters_of_its_own(rng, x, copied):
    model = make(rng)
    other, eps = copied(model), model.draw_eps(4, rng)
    assert other.loss_and_grad(x, eps) == model.loss_and_grad(x, eps)
    other.params["prior.mean"].value[...] += 1
    np.testing.assert_array_equal(other.prior.mean.value, model.prior.mean.value + 1)
    other.check_parts()


def test_a_twin_shares_the_values_only(rng):
    model = make(rng)
    twin = model.twin()
    assert np.shares_memory(twin.prior.mean.value, model.params.value)
    assert not np.shares_memory(twin.prior.mean.grad, model.params.grad)


def test_it_prints_as_what_was_asked_for(rng):
    assert repr(sv.MixturePrior(2, 5)) == "MixturePrior(2, 5)"
    model = sv.VAE(6, (5,), 2, prior=sv.MixturePrior(2, 5))
    assert repr(model) == "VAE(6, hidden=(5,), latent_dim=2, prior='mixture', components=5)"
    assert "prior      MixturePrior                        25" in model.summary()
    assert repr(sv.IWAE(6, (5,), 2, samples=3, prior="mixture")) == (
        "IWAE(6, hidden=(5,), latent_dim=2, prior='mixture', components=10, samples=3)"
    )


# ------------------------------------------------------------------------- training, files and runs


@pytest.fixture
def images(rng):
    """Stripes, so that there is something to learn."""
    return (127 + 127 * np.sign(rng.normal(size=(80, 4, 1)))).astype(np.uint8).repeat(4, axis=2)


def make_trainer(images, seed, backend="numpy"):
    how = {"rng": seed, "backend": get_backend(backend, noise="host")}
    model = sv.VAE(16, (5,), 2, prior="mixture", components=3, **how)
    return sv.Trainer(model, sv.Adam(model.params, 1e-2), images, batch_size=16, seed=0)


def test_it_trains_and_its_components_move_apart(images, rng):
    trainer = make_trainer(images, int(rng.integers(2**31)))
    before = trainer.model.params.value.copy()
    trainer.run(150)
    assert trainer.metrics[-1]["train_loss"] < trainer.metrics[0]["train_loss"]
    after = trainer.model.params
    moved = {n: after[n].value - after.view(before, n) for n in after.names if "prior" in n}
    assert all(abs(d).max() > 0.02 for d in moved.values())  # further than in two steps
    assert np.ptp(moved["prior.mean"], axis=0).max() > 0.02


def test_it_resumes_bitwise(images, rng, tmp_path):
    seed = int(rng.integers(2**31))
    whole, stopped, resumed = (make_trainer(images, seed) for _ in range(3))
    whole.run(4)
    stopped.run(2, on_step=lambda terms: setattr(stopped, "stop", stopped.epoch == 1))
    assert (stopped.epoch, stopped.batch) == (1, 1)
    checkpoint.save(path := tmp_path / "checkpoint.safetensors", *stopped.state())
    resumed.restore(*checkpoint.load(path), path)
    resumed.run(4)
    np.testing.assert_array_equal(resumed.model.params.value, whole.model.params.value)


def test_it_runs_on_a_device_that_the_host_does_not_wait_for(images, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    seed = int(rng.integers(2**31))
    host, device = (make_trainer(images, seed, b) for b in ("numpy", "cupy"))
    for trainer in host, device:
        trainer.run(2)
    # The stand-in computes with NumPy: the same numbers, unless a sum is taken in another order.
    found, expected = asnumpy(device.model.params.value), host.model.params.value
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    drawn = [trainer.model.sample(6, 7) for trainer in (host, device)]
    np.testing.assert_allclose(asnumpy(drawn[1]), drawn[0], rtol=1e-3, atol=1e-4)
    x = device.model.backend.asarray(images.reshape(80, -1)[:16] / np.float32(255))
    eps = device.model.draw_eps(16, rng)
    with standin.counting() as count:
        device.model.loss_and_grad(x, eps)
    assert count.waits == 0


def test_a_prior_without_backend_takes_the_models(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    prior = sv.MixturePrior(2, 3)
    mean = prior.mean.value.copy()
    model = sv.VAE(6, (5,), 2, prior=prior, backend="cupy")
    value = model.prior.mean.value
    assert not isinstance(value, np.ndarray)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(asnumpy(value), mean.astype(np.float32))
    with pytest.raises(sv.InputError, match=r"prior\.logits is a numpy array .*: expected cupy"):
        sv.VAE(6, (5,), 2, prior=sv.MixturePrior(2, 3, backend="numpy"), backend="cupy",
               dtype="float64")  # fmt: skip


def test_a_prior_keeps_the_numbers_that_it_is_handed_in_with(rng):
    prior = sv.MixturePrior(2, 3)
    prior.logits.value[...] = [1, 2, 3]
    kept = prior.logits
    model = sv.VAE(6, (5,), 2, prior=prior, dtype="float64")
    assert model.params["prior.logits"] is kept  # nothing had to change
    np.testing.assert_array_equal(model.params["prior.logits"].value, [1, 2, 3])


@pytest.mark.parametrize("kind", [sv.VAE, sv.IWAE, sv.ConditionalVAE])
def test_it_is_saved_and_loaded(rng, tmp_path, kind):
    own = {"samples": 3} if kind is sv.IWAE else {}
    model = make(rng, kind, **own)
    model.save(path := tmp_path / "model.safetensors")
    loaded = sv.load(path)
    assert (type(loaded), repr(loaded)) == (kind, repr(model))
    np.testing.assert_array_equal(loaded.params.value, model.params.value)
    np.testing.assert_array_equal(loaded.sample(3, 1), model.sample(3, 1))
    with pytest.raises(sv.InputError, match="components was 4, and is 5 in the model"):
        sv.load(path, into=make(rng, kind, components=5, **own))
    with pytest.raises(sv.InputError, match=r"it holds prior\.logits, which the model lacks"):
        sv.load(path, into=make(rng, kind, prior="normal", **own))
    make(rng, kind, prior="normal", **own).save(plain := tmp_path / "plain.safetensors")
    with pytest.raises(sv.InputError, match=r"prior\.logits is nothing, expected float64"):
        sv.load(plain, into=model)


def test_a_file_that_tells_of_a_huge_mixture_is_refused_before_it_is_made(rng, tmp_path):
    make(rng).save(path := tmp_path / "model.safetensors")
    arrays, values = checkpoint.load(path)
    for n in 10**12, 10**18, -1, "many":
        values["config"]["model"]["components"] = n
        checkpoint.save(path, arrays, values)
        with pytest.raises(sv.InputError, match="made with another configuration"):
            sv.load(path)


class OwnPrior(priors.StandardNormal):
    """N(0, 4 I), as somebody else might write it."""

    standard = False

    def log_density(self, z):
        zero = np.zeros((), z.dtype)
        return gaussian.log_density(z, zero, zero + np.log(4))

    def kl(self, mu, logvar, z):
        kl, cache = gaussian.kl_standard_normal(mu / 2, logvar - np.log(4))
        return kl, cache

    def kl_backward(self, dkl, cache):
        dmu, dlogvar = gaussian.kl_standard_normal_backward(dkl, cache)
        return dmu / 2, dlogvar

    def draw(self, eps, rng):
        return 2 * eps

    def __repr__(self):
        return "OwnPrior()"


def test_the_models_generator_draws_the_means_of_a_mixture():
    first, other, again = (sv.VAE(6, (3,), 2, prior="mixture", rng=seed) for seed in (1, 2, 1))
    assert (first.prior.mean.value != other.prior.mean.value).all()
    np.testing.assert_array_equal(first.prior.mean.value, again.prior.mean.value)


def test_a_prior_of_your_own_takes_part(rng, x, tmp_path):
    model = make(rng, prior=OwnPrior())
    report = check_model(model, x, model.draw_eps(4, rng), rng=int(rng.integers(2**31)))
    assert report.ok
    np.testing.assert_array_equal(
        model.draw_prior(3, np.random.default_rng(1)),
        2 * np.random.default_rng(1).standard_normal((3, 2)),
    )
    assert model.config()["kind"] is None
    assert model.config()["prior"] == "OwnPrior()"
    assert repr(priors.StandardNormal()) == "StandardNormal()"
    assert "OwnPrior()" in repr(model)
    model.save(path := tmp_path / "model.safetensors")
    with pytest.raises(sv.InputError, match="a file alone cannot build"):
        sv.load(path)
    assert sv.load(path, into=model) is model


def test_figures_that_need_n_0_i_are_left_out(images, rng, tmp_path):
    data = Dataset.from_arrays(images, test=images[:20])
    for prior in "normal", "mixture":
        model = sv.VAE(16, (5,), 2, prior=prior)
        names = {p.stem for p in plots.write_figures(model, data, [], tmp_path / prior)}
        of_both = {"reconstructions", "samples", "latent_plane"}
        assert names == of_both | ({"kl_per_dimension", "manifold"} if prior == "normal" else set())


RUN = ["train", "--hidden", "8", "--prior", "mixture", "--components", "3", "--epochs", "2"]


@pytest.mark.parametrize("more", [[], ["--objective", "iwae", "--samples", "2"], ["--conditional"]])
def test_the_command_line_trains_resumes_bitwise_evaluates_and_draws(tmp_path, capsys, more):
    out = str(tmp_path / "run")
    assert main([*RUN, *more, "--out", out]) == 0
    kind = {"--objective": "IWAE of 2 samples", "--conditional": "ConditionalVAE"}
    name = kind.get(more[0] if more else "", "VAE")
    assert capsys.readouterr().out.startswith(f"{name} with 3 components 64-8-2-8-64, ")
    assert main(["train", "--resume", "--out", out, "--epochs", "3"]) == 0
    options = {"conditional": True} if more == ["--conditional"] else {}
    options |= {"objective": "iwae", "samples": 2} if len(more) > 1 else {}
    options |= {"hidden": (8,), "prior": "mixture", "components": 3, "epochs": 3}
    whole = sv.run.new(Options(**options), tmp_path / "whole")
    whole.train()
    model = sv.load(out)
    assert repr(model.prior) == "MixturePrior(2, 3)"
    np.testing.assert_array_equal(model.params.value, whole.model.params.value)
    capsys.readouterr()
    assert main(["evaluate", out, "--nll-samples", "20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_loss"] == whole.trainer.metrics[-1]["test_loss"]
    assert "kl_per_dimension" not in result
    assert np.isfinite(result["nll"])
    assert main(["evaluate", out]) == 0
    assert "KL by dimension" not in capsys.readouterr().out
    assert main(["sample", out, "-n", "4", "--out", str(tmp_path / "s.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), model.sample(4, 0))
    capsys.readouterr()
    assert main(["train", "--resume", "--out", out, "--epochs", "4", "--components", "4"]) == 2
    assert "--components was 3, this command asks for 4" in capsys.readouterr().err


def test_a_run_of_an_older_version_has_no_such_options_and_the_prior_n_0_i(tmp_path):
    assert main(["train", "--hidden", "8", "--epochs", "1", "--out", str(tmp_path)]) == 0
    arrays, values = checkpoint.load(path := tmp_path / "checkpoint.safetensors")
    for name in "prior", "components":
        values["config"]["options"].pop(name)
    checkpoint.save(path, arrays, values)
    options = sv.run.open(tmp_path).options
    assert (options.prior, options.components) == ("normal", 1)
    assert main(["train", "--resume", "--epochs", "2", "--out", str(tmp_path)]) == 0


def test_a_mixture_has_ten_components_unless_told_otherwise():
    assert Options(prior="mixture").components == 10
    assert Options().components == Options(components=1).components == 1
    assert sv.VAE(6, prior="mixture").prior.components == 10


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make_it", "sentence"),
    [
        (lambda: sv.MixturePrior(2, 0), "components is 0: expected a positive integer"),
        (lambda: sv.MixturePrior(0, 2), "latent_dim is 0: expected a positive integer"),
        (
            lambda: sv.VAE(6, prior="mixture", components=0),
            "components is 0: expected a positive integer",
        ),
        (
            lambda: sv.VAE(6, components=5),
            "components is 5 with the prior 'normal': expected it with prior='mixture' only",
        ),
        (
            lambda: sv.VAE(6, prior=sv.MixturePrior(20, 3), components=3),
            "components is 3 with the prior MixturePrior(20, 3): expected it with prior='mixture' "
            "only",
        ),
        (
            lambda: sv.VAE(6, latent_dim=2, prior=sv.MixturePrior(3, 5)),
            "the prior is MixturePrior(3, 5), for codes of 3 numbers: expected one for 2, the "
            "latent_dim of the model",
        ),
        (
            lambda: sv.VAE(6, latent_dim=2, prior=sv.MixturePrior(2, 5, dtype="float64")),
            "prior.logits is a numpy array of float64: expected numpy and float32, the backend and "
            "the dtype of the model",
        ),
        (
            lambda: sv.VAE(6, prior="uniform"),
            "unknown prior 'uniform': expected 'normal', 'mixture' or an object with standard, "
            "log_density, log_density_backward, draw, kl, kl_backward",
        ),
        (
            lambda: sv.VAE(6, prior=sv.MixturePrior),
            "unknown prior <class 'scratchvae.mixture.MixturePrior'>: expected 'normal', 'mixture' "
            "or an object with standard, log_density, log_density_backward, draw, kl, kl_backward",
        ),
        (
            lambda: sv.VAE(6, prior=None),
            "unknown prior None: expected 'normal', 'mixture' or an object with standard, "
            "log_density, log_density_backward, draw, kl, kl_backward",
        ),
        (
            lambda: sv.VAE(6, latent_dim=2, prior="mixture", free_bits=0.5),
            "free_bits is 0.5: it charges the KL of each latent dimension, and from "
            "MixturePrior(2, 10) there is one of the whole code only, so leave it at 0",
        ),
        (
            lambda: evaluation.kl_of_dimensions(sv.VAE(6, latent_dim=2, prior="mixture"), []),
            "the KL of each dimension needs the prior N(0, I): from MixturePrior(2, 10) only that "
            "of the whole code is known",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(make_it, sentence):
    with pytest.raises(sv.InputError) as caught:
        make_it()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["kl", "reparameterize"])
def test_a_formula_that_the_prior_would_not_see_is_refused(name):
    def other(*args):
        return getattr(sv.VAE, name)(*args)

    of_own = type("Mine", (sv.VAE,), {name: staticmethod(other)})
    of_own(6, latent_dim=2)
    with pytest.raises(sv.InputError) as caught:
        of_own(6, latent_dim=2, prior="mixture")
    assert str(caught.value) == (
        "the prior MixturePrior(2, 10) brings a KL of its own, at the draw of VAE, and the "
        f"model replaces VAE.{name}: expected the prior 'normal'"
    )


@pytest.mark.parametrize("name", ["kl", "kl_backward", "reparameterize"])
def test_a_formula_of_one_object_that_the_prior_would_not_see_is_refused(name, x):
    model = sv.VAE(6, latent_dim=2, prior="mixture")
    setattr(model, name, lambda *args: getattr(sv.VAE, name)(*args))
    with pytest.raises(sv.InputError, match=f"and the model replaces VAE.{name}: expected the"):
        model.loss_and_grad(x)


@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_a_prior_that_was_changed_afterwards_is_noticed(rng, x, prior):
    model = sv.VAE(6, (5,), 2, dtype="float64", prior=prior)
    optimizer = sv.Adam(model.params)
    model.prior = sv.MixturePrior(2, 3)
    with pytest.raises(sv.InputError, match=r"a part of the model was changed .*\(prior.logits is"):
        model.loss_and_grad(x)
    model.gather()
    model.loss_and_grad(x)
    with pytest.raises(sv.InputError, match=r"now belongs to other vectors .* a new optimizer"):
        optimizer.step()
    model.prior = sv.MixturePrior(3, 3)
    with pytest.raises(sv.InputError, match="for codes of 3 numbers: expected one for 2"):
        model.gather()
