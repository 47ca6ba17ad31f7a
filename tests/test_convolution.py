"""Convolutions: sums by index, each the other's backward, the network of them, and its errors."""

import json
import sys
import tracemalloc

import numpy as np
import pytest
import standin
import strategies as draws
from hypothesis import example, given, settings
from scipy import stats

import scratchvae as sv
from scratchvae import convolution
from scratchvae.backend import get_backend
from scratchvae.cli import main
from scratchvae.convolution import Conv2D, ConvTranspose2D, Reshape, Windows
from scratchvae.gradcheck import check, check_model


def layers(geometry, rng, dtype="float64"):
    """Return a convolution from the large images to the small ones, and the one that goes back."""
    (c_large, *_), (c_small, *_) = geometry.large, geometry.small
    own = {"rng": rng, "dtype": dtype}
    conv = Conv2D(c_large, c_small, *geometry.windows, **own)
    back = ConvTranspose2D(c_small, c_large, *geometry.windows, geometry.output_padding, **own)
    return conv, back


def whole(rng, *shape):
    """Small whole numbers: every sum of them is exact, in whatever order it is taken."""
    return rng.integers(-9, 9, shape).astype(float)


def links(geometry):
    """Yield (pixel of the large images, pixel of the small ones, entry of the kernel)."""
    (_, h, w), (_, rows, columns) = geometry.large, geometry.small
    (kh, kw), (sh, sw), (ph, pw) = geometry.windows
    for u, v, i, j in np.ndindex(rows, columns, kh, kw):
        row, column = sh * u + i - ph, sw * v + j - pw
        if 0 <= row < h and 0 <= column < w:
            yield (row, column), (u, v), (i, j)


# What is tried first, whatever is drawn: a square kernel and unequal images, where an exchange of
# rows and columns changes the numbers and no shape.
usual = draws.Geometry(2, (2, 5, 6), (3, 3, 3), ((3, 3), (2, 2), (1, 1)), (0, 1))


# --------------------------------------------------------------------------------- by index


@pytest.mark.proves("conv", "patches", "conv-size")
@settings(max_examples=60)
@example(geometry=usual, rng=draws.Seeded(1))
@given(geometry=draws.geometries(), rng=draws.generators())
def test_a_convolution_is_the_sum_over_its_windows(geometry, rng):
    conv, _ = layers(geometry, rng)
    conv.W.value[...], conv.b.value[...] = whole(rng, *conv.W.shape), whole(rng, *conv.b.shape)
    x = whole(rng, geometry.b, *geometry.large)
    expected = np.zeros((geometry.b, *geometry.small)) + conv.b.value[:, None, None]
    for (row, column), (u, v), (i, j) in links(geometry):
        expected[:, :, u, v] += x[:, :, row, column] @ conv.W.value[:, :, i, j].T
    np.testing.assert_array_equal(conv.forward(x)[0], expected)


@pytest.mark.proves("conv-transpose", "patches-grad", "conv-transpose-size")
@settings(max_examples=60)
@example(geometry=usual, rng=draws.Seeded(1))
@given(geometry=draws.geometries(), rng=draws.generators())
def test_a_transposed_convolution_spreads_each_pixel_over_a_window(geometry, rng):
    _, back = layers(geometry, rng)
    back.W.value[...], back.b.value[...] = whole(rng, *back.W.shape), whole(rng, *back.b.shape)
    x = whole(rng, geometry.b, *geometry.small)
    expected = np.zeros((geometry.b, *geometry.large)) + back.b.value[:, None, None]
    for (row, column), (u, v), (i, j) in links(geometry):
        expected[:, :, row, column] += x[:, :, u, v] @ back.W.value[:, :, i, j]
    np.testing.assert_array_equal(back.forward(x)[0], expected)


def test_a_kernel_of_one_is_a_linear_layer_for_every_pixel(rng):
    conv, linear = Conv2D(3, 2, 1, rng=rng, dtype="float64"), sv.Linear(3, 2, dtype="float64")
    linear.W.value[...], linear.b.value[...] = conv.W.value[:, :, 0, 0].T, conv.b.value
    x = rng.normal(size=(4, 5, 6, 3))
    y, _ = conv.forward(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1), linear.forward(x)[0], rtol=1e-12)


def test_no_images_at_all_are_a_batch_too():
    for layer in Conv2D(2, 3, 3, 2, 1), ConvTranspose2D(2, 3, 3, 2, 1):
        y, cache = layer.forward(np.zeros((0, 2, 4, 6), "float32"))
        assert (len(y), y.shape[1]) == (0, 3)
        assert layer.backward(y, cache).shape == (0, 2, 4, 6)


# ------------------------------------------------------------------- each is the other's backward


@pytest.mark.proves("patches-grad")
@settings(max_examples=60)
@given(geometry=draws.geometries(), rng=draws.generators())
def test_the_backward_of_patches_is_their_adjoint(geometry, rng):
    windows, shape = Windows(*geometry.windows), (geometry.b, *geometry.large)
    x = whole(rng, *shape)
    seen = convolution.patches(x, windows)
    dseen = whole(rng, *seen.shape)
    dx = convolution.patches_backward(dseen, windows, shape)
    assert dx.shape == shape
    assert (seen * dseen).sum() == (x * dx).sum()


@pytest.mark.proves("conv-grad-x", "conv-transpose-grad-x")
@settings(max_examples=60)
@given(geometry=draws.geometries(), rng=draws.generators())
def test_with_one_kernel_the_two_are_adjoint(geometry, rng):
    """<conv(x), y> = <x, transposed(y)>, so each is the backward of the other: in whole numbers."""
    conv, back = layers(geometry, rng)
    conv.W.value[...] = back.W.value[...] = whole(rng, *conv.W.shape)
    conv.b.value[...] = back.b.value[...] = 0
    x, y = whole(rng, geometry.b, *geometry.large), whole(rng, geometry.b, *geometry.small)
    (conv_x, conv_cache), (back_y, back_cache) = conv.forward(x), back.forward(y)
    assert (conv_x * y).sum() == (x * back_y).sum()
    np.testing.assert_array_equal(conv.backward(y, conv_cache), back_y)
    np.testing.assert_array_equal(back.backward(x, back_cache), conv_x)


@pytest.mark.proves("conv-grad-W", "conv-grad-b", "conv-grad-x", "conv-transpose-grad-x")
@settings(max_examples=25)
@given(geometry=draws.geometries(), rng=draws.generators())
def test_gradients(geometry, rng):
    conv, back = layers(geometry, rng)
    for layer, shape in (conv, geometry.large), (back, geometry.small):
        assert check(layer, [rng.standard_normal((geometry.b, *shape))], rng=rng).ok


@pytest.mark.parametrize("kind", [Conv2D, ConvTranspose2D])
def test_gradients_where_input_and_output_have_one_shape(rng, kind):
    """So that no exchange of the two is found by its shape."""
    layer = kind(2, 2, 3, 1, 1, rng=rng, dtype="float64")
    x = rng.normal(size=(3, 2, 4, 4))
    assert layer.forward(x)[0].shape == x.shape
    assert check(layer, [x], rng=int(rng.integers(2**32))).ok


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_parameters_add_up_and_no_argument_is_changed(rng, transposed):
    layer = (ConvTranspose2D if transposed else Conv2D)(2, 3, 3, 2, 1, rng=rng, dtype="float64")
    x = rng.normal(size=(2, 4, 2, 5, 7))
    ys = [layer.forward(part)[0] for part in x]
    dy = rng.normal(size=(2, *ys[0].shape))
    for array in (x, dy):
        array.setflags(write=False)  # whoever writes into it raises ValueError
    alone = []
    for part, dpart in zip(x, dy, strict=True):
        layer.W.grad[...] = layer.b.grad[...] = 0
        layer.backward(dpart, layer.forward(part)[1])
        alone.append((layer.W.grad.copy(), layer.b.grad.copy()))
    layer.W.grad[...] = layer.b.grad[...] = 0
    caches = [layer.forward(part)[1] for part in x]
    for dpart, cache in zip(dy, caches, strict=True):
        layer.backward(dpart, cache)
    np.testing.assert_array_equal(layer.W.grad, alone[0][0] + alone[1][0])
    np.testing.assert_array_equal(layer.b.grad, alone[0][1] + alone[1][1])


@pytest.mark.parametrize("kind", [Conv2D, ConvTranspose2D])
def test_the_first_layer_does_not_compute_dx(rng, monkeypatch, kind):
    own = {"rng": rng, "dtype": "float64"}
    stack = sv.Sequential([kind(1, 2, 3, **own), sv.Activation("tanh"), Conv2D(2, 1, 3, **own)])
    y, cache = stack.forward(rng.normal(size=(2, 1, 7, 8)))
    stack.backward(y, cache)
    gradients = [p.grad.copy() for _, p in stack.named_parameters()]
    for _, p in stack.named_parameters():
        p.grad[...] = 0
    first = stack.layers[0]
    monkeypatch.setattr(first.W, "_value", None)  # without W there is no dx
    stack.backward_parameters(y, cache)
    for (_, p), expected in zip(stack.named_parameters(), gradients, strict=True):
        np.testing.assert_array_equal(p.grad, expected)


# ------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("transposed", [False, True])
def test_the_largest_array_is_that_of_the_patches_and_none_of_them_stays(rng, transposed):
    layer = (ConvTranspose2D if transposed else Conv2D)(8, 8, 3, 2, 1, rng=rng)
    x = rng.normal(size=(16, 8, 20, 20)).astype("float32")
    layer.forward(x)  # whatever is made once
    tracemalloc.start()
    y, cache = layer.forward(x)
    kept, forward = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    layer.backward(y, cache)
    _, both = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    patches = 9 * min(x.nbytes, y.nbytes)
    rest = 2**17  # the kernel and NumPy's buffers, 0.1 MB however many images there are
    assert cache is x
    assert kept < y.nbytes + rest
    assert forward < patches + y.nbytes + rest
    assert both < patches + y.nbytes + x.nbytes + rest


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("kind", [Conv2D, ConvTranspose2D])
def test_initial_parameters_are_uniform_within_one_over_the_root_of_a_patch(rng, kind):
    channels = (4, 3000) if kind is Conv2D else (3000, 4)
    layer = kind(*channels, (2, 8), rng=rng, dtype="float64")
    assert layer.W.shape == (3000, 4, 2, 8)  # PyTorch's order, for both
    assert layer.b.shape == channels[1:]
    # 4 * 2 * 8 = 64 numbers in a patch. False alarms: 1e-7 for each.
    for values in (layer.W.value.ravel(), *([layer.b.value] if kind is Conv2D else [])):
        assert np.abs(values).max() <= 1 / 8
        assert stats.kstest(values, stats.uniform(-1 / 8, 1 / 4).cdf).pvalue > 1e-7
    assert np.abs(layer.b.value).max() <= 1 / 8


def test_one_seed_means_one_layer_in_both_dtypes():
    single, double = (Conv2D(2, 3, 2, rng=3, dtype=dtype) for dtype in ("float32", "float64"))
    assert single.W.value.dtype == np.float32
    assert np.array_equal(single.W.value, double.W.value.astype(np.float32))


def test_layers_say_what_builds_them():
    assert repr(Conv2D(1, 2, 3)) == "Conv2D(1, 2, 3, 1, 0)"
    assert repr(ConvTranspose2D(1, 2, 3)) == "ConvTranspose2D(1, 2, 3, 1, 0, 0)"
    assert Conv2D(1, 2, 3).W.value.dtype == ConvTranspose2D(1, 2, 3).W.value.dtype == np.float32
    assert repr(Conv2D(1, 2, (3, 2), 2, (0, 1))) == "Conv2D(1, 2, (3, 2), 2, (0, 1))"
    text = "ConvTranspose2D(1, 2, 3, (2, 3), 1, (0, 2))"
    assert repr(ConvTranspose2D(1, 2, [3, 3], (2, 3), 1, (0, 2))) == text
    assert repr(Reshape([2, 3])) == "Reshape((2, 3))"


# ------------------------------------------------------------------------------------- reshape


def test_reshape_goes_there_and_back(rng):
    rows = rng.normal(size=(5, 12))
    images, cache = Reshape((3, 2, 2)).forward(rows)
    np.testing.assert_array_equal(images, rows.reshape(5, 3, 2, 2))
    np.testing.assert_array_equal(Reshape((3, 2, 2)).backward(images, cache), rows)
    np.testing.assert_array_equal(Reshape(12).forward(images)[0], rows)


# ------------------------------------------------------------------------------------ the network


def conv_model(rng, kind=sv.VAE, **options):
    own = {"hidden": (3, 4), "latent_dim": 2, "dtype": "float64", "rng": rng}
    own |= {"network": "conv", "image_shape": (8, 8)}
    return kind(64, **{**own, **options})


@pytest.mark.parametrize("kind", [sv.VAE, sv.Autoencoder])
@pytest.mark.parametrize("variance", [0.5, "per-dimension"])
def test_gradients_of_the_whole_network(rng, kind, variance):
    model = conv_model(rng, kind, activation="tanh", likelihood="gaussian", variance=variance)
    x = rng.standard_normal((3, 64))
    assert check_model(model, x, rng=int(rng.integers(2**32))).ok


def test_the_network_halves_and_doubles_the_images():
    model = sv.VAE(784, network="conv", image_shape=(28, 28))
    assert repr(model.encoder) == (
        "Sequential([Reshape((1, 28, 28)), Conv2D(1, 32, 3, 2, 1), Activation('relu'), "
        "Conv2D(32, 64, 3, 2, 1), Activation('relu'), Reshape((3136,)), Linear(3136, 40)])"
    )
    assert repr(model.decoder) == (
        "Sequential([Linear(20, 3136), Activation('relu'), Reshape((64, 7, 7)), "
        "ConvTranspose2D(64, 32, 3, 2, 1, 1), Activation('relu'), "
        "ConvTranspose2D(32, 1, 3, 2, 1, 1), Reshape((784,))])"
    )
    assert model.params.names[:3] == ["encoder.1.W", "encoder.1.b", "encoder.3.W"]
    text = "VAE(784, hidden=(32, 64), latent_dim=20, network='conv', image_shape=(28, 28))"
    assert repr(model) == text


@pytest.mark.parametrize(("hidden", "small"), [((3,), "3, 4, 6"), ((3, 4, 5), "5, 1, 3")])
def test_any_number_of_convolutions_halves_them(rng, hidden, small):
    size = (8, 24) if len(hidden) == 3 else (8, 12)
    model = sv.VAE(size[0] * size[1], hidden, network="conv", image_shape=(*size, 1), rng=rng)
    assert f"Reshape(({small}))" in repr(model.decoder)
    assert model.config()["image_shape"] == size


def test_it_learns(rng):
    """Where the bright square of an image is: 40 seeds gained 12 to 15 nats by it, of 24.

    With tanh, since relus may die for good at this rate: one seed of 40 gained 3.
    """
    x = np.zeros((256, 8, 8))
    for image, (row, column) in zip(x, rng.integers(0, 6, (256, 2)), strict=True):
        image[row : row + 3, column : column + 3] = 1
    x = x.reshape(-1, 64)
    p = np.clip(x.mean(axis=0), 1e-3, 1 - 1e-3)
    independent = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    model = conv_model(rng, hidden=(8, 16), latent_dim=4, activation="tanh", dtype="float32")
    trainer = sv.Trainer(model, sv.Adam(model.params, 1e-2), x, batch_size=32)
    trainer.run(20)
    assert trainer.metrics[-1]["test_loss"] < independent - 5


def test_a_saved_model_is_built_again(rng, tmp_path):
    model = conv_model(rng)
    x, eps = rng.random((3, 64)), rng.normal(size=(3, 2))
    model.save(tmp_path / "m.safetensors")
    again = sv.load(tmp_path / "m.safetensors")
    assert again.config() == model.config()
    assert again.loss_and_grad(x, eps) == model.loss_and_grad(x, eps)


@pytest.fixture
def _device(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_device")
def test_a_run_goes_on_bitwise_and_is_the_same_on_a_device():
    def train(out, backend, epochs):
        options = {"network": "conv", "hidden": (3, 4), "noise": "host", "epochs": epochs[0]}
        sv.run.new(sv.run.Options(**options), out, backend=backend).train()
        for more in epochs[1:]:
            sv.run.resume(out, backend=backend, epochs=more).train()
        return sv.load(out)

    expected = train("whole", "numpy", [2])
    assert expected.config()["network"] == "conv"
    for backend in "numpy", "cupy":
        parts = train(backend, backend, [1, 2])
        np.testing.assert_array_equal(parts.params.value, expected.params.value)


@pytest.mark.usefixtures("_device")
def test_the_command_line_has_the_network(capsys):
    cpu = ["--device", "cpu"]
    train = ["train", "--network", "conv", "--epochs", "1", "--out", "r", *cpu]
    assert main(train) == 0
    assert "VAE 64-32-64-2-64-32-64, 39,365 parameters" in capsys.readouterr().out
    assert main(["evaluate", "r", "--nll-samples", "3", "--json", *cpu]) == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["nll"])
    assert main(["sample", "r", "--out", "s.png", *cpu]) == 0
    assert main(["train", "--resume", "--network", "dense", "--out", "r", *cpu]) == 2
    assert "--network was conv, this command asks for dense" in capsys.readouterr().err


def test_images_of_another_shape_are_not_taken_for_the_same(tmp_path, rng):
    """As many pixels, but other neighbours."""
    paths = [tmp_path / name for name in ("square.npy", "wide.npy")]
    for path, shape in zip(paths, [(8, 8), (4, 16)], strict=True):
        np.save(path, rng.random((20, *shape)))
    options = sv.run.Options(str(paths[0]), network="conv", hidden=(2,), latent=1, epochs=1)
    sv.run.new(options, tmp_path / "r").train()
    with pytest.raises(sv.InputError, match=r"the shape \(4, 16\): expected \(8, 8\), as the conv"):
        sv.run.open(tmp_path / "r", data=paths[1], other_data=True)


@pytest.mark.usefixtures("_device")
def test_a_step_on_a_device_computes_the_same_and_never_waits(rng):
    seed, x = int(rng.integers(2**31)), rng.random((5, 64))
    host, device = (
        conv_model(seed, backend=get_backend(b, noise="host")) for b in ("numpy", "cupy")
    )
    device_x, eps = device.backend.asarray(x), device.backend.asarray(rng.normal(size=(5, 2)))
    with standin.counting() as counts:
        device.loss_and_grad(device_x, eps)
    assert (counts.waits, counts.copies) == (0, 0)
    host.loss_and_grad(x, eps.get())
    np.testing.assert_array_equal(device.params.grad.get(), host.params.grad)


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(0, 1, 3), "in_channels is 0: expected a positive integer"),
        (lambda: Conv2D(1, 2.5, 3), r"out_channels is 2.5: expected a positive integer"),
        (lambda: Conv2D(1, 1, 0), "kernel_size is 0: expected a positive integer"),
        (lambda: Conv2D(1, 1, (3, 3, 3)), r"kernel_size is \(3, 3, 3\): expected a sequence of 2"),
        (lambda: Conv2D(1, 1, 3, stride=(1, 0)), "stride is 0: expected a positive integer"),
        (lambda: Conv2D(1, 1, 3, padding=-1), "padding is -1: expected 0 or a larger integer"),
        (lambda: ConvTranspose2D(1, 1, 3, 2, 1, -1), "output_padding is -1: expected 0 or a"),
        (
            lambda: ConvTranspose2D(1, 1, 3, (2, 3), 1, 2),
            r"output_padding is 2: expected less than the stride, \(2, 3\)",
        ),
        (lambda: ConvTranspose2D(1, 1, 3, output_padding=1), "is 1: expected less than the str"),
        (lambda: Reshape((2, 0)), "shape is 0: expected a positive integer"),
        (
            lambda: Conv2D(2, 1, 3).forward(np.ones((4, 3, 8, 8))),
            r"x has shape \(4, 3, 8, 8\): expected \(B, 2, H, W\)",
        ),
        (
            lambda: ConvTranspose2D(2, 1, 3).forward(np.ones((4, 8))),
            r"x has shape \(4, 8\): expected \(B, 2, H, W\)",
        ),
        (
            lambda: Conv2D(1, 1, (2, 5), padding=1).forward(np.ones((4, 1, 2, 2))),
            "x has images of 2 by 2 pixels and padding 1 by 1: expected at least the kernel's 2 by",
        ),
        (
            lambda: ConvTranspose2D(1, 1, 1, padding=1).forward(np.ones((4, 1, 3, 2))),
            r"images of 3 by 2 pixels, of which ConvT.* makes 1 by 0: expected at least 1 by 1",
        ),
        (
            lambda: Reshape((3, 4)).forward(np.ones((5, 13))),
            r"x has shape \(5, 13\): expected 12 numbers for each example, to put them into",
        ),
        (
            lambda: Reshape(1).forward(np.ones(5)),
            r"x has shape \(5,\): expected 1 numbers for each ex",
        ),
    ],
)
def test_what_a_layer_cannot_use_is_named(make, message):
    with pytest.raises(sv.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": None}, r"network is 'conv', .*: expected their image_shape, such as \(28"),
        ({"image_shape": 8}, r"image_shape is 8: expected a sequence"),
        ({"image_shape": (64,)}, r"\(H, W\) or network dense, and their shape is \(64,\)"),
        (
            {"image_shape": (4, 4, 4)},
            r"without colours: expected \(H, W\) or network dense, and their shape is \(4",
        ),
        ({"image_shape": (1, 64)}, r"the data are rows of 64 numbers: expected \(N, H, W\)"),
        ({"hidden": ()}, r"expected the channels of a convolution in hidden, not none"),
        ({"hidden": (2,) * 4}, r"halves .* 4 times: expected sides that 16 divides, and .* 8 by 8"),
        ({"image_shape": (12, 8)}, "has 64 numbers: expected 96, the pixels of an image of 12 by"),
        ({"network": "deep"}, "network is 'deep': expected one of dense, conv"),
        ({"network": ["conv"]}, r"network is \['conv'\]: expected one of dense, conv"),
        (
            {"hidden": None, "encoder": sv.Linear(64, 4), "decoder": sv.Linear(2, 64)},
            "network is 'conv' beside two parts of your own: it describes the stacks",
        ),
    ],
)
def test_what_the_network_cannot_use_is_named(rng, options, message):
    with pytest.raises(sv.InputError, match=message):
        conv_model(rng, **options)


@pytest.mark.parametrize("options", [{}, {"encoder": sv.Linear(192, 4, dtype="float64")}])
def test_colours_that_a_row_holds_beside_the_pixels_are_refused(rng, options):
    own = {"network": "conv", "image_shape": (8, 8), "latent_dim": 2, "dtype": "float64"}
    with pytest.raises(sv.InputError) as error:
        sv.VAE(192, **own, **options)
    assert str(error.value) == (
        "network is 'conv', and an example has 192 numbers: expected 64, the pixels of an image of "
        "8 by 8 without colours"
    )


@pytest.mark.parametrize(
    ("part", "width", "found"),
    [
        ("encoder", (74, 4), "the encoder takes 74 numbers"),
        ("decoder", (2, 74), "the decoder gives 74 numbers"),
    ],
)
def test_what_is_more_than_an_image_is_refused(rng, part, width, found):
    class Wider(sv.VAE):
        def widths(self):
            return {**super().widths(), part: width}

    with pytest.raises(sv.InputError, match=f"{found}: expected images of 8 by 8 pixels, and no"):
        conv_model(rng, Wider)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((20, 10), [], "--network is 'conv', which is for images, and the data are rows of 10 num"),
        ((20, 10, 8), [], "expected sides that 4 divides, and these have 10 by 8 pixels"),
        ((20, 8, 8, 3), [], "without colours: expected (H, W) or --network dense, and their shape"),
        ((20, 8, 8), ["--hidden", "none"], "--network is 'conv', which is for images: expected th"),
    ],
)
def test_data_that_the_network_cannot_take_are_refused_in_one_sentence(
    capsys, tmp_path, monkeypatch, shape, options, message
):
    monkeypatch.chdir(tmp_path)
    np.save("my.npy", np.zeros(shape))
    assert main(["train", "my.npy", "--network", "conv", "--device", "cpu", *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("shape", [(20, 16), (20, 4, 4)])
def test_rows_that_are_taken_as_images_are_noted(capsys, tmp_path, monkeypatch, rng, shape):
    monkeypatch.chdir(tmp_path)
    np.save("my.npy", rng.random(shape))
    options = ["--epochs", "1", "--latent", "1", "--device", "cpu", "--json"]
    assert main(["train", "my.npy", "--network", "conv", *options, "--out", "conv"]) == 0
    note = "note: my.npy: rows of 16 numbers are taken as images of 4 by 4\n"
    assert capsys.readouterr().err == f"scratchvae train: {note}" * (shape == (20, 16))
    assert main(["train", "my.npy", *options, "--out", "dense"]) == 0
    assert capsys.readouterr().err == ""


def test_the_digits_are_known_to_be_images(recwarn):
    sv.run.new(sv.run.Options("digits", network="conv"))
    assert not recwarn.list
