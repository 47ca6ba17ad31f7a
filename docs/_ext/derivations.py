"""Derivations beside the code that they derive, and beside the tests that would find them wrong.

``{derivation} kl-grad-mu``  a row: its content left, the lines that ``# [kl-grad-mu]`` opens right
``{step}``                   a row without code
``{drawn} kl``               a figure of figures.py beside the pages, and its content as the caption
``{tests}``                  the tests of all labels of the page; or of the labels that it holds, a
                             line each, and single tests: tests/test_vae.py::test_sample
``{traceability}``           every label with its equation, its lines and its tests
``{promises}``               every promise of the guide and the README with its tests
``{reading-order} gaussian`` the named files of the package with their lines and minutes

Lines and tests are read from the sources (labels.py), whose own pages stand below source/. A label
that has no equation, no code, no test or no page is an error of the build. Wherever a page shows a
comment ``# [kl-grad-mu]``, the label links to its equation; the API names the equations of each
function.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import runpy
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import labels
import matplotlib.pyplot
import promises
from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx import addnodes
from sphinx.domains.math import MathDomain
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from sphinx.util.nodes import make_refnode

logger = getLogger(__name__)


class Box(nodes.General, nodes.Element):
    """A div; docutils' own container would be laid out by the theme."""


class Fold(nodes.General, nodes.Element):
    """Something long behind its ``summary``, which opens it."""


class Drawing(nodes.General, nodes.Element):
    """A figure: SVG in ``panels``, and its caption."""


class TestsOfPage(nodes.General, nodes.Element):
    """Where the table of a page's tests goes."""


class Traceability(nodes.General, nodes.Element):
    """Where the table of all labels goes."""


class Reading(nodes.General, nodes.Element):
    """Where the table of the files of the reading path goes."""


LINES_A_MINUTE = 8  # of code that one wants to understand, docstrings and blank lines included


# ---- the directives ------------------------------------------------------------------------------


class Derivation(SphinxDirective):
    """``{derivation} label ...``: equations on the left, their code and tests on the right."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        left, right = Box(classes=["derivation-text"]), Box(classes=["derivation-code"])
        left += self.parse_content_to_nodes()
        equations = {node.get("label") for node in left.findall(nodes.math_block)}
        for label in self.arguments[0].split():
            if label not in equations:
                message = "The derivation %s has no equation: end its formula with $$ (%s)."
                logger.error(message, label, label, location=self.get_location())
            if label in self.env.derivations:
                where = "{}:{}".format(*self.env.derivations[label])
                message = "The derivation %s stands in %s too."
                logger.error(message, label, where, location=self.get_location())
            self.env.derivations[label] = self.env.docname, self.lineno
            right += self.code(label)
        return [Box("", left, right, classes=["derivation"])]

    def code(self, label: str) -> list[nodes.Node]:
        """Return the lines of a label, where they stand and which tests name it."""
        found, docname = self.env.labels, self.env.docname
        if label not in found.blocks:
            message = "The derivation %s has no code: no comment # [%s] opens any."
            logger.error(message, label, label, location=self.get_location())
            return []
        block, tests = found.blocks[label], found.tests.get(label, [])
        for path in (block.path, *(test.path for test in tests)):
            self.env.note_dependency(str(self.env.labels_root / path))
        place = nodes.paragraph("", "", place_of(docname, block), classes=["code-place"])
        if block.owner:
            target = f"{block.module}.{block.owner}"
            owner = addnodes.pending_xref(
                "",
                nodes.literal("", block.owner),
                **{"refdomain": "py", "reftype": "obj", "reftarget": target, "refdoc": docname},
                derivation=True,  # it need not have an API page: see resolve_owner
            )
            place += [nodes.Text(" in "), owner]
        lines = nodes.literal_block(block.code, block.code, language="python", linenos=True)
        # Each line in a span of its own: one that is too long continues under itself.
        lines["highlight_args"] = {"linenostart": block.first, "linespans": f"line-{label}"}
        self.set_source_info(lines)
        return [place, lines, folded(docname, tests)]


class Step(SphinxDirective):
    """``{step}``: a row of the derivation that no line of code implements."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [Box("", *self.parse_content_to_nodes(), classes=["derivation-step"])]


class Drawn(SphinxDirective):
    """``{drawn} kl``: the panels that docs/derivations/figures.py draws, with a caption."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, path = self.arguments[0], Path(self.env.srcdir, "derivations", "figures.py")
        self.env.note_dependency(str(path))
        draw = figures(path).get(name)
        if draw is None:
            message = "There is no figure %s in docs/derivations/figures.py."
            logger.error(message, name, location=self.get_location())
            return []
        panels = [as_svg(figure, name) for figure in draw()]
        return [Drawing("", *self.parse_content_to_nodes(), panels=panels)]


@functools.cache
def figures(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))["FIGURES"] if path.exists() else {}


def as_svg(figure: Any, name: str) -> str:
    """Return a matplotlib figure as SVG in the font and the colours of the page around it."""
    out, style = io.StringIO(), {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}
    with matplotlib.rc_context(style):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    matplotlib.pyplot.close(figure)
    svg = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    used = set(re.findall(r"#([mp]\w+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg[svg.find("<svg") :])
    # "font: 700 9px 'DejaVu Sans'"
    svg = re.sub(r"font: (?:(\d+) )?([\d.]+)px [^;\"]+", r"font-weight: \1; font-size: \2px", svg)
    svg = svg.replace("font-weight: ; ", "")
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    # Text and lines that name no colour are black to SVG.
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        r'<svg viewBox="\1" fill="currentColor" aria-hidden="true">',
        svg,
        count=1,
    )


COLOURS = {
    "#000000": "currentColor",
    "#0000ff": "var(--figure-one)",
    "#ff0000": "var(--figure-two)",
    "#808080": "var(--pst-color-text-muted)",
}


class TestsDirective(SphinxDirective):
    """``{tests}``."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        node = TestsOfPage(named=[line for line in self.content if line])
        self.set_source_info(node)
        return [node]


class TraceabilityDirective(SphinxDirective):
    """``{traceability}``."""

    def run(self) -> list[nodes.Node]:
        return [Traceability()]


class PromisesDirective(SphinxDirective):
    """``{promises}``."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for promise in self.env.promises:
            for path in (promise.path, *(test.path for test in promise.tests)):
                self.env.note_dependency(str(self.env.labels_root / path))
            text, _ = self.parse_inline(promise.text, lineno=self.lineno)
            page = nodes.inline("", promise.path)
            if promise.path.startswith("docs/"):  # the README is no page of these
                page = addnodes.pending_xref(
                    "",
                    page,
                    **{"refdomain": "std", "reftype": "doc", "refdoc": self.env.docname},
                    reftarget=promise.path.removeprefix("docs").removesuffix(".md"),
                    refexplicit=False,
                )
            # Each break is an element, and hundreds of rows make a page slow to check.
            tests = list_of(self.env.docname, promise.tests, "::")
            rows.append([paragraph(*text), paragraph(page), tests])
        found = table(["Promise", "Page", "Tests"], rows)
        found["classes"].append("promise-table")
        return [found]


class ReadingOrder(SphinxDirective):
    """``{reading-order} file ...``: how long each is, what it holds, which pages derive it."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        return [Reading(files=self.arguments[0].split())]


# ---- links and tables ----------------------------------------------------------------------------


def source_uri(docname: str, path: str, line: int) -> str:
    """Return the address, seen from a page, of a line of a source."""
    return "../" * docname.count("/") + f"source/{path}.html#L-{line}"


def link(docname: str, text: str, path: str, line: int) -> nodes.reference:
    uri = source_uri(docname, path, line)
    return nodes.reference("", "", nodes.literal("", text), refuri=uri, internal=True)


def place_of(docname: str, block: labels.Block) -> nodes.reference:
    text = f"{block.path}:{block.first}-{block.last}"
    return link(docname, text, block.path, block.first)


def list_of(
    docname: str, tests: Iterable[labels.Test], breaks: str = "[/_:]+"
) -> nodes.bullet_list:
    """Return links to tests; their names, which are long, may break behind `breaks`."""
    items = nodes.bullet_list(classes=["proofs"])
    for test in tests:
        reference = link(docname, "", test.path, test.line)
        for word in re.findall(rf".*?(?:{breaks}|$)", f"{test.path}::{test.name}"):
            reference[0] += [nodes.Text(word), nodes.raw("", "<wbr>", format="html")]
        items += nodes.list_item("", nodes.paragraph("", "", reference))
    return items


def folded(docname: str, tests: list[labels.Test]) -> Fold:
    """Return links to tests behind their number."""
    summary = f"{len(tests)} tests" if len(tests) != 1 else "1 test"
    return Fold("", list_of(docname, tests), summary=summary)


def equation_reference(builder: Any, docname: str, label: str) -> nodes.Node:
    """Return a reference to an equation: Eq. 3, or on another page Eq. 3 of the log density."""
    domain, contnode = builder.env.domains.math_domain, nodes.inline()
    reference = domain.resolve_xref(builder.env, docname, builder, "eq", label, None, contnode)
    return reference or nodes.Text("no equation")


def table(head: list[str], rows: list[list[nodes.Node]]) -> nodes.Node:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    texts = [[nodes.paragraph("", text) for text in head]]
    for kind, content in ((nodes.thead, texts), (nodes.tbody, rows)):
        part = kind()
        for cells in content:
            part += nodes.row("", *(nodes.entry("", cell) for cell in cells))
        group += part
    return Box("", nodes.table("", group), classes=["label-table"])


def paragraph(*children: nodes.Node) -> nodes.paragraph:
    return nodes.paragraph("", "", *children)


def fill_tables(app: Any, doctree: nodes.document, docname: str) -> None:
    """Replace the placeholders of the tables, when every page has been read."""
    for node in list(doctree.findall(TestsOfPage)):
        node.replace_self(tests_table(app, docname, node))
    for node in list(doctree.findall(Traceability)):
        node.replace_self(traceability_table(app, docname))
    for node in list(doctree.findall(Reading)):
        node.replace_self(reading_table(app, docname, node["files"]))


def tests_table(app: Any, docname: str, node: TestsOfPage) -> list[nodes.Node]:
    found, pages = app.env.labels, app.env.derivations
    here = sorted((line, label) for label, (page, line) in pages.items() if page == docname)
    single = [name for name in node["named"] if "::" in name]
    named = [name for name in node["named"] if "::" not in name]
    rows, shown = [], []
    for label in named or [label for _, label in here]:
        if label not in pages:
            logger.error("No page has the label [%s].", label, location=node)
            continue
        reference = paragraph(equation_reference(app.builder, docname, label))
        rows.append([reference, folded(docname, found.tests.get(label, []))])
    if rows:
        text = "Were one of these equations wrong in the code, these tests would fail:"
        shown = [nodes.paragraph("", text), table(["Equation", "Tests"], rows)]
    tests = [test for name in single if (test := single_test(app.env, name, node))]
    if tests:
        text = "These tests show what this page says:"
        shown += [nodes.paragraph("", text), list_of(docname, tests)]
    if not shown:
        logger.error("No test is named here, and the page has no label.", location=node)
    return shown


def single_test(env: Any, full_name: str, node: nodes.Node) -> labels.Test | None:
    """Return the test function with this name, ``tests/test_vae.py::test_sample``."""
    path, _, name = full_name.partition("::")
    file = env.labels_root / path
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        if line.startswith(f"def {name}("):
            return labels.Test(path, name, number, ())
    logger.error("There is no test %s.", full_name, location=node)
    return None


def traceability_table(app: Any, docname: str) -> nodes.Node:
    found = app.env.labels
    rows = [
        [
            paragraph(nodes.literal("", label)),
            paragraph(equation_reference(app.builder, docname, label)),
            paragraph(place_of(docname, block)),
            list_of(docname, found.tests.get(label, [])),
        ]
        for label, block in found.blocks.items()
    ]
    return table(["Label", "Equation", "Code", "Tests"], rows)


def reading_table(app: Any, docname: str, files: list[str]) -> nodes.Node:
    env, rows, total = app.env, [], 0
    for name in files:
        path = f"{app.config.derivations_package}/{name}.py"
        text = (env.labels_root / path).read_text(encoding="utf-8")
        lines = len(text.splitlines())
        total += lines
        shown = [label for label, block in env.labels.blocks.items() if block.path == path]
        derivations = paragraph()
        for page in dict.fromkeys(env.derivations[k][0] for k in shown if k in env.derivations):
            uri = app.builder.get_relative_uri(docname, page)
            title = short_title(env, page)
            derivations += [nodes.Text(", ")] * bool(derivations.children)
            derivations += nodes.reference("", title, refuri=uri, internal=True)
        summary = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        rows.append(
            [paragraph(link(docname, path, path, 1)), paragraph(nodes.Text(summary)), derivations]
            + [paragraph(nodes.Text(str(n))) for n in (lines, minutes(lines))]
        )
    last = ("together", "", "", str(total), str(minutes(total)))
    rows.append([paragraph(nodes.Text(text)) for text in last])
    return table(["File", "What it holds", "Derivations", "Lines", "Minutes"], rows)


def minutes(lines: int) -> int:
    return round(lines / LINES_A_MINUTE)


class Equations(MathDomain):
    """Sphinx's own, but a reference to an equation of another page says which page.

    A page's head says how it is called there, ``equations_of: the log density``. Equations are
    objects of the search: their labels are found.
    """

    def get_objects(self) -> Iterable[tuple[str, str, str, str, str, int]]:
        """Yield name, shown name, kind, page, anchor and priority (0 is the highest)."""
        for label, (docname, _) in self.equations.items():
            yield label, label, "equation", docname, anchor_of(label), 0

    def resolve_xref(
        self, env: Any, fromdocname: str, builder: Any, typ: str, target: str, *rest: Any
    ) -> nodes.reference | None:
        reference = super().resolve_xref(env, fromdocname, builder, typ, target, *rest)
        docname, _ = self.equations.get(target, (fromdocname, 0))
        if reference is not None and docname != fromdocname:
            name = env.metadata[docname].get("equations_of") or short_title(env, docname)
            text = f"{reference.astext()} of {name}"
            reference.children[:] = [nodes.Text(text)]
            reference["equations_of"] = name
        return reference


def name_once(app: Any, doctree: nodes.document, docname: str) -> None:
    """Make of "Eq. 3 of the ELBO and Eq. 4 of the ELBO" "Eq. 3 and Eq. 4 of the ELBO"."""
    for reference in doctree.findall(nodes.reference):
        between = reference.next_node(descend=False, siblings=True)
        after = between and between.next_node(descend=False, siblings=True)
        name = reference.get("equations_of")
        joined = isinstance(between, nodes.Text) and between.strip() in {"and", ","}
        if joined and isinstance(after, nodes.reference) and after.get("equations_of") == name:
            text = reference.astext().removesuffix(f" of {name}")
            reference.children[:] = [nodes.Text(text)]


def short_title(env: Any, docname: str) -> str:
    """Return what a toctree calls a page, or else its own title."""
    for contents in env.tocs.values():
        for tree in contents.findall(addnodes.toctree):
            for title, page in tree["entries"]:
                if page == docname and title:
                    return title
    return env.titles[docname].astext()


# ---- from a label to its equation ----------------------------------------------------------------

# In a listing, as Pygments writes it: a comment that is a label, or a string in a mark of a test.
IN_LISTING = re.compile(
    r'(?P<before><span class="c1"># \[|<span class="s2">")(?P<label>[\w-]+)(?P<after>\]|"</span>)'
)


def anchor_of(label: str) -> str:
    return nodes.make_id(f"equation-{label}")


def link_labels(app: Any, pagename: str, template: str, context: Any, doctree: Any) -> None:
    """Make every label in the listings of a page a link to its equation."""

    def linked(line: str) -> str:
        marked = "# [" in line or "proves" in line
        return IN_LISTING.sub(link_to_equation, line) if marked else line

    def link_to_equation(match: re.Match[str]) -> str:
        before, label, after = match["before"], match["label"], match["after"]
        if label not in app.env.derivations:
            return match[0]
        page, _ = app.env.derivations[label]
        uri = app.builder.get_relative_uri(pagename, page) if page != pagename else ""
        return f'{before}<a href="{uri}#{anchor_of(label)}">{label}</a>{after}'

    if "body" in context:
        context["body"] = "\n".join(map(linked, context["body"].split("\n")))


def name_equations(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Add to a docstring of the API which equations its code implements."""

    def documented_at(block: labels.Block) -> str:
        """Return the name of the function, or of what is around it where that is private."""
        public = re.sub(r"\.?\b_.*", "", block.owner)
        return f"{block.module}.{public}".rstrip(".")

    if app.config.derivations_incomplete:
        return  # the page of the equation may still have to be written
    blocks = app.env.labels.blocks
    if mine := [label for label, block in blocks.items() if documented_at(block) == name]:
        lines += ["", "Implements " + ", ".join(f":eq:`{label}`" for label in mine) + "."]


def break_title(app: Any, pagename: str, template: str, context: Any, doctree: Any) -> None:
    """Let a title such as scratchvae.gaussian break behind a dot, so that no word does."""
    if pagename.startswith("api/") and "body" in context:
        context["body"] = re.sub(
            r"<h1>[\w.]+", lambda h1: h1[0].replace(".", ".<wbr>"), context["body"], count=1
        )


def contents_beside(app: Any, pagename: str, template: str, context: Any, doctree: Any) -> None:
    """Put the contents of a derivation, the page before and the page after at its side."""
    if not pagename.startswith("derivations/") or "</h1>" not in context.get("body", ""):
        return
    around = "".join(
        f'<p>{word}: <a href="{context[way]["link"]}">{context[way]["title"]}</a></p>'
        for word, way in (("Before", "prev"), ("Next", "next"))
        if context.get(way)
    )
    nav = f'<nav class="beside" aria-label="This page">{context["toc"]}{around}</nav>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{nav}", 1)


# ---- the events ----------------------------------------------------------------------------------


def read_labels(app: Any) -> None:
    config = app.config
    root = Path(app.confdir, config.derivations_root).resolve()
    app.env.labels_root = root
    found = labels.read(root, config.derivations_package, config.derivations_tests)
    app.env.labels = found
    app.env.promises = list(promises.read(root, found.problems, config.derivations_tests))
    if not hasattr(app.env, "derivations"):
        app.env.derivations = {}  # label -> (page, line)
    if config.derivations_incomplete:  # toctrees name pages that are still to be written
        config.suppress_warnings = [*config.suppress_warnings, "toc"]


def forget_page(app: Any, env: Any, docname: str) -> None:
    for label in [label for label, (page, _) in env.derivations.items() if page == docname]:
        del env.derivations[label]


def check_labels(app: Any, env: Any) -> None:
    """Say what the sources and the notes of promises lack, and which labels no page shows."""
    for where, sentence in env.labels.problems:
        logger.error("%s", sentence, location=where)
    if not app.config.derivations_incomplete:
        for label, block in env.labels.blocks.items():
            if label not in env.derivations:
                message = "No page shows [%s]: none has a {derivation} %s."
                logger.error(message, label, label, location=f"{block.path}:{block.first}")


def resolve_owner(app: Any, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """Find what is known under the package's name too; leave owners without a page unlinked."""
    package, _, name = node.get("reftarget", "").partition(".")
    if package == app.config.derivations_package and name in env.public_names:
        domain, target = env.domains.python_domain, f"{env.public_names[name]}.{name}"
        if target in domain.objects:
            entry = domain.objects[target]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, target
            )
    return contnode if node.get("derivation") else None


def read_public_names(app: Any) -> None:
    """Note from which module ``__init__.py`` takes each name."""
    package = app.config.derivations_package
    text = (app.env.labels_root / package / "__init__.py").read_text(encoding="utf-8")
    app.env.public_names = {
        alias.asname or alias.name: f"{package}.{node.module}"
        for node in ast.walk(ast.parse(text))  # those that are imported on first use included
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        for alias in node.names
    }


class Sources:
    """The pages of all sources of the package and of the tests.

    A second process colours them while the other pages are read.
    """

    def start(self, app: Any) -> None:
        config, self.pool = app.config, ProcessPoolExecutor(1)
        self.coloured = [
            (path, self.pool.submit(coloured, text))
            for folder in (config.derivations_package, config.derivations_tests)
            for path, text in labels.sources(app.env.labels_root, folder)
        ]

    def pages(self, app: Any) -> Iterable[tuple[str, dict[str, Any], str]]:
        for path, code in self.coloured:
            head = re.sub(r"([/_])", r"\1<wbr>", path)
            body = f"<h1>{head}</h1>\n{code.result()}"
            yield f"source/{path}", {"title": path, "body": body, "parents": []}, "page.html"

    def finish(self, app: Any, exception: Exception | None) -> None:
        self.pool.shutdown(cancel_futures=True)


def coloured(text: str) -> str:
    formatter = HtmlFormatter(linenos="inline", linespans="L", wrapcode=True)
    return highlight(text, PythonLexer(), formatter)


def visit_box(translator: Any, node: Box) -> None:
    translator.body.append(translator.starttag(node, "div"))


def depart_box(translator: Any, node: Box) -> None:
    translator.body.append("</div>\n")


def visit_drawing(translator: Any, node: Drawing) -> None:
    translator.body.append(
        f'<figure class="drawn"><div>{"".join(node["panels"])}</div><figcaption>'
    )


def depart_drawing(translator: Any, node: Drawing) -> None:
    translator.body.append("</figcaption></figure>\n")


def visit_fold(translator: Any, node: Fold) -> None:
    translator.body.append(f'<details class="fold"><summary>{node["summary"]}</summary>')


def depart_fold(translator: Any, node: Fold) -> None:
    translator.body.append("</details>\n")


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("derivations_root", "..", "env")  # of the project, from conf.py
    app.add_config_value("derivations_package", "scratchvae", "env")
    app.add_config_value("derivations_tests", "tests", "env")
    app.add_config_value("derivations_incomplete", False, "env")  # pages are still missing
    app.add_node(Box, html=(visit_box, depart_box))
    app.add_node(Fold, html=(visit_fold, depart_fold))
    app.add_directive("derivation", Derivation)
    app.add_node(Drawing, html=(visit_drawing, depart_drawing))
    app.add_directive("step", Step)
    app.add_directive("drawn", Drawn)
    app.add_directive("tests", TestsDirective)
    app.add_directive("traceability", TraceabilityDirective)
    app.add_directive("promises", PromisesDirective)
    app.add_directive("reading-order", ReadingOrder)
    app.add_domain(Equations, override=True)
    app.connect("builder-inited", read_labels)
    app.connect("builder-inited", read_public_names)
    app.connect("env-purge-doc", forget_page)
    app.connect("env-check-consistency", check_labels)
    app.connect("missing-reference", resolve_owner)
    app.connect("doctree-resolved", name_once)
    app.connect("doctree-resolved", fill_tables)
    app.connect("autodoc-process-docstring", name_equations, priority=900)  # behind numpydoc
    app.connect("html-page-context", link_labels)
    app.connect("html-page-context", contents_beside)
    app.connect("html-page-context", break_title)
    sources = Sources()
    app.connect("builder-inited", sources.start)
    app.connect("html-collect-pages", sources.pages)
    app.connect("build-finished", sources.finish)
    return {"parallel_read_safe": False, "parallel_write_safe": True, "env_version": 2}
