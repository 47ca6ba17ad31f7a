"""What mu and sigma mean.

The encoder of a VAE does not give a code. It gives two vectors for each image, mu and sigma, and
they say where in the latent plane the codes of that image lie: around mu, within about sigma. This
demo draws these regions, decodes draws from one of them, and counts what happens when one goes
farther out than sigma says.

Claim: mu is the place of an image and sigma how far its codes spread: most draws with the encoder's
sigma stay among their own digit, with five times that sigma at least twice as many leave it, and
images that sit among other digits sit where digits meet.

Time: 5 s quick, 10 s full
"""

# %%
# A latent space of two dimensions, so that the regions can be drawn.

import numpy as np
from matplotlib.patches import Ellipse
from scipy.spatial import cKDTree

import scratchvae as sv
from scratchvae import demo
from scratchvae.plots import CLASSES, VERMILION

d = demo.start(__file__)
asnumpy = sv.backend.asnumpy
model = d.vae()
d.train(model, -(-(2400 if d.quick else 3600) * 128 // len(d.x)), label="a 2-D VAE")
images, labels = d.x[:5000], d.labels[:5000]
mu, logvar = (asnumpy(a) for a in model.encode(images))  # (N, 2) each
sigma = np.exp(logvar / 2)  # logvar is log sigma^2

# %%
# Whose codes are near? Ask the 15 nearest means of other images, for every mu and for draws from
# every q(z|x), with the sigma that the encoder gives and with five times that.

tree = cKDTree(mu)
rng = np.random.default_rng(0)
eps = rng.standard_normal(mu.shape)  # (N, 2)


def majority(z):
    """Return the commonest digit among the nearest codes of each z (N, 2)."""
    near = labels[tree.query(z, k=15)[1]]  # (N, 15)
    return np.array([np.bincount(row).argmax() for row in near])


at_home = majority(mu)
leaves = {width: np.mean(majority(mu + width * sigma * eps) != at_home) for width in (1, 5)}
d.say(
    f"Draws that land among another digit than mu does: {leaves[1]:.0%} at sigma, "
    f"{leaves[5]:.0%} at five times sigma"
)
d.require(leaves[1] < 0.4, "most draws with the encoder's sigma stay among their own digit")
d.require(leaves[5] > 2 * leaves[1], "with five times that sigma at least twice as many leave it")

# %%
# Which images are ambiguous? Those with mostly other digits around them. They sit where digits
# meet: a draw from their q(z|x) changes digit more often. That the encoder also gives them a larger
# sigma was true with some seeds of the model and false with others, so it is not claimed.

others = labels[tree.query(mu, k=16)[1][:, 1:]] != labels[:, None]  # (N, 15), without itself
ambiguous = others.mean(axis=1) > 0.5
left_home = majority(mu + sigma * eps) != at_home
rates = [left_home[ambiguous].mean(), left_home[~ambiguous].mean()]
area = np.pi * sigma.prod(axis=1)  # of the ellipse of one sigma
d.say(
    f"{ambiguous.sum()} of {len(mu)} images sit among other digits. Of their draws {rates[0]:.0%} "
    f"change digit, of the others' {rates[1]:.0%}; the median area of an ellipse is "
    f"{np.median(area[ambiguous]):.3f} and {np.median(area[~ambiguous]):.3f}"
)
d.require(rates[0] > 1.5 * rates[1], "images that sit among other digits sit where digits meet")

# %%
# One image: its q(z|x) in the plane, and 64 draws from it, decoded. All 64 are guesses at the one
# image: what differs between them is what sigma leaves open.

clear = others.mean(axis=1) == 0
one = int(np.where(clear, np.abs(area - np.median(area)), np.inf).argmin())
z = mu[one] + sigma[one] * rng.standard_normal((64, 2))  # (64, 2)
decoded = model.decode(d.backend.asarray(z, dtype=model.dtype))  # (64, D)

figure, (left, middle, right) = d.figure(1, 3, size=(12.5, 4.6))
shown = slice(0, 1500)
left.scatter(*mu[shown].T, c=[CLASSES[k] for k in labels[shown]], s=5)
for k in range(10):
    for i in np.flatnonzero(labels == k)[:3]:
        left.add_patch(Ellipse(mu[i], *(2 * sigma[i]), fill=False, color=CLASSES[k], lw=1.2))
    left.text(*np.median(mu[labels == k], axis=0), str(k), ha="center", va="center", size=15)
left.set(title="mu, and some ellipses of sigma", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
left.set(xlabel="first latent dimension", ylabel="second")

middle.scatter(*mu[shown].T, c="#dddddd", s=5)
middle.scatter(*z.T, color=VERMILION, s=8)
middle.add_patch(Ellipse(mu[one], *(2 * sigma[one]), fill=False, color="black", lw=1.5))
middle.set(title=f"64 draws for one image, a {labels[one]}", aspect="equal")
middle.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="first latent dimension")

d.show(right, [images[one], *decoded[:63]], columns=8)
right.set_title("The image, and its draws decoded")
d.save(figure)
