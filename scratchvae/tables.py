"""Figures of rows of numbers that are no images: a line over the columns, in their own range.

What :mod:`scratchvae.plots` draws as images it draws by these functions where the data are a table.
They take few columns out of many, so that memory and time do not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm

from .backend import Array
from .errors import InputError
from .style import BLUE, VERMILION, Figure, styled

BAND = "#E4E4E4"
MAX_COLUMNS = 400  # more of them are no longer told apart
MAX_NAMES = 16  # on the axis
ALIKE = 10.0  # columns whose ranges differ by less are drawn in their own units
DOTS = 40  # with more columns, a line alone


class Columns(NamedTuple):
    """Which columns of a table are drawn, and between which values.

    Attributes
    ----------
    drawn : (k,)
        Their indices.
    low, high : (k,)
        What becomes 0 and 1 on the axis; 0 and 1 themselves if the columns are alike.
    middle : (2, k)
        Between which values nine tenths of the data lie, on the axis.
    of : int
        How many columns there are.
    names : tuple of str, optional
        Of all of them.
    """

    drawn: Array
    low: Array
    high: Array
    middle: Array
    of: int
    names: tuple[str, ...] | None

    @property
    def at(self) -> Array:
        """Where they stand on the axis, which counts from 1."""
        return self.drawn + 1

    @property
    def alike(self) -> bool:
        """Whether the columns are drawn in their own units."""
        return bool((self.low == 0).all() and (self.high == 1).all())

    def place(self, x: Array) -> Array:
        """Return the drawn columns (n, k) of x (n, D), where they lie on the axis."""
        if x.ndim != 2 or x.shape[1] != self.of or len(x) == 0:
            raise InputError(f"the rows have shape {x.shape}: expected (n, {self.of})")
        return (np.asarray(x[:, self.drawn], dtype=float) - self.low) / (self.high - self.low)


def columns(x: Array, names: Sequence[str] | None = None, scale: float = 1.0) -> Columns:
    """Return how the columns of x / scale (n, D) are drawn, by at most a thousand of its rows."""
    drawn = np.linspace(0, x.shape[1] - 1, min(x.shape[1], MAX_COLUMNS)).astype(int)  # (k,)
    rows = x[:: max(1, len(x) // 1000)][:1000]
    some = np.asarray(rows[:, drawn], dtype=float) / scale  # (<=1000, k)
    low, high = some.min(axis=0), some.max(axis=0)  # (k,) each
    span = np.where(high > low, high - low, 0)
    if span.max() <= ALIKE * np.median(span) or not span.any():
        low, high = np.zeros(len(drawn)), np.ones(len(drawn))
    else:
        high = np.where(span > 0, high, low + np.maximum(1, abs(low)))  # 1e17 + 1 is 1e17
    middle = np.quantile((some - low) / (high - low), [0.05, 0.95], axis=0)  # (2, k)
    return Columns(drawn, low, high, middle, x.shape[1], tuple(names) if names else None)


@styled
def reconstructions(originals: Array, reconstructed: Array, table: Columns) -> Figure:
    """Return a figure of rows (n, D), each with its reconstruction in a panel, at most six."""
    above, below = (table.place(x[:6]) for x in (originals, reconstructed))
    wide = min(3, len(above))
    high = -(-len(above) // wide)
    figure = Figure(figsize=(3.4 * wide + 0.6, 2.3 * high + 1))
    axes = figure.subplots(high, wide, sharex=True, sharey=True, squeeze=False)
    for ax in axes.ravel()[len(above) :]:
        ax.set_visible(False)
    marker = "o" if len(table.drawn) <= DOTS else ""
    for ax, x, y in zip(axes.flat, above, below, strict=False):
        ax.plot(table.at, x, marker or "-", color=BLUE, label="original", lw=1)
        ax.plot(table.at, y, "-", color=VERMILION, label="reconstruction", lw=1.2)
    _label_panels(figure, axes, table)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.suptitle("Rows and their reconstructions", x=0.01, ha="left", size=13)
    return figure


@styled
def samples(x: Array, table: Columns, title: str | None = None, band: bool = True) -> Figure:
    """Return a figure of rows x (n, D) as lines, over a band where most of the data lie."""
    figure = Figure(figsize=(7.2, 4.4))
    ax = figure.add_subplot()
    if band:
        _draw_band(ax, table)
    lines = table.place(x)
    dots = "o" if len(table.drawn) <= DOTS else ""
    alpha = float(np.clip(12 / len(lines), 0.1, 0.8))
    ax.plot(table.at, lines.T, color=BLUE, lw=1, alpha=alpha, marker=dots, ms=3, mew=0)
    _label_columns(ax, table)
    note = "\ngrey: where nine tenths of the data lie" if band else ""
    ax.set_title((title or f"{len(x)} samples: z ~ p(z), decoded") + note)
    return figure


@styled
def styles(x: Array, table: Columns, colours: Sequence[str]) -> Figure:
    """Return a figure of codes that were decoded with several labels each, a panel for a code.

    Parameters
    ----------
    x : (n, C, D)
        A row for each code, and in it one for each label.
    table : Columns
    colours : sequence of str
        Of the labels.
    """
    x = x[:6]
    wide = min(3, len(x))
    high = -(-len(x) // wide)
    figure = Figure(figsize=(3.4 * wide + 1.4, 2.3 * high + 1))
    axes = figure.subplots(high, wide, sharex=True, sharey=True, squeeze=False)
    for ax in axes.ravel()[len(x) :]:
        ax.set_visible(False)
    for ax, rows in zip(axes.flat, x, strict=False):
        for label, row in enumerate(table.place(rows)):
            ax.plot(table.at, row, color=colours[label % len(colours)], lw=1.2, label=str(label))
    _label_panels(figure, axes, table)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", title="label")
    figure.suptitle("The same codes with other labels", x=0.01, ha="left", size=13)
    return figure


@styled
def manifold(decode: Callable[[Array], Array], table: Columns, n: int = 7) -> Figure:
    """Return a figure of the decoded latent plane: in each cell, equally probable, a line.

    Parameters
    ----------
    decode : callable
        From codes (n, 2) to rows (n, D).
    table : Columns
    n : int
        Cells a side.
    """
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)  # (n,)
    # A row of cells at a time: of wide data no more is in memory.
    lines = np.stack(
        [table.place(decode(np.column_stack([quantiles, np.full(n, z2)]))) for z2 in quantiles]
    )  # (n, n, k)
    bottom, top = min(0.0, lines.min()), max(1.0, lines.max())
    if table.alike:
        bottom, top = lines.min(), lines.max()
    span = top - bottom or 1.0  # all lines may be one, at any height
    figure = Figure(figsize=(6.9, 7.2))
    ax = figure.add_subplot(xlabel="z₁", ylabel="z₂", xlim=(0, n), ylim=(0, n))
    across = np.linspace(0.08, 0.92, len(table.drawn)) if len(table.drawn) > 1 else np.array([0.5])
    dots = "o" if len(table.drawn) <= DOTS else ""
    for i in range(n):
        for j in range(n):
            height = 0.08 + 0.84 * (lines[i, j] - bottom) / span
            ax.plot(j + across, i + height, color=BLUE, lw=0.9, marker=dots, ms=2.5, mew=0)
    ax.set_xticks(np.arange(n + 1), [], minor=True)
    ax.set_yticks(np.arange(n + 1), [], minor=True)
    ax.grid(True, which="minor")
    ax.tick_params(which="minor", length=0)
    text = [f"{q:.2f}".replace("-", "−") for q in quantiles]
    ax.set_xticks(np.arange(n) + 0.5, text)
    ax.set_yticks(np.arange(n) + 0.5, text)
    ax.set_title("Decoded latent plane: in each cell the columns from left to right\n"
                 "cells of equal probability under the prior")  # fmt: skip
    return figure


def _draw_band(ax: Axes, table: Columns) -> None:
    how: dict[str, Any] = {"color": BAND, "zorder": 0, "lw": 0}
    if len(table.drawn) == 1:  # an area needs two
        ax.axhspan(*table.middle[:, 0], **how)
    else:
        ax.fill_between(table.at, *table.middle, **how)


def _label_panels(figure: Figure, axes: Array, table: Columns) -> None:
    """Label the columns below each panel that has none below it, and the values once for all."""
    for ax in axes.flat:
        _label_columns(ax, table)
        ax.set_ylabel("")
    for ax, below in zip(axes[:-1].flat, axes[1:].flat, strict=True):
        if below.get_visible():
            ax.set_xlabel("")
        else:
            ax.tick_params(labelbottom=True)
    figure.supylabel(_of_values(table), size=12)


def _of_values(table: Columns) -> str:
    return "value" if table.alike else "0 to 1: the column's range"


def _label_columns(ax: Axes, table: Columns) -> None:
    label = "column"
    if table.of > len(table.drawn):
        label = f"column, {len(table.drawn)} of {table.of:,} drawn"
    if table.names is not None and table.of <= MAX_NAMES:
        names = [n if len(n) <= 18 else f"{n[:17]}…" for n in table.names]
        # "$" is a letter of a name, not the start of a formula.
        ax.set_xticks(table.at, names, rotation=45, ha="right", size=9, parse_math=False)
        label = ""
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_xlabel(label)
    ax.set_ylabel(_of_values(table))
    ax.grid(True)
