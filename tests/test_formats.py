"""Data as people have them: tables, folders of images, names of other libraries, frames, bits."""

import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

import scratchvae as sv
from scratchvae import cli, datasets, formats
from scratchvae.datasets import Dataset, load


def refused(call, *parts):
    with pytest.raises(sv.InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a text, and loads it."""

    def make(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return load(path)

    return make


# --- bytes that are 0 and 1


def test_bytes_of_0_and_1_are_black_and_white(rng):
    x = rng.integers(2, size=(50, 12)).astype(np.uint8)
    data = Dataset.from_arrays(x)
    assert (data.scale, data.is_binary) == (1, True)
    assert "bits" in repr(data)
    values = datasets.to_float(data.train, data.scale, np.dtype("float32"))
    np.testing.assert_array_equal(datasets.binarize(values, "threshold", rng), x[:45])


def test_one_larger_byte_makes_them_grey(rng):
    x, test = (rng.integers(2, size=(50, 12)).astype(np.uint8) for _ in range(2))
    x[rng.integers(50), rng.integers(12)] = 2
    data = Dataset.from_arrays(x, test=test)
    assert (data.scale, data.is_binary) == (255, False)


def test_train_says_that_bytes_of_0_and_1_are_black_and_white(tmp_path, rng, capsys):
    np.save(tmp_path / "bits.npy", rng.integers(2, size=(40, 6)).astype(np.uint8))
    options = ["--epochs", "1", "--hidden", "4", "--out", str(tmp_path / "r")]
    assert cli.main(["train", str(tmp_path / "bits.npy"), "--binarize", "threshold", *options]) == 0
    assert "The pixels are 0 and 1, and are taken as black and white." in capsys.readouterr().out
    assert np.isfinite(sv.load(tmp_path / "r").params.value).all()


# --- channels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_become_last(channels, rng):
    x = rng.integers(256, size=(20, 6, 5, channels)).astype(np.uint8)
    last, first = Dataset.from_arrays(x), Dataset.from_arrays(np.moveaxis(x, 3, 1))
    assert last.image_shape == first.image_shape == (6, 5, channels)
    np.testing.assert_array_equal(first.train, last.train)
    np.testing.assert_array_equal(first.test, x[18:].reshape(2, -1))


@pytest.mark.parametrize(
    ("shape", "which"), [((9, 3, 8, 3), "both of 3 and 3"), ((9, 8, 8, 2), "neither of 8 and 2")]
)
def test_channels_that_cannot_be_told_are_refused(shape, which):
    refused(lambda: Dataset.from_arrays(np.zeros(shape)), which, "(N, H, W, C) or (N, C, H, W)")


def test_a_test_part_of_other_images_is_refused():
    x, test = np.zeros((9, 4, 6)), np.zeros((9, 6, 4))
    refused(lambda: Dataset.from_arrays(x, test=test), "x_test holds images of the shape (6, 4)")


# --- names in .npz files


@pytest.mark.parametrize(
    ("names", "test"),
    [(("x", "y"), ("x_test", "y_test")), (("x_train", "y_train"), ("x_test", "y_test"))],
)
def test_an_npz_as_keras_has_it(names, test, tmp_path, rng):
    x, x_test = (rng.integers(256, size=(n, 4, 4)).astype(np.uint8) for n in (9, 3))
    y, y_test = np.arange(9), np.arange(3)
    arrays = dict(zip((*names, *test), (x, y, x_test, y_test), strict=True))
    np.savez(tmp_path / "a.npz", **arrays)
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.train, x.reshape(9, -1))
    np.testing.assert_array_equal(data.test, x_test.reshape(3, -1))
    np.testing.assert_array_equal(data.train_labels, y)
    np.testing.assert_array_equal(data.test_labels, y_test)


def test_bits_beside_greys_are_refused(tmp_path, rng):
    """The greys would make a scale of 255 for both."""
    bits, greys = rng.integers(0, 2, (30, 6), np.uint8), rng.integers(2, 255, (5, 6), np.uint8)
    greys[0, 0] = 254
    np.savez(tmp_path / "a.npz", x=bits, x_test=greys)
    refused(
        lambda: load(tmp_path / "a.npz"),
        "x of",
        "holds 0 and 1 only, and array x_test of",
        "numbers up to 254: expected both in one unit",
    )
    np.savez(tmp_path / "b.npz", x=greys, x_test=bits)  # greys may all be dark
    assert load(tmp_path / "b.npz").scale == 255
    np.savez(tmp_path / "c.npz", x=np.concatenate([bits, greys]))  # and one array has one unit
    assert load(tmp_path / "c.npz").scale == 255


def test_an_npz_as_scikit_learn_has_it(tmp_path, rng):
    x = rng.random((20, 5))
    np.savez(tmp_path / "a.npz", data=x, target=np.arange(20))
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.train, x[:18])
    np.testing.assert_array_equal(data.test_labels, [18, 19])
    np.savez(tmp_path / "b.npz", data=x, target=x[:, 0])
    refused(lambda: load(tmp_path / "b.npz"), "array target of", "float64", "one integer")
    np.savez(tmp_path / "c.npz", data=x, x_train=x)
    refused(lambda: load(tmp_path / "c.npz"), "both x_train and data: expected one of them")


# --- tables


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b,c\n1,2,3\n4,5,6.5\n", ("a", "b", "c")),
        ("1,2,3\n4,5,6.5\n", ("1", "2", "3")),
        ('"a","b","c"\r\n"1","2","3"\r\n4,5,6.5\r\n', ("a", "b", "c")),
        ("\ufeffa;b;c\n1;2;3\n4;5;6.5\n", ("a", "b", "c")),
        ("a\tb\tc\n1\t2\t3\n4\t5\t6.5\n", ("a", "b", "c")),
        ("1  2 3\n 4 5   6.5\n", ("1", "2", "3")),
        (",2019 q1,b\n1,2,3\n4,5,6.5", ("", "2019 q1", "b")),  # as pandas writes an index
        ("# a b c\n1 2 3\n4 5 6.5\n", ("a", "b", "c")),  # as NumPy writes a header
        ("# a,b,c\n1,2,3\n4,5,6.5\n", ("a", "b", "c")),
        ("#a\tb\tc\n1\t2\t3\n4\t5\t6.5\n", ("a", "b", "c")),
        ("#,b,c\n1,2,3\n4,5,6.5\n", ("#", "b", "c")),  # a column of numbers
        ("\r\n\na;b;c\n1;2;3\n4;5;6.5\n", ("a", "b", "c")),
        ("\na,b,c\n\n1,2,3\n4,5,6.5\n\n", ("a", "b", "c")),
        ('a,"b, in\nkm",c\n1,2,3\n4,5,6.5\n', ("a", r"b, in\nkm", "c")),
        ("\n  \na,b,c\n1,2,3\n \n\n4,5,6.5\n   \n", ("a", "b", "c")),  # lines of spaces
        ("1 2 3\n   \n4 5 6.5\n", ("1", "2", "3")),
    ],
)
def test_a_table(text, names, table):
    data = table(text)
    np.testing.assert_array_equal(data.train, [[1, 2, 3]])
    np.testing.assert_array_equal(data.test, [[4, 5, 6.5]])
    assert (data.columns, data.image_shape, data.scale) == (names, (1, 3), 1)


def test_the_name_of_a_table_does_not_matter(table):
    for name in "table", "table.gz", "table.npy":
        assert table("a,b\n1,2\n3,4\n", name).columns == ("a", "b")


def test_a_table_of_one_column(table):
    np.testing.assert_array_equal(table("n\n1\n2\n3\n").train, [[1], [2]])


def test_a_table_of_a_square_number_of_columns_is_no_image(table):
    assert table("a,b,c,d\n1,2,3,4\n5,6,7,8\n").image_shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b\n1,2\n3,NEAR BAY\n", ["column 'b' holds 'NEAR BAY' in line 3", "leave the column"]),
        ("a,b\n1,2\n3,\n", ["column 'b' is empty in line 3", "fill it"]),
        ("1,x\n2,y\n", ["column '2' holds 'x' in line 1", "line 1 was not taken as a row"]),
        ("1,,3\n4,5,6\n7,8,9\n", ["column '2' is empty in line 1", "since it has a number"]),
        ("1,NA,3\n4,5,6\n7,8,9\n", ["column '2' holds 'NA' in line 1"]),
        ("2020-01-01,5\n1,2\n3,4\n", ["column '1' holds '2020-01-01' in line 1"]),
        ("id,2019,2020\n1,2,3\n4,5,6\n", ["column '1' holds 'id' in line 1", "row of names"]),
        ("a,b\nx,y\n", ["column 'a' holds 'x' in line 2"]),
        ("a,b\n1,2\n3\n", ["1 field in line 3: expected 2, as in its first line"]),
        ("a,b\n1,2,3\n4,5,6\n", ["3 fields in line 2: expected 2, as in its first line"]),
        ("a,b,c\n1,2\n3,4\n", ["2 fields in line 2: expected 3, as in its first line"]),
        ("# a b\n1 2 3\n4 5 6\n", ["3 fields in line 2: expected 2"]),
        ("a,b, a\n1,2,3\n4,5,6\n", ["two columns 'a': expected names that differ"]),
        ("a,b\n", ["a row of names and no rows of numbers"]),
        ("x\n", ["a row of names and no rows of numbers"]),
        ("a;b\n1,5;2\n", ["column 'a' holds '1,5' in line 2"]),
        ("a,b\n1,2\n3,nan\n", ["column 'b' holds 'nan' in line 3", "a finite number in"]),
        ("\n1,2\n\n3,1e999\n", ["column '2' holds '1e999' in line 4", "a finite number in"]),
        ("a,b\n1,2\n", ["(1, 2)", "at least 2"]),
        ("some text\nand more\n", ["column 'some' holds 'and' in line 2"]),
        ("a\tb\n1\t2\n\t\n3\t4\n", ["column 'a' is empty in line 3"]),
        (" \na,b\n1,x\n", ["column 'b' holds 'x' in line 3"]),
        ("\0a,b\n1,2\n", ["starts with", ".npy, .npz, IDX or CSV file"]),
    ],
)
def test_a_bad_table(text, parts, table, tmp_path):
    refused(lambda: table(text), tmp_path, *parts)


def test_text_of_another_encoding_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_bytes("größe,b\n1,2\n3,4\n".encode("latin-1"))
    refused(lambda: load(tmp_path / "a.csv"), "starts with b'gr")


# --- frames


class Frame:
    """What a frame of pandas or polars has in common: columns, and each by its name."""

    def __init__(self, **columns):
        self.columns, self.of = list(columns), columns

    def __getitem__(self, name):
        return self.of[name]

    def __array__(self, *args, **kwargs):
        raise AssertionError("a frame of several types would be an array of objects")


def test_a_frame(rng):
    a, b = rng.integers(9, size=20), rng.random(20)
    data = Dataset.from_arrays(Frame(a=a, b=b), y=range(20))
    np.testing.assert_array_equal(data.train, np.column_stack([a, b])[:18])
    assert (data.columns, data.image_shape, data.train.dtype) == (("a", "b"), (1, 2), np.float64)
    other = Dataset.from_arrays(Frame(a=a, b=b), test=Frame(a=a[:4], b=b[:4]))
    assert len(other.test) == 4
    refused(
        lambda: Dataset.from_arrays(Frame(a=a, b=b), test=Frame(b=b[:4], a=a[:4])),
        "x_test has 'b' as its column 1: expected 'a', as in x",
    )
    array = np.column_stack([a, b])  # without names
    for x, test in (Frame(a=a, b=b), array), (array, Frame(a=a, b=b)):
        assert Dataset.from_arrays(x, test=test).columns == ("a", "b")
    whole = Dataset.from_arrays(Frame(a=a, b=a))
    assert whole.train.dtype == np.float64  # counts are numbers, and no pixels


def test_a_frame_whose_column_is_no_number_is_refused(rng):
    numbers = np.arange(3.0)
    for column, found in (
        (np.array(["x", "y", "z"], dtype=object), "column 'b' is of type object"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "column 'b' is of type datetime64"),
        (np.array([1, np.nan, 2]), "column 'b' is empty in row 1"),
        (np.zeros((3, 2)), "two columns 'b'"),
        (np.arange(4), "column 'b' has 4 rows, and the first has 3: expected columns of one"),
    ):
        refused(lambda column=column: Dataset.from_arrays(Frame(a=numbers, b=column)), found)


def test_a_trainer_takes_a_frame_and_refuses_a_mask(rng):
    model = sv.VAE(2, hidden=(4,), likelihood="gaussian", rng=0)
    sv.Trainer(model, sv.Adam(model.params), Frame(a=rng.random(9), b=rng.random(9))).run(1)
    masked = np.ma.masked_array(rng.random((9, 2)), mask=False)
    refused(lambda: sv.Trainer(model, sv.Adam(model.params), masked), "x is a masked array")
    refused(lambda: Dataset.from_arrays(rng.random((9, 2)), test=masked), "x_test is a masked")


# --- folders of images


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)


@pytest.mark.parametrize(
    ("shape", "suffix"), [((6, 5), "png"), ((6, 5, 3), "png"), ((6, 5, 4), "PNG"), ((6, 5), "jpg")]
)
def test_a_folder_of_images(shape, suffix, tmp_path, rng):
    x = rng.integers(256, size=(20, *shape)).astype(np.uint8)
    for i, pixels in enumerate(x):
        save(tmp_path / "f" / f"{i:02}.{suffix}", pixels)
    (tmp_path / "f" / "notes.txt").write_text("not an image")
    (tmp_path / "f" / ".hidden.png").write_text("not an image")
    data, again = load(tmp_path / "f"), load(tmp_path / "f")
    assert (data.image_shape, data.scale, len(data.train), len(data.test)) == (shape, 255, 18, 2)
    assert data.fingerprint() == again.fingerprint()
    found = np.concatenate([data.train, data.test])
    if suffix != "jpg":
        assert sorted(map(bytes, found)) == sorted(map(bytes, x))
    assert [*map(bytes, found)] != [*map(bytes, x)]  # shuffled: equal once in 20!


def test_an_image_that_is_not_there_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    refused(lambda: load(tmp_path), f"{tmp_path / 'a.png'} cannot be read (No such file")


def test_folders_of_images_are_classes(tmp_path, rng):
    for k, name in enumerate(("cats", "dogs")):
        for i in range(20):
            save(tmp_path / name / f"{i}.png", np.full((4, 4), 100 * k + i, np.uint8))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train[:, 0] >= 100, data.train_labels == 1)
    np.testing.assert_array_equal(data.test[:, 0] >= 100, data.test_labels == 1)
    assert {*data.test_labels} == {0, 1}  # the last in the folders would all be dogs


@pytest.mark.parametrize(("mode", "shape"), [("1", (4, 4)), ("P", (4, 4, 3)), ("LA", (4, 4, 4))])
def test_images_of_other_kinds_are_converted(mode, shape, tmp_path, rng):
    for i in range(3):
        save(tmp_path / f"{i}.png", rng.integers(256, size=(4, 4)).astype(np.uint8), mode)
    data = load(tmp_path)
    assert data.image_shape == shape
    assert data.scale == 255


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_cameras_picture_is_upright(suffix, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the first stored row is the right-hand column
    stored = Image.fromarray(np.array([[200] * 8, *[[0] * 8] * 15], np.uint8))
    for i in range(3):
        stored.save(
            tmp_path / f"{i}.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {})
        )
    data = load(tmp_path)
    assert data.image_shape == (8, 16)
    image = data.train[0].reshape(8, 16)
    assert (image[:, -1] > 150).all()
    assert (image[:, :-1] < 50).all()


def test_a_folder_of_images_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "UNPACKED_BYTES", 10_000)
    for i in range(3):
        save(tmp_path / f"{i}.png", np.zeros((300, 300), np.uint8))
    refused(lambda: load(tmp_path), tmp_path, "unpacks to 270,000", "so take smaller images")
    monkeypatch.setattr(formats, "UNPACKED_BYTES", 270_000)
    assert load(tmp_path).image_shape == (300, 300)


def test_folders_that_hold_no_data(tmp_path, rng):
    grey = np.zeros((4, 4), np.uint8)
    refused(lambda: load(tmp_path), tmp_path, "a folder without images", ".png, .jpg, .jpeg")
    for i in range(3):
        save(tmp_path / "sizes" / f"{i}.png", np.zeros((4, 4 + i // 2), np.uint8))
        save(tmp_path / "kinds" / f"{i}.png", grey, "RGB" if i == 2 else None)
        save(tmp_path / "deep" / f"{i}.png", grey.astype(np.uint16) * 300)
        save(tmp_path / "mixed" / f"{i}.png", grey)
        save(tmp_path / "damaged" / f"{i}.png", grey)
        save(tmp_path / "cmyk" / f"{i}.jpg", grey, "CMYK")
    refused(lambda: load(tmp_path / "cmyk"), "pixels of the kind CMYK", "8 bits a channel")
    refused(lambda: load(tmp_path / "sizes"), "5 by 4 pixels grey", "of one size and kind")
    refused(lambda: load(tmp_path / "kinds"), "4 by 4 pixels in colour", "of one size and kind")
    refused(lambda: load(tmp_path / "deep"), "has 16 bits a channel: expected 8")
    save(tmp_path / "mixed" / "sub" / "a.png", grey)
    refused(lambda: load(tmp_path / "mixed"), "holds images, and sub in it does too")
    (tmp_path / "damaged" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    refused(lambda: load(tmp_path / "damaged"), "1.png cannot be read", "PNG or JPEG")


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_images_of_16_bits_are_refused_whatever_their_colours(kind, channels, tmp_path):
    """Pillow reads them, but writes only grey ones."""
    rows = (b"\0" + bytes(2 * channels * 4)) * 4  # 4 by 4 pixels, each row after its filter
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(data)
    assert Image.open(io.BytesIO(data)).load() is not None  # a whole image
    refused(lambda: load(tmp_path), ".png has 16 bits a channel: expected 8")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_mnists_files_is_told_from_one_without_images(suffix, tmp_path):
    for name in datasets.MNIST_SHA256:
        (tmp_path / f"{name}{suffix}").write_bytes(b"")
    says = f"set SCRATCHVAE_DATA={tmp_path} and call the data mnist"
    refused(lambda: load(tmp_path), "a folder without images", says)


def test_no_name_is_not_this_folder(tmp_path, monkeypatch):
    save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    save(tmp_path / "b.png", np.zeros((4, 4), np.uint8))
    monkeypatch.chdir(tmp_path)
    assert load(".").image_shape == (4, 4)
    refused(lambda: load(""), "the name of the data is empty: expected digits, mnist")


@pytest.mark.parametrize("name", ["größe\n.csv", "größe\r\x1b\u2028.png/a.png"])
def test_a_name_with_a_newline_does_not_break_the_message(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("no numbers")
    given = path if path.parent == tmp_path else path.parent
    message = refused(lambda: load(given), "/größe\\")
    assert message.isprintable()
    assert str(sv.InputError(message)) == message


def test_a_pipe_among_images_is_not_read(tmp_path):
    for i in range(2):
        os.mkfifo(tmp_path / f"{i}.png")
    refused(lambda: load(tmp_path), "is a device or a pipe")


# --- pixels where numbers from 0 to 1 are needed


@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder, sv.IWAE, sv.ConditionalVAE])
def test_pixels_up_to_255_are_refused_from_python_too(kind, rng):
    options = {sv.IWAE: {"samples": 2}, sv.ConditionalVAE: {"classes": 3}}.get(kind, {})
    model = kind(6, hidden=(4,), latent_dim=2, rng=0, **options)
    given = {"labels": [0, 1, 2, 0]} if kind is sv.ConditionalVAE else {}
    x = rng.random((4, 6))
    model.loss_and_grad(x, **given)
    for pixels in (256 * x).astype(np.uint8) | 2, 255 * x + 1:
        for method in model.loss_and_grad, model.encode:
            refused(lambda m=method, p=pixels: m(p, **given), "from 0 to 1, so divide by", "255")
    kind(6, likelihood="gaussian", rng=0, **options).encode(255 * x, **given)


# --- a file that shrinks


def test_a_file_that_becomes_shorter_is_noticed_before_each_pass(tmp_path, rng):
    path = tmp_path / "x.npy"
    np.save(path, rng.integers(256, size=(3000, 40)).astype(np.uint8))
    data = load(path)
    model = sv.VAE(40, hidden=(4,), latent_dim=2, rng=0)
    trainer = sv.Trainer(model, sv.Adam(model.params), data)
    trainer.run(1)
    os.truncate(path, 4096)
    says = "x.npy has become shorter while it is in use: it has 4,096 bytes, expected 120,128"
    for call in lambda: trainer.run(2), trainer.test_terms, data.fingerprint:
        assert str(refused(call, says)).startswith(str(tmp_path))


def test_a_run_whose_data_shrink_ends_in_a_sentence(tmp_path, rng):
    """In another process, as the system may end it."""
    code = (
        "import os, sys, numpy as np, scratchvae as sv\n"
        "x = np.random.default_rng(0).integers(256, size=(3000, 40)).astype(np.uint8)\n"
        "np.save('x.npy', x)\n"
        "run = sv.run.new(sv.run.Options(data='x.npy', hidden=(4,), epochs=9), 'r')\n"
        "run.train(on_epoch=lambda m: m['epoch'] == 2 and os.truncate('x.npy', 100))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "InputError: x.npy has become shorter" in done.stderr.replace(str(tmp_path) + "/", "")
    values = sv.checkpoint.load(tmp_path / "r/checkpoint.safetensors")[1]
    assert values["epoch"] == 2  # nothing that was done is lost


# --- downloads


@pytest.fixture
def slow_mirror(monkeypatch):
    """Serve what a function of the socket sends, after the header that it is given."""
    listening = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    done = threading.Event()
    threads = []

    def serve(header, send):
        def run():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
                    while not done.is_set() and send(connection):
                        pass
                except OSError:  # who asked has gone
                    pass

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/x.gz"

    yield serve
    done.set()
    listening.close()
    for thread in threads:
        thread.join(20)


def test_an_endless_body_is_not_taken(slow_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DOWNLOAD_BYTES", 10**6)
    url = slow_mirror("Content-Type: x", lambda c: c.sendall(bytes(65536)) is None)
    refused(lambda: datasets._fetch(url, tmp_path / "x"), url, "sends more than 1,000,000 bytes")
    assert (tmp_path / "x").stat().st_size < 2 * 10**6


def test_a_body_that_drips_is_given_up(slow_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DOWNLOAD_SECONDS", 0.3)
    drip = threading.Event()

    def one_byte(connection):
        drip.wait(0.05)
        return connection.sendall(b"a") is None

    url = slow_mirror("Content-Length: 1000000", one_byte)
    refused(lambda: datasets._fetch(url, tmp_path / "x"), url, "bytes in 0.3 s")


def test_a_body_that_stops_is_given_up(slow_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "SILENT_SECONDS", 0.2)
    wait = threading.Event()
    url = slow_mirror("Content-Length: 1000000", lambda c: not wait.wait(0.1))
    with pytest.raises(OSError, match="timed out"):
        datasets._fetch(url, tmp_path / "x")


@pytest.mark.parametrize(("length", "fails"), [("9", True), ("3", False), ("many", False)])
def test_a_wrong_length_is_an_error_or_a_shorter_file(length, fails, slow_mirror, tmp_path):
    sent = io.BytesIO(b"abcdef")

    def send(connection):
        connection.sendall(sent.read())
        return False

    url = slow_mirror(f"Content-Length: {length}", send)
    try:
        datasets._fetch(url, tmp_path / "x")
        assert not fails
        assert re.fullmatch(b"abc(def)?", (tmp_path / "x").read_bytes())  # its hash is not MNIST's
    except OSError:
        assert fails
