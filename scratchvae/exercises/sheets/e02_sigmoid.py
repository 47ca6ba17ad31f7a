"""Derive: the gradient of the sigmoid.

About 10 minutes. The sigmoid turns a logit into a probability.

    y  = 1 / (1 + exp(-x))    equation (sigmoid), element by element
    dx = dy * dy/dx           equation (sigmoid-grad)

The cache holds y and not x: the derivative can be written with y alone, without another exp.

Task: write sigmoid_backward.
"""

import numpy as np


def sigmoid(x):
    """Return 1 / (1 + exp(-x)), and the cache."""
    y = 1 / (1 + np.exp(-x))
    return y, y


def sigmoid_backward(dy, cache):
    """Return dx, in the shape of dy."""
    y = cache
    raise NotImplementedError


# --- what judges it

from scratchvae import activations
from scratchvae.exercises.kinds import Derive


def _slope(x):
    return np.exp(-x) / (1 + np.exp(-x)) ** 2


exercise = Derive(
    pair=(activations.sigmoid, activations.sigmoid_backward),
    args=lambda rng: [2 * rng.standard_normal(rng.integers(2, 6, 2))],
    wrt=("x",),
    usual=(
        (
            lambda dy, x: dy * _slope(sigmoid(x)[0]),
            "sigmoid_backward takes the sigmoid of the cache, which is y already.",
        ),
        (
            lambda dy, x: dy * (1 - sigmoid(x)[0] ** 2),
            "sigmoid_backward has the derivative of tanh, 1 - y^2: the sigmoid's is another one.",
        ),
    ),
    hints=(
        "Use the quotient rule, or the chain rule for u^-1 with u = 1 + exp(-x).",
        "dy/dx = exp(-x) / (1 + exp(-x))^2. One factor of it is y. What is the other, in y?",
        "exp(-x) / (1 + exp(-x)) = 1 - y.",
    ),
    derivation="""
        With u = 1 + exp(-x), y = 1/u and dy/dx = -u'/u^2 = exp(-x) / u^2. That is 1/u times
        exp(-x)/u = (u - 1)/u = 1 - 1/u, so dy/dx = y (1 - y).
        """,
    page="derivations/activations",
    solution=(activations.sigmoid_backward,),
    answer="from scratchvae.activations import sigmoid_backward",
)
