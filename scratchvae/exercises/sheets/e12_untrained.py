"""Predict: the loss of a VAE that knows nothing.

About 5 minutes. All parameters of a VAE are 0: every logit of its decoder is 0, and so are mu and
logvar, whatever the image. It is shown images of D pixels, each 0 or 1.

What is its loss, reconstruction plus KL, in nats for each image? It is the number from which the
loss of an untrained model starts, and a first check of any new code.

Task: before you run anything, write the law that you expect as a function of D. It is compared with
several D, and may be off by 1%.
"""

import numpy as np


def answer(D):
    """Return the loss in nats for an image of D pixels."""
    raise NotImplementedError


# --- what judges it

from scratchvae import VAE
from scratchvae.exercises.kinds import Predict


def _truth(rng, D):
    model = VAE(D, (5,), 3, dtype="float64", rng=rng)
    model.params.value[...] = 0
    return model.loss_and_grad(rng.integers(0, 2, (100, D)).astype(float)).loss


exercise = Predict(
    what="the loss of a VAE that knows nothing",
    truth=_truth,
    args=lambda rng: [int(rng.integers(50, 1000))],
    relative=0.01,
    usual=(
        (lambda D: D, "That is the loss in bits, one for each pixel: nats are natural logarithms."),
        (lambda D: np.log(2), "That is the loss of one pixel: the pixels of an image add up."),
        (
            lambda D: D / 2,
            "That is the sum of |x - 1/2|: the loss is -log of the probability of each pixel.",
        ),
        (lambda D: 0, "That is the KL alone, which is 0 here. The pixels are not known, though."),
    ),
    hints=(
        "With a logit of 0, how probable is a pixel that is 1? And one that is 0?",
        "-log of 1/2, for each of D pixels. And what is the KL of N(0, 1) from N(0, 1)?",
    ),
    derivation="""
        A logit of 0 says that the pixel is 1 with probability 1/2, so each costs -log(1/2) = log 2
        nats, whatever it is. mu = 0 and logvar = 0 is the prior itself, so the KL is 0. The loss is
        D log 2: 44.4 nats for the embedded digits, 543 for MNIST.
        """,
    page="derivations/bernoulli",
    solution=(VAE.loss_and_grad,),
    answer="""
        def answer(D):
            from scratchvae import VAE

            model = VAE(D, (5,), 3, dtype="float64")
            model.params.value[...] = 0
            return model.loss_and_grad(np.ones((1, D))).loss
        """,
)
