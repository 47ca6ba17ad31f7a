"""What the benchmark has PyTorch do: on a GPU, as far as it shows without one, and on MNIST."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import import_oracle

torch = import_oracle("torch")
FOLDER = Path(__file__).resolve().parents[2] / "demos" / "benchmarks"


@pytest.mark.parametrize(("precision", "setting"), [("float32", "highest"), ("TF32", "high")])
def test_pytorch_takes_the_precision_by_its_own_setting(precision, setting, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import contestants
    import gpu_check

    for name, value in gpu_check.PRECISIONS[precision].items():
        monkeypatch.setenv(name, value)
    before = torch.get_float32_matmul_precision()
    try:
        contestants.torch_fused(contestants.Case((784, 4, 2), "relu", 8, n=64))(2)
        assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)


def test_its_example_trains_until_a_loss_is_reached(rng, tmp_path):
    """In a process of its own, as in the benchmark: the data loader forks it."""
    for part, n in ("train", 1000), ("t10k", 30):
        pixels = rng.choice(np.array([0, 255], np.uint8), (n, 784), p=[0.9, 0.1])
        header = np.array([0x803, n, 28, 28], ">i4")
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header.tobytes() + pixels.tobytes())
    # An untrained model gives each pixel about log 2 = 0.69 nats, a good one 0.33 for one in ten.
    target = 0.65 * 784
    code = f"import contestants; contestants.torch_until({target}, (784, 4, 2))"
    env = {**os.environ, "SCRATCHVAE_DATA": str(tmp_path), "PYTHONPATH": str(FOLDER)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines()]
    assert 1 < len(losses) < 100
    assert losses[-1] <= target < min(losses[:-1])
    assert losses[0] < 0.75 * 784
