"""Reproduce: a VAE of your own functions.

About 10 minutes. All parts are yours by now: relu, the linear layer, the draw, the KL, the loss,
the backward pass, Adam and the loop. They lie beside this file, and `scratchvae exercise check`
takes them from there: what you have solved is used, for the rest the package's own.

The two stacks are missing. Linear(n_in, n_out) is a layer that calls your linear and
linear_backward, Relu() one that calls your relu and relu_backward. Sequential([a, b, ...])
chains layers.

    encoder: 64 pixels -> 100 hidden units -> relu -> [mu | logvar]
    decoder: z -> 100 hidden units -> relu -> 64 logits

Task: write build. Then the model trains on 1,500 real digits, with nothing but your functions, and
draws its latent plane into 24_your_vae.png.
"""

from scratchvae import Sequential


def build(Linear, Relu, latent_dim):
    """Return (encoder, decoder)."""
    raise NotImplementedError


# --- what judges it

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from scratchvae import VAE, Adam, datasets, evaluation, gaussian, layers, likelihoods
from scratchvae.activations import relu, relu_backward, sigmoid
from scratchvae.errors import InputError
from scratchvae.exercises.kinds import (
    Exercise,
    Wrong,
    get,
    require_divergence,
    require_sampler,
    same,
)

PARTS = {
    "01_relu": "relu",
    "03_linear": "the linear layer",
    "04_draw": "the draw",
    "07_kl": "the KL",
    "11_bernoulli": "the loss",
    "18_adam": "Adam",
    "19_backward": "the backward pass",
    "20_loop": "the loop",
}
EPOCHS = 40
HIDDEN, LATENT = 100, 2
STACKS = {
    "encoder": [f"Linear(64, {HIDDEN})", "Relu()", f"Linear({HIDDEN}, {2 * LATENT})"],
    "decoder": [f"Linear({LATENT}, {HIDDEN})", "Relu()", f"Linear({HIDDEN}, 64)"],
}


def _linear(x, W, b):
    return x @ W + b, (x, W)


def _linear_backward(dy, cache):
    x, W = cache
    return dy @ W.T, x.T @ dy, dy.sum(axis=0)


def _loop(model, optimizer, x, epochs, rng):
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for i in range(0, len(x), 50):
            model.loss_and_grad(x[order[i : i + 50]])
            optimizer.step()


def _layers(own, rng, used):
    """Return the classes Linear and Relu, which call the reader's functions and note their use."""
    forward, backward = (getattr(own["03_linear"], n) for n in ("linear", "linear_backward"))

    class Linear:
        def __init__(self, n_in, n_out):
            start = layers.Linear(n_in, n_out, rng=rng, dtype="float64")
            self.W, self.b, self.name = start.W, start.b, f"Linear({n_in}, {n_out})"

        def forward(self, x):
            used.append(self)
            return forward(x, self.W.value, self.b.value)

        def backward(self, dy, cache):
            dx, dW, db = backward(dy, cache)
            self.W.add(dW)
            self.b.add(db)
            return dx

        def named_parameters(self):
            yield from (("W", self.W), ("b", self.b))

    class Relu:
        backward, name = staticmethod(own["01_relu"].relu_backward), "Relu()"

        def forward(self, x):
            used.append(self)
            return own["01_relu"].relu(x)

    return Linear, Relu


def _model(own, build, seed, bar):
    """Return a model of these functions, whose steps a bar counts, and an optimizer."""
    rng = np.random.default_rng(seed)
    used: deque[Any] = deque(maxlen=9)  # the layers that ran last
    Linear, Relu = _layers(own, rng, used)
    result = build(Linear, Relu, LATENT)
    if not isinstance(result, tuple) or len(result) != 2:
        kind = type(result).__name__
        raise Wrong(f"build returns a {kind}: expected the pair (encoder, decoder).")
    draw, kl, loss = own["04_draw"], own["07_kl"], own["11_bernoulli"]
    MyVAE = own["19_backward"].MyVAE

    def loss_and_grad(self, *args):
        bar.update()
        return MyVAE.loss_and_grad(self, *args)

    formulas = {
        "reparameterize": staticmethod(draw.reparameterize),
        "reparameterize_backward": staticmethod(draw.reparameterize_backward),
        "kl": staticmethod(kl.kl_standard_normal),
        "kl_backward": staticmethod(kl.kl_standard_normal_backward),
        "nll": staticmethod(loss.bernoulli_nll),
        "nll_backward": staticmethod(loss.bernoulli_nll_backward),
        "loss_and_grad": loss_and_grad,
    }
    YourVAE = type("YourVAE", (MyVAE,), formulas)
    try:
        encoder, decoder = result
        options = {"encoder": encoder, "decoder": decoder, "dtype": "float64", "rng": rng}
        model = YourVAE(64, None, LATENT, **options)
    except InputError as error:
        raise Wrong(f"{error}.") from None
    for (name, expected), part, width in zip(STACKS.items(), result, (64, LATENT), strict=True):
        used.clear()
        x = rng.standard_normal((5, width))  # (B, n)
        y, _ = part.forward(x)
        layers_, names = [*used], [layer.name for layer in used]
        if names != expected:
            found = ", ".join(names) or "none of them"
            raise Wrong(
                f"Of the Linear and Relu that build is given, the {name} uses {found}: expected "
                f"{', '.join(expected)}."
            )
        for layer in layers_:
            x, _ = layer.forward(x)
        if name == "decoder" and same(y, sigmoid(x)[0]):
            raise Wrong(
                "The decoder ends in a sigmoid: the loss takes logits, which may be any number."
            )
        if not same(y, x):
            raise Wrong(
                f"The {name} gives other numbers than its {', '.join(expected)} do one after the "
                "other: leave out what else stands between or behind them."
            )
    step = own["18_adam"].adam_step

    class YourAdam(Adam):
        def _move(self):
            p, m, v = self.params, self.state["m"], self.state["v"]
            options = self.steps, self.lr, *self.betas, self.eps
            p.value[...], m[...], v[...] = step(p.value, p.grad, m, v, *options)

    return model, YourAdam(model.params) if step else Adam(model.params)


class _Package:
    """The package's own functions, under the names of the sheets."""

    relu, relu_backward = staticmethod(relu), staticmethod(relu_backward)
    linear, linear_backward = staticmethod(_linear), staticmethod(_linear_backward)
    reparameterize = staticmethod(gaussian.reparameterize)
    reparameterize_backward = staticmethod(gaussian.reparameterize_backward)
    kl_standard_normal = staticmethod(gaussian.kl_standard_normal)
    kl_standard_normal_backward = staticmethod(gaussian.kl_standard_normal_backward)
    bernoulli_nll = staticmethod(likelihoods.bernoulli_nll)
    bernoulli_nll_backward = staticmethod(likelihoods.bernoulli_nll_backward)
    MyVAE, adam_step, train = VAE, None, staticmethod(_loop)


class _YourVAE(Exercise):
    beside = True

    def judge(self, answer, rng):
        from tqdm import tqdm

        from scratchvae.exercises.judging import find, judge_here, load

        folder, own, rest = Path(answer.__file__).parent, {}, []
        for name in PARTS:
            path = folder / f"{name}.py"
            if path.is_file() and judge_here(find(name), path).ok:
                own[name] = load(path)
            else:
                rest.append(name)
        theirs = dict.fromkeys(PARTS, _Package)
        seed, data = int(rng.integers(2**32)), datasets.load("digits")
        x, x_test = (
            datasets.to_float(part, data.scale, np.dtype("float64"))
            for part in (data.train, data.test)
        )
        losses, loop = [], (theirs | own)["20_loop"].train
        for parts, name in ((theirs | own, "your functions"), (theirs, "the package's")):
            with tqdm(desc=name, unit=" steps", disable=None, leave=False) as bar:
                model, optimizer = _model(parts, get(answer, "build"), seed, bar)
                np.random.seed(seed)  # noqa: NPY002  a reader's loop may draw its orders there
                loop(model, optimizer, x.copy(), EPOCHS, np.random.default_rng(seed))
            losses.append(float(evaluation.elbo(model, [x_test], rng=seed, samples=10).loss))
            if len(losses) == 1:
                yours = model
        # A loop that draws from a generator of its own takes the rows in another order.
        if not abs(losses[0] - losses[1]) < (0.5 if "20_loop" in own else 0.05):
            raise Wrong(
                f"With your functions the test loss is {losses[0]:.2f} nats, with the package's "
                f"{losses[1]:.2f}: one of them is wrong where its own exercise did not look."
            )
        if "04_draw" in own:
            require_sampler(own["04_draw"].reparameterize, rng)
        if "07_kl" in own:
            require_divergence(own["07_kl"].kl_standard_normal, rng)
        words = [PARTS[name] for name in own]
        mine = f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
        mine = mine or "none of the functions yet, only the stacks"
        figure = self._figure(yours, x_test, data, answer, f"{mine} ({losses[0]:.2f} nats)")
        return self._says(mine, rest, losses) + figure

    @staticmethod
    def _says(mine, rest, losses):
        says = [f"Yours: {mine}."]
        around = "alone" if "20_loop" in rest else "in your loop"
        if rest:
            says.append(
                f"The package's own, since these are missing or not right: {', '.join(rest)}."
            )
        return " ".join(
            [
                *says,
                f"Together they trained a VAE on 1,500 digits for {EPOCHS} epochs. Its test loss",
                f"is {losses[0]:.6f} nats; with the package's functions {around} it is",
                f"{losses[1]:.6f}.",
            ]
        )

    @staticmethod
    def _figure(model, x_test, data, answer, mine):
        import textwrap

        from scratchvae import plots

        path = Path(answer.__file__).with_suffix(".png")
        try:
            mu, logvar = model.encode(x_test)
            figure = plots.latent_plane(mu, logvar, data.test_labels)
            axes = figure.axes[0]
            axes.set_xlabel(f"{axes.get_xlabel()}\n\n" + textwrap.fill(f"Yours: {mine}", 70))
            plots.save(figure, path)
        except InputError as error:
            return f" The figure is missing: {error}."
        return f" Look at its latent plane: {path.name}."


exercise = _YourVAE(
    hints=(
        "The encoder gives mu and logvar side by side: 2 latent_dim numbers.",
        "Sequential([Linear(64, 100), Relu(), Linear(100, 2 * latent_dim)]) is the encoder.",
        "The decoder is the same backwards, from latent_dim numbers to 64 logits; without a "
        "sigmoid at the end, since the loss takes logits.",
    ),
    derivation="""
        Between two linear layers there has to be something that is not linear, or they are one.
        There is none behind the last: mu, logvar and logits may be any number.
        """,
    page="derivations/whole-vae",
    solution=(layers.dense,),
    answer="""
        def build(Linear, Relu, latent_dim):
            encoder = Sequential([Linear(64, 100), Relu(), Linear(100, 2 * latent_dim)])
            return encoder, Sequential([Linear(latent_dim, 100), Relu(), Linear(100, 64)])
        """,
    limit=600.0,
)
