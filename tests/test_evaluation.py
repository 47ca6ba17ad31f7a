"""Bounds in their order, converging to log p(x), and counts that mean what they say."""

import numpy as np
import pytest
from scipy import integrate, stats

import scratchvae as sv
from scratchvae import evaluation


@pytest.fixture
def model(rng):
    model = sv.VAE(5, hidden=(7,), latent_dim=1, activation="tanh", dtype="float64", rng=rng)
    model.params.value[...] *= 2  # a decoder that uses z, and a posterior that is not the prior:
    model.params["encoder.2.W"].value[:, 1] = 0
    model.params["encoder.2.b"].value[1] = 0.36  # sigma = 1.2, wider than the prior, so that
    # no importance weight exceeds a bound and estimates have a small variance.
    return model


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (4, 5)).astype(np.float64)


def log_p(model, x):
    """Log p(x) of every example by quadrature over the one latent dimension."""

    def integrand(z, row):
        nll, _ = model.likelihood.nll(row, model.decoder.forward(np.array([[z]]))[0])
        return float(np.exp(-nll[0])) * stats.norm.pdf(z)

    # 12 sigma on either side hold all but 1e-32 of the prior.
    values = [integrate.quad(integrand, -12, 12, (row,), epsabs=0, epsrel=1e-10)[0] for row in x]
    return np.log(values)


def test_elbo_is_minus_the_mean_loss(model, x, rng):
    eps_seed = int(rng.integers(2**31))
    terms = evaluation.elbo(model, [x[:1], x[1:]], rng=eps_seed)
    eps = np.random.default_rng(eps_seed).standard_normal((4, 1))
    expected = model.loss_and_grad(x, eps)
    # Rounding of sums of four numbers near 10: a few ulp.
    np.testing.assert_allclose(terms, expected, rtol=1e-13)


def test_more_samples_change_the_noise_of_the_elbo_and_not_its_mean(model, x, rng):
    one = [evaluation.elbo(model, [x], rng).loss for _ in range(1000)]
    many = evaluation.elbo(model, [x], rng, samples=1000).loss
    # 6 standard errors of a difference of two means: a false alarm once in 5e8 runs.
    assert abs(np.mean(one) - many) < 6 * np.sqrt(2) * np.std(one) / np.sqrt(1000)


@pytest.mark.proves("importance-weight", "importance-weighted-bound")
def test_bounds_rise_with_k_and_converge_to_log_p(model, x, rng):
    exact = log_p(model, x)
    repeats = 400
    means, errors = [], []
    for k in (1, 4, 16, 64):
        batch = np.repeat(x, repeats, axis=0)
        bound = evaluation.importance_weighted_bound(model, [batch], k, rng).reshape(4, repeats)
        means.append(bound.mean(axis=1))
        errors.append(bound.std(axis=1) / repeats**0.5)
    slack = 7 * np.array(errors)  # standard errors: a false alarm below 1e-10 in these 16
    assert (np.array(means) < exact + slack).all()
    assert (np.diff(means, axis=0) > -slack[1:] - slack[:-1]).all()
    bound = evaluation.importance_weighted_bound(model, [x], 200_000, rng)
    # The weights are bounded; with a relative spread s their mean errs by s / sqrt(2e5), 0.002 s.
    np.testing.assert_allclose(bound, exact, atol=0.05)


@pytest.mark.proves("importance-weight")
def test_one_importance_sample_is_an_elbo_estimate(model, x, rng):
    seed = int(rng.integers(2**31))
    bound = evaluation.importance_weighted_bound(model, [x], 1, rng=seed)
    eps = np.random.default_rng(seed).standard_normal((1, 4, 1))
    mu, logvar = model.encode(x)
    z = mu + np.exp(logvar / 2) * eps[0]
    log_w = -model.likelihood.nll(x, model.decoder.forward(z)[0])[0]
    log_w += stats.norm.logpdf(z).sum(1) - stats.norm.logpdf(z, mu, np.exp(logvar / 2)).sum(1)
    np.testing.assert_allclose(bound, log_w, rtol=1e-12)  # a few ulp of sums near 10


@pytest.mark.proves("importance-weighted-bound")
@pytest.mark.parametrize("rows", [1, 3, 7, 10_000])
def test_the_chunks_of_the_bound_change_nothing_but_the_order_of_the_draws(
    model, x, rng, monkeypatch, rows
):
    # With a posterior that does not depend on the noise (sigma = 0 up to rounding) and a decoder
    # without z, every weight of an example is the same: the bound is that weight for every K.
    model.params["decoder.0.W"].value[...] = 0
    model.params["encoder.2.W"].value[...] = 0
    model.params["encoder.2.b"].value[...] = 0  # q = N(0, 1), the prior
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", rows)
    bound = evaluation.importance_weighted_bound(model, [x], 11, rng)
    nll = model.likelihood.nll(x, model.decoder.forward(np.zeros((4, 1)))[0])[0]
    np.testing.assert_allclose(bound, -nll, rtol=1e-13)


def test_an_autoencoder_has_no_importance_weighted_bound(x):
    with pytest.raises(sv.InputError, match="needs a VAE"):
        evaluation.importance_weighted_bound(sv.Autoencoder(5, latent_dim=2), [x], 3)


@pytest.mark.parametrize("samples", [0, -1, 1.5])
def test_sample_counts_must_be_positive_integers(model, x, samples):
    for function in (evaluation.elbo, evaluation.importance_weighted_bound):
        with pytest.raises(sv.InputError, match=r"samples is .*: expected a positive integer"):
            function(model, [x], samples=samples)


def test_kl_of_dimensions_adds_up_to_the_kl(x, rng):
    model = sv.VAE(5, hidden=(7,), latent_dim=3, dtype="float64", rng=rng)
    by_dimension = evaluation.kl_of_dimensions(model, [x[:3], x[3:]])
    assert by_dimension.shape == (3,)
    terms = evaluation.elbo(model, [x], rng)
    np.testing.assert_allclose(by_dimension.sum(), terms.kl, rtol=1e-13)  # the order of 12 terms


def test_active_units_counts_the_dimensions_whose_mean_varies(x, rng):
    model = sv.VAE(5, hidden=(), latent_dim=3, dtype="float64", rng=rng)
    w = model.params["encoder.0.W"].value
    assert w.shape == (5, 6)
    w[:, :3] = 0
    w[0, 1] = 1.0
    data = rng.uniform(size=(50, 5))
    data[:, 0] = np.arange(50) % 2  # variance 0.25
    w[1, 2] = 0.01  # variance of the mean at most 1e-4 / 4
    assert evaluation.active_units(model, [data[:20], data[20:]]) == 1
    assert evaluation.active_units(model, [data], threshold=1e-7) == 2
    assert evaluation.active_units(model, [data], threshold=0.3) == 0
