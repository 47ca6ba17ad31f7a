"""How a gradient is wrong: the simplest explanation that fits the numbers, in one sentence.

Each cause below is a function of the `Evidence`. It yields guesses, which are what backward would
give if that were the cause, each with a sentence. The first guess that fits explains the error: it
agrees in every coordinate that is known, to nine digits or as well as the differences know it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
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

    def terms(self, dy: Numbers) -> Numbers:
        """Return the sum of what each entry is a sum of, for a cotangent, without cancelling."""
        if self.jacobian is None:
            return np.zeros(self.value.shape)
        rows = np.abs(self.jacobian).reshape(self.value.size, -1) @ np.abs(dy).ravel()
        return np.asarray(rows.reshape(self.value.shape))

    @cached_property
    def all_terms(self) -> Numbers:
        """Those of the right gradient, of the shape of `value`."""
        return self.terms(self.dy)

    def close(self, a: Numbers, b: Numbers, times: Numbers | float = 1.0) -> Numbers:
        """Tell, entry by entry of what is known, whether two arrays of the shape of `value` agree.

        To agree is to share nine digits, or as many as the differences know. Both are those of the
        right gradient and its terms, or of so many times them, entry by entry.
        """
        known, times = self.known, np.broadcast_to(times, self.value.shape)
        a, b, times = a[known], b[known], times[known]
        size = np.maximum(np.abs(a), np.abs(b)) + times * self.all_terms[known]
        return np.asarray(np.abs(a - b) <= FIT * size + 4 * times * self.width[known])

    def fits(self, guess: Numbers | None, times: Numbers | float = 1.0) -> bool:
        """Tell whether backward gives `guess`, and that is not what is right, where it is known."""
        if guess is None or guess.shape != self.given.shape:
            return False
        if guess.shape != self.value.shape:
            largest = np.abs(guess).max(initial=0.0)
            return bool(largest > 0 and np.abs(self.given - guess).max() <= FIT * largest)
        if not self.close(self.given, guess, times).all() or self.close(self.right, guess).all():
            return False
        known, given = guess[self.known], self.given[self.known]
        # Beside terms so large that backward's might as well be 0, only its own digits tell.
        hidden = self.close(self.given, 0 * self.given, times).all()
        hidden = hidden and (np.abs(given - known) > FIT * np.abs(given)).any()
        # Beside a far larger right one any two would agree.
        apart = np.abs(given - known) - 4 * (times * self.width)[self.known]
        alike = apart.max(initial=0) <= 0.01 * np.abs(given).max(initial=0)
        possible = known.any() and np.isfinite(known).all()
        return bool(possible and alike and not hidden)

    def fits_part(self, guess: Numbers | None, terms: Numbers) -> bool:
        """Do the same for a guess that leaves terms out: how large is what it does not leave out.

        What is left out may be far larger, and hides nothing.
        """
        return self.fits(guess, terms / (self.all_terms + (self.all_terms == 0)))

    def pull_back(self, dy: Numbers) -> Numbers | None:
        """Return the right gradient for another cotangent, or None if it is not known."""
        if self.jacobian is None or dy.shape != self.dy.shape:
            return None
        product = self.jacobian.reshape(self.value.size, -1) @ dy.ravel()
        return np.asarray(product.reshape(self.value.shape))


# What backward would give, or what it gives where the sentence only describes that.
Guesses: TypeAlias = "Iterator[tuple[Numbers | None, str]]"


def explain(e: Evidence) -> tuple[str, str]:
    """Return the name of the simplest cause that fits and a sentence on it, or two empty texts."""
    causes = CAUSES
    if e.given.shape != e.value.shape:
        causes = WRONG_SHAPES
    elif e.close(e.given, e.right).all():
        return "", ""  # where it is wrong was not measured
    elif np.count_nonzero(((e.right != 0) | (e.given != 0)) & e.known) < 3:
        causes = CAUSES_OF_FEW  # almost anything fits so few numbers
    for cause in causes:
        with np.errstate(all="ignore"):
            for guess, sentence in cause(e):
                if guess is e.given or e.fits(guess):
                    return cause.__name__.replace("_", " "), sentence
    return "", ""


# ------------------------------------------------------------------------- factors and signs


def zero(e: Evidence) -> Guesses:
    """Guess that nothing arrives."""
    if not e.given.any():
        yield e.given, "Backward's is zero everywhere."


def sign(e: Evidence) -> Guesses:
    """Guess that it is minus the right one."""
    yield -e.right, "Its sign is wrong in every coordinate."


def factor(e: Evidence) -> Guesses:
    """Guess that it is a constant times the right one."""
    a, n, width = e.given[e.known], e.right[e.known], e.width[e.known]
    if not n.any():
        return
    k = np.argmax(np.abs(n) / (width + FIT * np.abs(n)))  # the one known best
    ratio, fit = float(a[k] / n[k]), FIT + 4 * float(width[k] / np.abs(n[k]))
    if fit > 0.01:
        return  # known too roughly to be called a factor
    if e.dy.size == 1 and abs(ratio * e.dy.item() - 1) <= fit:
        return  # that of a loss for a dy of 1, see `without_dy`
    names = [text for number, text in _factors(e.sizes) if abs(ratio / number - 1) <= fit]
    if np.count_nonzero(n) < 2 and not names:
        return
    if np.abs(a - ratio * n).max() > 0.01 * min(np.abs(a - n).max(), np.abs(a).max()):
        return  # close to the right one, but not by a factor
    says = f": {', or '.join(names)}" if names else ""
    where = "every coordinate looked at" if n.size > 1 else "its one coordinate"
    shown = f"{ratio:.8g}" if fit < 2 * FIT else f"about {ratio:.4g}"
    if e.close(e.given, ratio * e.right, max(1.0, abs(ratio))).all():
        yield e.given, f"It is {shown} times the right one in {where}{says}."


def _factors(sizes: Mapping[str, int]) -> Iterator[tuple[float, str]]:
    named = [(n, name) for name, n in sizes.items() if n > 1]
    means = [(n, f"{n} is {name}, so a mean over it is") for n, name in named]
    means += [
        (n * m, f"{n * m} is {one} times {other}, so a mean over both is")
        for (n, one), (m, other) in itertools.combinations(named, 2)
    ]
    for minus, prefix in ((1, ""), (-1, "the sign is wrong and ")):
        yield minus * 2, f"{prefix}a factor 1/2 is missing, or a term counts twice"
        yield minus / 2, f"{prefix}there is a factor 1/2 too many, or one of two terms is missing"
        for n, text in means:
            yield minus * n, f"{prefix}{text} missing"
            yield minus / n, f"{prefix}1 / {n} where {text} taken twice, or instead of a sum"


# -------------------------------------------------------------- the right numbers, elsewhere


def swapped(e: Evidence) -> Guesses:
    """Guess that it is another argument's gradient."""
    for name, other in e.others.items():
        both = f"The gradients of {name} and {e.name} are swapped."
        yield other.right, both if other.fits(e.right) else f"It is the gradient of {name}."


def transposed(e: Evidence) -> Guesses:
    """Rows and columns are exchanged."""
    yield e.right.T, "It is the right one transposed."


def jacobian_not_transposed(e: Evidence) -> Guesses:
    """Guess that it is J dy for J^T dy."""
    if e.jacobian is not None and e.value.size == e.dy.size:
        product = e.jacobian.reshape(e.value.size, -1).T @ e.dy.ravel()
        yield (
            product.reshape(e.value.shape),
            "It is J dy where J^T dy belongs, J being the Jacobian: a matrix lacks its transpose.",
        )


def diagonal_only(e: Evidence) -> Guesses:
    """Guess that each output is taken to depend on its own input alone."""
    if e.jacobian is not None and e.value.shape == e.dy.shape:
        own = np.diagonal(e.jacobian.reshape(e.value.size, -1)).reshape(e.value.shape)
        if e.fits_part(own * e.dy, np.abs(own * e.dy)):
            text = "It takes each entry of y to depend on its own input alone"
            yield e.given, f"{text}: the others are missing."


def order(e: Evidence) -> Guesses:
    """Guess that it is reversed, or its halves exchanged, as [logvar | mu] for [mu | logvar]."""
    for axis, n in enumerate(e.right.shape):
        yield np.flip(e.right, axis), f"It is the right one in reverse order along axis {axis}."
        if n % 2 == 0:
            halves = f"It is the right one with its two halves along axis {axis} swapped."
            yield np.roll(e.right, n // 2, axis), halves


# ------------------------------------------------------------------------- what is made of dy


def passed_on(e: Evidence) -> Guesses:
    """Guess that it is dy alone, or its sum, without the derivative."""
    ones = (1,) * (e.dy.ndim - e.value.ndim)
    for shape in (ones + e.value.shape, e.value.shape + ones):
        if e.dy.ndim == len(shape):
            dy = e.dy.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
            what = "dy itself" if dy.shape == e.dy.shape else "the sum of dy"
            text = f"It is {what}: the derivative of the forward pass is missing."
            yield dy.reshape(e.value.shape) if dy.shape == shape else None, text


def without_dy(e: Evidence) -> Guesses:
    """Guess that it is the derivative alone, without dy."""
    text = "It is the gradient for a dy of ones: backward does not multiply by dy."
    yield e.pull_back(np.ones_like(e.dy)), text


def wrong_axis(e: Evidence) -> Guesses:
    """Guess that dy is summed, averaged or turned along a wrong axis, or used in part."""
    turned = "It is right for dy transposed: it sums over the wrong axis, or lacks a transpose."
    yield e.pull_back(e.dy.T), turned
    for axis, n in enumerate(e.dy.shape):
        total = np.broadcast_to(e.dy.sum(axis=axis, keepdims=True), e.dy.shape)
        for what, dy in (("sum", total), ("mean", total / n)):
            text = f"It is the gradient for the {what} of dy over axis {axis} instead of dy."
            yield e.pull_back(dy), text

        def counts(*index: int, axis: int = axis) -> bool:
            """Tell whether it may be that it counts these alone."""
            some = np.zeros_like(e.dy)
            np.moveaxis(some, axis, 0)[[*index]] = np.moveaxis(e.dy, axis, 0)[[*index]]
            return e.fits_part(e.pull_back(some), e.terms(some))

        for i in range(n):
            # It says so only if it would not look the same with any other.
            if counts(i) and not any(counts(i, k) for k in range(n) if k != i):
                alone = f"It counts index {i} of axis {axis} of dy alone"
                yield e.given, f"{alone}, where all {n} reach {e.name}."


# ------------------------------------------------------------------- in which quantity it is


# Quantities that are mistaken for v, with their derivatives in v.
QUANTITIES: tuple[tuple[str, Callable[[Numbers], Numbers], str], ...] = (
    ("sigma", lambda v: np.exp(v / 2) / 2, "dsigma/dlogvar = sigma / 2"),
    ("exp({})", np.exp, "exp({})"),
    ("logvar = log sigma^2", lambda v: 2 / v, "2 / {}"),
    ("log({})", lambda v: 1 / v, "1 / {}"),
    ("{}^2", lambda v: 2 * v, "2 {}"),
    ("sqrt({})", lambda v: 1 / (2 * np.sqrt(v)), "1 / (2 sqrt({}))"),
)


def quantity(e: Evidence) -> Guesses:
    """Guess that it is the gradient of sigma for that of logvar, and the like."""
    if np.unique(e.value[e.known]).size < 2:
        return  # a constant ratio is a factor
    for text, derivative, named in QUANTITIES:
        quantity_, factor_ = text.format(e.name), named.format(e.name)
        yield (
            e.right / derivative(e.value),
            f"It is the gradient of {quantity_} where that of {e.name} belongs: multiply by "
            f"{factor_}.",
        )
    yield (
        e.right * np.exp(e.value / 2) / 2,
        "It is the right one times dsigma/dlogvar = sigma / 2: that factor enters once too often.",
    )


# ------------------------------------------------------------------------- how exact it is


def precision(e: Evidence) -> Guesses:
    """Guess that its digits, or those of its ratio to dy, are float32's."""
    if text := float32_digits(e.given, e.dy):
        yield e.given, text


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


def missing_factor(e: Evidence) -> Guesses:
    """Guess that it lacks a factor made of an argument or of y, or has it once too often."""
    if (e.known & (e.given == 0) & (e.right != 0)).any():
        return  # by what vanishes, as exp does, anything could have been multiplied
    for name, a in _alike(e):
        for text, f in FACTORS:
            yield e.right / f(a), f"It lacks the factor {text.format(name)}."
            yield e.right * f(a), f"The factor {text.format(name)} enters once too often."


def missing_term(e: Evidence) -> Guesses:
    """Guess that a multiple of a simple term is missing: everywhere the same, or along an axis."""
    error, dy = np.where(e.known, e.right - e.given, 0), _aligned(e.dy, e.value.shape)
    alike = list(_alike(e))

    def multiple(term: Numbers, axis: int | None = None) -> Numbers:
        products, squares = error * term, np.where(e.known, term * term, 0)
        return np.asarray(products.sum(axis, keepdims=True) / squares.sum(axis, keepdims=True))

    for text, a in [("", np.ones(())), *alike, (f"sign({e.name})", np.sign(e.value))]:
        if dy is not None:
            c, d = multiple(dy * a), multiple((dy - 1) * a)
            missing = f"The term {c.item():.6g} {f'dy {text}'.strip()} is missing"
            alone = f"the term {f'{d.item():.6g} {text}'.strip()} is not multiplied by dy"
            if np.unique(dy).size == 1 and not (dy == 1).all():  # it may be either
                yield e.right - c * dy * a, f"{missing}, or {alone}."
            else:
                yield e.right - c * dy * a, f"{missing}."
                yield e.right - d * (dy - 1) * a, f"T{alone[1:]}."
    for text, a in [("", np.ones(e.value.shape)), *alike]:
        varied = a if text else e.given
        for axis, n in enumerate(e.value.shape):
            # As many unknown multiples as there are numbers fit always, and where the array, or
            # else backward's, is the same all along the axis so does anything that is.
            varies = (np.ptp(varied, axis) > FIT * np.abs(varied).max()).all()
            if n > 1 and varies and e.value.size - e.value.size // n > 1 and e.known.all():
                yield (
                    e.right - multiple(a, axis) * a,
                    f"It is off by {f'{text} times ' if text else ''}one number for all of axis "
                    f"{axis}, as where a sum over that axis, such as the derivative of a mean or a "
                    "norm, is missing or has a wrong factor.",
                )


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


def some_coordinates(e: Evidence) -> Guesses:
    """Guess what the coordinates have in common where it is wrong, if it is right elsewhere."""
    v, known, bad = e.value, e.known, e.known.copy()
    bad[known] = ~e.close(e.given, e.right)
    n = int(bad.sum())
    if n in (0, known.sum()) or 2 * e.doubtful.sum() > known.sum():
        return
    right = np.abs(np.where(known, e.right, 0))
    tiny = right <= 1e-3 * right.max()  # may be wrong and not look it
    if (bad | tiny)[known].all():
        return
    among, elsewhere = f"in {n} of {known.sum()} coordinates", "and right elsewhere."
    if not known.all():
        which = "that could be decided" if (known | e.doubtful).all() else "that were looked at"
        among, elsewhere = f"{among} {which}", "and right in the others."
    if not (known | e.doubtful).all() and n < 4:  # too few of a large array to have a pattern
        yield e.given, f"It is wrong {among} {elsewhere}"
        return
    for text, where in (("< 0", v < 0), ("> 0", v > 0), ("= 0", v == 0)):
        if ((bad == (where & known)) | (tiny & ~bad)).all():
            yield e.given, f"It is wrong {among}, those where {e.name} {text}, {elsewhere}"
    for axis in range(v.ndim) if v.ndim > 1 else ():
        index = np.unique(np.nonzero(bad)[axis])
        if index.size == 1 and 1 < n == known.take(index, axis).sum():
            yield e.given, f"It is wrong at index {index[0]} of axis {axis}, {elsewhere}"
    if 2 * n <= known.sum():
        smallest = np.abs(v[bad]).min()
        if n > 1 and smallest > np.abs(v[known & ~bad]).max():
            where_ = f"those where |{e.name}| >= {smallest:.4g}"
            yield e.given, f"It is wrong {among}, {where_}, {elsewhere}"
        yield e.given, f"It is wrong {among} {elsewhere}"


# ------------------------------------------------------------------------- of another shape


def right_numbers_in_another_shape(e: Evidence) -> Guesses:
    """Guess that it is (n, 1) for (n,), or (n_out, n_in) for (n_in, n_out)."""
    yield e.right.T, "It is the right one transposed."
    if e.given.size == e.right.size:
        yield e.right.reshape(e.given.shape), "Its numbers are the right ones: reshape it."


def not_summed(e: Evidence) -> Guesses:
    """Guess that it is not summed where it is broadcast, or summed over a wrong axis."""
    if e.jacobian is None:
        return
    summands = e.jacobian.sum(axis=0) * e.dy  # like y: what each of its entries contributes
    if np.count_nonzero(e.jacobian, axis=0).max(initial=0) == 1:
        yield (
            summands,
            f"It is right but for a missing sum: {e.name} is broadcast to {e.dy.shape}, and its "
            "gradient sums over every axis along which it is.",
        )
    for axis in range(e.dy.ndim):
        for keep in (False, True):
            text = f"It sums over axis {axis} of dy, which is not the one to sum over."
            yield summands.sum(axis=axis, keepdims=keep), text


Cause: TypeAlias = Callable[[Evidence], Guesses]

CAUSES_OF_FEW: tuple[Cause, ...] = (zero, sign, factor)
CAUSES: tuple[Cause, ...] = (
    *(*CAUSES_OF_FEW, precision, swapped, transposed, order),
    *(wrong_axis, passed_on, without_dy, quantity, jacobian_not_transposed, diagonal_only),
    *(some_coordinates, missing_factor, missing_term),
)
WRONG_SHAPES: tuple[Cause, ...] = (right_numbers_in_another_shape, not_summed)
