"""Ranks that are threads: what scratchvae uses of a communicator of mpi4py, without MPI."""

import copy
import threading

from threadpoolctl import threadpool_limits


class Communicator:
    """One rank's view of a world of `size` threads. Sums are taken from the last rank to the first.

    So they differ by rounding from those in the order of the ranks, as MPI's may.
    """

    def __init__(self, rank, size, barrier, board):
        self.rank, self.size, self._barrier, self._board = rank, size, barrier, board
        self.calls = []  # the names of the collectives, in their order
        self.seen = []  # the types of the arrays that were handed in

    def _swap(self, name, value):
        """Return what every rank has put on the board; all must have come by the same call."""
        self.calls.append(name)
        self.seen.append(type(value))
        self._board[self.rank] = name, copy.deepcopy(value)
        self._barrier.wait()
        names, values = zip(*self._board, strict=True)
        self._barrier.wait()
        assert set(names) == {name}, f"ranks wait for each other in {names}"
        return values

    def allgather(self, value):
        return list(self._swap("allgather", value))

    def Barrier(self):
        self._swap("Barrier", None)

    def Allreduce(self, sent, received):
        assert sent.dtype == received.dtype
        received[...] = sum(self._swap("Allreduce", sent)[::-1])

    def Allgather(self, sent, received):
        assert sent.dtype == received.dtype
        places = received.reshape(self.size, -1)
        for i, part in enumerate(self._swap("Allgather", sent)):
            places[i] = part.ravel()

    def Alltoall(self, sent, received):
        assert sent.dtype == received.dtype
        for i, of_rank in enumerate(self._swap("Alltoall", sent)):
            received[i] = of_rank[self.rank]


def on_ranks(size, function, kind=Communicator):
    """Return what `function(comm)` returns, or the exception that it raises, on each rank."""
    barrier, board, results = threading.Barrier(size, timeout=20), [None] * size, [None] * size

    def one(rank):
        try:
            results[rank] = function(kind(rank, size, barrier, board))
        except Exception as error:
            results[rank] = error
            if isinstance(error, AssertionError):
                barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    with threadpool_limits(1, "blas"):  # one setting for all threads, and each would restore it
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


def all_well(results):
    """Return the results; raise the first that is an exception."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
