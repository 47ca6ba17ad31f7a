"""PyTorch's VAE example.

Source: pytorch/examples, vae/main.py; the figure is in the log of its pull request 1416, one run.

Protocol: 784-400-20 with ReLU on MNIST's grey pixels, Adam at 1e-3, batches of 128, 10 epochs. Its
initial parameters are those of torch.nn.Linear, which are ours too. The loss has one draw of each
code.
"""

from published import Claim, mnist

import scratchvae as sv

SEEDS = 5
# Two runs differ by some 0.3 nats for their seeds alone, and the log is of one.
CLAIMS = [
    Claim("epoch 7", "test loss after 7 epochs", "106.66", 106.16, 107.16),
    Claim("epoch 10", "test loss after 10 epochs", "none"),
]


def run(seed, quick=False, latent_dim=20):
    model = sv.VAE(784, hidden=(400,), latent_dim=latent_dim, rng=seed)
    optimizer = sv.Adam(model.params, lr=1e-3)
    trainer = sv.Trainer(model, optimizer, mnist(quick), batch_size=128, seed=seed)
    trainer.run(1 if quick else 10)
    losses = [metrics["test_loss"] for metrics in trainer.metrics]
    return {"epoch 7": losses[:7][-1], "epoch 10": losses[-1]}
