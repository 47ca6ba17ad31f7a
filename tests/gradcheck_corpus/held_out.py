"""Pairs that the checker was not tuned on: they were written after it."""

from __future__ import annotations

import numpy as np
from corpus import Corpus, change, factor, missing, normal, positive, sign, swapped, wrong
from scipy import special

HELD_OUT = Corpus()
add = HELD_OUT.add


def swish(x, beta):
    s = special.expit(beta * x)
    return x * s, (x, beta, s)


def swish_backward(dy, cache):
    x, beta, s = cache
    slope = s * (1 - s)
    return dy * (s + beta * x * slope), (dy * x * x * slope).sum()


add(swish, swish_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d)), np.array(rng.uniform(0.5, 2))],
    wrong("beta of one row", lambda dy, c: (swish_backward(dy, c)[0],
                                            (dy * c[0] ** 2 * c[2] * (1 - c[2]))[0].sum())),
    sign(swish_backward, 0), scales=(-3, 0))  # fmt: skip


def mish(x):
    t = np.tanh(np.logaddexp(0, x))
    return x * t, (x, t)


def mish_backward(dy, cache):
    x, t = cache
    return dy * (t + x * (1 - t * t) * special.expit(x))


add(mish, mish_backward, normal("bd"),
    wrong("no sigmoid", lambda dy, c: dy * (c[1] + c[0] * (1 - c[1] ** 2))),
    factor(mish_backward, 1.001), scales=(-3, 0))  # fmt: skip


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1), x


add(hard_sigmoid, lambda dy, x: dy * (abs(x) < 3) / 6, normal("bd"),
    wrong("no limits", lambda dy, x: dy / 6, "some coordinates", "factor"),
    scales=(-2, 2))  # fmt: skip


def quantised(x):
    return np.floor(x * 8) / 8, None


add(quantised, lambda dy, _: 0 * dy, normal("bd"),
    wrong("straight through", lambda dy, _: dy, "passed on"), scales=(-1, 2))  # fmt: skip


def focal(logits, bits):
    p = special.expit(logits)
    q = np.where(bits > 0, p, 1 - p)
    return -((1 - q) ** 2) * np.log(q), (q, bits)


def focal_backward(dy, cache):
    q, bits = cache
    dq = 2 * (1 - q) * np.log(q) - (1 - q) ** 2 / q
    return dy * dq * q * (1 - q) * np.where(bits > 0, 1, -1)


add(focal, focal_backward, lambda rng, b, d, s: [s * rng.standard_normal((b, d)),
                                                 rng.integers(0, 2, (b, d))],
    wrong("weight held fixed", lambda dy, c: -dy * (1 - c[0]) ** 3 * np.where(c[1] > 0, 1, -1)),
    sign(focal_backward), scales=(-2, 0))  # fmt: skip


def smooth_l1(pred, target):
    d = pred - target
    return np.where(abs(d) < 1, d * d / 2, abs(d) - 0.5).sum(), d


def smooth_l1_backward(dy, d):
    return dy * np.clip(d, -1, 1), -dy * np.clip(d, -1, 1)


add(smooth_l1, smooth_l1_backward, normal("bd", "bd"),
    wrong("mean", lambda dy, d: tuple(g / d.size for g in smooth_l1_backward(dy, d)), "factor"),
    wrong("sign of d", lambda dy, d: (dy * np.sign(d), -dy * np.sign(d)), "some coordinates"),
    scales=(-3, 3))  # fmt: skip


def student_nll(x, scale):
    z = (x / scale) ** 2
    return 2.5 * np.log1p(z / 4) + np.log(scale), (x, scale, z)


def student_backward(dy, cache):
    x, scale, z = cache
    dz = dy * 2.5 / (4 + z)
    return dz * 2 * x / scale**2, (dy / scale - dz * 2 * z / scale).sum(axis=0)


add(student_nll, student_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d)), s * rng.uniform(0.5, 2, d)],
    wrong("no log", lambda dy, c: (student_backward(dy, c)[0],
                                   student_backward(dy, c)[1] - (dy / c[1]).sum(axis=0))),
    missing(student_backward, 0), scales=(-6, 6))  # fmt: skip


def beta_log_density(x, a):
    return (a - 1) * np.log(x) + special.gammaln(a + 1) - special.gammaln(a), (x, a)


add(beta_log_density,
    lambda dy, c: (dy * (c[1] - 1) / c[0],
                   dy * (np.log(c[0]) + special.digamma(c[1] + 1) - special.digamma(c[1]))),
    lambda rng, b, d, s: [rng.uniform(0.1, 0.9, (b, d)), s * rng.uniform(0.5, 2, (b, d))],
    wrong("no normaliser", lambda dy, c: (dy * (c[1] - 1) / c[0], dy * np.log(c[0]))),
    scales=(-1, 2))  # fmt: skip


def groupnorm(x):
    g = x.reshape(len(x), 2, -1)
    d = g - g.mean(axis=2, keepdims=True)
    r = 1 / np.sqrt((d * d).mean(axis=2, keepdims=True) + 1e-5)
    return (d * r).reshape(x.shape), (d * r, r)


def groupnorm_backward(dy, cache):
    n, r = cache
    dy = dy.reshape(n.shape)
    dx = dy - dy.mean(axis=2, keepdims=True) - n * (dy * n).mean(axis=2, keepdims=True)
    return (r * dx).reshape(len(dx), -1)


def groupnorm_fixed(dy, cache):
    n, r = cache
    dy = dy.reshape(n.shape)
    return (r * (dy - dy.mean(axis=2, keepdims=True))).reshape(len(dy), -1)


add(groupnorm, groupnorm_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, 2 * d + 4))],
    wrong("variance held fixed", groupnorm_fixed, "missing term"),
    factor(groupnorm_backward, 0.5), scales=(-1, 3))  # fmt: skip


def cumulative_max(x):
    y = np.maximum.accumulate(x, axis=1)
    return y, x == y


def cumulative_max_backward(dy, first):
    dx, carried = np.zeros_like(dy), np.zeros(len(dy))
    for j in range(dy.shape[1] - 1, -1, -1):
        carried = carried + dy[:, j]
        dx[:, j] = np.where(first[:, j], carried, 0)
        carried = np.where(first[:, j], 0, carried)
    return dx


add(cumulative_max, cumulative_max_backward, normal("bk"),
    wrong("own only", lambda dy, f: dy * f, "diagonal only", "some coordinates"),
    scales=(-6, 6))  # fmt: skip


def pairwise_distances(a, b):
    d = a[:, None] - b[None]
    y = np.sqrt((d * d).sum(axis=2))
    return y, (d, y)


def pairwise_backward(dy, cache):
    d, y = cache
    g = (dy / y)[..., None] * d
    return g.sum(axis=1), -g.sum(axis=0)


add(pairwise_distances, pairwise_backward, normal("bd", "kd"), sign(pairwise_backward, 1),
    wrong("no root", lambda dy, c: tuple(
        2 * g for g in pairwise_backward(dy * c[1], (c[0], c[1])))), scales=(-6, 6))  # fmt: skip


def transposed_conv(x, w):
    y = np.zeros((len(x), x.shape[1] + len(w) - 1))
    for i, wi in enumerate(w):
        y[:, i : i + x.shape[1]] += wi * x
    return y, (x, w)


def transposed_conv_backward(dy, cache):
    x, w = cache
    n = x.shape[1]
    dx = sum(wi * dy[:, i : i + n] for i, wi in enumerate(w))
    return dx, np.array([(dy[:, i : i + n] * x).sum() for i in range(len(w))])


add(transposed_conv, transposed_conv_backward, normal("bk", "3"),
    wrong("w reversed", change(transposed_conv_backward, lambda g: g[::-1], 1), "order"),
    factor(transposed_conv_backward, 2, 0), scales=(-3, 3))  # fmt: skip


def lstm_cell(a, c):
    """Gates from a (b, 4 d): input, forget, output, candidate."""
    i, f, o, g = np.split(a, 4, axis=1)
    i, f, o, g = special.expit(i), special.expit(f), special.expit(o), np.tanh(g)
    new = f * c + i * g
    return o * np.tanh(new), (i, f, o, g, c, np.tanh(new))


def lstm_backward(dh, cache):
    i, f, o, g, c, t = cache
    dn = dh * o * (1 - t * t)
    da = [dn * g * i * (1 - i), dn * c * f * (1 - f), dh * t * o * (1 - o), dn * i * (1 - g * g)]
    return np.concatenate(da, axis=1), dn * f


def lstm_gates_swapped(dh, cache):
    da, dc = lstm_backward(dh, cache)
    i, f, o, g = np.split(da, 4, axis=1)
    return np.concatenate([f, i, o, g], axis=1), dc


add(lstm_cell, lstm_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, 4 * d)), rng.standard_normal((b, d))],
    wrong("gates swapped", lstm_gates_swapped),
    wrong("no forget gate", lambda dh, c: (lstm_backward(dh, c)[0],
                                           dh * c[2] * (1 - c[5] ** 2)), "missing factor"),
    scales=(-2, 0))  # fmt: skip


def fourier_features(x):
    k = 2.0 ** np.arange(12)
    return np.sin(np.pi * k * x[:, None]).sum(axis=1), x


def fourier_backward(dy, x):
    k = 2.0 ** np.arange(12)
    return dy * (np.pi * k * np.cos(np.pi * k * x[:, None])).sum(axis=1)


add(fourier_features, fourier_backward, normal("k"),
    factor(fourier_backward, 1 / np.pi), sign(fourier_backward), scales=(-1, 0))  # fmt: skip


def spline(x):
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t), t


add(spline, lambda dy, t: dy * 6 * t * (1 - t), normal("bd"),
    wrong("3", lambda dy, t: dy * 3 * t * (1 - t), "factor"), scales=(-2, 1))  # fmt: skip


def log_cosh(x):
    return np.logaddexp(x, -x) - np.log(2), x


add(log_cosh, lambda dy, x: dy * np.tanh(x), normal("bd"),
    wrong("sign of x", lambda dy, x: dy * np.sign(x), "missing factor"),
    scales=(-2, 1))  # fmt: skip


def matrix_power(a):
    return a @ a @ a, a


def matrix_power_backward(dy, a):
    t = a.T
    return dy @ t @ t + t @ dy @ t + t @ t @ dy


add(matrix_power, matrix_power_backward, normal("33"),
    wrong("as if numbers", lambda dy, a: 3 * a.T @ a.T @ dy),
    wrong("no transposes", lambda dy, a: dy @ a @ a + a @ dy @ a + a @ a @ dy,
          "jacobian not transposed"), scales=(-3, 3))  # fmt: skip


def ridge(x, y):
    """The coefficients of a ridge regression of y on x."""
    a = x.T @ x + 0.1 * np.eye(x.shape[1])
    w = np.linalg.solve(a, x.T @ y)
    return w, (x, y, a, w)


def ridge_backward(dw, cache):
    x, y, a, w = cache
    v = np.linalg.solve(a, dw)
    return np.outer(y - x @ w, v) - np.outer(x @ v, w), x @ v


add(ridge, ridge_backward, normal("kd", "k"),
    wrong("gram held fixed", lambda dw, c: (
        np.outer(c[1], np.linalg.solve(c[2], dw)), ridge_backward(dw, c)[1])),
    sign(ridge_backward, 1), scales=(-1, 1))  # fmt: skip


def nuclear_norm(a):
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return s.sum(), u @ vt


add(nuclear_norm, lambda dy, uv: dy * uv, normal("bk"),
    wrong("transposed", lambda dy, uv: dy * uv.T, "right numbers in another shape", "transposed",
          "shape"), factor(lambda dy, uv: dy * uv, 2), scales=(-6, 6))  # fmt: skip


def sum_on_1e9(a, b):
    return 1e9 + a.sum() + (b * b).sum(), b


add(sum_on_1e9, lambda dy, b: (np.full(b.shape, dy), 2 * dy * b), normal("bd", "bd"),
    missing(lambda dy, b: (np.full(b.shape, dy), 2 * dy * b), 1),
    swapped(lambda dy, b: (np.full(b.shape, dy), 2 * dy * b)), scales=(-1, 2))  # fmt: skip


def geometric_mean(x):
    y = np.exp(np.log(x).mean(axis=1))
    return y, (x, y)


add(geometric_mean, lambda dy, c: (dy * c[1])[:, None] / c[0] / c[0].shape[1], positive("bk"),
    wrong("sum", lambda dy, c: (dy * c[1])[:, None] / c[0], "factor"),
    wrong("no y", lambda dy, c: dy[:, None] / c[0] / c[0].shape[1], "missing factor", "factor"),
    scales=(-6, 6))  # fmt: skip


def gather_last(x, lengths):
    return x[np.arange(len(x)), lengths - 1], (x.shape, lengths)


def gather_last_backward(dy, cache, shift=1):
    shape, lengths = cache
    dx = np.zeros(shape)
    dx[np.arange(shape[0]), lengths - shift] = dy
    return dx


add(gather_last, gather_last_backward,
    lambda rng, b, d, s: [s * rng.standard_normal((b, d + 1)), rng.integers(1, d + 2, b)],
    wrong("off by one", lambda dy, c: gather_last_backward(dy, c, 0 if (c[1] < c[0][1]).all()
                                                           else 2), "order"),
    scales=(-6, 6))  # fmt: skip


def mixed_precision(x):
    """The forward pass squares in float32."""
    return 1.1 * np.float64(np.float32(x) ** 2) + np.sin(x), x


add(mixed_precision, lambda dy, x: dy * (2.2 * x + np.cos(x)), normal("bd"),
    sign(lambda dy, x: dy * (2.2 * x + np.cos(x))),
    wrong("square missing", lambda dy, x: dy * np.cos(x), "missing term"),
    scales=(-1, 1))  # fmt: skip


def deep_relu(x, w):
    """Eight layers of one weight."""
    hs = [x]
    for _ in range(8):
        hs.append(np.maximum(hs[-1] @ w, 0))
    return hs[-1], (w, hs)


def deep_relu_backward(dh, cache):
    w, hs = cache
    dw = np.zeros_like(w)
    for before, after in zip(hs[-2::-1], hs[:0:-1], strict=True):
        da = dh * (after > 0)
        dw, dh = dw + before.T @ da, da @ w.T
    return dh, dw


add(deep_relu, deep_relu_backward, normal("bk", "kk"),
    wrong("no mask at the end", lambda dh, c: deep_relu_backward(
        dh, (c[0], [*c[1][:-1], np.ones_like(c[1][-1])]))),
    factor(deep_relu_backward, 8, 1), scales=(-1, 0))  # fmt: skip
