"""The embedded digits, MNIST and the user's own arrays, all as rows of pixels.

Images stay in memory as they are on disk, one byte a pixel; :func:`to_float` and :func:`binarize`
make the floats of one batch at a time.
"""

from __future__ import annotations

import math
import mmap
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .backend import Array, Backend, asnumpy, get_backend, namespace, on_host
from .errors import InputError, check_labels, require_unmasked
from .formats import Content, is_frame, one_sentence, parse_idx, read, read_frame, unpacked
from .kernels import compiled
from .notebook import table

BUILT_IN = ("digits", "mnist")
BERNOULLI = "the Bernoulli likelihood"
BINARIZE = ("none", "threshold", "dynamic")
CHANNELS = (1, 3, 4)  # of an image: grey, colours, and colours with transparency

# Of the unpacked bytes: the packed ones differ from one compressor to the next.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# Of one file, the largest of which has 9.9 million bytes.
DOWNLOAD_BYTES, DOWNLOAD_SECONDS, SILENT_SECONDS = 2**24, 600.0, 30.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples, one in each row.

    Attributes
    ----------
    name : str
        ``"digits"``, ``"mnist"`` or the path of a file or folder.
    train, test : array, (N, D) and (M, D)
        uint8 or float.
    train_labels, test_labels : array of int64, (N,) and (M,), or None
        Only a model that is given labels trains with them; otherwise they colour the figures.
    scale : float
        The pixel value that means white.
    image_shape : tuple of int
        (H, W) or (H, W, C), with the product D; (1, D) for rows of numbers that are no image.
    columns : tuple of str, optional
        The names of the D columns of a table.
    flat : bool
        Whether they came as rows of numbers, so that `image_shape` is a guess.
    """

    name: str
    train: Array
    test: Array
    train_labels: Array | None
    test_labels: Array | None
    scale: float
    image_shape: tuple[int, ...]
    columns: tuple[str, ...] | None = None
    flat: bool = False

    @classmethod
    def from_arrays(cls, x: Any, y: Any = None, test: Any = None) -> Dataset:
        """Return a data set made of arrays in memory.

        Parameters
        ----------
        x : array, (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W), or a frame of pandas
            uint8 counts from 0 to 255, or, where nothing is larger than 1, from 0 to 1 as bool
            and floats do. An image has C = 1, 3 or 4 channels. A frame has a column for each
            feature, of numbers.
        y : array of int, (N,), optional
            Labels.
        test : array, or a pair (x_test, y_test), optional
            The test part; without it the last tenth of the rows of `x`, at least one.

        Raises
        ------
        InputError
            If an array has the wrong type or shape, is masked, or holds NaN or infinity, or if a
            column of a frame holds no numbers.
        """
        parts = test if isinstance(test, tuple | list) else (test, None)
        if len(parts) != 2:
            raise InputError(
                f"test has {len(parts)} parts: expected an array, or a pair (x_test, y_test)"
            )
        x_test, y_test = parts
        given = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
        content = Content({})
        for key, a in given.items():
            require_unmasked(f"{key} is", a)
            if is_frame(a):
                frame = read_frame(a, key)
                content.arrays[key] = frame.arrays["x"]
                if key == "x_test":
                    _require_same_names(content.columns, frame.columns)
                content.columns = content.columns or frame.columns
            elif a is not None:
                try:
                    content.arrays[key] = on_host(a)
                except InputError:
                    raise
                except ValueError as error:
                    what = str(error).split(". ")[0]
                    raise InputError(
                        f"{key} cannot be made an array ({what}): expected rows of one length"
                    ) from None
        if x is None:
            raise InputError("x is None: expected an array, a row for each example")
        return _from_content("your array", content)

    def __repr__(self) -> str:
        n, m = len(self.train), len(self.test)
        kind = "bits" if self.is_binary else self.train.dtype
        return f"Dataset({self.name!r}, {n:,} + {m:,} rows of {self.data_dim} {kind})"

    def _repr_html_(self) -> str:
        def row(part: str, x: Array, labels: Array | None) -> tuple[str, ...]:
            classes = "none" if labels is None else f"{len(np.unique(labels)):,} classes"
            return part, f"{len(x):,}", " × ".join(map(str, self.image_shape)), classes

        parts = [
            row("training", self.train, self.train_labels),
            row("test", self.test, self.test_labels),
        ]
        return table(repr(self), ("part", "examples", "shape of each", "labels"), parts)

    @property
    def is_binary(self) -> bool:
        """Whether the examples are bytes that are 0 or 1."""
        return bool(self.train.dtype == np.uint8 and self.scale == 1)

    def require_whole(self) -> None:
        """Raise InputError if a file that is mapped into memory has become shorter.

        To read what is missing would end the process. Between this look and the reading it still
        may, so it is asked for before every pass over the data.
        """
        for a in (self.train, self.test):
            while isinstance(getattr(a, "base", None), np.ndarray):
                a = a.base  # a view of the array that was mapped
            if isinstance(a, np.memmap) and isinstance(a.base, mmap.mmap):
                size, expected = a.base.size(), a.offset + a.nbytes
                if size < expected:
                    raise InputError(
                        f"{a.filename} has become shorter while it is in use: it has {size:,} "
                        f"bytes, expected {expected:,}"
                    )

    def fingerprint(self) -> str:
        """Return a SHA-256 of the examples, the labels and the scale: equal for equal data."""
        import hashlib

        digest = hashlib.sha256(repr(self.scale).encode())
        for a in (self.train, self.test, self.train_labels, self.test_labels):
            if a is not None:
                digest.update(repr((a.dtype.str, a.shape)).encode())
                step = max(1, 2**20 // a[:1].nbytes)  # rows at a time: `a` may not fit in memory
                self.require_whole()
                for i in range(0, len(a), step):
                    digest.update(np.ascontiguousarray(asnumpy(a[i : i + step])).data)
        return digest.hexdigest()

    @property
    def data_dim(self) -> int:
        """Number of features D."""
        return int(self.train.shape[1])

    @property
    def classes(self) -> int | None:
        """Number of classes if the labels count from 0, or None if there are no labels."""
        labels = [a for a in (self.train_labels, self.test_labels) if a is not None]
        return max(1, 1 + max(int(a.max()) for a in labels)) if labels else None


def load(name: str | os.PathLike[str]) -> Dataset:
    """Load ``"digits"``, ``"mnist"`` or the file at a path.

    MNIST is read from the folder that the environment variable ``SCRATCHVAE_DATA`` names or, when
    it is not set, from the user's cache, into which it is downloaded at first use.

    The format is recognised by the first bytes of the file, not by its name:

    - ``.npy``, of shape (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels C.
      It is memory-mapped, so it may be larger than memory as long as it is in C order and the
      channels are not first.
    - ``.npz`` with such an array ``x``, ``x_train`` or ``data``, and optionally ``y``, ``y_train``
      or ``target``, ``x_test`` and ``y_test``.
    - IDX images, MNIST's own format, with gzip or without.
    - A table of numbers as text, such as CSV, with a row of names above it or without one.
    - A folder of PNG or JPEG images of one size, or of one folder for each class.

    uint8 counts from 0 to 255 or, where nothing is larger than 1, from 0 to 1 as bool and floats
    do. Without ``x_test`` the last tenth of the rows, at least one, is the test part: shuffle rows
    that are sorted before you save them. Images of a folder are shuffled, always alike.

    Parameters
    ----------
    name : str or path
        What to load. A file that is itself called digits or mnist is ``"./digits"``.

    Returns
    -------
    Dataset
        Its arrays are read-only views of the file where the format allows that.

    Raises
    ------
    InputError
        If a file is missing, damaged, of another kind or a pipe, if an array in it has the wrong
        type or shape or holds NaN or infinity, if a column of a table holds no numbers or images
        of a folder differ in size or kind, or if MNIST can neither be found nor downloaded.
    """
    if os.fspath(name) == "":  # as a path it would be this folder
        raise InputError(
            "the name of the data is empty: expected digits, mnist, or the path of a file or a "
            "folder of images"
        )
    if name == "digits":
        return _digits()
    if name == "mnist":
        return _mnist()
    return _from_file(Path(name))


def to_float(batch: Array, scale: float, dtype: np.dtype[Any]) -> Array:
    """Return a batch (B, D) of pixels as floats in which `scale` has become exactly 1."""
    # A product with 1/scale would be as fast, but 255 times 1/255 need not round to 1.
    return namespace(batch).divide(batch, scale, dtype=dtype)  # (B, D)


@compiled
def gather(images: Array, rows: Array | slice, scale: float, dtype: np.dtype[Any]) -> Array:
    """Return rows (B,), or a slice, of images (N, D) as :func:`to_float` does, (B, D)."""
    return to_float(images[rows], scale, dtype)  # (B, D)


def binarize(
    x: Array, how: str, rng: np.random.Generator, backend: str | Backend = "numpy"
) -> Array:
    """Make grey pixels black or white.

    Parameters
    ----------
    x : array, (B, D)
        float32 or float64 in [0, 1].
    how : {"none", "threshold", "dynamic"}
        ``"none"`` returns `x` itself; ``"threshold"`` makes white what is brighter than one half;
        ``"dynamic"`` makes a pixel white with probability `x`, anew at every call.
    rng : numpy.random.Generator
        Only ``"dynamic"`` uses it.
    backend : {"numpy", "cupy"} or Backend
        Of `x`; its `noise` says who draws.

    Returns
    -------
    array, (B, D)
        Zeros and ones in the dtype of `x`.

    Raises
    ------
    InputError
        If `how` is none of the three.
    """
    if how == "none":
        return x
    if how == "threshold":
        return (x > 0.5).astype(x.dtype)  # (B, D)
    if how == "dynamic":
        # 0 <= u < 1, and the comparison is strict: 0 is never white and 1 always.
        u = get_backend(backend).uniform(rng, x.shape, x.dtype)  # (B, D)
        return (x > u).astype(x.dtype)  # (B, D)
    raise InputError(f"binarize is {how!r}: expected 'none', 'threshold' or 'dynamic'")


def rows_at_once(data_dim: int) -> int:
    """Return how many examples are taken at a time: 1,000, or of wide ones what 64 MB hold."""
    return max(1, min(1000, 2**24 // data_dim))


def require_fit(dataset: Dataset, model: Any, binarize: str) -> None:
    """Raise InputError unless the data can train the model.

    They must have its width and, where the likelihood or the binarisation needs it, lie in [0, 1].
    Where the model is given labels, they must have them.
    """
    if dataset.data_dim != model.data_dim:
        raise InputError(
            f"{dataset.name} has {dataset.data_dim} values per example: expected "
            f"{model.data_dim}, as the model was built for"
        )
    if model.classes is not None:
        x, x_test, name = dataset.train, dataset.test, f"labels of {dataset.name}"
        check_labels(f"the training {name}", dataset.train_labels, len(x), model.classes)
        check_labels(f"the test {name}", dataset.test_labels, len(x_test), model.classes)
    if binarize != "none":
        require_unit_interval(dataset, f"binarize={binarize!r}")
    elif model.likelihood.binary:
        require_unit_interval(dataset, BERNOULLI)


def require_unit_interval(dataset: Dataset, why: str) -> None:
    """Check that every pixel, divided by the scale, lies in [0, 1].

    Parameters
    ----------
    dataset : Dataset
        What to check, its test part included.
    why : str
        What asks for it, such as ``"the Bernoulli likelihood"``.

    Raises
    ------
    InputError
        If a pixel lies outside. The message gives the first such value and its row.
    """
    scale = dataset.scale
    for part, x in (("training", dataset.train), ("test", dataset.test)):
        if x.dtype == np.uint8 and scale >= 255:
            continue  # no byte can lie outside, so a large file need not be read
        bad = _first_bad(x, lambda rows: (rows >= 0) & (rows <= scale))  # NaN fails too
        if bad is not None:
            row, value = bad
            advice = ""
            if value > 1 == scale:
                advice = ", so divide by the value that means white, such as 255"
            if why == BERNOULLI:
                advice += "; the Gaussian one takes others, best with standardised columns"
            raise InputError(
                f"{dataset.name} holds {value / scale} in row {row} of its {part} part: "
                f"{why} needs values from 0 to 1{advice}"
            )


# ---- the embedded digits -------------------------------------------------------------------------


def _digits() -> Dataset:
    with np.load(Path(__file__).parent / "data" / "digits.npz", allow_pickle=False) as arrays:
        x, y, test = arrays["x"], arrays["y"].astype(np.int64), arrays["test"]
    return Dataset("digits", x[~test], x[test], y[~test], y[test], 16.0, (8, 8))


# ---- MNIST ---------------------------------------------------------------------------------------


def _mnist() -> Dataset:
    train, train_labels, test, test_labels = (
        parse_idx(_mnist_bytes(name), name) for name in MNIST_SHA256
    )
    return Dataset(
        "mnist",
        train.reshape(len(train), -1),  # (60000, 784)
        test.reshape(len(test), -1),  # (10000, 784)
        train_labels.astype(np.int64),
        test_labels.astype(np.int64),
        255.0,
        train.shape[1:],
    )


def _mnist_bytes(name: str) -> bytes:
    """Find or download one of the four files and return its unpacked, verified bytes."""
    chosen = os.environ.get("SCRATCHVAE_DATA")
    if chosen:
        folder = Path(chosen)
    else:
        import pooch

        folder = Path(pooch.os_cache("scratchvae"))
    for path in (folder / f"{name}.gz", folder / name):
        if os.path.exists(path):
            try:
                return _verified(path, name, str(path))
            except InputError:
                if chosen:
                    raise
                # Damaged in the cache, which is ours: it is fetched again below.
    if chosen:
        raise InputError(
            f"SCRATCHVAE_DATA={chosen} holds no {name}: expected it there, unpacked or as {name}.gz"
        )
    return _download(name, folder)


def _download(name: str, cache: Path) -> bytes:
    """Fetch NAME.gz from the first mirror that has it right, keep it, return its unpacked bytes."""
    import tempfile

    failure: Exception | None = None
    for mirror in MNIST_MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Beside its place in the cache: it is moved there in one step, and only once verified.
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                path = Path(folder) / f"{name}.gz"
                _fetch(url, path)
                data = _verified(path, name, url)
                path.replace(cache / path.name)
            return data
        except (OSError, InputError) as error:  # what requests raises is an OSError
            failure = error
    raise InputError(
        f"{name} cannot be downloaded ({failure}): put the four MNIST files into {cache}, or into "
        "a folder that the environment variable SCRATCHVAE_DATA names"
    )


def _fetch(url: str, path: Path) -> None:
    """Write what a mirror sends to a file, as far as it is neither too much nor too slow."""
    import requests  # pooch has brought it, and reads in whole blocks, however slow they come
    import urllib3
    from tqdm import tqdm

    end = time.monotonic() + DOWNLOAD_SECONDS
    with requests.get(url, stream=True, timeout=SILENT_SECONDS) as response, open(path, "wb") as f:
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        with tqdm(total=total, unit="B", unit_scale=True, desc=path.name) as bar:
            # read1, since 2.1, gives what has come, where read would wait for a whole block.
            receive = getattr(response.raw, "read1", response.raw.read)
            while True:
                try:
                    block = receive(2**16, decode_content=True)
                except urllib3.exceptions.HTTPError as error:
                    raise OSError(str(error)) from None
                if not block:
                    return
                f.write(block)
                bar.update(len(block))
                if f.tell() > DOWNLOAD_BYTES:
                    raise InputError(f"{url} sends more than {DOWNLOAD_BYTES:,} bytes")
                if time.monotonic() > end:
                    raise InputError(f"{url} has sent {f.tell():,} bytes in {DOWNLOAD_SECONDS:g} s")


def _verified(path: Path, name: str, source: str) -> bytes:
    import hashlib

    with one_sentence(source, "a whole file, packed by gzip or not"):
        data = unpacked(path)
    found, expected = hashlib.sha256(data).hexdigest(), MNIST_SHA256[name]
    if found != expected:
        raise InputError(
            f"{source} is not MNIST's {name}: its unpacked bytes have the SHA-256 {found}, "
            f"expected {expected}"
        )
    return data


# ---- the user's own files ------------------------------------------------------------------------


def _from_file(path: Path) -> Dataset:
    import difflib

    expected = (
        "digits, mnist, a whole .npy, .npz, IDX or CSV file of numbers, or a folder of images"
    )
    close = difflib.get_close_matches(str(path), BUILT_IN, 1)
    if close and not os.path.lexists(path):
        expected += f"; did you mean {close[0]}?"
    with one_sentence(str(path), expected):
        content = read(path)
    return _from_content(str(path), content, f" of {path}")


def _from_content(name: str, content: Content, of: str = "") -> Dataset:
    """Return a data set of the arrays x, y, x_test and y_test; all but the first may be missing.

    `of` tells in messages where the arrays come from.
    """
    arrays = content.arrays
    where = {key: f"array {content.called.get(key, key)}{of}" for key in arrays}
    known = content.channels_last
    x, image_shape = _as_rows(arrays["x"], where["x"], 2, known)  # (N, D)
    y = _as_labels(arrays["y"], x, where["y"]) if "y" in arrays else None  # (N,)
    if content.columns is not None:
        image_shape = (1, x.shape[1])

    if "x_test" in arrays:
        x_test, test_shape = _as_rows(arrays["x_test"], where["x_test"], 1, known)  # (M, D)
        found, expected = ((a.shape[1], arrays[k].dtype) for k, a in (("x_test", x_test), ("x", x)))
        if found != expected:
            raise InputError(
                f"{where['x_test']} has {found[0]} features of type {found[1]} a row: "
                f"expected {expected[0]} of type {expected[1]}, as x has"
            )
        if arrays["x_test"].ndim > 2 and test_shape != image_shape:
            raise InputError(
                f"{where['x_test']} holds images of the shape {test_shape}: expected "
                f"{image_shape}, as x does"
            )
        y_test = None
        if "y_test" in arrays:
            y_test = _as_labels(arrays["y_test"], x_test, where["y_test"])  # (M,)
    elif "y_test" in arrays:
        raise InputError(f"{name} holds an array y_test but no x_test: expected both or none")
    else:
        n = len(x) - max(1, len(x) // 10)
        x, x_test = x[:n], x[n:]  # (n, D), (N - n, D)
        y, y_test = (None, None) if y is None else (y[:n], y[n:])
    scale = 1.0
    if x.dtype == np.uint8:
        bits, bits_test = _is_binary(x), _is_binary(x_test)
        if bits and not bits_test and "x_test" in arrays:
            raise InputError(
                f"{where['x']} holds 0 and 1 only, and {where['x_test']} numbers up to "
                f"{x_test.max()}: expected both in one unit"
            )
        scale = 1.0 if bits and bits_test else 255.0
    flat = arrays["x"].ndim == 2
    return Dataset(name, x, x_test, y, y_test, scale, image_shape, content.columns, flat)


def _require_same_names(x: Sequence[str] | None, x_test: Sequence[str] | None) -> None:
    """Raise InputError if the columns of two frames differ: they are taken by their places."""
    for j, (expected, found) in enumerate(zip(x or (), x_test or (), strict=False), 1):
        if found != expected:
            raise InputError(
                f"x_test has {found!r} as its column {j}: expected {expected!r}, as in x, so give "
                "both the same columns in the same order"
            )


def _is_binary(x: Array) -> bool:
    """Return whether no byte of x (N, D) is larger than 1; the first that is ends the reading."""
    return _first_bad(x, lambda rows: rows <= 1) is None


def _as_rows(
    x: Array, where: str, least: int, channels_last: bool
) -> tuple[Array, tuple[int, ...]]:
    """Check examples of shape (N, ...); return them as (N, D), a view if possible, and their shape.

    A row of D numbers is taken as a square image if it can be one, else as (1, D).
    """
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    elif x.dtype != np.uint8 and not (x.dtype.kind == "f" and x.dtype.itemsize <= 8):
        raise InputError(
            f"{where} is {x.dtype}: convert it to uint8 (0 to 255), bool, float32 or float64"
        )
    if not (2 <= x.ndim <= 4 and len(x) >= least and x[0].size >= 1):
        raise InputError(
            f"{where} has the shape {x.shape}: expected (N, D), (N, H, W) or (N, H, W, C) "
            f"with N at least {least} and no other dimension 0"
        )
    if x.ndim == 4 and not channels_last:
        x = _channels_last(x, where)
    image_shape = x.shape[1:]
    x = x.reshape(len(x), -1)  # (N, D)
    if len(image_shape) == 1:
        side = math.isqrt(x.shape[1])
        image_shape = (side, side) if side * side == x.shape[1] else (1, x.shape[1])
    bad = _first_bad(x, np.isfinite) if x.dtype.kind == "f" else None
    if bad is not None:
        raise InputError(f"{where} holds {bad[1]:g} in row {bad[0]}: expected finite numbers")
    return x, image_shape


def _channels_last(x: Array, where: str) -> Array:
    """Return images (N, H, W, C) or (N, C, H, W) as (N, H, W, C), by which is 1, 3 or 4."""
    first, last = (x.shape[axis] in CHANNELS for axis in (1, 3))
    if first == last:
        can = "both" if first else "neither"
        of = " and ".join(str(x.shape[axis]) for axis in (1, 3))
        raise InputError(
            f"{where} has the shape {x.shape}, in which {can} of {of} can be the number of "
            "channels, 1, 3 or 4: expected (N, H, W, C) or (N, C, H, W) that can be told apart, or "
            "(N, H, W)"
        )
    return np.moveaxis(x, 1, 3) if first else x


def _as_labels(y: Array, x: Array, where: str) -> Array:
    if y.shape != (len(x),) or y.dtype.kind not in "iub":
        raise InputError(
            f"{where} has the shape {y.shape} and is {y.dtype}: "
            f"expected ({len(x)},), one integer for each row"
        )
    labels = y.astype(np.int64)  # (N,)
    if (labels != y).any():
        raise InputError(f"{where} holds {y.max()}: expected integers below 2**63")
    return labels


def _first_bad(x: Array, is_good: Callable[[Array], Array]) -> tuple[int, float] | None:
    """Return row and value of the first element of (N, D) that is not good, or None."""
    step = max(1, 2**20 // x.shape[1])  # rows at a time: `x` may be larger than memory
    for start in range(0, len(x), step):
        good = is_good(x[start : start + step])  # (step, D)
        if not good.all():
            row, column = divmod(int(np.argmin(good)), x.shape[1])
            return start + row, float(x[start + row, column])
    return None
