"""The mixture prior against PyTorch: its density, and autograd through whole models, in float64."""

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import LIKELIHOODS, assert_equal_gradients, import_oracle, options
from test_torch import Independent, Normal, TorchModel

import scratchvae as sv

torch = import_oracle("torch")
distributions = torch.distributions


def components_of(logits, mean, logvar):
    """Return the mixture as PyTorch has it."""
    which = distributions.Categorical(logits=logits)
    return distributions.MixtureSameFamily(which, Independent(Normal(mean, (logvar / 2).exp()), 1))


class WithMixture(TorchModel):
    """The model for autograd, with a mixture as its prior."""

    def mixture(self):
        return components_of(*(self.weights[f"prior.{n}"] for n in ("logits", "mean", "logvar")))

    def losses(self, x, eps):
        """Return loss and KL, (B,) each, for one draw, or minus the bound for K draws."""
        x, eps = torch.tensor(x), torch.tensor(eps)
        q = self.posterior(x)
        z = q.loc + q.scale * eps
        output = self.stack("decoder", z)
        nll = -self.log_likelihood(x.expand(*z.shape[:-1], x.shape[-1]), output).sum(dim=-1)
        log_p = self.mixture().log_prob(z)
        if eps.dim() == 3:
            log_w = log_p - nll - Independent(q, 1).log_prob(z)
            return np.log(len(eps)) - torch.logsumexp(log_w, dim=0), None
        kl = -q.entropy().sum(dim=1) - log_p
        return nll + self.beta * kl, kl


def make(kind, likelihood, sizes, hidden, own, seed, **more):
    """Return a model whose components differ in all, the same one for autograd, and its data."""
    (d, z, n, k), own = sizes, dict(own)
    if likelihood in ("shared", "per-dimension"):
        own["variance"] = likelihood
    of = {"likelihood": "bernoulli" if likelihood == "bernoulli" else "gaussian"}
    if kind is sv.IWAE:
        del own["beta"]
    model = kind(
        d, hidden, z, dtype="float64", rng=seed, prior="mixture", components=k,
        **own, **of, **more,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 1])
    for name in "logits", "mean", "logvar":
        p = model.params[f"prior.{name}"]
        p.value[...] = rng.normal(size=p.shape)
    reference = WithMixture(model, own["activation"], of["likelihood"], own["variance"])
    return model, reference, rng.uniform(size=(n, d)), model.draw_eps(n, rng)


cases = {
    "sizes": st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    "hidden": st.lists(st.integers(1, 8), max_size=2),
    "own": options,
    "seed": draws.seeds,
}


@pytest.mark.proves("mixture-square", "mixture-component", "mixture-log-density")
@pytest.mark.proves("mixture-responsibility", "mixture-grad-logits", "mixture-grad-mean")
@pytest.mark.proves("mixture-grad-logvar", "mixture-grad-z")
@settings(max_examples=60)
@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    latent_dim=st.integers(1, 5),
    components=st.integers(2, 7),
    seed=draws.seeds,
)
def test_density_and_gradients_are_those_of_a_mixture_of_the_same_family(
    leading, latent_dim, components, seed
):
    rng = np.random.default_rng(seed)
    prior = sv.MixturePrior(latent_dim, components)
    for _, p in prior.named_parameters():
        p.value[...] = rng.normal(size=p.shape)
    z, dlogp = rng.normal(size=(*leading, latent_dim)), rng.normal(size=leading)
    leaves = [torch.tensor(a, requires_grad=True)
              for a in (*(p.value for _, p in prior.named_parameters()), z)]  # fmt: skip
    expected = components_of(*leaves[:3]).log_prob(leaves[3])
    log_p, cache = prior.log_density(z)
    # Squares of some hundred at most, and a few dozen roundings of 1e-16.
    np.testing.assert_allclose(log_p, expected.detach(), rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad((torch.tensor(dlogp) * expected).sum(), leaves)
    dz = prior.log_density_backward(dlogp, cache)
    found = [*(p.grad for _, p in prior.named_parameters()), dz]
    for one, other in zip(found, gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.proves("mixture-kl", "mixture-kl-grad")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=40)
@given(**cases)
def test_loss_and_gradients_of_a_vae_are_autograds(likelihood, sizes, hidden, own, seed):
    own = {**own, "beta": own["beta"] or 1.0}  # with a beta of 0 the prior has no gradient
    model, reference, x, eps = make(sv.VAE, likelihood, sizes, hidden, own, seed)
    loss, kl = (a.mean() for a in reference.losses(x, eps))
    loss.backward()
    terms = model.loss_and_grad(x, eps)
    # As for the VAE with N(0, I): both sides round to 1e-16 some thousand times at most.
    assert terms.loss == pytest.approx(loss.item(), rel=1e-10, abs=1e-10)
    assert terms.kl == pytest.approx(kl.item(), rel=1e-10, abs=1e-10)
    gradients = {name: w.grad.numpy() for name, w in reference.weights.items()}
    assert_equal_gradients(model, gradients, rtol=1e-10)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=40)
@given(**cases, samples=st.integers(1, 5))
def test_loss_and_gradients_of_an_iwae_are_autograds(likelihood, sizes, hidden, own, seed, samples):
    model, reference, x, eps = make(sv.IWAE, likelihood, sizes, hidden, own, seed, samples=samples)
    loss = reference.losses(x, eps)[0].mean()
    loss.backward()
    assert model.loss_and_grad(x, eps).loss == pytest.approx(loss.item(), rel=1e-10, abs=1e-10)
    gradients = {name: w.grad.numpy() for name, w in reference.weights.items()}
    assert_equal_gradients(model, gradients, rtol=1e-10)
