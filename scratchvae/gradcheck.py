r"""Is a hand-written gradient right? Compare it with what the forward pass does.

Let f be the scalar in question and g the gradient that backward gives. Along a direction v the
slope of f is <g, v>, and the forward pass alone gives it too, as the central difference

    D(h) = (f(x + h v) - f(x - h v)) / 2h = f' + h^2 f'''/6 + h^4 f^(5)/120 + ...

Two of them make the h^2 term cancel:  (4 D(h/2) - D(h)) / 3 = f' - h^4 f^(5)/480 + ...

Step. No entry of v exceeds 1 and the length of v is at most about 5, so f^(5) is of the size of f'
where inputs are of unit size, and the first error is near h^4/480. Rounding adds the second, about
eps |f| / h. With h = 1e-3 they are 2e-15 and 2e-13 |f|: both far below the tolerance 1e-7, even
where f^(5) or |f| is ten thousand times f'. That needs float64; in float32 no h serves.

Scalar. An output y of any shape becomes one number, f = sum(dy * y), with a random normal dy. With
dy of ones a wrong gradient may hide: the outputs of a softmax sum to 1 whatever happens. The
difference of the two y is taken first and summed then, so that a large common part cancels exactly.

Relative error. |<g, v> - n| over the largest of |<g, v>|, |n| and |g| |v| / sqrt(P), where n is the
numerical slope and P the number of entries. The last is the typical size of <g, v> for a random v:
now and then the terms of <g, v> cancel, and without it rounding would then look like an error.
Where even that is below what the difference can resolve, a few eps |f| / h / tolerance, this floor
takes its place; two zeros have error 0.

Where. Every named block alone: along all its coordinates if it has at most 64, else along random
directions; and all blocks together. A joint direction alone would dilute one wrong bias among
half a million right weights.

What it cannot see: backward is compared with forward, so a formula that is wrong in both, such as
sigma = exp(logvar), passes. And at a kink, as relu has at 0, f has no slope: see `avoid_kinks`.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import gaussian, likelihoods
from .activations import ACTIVATIONS
from .backend import Array, Backend, RandomSource, get_backend, namespace
from .errors import InputError
from .layers import Activation, Linear, Sequential
from .vae import VAE, Autoencoder

STEP = 1e-3
TOLERANCE = 1e-7
SMALL = 64  # a block of at most so many entries is checked along every coordinate
ROUNDING = 16 * sys.float_info.epsilon


class Check(NamedTuple):
    """One slope, from backward and from differences."""

    name: str
    analytic: float
    numerical: float
    error: float
    spread: float = 0.0  # |D(h/2) - D(h)|: large where there is a kink within the step


@dataclass(frozen=True)
class Report:
    """What was compared. `seed`, handed in as `rng`, repeats it; `error` is the largest one."""

    name: str
    error: float
    tolerance: float
    seed: int
    checks: tuple[Check, ...] = ()
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the largest error is within the tolerance."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return self.message or (
            f"{self.name}: backward agrees with {len(self.checks)} slopes of the forward pass; "
            f"largest relative error {self.error:.1e}, tolerance {self.tolerance:.0e}."
        )


class GradientError(AssertionError):
    """A gradient, or the manners of its functions, are wrong; the message says which and how.

    `report` holds what was compared; its error is infinite where nothing could be.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.message)
        self.report = report


class _Block(NamedTuple):
    name: str
    value: Array  # moved in place
    grad: Array


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
        Largest relative error; h; number of random directions. See the head of this file.
    name : str, optional
        What to call it in messages.

    Raises
    ------
    GradientError
        If a gradient is wrong, or a function draws noise or changes an argument.
    InputError
        If the arguments cannot be checked.
    """
    forward, backward, args, parameters = _unpack(f, pair_and_args)
    run = _Run(name or _name_of(f), rng, tolerance, step, directions)
    names = _argument_names(forward, len(args))
    for n, a in zip(names, args, strict=True):
        if not hasattr(a, "dtype") or a.dtype.kind == "f":
            _check_dtype(f"argument {n} of {run.name}", a)
    args = [namespace(a).array(a) for a in args]  # the caller's are never moved
    watched = [*zip(names, args, strict=True), *((n, p.value) for n, p in parameters)]
    saved = [(p, p.value.copy(), p.grad.copy()) for _, p in parameters]

    def gradients(start: Sequence[Array] | None = None) -> list[Array]:
        """Call backward with these gradients in the parameters; return all it gives, as copies."""
        for i, (_, p) in enumerate(parameters):
            p.grad[...] = 0 if start is None else start[i]
        given = backward(dy, cache)
        given = list(given) if isinstance(given, tuple | list) else [given]
        return [xp.array(g) for g in given] + [p.grad.copy() for _, p in parameters]

    try:
        with run.unchanged("forward", watched):
            y, cache = forward(*args)
            y = y.copy()
        run.finite("forward", y)
        xp = namespace(y)
        if y.dtype != np.float64:
            raise InputError(f"{run.name} gives {y.dtype}: gradients are checked in float64 only")
        dy = xp.asarray(run.rng.standard_normal(y.shape))
        run.require(not _differ(y, forward(*args)[0]), run.DRAWS)
        with run.unchanged("backward", [*watched, ("dy", dy)]):
            grads = gradients()
        indices = _with_gradient(names, len(grads) - len(parameters), wrt, run.name)
        moving = [(names[i], args[i]) for i in indices] + [(n, p.value) for n, p in parameters]
        for (n, value), g in zip(moving, grads, strict=True):
            _check_dtype(f"argument {n} of {run.name}", value)
            hint = "" if wrt is not None else " (wrt= says which arguments have one)"
            shapes = f"has shape {g.shape}: expected {value.shape}{hint}"
            run.require(g.shape == value.shape, f"the gradient of {n} {shapes}")
            run.finite(f"the gradient of {n}", g)

        # Backward once more, after another forward and on top of other gradients.
        forward(*(xp.flip(a) if i in indices else a for i, a in enumerate(args)))
        start = [xp.asarray(run.rng.standard_normal(p.shape)) for _, p in parameters]
        again = gradients(start)
        before = [xp.zeros_like(g) for g in grads[: len(indices)]] + start
        for (n, _), g, r, g2 in zip(moving, grads, before, again, strict=True):
            if _differ(g + r, g2):
                run.require(_differ(g, g2), run.LOST.format(n))
                run.require(False, run.UNSTEADY.format(n))
        blocks = [_Block(n, value, g) for (n, value), g in zip(moving, grads, strict=True)]
        return run.compare(blocks, lambda: forward(*args)[0], dy)
    finally:
        for p, value, grad in saved:
            p.value[...], p.grad[...] = value, grad


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
    run = _Run(name or type(model).__name__, rng, tolerance, step, directions)
    params = model.params
    _check_dtype(f"the model {run.name}", params.value)
    if eps is None:
        eps = model.backend.standard_normal(run.rng, (len(x), model.latent_dim), "float64")
    value, old_grad = params.value.copy(), params.grad.copy()
    xp = namespace(value)
    watched = [("x", x), ("eps", eps), ("params.value", params.value)]
    found = []
    try:
        for _ in range(2):  # each on top of other numbers
            params.grad[...] = xp.asarray(run.rng.standard_normal(value.shape))
            with run.unchanged("loss_and_grad", watched):
                loss = model.loss_and_grad(x, eps).loss
            found.append((xp.array(loss), params.grad.copy()))
        params.check_views()
        (loss, grad), (loss2, grad2) = found
        run.finite("the loss", loss)
        run.finite("the gradient", grad)
        run.require(not _differ(loss, loss2), run.DRAWS)
        run.require(not _differ(grad, grad2), run.LEFTOVER)
        blocks = [_Block(n, params[n].value, params.view(grad, n)) for n in params.names]
        return run.compare(blocks, lambda: model.loss_and_grad(x, eps).loss, xp.ones_like(loss))
    finally:
        params.value[...], params.grad[...] = value, old_grad


class _Run:
    """One check: its name, its settings, its random numbers."""

    DRAWS = "two calls with the same arguments differ: noise must come in as an argument"
    UNSTEADY = (
        "backward gives another gradient of {} the second time: it draws noise, changes its cache, "
        "or reads something that a later forward changed"
    )
    LOST = "backward overwrites the gradient of {} where it should add to it (+=)"
    LEFTOVER = "loss_and_grad's gradient depends on what params.grad held before, or on new noise"

    def __init__(
        self, name: str, rng: RandomSource, tolerance: float, step: float, directions: int
    ) -> None:
        if not (tolerance > 0 and step > 0 and directions > 0):
            raise InputError("tolerance, step and directions must be positive")
        self.name, self.tolerance, self.step, self.directions = name, tolerance, step, directions
        self.seed = _seed(rng)
        self.rng = np.random.default_rng(self.seed)

    def require(self, condition: bool, sentence: str) -> None:
        if not condition:
            message = f"{self.name}: {sentence} (seed {self.seed})."
            raise GradientError(Report(self.name, math.inf, self.tolerance, self.seed, (), message))

    def finite(self, what: str, x: Array) -> None:
        self.require(bool(namespace(x).isfinite(x).all()), f"{what} has values that are not finite")

    @contextmanager
    def unchanged(self, by: str, named: Sequence[tuple[str, Array]]) -> Iterator[None]:
        """Require of what happens inside that it leaves the named arrays as they are."""
        kept = [(n, a, a.copy()) for n, a in named if hasattr(a, "dtype")]
        yield
        for n, a, before in kept:
            same = namespace(a).array_equal(a, before, equal_nan=True)
            self.require(bool(same), f"{by} changes {n} in place")

    def compare(self, blocks: list[_Block], evaluate: Callable[[], Array], dy: Array) -> Report:
        """Compare slopes, block by block and jointly; raise or report."""
        xp = namespace(dy)
        y = evaluate()
        sizes = (float(xp.abs(a).max()) for a in (y, *(b.value for b in blocks)) if a.size)
        noise = ROUNDING * max(sizes, default=0.0) * float(xp.sqrt((dy * dy).sum())) / self.step

        def slope(label: str, moves: list[tuple[_Block, Array]]) -> Check:
            old = [b.value.copy() for b, _ in moves]

            def y_at(t: float) -> Array:
                for (b, v), value in zip(moves, old, strict=True):
                    b.value[...] = value + t * v
                return evaluate().copy()

            try:
                coarse, fine = (
                    float((dy * (y_at(h) - y_at(-h))).sum()) / (2 * h)
                    for h in (self.step, self.step / 2)
                )
            finally:
                for (b, _), value in zip(moves, old, strict=True):
                    b.value[...] = value
            numerical = (4 * fine - coarse) / 3
            analytic = sum(float((b.grad * v).sum()) for b, v in moves)
            g2 = sum(float((b.grad * b.grad).sum()) for b, _ in moves)
            v2 = sum(float((v * v).sum()) for _, v in moves)
            typical = math.sqrt(g2 * v2 / sum(b.value.size for b, _ in moves))
            scale = max(abs(analytic), abs(numerical), typical, noise / self.tolerance)
            error = abs(analytic - numerical) / scale if scale else 0.0
            error = error if math.isfinite(analytic - numerical) else math.inf
            return Check(label, analytic, numerical, error, abs(fine - coarse))

        def coordinates(block: _Block) -> list[Check]:
            """Along every coordinate, or, of a large block, along SMALL random ones."""
            size, found = block.value.size, []
            for k in np.sort(self.rng.permutation(size)[:SMALL]):
                index = tuple(int(i) for i in np.unravel_index(k, block.value.shape))
                v = xp.zeros_like(block.value)
                v[index] = 1
                label = f"{block.name}[{', '.join(map(str, index))}]" if index else block.name
                found.append(slope(label, [(block, v)]))
            return found

        def along(label: str, some: list[_Block]) -> list[Check]:
            scale = min(1.0, (SMALL / sum(b.value.size for b in some)) ** 0.5)
            return [
                slope(
                    f"{label}, direction {k + 1}",
                    [(b, xp.asarray(self.rng.uniform(-scale, scale, b.value.shape))) for b in some],
                )
                for k in range(self.directions)
            ]

        blocks = [b for b in blocks if b.value.size]
        found = {
            b.name: coordinates(b) if b.value.size <= SMALL else along(b.name, [b]) for b in blocks
        }
        joint = along("all together", blocks) if len(blocks) > 1 else []
        checks = (*(c for cs in found.values() for c in cs), *joint)
        error = max((c.error for c in checks), default=0.0)
        if error <= self.tolerance:
            return Report(self.name, error, self.tolerance, self.seed, checks)

        wrong = [b for b in blocks if max(c.error for c in found[b.name]) > self.tolerance]
        # Backward reaches the last block first, so an error there is nearest to its cause.
        table = coordinates(wrong[-1]) if wrong else joint
        worst = found[wrong[-1].name] if wrong else joint
        message = self.diagnose(max(worst, key=lambda c: c.error), table, [b.name for b in wrong])
        raise GradientError(Report(self.name, error, self.tolerance, self.seed, checks, message))

    def diagnose(self, worst: Check, table: list[Check], wrong: list[str]) -> str:
        """Say in words which gradient is wrong, and how."""
        block = wrong[-1] if wrong else "all parameters together"
        lines = [
            f"{self.name}: the gradient of {block} is wrong: for {worst.name} backward gives "
            f"{worst.analytic:.10g} and the forward pass {worst.numerical:.10g} (relative error "
            f"{worst.error:.1e}, tolerance {self.tolerance:.0e}, seed {self.seed})."
        ]
        a, n = (np.array([c[i] for c in table]) for i in (1, 2))
        ratio = float(a @ n / (n @ n)) if n.any() and np.isfinite(a + n).all() else math.nan
        if worst.spread > 0.1 * abs(worst.analytic - worst.numerical):
            lines.append("Half the step changes the forward pass's slope: there is a kink nearby.")
        elif not a.any():
            lines.append("Backward's is zero everywhere.")
        elif len(a) > 1 and np.abs(a - ratio * n).max() <= 1e-5 * np.abs(a).max():
            factor = f"It is {ratio:.5g} times the right one"
            what = "Its sign is wrong" if abs(ratio + 1) < 1e-5 else factor
            lines.append(f"{what} in every coordinate looked at.")
        if len(wrong) > 1:
            lines.append(f"Also wrong: {', '.join(wrong[:-1])}.")
        lines.append(f"    {'':24}{'backward':>18}{'forward pass':>18}{'relative error':>16}")
        for c in sorted(table, key=lambda c: -c.error)[:5]:
            lines.append(f"    {c.name:24}{c.analytic:18.10g}{c.numerical:18.10g}{c.error:16.1e}")
        return "\n".join(lines)


def avoid_kinks(model: Any, x: Array, eps: Array | None = None, step: float = STEP) -> None:
    """Shift biases, in place, so that no step of a check takes a ReLU across its kink.

    Layer by layer a bound is carried on how far each value moves when no parameter (and, in a
    Sequential, no x) moves by more than `step`. A unit whose pre-activations are not all farther
    than that from 0 is shifted: the widest gap among its B values is centred on 0 if it is wide
    enough, else all go above.

    `model` is a VAE, an Autoencoder or a Sequential; each ReLU must come directly after a Linear.
    """
    xp = namespace(x)
    if isinstance(model, Sequential):
        _settle(model, x, xp.full_like(x, step), step)
        return
    z, moved = _settle(model.encoder, x, xp.zeros_like(x), step)  # (B, Z) or (B, 2Z)
    if z.shape[1] == 2 * model.latent_dim:
        (mu, logvar), (dmu, dlogvar) = (xp.split(a, 2, axis=1) for a in (z, moved))  # (B, Z) each
        noise = xp.exp(0.5 * logvar) * eps
        z, moved = mu + noise, dmu + xp.abs(noise) * xp.expm1(0.5 * dlogvar)
    _settle(model.decoder, z, moved, step)


def _settle(stack: Sequential, x: Array, moved: Array, step: float) -> tuple[Array, Array]:
    """Do it for one stack; return its output for x and how far that may move, (B, n_out) each."""
    xp, after_linear = namespace(x), False
    for layer, following in zip(stack.layers, [*stack.layers[1:], None], strict=True):
        if isinstance(layer, Linear):
            reach = step * (1 + xp.abs(x).sum(axis=1, keepdims=True))  # (B, 1), through W and b
            moved = reach + moved @ (xp.abs(layer.W.value) + step)  # (B, n_out)
            if getattr(following, "name", None) == "relu":
                y, margin = layer.forward(x)[0], 1.01 * moved.max(axis=0)  # (B, n_out), (n_out,)
                layer.b.value += _shift(y, margin)
        elif getattr(layer, "name", None) == "relu" and not after_linear:
            raise InputError("a ReLU that does not follow a Linear cannot be kept from its kink")
        else:
            moved = 1.1 * moved  # no activation is steeper: silu's slope stays below 1.1
        after_linear = isinstance(layer, Linear)
        x = layer.forward(x)[0]
    return x, moved


def _shift(y: Array, margin: Array) -> Array:
    """Return by how much to move each column of y (B, n) so that all |y| >= margin, (n,)."""
    xp = namespace(y)
    ordered = xp.sort(y, axis=0)
    above = margin - ordered[0]
    if len(y) > 1:
        low = xp.diff(ordered, axis=0).argmax(axis=0)[None]  # (1, n), below the widest gap
        ends = [xp.take_along_axis(ordered, i, axis=0)[0] for i in (low, low + 1)]  # (n,) each
        wide = ends[1] - ends[0] >= 2 * margin
        above = xp.where(wide, -0.5 * (ends[0] + ends[1]), above)
    return xp.where(xp.abs(y).min(axis=0) >= margin, 0, above)


def suite(
    backend: str | Backend = "numpy", rng: RandomSource = None, tolerance: float = TOLERANCE
) -> Iterator[Report]:
    """Check every pair, every layer and whole models, yielding one report for each.

    A wrong gradient does not raise: its report is not `ok` and its `message` says why. All reports
    carry one seed, fresh by default, and `suite(rng=seed)` repeats them.
    """
    seed = _seed(rng)
    for name, f, args in _cases(get_backend(backend), np.random.default_rng([seed, 1])):
        try:
            if isinstance(f, Autoencoder):
                yield check_model(f, *args, rng=seed, tolerance=tolerance, name=name)
            else:
                yield check(f, args, rng=seed, tolerance=tolerance, name=name)
        except GradientError as error:
            yield error.report


def _cases(backend: Backend, rng: np.random.Generator) -> Iterator[tuple[str, Any, list[Array]]]:
    def normal(*shape: int) -> Array:
        return backend.asarray(rng.standard_normal(shape))

    for name, (f, _) in ACTIVATIONS.items():
        x = 2 * normal(5, 7)
        yield name, f, [x + 2 * STEP * backend.xp.sign(x)]  # clear of relu's kink

    b, d, k = (4, 6), 6, 3  # (B, D), D, K
    g, li = gaussian, likelihoods
    yield "reparameterize", g.reparameterize, [normal(*b), normal(*b), normal(*b)]
    yield "reparameterize, K samples", g.reparameterize, [normal(*b), normal(*b), normal(k, *b)]
    yield "kl_standard_normal", g.kl_standard_normal, [normal(*b), normal(*b)]
    yield "log_density", g.log_density, [normal(*b), normal(*b), normal(*b)]
    yield "log_density, K samples", g.log_density, [normal(k, *b), normal(*b), normal(*b)]
    yield "log_density, prior", g.log_density, [normal(*b), normal(d), normal()]
    bits = backend.asarray(rng.integers(0, 2, b).astype(float))
    yield "bernoulli_nll", li.bernoulli_nll, [bits, 4 * normal(*b)]
    for label, shape in {"": b, ", shared": (1,), ", per pixel": (d,), ", per row": (4, 1)}.items():
        yield f"gaussian_nll{label}", li.gaussian_nll, [normal(*b), normal(*b), normal(*shape)]

    options: dict[str, Any] = {"rng": rng, "backend": backend, "dtype": "float64"}
    yield "Linear", Linear(6, 5, **options), [normal(*b)]
    yield "Activation", Activation("tanh"), [normal(*b)]
    for name in ("relu", "silu"):
        stack = Sequential([Linear(6, 20, **options), Activation(name), Linear(20, 3, **options)])
        avoid_kinks(stack, x := normal(*b))
        yield f"Sequential {name}", stack, [x]

    models: list[tuple[type[Autoencoder], str, dict[str, Any]]] = []
    for name in ACTIVATIONS:
        models.append((VAE, f"bernoulli {name}", {"activation": name}))
    for variance in (0.5, "shared", "per-dimension"):
        for name in ("relu", "tanh"):
            like = {"likelihood": "gaussian", "variance": variance, "activation": name}
            models.append((VAE, f"gaussian {variance} {name}", like))
        models.append((Autoencoder, f"gaussian {variance} {name}", like))
    for beta in (0.0, 10.0):
        models.append((VAE, f"bernoulli relu, beta {beta:g}", {"beta": beta}))
    for hidden in ((), (10, 9)):
        models.append((VAE, f"bernoulli relu, hidden {hidden}", {"hidden": hidden}))
    models.append((Autoencoder, "bernoulli relu", {}))
    for kind, name, own in models:
        model = kind(12, **{"hidden": (8,), "latent_dim": 3, **options, **own})
        x, eps = normal(4, 12), normal(4, 3)
        if "likelihood" not in own:
            x = (x > 0).astype(x.dtype)
        avoid_kinks(model, x, eps)
        yield f"{kind.__name__} {name}", model, [x, eps]


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
            _check_dtype(f"parameter {n} of {_name_of(f)}", p.value)
        return f.forward, f.backward, args, parameters
    name = f"{_name_of(f)}_backward"
    backward = getattr(f, "__globals__", {}).get(name)
    if backward is None:
        raise InputError(f"no {name} beside {_name_of(f)}: hand it in, check(f, f_backward, args)")
    return f, backward, args, []


def _with_gradient(names: list[str], n: int, wrt: Sequence[int] | None, name: str) -> list[int]:
    """Return which arguments the n gradients belong to."""
    if wrt is None:
        candidates = [i for i, a in enumerate(names) if a != "eps" or n == len(names)]
        wrt = candidates[-n:] if n else []
    if len(wrt) != n or not all(0 <= i < len(names) for i in wrt):
        raise InputError(
            f"{name}'s backward returns {n} gradients for {len(names)} arguments, {names}: say "
            "which ones with wrt="
        )
    return list(wrt)


def _argument_names(forward: Any, n: int) -> list[str]:
    try:
        names = list(inspect.signature(forward).parameters)[:n]
    except (TypeError, ValueError):  # some callables written in C have none
        names = []
    return names + [f"argument {i}" for i in range(len(names), n)]


def _name_of(f: Any) -> str:
    return str(getattr(f, "__name__", type(f).__name__))


def _check_dtype(what: str, x: Any) -> None:
    if getattr(x, "dtype", None) != np.float64:
        found = getattr(x, "dtype", type(x).__name__)
        raise InputError(f"{what} is {found}: gradients are checked in float64 only")
    if not bool(namespace(x).isfinite(x).all()):
        raise InputError(f"{what} has values that are not finite")


def _differ(a: Array, b: Array) -> bool:
    """Tell whether two arrays differ by more than the order of summation may make them."""
    if a.shape != b.shape:
        return True
    largest = namespace(a).maximum(abs(a), abs(b)).max() if a.size else 0
    return bool((abs(a - b) > 1e-10 * largest).any())


def _seed(rng: RandomSource) -> int:
    """Return `rng` if it is a seed, else draw one from it."""
    if isinstance(rng, int | np.integer):
        return int(rng)
    return int(np.random.default_rng(rng).integers(2**32))
