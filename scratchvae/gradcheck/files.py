"""What there is to check in a file of the user's own, and on which arguments."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scratchvae.errors import InputError

from . import halves
from .slopes import PATIENCE, OutOfTime, time_limit

SHAPE = (4, 5)  # of arguments that the file does not give
EPS = 1e-5
DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
    "N(0, 1)": lambda rng, shape: rng.standard_normal(shape),
    "U(0.5, 1.5)": lambda rng, shape: rng.uniform(0.5, 1.5, shape),  # for logarithms and the like
}
# What a user's code may raise. Not among them are Ctrl-C and our own OutOfTime.
RAISED = (Exception, SystemExit, GeneratorExit)
# Names with what `check` takes before the arguments, or with the reason why it cannot.
Candidates: TypeAlias = "Iterator[tuple[str, tuple[Any, ...] | str]]"
Pairs: TypeAlias = "list[tuple[Any, Any]]"  # (forward, backward)


class Found(NamedTuple):
    """A pair, a layer or a model, with its arguments and where they come from."""

    name: str
    functions: tuple[Any, ...]  # what `check` takes before the arguments
    args: Any
    origin: str
    wrt: Any = None  # which arguments have a gradient, if the file says so
    drawn: tuple[str, ...] = ()  # the names of the arguments, if the file does not give them

    def with_small_eps(self) -> Found | None:
        """Return the same with a small number for `eps`, which is noise or a constant, if drawn."""
        if not (some := {"eps", "epsilon"} & {*self.drawn}):
            return None
        args = [EPS if n in some else a for n, a in zip(self.drawn, self.args, strict=True)]
        return self._replace(args=args, origin=f"{self.origin}, {some.pop()} = {EPS:g}", drawn=())


class Unchecked(NamedTuple):
    """What looks as if it had a gradient, and why it cannot be checked."""

    name: str
    reason: str


def find(target: str, rng: np.random.Generator) -> list[Found | Unchecked]:
    """Return what ``FILE.py`` or ``FILE.py:NAME`` names.

    Taken are functions with a backward beside them, which its name tells: ``f`` or ``f_forward``
    with ``f_backward``, ``backward_f``, ``f_bwd``, ``f_grad`` or ``f_vjp``, in the file, as methods
    or in a dict; functions that return ``(loss, gradient)``; objects with `forward` or `__call__`
    and `backward`, or with `loss_and_grad`; and classes of such objects that need no arguments.
    Lists, dicts and objects are searched however deep. What looks like half of a pair (by its name,
    an argument such as dy or cache, or a result such as dx) and cannot be checked is returned with
    the reason.

    The arguments are what the file calls ``NAME_args``: a list of arrays, a dict of them by name,
    or a function that returns one and may take a NumPy Generator. Without it they are drawn, (4, 5)
    each. ``NAME_args = None`` says that there is nothing to check, ``NAME_wrt`` which arguments
    have a gradient.

    Raises
    ------
    InputError
        If the file is missing or raises, or if there is nothing of that name to check.
    """
    path, name = _split(target)
    module = _load(path)
    names = {n: v for n, v in vars(module).items() if n[:2] != "__"}
    candidates = {
        n: c
        for n, c in _candidates(module, names, "{}", set(), [])
        if getattr(module, _option(n, "args"), "none given") is not None
    }
    # What holds the arguments of another is nothing to check.
    options = {_option(n, "args") for n in [*candidates, *names]}
    candidates = {n: c for n, c in candidates.items() if n not in options}
    # A class is checked through its objects, an abstract one through those of its subclasses.
    functions = [c[0] for c in candidates.values() if not isinstance(c, str)]
    objects = [type(f.__self__ if inspect.ismethod(f) else f) for f in functions]
    found: list[Found | Unchecked] = []
    for n, c in candidates.items():
        if not isinstance(c, str):
            try:
                found.append(_with_arguments(module, n, c, rng))
            except InputError as error:
                found.append(Unchecked(n, str(error)))
            except RAISED as error:  # of an attribute
                found.append(Unchecked(n, f"it raised {type(error).__name__}: {error}"))
        elif not _is_covered(module, n, objects):
            found.append(Unchecked(n, c))
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
    except RAISED as error:
        raise InputError(f"{path} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _candidates(
    module: ModuleType, names: Mapping[Any, Any], label: str, seen: set[int], pairs: Pairs
) -> Candidates:
    """Yield what there is under some names, and in lists, dicts and objects there, however deep.

    `seen` are the objects that another name has, `pairs` the pairs that were found. A function that
    has a name of its own may become half of a pair in a list or a dict only.
    """
    new = {n: v for n, v in names.items() if id(v) not in seen}
    seen.update(map(id, new.values()))
    for n, value in new.items():
        if not inspect.isclass(value):
            yield from _of_object(module, label.format(n), value)
            if halves.is_layer(value):
                forward = value.forward if halves.has(value, "forward") else value
                pairs.append((forward, value.backward))
        elif value.__module__ == module.__name__:
            yield from _of_class(module, label.format(n), value)
    yield from _pairs(module, names, label, pairs)
    for n, value in new.items():
        name = label.format(n).replace("{", "{{").replace("}", "}}")  # for `format`
        yield from _pairs(module, _pair_in(value, pairs), name, pairs)
        held, ending = _held(module, value)
        yield from _candidates(module, held, name + ending, seen, pairs)
    yield from _alone(module, new, label, pairs)


def _held(module: ModuleType, x: Any) -> tuple[dict[Any, Any], str]:
    """Return what a list, a dict or an object of the file holds, and what that is called."""
    if isinstance(x, Mapping):
        return dict(x), "[{!r}]"
    if isinstance(x, list | tuple | set | frozenset):
        return dict(enumerate(x)), "[{}]"
    own = isinstance(x, SimpleNamespace) or type(x).__module__ == module.__name__
    if not own or halves.is_layer(x) or halves.is_model(x):  # what it holds is checked with it
        return {}, ""
    return dict(getattr(x, "__dict__", {})), ".{}"


def _of_class(module: ModuleType, name: str, kind: type) -> Candidates:
    """Yield what an object of a class has to check, and what the classes inside it have."""
    for n, part in vars(kind).items():
        if inspect.isclass(part) and part.__module__ == module.__name__ and n[:2] != "__":
            yield from _of_class(module, f"{name}.{n}", part)
    functions = _functions(module, _methods(kind), "{}")
    if not (halves.is_layer(kind) or halves.is_model(kind) or any(functions)):
        return
    try:
        made = kind()
    except RAISED as error:
        text = f"{name}() of {module.__file__} raised {type(error).__name__}: {error}"
        yield name, f"{text}; make an object of the class in the file"
    else:
        yield from _of_object(module, name, made)


def _of_object(module: ModuleType, name: str, value: Any) -> Candidates:
    """Yield a layer or a model, and the pairs among the other methods of any object."""
    taken = {"forward", "backward", "__call__"} if halves.is_layer(value) else set()
    taken |= {"loss_and_grad"} if halves.is_model(value) else set()
    if taken:
        yield name, (value,)
    if type(value).__module__ == module.__name__:
        others = {n: f for n, f in _methods(value).items() if n not in taken}
        yield from _functions(module, others, name + ".{}")


def _functions(module: ModuleType, names: Mapping[Any, Any], label: str) -> Candidates:
    """Yield the pairs among some functions, and the halves that are alone."""
    pairs: Pairs = []
    yield from _pairs(module, names, label, pairs)
    yield from _alone(module, names, label, pairs)


def _pairs(module: ModuleType, names: Mapping[Any, Any], label: str, pairs: Pairs) -> Candidates:
    """Yield every function with its backward, unless another name has the pair; note it."""
    functions = {str(n): f for n, f in names.items() if halves.is_function(f)}
    before = list(pairs)
    used: set[str] = set()
    for name, f in functions.items():
        near = halves.forwards(name, f, functions)
        own = [n for n in near if _is_own(module, f) or _is_own(module, functions[n])]
        if own:
            two = own[0] in used  # gradients of one function
            title = name if two else halves.name_of_pair(own[0])
            used |= {name, own[0]}
            pair = functions[own[0]], f
            pairs.append(pair)
            again = any(pair[0] is old[0] and pair[1] is old[1] for old in before)
            if not again or hasattr(module, _option(label.format(title), "args")):
                yield label.format(title), (pair[0], halves.dy_first(f))


def _pair_in(x: Any, pairs: Pairs) -> dict[str, Any]:
    """Return the two functions of a list such as (f, df) or ("name", f, df), if they are a pair."""
    functions = [f for f in x if halves.is_function(f)] if isinstance(x, list | tuple) else []
    if len(functions) != 2 or any(functions[1] is forward for forward, _ in pairs):
        return {}
    forward, backward = functions
    names = [getattr(f, "__name__", "<lambda>") for f in functions]  # a partial has none
    if halves.gives_gradient(names[0], forward):
        return {}
    says = halves.BACKWARD & {*halves.words(names[1])}
    says |= (halves.DY | halves.CACHE) & halves.parameters_of(backward)
    # Two functions may stand in a list for any reason. Of what has no name that is unlikely.
    two = "<lambda>" in names or (_returns_two(forward) and not _returns_two(backward))
    if says or (two and len(halves.needed(backward)) == 2):
        return {"forward": forward, "backward": backward}
    return {}


def _returns_two(f: Any) -> bool:
    """Tell whether a function's code has a `return` of two things, such as y and a cache."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(f))))
    except (OSError, TypeError, SyntaxError):
        return False
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    return any(isinstance(v, ast.Tuple) and len(v.elts) == 2 for v in values)


def _alone(module: ModuleType, names: Mapping[Any, Any], label: str, pairs: Pairs) -> Candidates:
    """Yield what returns (loss, gradient); for either half of a pair that is alone, the reason."""
    functions = {str(n): f for n, f in names.items() if halves.is_function(f)}
    known = [*functions.values(), *(f for pair in pairs for f in pair)]
    used = [f for pair in pairs for f in pair]
    used += [halves.inner(f) for f in known]  # of a functools.partial: it is checked through that
    for name, f in functions.items():
        if any(f is u for u in used) or not _is_own(module, f):
            continue
        short = halves.stem(name, halves.FORWARD | halves.BACKWARD) or "f"
        asked = hasattr(module, _option(label.format(name), "args"))  # so somebody expects a check
        if not halves.gives_gradient(name, f) and not asked:
            if halves.FORWARD & {*halves.words(name)} or "cache" in halves.returned(f):
                reason = f"there is no backward beside it: expected {short}_backward"
                yield label.format(name), reason
        elif halves.COTANGENT & halves.parameters_of(f):
            reason = f"there is no forward beside it: expected {short} or {short}_forward"
            yield label.format(name), reason
        else:
            yield label.format(name), (f, halves.times_dy)


def _methods(x: Any) -> dict[str, Any]:
    """Return the methods of an object or a class by name, without those that Python calls."""
    names = [n for n in dir(x) if n == "__call__" or n[:2] != "__"]
    return {n: getattr(x, n) for n in names if halves.has(x, n)}


def _is_own(module: ModuleType, f: Any) -> bool:
    """Tell whether the file made it, and did not import it."""
    return not isinstance(f, FunctionType | MethodType) or f.__module__ == module.__name__


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


def _option(name: str, what: str) -> str:
    """Return what the file calls the arguments of a name, or those of them with a gradient."""
    return f"{name.replace('.', '_')}_{what}"


def _with_arguments(
    module: ModuleType, name: str, functions: tuple[Any, ...], rng: np.random.Generator
) -> Found:
    """Return what to check with its arguments; raise InputError if there are none."""
    option, f = _option(name, "args"), functions[0]
    given, wrt = getattr(module, option, None), getattr(module, _option(name, "wrt"), None)
    if given is not None:
        if callable(given):
            takes_rng = bool(inspect.signature(given).parameters)
            try:
                given = given(*([rng] if takes_rng else []))
            except RAISED as error:
                what = f"{option} of {module.__file__} raised {type(error).__name__}"
                raise InputError(f"{what}: {error}") from error
        args = given if isinstance(given, Mapping | Sequence) else [given]
        if halves.times_dy in functions and (problem := _problem(functions, args)):
            raise InputError(f"{problem} for {option} of the file")
        return Found(name, functions, args, f"{option} of the file", wrt)
    if halves.is_model(f):
        if not hasattr(f, "data_dim"):
            raise InputError(f"it has no data_dim: give it data as {option}")
        x = rng.integers(0, 2, (SHAPE[0], f.data_dim)).astype(np.float64)  # (B, D)
        return Found(name, functions, [x], f"x {x.shape} of random bits")
    names, shape = halves.needed(getattr(f, "forward", f)), (SHAPE[0], getattr(f, "n_in", SHAPE[1]))
    for source, draw in DRAWS.items():
        args = [draw(rng, shape) for _ in names]
        origin = f"{', '.join(names)} {shape} from {source}"
        problem = _problem(functions, [a.copy() for a in args]) or _misfit(functions, args)
        if not problem:
            return Found(name, functions, args, origin, wrt, tuple(names))
    hint = f"give it arguments of its own as {option}"
    if halves.times_dy in functions:
        hint += ", or None if it has no gradient"
    raise InputError(f"{problem} for {origin}: {hint}")


def _problem(functions: tuple[Any, ...], args: Any) -> str:
    """Return why these arguments do not serve, or nothing if they do."""
    forward = getattr(functions[0], "forward", functions[0])
    try:
        with time_limit(PATIENCE), np.errstate(all="ignore"):
            result = forward(**args) if isinstance(args, Mapping) else forward(*args)
        y = result[0] if isinstance(result, tuple | list) else result
        finite = np.isfinite(np.asarray(y, np.float64)).all()
    except OutOfTime:
        return f"it does not return within {PATIENCE:g} s"
    except RAISED as error:
        return f"it raises {type(error).__name__}"
    if halves.times_dy in functions and not (
        y is not result and len(result) == 2 and np.ndim(y) == 0
    ):
        return "there is no forward beside it, and it does not return (loss, gradient),"
    return "" if finite else "it is not finite"


def _misfit(functions: tuple[Any, ...], args: list[Any]) -> str:
    """Return which gradient of a pair has another shape than its argument, as what is broadcast."""
    if len(functions) != 2 or functions[1] is halves.times_dy:
        return ""
    with suppress(*RAISED, OutOfTime), time_limit(PATIENCE), np.errstate(all="ignore"):
        y, cache = functions[0](*(a.copy() for a in args))
        given = functions[1](np.ones_like(y), cache)
        given = given if isinstance(given, tuple | list) else (given,)
        for name, a, g in zip(halves.needed(functions[0]), args, given, strict=True):
            if g is not None and np.shape(g) != a.shape:
                return f"backward gives {name} a gradient of shape {np.shape(g)}"
    return ""
