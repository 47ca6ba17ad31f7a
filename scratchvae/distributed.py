"""A batch in parts on many machines: each rank of MPI takes some of its rows.

A rank is one of the processes that ``mpiexec`` starts. All hold the same parameters and take the
same steps: what they exchange is the gradient, a flat vector, once a step. The engine is MPI,
through mpi4py; a communicator is an argument, so that nothing here imports either.

Order and noise are drawn for the whole batch on every rank, from the same random state, and each
rank takes its rows of them. Its loss and gradient are divided by the size of the whole batch, so
that the sum over the ranks is the mean, also where a batch does not divide.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import parallel
from .backend import Array, asnumpy
from .checkpoint import is_plain
from .errors import InputError, RanksDifferError, check_count, on_one_line, short
from .parallel import LossAndGrad, adds_up, identity, in_parts, part_of, share, switches
from .vae import Autoencoder, Terms


class AgreedError(InputError):
    """An input cannot be used; every rank raises the same sentence, so that one may say it."""


class Ranks:
    """The processes that train a model together; without a communicator, this one alone.

    Parameters
    ----------
    comm : communicator of mpi4py, optional
        Or anything with its `rank`, `size`, `allgather`, `Allreduce`, `Alltoall`, `Allgather` and
        `Barrier`. Every rank calls the methods below in the same order.
    shards : int
        With S > 0 a batch is cut into S parts, each computed with one BLAS thread, and their
        gradients are added in the order of the parts. How many ranks share the parts changes no
        bit then, on machines of one kind. With 0 each rank computes one part as fast as it can,
        and MPI adds in an order of its own.

    Raises
    ------
    InputError
        If `comm` is no communicator, or the number of its ranks does not divide `shards`.
    """

    def __init__(self, comm: Any = None, shards: int = 0) -> None:
        wanted = ("rank", "size", "allgather", "Allreduce", "Alltoall", "Allgather")
        # MPI.COMM_NULL is false, and where it is asked for one of these MPI raises its own error.
        usable = bool(comm) and all(hasattr(comm, name) for name in wanted)
        if comm is not None and not usable:
            raise InputError(
                f"comm is {comm!r}: expected a communicator such as MPI.COMM_WORLD, of which this "
                "process is a rank"
            )
        self.comm, self.shards = comm, check_count("shards", shards)
        self.rank: int = 0 if comm is None else comm.rank
        self.size: int = 1 if comm is None else comm.size
        self._asked: tuple[Any, bool | None, Any] = (None, None, None)
        if shards % self.size:
            raise InputError(
                f"shards is {shards}, for {self.size} ranks: expected a number that {self.size} "
                "divides, or 0"
            )

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def describe(self, model: Autoencoder) -> str:
        """Return in one line how the ranks add their gradients."""
        way = f"in the order of {self.shards} shards" if self.shards else "by all-reduce"
        if model.backend.name != "numpy":
            way += ", from GPU to GPU" if reads_device(self.comm) else ", through the host"
        return f"{self.size} ranks; their gradients are added {way}."

    # --- what every rank must agree on

    def _gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order."""
        return [value] if self.size == 1 else list(self.comm.allgather(value))

    def _gather_named(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the values of all ranks by name, as text if they are not plain."""
        return self._gather({k: v if is_plain(v) else str(v) for k, v in values.items()})

    def any(self, *flags: bool) -> list[bool]:
        """Return of each flag whether it is set on any rank."""
        return [any(of_all) for of_all in zip(*self._gather(flags), strict=True)]

    def require_rows(self, n: int) -> None:
        """Raise InputError if there are more ranks than the n examples."""
        if self.size > n:
            raise InputError(f"there are {self.size} ranks, and {n} training examples: a rank "
                             "would have nothing to do, so start fewer")  # fmt: skip

    def require_same(self, values: Callable[[], Mapping[str, Any]]) -> None:
        """Raise AgreedError, on every rank, naming the first value that is not the same on all."""
        if self.size == 1:
            return
        first, *others = self._gather_named(values())
        for rank, other in enumerate(others, 1):
            for name in _different(first, other):
                raise AgreedError(
                    f"rank {rank} was given other values than rank 0: {name} is "
                    f"{short(other.get(name))} there and {short(first.get(name))} here; expected "
                    "the same on each"
                )

    def require_same_state(self, values: Callable[[], Mapping[str, Any]], when: str) -> None:
        """Raise RanksDifferError, on every rank, naming all values that are not the same on all."""
        if self.size == 1:
            return
        first, *others = self._gather_named(values())
        different = {str(rank): _different(first, other) for rank, other in enumerate(others, 1)}
        if ranks := [rank for rank, names in different.items() if names]:
            names = dict.fromkeys(name for names in different.values() for name in names)
            raise RanksDifferError(
                f"{when}: rank 0 no longer agrees with rank {', '.join(ranks)} on "
                f"{on_one_line(names)}; the cause may be what one rank alone did, as in a "
                "callback or a schedule, a fault of the memory or the network, or machines of "
                "different kinds"
            )

    @contextmanager
    def together(self, say: Callable[[Exception], str] = str) -> Iterator[None]:
        """Let all ranks leave the block, or none: each raises AgreedError if one had an error.

        In the block no rank may wait for another.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            if self.size == 1:
                raise
            error = raised
        sentences = self._gather(say(error) if isinstance(error, InputError) else repr(error))
        for rank, sentence in enumerate(sentences):
            if sentence != repr(None):
                where = "" if rank == 0 else f"rank {rank}: "
                raise AgreedError(f"{where}{sentence}") from error

    # --- a batch

    def rows(self, n: int) -> slice:
        """Return the rows of a batch of n that this rank takes; there may be none."""
        return part_of(n, self.rank, self.size)

    def forget(self) -> None:
        """Forget what `adds_up` said of a model: training begins, and it may have changed."""
        self._asked = None, None, None

    def _adds_up(self, model: Autoencoder) -> bool | None:
        """Return what `adds_up` says, which takes as long as a few steps: ask once for a model."""
        key = identity(model)
        if self._asked[0] != key:
            # What the key names by its id is held, so that nothing new can have that id.
            self._asked = key, adds_up(model), (model.params, model._all_layers())
        return self._asked[1]

    def asked_about(self, model: Autoencoder, batch_size: int) -> Any:
        """Return what the answer to `adds_up` hangs on besides numbers that it tries, if asked."""
        divided = self.shards or self.size > 1 or batch_size >= 2 * parallel.ROWS
        return switches(model) if divided else None

    @contextmanager
    def in_parts(self, model: Autoencoder, batch_size: int) -> Iterator[LossAndGrad]:
        """Yield a function (x, eps, batch_size) -> terms, for this rank's rows of a batch.

        It does what ``model.loss_and_grad`` does with the whole of it: on every rank it returns the
        loss of all rows, and leaves their gradient in ``model.params.grad``.

        Raises
        ------
        AgreedError
            If a batch of the model cannot be shared out, see `parallel.adds_up`.
        """
        # Where it cannot be told, go on: what is not finite the trainer will name.
        if (self.shards or self.size > 1) and self.any(self._adds_up(model) is False)[0]:
            raise AgreedError(
                "the batches of this model cannot be shared out: the loss and gradient of a batch "
                "are not the sums of those of its parts, as where a layer normalises over the "
                "batch or draws random numbers of its own, or the gradient is clipped, or it holds "
                "what cannot be copied, such as an open file, or its loss_and_grad takes no "
                "batch_size; train it in one process, without shards"
            )
        if self.shards:
            from threadpoolctl import threadpool_limits

            with threadpool_limits(1, "blas"):  # a product differs by bits with their number
                yield _Shards(self, model)
            return
        rows = self.rows(batch_size)
        with in_parts(model, rows.stop - rows.start, self._adds_up) as loss_and_grad:
            if self.size == 1:
                yield lambda x, eps, batch_size: loss_and_grad(x, eps)
            else:
                yield _Sum(self, model, loss_and_grad)


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names whose values are not the same."""
    return [name for name in {**one, **other} if not _equal(one.get(name), other.get(name))]


def _equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal; a list may be a tuple, as 1 may be 1.0."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


class _Exchange:
    """Buffers for the gradient (P,), on the host unless MPI reads the device's memory."""

    def __init__(self, ranks: Ranks, model: Autoencoder) -> None:
        self.ranks, self.model, self.comm = ranks, model, ranks.comm
        on_device = model.backend.name != "numpy" and reads_device(ranks.comm)
        self.xp: Any = model.backend.xp if on_device else np
        self.wait = model.backend.xp.cuda.get_current_stream().synchronize if on_device else None

    def out(self) -> Array:
        """Return the model's gradient as an array that MPI can send."""
        grad = self.model.params.grad  # (P,)
        if self.wait is None:
            return asnumpy(grad)
        self.wait()  # MPI knows nothing of the stream that still writes
        return grad

    def take(self, gradient: Array) -> None:
        """Write a gradient (P,) into the model's."""
        self.model.params.grad[...] = self.model.backend.asarray(gradient)

    def numbers(
        self, function: LossAndGrad, x: Array, eps: Array | None, rows: slice, n: int
    ) -> list[float]:
        """Return the terms of some rows as numbers, (3,): zeros where there are none."""
        if rows.start == rows.stop:
            self.model.params.grad[...] = 0
            return [0.0] * len(Terms._fields)
        return [float(term) for term in share(function, x, eps, rows, n)]

    def terms(self, sums: np.ndarray[Any, Any]) -> Terms:
        return Terms(*self.model.backend.asarray(sums))  # float64, where the model is


class _Sum(_Exchange):
    """The fast way: one part a rank, and MPI's own sum."""

    def __init__(self, ranks: Ranks, model: Autoencoder, loss_and_grad: LossAndGrad) -> None:
        super().__init__(ranks, model)
        self.loss_and_grad = loss_and_grad
        self.sum = self.xp.empty(len(model.params.value), dtype=model.dtype)  # (P,)

    def __call__(self, x: Array, eps: Array | None, batch_size: int) -> Terms:
        mine, terms = slice(0, len(x)), np.empty(3)
        own = np.array(self.numbers(self.loss_and_grad, x, eps, mine, batch_size))
        self.comm.Allreduce(self.out(), self.sum)
        self.comm.Allreduce(own, terms)
        self.take(self.sum)
        return self.terms(terms)


class _Shards(_Exchange):
    """The way that no number of ranks changes: S parts, and their sum in the order of the parts.

    Every rank adds one block of the gradient, of all S parts, and hands it to the others. What it
    sends and receives is the same as in an all-reduce where S is the number of ranks.
    """

    def __init__(self, ranks: Ranks, model: Autoencoder) -> None:
        super().__init__(ranks, model)
        self.each, self.length = ranks.shards // ranks.size, len(model.params.value)
        self.width = -(-self.length // ranks.size)  # of a block, rounded up
        shape = ranks.size, self.each, self.width
        self.sent, self.received = (self.xp.zeros(shape, dtype=model.dtype) for _ in range(2))
        self.whole = self.xp.zeros(ranks.size * self.width, dtype=model.dtype)

    def __call__(self, x: Array, eps: Array | None, batch_size: int) -> Terms:
        ranks, start = self.ranks, self.ranks.rows(batch_size).start
        terms, all_terms = np.empty((self.each, 3)), np.empty((ranks.shards, 3))
        for k in range(self.each):
            part = part_of(batch_size, ranks.rank * self.each + k, ranks.shards)
            rows = slice(part.start - start, part.stop - start)
            terms[k] = self.numbers(self.model.loss_and_grad, x, eps, rows, batch_size)
            gradient = self.out()
            for r in range(ranks.size):
                block = gradient[r * self.width : (r + 1) * self.width]
                self.sent[r, k, : len(block)] = block
        if ranks.size == 1:
            self.received, all_terms = self.sent, terms
        else:
            self._wait()
            self.comm.Alltoall(self.sent, self.received)
            self.comm.Allgather(terms, all_terms)
        shards = self.received.reshape(ranks.shards, self.width)
        total = shards[0].copy()  # (width,)
        for shard in shards[1:]:
            total += shard
        if ranks.size == 1:
            self.whole = total
        else:
            self._wait()
            self.comm.Allgather(total, self.whole)
        self.take(self.whole[: self.length])
        sums = np.zeros(3)
        for of_part in all_terms:
            sums += of_part
        return self.terms(sums)

    def _wait(self) -> None:
        if self.wait is not None:
            self.wait()


def reads_device(comm: Any) -> bool:
    """Return whether a communicator takes arrays of a GPU, as far as MPI says so.

    Notes
    -----
    "MPI: A Message-Passing Interface Standard", version 4.1, 2023, section 12.4.3: the key
    `mpi_memory_alloc_kinds`.
    """
    info = comm.Get_info() if hasattr(comm, "Get_info") else None
    return "cuda" in str(info.Get("mpi_memory_alloc_kinds") if info is not None else "")


# --- the processes of mpiexec --------------------------------------------------------------------


def launched(what: str) -> int | None:
    """Return the "RANK" or the "SIZE" that ``mpiexec`` says, before MPI is loaded, if it does."""
    for prefix in ("PMI", "OMPI_COMM_WORLD", "PMIX"):
        if (found := os.environ.get(f"{prefix}_{what}", "")).isdecimal():
            return int(found)
    return None


def world() -> Any:
    """Return the communicator of all processes that ``mpiexec`` started.

    Raises
    ------
    InputError
        If mpi4py or an MPI library is missing, or `mpiexec` belongs to another library.
    """
    try:
        from mpi4py import MPI
    except ModuleNotFoundError:
        raise InputError(
            "mpi4py is not installed: expected it with an MPI library, as after "
            "pip install mpi4py mpich"
        ) from None
    except (ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"mpi4py finds no MPI library ({text}): expected one, as after pip install mpich, or "
            "its path in MPI4PY_LIBMPI"
        ) from None
    comm, size = MPI.COMM_WORLD, launched("SIZE")
    if size is not None and size != comm.size:
        name = " ".join(MPI.Get_library_version().split("\n")[0].split(",")[0].split())
        raise InputError(
            f"mpiexec started {size} processes, and MPI knows of {comm.size}: expected the mpiexec "
            f"of the library that mpi4py has loaded, {name}"
        )
    return comm


def threads_of_rank(comm: Any) -> int:
    """Return how many threads BLAS may have on each rank, so that all have a core."""
    cores = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    if mine < cores:  # mpiexec has bound this rank to cores of its own
        return mine
    beside = comm.Split_type(sys.modules["mpi4py.MPI"].COMM_TYPE_SHARED).size
    return max(1, cores // int(beside))


def end_all() -> None:
    """Let the end of this process end those of all ranks, which would wait for it for ever.

    ``python -m mpi4py`` does so where an error is not caught; ``python`` alone does not.
    """
    if "mpi4py.MPI" in sys.modules:
        from mpi4py.run import set_abort_status

        set_abort_status(2)


def end_waiting() -> None:
    """Let the end of this process, which has no MPI, end those that wait for it in ``MPI_Init``.

    Open MPI's ``mpiexec`` ends them where an exit code is not 0. That of MPICH has to be told, by a
    line of the protocol PMI-1.
    """
    if (fd := os.environ.get("PMI_FD", "")).isdecimal():
        # At the very end: the sentence that says why comes first.
        atexit.register(os.write, int(fd), b"cmd=abort exitcode=2\n")


def leave(comm: Any) -> None:
    """Wait for all ranks, and end MPI: no rank's exit code ends another any more."""
    comm.Barrier()
    mpi: Any = sys.modules.get("mpi4py.MPI")
    if mpi is not None and comm == mpi.COMM_WORLD:
        mpi.Finalize()
