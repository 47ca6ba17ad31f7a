"""Derive: the gradients of a linear layer.

About 15 minutes. A batch of B rows x goes through a matrix W and a bias b.

    y = x W + b               equation (linear); x (B, N), W (N, M), b (M,), y (B, M)
    dx = ?                    equation (linear-grad-x), in the shape of x
    dW = ?                    equation (linear-grad-W), in the shape of W
    db = ?                    equation (linear-grad-b), in the shape of b

The loss is a sum over the batch, and every row uses the same W and b.

Task: write linear_backward.
"""

import numpy as np


def linear(x, W, b):
    """Return x W + b, and the cache."""
    return x @ W + b, (x, W)


def linear_backward(dy, cache):
    """Return (dx, dW, db)."""
    x, W = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import layers
from scratchvae.exercises.kinds import Derive


def _backward(dy, cache):
    x, W = cache
    return dy @ W.T, x.T @ dy, dy.sum(axis=0)


_backward.__name__ = "linear_backward"


def _args(rng):
    b, n, m = rng.permutation(np.arange(2, 7))[:3]  # three lengths, none like another
    return [rng.standard_normal(shape) for shape in ((b, n), (n, m), (m,))]


exercise = Derive(
    pair=(linear, _backward),
    args=_args,
    wrt=("x", "W", "b"),
    usual=(
        (
            lambda dy, x, W, b: (dy @ W.T, x.T @ dy / len(dy), dy.mean(axis=0)),
            "linear_backward averages over the batch: the gradients of the rows add. Whoever calls "
            "it puts the mean into dy, once.",
        ),
    ),
    hints=(
        "Let the shapes lead: which product of dy (B, M) with x (B, N) or W (N, M) has the shape "
        "that you need?",
        "Write one entry: y[i, k] = sum_j x[i, j] W[j, k] + b[k]. Then dx[i, j] is the sum over k "
        "of dy[i, k] times dy[i, k]/dx[i, j], which is W[j, k].",
        "W[j, k] reaches y[i, k] in every row i, so dW[j, k] = sum_i x[i, j] dy[i, k]; b[k] "
        "reaches them with the factor 1.",
    ),
    derivation="""
        y[i, k] = sum_j x[i, j] W[j, k] + b[k]. The chain rule sums over all outputs that an
        argument reaches:
            dx[i, j] = sum_k dy[i, k] W[j, k], that is, dx = dy W^T
            dW[j, k] = sum_i x[i, j] dy[i, k], that is, dW = x^T dy
            db[k]    = sum_i dy[i, k]
        """,
    page="derivations/linear",
    solution=(layers.Linear.backward, layers.Linear.backward_parameters),
    answer="""
        def linear_backward(dy, cache):
            from scratchvae import Linear

            x, W = cache
            layer = Linear(*W.shape, dtype="float64")
            layer.W.value[...] = W
            return layer.backward(dy, x), layer.W.grad, layer.b.grad
        """,
)
