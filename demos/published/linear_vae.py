"""A linear VAE and probabilistic PCA.

Source: M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", 1999: the
best parameters and the largest log p(x) in closed form.

Protocol: the embedded digits in float64, no hidden layer, one learned variance, 1, 2, 4 and 8
latents. At the closed form q(z|x) is the posterior, so that one importance weight is p(x),
whatever the draw. The figure is the largest difference between the mean log weight over the
digits and the closed form, in nats per example. It is not divided by log p(x), which may be near
0 for a density: with 2 latents it is 0.003.
"""

import numpy as np
from published import Claim

import scratchvae as sv

SEEDS = 3
CLAIMS = [
    Claim("difference", "difference of bound and log p(x)", "0", 0, 1e-12, True, digits=".1e")
]


def run(seed, quick=False):
    digits = sv.datasets.load("digits")
    x = digits.train / digits.scale  # (N, D) in float64
    mean, n = x.mean(axis=0), x.shape[1]
    eigenvalues, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    eigenvalues, directions = eigenvalues[::-1], directions[:, ::-1].T  # the largest first; rows
    differences = []
    for k in (1, 8) if quick else (1, 2, 4, 8):
        kept, s2 = eigenvalues[:k], eigenvalues[k:].mean()
        model = sv.VAE(
            n, hidden=(), latent_dim=k, likelihood="gaussian", variance="shared", dtype="float64"
        )
        w = np.sqrt(kept - s2)[:, None] * directions[:k]  # (Z, D)
        head = w / kept[:, None]  # mu = head (x - mean)
        for name, value in {
            "encoder.0.W": np.concatenate([head, 0 * head]).T,  # logvar does not depend on x
            "encoder.0.b": np.concatenate([-head @ mean, np.log(s2 / kept)]),
            "decoder.0.W": w,
            "decoder.0.b": mean,
            "likelihood.logvar": np.log(s2),
        }.items():
            model.params[name].value[...] = value
        bound = sv.evaluation.importance_weighted_bound(model, [x], samples=1, rng=seed).mean()
        log_det = np.log(kept).sum() + (n - k) * np.log(s2)
        exact = -0.5 * (n * np.log(2 * np.pi) + log_det + n)
        differences.append(abs(bound - exact))
    return {"difference": max(differences)}
