"""Predict: how long is a draw?

About 5 minutes. Draw a code z from the prior N(0, I) in n dimensions. The density is highest at 0,
and every entry of z has the mean 0. How long is z, that is, about how large is its distance from 0,
sqrt(z[0]^2 + z[1]^2 + ...), on average?

Task: before you run anything, write the law that you expect as a function of n. It is compared with
draws in several numbers of dimensions from 10 to 100, and may be off by 5%.
"""

import numpy as np


def answer(n):
    """Return the mean length of a draw from N(0, I) in n dimensions."""
    raise NotImplementedError


# --- what judges it

from scratchvae import VAE
from scratchvae.exercises.kinds import Predict


def _truth(rng, n):
    z = VAE(1, (), n, dtype="float64").draw_prior(10_000, rng)  # (N, n)
    return np.sqrt((z * z).sum(axis=1)).mean()


exercise = Predict(
    what="the mean length of a draw",
    truth=_truth,
    args=lambda rng: [int(rng.integers(10, 101))],
    relative=0.05,
    usual=(
        (lambda n: n, "That is the mean of the squared length: the length is about its root."),
        (
            lambda n: 0,
            "That is the length of the mean of all draws. Single draws point in all directions, "
            "and none is near 0.",
        ),
        (lambda n: 1, "That is the standard deviation in one dimension; there are n of them."),
    ),
    hints=(
        "What is the mean of z[0]^2, for one entry?",
        "It is its variance, 1. So what is the mean of the squared length, of n such entries?",
    ),
    derivation="""
        E[z_j^2] = 1, so the squared length has the mean n, and the length is about sqrt(n). It
        hardly varies: its standard deviation is about 0.7 in any number of dimensions. In 20
        dimensions draws lie in a shell at 4.5, and 0, where the density is highest, is a place
        where the decoder has never been asked.
        """,
    page="derivations/mu-and-sigma",
    solution=(VAE.draw_prior,),
    answer="""
        def answer(n):
            from scratchvae import VAE

            z = VAE(1, (), n, dtype="float64").draw_prior(10_000, np.random.default_rng())
            return np.sqrt((z * z).sum(axis=1)).mean()
        """,
)
