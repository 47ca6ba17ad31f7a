"""Check a pair of functions, a layer or a model: its manners first, then its gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import Array, RandomSource, namespace
from scratchvae.errors import InputError

from .comparison import TOLERANCE, Comparison, Report, Settings
from .slopes import STEP, Block

NOISE = "two calls with the same arguments differ: noise must come in as an argument"
REDRAWN = (
    "backward gives another gradient of {} the second time, with a fresh cache too: it draws noise "
    "again, where it should use that of the forward pass"
)
USED_UP = "backward gives another gradient of {} the second time: it changes its cache"
STATE = (
    "backward gives another gradient of {} after another forward: it reads something that a later "
    "forward changed, where it should read its cache only"
)
LOST = "backward overwrites the gradient of {} where it should add to it (+=)"
LEFTOVER = "loss_and_grad's gradient depends on what params.grad held before, or on new noise"
BATCH = "the size of the batch"


def check(
    f: Any,
    *pair_and_args: Any,
    wrt: Sequence[int] | None = None,
    rng: RandomSource = None,
    tolerance: float = TOLERANCE,
    step: float = STEP,
    directions: int = 3,
    name: str | None = None,
) -> Report:
    """Check a backward pass: of ``(f, args)``, of ``(f, f_backward, args)``, of ``(layer, args)``.

    Parameters
    ----------
    f : function or layer
        ``f(*args) -> (y, cache)``; its backward, ``(dy, cache) -> gradient`` or a tuple of them, is
        looked for beside it as ``f_backward`` if not given. A layer has both as methods; its
        parameters, if it has `named_parameters`, are checked too, and restored.
    *pair_and_args
        The backward, if given, and the sequence of arguments: float64 where they have a gradient.
    wrt : sequence of int, optional
        Which arguments the gradients belong to. By default to all; where there are fewer gradients,
        to none called `eps`, which is noise, and then to the last ones: data comes first.
    rng : None, int, SeedSequence or Generator
        Where directions and dy come from: fresh ones each time by default.
    tolerance, step, directions
        Largest relative error; h; number of random directions. See the head of this package.
    name : str, optional
        What to call it in messages.

    Raises
    ------
    GradientError
        If a gradient is wrong, or a function draws noise or changes an argument.
    InputError
        If the arguments cannot be checked.
    """
    settings = make_settings(name or name_of(f), rng, tolerance, step, directions)
    with prepared(settings, f, pair_and_args, wrt) as case:
        return Comparison(settings, case.blocks, case.evaluate, case.dy, case.sizes).report()


def check_model(
    model: Any,
    x: Array,
    eps: Array | None = None,
    *,
    rng: RandomSource = None,
    tolerance: float = TOLERANCE,
    step: float = STEP,
    directions: int = 3,
    name: str | None = None,
) -> Report:
    """Check `model.loss_and_grad`: the gradient of every named parameter, and all of them together.

    `model` is a VAE, an Autoencoder or alike, in float64; parameters and gradients are restored.
    `x` (B, D) is the data, `eps` (B, Z) the noise, drawn from `rng` if None; the rest, and what is
    raised, as for `check`. Use `avoid_kinks` before it where relu is used.
    """
    settings = make_settings(name or name_of(model), rng, tolerance, step, directions)
    with prepared_model(settings, model, x, eps) as case:
        return Comparison(settings, case.blocks, case.evaluate, case.dy, case.sizes).report()


class Case(NamedTuple):
    """A gradient to compare: what it belongs to, and the forward pass that it is of."""

    blocks: list[Block]
    evaluate: Callable[[], Array]  # -> y, for the present values of the blocks
    dy: Array
    sizes: dict[str, int]  # by name, the lengths over which a mean may be wrong or forgotten


@contextmanager
def prepared(
    settings: Settings, f: Any, pair_and_args: tuple[Any, ...], wrt: Sequence[int] | None
) -> Iterator[Case]:
    """Call forward and backward of what `check` takes, check their manners, restore in the end."""
    forward, backward, args, parameters = _unpack(f, pair_and_args)
    names = _argument_names(forward, len(args))
    for n, a in zip(names, args, strict=True):
        if not hasattr(a, "dtype") or a.dtype.kind == "f":
            _check_float64(f"argument {n} of {settings.name}", a)
    args = [namespace(a).array(a) for a in args]  # the caller's are never moved
    pair = _Pair(settings, forward, backward, parameters)
    watched = [*zip(names, args, strict=True), *((n, p.value) for n, p in parameters)]
    saved = [(p, p.value.copy(), p.grad.copy()) for _, p in parameters]
    try:
        with _unchanged(settings, "forward", watched):
            y, cache = pair.forward(*args)
            y = y.copy()
        _check_finite(settings, "forward", y)
        if y.dtype != np.float64:
            of = ", ".join(f"{n} {a.dtype}" for n, a in zip(names, args, strict=True))
            text = f"{settings.name} gives {y.dtype} for {of}"
            raise InputError(f"{text}: gradients are checked in float64 only")
        dy = namespace(y).asarray(settings.rng.standard_normal(y.shape))
        settings.require(not _differ(y, pair.forward(*args)[0]), "noise", NOISE)
        with _unchanged(settings, "backward", [*watched, ("dy", dy)]):
            given, d_parameters = pair.backward(dy, cache)

        indices = _with_gradient(names, given, wrt, settings.name)
        moving = [(names[i], args[i]) for i in indices] + [(n, p.value) for n, p in parameters]
        grads = [g for g in given if g is not None] + d_parameters
        blocks = [Block(n, value, g) for (n, value), g in zip(moving, grads, strict=True)]
        for block in blocks:
            _check_float64(f"argument {block.name} of {settings.name}", block.value)
            _check_finite(settings, f"the gradient of {block.name}", block.grad)
        pair.check_manners(blocks, args, indices, dy, cache)
        yield Case(blocks, lambda: pair.forward(*args)[0], dy, _sizes(names, args, y))
    finally:
        for p, value, grad in saved:
            p.value[...], p.grad[...] = value, grad


@contextmanager
def prepared_model(settings: Settings, model: Any, x: Array, eps: Array | None) -> Iterator[Case]:
    """Do the same for a model's `loss_and_grad`."""
    params = model.params
    _check_float64(f"the model {settings.name}", params.value)
    if eps is None:
        eps = model.draw_eps(len(x), settings.rng)
    value, old_grad = params.value.copy(), params.grad.copy()
    xp = namespace(value)
    watched = [("x", x), ("eps", eps), ("params.value", params.value)]
    found = []
    try:
        for _ in range(2):  # each on top of other numbers
            params.grad[...] = xp.asarray(settings.rng.standard_normal(value.shape))
            with _unchanged(settings, "loss_and_grad", watched):
                loss = model.loss_and_grad(x, eps).loss
            found.append((xp.array(loss), params.grad.copy()))
        params.check_views()
        (loss, grad), (loss2, grad2) = found
        _check_finite(settings, "the loss", loss)
        _check_finite(settings, "the gradient", grad)
        settings.require(not _differ(loss, loss2), "noise", NOISE)
        settings.require(not _differ(grad, grad2), "leftover", LEFTOVER)
        blocks = [Block(n, params[n].value, params.view(grad, n)) for n in params.names]
        sizes = {BATCH: len(x), "the data's dimension": x.shape[1], "the code's": model.latent_dim}
        yield Case(blocks, lambda: model.loss_and_grad(x, eps).loss, xp.ones_like(loss), sizes)
    finally:
        params.value[...], params.grad[...] = value, old_grad


class _Pair:
    """The user's functions; what they return is checked for its form."""

    def __init__(
        self, settings: Settings, forward: Any, backward: Any, parameters: list[tuple[str, Any]]
    ) -> None:
        self.settings, self.functions, self.parameters = settings, (forward, backward), parameters

    def forward(self, *args: Array) -> tuple[Array, Any]:
        """Return y, as an array, and the cache."""
        name, result = self.settings.name, self._call("forward", *args)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise InputError(f"{name} returns {_describe(result)}: expected (y, cache)")
        return _as_array(f"y of {name}", result[0]), result[1]

    def backward(
        self, dy: Array, cache: Any, start: Sequence[Array] | None = None
    ) -> tuple[list[Array | None], list[Array]]:
        """Return copies of the gradients of arguments and parameters; add the latter to `start`."""
        for i, (_, p) in enumerate(self.parameters):
            p.grad[...] = 0 if start is None else start[i]
        result = self._call("backward", dy, cache)
        given = list(result) if isinstance(result, tuple | list) else [result]
        what = f"the gradient that {self.settings.name}'s backward returns"
        if all(g is None for g in given) and not self.parameters:
            raise InputError(f"{what} is {_describe(result)}: expected an array or some of them")
        copies = [None if g is None else _as_array(what, g).copy() for g in given]
        return copies, [p.grad.copy() for _, p in self.parameters]

    def check_manners(
        self, blocks: list[Block], args: list[Array], indices: list[int], dy: Array, cache: Any
    ) -> None:
        """Require that backward reads nothing but dy and cache, and adds to old gradients."""

        def again(cache: Any, start: Sequence[Array] | None = None) -> list[Array]:
            given, d_parameters = self.backward(dy, cache, start)
            return [g for g in given if g is not None] + d_parameters

        def first_other(grads: list[Array]) -> str:
            return next(
                (b.name for b, g in zip(blocks, grads, strict=True) if _differ(b.grad, g)), ""
            )

        name = first_other(again(cache))
        if name:
            redrawn = first_other(again(self.forward(*args)[1]))
            self.settings.require(not redrawn, "noise", REDRAWN.format(name))
            self.settings.require(False, "cache", USED_UP.format(name))
        xp = namespace(dy)
        self.forward(*(xp.flip(a) if i in indices else a for i, a in enumerate(args)))
        name = first_other(again(cache))
        self.settings.require(not name, "hidden state", STATE.format(name))
        start = [xp.asarray(self.settings.rng.standard_normal(p.shape)) for _, p in self.parameters]
        n = len(blocks) - len(start)  # those of the arguments
        added = [g - s for g, s in zip(again(cache, start)[n:], start, strict=True)]
        name = first_other([*(b.grad for b in blocks[:n]), *added])
        self.settings.require(not name, "overwritten", LOST.format(name))

    def _call(self, part: str, *arguments: Any) -> Any:
        try:
            return self.functions[part == "backward"](*arguments)
        except Exception as error:
            shapes = ", ".join(str(a.shape) for a in arguments if hasattr(a, "shape"))
            what = f"{part} of {self.settings.name} raised {type(error).__name__}"
            raise InputError(f"{what} for arrays of {shapes}: {error}") from error


def make_settings(
    name: str, rng: RandomSource, tolerance: float, step: float, directions: int
) -> Settings:
    """Return what a check needs to know besides the functions."""
    if not (tolerance > 0 and step > 0 and directions > 0):
        raise InputError("tolerance, step and directions must be positive")
    seed = seed_of(rng)
    return Settings(name, seed, tolerance, step, directions, np.random.default_rng(seed))


@contextmanager
def _unchanged(settings: Settings, by: str, named: Sequence[tuple[str, Array]]) -> Iterator[None]:
    """Require of what happens inside that it leaves the named arrays as they are."""
    kept = [(n, a, a.copy()) for n, a in named if hasattr(a, "dtype")]
    yield
    for n, a, before in kept:
        same = namespace(a).array_equal(a, before, equal_nan=True)
        settings.require(bool(same), "in place", f"{by} changes {n} in place")


def _check_finite(settings: Settings, what: str, x: Array) -> None:
    finite = bool(namespace(x).isfinite(x).all())
    settings.require(finite, "not finite", f"{what} has values that are not finite")


def _unpack(f: Any, rest: tuple[Any, ...]) -> tuple[Any, Any, list[Any], list[tuple[str, Any]]]:
    """Return forward, backward, arguments and named parameters of the three forms of `check`."""
    if len(rest) not in (1, 2):
        raise InputError(
            "expected check(f, args), check(f, f_backward, args) or check(layer, args)"
        )
    args = list(rest[-1]) if isinstance(rest[-1], tuple | list) else [rest[-1]]
    if len(rest) == 2:
        return f, rest[0], args, []
    if hasattr(f, "forward") and hasattr(f, "backward"):
        parameters = list(getattr(f, "named_parameters", tuple)())
        for n, p in parameters:
            _check_float64(f"parameter {n} of {name_of(f)}", p.value)
        return f.forward, f.backward, args, parameters
    name = f"{name_of(f)}_backward"
    backward = getattr(inspect.unwrap(f), "__globals__", {}).get(name)  # f may be decorated
    if backward is None:
        raise InputError(f"no {name} beside {name_of(f)}: hand it in, check(f, f_backward, args)")
    return f, backward, args, []


def _with_gradient(
    names: list[str], given: Sequence[Array | None], wrt: Sequence[int] | None, name: str
) -> list[int]:
    """Return which arguments the given gradients belong to; None stands for one without."""
    n = len(given)
    if wrt is None:
        candidates = [i for i, a in enumerate(names) if a != "eps" or n == len(names)]
        wrt = candidates[-n:] if n else []
    if len(wrt) != n or not all(0 <= i < len(names) for i in wrt):
        raise InputError(
            f"{name}'s backward returns {n} gradients for {len(names)} arguments, {names}: say "
            "which ones with wrt="
        )
    return [i for i, g in zip(wrt, given, strict=True) if g is not None]


def _sizes(names: list[str], args: list[Array], y: Array) -> dict[str, int]:
    """Name the lengths by which a gradient is wrong where a mean is forgotten or misplaced."""
    sizes = {BATCH: len(y)} if y.ndim else {}
    for name, a in [*zip(names, args, strict=True), ("y", y)]:
        if a.ndim > 1 and a.shape[-1] not in list(sizes.values())[1:]:
            sizes[f"the length of {name}'s last axis"] = a.shape[-1]
    return sizes


def _argument_names(forward: Any, n: int) -> list[str]:
    try:
        names = list(inspect.signature(forward).parameters)[:n]
    except (TypeError, ValueError):  # some callables written in C have none
        names = []
    return names + [f"argument {i}" for i in range(len(names), n)]


def name_of(f: Any) -> str:
    """Return a function's name, or that of an object's class."""
    return str(getattr(f, "__name__", type(f).__name__))


def _check_float64(what: str, x: Any) -> None:
    if getattr(x, "dtype", None) != np.float64:
        found = x.dtype if hasattr(x, "dtype") else _describe(x)
        raise InputError(f"{what} is {found}: gradients are checked in float64 only")
    if not bool(namespace(x).isfinite(x).all()):
        raise InputError(f"{what} has values that are not finite")


def _as_array(what: str, x: Any) -> Array:
    """Return an array, or a number as one; raise InputError for all else."""
    if isinstance(x, float):
        return np.asarray(x)
    if not hasattr(x, "dtype"):
        raise InputError(f"{what} is {_describe(x)}: expected an array")
    return namespace(x).asarray(x)


def _describe(x: Any) -> str:
    if hasattr(x, "shape"):
        return f"an array of shape {x.shape}"
    if isinstance(x, tuple):
        return f"a tuple of {len(x)}"
    return "None" if x is None else f"a {type(x).__name__}"


def _differ(a: Array, b: Array) -> bool:
    """Tell whether two arrays differ by more than the order of summation may make them."""
    if a.shape != b.shape:
        return True
    largest = namespace(a).maximum(abs(a), abs(b)).max() if a.size else 0
    return bool((abs(a - b) > 1e-10 * largest).any())


def seed_of(rng: RandomSource) -> int:
    """Return `rng` if it is a seed, else draw one from it."""
    if isinstance(rng, int | np.integer):
        return int(rng)
    return int(np.random.default_rng(rng).integers(2**32))
