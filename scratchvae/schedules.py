"""How a learning rate, or the weight of the KL term, changes over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[float], float]  # the time in epochs, fractions included -> the number


def constant(lr: float) -> Schedule:
    """Return the schedule that always gives `lr`."""
    return lambda epoch: lr


def step_list(lr: float, changes: Mapping[float, float]) -> Schedule:
    """Return the schedule that starts at `lr` and becomes ``changes[e]`` at epoch e."""
    steps = sorted({-math.inf: lr, **changes}.items())
    return lambda epoch: [rate for start, rate in steps if start <= epoch][-1]


def cosine(lr: float, epochs: float, final: float = 0.0) -> Schedule:
    """Return the schedule that falls from `lr` to `final` along half a cosine in `epochs`."""
    # [cosine]
    return lambda epoch: (
        final + (lr - final) * 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1)))
    )


def warm_up(value: float, epochs: float) -> Schedule:
    """Return the schedule that rises from 0 to `value` on a straight line in `epochs`.

    As the `beta_schedule` of a Trainer it lets a model learn to reconstruct before the KL term
    pulls its codes to the prior: S. R. Bowman et al., "Generating Sentences from a Continuous
    Space", 2016, and C. K. Sonderby et al., "Ladder Variational Autoencoders", 2016.
    """
    # [warm-up]
    return lambda epoch: value * min(epoch / epochs, 1)
