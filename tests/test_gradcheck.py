"""The checker itself: it finds wrong gradients, passes right ones, and says plainly which."""

from __future__ import annotations

import inspect
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchvae import VAE, Activation, InputError, Linear, Parameter, Sequential
from scratchvae.gaussian import kl_standard_normal, reparameterize, reparameterize_backward
from scratchvae.gradcheck import GradientError, assert_gradient, check, check_model
from scratchvae.likelihoods import bernoulli_nll, gaussian_nll


def cube(x):
    return x**3, x


def cube_backward(dy, cache):
    return 3 * cache**2 * dy


def product(x, y):
    return x * y, (x, y)


@pytest.fixture
def x(rng):
    return rng.standard_normal((4, 5))


def finds(*args, match, **options):
    """Assert that the check fails with these words; return the error."""
    with pytest.raises(GradientError, match=match) as caught:
        check(*args, **options)
    assert not caught.value.report.ok
    assert caught.value.report.message == str(caught.value)
    return caught.value


# ------------------------------------------------------------------- wrong formulas, function pairs


def test_a_right_pair_passes(x):
    report = check(cube, (x,))
    assert report.ok
    assert report.name == "cube"
    assert report.error <= report.tolerance == 1e-7
    assert len(report.checks) == x.size


def test_a_decorated_pair_is_found_beside_the_functions_it_decorates(x):
    """Such a function's own globals are those of the decorator's module."""
    check(np.errstate(over="ignore")(cube), (x,))


def test_wrong_sign(x):
    error = finds(cube, lambda dy, c: -3 * c**2 * dy, (x,), match="the gradient of x is wrong")
    assert "Its sign is wrong in every coordinate" in str(error)


@pytest.mark.parametrize("factor", [2, 0.25, 1.5, 1 + 1e-6])
def test_wrong_factor(x, factor):
    error = finds(cube, lambda dy, c: factor * 3 * c**2 * dy, (x,), match="is wrong")
    assert factor < 1.1 or f"{factor:.5g} times the right one in every coordinate" in str(error)


def test_forgotten_and_doubled_mean_over_the_batch(rng):
    """1/B enters twice: the factor in the message gives it away."""
    mu, logvar = rng.standard_normal((2, 4, 3))

    def backward(dkl, cache):
        mu, logvar = cache
        return dkl[:, None] * mu / 4, dkl[:, None] * 0.5 * np.expm1(logvar) / 4

    error = finds(kl_standard_normal, backward, (mu, logvar), match="0.25 times")
    assert "Also wrong: mu." in str(error)


def test_a_zero_gradient(x):
    finds(cube, lambda dy, c: 0 * c, (x,), match="zero everywhere")


def test_a_single_wrong_coordinate(x):
    def backward(dy, c):
        dx = 3 * c**2 * dy
        dx[2, 3] += 1  # by 1 % it might be off by a few digits only: where x or dy is near 0
        return dx

    error = finds(cube, backward, (x,), match=r"for x\[2, 3\] backward gives")
    rows = str(error).splitlines()[-5:]
    assert rows[0].split()[:2] == ["x[2,", "3]"]


def test_a_single_wrong_coordinate_in_a_block_too_large_to_look_at_each(rng):
    def backward(dy, c):
        dx = 3 * c**2 * dy
        dx[7, 3] += 1
        return dx

    finds(cube, backward, (rng.standard_normal((30, 10)),), match=r"for x\[7, 3\] backward gives")


def test_only_the_wrong_argument_is_named(x, rng):
    error = finds(product, lambda dy, c: (dy * c[1], dy * c[0] * 1.1), (x, x + 1), match="of y is")
    assert "Also wrong" not in str(error)


def test_swapped_gradients(x):
    finds(product, lambda dy, c: (dy * c[0], dy * c[1]), (x, x + 1), match="Also wrong: x")


def test_softmax_whose_error_a_cotangent_of_ones_would_not_see(x):
    """Its outputs sum to 1: with dy = 1 the true gradient is 0, and so is the wrong one."""

    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
        return y, y

    def right(dy, y):
        return y * (dy - (dy * y).sum(axis=1, keepdims=True))

    def wrong(dy, y):
        return 2 * right(dy, y)

    _, y = softmax(x)
    assert np.abs(wrong(np.ones_like(y), y)).max() < 1e-15
    check(softmax, right, (x,))
    finds(softmax, wrong, (x,), match="2 times")


def test_missing_sum_over_a_broadcast_axis(rng):
    x, b = rng.standard_normal((4, 5)), rng.standard_normal(5)

    def shift(x, b):
        return x + b, None

    check(shift, lambda dy, _: (dy, dy.sum(axis=0)), (x, b))
    finds(shift, lambda dy, _: (dy, dy), (x, b), match=r"of b has shape \(4, 5\): expected \(5,\)")
    finds(shift, lambda dy, _: (dy, dy[0]), (x, b), match="of b is wrong")


def test_transposed(rng):
    a, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))

    def matmul(a, w):
        return a @ w, (a, w)

    check(matmul, lambda dy, c: (dy @ c[1].T, c[0].T @ dy), (a, w))
    finds(matmul, lambda dy, c: (dy @ c[1], c[0].T @ dy), (a, w), match="of a is wrong")
    finds(matmul, lambda dy, c: (dy @ c[1].T, dy.T @ c[0]), (a, w), match="of w is wrong")


def test_sigma_as_exp_logvar_cannot_be_found(rng):
    """Forward and backward agree, so a checker has nothing to say: sampler tests exist for this."""

    def wrong_sigma(mu, logvar, eps):
        sigma = np.exp(logvar)  # should be exp(logvar / 2)
        return mu + sigma * eps, (sigma, eps)

    def wrong_sigma_backward(dz, cache):
        sigma, eps = cache
        return dz, dz * eps * sigma

    mu, logvar, eps = rng.standard_normal((3, 4, 2))
    assert check(wrong_sigma, wrong_sigma_backward, (mu, logvar, eps)).ok
    right, wrong = reparameterize(mu, logvar, eps)[0], wrong_sigma(mu, logvar, eps)[0]
    assert np.abs(right - wrong).max() > 1e-3


# ----------------------------------------------------------------------------------- the contract


def test_noise_drawn_in_forward(x, rng):
    def forward(x):
        return x + rng.standard_normal(x.shape), None

    finds(forward, lambda dy, _: dy, (x,), match="two calls with the same arguments differ")


def test_noise_drawn_again_in_backward(rng):
    def backward(dz, cache):
        sigma, _ = cache
        return reparameterize_backward(dz, (sigma, rng.standard_normal(sigma.shape)))

    args = rng.standard_normal((3, 4, 2))
    finds(reparameterize, backward, tuple(args), match="of logvar the second time.* draws noise")


@pytest.mark.parametrize("by", ["forward", "backward"])
def test_an_argument_changed_in_place(x, by):
    def forward(x):
        if by == "forward":
            x *= 2
        return 1 * x, x

    def backward(dy, x):
        x *= 2
        return dy

    before = x.copy()
    finds(forward, backward, (x,), match=f"{by} changes x in place")
    np.testing.assert_array_equal(x, before)


def test_the_cotangent_changed_in_place(x):
    def backward(dy, cache):
        dy *= 3 * cache**2
        return dy

    finds(cube, backward, (x,), match="backward changes dy in place")


def test_a_cache_used_up(x):
    def backward(dy, cache):
        return 3 * cache.pop() ** 2 * dy if len(cache) == 1 else 0 * dy

    finds(lambda x: (x**3, [x]), backward, (x,), match="changes its cache")


def test_hidden_state(x):
    class Hidden:
        def forward(self, x):
            self.x = x
            return x**3, None

        def backward(self, dy, cache):
            return 3 * self.x**2 * dy

    finds(Hidden(), (x,), match="something that a later forward changed")


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_values_that_are_not_finite(x):
    finds(lambda x: (x / 0, None), lambda dy, _: dy, (x,), match="forward has values that are not")
    finds(cube, lambda dy, _: dy * np.inf, (x,), match="the gradient of x is wrong: .* inf")
    finds(cube, lambda dy, _: dy * np.nan, (x,), match="the gradient of x is wrong: .* nan")


def test_a_kink_at_the_argument_is_called_one(x):
    x[1, 2] = 0
    finds(
        lambda x: (np.abs(x), x),
        lambda dy, x: 0.5 * dy * (1 + np.sign(x)),
        (np.zeros(3),),
        match="has a kink or a jump at",
    )
    x[1, 2] = 1e-4
    check(lambda x: (np.abs(x), x), lambda dy, x: dy * np.sign(x), (x,))


# ----------------------------------------------------------------------------------------- layers


class Wrong(Linear):
    """A Linear with one thing wrong."""

    def __init__(self, fault, *sizes):
        super().__init__(*sizes, dtype="float64")
        self.fault = fault

    def backward(self, dy, cache):
        if self.fault in ("overwritten", "one example"):
            old = self.W.grad.copy(), self.b.grad.copy()
        dx = super().backward(dy, cache)
        if self.fault == "overwritten":
            self.W.grad -= old[0]
        if self.fault == "bias":
            self.b.grad += 0.5 * dy.sum(axis=0)
        if self.fault == "one bias":
            self.b.grad[-1] += 0.5 * dy[:, -1].sum()
        if self.fault == "one example":
            self.b.grad[...] = old[1] + dy[0]
        if self.fault == "parameter":
            self.b.value *= 1.1
        if self.fault == "drops dx":
            dx = dx * 0.9
        return dx


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("overwritten", "overwrites the gradient of W where it should add"),
        ("bias", "of b is wrong.*\n.*1.5 times"),
        ("one bias", r"of b is wrong: for b\[2\]"),
        ("one example", "of b is wrong"),
        ("parameter", "backward changes b in place"),
        ("drops dx", "of x is wrong.*\n.*0.9 times"),
    ],
)
def test_wrong_layers(x, fault, says):
    layer = Wrong(fault, 5, 3)
    value = layer.b.value.copy()
    finds(layer, (x,), match=says)
    np.testing.assert_array_equal(layer.b.value, value)


def test_a_layer_of_ones_own(x):
    """What someone who writes a layer does first."""

    class Scale:
        def __init__(self, n):
            self.s = Parameter(np.linspace(1, 2, n))

        def forward(self, x):
            return x * self.s.value, x

        def backward(self, dy, x):
            self.s.grad += (dy * x).sum(axis=0)
            return dy * self.s.value

        def named_parameters(self):
            yield "s", self.s

    report = check(Scale(5), x)
    assert {c.name.split("[")[0].split(",")[0] for c in report.checks} == {"x", "s"}
    check(Sequential([Scale(5), Linear(5, 2, dtype="float64"), Scale(2)]), (x,))


# ----------------------------------------------------------------------------------------- models


def big_model(rng, activation="tanh"):
    model = VAE(40, (30,), 5, activation=activation, dtype="float64", rng=rng)
    x, eps = rng.integers(0, 2, (6, 40)).astype(float), rng.standard_normal((6, 5))
    return model, x, eps


class Tampered(VAE):
    """A VAE whose gradient is changed after it was found."""

    def loss_and_grad(self, x, eps=None):
        terms = super().loss_and_grad(x, eps)
        self.tamper(self.params)
        return terms


@pytest.mark.parametrize("name", big_model(np.random.default_rng(0))[0].params.names)
def test_one_block_wrong_by_half_in_a_big_model(rng, name):
    model, x, eps = big_model(rng)
    model.__class__ = Tampered
    model.tamper = lambda params: params[name].grad.__imul__(1.5)
    with pytest.raises(GradientError, match=f"of {name} is wrong(.*\n)*.* 1.5 times") as caught:
        check_model(model, x, eps)
    assert "Also wrong" not in str(caught.value)


def test_one_wrong_bias_in_a_big_model(rng):
    model, x, eps = big_model(rng)
    model.__class__ = Tampered
    model.tamper = lambda params: params["encoder.0.b"].grad[7:8].__imul__(1.5)
    with pytest.raises(GradientError, match=r"for encoder.0.b\[7\] backward gives"):
        check_model(model, x, eps)


def test_an_error_in_the_middle_is_named_where_backward_meets_it_first(rng):
    model, x, eps = big_model(rng)
    model.encoder.layers[2].__class__ = Wrong
    model.encoder.layers[2].fault = "drops dx"
    with pytest.raises(GradientError, match=r"of encoder.0.b is wrong") as caught:
        check_model(model, x, eps)
    assert "Also wrong: encoder.0.W." in str(caught.value)


def test_a_model_that_does_not_clear_its_gradient(rng):
    model, x, eps = big_model(rng)

    class Keeps(VAE):
        def loss_and_grad(self, x, eps=None):
            before = self.params.grad.copy()
            terms = super().loss_and_grad(x, eps)
            self.params.grad += before
            return terms

    model.__class__ = Keeps
    with pytest.raises(GradientError, match=r"depends on what params.grad held before"):
        check_model(model, x, eps)


def test_where_both_are_zero_the_advice_is_of_use(rng):
    """The bias in front of a normalisation has no effect; no other numbers could tell more."""
    own = {"rng": rng, "dtype": "float64"}

    class Centre:
        def forward(self, x):
            return x - x.mean(axis=0), None

        def backward(self, dy, cache):
            return dy - dy.mean(axis=0)

    stack = Sequential([Linear(6, 3, **own), Centre(), Activation("tanh")])
    with pytest.raises(GradientError) as error:
        check(stack, [rng.standard_normal((20, 6))], rng=rng)
    head, advice = str(error.value).splitlines()
    assert "cannot tell whether the gradient of 0.b is right: " in head
    assert advice.startswith("Both are 0 as far as rounding shows. If 0.b[")
    assert "has no effect on the result, as a bias has none where the mean is subtracted" in advice


class Broken(VAE):
    def nll_backward(self, dnll, cache):
        if dnll.any():  # its shapes are tried with zeros
            raise RuntimeError("an error of my own")
        return super().nll_backward(dnll, cache)


def test_what_a_models_own_backward_raises_is_seen(rng):
    model, x, eps = big_model(rng)
    model.loss_and_grad(x, eps)  # whose gradient is left
    model.__class__ = Broken
    with pytest.raises(RuntimeError, match=r"^an error of my own$"):
        check_model(model, x, eps)
    model.params.grad  # noqa: B018  # can be read: nothing is left behind


def test_a_model_that_ignores_the_noise_it_is_given(rng):
    model, x, eps = big_model(rng)

    class Deaf(VAE):
        def loss_and_grad(self, x, eps=None):
            return super().loss_and_grad(x)

    model.__class__ = Deaf
    with pytest.raises(GradientError, match="noise must come in as an argument"):
        check_model(model, x, eps)


def test_a_sum_over_the_batch_instead_of_its_mean(rng):
    model, x, eps = big_model(rng)
    model.__class__ = Tampered
    model.tamper = lambda params: params.grad.__imul__(len(x))
    with pytest.raises(GradientError, match="6 times the right one in every coordinate"):
        check_model(model, x, eps)


def test_a_relu_model_at_its_kinks(rng):
    """Near them it is as right as anywhere; at them nobody can tell."""
    model, x, eps = big_model(rng, "relu")
    bias = model.encoder.layers[0].b.value
    bias -= model.encoder.layers[0].forward(x)[0][0] - 1e-3  # example 0 stands near every kink
    assert check_model(model, x, eps).ok
    bias -= model.encoder.layers[0].forward(x)[0][0]
    with pytest.raises(GradientError, match="has a kink or a jump at") as caught:
        check_model(model, x, eps)
    assert caught.value.report.verdict == "cannot tell"


class Noisy(VAE):
    """A model of two samples per example, or of no noise at all."""

    def draw_eps(self, n, rng):
        return None if self.samples is None else rng.standard_normal((self.samples, n, 5))

    def loss_and_grad(self, x, eps=None):
        assert (eps is None) == (self.samples is None)
        return super().loss_and_grad(x, np.zeros((len(x), 5)) if eps is None else eps.mean(axis=0))


@pytest.mark.parametrize("samples", [None, 2])
def test_a_model_draws_its_own_noise(rng, samples):
    model, x, _ = big_model(rng)
    model.__class__, model.samples = Noisy, samples
    assert check_model(model, x).ok


# -------------------------------------------------------------------- leaving things as they were


def test_nothing_is_left_changed_even_by_a_failure(rng):
    for broken in (False, True):
        model, x, eps = big_model(rng)
        model.params.grad[...] = rng.standard_normal(model.params.grad.shape)
        if broken:
            model.__class__ = Tampered
            model.tamper = lambda params: params.grad.__imul__(2)
        kept = [a.copy() for a in (model.params.value, model.params.grad, x, eps)]
        try:
            check_model(model, x, eps)
            assert not broken
        except GradientError:
            assert broken
        for a, before in zip((model.params.value, model.params.grad, x, eps), kept, strict=True):
            np.testing.assert_array_equal(a, before)


def test_an_exception_half_way_leaves_the_parameters_restored(rng):
    layer, calls = Linear(3, 2, dtype="float64"), iter(range(99))
    value, forward = layer.W.value.copy(), layer.forward

    def fails_later(x):
        if next(calls) == 8:
            raise KeyboardInterrupt
        return forward(x)

    layer.forward = fails_later
    with pytest.raises(KeyboardInterrupt):
        check(layer, rng.standard_normal((1, 1)) @ np.ones((1, 3)))
    np.testing.assert_array_equal(layer.W.value, value)


def test_read_only_arguments_and_strided_ones(rng):
    x = rng.standard_normal((8, 6))[::2, ::-1]
    x.flags.writeable = False
    assert check(cube, (x,)).ok
    assert check(gaussian_nll, (x, np.broadcast_to(x[:1], x.shape), np.array(0.3))).ok


@given(seed=draws.seeds)
@settings(max_examples=10, deadline=None, print_blob=True)
def test_the_seed_of_a_report_repeats_it(seed):
    x = np.random.default_rng(seed).standard_normal((10, 9))
    first = check(cube, (x,), rng=np.random.default_rng(seed))
    assert check(cube, (x,), rng=first.seed) == first
    assert check(cube, (x,)).seed != check(cube, (x,)).seed


def test_a_message_names_its_seed(x):
    def twice(dy, c):
        return 6 * c**2 * dy

    error = finds(cube, twice, (x,), match="seed")
    assert f"seed {error.report.seed})" in str(error)
    again = finds(cube, twice, (x,), match="seed", rng=error.report.seed)
    assert str(again) == str(error)


# -------------------------------------------------------------------------- the relative error


def test_an_accidental_cancellation_is_no_error():
    """<g, v> is near 0 for some v although g is not: |<g, v>| alone would be a wrong divisor."""
    f, f_backward = lambda x: (x @ x, x), lambda dy, x: 2 * dy * x
    report = check(f, f_backward, (np.ones(200),), directions=2000)
    naive = [abs(c.analytic - c.numerical) / abs(c.analytic) for c in report.checks]
    assert max(naive) > 10 * report.error
    assert report.error < 1e-10


def test_two_zeros_have_error_zero(x):
    report = check(lambda x: (np.zeros(3), x), lambda dy, x: 0 * x, (x,))
    assert report.error == 0


@given(rng=draws.generators(), size=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=30, deadline=None, print_blob=True)
def test_the_error_is_small_when_right_and_large_when_wrong(rng, size):
    x = size * rng.uniform(0.5, 1, (3, 10))
    right = check(lambda x: (x**2, x), lambda dy, x: 2 * dy * x, (x,), rng=rng)
    assert right.error < 1e-8
    with pytest.raises(GradientError) as caught:
        check(lambda x: (x**2, x), lambda dy, x: 2.002 * dy * x, (x,), rng=rng)
    assert 5e-4 < caught.value.report.error < 2e-3


# -------------------------------------------------------------------------------- what is refused


def test_which_arguments_have_a_gradient(rng):
    mu, logvar, eps = rng.standard_normal((3, 4, 2))
    noise = check(reparameterize, (mu, logvar, eps))  # eps is noise, by its name
    assert {c.name[:2] for c in noise.checks} == {"mu", "lo"}
    last = check(bernoulli_nll, (np.ones((4, 2), dtype=int), logvar))  # the data has none
    assert {c.name[:6] for c in last.checks} == {"logits"}
    check(product, lambda dy, c: dy * c[1], (mu, logvar), wrt=(0,))
    report = check(product, lambda dy, c: dy * c[1], (mu, logvar))  # each choice is tried
    assert {c.name[:2] for c in report.checks} == {"x["}
    finds(product, lambda dy, c: dy * c[1], (mu, logvar), wrt=(1,), match="of y is wrong")
    error = finds(product, lambda dy, c: 2 * dy * c[1], (mu, logvar), match="of x is wrong")
    assert "This takes the gradients to be those of x: wrt= says which." in str(error)
    finds(product, lambda dy, c: dy @ c[1].T, (mu, logvar), match="wrt= says which arguments")
    with pytest.raises(InputError, match="returns 1 gradients for 2 arguments"):
        check(product, lambda dy, c: dy, (mu, logvar), wrt=(0, 1))


def cross_entropy(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(labels)), labels]), (p, labels)


def cross_entropy_backward(dy, cache):
    p, labels = cache
    return dy[:, None] * (p - np.eye(p.shape[1])[labels])


def test_what_is_no_float64_array_has_no_gradient(rng):
    logits, labels = rng.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    for rest in (labels, list(labels)):
        report = check(cross_entropy, cross_entropy_backward, (logits, rest), rng=rng)
        assert {c.name[:6] for c in report.checks} == {"logits"}
    masked = (lambda x, mask: (np.exp(x + mask), np.exp(x + mask)), lambda dy, y: dy * y)
    mask = np.where(np.tri(4, 3) > 0, 0, -np.inf)
    for dtype in (np.float64, np.float32):
        assert check(*masked, (logits, mask.astype(dtype)), rng=rng).ok
    both = (lambda x, n: (x**n, (x, n)), lambda dy, c: (dy * c[1] * c[0] ** (c[1] - 1), 0))
    assert check(*both, (logits, 3), rng=rng).ok


def test_keyword_arguments(rng):
    def loss(pred, *, target):
        return ((pred - target) ** 2).mean(), pred - target

    def backward(dy, d):
        return {"target": -2 * dy * d / d.size, "pred": 2 * dy * d / d.size}

    args = {"pred": rng.standard_normal((3, 2)), "target": rng.standard_normal((3, 2))}
    assert {c.name[0] for c in check(loss, backward, args).checks} == {"p", "t"}
    finds(loss, lambda dy, d: {"pred": dy * d / d.size}, args, match="of pred is wrong")


def test_assert_gradient(rng):
    x = rng.standard_normal((4, 5))
    assert_gradient(cube, [x], rng=rng)
    assert_gradient(cube, cube_backward, {"x": x})
    model, data, eps = big_model(rng)
    assert_gradient(model, data, eps)
    with pytest.raises(AssertionError, match="Its sign is wrong"):
        assert_gradient(cube, lambda dy, x: -cube_backward(dy, x), [x])
    pair = (lambda x, b: (x + b, None), lambda dy, _: (dy, None), [x, x])
    with pytest.raises(AssertionError, match="b was not checked: backward gives no gradient of it"):
        assert_gradient(*pair)
    assert_gradient(pair[0], lambda dy, _: dy, pair[2], wrt=["x"])


class Foreign:
    """An array of another library, which offers its numbers through DLPack."""

    def __init__(self, x):
        self.x = x
        self.__dlpack_device__ = x.__dlpack_device__

    def __dlpack__(self, **how):
        return self.x.__dlpack__(**how)


def test_arrays_of_other_libraries(x):
    assert check(cube, [Foreign(x)]).ok
    assert check(lambda x: (Foreign(x**3), x), lambda dy, x: Foreign(3 * x**2 * dy), [x]).ok


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        (lambda x: np.ma.masked_array(x, x > 0), "argument x of cube is a MaskedArray"),
        (lambda x: scipy.sparse.csr_array(x), "argument x of cube is a csr_array"),
        (lambda x: x.astype(object), "argument x of cube is object"),
        (lambda x: x.astype(complex), "argument x of cube is complex128"),
    ],
)
def test_other_arrays_are_refused(x, foreign, says):
    with pytest.raises(InputError, match=says) as caught:
        check(cube, [foreign(x)])
    assert "\n" not in str(caught.value)


def test_nothing_to_compare_is_not_right():
    error = finds(cube, [np.ones((0, 3))], match="nothing to compare")
    assert error.report.verdict == "cannot tell"


@pytest.mark.parametrize(
    ("f", "args", "says"),
    [
        (cube, (np.ones(3, dtype="float32"),), "argument x of cube is float32.*float64 only"),
        (cube, (np.ones(3, dtype=int),), "argument x of cube is int64.*float64 only"),
        (cube, ("3",), "argument x of cube is a str"),
        (cube, (np.array([1.0, np.nan]),), "argument x of cube has values that are not finite"),
        (Linear(3, 2), (np.ones((1, 3)),), "parameter W of Linear is float32"),
        (product, (np.ones(3), np.ones(3)), "no product_backward beside product: hand it in"),
        (Activation("tanh"), (np.ones((1, 3), dtype="float32"),), "float32"),
    ],
)
def test_refusals(f, args, says):
    with pytest.raises(InputError, match=says) as caught:
        check(f, args)
    assert "\n" not in str(caught.value)


def test_more_refusals(x):
    with pytest.raises(InputError, match=r"expected check\(f, args\)"):
        check(cube)
    with pytest.raises(InputError, match="must be positive"):
        check(cube, (x,), step=0)
    with pytest.raises(InputError, match="wrt names 'z': expected some of x"):
        check(cube, (x,), wrt=["z"])
    with pytest.raises(InputError, match="is an array of complex128: expected real numbers"):
        check(cube, lambda dy, x: dy * x * 1j, (x,))
    with pytest.raises(InputError, match="a gradient of 'X': expected names of arguments, x"):
        check(cube, lambda dy, x: {"X": dy}, (x,))
    with pytest.raises(InputError, match="the model VAE is float32"):
        check_model(VAE(3), np.ones((2, 3)))


def test_what_small_steps_do_not_see_is_not_passed_over(rng):
    """A term in float32 stays under the smallest steps; a backward without it is not right."""

    def mixed(x):
        return 1.1 * np.float64(np.float32(x) ** 2) + np.sin(x), x

    for _ in range(30):
        x = rng.choice([0.1, 1.0, 10.0]) * rng.standard_normal((3, 4))
        with pytest.raises(GradientError) as error:
            check(mixed, lambda dy, x: dy * np.cos(x), [x], rng=int(rng.integers(2**32)))
        assert error.value.report.verdict in ("wrong", "cannot tell")


class Flatten:
    def forward(self, x):
        return x.reshape(len(x), -1), x.shape

    def backward(self, dy, shape):
        return dy.reshape(shape)


VIEWS = {
    "the argument itself": (lambda x: (x, None), lambda dy, c: dy),
    "flat": (lambda x: (x.reshape(-1), x.shape), lambda dy, shape: dy.reshape(shape)),
    "first rows": (
        lambda x: (x[:2], x.shape),
        lambda dy, s: np.vstack([dy, np.zeros((s[0] - 2, s[1]))]),
    ),
    "transposed": (lambda x: (x.T, None), lambda dy, c: dy.T),
    "contiguous": (lambda x: (np.ascontiguousarray(x), None), lambda dy, c: dy),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_result_that_is_a_view_of_the_argument(name, rng):
    """It moves with the argument, and back with it: the difference must be of what it was."""
    f, backward = VIEWS[name]
    x, seed = rng.standard_normal((4, 3)), int(rng.integers(2**32))
    assert check(f, backward, [x], rng=seed).ok
    for wrong in (lambda dy, c: 0 * backward(dy, c), lambda dy, c: 2 * backward(dy, c)):
        with pytest.raises(GradientError) as error:
            check(f, wrong, [x], rng=seed)
        assert error.value.report.verdict == "wrong"


@pytest.mark.parametrize("layer", [Flatten(), Sequential([]), Sequential([Flatten(), Flatten()])])
def test_a_layer_that_gives_its_input_back(layer, rng):
    assert check(layer, [rng.standard_normal((4, 3))], rng=int(rng.integers(2**32))).ok


class Scaled:
    """A layer with one parameter; a subclass gets something wrong."""

    def __init__(self):
        self.w = Parameter(np.linspace(0.5, 1.5, 5))

    def forward(self, x):
        return x * self.w.value, x

    def backward(self, dy, x):
        self.w.grad += (dy * x).sum(axis=0)
        return dy * self.w.value

    def named_parameters(self):
        yield "w", self.w


class Forgetful(Scaled):
    def backward(self, dy, x):
        super().backward(dy, x)  # and the return is forgotten


def test_a_layer_that_returns_nothing_is_not_called_right(rng):
    """Its parameters' gradients are right, and that of its input is not there."""
    x = rng.standard_normal((4, 5))
    with pytest.raises(
        InputError, match="returns None where the gradient of x belongs: is its `retu"
    ):
        check(Forgetful(), [x])


@pytest.mark.parametrize("named", [lambda w: [w], lambda w: {"w": w}])
def test_parameters_without_names_are_refused_with_a_sentence(named):
    layer = Scaled()
    layer.named_parameters = lambda: named(layer.w)
    with pytest.raises(
        InputError, match=r"named_parameters of Scaled gives .*: expected pairs of a na"
    ):
        check(layer, [np.ones((4, 5))])


def test_a_parameter_that_is_an_array_is_refused_with_what_it_lacks():
    layer = Scaled()
    layer.named_parameters = lambda: [("w", layer.w.value)]
    message = r"gives an array of shape \(5,\) under the name 'w': expected a Parameter, which"
    with pytest.raises(InputError, match=message):
        check(layer, [np.ones((4, 5))])


# ------------------------------------------------------------- pairs that were made to break it


def verdict_of(*pair_and_args):
    try:
        return check(*pair_and_args).verdict
    except GradientError as error:
        return error.report.verdict


def scaled(f, derivative):
    """Return a pair that acts on every entry by itself."""
    return lambda x: (f(x), x), lambda dy, x: dy * derivative(x)


def normalize_rows(x):
    length = np.sqrt((x * x).sum(axis=1, keepdims=True))
    divisor = np.maximum(length, 1e-12)
    return x / divisor, (x, length, divisor)


def normalize_rows_backward(dy, cache):
    x, length, divisor = cache
    along = np.where(length > 1e-12, x * (dy * x).sum(axis=1, keepdims=True), 0)
    return dy / divisor - along / divisor**3


def with_entries(x, *entries):
    x.flat[: len(entries)] = entries
    return x


NARROW = {
    "a threshold": (
        *scaled(lambda x: np.where(np.abs(x) > 1e-8, x, 0), lambda x: np.abs(x) > 1e-8),
        lambda x: with_entries(x, 3e-9, 2e-8),
    ),
    "a row of zeros": (
        normalize_rows,
        normalize_rows_backward,
        lambda x: with_entries(x, *np.zeros(x.shape[1])),
    ),
    "a saturation": (
        *scaled(lambda x: x / (np.abs(x) + 1e-8), lambda x: 1e-8 / (np.abs(x) + 1e-8) ** 2),
        lambda x: with_entries(x, 0, 1e-8),
    ),
    "a wave": (*scaled(lambda x: x + np.sin(x), lambda x: 1 + np.cos(x)), lambda x: 1e6 + x),
    "a wave of many periods in every step": (
        *scaled(np.sin, np.cos),
        lambda x: 1e11 + x,
    ),
    "a kink at 0": (
        *scaled(lambda x: np.maximum(x, 0) - x / 2, lambda x: (x > 0) - 0.5),
        lambda x: with_entries(x, 0, 1e-9),
    ),
}


@pytest.mark.parametrize("case", NARROW)
def test_what_is_narrower_than_the_steps_is_not_accused(case, rng):
    f, backward, change = NARROW[case]
    assert verdict_of(f, backward, [change(rng.standard_normal((3, 4)))]) != "wrong"


@pytest.mark.parametrize(
    ("pair", "x"),
    [
        (scaled(np.log, lambda x: 1 / x), [1e12, 1.0, 2e12, 3.0]),
        (scaled(np.log, lambda x: 1 / x), [1e-6, 1.0, 2.0, 0.5]),  # a first step leaves its domain
        (scaled(np.arccosh, lambda x: (x * x - 1) ** -0.5), [1.00001, 1.5, 2.0]),
        (scaled(np.tanh, lambda x: np.cosh(x) ** -2), [1e-9, 1.0, 5.0, 3.0]),
    ],
)
def test_entries_of_very_different_sizes_are_decided(pair, x):
    wrong = np.ones(len(x))
    wrong[1] = 1.0001
    for _ in range(20):  # a direction that leaves the domain is one in six
        check(*pair, [np.array(x)])
        with pytest.raises(GradientError) as error:
            check(pair[0], lambda dy, x: pair[1](dy, x) * wrong, [np.array(x)])
        assert error.value.report.verdict == "wrong"


def test_at_a_kink_what_lies_beyond_both_slopes_is_wrong():
    relu = scaled(lambda x: np.maximum(x, 0), lambda x: 2.0 * np.ones(x.shape))
    for _ in range(20):
        assert verdict_of(*relu, [np.zeros(2)]) == "wrong"


def test_a_small_entry_among_many_large_ones(rng):
    weights = np.where(np.arange(65) < 3, 1e4, 1.0)
    off = np.where(np.arange(65) == 40, 1.01, 1.0)
    x = rng.standard_normal(65)
    with pytest.raises(GradientError) as error:
        check(lambda x: ((weights * np.sin(x)).sum(), x),
              lambda dy, x: dy * weights * np.cos(x) * off, [x])  # fmt: skip
    assert error.value.report.verdict == "wrong"


def test_an_error_a_little_above_the_tolerance_is_found(rng):
    with pytest.raises(GradientError) as error:
        check(*scaled(np.tanh, lambda x: (1 + 1e-6) / np.cosh(x) ** 2), [rng.uniform(0.1, 1, 9)])
    assert (error.value.report.verdict, error.value.report.cause) == ("wrong", "factor")


def test_numbers_of_float32_may_be_right(rng):
    """Data in float32 make a gradient with its digits, and a right one; a rounded one is not."""
    data = rng.standard_normal((3, 4)).astype("float32").astype("float64")

    def times(w, data):
        return w * data, (w, data)

    w = rng.standard_normal((3, 4))
    check(times, lambda dy, c: (dy * c[1], dy * c[0]), [w, data])
    check(lambda w: ((w * data).sum(), None), lambda dy, _: dy * data, [w])
    with pytest.raises(GradientError, match="one of float32"):
        check(*scaled(np.tanh, lambda x: np.float64(np.float32(np.cosh(x) ** -2))), [w])


@pytest.mark.parametrize("entry", [np.nan, 1.3])
def test_one_wrong_entry_gets_no_invented_cause(entry, rng):
    off = np.ones((3, 40))
    off[1, 7] = entry
    with pytest.raises(GradientError) as error:
        check(*scaled(np.tanh, lambda x: off / np.cosh(x) ** 2), [rng.standard_normal((3, 40))])
    assert error.value.report.cause == "some coordinates"
    off = np.ones(4000)
    off[1234] = entry
    with pytest.raises(GradientError) as error:  # of so many only some are looked at
        check(*scaled(np.tanh, lambda x: off / np.cosh(x) ** 2), [rng.standard_normal(4000)])
    assert error.value.report.cause in ("some coordinates", "")


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 5), (12,), ()])
def test_a_gradient_of_any_other_shape_is_a_sentence(shape, x):
    with pytest.raises(GradientError, match=r"has shape .*: expected \(4, 5\)"):
        check(cube, lambda dy, x: np.ones(shape), [x])
    with pytest.raises(GradientError, match=r"has shape .*: expected \(5,\)"):
        check(lambda b: (x + b, None), lambda dy, _: np.ones((*shape, 2)), [np.ones(5)])


# ---------------------------------------------------------- which arguments the gradients are of


def mse(pred, target):
    return np.mean((pred - target) ** 2), (pred, target)


def mse_backward(dy, cache):
    pred, target = cache
    return dy * 2 * (pred - target) / pred.size


def test_a_target_is_not_taken_for_the_argument(rng):
    """Its gradient is minus that of the prediction, which a wrong sign would fit."""
    args = [rng.standard_normal((4, 3)), rng.standard_normal((4, 3))]
    report = check(mse, mse_backward, args)
    assert report.note == "Taken as the gradients of pred: wrt= says which."
    assert str(report).endswith(report.note)
    with pytest.raises(GradientError, match=r"of pred is wrong(.|\n)*those of pred: wrt= says"):
        check(mse, lambda dy, c: -mse_backward(dy, c), args)
    assert check(mse, lambda dy, c: -mse_backward(dy, c), args, wrt=["target"]).note == ""
    with pytest.raises(GradientError):
        check(mse, lambda dy, c: -mse_backward(dy, c), args, wrt=["pred"])


def test_of_two_that_fit_as_badly_the_nearer_is_named(rng):
    """Times 0.65 for the prediction is times -0.65 for what it is to be."""
    pred, t = rng.standard_normal((2, 2, 2))
    for f in (lambda pred, t: mse(pred, t)), (lambda t, pred: mse(pred, t)):
        args = [pred, t] if f(pred, t)[1][0] is pred else [t, pred]
        error = finds(f, lambda dy, c: 0.65 * mse_backward(dy, c), args, match="of pred is wrong")
        assert "It is 0.65 times the right one" in str(error)


def normed(x, gain, bias, mean, var):
    """Normalize by statistics from training."""
    z = (x - mean) / np.sqrt(var)
    return gain * z + bias, (z, gain / np.sqrt(var))


def normed_backward(dy, cache):
    z, scale = cache
    return dy * scale, (dy * z).sum(axis=0), dy.sum(axis=0)


@pytest.mark.parametrize(("part", "limit"), [(0, 1900), (1, 1400)])
def test_of_the_arguments_that_fit_in_shape_the_fewest_are_called_wrong(rng, part, limit):
    calls = []
    args = [*rng.standard_normal((1, 3, 2)), *rng.standard_normal((3, 2)), rng.uniform(1, 2, 2)]

    def forward(*args):
        calls.append(1)
        return normed(*args)

    forward.__signature__ = inspect.signature(normed)

    def wrong(dy, cache):
        return [-g if i == part else g for i, g in enumerate(normed_backward(dy, cache))]

    name, right = (("x", "gain, bias"), ("gain", "x, bias"))[part]
    error = finds(forward, wrong, args, match=f"of {name} is wrong")
    assert error.report.cause == "sign"
    assert f"Right: {right}.\nThis takes the gradients to be those of x, gain, bias:" in str(error)
    assert len(calls) < limit  # each gradient beside each argument once, not once for each choice
    assert check(normed, normed_backward, args).ok


def test_every_choice_of_arguments_is_tried(rng):
    """Of six arrays of one shape two have a gradient, the first two: the last of 15 choices."""

    def combine(a, b, c, d, e, f):
        return a**2 * b + c * d - e / f, (a, b)

    args = list(rng.uniform(1, 2, (6, 3)))
    report = check(combine, lambda dy, c: (2 * dy * c[0] * c[1], dy * c[0] ** 2), args)
    assert report.note == "Taken as the gradients of a, b: wrt= says which."


def test_what_was_not_checked_is_said(x):
    def add(x, b, empty):
        return x + b, None

    report = check(add, lambda dy, _: (dy, None, np.ones((0, 3))), [x, 2 * x, np.ones((0, 3))])
    assert report.unchecked.keys() == {"b", "empty"}
    assert str(report).endswith(" Not checked: b, empty.")
    assert not check(add, lambda dy, _: dy, [x, 2 * x, np.ones((0, 3))], wrt=["x"]).unchecked
    assert check(
        add, lambda dy, _: (dy, None), {"x": x, "b": 2 * x, "empty": 0}, wrt=[0, 1]
    ).unchecked


def test_plain_numbers_and_foreign_bytes(x):
    assert check(cube, [3.0]).ok
    assert check(lambda a, b: (a * b, (a, b)), lambda dy, c: (dy * c[1], dy * c[0]), [3.0, 2.0]).ok
    assert check(cube, [x.astype(">f8")]).ok


def stretched(x, s, n=1):
    assert type(s) is float  # as the user gives it
    return x * s * n, (x, s, n)


def stretched_backward(dy, cache):
    x, s, n = cache
    return dy * s * n, float((dy * x).sum() * n)


def test_a_float_beside_an_array_is_checked(x):
    for args in [x, 2.0], {"x": x, "s": 2.0}, [x, 2.0, 3]:
        report = check(stretched, stretched_backward, args)
        assert len(report.checks) == x.size + 1
        finds(stretched, lambda dy, c: (dy * c[1] * c[2], -17.0), args, match="of s is wrong")
    assert len(check(stretched, stretched_backward, [x, 2.0], wrt=["x", "s"]).checks) == x.size + 1
    report = check(stretched, lambda dy, c: dy * c[1], [x, 2.0])  # which may be an option
    assert (len(report.checks), report.unchecked) == (x.size, {})


@pytest.mark.parametrize("kind", [list, np.ma.array, lambda a: a.astype(int)])
def test_a_gradient_of_what_is_no_array_of_float64_is_said_not_to_be_checked(x, kind):
    w = kind(np.ones(5))
    pair = lambda x, w: (x * np.asarray(w), (x, np.asarray(w))), lambda dy, c: (dy * c[1], 99 * dy)
    report = check(*pair, [x, w])
    name = getattr(w, "dtype", "list")
    why = f"it is of type {name}: a gradient belongs to an array of float64 or to a float"
    assert report.unchecked == {"w": why}
    zero = check(pair[0], lambda dy, c: (dy * c[1], np.zeros(5)), [x, w])
    assert zero.unchecked == {}


def test_wrt_may_name_some_of_all_arguments(x):
    """As where backward returns None for those that have no gradient."""
    square = (lambda x, t: ((x - t) ** 2, x - t), lambda dy, d: (2 * dy * d, None))
    wrong = (square[0], lambda dy, d: (2 * dy * d, 7 * dy))
    for wrt in ["x"], [0]:
        assert_gradient(*square, [x, x / 2], wrt=wrt)
        assert_gradient(*wrong, [x, x / 2], wrt=wrt)
    finds(*wrong, [x, x / 2], match="of t is wrong", wrt=["t"])
    with pytest.raises(GradientError, match="t was not checked: wrt names it, and backward return"):
        assert_gradient(*square, [x, x / 2], wrt=["x", "t"])
    with pytest.raises(InputError, match=r"^wrt names t, and square's backward returns None in"):
        check(*square, [x, x / 2], wrt=["t"], name="square")
    assert check(*square, [x, x / 2], wrt="x").ok


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("step", [1.0, 1e-4, 1e-7, 1e-8, 1e-12])
def test_any_first_step_serves(x, step):
    """Smaller ones end where x + h is x; those near 1e-12 know no slope to many digits."""
    pair = lambda x: (np.sin(30 * x) / 30, x), lambda dy, x: dy * np.cos(30 * x)
    if step > 1e-11:
        assert check(*pair, [x], step=step).ok
        finds(pair[0], lambda dy, x: 1.001 * pair[1](dy, x), [x], step=step, match="of x is wrong")
    else:
        with pytest.raises(GradientError) as error:
            check(*pair, [x], step=step)
        assert error.value.report.verdict == "cannot tell"


@pytest.mark.parametrize("step", [9e-13, 1e-300])
def test_a_first_step_that_does_not_move_x_is_refused(x, step):
    with pytest.raises(InputError) as error:
        check(cube, [x], step=step)
    assert str(error.value) == (
        f"step is {step:g}: expected at least 1e-12, a few digits above rounding"
    )


def test_an_error_survives_pickling(x):
    with pytest.raises(GradientError) as caught:
        check(cube, lambda dy, x: dy, [x])
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.report == caught.value.report


class Norm:
    """Divides by the norm, and keeps it where the next forward changes it."""

    def forward(self, x):
        self.norm = np.sqrt((x * x).sum())
        return x / self.norm, x

    def backward(self, dy, x):
        return dy / self.norm - x * (dy * x).sum() / self.norm**3


def test_a_norm_kept_from_the_last_forward_is_found(x):
    """No flip of the argument changes it."""
    with pytest.raises(GradientError) as error:
        check(Norm(), [x])
    assert error.value.report.cause == "hidden state"


def test_the_same_seed_for_the_argument_does_not_hide_an_error():
    """The gradient of a row over its length is 0 for dy = x."""

    def unit(x):
        length = np.sqrt((x * x).sum(axis=1, keepdims=True))
        return x / length, length

    x = np.random.default_rng(7).standard_normal((4, 5))
    with pytest.raises(GradientError) as error:
        check(unit, lambda dy, length: dy / length, [x], rng=7)
    assert error.value.report.cause == "missing term"


class Row:
    """A layer with slots, a parameter without a name, a buffer and a constant."""

    __slots__ = ("cache", "w")
    shift = np.ones(5)
    shift.flags.writeable = False

    def __init__(self):
        self.w, self.cache = Parameter(np.linspace(1, 2, 5)), np.ones(3)

    def multiply(self, x):
        self.cache = x.copy()
        return x * self.w.value + self.shift, x

    def backward(self, dy, x):
        return dy * self.w.value


def test_what_forward_reads_and_nobody_names_is_said(x):
    row = Row()
    kept = row.w.value.copy()
    assert check(row.multiply, row.backward, [x]).unchecked.keys() == {"w"}
    np.testing.assert_array_equal(row.w.value, kept)


def test_the_parameters_of_methods_are_checked(x):
    layer = Linear(5, 3, dtype="float64", rng=0)
    report = check(layer.forward, layer.backward, [x])
    assert {c.name[0] for c in report.checks} == {"x", "W", "b"}
    assert report.unchecked == {}


def test_a_forward_that_converges_at_its_arguments_alone(monkeypatch):
    monkeypatch.setattr("scratchvae.gradcheck.slopes.PATIENCE", 0.3)

    def forward(x):
        while abs(x[0] - 1) > 1e-14:
            pass
        return x**2, x

    def backward(dy, x):
        return 2 * dy * x

    with pytest.raises(GradientError, match="not in time when they move") as error:
        check(forward, backward, [np.ones(3)])
    assert (error.value.report.verdict, error.value.report.cause) == ("cannot tell", "time")


TIME = 1.7e9  # seconds since 1970, in November 2023


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (
            lambda t: (1 / np.diff(t), t),
            lambda d, t: np.pad(d / np.diff(t) ** 2, (0, 1)) - np.pad(d / np.diff(t) ** 2, (1, 0)),
        ),
        (
            lambda t: (np.exp(-((t - TIME) ** 2)), t),
            lambda d, t: -2 * d * (t - TIME) * np.exp(-((t - TIME) ** 2)),
        ),
    ],
    ids=["reciprocal of differences", "peak"],
)
def test_details_far_smaller_than_the_argument_are_not_accused(forward, backward, rng):
    """All steps leap over them, and y comes back to where it was."""
    found = []
    for _ in range(10):
        t = TIME + np.cumsum(rng.uniform(0.5, 2, 8)) - 4
        try:
            found.append(check(forward, backward, [t], rng=rng).verdict)
        except GradientError as error:
            found.append(error.report.verdict)
    assert "wrong" not in found


C = 299792458.0  # the speed of light
CANCELLING = {  # forward and backward, and the smallest scale of x at which they are tried
    "1 - cos": (lambda x: (1 - np.cos(x), x), lambda dy, x: dy * np.sin(x), -20),
    "pseudo-Huber": (
        lambda x: ((np.sqrt(1 + x * x) - 1).mean(), x),
        lambda dy, x: dy * x / np.sqrt(1 + x * x) / x.size,
        -20,
    ),
    "log(1 + x^2)": (lambda x: (np.log(1 + x * x), x), lambda dy, x: dy * 2 * x / (1 + x * x), -20),
    "log cosh": (lambda x: (np.log(np.cosh(x)), x), lambda dy, x: dy * np.tanh(x), -20),
    "pendulum": (
        lambda x: ((9.81 * 0.3 * (1 - np.cos(x))).sum(), x),
        lambda dy, x: dy * 9.81 * 0.3 * np.sin(x),
        -20,
    ),
    "in a large unit": (
        lambda x: (1e12 * (1 - np.cos(x)), x),
        lambda dy, x: dy * 1e12 * np.sin(x),
        -20,
    ),
    "kinetic energy": (
        lambda v: (C * C * (1 / np.sqrt(1 - (3e8 * v / C) ** 2) - 1), v),
        lambda dy, v: dy * 3e8**2 * v / (1 - (3e8 * v / C) ** 2) ** 1.5,
        -12,
    ),
    "log(1 - p)": (
        lambda x: (-np.log(1 - abs(x)), x),
        lambda dy, x: dy / (1 - abs(x)) * np.sign(x),
        -20,
    ),
    "seconds of a date": (lambda x: ((1.7e9 + x) - 1.7e9, x), lambda dy, x: dy + 0 * x, -20),
    "KL of a logvar": (
        lambda x: ((0.5 * (np.exp(x) - 1 - x)).sum(), x),
        lambda dy, x: dy * 0.5 * np.expm1(x),
        -12,
    ),
}


@pytest.mark.parametrize("name", CANCELLING)
def test_what_cancels_in_forward_accuses_nobody(name, rng):
    """Of y only last digits of larger numbers are left, or 0, and those have no rounding of y's."""
    forward, backward, smallest = CANCELLING[name]
    for _ in range(8):
        x = rng.standard_normal(4) * 10.0 ** rng.uniform(smallest, -1)
        found = []
        for gradient in backward, lambda dy, x: 0 * dy * x:
            try:
                found.append(check(forward, gradient, [x], rng=rng).verdict)
            except GradientError as error:
                found.append(error.report.verdict)
        assert found[0] != "wrong", x
        assert found[1] != "right", x


def test_small_steps_between_two_leaps_do_not_decide_alone(rng):
    """exp(l) - 1 stands still there, so that they find the slope of -l alone, in one of three."""
    found = set()
    for _ in range(40):
        try:
            check(
                lambda v: (0.5 * (np.exp(v) - 1 - v), v),
                lambda dy, v: dy * 0.5 * np.expm1(v),
                [1e-10 * rng.normal(size=4)],
                rng=rng,
            )
        except GradientError as error:
            found.add(error.report.verdict)
    assert found == {"cannot tell"}


@pytest.mark.parametrize("right", [True, False])
def test_what_cancels_is_said_with_what_to_do(right, rng):
    forward, backward, _ = CANCELLING["1 - cos"]
    x = np.array([1e-8, -3e-9])
    with pytest.raises(GradientError) as caught:
        check(forward, backward if right else lambda dy, x: 0 * dy * x, [x], rng=rng)
    report = caught.value.report
    assert (report.verdict, report.cause) == ("cannot tell", "cancels")
    assert report.message.endswith(
        "The forward pass moves by last digits near x[0] = 1e-08, x[1] = -3e-09: of larger "
        "numbers, which cancel as in 1 - cos(x) or in (t + x) - t where x is small, or of a part "
        "in float32, or of an iteration that ends early. Write it so that nothing cancels, such as "
        "log1p(x) for log(1 + x), compute all in float64, or take larger arguments."
    )


def test_a_gradient_that_is_far_too_large_is_wrong_where_forward_cancels(rng):
    """Steps that stand still tell how steep it may be at the most."""
    forward, _, _ = CANCELLING["1 - cos"]
    with pytest.raises(GradientError) as caught:
        check(forward, lambda dy, x: dy + 0 * x, [np.array([1e-6, -3e-7])], rng=rng)
    assert caught.value.report.verdict == "wrong"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("x", [[-1.5732571], [0.3], [0.3, -1.5732571, 1.2]])
def test_a_rounded_result_decides_nothing_where_small_steps_do_not_move_it(x, sign, rng):
    """At -1.57 the sine has its minimum: no step finds a slope there, the small ones no change."""
    backward = lambda dy, x: sign * dy * np.cos(x)  # noqa: E731
    with pytest.raises(GradientError, match="moves by leaps near x") as caught:
        check(lambda x: (np.round(np.sin(x), 4), x), backward, [np.array(x)], rng=rng)
    assert (caught.value.report.verdict, caught.value.report.cause) == ("cannot tell", "leaps")


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: (np.sign(x) * np.maximum(abs(x) - 0.5, 0), x),
        lambda x: (np.where(x > 0.5, x, 0), x),
        lambda x: (np.where(x < 0.5, 0, np.nan), x),
        lambda x: (np.minimum(x, -1), x),
        lambda x: (np.round(x), x),
    ],
    ids=["soft threshold", "a leap, then a slope", "a domain left", "a far kink", "whole numbers"],
)
def test_where_the_result_stands_still_for_another_reason_a_slope_is_wrong(forward, rng):
    with pytest.raises(GradientError) as caught:
        check(forward, lambda dy, x: dy * np.ones_like(x), [np.array([0.4])], rng=rng)
    assert caught.value.report.verdict == "wrong"


@pytest.mark.parametrize("factor", [-1, 2])
def test_a_small_column_does_not_hide_behind_a_less_small_one(factor, rng):
    """Beside a column of 1e10 both are small."""
    scale = np.array([1e10, 1e-1, 1e-9])
    with pytest.raises(GradientError) as caught:
        check(
            lambda x: (x * scale, x),
            lambda d, x: d * scale * [1, 1, factor],
            [rng.standard_normal((30, 3))],
            rng=rng,
        )
    assert caught.value.report.verdict == "wrong"


@pytest.mark.parametrize("what", [VAE, Linear(2, 3, dtype="float64"), None])
def test_what_is_no_model_is_not_checked_as_one(what):
    with pytest.raises(InputError) as error:
        check_model(what, np.ones((3, 2)))
    assert str(error.value) == (
        f"model is {what!r}: expected one such as sv.VAE(784, dtype='float64'); a layer or a "
        "function is checked with check"
    )


def test_a_models_data_may_be_a_list(rng):
    model = VAE(6, (4,), 2, activation="tanh", dtype="float64", rng=rng)
    assert check_model(model, rng.random((5, 6)).tolist()).ok


def test_a_wide_relu_network_may_be_undecided():
    """But it is not called wrong, and the advice names the cause and a way out that works."""
    x, seed = np.random.default_rng(0).random((5, 64)), 1
    model = VAE(64, (100, 100), 2, dtype="float64", rng=seed)
    with pytest.raises(GradientError) as error:
        check_model(model, x, rng=0)
    assert error.value.report.verdict == "cannot tell"
    assert "ReLU" in str(error.value)
    smooth = VAE(64, (100, 100), 2, activation="tanh", dtype="float64", rng=seed)
    assert check_model(smooth, x, rng=0).ok


def test_a_model_needs_no_more_than_is_promised(rng):
    """`loss_and_grad`, `params` and, where no noise is handed in, `draw_eps`."""
    inner = VAE(6, (4,), 2, activation="tanh", dtype="float64", rng=rng)
    bare = SimpleNamespace(
        params=inner.params, loss_and_grad=inner.loss_and_grad, draw_eps=inner.draw_eps
    )
    assert check_model(bare, rng.random((5, 6)), name="bare").ok


@pytest.mark.parametrize("factor", [-1, 0.5])
@pytest.mark.parametrize("scale", [1e160, 1e-200])
def test_slopes_whose_squares_overflow_or_vanish_are_compared_too(scale, factor, rng):
    x = rng.standard_normal(100)
    for some in (x, x[:3]):  # along directions, and along coordinates
        assert check(lambda x: (x * scale, None), lambda d, _: scale * d, [some], rng=rng).ok
        with pytest.raises(GradientError) as error:
            check(lambda x: (x * scale, None), lambda d, _: factor * scale * d, [some], rng=rng)
        assert error.value.report.verdict == "wrong"


def test_subnormal_arguments_are_checked(rng):
    """A small part of them is 0."""
    x = 5e-324 * np.array([1.0, 2.0, 3.0])
    assert check(lambda x: (x * 1e300, None), lambda d, _: 1e300 * d, [x], rng=rng).ok
    with pytest.raises(GradientError) as error:
        check(lambda x: (x * 1e300, None), lambda d, _: -1e300 * d, [x], rng=rng)
    assert error.value.report.verdict == "wrong"


def sort(x):
    return np.sort(x), np.argsort(x, kind="stable")


def sort_backward(d, order):
    return d[np.argsort(order)]


def medians(x):
    """Return the median of every three numbers."""
    middle = np.argsort(x.reshape(-1, 3), axis=1, kind="stable")[:, [1]]
    return np.take_along_axis(x.reshape(-1, 3), middle, 1)[:, 0], (x, middle)


def medians_backward(d, cache):
    x, middle = cache
    g = np.zeros((len(d), 3))
    np.put_along_axis(g, middle, d[:, None], 1)
    return g.reshape(x.shape)


@pytest.mark.parametrize(
    ("forward", "backward", "x"),
    [
        (sort, sort_backward, np.zeros(3)),
        (sort, sort_backward, np.repeat([1.0, -2.0, 3.0], [4, 1, 2])),
        (medians, medians_backward, np.ones(3)),
        (medians, medians_backward, np.array([0.0, 0, 0, 0, 0, 1, 0, 2, 3] * 3)),
        (medians, medians_backward, np.ones(90)),
    ],
    ids=["sort", "sort, two ties", "median", "medians", "along directions"],
)
def test_where_more_than_two_tie_a_limit_of_gradients_is_not_accused(forward, backward, x, rng):
    """A kink that no entry shows alone, or whose slopes from the two sides are not all of them."""
    with pytest.raises(GradientError) as error:
        check(forward, backward, [x], rng=rng)
    assert error.value.report.verdict == "cannot tell"
    assert error.value.report.cause in ("kink", "kinks")


def test_a_median_of_arguments_that_tie_names_them(rng):
    with pytest.raises(GradientError) as error:
        check(medians, medians_backward, [np.ones(3)], rng=rng)
    assert error.value.report.cause == "kink"
    assert "has a kink at x[1] = 1 that an entry moved alone does not show" in str(error.value)


@pytest.mark.parametrize("wrong", ["ReLU", "product"])
def test_a_wrong_gradient_beside_a_tie_is_still_wrong(wrong, rng):
    """So is one at the kinks of single entries, and where entries have a smooth effect together."""

    def forward(x):
        return np.concatenate([np.sort(x[:3]), np.maximum(x[3:6], 0), [x[6] * x[7]]]), x

    def backward(d, x):
        relu, product = d[3:6], d[6] * x[[7, 6]]
        return np.concatenate(
            [d[:3], 2.5 * relu if wrong == "ReLU" else relu, (1 + (wrong == "product")) * product]
        )

    with pytest.raises(GradientError) as error:
        check(forward, backward, [np.append(np.zeros(6), rng.uniform(1, 2, 2))], rng=rng)
    assert error.value.report.verdict == "wrong"
    accused = str(error.value).partition(" backward gives")[0]
    assert accused.endswith(("x[3]", "x[4]", "x[5]") if wrong == "ReLU" else ("x[6]", "x[7]"))


def test_a_gradient_of_0_at_a_kink_is_not_said_to_be_rounding(rng):
    with pytest.raises(GradientError, match=r"has a kink or a jump at x\[0\] = 0") as error:
        check(lambda x: (np.maximum(x, 0), x), lambda d, x: d * (x > 0), [np.array([0.0, 1, -1])],
              rng=rng)  # fmt: skip
    assert "as far as rounding shows" not in str(error.value)


def test_what_larger_numbers_drown_is_not_only_told_to_be_left_out(rng):
    with pytest.raises(GradientError, match="far larger numbers elsewhere drown it") as error:
        check(lambda x, w: (x**2 + 1e21 * w, x), lambda d, x: (2 * d * x, 1e21 * d),
              [rng.uniform(1, 2, 3), rng.uniform(1, 2, 3)], rng=rng)  # fmt: skip
    assert error.value.report.verdict == "cannot tell"


def test_where_all_large_steps_leap_over_a_wave_rounding_is_not_blamed(rng):
    """And the slope that is shown is that of small steps."""
    x = (2 * np.pi * rng.integers(16_000_000, 30_000_000) + rng.uniform(-1, 1, 1)) / 1e8
    forward, backward = lambda x: (np.sin(1e8 * x), x), lambda d, x: 1e8 * d * np.cos(1e8 * x)
    with pytest.raises(GradientError, match="a smaller step= decides") as error:
        check(forward, backward, [x], rng=rng)
    (c,) = error.value.report.checks
    assert abs(c.analytic - c.numerical) <= c.width
    assert check(forward, backward, [x], rng=rng, step=1e-9).ok
