"""PyTorch's VAE example, two latents.

Source: no publication, but pytorch/examples, vae/main.py with 2 latents instead of 20, run with
five seeds.

Protocol: as PyTorch's VAE example, but 784-400-2.
"""

import pytorch_example
from published import Claim

SEEDS = 5
CLAIMS = [Claim("epoch 10", "test loss after 10 epochs", "153.7 to 155.3", 153.7, 155.3)]


def run(seed, quick=False):
    return pytorch_example.run(seed, quick, latent_dim=2)
