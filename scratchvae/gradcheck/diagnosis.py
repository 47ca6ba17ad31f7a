"""How a gradient is wrong: the simplest explanation that fits the numbers, in one sentence.

Each explanation below is a function of the `Evidence`. It returns a sentence, or None where it does
not fit; `explain` asks them in turn, the simplest first. To fit is to agree in every coordinate
that is known, to nine digits or as well as the differences know it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from .slopes import Numbers, is_float32

FIT = 1e-9


@dataclass
class Evidence:
    """What is known of one block whose gradient is wrong; all arrays are NumPy's."""

    name: str
    value: Numbers  # (...)
    given: Numbers  # what backward gives; of the shape of `value` unless that is what is wrong
    right: Numbers  # of the shape of `value`, by differences; nan where it was not measured
    width: Numbers  # of the shape of `value`: how far `right` may be off
    doubtful: Numbers  # bool, of the shape of `value`: the forward pass does not decide
    dy: Numbers  # of the shape of y
    jacobian: Numbers | None = None  # (value.size, *y.shape), if all of it was measured
    sizes: Mapping[str, int] = field(default_factory=dict)  # the batch's and the like, by name
    others: dict[str, Evidence] = field(default_factory=dict)  # of the other wrong blocks
    arrays: Mapping[str, Numbers] = field(default_factory=dict)  # all arguments, and y, by name

    @property
    def known(self) -> Numbers:
        """Where the right gradient is known, (...) bool."""
        return np.isfinite(self.right) & ~self.doubtful

    def count(self) -> int:
        """Return how many numbers there are to explain."""
        return int(((self.right != 0) | (self.given != 0))[self.known].sum())

    def close(self, a: Numbers, b: Numbers) -> Numbers:
        """Tell, entry by entry of what is known, whether two arrays of the shape of `value` agree.

        To agree is to share nine digits, or as many as the differences know.
        """
        known, known_width = self.known, self.width[self.known]
        a, b = a[known], b[known]
        size = np.maximum(np.abs(a), np.abs(b))
        terms = np.zeros_like(self.right)
        if self.jacobian is not None:  # the sum of what an entry is a sum of, without cancelling
            rows = np.abs(self.jacobian * self.dy).reshape(self.value.size, -1)
            terms = rows.sum(axis=1).reshape(self.value.shape)
        return np.asarray(np.abs(a - b) <= FIT * size + 4 * known_width + 1e-9 * terms[known])

    def fits(self, guess: Numbers) -> bool:
        """Tell whether backward gives `guess`, and that is not what is right, where it is known."""
        known = self.known
        if guess.shape != self.given.shape or guess.shape != known.shape or not known.any():
            return False
        agrees, right = self.close(self.given, guess), self.close(self.right, guess)
        return bool(guess[known].any() and agrees.all() and not right.all())

    def pull_back(self, dy: Numbers) -> Numbers | None:
        """Return the right gradient for another cotangent, or None if it is not known."""
        if self.jacobian is None or dy.shape != self.dy.shape:
            return None
        product = self.jacobian.reshape(self.value.size, -1) @ dy.ravel()
        return np.asarray(product.reshape(self.value.shape))

    def pulls_back(self, dy: Numbers) -> bool:
        """Tell whether backward gives the right gradient for that other cotangent."""
        guess = self.pull_back(dy)
        return guess is not None and self.fits(guess)


def close(a: Numbers, b: Numbers, fit: float = FIT) -> bool:
    """Tell whether two arrays agree to that share of the largest entry, which is not 0."""
    largest = np.abs(b).max(initial=0.0)
    return bool(a.shape == b.shape and largest > 0 and np.abs(a - b).max() <= fit * largest)


def explain(evidence: Evidence) -> tuple[str, str]:
    """Return the name of the simplest cause that fits and a sentence on it, or two empty texts."""
    causes = CAUSES
    if evidence.given.shape != evidence.value.shape:
        causes = WRONG_SHAPES
    elif evidence.close(evidence.given, evidence.right).all():
        return "", ""  # where it is wrong was not measured
    elif evidence.count() < 3:
        causes = CAUSES_OF_FEW  # almost anything fits so few numbers
    for cause in causes:
        with np.errstate(all="ignore"):
            sentence = cause(evidence)
        if sentence:
            return cause.__name__.replace("_", " "), sentence
    return "", ""


# ------------------------------------------------------------------------- factors and signs


def zero(e: Evidence) -> str | None:
    """Say whether nothing arrives."""
    return None if e.given.any() else "Backward's is zero everywhere."


def sign(e: Evidence) -> str | None:
    """Say whether it is minus the right one."""
    return "Its sign is wrong in every coordinate." if e.fits(-e.right) else None


def factor(e: Evidence) -> str | None:
    """Say whether it is a constant times the right one, and which constant."""
    a, n = e.given[e.known], e.right[e.known]
    if not n.any():
        return None
    k = np.argmax(np.abs(n) / (e.width[e.known] + FIT * np.abs(n)))  # the one known best
    ratio, fit = float(a[k] / n[k]), FIT + 4 * float(e.width[e.known][k] / np.abs(n[k]))
    names = [text for number, text in _factors(e.sizes) if abs(ratio / number - 1) <= fit]
    if (np.count_nonzero(n) < 2 and not names) or not e.fits(ratio * e.right):
        return None
    if np.abs(a - ratio * n).max() > 0.01 * np.abs(a - n).max():
        return None  # close to the right one, but not by a factor
    says = f": {', or '.join(names)}" if names else ""
    where = "every coordinate looked at" if n.size > 1 else "its one coordinate"
    shown = f"{ratio:.8g}" if fit < 2 * FIT else f"about {ratio:.3g}"
    return f"It is {shown} times the right one in {where}{says}."


def _factors(sizes: Mapping[str, int]) -> Iterator[tuple[float, str]]:
    named = [(name, n) for name, n in sizes.items() if n > 1]
    for minus, prefix in ((1, ""), (-1, "the sign is wrong and ")):
        yield minus * 2, f"{prefix}a factor 1/2 is missing, or a term counts twice"
        yield minus / 2, f"{prefix}there is a factor 1/2 too many, or one of two terms is missing"
        for name, n in named:
            yield minus * n, f"{prefix}{n} is {name}, so a mean over it is missing"
            twice = "a mean over it is taken twice, or instead of a sum"
            yield minus / n, f"{prefix}1 / {n} where {n} is {name}, so {twice}"
        for (name1, n1), (name2, n2) in itertools.combinations(named, 2):
            both = f"{n1 * n2} is {name1} times {name2}, so a mean over both is"
            yield minus * n1 * n2, f"{prefix}{both} missing"
            yield minus / (n1 * n2), f"{prefix}1 / {n1 * n2} where {both} taken instead of a sum"


# -------------------------------------------------------------- the right numbers, elsewhere


def swapped(e: Evidence) -> str | None:
    """Say whether it is another argument's gradient."""
    for name, other in e.others.items():
        if e.fits(other.right):
            both = f"The gradients of {name} and {e.name} are swapped."
            return both if other.fits(e.right) else f"It is the gradient of {name}."
    return None


def transposed(e: Evidence) -> str | None:
    """Say whether rows and columns are exchanged."""
    if e.right.ndim == 2 and e.right.shape[0] == e.right.shape[1] and e.fits(e.right.T):
        return "It is the right one transposed."
    return None


def jacobian_not_transposed(e: Evidence) -> str | None:
    """Say whether it is J dy for J^T dy."""
    if e.jacobian is None or e.value.size != e.dy.size or e.value.size < 2:
        return None
    product = e.jacobian.reshape(e.value.size, -1).T @ e.dy.ravel()
    if e.fits(product.reshape(e.value.shape)):
        return (
            "It is J dy where J^T dy belongs, J being the Jacobian: a matrix lacks its transpose."
        )
    return None


def diagonal_only(e: Evidence) -> str | None:
    """Say whether each output is taken to depend on its own input alone."""
    if e.jacobian is None or e.value.shape != e.dy.shape or e.value.size < 2:
        return None
    own = np.diagonal(e.jacobian.reshape(e.value.size, -1)).reshape(e.value.shape)
    if e.fits(own * e.dy):
        return "It takes each entry of y to depend on its own input alone: the others are missing."
    return None


def order(e: Evidence) -> str | None:
    """Say whether it is reversed, or its halves exchanged, as [logvar | mu] for [mu | logvar]."""
    for axis, n in enumerate(e.right.shape):
        if n > 1 and e.fits(np.flip(e.right, axis)):
            return f"It is the right one in reverse order along axis {axis}."
        if n > 1 and n % 2 == 0 and e.fits(np.roll(e.right, n // 2, axis)):
            return f"It is the right one with its two halves along axis {axis} swapped."
    return None


# ------------------------------------------------------------------------- what is made of dy


def passed_on(e: Evidence) -> str | None:
    """Say whether it is dy alone, or its sum, without the derivative."""
    n, ones = e.dy.ndim - e.value.ndim, (1,) * (e.dy.ndim - e.value.ndim)
    for shape in (ones + e.value.shape, e.value.shape + ones) if n >= 0 else ():
        dy = e.dy.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
        if dy.shape == shape and e.fits(dy.reshape(e.value.shape)):
            what = "dy itself" if dy.shape == e.dy.shape else "the sum of dy"
            return f"It is {what}: the derivative of the forward pass is missing."
    return None


def without_dy(e: Evidence) -> str | None:
    """Say whether it is the derivative alone, without dy."""
    if e.pulls_back(np.ones_like(e.dy)):
        return "It is the gradient for a dy of ones: backward does not multiply by dy."
    return None


def wrong_axis(e: Evidence) -> str | None:
    """Say whether dy was summed, averaged or turned along a wrong axis, or used in part."""
    if e.dy.ndim == 2 and e.dy.shape[0] == e.dy.shape[1] and e.pulls_back(e.dy.T):
        return "It is right for dy transposed: it sums over the wrong axis, or lacks a transpose."
    for axis, n in enumerate(e.dy.shape):
        if n < 2:
            continue
        total = e.dy.sum(axis=axis, keepdims=True)
        for what, dy in (("sum", total), ("mean", total / n)):
            if e.pulls_back(np.broadcast_to(dy, e.dy.shape)):
                return f"It is the gradient for the {what} of dy over axis {axis} instead of dy."
        for i in range(n):
            alone = np.zeros_like(e.dy)
            index = (slice(None),) * axis + (i,)
            alone[index] = e.dy[index]
            if e.pulls_back(alone):
                return (
                    f"It counts index {i} of axis {axis} of dy alone, where all {n} reach "
                    f"{e.name}: sum over that axis."
                )
    return None


# ------------------------------------------------------------------- in which quantity it is


# What backward gives over what is right, for a value v, and what was mistaken for what.
QUANTITIES: tuple[tuple[Callable[[Numbers], Numbers], str], ...] = (
    (
        lambda v: 2 * np.exp(-v / 2),
        "the gradient of sigma where that of logvar belongs, logvar = log sigma^2: multiply by "
        "dsigma/dlogvar = sigma / 2",
    ),
    (
        lambda v: np.exp(-v),
        "the gradient of exp({0}) where that of {0} belongs, as of the variance for logvar or of "
        "sigma for log sigma: multiply by exp({0})",
    ),
    (
        lambda v: v / 2,
        "the gradient of logvar = log sigma^2 where that of sigma belongs: multiply by 2 / sigma",
    ),
    (
        lambda v: v,
        "the gradient of log({0}) where that of {0} belongs, as of logvar for the variance: divide "
        "by {0}",
    ),
    (
        lambda v: 1 / (2 * v),
        "the gradient of {0}^2 where that of {0} belongs, as of the variance for sigma: multiply "
        "by 2 {0}",
    ),
    (
        lambda v: 2 * np.sqrt(v),
        "the gradient of the root of {0} where that of {0} belongs, as of sigma for the variance: "
        "divide by 2 sqrt({0})",
    ),
    (
        lambda v: np.exp(v / 2) / 2,
        "the right one times dsigma/dlogvar = sigma / 2: that factor enters once too often",
    ),
    (lambda v: np.exp(v), "the right one times exp({0}): that factor enters once too often"),
)


def quantity(e: Evidence) -> str | None:
    """Say whether it is the gradient of sigma for that of logvar, and the like."""
    if np.unique(e.value[e.known]).size < 2:
        return None  # a constant ratio is a factor
    for ratio, text in QUANTITIES:
        guess = ratio(e.value) * e.right
        if np.isfinite(guess[e.known]).all() and e.fits(guess):
            return f"It is {text.format(e.name)}."
    return None


# ------------------------------------------------------------------------- how exact it is


def precision(e: Evidence) -> str | None:
    """Say whether its digits, or those of its ratio to dy, are float32's."""
    return float32_digits(e.given, e.dy) or None


def float32_digits(given: Numbers, dy: Numbers) -> str:
    """Return a sentence if a gradient's digits, or those of its ratio to dy, are float32's."""
    if is_float32(given):
        return "Each of its numbers is one of float32: backward computes in less than float64."
    if given.shape != dy.shape or not dy.all():
        return ""
    ratio = (given / dy)[given != 0]
    with np.errstate(all="ignore"):
        narrow = ratio.astype(np.float32).astype(np.float64)
    # A product and a quotient in float64 are off by two units in the last place at most.
    if is_float32(narrow) and (np.abs(ratio - narrow) <= 1e-15 * np.abs(ratio)).all():
        return "Each of its numbers is dy times one of float32: a part of backward computes in it."
    return ""


# ------------------------------------------------------------------------- what is missing


FACTORS: tuple[tuple[str, Callable[[Numbers], Numbers]], ...] = (
    ("{}", lambda a: a),
    ("{}^2", lambda a: a * a),
    ("(1 - {})", lambda a: 1 - a),
    ("(1 + {})", lambda a: 1 + a),
    ("exp({})", np.exp),
    ("exp({} / 2)", lambda a: np.exp(a / 2)),
)


def missing_factor(e: Evidence) -> str | None:
    """Say whether it lacks a factor made of an argument or of y, or has it once too often."""
    if (e.known & (e.given == 0) & (e.right != 0)).any():
        return None  # by what vanishes, as exp does, anything could have been multiplied
    for name, a in _alike(e):
        for text, f in FACTORS:
            factor = f(a)
            if e.fits(e.right / factor):
                return f"It lacks the factor {text.format(name)}."
            if e.fits(e.right * factor):
                return f"The factor {text.format(name)} enters once too often."
    return None


def missing_term(e: Evidence) -> str | None:
    """Say whether a multiple of a simple term is missing: everywhere the same, or along an axis."""
    dy = _aligned(e.dy, e.value.shape)
    terms = [("dy", dy)] if dy is not None else []
    terms += [(f"dy {name}", dy * a) for name, a in _alike(e) if dy is not None]
    terms += [] if dy is None else [(f"dy sign({e.name})", dy * np.sign(e.value))]
    error = np.where(e.known, e.right - e.given, 0)
    for text, term in terms:
        c = float((error * term)[e.known].sum() / max((term * term)[e.known].sum(), 1e-300))
        if c and e.close(e.given + c * term, e.right).all():
            return f"The term {c:.6g} {text} is missing."
    for text, term in _alike(e):
        for axis, n in enumerate(e.value.shape):
            if n < 2 or e.value.size - e.value.size // n < 2 or not e.known.all():
                continue  # as many unknown multiples as there are numbers fit always
            c_ = (error * term).sum(axis, keepdims=True) / (term * term).sum(axis, keepdims=True)
            if np.isfinite(c_).all() and e.close(e.given + c_ * term, e.right).all():
                return (
                    f"What is missing is {text} times one number for all of axis {axis}: a sum "
                    "over that axis, such as the derivative of a mean or a norm."
                )
    return None


def _alike(e: Evidence) -> Iterator[tuple[str, Numbers]]:
    """Yield the arguments, and y, that have the shape of the gradient or are broadcast to it."""
    for name, a in e.arrays.items():
        aligned = _aligned(a, e.value.shape)
        if aligned is not None and np.unique(aligned[e.known]).size > 1:
            yield name, aligned


def _aligned(a: Numbers, shape: tuple[int, ...]) -> Numbers | None:
    """Return an array broadcast to a shape, its first axes to the first ones; None if none fits."""
    if a.shape != shape[: a.ndim]:
        return None
    return np.broadcast_to(a.reshape(a.shape + (1,) * (len(shape) - a.ndim)), shape)


# ------------------------------------------------------------------------- where it is wrong


def some_coordinates(e: Evidence) -> str | None:
    """Say what the coordinates have in common where it is wrong, if it is right elsewhere."""
    known = e.known
    scale = np.abs(e.right[known]).max(initial=0.0)
    bad = known.copy()
    bad[known] = ~e.close(e.given, e.right)
    n = int(bad.sum())
    if n == 0 or n == known.sum():
        return None
    v, among = e.value, f"in {n} of {known.sum()} coordinates"
    tiny = np.abs(np.where(known, e.right, 0)) <= 1e-3 * scale  # may be wrong and not look it
    for text, where in (("< 0", v < 0), ("> 0", v > 0), ("= 0", v == 0)):
        if ((bad == (where & known)) | (tiny & ~bad)).all():
            return f"It is wrong {among}, those where {e.name} {text}, and right elsewhere."
    for axis, length in enumerate(v.shape):
        for i in range(length if v.ndim > 1 else 0):
            where = np.zeros(v.shape, bool)
            where[(slice(None),) * axis + (i,)] = True
            if (bad == (where & known)).all():
                return f"It is wrong at index {i} of axis {axis}, and right elsewhere."
    if 2 * n > known.sum():
        return None
    smallest = np.abs(v[bad]).min()
    if n > 1 and smallest > np.abs(v[known & ~bad]).max():
        return f"It is wrong {among}, those where |{e.name}| >= {smallest:.4g}, right elsewhere."
    return f"It is wrong {among} and right elsewhere."


# ------------------------------------------------------------------------- of another shape


def right_numbers_in_another_shape(e: Evidence) -> str | None:
    """Say whether it is (n, 1) for (n,), or (n_out, n_in) for (n_in, n_out)."""
    if e.given.size != e.right.size or not e.known.all():
        return None
    if e.given.shape == e.right.shape[::-1] and close(e.given, e.right.T):
        return "It is the right one transposed."
    if close(e.given.ravel(), e.right.ravel()):
        return "Its numbers are the right ones: reshape it."
    return None


def not_summed(e: Evidence) -> str | None:
    """Say whether it is not summed where it is broadcast, or summed over a wrong axis."""
    if e.jacobian is None:
        return None
    summands = e.jacobian.sum(axis=0) * e.dy  # like y: what each of its entries contributes
    if e.jacobian.size and close(e.given, summands) and _sums_to(summands, e.right):
        return (
            f"It is right but for a missing sum: {e.name} is broadcast to {e.dy.shape}, and its "
            "gradient sums over every axis along which it is."
        )
    for axis in range(e.dy.ndim):
        for keep in (False, True):
            if close(e.given, summands.sum(axis=axis, keepdims=keep)):
                return f"It sums over axis {axis} of dy, which is not the one to sum over."
    return None


def _sums_to(summands: Numbers, right: Numbers) -> bool:
    shape = (1,) * (summands.ndim - right.ndim) + right.shape
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    total = summands.sum(axis=axes, keepdims=True) if len(shape) == summands.ndim else summands
    return total.size == right.size and close(total.reshape(right.shape), right)


Cause: TypeAlias = Callable[[Evidence], str | None]

CAUSES_OF_FEW: tuple[Cause, ...] = (zero, sign, factor)
CAUSES: tuple[Cause, ...] = (
    *(*CAUSES_OF_FEW, precision, swapped, transposed, order),
    *(wrong_axis, passed_on, without_dy, quantity, jacobian_not_transposed, diagonal_only),
    *(some_coordinates, missing_factor, missing_term),
)
WRONG_SHAPES: tuple[Cause, ...] = (right_numbers_in_another_shape, not_summed)
