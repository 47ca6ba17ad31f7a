"""The loop: what it counts, when it stops, and that stopping and resuming changes nothing."""

import pickle
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import scratchvae as sv
from scratchvae import checkpoint, evaluation, parallel
from scratchvae.datasets import Dataset
from scratchvae.training import TEST_NOISE, Trainer


def make_dataset(rng, n=50, d=6, scale=255.0, n_test=11):
    images = rng.integers(0, 256, (n + n_test, d), dtype=np.uint8)
    return Dataset("drawn", images[:n], images[n:], None, None, scale, (2, 3))


def make_trainer(dataset, model_seed, *, optimizer=sv.Adam, kind=sv.VAE, **options):
    model = kind(6, hidden=(8,), latent_dim=2, rng=model_seed)
    return Trainer(model, optimizer(model.params, 0.01), dataset, batch_size=16, **options)


@pytest.fixture
def seed(rng):
    return int(rng.integers(2**31))


def test_an_epoch_is_every_example_once_and_its_metrics_are_means_over_examples(rng, seed):
    dataset = make_dataset(rng)
    trainer = make_trainer(dataset, seed)
    sizes, sums = [], np.zeros(3)

    def on_step(terms):
        size = min(16, len(dataset.train) - sum(sizes))
        sizes.append(size)
        sums[:] += size * np.array(terms)

    trainer.run(1, on_step)
    assert sizes == [16, 16, 16, 2]
    (line,) = trainer.metrics
    assert list(line) == [
        "epoch", "train_loss", "train_reconstruction", "train_kl", "test_loss",
        "test_reconstruction", "test_kl", "active_units", "seconds",
    ]  # fmt: skip
    found = [line["train_loss"], line["train_reconstruction"], line["train_kl"]]
    # The same float64 additions in the same order: equal, not only close.
    np.testing.assert_array_equal(found, sums / 50)


def rows_of_epochs(trainer, epochs):
    """Train; return what the model was given in each epoch, in that order, (N, D) each."""
    seen = [[]]
    original = trainer.model.loss_and_grad

    def spy(x, eps=None):
        seen[-1].append(x)
        return original(x, eps)

    trainer.model.loss_and_grad = spy
    trainer.run(epochs, on_epoch=lambda metrics: seen.append([]))
    return [np.concatenate(rows) for rows in seen[:-1]]


def test_every_example_comes_once_per_epoch_in_an_order_of_the_seed_and_the_epoch(rng, seed):
    dataset = make_dataset(rng)
    one, again, other = (
        rows_of_epochs(make_trainer(dataset, seed, seed=s), 4) for s in (seed, seed, seed + 1)
    )
    expected = dataset.train.astype(np.float32) / np.float32(255)
    assert one[0].dtype == np.float32
    for seen in one:
        np.testing.assert_array_equal(np.unique(seen, axis=0), np.unique(expected, axis=0))
    np.testing.assert_array_equal(one, again)
    # Two of the 50! orders are the same in no run that anybody will see.
    assert len({rows.tobytes() for rows in one + other}) == 8


def test_all_test_data_count_however_many_they_are(rng, seed):
    dataset = make_dataset(rng, n=20, n_test=2011)
    trainer = make_trainer(dataset, seed, seed=seed)
    x = dataset.test.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(np.concatenate(list(trainer.test_batches())), x)
    noise = [seed, 0, TEST_NOISE]
    # The same noise, and float64 sums of the same float32 terms, a batch's products rounded apart.
    np.testing.assert_allclose(
        trainer.test_terms(), evaluation.elbo(trainer.model, [x], noise), rtol=1e-6
    )
    trainer.run(1)
    assert trainer.metrics[0]["test_loss"] == trainer.test_terms().loss


def test_the_products_of_a_small_model_have_one_thread_while_it_trains(rng, seed):
    def threads():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    seen = []
    with threadpool_limits(2, "blas"):  # another number than 1, on any machine
        trainer = make_trainer(make_dataset(rng), seed)
        trainer.run(1, lambda terms: seen.append(threads()), lambda metrics: seen.append(threads()))
        assert threads() == {2}
    assert seen == 5 * [{1}]  # in four steps and after the test data


@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder])
@pytest.mark.parametrize("optimizer", [sv.Adam, lambda p, lr: sv.SGD(p, lr, momentum=0.9)])
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_stopped_after_any_step_saved_and_resumed_is_bitwise_the_same_run(
    rng, seed, tmp_path, kind, optimizer, binarize
):
    dataset = make_dataset(rng)
    schedule = sv.cosine(0.01, 3)
    options = {"optimizer": optimizer, "kind": kind, "binarize": binarize, "schedule": schedule}
    whole = make_trainer(dataset, seed, seed=seed, **options)
    whole.run(3)

    stop_at = int(rng.integers(1, 12))
    stopped = make_trainer(dataset, seed, seed=seed, **options)

    def on_step(terms):
        stopped.stop = stopped.optimizer.steps == stop_at

    stopped.run(3, on_step)
    assert stopped.optimizer.steps == stop_at
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, *stopped.state())

    # Another model seed: everything that matters must come out of the file.
    resumed = make_trainer(dataset, seed + 1, seed=seed, **options)
    resumed.restore(*checkpoint.load(path), path)
    resumed.run(3)

    np.testing.assert_array_equal(resumed.model.params.value, whole.model.params.value)
    for name, state in whole.optimizer.state.items():
        np.testing.assert_array_equal(resumed.optimizer.state[name], state)
    for a, b in zip(resumed.metrics, whole.metrics, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_the_state_of_another_optimizer_is_refused_and_changes_nothing(rng, seed):
    dataset = make_dataset(rng)
    adam, sgd = (
        make_trainer(dataset, seed + k, optimizer=o) for k, o in enumerate((sv.Adam, sv.SGD))
    )
    before = sgd.model.params.value.copy()
    with pytest.raises(
        sv.InputError, match=r"^f: made with another optimizer: its state is .*, expected"
    ):
        sgd.restore(*adam.state(), "f")
    np.testing.assert_array_equal(sgd.model.params.value, before)


def test_the_state_is_a_copy(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(1)
    arrays, values = trainer.state()
    before = {name: a.copy() for name, a in arrays.items()}
    trainer.run(2)
    for name, a in arrays.items():
        np.testing.assert_array_equal(a, before[name])
    assert (values["epoch"], len(values["metrics"])) == (1, 1)
    trainer.restore(arrays, values, "f")
    trainer.run(2)
    assert len(values["metrics"]) == 1


def test_the_schedule_sets_the_rate_of_every_step(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed, schedule=lambda epoch: 0.1 + epoch)
    rates = []
    trainer.run(2, lambda terms: rates.append(trainer.optimizer.lr))
    # Four batches an epoch; these quarters are exact in binary but for the added 0.1.
    np.testing.assert_allclose(rates, 0.1 + np.arange(8) / 4, rtol=1e-15)


@pytest.mark.parametrize("rate", ["x", -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused_before_the_parameters_move(rng, seed, rate):
    by_schedule = make_trainer(make_dataset(rng), seed, schedule=lambda epoch: rate)
    by_hand = make_trainer(make_dataset(rng), seed)
    by_hand.optimizer.lr = rate
    by_hand = Trainer(by_hand.model, by_hand.optimizer, by_hand.dataset)
    for trainer in by_schedule, by_hand:
        before = trainer.model.params.value.copy()
        with pytest.raises(sv.InputError, match=f"^lr is {rate!r}: expected a finite number"):
            trainer.run(1)
        np.testing.assert_array_equal(trainer.model.params.value, before)


def test_a_rate_that_is_a_numpy_number_changes_no_type(rng, seed):
    """A float64 of NumPy would turn the products with float32 arrays to float64."""
    schedule = {"schedule": lambda epoch: np.float64(0.1), "beta_schedule": np.float64}
    trainer = make_trainer(make_dataset(rng), seed, **schedule)
    trainer.run(1)
    assert type(trainer.optimizer.lr) is type(trainer.model.beta) is float


def test_the_beta_schedule_sets_the_weight_of_the_kl_at_every_step(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed, beta_schedule=sv.warm_up(3.0, 1.5))
    betas, terms = [], []
    trainer.run(2, lambda t: (betas.append(trainer.model.beta), terms.append(t)))
    # Four batches an epoch.
    np.testing.assert_allclose(betas, np.minimum(np.arange(8) / 6, 1) * 3, rtol=1e-15)
    for beta, t in zip(betas, terms, strict=True):
        # The terms are float32 sums over 30 values.
        assert t.loss == pytest.approx(t.reconstruction + beta * t.kl, rel=1e-5)
    with pytest.raises(sv.InputError, match="an autoencoder's loss has no KL term, and so no beta"):
        make_trainer(make_dataset(rng), seed, kind=sv.Autoencoder, beta_schedule=sv.constant(2))


def test_an_array_is_data_enough(rng, seed):
    """As `Dataset.from_arrays` takes it: uint8 counts to 255, the last tenth is the test part."""
    images = rng.integers(0, 256, (50, 2, 3), dtype=np.uint8)
    model = sv.VAE(6, hidden=(), latent_dim=2, rng=seed)
    trainer = Trainer(model, sv.Adam(model.params), images)
    trainer.run(1)
    data = trainer.dataset
    np.testing.assert_array_equal(data.train, images[:45].reshape(45, 6))
    np.testing.assert_array_equal(data.test, images[45:].reshape(5, 6))
    assert (data.scale, data.image_shape, trainer.metrics[0]["epoch"]) == (255.0, (2, 3), 1)


def test_a_trainer_shows_what_it_holds_and_how_far_it_is(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(1)
    assert repr(trainer) == (
        "Trainer(VAE(6, hidden=(8,), latent_dim=2), "
        "Adam(lr=0.01, steps=4, betas=(0.9, 0.999), eps=1e-08), "
        f"{trainer.dataset!r}, batch_size=16, epoch=1, batch=0)"
    )
    n, m = len(trainer.dataset.train), len(trainer.dataset.test)
    assert repr(trainer.dataset) == f"Dataset('drawn', {n} + {m} rows of 6 uint8)"


def test_an_optimizer_of_other_parameters_is_refused(rng, seed):
    """It would move another model, and this one would stay as it is."""
    model, other = (sv.VAE(6, hidden=(), latent_dim=2, rng=seed) for _ in range(2))
    with pytest.raises(sv.InputError, match="the optimizer moves the parameters of another model"):
        Trainer(model, sv.Adam(other.params), make_dataset(rng))
    trainer = Trainer(model, sv.Adam(model.params), make_dataset(rng))
    trainer.model = other
    with pytest.raises(sv.InputError, match="the optimizer moves the parameters of another model"):
        trainer.run(1)


def test_a_class_is_no_model(rng):
    with pytest.raises(
        sv.InputError, match=r"^model is <class .*VAE'>: expected one such as sv\.VAE"
    ):
        Trainer(sv.VAE, None, make_dataset(rng))


def test_a_trainer_can_be_pickled_and_goes_on_bitwise(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(1)
    again = pickle.loads(pickle.dumps(trainer))
    for t in trainer, again:
        t.run(2)
    np.testing.assert_array_equal(again.model.params.value, trainer.model.params.value)


@pytest.mark.parametrize("optimizer", [sv.Adam, lambda model: model.params])
def test_what_is_no_optimizer_is_refused(rng, seed, optimizer):
    model = sv.VAE(6, hidden=(), latent_dim=2, rng=seed)
    given = optimizer if optimizer is sv.Adam else optimizer(model)
    with pytest.raises(
        sv.InputError, match=r"^optimizer is .*: expected one such as sv\.Adam\(mod"
    ):
        Trainer(model, given, make_dataset(rng))


def test_a_part_changed_behind_the_parameters_is_refused(rng, seed):
    model = sv.VAE(6, hidden=(), latent_dim=2, rng=seed)
    optimizer = sv.Adam(model.params)
    model.encoder = sv.Sequential([sv.Linear(6, 4)])
    with pytest.raises(sv.InputError, match=r"a part of the model was changed .*encoder\.0\.W"):
        Trainer(model, optimizer, make_dataset(rng))


@pytest.mark.parametrize("change", ["exchange", "remove"])
def test_a_part_changed_after_the_trainer_was_built_is_refused(rng, seed, change):
    trainer = make_trainer(make_dataset(rng), seed)
    if change == "exchange":
        trainer.model.encoder = sv.layers.dense([6, 8, 4])
    else:
        del trainer.model.decoder.layers[0]
    with pytest.raises(sv.InputError, match=r"a part of the model was changed .*: call model\.ga"):
        trainer.run(1)


def test_training_lowers_the_loss(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(30)
    assert trainer.metrics[-1]["train_loss"] < trainer.metrics[0]["train_loss"]


def test_data_of_another_width_are_refused(rng, seed):
    model = sv.VAE(5, hidden=(), latent_dim=2, rng=seed)
    with pytest.raises(sv.InputError, match="drawn has 6 values per example: expected 5"):
        Trainer(model, sv.Adam(model.params), make_dataset(rng))


@pytest.mark.parametrize("batch_size", [0, -3, 2.5])
def test_batch_size_must_be_a_positive_integer(rng, seed, batch_size):
    model = sv.VAE(6, hidden=(), latent_dim=2, rng=seed)
    with pytest.raises(sv.InputError, match=r"batch_size is .*: expected a positive integer"):
        Trainer(model, sv.Adam(model.params), make_dataset(rng), batch_size=batch_size)


def test_pixels_outside_the_unit_interval_are_refused_where_they_have_no_meaning(rng, seed):
    dataset = make_dataset(rng, scale=100.0)
    with pytest.raises(sv.InputError, match="the Bernoulli likelihood"):
        make_trainer(dataset, seed)
    gaussian = sv.VAE(6, hidden=(), latent_dim=2, likelihood="gaussian", rng=seed)
    Trainer(gaussian, sv.Adam(gaussian.params), dataset)
    with pytest.raises(sv.InputError, match="dynamic"):
        Trainer(gaussian, sv.Adam(gaussian.params), dataset, binarize="dynamic")


def break_parameter(model):
    model.params["decoder.0.b"].value[3] = np.nan


def break_layer(model):
    model.params["encoder.0.W"].value[...] = 1e37  # times at most 6 pixels of 1: finite
    model.params["encoder.2.W"].value[...] = 1e37  # and the product of both is not, in float32


def break_draw(model):
    model.params["encoder.2.b"].value[...] = 1e3  # sigma = exp(500)


@pytest.mark.parametrize(
    ("break_it", "where"),
    [
        (break_parameter, "the parameter decoder.0.b is not finite"),
        (break_layer, r"encoder\.2, Linear\(8, 4\), is the first that is not finite"),
        (break_draw, "the draw z"),
    ],
)
def test_a_loss_that_is_not_finite_ends_training_and_names_step_and_layer(
    rng, seed, break_it, where
):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(1)
    break_it(trainer.model)
    before = trainer.model.params.value.copy()
    with pytest.raises(sv.NonFiniteError, match=rf"^step 5 \(epoch 2\): .*{where}"):
        trainer.run(2)
    np.testing.assert_array_equal(trainer.model.params.value, before)  # NaN equals NaN here


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_found(rng, seed, monkeypatch):
    trainer = make_trainer(make_dataset(rng), seed)
    original = trainer.model.loss_and_grad

    def poisoned(x, eps=None):
        terms = original(x, eps)
        trainer.model.params["encoder.0.b"].grad[0] = np.inf
        return terms

    monkeypatch.setattr(trainer.model, "loss_and_grad", poisoned)
    with pytest.raises(sv.NonFiniteError, match=r"the gradient of encoder\.0\.b is the first"):
        trainer.run(1)


def test_the_test_loss_is_the_same_number_that_evaluation_gives(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed, seed=seed, binarize="dynamic")
    trainer.run(1)
    assert float(trainer.test_terms().loss) == trainer.metrics[-1]["test_loss"]


def test_the_streams_of_a_seed_have_nothing_in_common(rng, seed, monkeypatch):
    """[s], [s, 0] and s give NumPy's generator the same stream: noise would repeat the weights."""
    seen = []
    default_rng = np.random.default_rng

    def spy(source=None):
        if not isinstance(source, np.random.Generator):
            seen.append(float(default_rng(source).random()))
        return default_rng(source)

    monkeypatch.setattr(np.random, "default_rng", spy)
    make_trainer(make_dataset(rng), seed, seed=seed, binarize="dynamic").run(1)
    # weights, order, test noise, and the test pixels, which are drawn alike for two purposes
    assert len(seen) == 5
    assert len(set(seen)) == 4


def test_a_beta_schedule_leaves_beta_alone_until_a_step_is_made(rng, seed):
    """A trainer that only evaluates has the model's own beta."""
    trainer = make_trainer(make_dataset(rng), seed, beta_schedule=sv.warm_up(3.0, 1.5))
    assert trainer.model.beta == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": 0.1}, "schedule is 0.1: expected a function of the time in epochs, such as"),
        ({"beta_schedule": "cosine"}, "beta_schedule is 'cosine': expected a function of the time"),
        ({"seed": -1}, "seed is -1: expected 0 or a larger integer"),
        ({"seed": 1.5}, "seed is 1.5: expected 0 or a larger integer"),
        ({"seed": None}, "seed is None: expected 0 or a larger integer"),
    ],
)
def test_unusable_options_are_named(rng, seed, options, message):
    with pytest.raises(sv.InputError, match=f"^{message}"):
        make_trainer(make_dataset(rng), seed, **options)


@pytest.mark.parametrize("epochs", ["3", float("nan"), -1, 2.5, None, True, 10**400])
def test_what_is_no_number_of_epochs_is_refused(rng, seed, epochs):
    trainer = make_trainer(make_dataset(rng), seed)
    with pytest.raises(sv.InputError, match=r"^epochs is .*: expected a positive integer"):
        trainer.run(epochs)
    trainer.run(0)
    assert (trainer.epoch, trainer.batch) == (0, 0)


def test_what_is_no_model_is_refused(rng, seed):
    model = sv.VAE(6, hidden=(), latent_dim=2, rng=seed)
    with pytest.raises(sv.InputError, match=r"model is None: expected one such as sv\.VAE\(784\)"):
        Trainer(None, sv.Adam(model.params), make_dataset(rng))


@pytest.mark.parametrize("other", ["batch_size", "seed", "binarize", "examples"])
def test_a_state_is_not_restored_where_the_next_batch_would_be_another(rng, seed, other):
    """With larger batches the epoch might never end, with other ones it would be a mixture."""
    dataset = make_dataset(rng)
    stopped = make_trainer(dataset, seed)
    stopped.run(1, on_step=lambda terms: setattr(stopped, "stop", True))
    state = stopped.state()
    resumed = make_trainer(dataset, seed, seed=1 if other == "seed" else 0)
    if other == "batch_size":
        resumed.batch_size = 100
    if other == "binarize":
        resumed.binarize = "dynamic"
    if other == "examples":
        resumed = make_trainer(Dataset.from_arrays(dataset.train[:40]), seed)
    with pytest.raises(sv.InputError, match=f"^here: made with another configuration: {other} was"):
        resumed.restore(*state, "here")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (sv.VAE, {"activation": "tanh"}, "activation was 'relu', and is 'tanh' in the model"),
        (sv.VAE, {"likelihood": "gaussian"}, "likelihood was 'bernoulli', and is 'gaussian' in "),
        (sv.IWAE, {"samples": 2}, "class was 'VAE', and is 'IWAE' in the model"),
    ],
)
def test_a_state_of_another_model_is_refused_though_its_arrays_fit(
    rng, seed, kind, options, message
):
    def trainer(kind, **options):
        model = kind(6, (8,), 2, rng=seed, **options)
        return Trainer(model, sv.Adam(model.params, 0.01), dataset, batch_size=16)

    dataset = make_dataset(rng)
    stopped, other = trainer(sv.VAE), trainer(kind, **options)
    stopped.run(1)
    before = other.model.params.value.copy()
    with pytest.raises(sv.InputError) as error:
        other.restore(*stopped.state(), "here")
    assert str(error.value).startswith(f"here: made with another configuration: {message}")
    np.testing.assert_array_equal(other.model.params.value, before)
    again = trainer(sv.VAE, beta=0.5)  # which may change from one training to the next
    again.restore(*stopped.state(), "here")
    np.testing.assert_array_equal(again.model.params.value, stopped.model.params.value)


def test_a_state_of_a_model_with_other_parts_is_refused_though_its_arrays_fit(rng, seed, tmp_path):
    class Applied:
        """A function as a layer, which shows itself with its address in the memory."""

        def __init__(self, f):
            self.f = f

        def forward(self, x):
            return self.f(x), x

        def backward(self, dy, x):
            return dy

        def __repr__(self):
            return f"Applied({self.f!r})"

    def identity(x):
        return x.copy()

    def other(x):
        return x.copy()

    def trainer(f):
        encoder = sv.Sequential([sv.Linear(6, 4, rng=seed), Applied(f)])
        model = sv.VAE(6, latent_dim=2, rng=seed, encoder=encoder)
        return Trainer(model, sv.Adam(model.params, 0.01), dataset, batch_size=16)

    dataset = make_dataset(rng)
    stopped, path = trainer(identity), tmp_path / "state.safetensors"
    stopped.run(1)
    checkpoint.save(path, *stopped.state())
    with pytest.raises(sv.InputError, match=r"encoder was 'Seq.*identity>\)\]\)', and is .*other>"):
        trainer(other).restore(*checkpoint.load(path), path)

    def elsewhere(x):  # as the same function is in another process
        return x.copy()

    elsewhere.__qualname__ = identity.__qualname__
    resumed = trainer(elsewhere)
    resumed.restore(*checkpoint.load(path), path)
    np.testing.assert_array_equal(resumed.model.params.value, stopped.model.params.value)


def test_a_state_of_the_first_version_is_restored(rng, seed):
    dataset = make_dataset(rng)
    stopped, resumed = make_trainer(dataset, seed), make_trainer(dataset, seed)
    stopped.run(1)
    arrays, values = stopped.state()
    for name in "batch_size", "examples", "seed", "binarize", "model", "optimizer":
        del values[name]
    resumed.restore(arrays, values, "here")
    np.testing.assert_array_equal(resumed.model.params.value, stopped.model.params.value)


def test_a_batch_size_set_by_hand_holds_from_the_next_step_on(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(1)
    assert trainer.optimizer.steps == 4  # of 16, 16, 16 and 2 examples
    trainer.batch_size = 10
    trainer.run(2)
    assert trainer.optimizer.steps == 4 + 5
    trainer.batch_size = 0
    with pytest.raises(sv.InputError, match=r"^batch_size is 0: expected a positive integer$"):
        trainer.run(3)


def test_a_bar_shows_how_far_a_run_is_and_changes_nothing(rng, seed, capsys):
    dataset = make_dataset(rng)
    silent, shown = make_trainer(dataset, seed), make_trainer(dataset, seed)
    silent.run(2)
    assert capsys.readouterr().err == ""
    losses, epochs = [], []
    shown.run(1)
    shown.run(2, losses.append, epochs.append, progress=True)
    bar = capsys.readouterr().err
    assert f"{shown.batches_per_epoch}/{2 * shown.batches_per_epoch} [" in bar  # it goes on
    assert f"{2 * shown.batches_per_epoch}/{2 * shown.batches_per_epoch} [" in bar
    assert f"test loss {shown.metrics[1]['test_loss']:.2f}" in bar
    assert (len(losses), epochs) == (shown.batches_per_epoch, shown.metrics[1:])
    np.testing.assert_array_equal(shown.model.params.value, silent.model.params.value)


def test_in_a_notebook_a_trainer_is_a_table_of_its_last_epochs(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    assert trainer._repr_html_().count("<td>") == 0
    trainer.run(12)
    html = trainer._repr_html_()
    assert "epoch=12" in html
    assert "<th>test loss</th>" in html
    assert html.count("<tr>") == 1 + 10
    last = trainer.metrics[-1]
    assert f"<td>12</td><td>{last['train_loss']:.2f}</td>" in html


@pytest.mark.parametrize("name", ["on_step", "on_epoch"])
def test_a_callback_that_is_no_function_is_refused_at_once(rng, seed, name):
    trainer = make_trainer(make_dataset(rng), seed)
    with pytest.raises(sv.InputError, match=f"^{name} is 3: expected a function$"):
        trainer.run(1, **{name: 3})
    assert (trainer.epoch, trainer.batch) == (0, 0)


def test_without_a_schedule_the_rate_is_the_optimizers_own(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.run(1)
    trainer.optimizer.lr, before = 0.0, trainer.model.params.value.copy()
    rates = []
    trainer.run(2, on_step=lambda terms: rates.append(trainer.optimizer.lr))
    assert set(rates) == {0.0}
    assert trainer._of_all_ranks(2)["lr"] == 0.0
    np.testing.assert_array_equal(trainer.model.params.value, before)


def test_a_rate_set_by_hand_is_gone_on_with(rng, seed):
    dataset = make_dataset(rng)
    whole, stopped, resumed = (make_trainer(dataset, seed) for _ in range(3))
    for trainer in whole, stopped:
        trainer.run(1)
        trainer.optimizer.lr = 1e-3
        trainer.run(2)
    resumed.restore(*stopped.state(), "here")
    assert resumed.optimizer.lr == 1e-3
    for trainer in whole, resumed:
        trainer.run(3)
    np.testing.assert_array_equal(whole.model.params.value, resumed.model.params.value)
    scheduled = make_trainer(dataset, seed, schedule=sv.constant(0.5))
    scheduled.restore(*stopped.state(), "here")
    assert scheduled.optimizer.lr == 1e-3  # until its schedule says what


@pytest.mark.parametrize(
    ("kind", "options", "changed"),
    [
        (sv.VAE, {}, {"beta": 0.25, "free_bits": 0.5}),
        (sv.IWAE, {"samples": 2}, {"samples": 3, "gradient": "dreg"}),
    ],
)
def test_what_is_set_by_hand_in_the_model_is_gone_on_with(rng, seed, kind, options, changed):
    dataset = make_dataset(rng)

    def build():
        model = kind(6, (8,), 2, rng=seed, **options)
        return Trainer(model, sv.Adam(model.params, 0.01), dataset, batch_size=16)

    whole, stopped, resumed = build(), build(), build()
    for trainer in whole, stopped:
        trainer.run(1)
        for name, value in changed.items():
            setattr(trainer.model, name, value)
    resumed.restore(*stopped.state(), "here")
    assert {name: getattr(resumed.model, name) for name in changed} == changed
    for trainer in whole, resumed:
        trainer.run(3)
    np.testing.assert_array_equal(whole.model.params.value, resumed.model.params.value)


def one_that_goes_on_and_one_from_a_file(build, path, change=lambda trainer: None):
    """Return a trainer after one epoch, and another that a file has brought as far."""
    whole, stopped, resumed = build(), build(), build()
    for trainer in whole, stopped:
        trainer.run(1)
        change(trainer)
    checkpoint.save(path, *stopped.state())
    resumed.restore(*checkpoint.load(path), path)
    return whole, resumed


class Counts(sv.VAE):
    """Warms beta up by a count of its own, and cools a temperature, of a NumPy type."""

    batches, heat, pair, name = 0, np.float32(3), (1, 2.0), "a"
    variance = 1.0  # a name that `config` has too, for an option of the likelihood
    _hidden = nothing_yet = None

    def loss_and_grad(self, x, eps=None, batch_size=None):
        self.batches += 1
        self.heat = self.heat * np.float32(0.9)
        self.pair, self.name = (self.batches, self.pair[1] / 2), self.name + "b"
        self.variance, self.nothing_yet = np.float64(0.9) * self.variance, np.float64(0.5)
        self._hidden = [(self.batches, np.float32(0.5)), "c"]
        self.beta = float(self.heat) * min(1, self.batches / 7) + self.pair[1] + self.variance
        return super().loss_and_grad(x, eps, batch_size)


def test_the_numbers_of_a_class_of_ones_own_are_gone_on_with(rng, seed, tmp_path):
    dataset = make_dataset(rng)

    def build():
        model = Counts(6, (8,), 2, rng=seed)
        return Trainer(model, sv.Adam(model.params, 0.01), dataset, batch_size=16)

    def change(trainer):
        trainer.model.of_a_callback = [True, 2.5]

    path = tmp_path / "state.safetensors"
    whole, resumed = one_that_goes_on_and_one_from_a_file(build, path, change)
    assert resumed.model.own_numbers() == whole.model.own_numbers()
    assert isinstance(resumed.model.heat, np.float32)  # whose products are float32 too
    assert isinstance(resumed.model.nothing_yet, np.float64)
    assert isinstance(resumed.model._hidden[0], tuple)
    for trainer in whole, resumed:
        trainer.run(3)
    np.testing.assert_array_equal(whole.model.params.value, resumed.model.params.value)
    assert whole.model.own_numbers() == resumed.model.own_numbers()


def test_the_numbers_of_ones_own_are_those_of_then_again(rng, seed):
    """Of the class where the object had none, and lists as they were, whatever became of them."""
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.model.history = [1.0, [2]]
    type(trainer.model).only_of_the_class = 3
    try:
        state = trainer.state()
        trainer.model.only_of_the_class, trainer.model.history[1][0] = 4, 5
        trainer.model.history.append(6)
        trainer.restore(*state, "here")
        assert (trainer.model.only_of_the_class, trainer.model.history) == (3, [1.0, [2]])
        trainer.model.history.append(7)
        assert state[1]["numbers"]["history"] == [1.0, [2]]
    finally:
        del type(trainer.model).only_of_the_class


class Noisy(sv.VAE):
    """Draws in a formula, from the model's generator and from its likelihood's own, and counts."""

    calls = 0

    def nll(self, x, output):
        self.calls += 1
        noise = self.rng.uniform(-0.1, 0.1, x.shape) + self.likelihood.rng.uniform(-0.1, 0.1)
        return super().nll(np.clip(x + noise, 0, 1).astype(x.dtype), output)

    def reparameterize(self, mu, logvar, eps):
        return super().reparameterize(mu, logvar, eps * self.rng.uniform(0.9, 1.1))

    def decoder_input(self, z, x):
        return z * (self.rng.random(z.shape) < 0.9)


class Drawing(sv.likelihoods.Bernoulli):
    def __init__(self, n):
        super().__init__(n)
        self.rng = np.random.default_rng(0)

    def nll(self, x, output):
        self.rng.random()
        return sv.likelihoods.Bernoulli.nll(x, output)


def test_the_trial_of_formulas_moves_no_state(rng, seed):
    """So a run in two calls is that in one, and building a model draws nothing."""
    x, found = rng.random((64, 6)), []
    for epochs in (4,), (2, 4):
        model = Noisy(6, (8,), 2, likelihood=Drawing(6), rng=seed)
        fresh = np.random.default_rng(0).bit_generator.state
        assert model.likelihood.rng.bit_generator.state == fresh
        trainer = Trainer(model, sv.Adam(model.params, 0.01), x, batch_size=16)
        for n in epochs:
            trainer.run(n)
        found.append((model.params.value.copy(), model.calls))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


class DrawnKL(sv.VAE):
    """Its KL is estimated at a draw of its own, from a generator that it knows by name."""

    def __init__(self, *args, **options):
        self.generator = lambda: options["rng"]  # a copy of the model has the same one
        super().__init__(*args, **options)

    def kl(self, mu, logvar):
        e = self.generator().standard_normal(mu.shape).astype(mu.dtype)
        sigma = np.exp(logvar / 2)
        z = mu + sigma * e
        return 0.5 * (z * z - e * e - logvar).sum(axis=-1), (z, e, sigma)

    def kl_backward(self, dkl, cache):
        z, e, sigma = cache
        return dkl[:, None] * z, dkl[:, None] * 0.5 * (z * e * sigma - 1)


class DrawnKLThatHasNoCopy(DrawnKL):
    """It draws from its own generator, and holds what cannot be copied, as an open file."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.generator, self.lock = lambda: self.rng, threading.Lock()


class Capacity(sv.VAE):
    capacity = 0.3


@pytest.mark.parametrize("of_trainer", [False, True])
def test_a_model_is_loaded_with_the_numbers_of_its_class(rng, seed, tmp_path, of_trainer):
    model, path = Capacity(6, (8,), 2, rng=seed), tmp_path / "model.safetensors"
    model.capacity = 0.7
    if of_trainer:
        trainer = Trainer(model, sv.Adam(model.params), make_dataset(rng))
        arrays, values = trainer.state()
        checkpoint.save(path, arrays, values | {"config": {"model": values["model"]}})
    else:
        model.save(path)
    other = sv.load(path, into=Capacity(6, (8,), 2, beta=2, rng=0))
    assert (other.capacity, other.beta) == (0.7, 2)
    np.testing.assert_array_equal(other.params.value, model.params.value)


@pytest.mark.parametrize("kind", [DrawnKL, DrawnKLThatHasNoCopy])
def test_no_trial_draws_from_the_models_generator(rng, seed, kind):
    x, found = rng.random((64, 6)), []
    for epochs in (4,), (2, 4):
        generator = np.random.default_rng(seed)
        before = generator.bit_generator.state
        encoder, decoder = sv.layers.dense([6, 4], rng=0), sv.layers.dense([2, 6], rng=0)
        model = kind(6, latent_dim=2, encoder=encoder, decoder=decoder, rng=generator)
        parallel.adds_up(model)
        assert generator.bit_generator.state == before
        trainer = Trainer(model, sv.Adam(model.params, 0.01), x, batch_size=16)
        for n in epochs:
            trainer.run(n)
        found.append(model.params.value.copy())
    np.testing.assert_array_equal(*found)


def test_an_error_of_ones_own_options_changes_nothing(rng, seed):
    class Strict(sv.Adam):
        decay = 0.1

        def check_options(self):
            super().check_options()
            if self.decay > 0.5:
                raise ValueError("decay")

    model = sv.VAE(6, (8,), 2, rng=seed)
    trainer = Trainer(model, Strict(model.params), make_dataset(rng))
    arrays, values = trainer.state()
    values["optimizer"] |= {"decay": 0.9, "eps": 0.5}
    with pytest.raises(ValueError, match=r"^decay$"):
        trainer.restore(arrays, values, "here")
    assert (trainer.optimizer.decay, trainer.optimizer.eps) == (0.1, 1e-8)


def test_numbers_of_a_file_take_the_place_of_numbers_alone(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    arrays, values = trainer.state()
    assert values["numbers"] == {}
    damaged = {"encoder": 3, "forward": 3, "_layers": 3, "data_dim": 5, "rng": 1, "own": 4}
    before = vars(trainer.model).copy()
    trainer.restore(arrays, values | {"numbers": damaged}, "here")
    assert vars(trainer.model) == before | {"own": 4}


class Wide(sv.VAE):
    extra = 0

    def widths(self):
        return {part: (n + self.extra, m) for part, (n, m) in super().widths().items()}


def test_numbers_that_the_parts_do_not_fit_change_nothing(rng, seed):
    model = Wide(6, (8,), 2, rng=seed)
    trainer = Trainer(model, sv.Adam(model.params), make_dataset(rng))
    arrays, values = trainer.state()
    before = vars(model).copy()
    with pytest.raises(sv.InputError, match="here: not the state of a run: the widths of the part"):
        trainer.restore(arrays, values | {"numbers": {"new": 1, "extra": 1}}, "here")
    assert vars(model) == before


class Forgetful(sv.optimizers.Optimizer):
    """Keeps what its steps change beside its state, and a mask that stays as it is."""

    def __init__(self, params, lr, changing):
        super().__init__(params, lr, ())
        self.mask, self.rule, self.kept = np.ones(params.value.shape), lambda g: g, changing

    def _move(self):
        if isinstance(self.kept, np.random.Generator):
            self.kept.random()
        elif isinstance(self.kept, list):
            self.kept = [np.ones(self.steps)]
        else:
            self.kept = self.kept * 0.5


@pytest.mark.parametrize("changing", [np.ones(3), [], np.random.default_rng(0), 2.0, np.float32(2)])
def test_what_an_optimizer_keeps_in_no_file_is_told(rng, seed, changing):
    model = sv.VAE(6, (8,), 2, rng=seed)
    optimizer = Forgetful(model.params, 0.01, changing)
    trainer = Trainer(model, optimizer, make_dataset(rng), batch_size=16)
    trainer.state()  # nothing has changed
    trainer.run(1)
    if isinstance(changing, float | np.float32):  # a number, which a file holds
        _, values = trainer.state()
        assert values["optimizer"] == {"kept": checkpoint.packed(optimizer.kept)}
        return
    with pytest.warns(sv.errors.InputWarning) as caught:
        trainer.state()
    assert [str(w.message) for w in caught] == [
        "Forgetful has changed its kept, which no checkpoint holds, so a run that is resumed from "
        "here goes another way: keep it in the optimizer's `state`, as an array of the length of "
        "params.value, or as a number"
    ]


class Normalised(sv.optimizers.Optimizer):
    """Divides by a running mean of the norm, which begins with the first step, and decays."""

    decay = 0.5

    def __init__(self, params, lr):
        super().__init__(params, lr, ())
        self.norm, self.groups = None, {name: (params[name], 1.0) for name in params}

    def _move(self):
        norm = np.linalg.norm(self.params.grad)
        self.norm = norm if self.norm is None else 0.9 * self.norm + 0.1 * norm
        self.decay, self.made_later = self.decay * 0.9, self.steps
        self.params.value -= self.lr / self.norm * (self.params.grad + self.decay)


def test_numbers_that_an_optimizer_makes_later_are_gone_on_with(rng, seed, tmp_path):
    dataset = make_dataset(rng)

    def build():
        model = sv.VAE(6, (8,), 2, rng=seed)
        return Trainer(model, Normalised(model.params, 0.01), dataset, batch_size=16)

    path = tmp_path / "state.safetensors"  # written without a warning of parameters: it has those
    whole, resumed = one_that_goes_on_and_one_from_a_file(build, path)
    for trainer in whole, resumed:
        trainer.run(3)
    np.testing.assert_array_equal(whole.model.params.value, resumed.model.params.value)
    assert whole.optimizer.options() == resumed.optimizer.options()


class Changing(sv.optimizers.Optimizer):
    """Does something to its state in its third step."""

    def __init__(self, params, change, names=("v",)):
        super().__init__(params, 0.01, names)
        self.change = change

    def _move(self):
        if self.steps == 3:
            self.change(self.state)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda state: state.update(v=np.float64(0.5) * state["v"]),
            "v was an array of float32 (170,) and is one of float64 (170,)",
        ),
        (
            lambda state: state.update(v=state["v"][:5]),
            "v was an array of float32 (170,) and is one of float32 (5,)",
        ),
        (lambda state: state.update(w=state["v"]), "w was made"),
        (lambda state: state.clear(), "v is gone"),
    ],
)
def test_a_state_that_no_checkpoint_could_give_back_is_refused(rng, seed, change, expected):
    model = sv.VAE(6, (8,), 2, rng=seed)
    trainer = Trainer(model, Changing(model.params, change), make_dataset(rng), batch_size=16)
    with pytest.raises(sv.InputError) as error:
        trainer.run(1)
    assert trainer.batch == 2
    assert str(error.value) == (
        f"the state of Changing has changed since training began: {expected}, and a checkpoint is "
        "resumed by an optimizer that has taken no step: expected arrays that the constructor "
        "makes, and that keep shape and dtype"
    )


@pytest.mark.parametrize("value", [0, [1.0], {"a": np.ones(3)}, np.int64(3), None])
def test_a_state_of_what_is_no_array_is_refused(rng, seed, value):
    model = sv.VAE(6, (8,), 2, rng=seed)
    optimizer = sv.Adam(model.params)
    optimizer.state["step"] = value
    with pytest.raises(sv.InputError) as error:
        Trainer(model, optimizer, make_dataset(rng))
    assert str(error.value) == (
        f"state['step'] of Adam is a {type(value).__name__}: expected an array; a number may be an "
        "attribute of the optimizer, which a checkpoint holds too"
    )


def test_a_state_that_a_callback_exchanged_is_refused_at_the_next_step(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)

    def reset(metrics):
        trainer.optimizer.state["m"] = np.zeros(trainer.model.params.value.shape)

    with pytest.raises(sv.InputError, match=r"^the state of Adam has .*: m was .* float64"):
        trainer.run(2, on_epoch=reset)
    assert (trainer.epoch, trainer.batch) == (1, 0)


def test_a_state_whose_names_are_no_words_is_refused(rng, seed):
    model = sv.VAE(6, (8,), 2, rng=seed)
    optimizer = sv.SGD(model.params, 0.01)
    optimizer.state = {0: np.zeros(3)}
    with pytest.raises(sv.InputError, match=r"^the state of SGD has the name 0: expected a string"):
        Trainer(model, optimizer, make_dataset(rng))


def test_an_optimizer_that_did_not_call_its_base_is_named(rng, seed):
    class Bare(sv.optimizers.Optimizer):
        def __init__(self, params):
            self.params, self.lr = params, 0.01

    model = sv.VAE(6, (8,), 2, rng=seed)
    with pytest.raises(sv.InputError, match=r"^Bare has no state: expected its __init__ to begin"):
        Trainer(model, Bare(model.params), make_dataset(rng))


def test_an_optimizers_attribute_that_hides_a_method_is_named(rng, seed):
    model = sv.VAE(6, (8,), 2, rng=seed)
    optimizer = sv.Adam(model.params)
    optimizer.options = {"warm": 3}
    with pytest.raises(sv.InputError, match=r"^the optimizer has set its options to .*: expected"):
        Trainer(model, optimizer, make_dataset(rng))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "complex64"])
def test_a_state_may_hold_what_has_no_subnormal_numbers(rng, seed, dtype):
    """They are looked for every 64 steps."""
    model = sv.VAE(6, (8,), 2, rng=seed)
    optimizer = Changing(model.params, lambda state: None)
    optimizer.state["own"] = np.ones(model.params.value.shape, dtype)
    Trainer(model, optimizer, make_dataset(rng), batch_size=1).run(2)
    assert optimizer.steps > 64


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_a_state_may_have_arrays_of_any_shape(rng, seed, shape, tmp_path):
    dataset = make_dataset(rng)

    def build():
        model = sv.VAE(6, (8,), 2, rng=seed)
        optimizer = Changing(model.params, lambda state: state["own"].fill(2))
        optimizer.state["own"] = np.zeros(shape, "int64")
        return Trainer(model, optimizer, dataset, batch_size=16)

    whole, resumed = one_that_goes_on_and_one_from_a_file(build, tmp_path / "state.safetensors")
    for trainer in whole, resumed:
        trainer.run(3)
        np.testing.assert_array_equal(trainer.optimizer.state["own"], np.full(shape, 2))


class Lookahead(sv.optimizers.Optimizer):
    """Leaves the steps to an optimizer that it holds, whose state is its own too."""

    def __init__(self, params, inner):
        super().__init__(params, 0.01, ())
        self.inner, self.state = inner, inner.state

    def _move(self):
        self.inner.steps = self.steps - 1
        self.inner.step()


def test_what_is_in_the_state_may_be_held_elsewhere_too(rng, seed):
    model = sv.VAE(6, (8,), 2, rng=seed)
    optimizer = Lookahead(model.params, sv.SGD(model.params, 0.01, momentum=0.5))
    trainer = Trainer(model, optimizer, make_dataset(rng), batch_size=16)
    trainer.run(1)
    with pytest.warns(sv.errors.InputWarning, match="Lookahead has changed its inner"):
        trainer.state()  # its steps are in no file
    held = optimizer.unsaved()
    optimizer.state["velocity"] += 1
    assert optimizer.unsaved() == held


def test_another_optimizer_has_not_changed_what_it_keeps(rng, seed):
    trainer = make_trainer(make_dataset(rng), seed)
    trainer.optimizer = Forgetful(trainer.model.params, 0.01, np.ones(3))
    trainer.state()


class Signed(sv.optimizers.Optimizer):
    """Steps of one length, by the sign of the gradient."""

    def __init__(self, params, lr, every=1):
        super().__init__(params, lr, ())
        self.every, self.mask, self.pair = every, np.ones(2), (np.ones(2),)

    def _move(self):
        if self.steps % self.every == 0:
            self.params.value -= self.lr * np.sign(self.params.grad)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (sv.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
        (sv.SGD, {"momentum": 0.5}),
        (Signed, {"every": 2}),
    ],
)
def test_what_is_set_by_hand_in_the_optimizer_is_gone_on_with(rng, seed, kind, changed, tmp_path):
    dataset = make_dataset(rng)

    def build():
        model = sv.VAE(6, (8,), 2, rng=seed)
        return Trainer(model, kind(model.params, 0.001), dataset, batch_size=16)

    whole, resumed = one_that_goes_on_and_one_from_a_file(
        build,
        tmp_path / "state.safetensors",
        lambda trainer: vars(trainer.optimizer).update(changed),
    )
    assert {name: getattr(resumed.optimizer, name) for name in changed} == changed
    for trainer in whole, resumed:
        trainer.run(3)
    np.testing.assert_array_equal(whole.model.params.value, resumed.model.params.value)


@pytest.mark.parametrize(
    "options",
    [
        {"betas": [2.0, 0.9]},
        {"betas": None},
        {"eps": True},
        {"eps": "x"},
        {"betas": [0.5, 0.5], "eps": 0},
    ],
)
def test_numbers_of_the_optimizer_that_are_none_are_refused_with_the_state(rng, seed, options):
    dataset = make_dataset(rng)
    arrays, values = make_trainer(dataset, seed).state()
    trainer = make_trainer(dataset, seed)
    before = trainer.model.params.value.copy()
    with pytest.raises(
        sv.InputError, match=r"^here: not the state of a run: (betas|eps) is .*: exp"
    ):
        trainer.restore(arrays, values | {"optimizer": options}, "here")
    assert (trainer.optimizer.betas, trainer.optimizer.eps) == ((0.9, 0.999), 1e-8)
    np.testing.assert_array_equal(trainer.model.params.value, before)


@pytest.mark.parametrize("beta", [None, "x", -1.0, [0.1]])
def test_a_beta_that_is_none_is_refused_with_the_state(rng, seed, beta):
    dataset = make_dataset(rng)
    arrays, values = make_trainer(dataset, seed).state()
    trainer = make_trainer(dataset, seed)
    trainer.model.beta = 0.5
    values["model"]["beta"] = beta
    values["optimizer"]["eps"] = 0.5
    before = trainer.model.params.value.copy()
    with pytest.raises(sv.InputError, match=r"^here: not the state of a run: beta is .*: expected"):
        trainer.restore(arrays, values, "here")
    assert (trainer.model.beta, trainer.optimizer.eps) == (0.5, 1e-8)
    np.testing.assert_array_equal(trainer.model.params.value, before)


def test_a_state_that_does_not_fit_leaves_the_models_options(rng, seed):
    dataset = make_dataset(rng)
    arrays, values = make_trainer(dataset, seed).state()
    trainer = make_trainer(dataset, seed)
    trainer.model.beta = 0.5
    arrays["encoder.0.W"][0] = np.nan
    with pytest.raises(sv.InputError, match=r"encoder\.0\.W holds NaN or infinity"):
        trainer.restore(arrays, values, "here")
    assert trainer.model.beta == 0.5


@pytest.mark.parametrize("lr", [None, "x", -1.0, [0.1]])
def test_a_rate_that_is_none_is_refused_with_the_state(rng, seed, lr):
    dataset = make_dataset(rng)
    arrays, values = make_trainer(dataset, seed).state()
    trainer = make_trainer(dataset, seed)
    with pytest.raises(sv.InputError, match=r"^here: not the state of a run: its lr is .*: exp"):
        trainer.restore(arrays, values | {"lr": lr}, "here")
    assert trainer.optimizer.lr == 0.01


@pytest.mark.parametrize("words", [None, 3, ["Sequential"]])
def test_parts_in_words_that_are_none_are_refused(rng, seed, words):
    dataset = make_dataset(rng)
    arrays, values = make_trainer(dataset, seed).state()
    values["model"]["likelihood"] = words
    with pytest.raises(sv.InputError, match=r"^here: made with another configuration: likelihood"):
        make_trainer(dataset, seed).restore(arrays, values, "here")


BIT_GENERATORS = [np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM]


@pytest.mark.parametrize("kind", BIT_GENERATORS)
def test_any_generator_of_numpys_is_gone_on_with(kind, rng, seed, tmp_path):
    """Some keep arrays in their state, which JSON has not."""
    dataset = make_dataset(rng)

    def build():
        model = sv.VAE(6, hidden=(8,), latent_dim=2, rng=np.random.Generator(kind(seed)))
        return Trainer(model, sv.Adam(model.params, 0.01), dataset, batch_size=16)

    whole, stopped, resumed = build(), build(), build()
    whole.run(2)
    stopped.run(1)
    checkpoint.save(tmp_path / "t.safetensors", *stopped.state())
    resumed.restore(*checkpoint.load(tmp_path / "t.safetensors"), "here")
    resumed.run(2)
    np.testing.assert_array_equal(whole.model.params.value, resumed.model.params.value)
    assert whole.model.rng.random() == resumed.model.rng.random()


def test_numbers_that_a_callback_adds_are_kept(rng, seed, tmp_path):
    trainer = make_trainer(make_dataset(rng), seed)

    def add(metrics):
        metrics["active"] = (np.ones(3) > 0).sum()  # NumPy's int64
        metrics |= {"share": np.float32(0.5), "all": True, "n": 3}

    trainer.run(1, on_epoch=add)
    checkpoint.save(tmp_path / "t.safetensors", *trainer.state())
    again = make_trainer(trainer.dataset, seed)
    again.restore(*checkpoint.load(tmp_path / "t.safetensors"), "here")
    assert again.metrics == trainer.metrics
    assert [again.metrics[0][k] for k in ("active", "share", "all", "n")] == [3, 0.5, 1, 3]


@pytest.mark.parametrize("value", [np.nan, "good", [1, 2], None])
def test_what_a_file_could_not_hold_is_refused_in_the_first_epoch(rng, seed, value):
    trainer = make_trainer(make_dataset(rng), seed)
    with pytest.raises(sv.InputError, match=r"^on_epoch leaves mine = .* in the metrics: exp"):
        trainer.run(5, on_epoch=lambda metrics: metrics.update(mine=value))
    assert trainer.epoch == 1
