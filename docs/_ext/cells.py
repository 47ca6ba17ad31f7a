"""The cells of a demo: its text and its code, for its page and for its notebook.

jupytext reads such scripts as well, but leaves the text in the code as comments, unless every text
is a cell of its own behind ``# %% [markdown]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


def cells(source: str) -> Iterator[tuple[str, str]]:
    """Yield the text and the code of each cell after the docstring.

    A cell begins with a line ``# %%``; the comment directly below it is its text.
    """
    for cell in re.split(r"^# %%.*\n", source, flags=re.MULTILINE)[1:]:
        lines = cell.splitlines()
        n = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:n])
        yield text.strip(), "\n".join(lines[n:]).strip("\n")


def prose(docstring: str) -> str:
    """Return a demo's docstring without its title, its claim and its time."""
    parts = docstring.split("\n\n")[1:]
    return "\n\n".join(p for p in parts if not p.startswith(("Claim: ", "Time: ")))


def escape(text: str) -> str:
    """Keep Markdown from reading formulas of plain text as its own marks."""
    parts = re.split(r"``(.+?)``", text)  # code, as a docstring marks it, at the odd places
    parts[::2] = [re.sub(r"([\\`*_$<\[\]|{}])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def notebook(title: str, claim: str, docstring: str, source: str) -> str:
    """Return a demo as the JSON of a notebook: nbformat 4.4, whose cells need no names."""

    def cell(kind: str, text: str, **code: Any) -> dict[str, Any]:
        return {"cell_type": kind, "metadata": {}, "source": text, **code}

    head = [f"# {escape(title)}", escape(prose(docstring)), f"**Claim:** {escape(claim)}"]
    parts = [cell("markdown", "\n\n".join(filter(None, head)))]
    for text, code in cells(source):
        parts.append(cell("markdown", escape(text)))
        parts.append(cell("code", code, execution_count=None, outputs=[]))
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    whole = {"cells": parts, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
