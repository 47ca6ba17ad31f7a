"""Every demo is a notebook, too: it runs in a kernel of Jupyter and shows its figures there."""

import ast
import json
import os
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
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    model, data, trainer, terms, figure = (
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
