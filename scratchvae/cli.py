"""The command line: train, evaluate, figures, explore, encode, sample, gradcheck, demo, exercise.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a
gradient or an exercise is not right or was not checked, 2 the input cannot be used or training
broke down, 130 stopped with Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import math
import os
import signal
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import __version__, checkpoint, distributed
from .backend import (
    Backend,
    asnumpy,
    backend_of,
    blas_threads,
    cuda_error,
    get_backend,
    keep_freed_memory,
)
from .errors import (
    InputError,
    InputWarning,
    NonFiniteError,
    RanksDifferError,
    check_labels,
    check_size,
    counted,
    on_one_line,
)
from .evaluation import active_units, importance_weighted_bound, kl_of_dimensions
from .gradcheck import GradientError, Report, check, check_model, suite, taylor
from .gradcheck.files import RAISED, Unchecked, find
from .gradcheck.slopes import OutOfTime, time_limit
from .run import (
    BEST,
    CHOICES,
    LAST,
    METRICS,
    OptionError,
    OptionIgnored,
    Options,
    Run,
    as_text,
    as_word,
    check_seed,
    claimed,
    load,
    new,
    options_of,
    read_saved,
    resume,
)
from .run import open as open_run
from .training import Trainer
from .vae import Terms

OPTIONS = tuple(field.name for field in fields(Options))
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not on Windows
PATIENCE = 5  # s for the first rank to speak in, where MPI cannot tell what the others have to say


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        return _main(argv)
    finally:
        # What waits for a full disk or a terminal that is gone would end Python with 120.
        for stream in (sys.stdout, sys.stderr):
            _silence(stream)


def _main(argv: Sequence[str] | None) -> int:
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for a terminal that knows ASCII alone
    words, said = sys.argv[1:] if argv is None else argv, io.StringIO()
    # argparse takes a beginning of the word, too.
    of_ranks = any("--distributed".startswith(w.split("=")[0]) for w in words if w[:4] == "--di")
    rank = distributed.launched("RANK") if of_ranks else None
    try:
        # Ranks of mpiexec say together what is wrong with their words, which may be the same.
        with _quiet(bool(rank)), nullcontext() if rank is None else redirect_stderr(said):
            args = _parsed(argv)
    except KeyboardInterrupt:
        return 130
    except (SystemExit, OSError) as end:
        if rank and not said.getvalue():
            return 0  # the first shows the help
        if not said.getvalue():
            # The help, to somebody who may be gone, or to a disk that may be full.
            error = _silence() or end
            if isinstance(error, SystemExit):
                raise
            if isinstance(error, BrokenPipeError):
                return 141
            with suppress(OSError):
                print(f"scratchvae: {_refusal(error)}", file=sys.stderr)
            return 2
        refused = said.getvalue().strip().partition(": ")[2]
        run = functools.partial(_train_on_ranks, refused=refused)
        args = argparse.Namespace(command="train", run=run)

    def complain(sentence: object) -> None:
        with suppress(OSError):  # nobody listens any more
            print(f"scratchvae {args.command}: {on_one_line(str(sentence))}", file=sys.stderr)

    try:
        with _notes(complain):
            code = int(args.run(args))
        sys.stdout.flush()
        return code
    except OptionError as error:
        complain(error.spelled(_flag))
    except (InputError, NonFiniteError, RanksDifferError) as error:
        complain(error)
    except KeyboardInterrupt:
        complain("stopped")
        return 130
    except BrokenPipeError:
        _silence()  # who read our output has seen enough
        return 141  # what the shell makes of SIGPIPE
    except Exception as error:
        if _interrupted(error):
            complain("stopped")
            return 130
        sentence = cuda_error(error) or _refusal(error)
        if sentence is None:
            raise
        _silence()
        complain(sentence)
    return 2


@contextmanager
def _notes(complain: Callable[[object], None]) -> Iterator[None]:
    """Let our own warnings be notes on standard error, without the place in the source."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("always", InputWarning)
        shown = warnings.showwarning

        def show(message: Any, category: Any, *where: Any) -> None:
            if issubclass(category, InputWarning):
                ignored = isinstance(message, OptionIgnored)
                complain(f"note: {message.spelled(_flag) if ignored else message}")
            else:
                shown(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _refusal(error: Exception) -> str | None:
    """Return in one sentence what the system refused, or None if it was not the system."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}the system refuses ({error.strerror or error})"
    # NumPy's ValueError is for arrays of more than 2^63 bytes.
    too_big = isinstance(error, ValueError) and "too big" in str(error)
    if isinstance(error, MemoryError) or too_big:
        return f"not enough memory ({str(error) or 'the system gives no more'})"
    return None


@contextmanager
def _quiet(others_speak: bool) -> Iterator[None]:
    """Let nothing be printed, if another rank prints it."""
    with ExitStack() as stack:
        if others_speak:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


def _silence(stream: Any = None) -> OSError | None:
    """Let nothing more go to standard output, or `stream`, if it cannot take what is waiting.

    Returns why, if so.
    """
    stream = stream or sys.stdout
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; end with a suggestion where an option is misspelt."""
    import difflib

    parser = _parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        options: Any = args.options_of_command
        name = unknown[0].split("=")[0]
        close = difflib.get_close_matches(name, options, 1) if name[:1] == "-" else []
        hint = f"; did you mean {close[0]}?" if close else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return args


# --- train ---------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    """Train a model, or resume a run; write checkpoints, metrics and figures."""
    if args.distributed:
        return _train_on_ranks(args)
    if (size := distributed.launched("SIZE") or 1) > 1:
        warnings.warn(
            f"this is one of {size} processes of mpiexec and trains by itself: expected "
            "--distributed on each, if they are to train one model",
            InputWarning,
            stacklevel=2,
        )
    with ExitStack() as stack:
        return _train(_run(args, stack), args)


def _run(args: argparse.Namespace, stack: ExitStack, comm: Any = None) -> Run:
    """Return the run that the options ask for, its folder held by the first rank."""
    if args.data is not None and args.data_option is not None:
        raise InputError(f"--data: {args.data} is named already: expected one of the two")
    if args.other_data and not args.resume:
        raise InputError("--other-data: it is of --resume, and a new run takes any data")
    args.data = args.data_option if args.data is None else args.data
    given = {k: v for k in OPTIONS if (v := getattr(args, k)) is not None}
    backend, first = backend_of(args.device), comm is None or comm.rank == 0
    if not args.resume:
        run = new(Options(**given), args.out, backend=backend, comm=comm)
        if first:
            stack.enter_context(run.claimed())
    elif args.out is not None:
        if first and args.out.is_dir():
            stack.enter_context(claimed(args.out))  # before it is read
        # Without a new number of epochs, a run that has them all gets what it lacks.
        go_on = resume if "epochs" in given else open_run
        run = go_on(args.out, backend=backend, other_data=args.other_data, comm=comm, **given)
        if args.other_data and run.finished:
            raise InputError(
                f"--other-data: all {counted(run.trainer.epoch, 'epoch')} of {args.out} are done, "
                "and none is left for these data: expected a larger --epochs too"
            )
    else:
        raise InputError("--resume: no folder given: expected --out with the folder of a run")
    return run


def _train_on_ranks(args: argparse.Namespace, refused: str = "") -> int:
    """Train as one of the processes of mpiexec, of which the first prints and writes.

    If the options could not be read, `refused` says why: the others wait, and all end together.
    """
    from threadpoolctl import threadpool_limits

    def say(error: Exception) -> str:
        return error.spelled(_flag) if isinstance(error, OptionError) else str(error)

    try:
        comm = distributed.world()
    except InputError as error:
        distributed.end_waiting()
        where = ""
        if other := distributed.launched("RANK"):
            time.sleep(PATIENCE)  # the first says it and ends all, if it has no MPI either
            where = f"rank {other}: "
        raise InputError(f"{where}{refused or error}") from None
    rank = comm.rank  # it cannot be asked for when MPI has ended
    try:
        with (
            _quiet(rank > 0),
            threadpool_limits(distributed.threads_of_rank(comm), "blas"),
            ExitStack() as stack,
        ):
            with distributed.Ranks(comm).together(say):
                if refused:
                    raise InputError(refused)
                run = _run(args, stack, comm)
            code = _train(run, args)
    except (distributed.AgreedError, NonFiniteError, RanksDifferError):
        distributed.leave(comm)
        if rank > 0:
            return 0  # every rank has this error; the first says it, and ends with 2
        raise
    except BaseException as error:
        distributed.end_all()
        if rank > 0 and isinstance(error, InputError):
            raise InputError(f"rank {rank}: {say(error)}") from error
        raise
    distributed.leave(comm)
    return code


def _train(run: Run, args: argparse.Namespace) -> int:
    trainer = run.trainer

    def say(text: str) -> None:
        with suppress(OSError):  # a run does not end because nobody reads what it says
            if not args.json:
                print(text, flush=True)

    say(_describe(run))
    with _Signals(trainer) as signals:
        with _Progress(run, say) as progress:
            run.train(progress.step, progress.epoch)
        resume = f"scratchvae train --resume --out {as_word(run.out)}"
        if not run.finished:
            _say_last(
                f"Stopped in epoch {trainer.epoch + 1} after {trainer.batch} of "
                f"{trainer.batches_per_epoch} batches; nothing is lost. Go on with: {resume}"
            )
            return signals.exit_code
        if not trainer.ranks.first:
            return 0
        try:
            signals.nothing_to_save()
            _plots()
            figures = run.draw()
        except (KeyboardInterrupt, Exception) as error:
            if not _interrupted(error):
                raise
            _say_last(
                "Stopped before all figures were drawn; all epochs are saved. Draw the rest with: "
                f"{resume} (or scratchvae figures {as_word(run.out)})"
            )
            return signals.exit_code
    if args.json:
        files = {"out": str(run.out), "figures": [str(path) for path in figures]}
        print(_json(trainer.metrics[-1] | files))
    else:
        _print_outcome(run, figures)
    return 0


def _say_last(sentence: str) -> None:
    with suppress(OSError):  # after SIGHUP there is no terminal
        print(on_one_line(sentence), file=sys.stderr)


def _plots() -> Any:
    """Return `scratchvae.plots`; a signal waits until it is imported, with matplotlib.

    Its modules in C++ make classes while they are imported. An exception there ends Python.
    """
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (getattr(signal, name, None) for name in SIGNALS)
        found = {n: signal.getsignal(n) for n in numbers if n is not None}
        handlers = {n: handler for n, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        from . import plots
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            handlers[number](number, None)
    return plots


def _interrupted(error: BaseException | None) -> bool:
    """Tell whether it is Ctrl-C, or what Python 3.11 makes of it where a class is being made.

    There a RuntimeError "calling __set_name__" takes its place, as may be in any import.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


class _Signals:
    """Lets the first Ctrl-C, SIGTERM or SIGHUP end training after the present step.

    After that the run is about to save, so further ones change nothing: a terminal that is closed
    sends SIGHUP twice, and schedulers send several. Only a second Ctrl-C that comes at least one
    second after the first signal ends the command at once.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.first, self.at = trainer, 0, -math.inf  # the first's number and time
        self.saved = False
        self.numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            self.numbers.remove(signal.SIGHUP)  # nohup wants it to stay ignored

    def __enter__(self) -> _Signals:
        self.before = {number: signal.signal(number, self._receive) for number in self.numbers}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        return 128 + (self.first or signal.SIGINT)

    def nothing_to_save(self) -> None:
        """Raise KeyboardInterrupt if a signal has come, and from now on as soon as one comes."""
        self.saved = True
        if self.first:
            raise KeyboardInterrupt

    def _receive(self, signum: int, frame: object) -> None:
        again = bool(self.first)
        if not again:
            self.first, self.at, self.trainer.stop = signum, time.monotonic(), True
        meant = signum == signal.SIGINT and time.monotonic() - self.at >= 1
        if meant if again else self.saved:
            raise KeyboardInterrupt


class _Progress:
    """A bar on a terminal; elsewhere a line for about every tenth of the epochs."""

    def __init__(self, run: Run, say: Any) -> None:
        from tqdm import tqdm

        trainer = run.trainer
        self.trainer, self.epochs, self.say = trainer, run.options.epochs, say
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
        with suppress(OSError):
            self.bar.close()

    def step(self, terms: Terms) -> None:
        try:
            self._step(terms)
        except OSError:  # the terminal is gone, and the run need not go with it
            self.bar.disable = True

    def _step(self, terms: Terms) -> None:
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


def _describe(run: Run) -> str:
    options, trainer, model = run.options, run.trainer, run.model
    dataset = trainer.dataset
    widths = [dataset.data_dim, *options.hidden, options.latent]
    shape = "-".join(map(str, widths + widths[-2::-1]))
    kind = type(model).__name__
    if options.objective == "iwae":
        kind += f" of {options.samples} sample{'s' * (options.samples > 1)}"
    if options.prior == "mixture":
        kind += f" with {options.components} component{'s' * (options.components > 1)}"
    doing = "going on" if trainer.epoch or trainer.batch else "writing"
    if run.finished:
        doing = f"all {counted(trainer.epoch, 'epoch')} done, completing what is"
    lines = [
        f"{kind} {shape}, {len(model.params.value):,} parameters, {options.dtype} on "
        f"{model.backend.device}; "
        f"{len(dataset.train):,} training and {len(dataset.test):,} test examples of "
        f"{dataset.name}; {doing} in {run.out}",
    ]
    if trainer.ranks.size > 1:
        lines.append(trainer.ranks.describe(model))
    if dataset.is_binary:
        lines.append("The pixels are 0 and 1, and are taken as black and white.")
    if _is_cross_entropy(trainer):
        lines.append(
            "Note: the pixels are grey, so the Bernoulli loss is a cross-entropy and not a "
            "likelihood; --binarize dynamic makes it one."
        )
    return "\n".join(lines)


def _is_cross_entropy(trainer: Trainer) -> bool:
    """Return whether the pixels are grey and the likelihood Bernoulli: its loss is then none."""
    if not trainer.model.likelihood.binary or trainer.binarize != "none":
        return False
    some = trainer.dataset.test[:1000]
    return bool(((some > 0) & (some < trainer.dataset.scale)).any())


def _print_outcome(run: Run, figures: list[Path]) -> None:
    last = run.trainer.metrics[-1]
    model: Any = run.model
    seconds = sum(line["seconds"] for line in run.trainer.metrics)
    weight = f"{model.beta:g} x " if model.beta not in (None, 1) else ""
    print(
        f"\n{counted(len(run.trainer.metrics), 'epoch')} in {seconds:.1f} s. Test loss "
        f"{last['test_loss']:.2f} nats per example = reconstruction "
        f"{last['test_reconstruction']:.2f} + {weight}KL {last['test_kl']:.2f}; "
        f"{last['active_units']} of {model.latent_dim} latent units active."
    )
    # After a change of the data no epoch may have come yet that is the best on these.
    bound = f", {run.best:.2f} nats" if math.isfinite(run.best) else " of the data before"
    print(f"\nWrote in {run.out}:")
    for name, what in (
        (LAST, "the last state; --resume goes on from it"),
        (BEST, f"the best on the test bound{bound}"),
        (METRICS, "a line per epoch"),
    ):
        if (run.out / name).exists():
            print(f"  {name:<24} {what}")
    for path in figures:
        print(f"  {path.relative_to(run.out)}")
    if not (run.out / BEST).exists():  # somebody has removed it
        print(
            f"\n{BEST} is missing: no epoch since it was written came below its bound"
            f"{bound}, and the first that does writes it again."
        )


# --- evaluate, sample, gradcheck -----------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """Print the bounds on log p(x) of the test data, and what the latent space carries."""
    run = _opened(args)
    path = run.file
    trainer, dataset = run.trainer, run.trainer.dataset
    model: Any = run.model
    if args.seed is not None:
        trainer.seed = check_seed(args.seed)
    keep_freed_memory()
    with blas_threads(model, trainer.batch_size):  # as in training, for the same digits to the last
        terms = trainer.test_terms()
    result: dict[str, Any] = {
        "checkpoint": str(path),
        "epoch": run.position[0],
        "batch": run.position[1],  # of the epoch after that, if it was stopped there
        "data": dataset.name,
        "examples": len(dataset.test),
        "test_loss": float(terms.loss),
        "test_reconstruction": float(terms.reconstruction),
        "test_kl": float(terms.kl),
        "active_units": active_units(model, trainer.test_batches()),
    }
    if model.has_posterior and model.prior.standard:
        result["kl_per_dimension"] = kl_of_dimensions(model, trainer.test_batches()).tolist()
    if args.nll_samples is not None:
        check_size("--nll-samples", args.nll_samples)
        if not model.has_posterior:
            raise InputError("--nll-samples: the run is an autoencoder's, which has no likelihood")
        bound = importance_weighted_bound(
            model,
            _with_bar(trainer.test_batches(), len(dataset.test)),
            args.nll_samples,
            trainer.seed,
        )
        result["nll"] = float(-bound.mean())
        # One example tells nothing of the spread, and JSON has no NaN.
        error = float(bound.std(ddof=1) / len(bound) ** 0.5) if len(bound) > 1 else None
        result["nll_standard_error"] = error
        result["nll_samples"] = args.nll_samples
    if args.json:
        print(_json(result))
        return 0
    within = f" and {run.position[1]} batches" if run.position[1] else ""
    print(
        f"{path}, epoch {run.position[0]}{within}, {len(dataset.test):,} test examples of "
        f"{dataset.name}"
    )
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
        spread = "" if error is None else f" +- {error:.3f}"
        name = "-log p(x)" if model.classes is None else "-log p(x|y)"
        print(
            f"  {name:<15} {result['nll']:10.3f}{spread}, "
            f"an upper bound by {args.nll_samples:,} importance samples"
        )
    if _is_cross_entropy(trainer):
        print("  The pixels are grey: these are cross-entropies, not likelihoods.")
    return 0


def _opened(args: argparse.Namespace) -> Run:
    """Return the run that a command is to look at, with its own data or others."""
    how = {"best": args.best, "data": args.data, "other_data": True}
    run = open_run(args.run_folder, backend=backend_of(args.device), **how)
    _say_device(args, run.model.backend)
    return run


def _json(value: Any) -> str:
    """Return JSON, in which a number that is not finite is null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_bar(batches: Iterator[Any], n: int) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=n, unit="example", disable=None, desc="importance samples") as bar:
        for x in batches:
            for i in range(0, len(x), 100):
                yield x[i : i + 100]
                bar.update(len(x[i : i + 100]))


def sample(args: argparse.Namespace) -> int:
    """Draw codes from the prior and decode them, to one picture of them all or to an array."""
    if args.out.suffix not in ARRAYS:
        plots = _plots()
        if args.out.suffix.lower() not in plots.METADATA:
            expected = ", ".join((*plots.METADATA, *ARRAYS))
            raise InputError(f"--out {args.out}: expected a name that ends in {expected}")
    path, _, values = read_saved(args.run_folder)
    model = load(path, backend=_backend(args, options_of(values, path).noise))
    if not model.has_posterior:
        raise InputError(f"{path}: holds an autoencoder, which has no prior to sample from")
    check_size("-n", args.n)
    size, there = args.n * model.data_dim * model.dtype.itemsize, _memory()
    if size > there:  # before minutes are spent on finding that out
        raise InputError(
            f"-n is {args.n}: not enough memory: the samples take {size / 1e9:,.0f} GB, and this "
            f"machine has {there / 1e9:,.0f} GB: expected fewer"
        )
    given, title = {}, None
    if args.label is not None:
        if model.classes is None:
            raise InputError(f"--label: {path} holds a model without labels: leave it out")
        given["label"] = int(check_labels("--label", args.label, args.n, model.classes))
        title = f"{args.n} samples with the label {args.label}: z ~ p(z), decoded"
    images = asnumpy(model.sample(args.n, check_seed(args.seed), **given))  # (n, D)
    if args.out.suffix in ARRAYS:
        _write_arrays(args.out, {"x": images}, values.get("data", {}).get("columns"))
    else:
        shape = tuple(values["config"]["image_shape"])
        plots.save(plots.any_samples(images, shape, title), args.out)
    print(f"Wrote {args.out}")
    return 0


def _memory() -> float:
    """Return the bytes of memory of this machine; infinity where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def encode(args: argparse.Namespace) -> int:
    """Write the codes of the test data, or of the training data, as arrays."""
    if args.out.suffix not in ARRAYS:
        raise InputError(f"--out {args.out}: expected a name that ends in {', '.join(ARRAYS)}")
    run = _opened(args)
    data, codes = run.trainer.dataset, run.trainer.codes(args.train)  # (N, Z) each
    y = data.train_labels if args.train else data.test_labels
    names = ("mu", "logvar") if run.model.has_posterior else ("z",)
    _write_arrays(args.out, dict(zip(names, codes, strict=True)) | ({} if y is None else {"y": y}))
    number, latent_dim = codes[0].shape
    print(f"Wrote {args.out}: {number:,} codes of {latent_dim} dimensions")
    return 0


ARRAYS = (".npy", ".npz", ".csv")


def _write_arrays(path: Path, arrays: dict[str, Any], columns: Sequence[str] | None = None) -> None:
    """Write arrays (N, ...) of the host: all of them, or, as .npy, the first.

    `columns` are the names that head a .csv; without them each is its array's, with an index.
    """

    def write(file: Path) -> None:
        if path.suffix == ".npy":
            np.save(file, next(iter(arrays.values())))
        elif path.suffix == ".npz":
            np.savez(file, allow_pickle=False, **arrays)
        else:
            import csv

            tables = {name: a.reshape(len(a), -1) for name, a in arrays.items()}
            header = [
                f"{name}_{j}" if arrays[name].ndim > 1 else name
                for name, a in tables.items()
                for j in range(a.shape[1])
            ]
            with open(file, "w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerow(columns or header)
                np.savetxt(stream, np.hstack(list(tables.values())), "%.9g", ",")

    checkpoint.write_atomically(path, write)


def figures(args: argparse.Namespace) -> int:
    """Draw the figures of a checkpoint, also of a run that was interrupted or still goes on."""
    _plots()
    for path in _opened(args).draw(args.out):
        print(f"Wrote {path}")
    return 0


def explore(args: argparse.Namespace) -> int:
    """Write a page to explore the latent plane with: one HTML file, for any browser, offline."""
    out = args.out or args.run_folder / "explorer.html"
    if out.suffix != ".html":
        raise InputError(f"--out {out}: expected a name that ends in .html")
    run = _opened(args)
    from . import explorer

    content = explorer.page(run).encode()
    checkpoint.write_atomically(out, lambda file: file.write_bytes(content))
    print(f"Wrote {out} ({len(content) / 1e6:.1f} MB): open it in a browser")
    return 0


ITEM_SECONDS = 600  # the longest that the check of one thing in a file may take


def gradcheck(args: argparse.Namespace) -> int:
    """Check hand-written gradients against finite differences: all of ours, or a file's."""
    try:
        return _gradcheck(args)
    except SystemExit as error:  # wherever its code raised it: an exit code of 0 would be a lie
        raise InputError(f"{args.file} called sys.exit: take that out of its code") from error


def _gradcheck(args: argparse.Namespace) -> int:
    if args.file is None and args.taylor is not None:
        raise InputError("--taylor draws one gradient: name it, as in FILE.py:NAME")
    if args.seed is not None:
        check_seed(args.seed)
    ours = ((report, "") for report in suite(_backend(args), args.seed))
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
            text = "; ".join(t.rstrip(".") for t in (text, report.note) if t)
            print(f"{verdict} {report.error:9.1e}  {report.name}{text and f': {text}'}")
            if not report.ok:
                print(report.message)
    if args.json:
        rows: list[dict[str, Any]] = [
            {"name": r.name, "error": r.error, "ok": r.ok}  # infinite: nothing could be compared
            | {"verdict": r.verdict, "cause": r.cause, "message": r.message}
            for r in reports
        ]
        rows += [
            {"name": u.name, "error": None, "ok": False, "verdict": "not checked", "cause": ""}
            | {"message": u.reason}
            for u in unchecked
        ]
        print(_json(rows))
    else:
        print(_summary(reports, len(unchecked)))
    return 0 if all(r.ok for r in reports) and not unchecked else 1


def _summary(reports: list[Report], unchecked: int) -> str:
    """Return the last line of `gradcheck`."""
    wrong, undecided = (sum(r.verdict == v for r in reports) for v in ("wrong", "cannot tell"))
    others = f", {undecided} undecided" if undecided else ""
    others += f", {unchecked} not checked" if unchecked else ""
    head = f"{len(reports)} check{'s' * (len(reports) != 1)}, {wrong} wrong{others}."
    if not reports:
        return head
    largest, tolerance = max(r.error for r in reports), reports[0].tolerance
    return f"{head} Largest relative error {largest:.1e}, tolerance {tolerance:.0e}, in float64."


def _checks_of_file(args: argparse.Namespace) -> Iterator[tuple[Report | Unchecked, str]]:
    """Check what FILE.py[:NAME] names, on arguments that the second text describes."""
    found = find(args.file, np.random.default_rng(args.seed))
    if args.taylor is not None and len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise InputError(f"--taylor draws one gradient: name one of {names}, as in FILE.py:NAME")
    unchecked: list[Unchecked] = []
    for item in found:
        result = item if isinstance(item, Unchecked) else _check_of(item, args)
        small = None if isinstance(item, Unchecked) else item.with_small_eps()
        if small and isinstance(result, Report) and not result.ok:  # noise to us, a constant there
            again = _check_of(small, args)
            if isinstance(again, Report) and again.ok:
                item, result = small, again
        if isinstance(result, Unchecked):
            unchecked.append(result)
        else:
            yield result, getattr(item, "origin", "")
            unchecked += [Unchecked(f"{item.name}: {n}", w) for n, w in result.unchecked.items()]
    yield from ((item, "") for item in unchecked)


def _check_of(item: Any, args: argparse.Namespace) -> Report | Unchecked:
    """Check one pair, layer or model of a file, and draw its Taylor test if that is asked for."""
    how: dict[str, Any] = {"rng": args.seed, "name": item.name}
    try:
        with time_limit(ITEM_SECONDS):
            if hasattr(item.functions[0], "loss_and_grad"):
                report = check_model(*item.functions, *item.args, **how)
            else:
                report = check(*item.functions, item.args, wrt=item.wrt, **how)
    except OutOfTime:
        return Unchecked(item.name, f"it took more than {ITEM_SECONDS // 60} minutes")
    except GradientError as error:
        report = error.report
    except InputError as error:
        return Unchecked(item.name, str(error))
    except RAISED as error:  # of the file's own code: the others are still checked
        return Unchecked(item.name, f"it raised {type(error).__name__}: {error}")
    if args.taylor is not None:
        result = taylor(*item.functions, item.args, wrt=item.wrt, **how)
        plots = _plots()
        plots.save(plots.taylor(result), args.taylor)
        if not args.json:
            print(f"{result}\nWrote {args.taylor}")
    return report


# --- demo ----------------------------------------------------------------------------------------


def demo(args: argparse.Namespace) -> int:
    """List the demos, or run one."""
    from . import demo_tools

    if args.name is not None:
        demo_tools.run(args.name, args.options)
        return 0
    if args.options:
        raise InputError(f"expected the name of a demo before {args.options[0]}")
    for entry in demo_tools.entries():
        print(f"{entry.name}  ({entry.seconds})")
        print(textwrap.fill(entry.claim, 88, initial_indent="    ", subsequent_indent="    "))
    print("\nRun one: scratchvae demo NAME [--quick] [--device cuda] [--data mnist] [--out DIR]")
    return 0


def exercise(args: argparse.Namespace) -> int:
    """List the exercises, hand out the next one, judge yours, give a hint or the solution."""
    from .exercises import command

    return command.run(args.action, args.name, args.folder)


# --- options -------------------------------------------------------------------------------------


def _backend(args: argparse.Namespace, noise: str | None = None) -> Backend:
    backend = get_backend(backend_of(args.device), noise)
    _say_device(args, backend)
    return backend


def _say_device(args: argparse.Namespace, backend: Backend) -> None:
    if args.device == "auto" and backend.name != "numpy":
        print(f"--device auto: running on {backend.device}", file=sys.stderr)


def _flag(option: str) -> str:
    """Return what the command line calls an option of a run."""
    special = {"data": "the data", "data=": "--data"}
    return special.get(option, f"--{option.replace('_', '-')}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with what is wrong in one line, without the usage in front of it."""
        self.exit(2, f"{self.prog}: {on_one_line(message)} (see {self.prog} --help)\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help; let the caller know if it cannot be written, as argparse does not."""
        print(self.format_help(), end="", file=file)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty: expected a path")
    return Path(text)


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
        # A view: the options are added later.
        sub.set_defaults(run=run, options_of_command=sub._option_string_actions)
        return sub

    def add_common(sub: argparse.ArgumentParser, *, with_json: bool = True) -> None:
        sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                         help="where to compute (default: on a GPU if there is one)")  # fmt: skip
        if with_json:
            sub.add_argument("--json", action="store_true", help="print the results as JSON")

    sub = command(
        "train", train, "scratchvae train mnist --hidden 400 --latent 20 --epochs 10 --out runs/m"
    )

    def option(name: str, text: str, elsewhere: str = "", **how: Any) -> None:
        key = name.replace("-", "_")
        default, digits = (as_text(getattr(o, key)) for o in (Options("mnist"), Options("digits")))
        note = f"default {default}" + (f"; {digits} for the digits" if digits != default else "")
        note += f"; {elsewhere}" if elsewhere else ""
        sub.add_argument(f"--{name}", help=f"{text} ({note})", **how)

    sub.add_argument(
        "data",
        nargs="?",
        help="digits (embedded, the default), mnist, a file (.npy, .npz, IDX, CSV), or a folder of "
        "PNG or JPEG images",
    )
    option("model", "variational or plain autoencoder", choices=CHOICES["model"])
    option("network", "Linear layers, or convolutions for images without colours",
           choices=CHOICES["network"])  # fmt: skip
    option("hidden", "widths of the encoder's hidden layers, such as 200,200, or none",
           "32,64 channels for conv", type=_hidden, metavar="N[,N]")  # fmt: skip
    option("conditional", "give the VAE the labels of the data", action="store_const", const=True)
    option("latent", "latent dimensions", type=int, metavar="N")
    option("beta", "weight of the KL term", type=float, metavar="X")
    option("warm-up", "epochs in which beta rises from 0", type=float, metavar="N")
    option("free-bits", "nats of KL that a latent dimension is not charged for", type=float,
           metavar="X")  # fmt: skip
    option("objective", "the bound on log p(x) that is maximised", choices=CHOICES["objective"])
    option("samples", "draws of each code in a step of --objective iwae", type=int, metavar="K")
    option("prior", "N(0, I), or a mixture of Gaussians that is learned", choices=CHOICES["prior"])
    option("components", "Gaussians that the prior consists of", "10 for a mixture", type=int,
           metavar="K")  # fmt: skip
    option("activation", "of the hidden layers", choices=CHOICES["activation"])
    option("likelihood", "of the pixels, given z", choices=CHOICES["likelihood"])
    option("variance", "of the Gaussian: a number, shared (learned) or per-dimension",
           type=_variance, metavar="V")  # fmt: skip
    option("binarize", "grey pixels to 0 and 1", choices=CHOICES["binarize"])
    option("standardize", "bring columns of different scale to mean 0 and standard deviation 1",
           action="store_const", const=True)  # fmt: skip
    option("epochs", "passes over the training data", type=int, metavar="N")
    option("batch-size", "examples per step", type=int, metavar="N")
    option("lr", "learning rate", type=float, metavar="X")
    option("optimizer", "how parameters move", choices=CHOICES["optimizer"])
    option("momentum", "of sgd", type=float, metavar="X")
    option("schedule", "of the learning rate: constant, cosine or EPOCH:LR,EPOCH:LR,...",
           metavar="S")  # fmt: skip
    option("dtype", "number type", choices=CHOICES["dtype"])
    option("seed", "of initial parameters, order and noise", type=int, metavar="N")
    option("noise", "who draws it on a GPU: the device, which is fast, or the host, for the "
           "numbers of a run on the CPU", choices=CHOICES["noise"])  # fmt: skip
    sub.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="folder of the run (default: a new one under runs/)",
    )
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")
    sub.add_argument("--data", dest="data_option", metavar="PATH",
                     help="as DATA; with --resume: where the data of the run are now")  # fmt: skip
    sub.add_argument("--other-data", action="store_true",
                     help="with --resume: go on although the data are others")  # fmt: skip
    option("shards", "parts of a batch that are added in order, for bitwise the same parameters on "
           "every number of ranks that divides it; 0: the fastest way", type=int,
           metavar="S")  # fmt: skip
    sub.add_argument("--distributed", action="store_true",
                     help="take a share of every batch, as one of the ranks of mpiexec -n N python "
                     "-m mpi4py -m scratchvae train ...")  # fmt: skip
    add_common(sub)

    sub = command("evaluate", evaluate, "scratchvae evaluate runs/digits-vae-1 --nll-samples 1000")
    sub.add_argument("run_folder", type=_path, metavar="DIR", help="folder of a run")
    sub.add_argument("--data", help="other data than the run was trained on")
    sub.add_argument("--best", action="store_true", help="take best.safetensors, not the last")
    sub.add_argument(
        "--nll-samples", type=int, metavar="K", help="also -log p(x) by K importance samples"
    )
    sub.add_argument("--seed", type=int, metavar="N", help="of the noise (default: the run's)")
    add_common(sub)

    def add_run(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("run_folder", type=_path, metavar="DIR", help="folder of a run")
        sub.add_argument("--data", help="other data than the run was trained on")
        sub.add_argument("--best", action="store_true", help="take best.safetensors, not the last")

    sub = command("figures", figures, "scratchvae figures runs/digits-vae-1 --best")
    add_run(sub)
    sub.add_argument("--out", type=_path, metavar="DIR", help="where to (default: the run's own)")
    add_common(sub, with_json=False)

    sub = command("explore", explore, "scratchvae explore runs/digits-vae-1 --out explorer.html")
    add_run(sub)
    sub.add_argument("--out", type=_path, metavar="FILE",
                     help=".html (default: explorer.html in the folder of the run)")  # fmt: skip
    add_common(sub, with_json=False)

    sub = command("encode", encode, "scratchvae encode runs/digits-vae-1 --out codes.npz")
    add_run(sub)
    sub.add_argument("--train", action="store_true", help="the training data, not the test data")
    sub.add_argument("--out", type=_path, required=True, metavar="FILE",
                     help=".npz or .csv: mu, logvar and labels; .npy: mu alone")  # fmt: skip
    add_common(sub, with_json=False)

    sub = command("sample", sample, "scratchvae sample runs/digits-vae-1 -n 64 --out samples.png")
    sub.add_argument("run_folder", type=_path, metavar="DIR", help="folder of a run")
    sub.add_argument("-n", type=int, default=64, metavar="N", help="how many (default 64)")
    sub.add_argument(
        "--out",
        type=_path,
        required=True,
        metavar="FILE",
        help=".png, .svg or .pdf: a picture; .npy, .npz or .csv: the numbers",
    )
    sub.add_argument(
        "--label", type=int, metavar="Y", help="of all of them, from a run with --conditional"
    )
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    add_common(sub, with_json=False)

    sub = command("demo", demo, "scratchvae demo mu_and_sigma --quick")
    sub.add_argument("name", nargs="?", help="which demo to run (default: list them)")
    sub.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="of the demo: NAME --help"
    )

    sub = command("exercise", exercise, "scratchvae exercise next")
    sub.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "next", "check", "watch", "hint", "solution", "export"),
        metavar="ACTION",
        help="list (the default); next writes the next exercise; check judges it, watch on every "
        "save; hint; solution after two failures; export writes a folder with tests for a course",
    )
    sub.add_argument("name", nargs="?", help="which exercise (default: the one you are at); of "
                     "export: the folder to write")  # fmt: skip
    sub.add_argument("--folder", type=_path, metavar="DIR",
                     help="where your exercises are (default: exercises)")  # fmt: skip

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
    sub.add_argument(
        "--taylor", type=_path, metavar="FILE.png", help="draw the Taylor test of NAME"
    )
    sub.add_argument("--seed", type=int, metavar="N", help="of the random numbers (default: new)")
    add_common(sub)
    return parser
