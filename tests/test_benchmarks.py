"""The contestants of the benchmark compute what they are said to; how fast, no test asks."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ranks import on_ranks

import scratchvae as sv

FOLDER = Path(__file__).resolve().parents[1] / "demos" / "benchmarks"


@pytest.fixture
def contestants(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import contestants

    return contestants


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden", [(7,), (7, 6)])
def test_the_tutorial_has_the_right_gradient(contestants, rng, activation, hidden):
    case = contestants.Case((784, *hidden, 3), activation, 5, n=64)
    step = contestants.tutorial(case)
    p = step.weights
    model = sv.VAE(784, hidden, 3, activation=activation, dtype="float64", rng=0)
    names = {}  # ours -> its, side by side
    for i in range(len(hidden)):
        names[f"encoder.{2 * i}"] = [f"e{i}"]
        names[f"decoder.{2 * len(hidden) - 2 * i}"] = [f"d{i}"]
    names[f"encoder.{2 * len(hidden)}"] = ["mu", "lv"]
    names["decoder.0"] = ["z"]
    for ours, its in names.items():
        for part in "Wb":
            model.params[f"{ours}.{part}"].value[...] = np.concatenate(
                [p[part + name] for name in its], axis=-1
            )
    x = rng.random((5, 784))
    eps = copy.deepcopy(step.rng).standard_normal((5, 3))
    g = step.gradient(x)
    terms = model.loss_and_grad(x, eps)
    # The loss holds log(y + 1e-8): at moderate logits a relative change of 1e-8 / min(y, 1 - y).
    assert g["loss"] == pytest.approx(float(terms.loss), rel=1e-5)
    for ours, its in names.items():
        for part in "Wb":
            theirs = np.concatenate([g[part + name] for name in its], axis=-1)
            np.testing.assert_allclose(
                model.params[f"{ours}.{part}"].grad, theirs, rtol=1e-9, atol=1e-12
            )


def test_its_own_run_is_a_trainers(contestants):
    step = contestants.scratchvae(contestants.Case((784, 7, 3), "relu", 16, n=64))
    step(3)
    step(9)  # over the end of an epoch of four steps


@pytest.mark.parametrize(
    ("kind", "sizes", "changes"),
    [("VAE", (784, 2, 3, 3), {"network": "conv"}), ("IWAE", (784, 7, 3), {"samples": 4})],
)
def test_its_runs_of_other_models_are_trainers_too(kind, sizes, changes, contestants):
    step = contestants.scratchvae(contestants.Case(sizes, "relu", 16, n=64, **changes))
    step(5)
    (trainer,) = step.args
    assert type(trainer.model).__name__ == kind
    assert trainer.model.noise_shape(16) == ((4, 16, 3) if kind == "IWAE" else (16, 3))


def test_the_products_are_those_of_a_step(contestants, monkeypatch):
    shapes = []
    monkeypatch.setattr(
        contestants.np, "matmul", lambda a, b, out: shapes.append((a.shape, b.shape, out.shape))
    )
    contestants.products(contestants.Case((784, 400, 20), "relu", 128))(1)
    assert len(shapes) == 11
    flops = sum(2 * a[0] * a[1] * b[1] for a, b, _ in shapes)
    # three products of each weight matrix, but none for the gradient in the data
    weights = 784 * 400 + 400 * 40 + 20 * 400 + 400 * 784
    assert flops == 2 * 128 * (3 * weights - 784 * 400)
    assert all(out == (a[0], b[1]) for a, b, out in shapes)


@pytest.mark.slow
def test_the_command_writes_its_files(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--only", "scratchvae"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    for cases in results["steps"].values():
        for times in cases.values():
            assert all(len(t) == 2 for t in times.values()), times
    table = (tmp_path / "table.md").read_text()
    assert "| matrix products |" in table
    assert "| scratchvae |" in table
    assert "<svg" in (tmp_path / "steps.svg").read_text()


def test_the_guides_table_is_that_of_the_formula(monkeypatch):
    """And the formula's own numbers are those that the page names."""
    monkeypatch.syspath_prepend(FOLDER)
    import ranks_of_mpi

    page = (FOLDER.parents[1] / "docs/guide/machines.md").read_text()
    assert ranks_of_mpi.table() in page
    model = sv.VAE(784)
    assert len(model.params.value) == ranks_of_mpi.PARAMETERS
    assert "652,824 parameters" in page
    assert "$c$ = 36 µs, $a$ = 0.7 ms and $n$ = 8 ns" in page
    assert (ranks_of_mpi.EXAMPLE, ranks_of_mpi.FIXED, ranks_of_mpi.NORMAL) == (36e-6, 7e-4, 8e-9)


def test_the_guides_fastest_number_of_ranks_is_that_of_the_formula(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import ranks_of_mpi
    from ranks_of_mpi import BYTES, EXAMPLE, NETWORKS, PARAMETERS, step

    for network in NETWORKS:
        shorter = 1024 * EXAMPLE - 2 * PARAMETERS * BYTES / network.bandwidth
        best = np.log(2) * shorter / (6 * network.latency)
        assert (best > 1) == (network != NETWORKS[0])
        times = {n: step(n, 1024, network) for n in range(1, 4096)}
        if best < 1:
            assert min(times, key=times.get) == 1
        else:  # a row and a latency more or less, by rounding up
            assert times[min(round(best), 1024)] < 1.05 * min(times.values())
    monkeypatch.setattr(ranks_of_mpi, "EXAMPLE", 76.9e-6)  # of the busy machine that is measured
    memory = ranks_of_mpi.Network("memory", 0, 5e9)
    alone = step(1, 1024, memory)
    faster = alone / step(2, 1024, memory), 2 * alone / step(2, 2048, memory)
    found = f"{1e3 * alone:.1f} {faster[0]:.2f} {faster[1]:.2f}"
    page = (FOLDER.parents[1] / "docs/guide/machines.md").read_text()
    assert found == "79.6 1.95 1.98"
    assert "$c$ = 76.9 µs, so that the formula gives the 79.6 ms" in page


def test_a_step_on_ranks_is_timed(monkeypatch, capsys):
    """On two ranks that are threads here; how fast, no test asks."""
    monkeypatch.syspath_prepend(FOLDER)
    import ranks_of_mpi

    images = np.zeros((100, 784), np.uint8)
    assert not [e for e in on_ranks(2, lambda c: ranks_of_mpi.measure(c, 1, images, 8)) if e]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line[0] != " "] == [
        "alone", "8 a batch", "8 a rank"
    ]  # fmt: skip
