"""What a build computes at length and keeps beside its output: trained models, runs of demos."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import scratchvae

PACKAGE = Path(scratchvae.__file__).parent


def sources() -> list[Path]:
    """Return the files of the package and the embedded data."""
    return [*sorted(PACKAGE.rglob("*.py")), *PACKAGE.glob("data/digits.npz")]


def kept(folder: Path, name: str, depends_on: bytes, make: Callable[[Path], None]) -> Path:
    """Return the folder of that name, which `make(path)` fills unless it is there.

    Its name changes with what it depends on, the package and the embedded data included. It is made
    in a place of its own first: a build that is stopped here leaves no half of it.
    """
    content = b"".join([depends_on, *(path.read_bytes() for path in sources())])
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            make(Path(place, "run"))
            try:
                os.replace(Path(place, "run"), path)
            except OSError:  # a folder that is not empty cannot be replaced:
                if not path.exists():  # another process was first
                    raise
    return path
