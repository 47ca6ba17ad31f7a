"""Checkpoints: one safetensors file, written whole or not at all, and believed only if it is whole.

It holds arrays by name, and plain values as text. A model puts its parameters and its options
there, and a run also what ``Trainer.state`` returns: the optimizer's state as ``optimizer.*``, the
step, epoch, random state and metrics. No pickle: reading one runs no code, and other frameworks can
open it. A SHA-256 of arrays and values stands beside them, so that one changed bit is noticed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Array, asnumpy, namespace
from .errors import InputError, InputWarning, short

if TYPE_CHECKING:
    from .parameters import Parameters

FORMAT = "scratchvae 2"
WITHOUT_DIGEST = "scratchvae 1"  # what older versions wrote


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a new file beside `path`, and put it in its place when it is complete.

    A kill at any moment leaves the old file or the new one, whole.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written, or `path` names no file.
    """
    if not Path(path).name:
        raise InputError(f"{str(path)!r} names no file: expected the path of one")
    path = Path(path)
    # The suffix stays last: libraries choose the format by it. The name is short, whatever `path`
    # is, and nobody can have put a link there that we would follow: see O_EXCL.
    name = f".{os.getpid()}.{os.urandom(4).hex()}.tmp{path.suffix}"
    temporary = path.with_name(name)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before the name points to it
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # which would hide the error that brought us here
            temporary.unlink(missing_ok=True)


# What `write_atomically` calls a file that belongs to a run.
LEFTOVER = re.compile(
    r"\.([0-9]{1,10})\.[0-9a-f]{8}\.tmp\.(safetensors|jsonl|png|svg|html|npy|npz|csv)"
)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that dead processes left in a folder of a run."""
    for file in folder.glob(".*.tmp.*"):
        found = LEFTOVER.fullmatch(file.name)
        if found and not _alive(int(found[1])):
            with suppress(OSError):
                file.unlink()


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the signal 0 is one, and there is no cheap way to ask
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def save(path: str | Path, arrays: dict[str, Any], values: dict[str, Any]) -> None:
    """Write arrays, of the host or a device, and plain values to `path`, atomically."""
    from safetensors.numpy import save as to_bytes

    # safetensors would store an array that is not contiguous wrongly, without a word.
    arrays = {name: np.asarray(asnumpy(a), order="C") for name, a in arrays.items()}
    text = json.dumps(values, allow_nan=False, default=_plain)
    metadata = {"format": FORMAT, "values": text, "sha256": digest(arrays, text)}
    content = to_bytes(arrays, metadata)
    write_atomically(path, lambda file: file.write_bytes(content))


def _plain(value: Any) -> Any:
    """Return a number or an array of NumPy's as JSON can hold it, such as of a random state."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def is_plain(value: Any) -> bool:
    """Return whether `packed` takes it: a number, a word, None, or a tuple or list of them."""
    if type(value) in (tuple, list):
        return all(map(is_plain, value))
    if isinstance(value, np.floating) or type(value) is float:
        return bool(np.isfinite(value))  # JSON has no others
    return type(value) in (bool, int, str, type(None)) or isinstance(value, np.integer | np.bool_)


def packed(value: Any) -> Any:
    """Return a plain value as JSON can hold it so that its type comes back too, and a copy of it.

    A product with a float64 of NumPy's is one of float64, and with a float of Python's is not.
    """
    if isinstance(value, np.generic):
        return {"dtype": value.dtype.name, "value": value.item()}
    if isinstance(value, tuple):
        return {"tuple": [packed(v) for v in value]}
    return [packed(v) for v in value] if isinstance(value, list) else value


def unpacked(saved: Any, now: Any = None) -> Any:
    """Return what was packed; of an older file, a list where a tuple is now was one."""
    if isinstance(saved, dict):
        if set(saved) == {"tuple"} and isinstance(saved["tuple"], list):
            return tuple(unpacked(v) for v in saved["tuple"])
        try:
            return np.dtype(saved["dtype"]).type(saved["value"])
        except Exception:  # each kind of damage has its own
            raise InputError(f"{short(saved)} is no number: expected its dtype and value") from None
    if isinstance(saved, list):
        values = [unpacked(v) for v in saved]
        return tuple(values) if isinstance(now, tuple) else values
    return saved


def plain_values(owner: Any, others: Iterable[str]) -> dict[str, Any]:
    """Return the packed attributes of `owner` that are plain, by name, without some others."""
    mine = {k: v for k, v in vars(owner).items() if k not in others}
    return {k: packed(v) for k, v in mine.items() if is_plain(v)}


def take_values(owner: Any, saved: dict[str, Any], others: Iterable[str]) -> None:
    """Set what `plain_values` returned, in the same or in a later `owner`.

    An attribute that was not there, and for which the class has a value, is that of the class
    again. What is no plain value now, such as a method, stays: a damaged file may name it.

    Raises
    ------
    InputError
        If a value is damaged; those before it are set then, unless this is done in
        `all_or_nothing`.
    """
    for name in plain_values(owner, others):
        if name not in saved and is_plain(getattr(type(owner), name, packed)):
            delattr(owner, name)
    for name, value in saved.items():
        now = getattr(owner, name, None)
        if name not in others and is_plain(now):
            vars(owner)[name] = unpacked(value, now)


@contextmanager
def all_or_nothing(*owners: Any) -> Iterator[None]:
    """Give these objects their attributes back if an error is raised within."""
    before = [vars(owner).copy() for owner in owners]
    try:
        yield
    except BaseException:
        for owner, attributes in zip(owners, before, strict=True):
            vars(owner).clear()
            vars(owner).update(attributes)
        raise


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and values that `save` wrote.

    A checkpoint of an older version has no digest; it is loaded with a warning that says so.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, is truncated, changed or not a checkpoint of this
        project.
    """
    from safetensors import safe_open

    try:
        if regular := stat.S_ISREG(os.stat(path).st_mode):
            open(path, "rb").close()  # of what it cannot open, safetensors says there is no file
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a NUL in its name
        raise InputError(f"{path}: no such file: expected a checkpoint") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        if not regular:
            raise ValueError("it is no regular file")
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has several, of its own and Python's
        text = " ".join(str(error).split())
        raise InputError(f"{path}: truncated or not a checkpoint ({text})") from None
    found = metadata.get("format", "no format name")
    if found not in (FORMAT, WITHOUT_DIGEST):
        raise InputError(
            f"{path}: not a checkpoint of this version: found {found!r}, expected {FORMAT!r}"
        )
    text = metadata.get("values", "")
    if found == FORMAT and metadata.get("sha256") != digest(arrays, text):
        raise InputError(
            f"{path}: damaged: its content does not have the SHA-256 that was saved with it"
        )
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: truncated or not a checkpoint ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: truncated or not a checkpoint (it names no values)")
    if found == WITHOUT_DIGEST:
        warnings.warn(
            f"{path}: written by an older version, without a digest: whether it is damaged cannot "
            "be told; the next save adds one",
            InputWarning,
            stacklevel=2,
        )
    return arrays, values


def digest(arrays: Mapping[str, Any], values: str) -> str:
    """Return the SHA-256 of the arrays, their names, types and shapes, and the values' text."""
    import hashlib

    sha256 = hashlib.sha256(json.dumps(values).encode())
    for name in sorted(arrays):
        a = np.asarray(asnumpy(arrays[name]), order="C")  # a column of a matrix has gaps
        sha256.update(json.dumps([name, a.dtype.name, a.shape]).encode())
        sha256.update(a.reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def fill(targets: Mapping[str, Array], arrays: Mapping[str, Any], path: str | Path) -> None:
    """Copy arrays into the targets of the same names, if they all fit; raise as `require_fit`."""
    require_fit(targets, arrays, path)
    for name, want in targets.items():
        want[...] = namespace(want).asarray(arrays[name])


def require_fit(targets: Mapping[str, Array], arrays: Mapping[str, Any], path: str | Path) -> None:
    """Raise InputError naming an array that is missing, of another shape or dtype, or not finite.

    `path` is where the arrays come from.
    """
    for name, want in targets.items():
        found = arrays.get(name)
        if found is None or found.shape != want.shape or found.dtype != want.dtype:
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"{path}: made with another configuration: {name} is {what}, expected "
                f"{want.dtype} {want.shape}"
            )
        if not np.isfinite(asnumpy(found)).all():
            raise InputError(f"{path}: {name} holds NaN or infinity: expected finite numbers")


def load_parameters(params: Parameters, arrays: Mapping[str, Any], path: str | Path) -> None:
    """Copy arrays into the parameters of the same names, as `fill` does."""
    fill({name: params[name].value for name in params.names}, arrays, path)
