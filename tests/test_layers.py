"""Linear and Sequential: the sums by index, the initialisation, the names and the messages."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from scratchvae import VAE, Activation, InputError, Linear, Sequential
from scratchvae.activations import ACTIVATIONS
from scratchvae.gradcheck import check_model
from scratchvae.layers import backward_parameters, dense, in_words


@pytest.mark.proves("linear")
def test_linear_is_the_sum_over_its_inputs(rng):
    layer = Linear(3, 2, dtype="float64")
    # Small whole numbers: every sum is exact, in whatever order it is taken.
    layer.W.value[...], layer.b.value[...] = rng.integers(-9, 9, (3, 2)), rng.integers(-9, 9, 2)
    x = rng.integers(-9, 9, (4, 3)).astype(float)
    y, _ = layer.forward(x)
    assert y.shape == (4, 2)
    for n in range(4):
        for j in range(2):
            total = layer.b.value[j]
            for i in range(3):
                total += x[n, i] * layer.W.value[i, j]
            assert y[n, j] == total


def test_gradients_of_parameters_accumulate_over_two_calls_before_backward(rng):
    layer = Linear(3, 2, dtype="float64", rng=rng)
    inputs, outputs = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 2))
    for array in (*inputs, *outputs):
        array.setflags(write=False)  # whoever writes into it raises ValueError
    alone = []
    for x, dy in zip(inputs, outputs, strict=True):
        layer.W.grad[...] = layer.b.grad[...] = 0
        layer.backward(dy, layer.forward(x)[1])
        alone.append((layer.W.grad.copy(), layer.b.grad.copy()))
    layer.W.grad[...] = layer.b.grad[...] = 0
    caches = [layer.forward(x)[1] for x in inputs]
    for dy, cache in zip(outputs, caches, strict=True):
        layer.backward(dy, cache)
    assert np.array_equal(layer.W.grad, alone[0][0] + alone[1][0])
    assert np.array_equal(layer.b.grad, alone[0][1] + alone[1][1])


@pytest.mark.parametrize("first", [0, 1])
def test_without_an_input_gradient_the_parameters_gradients_are_the_same(rng, first):
    x, dy = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    layers = [Activation("softplus")] * first
    layers += [Linear(4, 3, dtype="float64"), Activation("tanh"), Linear(3, 2, dtype="float64")]
    stack = Sequential([Sequential(layers[:2]), *layers[2:]])  # one inside another
    gradients = []
    for method in "backward", "backward_parameters":
        for _, p in stack.named_parameters():
            p.grad[...] = 0
        dx = getattr(stack, method)(dy, stack.forward(x)[1])
        gradients.append([p.grad.copy() for _, p in stack.named_parameters()])
    assert dx is None
    for a, b in zip(*gradients, strict=True):
        assert np.array_equal(a, b)


def test_the_first_layer_is_not_asked_for_dx(rng):
    class Spared(Linear):
        def backward_parameters(self, dy, cache):
            super().backward_parameters(dy, cache)

        def backward(self, dy, cache):
            raise AssertionError("nobody needs dx")

    stack = Sequential([Sequential([Spared(4, 3)]), Linear(3, 2)])
    x = rng.normal(size=(5, 4))
    y, cache = stack.forward(x)
    stack.backward_parameters(y, cache)
    assert stack.layers[0].layers[0].W.grad.any()


class Tripled(Linear):
    """An override of backward that knows nothing of backward_parameters."""

    def forward(self, x):
        y, cache = super().forward(x)
        return 3 * y, (cache, y)

    def backward(self, dy, cache):
        return super().backward(3 * dy, cache[0])


class Halved(Sequential):
    def forward(self, x):
        y, cache = super().forward(x)
        return y / 2, cache

    def backward(self, dy, cache):
        return super().backward(dy / 2, cache)


class Transposed:
    """Shares the weights of a Linear, which names them."""

    def __init__(self, linear):
        self.linear = linear

    def forward(self, x):
        return x @ self.linear.W.value.T, x

    def backward(self, dy, cache):
        self.linear.W.add_product(dy.T, cache)
        return dy @ self.linear.W.value


def first_layers(rng):
    own = {"rng": rng, "dtype": "float64"}
    last = Linear(5, 6, **own)
    decoder = Sequential([Linear(2, 5, **own), Activation("tanh"), last])
    yield Tripled(6, 4, **own), decoder
    yield Sequential([Tripled(6, 4, **own)]), decoder
    yield Halved([Linear(6, 4, **own)]), decoder
    yield Sequential([Halved([Linear(6, 5, **own)]), Linear(5, 4, **own)]), decoder
    yield Sequential([Transposed(last), Activation("tanh"), Linear(5, 4, **own)]), decoder


def test_where_dx_is_not_needed_no_backward_is_passed_over(rng):
    for encoder, decoder in first_layers(rng):
        model = VAE(6, latent_dim=2, dtype="float64", encoder=encoder, decoder=decoder)
        assert check_model(model, rng.random((3, 6)), rng=int(rng.integers(2**32))).ok, encoder


class Narrowed(Activation):
    """A tanh whose backward gives a gradient that broadcasts to the shape of dx."""

    def __init__(self, axis):
        super().__init__("tanh")
        tanh_backward = self.backward
        self.backward = lambda dy, cache: tanh_backward(dy, cache).sum(axis, keepdims=True)


@pytest.mark.parametrize(("dx", "kind"), [(None, "NoneType"), ([1.0], "list")])
def test_a_layer_whose_dx_is_no_array_is_named(rng, dx, kind):
    layer = Narrowed(0)
    layer.backward = lambda dy, cache: dx
    stack = Sequential([Linear(6, 5), layer])
    y, cache = stack.forward(rng.random((3, 6)))
    with pytest.raises(InputError) as error:
        stack.backward(y, cache)
    assert str(error.value) == (
        f"layer 1, Narrowed(), has a backward that returns a {kind}: expected dx, an array of "
        "shape (3, 5)"
    )


def test_an_address_is_left_out_of_a_name():
    """C libraries write it in lower or in upper case."""
    for address in ("0x7f00abcdef12", "0x7F00ABCDEF12"):
        layer = type("Layer", (), {"__repr__": lambda self, a=address: f"<Layer at {a}>"})()
        assert in_words(layer) == "<Layer>"


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 5)), (1, (3, 1))])
def test_a_layer_whose_dx_only_broadcasts_is_named(rng, axis, shape):
    def stack():
        layers = [Linear(6, 5), Activation("tanh"), Narrowed(axis), Linear(5, 4)]
        return Sequential([Sequential(layers), Activation("tanh")])

    sentence = (
        f"layer 2, Narrowed(), has a backward that returns an array of shape {shape}: expected "
        "dx, an array of shape (3, 5)"
    )
    y, cache = (inner := stack()).forward(rng.random((3, 6)))
    for backward in inner.backward, inner.backward_parameters:
        with pytest.raises(InputError) as error:
            backward(y, cache)
        assert str(error.value) == sentence
    with pytest.raises(InputError) as error:
        VAE(6, latent_dim=2, encoder=stack())
    assert str(error.value).endswith(f"raised InputError: {sentence}")


def test_one_layer_is_no_sequence():
    with pytest.raises(InputError) as error:
        Sequential(5)
    assert str(error.value) == "layers is 5: expected a sequence of layers, such as a list"


class Slotted:
    __slots__ = ("called",)

    def backward(self, dy, cache):
        self.called = "backward"


class Delegating:
    """Knows its methods only when it is asked for them."""

    def __init__(self):
        self.called = ""

    def __getattr__(self, name):
        if name == "backward":
            return lambda dy, cache: setattr(self, "called", name)
        raise AttributeError(name)


def test_the_method_is_looked_for_in_the_object_first_and_then_in_its_classes():
    called = []

    def note(name):
        return lambda dy, cache: called.append(name)

    both = SimpleNamespace(backward=note("backward"), backward_parameters=note("parameters"))
    overridden = Linear(3, 2)
    overridden.backward = note("backward")  # Linear's backward_parameters knows nothing of it
    for layer in both, overridden:
        backward_parameters(layer, np.ones((1, 2)), None)
    assert called == ["parameters", "backward"]
    for layer in Slotted(), Delegating():
        backward_parameters(layer, np.ones((1, 2)), None)
        assert layer.called == "backward"


def test_a_stack_without_parameters_has_nothing_to_do_without_an_input_gradient(rng):
    stack = Sequential([Activation("tanh")])
    x = rng.normal(size=(5, 4))
    assert stack.backward_parameters(x, stack.forward(x)[1]) is None


class OnlyForward:
    def forward(self, x):
        return x, None


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            OnlyForward(),
            r"layer 1 of the Sequential is OnlyForward\(\), which has no backward: a la",
        ),
        (np.tanh, "layer 1 of the Sequential is <ufunc 'tanh'>, which has no forward: a layer has"),
        (Linear, "layer 1 of the Sequential is the class Linear: expected an object of it"),
    ],
)
def test_what_is_no_layer_is_refused(layer, message):
    with pytest.raises(InputError, match=message):
        Sequential([Activation("tanh"), layer])


def test_a_stack_says_what_it_holds():
    text = repr(Sequential([Linear(2, 3), Activation("relu"), Doubling()]))
    assert text == "Sequential([Linear(2, 3), Activation('relu'), Doubling()])"


class Doubling(OnlyForward):
    def backward(self, dy, cache):
        return dy


def test_initial_parameters_are_uniform_within_one_over_root_n_in(rng):
    n_in = int(rng.integers(9, 30))  # larger than 4, where 2 / n_in is the same bound
    layer, bound = Linear(n_in, 20_000, rng=rng, dtype="float64"), 1 / np.sqrt(n_in)
    for values in (layer.W.value.ravel(), layer.b.value):
        assert np.abs(values).max() <= bound
        # False alarms: 1e-7 for each of the two.
        assert stats.kstest(values, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-7


def test_no_two_initial_parameters_are_equal(rng):
    """One seed used in every layer gives identical heads."""
    stack = Sequential([Linear(9, 9, rng=rng, dtype="float64") for _ in range(3)])
    values = np.concatenate([p.value.ravel() for _, p in stack.named_parameters()])
    # Two of 270 draws out of 2^53 numbers are equal with probability 4e-12.
    assert len(np.unique(values)) == 270


def test_one_seed_means_one_layer_in_both_dtypes():
    single, double = (Linear(5, 4, rng=3, dtype=dtype) for dtype in ("float32", "float64"))
    for a, b in ((single.W.value, double.W.value), (single.b.value, double.b.value)):
        assert a.dtype == np.float32
        assert np.array_equal(a, b.astype(np.float32))


def test_sequential_applies_its_layers_in_order_and_names_them_by_position(rng):
    first, second = Linear(4, 3, rng=rng), Linear(3, 2, rng=rng)
    stack = Sequential([first, Activation("relu"), second])
    assert [name for name, _ in stack.named_parameters()] == ["0.W", "0.b", "2.W", "2.b"]
    assert dict(stack.named_parameters())["2.W"] is second.W
    x = rng.normal(size=(5, 4)).astype("float32")
    hidden = np.maximum(first.forward(x)[0], 0)
    assert np.array_equal(stack.forward(x)[0], second.forward(hidden)[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_layer_is_its_pair_of_functions(name):
    layer = Activation(name)
    assert (layer.forward, layer.backward) == ACTIVATIONS[name]


@pytest.mark.parametrize("size", [0, -1, True, 2.5, "3"])
def test_a_size_that_is_no_positive_integer_is_named(size):
    with pytest.raises(InputError, match=f"n_in is {size!r}: expected a positive integer"):
        Linear(size, 2)
    with pytest.raises(InputError, match=f"n_out is {size!r}: expected a positive integer"):
        Linear(2, size)


def test_numpys_integers_are_sizes():
    assert Linear(np.int64(3), np.int32(2)).W.value.shape == (3, 2)


@pytest.mark.parametrize("entry", [np.tanh, (np.tanh,), [np.tanh, np.tanh]])
def test_an_activation_that_is_no_pair_is_refused(entry, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "own", entry)
    with pytest.raises(InputError) as error:
        Activation("own")
    assert str(error.value) == "ACTIVATIONS['own'] is no pair: expected (forward, backward)"


def test_an_unknown_activation_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown activation 'gelu': .* relu, .*silu"):
        Activation("gelu")


def test_a_stack_is_of_float32_unless_told_otherwise():
    assert all(p.value.dtype == np.float32 for _, p in dense([3, 2]).named_parameters())


def test_layers_that_are_no_list_are_one_sentence():
    """As PyTorch takes them, or an array in their place, which is not written out."""
    linear = Linear(2, 2)
    for given, found in ((linear, linear), "2 arguments"), ((3,), "3"):
        with pytest.raises(InputError) as error:
            Sequential(*given)
        expected = "expected a sequence of layers, such as a list"
        assert str(error.value) == f"layers is {found}: {expected}"
    with pytest.raises(InputError, match=r"^layer 0 of the Sequential is array\(.{1,30}\.\.\., "):
        Sequential([np.zeros((20, 20))])


def test_an_activation_names_no_parameters():
    assert list(Activation("tanh").named_parameters()) == []


def test_an_activation_whose_pair_was_replaced_says_so():
    activation = Activation("tanh")
    activation.forward = ACTIVATIONS["relu"][0]
    assert repr(activation) == "Activation('tanh', changed)"
