"""One vector of values, one of gradients, and views of both that cannot be lost unnoticed."""

import sys
import threading

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


@pytest.mark.parametrize("what", ["value", "grad"])
def test_exchanging_an_array_is_refused_with_advice(what):
    w, _, params = two()
    for owner in (w, params):
        before = getattr(owner, what).copy()
        with pytest.raises(AttributeError, match=rf"`\.{what}\[\.\.\.\] = ` or .* `\.{what} \+= `"):
            setattr(owner, what, np.ones_like(before))
        assert np.array_equal(getattr(owner, what), before)


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


def test_check_views_finds_a_parameter_gathered_twice():
    """As when one layer stands at two places of a Sequential."""
    layer = sv.Linear(3, 3)
    params = Parameters(sv.Sequential([layer, layer]).named_parameters())
    with pytest.raises(RuntimeError, match=r"0\.W\.value is not a view"):
        params.check_views()


def test_a_product_is_added_to_the_gradient(rng):
    w, b, params = two()
    x, dy = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    params.grad[...] = before = rng.normal(size=8)
    w.add_product(x.T, dy)
    np.testing.assert_allclose(w.grad, before[:6].reshape(2, 3) + x.T @ dy, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(b.grad, before[6:])


def test_a_gradient_from_zero_forgets_what_was_there(rng):
    """Whether a product is written over it, or it is added to, read, or never touched."""
    w, b, params = two()
    x, dy = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    once = np.concatenate([(x.T @ dy).ravel(), np.zeros(2)])

    def product():
        w.add_product(x.T, dy)

    def product_after_a_look():
        assert not params.grad.any()
        product()

    def product_after_a_sum():
        w.grad += 1
        product()
        w.grad -= 1

    def two_products():
        product()
        product()
        w.grad[...] /= 2

    vector = params.grad
    for fill in product, product_after_a_look, product_after_a_sum, two_products:
        vector[...] = np.nan
        with params.gradient_from_zero():
            fill()
        # One product, and at most a number of its size added and taken away.
        np.testing.assert_allclose(vector, once, rtol=1e-14, atol=1e-14)
    vector[...] = np.nan
    with params.gradient_from_zero():
        b.grad += [3, 4]
    np.testing.assert_array_equal(vector, [0, 0, 0, 0, 0, 0, 3, 4])
    with pytest.raises(KeyError), params.gradient_from_zero():
        raise KeyError
    np.testing.assert_array_equal(vector, np.zeros(8))
    product()  # outside they add
    product()
    np.testing.assert_allclose(vector, 2 * once, rtol=1e-14)
    params.check_views()


def test_a_gradient_from_zero_is_one_threads_own_affair(rng):
    w, _, params = two()
    x, dy = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    shared, own, seen = params.grad, np.full(8, np.nan), []
    shared[...] = 1

    def elsewhere():
        with params.gradient_in(own), params.gradient_from_zero():
            w.add_product(x.T, dy)
        seen.append(params.grad)

    with params.gradient_from_zero():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen[0] is shared
        np.testing.assert_array_equal(shared, np.ones(8))  # zeroed by whom it belongs to
        w.add_product(2 * x.T, dy)
    np.testing.assert_array_equal(own[6:], [0, 0])
    np.testing.assert_allclose(2 * own, params.grad, rtol=1e-14)
    assert own.any()


def test_no_name_is_given_twice():
    """The first of two parameters would not be trained, and nobody would know."""
    one, first, second = (Parameter(np.ones(n)) for n in (1, 2, 3))
    with pytest.raises(ValueError, match="two parameters are named 'W': expected a name for each"):
        Parameters([("b", one), ("W", first), ("W", second)])
