"""How results show themselves in a Jupyter notebook. Nothing here needs one to be installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def running() -> bool:
    """Return whether a kernel of Jupyter runs this process."""
    return "ipykernel" in sys.modules


def show(thing: Any) -> None:
    """Show a thing below the cell that runs now; do nothing outside of a notebook."""
    if running():
        from IPython.display import display

        display(thing)


def show_file(path: str | os.PathLike[str]) -> None:
    """Show the image in a file, in the same way."""
    if running():
        from IPython.display import Image

        show(Image(filename=os.fspath(path)))


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the HTML of a table: what ``_repr_html_`` returns, by which a notebook shows a value.

    Parameters
    ----------
    title : str
        Stands above the table.
    head : sequence of str
    rows : iterable of sequences of str
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return (
        f"<p>{escape(title)}</p>\n<table>\n<thead>{line('th', head)}</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )
