"""The kernels that Numba compiles, against the NumPy text that defines them.

All other tests run without them (conftest.py says so), so that those look at the definitions.
"""

import numpy as np
import pytest
import strategies as draws
from hypothesis import given
from hypothesis import strategies as st
from oracle import import_oracle

import scratchvae as sv
from scratchvae import gradcheck, kernels, likelihoods
from scratchvae.optimizers import adam_update

import_oracle("numba")
from scratchvae.kernels import host  # noqa: E402  it imports Numba

dtypes = st.sampled_from([np.float32, np.float64])
# None, one, fewer and more than a vector register holds, more than one of the definition's blocks.
sizes = st.sampled_from([0, 1, 7, 16, 16_384, 16_385, 40_001]) | st.integers(0, 200)


@pytest.fixture
def compiled(monkeypatch):
    """Let the kernels be used while the test runs."""
    monkeypatch.setenv("SCRATCHVAE_COMPILED", "1")
    kernels._host.cache_clear()
    yield
    kernels._host.cache_clear()


@given(draws.generators(), sizes, dtypes, st.sampled_from([1e-20, 1e-6, 1.0, 1e6]), st.data())
def test_adam_is_its_definition_bit_for_bit(rng, n, dtype, scale, data):
    value, g, m = (scale * rng.standard_normal((3, n))).astype(dtype)
    v = (scale * rng.standard_normal(n)).astype(dtype) ** 2
    beta1, beta2 = data.draw(st.floats(0, 0.999)), data.draw(st.floats(0, 0.9999))
    step, eps = data.draw(st.floats(1e-6, 1)), data.draw(st.floats(1e-10, 1e-4))
    expected, actual = ([x.copy() for x in (value, g, m, v)] for _ in range(2))
    adam_update.__wrapped__(*expected, beta1, beta2, step, eps)
    host.adam_update(*actual, beta1, beta2, step, eps)
    for name, a, b in zip(("value", "g", "m", "v"), expected, actual, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


rows = draws.batch_sizes | st.sampled_from([63, 64, 65, 128, 200])


@given(
    draws.generators(),
    st.tuples(rows, draws.data_dims),
    dtypes,
    st.sampled_from([0.1, 1.0, 10.0, 100.0]),
)
def test_bernoulli_pair_is_its_definition(rng, shape, dtype, scale):
    x = rng.integers(0, 2, shape).astype(dtype)
    logits = (scale * rng.standard_normal(shape)).astype(dtype)
    dnll = rng.standard_normal(shape[0]).astype(dtype)
    wide = [a.astype(np.float64) for a in (x, logits, dnll)]
    nll, cache = likelihoods.bernoulli_nll.__wrapped__(wide[0], wide[1])
    dlogits = likelihoods.bernoulli_nll_backward.__wrapped__(wide[2], cache)

    actual, cache = host.bernoulli_nll(x, logits)
    assert actual.dtype == dtype
    # Every term is positive or the difference of two numbers no larger than |l|, each of them and
    # its parts correct to an ulp or two: 4 roundings of max|l| + 1 for each of D pixels.
    ulp = 4 * np.finfo(dtype).eps
    bound = ulp * (np.abs(wide[1]) + 1).sum(axis=1)
    assert np.all(np.abs(actual - nll) <= bound)
    actual = host.bernoulli_nll_backward(dnll, cache)
    assert actual.dtype == dtype
    # sigma(l) in the definition is exp(l - softplus(l)), whose exponent is rounded to |l| ulp.
    np.testing.assert_array_less(
        np.abs(actual - dlogits),
        (ulp + np.finfo(np.float64).eps * np.abs(wide[1])) * np.abs(wide[2])[:, None] + 1e-300,
    )


@pytest.mark.parametrize(
    ("x", "logits"),
    [((3, 5), (2, 3, 5)), ((5,), (5,)), ((3, 5), (1, 5))],
    ids=["samples", "one example", "broadcast"],
)
def test_other_shapes_are_left_to_the_definition(compiled, rng, x, logits):
    x, logits = rng.integers(0, 2, x).astype(float), rng.standard_normal(logits)
    nll, cache = likelihoods.bernoulli_nll(x, logits)
    expected, expected_cache = likelihoods.bernoulli_nll.__wrapped__(x, logits)
    np.testing.assert_array_equal(nll, expected)
    np.testing.assert_array_equal(
        likelihoods.bernoulli_nll_backward(np.ones_like(nll), cache),
        likelihoods.bernoulli_nll_backward.__wrapped__(np.ones_like(nll), expected_cache),
    )


def test_other_dtypes_are_left_to_the_definition(rng):
    x, logits = rng.integers(0, 2, (3, 5)), rng.standard_normal((3, 5))
    assert host.bernoulli_nll(x, logits) is NotImplemented
    four = [*rng.standard_normal((3, 4)), np.ones(4, np.float32)]
    assert host.adam_update(*four, 0.9, 0.999, 1e-3, 1e-8) is NotImplemented


def test_no_loop_reads_or_writes_past_the_end_of_an_array(rng):
    hyper = (0.9, 0.999, 1e-3, 1e-8)
    value, m, v = np.ones((3, 4))
    assert host.adam_update(value, np.ones(3), m, v, *hyper) is NotImplemented
    assert host.adam_update(*np.ones((4, 2, 2)), *hyper) is NotImplemented
    _, cache = host.bernoulli_nll(np.ones((3, 5)), rng.standard_normal((3, 5)))
    with pytest.raises(ValueError, match=r"shapes \(2,1\) \(3,5\)"):
        host.bernoulli_nll_backward(np.ones(2), cache)


def test_gradients_of_the_whole_model_and_of_every_pair(compiled, rng):
    x = rng.integers(0, 2, (6, 9)).astype(float)
    model = sv.VAE(9, (5,), 2, rng=rng, dtype="float64")
    _, cache = model.forward(x)
    assert any(isinstance(c, host.BernoulliCache) for c in cache)  # they are in use
    for result in gradcheck.suite(rng=rng):
        assert result.ok, result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_goes_the_same_way(compiled, rng, dtype, monkeypatch):
    x = rng.integers(0, 2, (6, 9)).astype(dtype)
    eps = rng.standard_normal((10, 6, 2)).astype(dtype)
    seed = int(rng.integers(2**32))

    def train():
        model = sv.VAE(9, (5,), 2, rng=seed, dtype=dtype, activation="tanh")
        optimizer = sv.Adam(model.params)
        for noise in eps:
            model.loss_and_grad(x, noise)
            optimizer.step()
        return model.params.value

    actual = train()
    monkeypatch.setenv("SCRATCHVAE_COMPILED", "0")
    kernels._host.cache_clear()
    # A gradient as small as its rounding takes Adam as far as any other, so the bound holds for all
    # parameters together and leaves room for some such: ten steps of 1e-3, of values about 0.3.
    difference = np.linalg.norm(actual - train()) / np.linalg.norm(actual)
    assert difference < 1e3 * np.finfo(dtype).eps


def test_environment_switches_them_off(monkeypatch, rng):
    monkeypatch.setenv("SCRATCHVAE_COMPILED", "0")
    kernels._host.cache_clear()
    assert kernels.find("adam_update", np.ones(3)) is None
    monkeypatch.setenv("SCRATCHVAE_COMPILED", "1")
    kernels._host.cache_clear()
    assert kernels.find("adam_update", np.ones(3)) is host.adam_update
    assert kernels.find("relu", np.ones(3)) is None
    kernels._host.cache_clear()
