"""What files hold, as arrays: .npy, .npz, IDX, tables as text, folders of images, and frames.

The first bytes of a file say what it is, not its name. Whatever is wrong with one becomes an
:class:`~scratchvae.InputError` of one sentence.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .backend import Array
from .errors import InputError, on_one_line

# What the arrays of an .npz file may be called: our names, Keras's and scikit-learn's.
NAMES = {
    "x": ("x", "x_train", "data"),
    "y": ("y", "y_train", "target"),
    "x_test": ("x_test",),
    "y_test": ("y_test",),
}
IMAGES = (".png", ".jpg", ".jpeg")
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA"}
# What a packed file may unpack to: this many bytes, or this many times its own. Numbers that are no
# zeros are hardly ever packed that well.
UNPACKED_BYTES, UNPACKED_TIMES = 2**30, 100
KINDS = {"L": "grey", "RGB": "in colour", "RGBA": "in colour with transparency"}


@dataclass
class Content:
    """What a file or a frame holds.

    Attributes
    ----------
    arrays : dict
        x, and where there are any y, x_test and y_test.
    called : dict
        Their names in the file, where these are others.
    columns : tuple of str, optional
        The names of the columns if x is a table.
    channels_last : bool
        Whether images are known to be (N, H, W, C).
    """

    arrays: dict[str, Array]
    called: dict[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    channels_last: bool = False


def read(path: Path) -> Content:
    """Return what a file holds, or a folder of images.

    Raises
    ------
    InputError
        If it is of no known kind, or holds no numbers.
    """
    if path.is_dir():
        return read_images(path)
    require_file(path)
    with open(path, "rb") as file:
        start = file.read(4096)
    if start[:6] == b"\x93NUMPY":
        return Content({"x": np.load(path, mmap_mode="r", allow_pickle=False)})
    if start[:2] == b"PK":
        return _read_npz(path)
    if start[:2] in (b"\0\0", b"\x1f\x8b"):
        return Content({"x": parse_idx(unpacked(path), str(path))})
    if _is_text(start):
        return _read_table(path)
    found = f"starts with {start[:6]!r}" if start else "is empty"
    raise InputError(
        f"{path} {found}: expected a .npy, .npz, IDX or CSV file, whatever its suffix, or a folder "
        "of images"
    )


@contextmanager
def one_sentence(where: str, expected: str) -> Iterator[None]:
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


def require_file(path: Path) -> None:
    """Raise InputError for what could be read for ever, such as a pipe or /dev/zero."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe: expected a file")


# ---- .npz ----------------------------------------------------------------------------------------


def _read_npz(path: Path) -> Content:
    # Opened here: np.load would leave its own file open if this is not a zip file after all.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        content = Content({})
        known = {name for names in NAMES.values() for name in names}
        read = (m for m in arrays.zip.infolist() if m.filename.removesuffix(".npy") in known)
        size = sum(member.file_size for member in read)
        _require_bounded(
            path, path.stat().st_size, size, "save x as .npy, which need not fit in memory"
        )
        for ours, names in NAMES.items():
            found = [name for name in names if name in arrays]
            if len(found) > 1 and ours not in found:
                raise InputError(
                    f"{path} holds both {found[0]} and {found[1]}: expected one of them"
                )
            if found:
                content.arrays[ours] = np.asarray(arrays[found[0]])
                content.called[ours] = found[0]
        if "x" not in content.arrays:
            others = on_one_line(arrays) or "nothing"
            raise InputError(
                f"{path} holds no array x but {others}: expected an array x, x_train or data"
            )
    return content


# ---- tables --------------------------------------------------------------------------------------


def _is_text(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a text."""
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # in the middle of a character
            return False
        text = start[: error.start].decode("utf-8-sig")
    return bool(text.strip()) and all(c.isprintable() or c in "\t\r\n" for c in text)


def _read_table(path: Path) -> Content:
    """Read numbers as text, in columns, with a row of names above them or without one."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = iter(lambda: file.readline(2**20), "")
        first = next((line for line in lines if line.strip()), "")
        delimiter: str | None = max(",;\t", key=first.count)
        if first.count(str(delimiter)) == 0:
            delimiter = None if len(first.split()) > 1 else ","
        file.seek(0)
        rows = _rows(file, delimiter)
        above, top = next(rows, (0, []))
        _, second = next(rows, (0, []))
    header = not any(map(_is_number, top))
    names = _names(top, delimiter) if header else tuple(str(j) for j, _ in enumerate(top, 1))
    if header and not second:
        raise InputError(
            f"{path} has a row of names and no rows of numbers: expected at least two of them"
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path} has two columns {twice!r}: expected names that differ")
    how: dict[str, Any] = {"delimiter": delimiter, "ndmin": 2, "comments": None, "quotechar": '"'}
    failure: ValueError | None = None
    try:
        with open(path, encoding="utf-8-sig") as file:  # by a name NumPy would unpack it
            below = itertools.islice(file, above if header else 0, None)
            x = np.loadtxt((line for line in below if line.strip(" \r\n")), **how)
    except ValueError as error:
        failure = error
    if failure is None and x.shape[1] == len(names) and np.isfinite(x).all():
        return Content({"x": x}, columns=names)  # (N, D)
    with open(path, newline="", encoding="utf-8-sig") as file:
        _require_numbers(path, _rows(file, delimiter), names, header)
    raise failure or ValueError("a field in it can be read in two ways")


def _names(top: Sequence[str], delimiter: str | None) -> tuple[str, ...]:
    """Return the names in the first row of a table.

    A number sign before them, as `numpy.savetxt` writes it, is none of them and part of none.
    """
    first, *others = top
    if first != "#":
        others = [first.removeprefix("#"), *others]
    elif delimiter is not None:  # a column of its own, such as one that counts the rows
        others = [first, *others]
    return tuple(on_one_line(text.strip()) for text in others)


def _rows(file: TextIO, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not empty, each after the number of its last line."""
    import csv

    if delimiter is None:
        rows = ((n, line.split()) for n, line in enumerate(file, 1))
    else:
        reader = csv.reader(file, delimiter=delimiter)
        rows = ((reader.line_num, row) for row in reader)
    yield from ((n, row) for n, row in rows if len(row) > 1 or "".join(row).strip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _require_numbers(
    path: Path, rows: Iterator[tuple[int, list[str]]], names: Sequence[str], header: bool
) -> None:
    """Raise InputError for the first field that is no finite number, or row of other length."""
    if header:
        next(rows, None)
    first = not header
    for line, row in rows:
        if len(row) != len(names):
            fields = "field" if len(row) == 1 else "fields"
            raise InputError(
                f"{path} has {len(row)} {fields} in line {line}: expected {len(names)}, as in its "
                "first line"
            )
        for name, text in zip(names, row, strict=True):
            number = _is_number(text)
            if not number or not math.isfinite(float(text)):
                found = f"holds {text[:40]!r}" if text.strip() else "is empty"
                kind = "finite number" if number else "number"
                taken = ""
                if first and not number:
                    taken = f"; line {line} was not taken as a row of names, since it has a number"
                raise InputError(
                    f"{path}: the column {name[:40]!r} {found} in line {line}: expected a {kind} "
                    f"in every row, so fill it or leave the column out{taken}"
                )
        first = False


def is_frame(x: Any) -> bool:
    """Return whether `x` is a table with named columns, such as a frame of pandas."""
    return hasattr(x, "columns") and hasattr(x, "__getitem__") and not isinstance(x, np.ndarray)


def read_frame(x: Any, name: str) -> Content:
    """Return what a frame holds: its columns as numbers (N, D), float64 if they differ in type.

    Raises
    ------
    InputError
        If a column does not hold numbers, naming the column.
    """
    columns = []
    for key in x.columns:
        column = np.asarray(x[key])
        text = on_one_line(str(key))
        if column.ndim != 1:
            raise InputError(f"{name} has two columns {text!r}: expected names that differ")
        if column.dtype.kind not in "buif":
            raise InputError(
                f"{name}: the column {text!r} is of type {column.dtype}: expected numbers, so "
                "convert it or leave it out"
            )
        if column.dtype.kind == "f" and np.isnan(column).any():
            row = int(np.isnan(column).argmax())
            raise InputError(
                f"{name}: the column {text!r} is empty in row {row}: expected a number in every "
                "row, so fill it or leave the column out"
            )
        columns.append(column)
        if len(column) != len(columns[0]):
            raise InputError(
                f"{name}: the column {text!r} has {len(column)} rows, and the first has "
                f"{len(columns[0])}: expected columns of one length"
            )
    if not columns:
        raise InputError(f"{name} has no columns: expected at least one")
    table = np.stack(columns, axis=1)  # (N, D)
    names = tuple(on_one_line(str(key)) for key in x.columns)
    keep = table.dtype == np.uint8 or table.dtype.kind in "bf"
    return Content({"x": table if keep else table.astype(np.float64)}, columns=names)


# ---- folders of images ---------------------------------------------------------------------------


def read_images(folder: Path) -> Content:
    """Read the images of a folder or, if its folders hold them, with the folder as the label.

    They come in an order that is drawn once and for all: names are often sorted by what is shown.

    Raises
    ------
    InputError
        If there are none, or they differ in size or kind, naming the first that differs.
    """
    files = [(path, 0) for path in _images_in(folder)]
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[:1] != ".")
    classes = [sub for sub in inner if _images_in(sub)]
    if files and classes:
        raise InputError(
            f"{folder} holds images, and {classes[0].name} in it does too: expected images in the "
            "folder itself, or in one folder for each class"
        )
    files += [(path, label) for label, sub in enumerate(classes) for path in _images_in(sub)]
    if not files:
        hint = ""
        if any("-idx3-ubyte" in p.name for p in folder.iterdir()):
            hint = f"; if it holds MNIST, set SCRATCHVAE_DATA={folder} and call the data mnist"
        raise InputError(
            f"{folder} is a folder without images: expected files that end in {', '.join(IMAGES)}, "
            f"or one folder of them for each class{hint}"
        )
    order = np.random.default_rng(0).permutation(len(files))
    x: Array = None
    first, kind = files[order[0]][0], ""
    for i, k in enumerate(order):
        image = _read_image(files[k][0])  # (H, W) or (H, W, C)
        if x is None:
            packed = sum(file.stat().st_size for file, _ in files)
            _require_bounded(folder, packed, len(files) * image.nbytes, "take smaller images")
            x = np.empty((len(files), *image.shape), np.uint8)
            kind = _in_words(image)
        elif image.shape != x.shape[1:]:
            raise InputError(
                f"{files[k][0]} is {_in_words(image)}, and {first} is {kind}: expected images of "
                "one size and kind"
            )
        x[i] = image
    content = Content({"x": x}, channels_last=True)
    if classes:
        content.arrays["y"] = np.array([files[k][1] for k in order])  # (N,)
    return content


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGES and p.name[:1] != "." and not p.is_dir()
    )


def _read_image(path: Path) -> Array:
    """Return the pixels of a PNG or JPEG image, uint8 (H, W) or (H, W, C)."""
    import warnings

    from PIL import Image, ImageOps  # matplotlib has brought it

    require_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(25)
    except OSError as error:  # a link that leads nowhere, say: not the folder is to blame
        raise InputError(
            f"{path} cannot be read ({error.strerror}): expected a PNG or JPEG image"
        ) from None
    if start[:4] == b"\x89PNG" and start[24:] == b"\x10":  # Pillow would cut colours to 8 bits
        raise InputError(f"{path} has 16 bits a channel: expected 8, grey or in colour")
    with one_sentence(str(path), "a whole PNG or JPEG image"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG", "JPEG")) as stored:
            image = ImageOps.exif_transpose(stored)  # upright, as viewers show a camera's picture
            transparent = image.mode == "P" and "transparency" in image.info
            mode = "RGBA" if transparent else MODES.get(image.mode)
            if mode is None:
                raise InputError(
                    f"{path} has pixels of the kind {image.mode}: expected 8 bits a channel, grey "
                    "or in colour"
                )
            return np.asarray(image if image.mode == mode else image.convert(mode))


def _in_words(image: Array) -> str:
    kind = {1: "L", 3: "RGB", 4: "RGBA"}[1 if image.ndim == 2 else image.shape[2]]
    return f"{image.shape[1]} by {image.shape[0]} pixels {KINDS[kind]}"


# ---- IDX -----------------------------------------------------------------------------------------


def unpacked(path: Path) -> bytes:
    """Return the bytes of an IDX file, unpacked as far as its header says and one more at most.

    Of a file that is none, enough is returned to say so.
    """
    import gzip  # here, as the other imports inside functions, for a quick `import scratchvae`

    require_file(path)
    found = path.stat().st_size
    with open(path, "rb") as start:
        is_packed = start.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_packed else open(path, "rb") as file:
        header = file.read(4)
        if header[:3] != b"\0\0\x08" or header[3:] > b"\4":
            return header + file.read(2**20)
        header += file.read(4 * header[3])
        shape = [int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4)]
        size = math.prod(shape)
        if not is_packed:
            file.seek(0)  # to read it in one piece, which is not copied
            return file.read(min(len(header) + size, found) + 1)
        if size > 1100 * found:  # gzip makes nothing smaller than a thousandth
            raise InputError(
                f"{path} has {found:,} bytes: too few for {size:,} unpacked ones, as its IDX "
                f"header with the dimensions {shape} says"
            )
        _require_bounded(path, found, size, "unpack it with gunzip")
        return header + file.read(size + 1)


def _require_bounded(path: Path, packed: int, unpacked: int, instead: str) -> None:
    """Raise InputError if a file or folder of few bytes would fill the memory when unpacked."""
    if unpacked > max(UNPACKED_BYTES, UNPACKED_TIMES * packed):
        raise InputError(
            f"{path} has {packed:,} bytes and unpacks to {unpacked:,}: expected no more than "
            f"{UNPACKED_TIMES} times as many, or {UNPACKED_BYTES:,}, so {instead}"
        )


def parse_idx(data: bytes, where: str) -> Array:
    """Parse IDX: 0, 0, type, number of dimensions; each as a big-endian uint32; the values."""
    if data[:3] != b"\0\0\x08" or not 1 <= int.from_bytes(data[3:4], "big") <= 4:
        raise InputError(
            f"{where} starts with {data[:4]!r}: expected an IDX file of unsigned bytes, "
            "which starts with 0, 0, 8 and the number of its dimensions, 1 to 4"
        )
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + math.prod(shape)
    if len(data) != expected:
        found = len(data) if len(data) < expected else f"more than {expected}"
        raise InputError(
            f"{where} has {found} unpacked bytes: expected {expected}, as its IDX header with the "
            f"dimensions {shape} says"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
