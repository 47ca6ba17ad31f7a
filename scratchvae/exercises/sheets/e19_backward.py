"""Derive: the backward pass of the whole VAE.

About 15 minutes. All parts are there, each with its backward, and forward chains them:

    x --encoder--> mu, logvar --reparameterize--> z --decoder--> output --nll--> -log p(x|z)
                       |
                       +------ kl

    loss = nll + beta kl              equation (negative-elbo)

mu and logvar reach the loss on two paths, through z and through the KL, equation (two-paths).

Task: write backward. dloss (B,) is the gradient of each example's loss. It returns nothing: the
backward of the encoder and of the decoder add to the gradients of their parameters.

    self.nll_backward(dnll, cache)            returns doutput
    self.decoder.backward(doutput, cache)     returns dz
    self.reparameterize_backward(dz, cache)   returns (dmu, dlogvar)
    self.kl_backward(dkl, cache)              returns (dmu, dlogvar)
    self.encoder.backward(dcode, cache)       code is [mu | logvar], (B, 2Z)
"""

import numpy as np

from scratchvae import VAE, Terms


class MyVAE(VAE):
    """A VAE whose backward is yours."""

    def forward(self, x, eps=None):
        """Return the terms of every example, (B,) each, and the cache."""
        x = self.as_rows(x)
        eps = self.noise(eps, len(x))
        code, encoder_cache = self.encoder.forward(x)
        mu, logvar = self.split(code)
        z, z_cache = self.reparameterize(mu, logvar, eps)
        output, decoder_cache = self.decoder.forward(z)
        nll, nll_cache = self.nll(x, output)
        kl, kl_cache = self.kl(mu, logvar)
        terms = Terms(nll + self.beta * kl, nll, kl)
        return terms, (encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache)

    def backward(self, dloss, cache):
        """Walk back from the loss; the parameters' gradients are added to."""
        encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache = cache
        raise NotImplementedError


# --- what judges it

from scratchvae.exercises.kinds import Exercise, Wrong, diagnosis, get, same, worst
from scratchvae.gradcheck import GradientError, check_model


def _variant(kl=1.0, z=1.0, beta=True, swapped=False):
    """Return the right backward, or one with something wrong in it."""

    def backward(self, dloss, cache):
        encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache = cache
        dz = self.decoder.backward(self.nll_backward(dloss, nll_cache), decoder_cache)
        of_z = self.reparameterize_backward(dz, z_cache)
        of_kl = self.kl_backward((self.beta if beta else 1.0) * dloss, kl_cache)
        both = [z * a + kl * b for a, b in zip(of_z, of_kl, strict=True)]
        dcode = np.concatenate(both[::-1] if swapped else both, axis=1)
        self.encoder.backward(dcode, encoder_cache)

    return backward


USUAL = (
    (
        _variant(kl=0.0),
        "backward forgets the path through the KL: mu and logvar reach the loss on two paths, and "
        "the gradients of both add.",
    ),
    (
        _variant(z=0.0),
        "backward forgets the path through z: mu and logvar reach the loss on two paths, and the "
        "gradients of both add.",
    ),
    (_variant(beta=False), "backward forgets beta: the KL reaches the loss as beta kl."),
    (
        _variant(swapped=True),
        "backward hands the encoder [dlogvar | dmu], where the code is [mu | logvar].",
    ),
)


def _weigh(mine, right, x, eps, rng):
    """Raise Wrong unless each example counts by its own dloss; in the mean all are 1 / B."""
    dloss = rng.uniform(0.5, 2, len(x))
    for model in right, mine:
        _, cache = model.forward(x, eps)
        model.params.forget_gradient()
        model.backward(given := dloss.copy(), cache)
        model.params.complete_gradient()
    if (given != dloss).any():
        raise Wrong("backward changes dloss in place.")
    if not same(mine.params.grad, right.params.grad):
        raise Wrong(
            "backward is right where every example has the weight 1 / B only: dloss is each "
            "example's own.",
            worst("the gradient", mine.params.grad, right.params.grad),
        )


class _Whole(Exercise):
    def judge(self, answer, rng):
        kind = get(answer, "MyVAE")
        for _ in range(2):
            b, d, h, z = (int(n) for n in rng.permutation(np.arange(3, 8))[:4])
            seed, beta = int(rng.integers(2**32)), float(rng.uniform(1.5, 3))
            x = rng.integers(0, 2, (b, d)).astype(float)
            eps = rng.standard_normal((b, z))
            options = {"activation": "tanh", "dtype": "float64", "beta": beta, "rng": seed}

            def gradient(backward, d=d, h=h, z=z, options=options, x=x, eps=eps):
                given = type("Given", (MyVAE,), {"backward": backward})(d, (h,), z, **options)
                loss = given.loss_and_grad(x, eps).loss
                return loss, given

            mine = kind(d, (h,), z, **options)
            loss, right = gradient(_variant())
            true = right.params
            if not same(mine.loss_and_grad(x, eps).loss, loss):
                raise Wrong("forward gives another loss than it did: put its given lines back.")
            for wrong, sentence in USUAL:
                if same(mine.params.grad, gradient(wrong)[1].params.grad):
                    raise Wrong(sentence)
            try:
                check_model(mine, x, eps, rng=seed, name="backward")
            except GradientError as error:
                message = error.report.message
                others = [n for n in message.splitlines() if n.startswith("Right: ")]
                name = message.partition("the gradient of ")[2].partition(" ")[0]
                shown = ""
                if name in true.names:
                    shown = worst(f"d{name}", mine.params[name].grad, true[name].grad)
                sentence = " ".join([diagnosis(error.report, "backward"), *others])
                raise Wrong(sentence, shown) from None
            _weigh(mine, right, x, eps, rng)
        return "backward gives every parameter its gradient: the whole model is yours."


exercise = _Whole(
    hints=(
        "Walk against the arrows: nll, decoder, the draw; then the KL; the encoder comes last.",
        "dz arrives from the decoder. The draw's backward and the KL's each return a dmu and a "
        "dlogvar: add them.",
        "kl has the weight beta in the loss, so its dkl is beta dloss. np.concatenate([dmu, "
        "dlogvar], axis=1) is dcode.",
    ),
    derivation="""
        loss = nll + beta kl, so dnll = dloss and dkl = beta dloss. From nll the chain rule walks
        back through the decoder to dz and through the draw to (dmu, dlogvar); from the KL another
        (dmu, dlogvar) arrives. What a variable gets on two paths adds. Side by side they are the
        gradient of the encoder's output.
        """,
    page="derivations/whole-vae",
    solution=(VAE.backward,),
    answer="MyVAE.forward, MyVAE.backward = VAE.forward, VAE.backward",
)
