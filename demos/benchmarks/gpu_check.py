"""Is it right on a GPU, and how fast? `make gpu-check` runs this file.

The checks come cheapest first. After each the results so far are written, docs/benchmark/gpu.json
and the table gpu.md, so that a machine that is taken away early leaves what it had shown. A check
that fails does not keep the next from running. What the time does not suffice for is left out.

    python demos/benchmarks/gpu_check.py [--minutes 9] [--only NAME ...] [--rehearse]

With --rehearse it runs without a GPU, small, on the stand-in of the tests: to see that it will run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contestants
import numpy as np
from contestants import ON_A_GPU, Case, dataset_of, take_steps
from run import ROOT, STACKS, environment, machine, measure, steps_table

import scratchvae as sv
from scratchvae import datasets, free_bits, gaussian, likelihoods, optimizers
from scratchvae.activations import ACTIVATIONS
from scratchvae.backend import asnumpy, get_backend
from scratchvae.evaluation import importance_weighted_bound
from scratchvae.training import Trainer

OUT = ROOT / "docs" / "benchmark"
MOST_NLL_SECONDS, MNIST_LOSSES = 3, (105, 106.5)
images = functools.cache(contestants.images)
TORCH = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
PRECISIONS = {  # of the matrix products, for CuPy, PyTorch and JAX alike
    "float32": {"CUPY_TF32": "0", "JAX_DEFAULT_MATMUL_PRECISION": "float32", TORCH: "0"},
    "TF32": {"CUPY_TF32": "1", "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32", TORCH: "1"},
}


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


def parity(small: bool) -> dict:
    """Every pair, Adam and the batch against NumPy: float64 to 1e-12, float32 to 1e-5."""
    worst: dict[str, float] = {}
    backend, rng = get_backend("cupy"), np.random.default_rng()
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
    rng = np.random.default_rng()
    x, eps = rng.random((64, 784), dtype=np.float32), rng.standard_normal((64, 20)).astype("f4")
    here, there = models("float32")
    terms, found = here.loss_and_grad(x, eps), there.loss_and_grad(x, eps)
    error = max(apart(a, np.asarray(b)) for a, b in zip(found, terms, strict=True))
    for name in here.params.names:
        error = max(error, apart(there.params[name].grad, here.params[name].grad))
    require(error <= most, f"loss or gradient differs by {error:.1e}, more than {most}")
    return {"largest relative difference": error}


def float32_model(small: bool) -> dict:
    """A whole model in float32 to 1e-5."""
    return again("model_gradients", 1e-5, PRECISIONS["float32"], small)


def tf32_model(small: bool) -> dict:
    """A whole model with its products in TF32 to 1e-3."""
    return again("model_gradients", 1e-3, PRECISIONS["TF32"], small)


def again(function: str, argument: float, extra: dict[str, str], small: bool) -> dict:
    """Call one of these functions in another process, since CuPy reads its settings at import."""
    code = f"import gpu_check; gpu_check.put_in_place({small}); "
    code += f"print(gpu_check.json.dumps(gpu_check.{function}({argument})))"
    done = run_python(["-c", code], extra)
    return json.loads(done.stdout.splitlines()[-1])


def run_python(arguments: list[str], extra: dict[str, str]) -> subprocess.CompletedProcess:
    folders = [str(Path(__file__).parent), str(ROOT)]
    env = environment({**extra, "PYTHONPATH": os.pathsep.join(folders)})
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, cwd=ROOT
    )
    require(done.returncode == 0, "\n".join(done.stderr.strip().splitlines()[-3:]))
    return done


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
    """200 steps with noise from the host: the losses of the CPU, to 1e-10 in float64."""
    found = {}
    steps = 20 if small else 200
    # On the CPU, a last digit changed in every parameter at the start has changed a loss by 2e-16
    # and by 5e-9 at most after 200 steps. A GPU rounds otherwise at each of them.
    for dtype, most in (("float64", 1e-10), ("float32", 1e-5)):
        here = train(trainer("numpy", dtype, n=6400), steps)
        there = train(trainer(get_backend("cupy", noise="host"), dtype, n=6400), steps)
        error = max(abs(a - b) / abs(a) for a, b in zip(here, there, strict=True))
        require(error <= most, f"losses differ by {error:.1e} in {dtype}, more than {most}")
        found[dtype] = error
    return {"steps": steps, "largest relative difference of a loss": found}


def noise(small: bool) -> dict:
    """Noise of the device: new at each draw, the same from the same seed, N(0, 1) and [0, 1)."""
    backend, n = get_backend("cupy", noise="device"), 1_000_000
    rng, like = np.random.default_rng(5), np.random.default_rng(5)
    first, second, again = (
        asnumpy(backend.standard_normal(r, (n,), "float32")).astype(np.float64)
        for r in (rng, rng, like)
    )
    require(np.array_equal(first, again), "one seed gives different noise")
    correlation = float(first @ second) / n
    # Each of these has a standard deviation of 1e-3 times at most 1.5: seven of them.
    for name, value in {
        "mean": first.mean(),
        "variance": first.var() - 1,
        "correlation of two draws": correlation,
        "fourth moment": ((first**4).mean() - 3) / 10,
    }.items():
        require(abs(value) < 0.011, f"{name} is off by {value:.4f}")
    pixels = asnumpy(backend.uniform(rng, (n,), "float32"))
    require(pixels.min() >= 0 and pixels.max() < 1, "uniform numbers outside of [0, 1)")
    return {"draws": n, "correlation of two draws": correlation}


def resume(small: bool) -> dict:
    """A run that goes on from a checkpoint: bitwise on a GPU, and on the CPU from a GPU's."""
    straight, stopped = (trainer("cupy", "float32", n=640) for _ in range(2))
    train(straight, 13)
    train(stopped, 7)
    state = stopped.state()
    goes_on, on_the_cpu = trainer("cupy", "float32", n=640), trainer("numpy", "float32", n=640)
    for t in (goes_on, on_the_cpu):
        t.restore(*state, "the checkpoint")
        train(t, 6)
    values = [asnumpy(t.model.params.value) for t in (straight, goes_on)]
    same = bool(np.array_equal(*values))
    require(apart(values[1], values[0].astype(np.float64)) < 1e-3, "the run went elsewhere")
    require(bool(np.isfinite(on_the_cpu.model.params.value).all()), "not finite on the CPU")
    return {"bitwise the same": same}


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
    """Can a matrix product be captured into a CUDA graph: CuPy's own, and one through nvmath?

    No part of scratchvae uses it: this is the question that must be answered first.
    """
    import cupy

    if small:
        return {"CuPy's product": "not tried", "nvmath's product": "not tried"}
    rng = np.random.default_rng()
    a, b = (cupy.asarray(rng.standard_normal(s).astype("f4")) for s in ((128, 784), (784, 400)))
    out, expected = cupy.empty((128, 400), "f4"), asnumpy(a @ b)

    def cupys() -> None:
        cupy.matmul(a, b, out=out)

    tried = {"CuPy's product": cupys}
    with contextlib.suppress(ImportError):
        from nvmath.bindings import cublas

        handle, workspace = cublas.create(), cupy.empty(32 * 2**20, "u1")
        one, zero = np.ones(1, "f4"), np.zeros(1, "f4")

        def nvmaths() -> None:
            cublas.set_stream(handle, cupy.cuda.get_current_stream().ptr)
            cublas.set_workspace(handle, workspace.data.ptr, workspace.nbytes)
            (m, k), n, keep = a.shape, b.shape[1], cublas.Operation.N
            factors = one.ctypes.data, zero.ctypes.data
            # Row by row, as NumPy has it, out = a b is to cuBLAS out^T = b^T a^T.
            b_a = b.data.ptr, n, a.data.ptr, k
            cublas.sgemm(handle, keep, keep, n, m, k, factors[0], *b_a, factors[1], out.data.ptr, n)

        tried["nvmath's product"] = nvmaths
    return {name: captured(cupy, product, out, expected) for name, product in tried.items()}


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
    model = sv.VAE(784, (400,), 20, rng=0, backend="cupy")
    x = model.backend.asarray(images(n), dtype="float32") / 255
    batches = [x[i : i + 1000] for i in range(0, n, 1000)]
    importance_weighted_bound(model, batches[:1], samples=10, rng=0)  # compiles
    start = time.perf_counter()
    bounds = importance_weighted_bound(model, batches, samples=samples, rng=0)
    seconds = time.perf_counter() - start
    require(bounds.shape == (n,) and bool(np.isfinite(bounds).all()), "not a finite bound each")
    return {"images": n, "samples": samples, "seconds": seconds, "target": MOST_NLL_SECONDS}


def mnist(small: bool) -> dict:
    """Ten epochs of MNIST reach the loss that they reach on the CPU."""
    require(small or bool(os.environ.get("SCRATCHVAE_DATA")), "SCRATCHVAE_DATA names no folder")
    how = {"data": "digits", "epochs": 1} if small else {"data": "mnist", "epochs": 10}
    options = sv.run.Options(latent=20, hidden=(400,), **how)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = sv.run.new(options, folder, backend="cupy")
        run.train()
        run.draw()
        seconds = time.perf_counter() - start
    loss = run.trainer.metrics[-1]["test_loss"]
    least, most = MNIST_LOSSES
    require(small or least <= loss <= most, f"test loss {loss:.2f}: expected {least} to {most}")
    return {"test loss": loss, "seconds": seconds}


def speed(batch: int, precision: str) -> Callable[[bool], dict]:
    def check(small: bool) -> dict:
        sizes, activation = next(iter(STACKS.values()))
        case = Case(sizes, activation, batch, "rehearsal" if small else "cuda")
        rounds, seconds = (1, 0.01) if small else (5, 0.2)
        names = [*ON_A_GPU][-1:] if small else [*ON_A_GPU]
        log = Path(tempfile.gettempdir(), "gpu-check-errors.log")
        # JAX would otherwise take most of the memory that the others need.
        extra = {**PRECISIONS[precision], "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        times = measure(case, names, rounds, seconds, log, extra, clocks=("wall", "busy"))
        ours = times["scratchvae"]
        require(isinstance(ours, list), str(ours))
        return {"precision": precision, "batch": batch, "times": times}

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
            lines += steps_table(times, "PyTorch, its example", digits=3)
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

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {text(v)}" for name, v in value.items())
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{name}: {text(v)}" for name, v in result.items() if name != "took")


def put_in_place(rehearse: bool) -> None:
    """Put the stand-in of the tests in the place of CuPy, for a rehearsal."""
    if rehearse:
        sys.path.append(str(ROOT / "tests"))
        import standin

        sys.modules["cupy"] = standin.cupy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", nargs="*", default=list(CHECKS), choices=list(CHECKS))
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, on a stand-in")
    parser.add_argument("--out", type=Path, help="folder (default: docs/benchmark)")
    args = parser.parse_args()
    put_in_place(args.rehearse)
    try:
        backend = get_backend("cupy")
    except sv.InputError as error:
        sys.exit(f"gpu_check: {error}")
    out = args.out or (Path(tempfile.mkdtemp()) if args.rehearse else OUT)
    out.mkdir(parents=True, exist_ok=True)
    gpu = f"{backend.device}, CuPy {backend.xp.__version__}"
    results: dict = {"machine": {**machine(), "gpu": gpu}}
    start = time.perf_counter()
    for name in args.only:
        if time.perf_counter() - start > 60 * args.minutes:
            print(f"{name}: no time left", file=sys.stderr)
            continue
        begin = time.perf_counter()
        try:
            results[name] = CHECKS[name](args.rehearse)
        except Exception as error:  # the next check may still show something
            results[name] = {"failed": f"{type(error).__name__}: {error}".replace("\n", " ")}
        results[name]["took"] = round(time.perf_counter() - begin, 1)
        print(f"{name}: {words(results[name])} ({results[name]['took']} s)", file=sys.stderr)
        (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "gpu.md").write_text(markdown(results))
    print(f"Wrote {out / 'gpu.json'} and {out / 'gpu.md'}", file=sys.stderr)
    failed = [name for name, result in results.items() if "failed" in result]
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped: what was found until then is written.")
