"""Compare the gradients of some blocks with the slopes of the forward pass, and judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import Array, asnumpy, namespace

from .diagnosis import Evidence, explain, float32_digits
from .slopes import (
    EPSILON,
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
        right = (
            f"{self.name}: backward agrees with {len(self.checks)} slopes of the forward pass; "
            f"largest relative error {self.error:.1e}, tolerance {self.tolerance:.0e}."
        )
        left_out = f"Not checked: {', '.join(self.unchecked)}." if self.unchecked else ""
        return self.message or " ".join(filter(None, [right, self.note, left_out]))


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
    reason: str  # what keeps it from being decided: "kink", "rounding", "curvature", "domain"


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
        self.forward = Forward(evaluate, dy, settings.step)
        # A change as small as this may be rounding of the largest numbers around.
        values = [*arrays.values(), *(b.value for b in blocks), self.forward.y]
        self.tiny = 1e4 * EPSILON * max((float(abs(a).max()) for a in values if a.size), default=0)

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
        wrong = [f for f in findings if f.verdict == "wrong"]
        dy = self.forward.dy.reshape(self.forward.shape)
        narrow = [
            (b.name, sentence)
            for b in blocks
            if any(j.check.shows_an_error(1e-10) for j in found[b.name])
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

    def _judge(
        self,
        label: str,
        moves: Moves,
        g: float,
        size: float,
        slack: float,
        floor: float = 0.0,
        hurry: bool = False,
    ) -> Judged:
        """Compare the slope g along one direction; `size` is that of its terms, which may cancel.

        An interval has to be small against that, or else below the `floor` of its block. The first
        steps are a hundredth of the argument, then smaller and then larger ones are taken, until
        some know the slope to the tolerance; if none do, the narrowest interval decides. In a
        `hurry`, where the block is known to be wrong, two that agree decide against g.
        """
        ladder, tolerance = Ladder(self.forward, moves, slack), self.settings.tolerance
        many, seen = bool(np.count_nonzero(asnumpy(moves.v)) > 1), dict[int, Slope]()

        def judged(slope: Slope | None, verdict: str, reason: str = "") -> Judged:
            value, width = (slope.value, slope.width) if slope else (math.nan, math.inf)
            wide = width / tolerance if verdict == "right" else 0.0
            check = Check(label, g, value, self._error(g, value, wide, size, ladder), width)
            return Judged(check, moves, verdict, slope, reason)

        slope = ladder.slope(0)
        if slope and self._agrees(slope, g, size, tolerance, 0.0, ladder):
            return judged(slope, "right")
        self.forward.measure_noise([b for b in self.blocks if b.value.size], self.settings.rng)
        for i in ladder.order():
            slope = ladder.slope(i)
            if slope is None:
                continue
            seen[i] = slope
            another = self._another(g, seen)
            if self._agrees(slope, g, size, tolerance, 0.0, ladder):
                # Small steps see nothing of what moves by leaps, as a part in float32 does.
                return judged(slope, "cannot tell" if another else "right", "curvature")
            if another and (hurry or not math.isfinite(g)):
                return judged(slope, "wrong")
        if not seen:
            return judged(None, "cannot tell", "domain")
        best = min(seen.values(), key=lambda s: s.width)
        if self._agrees(best, g, size, RESOLVED * tolerance, floor, ladder):
            return judged(best, "cannot tell" if self._another(g, seen) else "right", "curvature")
        visible = best.row.any() or abs(g) * moves.unit > self.tiny
        if math.isfinite(g) and visible and self._excluded(g, size, many, seen):
            return judged(best, "wrong")
        # A kink at x is seen by most steps that know anything, a jump by all. Where steps agree on
        # one slope, smaller ones would decide but for rounding.
        known = [s for s in seen.values() if s.informed]
        kinked = sum(s.kinked for s in known)
        smooth = sum(s.consistent and not s.kinked for s in known)
        if kinked > max(smooth, 2) or all(s.kinked for s in seen.values()):
            return judged(best, "cannot tell", "kink")
        rounding = smooth or best.rounding >= best.curvature
        return judged(best, "cannot tell", "rounding" if rounding else "curvature")

    def _another(self, g: float, seen: dict[int, Slope]) -> bool:
        """Tell whether two steps in a row know another slope; a single one may by chance."""
        for i, a in seen.items():
            b = seen.get(i + 1, a)
            apart = min(abs(s.value - (g if math.isfinite(g) else 0.0)) for s in (a, b))
            if b is not a and 100 * max(a.width, b.width, abs(a.value - b.value)) < apart:
                return True
        return False

    def _excluded(self, g: float, size: float, many: bool, seen: dict[int, Slope]) -> bool:
        """Tell whether g lies beyond the best interval, and no step that knows a slope disagrees.

        Where small steps see another slope than large ones, as within a leap of rounding, they do
        not decide alone; nor do large ones, which may agree by chance across many kinks. Smaller
        steps than the best count only if rounding leaves them something to say.
        """
        # [finite-differences-verdict]
        finest = min(seen, key=lambda i: seen[i].width)
        best = seen[finest]
        evidence = [
            s
            for i, s in seen.items()
            if (s.informed or (i < finest and s.consistent))
            and not (many and i < finest and s.kinked)  # kinks farther away
        ]
        if not (best.informed or best.consistent):
            return False  # steeper and steeper
        if not best.row.any() and any(s.informed and s.distance(0) > 0 for s in evidence):
            return False  # leaps: to large steps a slope, to small ones none
        if many and any(s.kinked for s in [best, *evidence]):
            return False  # of the kinks that a direction meets the jumps may cancel

        def beyond(s: Slope) -> bool:
            outside = s.distance(g) > self.settings.tolerance * size
            return outside and (s.value > g) == (best.value > g)

        # If two say the same, rougher ones need not exclude g; but to stand still says little.
        sure = best.row.any() and self._another(g, seen)
        return beyond(best) and all(
            beyond(s) or (sure and not s.kinked and s.distance(best.value) <= 0) for s in evidence
        )

    def _agrees(
        self, slope: Slope, g: float, size: float, share: float, floor: float, ladder: Ladder
    ) -> bool:
        """Tell whether g lies in the interval, which is no more than a share of the slope."""
        if not (
            math.isfinite(g)
            and abs(g - slope.value) <= slope.width + self.settings.tolerance * size
        ):
            return False
        if size or floor:
            largest = max(size, abs(slope.value))
        else:  # what is small against a slope of 0, the secants tell; or nothing ever moves
            largest = ladder.secant()
            if ladder.never_moves():
                return True
        return slope.width <= max(share * largest, floor)

    def _error(self, g: float, value: float, wide: float, size: float, ladder: Ladder) -> float:
        """Return the error relative to the slope, or, where that is 0, to the secants around it.

        Of a right slope it is relative to what is `wide` too, so that it is the tolerance at most.
        """
        if not math.isfinite(g - value):
            return math.inf
        scale = max(abs(g), abs(value), size) if size else max(abs(value), ladder.secant())
        return abs(g - value) / (scale + wide) if scale + wide else 0.0

    def _slopes(self, block: Block) -> list[Judged]:
        """Along every coordinate of a small block, along random directions of a large one."""
        g = asnumpy(block.grad)
        if block.value.size <= SMALL or not np.isfinite(g).all():
            some = np.argwhere(~np.isfinite(g) | (block.value.size <= SMALL))[:SMALL]
            sizes = np.abs(np.where(np.isfinite(g), g, 0)) * sizes_of(block.value)
            floors = FLOOR * self.settings.tolerance * sizes.max() / sizes_of(block.value)
            return [self._coordinate(block, tuple(i), float(floors[tuple(i)])) for i in some]
        # One direction for all would hide an error in what is small: entries of alike sizes each.
        weights = np.abs(g) * sizes_of(block.value)
        largest = weights.max()
        with np.errstate(divide="ignore"):
            decades = np.log10(largest / np.where(weights > 0, weights, 1)) if largest else 0 * g
        group = np.where(weights > 0, np.minimum(decades // 2, 5), -1)
        where = [group == k for k in np.unique(group) for _ in range(self.settings.directions)]
        moves = [direction(block, some, self.settings.rng) for some in where]
        size = max(float(np.linalg.norm(g * asnumpy(v))) for v in moves)
        floor = FLOOR * self.settings.tolerance * size
        return [self._along(block, v, floor, f"direction {n}") for n, v in enumerate(moves, 1)]

    def _coordinate(
        self, block: Block, index: tuple[Any, ...], floor: float = 0.0, hurry: bool = False
    ) -> Judged:
        # Of another shape it is compared with nothing: the slope alone is wanted.
        g = float(block.grad[index]) if block.grad.shape == block.value.shape else math.nan
        floor = min(floor, 0.01 * abs(g))  # never above the slope itself
        moves = coordinate(block, index)
        return self._judge(_label(block, index), moves, g, abs(g), 0.0, floor, hurry)

    def _along(
        self, block: Block, v: Array, floor: float = 0.0, label: str = "", hurry: bool = False
    ) -> Judged:
        """Along a direction that moves many entries."""
        terms = asnumpy(block.grad * v).ravel()
        moved = asnumpy(block.grad * block.value)[asnumpy(v) != 0]
        slack = EPSILON * float(np.linalg.norm(moved))  # x + h v is rounded
        size, g = float(np.linalg.norm(terms)), float(terms.sum())
        name = f"{block.name}, {label}"
        floor = min(floor, 0.01 * size)
        return self._judge(name, Moves(block, v), g, size, slack, floor, hurry)

    def _seek(self, block: Block, v: Array) -> tuple[Any, ...]:
        """Return the index of an entry that is wrong, halving the direction v that showed it."""
        low, high, v_ = 0, block.value.size, asnumpy(v).ravel()
        while high - low > 1:
            middle = (low + high) // 2
            half = np.zeros_like(v_)
            half[low:middle] = v_[low:middle]
            half_ = namespace(block.value).asarray(half.reshape(block.value.shape))
            wrong = half.any() and self._along(block, half_, hurry=True).verdict == "wrong"
            low, high = (low, middle) if wrong else (middle, high)
        return np.unravel_index(low, block.value.shape)

    def _look_at(self, block: Block, found: list[Judged]) -> _Finding:
        """Find out in which coordinates a block is wrong, and measure what is right there."""
        shape, size = block.value.shape, block.value.size
        worst = max(found, key=_rank)
        where = list(np.ndindex(shape)) if size <= FULL else []
        if size > FULL:
            some = self.settings.rng.choice(size, SMALL // 2, replace=False)
            where = [np.unravel_index(k, shape) for k in some]
            if worst.verdict == "wrong":
                where.append(self._seek(block, worst.moves.v))
        hurry = worst.verdict == "wrong"
        looked = found
        if len(found) != size:
            looked = [self._coordinate(block, i, hurry=hurry) for i in where]
        worst = max([*looked, worst], key=_rank)
        return _Finding(self._evidence(block, where, looked), worst, looked)

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
        if all(j.verdict != "wrong" for j in finding.looked):
            n, size = len(finding.looked), e.value.size
            lines.append(f"Only some of its {size:,} entries are: none of {n} looked at is.")
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
        undecided = [j for j in (finding.worst, *finding.looked) if j.verdict == "cannot tell"]
        e, worst = finding.evidence, undecided[0]
        reason, advice = worst.reason, _ADVICE[worst.reason]
        if self.forward.is_float32:
            reason, advice = "precision", _ADVICE["precision"]
        some = [j for j in finding.looked if j.verdict == "cannot tell" and j.reason == reason]
        names = [f"{j.check.name} = {j.moves.x:.4g}" for j in some] or [worst.check.name]
        head = f"cannot tell whether the gradient of {e.name} is right: "
        text = f"{head}{self._numbers(worst.check)}.\n{advice.format(_few(names))}"
        return reason, text

    def _wrong_shape(self, block: Block) -> GradientError:
        """Say how a gradient came to its shape."""
        cause = sentence = ""
        if block.value.size <= FULL:
            where = list(np.ndindex(block.value.shape))
            looked = [self._coordinate(block, i, hurry=True) for i in where]
            cause, sentence = explain(self._evidence(block, where, looked))
        shapes = f"has shape {block.grad.shape}: expected {block.value.shape}"
        hint = "" if sentence else " (wrt= says which arguments have a gradient)"
        message = f"the gradient of {block.name} {shapes}{hint} (seed {self.settings.seed})."
        return self.settings.error(f"{message}\n{sentence}".strip(), cause or "shape")


_ADVICE = {
    "kink": "The forward pass has a kink or a jump at {0}: the slopes from its two sides differ. "
    "Check at other arguments.",
    "rounding": "Rounding hides it: moving {0} changes the result by too few of its digits. Take "
    "arguments and results of about unit size, or a larger step=.",
    "curvature": "No steps agree: the forward pass changes too fast, or by leaps, near {0}. Take "
    "a smaller step=, or other arguments.",
    "domain": "The forward pass raises, or gives values that are not finite, as soon as {0} moves "
    "to either side. Take arguments inside its domain.",
    "precision": "Each value of the forward pass is one of float32: it computes in less than "
    "float64, and its differences show little but rounding.",
}


class _Finding(NamedTuple):
    """A block whose gradient is not right."""

    evidence: Evidence
    worst: Judged
    looked: list[Judged]  # the coordinates that were looked at

    @property
    def verdict(self) -> str:
        """That of the block: no direction accuses it alone where coordinates are undecided.

        Of the kinks that a direction meets the jumps may cancel, and it then looks smooth.
        """
        looked = {j.verdict for j in self.looked}
        wrong = "wrong" in looked or (self.worst.verdict == "wrong" and "cannot tell" not in looked)
        return "wrong" if wrong else "cannot tell"


def _rank(j: Judged) -> tuple[int, float]:
    return ("right", "cannot tell", "wrong").index(j.verdict), j.check.error


def _label(block: Block, index: tuple[Any, ...]) -> str:
    return f"{block.name}[{', '.join(str(int(i)) for i in index)}]" if index else block.name


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _table(checks: list[Check]) -> list[str]:
    """Return the lines of a table of the worst coordinates."""
    lines = [f"    {'':24}{'backward':>18}{'forward pass':>18}{'relative error':>16}"]
    for c in sorted(checks, key=lambda c: -c.error)[:5]:
        lines.append(f"    {c.name:24}{c.analytic:18.10g}{c.numerical:18.10g}{c.error:16.1e}")
    return lines
