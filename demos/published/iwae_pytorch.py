"""IWAE, four of eight stages in PyTorch.

Source: none: it is PyTorch's side of the four stages, so that ours have something to be compared
with.

Protocol: as the four stages, with torch.nn, autograd and torch.optim.Adam. Our model takes over
the trained parameters and evaluates them.
"""

import importlib.util
import itertools

import iwae
import numpy as np
from published import Claim

import scratchvae as sv

SEEDS = 1
FULL = True  # it need not be measured again with ours
CLAIMS = [
    Claim("k = 1", "-log p(x), k = 1", "none"),
    Claim("k = 5", "-log p(x), k = 5", "none"),
    Claim("gain", "k = 5 is ahead by", "none"),
]
SKIP = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"


def network(widths):
    """Return a stack of Linear layers with tanh between them, with Glorot's initial parameters."""
    import torch

    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.Tanh()]
        torch.nn.init.xavier_uniform_(layers[-2].weight)
        torch.nn.init.zeros_(layers[-2].bias)
    return torch.nn.Sequential(*layers[:-1])


def loss(encoder, decoder, x, k):
    """Return minus the importance-weighted bound with k draws, the mean over x (B, D)."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    mu, logvar = encoder(x).chunk(2, dim=1)  # (B, Z)
    eps = torch.randn(k, *mu.shape)  # (K, B, Z)
    z = mu + (logvar / 2).exp() * eps
    logits = decoder(z)  # (K, B, D)
    nll = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    log_ratio = -0.5 * (z**2 - eps**2 - logvar).sum(-1)  # log p(z) - log q(z|x)
    return -(torch.logsumexp(log_ratio - nll, dim=0) - np.log(k)).mean()


def train(seed, k, stages, data, quick):
    """Return the trained encoder and decoder."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    encoder, decoder = network([784, 200, 200, 100]), network([50, 200, 200, 784])
    decoder[-1].bias.data[...] = torch.tensor(iwae.log_odds(data))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], **iwae.ADAM)
    images = torch.tensor(data.train / np.float32(255))  # (N, D)
    rates, epochs = iwae.schedule(1 if quick else stages)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rates(epoch)
        for rows in torch.randperm(len(images)).split(20):
            value = loss(encoder, decoder, torch.bernoulli(images[rows]), k)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return encoder, decoder


def our_name(name):
    return name.replace("weight", "W").replace("bias", "b")


def copy_parameters(stacks, model):
    """Give our model the parameters of PyTorch's stacks, whose matrices are transposed."""
    for part, stack in stacks.items():
        for name, theirs in stack.named_parameters():
            model.params[f"{part}.{our_name(name)}"].value[...] = theirs.detach().numpy().T


def run(seed, quick=False):
    data, found = iwae.images(quick), {}
    for k in (1, 5):
        encoder, decoder = train(seed, k, 4, data, quick)
        model = sv.IWAE(784, (200, 200), 50, activation="tanh", samples=k)
        copy_parameters({"encoder": encoder, "decoder": decoder}, model)
        trainer = sv.Trainer(
            model, sv.Adam(model.params), data, batch_size=20, binarize="dynamic", seed=seed
        )
        found[f"k = {k}"] = iwae.nll(model, trainer, 10 if quick else 1000, 1000)
    return found | {"gain": found["k = 1"] - found["k = 5"]}
