"""The field's published numbers beside ours: what the scripts of this folder share.

A script trains one published model by the protocol of its source. It has

- a docstring: a title, and paragraphs that begin with "Source:", "Protocol:" and, where the figure
  teaches something, "Lesson:";
- SEEDS, the number of runs to report, whose seeds are 0, 1 and so on;
- CLAIMS, which say what is compared with what;
- run(seed, quick), which does it once and returns figures by name. A quick run has tiny settings
  and shows only that the script works;
- perhaps FULL = True, if it takes too long to be run with the others, and SKIP, a sentence on why
  it cannot run here.

    python demos/published [NAME ...] [--seeds 0 1 2] [--jobs 2] [--full]

runs them, and after each run writes docs/benchmark/published.json and the table made from it.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np

import scratchvae as sv

NAMES = (
    *("pytorch_example", "pytorch_example_2d", "deepul", "xcs236", "xcs236_mixture"),
    *("pyro_tutorial", "keras_example", "keras_pytorch", "iwae", "iwae_pytorch", "iwae_full"),
    "linear_vae",
)
OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmark"
MISSING = "not measured yet"
HEADS = ("Source", "Protocol", "Lesson")  # of the paragraphs of a docstring


class Claim(NamedTuple):
    """A figure, what its source says of it, and the band in which ours must lie.

    A claim without a band is reported and not judged.
    """

    key: str  # of what `run` returns
    figure: str  # in words
    published: str  # as the source gives it
    low: float | None = None
    high: float | None = None
    each: bool = False  # every run must lie in the band, instead of the mean of all
    beside: str = ""  # a script: the band is around the mean of its runs
    digits: str = ".2f"


# --- what the scripts train on, and how others begin ---------------------------------------------


def mnist(quick=False):
    """Return MNIST; for a quick run noise in its shape, which needs no file."""
    if not quick:
        return sv.datasets.load("mnist")
    x = np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8)
    return sv.datasets.Dataset.from_arrays(x[:200], test=x[200:])


def glorot(model, seed):
    """Draw weights uniformly from ±sqrt(6 / (fan in + fan out)), and set biases to 0.

    The encoder's heads for mu and logvar are one layer here, with a fan out of 2Z.
    """
    rng = np.random.default_rng(seed)
    for name in model.params.names:
        value = model.params[name].value  # (n_in, n_out), or (C', C, kH, kW), or a bias (n_out,)
        if value.ndim == 1:
            value[...] = 0
        else:
            bound = math.sqrt(6 / (sum(value.shape[:2]) * math.prod(value.shape[2:])))
            value[...] = rng.uniform(-bound, bound, value.shape)


# --- verdicts ------------------------------------------------------------------------------------


def figures(results, name, key):
    """Return the figure of every run of a script, in the order of the seeds."""
    runs = results.get(name, {}).get("runs", {})
    return [runs[seed][key] for seed in sorted(runs, key=int) if key in runs[seed]]


def band(claim, results):
    """Return (low, high); None if the runs that it depends on are missing."""
    if not claim.beside:
        return claim.low, claim.high
    theirs = figures(results, claim.beside, claim.key)
    if not theirs:
        return None
    centre = statistics.fmean(theirs)
    return centre + claim.low, centre + claim.high


def verdict(claim, name, results):
    """Return "met", "not met: ..." or why there is no verdict."""
    ours, limits = figures(results, name, claim.key), band(claim, results)
    if not ours:
        return MISSING
    if limits is None:
        return f"{MISSING}: {claim.beside} has no runs"
    if limits == (None, None):
        return "reported only"
    judged = ours if claim.each else [statistics.fmean(ours)]
    outside = [v for v in judged if not limits[0] <= v <= limits[1]]  # NaN is outside too
    if not outside:
        return "met"
    if claim.each:
        return f"not met: {len(outside)} of {len(ours)} runs outside"
    return f"not met: the mean is {judged[0]:{claim.digits}}"


# --- the table -----------------------------------------------------------------------------------


def script(name):
    """Return the module of a script."""
    return importlib.import_module(name)


def said(module):
    """Return what the docstring says: the title, and the paragraphs by their first word."""
    title, *paragraphs = (" ".join(p.split()) for p in module.__doc__.strip().split("\n\n"))
    found = {h: p.removeprefix(f"{h}: ") for p in paragraphs for h in HEADS if p.startswith(h)}
    return {"Title": title.rstrip("."), **found}


def spread(values, digits):
    """Return the mean and, of several runs, the smallest and the largest value."""
    if not values:
        return ""
    text = f"{statistics.fmean(values):{digits}}"
    if len(values) > 1:
        text += f" ({min(values):{digits}} to {max(values):{digits}} in {len(values)} runs)"
    return text


def section(name, results):
    """Return the lines of Markdown about one script: its table, and what its docstring says."""
    module, row = script(name), results.get(name)
    text, heads = said(module), ("figure", "published", "met within", "ours", "verdict")
    parts = [f"## {text['Title']}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for claim in module.CLAIMS:
        limits = band(claim, results)
        judged = limits is not None and limits != (None, None)
        within = " to ".join(f"{v:{claim.digits}}" for v in limits) if judged else ""
        ours = spread(figures(results, name, claim.key), claim.digits)
        cells = (claim.figure, claim.published, within, ours, verdict(claim, name, results))
        parts.append(f"| {' | '.join(cells)} |")
    parts += [f"\n{head}: {text[head]}" for head in HEADS if head in text]
    reason = "it takes long: " if full(name) else ""
    parts += [
        "",
        measured(row) if row else f"Not measured yet; {reason}`make published ARGS={name}`.",
    ]
    return [*parts, ""]


def table(results):
    """Return the Markdown made of the results: a count of the verdicts, then every script."""
    found = [
        verdict(claim, name, results).partition(":")[0]
        for name in NAMES
        for claim in script(name).CLAIMS
        if claim.low is not None
    ]
    counts = ", ".join(f"{found.count(v)} {v}" for v in ("met", "not met", MISSING))
    seconds = [sum(figures(results, n, "seconds")) for n in NAMES if not full(n)]
    parts = [
        f"Of {len(found)} figures with a band: {counts}. One after the other, on one core, the "
        f"runs without `--full` took {sum(seconds) / 60:.0f} minutes.",
        "",
    ]
    return "\n".join([*parts, *itertools.chain(*(section(n, results) for n in NAMES))])


def measured(row):
    """Say when and on what a row was measured, and how much CPU a run took."""
    seconds = [run["seconds"] for run in row["runs"].values()]
    return f"Measured {row['measured']}; {spread(seconds, '.0f')} seconds of one core a run."


def machine():
    """Return the date, the machine in words, and the versions that matter."""
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        found = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        cpu = found[0].partition(":")[2].strip() if found else cpu
    versions = [f"Python {platform.python_version()}", f"scratchvae {sv.__version__}"]
    for package in ("numpy", "numba", "torch"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"on {datetime.date.today().isoformat()}: {cpu}, {os.cpu_count()} cores; "
        f"{platform.system()} {platform.machine()}, {', '.join(versions)}"
    )


# --- the command ---------------------------------------------------------------------------------


def full(name):
    """Return whether a script is run only with --full."""
    return getattr(script(name), "FULL", False)


def measure(name, seed, quick):
    """Return the figures of one run, with its seconds of CPU: other work slows the clock only."""
    start = time.process_time()
    found = script(name).run(seed, quick)
    rounded = {key: float(f"{value:.8g}") for key, value in found.items()}
    return {**rounded, "seconds": round(time.process_time() - start, 1)}


def write(results, out):
    """Write the results, in the order of the scripts and seeds, and the table made of them."""
    results = {
        name: row | {"runs": dict(sorted(row["runs"].items(), key=lambda run: int(run[0])))}
        for name in NAMES
        if (row := results.get(name))
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("published.json", json.dumps(results, indent=1) + "\n"),
        ("published.md", table(results)),
    ):
        (out / name).write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        prog="demos/published", description=__doc__.splitlines()[0], epilog=f"NAME: {NAMES}"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which scripts; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of each script's own number")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, on one core each")
    parser.add_argument("--full", action="store_true", help="also what takes long")
    parser.add_argument("--quick", action="store_true", help="tiny settings: does it run at all?")
    parser.add_argument("--table", action="store_true", help="only write the table anew")
    parser.add_argument("--out", type=Path, help="folder of results and table")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"there is no script {min(unknown)!r}: expected one of {', '.join(NAMES)}")
    out = args.out or (Path("runs", "published") if args.quick else OUT)
    path = out / "published.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    jobs = []
    for name in () if args.table else args.names or NAMES:
        reason = getattr(script(name), "SKIP", "")
        if full(name) and not (args.full or args.names):
            reason = "takes long; --full runs it"
        if reason:
            print(f"{name} is left out: {reason}")
            continue
        seeds = range(script(name).SEEDS) if args.seeds is None else args.seeds
        jobs += [(name, seed, args.quick) for seed in seeds]
    jobs.sort(key=lambda job: script(job[0]).SEEDS)  # of few seeds, so long: these begin first
    with ProcessPoolExecutor(args.jobs) as pool:
        running = {pool.submit(measure, *job): job for job in jobs}
        for future in as_completed(running):
            name, seed, _ = running[future]
            row = results.setdefault(name, {"measured": "", "runs": {}})
            row["measured"], row["runs"][str(seed)] = machine(), future.result()
            print(f"{name}, seed {seed}: {row['runs'][str(seed)]}", flush=True)
            write(results, out)
    write(results, out)
    print(f"Wrote {path} and {path.with_suffix('.md')}")
