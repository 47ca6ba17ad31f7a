"""Kernels for NVIDIA GPUs: one launch each, where CuPy needs one for every operation.

Their source is ``kernels.cu`` beside this file, which CuPy compiles when one of them is first used.
The functions below check their arguments, allocate the results and launch. Where a kernel was not
made for the arguments, they return NotImplemented, and the definition runs.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from scratchvae.backend import Array, namespace

THREADS = 128  # of a block: a power of two, as the sums of rows need
MAX_BLOCKS = 65_535  # of a launch; a block then does what is left in further rounds
# By dtype: NumPy takes a microsecond and more to make a dtype's name, in every kernel of a step.
C_NAMES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


def options(dtype: Any) -> tuple[str, ...]:
    """Return the compiler's options for arrays of `dtype`."""
    # Without fused multiply-adds a product is rounded before it is added to, as it is in NumPy.
    return (f"-DREAL={C_NAMES[np.dtype(dtype)]}", f"-DTHREADS={THREADS}", "--fmad=false")


def source() -> str:
    """Return the text of the kernels."""
    return (Path(__file__).parent / "kernels.cu").read_text(encoding="utf-8")


@functools.cache
def _module(cupy: Any, dtype: Any) -> Any:
    return cupy.RawModule(code=source(), options=options(dtype))


@functools.cache
def _function(cupy: Any, name: str, dtype: Any) -> Any:
    return _module(cupy, dtype).get_function(name)


def _launch(name: str, like: Array, blocks: int, *args: Any) -> None:
    """Launch a kernel for the dtype of `like`; int and float become long long and double."""
    if blocks > 0:  # CUDA takes a launch of no blocks for an error
        kernel = _function(namespace(like), name, like.dtype)
        kernel((min(blocks, MAX_BLOCKS),), (THREADS,), args)


def _alike(first: Array, *others: Array) -> bool:
    """Tell whether all have one dtype, float32 or float64."""
    return first.dtype in C_NAMES and all(a.dtype == first.dtype for a in others)


def _stride(a: Array) -> int | None:
    """Return the number of elements from one row of `a` (..., columns) to the next, or None."""
    if a.ndim == 0:
        return None
    if a.flags.c_contiguous:
        return int(a.shape[-1])
    if a.ndim == 2 and (a.shape[1] == 1 or a.strides[1] == a.itemsize):
        stride, rest = divmod(a.strides[0], a.itemsize)
        return None if rest else int(stride)
    return None


def _elementwise(name: str, *arrays: Array) -> Any:
    """Return a new array of the shape that all of `arrays` have."""
    first = arrays[0]
    for a in arrays:
        if a.shape != first.shape or not a.flags.c_contiguous:
            return NotImplemented
    if not _alike(*arrays):
        return NotImplemented
    out = namespace(first).empty(first.shape, dtype=first.dtype)
    _launch(name, out, -(-out.size // THREADS), *arrays, out, out.size)
    return out


def relu_backward(dy: Array, cache: Array) -> Any:
    """Do what `activations.relu_backward` does."""
    return _elementwise("relu_backward", dy, cache)


def tanh_backward(dy: Array, cache: Array) -> Any:
    """Do what `activations.tanh_backward` does."""
    return _elementwise("tanh_backward", dy, cache)


def sigmoid_backward(dy: Array, cache: Array) -> Any:
    """Do what `activations.sigmoid_backward` does."""
    return _elementwise("sigmoid_backward", dy, cache)


def softplus_backward(dy: Array, cache: Array) -> Any:
    """Do what `activations.softplus_backward` does."""
    return _elementwise("softplus_backward", dy, cache)


def silu_backward(dy: Array, cache: tuple[Array, Array]) -> Any:
    """Do what `activations.silu_backward` does."""
    return _elementwise("silu_backward", dy, *cache)


def elu_backward(dy: Array, cache: Array) -> Any:
    """Do what `activations.elu_backward` does."""
    return _elementwise("elu_backward", dy, cache)


def bernoulli_nll(x: Array, logits: Array) -> Any:
    """Do what `likelihoods.bernoulli_nll` does, for x (B, D) and logits (B, D) or (K, B, D)."""
    sizes = _bernoulli_sizes(x, logits)
    if sizes is None:
        return NotImplemented
    nll = namespace(logits).empty(logits.shape[:-1], dtype=logits.dtype)  # (B,) or (K, B)
    _launch("bernoulli_nll", nll, nll.size, x, logits, nll, *sizes)
    return nll, (x, logits)  # softplus of the logits is computed again: cheaper than keeping it


def bernoulli_nll_backward(dnll: Array, cache: tuple[Array, ...]) -> Any:
    """Do what `likelihoods.bernoulli_nll_backward` does, after either forward pass."""
    x, logits = cache[:2]
    as_they_are = dnll.shape == logits.shape[:-1] and _vector(dnll, logits)
    if len(cache) == 2 and not as_they_are:  # from the kernel above: the definition cannot read it
        weights = namespace(logits).empty(logits.shape[:-1], dtype=logits.dtype)  # (B,) or (K, B)
        weights[...] = dnll
        dnll = weights
    sizes = _bernoulli_sizes(x, logits)
    if sizes is None or dnll.shape != logits.shape[:-1] or not _vector(dnll, logits):
        return NotImplemented
    dlogits = namespace(logits).empty(logits.shape, dtype=logits.dtype)  # (B, D) or (K, B, D)
    _launch("bernoulli_nll_backward", dlogits, dnll.size, dnll, x, logits, dlogits, *sizes)
    return dlogits


def _bernoulli_sizes(x: Array, logits: Array) -> tuple[int, ...] | None:
    if x.ndim != 2 or logits.shape[-2:] != x.shape or not _alike(x, logits):
        return None
    strides = _stride(x), _stride(logits)
    if strides[0] is None or strides[1] is None:
        return None
    return math.prod(logits.shape[:-1]), x.shape[1], len(x), strides[0], strides[1]


def _vector(d: Array, like: Array) -> bool:
    """Return whether `d`, a weight for each row, is contiguous and has the dtype of `like`."""
    return bool(d.flags.c_contiguous and d.dtype == like.dtype)


def reparameterize(mu: Array, logvar: Array, eps: Array) -> Any:
    """Do what `gaussian.reparameterize` does, for mu (B, Z) and eps (B, Z) or (K, B, Z)."""
    strides = _stride(mu), _stride(logvar), _stride(eps)
    fit = mu.ndim == 2 and logvar.shape == mu.shape and eps.shape[-2:] == mu.shape
    if not fit or None in strides or not _alike(mu, logvar, eps):
        return NotImplemented
    xp = namespace(mu)
    z, sigma = xp.empty(eps.shape, dtype=mu.dtype), xp.empty(mu.shape, dtype=mu.dtype)
    rows = math.prod(eps.shape[:-1])  # B or K B
    if rows == 0 and mu.size:  # no draws: no block would fill sigma
        return NotImplemented
    arrays = mu, logvar, eps, z, sigma
    _launch("reparameterize", z, rows, *arrays, rows, mu.shape[1], len(mu), *strides)
    return z, (sigma, eps)


def reparameterize_backward(dz: Array, cache: tuple[Array, Array]) -> Any:
    """Do what `gaussian.reparameterize_backward` does, for one draw an example."""
    sigma, eps = cache
    dlogvar = _elementwise("reparameterize_backward", dz, eps, sigma)  # (B, Z)
    return NotImplemented if dlogvar is NotImplemented else (dz, dlogvar)


def kl_standard_normal(mu: Array, logvar: Array) -> Any:
    """Do what `gaussian.kl_standard_normal` does, for mu and logvar (B, Z)."""
    sizes = _kl_sizes(mu, logvar)
    if sizes is None:
        return NotImplemented
    kl = namespace(mu).empty(mu.shape[:1], dtype=mu.dtype)  # (B,)
    _launch("kl_standard_normal", kl, len(mu), mu, logvar, kl, *sizes)
    return kl, (mu, logvar)


def kl_standard_normal_backward(dkl: Array, cache: tuple[Array, Array]) -> Any:
    """Do what `gaussian.kl_standard_normal_backward` does."""
    mu, logvar = cache
    sizes = _kl_sizes(mu, logvar)
    if sizes is None or dkl.shape != mu.shape[:1] or not _vector(dkl, mu):
        return NotImplemented
    dmu, dlogvar = (namespace(mu).empty(mu.shape, dtype=mu.dtype) for _ in range(2))  # (B, Z)
    _launch("kl_standard_normal_backward", dmu, len(mu), dkl, mu, logvar, dmu, dlogvar, *sizes)
    return dmu, dlogvar


def _kl_sizes(mu: Array, logvar: Array) -> tuple[int, ...] | None:
    strides = _stride(mu), _stride(logvar)
    if mu.ndim != 2 or logvar.shape != mu.shape or not _alike(mu, logvar):
        return None
    if strides[0] is None or strides[1] is None:
        return None
    return len(mu), mu.shape[1], strides[0], strides[1]


def adam_update(
    value: Array, g: Array, m: Array, v: Array, beta1: float, beta2: float, step: float, eps: float
) -> Any:
    """Do what `optimizers.adam_update` does, in place."""
    arrays = value, g, m, v
    if not _alike(*arrays) or any(a.shape != value.shape for a in arrays):
        return NotImplemented
    if not all(a.flags.c_contiguous for a in arrays):
        return NotImplemented
    numbers = map(float, (1 - beta1, 1 - beta2, step, eps))  # doubles, as the kernel reads them
    _launch("adam_update", value, -(-value.size // THREADS), *arrays, *numbers, value.size)
    return None


def gather(images: Array, rows: Array | slice, scale: float, dtype: Any) -> Any:
    """Do what `datasets.gather` does, for images (N, D) of uint8 and rows (B,) of int64."""
    stride, dtype = _stride(images), np.dtype(dtype)
    if images.ndim != 2 or images.dtype != np.uint8 or stride is None or dtype not in C_NAMES:
        return NotImplemented
    if isinstance(rows, slice) or rows.ndim != 1 or rows.dtype != np.int64:
        return NotImplemented
    if not rows.flags.c_contiguous:
        return NotImplemented
    x = namespace(images).empty((len(rows), images.shape[1]), dtype=dtype)  # (B, D)
    sizes = len(rows), images.shape[1], len(images), stride, float(scale)
    _launch("gather", x, len(rows), images, rows, x, *sizes)
    return x


def _whole(*arrays: Array) -> bool:
    """Tell whether all have one dtype and no gaps."""
    return _alike(*arrays) and all(a.flags.c_contiguous for a in arrays)


def bias_and_relu(y: Array, b: Array) -> Any:
    """Do what `fused.bias_and_relu` does, for y (B, n_out) and b (n_out,)."""
    if y.ndim != 2 or b.shape != y.shape[1:] or not _whole(y, b):
        return NotImplemented
    h = namespace(y).empty(y.shape, dtype=y.dtype)
    _launch("bias_and_relu", h, len(y), y, b, h, *y.shape)
    return h


def code_and_kl(product: Array, b: Array, eps: Array) -> Any:
    """Do what `fused.code_and_kl` does, for product (B, 2Z), b (2Z,) and eps (B, Z)."""
    fit = eps.ndim == 2 and b.shape == (2 * eps.shape[1],)
    if not fit or product.shape != (len(eps), len(b)) or not _whole(product, b, eps):
        return NotImplemented
    shapes = product.shape, eps.shape, eps.shape, eps.shape[:1]
    out = tuple(namespace(eps).empty(shape, dtype=eps.dtype) for shape in shapes)
    _launch("code_and_kl", eps, len(eps), product, b, eps, *out, *eps.shape)
    return out


def code_gradient(dz: Array, eps: Array, code: Array, sigma: Array, dkl: float) -> Any:
    """Do what `fused.code_gradient` does, for code (B, 2Z) and the others (B, Z)."""
    fit = dz.ndim == 2 and dz.shape == eps.shape == sigma.shape
    if not fit or code.shape != (len(dz), 2 * dz.shape[1]) or not _whole(dz, eps, code, sigma):
        return NotImplemented
    dcode = namespace(dz).empty(code.shape, dtype=dz.dtype)
    _launch("code_gradient", dcode, len(dz), dz, eps, code, sigma, dcode, float(dkl), *dz.shape)
    return dcode


def bernoulli_nll_and_gradient(x: Array, product: Array, b: Array, dnll: float) -> Any:
    """Do what `fused.bernoulli_nll_and_gradient` does, for x and product (B, D) and b (D,)."""
    fit = x.ndim == 2 and product.shape == x.shape and b.shape == x.shape[1:]
    if not fit or not _whole(x, product, b):
        return NotImplemented
    nll, dlogits = (namespace(x).empty(shape, dtype=x.dtype) for shape in (x.shape[:1], x.shape))
    arrays = x, product, b, nll, dlogits
    _launch("bernoulli_nll_and_gradient", nll, len(x), *arrays, float(dnll), *x.shape)
    return nll, dlogits


def batch_means(nll: Array, kl: Array, beta: float, n: int) -> Any:
    """Do what `fused.batch_means` does, for nll and kl (B,)."""
    if nll.ndim != 1 or kl.shape != nll.shape or not _whole(nll, kl):
        return NotImplemented
    means = namespace(nll).empty((3,), dtype=np.float64)
    _launch("batch_means", nll, 1, nll, kl, means, float(beta), int(n), len(nll))
    return means
