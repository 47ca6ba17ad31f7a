r"""Optimizers on the flat vectors.

An optimizer reads ``params.grad`` and changes ``params.value``. Its state is arrays of the same
length plus a step count, and a checkpoint holds both.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from contextlib import suppress
from typing import Any

from .backend import Array, blocks, flush_subnormals, namespace
from .checkpoint import is_plain, plain_values, take_values
from .errors import InputError, check_each, check_number
from .kernels import compiled
from .parameters import Parameter, Parameters

HELD = "params", "lr", "steps", "state"  # what a checkpoint has besides `options`


class Optimizer:
    """What SGD and Adam share.

    Attributes
    ----------
    lr : float
        The learning rate; may be set before every step.
    steps : int
        How many steps were taken.
    state : dict of str to (P,) arrays
    """

    def __init__(self, params: Parameters, lr: float, state_names: tuple[str, ...]) -> None:
        if not isinstance(params, Parameters):
            raise InputError(
                f"params is a {type(params).__name__}: expected a model's parameters, model.params"
            )
        self.params, self.lr, self.steps = params, check_number("lr", lr), 0
        zeros_like = namespace(params.value).zeros_like
        self.state: dict[str, Array] = {name: zeros_like(params.value) for name in state_names}

    def step(self) -> None:
        """Move the parameters once, along their present gradient.

        Raises
        ------
        InputError
            If the model's parameters were gathered again since, and are others now; or if a number
            was set by hand to one that the constructor refuses.
        """
        self.params.require_current()
        self.check_options()
        self.steps += 1
        if self.steps % 64 == 0:  # often enough, at next to no cost
            flush_subnormals(*self.state.values())
        self._move()

    def check_options(self) -> None:
        """Raise InputError if a number, which may be set by hand, is one that has no meaning."""
        self.lr = check_number("lr", self.lr)

    def kinds(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Return dtype and shape of each array in `state`; InputError if one is no array."""
        if not isinstance(getattr(self, "state", None), dict):
            raise InputError(
                f"{type(self).__name__} has no state: expected its __init__ to begin with "
                "super().__init__(params, lr, names), the names of the arrays that it keeps"
            )
        for name, value in self.state.items():
            if not isinstance(name, str):
                raise InputError(
                    f"the state of {type(self).__name__} has the name {name!r}: expected a string, "
                    "by which a checkpoint knows it"
                )
            # A number of NumPy's has a dtype too, but nothing can be written into it.
            if not hasattr(value, "dtype") or not hasattr(value, "__setitem__"):
                raise InputError(
                    f"state[{name!r}] of {type(self).__name__} is a {type(value).__name__}: "
                    "expected an array; a number may be an attribute of the optimizer, which a "
                    "checkpoint holds too"
                )
        return {name: (a.dtype, a.shape) for name, a in self.state.items()}

    def options(self) -> dict[str, Any]:
        """Return the numbers that it was built with besides the rate, such as Adam's betas."""
        return plain_values(self, HELD)

    def unsaved(self) -> dict[str, bytes]:
        """Return a digest of each attribute that is neither in `state` nor in `options`."""
        found = {}
        for name, value in vars(self).items():
            if name not in HELD and not is_plain(value):
                content = io.BytesIO()
                with suppress(Exception):  # of what cannot be pickled, as a function
                    _Content(content, self.state).dump(value)
                    found[name] = hashlib.sha256(content.getvalue()).digest()
        return found

    def take_options(self, saved: dict[str, Any]) -> None:
        """Set what `options` told; InputError if one has no meaning."""
        take_values(self, saved, HELD)
        self.check_options()

    def _move(self) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} has no _move(), which changes params.value by params.grad"
        )

    def __repr__(self) -> str:
        own = {k: v for k, v in vars(self).items() if k not in ("params", "state")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in own.items())})"


class _Content(pickle.Pickler):
    """Writes what an object holds, but for parameters and state, which a checkpoint has."""

    def __init__(self, file: io.BytesIO, state: dict[str, Array]) -> None:
        super().__init__(file)
        self.state = {id(a) for a in state.values()}

    def persistent_id(self, obj: Any) -> bool | None:
        # None: it is written here.
        return isinstance(obj, Parameter | Parameters) or id(obj) in self.state or None


class SGD(Optimizer):
    """Gradient descent; each step keeps the share `momentum`, in [0, 1), of the last velocity."""

    def __init__(self, params: Parameters, lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr, ("velocity",))
        self.momentum = momentum
        self.check_options()

    def check_options(self) -> None:
        """Do what `Optimizer.check_options` does, for momentum too."""
        super().check_options()
        self.momentum = check_number("momentum", self.momentum, below=1)

    def _move(self) -> None:
        value, velocity = self.params.value, self.state["velocity"]
        # [sgd]
        velocity *= self.momentum
        velocity += self.params.grad
        value -= self.lr * velocity


class Adam(Optimizer):
    """Steps of about the learning rate, whatever the scale of the gradient.

    A parameter moves by the running mean of its gradient, divided by the running root mean square.

    Parameters
    ----------
    params : Parameters
    lr : float
    betas : (float, float)
        The share of the running means, of the gradient and of its square, that each step keeps.
    eps : float
        Added to the root mean square, after the root is taken.

    Notes
    -----
    D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1, with
    the reordering at the end of its section 2: both bias corrections are folded into two scalars.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr, ("m", "v"))
        self.betas, self.eps = betas, eps
        self.check_options()

    def check_options(self) -> None:
        """Do what `Optimizer.check_options` does, for betas and eps too."""
        super().check_options()
        self.betas = check_each("betas", self.betas, check_number, 2, below=1)
        self.eps = check_number("eps", self.eps, positive=True)

    def _move(self) -> None:
        beta1, beta2 = self.betas
        # [adam-bias]  lr (m / c1) / (sqrt(v / c2) + eps) = step m / (sqrt(v) + eps sqrt(c2))
        root_c2 = math.sqrt(1 - beta2**self.steps)
        step = self.lr * root_c2 / (1 - beta1**self.steps)
        vectors = self.params.value, self.params.grad, self.state["m"], self.state["v"]
        adam_update(*vectors, beta1, beta2, step, self.eps * root_c2)


@compiled
def adam_update(
    value: Array, g: Array, m: Array, v: Array, beta1: float, beta2: float, step: float, eps: float
) -> None:
    """Update value, m and v, (P,) each, in place, with the gradient g (P,)."""
    sqrt = namespace(value).sqrt
    for i in blocks(value):
        # [adam-moments]
        m[i] += (1 - beta1) * (g[i] - m[i])
        v[i] += (1 - beta2) * (g[i] * g[i] - v[i])
        # [adam-step]
        value[i] -= step * m[i] / (sqrt(v[i]) + eps)
