"""What the bounds average over, and counts that mean what they say.

That they are bounds, and how close: test_ground_truth.py.
"""

import sys
import warnings

import numpy as np
import pytest
import standin
from scipy import special, stats

import scratchvae as sv
from scratchvae import evaluation
from scratchvae.backend import asnumpy
from scratchvae.gaussian import kl_per_dimension


@pytest.fixture
def model(rng):
    model = sv.VAE(5, hidden=(7,), latent_dim=1, activation="tanh", dtype="float64", rng=rng)
    model.params.value[...] *= 2  # a decoder that uses z, and a posterior that is not the prior
    return model


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (4, 5)).astype(np.float64)


def test_elbo_is_minus_the_mean_loss(model, x, rng):
    eps_seed = int(rng.integers(2**31))
    terms = evaluation.elbo(model, [x[:1], x[1:]], rng=eps_seed)
    eps = np.random.default_rng(eps_seed).standard_normal((4, 1))
    expected = model.loss_and_grad(x, eps)
    # Rounding of sums of four numbers near 10: a few ulp.
    np.testing.assert_allclose(terms, expected, rtol=1e-13)


def test_every_sample_of_the_elbo_has_its_own_noise(model, x, rng):
    seed = int(rng.integers(2**31))
    draw = np.random.default_rng(seed)
    expected = np.mean([model.loss_and_grad(x, draw.standard_normal((4, 1))) for _ in range(3)], 0)
    found = evaluation.elbo(model, [x], rng=seed, samples=3)
    np.testing.assert_allclose(found, expected, rtol=1e-13)  # a few ulp of sums near 10


@pytest.fixture
def single(rng):
    """A float32 model with float32 data, enough of them that float32 could not sum their terms."""
    return sv.VAE(5, hidden=(7,), latent_dim=2, rng=rng), rng.random((1000, 5), "float32")


def test_the_elbo_of_a_float32_model_is_summed_in_float64(single, rng):
    model, x = single
    seed = int(rng.integers(2**31))
    eps = np.random.default_rng(seed).standard_normal((1000, 2), "float32")
    terms, _ = model.forward(x, eps)
    expected = [term.sum(dtype=np.float64) / 1000 for term in terms]
    # The same additions: equal, not only close.
    np.testing.assert_array_equal(evaluation.elbo(model, [x], rng=seed), expected)


def test_more_samples_change_the_noise_of_the_elbo_and_not_its_mean(model, x, rng):
    one = [evaluation.elbo(model, [x], rng).loss for _ in range(1000)]
    many = evaluation.elbo(model, [x], rng, samples=1000).loss
    # 6 standard errors of a difference of two means: a false alarm once in 5e8 runs.
    assert abs(np.mean(one) - many) < 6 * np.sqrt(2) * np.std(one) / np.sqrt(1000)


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


def test_the_bound_of_a_float32_model_adds_float32_weights_in_float64(single, rng):
    model, x = single[0], single[1][:4]
    seed, k = int(rng.integers(2**31)), 1000
    eps = np.random.default_rng(seed).standard_normal((k, 4, 2), "float32")
    log_w = evaluation.log_importance_weights(model, x, eps)  # (K, B)
    assert log_w.dtype == np.float32
    expected = special.logsumexp(log_w.astype(np.float64), axis=0) - np.log(k)
    bound = evaluation.importance_weighted_bound(model, [x], k, rng=seed)
    # A thousand additions of logarithms below 10 in size, each rounded by 1e-15 at most, and those
    # errors do not all have one sign; in float32 a single one is rounded by up to 5e-7.
    np.testing.assert_allclose(bound, expected, rtol=1e-12)


def test_the_bound_of_an_improbable_image_is_finite(rng):
    """An image of 784 pixels may be hundreds of nats away: exp(-1000) is 0."""
    model = sv.VAE(784, hidden=(), latent_dim=2, dtype="float64", rng=rng)
    model.params.value[...] = 0
    model.params["decoder.0.b"].value[...] = 5.0
    bound = evaluation.importance_weighted_bound(model, [np.zeros((1, 784))], 11, rng)
    # Every weight is the same: 784 log(1 - sigmoid(5)), in a few roundings.
    np.testing.assert_allclose(bound, -784 * np.logaddexp(0, 5), rtol=1e-13)


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


def test_the_bound_is_bitwise_what_the_weights_of_each_chunk_give(single, rng):
    model, x, seed = *single, int(rng.integers(2**31))
    before = model.rng.bit_generator.state
    found = evaluation.importance_weighted_bound(model, [x], samples=25, rng=seed)
    assert model.rng.bit_generator.state == before  # nothing but `seed` draws
    draw, log_sum = np.random.default_rng(seed), np.full(1000, -np.inf)
    for k in (10, 10, 5):  # 10,000 rows at once
        log_w = evaluation.log_importance_weights(
            model, x, draw.standard_normal((k, 1000, 2), "f4")
        )
        log_sum = evaluation.log_sum_exp(np.concatenate([log_sum[None], log_w]))
    np.testing.assert_array_equal(found, log_sum - np.log(25))


@pytest.mark.parametrize(("backend", "most"), [("numpy", 10_000), ("cupy", 100_000)])
def test_the_bound_encodes_once_and_decodes_many_rows_at_once(monkeypatch, rng, backend, most):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    model = sv.VAE(3, hidden=(4,), latent_dim=2, rng=1, backend=backend)
    assert evaluation._rows_at_once(model) == most
    encoded, decoded = [], []
    for rows, layer in ((encoded, model.encoder), (decoded, model.decoder)):

        def forward(h, rows=rows, forward=layer.forward):
            rows.append(len(h))
            return forward(h)

        layer.forward = forward
    x = model.backend.asarray(rng.random((1000, 3)))
    evaluation.importance_weighted_bound(model, [x], samples=250, rng=2)
    assert encoded == [1000]
    assert decoded == [1, *[most] * (250_000 // most), *([50_000] if backend == "cupy" else [])]


def test_the_wider_a_layer_the_fewer_rows_are_decoded_at_once(monkeypatch, rng):
    """So 10,000 rows of MNIST's size are the most that is held at a time, whatever the model."""
    wide = sv.layers.dense([2, 3 * 784, 4], rng=1)
    model = sv.VAE(4, latent_dim=2, rng=1, decoder=wide)
    decoded, forward = [], wide.forward

    def count(h):
        decoded.append(len(h))
        assert h.dtype == np.float32  # the model's
        return forward(h)

    monkeypatch.setattr(wide, "forward", count)
    evaluation.importance_weighted_bound(model, [rng.random((1, 4))], samples=7000, rng=2)
    assert decoded == [1, 3333, 3333, 334]
    pixels = sv.VAE(2 * 784, (3,), 2, rng=1)
    assert evaluation._rows_at_once(pixels) == 5000
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", 1)
    assert evaluation._rows_at_once(pixels) == 1


def test_the_largest_array_of_a_cache_is_found_beside_what_is_none():
    assert evaluation._largest(((), None, np.zeros((2, 3)), [np.zeros(4), "word", 7])) == 6
    assert evaluation._largest(()) == evaluation._largest(None) == evaluation._largest([[]]) == 0


def test_the_decoder_is_asked_for_its_width_in_a_copy(rng):
    """It may take its scale from the first codes that it sees."""
    calls = []

    class Counted(sv.Linear):
        def forward(self, x):
            calls.append(self)
            return super().forward(x)

    model = sv.VAE(5, latent_dim=2, decoder=Counted(2, 5), rng=rng)
    calls.clear()
    evaluation._rows_at_once(model)
    assert calls
    assert model.decoder not in calls


@pytest.mark.parametrize("raises", [False, True])
def test_a_decoder_that_cannot_take_the_code_that_its_width_is_asked_with(raises, rng):
    def on_the_circle(h):
        norm = np.linalg.norm(h, axis=1, keepdims=True)
        if raises and not norm.all():
            raise ValueError("a code is 0")
        return np.concatenate([h / norm] * 2, axis=1), (h, norm)

    model = sv.VAE(4, (3,), 2, dtype="float64", rng=1)
    model.decoder.forward = on_the_circle
    x = rng.random((5, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound = evaluation.importance_weighted_bound(model, [x], 10, rng=rng)
        model.decoder.forward = lambda h: (np.hstack([h, h]), np.zeros((len(h), 1568)) / h[:, :1])
        assert evaluation._rows_at_once(model) == 5000  # the cache is seen all the same
    assert np.isfinite(bound).all()


@pytest.mark.parametrize("kind", [sv.VAE, sv.ConditionalVAE])
def test_the_bound_takes_what_the_model_takes(monkeypatch, rng, kind):
    """Lists, and on a device NumPy arrays, as `elbo` does."""
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    x, eps = rng.random((5, 6)), rng.standard_normal((3, 5, 2))
    for backend in "numpy", "cupy":
        options = {"classes": 3} if kind is sv.ConditionalVAE else {}
        model = kind(6, (4,), 2, rng=1, backend=backend, **options)
        rows = asnumpy(model.rows(x, np.arange(5) % 3))
        seed = int(rng.integers(2**31))

        def bound(batch, model=model, seed=seed):
            return evaluation.importance_weighted_bound(model, [batch], samples=4, rng=seed)

        expected = bound(model.backend.asarray(rows))
        np.testing.assert_array_equal(bound(rows), expected)
        np.testing.assert_array_equal(bound(rows.tolist()), expected)
        eps_there = model.backend.asarray(eps, dtype="float32")
        weights = [
            asnumpy(evaluation.log_importance_weights(model, given, eps_there))
            for given in (model.backend.asarray(rows), rows, rows.tolist())
        ]
        np.testing.assert_array_equal(weights[1], weights[0])
        np.testing.assert_array_equal(weights[2], weights[0])


@pytest.mark.parametrize(
    "measure",
    [
        evaluation.elbo,
        evaluation.kl_of_dimensions,
        evaluation.active_units,
        lambda model, batches: evaluation.importance_weighted_bound(model, batches, 2),
    ],
)
@pytest.mark.parametrize("batches", [None, 3, sv.datasets.load("digits")])
def test_what_holds_no_batches_is_refused(measure, batches):
    with pytest.raises(sv.InputError) as error:
        measure(sv.VAE(64, (4,), 2), batches)
    expected = "expected an iterable of arrays (B, D), such as [x]"
    assert str(error.value) == f"batches is {batches!r}: {expected}"


@pytest.mark.proves("log-sum-exp")
def test_log_sum_exp_is_scipys_in_every_column(rng):
    far = rng.choice([0, -2000, 2000, 1e300], 6)  # exp of it is 0 or infinite
    a = rng.standard_normal((5, 6)) + far  # (K, B)
    # Rounding of exp, of a sum of five numbers and of log.
    np.testing.assert_allclose(evaluation.log_sum_exp(a), special.logsumexp(a, axis=0), rtol=1e-13)


def test_the_log_of_weights_that_are_all_0_is_minus_infinity_without_a_warning():
    a = np.array([[-np.inf, 0.0], [-np.inf, -np.inf]])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(evaluation.log_sum_exp(a), [-np.inf, 0])


def test_an_autoencoder_has_no_importance_weighted_bound(x):
    with pytest.raises(sv.InputError, match=r"^the importance-weighted bound needs a VAE: .* no q"):
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


def test_the_kl_of_dimensions_of_a_float32_model_is_summed_in_float64(single):
    model, x = single
    terms = kl_per_dimension(*model.encode(x))  # (N, Z)
    assert terms.dtype == np.float32
    expected = terms.sum(axis=0, dtype=np.float64) / 1000
    np.testing.assert_array_equal(evaluation.kl_of_dimensions(model, [x]), expected)


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


def test_a_unit_is_active_only_above_the_threshold():
    """An autoencoder's code is the mean itself: here the data, exactly."""
    model = sv.Autoencoder(2, hidden=(), latent_dim=2, likelihood="gaussian", dtype="float64")
    model.params["encoder.0.W"].value[...] = np.eye(2)
    model.params["encoder.0.b"].value[...] = 0
    data = np.array([[0.0, 7.0], [1.0, 7.0]])  # variances exactly 1/4 and 0
    assert evaluation.active_units(model, [data[:1], data[1:]], threshold=0.24) == 1
    assert evaluation.active_units(model, [data], threshold=0.25) == 0


def test_constant_codes_far_from_0_are_not_active(rng):
    """In float32 their mean squares and squared means would differ by 0.06 and more, either way."""
    model = sv.VAE(3, hidden=(), latent_dim=50, rng=rng)
    model.params["encoder.0.W"].value[...] = 0
    model.params["encoder.0.b"].value[:50] = rng.uniform(1000, 2000, 50)
    assert evaluation.active_units(model, [np.zeros((100, 3), "float32")]) == 0


@pytest.mark.parametrize(
    ("measure", "what"),
    [
        (lambda model, x: evaluation.importance_weighted_bound(model, x, 3), "the importance-weig"),
        (evaluation.kl_of_dimensions, "the KL"),
    ],
)
def test_what_needs_a_posterior_says_so(x, measure, what):
    with pytest.raises(sv.InputError, match=f"^{what}.* needs a VAE: an autoencoder has no q"):
        measure(sv.Autoencoder(5), [x])


@pytest.mark.parametrize("name", ["kl", "kl_backward"])
def test_the_kl_of_dimensions_is_that_of_vae(x, name):
    """Else the dimensions would add up to another KL than the model's."""

    class Own(sv.VAE):
        pass

    setattr(Own, name, lambda self, *args: getattr(super(Own, self), name)(*args))
    with pytest.raises(sv.InputError) as error:
        evaluation.kl_of_dimensions(Own(5), [x])
    assert str(error.value) == (
        "the KL of each dimension is that of VAE, and the model replaces it with another"
    )


class FarPrior(sv.VAE):
    """Its prior is N(3, I), which draw and KL know."""

    def kl(self, mu, logvar):
        return super().kl(mu - 3, logvar)

    def draw_prior(self, n, rng):
        return super().draw_prior(n, rng) + 3


class FarPriorWithDensity(FarPrior):
    def log_prior(self, z):
        return super().log_prior(z - 3)


def test_the_bound_of_a_prior_whose_density_is_not_given_is_refused(x, rng):
    with pytest.raises(sv.InputError) as error:
        evaluation.importance_weighted_bound(FarPrior(5, rng=rng), [x], 3)
    assert str(error.value) == (
        "the model replaces kl and draw_prior, and so its prior, but not log_prior, by which the "
        "bound weighs the codes: replace log_prior(z) too, the log density of z in nats"
    )
    model = sv.VAE(5, rng=rng)
    model.kl = model.draw_prior = lambda *args: None
    with pytest.raises(sv.InputError, match=r"^the model replaces kl and draw_prior, and so"):
        evaluation._require_density(model)
    model = FarPriorWithDensity(5, rng=rng)
    bound = evaluation.importance_weighted_bound(model, [x], 300, rng=rng)
    elbo = evaluation.elbo(model, [x], samples=100, rng=rng)
    assert -bound.mean() < elbo.loss


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "measure",
    [
        evaluation.elbo,
        lambda model, x: evaluation.importance_weighted_bound(model, x, 3),
        evaluation.kl_of_dimensions,
        evaluation.active_units,
    ],
    ids=["elbo", "bound", "kl", "active"],
)
def test_data_without_a_batch_are_refused(measure):
    with pytest.raises(sv.InputError, match=r"^batches holds no example: expected at least one$"):
        measure(sv.VAE(3, (4,), 2), iter([]))


def test_a_forward_that_does_not_give_one_loss_an_example_is_refused(x):
    """As where a subclass draws K times and its forward knows nothing of it."""

    class Several(sv.Autoencoder):
        def forward(self, x, eps=None):
            terms, cache = super().forward(x, eps)
            return sv.Terms(*(np.stack([t, t]) for t in terms)), cache

    with pytest.raises(
        sv.InputError, match=r"a loss of shape \(2, 4\) for 4 examples: expected one n"
    ):
        evaluation.elbo(Several(5), [x])
