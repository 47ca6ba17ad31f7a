"""Training on many ranks reaches what one process does. The ranks here are threads, see ranks.py.

That MPI's own ranks do: test_distributed_mpi.py.
"""

import os
import subprocess
import sys
import time
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import standin
from ranks import Communicator, all_well, on_ranks
from threadpoolctl import threadpool_info, threadpool_limits

import scratchvae as sv
from scratchvae import cli, distributed
from scratchvae.backend import asnumpy
from scratchvae.checkpoint import load
from scratchvae.datasets import Dataset
from scratchvae.distributed import AgreedError, Ranks
from scratchvae.errors import NonFiniteError, RanksDifferError
from scratchvae.run import LAST, METRICS
from scratchvae.training import Trainer

N = 53  # examples: a prime, so that no batch and no number of ranks divides it


@pytest.fixture
def seed(rng):
    return int(rng.integers(2**32))


@pytest.fixture
def dataset(rng):
    images = rng.integers(0, 256, (N, 12), dtype=np.uint8)
    labels = np.arange(N) % 3
    return Dataset("random", images, images[:9], labels, labels[:9], 255.0, (3, 4))


def trainer(dataset, seed, comm=None, *, shards=0, kind=sv.VAE, dtype="float64", **options):
    """Return a trainer whose batches have 17 rows, the last one 2: fewer than 4 ranks."""
    names = "samples", "classes", "backend", "activation", "likelihood", "beta", "free_bits"
    of_model = {k: options.pop(k) for k in names if k in options}
    model = kind(12, (9,), 3, dtype=dtype, rng=seed, **of_model)
    how = {"batch_size": 17, "seed": seed, "comm": comm, "shards": shards}
    return Trainer(model, sv.Adam(model.params, 1e-2), dataset, **(how | options))


def trained(*args, epochs=2, **options):
    """Return the parameters after training, and the metrics without the seconds."""
    t = trainer(*args, **options)
    t.run(epochs)
    metrics = [{k: v for k, v in line.items() if k != "seconds"} for line in t.metrics]
    return asnumpy(t.model.params.value).copy(), metrics


KINDS = [
    {},
    {"dtype": "float32"},
    {"kind": sv.Autoencoder},
    {"kind": sv.IWAE, "samples": 3},  # whose noise is (K, B, Z)
    {"kind": sv.ConditionalVAE, "classes": 3},
    {"binarize": "dynamic"},  # draws for every pixel
]


@pytest.mark.parametrize("options", KINDS)
def test_shards_give_the_same_bits_on_every_number_of_ranks(options, dataset, seed):
    with threadpool_limits(1, "blas"):
        alone, metrics = trained(dataset, seed, shards=4, **options)
    for size in 1, 2, 4:
        for found, lines in all_well(
            on_ranks(size, lambda comm: trained(dataset, seed, comm, shards=4, **options))
        ):
            np.testing.assert_array_equal(found, alone)
            assert lines == metrics


@pytest.mark.parametrize("options", [k for k in KINDS if k.get("dtype") != "float32"])
@pytest.mark.parametrize("shards", [0, 12])
def test_ranks_train_as_one_process_does(shards, options, dataset, seed):
    alone, metrics = trained(dataset, seed, **options)
    for size in 2, 3, 4:
        results = all_well(
            on_ranks(size, lambda comm: trained(dataset, seed, comm, shards=shards, **options))
        )
        for found, lines in results:
            np.testing.assert_array_equal(found, results[0][0])
            # Sums of some dozen float64 numbers in another order, through eight steps of Adam,
            # which divides by a root of them: far below 1e-6, far above 1e-16.
            np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-9)
            for line, expected in zip(lines, metrics, strict=True):
                assert line == pytest.approx(expected, rel=1e-6)


def test_one_rank_and_none_are_the_same_bits_as_without_a_communicator(dataset, seed):
    """And take no collective at all."""
    alone, metrics = trained(dataset, seed)

    def one(comm):
        result = trained(dataset, seed, comm)
        assert comm.calls == []
        return result

    (found,) = all_well(on_ranks(1, one))
    np.testing.assert_array_equal(found[0], alone)
    assert found[1] == metrics


def test_a_shard_has_one_thread_of_blas(dataset, seed):
    def numbers():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    model = trainer(dataset, seed).model
    with threadpool_limits(2, "blas"):  # another number than 1, on any machine
        with Ranks(shards=4).in_parts(model, 17):
            assert numbers() == {1}
        assert numbers() == {2}


class Centred:
    """Subtracts the mean of the batch."""

    def forward(self, x):
        return x - x.mean(axis=0), None

    def backward(self, dy, cache):
        return dy - dy.mean(axis=0)


@pytest.mark.parametrize(("size", "shards"), [(2, 0), (1, 3)])
def test_a_model_whose_batches_are_no_sums_of_parts_is_refused(dataset, seed, size, shards):
    def refused(comm):
        encoder = sv.Sequential([Centred(), sv.Linear(12, 6, dtype="float64", rng=seed)])
        model = sv.VAE(12, latent_dim=3, dtype="float64", rng=seed, encoder=encoder)
        run = Trainer(model, sv.Adam(model.params), dataset, comm=comm, shards=shards)
        with pytest.raises(AgreedError) as error:
            run.run(1)
        return str(error.value)

    sentences = all_well(on_ranks(size, refused))
    assert sentences == size * [
        "the batches of this model cannot be shared out: the loss and gradient of a batch are not "
        "the sums of those of its parts, as where a layer normalises over the batch or draws "
        "random numbers of its own, or the gradient is clipped, or it holds what cannot be copied, "
        "such as an open file, or its loss_and_grad takes no batch_size; train it in one process, "
        "without shards"
    ]


@pytest.mark.parametrize("n", [1, 2, 7, 128, 1023])
def test_the_ranks_rows_are_the_batch_each_once_and_alike_in_number(n):
    for size in 1, 2, 3, 8:
        rows = [on_rank(r, size).rows(n) for r in range(size)]
        assert (rows[0].start, rows[-1].stop) == (0, n)
        assert all(a.stop == b.start for a, b in pairwise(rows))
        lengths = [r.stop - r.start for r in rows]
        assert max(lengths) - min(lengths) <= 1


def on_rank(rank, size):
    return Ranks(Communicator(rank, size, None, None))


def test_a_step_sends_the_gradient_once_and_a_few_numbers(dataset, seed):
    """Twice in the mode of shards: to be added, and as a sum; as an all-reduce does inside."""

    def calls(comm, shards):
        t, step = trainer(dataset, seed, comm, shards=shards), []

        def note(terms):
            step.append(list(comm.calls))

        t.run(1, on_step=note)
        first, second = step[:2]
        return second[len(first) :]

    for shards, expected in (
        (0, ["allgather", "Allreduce", "Allreduce"]),  # whether to stop; gradient; terms
        (4, ["allgather", "Alltoall", "Allgather", "Allgather"]),
    ):
        for found in all_well(on_ranks(2, lambda comm: calls(comm, shards))):  # noqa: B023
            assert found == expected


# --- stops and resumption


@pytest.mark.parametrize("shards", [0, 12])
def test_a_stop_on_one_rank_stops_all_and_any_number_of_ranks_goes_on(shards, dataset, seed, rng):
    whole, _ = trained(dataset, seed, epochs=3, shards=shards)
    states, sizes = None, [2, 1, 4, 3]
    for size in sizes:
        after, who = int(rng.integers(1, 4)), int(rng.integers(size))
        print(f"{size} ranks, rank {who} stops after {after} steps")

        def go_on(comm, state=states, after=after, who=who, last=size == sizes[-1]):
            t = trainer(dataset, seed, comm, shards=shards)
            if state is not None:
                t.restore(*state, "memory")
            steps = []

            def step(terms):
                steps.append(terms)
                t.stop = not last and comm.rank == who and len(steps) == after

            t.run(3, on_step=step)
            assert last or len(steps) == after
            return t.state()

        states = all_well(on_ranks(size, go_on))[0]
    arrays, values = states
    assert values["epoch"] == 3
    found = np.concatenate([a.ravel() for k, a in arrays.items() if k[:9] != "optimizer"])
    if shards:
        np.testing.assert_array_equal(found, whole)
    else:  # as above, in 12 steps
        np.testing.assert_allclose(found, whole, rtol=1e-6, atol=1e-9)


def test_a_signal_that_comes_while_the_ranks_are_asked_is_not_forgotten(dataset, seed):
    t = trainer(dataset, seed)
    asked = t.ranks.any

    def ask(*flags):
        answer = asked(*flags)
        t.stop = True  # as a handler does, at any moment
        return answer

    t.ranks.any = ask
    t.run(3)
    assert t.stop
    assert t.optimizer.steps == 0


def test_a_run_in_shards_does_not_go_on_in_another_number_of_them(dataset, seed):
    t = trainer(dataset, seed, shards=4)
    t.run(1)
    for shards in 0, 8:
        with pytest.raises(sv.InputError, match=f"shards was 4, and is {shards} here"):
            trainer(dataset, seed, shards=shards).restore(*t.state(), "memory")


# --- what differs between ranks


@pytest.mark.parametrize(
    "what",
    ["parameters", "optimizer's state", "random state", "lr", "optimizer.eps", "model.beta",
     "model.weight"],
)  # fmt: skip
def test_ranks_that_come_apart_end_the_run_on_all_of_them(what, dataset, seed):
    def run(comm):
        t = trainer(dataset, seed, comm)

        def spoil(terms):
            last = t.batch == t.batches_per_epoch  # so that no step follows, which would spread it
            if comm.rank == 1 and t.epoch == 1 and last:
                if what == "parameters":
                    t.model.params.value[3] = np.nextafter(t.model.params.value[3], 9)  # one bit
                elif what == "optimizer's state":
                    next(iter(t.optimizer.state.values()))[0] += 1e-12
                elif what == "random state":
                    t.model.sample(3)
                else:
                    owner = {"model": t.model}.get(what.split(".")[0], t.optimizer)
                    setattr(owner, what.split(".")[-1], 0.5)

        t.run(3, on_step=spoil)

    for error in on_ranks(3, run):
        assert isinstance(error, RanksDifferError)
        assert str(error) == (
            f"epoch 2: rank 0 no longer agrees with rank 1 on {what}; the cause may be what one "
            "rank alone did, as in a callback or a schedule, a fault of the memory or the network, "
            "or machines of different kinds"
        )


@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("when", ["on_step", "on_epoch"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 5), ("batch_size", 30), ("batch_size", 99), ("binarize", "threshold")],
)
def test_what_a_callback_changes_on_one_rank_ends_all(name, value, when, shards, dataset, seed):
    """With another size of the batches an epoch has fewer on one rank, or more."""
    steps = [0, 0]

    def run(comm):
        t = trainer(dataset, seed, comm, shards=shards)

        def change(_):
            if comm.rank == 1:
                setattr(t, name, value)

        def step(terms):
            steps[comm.rank] += 1
            if when == "on_step":
                change(terms)

        how = {"on_epoch": change} if when == "on_epoch" else {}
        t.run(3, on_step=step, **how)

    for error in on_ranks(2, run):
        assert isinstance(error, RanksDifferError)
        begin = "before epoch 2" if when == "on_epoch" else "epoch 1"
        assert str(error).startswith(f"{begin}: rank 0 no longer agrees with rank 1 on {name}")
    assert max(steps) <= 4  # those of the first epoch


def test_all_that_ranks_do_not_agree_on_any_more_is_named():
    def run(comm):
        held = {"parameters": comm.rank > 0, "lr": comm.rank == 2, "step": 4}
        Ranks(comm).require_same_state(lambda: held, "epoch 1")

    for error in on_ranks(3, run):
        assert "rank 0 no longer agrees with rank 1, 2 on parameters, lr;" in str(error)


def test_a_run_that_came_apart_leaves_its_last_good_epoch(dataset, seed, tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (40, 6), dtype=np.uint8))
    options = sv.run.Options(str(tmp_path / "x.npy"), hidden=(4,), epochs=3, batch_size=16)

    def run(comm):
        r = sv.run.new(options, tmp_path / "run", comm=comm)

        def spoil(terms):
            if comm.rank == 1 and r.trainer.epoch == 2:
                r.model.params.value[0] += 1

        r.train(on_step=spoil)

    first, second = on_ranks(2, run)
    assert isinstance(first, RanksDifferError)
    assert isinstance(second, RanksDifferError)
    assert str(first).endswith(f"{tmp_path / 'run' / LAST} is intact")
    assert load(tmp_path / "run" / LAST)[1]["epoch"] == 2


def other(train, test):
    return {"dataset": Dataset("other", train, test, None, None, 255.0, (3, 4))}


DIFFERENT = {
    "data": lambda d: other(d.train ^ 1, d.test),
    "seed": lambda d: {"seed": 99},
    "batch_size": lambda d: {"batch_size": 16},
    "shards": lambda d: {"shards": 8},
    "binarize": lambda d: {"binarize": "threshold"},
    "examples": lambda d: other(d.train[:50], d.test),
    "model.beta": lambda d: {"beta": 4.0},
    "model.free_bits": lambda d: {"free_bits": 0.5},
    "model.activation": lambda d: {"activation": "tanh"},
    "model.likelihood": lambda d: {"likelihood": "gaussian"},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_ranks_with_different_data_or_options_all_raise_the_same_sentence(what, dataset, seed):
    def run(comm):
        options = {"dataset": dataset, "seed": 5, "shards": 4, "batch_size": 17}
        t = trainer(comm=comm, **(options | (DIFFERENT[what](dataset) if comm.rank else {})))
        t.run(1)

    found = on_ranks(2, run)
    assert [type(error) for error in found] == [AgreedError] * 2
    assert len({str(error) for error in found}) == 1
    assert str(found[0]).startswith(f"rank 1 was given other values than rank 0: {what} is ")


GIVEN, NOT_GIVEN = "'given'", "'not given'"


@pytest.mark.parametrize(
    ("what", "change", "there", "here"),
    [
        (
            "beta_schedule",
            lambda t: setattr(t, "beta_schedule", sv.constant(4.0)),
            GIVEN,
            NOT_GIVEN,
        ),
        ("schedule", lambda t: setattr(t, "schedule", sv.constant(0.1)), GIVEN, NOT_GIVEN),
        ("model.beta", lambda t: setattr(t.model, "beta", 4.0), 4.0, 1.0),
        ("model.weight", lambda t: setattr(t.model, "weight", 2.0), 2.0, None),
        ("optimizer.eps", lambda t: setattr(t.optimizer, "eps", 0.1), 0.1, 1e-8),
        (
            "optimizer.betas",
            lambda t: setattr(t.optimizer, "betas", (0.9, 0.5)),
            (0.9, 0.5),
            (0.9, 0.999),
        ),
        (
            "model.many",
            lambda t: setattr(t.model, "many", [1.0] * 99),
            f"[{'1.0, ' * 5}1.0,...",
            None,
        ),
        ("lr", lambda t: setattr(t.optimizer, "lr", 0.1), 0.1, 0.01),
        ("step", lambda t: setattr(t.optimizer, "steps", 3), 3, 0),
    ],
)
def test_what_is_set_by_hand_on_one_rank_is_found(what, change, there, here, dataset, seed):
    """Where all ranks take the same gradient, their parameters would not tell of another beta."""

    def run(comm):
        t = trainer(dataset, seed, comm)
        if comm.rank:
            change(t)
        t.run(1)

    assert {str(error) for error in on_ranks(2, run)} == {
        f"rank 1 was given other values than rank 0: {what} is {there} there and {here} here; "
        "expected the same on each"
    }


def test_what_a_rank_has_for_itself_is_not_compared(dataset, seed):
    def run(comm):
        t = trainer(dataset, seed, comm)

        def add(terms):
            t.model._seconds += 0.1 * comm.rank
            t.optimizer._verbose = comm.rank == 0

        t.model._seconds = 0.0
        t.run(2, on_step=add)
        assert t.state()[1]["numbers"]["_seconds"] == t.model._seconds
        t.run(3)

    all_well(on_ranks(2, run))


@pytest.mark.parametrize(
    "change",
    [
        lambda t, r: setattr(t.optimizer, "lr", 1 if r else 1.0),
        lambda t, r: setattr(t.optimizer, "betas", [0.9, 0.999] if r else (0.9, 0.999)),
        lambda t, r: setattr(t.model, "own", np.float64(0.5) if r else 0.5),
        lambda t, r: setattr(t.model, "own", 1 if r else 1.0),
        lambda t, r: setattr(t.model, "own", [1, (2,)] if r else (1.0, [2])),
    ],
)
def test_equal_numbers_of_other_types_are_equal(change, dataset, seed):
    def run(comm):
        t = trainer(dataset, seed, comm)
        change(t, comm.rank)
        t.run(1)

    all_well(on_ranks(2, run))


class Counting:
    """Counts the rows that it has seen."""

    n = 0

    def forward(self, x):
        self.n += len(x)
        return x, None

    def backward(self, dy, cache):
        return dy

    def __repr__(self):
        return f"Counting(n={self.n})"


def trainer_with(layer, dataset, seed, comm):
    encoder = sv.Sequential([layer, sv.Linear(12, 6, dtype="float64", rng=seed)])
    model = sv.VAE(12, latent_dim=3, dtype="float64", rng=seed, encoder=encoder)
    return Trainer(model, sv.Adam(model.params), dataset, batch_size=17, comm=comm)


def test_a_layer_that_counts_may_train_on(dataset, seed):
    def run(comm):
        t = trainer_with(Counting(), dataset, seed, comm)
        t.run(1)
        t.run(2)
        return t.model.encoder.layers[0].n

    first, second = all_well(on_ranks(2, run))
    assert first != second


def test_layers_with_other_numbers_are_found_before_the_first_step(dataset, seed):
    def run(comm):
        layer = Counting()
        layer.n = comm.rank
        trainer_with(layer, dataset, seed, comm).run(1)

    for error in on_ranks(2, run):
        assert str(error).startswith("rank 1 was given other values than rank 0: model.encoder is ")


class Strided(sv.optimizers.Optimizer):
    """Keeps both of its vectors in one matrix."""

    def __init__(self, params, lr):
        super().__init__(params, lr, ())
        both = np.zeros((len(params.value), 2), params.value.dtype)
        self.state = {"m": both[:, 0], "v": both[:, 1]}

    def _move(self):
        self.state["m"] += self.params.grad
        self.params.value -= self.lr * self.state["m"]


def test_an_optimizer_whose_state_has_gaps_in_memory(dataset, seed):
    def run(comm=None):
        model = sv.VAE(12, (9,), 3, dtype="float64", rng=seed)
        t = Trainer(model, Strided(model.params, 1e-3), dataset, batch_size=17, comm=comm)
        t.run(2)
        return model.params.value

    alone = run()
    for found in all_well(on_ranks(2, run)):
        np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-9)  # as above


# --- schedules


def test_a_schedule_is_asked_as_often_as_in_one_process(dataset, seed):
    """One may count how often it is asked."""

    def run(comm=None):
        rates, betas = (iter(np.linspace(start, start / 9, 99)) for start in (1e-2, 1.0))
        t = trainer(dataset, seed, comm, schedule=lambda e: next(rates),
                    beta_schedule=lambda e: next(betas))  # fmt: skip
        used = []
        t.run(2, on_step=lambda terms: used.append((t.optimizer.lr, t.model.beta)))
        return used

    alone = run()
    assert all_well(on_ranks(2, run)) == [alone, alone]


def test_a_training_that_is_complete_asks_no_schedule(dataset, seed):
    def run(comm):
        t = trainer(dataset, seed, comm, schedule=lambda e: [1e-3, 1e-4][int(e)])
        t.run(2)
        t.run(2)

    all_well(on_ranks(2, run))


def test_schedules_that_differ_from_the_start_are_found_after_an_epoch(dataset, seed):
    """Also those of beta that agree by the epoch's last step: the gradients' sum is the same."""

    def run(comm, name, *schedules):
        t = trainer(dataset, seed, comm, **{name: schedules[comm.rank]})
        t.run(2)

    for name, schedules, what in (
        ("schedule", (sv.constant(0.1), sv.constant(0.2)), "lr, parameters, "),
        ("beta_schedule", (sv.warm_up(1.0, 0.3), sv.warm_up(1.0, 0.6)), ""),
    ):
        for error in on_ranks(2, lambda comm: run(comm, name, *schedules)):  # noqa: B023
            assert isinstance(error, RanksDifferError)
            assert str(error).startswith(
                f"epoch 1: rank 0 no longer agrees with rank 1 on {what}the lr or beta of a step; "
            )


def test_a_schedule_holds_on_ranks_that_began_with_other_betas(dataset, seed):
    options = {"dataset": dataset, "seed": seed, "beta_schedule": sv.warm_up(1.0, 2)}
    all_well(on_ranks(2, lambda comm: trainer(comm=comm, beta=1.0 + comm.rank, **options).run(1)))


def test_a_bar_is_shown_by_the_first_rank_alone(dataset, seed, monkeypatch):
    bars = []

    def bar(**options):
        bars.append(options)
        return MagicMock()

    monkeypatch.setattr("tqdm.auto.tqdm", bar)
    all_well(on_ranks(3, lambda comm: trainer(dataset, seed, comm).run(1, progress=True)))
    assert len(bars) == 1


def test_ranks_that_want_another_number_of_epochs_all_raise_the_same_sentence(dataset, seed):
    found = on_ranks(2, lambda comm: trainer(dataset, seed, comm).run(1 + comm.rank))
    assert {str(error) for error in found} == {
        "rank 1 was given other values than rank 0: epochs is 2 there and 1 here; expected the "
        "same on each"
    }


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(dataset, seed):
    def run(comm):
        class Model(sv.VAE):
            def loss_and_grad(self, *args, **options):
                terms = super().loss_and_grad(*args, **options)
                return terms._replace(loss=np.nan) if comm.rank == 1 else terms

        trainer(dataset, seed, comm, kind=Model).run(1)

    for error in on_ranks(2, run):
        assert isinstance(error, NonFiniteError)
        assert str(error).startswith("step 1 (epoch 1): ")


# --- arguments


def test_more_ranks_than_examples_are_refused(seed, rng):
    for error in on_ranks(4, lambda comm: trainer(rng.random((3, 12)), seed, comm)):
        assert str(error) == (
            "there are 4 ranks, and 2 training examples: a rank would have nothing to do, so start "
            "fewer"
        )


@pytest.mark.parametrize("shards", [-1, 1.5, True, "4", None])
def test_shards_are_a_number(shards, dataset, seed):
    with pytest.raises(sv.InputError, match=r"^shards is "):
        trainer(dataset, seed, shards=shards)


def test_shards_that_the_ranks_do_not_divide_are_refused(dataset, seed):
    for error in on_ranks(3, lambda comm: trainer(dataset, seed, comm, shards=4)):
        assert str(error) == "shards is 4, for 3 ranks: expected a number that 3 divides, or 0"


def test_what_is_no_communicator_is_refused(dataset, seed):
    class Null:  # as MPI.COMM_NULL
        def __bool__(self):
            return False

        @property
        def rank(self):
            raise RuntimeError("Invalid communicator, error stack")

    for comm in 4, 0, "MPI", object(), Null():
        with pytest.raises(sv.InputError, match=r"^comm is .*: expected a communicator such as"):
            trainer(dataset, seed, comm)


# --- together


def test_all_ranks_leave_a_block_together_or_none_does():
    def run(comm, bad, error):
        with Ranks(comm).together():
            if comm.rank == bad:
                raise error
        return "left"

    assert on_ranks(3, lambda comm: run(comm, None, None)) == ["left"] * 3
    for bad, error, sentence in (
        (0, sv.InputError("no such file"), "no such file"),
        (2, sv.InputError("no such file"), "rank 2: no such file"),
        (1, MemoryError("full"), "rank 1: MemoryError('full')"),
    ):
        found = on_ranks(3, lambda comm: run(comm, bad, error))  # noqa: B023
        assert [type(e) for e in found] == [AgreedError] * 3
        assert {str(e) for e in found} == {sentence}


# --- runs


def test_only_the_first_rank_of_a_run_writes(tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (40, 6), dtype=np.uint8))
    options = sv.run.Options(
        str(tmp_path / "x.npy"), hidden=(4,), epochs=2, batch_size=16, shards=4
    )
    alone = sv.run.new(options, tmp_path / "alone")
    alone.train()

    def run(comm):
        # Folders of their own, so that one sees who writes.
        r = sv.run.new(options, tmp_path / f"rank{comm.rank}", comm=comm)
        r.train()
        return r.finished

    assert all_well(on_ranks(2, run)) == [True, True]
    assert {p.name for p in tmp_path.iterdir()} == {"x.npy", "alone", "rank0"}
    assert (tmp_path / "rank0" / METRICS).exists()
    found, expected = (load(tmp_path / d / LAST)[0] for d in ("rank0", "alone"))
    for name, a in expected.items():
        np.testing.assert_array_equal(found[name], a)


def a_run(tmp_path, rng, **options):
    """Return a function that makes a run of three steps an epoch."""
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (40, 6), dtype=np.uint8))
    given = {"hidden": (4,), "epochs": 2, "batch_size": 16} | options
    options = sv.run.Options(str(tmp_path / "x.npy"), **given)
    return lambda comm: sv.run.new(options, tmp_path / "run", comm=comm)


def test_no_rank_goes_on_before_the_first_has_saved(tmp_path, rng, monkeypatch):
    new, write = a_run(tmp_path, rng), sv.run.Run._write

    def slowly(self, state):
        time.sleep(0.3)
        write(self, state)

    def run(comm):
        new(comm).train()
        steps = load(tmp_path / "run" / LAST)[1]["step"]
        go_on = sv.run.resume(tmp_path / "run", epochs=3, comm=comm)
        go_on.train()
        return steps, load(tmp_path / "run" / LAST)[1]["step"]

    monkeypatch.setattr(sv.run.Run, "_write", slowly)
    assert all_well(on_ranks(3, run)) == [(6, 9)] * 3


@pytest.mark.parametrize("seconds", [0, 1e9])  # after an epoch, and at the end
def test_what_the_first_rank_cannot_save_ends_all(seconds, tmp_path, rng, monkeypatch):
    new = a_run(tmp_path, rng)

    def full(self, state):
        raise sv.InputError("the disk is full")

    monkeypatch.setattr(sv.run.Run, "_write", full)
    monkeypatch.setattr(sv.run, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    for error in on_ranks(2, lambda comm: new(comm).train()):
        assert isinstance(error, AgreedError)
        assert str(error).startswith("the disk is full")


def test_the_best_bound_is_known_on_every_rank(tmp_path, rng):
    new = a_run(tmp_path, rng, lr=0.1)

    def run(comm):
        first = new(comm)
        assert first.best == np.inf
        first.train()
        then = sv.run.resume(tmp_path / "run", epochs=4, comm=comm)
        assert then.best == first.best
        then.train()
        bounds = [m["test_reconstruction"] + m["test_kl"] for m in then.trainer.metrics]
        assert first.best == min(bounds[:2])
        assert then.best == min(bounds)

    all_well(on_ranks(2, run))


# --- a device


class Info(dict):
    Get = dict.get


@pytest.mark.parametrize("shards", [0, 4])
def test_gradients_of_a_device_go_through_the_host(shards, dataset, seed, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    backend = sv.backend.get_backend("cupy", "host")  # the noise of the CPU
    alone, _ = trained(dataset, seed, shards=shards)

    def run(comm):
        found, _ = trained(dataset, seed, comm, shards=shards, backend=backend)
        assert not any(standin.cupy.ndarray in kind.__mro__ for kind in comm.seen)
        t = trainer(dataset, seed, comm, shards=shards, backend=backend)
        assert t.ranks.describe(t.model).endswith(", through the host.")
        return found

    # The stand-in computes one rank at a time: its counters are not made for threads.
    for found in all_well(on_ranks(2, run)):
        np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-9)  # as above


@pytest.mark.parametrize("shards", [0, 4])
def test_an_mpi_that_reads_the_device_is_given_its_arrays(shards, dataset, seed, monkeypatch):
    """After the host has waited for the stream that writes them, each time."""
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(1))
    monkeypatch.setattr(standin.cupy.cuda, "get_current_stream", lambda: stream, raising=False)
    backend = sv.backend.get_backend("cupy", "host")
    alone, _ = trained(dataset, seed, shards=shards, epochs=1)

    def run(comm):
        comm.Get_info = lambda: Info({"mpi_memory_alloc_kinds": "mpi,system,cuda:device"})
        t = trainer(dataset, seed, comm, shards=shards, backend=backend)
        t.run(1)
        large = {"Alltoall", "Allgather"} if shards else {"Allreduce"}
        given = [k for name, k in zip(comm.calls, comm.seen, strict=True) if name in large]
        # Every other one is the terms of the loss, which are numbers of the host.
        on_device = [kind for kind in given if kind is not np.ndarray]
        assert len(on_device) == len(given) - 4 == (8 if shards else 4)  # four steps
        assert t.ranks.describe(t.model).endswith(", from GPU to GPU.")
        return asnumpy(t.model.params.value)

    for found in all_well(on_ranks(2, run)):
        np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-9)  # as above
    assert len(waits) >= 2 * 4


def test_an_mpi_that_reads_the_device_is_recognised():
    class Comm:
        def __init__(self, kinds):
            self.kinds = kinds

        def Get_info(self):
            return Info(self.kinds)

    key = "mpi_memory_alloc_kinds"
    assert distributed.reads_device(Comm({key: "mpi,system,cuda:device"}))
    assert not distributed.reads_device(Comm({key: "mpi,system"}))
    assert not distributed.reads_device(Comm({}))
    assert not distributed.reads_device(object())


# --- the command line


def test_without_mpi4py_one_sentence_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    for rank, where in (None, ""), ("0", ""), ("1", "rank 1: "):
        if rank is not None:
            monkeypatch.setenv("PMI_RANK", rank)
        assert cli.main(["train", "--distributed"]) == 2
        assert capsys.readouterr().err == (
            f"scratchvae train: {where}mpi4py is not installed: expected it with an MPI library, "
            "as after pip install mpi4py mpich\n"
        )
    assert waits == [cli.PATIENCE]  # of rank 1: the first would have ended all by now


def test_the_mpiexec_of_mpich_is_told_last_that_a_rank_without_mpi_has_ended():
    """Or the others would wait for it in MPI_Init for ever."""
    out, into = os.pipe()  # what mpiexec reads, and here standard error as well
    code = (
        "import sys; sys.modules['mpi4py'] = None; from scratchvae import cli; "
        "sys.exit(cli.main(['train', '--distributed']))"
    )
    job = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PMI_RANK": "0", "PMI_FD": str(into)},
        pass_fds=[into],
        stderr=into,
        timeout=60,
    )
    os.close(into)
    with open(out) as read:
        first, last = read.read().splitlines()
    assert job.returncode == 2
    assert first.startswith("scratchvae train: mpi4py is not installed")
    assert last == "cmd=abort exitcode=2"


MISSPELT = "unrecognized arguments: --latnt; did you mean --latent? (see scratchvae --help)"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--distributed", "--latnt", "3"], MISSPELT),
        (["--distrib", "--latnt", "3"], MISSPELT),
        (
            ["--distributed=1"],
            "argument --distributed: ignored explicit argument '1' (see scratchvae train --help)",
        ),
        (
            ["--distributed", "x.npy", "--data", "y.npy"],
            "--data: x.npy is named already: expected one of the two",
        ),
    ],
)
def test_a_misspelt_option_is_said_once(monkeypatch, capsys, words, sentence):
    """By the first rank, after all have met, as one of them may have no error."""
    words = ["train", *words]
    for rank in 0, 1:
        comm = MagicMock(rank=rank, size=2, allgather=lambda value: [value, value])
        comm.Split_type.return_value.size = 2
        mpi4py_of(monkeypatch, comm)
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        assert cli.main(words) == (0 if rank else 2)
        assert capsys.readouterr().err == ("" if rank else f"scratchvae train: {sentence}\n")
        comm.Barrier.assert_called_once()


def test_a_rank_without_mpi_says_itself_that_an_option_is_misspelt(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert cli.main(["train", "--distributed", "--latnt", "3"]) == 2
    assert capsys.readouterr().err == f"scratchvae train: rank 1: {MISSPELT}\n"


def test_the_help_is_shown_by_the_first_rank_alone(monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--distributed", "--help"])
    assert "usage:" in capsys.readouterr().out
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert cli.main(["train", "--distributed", "--help"]) == 0
    assert capsys.readouterr().out == ""


def test_a_process_of_mpiexec_that_trains_by_itself_says_so(monkeypatch, capsys):
    for size, notes in ("1", 0), ("2", 1):
        monkeypatch.setenv("PMI_SIZE", size)
        assert cli.main(["train", "nowhere.npy"]) == 2
        assert capsys.readouterr().err.count(
            "scratchvae train: note: this is one of 2 processes of mpiexec and trains by itself: "
            "expected --distributed on each, if they are to train one model\n"
        ) == notes  # fmt: skip


def mpi4py_of(monkeypatch, comm):
    """Put a module where mpi4py.MPI is."""
    package, mpi = ModuleType("mpi4py"), ModuleType("mpi4py.MPI")
    package.MPI, mpi.COMM_WORLD, mpi.COMM_TYPE_SHARED = mpi, comm, 7
    mpi.Finalize = lambda: None
    mpi.Get_library_version = lambda: "MPICH Version:      5.0.2\nand more\0"
    for module in package, mpi:
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_mpiexec_of_another_library_is_found(monkeypatch):
    """Each rank would be alone, and all would write the same folder."""
    comm = SimpleNamespace(size=1)
    mpi4py_of(monkeypatch, comm)
    for size in None, "1":
        if size:
            monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", size)
        assert distributed.world() is comm
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(sv.InputError) as error:
        distributed.world()
    assert str(error.value) == (
        "mpiexec started 4 processes, and MPI knows of 1: expected the mpiexec of the library that "
        "mpi4py has loaded, MPICH Version: 5.0.2"
    )


def test_the_ranks_of_a_machine_share_its_cores(monkeypatch):
    for cores, bound, beside, threads in (8, 8, 1, 8), (8, 8, 3, 2), (2, 2, 4, 1), (8, 3, 2, 3):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        monkeypatch.setattr(
            "os.sched_getaffinity", lambda pid, n=bound: set(range(n)), raising=False
        )
        comm = SimpleNamespace(Split_type=lambda kind, n=beside: SimpleNamespace(size=n))
        mpi4py_of(monkeypatch, comm)
        assert distributed.threads_of_rank(comm) == threads
