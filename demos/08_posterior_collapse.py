"""Posterior collapse.

A latent dimension has collapsed when q(z|x) is the prior there for every image: its KL is 0, and
the decoder has learnt to do without it. Early in training that is the easy way out, for the decoder
does not yet use z, and the KL term is felt at once. Two remedies are tried here: a KL weight that
rises from 0 (warm-up), and a KL that is not charged below a limit (free bits).

Claim: with more latent dimensions than the data need plain training leaves some of them without
information; free bits keep more of them in use and pay with a looser bound, and warm-up ends where
plain training does or with more of them in use.

Time: 6 s quick, 15 s full
"""

# %%
# Three runs of the same model from the same parameters.

import numpy as np

import scratchvae as sv
from scratchvae import demo
from scratchvae.plots import BLUE, GREY

d = demo.start(__file__)
steps = 700 if d.quick else 4000
epochs = -(-steps * 128 // len(d.x))
Z = 20 if d.dataset.data_dim < 100 else 60  # more than the data need
FREE = 0.2  # nats for each dimension of each image
runs = {
    "plain": (d.vae(latent_dim=Z), {}),
    "warm-up": (d.vae(latent_dim=Z), {"beta_schedule": sv.warm_up(1.0, epochs / 2)}),
    "free bits": (d.vae(latent_dim=Z, free_bits=FREE), {}),
}


def history(name, model, options):
    """Train in ten parts and return the KL of every dimension after each, (parts, Z), in nats."""
    rows = []
    optimizer = sv.Adam(model.params)
    trainer = sv.training.Trainer(model, optimizer, d.dataset, **options)
    for part in range(1, 11):
        trainer.run(-(-epochs * part // 10))
        rows.append(sv.evaluation.kl_of_dimensions(model, [d.x_test]))
    return np.array(rows)


# %%
# A dimension counts as used if it carries more than 0.05 nats of a test image on average. The bound
# is the same for all three: reconstruction and KL with weight 1, nothing free.

kl, used, loss = {}, {}, {}
for name, (model, options) in runs.items():
    kl[name] = history(name, model, options)
    used[name] = int((kl[name][-1] > 0.05).sum())
    terms = sv.evaluation.elbo(model, [d.x_test], rng=0, samples=10)
    loss[name] = float(terms.reconstruction + terms.kl)
    d.say(
        f"{name:10} {used[name]:2} of {Z} dimensions used, KL {terms.kl:.2f} nats, "
        f"negative bound {loss[name]:.2f} nats per test image"
    )
d.require(used["plain"] < Z, f"plain training uses {used['plain']} of {Z} dimensions")
d.require(used["free bits"] > used["plain"], f"free bits keep {used['free bits']} in use")
d.require(loss["free bits"] > loss["plain"], "and their bound is looser")
d.require(used["warm-up"] >= used["plain"] - 1, f"with warm-up {used['warm-up']} are used")

# %%
# The KL of each dimension over training, one line each.

figure, axes = d.figure(1, 3, size=(12, 3.8))
highest = max(rows.max() for rows in kl.values())
times = epochs * np.arange(1, 11) / 10
for ax, name in zip(axes, runs, strict=True):
    alive = kl[name][-1] > 0.05
    ax.plot(times, kl[name][:, ~alive], color=GREY)
    ax.plot(times, kl[name][:, alive], color=BLUE)
    ax.set(title=f"{name}: {used[name]} of {Z} used", xlabel="epochs", ylim=(0, 1.1 * highest))
axes[0].set_ylabel("KL of each dimension, nats")
d.save(figure)
