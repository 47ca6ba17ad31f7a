"""Data sets: what is loaded is what the file holds, and every bad file is named in one sentence."""

import gc
import gzip
import hashlib
import http.server
import importlib.util
import io
import math
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scratchvae import datasets, formats
from scratchvae.datasets import Dataset, binarize, load, require_unit_interval, to_float
from scratchvae.errors import InputError

DATA = files("scratchvae") / "data"
NAMES = list(datasets.MNIST_SHA256)


def idx(array):
    """Write an array as IDX, by the format's definition and not by our reader."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def refused(call, *parts):
    """Check that `call` raises one sentence with all these parts, and return the sentence."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


@pytest.fixture
def save(tmp_path):
    """Return a function that writes bytes into a file and returns its path."""

    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def pixels(*shape):
    return (np.arange(math.prod(shape)) * 37 % 256).astype(np.uint8).reshape(shape)


# ---- the module ----------------------------------------------------------------------------------


def test_import_loads_nothing_heavy():
    code = (
        "import sys, scratchvae.datasets\n"
        "print(*{'pooch', 'requests', 'tqdm', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---- digits --------------------------------------------------------------------------------------


def test_digits_file_is_the_published_one():
    with (DATA / "digits.npz").open("rb") as file, np.load(file) as arrays:
        found = {
            key: (a.dtype.name, a.shape, sha256(a.tobytes())) for key, a in dict(arrays).items()
        }
    assert found == {
        "x": (
            "uint8",
            (1797, 64),
            "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3",
        ),
        "y": (
            "uint8",
            (1797,),
            "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0",
        ),
        "test": (
            "bool",
            (1797,),
            "48f07fc8c533b52fe6404b476c4e8bbe6fce5199efed3ac6c0edff00bc9c54c5",
        ),
    }


def test_digits():
    digits = load("digits")
    assert (digits.name, digits.data_dim, digits.image_shape, digits.scale) == (
        "digits",
        64,
        (8, 8),
        16,
    )
    assert digits.train.shape == (1500, 64)
    assert digits.test.shape == (297, 64)
    assert digits.train.dtype == digits.test.dtype == np.uint8
    assert digits.train_labels.shape == (1500,)
    assert digits.test_labels.shape == (297,)
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int64
    assert to_float(digits.train, digits.scale, np.dtype("float32")).max() == 1


def test_digits_split_covers_all_rows_once_and_balances_the_classes():
    digits = load("digits")
    with (DATA / "digits.npz").open("rb") as file, np.load(file) as arrays:
        whole = np.column_stack([arrays["x"], arrays["y"]])
    parts = np.vstack(
        [
            np.column_stack([digits.train, digits.train_labels]),
            np.column_stack([digits.test, digits.test_labels]),
        ]
    )
    assert sorted(map(tuple, parts)) == sorted(map(tuple, whole))  # no row lost, none in both
    assert len(np.unique(whole, axis=0)) == 1797  # which that relies on: no row occurs twice
    share = np.bincount(whole[:, -1]) * 297 / 1797
    assert np.all(np.abs(np.bincount(digits.test_labels) - share) < 1)


def test_digits_script_makes_the_file_again(tmp_path):
    spec = importlib.util.spec_from_file_location("make_digits", str(DATA / "make_digits.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with (DATA / "digits.npz").open("rb") as file, np.load(file) as arrays:
        stored = dict(arrays)
    script.write(tmp_path / "a.npz", stored["x"].astype(float), stored["y"].astype(int))
    script.write(tmp_path / "b.npz", stored["x"].astype(float), stored["y"].astype(int))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as made:
        assert list(made) == list(stored)
        for key in made:
            np.testing.assert_array_equal(made[key], stored[key], strict=True)


# ---- MNIST ---------------------------------------------------------------------------------------


@pytest.fixture
def tiny_mnist(monkeypatch):
    """Make four tiny IDX files pass for MNIST and return their bytes by name."""
    arrays = (pixels(5, 3, 3), pixels(5) % 10, pixels(2, 3, 3), pixels(2) % 10)
    contents = {name: idx(array) for name, array in zip(NAMES, arrays, strict=True)}
    hashes = {name: sha256(data) for name, data in contents.items()}
    monkeypatch.setattr(datasets, "MNIST_SHA256", hashes)
    return contents


def check_tiny_mnist(mnist):
    assert (mnist.name, mnist.data_dim, mnist.image_shape, mnist.scale) == ("mnist", 9, (3, 3), 255)
    np.testing.assert_array_equal(mnist.train, pixels(5, 9), strict=True)
    np.testing.assert_array_equal(mnist.test, pixels(2, 9), strict=True)
    np.testing.assert_array_equal(
        mnist.train_labels, (pixels(5) % 10).astype(np.int64), strict=True
    )
    np.testing.assert_array_equal(mnist.test_labels, (pixels(2) % 10).astype(np.int64), strict=True)


@pytest.mark.parametrize("packed", [[], NAMES, NAMES[1:3]], ids=["unpacked", "packed", "mixed"])
def test_mnist_from_the_chosen_folder(packed, tiny_mnist, tmp_path, monkeypatch):
    for name, data in tiny_mnist.items():
        if name in packed:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (tmp_path / name).write_bytes(data)
    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path))
    check_tiny_mnist(load("mnist"))


def test_mnist_missing_from_the_chosen_folder_is_not_downloaded(tiny_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_download", lambda *_: pytest.fail("downloaded"))
    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path))
    refused(lambda: load("mnist"), f"SCRATCHVAE_DATA={tmp_path} holds no {NAMES[0]}", ".gz")
    (tmp_path / NAMES[0]).write_bytes(tiny_mnist[NAMES[0]])
    refused(lambda: load("mnist"), f"SCRATCHVAE_DATA={tmp_path} holds no {NAMES[1]}", ".gz")
    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path / "nowhere"))
    refused(lambda: load("mnist"), f"{tmp_path / 'nowhere'} holds no {NAMES[0]}")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_with_another_hash(suffix, tiny_mnist, tmp_path, monkeypatch):
    right = tiny_mnist[NAMES[0]]
    wrong = right[:-1] + bytes([right[-1] ^ 1])
    path = tmp_path / f"{NAMES[0]}{suffix}"
    path.write_bytes(gzip.compress(wrong) if suffix else wrong)
    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path))
    refused(lambda: load("mnist"), path, f"SHA-256 {sha256(wrong)}, expected {sha256(right)}")


def test_mnist_with_damaged_gzip(tiny_mnist, tmp_path, monkeypatch):
    path = tmp_path / f"{NAMES[0]}.gz"
    path.write_bytes(gzip.compress(tiny_mnist[NAMES[0]])[:-3])
    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path))
    refused(lambda: load("mnist"), f"{path} cannot be read", "expected a whole file")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Make an empty folder the user's cache, and let loopback addresses go round any proxy."""
    monkeypatch.delenv("SCRATCHVAE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "scratchvae"


# requests leaves the socket of a download that breaks off to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _collect_sockets():
    """Have them collected here, where the warning is expected, and not in another test."""
    yield
    gc.collect()


@pytest.fixture
def mirror():
    """Serve the bytes in ``contents`` by name; announce ``missing_bytes`` more than are sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path.lstrip("/"))
            data = server.contents.get(self.path.lstrip("/"))
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data) + server.missing_bytes))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.contents, server.missing_bytes, server.asked = {}, 0, []
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def unreachable():
    """Return an address at which a port is taken but nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


def test_mnist_is_downloaded_once(tiny_mnist, cache, mirror, monkeypatch, capfd):
    mirror.contents = {f"{name}.gz": gzip.compress(data) for name, data in tiny_mnist.items()}
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (mirror.url,))
    check_tiny_mnist(load("mnist"))
    assert "100%" in capfd.readouterr().err  # the progress bar
    assert mirror.asked == [f"{name}.gz" for name in NAMES]
    assert sorted(path.name for path in cache.iterdir()) == sorted(mirror.contents)
    check_tiny_mnist(load("mnist"))
    assert len(mirror.asked) == 4


def test_mnist_from_the_second_mirror(tiny_mnist, cache, mirror, unreachable, monkeypatch):
    mirror.contents = {f"{name}.gz": gzip.compress(data) for name, data in tiny_mnist.items()}
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (unreachable, mirror.url))
    check_tiny_mnist(load("mnist"))


def test_corrupt_download_does_not_stay(tiny_mnist, cache, mirror, monkeypatch):
    mirror.contents = {f"{NAMES[0]}.gz": gzip.compress(b"something else")}
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (mirror.url,))
    refused(
        lambda: load("mnist"),
        f"{NAMES[0]} cannot be downloaded",
        f"{mirror.url}{NAMES[0]}.gz",
        f"SHA-256 {sha256(b'something else')}, expected {sha256(tiny_mnist[NAMES[0]])}",
        f"put the four MNIST files into {cache}",
    )
    assert list(cache.iterdir()) == []


def test_interrupted_download_does_not_stay(tiny_mnist, cache, mirror, monkeypatch):
    mirror.contents = {f"{NAMES[0]}.gz": gzip.compress(tiny_mnist[NAMES[0]])[:20]}
    mirror.missing_bytes = 7
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (mirror.url,))
    refused(lambda: load("mnist"), f"{NAMES[0]} cannot be downloaded", "SCRATCHVAE_DATA")
    assert list(cache.iterdir()) == []


def test_download_that_the_mirror_does_not_have(tiny_mnist, cache, mirror, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (mirror.url,))
    refused(lambda: load("mnist"), f"{NAMES[0]} cannot be downloaded (404", "SCRATCHVAE_DATA")
    assert list(cache.iterdir()) == []


def test_offline(tiny_mnist, cache, unreachable, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (unreachable, unreachable))
    refused(
        lambda: load("mnist"),
        f"{NAMES[0]} cannot be downloaded",
        f"put the four MNIST files into {cache}, or into a folder that the environment variable "
        "SCRATCHVAE_DATA names",
    )
    assert list(cache.iterdir()) == []


def test_cache_that_cannot_be_made(tiny_mnist, cache, unreachable, monkeypatch):
    cache.parent.write_bytes(b"a file where a folder should be")
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (unreachable,))
    refused(lambda: load("mnist"), f"{NAMES[0]} cannot be downloaded", cache)


@pytest.mark.skipif(
    not os.environ.get("SCRATCHVAE_DATA"),
    reason="the real MNIST is only read where SCRATCHVAE_DATA names its folder",
)
def test_real_mnist():
    mnist = load("mnist")
    assert mnist.train.shape == (60000, 784)
    assert mnist.test.shape == (10000, 784)
    assert mnist.train.dtype == np.uint8
    assert (mnist.image_shape, mnist.scale, mnist.data_dim) == ((28, 28), 255, 784)
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(mnist.test_labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]


# ---- the user's own files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [
        ((25, 16), (4, 4)),
        ((25, 15), (1, 15)),
        ((25, 1), (1, 1)),
        ((25, 3, 5), (3, 5)),
        ((25, 2, 5, 3), (2, 5, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz", "idx", "idx.gz"])
def test_shapes_and_split(shape, image_shape, kind, save):
    x = pixels(*shape)
    make = {
        "npy": npy,
        "npz": lambda x: npz(x=x),
        "idx": idx,
        "idx.gz": lambda x: gzip.compress(idx(x)),
    }
    path = save(f"data.{kind}", make[kind](x))
    for data in (load(str(path)), load(path)):
        assert (data.name, data.image_shape, data.scale) == (str(path), image_shape, 255)
        assert data.data_dim == math.prod(shape[1:])
        np.testing.assert_array_equal(data.train, x.reshape(25, -1)[:23])  # the last tenth of 25
        np.testing.assert_array_equal(data.test, x.reshape(25, -1)[23:])
        assert data.train.dtype == data.test.dtype == np.uint8
        assert data.train_labels is None
        assert data.test_labels is None


@pytest.mark.parametrize(("n", "n_test"), [(2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (1000, 100)])
def test_last_tenth_is_the_test_part(n, n_test, save):
    y = np.arange(n)
    data = load(save("data.npz", npz(x=pixels(n, 3), y=y)))
    np.testing.assert_array_equal(data.train_labels, y[:-n_test])
    np.testing.assert_array_equal(data.test_labels, y[-n_test:])
    assert (len(data.train), len(data.test)) == (n - n_test, n_test)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_keep_their_dtype(dtype, save):
    x = np.linspace(-2, 3, 60).reshape(12, 5).astype(dtype)
    data = load(save("data.npy", npy(x)))
    assert data.scale == 1
    np.testing.assert_array_equal(data.train, x[:11], strict=True)
    batch = to_float(data.train, data.scale, np.dtype("float32"))
    np.testing.assert_array_equal(batch, x[:11].astype(np.float32), strict=True)


@pytest.mark.parametrize("make", [npy, lambda x: npz(x=x)], ids=["npy", "npz"])
def test_bool(make, save):
    x = pixels(20, 6) > 100
    data = load(save("data", make(x)))
    assert data.scale == 1
    np.testing.assert_array_equal(data.train, x[:18].astype(np.uint8), strict=True)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(20, 6), (20, 2, 3)])
def test_either_order_of_memory(order, shape, save):
    x = pixels(*shape)
    data = load(save("data.npy", npy(np.asarray(x, order=order))))
    np.testing.assert_array_equal(data.train, x.reshape(20, 6)[:18])


def test_npz_with_its_own_test_part(save):
    x, x_test = pixels(4, 2, 3), pixels(1, 6)
    y, y_test = np.arange(4, dtype=np.uint8), np.array([True])
    data = load(save("data.npz", npz(x=x, x_test=x_test, y=y, y_test=y_test, other=x)))
    np.testing.assert_array_equal(data.train, x.reshape(4, 6), strict=True)
    np.testing.assert_array_equal(data.test, x_test, strict=True)
    np.testing.assert_array_equal(data.train_labels, np.arange(4), strict=True)
    np.testing.assert_array_equal(data.test_labels, np.array([1]), strict=True)
    data = load(save("data.npz", npz(x=x, x_test=x_test, y=y)))
    assert data.test_labels is None


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_large_npy_is_not_read_into_memory(dtype, tmp_path):
    path = tmp_path / "large.npy"
    size = np.dtype(dtype).itemsize
    np.lib.format.open_memmap(path, "w+", dtype, (2**16 // size, 32, 32))  # 64 MiB of zeros
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        data = load(path)
        require_unit_interval(data, "this test")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.train.nbytes + data.test.nbytes == 2**26
    assert peak - before < 2**24
    assert isinstance(data.train, np.memmap)
    assert isinstance(data.test, np.memmap)


@given(
    hnp.arrays(
        np.uint8,
        st.lists(st.integers(1, 5), min_size=2, max_size=3).map(lambda s: [s[0] + 1, *s[1:]]),
    ),
    st.booleans(),
)
def test_idx_round_trip(tmp_path_factory, x, packed):
    path = tmp_path_factory.getbasetemp() / "round-trip"
    path.write_bytes(gzip.compress(idx(x)) if packed else idx(x))
    data = load(path)
    np.testing.assert_array_equal(np.vstack([data.train, data.test]), x.reshape(len(x), -1))
    if x.ndim == 3:
        assert data.image_shape == x.shape[1:]


# ---- bad files -----------------------------------------------------------------------------------


def packed(data):
    """Pack data as at time 0: a test is named after them, and by each worker alike."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tiny.idx", idx(pixels(3, 2, 2))),
        ("tiny.idx.gz", packed(idx(pixels(3, 2, 2)))),
        ("tiny.npy", npy(pixels(3, 2, 2))),
        ("tiny.npz", npz(x=pixels(3, 2, 2), y=np.arange(3))),
    ],
)
def test_truncated_at_every_byte(name, data, save):
    assert len(load(save(name, data)).train) == 2
    for n in range(len(data)):
        path = save(name, data[:n])
        refused(lambda path=path: load(path), f"{path} ")


@given(st.data())
def test_changed_byte_never_escapes_as_another_error(tmp_path_factory, data):
    tiny = data.draw(
        st.sampled_from([idx(pixels(3, 4)), npy(pixels(3, 4)), npz(x=pixels(3, 4))]), label="file"
    )
    position = data.draw(st.integers(0, len(tiny) - 1), label="position")
    value = data.draw(st.integers(0, 255), label="value")
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(tiny[:position] + bytes([value]) + tiny[position + 1 :])
    message = "loaded"
    try:
        load(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def test_no_file(tmp_path):
    refused(lambda: load("minst"), "minst cannot be read (No such file", "digits, mnist, a")
    refused(lambda: load(tmp_path), tmp_path, "expected")


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["is empty", ".npy, .npz, IDX or CSV"]),
        (b"\1,2,3\n4,5,6\n", [r"starts with b'\x01,2,3\n'", ".npy, .npz, IDX or CSV"]),
        (packed(b"some text"), ["starts with b'some'", "IDX"]),
        (b"\0\0\x0d\x02" + bytes(8), [r"starts with b'\x00\x00\r\x02'", "unsigned bytes"]),
        (b"\0\0\x08\x00A", [r"starts with b'\x00\x00\x08\x00'", "1 to 4"]),
        (b"\0\0\x08\x05" + bytes(20), [r"starts with b'\x00\x00\x08\x05'", "1 to 4"]),
        (idx(pixels(3, 4)) + b"A", ["has more than 24 unpacked bytes", "expected 24", "[3, 4]"]),
        (idx(pixels(7)), ["array x", "(7,)", "(N, H, W)"]),
        (b"\0\0\x08\x04" + bytes(4) + b"\xff" * 12, ["cannot be read", "too big"]),
        (npz(images=pixels(3, 4), y=np.arange(3)), ["holds no array x but images, y"]),
        (npz(), ["holds no array x but nothing"]),
        (npz(x=np.array([[1, "a"]], dtype=object)), ["cannot be read (Object", "of numbers"]),
        (npy(np.array([[1, "a"]], dtype=object)), ["cannot be read (", "object", "of numbers"]),
        (npz(x=pixels(3, 4).astype(np.int64)), ["array x", "is int64", "convert", "uint8"]),
        (npy(pixels(3, 4).astype(complex)), ["array x", "is complex128", "convert", "uint8"]),
        (npy(pixels(3, 4).astype(np.uint16)), ["array x", "is uint16", "convert", "uint8"]),
        (npy(np.array([["a"], ["b"]])), ["array x", "is <U1", "convert", "uint8"]),
        (npy(np.uint8(3)), ["array x", "shape ()", "(N, D)"]),
        (npy(pixels(3)), ["array x", "shape (3,)", "(N, D)"]),
        (npy(pixels(3, 1, 1, 1, 1)), ["array x", "shape (3, 1, 1, 1, 1)", "(N, D)"]),
        (npy(pixels(1, 4)), ["array x", "shape (1, 4)", "at least 2"]),
        (npy(pixels(0, 4)), ["array x", "shape (0, 4)", "at least 2"]),
        (npy(pixels(4, 0)), ["array x", "shape (4, 0)", "no other dimension 0"]),
        (npy(pixels(4, 2, 0)), ["array x", "shape (4, 2, 0)", "no other dimension 0"]),
        (npz(x=pixels(3, 4), y=np.arange(2)), ["array y of", "(2,)", "expected (3,)"]),
        (npz(x=pixels(3, 4), y=pixels(3, 1)), ["array y of", "(3, 1)", "expected (3,)"]),
        (
            npz(x=pixels(3, 4), y=np.array([0, 1, 2**63], np.uint64)),
            ["array y of", f"holds {2**63}", "integers below 2**63"],
        ),
        (npz(x=pixels(3, 4), y=np.ones(3)), ["array y of", "float64", "one integer for each row"]),
        (npz(x=pixels(3, 4), x_test=pixels(3, 5)), ["array x_test", "5 feat", "expected 4"]),
        (npz(x=pixels(3, 4), x_test=np.ones((3, 4))), ["array x_test", "float64", "uint8"]),
        (npz(x=pixels(3, 4), x_test=pixels(0, 4)), ["array x_test", "(0, 4)", "at least 1"]),
        (npz(x=pixels(3, 4), y_test=np.arange(3)), ["y_test but no x_test"]),
        (
            npz(x=pixels(3, 4), x_test=pixels(2, 4), y_test=np.arange(3)),
            ["array y_test of", "(3,)", "expected (2,)"],
        ),
    ],
)
def test_bad_file(data, parts, save):
    path = save("data.npy", data)
    refused(lambda: load(path), path, *parts)


def test_long_doubles(save):
    if np.dtype(np.longdouble).itemsize > 8:  # on Windows it is another name of float64
        path = save("data.npy", npy(np.ones((3, 4), np.longdouble)))
        refused(lambda: load(path), f"array x of {path} is {np.dtype(np.longdouble)}", "float64")


def test_zip_whose_x_is_not_an_array(save):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "text")
    path = save("data.npz", buffer.getvalue())
    refused(lambda: load(path), f"array x of {path} is |S4", "convert")


@pytest.mark.parametrize("key", ["x", "x_test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_finite(key, value, dtype, save):
    arrays = {"x": np.zeros((30, 4), dtype), "x_test": np.zeros((30, 4), dtype)}
    arrays[key][17, 3] = value
    arrays[key][17:, 0] = value
    arrays[key][21] = 1 / 3
    path = save("data.npz", npz(**arrays))
    message = refused(lambda: load(path), f"array {key} of {path} holds {value:g} in row 17:")
    assert message.endswith("expected finite numbers")


def test_not_finite_far_into_a_large_file(save, rng):
    row, column = int(rng.integers(5000)), int(rng.integers(1000))  # in any of five chunks
    x = np.zeros((5000, 1000), np.float16)
    x[row, column] = np.nan
    x[row + 1 :, 0] = np.inf
    path = save("data.npy", npy(x))
    refused(lambda: load(path), f"holds nan in row {row}:")


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_float_divides(dtype):
    bytes_ = np.arange(256, dtype=np.uint8).reshape(2, 128)
    x = to_float(bytes_, 255.0, np.dtype(dtype))
    np.testing.assert_array_equal(x, bytes_.astype(dtype) / dtype(255), strict=True)
    assert x.min() == 0
    assert x.max() == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binarize_none_and_threshold(dtype, rng):
    x = np.array([[0, 0.25, 0.5, np.nextafter(dtype(0.5), dtype(1)), 1]], dtype)
    assert binarize(x, "none", rng) is x
    y = binarize(x, "threshold", rng)
    np.testing.assert_array_equal(y, np.array([[0, 0, 0, 1, 1]], dtype), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dynamic_mean(dtype, rng):
    p = np.array([0.01, 0.1, 0.3, 0.5, 0.8, 0.99], dtype)
    n = 500_000
    y = binarize(np.tile(p, (n, 1)), "dynamic", rng)
    assert y.dtype == dtype
    assert set(np.unique(y)) == {0, 1}
    # Hoeffding: P(|mean - p| >= t) <= 2 exp(-2 n t^2), here 1e-7 for all six together.
    bound = math.sqrt(math.log(2 * len(p) / 1e-7) / (2 * n))
    assert np.abs(y.mean(axis=0, dtype=np.float64) - p).max() < bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dynamic_leaves_black_and_white_alone(dtype, rng):
    x = np.zeros((1000, 1000), dtype)
    x[:, ::2] = 1
    np.testing.assert_array_equal(binarize(x, "dynamic", rng), x, strict=True)


def test_dynamic_is_strict():
    class Zeros:  # the smallest draw there is, which real draws hit once in 2^24 or 2^53
        def random(self, shape, dtype):
            return np.zeros(shape, dtype)

    x = np.array([[0, 1e-30, 1]], np.float32)
    np.testing.assert_array_equal(binarize(x, "dynamic", Zeros()), [[0, 1, 1]])


def test_dynamic_draws_anew_and_repeats_with_the_seed(rng):
    x = np.full((50, 50), 0.5, np.float32)
    seed = int(rng.integers(2**63))
    again = np.random.default_rng(seed)
    first, second = (binarize(x, "dynamic", again) for _ in range(2))
    assert not np.array_equal(first, second)  # equal once in 2^2500
    repeated = binarize(x, "dynamic", np.random.default_rng(seed))
    np.testing.assert_array_equal(first, repeated)
    assert np.all(x == 0.5)


def test_unknown_binarize(rng):
    message = refused(lambda: binarize(np.zeros((1, 1)), "dynamik", rng), "binarize is 'dynamik'")
    for how in datasets.BINARIZE:
        assert f"'{how}'" in message
        binarize(np.zeros((1, 1)), how, rng)


# ---- the unit interval ---------------------------------------------------------------------------


def small(train, test, scale):
    return Dataset("small", np.array(train), np.array(test), None, None, scale, (1, 2))


@pytest.mark.parametrize("name", ["digits", "uint8", "float"])
def test_unit_interval_holds(name):
    data = {
        "digits": load("digits"),
        "uint8": small(np.uint8([[0, 255]]), np.uint8([[255, 0]]), 255),
        "float": small([[0.0, 1.0]], [[0.5, 0.0]], 1),
    }[name]
    require_unit_interval(data, "the Bernoulli likelihood")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-0.25, "-0.25"),
        (-1e-300, "-1e-300"),
        (255.0, "255.0"),
        (1.0000000000000002, "1.0000000000000002"),  # rounded to 1, it would not be understood
        (np.nan, "nan"),
        (-np.inf, "-inf"),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_unit_interval_is_left(value, shown, part):
    rows = [[0.0, 1.0], [0.5, 0.5], [0.5, value], [-7.0, -7.0]]
    data = replace(small([[0.0, 1.0]], [[0.0, 1.0]], 1), **{part: np.array(rows)})
    message = refused(lambda: require_unit_interval(data, "the Bernoulli likelihood"))
    part = "training" if part == "train" else part
    divide = ", so divide by the value that means white, such as 255" if value > 1 else ""
    assert message == (
        f"small holds {shown} in row 2 of its {part} part: "
        f"the Bernoulli likelihood needs values from 0 to 1{divide}; the Gaussian one takes "
        "others, best with standardised columns"
    )


def test_unit_interval_knows_the_scale():
    data = small(np.uint8([[0, 16], [0, 20]]), np.uint8([[0, 0]]), 16)
    message = refused(lambda: require_unit_interval(data, "it"), "holds 1.25 in row 1 ")
    assert re.fullmatch(r"small holds .* needs values from 0 to 1", message)


def test_data_readme_names_source_and_licence():
    text = Path(str(DATA / "README.md")).read_text(encoding="utf-8")
    assert "10.24432/C50P49" in text
    assert "CC BY 4.0" in text


# --- what could be read for ever


def test_a_pipe_or_a_device_is_no_data(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        refused(lambda path=path: load(path), f"{path} is a device or a pipe: expected a file")


def test_a_packed_file_is_unpacked_no_further_than_its_header_says(tmp_path):
    """100 bytes, says the header, and a gigabyte of zeros comes after them."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:
        file.write(idx(np.zeros((100, 1), dtype=np.uint8)))
        for _ in range(64):
            file.write(bytes(2**24))
    tracemalloc.start()
    refused(lambda: load(path), "bomb.gz has more than 112 unpacked bytes", "[100, 1]")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12))
    refused(lambda: load(path), "too few for 79,228,162,458,924,105,385,300,197,375 unpacked ones")


@pytest.mark.parametrize("start", [b"", b"\0\0\x08\4", idx(np.zeros((100, 1), dtype=np.uint8))])
def test_a_large_file_that_is_no_idx_is_not_read_whole(start, tmp_path):
    path = tmp_path / "z.idx"
    path.write_bytes(start)
    os.truncate(path, 2**28)  # zeros that take no place on the disk
    tracemalloc.start()
    refused(lambda: load(path), f"{path} ")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(formats, "UNPACKED_BYTES", 2**20)
    x = np.zeros((2**15, 64), dtype=np.uint8)
    (tmp_path / "x.gz").write_bytes(packed(idx(x)))
    (tmp_path / "x.npz").write_bytes(npz(x_train=x))
    for name, instead in ("x.gz", "gunzip"), ("x.npz", "save x as .npy"):
        tracemalloc.start()
        refused(lambda name=name: load(tmp_path / name), name, "bytes and unpacks to 2,0", instead)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
    x[:, :8] = rng.integers(256, size=(2**15, 8))  # as large, and not as small when packed
    (tmp_path / "x.gz").write_bytes(packed(idx(x)))
    (tmp_path / "x.npz").write_bytes(npz(x_train=x, large=np.zeros(2**20)))  # which is not read
    for name in "x.gz", "x.npz":
        assert load(tmp_path / name).train.shape == (29492, 64)


def test_a_name_that_is_nearly_one_of_ours_gets_a_suggestion():
    refused(lambda: load("mnits"), "mnits cannot be read", "did you mean mnist?")
    refused(lambda: load("digit"), "did you mean digits?")


def test_the_fingerprint_is_of_the_contents(rng, tmp_path):
    x = rng.integers(256, size=(30, 4, 5)).astype(np.uint8)
    np.save(tmp_path / "c.npy", x)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x))
    np.savez(tmp_path / "x.npz", x=x)
    prints = {load(tmp_path / name).fingerprint() for name in ("c.npy", "fortran.npy", "x.npz")}
    assert len(prints) == 1
    for other in (x + 1, x[1:], x[::-1], x / 255):
        prints.add(Dataset.from_arrays(other).fingerprint())
    prints.add(Dataset.from_arrays(x, y=np.arange(30)).fingerprint())
    assert len(prints) == 6


def test_what_is_damaged_in_the_cache_is_fetched_again(tiny_mnist, cache, mirror, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (mirror.url,))
    mirror.contents = {f"{name}.gz": gzip.compress(data) for name, data in tiny_mnist.items()}
    load("mnist")
    (cache / f"{NAMES[2]}.gz").write_bytes(b"damaged")
    mirror.asked.clear()
    load("mnist")
    assert mirror.asked == [f"{NAMES[2]}.gz"]


def test_in_a_notebook_a_dataset_is_a_table_of_its_parts(rng):
    x, y = rng.random((7, 2, 3)), [0, 1, 2, 0, 1, 2, 0]
    html = Dataset.from_arrays(x, y, test=x[:4])._repr_html_()
    assert "<td>training</td><td>7</td><td>2 × 3</td><td>3 classes</td>" in html
    assert "<td>test</td><td>4</td><td>2 × 3</td><td>none</td>" in html


def test_what_is_no_array_is_refused_in_one_sentence():
    refused(lambda: Dataset.from_arrays(None), "x is None: expected an array")
    ragged = [[0.0, 1.0], [1.0]]
    refused(lambda: Dataset.from_arrays(ragged), "x cannot be made an array", "of one length")
    x = np.zeros((4, 2))
    refused(
        lambda: Dataset.from_arrays(x, test=(x, [0] * 4, x)),
        "test has 3 parts: expected an array, or a pair (x_test, y_test)",
    )


def test_arrays_on_a_device_are_taken_over(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    x, y = rng.random((10, 4)), rng.integers(0, 3, 10)
    there = standin.cupy.asarray(x), standin.cupy.asarray(y)
    found = Dataset.from_arrays(*there, test=there)
    np.testing.assert_array_equal(found.train, x)
    np.testing.assert_array_equal(found.test, x)
    np.testing.assert_array_equal(found.train_labels, y)
    np.testing.assert_array_equal(found.test_labels, y)
