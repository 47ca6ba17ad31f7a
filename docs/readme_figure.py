"""Draw the two halves of the README's figure: python docs/readme_figure.py."""

import tempfile
from pathlib import Path

from scratchvae import cli, datasets, plots
from scratchvae.checkpoint import load_model

with tempfile.TemporaryDirectory() as folder:
    cli.main(["train", "digits", "--device", "cpu", "--out", f"{folder}/run"])
    model = load_model(f"{folder}/run")
digits = datasets.load("digits")
mu, logvar = model.encode(datasets.to_float(digits.test, digits.scale, model.dtype))
here = Path(__file__).parent
plots.save(plots.latent_plane(mu, logvar, digits.test_labels), here / "latent_plane.svg")
plots.save(plots.manifold(model.decode, digits.image_shape), here / "manifold.svg")
