"""The loop: a step for each shuffled batch, and the test loss after every epoch.

A `Trainer` holds all that a run needs to continue. If it is stopped after any step, saved and
restored, it reaches bitwise the same parameters as one that was never stopped.
"""

from __future__ import annotations

import math
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from . import checkpoint
from .backend import Array, asnumpy, blas_threads, keep_freed_memory
from .datasets import Dataset, binarize, gather, require_fit, rows_at_once
from .distributed import Ranks
from .errors import (
    Count,
    InputError,
    InputWarning,
    NonFiniteError,
    check_count,
    check_number,
    check_seed,
    check_size,
    check_type,
    on_one_line,
    require_methods,
    short,
)
from .evaluation import active_units, elbo
from .finite import require_finite, require_finite_state, slower
from .model import without_numbers
from .notebook import table
from .optimizers import Optimizer
from .parallel import LossAndGrad, noise_of
from .schedules import Schedule
from .standardization import advice
from .vae import Autoencoder, Terms

ORDER, TEST_NOISE, TEST_PIXELS = 1, 2, 3  # independent streams of one seed
MAX_SHOWN = 10  # epochs, in a notebook
OnStep = Callable[[Terms], None]
OnEpoch = Callable[[dict[str, float]], None]
Callbacks = tuple[OnStep, OnEpoch]


class Metrics(TypedDict):
    """What is known of a finished epoch; losses in nats per example."""

    epoch: Count
    train_loss: float
    train_reconstruction: float
    train_kl: float
    test_loss: float
    test_reconstruction: float
    test_kl: float
    active_units: Count
    seconds: float


class _Course(TypedDict, total=False):  # what older checkpoints do not say
    batch_size: Count
    examples: Count
    seed: int
    shards: Count
    binarize: str
    model: dict[str, Any]
    numbers: dict[str, Any]
    optimizer: dict[str, Any]


class Progress(_Course):
    """The plain values of `Trainer.state`, which `restore` asks of a file."""

    epoch: Count
    batch: Count
    step: Count
    seconds: float
    totals: list[float]
    metrics: list[Metrics]
    rng: dict[str, Any]


class Trainer:
    """Trains a model on a data set.

    Parameters
    ----------
    model : Autoencoder or VAE
    optimizer : Optimizer
        Of ``model.params``.
    dataset : Dataset, array (N, D) or frame of pandas
        Stays as it is, uint8 for images; one batch at a time becomes floats. An array is taken as
        :meth:`~scratchvae.datasets.Dataset.from_arrays` takes it. A model that is given labels
        keeps a copy of the examples, with their labels.
    batch_size : int
    schedule : callable, optional
        The time in epochs -> learning rate. If it is not given, the optimizer's own rate, which may
        be set at any time.
    beta_schedule : callable, optional
        Likewise for the model's beta, such as :func:`~scratchvae.warm_up`.
    binarize : {"none", "threshold", "dynamic"}
    seed : int
        Of the order of the batches and the noise in the test bound; training has the model's rng.
    comm : communicator of mpi4py, optional
        Takes a share of every batch on each of its ranks, see :mod:`scratchvae.distributed`. All
        ranks call `run`, with the same model, data and options.
    shards : int
        Parts of a batch whose gradients are added in their order, for bitwise the same parameters
        on every number of ranks that divides it, and without any. With 0 the fastest way is taken.

    Attributes
    ----------
    metrics : list of dict
        One entry per finished epoch; losses in nats per example.
    stop : bool
        Set it, from a signal handler or a callback, and `run` returns after the present step.
    check_every : int
        After how many steps loss and gradient are read: 1, or 50 on a GPU, which would stand still.

    Raises
    ------
    InputError
        If the data do not fit the model, as :func:`~scratchvae.datasets.require_fit` says, if the
        optimizer is of other parameters than the model's, or if a `beta_schedule` is given for a
        model whose loss has no beta.
    """

    def __init__(
        self,
        model: Autoencoder,
        optimizer: Optimizer,
        dataset: Dataset | Array,
        *,
        batch_size: int = 128,
        schedule: Schedule | None = None,
        beta_schedule: Schedule | None = None,
        binarize: str = "none",
        seed: int = 0,
        comm: Any = None,
        shards: int = 0,
    ) -> None:
        check_size("batch_size", batch_size)
        if isinstance(model, type) or getattr(model, "check_parts", None) is None:
            raise InputError(f"model is {short(model)}: expected one such as sv.VAE(784)")
        model.check_parts()
        if not isinstance(optimizer, Optimizer):
            raise InputError(
                f"optimizer is {short(optimizer)}: expected one such as sv.Adam(model.params)"
            )
        _require_own(optimizer, model)
        self._kinds = optimizer, optimizer.kinds()
        require_methods("the optimizer", optimizer)
        for name, given in ("schedule", schedule), ("beta_schedule", beta_schedule):
            if given is not None and not callable(given):
                raise InputError(
                    f"{name} is {given!r}: expected a function of the time in epochs, such as "
                    "sv.constant(1e-3)"
                )
        if beta_schedule and model.beta is None:
            raise InputError("an autoencoder's loss has no KL term, and so no beta to schedule")
        check_seed("seed", seed)
        if not isinstance(dataset, Dataset):
            dataset = Dataset.from_arrays(dataset)
        require_fit(dataset, model, binarize)
        self.ranks = Ranks(comm, shards)  # this process alone, if there is no comm
        self.ranks.require_rows(len(dataset.train))
        self.model, self.optimizer, self.dataset = model, optimizer, dataset
        self.batch_size, self.binarize, self.seed = batch_size, binarize, seed
        self.schedule = schedule
        self.beta_schedule = beta_schedule
        self.epoch, self.batch, self.stop = 0, 0, False
        self.totals, self.seconds = model.backend.xp.zeros(3), 0.0  # this epoch's terms and time
        self.metrics: list[dict[str, float]] = []
        asarray, white = model.backend.asarray, dataset.scale  # on the device if there is one
        self._train = model.rows(asarray(dataset.train), dataset.train_labels, white)  # (N, D)
        self._test = model.rows(asarray(dataset.test), dataset.test_labels, white)  # (M, D)
        self.check_every = 1 if model.backend.name == "numpy" else 50
        # By step, a number that is finite if loss and gradient are.
        self._unread: dict[int, Array] = {}
        self._unsaved = optimizer, optimizer.unsaved()
        self._used = 0  # a checksum of the rates and betas of this epoch's steps
        self._advice = advice(dataset, model)  # for data that no learning rate is right for

    def __repr__(self) -> str:
        return (
            f"Trainer({self.model!r}, {self.optimizer!r}, {self.dataset!r}, "
            f"batch_size={self.batch_size}, epoch={self.epoch}, batch={self.batch})"
        )

    @property
    def batches_per_epoch(self) -> int:
        """How many steps an epoch has; InputError if `batch_size` was set to what it cannot be."""
        return -(-len(self._train) // check_size("batch_size", self.batch_size))  # rounded up

    def _repr_html_(self) -> str:
        columns = {k: k.replace("_", " ") for k in Metrics.__annotations__}
        rows = [
            [f"{line[k]:.2f}" if isinstance(line[k], float) else f"{line[k]:,}" for k in columns]
            for line in self.metrics[-MAX_SHOWN:]
        ]
        return table(repr(self), [*columns.values()], rows)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # `_step` raises and says where
    def run(
        self,
        epochs: int,
        on_step: OnStep = lambda terms: None,
        on_epoch: OnEpoch = lambda metrics: None,
        *,
        progress: bool = False,
    ) -> None:
        """Train until `epochs` epochs are done, those before this call included, or `stop` is set.

        Parameters
        ----------
        epochs : int
        on_step, on_epoch : callable
            Called after each step with its terms, and after each epoch with its metrics.
        progress : bool
            Whether to show a bar, on standard error or, where ipywidgets is installed, in the
            notebook; of many ranks the first shows it.

        Raises
        ------
        NonFiniteError
            If the loss or the gradient is NaN or infinite, with `check_every` = 1 before the
            parameters move; or if the test loss is at the end of an epoch.
        InputError
            If `epochs` is no number of epochs, or the optimizer is of other parameters than the
            model's.
        """
        check_count("epochs", epochs)
        for name, callback in ("on_step", on_step), ("on_epoch", on_epoch):
            if not callable(callback):
                raise InputError(f"{name} is {callback!r}: expected a function")
        _require_own(self.optimizer, self.model)
        self.model.try_formulas()
        self.model.require_named()
        self.ranks.forget()
        self.ranks.require_same(lambda: self._of_all_ranks(epochs))
        keep_freed_memory()
        if self._advice and not self.epoch and not self.batch:
            warnings.warn(self._advice, InputWarning, stacklevel=3)  # above errstate's wrapper
        callbacks = on_step, on_epoch
        bar = progress and self.ranks.first
        shown = self._with_bar(epochs, *callbacks) if bar else nullcontext(callbacks)
        with blas_threads(self.model, self.batch_size), shown as (on_step, on_epoch):
            while self.epoch < epochs and not self._stopped():
                self._run_epoch(on_step)
                if self.batch >= self.batches_per_epoch:
                    self.metrics.append(self._finish_epoch())
                    on_epoch(self.metrics[-1])
                    _require_numbers(self.metrics[-1])
                    if self.epoch < epochs:
                        before = f"before epoch {self.epoch + 1}"
                        self.ranks.require_same_state(self._of_an_epoch, before)

    @contextmanager
    def _with_bar(self, epochs: int, on_step: OnStep, on_epoch: OnEpoch) -> Iterator[Callbacks]:
        """Yield the callbacks, which move a bar as well."""
        from tqdm.auto import tqdm

        n = self.batches_per_epoch
        done = self.epoch * n + self.batch
        with tqdm(total=max(done, epochs * n), initial=done, unit="step") as bar:

            def after_step(terms: Terms) -> None:
                bar.update()
                on_step(terms)

            def after_epoch(metrics: dict[str, float]) -> None:
                bar.set_postfix_str(f"test loss {metrics['test_loss']:.2f}")
                on_epoch(metrics)

            yield after_step, after_epoch

    def _run_epoch(self, on_step: OnStep) -> None:
        self.dataset.require_whole()
        # The order depends only on the seed and the epoch, so it need not be saved.
        rng = np.random.default_rng([self.seed, self.epoch, ORDER])
        order = self.model.backend.asarray(rng.permutation(len(self._train)))  # (N,)
        start, before, self._used = time.perf_counter(), self.seconds, 0
        if self.beta_schedule and self.batch < self.batches_per_epoch:
            # Before it is asked whether a batch may be divided, which may depend on beta.
            self.model.set_beta(self.beta_schedule(self._now()))
        while not self._stopped(self.batch >= self.batches_per_epoch):
            with self.ranks.in_parts(self.model, self.batch_size) as loss_and_grad:
                asked, going = self.ranks.asked_about(self.model, self.batch_size), True
                while going:
                    rows = order[self.batch * self.batch_size :][: self.batch_size]  # (B,)
                    terms = self._step(rows, loss_and_grad)
                    self.totals += len(rows) * self.model.backend.xp.stack(terms)  # (3,)
                    self.batch += 1
                    self.seconds = before + time.perf_counter() - start
                    on_step(terms)
                    # A callback may exchange a layer, or set a flag that mixes the examples.
                    changed = asked != self.ranks.asked_about(self.model, self.batch_size)
                    # Ranks whose epochs have other numbers of batches leave it together, too.
                    going = not self._stopped(changed or self.batch >= self.batches_per_epoch)
        self.check()
        used = {"the lr or beta of a step": self._used}
        self.ranks.require_same_state(lambda: self._of_an_epoch() | used, f"epoch {self.epoch + 1}")

    def _now(self) -> float:
        """Return the time in epochs."""
        return self.epoch + self.batch / self.batches_per_epoch

    def _step(self, rows: Array, loss_and_grad: LossAndGrad) -> Terms:
        model, optimizer = self.model, self.optimizer
        _require_own(optimizer, model)
        if self.schedule:
            optimizer.lr = self.schedule(self._now())
        if self.beta_schedule:
            model.set_beta(self.beta_schedule(self._now()))
        mine = self.ranks.rows(len(rows))  # all of them, unless other machines take a share
        x = self._batch(rows, mine)  # (B, D)
        eps = noise_of(model.draw_eps(len(rows), model.rng), mine)
        terms = loss_and_grad(x, eps, len(rows))
        if getattr(terms, "_fields", None) != Terms._fields:
            raise InputError(
                f"loss_and_grad gives a {type(terms).__name__}: expected sv.Terms(loss, "
                "reconstruction, kl), as that of VAE returns"
            )
        self._unread[optimizer.steps + 1] = terms.loss + model.params.grad @ model.params.grad
        if optimizer.steps % self.check_every == 0:
            self.check(x, eps)
        if self._kinds[0] is not optimizer:  # another one was put in its place
            self._kinds = optimizer, optimizer.kinds()
        optimizer.step()
        _require_kinds(*self._kinds)
        if self.ranks.size > 1:
            self._used = zlib.crc32(repr((optimizer.lr, model.beta)).encode(), self._used)
        return terms

    def check(self, x: Array = None, eps: Array = None) -> None:
        """Raise NonFiniteError if a step since the last check, now at (x, eps), was not finite."""
        unread, self._unread = self._unread, {}
        advice = self._advice
        if advice is None and self.optimizer.steps == 0:
            advice = (
                "no step was taken yet, so no learning rate is to blame: are the data, beta, free "
                f"bits and the variance of a size that {self.model.dtype} holds?"
            )
        require_finite(unread, self.model, self.optimizer, self.epoch, x, eps, advice)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return copies of what `restore` needs: NumPy arrays by name, and plain values.

        Raises
        ------
        NonFiniteError
            If a step that had not been checked yet, as may be on a GPU, was not finite, or if a
            parameter or the optimizer's state is not.
        """
        self.check()
        require_finite_state(self.model, self.optimizer, self.epoch, self._advice)
        self.model.check_parts()
        params, optimizer = self.model.params, self.optimizer
        arrays = {name: asnumpy(params[name].value).copy() for name in params.names}
        arrays |= {f"optimizer.{k}": asnumpy(a).copy() for k, a in optimizer.state.items()}
        values = {k: getattr(self, k) for k in ("epoch", "batch", "seconds")}
        values |= {"metrics": list(self.metrics), "totals": asnumpy(self.totals).tolist()}
        values |= self._course() | {"model": self.model.config(), "lr": optimizer.lr}
        values |= {"numbers": self.model.own_numbers(), "optimizer": optimizer.options()}
        if lost := self._lost():
            warnings.warn(
                f"{type(optimizer).__name__} has changed its {on_one_line(lost)}, which no "
                "checkpoint holds, so a run that is resumed from here goes another way: keep it in "
                "the optimizer's `state`, as an array of the length of params.value, or as a "
                "number",
                InputWarning,
                stacklevel=2,
            )
        return arrays, values | {"step": optimizer.steps, "rng": self.model.rng.bit_generator.state}

    def _lost(self) -> list[str]:
        """Return what the optimizer has changed since the start and no checkpoint holds."""
        now, (owner, before) = self.optimizer.unsaved(), self._unsaved
        if owner is not self.optimizer:  # another one was put in its place
            return []
        return [name for name in now if now[name] != before.get(name)]

    def restore(self, arrays: dict[str, Any], values: dict[str, Any], path: str | Path) -> None:
        """Go back to where `state` was taken, from a trainer with the same model and data.

        The learning rate is that of then too, unless a schedule tells, and so are the optimizer's
        other numbers, such as Adam's betas, and those of the model that may be set at any time,
        such as beta, or that a class of your own keeps in it: change them after it.

        Parameters
        ----------
        arrays, values : dict
        path : str or Path
            Where they come from, for the error's sentence.

        Raises
        ------
        InputError
            If the model's options or parts, parameters, the optimizer's state or a value do not
            fit, naming the first that does not; nothing is changed then.
        """
        try:
            check_type("the state", values, Progress)
            lr = values.get("lr", self.optimizer.lr)  # older checkpoints do not say
            check_number("its lr", lr)
        except InputError as error:
            raise InputError(f"{path}: not the state of a run: {error}") from None
        saved = {k.removeprefix("optimizer.") for k in arrays if k.startswith("optimizer.")}
        if saved != set(self.optimizer.state):
            found, expected = (
                on_one_line(sorted(s)) or "none" for s in (saved, self.optimizer.state)
            )
            raise InputError(
                f"{path}: made with another optimizer: its state is {found}, expected {expected}"
            )
        for name, now in self._course().items():
            before = values.get(name, now)  # older checkpoints do not say
            if before != now:
                raise InputError(
                    f"{path}: made with another configuration: {name} was {before}, and is {now} "
                    "here, so the run would not go on as it began"
                )
        if values["batch"] > self.batches_per_epoch or len(values["totals"]) != len(self.totals):
            raise InputError(
                f"{path}: made with another configuration: it is at batch {values['batch']} of an "
                f"epoch that has {self.batches_per_epoch} here"
            )
        self.model.require_config(values.get("model", {}), path)
        self.model.check_parts()
        params, rng = self.model.params, type(self.model.rng.bit_generator)()
        try:
            rng.state = values["rng"]
        except Exception:  # each kind of damage has its own
            raise InputError(f"{path}: its rng is no state of a {type(rng).__name__}") from None
        totals = self.model.backend.asarray(values["totals"], "float64")  # (3,)
        targets = {name: params[name].value for name in params.names}
        targets |= {f"optimizer.{k}": a for k, a in self.optimizer.state.items()}
        checkpoint.require_fit(targets, arrays, path)
        try:
            with checkpoint.all_or_nothing(self.optimizer, self.model):
                if "optimizer" in values:  # older checkpoints do not say
                    self.optimizer.take_options(values["optimizer"])
                # Nor do they tell the numbers.
                self.model.take_options(values.get("model", {}), values.get("numbers"))
        except InputError as error:
            raise InputError(f"{path}: not the state of a run: {error}") from None
        checkpoint.fill(targets, arrays, path)
        for k in ("epoch", "batch", "seconds"):
            setattr(self, k, values[k])
        self.metrics = list(values["metrics"])
        self.totals = totals
        self.optimizer.steps = values["step"]
        self.optimizer.lr = lr
        self.model.rng.bit_generator.state = values["rng"]

    def _course(self) -> dict[str, Any]:
        """Return what decides, with the random state, which batch comes next."""
        course = {"batch_size": self.batch_size, "examples": len(self._train), "seed": self.seed}
        return course | {"shards": self.ranks.shards, "binarize": self.binarize}

    def _stopped(self, other: bool = False) -> bool:
        """Return whether any rank was told to stop, or has another reason not to go on."""
        stopped, other = self.ranks.any(self.stop, other)
        if stopped:  # a signal may come in between, and must not be forgotten
            self.stop = True
        return stopped or other

    def _of_all_ranks(self, epochs: int) -> dict[str, Any]:
        """Return by name what has to be the same on every rank when training begins."""
        values = self._course() | {"epochs": epochs}
        # A schedule is not asked before its time: it may count how often it is.
        schedules = {"schedule": self.schedule, "beta_schedule": self.beta_schedule}
        values |= {k: "given" if schedule else "not given" for k, schedule in schedules.items()}
        model = f"{type(self.model).__name__} of {len(self.model.params.value):,} parameters"
        values |= {"model": model, "data": self.dataset.fingerprint()}
        values |= {f"model.{k}": v for k, v in self.model.config().items()}
        if self.optimizer.steps:  # a layer may count in its words what its rank has trained on
            names = [f"model.{part}" for part in (*self.model.parts, "prior")]
            values |= {k: without_numbers(values[k]) for k in names if k in values}
        values |= {"optimizer": type(self.optimizer).__name__} | self._of_an_epoch()
        for name, schedule in ("lr", self.schedule), ("model.beta", self.beta_schedule):
            if schedule:
                del values[name]  # what was in force before the schedule's first step
        return values

    def _of_an_epoch(self) -> dict[str, Any]:
        """Return by name what has to be the same on every rank whenever an epoch ends.

        Not only what a step changes, in SHA-256: all ranks take the same gradient, so that these
        agree where beta does not.
        """
        model, optimizer, digest = self.model, self.optimizer, checkpoint.digest
        options = {k: v for k, v in model.config().items() if k in model.free}
        values = self._course()
        values |= {f"model.{k}": v for k, v in (options | _compared(model.own_numbers())).items()}
        values |= {"lr": optimizer.lr}
        values |= {f"optimizer.{k}": v for k, v in _compared(optimizer.options()).items()}
        values |= {"epoch": self.epoch, "batch": self.batch, "step": optimizer.steps}
        values["parameters"] = digest({"params": model.params.value}, "")
        values["optimizer's state"] = digest(optimizer.state, "")
        return values | {"random state": digest({}, repr(model.rng.bit_generator.state))}

    def _finish_epoch(self) -> dict[str, float]:
        metrics: dict[str, float] = {"epoch": self.epoch + 1}
        train = asnumpy(self.totals) / len(self._train)  # (3,)
        for of, terms in ("train", train), ("test", self.test_terms()):
            metrics |= {f"{of}_{n}": float(t) for n, t in zip(Terms._fields, terms, strict=True)}
        if not all(map(math.isfinite, metrics.values())):
            require_finite_state(self.model, self.optimizer, self.epoch, self._advice)
            name = next(k for k, v in metrics.items() if not math.isfinite(v))
            raise NonFiniteError(
                f"epoch {self.epoch + 1}: its {name} is not finite; "
                f"{self._advice or slower(self.optimizer)}"
            )
        metrics["active_units"] = active_units(self.model, self.test_batches())
        metrics["seconds"] = round(self.seconds, 3)
        self.epoch, self.batch = self.epoch + 1, 0
        self.totals, self.seconds = self.model.backend.xp.zeros(3), 0.0
        return metrics

    def test_terms(self) -> Terms:
        """Return loss, reconstruction and KL of the test data, always with the same noise."""
        return elbo(self.model, self.test_batches(), rng=[self.seed, 0, TEST_NOISE])

    def test_batches(self) -> Iterator[Array]:
        """Yield the test data as floats, up to 1,000 rows at a time, binarised alike each time."""
        return self._in_order(self._test)

    def codes(self, train: bool = False) -> list[np.ndarray[Any, Any]]:
        """Return the codes of the test data, or of the training data, as arrays of the host.

        They are mu and logvar, (N, Z) each, or z alone where the model has no posterior. The pixels
        are those of `test_batches`, and drawn likewise for the training data.
        """
        model, codes = self.model, []
        for x in self._in_order(self._train if train else self._test):
            code = model.encode(x) if model.has_posterior else (model.encode(x),)
            codes.append([asnumpy(part) for part in code])  # (B, Z) each
        return [np.concatenate(part) for part in zip(*codes, strict=True)]

    def _in_order(self, images: Array) -> Iterator[Array]:
        self.dataset.require_whole()
        rng = np.random.default_rng([self.seed, 0, TEST_PIXELS])
        rows = rows_at_once(self.dataset.data_dim)
        for i in range(0, len(images), rows):
            yield self._floats(images, slice(i, i + rows), rng)  # (<=1000, D)

    def _batch(self, rows: Array, mine: slice) -> Array:
        """Return those rows of the training data, of a whole batch, that this process takes."""
        if self.binarize == "dynamic":  # draws for every pixel, so all are drawn for
            return self._floats(self._train, rows, self.model.rng)[mine]  # (B, D)
        return self._floats(self._train, rows[mine], self.model.rng)  # (B, D)

    def _floats(self, images: Array, rows: Array | slice, rng: np.random.Generator) -> Array:
        x = gather(images, rows, self.dataset.scale, self.model.dtype)  # (B, D)
        return binarize(x, self.binarize, rng, self.model.backend)


def _compared(packed: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that ranks compare: what a name with an underscore keeps may differ."""
    return {k: checkpoint.unpacked(v) for k, v in packed.items() if k[:1] != "_"}


def _require_numbers(metrics: dict[str, Any]) -> None:
    """Make what a callback added to an epoch's metrics plain numbers, as a file holds them."""
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"on_epoch leaves {name} = {short(value)} in the metrics: expected a finite number"
            )
        metrics[name] = value if type(value) is int else number


def _require_kinds(optimizer: Optimizer, before: dict[str, Any]) -> None:
    """Raise InputError if an array of the state has another shape or dtype than it had."""
    now = optimizer.kinds()
    if now == before:
        return
    name = next(k for k in before | now if before.get(k) != now.get(k))
    change = "is gone" if name in before else "was made"
    if name in before and name in now:
        was, is_ = (f"{dtype} {shape}" for dtype, shape in (before[name], now[name]))
        change = f"was an array of {was} and is one of {is_}"
    raise InputError(
        f"the state of {type(optimizer).__name__} has changed since training began: {name} "
        f"{change}, and a checkpoint is resumed by an optimizer that has taken no step: expected "
        "arrays that the constructor makes, and that keep shape and dtype"
    )


def _require_own(optimizer: Optimizer, model: Autoencoder) -> None:
    if optimizer.params is not model.params:
        raise InputError(
            "the optimizer moves the parameters of another model, or of this one before its "
            "parts were gathered again: expected one made of this model's params"
        )
