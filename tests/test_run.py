"""A run from Python: new, stopped, resumed, refused, drawn; and models saved and loaded."""

import errno
import json
import os
import pickle
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import checkpoint
from scratchvae.cli import main
from scratchvae.run import BEST, CHOICES, LAST, METRICS, OptionError, Options, build_model

QUICK = {"hidden": (8,), "epochs": 2}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def seed(rng):
    return int(rng.integers(2**31))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


# --- options


def test_the_digits_have_defaults_of_their_own():
    assert (Options().latent, Options().epochs) == (2, 300)
    for data in ("mnist", "x.npy"):
        assert (Options(data=data).latent, Options(data=data).epochs) == (20, 10)
    given = Options(latent=5, epochs=1)
    assert (given.latent, given.epochs) == (5, 1)


def test_options_are_values():
    """Numbers of NumPy become Python's, which a checkpoint can hold."""
    options = Options(hidden=[8, np.int64(4)], lr=np.float32(0.5), seed=np.int64(3), variance=1)
    assert options == Options(hidden=(8, 4), lr=0.5, seed=3, variance=np.float32(1))
    assert options == Options(**json.loads(json.dumps(asdict(options))))
    assert replace(options, latent=3).latent == 3
    with pytest.raises(AttributeError):
        options.latent = 3


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("latent", 0, "latent is 0: expected a positive integer"),
        ("hidden", (3, 0), "hidden is 0: expected a positive integer"),
        ("hidden", 400, r"hidden is 400: expected a sequence, such as \(400,\)"),
        ("batch_size", 2.5, "batch_size is 2.5: expected a positive integer"),
        ("epochs", "many", "epochs is 'many': expected a positive integer"),
        ("lr", float("nan"), "lr is nan: expected a finite number larger than 0"),
        ("lr", 0, "lr is 0: expected a finite number larger than 0"),
        ("variance", float("nan"), "variance is nan: expected a positive number, 'shared' or"),
        ("variance", "none", "variance is 'none': expected a positive number, 'shared' or"),
        ("variance", 0, "variance is 0: expected a positive number"),
        ("momentum", 1, r"momentum is 1: expected a number in \[0, 1\)"),
        ("batch_size", 10**400, "batch_size is an integer of more than 63 bits: expected a pos"),
        ("seed", 10**400, "seed is an integer of more than 63 bits: expected an integer below"),
        ("schedule", "5:-1", "schedule is '5:-1': expected constant, cosine or EPOCH:LR"),
        ("schedule", "5:nan", "schedule is '5:nan': expected constant, cosine or EPOCH:LR"),
        ("schedule", "5:inf", "schedule is '5:inf': expected constant, cosine or EPOCH:LR"),
        ("schedule", "5:1,5:2", "schedule is '5:1,5:2': expected .*, each epoch once$"),
        ("schedule", "nan:1", "schedule is 'nan:1': expected constant, cosine or EPOCH:LR"),
        ("schedule", None, "schedule is None: expected constant, cosine or EPOCH:LR"),
        ("schedule", 5, "schedule is 5: expected constant, cosine or EPOCH:LR"),
        ("lr", 10**400, "lr is an integer of more than 63 bits: expected a finite number larger"),
        ("variance", -(10**400), "variance is an integer of more than 63 bits: expected a pos"),
        ("latent", -(10**400), "latent is an integer of more than 63 bits: expected a positive"),
        ("beta", 10**400, "beta is an integer of more than 63 bits: expected a finite number"),
        ("warm_up", -1, "warm_up is -1: expected a finite number, 0 or larger"),
        ("seed", -1, "seed is -1: expected 0 or a larger integer"),
        ("seed", "x", "seed is 'x': expected 0 or a larger integer"),
        ("schedule", "soon", "schedule is 'soon': expected constant, cosine or EPOCH:LR"),
        ("data", np.zeros((3, 4)), "data is of type ndarray: expected digits, mnist or the path"),
        *((k, "else", f"{k} is 'else': expected one of {', '.join(CHOICES[k])}") for k in CHOICES),
    ],
)
def test_an_option_that_cannot_be_used_is_named(option, value, expected):
    with pytest.raises(OptionError, match=f"^{expected}") as raised:
        Options(**{option: value})
    spelled = raised.value.spelled(lambda name: f"--{name.replace('_', '-')}")
    assert spelled.startswith(f"--{option.replace('_', '-')} is ")
    assert "\n" not in spelled
    again = pickle.loads(pickle.dumps(raised.value))  # as when a worker process raises it
    assert (type(again), str(again)) == (sv.InputError, str(raised.value))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"samples": 5},
            "samples is 5: expected 1 with the objective elbo, which takes one draw of a code, or "
            "{}objective iwae",
        ),
        ({"objective": "iwae", "samples": 0}, "samples is 0: expected a positive integer"),
        ({"objective": "iwae", "model": "ae"}, "model is ae: expected vae with the objective iw"),
        ({"objective": "iwae", "beta": 2}, "beta is 2.0: expected 1 with the objective iwae"),
        ({"objective": "iwae", "warm_up": 3}, "warm_up is 3.0: expected 0 with the objective iw"),
        ({"objective": "iwae", "free_bits": 1}, "free_bits is 1.0: expected 0 with the objective"),
        (
            {"components": 5},
            "components is 5: expected 1 with the prior normal, which is one Gaussian, or "
            "{}prior mixture",
        ),
        ({"prior": "mixture", "components": 0}, "components is 0: expected a positive integer"),
        ({"prior": "mixture", "model": "ae"}, "model is ae: expected vae with the prior mixture, "),
        ({"prior": "mixture", "free_bits": 1}, "free_bits is 1.0: expected 0 with the prior mixt"),
    ],
)
def test_options_without_a_meaning_are_one_sentence(options, sentence, capsys, tmp_path):
    with pytest.raises(OptionError, match=f"^{sentence.format('')}"):
        Options(**options)
    given = [(f"--{k.replace('_', '-')}", str(v)) for k, v in options.items()]
    assert main(["train", *sum(given, ()), "--out", str(tmp_path / "r")]) == 2
    name = sentence.split()[0]
    spelled = sentence.format("--").replace(name, f"--{name.replace('_', '-')}", 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"scratchvae train: {spelled}")


# --- runs


def test_a_new_run_trains_and_leaves_its_files(tmp_path, seed):
    run = sv.run.new(Options(**QUICK, seed=seed), out=tmp_path / "r")
    assert files(tmp_path) == []
    assert (run.finished, repr(run)) == (
        False,
        f"<Run in {tmp_path / 'r'}: vae of digits, 0 of 2 epochs>",
    )
    losses, epochs = [], []
    run.train(
        on_step=lambda terms: losses.append(float(terms.loss)),
        on_epoch=lambda metrics: epochs.append(metrics["epoch"]),
    )
    assert run.finished
    assert epochs == [1, 2]
    assert len(losses) == run.trainer.optimizer.steps == 2 * run.trainer.batches_per_epoch
    assert files(tmp_path / "r") == ["best.safetensors", "checkpoint.safetensors", "metrics.jsonl"]
    lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.trainer.metrics
    bounds = [m["test_reconstruction"] + m["test_kl"] for m in run.trainer.metrics]
    assert run.best == min(bounds)
    figures = run.draw()
    assert tmp_path / "r/figures/latent_plane.png" in figures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)


def test_the_best_checkpoint_is_of_the_epoch_with_the_lowest_bound(monkeypatch):
    terms = iter([sv.Terms(0.0, 5.0, bound - 5.0) for bound in (9.0, 7.0, 8.0, 7.5)])
    monkeypatch.setattr(sv.Trainer, "test_terms", lambda trainer: next(terms))
    run = sv.run.new(Options(hidden=(8,), epochs=4), "r")
    after = {}
    run.train(on_epoch=lambda m: after.update({m["epoch"]: run.model.params.value.copy()}))
    assert run.best == 7.0
    _, values = checkpoint.load("r/best.safetensors")
    assert (values["epoch"], values["best"]) == (2, 7.0)
    np.testing.assert_array_equal(sv.load("r/best.safetensors").params.value, after[2])
    np.testing.assert_array_equal(sv.load("r").params.value, after[4])


@pytest.mark.parametrize(("seconds", "found"), [(-1, [1, 2, 3]), (1e9, [None, None, None])])
def test_the_files_are_written_after_an_epoch_unless_that_was_done_just_before(
    monkeypatch, seconds, found
):
    monkeypatch.setattr(sv.run, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    saved = []

    def on_epoch(metrics):
        there = Path("r", LAST).exists()
        saved.append(checkpoint.load(f"r/{LAST}")[1]["epoch"] if there else None)

    sv.run.new(Options(hidden=(8,), epochs=3), "r").train(on_epoch=on_epoch)
    assert saved == found
    assert checkpoint.load(f"r/{LAST}")[1]["epoch"] == 3


def test_two_runs_with_equal_options_are_equal(seed):
    for out in ("a", "b"):
        sv.run.new(Options(**QUICK, seed=seed), out).train()
    a, b = (sv.load(out) for out in ("a", "b"))
    np.testing.assert_array_equal(a.params.value, b.params.value)


def test_labels_change_nothing_but_figures(rng, seed):
    x = rng.uniform(size=(20, 6))
    np.savez("with.npz", x=x, y=np.arange(20) % 3)
    np.savez("without.npz", x=x)
    for name in "with", "without":
        sv.run.new(Options(f"{name}.npz", hidden=(4,), latent=2, epochs=2, seed=seed), name).train()
    a, b = (sv.load(name) for name in ("with", "without"))
    np.testing.assert_array_equal(a.params.value, b.params.value)


def test_without_a_folder_it_takes_a_new_one_under_runs(tmp_path):
    for _ in range(2):
        sv.run.new(Options(**QUICK)).train()
    sv.run.new(Options(**QUICK, model="ae")).save()
    names = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert names == ["digits-ae-1", "digits-vae-1", "digits-vae-2"]


@pytest.mark.parametrize("options", [{"epochs": 3}, {}, "digits", 3])
def test_what_is_no_options_is_refused(options):
    with pytest.raises(sv.InputError, match=r"^options is .*: expected sv\.run\.Options"):
        sv.run.new(options)


def test_a_folder_without_a_name_is_refused():
    with pytest.raises(sv.InputError, match=r"^out is empty: expected a folder$"):
        sv.run.new(Options(**QUICK), "")


def test_the_defaults_are_those_of_the_command_line():
    assert sv.run.new().options == Options()


def test_stopped_anywhere_and_resumed_it_is_bitwise_the_same(rng, seed):
    options = Options(**QUICK, seed=seed, binarize="dynamic", warm_up=1.5)
    whole = sv.run.new(options, "whole")
    whole.train()
    parts = sv.run.new(options, "parts")
    stop_at = int(rng.integers(1, whole.trainer.optimizer.steps))

    def on_step(terms):
        parts.trainer.stop = parts.trainer.optimizer.steps == stop_at

    parts.train(on_step)
    assert parts.trainer.optimizer.steps == stop_at
    assert not parts.finished
    resumed = sv.run.resume("parts")
    assert resumed.options == options
    resumed.train()
    parts.train()  # the one that was stopped goes on as well, in the same process
    for run in (resumed, parts):
        assert run.finished
        assert run.best == whole.best
        np.testing.assert_array_equal(run.model.params.value, whole.model.params.value)
    for name, a in checkpoint.load("whole/best.safetensors")[0].items():
        np.testing.assert_array_equal(checkpoint.load("parts/best.safetensors")[0][name], a)


def test_resume_takes_more_epochs_and_nothing_else(tmp_path):
    sv.run.new(Options(**QUICK), "r").train()
    before = contents(tmp_path / "r")
    with pytest.raises(
        OptionError, match=r"^r: already trained for 2 epochs: expected a larger ep"
    ):
        sv.run.resume("r")
    with pytest.raises(OptionError, match="configuration: latent was 2, this command asks for 3"):
        sv.run.resume("r", epochs=3, latent=3)
    with pytest.raises(OptionError, match="latent is 0: expected a positive integer"):
        sv.run.resume("r", epochs=3, latent=0)
    with pytest.raises(TypeError, match="frobnicate"):
        sv.run.resume("r", frobnicate=1)
    assert contents(tmp_path / "r") == before
    more = sv.run.resume("r", epochs=3, hidden=[8])
    more.train()
    assert [m["epoch"] for m in more.trainer.metrics] == [1, 2, 3]
    sv.run.new(Options(**QUICK, schedule="cosine"), "cosine").train()
    with pytest.raises(OptionError, match="epochs was 2, this command asks for 3"):
        sv.run.resume("cosine", epochs=3)


def another(name, value):
    """Return another value than `value` that the option may have."""
    if name in CHOICES:
        return next(choice for choice in CHOICES[name] if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"data": "mnist", "schedule": "cosine"}[name]
    return (*value, 3) if isinstance(value, tuple) else value + 1


@pytest.mark.parametrize("name", [f.name for f in fields(Options) if f.name != "epochs"])
def test_no_other_option_may_change_when_a_run_goes_on(tmp_path, name):
    options = Options(**QUICK)
    sv.run.new(options, "r").train()
    before = contents(tmp_path / "r")
    with pytest.raises(OptionError):
        sv.run.resume("r", epochs=3, **{name: another(name, getattr(options, name))})
    assert contents(tmp_path / "r") == before


def test_open_looks_at_a_run_that_is_finished():
    run = sv.run.new(Options(**QUICK), "r")
    run.train()
    again = sv.run.open("r")
    assert again.finished
    assert (again.options, again.best) == (run.options, run.best)
    assert again.trainer.metrics == run.trainer.metrics
    assert [p.name for p in again.draw()] == [p.name for p in run.draw()]


def test_a_run_that_is_finished_is_saved_again_as_it_was():
    run = sv.run.new(sv.run.Options(hidden=(8,), epochs=2, schedule="cosine"), "r")
    run.train()
    arrays, values = checkpoint.load("r/checkpoint.safetensors")
    sv.run.open("r").train()
    again, values_again = checkpoint.load("r/checkpoint.safetensors")
    assert values_again == values
    assert arrays.keys() == again.keys()
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_a_run_killed_between_its_first_two_files_goes_on(monkeypatch, seed):
    """Only best.safetensors is there then, which is the state of the last epoch as well."""
    options, save = Options(**QUICK, seed=seed), checkpoint.save
    sv.run.new(options, "alone").train()

    def killed(path, *what):
        if path.name == LAST:
            raise RuntimeError("killed")
        save(path, *what)

    monkeypatch.setattr("scratchvae.run.SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(RuntimeError):
        sv.run.new(options, "r").train()
    monkeypatch.setattr(checkpoint, "save", save)
    assert files(Path("r")) == [BEST]
    with pytest.warns(sv.errors.InputWarning, match="taking best.safetensors, of epoch 1$"):
        sv.run.resume("r").train()
    for name in LAST, BEST:
        (a, found), (b, expected) = (checkpoint.load(f"{run}/{name}") for run in ("r", "alone"))
        assert found["epoch"] == expected["epoch"]
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_run_is_not_overwritten(tmp_path):
    sv.run.new(Options(**QUICK), "r").train()
    before = (tmp_path / "r" / LAST).read_bytes()
    with pytest.raises(OptionError, match=r"^out r: already holds a run \(checkpoint\.safet"):
        sv.run.new(Options(**QUICK), "r")
    (tmp_path / "f").write_text("mine")
    with pytest.raises(OptionError, match=r"^out f: is a file: expected a folder"):
        sv.run.new(Options(**QUICK), "f")
    assert (tmp_path / "r" / LAST).read_bytes() == before
    assert (tmp_path / "f").read_text() == "mine"


def test_a_folder_name_with_braces_is_repeated_as_it_is(tmp_path):
    (tmp_path / "{seed}").write_text("mine")
    with pytest.raises(OptionError, match=r"^out \{seed\}: is a file"):
        sv.run.new(Options(**QUICK), "{seed}")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(sv.InputError, match="none: no such folder: expected the folder of a run"):
        sv.run.resume("none")
    (tmp_path / "m").mkdir()
    sv.VAE(6, (5,), 2).save(tmp_path / "m" / LAST)
    with pytest.raises(sv.InputError, match=r"holds no run: expected a checkpoint that scratchvae"):
        sv.run.open("m")
    run = sv.run.new(Options(**QUICK), "r")
    run.save()
    arrays, values = checkpoint.load(f"r/{LAST}")
    values["config"]["options"]["colour"] = "red"
    checkpoint.save(f"r/{LAST}", arrays, values)
    with pytest.raises(sv.InputError, match="another version of scratchvae: colour is no option"):
        sv.run.open("r")


def test_a_run_of_the_first_version_goes_on(tmp_path):
    """What it wrote then, name by name; options that it lacked are as they were before."""
    whole = sv.run.new(Options(**QUICK), "whole")
    whole.train()
    run = sv.run.new(Options(hidden=(8,), epochs=1), "r")
    run.train()
    arrays, values = checkpoint.load(f"r/{LAST}")
    layers = ("encoder.0", "encoder.2", "decoder.0", "decoder.2")
    parameters = [f"{layer}.{name}" for layer in layers for name in "Wb"]
    assert set(arrays) == {*parameters, "optimizer.m", "optimizer.v"}
    old = {name: values[name] for name in ("epoch", "batch", "seconds", "metrics", "totals")}
    old |= {name: values[name] for name in ("step", "rng", "best")}
    model = {"kind": "vae", "data_dim": 64, "hidden": [8], "latent_dim": 2, "activation": "relu"}
    model |= {"likelihood": "bernoulli", "variance": 1.0, "dtype": "float32", "beta": 1.0}
    options = {"data": "digits", "model": "vae", "hidden": [8], "latent": 2, "beta": 1.0}
    options |= {"activation": "relu", "likelihood": "bernoulli", "variance": 1.0}
    options |= {"binarize": "none", "epochs": 1, "batch_size": 128, "lr": 0.001}
    options |= {"optimizer": "adam", "momentum": 0.9, "schedule": "constant"}
    options |= {"dtype": "float32", "seed": 0}
    old["config"] = {"model": model, "options": options, "image_shape": [8, 8]}
    checkpoint.save(f"r/{LAST}", arrays, old)
    assert sv.load("r").config() == run.model.config()
    more = sv.run.resume("r", epochs=2)
    more.train()
    np.testing.assert_array_equal(more.model.params.value, whole.model.params.value)


def test_a_callback_stops_training_and_it_is_saved():
    run = sv.run.new(Options(**QUICK), "r")

    def on_epoch(metrics):
        run.trainer.stop = True

    run.train(on_epoch=on_epoch)
    assert not run.finished
    assert checkpoint.load(f"r/{LAST}")[1]["epoch"] == 1
    run.train()
    assert run.finished


def test_a_loss_that_stops_being_finite_keeps_the_files(tmp_path):
    options = Options(**QUICK, optimizer="sgd", lr=1e-3, schedule="2:1e30")
    sv.run.new(options, "r").train()
    before = contents(tmp_path / "r")
    with pytest.raises(sv.NonFiniteError, match=r"^step 26 .*; r/checkpoint\.safetensors is in"):
        sv.run.resume("r", epochs=4).train()
    assert contents(tmp_path / "r") == before


@pytest.fixture
def no_room(monkeypatch):
    """Return a function: from now on a file of this name cannot be written."""

    def no_room(name, rename=os.replace):
        def replace(old, new):
            if new.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rename(old, new)

        monkeypatch.setattr(os, "replace", replace)

    monkeypatch.setattr("scratchvae.run.SECONDS_BETWEEN_CHECKPOINTS", 0)
    return no_room


@pytest.mark.parametrize(
    ("name", "left", "kept"),
    [
        (BEST, [], "none of its epochs could be saved"),
        (LAST, [BEST], "r/best.safetensors is intact, and scratchvae train --resume --out r goes"),
        (METRICS, [BEST, LAST], "r/checkpoint.safetensors is intact, and scratchvae train --resu"),
    ],
)
def test_a_disk_that_is_full_is_said_to_be_so(no_room, name, left, kept):
    no_room(name)
    with pytest.raises(sv.InputError) as error:
        sv.run.new(Options(**QUICK), "r").train()
    start = f"r/{name}: cannot be written (No space left on device); {kept}"
    assert str(error.value).startswith(start)
    assert sorted(os.listdir("r")) == left if left else not os.path.exists("r")


def test_a_disk_that_becomes_full_keeps_what_was_saved(no_room):
    run = sv.run.new(Options(hidden=(8,), epochs=4), "my r")
    with pytest.raises(sv.InputError) as error:
        run.train(on_epoch=lambda metrics: metrics["epoch"] == 2 and no_room(LAST))
    assert type(error.value) is sv.InputError
    assert str(error.value) == (
        "my r/checkpoint.safetensors: cannot be written (No space left on device); "
        "my r/checkpoint.safetensors is intact, and scratchvae train --resume --out 'my r' goes on"
    )
    assert checkpoint.load(f"my r/{LAST}")[1]["epoch"] == 2


# --- models


MODELS = [
    sv.VAE(6, (5,), 2, beta=0.5, free_bits=0.1, likelihood="gaussian", variance="shared"),
    sv.VAE(6, (), 3, dtype="float64", activation="silu", likelihood="gaussian", variance=0.3),
    sv.Autoencoder(6, (5, 4), 2, activation="tanh"),
]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_was_saved_comes_back(rng, tmp_path, model):
    x, eps = rng.uniform(size=(7, 6)), rng.standard_normal((7, model.latent_dim))
    model.save(tmp_path / "m.safetensors")
    again = sv.load(tmp_path / "m.safetensors")
    assert type(again) is type(model)
    assert again.config() == model.config()
    np.testing.assert_array_equal(again.params.value, model.params.value)
    assert again.loss_and_grad(x, eps) == model.loss_and_grad(x, eps)


def test_a_run_gives_its_model(tmp_path):
    run = sv.run.new(Options(**QUICK, beta=2), "r")
    run.train()
    for path in ("r", f"r/{LAST}", tmp_path / "r/best.safetensors"):
        model = sv.load(path)
        assert (model.beta, model.dtype) == (2, np.float32)
    np.testing.assert_array_equal(sv.load("r").params.value, run.model.params.value)


@pytest.mark.parametrize("path", ["", ".", "/", Path()])
def test_a_model_is_not_saved_without_a_name(path):
    with pytest.raises(sv.InputError, match=r"names no file: expected the path of one$"):
        sv.VAE(6, (5,), 2).save(path)


class WithParts(sv.VAE):
    """A model whose file cannot say how it is built."""

    def config(self):
        return {"kind": None, "class": "WithParts"}


def test_a_model_with_parts_of_its_own_is_filled(tmp_path):
    path = tmp_path / "m.safetensors"
    model, other = WithParts(6, (5,), 2, rng=1), WithParts(6, (5,), 2, rng=2)
    model.save(path)
    with pytest.raises(
        sv.InputError,
        match="saved from a model of the class WithParts, which a file alone cannot build, since "
        r"it holds no code: build the model as before and call sv\.load\(path, into=model\)$",
    ):
        sv.load(path)
    assert sv.load(path, into=other) is other
    np.testing.assert_array_equal(other.params.value, model.params.value)


def test_parameters_that_do_not_fit_are_refused_and_change_nothing(tmp_path):
    path = tmp_path / "m.safetensors"
    sv.VAE(6, (5,), 2).save(path)
    for hidden, options, expected in (
        ((4,), {}, r"hidden was \[5\], and is \[4\] in the model"),
        ((5,), {"activation": "tanh"}, "activation was 'relu', and is 'tanh' in the model"),
        ((5,), {"likelihood": "gaussian"}, "likelihood was 'bernoulli', and is 'gaussian' in the"),
        ((5,), {"dtype": "float64"}, "dtype was 'float32', and is 'float64' in the model"),
    ):
        model = sv.VAE(6, hidden, 2, **options)
        before = model.params.value.copy()
        with pytest.raises(sv.InputError, match=f"made with another configuration: {expected}"):
            sv.load(path, into=model)
        np.testing.assert_array_equal(model.params.value, before)


def test_a_folder_that_cannot_be_made_is_said_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    run = sv.run.new(sv.run.Options(hidden=(3,), epochs=1), out=out)
    with pytest.raises(
        sv.InputError, match=r"file.run: cannot be made \(Not a directory\): expected"
    ):
        run.train(on_step=lambda terms: pytest.fail("it trained"))


def test_arrays_that_do_not_fit_are_refused_where_no_word_on_the_model_is_there(tmp_path):
    path, model = tmp_path / "m.safetensors", sv.VAE(6, (5,), 2)
    checkpoint.save(path, {k: model.params[k].value for k in model.params.names}, {})
    for hidden, expected in (((4,), r"encoder\.0\.W is "), ((), r"it holds decoder\.2\.W, ")):
        model = sv.VAE(6, hidden, 2)
        before = model.params.value.copy()
        with pytest.raises(sv.InputError, match=f"made with another configuration: {expected}"):
            sv.load(path, into=model)
        np.testing.assert_array_equal(model.params.value, before)


def test_arrays_without_a_word_on_the_model_need_one(tmp_path):
    path, model = tmp_path / "m.safetensors", sv.VAE(6, (5,), 2)
    checkpoint.save(path, {k: model.params[k].value for k in model.params.names}, {})
    with pytest.raises(sv.InputError, match=r"build the model as before and call sv\.load"):
        sv.load(path)
    other = sv.load(path, into=sv.VAE(6, (5,), 2))
    np.testing.assert_array_equal(other.params.value, model.params.value)


def test_a_model_is_built_from_its_config():
    config = {"kind": "vae", "data_dim": 6, "hidden": [5], "latent_dim": 2, "beta": 0.5}
    model = build_model(config | {"rng": 3})
    assert model.beta == 0.5
    np.testing.assert_array_equal(
        model.params.value, sv.VAE(6, (5,), 2, beta=0.5, rng=3).params.value
    )


# --- what a file says of its model and its run


def changed(path, **changes):
    """Rewrite a checkpoint, with a digest that is right; a name such as config__model is a path."""
    arrays, values = checkpoint.load(path)
    for name, value in changes.items():
        *way, last = name.split("__")
        inner = values
        for key in way:
            inner = inner[key]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    checkpoint.save(path, arrays, values)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"config__options__hidden": [200_000_000]}, "a model with more parameters than it holds"),
        (
            {"config__options__hidden": [8, 10**30]},
            "hidden is an integer of more than 63 bits: ",
        ),
        ({"config__options__hidden": "8"}, "hidden is '8': expected a list"),
        ({"config__options__hidden": [True]}, "hidden is True: expected int"),
        ({"config__options__latent": 2.0}, r"latent is 2\.0: expected int"),
        ({"config__options__lr": "0.1"}, r"lr is '0\.1': expected a finite number"),
        ({"config__options__variance": [1]}, r"variance is \[1\]: expected float or str"),
        ({"config__options__schedule": 3}, "schedule is 3: expected str"),
        ({"config__options__data": None}, "data is None: expected str"),
        ({"config__options__activation": {}}, r"activation is \{\}: expected str"),
        ({"config__options__activation": "sine"}, "activation is 'sine': expected one of"),
        ({"config__options": []}, r"options is \[\]: expected names with values"),
        ({"config__options": ...}, "holds no run"),
        ({"config": 3}, "holds no run"),
        ({"config__image_shape": [3, 3]}, r"image_shape is \[3, 3\]: expected"),
        ({"config__image_shape": "88"}, "image_shape is '88': expected a list"),
        ({"best": "low"}, "best is 'low': expected float or None"),
        ({"best": ...}, "lacks best"),
        ({"epoch": -1}, "epoch is -1: expected 0 or a larger integer"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_is_built(tmp_path, change, expected):
    sv.run.new(Options(**QUICK), "r").save()
    changed(f"r/{LAST}", **change)
    with pytest.raises(sv.InputError, match=rf"^r/checkpoint\.safetensors: .*{expected}") as error:
        sv.run.open("r")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"config__model__hidden": [200_000_000]}, "a model with more parameters than it holds"),
        ({"config__model__hidden": [[3]]}, "hidden is "),
        ({"config__model__data_dim": 10**12}, "a model with more parameters than it holds"),
        ({"config__model__latent_dim": "2"}, "latent_dim is '2': expected int"),
        ({"config__model__dtype": "x"}, "dtype"),
        ({"config__model__colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"config__model__activation": []}, "activation is "),
        ({"config__model__kind": []}, "a file alone cannot build"),
        ({"config__model": 3}, "a file alone cannot build"),
    ],
)
def test_a_model_that_cannot_be_is_refused_before_it_is_built(tmp_path, change, expected):
    path = tmp_path / "m.safetensors"
    sv.VAE(6, (5,), 2).save(path)
    changed(path, **change)
    with pytest.raises(sv.InputError, match=expected) as error:
        sv.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_run_that_was_saved_before_its_first_epoch_is_opened():
    sv.run.new(Options(**QUICK), "r").save()
    assert checkpoint.load(f"r/{LAST}")[1]["best"] is None
    assert sv.run.open("r").best == np.inf


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variance": 2}, "variance is ignored: it belongs to likelihood gaussian"),
        ({"momentum": 0.5}, "momentum is ignored: it belongs to optimizer sgd"),
        ({"model": "ae", "beta": 2}, "beta is ignored: it belongs to model vae"),
        ({"model": "ae", "warm_up": 1}, "warm_up is ignored: it belongs to model vae"),
        ({"model": "ae", "free_bits": 1}, "free_bits is ignored: it belongs to model vae"),
    ],
)
def test_an_option_that_the_model_ignores_is_named(options, sentence):
    with pytest.warns(sv.errors.InputWarning, match=f"^{sentence}$"):
        sv.run.new(Options(**QUICK, **options)).train()


def test_a_name_that_breaks_the_line_does_not_break_the_sentence(tmp_path):
    path, model = tmp_path / "m.safetensors", sv.VAE(6, (5,), 2)
    checkpoint.save(path, {"a\nb": np.zeros(3)}, {"config": {"model": model.config()}})
    with pytest.raises(sv.InputError, match=r"it holds a\\nb, which the model lacks$"):
        sv.load(path, into=model)


@pytest.mark.parametrize("saved_before", [False, True])
def test_a_run_whose_folder_was_moved_writes_over_no_other(saved_before, tmp_path):
    out = tmp_path / "r"
    options = sv.run.Options(hidden=(4,), epochs=2)
    first = sv.run.new(options, out)

    def move(metrics):
        if metrics["epoch"] == 1:
            if saved_before:
                first.save()
            out.rename(tmp_path / "moved")
            sv.run.new(replace(options, epochs=3), out).train()

    with pytest.raises(sv.InputError, match="r: no longer the folder of this run, but of another"):
        first.train(on_epoch=move)
    whole = sv.run.open(out)
    assert (whole.finished, len(whole.trainer.metrics)) == (True, 3)
    assert (tmp_path / "moved" / LAST).exists() == saved_before


def test_a_run_whose_folder_is_gone_makes_it_again(tmp_path):
    run = sv.run.new(sv.run.Options(hidden=(4,), epochs=2), tmp_path / "r")
    run.train(on_epoch=lambda metrics: metrics["epoch"] == 1 and run.out.rename(tmp_path / "moved"))
    assert sv.run.open(tmp_path / "r").finished


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.encoder.layers.__setitem__(1, sv.Activation("tanh")),
        lambda model: setattr(model, "kl", lambda *args: sv.VAE.kl(*args)),
    ],
)
def test_a_run_whose_model_was_changed_is_refused(change, tmp_path):
    """The options, from which a run is read, would build another model around its arrays."""
    run = sv.run.new(sv.run.Options(data="digits", hidden=(5,), epochs=1, latent=2), tmp_path / "r")
    change(run.model)
    for use in run.train, run.save:
        with pytest.raises(sv.InputError) as error:
            use()
        assert str(error.value) == (
            "the model of this run was changed, and its options would build another one when the "
            "run is read: train it with sv.Trainer, and save it with model.save"
        )
