"""What every model has besides its mathematics: parts, their parameters, noise, copies and a name.

`Model` is the base of :class:`~scratchvae.Autoencoder` and so of every other model. It asks its
parts only for what :class:`~scratchvae.layers.Layer` promises.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from . import checkpoint
from .backend import Array, Backend, namespace
from .errors import InputError, InputWarning, NonFiniteError, require_methods
from .held import held
from .layers import Layer, in_words, named, require_layer, wrong_dx
from .likelihoods import Likelihood, require_likelihood
from .notebook import table
from .parameters import Parameter, Parameters
from .shapes import (
    drawing_nothing,
    require_decoder_input_shapes,
    require_likelihood_shapes,
    require_nll_shapes,
    to_try,
)
from .summary import HEAD, Text, rows_of, summarize, total_of

NUMBERS = int | float | str | np.generic | np.ndarray | None  # what a twin takes over


class Model:
    """Encoder, decoder and likelihood, and the flat vectors that hold their parameters.

    Derive a model of your own from :class:`~scratchvae.Autoencoder` or :class:`~scratchvae.VAE`:
    their constructors set all that this class reads, build the parts and call `gather`.
    """

    kind: str | None = None  # the name under which `scratchvae.load` builds the model again
    parts: tuple[str, ...] = ("encoder", "decoder", "likelihood")  # in the order of `params`
    free: tuple[str, ...] = ()  # options that may be set before any step
    classes: int | None = None  # how many labels the model tells apart, if it is given any

    data_dim: int
    latent_dim: int
    encoder: Layer
    decoder: Layer
    likelihood: Likelihood
    prior: Any = None  # a Prior, where the model has one
    params: Parameters
    _widths: dict[str, tuple[int, int]]  # when the parameters were gathered
    _layers: list[Any] | None  # of encoder and decoder, when they were last looked at
    backend: Backend
    dtype: np.dtype[Any]
    rng: np.random.Generator
    _options: dict[str, Any]  # of the stacks and the likelihood that the model built itself
    _stacks: list[tuple[str, str]] | None  # these stacks in words; None if a part was handed in

    # --- parameters

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters of all parts, named ``{part}.{name}``."""
        for part in (*self.parts, "prior"):
            if not hasattr(self, part):
                raise InputError(
                    f"the model has no {part} yet, one of its `parts`: set it before "
                    "super().__init__(...), which gathers the parameters"
                )
            for name, p in named(getattr(self, part)):
                yield f"{part}.{name}", p

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return for the encoder and the decoder how many numbers it takes and gives."""
        return {
            "encoder": (self.data_dim, self.latent_dim),
            "decoder": (self.latent_dim, self.likelihood.output_dim),
        }

    def gather(self) -> None:
        """Make `params` anew, of the parameters that the parts have now.

        Call it after you have changed a part, as in ``model.encoder = ...``, and make a new
        optimizer: its state belongs to the old vectors.

        Raises
        ------
        InputError
            If a part is no layer of the right widths, or a parameter of another backend or dtype.
        """
        require_methods("the model", self)
        self.require_contracts()
        self._widths = self.widths()
        self._require_widths()
        self._layers, again = self._all_layers(), self._all_layers()
        if _ids(self._layers) != _ids(again):  # made at each call: nobody can tell a change
            self._layers = None
        try:
            pairs = [(name, p) for name, p in self.named_parameters()]
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(
                "named_parameters of a part does not yield pairs of a name and a Parameter, as in "
                f'`yield "W", self.W`: {error}'
            ) from error
        for name, p in pairs:
            if not isinstance(p, Parameter):
                raise InputError(f"{name} is a {type(p).__name__}: expected a Parameter")
            xp = namespace(p.value)
            if xp is not self.backend.xp or p.value.dtype != self.dtype:
                raise InputError(
                    f"{name} is a {xp.__name__} array of {p.value.dtype}: expected "
                    f"{self.backend.name} and {self.dtype}, the backend and the dtype of the model"
                )
        require_likelihood_shapes(self)
        self.require_named()
        self.params = Parameters(pairs)

    def require_contracts(self) -> None:
        """Raise InputError unless the likelihood has what the model asks of one."""
        require_likelihood(self.likelihood)

    def require_named(self) -> None:
        """Raise InputError if a part holds a parameter that it does not name: it would not train.

        What another model holds is its own affair. This looks into all that the model holds, so it
        is asked when parameters are gathered, when training begins and before a file is written,
        but not at every step.
        """
        known = {id(p) for _, p in self.named_parameters()}

        def wanted(x: Any) -> bool | None:
            if isinstance(x, Parameter):
                return id(x) not in known and not x.constant
            return False if isinstance(x, Parameters | Model) and x is not self else None

        for name, _ in held(self, wanted):
            raise InputError(
                f"{name} is a Parameter that no named_parameters names, so it would never be "
                "trained: name it, or set its `constant` to True if it shall stay as it is"
            )

    def check_parts(self) -> None:
        """Raise InputError if a part was changed and `params` does not know, or a misfit."""
        self.require_contracts()
        if self._widths != self.widths():
            raise InputError(
                f"the widths of the parts have changed from {self._widths} to {self.widths()}: "
                "call model.gather() and make a new optimizer"
            )
        self.params.require(self.named_parameters())
        layers = self._all_layers()
        # They have no parameters, but perhaps widths that do not fit.
        if self._layers is not None and _ids(layers) != _ids(self._layers):
            self._require_widths()
            self._layers = layers

    def _all_layers(self) -> list[Any]:
        return [layer for part in self._widths for layer in _within(getattr(self, part))]

    def try_formulas(self) -> None:
        """Raise InputError if a formula of the model gives something of a wrong shape.

        Each is called once, in a copy, unless a subclass has a forward or a backward of its own,
        which may want other shapes. Training, a gradient check and a bound begin with it; a model
        cannot ask when it is built, since a subclass may not have all that its formulas read.
        """
        require_methods("the model", self)
        self.check_parts()
        if self.is_plain():
            with drawing_nothing(self):
                to_try(self).require_formula_shapes()

    def require_formula_shapes(self) -> None:
        """Raise InputError unless the formulas that a subclass may replace fit in shape."""
        require_nll_shapes(self)
        require_decoder_input_shapes(self)

    def is_plain(self) -> bool:
        """Return whether forward and backward are those of a model of this package."""
        package = f"{__package__}."
        return all(f.__module__.startswith(package) for f in (self.forward, self.backward))

    def forward(self, x: Any, eps: Any = None) -> Any:
        """Return the terms of every example, (B,) each, and the cache for `backward`."""
        raise NotImplementedError

    def backward(self, dloss: Array, cache: Any) -> None:
        """Add to `params.grad` the gradient for dloss (B,), the weight of each example's loss."""
        raise NotImplementedError

    def _require_widths(self) -> None:
        """Raise InputError unless each part takes and gives rows of its width."""
        with drawing_nothing(self):
            for part, (n_in, n_out) in self._widths.items():
                self._require_width(part, getattr(self, part), n_in, n_out)

    @np.errstate(all="ignore")  # a norm of zeros may be divided by
    def _require_width(self, part: str, layer: Layer, n_in: int, n_out: int) -> None:
        """Raise InputError unless the layer takes rows of width n_in and gives rows of n_out.

        Three rows of numbers from 0 to 1 go forward, and zeros come back, which change no gradient.
        The rows must stay as they are, and others with numbers from -3 to 3: those of training may
        be the user's own data. All this is tried in a copy, where there can be one, so that what a
        layer keeps, such as running means or a generator, knows of training alone.
        """
        require_layer(f"the {part}", layer)
        own, layer = layer, to_try(layer)
        shared = {id(p) for _, p in _parameters_of(own)}  # as by a function, which has no copy
        for _, p in _parameters_of(layer):
            if id(p) not in shared:  # the copy may be noted somewhere, and is not to be trained
                p.constant = True
        given = np.linspace(0, 1, 3 * n_in).reshape(3, n_in)
        rows = self.backend.asarray(given, dtype=self.dtype)
        before = rows.copy()
        text = in_words(layer)
        try:
            y, cache = layer.forward(rows)
            shape = tuple(y.shape)
        except OSError:  # the system's refusal is no fault of the layer
            raise
        except Exception as error:
            raise InputError(
                f"the {part} does not turn an array of shape {rows.shape} into (y, cache): "
                f"{text} raised {type(error).__name__}: {error}"
            ) from error
        if shape != (3, n_out):
            raise InputError(
                f"the {part} turns an array of shape {rows.shape} into one of shape {shape}: "
                f"expected (3, {n_out})"
            )
        if _shapes(layer) != _shapes(own):  # it makes parameters when it sees data first
            own.forward(rows)
        try:
            dx, lost = self._backward_twice(layer, rows, self.backend.xp.zeros_like(y), cache)
        except OSError:
            raise
        except Exception as error:
            raise InputError(
                f"the {part} has a backward that fails: for dy of shape {shape} {text} raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if getattr(dx, "shape", None) != rows.shape:
            raise wrong_dx(f"the {part}", dx, rows.shape)
        if lost:
            raise InputError(
                f"the {part} has a backward that writes over the gradient of {lost}, and so loses "
                f"what was added to it before: expected of {text} to add, with `.grad += d` or "
                "`.add(d)`"
            )
        changed = not bool((rows == before).all())
        rows = self.backend.asarray(6 * given - 3, dtype=self.dtype)  # as codes and other data are
        before, first = rows.copy(), y.copy()
        with suppress(Exception):  # which may lie outside of what it takes
            layer.forward(rows)
        if not bool(((y == first) | (y != y)).all()):
            raise InputError(
                f"the {part} writes over the array that its last call gave: expected of {text} a "
                "new one at each call"
            )
        if changed or not bool((rows == before).all()):
            raise InputError(
                f"the {part} changes the array that it is given: expected of {text} a new one, "
                "such as y = x - 1 instead of x -= 1"
            )

    @staticmethod
    def _backward_twice(layer: Layer, rows: Array, dy: Array, cache: Any) -> tuple[Array, str]:
        """Return dx, and the name of a parameter whose old gradient the backward does not keep."""
        parameters = _parameters_of(layer)
        before = []  # where there was no copy, these are the model's own
        for _, p in parameters:
            p.complete_gradient()
            before.append(p.grad.copy())

        def on_top_of(start: int, cache: Any) -> tuple[Array, list[Array]]:
            for _, p in parameters:
                p.grad[...] = start
            return layer.backward(dy, cache), [p.grad.copy() for _, p in parameters]

        try:
            dx, first = on_top_of(1, cache)
            _, second = on_top_of(2, layer.forward(rows)[1])
        finally:
            for (_, p), grad in zip(parameters, before, strict=True):
                p.grad[...] = grad
        lost = [
            name
            for (name, _), a, b in zip(parameters, first, second, strict=True)
            if (a == b).any()
        ]
        return dx, lost[0] if lost else ""

    # --- noise

    def noise_shape(self, n: int) -> tuple[int, ...] | None:
        """Return the shape of the noise that `forward` takes for n examples; None: it takes none.

        The last axis but one is that of the examples: (n, Z), or (K, n, Z) for K draws of each.
        """
        return None

    def draw_eps(self, n: int, rng: np.random.Generator) -> Array | None:
        """Return the noise of the posterior for n examples, drawn from N(0, 1)."""
        shape = self.noise_shape(n)
        if shape is None:
            return None
        if len(shape) < 2 or shape[-2] != n:
            raise InputError(
                f"noise_shape gives {shape} for {n} examples: expected theirs as the last axis but "
                f"one, such as ({n}, {self.latent_dim})"
            )
        return self.backend.standard_normal(rng, shape, self.dtype)

    def noise(self, eps: Any, n: int) -> Array | None:
        """Return `eps` as an array, drawn if it is None; InputError if its shape is wrong."""
        shape = self.noise_shape(n)
        if eps is None or shape is None:
            return self.draw_eps(n, self.rng)
        eps = self.backend.asarray(eps, dtype=self.dtype)
        if eps.shape != shape:
            raise InputError(f"eps has shape {eps.shape}: expected {shape}, for {n} examples")
        return eps

    def as_batch(self, name: str, x: Any, width: int) -> Array:
        """Return `x` as an array (B, width) of the model; InputError if its shape is wrong."""
        x = self.backend.asarray(x, dtype=self.dtype)
        if x.ndim != 2 or x.shape[1] != width or len(x) == 0:
            raise InputError(f"{name} has shape {x.shape}: expected (batch size, {width})")
        return x

    def require_terms(self, found: Any, n: int | None = None) -> None:
        """Raise InputError unless `forward` gave (terms, cache), each term one for each example.

        If their number n is not given, it is that of the losses.
        """
        if type(found) is not tuple or len(found) != 2:
            raise InputError(
                f"forward gives a {type(found).__name__}: expected a pair, (terms, cache)"
            )
        terms = found[0]
        if getattr(terms, "_fields", None) != ("loss", "reconstruction", "kl"):
            raise InputError(
                f"forward gives a {type(terms).__name__} for the terms: expected (terms, cache), "
                "with terms = sv.Terms(loss, reconstruction, kl)"
            )
        n = (getattr(terms.loss, "shape", ()) or (0,))[-1] if n is None else n
        of = f"{n} examples" if n else "a batch"
        for name, term in terms._asdict().items():
            shape = getattr(term, "shape", None)
            if shape != (n,):
                what = f"{term!r} as {name}" if shape is None else f"a {name} of shape {shape}"
                raise InputError(
                    f"forward gives {what} for {of}: expected one number for each example"
                )

    # --- rows of data: what a model is trained on, for each example

    def rows(self, x: Any, labels: Any = None, white: float = 1.0) -> Array:
        """Return the rows of data for examples x (N, D): x itself, whatever the labels.

        A model that is given more than x, such as a label, appends it here, with `white` for a 1.
        """
        return x

    def as_rows(self, x: Any) -> Array:
        """Return rows of data as an array of the model; InputError if they cannot be its data."""
        return self.in_range(self.as_batch("x", x, self.data_dim))

    def in_range(self, x: Array) -> Array:
        """Return rows `x`; raise InputError unless they hold 0 to 1 where those are the limits.

        A GPU is not asked: it would have to be waited for.
        """
        if self.likelihood.binary and self.backend.name == "numpy":
            least, most = float(x.min()), float(x.max())
            if most > 1 or least < 0:
                how = "divide by the value that means white, such as 255"
                if least < 0:
                    how = "move and divide, or use the Gaussian likelihood"
                raise InputError(
                    f"x holds {most if most > 1 else least:g}: the Bernoulli likelihood needs "
                    f"values from 0 to 1, so {how}"
                )
        return x

    def decoder_input(self, z: Array, x: Array) -> Array:
        """Return what the decoder is given for codes z (..., B, Z) of the rows x: z itself."""
        return z

    def decoder_input_backward(self, dinput: Array) -> Array:
        """Return dz (..., B, Z) from the gradient for the decoder's input, (..., B, Z)."""
        return dinput

    # --- units of the data

    @property
    def standardization(self) -> Any:
        """Mean and standard deviation of each column, two lists, if `standardize` was called."""
        return self._options.get("standardize")

    def note_standardization(self, mean: list[float], std: list[float]) -> None:
        """Let `config` know the numbers by which :func:`scratchvae.standardize` changed parts."""
        self._options["standardize"] = [mean, std]
        self._stacks = self._in_words() if self._stacks is not None else None

    # --- copies, files and words

    def twin(self) -> Self:
        """Return a copy that shares the values of the parameters and has a gradient of its own.

        So two threads can take a part of a batch each.
        """
        return copy.deepcopy(self, {id(self.params.value): self.params.value})

    def follow(self, model: Self, but: Collection[str] = ()) -> None:
        """Take over the numbers, such as beta, of the model that this one is a twin of.

        Arrays and lists of numbers and None too, and that an attribute is gone; not what a layer
        holds, and not what has one of the names in `but`.
        """
        if model.params.value is not self.params.value:
            raise InputError(
                "the model's parameters were gathered again while its batches are taken in parts: "
                "gather them between two epochs"
            )
        for name in [name for name in vars(self) if name not in vars(model)]:
            delattr(self, name)
        for name, value in vars(model).items():
            if is_numbers(value) and name not in but:
                setattr(self, name, value)

    def config(self) -> dict[str, Any]:
        """Return the kind of the model, and the options that build one of the same shape.

        The kind is None if they do not suffice: for a class of your own, or where a part was handed
        in or changed, or a method replaced. The parts stand there in words then.
        """
        same = self._stacks == self._in_words() and isinstance(self._options["likelihood"], str)
        parts = (getattr(self, part) for part in (*self.parts, "prior"))
        layers = [layer for part in parts for layer in _within(part)]
        same = same and not any(_has_own_method(x) for x in (self, *layers))
        config = {"kind": vars(type(self)).get("kind") if same else None}
        config |= {"class": type(self).__name__, "data_dim": self.data_dim}
        shape = {"latent_dim": self.latent_dim, "dtype": self.dtype.name}
        return config | shape | (self._options if same else dict(self._in_words()))

    def require_config(self, saved: dict[str, Any], path: str | Path) -> None:
        """Raise InputError unless what `config` told of the model in a file agrees with this one.

        What may change from one training to the next, such as beta, may differ.
        """
        now, free = self.config(), ("kind", *self.free)
        for one, other, of in (saved, now, "the file"), (now, saved, "the model"):
            if "encoder" in one and "hidden" in other:
                raise InputError(
                    f"{path}: made with another configuration: {of} has parts of its own, such as "
                    f"the encoder {one['encoder']}, and the other has what "
                    f"hidden={other['hidden']} builds"
                )
        # Through JSON, as a file: a tuple becomes a list.
        saved, now = json.loads(json.dumps([saved, now]))
        for name, value in now.items():
            if name not in saved or name in free or saved[name] == value:
                continue
            if name in (*self.parts, "prior") and _but_for_numbers(saved[name], value):
                warnings.warn(
                    f"{path}: the {name} was {saved[name]}, and is {value} in the model: what a "
                    "layer keeps besides its parameters is in no file",
                    InputWarning,
                    stacklevel=3,
                )
            else:
                raise InputError(
                    f"{path}: made with another configuration: {name} was {saved[name]!r}, and is "
                    f"{value!r} in the model"
                )

    def own_numbers(self) -> dict[str, Any]:
        """Return what a class of your own, or a callback, keeps in the model, by attribute.

        Those are numbers, words and None, tuples and lists of them, which `config` does not tell.
        """
        return checkpoint.plain_values(self, self._told())

    def _told(self) -> list[str]:
        """Return the attributes that `config` tells, or that belong to this package."""
        config = {k: v for k, v in self.config().items() if vars(self).get(k) == v}
        return [*config, "_layers", "_stacks"]  # of this package's, those that may be plain values

    def take_options(self, saved: dict[str, Any], numbers: dict[str, Any] | None) -> None:
        """Set the `free` options as `config` told them, and what `own_numbers` returned.

        What an older file does not tell stays as it is; InputError if one cannot be used.
        """
        if numbers is not None:
            checkpoint.take_values(self, numbers, self._told())
        for name in self.free:
            if name in saved:
                setattr(self, name, checkpoint.unpacked(saved[name]))
        self.check_parts()

    def _in_words(self) -> list[tuple[str, str]]:
        return [(part, in_words(getattr(self, part))) for part in self.parts]

    def save(self, path: str | Path) -> None:
        """Write parameters, `config` and `own_numbers` to a file, for :func:`scratchvae.load`.

        Raises
        ------
        NonFiniteError
            If a parameter holds NaN or an infinity, which `load` would refuse.
        """
        self.check_parts()
        self.require_named()
        for name in self.params.names:
            if not bool(self.backend.xp.isfinite(self.params[name].value).all()):
                raise NonFiniteError(f"{path} is not written: {name} is not finite")
        arrays = {name: self.params[name].value for name in self.params.names}
        values = {"config": {"model": self.config()}, "numbers": self.own_numbers()}
        checkpoint.save(path, arrays, values)

    def summary(self) -> Text:
        """Return a table of the layers, the shapes of their outputs and their parameters."""
        return summarize(self)

    def __repr__(self) -> str:
        config = self.config()
        signatures = map(inspect.signature, reversed(type(self).__mro__))  # **options are above
        defaults = {k: p.default for s in signatures for k, p in s.parameters.items()}
        shown = ["hidden", "latent_dim", *(k for k in config if config[k] != defaults.get(k))]
        words = [*self._in_words(), ("prior", in_words(self.prior))]
        options = [
            f"{k}={config[k] if (k, config[k]) in words else repr(config[k])}"
            for k in dict.fromkeys(shown)
            if k in config and k not in ("kind", "class", "data_dim", "standardize")
        ]
        return f"{type(self).__name__}({', '.join([str(self.data_dim), *options])})"

    def _repr_html_(self) -> str:
        return table(f"{self!r}: {total_of(self)}", HEAD, rows_of(self))


def _within(layer: Any) -> Iterator[Any]:
    """Yield a layer and all layers that it names, and theirs."""
    yield layer
    for _, inner in layer.named_layers() if hasattr(layer, "named_layers") else ():
        yield from _within(inner)


def _parameters_of(layer: Any) -> list[tuple[str, Parameter]]:
    """Return the parameters that a layer names, or none if it does not name them rightly."""
    with suppress(Exception):
        pairs: Iterator[Any] = named(layer)
        return [(name, p) for name, p in pairs if isinstance(p, Parameter)]
    return []


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [p.value.shape for _, p in _parameters_of(layer)]


def is_numbers(value: Any) -> bool:
    """Return whether a twin takes this over from its model: numbers, and lists of them."""
    if isinstance(value, tuple | list):
        return all(map(is_numbers, value))
    return isinstance(value, NUMBERS)


def _ids(layers: list[Any]) -> list[int]:
    return [id(layer) for layer in layers]


def _but_for_numbers(one: Any, other: Any) -> bool:
    """Return whether two layers in words differ by numbers at most, which may be a state."""
    if not (isinstance(one, str) and isinstance(other, str)):  # of a damaged file, say
        return False
    return without_numbers(one) == without_numbers(other)


def without_numbers(text: str) -> str:
    """Return a layer in words with 0 for each number, which may be a state."""
    number = r"(?<![\w.])[-+]?(\d+\.?\d*(e[-+]?\d+)?|\.\d+|nan|inf)(?!\w)"
    # An array's are set in columns.
    return re.sub(r"\s", "", re.sub(number, "0", text))


def _has_own_method(x: Any) -> bool:
    """Return whether a method of the class was replaced in this one object."""
    names = vars(x) if hasattr(x, "__dict__") else ()
    return any(callable(getattr(type(x), name, None)) for name in names)
