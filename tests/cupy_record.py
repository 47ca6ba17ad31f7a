"""CuPy's public names and signatures, in a file, so that the stand-in knows them without CuPy.

    python tests/cupy_record.py    # writes cupy_record.json anew, from the CuPy that is installed

`test_cupy_record.py` holds the file to the real CuPy.
"""

import functools
import inspect
import json
import types
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")


def load():
    return json.loads(FILE.read_text("utf-8"))


def read(cupy):
    """Return what the file is to hold of a CuPy: its version, and the names of its namespaces.

    A name stands with the signature of a Python function, with "ufunc", or with None for all else.
    A module is a namespace of its own, recorded if scratchvae needs it: `linalg`.
    """
    return {
        "version": cupy.__version__,
        "cupy": _names(cupy, cupy.ufunc),
        "cupy.linalg": _names(cupy.linalg, cupy.ufunc),
        "cupy.ndarray": sorted(name for name in dir(cupy.ndarray) if not name.startswith("_")),
    }


def _names(module, ufunc):
    public = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return {
        name: "ufunc" if isinstance(value, ufunc) else _signature(value)
        for name, value in public.items()
        if not isinstance(value, types.ModuleType)
    }


def _signature(function):
    """Return the signature without annotations, every default as None: what `bind` looks at."""
    # What CuPy takes over from NumPy differs with NumPy's version; NumPy itself checks its calls.
    if not inspect.isfunction(function) or not function.__module__.startswith("cupy"):
        return None
    parameters = [
        p.replace(
            annotation=p.empty,
            default=p.empty if p.default is p.empty else None,
        )
        for p in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(parameters))


@functools.cache  # asked at every call of a function on the stand-in
def signature(text):
    """Return the `inspect.Signature` that `_signature` wrote as text."""
    return inspect.signature(eval(f"lambda {text[1:-1]}: None"))


def main():
    import cupy

    FILE.write_text(json.dumps(read(cupy), indent=1) + "\n", "utf-8")
    print(f"Recorded CuPy {cupy.__version__} in {FILE}")


if __name__ == "__main__":
    main()
