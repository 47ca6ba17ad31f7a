"""A model in words: a table of its layers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from .layers import belongs_to, in_words, named

if TYPE_CHECKING:
    from .model import Model


class Text(str):
    """A text that shows as it reads, in an interpreter and in a notebook too."""

    def __repr__(self) -> str:
        return str(self)


HEAD = ("part", "layer", "output", "parameters")


def rows_of(model: Model) -> list[tuple[str, str, str, str]]:
    """Return a row for each layer: its name, itself, its output's shape and its parameters."""
    rows = []
    for part, (width, _) in model.widths().items():
        h = model.backend.xp.zeros((2, width), dtype=model.dtype)
        for name, layer in walk(part, getattr(model, part)):
            with np.errstate(all="ignore"):  # a norm of zeros may be divided by
                h, _ = _copied(layer).forward(h)
            rows.append((name, _short(layer), _shape(h), f"{_size(layer):,}"))
    for part in (*model.parts, "prior"):  # a subclass may have parts of its own
        if part not in model.widths() and (size := _size(owner := getattr(model, part))):
            rows.append((part, type(owner).__name__, "", f"{size:,}"))
    parts = {*model.parts, "prior"}
    for name, p in model.named_parameters():  # a subclass may name some of its own
        if name.partition(".")[0] not in parts:
            rows.append((name, "Parameter", str(p.shape), f"{p.value.size:,}"))
    return rows


def total_of(model: Model) -> str:
    """Return how many parameters a model has, of which type, and where."""
    n = sum(p.value.size for _, p in model.named_parameters())
    return f"{n:,} parameters, {model.dtype} on {model.backend.device}"


def summarize(model: Model) -> Text:
    """Return the rows of all layers as a table of plain text."""
    rows = [HEAD, *rows_of(model)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}".rstrip()
        for a, b, c, d in rows
    ]
    name = f"{type(model).__name__}({model.data_dim}, latent_dim={model.latent_dim})"
    head = f"{name}, {in_words(model.likelihood)}"
    return Text("\n".join([head, "", *lines, "", total_of(model)]))


def _copied(layer: Any) -> Any:
    """Return a copy, whose forward moves no generator and no statistics of the layer itself."""
    try:
        return copy.deepcopy(layer)
    except Exception:  # it holds what cannot be copied, such as a lock
        return layer


def walk(part: str, layer: Any) -> list[tuple[str, Any]]:
    """Return the layers of a part in their order, with their names; one, if it is not a chain."""
    if not belongs_to(layer, "named_layers", "forward"):
        return [(part, layer)]
    return [(f"{part}.{name}", inner) for name, inner in layer.named_layers()]


def _short(layer: Any) -> str:
    text = in_words(layer)
    return text if len(text) <= 40 else type(layer).__name__


def _shape(h: Any) -> str:
    return f"(B{''.join(f', {n}' for n in h.shape[1:])})"


def _size(layer: Any) -> int:
    return sum(p.value.size for _, p in named(layer))
