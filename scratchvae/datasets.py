"""The embedded digits, MNIST and the user's own arrays, all as rows of pixels.

Images stay in memory as they are on disk, one byte a pixel; :func:`to_float` and :func:`binarize`
make the floats of one batch at a time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .backend import Array, Backend, asnumpy, get_backend, namespace
from .errors import InputError, check_labels
from .kernels import compiled

BUILT_IN = ("digits", "mnist")
BINARIZE = ("none", "threshold", "dynamic")

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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples, one in each row.

    Attributes
    ----------
    name : str
        ``"digits"``, ``"mnist"`` or the path of a file.
    train, test : array, (N, D) and (M, D)
        uint8 or float.
    train_labels, test_labels : array of int64, (N,) and (M,), or None
        Only a model that is given labels trains with them; otherwise they colour the figures.
    scale : float
        The pixel value that means white.
    image_shape : tuple of int
        (H, W) or (H, W, C), with the product D.
    """

    name: str
    train: Array
    test: Array
    train_labels: Array | None
    test_labels: Array | None
    scale: float
    image_shape: tuple[int, ...]

    @classmethod
    def from_arrays(cls, x: Any, y: Any = None, test: Any = None) -> Dataset:
        """Return a data set made of arrays in memory.

        Parameters
        ----------
        x : array, (N, D), (N, H, W) or (N, H, W, C)
            uint8 counts from 0 to 255, bool and floats from 0 to 1.
        y : array of int, (N,), optional
            Labels.
        test : array, or a pair (x_test, y_test), optional
            The test part; without it the last tenth of the rows of `x`, at least one.

        Raises
        ------
        InputError
            If an array has the wrong type or shape, or holds NaN or infinity.
        """
        x_test, y_test = test if isinstance(test, tuple | list) else (test, None)
        given = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
        arrays = {k: np.asarray(a) for k, a in given.items() if a is not None}
        return _from_arrays("your array", arrays)

    def __repr__(self) -> str:
        n, m = len(self.train), len(self.test)
        return f"Dataset({self.name!r}, {n:,} + {m:,} rows of {self.data_dim} {self.train.dtype})"

    def fingerprint(self) -> str:
        """Return a SHA-256 of the examples, the labels and the scale: equal for equal data."""
        import hashlib

        digest = hashlib.sha256(repr(self.scale).encode())
        for a in (self.train, self.test, self.train_labels, self.test_labels):
            if a is not None:
                digest.update(repr((a.dtype.str, a.shape)).encode())
                step = max(1, 2**20 // a[:1].nbytes)  # rows at a time: `a` may not fit in memory
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

    - ``.npy``, of shape (N, D), (N, H, W) or (N, H, W, C). It is memory-mapped, so it may be larger
      than memory as long as it is in C order.
    - ``.npz`` with such an array ``x``, and optionally ``y``, ``x_test`` and ``y_test``.
    - IDX images, MNIST's own format, with gzip or without.

    uint8 counts from 0 to 255, bool and floats from 0 to 1. Without ``x_test`` the last tenth of
    the rows, at least one, is the test part: shuffle rows that are sorted before you save them.

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
        type or shape or holds NaN or infinity, or if MNIST can neither be found nor downloaded.
    """
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
        require_unit_interval(dataset, "the Bernoulli likelihood")


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
            raise InputError(
                f"{dataset.name} holds {value / scale} in row {row} of its {part} part: "
                f"{why} needs values from 0 to 1"
            )


# ---- the embedded digits -------------------------------------------------------------------------


def _digits() -> Dataset:
    with np.load(Path(__file__).parent / "data" / "digits.npz", allow_pickle=False) as arrays:
        x, y, test = arrays["x"], arrays["y"].astype(np.int64), arrays["test"]
    return Dataset("digits", x[~test], x[test], y[~test], y[test], 16.0, (8, 8))


# ---- MNIST ---------------------------------------------------------------------------------------


def _mnist() -> Dataset:
    train, train_labels, test, test_labels = (
        _parse_idx(_mnist_bytes(name), name) for name in MNIST_SHA256
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

    import pooch

    failure: Exception | None = None
    for mirror in MNIST_MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Beside its place in the cache: it is moved there in one step, and only once verified.
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                path = Path(folder) / f"{name}.gz"
                pooch.HTTPDownloader(progressbar=True)(url, str(path), None)
                data = _verified(path, name, url)
                path.replace(cache / path.name)
            return data
        except (OSError, InputError) as error:  # what requests raises is an OSError
            failure = error
    raise InputError(
        f"{name} cannot be downloaded ({failure}): put the four MNIST files into {cache}, or into "
        "a folder that the environment variable SCRATCHVAE_DATA names"
    )


def _verified(path: Path, name: str, source: str) -> bytes:
    import hashlib

    with _one_sentence(source, "a whole file, packed by gzip or not"):
        data = _unpacked(path)
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

    expected = "digits, mnist or a whole .npy, .npz or IDX file of numbers"
    close = difflib.get_close_matches(str(path), BUILT_IN, 1)
    if close and not os.path.lexists(path):
        expected += f"; did you mean {close[0]}?"
    with _one_sentence(str(path), expected):
        arrays = _read_arrays(path)
    return _from_arrays(str(path), arrays, f" of {path}")


def _from_arrays(name: str, arrays: dict[str, Array], of: str = "") -> Dataset:
    """Return a data set of the arrays x, y, x_test and y_test; all but the first may be missing.

    `of` tells in messages where the arrays come from.
    """
    x, scale = _as_rows(arrays["x"], f"array x{of}", least=2)  # (N, D)
    y = _as_labels(arrays["y"], x, f"array y{of}") if "y" in arrays else None  # (N,)
    image_shape = arrays["x"].shape[1:]
    if len(image_shape) == 1:
        side = math.isqrt(x.shape[1])
        image_shape = (side, side) if side * side == x.shape[1] else (1, x.shape[1])

    if "x_test" in arrays:
        where = f"array x_test{of}"
        x_test, _ = _as_rows(arrays["x_test"], where, least=1)  # (M, D)
        found, expected = ((a.shape[1], arrays[k].dtype) for k, a in (("x_test", x_test), ("x", x)))
        if found != expected:
            raise InputError(
                f"{where} has {found[0]} features of type {found[1]} a row: "
                f"expected {expected[0]} of type {expected[1]}, as x has"
            )
        y_test = None
        if "y_test" in arrays:
            y_test = _as_labels(arrays["y_test"], x_test, f"array y_test{of}")  # (M,)
    elif "y_test" in arrays:
        raise InputError(f"{name} holds an array y_test but no x_test: expected both or none")
    else:
        n = len(x) - max(1, len(x) // 10)
        x, x_test = x[:n], x[n:]  # (n, D), (N - n, D)
        y, y_test = (None, None) if y is None else (y[:n], y[n:])
    return Dataset(name, x, x_test, y, y_test, scale, image_shape)


def _read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of a file by name; the only one of a .npy or IDX file is called x."""
    _require_file(path)
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
    if magic[:2] == b"PK":
        # Opened here: np.load would leave its own file open if this is not a zip file after all.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "x" not in arrays:
                names = ", ".join(arrays) or "nothing"
                raise InputError(f"{path} holds no array x but {names}: expected an array x")
            keys = ("x", "y", "x_test", "y_test")
            return {key: np.asarray(arrays[key]) for key in keys if key in arrays}
    if magic[:2] in (b"\0\0", b"\x1f\x8b"):
        return {"x": _parse_idx(_unpacked(path), str(path))}
    found = f"starts with {magic!r}" if magic else "is empty"
    raise InputError(f"{path} {found}: expected a .npy, .npz or IDX file, whatever its suffix")


def _as_rows(x: Array, where: str, least: int) -> tuple[Array, float]:
    """Check pixels of shape (N, ...) and return them as (N, D), a view, with their scale."""
    if x.dtype == np.uint8:
        scale = 255.0
    elif x.dtype == np.bool_:
        x, scale = x.view(np.uint8), 1.0
    elif x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        scale = 1.0
    else:
        raise InputError(
            f"{where} is {x.dtype}: convert it to uint8 (0 to 255), bool, float32 or float64"
        )
    if not (2 <= x.ndim <= 4 and len(x) >= least and x[0].size >= 1):
        raise InputError(
            f"{where} has the shape {x.shape}: expected (N, D), (N, H, W) or (N, H, W, C) "
            f"with N at least {least} and no other dimension 0"
        )
    x = x.reshape(len(x), -1)  # (N, D)
    bad = _first_bad(x, np.isfinite) if x.dtype.kind == "f" else None
    if bad is not None:
        raise InputError(f"{where} holds {bad[1]:g} in row {bad[0]}: expected finite numbers")
    return x, scale


def _as_labels(y: Array, x: Array, where: str) -> Array:
    if y.shape != (len(x),) or y.dtype.kind not in "iub":
        raise InputError(
            f"{where} has the shape {y.shape} and is {y.dtype}: "
            f"expected ({len(x)},), one integer for each row"
        )
    return y.astype(np.int64)  # (N,)


def _first_bad(x: Array, is_good: Callable[[Array], Array]) -> tuple[int, float] | None:
    """Return row and value of the first element of (N, D) that is not good, or None."""
    step = max(1, 2**20 // x.shape[1])  # rows at a time: `x` may be larger than memory
    for start in range(0, len(x), step):
        good = is_good(x[start : start + step])  # (step, D)
        if not good.all():
            row, column = divmod(int(np.argmin(good)), x.shape[1])
            return start + row, float(x[start + row, column])
    return None


# ---- bytes ---------------------------------------------------------------------------------------


def _require_file(path: Path) -> None:
    """Raise InputError for what could be read for ever, such as a pipe or /dev/zero."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a device or a pipe: expected a file")


def _unpacked(path: Path) -> bytes:
    """Return the bytes of an IDX file, unpacked as far as its header says and one more at most."""
    import gzip  # here, as the other imports inside functions, for a quick `import scratchvae`

    _require_file(path)
    packed = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read()
    with gzip.open(path) as unpacked:
        header = unpacked.read(4)
        if header[:3] != b"\0\0\x08" or header[3:] > b"\4":
            return header + unpacked.read(2**20)  # no IDX file: enough to say what it is
        header += unpacked.read(4 * header[3])
        shape = [int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4)]
        size = math.prod(shape)
        if size > 1100 * packed:  # gzip makes nothing smaller than a thousandth
            raise InputError(
                f"{path} has {packed:,} bytes: too few for {size:,} unpacked ones, as its IDX "
                f"header with the dimensions {shape} says"
            )
        return header + unpacked.read(size + 1)


def _parse_idx(data: bytes, where: str) -> Array:
    """Parse IDX: 0, 0, type, number of dimensions; each as a big-endian uint32; the values."""
    if data[:3] != b"\0\0\x08" or not 1 <= int.from_bytes(data[3:4], "big") <= 4:
        raise InputError(
            f"{where} starts with {data[:4]!r}: expected an IDX file of unsigned bytes, "
            "which starts with 0, 0, 8 and the number of its dimensions, 1 to 4"
        )
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) != start + math.prod(shape):
        raise InputError(
            f"{where} has {len(data)} unpacked bytes: expected {start + math.prod(shape)}, as its "
            f"IDX header with the dimensions {shape} says"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


@contextmanager
def _one_sentence(where: str, expected: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an InputError of one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy have one each for every kind of damage
        found = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(
            f"{where} cannot be read ({found.splitlines()[0].rstrip('.')}): expected {expected}"
        ) from None
