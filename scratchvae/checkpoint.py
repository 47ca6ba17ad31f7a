"""Checkpoints: one safetensors file, written whole or not at all.

It holds arrays by name, and plain values as text. A model puts its parameters and its options
there, and a run also what ``Trainer.state`` returns: the optimizer's state as ``optimizer.*``, the
step, epoch, random state and metrics. No pickle: reading one runs no code, and other frameworks can
open it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import asnumpy, namespace
from .errors import InputError

if TYPE_CHECKING:
    from .parameters import Parameters

FORMAT = "scratchvae 1"


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a new file beside `path`, and put it in its place when it is complete.

    A kill at any moment leaves the old file or the new one, whole.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written.
    """
    path = Path(path)
    # The suffix stays last: libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before the name points to it
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def save(path: str | Path, arrays: dict[str, Any], values: dict[str, Any]) -> None:
    """Write arrays, of the host or a device, and plain values to `path`, atomically."""
    from safetensors.numpy import save as to_bytes

    # safetensors would store an array that is not contiguous wrongly, without a word.
    arrays = {name: np.ascontiguousarray(asnumpy(a)) for name, a in arrays.items()}
    content = to_bytes(arrays, {"format": FORMAT, "values": json.dumps(values)})
    write_atomically(path, lambda file: file.write_bytes(content))


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and values that `save` wrote.

    Raises
    ------
    InputError
        If the file is missing, truncated or not a checkpoint of this project.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = metadata.get("format", "no format name")
                raise InputError(
                    f"{path}: not a checkpoint of this version: found {found!r}, "
                    f"expected {FORMAT!r}"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, json.loads(metadata["values"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: expected a checkpoint") from None
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: truncated or not a checkpoint ({error})") from None


def load_parameters(params: Parameters, arrays: dict[str, Any], path: str | Path) -> None:
    """Copy arrays into the parameters of the same names; `path` is where they come from.

    Raises
    ------
    InputError
        If one is missing or has another shape or dtype, naming it; nothing is copied then.
    """
    for name in params.names:
        want, found = params[name].value, arrays.get(name)
        if found is None or found.shape != want.shape or found.dtype != want.dtype:
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"{path}: made with another configuration: {name} is {what}, expected "
                f"{want.dtype} {want.shape}"
            )
    for name in params.names:
        value = params[name].value
        value[...] = namespace(value).asarray(arrays[name])
