"""The gallery: every demo is run when the pages are built, and becomes a page.

A page holds the demo's claim, its figures, what it printed, and its text and code cell by cell, all
read from the script and from its run in full mode. A demo that raises, whose claim does not hold,
or that does not end, is an error of the build. Runs are kept beside the build's output until the
demo, the package or the data change.

The pages are written to gallery/, where Sphinx reads them like any other; git ignores them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape as escape_html
from pathlib import Path
from typing import Any, NamedTuple

from cells import cells, escape, notebook, prose
from keep import PACKAGE, kept
from PIL import Image
from sphinx.util.display import status_iterator
from sphinx.util.logging import getLogger

from scratchvae.demo_tools import Entry, entries

logger = getLogger(__name__)

HEAD = """\
# Demos

Each demo is a script with one claim, the figure that shows it and the numbers that prove it; it
ends with an exit code other than 0 if the claim does not hold on the data. What these pages show
was computed when they were built, with the embedded digits. `scratchvae demo` lists them,
`scratchvae demo NAME` runs one, with `--quick` in less time, with `--data mnist` on MNIST and with
`--device cuda` on a GPU.
"""


# ---- running -------------------------------------------------------------------------------------


LIMIT = 1200  # seconds; the longest demo takes one minute on two cores


def run(entry: Entry, runs: Path, limit: int) -> Path:
    """Return the folder with the figures and the output of a demo, run now if it is not there."""
    # As many demos as cores run at a time, so each of them takes one.
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]),
    }

    def make(out: Path) -> None:
        command = [sys.executable, str(entry.path), "--device", "cpu", "--out", str(out)]
        options: Any = {"capture_output": True, "encoding": "utf-8", "env": environment}
        try:
            done = subprocess.run(command, timeout=limit, **options)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"did not end within {limit} seconds") from None
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            raise RuntimeError(f"ended with exit code {done.returncode}:\n{last}")
        out.mkdir(exist_ok=True)
        wrote = re.findall(r"^Wrote (.+?): (.+)\n", done.stdout, flags=re.MULTILINE)
        shown = [(Path(path).name, alt) for path, alt in wrote]
        if unsaid := {path.name for path in out.iterdir()} - {name for name, _ in shown}:
            raise RuntimeError(f"does not say what {', '.join(sorted(unsaid))} shows")
        printed = re.sub(r"^Wrote .*\n", "", done.stdout, flags=re.MULTILINE)
        (out / "output.txt").write_text(printed, encoding="utf-8")
        (out / "figures.json").write_text(json.dumps(shown), encoding="utf-8")

    folder = kept(runs, entry.name, entry.path.read_bytes(), make)
    for old in runs.glob(f"{entry.name}-{'[0-9a-f]' * 16}"):
        if old != folder:
            shutil.rmtree(old)
    return folder


def run_all(runs: Path, limit: int) -> Iterator[tuple[Entry, Path]]:
    """Yield each demo that holds, with its folder; report the others as errors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {entry: pool.submit(run, entry, runs, limit) for entry in entries()}
        for entry in status_iterator(
            futures, "running demos... ", length=len(futures), stringify_func=lambda e: e.name
        ):
            futures[entry].exception()  # wait for it
    for entry, future in futures.items():
        try:
            yield entry, future.result()
        except RuntimeError as error:
            where = f"{entry.path}:1"
            logger.error("The demo %s %s", entry.name, error, location=where, type="gallery")


# ---- pictures ------------------------------------------------------------------------------------

THUMBNAIL = (640, 400)  # pixels, at most: twice the size in which it is seen


class Picture(NamedTuple):
    """A figure among the pages; its names are those of files in gallery/figures/."""

    name: str
    alt: str
    size: tuple[int, int]  # pixels
    moves: bool

    @property
    def still(self) -> str:
        """The last image of an animation, in which it has shown all that it shows."""
        return str(Path(self.name).with_suffix(".still.png"))

    @property
    def thumbnail(self) -> str:
        return str(Path(self.name).with_suffix(".thumbnail.png"))

    def in_page(self) -> str:
        """Return its HTML: as wide as the page, a link to the file itself, still if so wished."""
        reduced = "(prefers-reduced-motion: reduce)"
        source = f'<source media="{reduced}" srcset="figures/{self.still}">\n'
        return (
            f'<figure class="demo-figure">\n<a href="figures/{self.name}" title="Full size">\n'
            f"<picture>\n{source if self.moves else ''}{self._img(self.name, self.size)}\n"
            "</picture>\n</a>\n</figure>\n"
        )

    def in_index(self, page: str) -> str:
        """Return its HTML: small, and a link to the page."""
        scale = min(1, THUMBNAIL[0] / self.size[0], THUMBNAIL[1] / self.size[1])
        image = self._img(self.thumbnail, tuple(round(scale * side) for side in self.size))
        return f'<figure class="demo-thumbnail">\n<a href="{page}">\n{image}\n</a>\n</figure>\n'

    def _img(self, name: str, size: tuple[int, ...]) -> str:
        text = escape_html(self.alt)
        return f'<img src="figures/{name}" alt="{text}" width="{size[0]}" height="{size[1]}">'


def publish(folder: Path, site: Path) -> list[Picture]:
    """Copy the figures of a run to `site`, with what the pages show of them; return them."""
    site.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, alt in json.loads((folder / "figures.json").read_text(encoding="utf-8")):
        shutil.copyfile(folder / name, site / name)
        with Image.open(folder / name) as image:
            picture = Picture(name, alt, image.size, getattr(image, "is_animated", False))
            image.seek(getattr(image, "n_frames", 1) - 1)
            last = image.convert("RGB")
        if picture.moves:
            last.save(site / picture.still)
        last.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
        last.quantize(128, Image.Quantize.MAXCOVERAGE).save(site / picture.thumbnail, optimize=True)
        pictures.append(picture)
    return pictures


# ---- pages ---------------------------------------------------------------------------------------


def fence(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def page(entry: Entry, folder: Path, pictures: list[Picture], source: str, docstring: str) -> str:
    parts = [f"# {escape(entry.title)}\n", f"**Claim:** {escape(entry.claim)}\n"]
    parts += [picture.in_page() for picture in pictures]
    printed = (folder / "output.txt").read_text(encoding="utf-8").partition("\n\n")[2]
    parts += [
        f"It ran in full mode and printed (times on two cores: {entry.seconds}):\n",
        fence("text", printed.strip()),
        f"Run it with `scratchvae demo {entry.name}`, or cell by cell in Jupyter:\n",
        f'<a href="{entry.name}.ipynb" download>Download the notebook</a>\n',
        "## The script\n",
        escape(prose(docstring)) + "\n",
    ]
    for text, code in cells(source):
        parts += [escape(text) + "\n", fence("python", code)]
    return "\n".join(parts)


def index(demos: list[tuple[Entry, list[Picture]]]) -> str:
    parts = [HEAD]
    for entry, pictures in demos:
        thumbnail = pictures[0].in_index(f"{entry.name}.html") if pictures else ""
        # A claim may begin with a symbol: z is the code, Z the number of its dimensions.
        symbol = entry.claim[1:2] == " "
        claim = escape(entry.claim if symbol else entry.claim[:1].upper() + entry.claim[1:])
        parts.append(
            f"## {escape(entry.title)}\n\n{thumbnail}\n{claim}\n"
            f"[The demo {entry.name}]({entry.name}.md), {entry.seconds}.\n"
        )
    names = "\n".join(entry.name for entry, _ in demos)
    parts.append(fence("{toctree}", f":hidden:\n\n{names}"))
    return "\n".join(parts)


GALLERY = Path(__file__).parents[1] / "gallery"


def write_pages(app: Any) -> None:
    shutil.rmtree(GALLERY, ignore_errors=True)
    GALLERY.mkdir()
    demos = []
    runs = Path(app.outdir).parent / "demos"
    for entry, folder in run_all(runs, app.config.gallery_limit):
        pictures = publish(folder, Path(app.outdir) / "gallery" / "figures")
        source = entry.path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        text = page(entry, folder, pictures, source, docstring)
        (GALLERY / f"{entry.name}.md").write_text(text, encoding="utf-8")
        book = notebook(entry.title, entry.claim, docstring, source)
        Path(app.outdir, "gallery", f"{entry.name}.ipynb").write_text(book, encoding="utf-8")
        demos.append((entry, pictures))
    (GALLERY / "index.md").write_text(index(demos), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("gallery_limit", LIMIT, "")
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
