"""Reproduce: the training loop.

About 15 minutes. A model, an optimizer and 1,500 digits: what is left is the loop. In each epoch
the rows of x come once, in a new order, in batches of about 50 rows. For each batch

    model.loss_and_grad(batch)    computes the loss and leaves the gradient in the parameters
    optimizer.step()              moves them

Task: write train. A VAE with two latent dimensions then has to reach a test loss of at most 26.3
nats in 20 epochs. It begins at 45, and a model that knows only the mean image is at 27.2.
"""

import numpy as np


def train(model, optimizer, x, epochs, rng):
    """Train the model on the rows of x, (N, 64), for so many epochs; rng draws the orders."""
    for epoch in range(epochs):
        raise NotImplementedError


# --- what judges it

import math
from collections import Counter

from scratchvae import VAE, Adam, datasets, evaluation, training
from scratchvae.exercises.kinds import Exercise, Wrong, get

EPOCHS, BAND = 20, 26.3  # 25.3 to 25.6 in ten seeds, with batches of 50


def _rows(x):
    return [row.tobytes() for row in np.asarray(x, np.float32)]


def _stay_together(one, other):
    """Return how many of the pairs of rows in the batches of an epoch shared a batch in another.

    0 is as many as after a new order, 1 is all.
    """
    place = {row: k for k, batch in enumerate(one) for row in batch}
    pairs = kept = expected = 0.0
    n = sum(map(len, other))
    for batch in other:
        pairs += math.comb(len(batch), 2)
        expected += math.comb(len(batch), 2) * (len(batch) - 1) / (n - 1)
        kept += sum(math.comb(m, 2) for m in Counter(place[row] for row in batch).values())
    return (kept - expected) / max(pairs - expected, 1)


class _Watched(VAE):
    """A VAE that remembers the rows that it is shown, and how many steps came before."""

    seen: list[list[bytes]]  # of batches
    before: list[int]
    steps = staticmethod(lambda: 0)

    def loss_and_grad(self, x, eps=None, batch_size=None):
        self.seen.append(_rows(x))
        self.before.append(self.steps())
        return super().loss_and_grad(x, eps, batch_size)


def _watched(train, x, epochs, rng):
    """Train a new model; return it and its optimizer."""
    model = _Watched(64, (100,), 2, rng=rng)
    model.seen, model.before = [], []
    optimizer = Adam(model.params)
    model.steps = lambda: optimizer.steps
    train(model, optimizer, x.copy(), epochs, rng)
    return model, optimizer


class _Loop(Exercise):
    def judge(self, answer, rng):
        data = datasets.load("digits")
        x, x_test = (
            datasets.to_float(part, data.scale, np.dtype("float32"))
            for part in (data.train, data.test)
        )
        train, n = get(answer, "train"), len(x)
        model, optimizer = _watched(train, x, EPOCHS, rng)
        seen, steps = model.seen, optimizer.steps
        rows = [row for batch in seen for row in batch]
        if not seen:
            raise Wrong("train never calls model.loss_and_grad: without it there is no gradient.")
        if steps == 0:
            raise Wrong(
                "train never calls optimizer.step(): the gradients are there, and nothing moves."
            )
        if steps != len(seen):
            raise Wrong(
                f"train takes {steps} steps for {len(seen)} gradients: one step follows each "
                "loss_and_grad."
            )
        if len(set(rows)) < 0.99 * n:
            raise Wrong(
                f"train shows the model {len(set(rows)):,} different rows, and there are {n:,}: "
                "each epoch takes every row once."
            )
        if model.before != list(range(steps)):
            raise Wrong(
                "train calls optimizer.step() before model.loss_and_grad(batch): it then steps by "
                "the gradient of the batch before."
            )
        if len(rows) != n * EPOCHS:
            raise Wrong(
                f"train shows the model {len(rows):,} rows in {EPOCHS} epochs: {n:,} in each would "
                f"be {n * EPOCHS:,}."
            )
        if len(seen) <= 2 * EPOCHS:
            raise Wrong(
                f"train takes {len(seen)} steps with up to {len(seen[0]):,} rows each: with "
                "batches of 50 rows it takes 30 in each epoch, and gets further at the same price."
            )
        epochs, whole = [rows[i : i + n] for i in range(0, len(rows), n)], Counter(_rows(x))
        for number, epoch in enumerate(epochs, 1):
            if Counter(epoch) != whole:
                raise Wrong(
                    f"In epoch {number} train shows some rows twice and others not at all, or rows "
                    "that are not those of x: each epoch takes every row once."
                )
            if epoch in epochs[: number - 1]:
                raise Wrong(
                    f"In epoch {number} train takes the rows in an order of an epoch before: draw "
                    "a new one in each with rng.permutation(len(x))."
                )
        starts = np.cumsum([0, *map(len, seen)])
        by_epoch: list[list[list[bytes]]] = [[] for _ in range(EPOCHS)]
        for start, batch in zip(starts, seen, strict=False):
            by_epoch[start // n].append(batch)
        for number in range(2, EPOCHS + 1):
            if _stay_together(*by_epoch[number - 2 : number]) > 0.25:
                raise Wrong(
                    f"In epoch {number} rows share a batch that shared one before, so the batches "
                    "hardly mix: draw a new order of all rows with rng.permutation(len(x))."
                )
        if (shown := sum(map(len, _watched(train, x, 1, rng)[0].seen))) != n:
            raise Wrong(
                f"Asked for 1 epoch, train shows {shown:,} rows where x has {n:,}: `epochs` says "
                "how many epochs there are."
            )
        loss = evaluation.elbo(model, [x_test], rng=rng).loss
        if not loss <= BAND:
            raise Wrong(f"The test loss is {loss:.2f} nats after {EPOCHS} epochs: above {BAND}.")
        return (
            f"The test loss is {loss:.2f} nats after {EPOCHS} epochs, and at most {BAND} had to be."
        )


exercise = _Loop(
    hints=(
        "order = rng.permutation(len(x)) is a new order of the rows.",
        "for i in range(0, len(x), 50): x[order[i : i + 50]] is a batch; the last may be smaller.",
        "For each batch first model.loss_and_grad(batch), then optimizer.step(). Nothing has to be "
        "set to zero: loss_and_grad begins with a new gradient.",
    ),
    derivation="""
        The mean gradient of a batch that is drawn at random is right on average for the whole data
        set, so small batches make many steps for the price of one large one. A new order in each
        epoch keeps the batches random. The package's loop also keeps what it needs to go on after
        an interruption, and checks that all is finite.
        """,
    page="guide/python",
    solution=(training.Trainer._run_epoch, training.Trainer._step),
    answer="""
        def train(model, optimizer, x, epochs, rng):
            from scratchvae import Trainer, datasets

            data = datasets.Dataset.from_arrays(x, test=x[:1])
            Trainer(model, optimizer, data, batch_size=50, seed=int(rng.integers(99))).run(epochs)
        """,
    code="""
        # The same without a Trainer:
        #     for epoch in range(epochs):
        #         order = rng.permutation(len(x))
        #         for i in range(0, len(x), 50):
        #             model.loss_and_grad(x[order[i : i + 50]])
        #             optimizer.step()
        """,
    limit=300.0,
)
