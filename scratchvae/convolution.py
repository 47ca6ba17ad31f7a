r"""Convolution and transposed convolution of images (B, C, H, W): each is the other's backward.

A window of the size of the kernel slides over the large images. What it sees at one place is a
patch, and one matrix product turns every patch into one pixel of the small images:

    large images --patches--> (B H' W', kH kW C) --product with W--> small images (B, C', H', W')

`Conv2D` goes this way. `ConvTranspose2D` goes back: it gives the small images and returns the large
ones. The way back is the backward of the way there, so two functions, `convolve` and
`convolve_transposed`, are the forward and the backward of both layers.

Memory: the patches are the largest arrays, kH kW C numbers for each pixel of the small images; for
a 3 by 3 kernel with stride 2 that is 2.25 times the large images. They live only while one product
is computed: a layer's cache holds its input and nothing else. Padding is not stored. All images are
computed with the channels last in memory, (B, H, W, C), and seen as (B, C, H, W): so a patch is
copied in runs of C numbers, and neither side of a product has to be transposed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .backend import Array, Backend, RandomSource, get_backend, get_dtype, get_rng, namespace
from .errors import InputError, check_each, check_seed, check_size
from .parameters import Parameter

Pair = tuple[int, int]  # of rows and columns


class Windows(NamedTuple):
    """Where a kernel lies on an image: at every stride-th pixel, and `padding` over each edge."""

    kernel: Pair
    stride: Pair
    padding: Pair

    def places(self, size: Pair) -> Pair:
        """Return (H', W'), in how many places the kernel lies on an image of `size` (H, W)."""
        # [conv-size]
        axes = zip(size, *self, strict=True)
        rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in axes)
        return rows, columns

    def overlaps(self, size: Pair) -> Iterator[tuple[Pair, tuple[slice, ...], tuple[slice, ...]]]:
        """Yield for each entry (i, j) of the kernel the places where it lies on a pixel, and these.

        It lies on the padding in all other places. Places and pixels are two slices each.
        """
        axes = zip(size, self.places(size), *self, strict=True)
        rows, columns = ([_overlap(n, m, s, p, i) for i in range(k)] for n, m, k, s, p in axes)
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            places, pixels = zip(row, column, strict=True)
            yield (i, j), places, pixels


def _overlap(n: int, places: int, s: int, p: int, i: int) -> tuple[slice, slice]:
    """Return along one axis the places u for which there is a pixel s u + i - p, and the pixels."""
    first = max(0, -((i - p) // s))  # the smallest u with s u + i - p >= 0
    end = max(first, min(places, (n - 1 + p - i) // s + 1))  # the largest has s u + i - p <= n - 1
    start = s * first + i - p
    return slice(first, end), slice(start, start + s * (end - first), s)


# --- functions of arrays -------------------------------------------------------------------------


def patches(x: Array, windows: Windows) -> Array:
    """Return what each window sees of x (B, C, H, W): a row of numbers, (B H' W', kH kW C)."""
    b, c, h, w = x.shape
    (kh, kw), (rows, columns) = windows.kernel, windows.places((h, w))
    seen = namespace(x).zeros((b, rows, columns, kh, kw, c), dtype=x.dtype)
    # [patches]
    for (i, j), places, pixels in windows.overlaps((h, w)):
        seen[:, *places, i, j] = channels_last(x)[:, *pixels]
    return seen.reshape(b * rows * columns, kh * kw * c)


def patches_backward(dseen: Array, windows: Windows, shape: Sequence[int]) -> Array:
    """Return dx of the `shape` (B, C, H, W): each pixel gets the sum over the windows it is in."""
    b, c, h, w = shape
    dseen = dseen.reshape(b, *windows.places((h, w)), *windows.kernel, c)
    dx = namespace(dseen).zeros((b, h, w, c), dtype=dseen.dtype)
    # [patches-grad]
    for (i, j), places, pixels in windows.overlaps((h, w)):
        part = dx[:, *pixels]
        part += dseen[:, *places, i, j]
    return channels_first(dx)


def convolve(x: Array, W: Array, windows: Windows) -> Array:
    """Return the small images (B, C', H', W') for the large ones x (B, C, H, W)."""
    size = windows.places(x.shape[2:])
    # [conv]
    y = patches(x, windows) @ as_matrix(W).T  # (B H' W', C')
    return channels_first(y.reshape(len(x), *size, len(W)))


def convolve_transposed(y: Array, W: Array, windows: Windows, size: Sequence[int]) -> Array:
    """Return the large images (B, C, H, W), whose `size` is (H, W), for y (B, C', H', W')."""
    # [conv-transpose]
    seen = as_rows(y) @ as_matrix(W)  # (B H' W', kH kW C)
    return patches_backward(seen, windows, (len(y), W.shape[1], *size))


def convolve_grad_W(large: Array, small: Array, windows: Windows) -> Array:
    """Return dW (C', C, kH, kW): of the pair above one is an input, the other an output's gradient.

    Which is which does not matter: W joins the two, and its gradient is the same.
    """
    # [conv-grad-W]
    dW = as_rows(small).T @ patches(large, windows)  # (C', kH kW C)
    return channels_first(dW.reshape(small.shape[1], *windows.kernel, large.shape[1]))


def channels_last(x: Array) -> Array:
    """Return a view (B, H, W, C) of x (B, C, H, W)."""
    return x.transpose(0, 2, 3, 1)


def channels_first(x: Array) -> Array:
    """Return a view (B, C, H, W) of x (B, H, W, C)."""
    return x.transpose(0, 3, 1, 2)


def as_rows(x: Array) -> Array:
    """Return the pixels of x (B, C, H, W) as rows (B H W, C)."""
    return channels_last(x).reshape(-1, x.shape[1])


def as_matrix(W: Array) -> Array:
    """Return W (C', C, kH, kW) as (C', kH kW C), in the order of a patch."""
    return channels_last(W).reshape(len(W), -1)


# --- layers --------------------------------------------------------------------------------------


class _Convolution:
    """What both layers are made of: W (C', C, kH, kW), C' the channels of the small images, and b.

    W and b are drawn uniformly from ±1/sqrt(C kH kW): the rule of ``torch.nn``, which takes C kH kW
    for the fan-in of the transposed convolution as well.
    """

    transposed = False  # whether the input are the small images

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        *,
        rng: RandomSource = None,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
    ) -> None:
        self.in_channels = check_size("in_channels", in_channels)
        self.out_channels = check_size("out_channels", out_channels)
        self.windows = Windows(
            _pair("kernel_size", kernel_size, check_size),
            _pair("stride", stride, check_size),
            _pair("padding", padding, check_seed),
        )
        backend, dtype, rng = get_backend(backend), get_dtype(dtype), get_rng(rng)
        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (*channels, *self.windows.kernel)  # (C', C, kH, kW)
        # Drawn on the host in float64, as Linear's are.
        bound = math.prod(shape[1:]) ** -0.5
        self.W = Parameter(backend.asarray(rng.uniform(-bound, bound, shape), dtype=dtype))
        self.b = Parameter(backend.asarray(rng.uniform(-bound, bound, out_channels), dtype=dtype))

    def _require_images(self, x: Array) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise InputError(f"x has shape {x.shape}: expected (B, {self.in_channels}, H, W)")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield W and b."""
        yield from (("W", self.W), ("b", self.b))

    def _in_words(self, *more: Pair) -> str:
        pairs = ", ".join(str(_short(pair)) for pair in (*self.windows, *more))
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, {pairs})"


class Conv2D(_Convolution):
    """A convolution: each pixel of y is W times what a window sees of x, plus b.

    Parameters
    ----------
    in_channels, out_channels : int
        C and C'.
    kernel_size, stride, padding : int or pair of int
        Of rows and columns. The padding is 0, of that width on every edge.
    rng : None, int, SeedSequence or Generator
        Draws W (C', C, kH, kW) and b (C',) uniformly from ±1/sqrt(C kH kW): the rule of
        ``torch.nn.Conv2d``, whose geometry this is, too.
    backend, dtype
        As for :class:`~scratchvae.VAE`.

    Raises
    ------
    InputError
        If a number is not what it must be; in `forward` if the images have another number of
        channels, or are smaller than the kernel with their padding.
    """

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return y (B, C', H', W') for x (B, C, H, W), and the cache."""
        self._require_images(x)
        if min(self.windows.places(x.shape[2:])) < 1:
            raise InputError(
                f"x has images of {_by(x.shape[2:])} pixels and padding {_by(self.windows.padding)}"
                f": expected at least the kernel's {_by(self.windows.kernel)}"
            )
        y = convolve(x, self.W.value, self.windows)  # (B, C', H', W')
        y += self.b.value[:, None, None]
        return y, x

    def backward(self, dy: Array, cache: Array) -> Array:
        """Add to the gradients of W and b; return dx (B, C, H, W)."""
        self.backward_parameters(dy, cache)
        # [conv-grad-x]
        return convolve_transposed(dy, self.W.value, self.windows, cache.shape[2:])

    def backward_parameters(self, dy: Array, cache: Array) -> None:
        """Add to the gradients of W and b alone."""
        x = cache
        self.W.add(convolve_grad_W(x, dy, self.windows))
        # [conv-grad-b]
        self.b.add(as_rows(dy).sum(axis=0))  # (C',)

    def __repr__(self) -> str:
        return self._in_words()


class ConvTranspose2D(_Convolution):
    """A transposed convolution: x is what a `Conv2D` of this geometry makes of images like y.

    So with stride 2 it doubles the size of images where the other halves it. That is all: it does
    not invert the other's numbers.

    Parameters
    ----------
    in_channels, out_channels : int
        C' and C.
    kernel_size, stride, padding : int or pair of int
        Of the `Conv2D` that goes the other way.
    output_padding : int or pair of int
        A `Conv2D` gives images of one size for several sizes, as many as its stride; this is by how
        much y is larger than the smallest.
    rng : None, int, SeedSequence or Generator
        Draws W (C', C, kH, kW) and b (C,) uniformly from ±1/sqrt(C kH kW): the rule of
        ``torch.nn.ConvTranspose2d``, whose geometry this is, too.
    backend, dtype
        As for :class:`~scratchvae.VAE`.

    Raises
    ------
    InputError
        If a number is not what it must be; in `forward` if the images have another number of
        channels, or y would have no pixels.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        *,
        rng: RandomSource = None,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
    ) -> None:
        own: dict[str, Any] = {"rng": rng, "backend": backend, "dtype": dtype}
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, **own)
        self.output_padding = _pair("output_padding", output_padding, check_seed)
        if any(n >= s for n, s in zip(self.output_padding, self.windows.stride, strict=True)):
            raise InputError(
                f"output_padding is {output_padding!r}: expected less than the stride, "
                f"{_short(self.windows.stride)}"
            )

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return y (B, C, H, W) for x (B, C', H', W'), and the cache."""
        self._require_images(x)
        # [conv-transpose-size]
        axes = zip(x.shape[2:], *self.windows, self.output_padding, strict=True)
        size = [(n - 1) * s + k - 2 * p + more for n, k, s, p, more in axes]
        if min(size) < 1:
            raise InputError(
                f"x has images of {_by(x.shape[2:])} pixels, of which {self!r} makes {_by(size)}: "
                "expected at least 1 by 1"
            )
        y = convolve_transposed(x, self.W.value, self.windows, size)  # (B, C, H, W)
        y += self.b.value[:, None, None]
        return y, x

    def backward(self, dy: Array, cache: Array) -> Array:
        """Add to the gradients of W and b; return dx (B, C', H', W')."""
        self.backward_parameters(dy, cache)
        # [conv-transpose-grad-x]
        return convolve(dy, self.W.value, self.windows)

    def backward_parameters(self, dy: Array, cache: Array) -> None:
        """Add to the gradients of W and b alone."""
        x = cache
        self.W.add(convolve_grad_W(dy, x, self.windows))
        self.b.add(as_rows(dy).sum(axis=0))  # (C,)

    def __repr__(self) -> str:
        return self._in_words(self.output_padding)


class Reshape:
    """Rows (B, n) to images (B, C, H, W) with n = C H W, and back: every example in a new shape.

    Parameters
    ----------
    shape : int or sequence of int
        Of one example: (C, H, W), or n.
    """

    def __init__(self, shape: int | Sequence[int]) -> None:
        each = shape if isinstance(shape, Iterable) else (shape,)
        self.shape = check_each("shape", each, check_size)

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        """Return the B examples of x in their new shape, and the cache."""
        if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(self.shape):
            raise InputError(
                f"x has shape {x.shape}: expected {math.prod(self.shape):,} numbers for each "
                f"example, to put them into the shape {self.shape}"
            )
        return x.reshape(len(x), *self.shape), x.shape

    def backward(self, dy: Array, cache: tuple[int, ...]) -> Array:
        """Return dx in the shape of x."""
        return dy.reshape(cache)

    def __repr__(self) -> str:
        return f"Reshape({self.shape})"


def _pair(name: str, value: Any, check: Any) -> Pair:
    each = value if isinstance(value, Iterable) else (value, value)
    return check_each(name, each, check, length=2)


def _short(pair: Pair) -> int | Pair:
    rows, columns = pair
    return rows if rows == columns else pair


def _by(size: Sequence[int]) -> str:
    return " by ".join(map(str, size))
