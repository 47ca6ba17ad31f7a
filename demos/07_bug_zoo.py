"""The bug zoo: a better printed loss can be the bug.

Five mistakes found in public code, each trained beside the right model. The wrong code prints the
loss; what counts is the bound that the right code gives for the same parameters. Of three tests of
the code, a gradient check compares backward with forward and is blind to what is wrong in both; one
compares draws with N(mu, sigma^2), and one the KL with the mean of log q(z) - log p(z).

Claim: four of five bugs print too low a loss, three by more than a nat below the right code's, and
four have a worse bound; the gradient check finds only one, and each is found by one of three tests.

Time: 5 s quick, 14 s full
"""

# %%
# The bugs. Each is ``VAE`` with one formula replaced, in a few lines of ``scratchvae/zoo.py``; and
# except where the noise is drawn again, the backward is exactly right for the wrong forward.

import numpy as np
from scipy import stats

import scratchvae as sv
from scratchvae import demo_tools, zoo
from scratchvae.gaussian import log_density, reparameterize
from scratchvae.plots import BLUE, CENTRED, GREY, VERMILION

d = demo_tools.start("bug_zoo")
bugs = [
    zoo.SigmaIsExpLogvar,
    zoo.NoiseDrawnAgain,
    zoo.KLAveraged,
    zoo.KLSigmaCubed,
    zoo.KLLogvarAdded,
]
kinds = {"right": sv.VAE}
kinds |= {entry.wrong: entry.model for entry in zoo.ENTRIES if entry.model in bugs}

# %%
# The three tests of the code, in float64, at three posteriors. The statistical ones call right code
# wrong less often than once in 1e9.

n, rng = 20_000, np.random.default_rng(1)
mu = np.ones((3, 2))  # (3, Z)
logvar = np.array([[-4.0, -4.0], [-1.0, -1.0], [1.0, 1.0]])
sigma = np.exp(logvar / 2)
eps = rng.standard_normal((n, 3, 2))  # (n, 3, Z)


def fails_gradient_check(model):
    """Return whether the backward of the draw, or of the KL, is not that of its forward."""
    try:
        draw = model.reparameterize, model.reparameterize_backward
        sv.gradcheck.check(*draw, [mu, logvar, eps[0]], name="the draw")
        sv.gradcheck.check(model.kl, model.kl_backward, [mu, logvar], name="the KL")
    except sv.gradcheck.GradientError as error:
        d.say(str(error))
        return True
    return False


def fails_sampler_test(model):
    """Return whether (z - mu) / sigma is not distributed as N(0, 1)."""
    z, _ = model.reparameterize(mu, logvar, eps)  # (n, 3, Z)
    return stats.kstest(((z - mu) / sigma).ravel(), "norm").pvalue < 1e-10


def fails_kl_test(model):
    """Return whether the KL is not the mean of log q(z) - log p(z) over draws from q."""
    z, _ = reparameterize(mu, logvar, eps)  # (n, 3, Z)
    ratio = log_density(z, mu, logvar)[0] - log_density(z, 0 * mu, 0 * mu)[0]  # (n, 3)
    standard_error = ratio.std(axis=0) / n**0.5  # (3,)
    gap = ratio.mean(axis=0) - model.kl(mu, logvar)[0]
    return (abs(gap) > 7 * standard_error).any()


tests = {"gradient": fails_gradient_check, "sampler": fails_sampler_test, "KL": fails_kl_test}

# %%
# Training. The right code judges the parameters on the same test images with the same noise.


def make(kind):
    return kind(d.dataset.data_dim, (400,), 10, rng=0, backend=d.backend)


epochs = d.epochs(700 if d.quick else 2400)
printed, true, fails, rows = [], [], [], []
for name, kind in kinds.items():
    model, right = make(kind), make(sv.VAE)
    trainer = d.train(model, epochs, label=name, binarize="threshold")
    right.params.value[...] = model.params.value
    printed.append(sv.evaluation.elbo(model, trainer.test_batches(), rng=2).loss)
    true.append(sv.evaluation.elbo(right, trainer.test_batches(), rng=2).loss)

    small = kind(4, (), 2, dtype="float64", rng=0)  # its formulas do not depend on its parameters
    fails.append([test(small) for test in tests.values()])
    found_by = [test for test, failed in zip(tests, fails[-1], strict=True) if failed]
    rows.append([name, f"{printed[-1]:.2f}", f"{true[-1]:.2f}", ", ".join(found_by) or "none"])
d.table(["code", "it prints, nats", "true, nats", "found by the test of"], rows)

printed, true, fails = np.array(printed), np.array(true), np.array(fails)  # (6,), (6,), (6, 3)
d.require(all((printed < true - 0.05) == [0, 1, 0, 1, 1, 1]), "all but ε print less than is true")
d.require((printed < printed[0] - 1).sum() == 3, "three print over 1 nat less than the right code")
d.require(all((true > true[0] + 1) == [0, 1, 1, 1, 0, 1]), "all but σ³ have a bound worse by 1 nat")
by_gradient = [name for name, failed in zip(kinds, fails[:, 0], strict=True) if failed]
d.require(
    by_gradient == ["ε drawn again in backward"],
    "the gradient check finds the noise drawn again only",
)
d.require(all(fails.sum(axis=1) == [0, 1, 1, 1, 1, 1]), "each is found by just one test")

# %%
# The losses on the left, and on the right which test finds what.

figure, (left, right) = d.figure(1, 2, size=(11, 4.2))
left.get_gridspec().set_width_ratios([2, 1])
left.hlines(range(6), printed, true, color=GREY)
left.plot(printed, range(6), "o", color=VERMILION, mfc="none", ms=9, mew=2, label="printed")
left.plot(true, range(6), "o", color=BLUE, label="true")
text = f"{printed[5]:,.0f} to {true[5]:,.0f}".replace("-", "−")  # far off on both sides
left.text(0.6 * max(true[:5]), 5, text, **CENTRED, bbox={"fc": "white", "ec": "none"})
left.set(title="Negative ELBO of the test images", xlabel="nats per example", ylim=(5.5, -0.5))
left.set(xlim=(0, 1.2 * max(true[:5])), yticks=range(6), yticklabels=kinds)
left.legend(loc="upper right")

for (row, test), failed in np.ndenumerate(fails):
    word, colour = ("fails", VERMILION) if failed else ("passes", "#888888")
    right.text(test, row, word, color=colour, **CENTRED)
right.set(title="Tests of the code", xlim=(-0.5, 2.5), ylim=(5.5, -0.5), yticks=[])
right.set(xticks=range(3), xticklabels=tests)
right.spines[:].set_visible(False)
d.save(figure, alt="What each bug prints and what is true of it, and which test of the code fails")
