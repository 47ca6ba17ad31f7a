"""Two more views of a right gradient: the adjoint identity, and the order of Taylor's remainder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import RandomSource, namespace

from .checking import Case, make_settings, name_of, prepared, prepared_model
from .comparison import TOLERANCE, Report, Settings
from .slopes import STEP, Check, Forward, Moves

STEPS = tuple(10 ** (-k / 2) for k in range(2, 13))  # 0.1 to 1e-6


class Taylor(NamedTuple):
    """What `taylor` measured along one direction v; f is the sum of dy * y.

    Attributes
    ----------
    name : str
    steps : tuple of float
        The h.
    without : tuple of float
        |f(x + h v) - f(x)|, of order h.
    remainder : tuple of float
        |f(x + h v) - f(x) - h <g, v>|: of order h^2 if the gradient g is right, of order h if not.
    rounding : float
        What rounding adds to either.
    order : float
        The remainder's, measured at the smallest steps that rounding leaves; infinite if there
        are none, as for a function that is linear along v.
    seed : int
    """

    name: str
    steps: tuple[float, ...]
    without: tuple[float, ...]
    remainder: tuple[float, ...]
    rounding: float
    order: float
    seed: int

    @property
    def ok(self) -> bool:
        """Whether the order is nearer to 2 than to 1."""
        return self.order > 1.5

    def __str__(self) -> str:
        if self.order == math.inf:
            return f"{self.name}: the remainder is zero to rounding: f is linear, and g is right."
        verdict = "right: it falls like h^2" if self.ok else "wrong: it falls like h only"
        return (
            f"{self.name}: the remainder is of order {self.order:.2f}. The gradient is {verdict}."
        )


def taylor(
    f: Any,
    *pair_and_args: Any,
    wrt: Sequence[int] | None = None,
    rng: RandomSource = None,
    name: str | None = None,
) -> Taylor:
    """Measure how f(x + h v) - f(x) - h <g, v> falls with h, along a random direction v.

    It takes what `check` takes, and a model with its data too, ``(model, (x, eps))``. It does not
    raise where the gradient is wrong: `plots.taylor` draws the result, right or wrong.
    """
    settings = make_settings(name or name_of(f), rng, TOLERANCE, STEP, 1)
    if hasattr(f, "loss_and_grad"):
        context = prepared_model(settings, f, *_data(pair_and_args))
    else:
        context = prepared(settings, f, pair_and_args, wrt)
    with context as case:
        forward, moves, slope = _direction(case, settings)
        rounding = forward.rounding * STEP
        changes = [
            float((case.dy * (forward.at(moves, h) - forward.y)).sum()) for h in STEPS
        ]  # f(x + h v) - f(x)
    remainder = [abs(change - h * slope) for h, change in zip(STEPS, changes, strict=True)]
    usable = [(h, r) for h, r in zip(STEPS, remainder, strict=True) if r > 100 * rounding][-4:]
    order = math.inf
    if len(usable) > 1:
        logs = np.log(np.array(usable))
        order = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    without = tuple(abs(change) for change in changes)
    return Taylor(settings.name, STEPS, without, tuple(remainder), rounding, order, settings.seed)


def adjoint(
    f: Any,
    *pair_and_args: Any,
    wrt: Sequence[int] | None = None,
    rng: RandomSource = None,
    tolerance: float = TOLERANCE,
    step: float = STEP,
    name: str | None = None,
) -> Report:
    """Check <dy, J u> = <J^T dy, u> for a random direction u of all arguments and parameters.

    Backward gives J^T dy, and differences of the forward pass give J u. `check` compares the same
    two numbers, along more directions. For a forward pass that is linear the difference is exact
    for any step: take ``step=1.0`` and a tolerance near rounding, such as 1e-13.

    Raises
    ------
    GradientError
        If the two numbers differ.
    """
    settings = make_settings(name or name_of(f), rng, tolerance, step, 1)
    with prepared(settings, f, pair_and_args, wrt) as case:
        forward, moves, right = _direction(case, settings)
        j_u = forward.derivative(moves)  # like y
        left = float((case.dy * j_u).sum())
        length = float((case.dy * case.dy).sum() * (j_u * j_u).sum()) ** 0.5
        scale = max(abs(left), abs(right), length / math.sqrt(max(case.dy.size, 1)))
    error = abs(left - right) / scale if scale else 0.0
    check = Check("<dy, J u> and <J^T dy, u>", right, left, error)
    if not error <= tolerance:
        numbers = f"<dy, J u> = {left:.10g} and <J^T dy, u> = {right:.10g} differ"
        message = f"{numbers} (relative error {error:.1e}, seed {settings.seed})."
        raise settings.error(message, "adjoint", error=error, checks=(check,))
    return Report(settings.name, error, tolerance, settings.seed, (check,))


def _direction(case: Case, settings: Settings) -> tuple[Forward, Moves, float]:
    """Draw a direction of all blocks; return the forward pass, it, and <g, v>."""
    xp = namespace(case.dy)
    moves = [(b, xp.asarray(settings.rng.uniform(-1, 1, b.value.shape))) for b in case.blocks]
    slope = sum(float((b.grad * v).sum()) for b, v in moves)
    return Forward(case.evaluate, case.blocks, case.dy, settings.step), moves, slope


def _data(pair_and_args: tuple[Any, ...]) -> tuple[Any, Any]:
    x, eps = (*pair_and_args[-1], None)[:2]
    return x, eps
