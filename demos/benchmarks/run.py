"""How fast is a training step? `make benchmark` runs this file and writes docs/benchmark/.

Every contestant is a process of its own. It is started once for each case, trains for three epochs
to warm up, and then waits (blocked, at no cost) until it is its turn; the contestants take turns,
several rounds, and what is reported is the median of the ratios round by round. All use the same
number of threads.

    python demos/benchmarks/run.py [--rounds 15] [--seconds 0.5] [--only NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from contestants import CONTESTANTS, IN_MEMORY_OR_NOT, OTHER_MODELS, Case, Step, mnist_file

ROOT = Path(__file__).resolve().parents[2]
THREADS = "2"
FLOOR = "matrix products"
STACKS = {
    "784-400-20-400-784": ((784, 400, 20), "relu"),
    "784-200-200-50-200-200-784": ((784, 200, 200, 50), "tanh"),
}
BATCHES = (128, 1024, 4096)
MODELS = {
    # as of `scratchvae train mnist --network conv`
    "convolutions, 32 and 64 channels": {"sizes": (784, 32, 64, 20), "network": "conv"},
    "importance-weighted, 784-400-20-400-784, 5 samples": {"sizes": (784, 400, 20), "samples": 5},
}
ALL = {**CONTESTANTS, **IN_MEMORY_OR_NOT}  # name -> (function, environment)


def environment(extra: dict[str, str]) -> dict[str, str]:
    """Return the variables of a worker: as a reader's machine has them, with equal threads."""
    # Settings that name a processor for OpenBLAS are this machine's and not a reader's.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_", "SCRATCHVAE_C"))}
    for library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        env[f"{library}_NUM_THREADS"] = THREADS
    folders = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, "PYTHONPATH": os.pathsep.join(folders), **extra}


class Worker:
    """One contestant on one case, in a process of its own."""

    def __init__(self, name: str, case: Case, log: Path) -> None:
        self.name = name
        with log.open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--work", name, json.dumps(case)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(ALL[name][1]),
            )

    def ask(self, steps: int) -> float:
        """Return the seconds that so many steps took; RuntimeError if the process is gone."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")
        return float(answer)

    def end(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def work(name: str, case: Case) -> None:
    """Be a worker: for every number of steps on standard input print the seconds they took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    step = ALL[name][0](case)
    for line in sys.stdin:
        answers.write(f"{wall_seconds(step, int(line))}\n")
        answers.flush()


def wall_seconds(step: Step, n: int) -> float:
    start = time.perf_counter()
    step(n)
    return time.perf_counter() - start


def measure(
    case: Case,
    names: list[str],
    rounds: int,
    seconds: float,
    log: Path,
    epochs: int = 0,
) -> dict:
    """Return the milliseconds of a step, one number a round, of every contestant; or its error.

    Each has had so many epochs when its first turn comes.
    """
    workers = [Worker(name, case, log) for name in names]
    steps, result = {}, {}
    try:
        for worker in workers:
            name = worker.name
            print(f"  {name} warms up{20 * ' '}", end="\r", file=sys.stderr)
            try:
                worker.ask(2)  # compiles
                worker.ask(max(1, epochs * case.n // case.batch))
                once = worker.ask(3) / 3
                steps[name] = max(3, round(seconds / once))
                worker.ask(steps[name])
                result[name] = []
            except RuntimeError as error:
                result[name] = f"{error}: see {log}"
                print(result[name], file=sys.stderr)
        for i in range(rounds):
            for worker in workers:
                if worker.name in steps:
                    time.sleep(0.2)  # the threads of the one before stop spinning
                    taken = worker.ask(steps[worker.name]) / steps[worker.name]
                    result[worker.name].append(1000 * taken)
            print(f"  round {i + 1} of {rounds}{20 * ' '}", end="\r", file=sys.stderr)
    finally:
        for worker in workers:
            worker.end()
    return result


# ---- other figures -------------------------------------------------------------------------------

# What is changed, and to what; the rest stays as in 784-400-20 at batch 1024 with 60,000 images.
SCALES = {
    "batch size": [{"batch": b} for b in (256, 512, 1024, 2048, 4096)],
    "width": [{"sizes": (784, h, 20)} for h in (200, 400, 800, 1600)],
    "images": [{"n": n} for n in (30_000, 60_000, 120_000, 240_000)],
}


def scaling(rounds: int, seconds: float, log: Path) -> dict:
    """Return the milliseconds of a step along each of `SCALES`, and the exponent that fits best."""
    result = {}
    for what, changes in SCALES.items():
        sizes, times = [], []
        for change in changes:
            case = Case((784, 400, 20), "relu", 1024)._replace(**change)
            name = "scratchvae[fast]"
            taken = measure(case, [name], rounds, seconds, log)[name]
            times.append(statistics.median(taken))
            value = next(iter(change.values()))
            sizes.append(value[1] if isinstance(value, tuple) else value)
        # time = a size^exponent: a straight line of logarithms
        exponent, _ = statistics.linear_regression([*map(math.log, sizes)], [*map(math.log, times)])
        result[what] = {"sizes": sizes, "milliseconds": times, "exponent": exponent}
    return result


def mapped(rounds: int, seconds: float, log: Path) -> dict[int, float]:
    """Return for each batch size a step's time with the images in a file, over that in memory."""
    found = {}
    for batch in BATCHES:
        case = Case((784, 400, 20), "relu", batch)
        inside, outside = measure(case, [*IN_MEMORY_OR_NOT], rounds, seconds, log).values()
        found[batch] = median_ratio(outside, inside)
    return found


BOUND = """
import resource, time
import numpy as np, scratchvae as sv
from scratchvae.evaluation import importance_weighted_bound
sv.backend.keep_freed_memory()  # as `scratchvae evaluate` does
rng = np.random.default_rng(0)
model, x = sv.VAE(784, (400,), 20, rng=0), rng.random((100, 784), dtype=np.float32)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
importance_weighted_bound(model, [x], samples=5000, rng=0)
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - start, (most - before) / 1024, most / 1024)
"""


def evaluation() -> dict[str, float]:
    """Return what the bound of 100 images with 5,000 samples each takes, memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", BOUND], env=environment({}), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, added, most = map(float, done.stdout.split())
    return {"images": 100, "samples": 5000, "seconds": seconds, "added_mib": added, "mib": most}


def python_seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment({}), check=True)
    return time.perf_counter() - start


def import_milliseconds(rounds: int) -> dict[str, float]:
    """Return the median times of Python alone, with numpy and with scratchvae."""
    codes = {"python": "pass", "numpy": "import numpy", "scratchvae": "import scratchvae"}
    times = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            times[name].append(1000 * python_seconds(code))
    return {name: statistics.median(t) for name, t in times.items()}


CLI = """
import resource, runpy, sys
sys.argv = ["scratchvae", {arguments}]
try:
    runpy.run_module("scratchvae", run_name="__main__")
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def command(*arguments: str) -> tuple[float, int]:
    """Run a command of scratchvae; return its seconds and its peak of resident memory in MiB."""
    code = CLI.format(arguments=", ".join(repr(a) for a in arguments))
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment({}), capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr)
    return seconds, int(done.stderr.rsplit("peak", 1)[1])


TARGET = 106.5  # nats
UNTIL = f"import contestants; contestants.torch_until({TARGET})"


def mnist(folder: Path) -> dict[str, float]:
    """Return the time to a test loss of `TARGET`, also PyTorch's, and the memory of training."""
    out = str(folder / "mnist")
    options = ["--latent", "20", "--hidden", "400", "--epochs", "10", "--device", "cpu"]
    seconds, memory = command("train", "mnist", *options, "--out", out)
    lines = [json.loads(s) for s in Path(out, "metrics.jsonl").read_text().splitlines()]
    reached = next((i for i, m in enumerate(lines) if m["test_loss"] <= TARGET), None)
    result = {"training_seconds": seconds, "training_mib": memory, "epochs": len(lines)}
    result["test_loss"] = lines[-1]["test_loss"]
    if reached is not None:
        epochs = sum(m["seconds"] for m in lines)
        first = sum(m["seconds"] for m in lines[: reached + 1])
        # what is not epochs, the start and the tests, counts as far as the run had come
        result["seconds_to_target"] = first + (seconds - epochs) * (reached + 1) / len(lines)
    start = time.perf_counter()
    env = environment({})
    env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", UNTIL], env=env, check=True, stdout=sys.stderr)
    result["torch_seconds_to_target"] = time.perf_counter() - start
    return result


# ---- reporting -----------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Describe what was measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        cpu = found[0].partition(":")[2].strip() if found else cpu
    versions = {}
    for package in ("numpy", "numba", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "date": datetime.date.today().isoformat(),
        "processor": f"{cpu}, {os.cpu_count()} cores, {THREADS} threads for every contestant",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def median_ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def steps_table(cases: dict, reference: str, digits: int = 2) -> list[str]:
    """Return the lines of Markdown for one architecture: milliseconds, and ratios to one row."""
    names = list(dict.fromkeys(name for times in cases.values() for name in times))
    lines = ["| contestant | " + " | ".join(f"batch {b}" for b in cases) + " |"]
    lines.append("|---|" + "---:|" * len(cases))
    for name in names:
        row = []
        for times in cases.values():
            t, base = times.get(name), times.get(reference)
            if not isinstance(t, list) or not t or math.isnan(t[0]):
                row.append("not measured")
                continue
            text = f"{statistics.median(t):.{digits}f}"
            if isinstance(base, list) and len(base) == len(t):
                text += f" ({median_ratio(t, base):.2f})"
            row.append(text)
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return [*lines, ""]


def table(results: dict) -> str:
    """Return the Markdown of all cases: milliseconds, and ratios to the matrix products."""
    parts = []
    for stack, cases in results["steps"].items():
        parts += [f"**{stack}**: milliseconds a step (times the matrix products)", ""]
        parts += steps_table(cases, FLOOR)
    for model, cases in results.get("models", {}).items():
        reference = "PyTorch, its example"
        parts += [f"**{model}**: milliseconds a step (times {reference})", ""]
        parts += steps_table(cases, reference)
    if "scaling" in results:
        powers = ", ".join(
            f"{what} ({min(s['sizes']):,} to {max(s['sizes']):,}) to the power {s['exponent']:.2f}"
            for what, s in results["scaling"].items()
        )
        parts += [f"The time of a step, of scratchvae[fast], grows like {powers}.", ""]
    if "mapped" in results:
        ratios = ", ".join(f"{r:.2f} (batch {b})" for b, r in results["mapped"].items())
        text = (
            "With the images in a file mapped into memory, over with them in memory, a step takes"
        )
        parts += [f"{text} {ratios}.", ""]
    if "evaluation" in results:
        e = results["evaluation"]
        parts.append(
            f"The importance-weighted bound of {e['images']} images with {e['samples']:,} samples "
            f"each takes {e['seconds']:.1f} s and {e['added_mib']:.0f} MiB of memory besides the "
            "model and the data."
        )
        parts.append("")
    if "import" in results:
        t = results["import"]
        extra = t["scratchvae"] - t["numpy"]
        parts += [f"`import scratchvae` takes {extra:.0f} ms more than `import numpy`.", ""]
    if "mnist" in results:
        m = results["mnist"]
        text = f"`scratchvae train mnist`, {m['epochs']} epochs: {m['training_seconds']:.0f} s "
        text += f"from the start of the process to its end, test loss {m['test_loss']:.2f}"
        if "seconds_to_target" in m:
            text += f", at {TARGET} or below after {m['seconds_to_target']:.0f} s"
        if "torch_seconds_to_target" in m:
            text += (
                f" (PyTorch's example with its data loader: {m['torch_seconds_to_target']:.0f} s)"
            )
        parts.append(f"{text}; at most {m['training_mib']} MiB of memory were resident.")
    m = results["machine"]
    text = f"Measured on {results['images']} images, after {results['epochs_before']} epochs, on "
    text += f"{m['date']}: {m['processor']}; {m['system']}; {m['versions']}."
    parts += ["", text, ""]
    return "\n".join(parts)


def draw(results: dict, path: Path) -> None:
    """Draw the first architecture: a bar for each contestant and batch size."""
    from matplotlib.figure import Figure

    from scratchvae import plots

    plots.use_style()
    stack, cases = next(iter(results["steps"].items()))
    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for ax, (batch, times) in zip(axes, cases.items(), strict=True):
        known = {k: t for k, t in times.items() if isinstance(t, list) and t and k != FLOOR}
        ratios = {k: median_ratio(t, times[FLOOR]) for k, t in known.items()}
        names = list(ratios)[::-1]
        colours = [plots.BLUE if n.startswith("scratchvae") else plots.GREY for n in names]
        bars = ax.barh(names, [ratios[n] for n in names], color=colours)
        ax.bar_label(bars, fmt="%.2f", padding=3)
        ax.axvline(1, color="black", lw=1)
        ax.set(title=f"batch {batch}", xlim=(0, 1.25 * max(ratios.values())))
        ax.tick_params(left=False)
    axes[len(axes) // 2].set_xlabel(f"time of a step / time of its matrix products, {stack}")
    plots.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a contestant's turn")
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--batch", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--quick", action="store_true", help="2 short rounds of small batches")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmark")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        sizes, *rest = json.loads(args.work[1])
        work(args.work[0], Case(tuple(sizes), *rest))
        return
    epochs = 3  # at batch 128 what there is to see of dead units shows after 800 steps
    if args.quick:
        args.rounds, args.seconds, args.batch, epochs = 2, 0.05, [128], 0
    names = [FLOOR, *(name for name in args.only if name != FLOOR)]
    args.out.mkdir(parents=True, exist_ok=True)
    runs = Path("runs", "benchmark").resolve()
    runs.mkdir(parents=True, exist_ok=True)
    log = runs / "errors.log"
    results: dict = {"machine": machine(), "rounds": args.rounds, "epochs_before": epochs}
    results |= {"images": "MNIST's" if mnist_file() else "random", "steps": {}}
    for stack, (sizes, activation) in STACKS.items():
        results["steps"][stack] = {}
        for batch in args.batch:
            print(f"{stack}, batch {batch}", file=sys.stderr)
            case = Case(sizes, activation, batch)
            times = measure(case, names, args.rounds, args.seconds, log, epochs=epochs)
            results["steps"][stack][batch] = times
    results["models"] = {}
    for model, changes in MODELS.items():
        print(f"{model}, batch {args.batch[0]}", file=sys.stderr)
        case = Case(activation="relu", batch=args.batch[0], **changes)
        some = [name for name in OTHER_MODELS if name in args.only]
        times = measure(case, some, args.rounds, args.seconds, log)
        results["models"][model] = {args.batch[0]: times}
    if not args.quick:
        print("scaling, files, evaluation", file=sys.stderr)
        results["scaling"] = scaling(args.rounds, args.seconds, log)
        results["mapped"] = mapped(args.rounds, args.seconds, log)
        results["evaluation"] = evaluation()
    results["import"] = import_milliseconds(args.rounds)
    if os.environ.get("SCRATCHVAE_DATA") and not args.quick:
        print("MNIST", file=sys.stderr)
        results["mnist"] = mnist(runs / datetime.datetime.now().strftime("%Y%m%d-%H%M%S"))
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "table.md").write_text(table(results))
    draw(results, args.out / "steps.svg")
    print(table(results))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped: nothing was written.")
