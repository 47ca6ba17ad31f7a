"""How a learning rate, or the weight of the KL term, changes over the epochs.

Each schedule is a `partial` of a function below it, not a lambda, so that a trainer can be pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from .errors import InputError, check_number

Schedule = Callable[[float], float]  # the time in epochs, fractions included -> the number


def constant(lr: float) -> Schedule:
    """Return the schedule that always gives `lr`."""
    return partial(_constant, lr)


def _constant(lr: float, epoch: float) -> float:
    return lr


def step_list(lr: float, changes: Mapping[float, float]) -> Schedule:
    """Return the schedule that starts at `lr` and becomes ``changes[e]`` at epoch e."""
    if not isinstance(changes, Mapping):
        raise InputError(f"changes is {changes!r}: expected rates by epochs, such as {{10: 1e-4}}")
    return partial(_step_list, sorted({-math.inf: lr, **changes}.items()))


def _step_list(steps: list[tuple[float, float]], epoch: float) -> float:
    return [rate for start, rate in steps if start <= epoch][-1]


def cosine(lr: float, epochs: float, final: float = 0.0) -> Schedule:
    """Return the schedule that falls from `lr` to `final` along half a cosine in `epochs`."""
    epochs = check_number("epochs", epochs, positive=True)
    return partial(_cosine, check_number("lr", lr), epochs, check_number("final", final))


def _cosine(lr: float, epochs: float, final: float, epoch: float) -> float:
    # [cosine]
    return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1)))


def warm_up(value: float, epochs: float) -> Schedule:
    """Return the schedule that rises from 0 to `value` on a straight line in `epochs`.

    As the `beta_schedule` of a Trainer it lets a model learn to reconstruct before the KL term
    pulls its codes to the prior: S. R. Bowman et al., "Generating Sentences from a Continuous
    Space", 2016, and C. K. Sonderby et al., "Ladder Variational Autoencoders", 2016.
    """
    epochs = check_number("epochs", epochs, positive=True)
    return partial(_warm_up, check_number("value", value), epochs)


def _warm_up(value: float, epochs: float, epoch: float) -> float:
    # [warm-up]
    return value * min(epoch / epochs, 1)
