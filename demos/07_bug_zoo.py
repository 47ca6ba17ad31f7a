"""The bug zoo: a better printed loss can be the bug.

Five mistakes found in public code, each trained beside the right model. The wrong code prints the
loss; what counts is the bound that the right code gives for the same parameters. Of three tests of
the code, a gradient check compares backward with forward and is blind to what is wrong in both; one
compares draws with N(mu, sigma^2), and one the KL with the mean of log q(z) - log p(z).

Claim: four of five bugs print too low a loss, three by more than a nat below the right code's, and
four have a worse bound; the gradient check finds only one, and one of three tests finds each.

Time: 5 s quick, 14 s full
"""

from unittest.mock import patch

import numpy as np
from scipy import stats

import scratchvae as sv
from scratchvae import demo_tools, gaussian
from scratchvae.backend import namespace
from scratchvae.plots import BLUE, CENTRED, GREY, VERMILION

d = demo_tools.start(__file__)
Z, noise, columns = 10, np.random.default_rng(0), ["gradient", "sampler", "KL"]
names = [f"{f}{b}" for f in ("reparameterize", "kl_standard_normal") for b in ("", "_backward")]
draw, draw_back, kl, kl_back = (getattr(gaussian, name) for name in names)

# %%
# The bugs. Except where the noise is drawn again, backward is exactly right for its wrong forward.


def again(dz, cache):
    fresh = noise.standard_normal(dz.shape, dtype=dz.dtype)  # not the eps that is in the cache
    return draw_back(dz, (cache[0], namespace(dz).asarray(fresh)))


def cubed(mu, logvar):
    cube = namespace(mu).exp(1.5 * logvar)  # sigma^3, (B, Z)
    return 0.5 * (mu * mu + cube - 1 - logvar).sum(axis=-1), (mu, cube)


zoo = {
    "right": (draw, draw_back, kl, kl_back),
    "σ = exp(logvar)": (
        lambda mu, logvar, eps: draw(mu, 2 * logvar, eps),
        lambda dz, c: (draw_back(dz, c)[0], 2 * draw_back(dz, c)[1]),
        *(kl, kl_back),
    ),
    "ε drawn again in backward": (draw, again, kl, kl_back),
    "KL: mean over dimensions": (
        *(draw, draw_back),
        lambda mu, logvar: (kl(mu, logvar)[0] / Z, (mu, logvar)),
        lambda dkl, c: kl_back(dkl / Z, c),
    ),
    "KL: σ³ for σ²": (
        *(draw, draw_back, cubed),
        lambda dkl, c: (dkl[..., None] * c[0], dkl[..., None] * (0.75 * c[1] - 0.5)),
    ),
    "KL: + for − logvar": (
        *(draw, draw_back),
        lambda mu, logvar: (kl(mu, logvar)[0] + logvar.sum(axis=-1), (mu, logvar)),
        lambda dkl, c: (kl_back(dkl, c)[0], kl_back(dkl, c)[1] + dkl[..., None]),
    ),
}

# %%
# The tests, in float64. Both statistical ones call right code wrong less often than once in 1e9.

n, rng = 20_000, np.random.default_rng(1)
mu, logvar, eps = np.ones((3, 1)), np.array([[-4.0], [-1.0], [1.0]]), rng.standard_normal((n, 3, 1))
z, zero = draw(mu, logvar, eps)[0], 0 * mu
ratio = gaussian.log_density(z, mu, logvar)[0] - gaussian.log_density(z, zero, zero)[0]  # (n, 3)


def tests(f, f_back, divergence, divergence_back):
    """Return whether the gradient check, the test of the sampler and that of the KL fail."""
    wrong = False
    try:
        sv.gradcheck.check(f, f_back, [mu, logvar, eps[:4]], name="the draw")
        sv.gradcheck.check(divergence, divergence_back, [mu, logvar], name="the KL")
    except sv.gradcheck.GradientError as error:
        wrong = True
        d.say(str(error))
    u = (f(mu, logvar, eps)[0] - mu) / np.exp(logvar / 2)  # (n, 3, 1), N(0, 1) if f is right
    gap = (ratio.mean(axis=0) - divergence(mu, logvar)[0]) / (ratio.std(axis=0) / n**0.5)  # (3,)
    return wrong, stats.kstest(u.ravel(), "norm").pvalue < 1e-10, np.abs(gap).max() > 7


epochs, rows = d.epochs(700 if d.quick else 2400), []
for name, code in zoo.items():
    with patch.multiple("scratchvae.vae", **dict(zip(names, code, strict=True))):
        trainer = d.train(d.vae(latent_dim=Z), epochs, label=name, binarize="threshold")
    rows.append((trainer.metrics[-1]["test_loss"], trainer.test_terms().loss, *tests(*code)))
    found = [test for test, failed in zip(columns, rows[-1][2:], strict=True) if failed]
    d.say(f"{name:25s} prints {rows[-1][0]:10.2f}, true {rows[-1][1]:9.2f} nats; found by {found}")
printed, true, *fails = np.array(rows).T  # (6,) each
d.require(all((printed < true - 0.05) == [0, 1, 0, 1, 1, 1]), "all but ε print less than is true")
d.require((printed < printed[0] - 1).sum() == 3, "three print over 1 nat less than the right code")
d.require(all((true > true[0] + 1) == [0, 1, 1, 1, 0, 1]), "all but σ³ have a bound worse by 1 nat")
d.require(fails[0].sum() == fails[0][2] == 1, "the gradient check finds the noise drawn again only")
d.require((np.sum(fails, axis=0) == [0, 1, 1, 1, 1, 1]).all(), "each is found by just one test")

figure, (left, right) = d.figure(1, 2, size=(11, 4.2))
left.get_gridspec().set_width_ratios([2, 1])
left.hlines(range(6), printed, true, color=GREY)
left.plot(printed, range(6), "o", color=VERMILION, mfc="none", ms=9, mew=2, label="printed")
left.plot(true, range(6), "o", color=BLUE, label="true")
text = f"{printed[5]:,.0f} to {true[5]:,.0f}".replace("-", "−")
left.text(0.6 * max(true[:5]), 5, text, **CENTRED, bbox={"fc": "white", "ec": "none"})
for (test, row), failed in np.ndenumerate(fails):
    word, colour = ("fails", VERMILION) if failed else ("passes", "#888888")
    right.text(test, row, word, color=colour, **CENTRED)
left.set(title="Negative ELBO of the test images", xlabel="nats per example", ylim=(5.5, -0.5))
left.set(xlim=(0, 1.2 * max(true[:5])), yticks=range(6), yticklabels=zoo)
left.legend(loc="upper right")
right.set(title="Tests of the code", xlim=(-0.5, 2.5), ylim=(5.5, -0.5), yticks=[])
right.set(xticks=range(3), xticklabels=columns)
right.spines[:].set_visible(False)
d.save(figure, alt="What each bug prints and what is true of it, and which test of the code fails")
