"""Checkpoints: one safetensors file, written whole or not at all.

It holds every parameter by name, the optimizer's state as ``optimizer.*``, and as text the step,
epoch, random state, configuration and metrics. No pickle: reading one runs no code, and other
frameworks can open it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Backend, asnumpy
from .errors import InputError
from .vae import VAE, Autoencoder

if TYPE_CHECKING:
    from .training import Trainer

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
    """Write arrays and plain values to `path`, atomically."""
    from safetensors.numpy import save as to_bytes

    # safetensors would store an array that is not contiguous wrongly, without a word.
    arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
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


def build_model(config: dict[str, Any], backend: str | Backend = "numpy") -> Autoencoder:
    """Return a new model as `config` describes it: its kind, "vae" or "ae", and its options."""
    options = dict(config)
    kind = {"vae": VAE, "ae": Autoencoder}[options.pop("kind")]
    model: Autoencoder = kind(**options, backend=backend)
    return model


def load_model(path: str | Path, backend: str | Backend = "numpy") -> Autoencoder:
    """Return the model that a run saved, ready to encode, decode and sample.

    Parameters
    ----------
    path : str or Path
        A checkpoint, or the folder of a run, whose last checkpoint is then taken.
    backend : {"numpy", "cupy"}

    Raises
    ------
    InputError
        As for `load`.
    """
    path = Path(path)
    path = path / "checkpoint.safetensors" if path.is_dir() else path
    arrays, values = load(path)
    model = build_model(values["config"]["model"], backend)
    load_parameters(model, arrays, path)
    return model


def trainer_state(trainer: Trainer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return copies of what a trainer needs to go on from here: host arrays, and plain values.

    Raises
    ------
    NonFiniteError
        If a step that was not checked yet proves not to be finite, as on a GPU it may.
    """
    trainer.check()
    params, optimizer = trainer.model.params, trainer.optimizer
    arrays = {name: asnumpy(params[name].value).copy() for name in params.names}
    arrays |= {f"optimizer.{k}": asnumpy(a).copy() for k, a in optimizer.state.items()}
    values = {k: getattr(trainer, k) for k in ("epoch", "batch", "seconds")}
    values |= {"metrics": list(trainer.metrics), "totals": asnumpy(trainer.totals).tolist()}
    return arrays, values | {"step": optimizer.steps, "rng": trainer.model.rng.bit_generator.state}


def restore_trainer(
    trainer: Trainer, arrays: dict[str, Any], values: dict[str, Any], path: str | Path
) -> None:
    """Put a trainer back to where `trainer_state` was taken; model and data must be alike.

    Raises
    ------
    InputError
        As for `load_parameters`.
    """
    load_parameters(trainer.model, arrays, path)
    for k, a in trainer.optimizer.state.items():
        a[...] = trainer.model.backend.asarray(arrays[f"optimizer.{k}"])
    for k in ("epoch", "batch", "seconds", "metrics"):
        setattr(trainer, k, values[k])
    trainer.totals = trainer.model.backend.asarray(values["totals"], "float64")  # (3,)
    trainer.optimizer.steps = values["step"]
    trainer.model.rng.bit_generator.state = values["rng"]


def load_parameters(model: Autoencoder, arrays: dict[str, Any], path: str | Path) -> None:
    """Copy a checkpoint's parameters into a model.

    Raises
    ------
    InputError
        If one is missing or has another shape or dtype, naming it.
    """
    for name in model.params.names:
        want, found = model.params[name].value, arrays.get(name)
        if found is None or found.shape != want.shape or found.dtype != want.dtype:
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"{path}: made with another configuration: {name} is {what}, expected "
                f"{want.dtype} {want.shape}"
            )
        want[...] = model.backend.asarray(found)
