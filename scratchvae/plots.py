"""Figures that show what a model has learned, ready to be put into a talk.

Every function takes NumPy arrays and returns a :class:`matplotlib.figure.Figure`; :func:`save`
writes one, and :func:`write_figures` all that fit a model. Nothing here uses pyplot or changes a
setting for good, and the same input gives the same bytes.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from scipy.stats import norm

from . import tables
from .backend import Array, asnumpy
from .checkpoint import write_atomically
from .datasets import rows_at_once, to_float
from .errors import InputError
from .gaussian import kl_per_dimension as gaussian_kl
from .gradcheck import Taylor
from .style import BLUE, CLASSES, GREY, VERMILION, styled
from .style import STYLE as STYLE
from .style import Figure as Figure
from .style import use_style as use_style

CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
HALO = [withStroke(linewidth=3, foreground="white")]
LONG_RUN = 50  # epochs; the first few fall so far that the rest would look flat
MARKERS = "o^sDv"  # one for each ten classes: there are ten colours
MAX_POINTS = 2000  # more dots than this run together
MAX_ELLIPSES = 20
MAX_CLASSES = 50  # with more of them, labels are probably not classes
MAX_COLUMNS = 20  # of labels
MAX_PIXELS = 4_000_000  # of one figure, in all its images
MAX_NUMBERS = 2**23  # that are decoded for one figure of wide data
METADATA: dict[str, dict[str, Any]] = {  # None leaves out what differs between days or versions
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


@styled
def training_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a figure of the loss and its parts over the epochs, for training and test data.

    Parameters
    ----------
    metrics : sequence of mappings
        One per epoch, as in a line of ``metrics.jsonl``; terms in nats per example.

    Returns
    -------
    Figure
        Loss, reconstruction, KL and active units; these are a word of a title where they do not
        change. Where the KL is zero throughout, as for a plain autoencoder, the loss is the
        reconstruction, and one panel says it all. Epochs of the beginning that lie far off do not
        set the range: their lines leave the panel.
    """
    if not metrics:
        raise InputError("metrics has no line: expected one per epoch")

    def column(key: str) -> np.ndarray[Any, Any]:
        return np.array([line.get(key) for line in metrics], dtype=float)  # None becomes nan

    epoch = column("epoch")  # (E,)
    panels = {
        "loss": "Loss",
        "reconstruction": "Reconstruction, −log p(x|z)",
        "kl": "KL to the prior",
    }
    has_kl = bool(np.nan_to_num([column("train_kl"), column("test_kl")]).any())
    units = column("active_units")  # (E,)
    changes = len(np.unique(units)) > 1
    rows, columns, size = 2, 2, (9.0, 6.0)
    if not has_kl:
        panels = {"loss": "Loss: the reconstruction, −log p(x|z)"}
        rows, columns, size = 1, 1, (6.4, 4.0)
    elif not changes:
        rows, columns, size = 1, 3, (12.5, 3.8)
        if np.isfinite(units[0]):
            panels["kl"] += f"\nactive dimensions: {units[0]:.0f} throughout"
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    marker = "o" if len(epoch) <= 20 else ""  # a single epoch has no line
    for ax, (term, title) in zip(axes, panels.items(), strict=False):
        for part, colour, line in (("train", BLUE, "-"), ("test", VERMILION, "--")):
            ax.plot(epoch, column(f"{part}_{term}"), line, color=colour, marker=marker, label=part)
        ax.set(title=title, ylabel="nats per example")
        _leave_the_start_out(ax)
    if has_kl and changes:
        axes[3].step(epoch, units, where="mid", color="black", marker=marker)
        axes[3].set(title="Active latent dimensions", ylabel="count")
        axes[3].set_ylim(0, 1.15 * max(1, np.nan_to_num(units).max()))
        axes[3].yaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes:
        ax.grid(True)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if len(epoch) == 1:
            ax.set_xticks(epoch)
        if len(epoch) > LONG_RUN:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
    for ax in axes[-columns:]:
        ax.set_xlabel("epoch, log scale" if len(epoch) > LONG_RUN else "epoch")
    axes[0].legend()
    return figure


@styled
def reconstructions(originals: Array, reconstructed: Array, image_shape: Sequence[int]) -> Figure:
    """Return a figure of images in one row and their reconstructions in the row below.

    Parameters
    ----------
    originals, reconstructed : (n, D)
        Values in [0, 1]; others are clipped.
    image_shape : (H, W) or (H, W, C)
    """
    above, below = _images(originals, image_shape), _images(reconstructed, image_shape)
    if len(above) != len(below):
        raise InputError(f"found {len(below)} reconstructions of {len(above)} originals")
    width = 0.75 * max(len(above), 4)
    figure = Figure(figsize=(width + 1.7, 0.6 + 1.5 * _cell_height(above)))
    ax = figure.add_subplot()
    both = np.concatenate([originals, reconstructed])
    draw_images(ax, both, image_shape, columns=len(above))
    ax.set_yticks([0.5, 1.5], ["original", "reconstruction"])
    ax.set_title("Images and their reconstructions")
    return figure


@styled
def samples(images: Array, image_shape: Sequence[int], title: str | None = None) -> Figure:
    """Return a figure of images (n, D), values in [0, 1], in a grid about as wide as it is high."""
    drawn = _images(images, image_shape)
    columns = int(np.ceil(np.sqrt(len(drawn))))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(5.6, 0.6 + 5.4 * rows / columns * _cell_height(drawn)))
    ax = figure.add_subplot()
    draw_images(ax, images, image_shape, columns)
    ax.set_title(title or f"{len(drawn)} samples: z ~ p(z), decoded")
    return figure


def any_samples(x: Array, image_shape: Sequence[int], title: str | None = None) -> Figure:
    """Return a figure of samples (n, D), as images or as rows of numbers, whichever they are."""
    if is_table(image_shape, x):
        return tables.samples(x, tables.columns(x), title, band=False)
    return samples(x, image_shape, title)


@styled
def styles(images: Array, image_shape: Sequence[int]) -> Figure:
    """Return a figure of codes that were decoded with several labels each.

    Parameters
    ----------
    images : (n, C, D)
        A row for each code, a column for each label, values in [0, 1].
    image_shape : (H, W) or (H, W, C)
    """
    n, columns, dim = images.shape
    drawn = images.reshape(-1, dim)  # (n C, D)
    height = 6.4 * n / columns * _cell_height(_images(drawn, image_shape))
    figure = Figure(figsize=(6.4, 0.6 + height))
    ax = figure.add_subplot()
    draw_images(ax, drawn, image_shape, columns)
    ax.set_xticks(np.arange(columns) + 0.5, [str(label) for label in range(columns)])
    ax.set(xlabel="label", ylabel="one code z in each row")
    ax.set_title("The same codes with other labels")
    return figure


@styled
def latent_plane(mu: Array, logvar: Array | None = None, labels: Array | None = None) -> Figure:
    """Return a figure of the codes of examples, for a model with two latent dimensions.

    Parameters
    ----------
    mu : (N, 2)
        Posterior means, or a plain autoencoder's codes. About 2,000 of them are drawn.
    logvar : (N, 2), optional
        The posteriors' log variances. When given, some posteriors are drawn as ellipses with
        semi-axes sigma = exp(logvar / 2), in front of the prior's circles at 1, 2 and 3 sigma.
        A plain autoencoder has neither posteriors nor a prior.
    labels : (N,), optional
        Classes: each has a colour, from the eleventh on another marker, too. Its name stands at the
        example in its midst, or beside it, with a line, where names would cover each other.
    """
    mu = np.asarray(mu, dtype=float)
    if mu.ndim != 2 or mu.shape[1] != 2 or len(mu) == 0:
        raise InputError(f"mu has shape {mu.shape}: expected (N, 2), a point of the plane each")
    names: Array = [""]
    index, colours = np.zeros(len(mu), dtype=int), [BLUE]  # index (N,) into names and colours
    if labels is not None and len(np.unique(labels)) <= MAX_CLASSES:
        names, index = np.unique(labels, return_inverse=True)
        colours = [CLASSES[k % len(CLASSES)] for k in range(len(names))]
    drawn = np.linspace(0, len(mu) - 1, min(len(mu), MAX_POINTS)).astype(int)
    figure = Figure(figsize=(6.6, 6.9))
    ax = figure.add_subplot(aspect="equal", xlabel="z₁", ylabel="z₂")
    for k, colour in enumerate(colours):
        x, y = mu[drawn[index[drawn] == k]].T
        marker = MARKERS[k // len(CLASSES)]
        ax.scatter(x, y, s=12, color=colour, alpha=0.7, linewidths=0, marker=marker)
    thinned = f", {len(drawn):,} of them drawn" if len(drawn) < len(mu) else ""
    title = f"Codes of {len(mu):,} examples{thinned}\npoints: an autoencoder has no σ and no prior"
    anchors = np.empty((0, 2))
    if logvar is not None:
        anchors = np.array([(0.0, radius) for radius in (1, 2, 3)])
        for x, y in anchors:
            ax.add_patch(Circle((0, 0), y, fill=False, ec=GREY, zorder=0.5))
            ax.text(x, y, f"{y:.0f}σ", size=12, color="#444444", **CENTRED, path_effects=HALO)
        chosen = _spread_out(mu, index, drawn)
        for i in chosen:
            width, height = 2 * np.exp(np.asarray(logvar[i], dtype=float) / 2)
            colour = colours[index[i]]
            ax.add_patch(
                Ellipse(mu[i], width, height, fill=False, ec=colour, lw=1.5, path_effects=HALO)
            )
            ax.plot(*mu[i], "o", color=colour, markersize=2)
        title = (
            f"Posterior means of {len(mu):,} examples{thinned}\n"
            f"ellipses: μ ± 1σ of {len(chosen)} of them; circles: the prior"
        )
    if colours != [BLUE]:
        size = 14 if len(names) <= len(CLASSES) else 9  # points
        apart = 0.065 * size / 14 * np.ptp([*mu[drawn], *anchors], axis=0).max()
        homes = np.array([_midst(mu[index == k]) for k in range(len(names))])
        places = _push_apart(homes, anchors, apart)
        for name, home, place, colour in zip(names, homes, places, colours, strict=True):
            if np.linalg.norm(place - home) > apart / 2:  # else it covers its home
                line = np.stack([home, place]).T
                ax.plot(*line, color=colour, lw=1.5, marker="o", markevery=[0], path_effects=HALO)
            badge(ax, place, str(name), colour, size)
    ax.set_title(title)
    return figure


def draw_images(
    ax: Axes, images: Array, image_shape: Sequence[int], columns: int, **options: Any
) -> None:
    """Draw images in rows in an axes, dark on white; the y axis counts the rows.

    Parameters
    ----------
    ax : matplotlib Axes
    images : (n, D)
        Values in [0, 1], or between the limits in `options`; others are clipped.
    image_shape : (H, W) or (H, W, C)
    columns : int
    **options
        Of imshow, for grey images: another ``cmap``, or limits ``vmin`` and ``vmax``.
    """
    options = {"cmap": "gray_r", "vmin": 0, "vmax": 1, **options}
    cells = _images(images, image_shape, options["vmin"], options["vmax"])
    shown = _mosaic(cells, columns, gap=max(1, min(cells.shape[1:3]) // 14))
    extent = (0, columns, -(-len(cells) // columns), 0)  # left, right, bottom, top
    ax.imshow(shown, extent=extent, aspect=_cell_height(cells), **options)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)  # of ticks that a caller may set beside the rows
    ax.spines[:].set_visible(False)


def draw_codes(ax: Axes, z: Array, labels: Array, names: bool = True, **options: Any) -> None:
    """Draw codes in an axes, a colour for each class.

    Parameters
    ----------
    ax : matplotlib Axes
    z : (n, 2)
    labels : (n,)
        Integers; each has the same colour in every figure.
    names : bool
        Whether a class's label stands at the median of its codes.
    **options
        Of scatter.
    """
    colours = [CLASSES[k % len(CLASSES)] for k in labels]
    ax.scatter(*z.T, **{"s": 6, "c": colours, "linewidths": 0, **options})
    for k in np.unique(labels) if names else ():
        place = np.median(z[labels == k], axis=0)
        badge(ax, place, str(k), CLASSES[k % len(CLASSES)], size=9)


def badge(ax: Axes, place: tuple[float, float], name: str, colour: str, size: float = 14) -> None:
    """Write the name of a class at a place (x, y) of an axes, on its colour."""
    ink = "white" if np.dot(to_rgb(colour), (0.21, 0.72, 0.07)) < 0.5 else "black"
    box = {"boxstyle": "round,pad=0.22", "fc": colour, "ec": "white", "lw": 1.5}
    how: dict[str, Any] = {"size": size, "weight": "bold", "parse_math": False, **CENTRED}
    ax.text(*place, name, color=ink, clip_on=True, bbox=box, **how)


@styled
def manifold(decode: Callable[[Array], Array], image_shape: Sequence[int], n: int = 20) -> Figure:
    """Return a figure of the decoded latent plane, in cells equally probable under the prior.

    Parameters
    ----------
    decode : callable
        From codes (n * n, 2) to images (n * n, D) with values in [0, 1].
    image_shape : (H, W) or (H, W, C)
    n : int
        Cells a side. Their codes are the quantiles (i + 1/2) / n of N(0, 1), so that the mosaic
        shows the prior in its true proportions; an even grid would magnify its rare corners.

    Returns
    -------
    Figure
        z1 increases to the right and z2 upwards.
    """
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)  # (n,)
    z1, z2 = np.meshgrid(quantiles, quantiles[::-1])  # (n, n): the first row is the top one
    z = np.column_stack([z1.ravel(), z2.ravel()])  # (n n, 2)
    rows = max(1, MAX_NUMBERS // max(1, int(np.prod(image_shape))))
    step = _step(len(z), image_shape)
    parts = (decode(z[i : i + rows]) for i in range(0, len(z), rows))
    cells = np.concatenate([_images(part, image_shape, step=step) for part in parts])
    side = _cell_height(cells)
    figure = Figure(figsize=(6.6, 0.6 + 6.3 * side))
    ax = figure.add_subplot(xlabel="z₁", ylabel="z₂")
    shown = _mosaic(cells, columns=n, gap=1)  # 8x8 digits fill their cells: keep them apart
    ax.imshow(shown, cmap="gray_r", vmin=0, vmax=1, extent=(0, n, 0, n), aspect=side)
    ticks = np.unique(np.linspace(0, n - 1, 6).round().astype(int))
    text = [f"{q:.2f}".replace("-", "−") for q in quantiles[ticks]]
    ax.set_xticks(ticks + 0.5, text)
    ax.set_yticks(ticks + 0.5, text)
    ax.set_title("Decoded latent plane\ncells of equal probability under the prior")
    return figure


@styled
def kl_per_dimension(kl: Array, threshold: float = 0.01) -> Figure:
    """Return a figure of the KL of every latent dimension in nats, the largest first.

    Parameters
    ----------
    kl : (Z,)
        Means over the examples.
    threshold : float
        In nats; dimensions below it are drawn grey.
    """
    kl = np.asarray(kl, dtype=float)
    order = np.argsort(-kl, kind="stable")  # (Z,)
    used = int((kl > threshold).sum())
    few = len(kl) <= 8
    figure = Figure(figsize=(2.8 + 0.4 * len(kl) if few else 7.6, 4))  # no wider than its bars need
    ax = figure.add_subplot()
    colours = [BLUE if v > threshold else GREY for v in kl[order]]
    bars = ax.bar(range(len(kl)), kl[order], 0.8, color=colours)
    if few:
        ax.bar_label(bars, [f"{v:.2f}" for v in kl[order]], padding=2)
        ax.margins(y=0.12)  # for the numbers
    ax.set_title(
        f"KL to the prior: {kl.sum():.1f} nats{chr(10) if few else ' in all, '}"
        f"{used} of {len(kl)} dimensions{chr(10) if few else ' '}above {threshold:g}"
    )
    step = 1 if len(kl) <= 30 else -(-len(kl) // 18)
    ax.set_xticks(range(0, len(kl), step), [str(j) for j in order[::step]])
    room = max(len(kl), 3) / 2  # so that one or two dimensions do not make walls
    ax.set_xlim(len(kl) / 2 - 0.5 - room, len(kl) / 2 - 0.5 + room)
    ax.set(xlabel="latent dimension, sorted", ylabel="nats, mean of examples")
    ax.grid(True, axis="y")
    return figure


@styled
def taylor(result: Taylor) -> Figure:
    """Return a log-log figure of Taylor's remainder over the step, beside slopes 1 and 2."""
    h, first, second = (np.array(a) for a in (result.steps, result.without, result.remainder))
    figure = Figure(figsize=(6.4, 4.4))
    ax = figure.subplots()
    ax.loglog(h, first, "o--", color=GREY, label="|f(x + hv) − f(x)|")
    colour = BLUE if result.ok else VERMILION
    ax.loglog(h, second, "o-", color=colour, label="|f(x + hv) − f(x) − h ⟨g, v⟩|")
    floor = max(result.rounding, np.finfo(float).tiny)
    for power, start in ((1, first[0]), (2, second[0])):
        line = start * (h / h[0]) ** power
        ax.loglog(h[line > floor], line[line > floor], ":", color="#555555", linewidth=1)
        if (line > floor).any():
            end = np.flatnonzero(line > floor)[-1]
            ax.annotate(f"h{'²' if power == 2 else ''}", (h[end], line[end]), xytext=(-12, 0),
                        textcoords="offset points", color="#555555", **CENTRED)  # fmt: skip
    ax.axhspan(floor / 100, floor, color="#eeeeee", zorder=0)
    ax.text(h[len(h) // 2], floor / 10, "rounding", color="#555555", **CENTRED)
    ax.set_ylim(bottom=floor / 100)
    ax.set_xlim(left=h[-1] / 4)
    order = "exact" if np.isinf(result.order) else f"order {result.order:.2f}"
    verdict = "right" if result.ok else "wrong"
    ax.set(title=f"{result.name}: {order}, the gradient is {verdict}", xlabel="step h")
    ax.set_ylabel("change of f, and what is left of it")
    ax.legend(loc="upper left")
    return figure


@styled
def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as .png, .svg or .pdf; an older file stays whole until the new one is.

    Raises
    ------
    InputError
        If the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in METADATA:
        raise InputError(
            f"cannot write {path}: found suffix {suffix!r}, expected .png, .svg or .pdf"
        )
    options: dict[str, Any] = {"format": suffix[1:], "metadata": METADATA[suffix]}
    with warnings.catch_warnings():
        # A letter that the font does not have is drawn as a box, which says it already.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        write_atomically(path, lambda file: figure.savefig(file, **options))


def write_figures(
    model: Any, dataset: Any, metrics: Sequence[Mapping[str, Any]], folder: str | os.PathLike[str]
) -> list[Path]:
    """Write the figures that fit a model into a folder, made if missing, and return their paths.

    Parameters
    ----------
    model : Autoencoder or VAE
        What needs a posterior or a prior is drawn where the model has one, what needs the prior
        N(0, I) where it is that, and one code with every label, instead of the manifold, where the
        model is given labels.
    dataset : Dataset
        Its test part is encoded.
    metrics : sequence of mappings
        As for :func:`training_curves`.
    folder : path

    Returns
    -------
    list of Path
    """
    test, labels, shape = dataset.test, dataset.test_labels, dataset.image_shape
    dataset.require_whole()
    rows = asnumpy(model.rows(test, labels, dataset.scale))  # (M, D), with labels if it has any
    x = to_float(rows[_one_of_each(len(test), labels)], dataset.scale, model.dtype)  # (n, D)
    figures: dict[str, Figure] = {}
    if metrics:
        figures["training_curves"] = training_curves(metrics)
    originals = x[:, : test.shape[1]]  # (n, D)
    table = None
    if is_table(shape, originals):
        table = tables.columns(test, dataset.columns, dataset.scale)
    again = asnumpy(model.reconstruct(x))  # (n, D)
    if table is not None:
        figures["reconstructions"] = tables.reconstructions(originals, again, table)
    else:
        figures["reconstructions"] = reconstructions(originals, again, shape)
    codes, chunk = [], rows_at_once(test.shape[1])
    for start in range(0, len(test), chunk):
        batch = to_float(rows[start : start + chunk], dataset.scale, model.dtype)
        code = model.encode(batch) if model.has_posterior else (model.mean_code(batch),)
        codes.append([asnumpy(part) for part in code])
    mu, *rest = (np.concatenate(parts) for parts in zip(*codes, strict=True))  # (N, Z)
    logvar = rest[0] if rest else None
    if model.has_posterior:
        n = max(4, min(64, MAX_NUMBERS // test.shape[1]))
        new = asnumpy(model.sample(n, rng=0))  # (n, D)
        figures["samples"] = samples(new, shape) if table is None else tables.samples(new, table)
        if model.prior.standard and not model.replaces("kl"):
            figures["kl_per_dimension"] = kl_per_dimension(gaussian_kl(mu, logvar).mean(axis=0))
        if model.classes is not None:
            labels_drawn = range(min(model.classes, MAX_COLUMNS))
            n = max(1, min(8, MAX_NUMBERS // (test.shape[1] * len(labels_drawn))))
            z = model.draw_prior(n, np.random.default_rng(0))  # (n, Z)
            images = [asnumpy(model.decode(z, label)) for label in labels_drawn]  # (n, D) each
            both = np.stack(images, axis=1)  # (n, C, D)
            figures["styles"] = (
                styles(both, shape) if table is None else tables.styles(both, table, CLASSES)
            )
        elif model.latent_dim == 2 and model.prior.standard:

            def decode(z: Array) -> Array:
                return asnumpy(model.decode(z))

            figures["manifold"] = (
                manifold(decode, shape) if table is None else tables.manifold(decode, table)
            )
    if model.latent_dim == 2:
        figures["latent_plane"] = latent_plane(mu, logvar, labels)
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        save(figure, path)
    return paths


def is_table(image_shape: Sequence[int], x: Array) -> bool:
    """Return whether rows x (n, D) are no images: by their shape, or by values far from [0, 1]."""
    return image_shape[0] == 1 or bool(x.min() < -0.5 or x.max() > 1.5)


def _leave_the_start_out(ax: Axes) -> None:
    """Let what comes after the first twentieth of the lines, 1 at least, set the range of y."""
    y = np.array([line.get_ydata() for line in ax.lines], dtype=float)  # (lines, E)
    later = y[:, max(1, y.shape[1] // 20) :]
    if y.shape[1] < 4 or not np.isfinite(later).any():
        return
    low, high = np.nanmin(later), np.nanmax(later)
    room = 0.25 * (high - low)
    low, high = max(np.nanmin(y), low - room), min(np.nanmax(y), high + room)
    if high > low:
        ax.set_ylim(low - 0.2 * room, high + 0.2 * room)


def _step(n: int, image_shape: Sequence[int]) -> int:
    """Return which pixels of n images are drawn, every one or every second or so, in a figure."""
    return max(1, math.ceil(math.sqrt(n * image_shape[0] * image_shape[1] / MAX_PIXELS)))


def _images(
    x: Array,
    image_shape: Sequence[int],
    least: float = 0.0,
    most: float = 1.0,
    step: int | None = None,
) -> Array:
    """Return x (n, D), clipped, as images: colour (n, H, W, 3 or 4) or grey (n, H, W).

    Other numbers of channels than these are not colours: they are drawn side by side, as one grey
    image. Of large images every second pixel is drawn, or every third, and so on.
    """
    shape = (*image_shape, 1)[:3]
    if len(image_shape) not in (2, 3):
        raise InputError(f"image_shape is {image_shape}: expected (H, W) or (H, W, C)")
    if x.ndim != 2 or x.shape[1] != np.prod(shape) or len(x) == 0:
        raise InputError(f"images have shape {x.shape}: expected (n, {np.prod(shape)})")
    step = step or _step(len(x), shape)
    x = x.reshape(len(x), *shape)[:, ::step, ::step]
    x = np.asarray(x, dtype=float).clip(least, most)  # (n, H, W, C)
    return x if shape[2] in (3, 4) else x.swapaxes(2, 3).reshape(*x.shape[:2], -1)


def _cell_height(images: Array) -> float:
    """Return the height of a drawn image of width 1; a row of plain numbers becomes a strip."""
    h, w = images.shape[1:3]
    return float(np.clip(h / w, 0.4, 2.5))


def _mosaic(images: Array, columns: int, gap: int) -> Array:
    """Return images (n, H, W) or (n, H, W, C) side by side, from the top left on, as one image."""
    rows = -(-len(images) // columns)
    h, w, *channels = images.shape[1:]
    paper = 1.0 if channels else np.nan  # which no colour map colours, so it stays white
    cells = np.full((rows * columns, h + gap, w + gap, *channels), paper)
    cells[: len(images), :h, :w] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    whole = cells.reshape(rows * (h + gap), columns * (w + gap), *channels)
    return whole[: rows * (h + gap) - gap, : columns * (w + gap) - gap]


def _spread_out(mu: Array, index: Array, drawn: Array) -> list[int]:
    """Choose examples of every class that lie far from each other, but not outside their class."""
    chosen: list[int] = []
    classes = np.unique(index)
    taken = [_midst(mu[index == k]) for k in classes]  # the classes' names stand there
    for k in classes:
        mine = drawn[index[drawn] == k]
        if len(mine) == 0:  # a class so rare that none of it is drawn
            continue
        radius = np.linalg.norm(mu[mine] - np.median(mu[mine], axis=0), axis=1)
        mine = mine[radius <= np.quantile(radius, 0.8)]
        for _ in range(min(len(mine), max(1, MAX_ELLIPSES // len(classes)))):
            gap = np.linalg.norm(mu[mine][:, None] - np.array(taken), axis=2).min(axis=1)
            chosen.append(int(mine[gap.argmax()]))
            taken.append(mu[chosen[-1]])
    return chosen


def _midst(points: Array) -> Array:
    """Return the point (2,) among points (n, 2) that is nearest to their median."""
    return points[np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()]


def _push_apart(points: Array, fixed: Array, distance: float) -> Array:
    """Move points (n, 2) until they lie a distance from each other and from `fixed` (m, 2)."""
    points = points.copy()
    for _ in range(100):
        others = np.concatenate([points, fixed])  # (n + m, 2)
        step = points[:, None] - others  # (n, n + m, 2)
        apart = np.linalg.norm(step, axis=2)
        np.fill_diagonal(apart, np.inf)
        push = np.clip(distance - apart, 0, None) / (apart + 1e-9) / 2
        if not push.any():
            break
        points += (push[..., None] * step).sum(axis=1)
    return points


def _one_of_each(n: int, labels: Array | None, count: int = 12) -> Array:
    """Return the indices of the first example of each class, filled up with the first others."""
    first = np.unique(labels, return_index=True)[1] if labels is not None else np.arange(0)
    return np.concatenate([first, np.setdiff1d(np.arange(n), first)])[: min(n, count)]
