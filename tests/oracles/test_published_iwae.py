"""PyTorch's side of the published numbers has the loss that our IWAE has."""

from pathlib import Path

import numpy as np
import pytest
from oracle import import_oracle

import scratchvae as sv

torch = import_oracle("torch")
FOLDER = Path(__file__).resolve().parents[2] / "demos" / "published"


@pytest.mark.parametrize("k", [1, 5])
def test_the_loss_of_the_stages_in_pytorch_is_ours(monkeypatch, rng, k):
    monkeypatch.syspath_prepend(FOLDER)
    import iwae_pytorch

    parts = {"encoder": [784, 9, 8, 6], "decoder": [3, 8, 9, 784]}
    model = sv.IWAE(784, (9, 8), 3, activation="tanh", samples=k, rng=0, dtype="float64")
    stacks = {part: iwae_pytorch.network(widths).double() for part, widths in parts.items()}
    iwae_pytorch.copy_parameters(stacks, model)
    x = (rng.random((4, 784)) < 0.5).astype(float)
    eps = rng.standard_normal((k, 4, 3))
    monkeypatch.setattr(torch, "randn", lambda *shape: torch.tensor(eps).reshape(shape))
    theirs = iwae_pytorch.loss(*stacks.values(), torch.tensor(x), k)
    assert theirs.item() == pytest.approx(float(model.loss_and_grad(x, eps).loss), rel=1e-12)
    theirs.backward()
    for name, p in stacks["decoder"].named_parameters():
        ours = model.params[f"decoder.{iwae_pytorch.our_name(name)}"].grad
        np.testing.assert_allclose(ours, p.grad.numpy().T, rtol=0, atol=1e-10)
