"""Is the gradient of one draw right on average, and how noisy is it?

A gradient check compares backward with forward for one noise, held still. What training needs is
another statement: averaged over the noise, that gradient is the derivative of the expected loss.
Here the derivative of the expectation comes from elsewhere, a closed form or a quadrature of the
written-out expectation, and the average over draws must agree within its own standard error.

Gradients are compared at 7 standard errors. The mean of n draws is normal for the n used here, and
a normal number exceeds 7 standard deviations with probability 2.6e-12: with at most 60 comparisons
in a test, below 2e-10 per test.
"""

import math

import numpy as np
import pytest
from numpy.polynomial import hermite_e
from scipy import special

import scratchvae as sv
from scratchvae.gaussian import (
    log_density,
    log_density_backward,
    reparameterize,
    reparameterize_backward,
)

SIGMAS = 7


def normal_points(n):
    """Gauss-Hermite points and weights: the mean of any polynomial of e ~ N(0, 1) below degree 2n.

    Every entire function of moderate growth is as good as one.
    """
    points, weights = hermite_e.hermegauss(n)
    return points, weights / math.sqrt(2 * math.pi)


def agree(draws, expected):
    """Assert that the mean over the first axis is `expected` within its own standard error."""
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    # 1e-12 for what does not depend on the noise: nothing but rounding is left there.
    slack = SIGMAS * error + 1e-12 * (1 + np.abs(expected))
    assert np.all(np.abs(draws.mean(axis=0) - expected) < slack)
    return error


# ---------------------------------------------------------------------- one draw of one normal code

# f and f', and the derivatives of E[f(z)] in mu and logvar for z ~ N(mu, v), in closed form.
FUNCTIONS = {
    "square": (
        lambda z: z**2,  # E = mu^2 + v
        lambda z: 2 * z,
        lambda mu, v: (2 * mu, v),
    ),
    "cube": (
        lambda z: z**3,  # E = mu^3 + 3 mu v
        lambda z: 3 * z**2,
        lambda mu, v: (3 * mu**2 + 3 * v, 3 * mu * v),
    ),
    "sine": (
        np.sin,  # E = exp(-v/2) sin(mu)
        np.cos,
        lambda mu, v: (np.exp(-v / 2) * np.cos(mu), -v / 2 * np.exp(-v / 2) * np.sin(mu)),
    ),
    "normal distribution function": (
        special.ndtr,  # E = ndtr(mu / sqrt(1 + v)): a sigmoid whose expectation is known
        lambda z: np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi),
        lambda mu, v: tuple(
            np.exp(-(mu**2) / (2 + 2 * v)) / np.sqrt(2 * np.pi * (1 + v)) * factor
            for factor in (1, -mu * v / (2 + 2 * v))
        ),
    ),
}


def pathwise(df, mu, logvar, eps):
    """The gradient of f(z) in mu and logvar for every draw, through the draw; eps (n, Z)."""
    z, cache = reparameterize(np.tile(mu, (len(eps), 1)), np.tile(logvar, (len(eps), 1)), eps)
    return reparameterize_backward(df(z), cache)


def score_function(f, mu, logvar, eps):
    """f(z) times the gradient of log q(z) in mu and logvar: it never asks for f'."""
    mu, logvar = np.tile(mu, (len(eps), 1)), np.tile(logvar, (len(eps), 1))  # (n, Z)
    z, _ = reparameterize(mu, logvar, eps)
    # One dimension is a row of its own, so that each has its density and not their sum.
    _, cache = log_density(z[..., None], mu[..., None], logvar[..., None])
    _, dmu, dlogvar = log_density_backward(f(z), cache)
    return dmu[..., 0], dlogvar[..., 0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_pathwise_gradient_is_right_on_average(rng, name):
    """The reparameterisation moves the derivative inside the expectation: that is all its magic."""
    _, df, derivative = FUNCTIONS[name]
    mu, logvar = rng.uniform(-1.5, 1.5, (2, 5))
    eps = rng.normal(size=(200_000, 5))
    for draws, expected in zip(
        pathwise(df, mu, logvar, eps), derivative(mu, np.exp(logvar)), strict=True
    ):
        agree(draws, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_score_function_gradient_is_right_on_average(rng, name):
    """The other estimator, f(z) times the gradient of log q(z), has the same expectation."""
    f, _, derivative = FUNCTIONS[name]
    mu, logvar = rng.uniform(-1.5, 1.5, (2, 5))
    eps = rng.normal(size=(200_000, 5))
    for draws, expected in zip(
        score_function(f, mu, logvar, eps), derivative(mu, np.exp(logvar)), strict=True
    ):
        agree(draws, expected)


def variances_for_a_parabola(d, v):
    """Variances of both estimators' gradients of (z - a)^2 in mu and logvar, where d = mu - a.

    With z - a = d + s e and s^2 = v, the pathwise gradients are 2 (d + s e) and s e (d + s e), the
    others (d + s e)^2 times e / s and (e^2 - 1) / 2; the even moments of e are 1, 3, 15, 105.
    """
    pathwise = 4 * v, d**2 * v + 2 * v**2
    score = d**4 / v + 14 * d**2 + 15 * v, d**4 / 2 + 15 * d**2 * v + 18.5 * v**2
    return pathwise, score


def both_estimators(a, mu, logvar, eps):
    yield pathwise(lambda z: 2 * (z - a), mu, logvar, eps)
    yield score_function(lambda z: (z - a) ** 2, mu, logvar, eps)


def test_the_pathwise_gradient_of_a_parabola_is_many_times_less_noisy(rng):
    """Why VAEs reparameterise: in mu the variance is 4 v against 15 v and more, whatever mu and v.

    Exactly, by quadrature: an estimator of degree 4 in e has a square of degree 8.
    """
    a, mu, logvar = rng.uniform(-2, 2, (3, 6))
    points, weights = normal_points(10)
    eps = np.tile(points[:, None], 6)  # (n, Z)
    theory = variances_for_a_parabola(mu - a, np.exp(logvar))
    for gradients, variances in zip(both_estimators(a, mu, logvar, eps), theory, strict=True):
        for gradient, variance in zip(gradients, variances, strict=True):
            mean = weights @ gradient
            # Ten summands with roundings of 1e-16 and weights that are good to 1e-14.
            np.testing.assert_allclose(weights @ (gradient - mean) ** 2, variance, rtol=1e-12)
    for little, much in zip(*theory, strict=True):
        assert np.all(3.75 * little <= much)


def test_draws_have_the_variances_that_theory_says(rng):
    """What the quadrature says of the estimators holds for random draws too."""
    n = 1_000_000
    a, mu, logvar = rng.uniform(-2, 2, (3, 1))
    eps = rng.normal(size=(n, 1))
    points, weights = normal_points(20)
    theory = variances_for_a_parabola(mu - a, np.exp(logvar))
    rule = both_estimators(a, mu, logvar, points[:, None])
    draws = both_estimators(a, mu, logvar, eps)
    for of_draws, at_points, variances in zip(draws, rule, theory, strict=True):
        for gradient, exact, variance in zip(of_draws, at_points, variances, strict=True):
            fourth = weights @ (exact - weights @ exact) ** 4  # the 4th central moment
            error = np.sqrt((fourth - variance**2) / n)
            # The variance of the last estimator is a mean of 8th powers of e, and the tail of such
            # a mean is no normal one: a single large e may carry it. 16 standard errors, a quarter
            # of the variance, take one beyond 8.1, which a million draws have with probability
            # below 1e-9. The other three have thinner tails.
            assert np.all(np.abs(gradient.var(axis=0) - variance) < 16 * error)


# ------------------------------------------------------------------------------------ whole models


def mean_gradient(model, x, rng, calls=1000, copies=20):
    """Mean gradients of `copies` draws of every example, (calls, P)."""
    x, gradients = np.repeat(x, copies, axis=0), []
    for _ in range(calls):
        model.loss_and_grad(x, rng.standard_normal((len(x), model.latent_dim)))
        gradients.append(model.params.grad.copy())
    return np.array(gradients)


@pytest.mark.proves("batch-mean", "gaussian-nll-grad", "linear-grad-W", "linear-grad-b")
def test_the_gradient_of_a_linear_model_is_right_on_average(rng):
    """With affine maps the expected loss has no integral left, and its derivative is written here.

    E|x - b - z W|^2 = |r|^2 + sum_j sigma_j^2 |w_j|^2, where r = x - b - mu W: the noise costs each
    latent dimension its variance times the square of what the decoder makes of it.
    """
    options = {"hidden": (), "likelihood": "gaussian", "variance": "shared", "dtype": "float64"}
    model = sv.VAE(4, latent_dim=2, rng=rng, **options)
    p = model.params
    p["likelihood.logvar"].value[...] = rng.uniform(-1, 1)
    x = rng.normal(size=(5, 4))
    head, w, b = p["encoder.0.W"].value, p["decoder.0.W"].value, p["decoder.0.b"].value
    mu, logvar = np.split(x @ head + p["encoder.0.b"].value, 2, axis=1)  # (N, Z) each
    v, s2 = np.exp(logvar), np.exp(p["likelihood.logvar"].value)
    r = x - b - mu @ w  # (N, D)
    square = (r**2).sum(axis=1) + v @ (w**2).sum(axis=1)  # (N,)
    dmu = mu - r @ w.T / s2
    dlogvar = 0.5 * v * (w**2).sum(axis=1) / s2 + 0.5 * (v - 1)
    dcode = np.concatenate([dmu, dlogvar], axis=1) / 5
    expected = {
        "encoder.0.W": x.T @ dcode,
        "encoder.0.b": dcode.sum(axis=0),
        "decoder.0.W": (v.mean(axis=0)[:, None] * w - mu.T @ r / 5) / s2,
        "decoder.0.b": -r.mean(axis=0) / s2,
        "likelihood.logvar": 0.5 * (4 - square.mean() / s2),
    }
    agree(
        mean_gradient(model, x, rng), np.concatenate([expected[name].ravel() for name in p.names])
    )


def expected_loss(p, x, points, weights):
    """The expected loss of a Bernoulli VAE with one tanh layer and Z = 1, written out."""
    hidden = np.tanh(x @ p["encoder.0.W"] + p["encoder.0.b"])
    mu, logvar = (hidden @ p["encoder.2.W"] + p["encoder.2.b"]).T[:, :, None]  # (N, 1) each
    z = mu + np.sqrt(np.exp(logvar)) * points  # (N, K)
    hidden = np.tanh(z[..., None] @ p["decoder.0.W"] + p["decoder.0.b"])  # (N, K, H)
    l = hidden @ p["decoder.2.W"] + p["decoder.2.b"]  # (N, K, D)
    log_p = x[:, None] * special.log_expit(l) + (1 - x[:, None]) * special.log_expit(-l)
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)
    return kl.mean() - (log_p.sum(axis=2) @ weights).mean()


@pytest.mark.proves("batch-mean", "bernoulli-grad", "linear-grad-x", "chain-rule", "tanh-grad")
def test_the_gradient_of_a_nonlinear_model_is_right_on_average(rng):
    """The expected loss by Gauss-Hermite quadrature, its derivative by differences of that."""
    model = sv.VAE(3, (3,), 1, activation="tanh", dtype="float64", rng=rng)
    x = rng.integers(0, 2, (4, 3)).astype(np.float64)
    points, weights = normal_points(40)
    p = {name: model.params[name].value.copy() for name in model.params.names}
    expected = []
    for value in p.values():
        for i in np.ndindex(value.shape):
            at, loss = value[i], {}
            for h in (-2, -1, 1, 2):
                value[i] = at + 1e-3 * h
                loss[h] = expected_loss(p, x, points, weights)
            value[i] = at
            # The error is h^4 / 30 of the fifth derivative and 1e-13 of rounding: a millionth of
            # what the random draws resolve.
            expected.append((8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * 1e-3))
    agree(mean_gradient(model, x, rng), np.array(expected))
