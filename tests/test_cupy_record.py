"""The record of CuPy's names that the stand-in lives by, against the real CuPy, which needs no GPU.

Without CuPy the tests are skipped; with SCRATCHVAE_REQUIRE_CUPY=1 they fail.
"""

import importlib.util
import inspect
import os
from pathlib import Path

import cupy_record
import pytest
import standin


@pytest.fixture(scope="module")
def real():
    """The real CuPy: `pip install --group cupy`."""
    if os.environ.get("SCRATCHVAE_REQUIRE_CUPY") == "1":
        import cupy

        return cupy
    return pytest.importorskip("cupy", reason="CuPy is not installed: pip install --group cupy")


def test_the_record_is_of_this_cupy(real):
    anew, recorded = cupy_record.read(real), cupy_record.load()
    assert anew == recorded, "record CuPy anew: python tests/cupy_record.py"


def test_recorded_signatures_take_the_arguments_that_cupys_take(real):
    functions = [
        (getattr(module, name), text)
        for module, names in ((real, "cupy"), (real.linalg, "cupy.linalg"))
        for name, text in standin.RECORD[names].items()
        if text not in (None, "ufunc")
    ]
    assert len(functions) > 250
    for function, text in functions:
        ours, theirs = cupy_record.signature(text), inspect.signature(function)
        assert [(p.name, p.kind, p.default is p.empty) for p in ours.parameters.values()] == [
            (p.name, p.kind, p.default is p.empty) for p in theirs.parameters.values()
        ]


def test_the_stand_in_counts_a_wait_where_cupys_documentation_has_one(real):
    documented = {
        name
        for name in standin.RECORD["cupy"]
        if "synchroniz" in (getattr(getattr(real, name), "__doc__", None) or "").lower()
    }
    # `where` waits with a single argument, which is counted; `digitize` says that it does not.
    assert documented - {"where", "digitize"} <= standin._WAITING


def test_the_stand_ins_errors_are_worded_as_cupys(real):
    error = real.cuda.memory.OutOfMemoryError(6_000_000, 10)
    start = standin.OutOfMemoryError("Out of memory allocating 6,000,000 bytes (allocated so")
    assert str(error).startswith(str(start))


@pytest.mark.parametrize("name", [n for n in vars(standin) if n.endswith(("Error", "Exception"))])
def test_the_stand_ins_errors_come_from_where_cupys_do(real, name):
    ours = getattr(standin, name)
    try:
        module = importlib.import_module(ours.__module__)
    except ImportError:  # it loads cuBLAS or cuRAND, which come with a GPU's CUDA
        spec = importlib.util.find_spec(ours.__module__)
        assert f"{ours.__module__}.{name}.__reduce__".encode() in Path(spec.origin).read_bytes()
        return
    theirs = getattr(module, name)
    assert theirs.__module__ == ours.__module__
    assert issubclass(theirs, ours.__base__)


def test_cupys_arrays_are_known_by_what_other_arrays_lack(real):
    for name in ("get", "__cuda_array_interface__"):
        assert hasattr(real.ndarray, name)
        assert hasattr(standin.DeviceArray, name)
