"""What answer.md says in numbers and shows in figures, computed when the pages are built.

The models are those of ``scratchvae train``, with the options of `RUNS`: the build trains them once
and keeps their folders beside its output, until the package or the data change.

``{value}`KL(1.5, 0.5):.2f` `` puts the value of a Python expression into a sentence; the names that
it may use are those of `names`. ``{answer-figure} gaussian`` puts in a figure; each of them is
drawn here once, as it stands before anybody touches it, so that it says something without
JavaScript too, and ``_static/answer.js`` moves its parts. Decoder and plane are in files of the
package, scratchvae/explorer/latent.*, which ``scratchvae explore`` makes its pages with.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
from docutils import nodes
from keep import kept, sources
from matplotlib.image import imsave
from scipy.special import lambertw, xlogy
from scipy.stats import chi2, shapiro
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.logging import getLogger

import scratchvae as sv
from scratchvae import explorer
from scratchvae.gaussian import kl_per_dimension, log_density

HERE = Path(__file__).parent
RUNS = {
    "vae": sv.run.Options(),
    "ae": sv.run.Options(model="ae"),
    "weak": sv.run.Options(beta=0.1),
    "strong": sv.run.Options(beta=4),
    # a KL averaged over 2 dimensions beside a reconstruction averaged over 64 pixels
    "averaged": sv.run.Options(beta=32),
}
BETAS = {0.1: "weak", 1: "vae", 4: "strong"}  # the models that the first figure can show
CHOSEN = 3  # the digit that the first figure starts with
NATS = 60  # the length of the first figure's bars
DRAWS = 10_000  # from the prior, to count what the decoders make of them

templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    undefined=jinja2.StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


# ---- the models ----------------------------------------------------------------------------------


def trained(name: str, folder: Path) -> Path:
    """Return where in `folder` the run of `RUNS` with this name is, trained if it is not there.

    It is kept until the options, the package or the data change.
    """

    def train(out: Path) -> None:
        getLogger(__name__).info("answer: training the model %r ...", name)
        sv.run.new(RUNS[name], out).train()

    return kept(folder, name, repr(RUNS[name]).encode(), train)


@functools.cache
def load_model(name: str, folder: Path) -> Any:
    """Return the trained model of `RUNS` with this name."""
    if _training is not None:
        _training.wait()  # what it has not trained is trained here
    return sv.load(trained(name, folder))


_training: subprocess.Popen[bytes] | None = None


def _train_meanwhile(app: Any, env: Any, docnames: list[str]) -> None:
    """Read the answer page last, and train its models on another core until then."""
    global _training
    if "answer" in docnames:
        docnames.sort(key="answer".__eq__)
        _training = subprocess.Popen([sys.executable, __file__, str(Figure.folder)])


# ---- the numbers ---------------------------------------------------------------------------------


def normal(z: Any, mu: Any, sigma: Any) -> Any:
    """Return the density of N(mu, sigma^2) at z."""
    z, mu, sigma = (np.asarray(a, float)[..., None] for a in (z, mu, sigma))
    return np.exp(log_density(z, mu, 2 * np.log(sigma))[0])


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
    # The aggregate posterior on a grid of the plane. Each posterior is a product of two densities,
    # and so the mixture on the grid is a matrix product.
    axis = np.arange(-6, 6, 0.05)
    first, second = (normal(axis[:, None], vae.mu[:, j], vae.sigma[:, j]) for j in (0, 1))  # (G, N)
    q = first @ second.T / len(x)  # (G, G)
    log_p = np.log(normal(axis, 0, 1))
    vae.aggregate_kl = np.sum(xlogy(q, q) - q * (log_p[:, None] + log_p)) * 0.05**2
    output, _ = vae.model.decoder.forward(vae.model.mean_code(x_test))
    vae.at_mean = vae.model.nll(x_test, output)[0].mean(dtype=float)
    kinds = (vae.mu[digits.train_labels == label] for label in range(10))
    vae.not_gaussian = sum(
        min(shapiro(kind[:, j]).pvalue for j in (0, 1)) < 0.005 for kind in kinds
    )
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


def pulls_figure(folder: Path) -> dict[str, Any]:
    """The first figure: one image's cloud of codes that can be moved, and what that does.

    Places are in units of its `viewBox`, whose origin is z = 0. The draws come in pairs, eps and
    -eps, so that their mean is mu.
    """
    digits = sv.datasets.load("digits")
    x = sv.datasets.to_float(digits.test, digits.scale, np.dtype("float32"))  # (M, D)
    kinds = [np.flatnonzero(digits.test_labels == label) for label in range(10)]
    images = [kind[0] for kind in kinds]  # the image of each kind that can be chosen
    others = np.concatenate([kind[1:3] for kind in kinds])
    half = np.random.default_rng(1).standard_normal((16, 2)).round(3)
    eps = np.concatenate([half, -half])  # (32, 2)

    def codes(model: Any, rows: Any) -> list[list[float]]:
        """Return [mu1, mu2] or [mu1, mu2, sigma1, sigma2] of each image."""
        code = model.encode(x[rows])
        parts = (code[0], np.exp(0.5 * code[1])) if model.has_posterior else (code,)
        return np.concatenate(parts, axis=1).astype(float).round(3).tolist()

    def world(name: str, title: str, label: str, scale: float, ticks: list[int]) -> dict[str, Any]:
        model = load_model(name, folder)
        mu1, mu2, *sigma = codes(model, [images[CHOSEN]])[0]
        s1, s2 = sigma or (0.0, 0.0)
        z = np.array([mu1, mu2]) + np.array([s1, s2]) * (eps if sigma else eps[:1])  # (n, 2)
        output, _ = model.decoder.forward(z.astype(model.dtype))
        nll, _ = model.nll(np.repeat(x[[images[CHOSEN]]], len(z), axis=0), output)
        terms = [float(nll.mean(dtype=float)), KL(mu1, s1) + KL(mu2, s2) if sigma else 0.0]
        terms.append(sum(terms))
        decoded = model.decode(z[:8])
        far = round(200 / scale - 0.05, 1)
        first, second = ("μ₁", "μ₂") if sigma else ("z₁", "z₂")
        sliders = [("mu1", first, -far, far, 0.01, mu1), ("mu2", second, -far, far, 0.01, mu2)]
        if sigma:
            sliders += [("sigma1", "σ₁", 0.02, 2, 0.01, s1), ("sigma2", "σ₂", 0.02, 2, 0.01, s2)]
        padded = ([*code, 0.0, 0.0] for code in codes(model, others))  # a point has no width
        shown = zip(digits.test_labels[others].tolist(), padded, strict=True)
        return {
            **{"kind": model.kind, "title": title, "label": label, "scale": scale, "ticks": ticks},
            **{"x": round(scale * mu1, 2), "y": round(-scale * mu2, 2)},
            **{"rx": round(scale * s1, 2), "ry": round(scale * s2, 2), "sliders": sliders},
            "others": [
                {
                    **{"label": label, "x": round(scale * m[0], 1), "y": round(-scale * m[1], 1)},
                    **{"rx": round(scale * m[2], 1), "ry": round(scale * m[3], 1)},
                }
                for label, m in shown
            ],
            "draws": (scale * z * [1, -1]).round(2).tolist(),
            **{"given": _strip(x[[images[CHOSEN]]]), "strip": _strip(decoded)},
            "strip_width": 9 * len(decoded) - 1,
            "strip_alt": "Eight draws, decoded" if sigma else "The code, decoded",
            "terms": [_text(term, 2) for term in terms],
            "bars": [round(100 * min(term / NATS, 1), 1) for term in terms],
        }

    def network(name: str) -> dict[str, Any]:
        model = load_model(name, folder)
        return {
            "decoder": explorer.describe(model),
            "codes": codes(model, images),
            "others": codes(model, others),
        }

    plane = "The latent plane: {} of the image x, those of twenty other images, and the prior"
    return {
        "labels": list(range(10)),
        "chosen": CHOSEN,
        "betas": list(BETAS),
        "vae": world(
            "vae", "VAE: the code is a cloud", plane.format("the cloud"), 56, [-3, -2, -1, 1, 2, 3]
        ),
        "ae": world(
            "ae", "Autoencoder: the code is a point", plane.format("the point"), 12, [-10, 10]
        ),
        # "</" occurs in none of these texts and numbers, so this may stand inside a <script>.
        "data": json.dumps(
            {
                "eps": eps.tolist(),
                "images": x[images].astype(float).round(4).tolist(),  # sixteenths
                "vae": [network(name) for name in BETAS.values()],
                "ae": [network("ae")],
            }
        ),
    }


def gaussian_figure(folder: Path) -> dict[str, Any]:
    """One dimension: q(z|x), the prior, and draws. Its units are those of its `viewBox`."""
    mu, sigma = 1.5, 0.5
    eps = np.random.default_rng(2).standard_normal(16).round(2)
    terms = (mu**2 / 2, (sigma**2 - 1) / 2, -math.log(sigma))

    def to_x(z: float) -> float:
        return 220 + 30 * z

    def curve(mu: float, sigma: float) -> str:
        z = mu + sigma * np.arange(-5, 5.01, 0.1)
        points = zip(to_x(z), 190 - 175 * normal(z, mu, sigma), strict=True)
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
    """The latent plane, its test codes, and a decoded digit."""
    model, digits = load_model("vae", folder), sv.datasets.load("digits")
    mu, _ = model.encode(sv.datasets.to_float(digits.test, digits.scale, model.dtype))  # (M, 2)
    codes = mu.astype(float).round(3).tolist()
    z = (0.0, 0.0)
    return {
        "codes": list(zip(digits.test_labels.tolist(), codes, strict=True)),
        "pixels": model.decode([z])[0].tolist(),
        "log_density": _text(-math.log(2 * math.pi), 2),
        "nearest": digits.test_labels[np.hypot(*mu.T).argmin()],
        # "</" occurs in none of these texts and numbers, so this may stand inside a <script>.
        "data": json.dumps(
            {
                "decoder": explorer.describe(model),
                "codes": codes,
                "labels": digits.test_labels.tolist(),
            }
        ),
    }


def draws_figure(folder: Path) -> dict[str, Any]:
    """The same ten draws of N(0, I), decoded by the VAE and by the plain autoencoder."""

    vae, ae = (names(folder)[kind] for kind in ("vae", "ae"))
    return {
        **{"vae": _strip(vae.images), "vae_labels": vae.labels},
        **{"ae": _strip(ae.images), "ae_labels": ae.labels},
    }


def sample_figure(folder: Path) -> dict[str, Any]:
    """The mean of p(x|z) and two draws from it."""
    digits = sv.datasets.load("digits")
    model = load_model("vae", folder)
    three = digits.test[np.flatnonzero(digits.test_labels == CHOSEN)[:1]]
    mean = model.reconstruct(sv.datasets.to_float(three, digits.scale, model.dtype))
    u = np.random.default_rng(0).random((2, *mean.shape))
    return {"mean": _strip(mean), "samples": [_strip((v < mean).astype(float)) for v in u]}


def pipelines_figure(folder: Path) -> dict[str, Any]:
    """Both networks as a row of boxes: what each gives, how many values, value or network."""
    given = ("image x", "64", "value"), ("encoder", "", "network")
    decoded = ("decoder", "", "network"), ("pixel probabilities", "64", "value")
    draw = ("z = μ + σε", "2", "value")
    return {
        "pipelines": [
            ("Autoencoder", [*given, ("code z", "2", "value"), *decoded]),
            ("VAE", [*given, ("μ and log σ²", "2 + 2", "value"), draw, *decoded]),
        ]
    }


FIGURES = {
    "pulls": pulls_figure,
    "sample": sample_figure,
    "pipelines": pipelines_figure,
    "draws": draws_figure,
    "decoder": decoder_figure,
    "gaussian": gaussian_figure,
}


def _strip(images: np.ndarray) -> str:
    """Return a PNG in base64 of images (n, 64) side by side, 9 n - 1 pixels wide."""
    cells = np.pad(images.reshape(-1, 8, 8), ((0, 0), (0, 0), (0, 1)))  # white between digits
    file = io.BytesIO()
    pixels = np.concatenate(list(cells), axis=1)[:, :-1]
    imsave(file, pixels, cmap="gray_r", vmin=0, vmax=1, metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


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
        for name in ("latent", "answer"):
            app.add_css_file(f"{name}.css")
            app.add_js_file(f"{name}.js", loading_method="defer")


def _share_files(app: Any, config: Any) -> None:
    config.html_static_path += [str(explorer.HERE / f"latent.{kind}") for kind in ("css", "js")]


def _write_explorer(app: Any, exception: Exception | None) -> None:
    """Write the page that guide/explore.md leads to."""
    if exception is None and app.builder.format == "html":
        run = sv.run.open(trained("vae", Figure.folder))
        path = Path(app.outdir, "_static", "explorer.html")
        path.write_text(explorer.page(run), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    Value.folder = Figure.folder = Path(app.outdir).parent / "answer"
    app.add_role("value", Value())
    app.add_directive("answer-figure", Figure)
    app.connect("config-inited", _share_files)
    app.connect("env-before-read-docs", _train_meanwhile)
    app.connect("html-page-context", _add_script)
    app.connect("build-finished", _write_explorer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for one in RUNS:
        trained(one, Path(sys.argv[1]))
