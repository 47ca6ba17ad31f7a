"""Compare the gradients of some blocks with the slopes of the forward pass, and judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchvae.backend import Array, asnumpy, namespace

from .diagnosis import FIT, Evidence, explain
from .slopes import Block, Check, Doubt, Forward, Moves, is_float32

TOLERANCE = 1e-7
SMALL = 64  # a block of at most so many entries is checked along every coordinate
FULL = 512  # and looked at along every coordinate, where it is wrong, if it has at most so many
MARGIN = 4  # a disagreement within so many times the estimated numerical error decides nothing


@dataclass(frozen=True)
class Report:
    """What was compared.

    Attributes
    ----------
    name : str
    error : float
        The largest relative error; infinite where nothing could be compared.
    tolerance : float
    seed : int
        Handed in as `rng`, it repeats the check.
    checks : tuple of Check
    message : str
        What is wrong and how; empty if nothing is.
    verdict : {"right", "wrong", "cannot tell"}
        The last where the differences are not exact enough to say that backward is wrong.
    cause : str
        The explanation that was found, such as "sign", "factor" or "kink"; empty if none was.
    """

    name: str
    error: float
    tolerance: float
    seed: int
    checks: tuple[Check, ...] = ()
    message: str = ""
    verdict: str = "right"
    cause: str = ""

    @property
    def ok(self) -> bool:
        """Whether backward was found right."""
        return self.verdict == "right"

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


class Comparison:
    """The gradients of some blocks beside the forward pass.

    `sizes` names the lengths by which a gradient may be wrong, such as that of the batch.
    """

    def __init__(
        self,
        settings: Settings,
        blocks: list[Block],
        evaluate: Callable[[], Array],
        dy: Array,
        sizes: Mapping[str, int],
    ) -> None:
        self.settings, self.blocks, self.sizes = settings, blocks, sizes
        self.forward = Forward(evaluate, blocks, dy, settings.step)

    def report(self) -> Report:
        """Compare block by block and jointly; return the report or raise with the diagnosis."""
        settings, tolerance = self.settings, self.settings.tolerance
        for b in self.blocks:
            if b.grad.shape != b.value.shape:
                raise self._wrong_shape(b)
        blocks = [b for b in self.blocks if b.value.size]
        found = {b.name: self._slopes(b) for b in blocks}
        joint = self._along("all together", blocks) if len(blocks) > 1 else []
        checks = tuple(c for c, _ in [*(c for cs in found.values() for c in cs), *joint])
        error = max((c.error for c in checks), default=0.0)
        narrow = [b.name for b in blocks if tolerance <= 1e-6 and is_float32(asnumpy(b.grad))]
        if error <= tolerance and not narrow:
            return Report(settings.name, error, tolerance, settings.seed, checks)
        if error <= tolerance:
            text = f"each number of the gradient of {narrow[-1]} is one of float32: backward"
            sentence = f"{text} computes in less than float64."
            raise settings.error(sentence, "precision", error=error, checks=checks)

        wrong = [b for b in blocks if max(c.error for c, _ in found[b.name]) > tolerance]
        findings = [self._look_at(b, found[b.name]) for b in wrong]
        decided = [f for f in findings if f.decided]
        if decided:
            cause, message = self._explain(decided, findings)
        elif findings:
            cause, message = self._cannot_tell(findings[-1])
        else:
            worst = max((c for c, _ in joint), key=lambda c: c.error)
            cause, message = "", f"the gradients together are wrong: {self._numbers(worst)}."
        verdict = "cannot tell" if findings and not decided else "wrong"
        raise settings.error(message, cause, error=error, checks=checks, verdict=verdict)

    # --- measuring

    def _check(self, label: str, moves: Moves) -> tuple[Check, Moves]:
        """Compare the slope along one direction."""
        analytic = sum(float((b.grad * v).sum()) for b, v in moves)
        g2 = sum(float((b.grad * b.grad).sum()) for b, _ in moves)
        v2 = sum(float((v * v).sum()) for _, v in moves)
        typical = math.sqrt(g2 * v2 / sum(b.value.size for b, _ in moves))
        numerical = self.forward.slope(moves)
        return Check(label, analytic, numerical, self._error(analytic, numerical, typical)), moves

    def _error(self, analytic: float, numerical: float, typical: float) -> float:
        """Return the relative error; the head of the package says of what scale."""
        difference = abs(analytic - numerical)
        floor = self.forward.rounding / self.settings.tolerance
        scale = max(abs(analytic), abs(numerical), typical, floor)
        if not math.isfinite(difference):
            return math.inf
        return difference / scale if scale else 0.0

    def _slopes(self, block: Block) -> list[tuple[Check, Moves]]:
        """Along every coordinate of a small block, along random directions of a large one."""
        if block.value.size > SMALL:
            return self._along(block.name, [block])
        indices = np.ndindex(block.value.shape)
        return [self._check(_label(block, i), [(block, _unit(block, i))]) for i in indices]

    def _along(self, label: str, some: list[Block]) -> list[tuple[Check, Moves]]:
        """Along random directions."""
        scale = min(1.0, (SMALL / sum(b.value.size for b in some)) ** 0.5)
        checks, xp = [], namespace(self.forward.dy)
        for k in range(self.settings.directions):
            draws = [self.settings.rng.uniform(-scale, scale, b.value.shape) for b in some]
            moves = [(b, xp.asarray(v)) for b, v in zip(some, draws, strict=True)]
            checks.append(self._check(f"{label}, direction {k + 1}", moves))
        return checks

    def _seek(self, block: Block, v: Array) -> int:
        """Return the position of an entry that is wrong, halving the direction v that showed it."""
        low, high = 0, block.value.size
        while high - low > 1:
            middle = (low + high) // 2
            half = namespace(v).zeros(v.size)
            half[low:middle] = v.ravel()[low:middle]
            check, _ = self._check(block.name, [(block, half.reshape(v.shape))])
            wrong = check.error > self.settings.tolerance
            low, high = (low, middle) if wrong else (middle, high)
        return low

    def _measure(self, block: Block, found: list[tuple[Check, Moves]]) -> Evidence:
        """Return the right gradient of a block: all of it, or of a wrong entry and random ones."""
        value, forward = asnumpy(block.value), self.forward
        order = np.arange(value.size)
        if value.size > FULL:
            order = self.settings.rng.permutation(value.size)[:SMALL]
            if found:
                _, moves = max(found, key=lambda pair: pair[0].error)
                order = np.append(order, self._seek(block, moves[0][1]))
            order = np.unique(order)
        right, rows = np.full(value.shape, np.nan), []
        for k in order:
            index = np.unravel_index(k, value.shape)
            rows.append(asnumpy(forward.derivative([(block, _unit(block, index))])))
            right[index] = float((asnumpy(forward.dy) * rows[-1]).sum())
        jacobian = np.array(rows) if value.size <= FULL else None
        doubtful, dy = np.zeros(value.shape, bool), asnumpy(forward.dy)
        given = asnumpy(block.grad)
        return Evidence(block.name, value, given, right, doubtful, dy, jacobian, self.sizes)

    def _look_at(self, block: Block, found: list[tuple[Check, Moves]]) -> _Finding:
        """Find out where a block is wrong, and whether the difference knows it."""
        e = self._measure(block, found)
        typical = float(np.sqrt((e.given**2).mean()))
        table, failed = [], []
        for index in zip(*np.nonzero(np.isfinite(e.right)), strict=True):
            analytic, numerical = float(e.given[index]), float(e.right[index])
            error = self._error(analytic, numerical, typical)
            table.append(c := Check(_label(block, index), analytic, numerical, error))
            if error > self.settings.tolerance:
                failed.append((index, c, self.forward.doubt([(block, _unit(block, index))])))
        kinks, sure, unsure = [], [], 0.0
        for index, c, doubt in failed:
            if _kinked(c, doubt):
                e.doubtful[index] = True
                kinks.append(f"{c.name} = {e.value[index]:.4g}")
            else:
                unsure = max(unsure, MARGIN * doubt.error)
            sure += [c] if _decides(c, doubt) else []
        largest = np.abs(e.right[e.known]).max(initial=0.0)
        e.fit = max(FIT, unsure / largest) if largest else FIT
        worst, moves = max(found, key=lambda pair: pair[0].error)
        doubt = self.forward.doubt(moves)
        if sure:
            decided, worst = True, max(sure, key=lambda c: c.error)
        elif max(c.error for c in table) > self.settings.tolerance:
            decided = False
        else:  # wrong in coordinates that were not looked at
            decided = _decides(worst, doubt)
            kinks += [worst.name] if _kinked(worst, doubt) else []
        return _Finding(e, worst, doubt.error, table, kinks, decided)

    # --- what to say

    def _numbers(self, c: Check) -> str:
        return (
            f"for {c.name} backward gives {c.analytic:.10g} and the forward pass "
            f"{c.numerical:.10g} (relative error {c.error:.1e}, tolerance "
            f"{self.settings.tolerance:.0e}, seed {self.settings.seed})"
        )

    def _explain(self, decided: list[_Finding], findings: list[_Finding]) -> tuple[str, str]:
        """Say which gradient is wrong, and how; return the cause too."""
        # Backward reaches the last block first, so an error there is nearest to its cause.
        finding, names = decided[-1], [f.evidence.name for f in findings]
        e = finding.evidence
        e.others.update((f.evidence.name, f.evidence) for f in findings if f is not finding)
        cause, sentence = explain(e)
        lines = [f"the gradient of {e.name} is wrong: {self._numbers(finding.worst)}."]
        lines += [sentence] if sentence else []
        if max(c.error for c in finding.table) <= self.settings.tolerance:
            n, size = len(finding.table), e.value.size
            lines.append(f"Only some of its {size:,} entries are: none of {n} looked at is.")
        if finding.kinks:
            lines.append(
                f"Left out, since the forward pass has a kink there: {_few(finding.kinks)}."
            )
        right = [b.name for b in self.blocks if b.name not in names]
        lines += [f"Also wrong: {', '.join(names[:-1])}."] if len(names) > 1 else []
        lines += [f"Right: {', '.join(right)}."] if right else []
        if cause in ("", "some coordinates"):
            lines += _table(finding.table)
        return cause, "\n".join(lines)

    def _cannot_tell(self, finding: _Finding) -> tuple[str, str]:
        """Say why the difference does not know whether the gradient is right."""
        e, step = finding.evidence, self.settings.step
        head = f"cannot tell whether the gradient of {e.name} is right: "
        lines = [f"{head}{self._numbers(finding.worst)}."]
        if self.forward.is_float32:
            lines.append(
                "Each value of the forward pass is one of float32: it computes in less than "
                "float64, and its differences show little but rounding."
            )
            return "precision", "\n".join(lines)
        if finding.kinks:
            lines.append(
                f"The forward pass has a kink within a step, {step:g}, of {_few(finding.kinks)}: "
                "the slopes from its two sides differ. Check away from it (avoid_kinks shifts the "
                "biases before a ReLU)."
            )
            return "kink", "\n".join(lines)
        lines.append(
            f"The difference itself is good to {finding.uncertainty:.1e} only: the forward pass "
            f"loses digits, or curves too much for the step, {step:g}. Take another step, or "
            "arguments and results of about unit size."
        )
        return "numerical error", "\n".join(lines)

    def _wrong_shape(self, block: Block) -> GradientError:
        """Say how a gradient came to its shape."""
        evidence = self._measure(block, [])
        cause, sentence = explain(evidence)
        shapes = f"has shape {block.grad.shape}: expected {block.value.shape}"
        hint = "" if sentence else " (wrt= says which arguments have a gradient)"
        message = f"the gradient of {block.name} {shapes}{hint} (seed {self.settings.seed})."
        return self.settings.error(f"{message}\n{sentence}".strip(), cause or "shape")


@dataclass
class _Finding:
    """A block whose gradient disagrees with the forward pass."""

    evidence: Evidence
    worst: Check
    uncertainty: float  # of the worst numerical slope
    table: list[Check]  # the coordinates that were looked at
    kinks: list[str]
    decided: bool  # whether the disagreement is larger than the numerical error


def _kinked(c: Check, doubt: Doubt) -> bool:
    """Tell whether there is a kink, worth a thousandth of the slope or more, within the step."""
    return doubt.kink > 1e-3 * max(abs(c.analytic), abs(c.numerical))


def _decides(c: Check, doubt: Doubt) -> bool:
    """Tell whether backward and forward differ by more than the difference may err."""
    kink = doubt.kink if _kinked(c, doubt) else 0.0
    return abs(c.analytic - c.numerical) > MARGIN * max(doubt.error, kink)


def _unit(block: Block, index: tuple[Any, ...]) -> Array:
    v = namespace(block.value).zeros_like(block.value)
    v[index] = 1
    return v


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
