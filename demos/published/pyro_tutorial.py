"""Pyro's VAE tutorial.

Source: pyro-ppl/pyro, examples/vae; "a test elbo of about -102" is said of a run in its pull
request 1050.

Protocol: 784-400-50 with softplus on MNIST's grey pixels, Adam at 1e-3, batches of 256, 100 epochs.
Pyro's encoder gives log sigma where ours gives log sigma^2, and its KL is that of the drawn code.
"""

from published import Claim, mnist

import scratchvae as sv

SEEDS = 1
CLAIMS = [Claim("loss", "test -ELBO", "about 102", 101.0, 103.0)]


def run(seed, quick=False):
    model = sv.VAE(784, hidden=(400,), latent_dim=50, activation="softplus", rng=seed)
    optimizer = sv.Adam(model.params, lr=1e-3)
    trainer = sv.Trainer(model, optimizer, mnist(quick), batch_size=256, seed=seed)
    trainer.run(1 if quick else 100)
    last = trainer.metrics[-1]
    return {"loss": last["test_loss"], "kl": last["test_kl"]}
