"""Is z always Gaussian?

One often reads that the code z of a VAE is Gaussian whatever mu and sigma are. For one image it is:
z = mu + sigma eps is a normal variable by construction. But over all images z is a mixture of these
normal distributions, one for each image, and a mixture of normals is in general not normal. The KL
term draws it towards the prior, and only as far as the images' reconstruction lets it.

Claim: the draws of each single image pass a test of normality, the draws of all images together
fail it at small beta, and the larger beta the nearer they come to the prior.

Time: 6 s quick, 15 s full
"""

# %%
# Three models that differ in beta, the weight of the KL term, alone.

import numpy as np
from scipy import stats

import scratchvae as sv
from scratchvae import demo
from scratchvae.plots import BLUE, GREY, VERMILION

d = demo.start(__file__)
asnumpy = sv.backend.asnumpy
BETAS = (0.1, 1.0, 20.0)
rng = np.random.default_rng(0)
posteriors = {}
for beta in BETAS:
    model = d.vae(beta=beta)
    steps = 600 if d.quick else 3600
    d.train(model, -(-steps * 128 // len(d.x)), label=f"beta {beta:g}")
    mu, logvar = (asnumpy(a).astype(float) for a in model.encode(d.x[:5000]))  # (N, 2) each
    posteriors[beta] = mu, np.exp(logvar / 2)

# %%
# One image: 500 draws of its z, in each dimension, under the test of D'Agostino and Pearson, which
# looks at skewness and kurtosis. If z is normal about 5% of the p-values are below 0.05.
#
# All images: one draw of z for each, as training sees them, under the same test. And the distance
# to the prior N(0, 1): the largest difference of the two distribution functions.

distance, rejected, together = {}, {}, {}
for beta, (mu, sigma) in posteriors.items():
    some = rng.permutation(len(mu))[:200]
    draws = mu[some] + sigma[some] * rng.standard_normal((500, 200, 2))  # (500, 200, 2)
    rejected[beta] = np.mean(stats.normaltest(draws, axis=0).pvalue < 0.05)
    z = mu + sigma * rng.standard_normal(mu.shape)  # (N, 2)
    together[beta] = stats.normaltest(z, axis=0).pvalue.min()
    distance[beta] = max(stats.kstest(z[:, j], "norm").statistic for j in range(2))
    d.say(
        f"beta {beta:4g}: of single images' draws {rejected[beta]:.1%} look not normal at the 5% "
        f"level; of all images' z p = {together[beta]:.1e}, and its distance to the prior is "
        f"{distance[beta]:.3f}"
    )

# 400 tests at 5%: 20 are expected to be below, and more than 45 with a probability under 1e-6.
d.require(max(rejected.values()) < 45 / 400, "the draws of single images pass, at every beta")
d.require(together[0.1] < 1e-4, f"those of all images fail at beta 0.1: p = {together[0.1]:.0e}")
far, near = distance[0.1], distance[20.0]
d.require(
    far > distance[1.0] > near or far > 2 * near,
    f"the distance to the prior falls from {far:.3f} at beta 0.1 to {near:.3f} at beta 20",
)

# %%
# The first dimension of z: all images together, five single images, and the prior.

figure, axes = d.figure(1, 3, size=(12, 3.8))
for ax, (beta, (mu, sigma)) in zip(axes, posteriors.items(), strict=True):
    reach = max(4.0, 1.1 * np.abs(mu[:, 0]).max())
    t = np.linspace(-reach, reach, 600)
    mixture = stats.norm.pdf(t[:, None], mu[:, 0], sigma[:, 0]).mean(axis=1)  # exact, no draws
    for i in range(5):
        one = stats.norm.pdf(t, mu[i, 0], sigma[i, 0])
        ax.plot(t, one * mixture.max() / one.max(), color=GREY, label="" if i else "single images")
    ax.plot(t, mixture, color=BLUE, label="all images together")
    ax.plot(t, stats.norm.pdf(t), "--", color=VERMILION, label="prior N(0, 1)")
    ax.set(title=f"beta = {beta:g}", xlabel="z, first dimension", yticks=[])
axes[0].set_ylabel("density (single images scaled)")
axes[2].legend(loc="upper right", fontsize=9)
d.save(figure)
