"""`make gpu-check` does run, and finds what is wrong: rehearsed on the stand-in for a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import standin

from scratchvae import activations, free_bits, gaussian, likelihoods

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "demos" / "benchmarks"


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    import gpu_check

    return gpu_check


def run(*arguments, cwd):
    command = [sys.executable, str(FOLDER / "gpu_check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_a_rehearsal_writes_what_it_found(tmp_path, gpu_check):
    names = ["parity", "capture", "log-likelihood", "MNIST", "speed 128 float32"]
    done = run("--rehearse", "--out", str(tmp_path), "--only", *names, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() == {"machine", *names}
    table = (tmp_path / "gpu.md").read_text()
    assert table == gpu_check.markdown(results)
    missing = [line for line in table.splitlines() if "not measured |" in line]
    assert len(missing) == 7 + 2  # the other checks, and two rows with two more batches
    assert "| scratchvae |" in table


@pytest.mark.slow
def test_a_whole_rehearsal(tmp_path):
    done = run("--rehearse", "--out", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_stands_in_the_documentation_is_what_was_found(gpu_check):
    folder = ROOT / "docs" / "benchmark"
    results = json.loads((folder / "gpu.json").read_text())
    assert (folder / "gpu.md").read_text() == gpu_check.markdown(results)


def test_every_pair_of_functions_takes_part(gpu_check, rng):
    backwards = {
        value
        for module in (activations, free_bits, gaussian, likelihoods)
        for name, value in vars(module).items()
        if name.endswith("_backward") and value.__module__ == module.__name__
    }
    assert backwards == {f_backward for _, _, f_backward, _ in gpu_check.pairs(rng)}


@pytest.mark.parametrize(
    ("function", "check"),
    [("expm1", "parity"), ("sqrt", "parity"), ("exp", "beside_the_cpu"), ("divide", "parity")],
)
def test_a_function_that_is_a_little_wrong_on_the_device_is_found(
    gpu_check, monkeypatch, function, check
):
    right = getattr(standin.cupy, function)
    monkeypatch.setattr(
        standin.cupy, function, lambda *args, **kw: right(*args, **kw) * 1.0001, raising=False
    )
    with pytest.raises(AssertionError, match=r"differs?\b"):
        getattr(gpu_check, check)(True)


def test_noise_that_repeats_is_found(gpu_check, monkeypatch):
    draw, fresh = standin.RandomState.standard_normal, np.random.default_rng

    def use(seed):
        def always(self, size, dtype):
            return draw(standin.RandomState(seed()), size, dtype)

        monkeypatch.setattr(standin.RandomState, "standard_normal", always)

    use(lambda: 1)
    with pytest.raises(AssertionError, match="correlation of two draws is off by"):
        gpu_check.noise(True)
    use(lambda: int(fresh().integers(2**32)))
    with pytest.raises(AssertionError, match="one seed gives different noise"):
        gpu_check.noise(True)


def test_a_check_that_fails_is_told_and_the_next_one_runs(gpu_check, monkeypatch, tmp_path, capsys):
    def fail(small):
        raise AssertionError("it differs")

    monkeypatch.setattr(gpu_check, "CHECKS", {"one": fail, "two": lambda small: {"found": 0.5}})
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--rehearse", "--out", str(tmp_path)])
    fail.__doc__ = "One."
    gpu_check.CHECKS["two"].__doc__ = "Two."
    with pytest.raises(SystemExit, match="Failed: one"):
        gpu_check.main()
    assert "two: found: 0.5" in capsys.readouterr().err
    assert "| One. | **failed**: AssertionError: it differs |" in (tmp_path / "gpu.md").read_text()


def test_a_difference_is_relative_to_the_largest_number_and_nan_is_infinite(gpu_check):
    a = np.array([1.0, -4.0])
    assert gpu_check.apart(np.array([1.0, -4.2]), a) == pytest.approx(0.05)
    assert gpu_check.apart(np.array([np.nan, -4.0]), a) == np.inf
    with pytest.raises(AssertionError, match="shape"):
        gpu_check.apart(np.zeros(3), a)


def test_without_a_gpu_one_sentence_says_so(tmp_path):
    done = run("--out", str(tmp_path), "--only", "parity", cwd=tmp_path)
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.stderr.startswith("gpu_check: the cupy backend needs an NVIDIA GPU")
    assert not list(tmp_path.iterdir())
