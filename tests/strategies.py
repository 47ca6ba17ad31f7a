"""What the property tests draw: shapes, scales, seeds, arrays and models.

Hypothesis draws shapes, options and a seed, so that a failure prints them; the numbers themselves
come from a generator with that seed. Nothing is filtered: every draw is usable by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from scratchvae import VAE, Activation, Autoencoder, Linear, Sequential
from scratchvae.activations import ACTIVATIONS

seeds = st.integers(0, 2**32 - 1)
batch_sizes = st.integers(1, 5)
data_dims = st.integers(1, 7)
latent_dims = st.integers(1, 4)
hiddens = st.lists(st.integers(1, 6), max_size=2).map(tuple)
activations = st.sampled_from(list(ACTIVATIONS))
smooth_activations = st.sampled_from([name for name in ACTIVATIONS if name != "relu"])
scales = st.sampled_from([0.01, 1.0, 3.0])
logit_scales = st.sampled_from([0.1, 1.0, 10.0, 30.0])
logvar_scales = st.sampled_from([0.01, 1.0, 5.0])
# Or a weight that leaves the KL something to show beside the rounding of the reconstruction.
betas = st.sampled_from([0.0, 1.0, 10.0]) | st.floats(1e-3, 10)
likelihoods = st.sampled_from(
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "gaussian", "variance": 0.5},
        {"likelihood": "gaussian", "variance": "shared"},
        {"likelihood": "gaussian", "variance": "per-dimension"},
    ]
)


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Generators that print as the seed they were made from."""
    return seeds.map(Seeded)


class Seeded(np.random.Generator):
    """A NumPy generator whose repr is its seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.seed = seed

    def __repr__(self) -> str:
        return f"Seeded({self.seed})"


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int]:
    """(B, D)."""
    return draw(batch_sizes), draw(data_dims)


@st.composite
def broadcast_shapes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, ...]]:
    """(B, D), and a shape that broadcasts to it."""
    b, d = draw(shapes())
    return (b, d), draw(st.sampled_from([(), (1,), (d,), (b, 1), (1, d), (b, d)]))


def bits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels that are 0 or 1, float64."""
    return rng.integers(0, 2, shape).astype(np.float64)


def away_from_zero(x: np.ndarray, margin: float) -> np.ndarray:
    """Every entry moved outwards by `margin`, so that relu's kink at 0 is out of reach."""
    return x + np.copysign(margin, x)


def clear_of_kinks(stack: Any, x: np.ndarray, margin: float = 0.02) -> np.ndarray:
    """Shift biases so that no ReLU's input is within `margin` of 0; return the stack's output."""
    for layer, following in zip(stack.layers, [*stack.layers[1:], None], strict=True):
        if getattr(following, "name", "") == "relu":
            y = layer.forward(x)[0]  # (B, n)
            while (near := np.abs(y).min(axis=0) < margin).any():
                y = y + margin * near
                layer.b.value += margin * near
        x = layer.forward(x)[0]
    return x


@dataclass
class Case:
    """A float64 model with data and noise; no ReLU is near its kink."""

    model: Any
    x: np.ndarray  # (B, D)
    eps: np.ndarray  # (B, Z)
    options: dict[str, Any]


def make_case(kind: type, b: int, d: int, z: int, seed: int, **options: Any) -> Case:
    rng = np.random.default_rng([seed, 1])  # other numbers than a check with the same seed draws
    model = kind(d, latent_dim=z, dtype="float64", rng=rng, **options)
    bernoulli = options.get("likelihood", "bernoulli") == "bernoulli"
    x = bits(rng, (b, d)) if bernoulli else rng.standard_normal((b, d))
    eps = rng.standard_normal((b, z))
    z = clear_of_kinks(model.encoder, x)  # (B, Z) or (B, 2Z)
    if z.shape[1] == 2 * model.latent_dim:
        mu, logvar = np.split(z, 2, axis=1)
        z = mu + np.exp(logvar / 2) * eps
    clear_of_kinks(model.decoder, z)
    return Case(model, x, eps, {"seed": seed, **options})


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[type, ...] = (VAE, Autoencoder)) -> Case:
    """Models of every kind."""
    kind = draw(st.sampled_from(kinds))
    options = {"hidden": draw(hiddens), "activation": draw(activations), **draw(likelihoods)}
    if kind is VAE:
        options["beta"] = draw(betas)
    sizes = draw(batch_sizes), draw(data_dims), draw(latent_dims)
    return make_case(kind, *sizes, draw(seeds), **options)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Sequential, np.ndarray]:
    """A Sequential of drawn layers with an input; a ReLU comes only after a Linear."""
    rng = draw(generators())
    b, n = draw(shapes())
    x = rng.standard_normal((b, n))
    layers: list[Any] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            m = draw(data_dims)
            layers.append(Linear(n, m, rng=rng, dtype="float64"))
            n = m
            if draw(st.booleans()):
                layers.append(Activation(draw(activations)))
        else:
            layers.append(Activation(draw(smooth_activations)))
    stack = Sequential(layers)
    clear_of_kinks(stack, x)
    return stack, x


@dataclass
class Geometry:
    """A convolution of images: how many and how large, and the arguments of both layers."""

    b: int
    large: tuple[int, int, int]  # (C, H, W)
    small: tuple[int, int, int]  # (C', H', W')
    windows: tuple[tuple[int, int], ...]  # kernel_size, stride, padding
    output_padding: tuple[int, int]  # with which the transposed one gives back H and W


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Kernels, strides and paddings of which some leave pixels out, or windows in the padding.

    Half of the kernels are square, as most are: rows taken for columns fail there by no shape.
    """
    axes: list[tuple[int, ...]] = []
    kernels = st.integers(1, 4)
    height = draw(kernels)
    for k in height, draw(st.just(height) | kernels):
        s, p = draw(st.integers(1, 3)), draw(st.integers(0, 3))
        n = draw(st.integers(max(1, k - 2 * p), 7))
        places, left = divmod(n + 2 * p - k, s)
        axes.append((n, places + 1, k, s, p, left))
    n, places, k, s, p, left = zip(*axes, strict=True)
    c_large, c_small = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Geometry(draw(st.integers(1, 3)), (c_large, *n), (c_small, *places), (k, s, p), left)
