"""The gallery: every demo is run when the pages are built, and becomes a page.

A page says what a demo shows and why, and then holds its figures, the numbers that it printed, and
its text and code cell by cell, all read from the script and from its run in full mode. A demo that
raises, whose claim does not hold, or that does not end, is an error of the build. Runs are kept
beside the build's output until the demo, the package or the data change. With ``-D gallery_run=0``
no demo is run, and pages have neither figures nor numbers.

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

import numpy as np
from cells import cells, escape, notebook, prose
from keep import PACKAGE, kept
from PIL import Image
from sphinx.util.logging import getLogger

from scratchvae.demo_tools import Entry, entries

logger = getLogger(__name__)

HEAD = """\
# Demos

Each demo makes one claim, draws the figure that shows it and prints the numbers that prove it. If
the claim does not hold on the data, the demo fails. These pages show what the demos computed when
the pages were built, with the embedded digits. Run one yourself with `scratchvae demo NAME`: in
less time with `--quick`, on MNIST with `--data mnist`, on a GPU with `--device cuda`. Or take it as
a notebook, which each page offers.
"""
NOT_RUN = "This page was built without its demo being run: figures and numbers are missing.\n"


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
        for k, (entry, future) in enumerate(futures.items(), start=1):
            # Sphinx is quiet but for what is wrong, and this takes minutes.
            print(f"Demo {k} of {len(futures)}: {entry.name}", file=sys.stderr, flush=True)
            future.exception()  # wait for it
    for entry, future in futures.items():
        try:
            yield entry, future.result()
        except RuntimeError as error:
            where = f"{entry.path}:1"
            logger.error("The demo %s %s", entry.name, error, location=where, type="gallery")


# ---- pictures ------------------------------------------------------------------------------------

THUMBNAIL = (720, 480)  # pixels, at most: twice the size in which it is seen
GAP = 20  # white pixels, which part the panels of a figure
HIGH = 800  # pixels, more than one row of panels has


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
            f"</picture>\n</a>\n<figcaption>{escape_html(self.alt)}.</figcaption>\n</figure>\n"
        )

    def in_index(self) -> str:
        """Return the HTML of its thumbnail, beside which stands what the demo claims."""
        return f'<img src="figures/{self.thumbnail}" alt="">'

    def _img(self, name: str, size: tuple[int, ...]) -> str:
        text = escape_html(self.alt)
        return f'<img src="figures/{name}" alt="{text}" width="{size[0]}" height="{size[1]}">'


def end_of_first(ink: Any, least: float, most: float) -> int:
    """Return where the first gap between `least` and `most` lies in ink (n,), n if none does."""
    starts = np.flatnonzero(np.convolve(~ink, np.ones(GAP), "valid") == GAP)
    starts = starts[(starts >= least) & (starts <= most)]
    return int(starts[0]) + GAP // 2 if len(starts) else len(ink)


def first_panel(image: Image.Image) -> Image.Image:
    """Return the upper row of a high figure, and of a wide one the left part: small, it is read."""
    ink = np.asarray(image.convert("L")) < 250  # (H, W)
    wide, high = image.size
    if high > HIGH:
        high = end_of_first(ink.any(axis=1), high / 3, 2 * high / 3)
    if wide > 1.9 * high:
        wide = end_of_first(ink[:high].any(axis=0), 0.9 * high, 1.9 * high)
    return image.crop((0, 0, wide, high))


def publish(folder: Path, site: Path) -> list[Picture]:
    """Copy the figures of a run to `site`, with what the pages show of them; return them."""
    pictures = []
    for name, alt in json.loads((folder / "figures.json").read_text(encoding="utf-8")):
        shutil.copyfile(folder / name, site / name)
        with Image.open(folder / name) as image:
            picture = Picture(name, alt, image.size, getattr(image, "is_animated", False))
            image.seek(getattr(image, "n_frames", 1) - 1)
            last = image.convert("RGB")
        if picture.moves:
            last.save(site / picture.still)
        last = first_panel(last)
        last.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
        last.quantize(128, Image.Quantize.MAXCOVERAGE).save(site / picture.thumbnail, optimize=True)
        pictures.append(picture)
    return pictures


# ---- pages ---------------------------------------------------------------------------------------


def fence(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def numbers(printed: str) -> str:
    """Return what a demo printed as Markdown: its tables as they are, other lines one by one."""
    lines = printed.strip().splitlines()
    return "\n".join(line if not line or line[0] == "|" else f"{escape(line)}\n" for line in lines)


def page(entry: Entry, folder: Path | None, pictures: list[Picture], source: str, doc: str) -> str:
    parts = [f"# {escape(entry.title)}\n", escape(prose(doc)), ""]
    parts += [f"**Claim:** {escape(entry.claim)}\n", *(p.in_page() for p in pictures)]
    if folder is None:
        parts.append(NOT_RUN)
    else:
        printed = (folder / "output.txt").read_text(encoding="utf-8").partition("\n\n")[2]
        parts += [f"## The numbers\n\n{numbers(printed)}\n"]
        parts += [f"It takes, on two cores, {entry.seconds}.\n"]
    parts += [
        "## The code\n",
        f"Run it with `scratchvae demo {entry.name}`, or cell by cell in Jupyter:",
        f'<a href="{entry.name}.ipynb" download>download the notebook</a>.\n',
    ]
    for text, code in cells(source):
        parts += [escape(text) + "\n", fence("python", code)]
    return "\n".join(parts)


def card(entry: Entry, pictures: list[Picture]) -> str:
    # A claim may begin with a symbol: z is the code, Z the number of its dimensions.
    symbol = entry.claim[1:2] == " "
    claim = escape_html(entry.claim if symbol else entry.claim[:1].upper() + entry.claim[1:])
    image = pictures[0].in_index() if pictures else ""
    return (
        f'<a class="demo-card" href="{entry.name}.html">{image}\n'
        f"<strong>{escape_html(entry.title)}</strong>\n<span>{claim}</span></a>\n"
    )


def index(demos: list[tuple[Entry, list[Picture]]]) -> str:
    cards = "".join(card(entry, pictures) for entry, pictures in demos)
    names = "\n".join(entry.name for entry, _ in demos)
    toctree = fence("{toctree}", f":hidden:\n\n{names}")
    return f'{HEAD}\n<div class="demo-cards">\n{cards}</div>\n\n{toctree}'


GALLERY = Path(__file__).parents[1] / "gallery"


def write_pages(app: Any) -> None:
    shutil.rmtree(GALLERY, ignore_errors=True)
    GALLERY.mkdir()
    demos = []
    runs = Path(app.outdir).parent / "demos"
    site = Path(app.outdir) / "gallery"
    (site / "figures").mkdir(parents=True, exist_ok=True)
    run_them = app.config.gallery_run
    found = run_all(runs, app.config.gallery_limit) if run_them else ((e, None) for e in entries())
    for entry, folder in found:
        pictures = publish(folder, site / "figures") if folder else []
        source = entry.path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        text = page(entry, folder, pictures, source, docstring)
        (GALLERY / f"{entry.name}.md").write_text(text, encoding="utf-8")
        book = notebook(entry.title, entry.claim, docstring, source)
        (site / f"{entry.name}.ipynb").write_text(book, encoding="utf-8")
        demos.append((entry, pictures))
    (GALLERY / "index.md").write_text(index(demos), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("gallery_limit", LIMIT, "")
    app.add_config_value("gallery_run", True, "")
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
