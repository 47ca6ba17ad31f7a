"""Every backward of the package against differences, at shapes, scales and options drawn afresh.

All relative errors are at most 1e-7 in float64, and nothing is retried, filtered or skipped.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchvae import VAE, Activation, Linear, Sequential, free_bits, gaussian
from scratchvae import likelihoods as lik
from scratchvae.activations import ACTIVATIONS
from scratchvae.gradcheck import GradientError, Report, check, check_model, suite

TOLERANCE = 1e-7


def examples(n: int) -> settings:
    return settings(max_examples=n, deadline=None, print_blob=True)


def saturating(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Logits up to about ±2 `scale`, with a last column of unit size.

    At a logit of 30 the slope is 1e-13 and the value 30: no difference in float64 resolves that.
    """
    logits = scale * rng.uniform(-2, 2, shape)
    logits[:, -1] = rng.uniform(-1, 1, shape[0])
    return logits


def never_wrong(*pair, rng, scale):
    """Check; where values are saturated the forward pass may not decide, but accuses nobody."""
    try:
        assert check(*pair, rng=rng, tolerance=TOLERANCE).ok
    except GradientError as error:
        if error.report.verdict != "cannot tell" or scale <= 3:
            raise


def never_wrong_model(case, **options):
    """Check; at a kink of one of its many units the forward pass may not decide."""
    try:
        report = check_model(case.model, case.x, case.eps, **options)
    except GradientError as error:
        if error.report.verdict != "cannot tell":
            raise
        return error.report
    assert report.error <= TOLERANCE
    return report


# ---------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.proves(f"{n}-grad")) for n in ACTIVATIONS]
)
@given(shape=draws.shapes(), scale=draws.logit_scales, rng=draws.generators())
@examples(40)
def test_activations(name, shape, scale, rng):
    never_wrong(*ACTIVATIONS[name], (saturating(rng, shape, scale),), rng=rng, scale=scale)


@pytest.mark.proves("reparameterize-grad-mu", "reparameterize-grad-logvar")
@given(shape=draws.shapes(), scale=draws.logvar_scales, rng=draws.generators())
@examples(50)
def test_reparameterize(shape, scale, rng):
    mu, logvar, eps = rng.standard_normal((3, *shape))
    report = check(gaussian.reparameterize, (mu, scale * logvar, eps), wrt=(0, 1), rng=rng)
    assert report.error <= TOLERANCE


@pytest.mark.proves("reparameterize-grad-mu", "reparameterize-grad-logvar")
@given(shape=draws.shapes(), k=st.integers(1, 3), rng=draws.generators())
@examples(30)
def test_reparameterize_with_k_samples(shape, k, rng):
    mu, logvar = rng.standard_normal((2, *shape))
    check(gaussian.reparameterize, (mu, logvar, rng.standard_normal((k, *shape))), rng=rng)


@pytest.mark.proves("kl-grad-mu", "kl-grad-logvar")
@given(shape=draws.shapes(), scale=draws.logvar_scales, rng=draws.generators())
@examples(50)
def test_kl(shape, scale, rng):
    mu, logvar = rng.standard_normal((2, *shape))
    # Beside exp(20), which four sigma give, rounding hides the slope of mu^2 / 2.
    logvar = np.minimum(scale * logvar, 10)
    # And beside a KL of tens a slope of 1e-5.
    mu = np.where(np.abs(mu) < 0.01, 0.01, mu)
    check(gaussian.kl_standard_normal, (mu, logvar), rng=rng)


@pytest.mark.proves("log-density-grad-z", "log-density-grad-mu", "log-density-grad-logvar")
@given(shapes=draws.broadcast_shapes(), scale=draws.scales, rng=draws.generators())
@examples(60)
def test_log_density_broadcasts_its_logvar(shapes, scale, rng):
    shape, small = shapes
    z, mu = scale * rng.standard_normal((2, *shape))
    check(gaussian.log_density, (z, mu, np.array(rng.standard_normal(small))), rng=rng)


@pytest.mark.proves("log-density-grad-z", "log-density-grad-mu", "log-density-grad-logvar")
@given(shapes=draws.broadcast_shapes(), rng=draws.generators())
@examples(30)
def test_log_density_broadcasts_its_mean(shapes, rng):
    shape, small = shapes
    z, logvar = rng.standard_normal((2, *shape))
    check(gaussian.log_density, (z, np.array(rng.standard_normal(small)), logvar), rng=rng)


@given(shapes=draws.broadcast_shapes(), k=st.integers(1, 3), rng=draws.generators())
@examples(40)
def test_log_density_with_k_samples(shapes, k, rng):
    shape, small = shapes
    z, mu = rng.standard_normal((k, *shape)), rng.standard_normal(shape)
    check(gaussian.log_density, (z, mu, np.array(rng.standard_normal(small))), rng=rng)


@pytest.mark.proves("bernoulli-grad")
@given(shape=draws.shapes(), scale=draws.logit_scales, grey=st.booleans(), rng=draws.generators())
@examples(60)
def test_bernoulli(shape, scale, grey, rng):
    x = rng.random(shape) if grey else draws.bits(rng, shape)
    never_wrong(lik.bernoulli_nll, (x, saturating(rng, shape, scale)), rng=rng, scale=scale)


@given(shape=draws.shapes(), rng=draws.generators())
@examples(20)
def test_bernoulli_where_every_logit_is_saturated(shape, rng):
    """The gradient is then below what a difference resolves: no false alarm."""
    x = draws.bits(rng, shape)
    logits = 30 * (2 * x - 1) + rng.standard_normal(shape)
    never_wrong(lik.bernoulli_nll, (x, logits), rng=rng, scale=30)


@pytest.mark.proves("gaussian-nll-grad")
@given(shapes=draws.broadcast_shapes(), scale=draws.scales, rng=draws.generators())
@examples(60)
def test_gaussian_nll_broadcasts_its_logvar(shapes, scale, rng):
    shape, small = shapes
    x, mean = scale * rng.standard_normal((2, *shape))
    check(lik.gaussian_nll, (x, mean, np.array(rng.standard_normal(small))), rng=rng)


class Head:
    """A likelihood for some x as a layer, so that its own parameter is checked too."""

    def __init__(self, likelihood, x):
        self.likelihood, self.x = likelihood, x
        self.named_parameters = likelihood.named_parameters

    def forward(self, output):
        return self.likelihood.nll(self.x, output)

    def backward(self, dnll, cache):
        return self.likelihood.nll_backward(dnll, cache)


@given(shape=draws.shapes(), options=draws.likelihoods, rng=draws.generators())
@examples(40)
def test_likelihoods_as_a_decoder_sees_them(shape, options, rng):
    variance = options.get("variance", 1.0)
    backend = VAE(1).backend
    head = lik.get_likelihood(options["likelihood"], shape[1], variance, backend, "float64")
    x, output = draws.bits(rng, shape), rng.standard_normal((shape[0], head.output_dim))
    report = check(Head(head, x), (output,), rng=rng)
    learned = any(c.name.startswith("logvar") for c in report.checks)
    assert learned == (variance == "shared")


# --------------------------------------------------------------------------------------- layers


@pytest.mark.proves("linear-grad-W", "linear-grad-b", "linear-grad-x")
@given(shape=draws.shapes(), n_out=draws.data_dims, scale=draws.scales, rng=draws.generators())
@examples(40)
def test_linear(shape, n_out, scale, rng):
    layer = Linear(shape[1], n_out, rng=rng, dtype="float64")
    check(layer, (scale * rng.standard_normal(shape),), rng=rng)


@given(name=draws.activations, shape=draws.shapes(), rng=draws.generators())
@examples(30)
def test_activation_layers(name, shape, rng):
    check(Activation(name), (rng.standard_normal(shape),), rng=rng)


@pytest.mark.proves("chain-rule")
@given(drawn=draws.stacks(), rng=draws.generators())
@examples(60)
def test_sequential(drawn, rng):
    stack, x = drawn
    check(stack, (x,), rng=rng)


class Twice:
    """One layer called on both halves of x before either backward: y = [f(x1) | f(x2)]."""

    def __init__(self, layer):
        self.layer, self.named_parameters = layer, layer.named_parameters

    def forward(self, x):
        halves = np.split(x, 2, axis=1)
        (y1, c1), (y2, c2) = (self.layer.forward(half) for half in halves)
        return np.concatenate([y1, y2], axis=1), (c1, c2)

    def backward(self, dy, cache):
        parts = zip(np.split(dy, 2, axis=1), cache, strict=True)
        return np.concatenate([self.layer.backward(d, c) for d, c in parts], axis=1)


@given(shape=draws.shapes(), name=draws.activations, rng=draws.generators())
@examples(40)
def test_a_layer_called_twice_before_its_backward(shape, name, rng):
    """Caches, not hidden state; and the two gradients of one weight add up."""
    b, n = shape
    stack = Sequential([Linear(n, 4, rng=rng, dtype="float64"), Activation(name)])
    x1, x2 = rng.standard_normal((2, b, n))
    check(Twice(stack), (np.concatenate([x1, x2], axis=1),), rng=rng)


@given(drawn=draws.stacks(), rng=draws.generators())
@examples(30)
def test_parameter_gradients_accumulate(drawn, rng):
    stack, x = drawn
    y, cache = stack.forward(x)
    dy1, dy2 = rng.standard_normal((2, *y.shape))

    def gradients(*cotangents):
        for _, p in stack.named_parameters():
            p.grad[...] = 0
        for dy in cotangents:
            stack.backward(dy, cache)
        return [p.grad.copy() for _, p in stack.named_parameters()]

    for both, one, two in zip(gradients(dy1, dy2), gradients(dy1), gradients(dy2), strict=True):
        np.testing.assert_allclose(both, one + two, rtol=1e-12, atol=1e-12)


@given(drawn=draws.stacks(), rng=draws.generators())
@examples(30)
def test_without_input_gradient_the_parameter_gradients_stay(drawn, rng):
    stack, x = drawn
    y, cache = stack.forward(x)
    dy = rng.standard_normal(y.shape)

    def gradients(backward):
        for _, p in stack.named_parameters():
            p.grad[...] = 0
        backward(dy, cache)
        return [p.grad.copy() for _, p in stack.named_parameters()]

    whole, without = gradients(stack.backward), gradients(stack.backward_parameters)
    for one, two in zip(whole, without, strict=True):
        np.testing.assert_array_equal(one, two)


@given(shape=draws.shapes(), free=st.floats(0.01, 2), rng=draws.generators())
@examples(40)
def test_free_bits(shape, free, rng):
    mu, logvar = rng.standard_normal((2, *shape))
    # The kink is where a KL equals `free`. A step of 1e-3 moves a KL by less than 1e-2 here.
    kl = gaussian.kl_per_dimension(mu, logvar)
    mu = np.where(np.abs(kl - free) < 1e-2, mu + 0.2 * np.sign(mu), mu)
    kl = gaussian.kl_per_dimension(mu, logvar)
    free = free if np.abs(kl - free).min() > 1e-2 else kl.max() + 0.1
    forward = lambda mu, logvar: free_bits.kl_free_bits(mu, logvar, free)  # noqa: E731
    check(forward, free_bits.kl_free_bits_backward, (mu, logvar), rng=rng)


# --------------------------------------------------------------------------------------- models


@pytest.mark.proves("chain-rule", "two-paths", "batch-mean")
@given(case=draws.cases(), rng=draws.generators())
@examples(300)
def test_whole_models(case, rng):
    report = never_wrong_model(case, rng=rng, directions=2)
    checked = {c.name.split("[")[0].split(",")[0] for c in report.checks}
    assert checked - {"all together"} == set(case.model.params.names)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(options=draws.likelihoods, beta=draws.betas, seed=draws.seeds)
@examples(8)
def test_models_with_blocks_that_need_directions(activation, options, beta, seed):
    options = {"hidden": (16,), "activation": activation, "beta": beta, **options}
    case = draws.make_case(VAE, 6, 20, 5, seed, **options)
    report = never_wrong_model(case, rng=seed)
    assert any("encoder.0.W, direction" in c.name for c in report.checks)


@given(case=draws.cases((VAE,)), rng=draws.generators())
@examples(30)
def test_backward_weighs_the_examples(case, rng):
    """`forward` and `backward` are a pair too: any weights of the examples, not only 1/B."""
    model, p = case.model, case.model.params
    _, cache = model.forward(case.x, case.eps)
    dloss = rng.standard_normal(len(case.x))
    p.grad[...] = 0
    model.backward(dloss, cache)
    weighted, parts = p.grad.copy(), 0
    for i, weight in enumerate(dloss):
        row = slice(i, i + 1)
        model.loss_and_grad(case.x[row], case.eps[row])
        parts = parts + weight * p.grad
    np.testing.assert_allclose(weighted, parts, rtol=1e-9, atol=1e-10 * np.abs(parts).max())


def test_the_suite_draws_other_arguments_where_some_decide_nothing(monkeypatch):
    """A kink beside them is no fault of the gradient. Once, so that what never decides shows."""
    module = sys.modules["scratchvae.gradcheck.suite"]
    seen, check_as_it_is = {"tanh": [], "relu": []}, module.check

    def check(f, args, name, **options):
        if name not in seen:
            return check_as_it_is(f, args, name=name, **options)
        seen[name].append(args[0])
        if name == "tanh" or len(seen[name]) == 1:
            raise GradientError(Report(name, np.inf, 1e-7, 1, verdict="cannot tell"))
        return check_as_it_is(f, args, name=name, **options)

    monkeypatch.setattr(module, "check", check)
    reports = {r.name: r for r in itertools.islice(suite(rng=None), 3)}
    assert reports["relu"].ok
    assert reports["tanh"].verdict == "cannot tell"
    for first, second in seen.values():
        assert not np.array_equal(first, second)


def test_the_suite_of_the_command_line():
    reports = list(suite(rng=None))
    assert [r.message for r in reports if not r.ok] == []
    assert len(reports) >= 25
    assert len({r.name for r in reports}) == len(reports)
    assert "VAE bernoulli relu" in {r.name for r in reports}
    assert len({r.seed for r in reports}) == 1
    assert all(r.error <= TOLERANCE for r in reports)
    again = list(itertools.islice(suite(rng=reports[0].seed), 25))
    assert again == reports[:25]
