r"""What the decoder's output says about x: negative log-likelihoods in nats, with their gradients.

Each function sums over the D dimensions and returns one value per example, (B,). Losses take
logits, never probabilities. The two small classes at the end say how to read a decoder's output of
shape (B, output_dim) as a distribution; one of them owns a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from typing import Any, Protocol

from .activations import sigmoid, softplus
from .backend import Array, Backend, namespace
from .errors import InputError
from .gaussian import log_density, log_density_backward
from .kernels import compiled
from .parameters import Parameter


@compiled
def bernoulli_nll(x: Array, logits: Array) -> tuple[Array, tuple[Array, ...]]:
    """Return -log p(x) in nats, (B,), for independent pixels with P(x = 1) = sigmoid(logits).

    `x` (B, D) is 0 or 1. Grey values in between are accepted too. The result is then a
    cross-entropy: the expected -log p of pixels that are 1 with probability x.
    """
    # [bernoulli]  -x log s(a) - (1 - x) log(1 - s(a)) = softplus(a) - x a, finite for every logit
    positive, _ = softplus(logits)  # (B, D)
    nll = (positive - x * logits).sum(axis=-1)  # (B,)
    return nll, (x, logits, positive)


@compiled
def bernoulli_nll_backward(dnll: Array, cache: tuple[Array, ...]) -> Array:
    """Return dlogits, (B, D), from dnll (B,). The data x has no gradient."""
    x, logits, positive = cache
    # [bernoulli-grad]  s(a) - x, where log s(a) = a - softplus(a)
    return dnll[..., None] * (namespace(x).exp(logits - positive) - x)  # (B, D)


def gaussian_nll(x: Array, mean: Array, logvar: Array) -> tuple[Array, tuple[Array, ...]]:
    """Return -log N(x; mean, diag(exp(logvar))) in nats, (B,), with its constant.

    A density may exceed 1, so this may be negative. `logvar` is as for `log_density`.
    """
    # [gaussian-nll]
    logp, cache = log_density(x, mean, logvar)
    return -logp, cache  # (B,)


def gaussian_nll_backward(dnll: Array, cache: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return (dmean, dlogvar), each in the shape of its argument, from dnll (B,)."""
    # [gaussian-nll-grad]
    _, dmean, dlogvar = log_density_backward(-dnll, cache)
    return dmean, dlogvar


class Likelihood(Protocol):
    """How to read a decoder's output as a distribution over x; `named_parameters` as a layer.

    An output (..., output_dim) may be one draw of each example, (B, output_dim), or K draws,
    (K, B, output_dim), for the same x (B, D): sums are over the last axis.
    """

    binary: bool  # whether x must lie in [0, 1]
    output_dim: int  # how many numbers the decoder gives for one example

    def nll(self, x: Array, output: Array, /) -> tuple[Array, Any]:
        """Return -log p(x|z) in nats, (...), for the decoder's output (..., output_dim)."""

    def nll_backward(self, dnll: Array, cache: Any, /) -> Array:
        """Return the gradient for the output, (..., output_dim), from dnll (...)."""

    def mean(self, output: Array, /) -> Array:
        """Return E[x], (B, D), for an output (B, output_dim)."""


class Bernoulli:
    """Pixels that are 0 or 1; the decoder's output is their logits, (B, D)."""

    binary = True

    def __init__(self, data_dim: int) -> None:
        self.output_dim = data_dim

    nll = staticmethod(bernoulli_nll)  # (x, output) -> (nll, cache)
    nll_backward = staticmethod(bernoulli_nll_backward)  # (dnll, cache) -> doutput

    def mean(self, output: Array) -> Array:
        """Return E[x], (B, D): the probability that each pixel is 1."""
        return sigmoid(output)[0]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield nothing."""
        return iter(())

    def __repr__(self) -> str:
        return "Bernoulli()"


class Gaussian:
    """Real-valued pixels, normally distributed around the mean that the decoder gives.

    A number for `variance` fixes the variance of every pixel; "shared" learns one for all of them;
    with "per-dimension" the decoder gives one for each, and its output is [mean | logvar], (B, 2D).
    """

    binary = False

    def __init__(self, data_dim: int, variance: float | str, backend: Backend, dtype: Any) -> None:
        learned = variance in ("shared", "per-dimension")
        number = isinstance(variance, Real) and not isinstance(variance, bool)
        if not learned and not (number and 0 < float(variance) < math.inf):
            raise InputError(
                f"variance is {variance!r}: expected a positive number, 'shared' or 'per-dimension'"
            )
        self.data_dim, self.variance = data_dim, variance
        self.output_dim = 2 * data_dim if variance == "per-dimension" else data_dim
        logvar = 0.0 if learned else math.log(float(variance))
        # (1,); not read where the decoder gives one for each pixel
        self.logvar = Parameter(backend.asarray([logvar], dtype=dtype))
        self.logvar.constant = variance != "shared"

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return -log p(x) in nats, (B,), and the cache."""
        if self.variance == "per-dimension":
            return gaussian_nll(x, output[..., : self.data_dim], output[..., self.data_dim :])
        return gaussian_nll(x, output, self.one_logvar())

    def nll_backward(self, dnll: Array, cache: Any) -> Array:
        """Return doutput (B, output_dim) from dnll (B,); add to a learned variance's gradient."""
        dmean, dlogvar = gaussian_nll_backward(dnll, cache)
        if self.variance == "per-dimension":
            return namespace(dmean).concatenate([dmean, dlogvar], axis=-1)  # (B, 2D)
        if not self.logvar.constant:
            self.logvar.add(dlogvar)  # (1,)
        return dmean  # (B, D)

    def one_logvar(self) -> Array:
        """Return the logvar of every pixel, (1,), where it is fixed or shared."""
        return self.logvar.value

    def mean(self, output: Array) -> Array:
        """Return E[x], (B, D)."""
        return output[..., : self.data_dim]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the shared logvar if it is learned."""
        if not self.logvar.constant:
            yield "logvar", self.logvar

    def __repr__(self) -> str:
        return f"Gaussian(variance={self.variance!r})"


def get_likelihood(
    name: str | Likelihood, data_dim: int, variance: float | str, backend: Backend, dtype: Any
) -> Likelihood:
    """Return the likelihood called "bernoulli" or "gaussian", or the one that was handed in.

    Raises
    ------
    InputError
        If the name is another, or if what was handed in lacks what a Likelihood has.
    """
    if isinstance(name, str) and name == "bernoulli":
        return Bernoulli(data_dim)
    if isinstance(name, str) and name == "gaussian":
        return Gaussian(data_dim, variance, backend, dtype)
    require_likelihood(name)
    return name  # type: ignore[return-value]  # looked at above


def require_likelihood(likelihood: Any) -> None:
    """Raise InputError unless `likelihood` is an object with what a Likelihood has."""
    needed = ("binary", "output_dim", "nll", "nll_backward", "mean")
    if isinstance(likelihood, str | type) or not all(hasattr(likelihood, n) for n in needed):
        raise InputError(
            f"unknown likelihood {likelihood!r}: expected 'bernoulli', 'gaussian' or an object "
            f"with {', '.join(needed)}"
        )
