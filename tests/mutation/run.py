"""Mutation testing of the mathematics: `make mutants` runs this file and writes docs/mutants.md.

Two kinds of mutants are made. mutmut changes every operator, number, argument and name in the
functions of the mutated files, one at a time. semantic.toml and the package's zoo hold the errors
that people make. Each mutant is judged several times, with other random numbers each time, and
counts as killed only if a test failed every time. A mutant of mutmut that was not killed must be
one of equivalent.toml, with the proof that it computes the same; an explanation without its mutant
is an error too.

    python tests/mutation/run.py [--rounds 3] [--workers N] [--only semantic|tool]
    python tests/mutation/run.py --check    tell whether docs/mutants.md is of the present sources
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass

import semantic

ROOT, HERE = semantic.ROOT, semantic.HERE
TABLE = ROOT / "docs" / "mutants.md"
COPY = ROOT / "mutants"  # where mutmut works


@dataclass(frozen=True)
class Change:
    """What mutmut changed: a line of a function, without its comment, and what it became."""

    file: str
    function: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}, {self.function}:\n  - {self.old}\n  + {self.new}"


def mutated_files() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
    return config["only_mutate"]


def sources() -> dict[str, str]:
    """Return the digest of every file on which the table depends."""
    data = [f"tests/mutation/{name}.toml" for name in ("semantic", "equivalent")]
    changed = {f"scratchvae/{e.file}" for m in semantic.load() for e in m.edits}
    paths = sorted({*mutated_files(), *changed, "scratchvae/zoo.py"}) + data
    return {p: hashlib.sha256((ROOT / p).read_bytes()).hexdigest()[:16] for p in paths}


# ------------------------------------------------------------------------- the errors of people


def judge_semantic(seeds: range, workers: int) -> dict[str, list[str]]:
    """Return the tests that found each planted error; stop if one was not found every time."""
    mutants = semantic.load()
    with semantic.pool(workers) as pool:
        unchanged = [pool.submit(semantic.passes, seed) for seed in seeds]
        right = [pool.submit(semantic.killer, semantic.RIGHT, seed) for seed in seeds]
        runs = {m.name: [pool.submit(semantic.killer, m, s) for s in seeds] for m in mutants}
        for future in unchanged:
            passed, output = future.result()
            if not passed:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{output}\nThe tests fail with nothing planted.")
        if finder := next((test for future in right if (test := future.result())), None):
            pool.shutdown(cancel_futures=True)
            sys.exit(f"{finder} fails with the right VAE planted instead of VAE.")
        found = {name: [future.result() for future in futures] for name, futures in runs.items()}
    missed = [name for name, tests in found.items() if None in tests]
    if missed:
        sys.exit("No test finds, or not every time:\n" + "\n".join(missed))
    return {name: sorted(set(tests)) for name, tests in found.items()}


# -------------------------------------------------------------------------- the mutants of mutmut


def mutmut(*arguments: str, quiet: bool = True, **env: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(
        command,
        cwd=COPY,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        encoding="utf-8",
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout or ''}\n{' '.join(command)} failed.")
    return done.stdout or ""


def copy_undecorated() -> None:
    """Copy what mutmut needs; it passes over decorated functions, so take `@compiled` off.

    No test that runs here uses a compiled kernel, and without one the decorator does nothing.
    """
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir()
    semantic.copy_tree(COPY)
    for name in mutated_files():
        text = (COPY / name).read_text("utf-8")
        (COPY / name).write_text(text.replace("@compiled\n", ""), "utf-8")


def describe(mutant: str) -> Change:
    """Return what a mutant of mutmut changes, from its name and `mutmut show`."""
    module, _, mangled = mutant.rpartition(".")
    parts = re.sub(r"__mutmut_\d+$", "", mangled).removeprefix("x")
    function = ".".join(parts.strip("ǁ").split("ǁ")) if "ǁ" in parts else parts.removeprefix("_")
    lines = mutmut("show", mutant).splitlines()

    def side(sign: str) -> str:
        changed = [x[1:] for x in lines if x.startswith(sign) and not x.startswith(3 * sign)]
        return "\n".join(re.sub(r"  # .*", "", line).strip() for line in changed)

    return Change(module.rpartition(".")[2] + ".py", function, side("-"), side("+"))


def judge_tool(rounds: int, workers: int) -> tuple[Counter[str], dict[Change, str]]:
    """Return how many mutants each file has, and which were not killed every time, and why."""
    count: Counter[str] = Counter()
    alive: dict[Change, str] = {}
    for number in range(1, rounds + 1):
        copy_undecorated()
        quiet = not sys.stdout.isatty()
        mutmut("run", "--max-children", str(workers), quiet=quiet, SCRATCHVAE_TEST_SEED=str(number))
        results = re.findall(r"^    (\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE)
        count = Counter(name.split(".")[1] + ".py" for name, _ in results)
        # Only a failed test kills: a timeout, a crash or a function without a test does not.
        alive |= {describe(name): status for name, status in results if status != "killed"}
        print(f"Round {number}: {len(results)} mutants, {len(alive)} not killed so far", flush=True)
    return count, alive


def explanations() -> dict[Change, str]:
    """Return why mutants are equivalent, from equivalent.toml."""
    out = {}
    for e in tomllib.loads((HERE / "equivalent.toml").read_text("utf-8"))["equivalent"]:
        for new in e["new"]:
            out[Change(e["file"], e["function"], e["old"], new)] = e["why"]
    return out


# --------------------------------------------------------------------------------- the table


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: str) -> str:
    return "<br>".join(f"`{cell(line)}`" for line in text.split("\n"))


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(part) for part in line) + " |" for line in lines)


def write(
    rounds: int, found: dict[str, list[str]], count: Counter[str], alive: set[Change]
) -> None:
    same = Counter(change.file for change in alive)
    files = [name.removeprefix("scratchvae/") for name in mutated_files()]
    by_file = [(f"`{f}`", count[f], count[f] - same[f], same[f]) for f in files]
    total = sum(count.values())
    by_file.append(("all", total, total - len(alive), len(alive)))
    planted = []
    for m in semantic.load():
        places = "<br>".join(f"`{file}`" for file in dict.fromkeys(e.file for e in m.edits))
        tests = "<br>".join(f"`{test}`" for test in found[m.name])
        planted.append((cell(m.name), cell(m.error), places, tests))
    n, why = len(planted), explanations()
    order = sorted(alive, key=lambda c: (c.file, c.function, c.old, c.new))
    equivalent = [
        (f"`{c.file}`<br>`{c.function}`", code(c.old), code(c.new), cell(why[c])) for c in order
    ]
    text = f"""# Mutants

<!-- Written by `make mutants` (tests/mutation/run.py). Changes by hand are lost. -->

A test suite is as good as the errors it finds. Here errors were put into the mathematics of the
package on purpose, one at a time, each in a copy, and the tests run on it. A mutant counts as
killed only if a test failed, in every round with other random numbers (rounds: {rounds}); a crash
or a timeout is no verdict.

## Errors that people make

{n} errors of the kind found in hand-written VAEs. Those that stand in forward and backward
alike pass every gradient check, so that only a test of the meaning can find them. The last column
names the test that failed first; where the rounds differ, each of them.

{table(("error", "what happened", "in", "found by"), planted)}

## Every operator, number and argument

mutmut {importlib.metadata.version("mutmut")} changes the operators, numbers, strings, arguments and
assignments of every function, one at a time. What lies outside of functions, such as constants, it
leaves alone; the list above has errors of that kind.

{table(("file", "mutants", "killed", "equivalent"), by_file)}

No other mutant was left. The equivalent ones compute the same, so no test can find them:

{table(("where", "line", "mutant", "why it is the same"), equivalent)}

## Sources

The table is of files with these SHA-256 digests, of which the first 16 digits stand here.
`python tests/mutation/run.py --check` tells whether they are still the present ones.

{table(("file", "SHA-256"), [(f"`{f}`", f"`{h}`") for f, h in sources().items()])}
"""
    TABLE.write_text(text, "utf-8")


def check() -> None:
    rows = dict(re.findall(r"^\| `(\S+)` \| `([0-9a-f]{16})` \|$", TABLE.read_text("utf-8"), re.M))
    now = sources()
    stale = sorted(f for f in {*rows, *now} if rows.get(f) != now.get(f))
    if stale:
        sys.exit(f"docs/mutants.md is of other versions of: {', '.join(stale)}")
    print("docs/mutants.md is of the present sources.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=("semantic", "tool"), help="judge these, write nothing")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        return check()
    start = time.monotonic()
    if args.only != "tool":
        found = judge_semantic(range(1, args.rounds + 1), args.workers)
        print(f"{len(found)} planted errors, all found in {args.rounds} rounds", flush=True)
    if args.only != "semantic":
        count, alive = judge_tool(args.rounds, args.workers)
        known = explanations()
        survivors = [f"{change}\n  ({alive[change]})" for change in alive if change not in known]
        gone = [str(change) for change in known if change not in alive]
        if survivors:
            print("\nNeither killed nor explained in equivalent.toml:", *survivors, sep="\n")
        if gone:
            print("\nExplained in equivalent.toml, but not among the survivors:", *gone, sep="\n")
        if survivors or gone:
            sys.exit(1)
    if not args.only:
        write(args.rounds, found, count, set(alive))
        print(f"Wrote {TABLE.relative_to(ROOT)}")
    print(f"{(time.monotonic() - start) / 60:.1f} minutes with {args.workers} processes")


if __name__ == "__main__":
    main()
