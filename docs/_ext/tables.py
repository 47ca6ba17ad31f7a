"""Tables on a phone: where the columns do not fit beside each other, each row becomes a card.

Such a table gets the class "cards", and its cells the heads of their columns, which the style sheet
shows on narrow screens only. The first cell of a row is the card's title and needs none; beside it
a single other one needs none either.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes

# Characters of the longest cells of all columns together. With more, a screen of 390 pixels breaks
# every cell into many short lines, or hides columns.
FITS = 60


def length(cell: nodes.entry) -> int:
    """Return how many characters a cell shows, about: half of what a formula's TeX has."""
    of_formulas = sum(len(node.astext()) for node in cell.findall(nodes.math))
    return len(cell.astext()) - of_formulas // 2


def make_cards(app: Any, doctree: nodes.document, docname: str) -> None:
    for table in doctree.findall(nodes.table):
        rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
        columns = [[length(cell) for cell in column] for column in zip(*rows, strict=False)]
        if sum(map(max, columns)) <= FITS:
            continue
        table["classes"].append("cards")
        heads, *others = rows
        for row in others:
            for head, cell in zip(heads[1:], row[1:], strict=False):
                if len(heads) > 2 and cell.astext().strip():
                    cell.insert(0, nodes.inline("", head.astext(), classes=["cell-head"]))


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-resolved", make_cards, priority=600)  # when derivations.py has filled its
    return {"parallel_read_safe": True, "parallel_write_safe": True}
