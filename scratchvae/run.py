"""A run: a model trained on a data set, and the folder with what came of it.

    run = sv.run.new(sv.run.Options(data="mnist", epochs=10), out="runs/mnist")
    run.train()
    run.draw()
    model = sv.load("runs/mnist")

:func:`new` begins a run, :func:`resume` goes on with one and :func:`open` only looks at it. That is
all that ``scratchvae train`` does, too. :func:`load` returns the model alone.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

import numpy as np

from . import checkpoint, datasets, errors
from .activations import ACTIVATIONS
from .backend import Backend, get_backend
from .conditional import ConditionalVAE
from .datasets import Dataset
from .errors import (
    Count,
    InputError,
    InputWarning,
    NonFiniteError,
    RanksDifferError,
    check_each,
    check_number,
    check_size,
    check_type,
    counted,
    on_one_line,
)
from .iwae import IWAE
from .networks import NETWORKS
from .optimizers import SGD, Adam, Optimizer
from .priors import COMPONENTS
from .schedules import Schedule, constant, cosine, step_list, warm_up
from .standardization import mean_and_std, standardize
from .training import Progress, Trainer
from .vae import VAE, Autoencoder, Terms

LAST, BEST, METRICS = "checkpoint.safetensors", "best.safetensors", "metrics.jsonl"
SECONDS_BETWEEN_CHECKPOINTS = 1.0  # epochs on the digits are shorter than a write to the disk

KINDS: dict[str, type[Autoencoder]] = {
    "vae": VAE, "ae": Autoencoder, "iwae": IWAE, "cvae": ConditionalVAE
}  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {
    "model": ("vae", "ae"),
    "objective": ("elbo", "iwae"),
    "prior": tuple(COMPONENTS),
    "network": tuple(NETWORKS),
    "activation": tuple(ACTIVATIONS),
    "likelihood": ("bernoulli", "gaussian"),
    "binarize": datasets.BINARIZE,
    "optimizer": ("adam", "sgd"),
    "dtype": ("float32", "float64"),
    "noise": ("device", "host"),
}

# Options that mean something only where another one has this value.
BELONGS = {
    "variance": ("likelihood", "gaussian"),
    "momentum": ("optimizer", "sgd"),
    "beta": ("model", "vae"),
    "warm_up": ("model", "vae"),
    "free_bits": ("model", "vae"),
}

# The options that an objective or a prior leaves no choice, and why.
FIXED: dict[str, dict[str, Any]] = {
    "elbo": {"samples": 1},
    "iwae": {"model": "vae", "beta": 1, "warm_up": 0, "free_bits": 0},
    "normal": {"components": 1},
    "mixture": {"model": "vae", "free_bits": 0},
}
WHY = {
    "elbo": "takes one draw of a code",
    "iwae": "needs a VAE and has no KL term to weigh",
    "normal": "is one Gaussian",
    "mixture": "needs a VAE and has no KL of single dimensions",
}

# --- options -------------------------------------------------------------------------------------


class OptionError(InputError):
    """An option cannot be used.

    The message names options as Python does, batch_size. The command line has other names for
    them, --batch-size, so `spelled` writes the same sentence with any names.
    """

    def __init__(self, spelled: Callable[[Callable[[str], str]], str]) -> None:
        super().__init__(spelled(str))
        self.spelled = spelled

    def __reduce__(self) -> tuple[type[InputError], tuple[str]]:
        return InputError, (str(self),)  # to another process only the sentence goes


class OptionIgnored(InputWarning):
    """An option was given that the chosen model does not have, named in two ways as above."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(self.spelled(str))

    def spelled(self, spell: Callable[[str], str]) -> str:
        """Return the sentence, with the options' names as `spell` writes them."""
        of, value = BELONGS[self.name]
        return f"{spell(self.name)} is ignored: it belongs to {spell(of)} {value}"


def defaults(data: str) -> dict[str, int]:
    """Return the defaults that depend on the data: of `latent` and of `epochs`.

    The digits are few and small: a 2-D latent space, which can be drawn, and more passes over them.
    """
    return {"latent": 2, "epochs": 300} if data == "digits" else {"latent": 20, "epochs": 10}


State = tuple[dict[str, Any], dict[str, Any]]  # the arrays and values of `Trainer.state`
_BY_DATA: Any = None  # what `defaults` says
_BY_NETWORK: Any = None  # what `NETWORKS` says
_BY_PRIOR: Any = None  # what `COMPONENTS` says


@dataclass(frozen=True)
class Options:
    """What defines a run: two runs with equal options reach the same parameters.

    Parameters
    ----------
    data : str
        "digits" (embedded), "mnist", or the path of a file, as for `scratchvae.datasets.load`. A
        `Path` is always that of a file, as "./digits" is.
    model : {"vae", "ae"}
        A variational or a plain autoencoder.
    network : {"dense", "conv"}
        Linear layers, or convolutions for images without colours.
    conditional : bool
        Whether the VAE is given the labels of the data.
    hidden : sequence of int
        The widths of the encoder's hidden layers; the decoder has them in reverse. 400 if not
        given; for convolutions 32 and 64 channels.
    latent : int
        Latent dimensions: 20 if not given, 2 for the digits.
    beta : float
        The weight of the KL term.
    warm_up : float
        Epochs in which beta rises from 0.
    free_bits : float
        Nats of KL that every latent dimension may have without a cost.
    objective : {"elbo", "iwae"}
        The bound on log p(x) that a VAE climbs: the ELBO, or the importance-weighted one.
    samples : int
        Of each code in a step of "iwae".
    prior : {"normal", "mixture"}
        N(0, I), or a mixture of Gaussians that is learned.
    components : int
        Gaussians that the prior consists of: 10 for a mixture if not given.
    activation : str
        Of the hidden layers, one of :mod:`scratchvae.activations`.
    likelihood : {"bernoulli", "gaussian"}
        Of the pixels, given z.
    variance : float, "shared" or "per-dimension"
        Of the Gaussian likelihood.
    binarize : {"none", "threshold", "dynamic"}
        Whether and how grey pixels become 0 and 1.
    standardize : bool
        Whether the model brings every column to mean 0 and standard deviation 1.
    epochs : int
        Passes over the training data: 10 if not given, 300 for the digits.
    batch_size : int
        Examples per step.
    lr : float
        The learning rate.
    optimizer : {"adam", "sgd"}
    momentum : float
        Of SGD.
    schedule : str
        Of the learning rate: "constant", "cosine" or "EPOCH:LR,EPOCH:LR,...".
    dtype : {"float32", "float64"}
    seed : int
        Of initial parameters, order and noise.
    noise : {"device", "host"}
        Who draws it on a GPU: the device, which is fast, or the host, for the numbers of a run on
        the CPU.
    shards : int
        Parts of a batch that are added in their order, so that every number of ranks that divides
        it reaches bitwise the same parameters; 0 for the fastest way.

    Raises
    ------
    OptionError
        If a value cannot be used, naming the option.
    """

    data: str = "digits"
    model: str = "vae"
    network: str = "dense"
    conditional: bool = False
    hidden: tuple[int, ...] = _BY_NETWORK
    latent: int = _BY_DATA
    beta: float = 1.0
    warm_up: float = 0.0
    free_bits: float = 0.0
    objective: str = "elbo"
    samples: int = 1
    prior: str = "normal"
    components: int = _BY_PRIOR
    activation: str = "relu"
    likelihood: str = "bernoulli"
    variance: float | str = 1.0
    binarize: str = "none"
    standardize: bool = False
    epochs: int = _BY_DATA
    batch_size: int = 128
    lr: float = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.9
    schedule: str = "constant"
    dtype: str = "float32"
    seed: int = 0
    noise: str = "device"
    shards: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.data, str | Path):
            raise OptionError(
                lambda spell: (
                    f"{spell('data')} is of type {type(self.data).__name__}: expected "
                    "digits, mnist or the path of a file; arrays are what sv.Trainer takes"
                )
            )
        values = asdict(self) | {"data": _place(self.data)}
        for name, default in defaults(values["data"]).items():
            values[name] = default if values[name] is None else values[name]
        _checked("network", values["network"], _check_choice)
        _checked("prior", values["prior"], _check_choice)
        if values["components"] is None:
            values["components"] = COMPONENTS[values["prior"]]
        for name in ("latent", "batch_size", "epochs", "samples", "components"):
            values[name] = _checked(name, values[name], check_size)
        if values["hidden"] is None:
            values["hidden"] = NETWORKS[values["network"]].hidden
        values["hidden"] = _checked("hidden", values["hidden"], _check_widths)
        for name in ("beta", "warm_up", "free_bits"):
            values[name] = _checked(name, values[name], check_number)
        values["lr"] = _checked("lr", values["lr"], partial(check_number, positive=True))
        values["momentum"] = _checked(
            "momentum", values["momentum"], partial(check_number, below=1)
        )
        values["variance"] = _checked("variance", values["variance"], _check_variance)
        values["seed"] = check_seed(values["seed"])
        values["shards"] = _checked("shards", values["shards"], errors.check_count)
        for name in CHOICES:
            _checked(name, values[name], _check_choice)
        for name in ("conditional", "standardize"):
            _checked(name, values[name], _check_bool)
        if self.standardize and (self.likelihood == "bernoulli" or self.binarize != "none"):
            raise OptionError(
                lambda spell: (
                    f"{spell('standardize')} is for columns of real numbers, not for pixels from 0 "
                    f"to 1: expected {spell('likelihood')} gaussian and {spell('binarize')} none"
                )
            )
        if self.conditional and self.model != "vae":
            raise OptionError(
                lambda spell: (
                    f"{spell('conditional')} needs a VAE: expected {spell('model')} vae, found "
                    f"{self.model}"
                )
            )
        if self.conditional and self.network == "conv":
            raise OptionError(
                lambda spell: (
                    f"{spell('conditional')} with {spell('network')} conv: a label is no pixel, "
                    "and there is no such model, so leave one of them out"
                )
            )
        if self.conditional and self.objective == "iwae":
            raise OptionError(
                lambda spell: (
                    f"{spell('conditional')} with {spell('objective')} iwae: there is no such "
                    "model, so leave one of them out"
                )
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as a frozen dataclass sets its own fields
        self.learning_rate()
        for of in ("objective", "prior"):
            for name, value in FIXED[getattr(self, of)].items():
                self._require_fixed(name, value, of)

    def _require_fixed(self, name: str, value: Any, of: str) -> None:
        """Raise OptionError unless an option has the one value that an objective or prior takes."""
        choice, found = getattr(self, of), getattr(self, name)
        others = [other for other in CHOICES[of] if name not in FIXED[other]]
        if found != value:
            raise OptionError(
                lambda spell: (
                    f"{spell(name)} is {found}: expected {value} with the {of} {choice}, which "
                    f"{WHY[choice]}, or {spell(of)} {others[0]}"
                )
            )

    def learning_rate(self) -> Schedule:
        """Return the schedule of the learning rate: the time in epochs -> rate."""
        if self.schedule == "constant":
            return constant(self.lr)
        if self.schedule == "cosine":
            return cosine(self.lr, self.epochs)
        try:
            pairs = [part.split(":") for part in self.schedule.split(",")]
            changes = {float(epoch): float(rate) for epoch, rate in pairs}
            numbers = [n for pair in changes.items() for n in pair]
            if len(changes) < len(pairs) or not all(math.isfinite(n) and n >= 0 for n in numbers):
                raise ValueError
            return step_list(self.lr, changes)
        except (ValueError, AttributeError):  # the latter where it is no text
            raise OptionError(
                lambda spell: (
                    f"{spell('schedule')} is {self.schedule!r}: expected constant, cosine or "
                    "EPOCH:LR,EPOCH:LR,... of finite numbers, 0 or larger, each epoch once"
                )
            ) from None

    def ignored(self) -> list[str]:
        """Return the options that the others make meaningless, such as SGD's momentum with Adam."""
        return [name for name, (of, value) in BELONGS.items() if getattr(self, of) != value]

    @property
    def kind(self) -> str:
        """The kind of the model, one of `KINDS`."""
        if self.objective == "iwae":
            return "iwae"
        return "cvae" if self.conditional else self.model

    def model_config(
        self, dataset: Dataset, classes: int | None = None, standardization: Any = None
    ) -> dict[str, Any]:
        """Return what `build_model` needs for the data.

        A conditional model has as many classes as `classes` or, if it is None, the data's labels.
        One that standardises has mean and standard deviation of `standardization` or, if it is
        None, of the training data.

        Raises
        ------
        OptionError
            If the model is given labels and the data have none, or too few examples for them.
        """
        config: dict[str, Any] = {"kind": self.kind, "data_dim": dataset.data_dim}
        config |= {"hidden": self.hidden, "latent_dim": self.latent, "network": self.network}
        config["image_shape"] = _checked("network", dataset.image_shape, self._fit)
        config |= {k: getattr(self, k) for k in ("activation", "likelihood", "variance", "dtype")}
        if self.model == "vae":
            config |= {"beta": self.beta, "free_bits": self.free_bits}
        if self.objective == "iwae":
            config["samples"] = self.samples
        if self.prior == "mixture":
            config |= {"prior": self.prior, "components": self.components}
        if self.conditional:
            config["classes"] = classes or _classes(dataset)
        if self.standardize:
            numbers = standardization or mean_and_std(dataset.train, dataset.scale)
            config["standardize"] = [np.asarray(a).tolist() for a in numbers]
        return config

    def _fit(self, name: str, image_shape: tuple[int, ...]) -> Any:
        return NETWORKS[self.network].fit(name, image_shape, self.hidden)

    def changed(self, changes: dict[str, Any], path: Path) -> Options:
        """Return the options with which the run in the file `path` may go on.

        Only `epochs` may change, and not even these where the schedule depends on them.
        """
        after = Options(**(asdict(self) | changes))
        fixed = [k for k in changes if k != "epochs" or self.schedule == "cosine"]
        other = [k for k in fixed if getattr(self, k) != getattr(after, k)]
        if other:
            old, new = (as_text(getattr(options, other[0])) for options in (self, after))
            raise OptionError(
                lambda spell: (
                    f"{path}: made with another configuration: {spell(other[0])} was {old}, "
                    f"this command asks for {new}"
                )
            )
        return after


def _place(data: str | Path) -> str:
    """Return where data are as text, in which the path of a file is no name of an embedded set."""
    if data == "":
        raise OptionError(
            lambda spell: f"{spell('data')}: no name: expected digits, mnist or the path of a file"
        )
    is_file = isinstance(data, Path) and str(data) in datasets.BUILT_IN
    return f"./{data}" if is_file else str(data)


def check_seed(seed: Any) -> int:
    """Return `seed`; raise OptionError unless it is an integer that is not negative."""
    return int(_checked("seed", seed, errors.check_seed))


def as_text(value: object) -> str:
    """Return the value of an option as the command line takes it."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)


def as_word(path: Path) -> str:
    """Return a path as it is typed behind an option, to a shell."""
    text = str(path)
    return shlex.quote(f".{os.sep}{text}" if text.startswith("-") else text)


def _checked(option: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
    """Return what a check returns, and let its sentence, which begins with it, spell the option."""
    try:
        return check(option, value)
    except InputError as error:
        parts = str(error).removeprefix(option).split(f" {option} ")
        raise OptionError(lambda spell: spell(option) + f" {spell(option)} ".join(parts)) from None


def _classes(dataset: Dataset) -> int:
    """Return how many classes the labels of the data tell apart."""
    name, classes = dataset.name, dataset.classes
    if classes is None:
        raise OptionError(
            lambda spell: (
                f"{name} has no labels, which {spell('conditional')} needs: expected a file .npz "
                "with an array y of integers, one for each row of x"
            )
        )
    if classes > len(dataset.train):
        raise OptionError(
            lambda spell: (
                f"{name} holds the label {classes - 1} among {len(dataset.train)} training "
                f"examples: {spell('conditional')} expects classes that are numbered from 0"
            )
        )
    return classes


def _check_widths(name: str, widths: Any) -> tuple[int, ...]:
    return check_each(name, widths, check_size)


def _check_variance(name: str, value: Any) -> float | str:
    if isinstance(value, str) and value in ("shared", "per-dimension"):
        return value
    try:
        return check_number(name, value, positive=True)
    except InputError:
        wanted = "expected a positive number, 'shared' or 'per-dimension'"
        raise InputError(f"{name} is {errors.short(value)}: {wanted}") from None


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: expected True or False")


def _check_choice(name: str, value: Any) -> None:
    if value not in CHOICES[name]:
        raise InputError(f"{name} is {value!r}: expected one of {', '.join(CHOICES[name])}")


# --- runs ----------------------------------------------------------------------------------------


class Run:
    """A trainer with a folder, where it leaves checkpoints, metrics and figures.

    Made by :func:`new`, :func:`open` or :func:`resume`.

    Attributes
    ----------
    options : Options
    out : Path
        The folder; made when the first file is written.
    trainer : Trainer
        ``trainer.model``, ``trainer.dataset``, ``trainer.metrics``. Set ``trainer.stop`` in a
        callback to end training after the present step.
    best : float
        The lowest negative ELBO of the test data so far, in nats; on every rank.
    position : (int, int)
        The epochs that were done when its file was saved, and the batches of the next.
    file : Path
        The checkpoint from which it was read; None for a new one.
    """

    def __init__(self, options: Options, out: Path, trainer: Trainer) -> None:
        self.options, self.out, self.trainer, self.best = options, out, trainer, math.inf
        self._named, self._new = True, False  # the folder by the user; nothing is written in it yet
        self._claimed: tuple[int, int] | None = None  # the folder, which may be moved meanwhile
        # What is not yet written: the best state, and the last at the end of an epoch.
        self._best_state: State | None = None
        self._last_state: State | None = None
        self._saved_at = time.monotonic()
        data = options.data if options.data in datasets.BUILT_IN else os.path.abspath(options.data)
        self._data: dict[str, Any] = {"path": data, "sha256": trainer.dataset.fingerprint()}
        if names := _names(trainer.dataset):
            self._data["columns"] = list(names)
        self.position = trainer.epoch, trainer.batch
        self.file: Path | None = None

    def __repr__(self) -> str:
        o, t = self.options, self.trainer
        done = f"{t.epoch:,} of {counted(o.epochs, 'epoch')}"
        return f"<Run in {self.out}: {o.kind} of {o.data}, {done}>"

    @property
    def model(self) -> Autoencoder:
        """The model that is trained."""
        return self.trainer.model

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.trainer.epoch >= self.options.epochs

    def train(
        self,
        on_step: Callable[[Terms], None] = lambda terms: None,
        on_epoch: Callable[[dict[str, float]], None] = lambda metrics: None,
    ) -> None:
        """Train until all epochs are done or ``trainer.stop`` is set, and save.

        The files are also written after an epoch, at most once a second. No rank returns before
        they are written.

        Parameters
        ----------
        on_step, on_epoch : callable
            Called with the `Terms` of every step and with the metrics of every epoch.

        Raises
        ------
        NonFiniteError
            As for :meth:`Trainer.run <scratchvae.training.Trainer.run>`. Nothing that is not
            finite is saved: the files are those of the last good epoch, and the message names them.
        RanksDifferError
            Likewise, if the ranks of a distributed run have come apart.
        InputError
            Likewise, if the data are no longer what they were, or a file cannot be written, or if
            the model was changed, so that the options would build another one.
        """
        self._require_own_model()
        ranks = self.trainer.ranks
        ranks.require_same(lambda: asdict(self.options) | {"data": ""})  # it may lie elsewhere
        with self.claimed() if ranks.first else nullcontext():
            self._train(on_step, on_epoch)

    def _train(
        self, on_step: Callable[[Terms], None], on_epoch: Callable[[dict[str, float]], None]
    ) -> None:
        ranks = self.trainer.ranks

        def after_epoch(metrics: dict[str, float]) -> None:
            state = self.trainer.state()  # what the first rank would not save ends all of them
            to_save = state if ranks.first else None
            bound = metrics["test_reconstruction"] + metrics["test_kl"]  # the negative ELBO
            if bound < self.best:
                self.best, self._best_state = bound, to_save
            self._last_state = to_save
            with ranks.together():
                if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self._save(state)
            on_epoch(metrics)

        try:
            self.trainer.run(self.options.epochs, on_step, after_epoch)
            state = self.trainer.state()
            with ranks.together():  # no rank goes on before the files are there
                self._save(state)
        except (InputError, NonFiniteError, RanksDifferError) as error:
            if self._last_state is not None:
                with suppress(InputError), self.claimed():  # the disk may be full
                    self._write(self._last_state)
            kind = InputError if isinstance(error, OptionError) else type(error)
            raise kind(f"{error}{self._kept(error)}") from None
        self.trainer.stop = False  # so that it can be called again

    def _kept(self, error: Exception) -> str:
        """Return what an error leaves of the run, as the end of its sentence."""
        try:
            if _inode(self.out) != self._claimed:  # of another run, where ours was
                return ""
        except OSError:
            return ""
        for name in (LAST, BEST):  # a run that had no room for the second file has the other alone
            if (file := self.out / name).exists():
                out = as_word(self.out)
                go_on = f", and scratchvae train --resume --out {out} goes on"
                return f"; {file} is intact{go_on * isinstance(error, InputError)}"
        if self.trainer.metrics:
            return "; none of its epochs could be saved"
        return "; no epoch was done, so none is saved"

    def save(self) -> None:
        """Write the last checkpoint, the best one if there is a new one, and the metrics.

        Of many ranks the first writes them.

        Raises
        ------
        NonFiniteError
            If parameters or the optimizer's state are not finite; nothing is written then.
        """
        self._save(self.trainer.state())

    def _save(self, state: State) -> None:
        """Write a state, if this is the rank that writes."""
        if self.trainer.ranks.first:
            with self.claimed():
                self._write(state)

    def _require_own_model(self) -> None:
        """Raise InputError if the options would build another model for whoever reads the run."""
        if self.model.config()["kind"] is None:
            raise InputError(
                "the model of this run was changed, and its options would build another one when "
                "the run is read: train it with sv.Trainer, and save it with model.save"
            )

    def _write(self, state: State) -> None:
        self._require_own_model()
        dataset = self.trainer.dataset
        config = {
            "model": self.options.model_config(
                dataset, self.model.classes, self.model.standardization
            ),
            "options": asdict(self.options),
            "image_shape": dataset.image_shape,
        }
        extra = {
            "config": config,
            "data": self._data,
            "best": self.best if math.isfinite(self.best) else None,
        }
        if self._best_state is not None:
            arrays, values = self._best_state
            checkpoint.save(self.out / BEST, arrays, values | extra)
            self._best_state, self._new = None, False
        arrays, values = state
        checkpoint.save(self.out / LAST, arrays, values | extra)
        self._new = False  # the disk may be full before all is written
        lines = "".join(json.dumps(line) + "\n" for line in values["metrics"])
        checkpoint.write_atomically(self.out / METRICS, lambda f: f.write_text(lines))
        self._last_state, self._saved_at = None, time.monotonic()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder for this run: it is made, tried and kept from other processes.

        `train` and `save` do it for themselves; around both and `draw` it is held in between, too.

        Raises
        ------
        InputError
            If the folder cannot be made or written, another process trains in it, or it holds a
            run and this one is new, or had another folder of that name, which was moved.
        """
        made, outermost = self._make_folder(), self._claimed is None
        try:
            with claimed(self.out):
                inode = _inode(self.out)
                if self._claimed not in (None, inode) and _files_of_run(self.out):
                    raise InputError(
                        f"{self.out}: no longer the folder of this run, but of another: nothing is "
                        "written over it, and what was saved is where the folder was moved to"
                    )
                if self._new:
                    _require_no_run(self.out)
                self._claimed = inode
                if outermost:
                    for place in (self.out, self.out / "figures"):
                        checkpoint.remove_leftovers(place)
                yield
                made = []
        finally:
            if outermost:  # while nobody holds it, a copy may take its place
                self._claimed = None
            with suppress(OSError):  # there are files after all
                for folder in made:  # and nothing came of it
                    folder.rmdir()

    def _make_folder(self) -> list[Path]:
        """Make the folder if it is not there; return those that were made, the innermost first."""
        while True:
            missing = [p for p in (self.out, *self.out.parents) if not os.path.lexists(p)]
            try:
                self.out.mkdir(parents=True)  # for one process alone, if two come here together
                self._named = True
                return missing
            except OSError as error:
                if self._named and os.path.isdir(self.out):
                    return []
                tried = self.out
                if not self._named and isinstance(error, FileExistsError):
                    self.out = _free_folder(self.options)
                if self.out == tried:
                    raise InputError(
                        f"{self.out}: cannot be made ({error.strerror or error}): expected a "
                        "folder in which files can be written"
                    ) from None

    def draw(self, folder: str | Path | None = None) -> list[Path]:
        """Write the figures that fit the model into a folder; return their paths.

        The folder is the run's `figures` unless another is given.
        """
        from .plots import write_figures  # matplotlib, which training does not need

        t = self.trainer
        return write_figures(t.model, t.dataset, t.metrics, folder or self.out / "figures")


def new(
    options: Options | None = None,
    out: str | Path | None = None,
    *,
    backend: str | Backend = "numpy",
    comm: Any = None,
) -> Run:
    """Return a new run; nothing is trained or written yet.

    Parameters
    ----------
    options : Options, optional
        The defaults if not given: a VAE of the embedded digits.
    out : str or Path, optional
        The folder: a new one under ``runs/`` if not given.
    backend : {"numpy", "cupy"} or Backend
    comm : communicator of mpi4py, optional
        As for :class:`~scratchvae.Trainer`. The rank 0 writes, and the others only compute.

    Raises
    ------
    InputError
        If the folder already holds a run or is among the images of the data, or the data cannot be
        read or do not fit the model.
    """
    options = Options() if options is None else options
    if not isinstance(options, Options):
        raise InputError(f"options is {options!r}: expected sv.run.Options(...)")
    for name in options.ignored():
        if getattr(options, name) != getattr(Options, name):
            warnings.warn(OptionIgnored(name), stacklevel=2)
    if out == "":
        raise OptionError(lambda spell: f"{spell('out')} is empty: expected a folder")
    folder = _free_folder(options) if out is None else Path(out)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OptionError(
            lambda spell: (
                f"{spell('out')} {folder}: is a file: expected a folder, or a name for a new one"
            )
        )
    images, place = (os.path.realpath(p) for p in (options.data, folder))
    inside = os.path.isdir(images) and Path(images) in (Path(place), *Path(place).parents)
    if inside and options.data not in datasets.BUILT_IN:
        raise OptionError(
            lambda spell: (
                f"{spell('out')} {folder}: is in the folder of the data {options.data}, where "
                "figures would be taken for data: expected a folder elsewhere"
            )
        )
    _require_no_run(folder)
    backend = get_backend(backend, options.noise)
    dataset = datasets.load(options.data)
    run = Run(options, folder, build_trainer(options, dataset, backend, comm=comm))
    _note_what_is_assumed(options, dataset)
    run._named, run._new = out is not None, True
    return run


def open(
    out: str | Path,
    *,
    backend: str | Backend = "numpy",
    best: bool = False,
    data: str | Path | None = None,
    other_data: bool = False,
    comm: Any = None,
    **changes: Any,
) -> Run:
    """Return the run in the folder `out` as it was saved last, for a look or to draw it again.

    Parameters
    ----------
    out : str or Path
    backend : {"numpy", "cupy"} or Backend
    best : bool
        Take the best checkpoint, not the last.
    data : str or Path, optional
        Where the data are now, if they have moved. They must be the same, to the last byte.
    other_data : bool
        Take other data all the same. If their number differs, the epoch begins again.
    comm : communicator of mpi4py, optional
        As for :func:`new`. Its ranks may be as many as before, more or fewer; all read the folder.
    **changes
        Options that change: `epochs` may; another value of any other is refused.

    Raises
    ------
    InputError
        If there is no run, its file or its data cannot be read, the data are others, or an option
        is not as it was.
    """
    path, arrays, values = read_saved(out, best)
    options = options_of(values, path).changed(changes, path)
    saved = values.get("data")  # older checkpoints do not say
    if data is not None and not other_data:
        data = _place(data)
        if options.data in datasets.BUILT_IN or data in datasets.BUILT_IN:
            options.changed({"data": data}, path)
    place, dataset, same = _data_of(options, data, saved)
    options = replace(options, data=place)
    position = values["epoch"], values["batch"]
    if not same:
        what = f"{dataset.name}: other data than the run {out} was trained on"
        if not other_data:
            raise OptionError(
                lambda spell: (
                    f"{what} (the SHA-256 of their content differs): expected the same; "
                    + (f"{spell('data=')} says where they are, and " if data is None else "")
                    + f"{spell('other_data')} takes these all the same"
                )
            )
        if data is None:
            warnings.warn(what, InputWarning, stacklevel=2)
        values["best"] = None  # a bound on other test data
        if values.get("examples") != len(dataset.train):
            values |= {"batch": 0, "seconds": 0.0, "totals": [0.0] * len(values["totals"])}
            values.pop("examples", None)
    _note_other_names(dataset, (saved or {}).get("columns", ()), out)
    was = values["config"]
    if options.network != "dense" and tuple(was["image_shape"]) != tuple(dataset.image_shape):
        raise InputError(
            f"{dataset.name}: images of the shape {tuple(dataset.image_shape)}: expected "
            f"{tuple(was['image_shape'])}, as the convolutions were built for"
        )
    model_was = was["model"]
    config = options.model_config(dataset, model_was.get("classes"), model_was.get("standardize"))
    config |= {"data_dim": was["model"]["data_dim"]}
    config |= {"image_shape": tuple(was["image_shape"])}
    model = _rebuild(config, arrays, path, backend := get_backend(backend, options.noise))
    run = Run(options, Path(out), build_trainer(options, dataset, backend, model, comm))
    run.trainer.restore(arrays, values, path)
    run.best = math.inf if values["best"] is None else values["best"]
    run.position, run.file = position, path
    return run


def read_saved(out: str | Path, best: bool = False) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return the file in which the run in the folder `out` is saved, its arrays and values.

    One that was killed between its first two files, or had no room for the second, has the best
    checkpoint alone, which is then its last one as well. A note says so: perhaps somebody has
    removed the last.

    Raises
    ------
    InputError
        Unless it is the folder of a run, and the file can be read; if the best checkpoint alone
        can be, the message says how to go on from that.
    """
    folder = Path(out)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise InputError(f"{out}: {found}: expected the folder of a run")
    last, other = folder / LAST, folder / BEST
    if best or last.exists():
        path = other if best else last
        try:
            return path, *checkpoint.load(path)
        except InputError as error:
            if best or not os.access(path, os.R_OK) or (epoch := _epoch_in(other)) is None:
                raise
            sentence = str(error)
            raise OptionError(
                lambda spell: (
                    f"{sentence}: move it away, and {spell('resume')} goes on from {BEST}, of "
                    f"epoch {epoch}"
                )
            ) from None
    if not other.exists():
        raise InputError(f"{out}: holds no {LAST}: expected the folder of a run")
    arrays, values = checkpoint.load(other)
    warnings.warn(
        f"{out}: {LAST} is missing: taking {BEST}, of epoch {values.get('epoch')}",
        InputWarning,
        stacklevel=3,
    )
    return other, arrays, values


def _epoch_in(path: Path) -> Any:
    """Return the epoch that a checkpoint says it is of; None if it cannot be read."""
    with warnings.catch_warnings(), suppress(InputError):
        warnings.simplefilter("ignore", InputWarning)
        return checkpoint.load(path)[1].get("epoch")
    return None


def _data_of(
    options: Options, data: str | Path | None, saved: dict[str, str] | None
) -> tuple[str, Dataset, bool]:
    """Return where the data of a run are, the data, and whether it was trained on them.

    They are at `data` or, if that is None, where the options say, which may be seen from another
    folder now, or at the absolute path of then. Others are only taken where the first are not.
    """
    places = [options.data if data is None else _place(data)]
    if data is None and saved is not None and options.data not in datasets.BUILT_IN:
        places = [place for place in (*places, saved["path"]) if os.path.exists(place)] or places
    others: list[tuple[str, Dataset, bool]] = []
    for place in dict.fromkeys(places):
        try:
            dataset = datasets.load(place)
        except InputError as error:
            sentence = str(error)
            known = data is not None or place in datasets.BUILT_IN or os.path.exists(place)
            continue
        if saved is None or saved["sha256"] == dataset.fingerprint():
            return place, dataset, True  # a checkpoint that does not say is taken at its word
        others.append((place, dataset, False))
    if others:
        return others[0]
    raise OptionError(
        lambda spell: (
            sentence
            + ("" if known else f"; if the data have moved, {spell('data=')} says where to")
        )
    )


def _names(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of a table's columns, or () if they have none."""
    names = dataset.columns or ()
    return () if names == tuple(str(j + 1) for j in range(len(names))) else names


def _note_other_names(dataset: Dataset, saved: Sequence[str], out: str | Path) -> None:
    """Say so if columns are called otherwise than those of the run, which are perhaps others."""
    for j, (now, before) in enumerate(zip(_names(dataset), saved, strict=False), 1):
        if now != before:
            warnings.warn(
                f"{dataset.name} has {now!r} as its column {j}, and the data of the run {out} have "
                f"{before!r} there: columns are taken by their places, not by their names",
                InputWarning,
                stacklevel=3,
            )
            return


def _note_what_is_assumed(options: Options, dataset: Dataset) -> None:
    """Say so if rows are perhaps no images, or labels perhaps do not count from 0."""
    notes = []
    if options.network == "conv" and dataset.flat:
        h, w = dataset.image_shape
        notes.append(f"rows of {dataset.data_dim} numbers are taken as images of {h} by {w}")
    if options.conditional:
        trained = np.asarray(dataset.train_labels)
        missing = np.setdiff1d(np.arange(_classes(dataset)), trained).tolist()
        some = ", ".join(map(str, missing[:5]))
        more = f" and {len(missing) - 5:,} more" * (len(missing) > 5)
        if missing:
            notes.append(f"classes count from 0, and these have no training example: {some}{more}")
    for note in notes:
        warnings.warn(f"{dataset.name}: {note}", InputWarning, stacklevel=3)


def resume(out: str | Path, *, backend: str | Backend = "numpy", **changes: Any) -> Run:
    """Return the run in the folder `out`, to go on where it was saved last.

    It reaches bitwise the same parameters as a run that was never stopped.

    Parameters
    ----------
    out, backend, **changes : as for :func:`open`
        `data`, `other_data` and `comm` among them. A run that was trained to its end needs a larger
        `epochs`.

    Raises
    ------
    InputError
        As for `open`, and if no epoch is left.
    """
    run = open(out, backend=backend, **changes)
    if run.finished:
        raise OptionError(
            lambda spell: (
                f"{run.out}: already trained for {counted(run.trainer.epoch, 'epoch')}: "
                f"expected a larger {spell('epochs')}"
            )
        )
    return run


def options_of(values: dict[str, Any], path: str | Path) -> Options:
    """Return the options of the run whose checkpoint holds `values`; `path` is for the error."""
    if "options" not in _config(values):
        raise InputError(
            f"{path}: holds no run: expected a checkpoint that scratchvae train or sv.run wrote"
        )
    kinds = get_type_hints(Options)
    try:
        if values.get("best") == math.inf:
            values["best"] = None  # older versions wrote inf before the first epoch was done
        check_type("the run", values, _RunValues)
        config: Any = values["config"]
        options = config["options"]
        if unknown := sorted(options.keys() - kinds.keys()):
            raise InputError(
                f"made by another version of scratchvae: {on_one_line(unknown)} is no option of "
                "this one"
            )
        for name, value in options.items():
            check_type(name, value, kinds[name])
        if math.prod(config["image_shape"]) != config["model"].get("data_dim"):
            raise InputError(f"image_shape is {config['image_shape']}: expected its pixels' number")
        if options.get("standardize", False) != ("standardize" in config["model"]):
            raise InputError("its options and its model differ in whether columns are standardised")
        return Options(**options)
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None


class _Config(TypedDict):
    model: dict[str, Any]
    options: dict[str, Any]
    image_shape: list[Count]


class _Place(TypedDict):
    path: str  # absolute, or the name of an embedded set
    sha256: str


class _Data(_Place, total=False):
    columns: list[str]  # the names of those of a table


class _Known(Progress, total=False):  # what older checkpoints do not say
    data: _Data


class _RunValues(_Known):
    config: _Config
    best: float | None


def _config(values: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of model and run, as far as it is; the file may hold anything."""
    config = values.get("config")
    return config if isinstance(config, dict) else {}


def build_trainer(
    options: Options,
    dataset: Dataset,
    backend: str | Backend = "numpy",
    model: Autoencoder | None = None,
    comm: Any = None,
) -> Trainer:
    """Return a trainer, with a new optimizer and, unless one is given, a new model."""
    if model is None:
        model = build_model(options.model_config(dataset) | {"rng": options.seed}, backend)
    optimizer: Optimizer
    if options.optimizer == "adam":
        optimizer = Adam(model.params, options.lr)
    else:
        optimizer = SGD(model.params, options.lr, options.momentum)
    warms_up = options.warm_up and "warm_up" not in options.ignored()
    return Trainer(
        model,
        optimizer,
        dataset,
        batch_size=options.batch_size,
        schedule=options.learning_rate(),
        beta_schedule=warm_up(options.beta, options.warm_up) if warms_up else None,
        binarize=options.binarize,
        seed=options.seed,
        comm=comm,
        shards=options.shards,
    )


# --- folders -------------------------------------------------------------------------------------

_held: set[tuple[int, int]] = set()  # the folders that this process holds, by device and inode


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder, which is there, so that no other process trains in it; try to write there.

    The lock is the system's and goes with the process, however that ends. Where the system cannot
    lock a folder, as Windows and some network drives, nothing is held.

    Raises
    ------
    InputError
        If another process holds the folder, or no file can be made in it.
    """
    import tempfile

    inode = _inode(folder)
    if inode in _held:
        yield
        return
    descriptor = _lock(folder)
    _held.add(inode)
    try:
        figures = folder / "figures"
        for place in (folder, figures) if os.path.lexists(figures) else (folder,):
            try:
                tempfile.TemporaryFile(dir=place).close()
            except OSError as error:
                raise InputError(
                    f"{place}: cannot be written ({error.strerror or error}): expected a folder in "
                    "which files can be made"
                ) from None
        for file in _files_of_run(folder):
            if (folder / file).is_dir():
                raise InputError(f"{folder / file}: is a folder: expected a file, or nothing")
        yield
    finally:
        _held.discard(inode)
        if descriptor is not None:
            os.close(descriptor)


def _inode(folder: Path) -> tuple[int, int]:
    """Return what tells a folder, whatever it is called, from every other: device and inode."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _lock(folder: Path) -> int | None:
    """Return a descriptor that holds the lock of a folder; None where there is no such thing."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OptionError(
            lambda spell: (
                f"{spell('out')} {folder}: another process trains in it: expected another folder, "
                "or wait until that one ends"
            )
        ) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def _files_of_run(folder: Path) -> list[str]:
    return [file for file in (LAST, BEST, METRICS) if os.path.lexists(folder / file)]


def _require_no_run(folder: Path) -> None:
    if not (found := _files_of_run(folder)):
        return

    def go_on(spell: Callable[[str], str]) -> str:
        """Return how to go on with that run; nothing where `resume` would refuse it as well."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InputWarning)
                read_saved(folder)
        except OptionError as error:
            return f"; {error.spelled(spell)}"
        except InputError:
            return ""
        return f", or {spell('resume')} to go on with it"

    raise OptionError(
        lambda spell: (
            f"{spell('out')} {folder}: already holds a run ({found[0]}): expected another folder"
            f"{go_on(spell)}"
        )
    )


def _free_folder(options: Options) -> Path:
    data = options.data
    name = data if data in datasets.BUILT_IN else Path(data).name.split(".")[0]
    n = 1
    while os.path.lexists(folder := Path("runs") / f"{name}-{options.kind}-{n}"):
        n += 1
    return folder


# --- models --------------------------------------------------------------------------------------


def build_model(config: dict[str, Any], backend: str | Backend = "numpy") -> Autoencoder:
    """Return a new model as `config` describes it: its kind, one of `KINDS`, and its options."""
    options = {k: v for k, v in config.items() if k not in ("kind", "class", "standardize")}
    model = KINDS[config["kind"]](**options, backend=backend)
    if "standardize" in config:
        standardize(model, *config["standardize"])
    return model


class _Sparing(np.random.Generator):
    """Draws initial parameters, and refuses to draw more than a file can fill."""

    def __init__(self, left: int) -> None:
        super().__init__(np.random.PCG64())
        self.left = left

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        self.spend(size)
        return super().uniform(low, high, size)

    def standard_normal(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.spend(size)
        return super().standard_normal(size, *args, **kwargs)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        self.spend(size)
        return super().normal(loc, scale, size)

    def spend(self, size: Any) -> None:
        self.left -= math.prod(size if isinstance(size, tuple | list) else (size or 1,))
        if self.left < 0:
            raise InputError("it describes a model with more parameters than it holds")


def _rebuild(
    config: dict[str, Any], arrays: dict[str, Any], path: Path, backend: str | Backend
) -> Autoencoder:
    """Return the model that a file describes, or InputError where there can be none.

    One that is larger than the file's arrays is refused before it is allocated.
    """
    try:
        for name, kind in get_type_hints(KINDS[config["kind"]].__init__).items():
            if name in config:
                check_type(name, config[name], kind)
        if "standardize" in config:
            check_type("standardize", config["standardize"], list[list[float]])
        rng = _Sparing(sum(a.size for a in arrays.values()))
        model = build_model(config | {"rng": rng}, backend)
    except (InputError, MemoryError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: made with another configuration: {error}") from None
    model.rng = np.random.default_rng()
    return model


def load(path: str | Path, into: Any = None, backend: str | Backend = "numpy") -> Any:
    """Return the model in a file, ready to encode, decode and sample.

    Parameters
    ----------
    path : str or Path
        What ``model.save`` or a run wrote; or the folder of a run, whose last checkpoint is taken,
        or the best if that is missing.
    into : model, optional
        One that you built as the one that was saved: its parameters are filled, the numbers that a
        class of your own keeps are set, and it is returned. Its options, such as beta, stay. A
        model with parts of its own needs this, since a file holds no code.
    backend : {"numpy", "cupy"} or Backend
        Where the model is built, unless `into` is given.

    Raises
    ------
    InputError
        If the file cannot be read, holds a model with parts of its own and `into` is not given, or
        holds other parameters than `into`.
    """
    path = Path(path)
    if isinstance(into, type) or (into is not None and not hasattr(into, "check_parts")):
        raise InputError(f"into is {into!r}: expected a model, such as sv.VAE(784)")
    loaded = read_saved(path) if path.is_dir() else (path, *checkpoint.load(path))
    path, arrays, values = loaded
    config = _config(values).get("model", {})
    config = config if isinstance(config, dict) else {}
    if into is None and config.get("kind") not in tuple(KINDS):
        of = f" of the class {config['class']}" if "class" in config else ""
        raise InputError(
            f"{path}: saved from a model{of}, which a file alone cannot build, since it holds no "
            "code: build the model as before and call sv.load(path, into=model)"
        )
    model = _rebuild(config, arrays, path, backend) if into is None else into
    model.require_config(config, path)
    model.check_parts()
    of_model = {k for k in arrays if not k.startswith("optimizer.")}
    if more := sorted(of_model - set(model.params.names)):
        raise InputError(
            f"{path}: made with another configuration: it holds {on_one_line(more[0])}, which the "
            "model lacks"
        )
    with checkpoint.all_or_nothing(model):
        model.take_options({}, values.get("numbers"))  # older files do not tell them
        checkpoint.load_parameters(model.params, arrays, path)
    return model
