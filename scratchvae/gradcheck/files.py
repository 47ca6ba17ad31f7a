"""What there is to check in a file of the user's own, and on which arguments."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from scratchvae.errors import InputError

SHAPE = (4, 5)  # of arguments that the file does not give


class Found(NamedTuple):
    """A pair, a layer or a model, with its arguments and where they come from."""

    name: str
    f: Any
    args: list[Any]
    origin: str


def find(target: str, rng: np.random.Generator) -> list[Found]:
    """Return what ``FILE.py`` or ``FILE.py:NAME`` names.

    Taken are functions f with an f_backward beside them, classes that need no arguments and
    objects with `forward` and `backward`, and models with `loss_and_grad`. The arguments are what
    the file calls ``NAME_args``: a list of arrays, or a function that returns one and may take a
    NumPy Generator. Without it they are drawn from N(0, 1), (4, 5) each.

    Raises
    ------
    InputError
        If the file is missing or raises, or if there is nothing of that name to check.
    """
    path, name = _split(target)
    module = _load(path)
    names = [n for n, f in vars(module).items() if _is_checkable(module, n, f)]
    if name and name not in vars(module):
        known = f"it has {', '.join(names)}" if names else "nor anything else to check"
        raise InputError(f"{path} has no {name}: {known}")
    if name and name not in names:
        kind = type(vars(module)[name]).__name__
        raise InputError(
            f"{name} in {path} is a {kind} that cannot be checked: expected a function with a "
            f"{name}_backward beside it, or something with forward and backward"
        )
    if not names:
        raise InputError(
            f"{path} has nothing to check: expected a function f with f_backward beside it, or a "
            "layer with forward and backward"
        )
    return [_with_arguments(path, module, n, rng) for n in ([name] if name else names)]


def _split(target: str) -> tuple[Path, str]:
    """Take FILE.py:NAME apart; a Windows path has a colon of its own."""
    file, colon, name = target.rpartition(":")
    if colon and file.endswith(".py"):
        return Path(file), name
    return Path(target), ""


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: expected a Python file, NAME.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _is_checkable(module: ModuleType, name: str, f: Any) -> bool:
    if name.startswith("_") or isinstance(f, ModuleType):
        return False
    if inspect.isclass(f) or inspect.isfunction(f):
        own = f.__module__ == module.__name__
        pair = callable(getattr(module, f"{name}_backward", None))
        return own and (pair if inspect.isfunction(f) else _is_layer(f))
    return _is_layer(f) or _is_model(f)


def _is_layer(f: Any) -> bool:
    return hasattr(f, "forward") and hasattr(f, "backward")


def _is_model(f: Any) -> bool:
    return hasattr(f, "loss_and_grad") and hasattr(f, "params")


def _with_arguments(path: Path, module: ModuleType, name: str, rng: np.random.Generator) -> Found:
    f = getattr(module, name)
    if inspect.isclass(f):
        f = _call(path, f"{name}()", f)
    given = getattr(module, f"{name}_args", None)
    if given is not None:
        origin = f"{name}_args of the file"
        if callable(given):
            takes_rng = bool(inspect.signature(given).parameters)
            given = _call(path, f"{name}_args", given, *([rng] if takes_rng else []))
        args = list(given) if isinstance(given, Sequence) else [given]
        return Found(name, f, args, origin)
    if _is_model(f):
        x = rng.integers(0, 2, (SHAPE[0], f.data_dim)).astype(np.float64)  # (B, D)
        return Found(name, f, [x], f"x {x.shape} of random bits")
    shape = (SHAPE[0], getattr(f, "n_in", SHAPE[1]))
    names = _needed(f.forward if _is_layer(f) else f)
    origin = f"{', '.join(names)} {shape} from N(0, 1)"
    return Found(name, f, [rng.standard_normal(shape) for _ in names], origin)


def _needed(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.items()
    return [n for n, p in parameters if p.kind in kinds and p.default is p.empty]


def _call(path: Path, what: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        raise InputError(f"{what} of {path} raised {type(error).__name__}: {error}") from error
