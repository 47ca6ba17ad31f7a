"""IWAE, table 1, all stages.

Source: Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted Autoencoders", 2016, table 1,
one stochastic layer; and their code, yburda/iwae.

Protocol: as the four stages, with all eight, 3,280 epochs, and -log p(x) of all 10,000 test images
by 5,000 samples each. With k = 1 the VAE and the IWAE of the table are the same. The table's
VAE with 5 and with 50 draws, which averages the ELBO of several codes, is not among our models.
"""

import iwae
from published import Claim

SEEDS = 1
FULL = True
CLAIMS = [
    Claim("k = 1", "-log p(x), k = 1", "86.76", 86.46, 87.06),
    Claim("k = 5", "-log p(x), k = 5", "85.54", 85.24, 85.84),
    Claim("k = 50", "-log p(x), k = 50", "84.78", 84.48, 85.08),
]


def run(seed, quick=False):
    found = {}
    for k in (1, 5, 50):
        model, trainer = iwae.train(seed, k, 8, quick)
        found[f"k = {k}"] = iwae.nll(model, trainer, 10 if quick else 5000)
    return found
