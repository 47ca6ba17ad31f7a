"""Importance-weighted training against PyTorch's autograd, in float64.

The standard gradient is autograd's of the loss. The doubly reparameterised one is autograd's of
another expression, in which some quantities are held constant: the weights, and the parameters of
q inside log q.
"""

from pathlib import Path

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import LIKELIHOODS, assert_equal_gradients, build, import_oracle, options
from test_torch import Independent, Normal, TorchModel, standard_normal_like

import scratchvae as sv
from scratchvae import iwae

torch = import_oracle("torch")


def make(likelihood, sizes, hidden, own, binary, seed, samples, gradient="standard"):
    """Return a model, the same one for autograd, data (B, D) and noise (K, B, Z)."""
    drawn = build(sv.Autoencoder, likelihood, sizes, hidden, own, binary, seed)
    model = sv.IWAE(
        *(sizes[0], hidden, sizes[1]), samples=samples, gradient=gradient, dtype="float64",
        activation=drawn.activation, likelihood=drawn.likelihood, variance=drawn.variance,
        rng=seed,
    )  # fmt: skip
    reference = TorchModel(model, drawn.activation, drawn.likelihood, drawn.variance)
    eps = np.random.default_rng([seed, 2]).normal(size=(samples, *drawn.x.shape[:1], sizes[1]))
    return model, reference, drawn.x, eps


cases = given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5)),
    hidden=st.lists(st.integers(1, 8), max_size=2),
    own=options,
    binary=st.booleans(),
    samples=st.integers(1, 6),
    seed=draws.seeds,
)


@pytest.mark.proves("importance-weighted-loss", "normalised-weights", "importance-weighted-terms")
@pytest.mark.proves("importance-weighted-grad", "importance-weight-grad")
@pytest.mark.parametrize("rows", [1, 10_000])  # a draw at a time, or all at once
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=30)
@cases
def test_loss_and_gradients_are_autograds(
    likelihood, rows, sizes, hidden, own, binary, samples, seed
):
    model, reference, x, eps = make(likelihood, sizes, hidden, own, binary, seed, samples)
    log_w = reference.log_importance_weights(x, eps)  # (K, B)
    loss = -(torch.logsumexp(log_w, dim=0) - np.log(samples)).mean()
    loss.backward()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iwae, "ROWS", rows)
        terms = model.loss_and_grad(x, eps)
    # As for the VAE: both sides round to 1e-16 some thousand times at most.
    assert terms.loss == pytest.approx(loss.item(), rel=1e-10, abs=1e-10)
    assert_equal_gradients(model, reference.gradients(), rtol=1e-10)

    with torch.no_grad():
        q, weights = reference.posterior(torch.tensor(x)), torch.softmax(log_w, dim=0)
        z = q.loc + q.scale * torch.tensor(eps)
        log_p = Independent(standard_normal_like(z), 1).log_prob(z)
        nll = log_p - Independent(q, 1).log_prob(z) - log_w
        reconstruction = (weights * nll).sum(dim=0).mean().item()
    assert terms.reconstruction == pytest.approx(reconstruction, rel=1e-10, abs=1e-10)
    assert terms.kl == pytest.approx(loss.item() - reconstruction, rel=1e-10, abs=1e-9)


@pytest.mark.proves("doubly-reparameterized")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=30)
@cases
def test_doubly_reparameterised_gradients_are_autograds_of_what_is_not_held(
    likelihood, sizes, hidden, own, binary, samples, seed
):
    model, reference, x, eps = make(likelihood, sizes, hidden, own, binary, seed, samples, "dreg")
    x_, eps_ = torch.tensor(x), torch.tensor(eps)
    q = reference.posterior(x_)
    z = q.loc + q.scale * eps_
    held = Independent(Normal(q.loc.detach(), q.scale.detach()), 1)
    nll = -reference.log_likelihood(x_.expand(z.shape[0], *x_.shape), reference.stack("decoder", z))
    log_prior = Independent(standard_normal_like(z), 1).log_prob(z)
    log_w = log_prior - nll.sum(dim=-1) - held.log_prob(z)
    weights = torch.softmax(log_w, dim=0).detach()
    expected = {}
    for of, factor in ("encoder", weights**2), ("", weights):
        loss = -(factor * log_w).sum(dim=0).mean()
        names = [n for n in reference.weights if n.startswith(of) and n not in expected]
        leaves = [reference.weights[n] for n in names]
        found = torch.autograd.grad(loss, leaves, retain_graph=True)
        expected |= {n: g.numpy() for n, g in zip(names, found, strict=True)}
    model.loss_and_grad(x, eps)
    assert_equal_gradients(model, expected, rtol=1e-10)


def test_the_benchmark_trains_by_the_same_bound(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "demos" / "benchmarks")
    import contestants

    step = contestants.torch_fused(contestants.Case((784, 6, 3), "relu", 8, n=64, samples=4))
    step(2)
    x = torch.rand(8, 784).round()
    with torch.random.fork_rng():
        loss = step.loss_of(x)
    out, mu, logvar, eps = step.model(x)  # with the same noise
    q = Normal(mu, torch.exp(0.5 * logvar))
    z = mu + q.stddev * eps
    log_w = Independent(torch.distributions.Bernoulli(logits=out), 1).log_prob(x)
    log_w = log_w + (standard_normal_like(z).log_prob(z) - q.log_prob(z)).sum(-1)
    expected = (np.log(4) - torch.logsumexp(log_w, dim=0)).sum()
    assert eps.shape == (4, 8, 3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)  # float32, sums of 784 numbers
