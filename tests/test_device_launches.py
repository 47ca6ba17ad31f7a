"""How many kernels a training step launches on a GPU, where a launch costs the host microseconds.

The stand-in counts what CuPy would launch. The kernels of scratchvae run as host code.
"""

import functools
import sys

import cuda_on_host
import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import kernels, likelihoods
from scratchvae.datasets import Dataset
from scratchvae.kernels import cuda
from scratchvae.training import Trainer


@pytest.fixture(autouse=True)
def _device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)


@pytest.mark.parametrize(("value", "used"), [(None, True), ("1", True), ("0", False)])
def test_the_arrays_of_a_gpu_go_to_the_kernels_unless_those_are_switched_off(
    monkeypatch, value, used
):
    monkeypatch.setattr(standin.cupy, "ndarray", standin.DeviceArray)
    monkeypatch.delenv("SCRATCHVAE_COMPILED", raising=False)
    if value is not None:
        monkeypatch.setenv("SCRATCHVAE_COMPILED", value)
    kernels._cuda.cache_clear()
    try:
        found = kernels.find("relu_backward", standin.cupy.asarray(np.ones(3)))
    finally:
        kernels._cuda.cache_clear()
    assert found is (cuda.relu_backward if used else None)


def test_what_is_launched_is_counted(rng):
    cupy = standin.cupy
    a, rows = cupy.asarray(rng.uniform(1, 2, (3, 4))), cupy.asarray([2, 0])
    out, narrow, narrow_out = cupy.empty((3, 3)), a.astype("float32"), cupy.empty((3, 3), "float32")
    for launches, call in (
        (1, lambda: a + 1),
        (1, lambda: 1 - a),
        (1, lambda: -a),
        (1, lambda: a.__iadd__(1)),
        (1, lambda: cupy.exp(a)),
        (1, lambda: a @ a.T),
        (1, lambda: cupy.matmul(a, a.T, out=out)),
        (1, lambda: cupy.matmul(a, a[0], out=out[0])),
        (2, lambda: cupy.matmul(a, narrow.T)),  # which is converted to float64 first
        (2, lambda: cupy.matmul(a, a.T, out=narrow_out)),  # converted afterwards
        (2, lambda: a @ narrow.T),
        (2, lambda: a[0] @ a[0]),
        (1, lambda: a.sum(axis=0)),
        (1, lambda: a.astype("float32")),
        (1, lambda: a[rows]),
        (1, lambda: a.__setitem__(..., 0)),
        (1, lambda: cupy.zeros(3)),
        (1, lambda: cupy.asarray(a, dtype="float32")),
        (1, lambda: cupy.array(a)),
        (1, lambda: a.T.ravel()),
        (3, lambda: cupy.stack([a, a, a])),
        (2, lambda: cupy.concatenate([a, a], axis=1)),
        (0, lambda: cupy.empty(3)),
        (0, lambda: cupy.asarray(a)),
        (0, lambda: a[1:, ::2]),
        (0, lambda: a.T),
        (0, lambda: a.reshape(-1)),
        (0, lambda: a.ravel()),
        (0, lambda: a.get()),
        (0, lambda: cupy.asarray(np.ones(3))),
        (1, lambda: cupy.random.RandomState(0).standard_normal((3, 4))),
    ):
        with standin.counting() as count:
            call()
        assert count.launches == launches


@pytest.fixture
def launched(monkeypatch, rng):
    """The kernels of scratchvae on the stand-in; gives the list of what they launch."""
    if not cuda_on_host.COMPILER:
        pytest.skip("no C++ compiler")
    host = cuda_on_host.HostModule
    host.launched, host.rng, host.extra = [], rng, ()
    monkeypatch.setattr(standin.cupy, "ndarray", standin.DeviceArray)
    monkeypatch.setattr(standin.cupy, "RawModule", cuda_on_host.DeviceModule, raising=False)
    monkeypatch.setattr(kernels, "_cuda", lambda: cuda)
    for name in ("_module", "_function"):
        monkeypatch.setattr(cuda, name, functools.cache(getattr(cuda, name).__wrapped__))
    return host.launched


def a_trainer(rng, batches, kind=sv.VAE, sizes=(784, 400, 20)):
    """Return a trainer, of the example's size by default, at batch 128."""
    images = rng.integers(0, 256, (batches * 128, sizes[0]), dtype=np.uint8)
    dataset = Dataset("drawn", images, images[-10:], None, None, 255.0, (sizes[0], 1))
    model = kind(sizes[0], sizes[1:-1], sizes[-1], rng=1, backend="cupy")
    return Trainer(model, sv.Adam(model.params), dataset)


def a_training_step(rng, launched=(), kind=sv.VAE):
    """Return what a step of the example takes, from pixels to parameters.

    That is its counts, and how many kernels of ours are among the launches. It is the third step,
    when all is set up and none of the losses is read.
    """
    trainer, taken = a_trainer(rng, 4, kind), []

    def on_step(terms):
        taken.append([*vars(standin._counts).values(), len(launched)])
        trainer.stop = len(taken) == 3

    trainer.run(1, on_step)
    *counts, ours = (after - before for before, after in zip(*taken[1:], strict=True))
    return standin.Counts(*counts), ours


def test_a_training_step_makes_34_launches_and_never_waits(rng, launched):
    """10 are kernels of scratchvae, 11 are matrix products, 4 are sums over the batch, 1 is noise.

    The other 8 are operations of the trainer's text: 5 add the losses up, 3 are the finite check.
    """
    expected = standin.Counts(waits=0, copies=0, launches=34), 10
    assert a_training_step(rng, launched) == expected


def test_a_model_that_has_a_formula_of_its_own_makes_58(rng, launched):
    """10 are kernels of scratchvae, which take the place of one function each."""

    class Own(sv.VAE):
        def split(self, code):
            return super().split(code)

    expected = standin.Counts(waits=0, copies=0, launches=58), 10
    assert a_training_step(rng, launched, Own) == expected


def test_without_kernels_it_makes_99(rng):
    assert a_training_step(rng) == (standin.Counts(waits=0, copies=0, launches=99), 0)


@pytest.mark.usefixtures("launched")
def test_two_hundred_steps_between_two_checks_wait_for_nothing(rng):
    """Each makes as many launches as the step above. Its widths, which change none, are larger."""
    trainer, taken = a_trainer(rng, 203, sizes=(12, 4, 2)), []
    trainer.check_every = 300

    def on_step(terms):
        taken.append(standin.Counts(**vars(standin._counts)))
        trainer.stop = len(taken) == 202

    trainer.run(1, on_step)
    assert taken[-1].waits - taken[1].waits == taken[-1].copies - taken[1].copies == 0
    assert taken[-1].launches - taken[1].launches == 200 * 34


@pytest.mark.usefixtures("launched")
def test_the_weights_of_the_examples_are_not_copied(rng):
    """As `loss_and_grad` hands them down: a vector of the logits' dtype."""
    x, logits, weights = (
        standin.cupy.asarray(rng.random(shape).astype("float32"))
        for shape in ((4, 5), (4, 5), (4,))
    )
    _, cache = likelihoods.bernoulli_nll(x, logits)
    with standin.counting() as count:
        likelihoods.bernoulli_nll_backward(weights, cache)
    assert count.launches == 1
