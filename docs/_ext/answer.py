"""What answer.md says in numbers and shows in figures, computed when the pages are built.

The models are those of ``scratchvae train``, with the options of `RUNS`: the build trains them once
and keeps their folders beside its output, until the package or the data change.

``{value}`KL(1.5, 0.5):.2f` `` puts the value of a Python expression into a sentence; the names that
it may use are those of `names`. ``{answer-figure} gaussian`` puts in a figure; each of them is
drawn here once, as it stands before anybody touches it, so that it says something without
JavaScript too, and ``_static/answer.js`` moves its parts.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
from docutils import nodes
from keep import kept, sources
from matplotlib.image import imsave
from scipy.special import lambertw
from scipy.stats import chi2
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.logging import getLogger

import scratchvae as sv
from scratchvae.gaussian import kl_per_dimension, log_density

HERE = Path(__file__).parent
RUNS = {
    "vae": sv.run.Options(),
    "ae": sv.run.Options(model="ae"),
    # a KL averaged over 2 dimensions beside a reconstruction averaged over 64 pixels
    "averaged": sv.run.Options(beta=32),
}
DRAWS = 10_000  # from the prior, to count what the decoders make of them

templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    undefined=jinja2.StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


# ---- the models ----------------------------------------------------------------------------------


@functools.cache
def load_model(name: str, folder: Path) -> Any:
    """Return the trained model of `RUNS` with this name, from `folder` if it is there.

    It is kept until the options, the package or the data change.
    """

    def train(out: Path) -> None:
        getLogger(__name__).info("answer: training the model %r ...", name)
        sv.run.new(RUNS[name], out).train()

    return sv.load(kept(folder, name, repr(RUNS[name]).encode(), train))


# ---- the numbers ---------------------------------------------------------------------------------


def normal(z: Any, mu: Any, sigma: Any) -> Any:
    """Return the density of N(mu, sigma^2) at z."""
    z, logvar = np.asarray(z, float), 2 * np.log(sigma)
    return np.exp(log_density(z[..., None], np.asarray(mu, float)[..., None], logvar)[0])


def KL(mu: float, sigma: float) -> float:
    """Return KL(N(mu, sigma^2) || N(0, 1)) in nats."""
    return float(kl_per_dimension(np.float64(mu), 2 * np.log(sigma)))


def nearest_image(decoded: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return, for decoded means (n, D), the index of the image (N, D) each explains best, (n,)."""
    p = np.clip(decoded.astype(float), 1e-9, 1 - 1e-9)  # (n, D): a float32 may have reached 0 or 1
    log_likelihood = images @ np.log(p).T + (1 - images) @ np.log1p(-p).T  # (N, n)
    return log_likelihood.argmax(axis=0)


@functools.cache
def names(folder: Path) -> dict[str, Any]:
    """Return what the expressions of `{value}` may use."""
    digits = sv.datasets.load("digits")
    x = sv.datasets.to_float(digits.train, digits.scale, np.dtype(float))  # (N, D)
    x_test = sv.datasets.to_float(digits.test, digits.scale, np.dtype(float))  # (M, D)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((DRAWS, 2))

    def measure(name: str) -> SimpleNamespace:
        model = load_model(name, folder)
        code = model.encode(x)
        mu, logvar = code if isinstance(code, tuple) else (code, np.zeros_like(code))  # (N, 2)
        mu, sigma = mu.astype(float), np.exp(0.5 * logvar.astype(float))  # (N, 2); not the AE's
        decoded = model.decode(z)  # (DRAWS, D)
        labels = digits.train_labels[nearest_image(decoded, x)]  # (DRAWS,)
        counts = np.bincount(labels, minlength=10)
        commonest = np.argsort(-counts)[:3]
        return SimpleNamespace(
            model=model,
            mu=mu,
            sigma=sigma,
            radius=np.hypot(*mu.T),  # (N,)
            terms=sv.evaluation.elbo(model, [x_test], rng=0, samples=100),
            kl=kl_per_dimension(mu, 2 * np.log(sigma)).sum(axis=1),  # (N,); not the AE's
            images=decoded[:10],  # of the first draws
            labels=", ".join(map(str, labels[:10])),
            share=counts[commonest].sum() / DRAWS,
            commonest="{}, {} and {}".format(*sorted(commonest)),
        )

    vae, ae = measure("vae"), measure("ae")
    # A draw of the aggregate posterior: of an image taken at random, a code taken at random.
    row = rng.integers(len(x), size=DRAWS)
    z = vae.mu[row] + vae.sigma[row] * rng.standard_normal((DRAWS, 2))
    log_q = [
        np.logaddexp.reduce(log_density(one, vae.mu, 2 * np.log(vae.sigma))[0]) - math.log(len(x))
        for one in z
    ]
    vae.aggregate_kl = np.mean(log_q - log_density(z, np.zeros(2), np.zeros(2))[0])
    return {
        **{"np": np, "sqrt": math.sqrt, "log": math.log, "exp": math.exp},
        **{"KL": KL, "normal": normal, "chi2": chi2, "draws": DRAWS},
        **{"vae": vae, "ae": ae, "averaged": measure("averaged")},
        # where sigma = -log(sigma / 2): sigma exp(sigma) = 2
        "lucky_sigma": float(lambertw(2).real),
    }


def value(text: str, folder: Path) -> str:
    """Return the value of ``expression:format``, with a minus sign in place of the hyphen."""
    expression, _, spec = text.rpartition(":")
    return format(eval(expression, dict(names(folder))), spec).replace("-", "−")


# ---- the figures ---------------------------------------------------------------------------------


def gaussian_figure(folder: Path) -> dict[str, Any]:
    """Figure 1: q(z|x), the prior, and draws. Its units are those of its `viewBox`."""
    mu, sigma = 1.5, 0.5
    eps = np.random.default_rng(2).standard_normal(16).round(2)
    top = 1.08 * max(normal(0, 0, 1), normal(mu, mu, sigma))
    terms = (mu**2 / 2, (sigma**2 - 1) / 2, -math.log(sigma))

    def to_x(z: float) -> float:
        return 220 + 30 * z

    def curve(mu: float, sigma: float) -> str:
        z = mu + sigma * np.arange(-5, 5.01, 0.1)
        points = zip(to_x(z), 190 - 175 * normal(z, mu, sigma) / top, strict=True)
        return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)

    return {
        "mu": mu,
        "sigma": sigma,
        "eps": eps.tolist(),
        "prior": curve(0, 1),
        "posterior": curve(mu, sigma),
        "to_x": to_x,
        "terms": [_text(term, 3) for term in terms],
        "kl": _text(KL(mu, sigma), 3),
    }


def decoder_figure(folder: Path) -> dict[str, Any]:
    """Figure 2: the latent plane, its test codes, and a decoded digit."""
    model, digits = load_model("vae", folder), sv.datasets.load("digits")
    mu, _ = model.encode(sv.datasets.to_float(digits.test, digits.scale, model.dtype))  # (M, 2)
    weights = [model.params[name].value for name in model.params.names if "decoder." in name]
    flat = np.concatenate([w.ravel() for w in weights]).astype("<f4")
    codes = mu.astype(float).round(3).tolist()
    z = (0.0, 0.0)
    return {
        "codes": list(zip(digits.test_labels.tolist(), codes, strict=True)),
        "pixels": model.decode([z])[0].tolist(),
        "log_density": _text(-math.log(2 * math.pi), 2),
        "nearest": digits.test_labels[np.hypot(*mu.T).argmin()],
        # "</" cannot occur in base64 or in numbers, so this may stand inside a <script>.
        "data": json.dumps(
            {
                "hidden": model.decoder.layers[0].n_out,
                "weights": base64.b64encode(flat.tobytes()).decode(),
                "codes": codes,
                "labels": digits.test_labels.tolist(),
            }
        ),
    }


def draws_figure(folder: Path) -> dict[str, Any]:
    """The same ten draws of N(0, I), decoded by the VAE and by the plain autoencoder."""

    def row(images: np.ndarray) -> str:
        cells = np.pad(images.reshape(-1, 8, 8), ((0, 0), (0, 0), (0, 1)))  # white between digits
        file = io.BytesIO()
        pixels = np.concatenate(list(cells), axis=1)[:, :-1]  # (8, 89)
        imsave(file, pixels, cmap="gray_r", vmin=0, vmax=1, metadata={"Software": None})
        return base64.b64encode(file.getvalue()).decode()

    vae, ae = (names(folder)[kind] for kind in ("vae", "ae"))
    return {
        **{"vae": row(vae.images), "vae_labels": vae.labels},
        **{"ae": row(ae.images), "ae_labels": ae.labels},
    }


FIGURES = {"gaussian": gaussian_figure, "decoder": decoder_figure, "draws": draws_figure}


def _text(number: float, decimals: int) -> str:
    return f"{number:.{decimals}f}".replace("-", "−")


# ---- Sphinx --------------------------------------------------------------------------------------


def _note_sources(env: Any) -> None:
    """Have the page built anew when the package, this file or a template has changed."""
    for path in (*sources(), *HERE.glob("answer*")):
        env.note_dependency(path)


class Value(SphinxRole):
    """The role `{value}`."""

    folder: Path  # of the trained models; set by `setup`

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        _note_sources(self.env)
        try:
            return [nodes.Text(value(self.text, self.folder))], []
        except Exception as error:  # whatever the expression raises
            message = self.inliner.reporter.error(f"{{value}}`{self.text}`: {error!r}")
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]


class Figure(SphinxDirective):
    """The directive `{answer-figure}`."""

    required_arguments = 1
    folder: Path

    def run(self) -> list[nodes.Node]:
        _note_sources(self.env)
        name = self.arguments[0]
        template = templates.get_template(f"answer_{name}.html")
        html = template.render(FIGURES[name](self.folder))
        return [nodes.raw("", html, format="html")]


def _add_script(app: Any, pagename: str, *_: Any) -> None:
    if pagename == "answer":
        app.add_css_file("answer.css")
        app.add_js_file("answer.js", loading_method="defer")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    Value.folder = Figure.folder = Path(app.outdir).parent / "answer"
    app.add_role("value", Value())
    app.add_directive("answer-figure", Figure)
    app.connect("html-page-context", _add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
