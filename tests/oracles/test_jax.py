"""The package against JAX: its autograd, and its gradient checker on our pairs.

The JAX side is written from the definitions and shares nothing with the package but the numbers:
weights, data and noise.
"""

import numpy as np
import pytest
import strategies as draws
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import LIKELIHOODS, PAIRS, assert_equal_gradients, build, import_oracle, options, pairs

import scratchvae as sv
from scratchvae import activations

jax = import_oracle("jax")
# In this process only: what JAX would run on otherwise, and round to, depends on the machine.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
jnp = import_oracle("jax.numpy")
norm = import_oracle("jax.scipy.stats").norm
check_vjp = import_oracle("jax.test_util").check_vjp

ACTIVATIONS = {name: getattr(jax.nn, name) for name in activations.ACTIVATIONS}  # named as theirs


def loss_and_terms(weights, drawn, variational, beta):
    """Return the loss and (reconstruction, KL), means over the batch, as a function of weights."""

    def stack(part, h):
        numbers = sorted({int(name.split(".")[1]) for name in weights if name.startswith(part)})
        for i in numbers:
            h = ACTIVATIONS[drawn.activation](h) if i > 0 else h
            h = jnp.einsum("bi,ij->bj", h, weights[f"{part}.{i}.W"]) + weights[f"{part}.{i}.b"]
        return h

    def log_likelihood(x, output):
        if drawn.likelihood == "bernoulli":
            return x * jax.nn.log_sigmoid(output) + (1 - x) * jax.nn.log_sigmoid(-output)
        if drawn.variance == "per-dimension":
            mean, logvar = jnp.split(output, 2, axis=1)
            return norm.logpdf(x, mean, jnp.sqrt(jnp.exp(logvar)))
        if drawn.variance == "shared":
            return norm.logpdf(x, output, jnp.sqrt(jnp.exp(weights["likelihood.logvar"])))
        return norm.logpdf(x, output, drawn.variance**0.5)

    code, kl = stack("encoder", drawn.x), 0.0
    if variational:
        mu, logvar = jnp.split(code, 2, axis=1)
        sigma = jnp.sqrt(jnp.exp(logvar))
        kl = jnp.sum((sigma**2 + mu**2 - 1) / 2 - jnp.log(sigma), axis=1).mean()
        code = mu + sigma * drawn.eps
    reconstruction = -log_likelihood(drawn.x, stack("decoder", code)).sum(axis=1).mean()
    return reconstruction + beta * kl, (reconstruction, kl)


VARIATIONAL = pytest.mark.proves("negative-elbo", "two-paths")


@pytest.mark.proves("linear", "linear-grad-W", "linear-grad-b", "linear-grad-x", "chain-rule")
@pytest.mark.proves("batch-mean")
@pytest.mark.parametrize("kind", [pytest.param(sv.VAE, marks=VARIATIONAL), sv.Autoencoder])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=20)
@given(
    # JAX compiles every operation anew for each shape, a second in all: hence these few.
    sizes=st.sampled_from([(6, 2, 3), (5, 3, 4)]),
    hidden=st.sampled_from([(), (4, 3)]),
    options=options,
    binary=st.booleans(),
    seed=draws.seeds,
)
def test_loss_and_gradients_are_autograds(kind, likelihood, sizes, hidden, options, binary, seed):
    drawn = build(kind, likelihood, sizes, hidden, options, binary, seed)
    model, variational = drawn.model, kind is sv.VAE
    weights = {name: jnp.array(model.params[name].value) for name in model.params.names}
    f = jax.value_and_grad(loss_and_terms, has_aux=True)
    (loss, terms), grads = f(weights, drawn, variational, model.beta if variational else 0.0)
    expected = [float(term) for term in (loss, *terms)]
    # Both sides round to 1e-16 some hundred times at most and no sum has more than 20 terms: well
    # below 1e-12, so 1e-10 leaves two digits, and a wrong formula is wrong in the first or second.
    assert model.loss_and_grad(drawn.x, drawn.eps) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert_equal_gradients(model, {n: np.asarray(g) for n, g in grads.items()}, rtol=1e-10)


# --------------------------------------------------------------- JAX's gradient checker on ours


def check(pair, i):
    """Compare <v, gradient of argument i> with a central difference; raise if they differ.

    One argument at a time: JAX draws one v for all of them, in which a large one may hide a small.
    """
    before, moving, after = pair.args[:i], pair.args[i], pair.args[i + 1 :]

    def vjp(arg):
        y, pull = pair.vjp(*before, arg, *after)
        return y, lambda dy: (pull(dy)[i],)

    # A step of 1e-5 leaves a sixth of 1e-10 of the third derivative along v, which is of size 1 to
    # 100, and a rounding of 1e-16/1e-5 of the value, of size 10: 2e-9 at most. JAX's own tolerance
    # is 1e-5 for a step of 1e-4.
    check_vjp(lambda arg: vjp(arg)[0], vjp, (moving,), atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_jaxs_check_vjp_passes(rng, name):
    pair = dict(pairs(rng))[name]
    for i in range(len(pair.args)):
        check(pair, i)


@pytest.mark.parametrize("name", PAIRS)
def test_jaxs_check_vjp_finds_one_wrong_entry(rng, name):
    pair = dict(pairs(rng))[name]
    for i in range(len(pair.args)):
        with pytest.raises(AssertionError, match="cotangent projection"):
            check(pair.with_one_entry_wrong(i), i)
