"""Kernels for the CPU, compiled by Numba where it is installed: ``pip install 'scratchvae[fast]'``.

Each is one loop where the NumPy code makes several passes. Adam's does the operations of its
definition in the same order, so its results are the same to the last bit. Those of the Bernoulli
pair, which sums in float64, are not. exp and log1p are left to NumPy, which vectorises them where
Numba does not. A kernel that was not made for its arguments returns NotImplemented.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

# NumPy's rules for a division by zero, since Python's would raise and keep a loop from being
# vectorised. Without the GIL, as NumPy's own loops are. A sum is vectorised only if its order is
# free: `row_sum` allows that and nothing else of fast mathematics.
loop = njit(error_model="numpy", nogil=True, cache=True)
row_sum = njit(error_model="numpy", nogil=True, cache=True, fastmath={"reassoc"})


def adam_update(
    value: Array, g: Array, m: Array, v: Array, beta1: float, beta2: float, step: float, eps: float
) -> Any:
    """Do what `optimizers.adam_update` does."""
    if value.ndim != 1 or len({(x.shape, x.dtype) for x in (value, g, m, v)}) > 1:
        return NotImplemented
    number = value.dtype.type  # a Python float takes the type of the array, as it does in NumPy
    _adam(value, g, m, v, number(1 - beta1), number(1 - beta2), number(step), number(eps))
    return None


@loop
def _adam(value, g, m, v, change1, change2, step, eps):  # type: ignore[no-untyped-def]
    for i in range(value.size):
        m[i] += change1 * (g[i] - m[i])
        v[i] += change2 * (g[i] * g[i] - v[i])
        value[i] -= step * m[i] / (math.sqrt(v[i]) + eps)


class BernoulliCache(tuple[Array, ...]):
    """What the forward pass below leaves; the definition's own cache holds something else."""


def bernoulli_nll(x: Array, logits: Array) -> Any:
    """Do what `likelihoods.bernoulli_nll` does, for two (B, D) arrays of one dtype."""
    if x.shape != logits.shape or x.ndim != 2 or x.dtype != logits.dtype:
        return NotImplemented
    e, nll = np.exp(-np.abs(logits)), np.empty(len(x), x.dtype)  # (B, D) and (B,)
    _bernoulli(x, logits, e, np.log1p(e), nll)  # which turns e into sigmoid(l) - x
    return nll, BernoulliCache((e,))


@row_sum
def _bernoulli(x, logits, e, log1p_e, nll):  # type: ignore[no-untyped-def]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.shape[0]):
        total = 0.0  # float64 for either dtype
        for j in range(x.shape[1]):
            total += max(logits[i, j], zero) + log1p_e[i, j] - x[i, j] * logits[i, j]
            top = one if logits[i, j] >= 0 else e[i, j]
            e[i, j] = top / (one + e[i, j]) - x[i, j]
        nll[i] = total


def bernoulli_nll_backward(dnll: Array, cache: tuple[Array, ...]) -> Any:
    """Do what `likelihoods.bernoulli_nll_backward` does, after the forward pass above."""
    if not isinstance(cache, BernoulliCache):
        return NotImplemented
    (difference,) = cache  # sigmoid(l) - x
    return dnll[..., None] * difference  # (B, D)
