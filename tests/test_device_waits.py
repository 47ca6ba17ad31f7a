"""Where the host waits for the device: never inside a training step, seldom outside of it.

Reading a number from a GPU makes the host wait until all work before it is done, and then the GPU
waits for the host. The stand-in counts these waits.
"""

import functools
import pickle
import sys

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae.activations import ACTIVATIONS
from scratchvae.datasets import BINARIZE, Dataset
from scratchvae.evaluation import active_units, elbo, importance_weighted_bound, kl_of_dimensions
from scratchvae.training import Trainer


@pytest.fixture(autouse=True)
def _device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)


def make_trainer(rng, n=100, *, kind=sv.VAE, optimizer=sv.Adam, binarize="none", **options):
    images = rng.integers(0, 256, (n + 10, 6), dtype=np.uint8)
    labels = rng.integers(0, 3, n + 10)
    dataset = Dataset("drawn", images[:n], images[n:], labels[:n], labels[n:], 255.0, (2, 3))
    options = {"rng": int(rng.integers(2**31)), "backend": "cupy", **options}
    model = kind(6, hidden=(8,), latent_dim=2, **options)
    return Trainer(model, optimizer(model.params, 0.01), dataset, batch_size=1, binarize=binarize)


def test_every_way_to_read_a_number_is_counted(rng):
    a = standin.cupy.asarray(rng.uniform(1, 2, 3))
    index = standin.cupy.asarray([1])
    for read in (
        lambda: a.get(),
        lambda: float(a[0]),
        lambda: int(a[0]),
        lambda: bool(a[0] > 1.5),
        lambda: [0, 1][index[0]],
        lambda: a.tolist(),
        lambda: a[0].item(),
        lambda: a[a > 0],
        lambda: a.__setitem__(a > 0, 1),
        lambda: a.__setitem__((a > 0,), a),
        lambda: standin.cupy.nonzero(a),
        lambda: standin.cupy.where(a > 0),
        lambda: standin.cupy.asnumpy(a),
        lambda: standin.cupy.unique(a),
        lambda: standin.cupy.compress(a > 0, a),
        lambda: standin.cupy.setdiff1d(a, a),
        lambda: a[[True, False, True]],
        lambda: a.__setitem__([True, False, True], 0),
        lambda: standin.cupy.unique_values(a),
        lambda: standin.cupy.tril_indices(3),
        lambda: standin.cupy.linspace(a[0], 2, 5),
        lambda: standin.cupy.shares_memory(a, a),
        lambda: a.tobytes(),
        lambda: a.repeat(index),
        lambda: standin.cupy.quantile(a, a[:1] / 2),
        lambda: pickle.dumps(a),
        lambda: str(a),
        lambda: repr(a),
        lambda: f"{a.sum():.3g}",
        lambda: standin.cupy.linalg.inv(standin.cupy.eye(2)),
    ):
        with standin.counting() as count:
            read()
        assert count.waits == 1
    with standin.counting() as count:
        b = standin.cupy.asarray(np.ones(3)) + a[index] * a.sum() - standin.cupy.where(a > 1, a, 0)
        b[...] = 0
        b += a @ a
    assert (count.waits, count.copies) == (0, 1)


def test_what_cupy_lacks_the_stand_in_lacks(rng):
    cupy, a = standin.cupy, standin.cupy.asarray(rng.uniform(size=3))
    for lacks in (
        lambda: cupy.spacing(a),
        lambda: cupy.frompyfunc,
        lambda: cupy.emath,
        lambda: cupy.linalg.svdvals,
        lambda: a.newbyteorder,
    ):
        with pytest.raises(AttributeError):
            lacks()
    for call in (
        lambda: cupy.exp(a, where=a > 0),
        lambda: cupy.sum(a, initial=1),
        lambda: a.sum(initial=1),
        lambda: cupy.maximum(a, 0, subok=False),
        lambda: cupy.linalg.norm(a, order=2),
    ):
        with pytest.raises(TypeError):
            call()
    assert float(cupy.sum(a, axis=0, keepdims=True)[0]) == float(a.sum(axis=0))


OPTIONS = [
    *({"activation": name} for name in ACTIVATIONS),
    *({"binarize": how} for how in BINARIZE),
    {"kind": sv.Autoencoder},
    {"kind": functools.partial(sv.ConditionalVAE, classes=3)},
    {"free_bits": 0.1},
    {"dtype": "float64"},
    {"optimizer": lambda params, lr: sv.SGD(params, lr, momentum=0.9)},
    *({"likelihood": "gaussian", "variance": v} for v in (0.5, "shared", "per-dimension")),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_training_step_never_waits(rng, options):
    trainer = make_trainer(rng, **options)
    waits = []

    def on_step(terms):
        nonlocal before
        waits.append(standin._counts.waits - before)
        before = standin._counts.waits

    before = standin._counts.waits
    trainer.run(1, on_step)
    expected = np.zeros(100)
    expected[[0, 50]] = 1  # where the step before which loss and gradient are read begins
    np.testing.assert_array_equal(waits, expected)


def test_a_short_last_batch_waits_for_nothing(rng):
    trainer = make_trainer(rng, 100)
    trainer.batch_size, trainer.check_every, waits = 33, 5, []
    trainer.run(1, lambda terms: waits.append(standin._counts.waits))
    assert len(waits) == 4
    assert len(set(waits)) == 1


def test_two_hundred_steps_of_adam_between_two_checks_wait_for_nothing(rng):
    trainer = make_trainer(rng, 400)
    trainer.check_every = 300
    trainer.run(1, lambda terms: setattr(trainer, "stop", trainer.optimizer.steps == 1))

    def on_step(terms):
        if trainer.optimizer.steps == 1 + 200:
            taken.append(standin._counts.waits - before)
            trainer.stop = True

    taken, before, trainer.stop = [], standin._counts.waits, False
    trainer.run(1, on_step)
    assert taken == [0]


@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize("check_every", [1, 10, 50])
def test_the_waits_of_an_epoch_depend_on_the_interval_only(rng, n, check_every):
    trainer = make_trainer(rng, n)
    trainer.check_every = check_every
    with standin.counting() as count:
        trainer.run(1)
    # At the end: the last check, the sums of the training and of the test terms, active units.
    # Nothing waits for the check when there is nothing unread.
    assert count.waits == n // check_every + 3 + (check_every > 1)


def test_evaluation_waits_once(rng):
    model = sv.VAE(6, hidden=(8,), latent_dim=2, rng=1, backend="cupy")
    batches = [standin.cupy.asarray(rng.uniform(size=(n, 6))) for n in (3, 4, 5)]
    for measure in (
        lambda: elbo(model, batches, 0, samples=3),
        lambda: importance_weighted_bound(model, batches, 20_000, 0),
        lambda: kl_of_dimensions(model, batches),
        lambda: active_units(model, batches),
    ):
        with standin.counting() as count:
            measure()
        assert count.waits == 1


def poison(trainer, step):
    """Make the loss of one step infinite, on the device."""
    original = trainer.model.loss_and_grad

    def poisoned(x, eps=None):
        terms = original(x, eps)
        return terms._replace(loss=terms.loss / (trainer.optimizer.steps + 1 != step))

    trainer.model.loss_and_grad = poisoned


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("step", [1, 2, 37, 51, 100])
def test_a_step_that_is_not_finite_is_named_though_it_is_found_later(rng, step):
    trainer = make_trainer(rng)
    poison(trainer, step)
    advice = r"of a size that float32 holds\?" if step == 1 else r"than 0\.01"  # no step was taken
    with pytest.raises(sv.NonFiniteError, match=rf"^step {step} \(epoch 1\): .* {advice}$"):
        trainer.run(1)
    assert step <= trainer.optimizer.steps + 1 <= step + 50


def test_every_50th_step_is_looked_at_on_a_device_and_every_step_on_the_cpu(rng):
    for backend, steps in ("cupy", 50), ("numpy", 1):
        assert make_trainer(rng, backend=backend).check_every == steps


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_where_every_step_is_looked_at_the_layer_is_named_on_a_device_too(rng):
    for every, names_it in (1, True), (50, False):
        trainer = make_trainer(rng)
        trainer.check_every = every

        def break_it(terms, trainer=trainer):
            if trainer.optimizer.steps == 3:
                trainer.model.params["decoder.0.W"].value[...] = np.inf

        with pytest.raises(sv.NonFiniteError, match=r"^step 4 \(epoch 1\): ") as error:
            trainer.run(1, break_it)
        assert ("decoder.0" in str(error.value)) == names_it


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_nothing_is_saved_from_parameters_that_were_not_checked(rng):
    trainer = make_trainer(rng)
    poison(trainer, 7)
    saved = []

    def on_step(terms):
        if trainer.optimizer.steps in (6, 9):
            saved.append(trainer.state())

    with pytest.raises(sv.NonFiniteError, match=r"^step 7 \(epoch 1\): loss or gradient is not"):
        trainer.run(1, on_step)
    assert [values["step"] for _, values in saved] == [6]

    trainer = make_trainer(rng)
    poison(trainer, 7)

    def stop(terms):
        trainer.stop = trainer.optimizer.steps == 9

    with pytest.raises(sv.NonFiniteError, match=r"^step 7 "):
        trainer.run(1, stop)
