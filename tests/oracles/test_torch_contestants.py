"""What the benchmark has PyTorch do: on a GPU, as far as it shows without one, and on MNIST."""

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


def test_its_example_trains_until_a_loss_is_reached(monkeypatch, rng, tmp_path, capfd):
    monkeypatch.syspath_prepend(FOLDER)
    import contestants

    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path))
    for part, n in ("train", 200), ("t10k", 30):
        pixels = rng.choice(np.array([0, 255], np.uint8), (n, 784), p=[0.9, 0.1])
        header = np.array([0x803, n, 28, 28], ">i4")
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header.tobytes() + pixels.tobytes())
    # An untrained model gives each pixel about log 2 = 0.69 nats, a good one 0.33 for one in ten.
    contestants.torch_until(0.65 * 784, (784, 4, 2))
    lines = capfd.readouterr().out.splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    assert 1 < len(losses) < 100
    assert losses[-1] <= 0.65 * 784 < losses[-2] < losses[0] < 0.75 * 784
