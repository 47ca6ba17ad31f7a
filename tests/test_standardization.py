"""A model that standardises does what one of standardised data does, in the data's own units."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import cli, standardization
from scratchvae.backend import asnumpy
from scratchvae.run import Options
from scratchvae.standardization import mean_and_std


@pytest.fixture
def houses(rng):
    """Return columns from a few to a million, of which one does not vary."""
    z = rng.standard_normal((400, 2))
    noise = rng.standard_normal((400, 4))
    x = z @ rng.standard_normal((2, 4)) + 0.1 * noise
    x = x * [1, 1000, 2e5, 0.01] + [5, 3000, 1e6, 35]
    return np.column_stack([x, np.full(400, 7.0)])  # (400, 5)


KINDS = {
    "ae": lambda **how: sv.Autoencoder(5, (6,), 2, **how),
    "vae": lambda **how: sv.VAE(5, (6,), 2, **how),
    "iwae": lambda **how: sv.IWAE(5, (6,), 2, samples=3, **how),
    "cvae": lambda **how: sv.ConditionalVAE(5, (6,), 2, classes=3, **how),
}


@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize("n", [1, 2, 400])
def test_mean_and_std_are_those_of_the_columns(houses, scale, n):
    mean, std = mean_and_std(houses[:n], scale)
    x = houses[:n] / scale
    # Sums of 400 numbers of one size: a few hundred roundings.
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1), rtol=1e-9)


def test_mean_and_std_do_not_cancel_and_take_a_part_at_a_time(rng):
    x = 1e9 + rng.standard_normal((3000, 1000))  # three parts
    mean, std = mean_and_std(x)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, x.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 3000), ("float32", 1e25)])
def test_squares_that_the_type_of_the_data_does_not_hold_are_added_up(dtype, size, rng):
    x = (size * rng.uniform(0.5, 1.5, (3000, 2))).astype(dtype)
    mean, std = mean_and_std(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(std, x.astype(np.float64).std(axis=0), rtol=1e-9)


@pytest.mark.parametrize("size", [1e300, 1e-200])
def test_columns_whose_squares_are_no_numbers_are_refused_by_name(size, rng):
    x = rng.standard_normal((400, 3)) * [1, size, 1]
    x[:, 2] = size  # the same in all rows
    mean, std = mean_and_std(x)
    model = sv.VAE(3, likelihood="gaussian", dtype="float64", rng=0)
    with pytest.raises(sv.InputError, match=r"column 2 .* standard deviation (0|inf): "):
        sv.standardize(model, mean, std)
    assert std[2] == 1


@pytest.mark.parametrize("variance", [0.5, "shared", "per-dimension"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_model_of_standardised_data(houses, kind, variance, rng):
    how = {"likelihood": "gaussian", "variance": variance, "dtype": "float64"}
    seed = int(rng.integers(2**31))
    inner, outer = (KINDS[kind](rng=seed, **how) for _ in range(2))
    mean, std = mean_and_std(houses)
    sv.standardize(outer, mean, std)
    np.testing.assert_array_equal(inner.params.value, outer.params.value)
    x = houses[:7]
    labels = rng.integers(3, size=7)
    rows = inner.rows((x - mean) / std, labels), outer.rows(x, labels)
    eps = inner.draw_eps(7, rng)
    terms = [m.loss_and_grad(r, eps) for m, r in zip((inner, outer), rows, strict=True)]
    np.testing.assert_allclose(terms[1], terms[0], rtol=1e-12)
    np.testing.assert_allclose(outer.params.grad, inner.params.grad, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(outer.encode(rows[1]), inner.encode(rows[0]), rtol=1e-9, atol=1e-12)
    there, here = (m.reconstruct(r) for m, r in zip((inner, outer), rows, strict=True))
    np.testing.assert_allclose(here, mean + std * there, rtol=1e-12)
    if outer.has_posterior:
        there, here = (m.sample(4, rng=3) for m in (inner, outer))
        np.testing.assert_allclose(here, mean + std * there, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient_is_right(houses, kind, rng):
    model = KINDS[kind](likelihood="gaussian", variance="shared", dtype="float64", rng=rng)
    sv.standardize(model, *mean_and_std(houses))
    x = model.rows(houses[:4], np.array([0, 1, 2, 0]))
    assert sv.gradcheck.check_model(model, x).ok


def test_the_layer_has_the_gradient_of_its_input(rng):
    from scratchvae.backend import get_backend
    from scratchvae.standardization import Standardize

    mean, std = rng.standard_normal(3), rng.uniform(0.1, 9, 3)
    layer = Standardize(mean, std, get_backend("numpy"), "float64")
    x = rng.standard_normal((4, 5))  # two columns more, as labels are
    assert sv.gradcheck.check(layer.forward, layer.backward, [x]).ok


class Backwards(sv.Sequential):
    """Knows another way back than its layers do."""

    def backward(self, dy, cache):
        return 2 * super().backward(dy, cache)


@pytest.mark.parametrize("change", ["class", "forward", "backward", "nothing"])
def test_an_encoder_that_is_more_than_its_layers_stays_whole(change):
    model = sv.VAE(3, (4,), 2, likelihood="gaussian", rng=0)
    if change == "class":
        model.encoder = Backwards(model.encoder.layers)
    elif change != "nothing":
        method = getattr(model.encoder, change)
        setattr(model.encoder, change, lambda *args: method(*args))
    whole = model.encoder
    sv.standardize(model, np.zeros(3), np.ones(3))
    layers = model.encoder.layers[1:]
    assert (layers == [whole]) == (change != "nothing")
    assert model.params.names[0] == ("encoder.1.0.W" if layers == [whole] else "encoder.1.W")


def test_what_cannot_be_standardised_is_refused():
    gaussian = sv.VAE(5, likelihood="gaussian", rng=0)
    for model, mean, std, says in (
        (sv.VAE(5, rng=0), [0] * 5, [1] * 5, "the Bernoulli likelihood needs values from 0 to 1"),
        (gaussian, [0] * 4, [1] * 5, "the mean of the columns has shape"),
        (gaussian, [0] * 5, [1] * 4 + [0], "column 5 has mean 0 and standard deviation 0"),
        (gaussian, [np.nan] * 5, [1] * 5, "column 1 has mean nan .* finite numbers of float32"),
        (gaussian, [0] * 5, [1, 1, 1e39, 1, 1], "column 3 has mean 0 and standard deviation 1e.39"),
        (gaussian, [0, -1e39, 0, 0, 0], [1] * 5, "column 2 has mean -1e.39"),
        (gaussian, [0] * 5, [1, 1e-39, 1, 1, 1], "column 2 has mean 0 and standard deviation"),
    ):
        with pytest.raises(sv.InputError, match=says):
            sv.standardize(model, mean, std)
    sv.standardize(gaussian, [0] * 5, [1] * 5)
    with pytest.raises(sv.InputError, match="standardises already"):
        sv.standardize(gaussian, [0] * 5, [1] * 5)


def test_digits_that_float32_does_not_hold_are_named():
    model = sv.VAE(1, likelihood="gaussian", rng=0)
    with pytest.warns(sv.errors.InputWarning, match="column 1 varies by 1 around 1.7e.09"):
        sv.standardize(model, [1.7e9], [1.0])


def test_a_model_file_holds_mean_and_std(houses, tmp_path, rng):
    model = sv.VAE(5, (6,), 2, likelihood="gaussian", rng=rng)
    sv.standardize(model, *mean_and_std(houses))
    model.save(tmp_path / "m.safetensors")
    again = sv.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.reconstruct(houses), model.reconstruct(houses))
    assert again.config() == model.config()
    assert len(repr(model)) < 200  # without the numbers of every column


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_device_it_is_the_same_model(houses, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    there, here = (
        KINDS[kind](likelihood="gaussian", dtype="float64", rng=0, backend=backend)
        for backend in ("cupy", "numpy")
    )
    labels = np.arange(7) % 3
    eps = here.draw_eps(7, np.random.default_rng(0))
    for model in there, here:
        sv.standardize(model, *mean_and_std(houses))
        model.loss_and_grad(model.rows(houses[:7], labels), eps)
    grads = asnumpy(there.params.grad), here.params.grad
    np.testing.assert_allclose(*grads, rtol=1e-9, atol=1e-12)  # sums in another order


# --- runs


@pytest.fixture
def run(houses, tmp_path, monkeypatch):
    """Return a function that runs a command on houses.csv in an empty folder."""
    monkeypatch.chdir(tmp_path)
    np.savetxt("houses.csv", houses, "%.17g", ",", header="a,b,c,d,e", comments="")

    def command(*argv):
        return cli.main([str(a) for a in argv])

    return command


TRAIN = ("train", "houses.csv", "--likelihood", "gaussian", "--variance", "shared", "--hidden", "8")
TRAIN += ("--latent", "2", "--lr", "0.01")


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ('year,"price, in dollars"', ["year", "price, in dollars"]),
        ("", ["x_0", "x_1"]),  # columns without names: numbers above them would be a row of data
    ],
)
def test_samples_of_a_table_have_the_names_of_its_columns(run, rng, above, expected):
    x = rng.normal(size=(30, 2))
    np.savetxt("t.csv", x, delimiter=",", header=above, comments="")
    train = ("train", "t.csv", "--likelihood", "gaussian", "--hidden", "4", "--epochs", "1")
    assert run(*train, "--out", "r") == 0
    assert run("sample", "r", "-n", "5", "--out", "s.csv") == 0
    data = sv.datasets.load("s.csv")
    assert (data.columns, len(data.train) + len(data.test)) == (tuple(expected), 5)
    # Resumed, it still knows them.
    assert run("train", "--resume", "--out", "r", "--epochs", "2") == 0
    assert run("sample", "r", "-n", "5", "--out", "s.csv") == 0
    assert sv.datasets.load("s.csv").columns == tuple(expected)


def test_a_run_that_standardises_gives_numbers_in_the_datas_units(run, houses, capsys):
    assert run(*TRAIN, "--standardize", "--epochs", "2", "--out", "r") == 0
    assert run("sample", "r", "-n", "50", "--out", "s.npy") == 0
    model, (mean, std) = sv.load("r"), mean_and_std(houses[:360])
    output, _ = model.decoder.forward(model.draw_prior(50, np.random.default_rng(0)))
    off = (np.load("s.npy") - (mean + std * output)) / (abs(mean) + std)
    np.testing.assert_allclose(off, 0, atol=1e-5)  # of float32
    output, _ = model.decoder.forward(model.encode(houses)[0])
    off = (model.reconstruct(houses) - (mean + std * output)) / (abs(mean) + std)
    np.testing.assert_allclose(off, 0, atol=1e-5)
    assert run("encode", "r", "--out", "c.npz") == 0
    np.testing.assert_allclose(np.load("c.npz")["mu"], model.encode(houses[360:])[0], atol=1e-4)
    capsys.readouterr()
    assert run("evaluate", "r", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    last = json.loads(Path("r/metrics.jsonl").read_text().splitlines()[-1])
    assert found["test_loss"] == last["test_loss"]
    assert run("figures", "r", "--out", "f") == 0


def test_resume_is_bitwise_equal(run):
    how = (*TRAIN, "--standardize")
    assert run(*how, "--epochs", "4", "--out", "whole") == 0
    assert run(*how, "--epochs", "2", "--out", "parts") == 0
    assert run("train", "--resume", "--out", "parts", "--epochs", "4") == 0
    whole, parts = sv.load("whole"), sv.load("parts")
    np.testing.assert_array_equal(whole.params.value, parts.params.value)
    assert whole.standardization == parts.standardization


def test_other_data_are_standardised_as_the_training_data_were(run, houses):
    run(*TRAIN, "--standardize", "--epochs", "1", "--out", "r")
    before = sv.load("r").standardization
    np.save("other.npy", houses * 2)
    assert run("encode", "r", "--data", "other.npy", "--out", "c.npz") == 0
    np.testing.assert_allclose(
        np.load("c.npz")["mu"], sv.load("r").encode(2 * houses[360:])[0], rtol=1e-4, atol=1e-4
    )
    argv = ("--data", "other.npy", "--other-data", "--epochs", "2")
    assert run("train", "--resume", "--out", "r", *argv) == 0
    assert sv.load("r").standardization == before


def test_without_it_a_breakdown_says_standardise_and_names_the_column(run, capsys):
    assert run(*TRAIN, "--epochs", "2", "--lr", "1e-3", "--out", "r") in (0, 2)
    err = capsys.readouterr().err
    assert "note: the column c of houses.csv has values of about" in err
    assert run(*TRAIN, "--epochs", "2", "--lr", "1e30", "--out", "s") == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "standardise the columns, with --standardize" in err
    assert "smaller learning rate" not in err


@pytest.mark.parametrize("given", [{}, {"likelihood": "gaussian", "binarize": "threshold"}])
def test_pixels_are_not_standardised(given):
    with pytest.raises(sv.run.OptionError, match=r"^standardize is for columns of real numbers"):
        Options(standardize=True, **given)


@pytest.mark.parametrize("change", ["drop", "short", "text", "zero"])
def test_a_checkpoint_with_other_numbers_is_refused(run, change):
    run(*TRAIN, "--standardize", "--epochs", "1", "--out", "r")
    path = "r/checkpoint.safetensors"
    arrays, values = sv.checkpoint.load(path)
    config = values["config"]["model"]
    mean, std = config.pop("standardize")
    wrong = {"short": [mean[:2], std], "text": [["a"] * 5, std], "zero": [mean, [0.0] * 5]}
    if change != "drop":
        config["standardize"] = wrong[change]
    sv.checkpoint.save(path, arrays, values)
    with pytest.raises(sv.InputError, match=r"checkpoint.safetensors: "):
        sv.run.open("r")


def test_a_test_part_far_away_from_the_training_part_is_named(rng):
    x, test = rng.standard_normal((50, 3)), rng.standard_normal((5, 3))
    x[:, 1], test[:, 1] = 2, 3e5  # a column that does not vary in training
    dataset = sv.datasets.Dataset.from_arrays(x, test=test)
    model = sv.VAE(3, (4,), 2, likelihood="gaussian", rng=rng)
    sv.standardize(model, *standardization.mean_and_std(dataset.train))
    assert standardization.advice(dataset, model) == (
        "the column 2 of your array has a test value that is 3e+05 standard deviations away from "
        "the training part: leave the column out if it hardly varies there, or mix the rows"
    )
    dataset.test[:, 1] = 9000.0  # an outlier
    assert standardization.advice(dataset, model) is None


def test_mean_and_std_may_be_on_the_device(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    model = sv.VAE(3, (4,), 2, likelihood="gaussian", backend="cupy", rng=rng)
    x = rng.standard_normal((50, 3))
    sv.standardize(model, standin.cupy.asarray(x.mean(axis=0)), standin.cupy.asarray(x.std(axis=0)))
    assert model.standardization == [x.mean(axis=0).tolist(), x.std(axis=0).tolist()]
