"""Derive: the gradient of relu.

About 5 minutes. All of the package is made of pairs like this one. A forward pass returns its
result y and a cache. The backward pass is given dy, the gradient of the loss with respect to y,
and the cache, which holds what it needs. It returns dx, the gradient with respect to x.

    y  = max(x, 0)            equation (relu), element by element
    dx = dy * dy/dx           equation (relu-grad): which dy/dx?

Task: write relu_backward, for arrays of any shape. Then run `scratchvae exercise check`.
"""

import numpy as np


def relu(x):
    """Return max(x, 0), and the cache."""
    y = np.maximum(x, 0)
    return y, y


def relu_backward(dy, cache):
    """Return dx, in the shape of dy."""
    y = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import activations
from scratchvae.exercises.kinds import Derive


def _args(rng):
    axes = int(rng.integers(1, 4))
    shape = rng.permutation(np.arange(4, 7))[:axes]
    shape[0] *= (8, 3, 1)[axes - 1]  # so many numbers that no two wrong answers agree by chance
    x = rng.standard_normal(shape)
    x.flat[:2] = 1, -1  # one of each sign
    return [x + 0.1 * np.sign(x)]  # none near the kink


exercise = Derive(
    pair=(activations.relu, activations.relu_backward),
    args=_args,
    wrt=("x",),
    usual=(
        (
            lambda dy, x: np.maximum(x, 0) * dy,
            "relu_backward multiplies dy by y: the derivative of max(x, 0) is 1 or 0, not y.",
        ),
        (
            lambda dy, x: (x > 0) * 1.0,
            "relu_backward returns the derivative, 1 or 0, without dy: the chain rule multiplies.",
        ),
        (
            lambda dy, x: np.maximum(dy, 0),
            "relu_backward cuts off negative dy: where x > 0 a negative dy passes unchanged.",
        ),
    ),
    hints=(
        "Draw y against x. What is its slope left of 0, and what right of 0?",
        "The slope is 1 where x > 0 and 0 where x < 0. The cache holds y, and y > 0 where x > 0.",
        "A comparison of arrays gives True and False, which count as 1 and 0 in a product.",
    ),
    derivation="""
        y = x where x > 0, so dy/dx = 1 there; y = 0 where x < 0, so dy/dx = 0 there. At 0 there is
        no derivative, and 0 is taken. Hence dx = dy where y > 0, and 0 elsewhere.
        """,
    page="derivations/activations",
    solution=(activations.relu_backward,),
    answer="from scratchvae.activations import relu_backward",
)
