"""What a pair of the corpus is, and how its cases are drawn.

A pair is a forward pass, its right backward, and wrong ones, each a mistake that people make, with
the causes that would be true to name. Every pair gives two entries: one on the arguments that its
draw gives for (4, 5) at unit scale, and one over shapes and scales drawn by hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st


class Mistake(NamedTuple):
    name: str
    backward: Callable[..., Any]
    causes: tuple[str, ...]  # those that are true; "" (none) is never false


class Pair(NamedTuple):
    name: str
    forward: Any  # a function, or for a layer its class
    backward: Callable[..., Any] | None
    draw: Callable[..., list[Any]]  # draw(rng, b, d, scale) -> arguments
    mistakes: tuple[Mistake, ...]
    scales: tuple[int, int] | None  # powers of ten; None: only the fixed entry
    wrt: tuple[int, ...] | None  # which arguments the gradients belong to; None: the first ones


class Case(NamedTuple):
    """One pair on one draw of its arguments."""

    entry: str  # its name, with "drawn" where hypothesis drew it
    pair: Pair
    mistake: Mistake | None  # None: the pair is right
    args: list[Any]
    seed: int

    @property
    def functions(self) -> tuple[Any, ...]:
        """What `check` takes before the arguments: forward and backward, or a layer."""
        backward = self.mistake.backward if self.mistake else self.pair.backward
        if self.pair.backward is None:
            return (backward() if self.mistake else self.pair.forward(),)
        return self.pair.forward, backward

    def error(self) -> float:
        """Return the largest relative error of a coordinate of the wrong gradient."""
        if self.mistake is None:
            return 0.0
        if self.pair.backward is None or self.mistake.name in CONTRACT:
            return np.inf
        y, cache = self.pair.forward(*self.args)
        dy = np.random.default_rng(self.seed).standard_normal(np.shape(y))
        right, given = self.pair.backward(dy, cache), self.mistake.backward(dy, cache)
        if not isinstance(right, tuple):
            right, given = (right,), (given,)
        return max((_error(a, b) for a, b in zip(right, given, strict=True)), default=0.0)


CONTRACT = ("noise", "in place", "cache", "hidden state", "overwrites")


def _error(right: Any, given: Any) -> float:
    right, given = np.asarray(right), np.asarray(given)
    if right.shape != given.shape:
        return float(np.inf)
    size = np.maximum(abs(right), abs(given))
    return float(np.max(abs(right - given) / np.where(size > 0, size, 1), initial=0.0))


class Corpus:
    """Pairs under their names."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def add(
        self,
        forward: Any,
        backward: Any,
        draw: Any,
        *mistakes: Mistake,
        scales: tuple[int, int] | None = (-3, 3),
        name: str = "",
        wrt: tuple[int, ...] | None = None,
    ) -> None:
        name = name or forward.__name__
        assert name not in {p.name for p in self.pairs}, name
        self.pairs.append(Pair(name, forward, backward, draw, mistakes, scales, wrt))

    def count(self) -> tuple[int, int, int, int]:
        """Return the number of right entries and of wrong ones, and how many of each are drawn."""
        entries = [(p, kind) for p in self.pairs for kind in _kinds(p)]
        wrong = sum(len(p.mistakes) for p, _ in entries)
        drawn = [p for p, kind in entries if kind == "drawn"]
        return len(entries), wrong, len(drawn), sum(len(p.mistakes) for p in drawn)

    def cases(self, n: int, seeds: int, start: int = 0) -> Iterator[Case]:
        """Yield the n-th pair's entries, right and wrong, on `seeds` draws."""
        pair = self.pairs[n]
        for kind in _kinds(pair):
            for seed, size in enumerate(_draws(pair, kind, seeds, start), start):
                entry = f"{pair.name}{', drawn' * (kind == 'drawn')}"
                for mistake in (None, *pair.mistakes):
                    args = pair.draw(np.random.default_rng([n, seed, 1]), *size)
                    yield Case(entry, pair, mistake, args, seed)


def _kinds(pair: Pair) -> list[str]:
    return ["fixed"] + ["drawn"] * (pair.scales is not None)


def _draws(pair: Pair, kind: str, seeds: int, start: int) -> list[tuple[int, int, float]]:
    """Return (b, d, scale) for each seed."""
    if kind == "fixed":
        return [(4, 5, 1.0)] * seeds
    assert pair.scales is not None
    low, high = pair.scales
    found: list[tuple[int, int, float]] = []

    @hypothesis.seed(start)
    @hypothesis.settings(
        max_examples=seeds,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.integers(1, 7), st.integers(1, 7), st.floats(low, high))
    def collect(b: int, d: int, power: float) -> None:
        found.append((b, d, 10**power))

    collect()
    return [found[i % len(found)] for i in range(seeds)]


# ------------------------------------------------------------------------------- mistakes, draws


def wrong(name: str, backward: Callable[..., Any], *causes: str) -> Mistake:
    return Mistake(name, backward, causes)


def change(backward: Callable[..., Any], change: Callable[..., Any], i: int | None = None) -> Any:
    """Return a backward whose gradient, or its i-th one, is changed."""

    def changed(dy: Any, cache: Any) -> Any:
        given = backward(dy, cache)
        if i is None:
            return change(given)
        return tuple(change(g) if j == i else g for j, g in enumerate(given))

    return changed


def sign(backward: Any, i: int | None = None) -> Mistake:
    return wrong("sign", change(backward, lambda g: -g, i), "sign", "factor")


def factor(backward: Any, c: float, i: int | None = None) -> Mistake:
    return wrong(f"times {c:g}", change(backward, lambda g: c * g, i), "factor")


def missing(backward: Any, i: int) -> Mistake:
    """The gradient is zeros."""
    return wrong(f"zeros for {i}", change(backward, lambda g: 0 * np.asarray(g), i), "zero")


def transposed(backward: Any, i: int) -> Mistake:
    name = f"{i} transposed"
    change_ = change(backward, lambda g: g.T, i)
    return wrong(name, change_, "transposed", "right numbers in another shape", "order")


def swapped(backward: Any) -> Mistake:
    return wrong("swapped", lambda dy, c: backward(dy, c)[::-1], "swapped")


def normal(*kinds: str) -> Any:
    """Draw arguments of shapes such as "bd", "d", "", from N(0, scale^2)."""

    def draw(rng: Any, b: int, d: int, scale: float) -> list[Any]:
        sizes = {"b": b, "d": d, "1": 1, "3": 3, "k": d + 1}
        return [scale * rng.standard_normal([sizes[c] for c in kind]) for kind in kinds]

    return draw


def positive(*kinds: str) -> Any:
    def draw(rng: Any, b: int, d: int, scale: float) -> list[Any]:
        return [np.exp(a / scale) * scale for a in normal(*kinds)(rng, b, d, scale)]

    return draw
