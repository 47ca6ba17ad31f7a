"""Files of every kind, whole and damaged: a data set comes out of them, or one sentence."""

import gzip
import io
import math
import re

import numpy as np
import pytest
from fuzzing import cases, changed_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import scratchvae as sv

pytestmark = pytest.mark.slow

DTYPES = [*("u1", "?", "<f4", "<f8", ">f4", "f2", "i1", "<i4", "<u2", "c8", "S3", "U2", "M8[s]")]
SIZES = st.sampled_from([0, 1, 7, 10**6, 2**31, 2**40, 2**63, 2**64, -1])


@st.composite
def arrays(draw):
    """Return an array that can be data more often than not."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "?", "<f4", "<f8"]) | st.sampled_from(DTYPES)))
    dims = draw(st.sampled_from([(2, 4, 2, 4), (0, 5, 0, 4)]))
    low, high, least, most = dims
    shape = draw(hnp.array_shapes(min_dims=low, max_dims=high, min_side=least, max_side=most))
    x = np.zeros(shape, dtype)
    if dtype.kind in "uif" and x.size:
        values = draw(st.lists(st.sampled_from([0, 1, 0.5, 0.25, 0.125]), max_size=x.size))
        x.reshape(-1)[: len(values)] = values
        if dtype.kind == "f" and draw(st.integers(0, 3)) == 0:
            x.reshape(-1)[-1] = draw(st.sampled_from([-3, math.nan, math.inf, 1e4]))
    return np.asfortranarray(x) if draw(st.booleans()) else x


FIELDS = [
    *("1", "2.5", "-3", "0", "1e3", "1e400", "nan", "", " ", "x", "NEAR BAY", "é", '"', "1_0")
]


@st.composite
def tables(draw):
    """Return a table as text that is one of numbers more often than not."""
    delimiter = draw(st.sampled_from([",", ";", "\t", " ", "  "]))
    width, field = draw(st.integers(1, 5)), st.sampled_from(FIELDS[:5])
    if draw(st.booleans()):
        field |= st.sampled_from(FIELDS)
    rows = draw(st.lists(st.lists(field, min_size=width, max_size=width), min_size=2, max_size=8))
    if rows and draw(st.integers(0, 9)) == 0:
        rows[-1] = rows[-1][1:]
    if draw(st.booleans()):
        rows.insert(
            0, draw(st.lists(st.sampled_from(["a", '"b"', "2020", ""]), max_size=width + 1))
        )
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    text = end.join(delimiter.join(row) for row in rows) + draw(st.sampled_from(["", end]))
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"])))


@st.composite
def images(draw):
    """Return an image, which is one among whole ones of grey pixels, 4 by 3."""
    mode = draw(st.sampled_from(["L", "L", "L", "1", "P", "LA", "RGB", "RGBA", "I;16", "CMYK"]))
    size = draw(st.sampled_from([(4, 3), (4, 3), (4, 3), (1, 1), (300, 2)]))
    kind = "JPEG" if mode in ("L", "RGB", "CMYK") and draw(st.booleans()) else "PNG"
    kind = "JPEG" if mode == "CMYK" else kind
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


@st.composite
def files(draw):
    kinds = ["npy", "npz", "idx", "gz", "header", "bytes", "table", "image", "class"]
    kind = draw(st.sampled_from(kinds))
    if kind == "table":
        return kind, draw(tables())
    if kind in ("image", "class"):
        return kind, draw(images())
    out = io.BytesIO()
    if kind == "bytes":
        start = st.sampled_from([b"", b"\x93NUMPY", b"PK\3\4", b"\x1f\x8b\x08", b"\0\0\x08\x03"])
        return kind, draw(start) + draw(st.binary(max_size=64))
    if kind == "npz":
        known = ["y", "x_test", "y_test", "z", "x_train", "y_train", "data", "target"]
        names = draw(st.sets(st.sampled_from(known), max_size=3))
        names |= {"x"} if draw(st.integers(0, 3)) else set()
        save = draw(st.sampled_from([np.savez, np.savez_compressed]))
        save(out, **{name: draw(arrays()) for name in sorted(names)})
    elif kind in ("npy", "header"):
        np.save(out, draw(arrays()))
        if kind == "header":  # which claims another shape, of the same length of text
            text = str(tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))).encode()
            data = re.sub(rb"'shape': \([^)]*\)", b"'shape': " + text, out.getvalue(), count=1)
            grown = len(data) - len(out.getvalue())
            data = data.replace(b" " * grown + b"\n", b"\n", 1) if grown > 0 else data
            return kind, data
    else:
        shape = draw(
            st.lists(st.integers(2, 5), min_size=2, max_size=4) | st.lists(SIZES, max_size=5)
        )
        head = bytes([0, 0, draw(st.sampled_from([8, 8, 8, 9])), len(shape)])
        head += b"".join((n % 2**32).to_bytes(4, "big") for n in shape)
        body = bytes(
            min(math.prod(n % 2**32 for n in shape), 2000) + draw(st.integers(-2, 2000)) % 3
        )
        out.write(gzip.compress(head + body) if kind == "gz" else head + body)
    return kind, out.getvalue()


@st.composite
def damaged(draw):
    kind, data = draw(files())
    return kind, draw(changed_bytes(data)) if draw(st.booleans()) else data


@cases(400)
@given(file=damaged())
def test_a_file_of_data(file, outcome, tmp_path_factory):
    kind, data = file
    path = tmp_path_factory.getbasetemp() / "file"
    path.unlink(missing_ok=True)  # an earlier case may have it mapped into memory
    if kind in ("image", "class"):
        folder = path.with_name("images" if kind == "image" else "classes")
        path = folder / "drawn.png" if kind == "image" else folder / "a" / "drawn.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        other = path.with_name("whole.png") if kind == "image" else folder / "b" / "whole.png"
        other.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3)).save(other)
    path.write_bytes(data)
    path = path if kind not in ("image", "class") else folder

    def use():
        dataset = sv.datasets.load(path)
        return dataset, dataset.fingerprint()

    found = outcome(f"data file, {kind}", use)
    if found is not None:
        dataset, _ = found
        for part in (dataset.train, dataset.test):
            assert part.dtype == np.uint8 or np.isfinite(part).all()
            assert len(part) >= 1
            assert part.shape[1] == math.prod(dataset.image_shape) >= 1
