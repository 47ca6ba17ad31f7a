"""A large batch in parts, each on a core of its own.

NumPy computes on one core. Only its matrix products run on all of them, through BLAS, so the other
cores wait while the activations or the loss of a thousand examples are computed. Here each core
takes some of the examples through the whole step: forward, loss and backward. In `distributed` the
parts are on machines of their own.
"""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeAlias

import numpy as np

from . import fused, kernels
from .backend import Array, asnumpy
from .errors import InputError
from .model import is_numbers
from .shapes import drawing_nothing
from .vae import Autoencoder, Terms

ROWS = 256  # with fewer examples a thread costs more than it saves

LossAndGrad: TypeAlias = Callable[..., Terms]  # (x, eps, batch_size), as a model's method


def part_of(n: int, i: int, parts: int) -> slice:
    """Return the rows of part `i`, if n rows are taken in so many parts."""
    return slice(n * i // parts, n * (i + 1) // parts)


def noise_of(eps: Array | None, rows: slice) -> Array | None:
    """Return the noise of some rows of a batch."""
    if eps is None:
        return None
    if getattr(eps, "ndim", 0) < 2:
        found = (
            f"an array of shape {eps.shape}" if hasattr(eps, "shape") else f"a {type(eps).__name__}"
        )
        raise InputError(
            f"draw_eps gives {found}: expected an array whose last axis but one is that of the "
            "examples, (B, Z) or (K, B, Z)"
        )
    return eps[..., rows, :]  # (B, Z) or (K, B, Z)


def share(
    loss_and_grad: LossAndGrad, x: Array, eps: Array | None, rows: slice, batch_size: int
) -> Terms:
    """Return the share of some rows in the mean over a whole batch; leave that of the gradient.

    The shares of all rows add up to what ``model.loss_and_grad`` gives for the batch.

    Parameters
    ----------
    loss_and_grad : callable
        The method of the model, or of a twin of it.
    x : (B, D)
    eps : (B, Z), (K, B, Z) or None
    rows : slice
        Of `x`; at least one.
    batch_size : int
        Of the whole batch. It is more than B where other machines have the other rows.
    """
    return loss_and_grad(x[rows], noise_of(eps, rows), batch_size=batch_size)


def adds_up(model: Autoencoder) -> bool | None:
    """Return whether a batch's loss and gradient are the sums of those of its parts, in copies.

    None where an error is raised for the numbers that are tried, or something is not finite, so
    that nothing can be compared: the model may have diverged, or be one for other data.

    They are not where a layer mixes the examples of a batch, as batch normalisation does, where it
    draws random numbers of its own, where a backward adds something that has no factor dloss, as a
    penalty once for each part, or where the gradient is clipped. Nor are they where a layer cannot
    be copied, or reaches a parameter in another way than through its attributes, as a function
    that was made around one does: the copy's gradient is then added to the model's. The model's own
    numbers are moved, too: a schedule or a callback may change the weight of a term that is 0 now.
    """
    parameters = inspect.signature(model.loss_and_grad).parameters.values()
    if not any(p.name == "batch_size" or p.kind is p.VAR_KEYWORD for p in parameters):
        return False  # it cannot be told the size of the whole
    with drawing_nothing(model):
        now = _surely(model, moved=False)
        return False if now and _surely(model, moved=True) is False else now


def _surely(model: Autoencoder, moved: bool) -> bool | None:
    found = _adds_up(model, 0, moved)
    if found is False:  # a rounding error may open or close a ReLU, once in a thousand draws
        return all(_adds_up(model, seed, moved) for seed in (1, 2))
    return found


def identity(model: Autoencoder) -> tuple[Any, ...]:
    """Return what differs where `adds_up` is to be asked again: parameters, layers and numbers."""
    numbers = {k: repr(v) for k, v in vars(model).items() if is_numbers(v)}
    return id(model.params), tuple(map(id, model._all_layers())), numbers


def switches(model: Autoencoder) -> tuple[list[Any], dict[str, str | None]]:
    """Return what `adds_up` does not try with other values: the layers, flags and whole numbers.

    Of a float there is the name, which a callback may add.
    """
    held = {k: v for k, v in vars(model).items() if is_numbers(v)}
    numbers = {k: None if _is_moved(v) else repr(v) for k, v in held.items()}
    return [] if model._layers is None else model._all_layers(), numbers


def written(model: Autoencoder) -> set[str]:
    """Return the arrays, and lists of them, of the model into which a step writes: each twin's own.

    As a workspace that saves an allocation; two threads would write into it at once.
    """
    held = [k for k, v in vars(model).items() if is_numbers(v) and _has_array(v)]
    if not held:
        return set()
    probe = copy.deepcopy(model)
    before = {name: pickle.dumps(vars(probe)[name]) for name in held}
    # The numbers may be none that it takes.
    with drawing_nothing(model), suppress(Exception), np.errstate(all="ignore"):
        probe.loss_and_grad(*_batch_of(probe, np.random.default_rng(0)))
    return {name for name in held if pickle.dumps(vars(probe).get(name)) != before[name]}


def _batch_of(model: Autoencoder, rng: np.random.Generator) -> tuple[Array, Array | None]:
    """Return a small batch that the model may be given, and its noise."""
    n = 16
    return model.rows(rng.random((n, model.data_dim)), np.zeros(n, int)), model.draw_eps(n, rng)


def _has_array(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_has_array, value))
    return isinstance(value, np.ndarray)


def _adds_up(model: Autoencoder, seed: int, moved: bool) -> bool | None:
    model.params.forget_gradient()
    model.params.complete_gradient()
    rng = np.random.default_rng(seed)
    try:
        probe = copy.deepcopy(model)
    except Exception:
        return False
    try:
        change = rng.uniform(-0.01, 0.01, probe.params.value.shape)
        # So that nothing hides behind a factor of 0.
        probe.params.value += probe.backend.asarray(change, dtype=probe.dtype)
        if moved:
            _move_numbers(probe, rng)
        x, eps = _batch_of(probe, rng)
        n = len(x)

        def found(rows: slice, scale: float = 1) -> list[Array]:
            """Return the terms, and the gradients one by one, of a share that is scaled down."""
            terms = share(probe.loss_and_grad, x, eps, rows, n * scale)  # type: ignore[arg-type]
            grad = scale * asnumpy(probe.params.grad)
            gradients = (probe.params.view(grad, name) for name in probe.params.names)
            return [scale * np.array([float(term) for term in terms]), *gradients]

        with np.errstate(all="ignore"):
            whole, one, other = found(slice(n)), found(slice(n // 2)), found(slice(n // 2, n))
            # A power of 2 changes no digit of what has a factor dloss. A penalty that has none
            # stands out where the rest is small, and a limit on the gradient where it is large.
            small, large = found(slice(n), 2**20), found(slice(n), 2**-20)
            if not all(np.isfinite(w).all() for w in whole):
                return None
            size = np.linalg.norm(np.concatenate([w.ravel() for w in whole[1:]]))
            ulp = np.finfo(probe.dtype).eps
            near = [
                # Rounding of sums in another order is far below.
                np.linalg.norm(w - v) <= 1e3 * ulp * np.linalg.norm(w) + 10 * ulp * size
                for w, a, b, c, d in zip(whole, one, other, small, large, strict=True)
                for v in (a + b, c, d)
            ]
    except Exception:  # the numbers may be none that it takes
        return None
    return all(near) and not bool(model.params.grad.any())


def _move_numbers(model: Autoencoder, rng: np.random.Generator) -> None:
    """Change the numbers that the model itself holds, such as beta, where it takes others."""
    for name, value in list(vars(model).items()):
        if _is_moved(value):
            setattr(model, name, value + rng.uniform(0.25, 0.5))
            try:
                model.check_parts()
            except InputError:  # IWAE's beta is 1
                setattr(model, name, value)


def _is_moved(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isfinite(value))


@contextmanager
def in_parts(
    model: Autoencoder, batch_size: int, may_divide: Callable[[Autoencoder], bool | None] = adds_up
) -> Iterator[LossAndGrad]:
    """Yield a function that does what ``model.loss_and_grad`` does, on as many threads as BLAS has.

    On a GPU it is `fused.loss_and_grad`. For batches of less than `ROWS` examples a thread, where
    BLAS makes better use of the threads, it is the method itself. Otherwise BLAS has one thread
    while this context lasts, and each part of a batch has one, with a twin of the model, made now.
    The sum over the examples is taken in another order than the method's, so the results differ by
    rounding; they are the same at every call with n threads. Where parts would differ from the
    whole by more, which `may_divide` tells, it is the method again.

    What changes in the model meanwhile reaches the twins if it is a parameter, or a number, an
    array, a tuple or a list of numbers that the model itself holds, such as beta. What changes in a
    layer, such as a flag of its own, does not.
    """
    if kernels.find("code_gradient", model.params.value):  # there is none for the CPU
        yield functools.partial(fused.loss_and_grad, model)
        return
    if model.backend.name != "numpy" or batch_size < 2 * ROWS:  # before the threads are looked up,
        yield model.loss_and_grad  # which takes as long as a short epoch
        return
    from threadpoolctl import threadpool_info, threadpool_limits

    found = [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    # A library that Numba loads in the middle of a run, SciPy's, would have all cores.
    n = min(found, default=1)
    if n == 1 or batch_size < n * ROWS:
        yield model.loss_and_grad
        return
    if not may_divide(model):
        yield model.loss_and_grad
        return
    twins = [model.twin() for _ in range(n - 1)]  # one for each other part
    workspace = written(model)

    def loss_and_grad(x: Array, eps: Array | None, batch_size: int | None = None) -> Terms:
        def part(model: Autoencoder, rows: slice) -> Terms:
            return share(model.loss_and_grad, x, eps, rows, batch_size or len(x))

        parts = (part_of(len(x), i, n) for i in range(n))
        first, *others = [rows for rows in parts if rows.start < rows.stop]
        # Each in a copy of this thread's context, where NumPy keeps what to do about an overflow.
        running = []
        for twin, rows in zip(twins, others, strict=False):
            twin.follow(model, but=workspace)
            running.append((twin, pool.submit(copy_context().run, part, twin, rows)))
        terms = [part(model, first)]
        # Each is a share of the mean over the whole batch, so they add.
        for twin, future in running:
            terms.append(future.result())
            model.params.grad += twin.params.grad
        return Terms(*np.sum(terms, axis=0))

    one = 1, "blas"  # a BLAS on OpenMP has to be told in each thread
    with (
        threadpool_limits(*one),
        futures.ThreadPoolExecutor(n - 1, initializer=threadpool_limits, initargs=one) as pool,
    ):
        yield loss_and_grad
