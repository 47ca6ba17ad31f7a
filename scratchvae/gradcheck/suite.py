"""The checks of this package's own pairs, layers and models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from scratchvae import free_bits, gaussian, likelihoods
from scratchvae.activations import ACTIVATIONS
from scratchvae.backend import Array, Backend, RandomSource, get_backend
from scratchvae.conditional import ConditionalVAE
from scratchvae.convolution import Conv2D, ConvTranspose2D
from scratchvae.iwae import IWAE
from scratchvae.layers import Activation, Linear, Sequential
from scratchvae.vae import VAE, Autoencoder

from .checking import check, check_model, seed_of
from .comparison import TOLERANCE, GradientError, Report


def suite(
    backend: str | Backend = "numpy", rng: RandomSource = None, tolerance: float = TOLERANCE
) -> Iterator[Report]:
    """Check every pair, every layer and whole models, yielding one report for each.

    A wrong gradient does not raise: its report is not `ok` and its `message` says why. All reports
    carry one seed, fresh by default, and `suite(rng=seed)` repeats them. Where the arguments that
    were drawn decide nothing, such as beside a kink of ReLU, others are drawn once.
    """
    seed, backend = seed_of(rng), get_backend(backend)

    def report(name: str, f: Any, args: list[Array]) -> Report:
        try:
            if hasattr(f, "loss_and_grad"):
                return check_model(f, *args, rng=seed, tolerance=tolerance, name=name)
            return check(f, args, rng=seed, tolerance=tolerance, name=name)
        except GradientError as error:
            return error.report

    for i, case in enumerate(_cases(backend, np.random.default_rng([seed, 1]))):
        found = report(*case)
        if found.verdict == "cannot tell":  # by chance beside a kink: at other arguments, then
            again = _cases(backend, np.random.default_rng([seed, 2]))
            found = report(*next(itertools.islice(again, i, None)))
        yield found


def _cases(backend: Backend, rng: np.random.Generator) -> Iterator[tuple[str, Any, list[Array]]]:
    def normal(*shape: int) -> Array:
        return backend.asarray(rng.standard_normal(shape))

    for name, (f, _) in ACTIVATIONS.items():
        yield name, f, [2 * normal(5, 7)]

    b, d, k = (4, 6), 6, 3  # (B, D), D, K
    g, li = gaussian, likelihoods
    yield "reparameterize", g.reparameterize, [normal(*b), normal(*b), normal(*b)]
    yield "reparameterize, K samples", g.reparameterize, [normal(*b), normal(*b), normal(k, *b)]
    yield "kl_standard_normal", g.kl_standard_normal, [normal(*b), normal(*b)]
    charged = backend.asarray(rng.integers(0, 2, b).astype(float))
    mu = charged * (2 + abs(normal(*b)))  # (B, Z) a KL of 2 or more, or almost none: no kink near
    free = SimpleNamespace(
        forward=lambda mu, logvar: free_bits.kl_free_bits(mu, logvar, 0.5),
        backward=free_bits.kl_free_bits_backward,
    )
    yield "kl_free_bits", free, [mu, 0.1 * normal(*b)]
    yield "log_density", g.log_density, [normal(*b), normal(*b), normal(*b)]
    yield "log_density, K samples", g.log_density, [normal(k, *b), normal(*b), normal(*b)]
    yield "log_density, prior", g.log_density, [normal(*b), normal(d), normal()]
    bits = backend.asarray(rng.integers(0, 2, b).astype(float))
    yield "bernoulli_nll", li.bernoulli_nll, [bits, 4 * normal(*b)]
    for label, shape in {"": b, ", shared": (1,), ", per pixel": (d,), ", per row": (4, 1)}.items():
        yield f"gaussian_nll{label}", li.gaussian_nll, [normal(*b), normal(*b), normal(*shape)]

    options: dict[str, Any] = {"rng": rng, "backend": backend, "dtype": "float64"}
    yield "Linear", Linear(6, 5, **options), [normal(*b)]
    yield "Activation", Activation("tanh"), [normal(*b)]
    for name in ("relu", "silu"):
        stack = Sequential([Linear(6, 20, **options), Activation(name), Linear(20, 3, **options)])
        yield f"Sequential {name}", stack, [normal(*b)]

    yield "Conv2D", Conv2D(2, 3, 3, (1, 2), 1, **options), [normal(2, 2, 4, 5)]
    transposed = ConvTranspose2D(3, 2, 3, (1, 2), 1, (0, 1), **options)
    yield "ConvTranspose2D", transposed, [normal(2, 3, 4, 3)]

    models: list[tuple[type[Autoencoder], str, dict[str, Any]]] = []
    for name in ACTIVATIONS:
        models.append((VAE, f"bernoulli {name}", {"activation": name}))
    for variance in (0.5, "shared", "per-dimension"):
        for name in ("relu", "tanh"):
            like = {"likelihood": "gaussian", "variance": variance, "activation": name}
            models.append((VAE, f"gaussian {variance} {name}", like))
        models.append((Autoencoder, f"gaussian {variance} {name}", like))
    for beta in (0.0, 10.0):
        models.append((VAE, f"bernoulli relu, beta {beta:g}", {"beta": beta}))
    for hidden in ((), (10, 9)):
        models.append((VAE, f"bernoulli relu, hidden {hidden}", {"hidden": hidden}))
    models.append((Autoencoder, "bernoulli relu", {}))
    images = {"network": "conv", "image_shape": (6, 2), "hidden": (3,)}
    models.append((VAE, "bernoulli relu, convolutions", images))
    models.append((IWAE, "bernoulli relu, 3 samples", {"samples": 3}))
    like = {"likelihood": "gaussian", "variance": "shared", "activation": "tanh"}
    models.append((IWAE, "gaussian shared tanh, 3 samples", {"samples": 3, **like}))
    learned = {"prior": "mixture", "components": 4}
    models.append((VAE, "bernoulli relu, mixture as prior", learned))
    models.append((IWAE, "bernoulli relu, 3 samples, mixture as prior", {"samples": 3, **learned}))
    for kind, name, own in models:
        model = kind(12, **{"hidden": (8,), "latent_dim": 3, **options, **own})
        x, eps = normal(4, 12), normal(*(model.noise_shape(4) or (4, 3)))
        if "likelihood" not in own:
            x = (x > 0).astype(x.dtype)
        yield f"{kind.__name__} {name}", model, [x, eps]

    conditional = ConditionalVAE(12, (8,), 3, classes=5, activation="tanh", **options)
    bits = backend.asarray(rng.integers(0, 2, (4, 12)).astype(float))  # (B, D)
    rows = conditional.rows(bits, rng.integers(0, 5, 4))  # (B, D + C)
    yield "ConditionalVAE bernoulli tanh", conditional, [rows, normal(4, 3)]
