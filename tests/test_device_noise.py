"""Noise drawn on the device: keyed by the host's generator, so that a run can be repeated."""

import sys
import time
from concurrent import futures

import numpy as np
import pytest
import standin
from scipy import stats

import scratchvae as sv
from scratchvae import backend, checkpoint
from scratchvae.backend import asnumpy, get_backend
from scratchvae.cli import main
from scratchvae.datasets import Dataset, binarize
from scratchvae.training import Trainer


@pytest.fixture(autouse=True)
def _device(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.chdir(tmp_path)


def test_who_draws_is_the_backends_to_say():
    assert get_backend("numpy").noise == get_backend("numpy", noise="device").noise == "host"
    assert get_backend("cupy").noise == get_backend("cupy", noise="device").noise == "device"
    assert get_backend("cupy", noise="host").noise == "host"
    with pytest.raises(sv.InputError, match="unknown noise 'gpu': expected 'host' or 'device'"):
        get_backend("cupy", noise="gpu")


@pytest.mark.parametrize("draw", ["standard_normal", "uniform"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_host_noise_is_the_cpus_and_device_noise_copies_nothing(rng, draw, dtype):
    seed = int(rng.integers(2**31))
    expected = getattr(get_backend("numpy"), draw)(np.random.default_rng(seed), (4, 3), dtype)
    for noise, copies in (("host", 1), ("device", 0)):
        backend = get_backend("cupy", noise=noise)
        with standin.counting() as count:
            drawn = getattr(backend, draw)(np.random.default_rng(seed), (4, 3), dtype)
        assert (count.waits, count.copies) == (0, copies)
        assert drawn.dtype == dtype
        assert drawn.shape == (4, 3)
        assert np.array_equal(drawn.get(), expected) == (noise == "host")


def test_one_seed_means_one_model_and_one_order_on_both(rng):
    """Whoever draws the noise: initial parameters and order come from the host."""
    seed = int(rng.integers(2**31))
    images = rng.permutation(256).astype(np.uint8)[:48].reshape(8, 6)  # no two are alike
    found = []
    for name in "numpy", "cupy":
        model = sv.VAE(6, hidden=(4,), latent_dim=2, rng=seed, backend=get_backend(name))
        initial, seen = asnumpy(model.params.value).copy(), []
        step = model.loss_and_grad
        model.loss_and_grad = lambda x, *rest, _step=step, _seen=seen: (
            _seen.append(asnumpy(x).copy()) or _step(x, *rest)
        )
        trainer = Trainer(model, sv.Adam(model.params), images, batch_size=2, seed=seed)
        trainer.run(1)
        found.append((initial, np.concatenate(seen)))
    for host, device in zip(*found, strict=True):
        np.testing.assert_array_equal(host, device)


def test_device_noise_repeats_with_its_generator_and_never_by_itself(rng):
    backend, seed = get_backend("cupy"), int(rng.integers(2**31))

    def draw(source, n=2):
        return [backend.standard_normal(source, (5,), "float64").get() for _ in range(n)]

    first, second = draw(np.random.default_rng(seed))
    assert (first != second).all()
    source = np.random.default_rng(seed)
    np.testing.assert_array_equal(draw(source, 1)[0], first)
    state = source.bit_generator.state
    source = np.random.default_rng(0)
    source.bit_generator.state = state  # as a checkpoint keeps it
    np.testing.assert_array_equal(draw(source, 1)[0], second)


def test_dynamic_pixels_are_white_with_their_own_probability(rng):
    """Of 100,000 pixels each, by the exact binomial test: false alarm below 1e-8 for the three."""
    x = standin.cupy.asarray(np.tile([0.0, 0.2, 0.9, 1.0], (100_000, 1)))
    white = binarize(x, "dynamic", rng, get_backend("cupy")).get().sum(axis=0)
    assert (white[0], white[3]) == (0, 100_000)
    for k, p in ((white[1], 0.2), (white[2], 0.9)):
        assert stats.binomtest(int(k), 100_000, p).pvalue > 4e-9


@pytest.mark.parametrize("how", ["none", "dynamic"])
def test_a_run_with_device_noise_resumes_bitwise_and_copies_only_the_order(rng, how):
    images = rng.integers(0, 256, (50, 6), dtype=np.uint8)
    dataset = Dataset("drawn", images[:40], images[40:], None, None, 255.0, (2, 3))
    seed = int(rng.integers(2**31))

    def new(seed=seed):
        model = sv.VAE(6, hidden=(8,), latent_dim=2, rng=seed, backend="cupy")
        optimizer = sv.Adam(model.params, 0.01)
        return Trainer(model, optimizer, dataset, batch_size=10, binarize=how)

    whole, stopped = new(), new()
    whole.run(2)

    def stop(terms):
        stopped.stop = stopped.optimizer.steps == 3

    with standin.counting() as count:
        stopped.run(2, stop)
    assert count.copies == 1  # the order of the epoch
    resumed = new(seed + 1)
    resumed.restore(*stopped.state(), "here")
    resumed.run(2)
    np.testing.assert_array_equal(resumed.model.params.value.get(), whole.model.params.value.get())
    for a, b in zip(resumed.metrics, whole.metrics, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_the_command_line_keeps_the_choice_with_the_run():
    def parameters(folder):
        return checkpoint.load(f"{folder}/checkpoint.safetensors")[0]

    quick = ["train", "--hidden", "8", "--seed", "3"]
    for noise in ("host", "device"):
        how = ["--noise", noise, "--device", "cuda"]
        assert main([*quick, *how, "--epochs", "2", "--out", noise]) == 0
        assert main([*quick, *how, "--epochs", "1", "--out", f"{noise}-parts"]) == 0
        more = ["train", "--resume", "--out", f"{noise}-parts", "--epochs", "2"]
        assert main([*more, "--noise", {"host": "device", "device": "host"}[noise]]) == 2
        assert main([*more, "--device", "cuda"]) == 0
        for name, a in parameters(noise).items():
            np.testing.assert_array_equal(parameters(f"{noise}-parts")[name], a)
    assert main([*quick, "--device", "cpu", "--epochs", "2", "--out", "cpu"]) == 0
    name = "encoder.0.W"
    np.testing.assert_array_equal(parameters("cpu")[name], parameters("host")[name])
    assert (parameters("cpu")[name] != parameters("device")[name]).any()


def test_two_threads_draw_what_each_draws_alone(monkeypatch):
    """They share one generator, which is given a key and drawn from in two calls."""
    seed = standin.RandomState.seed

    def slowly(self, key):
        seed(self, key)
        time.sleep(0.01)  # another thread may have its turn

    monkeypatch.setattr(standin.RandomState, "seed", slowly)
    there = get_backend("cupy", noise="device")

    def drawn(start):
        rng = np.random.default_rng(start)
        return [float(there.standard_normal(rng, (2,), "float32")[0]) for _ in range(10)]

    alone = [drawn(1), drawn(2)]
    with futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(drawn, [1, 2])) == alone


def test_the_generator_is_philox_and_its_keys_have_64_bits(monkeypatch, rng):
    """Another generator builds a long state for every key; shorter keys come again in a run."""
    generator = backend._device_generator(standin.cupy)
    assert generator.method == standin.cupy.cuda.curand.CURAND_RNG_PSEUDO_PHILOX4_32_10
    keys = []
    monkeypatch.setattr(standin.RandomState, "seed", lambda self, seed: keys.append(seed))
    for _ in range(100):
        with backend._keyed(standin.cupy, rng):
            pass
    # All below 2^63 with a probability of 2^-100; the lowest bit likewise.
    assert max(keys) >= 2**63
    assert any(key % 2 for key in keys)
