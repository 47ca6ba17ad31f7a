"""The conditional VAE against PyTorch's autograd, to 1e-10 in float64.

The reference gives a class a bias of its own in the first layer of both parts. That is what a
one-hot vector beside the input comes to, and it shares no code with the package.
"""

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import LIKELIHOODS, assert_equal_gradients, import_oracle, options
from test_torch import ACTIVATIONS

import scratchvae as sv
from scratchvae import evaluation

torch = import_oracle("torch")
torch.set_num_threads(1)
Normal = torch.distributions.Normal
LINEAR = torch.nn.functional.linear


class Reference:
    """The same model for autograd, starting from the same weights in float64."""

    def __init__(self, model, activation, likelihood, variance):
        self.activation, self.likelihood = ACTIVATIONS[activation], likelihood
        self.variance, self.beta = variance, model.beta
        self.classes = model.classes
        self.weights = {
            name: torch.tensor(model.params[name].value, requires_grad=True)
            for name in model.params.names
        }

    def stack(self, part, h, labels):
        """Return the part's output for h (..., B, n) and labels (B,)."""
        numbers = sorted({int(name.split(".")[1]) for name in self.weights if part in name})
        for i in numbers:
            w, b = self.weights[f"{part}.{i}.W"], self.weights[f"{part}.{i}.b"]
            if i == 0:
                h = LINEAR(h, w[: -self.classes].T, b) + w[-self.classes :][labels]
            else:
                h = LINEAR(self.activation(h), w.T, b)
        return h

    def nll(self, x, output):
        """Return -log p(x|z, y) for each draw and example."""
        if self.likelihood == "bernoulli":
            bce = torch.nn.functional.binary_cross_entropy_with_logits
            return bce(output, x.expand(output.shape), reduction="none").sum(-1)
        if self.likelihood == "per-dimension":
            output, logvar = output.chunk(2, dim=-1)
        elif self.likelihood == "shared":
            logvar = self.weights["likelihood.logvar"]
        else:
            logvar = torch.tensor(self.variance, dtype=torch.float64).log()
        return -Normal(output, (logvar / 2).exp()).log_prob(x).sum(-1)

    def posterior(self, x, labels):
        mu, logvar = self.stack("encoder", x, labels).chunk(2, dim=1)
        return Normal(mu, (logvar / 2).exp())

    def terms(self, x, eps, labels):
        """Return loss, reconstruction and KL, and leave the gradients in the weights."""
        q = self.posterior(x, labels)
        z = q.loc + q.scale * eps
        prior = Normal(torch.zeros_like(z), torch.ones_like(z))
        kl = torch.distributions.kl_divergence(q, prior).sum(dim=1).mean()
        reconstruction = self.nll(x, self.stack("decoder", z, labels)).mean()
        loss = reconstruction + self.beta * kl
        loss.backward()
        return [term.item() for term in (loss, reconstruction, kl)]

    def log_weights(self, x, eps, labels):
        """Return log p(x, z|y) - log q(z|x, y), (K, B)."""
        q = self.posterior(x, labels)
        z = q.loc + q.scale * eps
        log_p = Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z).sum(-1)
        return log_p - self.nll(x, self.stack("decoder", z, labels)) - q.log_prob(z).sum(-1)


@pytest.mark.proves("conditional-one-hot", "conditional-decoder", "conditional-grad-z")
@pytest.mark.proves("conditional-nll")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=40)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 7), st.integers(1, 6)),
    hidden=st.lists(st.integers(1, 8), max_size=3),
    options=options,
    seed=draws.seeds,
)
def test_loss_and_gradients_are_autograds(likelihood, sizes, hidden, options, seed):
    d, z, n, classes = sizes
    kind = {"likelihood": "gaussian"} if likelihood != "bernoulli" else {}
    options = dict(options)
    if likelihood in ("shared", "per-dimension"):
        options["variance"] = likelihood
    model = sv.ConditionalVAE(
        d, hidden, z, classes=classes, dtype="float64", rng=seed, **kind, **options
    )
    rng = np.random.default_rng([seed, 1])
    x, eps = rng.uniform(size=(n, d)), rng.normal(size=(3, n, z))
    labels = rng.integers(0, classes, n)
    reference = Reference(model, options["activation"], likelihood, options["variance"])
    theirs = torch.tensor(x), torch.tensor(eps[0]), torch.tensor(labels)
    expected = reference.terms(*theirs)
    # Both sides round to 1e-16 some thousand times at most and no sum has more than 20 terms: well
    # below 1e-12, so 1e-10 leaves two digits, and a wrong formula is wrong in the first or second.
    found = model.loss_and_grad(x, eps[0], labels)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)
    gradients = {name: w.grad.numpy() for name, w in reference.weights.items()}
    assert_equal_gradients(model, gradients, rtol=1e-10)

    log_w = evaluation.log_importance_weights(model, model.rows(x, labels), eps)
    with torch.no_grad():
        expected = reference.log_weights(theirs[0], torch.tensor(eps), theirs[2]).numpy()
    np.testing.assert_allclose(log_w, expected, rtol=1e-10, atol=1e-10)
