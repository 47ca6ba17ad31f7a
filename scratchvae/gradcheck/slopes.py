"""What the forward pass says of a slope, and how well it knows it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from scratchvae.backend import Array, asnumpy, namespace

STEP = 1e-3
ROUNDING = 16 * sys.float_info.epsilon


class Check(NamedTuple):
    """One slope, from backward and from differences."""

    name: str
    analytic: float
    numerical: float
    error: float  # relative


class Block(NamedTuple):
    """An argument or a parameter, and the gradient that backward gives for it."""

    name: str
    value: Array  # moved in place, and put back
    grad: Array


Moves = Sequence[tuple[Block, Array]]  # blocks with the direction in which each one moves


class Doubt(NamedTuple):
    """How far a numerical slope can be trusted."""

    error: float  # of the slope, estimated
    kink: float  # how much the slope changes within the step other than smoothly; 0 if it does not


class Forward:
    """The forward pass as f(t) = sum(dy * y(x + t v)), for the blocks x along directions v."""

    def __init__(
        self, evaluate: Callable[[], Array], blocks: Sequence[Block], dy: Array, step: float
    ) -> None:
        xp = namespace(dy)
        self.evaluate, self.dy, self.step = evaluate, dy, step
        self.y = evaluate().copy()
        sizes = (float(xp.abs(a).max()) for a in (self.y, *(b.value for b in blocks)) if a.size)
        length = float(xp.sqrt((dy * dy).sum()))
        self.rounding = ROUNDING * max(sizes, default=0.0) * length / step  # of one slope
        self.is_float32 = is_float32(asnumpy(self.y))  # in its digits

    def at(self, moves: Moves, t: float) -> Array:
        """Return y where each block has moved by t v."""
        old = [block.value.copy() for block, _ in moves]
        try:
            for (block, v), value in zip(moves, old, strict=True):
                block.value[...] = value + t * v
            return self.evaluate().copy()
        finally:
            for (block, _), value in zip(moves, old, strict=True):
                block.value[...] = value

    def derivative(self, moves: Moves) -> Array:
        """Return dy/dt at t = 0 by Richardson's rule, in the shape of y."""
        coarse, fine = (self._difference(moves, h) for h in (self.step, self.step / 2))
        return (4 * fine - coarse) / 3

    def slope(self, moves: Moves) -> float:
        """Return df/dt at t = 0."""
        return float((self.dy * self.derivative(moves)).sum())

    def doubt(self, moves: Moves) -> Doubt:
        """Estimate the error of `slope`, and look for a kink within the step."""
        steps = [self.step, self.step / 2, self.step / 4]
        d0, d1, d2 = (float((self.dy * self._difference(moves, h)).sum()) for h in steps)
        noise = self._noise(moves) / self.step
        error = abs((4 * d2 - d1) - (4 * d1 - d0)) / 3 + self.rounding + 16 * noise
        # The slope from the right minus that from the left is h f'' where f is smooth, and halves
        # with h; at a kink it does not.
        gaps = [
            float((self.dy * (self.at(moves, h) - 2 * self.y + self.at(moves, -h))).sum()) / h
            for h in steps
        ]
        bends = [(abs(fine - coarse / 2), abs(coarse)) for coarse, fine in pairwise(gaps)]
        kink = sum(bend for bend, _ in bends) if any(b > 0.12 * g for b, g in bends) else 0.0
        # Of noise alone `kink` has a standard deviation of about 15: five of them and some more.
        return Doubt(error if math.isfinite(error) else math.inf, max(0.0, kink - 100 * noise))

    def _noise(self, moves: Moves) -> float:
        """Return the standard deviation of the rounding in f.

        Over steps of h/1000 any smooth f is a parabola, so that its fourth differences are rounding
        alone, with 1 + 16 + 36 + 16 + 1 = 70 times the variance: J. J. More and S. M. Wild,
        "Estimating Computational Noise", 2011.
        """
        values = [
            float((self.dy * (self.at(moves, k * self.step / 1000) - self.y)).sum())
            for k in range(-10, 11)
        ]
        return float(np.sqrt((np.diff(values, 4) ** 2).mean() / 70))

    def _difference(self, moves: Moves, h: float) -> Array:
        return (self.at(moves, h) - self.at(moves, -h)) / (2 * h)  # like y


def is_float32(x: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Tell whether an array has float32's digits only, and enough of them to say so."""
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    many = np.unique(x[x != 0]).size >= 2
    # Few numbers of float64 need no more than 24 bits, but a half, a sum of ones, a pixel do.
    fractions = np.abs(np.frexp(x)[0]) * 2**12
    return bool(many and (narrow == x).all() and (fractions != np.round(fractions)).any())
