"""Columns of different scale: brought to mean 0 and standard deviation 1 inside a model.

    x --(x - mean) / std--> encoder ... decoder --> likelihood of (x - mean) / std

Such a model takes data in their own units and gives samples and reconstructions in these. What
lies between is standardised, its loss included: -log p of the standardised x.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .backend import Array, Backend, asnumpy, on_host
from .errors import InputError, InputWarning
from .layers import Sequential, belongs_to
from .likelihoods import Likelihood

LARGE = 100.0  # Networks start with weights for values of about 1.
FAR = 1e4  # standard deviations: an outlier may be so many hundreds away


@np.errstate(over="ignore", invalid="ignore")  # `standardize` refuses what is not finite
def mean_and_std(x: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """Return mean and standard deviation of every column of x / scale, float64 (D,) each.

    Where a column is the same in all rows its standard deviation is given as 1. Where float64 does
    not hold its square, it is given as 0 or infinity.

    Parameters
    ----------
    x : array, (N, D)
        It may be larger than memory.
    scale : float
        Of a data set.
    """
    step = max(1, 2**20 // x.shape[1])  # rows at a time
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    varies = np.zeros(x.shape[1], dtype=bool)
    first = asnumpy(x[0]).astype(np.float64) / scale  # near the mean, so that no digits cancel
    for i in range(0, len(x), step):
        rows = asnumpy(x[i : i + step]).astype(np.float64) / scale - first  # (<=step, D)
        total += rows.sum(axis=0)
        squares += (rows * rows).sum(axis=0)
        varies |= rows.any(axis=0)
    shift = total / len(x)
    std = np.sqrt(np.maximum(squares / len(x) - shift * shift, 0))
    std = np.nan_to_num(std, nan=np.inf, posinf=np.inf)  # an infinite square, less another
    return first + shift, np.where(varies, std, 1)


def standardize(model: Any, mean: Any, std: Any) -> None:
    """Let a model take and give data in their own units, by the mean and scale of each column.

    Make its optimizer afterwards: the parameters are gathered anew.

    Parameters
    ----------
    model : Autoencoder or VAE
        With a Gaussian likelihood.
    mean, std : (D,)
        As `mean_and_std` returns them.

    Raises
    ------
    InputError
        If the likelihood is for numbers in [0, 1], or mean and std do not fit the model or are no
        numbers of its dtype.
    """
    if model.likelihood.binary:
        raise InputError(
            "the Bernoulli likelihood needs values from 0 to 1, and standardised ones are not: "
            "expected the Gaussian likelihood"
        )
    if model.standardization is not None:
        raise InputError("the model standardises already: expected one that does not")
    mean, std = (on_host(a).astype(np.float64) for a in (mean, std))
    for name, a in ("mean", mean), ("std", std):
        if a.shape != (model.data_dim,):
            raise InputError(
                f"the {name} of the columns has shape {a.shape}: expected ({model.data_dim},)"
            )
    limits = np.finfo(model.dtype)
    held = (abs(mean) <= limits.max) & (std >= limits.tiny) & (std <= limits.max)  # false for NaN
    if not held.all():
        j = int(held.argmin())
        raise InputError(
            f"column {j + 1} has mean {mean[j]:.3g} and standard deviation {std[j]:.3g}: expected "
            f"finite numbers of {model.dtype}, the second larger than 0, so give the column "
            "another unit or leave it out"
        )
    close = abs(mean) > 0.01 * std / np.finfo(model.dtype).eps
    if close.any():
        warnings.warn(
            f"column {int(close.argmax()) + 1} varies by {std[close][0]:.3g} around "
            f"{mean[close][0]:.6g}, which {model.dtype} hardly tells apart: subtract most of it "
            "first, or use float64",
            InputWarning,
            stacklevel=2,
        )
    units = Standardize(mean, std, model.backend, model.dtype)
    encoder = model.encoder
    # Only what walks through its layers both ways, and does nothing else, can be taken apart.
    chain = all(belongs_to(encoder, "named_layers", way) for way in ("forward", "backward"))
    layers = [layer for _, layer in encoder.named_layers()] if chain else [encoder]
    model.encoder = Sequential([units, *layers])
    model.likelihood = Standardized(model.likelihood, units)
    model.gather()
    model.note_standardization(mean.tolist(), std.tolist())


class Standardize:
    """A layer without parameters: (x - mean) / std in the first D columns, others as they are."""

    def __init__(self, mean: Array, std: Array, backend: Backend, dtype: Any) -> None:
        self.mean = backend.asarray(mean, dtype=dtype)  # (D,)
        self.std = backend.asarray(std, dtype=dtype)  # (D,)

    def forward(self, x: Array) -> tuple[Array, None]:
        """Return x (..., D + C) with its first D columns standardised."""
        y, d = x.copy(), len(self.mean)
        y[..., :d] = (x[..., :d] - self.mean) / self.std
        return y, None

    def backward(self, dy: Array, cache: None) -> Array:
        """Return dx (..., D + C) from dy."""
        dx, d = dy.copy(), len(self.mean)
        dx[..., :d] = dy[..., :d] / self.std
        return dx

    def __repr__(self) -> str:
        return "Standardize()"


class Standardized:
    """A likelihood of standardised data, for data in their own units."""

    binary = False

    def __init__(self, inner: Likelihood, units: Standardize) -> None:
        self.inner, self.units, self.output_dim = inner, units, inner.output_dim

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return -log p of the standardised x in nats, (B,), and the cache."""
        return self.inner.nll(self.units.forward(x)[0], output)

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return doutput from dnll (B,): the data have no gradient."""
        return self.inner.nll_backward(dnll, cache)

    def mean(self, output: Array) -> Array:
        """Return E[x] in the data's own units, (B, D)."""
        return self.units.mean + self.units.std * self.inner.mean(output)

    def named_parameters(self) -> Any:
        """Return those of the likelihood inside."""
        named: Any = getattr(self.inner, "named_parameters", tuple)
        return iter(named())

    def __repr__(self) -> str:
        return f"Standardized({self.inner!r})"


def advice(dataset: Any, model: Any) -> str | None:
    """Return a sentence on columns that no learning rate is right for, or None.

    They should be standardised or, where they are, the test part has other values than the training
    part. A thousand rows are looked at, or fewer if they are very long.
    """
    if model.likelihood.binary:
        return None
    x = dataset.train
    rows = max(2, min(1000, 2**22 // x.shape[1]))

    def column(j: int) -> str:
        name = dataset.columns[j] if dataset.columns else j + 1
        return f"the column {name} of {dataset.name}"

    if model.standardization is not None:
        mean, std = map(np.asarray, model.standardization)
        away = abs(asnumpy(dataset.test[:rows]) / dataset.scale - mean).max(axis=0) / std  # (D,)
        j = int(away.argmax())
        if away[j] <= FAR:
            return None
        return (
            f"{column(j)} has a test value that is {away[j]:.2g} standard "
            "deviations away from the training part: leave the column out if it hardly varies "
            "there, or mix the rows"
        )
    mean, std = mean_and_std(x[:: max(1, len(x) // rows)][:rows], dataset.scale)
    size = np.maximum(abs(mean), std)  # (D,)
    j = int(size.argmax())
    if size[j] <= LARGE:
        return None
    return (
        f"{column(j)} has values of about {size[j]:.2g}: standardise the "
        "columns, with --standardize or sv.standardize"
    )
