"""The frame that the demos share: heads, options and claims; and each of them, quick."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from scratchvae import InputError, demo_tools
from scratchvae.cli import main

ENTRIES = list(demo_tools.entries())
ROOT = Path(__file__).parents[1]

SCRIPT = '''"""A demo of nothing.

It shows what a demo is.

Claim: one is smaller
than two.

Time: 1 s quick, 2 s full
"""
from scratchvae import demo_tools

d = demo_tools.start("nothing")
model = d.vae((5,), 2)
trainer = d.train(model, 1 if d.quick else 2)
figure, ax = d.figure()
ax.plot([1, 2])
d.save(figure, alt="A line")
d.require(len(trainer.metrics) < 2, "one epoch is enough")
'''


@pytest.fixture
def script(tmp_path, monkeypatch):
    folder = tmp_path / "demos"
    folder.mkdir()
    (folder / "01_nothing.py").write_text(SCRIPT)
    monkeypatch.setattr(demo_tools, "folder", lambda: folder)
    return folder / "01_nothing.py"


def test_the_list_says_what_each_demo_claims(script, capsys):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "nothing  (1 s quick, 2 s full)\n    one is smaller than two.\n" in out
    assert "Run one: scratchvae demo NAME" in out


def test_a_demo_keeps_the_memory_that_its_own_loops_free(script, tmp_path, monkeypatch):
    """Else every step of a large batch has its pages made anew: three times the seconds."""
    told = []
    monkeypatch.setattr(demo_tools, "keep_freed_memory", lambda: told.append(True))
    assert main(["demo", "nothing", "--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert told == [True]


def test_a_demo_runs_by_its_name_and_draws(script, tmp_path, capsys):
    out = tmp_path / "figures"
    assert main(["demo", "nothing", "--quick", "--device", "cpu", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A demo of nothing\nClaim: one is smaller than two.\n")
    assert "Holds: one epoch is enough" in said
    assert (out / "nothing.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_folder_figures_go_to_runs_demos(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "nothing", "--quick", "--device", "cpu"]) == 0
    assert Path("runs/demos/nothing.png").exists()


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_data_and_device_are_options_of_every_demo(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", name, "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "--data DATA" in said
    assert "--device {auto,cpu,cuda}" in said


def test_a_claim_that_does_not_hold_ends_with_code_1(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", "nothing", "--device", "cpu", "--out", str(tmp_path)])
    assert caught.value.code == 1
    assert "DOES NOT HOLD: one epoch is enough" in capsys.readouterr().out


def test_a_cell_of_a_notebook_has_no_options_but_its_own(script, monkeypatch):
    """There `__main__` is no file, and sys.argv is what the kernel was started with."""
    main_module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main_module)
    monkeypatch.setattr(sys, "argv", ["/lib/ipykernel_launcher.py", "-f", "/run/kernel-1.json"])
    assert not demo_tools.start("nothing").quick
    assert demo_tools.start("nothing", ["--quick"]).quick
    main_module.__file__ = "/home/me/notebook.ipynb"  # as some editors set it
    assert not demo_tools.start("nothing").quick
    monkeypatch.setattr(sys, "argv", [str(script), "--quick"])
    main_module.__file__ = str(script)  # as `%run` and Python itself do
    assert demo_tools.start("nothing").quick


def test_an_unknown_name_is_answered_with_the_known_ones(script, capsys):
    assert main(["demo", "other"]) == 2
    assert "there is no demo 'other': expected one of nothing" in capsys.readouterr().err


def test_a_head_without_a_claim_is_refused(script, capsys):
    script.write_text('"""A title."""')
    with pytest.raises(InputError, match="needs a paragraph 'Claim: ' and one 'Time: '"):
        list(demo_tools.entries())


def test_without_cuda_a_demo_says_so_in_one_sentence(script, capsys, monkeypatch):
    monkeypatch.setattr("scratchvae.backend.cuda_is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["demo", "nothing", "--device", "cuda"]) == 2
    assert "the cupy backend needs an NVIDIA GPU" in capsys.readouterr().err


def test_the_data_are_floats_from_0_to_1(script, tmp_path):
    d = demo_tools.start("nothing", ["--device", "cpu", "--out", str(tmp_path)])
    assert d.x.dtype == np.float32
    assert d.x.shape == d.dataset.train.shape
    assert (d.x.min(), d.x.max()) == (0, 1)
    assert len(d.labels_test) == len(d.x_test)


def test_an_animation_is_written_whole_or_not_at_all(script, tmp_path):
    d = demo_tools.start("nothing", ["--device", "cpu", "--out", str(tmp_path)])
    figure, ax = d.figure(size=(2, 2))
    (dot,) = ax.plot([0], [0], "o")

    path = d.save_animation(
        figure, lambda k: dot.set_data([k / 100], [0]), 3, "dot", fps=10, alt="A dot"
    )
    assert d.figures == [path] == [tmp_path / "nothing-dot.gif"]
    with Image.open(path) as gif:
        # 100 ms a frame; a loop count of 0 means for ever
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (3, 100, 0)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        d.save_animation(figure, lambda k: dot.set_data([1 / (k - 2)], [0]), 3, "dot", alt="A dot")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["nothing-dot.gif"]


def test_the_axes_of_an_animation_do_not_move(script, tmp_path):
    """The layout would give more room to longer numbers beside the axis, frame by frame."""
    d = demo_tools.start("nothing", ["--device", "cpu", "--out", str(tmp_path)])
    figure, ax = d.figure(size=(2, 2))
    places = []

    def draw(k):
        ax.set_ylim(0, 10.0 ** (3 * k))
        places.append(tuple(ax.get_position().bounds))

    d.save_animation(figure, draw, 3, alt="A growing axis")
    assert len(set(places[1:])) == 1
    assert places[0] != places[1]  # it was laid out at all


def test_images_are_shown_row_by_row(running, rng):
    images = rng.uniform(-2, 2, size=(5, 64))
    _, ax = running.figure()
    running.show(ax, list(images), 3, cmap="RdBu", vmin=-2)
    (drawn,) = ax.images
    assert drawn.get_array().shape == (2 * 9 - 1, 3 * 9 - 1)  # images of 8 by 8 pixels, and gaps
    assert drawn.get_cmap().name == "RdBu"
    assert drawn.get_clim() == (-2, 1)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_a_demo_uses_public_names_only(entry):
    text = entry.path.read_text(encoding="utf-8")
    assert "._" not in text
    assert "import cupy" not in text


@pytest.mark.slow
def test_a_demo_is_a_script_of_its_own(tmp_path):
    """One of them; the claims of all hold in docs/test_notebooks.py and test_demos_on_device.py."""
    entry = next(entry for entry in ENTRIES if entry.name == "sum_or_mean")
    command = [sys.executable, str(entry.path), "--quick", "--device", "cpu", "--out", tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # this checkout's package, installed or not
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Holds: " in run.stdout
    assert list(tmp_path.iterdir())


def test_coverage_is_the_share_of_real_examples_near_a_sample(rng):
    real = np.array([[0.0, 0], [1, 0], [3, 0], [6, 0]])  # to their second neighbours: 3, 2, 3, 5
    far = [[0.0, 100]]
    assert demo_tools.coverage(real, [[0.0, 2.9], *far], k=2) == 0.25
    assert demo_tools.coverage(real, [[0.0, 3.1], *far], k=2) == 0
    assert demo_tools.coverage(real, [[1.0, 1.9], *far], k=2) == 0.75
    assert demo_tools.coverage(real, [[6.0, 4.9]], k=2) == 0.25
    assert demo_tools.coverage(real, [[6.0, 4.9]], k=1) == 0
    assert demo_tools.coverage(real, real, k=2) == 1

    # In drawn data, from the definition: with ties of probability 0
    real, samples = rng.standard_normal((20, 3)), rng.standard_normal((30, 3))
    covered = 0
    for i, x in enumerate(real):
        to_sample = np.linalg.norm(x - samples, axis=1).min()
        nearer = np.linalg.norm(x - np.delete(real, i, axis=0), axis=1) < to_sample
        covered += nearer.sum() < 5
    assert demo_tools.coverage(real, samples) == covered / 20


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def running(script, tmp_path):
    """The demo of nothing, started on the CPU."""
    return demo_tools.start("nothing", ["--device", "cpu", "--out", str(tmp_path)])


def test_the_head_says_what_it_runs_on(capsys, running):
    assert capsys.readouterr().out == (
        "A demo of nothing\nClaim: one is smaller than two.\n"
        "Data: digits, 1,500 training and 297 test examples; running on the CPU\n\n"
    )


def test_epochs_hold_that_many_steps_and_not_an_epoch_more(running, rng):
    for steps in (1, 12, 13, *rng.integers(1, 10_000, 5)):
        trained = running.epochs(steps) * len(running.x) / 128
        assert 0 <= trained - steps < len(running.x) / 128


def test_long_work_shows_how_far_it_is_and_leaves_nothing(running):
    with redirect_stderr(Terminal()) as terminal:
        trainer = running.train(running.vae((5,), 2), 2, label="a toy")
        assert list(running.progress("abc", "letters")) == ["a", "b", "c"]
    shown = terminal.getvalue()
    assert "training a toy" in shown
    assert f"/{2 * trainer.batches_per_epoch} [" in shown
    assert "letters" in shown
    assert "/3 [" in shown
    assert "\n" not in shown
    *_, last, end = shown.split("\r")
    assert last.strip() == end == ""  # the line is blank again


def test_no_bar_for_nothing_to_do_or_where_there_is_no_terminal(running):
    with redirect_stderr(Terminal()) as terminal:
        running.train(running.vae((5,), 2), 0)
    assert terminal.getvalue() == ""
    with redirect_stderr(io.StringIO()) as file:
        running.train(running.vae((5,), 2), 1)
        assert list(running.progress(range(3), "numbers")) == [0, 1, 2]
    assert file.getvalue() == ""


def test_training_passes_its_callbacks_on(running):
    losses, epochs = [], []
    running.train(
        running.vae((5,), 2),
        2,
        on_step=lambda terms: losses.append(float(terms.loss)),
        on_epoch=lambda metrics: epochs.append(metrics["epoch"]),
    )
    assert epochs == [1, 2]
    assert len(losses) == 2 * running.epochs(1) * -(-len(running.x) // 128)


def test_a_table_is_read_as_text_and_as_markdown(running, capsys):
    capsys.readouterr()
    running.table(["beta", "nats"], [["0.1", "7.25"], ["large beta", "12"]])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "| beta       | nats |",
        "| :--------- | ---: |",
        "| 0.1        | 7.25 |",
        "| large beta |   12 |",
        "",
    ]


def test_a_figure_says_what_it_shows(running, tmp_path, capsys):
    figure, _ = running.figure()
    path = running.save(figure, "line", alt="A line that rises")
    assert path == tmp_path / "nothing-line.png"
    assert capsys.readouterr().out.endswith(f"Wrote {path}: A line that rises\n")
