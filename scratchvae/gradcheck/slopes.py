"""What the forward pass says of a slope: an interval, from steps that agree.

The derivation is on the page "Finite differences"; the names here are those of its error model.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scratchvae.backend import Array, RandomSource, asnumpy, namespace

Numbers: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

STEP = 2.0**-6  # the first of three steps, in units of the argument's own size
# Each step is smaller than the one before by this factor. Were it whole, a step of many periods of
# a wave would be followed by others, and they would agree on nothing but each other.
RATIO = 3.7
# Three of the steps serve at once. From which they begin: the smallest are 1e-11, and none is
# larger than the argument, which would bring rounding of its own. To see whether y depends on it at
# all, it may move much farther; where it is tiny, by about 1.
FINEST, COARSEST, FARTHEST = 14, -3, -16
EPSILON = sys.float_info.epsilon
TINIEST = sys.float_info.min / EPSILON  # steps of 1e-11 of it are normal numbers
LEAST = 1e-12  # the smallest first step: two smaller ones follow at least, and x + h is not x
# What may be a last digit of larger numbers, all that is left of them: of numbers up to 4e9 or, in
# whatever unit, so little of what y changes far away.
CANCELS, OF_FAR = 2.0**-20, 1e-12
# At these steps a kink is sought that entries show only together, in so many random directions:
# where three numbers tie, one in two or three misses it.
JOINT, JOINT_TRIES = (2.0**-26, 2.0**-23, 2.0**-20), 16
PATIENCE = 2.0  # in seconds: as long as a call at other arguments may take, however short the first


class Check(NamedTuple):
    """One slope, from backward and from the forward pass.

    Attributes
    ----------
    name : str
    analytic : float
        What backward gives.
    numerical : float
        What the forward pass gives, good to `width`.
    error : float
        Their difference relative to the slope.
    width : float
        Half the width of the interval around `numerical` in which the slope lies.
    """

    name: str
    analytic: float
    numerical: float
    error: float
    width: float = 0.0


class Block(NamedTuple):
    """An argument or a parameter, and the gradient that backward gives for it."""

    name: str
    value: Array  # moved in place, and put back
    grad: Array


class Moves(NamedTuple):
    """A direction: how far one block moves in each coordinate, and by which steps to begin."""

    block: Block
    v: Array  # of the shape of the block
    unit: float = 1.0  # what a step of 1 is
    x: float = 0.0  # where it begins, if one coordinate moves


class Slope(NamedTuple):
    """An interval for the slope of f = sum(dy * y), and what makes it wide."""

    value: float
    row: Numbers  # (y.size,): the slope of every output
    curvature: float
    rounding: float
    kink: float
    noise: float  # what more there may be, by the coarser scales: nothing is called wrong within it
    secant: float = 0.0  # the steepest slope of a secant, to one side, of the three steps

    @property
    def width(self) -> float:
        """Half the width of the interval."""
        return self.curvature + self.rounding + self.kink

    @property
    def consistent(self) -> bool:
        """Whether the three steps agree, to a tenth or to rounding."""
        unsure = max(self.rounding, self.noise)
        return self.curvature + self.kink <= 0.1 * abs(self.value) + unsure

    @property
    def informed(self) -> bool:
        """Whether what is known to a tenth is the slope, or those of the two sides of a kink."""
        unsure = self.curvature + self.rounding + self.noise
        return unsure <= 0.1 * (abs(self.value) + self.kink)

    @property
    def kinked(self) -> bool:
        """Whether the two sides differ by more than rounding or curvature may make them."""
        return self.kink > self.rounding + self.curvature

    def apart(self, other: Slope, by: float = 1.0) -> bool:
        """Tell whether it and another interval have no slope in common, were they wider `by`."""
        return abs(self.value - other.value) > by * (self.width + self.noise + other.width)

    def distance(self, slope: float) -> float:
        """Return how far a number lies outside the interval, widened for safety but for a kink."""
        unsure = self.curvature + self.rounding + self.noise
        return abs(slope - self.value) - self.kink - 4 * unsure


class OutOfTime(BaseException):
    """A call did not return in time; no Exception, for the code that is called may catch those."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in what happens inside if it takes longer.

    The signal that does so exists on Unix and in the main thread alone, and waits for a single call
    of compiled code to end. Elsewhere there is no limit.
    """
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again if it was caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)  # of an outer limit
        signal.signal(signal.SIGALRM, handler)


def patience(seconds: float) -> float:
    """Return how long a call may take whose like took that long."""
    return max(PATIENCE, 100 * seconds)


class Forward:
    """The forward pass as a function of the blocks, which it moves and puts back."""

    def __init__(
        self,
        evaluate: Callable[[], Array],
        dy: Array,
        step: float,
        blocks: Sequence[Block] = (),
        arrays: Sequence[Array] = (),
        rng: RandomSource = None,
    ) -> None:
        self.evaluate, self.step, self.shape = evaluate, step, dy.shape
        self.blocks, self.rng = blocks, np.random.default_rng(rng)
        self.dy = asnumpy(dy).ravel()
        start = time.perf_counter()
        self.y = asnumpy(evaluate()).ravel().astype(np.float64)
        self.limit = patience(time.perf_counter() - start)
        self.hung = 0  # calls that did not return in time
        self.is_float32 = is_float32(self.y)  # in its digits
        # Half a unit in the last place is the least that rounding does; `noise` measures the rest.
        self.epsilon = 2.0**-23 if self.is_float32 else sys.float_info.epsilon
        self.rounding = 2 * self.epsilon * np.abs(self.y)  # (y.size,)
        self.noise: list[tuple[float, Numbers]] = []  # of y, within a reach in units of size
        self.lost = np.zeros(self.y.shape, bool)  # outputs of which it leaves no two digits
        # A change as small as this may be rounding of the largest numbers around.
        values = [*arrays, *(b.value for b in blocks), self.y]
        self.tiny = 1e4 * EPSILON * max((float(abs(a).max()) for a in values if a.size), default=0)

    def change(self, moves: Sequence[Moves], t: float) -> Numbers | None:
        """Return y(x + t v) - y(x), or None where the forward pass is not defined."""
        old = [m.block.value.copy() for m in moves]
        try:
            for m, value in zip(moves, old, strict=True):
                m.block.value[...] = value + t * m.v
            with time_limit(self.limit), np.errstate(all="ignore"):
                y = asnumpy(self.evaluate()).flatten()  # a copy: it may be a view of the block
        except Exception:  # a domain left: a matrix no longer positive definite, an assertion
            return None
        except OutOfTime:  # an iteration that converges no more
            self.hung += 1
            if self.hung == 3:
                raise
            return None
        finally:
            for m, value in zip(moves, old, strict=True):
                m.block.value[...] = value
        return y - self.y if y.shape == self.y.shape and np.isfinite(y).all() else None

    def measure_noise(self) -> None:
        """Measure what rounding shows of itself along one direction of all blocks, at four scales.

        Over tiny steps any smooth f is a polynomial, so that what a fit of one leaves is rounding:
        the idea of J. J. Moré and S. M. Wild, "Estimating Computational Noise", 2011. The steps are
        random, for rounding that comes in leaps may keep time with even ones, and to one side, for
        what has a kink has it at x itself. Other kinks change few residues, and not their median.
        """
        if self.noise:
            return
        moves = [direction(b, self.rng) for b in self.blocks]
        for spacing in (2.0**-34, 2.0**-27, 2.0**-20, 2.0**-13):
            t = np.sort(self.rng.uniform(1, 13, 13))
            some = [self.change(moves, spacing * k) for k in t]
            values = np.array([c for c in some if c is not None])  # (13, y.size)
            noise = 0 * self.y
            if len(values) == len(t):
                powers = np.vander(t / 13, 6)
                residue = values - powers @ (np.linalg.pinv(powers) @ values)
                limit = 5 * np.median(np.abs(residue), axis=0)
                noise = 4 * np.minimum(np.hypot.reduce(residue) / (len(t) - 6) ** 0.5, limit)
                if not self.noise:
                    self.lost = noise > 0.01 * np.abs(self.y + values).max(axis=0)
            self.noise.append((13 * spacing, noise))

    def joint_kink(self, some: Sequence[Numbers]) -> tuple[Numbers, list[Moves]]:
        """Tell which outputs change by more, if all entries move at once, than parts add up to.

        Of a smooth y, and of one with the kinks of single entries, what it changes beyond the sum
        vanishes faster than the step. Where it does not, y is not differentiable, and the slopes
        along single coordinates need not show that.

        Parameters
        ----------
        some : sequence of Array of bool
            For every block which entries are moved alone.

        Returns
        -------
        moved : Array (y.size,)
            How far the outputs moved for which it does not vanish, per step; 0 for the others.
        moves : list of Moves
            The random move of all entries.
        """
        moves = [direction(b, self.rng) for b in self.blocks]
        masks = [namespace(m.v).asarray(mask) for m, mask in zip(moves, some, strict=True)]
        ways = [moves]
        ways += [
            [m._replace(v=m.v * (mask == alone)) for m, mask in zip(moves, masks, strict=True)]
            for alone in (True, False)
        ]
        kinked, before, moved = np.ones(self.y.shape, bool), None, 0 * self.y
        for t in JOINT:
            changes = [c for c in (self.change(way, t) for way in ways) if c is not None]
            if len(changes) < len(ways):
                return 0 * self.y, moves
            beyond, moved = (changes[0] - changes[1] - changes[2]) / t, np.abs(changes).max(0) / t
            kinked &= np.abs(beyond) > 1e-4 * moved + 16 * self.noise_within(t)[1] / t
            if before is not None:
                kinked &= np.abs(beyond - before) <= 0.1 * np.abs(before)
            if not kinked.any():
                break
            before = beyond
        return np.where(kinked, moved, 0), moves

    def noise_within(self, reach: float) -> tuple[Numbers, Numbers]:
        """Return by how much y may be off, by the finest scale and by all up to `reach`.

        Somewhat smaller steps know no more than the finest scale; far smaller ones are those of an
        entry that is small beside the others, which that scale moves by far more than its size.
        """
        noises = [self.rounding, *(n for scale, n in self.noise[:1] if scale <= 100 * reach)]
        noises += [n for scale, n in self.noise[1:] if scale <= reach]
        return np.max(noises[:2], axis=0), np.max(noises, axis=0)


class Ladder:
    """The slope along one direction, by smaller and smaller steps.

    `slack` is by how much f is off since x is rounded: x + h v here, and x itself by a forward pass
    that multiplies it.
    """

    def __init__(self, forward: Forward, moves: Moves, slack: float) -> None:
        self.forward, self.moves, self.slack = forward, moves, slack
        self.found: dict[int, tuple[float, Numbers, Numbers] | None] = {}
        self.digits = 0 * forward.y  # what `last_digits` has found
        # A smaller first step leaves out the largest: fewer smaller ones are left.
        self.finest = max(0, FINEST - max(0, round(math.log(STEP / forward.step, RATIO))))
        to_1 = -math.ceil(math.log(1 / (forward.step * moves.unit), RATIO))
        self.farthest = max(min(FARTHEST, to_1), 3 * FARTHEST)

    def rung(self, i: int) -> tuple[float, Numbers, Numbers] | None:
        """Return h, y(h) - y and y(-h) - y of the i-th step; None where y is not defined."""
        if i not in self.found:
            h, x = self.moves.unit * self.forward.step * RATIO**-i, self.moves.x
            h = (x + h) - x  # what x + h adds after rounding: so x itself is not rounded
            ends = [self.forward.change([self.moves], t) for t in (h, -h)]
            self.found[i] = None if ends[0] is None or ends[1] is None else (h, ends[0], ends[1])
        return self.found[i]

    def order(self) -> list[int]:
        """Return from which rungs to begin, in turn.

        The smallest steps are 1e-11 of the coordinate itself, where its array's median is larger.
        """
        x, extra = abs(self.moves.x), 0
        if 0 < x < self.moves.unit:
            extra = min(math.ceil(math.log(self.moves.unit / x, RATIO)), FINEST)
        smaller, larger = range(1, self.finest + extra + 1), range(-1, COARSEST - 1, -1)
        self.reach()
        return [0, *smaller, *larger] if self.secant() or not self.rung(0) else [0, *larger]

    def reach(self) -> None:
        """Take larger and larger steps until one moves an output, if the farthest does.

        Where the forward pass is not defined as far away, take all of them.
        """
        if not self.forward.hung:  # an output that does not move there either does not depend on x
            self.rung(self.farthest)
        far = self.forward.hung or self.found.get(self.farthest)
        for i in range(-1, self.farthest, -1):
            if (far and self.secant()) or self.rung(i) is None:
                break

    def slope(self, i: int) -> Slope | None:
        """Return the interval by three steps from the i-th on; None where y is not defined."""
        rungs = [r for r in (self.rung(i + k) for k in range(3)) if r is not None]
        if len(rungs) < 3:
            return None
        h = np.array([r[0] for r in rungs])[:, None]
        up, down = (np.array([r[k] for r in rungs]) for k in (1, 2))  # (3, y.size) each
        still, ends = self.still(), np.maximum(np.abs(up), np.abs(down)).max(axis=0)
        finest, noise = self.forward.noise_within(self.forward.step * RATIO**-i)
        # What never moves has no part in the slope, whatever it does where others move.
        moves = still < self.taken()[-1][0]
        noise, finest = np.where(moves, noise, 0), np.where(moves, finest, self.forward.rounding)
        finest = finest + 2 * self.forward.epsilon * ends  # of |y| there
        finest, noise = np.maximum(finest, self.digits), np.maximum(noise, self.digits)
        step = np.where(still >= h[0], still, h[2])
        # [finite-differences-interval]
        # Where the slopes from the two sides differ the interval holds both, and a hundredth more.
        row, curvature = extrapolate((up - down) / (2 * h), RATIO**2)
        gap, gap_error = extrapolate((up + down) / h, RATIO)
        rounding, noise = finest / step, noise / step
        kink = np.where(np.abs(gap) > gap_error + 6 * rounding, 0.505 * np.abs(gap) + gap_error, 0)
        value, weights = float((self.forward.dy * row).sum()), np.abs(self.forward.dy)
        parts = [float((weights * part).sum()) for part in (curvature, rounding, kink, noise)]
        parts[1] += self.slack / float(h[2, 0])
        secant = float((np.maximum(np.abs(up), np.abs(down)) / h @ weights).max())
        return Slope(value, row, parts[0], parts[1], parts[2], parts[3], secant)

    def taken(self, within: float = -math.inf) -> list[tuple[float, Numbers, Numbers]]:
        """Return the steps taken at which y is defined, the smallest first, up to one of them."""
        some = [self.found[i] for i in sorted(self.found, reverse=True) if i >= within]
        return [rung for rung in some if rung is not None]

    def still(self) -> Numbers:
        """Return, for every output, the largest step up to which it does not move at all."""
        still, moved = np.zeros(self.forward.y.shape), np.zeros(self.forward.y.shape, bool)
        for h, up, down in self.taken():
            moved |= (up != 0) | (down != 0)
            still[~moved] = h
        return still

    def secant(self) -> float:
        """Return the size of the secants' slopes, by the first steps that move anything, else 0."""
        dy = np.abs(self.forward.dy)
        first, all_ = (
            [float(dy @ np.maximum(np.abs(up), np.abs(down))) / h for h, up, down in self.taken(k)]
            for k in (0, self.farthest + 1)
        )
        return max(first, default=0.0) or next(filter(None, all_), 0.0)

    def leaps(self, i: int) -> bool:
        """Tell whether smaller steps than those of the i-th slope find steeper secants.

        Then those leap over a detail in which x lies, such as a peak or a wave, and what they agree
        on is not the slope at x. What the last digit of y may add to a secant does not count. The
        measured noise would be too much: in it are waves that are shorter than its steps.
        """
        dy = np.abs(self.forward.dy)
        steepness, surely = [], []
        for k, rung in self.found.items():
            if rung is None or k < i:
                continue
            h, ends = rung[0], np.maximum(np.abs(rung[1]), np.abs(rung[2]))
            secant = float(dy @ ends) / h
            if k < i + 3:
                steepness.append(secant)
                continue
            noise = self.forward.rounding + 2 * self.forward.epsilon * ends
            surely.append(secant - 4 * (float(dy @ noise) + self.slack) / h)
        return max(surely, default=0.0) > 3 * max(steepness, default=math.inf)

    def last_digits(self) -> bool:
        """Tell whether outputs move by last digits of larger numbers, which cancel.

        Of 1 - cos(x) near 0, or (t + x) - t, whole last digits of 1 and of t are left. y may be 0,
        and has no rounding of its own then; to small steps it stands still, and where it first
        moves it leaps, by little, and stands still again. `slope` takes the leaps for rounding.
        """
        moved = np.array([np.maximum(np.abs(up), np.abs(down)) for _, up, down in self.taken()])
        least = np.where(moved > 0, moved, np.inf).min(axis=0, initial=np.inf)
        most = np.maximum(CANCELS, OF_FAR * moved.max(axis=0, initial=0))
        some = (self.still() > 0) & (least > self.forward.rounding) & (least <= most)
        if some.any() and (ends := self._first_move(some, self.farthest)):
            landed, later, own = (a[some] for a in (*ends, self.forward.rounding))
            if ((landed == later) & (np.abs(landed) > own))[landed != 0].all():
                self.digits = np.where(some, least, 0)
        return bool(self.digits.any())

    def climbs_stairs(self) -> bool:
        """Tell whether y leaps where it first moves, by less than 1%, and then stands still again.

        So does what is rounded, to fewer digits than a float64 has. What begins to move at a kink,
        or goes on from a leap, does not; and whole numbers are no rounding error.
        """
        ends = self._first_move(np.ones(self.forward.y.shape, bool), COARSEST)
        if not ends:
            return False
        landed, later = ends
        leaps, y = np.abs(landed), np.abs(self.forward.y)
        stairs = (landed == later) & (leaps <= 0.01 * y) & (leaps > 100 * self.forward.rounding)
        return bool(stairs[landed != 0].all())

    def _first_move(self, some: Numbers, within: int) -> tuple[Numbers, Numbers] | None:
        """Return how y has changed where some outputs first move, and a little farther on."""
        still = 0.0
        for h, up, down in self.taken(within):
            if up[some].any() or down[some].any():
                side = 1 if up[some].any() else -1
                break
            still = h
        else:
            return None
        for _ in range(50):  # to the last digits of the place
            middle = (still + h) / 2
            change = self.forward.change([self.moves], side * middle)
            if change is None:
                return None
            still, h = (still, middle) if change[some].any() else (middle, h)
        landed, later = (self.forward.change([self.moves], side * k * h) for k in (1, 1.01))
        return None if landed is None or later is None else (landed, later)

    def never_moves(self) -> bool:
        """Tell whether the outputs stay as they are wherever they were looked at, far away too."""
        moved = any(up.any() or down.any() for _, up, down in self.taken())
        return self.farthest in self.found and not moved


def extrapolate(values: Numbers, q: float) -> tuple[Numbers, Numbers]:
    """Return the limit for h -> 0 of values at three steps, and an estimate of its error.

    The terms of order h^2 and h^4 vanish for q = RATIO^2, those of order h and h^3 for q = RATIO.
    """
    coarse, fine = ((q * b - a) / (q - 1) for a, b in ((values[0], values[1]), values[1:]))
    r = q * RATIO**2
    best, apart = (r * fine - coarse) / (r - 1), np.abs(fine - coarse)
    # Where the steps do not agree to a tenth the series says nothing yet.
    return best, np.where(apart <= 0.1 * np.abs(best), np.abs(best - fine) + apart / 64, apart)


def sizes_of(value: Array) -> Numbers:
    """Return the size of every entry of an array: its own, or the array's median if that is larger.

    An array of zeros has the size 1. None is so small that a small part of it is 0.
    """
    x = np.abs(asnumpy(value))
    median = float(np.median(x[x > 0])) if x.any() else 1.0
    return np.asarray(np.maximum(x, max(median, TINIEST)))


def direction(block: Block, rng: np.random.Generator, where: Numbers | bool = True) -> Moves:
    """Return a random direction of some entries, each relative to its size, about 8 in length."""
    shape = block.value.shape
    where = np.broadcast_to(where, shape)
    scale = min(1.0, (64 / max(int(where.sum()), 1)) ** 0.5)
    v = rng.uniform(0.5, 1, shape) * rng.choice([-1.0, 1.0], shape) * where
    return Moves(block, namespace(block.value).asarray(scale * sizes_of(block.value) * v))


def coordinate(block: Block, index: tuple[Any, ...]) -> Moves:
    """Return the direction of one coordinate."""
    v = namespace(block.value).zeros_like(block.value)
    v[index] = 1
    return Moves(block, v, float(sizes_of(block.value)[index]), float(block.value[index]))


def is_float32(x: Numbers) -> bool:
    """Tell whether an array has float32's digits only, and enough of them to say so."""
    x = x[x != 0]
    with np.errstate(over="ignore", under="ignore"):
        narrow = x.astype(np.float32)
    # Few numbers of float64 need no more than 24 bits, but a half, a sum of ones, a pixel do.
    fractions = np.abs(np.frexp(x)[0]) * 2**12
    many = np.unique(x[fractions != np.round(fractions)]).size >= 2
    return bool(many and (narrow == x).all())
