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
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any

from . import checkpoint, datasets, errors
from .activations import ACTIVATIONS
from .backend import Backend, get_backend
from .conditional import ConditionalVAE
from .datasets import Dataset
from .errors import InputError, NonFiniteError, check_each, check_number, check_size
from .optimizers import SGD, Adam, Optimizer
from .schedules import Schedule, constant, cosine, step_list, warm_up
from .training import Trainer
from .vae import VAE, Autoencoder, Terms

LAST, BEST, METRICS = "checkpoint.safetensors", "best.safetensors", "metrics.jsonl"
SECONDS_BETWEEN_CHECKPOINTS = 1.0  # epochs on the digits are shorter than a write to the disk

KINDS: dict[str, type[Autoencoder]] = {"vae": VAE, "ae": Autoencoder, "cvae": ConditionalVAE}
CHOICES: dict[str, tuple[str, ...]] = {
    "model": ("vae", "ae"),
    "activation": tuple(ACTIVATIONS),
    "likelihood": ("bernoulli", "gaussian"),
    "binarize": datasets.BINARIZE,
    "optimizer": ("adam", "sgd"),
    "dtype": ("float32", "float64"),
    "noise": ("device", "host"),
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


def defaults(data: str) -> dict[str, int]:
    """Return the defaults that depend on the data: of `latent` and of `epochs`.

    The digits are few and small: a 2-D latent space, which can be drawn, and more passes over them.
    """
    return {"latent": 2, "epochs": 300} if data == "digits" else {"latent": 20, "epochs": 10}


_BY_DATA: Any = None  # what `defaults` says


@dataclass(frozen=True)
class Options:
    """What defines a run: two runs with equal options reach the same parameters.

    Parameters
    ----------
    data : str
        "digits" (embedded), "mnist", or the path of a file, as for `scratchvae.datasets.load`.
    model : {"vae", "ae"}
        A variational or a plain autoencoder.
    conditional : bool
        Whether the VAE is given the labels of the data.
    hidden : sequence of int
        The widths of the encoder's hidden layers; the decoder has them in reverse.
    latent : int
        Latent dimensions: 20 if not given, 2 for the digits.
    beta : float
        The weight of the KL term.
    warm_up : float
        Epochs in which beta rises from 0.
    free_bits : float
        Nats of KL that every latent dimension may have without a cost.
    activation : {"relu", "tanh", "sigmoid", "softplus", "silu"}
        Of the hidden layers.
    likelihood : {"bernoulli", "gaussian"}
        Of the pixels, given z.
    variance : float, "shared" or "per-dimension"
        Of the Gaussian likelihood.
    binarize : {"none", "threshold", "dynamic"}
        Whether and how grey pixels become 0 and 1.
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

    Raises
    ------
    OptionError
        If a value cannot be used, naming the option.
    """

    data: str = "digits"
    model: str = "vae"
    conditional: bool = False
    hidden: tuple[int, ...] = (400,)
    latent: int = _BY_DATA
    beta: float = 1.0
    warm_up: float = 0.0
    free_bits: float = 0.0
    activation: str = "relu"
    likelihood: str = "bernoulli"
    variance: float | str = 1.0
    binarize: str = "none"
    epochs: int = _BY_DATA
    batch_size: int = 128
    lr: float = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.9
    schedule: str = "constant"
    dtype: str = "float32"
    seed: int = 0
    noise: str = "device"

    def __post_init__(self) -> None:
        if not isinstance(self.data, str | Path):
            raise OptionError(
                lambda spell: (
                    f"{spell('data')} is of type {type(self.data).__name__}: expected "
                    "digits, mnist or the path of a file; arrays are what sv.Trainer takes"
                )
            )
        values = asdict(self) | {"data": str(self.data)}
        for name, default in defaults(values["data"]).items():
            values[name] = default if values[name] is None else values[name]
        for name in ("latent", "batch_size", "epochs"):
            values[name] = _checked(name, values[name], check_size)
        values["hidden"] = _checked("hidden", values["hidden"], _check_widths)
        for name in ("lr", "beta", "warm_up", "free_bits"):
            values[name] = _checked(name, values[name], check_number)
        for name in (
            "variance",
            "momentum",
        ):  # which likelihood and optimizer check, if they use it
            if isinstance(values[name], Real):
                values[name] = float(values[name])
        values["seed"] = check_seed(values["seed"])
        for name in CHOICES:
            _checked(name, values[name], _check_choice)
        if not isinstance(self.conditional, bool):
            raise OptionError(
                lambda spell: (
                    f"{spell('conditional')} is {self.conditional!r}: expected True or False"
                )
            )
        if self.conditional and self.model != "vae":
            raise OptionError(
                lambda spell: (
                    f"{spell('conditional')} needs a VAE: expected {spell('model')} vae, found "
                    f"{self.model}"
                )
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as a frozen dataclass sets its own fields
        self.learning_rate()

    def learning_rate(self) -> Schedule:
        """Return the schedule of the learning rate: the time in epochs -> rate."""
        if self.schedule == "constant":
            return constant(self.lr)
        if self.schedule == "cosine":
            return cosine(self.lr, self.epochs)
        try:
            pairs = [part.split(":") for part in self.schedule.split(",")]
            return step_list(self.lr, {float(epoch): float(rate) for epoch, rate in pairs})
        except ValueError:
            raise OptionError(
                lambda spell: (
                    f"{spell('schedule')} is {self.schedule!r}: expected constant, "
                    "cosine or EPOCH:LR,EPOCH:LR,..."
                )
            ) from None

    @property
    def kind(self) -> str:
        """The kind of the model, one of `KINDS`."""
        return "cvae" if self.conditional else self.model

    def model_config(self, dataset: Dataset, classes: int | None = None) -> dict[str, Any]:
        """Return what `build_model` needs for the data.

        A conditional model has as many classes as `classes` or, if it is None, the data's labels.

        Raises
        ------
        OptionError
            If the model is given labels and the data have none, or too few examples for them.
        """
        config: dict[str, Any] = {"kind": self.kind, "data_dim": dataset.data_dim}
        config |= {"hidden": self.hidden, "latent_dim": self.latent}
        config |= {k: getattr(self, k) for k in ("activation", "likelihood", "variance", "dtype")}
        if self.model == "vae":
            config |= {"beta": self.beta, "free_bits": self.free_bits}
        if self.conditional:
            config["classes"] = classes or _classes(dataset)
        return config

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


def check_seed(seed: Any) -> int:
    """Return `seed`; raise OptionError unless it is an integer that is not negative."""
    return int(_checked("seed", seed, errors.check_seed))


def as_text(value: object) -> str:
    """Return the value of an option as the command line takes it."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)


def _checked(option: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
    """Return what a check returns, and let its sentence begin with the option's name."""
    try:
        return check(option, value)
    except InputError as error:
        rest = str(error).removeprefix(option)
        raise OptionError(lambda spell: spell(option) + rest) from None


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
        The lowest negative ELBO of the test data so far, in nats.
    """

    def __init__(self, options: Options, out: Path, trainer: Trainer) -> None:
        self.options, self.out, self.trainer, self.best = options, out, trainer, math.inf
        self._best_state: tuple[dict[str, Any], dict[str, Any]] | None = None  # not yet written
        self._saved_at = time.monotonic()

    def __repr__(self) -> str:
        o, t = self.options, self.trainer
        return f"<Run in {self.out}: {o.kind} of {o.data}, {t.epoch} of {o.epochs} epochs>"

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

        The files are also written after an epoch, at most once a second.

        Parameters
        ----------
        on_step, on_epoch : callable
            Called with the `Terms` of every step and with the metrics of every epoch.

        Raises
        ------
        NonFiniteError
            As for :meth:`Trainer.run <scratchvae.training.Trainer.run>`; the files stay as they
            were saved last.
        """
        self._make_folder()

        def after_epoch(metrics: dict[str, float]) -> None:
            bound = metrics["test_reconstruction"] + metrics["test_kl"]  # the negative ELBO
            if bound < self.best:
                self.best, self._best_state = bound, self.trainer.state()
            if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                self.save()
            on_epoch(metrics)

        try:
            self.trainer.run(self.options.epochs, on_step, after_epoch)
        except NonFiniteError as error:
            last = self.out / LAST
            raise NonFiniteError(f"{error}; {last} is intact" if last.exists() else error) from None
        self.save()
        self.trainer.stop = False  # so that it can be called again

    def save(self) -> None:
        """Write the last checkpoint, the best one if there is a new one, and the metrics."""
        self._make_folder()
        dataset = self.trainer.dataset
        config = {
            "model": self.options.model_config(dataset, self.model.classes),
            "options": asdict(self.options),
            "image_shape": dataset.image_shape,
        }
        extra = {"config": config, "best": self.best}
        if self._best_state is not None:
            arrays, values = self._best_state
            checkpoint.save(self.out / BEST, arrays, values | extra)
            self._best_state = None
        arrays, values = self.trainer.state()
        checkpoint.save(self.out / LAST, arrays, values | extra)
        lines = "".join(json.dumps(line) + "\n" for line in self.trainer.metrics)
        checkpoint.write_atomically(self.out / METRICS, lambda f: f.write_text(lines))
        self._saved_at = time.monotonic()

    def _make_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.out}: cannot be made ({error.strerror or error}): expected a folder in "
                "which files can be written"
            ) from error

    def draw(self) -> list[Path]:
        """Write the figures that fit the model into the folder `figures`; return their paths."""
        from .plots import write_figures  # matplotlib, which training does not need

        t = self.trainer
        return write_figures(t.model, t.dataset, t.metrics, self.out / "figures")


def new(
    options: Options | None = None,
    out: str | Path | None = None,
    *,
    backend: str | Backend = "numpy",
) -> Run:
    """Return a new run; nothing is trained or written yet.

    Parameters
    ----------
    options : Options, optional
        The defaults if not given: a VAE of the embedded digits.
    out : str or Path, optional
        The folder: a new one under ``runs/`` if not given.
    backend : {"numpy", "cupy"} or Backend

    Raises
    ------
    InputError
        If the folder already holds a run, or the data cannot be read or do not fit the model.
    """
    options = options or Options()
    folder = _free_folder(options) if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise OptionError(
            lambda spell: (
                f"{spell('out')} {folder}: is a file: expected a folder, or a name for a new one"
            )
        )
    found = [file for file in (LAST, METRICS) if (folder / file).exists()]
    if found:
        raise OptionError(
            lambda spell: (
                f"{spell('out')} {folder}: already holds a run ({found[0]}): expected another "
                f"folder, or {spell('resume')} to go on with it"
            )
        )
    backend = get_backend(backend, options.noise)
    return Run(options, folder, build_trainer(options, datasets.load(options.data), backend))


def open(out: str | Path, *, backend: str | Backend = "numpy", **changes: Any) -> Run:
    """Return the run in the folder `out` as it was saved last, for a look or to draw it again.

    Parameters
    ----------
    out : str or Path
    backend : {"numpy", "cupy"} or Backend
    **changes
        Options that change: `epochs` may; another value of any other is refused.

    Raises
    ------
    InputError
        If there is no run, its file or its data cannot be read, or an option is not as it was.
    """
    path = Path(out) / LAST
    arrays, values = checkpoint.load(path)
    options = options_of(values, path).changed(changes, path)
    backend = get_backend(backend, options.noise)
    trainer = build_trainer(options, datasets.load(options.data), backend, values)
    run = Run(options, Path(out), trainer)
    run.trainer.restore(arrays, values, path)
    run.best = values["best"]
    return run


def resume(out: str | Path, *, backend: str | Backend = "numpy", **changes: Any) -> Run:
    """Return the run in the folder `out`, to go on where it was saved last.

    It reaches bitwise the same parameters as a run that was never stopped.

    Parameters
    ----------
    out, backend, **changes : as for :func:`open`
        A run that was trained to its end needs a larger `epochs`.

    Raises
    ------
    InputError
        As for `open`, and if no epoch is left.
    """
    run = open(out, backend=backend, **changes)
    if run.finished:
        raise OptionError(
            lambda spell: (
                f"{run.out}: already trained for {run.trainer.epoch} epochs: "
                f"expected a larger {spell('epochs')}"
            )
        )
    return run


def options_of(values: dict[str, Any], path: str | Path) -> Options:
    """Return the options of the run whose checkpoint holds `values`; `path` is for the error."""
    options = values.get("config", {}).get("options")
    if options is None:
        raise InputError(
            f"{path}: holds no run: expected a checkpoint that scratchvae train or sv.run wrote"
        )
    unknown = sorted(options.keys() - {field.name for field in fields(Options)})
    if unknown:
        raise InputError(
            f"{path}: made by another version of scratchvae: {', '.join(unknown)} is no option of "
            "this one"
        )
    return Options(**options)


def build_trainer(
    options: Options,
    dataset: Dataset,
    backend: str | Backend = "numpy",
    saved: dict[str, Any] | None = None,
) -> Trainer:
    """Return a trainer, with a new model and optimizer, as `options` say.

    `saved` are the values of the checkpoint whose parameters it is for: that says how many classes
    a conditional model has, of which other data may lack some.
    """
    classes = saved["config"].get("model", {}).get("classes") if saved else None
    config = options.model_config(dataset, classes)
    model = build_model(config | {"rng": options.seed}, backend)
    optimizer: Optimizer
    if options.optimizer == "adam":
        optimizer = Adam(model.params, options.lr)
    else:
        optimizer = SGD(model.params, options.lr, options.momentum)
    return Trainer(
        model,
        optimizer,
        dataset,
        batch_size=options.batch_size,
        schedule=options.learning_rate(),
        beta_schedule=warm_up(options.beta, options.warm_up) if options.warm_up else None,
        binarize=options.binarize,
        seed=options.seed,
    )


def _free_folder(options: Options) -> Path:
    data = options.data
    name = data if data in ("digits", "mnist") else Path(data).name.split(".")[0]
    n = 1
    while (folder := Path("runs") / f"{name}-{options.kind}-{n}").exists():
        n += 1
    return folder


# --- models --------------------------------------------------------------------------------------


def build_model(config: dict[str, Any], backend: str | Backend = "numpy") -> Autoencoder:
    """Return a new model as `config` describes it: its kind, one of `KINDS`, and its options."""
    options = {k: v for k, v in config.items() if k not in ("kind", "class")}
    return KINDS[config["kind"]](**options, backend=backend)


def _require_same(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Raise InputError unless what both configurations tell about the model agrees."""
    free = ("kind", "beta", "free_bits")  # they may change from one training to the next
    # Through JSON, as the file was: a tuple has become a list.
    for name, value in json.loads(json.dumps(now)).items():
        if name in saved and name not in free and saved[name] != value:
            raise InputError(
                f"{path}: made with another configuration: {name} was {saved[name]!r}, and is "
                f"{value!r} in the model"
            )


def load(path: str | Path, into: Any = None, backend: str | Backend = "numpy") -> Any:
    """Return the model in a file, ready to encode, decode and sample.

    Parameters
    ----------
    path : str or Path
        What ``model.save`` or a run wrote; or the folder of a run, whose last checkpoint is taken.
    into : model, optional
        One that you built as the one that was saved: its parameters are filled, and it is returned.
        A model with parts of its own needs this, since a file holds no code.
    backend : {"numpy", "cupy"} or Backend
        Where the model is built, unless `into` is given.

    Raises
    ------
    InputError
        If the file cannot be read, holds a model with parts of its own and `into` is not given, or
        holds other parameters than `into`.
    """
    path = Path(path)
    path = path / LAST if path.is_dir() else path
    arrays, values = checkpoint.load(path)
    config = values.get("config", {}).get("model", {})
    if into is None and config.get("kind") not in KINDS:
        of = f" of the class {config['class']}" if "class" in config else ""
        raise InputError(
            f"{path}: saved from a model{of}, which a file alone cannot build, since it holds no "
            "code: build the model as before and call sv.load(path, into=model)"
        )
    model = build_model(config, backend) if into is None else into
    _require_same(config, model.config(), path)
    model.check_parts()
    of_model = {k for k in arrays if not k.startswith("optimizer.")}
    if more := sorted(of_model - set(model.params.names)):
        raise InputError(
            f"{path}: made with another configuration: it holds {more[0]}, which the model lacks"
        )
    checkpoint.load_parameters(model.params, arrays, path)
    return model
