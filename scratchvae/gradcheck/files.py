"""What there is to check in a file of the user's own, and on which arguments."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from scratchvae.errors import InputError

SHAPE = (4, 5)  # of arguments that the file does not give
DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
    "N(0, 1)": lambda rng, shape: rng.standard_normal(shape),
    "U(0.5, 1.5)": lambda rng, shape: rng.uniform(0.5, 1.5, shape),  # for logarithms and the like
}


class Found(NamedTuple):
    """A pair, a layer or a model, with its arguments and where they come from."""

    name: str
    functions: tuple[Any, ...]  # what `check` takes before the arguments
    args: Any
    origin: str


class Unchecked(NamedTuple):
    """What looks as if it had a gradient, and why it cannot be checked."""

    name: str
    reason: str


def find(target: str, rng: np.random.Generator) -> list[Found | Unchecked]:
    """Return what ``FILE.py`` or ``FILE.py:NAME`` names.

    Taken are functions ``f`` or ``f_forward`` with ``f_backward`` or ``backward_f`` beside them, in
    the file or as methods of a class; objects with `forward` or `__call__` and `backward`, or with
    `loss_and_grad`, in lists and dicts too; and classes of such objects that need no arguments. The
    arguments are what the file calls ``NAME_args``: a list of arrays, a dict of them by name, or a
    function that returns one and may take a NumPy Generator. Without it they are drawn, (4, 5)
    each.

    Raises
    ------
    InputError
        If the file is missing or raises, or if there is nothing of that name to check.
    """
    path, name = _split(target)
    module = _load(path)
    candidates = dict(_candidates(module))
    # A class is checked through its objects, an abstract one through those of its subclasses.
    objects = [type(c[0]) for c in candidates.values() if not isinstance(c, str) and len(c) == 1]
    found = [
        _with_arguments(module, n, c, rng)
        for n, c in candidates.items()
        if not (isinstance(c, str) and _is_covered(module, n, objects))
    ]
    if name:
        found = [item for item in found if item.name == name]
        if not found and name not in vars(module):
            known = ", ".join(n for n, c in candidates.items() if not isinstance(c, str))
            known = f"it has {known}" if known else "nor anything else to check"
            raise InputError(f"{path} has no {name}: {known}")
        if not found:
            kind = type(vars(module)[name]).__name__
            raise InputError(
                f"{name} in {path} is a {kind} that cannot be checked: expected a function with a "
                f"{name}_backward beside it, or something with forward and backward"
            )
    if not found:
        raise InputError(
            f"{path} has nothing to check: expected a function f with f_backward beside it, or a "
            "layer with forward and backward"
        )
    return found


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
    sys.modules[module.__name__] = module  # where dataclasses look for it
    sys.path.insert(0, str(path.parent.resolve()))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
    except SystemExit:
        text = 'put what is to run under if __name__ == "__main__"'
        raise InputError(f"{path} calls sys.exit when it is loaded: {text}") from None
    except Exception as error:
        raise InputError(f"{path} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _candidates(module: ModuleType) -> Iterator[tuple[str, tuple[Any, ...] | str]]:
    """Yield names with what `check` takes, or with the reason why it cannot."""
    named = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    seen = {id(v) for v in named.values()}
    for name, value in named.items():
        if inspect.isclass(value):
            if value.__module__ == module.__name__:
                yield from _of_class(module, name, value)
        elif _is_layer(value) or _is_model(value):
            yield name, (value,)
        elif isinstance(value, list | tuple | dict):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, v in items:
                if id(v) not in seen and not inspect.isclass(v) and (_is_layer(v) or _is_model(v)):
                    yield f"{name}[{key!r}]", (v,)
    yield from _pairs(vars(module), lambda f: _is_own(module, f))


def _of_class(
    module: ModuleType, name: str, kind: type
) -> Iterator[tuple[str, tuple[Any, ...] | str]]:
    """Yield an object of a class, the pairs among its methods, and the classes inside it."""
    for n, inner in vars(kind).items():
        if inspect.isclass(inner) and inner.__module__ == module.__name__ and n[0] != "_":
            yield from _of_class(module, f"{name}.{n}", inner)
    is_layer = _is_layer(kind) or _is_model(kind)
    if not (is_layer or any(_forward_names(n) for n in dir(kind))):
        return
    try:
        made = kind()
    except (Exception, SystemExit) as error:
        text = f"{name}() of {module.__file__} raised {type(error).__name__}: {error}"
        yield name, f"{text}; make an object of the class in the file"
        return
    if is_layer:
        yield name, (made,)
    own = [n for n in dir(kind) if n[0] != "_" and n not in ("forward", "backward")]
    members = {n: getattr(made, n) for n in own if _has(made, n)}
    yield from ((f"{name}.{n}", pair) for n, pair in _pairs(members, lambda f: True))


def _pairs(
    names: Mapping[str, Any], is_own: Callable[[Any], bool]
) -> Iterator[tuple[str, tuple[Any, ...] | str]]:
    """Yield every function with its backward; for a backward without one, the reason."""
    for name, backward in names.items():
        forwards = _forward_names(name)
        if not forwards or not callable(backward) or inspect.isclass(backward):
            continue
        there = [n for n in forwards if callable(names.get(n))]
        if there and (is_own(backward) or is_own(names[there[0]])):
            yield forwards[0], (names[there[0]], backward)
        elif not there and is_own(backward):
            yield name, f"there is no forward beside it: expected {' or '.join(forwards)}"


def _forward_names(name: str) -> list[str]:
    """Return what the forward of a backward of that name may be called; nothing if it is none."""
    base = name.removesuffix("_backward").removeprefix("backward_")
    if name == "backward":
        return ["forward"]
    if name.startswith("_") or base in (name, ""):
        return []
    return [base, f"{base}_forward", f"forward_{base}"]


def _is_own(module: ModuleType, f: Any) -> bool:
    """Tell whether the file made it, and did not import it."""
    return not isinstance(f, FunctionType) or f.__module__ == module.__name__


def _is_covered(module: ModuleType, name: str, objects: list[type]) -> bool:
    """Tell whether what a class computes is checked through an object of a subclass."""
    value = vars(module).get(name)
    return inspect.isclass(value) and any(
        issubclass(o, value)
        and (
            inspect.isabstract(value)
            or getattr(o, "backward", o) is getattr(value, "backward", None)
        )
        for o in objects
    )


def _has(x: Any, *names: str) -> bool:
    """Tell whether it has these methods; an attribute that raises is none."""
    try:
        return all(callable(getattr(x, n, None)) for n in names)
    except Exception:
        return False


def _is_layer(f: Any) -> bool:
    return _has(f, "backward") and (_has(f, "forward") or "__call__" in dir(f))


def _is_model(f: Any) -> bool:
    return _has(f, "loss_and_grad") and "params" in {*dir(f), *getattr(f, "__dict__", ())}


def _with_arguments(
    module: ModuleType, name: str, functions: tuple[Any, ...] | str, rng: np.random.Generator
) -> Found | Unchecked:
    if isinstance(functions, str):
        return Unchecked(name, functions)
    f, given = functions[0], getattr(module, f"{name.replace('.', '_')}_args", None)
    if given is not None:
        origin = f"{name.replace('.', '_')}_args of the file"
        if callable(given):
            try:
                takes_rng = bool(inspect.signature(given).parameters)
                given = given(*([rng] if takes_rng else []))
            except (Exception, SystemExit) as error:
                where = origin.replace("the file", str(module.__file__))
                return Unchecked(name, f"{where} raised {type(error).__name__}: {error}")
        args = given if isinstance(given, Mapping | Sequence) else [given]
        return Found(name, functions, args, origin)
    if _is_model(f):
        if not hasattr(f, "data_dim"):
            return Unchecked(name, f"it has no data_dim: give it data as {name}_args")
        x = rng.integers(0, 2, (SHAPE[0], f.data_dim)).astype(np.float64)  # (B, D)
        return Found(name, functions, [x], f"x {x.shape} of random bits")
    forward = getattr(f, "forward", f)
    names, shape = _needed(forward), (SHAPE[0], getattr(f, "n_in", SHAPE[1]))
    for source, draw in DRAWS.items():
        args = [draw(rng, shape) for _ in names]
        origin = f"{', '.join(names)} {shape} from {source}"
        if _is_defined(forward, args):
            return Found(name, functions, args, origin)
    hint = f"give it arguments of its own as {name.replace('.', '_')}_args"
    return Unchecked(name, f"it raises, or is not finite, for {origin}: {hint}")


def _is_defined(forward: Callable[..., Any], args: list[Any]) -> bool:
    """Tell whether the forward pass gives finite numbers for these arguments."""
    try:
        with np.errstate(all="ignore"):
            y = forward(*(a.copy() for a in args))
        return bool(np.isfinite(np.asarray(y[0], np.float64)).all())
    except (Exception, SystemExit):
        return False


def _needed(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments without a default."""
    function = getattr(function, "pyfunc", function)  # of numpy.vectorize
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.items()
    return [n for n, p in parameters if p.kind in kinds and p.default is p.empty]
