"""Numbers that stopped being finite are found, and the message says where that began."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import finite


@pytest.fixture
def model(rng):
    return sv.VAE(5, hidden=(7,), latent_dim=1, dtype="float64", rng=rng)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (4, 5)).astype(np.float64)


def wide_weights(model, x, eps):
    model.params["decoder.0.W"].value[...] = 3e38  # finite, and its sums with z = 2 are not


def wide_noise(model, x, eps):
    eps[...] = 1e30  # z and the decoder's output are finite, their squares are not


def broken_gradients(model, x, eps):
    for name in ("encoder.0.W", "decoder.0.W"):
        model.params[name].grad[...] = np.inf


@pytest.mark.parametrize(
    ("break_it", "where"),
    [
        (
            lambda model, x, eps: model.params["encoder.0.b"].value.fill(np.nan),
            "the parameter encoder.0.b is not finite",
        ),
        (lambda model, x, eps: x.fill(np.inf), "the data are not finite"),
        (
            lambda model, x, eps: x.fill(3e38),
            "the output of encoder.0, Linear(2, 4), is the first that is not finite",
        ),
        (
            lambda model, x, eps: eps.fill(np.inf),
            "the draw z = mu + sigma eps is the first that is not finite",
        ),
        (wide_weights, "the output of decoder.0, Linear(2, 2), is the first that is not finite"),
        (wide_noise, "the loss is not finite although every layer's output is"),
        (broken_gradients, "the gradient of decoder.0.W is the first that is not finite"),
        (
            lambda model, x, eps: model.params.grad.fill(1e30),
            "the gradient's square norm is too large for its number type",
        ),
    ],
)
def test_the_first_that_is_not_finite_is_named(break_it, where):
    model = sv.VAE(2, hidden=(), latent_dim=2, likelihood="gaussian")  # float32: up to 3.4e38
    model.params.value[...] = 1
    x, eps = np.ones((4, 2), "float32"), np.zeros((4, 2), "float32")
    break_it(model, x, eps)
    with np.errstate(all="ignore"):
        assert finite.first_nonfinite(model, x, eps) == where


@pytest.mark.parametrize(
    "model",
    [
        # Neither the number of draws nor that of examples is the width of what the decoder takes.
        sv.IWAE(2, (), 5, samples=3, likelihood="gaussian"),
        sv.ConditionalVAE(2, (), 5, classes=3, likelihood="gaussian"),
    ],
    ids=["K draws", "with a label"],
)
def test_a_decoder_that_takes_more_than_a_code_of_each_example_is_looked_into(model, rng):
    x = model.rows(np.ones((4, 2), "float32"), np.zeros(4, int))
    model.params["decoder.0.W"].value[...] = 3e38
    with np.errstate(all="ignore"):
        found = finite.first_nonfinite(model, x, model.draw_eps(4, rng) + 10)
    assert found.startswith("the output of decoder.0, Linear(")


@pytest.mark.parametrize(
    ("numbers", "taken", "message"),
    [
        ({3: 1.0, 4: np.nan, 5: 2.0, 6: np.inf}, 6, "step 4 (epoch 8): loss or gradient is not"),
        ({4: np.inf, 5: -np.inf}, 4, "step 4 (epoch 8): loss or gradient is not finite; try a"),
        ({4: 1.0, 5: np.nan}, 4, "step 5 (epoch 8): the data are not finite; try a smaller"),
    ],
)
def test_the_first_step_that_was_not_finite_is_named(model, x, numbers, taken, message):
    optimizer = sv.Adam(model.params, lr=0.5)
    optimizer.steps = taken
    with pytest.raises(sv.NonFiniteError) as error:
        finite.require_finite(numbers, model, optimizer, 7, x * np.nan, None)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("; try a smaller learning rate than 0.5")


def test_where_it_began_is_searched_with_the_noise_of_the_step(model, x):
    eps = np.full((4, 1), np.inf)
    with pytest.raises(sv.NonFiniteError, match="the draw z = mu"):
        finite.require_finite({1: np.nan}, model, sv.Adam(model.params), 0, x, eps)


@pytest.mark.parametrize("numbers", [{}, {1: 3.0}, {1: 1e308, 2: 1e308}])
def test_finite_steps_pass(model, numbers):  # though their sum may not be finite
    finite.require_finite(numbers, model, sv.Adam(model.params), 0)


def test_an_autoencoder_has_no_draw_that_could_be_not_finite():
    model = sv.Autoencoder(2, hidden=(), latent_dim=3, likelihood="gaussian")
    x = np.ones((4, 2), "float32")
    model.params.value[...] = 1e-3
    model.params["decoder.0.b"].value[...] = 1e30
    with np.errstate(all="ignore"):
        found = finite.first_nonfinite(model, x, None)
    assert found == "the loss is not finite although every layer's output is"


class Half:
    """A part of one's own that is no stack: x / 2."""

    def forward(self, x):
        return x / 2, None

    def backward(self, dy, cache):
        return dy / 2


def test_a_part_that_is_no_stack_is_named_as_a_whole():
    model = sv.Autoencoder(2, latent_dim=2, likelihood="gaussian", encoder=Half(),
                           decoder=sv.Linear(2, 2))  # fmt: skip
    model.params.value[...] = 1
    model.params["decoder.W"].value[...] = 3e38
    with np.errstate(all="ignore"):
        found = finite.first_nonfinite(model, np.full((4, 2), 4, "float32"), None)
    assert found == "the output of decoder, Linear(2, 2), is the first that is not finite"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_parameter_or_a_state_that_is_not_finite_is_named_after_the_step(model, x, bad):
    optimizer = sv.Adam(model.params, lr=0.25)
    model.loss_and_grad(x)
    optimizer.step()
    finite.require_finite_state(model, optimizer, 2)
    optimizer.state["v"][-1] = bad
    with pytest.raises(
        sv.NonFiniteError,
        match=r"^step 1 \(epoch 3\): after it the optimizer's v is not finite; try a smaller "
        r"learning rate than 0\.25$",
    ):
        finite.require_finite_state(model, optimizer, 2)
    model.params["decoder.2.b"].value[0] = bad
    with pytest.raises(sv.NonFiniteError, match=r"after it the parameter decoder\.2\.b is not"):
        finite.require_finite_state(model, optimizer, 2)


def test_a_test_loss_that_is_not_finite_ends_training(rng, monkeypatch):
    """The parameters are finite, the training loss was, and what is wrong is the test data's."""
    model = sv.VAE(4, (3,), 2, likelihood="gaussian")
    data = sv.datasets.Dataset.from_arrays(
        rng.uniform(size=(9, 4)).astype(np.float32), test=np.full((2, 4), 1e30, np.float32)
    )
    trainer = sv.Trainer(model, sv.Adam(model.params), data)
    with pytest.raises(sv.NonFiniteError, match=r"^epoch 1: its test_loss is not finite; try a"):
        trainer.run(1)
    assert (trainer.epoch, trainer.metrics) == (0, [])


@pytest.mark.parametrize(("rows", "named"), [(1, True), (0, False)])
def test_where_it_began_is_told_if_a_row_is_at_hand(rows, named):
    """None is, where another machine has them."""
    model = sv.VAE(2, hidden=(), latent_dim=2, likelihood="gaussian")
    x, eps = np.ones((rows, 2), "float32"), np.zeros((rows, 2), "float32")
    model.params["encoder.0.b"].value[0] = np.nan
    with pytest.raises(sv.NonFiniteError) as error, np.errstate(all="ignore"):
        finite.require_finite({1: np.nan}, model, sv.Adam(model.params), 0, x, eps)
    assert ("loss or gradient is not finite" not in str(error.value)) is named
