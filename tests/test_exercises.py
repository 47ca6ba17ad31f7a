"""Every exercise: the package's own lines solve it, its stub and wrong answers get their sentences.

The judging is done in this process, with new random arguments each time. What the command does,
with a process of its own for each answer, is tested at the end, as a reader would use it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import exercise_answers
import numpy as np
import pytest

from scratchvae import cli
from scratchvae.exercises import (
    Derive,
    Folder,
    Formula,
    Predict,
    exercises,
    find,
    judge,
    judge_here,
    kinds,
)
from scratchvae.exercises.judging import load

ROOT = Path(__file__).resolve().parents[1]
TRAINS = {s.name for s in exercises() if s.trains}


def each(slow=TRAINS):
    """All exercises; those that train a model are slow."""
    return [
        pytest.param(s, id=s.name, marks=[pytest.mark.slow] if s.name in slow else [])
        for s in exercises()
    ]


def judged(sheet, text, folder, rng):
    path = folder.resolve() / f"{sheet.name}.py"
    path.write_text(text, "utf-8")
    return judge_here(sheet, path, rng)


# ------------------------------------------------------------------------------------- the sheets


def test_they_are_numbered_in_their_order():
    assert [s.number for s in exercises()] == list(range(1, 25))
    assert all(s.name == f"{s.number:02d}_{s.name[3:]}" for s in exercises())
    kinds = [s.title.partition(":")[0] for s in exercises()]
    assert {k: kinds.count(k) for k in kinds} == {
        "Derive": 10, "Repair": 6, "Predict": 4, "Reproduce": 4
    }  # fmt: skip


@pytest.fixture(scope="module")
def known():
    """The labels of the code."""
    text = "\n".join(p.read_text("utf-8") for p in (ROOT / "scratchvae").glob("*.py"))
    return set(re.findall(r"^ *# \[([\w-]+)\]", text, re.MULTILINE))


@pytest.mark.parametrize("sheet", each(slow=()))
def test_a_sheet_is_whole(sheet, known):
    assert re.fullmatch(r"\d+ minutes", sheet.minutes)
    assert len(sheet.exercise.hints) >= 2
    assert "what judges it" not in sheet.text
    assert "Task: " in sheet.text
    assert (ROOT / "docs" / f"{sheet.exercise.page}.md").exists()
    assert sheet.exercise.solution
    named = re.findall(r"equations? \(([\w-]+)\)(?: and \(([\w-]+)\))?", sheet.text)
    for label in filter(None, sum(named, ())):
        assert label in known


@pytest.mark.parametrize("sheet", each(slow=()))
def test_a_solution_shows_the_derivation_and_the_packages_lines(sheet):
    text = sheet.solution()
    assert f"In the documentation: {sheet.exercise.page}.html" in text
    assert re.search(r"scratchvae/\w+\.py, line \d+:\n\n(@|def |class )", text)


# ------------------------------------------------------------------------------------ the verdicts


@pytest.mark.parametrize("sheet", each())
def test_the_packages_own_lines_solve_it(sheet, tmp_path, rng):
    verdict = judged(sheet, sheet.solved(), tmp_path, rng)
    assert verdict.ok, verdict


@pytest.mark.parametrize("sheet", each(slow={"23_settings"}))
def test_an_untouched_sheet_gets_a_sentence(sheet, tmp_path, rng):
    verdict = judged(sheet, sheet.text, tmp_path, rng)
    assert not verdict.ok
    if sheet.name != "23_settings":  # its settings are an answer, which is not good enough
        assert not verdict.tried
        assert re.search(r"is not written yet: replace|is still None: write", verdict.sentence)
    assert verdict.sentence.endswith(".")


@pytest.mark.parametrize("sheet", each())
def test_another_right_answer_is_right_too(sheet, tmp_path, rng):
    text = sheet.text
    for old, new in exercise_answers.RIGHT[sheet.name]:
        assert old in text
        text = text.replace(old, new)
    verdict = judged(sheet, text, tmp_path, rng)
    assert verdict.ok, verdict


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(*v, id=k, marks=[pytest.mark.slow] if v[0] in TRAINS - {"22_nll"} else [])
        for k, v in exercise_answers.UNUSUAL.items()
    ],
)
def test_an_unusual_right_answer_is_right_too(name, text, tmp_path, rng):
    sheet = find(name)
    first = "from __future__ import annotations\n"  # where it must be
    text = first * (first in text) + sheet.solved() + text.replace(first, "")
    verdict = judged(sheet, text, tmp_path, rng)
    assert verdict.ok, verdict


def wrong_answers():
    for sheet in exercises():
        marks = [pytest.mark.slow] if sheet.name in TRAINS - {"22_nll"} else []
        for i, (text, said) in enumerate(exercise_answers.WRONG[sheet.name]):
            yield pytest.param(sheet, text, said, id=f"{sheet.name}-{i}", marks=marks)


@pytest.mark.parametrize(("sheet", "text", "said"), list(wrong_answers()))
def test_a_wrong_answer_gets_its_sentence(sheet, text, said, tmp_path, rng):
    text = exercise_answers.appended(sheet, text)
    verdict = judged(sheet, text, tmp_path, rng)
    assert not verdict.ok
    assert said in verdict.sentence
    assert verdict.tried
    assert "\n" not in verdict.sentence


def test_each_has_three_wrong_answers():
    assert set(exercise_answers.WRONG) == {s.name for s in exercises()}
    assert all(len(answers) >= 3 for answers in exercise_answers.WRONG.values())


def usual():
    for sheet in exercises():
        for i, (wrong, sentence) in enumerate(getattr(sheet.exercise, "usual", ())):
            marks = [pytest.mark.slow] if sheet.name in TRAINS - {"22_nll"} else []
            yield pytest.param(sheet, wrong, sentence, id=f"{sheet.name}-{i}", marks=marks)


@pytest.mark.parametrize(("sheet", "wrong", "sentence"), list(usual()))
def test_each_usual_mistake_that_a_sheet_names_is_told_from_the_others(
    sheet, wrong, sentence, tmp_path, rng
):
    path = tmp_path / f"{sheet.name}.py"
    path.write_text(sheet.text)
    answer, of = load(path), sheet.exercise
    if isinstance(of, Derive):
        forward, f = (p.__name__ for p in of.pair)
        y = getattr(answer, forward)
        setattr(answer, forward, lambda *args: (y(*args)[0], args))
        setattr(answer, f, lambda dy, args: wrong(dy, *args))
    elif isinstance(of, Formula):
        setattr(answer, of.name, wrong)
    elif isinstance(of, Predict):
        answer.answer = wrong if of.args else wrong()
    with np.errstate(all="ignore"), pytest.raises(kinds.Wrong) as caught:
        of.judge(answer, rng)
    assert caught.value.sentence == sentence


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        (
            "relu",
            "return 'dx'",
            "the gradient that relu_backward returns is a str: expected an array.",
        ),
        ("relu", "return dy[:1]", "relu_backward: the gradient of x has shape "),
        ("relu", "return dy.astype(object)", "relu_backward: dx is an array of objects: expected"),
        (
            "kl",
            "return dkl[:, None] * mu, np.expm1(logvar) / 2",
            "kl_standard_normal_backward, the gradient of logvar: It is the gradient for a dkl of",
        ),
        (
            "sigma",
            "z, _ = reparameterize(0.0, 2.0, 1.0); assert abs(z - np.exp(2)) < 1e-9",
            "find_the_bug is the wrong way round: it fails on the right reparameterize and ",
        ),
        ("length", "n**0.5", "answer returns None: is its `return` missing?"),
    ],
)
def test_what_breaks_the_contract_is_told_in_a_sentence(name, lines, said, tmp_path, rng):
    text = find(name).text.replace("raise NotImplementedError", lines)
    assert judged(find(name), text, tmp_path, rng).sentence.startswith(said)


@pytest.mark.parametrize("lines", ["dy * (y <= 0)", "dy * (dy > 0)", "y * (dy > 0)"])
def test_wrong_answers_do_not_agree_by_chance(lines, tmp_path, rng):
    """On few numbers, where all that are positive happen to be those of another answer."""
    sheet = find("relu")
    text = sheet.text.replace("raise NotImplementedError", f"return {lines}")
    sentences = " ".join(judged(sheet, text, tmp_path, rng).sentence for _ in range(20))
    assert ("cuts off negative dy" in sentences) == (lines == "dy * (dy > 0)")
    assert "is dy itself" not in sentences
    assert "zero everywhere" not in sentences


def test_a_right_answer_that_a_usual_mistake_equals_on_these_arguments_is_right(rng):
    """As where no dy is negative, and somebody cuts off negative dy."""
    pair = find("relu").exercise.pair
    right = lambda dy, x: dy * (x > 0)  # noqa: E731
    args = [np.array([1.0, 2.0, -1.0])]
    kinds.require_gradient(pair, pair, args, ["x"], rng, ((right, "a mistake"),))


def test_adams_moments_are_looked_at_before_the_value_that_is_made_of_them(tmp_path, rng):
    text = find("adam").text + exercise_answers.adam().replace("(1 - b2) *", "")
    assert judged(find("adam"), text, tmp_path, rng).sentence == "adam_step: v is wrong."


def test_a_term_without_dy_is_named_and_no_sum_blamed(tmp_path, rng):
    text = find("kl").text.replace(
        "raise NotImplementedError",
        "return dkl[:, None] * mu, dkl[:, None] * np.exp(logvar) / 2 - 0.5",
    )
    said = judged(find("kl"), text, tmp_path, rng).sentence
    assert said.endswith("the gradient of logvar: The term -0.5 is not multiplied by dkl.")


def test_a_gradient_that_is_wrong_in_its_last_digits_needs_no_step(tmp_path, rng):
    """The forward pass is the sheet's: a smaller step, or other arguments, are not the reader's."""
    text = find("kl").text.replace(
        "    raise NotImplementedError",
        "    mu, logvar = mu.astype('f4').astype(float), logvar.astype('f4').astype(float)\n"
        "    return dkl[:, None] * mu, dkl[:, None] * np.expm1(logvar) / 2",
    )
    verdict = judged(find("kl"), text, tmp_path, rng)
    assert verdict.ok or "step" not in verdict.sentence


@pytest.mark.parametrize("name", [s.name for s in exercises() if hasattr(s.exercise, "bug")])
def test_a_repair_holds_the_bug_of_the_zoo(name, tmp_path, rng):
    sheet = find(name)
    path = tmp_path / f"{name}.py"
    path.write_text(sheet.text)
    answer, args = load(path), sheet.exercise.args(rng)
    forward, backward = (getattr(answer, f.__name__) for f in sheet.exercise.pair)
    with np.errstate(all="ignore"):
        given, bug = forward(*args)[0], sheet.exercise.bug(*args)[0]
    np.testing.assert_allclose(given, bug, rtol=1e-12)
    assert not np.allclose(given, sheet.exercise.pair[0](*args)[0])
    # Forward and backward agree: that is why a gradient check does not find it.
    args[-1] = args[-1].clip(-3, 3)
    kinds.check(forward, backward, args, wrt=list(sheet.exercise.wrt), rng=rng)


def test_a_mended_forward_with_its_old_backward_is_told(tmp_path, rng):
    sheet = find("sigma")
    text = sheet.text.replace("np.exp(logvar)", "np.exp(0.5 * logvar)")
    text += textwrap.dedent(sheet.exercise.code)
    said = judged(sheet, text, tmp_path, rng).sentence
    assert said.startswith("reparameterize is mended, its backward is not.")
    assert "It is 2 times the right one" in said


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_the_sampler_is_judged_as_a_distribution(factor, rng):
    """Also where another formula than ours draws rightly."""
    kinds.require_sampler(lambda mu, logvar, eps: (mu - np.exp(logvar / 2) * eps, None), rng)
    with pytest.raises(kinds.Wrong, match="another distribution than N"):
        kinds.require_sampler(
            lambda mu, logvar, eps: (mu + factor * np.exp(logvar / 2) * eps, None), rng
        )


def test_the_kl_is_judged_as_the_mean_over_draws(rng):
    def right(mu, logvar):
        return 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1), None

    kinds.require_divergence(right, rng)
    with pytest.raises(kinds.Wrong, match="not the mean of log q"):
        kinds.require_divergence(lambda *args: (1.1 * right(*args)[0], None), rng)


# ---------------------------------------------------------------------- files that cannot be judged


BAD = {
    "def relu(x:": "01_relu.py, line 1: '(' was never closed; Python cannot read this.",
    "import nothing_of_that_name": "01_relu.py, line 1, in <module>: ModuleNotFoundError: ",
    "raise SystemExit(3)": "01_relu.py, line 1, in <module>: SystemExit: 3",
    "x = 1": "relu is missing: the file you were given has it, so put it back.",
    "def relu(x): return x, x\nrelu_backward = relu": "relu gives other values than it did",
    "def relu(x): return x\nrelu_backward = relu": "relu returns a ndarray: expected the pair",
    "import os; os._exit(7)": "01_relu.py ended Python itself, with exit code 7.",
    "def f(n): return f(n)\nf(1)": "RecursionError",
    "\0": "Python cannot read this",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_file_that_cannot_be_judged_gets_a_sentence(text, tmp_path):
    path = tmp_path / "01_relu.py"
    path.write_text(text)
    verdict = judge(path)
    assert not verdict.ok
    assert BAD[text] in verdict.sentence
    assert list(tmp_path.iterdir()) == [path]  # no byte code beside it


def test_an_endless_loop_is_ended(tmp_path):
    path = tmp_path / "01_relu.py"
    path.write_text("while True: pass")
    verdict = judge(path, limit=3)
    said = "01_relu.py did not end within 3 seconds: is there an endless loop?"
    assert verdict.sentence == said


def test_the_readers_folder_hides_no_module(tmp_path, monkeypatch):
    """A numpy.py beside the exercises is not taken for NumPy."""
    monkeypatch.chdir(tmp_path)
    Path("numpy.py").write_text("raise RuntimeError")
    Path("01_relu.py").write_text(find("relu").solved())
    assert judge("01_relu.py").ok


# ------------------------------------------------------------------------------------- the command


@pytest.fixture
def exercise(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capsys.readouterr()
        code = cli.main(["exercise", *argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out + err

    return run


def test_from_the_first_exercise_to_its_solution(exercise):
    code, text = exercise()
    assert code == 0
    assert text.count("[ ] ") == 24
    assert "0 of 24 done" in text
    assert not Path("exercises").exists()
    code, text = exercise("check")
    assert (code, text.count("\n")) == (2, 1)
    assert "holds no exercise yet: `scratchvae exercise next` writes the first" in text
    code, text = exercise("next")
    path = Path("exercises/01_relu.py")
    assert f"Wrote {path}: Derive: the gradient of relu" in text
    assert path.read_text() == find("1").text
    code, text = exercise("check")
    assert code == 1
    assert "is not written yet" in text
    for failures in 0, 1:
        code, text = exercise("solution")
        assert (code, text.count("\n")) == (2, 1)
        assert f"and there are {failures} so far" in text
        path.write_text(find("1").text + exercise_answers.relu("d"))
        code, text = exercise("check", "relu")
        assert code == 1
        lines = text.splitlines()
        assert lines[0] == f"{path}: not yet"
        assert lines[1].endswith("It is dy itself: the derivative of the forward pass is missing.")
        assert lines[2].split() == ["yours", "true"]
        assert "scratchvae exercise hint" in lines[-1]
    hints = [exercise("hint")[1] for _ in range(4)]
    assert [re.search(r"hint (\d) of 3", h)[1] for h in hints] == ["1", "2", "3", "3"]
    code, text = exercise("solution")
    assert code == 0
    assert "return dy * (y > 0)" in text
    path.write_text(find("1").solved())
    code, text = exercise("check")
    assert code == 0
    assert "Next: scratchvae exercise next" in text
    assert exercise("next")[1].startswith(f"Wrote {Path('exercises/02_sigmoid.py')}")
    assert "[x] 01_relu" in exercise()[1]
    assert "[.] 02_sigmoid" in exercise("list")[1]
    progress = json.loads(Path("exercises/progress.json").read_text())
    assert progress["01_relu"] == {"done": True, "failures": 2, "hints": 3}


def test_the_command_that_it_names_is_of_the_same_folder(exercise):
    there = "--folder 'my answers/a'"
    _, text = exercise("next", "--folder", "my answers/a")
    assert f"then: scratchvae exercise check {there}\n" in text
    path = Path("my answers/a/01_relu.py")
    path.write_text(find("1").text + exercise_answers.relu("d"))
    for _ in range(2):
        _, text = exercise("check", "--folder", "my answers/a")
    hint, solution = (
        f"scratchvae exercise hint {there}",
        f"scratchvae exercise solution relu {there}",
    )
    assert f"Stuck? {hint}, or: {solution}\n" in text
    path.write_text(find("1").solved())
    assert f"Next: scratchvae exercise next {there}\n" in exercise("check", str(path))[1]
    assert f"`scratchvae exercise check {there}`" in exercise("--folder", "my answers/a")[1]


def test_two_terminals_share_the_progress(tmp_path):
    watching, other = Folder(tmp_path), Folder(tmp_path)
    sheet, _ = watching.write()
    assert [other.hint(sheet)[0] for _ in range(2)] == [1, 2]
    watching.file(sheet).write_text(find("1").text + exercise_answers.relu("d"))
    watching.check(sheet)
    assert watching.of(sheet) == other.of(sheet) == {"done": False, "failures": 1, "hints": 2}
    assert other.hint(sheet)[0] == 3


def test_a_readers_file_is_never_overwritten(exercise):
    exercise("next")
    Path("exercises/01_relu.py").write_text("mine")
    code, text = exercise("next")
    assert code == 0
    assert "is there already and not solved yet; it stays as it is" in text
    assert Path("exercises/01_relu.py").read_text() == "mine"
    assert exercise("next", "linear")[1].startswith(f"Wrote {Path('exercises/03_linear.py')}")


def test_what_next_says_judges_what_it_wrote(exercise):
    assert "then: scratchvae exercise check\n" in exercise("next")[1]
    for _ in range(2):  # written, then there already
        text = exercise("next", "linear")[1]  # while 01_relu is not solved
        command = re.search(r"scratchvae exercise (check \w+)", text)[1]
        assert "03_linear.py: not yet" in exercise(*command.split())[1]


def test_within_the_folder_it_is_the_folder(exercise, monkeypatch):
    exercise("next")
    monkeypatch.chdir("exercises")
    assert "01_relu.py: not yet" in exercise("check")[1]
    assert exercise("next", "2")[1].startswith("Wrote 02_sigmoid.py")


def test_what_cannot_be_done_is_said_in_one_sentence(exercise):
    Path("file").write_text("")
    Path("damaged").mkdir()
    Path("damaged/progress.json").write_text("{")
    Path("relu.py").write_text("")
    for argv, said in (
        (
            ["check", "relo"],
            "there is no exercise 'relo': `scratchvae exercise` lists them; did you",
        ),
        (["check", "relu"], "01_relu.py: there is no such file; `scratchvae exercise next relu`"),
        (["hint", "relu"], "01_relu.py: there is no such file; `scratchvae exercise next relu`"),
        (["next", "--folder", "file"], "file: is a file, expected a folder"),
        (["next", "--folder", "file/below"], "cannot be written"),
        (["list", "--folder", "damaged"], "progress.json: is damaged, or not of these exercises"),
        (["check", "none/01_relu.py"], "none/01_relu.py: there is no such file"),
        (["check", "relu.py"], "relu.py: is called otherwise than its exercise, 01_relu.py"),
        (["next", "new/relu.py"], "new/relu.py: is called otherwise than its exercise, 01_"),
        (["export"], "export: expected the folder to write"),
        (["export", "damaged"], "damaged: is not empty; expected a new folder"),
        (["list", "relu"], "list: relu is not expected"),
    ):
        code, text = exercise(*argv)
        assert code == 2
        assert said in text
        assert text.count("\n") == 1


def test_a_file_that_is_named_is_the_one_that_is_judged(exercise):
    exercise("next")
    Path("exercises/01_relu.py").write_text(find("1").solved())
    code, text = exercise("next", "bob/01_relu.py")
    assert (code, text.splitlines()[0][:20]) == (0, "Wrote bob/01_relu.py")
    assert "check --folder bob\n" in text
    code, text = exercise("check", "bob/01_relu.py")
    assert (code, text.splitlines()[0]) == (1, "bob/01_relu.py: not yet")
    assert exercise("check", "exercises/01_relu.py")[0] == 0


def test_the_hint_that_it_names_is_of_the_exercise_that_was_judged(exercise):
    exercise("next")
    exercise("next", "kl")
    path = Path("exercises/07_kl.py")
    path.write_text(
        find("7").text + "\n\ndef kl_standard_normal_backward(dkl, cache): return cache\n"
    )
    text = exercise("check", "kl")[1]
    command = re.search(r"Stuck\? scratchvae exercise (hint.*)\n", text)[1]
    assert exercise(*command.split())[1].startswith("07_kl, hint 1")


def test_what_an_exported_sheet_says_works_where_it_lies(exercise, monkeypatch):
    exercise("export", "the course")
    monkeypatch.chdir("the course")
    Path("01_relu.py").write_text(find("1").solved())
    assert exercise("check")[1].startswith("01_relu.py: right")
    assert exercise("hint")[1].startswith("02_sigmoid, hint 1")
    assert exercise("check", "kl")[1].startswith("07_kl.py: not yet")


def test_another_programs_progress_is_left_alone(exercise):
    for content in ("{}", '{"epoch": 3, "best": 0.2}', "["):
        Path("progress.json").write_text(content)
        assert exercise("list")[0] == 0
        assert Path("progress.json").read_text() == content
    assert exercise("next")[1].startswith(f"Wrote {Path('exercises/01_relu.py')}")


def test_progress_that_cannot_be_read_is_not_called_damaged(exercise, monkeypatch):
    exercise("next")

    def refuse(path, *options, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    code, text = exercise("list")
    assert code == 2
    assert text.endswith("progress.json: cannot be read (Permission denied)\n")


def test_what_a_file_sets_for_floating_point_errors_does_not_reach_the_judge(tmp_path, rng):
    sheet = find("bernoulli")
    text = sheet.solved() + '\n\nnp.seterr(all="raise")\n'
    for _ in range(5):  # an underflow, for some arguments
        verdict = judged(sheet, text, tmp_path, rng)
        assert verdict.ok, verdict


def test_a_folder_that_may_not_be_written(exercise, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, text = exercise("next")
    assert code == 2
    assert text.endswith("01_relu.py: cannot be written (Permission denied)\n")
    code, text = exercise("export", "course")
    assert code == 2
    assert text.endswith("course: cannot be written (Permission denied)\n")


def test_all_done(exercise):
    progress = {s.name: {"done": True, "failures": 0, "hints": 0} for s in exercises()}
    Path("exercises").mkdir()
    Path("exercises/progress.json").write_text(json.dumps(progress))
    assert "All 24 are done." in exercise()[1]
    assert "all exercises are done: there is no next one" in exercise("next")[1]


def test_watch_judges_what_is_saved_and_ends_quietly(tmp_path):
    folder = Folder(tmp_path / "e")
    folder.write()
    path = folder.file(find("relu"))
    seen = folder.watch()
    assert "not written yet" in next(seen)[1].sentence
    path.write_text(find("relu").solved())
    os.utime(path, ns=(1, 1))  # whatever the clock of the disk
    sheet, verdict = next(seen)
    assert (sheet.name, verdict.ok) == ("01_relu", True)


@pytest.mark.parametrize("text", ["", "while True: pass"], ids=["waiting", "judging"])
def test_ctrl_c_ends_watching_quietly(text, tmp_path):
    folder = Folder(tmp_path / "exercises")
    sheet, _ = folder.write()
    if text:
        folder.file(sheet).write_text(text)
    before = (tmp_path / "exercises" / "progress.json").read_text()
    command = [sys.executable, "-u", "-m", "scratchvae", "exercise", "watch"]
    # A session of its own: Ctrl-C reaches the command and what it started, and nothing else.
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "Judging on every save" in process.stdout.readline()
    if text:
        time.sleep(1)  # the judging may or may not have begun: it ends quietly either way
    else:
        while "Stuck?" not in (line := process.stdout.readline()) and "line 25" not in line:
            assert line
    os.killpg(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert (tmp_path / "exercises" / "progress.json").read_text() == before


def test_ctrl_c_ends_a_check_and_leaves_all_whole(tmp_path):
    folder = Folder(tmp_path / "exercises")
    sheet, _ = folder.write()
    # It says when it runs, so that the signal comes while it is judged.
    folder.file(sheet).write_text("print('judging', flush=True)\nwhile True: pass\n")
    before = (tmp_path / "exercises" / "progress.json").read_text()
    process = subprocess.Popen(
        [sys.executable, "-m", "scratchvae", "exercise", "check"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "judging\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "scratchvae exercise: stopped\n"
    assert process.returncode == 130
    assert (tmp_path / "exercises" / "progress.json").read_text() == before


def test_an_endless_answer_ends_although_nobody_waits_for_it(tmp_path):
    path = tmp_path / "01_relu.py"
    path.write_text("print('judging', flush=True)\nwhile True: pass\n")
    code = f"from scratchvae.exercises.judging import judge; judge({str(path)!r}, limit=5)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "judging\n"
    process.kill()
    process.communicate(timeout=60)  # until nobody holds the other end of the pipe


def test_an_exported_course_is_judged_by_pytest(exercise, tmp_path):
    code, text = exercise("export", "course")
    assert code == 0
    assert "Wrote 24 exercises" in text
    course = tmp_path / "course"
    assert len(list(course.iterdir())) == 25
    (course / "01_relu.py").write_text(find("relu").solved())
    (course / "02_sigmoid.py").write_text(find("sigmoid").text + exercise_answers.sigmoid("d"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
    command += ["-k", "relu or sigmoid", "--rootdir", str(course)]
    done = subprocess.run(
        command, cwd=course, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    shown = (
        "E       AssertionError: \nE         sigmoid_backward, the gradient of x: It is dy itself"
    )
    assert shown in done.stdout, done.stdout
    assert re.search(r"^E +yours +true$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
def test_your_own_functions_train_the_model(exercise):
    for name in exercise_answers.WRONG:
        if name[:2] in ("01", "03", "04", "07", "11", "18", "19", "20", "24"):
            exercise("next", name)
            Path(f"exercises/{name}.py").write_text(find(name).solved())
    code, text = exercise("check", "24")
    assert code == 0, text
    text = " ".join(text.split())
    assert "Yours: relu, the linear layer, the draw, the KL, the loss, Adam" in text
    assert "The package's own" not in text
    yours, theirs = map(
        float, re.search(r"test loss is ([\d.]+) nats.* it is ([\d.]+)\.", text).groups()
    )
    assert abs(yours - theirs) < 1e-3
    assert Path("exercises/24_your_vae.png").stat().st_size > 10_000
