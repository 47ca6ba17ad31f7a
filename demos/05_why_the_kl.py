"""Why the KL term?

Without it an autoencoder reconstructs better. But its codes lie wherever they like, and a draw
from N(0, I) meets places that the decoder has never seen. The KL term, weighted with beta, brings
the codes to the prior, and pays with reconstruction. With too much of it the codes say nothing:
every sample is then the average digit.

Two shares tell what samples are worth. A sample is good if it is as close to a held-out image as
95% of these are to each other. The average digit is good in this sense, so a second share is
needed: of the held-out images, how many have a sample that close.

Claim: without the KL term reconstruction is best and few samples are good; with beta = 1 nearly all
are, and they cover the data; with beta = 10 the codes are empty and the samples cover little.

Time: 10 s quick, 25 s full
"""

# %%
# The rate is the KL of q(z|x) from the prior, the distortion -log p(x|z), both of held-out images.
# The codes' distance from the prior is the KL of the Gaussian with the mean and covariance of
# q(z), their aggregate. The prior is Gaussian, so this is a lower bound of the KL of q(z) itself.

import numpy as np
from scipy.spatial.distance import cdist

import scratchvae as sv
from scratchvae import demo
from scratchvae.plots import BLUE, VERMILION

d = demo.start(__file__)
betas = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
epochs = -(-(720 if d.quick else 2400) * 128 // len(d.x))
held_out = d.x_test[:1000]
x = sv.backend.asnumpy(held_out)  # (M, D)
between = cdist(x, x)
np.fill_diagonal(between, np.inf)
near = np.quantile(between.min(axis=1), 0.95)
d.say(f"95% of {len(x)} held-out images have another one within {near:.2f}")

rate, distortion, from_prior, good, covered = rows = [[] for _ in range(5)]
for beta in betas:
    model = d.vae(latent_dim=8, beta=beta)
    metrics = d.train(model, epochs, label=f"beta {beta:g}").metrics[-1]
    rate.append(metrics["test_kl"])
    distortion.append(metrics["test_reconstruction"])
    mu, logvar = (sv.backend.asnumpy(a).astype(float) for a in model.encode(held_out))  # (M, 8)
    mean, cov = mu.mean(axis=0), np.cov(mu.T) + np.diag(np.exp(logvar).mean(axis=0))
    from_prior.append((np.trace(cov) + mean @ mean - 8 - np.linalg.slogdet(cov)[1]) / 2)
    distance = cdist(sv.backend.asnumpy(model.sample(1000, rng=1)), x)  # (1000, M)
    good.append(np.mean(distance.min(axis=1) < near))
    covered.append(np.mean(distance.min(axis=0) < near))
    d.say(
        f"beta = {beta:4g}: rate {rate[-1]:7.2f} nats, distortion {distortion[-1]:.2f} nats, codes "
        f"{from_prior[-1]:7.3f} nats from the prior, {good[-1]:.1%} good, {covered[-1]:.1%} covered"
    )

# %%
# What each part showed with 3 seeds is in the comments.

d.require(
    distortion[0] < distortion[4] - 2 < distortion[6] - 4,
    f"distortion grows: {distortion[0]:.2f}, {distortion[4]:.2f} and {distortion[6]:.2f} nats for "
    "beta = 0, 1 and 10",
)  # 16.5, 21.0 to 21.2 and 27.1 to 27.2
d.require(
    from_prior[0] > 10 and from_prior[4] < 0.2,
    f"the codes come from {from_prior[0]:.0f} nats and more to {from_prior[4]:.3f} from the prior",
)  # 58 to 67 and 0.03
d.require(
    good[0] < 0.5 and min(good[4], covered[4]) > 0.8,
    f"without KL {good[0]:.1%} of samples are good; with beta = 1 {good[4]:.1%}, and they cover "
    f"{covered[4]:.1%} of the images",
)  # 9 to 19%; 100%, 94 to 96%
d.require(
    rate[6] < 0.1 and covered[6] < 0.5,
    f"with beta = 10 the rate is {rate[6]:.3f} nats and the samples cover {covered[6]:.1%}",
)  # 0.00 nats, 12 to 14%

# %%
# All of it over beta.

figure, axes = d.figure(1, 3, size=(14, 4.2))
for ax, lines in zip(
    axes,
    (
        (("rate", rate), ("distortion", distortion)),
        (("codes", from_prior),),
        (("good samples", good), ("covered images", covered)),
    ),
    strict=True,
):
    for (name, values), colour, marker in zip(lines, (BLUE, VERMILION), "os", strict=False):
        ax.plot(betas, values, marker=marker, color=colour, label=name)
    ax.set_xscale("symlog", linthresh=0.03, linscale=0.5)
    ax.set_xticks(betas, [f"{beta:g}" for beta in betas])
    ax.minorticks_off()
    ax.set(xlabel="beta, log scale from 0.03 on")
    ax.grid(True)
axes[0].set(title="Rate is traded for distortion", ylabel="nats per example", yscale="log")
axes[0].legend()
axes[1].set(title="The codes come to the prior", ylabel="nats, lower bound", yscale="log")
axes[2].set(title="Samples: good, then all alike", ylabel="share", ylim=(0, 1.05))
axes[2].legend(loc="lower center")
d.save(figure)
