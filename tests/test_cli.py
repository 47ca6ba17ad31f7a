"""The command line as a user meets it: what it writes, prints and refuses."""

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import checkpoint, cli, load
from scratchvae.cli import main
from scratchvae.gradcheck import Report, suite
from scratchvae.run import BEST, LAST, METRICS

QUICK = ["--hidden", "8", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Run a command in this process; return its exit code, output and error output."""

    def run(*argv):
        capsys.readouterr()
        try:
            code = main([str(a) for a in argv])
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    return run


def refused(result):
    """Check that a command was refused in one sentence on standard error; return it."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run on the digits; not to be written into."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *QUICK, "--out", str(out)]) == 0
    return out


def test_train_leaves_checkpoints_metrics_and_figures_and_names_them(run, tmp_path):
    code, out, err = run("train", *QUICK, "--out", "r")
    assert (code, err) == (0, "")
    names = [
        "best.safetensors", "checkpoint.safetensors", "figures/kl_per_dimension.png",
        "figures/latent_plane.png", "figures/manifold.png", "figures/reconstructions.png",
        "figures/samples.png", "figures/training_curves.png", "metrics.jsonl",
    ]  # fmt: skip
    assert files(tmp_path / "r") == names
    for name in names:
        assert name in out
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert set(lines[0]) == {
        "epoch", "train_loss", "train_reconstruction", "train_kl", "test_loss",
        "test_reconstruction", "test_kl", "active_units", "seconds",
    }  # fmt: skip


def test_train_says_where_it_runs_and_that_grey_pixels_have_no_likelihood(run):
    for how, says in ("none", True), ("dynamic", False):
        code, out, _ = run("train", *QUICK, "--binarize", how, "--out", how)
        assert code == 0
        out = " ".join(out.split())
        assert out.startswith("VAE 64-8-2-8-64, ")
        assert "float32 on the CPU" in out
        assert ("the Bernoulli loss is a cross-entropy and not a likelihood" in out) == says


def test_train_without_out_takes_a_new_folder_each_time(run, tmp_path):
    for _ in range(2):
        assert run("train", *QUICK)[0] == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits-vae-1", "digits-vae-2"]


def test_train_json_is_the_last_line_of_the_metrics_and_the_files(run, tmp_path):
    code, out, _ = run("train", *QUICK, "--json", "--out", "r")
    assert code == 0
    found = json.loads(out)
    last = json.loads((tmp_path / "r/metrics.jsonl").read_text().splitlines()[-1])
    assert last.items() <= found.items()
    assert all(Path(path).exists() for path in found["figures"])


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "ae"],
        ["--latent", "5", "--hidden", "none"],
        ["--likelihood", "gaussian", "--variance", "shared", "--optimizer", "sgd", "--lr", "1e-4"],
        ["--likelihood", "gaussian", "--variance", "per-dimension", "--schedule", "cosine"],
        ["--binarize", "dynamic", "--dtype", "float64", "--schedule", "1:1e-4"],
        ["--binarize", "threshold", "--activation", "silu", "--beta", "4"],
    ],
)
def test_every_kind_of_model_trains_evaluates_and_resumes(run, options):
    assert run("train", *QUICK, *options, "--out", "r")[0] == 0
    code, out, _ = run("evaluate", "r", "--json")
    assert code == 0
    last = json.loads(Path("r/metrics.jsonl").read_text().splitlines()[-1])
    found = json.loads(out)
    # The same noise on the same parameters: the very same number.
    assert found["test_loss"] == last["test_loss"]
    more = ["--epochs", "3"] if "cosine" not in options else []
    assert run("train", "--resume", "--out", "r", *more)[0] == 0


def test_resume_reaches_bitwise_what_a_run_without_a_stop_reaches(run):
    options = ["--hidden", "8", "--binarize", "dynamic", "--device", "cpu"]
    assert run("train", *options, "--epochs", "4", "--out", "whole")[0] == 0
    assert run("train", *options, "--epochs", "2", "--out", "parts")[0] == 0
    code, out, _ = run("train", "--resume", "--epochs", "4", "--out", "parts")
    assert code == 0
    assert "going on" in out
    for file in ("checkpoint.safetensors", "best.safetensors"):
        whole, whole_values = checkpoint.load(f"whole/{file}")
        parts, parts_values = checkpoint.load(f"parts/{file}")
        assert whole.keys() == parts.keys()
        for name in whole:
            np.testing.assert_array_equal(whole[name], parts[name])
        assert whole_values["rng"] == parts_values["rng"]
    assert len(Path("parts/metrics.jsonl").read_text().splitlines()) == 4


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(run, tmp_path):
    argv = [sys.executable, "-m", "scratchvae", "train", "--hidden", "8", "--device", "cpu"]
    process = subprocess.Popen(
        [*argv, "--epochs", "100000", "--out", "r"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        while not (tmp_path / "r/checkpoint.safetensors").exists():
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Go on with: scratchvae train --resume --out r" in err
    _, values = checkpoint.load("r/checkpoint.safetensors")
    epochs = values["epoch"] + 1
    assert (
        run("train", "--hidden", "8", "--epochs", epochs, "--out", "w", "--device", "cpu")[0] == 0
    )
    assert run("train", "--resume", "--epochs", epochs, "--out", "r")[0] == 0
    whole, _ = checkpoint.load("w/checkpoint.safetensors")
    parts, _ = checkpoint.load("r/checkpoint.safetensors")
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_evaluate_prints_bounds_that_are_in_order(run, finished):
    code, out, _ = run("evaluate", finished, "--nll-samples", "50", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["nll"] < found["test_reconstruction"] + found["test_kl"]
    assert found["nll_samples"] == 50
    assert found["nll_standard_error"] > 0
    total = sum(found["kl_per_dimension"])
    assert total == pytest.approx(found["test_kl"], rel=1e-5)  # float32 sums over 297 examples
    code, out, _ = run("evaluate", finished, "--nll-samples", "5", "--best")
    assert code == 0
    assert "-log p(x)" in out
    assert "KL by dimension " in out
    assert "cross-entropies, not likelihoods" in out


def test_sample_writes_a_picture(run, finished, tmp_path):
    code, out, _ = run("sample", finished, "-n", "10", "--out", "s.png")
    assert (code, out) == (0, "Wrote s.png\n")
    first = (tmp_path / "s.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    run("sample", finished, "-n", "10", "--seed", "0", "--out", "s.png")
    assert (tmp_path / "s.png").read_bytes() == first
    run("sample", finished, "-n", "10", "--seed", "1", "--out", "s.png")
    assert (tmp_path / "s.png").read_bytes() != first


def test_warm_up_and_free_bits_reach_the_model(run, tmp_path):
    options = ["--warm-up", "4", "--free-bits", "0.5", "--beta", "2", "--out", str(tmp_path / "r")]
    code, _, err = run("train", *QUICK, *options)
    assert code == 0, err
    model = load(tmp_path / "r" / "checkpoint.safetensors")
    assert (model.beta, model.free_bits) == (2, 0.5)
    last = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[-1])
    # In the last step of the second of two epochs beta is just below half of 2; free bits add.
    assert last["test_loss"] > last["test_reconstruction"] + 0.9 * last["test_kl"]
    code, _, err = run("train", *QUICK, "--warm-up", "-1", "--out", str(tmp_path / "s"))
    assert code == 2
    assert "--warm-up is -1.0: expected a finite number, 0 or larger" in err


@pytest.fixture
def short_suite(monkeypatch):
    """The pairs of the suite alone; test_gradients.py has the whole of it."""
    monkeypatch.setattr(cli, "suite", lambda *args: itertools.islice(suite(*args), 19))


@pytest.mark.usefixtures("short_suite")
def test_gradcheck_json_holds_every_check_at_or_below_1e_7(run):
    code, out, err = run("gradcheck", "--json")
    entries = json.loads(out)
    assert (code, err) == (0, "")
    assert len(entries) == 19
    assert any(entry["name"] == "Linear" for entry in entries)
    assert all(entry["ok"] and entry["error"] <= 1e-7 for entry in entries)


def test_gradcheck_of_ours_takes_a_seed(run, monkeypatch):
    seeds = []
    monkeypatch.setattr(cli, "suite", lambda backend, rng: seeds.append(rng) or iter([]))
    for argv in ["--seed", "3"], []:
        assert run("gradcheck", "--device", "cpu", *argv)[0] == 0
    assert seeds == [3, None]


@pytest.mark.usefixtures("short_suite")
def test_gradcheck_exits_with_1_when_a_gradient_is_wrong(run, monkeypatch):
    from scratchvae import gaussian

    right = gaussian.reparameterize_backward
    monkeypatch.setattr(
        gaussian, "reparameterize_backward", lambda dz, cache: (right(dz, cache)[0], dz)
    )
    code, out, _ = run("gradcheck")
    assert code == 1
    assert "WRONG" in out


def test_gradcheck_says_so_when_there_was_nothing_to_compare(run, monkeypatch):
    """An argument changed in place has an infinite error, and JSON has no infinity."""
    reports = [
        Report("right", 1e-9, 1e-7, 0),
        Report("wrong", math.inf, 1e-7, 0, (), "Why.", "wrong"),
    ]
    monkeypatch.setattr("scratchvae.cli.suite", lambda *args: iter(reports))
    code, out, _ = run("gradcheck")
    assert code == 1
    assert "WRONG       inf  wrong\nWhy.\n" in out
    assert "2 checks, 1 wrong. Largest relative error inf, tolerance 1e-07" in out
    code, out, _ = run("gradcheck", "--json")
    assert code == 1
    assert [entry["error"] for entry in json.loads(out)] == [1e-9, None]


MINE = """
import numpy as np
import scratchvae as sv


def cube(x):
    return x**3, x


def cube_backward(dy, x):
    return dy * 3 * x**2


def halved(x, y):
    return x * y, (x, y)


def halved_backward(dy, cache):
    x, y = cache
    return dy * y, dy * x / 2


def halved_args(rng):
    return rng.uniform(1, 2, (2, 3)), rng.uniform(1, 2, (2, 3))


def kinked(x):
    return np.abs(x), x


def kinked_backward(dy, x):
    return dy * np.where(x > 0, 1, -1)


kinked_args = [np.array([1.0, 0.0, -1.0])]


class Scale:
    def __init__(self, n=5):
        self.s = sv.Parameter(np.linspace(1, 2, n))

    def forward(self, x):
        return x * self.s.value, x

    def backward(self, dy, x):
        self.s.grad += (dy * x).sum(axis=0)
        return dy * self.s.value

    def named_parameters(self):
        yield "s", self.s


linear = sv.Linear(3, 2, dtype="float64")
model = sv.VAE(6, (5,), 2, activation="tanh", dtype="float64")
number = 3


def alone(x):
    return x, None
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_gradcheck_of_a_file(run, mine):
    code, out, err = run("gradcheck", str(mine))
    assert code == 1
    assert err == ""
    rows = [line for line in out.splitlines() if line[:6] in ("ok    ", "WRONG ", "?     ")]
    assert {row.split()[2].rstrip(":"): row.split()[0] for row in rows} == {
        **{"cube": "ok", "halved": "WRONG", "kinked": "?"},
        **{"Scale": "ok", "linear": "ok", "model": "ok"},
    }
    assert "cube: x (4, 5) from N(0, 1)" in out
    assert "linear: x (4, 3) from N(0, 1)" in out
    assert "halved: halved_args of the file" in out
    assert "there is a factor 1/2 too many" in out
    assert "has a kink or a jump at x[1] = 0, or" in out
    assert "6 checks, 1 wrong, 1 undecided." in out


def test_gradcheck_of_one_name_in_a_file(run, mine):
    code, out, _ = run("gradcheck", f"{mine}:cube")
    assert code == 0
    assert "1 check, 0 wrong." in out
    code, out, _ = run("gradcheck", f"{mine}:halved", "--json", "--seed", "3")
    assert code == 1
    (entry,) = json.loads(out)
    assert (entry["name"], entry["verdict"], entry["cause"]) == ("halved", "wrong", "factor")
    assert "(relative error 5.0e-01, tolerance 1e-07, seed 3)" in entry["message"]


def test_gradcheck_draws_the_taylor_test(run, mine, tmp_path):
    png = tmp_path / "taylor.png"
    code, out, _ = run("gradcheck", f"{mine}:cube", "--taylor", str(png))
    assert code == 0
    assert f"it falls like h^2.\nWrote {png}" in out
    assert png.read_bytes().startswith(b"\x89PNG")


MIXED = """
from __future__ import annotations
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
import numpy as np
from scratchvae.activations import relu, relu_backward
from scratchvae.gaussian import kl_standard_normal_backward


def square_forward(x):
    return x**2, x


def backward_cube(dy, x):
    return 3 * dy * x**2


def cube(x):
    return x**3, x


def square_backward(dy, x):
    return 2 * dy * x


def power(x, n):
    return x**n, (x, n)


def power_backward_of(dy, cache, factor):
    x, n = cache
    return factor * dy * n * x ** (n - 1)


fourth = functools.partial(power, n=4)
fourth_backward = functools.partial(power_backward_of, factor=1)
fifth = functools.partial(power, n=5)
fifth_backward = functools.partial(power_backward_of, factor=2)
log = np.errstate(all="ignore")(lambda x: (np.log(x), x))
log_backward = lambda dy, x: dy / x


def lost_backward(dy, cache):
    return dy


def labelled(x, labels):
    return x[labels], (x, labels)


def labelled_backward(dy, cache):
    return dy


def fails(x):
    raise SystemExit(0)


def fails_backward(dy, cache):
    return dy


def nothing(x):
    return x, None


def nothing_backward(dy, _):
    return 7 * dy


nothing_args = [np.ones((0, 3))]


class Base(ABC):
    @abstractmethod
    def forward(self, x): ...
    @abstractmethod
    def backward(self, dy, cache): ...


@dataclass
class Doubled(Base):
    factor: float = 2.0

    def forward(self, x):
        return self.factor * x, None

    def backward(self, dy, _):
        return self.factor * dy


class Needs:
    def __init__(self, n): ...
    def forward(self, x): ...
    def backward(self, dy, cache): ...


class Maths:
    def sine(self, x):
        return np.sin(x), x

    def sine_backward(self, dy, x):
        return np.cos(x) * dy
"""


def test_one_item_of_a_file_does_not_end_the_others(run, tmp_path):
    (tmp_path / "mixed.py").write_text(MIXED)
    code, out, err = run("gradcheck", str(tmp_path / "mixed.py"))
    assert (code, err) == (1, "")
    rows = [r.split() for r in out.splitlines() if r[:6] in ("ok    ", "WRONG ", "?     ")]
    assert {row[2].rstrip(":"): row[0] for row in rows} == {
        **dict.fromkeys(["square", "cube", "fourth", "log", "Doubled", "Maths.sine"], "ok"),
        **{"fifth": "WRONG", "nothing": "?"},
    }
    assert "log: x (4, 5) from U(0.5, 1.5)" in out
    for name, reason in {
        "lost_backward": "there is no forward beside it: expected lost or lost_forward",
        "labelled": "it raises IndexError for x, labels (4, 5) from U(0.5, 1.5): give it",
        "fails": "it raises SystemExit for x (4, 5)",
        "Needs": "Needs() of",
    }.items():
        assert f"-             {name}: not checked: {reason}" in out
    assert "8 checks, 1 wrong, 1 undecided, 4 not checked." in out
    code, out, _ = run("gradcheck", str(tmp_path / "mixed.py"), "--json")
    assert code == 1
    assert sum(entry["verdict"] == "not checked" for entry in json.loads(out)) == 4


EXITS = """
import sys

import numpy as np
import scratchvae as sv


class Lazy:
    def __getattr__(self, name):
        sys.exit(0)


class LazyLayer(Lazy):
    def forward(self, x):
        return x, None

    def backward(self, dy, _):
        return dy


class Model(sv.VAE):
    def __init__(self):
        super().__init__(6, (5,), 2, dtype="float64")
        self.calls = 0

    def loss_and_grad(self, *args):
        self.calls += 1
        return super().loss_and_grad(*args) if self.calls < 5 else sys.exit(0)


lazy, model = Lazy(), Model()


def cube(x):
    return x**3, x


def cube_backward(dy, x):
    sys.exit(0)


def closed(x):
    return x, None


def closed_backward(dy, _):
    raise GeneratorExit


def square(x):
    return x**2, x


def square_backward(dy, x):
    return 3 * dy * x


square_args = [np.ones(1)]
"""


def test_code_that_exits_ends_no_check(run, tmp_path):
    """Its exit code of 0 would say that all is right."""
    (tmp_path / "exits.py").write_text(EXITS)
    file = str(tmp_path / "exits.py")
    code, out, err = run("gradcheck", file)
    assert (code, err) == (1, "")
    assert re.search("^WRONG .* square: ", out, re.MULTILINE)
    for name, error in {
        "cube": "backward of cube raised SystemExit for arrays of (4, 5), (4, 5): 0",
        "closed": "it raised GeneratorExit",
        "LazyLayer": "it raised SystemExit: 0",
        "model": "it raised SystemExit: 0",
    }.items():
        assert f"-             {name}: not checked: {error}" in out
    assert run("gradcheck", f"{file}:cube")[0] == 1
    code, out, _ = run("gradcheck", file, "--json")
    assert code == 1
    assert {row["name"]: row["verdict"] for row in json.loads(out)}["square"] == "wrong"


def test_a_file_that_exits_while_it_is_searched_is_refused(run, tmp_path):
    (tmp_path / "search.py").write_text(
        "import sys\n"
        "class Odd:\n    def __dir__(self):\n        sys.exit(0)\n"
        "odd = Odd()\n"
        "def f(x):\n    return x, None\n"
        "def f_backward(dy, _):\n    return dy\n"
    )
    assert "search.py called sys.exit" in refused(run("gradcheck", str(tmp_path / "search.py")))


OPTIONS_OF_GRADIENTS = """
def loss_and_grad(w, X, y):
    r = X @ w - y
    return r @ r, 2 * X.T @ r


def loss_and_grad_args(rng):
    return [rng.standard_normal(3), rng.standard_normal((6, 3)), rng.standard_normal(6)]


loss_and_grad_wrt = ["w"]
"""


def test_a_function_that_makes_the_arguments_of_a_gradient_is_none_itself(run, tmp_path):
    (tmp_path / "loss.py").write_text(OPTIONS_OF_GRADIENTS)
    code, out, _ = run("gradcheck", str(tmp_path / "loss.py"))
    assert (code, out[:5], out.count("\n")) == (0, "ok   ", 2)


SMALL_EPS = """
import numpy as np


def norm(x, eps):
    s = np.sqrt((x * x).sum(axis=1, keepdims=True) + eps)
    return x / s, (x / s, s)


def norm_backward(dy, cache):
    y, s = cache
    return (dy - y * (dy * y).sum(axis=1, keepdims=True)) / s


def twice(x, eps):
    return 2 * x + eps, None


def twice_backward(dy, _):
    return 3 * dy
"""


def test_an_eps_may_be_a_small_constant(run, tmp_path):
    (tmp_path / "norm.py").write_text(SMALL_EPS)
    code, out, _ = run("gradcheck", str(tmp_path / "norm.py"))
    assert code == 1
    assert re.search(r"^ok .* norm: x, eps \(4, 5\) from .*, eps = 1e-05$", out, re.MULTILINE)
    assert re.search(r"^WRONG .* twice: x, eps \(4, 5\) from N\(0, 1\)$", out, re.MULTILINE)


HELPERS = """
import functools

import numpy as np


def _act(x):
    y = np.tanh(x)
    return y, y


def act(x):
    return _act(2 * x)


def act_backward(dy, y):
    return 2 * dy * (1 - y * y)


def _scale(x, by):
    return x * by, by


scale = functools.partial(_scale, by=3.0)
scale_args = [np.ones((2, 3))]


def scale_backward(dy, by):
    return dy * by
"""


def test_a_private_helper_of_the_same_name_is_not_taken_for_the_forward(run, tmp_path):
    (tmp_path / "helpers.py").write_text(HELPERS)
    code, out, _ = run("gradcheck", str(tmp_path / "helpers.py"))
    assert (code, [line.split()[2] for line in out.splitlines()[:-1]]) == (0, ["act:", "scale:"])


BROADCAST = """
def add(x, b):
    return x + b, None


def add_backward(dy, _):
    return dy, dy.sum(axis=0)


def square(x):
    return x * x, x


def square_backward(dy, x):
    return 2 * dy * x
"""


def test_what_is_broadcast_is_not_called_wrong_on_arguments_of_one_shape(run, tmp_path):
    (tmp_path / "bias.py").write_text(BROADCAST)
    code, out, _ = run("gradcheck", str(tmp_path / "bias.py"))
    assert code == 1
    assert out.startswith("ok ")
    assert (
        "-             add: not checked: backward gives b a gradient of shape (5,) for x, b (4, 5) "
        "from U(0.5, 1.5): give it arguments of its own as add_args\n"
    ) in out
    own = "import numpy as np\nadd_args = [np.ones((2, 3)), np.ones(3)]\n"
    (tmp_path / "bias.py").write_text(own + BROADCAST)
    code, out, _ = run("gradcheck", str(tmp_path / "bias.py"))
    assert (code, out.count("ok ")) == (0, 2)


ODD = """
import numpy as np


def forward(x):
    return x**2, x


def backward(dy, x):
    return 3 * dy * x


class Tripled:
    def __call__(self, x):
        return 3 * x, None

    def backward(self, dy, _):
        return 3 * dy

    class Inside:
        def forward(self, x):
            return -x, None

        def backward(self, dy, _):
            return dy


class Base:
    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return self.factor * x, None

    def backward(self, dy, _):
        return dy


class Derived(Base):
    def __init__(self):
        super().__init__(2.0)

    def backward(self, dy, _):
        return 2 * dy


class Wide(Base):  # not what Narrow computes, so no check of that one covers it
    def backward(self, dy, _):
        return 5 * dy


class Narrow(Wide):
    def __init__(self):
        super().__init__(2.0)

    def backward(self, dy, _):
        return 2 * dy


layers = [Base(3.0), np.eye(2), "text"]
by_name = {"one": Base(1.0)}


class Stubborn:
    def __getattr__(self, name):
        raise KeyError(name)

    @property
    def backward(self):
        raise RuntimeError("not yet")


stubborn = Stubborn()


class Opaque(Stubborn):
    def forward(self, x):
        return x, None

    def backward(self, dy, _):
        return dy


class Raises:
    def forward(self, x):
        return x, None

    def backward(self, dy, _):
        return np.full(dy.shape, "a")

    @property
    def weight(self):
        raise RuntimeError("not yet")


class Nameless(Raises):
    def named_parameters(self):
        raise OSError("disk")


class Model:
    params = None

    def loss_and_grad(self, x):
        return x


model = Model()
model_args = [np.ones((2, 3))]
other = Model()


def part(x, b):
    return x + b, None


def part_backward(dy, _):
    return dy, None


part_args = [np.ones((4, 5)), np.ones((4, 5))]
"""


def test_everything_that_looks_like_a_layer_is_checked_or_listed(run, tmp_path):
    (tmp_path / "odd.py").write_text(ODD)
    code, out, err = run("gradcheck", str(tmp_path / "odd.py"))
    assert (code, err) == (1, "")
    rows = [r.split() for r in out.splitlines() if r[:6] in ("ok    ", "WRONG ", "?     ")]
    assert {row[2].rstrip(":"): row[0] for row in rows} == {
        **dict.fromkeys(["Tripled", "Derived", "Narrow", "by_name['one']", "part"], "ok"),
        **dict.fromkeys(["forward", "Tripled.Inside", "layers[0]"], "WRONG"),
    }
    for name, reason in {
        "Wide": "Wide() of",
        "Raises": "the gradient that Raises's backward returns is an array of <U1: expected real",
        "Nameless": "named_parameters of Nameless raised OSError: disk",
        "Opaque": "it raised KeyError: 'n_in'",
        "Model": "it has no data_dim: give it data as Model_args",
        "model": "it raised AttributeError: 'NoneType' object has no attribute 'value'",
        "other": "it has no data_dim: give it data as other_args",
        "part: b": "backward gives no gradient of it: wrt=, or NAME_wrt in a file, says which",
    }.items():
        assert f"-             {name}: not checked: {reason}" in out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{folder}/exits.py", "exits.py calls sys.exit when it is loaded: put what is to run"),
        ("{mine}:nothing", "has no nothing: it has Scale, linear, model, cube, halved, kinked"),
        ("{mine}:number", "number in {mine} is a int that cannot be checked: expected a function"),
        ("{mine}:alone", "expected a function with a alone_backward beside it"),
        ("{folder}/none.py", "none.py: there is no such file"),
        ("{folder}/text.txt", "text.txt: expected a Python file"),
        ("{folder}/empty.py", "empty.py has nothing to check: expected a function f with f_backw"),
        ("{folder}/empty.py:f", "empty.py has no f: nor anything else to check"),
        ("{folder}/broken.py", "broken.py raised ZeroDivisionError: division by zero"),
        ("{folder}/syntax.py", "syntax.py raised SyntaxError: "),
    ],
)
def test_gradcheck_of_a_file_with_nothing_to_check(run, mine, tmp_path, target, says):
    pair = "def f(x):\n    return x, None\ndef f_backward(dy, _):\n    return dy\n"
    for name, text in {
        "text.txt": "",
        "empty.py": "x = 1\n",
        "broken.py": "1 / 0\n",
        "exits.py": pair + "import sys\nsys.exit(0)\n",
        "syntax.py": "def\n",
    }.items():
        (tmp_path / name).write_text(text)
    code, out, err = run("gradcheck", target.format(mine=mine, folder=tmp_path))
    assert code == 2
    assert out == ""
    assert says.format(mine=mine, folder=tmp_path) in err
    assert err.count("\n") == 1


def test_all_that_is_refused_is_shown(run, tmp_path):
    """Also where nothing is left to check."""
    (tmp_path / "refused.py").write_text(
        "def f(x):\n    return x, None\n"
        "def f_backward(dy, _):\n    return dy\n"
        "def f_args():\n    raise KeyError('x')\n"
        "class Layer:\n    def __init__(self, n): pass\n"
        "    def forward(self, x): pass\n    def backward(self, dy, cache): pass\n"
    )
    code, out, err = run("gradcheck", str(tmp_path / "refused.py"))
    assert (code, err) == (1, "")
    first, second, last = sorted(out.splitlines())
    assert first.startswith("-             Layer: not checked: Layer() of")
    assert "f: not checked: f_args of" in second
    assert "raised KeyError: 'x'" in second
    assert last == "0 checks, 0 wrong, 2 not checked."
    code, out, _ = run("gradcheck", str(tmp_path / "refused.py"), "--json")
    assert code == 1
    assert [entry["verdict"] for entry in json.loads(out)] == ["not checked", "not checked"]


HALVES = """
import numpy as np
import scratchvae as sv


def _softsign(x):
    return x / (1 + np.abs(x)), x


def _softsign_bwd(x, dy):  # the cache first, as in JAX
    return dy / (1 + np.abs(x)) ** 2


def square_fwd(x):
    return x**2, x


def square_bwd(res, g):
    return (3 * res * g,)


def cube(x):
    return x**3, x


def cube_vjp(dy, x):
    return 3 * dy * x**2


def cube_grad(dy, x):
    return dy * x**2


def sine(x):
    raise RuntimeError("the one with a cache is sine_forward")


def sine_forward(x):
    return np.sin(x), x


def dSine(dout, x):
    return np.cos(x) * dout


def exp(x):
    return np.exp(x)


def exp_prime(x):
    return np.exp(x)


def loss_and_grad(w):
    return (w**2).sum(), 2 * w


def _tripled(w):
    dw = 3 * w
    return (w**2).sum(), dw


def exp_and_gradient(w):
    return np.exp(w).sum(), w


def numerical_gradient(f, x):
    return x


def clip_grad(g):
    return g


clip_grad_args = None


def lone_forward(x):
    return x, x


def kept(x):
    cache = x
    return x, cache


def after(dout, saved):
    return dout


def shift(x, b):
    return x + b, None


def shift_backward(dy, _):
    return dy


shift_wrt = ["x"]


class _Doubled:
    def forward(self, x):
        return 2 * x, None

    def backward(self, dy, _):
        return 2 * dy


class Short:
    def __init__(self, n=2):
        self.n = n

    def fwd(self, x):
        return self.n * x, None

    def bwd(self, dy, _):
        return 2 * dy


class Needs:
    def __init__(self, layer):
        self.layers = [[layer]]


needs = Needs(Short(3))
deep = [[{"a": (_Doubled(), "text")}]]
deep.append(deep)
table = {"sq": (lambda x: (x**2, x), lambda dy, x: 2 * dy * x), "half_backward": lambda dy, x: dy}


def main(argv, n=3):
    return argv
"""


def test_either_half_of_a_pair_is_checked_or_listed(run, tmp_path):
    (tmp_path / "halves.py").write_text(HALVES)
    code, out, err = run("gradcheck", str(tmp_path / "halves.py"))
    assert (code, err) == (1, "")
    rows = [r.split() for r in out.splitlines() if r[:6] in ("ok    ", "WRONG ", "?     ")]
    assert {row[2].rstrip(":"): row[0] for row in rows} == {
        **dict.fromkeys(["_softsign", "cube", "sine", "loss_and_grad", "shift"], "ok"),
        **dict.fromkeys(["_Doubled", "Short.fwd", "deep[0][0]['a'][0]", "table['sq']"], "ok"),
        **dict.fromkeys(["square", "cube_grad", "_tripled", "needs.layers[0][0].fwd"], "WRONG"),
        "exp_and_gradient": "WRONG",
    }
    listed = dict(
        line.removeprefix("-             ").split(": not checked: ", 1)
        for line in out.splitlines()
        if line.startswith("- ")
    )
    neither = "there is no forward beside it, and it does not return (loss, gradient), for"
    for name, reason in {
        "exp": "exp returns an array of shape (4, 5): expected (y, cache)",
        "numerical_gradient": neither,
        "lone_forward": "there is no backward beside it: expected lone_backward",
        "kept": "there is no backward beside it: expected kept_backward",
        "after": "there is no forward beside it: expected after or after_forward",
        "table['half_backward']": "there is no forward beside it: expected half or half_forward",
    }.items():
        assert listed.pop(name).startswith(reason)
    assert listed == {}


TABLES = """
import functools
from typing import Any, NamedTuple

import numpy as np


def square(x):
    return x**2, x


def of_square(g, x):  # nothing in its name tells
    return 3 * g * x


def cube(x):
    return x**3, x


def of_cube(d, x):  # nothing in its arguments either
    return 2 * d * x**2


def sine(x):
    return np.sin(x), x


def sine_rev(dy, x):
    return np.cos(x) * dy


def power(x, n):
    return x**n, (x, n)


def power_rev(dy, cache, n):
    x, n = cache
    return n * dy * x ** (n - 1)


def tanh(x):
    y = np.tanh(x)
    return y, y


def tanh_backward(dy, y):
    return dy * (1 - y * y)


def exp(x):
    y = np.exp(x)
    return y, y


def exp_backward(dy, y):
    return dy * y


def mse(a, b):
    return ((a - b) ** 2).sum(), a - b


def mse_backward(dy, d):
    return 2 * dy * d, -2 * dy * d


def dot(v, g):
    return (v * g).sum(), (v, g)


def dot_backward(dy, cache):
    return dy * cache[1], dy * cache[0]


def bce(p, y):
    return np.logaddexp(0, p).sum() - (p * y).sum(), 1 / (1 + np.exp(-p)) - y


def hinge(a, b):
    return np.maximum(1 - a * b, 0).sum(), a


def log(step):
    raise RuntimeError("called")


def save(step, folder):
    raise RuntimeError("called")


class Op(NamedTuple):
    forward: Any
    backward: Any


by_name = {"square": (square, of_square)}
in_list = [("cube", cube, of_cube), [sine, sine_rev]]
keys = {"f": exp, "f_backward": tanh_backward}
fourth = [functools.partial(power, n=4), functools.partial(power_rev, n=4)]
op = Op(exp, of_square)
again = {"tanh": (tanh, tanh_backward)}
known = (tanh, tanh_backward)
known_args = [np.ones(3)]
forwards, more = [tanh, exp], {"loss": (mse, dot)}
backwards, losses = [tanh_backward, exp_backward], [bce, hinge]
callbacks = (log, save)
"""


def test_a_pair_in_a_list_or_a_dict_is_checked_whatever_its_names(run, tmp_path):
    (tmp_path / "tables.py").write_text(TABLES)
    code, out, err = run("gradcheck", str(tmp_path / "tables.py"))
    assert (code, err) == (1, "")
    rows = [r.split() for r in out.splitlines() if r[:6] in ("ok    ", "WRONG ", "?     ")]
    assert {row[2].rstrip(":"): row[0] for row in rows} == {
        **dict.fromkeys(["tanh", "exp", "mse", "dot", "known", "in_list[1]", "fourth"], "ok"),
        **dict.fromkeys(["by_name['square']", "in_list[0]", "op", "keys['f']"], "WRONG"),
    }
    assert len(rows) == 11  # each pair once
    assert "not checked" not in out


PARTIAL = """
import functools

import numpy as np


def scaled(x, k):
    return k * x, k


def scaled_backward(dy, k):
    return k * dy


scaled_args = [np.ones((2, 3)), 2.0]
twice = functools.partial(scaled, k=2.0)
"""


def test_a_pair_keeps_its_name_and_its_arguments_beside_a_partial_of_it(run, tmp_path):
    (tmp_path / "partial.py").write_text(PARTIAL)
    code, out, _ = run("gradcheck", str(tmp_path / "partial.py"))
    assert out.startswith("ok ")
    assert "scaled: scaled_args of the file" in out.splitlines()[0]
    assert code == 0


LOSSES = """
import numpy as np

mse_args = other_args = [np.ones((3, 4)), np.zeros((3, 4))]


def mse(pred, target):
    d = pred - target
    return (d**2).mean(), 2 * d


def other(pred, target):
    return pred + target


def helper(a):
    return a.sum(), a
"""


def test_a_loss_with_its_gradient_is_checked_where_it_has_arguments(run, tmp_path):
    """Whatever it is called: who gives it arguments expects a check."""
    (tmp_path / "losses.py").write_text(LOSSES)
    code, out, err = run("gradcheck", str(tmp_path / "losses.py"))
    assert (code, err) == (1, "")
    assert re.search("^WRONG .* mse: ", out, re.MULTILINE)
    listed = "other: not checked: there is no forward beside it, and it does not return (loss, gr"
    assert listed in out
    assert "for other_args of the file" in out
    assert "helper" not in out


PLAIN = """
import numpy as np
import scratchvae as sv


class Plain:
    def __init__(self):
        self.w = np.linspace(1, 2, 5)
        self.unused = np.ones(3)

    def forward(self, x):
        self.x, self.y = x, x * self.w
        return self.y, x

    def backward(self, dy, x):
        return dy * self.w


class Constant(Plain):
    def __init__(self):
        super().__init__()
        self.w.flags.writeable = False


class Forgetful:
    scale = np.array(2.0)

    def __init__(self):
        self.w, self.b = (sv.Parameter(np.linspace(1, 2, 5)) for _ in range(2))
        self.more = {"c": [np.ones(5)]}

    def forward(self, x):
        return self.scale * x * self.w.value + self.b.value + self.more["c"][0], x

    def backward(self, dy, x):
        self.w.grad += self.scale * (dy * x).sum(axis=0)
        return self.scale * dy * self.w.value

    def named_parameters(self):
        yield "w", self.w
"""


def test_parameters_that_nobody_names_are_listed(run, tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN)
    code, out, err = run("gradcheck", str(tmp_path / "plain.py"))
    assert (code, err) == (1, "")
    assert out.count("ok    ") == 3
    listed = {line.split(": not")[0] for line in out.splitlines() if line.startswith("- ")}
    assert {name.split(maxsplit=1)[1] for name in listed} == {
        "Plain: w", "Forgetful: b", "Forgetful: more['c'][0]", "Forgetful: scale"
    }  # fmt: skip
    assert "forward reads it and named_parameters does not name it" in out
    assert run("gradcheck", f"{tmp_path / 'plain.py'}:Constant")[0] == 0


def test_a_forward_that_does_not_return_ends_nothing(run, tmp_path, monkeypatch):
    """An iteration that converges for small arguments only, and one that never does."""
    (tmp_path / "hangs.py").write_text(
        "import numpy as np\n"
        "def root(x):\n"
        "    while np.abs(x).max() > 1e3:\n        pass\n"
        "    return x**2, x\n"
        "def root_backward(dy, x):\n    return 3 * dy * x\n"
        "def never(x):\n    while True:\n        pass\n"
        "def never_backward(dy, x):\n    return dy\n"
    )
    for module in ("files", "slopes"):
        monkeypatch.setattr(f"scratchvae.gradcheck.{module}.PATIENCE", 0.5)
    code, out, err = run("gradcheck", str(tmp_path / "hangs.py"))
    assert (code, err) == (1, "")
    assert "WRONG   3.3e-01  root" in out
    assert "never: not checked: it does not return within 0.5 s for x (4, 5)" in out


def test_gradcheck_draws_no_more_than_one_taylor_test(run, mine, tmp_path):
    png = str(tmp_path / "taylor.png")
    for args in (["--taylor", png], [str(mine), "--taylor", png]):
        code, _, err = run("gradcheck", *args)
        assert code == 2
        assert "--taylor draws one gradient: name" in err


COMMANDS = cli._parser()._subparsers._group_actions[0].choices  # name -> its own parser


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_every_option(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"example:\n  scratchvae {command}" in out
    for action in COMMANDS[command]._actions:
        for option in action.option_strings:  # its own line, not only a word of another's
            assert re.search(rf"^  (-\w.*, )?{option}\b", out, re.MULTILINE), option


# --- what bad input gets ---


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["train", "--latent", "0"], "--latent is 0: expected a positive integer"),
        (["train", "--hidden", "3,0"], "--hidden is 0: expected a positive integer"),
        (["train", "--batch-size", "0"], "--batch-size is 0: expected a positive integer"),
        (["train", "--epochs", "0"], "--epochs is 0: expected a positive integer"),
        (["train", "--lr", "-1"], "--lr is -1.0: expected"),
        (["train", "--lr", "nan"], "--lr is nan: expected"),
        (["train", "--beta", "-1"], "--beta is -1.0: expected"),
        (["train", "--seed", "-1"], "--seed is -1: expected"),
        (["train", "--hidden", "many"], "--hidden: is 'many': expected widths such as"),
        (["train", "--variance", "big"], "--variance: is 'big': expected a positive number"),
        (["train", "--variance", "-2", "--likelihood", "gaussian"], "variance is -2.0: expected"),
        (["train", "--schedule", "soon"], "--schedule is 'soon': expected constant, cosine or"),
        (["train", "--optimizer", "sgd", "--momentum", "1"], "momentum is 1.0: expected"),
        (["train", "--device", "cuda"], "needs an NVIDIA GPU"),
        (["train", "nothing.npy"], "nothing.npy"),
        (["train", "--resume"], "--resume: no folder given"),
        (["train", "--resume", "--out", "none"], "none: no such folder: expected the folder of a"),
        (["evaluate", "none"], "none: no such folder: expected the folder of a run"),
        (["evaluate", __file__], "test_cli.py: a file: expected the folder of a run"),
        (["sample", "none", "--out", "s.png"], "none: no such folder: expected the folder of a"),
        (["sample", ".", "--out", "s.txt"], "s.txt: expected a name that ends in .png, .svg, .pdf"),
        (["gradcheck", "--device", "cuda"], "needs an NVIDIA GPU"),
        (["gradcheck", "--seed", "-1"], "gradcheck: --seed is -1: expected 0 or a larger integer"),
        (["gradcheck", __file__, "--seed", "-1"], "--seed is -1: expected 0 or a larger integer"),
        (["train", "a\nb.npy"], "a\\nb.npy cannot be read"),
        (["evaluate", "a\r\nü"], "evaluate: a\\r\\nü: no such folder"),
        (["train", "--model", "a\u2028b"], "a\\u2028b"),
        (["train", "--frobnicate"], "--frobnicate"),
        (["train", "--latnet", "3"], "--latnet; did you mean --latent?"),
        (["evaluate", "r", "--nll-sample=3", "--bset"], "--bset; did you mean --best?"),
        (["train", "mnits"], "did you mean mnist?"),
        (["train", "--lr", "0"], "--lr is 0.0: expected a finite number larger than 0"),
        (["train", "--variance", "nan"], "--variance is nan: expected a positive number"),
        (["train", "--schedule", "5:-1"], "--schedule is '5:-1': expected constant, cosine or"),
        (["train", "--batch-size", "9" * 400], "--batch-size is an integer of more than 63 bits"),
        (["train", "--latent", "1000000000000"], "not enough memory"),
        (["train", "--latent", "9" * 18], "not enough memory"),
        (["train", "/dev/zero"], "/dev/zero is a device or a pipe: expected a file"),
        (["train", "digits", "--data", "digits"], "--data: digits is named already"),
        (["train", "digits", "--data", ""], "--data: digits is named already"),
        (["train", ""], "the data: no name: expected digits, mnist or the path of a file"),
        (["train", "--data", ""], "the data: no name: expected digits, mnist or the path of a"),
        (["train", "--out", ""], "argument --out: is empty: expected a path"),
        (["evaluate", ""], "argument DIR: is empty: expected a path"),
        ([], "COMMAND"),
    ],
)
def test_bad_options_get_one_sentence_and_leave_nothing(run, tmp_path, argv, expected):
    assert expected in refused(run(*argv))
    assert files(tmp_path) == []


def test_an_out_that_holds_a_run_is_left_alone(run, tmp_path):
    run("train", *QUICK, "--out", "r")
    before = {name: (tmp_path / "r" / name).read_bytes() for name in files(tmp_path / "r")}
    assert "--out r: already holds a run" in refused(run("train", *QUICK, "--out", "r"))
    assert {name: (tmp_path / "r" / name).read_bytes() for name in files(tmp_path / "r")} == before


def test_an_out_that_is_a_file_is_left_alone(run, tmp_path):
    (tmp_path / "f").write_text("mine")
    assert "--out f: is a file" in refused(run("train", *QUICK, "--out", "f"))
    assert (tmp_path / "f").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--latent", "3"], "--latent was 2, this command asks for 3"),
        (["--hidden", "8,8"], "--hidden was 8, this command asks for 8,8"),
        (["mnist"], "the data was digits, this command asks for mnist"),
        (["--epochs", "2"], "already trained for 2 epochs: expected a larger --epochs"),
    ],
)
def test_resume_with_another_configuration_is_refused(run, finished, options, expected):
    before = (finished / "checkpoint.safetensors").read_bytes()
    assert expected in refused(run("train", *options, "--resume", "--out", finished))
    assert (finished / "checkpoint.safetensors").read_bytes() == before


def test_a_truncated_checkpoint_is_refused(run, finished, tmp_path):
    (tmp_path / "r").mkdir()
    whole = (finished / "checkpoint.safetensors").read_bytes()
    (tmp_path / "r/checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    for argv in (
        ["evaluate", "r"],
        ["sample", "r", "--out", "s.png"],
        ["train", "--resume", "--out", "r"],
    ):
        assert "truncated or not a checkpoint" in refused(run(*argv))
    assert files(tmp_path) == ["r/checkpoint.safetensors"]


def test_pixels_outside_the_unit_interval_are_refused_for_bernoulli(run, tmp_path):
    np.save("x.npy", np.full((20, 4), 1.5, dtype=np.float32))
    assert "1.5" in refused(run("train", "x.npy", *QUICK, "--out", "r"))
    assert files(tmp_path) == ["x.npy"]
    assert run("train", "x.npy", *QUICK, "--likelihood", "gaussian", "--out", "r")[0] == 0


def test_data_that_are_not_finite_are_refused(run):
    x = np.zeros((20, 4))
    x[7, 2] = np.nan
    np.save("x.npy", x)
    assert "x.npy" in refused(run("train", "x.npy", *QUICK))


def test_data_of_another_width_are_refused_by_evaluate(run, finished):
    np.save("x.npy", np.zeros((20, 4), dtype=np.uint8))
    assert "expected" in refused(run("evaluate", finished, "--data", "x.npy"))


def test_an_autoencoder_has_nothing_to_sample_and_no_likelihood(run):
    run("train", *QUICK, "--model", "ae", "--out", "r")
    assert "no prior to sample from" in refused(run("sample", "r", "--out", "s.png"))
    assert "no likelihood" in refused(run("evaluate", "r", "--nll-samples", "5"))


def test_a_loss_that_stops_being_finite_keeps_the_last_good_checkpoint(run, tmp_path):
    options = ["--optimizer", "sgd", "--lr", "0.001", "--schedule", "2:1e30", "--out", "r"]
    assert run("train", *QUICK, *options)[0] == 0
    before = {name: (tmp_path / "r" / name).read_bytes() for name in files(tmp_path / "r")}
    err = refused(run("train", "--resume", "--epochs", "4", "--out", "r", "--json"))
    # 12 steps an epoch: step 25 is the first at that rate, and step 26 finds what it did.
    assert "step 26 (epoch 3): " in err
    assert "not finite" in err
    assert "r/checkpoint.safetensors is intact" in err
    assert {name: (tmp_path / "r" / name).read_bytes() for name in files(tmp_path / "r")} == before


# --- nothing that is not finite is saved ---


def all_finite(path):
    arrays, _ = checkpoint.load(path)
    return all(np.isfinite(a).all() for a in arrays.values())


def test_a_model_that_breaks_in_the_last_step_is_not_saved(run):
    """One step an epoch: the loss was finite before each, and the last made the parameters NaN."""
    options = ["--batch-size", "2000", "--schedule", "5:1e39", "--epochs", "6", "--out", "a"]
    err = refused(run("train", "--hidden", "16", *options, "--device", "cpu", "--json"))
    assert "step 6 (epoch 6): after it the parameter " in err
    assert "a/checkpoint.safetensors is intact" in err
    for file in ("a/checkpoint.safetensors", "a/best.safetensors"):
        assert all_finite(file)
    assert checkpoint.load("a/checkpoint.safetensors")[1]["epoch"] == 5
    assert len(Path("a/metrics.jsonl").read_text().splitlines()) == 5
    err = refused(run("train", "--resume", "--out", "a", "--json"))
    assert "a/checkpoint.safetensors is intact" in err
    assert all_finite("a/checkpoint.safetensors")


def test_where_no_epoch_was_good_nothing_is_saved_and_nothing_is_promised(run, tmp_path):
    err = refused(run("train", *QUICK[:2], "--lr", "1e39", "--epochs", "1", "--out", "r", "--json"))
    assert "no epoch was done, so none is saved" in err
    assert files(tmp_path) == []


def test_a_run_that_is_refused_leaves_no_folder_that_it_made(run, tmp_path):
    (tmp_path / "p").mkdir()
    refused(run("train", *QUICK[:2], "--lr", "1e39", "--epochs", "1", "--out", "p/q/r", "--json"))
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["p"]


# --- a folder belongs to one run ---

COMMAND = [sys.executable, "-m", "scratchvae", "train", "--hidden", "8", "--device", "cpu"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_two_runs_that_start_together_take_two_folders(tmp_path):
    both = [subprocess.Popen([*COMMAND, "--epochs", "2"], **PIPES) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    names = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert names == ["digits-vae-1", "digits-vae-2"]
    for name in names:
        assert sum(f"Wrote in runs/{name}:" in output for output in outputs) == 1


def test_of_two_runs_in_one_folder_one_is_refused(tmp_path):
    process = subprocess.Popen([*COMMAND, "--epochs", "100000", "--out", "r"], **PIPES)
    with process:
        while not (tmp_path / "r/checkpoint.safetensors").exists():
            time.sleep(0.05)
        for argv in (["--out", "r"], ["--resume", "--out", "r", "--epochs", "100001"]):
            second = subprocess.run([*COMMAND, *argv, "--json"], capture_output=True, text=True)
            expected = "process trains in it" if "--resume" in argv else "already holds a run"
            assert expected in refused((second.returncode, second.stdout, second.stderr))
        process.kill()
    # A dead process holds nothing.
    epoch = checkpoint.load("r/checkpoint.safetensors")[1]["epoch"]
    argv = ["--resume", "--out", "r", "--epochs", str(epoch + 1)]
    assert main(["train", *argv]) == 0


def test_an_empty_folder_that_another_process_has_is_refused(run, tmp_path):
    (tmp_path / "r").mkdir()
    hold = "import sys, time; from pathlib import Path; from scratchvae import run\n"
    hold += "with run.claimed(Path('r')): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold], **PIPES) as process:
        process.stdout.readline()
        assert "another process trains in it" in refused(run("train", *QUICK, "--out", "r"))
        process.kill()
    assert run("train", *QUICK, "--out", "r")[0] == 0


def test_an_out_that_cannot_be_written_is_said_before_training(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.setattr("scratchvae.training.Trainer.run", lambda *a: pytest.fail("it trained"))
    for out in ("file/r", "/proc/r", "link", "x" * 300):
        assert f"{out}: cannot be " in refused(run("train", *QUICK, "--out", out))

    def no_room(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", no_room)
    assert "r: cannot be written (No space left" in refused(run("train", *QUICK, "--out", "r"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


def test_what_is_in_the_way_of_files_is_said_before_training(run, tmp_path, monkeypatch):
    assert run("train", *QUICK, "--out", "r")[0] == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "new/figures").write_text("mine")
    (tmp_path / "r" / METRICS).unlink()
    (tmp_path / "r" / METRICS).mkdir()
    monkeypatch.setattr("scratchvae.training.Trainer.run", lambda *a: pytest.fail("it trained"))
    says = "new/figures: cannot be written (Not a directory): expected a folder in which"
    assert says in refused(run("train", *QUICK, "--out", "new"))
    err = refused(run("train", "--resume", "--epochs", "3", "--out", "r"))
    assert "r/metrics.jsonl: is a folder: expected a file, or nothing" in err
    assert (tmp_path / "new/figures").read_text() == "mine"


@pytest.mark.parametrize("out", ["pictures", "pictures/r", "link/r", None])
def test_a_run_among_the_images_of_its_data_is_refused(run, tmp_path, monkeypatch, rng, out):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    (tmp_path / "link").symlink_to("pictures")
    for n in range(10):
        pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"pictures/{n}.png")
    before = files(tmp_path)
    if out is None:  # a new folder under the one where we are
        monkeypatch.chdir(tmp_path / "pictures")
    argv = ["." if out is None else "pictures/", *(["--out", out] if out else [])]
    assert "in the folder of the data " in refused(run("train", *argv, *QUICK))
    assert files(tmp_path) == before
    monkeypatch.chdir(tmp_path)
    assert run("train", "pictures", *QUICK, "--out", "pictures2")[0] == 0


def test_a_lone_best_checkpoint_is_left_alone(run, finished, tmp_path):
    (tmp_path / "r").mkdir()
    best = (finished / "best.safetensors").read_bytes()
    (tmp_path / "r/best.safetensors").write_bytes(best)
    err = refused(run("train", *QUICK, "--out", "r"))
    assert "--out r: already holds a run (best.safetensors)" in err
    assert (tmp_path / "r/best.safetensors").read_bytes() == best


def test_what_a_killed_process_left_half_written_goes(run, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert run("train", *QUICK, "--out", "r")[0] == 0
    left = tmp_path / f"r/figures/.{dead.pid}.0123abcd.tmp.png"
    left.write_text("half")
    assert run("train", "--resume", "--epochs", "3", "--out", "r")[0] == 0
    assert not left.exists()


def test_a_refused_command_deletes_nothing(run, finished, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "r").mkdir()
    names = [f"r/.notes.{dead.pid}.tmp.txt", f"r/.{dead.pid}.0123abcd.tmp.png", f"r/{METRICS}"]
    for name in names:
        (tmp_path / name).write_text("mine")
    refused(run("train", *QUICK, "--out", "r"))
    refused(run("train", "--resume", "--out", "r"))
    assert files(tmp_path) == sorted(names)


# --- a file of the run is missing or damaged ---

MISSING = "note: r: checkpoint.safetensors is missing: taking best.safetensors, of epoch 1\n"


@pytest.fixture
def of_two(run, tmp_path):
    """A run of two epochs in r, with the first as its best."""
    terms = iter([5.0, 6.0, 7.0])
    with pytest.MonkeyPatch.context() as patch:
        test_terms = lambda trainer: sv.Terms(0.0, next(terms), 0.0)  # noqa: E731
        patch.setattr(sv.Trainer, "test_terms", test_terms)
        sv.run.new(sv.run.Options(hidden=(8,), epochs=2), "r").train()
    return tmp_path / "r"


def test_the_best_checkpoint_in_the_place_of_the_last_is_named(run, of_two):
    (of_two / LAST).unlink()
    code, out, err = run("evaluate", "r")
    assert (code, err) == (0, f"scratchvae evaluate: {MISSING}")
    assert out.startswith("r/best.safetensors, epoch 1, ")
    assert json.loads(run("evaluate", "r", "--json")[1])["checkpoint"] == "r/best.safetensors"
    code, _, err = run("sample", "r", "-n", "1", "--out", "s.npy")
    assert (code, err) == (0, f"scratchvae sample: {MISSING}")
    with pytest.warns(sv.errors.InputWarning, match="taking best.safetensors, of epoch 1$"):
        found = sv.load("r").params.value
    np.testing.assert_array_equal(found, sv.load(of_two / BEST).params.value)
    code, _, err = run("train", "--resume", "--out", "r", "--json")
    assert (code, err) == (0, f"scratchvae train: {MISSING}")
    assert run("evaluate", "r")[2] == ""


def test_a_damaged_checkpoint_beside_a_good_one_says_what_to_do(run, of_two):
    whole = (of_two / LAST).read_bytes()
    (of_two / LAST).write_bytes(whole[:1000])
    says = ": move it away, and --resume goes on from best.safetensors, of epoch 1\n"
    for argv in ("evaluate", "r"), ("train", "--resume", "--out", "r"):
        err = refused(run(*argv))
        assert f"{argv[0]}: r/checkpoint.safetensors: truncated or not" in err
        assert err.endswith(says)
    err = refused(run("train", *QUICK, "--out", "r"))
    assert "--out r: already holds a run (checkpoint.safetensors): expected another folder; " in err
    assert err.endswith(says)
    (of_two / LAST).rename("away")
    assert run("train", "--resume", "--out", "r")[0] == 0


def test_what_resume_would_refuse_is_not_sent_there(run, of_two):
    for file in LAST, BEST:
        (of_two / file).write_bytes(b"half")
    for gone in None, LAST, BEST:
        if gone:
            (of_two / gone).unlink()
        for argv in ("evaluate", "r"), ("train", "--resume", "--out", "r"):
            assert "goes on" not in refused(run(*argv))
        assert refused(run("train", *QUICK, "--out", "r")).endswith(": expected another folder\n")


def test_a_folder_without_a_checkpoint_is_no_run(run, of_two, tmp_path):
    for argv in ("evaluate", tmp_path), ("sample", tmp_path, "--out", "s.npy"):
        err = refused(run(*argv))
        assert "holds no checkpoint.safetensors: expected the folder of a run" in err


# --- the data of a run that goes on ---


@pytest.fixture
def stopped(rng):
    """A run on my.npy, stopped within its second epoch; return the data."""
    x = rng.uniform(size=(60, 6)).astype(np.float32)
    np.save("my.npy", x)
    options = sv.run.Options("my.npy", hidden=(4,), latent=2, epochs=3, batch_size=8)
    training = sv.run.new(options, "r")

    def stop(terms):
        training.trainer.stop = training.trainer.optimizer.steps == 12

    training.train(stop)
    assert training.trainer.batch == 5
    return x


RESUME = ["train", "--resume", "--out", "r", "--device", "cpu"]


def test_other_contents_are_refused_and_can_be_insisted_on(run, stopped):
    np.save("my.npy", stopped[::-1])
    err = refused(run(*RESUME))
    assert "my.npy: other data than the run r was trained on (the SHA-256 of their content" in err
    assert "--other-data takes these all the same" in err
    code, _, err = run(*RESUME, "--other-data")
    assert code == 0
    assert "my.npy: other data than the run r was trained on\n" in err
    assert run(*RESUME, "--epochs", "4")[0] == 0  # from now on these are its data


@pytest.mark.parametrize("rows", [5, 20, 100])
def test_another_number_of_rows_never_loops_for_ever(run, stopped, rows):
    np.save("my.npy", np.tile(stopped, (2, 1))[:rows])
    assert "other data than" in refused(run(*RESUME))
    assert run(*RESUME, "--other-data")[0] == 0
    assert checkpoint.load("r/checkpoint.safetensors")[1]["epoch"] == 3


@pytest.fixture
def of_a_table(run):
    """A run on the columns a and b of x.csv; return its rows."""
    rows = "".join(f"{n},{2 * n % 7}\n" for n in range(20))
    Path("x.csv").write_text("a,b\n" + rows)
    options = ["--likelihood", "gaussian", "--hidden", "none", "--latent", "1", "--epochs", "1"]
    assert run("train", "x.csv", *options, "--standardize", "--out", "r")[0] == 0
    return rows


NOTE = "note: {} has 'b' as its column 1, and the data of the run r have 'a' there"


def test_columns_in_another_order_are_not_taken_without_a_word(run, of_a_table):
    swapped = [",".join(reversed(line.split(","))) for line in of_a_table.splitlines()]
    Path("swapped.csv").write_text("\n".join(["b,a", *swapped]) + "\n")
    code, _, err = run("evaluate", "r", "--data", "swapped.csv")
    assert (code, NOTE.format("swapped.csv") in err) == (0, True)
    code, _, err = run(*RESUME, "--epochs", "2", "--other-data", "--data", "swapped.csv")
    assert (code, NOTE.format("swapped.csv") in err) == (0, True)


def test_columns_with_other_names_are_not_taken_without_a_word(run, of_a_table):
    assert "note" not in run("evaluate", "r")[2]
    Path("x.csv").write_text("b,a\n" + of_a_table)  # the numbers are the same
    code, _, err = run(*RESUME, "--epochs", "2")
    assert (code, NOTE.format("x.csv") in err) == (0, True)
    assert "note" not in run("evaluate", "r")[2]  # these are now its names


def test_a_best_checkpoint_that_is_gone_is_not_said_to_be_written(run, of_a_table):
    Path("r/best.safetensors").unlink()
    code, out, _ = run(*RESUME)
    assert code == 0
    assert "the best on the test bound" not in out
    assert "best.safetensors is missing: no epoch since it was written came below its" in out


def test_an_old_checkpoint_past_the_end_of_its_epoch_is_refused(stopped):
    training = sv.run.open("r")
    arrays, values = training.trainer.state()
    values = {k: v for k, v in values.items() if k not in ("examples", "batch_size")}
    with pytest.raises(sv.InputError, match="is at batch 99 of an epoch that has 7 here"):
        training.trainer.restore(arrays, {**values, "batch": 99}, "c")


def test_data_that_have_moved_are_named_or_found(run, stopped, tmp_path, monkeypatch):
    whole = sv.run.Options("my.npy", hidden=(4,), latent=2, epochs=3, batch_size=8)
    sv.run.new(whole, "whole").train()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, *_ = run("evaluate", "../r")  # from another folder: the absolute path is known
    assert code == 0
    Path("../my.npy").rename("../moved.npy")
    err = refused(run("train", "--resume", "--out", "../r"))
    assert "my.npy cannot be read" in err
    assert "if the data have moved, --data says where to" in err
    err = refused(run("train", "--resume", "--out", "../r", "--data", "nowhere.npy"))
    assert "nowhere.npy cannot be read" in err
    assert "--data" not in err
    monkeypatch.chdir(tmp_path)
    assert run(*RESUME, "--data", "./moved.npy")[0] == 0
    a, b = (checkpoint.load(f"{out}/checkpoint.safetensors")[0] for out in ("r", "whole"))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert run(*RESUME, "--epochs", "4")[0] == 0  # and it knows the new place
    Path("moved.npy").rename("my.npy")
    assert run("train", "./my.npy", *RESUME[1:], "--epochs", "5")[0] == 0
    assert "the data was ./my.npy, this command" in refused(run(*RESUME, "--data", "digits"))


def test_other_data_for_a_run_that_is_done_are_refused_and_have_no_best_yet(run, rng):
    np.save("a.npy", rng.integers(0, 2, (50, 9), dtype=np.uint8))
    np.save("b.npy", rng.integers(0, 2, (50, 9), dtype=np.uint8))
    assert run("train", "a.npy", "--epochs", "1", "--hidden", "4", "--out", "-r")[0] == 2
    assert run("train", "a.npy", "--epochs", "1", "--hidden", "4", "--out=-r")[0] == 0
    other = ["train", "--resume", "--out=-r", "--other-data", "--data", "b.npy"]
    code, _, err = run(*other)
    assert code == 2
    assert "all 1 epoch of -r are done, and none is left for these data: expected a larger" in err
    assert run(*other, "--epochs", "2")[0] == 0
    code, out, _ = run("train", "--resume", "--out", "./-r")
    assert (code, "inf" in out) == (0, False)


def test_a_folder_that_looks_like_an_option_is_named_so_that_it_is_none():
    assert sv.run.as_word(Path("-r")) == "./-r"
    assert sv.run.as_word(Path("my r")) == "'my r'"


@pytest.mark.parametrize(
    "argv",
    [
        ("--beta", "1e308"),
        ("--free-bits", "1e308"),
        ("--likelihood", "gaussian", "--variance", "1e-45"),
    ],
)
def test_no_learning_rate_is_blamed_for_a_loss_that_was_never_finite(run, argv):
    code, _, err = run("train", "--epochs", "1", "--hidden", "8", "--out", "r", *argv)
    assert code == 2
    assert "no step was taken yet, so no learning rate is to blame" in err


def test_other_data_of_the_same_name_do_not_take_the_place_of_a_runs(run, stopped, monkeypatch):
    os.makedirs("elsewhere")
    monkeypatch.chdir("elsewhere")
    np.save("my.npy", stopped[::-1])
    assert run("evaluate", "../r")[2] == ""
    resume = ["train", "--resume", "--out", "../r", "--device", "cpu"]
    Path("../my.npy").rename("../away.npy")
    err = refused(run(*resume))
    assert "my.npy: other data than the run ../r was trained on" in err
    assert "expected the same; --data says where they are, and --other-data takes these" in err
    assert "--data says" not in refused(run(*resume, "--data", "my.npy"))
    Path("../away.npy").rename("../my.npy")
    code, _, err = run(*resume)
    assert (code, err) == (0, "")
    for argv in (*resume, "--data", ""), ("evaluate", "../r", "--data", ""):
        assert "the data: no name: expected" in refused(run(*argv))


@pytest.mark.parametrize("data", [Path("digits"), Path("./digits"), "./digits"])
def test_a_file_that_is_called_digits(rng, data):
    x = rng.uniform(size=(20, 6))
    with open("digits", "wb") as file:
        np.save(file, x)
    options = sv.run.Options(data, hidden=(4,), epochs=1)
    assert (options.data, options.latent) == ("./digits", 20)
    sv.run.new(options, "r").train()
    assert sv.run.open("r").trainer.dataset.data_dim == 6
    assert sv.run.open("r", data=Path("digits")).trainer.dataset.data_dim == 6
    with pytest.raises(sv.InputError, match=r"data was \./digits, this command asks for digits"):
        sv.run.open("r", data="digits")


# --- a run that is finished is completed; any checkpoint is drawn, encoded, sampled from ---


def test_resume_of_a_finished_run_completes_what_is_missing(run, tmp_path):
    assert run("train", *QUICK, "--out", "r")[0] == 0
    names = files(tmp_path)
    before = {file: (tmp_path / file).read_bytes() for file in names}
    (tmp_path / "r/metrics.jsonl").write_text("")
    for png in (tmp_path / "r/figures").iterdir():
        png.unlink()
    code, out, err = run(*RESUME)
    assert (code, err) == (0, "")
    assert "all 2 epochs done, completing what is in r" in out
    assert files(tmp_path) == names
    for name in set(names) - {"r/checkpoint.safetensors"}:  # whose names stand in no order
        assert (tmp_path / name).read_bytes() == before[name], name
    assert "already trained for 2 epochs" in refused(run(*RESUME, "--epochs", "2"))


def test_figures_of_a_run_that_was_stopped(run, stopped, tmp_path):
    code, out, _ = run("figures", "r", "--best")
    assert code == 0
    assert "Wrote r/figures/reconstructions.png" in out
    assert run("figures", "r", "--out", "here")[0] == 0
    assert files(tmp_path / "here") == files(tmp_path / "r/figures")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_samples_and_codes_as_arrays(run, finished, suffix):
    assert run("sample", finished, "-n", "7", "--out", f"s{suffix}")[0] == 0
    assert run("encode", finished, "--out", f"c{suffix}")[0] == 0
    model, digits = load(finished), sv.datasets.load("digits")
    x = model.sample(7, rng=0)
    mu, logvar = model.encode(sv.datasets.to_float(digits.test, 16.0, model.dtype))
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load("s.npy"), x)
        np.testing.assert_allclose(np.load("c.npy"), mu, rtol=1e-5)  # in one batch or several
    elif suffix == ".npz":
        np.testing.assert_array_equal(np.load("s.npz")["x"], x)
        with np.load("c.npz") as codes:
            np.testing.assert_allclose(codes["logvar"], logvar, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(codes["y"], digits.test_labels)
    else:
        np.testing.assert_allclose(np.loadtxt("s.csv", delimiter=",", skiprows=1), x, rtol=1e-6)
        assert Path("c.csv").read_text().startswith("mu_0,mu_1,logvar_0,logvar_1,y\n")
        table = np.loadtxt("c.csv", delimiter=",", skiprows=1)
        np.testing.assert_array_equal(table[:, 4], digits.test_labels)


def test_codes_of_the_training_data_and_of_an_autoencoder(run, stopped):
    assert run("encode", "r", "--train", "--out", "c.npy")[0] == 0
    assert np.load("c.npy").shape == (54, 2)
    run("train", "my.npy", *QUICK, "--model", "ae", "--latent", "3", "--out", "ae")
    assert run("encode", "ae", "--out", "c.npz")[0] == 0
    with np.load("c.npz") as codes:
        assert {name: codes[name].shape for name in codes} == {"z": (6, 3)}
    assert "expected a name that ends in .npy, .npz" in refused(run("encode", "r", "--out", "c"))


def test_a_picture_may_end_in_capitals(run, finished, tmp_path):
    assert run("sample", finished, "-n", "4", "--out", "s.PNG")[0] == 0
    assert (tmp_path / "s.PNG").exists()


def test_codes_are_of_the_pixels_that_evaluation_draws(run):
    options = ["--binarize", "dynamic", "--seed", "3"]
    assert run("train", "digits", *QUICK, *options, "--out", "r")[0] == 0
    assert run("encode", "r", "--out", "c.npy")[0] == 0
    trainer = sv.run.open("r").trainer
    expected = [trainer.model.encode(x)[0] for x in trainer.test_batches()]
    np.testing.assert_array_equal(np.load("c.npy"), np.concatenate(expected))


# --- numbers in JSON are JSON ---


def test_evaluate_of_one_row_and_of_a_stopped_run_is_json(run, stopped):
    np.save("two.npy", stopped[:2])
    code, out, _ = run("evaluate", "r", "--data", "two.npy", "--nll-samples", "3", "--json")
    assert code == 0
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert (found["examples"], found["nll_standard_error"]) == (1, None)
    assert (found["epoch"], found["batch"]) == (1, 5)
    code, out, _ = run("evaluate", "r", "--data", "two.npy", "--nll-samples", "3")
    assert "epoch 1 and 5 batches, 1 test examples" in out
    assert "+-" not in out


# --- what the system refuses, and what it sends ---


def test_an_option_that_the_model_ignores_is_named_on_standard_error(run):
    code, _, err = run("train", *QUICK, "--variance", "2", "--out", "r", "--json")
    assert (code, err) == (
        0,
        "scratchvae train: note: --variance is ignored: it belongs to --likelihood gaussian\n",
    )


def test_samples_that_do_not_fit_in_memory(run, finished):
    assert "not enough memory" in refused(run("sample", finished, "-n", 10**13, "--out", "s.npy"))


def test_samples_that_could_not_fit_are_refused_at_once(run, finished, monkeypatch):
    monkeypatch.setattr(sv.VAE, "sample", lambda *args: pytest.fail("it tried"))
    n = 10**10  # 2560 GB
    says = f"-n is {n}: not enough memory: the samples take 2,560 GB, and this machine has "
    assert says in refused(run("sample", finished, "-n", n, "--out", "s.npy"))


def test_what_is_one_is_called_one(run):
    out = run("train", "--hidden", "8", "--epochs", "1", "--device", "cpu", "--out", "r")[1]
    assert "\n1 epoch in " in out
    assert "all 1 epoch done" in run("train", "--resume", "--out", "r")[1]
    err = refused(run("train", "--resume", "--epochs", "1", "--out", "r"))
    assert "already trained for 1 epoch: expected" in err
    assert repr(sv.run.open("r")) == "<Run in r: vae of digits, 1 of 1 epoch>"


def shell(command, **environment):
    """Run a command line, in which $S is ours; return its exit code, output and errors."""
    ours = {"S": f"{sys.executable} -m scratchvae", **environment}
    script = f"set -o pipefail; {command}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, **ours}
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


SHORT = "$S train --hidden 8 --epochs 4 --device cpu --out r"


def test_nobody_reads_what_it_says(tmp_path):
    assert shell("$S --help | true")[0] in (0, 141)
    assert shell(f"{SHORT} | head -1")[2] == ""
    assert (tmp_path / "r/figures/samples.png").exists()
    assert shell("$S evaluate r | true")[0] in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_or_closed_standard_output(tmp_path):
    assert "the system refuses (No space left" in shell(f"{SHORT} > /dev/full")[2]
    assert (tmp_path / "r/figures/samples.png").exists()
    assert shell("$S evaluate r > /dev/full")[0] == 2
    assert shell("$S evaluate r 2> /dev/full >&2")[0] == 2
    for unbuffered in "", "1":  # found out in the end, or by the first line
        code, _, said = shell("$S --help > /dev/full", PYTHONUNBUFFERED=unbuffered)
        assert (code, said) == (2, "scratchvae: the system refuses (No space left on device)\n")
    assert shell("$S --help 2> /dev/full >&2")[0] == 2
    assert shell("$S evaluate r >&-")[0] == 0
    assert shell("$S evaluate r 2>&-")[0] == 0
    assert shell("$S evaluate none 2>&- >&-")[0] == 2


def test_a_terminal_that_knows_ascii_alone():
    code, out, _ = shell(SHORT.replace("--out r", "--out mü"), PYTHONIOENCODING="ascii")
    assert code == 0
    assert "writing in m\\xfc\n" in out


def hears_sighup():
    """Undo what the process inherits if the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_schedulers_send_saves_as_ctrl_c_does(tmp_path, name):
    number = getattr(signal, name)
    argv = [*COMMAND, "--epochs", "100000", "--out", "r"]
    with subprocess.Popen(argv, preexec_fn=hears_sighup, **PIPES) as process:
        while not (tmp_path / "r/checkpoint.safetensors").exists():
            time.sleep(0.05)
        before = checkpoint.load("r/checkpoint.safetensors")[1]["step"]
        time.sleep(0.2)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 128 + number
    assert "nothing is lost" in err
    assert checkpoint.load("r/checkpoint.safetensors")[1]["step"] > before


# Training whose steps take the given hundredths of a second longer, so that signals come in one.
SLOW = """
import sys, time
from scratchvae.cli import main
from scratchvae.training import Trainer
def step(*args, step=Trainer._step):
    print("in a step", flush=True)
    for _ in range(int(sys.argv[1])):
        time.sleep(0.01)
    return step(*args)
Trainer._step = step
sys.exit(main(["train", "--hidden", "8", "--device", "cpu", "--json", "--out", "r"]))
"""


@pytest.mark.parametrize("names", ["SIGTERM SIGHUP", "SIGHUP SIGHUP", "SIGINT SIGINT SIGTERM"])
def test_signals_that_come_together_lose_nothing(tmp_path, names):
    numbers = [getattr(signal, name) for name in names.split()]
    argv = [sys.executable, "-c", SLOW, "50"]
    with subprocess.Popen(argv, preexec_fn=hears_sighup, **PIPES) as process:
        process.stdout.readline()
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.002)
        _, err = process.communicate()
    # Two that wait for a process that does not run just then come in the order of their numbers.
    assert process.returncode in {128 + number for number in numbers}
    assert "Stopped in epoch 1 after 1 of 12 batches; nothing is lost" in err
    assert checkpoint.load("r/checkpoint.safetensors")[1]["step"] == 1


def test_a_second_ctrl_c_that_is_meant_ends_it_at_once(tmp_path):
    argv = [sys.executable, "-c", SLOW, "10000"]
    with subprocess.Popen(argv, preexec_fn=hears_sighup, **PIPES) as process:
        process.stdout.readline()
        for name in "SIGINT", "SIGINT", "SIGTERM", "SIGHUP":
            process.send_signal(getattr(signal, name))
            time.sleep(0.02)
        time.sleep(1.1)
        for name in "SIGTERM", "SIGHUP":
            process.send_signal(getattr(signal, name))
            time.sleep(0.02)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=30)
        finally:  # or the test would wait for ever
            process.kill()
    assert (process.returncode, err) == (130, "scratchvae train: stopped\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_while_figures_are_drawn_says_that_all_is_saved(run, tmp_path, name):
    number = getattr(signal, name)
    argv = [*COMMAND, "--epochs", "1", "--out", "my r"]
    with subprocess.Popen(argv, preexec_fn=hears_sighup, **PIPES) as process:
        while not (tmp_path / "my r/metrics.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 128 + number
    assert err == (
        "Stopped before all figures were drawn; all epochs are saved. Draw the rest with: "
        "scratchvae train --resume --out 'my r' (or scratchvae figures 'my r')\n"
    )
    assert run("train", "--resume", "--out", "my r")[0] == 0
    assert (tmp_path / "my r/figures/samples.png").exists()


# In text that is executed CPython remembers the interrupt and acts on that; while a class is made,
# Python 3.11 raises another error. Both happen in an import of matplotlib.
HEARD_WHERE = {
    "executed text": "import os, signal; os.kill(os.getpid(), signal.{}); x = [0] * 10**7",
    "a class": "import signal\nclass Name:\n    def __set_name__(self, *args): "
    "signal.raise_signal(signal.{})\nclass Named:\n    name = Name()",
}


@pytest.mark.parametrize("where", HEARD_WHERE)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_has_its_own_exit_code_wherever_python_hears_it(run, tmp_path, name, where):
    assert run("train", "--epochs", "1", "--hidden", "8", "--out", "r")[0] == 0
    text = HEARD_WHERE[where].format(name)
    (tmp_path / "sitecustomize.py").write_text(
        f"import scratchvae.run\nscratchvae.run.Run.draw = lambda *args: exec({text!r}, {{}})\n"
    )
    argv = [*COMMAND[:3], "train", "--resume", "--out", "r"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = {**PIPES, "env": {**os.environ, "PYTHONPATH": path}}
    with subprocess.Popen(argv, preexec_fn=hears_sighup, **options) as process:
        _, err = process.communicate()
    assert err.startswith("Stopped before all figures were drawn; all epochs are saved.")
    assert process.returncode == 128 + getattr(signal, name)


# matplotlib.ft2font makes its enumerations in C++. The first signal comes while it is imported.
IN_AN_IMPORT = """
import enum, signal
create = enum.EnumType._create_

def heard(cls, name, *args, **options):
    if name == "LoadFlags":
        signal.raise_signal(signal.{})
    return create(cls, name, *args, **options)

enum.EnumType._create_ = heard
"""
DRAWING = {
    "train": ("train", "--resume", "--out", "r"),
    "figures": ("figures", "r"),
    "sample": ("sample", "r", "-n", "4", "--out", "s.png"),
    "gradcheck": ("gradcheck", "pair.py", "--taylor", "t.png"),
}


@pytest.mark.parametrize(
    ("command", "name"), [*((c, "SIGINT") for c in DRAWING), ("train", "SIGTERM")]
)
def test_a_signal_waits_for_the_import_of_matplotlib(run, tmp_path, command, name):
    """An exception in it would end Python: "Fatal Python error", exit code 134."""
    assert run("train", "--epochs", "1", "--hidden", "8", "--out", "r")[0] == 0
    (tmp_path / "pair.py").write_text(
        "import numpy as np\ndef f(x):\n    return x**2, x\n"
        "def f_backward(dy, x):\n    return 2 * dy * x\nf_args = [np.ones(3)]\n"
    )
    (tmp_path / "sitecustomize.py").write_text(IN_AN_IMPORT.format(name))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = {**PIPES, "env": {**os.environ, "PYTHONPATH": path}}
    argv = [*COMMAND[:3], *DRAWING[command]]
    with subprocess.Popen(argv, preexec_fn=hears_sighup, **options) as process:
        _, err = process.communicate()
    assert process.returncode == 128 + getattr(signal, name), err
    assert err.count("\n") == 1
    if command == "train":
        assert err.startswith("Stopped before all figures were drawn; all epochs are saved.")


def test_ctrl_c_while_a_class_is_made_stops_any_command(run, monkeypatch):
    """Python 3.11 raises a RuntimeError then; another one is not taken for it."""
    error = RuntimeError("Error calling __set_name__")
    error.__cause__ = KeyboardInterrupt()

    def draw(*args):
        raise error

    assert run("train", "--epochs", "1", "--hidden", "8", "--out", "r")[0] == 0
    monkeypatch.setattr("scratchvae.run.Run.draw", draw)
    assert run("figures", "r") == (130, "", "scratchvae figures: stopped\n")
    error.__cause__ = None
    with pytest.raises(RuntimeError, match="__set_name__"):
        run("figures", "r")


def test_nohup_is_left_alone(tmp_path):
    argv = ["nohup", *COMMAND, "--epochs", "100000", "--out", "r"]
    with subprocess.Popen(argv, **PIPES) as process:
        while not (tmp_path / "r/checkpoint.safetensors").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.kill()


def test_a_terminal_that_is_gone_takes_no_run_with_it(tmp_path):
    ours, theirs = os.openpty()
    argv = [*COMMAND, "--epochs", "100000", "--out", "r"]
    with subprocess.Popen(argv, stdout=theirs, stderr=theirs, preexec_fn=hears_sighup) as process:
        os.close(theirs)
        os.set_blocking(ours, False)
        while not (tmp_path / "r/checkpoint.safetensors").exists():
            time.sleep(0.05)
            with suppress(BlockingIOError):
                os.read(ours, 10_000)
        os.close(ours)
        before = (tmp_path / "r/checkpoint.safetensors").stat().st_mtime_ns
        while (tmp_path / "r/checkpoint.safetensors").stat().st_mtime_ns == before:
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        process.wait()
    assert process.returncode == 129
    assert checkpoint.load("r/checkpoint.safetensors")[1]["epoch"] >= 1
