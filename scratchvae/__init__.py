"""scratchvae: a variational autoencoder written by hand, with every gradient checked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import activations, backend, datasets, evaluation, gaussian, gradcheck, layers, likelihoods
from .conditional import ConditionalVAE
from .convolution import Conv2D, ConvTranspose2D, Reshape
from .errors import InputError, NonFiniteError
from .iwae import IWAE
from .layers import Activation, Linear, Sequential
from .mixture import MixturePrior
from .optimizers import SGD, Adam
from .parameters import Parameter, Parameters
from .schedules import constant, cosine, step_list, warm_up
from .standardization import standardize
from .vae import VAE, Autoencoder, Terms

if TYPE_CHECKING:
    from . import checkpoint, plots, run, zoo
    from .run import load
    from .training import Trainer

__version__ = "0.1.0"

# Imported on first use: `import scratchvae` is to load NumPy and nothing heavier.
_MODULES = ("checkpoint", "plots", "run", "zoo")
_HOMES = {"Trainer": "training", "load": "run"}

__all__ = [
    "IWAE",
    "SGD",
    "VAE",
    "Activation",
    "Adam",
    "Autoencoder",
    "ConditionalVAE",
    "Conv2D",
    "ConvTranspose2D",
    "InputError",
    "Linear",
    "MixturePrior",
    "NonFiniteError",
    "Parameter",
    "Parameters",
    "Reshape",
    "Sequential",
    "Terms",
    "Trainer",
    "activations",
    "backend",
    "checkpoint",
    "constant",
    "cosine",
    "datasets",
    "evaluation",
    "gaussian",
    "gradcheck",
    "layers",
    "likelihoods",
    "load",
    "plots",
    "run",
    "standardize",
    "step_list",
    "warm_up",
    "zoo",
]


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
