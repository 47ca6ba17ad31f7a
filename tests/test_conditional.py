"""The conditional VAE: the label reaches encoder and decoder, and goes with its row everywhere."""

import inspect
import json
import sys

import numpy as np
import pytest
import standin
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import scratchvae as sv
from scratchvae import checkpoint, evaluation, finite, gradcheck, parallel
from scratchvae.backend import get_backend
from scratchvae.cli import main
from scratchvae.datasets import Dataset

KINDS = [
    ("bernoulli", 1.0),
    ("gaussian", 0.3),
    ("gaussian", "shared"),
    ("gaussian", "per-dimension"),
]


def small(likelihood="bernoulli", variance=1.0, **options):
    options = {"hidden": (6,), "latent_dim": 3, "classes": 4, "dtype": "float64", **options}
    return sv.ConditionalVAE(5, likelihood=likelihood, variance=variance, **options)


def data(rng, n=8):
    """Return x (B, D), eps (B, Z) and labels (B,)."""
    return rng.uniform(size=(n, 5)), rng.normal(size=(n, 3)), rng.integers(0, 4, n)


# What the loss means


@pytest.mark.proves("conditional-one-hot", "conditional-decoder", "conditional-nll")
@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_the_loss_is_that_of_x_given_its_label(rng, likelihood, variance, beta):
    """Written out with SciPy's densities, example by example, from the model's own weights."""
    model = small(likelihood, variance, rng=rng, beta=beta, activation="tanh")
    x, eps, labels = data(rng)
    p = {name: model.params[name].value for name in model.params.names}
    reconstruction = kl = 0.0
    for n, label in enumerate(labels):
        # A one-hot vector times a matrix is one of its rows: a bias of the class's own.
        own = p["encoder.0.W"][5 + label]
        hidden = np.tanh(x[n] @ p["encoder.0.W"][:5] + own + p["encoder.0.b"])
        mu, logvar = np.split(hidden @ p["encoder.2.W"] + p["encoder.2.b"], 2)
        z = mu + np.sqrt(np.exp(logvar)) * eps[n]
        own = p["decoder.0.W"][3 + label]
        hidden = np.tanh(z @ p["decoder.0.W"][:3] + own + p["decoder.0.b"])
        output = hidden @ p["decoder.2.W"] + p["decoder.2.b"]
        if likelihood == "bernoulli":
            log_p = x[n] * special.log_expit(output) + (1 - x[n]) * special.log_expit(-output)
        elif variance == "per-dimension":
            log_p = stats.norm.logpdf(x[n], output[:5], np.exp(output[5:] / 2))
        else:
            value = np.exp(p["likelihood.logvar"]) if variance == "shared" else variance
            log_p = stats.norm.logpdf(x[n], output, np.sqrt(value))
        reconstruction -= log_p.sum() / len(x)
        kl += (0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)).sum() / len(x)
    expected = reconstruction + beta * kl, reconstruction, kl
    # Some hundred roundings of 1e-16, relative to summands of about 10.
    assert model.loss_and_grad(x, eps, labels) == pytest.approx(expected, rel=1e-13, abs=1e-13)


def exact(rng):
    """Return a linear model whose posterior is exact, and log p(x|y) as a function.

    Given y, x is N(m_y, W^T W + s^2 I): probabilistic PCA with a mean for each class.
    """
    s2, z, d, c = 0.4, 2, 5, 3
    options = {"likelihood": "gaussian", "variance": s2, "dtype": "float64", "rng": rng}
    model = sv.ConditionalVAE(d, (), z, classes=c, **options)
    weights, means = rng.standard_normal((z, d)), rng.standard_normal((c, d))
    m = np.linalg.inv(weights @ weights.T + s2 * np.eye(z))  # posterior covariance, over s^2
    # The encoder's q has no correlations, so the axes of z are turned until there are none.
    _, turn = np.linalg.eigh(m)
    weights = turn.T @ weights  # (Z, D)
    m = turn.T @ m @ turn  # diagonal
    p = model.params
    p["decoder.0.W"].value[...] = np.concatenate([weights, means])
    p["decoder.0.b"].value[...] = 0
    to_mu = weights.T @ m  # (D, Z): E[z|x, y] = (x - m_y) to_mu
    to_mu = np.concatenate([to_mu, -means @ to_mu])  # (D + C, Z)
    p["encoder.0.W"].value[...] = np.concatenate([to_mu, np.zeros((d + c, z))], axis=1)
    p["encoder.0.b"].value[...] = np.concatenate([np.zeros(z), np.log(s2 * np.diag(m))])
    covariance = weights.T @ weights + s2 * np.eye(d)

    def log_p(x, labels):
        return stats.multivariate_normal.logpdf(x - means[labels], np.zeros(d), covariance)

    return model, log_p


@pytest.mark.proves("conditional-one-hot", "conditional-decoder", "conditional-nll")
def test_with_the_exact_posterior_the_bound_is_log_p_of_x_given_y(rng):
    model, log_p = exact(rng)
    x, labels = rng.standard_normal((50, 5)), rng.integers(0, 3, 50)
    expected = log_p(x, labels)  # (B,)
    rows = model.rows(x, labels)
    # Each importance weight is p(x|y) itself: some dozen roundings of 1e-16 of terms of about 30.
    bound = evaluation.importance_weighted_bound(model, [rows[:20], rows[20:]], 7, rng)
    np.testing.assert_allclose(bound, expected, rtol=0, atol=1e-11)
    # One draw's loss is not the bound, but its mean over all draws is: that of a quadratic, by the
    # nodes +-1 of each axis.
    axes = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    terms = [model.forward(x, np.tile(eps, (50, 1)), labels)[0].loss for eps in axes]
    np.testing.assert_allclose(-np.mean(terms, axis=0), expected, rtol=0, atol=1e-11)


@pytest.mark.proves("conditional-decoder", "conditional-nll")
def test_another_label_gives_a_smaller_bound_where_classes_differ(rng):
    model, log_p = exact(rng)
    x = rng.standard_normal((30, 5))
    of_each = np.stack([log_p(x, np.full(30, c)) for c in range(3)])  # (C, B)
    found = [
        evaluation.importance_weighted_bound(model, [model.rows(x, c)], 2, rng) for c in range(3)
    ]
    np.testing.assert_allclose(found, of_each, rtol=0, atol=1e-11)


@pytest.mark.proves("conditional-decoder")
def test_the_bound_of_several_draws_is_that_of_their_weights(rng):
    """Each of the K draws of an example is decoded with the label of that example."""
    model = small(rng=rng, activation="tanh")
    x, _, labels = data(rng)
    rows, eps = model.rows(x, labels), rng.standard_normal((6, 8, 3))
    found = evaluation.log_importance_weights(model, rows, eps)  # (K, B)
    mu, logvar = model.encode(x, labels)
    for k in range(6):
        z = mu + np.exp(logvar / 2) * eps[k]
        mean = model.decode(z, labels)
        log_p = (x * np.log(mean) + (1 - x) * np.log1p(-mean)).sum(axis=1)
        log_p += stats.norm.logpdf(z).sum(axis=1)
        log_p -= stats.norm.logpdf(z, mu, np.exp(logvar / 2)).sum(axis=1)
        np.testing.assert_allclose(found[k], log_p, rtol=1e-12)  # sums of 11 terms


# Gradients


@pytest.mark.proves("conditional-grad-z")
@settings(max_examples=40)
@given(
    options=st.fixed_dictionaries({"hidden": draws.hiddens, "activation": draws.activations}),
    likelihood=draws.likelihoods,
    # Not one so small that, where all ReLUs of the decoder are off, no slope can be resolved.
    beta=st.sampled_from([0.0, 0.5, 1.0, 10.0]),
    sizes=st.tuples(draws.batch_sizes, draws.data_dims, draws.latent_dims, st.integers(1, 5)),
    seed=draws.seeds,
)
def test_gradients_are_slopes(options, likelihood, beta, sizes, seed):
    b, d, z, classes = sizes
    rng = np.random.default_rng([seed, 1])
    options = {"classes": classes, "beta": beta, "dtype": "float64", **options, **likelihood}
    model = sv.ConditionalVAE(d, latent_dim=z, rng=rng, **options)
    x, eps = draws.bits(rng, (b, d)), rng.standard_normal((b, z))
    rows = model.rows(x, rng.integers(0, classes, b))
    mu, logvar = np.split(draws.clear_of_kinks(model.encoder, rows), 2, axis=1)
    code = mu + np.exp(logvar / 2) * eps
    draws.clear_of_kinks(model.decoder, model.decoder_input(code, rows))
    try:
        gradcheck.check_model(model, rows, eps, rng=seed)
    except gradcheck.GradientError as error:
        # Behind a single unit, at beta = 0, gradients may be too small for the forward pass.
        if error.report.verdict != "cannot tell":
            raise


@pytest.mark.proves("conditional-grad-z")
def test_the_codes_gradient_is_that_of_the_decoders_input_without_the_label(rng):
    model = small(rng=rng)
    z, (x, _, labels), dinput = (rng.standard_normal((8, 3)), data(rng), rng.normal(size=(8, 7)))
    rows = model.rows(x, labels)
    h = 1e-3  # z enters linearly, so any step will do
    for j in range(3):
        step = h * np.eye(3)[j]
        moved = model.decoder_input(z + step, rows) - model.decoder_input(z - step, rows)
        slope = (moved / (2 * h) * dinput).sum(axis=1)
        np.testing.assert_allclose(model.decoder_input_backward(dinput)[:, j], slope, atol=1e-12)


# Labels and rows


@pytest.mark.proves("conditional-one-hot")
@pytest.mark.parametrize(("dtype", "white"), [("float32", 1.0), ("uint8", 255.0), ("uint8", 16.0)])
def test_a_row_is_x_and_its_label_as_one_hot(rng, dtype, white):
    model = small()
    x = (white * rng.random((9, 5))).astype(dtype)
    labels = rng.integers(0, 4, 9)
    rows = model.rows(x, labels, white)
    assert rows.dtype == x.dtype
    np.testing.assert_array_equal(rows[:, :5], x)
    np.testing.assert_array_equal(rows[:, 5:], white * np.eye(4)[labels])
    np.testing.assert_array_equal(model.rows(x, 2, white), model.rows(x, [2] * 9, white))


def test_every_method_takes_labels_or_rows(rng):
    model = small(rng=rng)
    x, eps, labels = data(rng)
    rows, z = model.rows(x, labels), rng.standard_normal((8, 3))
    equal = np.testing.assert_array_equal
    assert model.loss_and_grad(x, eps, labels) == model.loss_and_grad(rows, eps)
    assert model.loss_and_grad(x, eps, labels=labels.tolist()) == model.loss_and_grad(rows, eps)
    equal(model.forward(x, eps, labels)[0], model.forward(rows, eps)[0])
    equal(model.encode(x, labels), model.encode(rows))
    equal(model.reconstruct(x, labels), model.reconstruct(rows))
    equal(model.reconstruct(rows), model.decode(model.mean_code(rows), labels))
    equal(model.mean_code(x, labels), model.mean_code(rows))
    equal(model.codes(x, eps, labels), model.codes(rows, eps))
    mu, logvar = model.encode(rows)
    # One product and one sum.
    np.testing.assert_allclose(model.codes(rows, eps), mu + np.exp(logvar / 2) * eps, rtol=1e-14)
    equal(model.decode(z, 3), model.decode(z, [3] * 8))
    assert not np.array_equal(model.decode(z, 3), model.decode(z, 2))
    assert not np.array_equal(model.encode(x, 3), model.encode(x, 2))


def test_labels_stand_where_the_guide_says():
    for name in ("encode", "codes", "mean_code", "decode", "reconstruct", "forward"):
        first, *others = list(inspect.signature(getattr(sv.ConditionalVAE, name)).parameters)[1:]
        assert first in ("x", "z")
        assert others == ["eps"] * (name in ("codes", "forward")) + ["labels"]
    found = inspect.signature(sv.ConditionalVAE.loss_and_grad).parameters
    assert list(found) == ["self", "x", "eps", "labels", "batch_size"]


def test_without_noise_it_draws_its_own(rng):
    model = small(rng=rng)
    x, _, labels = data(rng)
    first, second = (model.loss_and_grad(x, labels=labels).loss for _ in range(2))
    assert first != second


def test_shares_of_a_batch_add_to_the_whole(rng):
    model = small(rng=rng)
    x, eps, labels = data(rng)
    whole = model.loss_and_grad(x, eps, labels)
    expected = model.params.grad.copy()
    terms, gradient = [], 0
    for part in slice(0, 3), slice(3, 8):
        terms.append(model.loss_and_grad(x[part], eps[part], labels[part], batch_size=8))
        gradient = gradient + model.params.grad
    # Eight summands in another order.
    assert np.sum(terms, axis=0) == pytest.approx(whole, rel=1e-14)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-14)


MASKED = np.ma.array([0, 1, 2, 3] * 2, mask=[1, 0, 0, 0] * 2)
WRONG = [
    (lambda m, x: m.loss_and_grad(x), "labels are missing: expected an integer from 0 to 3"),
    (lambda m, x: m.encode(x), "labels are missing"),
    (lambda m, x: m.codes(x), "labels are missing"),
    (lambda m, x: m.mean_code(x), "labels are missing"),
    (lambda m, x: m.decode(np.ones((2, 3))), "labels are missing"),
    (lambda m, x: m.reconstruct(x), "labels are missing"),
    (lambda m, x: m.rows(x), "labels are missing"),
    (lambda m, x: m.loss_and_grad(x, None, 4), "labels is 4: expected an integer from 0 to 3"),
    (lambda m, x: m.encode(x, [0, 1, 2, 3, 4, 0, 0, 0]), "found 4 in labels: expected an integer"),
    (lambda m, x: m.encode(x, [-1] * 8), "found -1 in labels: expected an integer from 0 to 3"),
    (lambda m, x: m.rows(x, MASKED), "labels is a masked array: expected one without a mask, so"),
    (lambda m, x: m.loss_and_grad(x, None, MASKED), "labels is a masked array: expected one wi"),
    (lambda m, x: m.decode(np.ones((8, 3)), MASKED), "labels is a masked array: expected one wi"),
    (lambda m, x: m.sample(8, label=MASKED), "label is a masked array: expected one without a"),
    (lambda m, x: m.sample(8, label=np.ma.masked), "label is a masked array: expected one with"),
    (lambda m, x: m.encode(x, [0, 1]), r"labels has shape \(2,\) and type int64: expected an"),
    (lambda m, x: m.encode(x, [0.0] * 8), r"labels has shape \(8,\) and type float64"),
    (lambda m, x: m.encode(x, np.ones((8, 4), int)), r"labels has shape \(8, 4\)"),
    (lambda m, x: m.sample(3, label=4), "label is 4: expected an integer from 0 to 3"),
    (lambda m, x: m.sample(3, label=-1), "label is -1: expected an integer from 0 to 3"),
    (lambda m, x: m.sample(3, label=1.5), "label is 1.5: expected an integer from 0 to 3"),
    (lambda m, x: m.sample(3, label="seven"), "label is 'seven': expected an integer"),
    (lambda m, x: m.sample(3, label=True), "label is True: expected an integer"),
    (lambda m, x: m.sample(3, label=[1, 2]), r"label has shape \(2,\)"),
    (lambda m, x: m.sample(0, label=1), "n is 0: expected a positive integer"),
    (lambda m, x: m.encode(x[:, :4], 1), r"x has shape \(8, 4\): expected \(batch size, 5\)"),
    (lambda m, x: m.decode(x, 1), r"z has shape \(8, 5\): expected \(batch size, 3\)"),
    (lambda m, x: m.rows(x[0], 1), r"x has shape \(5,\): expected \(batch size, 5\)"),
    (lambda m, x: m.rows(x[:, :3], 1), r"x has shape \(8, 3\): expected \(batch size, 5\)"),
    (lambda m, x: m.encode(x[:, :4]), r"x has shape \(8, 4\): expected \(batch size, 9\)"),
    (lambda m, x: m.encode(np.hstack([x, x[:, :4]])), "the last 4 columns of x are the label: exp"),
    (lambda m, x: m.loss_and_grad(np.hstack([x, 0 * x[:, :4]])), "the last 4 columns of x are the"),
    (
        lambda m, x: m.encode(np.hstack([x, np.eye(8, 4) + np.eye(8, 4, 1)])),
        "the last 4 columns of",
    ),
    (
        lambda m, x: m.encode(np.hstack([x, 0.5 * np.eye(4)[[0] * 8]])),
        "the last 4 columns of x are",
    ),
    (lambda m, x: small(classes=0), "classes is 0: expected a positive integer"),
    (lambda m, x: small(encoder=sv.Linear(5, 6, dtype="float64"), hidden=None), "the encoder"),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_what_cannot_be_used_is_said_in_a_sentence(rng, call, sentence):
    with pytest.raises(sv.InputError, match=f"^{sentence}") as raised:
        call(small(rng=rng), rng.random((8, 5)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", [[1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0, 0]])
def test_a_row_whose_label_is_not_a_single_1_is_refused_beside_right_ones(rng, wrong):
    rows = np.hstack([rng.random((2, 5)), [[0, 0, 1, 0], wrong]])
    with pytest.raises(sv.InputError) as error:
        small(rng=rng).encode(rows)
    assert str(error.value) == (
        "the last 4 columns of x are the label: expected a single 1 among zeros in each row, as "
        "model.rows(x, labels) returns them"
    )


def test_labels_of_any_integer_type_will_do(rng):
    model = small(rng=rng)
    x = rng.random((8, 5))
    for dtype in ("uint8", "int8", "int32", "uint64"):
        labels = np.arange(8).astype(dtype) % 4
        np.testing.assert_array_equal(model.rows(x, labels)[:, 5:], np.eye(4)[labels.astype(int)])


# Sampling


def test_the_same_codes_are_written_with_every_label(rng):
    model, seed = small(rng=rng), int(rng.integers(2**32))
    z = model.draw_prior(6, np.random.default_rng(seed))
    for label in range(4):
        np.testing.assert_array_equal(model.sample(6, seed, label), model.decode(z, label))
    labels = rng.integers(0, 4, 6)
    np.testing.assert_array_equal(model.sample(6, seed, labels), model.decode(z, labels))


def telling(rng):
    """Return a model whose decoder gives [z | one-hot] itself."""
    options = {"likelihood": "gaussian", "dtype": "float64", "rng": rng}
    model = sv.ConditionalVAE(7, (), 3, classes=4, **options)
    model.params["decoder.0.W"].value[...] = np.eye(7)
    model.params["decoder.0.b"].value[...] = 0
    return model


@pytest.mark.proves("conditional-one-hot")
def test_codes_come_from_the_prior_and_labels_uniformly_unless_given(rng):
    model = telling(rng)
    drawn = model.sample(4000, rng)
    # Under the right distribution these fail once in a million runs each.
    assert stats.kstest(drawn[:, :3].ravel(), "norm").pvalue > 1e-6
    assert set(np.unique(drawn[:, 3:])) == {0.0, 1.0}
    assert stats.chisquare(drawn[:, 3:].sum(axis=0)).pvalue > 1e-6
    np.testing.assert_array_equal(drawn[:, 3:].sum(axis=1), 1)
    np.testing.assert_array_equal(model.sample(5, rng, 2)[:, 3:], np.eye(4)[[2] * 5])
    labels = [0, 3, 1]
    np.testing.assert_array_equal(model.sample(3, rng, labels)[:, 3:], np.eye(4)[labels])


def test_a_seed_repeats_codes_and_labels(rng):
    model, seed = telling(rng), int(rng.integers(2**32))
    np.testing.assert_array_equal(model.sample(20, seed), model.sample(20, seed))
    assert not np.array_equal(model.sample(20), model.sample(20))
    one, other = telling(seed), telling(seed)
    np.testing.assert_array_equal(one.sample(20), other.sample(20))  # of the model's generator


# Training


def dataset(rng, dtype="uint8", scale=255.0):
    """Return one whose first 4 pixels of a row are white where the label says, and else black."""
    labels = rng.integers(0, 4, 70)
    x = rng.random((70, 6))
    x[:, :4] = np.eye(4)[labels]
    x = (scale * x).astype(dtype)
    return Dataset("marked", x[:61], x[61:], labels[:61], labels[61:], scale, (2, 3))


def trainer(data, seed, batch_size=8, **options):
    model = sv.ConditionalVAE(data.data_dim, (9,), 2, classes=4, rng=seed)
    return sv.Trainer(model, sv.Adam(model.params), data, batch_size=batch_size, **options)


@pytest.mark.parametrize("binarize", ["none", "threshold", "dynamic"])
@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 255.0), ("uint8", 16.0), ("float64", 1.0)])
def test_each_row_is_trained_and_tested_with_its_own_label(
    rng, monkeypatch, dtype, scale, binarize
):
    seen = []
    original = sv.ConditionalVAE.as_rows

    def spy(self, x, labels=None):
        rows = original(self, x, labels)
        seen.append(rows)
        return rows

    monkeypatch.setattr(sv.ConditionalVAE, "as_rows", spy)
    t = trainer(dataset(rng, dtype, scale), 0, binarize=binarize)
    t.run(2)
    assert sum(map(len, seen)) > 2 * 61 + 2 * 9
    for rows in seen:
        assert rows.shape[1] == 10
        np.testing.assert_array_equal(rows[:, :4], rows[:, 6:])  # the mark and the one-hot


def test_it_goes_on_bitwise_after_a_stop(rng, tmp_path):
    data, seed = dataset(rng), int(rng.integers(2**32))
    whole, stopped, resumed = (trainer(data, seed) for _ in range(3))
    whole.run(3)

    def stop(terms):
        stopped.stop = stopped.optimizer.steps == 10  # of 24: within the second epoch

    stopped.run(3, on_step=stop)
    assert (stopped.epoch, stopped.batch) == (1, 2)
    checkpoint.save(tmp_path / "c.safetensors", *stopped.state())
    resumed.restore(*checkpoint.load(tmp_path / "c.safetensors"), "c")
    resumed.run(3)
    np.testing.assert_array_equal(resumed.model.params.value, whole.model.params.value)
    assert [m["test_loss"] for m in resumed.metrics] == [m["test_loss"] for m in whole.metrics]


def test_training_depends_on_the_labels(rng):
    data, seed = dataset(rng), int(rng.integers(2**32))
    other = Dataset(
        "other", data.train, data.test, data.train_labels[::-1], data.test_labels, 255.0, (2, 3)
    )
    one, two = trainer(data, seed), trainer(other, seed)
    one.run(1)
    two.run(1)
    assert not np.array_equal(one.model.params.value, two.model.params.value)


@pytest.mark.parametrize(("n", "rows"), [(2, 10), (3, 11), (4, 3)])
def test_a_large_batch_is_taken_in_parts(rng, monkeypatch, n, rows):
    info = [{"user_api": "blas", "num_threads": n}]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: info)
    monkeypatch.setattr(parallel, "ROWS", 1)
    model = small(rng=rng)
    x, eps, labels = data(rng, rows)
    expected = model.loss_and_grad(x, eps, labels)
    gradient = model.params.grad.copy()
    with parallel.in_parts(model, 100) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        found = loss_and_grad(model.rows(x, labels), eps)
    # Sums of some dozen float64 numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        model.params.grad, gradient, rtol=0, atol=1e-12 * abs(gradient).max()
    )


@pytest.mark.parametrize("classes", [10, 64])  # as many as pixels, too, are no image
def test_a_convolution_of_labels_is_refused(classes):
    with pytest.raises(sv.InputError) as error:
        sv.ConditionalVAE(64, (4,), 2, classes=classes, network="conv", image_shape=(8, 8))
    assert str(error.value) == (
        "network is 'conv', and the label is no pixel: expected an encoder of your own, for rows "
        "of pixels with a label"
    )


def test_a_decoder_may_be_convolutions_beside_an_encoder_of_ones_own(rng):
    encoder = sv.layers.dense([32 + 3, 8, 4])
    model = sv.ConditionalVAE(
        32, latent_dim=2, classes=3, network="conv", image_shape=(4, 8), encoder=encoder, rng=rng
    )
    assert any(isinstance(layer, sv.ConvTranspose2D) for layer in model.decoder.layers)
    assert model.sample(2, label=1).shape == (2, 32)


def test_labels_of_several_lengths_are_refused(rng):
    model, x, ragged = sv.ConditionalVAE(64, (4,), 2), rng.random((2, 64)), [[0], [1, 2]]
    with pytest.raises(
        sv.InputError, match=r"^label are no array: expected an integer from 0 to 9"
    ):
        model.sample(2, label=ragged)
    for use in model.encode, model.reconstruct, model.rows:
        with pytest.raises(sv.InputError, match=r"^labels are no array: expected an integer from"):
            use(x, ragged)


def test_data_without_labels_or_with_too_large_ones_are_refused(rng):
    x, model = rng.random((20, 5)), small()
    optimizer = sv.Adam(model.params)
    with pytest.raises(sv.InputError, match=r"^the training labels of your array are missing"):
        sv.Trainer(model, optimizer, x)
    from_arrays = Dataset.from_arrays
    with pytest.raises(sv.InputError, match=r"^the test labels of your array are missing"):
        sv.Trainer(model, optimizer, from_arrays(x, np.zeros(20, int), x))
    with pytest.raises(sv.InputError, match=r"^found 4 in the training labels of your array: exp"):
        sv.Trainer(model, optimizer, from_arrays(x, np.arange(20) % 5))
    with pytest.raises(
        sv.InputError, match=r"^found -1 in the test labels of your array: expected"
    ):
        sv.Trainer(model, optimizer, from_arrays(x, np.arange(20) % 4, (x, np.arange(20) % 4 - 1)))


def test_the_number_of_classes_is_that_of_all_labels(rng):
    x, from_arrays = rng.random((10, 5)), Dataset.from_arrays
    assert from_arrays(x).classes is None
    assert from_arrays(x, np.arange(10) % 3).classes == 3
    assert from_arrays(x, np.zeros(10, int), (x, [7] * 10)).classes == 8
    assert from_arrays(x, np.zeros(10, int), (x, None)).classes == 1
    assert from_arrays(x, np.full(10, -2)).classes == 1
    assert sv.datasets.load("digits").classes == 10


def test_what_stops_being_finite_is_named_within_the_decoder_too(rng):
    model = small(rng=rng)
    x, eps, labels = data(rng)
    rows = model.rows(x, labels)
    model.params["decoder.2.b"].value[1] = 1e308
    model.params["decoder.2.W"].value[...] = 1e308
    with np.errstate(over="ignore", invalid="ignore"):
        found = finite.first_nonfinite(model, rows, eps)
    assert found.startswith("the output of decoder.2, Linear(6, 5), is the first")


# Evaluation


def test_the_evaluation_takes_rows(rng):
    model = small(rng=rng)
    x, _, labels = data(rng, 30)
    rows = model.rows(x, labels)
    mu, logvar = model.encode(x, labels)
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)
    batches = [rows[:11], rows[11:]]
    terms = evaluation.elbo(model, batches, rng)
    # Thirty summands in another order.
    assert terms.kl == pytest.approx(kl.sum(axis=1).mean(), rel=1e-12)
    np.testing.assert_allclose(
        evaluation.kl_of_dimensions(model, batches), kl.mean(axis=0), rtol=1e-12
    )
    active = int((mu.var(axis=0) > 0.01).sum())
    assert evaluation.active_units(model, batches) == active
    assert evaluation.importance_weighted_bound(model, batches, 3, rng).shape == (30,)


# Files


def test_a_saved_model_is_loaded_again(rng, tmp_path):
    model = small("gaussian", "shared", rng=rng, beta=0.5)
    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = sv.load(path)
    assert type(loaded) is sv.ConditionalVAE
    assert loaded.config() == model.config()
    assert repr(loaded) == repr(model)
    assert "classes=4" in repr(model)
    x, eps, labels = data(rng)
    assert loaded.loss_and_grad(x, eps, labels) == model.loss_and_grad(x, eps, labels)
    with pytest.raises(sv.InputError, match="classes was 4, and is 6 in the model"):
        sv.load(path, into=small("gaussian", "shared", classes=6))


def test_parts_of_your_own_take_the_label_too(rng, tmp_path):
    own = {"rng": rng, "dtype": "float64"}
    encoder, decoder = sv.Linear(9, 6, **own), sv.Linear(7, 5, **own)
    model = small(hidden=None, encoder=encoder, decoder=decoder, rng=rng)
    x, eps, labels = data(rng)
    assert (model.encoder, model.decoder) == (encoder, decoder)
    gradcheck.check_model(model, model.rows(x, labels), eps)
    assert "Linear(9, 6)" in model.summary()


def test_by_default_there_are_ten_classes():
    model = sv.ConditionalVAE(64)
    assert model.classes == 10
    assert model.params["encoder.0.W"].shape == (74, 400)
    assert model.params["decoder.0.W"].shape == (30, 400)
    assert sv.VAE(64).classes is None


def test_the_options_are_those_of_a_vae():
    config = sv.VAE(5, likelihood="gaussian").config()
    of_ours = sv.ConditionalVAE(5, likelihood="gaussian").config()
    assert of_ours == config | {"kind": "cvae", "class": "ConditionalVAE", "classes": 10}
    model = small(free_bits=0.25, beta=2.0)
    assert (model.free_bits, model.beta) == (0.25, 2.0)


# The command line


QUICK = ["train", "--conditional", "--hidden", "8", "--latent", "2"]


@pytest.fixture
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
def test_a_run_leaves_figures_of_every_label_and_is_sampled_and_evaluated(tmp_path, capsys):
    assert main([*QUICK, "--epochs", "2", "--out", "r"]) == 0
    assert "ConditionalVAE 64-8-2-8-64" in capsys.readouterr().out
    figures = {path.stem for path in (tmp_path / "r" / "figures").iterdir()}
    plain = {"training_curves", "reconstructions", "samples", "kl_per_dimension", "latent_plane"}
    assert figures == plain | {"styles"}
    for label in ([], ["--label", "7"], ["--label", "3"]):
        assert main(["sample", "r", "-n", "9", *label, "--out", f"{label[-1:]}.png"]) == 0
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 3
    capsys.readouterr()
    assert main(["evaluate", "r", "--nll-samples", "3"]) == 0
    assert "-log p(x|y)" in capsys.readouterr().out
    assert main(["evaluate", "r", "--nll-samples", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["kl_per_dimension"]) == 2
    model = sv.load("r")
    assert (type(model), model.classes) == (sv.ConditionalVAE, 10)


def test_of_many_labels_the_first_twenty_are_drawn(rng, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sv.plots, "styles", lambda images, shape: drawn.append(images) or figure)
    figure = sv.plots.samples(rng.random((4, 6)), (2, 3))
    model = sv.ConditionalVAE(6, (9,), 2, classes=25, rng=rng)
    sv.plots.write_figures(model, dataset(rng), [], tmp_path)
    (images,) = drawn
    assert images.shape == (8, 20, 6)
    z = model.draw_prior(8, np.random.default_rng(0))
    np.testing.assert_array_equal(images[:, 19], model.decode(z, 19))


@pytest.mark.usefixtures("_folder")
def test_a_resumed_run_reaches_the_same_parameters():
    assert main([*QUICK, "--epochs", "2", "--out", "whole"]) == 0
    assert main([*QUICK, "--epochs", "1", "--out", "resumed"]) == 0
    assert main(["train", "--resume", "--epochs", "2", "--out", "resumed"]) == 0
    whole, resumed = (
        checkpoint.load(f"{f}/checkpoint.safetensors")[0] for f in ("whole", "resumed")
    )
    assert whole.keys() == resumed.keys()
    for name, a in whole.items():
        np.testing.assert_array_equal(resumed[name], a)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("y", "y_test", "missing"),
    [
        ([1, 2, 3], [1], "0"),
        ([0, 1, 2], [7], "3, 4, 5, 6, 7"),
        ([0, 1, 9], [2], "2, 3, 4, 5, 6 and 2 more"),
        ([0, 1, 2], [2], None),
    ],
)
def test_classes_without_training_examples_are_named(rng, capsys, y, y_test, missing):
    x = rng.random((30, 9))
    np.savez("gaps.npz", x=x, y=y * 10, x_test=x[:1], y_test=y_test)
    options = ["--epochs", "1", "--hidden", "3", "--latent", "1", "--json", "--out", "r"]
    assert main(["train", "gaps.npz", *options, "--conditional"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    of = "scratchvae train: note: gaps.npz: classes count from 0, and these have no training "
    assert notes == ([] if missing is None else [f"{of}example: {missing}"])
    assert main(["train", "gaps.npz", *options[:-1], "without"]) == 0
    assert "note" not in capsys.readouterr().err


@pytest.mark.usefixtures("_folder")
def test_other_data_may_lack_some_of_the_classes(rng):
    np.savez("all.npz", x=rng.random((50, 9)), y=np.arange(50) % 5)
    np.savez("some.npz", x=rng.random((50, 9)), y=np.arange(50) % 2)
    assert main([*QUICK, "all.npz", "--epochs", "1", "--out", "r"]) == 0
    assert main(["evaluate", "r", "--data", "some.npz", "--nll-samples", "2"]) == 0


@pytest.mark.usefixtures("_folder")
def test_wrong_labels_on_the_command_line_are_one_sentence(rng, capsys):
    x, y = rng.random((50, 9)), np.arange(50)
    np.save("plain.npy", x)
    np.save("digits.npy", rng.random((50, 64)))
    np.savez("large.npz", x=x, y=1000 * y)
    np.savez("negative.npz", x=x, y=y % 3 - 1)
    np.savez("half.npz", x=x, y=y % 3, x_test=x)
    assert main([*QUICK, "--epochs", "1", "--out", "r"]) == 0
    assert main(["train", "--hidden", "8", "--epochs", "1", "--out", "vae"]) == 0
    sample = ["sample", "r", "--out", "s.png"]
    train = ["train", "--conditional", "--out", "new"]
    sentences = {
        (*sample, "--label", "10"): "--label is 10: expected an integer from 0 to 9",
        (*sample, "--label", "-1"): "--label is -1: expected an integer from 0 to 9",
        (*sample, "--label", "x"): "argument --label: invalid int value: 'x'",
        (*sample, "--label", "7.5"): "argument --label: invalid int value: '7.5'",
        (*sample, "--label"): "argument --label: expected one argument",
        ("sample", "vae", "--out", "s.png", "--label", "7"): "--label: vae/checkpoint.safetensors "
        "holds a model without labels",
        (
            *train,
            "--objective",
            "iwae",
        ): "--conditional with --objective iwae: there is no such model",
        (
            *train,
            "--network",
            "conv",
        ): "--conditional with --network conv: a label is no pixel",
        (*train, "--model", "ae"): "--conditional needs a VAE: expected --model vae, found ae",
        (*train, "plain.npy"): "plain.npy has no labels, which --conditional needs: expected a",
        (*train, "large.npz"): "large.npz holds the label 49000 among 45 training examples: --cond",
        (*train, "negative.npz"): "found -1 in the training labels of negative.npz: expected an in",
        (*train, "half.npz"): "the test labels of half.npz are missing: expected an integer from",
        ("evaluate", "r", "--data", "digits.npy"): "the training labels of digits.npy are missing",
        ("train", "--resume", "--out", "vae", "--conditional", "--epochs", "3"): "--conditional "
        "was False, this command asks for True",
    }
    for argv, sentence in sentences.items():
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as stopped:  # as argparse ends a command
            code = stopped.code
        assert code == 2, argv
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
        assert "Traceback" not in error
    with pytest.raises(sv.InputError, match=r"^conditional is 'yes': expected True or False$"):
        sv.run.Options(conditional="yes")


# On a device


@pytest.fixture
def _device(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_device")
def test_on_a_device_it_computes_the_same(rng):
    seed, (x, eps, labels) = int(rng.integers(2**32)), data(rng)
    host, device = (
        small(rng=seed, backend=get_backend(b, noise="host")) for b in ("numpy", "cupy")
    )
    one = host.loss_and_grad(x, eps, labels)
    for where in np, standin.cupy:
        assert [float(t) for t in device.loss_and_grad(x, eps, where.asarray(labels))] == [
            *map(float, one)
        ]
        np.testing.assert_array_equal(device.params.grad.get(), host.params.grad)
    np.testing.assert_array_equal(device.sample(5, seed).get(), host.sample(5, seed))
    np.testing.assert_array_equal(device.sample(5, seed, 3).get(), host.sample(5, seed, 3))
    of_device = device.sample(8, seed, standin.cupy.asarray(labels)).get()
    np.testing.assert_array_equal(of_device, host.sample(8, seed, labels))
    np.testing.assert_array_equal(device.reconstruct(x, 1).get(), host.reconstruct(x, 1))


@pytest.mark.usefixtures("_device")
def test_a_run_is_the_same_on_a_device_and_goes_on_there(capsys):
    quick = [*QUICK, "--noise", "host", "--binarize", "dynamic"]
    assert main([*quick, "--epochs", "2", "--device", "cpu", "--out", "host"]) == 0
    assert main([*quick, "--epochs", "1", "--device", "cuda", "--out", "moved"]) == 0
    resume = ["train", "--resume", "--epochs", "2", "--out", "moved"]
    assert main([*resume, "--device", "cuda"]) == 0
    host, moved = (checkpoint.load(f"{f}/checkpoint.safetensors")[0] for f in ("host", "moved"))
    for name, a in host.items():
        np.testing.assert_array_equal(moved[name], a)
    found = []
    for device in "cpu", "cuda":
        capsys.readouterr()
        argv = ["evaluate", "host", "--nll-samples", "7", "--json", "--device", device]
        assert main(argv) == 0
        found.append(json.loads(capsys.readouterr().out))
        argv = ["sample", "host", "--label", "4", "--out", f"{device}.png", "--device", device]
        assert main(argv) == 0
    assert found[0] == found[1]
