"""``{doctest}`` blocks: shown with colours, and executed when the page is read.

All blocks of a page share one namespace, from top to bottom. An example whose output is another
than the page says is an error of the build. The guide's pages with such blocks are notebooks too.
"""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

from cells import notebook_of_page
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

logger = getLogger(__name__)


class Runner(doctest.DocTestRunner):
    """Reports where a page and Python disagree as errors of the build."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS)

    def report_failure(self, out: Any, test: Any, example: doctest.Example, got: str) -> None:
        self._report(test, example, f"printed\n{got}where the page says\n{example.want}")

    def report_unexpected_exception(
        self, out: Any, test: Any, example: doctest.Example, exc_info: Any
    ) -> None:
        self._report(test, example, f"raised {exc_info[0].__name__}: {exc_info[1]}")

    def _report(self, test: Any, example: doctest.Example, what: str) -> None:
        line = test.lineno + example.lineno + 1
        message = "The doctest\n%s%s"
        logger.error(message, example.source, what, location=(test.filename, line), type="doctest")


class Doctest(SphinxDirective):
    """``{doctest}``: show and run the examples in it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content) + "\n"
        namespace = self.env.current_document.setdefault("doctest_namespace", {})
        try:
            test = doctest.DocTestParser().get_doctest(
                text, {}, self.env.docname, self.env.docname, self.lineno
            )
        except ValueError as error:
            logger.error("%s", error, location=self.get_location(), type="doctest")
            return []
        if not test.examples:
            message = "This doctest has no line that begins with >>>."
            logger.error(message, location=self.get_location(), type="doctest")
        test.globs = namespace  # not a copy, so that the next block sees its names
        Runner().run(test, clear_globs=False)
        block = nodes.literal_block(text, text, language="pycon")
        self.set_source_info(block)
        return [block]


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
    app.add_directive("doctest", Doctest)
    app.connect("doctree-read", offer_notebook)
    return {"parallel_read_safe": True}
