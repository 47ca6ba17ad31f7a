"""The package against PyTorch: its autograd, distributions, optimizers and gradient checker.

The PyTorch side is written from the definitions and shares nothing with the package but the
numbers: weights, data and noise.
"""

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import LIKELIHOODS, PAIRS, assert_equal_gradients, build, import_oracle, options, pairs

import scratchvae as sv
from scratchvae import activations, evaluation, gaussian
from scratchvae import likelihoods as lik

torch = import_oracle("torch")
torch.set_num_threads(1)  # the cases are small, and a second pool of threads would only spin
Normal, Independent = torch.distributions.Normal, torch.distributions.Independent

# Theirs have the same names. Their softplus is linear above 20.
ACTIVATIONS = {name: getattr(torch.nn.functional, name) for name in activations.ACTIVATIONS}
ACTIVATIONS["softplus"] = lambda x: torch.logaddexp(x, torch.zeros_like(x))


def leaf(a):
    """A tensor of its own for `a`, in float64, that autograd will give a gradient."""
    return torch.tensor(a, dtype=torch.float64, requires_grad=True)


def standard_normal_like(a):
    return Normal(torch.zeros_like(a), torch.ones_like(a))


# --------------------------------------------------------------------------------- whole models


class TorchModel:
    """The same model for autograd, starting from the same weights in float64."""

    def __init__(self, model, activation, likelihood, variance):
        self.activation = ACTIVATIONS[activation]
        self.likelihood, self.variance = likelihood, variance
        self.variational = isinstance(model, sv.VAE)
        self.beta = model.beta if self.variational else 0.0
        self.weights = {name: leaf(model.params[name].value) for name in model.params.names}

    def stack(self, part, x):
        numbers = sorted({int(name.split(".")[1]) for name in self.weights if part in name})
        for i in numbers:
            if i > 0:
                x = self.activation(x)
            x = x @ self.weights[f"{part}.{i}.W"] + self.weights[f"{part}.{i}.b"]
        return x

    def posterior(self, x):
        mu, logvar = self.stack("encoder", x).chunk(2, dim=1)
        return Normal(mu, logvar.exp().sqrt())

    def log_likelihood(self, x, output):
        if self.likelihood == "bernoulli":
            if torch.all((x == 0) | (x == 1)):
                return torch.distributions.Bernoulli(logits=output).log_prob(x)
            return -torch.nn.functional.binary_cross_entropy_with_logits(
                output, x, reduction="none"
            )
        if self.variance == "per-dimension":
            output, logvar = output.chunk(2, dim=-1)
            sigma = (logvar / 2).exp()
        elif self.variance == "shared":
            sigma = self.weights["likelihood.logvar"].exp().sqrt()
        else:
            sigma = torch.tensor(self.variance, dtype=torch.float64).sqrt()
        return Normal(output, sigma).log_prob(x)

    def terms(self, x, eps):
        """Return loss, reconstruction and KL, and leave the gradients in the weights."""
        x, eps = torch.tensor(x, dtype=torch.float64), torch.tensor(eps, dtype=torch.float64)
        kl = torch.zeros(())
        if self.variational:
            q = self.posterior(x)
            kl = torch.distributions.kl_divergence(q, standard_normal_like(q.loc))
            kl = kl.sum(dim=1).mean()
            code = q.loc + q.scale * eps
        else:
            code = self.stack("encoder", x)
        output = self.stack("decoder", code)
        reconstruction = -self.log_likelihood(x, output).sum(dim=1).mean()
        loss = reconstruction + self.beta * kl
        for weight in self.weights.values():
            weight.grad = None
        loss.backward()
        return [term.item() for term in (loss, reconstruction, kl)]

    def gradients(self):
        return {name: weight.grad.numpy() for name, weight in self.weights.items()}

    def log_importance_weights(self, x, eps):
        """Return log p(x, z) - log q(z|x), (K, B), at the draws z that eps (K, B, Z) makes."""
        x, eps = torch.tensor(x), torch.tensor(eps)
        q = self.posterior(x)
        z = q.loc + q.scale * eps
        log_likelihood = self.log_likelihood(x.expand(len(eps), *x.shape), self.stack("decoder", z))
        log_prior = Independent(standard_normal_like(z), 1).log_prob(z)
        return log_likelihood.sum(dim=-1) + log_prior - Independent(q, 1).log_prob(z)


VARIATIONAL = pytest.mark.proves("negative-elbo", "two-paths")


@pytest.mark.proves("linear", "linear-grad-W", "linear-grad-b", "linear-grad-x", "chain-rule")
@pytest.mark.proves("batch-mean")
@pytest.mark.parametrize("kind", [pytest.param(sv.VAE, marks=VARIATIONAL), sv.Autoencoder])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 7)),
    hidden=st.lists(st.integers(1, 8), max_size=3),
    options=options,
    binary=st.booleans(),
    seed=draws.seeds,
)
def test_loss_and_gradients_are_autograds(kind, likelihood, sizes, hidden, options, binary, seed):
    drawn = build(kind, likelihood, sizes, hidden, options, binary, seed)
    model = drawn.model
    reference = TorchModel(model, drawn.activation, drawn.likelihood, drawn.variance)
    expected = reference.terms(drawn.x, drawn.eps)
    # Both sides round to 1e-16 some thousand times at most and no sum has more than 20 terms: well
    # below 1e-12, so 1e-10 leaves two digits, and a wrong formula is wrong in the first or second.
    assert model.loss_and_grad(drawn.x, drawn.eps) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert_equal_gradients(model, reference.gradients(), rtol=1e-10)


def test_float32_gradients_are_autograds_of_float64(rng):
    # tanh: a ReLU may switch where the two precisions differ in the sign of an input near 0.
    model = sv.VAE(64, (32,), 8, activation="tanh", rng=rng)
    x, eps = (rng.uniform(size=(16, k)).astype("float32") for k in (64, 8))
    reference = TorchModel(model, "tanh", "bernoulli", 1.0)
    expected = reference.terms(x, eps)
    # Four sums of up to 64 terms forward and four backward, a rounding of 6e-8 each: at most 3e-5
    # if all had one sign. Biases cancel by up to a factor of 10, which is left for them.
    assert model.loss_and_grad(x, eps) == pytest.approx(expected, rel=3e-5)
    assert_equal_gradients(model, reference.gradients(), rtol=3e-4)


SGD, ADAM = pytest.mark.proves("sgd"), pytest.mark.proves("adam-bias", "adam-moments", "adam-step")


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        pytest.param(sv.Adam, torch.optim.Adam, {"lr": 1e-2}, marks=ADAM),
        pytest.param(
            *(sv.Adam, torch.optim.Adam, {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-4}), marks=ADAM
        ),
        pytest.param(sv.SGD, torch.optim.SGD, {"lr": 1e-2}, marks=SGD),
        pytest.param(sv.SGD, torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}, marks=SGD),
    ],
)
def test_ten_training_steps_are_torchs(rng, ours, theirs, options):
    kind = {"likelihood": "gaussian", "variance": "shared", "beta": 0.5}
    model = sv.VAE(12, (10,), 3, dtype="float64", rng=rng, **kind)
    reference = TorchModel(model, "relu", "gaussian", "shared")
    optimizer = ours(model.params, **options)
    their_optimizer = theirs(reference.weights.values(), **options)
    for _ in range(10):
        x, eps = rng.uniform(size=(8, 12)), rng.normal(size=(8, 3))
        expected = reference.terms(x, eps)
        # Adam divides by a root that may be as small as its eps, 1e-8, and so may turn a gradient's
        # rounding of 1e-17 into 1e-9 of a rate of 1e-2, ten times over.
        assert model.loss_and_grad(x, eps) == pytest.approx(expected, rel=1e-10)
        optimizer.step()
        their_optimizer.step()
        for name, weight in reference.weights.items():
            error = np.abs(model.params[name].value - weight.detach().numpy()).max()
            assert error < 1e-10, name


# ---------------------------------------------------- functions, and their gradients by autograd


def assert_same(f, backward, args, reference, rng, *, data=(), noise=()):
    """Compare f(*data, *args, *noise) and its backward with a reference's value and autograd."""
    leaves = [leaf(a) for a in args]
    expected = reference(*map(torch.tensor, data), *leaves, *map(torch.tensor, noise))
    y, cache = f(*data, *args, *noise)
    assert_close(y, expected.detach().numpy())
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(dy))
    grads = backward(dy, cache)
    grads = grads if isinstance(grads, tuple) else (grads,)
    for grad, tensor in zip(grads, leaves, strict=True):
        assert_close(grad, tensor.grad.numpy())


def assert_close(actual, expected):
    """Compare to 1e-10 of the largest entry, or of 1 where all are smaller.

    Both sides round numbers of that size some dozen times to 1e-16, such as the sigma^2 and the 1
    whose difference is a gradient of the KL. The gradient of a shared logvar is the worst: up to
    105 summands, of which one may be 700, may cancel to less than 1, and their roundings to less
    than 105 * 700 * 1e-15 = 7e-11. A wrong formula is wrong in the first digits.
    """
    assert np.shape(actual) == expected.shape
    largest = max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10 * largest)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.proves(n, f"{n}-grad")) for n in ACTIVATIONS]
)
@given(shape=draws.shapes(), scale=st.sampled_from([1.0, 30.0, 1000.0]), rng=draws.generators())
def test_activations_are_torchs(name, shape, scale, rng):
    x = scale * rng.standard_normal(shape)
    assert_same(*activations.ACTIVATIONS[name], [x], ACTIVATIONS[name], rng)


@pytest.mark.proves("sigma", "reparameterize")
@pytest.mark.proves("reparameterize-grad-mu", "reparameterize-grad-logvar")
@given(shape=draws.shapes(), k=st.integers(0, 3), seed=draws.seeds, rng=draws.generators())
def test_draws_are_torchs(shape, k, seed, rng):
    """Normal.rsample draws the same noise as randn does after the same seed."""
    samples = (k,) if k else ()

    def rsample(mu, logvar, eps):
        torch.manual_seed(seed)
        return Normal(mu, logvar.exp().sqrt()).rsample(samples)

    mu, logvar = rng.uniform(-3, 3, (2, *shape))
    pair = gaussian.reparameterize, gaussian.reparameterize_backward
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        eps = torch.randn(*samples, *shape, dtype=torch.float64).numpy()
        assert_same(*pair, [mu, logvar], rsample, rng, noise=[eps])


def kl_per_dimension(mu, logvar):
    q = Normal(mu, logvar.exp().sqrt())
    return torch.distributions.kl_divergence(q, standard_normal_like(mu))


@pytest.mark.proves("kl", "kl-sum", "kl-grad-mu", "kl-grad-logvar")
@given(shape=draws.shapes(), scale=draws.logvar_scales, rng=draws.generators())
def test_kl_is_torchs(shape, scale, rng):
    mu, logvar = scale * rng.uniform(-2, 2, (2, *shape))
    expected = kl_per_dimension(torch.tensor(mu), torch.tensor(logvar)).numpy()
    assert_close(gaussian.kl_per_dimension(mu, logvar), expected)
    pair = gaussian.kl_standard_normal, gaussian.kl_standard_normal_backward
    assert_same(*pair, [mu, logvar], lambda *args: kl_per_dimension(*args).sum(dim=-1), rng)


def normal_log_prob(x, mean, logvar):
    """Return log p(x) of all the dimensions together, whatever was broadcast."""
    shape = torch.broadcast_shapes(x.shape, mean.shape, logvar.shape)
    return Independent(Normal(mean, logvar.exp().sqrt()).expand(shape), 1).log_prob(x)


@st.composite
def densities(draw):
    """x, mean and logvar of which one is (B, D) and the others broadcast to or from it."""
    rng, k = draw(draws.generators()), draw(st.integers(1, 3))
    shape, small = draw(draws.broadcast_shapes())
    shapes = draw(
        st.sampled_from(
            [
                (shape, shape, small),
                (shape, small, shape),
                ((k, *shape), shape, small),  # draws of z
                (shape, (k, *shape), small),  # what a decoder makes of them
                (shape, (k, *shape), (k, *shape)),
            ]
        )
    )
    return [np.array(rng.uniform(-3, 3, shape)) for shape in shapes], rng


@pytest.mark.proves("log-density")
@pytest.mark.proves("log-density-grad-z", "log-density-grad-mu", "log-density-grad-logvar")
@given(drawn=densities())
def test_log_density_is_torchs(drawn):
    args, rng = drawn
    pair = gaussian.log_density, gaussian.log_density_backward
    assert_same(*pair, args, normal_log_prob, rng)


@pytest.mark.proves("gaussian-nll", "gaussian-nll-grad")
@given(drawn=densities())
def test_gaussian_nll_is_torchs(drawn):
    (x, *args), rng = drawn
    pair = lik.gaussian_nll, lik.gaussian_nll_backward
    assert_same(*pair, args, lambda *args: -normal_log_prob(*args), rng, data=[x])


@pytest.mark.proves("bernoulli", "bernoulli-grad")
@given(shape=draws.shapes(), scale=st.sampled_from([1.0, 30.0, 1e4]), rng=draws.generators())
def test_bernoulli_nll_is_torchs(shape, scale, rng):
    def reference(x, logits):
        return -Independent(torch.distributions.Bernoulli(logits=logits), 1).log_prob(x)

    x, logits = draws.bits(rng, shape), scale * rng.standard_normal(shape)
    pair = lik.bernoulli_nll, lik.bernoulli_nll_backward
    assert_same(*pair, [logits], reference, rng, data=[x])


@given(shape=draws.shapes(), scale=st.sampled_from([1.0, 30.0, 1e4]), rng=draws.generators())
def test_the_means_of_likelihoods_are_torchs(shape, scale, rng):
    logits = scale * rng.standard_normal(shape)
    expected = torch.distributions.Bernoulli(logits=torch.tensor(logits)).mean.numpy()
    assert_close(lik.Bernoulli(shape[1]).mean(logits), expected)
    for variance in (0.5, "shared", "per-dimension"):
        likelihood = lik.Gaussian(shape[1], variance, sv.VAE(1).backend, "float64")
        output = rng.standard_normal((shape[0], likelihood.output_dim))
        mean, *logvar = torch.tensor(output).split(shape[1], dim=1)
        sigma = logvar[0].exp().sqrt() if logvar else torch.ones_like(mean)
        assert np.array_equal(likelihood.mean(output), Normal(mean, sigma).mean.numpy())


@pytest.mark.proves("importance-weight", "importance-weighted-bound")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("rows", [7, 10_000])  # in chunks of 2 samples, and all at once
def test_the_importance_weighted_bound_is_torchs(rng, monkeypatch, likelihood, rows):
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", rows)
    options = {"activation": "tanh", "variance": 0.3, "beta": 1.0}
    seeds = (int(seed) for seed in rng.integers(2**32, size=2))
    drawn = build(sv.VAE, likelihood, (6, 3, 3), (5,), options, True, next(seeds))
    reference = TorchModel(drawn.model, "tanh", drawn.likelihood, drawn.variance)
    seed, samples = next(seeds), 11
    eps = np.random.default_rng(seed).standard_normal((samples, 3, 3))  # (K, B, Z)
    with torch.no_grad():
        log_w = reference.log_importance_weights(drawn.x, eps)
        expected = torch.logsumexp(log_w, dim=0).numpy() - np.log(samples)
    assert_close(
        evaluation.importance_weighted_bound(drawn.model, [drawn.x], samples, seed), expected
    )


# ----------------------------------------------------------- PyTorch's gradient checker on ours


class Ours(torch.autograd.Function):
    """A pair of ours as a function of autograd's."""

    @staticmethod
    def forward(ctx, vjp, *args):
        y, ctx.pull = vjp(*(a.detach().numpy().copy() for a in args))
        return torch.tensor(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        return None, *(torch.tensor(g) for g in ctx.pull(dy.numpy()))


def gradcheck(pair):
    """Compare the whole Jacobian with central differences; raise where they differ."""
    # A step of 1e-5 leaves a sixth of 1e-10 of the third derivative, which is of size 1 to 100,
    # and a rounding of 1e-16/1e-5 of the value, of size 10: 1e-9 each at most. The checker's own
    # atol is 1e-5 for a step of 1e-6; it also wants bitwise the same gradient twice.
    torch.autograd.gradcheck(
        lambda *args: Ours.apply(pair.vjp, *args),
        [leaf(a) for a in pair.args],
        eps=1e-5,
        atol=1e-7,
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", PAIRS)
def test_torchs_gradcheck_passes(rng, name):
    gradcheck(dict(pairs(rng))[name])


@pytest.mark.parametrize("name", PAIRS)
def test_torchs_gradcheck_finds_one_wrong_entry(rng, name):
    pair = dict(pairs(rng))[name]
    for i in range(len(pair.args)):
        mismatch = f"Jacobian mismatch for output 0 with respect to input {i},"
        with pytest.raises(RuntimeError, match=mismatch):
            gradcheck(pair.with_one_entry_wrong(i))
