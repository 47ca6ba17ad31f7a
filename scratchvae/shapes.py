"""The shapes that a likelihood, a prior and a model's formulas must keep, tried before data are.

A sum over the wrong axis goes unnoticed where two sizes are equal, as in a batch of as many
examples as an example has numbers. So each formula is called once here with sizes that all differ.
Where it raises nothing is known: the numbers may be none that it takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .backend import Array, namespace
from .errors import InputError

Shape: TypeAlias = tuple[int, ...]
Owner = TypeVar("Owner")
DRAWS = 2  # K, of each example
RAISED = object()


def to_try(owner: Owner) -> Owner:
    """Return a copy, so that what it keeps knows of training alone, or itself if it has none."""
    with suppress(Exception):
        return copy.deepcopy(owner)
    return owner


@contextmanager
def drawing_nothing(model: Any) -> Iterator[None]:
    """Put the model's generator back, which a trial may move: a copy may not keep it away.

    So a formula draws from a generator that it knows by its name, and some models have no copy.
    """
    state = model.rng.bit_generator.state
    try:
        yield
    finally:
        model.rng.bit_generator.state = state


def require_likelihood_shapes(model: Any) -> None:
    """Raise InputError unless the model's likelihood takes codes (K, B, Z) and one draw alike.

    The data are ones and the decoder's output 0.5: what a probability or a scale may be too.
    """
    likelihood, n = to_try(model.likelihood), _examples(model)
    x, output = _full(model, 1, (n, model.data_dim)), _output(model, n)  # (K, B, output_dim)
    _require_pair("the likelihood's", likelihood, "nll", (x, output), output.shape[:-1], [output])
    mean = _call(likelihood.mean, output[0])
    _require_shape("the likelihood's mean", mean, (n, model.data_dim), (output[0],))


def require_nll_shapes(model: Any) -> None:
    """Do the same for `nll` and `nll_backward` of the model itself."""
    n = _examples(model)
    x, output = _full(model, 1, (n, model.widths()["encoder"][0])), _output(model, n)
    _require_pair("the model's", model, "nll", (x, output), output.shape[:-1], [output])


def require_decoder_input_shapes(model: Any) -> None:
    """Raise InputError unless the decoder is given what its width says, and codes get gradients."""
    n, widths = _examples(model), model.widths()
    z = _full(model, 0.5, (n, model.latent_dim))
    inputs = _call(model.decoder_input, z, _full(model, 1, (n, widths["encoder"][0])))
    shape = n, widths["decoder"][0]
    why = "the width that `widths` gives for the decoder"
    _require_shape("the model's decoder_input", inputs, shape, (z,), why)
    dz = _call(model.decoder_input_backward, _full(model, 0, shape))
    why = "that of the codes"
    _require_shape("the model's decoder_input_backward", dz, z.shape, (inputs,), why)


def require_prior_shapes(model: Any) -> None:
    """Raise InputError unless the prior's density, draw and, if it has one, KL fit in shape."""
    prior, n = to_try(model.prior), _examples(model)
    z = _full(model, 0.5, (DRAWS, n, model.latent_dim))
    _require_pair("the prior's", prior, "log_density", (z,), z.shape[:-1], [z])
    draw = _call(prior.draw, z[0], np.random.Generator(np.random.PCG64()))
    _require_shape("the prior's draw", draw, z[0].shape, (z[0],))
    if not prior.standard:
        _require_pair("the prior's", prior, "kl", (z[0],) * 3, (n,), [z[0]] * 2)


def require_code_shapes(model: Any, names: Sequence[str]) -> None:
    """Raise InputError unless `reparameterize` and `kl`, if among the names, have their shapes.

    The draw of a subclass may have any shape, and its noise too.
    """
    n = _examples(model)
    noise = model.noise_shape(n)
    halves = model.split(_full(model, 0.5, (n, model.widths()["encoder"][1])))  # (B, Z) each
    if "reparameterize" in names:
        eps = None if noise is None else _full(model, 0.5, noise)
        _require_pair("the model's", model, "reparameterize", (*halves, eps), None, halves)
    if "kl" in names:
        _require_pair("the model's", model, "kl", halves, (n,), halves)


def _require_pair(
    whose: str,
    owner: Any,
    name: str,
    args: Sequence[Array],
    shape: Shape | None,
    arguments: Sequence[Array],
) -> None:
    """Raise InputError unless ``name(*args)`` and its backward give what their places need.

    That is a value of this shape, or of any if it is None, with a cache, and for a gradient of
    zeros, which changes no parameter's, one in the shape of each of the `arguments`.
    """
    what, answer = f"{whose} {name}", _call(getattr(owner, name), *args)
    if answer is RAISED:
        return
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise InputError(f"{what} returns {_in_words(answer)}: expected a pair, (value, cache)")
    value, cache = answer
    if shape is not None:
        _require_shape(what, value, shape, args)
    dvalue = namespace(value).zeros_like(value)
    what, answer = f"{what}_backward", _call(getattr(owner, f"{name}_backward"), dvalue, cache)
    if answer is RAISED:
        return
    gradients = answer if len(arguments) > 1 else (answer,)
    several = isinstance(gradients, tuple | list) or getattr(gradients, "ndim", 0) > 0
    if not several or len(gradients) != len(arguments):
        expected = f"{len(arguments)} gradients, a tuple"
        raise InputError(f"{what} returns {_in_words(answer)}: expected {expected}")
    for gradient, argument in zip(gradients, arguments, strict=True):
        _require_shape(what, gradient, argument.shape, (dvalue,))


def _call(formula: Callable[..., Any], *args: Any) -> Any:
    """Return what the formula gives, or RAISED."""
    try:
        with np.errstate(all="ignore"):  # only shapes are looked at
            return formula(*args)
    except Exception:
        return RAISED


def _require_shape(
    what: str,
    found: Any,
    shape: Shape,
    args: Sequence[Array],
    why: str = "since sums are over the last axis",
) -> None:
    if found is not RAISED and getattr(found, "shape", None) != shape:
        shapes = " and ".join(str(a.shape) for a in args)
        raise InputError(
            f"{what} returns {_in_words(found)} for arrays of shape {shapes}: expected one of "
            f"shape {shape}, {why}"
        )


def _in_words(x: Any) -> str:
    kind = type(x).__name__
    if isinstance(x, tuple | list):
        return f"a {kind} of {len(x)}"
    article = "an" if kind[0] in "aeiou" else "a"
    return f"an array of shape {x.shape}" if hasattr(x, "shape") else f"{article} {kind}"


def _examples(model: Any) -> int:
    """Return a number of examples that is the size of no other axis."""
    sizes = {DRAWS, model.data_dim, model.latent_dim, model.likelihood.output_dim}
    return next(n for n in range(3, 8) if n not in sizes)


def _output(model: Any, n: int) -> Array:
    return _full(model, 0.5, (DRAWS, n, model.likelihood.output_dim))


def _full(model: Any, value: float, shape: Shape) -> Array:
    return model.backend.xp.full(shape, value, dtype=model.dtype)
