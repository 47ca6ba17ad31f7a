"""The corpus: what people write, right and wrong."""

from __future__ import annotations

import numpy as np
from corpus import (
    Corpus,
    change,
    factor,
    missing,
    normal,
    positive,
    sign,
    swapped,
    transposed,
    wrong,
)
from scipy import special

CORPUS = Corpus()
add = CORPUS.add


def elementwise(name, f, df, *mistakes, draw=None, scales=(-2, 2), **options):
    """Add y = f(x); each mistake is (name, derivative, causes ...)."""

    def forward(x):
        return f(x), x

    def backward(dy, x):
        return dy * df(x)

    made = [wrong(n, lambda dy, x, d=d: dy * d(x), *causes) for n, d, *causes in mistakes]
    add(forward, backward, draw or normal("bd"), *made, name=name, scales=scales, **options)


# ------------------------------------------------------------------------------- elementwise

elementwise(
    "cube", lambda x: x**3, lambda x: 3 * x**2,
    ("power", lambda x: 3 * x, "missing factor"), ("2 for 3", lambda x: 2 * x**2, "factor"),
)  # fmt: skip
elementwise(
    "tanh", np.tanh, lambda x: 1 - np.tanh(x) ** 2,
    ("no square", lambda x: 1 - np.tanh(x), "missing factor"), ("x for y", lambda x: 1 - x**2, ""),
    ("one", np.ones_like, "passed on"), scales=(-3, 1),
)  # fmt: skip
elementwise(
    "sigmoid", special.expit, lambda x: special.expit(x) * special.expit(-x),
    ("one factor", special.expit, "missing factor"),
    ("sign", lambda x: -special.expit(x) * special.expit(-x), "sign"), scales=(-3, 1),
)  # fmt: skip
elementwise(
    "softplus", lambda x: np.logaddexp(0, x), special.expit,
    ("of -x", lambda x: special.expit(-x), "quantity"), scales=(-3, 1),
)  # fmt: skip
elementwise(
    "gelu", lambda x: x * special.ndtr(x),
    lambda x: special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi),
    ("one term", special.ndtr, "missing term"), scales=(-3, 0),
)  # fmt: skip
elementwise("exp", np.exp, np.exp, ("one", np.ones_like, "passed on"), scales=(-3, 1))
elementwise(
    "log", np.log, lambda x: 1 / x, ("of log x", np.ones_like, "passed on", "quantity"),
    draw=positive("bd"),
)  # fmt: skip
elementwise(
    "sqrt", np.sqrt, lambda x: 0.5 / np.sqrt(x), ("no half", lambda x: 1 / np.sqrt(x), "factor"),
    draw=positive("bd"), scales=(-8, 8),
)  # fmt: skip
elementwise(
    "reciprocal", lambda x: 1 / x, lambda x: -1 / x**2, ("sign", lambda x: 1 / x**2, "sign"),
    ("no square", lambda x: -1 / x, "quantity"), draw=positive("bd"),
)  # fmt: skip
elementwise("sin", np.sin, np.cos, ("minus", lambda x: -np.cos(x), "sign"), scales=(-3, 1))
elementwise(
    "arctan", np.arctan, lambda x: 1 / (1 + x * x),
    ("root", lambda x: 1 / np.sqrt(1 + x * x), ""),
)  # fmt: skip
elementwise(
    "relu", lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0,
    ("everywhere", np.ones_like, "some coordinates", "passed on"),
    ("other side", lambda x: (x < 0) * 1.0, "missing term"),
)  # fmt: skip
elementwise(
    "leaky relu", lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1),
    ("slope 0", lambda x: (x > 0) * 1.0, "some coordinates", "wrong axis"), scales=(-6, 6),
)  # fmt: skip
elementwise(
    "absolute", np.abs, np.sign, ("one", np.ones_like, "some coordinates", "passed on", "sign"),
    scales=(-6, 6),
)  # fmt: skip
elementwise(
    "huber", lambda x: np.where(abs(x) < 1, x * x / 2, abs(x) - 0.5), lambda x: np.clip(x, -1, 1),
    ("no clip", lambda x: x, "some coordinates", "quantity"),
)  # fmt: skip
elementwise(
    "clip", lambda x: np.clip(x, -1, 1), lambda x: (abs(x) < 1) * 1.0,
    ("straight through", np.ones_like, "some coordinates", "passed on"),
)  # fmt: skip
elementwise(
    "elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    lambda x: np.exp(np.minimum(x, 0)),
    ("expm1", lambda x: np.where(x > 0, 1, np.expm1(np.minimum(x, 0))), "some coordinates"),
    scales=(-3, 1),
)  # fmt: skip
elementwise(
    "softsign", lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2,
    ("no square", lambda x: 1 / (1 + abs(x)), "missing factor"),
)  # fmt: skip
elementwise(
    "round", np.round, np.zeros_like, ("straight through", np.ones_like, "passed on"),
    scales=(-1, 2),
)  # fmt: skip
elementwise(
    "sign of x", np.sign, np.zeros_like, ("straight through", np.ones_like, "passed on"),
)  # fmt: skip
elementwise(
    "x plus floor", lambda x: x + np.floor(x), np.ones_like,
    ("twice", lambda x: 2 * np.ones_like(x), "factor"),
)  # fmt: skip
elementwise(
    "gammaln", special.gammaln, special.digamma,
    ("log x", np.log, ""), draw=positive("bd"), scales=(-2, 3),
)  # fmt: skip
elementwise(
    "erf", special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x),
    ("no 2", lambda x: np.exp(-x * x) / np.sqrt(np.pi), "factor"), scales=(-3, 0),
)  # fmt: skip
elementwise(
    "bessel j0", special.j0, lambda x: -special.j1(x), ("sign", special.j1, "sign"),
    scales=(-1, 1),
)  # fmt: skip
elementwise(
    "x log x", lambda x: x * np.log(x), lambda x: 1 + np.log(x), ("no 1", np.log, "missing term"),
    draw=positive("bd"),
)  # fmt: skip
elementwise(
    "narrow tanh", lambda x: np.tanh(x / 1e-6), lambda x: 1e6 / np.cosh(np.minimum(
        abs(x / 1e-6), 300)) ** 2,
    ("no chain", lambda x: 1 / np.cosh(np.minimum(abs(x / 1e-6), 300)) ** 2, "factor", "zero"),
    draw=lambda rng, b, d, s: [1e-6 * rng.standard_normal((b, d))], scales=None,
)  # fmt: skip
elementwise(
    "narrow tanh among zeros", lambda x: np.tanh(x / 1e-6), lambda x: 1e6 / np.cosh(np.minimum(
        abs(x / 1e-6), 300)) ** 2,
    ("no chain", lambda x: 1 / np.cosh(np.minimum(abs(x / 1e-6), 300)) ** 2, "factor", "zero"),
    draw=lambda rng, b, d, s: [np.where(rng.random((b, d)) < 0.5, 1e-6, 1)
                               * rng.standard_normal((b, d))], scales=None,
)  # fmt: skip
elementwise(
    "fast sine", lambda x: np.sin(1e8 * x), lambda x: 1e8 * np.cos(1e8 * x),
    ("no chain", lambda x: np.cos(1e8 * x), "factor"), scales=None,
)  # fmt: skip
elementwise(
    "slow sine", lambda x: np.sin(1e-8 * x), lambda x: 1e-8 * np.cos(1e-8 * x),
    ("no chain", lambda x: np.cos(1e-8 * x), "factor", "passed on"), scales=(-3, 12),
)  # fmt: skip
elementwise(
    "square on 1e12", lambda x: 1e12 + x**2, lambda x: 2 * x, ("zero", np.zeros_like, "zero"),
    scales=None,
)  # fmt: skip
elementwise(
    "square on 1e17", lambda x: 1e17 + x**2, lambda x: 2 * x, ("zero", np.zeros_like, "zero"),
    scales=None,
)  # fmt: skip
elementwise(
    "steep and a kink", lambda x: 1e4 * x + np.maximum(x, 0), lambda x: 1e4 + (x > 0),
    ("no steep", lambda x: (x > 0) * 1.0, "missing term", "zero"), draw=lambda rng, b, d, s: [
        s * 1e-5 * rng.standard_normal((b, d))],
)  # fmt: skip
elementwise(
    "high power", lambda x: x**9, lambda x: 9 * x**8, ("10", lambda x: 10 * x**8, "factor"),
)  # fmt: skip
elementwise(
    "constant", lambda x: np.full(x.shape, 3.0), np.zeros_like, ("one", np.ones_like, "passed on"),
)  # fmt: skip
elementwise(
    "polynomial with a small term", lambda x: x + 1e-6 * x**2 / 2, lambda x: 1 + 1e-6 * x,
    ("small term missing", np.ones_like, "passed on", "missing term"), scales=(-1, 3),
)  # fmt: skip
elementwise(
    "quadratic with a small term", lambda x: x**2 + 1e-6 * x**2, lambda x: 2 * x + 2e-6 * x,
    ("small term missing", lambda x: 2 * x, "factor", "missing term"), scales=(-1, 3),
)  # fmt: skip
elementwise(
    "float32 derivative", lambda x: np.sin(x) + x, lambda x: np.cos(x) + 1,
    ("float32", lambda x: (np.cos(x) + 1).astype(np.float32).astype(float), "precision"),
    scales=(-2, 1),
)  # fmt: skip


# ------------------------------------------------------------------------------- losses


def mse(pred, target):
    return ((pred - target) ** 2).mean(), (pred, target)


def mse_backward(dy, cache):
    d = 2 * dy * (cache[0] - cache[1]) / cache[0].size
    return d, -d


add(mse, mse_backward, normal("bd", "bd"), sign(mse_backward, 1), factor(mse_backward, 0.5, 0),
    wrong("swapped", lambda dy, c: mse_backward(dy, c)[::-1], "swapped", "sign"),
    missing(mse_backward, 1), scales=(-6, 6))  # fmt: skip
add(mse, lambda dy, c: mse_backward(dy, c)[0], normal("bd", "bd"),
    wrong("no mean", lambda dy, c: mse_backward(dy, c)[0] * c[0].size, "factor"),
    wrong("sign", lambda dy, c: mse_backward(dy, c)[1] * 3, "factor"),
    name="mse, gradient of pred only")  # fmt: skip


def bce(logits, bits):
    return np.logaddexp(0, logits) - bits * logits, (logits, bits)


def bce_backward(dy, cache):
    return dy * (special.expit(cache[0]) - cache[1])


add(bce, bce_backward, lambda rng, b, d, s: [s * rng.standard_normal((b, d)),
                                             rng.integers(0, 2, (b, d)).astype(float)],
    sign(bce_backward), wrong("no sigmoid", lambda dy, c: dy * (c[0] - c[1]), "missing term"),
    scales=(-3, 1))  # fmt: skip


def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean(), (np.exp(log_p), labels)


def cross_entropy_backward(dy, cache):
    p, labels = cache
    d = p.copy()
    d[np.arange(len(labels)), labels] -= 1
    return dy * d / len(labels)


def logits_and_labels(rng, b, d, s):
    return [s * rng.standard_normal((b, d + 1)), rng.integers(0, d + 1, b)]


add(cross_entropy, cross_entropy_backward, logits_and_labels, sign(cross_entropy_backward),
    wrong("no mean", lambda dy, c: cross_entropy_backward(dy, c) * len(c[1]), "factor"),
    wrong("no one-hot", lambda dy, c: dy * c[0] / len(c[1]), "some coordinates"),
    scales=(-3, 1))  # fmt: skip


def hinge(scores, labels):
    margins = 1 - scores * labels
    return np.maximum(margins, 0).sum(axis=1), (margins, labels)


def hinge_backward(dy, cache):
    margins, labels = cache
    return -dy[:, None] * labels * (margins > 0)


add(hinge, hinge_backward, lambda rng, b, d, s: [s * rng.standard_normal((b, d)),
                                                 rng.choice([-1.0, 1.0], (b, d))],
    sign(hinge_backward),
    wrong("no mask", lambda dy, c: -dy[:, None] * c[1], "some coordinates"))  # fmt: skip


def kl(mu, logvar):
    return 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1), (mu, logvar)


def kl_backward(dy, cache):
    mu, logvar = cache
    return dy[:, None] * mu, 0.5 * dy[:, None] * np.expm1(logvar)


def kl_of_sigma(dy, cache):
    sigma = np.exp(cache[1] / 2)
    return kl_backward(dy, cache)[0], dy[:, None] * (sigma - 1 / sigma)


add(kl, kl_backward, normal("bd", "bd"), factor(kl_backward, 2, 1), sign(kl_backward, 0),
    wrong("of sigma", kl_of_sigma, "quantity", "factor"), missing(kl_backward, 0),
    scales=(-3, 1))  # fmt: skip
add(kl, kl_backward, lambda rng, b, d, s: [np.zeros((b, d)), np.zeros((b, d))],
    wrong("plus 1", lambda dy, c: (kl_backward(dy, c)[0], kl_backward(dy, c)[1] + 1)),
    name="kl at zero", scales=None)  # fmt: skip


def gaussian_nll(x, mean, logvar):
    e = (x - mean) * np.exp(-logvar / 2)
    return 0.5 * (e * e + logvar).sum(axis=1), (e, logvar)


def gaussian_nll_backward(dy, cache):
    e, logvar = cache
    return -dy[:, None] * e * np.exp(-logvar / 2), 0.5 * dy[:, None] * (1 - e * e)


add(gaussian_nll, gaussian_nll_backward, normal("bd", "bd", "bd"), sign(gaussian_nll_backward, 1),
    missing(gaussian_nll_backward, 0),
    wrong("variance for sigma", lambda dy, c: (gaussian_nll_backward(dy, c)[0] * np.exp(-c[1] / 2),
                                               gaussian_nll_backward(dy, c)[1]),
          "missing factor"),
    scales=(-3, 0), wrt=(1, 2))  # fmt: skip


def precisions(rng, b, d, s):
    logvar = np.broadcast_to(np.array([-20.0, 0.0]), (b, 2)) + 0.1 * rng.standard_normal((b, 2))
    return [rng.standard_normal((b, 2)), rng.standard_normal((b, 2)), logvar]


def second_zero(g):
    return g * np.array([1.0, 0.0])


add(gaussian_nll, gaussian_nll_backward, precisions,
    wrong("second missing", change(gaussian_nll_backward, second_zero, 0), "some coordinates"),
    name="gaussian_nll, logvar (-20, 0)", scales=None, wrt=(1, 2))  # fmt: skip


def poisson_nll(log_rate, counts):
    return np.exp(log_rate) - counts * log_rate, (log_rate, counts)


def poisson_backward(dy, cache):
    return dy * (np.exp(cache[0]) - cache[1])


add(poisson_nll, poisson_backward, lambda rng, b, d, s: [s * rng.standard_normal((b, d)),
                                                         rng.poisson(2.0, (b, d))],
    wrong("of the rate", lambda dy, c: dy * (1 - c[1] / np.exp(c[0])), "quantity"),
    scales=(-3, 0))  # fmt: skip


def l1_penalised(w):
    return (w**2).sum() + 1e-4 * abs(w).sum(), w


def l1_backward(dy, w):
    return dy * (2 * w + 1e-4 * np.sign(w))


def with_tiny_weight(rng, b, d, s):
    w = s * rng.standard_normal((b, d))
    w.flat[0] = 1e-5
    return [w]


add(l1_penalised, l1_backward, with_tiny_weight, sign(l1_backward),
    wrong("penalty missing", lambda dy, w: dy * 2 * w, "missing term"), scales=(-1, 1))  # fmt: skip


def cosine_similarity(a, b):
    na, nb = np.sqrt((a * a).sum(axis=1)), np.sqrt((b * b).sum(axis=1))
    return (a * b).sum(axis=1) / (na * nb), (a, b, na, nb)


def cosine_backward(dy, cache):
    a, b, na, nb = (c if c.ndim == 2 else c[:, None] for c in cache)
    y, dy = (a * b).sum(axis=1, keepdims=True) / (na * nb), dy[:, None]
    return dy * (b / (na * nb) - y * a / na**2), dy * (a / (na * nb) - y * b / nb**2)


add(cosine_similarity, cosine_backward, normal("bk", "bk"), swapped(cosine_backward),
    wrong("norm held fixed", lambda dy, c: tuple(
        dy[:, None] * v / (c[2] * c[3])[:, None] for v in (c[1], c[0])), "missing term"),
    scales=(-6, 6))  # fmt: skip


def triplet(anchor, near, far):
    margin = 1 + ((anchor - near) ** 2).sum(axis=1) - ((anchor - far) ** 2).sum(axis=1)
    return np.maximum(margin, 0), (anchor, near, far, margin > 0)


def triplet_backward(dy, cache):
    a, n, f, on = cache
    dy = 2 * (dy * on)[:, None]
    return dy * (f - n), dy * (n - a), dy * (a - f)


add(triplet, triplet_backward, normal("bd", "bd", "bd"), factor(triplet_backward, 0.5, 1),
    sign(triplet_backward, 2), scales=(-2, 2))  # fmt: skip


def noised(x, noise):
    return x**2 + noise * x, (x, noise)


add(noised, lambda dy, c: dy * (2 * c[0] + c[1]), normal("bd", "bd"),
    wrong("no noise", lambda dy, c: dy * 2 * c[0], "missing term"), scales=(-3, 3))  # fmt: skip


# ------------------------------------------------------------------------------- normalisations


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, y


def softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(axis=1, keepdims=True))


add(softmax, softmax_backward, normal("bk"), factor(softmax_backward, 2),
    wrong("diagonal", lambda dy, y: y * (1 - y) * dy, "diagonal only"),
    wrong("no sum", lambda dy, y: y * dy, "missing term"),
    wrong("wrong axis", lambda dy, y: y * (dy - (dy * y).sum(axis=0, keepdims=True)),
          "diagonal only", "missing term"),
    scales=(-3, 1))  # fmt: skip


def log_softmax(x):
    z = x - x.max(axis=1, keepdims=True)
    y = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return y, np.exp(y)


def log_softmax_backward(dy, p):
    return dy - p * dy.sum(axis=1, keepdims=True)


add(log_softmax, log_softmax_backward, normal("bk"), sign(log_softmax_backward),
    wrong("dy for its sum", lambda dy, p: dy - p * dy, "diagonal only"),
    scales=(-3, 1))  # fmt: skip


def logsumexp(x):
    y = special.logsumexp(x, axis=1)
    return y, (x, y)


def logsumexp_backward(dy, cache):
    x, y = cache
    return dy[:, None] * np.exp(x - y[:, None])


add(logsumexp, logsumexp_backward, normal("bd"), sign(logsumexp_backward),
    wrong("no y", lambda dy, c: dy[:, None] * np.exp(c[0]), "missing factor", "factor", "quantity"),
    scales=(-3, 1))  # fmt: skip


def layernorm(x, gain, bias):
    d = x - x.mean(axis=1, keepdims=True)
    rstd = 1 / np.sqrt((d * d).mean(axis=1, keepdims=True) + 1e-5)
    return d * rstd * gain + bias, (d * rstd, rstd, gain)


def layernorm_backward(dy, cache):
    n, rstd, gain = cache
    dn = dy * gain
    dx = rstd * (dn - dn.mean(axis=1, keepdims=True) - n * (dn * n).mean(axis=1, keepdims=True))
    return dx, (dy * n).sum(axis=0), dy.sum(axis=0)


def layernorm_half(dy, cache):
    n, rstd, gain = cache
    dn = dy * gain
    dx = rstd * (dn - dn.mean(axis=1, keepdims=True))
    return dx, (dy * n).sum(axis=0), dy.sum(axis=0)


add(layernorm, layernorm_backward, normal("bk", "k", "k"), factor(layernorm_backward, 2, 1),
    wrong("variance held fixed", layernorm_half, "missing term", "factor"),
    wrong("bias not summed", lambda dy, c: (*layernorm_backward(dy, c)[:2], dy), "not summed",
          "right numbers in another shape"),
    wrong("gain not used", lambda dy, c: layernorm_backward(dy, (*c[:2], np.ones_like(c[2]))),
          "factor"),
    scales=(-1, 2))  # fmt: skip


def batchnorm(x, gain, bias):
    y, cache = layernorm(x.T, 1.0, 0.0)
    return y.T * gain + bias, (cache[0].T, cache[1].T, gain)


def batchnorm_backward(dy, cache):
    n, rstd, gain = cache
    dx, _, _ = layernorm_backward((dy * gain).T, (n.T, rstd.T, 1.0))
    return dx.T, (dy * n).sum(axis=0), dy.sum(axis=0)


def tall(rng, b, d, s):
    return [s * rng.standard_normal((b + 2, d)), rng.standard_normal(d), rng.standard_normal(d)]


add(batchnorm, batchnorm_backward, tall, sign(batchnorm_backward, 1),
    wrong("mean held fixed", lambda dy, c: (dy * c[2] * c[1], *batchnorm_backward(dy, c)[1:]),
          "diagonal only"), scales=(-1, 2))  # fmt: skip


def biased_batchnorm(x, b):
    y, cache = layernorm((x + b).T, 1.0, 0.0)
    return y.T, cache


def biased_batchnorm_backward(dy, cache):
    dx = layernorm_backward(dy.T, cache)[0].T
    return dx, dx.sum(axis=0)


add(biased_batchnorm, biased_batchnorm_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b + 2, d)), rng.standard_normal(d)],
    wrong("bias gets dy", lambda dy, c: (biased_batchnorm_backward(dy, c)[0], dy.sum(axis=0)),
          "passed on"),
    name="bias before batchnorm", scales=None)  # fmt: skip


def rmsnorm(x, gain):
    r = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6)
    return x * r * gain, (x, r, gain)


def rmsnorm_backward(dy, cache):
    x, r, gain = cache
    dn = dy * gain
    return r * dn - x * r**3 * (dn * x).mean(axis=1, keepdims=True), (dy * x * r).sum(axis=0)


add(rmsnorm, rmsnorm_backward, normal("bk", "k"), missing(rmsnorm_backward, 1),
    wrong("sum for mean", lambda dy, c: (
        c[1] * dy * c[2] - c[0] * c[1] ** 3 * (dy * c[2] * c[0]).sum(axis=1, keepdims=True),
        rmsnorm_backward(dy, c)[1]), "missing term"), scales=(-1, 3))  # fmt: skip


def unit_length(x):
    n = np.sqrt((x * x).sum(axis=1, keepdims=True))
    return x / n, (x / n, n)


def unit_length_backward(dy, cache):
    y, n = cache
    return (dy - y * (dy * y).sum(axis=1, keepdims=True)) / n


add(unit_length, unit_length_backward, normal("bk"), sign(unit_length_backward),
    wrong("norm held fixed", lambda dy, c: dy / c[1], "missing term"),
    wrong("norm twice", lambda dy, c: unit_length_backward(dy, c) / c[1], "factor"),
    scales=(-8, 8))  # fmt: skip


# ------------------------------------------------------------------------------- products, sums


def linear(x, w, b):
    return x @ w + b, (x, w)


def linear_backward(dy, cache):
    x, w = cache
    return dy @ w.T, x.T @ dy, dy.sum(axis=0)


add(linear, linear_backward, normal("bd", "dk", "k"), transposed(linear_backward, 1),
    wrong("bias averaged", change(linear_backward, lambda g: g / 4, 2), "factor"),
    wrong("bias not summed", lambda dy, c: (*linear_backward(dy, c)[:2], dy[0]), "wrong axis",
          "not summed"),
    scales=(-6, 6))  # fmt: skip


def square_matmul(a, b):
    return a @ b, (a, b)


def square_matmul_backward(dy, cache):
    a, b = cache
    return dy @ b.T, a.T @ dy


add(square_matmul, square_matmul_backward, normal("33", "33"), swapped(square_matmul_backward),
    transposed(square_matmul_backward, 1),
    wrong("no transpose", lambda dy, c: (dy @ c[1], c[0].T @ dy), "jacobian not transposed"),
    scales=(-6, 6))  # fmt: skip


def scale_rows(x, s):
    return x * s[:, None], (x, s)


def scale_rows_backward(dy, cache):
    x, s = cache
    return dy * s[:, None], (dy * x).sum(axis=1)


add(scale_rows, scale_rows_backward, normal("bd", "b"), factor(scale_rows_backward, -3, 1),
    wrong("dy for dy x", lambda dy, c: (scale_rows_backward(dy, c)[0], dy.sum(axis=1)),
          "passed on"),
    scales=(-6, 6))  # fmt: skip


def add_column(x, c):
    return x + c, x.shape


def add_column_backward(dy, shape):
    return dy, dy.sum(axis=1, keepdims=True)


add(add_column, add_column_backward, normal("bd", "b1"),
    wrong("mean", lambda dy, _: (dy, dy.mean(axis=1, keepdims=True)), "factor"),
    wrong("not summed", lambda dy, _: (dy, dy), "not summed", "right numbers in another shape"),
    wrong("first only", lambda dy, _: (dy, dy[:, :1]), "wrong axis"),
    scales=(-12, 12))  # fmt: skip


def outer(a, b):
    return np.outer(a, b), (a, b)


def outer_backward(dy, cache):
    a, b = cache
    return dy @ b, dy.T @ a


add(outer, outer_backward, normal("b", "d"), sign(outer_backward, 0), missing(outer_backward, 1),
    scales=(-6, 6))  # fmt: skip


def bilinear(x, w, y):
    return np.einsum("bi,ij,bj->b", x, w, y), (x, w, y)


def bilinear_backward(dz, cache):
    x, w, y = cache
    dz = dz[:, None]
    return dz * (y @ w.T), (x * dz).T @ y, dz * (x @ w)


add(bilinear, bilinear_backward, normal("bd", "dd", "bd"), transposed(bilinear_backward, 1),
    swapped(bilinear_backward), scales=(-3, 3))  # fmt: skip


def mean_rows(x):
    return x.mean(axis=0), x.shape


add(mean_rows, lambda dy, shape: np.broadcast_to(dy / shape[0], shape), normal("bd"),
    wrong("sum", lambda dy, shape: np.broadcast_to(dy, shape), "factor"),
    wrong("n - 1", lambda dy, shape: np.broadcast_to(dy / (shape[0] + 1), shape), "factor"),
    scales=(-12, 12))  # fmt: skip


def variance(x):
    d = x - x.mean(axis=1, keepdims=True)
    return (d * d).mean(axis=1), d


add(variance, lambda dy, d: 2 * dy[:, None] * d / d.shape[1], normal("bk"),
    wrong("n - 1", lambda dy, d: 2 * dy[:, None] * d / (d.shape[1] - 1), "factor"),
    factor(lambda dy, d: 2 * dy[:, None] * d / d.shape[1], 0.5), scales=(-6, 6))  # fmt: skip


def cumsum(x):
    return np.cumsum(x, axis=1), None


add(cumsum, lambda dy, _: np.cumsum(dy[:, ::-1], axis=1)[:, ::-1], normal("bk"),
    wrong("not reversed", lambda dy, _: np.cumsum(dy, axis=1), "jacobian not transposed"),
    wrong("dy", lambda dy, _: dy, "passed on", "diagonal only", "some coordinates"),
    scales=(-6, 6))  # fmt: skip


def product(x):
    y = x.prod(axis=1)
    return y, (x, y)


add(product, lambda dy, c: dy[:, None] * c[1][:, None] / c[0], normal("bd"),
    wrong("no division", lambda dy, c: np.broadcast_to((dy * c[1])[:, None], c[0].shape),
          "quantity"), scales=(-2, 2))  # fmt: skip


def maximum_of_row(x):
    i = x.argmax(axis=1)
    return x[np.arange(len(x)), i], (x.shape, i)


def maximum_of_row_backward(dy, cache):
    shape, i = cache
    dx = np.zeros(shape)
    dx[np.arange(len(i)), i] = dy
    return dx


add(maximum_of_row, maximum_of_row_backward, normal("bk"),
    wrong("everywhere", lambda dy, c: np.broadcast_to(dy[:, None], c[0]), "some coordinates"),
    scales=(-6, 6))  # fmt: skip


def sort_rows(x):
    i = x.argsort(axis=1)
    return np.take_along_axis(x, i, axis=1), i


def sort_rows_backward(dy, i):
    dx = np.empty_like(dy)
    np.put_along_axis(dx, i, dy, axis=1)
    return dx


add(sort_rows, sort_rows_backward, normal("bk"),
    wrong("gather for scatter", lambda dy, i: np.take_along_axis(dy, i, axis=1),
          "jacobian not transposed"),
    wrong("dy", lambda dy, i: dy, "passed on", "order"), scales=(-6, 6))  # fmt: skip


# ---------------------------------------------------------------- attention, convolution, pooling


def attention(q, k, v):
    p, _ = softmax(q @ k.T / np.sqrt(q.shape[1]))
    return p @ v, (q, k, v, p)


def attention_backward(dy, cache):
    q, k, v, p = cache
    ds = softmax_backward(dy @ v.T, p) / np.sqrt(q.shape[1])
    return ds @ k, ds.T @ q, p.T @ dy


def attention_no_scale(dy, cache):
    dq, dk, dv = attention_backward(dy, cache)
    n = np.sqrt(cache[0].shape[1])
    return dq * n, dk * n, dv


add(attention, attention_backward, normal("bk", "kk", "kk"),
    wrong("no scale", attention_no_scale, "factor"),
    wrong("k not transposed", lambda dy, c: (
        attention_backward(dy, c)[0], attention_backward(dy, c)[0].sum() + 0 * c[1],
        attention_backward(dy, c)[2])),
    sign(attention_backward, 2), scales=(-2, 0))  # fmt: skip


def masked_softmax(scores, mask):
    """Add a float32 mask of 0 and -inf, as in PyTorch's attention."""
    return softmax(scores + mask)


def scores_and_mask(rng, b, d, s):
    mask = np.where(np.tri(d + 1) > 0, 0, -np.inf).astype(np.float32)
    return [s * rng.standard_normal((d + 1, d + 1)), mask]


add(masked_softmax, softmax_backward, scores_and_mask, sign(softmax_backward),
    wrong("no sum", lambda dy, y: y * dy, "missing term"), scales=(-2, 1))  # fmt: skip


def nan_loss(pred, data):
    """A mean over what is there: the data has NaN for what is missing."""
    there = ~np.isnan(data)
    d = np.where(there, pred - np.where(there, data, 0), 0)
    return (d * d).sum() / there.sum(), (d, there.sum())


def with_nan(rng, b, d, s):
    data = s * rng.standard_normal((b, d + 1))
    data[:, 0] = np.nan
    return [s * rng.standard_normal((b, d + 1)), data]


add(nan_loss, lambda dy, c: 2 * dy * c[0] / c[1], with_nan,
    factor(lambda dy, c: 2 * dy * c[0] / c[1], 0.5))  # fmt: skip


def conv1d(x, w):
    """Correlate, "valid": x (b, n), w (k,)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, len(w), axis=1)  # (b, n - k + 1, k)
    return windows @ w, (x, w)


def conv1d_backward(dy, cache):
    x, w = cache
    windows = np.lib.stride_tricks.sliding_window_view(x, len(w), axis=1)
    dx = np.zeros_like(x)
    for i, wi in enumerate(w):
        dx[:, i : i + dy.shape[1]] += dy * wi
    return dx, np.einsum("bnk,bn->k", windows, dy)


def conv1d_flipped(dy, cache):
    return conv1d_backward(dy, (cache[0], cache[1][::-1]))[0], conv1d_backward(dy, cache)[1]


add(conv1d, conv1d_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d + 3)), s * rng.standard_normal(3)],
    wrong("not flipped", conv1d_flipped),
    wrong("w reversed", change(conv1d_backward, lambda g: g[::-1], 1), "order"),
    scales=(-3, 3))  # fmt: skip


def conv2d(x, w):
    """Correlate, "valid": x (b, h, w), w (2, 2)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape, axis=(1, 2))
    return np.einsum("bhwij,ij->bhw", windows, w), (x, w)


def conv2d_backward(dy, cache):
    x, w = cache
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape, axis=(1, 2))
    dx, (_, h, n) = np.zeros_like(x), dy.shape
    for i, j in np.ndindex(w.shape):
        dx[:, i : i + h, j : j + n] += dy * w[i, j]
    return dx, np.einsum("bhwij,bhw->ij", windows, dy)


add(conv2d, conv2d_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((2, d + 1, 4)), s * rng.standard_normal((2, 2))],
    transposed(conv2d_backward, 1),
    wrong("mean", change(conv2d_backward, lambda g: g / 2, 1), "factor"),
    scales=(-3, 3))  # fmt: skip


def maxpool(x):
    """Over pairs along the last axis."""
    pairs = x.reshape(len(x), -1, 2)
    first = pairs[..., 0] >= pairs[..., 1]
    return pairs.max(axis=2), first


def maxpool_backward(dy, first):
    return np.stack([dy * first, dy * ~first], axis=2).reshape(len(dy), -1)


def halves(rng, b, d, s):
    return [s * rng.standard_normal((b, 2 * d))]


add(maxpool, maxpool_backward, halves,
    wrong("both", lambda dy, f: np.repeat(dy, 2, axis=1), "some coordinates"),
    wrong("other", lambda dy, f: maxpool_backward(dy, ~f), "order"), scales=(-6, 6))  # fmt: skip
add(maxpool, maxpool_backward, lambda rng, b, d, s: [rng.integers(0, 3, (b, 2 * d)).astype(float)],
    name="maxpool with ties", scales=(0, 1))  # fmt: skip


def avgpool(x):
    return x.reshape(len(x), -1, 2).mean(axis=2), None


add(avgpool, lambda dy, _: np.repeat(dy, 2, axis=1) / 2, halves,
    wrong("sum", lambda dy, _: np.repeat(dy, 2, axis=1), "factor"),
    wrong("tiled", lambda dy, _: np.tile(dy, 2) / 2, "some coordinates"),
    scales=(-6, 6))  # fmt: skip


def embedding(table, index):
    return table[index], (table.shape, index)


def embedding_backward(dy, cache):
    shape, index = cache
    d = np.zeros(shape)
    np.add.at(d, index, dy)
    return d


def embedding_lost(dy, cache):
    shape, index = cache
    d = np.zeros(shape)
    d[index] += dy  # an index that comes twice counts once
    return d


add(embedding, embedding_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b + 1, d)), rng.integers(0, b + 1, (3, b))],
    wrong("twice counts once", embedding_lost, "some coordinates", "wrong axis"),
    scales=(-6, 6))  # fmt: skip


def dropout(x, mask):
    return x * mask / 0.8, mask


add(dropout, lambda dy, mask: dy * mask / 0.8,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d)), rng.random((b, d)) < 0.8],
    wrong("not rescaled", lambda dy, mask: dy * mask, "factor", "passed on"),
    wrong("no mask", lambda dy, mask: dy / 0.8, "some coordinates", "factor"),
    scales=(-6, 6))  # fmt: skip
add(dropout, lambda dy, mask: dy * mask / 0.8,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d)),
                          (rng.random((b, d)) < 0.8).astype(np.float32)],
    name="dropout with a float32 mask")  # fmt: skip


# ------------------------------------------------------------------------------- recurrences


def rnn(x, w):
    """Ten steps of h = tanh(h w + x)."""
    hs = [np.zeros_like(x)]
    for _ in range(10):
        hs.append(np.tanh(hs[-1] @ w + x))
    return hs[-1], (w, hs)


def rnn_backward(dh, cache, steps=10):
    w, hs = cache
    dx, dw = np.zeros_like(dh), np.zeros_like(w)
    for i in range(10, 10 - steps, -1):
        da = dh * (1 - hs[i] ** 2)
        dx, dw, dh = dx + da, dw + hs[i - 1].T @ da, da @ w.T
    return dx, dw


add(rnn, rnn_backward, normal("bd", "dd"),
    wrong("last step only", lambda dy, c: rnn_backward(dy, c, 1)),
    wrong("truncated", lambda dy, c: rnn_backward(dy, c, 5), "some coordinates"),
    wrong("no transpose", lambda dy, c: rnn_backward(dy, (c[0].T, c[1]))),
    scales=(-2, 0))  # fmt: skip


def gru(x, h, w, u):
    """A gate alone: z = sigmoid(x w + h u), y = z h + (1 - z) tanh(x w)."""
    z, c = special.expit(x @ w + h @ u), np.tanh(x @ w)
    return z * h + (1 - z) * c, (x, h, w, u, z, c)


def gru_backward(dy, cache):
    x, h, w, u, z, c = cache
    dz = dy * (h - c) * z * (1 - z)
    da = dz + dy * (1 - z) * (1 - c * c)
    return da @ w.T, dy * z + dz @ u.T, x.T @ da, h.T @ dz


add(gru, gru_backward, normal("bd", "bd", "dd", "dd"),
    wrong("h through the gate missing", lambda dy, c: (
        gru_backward(dy, c)[0], dy * c[4], *gru_backward(dy, c)[2:]), "diagonal only"),
    sign(gru_backward, 3), scales=(-2, 0))  # fmt: skip


def scan(x, decay):
    """A linear recurrence along the last axis: h = decay h + x."""
    hs = [np.zeros(len(x))]
    for column in x.T:
        hs.append(decay * hs[-1] + column)
    return np.stack(hs[1:], axis=1), (decay, hs)


def scan_backward(dy, cache):
    decay, hs = cache
    dh, dx, ddecay = np.zeros(len(dy)), np.zeros_like(dy), 0.0
    for i in range(dy.shape[1] - 1, -1, -1):
        dh = dh + dy[:, i]
        dx[:, i], ddecay = dh, ddecay + (dh * hs[i]).sum()
        dh = decay * dh
    return dx, np.asarray(ddecay)


add(scan, scan_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d + 4)), np.array(rng.uniform(0.3, 0.9))],
    wrong("not carried", lambda dy, c: (dy, scan_backward(dy, c)[1]), "passed on",
          "diagonal only", "some coordinates"),
    factor(scan_backward, 2, 1), scales=(-6, 6))  # fmt: skip


# ------------------------------------------------------------------------------- linear algebra


def matrices(rng, b, d, s):
    return [s * (rng.standard_normal((d, d)) + 3 * np.eye(d)), rng.standard_normal(d)]


def solve(a, b):
    x = np.linalg.solve(a, b)
    return x, (a, x)


def solve_backward(dx, cache):
    a, x = cache
    db = np.linalg.solve(a.T, dx)
    return -np.outer(db, x), db


add(solve, solve_backward, matrices, sign(solve_backward, 0),
    wrong("no transpose", lambda dx, c: (solve_backward(dx, c)[0], np.linalg.solve(c[0], dx)),
          "jacobian not transposed"),
    scales=(-6, 6))  # fmt: skip


def logdet(a):
    return np.linalg.slogdet(a)[1], a


add(logdet, lambda dy, a: dy * np.linalg.inv(a).T, lambda *s: matrices(*s)[:1],
    wrong("not transposed", lambda dy, a: dy * np.linalg.inv(a), "transposed"),
    scales=(-6, 6))  # fmt: skip


def inverse(a):
    y = np.linalg.inv(a)
    return y, y


add(inverse, lambda dy, y: -y.T @ dy @ y.T, lambda *s: matrices(*s)[:1],
    wrong("sign", lambda dy, y: y.T @ dy @ y.T, "sign", "factor"),
    wrong("no transposes", lambda dy, y: -y @ dy @ y, "jacobian not transposed"),
    scales=(-6, 6))  # fmt: skip


def spd(rng, b, d, s):
    a = rng.standard_normal((d + 1, d + 1))
    return [s * (a @ a.T + np.eye(d + 1))]


def cholesky(a):
    """Of the symmetric part, so that every entry of a has a slope of its own."""
    lower = np.linalg.cholesky((a + a.T) / 2)
    return lower, lower


def cholesky_backward(dy, lower):
    p = np.tril(lower.T @ np.tril(dy))
    p[np.diag_indices_from(p)] /= 2
    inv = np.linalg.inv(lower)
    s = inv.T @ p @ inv
    return (s + s.T) / 2


def cholesky_no_half(dy, lower):
    inv = np.linalg.inv(lower)
    s = inv.T @ np.tril(lower.T @ np.tril(dy)) @ inv
    return (s + s.T) / 2


add(cholesky, cholesky_backward, spd, wrong("diagonal not halved", cholesky_no_half),
    factor(cholesky_backward, 2), scales=(-6, 6))  # fmt: skip


def quadratic_form(x, a):
    return np.einsum("bi,ij,bj->b", x, a, x), (x, a)


def quadratic_form_backward(dy, cache):
    x, a = cache
    return dy[:, None] * (x @ (a + a.T)), np.einsum("b,bi,bj->ij", dy, x, x)


add(quadratic_form, quadratic_form_backward, normal("bd", "dd"),
    wrong("as if symmetric", lambda dy, c: (
        2 * dy[:, None] * (c[0] @ c[1]), quadratic_form_backward(dy, c)[1])),
    scales=(-3, 3))  # fmt: skip


def largest_eigenvalue(a):
    w, v = np.linalg.eigh((a + a.T) / 2)
    return w[-1], v[:, -1]


add(largest_eigenvalue, lambda dy, v: dy * np.outer(v, v), spd,
    wrong("squared", lambda dy, v: dy * np.diag(v * v), "some coordinates"),
    scales=(-6, 6))  # fmt: skip


def hilbert_solve(b):
    n = len(b)
    a = 1 / (np.arange(n)[:, None] + np.arange(n) + 1)
    return np.linalg.solve(a, b), a


add(hilbert_solve, lambda dx, a: np.linalg.solve(a.T, dx),
    lambda rng, b, d, s: [rng.standard_normal(8)],
    wrong("sign", lambda dx, a: -np.linalg.solve(a.T, dx), "sign", "factor"),
    scales=None)  # fmt: skip


# --------------------------------------------------------------------------- scales, kinks, forms


def kinks_of_a_sum(a, b):
    return np.maximum(a + b, 0), a + b


def kinks_of_a_sum_backward(dy, s):
    return dy * (s > 0), dy * (s > 0)


add(kinks_of_a_sum, kinks_of_a_sum_backward,
    lambda rng, b, d, s: [np.full((b, d), 1.0), np.full((b, d), -1 + 1.5e-3 * s)],
    sign(kinks_of_a_sum_backward, 1), scales=(-2, 1))  # fmt: skip


def far_scales(a, b):
    return np.cos(a / 1e12) + np.sin(b), (a, b)


def far_scales_backward(dy, cache):
    return -dy * np.sin(cache[0] / 1e12) / 1e12, dy * np.cos(cache[1])


add(far_scales, far_scales_backward,
    lambda rng, b, d, s: [1e12 * rng.standard_normal((b, d)), rng.standard_normal((b, d))],
    missing(far_scales_backward, 1), sign(far_scales_backward, 0), scales=None)  # fmt: skip


def large_plus_small(a, b):
    return a + b**2, b


add(large_plus_small, lambda dy, b: (dy, dy * 2 * b),
    lambda rng, b, d, s: [1e6 * s * rng.standard_normal((b, d)), rng.standard_normal((b, d))],
    wrong("second zero", lambda dy, b: (dy, 0 * b), "zero"), scales=(0, 6))  # fmt: skip


def two_outputs(x):
    """An output of 1e12 beside a cosine."""
    return np.stack([1e12 * (1 + x[:, 0] ** 2), np.cos(x[:, 1])], axis=1), x


def two_outputs_backward(dy, x):
    return np.stack([2e12 * dy[:, 0] * x[:, 0], -dy[:, 1] * np.sin(x[:, 1])], axis=1)


add(two_outputs, two_outputs_backward, lambda rng, b, d, s: [rng.standard_normal((b, 2))],
    wrong("cosine missing", change(two_outputs_backward, second_zero), "some coordinates",
          "wrong axis"),
    scales=None)  # fmt: skip


def columns_of_scales(x, w):
    return x @ w, (x, w)


add(columns_of_scales, lambda dy, c: (dy @ c[1].T, c[0].T @ dy),
    lambda rng, b, d, s: [rng.standard_normal((b, d)) * 10.0 ** rng.integers(-6, 7, d),
                          rng.standard_normal((d, 3))],
    wrong("sign", lambda dy, c: (dy @ c[1].T, -c[0].T @ dy), "sign", "factor"),
    scales=None)  # fmt: skip


def scalar(x):
    return x**2 + 3 * x, x


def scalar_backward(dy, x):
    return dy * (2 * x + 3)


add(scalar, scalar_backward, normal(""), sign(scalar_backward), name="0-d", scales=(-6, 6))
add(scalar, scalar_backward, lambda rng, b, d, s: [np.zeros((0, 3))], name="empty", scales=None)
add(scalar, scalar_backward, lambda rng, b, d, s: [s * rng.standard_normal((2 * b, d))[::2, ::-1]],
    factor(scalar_backward, 0.5), name="not contiguous")  # fmt: skip


def read_only(rng, b, d, s):
    x = s * rng.standard_normal((b, d))
    x.flags.writeable = False
    return [x]


add(scalar, scalar_backward, read_only, sign(scalar_backward), name="read-only")


def times(a, b):
    return a * b, (a, b)


def times_backward(dy, cache):
    return dy * cache[1], dy * cache[0]


def aliased(rng, b, d, s):
    x = s * rng.standard_normal((b, d))
    return [x, x]


add(times, times_backward, aliased, sign(times_backward, 1), name="aliased arguments")


def by_standard_deviation(table):
    """The second column is a standard deviation: the first's density."""
    if (table[:, 1] <= 0).any():
        raise ValueError("standard deviations must be positive")
    e = table[:, 0] / table[:, 1]
    return e * e / 2 + np.log(table[:, 1]), (e, table[:, 1])


def by_standard_deviation_backward(dy, cache):
    e, sigma = cache
    return np.stack([dy * e / sigma, dy * (1 - e * e) / sigma], axis=1)


add(by_standard_deviation, by_standard_deviation_backward,
    lambda rng, b, d, s: [np.stack([s * rng.standard_normal(b), s * rng.uniform(0.5, 2, b)], 1)],
    sign(by_standard_deviation_backward),
    wrong("log missing", lambda dy, c: np.stack([dy * c[0] / c[1], -dy * c[0] ** 2 / c[1]], 1),
          "some coordinates"))  # fmt: skip


def interpolate(values, knots):
    """Piecewise linear at fixed points; knots must be sorted."""
    if (np.diff(knots) <= 0).any():
        raise ValueError("knots must increase")
    at = np.array([0.15, 0.35, 0.75])
    i = np.clip(np.searchsorted(knots, at) - 1, 0, len(knots) - 2)
    t = (at - knots[i]) / (knots[i + 1] - knots[i])
    return values[i] * (1 - t) + values[i + 1] * t, (values, knots, i, t)


def interpolate_backward(dy, cache):
    values, knots, i, t = cache
    dv, dk = np.zeros_like(values), np.zeros_like(knots)
    np.add.at(dv, i, dy * (1 - t))
    np.add.at(dv, i + 1, dy * t)
    slope = (values[i + 1] - values[i]) / (knots[i + 1] - knots[i])
    np.add.at(dk, i, -dy * slope * (1 - t))
    np.add.at(dk, i + 1, -dy * slope * t)
    return dv, dk


add(interpolate, interpolate_backward,
    lambda rng, b, d, s: [s * rng.standard_normal(6), np.linspace(0, 1, 6)
                          + rng.uniform(-0.05, 0.05, 6)],
    wrong("weights swapped", lambda dy, c: (
        interpolate_backward(dy, (*c[:3], 1 - c[3]))[0], interpolate_backward(dy, c)[1]),
    ))  # fmt: skip


# ------------------------------------------------------------------------------- layers


class Parameter:
    def __init__(self, value):
        self.value, self.grad = value, np.zeros_like(value)


class Scale:
    def __init__(self):
        self.s = Parameter(np.linspace(0.5, 2, 5))

    def forward(self, x):
        return np.tanh(x * self.s.value), x

    def backward(self, dy, x):
        da = dy * (1 - np.tanh(x * self.s.value) ** 2)
        self.s.grad += (da * x).sum(axis=0)
        return da * self.s.value

    def named_parameters(self):
        yield "s", self.s


class Overwrites(Scale):
    def backward(self, dy, x):
        self.s.grad[...] = 0
        return super().backward(dy, x)


class Hidden(Scale):
    def forward(self, x):
        self.x = x
        return super().forward(x)

    def backward(self, dy, x):
        return super().backward(dy, self.x)


class Noisy(Scale):
    def backward(self, dy, x):
        return super().backward(dy, x + np.random.default_rng().standard_normal(x.shape))


class InPlace(Scale):
    def backward(self, dy, x):
        dx = super().backward(dy, x)
        x *= 2
        return dx


class UsesUp(Scale):
    def forward(self, x):
        return super().forward(x)[0], [x]

    def backward(self, dy, cache):
        return super().backward(dy, cache.pop() if cache else 0 * dy)


class Averages(Scale):
    def backward(self, dy, x):
        old = self.s.grad.copy()
        dx = super().backward(dy, x)
        self.s.grad[...] = old + (self.s.grad - old) / len(x)
        return dx


class Doubles(Scale):
    def backward(self, dy, x):
        return 2 * super().backward(dy, x)


def rows_of_5(rng, b, d, s):
    return [s * rng.standard_normal((b + 1, 5))]


add(Scale, None, rows_of_5, wrong("overwrites", Overwrites, "overwritten"),
    wrong("hidden state", Hidden, "hidden state"), wrong("noise", Noisy, "noise"),
    wrong("in place", InPlace, "in place"), wrong("cache", UsesUp, "cache"),
    wrong("averaged", Averages, "factor"), wrong("doubled", Doubles, "factor"),
    scales=(-3, 0))  # fmt: skip
