"""Numbers that stopped being finite, and where in a model that began."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from .backend import Array
from .errors import NonFiniteError
from .layers import in_words
from .optimizers import Optimizer
from .summary import walk


def require_finite(
    numbers: dict[int, Array],
    model: Any,
    optimizer: Optimizer,
    epoch: int,
    x: Array = None,
    eps: Array = None,
    advice: str | None = None,
) -> None:
    """Raise NonFiniteError if one of the numbers, by step, is not finite; read one if all are.

    What to do about it is `advice`, or to try a smaller learning rate.

    Where it began can be told for a step that `optimizer` has not taken yet, which must be the one
    at (x, eps): the parameters have since moved on from those before.
    """
    if math.isfinite(float(sum(numbers.values()))):
        return
    for step, number in numbers.items():
        if not math.isfinite(float(number)):
            taken = step <= optimizer.steps
            unknown = taken or len(x) == 0  # or other machines have the rows
            where = "loss or gradient is not finite"
            if not unknown:
                # A model of one's own may hand its parts something else than rows and codes.
                with suppress(Exception):
                    where = first_nonfinite(model, x, eps)
            raise NonFiniteError(
                f"step {step} (epoch {epoch + 1}): {where}; {advice or slower(optimizer)}"
            )


def slower(optimizer: Optimizer) -> str:
    """Return the advice to take a smaller learning rate."""
    return f"try a smaller learning rate than {optimizer.lr}"


def require_finite_state(
    model: Any, optimizer: Optimizer, epoch: int, advice: str | None = None
) -> None:
    """Raise NonFiniteError if a parameter, or the optimizer's state, is not finite."""

    def finite(a: Array) -> bool:
        return bool(model.backend.xp.isfinite(a).all())

    number = epoch + 1
    named = {f"the parameter {name}": model.params[name].value for name in model.params.names}
    named |= {f"the optimizer's {name}": a for name, a in optimizer.state.items()}
    for name, a in named.items():
        if not finite(a):
            raise NonFiniteError(
                f"step {optimizer.steps} (epoch {number}): after it {name} is not finite; "
                f"{advice or slower(optimizer)}"
            )


def first_nonfinite(model: Any, x: Array, eps: Array | None) -> str:
    """Say where a NaN or an infinity first appears: in the data, forward, or in a gradient.

    Expects ``model.params.grad`` to hold the gradient at (x, eps).
    """

    def finite(a: Array) -> bool:
        return bool(model.backend.xp.isfinite(a).all())

    def through(part: str, h: Array) -> str | None:
        for name, layer in walk(part, getattr(model, part)):
            h, _ = layer.forward(h)
            if not finite(h):
                return f"the output of {name}, {in_words(layer)}, is the first that is not finite"
        return None

    for name in model.params.names:
        if not finite(model.params[name].value):
            return f"the parameter {name} is not finite"
    if not finite(x):
        return "the data are not finite"
    if found := through("encoder", x):
        return found
    z = model.codes(x, eps)  # (..., Z)
    if not finite(z):
        return "the draw z = mu + sigma eps is the first that is not finite"
    inputs = model.decoder_input(z, x)
    if found := through("decoder", inputs.reshape(-1, inputs.shape[-1])):
        return found
    if not all(finite(term) for term in model.forward(x, eps)[0]):
        return "the loss is not finite although every layer's output is"
    for name in reversed(model.params.names):  # the order in which backward reaches them
        if not finite(model.params[name].grad):
            return f"the gradient of {name} is the first that is not finite"
    return "the gradient's square norm is too large for its number type"
