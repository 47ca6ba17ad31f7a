"""`make mutants` keeps the rows of its table whose texts have not changed, and no others."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
import semantic
from semantic import Edit, Mutant

# Not as `run`: the benchmarks have a module of that name, too.
spec = importlib.util.spec_from_file_location("mutation_run", Path(__file__).with_name("run.py"))
run = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)

A = Mutant("no 1/2 | in a", "a | text", ("test_a.py",), (Edit("a.py", "1 / 2", "1"),))
B = Mutant("zoo.Wrong", "Wrong in a and b.", ("test_b.py",), (Edit("b.py", "x", "y"),))
EQUIVALENT = """
[[equivalent]]
file = "a.py"
function = "f"
old = "x > 0"
new = ["x >= 0"]
why = "{why}"
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package of two files with a planted error each, and its table, just written."""
    for folder in "scratchvae", "tests", "docs":
        (tmp_path / folder).mkdir()
    for name in "scratchvae/a.py", "scratchvae/b.py", "scratchvae/zoo.py":
        (tmp_path / name).write_text("x > 0")
    for name in "tests/test_a.py", "tests/test_b.py", "tests/test_c.py":
        (tmp_path / name).write_text("assert True")
    (tmp_path / "equivalent.toml").write_text(EQUIVALENT.format(why="It is."))
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "TABLE", tmp_path / "docs" / "mutants.md")
    monkeypatch.setattr(run, "mutated_files", lambda: ["scratchvae/a.py", "scratchvae/b.py"])
    monkeypatch.setattr(run.importlib.metadata, "version", lambda name: "3.8.1")
    monkeypatch.setattr(semantic, "load", lambda: [A, B])
    found = {A.name: ["test_a.py::test_f", "test_c.py::test_f"], B.name: ["test_b.py::test_g"]}
    assert run.unchanged() == ({}, {})  # there is no table
    run.write(3, found, {"a.py": 7, "b.py": 9})
    return tmp_path, found


def kept():
    found, count = run.unchanged()
    return set(found) | set(count)


def test_of_unchanged_texts_everything_is_kept(tree):
    assert run.unchanged() == (tree[1], {"a.py": 7, "b.py": 9})
    before = run.TABLE.read_text()
    assert "| `a.py` | 7 | 6 | 1 |" in before
    run.write(3, *run.unchanged())
    assert run.TABLE.read_text() == before


@pytest.mark.parametrize(
    ("changed", "judged_again"),
    [
        ("scratchvae/a.py", {A.name, "a.py"}),
        ("scratchvae/b.py", {B.name, "b.py"}),
        ("scratchvae/zoo.py", {B.name}),
        ("tests/test_a.py", {A.name, "a.py"}),
        ("tests/test_c.py", {A.name}),  # which found it with one of the seeds
    ],
)
def test_what_rests_on_a_changed_file_is_judged_again(tree, changed, judged_again):
    path, everything = tree[0] / changed, {A.name, B.name, "a.py", "b.py"}
    path.write_text(path.read_text() + "\n")
    assert kept() == everything - judged_again
    path.unlink()
    assert kept() == everything - judged_again


def test_another_error_or_explanation_is_judged_again(tree, monkeypatch):
    other = dataclasses.replace(A, edits=(Edit("a.py", "1 / 2", "2"),))
    monkeypatch.setattr(semantic, "load", lambda: [other, B, dataclasses.replace(B, name="new")])
    assert kept() == {B.name, "a.py", "b.py"}
    (tree[0] / "equivalent.toml").write_text(EQUIVALENT.format(why="It is not."))
    assert kept() == {B.name, "b.py"}


def test_only_what_has_changed_is_run_and_all_of_it_on_request(tree, monkeypatch, capsys):
    judged = []

    def judge_semantic(mutants, seeds, workers):
        judged.extend(m.name for m in mutants)
        return {m.name: ["test_c.py::test_new"] for m in mutants}

    def judge_tool(files, rounds, workers):
        judged.extend(files)
        change = run.Change("a.py", "f", "x > 0", "x >= 0")
        alive = {change: "survived"} if "scratchvae/a.py" in files else {}
        return {Path(f).name: 5 for f in files}, alive

    def make_mutants(*argv):
        judged.clear()
        monkeypatch.setattr(sys, "argv", ["run.py", *argv])
        run.main()
        return judged

    monkeypatch.setattr(run, "judge_semantic", judge_semantic)
    monkeypatch.setattr(run, "judge_tool", judge_tool)
    assert make_mutants() == []
    make_mutants("--check")
    (tree[0] / "scratchvae/a.py").write_text("x >= 0")
    with pytest.raises(SystemExit, match=r"of other texts for:\nno 1/2 \| in a\nscratchvae/a\.py$"):
        make_mutants("--check")
    assert make_mutants() == [A.name, "scratchvae/a.py"]
    expected = {A.name: ["test_c.py::test_new"], B.name: tree[1][B.name]}
    assert run.unchanged() == (expected, {"a.py": 5, "b.py": 9})
    assert make_mutants("--all") == [A.name, B.name, "scratchvae/a.py", "scratchvae/b.py"]


def test_of_named_files_the_mutants_alone_are_judged_and_all_rows_kept(tree, monkeypatch, capsys):
    def judge_tool(files, rounds, workers):
        assert files == ["scratchvae/b.py"]
        return {"b.py": 4}, {}

    def make_mutants(*argv):
        monkeypatch.setattr(sys, "argv", ["run.py", *argv])
        run.main()

    monkeypatch.setattr(run, "judge_tool", judge_tool)
    for name in "a.py", "b.py":
        (tree[0] / "scratchvae" / name).write_text("x >= 0")
    planted = [row for row in run.rows().values() if row[0] in (run.cell(A.name), B.name)]
    make_mutants("b.py")
    assert [row for row in run.rows().values() if row[0] in (run.cell(A.name), B.name)] == planted
    assert len(planted) == 2
    assert run.unchanged() == ({}, {"b.py": 4})  # the planted errors are of other texts, and say so
    assert "Not judged since they changed: `a.py`." in run.TABLE.read_text()
    with pytest.raises(SystemExit):
        make_mutants("c.py")
    assert "not mutated: c.py" in capsys.readouterr().err
