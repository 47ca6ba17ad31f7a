"""How the fuzzers judge a case, and the table of what they saw."""

from collections import Counter

import pytest
from fuzzing import limits

import scratchvae as sv

COUNTS = Counter()


def pytest_terminal_summary(terminalreporter):
    if COUNTS:
        terminalreporter.section("cases, of which none failed unless a test above did")
    for name, count in sorted(COUNTS.items()):
        terminalreporter.write_line(f"{count:7,}  {name}")


@pytest.fixture(scope="session")
def tally():
    """Count cases by name and outcome."""
    return lambda *names: COUNTS.update([", ".join(names)])


@pytest.fixture(scope="session")
def outcome(tally):
    """Return what a function returns, or None if it refuses in one sentence; else it raises."""

    def outcome(name, function):
        result, sentence = None, None
        with limits():
            try:
                result = function()
            except sv.InputError as error:
                sentence = str(error)
        if sentence is not None:
            assert sentence.strip()
            assert "\n" not in sentence
        tally(name, "accepted" if sentence is None else "refused")
        return result

    return outcome
