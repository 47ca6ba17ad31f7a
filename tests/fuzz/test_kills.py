"""Runs that are killed and interrupted again and again end as the one that was left alone."""

import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest
from fuzzing import FACTOR, SECONDS

from scratchvae import checkpoint, cli, run

pytestmark = pytest.mark.slow

TRAIN = ["train", "--hidden", "6", "--batch-size", "50", "--epochs", "60", "--device", "cpu"]
FILES = ("checkpoint.safetensors", "best.safetensors")
# Before the training there is nothing to save, and the system ends the process: below 0.
CODES = {"SIGKILL": [-9], "SIGINT": [130], "SIGTERM": [143, -15], "SIGHUP": [129, -1]}


def command(argv, log, ready):
    """Run a command line in this process, which was just made; a checkpoint after each epoch."""
    run.SECONDS_BETWEEN_CHECKPOINTS = 0
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # whoever started us may have ignored them
        default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        signal.signal(getattr(signal, name), default)
    try:
        ready.send(None)
        code = cli.main(argv)
    except KeyboardInterrupt:  # before the command line is ready for it
        code = 130
    sys.stdout.flush()
    os._exit(code)  # what multiprocessing does at its end is not ours to interrupt


@pytest.fixture(scope="module")
def start():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scratchvae.cli", "scratchvae.plots", "safetensors.numpy"])

    def start(argv, log):
        here, there = context.Pipe()
        process = context.Process(target=command, args=(argv, log, there))
        process.start()
        here.recv()
        return process

    return start


@pytest.mark.parametrize(
    ("name", "number"), [("SIGKILL", 4), ("SIGINT", 1), ("SIGTERM", 1), ("SIGHUP", 1)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, in newer versions of Python
def test_a_run_that_is_stopped_again_and_again(name, number, rng, start, tally, tmp_path):
    log, started = tmp_path / "log", time.monotonic()
    alone = start([*TRAIN, "--out", str(tmp_path / "alone")], log)
    alone.join()
    assert alone.exitcode == 0
    seconds = time.monotonic() - started
    left, runs = number * FACTOR, 0
    while left > 0:
        runs += 1
        folder = tmp_path / str(runs)
        while True:
            resumed = any((folder / file).exists() for file in FILES)
            # What a run was given it knows; with --epochs, one that has them would be refused.
            argv = [*TRAIN[:1], "--resume", *TRAIN[-2:]] if resumed else TRAIN
            process = start([*argv, "--out", str(folder)], log)
            # Early rather than late: at the end the figures take long, and nothing is lost there.
            delay = seconds * rng.uniform(0, 1) ** 3
            process.join(float(delay) if left > 0 else 6 * SECONDS)
            if process.exitcode is None:
                assert left > 0, "it hangs"
                os.kill(process.pid, getattr(signal, name))
                process.join(SECONDS)
                assert process.exitcode in (*CODES[name], 0), log.read_text()[-3000:]
                left -= 1
                tally(f"{name} of a run", "resumed" if resumed else "new")
            assert process.exitcode in (*CODES[name], 0), log.read_text()[-3000:]
            if process.exitcode == 0:
                break
        for file in FILES:
            a, b = (checkpoint.load(tmp_path / out / file) for out in ("alone", str(runs)))
            assert a[0].keys() == b[0].keys()
            for key in a[0]:
                np.testing.assert_array_equal(a[0][key], b[0][key])
            assert a[1]["rng"] == b[1]["rng"]
        left_over = [p.name for p in folder.rglob(".*")]
        assert left_over == []
    assert "Traceback" not in log.read_text()
