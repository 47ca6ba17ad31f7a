"""Keras's VAE example, in PyTorch.

Source: none: it is the protocol of Keras's example once more, in another framework, to tell a fault
of ours from a spread over seeds.

Protocol: as Keras's example, with torch.nn, autograd and torch.optim.Adam, and the far edges of the
images padded, as Keras does.
"""

import importlib.util

import numpy as np
from published import Claim, mnist

SEEDS = 1
FULL = True  # it need not be measured again with ours
CLAIMS = [
    Claim("loss", "training loss", "none"),
    Claim("rec", "reconstruction", "none"),
    Claim("kl", "KL", "none"),
]
SKIP = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"


def parts():
    """Return encoder and decoder, with Glorot's initial parameters."""
    from torch import nn

    def far_edges():
        return nn.ZeroPad2d((0, 1, 0, 1))

    encoder = nn.Sequential(
        *(far_edges(), nn.Conv2d(1, 32, 3, stride=2), nn.ReLU()),  # (B, 32, 14, 14)
        *(far_edges(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64 * 7 * 7, 16), nn.ReLU(), nn.Linear(16, 2 * 2)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(2, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
        # A transposed convolution gives one row and one column more, at the far edges.
        *(nn.ConvTranspose2d(64, 64, 3, stride=2), nn.ZeroPad2d((0, -1, 0, -1)), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 3, stride=2), nn.ZeroPad2d((0, -1, 0, -1)), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 1, 3, padding=1), nn.Flatten()),  # (B, 784)
    )
    for part in encoder, decoder:
        for layer in part:
            if hasattr(layer, "weight"):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return encoder, decoder


def run(seed, quick=False):
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    data = mnist(quick)
    images = torch.tensor(np.concatenate([data.train, data.test])).reshape(-1, 1, 28, 28)
    encoder, decoder = parts()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-7)
    for _ in range(1 if quick else 30):
        totals = np.zeros(2)
        for rows in torch.randperm(len(images)).split(128):
            x = images[rows] / 255  # (B, 1, 28, 28)
            mu, logvar = encoder(x).chunk(2, dim=1)  # (B, Z)
            z = mu + (logvar / 2).exp() * torch.randn_like(mu)
            nll = binary_cross_entropy_with_logits(decoder(z), x.flatten(1), reduction="sum")
            kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
            optimizer.zero_grad()
            ((nll + kl) / len(rows)).backward()
            optimizer.step()
            totals += nll.item(), kl.item()
        rec, kl = totals / len(images)
    return {"loss": rec + kl, "rec": rec, "kl": kl}
