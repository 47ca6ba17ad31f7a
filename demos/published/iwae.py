"""IWAE, table 1, four of eight stages.

Source: Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted Autoencoders", 2016, and
their code, yburda/iwae. Table 1 has figures after all eight stages only. So four of them are
compared with the same in PyTorch.

Protocol: 784-200-200-50 with tanh, Glorot's initial parameters, the decoder's last bias at the
log-odds of the mean image; 59,600 training images, whose pixels are drawn anew each time; batches
of 20, Adam with betas 0.99 and 0.999 and an eps of 1e-4 for the sum over a batch, which is 5e-6
for the mean; stages i = 0, 1, 2, 3 of 3^i epochs each, at the rate 1e-3 10^(-i/7). -log p(x) by
1,000 samples for the first 1,000 test images, drawn once. The authors' Adam begins with second
moments of 1, their batches are not shuffled, and their encoder gives log sigma; ours begins with
0, shuffles and gives log sigma^2.
"""

import numpy as np
from published import Claim, glorot, mnist

import scratchvae as sv

SEEDS = 1
PYTORCH = "iwae_pytorch"
# One run each, and the seed alone moves -log p(x) by some 0.2 nats.
CLAIMS = [
    Claim("k = 1", "-log p(x), k = 1", "PyTorch's ± 0.6", -0.6, 0.6, beside=PYTORCH),
    Claim("k = 5", "-log p(x), k = 5", "PyTorch's ± 0.6", -0.6, 0.6, beside=PYTORCH),
    Claim("gain", "k = 5 is ahead by", "PyTorch's ± 0.4", -0.4, 0.4, beside=PYTORCH),
]
ADAM = {"betas": (0.99, 0.999), "eps": 1e-4 / 20}


def images(quick):
    """Return the training images of the paper, all but the last 400, and the test images."""
    data = mnist(quick)
    return sv.datasets.Dataset.from_arrays(data.train[:59_600], test=data.test)


def log_odds(data):
    """Return the logits of the mean training image, (784,)."""
    mean = np.clip(data.train.mean(axis=0) / 255, 0.001, 0.999)
    return np.log(mean / (1 - mean))


def schedule(stages):
    """Return the learning rate over the epochs, and their number."""
    starts = np.cumsum([0, *(3**i for i in range(stages))])
    rates = {int(start): 1e-3 * 10 ** (-i / 7) for i, start in enumerate(starts[:-1])}
    return sv.step_list(1e-3, rates), int(starts[-1])


def train(seed, k, stages, quick):
    """Return a trained model and the trainer, which knows the test images."""
    data, (rates, epochs) = images(quick), schedule(1 if quick else stages)
    model = sv.IWAE(784, hidden=(200, 200), latent_dim=50, activation="tanh", samples=k, rng=seed)
    glorot(model, seed)
    model.params["decoder.4.b"].value[...] = log_odds(data)
    optimizer = sv.Adam(model.params, **ADAM)
    trainer = sv.Trainer(
        model, optimizer, data, batch_size=20, schedule=rates, binarize="dynamic", seed=seed
    )
    trainer.run(epochs)
    return model, trainer


def nll(model, trainer, samples, images=10_000):
    """Return -log p(x) in nats over the first test images."""
    x = np.concatenate([*trainer.test_batches()])[:images]
    bound = sv.evaluation.importance_weighted_bound(model, [x], samples, rng=0)
    return -float(bound.mean())


def run(seed, quick=False):
    found = {}
    for k in (1, 5):
        model, trainer = train(seed, k, 4, quick)
        found[f"k = {k}"] = nll(model, trainer, 10 if quick else 1000, 1000)
    return found | {"gain": found["k = 1"] - found["k = 5"]}
