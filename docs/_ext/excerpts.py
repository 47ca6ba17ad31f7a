"""The search beside Sphinx's own: excerpts without a network, and equations found by their labels.

Sphinx's search fetches every page that it found to show the words in their sentence, and no browser
fetches a page that was opened as a file. So the text of all pages is written to one script, which
the page of the search loads; search.js says how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from derivations import Fold
from docutils import nodes

SILENT = (nodes.section, nodes.title, nodes.math_block, nodes.raw, nodes.comment, Fold)


def text_of(node: nodes.Element) -> str:
    """Return the text of a section, without its title, formulas and the sections in it."""
    text = ""
    for child in node:
        if isinstance(child, nodes.Text):
            text += child.astext()
        elif not isinstance(child, SILENT):
            text += text_of(child) + ("" if isinstance(child, nodes.Inline) else " ")
    return text


def note_text(app: Any, doctree: nodes.document, docname: str) -> None:
    found = {
        anchor: " ".join(text_of(section).split())
        for section in doctree.findall(nodes.section)
        for anchor in section["ids"][:1]
    }
    app.env.excerpts[docname] = found


def write_script(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        text = f"setExcerpts({json.dumps(app.env.excerpts, ensure_ascii=False)});\n"
        Path(app.outdir, "_static", "excerpts.js").write_text(text, encoding="utf-8")


def start(app: Any) -> None:
    app.config.html_search_scorer = str(Path(__file__).with_name("search.js"))
    if not hasattr(app.env, "excerpts"):
        app.env.excerpts = {}  # page -> {anchor: text}


def forget_page(app: Any, env: Any, docname: str) -> None:
    env.excerpts.pop(docname, None)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", start)
    app.connect("env-purge-doc", forget_page)
    app.connect("doctree-read", lambda app, doctree: note_text(app, doctree, app.env.docname))
    app.connect("build-finished", write_script)
    return {"parallel_read_safe": False, "parallel_write_safe": True, "env_version": 1}
