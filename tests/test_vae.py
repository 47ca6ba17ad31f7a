"""The models: what the loss means, that its bound is one, and what they accept."""

import math
import re

import numpy as np
import pytest
from scipy import special, stats

import scratchvae as sv

KINDS = [
    ("bernoulli", 1.0),
    ("gaussian", 0.3),
    ("gaussian", "shared"),
    ("gaussian", "per-dimension"),
]


def small(likelihood="bernoulli", variance=1.0, model=sv.VAE, **options):
    options = {"hidden": (6,), "latent_dim": 3, "dtype": "float64", **options}
    return model(5, likelihood=likelihood, variance=variance, **options)


def data(rng, n=8):
    return rng.uniform(size=(n, 5)), rng.normal(size=(n, 3))  # x (B, D), eps (B, Z)


# What the loss means


@pytest.mark.proves("negative-elbo", "batch-mean")
@pytest.mark.parametrize("beta", [0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_the_loss_sums_over_dimensions_and_averages_over_the_batch(rng, likelihood, variance, beta):
    """Written out with SciPy's densities, example by example, from the model's own weights."""
    model = small(likelihood, variance, rng=rng, beta=beta, activation="tanh")
    x, eps = data(rng)
    p = {name: model.params[name].value for name in model.params.names}
    reconstruction = kl = 0.0
    for n in range(len(x)):
        hidden = np.tanh(x[n] @ p["encoder.0.W"] + p["encoder.0.b"])
        mu, logvar = np.split(hidden @ p["encoder.2.W"] + p["encoder.2.b"], 2)
        z = mu + np.sqrt(np.exp(logvar)) * eps[n]
        hidden = np.tanh(z @ p["decoder.0.W"] + p["decoder.0.b"])
        output = hidden @ p["decoder.2.W"] + p["decoder.2.b"]
        if likelihood == "bernoulli":
            log_p = x[n] * special.log_expit(output) + (1 - x[n]) * special.log_expit(-output)
        elif variance == "per-dimension":
            log_p = stats.norm.logpdf(x[n], output[:5], np.exp(output[5:] / 2))
        else:
            value = np.exp(p["likelihood.logvar"]) if variance == "shared" else variance
            log_p = stats.norm.logpdf(x[n], output, np.sqrt(value))
        reconstruction -= log_p.sum() / len(x)
        kl += (0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)).sum() / len(x)
    terms = model.loss_and_grad(x, eps)
    # Some hundred roundings of 1e-16, relative to summands of about 10.
    assert terms.reconstruction == pytest.approx(reconstruction, rel=1e-13, abs=1e-13)
    assert terms.kl == pytest.approx(kl, rel=1e-13, abs=1e-13)
    assert terms.loss == pytest.approx(reconstruction + beta * kl, rel=1e-13, abs=1e-13)
    assert all(np.ndim(term) == 0 for term in terms)


@pytest.mark.proves("batch-mean")
def test_a_batch_of_copies_has_the_loss_of_one(rng):
    model = small(rng=rng)
    x, eps = data(rng, 1)
    one = model.loss_and_grad(x, eps)
    gradient = model.params.grad.copy()
    many = model.loss_and_grad(np.repeat(x, 7, axis=0), np.repeat(eps, 7, axis=0))
    # Seven equal summands and one division, where a wrong rule is wrong by a factor of 3 or more.
    assert many == pytest.approx(one, rel=1e-14)
    assert np.allclose(model.params.grad, gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.proves("batch-mean")
def test_the_terms_and_gradient_of_a_batch_are_the_means_of_its_examples(rng):
    model = small(rng=rng)
    x, eps = data(rng)
    singles, gradients = [], []
    for n in range(len(x)):
        singles.append(model.loss_and_grad(x[n : n + 1], eps[n : n + 1]))
        gradients.append(model.params.grad.copy())
    # Eight summands of the size of their mean; gradients may cancel, hence the absolute 1e-14.
    assert model.loss_and_grad(x, eps) == pytest.approx(np.mean(singles, axis=0), rel=1e-14)
    assert np.allclose(model.params.grad, np.mean(gradients, axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("model", [sv.VAE, sv.Autoencoder])
def test_the_shares_of_the_parts_of_a_batch_add_to_the_whole(rng, model):
    model = small(model=model, rng=rng)
    x, eps = data(rng)
    whole = model.loss_and_grad(x, eps)
    expected = model.params.grad.copy()
    terms, gradients = [], []
    for rows in slice(0, 3), slice(3, 4), slice(4, 8):
        terms.append(model.loss_and_grad(x[rows], eps[rows], batch_size=8))
        gradients.append(model.params.grad.copy())
    # Eight summands in another order; gradients may cancel, hence the absolute 1e-14.
    assert np.sum(terms, axis=0) == pytest.approx(whole, rel=1e-14)
    assert np.allclose(np.sum(gradients, axis=0), expected, rtol=1e-12, atol=1e-14)


def test_an_autoencoder_is_its_reconstruction_alone(rng):
    model = small(model=sv.Autoencoder, rng=rng)
    x, eps = data(rng)
    code, (logits, _) = model.encode(x), model.decoder.forward(model.encode(x))
    assert code.shape == (8, 3)
    expected = -(x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits))
    terms = model.loss_and_grad(x)
    assert terms.kl == 0
    assert terms.loss == terms.reconstruction
    # A few dozen roundings of 1e-16.
    assert terms.loss == pytest.approx(expected.sum(axis=1).mean(), rel=1e-14)
    assert model.loss_and_grad(x, eps).loss == terms.loss
    assert np.array_equal(model.reconstruct(x), model.decode(code))


def test_an_autoencoder_has_no_kl_even_where_nothing_is_lost():
    model = small(model=sv.Autoencoder, hidden=())
    model.params.value[...] = 0
    model.params["decoder.0.b"].value[...] = 1e4  # every pixel is surely 1
    assert tuple(model.loss_and_grad(np.ones((8, 5)))) == (0, 0, 0)


@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_float32_is_float64_rounded(rng, likelihood, variance):
    seed = int(rng.integers(2**32))
    x, eps = (a.astype("float32") for a in data(rng))
    single, double = (
        small(likelihood, variance, dtype=dtype, rng=seed) for dtype in ("float32", "float64")
    )
    a, b = single.loss_and_grad(x, eps), double.loss_and_grad(x, eps)
    # Four layers with sums of at most 7 terms, of size 1 or less, and a sum of 5 or 3 terms at the
    # end: below 60 roundings of 6e-8 of numbers whose sizes add to less than 20.
    assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
    assert single.params.grad.dtype == np.float32
    # The same 60 roundings against the gradient's length; 1/1000 would be a wrong formula.
    error = np.linalg.norm(single.params.grad - double.params.grad)
    assert error < 1e-5 * np.linalg.norm(double.params.grad) + 1e-6


def test_the_terms_of_a_float32_batch_are_float64_sums(rng):
    """Else the last digits of a loss would depend on the size of the batch."""
    model = small(dtype="float32", rng=rng)
    x, eps = data(rng, 1000)
    of_batch, of_examples = model.loss_and_grad(x, eps), model.forward(x, eps)[0]
    for total, terms in zip(of_batch, of_examples, strict=True):
        assert total.dtype == np.float64
        # The same additions: equal, not only close.
        assert total == terms.sum(dtype=np.float64) / 1000


# That the bound is a bound, and where it is tight: test_ground_truth.py


# Parameters, noise, and what is left alone


def test_the_parameters_are_named_shaped_and_ordered_as_published():
    model = sv.VAE(784, hidden=(400,), latent_dim=20)
    assert [(name, model.params[name].shape) for name in model.params.names] == [
        ("encoder.0.W", (784, 400)),
        ("encoder.0.b", (400,)),
        ("encoder.2.W", (400, 40)),
        ("encoder.2.b", (40,)),
        ("decoder.0.W", (20, 400)),
        ("decoder.0.b", (400,)),
        ("decoder.2.W", (400, 784)),
        ("decoder.2.b", (784,)),
    ]


@pytest.mark.parametrize("model", [sv.VAE, sv.Autoencoder])
def test_the_defaults_are_the_published_sizes_and_a_unit_variance(rng, model):
    default, seed = model(784), int(rng.integers(2**32))
    if model is sv.VAE:
        assert (default.beta, default.free_bits) == (1.0, 0.0)
    assert default.params["encoder.0.W"].shape == (784, 400)
    assert default.params["decoder.0.W"].shape == (20, 400)
    x, eps = data(rng)
    options = {"likelihood": "gaussian", "latent_dim": 3, "hidden": (6,)}
    one, other = model(5, rng=seed, **options), model(5, variance=1.0, rng=seed, **options)
    assert one.loss_and_grad(x, eps) == other.loss_and_grad(x, eps)


def test_the_initial_parameters_are_within_one_over_root_n_in_and_all_different(rng):
    model = sv.VAE(30, (20,), 5, dtype="float64", rng=rng)
    for name, n_in in (("encoder.0", 30), ("encoder.2", 20), ("decoder.0", 5), ("decoder.2", 20)):
        for end in "Wb":
            largest = np.abs(model.params[f"{name}.{end}"].value).max()
            assert largest <= n_in**-0.5
    # Two of 1,580 draws out of 2^53 numbers are equal with probability 1.4e-10.
    assert len(np.unique(model.params.value)) == len(model.params.value) == 1580


@pytest.mark.parametrize("model", [sv.VAE, sv.Autoencoder])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_the_gradient_is_that_of_the_last_call(rng, model, likelihood, variance):
    model = small(likelihood, variance, model, rng=rng)
    x, eps = data(rng)
    model.loss_and_grad(x, eps)
    once, vector = model.params.grad.copy(), model.params.grad
    model.loss_and_grad(x[:3], eps[:3])
    assert not np.array_equal(model.params.grad, once)
    model.loss_and_grad(x, eps)
    assert model.params.grad is vector
    assert np.array_equal(vector, once)
    model.params.check_views()


def test_forward_and_backward_weigh_each_example(rng):
    model = small(rng=rng)
    x, eps = data(rng)
    model.loss_and_grad(x[2:3], eps[2:3])
    expected = model.params.grad.copy()
    model.params.grad[...] = 0
    weights = np.zeros(8)
    weights[2] = 1
    model.backward(weights, model.forward(x, eps)[1])
    # The other examples add exact zeros; BLAS may sum the rest in another order.
    assert np.allclose(model.params.grad, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [sv.VAE, sv.Autoencoder])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_backward_stays_in_the_dtype_and_ends_at_the_first_layers_parameters(
    rng, monkeypatch, model, likelihood, variance, dtype
):
    """Float64 on the way would cost twice the time; the data's own gradient a sixth of it."""
    model = small(likelihood, variance, model, dtype=dtype, rng=rng)
    calls = []

    def spy(stack, method):
        original = getattr(stack, method)

        def backward(dy, cache):
            calls.append((dy, original(dy, cache)))
            return calls[-1][1]

        monkeypatch.setattr(stack, method, backward)

    spy(model.decoder, "backward")
    spy(model.encoder, "backward_parameters")
    model.loss_and_grad(*data(rng))
    (doutput, dz), (dcode, dx) = calls
    assert [d.dtype for d in (doutput, dz, dcode)] == 3 * [dtype]
    assert dx is None


def test_given_noise_is_used_and_else_fresh_noise_is_drawn(rng):
    model, (x, eps) = small(rng=rng), data(rng)
    assert model.loss_and_grad(x, eps) == model.loss_and_grad(x, eps)
    assert model.loss_and_grad(x, eps).loss != model.loss_and_grad(x, -eps).loss
    first, second = model.loss_and_grad(x), model.loss_and_grad(x)
    assert first.loss != second.loss
    assert first.kl == second.kl  # which has no noise


@pytest.mark.parametrize(
    "source", [lambda: 7, lambda: np.random.SeedSequence(7), lambda: np.random.default_rng(7)]
)
def test_an_rng_of_any_kind_repeats_parameters_noise_and_samples(rng, source):
    x, _ = data(rng)
    model, again = small(rng=source()), small(rng=7)
    assert np.array_equal(model.params.value, again.params.value)
    assert model.loss_and_grad(x) == again.loss_and_grad(x)
    assert np.array_equal(model.sample(4), again.sample(4))
    noise = np.random.default_rng(7).standard_normal((4, 3))
    assert np.array_equal(model.sample(4, rng=source()), model.decode(noise))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_is_drawn_in_the_models_dtype(rng, dtype):
    """Not drawn in float64 and rounded: NumPy's generator gives float32 other numbers."""
    seed = int(rng.integers(2**32))
    eps = small(dtype=dtype).draw_eps(4, np.random.default_rng(seed))
    expected = np.random.default_rng(seed).standard_normal((4, 3), dtype)
    np.testing.assert_array_equal(eps, expected, strict=True)


def test_without_an_rng_no_two_models_are_alike():
    assert not np.array_equal(small().params.value, small().params.value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_codes_are_sampled_from_the_standard_normal_prior(rng, dtype):
    model = small("gaussian", hidden=(), dtype=dtype)
    model.params.value[...] = 0
    model.params["decoder.0.W"].value[:, :3] = np.eye(3)  # then a sample begins with its code
    z = model.sample(50_000, rng=rng)[:, :3]
    # False alarms: 1e-7 for each of the two. Float32 moves the distribution by 1e-7 of itself,
    # which 50,000 draws cannot see.
    assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > 1e-7
    assert stats.kstest((z @ np.ones(3)) / math.sqrt(3), stats.norm.cdf).pvalue > 1e-7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [(), (6,), (7, 6)])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_shapes_ranges_and_dtypes(rng, likelihood, variance, hidden, dtype):
    model = small(likelihood, variance, hidden=hidden, dtype=dtype)
    x, eps = data(rng)
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (8, 3)
    means = [model.decode(mu), model.sample(4), model.reconstruct(x)]
    assert [len(mean) for mean in means] == [8, 4, 8]
    for mean in means:
        assert mean.shape[1:] == (5,)
        assert mean.dtype == dtype
        if likelihood == "bernoulli":
            assert np.all((mean > 0) & (mean < 1))
    assert np.array_equal(means[2], means[0])  # the posterior mean is decoded, not a draw
    terms, _ = model.forward(x, eps)
    assert all(term.shape == (8,) and term.dtype == dtype for term in terms)
    model.loss_and_grad(x, eps)
    assert model.params.grad.dtype == dtype
    assert np.all(np.isfinite(model.params.grad))


def test_hidden_widths_are_mirrored():
    model = sv.VAE(9, hidden=(7, 6), latent_dim=2)
    widths = [model.params[n].shape for n in model.params.names if n.endswith("W")]
    assert widths == [(9, 7), (7, 6), (6, 4), (2, 6), (6, 7), (7, 9)]


def test_beta_0_leaves_kl_out_of_loss_and_gradient(rng):
    model, (x, eps) = small(rng=rng, beta=0, activation="tanh"), data(rng)
    terms = model.loss_and_grad(x, eps)
    assert terms.loss == terms.reconstruction
    assert terms.kl > 0
    # Nothing but the KL reaches mu and logvar when the decoder ignores z.
    model.params["decoder.0.W"].value[...] = 0
    model.loss_and_grad(x, eps)
    assert not model.params["encoder.2.W"].grad.any()
    model.beta = 1.0
    model.loss_and_grad(x, eps)
    assert model.params["encoder.2.W"].grad.all()


def test_free_bits_enter_the_loss_and_its_gradient_but_not_the_kl(rng):
    plain, (x, eps) = small(rng=rng, beta=3, activation="tanh"), data(rng)
    kl = sv.gaussian.kl_per_dimension(*plain.encode(x))  # (B, Z)
    # In the middle of the widest gap, for the gradient check: the maximum has a kink at each KL.
    ordered = np.sort(kl.ravel())
    widest = np.diff(ordered).argmax()
    bits = ordered[widest : widest + 2].mean()
    free = small(beta=3, free_bits=bits, activation="tanh")
    free.params.value[...] = plain.params.value
    before, terms = plain.loss_and_grad(x, eps), free.loss_and_grad(x, eps)
    assert terms.kl == before.kl
    assert terms.reconstruction == before.reconstruction
    # Some twenty additions of numbers of unit size.
    extra = np.maximum(bits - kl, 0).sum() / len(x)
    assert terms.loss - before.loss == pytest.approx(3 * extra, rel=1e-12)
    sv.gradcheck.check_model(free, x, eps, rng=rng, step=1e-4)
    assert np.abs(free.params.grad - plain.params.grad).max() > 1e-4
    everything = small(free_bits=1e6, activation="tanh")
    assert not np.any(everything.loss_and_grad(x, eps).loss == before.loss)
    bare = small(beta=0, activation="tanh")
    bare.params.value[...] = everything.params.value
    bare.loss_and_grad(x, eps)
    np.testing.assert_array_equal(everything.params.grad, bare.params.grad)  # nothing is charged


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [sv.VAE, sv.Autoencoder])
@pytest.mark.parametrize(("likelihood", "variance"), KINDS)
def test_data_noise_and_parameters_are_not_changed(rng, model, likelihood, variance, dtype):
    model = small(likelihood, variance, model, dtype=dtype)
    x, eps = (a.astype(dtype) for a in data(rng))
    for array in (x, eps, model.params.value):
        array.setflags(write=False)  # whoever writes into it raises ValueError
    for name in model.params.names:  # views taken while the vector could still be written into
        model.params[name].value.setflags(write=False)
    model.loss_and_grad(x, eps)
    model.reconstruct(x)


# What cannot be used


@pytest.mark.parametrize("shape", [(5,), (8, 4), (8, 6), (2, 8, 5), (0, 5), ()])
@pytest.mark.parametrize("model", [sv.VAE, sv.Autoencoder])
def test_data_of_the_wrong_shape_are_refused(shape, model):
    model = small(model=model)
    message = r"x has shape \(.*\): expected \(batch size, 5\)"
    for method in (model.loss_and_grad, model.encode, model.reconstruct):
        with pytest.raises(sv.InputError, match=message):
            method(np.zeros(shape))


def test_noise_and_codes_of_the_wrong_shape_are_refused():
    model, x = small(), np.zeros((8, 5))
    # (1, 3) would broadcast: one noise for all
    for shape in (7, 3), (1, 3), (8, 2), (3,), (2, 8, 3):
        message = rf"eps has shape {re.escape(str(shape))}: expected \(8, 3\), for 8 examples"
        with pytest.raises(sv.InputError, match=message):
            model.loss_and_grad(x, np.zeros(shape))
    with pytest.raises(sv.InputError, match=r"z has shape \(8, 5\): expected \(batch size, 3\)"):
        model.decode(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dim": 0}, "data_dim is 0: expected a positive integer"),
        ({"latent_dim": 0}, "latent_dim is 0: expected a positive integer"),
        ({"hidden": (3, -1)}, "hidden is -1: expected a positive integer"),
        ({"hidden": 400}, r"hidden is 400: expected a sequence, such as \(400,\)"),
        ({"hidden": "400"}, "hidden is '4': expected a positive integer"),
        ({"beta": -0.1}, "beta is -0.1: expected a finite number, 0 or larger"),
        ({"beta": math.nan}, "beta is nan: expected"),
        ({"beta": math.inf}, "beta is inf: expected"),
        ({"free_bits": -1}, "free_bits is -1: expected a finite number, 0 or larger"),
        ({"activation": "gelu"}, "unknown activation 'gelu'"),
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
        ({"likelihood": "gaussian", "variance": -1}, "variance is -1: expected"),
        ({"dtype": "int8"}, "unknown dtype 'int8': expected 'float32' or 'float64'"),
        ({"dtype": "float33"}, "unknown dtype 'float33': expected"),
        ({"backend": "tpu"}, "unknown backend 'tpu': expected 'numpy' or 'cupy'"),
    ],
)
def test_unusable_options_are_named(options, message):
    with pytest.raises(sv.InputError, match=message):
        sv.VAE(**{"data_dim": 5, **options})


@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_a_number_of_samples_that_is_no_positive_integer_is_refused(n):
    with pytest.raises(sv.InputError, match=f"n is {n}: expected a positive integer"):
        small().sample(n)
