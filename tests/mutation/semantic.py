"""Plant errors, one at a time, in copies of the package, and run its tests.

They are those of semantic.toml, and the wrong models of ``scratchvae.zoo`` instead of VAE.

The checkout itself is never changed. That a copy's test fails means something only if it passes
without an error planted: `test_semantic.py` and `run.py` look at that, too.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGE = ROOT / "scratchvae"

# The tests of the mathematics, in the order in which they are tried on a mutant that no test which
# it names has found: quick ones first.
TEST_FILES = (
    "test_gaussian.py",
    "test_likelihoods.py",
    "test_activations.py",
    "test_layers.py",
    "test_parameters.py",
    "test_optimizers.py",
    "test_schedules.py",
    "test_finite.py",
    "test_evaluation.py",
    "test_vae.py",
    "test_model.py",
    "test_parts.py",
    "test_training.py",
    "test_gradients.py",
    "test_unbiasedness.py",
    "test_ground_truth.py",
    "test_convolution.py",
    "test_conditional.py",
)


@dataclass(frozen=True)
class Edit:
    """One text of one file of the package, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One error, its edits, and the tests or test files that find it."""

    name: str
    error: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


# At the end of vae.py. A formula for another likelihood than the wrong one stays right: else any
# test of such a model would find it. The last line of vae.py stands in for the end of the file.
LAST_LINE = "        return code[:, : self.latent_dim], code[:, self.latent_dim :]\n"
WRONG_VAE = """

from . import likelihoods, zoo

Right = VAE


class VAE(zoo.{model}):
    kind = Right.kind

    def nll(self, x, output):
        return self._of().nll(self, x, output)

    def nll_backward(self, dnll, cache):
        return self._of().nll_backward(self, dnll, cache)

    def _of(self):
        fits = isinstance(self.likelihood, likelihoods.{likelihood})
        one_each = self.likelihood.output_dim == self.data_dim
        return zoo.{model} if fits and one_each else Right
"""
LIKELIHOODS = {"bits": "Bernoulli", "real": "Gaussian"}


def instead_of_vae(model: str, error: str, pixels: str = "bits") -> Mutant:
    """Return the mutant in which a class of the zoo stands for VAE wherever it is used."""
    code = WRONG_VAE.format(model=model, likelihood=LIKELIHOODS[pixels])
    tests = (
        "test_vae.py::test_the_loss_sums_over_dimensions_and_averages_over_the_batch",
        "test_vae.py::test_a_batch_of_copies_has_the_loss_of_one",
    )
    return Mutant(f"zoo.{model}", error, tests, (Edit("vae.py", LAST_LINE, LAST_LINE + code),))


# The zoo knows VAE too, by its name: no test may find that the right one was planted.
RIGHT = instead_of_vae("VAE", "nothing is wrong")


def from_zoo() -> list[Mutant]:
    """Return a mutant for each wrong formula of VAE in the zoo.

    It imports the package, which the processes of `pool` must not do before they test a copy.
    """
    from scratchvae import zoo

    return [
        instead_of_vae(entry.model.__name__, entry.wrong, entry.pixels)
        for entry in zoo.ENTRIES
        if entry.pixels in LIKELIHOODS and not issubclass(entry.model, zoo.ImportanceWeightedVAE)
    ]


def from_file() -> list[Mutant]:
    """Return the mutants of semantic.toml."""
    data = tomllib.loads((HERE / "semantic.toml").read_text("utf-8"))
    return [
        Mutant(m["name"], m["error"], tuple(m["tests"]), tuple(Edit(**e) for e in m["edit"]))
        for m in data["mutant"]
    ]


def load() -> list[Mutant]:
    """Return all mutants."""
    mutants = from_zoo() + from_file()
    names = [m.name for m in mutants]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two mutants have one name: {', '.join(sorted(twice))}")
    return mutants


def copy_tree(to: Path) -> Path:
    """Copy what the tests need, without byte code, which could stand for an unchanged file."""
    without = shutil.ignore_patterns("__pycache__")
    for folder in ("scratchvae", "tests"):
        shutil.copytree(ROOT / folder, to / folder, ignore=without)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def plant(mutant: Mutant, tree: Path) -> None:
    for edit in mutant.edits:
        path = tree / "scratchvae" / edit.file
        text = path.read_text("utf-8")
        if text.count(edit.old) != 1:
            raise ValueError(
                f"mutant {mutant.name!r}: {edit.file} has {text.count(edit.old)} times what should "
                f"stand there once: {edit.old!r}"
            )
        path.write_text(text.replace(edit.old, edit.new), "utf-8")


def run_tests(
    tree: Path,
    tests: tuple[str, ...],
    seed: int,
    how: tuple[str, ...] = ("-x",),  # until one fails
    plugin: Any = None,
) -> tuple[int, str]:
    """Run tests of a copy; return pytest's exit code and what it wrote.

    Changes this process for good, so it must run in one that ends afterwards (see `pool`).
    """
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)  # for the processes that a test starts
    os.environ["SCRATCHVAE_TEST_SEED"] = str(seed)
    sys.dont_write_bytecode = True
    with open(tree / "output.txt", "w+") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        options = [*how, "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider"]
        options += ["--hypothesis-profile=mutants", f"--hypothesis-seed={seed}"]
        # In the folder that all share, pytest trips over what another process is just removing.
        options += [f"--basetemp={tree / 'temporary'}"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what `pool` imported
        plugins = [plugin] if plugin else []
        code = pytest.main([*options, *(f"tests/{name}" for name in tests)], plugins)
        sys.stdout.flush()
        text = (tree / "output.txt").read_text("utf-8", "replace")
    package = sys.modules.get("scratchvae")  # missing where an edit is no Python
    if package and Path(package.__file__ or "").parents[1] != tree:
        raise RuntimeError(f"{tree} was to be tested, not {package}")
    return int(code), text


def pool(workers: int | None = None) -> ProcessPoolExecutor:
    """Return processes that have imported the libraries, not the package, and run one task each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hypothesis", "numpy", "pytest", "scipy.stats"])
    if workers is None:
        pytests = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))  # share the cores
        workers = max(1, (os.cpu_count() or 1) // pytests)
    return ProcessPoolExecutor(workers, context, max_tasks_per_child=1)


def failures(
    tests: Iterable[str], seed: int, mutant: Mutant | None = None
) -> tuple[str | None, str]:
    """Return the first of these tests that fails, with an error planted or with none.

    A test is named ``test_file.py::test_name``, without its parameters. The second value is what
    pytest wrote; the first is None if all tests pass.

    Raises
    ------
    RuntimeError
        If tests could not be run, so that nothing was found out.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder).resolve())
        if mutant:
            plant(mutant, tree)
        return _first_failure(tree, tuple(tests), seed)


def killer(mutant: Mutant, seed: int) -> str | None:
    """Return the first test that fails with the error planted, or None if none does.

    The tests that the mutant names come first, and all others only if they pass: to read their
    files takes longer than most errors need to be found.

    Raises
    ------
    RuntimeError
        If tests could not be run.
    """
    files = dict.fromkeys(test.partition("::")[0] for test in (*mutant.tests, *TEST_FILES))
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder).resolve())
        plant(mutant, tree)
        named, _ = _first_failure(tree, mutant.tests, seed)
        return named or _first_failure(tree, tuple(files), seed)[0]


def _first_failure(tree: Path, tests: tuple[str, ...], seed: int) -> tuple[str | None, str]:
    code, text = run_tests(tree, tests, seed)
    if code == 0:
        return None, text
    # A test that failed, or whose fixture did, as where a model refuses to be built; not a file
    # that could not be read, nor any other of pytest's exit codes.
    found = re.search(r"^(?:FAILED|ERROR) tests/([\w.]+::\w+)", text, re.MULTILINE)
    if code != 1 or not found:
        raise RuntimeError(f"no verdict by {', '.join(tests)}\n{text}")
    return found[1], text
