"""Batches in parts: the same loss and gradient as at once, and the threads leave nothing behind."""

import threading
import warnings
from typing import ClassVar

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import scratchvae as sv
from scratchvae import parallel
from scratchvae.datasets import Dataset
from scratchvae.training import Trainer


@pytest.fixture
def seed(rng):
    return int(rng.integers(2**32))


@pytest.fixture
def cores(monkeypatch):
    """Have `n` threads, and parts of one row, whatever this machine has."""

    def have(n):
        info = [{"user_api": "blas", "num_threads": n}]
        monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: info)
        monkeypatch.setattr(parallel, "ROWS", 1)

    return have


def a_model(kind, seed, **options):
    return kind(12, (9, 7), 3, dtype="float64", rng=seed, **options)


CASES = [
    (sv.VAE, {"beta": 0.7, "free_bits": 0.1}),
    (sv.VAE, {"likelihood": "gaussian", "variance": "shared"}),
    (sv.VAE, {"likelihood": "gaussian", "variance": "per-dimension"}),
    (sv.Autoencoder, {}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize(("n", "rows"), [(2, 10), (3, 11), (4, 5), (4, 3), (2, 1)])
def test_loss_and_gradient_are_those_of_the_whole_batch(kind, options, n, rows, rng, seed, cores):
    cores(n)
    model = a_model(kind, seed, **options)
    x = rng.random((rows, 12))
    eps = model.draw_eps(rows, rng)
    expected = model.loss_and_grad(x, eps)
    gradient = model.params.grad.copy()
    model.params.grad[...] = np.nan  # which nothing may read
    with parallel.in_parts(model, 100) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad  # the batch is divided
        for _ in range(3):  # the arrays are used again
            found = loss_and_grad(x, eps)
    # Sums of some dozen float64 numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        model.params.grad, gradient, rtol=0, atol=1e-12 * abs(gradient).max()
    )
    model.params.check_views()


def test_each_part_is_computed_in_a_thread_with_its_share_of_the_rows(
    rng, seed, cores, monkeypatch
):
    cores(3)
    model, seen = a_model(sv.Autoencoder, seed), []
    original, together = sv.Autoencoder.loss_and_grad, threading.Barrier(3, timeout=60)

    def spy(self, x, eps=None, batch_size=None):
        if batch_size != 8:  # the probe, see `adds_up`
            return original(self, x, eps, batch_size)
        together.wait()  # reached by all three, or by none
        seen.append((threading.get_ident(), len(x)))
        return original(self, x, eps, batch_size)

    monkeypatch.setattr(sv.Autoencoder, "loss_and_grad", spy)
    with parallel.in_parts(model, 3) as loss_and_grad:
        loss_and_grad(rng.random((8, 12)), None)
    assert len({ident for ident, _ in seen}) == 3
    assert sorted(rows for _, rows in seen) == [2, 3, 3]


def test_a_small_batch_is_left_to_the_model(seed, monkeypatch, cores):
    cores(4)
    monkeypatch.setattr(parallel, "ROWS", 256)
    model = a_model(sv.VAE, seed)
    with parallel.in_parts(model, 4 * 256 - 1) as loss_and_grad:
        assert loss_and_grad == model.loss_and_grad
    cores(1)
    with parallel.in_parts(model, 10_000) as loss_and_grad:
        assert loss_and_grad == model.loss_and_grad


def test_a_library_that_is_loaded_in_the_middle_of_a_run_changes_nothing(seed, monkeypatch, cores):
    """SciPy's BLAS comes with the first compiled loop, and has all cores; NumPy's was limited."""
    cores(1)
    monkeypatch.setattr(
        "threadpoolctl.threadpool_info",
        lambda: [{"user_api": "blas", "num_threads": n} for n in (1, 2)],
    )
    model = a_model(sv.VAE, seed)
    with parallel.in_parts(model, 10_000) as loss_and_grad:
        assert loss_and_grad == model.loss_and_grad


def test_blas_has_one_thread_meanwhile_and_its_own_number_again_afterwards(seed, cores):
    def numbers():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    with threadpool_limits(2, "blas"):  # which is another number than 1, on any machine
        assert set(numbers()) == {2}
        cores(2)
        with parallel.in_parts(a_model(sv.VAE, seed), 2):
            assert set(numbers()) == {1}
        assert set(numbers()) == {2}


@pytest.mark.parametrize("bad_row", [0, 9])
def test_an_error_in_any_part_is_raised_and_the_gradient_is_the_models_again(
    bad_row, rng, seed, cores, monkeypatch
):
    cores(2)
    model = a_model(sv.Autoencoder, seed)
    original, vector = sv.Autoencoder.loss_and_grad, model.params.grad

    def failing(self, x, eps=None, batch_size=None):
        if (x == -1).any():
            raise ValueError("a bad row")
        return original(self, x, eps, batch_size)

    monkeypatch.setattr(sv.Autoencoder, "loss_and_grad", failing)
    x = rng.random((10, 12))
    x[bad_row] = -1
    with (
        pytest.raises(ValueError, match="a bad row"),
        parallel.in_parts(model, 10) as loss_and_grad,
    ):
        loss_and_grad(x, None)
    assert model.params.grad is vector
    model.params.check_views()


def test_an_overflow_is_ignored_in_every_thread_where_it_is_in_the_callers(rng, seed, cores):
    cores(2)
    model = a_model(sv.VAE, seed, likelihood="gaussian")
    model.params.value[...] = 1e200
    x = rng.random((4, 12))
    with (
        warnings.catch_warnings(),
        np.errstate(over="ignore", invalid="ignore"),
        parallel.in_parts(model, 4) as loss_and_grad,
    ):
        warnings.simplefilter("error")
        assert not np.isfinite(loss_and_grad(x, model.draw_eps(4, rng)).loss)


def test_what_changes_in_the_model_changes_in_every_part(rng, seed, cores):
    """As beta does, at every step of a schedule."""
    cores(2)
    model = a_model(sv.VAE, seed)
    x = rng.random((6, 12))
    eps = model.draw_eps(6, rng)
    with parallel.in_parts(model, 6) as loss_and_grad:
        for beta in 0.0, 0.5, 2.0:
            model.set_beta(beta)
            found = loss_and_grad(x, eps)
            # A sum of six numbers in another order.
            np.testing.assert_allclose(found, model.loss_and_grad(x, eps), rtol=1e-12)


class Weighted(sv.VAE):
    """Weighs the KL by an array of numbers, of which there is one."""

    weights = np.ones(1)

    def kl(self, mu, logvar):
        kl, cache = sv.VAE.kl(mu, logvar)
        return self.weights * kl, cache

    def kl_backward(self, dkl, cache):
        return sv.VAE.kl_backward(self.weights * dkl, cache)


@pytest.mark.parametrize(
    "change",
    [lambda m: setattr(m, "beta", np.float32(3)), lambda m: setattr(m, "weights", np.full(1, 3.0))],
    ids=["a number of NumPy", "an array"],
)
def test_numbers_of_numpy_reach_every_part_too(rng, seed, cores, change):
    cores(2)
    model = Weighted(12, (9,), 3, dtype="float64", rng=seed)
    x = rng.random((6, 12))
    eps = model.draw_eps(6, rng)
    with parallel.in_parts(model, 6) as loss_and_grad:
        change(model)
        found = loss_and_grad(x, eps)
        np.testing.assert_allclose(found, model.loss_and_grad(x, eps), rtol=1e-12)  # see above


class Weighed(sv.VAE):
    """Its loss has a weight, if the model has one."""

    weight = 1.0

    def forward(self, x, eps=None):
        terms, cache = super().forward(x, eps)
        return terms._replace(loss=terms.loss * (self.weight or 1)), cache

    def backward(self, dloss, cache):
        super().backward(dloss * (self.weight or 1), cache)


def delete(model):
    del model.weight


@pytest.mark.parametrize("change", [lambda model: setattr(model, "weight", None), delete])
def test_a_number_that_is_gone_is_gone_in_every_part(change, rng, seed, cores):
    cores(2)
    model, x = a_model(Weighed, seed), rng.random((10, 12))
    model.weight, eps = 3.0, model.draw_eps(10, rng)
    with parallel.in_parts(model, 10) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        loss_and_grad(x, eps)
        change(model)
        found = loss_and_grad(x, eps)
    np.testing.assert_allclose(found, model.loss_and_grad(x, eps), rtol=1e-12)


class Headed(sv.VAE):
    """Reaches a layer of the encoder by another name, too, and adds a penalty to its gradient."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.head = self.encoder.layers[0]

    def backward(self, dloss, cache):
        super().backward(dloss, cache)
        self.head.b.add(dloss.sum() * self.head.b.value)


def test_what_a_model_calls_by_two_names_is_one_thing_in_each_part(rng, seed, cores):
    cores(2)
    model = Headed(12, (9,), 3, dtype="float64", rng=seed)
    x = rng.random((10, 12))
    eps = model.draw_eps(10, rng)
    model.loss_and_grad(x, eps)
    gradient = model.params.grad.copy()
    with parallel.in_parts(model, 10) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        for _ in range(20):
            loss_and_grad(x, eps)
            np.testing.assert_allclose(model.params.grad, gradient, rtol=0, atol=1e-12)


def around(p):
    """A layer whose functions know its parameter, and no attribute does but for the name."""

    class Around:
        def __init__(self):
            self.p = p

        def forward(self, x):
            return x * p.value, x

        def backward(self, dy, x):
            p.add((dy * x).sum(axis=0))
            return dy * p.value

        def named_parameters(self):
            yield "p", self.p

    return Around()


class Locked(sv.Linear):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.lock = threading.Lock()  # which cannot be copied


def of_what_differs(p):
    """A layer around p whose gradient is 0 for an image of one colour."""
    layer = around(p)
    forward, backward = layer.forward, layer.backward
    layer.forward = lambda x: forward(x - x.mean(axis=1, keepdims=True))
    layer.backward = lambda dy, x: (d := backward(dy, x)) - d.mean(axis=1, keepdims=True)
    return layer


class Gate:
    """y = x + s f(x) for a layer f, with s = 0 at first, which hides f's gradient."""

    def __init__(self, inner):
        self.inner, self.s = inner, sv.Parameter(np.zeros(1))

    def forward(self, x):
        y, cache = self.inner.forward(x)
        return x + self.s.value * y, (y, cache)

    def backward(self, dy, cache):
        self.s.add((dy * cache[0]).sum()[None])
        return dy + self.inner.backward(self.s.value * dy, cache[1])

    def named_parameters(self):
        yield "s", self.s
        yield from self.inner.named_parameters()


class BatchNorm:
    """Subtracts the mean of the batch, and divides by its standard deviation."""

    def forward(self, x):
        r = 1 / np.sqrt(x.var(axis=0) + 1e-5)
        y = (x - x.mean(axis=0)) * r
        return y, (y, r)

    def backward(self, dy, cache):
        y, r = cache
        return r * (dy - dy.mean(axis=0) - y * (dy * y).mean(axis=0))


class WithoutEps(BatchNorm):
    """Of one example alone it makes 0 / 0."""

    def forward(self, x):
        r = 1 / x.std(axis=0)
        y = (x - x.mean(axis=0)) * r
        return y, (y, r)


class Dropout:
    """Draws from a generator of its own."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def forward(self, x):
        mask = self.rng.integers(2, size=x.shape) * 2.0
        return x * mask, mask

    def backward(self, dy, mask):
        return dy * mask


def unusual(seed):
    own = {"rng": seed, "dtype": "float64"}
    yield around(sv.Parameter(np.ones(12)))
    yield of_what_differs(sv.Parameter(np.ones(12)))
    yield Gate(around(sv.Parameter(np.ones(12))))
    yield Locked(12, 12, **own)
    yield BatchNorm()
    yield WithoutEps()
    yield Dropout(seed)


def test_a_model_whose_batches_are_no_sums_of_parts_is_trained_at_once(rng, seed, cores):
    cores(2)
    for layer in unusual(seed):
        encoder = sv.Sequential([layer, sv.Linear(12, 6, rng=seed, dtype="float64")])
        model = sv.VAE(12, latent_dim=3, dtype="float64", rng=seed, encoder=encoder)
        gradient = model.params.grad.copy()
        values, state = model.params.value.copy(), model.rng.bit_generator.state
        with parallel.in_parts(model, 10) as loss_and_grad:
            assert loss_and_grad == model.loss_and_grad, layer
        if hasattr(layer, "lock"):  # no copy was made, so nothing was written
            np.testing.assert_array_equal(model.params.grad, gradient)
        # It was found out on a copy.
        np.testing.assert_array_equal(model.params.value, values)
        assert model.rng.bit_generator.state == state


class Decay(sv.VAE):
    """Weight decay in every loss, and its gradient once in a backward, whatever dloss is.

    For a whole batch that is right: the weights of the losses add up to 1.
    """

    decay = 1e-7

    def forward(self, x, eps=None):
        terms, cache = super().forward(x, eps)
        penalty = self.decay / 2 * (self.params.value**2).sum()
        return terms._replace(loss=terms.loss + penalty), cache

    def backward(self, dloss, cache):
        super().backward(dloss, cache)
        self.params.grad += self.decay * self.params.value


class MeanCode(sv.VAE):
    """A penalty on the square of the mean of mu over the batch."""

    def kl(self, mu, logvar):
        kl, cache = super().kl(mu, logvar)
        return kl + (mu.mean(axis=0) ** 2).sum(), (cache, mu)

    def kl_backward(self, dkl, cache):
        dmu, dlogvar = super().kl_backward(dkl, cache[0])
        mu = cache[1]
        return dmu + 2.0 * dkl.sum() * mu.mean(axis=0) / len(mu), dlogvar


@pytest.mark.parametrize("kind", [Decay, MeanCode])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_that_is_none_of_single_examples_is_trained_at_once(kind, dtype, seed, cores):
    cores(2)
    model = kind(12, (9, 7), 3, dtype=dtype, rng=seed)
    with parallel.in_parts(model, 10) as loss_and_grad:
        assert loss_and_grad == model.loss_and_grad


class Clipped(sv.VAE):
    limit = 1e4  # far above what the gradient of this model is

    def loss_and_grad(self, x, eps=None, batch_size=None):
        terms = super().loss_and_grad(x, eps, batch_size)
        norm = float(np.linalg.norm(self.params.grad))
        self.params.grad *= min(1.0, self.limit / norm)
        return terms


def test_a_model_that_clips_its_gradient_is_trained_at_once(seed, cores):
    cores(2)
    model = a_model(Clipped, seed)
    with parallel.in_parts(model, 10) as loss_and_grad:
        assert loss_and_grad == model.loss_and_grad


class LogAboveOne:
    def forward(self, x):
        return np.log(x - 1), x

    def backward(self, dy, x):
        return dy / (x - 1)


def test_a_model_that_the_probe_cannot_tell_is_trained_at_once(rng, seed, cores):
    """Its layer mixes examples, behind one that takes no numbers below 1, which the probe has."""
    own = {"dtype": "float64", "rng": seed}
    data = Dataset.from_arrays(rng.uniform(1.1, 2, (40, 12)), test=rng.uniform(1.1, 2, (5, 12)))

    def trained(n):
        cores(n)
        encoder = sv.Sequential([LogAboveOne(), BatchNorm(), sv.Linear(12, 6, **own)])
        model = sv.VAE(12, latent_dim=3, encoder=encoder, likelihood="gaussian", **own)
        with parallel.in_parts(model, 10) as loss_and_grad:
            assert loss_and_grad == model.loss_and_grad
        assert parallel.adds_up(model) is None
        Trainer(model, sv.Adam(model.params), data, batch_size=10).run(1)
        encoder.layers.pop(0)
        model.gather()
        assert parallel.adds_up(model) is False
        return model.params.value

    np.testing.assert_array_equal(trained(2), trained(1))


class Counts(sv.likelihoods.Bernoulli):
    def nll(self, x, output):
        if (x != np.round(x)).any():
            raise ValueError("counts expected")
        return super().nll(x, output)


def test_a_loss_and_grad_that_takes_no_batch_size_is_not_shared_out(rng, seed):
    class Own(sv.VAE):
        def loss_and_grad(self, x, eps=None):
            return super().loss_and_grad(x, eps)

    class Passes(sv.VAE):
        def loss_and_grad(self, *args, **named):
            return super().loss_and_grad(*args, **named)

    assert parallel.adds_up(Own(6, (4,), 2, rng=seed)) is False
    assert parallel.adds_up(Passes(6, (4,), 2, rng=seed)) is True
    model = Own(6, (4,), 2, rng=seed)
    trainer = Trainer(model, sv.Adam(model.params), rng.random((20, 6)), shards=2)
    with pytest.raises(sv.InputError, match="or its loss_and_grad takes no batch_size"):
        trainer.run(1)


def test_a_model_that_refuses_the_numbers_of_the_probe_is_told_from_one_that_mixes(seed):
    model = a_model(sv.VAE, seed, likelihood=Counts(12))
    assert parallel.adds_up(model) is None


class Seen:
    """Notes how many rows come by, in whatever copy."""

    sizes: ClassVar[list[int]] = []

    def forward(self, x):
        self.sizes.append(len(x))
        return x, None

    def backward(self, dy, cache):
        return dy


class Limited(Clipped):
    limit = np.inf
    mixes = None  # a switch

    def nll(self, x, output):
        n, cache = super().nll(x, output)
        d = output - output.mean(axis=-2, keepdims=True)
        return n + (d * d).mean(axis=-2).sum() if self.mixes else n, (cache, d)

    def nll_backward(self, dnll, cache):
        cache, d = cache
        dx = super().nll_backward(dnll, cache)
        return dx + 2 * d / d.shape[-2] * dnll.sum() if self.mixes else dx


def clip(model):
    model.limit = 1e-3


def mix(model):
    model.mixes = True


def normalise(model):
    model.encoder.layers[2] = BatchNorm()


@pytest.mark.parametrize("when", ["between two runs", "in a run", "in an epoch"])
@pytest.mark.parametrize(
    ("change", "expected"), [(clip, 20), (mix, 20), (normalise, 20), (lambda model: None, 10)]
)
def test_whether_a_batch_may_be_divided_is_asked_again(change, expected, when, rng, seed, cores):
    cores(2)
    data = Dataset.from_arrays(rng.random((40, 12)), test=rng.random((5, 12)))
    own = {"dtype": "float64", "rng": seed}
    stack = [Seen(), sv.Linear(12, 9, **own), sv.Activation("tanh"), sv.Linear(9, 6, **own)]
    model = Limited(12, latent_dim=3, encoder=sv.Sequential(stack), **own)
    trainer = Trainer(model, sv.Adam(model.params), data, batch_size=20)

    def then(_=None):
        change(model)
        Seen.sizes.clear()

    if when == "in an epoch":
        trainer.run(1, on_step=lambda _: trainer.batch == 1 and then())
    elif when == "in a run":
        trainer.run(2, on_epoch=lambda _: trainer.epoch == 1 and then())
    else:
        trainer.run(1)
        then()
        trainer.run(2)
    # Besides the test data, and what is tried.
    assert set(Seen.sizes) - {5, 3, 16, 8} == {expected}


def test_a_draw_that_rounding_decides_is_no_reason(seed, monkeypatch):
    model = a_model(sv.VAE, seed)
    for answers, expected in (([True, True], True), ([False, True, True, True], True),
                              ([False, False], False), ([False, True, False], False),
                              ([True, None], True), ([None], None), ([True, False, False], False),
                              ([True, False, True, True], True)):  # fmt: skip
        rest = iter(answers)
        monkeypatch.setattr(parallel, "_adds_up", lambda model, seed, moved, rest=rest: next(rest))
        assert parallel.adds_up(model) == expected
        assert list(rest) == []  # each was asked for


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_after_training_too_a_batch_is_taken_in_parts(kind, options, dtype, rng, seed, cores):
    """Whatever sizes its gradients have, rounding is told from a layer that mixes examples."""
    model = kind(12, (40, 7), 3, **options, dtype=dtype, rng=seed)
    data = Dataset.from_arrays(rng.random((60, 12)), test=rng.random((5, 12)))
    Trainer(model, sv.Adam(model.params, 1e-2), data, batch_size=20).run(3)
    cores(2)
    with parallel.in_parts(model, 10) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad


def test_parameters_gathered_in_the_middle_are_refused(rng, seed, cores):
    cores(2)
    model = a_model(sv.VAE, seed)
    with parallel.in_parts(model, 10) as loss_and_grad:
        model.gather()
        with pytest.raises(sv.InputError) as error:
            loss_and_grad(rng.random((10, 12)), model.draw_eps(10, rng))
    assert str(error.value) == (
        "the model's parameters were gathered again while its batches are taken in parts: gather "
        "them between two epochs"
    )


def test_a_run_in_parts_goes_on_bitwise_after_a_stop(rng, seed, cores):
    cores(2)
    images = rng.integers(0, 256, (50, 12), dtype=np.uint8)
    dataset = Dataset("random", images, images[:9], None, None, 255.0, (3, 4))

    def trainer():
        model = sv.VAE(12, (9,), 3, rng=seed)
        return Trainer(model, sv.Adam(model.params), dataset, batch_size=16, seed=0)

    whole, stopped = trainer(), trainer()
    whole.run(3)

    def stop(terms):
        stopped.stop = True

    while stopped.epoch < 3:
        stopped.stop = False
        stopped.run(3, on_step=stop)
    np.testing.assert_array_equal(stopped.model.params.value, whole.model.params.value)


def test_a_layer_exchanged_in_an_epoch_is_exchanged_in_every_part(rng, seed, cores):
    """And a switch that a callback sets then: a run that was stopped there goes on as it did."""
    data = Dataset.from_arrays(rng.random((60, 12)), test=rng.random((5, 12)))

    def trained(n, stop=False):
        cores(n)
        model = a_model(Limited, seed, activation="tanh")
        trainer = Trainer(model, sv.Adam(model.params), data, batch_size=20)
        losses = []

        def on_step(terms):
            losses.append(float(terms.loss))
            if len(losses) == 1:
                model.encoder.layers[1] = sv.Activation("silu")
            if len(losses) == 2:
                model.mixes = 1
                trainer.stop = stop

        while trainer.epoch < 2:
            trainer.stop = False
            trainer.run(2, on_step)
        return losses, model.params.value

    (losses, values), (expected, _) = trained(2), trained(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)  # rounding of sums of float64 numbers
    np.testing.assert_array_equal(trained(2, stop=True)[1], values)


def test_a_weight_that_changes_at_each_step_is_not_asked_about(rng, seed, cores, monkeypatch):
    """It is among the numbers that are tried, and to ask takes as long as a few steps."""
    cores(2)
    asked = []
    monkeypatch.setattr("scratchvae.distributed.adds_up", lambda model: asked.append(1) or True)
    model = a_model(sv.VAE, seed)
    trainer = Trainer(model, sv.Adam(model.params), rng.random((60, 12)), batch_size=20)

    def anneal(terms):
        model.beta = trainer.optimizer.steps / 10

    trainer.run(1, on_step=anneal)
    assert trainer.optimizer.steps > 2
    assert len(asked) == 1


class BatchVariance(sv.VAE):
    """Adds a term that mixes the examples of a batch, with a weight that is 0 for beta = 1."""

    def nll(self, x, output):
        n, cache = super().nll(x, output)
        d, w = output - output.mean(axis=-2, keepdims=True), self.beta - 1
        return n + w * (d * d).mean(axis=-2).sum(), (cache, d, w)

    def nll_backward(self, dnll, cache):
        cache, d, w = cache
        return super().nll_backward(dnll, cache) + 2 * w * d / d.shape[-2] * dnll.sum()


def test_a_term_that_weighs_nothing_yet_is_told(rng, seed):
    """A schedule or a callback may change beta."""
    model = BatchVariance(6, (4,), 2, activation="tanh", rng=seed)
    assert parallel.adds_up(model) is False
    assert parallel.adds_up(sv.VAE(6, (4,), 2, beta=0, rng=seed)) is True
    assert parallel.adds_up(sv.IWAE(6, (4,), 2, samples=2, rng=seed)) is True


def test_beta_is_the_schedules_before_it_is_asked_whether_a_batch_may_be_divided(rng, seed):
    asked = []

    class Asked(sv.VAE):
        def __deepcopy__(self, memo):
            asked.append(self.beta)
            raise TypeError("it cannot be copied")

    model = Asked(6, (4,), 2, rng=seed)
    x = rng.random((20, 6))
    trainer = Trainer(model, sv.Adam(model.params), x, shards=2, beta_schedule=lambda t: 3.0)
    with pytest.raises(sv.InputError, match="cannot be shared out"):
        trainer.run(1)
    assert asked[-1] == 3.0  # those before are trials of the formulas


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_list_of_numbers_reaches_the_twins(kind, rng, seed):
    model = sv.VAE(6, (4,), 2, rng=seed)
    model.weights = kind([1.0, 2.0])
    twin = model.twin()
    model.weights = kind([3.0, (4, 5.0)])
    twin.follow(model)
    assert twin.weights == model.weights


@pytest.mark.parametrize(
    ("eps", "found"), [(([1], [2]), "a tuple"), (np.ones(4), r"an array of shape \(4,\)")]
)
def test_noise_that_is_no_array_of_examples_is_named(eps, found, rng, seed):
    class Own(sv.VAE):
        def draw_eps(self, n, rng):
            return eps

    model = Own(6, (4,), 2, rng=seed)
    with pytest.raises(sv.InputError, match=f"^draw_eps gives {found}: expected an array whose l"):
        Trainer(model, sv.Adam(model.params), rng.random((20, 6))).run(1)


class Workspace(sv.VAE):
    """Writes sigma into arrays of its own, to save an allocation."""

    def __init__(self, *args, **options):
        self.work, self.listed = np.empty((600, 3)), [np.empty((600, 3))]
        self.weights = np.ones(3)
        super().__init__(*args, **options)

    def reparameterize(self, mu, logvar, eps):
        sigma = np.exp(logvar / 2, out=self.work[: len(mu)])
        product = np.multiply(sigma, eps, out=self.listed[0][: len(mu)])
        return mu + self.weights * product, (sigma, eps)

    def reparameterize_backward(self, dz, cache):
        sigma, eps = cache
        return dz, self.weights * dz * eps * sigma / 2


def test_what_a_step_writes_into_is_each_twins_own(rng, cores, monkeypatch):
    cores(2)
    model = Workspace(6, (5,), 3, dtype="float64", rng=rng)
    assert parallel.written(model) == {"work", "listed"}
    with monkeypatch.context() as m:  # nothing is tried where there is no array
        m.setattr(parallel.copy, "deepcopy", None)
        assert parallel.written(sv.VAE(6, (5,), 3)) == set()
    x, eps = rng.random((600, 6)), rng.standard_normal((600, 3))
    twin = model.twin()
    mine = twin.work, twin.listed
    twin.follow(model, but=parallel.written(model))
    assert twin.work is mine[0] is not model.work
    assert twin.listed is mine[1] is not model.listed
    assert twin.weights is model.weights
    model.loss_and_grad(x, eps)
    expected = model.params.grad.copy()
    with parallel.in_parts(model, 600) as loss_and_grad:
        assert loss_and_grad != model.loss_and_grad
        loss_and_grad(x, eps)
    # Sums of some hundred float64 numbers in another order.
    largest = abs(expected).max()
    np.testing.assert_allclose(model.params.grad, expected, rtol=0, atol=1e-12 * largest)
