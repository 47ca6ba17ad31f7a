"""The scripts that repeat published figures: each one runs, and no wrong number is met."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "demos" / "published"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("published", "__main__"))


@pytest.fixture
def published(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import published

    return published


def results_of(values, name="linear_vae", key="loss"):
    """Return the results of a script whose runs, with seeds 0, 1 ..., found these values."""
    runs = {str(seed): {key: float(v), "seconds": 7.0} for seed, v in enumerate(values)}
    return {name: {"measured": "on a day", "runs": runs}}


# --- every script ---------------------------------------------------------------------------------


def test_the_list_names_every_script(published):
    assert sorted(published.NAMES) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_quick_run_gives_every_figure_that_is_claimed(published, name):
    module = published.script(name)
    if reason := getattr(module, "SKIP", ""):
        pytest.skip(reason)
    found = module.run(seed=3, quick=True)
    assert {claim.key for claim in module.CLAIMS} <= set(found)
    assert all(math.isfinite(value) for value in found.values()), found
    assert module.run(seed=3, quick=True) == found  # the seed decides all


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_repeats(published, name):
    module = published.script(name)
    assert {"Title", "Source", "Protocol"} <= set(published.said(module))
    assert module.SEEDS >= 1
    assert len({claim.key for claim in module.CLAIMS}) == len(module.CLAIMS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_band_is_around_the_published_figure(published, name):
    for claim in published.script(name).CLAIMS:
        assert (claim.low is None) == (claim.high is None) == (claim.published == "none")
        if claim.beside:
            assert claim.beside in published.NAMES
            assert claim.published.endswith(f"± {claim.high}")
            assert claim.low == -claim.high
        elif claim.low is not None:
            assert claim.low < claim.high
            numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", claim.published)]
            if "±" in claim.published:  # the source's own band
                centre, width = numbers
                assert (claim.low, claim.high) == pytest.approx((centre - width, centre + width))
            elif "in closed form" in claim.published:
                assert claim.low + claim.high == pytest.approx(2 * numbers[0])
            else:
                assert all(claim.low <= n <= claim.high for n in numbers), claim


def test_the_schedule_of_the_stages_is_that_of_the_paper(published):
    rates, epochs = published.script("iwae").schedule(8)
    assert epochs == sum(3**i for i in range(8)) == 3280
    passed = 0
    for i in range(8):
        for epoch in (passed, passed + 3**i - 1e-9):
            assert rates(epoch) == pytest.approx(1e-3 * 10 ** (-i / 7))
        passed += 3**i


def test_the_tested_images_of_the_assignment_are_ten_of_each_digit(published):
    chosen = published.script("xcs236").CHOSEN
    assert [len(rows) for rows in chosen] == [10] * 10
    # MNIST has 892 to 1,135 test images of a digit.
    sizes = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    assert all(max(rows) < size for rows, size in zip(chosen, sizes, strict=True))


def test_the_points_of_the_homework_have_its_covariance(published):
    deepul = published.script("deepul")
    x = deepul.points("b", 10_000)
    np.testing.assert_array_equal(deepul.points("b", 2_500), x[:2_500])  # as its text says
    # The mean of 10,000 is known to 0.05, of the larger axis; the variances to 1.4% each.
    np.testing.assert_allclose(x.mean(axis=0), (1, 2), atol=0.15)
    np.testing.assert_allclose(np.cov(x.T), [[25, 0], [0, 1]], atol=1.1)
    np.testing.assert_allclose(np.cov(deepul.points("a", 10_000).T), [[13, 12], [12, 13]], atol=1.1)


# --- verdicts -------------------------------------------------------------------------------------


def test_what_lies_in_the_band_is_met_and_nothing_else(published, rng):
    for _ in range(300):
        low, high = np.sort(rng.normal(100, 5, 2))
        each = bool(rng.integers(2))
        claim = published.Claim("loss", "", "", low, high, each)
        values = rng.normal((low + high) / 2, 2 * (high - low), rng.integers(1, 6))
        judged = values if each else np.array([math.fsum(values) / len(values)])
        found = published.verdict(claim, "linear_vae", results_of(values))
        assert (found == "met") == bool(np.all((low <= judged) & (judged <= high)))
        assert found == "met" or found.startswith("not met: ")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("each", [True, False])
def test_what_is_no_number_is_not_met(published, wrong, each):
    claim = published.Claim("loss", "", "", 90, 110, each)
    values = results_of([100, wrong, 100])
    assert published.verdict(claim, "linear_vae", values).startswith("not met: ")


def test_one_run_outside_is_said_where_each_counts(published):
    claim = published.Claim("loss", "", "100 ± 2", 98, 102, each=True)
    found = published.verdict(claim, "linear_vae", results_of([100, 102.1, 100]))
    assert found == "not met: 1 of 3 runs outside"
    assert (
        published.verdict(claim._replace(each=False), "linear_vae", results_of([99, 103])) == "met"
    )


def test_what_was_not_measured_has_no_verdict(published):
    claim = published.Claim("loss", "", "100", 98, 102)
    assert published.verdict(claim, "linear_vae", {}) == "not measured yet"
    of_another = results_of([100], name="iwae")
    assert published.verdict(claim, "linear_vae", of_another) == "not measured yet"
    of_another_figure = results_of([100], key="kl")
    assert published.verdict(claim, "linear_vae", of_another_figure) == "not measured yet"


def test_a_band_beside_another_row_moves_with_it(published):
    claim = published.Claim("loss", "", "PyTorch's ± 1", -1, 1, beside="iwae_pytorch")
    ours, missing = results_of([101.5], "iwae"), "not measured yet: iwae_pytorch has no runs"
    assert published.verdict(claim, "iwae", ours) == missing
    for theirs, expected in ((101, "met"), (102.4, "met"), (100, "not met: the mean is 101.50")):
        results = ours | results_of([theirs - 1, theirs + 1], "iwae_pytorch")
        assert published.verdict(claim, "iwae", results) == expected


def test_a_figure_without_a_band_is_not_judged(published):
    claim = published.Claim("loss", "", "none")
    assert published.verdict(claim, "linear_vae", results_of([100])) == "reported only"


# --- the table ------------------------------------------------------------------------------------


def rows_below(table, title):
    """Return the cells of the rows below a title."""
    section = table.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]  # without the head


def test_the_table_of_a_hand_made_file_of_results(published):
    results = results_of([1e-13, 3e-13], "linear_vae", "difference")
    runs = [{"loss": 100.5, "kl": 18, "rec": 82.5, "seconds": 60}]
    runs[0] |= {"iw 1": 99, "iw 10": 97, "iw 100": 99, "iw 1000": 95}
    runs.append(runs[0] | {"loss": 102.5, "kl": 17, "seconds": 61})
    results["xcs236"] = {"measured": "on another day", "runs": dict(zip("01", runs, strict=True))}
    table = published.table(results)
    (row,) = rows_below(table, "A linear VAE and probabilistic PCA")
    assert row[1:] == ["0", "0.0e+00 to 1.0e-12", "2.0e-13 (1.0e-13 to 3.0e-13 in 2 runs)", "met"]
    rows = rows_below(table, "XCS236, assignment 2, VAE")
    assert rows[0][1:4] == ["100 ± 2", "98.00 to 102.00", "101.50 (100.50 to 102.50 in 2 runs)"]
    one, two = "not met: 1 of 2 runs outside", "not met: 2 of 2 runs outside"
    assert [row[-1] for row in rows] == [one, one, "met", "met", "met", two, "met"]
    (row,) = rows_below(table, "PyTorch's VAE example, two latents")
    assert row[3:] == ["", "not measured yet"]
    judged = [c for n in published.NAMES for c in published.script(n).CLAIMS if c.low is not None]
    others = f"{len(judged) - 8} not measured yet"
    assert table.startswith(f"Of {len(judged)} figures with a band: 5 met, 3 not met, {others}. ")
    assert "`--full` took 2 minutes." in table  # twice 7 seconds, and 60 + 61
    assert "Measured on another day; 60 (60 to 61 in 2 runs) seconds of one core a run." in table
    assert table.count("Not measured yet; ") == len(published.NAMES) - 2


def test_the_table_in_the_documentation_is_that_of_the_results(published):
    results = json.loads((published.OUT / "published.json").read_text("utf-8"))
    assert (published.OUT / "published.md").read_text("utf-8") == published.table(results)
    for name, row in results.items():
        assert re.match(r"on \d{4}-\d\d-\d\d: .+ cores; .*numpy \d", row["measured"])
        assert sorted(row["runs"], key=int) == list(row["runs"])
        assert len(row["runs"]) >= published.script(name).SEEDS, name
        for run in row["runs"].values():
            assert {claim.key for claim in published.script(name).CLAIMS} <= set(run)


# --- the command ----------------------------------------------------------------------------------


def command(*options, cwd):
    return subprocess.run(
        [sys.executable, str(FOLDER), *options], capture_output=True, text=True, cwd=cwd
    )


def test_the_command_runs_what_is_named_and_keeps_what_was_measured(tmp_path):
    options = ("--quick", "--out", str(tmp_path))
    done = command("linear_vae", "--seeds", "4", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command("deepul", "--seeds", "1", "0", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "published.json").read_text("utf-8"))
    assert {name: list(row["runs"]) for name, row in results.items()} == {
        "linear_vae": ["4"],
        "deepul": ["0", "1"],
    }
    before = (tmp_path / "published.md").read_text("utf-8")
    (tmp_path / "published.md").unlink()
    done = command("--table", "--out", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "published.md").read_text("utf-8") == before


def test_an_unknown_name_ends_in_a_sentence(tmp_path):
    done = command("nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no script 'nothing': expected one of pytorch_example," in done.stderr
    assert "Traceback" not in done.stderr
