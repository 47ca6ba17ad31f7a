"""The checks of this package's own pairs, layers and models, kept off the kinks of ReLU."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from scratchvae import free_bits, gaussian, likelihoods
from scratchvae.activations import ACTIVATIONS
from scratchvae.backend import Array, Backend, RandomSource, get_backend, namespace
from scratchvae.errors import InputError
from scratchvae.layers import Activation, Linear, Sequential
from scratchvae.vae import VAE, Autoencoder

from .checking import check, check_model, seed_of
from .comparison import TOLERANCE, GradientError, Report
from .slopes import STEP


def avoid_kinks(model: Any, x: Array, eps: Array | None = None, step: float = STEP) -> None:
    """Shift biases, in place, so that no step of a check takes a ReLU across its kink.

    Layer by layer a bound is carried on how far each value moves when no parameter (and, in a
    Sequential, no x) moves by more than `step`. A unit whose pre-activations are not all farther
    than that from 0 is shifted: the widest gap among its B values is centred on 0 if it is wide
    enough, else all go above.

    `model` is a VAE, an Autoencoder or a Sequential; each ReLU must come directly after a Linear.
    """
    xp = namespace(x)
    if isinstance(model, Sequential):
        _settle(model, x, xp.full_like(x, step), step)
        return
    z, moved = _settle(model.encoder, x, xp.zeros_like(x), step)  # (B, Z) or (B, 2Z)
    if z.shape[1] == 2 * model.latent_dim:
        (mu, logvar), (dmu, dlogvar) = (xp.split(a, 2, axis=1) for a in (z, moved))  # (B, Z) each
        noise = xp.exp(0.5 * logvar) * eps
        z, moved = mu + noise, dmu + xp.abs(noise) * xp.expm1(0.5 * dlogvar)
    _settle(model.decoder, z, moved, step)


def _settle(stack: Sequential, x: Array, moved: Array, step: float) -> tuple[Array, Array]:
    """Do it for one stack; return its output for x and how far that may move, (B, n_out) each."""
    xp, after_linear = namespace(x), False
    for layer, following in zip(stack.layers, [*stack.layers[1:], None], strict=True):
        if isinstance(layer, Linear):
            reach = step * (1 + xp.abs(x).sum(axis=1, keepdims=True))  # (B, 1), through W and b
            moved = reach + moved @ (xp.abs(layer.W.value) + step)  # (B, n_out)
            if getattr(following, "name", None) == "relu":
                y, margin = layer.forward(x)[0], 1.01 * moved.max(axis=0)  # (B, n_out), (n_out,)
                layer.b.value += _shift(y, margin)
        elif getattr(layer, "name", None) == "relu" and not after_linear:
            raise InputError("a ReLU that does not follow a Linear cannot be kept from its kink")
        else:
            moved = 1.1 * moved  # no activation is steeper: silu's slope stays below 1.1
        after_linear = isinstance(layer, Linear)
        x = layer.forward(x)[0]
    return x, moved


def _shift(y: Array, margin: Array) -> Array:
    """Return by how much to move each column of y (B, n) so that all |y| >= margin, (n,)."""
    xp = namespace(y)
    ordered = xp.sort(y, axis=0)
    above = margin - ordered[0]
    if len(y) > 1:
        low = xp.diff(ordered, axis=0).argmax(axis=0)[None]  # (1, n), below the widest gap
        ends = [xp.take_along_axis(ordered, i, axis=0)[0] for i in (low, low + 1)]  # (n,) each
        wide = ends[1] - ends[0] >= 2 * margin
        above = xp.where(wide, -0.5 * (ends[0] + ends[1]), above)
    return xp.where(xp.abs(y).min(axis=0) >= margin, 0, above)


def suite(
    backend: str | Backend = "numpy", rng: RandomSource = None, tolerance: float = TOLERANCE
) -> Iterator[Report]:
    """Check every pair, every layer and whole models, yielding one report for each.

    A wrong gradient does not raise: its report is not `ok` and its `message` says why. All reports
    carry one seed, fresh by default, and `suite(rng=seed)` repeats them.
    """
    seed = seed_of(rng)
    for name, f, args in _cases(get_backend(backend), np.random.default_rng([seed, 1])):
        try:
            if isinstance(f, Autoencoder):
                yield check_model(f, *args, rng=seed, tolerance=tolerance, name=name)
            else:
                yield check(f, args, rng=seed, tolerance=tolerance, name=name)
        except GradientError as error:
            yield error.report


def _cases(backend: Backend, rng: np.random.Generator) -> Iterator[tuple[str, Any, list[Array]]]:
    def normal(*shape: int) -> Array:
        return backend.asarray(rng.standard_normal(shape))

    for name, (f, _) in ACTIVATIONS.items():
        x = 2 * normal(5, 7)
        yield name, f, [x + 2 * STEP * backend.xp.sign(x)]  # clear of relu's kink

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
        avoid_kinks(stack, x := normal(*b))
        yield f"Sequential {name}", stack, [x]

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
    for kind, name, own in models:
        model = kind(12, **{"hidden": (8,), "latent_dim": 3, **options, **own})
        x, eps = normal(4, 12), normal(4, 3)
        if "likelihood" not in own:
            x = (x > 0).astype(x.dtype)
        avoid_kinks(model, x, eps)
        yield f"{kind.__name__} {name}", model, [x, eps]
