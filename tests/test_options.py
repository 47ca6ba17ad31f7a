"""Every option of every command acts: given two values, what it is about differs as it should.

The rows below are the table: `@acts("train --lr")` stands above what shows that `--lr` acts. An
option without a row fails a test, and so does a row that passes where its option is ignored.
"""

import argparse
import json
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import standin
from ranks import Communicator
from scipy import stats
from threadpoolctl import threadpool_info, threadpool_limits

import scratchvae as sv
from scratchvae import activations, checkpoint, cli, demo_tools, distributed, explorer, plots
from scratchvae.backend import asnumpy
from scratchvae.evaluation import importance_weighted_bound
from scratchvae.gradcheck import Report
from scratchvae.optimizers import Optimizer
from scratchvae.run import BEST, LAST, METRICS, Run

ROWS = {}


def acts(option):
    """Enter a function into the table, as what shows that `option` acts."""

    def add(row):
        assert option not in ROWS, f"{option} has two rows"
        ROWS[option] = row
        return row

    return add


class Commands:
    """Runs commands in this process, and remembers what happened meanwhile.

    Runs are of 36 grey images of 6 pixels, in three steps an epoch: of 16, 16 and 4 images.
    """

    def __init__(self, monkeypatch, capsys, rng):
        self.patch, self.capsys, self.rng = monkeypatch, capsys, rng
        self.steps, self.runs = [], 0
        self.save("x.npy", 40, 6)
        monkeypatch.setattr(Run, "draw", lambda run: [])  # figures are slow, and no option's
        monkeypatch.setattr(cli, "suite", self._suite)
        self._spy(sv.Autoencoder, "loss_and_grad", self._on_loss)
        self._spy(Optimizer, "step", self._on_step)
        self._spy(sv.Trainer, "test_terms", self._on_test)
        self._spy(sv.VAE, "sample", self._on_sample)

    def save(self, name, n, d):
        """Write n grey images of d pixels; return them."""
        images = self.rng.integers(0, 256, (n, d), dtype=np.uint8)
        np.save(name, images)
        return images

    def __call__(self, *argv):
        """Run a command that must succeed; return its output."""
        self.capsys.readouterr()
        code = cli.main([str(a) for a in argv])
        out, err = self.capsys.readouterr()
        assert code == 0, err
        return out

    def train(self, *options, data="x.npy", out=None):
        """Train; return the steps, the model, the metrics of the epochs and the folder."""
        self.runs += 1
        out = out or f"run{self.runs}"
        quick = ["--hidden", "4", "--latent", "2", "--epochs", "1", "--batch-size", "16"]
        self.steps = []
        self("train", data, *quick, "--seed", "1", "--device", "cpu", "--out", out, *options)
        assert Path(out, LAST).exists()
        lines = [json.loads(line) for line in Path(out, METRICS).read_text().splitlines()]
        return SimpleNamespace(steps=self.steps, model=self.model, metrics=lines, out=out)

    def evaluate(self, *options):
        return json.loads(self("evaluate", *options, "--json"))

    def sample(self, *options):
        """Return the images that go into the picture, which is not drawn."""
        with self.patch.context() as patch:
            patch.setattr(plots, "any_samples", self.draw)
            patch.setattr(plots, "save", lambda images, path: setattr(self, "shown", images))
            self("sample", *options, "--out", "s.png")
        return self.shown

    def draw(self, images, shape, title):
        self.title = title
        return images

    def use_device(self):
        """Use the stand-in as a GPU."""
        self.patch.setitem(sys.modules, "cupy", standin.cupy)

    def _spy(self, of, name, after):
        original = getattr(of, name)

        def spy(*args, **kwargs):
            before = args[0].params.value.copy() if isinstance(args[0], Optimizer) else None
            result = original(*args, **kwargs)
            after(result, before, *args)
            return result

        self.patch.setattr(of, name, spy)

    def _on_loss(self, terms, _, model, x, eps=None, *args):
        self.model = model
        x, eps = asnumpy(x), None if eps is None else asnumpy(eps)
        self.steps.append(SimpleNamespace(x=x, eps=eps, beta=model.beta, terms=terms))

    def _on_step(self, _, before, optimizer):
        self.steps[-1].lr = optimizer.lr
        self.steps[-1].before, self.steps[-1].after = before, optimizer.params.value.copy()
        self.steps[-1].grad = optimizer.params.grad.copy()

    def _on_test(self, _, __, trainer):
        self.model = trainer.model
        info = threadpool_info()
        self.threads = {lib["num_threads"] for lib in info if lib["user_api"] == "blas"}

    def _on_sample(self, _, __, model, *args):
        self.model = model

    def _suite(self, backend, seed=None):
        self.backend = backend
        return iter([Report("ours", 1e-9, 1e-7, 0)])


@pytest.fixture
def do(monkeypatch, capsys, tmp_path, rng):
    monkeypatch.chdir(tmp_path)
    return Commands(monkeypatch, capsys, rng)


# --- the table -----------------------------------------------------------------------------------


def options():
    """Yield command, action of the parser and name of every option of the command line."""
    parser = cli._parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command, sub in commands.choices.items():
        for action in sub._actions:
            name = action.option_strings[0] if action.option_strings else action.dest
            if name != "-h":
                yield command, action, f"{command} {name}"


def test_every_option_has_a_row():
    names = {name for _, _, name in options()}
    assert not names - set(ROWS), (
        f"nothing shows that {', '.join(sorted(names - set(ROWS)))} acts: add to "
        'tests/test_options.py a function under @acts("COMMAND OPTION") that fails if the option '
        "is ignored"
    )
    assert not set(ROWS) - names, "rows of options that do not exist"


@pytest.mark.parametrize("name", [name for _, _, name in options()])
def test_an_option_acts(do, name):
    ROWS[name](do)


# Without the others there is no command: the parser asks for them.
OPTIONAL = [(c, a, name) for c, a, name in options() if not a.required]


@pytest.mark.parametrize(("command", "action", "name"), OPTIONAL, ids=[o[2] for o in OPTIONAL])
def test_a_row_fails_where_its_option_is_ignored(do, monkeypatch, command, action, name):
    parse = argparse.ArgumentParser.parse_known_args  # which parse_args calls

    def ignoring(*given):
        args, unknown = parse(*given)
        if getattr(args, "command", None) == command:
            setattr(args, action.dest, [] if action.nargs == argparse.REMAINDER else action.default)
        return args, unknown

    monkeypatch.setattr(cli._Parser, "parse_known_args", ignoring)
    with pytest.raises(AssertionError):
        ROWS[name](do)


# --- train ---------------------------------------------------------------------------------------


@acts("train data")
def data(do):
    for name, width in ("a.npy", 5), ("b.npy", 7):
        images = do.save(name, 20, width)
        seen = np.concatenate([step.x for step in do.train(data=name).steps])
        expected = images[:18].astype(np.float32) / np.float32(255)  # the last tenth is for tests
        assert {x.tobytes() for x in seen} == {x.tobytes() for x in expected}


@acts("train --model")
def model(do):
    vae, ae = (do.train("--model", kind) for kind in ("vae", "ae"))
    assert vae.metrics[0]["train_kl"] > 0
    assert vae.steps[0].eps is not None
    assert ae.metrics[0]["train_kl"] == 0
    assert ae.steps[0].eps is None


@acts("train --hidden")
def hidden(do):
    for given, widths in ("3", [3]), ("5,7", [5, 7]), ("none", []):
        params = do.train("--hidden", given).model.params
        for part, n_in, n_out, between in (
            ("encoder", 6, 4, widths),  # mu and logvar of two latent dimensions
            ("decoder", 2, 6, widths[::-1]),
        ):
            shapes = [params[k].value.shape for k in params.names if k[:7] == part and k[-1] == "W"]
            ends = [n_in, *between, n_out]
            assert shapes == list(pairwise(ends))


@acts("train --latent")
def latent(do):
    for n in 1, 3:
        assert [step.eps.shape[1] for step in do.train("--latent", n).steps] == [n, n, n]


@acts("train --beta")
def beta(do):
    for value in 0, 3:
        for step in do.train("--beta", value, "--dtype", "float64").steps:
            loss, reconstruction, kl = step.terms
            assert loss == pytest.approx(reconstruction + value * kl, rel=1e-12)
            assert kl > 1e-6  # so that the line above says something


@acts("train --warm-up")
def warm_up(do):
    for epochs, betas in (0, [2, 2, 2]), (0.5, [0, 4 / 3, 2]), (1, [0, 2 / 3, 4 / 3]):
        found = [step.beta for step in do.train("--beta", 2, "--warm-up", epochs).steps]
        assert found == pytest.approx(betas, rel=1e-12)


@acts("train --free-bits")
def free_bits(do):
    for nats in 0, 50:
        for step in do.train("--free-bits", nats, "--dtype", "float64").steps:
            loss, reconstruction, kl = step.terms
            # Both latent dimensions have less than 50 nats.
            assert loss - reconstruction == pytest.approx(2 * nats if nats else kl, rel=1e-9)


@acts("train --activation")
def activation(do):
    a = np.linspace(-2, 2, 9)
    for name, (function, _) in activations.ACTIVATIONS.items():
        layer = do.train("--activation", name).model.encoder.layers[1]
        np.testing.assert_array_equal(layer.forward(a)[0], function(a)[0])


@acts("train --likelihood")
def likelihood(do):
    x, output = np.array([[0.0, 1, 0, 1, 1, 0]]), np.linspace(-3, 3, 6)[None]
    bernoulli, gaussian = (
        do.train("--likelihood", kind).model.nll(x, output)[0] for kind in ("bernoulli", "gaussian")
    )
    logp = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-output)))
    np.testing.assert_allclose(bernoulli, -logp.sum(axis=1), rtol=1e-6)  # of float32 parameters
    np.testing.assert_allclose(gaussian, -stats.norm.logpdf(x, output).sum(axis=1), rtol=1e-6)


@acts("train --variance")
def variance(do):
    x, output = np.zeros((1, 6)), np.linspace(-3, 3, 6)[None]
    gaussian = "--likelihood", "gaussian", "--variance"
    for value in 0.25, 4:
        nll = do.train(*gaussian, value).model.nll(x, output)[0]
        expected = -stats.norm.logpdf(x, output, value**0.5).sum(axis=1)
        np.testing.assert_allclose(nll, expected, rtol=1e-6)
    fixed, shared, own = (do.train(*gaussian, v).model for v in (1, "shared", "per-dimension"))
    assert len(shared.params.value) == len(fixed.params.value) + 1
    assert (fixed.likelihood.output_dim, own.likelihood.output_dim) == (6, 12)


@acts("train --binarize")
def binarize(do):
    values, epochs_are_equal = {}, {}
    for how in "none", "threshold", "dynamic":
        steps = do.train("--binarize", how, "--epochs", "2").steps
        first, second = (np.concatenate([s.x for s in steps[i : i + 3]]) for i in (0, 3))
        values[how] = np.unique(first)
        epochs_are_equal[how] = {*map(bytes, first)} == {*map(bytes, second)}
    assert len(values["none"]) > 2
    np.testing.assert_array_equal(values["threshold"], [0, 1])
    np.testing.assert_array_equal(values["dynamic"], [0, 1])
    assert epochs_are_equal == {"none": True, "threshold": True, "dynamic": False}


@acts("train --standardize")
def standardize(do):
    x = do.rng.standard_normal((40, 6)) * [1, 20, 300, 4, 5, 6] + 7
    np.save("columns.npy", x)
    gaussian = "--likelihood", "gaussian"
    model = do.train(*gaussian, "--standardize", data="columns.npy").model
    assert model.standardization is not None
    mean, std = model.standardization
    np.testing.assert_allclose(mean, x[:36].mean(axis=0))
    np.testing.assert_allclose(std, x[:36].std(axis=0))


@acts("train --epochs")
def epochs(do):
    for n in 1, 3:
        found = do.train("--epochs", n)
        assert [line["epoch"] for line in found.metrics] == list(range(1, n + 1))
        assert len(found.steps) == 3 * n


@acts("train --batch-size")
def batch_size(do):
    for n, sizes in (16, [16, 16, 4]), (30, [30, 6]):
        assert [len(step.x) for step in do.train("--batch-size", n).steps] == sizes


@acts("train --lr")
def lr(do):
    for value in 1e-3, 0.5:
        assert [step.lr for step in do.train("--lr", value).steps] == 3 * [value]


@acts("train --optimizer")
def optimizer(do):
    exact = "--dtype", "float64", "--lr", "0.25", "--optimizer"
    adam, sgd = (do.train(*exact, name).steps[0] for name in ("adam", "sgd"))
    np.testing.assert_allclose(sgd.after, sgd.before - 0.25 * sgd.grad, rtol=1e-12)
    clear = abs(adam.grad) > 1e-4  # next to which Adam's eps of 1e-8 is small
    moved = (adam.after - adam.before)[clear]
    np.testing.assert_allclose(moved, -0.25 * np.sign(adam.grad[clear]), rtol=2e-4)


@acts("train --momentum")
def momentum(do):
    for value in 0, 0.5:
        argv = "--optimizer", "sgd", "--lr", "0.25", "--dtype", "float64", "--momentum", value
        first, second = do.train(*argv).steps[:2]
        expected = second.before - 0.25 * (value * first.grad + second.grad)
        np.testing.assert_allclose(second.after, expected, rtol=1e-12)


@acts("train --schedule")
def schedule(do):
    for text, rates in (
        ("constant", [0.5, 0.5, 0.5]),
        ("cosine", [0.5, 0.375, 0.125]),  # (1 + cos(pi t)) / 4 at t = 0, 1/3 and 2/3
        ("0.3:0.25,0.5:0.1", [0.5, 0.25, 0.1]),
    ):
        found = [step.lr for step in do.train("--lr", "0.5", "--schedule", text).steps]
        assert found == pytest.approx(rates, rel=1e-12)


@acts("train --dtype")
def dtype(do):
    for name in "float32", "float64":
        step = do.train("--dtype", name).steps[0]
        assert {step.x.dtype, step.eps.dtype, step.after.dtype} == {np.dtype(name)}


@acts("train --seed")
def seed(do):
    one, again, other = (do.train("--seed", n).steps for n in (5, 5, 6))
    for what in "before", "x", "eps":  # initial parameters, order, noise
        a, b, c = (getattr(steps[0], what) for steps in (one, again, other))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


@acts("train --noise")
def noise(do):
    do.use_device()
    cpu, host, device = (
        do.train("--device", where, "--noise", who).steps[0].eps
        for where, who in (("cpu", "device"), ("cuda", "host"), ("cuda", "device"))
    )
    np.testing.assert_array_equal(host, cpu)
    assert (device != cpu).all()


@acts("train --shards")
def shards(do):
    """Each part is a call of its own."""
    for n, rows in (0, [16, 16, 4]), (2, [8, 8, 8, 8, 2, 2]):
        # Before, whether a batch may be divided: as the model is, and with other numbers.
        asked = 2 * [16, 8, 8, 16, 16] if n else []
        assert [len(step.x) for step in do.train("--shards", n).steps] == [*asked, *rows]


@acts("train --distributed")
def in_a_world(do):
    """What many ranks then do is for test_distributed.py and test_distributed_mpi.py."""
    comm = Communicator(0, 1, threading.Barrier(1), [None])
    do.patch.setattr(distributed, "world", lambda: comm)
    do.patch.setattr(distributed, "threads_of_rank", lambda comm: 1)
    do.train()
    assert comm.calls == []
    do.train("--distributed")
    assert comm.calls == ["Barrier"]  # the one before the end of MPI


@acts("train --out")
def out(do):
    for name in "a", "b/c":
        do.train(out=name)
        assert Path(name, LAST).exists()
    assert not Path("runs").exists()


@acts("train --resume")
def resume(do):
    first = do.train(out="r")
    second = do.train("--resume", "--epochs", "2", out="r")
    assert len(second.steps) == 3
    np.testing.assert_array_equal(second.steps[0].before, first.steps[-1].after)
    assert [line["epoch"] for line in second.metrics] == [1, 2]


@acts("train --device")
def device(do):
    do.use_device()
    for name, backend in ("cpu", "numpy"), ("cuda", "cupy"):
        assert do.train("--device", name).model.backend.name == backend


@acts("train --json")
def as_json(do):
    argv = "train", "x.npy", "--epochs", "1", "--device", "cpu", "--out"
    assert is_json(do(*argv, "a", "--json"))
    assert not is_json(do(*argv, "b"))


def is_json(text):
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


@acts("train --network")
def network(do):
    np.save("i.npy", do.rng.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    for name, shape in ("dense", (64, 4)), ("conv", (4, 1, 3, 3)):
        params = do.train("--network", name, data="i.npy").model.params
        assert shape in [params[k].value.shape for k in params.names]


@acts("train --objective")
def objective(do):
    elbo, iwae = (do.train("--objective", name).steps[0] for name in ("elbo", "iwae"))
    assert elbo.eps.shape == (16, 2)
    assert iwae.eps.shape == (1, 16, 2)


@acts("train --samples")
def samples(do):
    for k in 2, 5:
        steps = do.train("--objective", "iwae", "--samples", k).steps
        assert [step.eps.shape for step in steps] == [(k, 16, 2), (k, 16, 2), (k, 4, 2)]


@acts("train --prior")
def prior(do):
    normal, mixture = (do.train("--prior", name).model for name in ("normal", "mixture"))
    assert [type(model.prior).__name__ for model in (normal, mixture)] == [
        "StandardNormal",
        "MixturePrior",
    ]
    assert set(mixture.params.names) - set(normal.params.names) == {
        f"prior.{name}" for name in ("logits", "mean", "logvar")
    }


@acts("train --components")
def components(do):
    for k in 2, 5:
        found = do.train("--prior", "mixture", "--components", k)
        assert found.model.params["prior.mean"].shape == (k, 2)
        assert abs(found.steps[-1].grad[-2 * k :]).max() > 0  # of prior.logvar


def labelled(do):
    """Write a data set with labels 0, 1 and 2; return its name."""
    np.savez("l.npz", x=do.save("x.npy", 40, 6), y=np.arange(40) % 3)
    return "l.npz"


@acts("train --conditional")
def conditional(do):
    data = labelled(do)
    without, given = (do.train(*argv, data=data).model for argv in ((), ("--conditional",)))
    assert (without.classes, given.classes) == (None, 3)


@acts("train --data")
def data_option(do):
    for name, width in ("a.npy", 5), ("b.npy", 7):
        do.save(name, 20, width)
        argv = "--hidden", "4", "--epochs", "1", "--device", "cpu", "--out", f"{name}-run"
        do("train", "--data", name, *argv)
        assert do.model.data_dim == width


@acts("train --other-data")
def other_data(do):
    first = do.train(out="r")
    do.save("x.npy", 40, 6)  # others, under the same name
    second = do.train("--resume", "--other-data", "--epochs", "2", out=first.out)
    assert not {*map(bytes, second.steps[0].x)} & {*map(bytes, first.steps[0].x)}


# --- evaluate ------------------------------------------------------------------------------------


@acts("evaluate run_folder")
def evaluated_folder(do):
    for n in 1, 2:
        run = do.train("--seed", n)
        assert do.evaluate(run.out)["test_loss"] == run.metrics[0]["test_loss"]


@acts("evaluate --data")
def evaluated_data(do):
    run = do.train()
    do.save("y.npy", 100, 6)
    own, other = do.evaluate(run.out), do.evaluate(run.out, "--data", "y.npy")
    assert (own["data"], own["examples"]) == ("x.npy", 4)
    assert (other["data"], other["examples"]) == ("y.npy", 10)
    assert own["test_loss"] != other["test_loss"]


@acts("evaluate --best")
def best(do):
    a, b = do.train("--seed", "1"), do.train("--seed", "2")
    arrays, values = checkpoint.load(f"{b.out}/{LAST}")
    checkpoint.save(f"{a.out}/{BEST}", arrays, values)  # as if b had been the best epoch of a
    last, other, found = do.evaluate(a.out), do.evaluate(b.out), do.evaluate(a.out, "--best")
    assert found["test_loss"] == other["test_loss"] != last["test_loss"]
    assert found["checkpoint"] == f"{a.out}/{BEST}"


@acts("evaluate --nll-samples")
def nll_samples(do):
    run = do.train()
    assert "nll" not in do.evaluate(run.out)
    for k in 1, 30:
        found, trainer = do.evaluate(run.out, "--nll-samples", k), sv.run.open(run.out).trainer
        bound = importance_weighted_bound(trainer.model, trainer.test_batches(), k, trainer.seed)
        assert found.get("nll_samples") == k
        assert found["nll"] == pytest.approx(-bound.mean(), rel=1e-12)
        assert found["nll_standard_error"] == pytest.approx(stats.sem(bound), rel=1e-12)


@acts("evaluate --seed")
def evaluated_seed(do):
    run = do.train("--seed", "1")
    own, one, two, again = (
        do.evaluate(run.out, "--nll-samples", "3", *seed)
        for seed in ((), ("--seed", "1"), ("--seed", "2"), ("--seed", "2"))
    )
    assert own == one
    assert two == again
    for name in "test_loss", "nll":
        assert one[name] != two[name]


@acts("evaluate --device")
def evaluated_device(do):
    run = do.train()
    do.use_device()
    for name, backend in ("cpu", "numpy"), ("cuda", "cupy"):
        do.evaluate(run.out, "--device", name)
        assert do.model.backend.name == backend


@acts("evaluate --json")
def evaluated_json(do):
    run = do.train()
    assert is_json(do("evaluate", run.out, "--json"))
    assert not is_json(do("evaluate", run.out))


def test_evaluate_keeps_the_products_of_a_small_model_on_one_thread(do, monkeypatch):
    run, told = do.train(), []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: told.append(True))
    with threadpool_limits(2, "blas"):  # another number than 1, on any machine
        do.evaluate(run.out)
    assert do.threads == {1}
    assert told == [True]


# --- encode and figures --------------------------------------------------------------------------


def shown(do, command, run, *options, out):
    """Return what `encode` writes, or where `figures` draws of which model and data."""
    if command == "encode":
        do("encode", run.out, "--out", out, *options)
        return np.load(out)
    drawn = []

    def draw(run, out=None):
        drawn.append((run.model, run.trainer.dataset, out))
        return []

    with do.patch.context() as patch:
        patch.setattr(Run, "draw", draw)
        do("figures", run.out, *(("--out", out) if out else ()), *options)
    return drawn[-1]


@acts("encode run_folder")
def encoded_folder(do):
    a, b = (shown(do, "encode", do.train("--seed", n), out="c.npy") for n in (1, 2))
    assert (a != b).all()


@acts("encode --data")
def encoded_data(do):
    run = do.train()
    do.save("y.npy", 100, 6)
    assert len(shown(do, "encode", run, out="c.npy")) == 4
    assert len(shown(do, "encode", run, "--data", "y.npy", out="c.npy")) == 10


@acts("encode --train")
def encoded_train(do):
    assert len(shown(do, "encode", do.train(), "--train", out="c.npy")) == 36


def with_another_best(do):
    """Return two runs, of which the first has the last state of the second as its best."""
    a, b = do.train("--seed", "1"), do.train("--seed", "2")
    Path(a.out, BEST).write_bytes(Path(b.out, LAST).read_bytes())
    return a, b


@acts("encode --best")
def encoded_best(do):
    a, b = with_another_best(do)
    best, other = shown(do, "encode", a, "--best", out="c.npy"), shown(do, "encode", b, out="d.npy")
    np.testing.assert_array_equal(best, other)


@acts("encode --out")
def encoded_out(do):
    run = do.train()
    for name in "a.npy", "b.npy":
        assert shown(do, "encode", run, out=name).shape == (4, 2)


@acts("encode --device")
def encoded_device(do):
    run, seen, encode = do.train(), [], sv.VAE.encode
    do.use_device()
    do.patch.setattr(sv.VAE, "encode", lambda m, x: seen.append(m.backend.name) or encode(m, x))
    for name in "cpu", "cuda":
        shown(do, "encode", run, "--device", name, out="c.npy")
    assert seen == ["numpy", "cupy"]


@acts("figures run_folder")
def drawn_folder(do):
    a, b = (shown(do, "figures", do.train("--seed", n), out=None)[0] for n in (1, 2))
    assert (a.params.value != b.params.value).any()


@acts("figures --data")
def drawn_data(do):
    run = do.train()
    do.save("y.npy", 100, 6)
    assert len(shown(do, "figures", run, "--data", "y.npy", out=None)[1].test) == 10


@acts("figures --best")
def drawn_best(do):
    a, b = with_another_best(do)
    best, other = shown(do, "figures", a, "--best", out=None), shown(do, "figures", b, out=None)
    np.testing.assert_array_equal(best[0].params.value, other[0].params.value)


@acts("figures --out")
def drawn_out(do):
    run = do.train()
    for name in "f", "g/h":
        assert shown(do, "figures", run, out=name)[2] == Path(name)


@acts("figures --device")
def drawn_device(do):
    run = do.train()
    do.use_device()
    for name, backend in ("cpu", "numpy"), ("cuda", "cupy"):
        model = shown(do, "figures", run, "--device", name, out=None)[0]
        assert model.backend.name == backend


def explored(do, run, *options, out=None):
    """Return the run whose page `explore` writes."""
    seen = []
    with do.patch.context() as patch:
        patch.setattr(explorer, "page", lambda run: seen.append(run) or "a page")
        do("explore", run.out, *(("--out", out) if out else ()), *options)
    path = Path(out or f"{run.out}/explorer.html")
    assert path.exists()
    assert path.read_text() == "a page"
    return seen[0]


@acts("explore run_folder")
def explored_folder(do):
    a, b = (explored(do, do.train("--seed", n)).model for n in (1, 2))
    assert (a.params.value != b.params.value).any()


@acts("explore --data")
def explored_data(do):
    run = do.train()
    do.save("y.npy", 100, 6)
    assert len(explored(do, run, "--data", "y.npy").trainer.dataset.test) == 10


@acts("explore --best")
def explored_best(do):
    a, b = with_another_best(do)
    best, other = explored(do, a, "--best").model, explored(do, b).model
    np.testing.assert_array_equal(best.params.value, other.params.value)


@acts("explore --out")
def explored_out(do):
    run = do.train()
    for name in "a.html", "b.html":
        explored(do, run, out=name)


@acts("explore --device")
def explored_device(do):
    run = do.train()
    do.use_device()
    for name, backend in ("cpu", "numpy"), ("cuda", "cupy"):
        assert explored(do, run, "--device", name).model.backend.name == backend


# --- sample, demo and gradcheck ------------------------------------------------------------------


@acts("sample run_folder")
def sampled_folder(do):
    a, b = (do.sample(do.train("--seed", n).out) for n in (1, 2))
    assert (a != b).any()


@acts("sample -n")
def sampled_number(do):
    run = do.train()
    for n in 5, 7:
        assert do.sample(run.out, "-n", n).shape == (n, 6)


@acts("sample --label")
def sampled_label(do):
    run = do.train("--conditional", data=labelled(do))
    one, again, other = (do.sample(run.out, "--label", y) for y in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert do.title.endswith(" samples with the label 2: z ~ p(z), decoded")


@acts("sample --out")
def sampled_out(do):
    run = do.train()
    for name in "a.png", "b.png":
        do("sample", run.out, "--out", name)
        assert Path(name).read_bytes().startswith(b"\x89PNG")


@acts("sample --seed")
def sampled_seed(do):
    run = do.train()
    one, again, other = (do.sample(run.out, "--seed", n) for n in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@acts("sample --device")
def sampled_device(do):
    run = do.train()
    do.use_device()
    for name, backend in ("cpu", "numpy"), ("cuda", "cupy"):
        do.sample(run.out, "--device", name)
        assert do.model.backend.name == backend


@acts("demo name")
def demo_name(do):
    """What a demo then does with its options is for test_demo_tools.py."""
    ran = []
    do.patch.setattr(demo_tools, "run", lambda name, options: ran.append(name))
    for name in "one", "two":
        do("demo", name)
    assert ran == ["one", "two"]


@acts("demo options")
def demo_options(do):
    ran = []
    do.patch.setattr(demo_tools, "run", lambda name, options: ran.append(options))
    for options in ([], ["--quick", "--data", "mnist"]):
        do("demo", "one", *options)
    assert ran == [[], ["--quick", "--data", "mnist"]]


@acts("exercise action")
def exercise_action(do):
    """What each does is for test_exercises.py."""
    assert "0 of 24 done" in do("exercise", "list")
    assert do("exercise", "next").startswith("Wrote ")


@acts("exercise name")
def exercise_name(do):
    for name in "relu", "linear":
        assert name in do("exercise", "next", name)


@acts("exercise --folder")
def exercise_folder(do):
    for folder in "one", "two":
        do("exercise", "next", "--folder", folder)
        assert Path(folder, "01_relu.py").exists()


PAIRS = """
def double(x):
    return 2 * x, None


def double_backward(dy, cache):
    return 2 * dy


def square(x):
    return x**2, x


def square_backward(dy, x):
    return 2 * x * dy
"""


@acts("gradcheck file")
def checked_file(do):
    Path("pairs.py").write_text(PAIRS)
    for argv, names in (
        ([], ["ours"]),
        (["pairs.py"], ["double", "square"]),
        (["pairs.py:square"], ["square"]),
    ):
        assert [r["name"] for r in json.loads(do("gradcheck", *argv, "--json"))] == names


@acts("gradcheck --taylor")
def checked_taylor(do):
    Path("pairs.py").write_text(PAIRS)
    for name in "a.png", "b.png":
        do("gradcheck", "pairs.py:square", "--taylor", name)
        assert Path(name).exists()


@acts("gradcheck --seed")
def checked_seed(do):
    Path("pairs.py").write_text(PAIRS)
    one, again, other = (
        do("gradcheck", "pairs.py:square", "--seed", n, "--json") for n in (1, 1, 2)
    )
    assert one == again
    assert one != other  # the error, in its last digits


@acts("gradcheck --device")
def checked_device(do):
    do.use_device()
    for name, backend in ("cpu", "numpy"), ("cuda", "cupy"):
        do("gradcheck", "--device", name)
        assert do.backend.name == backend


@acts("gradcheck --json")
def checked_json(do):
    assert is_json(do("gradcheck", "--json"))
    assert not is_json(do("gradcheck"))
