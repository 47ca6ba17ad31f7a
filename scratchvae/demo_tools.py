"""What the demos share: their options, their data and models, and claims that must hold.

A demo is a script that begins with a docstring (title, claim, times) and ``demo_tools.start``. It
prints the numbers that support its claim, draws the figure that shows it, and ends with an exit
code other than 0 if the claim does not hold on the data.
"""

from __future__ import annotations

import argparse
import ast
import os
import runpy
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from . import datasets, notebook, plots
from .backend import Backend, asnumpy, backend_of, get_backend, keep_freed_memory
from .checkpoint import write_atomically
from .errors import InputError
from .optimizers import Adam
from .training import Trainer
from .vae import VAE, Autoencoder, Terms

BATCH = 128  # examples in a step, unless a demo says otherwise
T = TypeVar("T")


class Entry(NamedTuple):
    """What the docstring of a demo says about it."""

    name: str
    path: Path
    title: str
    claim: str
    seconds: str  # "quick, full"


def folder() -> Path:
    """Return the folder of the demos: in the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    installed = here / "demos"
    return installed if installed.is_dir() else here.parent / "demos"


def entries() -> Iterator[Entry]:
    """Yield the demos in their order; the docstrings are read, and nothing is run."""
    yield from map(_entry, sorted(folder().glob("[0-9][0-9]_*.py")))


def _entry(path: Path) -> Entry:
    """Parse a docstring: the title, a paragraph "Claim: ..." and one "Time: ..."."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraphs = [" ".join(p.split()) for p in doc.split("\n\n")]
    found = {k: p.removeprefix(k) for p in paragraphs for k in ("Claim: ", "Time: ") if k in p[:7]}
    if len(found) != 2:
        raise InputError(f"{path}: its docstring needs a paragraph 'Claim: ' and one 'Time: '")
    title = doc.splitlines()[0].rstrip(".")
    return Entry(path.stem[3:], path, title, found["Claim: "], found["Time: "])


def run(name: str, options: list[str]) -> None:
    """Run the demo of that name; InputError if there is none, SystemExit if its claim fails."""
    path, before = str(_find(name).path), sys.argv
    sys.argv = [path, *options]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before


def _find(name: str) -> Entry:
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise InputError(f"there is no demo {name!r}: expected one of {', '.join(known)}")
    return known[name]


def _command_line() -> list[str]:
    """Return what follows the script's name; in a cell, nothing: sys.argv is that of the kernel."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    is_script = script is not None and os.path.abspath(script) == os.path.abspath(sys.argv[0])
    return sys.argv[1:] if is_script else []


@dataclass
class Demo:
    """A running demo.

    Attributes
    ----------
    quick : bool
        Whether to spend less time: fewer epochs, fewer draws.
    backend : Backend
    dataset : Dataset
    x, x_test : (N, D) and (M, D)
        Its examples as float32 in [0, 1], on the backend.
    labels, labels_test : (N,) and (M,)
        NumPy arrays.
    out : Path
        Where figures go.
    figures : list of Path
        Those written so far.
    """

    name: str
    quick: bool
    backend: Backend
    dataset: datasets.Dataset
    out: Path
    figures: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        data, as_float = self.dataset, datasets.to_float
        dtype = np.dtype(np.float32)
        self.x = self.backend.asarray(as_float(data.train, data.scale, dtype))
        self.x_test = self.backend.asarray(as_float(data.test, data.scale, dtype))
        self.labels = np.asarray(data.train_labels)
        self.labels_test = np.asarray(data.test_labels)

    def vae(self, hidden: tuple[int, ...] = (400,), latent_dim: int = 2, **options: Any) -> VAE:
        """Return a new VAE for the data, on the demo's device, with seed 0 unless given."""
        options = {"rng": 0, "backend": self.backend, **options}
        return VAE(self.dataset.data_dim, hidden, latent_dim, **options)

    def autoencoder(
        self, hidden: tuple[int, ...] = (400,), latent_dim: int = 2, **options: Any
    ) -> Autoencoder:
        """Return a new plain autoencoder in the same way."""
        options = {"rng": 0, "backend": self.backend, **options}
        return Autoencoder(self.dataset.data_dim, hidden, latent_dim, **options)

    def epochs(self, steps: int) -> int:
        """Return the number of epochs with that many steps or just over, of 128 examples each."""
        return -(-steps * BATCH // len(self.x))

    def train(
        self,
        model: Any,
        epochs: int,
        *,
        label: str = "",
        lr: float = 1e-3,
        batch_size: int = BATCH,
        on_step: Callable[[Terms], None] = lambda terms: None,
        on_epoch: Callable[[dict[str, float]], None] = lambda metrics: None,
        **options: Any,
    ) -> Trainer:
        """Train with Adam, showing progress; `options` are the Trainer's, the callbacks run's."""
        optimizer = Adam(model.params, lr)
        trainer = Trainer(model, optimizer, self.dataset, batch_size=batch_size, **options)
        steps = epochs * trainer.batches_per_epoch
        with _bar(steps, f"training {label or type(model).__name__}") as bar:

            def after_step(terms: Terms) -> None:
                bar.update()
                on_step(terms)

            def after_epoch(metrics: dict[str, float]) -> None:
                bar.set_postfix_str(f"test loss {metrics['test_loss']:.2f}", refresh=False)
                on_epoch(metrics)

            trainer.run(epochs, after_step, after_epoch)
        return trainer

    def progress(self, items: Collection[T], what: str) -> Iterator[T]:
        """Yield the items, showing how many of them are done."""
        with _bar(len(items), what) as bar:
            for item in items:
                yield item
                bar.update()

    def say(self, text: str) -> None:
        """Print a line of results, above a bar if there is one."""
        from tqdm import tqdm

        tqdm.write(text)
        sys.stdout.flush()

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows of results below each other, as a table of Markdown."""
        rows = [head, *rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]

        def line(cells: Sequence[str]) -> str:
            first, *others = zip(cells, widths, strict=True)
            aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            return f"| {' | '.join(aligned)} |"

        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        self.say("\n".join(["", line(head), line(rule), *map(line, rows[1:]), ""]))

    def figure(
        self,
        rows: int = 1,
        columns: int = 1,
        size: tuple[float, float] = (6.4, 4),
        **options: Any,
    ) -> Any:
        """Return a figure of `size` in inches, in the common style, and its axes.

        The `options` are those of ``matplotlib.figure.Figure.subplots``, such as ``sharey``.
        """
        figure = plots.Figure(figsize=size)
        return figure, figure.subplots(rows, columns, **options)

    def save(self, figure: Any, name: str = "", *, alt: str) -> Path:
        """Write a figure as ``{demo}[-{name}].png``; say where, and with `alt` what it shows."""
        path = self._path(name, "png")
        plots.save(figure, path)
        notebook.show(figure)
        return self._wrote(path, alt)

    def save_animation(
        self,
        figure: Any,
        draw: Callable[[int], None],
        frames: int,
        name: str = "",
        fps: int = 12,
        *,
        alt: str,
    ) -> Path:
        """Write ``{demo}[-{name}].gif``, which loops: the figure after draw(0), draw(1) and so on.

        The axes stay where the first frame has them, and 96 dots per inch keep the file small.
        """
        from matplotlib.animation import FuncAnimation, PillowWriter

        draw(0)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        animation = FuncAnimation(figure, draw, frames=frames, init_func=lambda: None)
        path = self._path(name, "gif")
        options: Any = {"writer": PillowWriter(fps=fps), "dpi": 96}
        with _bar(frames, f"drawing {path.name}") as bar:
            options["progress_callback"] = lambda frame, of: bar.update()
            write_atomically(path, lambda file: animation.save(file, **options))
        notebook.show_file(path)
        return self._wrote(path, alt)

    def show(self, ax: Any, images: Any, columns: int, **options: Any) -> None:
        """Draw images (n, D) of the data in an axes, as :func:`scratchvae.plots.draw_images`."""
        rows = np.stack([asnumpy(x) for x in images])  # (n, D)
        plots.draw_images(ax, rows, self.dataset.image_shape, columns, **options)

    def require(self, holds: Any, claim: str) -> None:
        """Print a claim; end the demo with exit code 1 if it does not hold."""
        if bool(asnumpy(holds)):
            self.say(f"Holds: {claim}")
            return
        self.say(f"DOES NOT HOLD: {claim}")
        sys.exit(1)

    def _path(self, name: str, suffix: str) -> Path:
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / f"{self.name}{f'-{name}' if name else ''}.{suffix}"

    def _wrote(self, path: Path, alt: str) -> Path:
        self.figures.append(path)
        self.say(f"Wrote {path}: {alt}")
        return path


def _bar(total: int, what: str) -> Any:
    """Return a progress bar; it shows only on a terminal or in a notebook, and if there is work."""
    from tqdm.auto import tqdm

    disable = (False if notebook.running() else None) if total else True  # None: if no terminal
    return tqdm(total=total, desc=what, leave=False, disable=disable, dynamic_ncols=True)


def start(name: str, options: Sequence[str] | None = None) -> Demo:
    """Read the options of the demo of that name, load its data and print its title and claim.

    Parameters
    ----------
    name : str
        That of its file, without the number.
    options : sequence of str, optional
        Such as ``["--quick"]``. Without them those of the command line, if there is one: a cell of
        a notebook has none.
    """
    entry = _find(name)
    parser = argparse.ArgumentParser(prog=f"scratchvae demo {entry.name}", description=entry.claim)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--data", default="digits", help="digits (default) or mnist")
    parser.add_argument("--quick", action="store_true", help="less training, fewer draws")
    parser.add_argument("--out", type=Path, default=Path("runs/demos"), help="folder for figures")
    args = parser.parse_args(_command_line() if options is None else options)
    plots.use_style()
    keep_freed_memory()  # some demos step through large batches in loops of their own
    backend = get_backend(backend_of(args.device))
    running = Demo(entry.name, args.quick, backend, datasets.load(args.data), args.out)
    data = running.dataset
    running.say(
        f"{entry.title}\nClaim: {entry.claim}\nData: {data.name}, {len(data.train):,} training and "
        f"{len(data.test):,} test examples; running on {backend.device}\n"
    )
    return running


def coverage(real: Any, samples: Any, k: int = 5) -> float:
    """Return the share of real examples near which there is a sample.

    Near means within the distance to the k-th nearest other real example. Samples that are blurred,
    or no digits at all, cover little, and so do good ones that are all alike.

    Parameters
    ----------
    real, samples : (N, D) and (M, D), NumPy arrays
    k : int

    Notes
    -----
    M. F. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020.
    """
    from scipy.spatial.distance import cdist

    radius = np.sort(cdist(real, real), axis=1)[:, k]  # (N,): the nearest of all is itself
    return float((cdist(real, samples).min(axis=1) <= radius).mean())
