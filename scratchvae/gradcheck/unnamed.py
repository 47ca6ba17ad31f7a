"""What a layer's forward reads and no named parameter covers: its gradient is checked by nobody."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scratchvae.backend import Array, namespace
from scratchvae.held import held
from scratchvae.parameters import Parameter

from .slopes import OutOfTime, sizes_of, time_limit

MOVES = (2.0**-6, -1.0)  # in units of size: far too, for what is small beside the rest
REASON = (
    "forward reads it and named_parameters does not name it: name it or, if it is a constant, make "
    "it read-only, a.flags.writeable = False, or give its Parameter constant = True"
)


def unnamed(
    owner: Any, known: Sequence[Any], forward: Callable[[], Array], limit: float
) -> dict[str, str]:
    """Return the name of every such array, with the reason why it is not checked.

    `known` are the arguments and parameters. Whether forward reads an array is found by moving it:
    its result moves too. A read-only array is a constant, and so is a Parameter that says so.
    """
    y, found = forward().copy(), {}  # a copy: the owner may hold it
    for name, a in held(owner, _is_array):
        xp = namespace(a)
        near = [k for k in known if hasattr(k, "dtype") and xp is namespace(k)]
        own = not any(xp.may_share_memory(a, k) for k in near)
        if own and getattr(a.flags, "writeable", True) and _moves(a, y, forward, limit):
            found[re.sub(r"\._?value$", "", name)] = REASON  # of a Parameter
    return found


def _moves(a: Array, y: Array, forward: Callable[[], Array], limit: float) -> bool:
    """Tell whether forward's result moves with the array, which is put back."""
    old, xp = a.copy(), namespace(a)
    rng = np.random.default_rng(0)
    try:
        for step in MOVES:
            a[...] = old + step * xp.asarray(sizes_of(old) * rng.uniform(0.5, 1, old.shape))
            with time_limit(limit), np.errstate(all="ignore"):
                moved = forward()
            if moved.shape != y.shape or bool((moved != y).any()):
                return True
        return False
    except (Exception, OutOfTime):  # it raises there, so it reads it
        return True
    finally:
        a[...] = old


def _is_array(x: Any) -> bool | None:
    """Tell `held` which objects are float arrays; other arrays and constants hold nothing.

    A model or a layer may have a dtype too.
    """
    if isinstance(x, Parameter) and x.constant:
        return False
    kind = getattr(getattr(x, "dtype", None), "kind", "O")
    if kind == "O" or not hasattr(x, "__array__"):
        return None
    return kind == "f" and hasattr(x, "flags") and bool(x.size)
