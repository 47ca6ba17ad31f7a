"""Demos and pages of the guide are notebooks, too, and run in a kernel of Jupyter."""

import ast
import doctest
import json
import os
import re
import sys
from pathlib import Path

import pytest

from scratchvae import demo_tools

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = list(demo_tools.entries())
EACH = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


@pytest.fixture
def made(entry, monkeypatch):
    """The text of the demo's notebook, as its page offers it."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import cells

    source = entry.path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    return cells.notebook(entry.title, entry.claim, docstring, source)


@EACH
def test_a_notebook_holds_all_of_the_demos_code_and_text(entry, made):
    book = json.loads(made)
    first, *rest = book["cells"]
    assert first["source"].startswith(f"# {entry.title}\n")
    assert "**Claim:** " in first["source"]
    assert [cell["cell_type"] for cell in rest] == ["markdown", "code"] * (len(rest) // 2)
    assert all(cell["source"].strip() for cell in rest)
    in_cells = "\n".join(cell["source"] for cell in rest[1::2])
    docstring, *statements = ast.parse(entry.path.read_text(encoding="utf-8")).body
    assert isinstance(docstring.value, ast.Constant)
    assert [ast.unparse(s) for s in ast.parse(in_cells).body] == list(map(ast.unparse, statements))
    assert "__file__" not in in_cells
    assert "sys.argv" not in in_cells


@pytest.mark.slow
@EACH
def test_a_notebook_runs_in_a_kernel_with_its_figures_inline(entry, made, tmp_path, monkeypatch):
    """As it is downloaded, but for `--quick`: without a script, with the kernel's own sys.argv."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))  # in its kernel
    book = nbformat.reads(made, as_version=4)
    nbformat.validate(book)
    call = f'demo_tools.start("{entry.name}")'
    cell = next(cell for cell in book.cells if call in cell.source)
    cell.source = cell.source.replace(call, f'{call[:-1]}, ["--quick", "--device", "cpu"])')
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # CellExecutionError, with its traceback, if a cell raises
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    printed = "".join(o.text for o in outputs if o.get("name") == "stdout")
    assert "Holds: " in printed
    shown = [o.data for o in outputs if o.output_type == "display_data"]
    pictures = [data for data in shown if "image/png" in data or "image/gif" in data]
    written = list((tmp_path / "runs" / "demos").iterdir())
    assert len(pictures) == len(written) == printed.count("Wrote ") > 0


GUIDE = [p for p in sorted((ROOT / "docs/guide").glob("*.md")) if "```{doctest}" in p.read_text()]
EACH_PAGE = pytest.mark.parametrize("path", GUIDE, ids=[p.stem for p in GUIDE])


@pytest.fixture
def book_of_page(path, monkeypatch):
    """The notebook that a page of the guide offers, and the page's examples."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import cells

    page = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```{doctest}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("{doctest}")
    return cells.notebook_of_page(page), doctest.DocTestParser().get_examples("".join(blocks))


@EACH_PAGE
def test_a_page_of_the_guide_is_a_notebook_with_its_examples(book_of_page):
    text, examples = book_of_page
    cells = json.loads(text)["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    assert "\n".join(code) + "\n" == "".join(example.source for example in examples)
    words = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert words.startswith("# ")
    assert "% tested" not in words
    assert "{doctest}" not in words
    assert ".md)" not in words  # a link to what is not there


@pytest.mark.slow
@EACH_PAGE
def test_a_page_of_the_guide_runs_in_a_kernel_and_shows_what_the_page_says(
    book_of_page, tmp_path, monkeypatch
):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    text, examples = book_of_page
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    # A notebook breaks long values into lines where Python does not.
    how = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    left = iter([example for example in examples if example.want])
    for cell in [cell for cell in book.cells if cell.cell_type == "code"]:
        got = "".join(said(output) for output in cell.outputs) + "\n"
        wanted = next(left).want.replace("scratchvae.errors.", "") if got.strip() else ""
        assert doctest.OutputChecker().check_output(wanted, got, how), (cell.source, got)
    assert not list(left)


def said(output):
    """Return what Python would have printed for an output of a cell."""
    if output.output_type == "error":
        return f"Traceback (most recent call last):\n{output.ename}: {output.evalue}"
    return output.get("text") or output.data["text/plain"]


@pytest.mark.slow
def test_results_show_themselves_in_a_notebook(tmp_path, monkeypatch):
    """Without pyplot and without a magic line; a bar moves although no terminal is there."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    sources = [
        "import scratchvae as sv\nmodel = sv.VAE(64, hidden=(8,), latent_dim=2)\nmodel",
        'data = sv.datasets.load("digits")\ndata',
        "trainer = sv.Trainer(model, sv.Adam(model.params), data)\n"
        "trainer.run(2, progress=True)\ntrainer",
        "trainer.test_terms()",
        "sv.plots.training_curves(trainer.metrics)",
        "import numpy as np\n"
        "sv.gradcheck.check(lambda x: (3 * x, 0), lambda dy, _: 3 * dy, [np.ones(4)], name='<f>')",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    model, data, trainer, terms, figure, report = (
        next(o.data for o in cell.outputs if o.output_type == "execute_result") for cell in cells
    )
    assert "<td>encoder.0</td><td>Linear(64, 8)</td>" in model["text/html"]
    assert "<td>1,500</td>" in data["text/html"]
    assert trainer["text/html"].count("<tr>") == 1 + 2  # the head, and a row for each epoch
    bar = "".join(str(o.get("text", o.get("data", ""))) for o in cells[2].outputs)
    assert "24/24" in bar
    assert "test loss" in bar
    assert terms["text/plain"].startswith("Terms(loss=")
    assert "image/png" in figure
    assert report["text/html"].startswith("<pre>&lt;f&gt;: backward agrees with 4 slopes of the")
