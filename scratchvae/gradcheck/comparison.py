"""Compare the gradients of some blocks with the slopes of the forward pass, and judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import Array, asnumpy, namespace
from scratchvae.errors import counted

from .diagnosis import Evidence, explain, float32_digits
from .slopes import (
    EPSILON,
    JOINT_TRIES,
    Block,
    Check,
    Forward,
    Ladder,
    Moves,
    Slope,
    coordinate,
    direction,
    sizes_of,
)

TOLERANCE = 1e-7
RESOLVED = 100  # the narrowest interval decides up to so many tolerances of the slope
FLOOR = 0.1  # and of a slope a thousandth of the block's largest, or less, than this of that one
SMALL = 64  # a block of at most so many entries is checked along every coordinate
FULL = 512  # and looked at along every coordinate, where it is wrong, if it has at most so many


@dataclass(frozen=True)
class Report:
    """What was compared.

    Attributes
    ----------
    name : str
    error : float
        The largest relative error of a slope; infinite where nothing could be compared.
    tolerance : float
    seed : int
        Handed in as `rng`, it repeats the check.
    checks : tuple of Check
    message : str
        What is wrong and how; empty if nothing is.
    verdict : {"right", "wrong", "cannot tell"}
        The last where the forward pass does not fix a slope well enough to decide.
    cause : str
        The explanation that was found, such as "sign", "factor" or "kink"; empty if none was.
    note : str
        Which arguments the gradients were taken to belong to, if that was left open.
    unchecked : dict
        What may have a gradient and was not checked, by name: arguments for which backward gives
        none, arrays of a layer that it does not name. The value is the reason.
    """

    name: str
    error: float
    tolerance: float
    seed: int
    checks: tuple[Check, ...] = ()
    message: str = ""
    verdict: str = "right"
    cause: str = ""
    note: str = ""
    unchecked: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether backward was found right."""
        return self.verdict == "right"

    def __str__(self) -> str:
        slopes = counted(len(self.checks), "slope")
        right = (
            f"{self.name}: backward agrees with {slopes} of the forward pass; "
            f"largest relative error {self.error:.1e}, tolerance {self.tolerance:.0e}."
        )
        left_out = f"Not checked: {', '.join(self.unchecked)}." if self.unchecked else ""
        return self.message or " ".join(filter(None, [right, self.note, left_out]))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


class GradientError(AssertionError):
    """A gradient is not right, or its functions break their contract; the message says how.

    `report` holds what was compared; its error is infinite where nothing could be.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the report, as worker processes do."""
        return type(self), (self.report,)


@dataclass(frozen=True)
class Settings:
    """What a check is called, how strict it is, and where its random numbers come from."""

    name: str
    seed: int
    tolerance: float
    step: float
    directions: int
    rng: np.random.Generator

    def error(self, message: str, cause: str, **found: Any) -> GradientError:
        """Return the error to raise; without `found` nothing was compared."""
        found = {"error": math.inf, "verdict": "wrong", **found}
        message = f"{self.name}: {message}"
        return GradientError(
            Report(self.name, tolerance=self.tolerance, seed=self.seed, cause=cause,
                   message=message, **found)
        )  # fmt: skip

    def require(self, condition: bool, cause: str, sentence: str) -> None:
        """Raise a GradientError with this sentence unless the condition holds."""
        if not condition:
            raise self.error(f"{sentence} (seed {self.seed}).", cause)


class Judged(NamedTuple):
    """One slope with its verdict."""

    check: Check
    moves: Moves
    verdict: str
    slope: Slope | None  # None: the forward pass is defined at no step
    reason: str  # what keeps it from being decided, a key of _ADVICE


class Line:
    """One direction, which may be a coordinate: what backward says of the slope, and the steps.

    `floor` is how wide an interval may be that is not small against this very slope.
    """

    def __init__(
        self, forward: Forward, moves: Moves, label: str, tolerance: float, floor: float
    ) -> None:
        self.moves, self.label, self.tolerance = moves, label, tolerance
        where = asnumpy(moves.v) != 0
        v, g, x = (asnumpy(a)[where] for a in (moves.v, moves.block.grad, moves.block.value))
        # The size of the slope is that of its terms, which may cancel; hypot squares nothing.
        self.g, self.size = float((g * v).sum()), float(np.hypot.reduce(g * v))
        self.floor = min(floor, 0.01 * self.size)  # never above the slope itself
        self.many = len(v) > 1
        slack = EPSILON * float(np.hypot.reduce(np.where(np.isfinite(g), g, 0) * x))
        self.ladder = Ladder(forward, moves, slack)
        self.seen: dict[int, Slope] = {}

    def judge(self, hurry: bool = False) -> Judged:
        """Compare by the first steps, then smaller and then larger ones, until some decide.

        Those know the slope to the tolerance; if none do, the narrowest interval decides. In a
        `hurry`, where the block is known to be wrong, two that agree decide against backward.
        """
        slope = self.ladder.slope(0)
        if slope and self._agrees(slope, self.tolerance):
            return self._confirmed(slope)
        self.ladder.forward.measure_noise()
        for i in self.ladder.order():
            slope = self.ladder.slope(i)
            if slope is None:
                continue
            self.seen[i] = slope
            if self._agrees(slope, self.tolerance):
                return self._confirmed(slope)
            if (hurry or not math.isfinite(self.g)) and self._another():
                return self._judged(slope, "wrong")
        if not self.seen:
            return self._judged(None, "cannot tell", "domain")
        cancels = self.ladder.last_digits()
        # By all steps: an output that only the last of them moves is no longer taken for one that
        # does not depend on x.
        self.seen = {i: s for i in self.seen if (s := self.ladder.slope(i))}
        finest = min(self.seen, key=lambda i: self.seen[i].width)
        best = self.seen[finest]
        if self._agrees(best, RESOLVED * self.tolerance, self.floor):
            return self._confirmed(best)
        if not best.row.any() and self.ladder.climbs_stairs():
            return self._judged(best, "cannot tell", "leaps")
        visible = best.row.any() or abs(self.g) * self.moves.unit > self.ladder.forward.tiny
        if math.isfinite(self.g) and visible and (excluding := self._excluding()):
            return self._judged(excluding, "wrong")
        # A kink at x is seen by most steps that know anything, a jump by all. Where steps agree on
        # one slope, smaller ones would decide but for rounding.
        kinked = sum(s.kinked for s in self.seen.values() if s.informed)
        smooth = sum(s.consistent and not s.kinked for s in self.seen.values())
        if kinked > max(smooth, 2) or all(s.kinked for s in self.seen.values()):
            return self._judged(best, "cannot tell", "kink")
        if not cancels and self.ladder.leaps(finest):
            # The narrowest leaps over a wave: what is known is known by smaller steps.
            fine = [s for i, s in self.seen.items() if s.consistent and not self.ladder.leaps(i)]
            if fine := [s for s in fine if s.informed]:
                return self._judged(min(fine, key=lambda s: s.width), "cannot tell", "detail")
        rounding = smooth or best.rounding >= best.curvature
        reason = "cancels" if cancels else "rounding" if rounding else "curvature"
        if not cancels and self._converges(finest) and best.distance(self.g) > 0:
            reason = "detail"  # larger steps alone keep it from being called wrong
        return self._judged(best, "cannot tell", reason)

    def _confirmed(self, slope: Slope) -> Judged:
        # Small steps see nothing of what moves by leaps, as a part in float32 does.
        if self._another():
            return self._judged(slope, "cannot tell", "detail")
        if not slope.row.any():
            self.ladder.reach()
            if self.ladder.last_digits():
                return self._judged(slope, "cannot tell", "cancels")
        return self._judged(slope, "right")

    def _judged(self, slope: Slope | None, verdict: str, reason: str = "") -> Judged:
        """Return the verdict with the error relative to the slope, or to the secants if it is 0.

        Of a right slope it is relative to the interval's width too: the tolerance at most.
        """
        value, width = (slope.value, slope.width) if slope else (math.nan, math.inf)
        scale = max(abs(self.g), abs(value), self.size)
        if not self.size:
            scale = max(abs(value), self.ladder.secant())
        scale += width / self.tolerance if verdict == "right" else 0.0
        error = abs(self.g - value) / scale if scale else 0.0
        error = error if math.isfinite(self.g - value) else math.inf
        return Judged(
            Check(self.label, self.g, value, error, width), self.moves, verdict, slope, reason
        )

    def _agrees(self, slope: Slope, share: float, floor: float = 0.0) -> bool:
        """Tell whether g lies in the interval, which is no more than a share of the slope."""
        inside = abs(self.g - slope.value) <= slope.width + self.tolerance * self.size
        if not (math.isfinite(self.g) and inside):
            return False
        if self.size or floor:
            largest = max(self.size, abs(slope.value))
        else:  # what is small against a slope of 0, the secants tell; or nothing ever moves
            secant = slope.secant or self.ladder.secant()
            largest = math.inf if self.ladder.never_moves() else secant
        return slope.width <= max(share * largest, floor)

    def _another(self) -> bool:
        """Tell whether two steps in a row know another slope; a single one may by chance."""
        g = self.g if math.isfinite(self.g) else 0.0
        pairs = [(a, self.seen[i + 1]) for i, a in self.seen.items() if i + 1 in self.seen]
        return any(
            100 * max(a.width, b.width, abs(a.value - b.value))
            < min(abs(a.value - g), abs(b.value - g))
            for a, b in pairs
        )

    def _converges(self, best: int) -> bool:
        """Tell whether steps that get smaller converge to the best of them.

        Curvature falls by ten and more from one step to the next then, as that of a wave does once
        the steps are small beside it.
        """
        i, falls = best, 0
        while (s := self.seen.get(i - 1)) and s.consistent and not s.kinked:
            falls += s.curvature > max(10 * self.seen[i].curvature, 4 * s.rounding)
            i -= 1
        return falls >= 2

    def _excluding(self) -> Slope | None:
        """Return a slope that excludes g, if the best does and no step that knows one disagrees.

        Where small steps see another slope than large ones, as within a leap of rounding, they do
        not decide alone; nor do large ones, which may agree by chance across many kinks. Smaller
        steps than the best count only if rounding leaves them something to say, such as that it is
        not what the best one says.
        """
        # [finite-differences-verdict]
        finest = min(self.seen, key=lambda i: self.seen[i].width)
        best = self.seen[finest]
        evidence = [
            s
            for i, s in self.seen.items()
            if (s.informed or (s.consistent and (i < finest or s.apart(best))))
            and not (self.many and i < finest and s.kinked)  # kinks farther away
        ]
        # Between two leaps of rounding small steps find a slope of their own.
        evidence += [s for i, s in self.seen.items() if i < finest and s.apart(best, by=10)]
        if not (best.informed or best.consistent):
            return None  # steeper and steeper
        if not best.row.any() and any(s.informed and s.distance(0) > 0 for s in evidence):
            return None  # leaps: to large steps a slope, to small ones none

        def beyond(s: Slope) -> bool:
            outside = s.distance(self.g) > self.tolerance * self.size
            return outside and (s.value > self.g) == (best.value > self.g)

        shown = best
        if best.distance(0) <= 0 and self.ladder.leaps(finest):
            # y comes back to where it was, beyond a peak or after a wave: smaller steps must know.
            some = [s for i, s in self.seen.items() if s.informed and not self.ladder.leaps(i)]
            if not any(map(beyond, some)):
                return None
            shown = min(filter(beyond, some), key=lambda s: s.width)
        standing = best.row.any() and abs(best.value) <= best.width
        if standing and 3 * sum(map(beyond, self.seen.values())) < 2 * len(self.seen):
            return None  # y stands still to large steps, which leap over all that noise leaves
        if standing and self.ladder.forward.lost[best.row != 0].all():
            return None  # noise, or a wave whose period is shorter than every step
        # If two say the same, rougher ones need not exclude g; but to stand still says little.
        sure = best.row.any() and self._another()
        all_beyond = beyond(best) and all(
            beyond(s) or (sure and not s.kinked and not s.apart(best)) for s in evidence
        )
        return shown if all_beyond else None


class Comparison:
    """The gradients of some blocks beside the forward pass.

    `sizes` names the lengths by which a gradient may be wrong, such as that of the batch; `arrays`
    those arrays that a missing factor or term may be made of.
    """

    def __init__(
        self,
        settings: Settings,
        blocks: list[Block],
        evaluate: Callable[[], Array],
        dy: Array,
        sizes: Mapping[str, int],
        arrays: Mapping[str, Array],
    ) -> None:
        self.settings, self.blocks, self.sizes, self.arrays = settings, blocks, sizes, arrays
        some = [b for b in blocks if b.value.size]
        self.forward = Forward(evaluate, dy, settings.step, some, [*arrays.values()], settings.rng)

    @np.errstate(all="ignore")  # what overflows is no slope
    def report(self) -> Report:
        """Compare block by block; return the report or raise with the diagnosis."""
        settings = self.settings
        for b in self.blocks:
            if b.grad.shape != b.value.shape:
                raise self._wrong_shape(b)
        blocks = [b for b in self.blocks if b.value.size]
        found = {b.name: self._slopes(b) for b in blocks}
        judged = [j for some in found.values() for j in some]
        checks = tuple(j.check for j in judged)
        if not checks or not self.forward.y.size:
            message = "cannot tell: there is nothing to compare, since the arrays are empty."
            raise settings.error(message, "empty", verdict="cannot tell")
        error = max(c.error for c in checks)
        failed = [b for b in blocks if any(j.verdict != "right" for j in found[b.name])]
        findings = [self._look_at(b, found[b.name]) for b in failed]
        wrong = [f for f in findings if f.worst.verdict == "wrong"]
        dy = self.forward.dy.reshape(self.forward.shape)
        narrow = [
            (b.name, sentence)
            for b in blocks
            if any(_shows_an_error(j.check) for j in found[b.name])
            and (sentence := float32_digits(asnumpy(b.grad), dy))
        ]
        if wrong:
            cause, message = self._explain(wrong, findings)
        elif findings:
            cause, message = self._cannot_tell(findings[-1])
        elif narrow:
            cause, message = "precision", "the gradient of {} is wrong. {}".format(*narrow[-1])
        else:
            return Report(settings.name, error, settings.tolerance, settings.seed, checks)
        verdict = "cannot tell" if findings and not wrong else "wrong"
        raise settings.error(message, cause, error=error, checks=checks, verdict=verdict)

    # --- measuring

    def _judge(self, moves: Moves, label: str, floor: float = 0.0, hurry: bool = False) -> Judged:
        line = Line(self.forward, moves, label, self.settings.tolerance, floor)
        return line.judge(hurry)

    def _coordinate(
        self, block: Block, index: tuple[Any, ...], floor: float = 0.0, hurry: bool = False
    ) -> Judged:
        label = f"{block.name}[{', '.join(str(int(i)) for i in index)}]" if index else block.name
        return self._judge(coordinate(block, index), label, floor, hurry)

    def _slopes(self, block: Block) -> list[Judged]:
        """Along every coordinate of a small block, along random directions of a large one."""
        g, sizes = asnumpy(block.grad), sizes_of(block.value)
        finite, share = np.isfinite(g), FLOOR * self.settings.tolerance
        weights = np.abs(np.where(finite, g, 0)) * sizes
        largest = weights.max()
        if block.value.size <= SMALL or not finite.all():
            some = np.argwhere(~finite | (block.value.size <= SMALL))[:SMALL]
            floors = share * largest / sizes
            return [self._coordinate(block, tuple(i), float(floors[tuple(i)])) for i in some]
        # One direction for all would hide an error in what is small: entries of alike sizes each.
        with np.errstate(divide="ignore", invalid="ignore"):
            decades = np.log10(largest / weights)
        group = np.where(weights > 0, np.floor(decades / 2), -1)
        where = [group == k for k in np.unique(group) for _ in range(self.settings.directions)]
        moves = [direction(block, self.settings.rng, some) for some in where]
        floor = share * max(float(np.hypot.reduce((g * asnumpy(m.v)).ravel())) for m in moves)
        return [
            self._judge(m, f"{block.name}, direction {n}", floor) for n, m in enumerate(moves, 1)
        ]

    def _seek(self, moves: Moves) -> tuple[Any, ...]:
        """Return the index of an entry that is wrong, halving the direction that showed it."""
        shape, v = moves.v.shape, asnumpy(moves.v)
        low, high = 0, v.size
        while high - low > 1:
            middle = (low + high) // 2
            places = np.arange(v.size).reshape(shape)
            half = np.where((low <= places) & (places < middle), v, 0)
            half_ = moves._replace(v=namespace(moves.v).asarray(half))
            wrong = half.any() and self._judge(half_, "", hurry=True).verdict == "wrong"
            low, high = (low, middle) if wrong else (middle, high)
        return np.unravel_index(low, shape)

    def _look_at(self, block: Block, found: list[Judged]) -> _Finding:
        """Find out in which coordinates a block is wrong, and measure what is right there."""
        shape, size = block.value.shape, block.value.size
        worst, looked = max(found, key=_rank), found
        where = list(np.ndindex(shape)) if size <= FULL else []
        if size > FULL:
            some = self.settings.rng.choice(size, SMALL // 2, replace=False)
            where = [self._seek(worst.moves)] if worst.verdict == "wrong" else []
            where += [np.unravel_index(k, shape) for k in some]
        if len(found) != size:
            looked = []
            for i in where:
                hurry = any(j.verdict == "wrong" for j in looked)
                looked.append(self._coordinate(block, i, hurry=hurry))
        looked = [self._unless_tied(block, i, j) for i, j in zip(where, looked, strict=True)]
        if len(found) == size:
            worst = max(looked, key=_rank)
        elif all(j.verdict != "wrong" for j in looked) and worst.verdict == "wrong":
            # No direction accuses alone: where the jumps of kinks cancel along it, it looks smooth.
            worst = worst._replace(verdict="cannot tell", reason="kinks")
        worst = max([*looked, worst], key=_rank)
        return _Finding(self._evidence(block, where, looked), worst, looked)

    @cached_property
    def _joint_kinks(self) -> bool:
        """Whether y has kinks that entries show only when they move together."""
        blocks, rng = self.forward.blocks, self.settings.rng
        halves = ([rng.random(b.value.shape) < 0.5 for b in blocks] for _ in range(JOINT_TRIES))
        return any(self.forward.joint_kink(some)[0].any() for some in halves)

    def _unless_tied(self, block: Block, index: tuple[Any, ...], j: Judged) -> Judged:
        """Return the verdict, but not that an entry is wrong if it has a part in such a kink."""
        if j.verdict != "wrong" or not self._joint_kinks:
            return j
        alone = [np.zeros(b.value.shape, bool) for b in self.forward.blocks]
        k = [b is block for b in self.forward.blocks].index(True)
        alone[k][index] = True
        for _ in range(JOINT_TRIES):
            moved, moves = self.forward.joint_kink(alone)
            # A gradient near by is not much steeper than what is seen along a random direction.
            steepest = 4 * float(np.abs(self.forward.dy) @ moved) / abs(float(moves[k].v[index]))
            if abs(j.check.analytic - j.check.numerical) <= steepest:
                return j._replace(verdict="cannot tell", reason="tie")
        return j

    def _evidence(self, block: Block, where: list[Any], looked: list[Judged]) -> Evidence:
        """Return the right gradient of a block, where it was measured, and how it was found."""
        value, dy = asnumpy(block.value), self.forward.dy.reshape(self.forward.shape)
        right, width = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
        doubtful, rows = np.zeros(value.shape, bool), []
        for index, j in zip(where, looked, strict=True):
            right[index], width[index] = j.check.numerical, j.check.width
            doubtful[index] = j.verdict == "cannot tell"
            rows.append(j.slope.row if j.slope else 0 * self.forward.y)
        jacobian = np.array(rows).reshape(-1, *dy.shape) if len(rows) == value.size else None
        given = asnumpy(block.grad)
        arrays = {name: asnumpy(a) for name, a in self.arrays.items()}
        arrays |= {block.name: value, "y": self.forward.y.reshape(dy.shape)}
        return Evidence(
            *(block.name, value, given, right, width, doubtful, dy, jacobian),
            sizes=self.sizes,
            arrays=arrays,
        )

    # --- what to say

    def _numbers(self, c: Check) -> str:
        return (
            f"for {c.name} backward gives {c.analytic:.10g} and the forward pass "
            f"{c.numerical:.10g} ± {c.width:.0e} (relative error {c.error:.1e}, tolerance "
            f"{self.settings.tolerance:.0e}, seed {self.settings.seed})"
        )

    def _explain(self, wrong: list[_Finding], findings: list[_Finding]) -> tuple[str, str]:
        """Say which gradient is wrong, and how; return the cause too."""
        # Backward reaches the last block first, so an error there is nearest to its cause.
        finding, names = wrong[-1], [f.evidence.name for f in wrong]
        e = finding.evidence
        e.others.update((f.evidence.name, f.evidence) for f in findings if f is not finding)
        cause, sentence = explain(e)
        lines = [f"the gradient of {e.name} is wrong: {self._numbers(finding.worst.check)}."]
        lines += [sentence] if sentence else []
        left_out = [j.check.name for j in finding.looked if j.verdict == "cannot tell"]
        if left_out:
            lines.append(f"Left out, since the forward pass does not decide: {_few(left_out)}.")
        lines += [f"Also wrong: {', '.join(names[:-1])}."] if len(names) > 1 else []
        right = [b.name for b in self.blocks if b.name not in {f.evidence.name for f in findings}]
        lines += [f"Right: {', '.join(right)}."] if right else []
        if cause in ("", "some coordinates"):
            lines += _table([j.check for j in finding.looked])
        return cause, "\n".join(lines)

    def _cannot_tell(self, finding: _Finding) -> tuple[str, str]:
        """Say why the forward pass does not decide, and what to do."""
        worst = finding.worst
        reason = "precision" if self.forward.is_float32 else worst.reason
        some = [j for j in finding.looked if j.verdict == "cannot tell" and j.reason == reason]
        names = [f"{j.check.name} = {j.moves.x:.4g}" for j in some] or [worst.check.name]
        head = f"cannot tell whether the gradient of {finding.evidence.name} is right: "
        advice = _ADVICE["zero" if self._is_zero(worst) else reason].format(_few(names))
        cause = "kink" if reason == "tie" else reason
        return cause, f"{head}{self._numbers(worst.check)}.\n{advice}"

    def _is_zero(self, j: Judged) -> bool:
        """Return whether both sides are rounding, beside the largest gradient anywhere."""
        largest = max(float(np.abs(asnumpy(b.grad)).max(initial=0)) for b in self.blocks)
        rounding = j.slope.rounding if j.slope else 0.0  # a kink's width is none
        given, found = abs(j.check.analytic), abs(j.check.numerical)
        return found <= rounding and given < min(rounding, 1e-12 * largest)

    def _wrong_shape(self, block: Block) -> GradientError:
        """Say how a gradient came to its shape."""
        cause = sentence = ""
        if block.value.size <= FULL:
            where = list(np.ndindex(block.value.shape))
            # Compared with nothing: the slopes alone are wanted.
            unknown = block._replace(grad=np.full(block.value.shape, math.nan))
            looked = [self._coordinate(unknown, i, hurry=True) for i in where]
            cause, sentence = explain(self._evidence(block, where, looked))
        shapes = f"has shape {block.grad.shape}: expected {block.value.shape}"
        hint = "" if sentence else " (wrt= says which arguments have a gradient)"
        message = f"the gradient of {block.name} {shapes}{hint} (seed {self.settings.seed})."
        return self.settings.error(f"{message}\n{sentence}".strip(), cause or "shape")


_ADVICE = {
    "kink": "The forward pass has a kink or a jump at {0}, or a detail there that is too narrow "
    "for steps above rounding: the slopes from the two sides differ. Check at other arguments.",
    "kinks": "None of the entries looked at is wrong by itself. Kinks whose jumps cancel look so "
    "along {0}, and so may an error in a few entries. Check at other arguments.",
    "tie": "The forward pass has a kink at {0} that an entry moved alone does not show, or not all "
    "of: moved together with others it changes the result otherwise than alone, however small the "
    "steps, as where three numbers tie in a sort or a median. Check at other arguments.",
    "rounding": "Rounding hides it: moving {0} as little as needed changes the result by too few "
    "of its digits. Take arguments and results of about unit size, or a larger step=; near a kink "
    "or a jump, other arguments; near many kinks, as in a network of a hundred ReLU units, fewer "
    "units or a smooth activation.",
    "zero": "Both are 0 as far as rounding shows. If {0} has no effect on the result, as a bias "
    "has none where the mean is subtracted next, or a weight in front of a ReLU that no example "
    "opens, leave it out or take other arguments: numbers cannot tell 0 from little. If it has an "
    "effect, far larger numbers elsewhere drown it: check it without them.",
    "leaps": "The forward pass moves by leaps near {0}, as what is rounded does: it stands still, "
    "leaps and stands still again. Check the function without the rounding.",
    "detail": "Small steps see one slope near {0}, and larger ones another. Either a wave or a "
    "detail is far shorter than the argument, and a smaller step= decides; or the forward pass "
    "leaps, so that small steps miss a part of it, as they miss what is computed in float32. Then "
    "check it without that part.",
    "curvature": "No steps agree: the forward pass changes too fast, or by leaps, near {0}. Take "
    "a smaller step=, or other arguments.",
    "cancels": "The forward pass moves by last digits near {0}: of larger numbers, which cancel as "
    "in 1 - cos(x) or in (t + x) - t where x is small, or of a part in float32, or of an iteration "
    "that ends early. Write it so that nothing cancels, such as log1p(x) for log(1 + x), compute "
    "all in float64, or take larger arguments.",
    "domain": "The forward pass raises, or gives values that are not finite, as soon as {0} moves "
    "to either side. Take arguments inside its domain.",
    "precision": "Each value of the forward pass is one of float32: it computes in less than "
    "float64, or large numbers that cancel leave it no more digits. Its differences show little "
    "but rounding.",
}


class _Finding(NamedTuple):
    """A block whose gradient is not right."""

    evidence: Evidence
    worst: Judged
    looked: list[Judged]  # the coordinates that were looked at


def _rank(j: Judged) -> tuple[int, float]:
    return ("right", "cannot tell", "wrong").index(j.verdict), j.check.error


def _shows_an_error(c: Check) -> bool:
    return abs(c.analytic - c.numerical) > 4 * c.width + 1e-10 * abs(c.analytic)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _table(checks: list[Check]) -> list[str]:
    """Return the lines of a table of the worst coordinates."""
    lines = [f"    {'':24}{'backward':>18}{'forward pass':>18}{'relative error':>16}"]
    for c in sorted(checks, key=lambda c: -c.error)[:5]:
        lines.append(f"    {c.name:24}{c.analytic:18.10g}{c.numerical:18.10g}{c.error:16.1e}")
    return lines
