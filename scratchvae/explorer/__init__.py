"""A page to explore a model with: its latent plane, and its decoder in the reader's browser.

`page` returns one HTML file that needs neither a server nor a network. The decoder's weights, the
codes of test examples and the examples themselves lie in it; what moves is in the files beside this
one. latent.js and latent.css are also what the documentation's page on mu and sigma is made with.
"""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from scratchvae.backend import Array, asnumpy
from scratchvae.errors import InputError
from scratchvae.gaussian import kl_per_dimension
from scratchvae.layers import named
from scratchvae.run import Run

HERE = Path(__file__).parent
MAX_POINTS = 1000  # of the test data; more of them hide one another
MAX_VALUES = 1_000_000  # of the examples that lie in the page, as long as there are MIN_POINTS
MIN_POINTS = 50
LARGEST = 2**24  # values of the examples, whatever their number
MAX_FLOAT32 = 2**15  # entries of an array stored as it is; a larger one takes half the space
MAX_WEIGHTS = 2**24  # 45 MB: a browser takes no pleasure in more


def describe(model: Any) -> dict[str, Any]:
    """Return the decoder and what its output means, as `readDecoder` in latent.js takes them.

    Parameters
    ----------
    model : Autoencoder or VAE
        Its decoder is one that the model has built itself.

    Raises
    ------
    InputError
        If a layer is none that latent.js knows, or there are too many weights for a page.
    """
    if (count := sum(p.value.size for _, p in named(model.decoder))) > MAX_WEIGHTS:
        raise InputError(
            f"the decoder has {count:,} weights, and a page with all of them is too large for a "
            f"browser: expected at most {MAX_WEIGHTS:,}"
        )
    layers: list[dict[str, Any]] = []
    shape: tuple[int, ...] = ()  # (C, H, W) where the numbers are images
    for layer in model.decoder.layers:
        kind = type(layer).__name__
        own = {name: _weights(asnumpy(p.value)) for name, p in named(layer)}
        if kind == "Linear":
            layers.append({"kind": "linear", **own})
        elif kind == "Activation":
            layers.append({"kind": "activation", "name": layer.name})
        elif kind == "Reshape":
            shape = layer.shape
        elif kind == "ConvTranspose2D":
            kernel, stride, padding = layer.windows
            axes = zip(shape[1:], kernel, stride, padding, layer.output_padding, strict=True)
            size = [(n - 1) * s + k - 2 * p + more for n, k, s, p, more in axes]
            large = (layer.out_channels, *size)
            places = {"kernel": kernel, "stride": stride, "padding": padding}
            layers.append({"kind": "transposed", "small": shape, "large": large, **places, **own})
            shape = large
        else:
            raise InputError(
                f"the decoder has a layer {layer!r}, which a page cannot compute: expected one of "
                "Linear, Activation, Reshape and ConvTranspose2D"
            )
    units = model.standardization and dict(zip(("mean", "std"), model.standardization, strict=True))
    return {
        "layers": layers,
        "binary": model.likelihood.binary,
        "size": model.data_dim,
        "classes": model.classes or 0,
        "units": units,
    }


def _weights(a: Array) -> dict[str, str]:
    """Return an array's numbers as float32 or, of a large matrix, in 16 bits each.

    These are whole multiples of a step, one for each column. float16 takes as much space and is off
    by four times as much: its rounding of MNIST's weights moves pixels by up to 2e-3.
    """
    if a.size <= MAX_FLOAT32:
        return {"float32": _packed(a)}
    a = a.reshape(len(a), -1).astype(float)  # (n_in, ...)
    step = np.maximum(abs(a).max(axis=0), np.finfo(np.float32).tiny) / (2**15 - 1)
    return {"int16": _packed(np.rint(a / step), "int16"), "step": _packed(step)}


def page(run: Run) -> str:
    """Return the page of a run as HTML.

    Raises
    ------
    InputError
        As for `describe`.
    """
    data = _collect(run)
    parts = {
        name: (HERE / name).read_text(encoding="utf-8")
        for name in ("latent.css", "explorer.css", "latent.js", "explorer.js", "explorer.html")
    }
    return Template(parts["explorer.html"]).substitute(
        style=parts["latent.css"] + parts["explorer.css"],
        script=parts["latent.js"] + parts["explorer.js"].replace('"use strict";\n', "", 1),
        # "<" can then begin neither a tag nor a comment, whatever a file or a column is called.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )


def _collect(run: Run) -> dict[str, Any]:
    """Return all that the page knows of a run."""
    model: Any = run.model
    dataset = run.trainer.dataset
    mu, *rest = (code.astype(float) for code in run.trainer.codes())  # (N, Z)
    _check_drawable(mu, *rest)
    if model.has_posterior and model.prior.standard:
        by, share = "KL", kl_per_dimension(mu, rest[0]).mean(axis=0)  # (Z,)
    else:
        by, share = "variance", mu.var(axis=0)  # (Z,)

    few = max(MIN_POINTS, min(MAX_POINTS, MAX_VALUES // dataset.data_dim))
    few = max(2, min(few, LARGEST // dataset.data_dim))
    rows = np.linspace(0, len(mu) - 1, min(few, len(mu))).astype(int)  # (n,) evenly spread
    examples = np.asarray(dataset.test[rows], dtype=float) / dataset.scale  # (n, D)
    labels = None if dataset.test_labels is None else dataset.test_labels[rows].tolist()
    shape, (low, high) = (*dataset.image_shape, 1)[:3], (0.0, 1.0)
    if examples.min() < 0 or examples.max() > 1:
        low, high = float(examples.min()), float(examples.max())
        high = high if high > low else low + max(1.0, abs(low))  # a range to divide by
    data: dict[str, Any] = {
        "model": _in_words(run),
        "examples": Path(dataset.name).name,
        "of": len(mu),
        "n": len(rows),
        "latent": model.latent_dim,
        "order": np.argsort(-share, kind="stable").tolist(),
        "by": by,
        "share": share.round(4).tolist(),
        "mu": _packed(mu[rows]),
        "labels": labels,
        "decoder": describe(model),
        "sigma": _packed(np.exp(0.5 * rest[0][rows])) if rest else None,
        "prior": None,
    }
    if shape[0] == 1:  # a table; the columns between the values that they have
        ends = examples.min(axis=0), examples.max(axis=0)  # (D,) each
        data |= {"rows": _packed(examples), "columns": dataset.columns}
        data |= dict(zip(("low", "high"), (end.tolist() for end in ends), strict=True))
    else:
        names = ("height", "width", "channels")
        data["image"] = dict(zip(names, shape, strict=True)) | {"low": low, "high": high}
        data["sprite"] = _sprite((examples.reshape(-1, *shape) - low) / (high - low))
    if model.has_posterior:
        data["prior"] = {"standard": model.prior.standard}
        if not model.prior.standard:
            logits, mean, logvar = (asnumpy(p.value) for _, p in model.prior.named_parameters())
            pi = np.exp(logits.astype(float) - logits.max())
            data["prior"] |= {"weights": (pi / pi.sum()).tolist(), "mean": mean.tolist()}
            data["prior"]["sigma"] = np.exp(0.5 * logvar).tolist()
    return data


def _check_drawable(mu: Array, logvar: Array | None = None) -> None:
    """Raise InputError where codes (N, Z) are beyond the page's numbers, which are float32."""
    with np.errstate(over="ignore", under="ignore"):
        sigma = np.exp(0.5 * (0 * mu if logvar is None else logvar)).astype(np.float32)
        good = np.isfinite(mu.astype(np.float32)) & np.isfinite(sigma) & (sigma > 0)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        of = "" if logvar is None else f" and the logvar {logvar[row, column]:.4g}"
        raise InputError(
            f"the code of test example {row + 1} cannot be drawn: its dimension {column + 1} has "
            f"the mean {mu[row, column]:.4g}{of}; are the data like those of the training?"
        )


def _in_words(run: Run) -> str:
    """Return what the model is, such as "VAE 784-400-2-400-784"."""
    o, model = run.options, run.model
    widths = [model.data_dim, *o.hidden, o.latent]
    kind = "Autoencoder" if not model.has_posterior else type(model).__name__
    return f"{kind} {'-'.join(map(str, widths + widths[-2::-1]))}"


def _packed(a: Array, kind: str = "float32") -> str:
    """Return an array's numbers in base64, little-endian."""
    return base64.b64encode(a.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def _sprite(images: Array) -> dict[str, Any]:
    """Return images (n, H, W, C) from 0 to 1 in a square of rows and columns, as one PNG.

    Grey ones are ink on paper, as in all figures.
    """
    from PIL import Image  # matplotlib has brought it

    n, h, w, c = images.shape
    columns = math.ceil(math.sqrt(n))
    cells = np.zeros((columns * columns, h, w, c))
    cells[:n] = images
    whole = cells.reshape(columns, columns, h, w, c).swapaxes(1, 2)
    pixels = np.rint(255 * whole.reshape(columns * h, columns * w, c)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(255 - pixels[..., 0] if c == 1 else pixels).save(file, "PNG", optimize=True)
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"address": address, "columns": columns}
