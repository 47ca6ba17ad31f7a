"""How the documentation is built: `make docs` writes docs/_build/html/index.html."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from docstrings import linkcode_resolve  # noqa: F401  (sphinx.ext.linkcode asks for it)

import scratchvae

project = "scratchvae"
author = "The scratchvae authors"
copyright = author
version = release = scratchvae.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "numpydoc",
    # Our own, in _ext/. No intersphinx: the build needs no network.
    "derivations",
    "katex",
    "tables",
    "doctests",
    "docstrings",
    "excerpts",
]
# Those which train models: for answer.md, and for the gallery, which runs demos/*.py. The small
# sites of the tests do without.
extensions += [n for n in ("answer", "gallery") if (HERE / "_ext" / f"{n}.py").exists()]

source_suffix = {".md": "markdown"}
# The table of mutants is for readers of the repository: its code columns are too wide for a phone.
exclude_patterns = ["_build", "_ext", "node_modules", "mutants.md", "benchmark/table.md"]
exclude_patterns += [f"benchmark/{name}.md" for name in ("gpu", "gradcheck-rates", "published")]
nitpicky = True
nitpick_ignore = [
    ("py:class", "matplotlib.figure.Figure"),  # another project's, and there is no intersphinx
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
math_eqref_format = "Eq.\N{NO-BREAK SPACE}{number}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes, which say more than Array
autodoc_use_type_comments = False  # there are none, and to look for them takes time
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
default_role = "code"  # `name` in a docstring
highlight_language = "none"  # indented parts of docstrings are formulas and pictures, not Python

html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme = "pydata_sphinx_theme"
html_title = "scratchvae"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["scratchvae.css"]
html_copy_source = False
html_show_sourcelink = False
one_column = ("index", "traceability", "tested", "derivations/*", "source/**")
with_contents = ("answer", "glossary", "reading", "guide/*", "api/*")
html_sidebars = {page: [] for page in (*one_column, "answer", "glossary", "reading")}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    # The theme's search field shows "Ctrl K" and is called "Search": screen readers trip over it.
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": {
        **{page: [] for page in (*one_column, "gallery/*")},
        **{page: ["page-toc"] for page in with_contents},
    },
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
