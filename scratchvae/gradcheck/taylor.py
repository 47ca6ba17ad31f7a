"""A second view of a right gradient: the order of Taylor's remainder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import RandomSource, asnumpy

from .checking import make_settings, name_of, prepared, prepared_model
from .comparison import TOLERANCE
from .slopes import STEP, Forward, direction

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
    wrt: Sequence[int | str] | None = None,
    rng: RandomSource = None,
    name: str | None = None,
) -> Taylor:
    """Measure how f(x + h v) - f(x) - h <g, v> falls with h, along a random direction v.

    It takes what `check` takes, and a model with its data too, ``(model, (x, eps))``. It does not
    raise where the gradient is wrong: `plots.taylor` draws the result, right or wrong.
    """
    settings = make_settings(name or name_of(f), rng, TOLERANCE, STEP, 1)
    if hasattr(f, "loss_and_grad"):
        x, eps = (*pair_and_args[-1], None)[:2]
        context = prepared_model(settings, f, x, eps)
    else:
        context = prepared(settings, f, pair_and_args, wrt)
    with context as case:
        forward = Forward(case.evaluate, case.dy, STEP)
        moves = [direction(b, settings.rng) for b in case.choices[0]]
        slope = sum(float(asnumpy(m.block.grad * m.v).sum()) for m in moves)
        found = [(h, forward.change(moves, h)) for h in STEPS]
    # f(x + h v) - f(x), at those steps at which f is defined
    changes = {h: float((forward.dy * change).sum()) for h, change in found if change is not None}
    rounding = float((np.abs(forward.dy) * forward.rounding).sum())
    remainder = {h: abs(change - h * slope) for h, change in changes.items()}
    usable = [(h, r) for h, r in remainder.items() if r > 100 * rounding][-4:]
    order = math.inf
    if len(usable) > 1:
        logs = np.log(np.array(usable))
        order = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    without = tuple(abs(change) for change in changes.values())
    return Taylor(
        settings.name,
        tuple(changes),
        without,
        tuple(remainder.values()),
        rounding,
        order,
        settings.seed,
    )
