"""The figures of the derivations, each by a function with the name of its page.

A function returns one panel or several, computed with the package. They are drawn when the pages
are built (``{drawn}`` in docs/_ext/derivations.py): black, ONE, TWO and GREY become colours of the
page, light or dark. A panel fits on a phone: no text in it is smaller than 9 of its 260 points.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import scratchvae as sv
from scratchvae import gaussian

ONE, TWO, GREY = "#0000ff", "#ff0000", "#808080"
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()  # expectations over a standard normal number


def panel(xlabel: str, ylabel: str, height: float = 2.3) -> tuple[Figure, Axes]:
    figure, ax = plt.subplots(figsize=(3.6, height), layout="constrained")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def column(values: object) -> np.ndarray:
    """Return numbers as a batch of one dimension, (n, 1)."""
    return np.asarray(values, dtype=float).reshape(-1, 1)


def density(z: np.ndarray, mu: float, sigma: float) -> np.ndarray:
    log_p, _ = gaussian.log_density(column(z), np.array([mu]), np.array([2 * np.log(sigma)]))
    return np.exp(log_p)


def kl(mu: object, sigma: object) -> np.ndarray:
    mu, sigma = np.broadcast_arrays(np.asarray(mu, float), np.asarray(sigma, float))
    return gaussian.kl_standard_normal(column(mu), 2 * np.log(column(sigma)))[0]


def elbo() -> list[Figure]:
    """The loss as -log p(x) and the gap, where x|z is N(z, 0.5) and x = 1."""
    x, variance = 1.0, 0.5
    log_p = np.log(density(np.array([x]), 0, np.sqrt(1 + variance)))[0]
    posterior = (x / (1 + variance), np.sqrt(variance / (1 + variance)))
    figure, ax = panel("nats", "", 2.1)
    rows = {"the prior": (0, 1), "too narrow": (0.9, 0.2), "the posterior": posterior}
    for y, (mu, sigma) in enumerate(rows.values()):
        log_likelihood = np.log(density(x - (mu + sigma * NODES), 0, np.sqrt(variance)))
        loss = -(WEIGHTS @ log_likelihood) + kl(mu, sigma)[0]
        ax.barh(y, -log_p, color=ONE, height=0.6)
        ax.barh(y, loss + log_p, left=-log_p, color=TWO, height=0.6)
        ax.text(loss + 0.03, y, f"gap {loss + log_p:.2f}", va="center")
    ax.text(-log_p / 2, 2.45, "−log p(x)", ha="center", color=ONE)
    ax.set_yticks(range(3), rows)
    ax.set(xlim=(0, 3.1), ylim=(-0.5, 2.8))
    ax.set_ylabel("q(z|x) is …")
    return [figure]


def mu_and_sigma() -> list[Figure]:
    z = np.linspace(-4, 4, 300)
    first, ax = panel("code z", "density")
    ax.fill_between(z, density(z, 0, 1), color=GREY, alpha=0.35, lw=0)
    ax.text(-2.9, 0.2, "prior", color=GREY)
    for mu, sigma, colour in ((-1.2, 0.35, ONE), (1.3, 0.6, TWO)):
        ax.plot(z, density(z, mu, sigma), color=colour)
        ax.text(
            mu,
            0.05 + density(np.array([mu]), mu, sigma)[0],
            f"μ = {mu:g}, σ = {sigma:g}".replace("-", "−"),
            ha="center",
        )
    ax.set_ylim(0, 1.35)
    logvar = np.linspace(-4, 2, 200)
    eps = np.ones((200, 1))
    sigma, _ = gaussian.reparameterize(0 * eps, column(logvar), eps)
    second, ax = panel("logvar, any number", "σ, always positive")
    ax.plot(logvar, sigma, color=ONE)
    ax.plot([0], [1], "o", color="black")
    ax.text(-0.15, 1.1, "logvar = 0: σ = 1", ha="right")
    return [first, second]


def reparameterisation() -> list[Figure]:
    """Ten thousand one-draw estimates of each kind for f(z) = z², at mu = 1 and sigma = 0.5."""

    def estimates(eps: np.ndarray) -> list[np.ndarray]:
        mu, logvar = 0 * eps + 1, 0 * eps + 2 * np.log(0.5)
        z, cache = gaussian.reparameterize(mu, logvar, eps)
        pathwise, _ = gaussian.reparameterize_backward(2 * z, cache)
        _, cache = gaussian.log_density(z, mu, logvar)
        _, score, _ = gaussian.log_density_backward(z[:, 0] ** 2, cache)
        return [pathwise[:, 0], score[:, 0]]

    drawn = estimates(np.random.default_rng(0).standard_normal((10_000, 1)))
    exact = [WEIGHTS @ (values - 2) ** 2 for values in estimates(NODES[:, None])]
    figure, ax = panel("estimate of the gradient in μ", "share of the draws")
    for values, variance, colour, name, y in zip(
        drawn, exact, (ONE, TWO), ("pathwise", "score"), (0.09, 0.045), strict=True
    ):
        part = values[(values > -10) & (values < 15)]
        ax.hist(
            part, 100, (-10, 15), weights=np.full(len(part), 1e-4), histtype="step", color=colour
        )
        ax.text(5.2, y, f"{name}\nvariance {variance:.2f}", color=colour)
    ax.axvline(2, color="black", ls=":")
    ax.text(2.4, 0.135, "true: 2")
    ax.set_ylim(0, 0.15)
    return [figure]


def kl_divergence() -> list[Figure]:
    mu, sigma = np.linspace(-3, 3, 200), np.linspace(0.03, 3, 400)
    first, ax = panel("μ, with σ = 1", "KL in nats")
    ax.plot(mu, kl(mu, 1), color=ONE)
    second, right = panel("σ, with μ = 0", "KL in nats")
    right.plot(sigma, kl(0, sigma), color=ONE)
    right.text(0.15, 2.9, "σ → 0: without limit")
    right.plot([1, 1], [0, 2.6], color=GREY, ls=":")
    for axis in (ax, right):
        axis.set_ylim(0, 3.2)
    return [first, second]


def kl_weight() -> list[Figure]:
    epoch = np.linspace(0, 12, 200)
    first, ax = panel("epoch t", "weight β(t)")
    ax.plot(epoch, [sv.schedules.warm_up(1.0, 5.0)(t) for t in epoch], color=ONE)
    ax.text(5.2, 0.85, "warm-up over T = 5")
    mu, zero = np.linspace(-2.5, 2.5, 300), np.zeros((300, 1))
    second, ax = panel("μ, with σ = 1", "nats")
    charged, _ = sv.free_bits.kl_free_bits(column(mu), zero, 0.5)
    ax.plot(mu, kl(mu, 1), color=GREY, ls="--")
    ax.plot(mu, charged, color=ONE)
    ax.text(0, 0.62, "charged: λ = 0.5", ha="center", color=ONE)
    ax.text(0, 0.1, "KL", ha="center", color=GREY)
    return [first, second]


def log_density() -> list[Figure]:
    z = np.linspace(-3, 3, 300)
    figure, ax = panel("z − μ", "log density in nats")
    for sigma, colour in ((0.5, ONE), (1.0, "black"), (2.0, TWO)):
        ax.plot(z, np.log(density(z, 0, sigma)), color=colour)
        ax.text(
            3.05,
            max(np.log(density(np.array([3.0]), 0, sigma))[0], -7.5),
            f"σ = {sigma:g}",
            color=colour,
            va="center",
        )
    ax.set(ylim=(-8, 0.5), xlim=(-3, 4.2))
    return [figure]


def bernoulli() -> list[Figure]:
    a = np.linspace(-40, 10, 400)
    nll, cache = sv.likelihoods.bernoulli_nll(np.ones((400, 1)), column(a))
    slope = sv.likelihoods.bernoulli_nll_backward(np.ones(400), cache)
    y = 1 / (1 + np.exp(-a))
    first, ax = panel("logit a of a pixel that is 1", "−log p in nats")
    ax.plot(a, nll, color=ONE)
    ax.plot(a, -np.log(y + 1e-9), color=TWO, ls="--")
    ax.text(-24, 33, "from the logit", color=ONE)
    ax.text(-39, 15, "log(y + 1e-9)", color=TWO)
    second, ax = panel("logit a of a pixel that is 1", "its gradient")
    ax.plot(a, slope, color=ONE)
    ax.plot(a, -y / (y + 1e-9) * (1 - y), color=TWO, ls="--")
    ax.text(-26, -0.95, "s(a) − x", color=ONE, ha="right")
    ax.text(-24, -0.15, "no gradient", color=TWO, ha="right")
    return [first, second]


def gaussian_likelihood() -> list[Figure]:
    """The loss of one pixel over its variance, for three errors."""
    variance = np.geomspace(0.003, 3, 300)
    figure, ax = panel("variance s²", "loss of a pixel in nats")
    for error, colour in ((0.1, ONE), (0.3, "black"), (0.8, TWO)):
        nll, _ = sv.likelihoods.gaussian_nll(
            np.full((300, 1), error), np.zeros((300, 1)), column(np.log(variance))
        )
        ax.plot(variance, nll, color=colour)
        best = nll[np.argmin(nll)]
        ax.plot([error**2], [best], "o", color=colour)
        ax.text(error**2, best + 0.25, f"s² = {error}²", color=colour, ha="center")
    ax.axhline(0, color=GREY, lw=0.6)
    ax.set(xscale="log", ylim=(-2.3, 3.4))
    return [figure]


def cells(ax: Axes, values: np.ndarray, x: float, y: float, colour: str, name: str) -> None:
    """Draw a matrix as cells, the darker the larger its entries, with its name below."""
    strength = np.abs(values) / np.abs(values).max()
    for (i, j), alpha in np.ndenumerate(strength):
        ax.add_patch(Rectangle((x + j, y - i), 1, -1, fc=colour, ec="black", lw=0.5, alpha=alpha))
        ax.add_patch(Rectangle((x + j, y - i), 1, -1, fc="none", ec="black", lw=0.5))
    ax.text(x + values.shape[1] / 2, y + 0.3, name, ha="center", va="bottom")


def matrices(parts: list[object], colour: str) -> Figure:
    """Draw matrices, and signs between them, in one row."""
    figure, ax = plt.subplots(figsize=(3.6, 1.7), layout="constrained")
    x, tallest = 0.0, max(len(part[1]) for part in parts if not isinstance(part, str))
    for part in parts:
        if isinstance(part, str):
            ax.text(x + 0.6, -tallest / 2, part, ha="center", va="center", fontsize=12)
            x += 1.2
        else:
            name, values = part
            cells(ax, values, x, -(tallest - len(values)) / 2, colour, name)
            x += values.shape[1] + 0.1
    ax.set(xlim=(-0.2, x + 0.2), ylim=(-tallest - 0.2, 2.2), aspect="equal")
    ax.axis("off")
    return figure


def linear() -> list[Figure]:
    rng = np.random.default_rng(0)
    layer = sv.Linear(3, 2, rng=0)
    sv.Parameters(layer.named_parameters())
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    y, cache = layer.forward(x)
    dx = layer.backward(dy, cache)
    W = layer.W.value
    return [
        matrices([("x", x), "·", ("W", W), "→", ("y", y)], ONE),
        matrices([("xᵀ", x.T), "·", ("dy", dy), "=", ("dW", x.T @ dy)], TWO),
        matrices([("dy", dy), "·", ("Wᵀ", W.T), "=", ("dx", dx)], TWO),
    ]


def activations() -> list[Figure]:
    x, found = np.linspace(-4, 4, 400), []
    for names in (("relu", "elu", "silu"), ("softplus", "sigmoid", "tanh")):
        figure, ax = panel("x", "f(x), and dashed its slope")
        for name, colour in zip(names, (ONE, TWO, "black"), strict=True):
            f, backward = sv.activations.ACTIVATIONS[name]
            y, cache = f(x)
            ax.plot(x, y, color=colour, label=name)
            ax.plot(x, backward(np.ones_like(x), cache), color=colour, ls="--", lw=0.8)
        ax.set_ylim(-1.2, 3)
        ax.legend(frameon=False, loc="upper left")
        found.append(figure)
    return found


def convolution() -> list[Figure]:
    """A 5 by 5 image, the windows of a 3 by 3 kernel with stride 2, and their patches."""
    windows = sv.convolution.Windows((3, 3), (2, 2), (0, 0))
    image = np.random.default_rng(3).uniform(0.1, 1, (5, 5))
    seen = sv.convolution.patches(image[None, None], windows).reshape(-1, 9)
    figure, ax = plt.subplots(figsize=(3.6, 1.9), layout="constrained")
    cells(ax, image, 0, 0, ONE, "image x")
    cells(ax, seen, 7.5, -0.5, ONE, "patches P")
    for x, y, width, height in ((2, 0, 3, -3), (7.5, -1.5, 9, -1)):  # the second window
        ax.add_patch(Rectangle((x, y), width, height, fc="none", ec=TWO, lw=2))
    ax.annotate("", (7.4, -2), (5.1, -1.6), arrowprops={"arrowstyle": "->", "color": TWO})
    ax.set(xlim=(-0.2, 16.8), ylim=(-5.2, 1.8), aspect="equal")
    ax.axis("off")
    return [figure]


def two_paths() -> list[Figure]:
    """Both gradients in mu, where R(z) = 3 (z - 2)² / 2 and sigma = 1/2."""
    mu = np.linspace(-1, 3, 100)
    z, cache = gaussian.reparameterize(
        column(mu), np.full((100, 1), 2 * np.log(0.5)), NODES[:, None, None]
    )
    dmu_z, _ = gaussian.reparameterize_backward(WEIGHTS[:, None, None] * 3 * (z - 2), cache)
    dmu_kl, _ = gaussian.kl_standard_normal_backward(np.ones(100), (column(mu), column(0 * mu)))
    figure, ax = panel("μ", "gradient of the loss in μ")
    for values, colour, name in (
        (dmu_z, ONE, "through z"),
        (dmu_kl, TWO, "through the KL"),
        (dmu_z + dmu_kl, "black", "sum"),
    ):
        ax.plot(mu, values, color=colour, label=name)
    ax.axhline(0, color=GREY, lw=0.6)
    ax.plot([1.5], [0], "o", color="black")
    ax.text(1.6, -2.1, "balance")
    ax.legend(frameon=False, loc="lower right")
    return [figure]


def adam() -> list[Figure]:
    """A hundred steps down a valley that is forty times as steep across as along."""
    steep = np.array([1.0, 40.0])
    figure, ax = panel("flat direction", "steep direction")
    grid = np.meshgrid(np.linspace(-2.2, 0.6, 80), np.linspace(-0.7, 0.7, 80))
    heights = sum(s * g**2 / 2 for s, g in zip(steep, grid, strict=True))
    ax.contour(*grid, heights, levels=[0.05, 0.3, 1, 3, 6, 9], colors=GREY, linewidths=0.6)
    for name, colour in (("SGD", TWO), ("Adam", ONE)):
        params = sv.Parameters([("theta", sv.Parameter(np.array([-2.0, 0.5])))])
        optimizer = sv.SGD(params, lr=0.045) if name == "SGD" else sv.Adam(params, lr=0.1)
        path = [params.value.copy()]
        for _ in range(100):
            params.grad[...] = steep * params.value
            optimizer.step()
            path.append(params.value.copy())
        ax.plot(*np.transpose(path), ".-", color=colour, ms=2.5, lw=0.8, label=name)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}  # no contours run through it
    ax.legend(frameon=False, ncols=2, **above)
    return [figure]


def weight_model(cls: type, **options: object) -> tuple[object, np.ndarray, float]:
    """Return a model with a linear decoder and an encoder that is off, an example, log p(x)."""
    model = cls(
        1,
        hidden=(),
        latent_dim=1,
        likelihood="gaussian",
        variance=0.5,
        dtype="float64",
        rng=0,
        **options,
    )
    model.params.value[...] = 0
    model.params["decoder.0.W"].value[...] = 1
    model.params["encoder.0.b"].value[...] = [-0.3, -0.4]
    x = np.array([[1.0]])
    return model, x, float(np.log(density(x[0], 0, np.sqrt(1.5)))[0])


def importance_weighted_bound() -> list[Figure]:
    model, x, log_p = weight_model(sv.VAE)
    draws = (1, 2, 3, 5, 10, 20, 50, 100)
    many = np.repeat(x, 4000, axis=0)
    bounds = [
        sv.evaluation.importance_weighted_bound(model, [many], K, rng=0).mean() for K in draws
    ]
    figure, ax = panel("draws K", "bound in nats")
    ax.plot(draws, bounds, "o-", color=ONE)
    ax.axhline(log_p, color="black", ls=":")
    ax.text(1, log_p + 0.02, "log p(x)", va="bottom")
    ax.text(1.2, bounds[0], "ELBO", color=ONE, va="center")
    ax.set(xscale="log", ylim=(min(bounds) - 0.1, log_p + 0.15))
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
    ax.minorticks_off()
    return [figure]


def importance_weighted_training() -> list[Figure]:
    """Signal over noise of the gradient in mu, over K: the standard and the doubly
    reparameterised one."""
    model, x, _ = weight_model(sv.IWAE, samples=1)
    rows, draws = 1000, (1, 4, 16, 64, 256)
    mu, logvar = np.full((rows, 1), -0.3), np.full((rows, 1), -0.4)
    ratios: dict[str, list[float]] = {"standard": [], "dreg": []}
    for K in draws:
        model.samples = K
        eps = np.random.default_rng(K).standard_normal((K, rows, 1))
        found = {}
        for model.gradient in ratios:
            log_w, _, cache = model.log_weights(np.repeat(x, rows, axis=0), mu, logvar, eps)
            w = np.exp(log_w - sv.evaluation.log_sum_exp(log_w))
            found[model.gradient] = model.log_weights_backward(-w, w, cache)[0][:, 0]
        for name, gradient in found.items():
            ratios[name].append(abs(found["dreg"].mean()) / gradient.std())
    figure, ax = panel("draws K", "signal over noise")
    for (name, values), colour in zip(ratios.items(), (TWO, ONE), strict=True):
        ax.plot(draws, values, "o-", color=colour)
        said = "standard" if name == "standard" else "doubly reparameterised"
        ax.text(1, values[0] * (0.2 if name == "standard" else 3.5), said, color=colour)
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(draws, map(str, draws))
    ax.minorticks_off()
    return [figure]


def conditional() -> list[Figure]:
    model = sv.ConditionalVAE(6, hidden=(), latent_dim=2, classes=4, rng=0)
    x = np.array([[0.9, 0.4, 0.1, 0.7, 0.2, 0.5]])
    rows = np.asarray(model.rows(x, 2), float)
    figure, ax = plt.subplots(figsize=(3.6, 1.0), layout="constrained")
    cells(ax, rows[:, :6], 0, 0, ONE, "pixels x")
    cells(ax, rows[:, 6:], 6, 0, TWO, "label y, here 2")
    for c in range(4):
        ax.text(6.5 + c, -1.15, str(c), ha="center", va="top")
    ax.set(xlim=(-0.1, 10.6), ylim=(-2, 1.6), aspect="equal")
    ax.axis("off")
    return [figure]


def mixture_prior() -> list[Figure]:
    prior = sv.MixturePrior(latent_dim=1, components=2)
    prior.mean.value[...] = [[-1.5], [1.5]]
    prior.logvar.value[...] = np.log([[0.4], [1.0]])
    prior.logits.value[...] = np.log([0.4, 0.6])
    z = np.linspace(-4, 5, 300)
    p = np.exp(prior.log_density(column(z))[0])
    parts = [0.4 * density(z, -1.5, 0.4**0.5), 0.6 * density(z, 1.5, 1.0)]
    first, ax = panel("code z", "density")
    for part, colour in zip(parts, (ONE, TWO), strict=True):
        ax.plot(z, part, color=colour, ls="--")
    ax.plot(z, p, color="black")
    second, ax = panel("code z", "responsibility")
    for part, colour in zip(parts, (ONE, TWO), strict=True):
        ax.plot(z, part / p, color=colour)
    return [first, second]


def finite_differences() -> list[Figure]:
    """The error of three rules at x = 1 over the step, for the softplus."""
    h = np.geomspace(1e-12, 1, 200)

    def f(x: np.ndarray) -> np.ndarray:
        return sv.activations.softplus(x)[0]

    def central(h: np.ndarray) -> np.ndarray:
        return (f(1 + h) - f(1 - h)) / (2 * h)

    _, cache = sv.activations.softplus(np.ones(1))
    true = sv.activations.softplus_backward(np.ones(1), cache)
    rules = {
        "one-sided": ((f(1 + h) - f(np.ones(1))) / h, TWO),
        "central": (central(h), "black"),
        "Richardson": ((4 * central(h / 2) - central(h)) / 3, ONE),
    }
    figure, ax = panel("step h", "error of the slope", 2.5)
    for name, (slope, colour) in rules.items():
        ax.loglog(h, np.maximum(abs(slope - true), 1e-17), color=colour, lw=0.9, label=name)
    ax.set_ylim(1e-15, 1e3)
    ax.legend(frameon=False, loc="upper left", borderaxespad=0.2)
    return [figure]


def linear_vae() -> list[Figure]:
    """What each principal direction of the digits is worth to a linear VAE."""
    digits = sv.datasets.load("digits")
    images = sv.datasets.to_float(digits.train, digits.scale, np.dtype("float64"))
    eigenvalues = np.linalg.eigvalsh(np.cov(images.T, bias=True))[::-1]
    figure, ax = panel("principal direction of the digits", "mean KL in nats")
    for s2, colour, first in ((0.01, ONE, 9), (0.1, "black", 6), (0.4, TWO, 4)):
        value = kl_of(eigenvalues[:16], s2)
        ax.plot(range(1, 17), value, "o-", color=colour, ms=3)
        ax.text(first, value[first - 1] + 0.12, f"s² = {s2}", color=colour)
    ax.set(ylim=(-0.05, 2.4), xticks=(1, 4, 8, 12, 16))
    return [figure]


def kl_of(eigenvalues: np.ndarray, s2: float) -> np.ndarray:
    """Return the mean KL of each direction: mu² averages 1 - sigma²."""
    variance = np.minimum(s2 / eigenvalues, 1)
    return kl(np.sqrt(1 - variance), np.sqrt(variance))


def index() -> list[Figure]:
    """The parts of a training step as boxes, each with the pages that derive it."""
    figure, ax = plt.subplots(figsize=(3.6, 4.1), layout="constrained")
    parts = {  # place of the middle, what it is, the pages
        "x": (2, 7, "data x", ""),
        "encoder": (2, 6, "encoder", "linear, activations"),
        "code": (2, 5, "μ, logvar", "mu and sigma"),
        "draw": (1, 4, "z = μ + σ ε", "reparameterisation"),
        "decoder": (1, 3, "decoder", "linear, convolution"),
        "nll": (1, 2, "−log p(x|z)", "Bernoulli, Gaussian"),
        "kl": (3, 3.5, "KL(q‖p)", "KL, KL weight"),
        "loss": (2, 1, "loss", "ELBO"),
        "step": (2, 0, "step", "two paths, Adam"),
    }
    arrows = ("x encoder", "encoder code", "code draw", "draw decoder", "decoder nll", "nll loss",
              "code kl", "kl loss", "loss step")  # fmt: skip
    for start, end in (arrow.split() for arrow in arrows):
        (x, y, *_), (u, v, *_) = parts[start], parts[end]
        tip = {"arrowstyle": "->", "color": "black", "lw": 0.8}
        ax.annotate("", (u, v + 0.33), (x, y - 0.33), arrowprops=tip)
    for x, y, name, pages in parts.values():
        ax.add_patch(Rectangle((x - 0.93, y - 0.33), 1.86, 0.66, fc="none", ec=ONE, lw=1))
        ax.text(x, y + 0.15 * bool(pages), name, ha="center", va="center", weight="bold")
        ax.text(x, y - 0.15, pages, ha="center", va="center")
    ax.set(xlim=(0, 4), ylim=(-0.4, 7.4))
    ax.axis("off")
    return [figure]


# The name of a page is that of its function; a module `gaussian` and a function `kl` are above.
FIGURES = {
    name.replace("_", "-"): globals()[name]
    for name in (
        "elbo", "mu_and_sigma", "reparameterisation", "kl_weight", "log_density", "bernoulli",
        "gaussian_likelihood", "linear", "activations", "convolution", "two_paths", "adam",
        "importance_weighted_bound", "importance_weighted_training", "conditional",
        "mixture_prior", "finite_differences", "linear_vae", "index",
    )
} | {"kl": kl_divergence}  # fmt: skip
