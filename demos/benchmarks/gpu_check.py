"""Is it right on a GPU, and how fast? `make gpu-check` runs this file.

It runs from the source tree, with what is installed: NumPy and CuPy must be, PyTorch and JAX are
reported as absent where they are. Nothing is downloaded.

The checks come cheapest first. After each the results so far are written, docs/benchmark/gpu.json
and the table gpu.md, so that a machine that is taken away early leaves what it had shown. A check
that fails does not keep the next from running. When the time is over, the one that runs is stopped.

    python demos/benchmarks/gpu_check.py [--minutes 6.5] [--only NAME ...] [--rehearse]

With --rehearse it runs without a GPU, small, on the stand-in of the tests: to see that it will run.
The kernels are compiled for the host then, if there is a C++ compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contestants
import numpy as np
from contestants import ON_A_GPU, Case, dataset_of, take_steps
from run import ROOT, STACKS, environment, machine, steps_table, wall_seconds

sys.path.insert(0, str(ROOT))  # where scratchvae is, installed or not

import scratchvae as sv
from scratchvae import backend as backends
from scratchvae import datasets, free_bits, fused, gaussian, kernels, likelihoods, optimizers
from scratchvae.activations import ACTIVATIONS
from scratchvae.backend import asnumpy, get_backend
from scratchvae.evaluation import importance_weighted_bound
from scratchvae.training import Trainer

OUT = ROOT / "docs" / "benchmark"
MOST_NLL_SECONDS, MNIST_LOSSES = 3, (105, 106.5)
REFERENCE = "PyTorch, its example"
REHEARSED = (REFERENCE, "JAX lax.scan", "scratchvae, no kernels", "scratchvae")
images = functools.cache(contestants.images)
PRECISIONS = {  # of the matrix products, for CuPy and JAX; our PyTorch contestants read CuPy's
    "float32": {"CUPY_TF32": "0", "JAX_DEFAULT_MATMUL_PRECISION": "float32"},
    "TF32": {"CUPY_TF32": "1", "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"},
}


class Absent(Exception):
    """Something that a check needs is not on this machine."""


class NoTimeLeft(BaseException):
    """The time is over; not an Exception, so that no check takes it for its own."""


def require(holds: bool, text: str) -> None:
    """Raise AssertionError with this text unless something holds, under ``python -O`` too."""
    if not holds:
        raise AssertionError(text)


# ---- is it right? --------------------------------------------------------------------------------


def pairs(rng: np.random.Generator) -> Iterator[tuple[str, Callable, Callable, list[np.ndarray]]]:
    """Yield every forward and backward function with arguments of a training step's shapes."""
    z = rng.standard_normal
    b, d, latent, k = 64, 784, 20, 5
    for name, (f, f_backward) in ACTIVATIONS.items():
        yield name, f, f_backward, [z((b, 400))]
    g, li = gaussian, likelihoods
    heads = [z((b, latent)), z((b, latent))]
    for shape in ((b, latent), (k, b, latent)):
        args = [*heads, z(shape)]
        yield f"reparameterize {shape}", g.reparameterize, g.reparameterize_backward, args
    yield "KL", g.kl_standard_normal, g.kl_standard_normal_backward, heads
    free = functools.partial(free_bits.kl_free_bits, free=0.5)
    yield "free bits", free, free_bits.kl_free_bits_backward, heads
    yield "log density", g.log_density, g.log_density_backward, [z((k, b, latent)), *heads]
    for shape in ((b, d), (k, b, d)):
        bits = (rng.random((b, d)) < 0.2).astype(float)
        nll, nll_backward = li.bernoulli_nll, li.bernoulli_nll_backward
        yield f"Bernoulli {shape}", nll, nll_backward, [bits, 4 * z(shape)]
    # A small variance, so that the two terms of its gradient do not happen to cancel.
    pixels = [rng.random((b, d)), z((b, d)), rng.uniform(-4, -2, 1)]
    yield "Gaussian likelihood", li.gaussian_nll, li.gaussian_nll_backward, pixels


def apart(found: Any, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number; infinite for NaN."""
    found = asnumpy(found).astype(np.float64)
    require(found.shape == expected.shape, f"shape {found.shape}: expected {expected.shape}")
    largest = max(float(np.abs(expected).max()), 1e-300)
    error = float(np.abs(found - expected).max()) / largest
    return error if math.isfinite(error) else math.inf


def together(rng: np.random.Generator) -> Iterator[tuple[Callable, list[Any]]]:
    """Yield every function of `fused` with arguments of a training step's shapes."""
    z = rng.standard_normal
    b, d, latent = 64, 784, 20
    code, sigma = z((b, 2 * latent)), np.exp(z((b, latent)))
    yield fused.bias_and_relu, [z((b, 400)), z(400)]
    yield fused.code_and_kl, [code, z(2 * latent), z((b, latent))]
    yield fused.code_gradient, [z((b, latent)), z((b, latent)), code, sigma, 0.7]
    bits = (rng.random((b, d)) < 0.2).astype(float)
    yield fused.bernoulli_nll_and_gradient, [bits, 4 * z((b, d)), z(d), 0.7]
    yield fused.batch_means, [rng.uniform(100, 200, b), rng.uniform(0, 20, b), 0.7, b]


def parity(small: bool) -> dict:
    """Every function of a step against NumPy: float64 to 1e-12, float32 to 1e-5."""
    worst: dict[str, float] = {}
    backend, rng = get_backend("cupy"), np.random.default_rng()
    used = small or kernels.find("relu_backward", backend.xp.zeros(1)) is not None
    require(used, "no kernel is used on this GPU: is SCRATCHVAE_COMPILED=0 set?")
    for dtype, most in (("float64", 1e-12), ("float32", 1e-5)):
        worst[dtype] = adam_and_gather(backend, rng, dtype, most)
        for name, f, f_backward, args in pairs(rng):
            args = [a.astype(dtype).astype(np.float64) for a in args]  # what float32 can hold
            y, cache = f(*args)
            # All of one sign, as in training: a sum over the batch that happens to cancel would
            # leave rounding that is large beside it.
            dy = rng.uniform(0.5, 1.5, y.shape).astype(dtype)
            expected = y, *as_tuple(f_backward(dy.astype(np.float64), cache))
            y, cache = f(*(backend.asarray(a, dtype=dtype) for a in args))
            found = y, *as_tuple(f_backward(backend.asarray(dy), cache))
            error = max(apart(a, b) for a, b in zip(found, expected, strict=True))
            require(error <= most, f"{name} in {dtype} differs by {error:.1e}, more than {most}")
            worst[dtype] = max(worst[dtype], error)
        for f, args in together(rng):
            numbers = [a.astype(dtype) if isinstance(a, np.ndarray) else a for a in args]
            moved = [backend.asarray(a) if isinstance(a, np.ndarray) else a for a in numbers]
            args = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in numbers]
            results = zip(as_tuple(f(*moved)), as_tuple(f(*args)), strict=True)
            error = max(apart(a, b) for a, b in results)
            text = f"{f.__name__} in {dtype} differs by {error:.1e}, more than {most}"
            require(error <= most, text)
            worst[dtype] = max(worst[dtype], error)
    return {"largest relative difference": worst}


def as_tuple(d: Any) -> tuple:
    return d if isinstance(d, tuple) else (d,)


def adam_and_gather(backend: Any, rng: np.random.Generator, dtype: str, most: float) -> float:
    """Compare what has no backward: Adam's update, to `most`, and the batch, to the last bit."""
    vectors = [rng.standard_normal(10_001).astype(dtype).astype(np.float64) for _ in range(3)]
    vectors.append(vectors[0] ** 2)  # v
    moved = [backend.asarray(a, dtype=dtype) for a in vectors]
    for four in (vectors, moved):
        optimizers.adam_update(*four, 0.9, 0.999, 1e-3, 1e-8)
    error = max(apart(a, b) for a, b in zip(moved, vectors, strict=True))
    require(error <= most, f"Adam in {dtype} differs by {error:.1e}, more than {most}")
    x, rows = rng.integers(0, 256, (50, 784), dtype=np.uint8), rng.integers(0, 50, 33)
    expected = datasets.gather(x, rows, 255.0, np.dtype(dtype))
    found = datasets.gather(backend.asarray(x), backend.asarray(rows), 255.0, np.dtype(dtype))
    require(np.array_equal(asnumpy(found), expected), f"the batch differs in {dtype}")
    return error


def models(dtype: str, **options: Any) -> tuple[sv.VAE, sv.VAE]:
    """Return one model on the CPU in float64 and the same on the GPU in `dtype`."""
    there = sv.VAE(784, (400,), 20, rng=0, backend="cupy", dtype=dtype, **options)
    here = sv.VAE(784, (400,), 20, rng=0, dtype="float64", **options)
    for name in here.params.names:
        here.params[name].value[...] = asnumpy(there.params[name].value)
    return here, there


def model_gradients(most: float) -> dict:
    """Loss and gradient of a whole model in float32 against NumPy in float64."""
    # Not with ReLU: rounding puts some numbers on the other side of 0, where its gradient jumps,
    # and that alone moves the gradient of a right model by several percent. In TF32, with 11 bits,
    # it happens in nearly every run, in float32 in one of 200.
    rng = np.random.default_rng()
    x, eps = rng.random((64, 784), dtype=np.float32), rng.standard_normal((64, 20)).astype("f4")
    here, there = models("float32", activation="tanh")
    terms, errors = here.loss_and_grad(x, eps), {}
    for way, loss_and_grad in {
        "by the model's own text": there.loss_and_grad,
        "as it is trained": functools.partial(fused.loss_and_grad, there),
    }.items():
        found = loss_and_grad(x, eps)
        error = max(apart(a, np.asarray(b)) for a, b in zip(found, terms, strict=True))
        for name in here.params.names:
            error = max(error, apart(there.params[name].grad, here.params[name].grad))
        require(error <= most, f"{way}, loss or gradient differs by {error:.1e}, more than {most}")
        errors[way] = error
    return {"largest relative difference": errors}


def float32_model(small: bool) -> dict:
    """A whole model in float32 to 1e-5."""
    return again("float32", 1e-5, small)


def tf32_model(small: bool) -> dict:
    """A whole model with its products in TF32 to 5e-3."""
    found = again("TF32", 5e-3, small)
    if not small and max(found["largest relative difference"].values()) < 1e-5:
        raise Absent("the products are as exact as in float32, so this GPU or CuPy has no TF32")
    return found


def again(precision: str, most: float, small: bool) -> dict:
    """Compare a model in another process, since CuPy reads its settings when it is imported."""
    return answer(start(f"model_gradients({most})", small, PRECISIONS[precision]))


def start(call: str, small: bool, extra: dict[str, str]) -> subprocess.Popen:
    """Call a function of this file in a process of its own, without waiting for it."""
    code = f"import gpu_check; gpu_check.put_in_place({small}); "
    code += f"print(gpu_check.json.dumps(gpu_check.{call}))"
    env = environment(extra)
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), env["PYTHONPATH"]])
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, **pipes)
    started.append(process)
    return process


def answer(process: subprocess.Popen) -> Any:
    """Wait for what the function returns."""
    out, error = process.communicate()
    require(process.returncode == 0, "\n".join(error.strip().splitlines()[-3:]))
    return json.loads(out.splitlines()[-1])


def gradients(small: bool) -> dict:
    """Every hand-written gradient against the slopes of its forward pass, in float64, to 1e-7."""
    reports = list(sv.gradcheck.suite("cupy"))
    wrong = [report.message for report in reports if not report.ok]
    require(not wrong, "; ".join(wrong))
    return {"checks": len(reports), "largest relative error": max(r.error for r in reports)}


def trainer(backend: Any, dtype: str, batch: int = 128, n: int = 60_000) -> Trainer:
    model = sv.VAE(784, (400,), 20, rng=1, backend=backend, dtype=dtype)
    optimizer = sv.Adam(model.params, 1e-3)
    return Trainer(model, optimizer, dataset_of(images(n)), batch_size=batch)


def train(t: Trainer, steps: int) -> list[float]:
    """Take so many steps; return their losses, read at the end."""
    losses: list[Any] = []
    take_steps(t, steps, lambda terms: losses.append(terms.loss))
    return [float(loss) for loss in losses]


def beside_the_cpu(small: bool) -> dict:
    """200 steps with noise from the host: the CPU's losses, float64 to 1e-10, float32 to 1e-3."""
    found = {}
    steps = 20 if small else 200
    # On the CPU, a last digit changed in every parameter at the start has changed a loss by 2e-16
    # in float64 and by 5e-9 in float32 at most after 200 steps. A GPU rounds otherwise at each of
    # them. The strict comparison is that in float64; in float32, where a unit of ReLU may come to
    # lie on the other side of 0, the bound only says that training goes the same way.
    for dtype, most in (("float64", 1e-10), ("float32", 1e-3)):
        here = train(trainer("numpy", dtype, n=6400), steps)
        there = train(trainer(get_backend("cupy", noise="host"), dtype, n=6400), steps)
        error = max(abs(a - b) / abs(a) for a, b in zip(here, there, strict=True))
        require(error <= most, f"losses differ by {error:.1e} in {dtype}, more than {most}")
        found[dtype] = error
    return {"steps": steps, "largest relative difference of a loss": found}


def noise(small: bool) -> dict:
    """Noise of the device: new at each draw, the same from the same seed, N(0, 1) and [0, 1)."""
    backend, n = get_backend("cupy", noise="device"), 1_000_000
    shapes = (n,), (10_001, 100), (51, 201, 101)  # of a vector, and as training draws it
    found = {}
    # The second to fourth moment of N(0, 1), and of the uniform distribution about its middle.
    for name, draw, middle, moments in (
        ("normal", backend.standard_normal, 0.0, (1, 0, 3)),
        ("uniform", backend.uniform, 0.5, (1 / 12, 0, 1 / 80)),
    ):
        for dtype, shape in itertools.product(("float32", "float64"), shapes):
            rng, like = np.random.default_rng(5), np.random.default_rng(5)
            first, second, again = (
                asnumpy(draw(r, shape, dtype)).astype(np.float64) for r in (rng, rng, like)
            )
            what = f"{name} noise in {dtype}" + f" of shape {shape}" * (len(shape) > 1)
            require(np.array_equal(first, again), f"{what}: one seed gives different noise")
            if name == "uniform":
                require(first.min() >= 0 and first.max() < 1, f"{what} lies outside of [0, 1)")
            x, y = first - middle, second - middle
            values = {
                "mean": (x, 0.0),
                **{f"moment {k}": (x**k, m) for k, m in zip((2, 3, 4), moments, strict=True)},
                "correlation of two draws": (x * y, 0.0),
            }
            for axis, length in enumerate(shape):
                one, other = np.split(np.delete(x, length - 1, axis) if length % 2 else x, 2, axis)
                where = "a draw's halves" if len(shape) == 1 else f"the halves of axis {axis}"
                values[f"correlation of {where}"] = one * other, 0.0
                if len(shape) > 1:
                    one, other = (np.delete(x, at, axis) for at in (0, length - 1))
                    values[f"correlation along axis {axis}"] = one * other, 0.0
            for value, (terms, expected) in values.items():
                off = float(terms.mean()) - expected
                # Seven standard deviations of the mean; and a constant, which has none, is off.
                most = 7 * max(float(terms.std()), 1e-6) / math.sqrt(terms.size)
                require(abs(off) < most, f"{what}: the {value} is off by {off:.4f}")
            if len(shape) == 1:
                found[what] = float((x * y).mean())
    return {"draws": n, "correlation of two draws": found}


def resume(small: bool) -> dict:
    """A run that goes on from a checkpoint: bitwise the same on a GPU; the CPU takes it over."""
    straight, stopped = (trainer("cupy", "float32", n=640) for _ in range(2))
    train(straight, 13)
    train(stopped, 7)
    state = stopped.state()
    goes_on, on_the_cpu = trainer("cupy", "float32", n=640), trainer("numpy", "float32", n=640)
    for t in (goes_on, on_the_cpu):
        t.restore(*state, "the checkpoint")
        train(t, 6)
    expected, found = (asnumpy(t.model.params.value) for t in (straight, goes_on))
    different = int((found != expected).sum())
    require(different == 0, f"{different:,} parameters differ after the run went on")
    require(bool(np.isfinite(on_the_cpu.model.params.value).all()), "not finite on the CPU")
    return {"parameters that are bitwise the same": found.size}


def waits(small: bool) -> dict:
    """Only one step in 50 waits for the GPU, to read the loss: CuPy forbids it to the others.

    The last of them has the rest of the data, a smaller batch.
    """
    import cupyx

    t, guard, step = trainer("cupy", "float32", n=128 * 99 + 40), contextlib.ExitStack(), 0

    def on_step(terms: object) -> None:
        nonlocal step
        step += 1
        if step % 50 == 1:  # this one has read the loss
            guard.enter_context(cupyx.allow_synchronize(False))
        if step % 50 == 0:
            guard.close()

    with warnings.catch_warnings(), guard:
        warnings.simplefilter("ignore")  # that CuPy does not see every wait
        take_steps(t, 100, on_step)
    return {"steps without a wait": 98}


def draws(small: bool) -> dict:
    """What a draw of noise for 128 codes takes, with a new key as in training and without."""
    backend, rng, shape = get_backend("cupy", noise="device"), np.random.default_rng(), (128, 20)
    generator, n = backends._device_generator(backend.xp), 10 if small else 1000
    found = {}
    for name, draw in {
        "with a new key": lambda: backend.standard_normal(rng, shape, "float32"),
        "without": lambda: generator.standard_normal(shape, dtype="float32"),
    }.items():
        float(draw()[0, 0])  # what is made on first use is made before; and wait
        start = time.perf_counter()
        for _ in range(n):
            last = draw()
        float(last[0, 0])
        found[name] = 1e6 * (time.perf_counter() - start) / n
    return {"microseconds": found}


def memory(small: bool) -> dict:
    """10,000 steps do not take more memory than 1,000."""
    import cupy

    t = trainer("cupy", "float32", n=6400)
    if small:
        take_steps(t, 20)
        return {"steps": 20}  # the stand-in has no pool of memory
    pool = cupy.get_default_memory_pool()
    take_steps(t, 1000)  # whose losses nobody keeps: they would be memory too
    before = pool.total_bytes()
    take_steps(t, 9000)
    grown = pool.total_bytes() - before
    require(grown <= 2**20, f"{grown:,} bytes more after 10,000 steps than after 1,000")
    return {"MiB": round(before / 2**20), "grown bytes": grown}


def capture(small: bool) -> dict:
    """Can a product be captured into a CUDA graph: CuPy's, and one by a cuBLAS handle of one's own?

    No part of scratchvae uses it: this is the question that must be answered first.
    """
    import cupy

    if small:
        return {"CuPy's product": "not tried", "a handle of one's own": "not tried"}
    rng = np.random.default_rng()
    a, b = (cupy.asarray(rng.standard_normal(s).astype("f4")) for s in ((128, 784), (784, 400)))
    out, expected = cupy.empty((128, 400), "f4"), asnumpy(a @ b)

    def cupys() -> None:
        cupy.matmul(a, b, out=out)

    tried = {"CuPy's product": cupys, "a handle of one's own": own_product(cupy, a, b, out)}
    return {name: captured(cupy, product, out, expected) for name, product in tried.items()}


def own_product(cupy: Any, a: Any, b: Any, out: Any) -> Callable[[], None]:
    """Return a function that computes out = a b past CuPy, with the cuBLAS that CuPy has loaded."""
    cublas, handle = ctypes.CDLL(loaded("libcublas.so")), ctypes.c_void_p()
    workspace = cupy.empty(32 * 2**20, "u1")
    one, zero = ctypes.byref(ctypes.c_float(1)), ctypes.byref(ctypes.c_float(0))
    (m, k), n, keep = a.shape, b.shape[1], 0  # CUBLAS_OP_N
    address_a, address_b, address = (ctypes.c_void_p(x.data.ptr) for x in (a, b, out))

    def call(name: str, *arguments: Any) -> None:
        status = getattr(cublas, name)(*arguments)
        require(status == 0, f"{name} returned {status}")

    call("cublasCreate_v2", ctypes.byref(handle))

    def product() -> None:
        call("cublasSetStream_v2", handle, ctypes.c_void_p(cupy.cuda.get_current_stream().ptr))
        size = ctypes.c_size_t(workspace.nbytes)  # after the stream, which sets another
        call("cublasSetWorkspace_v2", handle, ctypes.c_void_p(workspace.data.ptr), size)
        # Row by row, as NumPy has it, out = a b is to cuBLAS out^T = b^T a^T.
        call("cublasSgemm_v2", handle, keep, keep, n, m, k, one, address_b, n, address_a, k, zero,
             address, n)  # fmt: skip

    return product


def loaded(name: str) -> str:
    """Return the path of a shared library that this process has loaded, as Linux tells it."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split()[-1] for line in lines if f"/{name}" in line}
    require(bool(paths), f"{name} is not loaded")
    return min(paths)


def captured(cupy: Any, product: Callable[[], None], out: Any, expected: np.ndarray) -> str:
    """Say whether a launch can be captured, and whether its replay computes the same."""
    stream = cupy.cuda.Stream(non_blocking=True)
    try:
        with stream:
            product()  # what is made on first use is made before
            stream.begin_capture()
            product()
            graph = stream.end_capture()
            out[...] = 0
            graph.launch()
        stream.synchronize()
        error = apart(out, expected.astype(np.float64))
        return f"captured, replay differs by {error:.1e}"
    except Exception as error:  # whatever CUDA or a binding says is the answer
        with contextlib.suppress(Exception):
            stream.end_capture()
        return f"refused: {str(error).splitlines()[0]}"


# ---- how fast is it? -----------------------------------------------------------------------------


def log_likelihood(small: bool) -> dict:
    """The importance-weighted bound of 10,000 images with 5,000 samples each, in float32."""
    n, samples = (20, 50) if small else (10_000, 5_000)
    here, model = models("float32")
    x = model.backend.asarray(images(n), dtype="float32") / 255
    batches = [x[i : i + 1000] for i in range(0, n, 1000)]
    importance_weighted_bound(model, batches[:1], samples=10, rng=0)  # compiles
    start = time.perf_counter()
    bounds = importance_weighted_bound(model, batches, samples=samples, rng=0)
    seconds = time.perf_counter() - start
    require(bounds.shape == (n,) and bool(np.isfinite(bounds).all()), "not a finite bound each")
    # Beside the CPU, with other noise: 20 images, which differ by 0.9 nats each with 50 samples and
    # by less with more, so that their mean is off by 0.2.
    rows = asnumpy(x[:20]).astype(np.float64)
    some = importance_weighted_bound(here, [rows], min(samples, 1000), rng=0)
    off = abs(float((bounds[:20] - some).mean()))
    require(off < 1.5, f"the bound of 20 images differs from the CPU's by {off:.2f} nats")
    return {"images": n, "samples": samples, "seconds": seconds, "target": MOST_NLL_SECONDS}


def mnist(small: bool) -> dict:
    """Ten epochs of MNIST reach the loss that they reach on the CPU."""
    if not small and not os.environ.get("SCRATCHVAE_DATA"):
        raise Absent("SCRATCHVAE_DATA names no folder with MNIST")
    dataset = datasets.load("digits" if small else "mnist")
    model = sv.VAE(dataset.data_dim, (400,), 20, rng=0, backend="cupy")
    t = Trainer(model, sv.Adam(model.params, 1e-3), dataset, batch_size=128)
    start = time.perf_counter()
    t.run(1 if small else 10)
    seconds, loss = time.perf_counter() - start, t.metrics[-1]["test_loss"]
    least, most = MNIST_LOSSES
    require(small or least <= loss <= most, f"test loss {loss:.2f}: expected {least} to {most}")
    return {"test loss": loss, "seconds": seconds}


class Worker:
    """A contestant in a process of its own, which it keeps for all batch sizes.

    It answers each request with one line: a number, or an object that says what it lacks.
    """

    def __init__(self, name: str, precision: str, small: bool, log: Path) -> None:
        self.name = name
        # JAX would otherwise take most of the memory that the others need.
        extra = {**PRECISIONS[precision], "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if small:  # two threads wait long for each other where a machine is busy
            extra |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--work", name, *["--rehearse"] * small]
        with log.open("a") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment({**ON_A_GPU[name][1], **extra}),
            )

    def send(self, what: str, value: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # `receive` says that it is gone
            self.process.stdin.write(json.dumps([what, value]) + "\n")
            self.process.stdin.flush()

    def receive(self) -> float | dict[str, str]:
        line = self.process.stdout.readline()
        gone = {"failed": f"the process ended with exit code {self.process.poll()}"}
        return json.loads(line) if line else gone

    def ask(self, what: str, steps: int) -> float:
        """Return the seconds of so many steps, NaN if they fail, as the log then says."""
        self.send(what, steps)
        answer = self.receive()
        return answer if isinstance(answer, float) else math.nan

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def work(name: str) -> None:
    """Be a worker until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    step, clock = None, {"wall": wall_seconds, "busy": busy_seconds}
    for line in sys.stdin:
        what, value = json.loads(line)
        answer: Any = 0.0
        try:
            if what == "build":
                sizes, *rest = value
                step = ON_A_GPU[name][0](Case(tuple(sizes), *rest))
                step(10)  # compiles
            else:
                answer = clock[what](step, value)
        except ModuleNotFoundError as error:
            answer = {"absent": f"{error.name} is not installed"}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
            traceback.print_exc()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def busy_seconds(step: contestants.Step, n: int) -> float:
    """Return the seconds in which a GPU worked, which PyTorch's profiler sees for all libraries."""
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return math.nan
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step(n)
    # A span from the first to the last kernel of a part of PyTorch's own holds its kernels again,
    # and the time between them.
    on_device = [
        e for e in seen.events() if e.device_type.name == "CUDA" and not e.is_user_annotation
    ]
    return sum(e.self_device_time_total for e in on_device) / 1e6 or math.nan  # from microseconds


def tens(n: float) -> int:
    """Return `n` rounded to tens, each of which is one call of lax.scan; at least one of them."""
    return 10 * round(max(1, n / 10))  # of NaN too


workers: dict[str, list[Worker]] = {}  # by the precision of their products
started: list[subprocess.Popen] = []


def team(precision: str, small: bool) -> list[Worker]:
    """Return the workers of one precision, those of another ended."""
    if precision not in workers:
        end_workers()
        log = Path(tempfile.gettempdir(), "gpu-check-errors.log")
        names = REHEARSED if small else ON_A_GPU
        workers[precision] = [Worker(name, precision, small, log) for name in names]
    return workers[precision]


def end_workers() -> None:
    while workers:
        for worker in workers.popitem()[1]:
            worker.end()


def speed(batch: int, precision: str) -> Callable[[bool], dict]:
    def check(small: bool) -> dict:
        sizes, activation = next(iter(STACKS.values()))
        case = Case(sizes, activation, batch, "cuda")
        if small:
            case = Case(sizes, activation, batch // 64, "rehearsal", 1280)
        rounds, seconds = (1, 0.01) if small else (5, 0.2)
        present, times, lacking = [], {}, {}
        for worker in team(precision, small):
            worker.send("build", case)  # they compile at the same time
        for worker in team(precision, small):
            answer = worker.receive()
            if isinstance(answer, dict):
                lacking[worker.name] = next(iter(answer.values()))
            else:
                present.append(worker)
        require("scratchvae" not in lacking, lacking.get("scratchvae", ""))
        steps = {w.name: tens(10 * seconds / w.ask("wall", 10)) for w in present}
        with contextlib.suppress(NoTimeLeft):  # what was measured until then holds
            for i in range(rounds):
                turn = {}
                for worker in present:
                    n = steps[worker.name]
                    worker.ask("wall", tens(n / 2))  # a GPU that has rested begins slowly
                    turn[worker.name] = 1000 * worker.ask("wall", n) / n
                for name, milliseconds in turn.items():
                    times.setdefault(name, []).append(milliseconds)
                print(f"  round {i + 1} of {rounds}{20 * ' '}", end="\r", file=sys.stderr)
            for worker in present:
                n = min(steps[worker.name], 50)
                busy = 1000 * worker.ask("busy", n) / n
                times[f"{worker.name} (busy)"] = [busy]
        if not times:
            raise NoTimeLeft
        return {"precision": precision, "batch": batch, "times": times, "lacking": lacking}

    check.__doc__ = f"A training step at batch {batch} in {precision}, in milliseconds."
    return check


CHECKS: dict[str, Callable[[bool], dict]] = {
    "parity": parity,
    "float32": float32_model,
    "TF32": tf32_model,
    "noise": noise,
    "resume": resume,
    "gradients": gradients,
    "beside the CPU": beside_the_cpu,
    "waits": waits,
    "draws": draws,
    "capture": capture,
    "memory": memory,
    "log-likelihood": log_likelihood,
    "MNIST": mnist,
    **{f"speed {b} {p}": speed(b, p) for p in PRECISIONS for b in (128, 4096, 1024)},
}


# ---- reporting -----------------------------------------------------------------------------------


def markdown(results: dict) -> str:
    """Return the table of what was checked and measured, and of what was not."""
    lines = ["| Check | Found |", "|---|---|"]
    for name, check in CHECKS.items():
        if not name.startswith("speed"):
            lines.append(f"| {check.__doc__.splitlines()[0]} | {words(results.get(name))} |")
    lines.append("")
    for precision in PRECISIONS:
        cases = {b: results.get(f"speed {b} {precision}", {}) for b in (128, 1024, 4096)}
        lines += [f"**{precision}**: milliseconds a step (times PyTorch's example)", ""]
        if any("times" in case for case in cases.values()):
            times = {b: case.get("times", {}) for b, case in cases.items()}
            lines += steps_table(times, REFERENCE, digits=3)
            lacking = {k: v for case in cases.values() for k, v in case.get("lacking", {}).items()}
            lines += [f"{name}: {why}." for name, why in lacking.items()]
            lines += [""] * bool(lacking)
        else:
            lines += ["Not measured.", ""]
    if "machine" in results:
        m = results["machine"]
        lines += [f"Measured on {m['date']}: {m['gpu']}; {m['system']}; {m['versions']}.", ""]
    else:
        lines += ["No GPU has been at hand yet.", ""]
    return "\n".join(lines)


def words(result: dict | None) -> str:
    if result is None:
        return "not measured"
    if "failed" in result:
        return f"**failed**: {result['failed']}"
    if "absent" in result:
        return f"not measured: {result['absent']}"

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {text(v)}" for name, v in value.items())
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{name}: {text(v)}" for name, v in result.items() if name != "took")


def put_in_place(rehearse: bool) -> None:
    """Use the stand-in of the tests as CuPy, for a rehearsal."""
    if rehearse:
        sys.path.append(str(ROOT / "tests"))
        import cuda_on_host
        import standin

        if cuda_on_host.COMPILER:  # the kernels run as host code; without it nothing is launched
            cuda_on_host.HostModule.launched = []
            cuda_on_host.HostModule.rng = np.random.default_rng()
            standin.cupy.ndarray = standin.DeviceArray
            standin.cupy.RawModule = cuda_on_host.DeviceModule
        sys.modules |= {"cupy": standin.cupy, "cupyx": standin.cupyx}
        with contextlib.suppress(ImportError):  # one thread, as in the workers of a rehearsal
            import threadpoolctl

            threadpoolctl.threadpool_limits(1)


def within(seconds: float, check: Callable[[bool], dict], small: bool) -> dict:
    """Return what a check finds; raise NoTimeLeft when so many seconds are over."""

    def stop(number: int, frame: object) -> None:
        raise NoTimeLeft

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        return check(small)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write(results: dict, out: Path) -> None:
    """Write the results and their table; end with a sentence if they cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "gpu.md").write_text(markdown(results))
    except OSError as error:
        sys.exit(f"gpu_check: the results cannot be written into {out}: {error.strerror}")


def minutes(text: str) -> float:
    """Return a number of minutes from the command line, of a day at most."""
    number = float(text)
    if not 0 < number <= 24 * 60:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help_ = "no check runs beyond so many (default: %(default)s)"
    parser.add_argument("--minutes", type=minutes, default=6.5, help=help_)
    parser.add_argument("--only", nargs="+", default=list(CHECKS), choices=list(CHECKS))
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, on a stand-in")
    parser.add_argument("--out", type=Path, help="folder (default: docs/benchmark)")
    parser.add_argument("--work", choices=list(ON_A_GPU), help=argparse.SUPPRESS)
    args = parser.parse_args()
    put_in_place(args.rehearse)
    if args.rehearse and not args.work:
        print("A rehearsal on a stand-in: nothing is measured on a GPU.", file=sys.stderr)
    if args.work:
        work(args.work)
        return
    try:
        backend = get_backend("cupy")
    except sv.InputError as error:
        sys.exit(f"gpu_check: {error}")
    out = args.out or (Path(tempfile.mkdtemp()) if args.rehearse else OUT)
    gpu = f"{backend.device}, CuPy {backend.xp.__version__}"
    results: dict = {"machine": {**machine(), "gpu": gpu}}
    end = time.perf_counter() + 60 * args.minutes
    checks = {name: CHECKS[name] for name in args.only}
    if args.rehearse and "gradients" in checks and len(checks) > 1:
        # Nothing is timed then, so the longest check runs beside the others, and is told last.
        ahead = start("gradients(True)", True, {})
        del checks["gradients"]
        checks["gradients"] = lambda small: answer(ahead)
    for name, check in checks.items():
        begin = time.perf_counter()
        try:
            results[name] = within(end - begin, check, args.rehearse)
        except NoTimeLeft:
            print(f"{name}: no time left", file=sys.stderr)
            continue
        except (Absent, ModuleNotFoundError) as error:
            results[name] = {"absent": str(error)}
        except Exception as error:  # the next check may still show something
            results[name] = {"failed": f"{type(error).__name__}: {error}".replace("\n", " ")}
        results[name]["took"] = round(time.perf_counter() - begin, 1)
        print(f"{name}: {words(results[name])} ({results[name]['took']} s)", file=sys.stderr)
        write(results, out)
    if len(results) == 1:
        sys.exit("Nothing was checked: --minutes gives it too little time.")
    print(f"Wrote {out / 'gpu.json'} and {out / 'gpu.md'}", file=sys.stderr)
    failed = [name for name, result in results.items() if "failed" in result]
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped: what was found until then is written.")
    finally:
        end_workers()
        for process in started:
            process.kill()
