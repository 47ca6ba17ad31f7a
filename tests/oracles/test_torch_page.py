"""docs/guide/pytorch.md: its lines, run as they stand there, open a checkpoint in PyTorch."""

import re
from pathlib import Path

import numpy as np
import pytest
from oracle import import_oracle

import scratchvae as sv

torch = import_oracle("torch")
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "pytorch.md"


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_the_page_opens_a_checkpoint(network, rng, tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    opened, used, conv = re.findall(r"^```python\n(.+?)^```", text, re.MULTILINE | re.DOTALL)
    if network == "conv":
        modules, loop = re.search(r"(?s)^(encoder = .+\n)(with .+)", opened, re.MULTILINE).groups()
        opened = opened.removesuffix(modules + loop) + conv + loop
    shape = {"image_shape": (28, 28)} if network == "conv" else {}
    model = sv.VAE(784, latent_dim=20, network=network, **shape, rng=rng)
    data = sv.datasets.Dataset.from_arrays(rng.random((20, 28, 28), dtype=np.float32))
    trainer = sv.Trainer(model, sv.Adam(model.params), data)
    trainer.run(1)
    (tmp_path / "runs" / "mnist").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    sv.checkpoint.save("runs/mnist/checkpoint.safetensors", *trainer.state())  # as a run does

    x = rng.random((9, 784), dtype=np.float32)
    names = {"x": torch.from_numpy(x)}
    exec(opened + used, names)
    found = [names[name].detach().numpy() for name in ("mu", "logvar", "images")]
    mu, logvar = model.encode(x)
    for ours, theirs in zip((mu, logvar, model.decode(mu)), found, strict=True):
        # In float32: sums of up to 3,136 products, below 1 in size, some 2e-7 apart.
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6)
