"""What finds each wrong model of the zoo, and which of them a gradient check lets pass.

A gradient check compares backward with forward. A formula that is wrong in both passes it, and such
errors are the common ones. What finds them compares a formula with what it is meant to be: the
distribution of the draws, the divergence estimated from draws, numbers known in nats, log p(x), the
integral of a density. Each such check of `zoo.CHECKS` is a function here that takes the kind of
model; `zoo.ENTRIES` says which of them find which error.

Statistical checks compare a probability with 1e-10 and are made fewer than 100 times: a false alarm
comes less often than once in 1e8 runs. An error that they shall find is so large that it is
overlooked even more rarely.
"""

import itertools
import math
import sys

import numpy as np
import pytest
import standin
from scipy import integrate, special, stats

import scratchvae as sv
from scratchvae import evaluation, zoo
from scratchvae.backend import asnumpy, get_backend
from scratchvae.gradcheck import GradientError, check, check_model
from scratchvae.likelihoods import bernoulli_nll, bernoulli_nll_backward, gaussian_nll

ALARM = 1e-10  # a check fails if what it sees is less probable than this
LOG_2PI = math.log(2 * math.pi)
PIXELS = {entry.model: entry.pixels for entry in zoo.ENTRIES}


# ---------------------------------------------------------------------------------------- models


def small(kind, rng, data_dim=6, latent_dim=3, **options):
    """A model in float64 with a smooth activation, for data of its own sort of pixels."""
    if PIXELS.get(kind) == "real":
        options = {"likelihood": "gaussian", "variance": "shared", **options}
    options = {"hidden": (5,), "activation": "tanh", **options}
    return kind(data_dim, latent_dim=latent_dim, dtype="float64", rng=rng, **options)


def data(kind, rng, b=4, d=6):
    """Data of the model's sort of pixels, (B, D)."""
    pixels = PIXELS.get(kind, "bits")
    if pixels == "bits":
        return rng.integers(0, 2, (b, d)).astype(float)
    return rng.random((b, d)) if pixels == "grey" else rng.standard_normal((b, d))


def principal(kind, rng, data_dim=5, latent_dim=3, variance=0.3):
    """A model of two affine maps whose q(z|x) is the exact posterior: probabilistic PCA.

    M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", 1999. Rows of W
    that are orthogonal make the posterior's covariance, s^2 (W W^T + s^2 I)^-1, diagonal.
    """
    options = {"hidden": (), "likelihood": "gaussian", "variance": variance}
    model = kind(data_dim, latent_dim=latent_dim, dtype="float64", rng=rng, **options)
    w, b = model.params["decoder.0.W"].value, model.params["decoder.0.b"].value  # (Z, D), (D,)
    rows = np.linalg.qr(rng.standard_normal((data_dim, latent_dim)))[0].T  # (Z, D)
    w[...] = rows * rng.uniform(0.5, 3, (latent_dim, 1))
    m = (w * w).sum(axis=1) + variance  # (Z,), the diagonal of W W^T + s^2 I
    model.params["encoder.0.W"].value[...] = np.concatenate([w.T / m, 0 * w.T], axis=1)
    model.params["encoder.0.b"].value[...] = np.concatenate([-w @ b / m, np.log(variance / m)])
    return model


def log_p(model, x, variance=0.3):
    """log p(x) of such a model, (B,), in closed form."""
    w, b = model.params["decoder.0.W"].value, model.params["decoder.0.b"].value
    return stats.multivariate_normal(b, w.T @ w + variance * np.eye(len(b))).logpdf(x)


def expected_loss(model, x):
    """The loss of a model of two affine maps, in its mean over all eps, (B,), exactly.

    It is quadratic in eps, and the 2^Z corners eps = ±1 have the mean 0 and the covariance I of
    N(0, I): the mean over them is the mean over it.
    """
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=model.latent_dim)))  # (2^Z, Z)
    losses = [model.forward(x, np.tile(eps, (len(x), 1)))[0].loss for eps in corners]
    return np.mean(losses, axis=0)


# ---------------------------------------------------------------------------------------- checks


def gradients(kind, rng):
    """Backward against differences of forward; what it cannot tell, it does not find."""
    model = small(kind, rng)
    try:
        check_model(model, data(kind, rng), model.draw_eps(4, rng), rng=rng)
    except GradientError as error:
        if error.report.verdict == "wrong":
            raise


def sampler(kind, rng):
    """The distribution of z = mu + sigma eps against N(mu, exp(logvar)), dimension by dimension."""
    n = 100_000
    mu, logvar = rng.normal(0, 2, 2), np.array([-1.5, 1.5])  # (Z,) each
    z, _ = small(kind, rng).reparameterize(mu, logvar, rng.standard_normal((n, 2)))  # (n, Z)
    for j in range(2):
        p = stats.kstest(z[:, j], stats.norm(mu[j], math.exp(logvar[j] / 2)).cdf).pvalue
        assert p > ALARM


def monte_carlo_kl(kind, rng):
    """The KL against the mean of log q(z) - log p(z) at the model's own draws, by SciPy."""
    n = 100_000
    mu, logvar = rng.uniform(0.5, 1, 3), np.array([-1.5, -0.5, 1.0])  # (Z,) each
    model = small(kind, rng)
    z, _ = model.reparameterize(mu, logvar, rng.standard_normal((n, 3)))  # (n, Z)
    sigma = np.exp(logvar / 2)
    ratio = (stats.norm.logpdf(z, mu, sigma) - stats.norm.logpdf(z)).sum(axis=1)  # (n,)
    kl, _ = model.kl(mu[None], logvar[None])  # (1,)
    distance = abs(ratio.mean() - kl[0]) / (ratio.std() / math.sqrt(n))
    # The mean of 100,000 ratios, each quadratic in eps, is as good as normal out there: their
    # skewness, below 3, moves this probability by less than half of itself.
    assert 2 * stats.norm.sf(distance) > ALARM


def kl_invariants(kind, rng):
    """KL >= 0 everywhere, and 0 at the prior."""
    kl = small(kind, rng).kl
    mu, logvar = 2 * rng.standard_normal((2, 1000, 1))  # (B, 1) each
    mu[:100], logvar[:100] = 0, np.linspace(-3, 3, 100)[:, None]
    assert (kl(mu, logvar)[0] >= 0).all()
    assert kl(np.zeros((1, 3)), np.zeros((1, 3)))[0] == 0


def units(kind, rng):
    """Both terms in nats, in a model that knows nothing: log 2 for a bit, and a known KL."""
    d, z = 8, 4
    model = small(kind, rng, d, z)
    model.params.value[...] = 0  # every logit is 0, or every mean; all pixels are alike
    mu, logvar = rng.uniform(0.5, 1, (2, z))
    model.params["encoder.2.b"].value[...] = np.concatenate([mu, logvar])
    x = data(kind, rng, 4, d)
    reconstruction = d * math.log(2)
    if PIXELS.get(kind) == "real":
        model.params["likelihood.logvar"].value[...] = 0.5  # log sigma^2
        reconstruction = -stats.norm.logpdf(x, 0, math.exp(0.25)).sum() / 4
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum()
    terms = model.loss_and_grad(x, rng.standard_normal((4, z)))
    # Sums of 32 numbers near 1: roundings of 1e-16 each.
    np.testing.assert_allclose(terms, [reconstruction + kl, reconstruction, kl], rtol=1e-13)


def bound(kind, rng):
    """The expected bound against log p(x), which it may not exceed."""
    if issubclass(kind, zoo.LossOfProbabilities):
        return  # it has no Gaussian likelihood
    model = principal(kind, rng)
    x = rng.normal(0, 2, (5, 5))
    # The right model is at equality. Rounding: 1e-16 of terms up to 1e3, times a condition of 30.
    assert (-expected_loss(model, x) <= log_p(model, x) + 1e-10).all()


def density(kind, rng):
    """exp(-loss) of the reconstruction sums, or integrates, to 1 over all images of two pixels."""
    pixels = PIXELS.get(kind, "bits")
    if pixels == "bits":
        points, weights = np.array([0.0, 1.0]), np.ones(2)
    elif pixels == "grey":  # Gauss' rule is exact to rounding for such smooth functions
        points, weights = (
            0.5 * (a + s) for a, s in zip(special.roots_legendre(20), (1, 0), strict=True)
        )
    else:  # and so is the trapezoidal rule for a Gaussian: 11 sigma either side, 4 steps a sigma
        points, weights = np.arange(-12, 12, 0.25), np.full(96, 0.25)
    x = np.array(list(itertools.product(points, repeat=2)))  # (N, 2)
    w = np.array(list(itertools.product(weights, repeat=2))).prod(axis=1)  # (N,)
    model = small(kind, rng, data_dim=2)
    output = np.tile(rng.uniform(-1, 1, 2), (len(x), 1))  # (N, 2): one output, every image
    # Thousands of positive summands of less than 1, each right to a few roundings of 1e-16.
    assert abs(w @ np.exp(-model.nll(x, output)[0]) - 1) < 1e-12


def weights(kind, rng):
    """The loss against -log of the mean of the importance weights of the same draws."""
    model = small(kind, rng)
    x, eps = data(kind, rng), 2 * model.draw_eps(4, rng)  # far draws, of unequal weights
    log_w = evaluation.log_importance_weights(model, x, eps)  # (K, B)
    expected = math.log(len(log_w)) - special.logsumexp(log_w, axis=0)
    # A few roundings of 1e-16 in numbers below 100.
    np.testing.assert_allclose(model.forward(x, eps)[0].loss, expected, rtol=0, atol=1e-12)


ONE_DRAW = gradients, sampler, monte_carlo_kl, kl_invariants, units, bound, density
K_DRAWS = gradients, sampler, monte_carlo_kl, kl_invariants, density, weights


def checks_of(kind):
    return K_DRAWS if issubclass(kind, zoo.ImportanceWeightedVAE) else ONE_DRAW


@pytest.mark.parametrize("entry", zoo.ENTRIES, ids=lambda entry: entry.model.__name__)
def test_what_finds_it_and_what_lets_it_pass(entry, rng):
    """A wrong model is found by what compares it with its meaning, seldom by its gradient."""
    found = set()
    for one in checks_of(entry.model):
        try:
            one(entry.model, rng)
        except AssertionError:  # GradientError is one
            found.add(one.__name__)
    assert found == set(entry.found_by)


def test_the_list_is_complete():
    """Every class of the zoo is listed once, and every check by its name."""
    models = [entry.model for entry in zoo.ENTRIES]
    kinds = [kind for kind in vars(zoo).values() if isinstance(kind, type)]
    wrong = {kind for kind in kinds if issubclass(kind, sv.VAE)}
    assert set(models) == wrong - {sv.VAE, zoo.ImportanceWeightedVAE}
    assert len(models) == len(set(models)) == len({entry.wrong for entry in zoo.ENTRIES})
    assert set(zoo.CHECKS) == {one.__name__ for one in (*ONE_DRAW, *K_DRAWS)}
    assert all(entry.found_by for entry in zoo.ENTRIES)


@pytest.mark.parametrize("entry", zoo.ENTRIES, ids=lambda entry: entry.model.__name__)
def test_it_computes_on_a_device_too(entry, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    seed, x, found = int(rng.integers(2**31)), data(entry.model, rng), []
    for name in "numpy", "cupy":
        backend = get_backend(name, noise="host")
        model = small(entry.model, seed, backend=backend)
        terms = model.loss_and_grad(x, model.draw_eps(4, np.random.default_rng(seed)))
        found.append((float(terms.loss), asnumpy(model.params.grad)))
    # The stand-in computes with NumPy: the same numbers, unless a sum is taken in another order.
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------- the right model


@pytest.mark.parametrize(
    "one",
    [
        gradients,
        sampler,
        monte_carlo_kl,
        kl_invariants,
        pytest.param(units, marks=pytest.mark.proves("kl", "kl-sum")),
        bound,
        pytest.param(density, marks=pytest.mark.proves("bernoulli")),
    ],
    ids=lambda one: one.__name__,
)
def test_the_right_model_passes_every_check(one, rng):
    """What finds errors says nothing where there is none."""
    one(sv.VAE, rng)


@pytest.mark.parametrize("one", K_DRAWS, ids=lambda one: one.__name__)
def test_the_right_model_of_k_draws_passes_its_checks(one, rng):
    """Likewise for importance weights."""
    one(zoo.ImportanceWeightedVAE, rng)


@pytest.mark.proves("gaussian-nll", "log-density")
def test_the_right_gaussian_is_a_density_in_nats(rng, monkeypatch):
    """The checks of the Gaussian pixels, too, are silent about the right model."""

    class Real(sv.VAE):
        pass

    monkeypatch.setitem(PIXELS, Real, "real")
    for one in (gradients, units, density):
        one(Real, rng)


@pytest.mark.proves("negative-elbo", "sigma", "kl", "kl-sum", "gaussian-nll", "log-density")
def test_the_packages_own_model_is_at_the_bound(rng):
    """With q(z|x) = p(z|x) the expected bound is log p(x), and not only below it."""
    model, x = principal(sv.VAE, rng), rng.normal(0, 2, (5, 5))
    # Rounding: 1e-16 of terms up to 1e3, times a condition of 30.
    np.testing.assert_allclose(-expected_loss(model, x), log_p(model, x), rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- 1. sigma = exp(logvar)


@pytest.mark.parametrize("kind", [zoo.SigmaIsExpLogvar, zoo.LogHalfSigma])
def test_a_wrong_draw_agrees_with_its_own_backward(kind, rng):
    """A gradient check of the draw alone has nothing to say: forward and backward are a pair."""
    model, args = small(kind, rng), tuple(rng.standard_normal((3, 4, 2)))
    assert check(model.reparameterize, model.reparameterize_backward, args, rng=rng).ok


def test_sigma_as_exp_logvar_prints_a_kl_below_that_of_its_draws(rng):
    """The printed loss is too low whatever the encoder says, so the error looks like progress."""
    mu, logvar = rng.normal(0, 2, (2, 200, 1))
    z, _ = small(zoo.SigmaIsExpLogvar, rng).reparameterize(mu, logvar, np.ones((200, 1)))
    true_logvar = 2 * np.log(z - mu)  # of the distribution that was drawn from
    printed, true = (sv.gaussian.kl_standard_normal(mu, some)[0] for some in (logvar, true_logvar))
    # Their difference, (s - s^2 + log s)/2 with s = exp(logvar), is 0 at s = 1 and negative else.
    s = np.exp(logvar[:, 0])
    assert (s - s**2 + np.log(s) < 0).all()
    expected = 0.5 * (s - s**2 + np.log(s))
    # z - mu and its log lose a few digits where sigma is small: e^-6 or so, a thousand roundings.
    np.testing.assert_allclose(printed - true, expected, rtol=1e-9, atol=1e-9)


def test_sigma_as_exp_logvar_claims_more_than_log_p(rng):
    """At the exact posterior, of variances v, it claims sum (1 - v)^2 / 2 nats too many."""
    model, x = principal(zoo.SigmaIsExpLogvar, rng), rng.normal(0, 2, (5, 5))
    v = np.exp(model.encode(x)[1])  # (B, Z)
    excess = -expected_loss(model, x) - log_p(model, x)
    # Rounding as in `bound`.
    np.testing.assert_allclose(excess, 0.5 * ((1 - v) ** 2).sum(axis=1), rtol=0, atol=1e-10)


# -------------------------------------------------------------------------- 2. eps drawn again


def test_noise_drawn_again_is_found_in_the_pair_by_the_name_of_logvar(rng):
    """Only the gradient of logvar contains eps; a check of the pair names it."""
    model, args = small(zoo.NoiseDrawnAgain, rng), tuple(rng.standard_normal((3, 4, 3)))
    with pytest.raises(GradientError, match="logvar"):
        check(model.reparameterize, model.reparameterize_backward, args, wrt=(0, 1), rng=rng)


def test_other_noise_in_backward_makes_the_encoder_wrong_and_leaves_the_decoder_right(rng):
    """Even if the second noise is the same each time, every parameter before the draw is wrong."""
    model = small(zoo.NoiseDrawnAgain, rng)
    other = rng.standard_normal((4, 3))
    model.draw_eps = lambda n, rng: other
    x, eps = data(model, rng), rng.standard_normal((4, 3))
    with pytest.raises(GradientError, match=r"encoder\.2") as found:
        check_model(model, x, eps, rng=rng)
    wrong = {c.name.split("[")[0] for c in found.value.report.checks if c.error > 1e-7}
    wrong = {name for name in wrong if not name.startswith("all together")}
    assert wrong == {name for name in model.params.names if name.startswith("encoder")}


def test_noise_drawn_again_tells_sigma_nothing_about_the_reconstruction(rng):
    """In its mean over the second noise, logvar's gradient is that of the KL alone."""
    model = small(zoo.NoiseDrawnAgain, rng)
    x, eps, other = data(model, rng), *rng.standard_normal((2, 4, 3))
    gradients = []
    for sign in (1, -1):  # what is linear in the second noise cancels in this pair
        model.draw_eps = lambda n, rng, sign=sign: sign * other
        model.loss_and_grad(x, eps)
        gradients.append(model.params["encoder.2.b"].grad[3:].copy())
    kl_alone = 0.5 * np.expm1(model.encode(x)[1]).mean(axis=0)  # (Z,)
    # A few roundings of 1e-16 in numbers of unit size.
    np.testing.assert_allclose(np.mean(gradients, axis=0), kl_alone, rtol=0, atol=1e-13)
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-6


# ------------------------------------------------------------------ 3. z = mu + log(0.5 sigma) eps


def test_log_of_half_sigma_spreads_the_sure_and_freezes_sigma_2(rng):
    """The noise is 0 at sigma = 2 and grows as sigma falls: the contrary of a spread."""
    model, mu = small(zoo.LogHalfSigma, rng), rng.standard_normal((1, 3))
    sigma = np.array([[0.01, 0.1, 2.0]])
    z, _ = model.reparameterize(mu, 2 * np.log(sigma), np.ones((1, 3)))
    spread = np.abs(z - mu)[0]
    # A logarithm and a few roundings of 1e-16.
    np.testing.assert_allclose(spread, [math.log(200), math.log(20), 0], rtol=1e-13, atol=1e-14)


# -------------------------------------------------------------------------------- 4. averages


def compare_with_beta(kind, beta, divisor, rng, data_dim, latent_dim):
    """Return loss and gradient of the averaging model, and of the right one with this beta."""
    seed = int(rng.integers(2**31))
    x, eps = data(kind, rng, 4, data_dim), rng.standard_normal((4, latent_dim))
    sizes = {"data_dim": data_dim, "latent_dim": latent_dim, "hidden": ()}
    wrong, right = small(kind, seed, **sizes), small(sv.VAE, seed, beta=beta, **sizes)
    losses = wrong.loss_and_grad(x, eps).loss, right.loss_and_grad(x, eps).loss / divisor
    return losses, (wrong.params.grad, right.params.grad / divisor)


@pytest.mark.parametrize(
    ("kind", "beta", "divisor"),
    [
        (zoo.KLAveraged, 1 / 4, 1),
        (zoo.ReconstructionAveraged, 16, 16),
        (zoo.BothAveraged, 16 / 4, 16),
    ],
)
def test_an_average_is_a_hidden_beta_bit_for_bit(kind, beta, divisor, rng):
    """Averaging is a beta-VAE under another name: with D = 16 and Z = 4 no rounding differs."""
    losses, gradients = compare_with_beta(kind, beta, divisor, rng, 16, 4)
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize(
    ("kind", "z", "beta"),
    [
        (zoo.KLAveraged, 2, 0.5),
        (zoo.KLAveraged, 20, 0.05),
        (zoo.ReconstructionAveraged, 20, 784),
        (zoo.BothAveraged, 20, 39.2),
        (zoo.BothAveraged, 2, 392),
    ],
)
def test_the_hidden_beta_of_averages_over_mnist(kind, z, beta, rng):
    """With 784 pixels the hidden beta reaches from 0.05 to 784, and nothing in the code says so."""
    divisor = 784 if issubclass(kind, zoo.ReconstructionAveraged) else 1
    losses, gradients = compare_with_beta(kind, beta, divisor, rng, 784, z)
    # 784 summands in another scale: roundings of 1e-16 each, the gradient's relative to its size.
    assert losses[0] == pytest.approx(losses[1], rel=1e-13)
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-13 * np.abs(gradients[1]).max())


def test_averaging_the_kl_claims_more_than_log_p(rng):
    """The claimed bound is too high by what the average leaves of the KL: (1 - 1/Z) KL nats."""
    model, x = principal(zoo.KLAveraged, rng), rng.normal(0, 2, (5, 5))
    kl, _ = sv.gaussian.kl_standard_normal(*model.encode(x))
    excess = -expected_loss(model, x) - log_p(model, x)
    np.testing.assert_allclose(excess, (1 - 1 / 3) * kl, rtol=0, atol=1e-10)  # as in `bound`


def test_averaging_both_collapses_a_direction_that_the_right_model_keeps(rng):
    """Where variance along a direction is below beta s^2, the best posterior is the prior."""
    d, variance, along = 4, 0.5, 1.5  # s^2 < the variance along u < (D/Z) s^2 = 2
    u = np.linalg.qr(rng.standard_normal((d, d)))[0][0]  # a unit vector, (D,)
    x = math.sqrt(along) * np.array([u, u, -u, -u])
    eps = np.array([[1.0], [-1.0], [1.0], [-1.0]])  # the loss is quadratic in eps: its exact mean
    kl = {}
    for kind in (sv.VAE, zoo.BothAveraged):
        model = principal(kind, rng, d, 1, variance)
        start = math.sqrt(along - variance)  # the right optimum, after Tipping and Bishop
        model.params["decoder.0.W"].value[...] = start * u
        model.params["decoder.0.b"].value[...] = 0
        model.params["encoder.0.W"].value[:, 0] = start / along * u
        model.params["encoder.0.b"].value[...] = 0, math.log(variance / along)
        optimizer = sv.Adam(model.params, lr=0.02)
        for _ in range(500):
            model.loss_and_grad(x, eps)
            optimizer.step()
        kl[kind] = sv.gaussian.kl_standard_normal(*model.encode(x))[0].mean()
    # The right model stays where its gradient is 0 but for rounding, at log(variance / s^2)/2.
    assert kl[sv.VAE] == pytest.approx(0.5 * math.log(along / variance), rel=1e-6)
    assert kl[zoo.BothAveraged] < 1e-3  # it left that place for the prior


# --------------------------------------------------------------------------------------- 5. KL


@pytest.mark.parametrize(
    "kind",
    [zoo.KLAveraged, zoo.KLSigmaCubed, zoo.KLNegated, zoo.KLLogvarAdded, zoo.KLHalfMisplaced],
)
def test_a_wrong_kl_agrees_with_its_own_backward(kind, rng):
    """A gradient check of the KL alone has nothing to say: forward and backward are a pair."""
    model = small(kind, rng, latent_dim=2)
    args = tuple(rng.standard_normal((2, 4, 2)))
    assert check(model.kl, model.kl_backward, args, rng=rng).ok


def test_sigma_cubed_is_least_away_from_the_prior_and_negative_there(rng):
    """Its least value is below 0 and at sigma = 0.874: a divergence has neither."""
    model, logvar = small(zoo.KLSigmaCubed, rng), np.array([[2 / 3 * math.log(2 / 3)]])
    kl, cache = model.kl(np.zeros((1, 1)), logvar)
    assert math.exp(logvar[0, 0] / 2) == pytest.approx(0.874, abs=5e-4)
    assert kl[0] == pytest.approx(-0.0315, abs=5e-5)
    assert abs(model.kl_backward(np.ones(1), cache)[1][0, 0]) < 1e-15  # two roundings


@pytest.mark.parametrize(
    ("kind", "mu", "logvar", "kl"),
    [(zoo.KLNegated, 100.0, 0.0, -5000.0), (zoo.KLLogvarAdded, 0.0, -100.0, -50.5)],
)
def test_a_kl_of_wrong_sign_pays_without_end(kind, mu, logvar, kl, rng):
    """Where the KL falls without bound, training follows it: codes run off, or lose all spread."""
    model = small(kind, rng)
    found, cache = model.kl(np.array([[mu]]), np.array([[logvar]]))
    assert found[0] == pytest.approx(kl, rel=1e-14)  # sums of a few exact numbers
    dmu, dlogvar = model.kl_backward(np.ones(1), cache)
    assert dmu[0, 0] * mu + dlogvar[0, 0] * logvar < 0  # a step downhill goes farther out


@pytest.mark.parametrize("mu", [0.0, 1.3])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_the_misplaced_half_is_the_divergence_from_another_prior(mu, sigma, rng):
    """It trains codes for N(0, 1/2), never negative, and then N(0, 1) is what is decoded."""
    q, prior = stats.norm(mu, sigma), stats.norm(0, math.sqrt(0.5))

    def integrand(z):
        return q.pdf(z) * (q.logpdf(z) - prior.logpdf(z))

    # 12 sigma either side leave out 1e-30; quad's own tolerance is 1e-11, and 1e-9 a hundred times.
    divergence, _ = integrate.quad(integrand, mu - 12 * sigma, mu + 12 * sigma, epsabs=1e-11)
    kl, _ = small(zoo.KLHalfMisplaced, rng).kl(np.array([[mu]]), np.array([[2 * math.log(sigma)]]))
    assert kl[0] == pytest.approx(divergence + 0.5 * math.log(2), abs=1e-9)


# ------------------------------------------------------------------------- 6. importance weights


def log_weights(rng, k=5, b=3):
    """Log weights that differ by some nats, (K, B)."""
    return rng.normal(0, 2, (k, b))


def test_the_right_importance_weighted_gradient_is_the_normalised_weights(rng):
    """d(-log mean_k w_k) = -sum_k w~_k d log w_k: as a pair, and through a whole model."""
    log_w = log_weights(rng)
    assert check(zoo.importance_weighted_loss, (log_w,), rng=rng).ok
    _, cache = zoo.importance_weighted_loss(log_w)
    right = -special.softmax(log_w, axis=0)  # SciPy's, a few roundings of 1e-16 away
    np.testing.assert_allclose(
        zoo.importance_weighted_loss_backward(np.ones(3), cache), right, rtol=1e-13
    )
    model = small(zoo.ImportanceWeightedVAE, rng)
    assert check_model(model, data(model, rng), rng.standard_normal((5, 4, 3)), rng=rng).ok


@pytest.mark.proves("importance-weight", "importance-weighted-bound")
def test_at_the_exact_posterior_every_draw_weighs_log_p(rng):
    """Where q(z|x) = p(z|x) the weight is p(x) at every z, so that every K gives log p(x)."""
    model, x = principal(zoo.ImportanceWeightedVAE, rng), rng.normal(0, 2, (5, 5))
    model.K = 7
    exact, eps = log_p(model, x), rng.standard_normal((7, 5, 3))
    # Rounding: 1e-16 of terms up to 1e3, times a condition of 30.
    terms, _ = model.forward(x, eps)
    np.testing.assert_allclose(-terms.loss, exact, rtol=0, atol=1e-10)
    log_w = evaluation.log_importance_weights(model, x, eps)
    np.testing.assert_allclose(log_w, np.tile(exact, (7, 1)), rtol=0, atol=1e-10)
    bounds = evaluation.importance_weighted_bound(model, [x], 7, rng)
    np.testing.assert_allclose(bounds, exact, rtol=0, atol=1e-10)


def test_weights_of_the_loss_are_found_in_every_block_with_more_than_one_draw(rng):
    """The checker sees a softmax of the wrong sign; with K = 1 the weight is 1 and all is well."""
    model = small(zoo.WeightsOfTheLoss, rng)
    x, eps = data(model, rng), 3 * rng.standard_normal((5, 4, 3))
    model.K = 1
    assert check_model(model, x, eps[:1], rng=rng).ok
    model.K = 5
    with pytest.raises(GradientError, match="WeightsOfTheLoss") as found:
        check_model(model, x, eps, rng=rng)
    wrong = {c.name.split("[")[0] for c in found.value.report.checks if c.error > 1e-7}
    assert set(model.params.names) <= wrong
    with pytest.raises(GradientError, match="log_w"):
        check(model.combine, model.combine_backward, (log_weights(rng),), rng=rng)


def test_a_check_that_holds_the_weights_passes_any_weights(rng):
    """A check is worth what its forward is: of sum_k weights_k (-log w_k) all weights are right."""

    def loss(log_w, weights):
        return -(weights * log_w).sum(axis=0), weights  # (B,)

    def loss_backward(dloss, weights):
        return -dloss * weights  # (K, B)

    log_w = log_weights(rng)
    for weights in (special.softmax(log_w, axis=0), special.softmax(-log_w, axis=0), log_w**2):
        assert check(loss, loss_backward, (log_w, weights), wrt=(0,), rng=rng).ok


def test_the_analytic_kl_inside_passes_its_gradient_check_and_claims_more_than_log_p(rng):
    """log mean_k p(x|z_k) - KL is no bound: at the exact posterior it exceeds log p(x)."""
    small_model = small(zoo.AnalyticKLInside, rng)
    x, eps = data(small_model, rng), rng.standard_normal((5, 4, 3))
    assert check_model(small_model, x, eps, rng=rng).ok

    model, x = principal(zoo.AnalyticKLInside, rng, latent_dim=1), rng.normal(0, 2, (5, 5))
    model.K, eps = 400, stats.norm.ppf((np.arange(400) + 0.5) / 400)  # spread evenly
    terms, _ = model.forward(x, np.tile(eps[:, None, None], (1, 5, 1)))
    # By Jensen log E_q[p(x|z)] > E_q[log p(x|z)], whose difference to the KL is log p(x) here. With
    # -log p(x|z) = const + h (z - c)^2 / 2, h sigma^2 = 1 - v >= 0.45 for W^2 >= 0.25, s^2 = 0.3,
    # the excess is at least that of c = mu: (h sigma^2 - log(1 + h sigma^2)) / 2 > 0.039 nats. The
    # 400 draws miss some 0.001 of it.
    assert (-terms.loss > log_p(model, x) + 0.03).all()


def test_weights_not_constant_are_a_pair_of_another_loss(rng):
    """Against its own sum the gradient is right; against -log mean_k w_k it is wrong."""
    model = small(zoo.WeightsNotConstant, rng)
    x, eps = data(model, rng), rng.standard_normal((5, 4, 3))
    assert check_model(model, x, eps, rng=rng).ok
    log_w = log_weights(rng)
    assert check(model.combine, model.combine_backward, (log_w,), rng=rng).ok

    def forward(log_w):
        return zoo.importance_weighted_loss(log_w)[0], model.combine(log_w)[1]

    with pytest.raises(GradientError, match="log_w"):
        check(forward, model.combine_backward, (log_w,), rng=rng)


def test_the_sum_of_weighted_losses_is_too_low_by_a_divergence(rng):
    """sum_k w~_k log w_k exceeds the bound by KL(w~ || uniform), up to log K nats."""
    log_w = log_weights(rng)
    right, normalised = zoo.importance_weighted_loss(log_w)
    wrong, _ = zoo.WeightsNotConstant.combine(log_w)
    divergence = stats.entropy(normalised, np.full_like(normalised, 1 / 5))  # (B,)
    np.testing.assert_allclose(right - wrong, divergence, rtol=0, atol=1e-13)  # a few roundings
    assert (divergence > 0).all()


def test_the_sum_of_weighted_losses_bounds_log_p_from_above(rng):
    """With many draws it tends to log p(x) + KL(p(z|x) || q(z|x)), the right loss to log p(x)."""
    nodes, spacing = np.linspace(-8, 8, 321, retstep=True)  # of z: trapezoidal, exact to rounding
    draws = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None, None]  # spread evenly
    seed, x, found = int(rng.integers(2**31)), data(sv.VAE, rng, 1), {}
    for kind in (zoo.ImportanceWeightedVAE, zoo.WeightsNotConstant):
        model = small(kind, seed, latent_dim=1)  # the same parameters in both
        model.K = len(draws)
        model.params.value[...] *= 2
        model.params["encoder.2.W"].value[...] = 0
        model.params["encoder.2.b"].value[...] = 0.3, 0.4  # sigma = 1.2: wider than the posterior
        found[kind] = -model.forward(x, draws)[0].loss[0]
    output, _ = model.decoder.forward(nodes[:, None])  # (N, D)
    joint = stats.norm.logpdf(nodes) - model.likelihood.nll(x, output)[0]  # log p(x, z), (N,)
    exact = special.logsumexp(joint) + math.log(spacing)
    (mu,), (logvar,) = (part[0] for part in model.encode(x))
    log_q = stats.norm.logpdf(nodes, mu, math.exp(logvar / 2))
    posterior = np.exp(joint - exact)
    divergence = spacing * (posterior * (joint - exact - log_q)).sum()
    # The medians of 20,000 equal slices of q stand for it to 1e-4 and better: q is wide, and no
    # weight is large.
    assert found[zoo.ImportanceWeightedVAE] == pytest.approx(exact, abs=1e-3)
    assert found[zoo.WeightsNotConstant] == pytest.approx(exact + divergence, abs=1e-3)
    assert divergence > 0  # q is not the posterior


# ------------------------------------------------------------------ 7. a loss of probabilities


def column(*values):
    return np.array(values)[:, None]


def test_a_loss_of_probabilities_agrees_with_its_own_backward_at_all_logits(rng):
    """A gradient check passes it even where its gradient has vanished."""
    model = small(zoo.LossOfProbabilities, rng)
    # For x = 0 the forward pass would be too inexact to say: 1 - y keeps no digit at a logit of 37.
    x, logits = np.ones((4, 6)), rng.uniform(-40, 40, (4, 6))
    try:
        assert check(model.nll, model.nll_backward, (x, logits), wrt=(1,), rng=rng).ok
    except GradientError as error:  # rounding may hide the smallest ones
        if error.report.verdict != "cannot tell":
            raise


def test_a_loss_of_probabilities_gives_up_where_it_is_surely_wrong(rng):
    """For x = 1 the gradient is y / (y + 1e-9) of the right one: 1/2 at -20.7, 1e-4 at -30."""
    model, ones = small(zoo.LossOfProbabilities, rng), np.ones(4)
    logits = column(-10.0, math.log(1e-9), -30.0, -40.0)
    losses, gradients = [], []
    for nll, backward in (
        (model.nll, model.nll_backward),
        (bernoulli_nll, bernoulli_nll_backward),
    ):
        loss, cache = nll(column(1.0, 1, 1, 1), logits)
        losses.append(loss)
        gradients.append(backward(ones, cache)[:, 0])
    share = gradients[0] / gradients[1]
    # Three digits are printed here, four places for the first.
    np.testing.assert_allclose(share, [0.99998, 0.5, 9.36e-5, 4.25e-9], rtol=1e-3)
    np.testing.assert_allclose(losses[1], -logits[:, 0], rtol=1e-4)  # log(1 + e^l) is still 5e-5
    assert losses[0].max() < -math.log(1e-9) < 20.73  # nats that a pixel can cost at most


def test_in_single_precision_a_loss_of_probabilities_stops_learning(rng):
    """In float32 a probability of 1 - 2e-9 is 1: the gradient of a wrong pixel is exactly 0."""
    model = small(zoo.LossOfProbabilities, rng)
    x, logits = np.zeros((1, 1), "float32"), np.full((1, 1), 20, "float32")
    one = np.ones(1, "float32")
    assert model.nll_backward(one, model.nll(x, logits)[1])[0, 0] == 0
    assert bernoulli_nll_backward(one, bernoulli_nll(x, logits)[1])[0, 0] == 1


def test_the_gradient_of_logits_for_a_loss_of_probabilities_passes_at_moderate_logits_only(rng):
    """A check where the model is unsure says nothing about where it is surely wrong."""
    model = small(zoo.LossOfProbabilitiesGradientOfLogits, rng)
    x = np.ones((4, 6))  # as above
    moderate, large = rng.uniform(-2, 2, (4, 6)), rng.uniform(-25, -15, (4, 6))
    # At |logit| <= 2 the 1e-9 is at most 1e-9 / 0.12 = 8.4e-9 of the probability it is added to.
    assert check(model.nll, model.nll_backward, (x, moderate), wrt=(1,), rng=rng).error < 1e-7
    with pytest.raises(GradientError, match="output"):
        check(model.nll, model.nll_backward, (x, large), wrt=(1,), rng=rng)


# --------------------------------------------------------------- 8. a Gaussian without its constant


def gaussian_pair(kind, right, rng, **options):
    """Return (loss, gradient) of one kind and of the right VAE with the same parameters."""
    seed, found = int(rng.integers(2**31)), []
    x, eps = rng.standard_normal((4, 6)), rng.standard_normal((4, 3))
    for one, own in ((kind, options), (sv.VAE, right)):
        model = small(one, seed, likelihood="gaussian", **own)
        found.append((model.loss_and_grad(x, eps).loss, model.params.grad))
    return found


def test_without_its_constant_a_gaussian_trains_alike_and_reports_another_number(rng):
    """Gradients are the same bit for bit; the loss is 0.919 nats a pixel too low."""
    (loss, gradient), (right, expected) = gaussian_pair(
        zoo.GaussianWithoutConstant, {"variance": "shared"}, rng, variance="shared"
    )
    np.testing.assert_array_equal(gradient, expected)
    assert right - loss == pytest.approx(6 * 0.9189385, abs=1e-6)  # the printed digits


def test_a_negative_loss_is_no_error(rng):
    """A density may exceed 1: the right loss is below 0 here, and exp(-loss) integrates to 1."""
    mean, logvar = np.full((1, 1), rng.uniform(-1, 1)), np.array(math.log(1e-4))
    x = mean + 0.01 * np.arange(-12, 12, 0.25)[:, None]  # 12 sigma either side
    loss, _ = gaussian_nll(x, mean, logvar)
    assert loss.min() == pytest.approx(0.5 * (LOG_2PI + math.log(1e-4)), rel=1e-12)
    assert loss.min() < -3.6
    # The trapezoidal rule is exact to rounding for a Gaussian with 4 steps a sigma.
    assert np.exp(-loss).sum() * 0.0025 == pytest.approx(1, abs=1e-12)


def test_without_logvar_a_learned_variance_grows_for_ever(rng):
    """log(sigma) is a constant only where sigma is: without it the loss falls as sigma grows."""
    losses, slopes = [], []
    model, x = small(zoo.GaussianWithoutLogvar, rng), rng.standard_normal((4, 6))
    eps, logvar = rng.standard_normal((4, 3)), model.params["likelihood.logvar"]
    for value in range(10):
        logvar.value[...] = value
        losses.append(model.loss_and_grad(x, eps).loss)
        slopes.append(float(logvar.grad[0]))
    assert np.all(np.diff(losses) < 0)
    assert max(slopes) < 0
    right = small(sv.VAE, rng, likelihood="gaussian", variance="shared")
    right.params["likelihood.logvar"].value[...] = 9
    right.loss_and_grad(x, eps)
    assert right.params["likelihood.logvar"].grad[0] > 0  # it would shrink again


def test_a_squared_error_is_a_gaussian_of_variance_one_half(rng):
    """Its gradients are those of sigma^2 = 1/2, and its loss is D/2 log(pi) short of a likelihood.

    So the mean over D pixels in place of the sum has a sigma^2 of D/2: the same hidden beta.
    """
    (loss, gradient), (right, expected) = gaussian_pair(
        zoo.SquaredError, {"variance": 0.5}, rng, variance=1.0
    )
    # exp(-log(1/2)) may be 2 but for its last bit; sums of unit size.
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13)
    assert right - loss == pytest.approx(3 * math.log(math.pi), rel=1e-12)


# ------------------------------------------------------------- 9. cross-entropy on grey pixels


@pytest.mark.parametrize("logit", [-30.0, -3.0, -0.1, 0.1, 2.0, 8.0])
def test_cross_entropy_on_grey_integrates_to_half_or_less(logit, rng):
    """The integral over [0, 1] is tanh(l/2)/l <= 1/2; its inverse is what a density lacks."""
    model = small(zoo.CrossEntropyOnGrey, rng, data_dim=1)

    def exp_minus_loss(x):
        return math.exp(-model.nll(np.array([[x]]), np.array([[logit]]))[0][0])

    mass, _ = integrate.quad(exp_minus_loss, 0, 1, epsabs=0, epsrel=1e-12)
    assert mass == pytest.approx(math.tanh(logit / 2) / logit, rel=1e-10)
    assert mass < 0.5
    # Divided by its integral it is the continuous Bernoulli (G. Loaiza-Ganem and J. P. Cunningham,
    # 2019), an exponential distribution cut off at 1; of 1 - x where the logit is positive.
    rate = abs(logit)
    reference = stats.truncexpon(rate, scale=1 / rate)
    for x in rng.random(5):
        expected = reference.pdf(x if logit < 0 else 1 - x)
        # SciPy divides by 1 - exp(-rate), where 0.1 loses one digit of 16.
        assert exp_minus_loss(x) / mass == pytest.approx(expected, rel=1e-10)


def test_the_perfect_model_of_grey_pays_log_2_for_each_pixel(rng):
    """No model of a grey 0.5 pays less, while the uniform density on [0, 1] pays 0 nats."""
    d = 6
    model, x = small(zoo.CrossEntropyOnGrey, rng), np.full((1, d), 0.5)
    loss, cache = model.nll(x, np.zeros((1, d)))  # probabilities of 0.5: reconstructed exactly
    assert loss[0] == pytest.approx(d * math.log(2), rel=1e-14)  # six equal summands
    assert not model.nll_backward(np.ones(1), cache).any()  # the least that there is
    assert stats.uniform.logpdf(x).sum() == 0
    others, _ = model.nll(np.tile(x, (100, 1)), rng.normal(0, 3, (100, d)))
    assert (others > loss[0]).all()


def test_the_least_cross_entropy_is_a_property_of_the_data(rng):
    """A perfect reconstruction of x costs its entropy in bits' units, whatever the model: not 0."""
    x = rng.uniform(0.01, 0.99, (5, 6))
    model = small(zoo.CrossEntropyOnGrey, rng)
    loss, cache = model.nll(x, special.logit(x))
    # Roundings of 1e-16, times the 100 of 1 / (1 - x) in SciPy's logit.
    np.testing.assert_allclose(
        loss, (special.entr(x) + special.entr(1 - x)).sum(axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(model.nll_backward(np.ones(5), cache), 0, atol=1e-13)


def test_importance_weights_have_no_beta():
    with pytest.raises(sv.InputError, match="beta is 3: importance weights have no KL term"):
        zoo.ImportanceWeightedVAE(4, (3,), 2, beta=3)
