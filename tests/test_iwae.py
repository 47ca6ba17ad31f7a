"""Training with K samples: loss and gradients, the doubly reparameterised one, memory and runs.

That both gradients are PyTorch's: oracles/test_torch_iwae.py.
"""

import gc
import json
import sys
import tracemalloc
import weakref

import numpy as np
import pytest
import standin
from scipy import special, stats

import scratchvae as sv
from scratchvae import checkpoint, evaluation, iwae, parallel
from scratchvae.backend import asnumpy, get_backend
from scratchvae.cli import main
from scratchvae.gradcheck import check_model
from scratchvae.run import Options

LIKELIHOODS = [
    {"likelihood": "bernoulli"},
    {"likelihood": "gaussian", "variance": 0.5},
    {"likelihood": "gaussian", "variance": "shared"},
    {"likelihood": "gaussian", "variance": "per-dimension"},
]


def make(samples, rng, **options):
    """A float64 model of 6 pixels whose draws have quite different weights."""
    options = {"hidden": (5,), "latent_dim": 2, "activation": "tanh", "dtype": "float64", **options}
    model = sv.IWAE(6, samples=samples, rng=rng, **options)
    model.params.value[...] *= 2
    return model


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (4, 6)).astype(np.float64)


# -------------------------------------------------------------------------------- loss and gradient


class ArrayAsCache(sv.IWAE):
    """Keeps what it needs for its backward in one array, and computes the rest once more."""

    calls = 0

    def log_weights(self, x, mu, logvar, eps):
        self.calls += 1
        self.x = x
        log_w, nll, _ = super().log_weights(x, mu, logvar, eps)
        return log_w, nll, np.stack([mu + 0 * eps, logvar + 0 * eps, eps])

    def log_weights_backward(self, dlog_w, weights, cache):
        mu, logvar, eps = cache
        _, _, cache = super().log_weights(self.x, mu[0], logvar[0], eps)
        return super().log_weights_backward(dlog_w, weights, cache)


def test_a_cache_may_be_an_array(rng, x):
    options = {"hidden": (5,), "latent_dim": 2, "activation": "tanh", "dtype": "float64"}
    model = ArrayAsCache(6, samples=3, rng=rng, **options)
    assert check_model(model, x, model.draw_eps(4, rng)).ok
    model.calls = 0
    model.loss_and_grad(x)
    assert model.calls == 1


@pytest.mark.proves("normalised-weights", "importance-weighted-grad", "importance-weight-grad")
@pytest.mark.parametrize("rows", [1, 8, 10_000])  # one draw, two or all of them at once
@pytest.mark.parametrize("own", LIKELIHOODS, ids=lambda own: str([*own.values()][-1]))
def test_the_gradient_is_the_derivative_of_the_loss(own, rows, rng, x, monkeypatch):
    monkeypatch.setattr(iwae, "ROWS", rows)
    model = make(5, rng, **own)
    report = check_model(model, x, model.draw_eps(4, rng), rng=int(rng.integers(2**31)))
    assert report.ok
    assert report.error < 1e-7


@pytest.mark.proves("importance-weighted-loss")
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_the_loss_is_minus_the_bound_that_the_evaluation_knows(samples, rng, x):
    model = make(samples, rng)
    eps = model.draw_eps(4, rng)
    assert eps.shape == (samples, 4, 2)
    log_w = evaluation.log_importance_weights(model, x, eps)  # (K, B)
    terms, _ = model.forward(x, eps)
    # The same sums of numbers below 10: a few roundings.
    expected = np.log(samples) - special.logsumexp(log_w, axis=0)
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-13)
    assert model.loss_and_grad(x, eps).loss == pytest.approx(expected.mean(), rel=1e-13)


def test_the_gradient_is_the_mean_of_those_of_single_draws_by_their_weights(rng, x):
    """The normalised weights are what scipy calls a softmax of log w."""
    model, eps = make(4, rng), rng.normal(size=(4, 1, 2))
    log_w = evaluation.log_importance_weights(model, x[:1], eps)[:, 0]  # (K,)
    model.loss_and_grad(x[:1], eps)
    found, expected = model.params.grad.copy(), 0
    model.samples = 1
    for weight, one in zip(special.softmax(log_w), eps, strict=True):
        model.loss_and_grad(x[:1], one[None])
        expected = expected + weight * model.params.grad
    # Sums of four numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * abs(found).max())


def test_one_sample_is_the_vaes_loss_with_the_kl_at_the_draw(rng, x):
    model, vae = make(1, rng), sv.VAE(6, (5,), 2, activation="tanh", dtype="float64")
    vae.params.value[...] = model.params.value
    eps = model.draw_eps(4, rng)
    terms, _ = model.forward(x, eps)
    mu, logvar = model.encode(x)
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps[0]
    kl = (stats.norm.logpdf(z, mu, sigma) - stats.norm.logpdf(z)).sum(axis=1)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-11, atol=1e-13)  # a difference may cancel
    one_draw, _ = vae.forward(x, eps[0])
    np.testing.assert_allclose(terms.reconstruction, one_draw.reconstruction, rtol=1e-13)
    # The expectation is the VAE's loss; 6 standard errors of the mean of a difference of two.
    many, draws = np.repeat(x[:1], 20_000, axis=0), rng.normal(size=(1, 20_000, 2))
    apart = model.forward(many, draws)[0].loss - vae.forward(many, draws[0])[0].loss
    assert abs(apart.mean()) < 6 * apart.std() / 20_000**0.5


def test_the_loss_never_rises_with_the_samples_on_average(rng, x):
    """For any draws it is at most the mean loss of the draws without one of them, by Jensen."""
    model, eps = make(6, rng), rng.normal(size=(6, 4, 2))
    loss = model.forward(x, eps)[0].loss
    model.samples = 5
    without = [model.forward(x, np.delete(eps, k, axis=0))[0].loss for k in range(6)]
    assert np.all(loss < np.mean(without, axis=0))


@pytest.mark.proves("importance-weighted-terms")
def test_the_terms_are_those_of_a_code_picked_by_its_weight(rng, x):
    model, eps = make(5, rng), rng.normal(size=(5, 4, 2))
    terms, _ = model.forward(x, eps)
    mu, logvar = model.encode(x)
    z, sigma = mu + np.exp(logvar / 2) * eps, np.exp(logvar / 2)  # (K, B, Z)
    nll = np.array([model.nll(x, model.decoder.forward(one)[0])[0] for one in z])  # (K, B)
    log_q, log_p = stats.norm.logpdf(z, mu, sigma).sum(axis=2), stats.norm.logpdf(z).sum(axis=2)
    weights = special.softmax(log_p - log_q - nll, axis=0)
    np.testing.assert_allclose(terms.reconstruction, (weights * nll).sum(axis=0), rtol=1e-12)
    picking = special.rel_entr(weights, 1 / 5).sum(axis=0)  # from one of five, each as likely
    kl = (weights * (log_q - log_p)).sum(axis=0) + picking
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-11, atol=1e-13)


def test_weights_too_small_for_a_float_are_no_nan(rng):
    """784 pixels that the decoder calls impossible: every weight is below the smallest number."""
    model = sv.IWAE(784, (), 2, samples=3, rng=rng)
    model.params["decoder.0.b"].value[...] = 40.0
    terms = model.loss_and_grad(np.zeros((2, 784)))
    assert terms.loss > 20_000
    assert np.isfinite(model.params.grad).all()


# ------------------------------------------------------------------ doubly reparameterised gradient


def gradients(kind, model, x, eps):
    """The gradient (P,) of one call; where the encoder's begins and ends, the model's names say."""
    model.gradient = kind
    model.loss_and_grad(x, eps)
    return model.params.grad.copy()


def of_encoder(model):
    sizes = [(name, model.params[name].value.size) for name in model.params.names]
    return np.concatenate([[name.startswith("encoder")] * size for name, size in sizes])


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_the_doubly_reparameterised_gradient_is_the_standard_one_on_average(samples, rng, x):
    model = make(samples, rng)
    encoder, many = of_encoder(model), np.repeat(x, 25, axis=0)  # (100, D)
    apart = []
    for _ in range(2000):
        eps = model.draw_eps(100, rng)
        standard, dreg = (gradients(kind, model, many, eps) for kind in ("standard", "dreg"))
        np.testing.assert_array_equal(standard[~encoder], dreg[~encoder])
        apart.append((dreg - standard)[encoder])
    mean, error = np.mean(apart, axis=0), np.std(apart, axis=0, ddof=1) / 2000**0.5
    # A normal number exceeds 7 standard deviations once in 4e11. Inputs of 0 have no gradient.
    assert np.all(abs(mean) <= 7 * error)
    assert error.max() > 0


@pytest.mark.proves("doubly-reparameterized")
@pytest.mark.parametrize("samples", [1, 5])
def test_the_doubly_reparameterised_gradient_of_a_linear_model_is_what_is_written_here(
    samples, rng
):
    model = sv.IWAE(
        *(4, (), 2), samples=samples, gradient="dreg", likelihood="gaussian", variance=0.5,
        dtype="float64", rng=rng,
    )  # fmt: skip
    x, eps, p = rng.normal(size=(3, 4)), rng.normal(size=(samples, 3, 2)), model.params
    w, b = p["decoder.0.W"].value, p["decoder.0.b"].value
    mu, logvar = model.encode(x)
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps  # (K, B, Z)
    weights = special.softmax(evaluation.log_importance_weights(model, x, eps), axis=0)
    slope = (x - b - z @ w) @ w.T / 0.5 - z + eps / sigma  # of log w in z, (K, B, Z)
    pull = weights[..., None] ** 2 * slope
    dmu, dlogvar = -pull.sum(axis=0), -(pull * eps).sum(axis=0) * sigma / 2  # (B, Z) each
    model.loss_and_grad(x, eps)
    dcode = np.hstack([dmu, dlogvar]) / 3  # (B, 2Z)
    # Sums of some ten products: a few roundings of the largest.
    for name, expected in ("encoder.0.W", x.T @ dcode), ("encoder.0.b", dcode.sum(axis=0)):
        atol = 1e-13 * abs(dcode).max() * 10
        np.testing.assert_allclose(p[name].grad, expected, rtol=1e-12, atol=atol)


def test_the_doubly_reparameterised_gradient_has_no_noise_where_the_posterior_is_exact(rng):
    """There w is p(x) for every draw: nothing can pull at a code, whatever the draw."""
    model = sv.IWAE(
        *(5, (), 2), samples=4, gradient="dreg", likelihood="gaussian", variance=0.7,
        dtype="float64", rng=rng,
    )  # fmt: skip
    w, _ = np.linalg.qr(rng.normal(size=(5, 2)))
    scale, p, b = rng.uniform(0.5, 2, 2), model.params, rng.normal(size=5)
    w = (
        w * scale
    ).T  # (Z, D) with orthogonal rows: the dimensions of the posterior are independent
    v = 0.7 / (0.7 + scale**2)  # its variances
    p["decoder.0.W"].value[...], p["decoder.0.b"].value[...] = w, b
    head = w.T * v / 0.7  # (D, Z)
    p["encoder.0.W"].value[...] = np.hstack([head, 0 * head])
    p["encoder.0.b"].value[...] = np.concatenate([-b @ head, np.log(v)])
    x, encoder = rng.normal(size=(3, 5)), of_encoder(model)
    standard, dreg = (
        gradients(kind, model, x, rng.normal(size=(4, 3, 2))) for kind in ("standard", "dreg")
    )
    assert abs(standard[encoder]).max() > 1e-3
    assert abs(dreg[encoder]).max() < 1e-12  # sums of some ten numbers of size 1 to 10


def test_the_signal_to_noise_ratio_of_the_encoder_falls_and_that_of_the_other_rises(rng):
    """As 1/sqrt(K) and as sqrt(K), with the factors that theory gives, by quadrature.

    One pixel, one latent dimension, a linear decoder, a q that is off; each row is an experiment.
    """
    model = sv.IWAE(1, (), 1, samples=1, likelihood="gaussian", variance=0.8, dtype="float64")
    for name, value in [("decoder.0.W", 1.2), ("decoder.0.b", 0.0), ("encoder.0.W", 0.0)]:
        model.params[name].value[...] = value
    mu, logvar, x = rng.uniform(0, 0.3), -0.2, 0.9
    model.params["encoder.0.b"].value[...] = mu, logvar

    nodes, q = np.polynomial.hermite_e.hermegauss(60)
    q /= q.sum()
    at = np.array([[x]])
    w = np.exp(evaluation.log_importance_weights(model, at, nodes[:, None, None])[:, 0])
    p = q @ w
    z = mu + np.exp(logvar / 2) * nodes
    slope = 1.2 * (x - 1.2 * z) / 0.8 - z + nodes * np.exp(-logvar / 2)  # of log w in z: dmu too
    score = nodes * np.exp(-logvar / 2)  # of log q in mu
    total = w / p * (slope - score)  # dw / dmu / p, of mean 0
    assert abs(q @ total) < 1e-12
    square = (w / p) ** 2 * slope
    mean = q @ square  # K times the mean of either gradient, in the limit
    # The other's noise is that of (mean of r^2 g) / (mean of r)^2, to first order in both means.
    other = square - mean - 2 * mean * (w / p - 1)
    expected = {"standard": mean / np.sqrt(q @ total**2), "dreg": mean / np.sqrt(q @ other**2)}

    rows = 4000
    for samples in (64, 256):
        model.samples, found = samples, {}
        eps = rng.standard_normal((samples, rows, 1))
        log_w, _, cache = model.log_weights(
            np.full((rows, 1), x), np.full((rows, 1), mu), np.full((rows, 1), logvar), eps
        )
        weights = special.softmax(log_w, axis=0)
        for kind in iwae.GRADIENTS:
            model.gradient = kind
            found[kind] = -model.log_weights_backward(-weights, weights, cache)[0][:, 0]  # (rows,)
        signal = found["dreg"].mean()  # of both
        for kind, power in ("standard", -0.5), ("dreg", 0.5):
            ratio = signal / found[kind].std() / samples**power
            # Corrections of the order 1/K, here up to 10%, and the errors of a mean and of a
            # spread of 4,000 numbers, 2% each.
            assert ratio == pytest.approx(expected[kind], rel=0.25)


# --------------------------------------------------------------------------------------- its memory


def peak(model, x, eps):
    """Return the bytes that a step needs besides what there is before, at most at one time."""
    model.loss_and_grad(x, eps)
    tracemalloc.start()
    try:
        model.loss_and_grad(x, eps)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_step_grows_with_the_noise_and_the_weights_only(rng, monkeypatch):
    monkeypatch.setattr(iwae, "ROWS", 100)
    model = sv.IWAE(200, (100,), 3, samples=10, dtype="float64", rng=rng)
    x = rng.random((50, 200))
    few = peak(model, x, model.draw_eps(50, rng))
    model.samples = 200
    eps = model.draw_eps(50, rng)
    many = peak(model, x, eps)
    # Weights and nll, both once as pieces and once as a whole, and what exp and sum make of them:
    # at most eight arrays (K, B). One decoder output of all draws would be 25 times as much.
    assert many - few < 8 * eps[..., 0].nbytes
    monkeypatch.setattr(iwae, "ROWS", 10_000)
    assert peak(model, x, eps) > 20 * many  # so much it would be


def test_one_draw_of_a_batch_goes_through_the_decoder_however_large_it_is(rng, x, monkeypatch):
    monkeypatch.setattr(iwae, "ROWS", 1)  # and the batch has 4
    model, found = make(3, rng), []
    forward = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda z: (found.append(len(z)), forward(z))[1])
    model.loss_and_grad(x)
    assert found == [4] * 6


def test_no_two_pieces_of_the_draws_are_kept_at_a_time(rng, x, monkeypatch):
    monkeypatch.setattr(iwae, "ROWS", 1)  # a piece for each draw
    model, pieces = make(3, rng), []
    forward = model.decoder.forward

    def alone(z):
        gc.collect()
        assert not any(piece() is not None for piece in pieces)
        output, cache = forward(z)
        pieces.append(weakref.ref(output))
        return output, cache

    monkeypatch.setattr(model.decoder, "forward", alone)
    _, cache = model.forward(x)
    gc.collect()
    assert not any(piece() is not None for piece in pieces)
    model.backward(np.full(len(x), 0.25), cache)
    assert len(pieces) == 6


def test_the_weights_have_the_models_number_type(rng, x):
    model = make(3, rng, dtype="float32")
    mu, logvar = model.encode(x)
    log_w, nll, _ = model.log_weights(model.as_rows(x), mu, logvar, model.draw_eps(4, rng))
    assert log_w.dtype == nll.dtype == np.float32


@pytest.mark.parametrize(("rows", "decoded"), [(20, [20, 20]), (19, [16, 4, 16, 4])])
def test_the_decoder_runs_twice_only_where_the_draws_do_not_fit(rng, x, monkeypatch, rows, decoded):
    monkeypatch.setattr(iwae, "ROWS", rows)
    model, found = make(5, rng), []
    forward = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda z: (found.append(len(z)), forward(z))[1])
    model.loss_and_grad(x)
    assert found == (decoded[:1] if rows == 20 else decoded)


def test_at_most_10_000_codes_are_decoded_at_once(rng, monkeypatch):
    model, found = make(6_000, rng, hidden=()), []
    forward = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda z: (found.append(len(z)), forward(z))[1])
    model.loss_and_grad(rng.integers(0, 2, (3, 6)).astype(np.float64))
    assert sum(found) == 2 * 18_000  # forward, and again for the gradient
    assert max(found) <= 10_000


def test_chunks_change_nothing_but_the_order_of_sums(rng, x, monkeypatch):
    model = make(7, rng)
    eps = model.draw_eps(4, rng)
    for kind in ("standard", "dreg"):
        monkeypatch.setattr(iwae, "ROWS", 10_000)
        whole = gradients(kind, model, x, eps)
        monkeypatch.setattr(iwae, "ROWS", 12)
        parts = gradients(kind, model, x, eps)
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-13 * abs(whole).max())


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_a_large_batch_is_taken_in_parts(rng, gradient, monkeypatch):
    info = [{"user_api": "blas", "num_threads": 2}]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: info)
    model = make(3, rng, gradient=gradient)
    x, eps = rng.random((1024, 6)), model.draw_eps(1024, rng)
    expected = model.loss_and_grad(x, eps)
    gradient = model.params.grad.copy()
    with parallel.in_parts(model, 1024) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        found = loss_and_grad(x, eps)
    # Sums of 1,024 float64 numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(
        model.params.grad, gradient, rtol=0, atol=1e-12 * abs(gradient).max()
    )


# ---------------------------------------------------------------------------- training, files, runs


@pytest.fixture
def images(rng):
    """Stripes, so that there is something to learn."""
    return (127 + 127 * np.sign(rng.normal(size=(80, 4, 1)))).astype(np.uint8).repeat(4, axis=2)


def make_trainer(images, seed, backend="numpy", gradient="standard"):
    how = {"rng": seed, "backend": get_backend(backend, noise="host"), "gradient": gradient}
    model = sv.IWAE(16, (5,), 2, samples=3, **how)
    return sv.Trainer(model, sv.Adam(model.params, 1e-2), images, batch_size=16, seed=0)


def test_it_trains_and_the_test_loss_is_its_bound(images, rng):
    trainer = make_trainer(images, int(rng.integers(2**31)))
    trainer.run(150)
    first, last = trainer.metrics[0], trainer.metrics[-1]
    assert last["train_loss"] < 0.9 * first["train_loss"]
    for of in ("train", "test"):
        parts = last[f"{of}_reconstruction"] + last[f"{of}_kl"]
        assert last[f"{of}_loss"] == pytest.approx(parts, rel=1e-6)  # added in float32
    model, x = trainer.model, images.reshape(80, -1) / np.float32(255)
    own = evaluation.elbo(model, [x] * 50, rng).loss
    bound = evaluation.importance_weighted_bound(model, [x] * 50, 3, rng)
    # 6 standard errors of a difference of two means of 4,000 numbers.
    assert abs(own + bound.mean()) < 6 * np.sqrt(2) * bound.std() / 4000**0.5


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_it_resumes_bitwise(images, gradient, rng, tmp_path):
    seed = int(rng.integers(2**31))
    whole, stopped, resumed = (make_trainer(images, seed, gradient=gradient) for _ in range(3))
    whole.run(4)
    stopped.run(2, on_step=lambda terms: setattr(stopped, "stop", stopped.epoch == 1))
    assert (stopped.epoch, stopped.batch) == (1, 1)
    checkpoint.save(path := tmp_path / "checkpoint.safetensors", *stopped.state())
    resumed.restore(*checkpoint.load(path), path)
    resumed.run(4)
    np.testing.assert_array_equal(resumed.model.params.value, whole.model.params.value)


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_it_runs_on_a_device_that_the_host_does_not_wait_for(images, gradient, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.setattr(iwae, "ROWS", 40)  # two draws of a batch at once
    seed = int(rng.integers(2**31))
    host, device = (make_trainer(images, seed, b, gradient) for b in ("numpy", "cupy"))
    for trainer in host, device:
        trainer.run(2)
    # The stand-in computes with NumPy: the same numbers, unless a sum is taken in another order.
    found, expected = asnumpy(device.model.params.value), host.model.params.value
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    x = device.model.backend.asarray(images.reshape(80, -1)[:16] / np.float32(255))
    eps = device.model.draw_eps(16, rng)
    with standin.counting() as count:
        device.model.loss_and_grad(x, eps)
    assert count.waits == 0


def test_it_is_saved_and_loaded(rng, x, tmp_path):
    model = make(3, rng, gradient="dreg")
    model.save(path := tmp_path / "model.safetensors")
    loaded = sv.load(path)
    assert (type(loaded), loaded.samples, loaded.gradient) == (sv.IWAE, 3, "dreg")
    eps = model.draw_eps(4, rng)
    assert loaded.loss_and_grad(x, eps) == model.loss_and_grad(x, eps)
    np.testing.assert_array_equal(loaded.params.grad, model.params.grad)
    # More samples may be taken later.
    more = make(9, rng)
    assert sv.load(path, into=more).samples == 9
    np.testing.assert_array_equal(more.params.value, model.params.value)


def test_it_prints_as_what_was_asked_for():
    model = sv.IWAE(6, (5,), samples=3)
    assert repr(model) == "IWAE(6, hidden=(5,), latent_dim=20, samples=3)"
    text = repr(sv.IWAE(6, (5,), 2, samples=1, gradient="dreg", activation="tanh"))
    assert text == (
        "IWAE(6, hidden=(5,), latent_dim=2, activation='tanh', samples=1, gradient='dreg')"
    )


RUN = ["train", "--hidden", "8", "--objective", "iwae", "--samples", "3", "--epochs", "2"]


def test_the_command_line_trains_resumes_bitwise_evaluates_and_draws(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main([*RUN, "--out", out]) == 0
    assert capsys.readouterr().out.startswith("IWAE of 3 samples 64-8-2-8-64, ")
    assert main(["train", "--resume", "--out", out, "--epochs", "3"]) == 0
    whole = sv.run.new(Options(hidden=(8,), objective="iwae", samples=3, epochs=3), tmp_path / "w")
    whole.train()
    model = sv.load(out)
    assert (type(model), model.samples) == (sv.IWAE, 3)
    np.testing.assert_array_equal(model.params.value, whole.model.params.value)
    capsys.readouterr()
    assert main(["evaluate", out, "--nll-samples", "50", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_loss"] == whole.trainer.metrics[-1]["test_loss"]
    assert result["nll"] < result["test_loss"]  # 50 samples bound more tightly than 3
    assert main(["sample", out, "-n", "4", "--out", str(tmp_path / "s.png")]) == 0
    assert main(["train", "--resume", "--out", out, "--epochs", "4", "--samples", "4"]) == 2
    assert "--samples was 3, this command asks for 4" in capsys.readouterr().err


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": 0}, r"samples is 0: expected a positive integer"),
        ({"samples": 2.5}, r"samples is 2\.5: expected a positive integer"),
        ({"beta": 2.0}, r"beta is 2\.0: importance weights have no KL term that it could change"),
        ({"free_bits": 0.5}, r"free_bits is 0\.5: importance weights have no KL .*leave it at 0"),
        ({"gradient": "iwae"}, r"gradient is 'iwae': expected one of standard, dreg"),
    ],
)
def test_what_has_no_meaning_is_refused(options, sentence):
    with pytest.raises(sv.InputError, match=f"^{sentence}"):
        sv.IWAE(6, **{"samples": 2, **options})


@pytest.mark.parametrize("name", ["kl", "kl_backward"])
def test_a_kl_that_the_loss_would_not_use_is_refused(name):
    def twice(*args):
        return getattr(sv.VAE, name)(*args)

    sentence = rf"the model replaces VAE\.{name}: importance weights have no KL term that would use"
    with pytest.raises(sv.InputError, match=f"^{sentence} it$"):
        type("Mine", (sv.IWAE,), {name: staticmethod(twice)})(6, (5,), 2, samples=2)
    model = sv.IWAE(6, (5,), 2, samples=2)
    setattr(model, name, twice)
    with pytest.raises(sv.InputError, match=f"^{sentence} it$"):
        model.loss_and_grad(np.full((3, 6), 0.5))


def test_a_prior_that_only_the_bound_would_use_is_refused():
    class Laplace(sv.IWAE):
        def log_prior(self, z):
            return -np.abs(z).sum(axis=-1) - 2 * np.log(2)

    with pytest.raises(sv.InputError) as error:
        Laplace(6, (5,), 2, samples=2)
    assert str(error.value) == (
        "the model replaces VAE.log_prior, and the weights are those of the prior, with the "
        "backward of its density: hand in one of your own, as prior="
    )


class LogSigma(sv.IWAE):
    """The encoder's second half is log sigma: a draw from another q than that of the weights."""

    def reparameterize(self, mu, log_sigma, eps):
        return sv.gaussian.reparameterize(mu, 2 * log_sigma, eps)

    def reparameterize_backward(self, dz, cache):
        dmu, dlogvar = sv.gaussian.reparameterize_backward(dz, cache)
        return dmu, 2 * dlogvar


def test_a_draw_whose_density_the_weights_do_not_have_is_refused():
    with pytest.raises(sv.InputError) as error:
        LogSigma(6, (5,), 2, samples=2)
    assert str(error.value) == (
        "the model replaces the draw of VAE, and the weights divide by the density of that draw: "
        "replace log_weights and log_weights_backward too, which hold the density"
    )


def test_a_draw_is_replaced_with_the_weights_of_its_density(x):
    class Own(LogSigma):
        def log_weights(self, x, mu, log_sigma, eps):
            z, z_cache = self.reparameterize(mu, log_sigma, eps)
            output, decoder_cache = self.decoder.forward(z.reshape(-1, self.latent_dim))
            nll, nll_cache = self.nll(x, output.reshape(*z.shape[:2], -1))
            log_q, q_cache = sv.gaussian.log_density(z, mu, 2 * log_sigma)
            log_p, p_cache = self.prior.log_density(z)
            return log_p - log_q - nll, nll, (z_cache, decoder_cache, nll_cache, q_cache, p_cache)

        def log_weights_backward(self, dlog_w, weights, cache):
            z_cache, decoder_cache, nll_cache, q_cache, p_cache = cache
            doutput = self.nll_backward(-dlog_w, nll_cache)
            dz = self.decoder.backward(doutput.reshape(-1, doutput.shape[-1]), decoder_cache)
            dz_q, dmu_q, dlogvar_q = sv.gaussian.log_density_backward(-dlog_w, q_cache)
            dz = dz.reshape(dz_q.shape) + dz_q + self.prior.log_density_backward(dlog_w, p_cache)
            dmu, dlog_sigma = self.reparameterize_backward(dz, z_cache)
            return dmu + dmu_q, dlog_sigma + 2 * dlogvar_q

    model = Own(6, (5,), 2, samples=3, activation="tanh", dtype="float64", rng=0)
    assert sv.gradcheck.check_model(model, x, rng=0).ok


class Dropout:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def forward(self, x):
        kept = 2.0 * (self.rng.random(x.shape) < 0.5)
        return x * kept, kept

    def backward(self, dy, kept):
        return dy * kept


def test_a_random_decoder_is_refused_where_it_would_be_asked_twice(rng, x, monkeypatch):
    """Its second answer has other weights than the loss, and so a gradient of nothing."""
    own = {"rng": 0, "dtype": "float64"}
    decoder = sv.Sequential([sv.Linear(2, 8, **own), Dropout(1), sv.Linear(8, 6, **own)])
    model = sv.IWAE(6, latent_dim=2, samples=3, decoder=decoder, **own)
    model.loss_and_grad(x)  # 12 codes, at once
    monkeypatch.setattr(iwae, "ROWS", 5)
    with pytest.raises(sv.InputError) as error:
        model.loss_and_grad(x)
    assert str(error.value) == (
        "the decoder gives other numbers for the same codes, as with dropout: more than 5 codes a "
        "batch go through it twice, so take fewer samples or a smaller batch, or a decoder that is "
        "no random one"
    )
    decoder.layers.pop(1)
    model.gather()
    model.loss_and_grad(x)
    model.params["decoder.0.W"].value[...] = np.nan  # of which the trainer will tell
    model.loss_and_grad(x)


def test_rows_of_another_width_are_named(rng, x):
    with pytest.raises(sv.InputError, match=r"^x has shape \(4, 5\): expected"):
        make(2, rng).forward(x[:, :5])


def test_noise_of_one_draw_is_refused(rng, x):
    with pytest.raises(sv.InputError, match=r"eps has shape \(4, 2\): expected \(3, 4, 2\)"):
        make(3, rng).loss_and_grad(x, rng.normal(size=(4, 2)))


def test_a_schedule_of_beta_is_refused(images):
    model = sv.IWAE(16, (5,), 2, samples=3)
    trainer = sv.Trainer(
        model, sv.Adam(model.params), images, beta_schedule=sv.warm_up(1.0, 2), batch_size=16
    )
    with pytest.raises(sv.InputError, match=r"beta is 0\.0: importance weights have no KL term"):
        trainer.run(1)
