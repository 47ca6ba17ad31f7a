"""What an exercise is, and how answers of each kind are judged.

A sheet ends in ``exercise = Derive(...)`` or one of its siblings below. Each has `judge`, which
raises `Wrong` with the diagnosis, or returns a sentence that says what was seen to be right. All
arguments are drawn anew at each check, so no answer can be fitted to them.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from scratchvae.backend import Array
from scratchvae.errors import InputError
from scratchvae.gradcheck import GradientError, Report, check
from scratchvae.vae import VAE

DRAWS = 3  # how many arguments an answer must be right for
LAW_DRAWS = 10  # the same for a law, which may be off by a few percent at each
RTOL = 1e-9  # two ways to compute the same in float64 differ by far less
ROWS = 3  # of a table


class Wrong(Exception):
    """An answer is not right; `sentence` says how, `table` shows some values."""

    def __init__(self, sentence: str, table: str = "", tried: bool = True) -> None:
        super().__init__(sentence)
        self.sentence, self.table = sentence, table
        self.tried = tried  # False: there is no answer yet


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What judges the answer to a sheet, and what helps to find it.

    Attributes
    ----------
    hints : tuple of str
        From the gentlest on.
    derivation : str
        How the solution is found, in a few lines.
    page : str
        The page of the documentation that derives it, such as "derivations/kl".
    solution : tuple
        The functions of this package whose lines are the solution.
    answer : str
        Lines of Python that give an untouched sheet this package's own solution. Tests use them.
    code : str
        Further lines of the answer, shown with the solution: what the package has no lines of.
    limit : float
        After how many seconds judging ends.
    beside : bool
        Whether the answers in the files beside it are run too.
    """

    beside: ClassVar[bool] = False

    hints: tuple[str, ...]
    derivation: str
    page: str
    solution: tuple[Any, ...]
    answer: str
    code: str = ""
    limit: float = 60.0

    def judge(self, answer: ModuleType, rng: np.random.Generator) -> str:
        """Return what was found right in the reader's module, or raise Wrong."""
        raise NotImplementedError


def normals(n: int) -> Callable[[np.random.Generator], list[Array]]:
    """Return what draws n arrays (B, Z) of standard normal numbers; B is never Z."""

    def args(rng: np.random.Generator) -> list[Array]:
        shape = rng.permutation(np.arange(3, 7))[:2]  # a 2 could be any factor of 2
        return [rng.standard_normal(shape) for _ in range(n)]

    return args


def get(answer: ModuleType, name: str) -> Any:
    """Return what the reader's module calls `name`."""
    if not hasattr(answer, name):
        raise Wrong(f"{name} is missing: the file you were given has it, so put it back.")
    return getattr(answer, name)


def same(mine: Any, true: Any) -> bool:
    """Tell whether two arrays agree, but for rounding."""
    mine, true = np.asarray(mine), np.asarray(true)
    if mine.shape != true.shape or mine.dtype.kind not in "fiub":
        return False
    scale = float(np.abs(true).max(initial=0.0, where=np.isfinite(true)))
    return bool(np.allclose(mine, true, rtol=RTOL, atol=RTOL * scale, equal_nan=True))


def table(rows: Sequence[tuple[str, Any, Any]]) -> str:
    """Return a few lines with the columns yours and true."""
    lines = [f"    {'':24}{'yours':>14}{'true':>14}"]
    # More digits where six are not enough to tell the two apart.
    same_ = any(f"{mine:.6g}" == f"{true:.6g}" and mine != true for _, mine, true in rows)
    digits = 11 if same_ else 6
    for label, mine, true in rows:
        lines.append(f"    {label:24}{mine + 0.0:14.{digits}g} {true + 0.0:13.{digits}g}")
    return "\n".join(lines)


def worst(name: str, mine: Any, true: Any) -> str:
    """Return the table of those entries of two arrays that differ most."""
    mine, true = np.asarray(mine, float), np.asarray(true, float)
    if mine.shape != true.shape:
        return ""
    apart = np.nan_to_num(np.abs(mine - true), nan=np.inf).ravel()
    found = np.argsort(-apart, kind="stable")[:ROWS]
    rows = []
    for k in found:
        index = ", ".join(str(int(i)) for i in np.unravel_index(k, true.shape))
        rows.append((f"{name}[{index}]" if index else name, mine.flat[k], true.flat[k]))
    return table(rows)


def require_values(name: str, mine: Any, true: Any, sentence: str) -> None:
    """Raise Wrong with this sentence unless two arrays have one shape and the same values."""
    mine, true = np.asarray(mine), np.asarray(true)
    if mine.dtype.kind not in "fiub":
        raise Wrong(f"{name} is {mine.dtype}: expected an array of numbers.")
    if mine.shape != true.shape:
        raise Wrong(f"{name} has shape {mine.shape}: expected {true.shape}.")
    if not same(mine, true):
        if mine.dtype in ("float16", "float32"):
            sentence = f"{name} is {mine.dtype}: expected float64, whose digits it lacks."
        raise Wrong(sentence, worst(name, mine, true))


def as_pair(name: str, result: Any) -> tuple[Any, Any]:
    """Return (y, cache) of what a forward pass returned."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise Wrong(f"{name} returns a {type(result).__name__}: expected the pair (y, cache).")
    return result


def diagnosis(report: Report, name: str) -> str:
    """Return the sentence of a gradient check that says how the gradient is wrong."""
    lines = report.message.removeprefix(f"{report.name}: ").splitlines()
    head = re.match(r"(?:cannot tell whether )?the gradient of (\S+) (is|has)", lines[0])
    if head is None:  # it breaks the contract, and one sentence says how
        return f"{name}: {_without_seed(lines[0])}"
    of = f"{name}, the gradient of {head[1]}"
    if head[2] == "has":
        shapes = lines[0].partition(f"{head[1]} ")[2]
        found = f"{name}: the gradient of {head[1]} {_without_seed(shapes)}"
        return " ".join([found, *lines[1:2]])
    if report.verdict == "cannot tell":
        return f"{of}: it is near the right one, and wrong in its last digits. Use float64 only."
    if not report.cause:
        return f"{of}: it is wrong, and not by a sign, a factor or a term that is usual."
    return f"{of}: {(lines[0].partition(' is wrong. ')[2] or lines[1])}"


def _without_seed(text: str) -> str:
    return re.sub(r" \((?:wrt=[^)]*\) \()?seed \d+\)", "", text)


# ------------------------------------------------------------------------------------------ Derive

Usual = tuple[tuple[Callable[..., Any], str], ...]  # usual wrong answers, with what to say to them


@dataclass(frozen=True, kw_only=True)
class Derive(Exercise):
    """A backward pass is to be written for a given forward pass.

    Attributes
    ----------
    pair : (function, function)
        The right forward and backward; the sheet's have the same names.
    args : function
        Draws the arguments: ``args(rng)``.
    wrt : tuple of str
        The arguments that have a gradient, in the order in which backward returns them.
    usual : tuple of (function, str)
        Wrong gradients, as functions of dy and the arguments, with a sentence for each, where the
        checker's own would say less.
    """

    pair: tuple[Callable[..., Any], Callable[..., Any]]
    args: Callable[[np.random.Generator], list[Array]]
    wrt: tuple[str, ...]
    usual: Usual = ()

    def judge(self, answer: ModuleType, rng: np.random.Generator) -> str:
        """Compare the reader's backward with differences of the forward pass."""
        names = [f.__name__ for f in self.pair]
        mine = get(answer, names[0]), get(answer, names[1])
        for _ in range(DRAWS):
            args = self.args(rng)
            y, _ = as_pair(names[0], mine[0](*(a.copy() for a in args)))
            true = self.pair[0](*args)[0]
            sentence = f"{names[0]} gives other values than it did: put its given lines back."
            require_values(names[0], y, true, sentence)
            require_gradient(mine, self.pair, args, self.wrt, rng, self.usual)
        return f"{names[1]} agrees with differences of {names[0]}, for {DRAWS} draws of arguments."


def require_gradient(
    mine: tuple[Callable[..., Any], Callable[..., Any]],
    true: tuple[Callable[..., Any], Callable[..., Any]],
    args: list[Array],
    wrt: Sequence[str],
    rng: np.random.Generator,
    usual: Usual = (),
) -> None:
    """Raise Wrong, with the diagnosis, unless the reader's backward is that of its forward."""
    name = true[1].__name__
    y, cache = true[0](*args)
    dy = rng.standard_normal(np.shape(y))
    right = _tuple(true[1](dy, cache))
    result = mine[1](dy.copy(), mine[0](*(a.copy() for a in args))[1])
    if len(wrt) == 1 and isinstance(result, list) and len(result) != 1:
        raise Wrong(f"{name} returns a list: expected an array, d{wrt[0]}.")
    given = _tuple(result)
    if len(given) != len(right):
        expected = ", ".join(f"d{n}" for n in wrt)
        number = {1: "one gradient", 0: "nothing"}.get(len(given), f"{len(given)} gradients")
        raise Wrong(f"{name} returns {number}: expected {expected}.")
    for of, gradient in zip(wrt, given, strict=True):
        if gradient is None:
            raise Wrong(f"{name} returns None instead of d{of}: is its `return` missing?")
        if np.asarray(gradient).dtype == object:
            raise Wrong(f"{name}: d{of} is an array of objects: expected one of numbers.")
    for wrong, sentence in usual:
        mistaken = _tuple(wrong(dy, *args))
        if all(map(same, given, mistaken)) and not all(map(same, right, mistaken)):
            raise Wrong(sentence, _gradients(wrt, given, right))
    for of, gradient, true_one in zip(wrt, given, right, strict=True):
        if np.shape(gradient) == np.shape(true_one) and not np.isfinite(gradient).all():
            sentence = f"{name}: d{of} is not finite everywhere. Does exp overflow, or divide by 0?"
            raise Wrong(sentence, worst(f"d{of}", gradient, true_one))
    try:
        check(*mine, args, wrt=list(wrt), rng=int(rng.integers(2**32)), name=name)
    except GradientError as error:
        if error.report.verdict == "cannot tell" and all(map(same, given, right)):
            return  # the differences do not decide, the values do
        # Of two gradients that fall together the table shows the one that the sentence is about.
        shown = _gradients(wrt, given, right, error.report.message)
        # The checker calls the gradient of y dy; here it has the name that the sheet gives it.
        upstream = next(iter(inspect.signature(true[1]).parameters))
        sentence = re.sub(r"\bdy\b", upstream, diagnosis(error.report, name))
        raise Wrong(sentence, shown) from None
    except InputError as error:
        # The checker speaks of the backward of a pair; `name` is that backward itself.
        raise Wrong(str(error).replace(f"{name}'s backward", name) + ".") from None


def _tuple(gradients: Any) -> tuple[Any, ...]:
    return tuple(gradients) if isinstance(gradients, tuple | list) else (gradients,)


def _gradients(
    wrt: Sequence[str], given: Sequence[Any], true: Sequence[Any], message: str = ""
) -> str:
    found = re.search(r"the gradient of (\w+)", message)
    for name, mine, right in zip(wrt, given, true, strict=True):
        of_this = found[1] == name if found else not same(mine, right)
        if of_this and np.asarray(mine).dtype.kind in "fiub":
            return worst(f"d{name}", mine, right)
    return ""


@dataclass(frozen=True, kw_only=True)
class Formula(Exercise):
    """A function is to be written that returns certain values.

    Attributes
    ----------
    name : str
        What the sheet calls it.
    true : function
    args : function
        Draws the arguments: ``args(rng)``.
    returns : tuple of str
        What it calls the arrays that it returns.
    usual : tuple of (function, str)
        Wrong functions, with a sentence for each.
    """

    name: str
    true: Callable[..., Any]
    args: Callable[[np.random.Generator], list[Any]]
    returns: tuple[str, ...]
    usual: Usual = ()

    def judge(self, answer: ModuleType, rng: np.random.Generator) -> str:
        """Compare what the reader's function returns with the right values."""
        f = get(answer, self.name)
        for _ in range(DRAWS):
            args = self.args(rng)

            def call(g: Callable[..., Any], args: list[Any] = args) -> tuple[Any, ...]:
                result = g(*(a.copy() if isinstance(a, np.ndarray) else a for a in args))
                alone = len(self.returns) == 1 and isinstance(result, list)
                return (result,) if alone else _tuple(result)

            mine, true = call(f), call(self.true)
            if len(mine) != len(true) or any(m is None for m in mine):
                expected = ", ".join(self.returns)
                raise Wrong(f"{self.name} does not return {expected}: is its `return` complete?")
            for wrong, sentence in self.usual:
                values = call(wrong)
                if all(map(same, mine, values)) and not all(map(same, true, values)):
                    raise Wrong(sentence, self._table(mine, true))
            # The last first: of Adam's three the value is made of the other two.
            for name, m, t in [*zip(self.returns, mine, true, strict=True)][::-1]:
                require_values(name, m, t, f"{self.name}: {name} is wrong.")
        return f"{self.name} gives the right values, for {DRAWS} draws of arguments."

    def _table(self, mine: tuple[Any, ...], true: tuple[Any, ...]) -> str:
        for name, m, t in zip(self.returns, mine, true, strict=True):
            if not same(m, t):
                return worst(name, m, t)
        return ""


# ------------------------------------------------------------------------------------------ Repair


@dataclass(frozen=True, kw_only=True)
class Repair(Exercise):
    """A pair that a gradient check passes computes the wrong thing: find it by a test, mend it.

    Attributes
    ----------
    pair : (function, function)
        The right forward and backward; the sheet's, with the bug, have the same names.
    bug : function
        The wrong forward, of `scratchvae.zoo`.
    args : function
        Draws the arguments: ``args(rng)``.
    wrt : tuple of str
        As for `Derive`.
    meaning : function, optional
        Raises Wrong unless the mended forward is what it is meant to be: ``meaning(f, rng)``.
    """

    pair: tuple[Callable[..., Any], Callable[..., Any]]
    bug: Callable[..., Any]
    args: Callable[[np.random.Generator], list[Array]]
    wrt: tuple[str, ...]
    meaning: Callable[[Callable[..., Any], np.random.Generator], None] | None = None

    def judge(self, answer: ModuleType, rng: np.random.Generator) -> str:
        """Run the reader's test on right and wrong code, then compare the mended pair."""
        names = [f.__name__ for f in self.pair]
        test = get(answer, "find_the_bug")
        for _ in range(2 * DRAWS):
            if (said := _raised(test, self._of_arrays(self.pair[0]))) is not None:
                if _raised(test, self._of_arrays(self.bug)) is None:
                    raise Wrong(
                        f"find_the_bug is the wrong way round: it fails on the right {names[0]}"
                        f"{said} and passes on the one with the bug."
                    )
                raise Wrong(
                    f"find_the_bug fails on the right {names[0]} too, not only on the wrong "
                    f"one{said}. If it draws at random, take more draws or a wider tolerance."
                )
        for _ in range(DRAWS):
            if _raised(test, self._of_arrays(self.bug)) is None:
                raise Wrong(
                    f"find_the_bug lets the {names[0]} with the bug pass: it must raise an "
                    "AssertionError there. Compare it with what it is meant to be, not with its "
                    "backward."
                )
        mine = get(answer, names[0]), get(answer, names[1])
        for _ in range(DRAWS):
            args = self.args(rng)
            y, _ = as_pair(names[0], mine[0](*(a.copy() for a in args)))
            true = self.pair[0](*args)[0]
            if same(y, self.bug(*args)[0]):
                raise Wrong(
                    f"Your test finds the bug, but {names[0]} still has it: mend it.",
                    worst(names[0], y, true),
                )
            if self.meaning is not None:
                self.meaning(mine[0], rng)
            sentence = f"Your test finds the bug, but {names[0]} is not right yet."
            if self.meaning is not None:
                sentence = (
                    f"Your test finds the bug, and {names[0]} now means the right thing, but its "
                    "values are not those of the formula above."
                )
            require_values(names[0], y, true, sentence)
            try:
                require_gradient(mine, self.pair, args, self.wrt, rng)
            except Wrong as wrong:
                sentence = f"{names[0]} is mended, its backward is not. {wrong.sentence}"
                raise Wrong(sentence, wrong.table) from None
        if (said := _raised(test, self._of_arrays(mine[0]))) is not None:
            raise Wrong(f"Your test finds the bug, but fails on your own {names[0]} too{said}.")
        return "Your test fails on the bug and passes on the right code, and the pair is mended."

    def _of_arrays(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return f as a reader's test may call it: with plain numbers, and by names."""
        signature = inspect.signature(self.pair[0])

        def called(*args: Any, **named: Any) -> Any:
            return f(*(np.asarray(a, float) for a in signature.bind(*args, **named).args))

        return called


def _raised(test: Callable[..., Any], f: Callable[..., Any]) -> str | None:
    """Return None if a test passes, or what its AssertionError says, to be put behind a name."""
    try:
        if (result := test(f)) is not None:
            raise Wrong(
                f"find_the_bug returns a {type(result).__name__}: expected that it raises an "
                "AssertionError, as `assert` does, or returns nothing."
            )
    except BaseException as error:
        if not isinstance(error, AssertionError) and type(error).__name__ != "Failed":
            raise  # pytest.fail raises Failed
        said = str(error).strip().splitlines()
        return f" (it says: {said[0]})" if said else ""
    return None


def of_zoo(kind: type[VAE], method: str) -> Callable[..., Any]:
    """Return a forward of a wrong model of `scratchvae.zoo` as a function of arrays."""

    def forward(*args: Array) -> Any:
        model = kind(1, (), 1, dtype="float64")
        model.data_dim = model.latent_dim = args[0].shape[-1] if args[0].ndim else 1
        return getattr(model, method)(*args)

    return forward


MANY = 100_000  # draws for a distribution
ALARM = 1e-10  # an answer is wrong if what is seen is less probable than this


def require_sampler(reparameterize: Callable[..., Any], rng: np.random.Generator) -> None:
    """Raise Wrong unless draws z have the distribution N(mu, exp(logvar))."""
    from scipy import stats

    mu, logvar = rng.normal(0, 2), float(rng.choice([-1.5, 1.5]))
    full = np.ones((MANY, 1))  # (N, 1)
    result = reparameterize(mu * full, logvar * full, rng.standard_normal((MANY, 1)))
    z = np.asarray(as_pair("reparameterize", result)[0], float).ravel()
    sigma = math.exp(logvar / 2)
    if not stats.kstest(z, stats.norm(mu, sigma).cdf).pvalue > ALARM:
        sentence = f"{MANY:,} of your draws have another distribution than N(mu, sigma^2)."
        rows = [("mean", z.mean(), mu), ("standard deviation", z.std(), sigma)]
        raise Wrong(sentence, table(rows))


def require_divergence(kl: Callable[..., Any], rng: np.random.Generator) -> None:
    """Raise Wrong unless the KL is the mean of log q(z) - log p(z) over draws z of q."""
    from scipy import stats

    mu, logvar = rng.uniform(0.5, 1, 3), np.array([-1.5, -0.5, 1.0])  # (Z,) each
    sigma = np.exp(logvar / 2)
    z = mu + sigma * rng.standard_normal((MANY, 3))  # (N, Z)
    ratio = (stats.norm.logpdf(z, mu, sigma) - stats.norm.logpdf(z)).sum(axis=1)  # (N,)
    mine = float(np.asarray(as_pair("the KL", kl(mu[None], logvar[None]))[0], float).ravel()[0])
    distance = abs(ratio.mean() - mine) / (ratio.std() / math.sqrt(MANY))
    if not 2 * stats.norm.sf(distance) > ALARM:
        sentence = f"The KL is not the mean of log q(z) - log p(z) over {MANY:,} draws z of q."
        raise Wrong(sentence, table([("KL in nats", mine, ratio.mean())]))


# ----------------------------------------------------------------------------------------- Predict


@dataclass(frozen=True, kw_only=True)
class Predict(Exercise):
    """A number is to be predicted before the code is run.

    Attributes
    ----------
    truth : function
        Runs the package: ``truth(rng, *args)``.
    args : function, optional
        Draws the arguments of the reader's function ``answer``; None: ``answer`` is a number.
    relative, absolute : float
        How far an answer may be off.
    usual : tuple of (function, str)
        Wrong answers, as functions of the arguments, with a sentence for each.
    what : str
        What is predicted, for the sentences.
    between : (float, float)
        The least and the largest value that it can have.
    """

    truth: Callable[..., float]
    args: Callable[[np.random.Generator], list[Any]] | None = None
    relative: float = 0.0
    absolute: float = 0.0
    usual: Usual = ()
    what: str
    between: tuple[float, float] = (0.0, math.inf)

    def judge(self, answer: ModuleType, rng: np.random.Generator) -> str:
        """Compare the prediction with what the package gives."""
        given = get(answer, "answer")
        if given is None:
            raise Wrong("answer is still None: write the number that you expect.", tried=False)
        low, high = self.between
        rows, all_args = [], []
        for _ in range(LAW_DRAWS if self.args else 1):
            args = self.args(rng) if self.args else []
            mine = _number(given(*args) if self.args and callable(given) else given)
            if not low <= mine <= high:
                bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise Wrong(f"answer is {mine:g}: {self.what} is {bounds}.")
            label = ", ".join(f"{a:.4g}" for a in args)
            label = f"answer({label})" if args else "answer"
            rows.append((label, mine, float(self.truth(rng, *args))))
            all_args.append(args)
        off = [row for row in rows if not self._near(*row[1:])]
        if not off:
            return f"You predicted {self.what}:\n{table(rows[:ROWS])}"
        for wrong, sentence in self.usual:  # near it at one argument is many a law
            if all(self._near(row[1], wrong(*a)) for row, a in zip(rows, all_args, strict=True)):
                raise Wrong(sentence)
        way = "large" if off[0][1] > off[0][2] else "small"
        # A single number would be given away by the table.
        shown = table(off[:1]) if self.args else ""
        raise Wrong(f"Too {way}: {self.what} is not that.", shown)

    def _near(self, mine: float, true: float) -> bool:
        return math.isfinite(mine) and abs(mine - true) <= self.absolute + self.relative * abs(true)


def _number(value: Any) -> float:
    if value is None:
        raise Wrong("answer returns None: is its `return` missing?", tried=False)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise Wrong(f"answer is a {type(value).__name__}: expected a number.") from None
    if math.isnan(number):
        raise Wrong("answer is nan: expected a number.")
    return number
