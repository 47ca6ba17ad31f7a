"""How long a step takes on many ranks: measured on those that are here, and by a formula beyond.

    python demos/benchmarks/ranks_of_mpi.py --table
    mpiexec -n 2 python -m mpi4py demos/benchmarks/ranks_of_mpi.py

The first prints the table of the guide's page "More than one machine", the second measures. Set
OPENBLAS_NUM_THREADS=1 for ranks of one thread.
"""

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np

import scratchvae as sv


@dataclass(frozen=True)
class Network:
    """A way between ranks: the time of a message is latency + bytes / bandwidth."""

    name: str
    latency: float  # s
    bandwidth: float  # bytes/s


NETWORKS = (
    Network("Ethernet, 1 Gbit/s", 50e-6, 1e9 / 8),
    Network("Ethernet, 25 Gbit/s", 20e-6, 25e9 / 8),
    Network("InfiniBand, 200 Gbit/s", 2e-6, 200e9 / 8),
)
PARAMETERS, LATENT, BYTES = 652_824, 20, 4  # of 784-400-20 in float32
EXAMPLE = 36e-6  # s that a core computes for an example: forward, loss, backward
FIXED = 0.7e-3  # s for what each rank does once a step: Adam, the check of the gradient
NORMAL = 8e-9  # s for a number of the noise, which each rank draws for the whole batch


def step(ranks: int, batch_size: int, network: Network) -> float:
    """Return the seconds of a step, by the formula of the page."""
    compute = math.ceil(batch_size / ranks) * EXAMPLE + FIXED + batch_size * LATENT * NORMAL
    if ranks == 1:
        return compute
    sent = 2 * (ranks - 1) / ranks * PARAMETERS * BYTES
    latencies = 3 * 2 * math.ceil(math.log2(ranks))  # gradient, terms, whether to stop
    return compute + sent / network.bandwidth + latencies * network.latency


def table() -> str:
    """Return how many times faster than on one rank examples are trained on, as Markdown."""
    sizes = 2, 4, 16, 64, 256, 1000
    head = "| network | rows | " + " | ".join(f"{n}" for n in sizes) + " |"
    lines = [head, "|---|---|" + "--:|" * len(sizes)]
    for network in NETWORKS:
        for what, rows in ("1,024 a batch", None), ("1,024 a rank", 1024):
            cells = []
            for n in sizes:
                batch = n * rows if rows else 1024
                faster = step(1, 1024, network) * (batch / 1024) / step(n, batch, network)
                cells.append(f"{faster:.2g}" if faster < 10 else f"{faster:.0f}")
            lines.append(f"| {network.name} | {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(comm, rounds: int, images, rows: int = 1024) -> None:
    """Print the seconds of a step alone and on all ranks, with as many rows a batch or a rank."""

    def trainer(batch_size, comm):
        model = sv.VAE(784, rng=0)
        return sv.Trainer(model, sv.Adam(model.params), images, batch_size=batch_size, comm=comm)

    size = comm.size
    cases = {"alone": (rows, None), f"{rows:,} a batch": (rows, comm)}
    cases |= {f"{rows:,} a rank": (rows * size, comm)}
    seconds = {name: [] for name in cases}
    for _ in range(rounds):  # in turns, so that what else runs here is spread over all
        for name, (batch_size, of) in cases.items():
            comm.Barrier()
            if of is None and comm.rank > 0:
                continue
            times = seconds[name]
            t = trainer(batch_size, of)
            before = [clocks()]

            def note(terms, t=t, before=before, times=times):
                now = clocks()
                times.append(now - before[0])
                before[0] = now
                t.stop = t.batch >= 12

            t.run(1, note)
            del times[-t.batch]  # the first, which touches new memory
        comm.Barrier()
    if comm.rank > 0:
        return
    alone = np.array(seconds["alone"])
    for name, (batch_size, _) in cases.items():
        found = np.array(seconds[name])  # (steps, 2)
        more = batch_size / rows
        print(f"{name}: {size if name != 'alone' else 1} ranks, {len(found)} steps of {batch_size}")
        for what, f in ("best", np.min), ("median", np.median):
            for i, clock in enumerate(("wall", "CPU")):
                print(f"    {what} {clock} time {1e3 * f(found[:, i]):.1f} ms, "
                      f"{more * f(alone[:, i]) / f(found[:, i]):.2f} times as fast")  # fmt: skip


def clocks():
    """Return the time on the wall and that of the processor: what else runs is not in the latter.

    It holds the waiting for other ranks, which MPI does in a loop, in all but the best steps.
    """
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the table of the formula")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    args = parser.parse_args()
    if args.table:
        print(table())
    else:
        from mpi4py import MPI

        rng = np.random.default_rng(0)
        measure(MPI.COMM_WORLD, args.rounds, rng.integers(0, 256, (20_000, 784), dtype=np.uint8))
