"""What docs/_ext/answer.py computes for the answer page, and what that page says in words.

The models are trained once and kept where the documentation's build keeps them.
"""

import importlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs"
SITE = Path(os.environ.get("SCRATCHVAE_SITE") or DOCS / "_build" / "html").resolve()
FOLDER = SITE.parent / "answer"


@pytest.fixture(scope="module")
def answer():
    pytest.importorskip("sphinx", reason="sphinx is not installed: the extension needs it")
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield importlib.import_module("answer")
    finally:
        sys.path.remove(str(DOCS / "_ext"))


@pytest.fixture(scope="module")
def names(answer):
    return answer.names(FOLDER)


def test_density_and_kl_are_those_of_scipy(answer, rng):
    z, mu, sigma = rng.normal(0, 3, 20), rng.normal(), rng.uniform(0.1, 3)
    # a few roundings of an exponent below 5,000
    np.testing.assert_allclose(
        answer.normal(z, mu, sigma), stats.norm.pdf(z, mu, sigma), rtol=1e-11, atol=0
    )
    q, p = stats.norm(mu, sigma), stats.norm()
    # The integrand is smooth and below 1e-12 at 9 sigma, so the sum's error is rounding.
    grid = mu + sigma * np.linspace(-9, 9, 2001)
    integral = np.sum(q.pdf(grid) * (q.logpdf(grid) - p.logpdf(grid))) * (grid[1] - grid[0])
    assert answer.KL(mu, sigma) == pytest.approx(integral, rel=1e-10, abs=1e-10)


def test_the_nearest_image_of_an_image_is_itself(answer, rng):
    images = rng.integers(0, 2, (30, 64)).astype(float)
    found = answer.nearest_image(np.clip(images, 0.1, 0.9), images)
    np.testing.assert_array_equal(images[found], images)


def test_the_lucky_sigma_is_where_the_wrong_formula_is_right(names):
    sigma = names["lucky_sigma"]
    assert abs(np.log(0.5 * sigma)) == pytest.approx(sigma, rel=1e-14)


def test_a_value_is_formatted(answer):
    assert answer.value("-0.5 * KL(0, 1) - 1.25:.1f", FOLDER) == "−1.2"
    assert answer.value("{1: draws}[1]:,", FOLDER) == "10,000"  # the last colon divides


def test_the_aggregate_posterior_is_as_far_from_the_prior_as_its_draws_say(names, rng):
    """The page's figure is a sum over a grid; here, an average over draws."""
    vae = names["vae"]
    row = rng.integers(len(vae.mu), size=10_000)
    z = vae.mu[row] + vae.sigma[row] * rng.standard_normal((10_000, 2))
    # (n, N) for each dimension: every posterior is a product of two.
    log_q = sum(stats.norm.logpdf(z[:, [j]], vae.mu[:, j], vae.sigma[:, j]) for j in (0, 1))
    log_q = logsumexp(log_q, axis=1) - np.log(len(vae.mu))
    log_p = stats.norm.logpdf(z).sum(axis=1)
    # The log ratio has a standard deviation of about 0.5: 0.005 for the mean, and six of these.
    assert vae.aggregate_kl == pytest.approx(np.mean(log_q - log_p), abs=0.03)


def test_what_the_page_says_in_words(names):
    """Were one of these to fail, a sentence of answer.md would have to change."""
    vae, ae, averaged = names["vae"], names["ae"], names["averaged"]
    assert vae.aggregate_kl < 0.2 * vae.kl.mean()  # the mixture is nearer to the prior
    assert (abs(vae.mu.mean(axis=0)) < 0.1).all()  # near 0 on average
    assert (vae.sigma.mean(axis=0) < 0.4).all()  # far below 1
    assert (abs((vae.mu**2 + vae.sigma**2).mean(axis=0) - 1) < 0.1).all()  # near 1
    assert ae.terms.reconstruction < vae.terms.reconstruction  # no noise disturbs its codes
    assert (ae.radius < 2).mean() < 0.25  # only those few that happen to lie near 0
    assert (vae.radius < 2).mean() > 0.75
    assert ae.share > 0.9  # three kinds of digit make up nearly all
    assert vae.share < 0.6
    assert ae.terms.reconstruction < vae.at_mean < vae.terms.reconstruction - 0.5
    assert vae.not_gaussian >= 8  # of the ten digits
    assert averaged.kl.mean() < 0.01  # each q(z|x) has become the prior
    assert averaged.terms.reconstruction > vae.terms.reconstruction + 3
    assert averaged.model.beta == averaged.model.data_dim / averaged.model.latent_dim


def test_every_figure_is_drawn_from_its_template(answer):
    for name, figure in answer.FIGURES.items():
        html = answer.templates.get_template(f"answer_{name}.html").render(figure(FOLDER))
        assert "nan" not in re.sub(r"[\w+/=]{100,}", "", html)  # base64 may hold those letters
        assert len(html) < (650_000 if name == "pulls" else 220_000)  # five decoders, and one
