"""The trial of formulas before there are data: with what numbers, and what is made of an answer."""

import warnings

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import likelihoods, priors

OPTIONS = {"hidden": (5,), "latent_dim": 3}


class Seen:
    """Notes the arrays that each formula is given: their shapes, types and numbers."""

    def __init__(self):
        self.calls = {}

    def note(self, name, formula):
        def noted(*args):
            self.calls.setdefault(name, []).append(
                [(a.shape, a.dtype.name, *set(a.ravel())) for a in args if hasattr(a, "dtype")]
            )
            return formula(*args)

        return noted


class Own(priors.StandardNormal):
    """N(0, I) once more, with a KL of its own: what is not the standard prior has one."""

    standard = False

    def kl(self, mu, logvar, z):
        return sv.VAE.kl(mu, logvar)

    def kl_backward(self, dkl, cache):
        return sv.VAE.kl_backward(dkl, cache)


class Halved(sv.VAE):
    def reparameterize(self, mu, logvar, eps):
        return sv.VAE.reparameterize(mu, logvar, eps / 2)

    def kl(self, mu, logvar):
        return sv.VAE.kl(mu, logvar)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_formulas_are_tried_with_numbers_that_most_of_them_take(dtype):
    """Data of 1 and everything else 0.5, which may be a probability, a logit, a mean or a scale."""
    seen = Seen()
    model = Halved(4, dtype=dtype, **OPTIONS)
    for owner, names in {
        model.likelihood: ("nll", "mean"),
        model.prior: ("log_density", "draw"),
        model: ("decoder_input", "decoder_input_backward", "reparameterize", "kl"),
    }.items():
        for name in names:
            setattr(owner, name, seen.note(f"{type(owner).__name__}.{name}", getattr(owner, name)))
    model.gather()
    model.try_formulas()
    data, output, codes, code = (
        (shape, dtype, value)
        for shape, value in (((5, 4), 1), ((2, 5, 4), 0.5), ((2, 5, 3), 0.5), ((5, 3), 0.5))
    )
    assert seen.calls == {
        "Bernoulli.nll": [[data, output]] * 2,  # as the likelihood's, and by the model's nll
        "Bernoulli.mean": [[((5, 4), dtype, 0.5)]],
        "StandardNormal.log_density": [[codes]],
        "StandardNormal.draw": [[code]],
        "Halved.decoder_input": [[code, data]],
        "Halved.decoder_input_backward": [[((5, 3), dtype, 0)]],
        "Halved.reparameterize": [[code] * 3],
        "Halved.kl": [[code] * 2],
    }


def test_the_decoder_is_tried_with_rows_of_data_and_not_of_codes(rng):
    model = sv.ConditionalVAE(4, classes=2, **OPTIONS)
    seen = Seen()
    model.decoder_input = seen.note("input", model.decoder_input)
    model.try_formulas()
    assert [[shape for shape, *_ in call] for call in seen.calls["input"]] == [[(5, 3), (5, 6)]]


def test_a_kl_of_a_prior_has_one_number_for_each_example():
    class Summed(Own):
        def kl(self, mu, logvar, z):
            kl, cache = super().kl(mu, logvar, z)
            return kl.sum(), cache

    assert sv.VAE(4, prior=Own(), **OPTIONS).prior.standard is False
    with pytest.raises(sv.InputError) as error:
        sv.VAE(4, prior=Summed(), **OPTIONS)
    assert str(error.value) == (
        "the prior's kl returns an array of shape () for arrays of shape (5, 3) and (5, 3) and "
        "(5, 3): expected one of shape (5,), since sums are over the last axis"
    )


class Xi:
    """An answer whose article goes by the first letter of its type."""


@pytest.mark.parametrize(
    ("answer", "words"), [(0.5, "a float"), (None, "a NoneType"), (Xi(), "a Xi")]
)
def test_an_answer_that_is_no_pair_is_named_by_its_type(answer, words):
    class Bare(sv.VAE):
        def kl(self, mu, logvar):
            return answer

    with pytest.raises(sv.InputError) as error:
        Bare(4, **OPTIONS).try_formulas()
    assert str(error.value) == f"the model's kl returns {words}: expected a pair, (value, cache)"


def test_a_warning_of_the_trial_hides_no_wrong_shape():
    """Of a logarithm of 0, say: the numbers are not the user's, and only shapes are looked at."""

    class Warns(likelihoods.Bernoulli):
        def nll(self, x, output):
            return np.log(0 * output), None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sv.InputError, match=r"^the likelihood's nll returns an array of shape"):
            sv.VAE(4, likelihood=Warns(4), **OPTIONS)


class InLists(sv.VAE):
    """Its formulas give lists, or one array of the gradients, which a model can unpack."""

    def kl(self, mu, logvar):
        return list(super().kl(mu, logvar))

    def kl_backward(self, dkl, cache):
        return np.stack(super().kl_backward(dkl, cache))

    def reparameterize_backward(self, dz, cache):
        return list(super().reparameterize_backward(dz, cache))


def test_what_can_be_unpacked_is_as_good_as_a_tuple(rng):
    model = InLists(6, (5,), 2, activation="tanh", dtype="float64", rng=rng)
    model.try_formulas()
    assert sv.gradcheck.check_model(model, rng.random((4, 6)), rng=rng).ok


@pytest.mark.parametrize(
    ("gradient", "words"), [(0, "an int"), (0.0, "a float"), ([], "a list of 0")]
)
def test_a_gradient_that_is_no_array_is_named_by_its_type(gradient, words):
    class NoLogvar(sv.VAE):
        def kl_backward(self, dkl, cache):
            return super().kl_backward(dkl, cache)[0], gradient

    with pytest.raises(sv.InputError) as error:
        NoLogvar(6, **OPTIONS).try_formulas()
    assert str(error.value).startswith(f"the model's kl_backward returns {words} for arrays of sha")


def test_an_array_of_two_numbers_is_two_gradients_of_a_wrong_shape():
    class Numbers(sv.VAE):
        def kl_backward(self, dkl, cache):
            return np.zeros(2)

    message = r"^the model's kl_backward returns an array of shape \(\) for arrays of shape"
    with pytest.raises(sv.InputError, match=message):
        Numbers(6, **OPTIONS).try_formulas()
