"""Predict: what does beta = 784 / 20 do?

About 5 minutes. Somebody averages the reconstruction over the 784 pixels of MNIST and the KL over
20 latent dimensions, since means look tidier than sums. Multiply that loss by 784: it is the right
one with beta = 784 / 20 = 39.2.

A VAE with 20 latent units is trained with this beta on the embedded digits, for 20 epochs. A unit
is active if its mean mu varies from image to image, with a variance above 0.01. With beta = 1
nearly all 20 units are active.

Task: before you train anything, predict how many of the 20 units are active. Your answer may be off
by one.
"""

answer = None  # your number

# --- what judges it

from scratchvae import VAE, Adam, Trainer, datasets, evaluation
from scratchvae.exercises.kinds import Predict


def _truth(rng):
    model = VAE(64, (100,), 20, beta=784 / 20, rng=rng)
    seed = int(rng.integers(2**32))
    trainer = Trainer(model, Adam(model.params), datasets.load("digits"), batch_size=50, seed=seed)
    trainer.run(20)
    return trainer.metrics[-1]["active_units"]


exercise = Predict(
    what="the number of active units",
    truth=_truth,
    absolute=1.0,
    between=(0, 20),
    usual=(
        (
            lambda: 20,
            "That many are active with beta = 1. Here every nat of KL costs 39.2: is it worth that "
            "to any unit?",
        ),
        (
            lambda: 10,
            "Half would do if some units were worth the price and others not. What can one unit "
            "save in reconstruction, of 27 nats in all, for 39.2 times its KL?",
        ),
    ),
    hints=(
        "A unit is used if it saves more in the reconstruction than it costs in KL times beta.",
        "A model without any code has a loss of 27 nats here, and all 20 units together save "
        "a few nats of it.",
    ),
    derivation="""
        Each nat of KL has to save 39.2 nats of reconstruction. But the first nat, the best, saves
        only a few. So no unit is worth its price, q(z|x) becomes the prior for every x, and the
        decoder gives the mean image: the posterior has collapsed. The same happens in the model
        with two means, whose loss looks harmless, since it is divided by 784.
        """,
    page="derivations/kl-weight",
    solution=(evaluation.active_units,),
    answer="""
        import scratchvae as sv

        model = sv.VAE(64, (100,), 20, beta=784 / 20)
        trainer = sv.Trainer(model, sv.Adam(model.params), sv.datasets.load("digits"))
        trainer.run(20)
        answer = trainer.metrics[-1]["active_units"]
        """,
    limit=300.0,
)
