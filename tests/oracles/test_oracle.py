"""That a missing oracle is seen, and that nothing is left out of what the oracles compare."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from oracle import PAIRS, import_oracle

from scratchvae import activations, free_bits, gaussian, likelihoods

HERE = Path(__file__).parent
# Importing a name that is None in sys.modules raises what a missing module raises.
WITHOUT = """
import sys
sys.modules.update(torch=None, jax=None)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def pytest_without_oracles(require):
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    environment["SCRATCHVAE_REQUIRE_ORACLES"] = require
    files = [str(HERE / name) for name in ("test_torch.py", "test_jax.py")]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, "-p", "no:cacheprovider", *files],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )


def test_without_an_oracle_its_tests_are_skipped_and_say_why():
    run = pytest_without_oracles(require="")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout + run.stderr
    for name in ("torch", "jax"):
        reason = f"{name} is not installed: nothing to compare with"
        assert re.search(rf"SKIPPED \[1\] tests.oracles.test_{name}\.py:\d+: {reason}", run.stdout)
    assert "2 skipped" in run.stdout


def test_without_an_oracle_its_tests_fail_where_it_is_required():
    run = pytest_without_oracles(require="1")
    assert run.returncode == pytest.ExitCode.INTERRUPTED, run.stdout + run.stderr
    for name in ("torch", "jax"):
        assert f"ERROR tests/oracles/test_{name}.py" in run.stdout
    assert "skipped" not in run.stdout


def test_an_oracle_that_lacks_a_part_of_its_own_is_no_missing_oracle(monkeypatch, tmp_path):
    (tmp_path / "an_oracle.py").write_text("import a_part_of_an_oracle\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("SCRATCHVAE_REQUIRE_ORACLES", raising=False)
    # A skip is caught too, since it would skip this test; only the error has this message.
    either = (ModuleNotFoundError, pytest.skip.Exception)
    with pytest.raises(either, match="No module named 'a_part_of_an_oracle'"):
        import_oracle("an_oracle")
    with pytest.raises(pytest.skip.Exception, match="no_oracle is not installed"):
        import_oracle("no_oracle")


def test_every_pair_of_functions_is_among_the_pairs():
    backwards = {
        name
        for module in (activations, free_bits, gaussian, likelihoods)
        for name, value in vars(module).items()
        if name.endswith("_backward") and value.__module__ == module.__name__
    }
    assert len(backwards) >= 10
    assert backwards == {f"{name.split()[0]}_backward" for name in PAIRS if name[0].islower()}
