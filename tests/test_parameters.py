"""One vector of values, one of gradients, and views of both that cannot be lost unnoticed."""

import copy
import pickle
import sys

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import Parameter, Parameters


def two():
    w, b = Parameter(np.arange(6.0).reshape(2, 3)), Parameter(np.array([7.0, 8.0]))
    return w, b, Parameters([("W", w), ("b", b)])


def test_the_vectors_hold_every_parameter_once_and_in_order():
    w, b, params = two()
    assert np.array_equal(params.value, [0, 1, 2, 3, 4, 5, 7, 8])
    assert np.array_equal(params.grad, np.zeros(8))
    assert params.names == list(params) == ["W", "b"]
    assert len(params) == 2
    assert (params["W"], params["b"]) == (w, b)
    assert (w.shape, b.shape) == ((2, 3), (2,))


@pytest.mark.parametrize("what", ["value", "grad"])
def test_views_and_vectors_share_their_memory_both_ways(what):
    w, b, params = two()
    flat = getattr(params, what)
    flat[...] = np.arange(8) * 10
    assert np.array_equal(getattr(w, what), [[0, 10, 20], [30, 40, 50]])
    assert np.array_equal(getattr(b, what), [60, 70])
    getattr(w, what)[1, 2] = -1
    getattr(b, what)[0] = -2
    assert np.array_equal(flat, [0, 10, 20, 30, 40, -1, -2, 70])


def test_a_models_vectors_are_contiguous_and_covered_by_its_views():
    model = sv.VAE(7, (5,), 2, likelihood="gaussian", variance="shared")
    params = model.params
    assert "likelihood.logvar" in params.names
    for vector in (params.value, params.grad):
        assert vector.ndim == 1
        assert vector.flags.c_contiguous
    params.value[...] = np.arange(len(params.value))
    views = [params[name].value for name in params.names]
    assert all(view.flags.c_contiguous for view in views)
    assert np.array_equal(np.concatenate([view.ravel() for view in views]), params.value)
    assert params["encoder.0.W"].value is model.encoder.layers[0].W.value
    params.check_views()


def test_view_cuts_any_flat_vector_alike():
    _, _, params = two()
    other = np.arange(8.0)
    assert np.array_equal(params.view(other, "W"), [[0, 1, 2], [3, 4, 5]])
    assert np.shares_memory(params.view(other, "b"), other)


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("value", r"cannot be replaced: write into it with `\.value\[\.\.\.\] = `$"),
        ("grad", r"cannot be replaced: add to it with `\.grad \+= `$"),
    ],
)
def test_exchanging_an_array_is_refused_with_advice(what, how):
    w, _, params = two()
    for owner in (w, params):
        before = getattr(owner, what).copy()
        with pytest.raises(AttributeError, match=how):
            setattr(owner, what, np.ones_like(before))
        assert np.array_equal(getattr(owner, what), before)


def test_a_number_of_numpys_is_an_array_without_axes():
    p = sv.Parameter(np.log(0.5))
    assert isinstance(p.value, np.ndarray)
    assert p.shape == ()
    p.add(np.float64(2.0))
    assert p.grad == 2.0


def test_a_value_is_a_copy_so_that_what_is_kept_beside_it_is_seen_not_to_move(rng):
    a = rng.normal(size=3)
    one, two = sv.Parameter(a), sv.Parameter(a)
    one.value += 1
    np.testing.assert_array_equal(two.value, a)


def test_writing_in_place_is_welcome():
    w, _, params = two()
    w.grad += 2.0
    w.value *= 0.5
    params.value -= 1.0
    assert np.array_equal(params.grad, [2, 2, 2, 2, 2, 2, 0, 0])
    assert np.array_equal(w.value, [[-1, -0.5, 0], [0.5, 1, 1.5]])
    params.check_views()


@pytest.mark.parametrize("what", ["value", "grad"])
def test_check_views_finds_a_rebound_array(what):
    _, b, params = two()
    params.check_views()
    setattr(b, f"_{what}", getattr(b, what).copy())
    with pytest.raises(RuntimeError) as error:
        params.check_views()
    assert str(error.value) == (
        f"b.{what} is not a view of the model's flat vector any more, so the optimizer would not "
        "reach it"
    )


def test_check_views_knows_where_a_devices_arrays_lie(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    b = Parameter(standin.cupy.asarray(np.ones(2)))
    params = Parameters([("b", b)])
    params.check_views()
    b._value = b.value.copy()
    with pytest.raises(RuntimeError, match=r"b\.value is not a view"):
        params.check_views()


def test_check_views_finds_a_view_of_the_wrong_part_or_shape():
    w, _, params = two()
    w._value = params.value[1:7].reshape(2, 3)
    with pytest.raises(RuntimeError, match=r"W\.value is not a view"):
        params.check_views()
    w._value = params.value[:6].reshape(3, 2)
    with pytest.raises(RuntimeError, match=r"W\..* is not a view"):
        params.check_views()


def test_check_views_finds_a_parameter_gathered_into_a_second_model():
    w, _, params = two()
    second = Parameters([("W", w)])
    second.check_views()
    with pytest.raises(RuntimeError, match=r"W\.value is not a view of the model's flat vector"):
        params.check_views()


def test_a_parameter_with_two_names_is_refused():
    """As when one layer stands at two places of a Sequential."""
    layer = sv.Linear(3, 3)
    with pytest.raises(sv.InputError) as error:
        Parameters(sv.Sequential([layer, layer]).named_parameters())
    assert str(error.value) == (
        "0.W and 1.W are one and the same parameter, as where a layer stands at two places: "
        "expected a layer of its own for each, or, where one shares the parameter of another, its "
        "name from one of them only"
    )


class Tied:
    """A layer that multiplies by the transposed weights of another one, which names them."""

    def __init__(self, other):
        self.W = other.W

    def forward(self, x):
        return x @ self.W.value.T, x

    def backward(self, dy, x):
        self.W.grad += dy.T @ x
        return dy @ self.W.value


def test_a_parameter_of_two_layers_that_one_of_them_names_gets_both_gradients(rng):
    linear = sv.Linear(5, 3, rng=rng, dtype="float64")
    stack = sv.Sequential([linear, sv.Activation("tanh"), Tied(linear)])
    assert sv.gradcheck.check(stack, [rng.standard_normal((4, 5))]).ok
    assert [name for name, _ in stack.named_parameters()] == ["0.W", "0.b"]


def test_there_must_be_parameters():
    message = r"^there are no parameters to gather: expected one at least$"
    with pytest.raises(sv.InputError, match=message):
        Parameters(sv.Sequential([sv.Activation("relu")]).named_parameters())


def test_a_product_is_added_to_the_gradient(rng):
    w, b, params = two()
    x, dy = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    params.grad[...] = before = rng.normal(size=8)
    w.add_product(x.T, dy)
    np.testing.assert_allclose(w.grad, before[:6].reshape(2, 3) + x.T @ dy, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(b.grad, before[6:])


class WithDecay(sv.VAE):
    """A loss with 0.1 |w|^2 beside it, whose gradient is added to the flat vector."""

    def __init__(self, *sizes, first, **options):
        self.first = first
        super().__init__(*sizes, **options)

    def forward(self, x, eps=None):
        terms, cache = super().forward(x, eps)
        return terms._replace(loss=terms.loss + 0.1 * (self.params.value**2).sum()), cache

    def backward(self, dloss, cache):
        if self.first:
            self.params.grad += 0.2 * self.params.value * dloss.sum()
        super().backward(dloss, cache)
        if not self.first:
            self.params.grad += 0.2 * self.params.value * dloss.sum()


def test_what_is_added_to_the_flat_gradient_is_never_lost_in_silence(rng):
    # tanh: beside a kink of ReLU a check may decide nothing.
    x, options = rng.random((5, 6)), {"activation": "tanh", "dtype": "float64", "rng": rng}
    after = WithDecay(6, (4,), 2, first=False, **options)
    assert sv.gradcheck.check_model(after, x).ok
    before = WithDecay(6, (4,), 2, first=True, **options)
    before.params.value[...], eps = after.params.value, rng.standard_normal((5, 2))
    for model in after, before:  # where nothing is left from a batch, nothing is written over
        model.loss_and_grad(x, eps)
    np.testing.assert_allclose(before.params.grad, after.params.grad, rtol=1e-12, atol=1e-14)
    with pytest.raises(sv.InputError) as error:
        before.loss_and_grad(x)
    assert str(error.value) == (
        "the gradient is left from an earlier batch, and layers will write over it: add to "
        "params.grad after super().backward(...), not before; if a backward pass broke off, "
        "compute the gradient anew"
    )


def test_a_gradient_that_is_left_is_not_read():
    w, _, params = two()
    w.add(np.ones((2, 3)))
    params.forget_gradient()  # which leaves what will be written over
    with pytest.raises(sv.InputError) as error:
        _ = w.grad
    assert str(error.value) == (
        "this gradient is left from an earlier batch: either a backward pass broke off before it "
        "came here, or it is read before `.add(d)` has written over it, or a layer adds to one "
        "parameter with both `.add(d)` and `.grad += d`, where it should use `.add(d)` only"
    )


def test_an_array_for_a_parameter_is_named():
    _, b, params = two()
    with pytest.raises(
        sv.InputError, match=r"^a part of the model was changed .*\(W is not what it"
    ):
        params.require([("W", np.ones((2, 3))), ("b", b)])


class Skipped:
    """A layer with a shortcut, which every third batch takes."""

    def __init__(self, layer):
        self.layer, self.batches = layer, 0

    def forward(self, x):
        self.batches += 1
        if self.batches % 3 == 0:
            return x, None
        y, cache = self.layer.forward(x)
        return x + y, cache

    def backward(self, dy, cache):
        return dy if cache is None else dy + self.layer.backward(dy, cache)

    def named_parameters(self):
        return self.layer.named_parameters()


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(
    ("base", "options"), [(sv.Autoencoder, {}), (sv.VAE, {}), (sv.IWAE, {"samples": 2})]
)
def test_what_is_added_to_a_gradient_that_no_layer_wrote_counts(base, options, each, rng):
    class Decay(base):
        def backward(self, dloss, cache):
            super().backward(dloss, cache)
            if each:
                for name in self.params.names:
                    self.params[name].grad += 0.2 * self.params[name].value * dloss.sum()
            else:
                self.params.grad += 0.2 * self.params.value * dloss.sum()

    width = 2 if base is sv.Autoencoder else 4
    own = {"dtype": "float64", "rng": rng}
    encoder = sv.Sequential([sv.Linear(6, width, **own), Skipped(sv.Linear(width, width, **own))])
    model = Decay(6, latent_dim=2, encoder=encoder, **own, **options)
    name, skipped = "encoder.1.W", 0
    for _ in range(6):
        model.loss_and_grad(rng.random((5, 6)))
        decay = 0.2 * model.params[name].value
        skipped += np.allclose(model.params[name].grad, decay, rtol=1e-12)  # of rounding alone
    assert skipped == 2


class Step:
    """A batch's backward, which writes to w in one of several ways; b is left alone."""

    def __init__(self, rng):
        self.w, self.b, self.params = two()
        self.x, self.dy = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
        self.product = self.x.T @ self.dy

    def add_product(self):
        self.w.add_product(self.x.T, self.dy)

    def add(self):
        self.w.add(self.product)

    def plus(self):
        self.w.grad += self.product

    def plus_in_place(self):
        self.w.grad[...] += self.product

    def nothing(self):
        pass

    def run(self, *ways):
        self.params.forget_gradient()
        for way in ways:
            getattr(self, way)()
        self.params.complete_gradient()
        # Sums of at most three products: rounding of a few ulp.
        expected = sum(way != "nothing" for way in ways) * self.product
        np.testing.assert_allclose(self.w.grad, expected, rtol=1e-14, atol=1e-14)
        np.testing.assert_array_equal(self.b.grad, np.zeros(2))


WAYS = "add_product", "add", "plus", "plus_in_place", "nothing"


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_each_batch_starts_from_a_gradient_of_zero(rng, first, second):
    """However a layer adds to it, and also if it did so otherwise in the batch before.

    What is not allowed is refused with a sentence: nothing is lost, and nothing is left.
    """
    step = Step(rng)
    step.params.grad[...] = np.nan  # which nothing may read
    step.run(first)
    for before, way in (first, second), (second, first):
        if before.startswith("add") and way.startswith("plus"):
            with pytest.raises(sv.InputError, match=r"should use `\.add\(d\)` only"):
                step.run(way)
        step.run(way)


@pytest.mark.parametrize("first", WAYS[:4])
@pytest.mark.parametrize("second", WAYS[:4])
def test_what_a_layer_adds_twice_in_a_batch_counts_twice(rng, first, second):
    step = Step(rng)
    for _ in range(3):
        step.params.grad[...] = np.nan
        if _ and first.startswith("plus") and second.startswith("add"):
            with pytest.raises(sv.InputError, match=r"should use `\.add\(d\)` only"):
                step.run(first, second)
            return
        step.run(first, second)


def test_outside_of_a_batch_gradients_add_up(rng):
    step = Step(rng)
    step.params.grad[...] = 0
    for way in WAYS[:4]:
        getattr(step, way)()
    np.testing.assert_allclose(step.w.grad, 4 * step.product, rtol=1e-14, atol=1e-14)


def test_a_batch_that_broke_off_leaves_nothing_behind(rng):
    step = Step(rng)
    step.run("add")
    step.params.forget_gradient()  # and an error keeps backward from reaching w
    for _ in range(2):
        step.run("add_product")


def test_no_pass_over_the_memory_is_made_for_what_is_written_over(rng):
    """The gradient of a parameter that only `add` and `add_product` write is never zeroed."""
    step = Step(rng)
    step.run("add_product")
    flat = step.params.grad
    flat[...] = 7
    step.params.forget_gradient()
    np.testing.assert_array_equal(flat[:6], np.full(6, 7))
    step.add_product()
    step.params.complete_gradient()
    np.testing.assert_allclose(step.w.grad, step.product, rtol=1e-14)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_has_vectors_and_views_of_its_own(make):
    w, _, params = two()
    w.grad[...] = 3
    other = make(params)
    other.check_views()
    other.require_current()
    np.testing.assert_array_equal(other.value, params.value)
    np.testing.assert_array_equal(other.grad, params.grad)
    other["W"].value[...] = -1
    np.testing.assert_array_equal(other.value[:6], np.full(6, -1))
    np.testing.assert_array_equal(w.value, [[0, 1, 2], [3, 4, 5]])
    params.check_views()


def test_other_parameters_than_those_gathered_are_named():
    w, b, params = two()
    params.require([("W", w), ("b", b)])
    other = Parameter(np.ones(2))
    for named, name in (
        ([("W", w)], "b is"),
        ([("W", w), ("b", other)], "b is"),
        ([("W", w), ("b", b), ("c", other)], "c is"),
        ([("b", b), ("W", w)], "their order is"),
    ):
        with pytest.raises(sv.InputError) as error:
            params.require(named)
        assert str(error.value) == (
            "a part of the model was changed after its parameters had been gathered "
            f"({name} not what it was): call model.gather() and make a new optimizer, or hand the "
            "part in when the model is built, as encoder= or decoder="
        )


def test_parameters_gathered_again_are_not_moved_by_the_old_optimizer():
    w, b, params = two()
    optimizer = sv.SGD(params, 0.1)
    optimizer.step()
    second = Parameters([("W", w), ("b", b)])
    for stale in (
        optimizer.step,
        params.require_current,
        lambda: params.require([("W", w), ("b", b)]),
    ):
        with pytest.raises(sv.InputError) as error:
            stale()
        assert str(error.value) == (
            "W now belongs to other vectors than these, since it was gathered again or handed to "
            "another model: make a new optimizer of the present model.params, and give each model "
            "parts of its own"
        )
    sv.SGD(second, 0.1).step()


def test_parameters_say_what_they_hold():
    w, _, params = two()
    assert repr(w) == "Parameter((2, 3), float64)"
    assert repr(params) == "Parameters(8 numbers of float64, in 2 arrays)"


def test_no_name_is_given_twice():
    """The first of two parameters would not be trained, and nobody would know."""
    one, first, second = (Parameter(np.ones(n)) for n in (1, 2, 3))
    with pytest.raises(ValueError, match="two parameters are named 'W': expected a name for each"):
        Parameters([("b", one), ("W", first), ("W", second)])


@pytest.mark.parametrize(
    ("value", "kind"),
    [([1.0, 2.0], "list"), (1.0, "float"), (None, "NoneType"), (np.arange(3), "int64")],
)
def test_a_parameter_is_an_array_of_floats(value, kind):
    with pytest.raises(
        sv.InputError, match=f"^a Parameter's value is {kind}: expected an array of f"
    ):
        Parameter(value)


def test_what_is_no_parameter_is_refused_by_its_name():
    with pytest.raises(sv.InputError, match=r"^W is a ndarray: expected a Parameter$"):
        Parameters([("W", np.ones(3))])


def test_a_copy_of_parameters_that_were_gathered_again_is_refused():
    """It would hold the values of the old vectors."""
    w, b, params = two()
    Parameters([("W", w), ("b", b)])
    for make in COPIES.values():
        with pytest.raises(sv.InputError, match="W now belongs to other vectors"):
            make(params)


def test_a_copy_of_one_parameter_does_not_take_the_others_along():
    w = Parameter(np.arange(6.0).reshape(2, 3))
    Parameters([("W", w), ("large", Parameter(np.ones(10_000)))])
    assert len(pickle.dumps(w)) < 2000
    copied = copy.deepcopy(w)
    np.testing.assert_array_equal(copied.value, w.value)
    assert not np.shares_memory(copied.value, w.value)
