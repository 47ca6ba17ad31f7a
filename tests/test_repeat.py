"""The seed in pytest's header repeats a run: with one worker or two, whole or one test alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="pytest-xdist is not installed: pip install --group test")

TESTS = Path(__file__).parent
# Each test writes the numbers that it drew, into a file of its own name.
PRINTS = """
import os
from hypothesis import given, strategies as st

def note(name, value):
    with open(f"{os.environ['DRAWN']}/{name}", "a") as file:
        print(value, file=file)

def test_fixture(rng):
    note(__name__, rng.integers(2**63))

@given(st.integers(0, 2**63))
def test_hypothesis(n):
    note(f"{__name__}-hypothesis", n)

def test_process():
    note(f"{__name__}-process", os.getpid())
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs two test files: what they drew, and the seed in the header."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text((TESTS / "conftest.py").read_text("utf-8"), "utf-8")
    for name in ("test_one", "test_two"):
        (tests / f"{name}.py").write_text(PRINTS)

    def start(name, *arguments, seed=None):
        drawn = tmp_path / name
        drawn.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment |= {"SCRATCHVAE_TEST_SEED": seed or "", "DRAWN": str(drawn)}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (shown,) = re.findall(r"^SCRATCHVAE_TEST_SEED=(\d+)$", done.stdout, re.MULTILINE)
        return {path.name: path.read_text() for path in drawn.iterdir()}, shown

    return start


def numbers(drawn):
    return {name: text for name, text in drawn.items() if not name.endswith("-process")}


def test_the_seed_of_the_header_is_that_of_both_workers(run):
    first, seed = run("first", "-n", "2", "--dist", "loadfile")
    assert first["test_one-process"] != first["test_two-process"]  # there were two
    again, same = run("again", seed=seed)
    assert same == seed
    assert numbers(again) == numbers(first)
    assert len(numbers(first)) == 4
    alone, _ = run("alone", "tests/test_two.py::test_fixture", seed=seed)
    assert alone["test_two"] == first["test_two"]


def test_another_run_draws_other_numbers(run):
    (first, one), (second, other) = run("first"), run("second")
    assert one != other
    for name, text in numbers(first).items():
        assert numbers(second)[name] != text


def test_no_test_draws_from_a_seed_of_its_own():
    """A fixture `rng` of a file shadows the one of conftest.py and ignores the seed of the run."""
    shadow = re.compile(
        r"^ *def rng\(|default_rng\(\)(?!\.bit_generator)|SeedSequence\(\)", re.MULTILINE
    )
    found = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if shadow.search(path.read_text("utf-8")) and path != Path(__file__)
    }
    assert found == set()
