"""One rank of a job that a test starts: trains the run in a folder, and may be told to die in it.

mpiexec -n N python -m mpi4py mpi_worker.py FOLDER DATA SHARDS DTYPE [RANK STEP]
"""

import os
import signal
import sys
from pathlib import Path

from mpi4py import MPI

import scratchvae as sv
from scratchvae import run

folder, data, shards, dtype, *death = sys.argv[1:]
comm = MPI.COMM_WORLD
run.SECONDS_BETWEEN_CHECKPOINTS = 0  # one after every epoch
if (Path(folder) / run.LAST).exists():
    job = run.resume(folder, comm=comm)
else:
    options = run.Options(
        data,
        hidden=(9,),
        latent=2,
        epochs=40,
        batch_size=9,
        shards=int(shards),
        dtype=dtype,
        seed=5,
    )
    job = run.new(options, folder, comm=comm)
comm.Barrier()  # all have looked whether there is a run
steps = 0


def step(terms: sv.Terms) -> None:
    global steps
    steps += 1
    if death and [comm.rank, steps] == list(map(int, death)):
        os.kill(os.getpid(), signal.SIGKILL)


job.train(on_step=step)
