"""Mutation testing of the mathematics: `make mutants` runs this file and writes docs/mutants.md.

Two kinds of mutants are made. mutmut changes every operator, number, argument and name in the
functions of the mutated files, one at a time. semantic.toml and the package's zoo hold the errors
that people make. Each mutant is judged several times, with other random numbers each time, and
counts as killed only if a test failed every time. A mutant of mutmut that was not killed must be
one of equivalent.toml, with the proof that it computes the same; an explanation without its mutant
is an error too.

Each row of the table ends in a digest of the texts on which its verdict rests, see `of_error` and
`of_file`. Where it is still that of the present texts the row is kept and nothing is run. With the
names of files, such as vae.py, mutmut's mutants of these alone are judged, and all other rows kept.

    python tests/mutation/run.py [--all] [--rounds 3] [--workers N] [--only semantic|tool]
    python tests/mutation/run.py [--rounds 3] [--workers N] FILE ...
    python tests/mutation/run.py --check    tell whether docs/mutants.md is of the present texts
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
from fnmatch import fnmatch
from pathlib import Path

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


# --------------------------------------------------------------- what the table already tells


def digest(text: str, paths: set[str]) -> str:
    """Return 16 hex digits that change with a text and with the files, missing ones included."""
    total = hashlib.sha256(text.encode())
    for path in sorted(paths):
        there = (ROOT / path).exists()
        total.update(hashlib.sha256((ROOT / path).read_bytes() if there else b"").digest())
    return total.hexdigest()[:16]


def of_error(mutant: semantic.Mutant, tests: list[str]) -> str:
    """Return the digest of a planted error: itself, the files it is in, those that found it."""
    paths = {f"tests/{test.partition('::')[0]}" for test in tests}
    paths |= {f"scratchvae/{e.file}" for e in mutant.edits}
    if mutant.name.startswith("zoo."):
        paths.add("scratchvae/zoo.py")
    return digest(f"{mutant.name} {mutant.error} {mutant.edits}", paths)


def of_file(name: str) -> str:
    """Return the digest of a mutated file: itself, its explanations, the tests of its name.

    Other tests kill its mutants too. Those who take one away, or make it weaker, run ``--all``.
    """
    known = sorted(f"{c}: {why}" for c, why in explanations().items() if c.file == Path(name).name)
    return digest("\n".join(known), {name, f"tests/test_{Path(name).name}"})


def rows() -> dict[str, list[str]]:
    """Return the cells of the table's rows by the first one."""
    lines = TABLE.read_text("utf-8").splitlines() if TABLE.exists() else []
    return {cells[0]: cells for x in lines if len(cells := x[2:-2].split(" | ")) == 5}


def unchanged() -> tuple[dict[str, list[str]], dict[str, int]]:
    """Return what the table tells of present texts: who found an error, a file's mutants."""
    found, count, there = {}, {}, rows()
    for m in semantic.load():
        if row := there.get(cell(m.name)):
            tests = re.findall(r"`(.+?)`", row[3])
            if row[4] == code(of_error(m, tests)):
                found[m.name] = tests
    for name in mutated_files():
        if (row := there.get(code(Path(name).name))) and row[4] == code(of_file(name)):
            count[Path(name).name] = int(row[1])
    return found, count


# ------------------------------------------------------------------------- the errors of people


def judge_semantic(
    mutants: list[semantic.Mutant], seeds: range, workers: int
) -> dict[str, list[str]]:
    """Return the tests that found each planted error; stop if one was not found every time."""
    with semantic.pool(workers) as pool:
        runs = {m.name: [pool.submit(semantic.killer, m, s) for s in seeds] for m in mutants}
        found = {name: [future.result() for future in futures] for name, futures in runs.items()}
        missed = [name for name, tests in found.items() if None in tests]
        if missed:
            sys.exit("No test finds, or not every time:\n" + "\n".join(missed))
        zoo = [name for name in found if name.startswith("zoo.")]
        for planted, names in (None, found), (semantic.RIGHT, zoo):
            finders = sorted({test for name in names for test in found[name]})
            checks = [pool.submit(semantic.failures, finders, s, planted) for s in seeds if finders]
            for failed, output in (check.result() for check in checks):
                if failed:
                    what = planted.error if planted else "nothing is planted"
                    sys.exit(f"{output}\n{failed} fails where {what}.")
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


def judge_tool(
    files: list[str], rounds: int, workers: int
) -> tuple[dict[str, int], dict[Change, str]]:
    """Return how many mutants each file has, and which were not killed every time, and why."""
    names = [f"scratchvae.{Path(file).stem}.*" for file in files]
    count: dict[str, int] = {}
    alive: dict[Change, str] = {}
    for number in range(1, rounds + 1):
        copy_undecorated()
        quiet = not sys.stdout.isatty()
        options = ["run", "--max-children", str(workers), *names]
        mutmut(*options, quiet=quiet, SCRATCHVAE_TEST_SEED=str(number))
        results = re.findall(r"^    (\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE)
        results = [r for r in results if any(fnmatch(r[0], name) for name in names)]
        count = {Path(file).name: 0 for file in files}
        count |= Counter(name.split(".")[1] + ".py" for name, _ in results)
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


def write(rounds: int, found: dict[str, list[str]], count: dict[str, int]) -> None:
    """Write the table; the mutants that are left are those that are explained.

    A planted error that is not in `found` keeps the row that it has, with the digest of its texts.
    """
    why, there = explanations(), rows()
    alive = {c for c in why if c.file in count}
    same = Counter(change.file for change in alive)
    files = [name.removeprefix("scratchvae/") for name in mutated_files()]
    by_file: list[tuple[object, ...]] = [
        (code(f), count[f], count[f] - same[f], same[f], code(of_file(f"scratchvae/{f}")))
        for f in files
        if f in count
    ]
    waiting = [code(f) for f in files if f not in count]
    missing = f"Not judged since they changed: {', '.join(waiting)}.\n\n" if waiting else ""
    total = sum(count.values())
    by_file.append(("all", total, total - len(alive), len(alive), ""))
    planted: list[tuple[object, ...]] = []
    for m in semantic.load():
        if m.name not in found:
            planted += [tuple(row)] if (row := there.get(cell(m.name))) else []
            continue
        places = "<br>".join(f"`{file}`" for file in dict.fromkeys(e.file for e in m.edits))
        tests = "<br>".join(f"`{test}`" for test in found[m.name])
        state = code(of_error(m, found[m.name]))
        planted.append((cell(m.name), cell(m.error), places, tests, state))
    n = len(planted)
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

The digests are of the texts on which a row rests. `make mutants` runs only what has another digest
now, `make mutants ARGS=--all` everything, and `python tests/mutation/run.py --check` tells what
would be run.

## Errors that people make

{n} errors of the kind found in hand-written VAEs. Those that stand in forward and backward
alike pass every gradient check, so that only a test of the meaning can find them. The column before
the digest names the test that failed first; where the rounds differ, each of them.

{table(("error", "what happened", "in", "found by", "digest"), planted)}

## Every operator, number and argument

mutmut {importlib.metadata.version("mutmut")} changes the operators, numbers, strings, arguments and
assignments of every function, one at a time. What lies outside of functions, such as constants, it
leaves alone; the list above has errors of that kind.

{table(("file", "mutants", "killed", "equivalent", "digest"), by_file)}

{missing}In the files of the table no other mutant was left. The equivalent ones compute the same,
so no test can find them:

{table(("where", "line", "mutant", "why it is the same"), equivalent)}
"""
    TABLE.write_text(text, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="also what has not changed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=("semantic", "tool"), help="judge these, write nothing")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("files", nargs="*", metavar="FILE", help="of one of these alone")
    args = parser.parse_args()
    start, failed = time.monotonic(), False
    found, count = ({}, {}) if args.all else unchanged()
    mutants = [m for m in semantic.load() if m.name not in found]
    files = [f for f in mutated_files() if Path(f).name not in count]
    if args.files:
        if unknown := set(args.files) - {Path(f).name for f in mutated_files()}:
            parser.error(f"not mutated: {', '.join(sorted(unknown))}")
        mutants, files = [], [f for f in files if Path(f).name in args.files]
    if args.check:
        if stale := [m.name for m in mutants] + files:
            sys.exit("docs/mutants.md is of other texts for:\n" + "\n".join(stale))
        print("docs/mutants.md is of the present texts.")
        return
    print(f"To judge: {len(mutants)} planted errors, {len(files)} files", flush=True)
    if mutants and args.only != "tool":
        found |= judge_semantic(mutants, range(1, args.rounds + 1), args.workers)
        print(f"{len(mutants)} planted errors, all found in {args.rounds} rounds", flush=True)
        if not args.only:
            write(args.rounds, found, count)  # what follows takes longer, and may be interrupted
    if files and args.only != "semantic":
        judged, alive = judge_tool(files, args.rounds, args.workers)
        count |= judged
        # Also those of a file that is not mutated at all.
        mutated = {Path(f).name for f in mutated_files()}
        known = [c for c in explanations() if c.file in judged or c.file not in mutated]
        survivors = [f"{change}\n  ({alive[change]})" for change in alive if change not in known]
        gone = [str(change) for change in known if change not in alive]
        if survivors:
            print("\nNeither killed nor explained in equivalent.toml:", *survivors, sep="\n")
        if gone:
            print("\nExplained in equivalent.toml, but not among the survivors:", *gone, sep="\n")
        if survivors or gone:
            # What is judged stays judged: after the repair, only these files run again.
            unsettled = {c.file for c in [*alive, *known] if (c in known) != (c in alive)}
            count = {file: n for file, n in count.items() if file not in unsettled}
            failed = True
    if not args.only:
        write(args.rounds, found, count)
        print(f"Wrote {TABLE.relative_to(ROOT)}")
    print(f"{(time.monotonic() - start) / 60:.1f} minutes with {args.workers} processes")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
