"""``{doctest}`` blocks: shown with colours, and executed while the other pages are read.

All blocks of a page share one namespace, from top to bottom. An example whose output is another
than the page says is an error of the build. The guide's pages with such blocks are notebooks too.

A second process executes them, on another core: run as a program, this file does so for the pages
that come in on standard input, and writes what went wrong to standard output.
"""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cells import notebook_of_page
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

logger = getLogger(__name__)


# ---- in the build --------------------------------------------------------------------------------


class Doctest(SphinxDirective):
    """``{doctest}``: show the examples in it, and note them."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content) + "\n"
        try:
            found = doctest.DocTestParser().get_examples(text)
        except ValueError as error:
            logger.error("%s", error, location=self.get_location(), type="doctest")
            return []
        if not found:
            message = "This doctest has no line that begins with >>>."
            logger.error(message, location=self.get_location(), type="doctest")
        self.env.current_document.setdefault("doctests", []).append((text, self.lineno))
        block = nodes.literal_block(text, text, language="pycon")
        self.set_source_info(block)
        return [block]


class Executor:
    """The process that executes pages, one after the other; it starts with the first."""

    process: subprocess.Popen[str] | None = None

    def send(self, app: Any, doctree: nodes.document) -> None:
        if blocks := app.env.current_document.get("doctests"):
            if self.process is None:
                self.process = subprocess.Popen(
                    [sys.executable, __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
            print(json.dumps([app.env.docname, blocks]), file=self.process.stdin, flush=True)

    def report(self, app: Any, env: Any) -> None:
        """Log what went wrong, when all pages are read."""
        if self.process is None:
            return
        output, _ = self.process.communicate()
        if self.process.returncode:
            logger.error("The process that executes the doctests failed.", type="doctest")
            return
        for docname, line, message in json.loads(output.splitlines()[-1]):
            logger.error("%s", message, location=(docname, line), type="doctest")


def offer_notebook(app: Any, doctree: nodes.document) -> None:
    """Write a page of the guide with examples as a notebook beside it, and link it on the page."""
    docname = app.env.docname
    page = Path(app.env.doc2path(docname)).read_text(encoding="utf-8")
    if not docname.startswith("guide/") or "```{doctest}" not in page:
        return
    path = Path(app.outdir) / f"{docname}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook_of_page(page), encoding="utf-8")
    link = f'<a href="{path.name}" download>Download this page as a notebook.</a>'
    below_title = nodes.paragraph("", "", nodes.raw("", link, format="html"))
    next(doctree.findall(nodes.section)).insert(1, below_title)


def setup(app: Any) -> dict[str, Any]:
    executor = Executor()
    app.add_directive("doctest", Doctest)
    app.connect("doctree-read", executor.send)
    app.connect("doctree-read", offer_notebook)
    app.connect("env-updated", executor.report)
    return {"parallel_read_safe": True}


# ---- in the process that executes them -----------------------------------------------------------


class Runner(doctest.DocTestRunner):
    """Notes where a page and Python disagree, as (page, line, message)."""

    def __init__(self, wrong: list[tuple[str, int, str]]) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS)
        self.wrong = wrong

    def report_failure(self, out: Any, test: Any, example: doctest.Example, got: str) -> None:
        self._note(test, example, f"printed\n{got}where the page says\n{example.want}")

    def report_unexpected_exception(
        self, out: Any, test: Any, example: doctest.Example, exc_info: Any
    ) -> None:
        self._note(test, example, f"raised {exc_info[0].__name__}: {exc_info[1]}")

    def _note(self, test: Any, example: doctest.Example, what: str) -> None:
        line = test.lineno + example.lineno + 1
        self.wrong.append((test.filename, line, f"The doctest\n{example.source}{what}"))


def execute(docname: str, blocks: list[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """Execute the blocks of a page, each a text and its line; return what went wrong."""
    wrong: list[tuple[str, int, str]] = []
    namespace: dict[str, Any] = {}
    for text, line in blocks:
        test = doctest.DocTestParser().get_doctest(text, {}, docname, docname, line)
        test.globs = namespace  # not a copy, so that the next block sees its names
        Runner(wrong).run(test, clear_globs=False)
    return wrong


if __name__ == "__main__":
    print(json.dumps([one for page in sys.stdin for one in execute(*json.loads(page))]))
