"""The networks that a model builds by name: an encoder, and the decoder that mirrors it.

`hidden` are the widths of the encoder's hidden layers, which the decoder has in reverse: numbers of
an example in the network "dense", channels of its images in "conv".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .convolution import Conv2D, ConvTranspose2D, Reshape
from .errors import InputError, check_each, check_size
from .layers import Activation, Layer, Linear, Sequential, dense


class Dense:
    """Stacks of Linear layers.

    Parameters
    ----------
    hidden : sequence of int
    activation : str
        After every hidden layer.
    image_shape : (H, W), optional
        Of the examples, which does not matter here.
    **own
        rng, backend and dtype, as for :class:`~scratchvae.Linear`.
    """

    hidden: tuple[int, ...] = (400,)

    def __init__(
        self,
        hidden: tuple[int, ...],
        activation: str,
        image_shape: Sequence[int] | None = None,
        **own: Any,
    ) -> None:
        self.hidden, self.activation, self.own = hidden, activation, own
        self.image_shape = self.fit("network", image_shape, hidden)

    @staticmethod
    def fit(name: str, image_shape: Sequence[int] | None, hidden: tuple[int, ...]) -> Any:
        """Return the shape of the images, or None where it does not matter.

        Raise InputError, with a sentence that begins with `name`, if they do not fit the network.
        """
        return None

    def require_width(self, data_dim: int) -> None:
        """Raise InputError unless rows of data_dim numbers fit the shape of the images."""

    def encoder(self, n_in: int, n_out: int) -> Sequential:
        """Return what turns rows of n_in numbers into rows of n_out."""
        return dense([n_in, *self.hidden, n_out], self.activation, **self.own)

    def decoder(self, n_in: int, n_out: int) -> Sequential:
        """Return what turns rows of n_in numbers into rows of n_out."""
        return dense([n_in, *reversed(self.hidden), n_out], self.activation, **self.own)


class Conv(Dense):
    """Convolutions, 3 by 3 with stride 2, that halve the images, and a Linear layer to the code.

    Parameters
    ----------
    hidden, activation : as for `Dense`
        At least one convolution.
    image_shape : (H, W)
        Both divisible by 2 as often as there are convolutions.
    **own : as for `Dense`

    Raises
    ------
    InputError
        If the examples are no such images.
    """

    hidden = (32, 64)

    @staticmethod
    def fit(name: str, image_shape: Sequence[int] | None, hidden: tuple[int, ...]) -> Any:
        """Return (H, W); raise InputError unless they are images that can be halved."""
        conv = f"{name} is 'conv', which is for images"
        if image_shape is None:
            raise InputError(f"{conv}: expected their image_shape, such as (28, 28)")
        shape = check_each("image_shape", image_shape, check_size)
        if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
            raise InputError(
                f"{conv} without colours: expected (H, W) or {name} dense, and their shape is "
                f"{shape}"
            )
        h, w = shape[:2]
        if h == 1:
            raise InputError(f"{conv}, and the data are rows of {w} numbers: expected (N, H, W)")
        if not hidden:
            raise InputError(f"{conv}: expected the channels of a convolution in hidden, not none")
        times = 2 ** len(hidden)
        if h % times or w % times:
            raise InputError(
                f"{conv}, and halves them {len(hidden)} times: expected sides that {times} "
                f"divides, and these have {h} by {w} pixels"
            )
        return h, w

    def require_width(self, data_dim: int) -> None:
        """Raise InputError unless an example has one number for each pixel of its image."""
        h, w = self.image_shape
        if data_dim != h * w:
            raise InputError(
                f"network is 'conv', and an example has {data_dim} numbers: expected {h * w}, the "
                f"pixels of an image of {h} by {w} without colours"
            )

    def encoder(self, n_in: int, n_out: int) -> Sequential:
        """Return what turns images in rows of n_in numbers into rows of n_out."""
        large, (h, w) = self._sizes()
        channels = [self._channels("encoder takes", n_in), *self.hidden]
        layers: list[Layer] = [Reshape((channels[0], *large))]
        for c_in, c_out in pairwise(channels):
            # With padding 1 a window has its centre on every other pixel, the first one included.
            layers += [Conv2D(c_in, c_out, 3, 2, 1, **self.own), Activation(self.activation)]
        n = channels[-1] * h * w
        return Sequential([*layers, Reshape(n), Linear(n, n_out, **self.own)])

    def decoder(self, n_in: int, n_out: int) -> Sequential:
        """Return what turns rows of n_in numbers into images in rows of n_out."""
        _, (h, w) = self._sizes()
        channels = [*reversed(self.hidden), self._channels("decoder gives", n_out)]
        layers: list[Layer] = [Linear(n_in, channels[0] * h * w, **self.own)]
        layers += [Activation(self.activation), Reshape((channels[0], h, w))]
        for c_in, c_out in pairwise(channels):
            # A convolution makes n pixels of 2n - 1 and of 2n: output_padding 1 goes back to 2n.
            layers += [ConvTranspose2D(c_in, c_out, 3, 2, 1, 1, **self.own)]
            layers += [Activation(self.activation)]
        return Sequential([*layers[:-1], Reshape(n_out)])

    def _sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (H, W) of the examples and of the smallest images."""
        h, w = self.image_shape
        times = 2 ** len(self.hidden)
        return (h, w), (h // times, w // times)

    def _channels(self, part: str, n: int) -> int:
        h, w = self.image_shape
        channels, more = divmod(n, int(h * w))
        if more:
            raise InputError(
                f"network is 'conv', and the {part} {n} numbers: expected images of {h} by {w} "
                "pixels, and no more"
            )
        return channels


NETWORKS: dict[str, type[Dense]] = {"dense": Dense, "conv": Conv}


def get_network(name: str) -> type[Dense]:
    """Return the network called `name`; InputError if there is none."""
    if name not in list(NETWORKS):
        raise InputError(f"network is {name!r}: expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
