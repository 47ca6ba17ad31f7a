"""Draw the two halves of the README's figure: python docs/readme_figure.py."""

import tempfile
from pathlib import Path

from scratchvae import datasets, plots, run

with tempfile.TemporaryDirectory() as folder:
    trained = run.new(out=folder)  # the digits, as `scratchvae train` trains them
    trained.train()
model, digits = trained.model, trained.trainer.dataset
mu, logvar = model.encode(datasets.to_float(digits.test, digits.scale, model.dtype))
here = Path(__file__).parent
plots.save(plots.latent_plane(mu, logvar, digits.test_labels), here / "latent_plane.svg")
plots.save(plots.manifold(model.decode, digits.image_shape), here / "manifold.svg")
