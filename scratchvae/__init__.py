"""scratchvae: a variational autoencoder written by hand, with every gradient checked."""

from . import activations, backend, datasets, evaluation, gaussian, gradcheck, likelihoods
from .errors import InputError, NonFiniteError
from .layers import Activation, Linear, Sequential
from .optimizers import SGD, Adam
from .parameters import Parameter, Parameters
from .schedules import constant, cosine, step_list, warm_up
from .vae import VAE, Autoencoder, Terms

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "VAE",
    "Activation",
    "Adam",
    "Autoencoder",
    "InputError",
    "Linear",
    "NonFiniteError",
    "Parameter",
    "Parameters",
    "Sequential",
    "Terms",
    "activations",
    "backend",
    "constant",
    "cosine",
    "datasets",
    "evaluation",
    "gaussian",
    "gradcheck",
    "likelihoods",
    "step_list",
    "warm_up",
]
