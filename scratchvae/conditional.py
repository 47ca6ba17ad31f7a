r"""A VAE that is told what it sees: the label joins x at the encoder and z at the decoder.

    [x | y] --encoder--> mu, logvar --reparameterize--> z,  [z | y] --decoder--> -log p(x|z, y)

The loss bounds -log p(x|y); no formula changes. A row of data carries its label y, one-hot, in C
columns after its D pixels. So all that takes rows of data works for this model as for any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .backend import Array, Backend, RandomSource, get_rng, namespace, on_host
from .errors import InputError, check_labels, check_size
from .layers import Layer
from .likelihoods import Likelihood
from .priors import Prior
from .vae import VAE, Terms


class ConditionalVAE(VAE):
    """A VAE of x given its label, one of C classes: q(z|x, y), p(x|z, y) and a prior p(z) for all.

    `labels` are integers from 0 to C - 1, an array (B,) or one for all examples. They are left out
    where x consists of rows that have them, as `rows` returns them.

    Parameters
    ----------
    data_dim, hidden, latent_dim : as for :class:`~scratchvae.Autoencoder`
    classes : int
        C, the number of labels.
    activation, likelihood, variance, beta, free_bits : as for :class:`~scratchvae.VAE`
    prior, components : as for :class:`~scratchvae.VAE`
    backend, dtype, rng, network, image_shape : as for :class:`~scratchvae.Autoencoder`
    encoder, decoder : Layer, optional
        Parts of your own: the encoder takes [x | y] (B, D + C), the decoder [z | y] (B, Z + C).
    """

    kind = "cvae"
    classes: int

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] | None = None,
        latent_dim: int = 20,
        *,
        classes: int = 10,
        activation: str = "relu",
        likelihood: str | Likelihood = "bernoulli",
        variance: float | str = 1.0,
        beta: float = 1.0,
        free_bits: float = 0.0,
        prior: str | Prior = "normal",
        components: int | None = None,
        backend: str | Backend = "numpy",
        dtype: Any = "float32",
        rng: RandomSource = None,
        network: str = "dense",
        image_shape: Sequence[int] | None = None,
        encoder: Layer | None = None,
        decoder: Layer | None = None,
    ) -> None:
        self.classes = check_size("classes", classes)
        if network == "conv" and encoder is None:
            raise InputError(
                "network is 'conv', and the label is no pixel: expected an encoder of your own, "
                "for rows of pixels with a label"
            )
        super().__init__(
            data_dim, hidden, latent_dim, activation=activation, likelihood=likelihood,
            variance=variance, beta=beta, free_bits=free_bits, prior=prior, components=components,
            backend=backend, dtype=dtype, rng=rng, network=network, image_shape=image_shape,
            encoder=encoder, decoder=decoder,
        )  # fmt: skip

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return what `VAE.widths` does; both parts take C numbers more."""
        return {part: (n + self.classes, m) for part, (n, m) in super().widths().items()}

    def config(self) -> dict[str, Any]:
        """Return what `VAE.config` does, with classes."""
        return {**super().config(), "classes": self.classes}

    # --- rows of data: [x | y]

    def rows(self, x: Any, labels: Any = None, white: float = 1.0) -> Array:
        """Return [x | y] (B, D + C) for x (B, D), in the dtype of x; y is 0 or `white`."""
        x = self.backend.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.data_dim:
            raise InputError(f"x has shape {x.shape}: expected (batch size, {self.data_dim})")
        return self._with_labels(x, labels, white)

    def _with_labels(self, a: Array, labels: Any, white: float = 1.0) -> Array:
        xp, given = namespace(a), _on_host(labels)
        given = check_labels("labels", given, len(a), self.classes)  # (B,) or ()
        # [conditional-one-hot]  y_c is 1 where c is the label, and 0 elsewhere
        y = xp.asarray(given[..., None]) == xp.arange(self.classes)  # (B, C) or (C,)
        y = xp.broadcast_to((white * y).astype(a.dtype), (len(a), self.classes))
        return xp.concatenate([a, y], axis=1)

    def as_rows(self, x: Any, labels: Any = None) -> Array:
        """Return x (B, D) with its labels, or x that has them already, as rows (B, D + C)."""
        if labels is None and np.shape(x)[1:] != (self.data_dim,):
            rows = self.in_range(self.as_batch("x", x, self.data_dim + self.classes))
            self._require_one_label(rows[:, self.data_dim :])
            return rows
        return self.rows(self.as_batch("x", x, self.data_dim), labels)

    def _require_one_label(self, y: Array) -> None:
        if self.backend.name != "numpy":
            return  # a GPU would have to be waited for
        if np.any(np.count_nonzero(y, axis=1) != 1) or np.any(y.max(axis=1) != 1):
            raise InputError(
                f"the last {self.classes} columns of x are the label: expected a single 1 among "
                "zeros in each row, as model.rows(x, labels) returns them"
            )

    def decoder_input(self, z: Array, x: Array) -> Array:
        """Return [z | y], (..., B, Z + C), for codes z (..., B, Z) of rows x (B, D + C)."""
        y, xp = x[:, self.data_dim :], namespace(z)  # (B, C)
        # [conditional-decoder]
        return xp.concatenate([z, xp.broadcast_to(y, (*z.shape[:-1], self.classes))], axis=-1)

    def decoder_input_backward(self, dinput: Array) -> Array:
        """Return dz (..., B, Z) from dinput (..., B, Z + C)."""
        # [conditional-grad-z]  the label is data: nobody needs its gradient
        return dinput[..., : self.latent_dim]  # (..., B, Z)

    def nll(self, x: Array, output: Array) -> tuple[Array, Any]:
        """Return -log p(x|z, y) in nats, (B,), for rows x (B, D + C), and the cache."""
        # [conditional-nll]  a density of the pixels alone: the label is given, not explained
        return super().nll(x[:, : self.data_dim], output)

    def encode(self, x: Any, labels: Any = None) -> tuple[Array, Array]:
        """Return the parameters (mu, logvar) of q(z|x, y), (B, Z) each."""
        return super().encode(self.as_rows(x, labels))

    def decode(self, z: Any, labels: Any = None) -> Array:
        """Return the mean (B, D) of p(x|z, y) for codes z (B, Z)."""
        z = self.as_batch("z", z, self.latent_dim)
        return self.likelihood.mean(self.decoder.forward(self._with_labels(z, labels))[0])

    def mean_code(self, x: Any, labels: Any = None) -> Array:
        """Return the mean mu (B, Z) of q(z|x, y)."""
        return super().mean_code(self.as_rows(x, labels))

    def codes(self, x: Any, eps: Any = None, labels: Any = None) -> Array:
        """Return draws z from q(z|x, y) by the noise eps, as `VAE.codes` does."""
        return super().codes(self.as_rows(x, labels), eps)

    def reconstruct(self, x: Any, labels: Any = None) -> Array:
        """Return the decoded mean codes of x, (B, D), each with the label of its x."""
        return super().reconstruct(self.as_rows(x, labels))

    def sample(self, n: int, rng: RandomSource = None, label: Any = None) -> Array:
        """Return the decoded means (n, D) of n draws from the prior, all of the class `label`.

        It may be an array of n labels. If it is None they are drawn, each class as likely as any
        other. The codes are drawn first, so one seed gives the same codes for every label.
        """
        rng = self.rng if rng is None else get_rng(rng)
        z = self.draw_prior(check_size("n", n), rng)  # (n, Z)
        labels = rng.integers(self.classes, size=n) if label is None else _on_host(label)
        return self.decode(z, check_labels("label", labels, n, self.classes))

    def forward(self, x: Any, eps: Any = None, labels: Any = None) -> tuple[Terms, Any]:
        """Return the terms of every example, (B,) each, and the cache for `backward`."""
        return super().forward(self.as_rows(x, labels), eps)

    def loss_and_grad(  # type: ignore[override]  # labels are third, where VAE has batch_size
        self, x: Any, eps: Any = None, labels: Any = None, batch_size: int | None = None
    ) -> Terms:
        """Return the batch's loss and leave its gradient, as `VAE.loss_and_grad` does."""
        return super().loss_and_grad(self.as_rows(x, labels), eps, batch_size)


def _on_host(labels: Any) -> Any:
    """Return labels that are an array, on a device perhaps, as NumPy's, and others as they are."""
    # NumPy's own stay, since a mask would be lost, under which there are no labels.
    own = isinstance(labels, np.ndarray)
    return on_host(labels) if hasattr(labels, "__dlpack__") and not own else labels
