"""Sum or mean: which beta is meant.

The loss of an example is a sum over its D pixels plus a sum over its Z latent dimensions, and that
of a batch is the mean over its B examples. A mean in place of a sum divides one of the two terms by
D, Z or B. Only the ratio of the terms says which model is best; what both are divided by is a
matter of the learning rate, and Adam hardly sees it.

So each way to average trains a VAE with some other beta, which nobody chose and which changes with
the size of the images, of the code or of the batch.

Claim: five common ways of averaging amount to beta = 1/Z, D, D/Z, B and 1/B; above 1 the codes
collapse, with no active unit left, below 1 all units are active, and each has a worse bound than
beta = 1.

Time: 5 s quick, 20 s full
"""

# %%
# The losses as people write them, in one place, from the terms of each pixel and each dimension.
# The ratio of the two gradients is the beta that is meant. Here it is found from the numbers: a
# loss is a * (sum over pixels) + b * (sum over dimensions), both means over the batch.

import numpy as np

import scratchvae as sv
from scratchvae import demo_tools
from scratchvae.gaussian import kl_per_dimension
from scratchvae.plots import BLUE, GREY, VERMILION

d = demo_tools.start("sum_or_mean")
D, Z, B = d.dataset.data_dim, 16, 128
asnumpy = sv.backend.asnumpy
LOSSES = {  # of the negative log-likelihood r of each pixel (B, D) and the KL k of each code (B, Z)
    "both summed, mean over the batch": lambda r, k: (r.sum(1).mean(), k.sum(1).mean()),
    "KL averaged over Z": lambda r, k: (r.sum(1).mean(), k.mean(1).mean()),
    "pixels averaged over D": lambda r, k: (r.mean(1).mean(), k.sum(1).mean()),
    "both averaged: mean()": lambda r, k: (r.mean(), k.mean()),
    "KL summed over the batch": lambda r, k: (r.sum(1).mean(), k.sum()),
    "pixels summed over the batch": lambda r, k: (r.sum(), k.sum(1).mean()),
}
MEANT = {"1": 1, "1/Z": 1 / Z, "D": D, "D/Z": D / Z, "B": B, "1/B": 1 / B}
MEANING = [name if v == 1 else f"{name} = {v:.3g}" for name, v in MEANT.items()]

model = d.vae((100,), Z)
x = d.x[:B]
mu, logvar = model.encode(x)  # (B, Z) each
xp = d.backend.xp
logits = model.decoder.forward(mu)[0]  # (B, D)
r = asnumpy(xp.logaddexp(0, logits) - x * logits).astype(np.float64)  # (B, D)
k = asnumpy(kl_per_dimension(mu, logvar)).astype(np.float64)  # (B, Z)
weights = []
for loss in LOSSES.values():
    (a, b), (summed_r, summed_k) = loss(r, k), (r.sum(1).mean(), k.sum(1).mean())
    weights.append((a / summed_r, b / summed_k))
betas = [b / a for a, b in weights]
d.require(
    np.allclose(betas, list(MEANT.values()), rtol=1e-9),
    f"the weight of the KL over that of the pixels is 1, 1/Z, D, D/Z, B, 1/B; D={D}, Z={Z}, B={B}",
)

# %%
# Each loss is trained as what it is: a VAE with that beta. The common factor a is left out, since
# Adam divides it out but for its epsilon. The numbers are sums over D and Z for the test data, and
# the bound is the importance-weighted one of 50 draws.

SEEDS = (0,) if d.quick else (0, 1, 2)
epochs = d.epochs(1000 if d.quick else 2500)
results, rows = [], []
for name, beta in zip(LOSSES, betas, strict=True):
    runs = []
    for seed in SEEDS:
        model = d.vae((100,), Z, beta=beta, rng=seed)
        metrics = d.train(model, epochs, label=name, batch_size=B, seed=seed).metrics[-1]
        log_p = sv.evaluation.importance_weighted_bound(model, [d.x_test[:300]], 50, rng=0)
        keys = ("test_reconstruction", "test_kl", "active_units")
        runs.append([*(metrics[key] for key in keys), -log_p.mean()])
    results.append(runs)
    reconstruction, kl, active, nll = np.mean(runs, axis=0)
    nats = (reconstruction, kl, reconstruction + kl, nll)
    rows.append([name, f"{beta:.4g}", *(f"{value:.2f}" for value in nats), f"{active:.3g} of {Z}"])
head = ["what is averaged", "beta", "reconstruction", "KL", "sum", "bound of 50 draws"]
d.table([*head, "active units"], rows)
results = np.array(results)  # (6, seeds, 4)
bounds = results[:, :, 3]  # (6, seeds)
above, below = np.array(betas) > 1, np.array(betas) < 1
# For these five each of 3 seeds has the same counts. So has MNIST (quick, seed 0), where the bounds
# are worse by 28 to 101 nats.
d.require((results[above, :, 2] == 0).all(), "for each beta above 1 no unit is active")
d.require((results[below, :, 2] == Z).all(), f"for each beta below 1 all {Z} are")
d.require(
    (bounds[above] > bounds[0] + 1).all() and (bounds[below] > bounds[0] + 5).all(),
    f"all five have worse bounds than beta = 1, by {(bounds[1:] - bounds[0]).min():.1f} to "
    f"{(bounds[1:] - bounds[0]).max():.1f} nats",
)
d.require(
    (results[below, :, 0] < results[0, :, 0] - 3).all(),
    "while those below 1 reconstruct better, so that the pictures do not show the loss",
)

# %%
# Above 1 no information is worth its price in KL; below 1 more is bought than it is worth.

order = np.argsort(betas)
names = [f"{list(LOSSES)[i]}\nβ = {MEANING[i]}" for i in order]
figure, (left, right) = d.figure(1, 2, size=(12, 4.6))
rows = np.arange(len(order))
mean = results.mean(axis=1)[order]  # (6, 4)
left.barh(rows, mean[:, 0], color=GREY, label="−log p(x|z)")
left.barh(rows, mean[:, 1], left=mean[:, 0], color=VERMILION, label="KL")
best = mean[list(order).index(0), :2].sum()
left.axvline(best, color="black", lw=1, ls=":", label="sum for β = 1")
left.set_yticks(rows, names)
left.set(title="Negative bound (both summed), test", xlabel="nats per example")
left.legend(loc="upper right")
right.barh(rows, mean[:, 2], color=BLUE)
for row, active in zip(rows, mean[:, 2], strict=True):
    right.text(active + 0.2, row, f"{active:.3g}", va="center")
right.set_yticks([])
right.set(title=f"Active units of {Z}", xlabel="units with Var(μ) > 0.01", xlim=(0, Z * 1.1))
right.set_xticks(range(0, Z + 1, 4))
d.save(figure, alt="Six ways to average: for β above 1 no KL and no active unit, below 1 much KL")
