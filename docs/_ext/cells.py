"""The cells of a demo or of a page with examples: text and code, for pages and for notebooks.

jupytext reads a demo's script as well, but leaves the text in the code as comments, unless every
text is a cell of its own behind ``# %% [markdown]``.
"""

from __future__ import annotations

import doctest
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
    """Return a demo as the JSON of a notebook."""
    head = [f"# {escape(title)}", escape(prose(docstring)), f"**Claim:** {escape(claim)}"]
    parts = [_text("\n\n".join(filter(None, head)))]
    for text, code in cells(source):
        parts += [_text(escape(text)), _code(code)]
    return _book(parts)


def notebook_of_page(page: str) -> str:
    """Return a page with ``{doctest}`` blocks as the JSON of a notebook.

    A cell of code ends with an example that has an output, since a notebook shows a cell's last
    value only. The outputs themselves are left to whoever runs it.
    """
    parts, blocks = [], re.split(r"^```\{doctest\}\n(.*?)^```\n", page, flags=re.M | re.S)
    for text, block in zip(blocks[::2], [*blocks[1::2], ""], strict=True):
        parts += [_text(plain)] if (plain := _plain(text)) else []
        sources: list[str] = []
        for example in doctest.DocTestParser().get_examples(block):
            sources.append(example.source)
            if example.want or example.exc_msg:
                parts.append(_code("".join(sources), raises=example.exc_msg is not None))
                sources = []
        parts += [_code("".join(sources))] if sources else []
    return _book(parts)


def _plain(text: str) -> str:
    """Return a page's text without what only the documentation understands."""
    text = re.sub(r"^ *%.*\n", "", text, flags=re.M)
    text = re.sub(r"^(```|:::)\{.*?^\1\n", "", text, flags=re.M | re.S)  # a picture, another file
    text = re.sub(r"\{[\w:]+\}`~?([^`]+)`", r"`\1`", text)
    # A link to another page leads nowhere from a notebook.
    return re.sub(
        r"\[([^\]]*)\]\(([\w./-]*?)([\w-]+)\.md(#[\w-]*)?\)",
        lambda m: m[1] or f'"{m[3].replace("-", " ")}"',
        text,
    ).strip()


def _text(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _code(code: str, raises: bool = False) -> dict[str, Any]:
    """Return a cell of code; where it is to raise, the cells below it are run all the same."""
    metadata = {"tags": ["raises-exception"]} if raises else {}
    cell = {"cell_type": "code", "metadata": metadata, "source": code.rstrip("\n")}
    return {**cell, "execution_count": None, "outputs": []}


def _book(parts: list[dict[str, Any]]) -> str:
    """Return the JSON of a notebook of nbformat 4.4, whose cells need no names."""
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    whole = {"cells": parts, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
