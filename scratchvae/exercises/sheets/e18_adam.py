"""Derive: the update of Adam.

About 15 minutes. Adam moves each parameter by about the learning rate, whatever the scale of its
gradient g. It keeps two running means, m of g and v of g^2, which begin at 0:

    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g^2          equation (adam-moments)

Since they begin at 0 they are too small at first. After t steps with the same g they hold only a
part of it, m = c1 g and v = c2 g^2.

    value <- value - lr (m / c1) / (sqrt(v / c2) + eps)     equations (adam-bias) and (adam-step)

Task: find c1 and c2, and write adam_step. t is 1 at the first step.
"""

import numpy as np


def adam_step(value, g, m, v, t, lr, beta1, beta2, eps):
    """Return (value, m, v) after step number t; value, g, m and v have one shape."""
    raise NotImplementedError


# --- what judges it

from scratchvae import Adam, Parameter, Parameters, optimizers
from scratchvae.exercises.kinds import Formula


def _args(rng):
    shape = rng.integers(2, 6, int(rng.integers(1, 3)))  # of one axis, or of two
    value, g, m = rng.standard_normal((3, *shape))
    v = rng.uniform(0.01, 1, value.shape)
    lr, beta1, beta2, eps = rng.uniform((0.01, 0.5, 0.6, 0.01), (0.1, 0.8, 0.95, 0.1))
    return [value, g, m, v, int(rng.integers(1, 6)), lr, beta1, beta2, eps]


def _adam(value, g, m, v, t, lr, beta1, beta2, eps):
    params = Parameters([("value", Parameter(value.copy()))])
    adam = Adam(params, lr, (beta1, beta2), eps)
    params.grad[...], adam.state["m"][...], adam.state["v"][...] = g.ravel(), m.ravel(), v.ravel()
    adam.steps = t - 1
    adam.step()
    return tuple(a.reshape(g.shape) for a in (params.value, adam.state["m"], adam.state["v"]))


def _after(beta, t):
    return 1 - beta**t


def _variant(
    correction=_after, inside=False, root=True, square=True, swapped=False, eps_in=True, kept=True,
    mean=True, rate=True, start=1, sign=-1,
):  # fmt: skip
    """Return Adam's step with something wrong in it."""

    def step(value, g, m, v, t, lr, beta1, beta2, eps):
        keep1, keep2 = (1 - beta1, 1 - beta2) if swapped else (beta1, beta2)
        eps = eps if eps_in else 0
        m = keep1 * m + (1 - keep1) * g
        v = keep2 * v + (1 - keep2) * (g * g if square else g)
        c1, c2 = correction(beta1, t), correction(beta2, t)
        with np.errstate(divide="ignore", invalid="ignore"):
            if inside:
                scale = np.sqrt(v / c2 + eps)
            else:
                scale = (np.sqrt(v / c2) if root else v / c2) + eps
            move = (lr if rate else 1) * (m / c1 if mean else g) / scale
            return (start * value + sign * move, *((m, v) if kept else (m / c1, v / c2)))

    return step


def _in_another_order(*args):
    value, m, v = _adam(*args)
    return m, v, value


exercise = Formula(
    name="adam_step",
    true=_adam,
    args=_args,
    returns=("value", "m", "v"),
    usual=(
        (
            _variant(sign=1),
            "adam_step adds the step, which goes uphill: the gradient points to where the loss "
            "grows, so subtract it.",
        ),
        *(
            (
                _variant(start=0, sign=sign),
                "adam_step returns the step alone: the new value is the old one less the step.",
            )
            for sign in (1, -1)
        ),
        (_variant(rate=False), "adam_step leaves the learning rate lr out of the step."),
        (
            _variant(mean=False),
            "adam_step moves by g, the gradient of this batch alone, where m, the running mean, "
            "belongs.",
        ),
        (
            _variant(lambda beta, t: 1 - beta * t),
            "adam_step multiplies beta by t: after t steps 1 - beta^t of the gradient is in the "
            "mean.",
        ),
        (
            _variant(lambda beta, t: 1 - beta ** (t - 1)),
            "adam_step corrects by 1 - beta^(t - 1): t is 1 at the first step, where this divides "
            "by 0.",
        ),
        (
            _variant(lambda beta, t: 1),
            "adam_step lacks the correction of the bias: m and v begin at 0 and are too small at "
            "first, so divide them by c1 and c2.",
        ),
        (
            _variant(lambda beta, t: 1 - beta ** (t + 1)),
            "adam_step counts t from 0 where it begins at 1: c1 is taken a step too late.",
        ),
        (
            _variant(inside=True),
            "adam_step adds eps under the root: it is added after the root is taken.",
        ),
        (
            _variant(root=False),
            "adam_step divides by v, the mean square, and not by its root: the step would depend "
            "on the scale of g.",
        ),
        (_variant(square=False), "adam_step puts g into v, which is the running mean of g^2."),
        (_variant(eps_in=False), "adam_step leaves eps out: where v is 0 it divides by 0."),
        (
            _variant(kept=False),
            "adam_step returns m and v after the correction of the bias: the running means "
            "themselves go on, and each step corrects them anew.",
        ),
        (
            _in_another_order,
            "adam_step computes the right numbers and returns them in another order: expected "
            "value, m, v.",
        ),
        (
            _variant(swapped=True),
            "adam_step exchanges beta and 1 - beta: beta is the share of the old mean that "
            "is kept.",
        ),
    ),
    hints=(
        "Begin with m = 0 and write out two steps with the same g. How much of g is in m?",
        "After t steps m = (1 - beta1) g (1 + beta1 + ... + beta1^(t-1)): a geometric series.",
        "c1 = 1 - beta1^t and c2 = 1 - beta2^t.",
    ),
    derivation="""
        With the same g in each of t steps from m = 0, m = (1 - beta1) g times the sum of beta1^i
        for i from 0 to t - 1, which is (1 - beta1^t) / (1 - beta1). So m = (1 - beta1^t) g, and
        likewise v = (1 - beta2^t) g^2: c1 = 1 - beta1^t, c2 = 1 - beta2^t. The package folds both
        into two numbers: lr (m / c1) / (sqrt(v / c2) + eps) is
        lr sqrt(c2) / c1 * m / (sqrt(v) + eps sqrt(c2)).
        """,
    page="derivations/adam",
    solution=(optimizers.Adam._move, optimizers.adam_update),
    answer="""
        def adam_step(value, g, m, v, t, lr, beta1, beta2, eps):
            from scratchvae import Adam, Parameter, Parameters

            params = Parameters([("value", Parameter(value.copy()))])
            adam = Adam(params, lr, (beta1, beta2), eps)
            params.grad[...] = g.ravel()
            adam.state["m"][...], adam.state["v"][...] = m.ravel(), v.ravel()
            adam.steps = t - 1
            adam.step()
            moments = adam.state["m"], adam.state["v"]
            return tuple(a.reshape(g.shape) for a in (params.value, *moments))
        """,
)
