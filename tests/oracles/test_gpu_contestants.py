"""What the contestants on a GPU are told, as far as it shows without one."""

from pathlib import Path

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
