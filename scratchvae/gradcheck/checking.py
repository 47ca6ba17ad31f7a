"""Check a pair of functions, a layer or a model: its contract first, then its gradients."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import Array, RandomSource, asnumpy, get_backend, get_rng, namespace
from scratchvae.errors import InputError

from .comparison import TOLERANCE, Comparison, GradientError, Report, Settings
from .halves import signature
from .slopes import LEAST, PATIENCE, STEP, Block, OutOfTime, patience, time_limit
from .unnamed import unnamed

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
NO_GRADIENT = (
    "backward gives no gradient of it: wrt=, or NAME_wrt in a file, says which arguments have one"
)
NONE = "wrt names it, and backward returns None instead of its gradient"
NO_ARRAY = "it is of type {}: a gradient belongs to an array of float64 or to a float"
HANGS = (
    "cannot tell: forward returns at these arguments, but not in time when they move. An iteration "
    "must end by itself: limit the number of its rounds."
)
BATCH = "the size of the batch"
# Arguments of these names have no gradient, if as many are left as there are gradients.
WITHOUT_GRADIENT = ("eps", "noise", "mask", "target", "targets", "label", "labels", "y_true")


def check(
    f: Any,
    *pair_and_args: Any,
    wrt: Sequence[int | str] | None = None,
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
        The backward, if given, and the arguments: a sequence, or a dict of keyword arguments. Those
        with a gradient are float64 arrays; arrays of other libraries come in through DLPack.
    wrt : sequence of int or str, optional
        Which arguments the gradients belong to, by position or name. By default to all that are
        floating point; where there are fewer gradients, each choice of arguments that fits their
        shapes is tried, and the report's `note` says which was taken.
    rng : None, int, SeedSequence or Generator
        Where directions and dy come from: fresh ones each time by default.
    tolerance : float
        The largest relative error of a right slope, beyond what the forward pass leaves open.
    step : float
        The first step, in units of each argument's own size; others follow where it does not serve,
        smaller ones, and larger ones up to 50 times.
    directions : int
        How many random directions to try where there are too many coordinates.
    name : str, optional
        What to call it in messages.

    Raises
    ------
    GradientError
        If a gradient is not right, or a function draws noise or changes an argument.
    InputError
        If the arguments cannot be checked.
    """
    settings = make_settings(name or name_of(f), rng, tolerance, step, directions)
    with prepared(settings, f, pair_and_args, wrt) as case:
        return case.compare(settings)


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
    """Check `model.loss_and_grad`: the gradient with respect to every named parameter.

    `model` is a VAE, an Autoencoder or alike, in float64; parameters and gradients are restored.
    `x` (B, D) is the data, `eps` the noise, which the model draws from `rng` if it is None; the
    rest, and what is raised, as for `check`.
    """
    settings = make_settings(name or name_of(model), rng, tolerance, step, directions)
    with prepared_model(settings, model, x, eps) as case:
        return case.compare(settings)


def assert_gradient(f: Any, *pair_and_args: Any, **options: Any) -> None:
    """Check a gradient in a test: `check`, or `check_model` for what has `loss_and_grad`.

    It takes what they take and returns nothing; the message of its GradientError, which is an
    AssertionError, is the diagnosis. A test sees no report, so it also fails where something was
    not checked. Under pytest the traceback ends in the test itself.
    """
    __tracebackhide__ = True
    how = check_model if hasattr(f, "loss_and_grad") else check
    report = how(f, *pair_and_args, **options)
    for name, why in report.unchecked.items():
        message = f"{report.name}: {name} was not checked: {why}"
        raise GradientError(
            replace(report, message=message, verdict="cannot tell", cause="not checked")
        )


class Case(NamedTuple):
    """A gradient to compare: what it may belong to, and the forward pass that it is of."""

    choices: list[list[Block]]  # one, unless it is not known which arguments have a gradient
    evaluate: Callable[[], Array]  # -> y, for the present values of the blocks
    dy: Array
    sizes: dict[str, int]  # by name, the lengths over which a mean may be wrong or forgotten
    arrays: dict[str, Array]  # by name, what else a gradient may be made of
    unchecked: dict[str, str]  # by name, why what may have a gradient is not checked, if it is not
    assumed: bool = False  # whether the user left open which arguments have a gradient

    def compare(self, settings: Settings) -> Report:
        """Return the report if it is right, or raise; of several choices, that of the likeliest."""
        if len(self.choices) > 1:
            blocks, report = self._likeliest(settings)
        else:
            blocks, report = self.choices[0], self._report(settings, self.choices[0])
        names = ", ".join(b.name for b in blocks)
        if not report.ok:
            message, cause = report.message, report.cause
            if self.assumed:
                message += f"\nThis takes the gradients to be those of {names}: wrt= says which."
                cause = cause.replace("some coordinates", "")  # and the choice may be a wrong one
            raise GradientError(replace(report, message=message, cause=cause))
        note = f"Taken as the gradients of {names}: wrt= says which." if self.assumed else ""
        checked = {b.name for b in blocks if b.value.size}
        unchecked = {n: why for n, why in self.unchecked.items() if n not in checked}
        return replace(report, note=note, unchecked=unchecked)

    def _likeliest(self, settings: Settings) -> tuple[list[Block], Report]:
        """Return the first choice that is right, or that with the fewest wrong arguments.

        Each gradient is judged by itself, once beside each argument that it may belong to: there
        are far fewer of these than choices.
        """
        found: dict[tuple[str, int], Report] = {}
        doubts = []
        for blocks in self.choices:
            some = {(b.name, id(b.grad)): b for b in blocks if b.value.size}
            found |= {k: self._report(settings, [b]) for k, b in some.items() if k not in found}
            reports = [found[k] for k in some]
            if reports and all(r.ok for r in reports):
                checks = tuple(c for r in reports for c in r.checks)
                error = max(r.error for r in reports)
                return blocks, replace(reports[0], error=error, checks=checks)
            doubts.append(_doubt(reports))
        blocks = self.choices[doubts.index(min(doubts))]
        alone = found.get((blocks[0].name, id(blocks[0].grad))) if len(blocks) == 1 else None
        return blocks, alone or self._report(settings, blocks)

    def _report(self, settings: Settings, blocks: list[Block]) -> Report:
        try:
            return Comparison(settings, blocks, *self[1:5]).report()
        except GradientError as error:
            return error.report
        except OutOfTime:
            raise settings.error(HANGS, "time", verdict="cannot tell") from None


def _doubt(reports: list[Report]) -> tuple[int, int, int, float]:
    """Return what is smallest for the likeliest choice, from the reports of its gradients.

    That is how many are wrong, and undecided; in a tie, what is wrong in a way that has a name, or
    by less, is likelier to be the gradient of this argument.
    """
    wrong = [r for r in reports if r.verdict == "wrong"]
    unnamed = [r for r in wrong if r.cause in ("", "some coordinates")]
    errors = [c.error for r in reports for c in r.checks]
    return len(wrong), sum(not r.ok for r in reports), len(unnamed), sum(errors)


@contextmanager
def prepared(
    settings: Settings,
    f: Any,
    pair_and_args: tuple[Any, ...],
    wrt: Sequence[int | str] | None,
) -> Iterator[Case]:
    """Call forward and backward of what `check` takes, check their contract, restore in the end."""
    forward, backward, args, names, owner = _unpack(f, pair_and_args)
    parameters = _named_parameters(owner)
    args = [_own(f"argument {n} of {settings.name}", a) for n, a in zip(names, args, strict=True)]
    if not any(map(_is_array, args)):  # a function of plain numbers
        args = [np.array(a) if isinstance(a, float) else a for a in args]
    if args and not parameters and not any(map(_usable, args)):
        _check_float64(f"argument {names[0]} of {settings.name}", args[0])
    pair = _Pair(settings, forward, backward, parameters, names)
    watched = [*zip(names, args, strict=True), *((n, p.value) for n, p in parameters)]
    saved = [(p, p.value.copy(), p.grad.copy()) for _, p in parameters]
    try:
        with _unchanged(settings, "forward", watched):
            start = time.perf_counter()
            y, cache = pair.forward(*args)
            limit = patience(time.perf_counter() - start)
            y = y.copy()
        _check_finite(settings, "forward", y)
        if y.dtype != np.float64:
            of = ", ".join(f"{n} {_kind(a)}" for n, a in zip(names, args, strict=True))
            text = f"{settings.name} gives {y.dtype} for {of}"
            raise InputError(f"{text}: gradients are checked in float64 only")
        dy = namespace(y).asarray(settings.rng.standard_normal(y.shape))
        settings.require(not _differ(y, pair.forward(*args)[0]), "noise", NOISE)
        with _unchanged(settings, "backward", [*watched, ("dy", dy)]):
            given, d_parameters = pair.backward(dy, cache)

        if all(g is None for g in given) and any(map(_floating, args)):
            raise InputError(
                f"{settings.name}'s backward returns None where the gradient of {names[0]} "
                "belongs: is its `return` missing?"
            )
        choices, wanted = _with_gradient(settings.name, names, args, given, wrt)
        for i in {i for choice in choices for i in choice if type(args[i]) is float} & wanted:
            args[i] = np.array(args[i])  # to be moved; `pair` hands it on as a float
            pair.floats.add(i)
        own = [Block(n, p.value, g) for (n, p), g in zip(parameters, d_parameters, strict=True)]
        blocks = [
            [
                Block(names[i], args[i], g)
                for i, g in zip(choice, given, strict=True)
                if g is not None and i in wanted and (wrt is not None or _floating(args[i]))
            ]
            + own
            for choice in choices
        ]
        if wrt is not None and not blocks[0]:
            of = ", ".join(names[i] for i in sorted(wanted)) or "nothing"
            raise InputError(
                f"wrt names {of}, and {settings.name}'s backward returns None instead of its "
                "gradient: expected an argument that has one"
            )
        for block in blocks[0]:
            _check_float64(f"argument {block.name} of {settings.name}", block.value)
        labels = [*(names[i] for i in choices[0]), *(n for n, _ in parameters)]
        pair.check_contract(labels, [*given, *d_parameters], args, dy, cache, limit)
        arrays = {n: a for n, a in zip(names, args, strict=True) if _floating(a)}
        sizes = _sizes(names, args, y)
        assumed = wrt is None and len(given) < sum(map(_usable, args))
        unchecked = {
            n: ("it is empty" if not a.size else NO_GRADIENT if wrt is None else NONE)
            for i, (n, a) in enumerate(zip(names, args, strict=True))
            if _usable(a) and i in wanted and (wrt is not None or n not in WITHOUT_GRADIENT)
        }
        unchecked |= {
            names[i]: NO_ARRAY.format(getattr(args[i], "dtype", type(args[i]).__name__))
            for i, g in zip(choices[0], given, strict=True)
            if g is not None and i in wanted and not _floating(args[i]) and bool(g.any())
        }
        known = [*args, dy, *(a for _, p in parameters for a in (p.value, p.grad))]
        unchecked |= unnamed(owner, known, lambda: pair.forward(*args)[0], limit)
        yield Case(blocks, lambda: pair.forward(*args)[0], dy, sizes, arrays, unchecked, assumed)
    finally:
        for p, value, grad in saved:
            p.value[...], p.grad[...] = value, grad


@contextmanager
def prepared_model(settings: Settings, model: Any, x: Array, eps: Array | None) -> Iterator[Case]:
    """Do the same for a model's `loss_and_grad`."""
    if isinstance(model, type) or not hasattr(model, "loss_and_grad"):
        raise InputError(
            f"model is {model!r}: expected one such as sv.VAE(784, dtype='float64'); a layer or a "
            "function is checked with check"
        )
    params = model.params
    _check_float64(f"the model {settings.name}", params.value)
    if hasattr(model, "backend"):  # as one of this package takes it, a list too
        x = model.backend.asarray(x)
    if hasattr(model, "try_formulas"):
        model.try_formulas()
    if eps is None:
        eps = model.draw_eps(len(x), settings.rng)  # None, (B, Z) or (K, B, Z)
    value, old_grad = params.value.copy(), params.grad.copy()
    xp = namespace(value)
    watched = [("x", x), ("eps", eps), ("params.value", params.value)]
    found = []

    def evaluate() -> Any:
        terms = model.loss_and_grad(x, eps)
        if not hasattr(terms, "loss"):
            raise InputError(
                f"{settings.name}'s loss_and_grad gives a {type(terms).__name__}: expected terms "
                "with a loss; is its `return` missing?"
            )
        return terms.loss

    try:
        for _ in range(2):  # each on top of other numbers
            params.grad[...] = xp.asarray(settings.rng.standard_normal(value.shape))
            with _unchanged(settings, "loss_and_grad", watched):
                loss = evaluate()
            found.append((xp.array(loss), params.grad.copy()))
        params.check_views()
        (loss, grad), (loss2, grad2) = found
        _check_finite(settings, "the loss", loss)
        settings.require(not _differ(loss, loss2), "noise", NOISE)
        settings.require(not _differ(grad, grad2), "leftover", LEFTOVER)
        blocks = [Block(n, params[n].value, params.view(grad, n)) for n in params.names]
        sizes = {BATCH: len(x), "the data's dimension": x.shape[1]}
        sizes |= {"the code's": eps.shape[-1]} if eps is not None else {}
        dy = xp.ones_like(loss)
        known = [x, eps, params.value, params.grad]
        unchecked = unnamed(model, known, evaluate, PATIENCE)
        yield Case([blocks], evaluate, dy, sizes, {}, unchecked)
    finally:
        params.complete_gradient()  # where a backward broke off; what it raised is to be seen
        params.value[...], params.grad[...] = value, old_grad


class _Pair:
    """The user's functions; what they return is checked for its form."""

    def __init__(
        self,
        settings: Settings,
        forward: Any,
        backward: Any,
        parameters: list[tuple[str, Any]],
        names: list[str],
    ) -> None:
        self.settings, self.functions, self.parameters = settings, (forward, backward), parameters
        self.names = names
        self.floats: set[int] = set()  # which arguments are floats, and arrays of one number here

    def forward(self, *args: Array) -> tuple[Array, Any]:
        """Return y, as an array, and the cache."""
        as_given = [float(a) if i in self.floats else a for i, a in enumerate(args)]
        name, result = self.settings.name, self._call("forward", *as_given)
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
        if isinstance(result, Mapping):
            if more := [n for n in result if n not in self.names]:
                raise InputError(
                    f"backward of {self.settings.name} returns a gradient of {more[0]!r}: expected "
                    f"names of arguments, {', '.join(self.names)}"
                )
            result = tuple(result.get(n) for n in self.names)
        given = list(result) if isinstance(result, tuple | list) else [result]
        what = f"the gradient that {self.settings.name}'s backward returns"
        if all(g is None for g in given) and not self.parameters:
            raise InputError(f"{what} is {_describe(result)}: expected an array or some of them")
        copies = [None if g is None else _as_array(what, g).copy() for g in given]
        return copies, [p.grad.copy() for _, p in self.parameters]

    def check_contract(
        self,
        labels: list[str],
        first: list[Array | None],
        args: list[Array],
        dy: Array,
        cache: Any,
        limit: float,
    ) -> None:
        """Require that backward reads nothing but dy and cache, and adds to old gradients."""

        def other(cache: Any, start: Sequence[Array] | None = None) -> str:
            """Return the name of a gradient that differs from the first time, or nothing."""
            again, added = self.backward(dy, cache, start)
            added = [a - s for a, s in zip(added, start, strict=True)] if start else added
            for label, a, b in zip(labels, first, [*again, *added], strict=True):
                if (a is None) != (b is None) or (a is not None and _differ(a, b, dy)):
                    return label
            return ""

        name = other(cache)
        if name:
            redrawn = other(self.forward(*args)[1])
            self.settings.require(not redrawn, "noise", REDRAWN.format(name))
            self.settings.require(False, "cache", USED_UP.format(name))
        for scale, flip in ((1.0625, True), (1, True), (1.0625, False)):  # a norm sees no flip
            other_way = [namespace(a).flip(a) if flip and _floating(a) else a for a in args]
            moved = [scale * a if _floating(a) else a for a in other_way]
            # Arguments the user never gave may lie outside a domain.
            with suppress(InputError, OutOfTime), time_limit(limit):
                self.forward(*moved)
                break
        name = other(cache)
        self.settings.require(not name, "hidden state", STATE.format(name))
        # Not larger than the gradient, or adding would round that.
        d_parameters = [g for g in first[len(first) - len(self.parameters) :] if g is not None]
        start = [g[..., ::-1] if g.ndim else -g for g in d_parameters]
        start = [s if bool(s.any()) else s + 1 for s in start]
        name = other(cache, start)
        self.settings.require(not name, "overwritten", LOST.format(name))

    def _call(self, part: str, *arguments: Any) -> Any:
        try:
            with np.errstate(all="ignore"):
                return self.functions[part == "backward"](*arguments)
        except (Exception, SystemExit) as error:
            shapes = ", ".join(str(a.shape) for a in arguments if hasattr(a, "shape"))
            what = f"{part} of {self.settings.name} raised {type(error).__name__}"
            raise InputError(f"{what} for arrays of {shapes}: {error}") from error


def make_settings(
    name: str, rng: RandomSource, tolerance: float, step: float, directions: int
) -> Settings:
    """Return what a check needs to know besides the functions."""
    if not (tolerance > 0 and step > 0 and directions > 0):
        raise InputError("tolerance, step and directions must be positive")
    if step < LEAST:
        raise InputError(
            f"step is {step:g}: expected at least {LEAST:g}, a few digits above rounding"
        )
    seed = seed_of(rng)
    # A stream of its own: arguments are often drawn from the same seed, and dy = x hides errors.
    rng_ = np.random.default_rng([seed, *b"gradcheck"])
    return Settings(name, seed, tolerance, step, directions, rng_)


@contextmanager
def _unchanged(settings: Settings, by: str, named: Sequence[tuple[str, Array]]) -> Iterator[None]:
    """Require of what happens inside that it leaves the named arrays as they are."""
    kept = [(n, a, a.copy()) for n, a in named if _is_array(a)]
    yield
    for n, a, before in kept:
        same = bool(((a == before) | (a != a)).all())
        settings.require(same, "in place", f"{by} changes {n} in place")


def _check_finite(settings: Settings, what: str, x: Array) -> None:
    if not _finite(x):
        message = f"cannot tell: {what} has values that are not finite (seed {settings.seed})."
        raise settings.error(message, "not finite", verdict="cannot tell")


def _unpack(f: Any, rest: tuple[Any, ...]) -> tuple[Any, Any, list[Any], list[str], Any]:
    """Return forward, backward, arguments with their names, and the layer, if it is one's."""
    if len(rest) not in (1, 2):
        raise InputError(
            "expected check(f, args), check(f, f_backward, args) or check(layer, args)"
        )
    layer = f.__self__ if inspect.ismethod(f) else None
    if len(rest) == 2:
        forward, backward = f, rest[0]
    elif hasattr(f, "backward"):
        forward, backward, layer = getattr(f, "forward", f), f.backward, f
    else:
        forward, name = f, f"{name_of(f)}_backward"
        backward = getattr(inspect.unwrap(f), "__globals__", {}).get(name)  # f may be decorated
        if backward is None:
            text = f"no {name} beside {name_of(f)}: hand it in, check(f, f_backward, args)"
            raise InputError(text)
    if isinstance(rest[-1], Mapping):
        names = list(rest[-1])

        def by_name(*args: Any) -> Any:
            return forward(**dict(zip(names, args, strict=True)))

        return by_name, backward, list(rest[-1].values()), names, layer
    args = list(rest[-1]) if isinstance(rest[-1], tuple | list) else [rest[-1]]
    return forward, backward, args, _argument_names(forward, len(args)), layer


def _named_parameters(layer: Any) -> list[tuple[str, Any]]:
    """Return the named parameters of a layer; InputError if it gives something else."""
    found = getattr(layer, "named_parameters", tuple)
    try:
        pairs = list(found() if callable(found) else [found])
    except Exception as error:
        text = f"named_parameters of {name_of(layer)} raised {type(error).__name__}: {error}"
        raise InputError(text) from error
    for pair in pairs:
        gives = f"named_parameters of {name_of(layer)} gives"
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise InputError(
                f"{gives} {_describe(pair)}: expected pairs of a name and a Parameter, as in "
                '`yield "w", self.w`'
            )
        if not hasattr(pair[1], "grad"):
            raise InputError(
                f"{gives} {_describe(pair[1])} under the name {pair[0]!r}: expected a Parameter, "
                "which holds an array as its value and has a grad to add to"
            )
        _check_float64(f"parameter {pair[0]} of {name_of(layer)}", pair[1].value)
    return pairs


def _with_gradient(
    name: str,
    names: list[str],
    args: list[Any],
    given: list[Array | None],
    wrt: str | Sequence[int | str] | None,
) -> tuple[list[list[int]], set[int]]:
    """Return the choices of arguments that the gradients may belong to, the likeliest first.

    Then those that are to be checked: `wrt` may name some of as many as there are gradients.
    """
    n, wanted = len(given), set(range(len(args)))
    if wrt is not None:
        wrt = [wrt] if isinstance(wrt, str) else wrt
        if unknown := [i for i in wrt if isinstance(i, str) and i not in names]:
            raise InputError(f"wrt names {unknown[0]!r}: expected some of {', '.join(names)}")
        choices = [[names.index(i) if isinstance(i, str) else i for i in wrt]]
        wanted = set(choices[0])
        if len(wanted) < n == len(args) and wanted <= set(range(n)):
            choices = [list(range(n))]
    elif n == len(args):
        choices = [list(range(n))]
    else:
        usable = [i for i, a in enumerate(args) if _usable(a)]
        if n > len(usable):
            usable = [i for i, a in enumerate(args) if _usable(a) or type(a) is float]
        likely = [i for i in usable if names[i] not in WITHOUT_GRADIENT]
        some = likely if n == len(likely) else usable
        choices = [list(c) for c in itertools.combinations(some, n)][::-1]  # data comes first
        fits = [
            choice
            for choice in choices
            if all(
                g is None or g.shape == np.shape(args[i])
                for i, g in zip(choice, given, strict=True)
            )
        ]
        choices = (fits or choices[:1])[:1000]
    if not choices or len(choices[0]) != n or not all(0 <= i < len(args) for i in choices[0]):
        raise InputError(
            f"{name}'s backward returns {n} gradients for {len(args)} arguments, {names}: say "
            "which ones with wrt="
        )
    return choices, wanted


def _sizes(names: list[str], args: list[Any], y: Array) -> dict[str, int]:
    """Name the lengths by which a gradient is wrong where a mean is forgotten or misplaced."""
    sizes = {BATCH: len(y)} if y.ndim else {}
    for name, a in [*zip(names, args, strict=True), ("y", y)]:
        if _is_array(a) and not y.ndim and a.ndim:
            sizes.setdefault(BATCH, len(a))  # a loss is a mean over the first axis of its arguments
        if _is_array(a) and a.ndim > 1 and a.shape[-1] not in list(sizes.values())[1:]:
            sizes[f"the length of {name}'s last axis"] = a.shape[-1]
    return sizes


def _argument_names(forward: Any, n: int) -> list[str]:
    names = list(signature(forward) or ())[:n]
    return names + [f"argument {i}" for i in range(len(names), n)]


def name_of(f: Any) -> str:
    """Return a function's name, or that of an object's class."""
    f = getattr(f, "func", f)  # of a functools.partial
    return str(getattr(f, "__name__", type(f).__name__))


def _own(what: str, x: Any) -> Any:
    """Return a copy of an array, which may be moved; leave alone what is none."""
    if _is_array(x) or isinstance(x, np.generic):
        x = namespace(x).array(x)
        return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray | np.generic):
        try:
            return np.array(get_backend("numpy").asarray(x))
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
    return x


def _is_array(x: Any) -> bool:
    """Tell whether it is a plain array: NumPy's, but none with a mask or a product of its own."""
    if isinstance(x, np.ndarray):
        return not isinstance(x, np.ma.MaskedArray | np.matrix)
    return hasattr(x, "__dlpack__") and hasattr(x, "get")  # CuPy's


def _floating(x: Any) -> bool:
    return _is_array(x) and x.dtype.kind == "f"


def _usable(x: Any) -> bool:
    """Tell whether it may have a gradient."""
    return _is_array(x) and x.dtype == np.float64 and _finite(x)


def _finite(x: Array) -> bool:
    return bool(namespace(x).isfinite(x).all())


def _kind(x: Any) -> str:
    return str(x.dtype) if _is_array(x) else _describe(x)


def _check_float64(what: str, x: Any) -> None:
    if not _is_array(x) or x.dtype != np.float64:
        raise InputError(f"{what} is {_kind(x)}: gradients are checked in float64 only")
    if not _finite(x):
        raise InputError(f"{what} has values that are not finite")


def _as_array(what: str, x: Any) -> Array:
    """Return an array, or a number as one; raise InputError for all else."""
    if isinstance(x, float | int):
        return np.asarray(x)
    x = _own(what, x) if not isinstance(x, np.ndarray) else x
    if not _is_array(x) and not isinstance(x, np.generic):
        raise InputError(f"{what} is {_describe(x)}: expected an array")
    if x.dtype.kind not in "fiub":
        raise InputError(f"{what} is an array of {x.dtype}: expected real numbers")
    return namespace(x).asarray(x)


def _describe(x: Any) -> str:
    if _is_array(x):
        return f"an array of shape {x.shape}"
    if isinstance(x, tuple):
        return f"a tuple of {len(x)}"
    return "None" if x is None else f"a {type(x).__name__}"


def _differ(a: Array, b: Array, dy: Array | None = None) -> bool:
    """Tell whether two arrays differ by more than the order of summation may make them."""
    if a.shape != b.shape:
        return True
    a, b = asnumpy(a), asnumpy(b)
    largest = np.maximum(np.abs(a), np.abs(b)).max(initial=0.0)
    if dy is not None and not largest > 1e-12 * float(abs(dy).max() if dy.size else 0):
        return False  # a sum that cancels: what is left of it is rounding
    with np.errstate(invalid="ignore"):  # inf - inf
        return bool((np.abs(a - b) > 1e-10 * largest).any())


def seed_of(rng: RandomSource) -> int:
    """Return `rng` if it is a seed, else draw one from it."""
    if isinstance(rng, int | np.integer):
        return int(rng)
    return int(get_rng(rng).integers(2**32))
