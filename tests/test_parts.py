"""Layers of one's own in a VAE: trained, checked, saved, resumed, on a device, and in parts."""

import sys

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import checkpoint, parallel
from scratchvae.backend import asnumpy, get_backend, namespace
from scratchvae.gradcheck import check_model
from scratchvae.training import Trainer

H = W = 4  # of an image; D = 16


class Conv:
    """A convolution with 3 x 3 pixels of images (B, C, 4, 4), as rows; zeros lie around them."""

    def __init__(self, c_in, c_out, rng, xp, dtype):
        self.c_in, self.c_out = c_in, c_out
        bound = (9 * c_in) ** -0.5
        weights = rng.uniform(-bound, bound, (9 * c_in, c_out))
        self.W = sv.Parameter(xp.asarray(weights, dtype=dtype))

    def forward(self, x):
        xp, b = namespace(x), len(x)
        padded = xp.zeros((b, self.c_in, H + 2, W + 2), dtype=x.dtype)
        padded[:, :, 1:-1, 1:-1] = x.reshape(b, self.c_in, H, W)
        shifts = [padded[:, :, i : i + H, j : j + W] for i in range(3) for j in range(3)]
        patches = xp.stack(shifts, axis=1).reshape(b, 9 * self.c_in, H * W)  # (B, 9 C, H W)
        patches = patches.swapaxes(1, 2).reshape(b * H * W, -1)  # (B H W, 9 C)
        y = (patches @ self.W.value).reshape(b, H * W, self.c_out).swapaxes(1, 2)
        return y.reshape(b, -1), patches  # (B, C' H W)

    def backward(self, dy, patches):
        xp, b = namespace(dy), len(dy)
        dy = dy.reshape(b, self.c_out, H * W).swapaxes(1, 2).reshape(b * H * W, -1)
        self.W.add_product(patches.T, dy)
        d = (dy @ self.W.value.T).reshape(b, H * W, -1).swapaxes(1, 2)
        d = d.reshape(b, 3, 3, self.c_in, H, W)
        dpadded = xp.zeros((b, self.c_in, H + 2, W + 2), dtype=dy.dtype)
        for i in range(3):
            for j in range(3):
                dpadded[:, :, i : i + H, j : j + W] += d[:, i, j]
        return dpadded[:, :, 1:-1, 1:-1].reshape(b, -1)

    def named_parameters(self):
        yield "W", self.W


class Residual:
    """x + f(x) for a layer f: the gradient reaches x along both paths."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        y, cache = self.inner.forward(x)
        return x + y, cache

    def backward(self, dy, cache):
        return dy + self.inner.backward(dy, cache)

    def named_parameters(self):
        yield from self.inner.named_parameters()


class LayerNorm:
    """Each row with mean 0 and variance 1, times a learned scale, plus a learned shift."""

    def __init__(self, n, xp, dtype):
        self.scale = sv.Parameter(xp.ones(n, dtype=dtype))
        self.shift = sv.Parameter(xp.zeros(n, dtype=dtype))

    def forward(self, x):
        centred = x - x.mean(axis=1, keepdims=True)
        r = 1 / namespace(x).sqrt((centred * centred).mean(axis=1, keepdims=True) + 1e-5)
        return centred * r * self.scale.value + self.shift.value, (centred * r, r)

    def backward(self, dy, cache):
        h, r = cache
        self.scale.grad += (dy * h).sum(axis=0)  # the other way to add to a gradient
        self.shift.grad += dy.sum(axis=0)
        d = dy * self.scale.value
        return r * (d - d.mean(axis=1, keepdims=True) - h * (d * h).mean(axis=1, keepdims=True))

    def named_parameters(self):
        yield "scale", self.scale
        yield "shift", self.shift


def encoder(kind, seed, backend, dtype):
    rng, xp = np.random.default_rng(seed), backend.xp
    how = {"rng": rng, "backend": backend, "dtype": dtype}
    if kind == "convolution":
        first = [Conv(1, 3, rng, xp, dtype), sv.Activation("tanh"), sv.Linear(48, 6, **how)]
    elif kind == "residual block":
        inner = sv.Sequential([sv.Linear(16, 9, **how), sv.Activation("tanh"),
                               sv.Linear(9, 16, **how)])  # fmt: skip
        first = [Residual(inner), sv.Linear(16, 6, **how)]
    else:
        first = [sv.Linear(16, 7, **how), LayerNorm(7, xp, dtype), sv.Linear(7, 6, **how)]
    return sv.Sequential([*first, sv.Activation("tanh"), sv.Linear(6, 4, **how)])


def make_model(kind, seed, backend="numpy", dtype="float32"):
    backend = get_backend(backend, noise="host")
    how = {"rng": seed, "backend": backend, "dtype": dtype}
    return sv.VAE(16, latent_dim=2, encoder=encoder(kind, seed, backend, dtype), **how)


def make_trainer(kind, seed, images, **options):
    model = make_model(kind, seed, **options)
    return Trainer(model, sv.Adam(model.params, 1e-2), images, batch_size=16, seed=0)


kinds = pytest.mark.parametrize("kind", ["convolution", "residual block", "layer norm"])


@pytest.fixture
def seed(rng):
    return int(rng.integers(2**31))


@pytest.fixture
def images(rng):
    """Stripes, so that there is something to learn."""
    return (127 + 127 * np.sign(rng.normal(size=(80, H, 1)))).astype(np.uint8).repeat(W, axis=2)


@kinds
def test_it_trains(kind, seed, images):
    trainer = make_trainer(kind, seed, images)
    trainer.run(40)
    first, last = trainer.metrics[0]["train_loss"], trainer.metrics[-1]["train_loss"]
    assert last < 0.9 * first
    assert trainer.model.reconstruct(images.reshape(80, -1) / 255).shape == (80, 16)


@kinds
def test_its_gradients_are_right(kind, seed, rng):
    model = make_model(kind, seed, dtype="float64")
    model.decoder = sv.layers.dense([2, 5, 16], "tanh", rng=seed, dtype="float64")
    model.gather()
    report = check_model(model, rng.random((3, 16)), rng=seed)
    assert report.ok
    assert any(c.name.startswith("encoder.1.s" if kind == "layer norm" else "encoder.0")
               for c in report.checks)  # fmt: skip


@kinds
def test_it_resumes_bitwise(kind, seed, images, tmp_path):
    whole, stopped, resumed = (make_trainer(kind, seed, images) for _ in range(3))
    whole.run(4)
    stopped.run(2, on_step=lambda terms: setattr(stopped, "stop", stopped.epoch == 1))
    assert (stopped.epoch, stopped.batch) == (1, 1)
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, *stopped.state())
    resumed.restore(*checkpoint.load(path), path)
    resumed.run(4)
    np.testing.assert_array_equal(resumed.model.params.value, whole.model.params.value)


@kinds
def test_it_is_saved_and_loaded_into_a_model_with_the_same_parts(kind, seed, rng, tmp_path):
    model, other = make_model(kind, seed), make_model(kind, seed + 1)
    path = tmp_path / "model.safetensors"
    model.save(path)
    with pytest.raises(
        sv.InputError, match="of the class VAE, which a file alone cannot build, since"
    ):
        sv.load(path)
    assert sv.load(path, into=other) is other
    np.testing.assert_array_equal(other.params.value, model.params.value)
    x = rng.random((3, 16))
    np.testing.assert_array_equal(other.reconstruct(x), model.reconstruct(x))


@kinds
def test_it_runs_on_a_device(kind, seed, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    host, device = (make_trainer(kind, seed, images, backend=b) for b in ("numpy", "cupy"))
    for trainer in host, device:
        trainer.run(2)
    # The stand-in computes with NumPy: the same numbers, unless a sum is taken in another order.
    found, expected = asnumpy(device.model.params.value), host.model.params.value
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@kinds
def test_a_batch_of_1024_is_taken_in_parts(kind, seed, rng, monkeypatch):
    info = [{"user_api": "blas", "num_threads": 2}]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: info)
    model = make_model(kind, seed, dtype="float64")
    x = rng.random((1024, 16))
    eps = model.draw_eps(1024, rng)
    expected = model.loss_and_grad(x, eps)
    gradient = model.params.grad.copy()
    with parallel.in_parts(model, 1024) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        for _ in range(3):
            found = loss_and_grad(x, eps)
    # Sums of 1,024 float64 numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    largest = abs(gradient).max()
    np.testing.assert_allclose(model.params.grad, gradient, rtol=0, atol=1e-12 * largest)


class ImportanceWeighted(sv.VAE):
    """The loss -log(mean_k w_k) of K draws with w_k = p(x|z_k) p(z_k) / q(z_k|x)."""

    K = 3

    def noise_shape(self, n):
        return self.K, n, self.latent_dim

    def forward(self, x, eps=None):
        code, encoder_cache = self.encoder.forward(x)
        mu, logvar = self.split(code)  # (B, Z) each
        z, z_cache = self.reparameterize(mu, logvar, self.noise(eps, len(x)))  # (K, B, Z)
        output, decoder_cache = self.decoder.forward(z.reshape(-1, self.latent_dim))
        nll, nll_cache = self.nll(x, output.reshape(*z.shape[:2], -1))  # (K, B)
        log_q, q_cache = sv.gaussian.log_density(z, mu, logvar)
        log_w = self.log_prior(z) - log_q - nll  # (K, B)
        log_sum = np.logaddexp.reduce(log_w, axis=0)  # (B,)
        loss, weights = np.log(self.K) - log_sum, np.exp(log_w - log_sum)
        caches = encoder_cache, z_cache, decoder_cache, nll_cache, q_cache
        return sv.Terms(loss, loss, 0 * loss), (z, weights, *caches)

    def backward(self, dloss, cache):
        z, weights, encoder_cache, z_cache, decoder_cache, nll_cache, q_cache = cache
        dlog_w = -dloss * weights  # (K, B)
        doutput = self.nll_backward(-dlog_w, nll_cache)
        dz = self.decoder.backward(doutput.reshape(-1, doutput.shape[-1]), decoder_cache)
        dz_q, dmu_q, dlogvar_q = sv.gaussian.log_density_backward(-dlog_w, q_cache)
        dz = dz.reshape(z.shape) + dz_q - dlog_w[..., None] * z  # that of log p(z) is -z
        dmu, dlogvar = self.reparameterize_backward(dz, z_cache)
        self.encoder.backward(np.hstack([dmu + dmu_q, dlogvar + dlogvar_q]), encoder_cache)


def test_k_samples_are_a_subclass_and_draw_their_own_noise(seed, rng, images, monkeypatch):
    options = {"latent_dim": 2, "rng": seed, "activation": "tanh"}
    model = ImportanceWeighted(16, (5,), dtype="float64", **options)
    assert model.draw_eps(4, rng).shape == (3, 4, 2)
    x = rng.integers(0, 2, (4, 16)).astype(float)
    assert check_model(model, x, rng=seed).ok

    monkeypatch.setattr("threadpoolctl.threadpool_info",
                        lambda: [{"user_api": "blas", "num_threads": 2}])  # fmt: skip
    monkeypatch.setattr(parallel, "ROWS", 1)
    eps = model.draw_eps(4, rng)
    expected = model.loss_and_grad(x, eps)
    with parallel.in_parts(model, 4) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad  # the batch is divided
        np.testing.assert_allclose(loss_and_grad(x, eps), expected, rtol=1e-13)
    with pytest.raises(sv.InputError, match=r"eps has shape \(4, 2\): expected \(3, 4, 2\)"):
        model.loss_and_grad(x, eps[0])

    # In training and evaluation, one draw of the model's is worth as much as the bound says.
    model = ImportanceWeighted(16, (5,), **options)
    Trainer(model, sv.Adam(model.params), images, batch_size=16).run(2)
    rows = images.reshape(80, -1) / np.float32(255)
    own = sv.evaluation.elbo(model, [rows] * 50, rng).loss
    bound = sv.evaluation.importance_weighted_bound(model, [rows] * 50, 3, rng)
    # 6 standard errors of a difference of two means of 4,000 numbers.
    assert abs(own + bound.mean()) < 6 * np.sqrt(2) * bound.std() / 4000**0.5
