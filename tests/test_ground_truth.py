"""Whole models and optimizers against answers that are known exactly, from elsewhere.

A linear VAE is probabilistic PCA, whose best parameters, log p(x) and posterior are closed forms:
on real digits the bound must equal log p(x) there, and training must end there. With a latent space
of one or two dimensions log p(x) is an integral that quadrature does to many digits: the bounds
must lie below it, by as much as theory says. And the steps of an optimizer can be worked out
without it, with 50 digits or in closed form.
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from scipy import integrate, linalg, special, stats

import scratchvae as sv
from scratchvae import evaluation

# ------------------------------------------------------------------- a linear VAE and what it finds


def quadratic_rule(z_dim):
    """Points with mean 0 and covariance I, (Z + 1, Z): the corners of a simplex.

    The loss of a linear VAE is quadratic in the noise, so only the first two moments of the noise
    enter its expectation: the mean over these points is the expectation over N(0, I), exactly.
    """
    return linalg.helmert(z_dim + 1).T * math.sqrt(z_dim + 1)


def every_noise(model, x):
    """Every example with every point of the rule: x and eps for the model, (N (Z + 1), ...)."""
    points = quadratic_rule(model.latent_dim)
    return np.tile(x, (len(points), 1)), np.repeat(points, len(x), axis=0)


def expected_loss(model, x):
    """The loss of every example, (N,), with the expectation over z taken exactly."""
    terms, _ = model.forward(*every_noise(model, x))
    return terms.loss.reshape(-1, len(x)).mean(axis=0)


def linear_vae(data_dim, z_dim, variance, rng=None):
    options = {"hidden": (), "likelihood": "gaussian", "variance": variance, "dtype": "float64"}
    return sv.VAE(data_dim, latent_dim=z_dim, rng=rng, **options)


class Optimum(NamedTuple):
    """The best linear Gaussian model of data with mean (D,) and covariance S, in closed form.

    M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", 1999: x is normal
    around the mean with covariance W^T W + s^2 I. Row j of W (Z, D) is sqrt(lambda_j - s^2) u_j,
    where lambda_j and u_j are the j-th largest eigenvalue of S and its direction, and s^2 is the
    mean of the other D - Z eigenvalues. If s^2 is given instead, W has rows only for lambda_j > s^2
    and is 0 otherwise.
    """

    mean: np.ndarray  # (D,)
    w: np.ndarray  # (Z, D)
    variance: float  # s^2
    m: np.ndarray  # (Z,) the diagonal of W W^T + s^2 I: lambda_j, or s^2 where a row is 0
    active: int  # rows that are not 0
    log_p: float  # the mean of log p(x) over the data

    def log_p_of(self, x):
        """Log p(x) of every example, (N,), by SciPy."""
        covariance = self.w.T @ self.w + self.variance * np.eye(len(self.mean))
        return stats.multivariate_normal(self.mean, covariance).logpdf(x)


def optimum(x, z_dim, variance=None):
    d = x.shape[1]
    eigenvalues, directions = np.linalg.eigh(np.cov(x.T, bias=True))  # divided by N
    eigenvalues, directions = eigenvalues[::-1], directions[:, ::-1]
    variance = eigenvalues[z_dim:].mean() if variance is None else variance
    m = np.maximum(eigenvalues[:z_dim], variance)
    w = np.sqrt(m - variance)[:, None] * directions[:, :z_dim].T
    # The trace of S C^-1, where C has the eigenvalues m and s^2; it is D if s^2 is the best one.
    trace = (eigenvalues[:z_dim] / m).sum() + eigenvalues[z_dim:].sum() / variance
    log_det = np.log(m).sum() + (d - z_dim) * np.log(variance)
    log_p = -0.5 * (d * np.log(2 * np.pi) + log_det + trace)
    return Optimum(x.mean(axis=0), w, variance, m, int((w != 0).any(axis=1).sum()), log_p)


def put_into(model, best):
    """Make q(z|x) the posterior of the closed form, N(M^-1 W (x - mean), s^2 M^-1)."""
    p, zero = model.params, np.zeros_like(best.w)
    head = best.w / best.m[:, None]  # (Z, D)
    p["encoder.0.W"].value[...] = np.concatenate([head, zero]).T
    p["encoder.0.b"].value[...] = np.concatenate(
        [-head @ best.mean, np.log(best.variance / best.m)]
    )
    p["decoder.0.W"].value[...] = best.w
    p["decoder.0.b"].value[...] = best.mean
    if "likelihood.logvar" in p.names:
        p["likelihood.logvar"].value[...] = np.log(best.variance)


@pytest.fixture(scope="module")
def digits():
    """All 1,797 embedded digits as floats in [0, 1], (N, 64)."""
    data = sv.datasets.load("digits")
    return sv.datasets.to_float(np.concatenate([data.train, data.test]), data.scale, np.float64)


@pytest.fixture(scope="module")
def zeros_and_ones():
    """The 360 zeros and ones among the digits, less their mean picture, (N, 64).

    Both choices make training short and sure. Their first four eigenvalues, 1.9, 0.7, 0.4 and 0.2,
    lie far apart: two directions of equal variance are as good as any turn of them, and nothing
    would draw W towards them. From centred data the biases are learned independently of the
    weights.
    """
    data = sv.datasets.load("digits")
    x = np.concatenate([data.train, data.test])
    x = x[np.concatenate([data.train_labels, data.test_labels]) < 2]
    x = sv.datasets.to_float(x, data.scale, np.float64)
    return x - x.mean(axis=0)


@pytest.mark.parametrize("z_dim", [1, 2, 5, 20])
@pytest.mark.proves("negative-elbo", "sigma", "reparameterize", "kl", "kl-sum", "gaussian-nll")
def test_at_the_optimum_of_probabilistic_pca_the_bound_is_log_p(digits, z_dim):
    """What a VAE maximises is log p(x) itself wherever q(z|x) can be the posterior.

    Here it can: the rows of W are orthogonal, so the posterior has a diagonal covariance. A reader
    sees every constant of the loss at work: leave out a 2 pi, or take sigma for its square, and
    the two numbers part.
    """
    best, model = optimum(digits, z_dim), linear_vae(64, z_dim, "shared")
    put_into(model, best)
    bound, exact = -expected_loss(model, digits), best.log_p_of(digits)
    # A dozen roundings of 1e-16, relative to the sizes of the summands of log p(x), the squares and
    # the logs of the normalising constant. They may cancel: the density of some digit is near 1.
    logs = 64 * math.log(2 * math.pi) + np.abs(np.log(best.m)).sum()
    size = np.abs(exact) + logs + (64 - z_dim) * abs(math.log(best.variance))  # (N,)
    assert np.all(np.abs(bound - exact) < 1e-12 * size)
    assert abs(bound.mean() - exact.mean()) < 1e-12 * size.mean()
    assert abs(bound.mean() - best.log_p) < 1e-12 * size.mean()


@pytest.mark.parametrize("z_dim", [1, 2, 5, 20])
@pytest.mark.proves("importance-weight", "importance-weighted-bound", "log-density")
def test_with_the_posterior_as_q_every_single_draw_gives_log_p(digits, z_dim, rng):
    """p(x|z) p(z) / q(z|x) is p(x) for each z where q is the posterior: no noise is left.

    So the importance-weighted bound has nothing to gain from more samples, and one is enough.
    """
    best, model = optimum(digits, z_dim), linear_vae(64, z_dim, "shared")
    put_into(model, best)
    exact = best.log_p_of(digits)
    log_w = evaluation.log_importance_weights(model, digits, rng.normal(size=(3, 1797, z_dim)))
    bound = evaluation.importance_weighted_bound(model, [digits[:900], digits[900:]], 2, rng)
    # As above, but a draw's squares have other sizes than the posterior mean's: some hundred, and
    # up to 1,000 where the variance is small.
    np.testing.assert_allclose(log_w, np.broadcast_to(exact, log_w.shape), rtol=0, atol=1e-11)
    np.testing.assert_allclose(bound, exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize("z_dim", [1, 2, 5, 20])
@pytest.mark.proves("two-paths", "kl-grad-mu", "kl-grad-logvar", "gaussian-nll-grad")
def test_at_the_optimum_of_probabilistic_pca_the_gradient_is_0(digits, z_dim):
    """The two paths to mu and to logvar, through z and through the KL, are in balance there.

    The optimum comes from an eigendecomposition, not from following a gradient: where it should
    vanish is known beforehand.
    """
    best, model = optimum(digits, z_dim), linear_vae(64, z_dim, "shared")
    put_into(model, best)
    model.loss_and_grad(*every_noise(model, digits))
    # The gradient is a mean of terms x dcode and z doutput. z, x and their like are of size 5 at
    # most, doutput = (mean - x) / s^2 is up to 1 / s^2, and dcode is W times that summed over 64
    # pixels. Each rounds by 1e-16 of itself some ten times, and the parameters' own rounding moves
    # the optimum as much.
    size = 5 * (1 + np.abs(best.w).sum(axis=1).max()) / best.variance
    assert np.abs(model.params.grad).max() < 1e-14 * size


@pytest.mark.parametrize("active", [1, 3, 6])
@pytest.mark.proves("kl")
def test_a_dimension_costs_half_the_log_of_its_signal_to_noise_ratio(digits, active):
    """The KL of a dimension at the optimum is log(lambda / s^2) / 2 nats, and 0 below the noise.

    That is the capacity of a Gaussian channel: why a latent dimension with less variance than the
    noise does not pay, and a VAE drops it.
    """
    eigenvalues = np.linalg.eigvalsh(np.cov(digits.T, bias=True))[::-1]
    variance = math.sqrt(eigenvalues[active - 1] * eigenvalues[active])
    best, model = optimum(digits, 8, variance), linear_vae(64, 8, variance)
    put_into(model, best)
    assert best.active == active
    kl = evaluation.kl_of_dimensions(model, [digits])
    expected = np.maximum(0, 0.5 * np.log(eigenvalues[:8] / variance))
    # Roundings of 1e-16 of the summands mu^2, 1 and logvar, all below 10.
    np.testing.assert_allclose(kl, expected, rtol=0, atol=1e-13)
    assert evaluation.active_units(model, [digits]) == active
    model.loss_and_grad(*every_noise(model, digits))
    assert np.abs(model.params.grad).max() < 1e-12  # as above; 1 / s^2 is below 10 here


def train(model, x, steps=1500, rate=0.05):
    """Full batches, and the expectation over the noise taken exactly: only the start is random.

    A mean square of 100 gradients, not 1,000, forgets the large first ones in time. What may take
    long is to leave a saddle, where two latent dimensions share two directions equally. Cut to 500
    steps 7 runs of 60 with Z = 3 ended more than 1e-4 from the optimum, to 600 steps 1 of 60, to
    1,000 none, the worst 1e-8 away. A seventh for every 100 steps makes 4e-10 of 1,500.
    """
    optimizer = sv.Adam(model.params, lr=rate, betas=(0.9, 0.99))
    schedule = sv.cosine(rate, steps)
    rows = every_noise(model, x)
    for step in range(steps):
        optimizer.lr = schedule(step)
        model.loss_and_grad(*rows)
        optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("z_dim", [1, 2, 3])
def test_training_finds_the_optimum_of_probabilistic_pca(zeros_and_ones, rng, z_dim):
    """From random parameters Adam reaches the bound that an eigendecomposition gives, and no more.

    The noise variance is learned along with the rest. There is no worse optimum to get stuck in:
    where else the likelihood of probabilistic PCA is level there are saddles, and the bound adds no
    optimum (J. Lucas, G. Tucker, R. Grosse and M. Norouzi, "Don't Blame the ELBO!", 2019).
    """
    best, model = optimum(zeros_and_ones, z_dim), linear_vae(64, z_dim, "shared", rng)
    train(model, zeros_and_ones)
    gap = expected_loss(model, zeros_and_ones).mean() + best.log_p
    # No bound exceeds the largest log p(x), rounding aside.
    assert -1e-11 < gap < 1e-4
    angles = linalg.subspace_angles(model.params["decoder.0.W"].value.T, best.w.T)
    assert angles.max() < 1e-3
    variance = np.exp(model.params["likelihood.logvar"].value[0])
    assert variance == pytest.approx(best.variance, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("active", [1, 2, 3])
@pytest.mark.proves("kl-grad-mu", "kl-grad-logvar")
def test_training_drops_the_dimensions_whose_variance_is_below_the_noise(
    zeros_and_ones, rng, active
):
    """Posterior collapse is no accident here: what varies less than the noise is not worth its KL.

    The noise variance is fixed between two eigenvalues. Of four latent dimensions those that remain
    are as many as there are eigenvalues above it, and they span those eigenvectors.
    """
    eigenvalues = np.linalg.eigvalsh(np.cov(zeros_and_ones.T, bias=True))[::-1]
    variance = math.sqrt(eigenvalues[active - 1] * eigenvalues[active])
    best = optimum(zeros_and_ones, 4, variance)
    model = linear_vae(64, 4, variance, rng)
    train(model, zeros_and_ones)
    assert -1e-11 < expected_loss(model, zeros_and_ones).mean() + best.log_p < 1e-4
    kl = evaluation.kl_of_dimensions(model, [zeros_and_ones])
    # Above and below: log(lambda / s^2) / 2 is 0.2 and more, and what is dropped tends to 0.
    assert best.active == active == (kl > 0.01).sum()
    np.testing.assert_allclose(np.sort(kl)[::-1], 0.5 * np.log(best.m / variance), atol=1e-3)
    assert evaluation.active_units(model, [zeros_and_ones]) == active
    w = model.params["decoder.0.W"].value
    lengths = np.linalg.norm(w, axis=1)
    assert lengths[kl < 0.01].max() < 1e-2 < lengths[kl > 0.01].min()
    assert linalg.subspace_angles(w[kl > 0.01].T, best.w[:active].T).max() < 1e-3


@pytest.mark.parametrize("z_dim", [1, 3])
@pytest.mark.proves("negative-elbo", "sigma", "kl", "kl-sum", "gaussian-nll")
def test_away_from_the_optimum_the_bound_is_too_low_by_the_divergence_from_the_posterior(
    rng, z_dim
):
    """log p(x) = bound + KL(q(z|x) || p(z|x)): so it is a bound, and q chases the posterior.

    The posterior of any two affine maps is normal, with a covariance that need not be diagonal.
    """
    model, variance = linear_vae(5, z_dim, 0.3, rng=rng), 0.3
    w, b = (model.params[f"decoder.0.{name}"].value for name in "Wb")  # (Z, D), (D,)
    x = rng.normal(size=(20, 5))
    mu, logvar = model.encode(x)  # (N, Z) each
    precision = np.eye(z_dim) + w @ w.T / variance  # of p(z|x), (Z, Z)
    away = np.linalg.solve(precision, w @ (x - b).T / variance).T - mu  # (N, Z)
    trace = np.exp(logvar) @ np.diag(precision)
    square = ((away @ precision) * away).sum(axis=1)
    log_det = np.linalg.slogdet(precision)[1] + logvar.sum(axis=1)
    divergence = 0.5 * (trace + square - z_dim - log_det)  # (N,)
    assert np.all(divergence > 0)
    exact = stats.multivariate_normal(b, w.T @ w + variance * np.eye(5)).logpdf(x)
    # Some fifty roundings of 1e-16 in terms below 1,000; a condition of the matrices below 30.
    np.testing.assert_allclose(-expected_loss(model, x) + divergence, exact, rtol=0, atol=1e-11)


# ------------------------------------------- log p(x) by quadrature, for a latent space of 1 or 2

STEP, REACH = 0.05, 9.0  # of the grid, in standard deviations; beyond lies 1e-18 of a normal

KINDS = [("bernoulli", 1.0), ("gaussian", 0.5), ("gaussian", "per-dimension")]


def grid(dim):
    """Points (M, dim), the weight of each under N(0, I), and whether all its indices are even."""
    index = np.arange(-round(REACH / STEP), round(REACH / STEP) + 1)
    index = np.stack(np.meshgrid(*dim * [index], indexing="ij"), axis=-1).reshape(-1, dim)
    points = STEP * index
    return points, (STEP * stats.norm.pdf(points)).prod(axis=1), (index % 2 == 0).all(axis=1)


# A steep decoder is what the grid resolves worst. Every comparison below allows for the estimated
# error; this says that it is small beside the differences that are looked for, which exceed 1e-4.
USABLE = 1e-6


def normal_mean(f, dim):
    """E[f(u)] for u ~ N(0, I), and a bound on the error; `f` takes (M, dim) and returns (M, ...).

    The trapezoidal rule on an equal grid: where the integrand is analytic and vanishes at both
    ends the error falls exponentially with 1 / step (L. N. Trefethen and J. A. C. Weideman, "The
    Exponentially Convergent Trapezoidal Rule", 2014). Half the step squares it, so that the
    difference from the grid of every second point exceeds the error by far.
    """
    points, weight, even = grid(dim)
    values = f(points)
    fine = np.tensordot(weight, values, 1)
    return fine, np.abs(fine - np.tensordot(2**dim * weight[even], values[even], 1))


def nonlinear_vae(likelihood, variance, z_dim, rng):
    """Five pixels, seven hidden units, a decoder that bends and a sigma between 0.4 and 2.2."""
    options = {"hidden": (7,), "activation": "tanh", "dtype": "float64", "rng": rng}
    model = sv.VAE(5, latent_dim=z_dim, likelihood=likelihood, variance=variance, **options)
    model.params["decoder.0.W"].value[...] *= 1.5
    model.params["encoder.2.W"].value[:, z_dim:] *= 0.5  # logvar is at most 8 / sqrt(7) / 2 = 1.5
    model.params["encoder.2.b"].value[z_dim:] *= 0.5
    return model


def some_data(likelihood, rng):
    """Four examples, (B, D)."""
    return (
        rng.integers(0, 2, (4, 5)) * 1.0 if likelihood == "bernoulli" else rng.normal(size=(4, 5))
    )


def log_likelihood(model, x, z):
    """Log p(x|z) of x (B, D) at z (M, B or 1, Z), (M, B), from the decoder's weights by SciPy."""
    p = {name: model.params[name].value for name in model.params.names}
    hidden = np.tanh(z @ p["decoder.0.W"] + p["decoder.0.b"])
    output = hidden @ p["decoder.2.W"] + p["decoder.2.b"]
    if output.shape[-1] == 10:
        return stats.norm.logpdf(x, output[..., :5], np.exp(output[..., 5:] / 2)).sum(axis=-1)
    if model.likelihood.binary:
        log_p = x * special.log_expit(output) + (1 - x) * special.log_expit(-output)
        return log_p.sum(axis=-1)
    return stats.norm.logpdf(x, output, math.sqrt(model.likelihood.variance)).sum(axis=-1)


def log_p_by_quadrature(model, x):
    """Log p(x) = log E[p(x|z)] over the prior, (B,), and its error."""
    p, error = normal_mean(lambda z: np.exp(log_likelihood(model, x, z[:, None])), model.latent_dim)
    return np.log(p), error / p


def elbo_by_quadrature(model, x):
    """Minus the expectation of the model's own loss over the noise, (B,), and its error."""

    def bound(eps):
        rows = np.tile(x, (len(eps), 1)), np.repeat(eps, len(x), axis=0)
        return -model.forward(*rows)[0].loss.reshape(-1, len(x))

    return normal_mean(bound, model.latent_dim)


def importance_weighted_by_quadrature(model, x, k):
    """E[log of the mean of k importance weights], (B,), and its error: k Z integrals in one."""

    def bound(points):
        eps = np.repeat(points.reshape(-1, 1, model.latent_dim), len(x), axis=1)  # (M k, B, Z)
        log_w = evaluation.log_importance_weights(model, x, eps).reshape(-1, k, len(x))
        return np.logaddexp.reduce(log_w, axis=1) - math.log(k)

    return normal_mean(bound, k * model.latent_dim)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("z_dim", "accuracy"), [(1, 1e-10), (2, 1e-3)])
def test_the_quadrature_agrees_with_an_adaptive_one(rng, likelihood, z_dim, accuracy):
    """What the tests below trust is checked by another way to integrate, SciPy's QUADPACK."""
    model, x = nonlinear_vae(likelihood, 0.5, z_dim, rng), some_data(likelihood, rng)[:1]

    def integrand(*z):
        prior = math.exp(-0.5 * sum(t * t for t in z)) / math.sqrt(2 * math.pi) ** z_dim
        return prior * math.exp(log_likelihood(model, x, np.array([[z]]))[0, 0])

    options = {"epsabs": 0, "epsrel": accuracy}
    p, error = integrate.nquad(integrand, z_dim * [(-REACH, REACH)], opts=options)
    log_p, own_error = log_p_by_quadrature(model, x)
    assert own_error[0] < 1e-9
    assert abs(math.exp(log_p[0]) - p) <= error + 1e-9 * p


PIXELS = {
    "bernoulli": pytest.mark.proves("bernoulli"),
    "gaussian": pytest.mark.proves("gaussian-nll"),
}


@pytest.mark.parametrize("z_dim", [1, 2])
@pytest.mark.parametrize(
    ("likelihood", "variance"), [pytest.param(*kind, marks=PIXELS[kind[0]]) for kind in KINDS]
)
@pytest.mark.proves("negative-elbo", "sigma", "reparameterize", "kl", "kl-sum")
def test_bound_and_divergence_from_the_posterior_add_up_to_log_p(rng, likelihood, variance, z_dim):
    """log p(x) = bound + KL(q(z|x) || p(z|x)), for a decoder whose posterior is no normal.

    The bound is the model's own loss. All else is done here with SciPy's densities, with sigma^2 =
    exp(logvar): were the model's sigma another, its bound would belong to another q.
    """
    model, x = nonlinear_vae(likelihood, variance, z_dim, rng), some_data(likelihood, rng)
    log_p, error_p = log_p_by_quadrature(model, x)
    bound, error_bound = elbo_by_quadrature(model, x)
    mu, logvar = model.encode(x)
    sigma = np.sqrt(np.exp(logvar))

    def log_ratio(u):  # log q(z|x) - log p(z|x) at z = mu + sigma u
        z = mu + sigma * u[:, None]  # (M, B, Z)
        log_q = stats.norm.logpdf(z, mu, sigma).sum(axis=-1)
        log_joint = log_likelihood(model, x, z) + stats.norm.logpdf(z).sum(axis=-1)
        return log_q - (log_joint - log_p)

    divergence, error_divergence = normal_mean(log_ratio, z_dim)
    errors = error_p + error_bound + error_divergence
    assert np.all(errors < USABLE)
    assert np.all(divergence > errors)  # no normal is the posterior, so the bound is below log p(x)
    # A hundred roundings of 1e-16 of summands near 10 in each of three means.
    assert np.all(np.abs(bound + divergence - log_p) <= errors + 1e-12)


def wide(model):
    """Make every sigma 1.2, wider than the prior: then no weight exceeds some bound.

    p(x|z) p(z) / q(z|x) has a largest value because p(z) / q(z|x) falls in both tails, and means of
    bounded weights are predictable.
    """
    model.params["encoder.2.W"].value[:, model.latent_dim :] = 0
    model.params["encoder.2.b"].value[model.latent_dim :] = 2 * math.log(1.2)
    return model


@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
@pytest.mark.proves("importance-weight", "importance-weighted-bound", "log-density", "kl")
def test_one_and_two_importance_samples_have_the_expectation_that_theory_says(
    rng, likelihood, variance
):
    """E[log of one weight] is the ELBO; that of the mean of two is higher, and below log p(x).

    Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted Autoencoders", 2016, theorem 1.
    """
    model, x = wide(nonlinear_vae(likelihood, variance, 1, rng)), some_data(likelihood, rng)
    log_p, error = log_p_by_quadrature(model, x)
    elbo, error_elbo = elbo_by_quadrature(model, x)
    one, error_one = importance_weighted_by_quadrature(model, x, 1)
    two, error_two = importance_weighted_by_quadrature(model, x, 2)
    errors = error + error_elbo + error_one + error_two
    assert np.all(errors < USABLE)
    # The ELBO has the KL in closed form, the weight has a difference of two log densities.
    assert np.all(np.abs(one - elbo) <= errors + 1e-12)
    assert np.all(one + errors < two)
    assert np.all(two + errors < log_p)
    repeats = 20_000
    for k, expected in ((1, one), (2, two)):
        batches = np.split(np.repeat(x, repeats, axis=0), 80)
        draws = evaluation.importance_weighted_bound(model, batches, k, rng).reshape(4, repeats)
        # Seven standard errors: log weights have tails no fatter than a square of a normal number,
        # and of 20,000 of them the mean is normal: 3e-12 for each of 8.
        slack = 7 * draws.std(axis=1) / math.sqrt(repeats)
        assert np.all(np.abs(draws.mean(axis=1) - expected) < slack + errors)


@pytest.mark.parametrize("z_dim", [1, 2])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
@pytest.mark.proves("importance-weight", "log-density")
def test_the_importance_weighted_bound_rises_with_k_to_log_p(rng, likelihood, variance, z_dim):
    """The mean of K weights is p(x) in expectation for every K, and its log approaches log p(x)."""
    model, x = wide(nonlinear_vae(likelihood, variance, z_dim, rng)), some_data(likelihood, rng)
    log_p, error_p = log_p_by_quadrature(model, x)

    means, errors = [elbo_by_quadrature(model, x)[0]], [np.zeros(4)]
    for k in (4, 64):
        batch = np.repeat(x, 400, axis=0)
        bound = evaluation.importance_weighted_bound(model, [batch], k, rng).reshape(4, 400)
        means.append(bound.mean(axis=1))
        errors.append(bound.std(axis=1) / 20)
    slack = 7 * np.array(errors)  # standard errors: a false alarm below 1e-10 in these 16
    assert np.all(np.diff(means, axis=0) > -slack[1:] - slack[:-1])
    assert np.all(means < log_p + slack)

    def ratio(u):  # of a weight to p(x), which is its expectation
        eps = np.repeat(u[:, None], len(x), axis=1)
        return np.exp(evaluation.log_importance_weights(model, x, eps) - log_p)  # (M, B)

    expectation, error = normal_mean(ratio, z_dim)
    assert np.all(np.abs(expectation - 1) <= error + error_p + 1e-12)
    variance_of_ratio = normal_mean(lambda u: (ratio(u) - 1) ** 2, z_dim)[0].max()
    largest = 1.01 * ratio(grid(z_dim)[0]).max()  # 1.01: there may be more between the points
    # Bernstein's inequality for k independent numbers in [0, largest]: their mean is off by t or
    # more with probability below 2 exp(-k t^2 / (2 variance + 2 largest t / 3)). Hence the k for
    # which the bound of each of 4 examples is off by 5% of p(x) with probability below 1e-10.
    t = 0.05
    k = math.ceil(math.log(2e10) * (2 * variance_of_ratio + 2 * largest * t / 3) / t**2)
    bound = evaluation.importance_weighted_bound(model, [x], k, rng)
    assert np.all(np.abs(np.expm1(bound - log_p)) < t + error_p)


# --------------------------------------------------------------------- optimizers, step after step


def adam_with_50_digits(gradients, rate, beta1, beta2, eps):
    """Algorithm 1 of Kingma and Ba, line by line, for one parameter that starts at 0.

    Returns the position after every step and the sum of the sizes of all steps so far.
    """
    rate, beta1, beta2, eps = (Decimal(number) for number in (rate, beta1, beta2, eps))
    theta = m = v = path = Decimal(0)
    positions, paths = [], []
    with localcontext(prec=50):
        for t, g in enumerate(map(Decimal, gradients), start=1):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat = m / (1 - beta1**t)
            v_hat = v / (1 - beta2**t)
            step = rate * m_hat / (v_hat.sqrt() + eps)
            theta, path = theta - step, path + abs(step)
            positions.append(theta)
            paths.append(path)
    return positions, paths


@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.5, 0.9), "eps": 1e-3}, {"betas": (0.0, 0.99), "eps": 1e-12}]
)
@pytest.mark.proves("adam-bias", "adam-moments", "adam-step")
def test_100_steps_of_adam_have_the_digits_of_exact_arithmetic(rng, options):
    """Folding both bias corrections into two scalars changes nothing but the last digits.

    The other side knows neither the folding nor floating point: a Decimal is the very number that a
    float stands for, and 50 digits leave no rounding to speak of.
    """
    n, steps = 7, 100
    sizes = 10.0 ** np.linspace(-9, 3, n)  # from far below eps to far above
    gradients = sizes * (rng.normal(size=(steps, n)) + rng.normal(size=n))  # some lean to one side
    params = sv.Parameters([("p", sv.Parameter(np.zeros(n)))])
    adam = sv.Adam(params, lr=0.01, **options)
    betas, eps = options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8)
    exact = [adam_with_50_digits(g.tolist(), 0.01, *betas, eps) for g in gradients.T]
    for t, g in enumerate(gradients):
        params.grad[...] = g
        adam.step()
        for i, (positions, paths) in enumerate(exact):
            # 1 - 0.999^t is as small as 1e-3 and has lost three of sixteen digits by cancellation;
            # all else rounds by 1e-16 each time. Errors of steps add like the steps' sizes.
            assert abs(Decimal(float(params.value[i])) - positions[t]) < Decimal("1e-12") * paths[t]


def momentum_on_a_parabola(theta, stretch, momentum, steps):
    """Where gradient descent with momentum is after 0, 1, ... steps, in closed form.

    With the gradient a theta and lr a = stretch, two steps give theta_(t+1) = (1 + momentum -
    stretch) theta_t - momentum theta_(t-1), whose solutions are powers of the roots of
    r^2 - (1 + momentum - stretch) r + momentum; if both are one, t r^t is the other solution.
    """
    t = np.arange(steps + 1)
    r1, r2 = np.roots([1, -(1 + momentum - stretch), momentum]).astype(complex)
    c = np.linalg.solve([[1, 1], [r1, r2]], [theta, (1 - stretch) * theta])
    return (c[0] * r1**t + c[1] * r2**t).real, np.abs(c[0] * r1**t) + np.abs(c[1] * r2**t)


@pytest.mark.parametrize(
    ("stretch", "momentum"), [(0.02, 0.5), (0.02, 0.9), (0.3, 0.9), (3.0, 0.9), (0.1, 0.0)]
)
@pytest.mark.proves("sgd")
def test_momentum_on_a_parabola_follows_its_closed_form(rng, stretch, momentum):
    """Little momentum creeps down, much of it overshoots and swings: a damped oscillator."""
    theta, a = rng.normal(), rng.uniform(0.1, 10)
    params = sv.Parameters([("p", sv.Parameter(np.array([theta])))])
    sgd = sv.SGD(params, lr=stretch / a, momentum=momentum)
    expected, size = momentum_on_a_parabola(theta, stretch, momentum, 100)
    for t in range(1, 101):
        params.grad[...] = a * params.value
        sgd.step()
        # Every step rounds five times by 1e-16, and an error decays as theta itself does; the roots
        # are good to a few 1e-16, and their 100th powers to a hundred times that.
        assert abs(params.value[0] - expected[t]) < 1e-12 * size[t]


@pytest.mark.proves("sgd")
def test_momentum_at_critical_damping_is_exact():
    """Both roots are 1/2, theta_t = (1 + t/2) / 2^t: binary fractions, so not a bit may differ."""
    params = sv.Parameters([("p", sv.Parameter(np.array([1.0])))])
    sgd = sv.SGD(params, lr=0.25, momentum=0.25)  # lr a = (1 - sqrt(momentum))^2 for a = 1
    for t in range(1, 101):
        params.grad[...] = params.value
        sgd.step()
        assert params.value[0] == Fraction(t + 2, 2 ** (t + 1))
