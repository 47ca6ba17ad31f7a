"""What a function is by its name, arguments and results: half of a gradient pair, or neither."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

# Words of a name that make a function a forward, or a backward; the others do so only beside the
# function that they are of.
FORWARD = {"forward", "fwd"}
BACKWARD = {"backward", "backwards", "bwd", "backprop", "vjp", "pullback"}
BACKWARD |= {"grad", "grads", "gradient", "gradients"}
BESIDE = {"d", "back", "prime", "deriv", "derivative"}
# Arguments that only a backward has.
DY = {"dy", "dz", "dl", "dout", "dloss", "g", "ct", "cotangent", "upstream", "grad", "grad_output"}
CACHE = {"cache", "ctx", "saved", "res", "residuals"}
COTANGENT = (DY | CACHE) - {"g", "ct", "grad", "res"}


def forwards(name: str, f: Any, functions: Mapping[str, Any]) -> list[str]:
    """Return which of the functions `f` may be the backward of, the likeliest first."""
    plain, gives = stem(name, set()), gives_gradient(name, f)
    stems = [stem(name, BACKWARD), stem(name, BACKWARD | BESIDE)]
    stems += [s.removeprefix("d").strip("_") for s in stems]
    stems = [s for s in stems if gives or s != plain]
    others = [n for n in functions if n != name and not BACKWARD & {*words(n)}]
    others.sort(key=lambda n: ((n[0] == "_") != (name[0] == "_"), not FORWARD & {*words(n)}))
    return [n for s in stems for n in others if s in (stem(n, set()), stem(n, FORWARD))]


def words(name: str) -> list[str]:
    """Return the words of a name, in lower case: those of f_backward and of fBackward alike."""
    name = "" if name == "__call__" else re.sub("([a-z0-9])([A-Z])", r"\1_\2", name)
    return [word for word in name.lower().split("_") if word]


def stem(name: str, without: Set[str]) -> str:
    """Return what is left of a name without some words."""
    return "_".join(word for word in words(name) if word not in without)


def name_of_pair(forward: str) -> str:
    """Return what a pair is called: the name of its forward, as softsign for softsign_forward."""
    short = stem(forward, FORWARD)
    if short in ("", stem(forward, set())):
        return forward
    return "_" * forward.startswith("_") + short


def gives_gradient(name: str, f: Any) -> bool:
    """Tell whether its name, an argument or what it returns says that it gives a gradient."""
    if BACKWARD & {*words(name)} or COTANGENT & parameters_of(f):
        return True
    gradients = {d + n for n in parameters_of(f) for d in ("d", "d_")}
    return any(n in gradients or BACKWARD & {*words(n)} for n in returned(f))


def may_be_backward(f: Any) -> bool:
    """Tell whether a function without a name takes what a backward takes."""
    return is_function(f) and (gives_gradient("", f) or len(needed(f)) == 2)


def dy_first(backward: Any) -> Any:
    """Return the backward as a function of (dy, cache), whose arguments may be the other way."""
    names = [n.lower() for n in needed(backward)]
    if len(names) == 2 and names[0] not in DY and (names[0] in CACHE or names[1] in DY):
        return lambda dy, cache: backward(cache, dy)
    return backward


def times_dy(dy: Any, gradient: Any) -> Any:
    """Return the gradient times dy: the backward of what returns (loss, gradient) as (y, cache)."""
    if isinstance(gradient, Mapping):
        return {n: times_dy(dy, g) for n, g in gradient.items()}
    if isinstance(gradient, list | tuple):
        return tuple(times_dy(dy, g) for g in gradient)
    return None if gradient is None else dy * gradient


def is_function(f: Any) -> bool:
    """Tell whether it can be called, with arguments, and is no layer or model."""
    if not callable(f) or inspect.isclass(f) or is_layer(f) or is_model(f):
        return False
    return signature(f) != {}


def parameters_of(f: Any) -> set[str]:
    """Return the names of all arguments, in lower case."""
    return {n.lower() for n in signature(inner(f) or f) or {}}


def needed(f: Any) -> list[str]:
    """Return the names of the arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = signature(f) or {}
    return [n for n, p in found.items() if p.kind in kinds and p.default is p.empty]


def signature(f: Any) -> Mapping[str, inspect.Parameter] | None:
    """Return the arguments of a function, or None if it does not tell, as some written in C."""
    try:
        return inspect.signature(getattr(f, "pyfunc", f)).parameters  # of a numpy.vectorize
    except (TypeError, ValueError):
        return None


def inner(f: Any) -> Any:
    """Return the function inside a functools.partial or a numpy.vectorize, else None."""
    if isinstance(f, functools.partial):
        return f.func
    return f.pyfunc if isinstance(f, np.vectorize) else None


def returned(f: Any) -> set[str]:
    """Return the names of what a function returns, alone or in a tuple."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(f))))
    except (OSError, TypeError, SyntaxError):
        return set()
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    for value in values:  # it grows
        values += value.elts if isinstance(value, ast.Tuple | ast.List) else []
    return {value.id.lower() for value in values if isinstance(value, ast.Name)}


def has(x: Any, *names: str) -> bool:
    """Tell whether it has these methods; an attribute that raises is none."""
    try:
        return all(callable(getattr(x, n, None)) for n in names)
    except (Exception, SystemExit):
        return False


def is_layer(f: Any) -> bool:
    """Tell whether it has forward, or can be called, and backward."""
    return has(f, "backward") and (has(f, "forward") or "__call__" in dir(f))


def is_model(f: Any) -> bool:
    """Tell whether it has `loss_and_grad` and `params`."""
    return has(f, "loss_and_grad") and "params" in {*dir(f), *getattr(f, "__dict__", ())}
