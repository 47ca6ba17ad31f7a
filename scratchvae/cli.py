"""The command line: train, evaluate, sample, gradcheck and demo.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a
gradient is not right or was not checked, 2 the input cannot be used or training broke down, 130
stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import __version__, checkpoint, datasets
from .activations import ACTIVATIONS
from .backend import Backend, asnumpy, backend_of, blas_threads, cuda_error, get_backend
from .errors import InputError, NonFiniteError, check_number, check_size
from .evaluation import active_units, importance_weighted_bound, kl_of_dimensions
from .gradcheck import GradientError, Report, check, check_model, suite, taylor
from .gradcheck.files import Unchecked, find
from .optimizers import SGD, Adam, Optimizer
from .schedules import Schedule, constant, cosine, step_list, warm_up
from .training import Trainer
from .vae import VAE, Terms

# What `train` takes where an option is not given. The digits are few and small: a 2-D latent
# space, which can be drawn, and more passes over them.
DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "model": "vae",
    "hidden": (400,),
    "latent": 20,
    "beta": 1.0,
    "warm_up": 0,
    "free_bits": 0.0,
    "activation": "relu",
    "likelihood": "bernoulli",
    "variance": 1.0,
    "binarize": "none",
    "epochs": 10,
    "batch_size": 128,
    "lr": 1e-3,
    "optimizer": "adam",
    "momentum": 0.9,
    "schedule": "constant",
    "dtype": "float32",
    "seed": 0,
    "noise": "device",
}
DIGITS_DEFAULTS = {"latent": 2, "epochs": 300}

SECONDS_BETWEEN_CHECKPOINTS = 1.0  # epochs on the digits are shorter than a write to the disk


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (InputError, NonFiniteError) as error:
        print(f"scratchvae {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"scratchvae {args.command}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = cuda_error(error)
        if sentence is None:
            raise
        print(f"scratchvae {args.command}: {sentence}", file=sys.stderr)
        return 2


# --- train ---------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    """Train a model, or go on with one; write checkpoints, metrics and figures."""
    given = {k: v for k in DEFAULTS if (v := getattr(args, k)) is not None}
    out, options, saved = _open_run(args, given)
    for name in ("latent", "batch-size", "epochs"):
        check_size(f"--{name}", options[name.replace("-", "_")])
    for width in options["hidden"]:
        check_size("--hidden", width)
    check_number("--lr", options["lr"])
    for name in ("beta", "warm-up", "free-bits"):
        check_number(f"--{name}", options[name.replace("-", "_")])
    _check_seed(options["seed"])
    backend = _backend(args, options["noise"])
    dataset = datasets.load(options["data"])
    trainer = _build(options, dataset, backend)
    config = {
        "model": _model_config(options, dataset),
        "options": options,
        "image_shape": dataset.image_shape,
    }
    best = float("inf")
    if saved is not None:
        arrays, values = saved
        checkpoint.restore_trainer(trainer, arrays, values, out / "checkpoint.safetensors")
        best = values["best"]
    if trainer.epoch >= options["epochs"]:
        raise InputError(
            f"{out}: already trained for {trainer.epoch} epochs: expected a larger --epochs"
        )
    say = (lambda text: None) if args.json else print
    say(_describe(trainer, options, dataset, out))

    run = _Run(trainer, config, out, best)
    with _stop_on_ctrl_c(trainer), _Progress(trainer, options, say) as progress:

        def on_epoch(metrics: dict[str, float]) -> None:
            run.after_epoch(metrics)
            progress.epoch(metrics)

        try:
            trainer.run(options["epochs"], progress.step, on_epoch)
        except NonFiniteError as error:
            last = out / "checkpoint.safetensors"
            raise NonFiniteError(f"{error}; {last} is intact" if last.exists() else error) from None
    run.save()
    if trainer.epoch < options["epochs"]:
        print(
            f"Stopped in epoch {trainer.epoch + 1} after {trainer.batch} of "
            f"{trainer.batches_per_epoch} batches; nothing is lost. "
            f"Go on with: scratchvae train --resume --out {out}",
            file=sys.stderr,
        )
        return 130

    from .plots import write_figures

    figures = write_figures(trainer.model, dataset, trainer.metrics, out / "figures")
    if args.json:
        files = {"out": str(out), "figures": [str(path) for path in figures]}
        print(json.dumps(trainer.metrics[-1] | files))
    else:
        _print_outcome(trainer, run, figures)
    return 0


def _open_run(
    args: argparse.Namespace, given: dict[str, Any]
) -> tuple[Path, dict[str, Any], tuple[dict[str, Any], dict[str, Any]] | None]:
    """Return the folder, the options in force and, to resume, what the checkpoint holds."""
    data = given.get("data", DEFAULTS["data"])
    defaults = DEFAULTS | (DIGITS_DEFAULTS if data == "digits" else {})
    if not args.resume:
        name = data if data in ("digits", "mnist") else Path(data).name.split(".")[0]
        out = args.out or _free_folder(f"{name}-{given.get('model', DEFAULTS['model'])}")
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out}: is a file: expected a folder, or a name for a new one")
        for file in ("checkpoint.safetensors", "metrics.jsonl"):
            if (out / file).exists():
                raise InputError(
                    f"--out {out}: already holds a run ({file}): expected another folder, or "
                    "--resume to go on with it"
                )
        return out, defaults | given, None

    if args.out is None:
        raise InputError("--resume: no folder given: expected --out with the folder of a run")
    path = args.out / "checkpoint.safetensors"
    arrays, values = checkpoint.load(path)
    before = DEFAULTS | values["config"]["options"]
    before["hidden"] = tuple(before["hidden"])
    fixed = [k for k in given if k != "epochs" or before["schedule"] == "cosine"]
    for k in fixed:
        if given[k] != before[k]:
            option = "the data" if k == "data" else f"--{k.replace('_', '-')}"
            raise InputError(
                f"{path}: made with another configuration: {option} was {_text(before[k])}, "
                f"this command asks for {_text(given[k])}"
            )
    return args.out, before | given, (arrays, values)


def _free_folder(name: str) -> Path:
    n = 1
    while (folder := Path("runs") / f"{name}-{n}").exists():
        n += 1
    return folder


def _model_config(options: dict[str, Any], dataset: datasets.Dataset) -> dict[str, Any]:
    """Return what `checkpoint.build_model` needs."""
    config = {"kind": options["model"], "data_dim": dataset.data_dim}
    config |= {"hidden": options["hidden"], "latent_dim": options["latent"]}
    config |= {k: options[k] for k in ("activation", "likelihood", "variance", "dtype")}
    if options["model"] == "vae":
        config |= {"beta": options["beta"], "free_bits": options["free_bits"]}
    return config


def _build(options: dict[str, Any], dataset: datasets.Dataset, backend: Backend) -> Trainer:
    config = _model_config(options, dataset)
    model = checkpoint.build_model(config | {"rng": options["seed"]}, backend)
    optimizer: Optimizer
    if options["optimizer"] == "adam":
        optimizer = Adam(model.params, options["lr"])
    else:
        optimizer = SGD(model.params, options["lr"], options["momentum"])
    return Trainer(
        model,
        optimizer,
        dataset,
        batch_size=options["batch_size"],
        schedule=_schedule(options),
        beta_schedule=warm_up(options["beta"], w) if (w := options["warm_up"]) else None,
        binarize=options["binarize"],
        seed=options["seed"],
    )


def _schedule(options: dict[str, Any]) -> Schedule:
    name, lr = options["schedule"], options["lr"]
    if name == "constant":
        return constant(lr)
    if name == "cosine":
        return cosine(lr, options["epochs"])
    try:
        pairs = [part.split(":") for part in name.split(",")]
        return step_list(lr, {float(epoch): float(rate) for epoch, rate in pairs})
    except ValueError:
        raise InputError(
            f"--schedule is {name!r}: expected constant, cosine or EPOCH:LR,EPOCH:LR,..."
        ) from None


class _Run:
    """The files of a run: the last checkpoint, the best one, and the metrics."""

    def __init__(self, trainer: Trainer, config: dict[str, Any], out: Path, best: float) -> None:
        self.trainer, self.config, self.out, self.best = trainer, config, out, best
        self.best_state: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.saved_at = time.monotonic()

    def after_epoch(self, metrics: dict[str, float]) -> None:
        bound = metrics["test_reconstruction"] + metrics["test_kl"]  # the negative ELBO
        if bound < self.best:
            self.best = bound
            self.best_state = checkpoint.trainer_state(self.trainer)
        if time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            self.save()

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        extra = {"config": self.config, "best": self.best}
        if self.best_state is not None:
            arrays, values = self.best_state
            checkpoint.save(self.out / "best.safetensors", arrays, values | extra)
            self.best_state = None
        arrays, values = checkpoint.trainer_state(self.trainer)
        checkpoint.save(self.out / "checkpoint.safetensors", arrays, values | extra)
        lines = "".join(json.dumps(line) + "\n" for line in self.trainer.metrics)
        checkpoint.write_atomically(self.out / "metrics.jsonl", lambda f: f.write_text(lines))
        self.saved_at = time.monotonic()


@contextmanager
def _stop_on_ctrl_c(trainer: Trainer) -> Iterator[None]:
    """Let the first Ctrl-C end training after the present step; a second one acts as always."""

    def stop(signum: int, frame: object) -> None:
        trainer.stop = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Progress:
    """A bar on a terminal; elsewhere a line for about every tenth of the epochs."""

    def __init__(self, trainer: Trainer, options: dict[str, Any], say: Any) -> None:
        from tqdm import tqdm

        self.trainer, self.epochs, self.say = trainer, options["epochs"], say
        per_epoch = trainer.batches_per_epoch
        self.bar = tqdm(
            total=self.epochs * per_epoch,
            initial=trainer.epoch * per_epoch + trainer.batch,
            disable=None,  # where standard error is not a terminal
            unit="step",
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        )
        self.active = "-"

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.close()

    def step(self, terms: Terms) -> None:
        if not self.bar.disable and self.trainer.optimizer.steps % self.trainer.check_every == 0:
            self.bar.set_description_str(f"epoch {self.trainer.epoch + 1}/{self.epochs}", False)
            loss, reconstruction, kl = (float(t) for t in terms)
            self.bar.set_postfix_str(
                f"loss {loss:.2f} = rec {reconstruction:.2f} + kl {kl:.2f}, active {self.active}",
                False,
            )
        self.bar.update()

    def epoch(self, metrics: dict[str, float]) -> None:
        n, latent = int(metrics["epoch"]), self.trainer.model.latent_dim
        self.active = f"{metrics['active_units']}/{latent}"
        every = max(1, self.epochs // 10)
        if self.bar.disable and (n % every == 0 or n == self.epochs):
            self.say(
                f"epoch {n:>{len(str(self.epochs))}}/{self.epochs}"
                f"   train loss {metrics['train_loss']:.2f}   test loss {metrics['test_loss']:.2f}"
                f" (reconstruction {metrics['test_reconstruction']:.2f},"
                f" KL {metrics['test_kl']:.2f})   active units {self.active}"
                f"   {metrics['seconds']:.2f} s"
            )


def _describe(
    trainer: Trainer, options: dict[str, Any], dataset: datasets.Dataset, out: Path
) -> str:
    model = trainer.model
    widths = [dataset.data_dim, *options["hidden"], options["latent"]]
    shape = "-".join(map(str, widths + widths[-2::-1]))
    kind = "VAE" if options["model"] == "vae" else "Autoencoder"
    lines = [
        f"{kind} {shape}, {len(model.params.value):,} parameters, {options['dtype']} on "
        f"{model.backend.device}; "
        f"{len(dataset.train):,} training and {len(dataset.test):,} test examples of "
        f"{dataset.name}; {'going on' if trainer.epoch or trainer.batch else 'writing'} in {out}",
    ]
    if _is_cross_entropy(trainer):
        lines.append(
            "Note: the pixels are grey, so the Bernoulli loss is a cross-entropy and not a "
            "likelihood; --binarize dynamic makes it one."
        )
    return "\n".join(lines)


def _is_cross_entropy(trainer: Trainer) -> bool:
    """Tell whether grey pixels meet the Bernoulli likelihood, whose loss is then none."""
    if not trainer.model.likelihood.binary or trainer.binarize != "none":
        return False
    some = trainer.dataset.test[:1000]
    return bool(((some > 0) & (some < trainer.dataset.scale)).any())


def _print_outcome(trainer: Trainer, run: _Run, figures: list[Path]) -> None:
    last, model = trainer.metrics[-1], trainer.model
    seconds = sum(line["seconds"] for line in trainer.metrics)
    weight = f"{model.beta:g} x " if isinstance(model, VAE) and model.beta != 1 else ""
    print(
        f"\n{last['epoch']} epochs in {seconds:.1f} s. Test loss {last['test_loss']:.2f} nats per "
        f"example = reconstruction {last['test_reconstruction']:.2f} + {weight}KL "
        f"{last['test_kl']:.2f}; {last['active_units']} of {model.latent_dim} latent units active."
    )
    print(f"\nWrote in {run.out}:")
    for name, what in (
        ("checkpoint.safetensors", "the last state; --resume goes on from it"),
        ("best.safetensors", f"the best on the test bound, {run.best:.2f} nats"),
        ("metrics.jsonl", "a line per epoch"),
    ):
        print(f"  {name:<24} {what}")
    for path in figures:
        print(f"  {path.relative_to(run.out)}")


# --- evaluate, sample, gradcheck -----------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """Print the bounds and the use of the latent space on the test data."""
    path = args.run_folder / ("best.safetensors" if args.best else "checkpoint.safetensors")
    arrays, values = checkpoint.load(path)
    options = values["config"]["options"]
    dataset = datasets.load(args.data or options["data"])
    trainer = _build(options, dataset, _backend(args, options.get("noise")))
    model = trainer.model
    checkpoint.load_parameters(model, arrays, path)
    if args.seed is not None:
        trainer.seed = _check_seed(args.seed)
    with blas_threads(model, trainer.batch_size):  # as in training, for the same digits to the last
        terms = trainer.test_terms()
    result: dict[str, Any] = {
        "checkpoint": str(path),
        "epoch": values["epoch"],
        "data": dataset.name,
        "examples": len(dataset.test),
        "test_loss": float(terms.loss),
        "test_reconstruction": float(terms.reconstruction),
        "test_kl": float(terms.kl),
        "active_units": active_units(model, trainer.test_batches()),
    }
    if isinstance(model, VAE):
        result["kl_per_dimension"] = kl_of_dimensions(model, trainer.test_batches()).tolist()
    if args.nll_samples is not None:
        check_size("--nll-samples", args.nll_samples)
        if not isinstance(model, VAE):
            raise InputError("--nll-samples: the run is an autoencoder's, which has no likelihood")
        bound = importance_weighted_bound(
            model,
            _with_bar(trainer.test_batches(), len(dataset.test)),
            args.nll_samples,
            trainer.seed,
        )
        result["nll"] = float(-bound.mean())
        result["nll_standard_error"] = float(bound.std(ddof=1) / len(bound) ** 0.5)
        result["nll_samples"] = args.nll_samples
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{path}, epoch {values['epoch']}, {len(dataset.test):,} test examples of {dataset.name}")
    print(f"  loss            {result['test_loss']:10.3f} nats per example")
    print(f"  reconstruction  {result['test_reconstruction']:10.3f}")
    print(f"  KL              {result['test_kl']:10.3f}")
    print(f"  active units    {result['active_units']:6d} of {model.latent_dim}")
    if "kl_per_dimension" in result:
        row = " ".join(f"{kl:.2f}" for kl in result["kl_per_dimension"])
        print(
            textwrap.fill(row, 80, initial_indent="  KL by dimension ", subsequent_indent=" " * 18)
        )
    if "nll" in result:
        print(
            f"  -log p(x)       {result['nll']:10.3f} +- {result['nll_standard_error']:.3f}, "
            f"an upper bound by {args.nll_samples:,} importance samples"
        )
    if _is_cross_entropy(trainer):
        print("  The pixels are grey: these are cross-entropies, not likelihoods.")
    return 0


def _with_bar(batches: Iterator[Any], n: int) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=n, unit="example", disable=None, desc="importance samples") as bar:
        for x in batches:
            for i in range(0, len(x), 100):
                yield x[i : i + 100]
                bar.update(len(x[i : i + 100]))


def sample(args: argparse.Namespace) -> int:
    """Draw codes from the prior, decode them and write one picture of all."""
    from . import plots

    path = args.run_folder / "checkpoint.safetensors"
    arrays, values = checkpoint.load(path)
    backend = _backend(args, values["config"]["options"].get("noise"))
    model = checkpoint.build_model(values["config"]["model"], backend)
    checkpoint.load_parameters(model, arrays, path)
    if not isinstance(model, VAE):
        raise InputError(f"{path}: holds an autoencoder, which has no prior to sample from")
    check_size("-n", args.n)
    images = asnumpy(model.sample(args.n, _check_seed(args.seed)))  # (n, D)
    shape = tuple(values["config"]["image_shape"])
    plots.save(plots.samples(images, shape), args.out)
    print(f"Wrote {args.out}")
    return 0


def gradcheck(args: argparse.Namespace) -> int:
    """Check hand-written gradients against finite differences: all of ours, or a file's."""
    if args.file is None and args.taylor is not None:
        raise InputError("--taylor draws one gradient: name it, as in FILE.py:NAME")
    ours = ((report, "") for report in suite(_backend(args)))
    reports, unchecked = [], []
    for report, text in ours if args.file is None else _checks_of_file(args):
        if isinstance(report, Unchecked):
            unchecked.append(report)
            if not args.json:
                print(f"-             {report.name}: not checked: {report.reason}")
            continue
        reports.append(report)
        if not args.json:
            verdict = {"right": "ok   ", "wrong": "WRONG", "cannot tell": "?    "}[report.verdict]
            print(f"{verdict} {report.error:9.1e}  {report.name}{text and f': {text}'}")
            if not report.ok:
                print(report.message)
    if args.json:
        rows: list[dict[str, Any]] = [
            # Where nothing could be compared the error is infinite, which JSON does not have.
            {"name": r.name, "error": r.error if math.isfinite(r.error) else None, "ok": r.ok}
            | {"verdict": r.verdict, "cause": r.cause, "message": r.message}
            for r in reports
        ]
        rows += [
            {"name": u.name, "error": None, "ok": False, "verdict": "not checked", "cause": ""}
            | {"message": u.reason}
            for u in unchecked
        ]
        print(json.dumps(rows))
    else:
        print(_summary(reports, len(unchecked)))
    return 0 if all(r.ok for r in reports) and not unchecked else 1


def _summary(reports: list[Report], unchecked: int) -> str:
    """Return the last line of `gradcheck`."""
    wrong, undecided = (sum(r.verdict == v for r in reports) for v in ("wrong", "cannot tell"))
    others = f", {undecided} undecided" if undecided else ""
    others += f", {unchecked} not checked" if unchecked else ""
    largest, tolerance = max(r.error for r in reports), reports[0].tolerance
    return (
        f"{len(reports)} check{'s' * (len(reports) > 1)}, {wrong} wrong{others}. Largest "
        f"relative error {largest:.1e}, tolerance {tolerance:.0e}, in float64."
    )


def _checks_of_file(args: argparse.Namespace) -> Iterator[tuple[Report | Unchecked, str]]:
    """Check what FILE.py[:NAME] names, on arguments that the second text describes.

    Where nothing at all can be checked it raises InputError with the first reason.
    """
    found = find(args.file, np.random.default_rng(args.seed))
    if args.taylor is not None and len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise InputError(f"--taylor draws one gradient: name one of {names}, as in FILE.py:NAME")
    unchecked, any_checked = [], False
    for item in found:
        result = item if isinstance(item, Unchecked) else _check_of(item, args)
        if isinstance(result, Unchecked):
            unchecked.append(result)
        else:
            any_checked = True
            yield result, getattr(item, "origin", "")
    if not any_checked:
        raise InputError(unchecked[0].reason)
    yield from ((item, "") for item in unchecked)


def _check_of(item: Any, args: argparse.Namespace) -> Report | Unchecked:
    """Check one pair, layer or model of a file, and draw its Taylor test if that is asked for."""
    how: dict[str, Any] = {"rng": args.seed, "name": item.name}
    try:
        if hasattr(item.functions[0], "loss_and_grad"):
            report = check_model(*item.functions, *item.args, **how)
        else:
            report = check(*item.functions, item.args, **how)
    except GradientError as error:
        report = error.report
    except InputError as error:
        return Unchecked(item.name, str(error))
    if args.taylor is not None:
        result = taylor(*item.functions, item.args, **how)
        from . import plots

        plots.save(plots.taylor(result), args.taylor)
        if not args.json:
            print(f"{result}\nWrote {args.taylor}")
    return report


# --- demo ----------------------------------------------------------------------------------------


def demo(args: argparse.Namespace) -> int:
    """List the demos, or run one."""
    from . import demo as demos

    if args.name is not None:
        demos.run(args.name, args.options)
        return 0
    if args.options:
        raise InputError(f"expected the name of a demo before {args.options[0]}")
    for entry in demos.entries():
        print(f"{entry.name}  ({entry.seconds})")
        print(textwrap.fill(entry.claim, 88, initial_indent="    ", subsequent_indent="    "))
    print("\nRun one: scratchvae demo NAME [--quick] [--device cuda] [--data mnist] [--out DIR]")
    return 0


# --- options -------------------------------------------------------------------------------------


def _backend(args: argparse.Namespace, noise: str | None = None) -> Backend:
    backend = get_backend(backend_of(args.device), noise)
    if args.device == "auto" and backend.name != "numpy" and args.command != "train":  # it says so
        print(f"--device auto: running on {backend.device}", file=sys.stderr)
    return backend


def _check_seed(seed: int) -> int:
    if seed < 0:
        raise InputError(f"--seed is {seed}: expected 0 or a larger integer")
    return seed


def _text(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage in front of it."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _hidden(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(n) for n in text.split(","))
    except ValueError:
        what = f"is {text!r}: expected widths such as 400 or 200,200, or none"
        raise argparse.ArgumentTypeError(what) from None


def _variance(text: str) -> float | str:
    try:
        return text if text in ("shared", "per-dimension") else float(text)
    except ValueError:
        what = f"is {text!r}: expected a positive number, shared or per-dimension"
        raise argparse.ArgumentTypeError(what) from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="scratchvae", description="A variational autoencoder, every gradient by hand."
    )
    parser.add_argument("--version", action="version", version=f"scratchvae {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=(summary := run.__doc__.splitlines()[0]),
            description=summary,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    def add_common(sub: argparse.ArgumentParser, *, with_json: bool = True) -> None:
        sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        if with_json:
            sub.add_argument("--json", action="store_true", help="print the results as JSON")

    sub = command(
        "train", train, "scratchvae train mnist --hidden 400 --latent 20 --epochs 10 --out runs/m"
    )

    def option(name: str, text: str, **how: Any) -> None:
        default = DEFAULTS[name.replace("-", "_")]
        digits = DIGITS_DEFAULTS.get(name)
        note = f"default {_text(default)}" + (f"; {digits} for the digits" if digits else "")
        sub.add_argument(f"--{name}", help=f"{text} ({note})", **how)

    sub.add_argument(
        "data",
        nargs="?",
        help="digits (embedded, the default), mnist, or a file: .npy, .npz with array x, or IDX",
    )
    option("model", "variational or plain autoencoder", choices=("vae", "ae"))
    option("hidden", "widths of the encoder's hidden layers, such as 200,200, or none",
           type=_hidden, metavar="N[,N]")  # fmt: skip
    option("latent", "latent dimensions", type=int, metavar="N")
    option("beta", "weight of the KL term", type=float, metavar="X")
    option("warm-up", "epochs in which beta rises from 0", type=float, metavar="N")
    option("free-bits", "nats of KL that a latent dimension has for nothing", type=float,
           metavar="X")  # fmt: skip
    option("activation", "of the hidden layers", choices=tuple(ACTIVATIONS))
    option("likelihood", "of the pixels, given z", choices=("bernoulli", "gaussian"))
    option("variance", "of the Gaussian: a number, shared (learned) or per-dimension",
           type=_variance, metavar="V")  # fmt: skip
    option("binarize", "grey pixels to 0 and 1", choices=datasets.BINARIZE)
    option("epochs", "passes over the training data", type=int, metavar="N")
    option("batch-size", "examples per step", type=int, metavar="N")
    option("lr", "learning rate", type=float, metavar="X")
    option("optimizer", "how parameters move", choices=("adam", "sgd"))
    option("momentum", "of sgd", type=float, metavar="X")
    option("schedule", "of the learning rate: constant, cosine or EPOCH:LR,EPOCH:LR,...",
           metavar="S")  # fmt: skip
    option("dtype", "number type", choices=("float32", "float64"))
    option("seed", "of initial parameters, order and noise", type=int, metavar="N")
    option("noise", "who draws it on a GPU: the device, which is fast, or the host, for the "
           "numbers of a run on the CPU", choices=("device", "host"))  # fmt: skip
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: a new one under runs/)"
    )
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")
    add_common(sub)

    sub = command("evaluate", evaluate, "scratchvae evaluate runs/digits-vae-1 --nll-samples 1000")
    sub.add_argument("run_folder", type=Path, metavar="DIR", help="folder of a run")
    sub.add_argument("--data", help="other data than the run was trained on")
    sub.add_argument("--best", action="store_true", help="take best.safetensors, not the last")
    sub.add_argument(
        "--nll-samples", type=int, metavar="K", help="also -log p(x) by K importance samples"
    )
    sub.add_argument("--seed", type=int, metavar="N", help="of the noise (default: the run's)")
    add_common(sub)

    sub = command("sample", sample, "scratchvae sample runs/digits-vae-1 -n 64 --out samples.png")
    sub.add_argument("run_folder", type=Path, metavar="DIR", help="folder of a run")
    sub.add_argument("-n", type=int, default=64, metavar="N", help="how many (default 64)")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="where to")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    add_common(sub, with_json=False)

    sub = command("demo", demo, "scratchvae demo mu_and_sigma --quick")
    sub.add_argument("name", nargs="?", help="which demo to run (default: list them)")
    sub.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="of the demo: NAME --help"
    )

    sub = command(
        "gradcheck", gradcheck, "scratchvae gradcheck layers.py:Scale --taylor taylor.png"
    )
    sub.add_argument(
        "file",
        nargs="?",
        metavar="FILE.py[:NAME]",
        help="your own functions f with f_backward, layers or models, on the arguments f_args if "
        "the file has them (default: all gradients of scratchvae)",
    )
    sub.add_argument("--taylor", type=Path, metavar="FILE.png", help="draw the Taylor test of NAME")
    sub.add_argument("--seed", type=int, metavar="N", help="of the random numbers (default: new)")
    add_common(sub)
    return parser
