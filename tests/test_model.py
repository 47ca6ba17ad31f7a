"""What every model has besides its mathematics: parts, copies, a name and a table."""

import copy
import functools
import json
import pickle
import sys
import threading
from collections import UserList
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import standin

import scratchvae as sv
from scratchvae import held
from scratchvae.training import Trainer

OPTIONS = {"latent_dim": 2, "dtype": "float64"}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@pytest.fixture
def x(rng):
    return rng.random((4, 6))


def dense(*sizes, **options):
    return sv.layers.dense(sizes, **{"dtype": "float64", **options})


class Scale:
    """y = 2 x, which has no repr of its own."""

    def forward(self, x):
        return 2 * x, None

    def backward(self, dy, cache):
        return 2 * dy


class OnlyForward:
    def forward(self, x):
        return x, None


class WithoutCache(Scale):
    def forward(self, x):
        return x[:, :4]


# --- parts


def test_a_part_is_used_as_it_is_and_the_other_is_the_default(x):
    encoder = dense(6, 4)
    model = sv.VAE(6, encoder=encoder, **OPTIONS)
    assert model.encoder is encoder
    assert model.params["encoder.0.W"] is encoder.layers[0].W
    assert model.params["decoder.0.W"].shape == (2, 400)
    mu, logvar = model.encode(x)
    np.testing.assert_array_equal(np.hstack([mu, logvar]), encoder.forward(x)[0])


def test_the_default_stacks_are_dense_ones(rng):
    seed = int(rng.integers(2**31))
    model = sv.VAE(6, (5, 3), rng=seed, activation="silu", **OPTIONS)
    draws = np.random.default_rng(seed)
    stacks = dense(6, 5, 3, 4, activation="silu", rng=draws), dense(2, 3, 5, 6, rng=draws)
    expected = np.concatenate([p.value.ravel() for s in stacks for _, p in s.named_parameters()])
    np.testing.assert_array_equal(model.params.value, expected)
    assert repr(model.encoder) == repr(stacks[0])


def test_a_part_without_parameters_is_one_too(x):
    model = sv.Autoencoder(6, latent_dim=6, encoder=Scale(), dtype="float64")
    model.loss_and_grad(x)
    np.testing.assert_array_equal(model.encode(x), 2 * x)
    assert all(name.startswith("decoder") for name in model.params.names)


def test_a_likelihood_can_be_handed_in(x):
    class Half(sv.likelihoods.Bernoulli):
        def nll(self, x, output):
            nll, cache = super().nll(x, output)
            return nll / 2, cache

    own, plain = (sv.VAE(6, rng=0, likelihood=name, **OPTIONS) for name in (Half(6), "bernoulli"))
    eps = np.zeros((4, 2))
    expected = plain.loss_and_grad(x, eps).reconstruction / 2
    assert own.loss_and_grad(x, eps).reconstruction == pytest.approx(expected, rel=1e-14)
    assert own.config()["kind"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            lambda: {"encoder": dense(6, 4), "hidden": (3,)},
            r"hidden is \(3,\) beside a part of your own: it describes the stacks that the model",
        ),
        (
            lambda: {"decoder": dense(2, 6), "hidden": ()},
            r"hidden is \(\) beside a part of your own",
        ),
        (
            lambda: {"encoder": dense(6, 4), "decoder": dense(2, 6), "activation": "tanh"},
            "^activation is 'tanh' beside two parts .* stacks that the model builds itself, so leave it out$",  # noqa: E501
        ),
        (
            lambda: {"encoder": dense(6, 5)},
            r"the encoder turns an array of shape \(3, 6\) into one of shape \(3, 5\): expected \(3, 4\)",  # noqa: E501
        ),
        (
            lambda: {"decoder": dense(2, 5)},
            r"the decoder turns .* into one of shape \(3, 5\): .*\(3, 6\)",
        ),
        (
            lambda: {"decoder": dense(3, 6)},
            r"the decoder does not turn an array of shape \(3, 2\) into \(y, cache\): Seq",
        ),
        (
            lambda: {"encoder": WithoutCache()},
            r"the encoder does not turn .* into \(y, cache\): W.* raised ValueError: too many",
        ),
        (
            lambda: {"encoder": OnlyForward()},
            r"the encoder is OnlyForward\(\), which has no backward: a",
        ),
        (
            lambda: {"decoder": sv.Linear},
            "the decoder is the class Linear: expected an object of it",
        ),
        (
            lambda: {"encoder": [sv.Linear(6, 4)]},
            r"the encoder is \[Linear\(6, 4\)\], which has no forward",
        ),
        (
            lambda: {"encoder": sv.Linear(6, 4)},
            "encoder.W is a numpy array of float32: expected numpy and float64, the back",
        ),
        (
            lambda: {"likelihood": sv.likelihoods.Bernoulli},
            "unknown likelihood <class .*an object with bina",
        ),
        (
            lambda: {"likelihood": np.tanh},
            "unknown likelihood <ufunc 'tanh'>: expected 'bernoulli', 'ga",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_refused(options, message):
    with pytest.raises(sv.InputError, match=message):
        sv.VAE(6, **OPTIONS, **options())


def test_a_part_is_tried_with_numbers_of_the_models_type():
    class Single(Scale):
        def forward(self, x):
            if x.dtype != np.float32:
                raise TypeError("expected float32")
            return super().forward(x)

    sv.Autoencoder(6, latent_dim=6, encoder=Single(), dtype="float32")


def test_a_part_on_another_device_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    decoder = dense(2, 6, backend="cupy")
    with pytest.raises(sv.InputError, match=r"the decoder does not turn an array|is a .* array of"):
        sv.VAE(6, decoder=decoder, **OPTIONS)


class Returns(Scale):
    """A backward that gives back something else than dx."""

    def __init__(self, dx):
        self.dx = dx

    def backward(self, dy, cache):
        return self.dx


class Raises(Scale):
    def backward(self, dy, cache):
        raise TypeError("no such thing")


class Names(Scale):
    def __init__(self, named):
        self.named_parameters = lambda: named


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Returns(None), r"the decoder has a backward that returns a NoneType: expected dx, an arr"),
        (
            Returns((np.ones((3, 2)),)),
            "the decoder has a backward that returns a tuple: expected d",
        ),
        (Returns(np.ones((1, 2))), r"returns an array of shape \(1, 2\): .* of shape \(3, 2\)$"),
        (
            Raises(),
            r"the decoder has a backward that fails: for dy of shape \(3, 2\) Raises\(\) rai",
        ),
        (Names([("w", np.ones(2))]), r"^decoder\.w is a ndarray: expected a Parameter$"),
    ],
)
def test_a_part_whose_backward_does_not_fit_is_refused(layer, message):
    with pytest.raises(sv.InputError, match=message):
        sv.VAE(2, decoder=layer, **OPTIONS)


def test_looking_at_the_parts_warns_of_nothing():
    """The rows hold a 0, which a part may well divide by; warnings are errors here."""

    class Normed(Scale):
        def forward(self, x):
            return x / x, None

    sv.VAE(6, encoder=sv.Sequential([Normed(), dense(6, 4)]), **OPTIONS)


def test_looking_at_the_parts_changes_no_gradient():
    model = sv.VAE(6, (5,), **OPTIONS)
    parts = [*model.encoder.named_parameters(), *model.decoder.named_parameters()]
    for _, p in parts:
        p.grad[...] = 3
    model.gather()
    for part, layer in ("encoder", model.encoder), ("decoder", model.decoder):
        model._require_width(part, layer, *model.widths()[part])
    assert not model.params.grad.any()
    model.params.grad[...] = 3
    for part, layer in ("encoder", model.encoder), ("decoder", model.decoder):
        layer.lock = threading.Lock()  # it has no copy, and is tried itself
        model._require_width(part, layer, *model.widths()[part])
    assert (model.params.grad == 3).all()


class Clip(Scale):
    """Changes the array that it is given where a number is negative, or more than 1."""

    def forward(self, x):
        return np.clip(x, 0, 1, out=x), None

    def backward(self, dy, cache):
        return dy.copy()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_that_changes_only_other_numbers_than_pixels_in_place_is_refused(part):
    linear = sv.Linear(*((6, 4) if part == "encoder" else (2, 6)), dtype="float64")
    with pytest.raises(sv.InputError, match=rf"^the {part} changes the array that it is given"):
        sv.VAE(6, likelihood="gaussian", **{part: sv.Sequential([Clip(), linear])}, **OPTIONS)


class Factors:
    """y = w x, with a factor for each column."""

    def __init__(self, n):
        self.w = sv.Parameter(np.linspace(0.5, 1.5, n))

    def forward(self, x):
        return self.w.value * x, x

    def backward(self, dy, x):
        self.w.add((dy * x).sum(axis=0))
        return dy * self.w.value

    def named_parameters(self):
        yield "w", self.w


class Overwrites(Factors):
    """As a tutorial's layer, which is asked once a batch; or for some of its numbers alone."""

    def __init__(self, n, some=slice(None), copied=True):
        super().__init__(n)
        self.some = some
        if not copied:
            self.lock = threading.Lock()

    def backward(self, dy, x):
        self.w.grad[self.some] = (dy * x).sum(axis=0)[self.some]
        return dy * self.w.value


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("some", [slice(None), slice(1, 2)])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_that_writes_over_a_gradient_is_refused(part, some, copied):
    """An IWAE's decoder is asked several times a batch, and would keep the last answer alone."""
    layer = Overwrites(6, some, copied)
    linear = sv.Linear(*((6, 4) if part == "encoder" else (2, 6)), dtype="float64")
    layers = [layer, linear] if part == "encoder" else [linear, layer]
    stack = sv.Sequential(layers)
    with pytest.raises(sv.InputError) as error:
        sv.VAE(6, **{part: stack}, **OPTIONS)
    assert str(error.value) == (
        f"the {part} has a backward that writes over the gradient of {layers.index(layer)}.w, and "
        f"so loses what was added to it before: expected of {stack!r} to add, with `.grad += d` or "
        "`.add(d)`"
    )
    assert not layer.w.grad.any()


def test_a_part_that_clears_some_of_an_old_gradient_is_refused():
    class Masks(Factors):
        def backward(self, dy, x):
            dx = super().backward(dy, x)
            self.w.grad[::2] *= 0
            return dx

    stack = sv.Sequential([Masks(6), sv.Linear(6, 4, dtype="float64")])
    with pytest.raises(sv.InputError, match=r"^the encoder .* writes over the gradient of 0\.w, "):
        sv.VAE(6, encoder=stack, **OPTIONS)


class Buffered(Factors):
    """Gives one array again and again."""

    def forward(self, x):
        if not hasattr(self, "y"):
            self.y = np.empty_like(x)
        return np.multiply(x, self.w.value, out=self.y), x


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_that_gives_one_array_again_is_refused(part):
    linear = sv.Linear(*((6, 4) if part == "encoder" else (2, 6)), dtype="float64")
    layers = [linear, Buffered(4)] if part == "encoder" else [linear, Buffered(6)]
    stack = sv.Sequential(layers)
    with pytest.raises(sv.InputError) as error:
        sv.VAE(6, **{part: stack}, **OPTIONS)
    assert str(error.value) == (
        f"the {part} writes over the array that its last call gave: expected of {stack!r} a new "
        "one at each call"
    )


class KeepsState(Factors):
    """Running means, an initialisation by the first data, and a generator: none may be moved."""

    def __init__(self, n, rng):
        super().__init__(n)
        self.calls, self.mean, self.rng = 0, np.zeros(n), rng

    def forward(self, x):
        self.calls += 1
        self.mean += x.mean(axis=0) + self.rng.random()
        return super().forward(x)


def test_a_part_is_tried_in_a_copy(x):
    rng = np.random.default_rng(5)
    layer, before = KeepsState(6, rng), rng.bit_generator.state
    stack = sv.Sequential([layer, sv.Activation("tanh"), sv.Linear(6, 4, dtype="float64")])
    model = sv.VAE(6, encoder=stack, **OPTIONS)
    stack.layers[1] = sv.Activation("tanh")
    model.check_parts()  # which tries the parts again
    assert (layer.calls, rng.bit_generator.state) == (0, before)
    assert not layer.mean.any()
    model.loss_and_grad(x)
    assert layer.calls == 1


def test_a_layer_that_notes_itself_does_not_hold_its_copies_to_be_trained(x):
    seen = []

    class Noted(Factors):
        def __init__(self, n):
            super().__init__(n)
            self.note = lambda layer: seen.append(layer)

        def forward(self, x):
            self.note(self)
            return super().forward(x)

    stack = sv.Sequential([Noted(6), sv.Linear(6, 4, dtype="float64")])
    model = sv.VAE(6, encoder=stack, **OPTIONS)
    assert seen
    assert stack.layers[0] not in seen
    model.require_named()
    model.loss_and_grad(x)


def in_a_closure(n):
    """A layer made of functions: a copy of it has the same parameter."""
    s = sv.Parameter(np.full(n, 0.5))

    def forward(x):
        return x * s.value, x

    def backward(dy, x):
        s.grad += (dy * x).sum(axis=0)
        return dy * s.value

    def named_parameters():
        return iter([] if s.constant else [("s", s)])

    return SimpleNamespace(forward=forward, backward=backward, named_parameters=named_parameters)


def test_a_parameter_that_a_copy_shares_is_trained(x):
    stack = sv.Sequential([in_a_closure(6), sv.Linear(6, 4, dtype="float64")])
    model = sv.VAE(6, encoder=stack, **OPTIONS)
    assert model.params.names[0] == "encoder.0.s"
    assert sv.gradcheck.check_model(model, x).ok


class Lazy:
    """Makes its parameter when it sees how wide the data are."""

    w = None

    def forward(self, x):
        self.w = sv.Parameter(np.full(x.shape[1], 0.5)) if self.w is None else self.w
        return x * self.w.value, x

    def backward(self, dy, x):
        self.w.add((dy * x).sum(axis=0))
        return dy * self.w.value

    def named_parameters(self):
        if self.w is not None:
            yield "w", self.w


class WithPlaceholder(Lazy):
    """Has a parameter of no entries until it sees how wide the data are."""

    def __init__(self):
        self.w = sv.Parameter(np.zeros(0))

    def forward(self, x):
        if not self.w.value.size:
            self.w = sv.Parameter(np.full(x.shape[1], 0.5))
        return super().forward(x)


def test_a_placeholder_is_gathered_as_what_the_first_data_make_of_it(x):
    stack = sv.Sequential([WithPlaceholder(), sv.Linear(6, 4, dtype="float64")])
    model = sv.VAE(6, encoder=stack, **OPTIONS)
    assert model.params["encoder.0.w"].value.shape == (6,)
    model.loss_and_grad(x)


class OwnNoise(sv.VAE):
    def __init__(self, *args, **options):
        self.noise = 0.1
        super().__init__(*args, **options)


def test_an_attribute_that_hides_a_method_is_named():
    with pytest.raises(sv.InputError) as error:
        OwnNoise(6, **OPTIONS)
    assert str(error.value) == (
        "the model has set its noise to 0.1, and that is a method of OwnNoise: expected another "
        "name"
    )
    model = sv.VAE(6, **OPTIONS)
    model.noise = 3
    with pytest.raises(sv.InputError, match=r"^the model has set its noise to 3, and that is a"):
        model.try_formulas()


def test_a_class_that_an_attribute_hides_is_no_method():
    class OwnType(sv.VAE):
        out_dtype = np.float32

    model = OwnType(6, **OPTIONS)
    model.out_dtype = "float64"
    model.try_formulas()


def test_parameters_that_the_first_data_make_are_gathered(x):
    stack = sv.Sequential([Lazy(), sv.Linear(6, 4, dtype="float64")])
    model = sv.VAE(6, encoder=stack, **OPTIONS)
    assert model.params.names[0] == "encoder.0.w"
    assert sv.gradcheck.check_model(model, x).ok


class Fussy(Scale):
    """Takes numbers from 0 to 1 only."""

    def forward(self, x):
        if (x < 0).any():
            raise ValueError("negative")
        return x + 1, None

    def backward(self, dy, cache):
        return dy.copy()


class Unreadable(Scale):
    """Meets a system that refuses, in forward or in backward."""

    def __init__(self, where):
        self.where = where

    def forward(self, x):
        if self.where == "forward":
            raise FileNotFoundError("gone")
        return x + 1, None

    def backward(self, dy, cache):
        raise FileNotFoundError("gone")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_the_system_refuses_is_no_fault_of_the_part(where):
    encoder = sv.Sequential([Unreadable(where), sv.Linear(6, 4, dtype="float64")])
    with pytest.raises(FileNotFoundError, match=r"^gone$"):
        sv.VAE(6, encoder=encoder, **OPTIONS)


def test_a_part_that_takes_nothing_but_pixels_is_fine(x):
    encoder = sv.Sequential([Fussy(), sv.Linear(6, 4, dtype="float64")])
    sv.VAE(6, encoder=encoder, **OPTIONS).loss_and_grad(x)


class InPlace(Scale):
    """Changes the array that it is given, in forward or in backward."""

    def __init__(self, where):
        self.where = where

    def forward(self, x):
        if self.where == "forward":
            x -= 0.5
        return x + 1, x

    def backward(self, dy, x):
        if self.where == "backward":
            x *= dy
        return dy


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_that_changes_the_data_in_place_is_refused(part, where):
    def build(where):
        linear = sv.Linear(*((6, 4) if part == "encoder" else (2, 6)), dtype="float64")
        return sv.VAE(6, **{part: sv.Sequential([InPlace(where), linear])}, **OPTIONS)

    text = repr(getattr(build("nowhere"), part))
    with pytest.raises(sv.InputError) as error:
        build(where)
    assert str(error.value) == (
        f"the {part} changes the array that it is given: expected of {text} a new one, such as "
        "y = x - 1 instead of x -= 1"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "latent_dim", 3),
        lambda model: setattr(
            model, "likelihood", sv.likelihoods.Gaussian(6, "per-dimension", model.backend, "f8")
        ),
        lambda model: setattr(model.encoder.layers[0], "W", np.ones((6, 400))),
    ],
)
def test_a_change_of_sizes_or_of_a_parameters_kind_is_refused_too(change, x):
    model = sv.VAE(6, **OPTIONS)
    change(model)
    with pytest.raises(sv.InputError, match=r"call model\.gather\(\) and make a new optimizer"):
        model.loss_and_grad(x)


class Wrapped:
    """A layer inside a list, whose parameters nobody names."""

    def __init__(self, inner):
        self.parts = {"inner": [inner]}

    def forward(self, x):
        return self.parts["inner"][0].forward(x)

    def backward(self, dy, cache):
        return self.parts["inner"][0].backward(dy, cache)


def test_a_parameter_that_is_not_named_would_not_train_and_is_refused():
    layer = sv.Linear(6, 4, dtype="float64")
    with pytest.raises(
        sv.InputError, match=r"^encoder\.parts\['inner'\]\[0\]\.W is a Parameter that"
    ):
        sv.VAE(6, encoder=Wrapped(layer), **OPTIONS)

    class Own(sv.VAE):
        def __init__(self, *sizes, **options):
            self.gamma = sv.Parameter(np.ones(3))
            super().__init__(*sizes, **options)

    with pytest.raises(sv.InputError) as caught:
        Own(6, **OPTIONS)
    assert str(caught.value) == (
        "gamma is a Parameter that no named_parameters names, so it would never be trained: name "
        "it, or set its `constant` to True if it shall stay as it is"
    )
    model = sv.VAE(6, **OPTIONS)
    model.likelihood.scale = sv.Parameter(np.ones(3))
    with pytest.raises(sv.InputError, match=r"^likelihood\.scale is a Parameter that no"):
        model.gather()
    exec("class Made: pass", namespace := {})  # of the module builtins, as it seems
    model.likelihood.scale = namespace["Made"]()
    model.likelihood.scale.inner = sv.Parameter(np.ones(3))
    with pytest.raises(sv.InputError, match=r"^likelihood\.scale\.inner is a Parameter that no"):
        model.gather()


class OfMethods:
    """A layer that has the two methods of another for its own."""

    def __init__(self, inner):
        self.forward, self.backward = inner.forward, inner.backward


class OfClosures:
    def __init__(self, inner):
        self.forward = lambda x: inner.forward(x)
        self.backward = lambda dy, cache: inner.backward(dy, cache)
        if inner is None:
            later = None
        self.unused = lambda: later  # a variable that has no value yet


class OfPartials:
    def __init__(self, inner):
        self.forward = functools.partial(type(inner).forward, inner)
        self.backward = functools.partial(type(inner).backward, inner)


class OfDefaults:
    def __init__(self, inner):
        self.forward = lambda x, layer=inner: layer.forward(x)
        self.backward = lambda dy, cache, *, layer=inner: layer.backward(dy, cache)


class OfADefault:
    def __init__(self, inner):
        self.forward = lambda x, *, layer=inner: layer.forward(x)
        self.backward = lambda dy, cache, *, layer=inner: layer.backward(dy, cache)


def of_static_methods(inner):
    class Static:
        @staticmethod
        def forward(x):
            return inner.forward(x)

        @staticmethod
        def backward(dy, cache):
            return inner.backward(dy, cache)

    return Static()


class OfAnArray:
    def __init__(self, inner):
        self.layers = np.array([[inner]], dtype=object)

    def forward(self, x):
        return self.layers[0, 0].forward(x)

    def backward(self, dy, cache):
        return self.layers[0, 0].backward(dy, cache)


class OfAUserList(OfAnArray):
    def __init__(self, inner):
        self.layers = UserList([inner])

    def forward(self, x):
        return self.layers[0].forward(x)

    def backward(self, dy, cache):
        return self.layers[0].backward(dy, cache)


class OfASet:
    def __init__(self, inner):
        self.layers = {inner}

    def forward(self, x):
        return next(iter(self.layers)).forward(x)

    def backward(self, dy, cache):
        return next(iter(self.layers)).backward(dy, cache)


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (OfMethods, r"forward\.__self__\.W"),
        (OfClosures, r"forward\.inner\.W"),
        (OfPartials, r"forward\.args\[0\]\.W"),
        (OfASet, r"layers\[0\]\.W"),
        (OfDefaults, r"forward\.__defaults__\[0\]\.W"),
        (OfADefault, r"forward\.layer\.W"),
        (of_static_methods, r"forward\.inner\.W"),
        (OfAnArray, r"layers\[0\]\.W"),
        (OfAUserList, r"layers\[0\]\.W"),
    ],
)
def test_a_layer_that_another_reaches_by_functions_would_not_train_and_is_refused(kind, where):
    linear = sv.Linear(6, 4, dtype="float64")
    with pytest.raises(sv.InputError, match=rf"^encoder\.{where} is a Parameter that no"):
        sv.VAE(6, encoder=kind(linear), **OPTIONS)


class Chain(list):
    """A container with a parameter of its own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner.forward(x)

    def backward(self, dy, cache):
        return self.inner.backward(dy, cache)


class Settings(dict):
    """Whose names are attributes, and which raises KeyError for one that it lacks."""

    __getattr__ = dict.__getitem__


def test_what_a_layer_holds_besides_is_looked_into_whatever_it_is(x, tmp_path):
    linear = sv.Linear(6, 4, dtype="float64")
    with pytest.raises(sv.InputError, match=r"^encoder\.inner\.W is a Parameter that no"):
        sv.VAE(6, encoder=Chain(linear), **OPTIONS)
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with np.load(tmp_path / "a.npz") as linear.file:
        pass  # it is closed afterwards
    linear.settings, linear.chain = Settings(width=3), None
    for _ in range(3000):
        linear.chain = SimpleNamespace(next=linear.chain)
    model = sv.VAE(6, activation="tanh", encoder=linear, **OPTIONS)
    linear.chain = None  # which a copy would follow by recursion
    assert sv.gradcheck.check_model(model, x).unchecked == {}


class Program:
    """What a layer may know by one of its methods, and what is no layer."""

    def __init__(self):
        self.other = sv.Parameter(np.ones(3))

    def log(self):
        pass


def test_a_program_that_a_function_knows_is_not_looked_into():
    program, layer = Program(), sv.Linear(6, 4, dtype="float64")
    layer.log, layer.note = program.log, lambda: [program]
    layer.tell = functools.partial(print, {"to": program})
    sv.VAE(6, encoder=layer, **OPTIONS)
    layer.program = program  # held as an attribute it is part of the layer
    with pytest.raises(sv.InputError, match=r"^encoder\.program\.other is a Parameter that no"):
        sv.VAE(6, encoder=layer, **OPTIONS)


def test_constants_and_other_models_may_be_held_without_a_name(x):
    layer = sv.Linear(6, 4, dtype="float64")
    for _, p in layer.named_parameters():
        p.constant = True
    model = copy.deepcopy(sv.VAE(6, activation="tanh", encoder=Wrapped(layer), **OPTIONS))
    model.gather()  # a constant stays one in a copy
    assert model.params.names == [
        n for n in sv.VAE(6, **OPTIONS).params.names if n[:7] == "decoder"
    ]
    assert sv.gradcheck.check_model(model, x).unchecked == {}
    fixed = sv.VAE(6, activation="tanh", likelihood="gaussian", variance=0.5, **OPTIONS)
    assert sv.gradcheck.check_model(fixed, x).unchecked == {}
    model.teacher = sv.VAE(6, **OPTIONS)
    model.trainer = Trainer(model, sv.Adam(model.params), np.random.default_rng(0).random((9, 6)))
    model.encoder = dense(6, 4)  # the optimizer holds the parameters of before
    model.gather()


def test_a_constant_that_is_named_is_refused(x):
    layer = sv.Linear(6, 4, dtype="float64")
    model = sv.VAE(6, encoder=layer, **OPTIONS)
    layer.b.constant = True
    adam = sv.Adam(model.params)
    for use in model.gather, lambda: model.loss_and_grad(x), lambda: Trainer(model, adam, x):
        with pytest.raises(sv.InputError) as error:
            use()
        assert str(error.value) == (
            "encoder.b is a constant, and named_parameters names it, so it would be trained: leave "
            "it out there, or set its `constant` to False"
        )


class Twice:
    """A layer without parameters, which gives rows twice as long."""

    def forward(self, x):
        return np.hstack([x, x]), None

    def backward(self, dy, cache):
        half = dy.shape[1] // 2
        return dy[:, :half] + dy[:, half:]


def test_a_layer_without_parameters_that_does_not_fit_is_found_at_each_exchange(x):
    model = sv.VAE(6, (5,), activation="tanh", **OPTIONS)
    model.encoder.layers[1] = sv.Activation("relu")
    model.loss_and_grad(x)
    model.encoder.layers[1] = Twice()
    with pytest.raises(
        sv.InputError, match=r"^the encoder does not turn an array of shape \(3, 6\)"
    ):
        model.loss_and_grad(x)


def test_a_layer_that_names_nothing_is_found_where_it_was_put_in_afterwards(x, tmp_path):
    model = sv.VAE(6, activation="tanh", **OPTIONS)
    trainer = Trainer(model, sv.Adam(model.params), np.random.default_rng(0).random((9, 6)))
    model.encoder.layers[1] = Wrapped(sv.Activation("tanh"))
    trainer.run(1)
    model.encoder.layers[1] = Wrapped(sv.Linear(400, 400, dtype="float64"))
    for use in lambda: trainer.run(2), lambda: model.save(tmp_path / "m.safetensors"):
        with pytest.raises(sv.InputError, match=r"\.W is a Parameter that no named_parameters"):
            use()
    unchecked = sv.gradcheck.check_model(model, x).unchecked
    assert "encoder.layers[1].parts['inner'][0].W" in unchecked


def test_a_layer_of_a_module_that_is_called_as_one_of_pythons_is_looked_into(monkeypatch):
    """A project may have a folder `code`; the standard library has a module of that name."""
    module = ModuleType("code")
    module.__file__ = "/home/me/project/code/__init__.py"
    monkeypatch.setitem(sys.modules, "code", module)
    kind = type("Residual", (Wrapped,), {"__module__": "code.layers"})
    inner = sv.Linear(6, 6, dtype="float64")
    held._is_library.cache_clear()
    try:
        with pytest.raises(
            sv.InputError, match=r"^encoder\.layers\[0\]\.parts.* is a Parameter that"
        ):
            sv.VAE(6, encoder=sv.Sequential([kind(inner), dense(6, 4)]), **OPTIONS)
    finally:
        held._is_library.cache_clear()
    for name in "enum", "sys", "numpy.linalg", "collections.abc":
        assert held._is_library(name), name


@pytest.mark.parametrize("named", [{"W": 1}, [3], 5])
def test_names_without_parameters_are_refused(named):
    layer = Wrapped(sv.Linear(6, 4, dtype="float64"))
    layer.named_parameters = lambda: named
    with pytest.raises(
        sv.InputError,
        match=r"^named_parameters of a part does not yield pairs of a name "
        r'and a Parameter, as in `yield "W", self\.W`: .',
    ):
        sv.VAE(6, encoder=layer, **OPTIONS)


def test_the_terms_must_be_one_number_for_each_example(x):
    class Averaged(sv.VAE):
        def kl(self, mu, logvar):
            kl, cache = sv.VAE.kl(mu, logvar)
            return kl.mean(), cache

    with pytest.raises(
        sv.InputError,
        match=r"^forward gives a kl of shape \(\) for 4 examples: expected one number",
    ):
        Averaged(6, **OPTIONS).loss_and_grad(x)


def test_what_is_not_finite_is_not_saved(tmp_path):
    model = sv.VAE(6, **OPTIONS)
    model.params["encoder.2.b"].value[1] = np.inf
    with pytest.raises(sv.NonFiniteError, match=r"is not written: encoder\.2\.b is not finite$"):
        model.save(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", ["save", "state", "load"])
def test_what_does_not_see_a_change_is_not_saved(use, tmp_path, x):
    model = sv.VAE(6, **OPTIONS)
    path = tmp_path / "m.safetensors"
    model.save(path)
    trainer = Trainer(model, sv.Adam(model.params), x)
    exchange(model)
    with pytest.raises(
        sv.InputError, match=r"a part of the model was changed|another configuration"
    ):
        {"save": lambda: model.save(path), "state": trainer.state,
         "load": lambda: sv.load(path, into=model)}[use]()  # fmt: skip


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_model_whose_part_another_one_has_taken_is_not_copied(make):
    """The copy would have the values from before."""
    model = sv.VAE(6, **OPTIONS)
    steal(model)
    with pytest.raises(sv.InputError, match="or handed to another model"):
        make(model)


def insert(model):
    model.encoder.layers.insert(1, sv.Linear(400, 400, dtype="float64"))


def exchange(model):
    model.decoder = dense(2, 6)


def rebind(model):
    model.encoder.layers[0].W = sv.Parameter(np.zeros((6, 400)))


def steal(model):
    sv.Parameters(model.decoder.named_parameters())


@pytest.mark.parametrize("change", [insert, exchange, rebind, steal])
def test_a_change_that_the_parameters_do_not_see_is_refused_until_they_are_gathered(change, x):
    """Else a layer would keep its first weights, and nobody would know."""
    model = sv.VAE(6, **OPTIONS)
    optimizer = sv.Adam(model.params)
    change(model)
    for use in (
        model.check_parts,
        lambda: model.loss_and_grad(x),
        lambda: sv.gradcheck.check_model(model, x),
        lambda: Trainer(model, optimizer, x),
    ):
        with pytest.raises(sv.InputError, match=r"model\.gather\(\)|make a new optimizer"):
            use()
    model.gather()
    model.loss_and_grad(x)
    with pytest.raises(sv.InputError, match="make a new optimizer"):
        optimizer.step()
    sv.Adam(model.params).step()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("encoder", sv.Linear, "a part is the class Linear: expected an object of it"),
        ("likelihood", sv.Linear, "unknown likelihood <class 'scratchvae.layers.Linear'>: "),
        ("likelihood", "gaussian", "unknown likelihood 'gaussian': expected "),
        ("likelihood", None, "unknown likelihood None: expected "),
        ("prior", sv.MixturePrior, "unknown prior <class 'scratchvae.mixture.MixturePrior'>: "),
        ("prior", "normal", "unknown prior 'normal': expected "),
    ],
)
@pytest.mark.parametrize("use", ["loss_and_grad", "check_model", "gather", "Trainer"])
def test_what_is_no_part_is_refused_in_a_sentence(part, value, message, use, x):
    model = sv.VAE(6, (5,), **OPTIONS)
    optimizer = sv.Adam(model.params)
    setattr(model, part, value)
    uses = {
        "loss_and_grad": lambda: model.loss_and_grad(x),
        "check_model": lambda: sv.gradcheck.check_model(model, x),
        "gather": model.gather,
        "Trainer": lambda: Trainer(model, optimizer, x),
    }
    with pytest.raises(sv.InputError) as error:
        uses[use]()
    message = message.replace("a part", "the encoder") if use == "gather" else message
    assert str(error.value).startswith(message)


def test_a_part_that_is_set_too_late_is_named():
    class Late(sv.VAE):
        parts = (*sv.VAE.parts, "flow")

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.flow = sv.Linear(2, 2, dtype="float64")

    with pytest.raises(sv.InputError) as error:
        Late(6, (5,), **OPTIONS)
    assert str(error.value) == (
        "the model has no flow yet, one of its `parts`: set it before super().__init__(...), which "
        "gathers the parameters"
    )


@pytest.mark.parametrize("shape", [(4,), (3, 5, 4), (5, 4)])
def test_noise_without_an_axis_of_examples_is_refused(shape, x):
    class Own(sv.VAE):
        def noise_shape(self, n):
            return shape

    model = Own(6, (5,), **OPTIONS)
    message = (
        f"noise_shape gives {shape} for 4 examples: expected theirs as the last axis but one, such "
        "as (4, 2)"
    )
    for use in (
        lambda: model.loss_and_grad(x),
        lambda: Trainer(model, sv.Adam(model.params), np.tile(x, (5, 1)), batch_size=4).run(1),
    ):
        with pytest.raises(sv.InputError) as error:
            use()
        assert str(error.value) == message


def test_a_variance_is_written_as_a_float():
    model = sv.VAE(6, likelihood="gaussian", variance=2, **OPTIONS)
    assert type(model.config()["variance"]) is float


def test_other_widths_are_refused_until_they_are_gathered():
    model = sv.VAE(6, **OPTIONS)
    before = model.widths()
    model.likelihood = sv.VAE(7, **OPTIONS).likelihood
    after = model.widths()
    with pytest.raises(sv.InputError) as error:
        model.check_parts()
    assert before != after
    assert str(error.value) == (
        f"the widths of the parts have changed from {before} to {after}: call model.gather() and "
        "make a new optimizer"
    )


def test_a_part_that_does_not_fit_is_refused_when_it_is_gathered():
    model = sv.VAE(6, **OPTIONS)
    model.encoder = dense(6, 5)
    with pytest.raises(sv.InputError, match=r"the encoder turns .* expected \(3, 4\)"):
        model.gather()


class Narrow:
    """A mean over the columns: one number for each row."""

    def forward(self, x):
        return x.mean(axis=1, keepdims=True), x.shape

    def backward(self, dy, shape):
        return np.broadcast_to(dy / shape[1], shape).copy()


@pytest.mark.parametrize(
    ("part", "layer", "message"),
    [
        (
            "encoder",
            Narrow(),
            r"^the encoder turns .* into one of shape \(3, 1\): expected \(3, 4\)$",
        ),
        (
            "decoder",
            Narrow(),
            r"^the decoder turns .* into one of shape \(3, 1\): expected \(3, 6\)$",
        ),
        (
            "encoder",
            OnlyForward(),
            r"^the encoder has a backward that fails: .* no attribute 'back",
        ),
    ],
)
def test_a_layer_without_parameters_that_was_put_in_and_does_not_fit_is_refused(
    part, layer, message, x
):
    model = sv.VAE(6, (5,), likelihood="gaussian", **OPTIONS)
    trainer = Trainer(model, sv.Adam(model.params), x)
    getattr(model, part).layers.append(layer)
    for use in (
        lambda: model.loss_and_grad(x),
        lambda: trainer.run(1),
        lambda: sv.gradcheck.check_model(model, x),
        lambda: model.save("never.safetensors"),
    ):
        with pytest.raises(sv.InputError, match=message):
            use()
    getattr(model, part).layers.pop()
    model.loss_and_grad(x)


def test_an_activation_may_come_and_go(x):
    """It has no parameters, so nothing is behind."""
    model = sv.VAE(6, **OPTIONS)
    model.encoder.layers.insert(0, sv.Activation("tanh"))
    model.encoder.layers.pop(0)
    model.loss_and_grad(x)


def test_what_a_model_has_it_says_itself(rng):
    vae, plain = sv.VAE(6, **OPTIONS), sv.Autoencoder(6, **OPTIONS)
    assert (vae.has_posterior, plain.has_posterior) == (True, False)
    assert (vae.noise_shape(3), plain.noise_shape(3)) == ((3, 2), None)
    assert vae.draw_eps(3, rng).shape == vae.draw_prior(3, rng).shape == (3, 2)
    assert plain.draw_eps(3, rng) is None
    vae.set_beta(3)
    assert vae.beta == 3.0
    with pytest.raises(sv.InputError, match="beta is -1: expected a finite number, 0 or larger"):
        vae.set_beta(-1)
    with pytest.raises(
        sv.InputError, match=r"^an autoencoder has no prior to sample from: expected a VAE$"
    ):
        plain.sample(3)
    with pytest.raises(sv.InputError) as error:
        plain.set_beta(1)
    assert str(error.value) == (
        "an autoencoder's loss has no KL term, and so no beta: expected a VAE"
    )
    assert sv.VAE(6).draw_prior(3, rng).dtype == np.float32


def test_a_code_is_a_point_or_a_draw_around_its_mean(rng, x):
    vae, plain = sv.VAE(6, **OPTIONS), sv.Autoencoder(6, **OPTIONS)
    np.testing.assert_array_equal(plain.codes(x), plain.encode(x))
    np.testing.assert_array_equal(plain.mean_code(x), plain.encode(x))
    mu, logvar = vae.encode(x)
    eps = rng.normal(size=(4, 2))
    np.testing.assert_array_equal(vae.mean_code(x), mu)
    # exp(logvar / 2) is computed the same way; a product and a sum follow.
    np.testing.assert_allclose(vae.codes(x, eps), mu + np.exp(0.5 * logvar) * eps, rtol=1e-15)
    with pytest.raises(sv.InputError, match=r"^x has shape \(4, 5\)"):
        vae.codes(x[:, 1:])


def test_samples_are_decoded_draws_of_the_models_own_prior():
    class Point(sv.VAE):
        def draw_prior(self, n, rng):
            return np.full((n, 2), 3.0)

    model = Point(6, **OPTIONS)
    np.testing.assert_array_equal(model.sample(4), model.decode(np.full((4, 2), 3.0)))


# --- formulas


@pytest.mark.parametrize("pair", ["reparameterize", "kl", "nll"])
def test_a_formula_and_its_backward_are_replaced_together(pair, x):
    """With twice the value and twice the gradient the check passes, with one of them it fails."""

    def forward(self, *args):
        y, cache = getattr(super(Doubled, self), pair)(*args)
        return 2 * y, cache

    def backward(self, dy, cache):
        return getattr(super(Doubled, self), f"{pair}_backward")(2 * dy, cache)

    class Doubled(sv.VAE):
        pass

    model = Doubled(6, (5,), activation="tanh", **OPTIONS)
    setattr(Doubled, pair, forward)
    with pytest.raises(sv.gradcheck.GradientError):
        sv.gradcheck.check_model(model, x)
    setattr(Doubled, f"{pair}_backward", backward)
    assert sv.gradcheck.check_model(model, x).ok


# Each returns something of a shape that its place cannot use; `pair` is that of VAE.
WRONG_SHAPES = {
    "no cache": lambda pair, *args: pair[0](*args)[0],
    "a sum over the wrong axis": lambda pair, *args: (
        np.swapaxes(args[-1], -1, -2).sum(axis=-1),
        None,
    ),
}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("reparameterize", "no cache"),  # a draw may have any shape
        ("kl", "no cache"),
        ("kl", "a sum over the wrong axis"),
        ("nll", "no cache"),
        ("nll", "a sum over the wrong axis"),
    ],
)
def test_a_formula_whose_value_has_a_wrong_shape_is_named(name, error, x):
    class Own(sv.VAE):
        pass

    def formula(self, *args):
        return WRONG_SHAPES[error]((getattr(super(Own, self), name),), *args)

    setattr(Own, name, formula)
    model = Own(6, (5,), **OPTIONS)
    for use in (
        model.try_formulas,
        lambda: Trainer(model, sv.Adam(model.params), x).run(1),
        lambda: sv.gradcheck.check_model(model, x),
        lambda: sv.evaluation.importance_weighted_bound(model, [x], 2, 0),
    ):
        with pytest.raises(sv.InputError, match=f"^the model's {name} returns "):
            use()


WRONG_GRADIENTS = {
    "nothing": lambda gradients: None,
    "one too few": lambda gradients: gradients[:-1],
    "one of another shape": lambda gradients: (
        (*gradients[:-1], gradients[-1][:-1]) if isinstance(gradients, tuple) else gradients[:, 0]
    ),
}


@pytest.mark.parametrize("name", ["reparameterize", "kl", "nll"])
@pytest.mark.parametrize("error", WRONG_GRADIENTS)
def test_a_formula_whose_backward_gives_something_else_is_named(name, error, x):
    class Own(sv.VAE):
        pass

    def backward(self, *args):
        return WRONG_GRADIENTS[error](getattr(super(Own, self), f"{name}_backward")(*args))

    setattr(Own, f"{name}_backward", backward)
    model = Own(6, (5,), **OPTIONS)
    for use in (
        lambda: Trainer(model, sv.Adam(model.params), x).run(1),
        lambda: sv.gradcheck.check_model(model, x),
    ):
        with pytest.raises(sv.InputError, match=f"^the model's {name}_backward returns "):
            use()


def test_what_a_formula_gives_and_what_is_expected_are_told():
    class Own(sv.VAE):
        def kl(self, mu, logvar):
            return super().kl(mu, logvar)[0]

        def nll(self, x, output):
            return (x - output).sum(axis=1), None

        def kl_backward(self, dkl, cache):
            return super().kl_backward(dkl, cache)[0]

    model = Own(6, (5,), **OPTIONS)
    with pytest.raises(sv.InputError) as error:
        model.try_formulas()
    assert str(error.value) == (
        "the model's nll returns an array of shape (2, 6) for arrays of shape (3, 6) and (2, 3, "
        "6): expected one of shape (2, 3), since sums are over the last axis"
    )
    del Own.nll
    with pytest.raises(sv.InputError) as error:
        model.try_formulas()
    assert str(error.value) == (
        "the model's kl returns an array of shape (3,): expected a pair, (value, cache)"
    )
    del Own.kl
    with pytest.raises(sv.InputError) as error:
        model.try_formulas()
    assert str(error.value) == (
        "the model's kl_backward returns an array of shape (3, 2): expected 2 gradients, a tuple"
    )


def test_a_formula_may_read_what_a_subclass_sets_after_the_constructor(x):
    class Own(sv.VAE):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.scale = 2.0

        def kl(self, mu, logvar):
            kl, cache = super().kl(mu, logvar)
            return self.scale * kl, cache

        def kl_backward(self, dkl, cache):
            return super().kl_backward(self.scale * dkl, cache)

    assert sv.gradcheck.check_model(Own(6, (5,), activation="tanh", **OPTIONS), x).ok


class Three(sv.VAE):
    """[mu | logvar | more], with a forward and a backward of its own that know what to do."""

    def widths(self):
        return {**super().widths(), "encoder": (6, 5)}

    def split(self, code):
        return code[:, :2], code[:, 2:4], code[:, 4:]

    def forward(self, x, eps=None):
        code, cache = self.encoder.forward(self.as_rows(x))
        loss = (code**2).sum(axis=1)
        return sv.Terms(loss, loss, 0 * loss), (code, cache)

    def backward(self, dloss, cache):
        code, cache = cache
        self.encoder.backward(2 * dloss[:, None] * code, cache)


class Half(Three):
    """Its encoder gets a half of each row only."""

    def widths(self):
        return {**super().widths(), "encoder": (3, 5)}

    def forward(self, x, eps=None):
        code, cache = self.encoder.forward(self.as_rows(x)[:, :3])
        loss = (code**2).sum(axis=1)
        return sv.Terms(loss, loss, 0 * loss), (code, cache)

    def encode(self, x):
        return self.split(self.encoder.forward(self.as_rows(x)[:, :3])[0])


class ByDimension(sv.VAE):
    """Its KL is one number for each dimension, and its forward knows it."""

    def kl(self, mu, logvar):
        return mu**2, mu

    def kl_backward(self, dkl, mu):
        return 2 * mu * dkl, 0 * mu

    def forward(self, x, eps=None):
        code, cache = self.encoder.forward(self.as_rows(x))
        kl, kl_cache = self.kl(*self.split(code))  # (B, Z)
        loss = kl.sum(axis=1)
        return sv.Terms(loss, 0 * loss, loss), (cache, kl_cache)

    def backward(self, dloss, cache):
        dcode = np.hstack(self.kl_backward(dloss[:, None], cache[1]))
        self.encoder.backward(dcode, cache[0])


class MoreNoise(sv.VAE):
    """z = mu + sigma eps + 0.1 e: one number more of noise than of a code."""

    def noise_shape(self, n):
        return n, self.latent_dim + 1

    def reparameterize(self, mu, logvar, eps):
        z, cache = super().reparameterize(mu, logvar, eps[:, :-1])
        return z + 0.1 * eps[:, -1:], cache


class NoNoise(sv.VAE):
    def noise_shape(self, n):
        return None

    def reparameterize(self, mu, logvar, eps):
        return mu, logvar

    def reparameterize_backward(self, dz, logvar):
        return dz, 0 * logvar


class Denoising(sv.VAE):
    """Its likelihood is that of the clean rows, which forward has put aside."""

    def forward(self, x, eps=None):
        self.clean = self.as_rows(x)
        return super().forward(0.9 * self.clean, eps)

    def nll(self, x, output):
        return super().nll(self.clean, output)


@pytest.mark.parametrize("kind", [Three, Half, ByDimension, MoreNoise, NoNoise, Denoising])
def test_a_right_model_of_unusual_shapes_is_trained_and_checked(kind, x):
    model = kind(6, (5,), activation="tanh", **OPTIONS)
    Trainer(model, sv.Adam(model.params), x).run(1)
    if kind in (MoreNoise, NoNoise, Denoising):  # the others' decoders have no gradient
        assert sv.gradcheck.check_model(model, x).ok


def test_where_it_is_not_finite_is_left_open_where_the_parts_get_something_else(x):
    model = Half(6, (5,), **OPTIONS)
    model.params["encoder.0.W"].value[...] = 1e200
    with pytest.raises(sv.NonFiniteError, match=r"^step 1 \(epoch 1\): loss or gradient is no"):
        Trainer(model, sv.SGD(model.params, 1.0), x).run(1)


def test_a_bound_with_another_posterior_is_refused(x):
    class Triangular(sv.VAE):
        def widths(self):
            return {**super().widths(), "encoder": (6, 2 + 3)}

        def encode(self, x):
            code = self.encoder.forward(self.as_rows(x))[0]
            return code[:, :2], code[:, 2:]

    with pytest.raises(sv.InputError) as error:
        sv.evaluation.importance_weighted_bound(Triangular(6, (5,), **OPTIONS), [x], 2, 0)
    assert str(error.value) == (
        "the weights of the bound are those of codes from N(mu, exp(logvar)), and the model's "
        "encode gives something else than mu and logvar"
    )


class OneHot(sv.likelihoods.Bernoulli):
    def nll(self, x, output):
        if (x.sum(axis=1) != 1).any():
            raise ValueError("a row of x is not one-hot")
        return super().nll(x, output)


def test_a_likelihood_that_refuses_what_it_is_tried_with_is_taken(rng):
    model = sv.VAE(6, (5,), likelihood=OneHot(6), activation="tanh", **OPTIONS)
    x = np.eye(6)[rng.integers(0, 6, 4)]
    Trainer(model, sv.Adam(model.params), x).run(1)


class DecodesNothing:
    """What the decoder gets is 0 times the code."""

    def decoder_input(self, z, x):
        return 0 * z

    def decoder_input_backward(self, dinput):
        return 0 * dinput


@pytest.mark.parametrize(
    ("kind", "options"), [(sv.VAE, {}), (sv.Autoencoder, {}), (sv.IWAE, {"samples": 3})]
)
def test_what_the_decoder_is_given_is_replaced_everywhere(kind, options, x):
    options = {"activation": "tanh", **options, **OPTIONS}
    model = type("Own", (DecodesNothing, kind), {})(6, (5,), rng=0, **options)
    assert sv.gradcheck.check_model(model, x).ok
    output = model.decoder.forward(np.zeros((4, 2)))[0]
    np.testing.assert_array_equal(model.reconstruct(x), model.likelihood.mean(output))
    nll = model.nll(x, output)[0].mean()
    assert model.loss_and_grad(x).reconstruction == pytest.approx(nll, rel=1e-12)


class WithTheFirstPixel:
    """The decoder gets the first pixel too, and `widths` does not say so."""

    def decoder_input(self, z, x):
        first = np.broadcast_to(x[:, :1], (*z.shape[:-1], 1))
        return np.concatenate([z, first], axis=-1)

    def decoder_input_backward(self, dinput):
        return dinput


class SaysSo(WithTheFirstPixel):
    def widths(self):
        return {**super().widths(), "decoder": (3, 6)}


class SaysAll(SaysSo):
    def decoder_input_backward(self, dinput):
        return dinput[..., :2]


@pytest.mark.parametrize(
    ("kind", "options"), [(sv.VAE, {}), (sv.Autoencoder, {}), (sv.IWAE, {"samples": 3})]
)
@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            WithTheFirstPixel,
            "the model's decoder_input returns an array of shape (3, 3) for arrays of shape "
            "(3, 2): expected one of shape (3, 2), the width that `widths` gives for the decoder",
        ),
        (
            SaysSo,
            "the model's decoder_input_backward returns an array of shape (3, 3) for arrays of "
            "shape (3, 3): expected one of shape (3, 2), that of the codes",
        ),
    ],
)
def test_what_the_decoder_is_given_has_the_width_that_the_model_says(
    own, message, kind, options, x
):
    model = type("Own", (own, kind), {})(6, (5,), activation="tanh", **options, **OPTIONS)
    with pytest.raises(sv.InputError) as error:
        Trainer(model, sv.Adam(model.params), x).run(1)
    assert str(error.value) == message
    model = type("Own", (SaysAll, kind), {})(6, (5,), activation="tanh", **options, **OPTIONS)
    assert sv.gradcheck.check_model(model, x).ok
    Trainer(model, sv.Adam(model.params), x).run(1)


def test_labels_and_many_draws_are_one_model(rng, x):
    class Both(sv.IWAE, sv.ConditionalVAE):
        pass

    model = Both(6, (5,), samples=3, classes=4, activation="tanh", **OPTIONS)
    rows = model.rows(x, rng.integers(0, 4, 4))
    assert sv.gradcheck.check_model(model, rows).ok


def test_a_layer_that_makes_its_layers_at_each_call_is_tried_once(x):
    class Counted(sv.Activation):
        calls = 0

    class Dynamic(sv.Sequential):
        def named_layers(self):
            for name, layer in super().named_layers():
                yield name, SimpleNamespace(forward=layer.forward, backward=layer.backward)

    counted = Counted("tanh")
    forward = counted.forward

    def count(x):
        counted.calls += 1
        return forward(x)

    counted.forward = count
    encoder = Dynamic([counted, sv.Linear(6, 4, dtype="float64")])
    model = sv.VAE(6, encoder=encoder, **OPTIONS)
    counted.calls = 0
    for _ in range(3):
        model.loss_and_grad(x)
    assert counted.calls == 3
    assert model.own_numbers() == {}


def test_parts_that_were_not_taken_stay_where_they_are(x):
    """A model that cannot be built leaves the one in training as it is."""
    model = sv.VAE(6, (5,), **OPTIONS)
    trainer = Trainer(model, sv.Adam(model.params), x)
    trainer.run(1)
    for wrong in {"beta": -1}, {"free_bits": 0.5, "prior": "mixture"}, {"free_bits": -1}:
        with pytest.raises(sv.InputError):
            sv.VAE(6, encoder=model.encoder, **wrong, **OPTIONS)
    trainer.run(2)


def test_terms_of_no_examples_are_named(x):
    class Own(sv.VAE):
        def forward(self, x, eps=None):
            terms, cache = super().forward(x, eps)
            return terms._replace(loss=terms.loss.mean()), cache

    with pytest.raises(sv.InputError, match=r"^forward gives a loss of shape \(\) for a batch: "):
        Own(6, (5,), **OPTIONS).loss_and_grad(x)


def test_a_loss_that_is_a_bare_number_is_named(x):
    class Own(sv.VAE):
        def forward(self, x, eps=None):
            terms, cache = super().forward(x, eps)
            return terms._replace(loss=0.5), cache

    with pytest.raises(sv.InputError, match=r"^forward gives 0\.5 as loss for a batch: expected "):
        Own(6, (5,), **OPTIONS).loss_and_grad(x)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255], "255: .*, so divide by the value that means white, such as 255$"),
        ([-0.5, 1], "-0.5: .*, so move and divide, or use the Gaussian likelihood$"),
        ([-0.5, 2], "2: .*, so move and divide, or use the Gaussian likelihood$"),
    ],
)
def test_data_outside_0_to_1_are_named_with_what_to_do(values, message):
    x = np.resize(np.array(values, dtype=float), (4, 6))
    with pytest.raises(sv.InputError, match=f"^x holds {message}"):
        sv.VAE(6, (5,), **OPTIONS).loss_and_grad(x)


def test_terms_of_another_number_of_examples_are_named_by_the_elbo(x):
    class Own(sv.VAE):
        def forward(self, x, eps=None):
            terms, cache = super().forward(x, eps)
            return sv.Terms(*(term[:1] for term in terms)), cache

    with pytest.raises(sv.InputError) as error:
        sv.evaluation.elbo(Own(6, (5,), **OPTIONS), [x])
    assert str(error.value) == (
        "forward gives a loss of shape (1,) for 4 examples: expected one number for each example"
    )


@pytest.mark.parametrize("term", [0.0, None, [1, 2]])
def test_a_term_that_is_no_array_is_named(term, x):
    class Own(sv.VAE):
        def forward(self, x, eps=None):
            terms, cache = super().forward(x, eps)
            return terms._replace(kl=term), cache

    model = Own(6, (5,), **OPTIONS)
    for use in lambda: model.loss_and_grad(x), lambda: sv.evaluation.elbo(model, [x]):
        with pytest.raises(sv.InputError) as error:
            use()
        assert str(error.value) == (
            f"forward gives {term!r} as kl for 4 examples: expected one number for each example"
        )


@pytest.mark.parametrize(("change", "kind"), [(lambda pair: pair[0], "Terms"), (list, "list")])
def test_a_forward_that_forgets_the_cache_or_gives_a_list_is_named(change, kind, x):
    class Own(sv.VAE):
        def forward(self, x, eps=None):
            return change(super().forward(x, eps))

    model = Own(6, (5,), **OPTIONS)
    for use in lambda: model.loss_and_grad(x), lambda: sv.evaluation.elbo(model, [x]):
        with pytest.raises(sv.InputError) as error:
            use()
        assert str(error.value) == f"forward gives a {kind}: expected a pair, (terms, cache)"


def test_a_loss_and_grad_without_a_return_is_named(x):
    class Own(sv.VAE):
        def loss_and_grad(self, x, eps=None, batch_size=None):
            super().loss_and_grad(x, eps, batch_size)

    model = Own(6, (5,), **OPTIONS)
    with pytest.raises(sv.InputError, match=r"^loss_and_grad gives a NoneType: expected sv\.Terms"):
        Trainer(model, sv.Adam(model.params), x).run(1)
    with pytest.raises(sv.InputError, match=r"^Own's loss_and_grad gives a NoneType: .* missing"):
        sv.gradcheck.check_model(model, x)


@pytest.mark.parametrize("size", [-8, 0, "a", np.arange(4)])
def test_a_size_of_the_batch_that_is_none_is_refused(size, x):
    with pytest.raises(sv.InputError, match=r"^batch_size is .*: expected a finite number larger"):
        sv.VAE(6, (5,), **OPTIONS).loss_and_grad(x, None, size)


def test_terms_that_are_none_are_named(x):
    class Own(sv.VAE):
        def forward(self, x, eps=None):
            terms, cache = super().forward(x, eps)
            return tuple(terms), cache

    with pytest.raises(sv.InputError) as error:
        Own(6, (5,), **OPTIONS).loss_and_grad(x)
    assert str(error.value) == (
        "forward gives a tuple for the terms: expected (terms, cache), with terms = "
        "sv.Terms(loss, reconstruction, kl)"
    )


class Squares:
    """Around the decoder's output, with a variance of 1/2; `axis` is that of the sum."""

    binary = False

    def __init__(self, data_dim, axis=-1):
        self.output_dim, self.axis = data_dim, axis

    def nll(self, x, output):
        d = x - output
        return (d * d).sum(axis=self.axis) + x.shape[1] / 2 * np.log(np.pi), d

    def nll_backward(self, dnll, d):
        return -2 * d * dnll[..., None]

    def mean(self, output):
        return output


def changed(method, change):
    """Return a likelihood of which one method gives something else."""
    right = getattr(Squares, method)
    return type("Own", (Squares,), {method: lambda self, *args: change(right(self, *args))})(6)


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        # Right for one draw, and for K draws of as many examples as an example has numbers.
        (Squares(6, axis=1), r"likelihood's nll returns an array of shape \(2, 6\) for arrays"),
        (Squares(6, axis=0), r"likelihood's nll returns an array of shape \(3, 6\) for arrays"),
        (changed("nll", lambda y: y[0]), r"likelihood's nll returns .*expected a pair"),
        (changed("nll_backward", lambda y: None), "likelihood's nll_backward returns a NoneType f"),
        (changed("nll_backward", lambda y: y.sum(0)), r"nll_backward returns .* of shape \(3, 6\)"),
        (changed("mean", lambda y: y[:, :3]), r"mean returns .* \(3, 3\) .*one of shape \(3, 6\)"),
        (changed("mean", lambda y: None), r"mean returns a NoneType"),
    ],
)
@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder])
def test_a_likelihood_whose_shapes_do_not_fit_is_refused(kind, likelihood, message):
    with pytest.raises(sv.InputError, match=f"^the likelihood's .*{message.split()[-1]}"):
        kind(6, likelihood=likelihood, **OPTIONS)
    with pytest.raises(sv.InputError, match=message):
        kind(6, likelihood=likelihood, **OPTIONS)


def test_a_likelihood_that_fits_serves_every_model(x):
    for model in (
        sv.VAE(6, (5,), activation="tanh", likelihood=Squares(6), **OPTIONS),
        sv.IWAE(6, (5,), activation="tanh", samples=3, likelihood=Squares(6), **OPTIONS),
        sv.ConditionalVAE(6, (5,), activation="tanh", likelihood=Squares(6), classes=2, **OPTIONS),
    ):
        rows = model.rows(x, np.array([0, 1, 1, 0]))
        assert sv.gradcheck.check_model(model, rows, rng=0).ok


class OnlyPositive(Squares):
    """Takes what a scale or a count may be, and says so otherwise."""

    def nll(self, x, output):
        if not (x > 0).all() or not (output > 0).all() or (output > 1).any():
            raise ValueError("out of range")
        return super().nll(x, output)


def test_a_likelihood_is_tried_where_it_is_likely_to_hold():
    sv.VAE(6, likelihood=OnlyPositive(6), **OPTIONS)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("log_density", lambda y: y[0], "log_density returns an array of shape .*expected a pair"),
        ("log_density", lambda y: (y[0].sum(), y[1]), r"log_density returns .* of shape \(\)"),
        ("log_density_backward", lambda y: None, "log_density_backward returns a NoneType"),
        ("draw", lambda y: y[:, :1], r"draw returns .* of shape \(3, 1\) .*one of shape \(3, 2\)"),
        ("kl", lambda y: y[0], "kl returns an array of shape .*expected a pair"),
        ("kl_backward", lambda y: y[0], "kl_backward returns .*: expected 2 gradients, a tuple"),
    ],
)
def test_a_prior_whose_shapes_do_not_fit_is_refused(method, change, message):
    right = getattr(sv.MixturePrior, method)
    own = type("Own", (sv.MixturePrior,), {method: lambda self, *args: change(right(self, *args))})
    with pytest.raises(sv.InputError, match=f"^the prior's {message}"):
        sv.VAE(6, prior=own(2, 3), **OPTIONS)


def test_free_bits_do_not_hide_a_kl_that_was_replaced():
    class Half(sv.VAE):
        def kl(self, mu, logvar):
            kl, cache = super().kl(mu, logvar)
            return kl / 2, cache

    Half(6, **OPTIONS)
    with pytest.raises(sv.InputError) as error:
        Half(6, free_bits=0.5, **OPTIONS)
    assert str(error.value) == (
        "free_bits is 0.5: it charges the KL of VAE, which the model replaces with another, so "
        "leave it at 0"
    )


@pytest.mark.parametrize(
    ("options", "name", "value", "message"),
    [
        ({}, "beta", float("nan"), "beta is nan: expected a finite number, 0 or larger"),
        ({}, "beta", "x", "beta is 'x': expected a finite number"),
        ({}, "free_bits", -1, "free_bits is -1: expected a finite number, 0 or larger"),
        ({"prior": "mixture"}, "free_bits", 0.5, "free_bits is 0.5: it charges the KL of each lat"),
        ({"samples": 2}, "beta", 2, "beta is 2.0: importance weights have no KL term"),
        ({"samples": 2}, "free_bits", 1, "free_bits is 1.0: importance weights have no KL term"),
        ({"samples": 2}, "samples", 0, "samples is 0: expected a positive integer"),
        ({"samples": 2}, "gradient", "x", "gradient is 'x': expected one of standard, dreg"),
    ],
)
def test_an_option_set_by_hand_is_refused_as_the_constructor_does(options, name, value, message, x):
    kind = sv.IWAE if "samples" in options else sv.VAE
    model = kind(6, (5,), **options, **OPTIONS)
    setattr(model, name, value)
    for use in (lambda: model.loss_and_grad(x), lambda: sv.Trainer(model, sv.Adam(model.params), x),
                lambda: kind(6, (5,), **{**options, name: value}, **OPTIONS)):  # fmt: skip
        with pytest.raises(sv.InputError, match=f"^{message}"):
            use()


def test_free_bits_set_by_hand_do_not_hide_a_kl_that_was_replaced_by_hand(x):
    model = sv.VAE(6, (5,), **OPTIONS)
    model.kl = lambda mu, logvar: sv.VAE.kl(mu, logvar)
    model.loss_and_grad(x)
    model.free_bits = 0.5
    with pytest.raises(sv.InputError, match="it charges the KL of VAE, which the model replaces"):
        model.loss_and_grad(x)
    model.kl = sv.VAE.kl
    model.loss_and_grad(x)
    model.kl_backward = lambda dkl, cache: sv.VAE.kl_backward(dkl, cache)
    with pytest.raises(sv.InputError, match="it charges the KL of VAE, which the model replaces"):
        model.loss_and_grad(x)


# --- copies


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder])
def test_a_copy_goes_on_alike_and_alone(make, kind, x):
    model = kind(6, (5,), likelihood="gaussian", variance="shared", rng=1, **OPTIONS)
    other = make(model)
    other.check_parts()
    other.params.check_views()
    before = model.params.value.copy()
    assert other.loss_and_grad(x) == model.loss_and_grad(x)  # with the same noise, too
    np.testing.assert_array_equal(other.params.grad, model.params.grad)
    sv.Adam(other.params).step()
    assert (other.params.value != before).any()
    np.testing.assert_array_equal(model.params.value, before)


def test_a_copy_on_a_device_stays_there(monkeypatch, x):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    model = sv.VAE(6, (5,), backend="cupy", **OPTIONS)
    other = copy.deepcopy(model)
    assert other.backend == model.backend
    assert type(other.params.value) is type(model.params.value)


def test_a_backend_can_be_pickled(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    for name in "numpy", "cupy":
        backend = sv.backend.get_backend(name)
        assert pickle.loads(pickle.dumps(backend)) == backend
        assert backend.xp.__name__ in (name, "standin")


def test_a_twin_shares_the_values_and_owns_its_gradient(x):
    model = sv.VAE(6, (5,), **OPTIONS)
    twin = model.twin()
    assert twin.params.value is model.params.value
    assert not np.shares_memory(twin.params.grad, model.params.grad)
    twin.params.check_views()
    twin.check_parts()
    eps = np.zeros((4, 2))
    model.params.grad[...] = 7
    twin.loss_and_grad(x, eps)
    assert (model.params.grad == 7).all()
    sv.SGD(model.params, 0.1).step()
    assert twin.loss_and_grad(x, eps) == model.loss_and_grad(x, eps)
    np.testing.assert_array_equal(twin.params.grad, model.params.grad)
    model.set_beta(5)
    twin.follow(model)
    assert twin.beta == 5
    assert twin.params.grad is not model.params.grad


def test_a_twin_of_parameters_that_were_gathered_again_is_refused():
    model = sv.VAE(6, (5,), **OPTIONS)
    twin = model.twin()
    model.gather()
    with pytest.raises(sv.InputError) as error:
        twin.follow(model)
    assert str(error.value) == (
        "the model's parameters were gathered again while its batches are taken in parts: gather "
        "them between two epochs"
    )


# --- words


class Own(sv.Linear):
    """Another layer than the one whose repr it inherits."""


def test_a_layer_is_not_named_as_the_class_that_it_comes_from():
    assert sv.layers.in_words(Own(2, 3)) == "Own()"
    model = sv.VAE(6, (5,), 2)
    model.encoder.layers[0] = Own(6, 5)
    model.gather()
    assert model.config()["kind"] is None  # else a file would be loaded as another model
    assert "Own()" in repr(model)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: sv.VAE(6), "VAE(6, hidden=(400,), latent_dim=20)"),
        (lambda: sv.Autoencoder(6, (3, 2), 1, likelihood="gaussian", variance="shared"),
         "Autoencoder(6, hidden=(3, 2), latent_dim=1, likelihood='gaussian', variance='shared')"),
        (lambda: sv.VAE(6, (), 2, dtype="float64", beta=2, activation="tanh"),
         "VAE(6, hidden=(), latent_dim=2, dtype='float64', activation='tanh', beta=2.0)"),
        (lambda: sv.VAE(6, latent_dim=2, encoder=sv.Sequential([sv.Linear(6, 4), Scale()])),
         "VAE(6, latent_dim=2, encoder=Sequential([Linear(6, 4), Scale()]), decoder=Sequential("
         "[Linear(2, 400), Activation('relu'), Linear(400, 6)]), likelihood=Bernoulli())"),
    ],
)  # fmt: skip
def test_a_model_says_what_would_build_it(model, text):
    assert repr(model()) == text


def test_the_options_build_the_model_again(rng):
    model = sv.VAE(6, (3,), 2, activation="tanh", likelihood="gaussian", variance=0.5, beta=2)
    config = json.loads(json.dumps(model.config()))
    assert (config.pop("kind"), config.pop("class")) == ("vae", "VAE")
    again = sv.VAE(**config)
    assert again.config() == model.config()


def test_options_that_would_not_build_the_model_again_have_no_kind():
    class Own(sv.VAE):
        pass

    changed = sv.VAE(6, (3,), 2)
    changed.encoder.layers.insert(1, sv.Activation("tanh"))
    replaced = sv.VAE(6, (3,), 2)
    replaced.kl = lambda mu, logvar: sv.VAE.kl(2 * mu, logvar)
    patched = sv.VAE(6, (3,), 2)
    layer = patched.encoder.layers[0]
    layer.forward = lambda x: sv.Linear.forward(layer, 2 * x)
    activation = sv.VAE(6, (3,), 2)
    tanh = activation.encoder.layers[1]
    tanh.forward, tanh.backward = sv.activations.ACTIVATIONS["tanh"]
    prior = sv.VAE(6, (3,), 2)
    prior.prior.draw = lambda *args: 0
    handed_in = sv.VAE(6, latent_dim=2, decoder=sv.Linear(2, 6))
    for model in Own(6), changed, replaced, patched, activation, prior, handed_in:
        assert model.config()["kind"] is None
        json.dumps(model.config())
    assert Own(6).config()["class"] == "Own"


def test_the_summary_is_a_table_of_the_layers():
    model = sv.VAE(6, (5,), 2, likelihood="gaussian", variance="shared")
    summary = model.summary()
    assert repr(summary) == str(summary)  # as a notebook and an interpreter show it
    assert summary.splitlines() == [
        "VAE(6, latent_dim=2), Gaussian(variance='shared')",
        "",
        "part        layer               output  parameters",
        "encoder.0   Linear(6, 5)        (B, 5)          35",
        "encoder.1   Activation('relu')  (B, 5)           0",
        "encoder.2   Linear(5, 4)        (B, 4)          24",
        "decoder.0   Linear(2, 5)        (B, 5)          15",
        "decoder.1   Activation('relu')  (B, 5)           0",
        "decoder.2   Linear(5, 6)        (B, 6)          36",
        "likelihood  Gaussian                             1",
        "",
        "111 parameters, float32 on the CPU",
    ]


def test_the_summary_counts_a_part_that_a_subclass_adds():
    class WithHead(sv.VAE):
        parts = (*sv.VAE.parts, "head")

        def __init__(self, *args, **options):
            self.head = sv.Linear(2, 3, dtype="float64")
            super().__init__(*args, **options)

    model = WithHead(6, (5,), prior="mixture", **OPTIONS)
    rows = [line.split() for line in model.summary().splitlines()]
    assert ["head", "Linear", "9"] in rows
    sizes = [int(row[-1].replace(",", "")) for row in rows[3:-2]]
    assert sum(sizes) == len(model.params.value)


def test_the_summary_counts_a_parameter_that_a_subclass_names():
    class Tempered(sv.VAE):
        def __init__(self, *args, **options):
            self.temperature = sv.Parameter(np.ones(3))
            super().__init__(*args, **options)

        def named_parameters(self):
            yield from super().named_parameters()
            yield "temperature", self.temperature

    model = Tempered(6, (5,), **OPTIONS)
    rows = [line.split() for line in model.summary().splitlines()]
    assert ["temperature", "Parameter", "(3,)", "3"] in rows
    assert sum(int(row[-1].replace(",", "")) for row in rows[3:-2]) == len(model.params.value)


def test_the_summary_of_a_part_that_was_changed_adds_up():
    model = sv.VAE(6, (5,), **OPTIONS)
    model.encoder = sv.Linear(6, 2 * model.latent_dim, dtype=model.dtype)
    rows = [line.split() for line in model.summary().splitlines()]
    total = sum(int(row[-1].replace(",", "")) for row in rows[3:-2])
    assert rows[-1][0] == f"{total:,}"


def test_in_a_notebook_a_model_is_the_table_of_its_layers():
    model = sv.VAE(6, (5,), 2, likelihood="gaussian", variance="shared")
    html = model._repr_html_()
    assert "111 parameters, float32 on the CPU</p>" in html
    assert "<th>layer</th>" in html
    assert "<td>encoder.2</td><td>Linear(5, 4)</td><td>(B, 4)</td><td>24</td>" in html
    assert html.count("<tr>") == 1 + 7


def test_the_terms_show_their_numbers(x):
    terms = sv.Terms(np.float64(3.25), np.float64(2.0), np.float64(1.25))
    assert repr(terms) == "Terms(loss=3.25, reconstruction=2, kl=1.25)"
    rows = sv.Terms(*np.ones((3, 2)))
    assert repr(rows).startswith("Terms(loss=array([1., 1.]), reconstruction=array(")


def test_an_optimizer_shows_its_numbers_and_wants_parameters():
    model = sv.VAE(6)
    assert repr(sv.Adam(model.params)) == "Adam(lr=0.001, steps=0, betas=(0.9, 0.999), eps=1e-08)"
    assert repr(sv.SGD(model.params, 0.1)) == "SGD(lr=0.1, steps=0, momentum=0.0)"
    for optimizer in sv.Adam, sv.SGD:
        with pytest.raises(sv.InputError, match=r"params is a VAE: expected .* model\.params"):
            optimizer(model, 0.1)


# --- what a file tells of a model


def parts_of_my_own():
    return {"encoder": sv.Linear(4, 4), "decoder": sv.Linear(2, 4)}


def test_a_built_model_and_one_of_parts_are_told_apart():
    built = sv.VAE(4, (3,), 2, free_bits=0.5, beta=2.0)
    own = sv.VAE(4, latent_dim=2, **parts_of_my_own())
    told = "f: made with another configuration: the {} has parts of its own, such as the encoder "
    for model, other, of in (built, own, "file"), (own, built, "model"):
        with pytest.raises(sv.InputError) as error:
            model.require_config(other.config(), "f")
        message = str(error.value)
        assert message.startswith(told.format(of) + "Linear(4, 4), and the other has what hidden=")
        assert message.endswith("(3,) builds") or message.endswith("[3] builds")
    plain = sv.VAE(4, (3,), 2)  # beta and free bits may change from one training to the next
    built.require_config(plain.config(), "f")
    plain.require_config(built.config(), "f")


class Tempered:
    """x / tau, with a tau that a callback lowers: a state that its words show."""

    def __init__(self, tau=1.0):
        self.tau = tau

    def forward(self, x):
        return x / self.tau, None

    def backward(self, dy, cache):
        return dy / self.tau

    def __repr__(self):
        return f"{type(self).__name__}(tau={self.tau}, near=nan)"


class Tempered2(Tempered):
    def __repr__(self):
        return super().__repr__()


def test_a_file_is_loaded_where_only_numbers_in_a_layers_words_differ(x, tmp_path):
    def build(layer):
        stack = sv.Sequential([sv.Linear(6, 4, dtype="float64"), layer])
        return sv.VAE(6, encoder=stack, **OPTIONS)

    model, path = build(Tempered()), tmp_path / "m.safetensors"
    model.encoder.layers[1].tau *= 0.81
    model.save(path)
    other = build(Tempered())
    with pytest.warns(sv.errors.InputWarning) as caught:
        assert sv.load(path, into=other) is other
    assert [str(w.message) for w in caught] == [
        f"{path}: the encoder was Sequential([Linear(6, 4), Tempered(tau=0.81, near=nan)]), and is "
        "Sequential([Linear(6, 4), Tempered(tau=1.0, near=nan)]) in the model: what a layer keeps "
        "besides its parameters is in no file"
    ]
    np.testing.assert_array_equal(other.params.value, model.params.value)
    arrays = build(Tempered(np.array([0.104, 0.006, 0.38, 1])))
    arrays.save(path)
    arrays.encoder.layers[1].tau = np.array([-3e-20, 12.0, 7.0, np.inf])
    with pytest.warns(sv.errors.InputWarning, match="the encoder was"):
        sv.load(path, into=arrays)
    model.save(path)
    for layer in sv.Activation("tanh"), Tempered2():
        with pytest.raises(sv.InputError, match="made with another configuration: encoder was"):
            sv.load(path, into=build(layer))


def test_the_warning_of_such_a_file_names_the_line_that_loads_it(tmp_path):
    """`make mutants` leaves this one out: calls pass through mutmut's own frames there."""
    model, path = sv.VAE(6, encoder=Tempered(), latent_dim=3), tmp_path / "m.safetensors"
    model.save(path)
    model.encoder.tau = 0.5
    with pytest.warns(sv.errors.InputWarning) as caught:
        sv.load(path, into=model)
    assert caught[0].filename == __file__


class Scaled(sv.priors.StandardNormal):
    """A prior whose words show a number; a class of one's own, and so told in words."""

    kind = None

    def __init__(self, scale=1.0):
        self.scale = scale

    def __repr__(self):
        return f"Scaled({self.scale})"


def test_a_prior_of_ones_own_is_told_in_words(tmp_path):
    model, path = sv.VAE(6, (5,), 2, prior=Scaled()), tmp_path / "m.safetensors"
    assert repr(model) == "VAE(6, hidden=(5,), latent_dim=2, prior=Scaled(1.0))"
    model.save(path)
    model.prior.scale = 2.0
    with pytest.warns(sv.errors.InputWarning, match=r"the prior was Scaled\(1\.0\), and is Scaled"):
        sv.load(path, into=model)


def test_an_attribute_that_is_gone_is_gone_in_a_twin():
    model = sv.VAE(6, (5,), 2)
    model.weight, model.own = 2.0, 3.0
    twin = model.twin()
    del model.weight
    model.own = 4.0
    twin.follow(model)
    assert not hasattr(twin, "weight")
    assert twin.own == 4.0


def test_a_standardization_is_told_in_the_file_and_not_in_words():
    built, own = sv.VAE(4, (3,), 2), sv.VAE(4, latent_dim=2, **parts_of_my_own())
    for model in built, own:
        before, words = model.config(), repr(model)
        model.note_standardization([0.0] * 4, [2.0] * 4)
        told = {"standardize": [[0.0] * 4, [2.0] * 4]} if model is built else {}
        assert model.config() == before | told
        assert repr(model) == words


@pytest.mark.parametrize("least", [-1.0, -1e-3])
def test_values_below_0_are_refused_where_the_likelihood_is_of_0_to_1(least):
    """As those of images that were scaled to [-1, 1]: their loss has no bound."""
    x = np.full((2, 6), 0.5)
    x[1, 3] = least
    for use in (sv.VAE(6, (5,), 2, rng=0).loss_and_grad, sv.VAE(6, (5,), 2, rng=0).encode):
        with pytest.raises(sv.InputError) as caught:
            use(x)
        assert str(caught.value) == (
            f"x holds {least:g}: the Bernoulli likelihood needs values from 0 to 1, so move and "
            "divide, or use the Gaussian likelihood"
        )
    sv.VAE(6, (5,), 2, likelihood="gaussian", rng=0).loss_and_grad(x)


@pytest.mark.parametrize("largest", [1.5, 255.0])
def test_values_above_1_are_refused_where_the_likelihood_is_of_0_to_1(largest):
    x = np.full((2, 6), 0.5)
    x[1, 3] = largest
    with pytest.raises(sv.InputError) as caught:
        sv.VAE(6, (5,), 2, rng=0).loss_and_grad(x)
    assert str(caught.value) == (
        f"x holds {largest:g}: the Bernoulli likelihood needs values from 0 to 1, so divide by the "
        "value that means white, such as 255"
    )
    sv.VAE(6, (5,), 2, likelihood="gaussian", rng=0).loss_and_grad(x)
    sv.VAE(6, (5,), 2, rng=0).loss_and_grad(np.ones((2, 6)))
