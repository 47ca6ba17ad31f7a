"""What all tests share: random numbers that differ in every run and can be repeated.

No seed is fixed, so that a test which passes by luck of its numbers fails in some later run. The
seed of the run stands in pytest's header and in the output of each failed test; set
SCRATCHVAE_TEST_SEED to it and the run, or one test alone, draws the same numbers again, those of
Hypothesis too. On several workers (`pytest -n 2`) the seed is the same for all.
"""

import os
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

# The tests look at the definitions; oracles/test_host_kernels.py holds the kernels to them.
os.environ["SCRATCHVAE_COMPILED"] = "0"

# Drawn once, by the process that starts the run: its workers inherit the environment.
SEED = int(os.environ.get("SCRATCHVAE_TEST_SEED") or np.random.SeedSequence().entropy)
os.environ["SCRATCHVAE_TEST_SEED"] = str(SEED)

# A slow machine is no failure, be it the test or the drawing of its case that takes long.
# print_blob: a failing case can be run again elsewhere.
settings.register_profile(
    "scratchvae",
    derandomize=False,  # as Hypothesis would where the environment says CI
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
# For `make mutants`: a failure is enough there, nobody reads the smallest one; and what fails for
# one mutant must not be kept and tried on the next.
settings.register_profile(
    "mutants",
    parent=settings.get_profile("scratchvae"),
    phases=(Phase.explicit, Phase.generate),
    database=None,
)
settings.load_profile("scratchvae")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis and the workers look
def pytest_configure(config):
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = str(SEED)
    # Each worker takes its share of the cores: threads that fight for one are slower than one.
    if workers := config.getoption("--numprocesses", None):
        for library in ("OPENBLAS", "OMP", "MKL"):
            threads = max(1, (os.cpu_count() or 1) // workers)
            os.environ.setdefault(f"{library}_NUM_THREADS", str(threads))


def pytest_report_header():
    return f"SCRATCHVAE_TEST_SEED={SEED}"


@pytest.fixture
def rng(request):
    """A generator of the test's own, whatever other tests run before it."""
    print(f"SCRATCHVAE_TEST_SEED={SEED}")
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])
