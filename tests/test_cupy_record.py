"""The record of CuPy's names that the stand-in lives by, against the real CuPy, which needs no GPU.

Without CuPy the tests are skipped; with SCRATCHVAE_REQUIRE_CUPY=1 they fail.
"""

import inspect
import os

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


def test_the_stand_ins_errors_are_worded_as_cupys(real):
    error = real.cuda.memory.OutOfMemoryError(6_000_000, 10)
    start = standin.OutOfMemoryError("Out of memory allocating 6,000,000 bytes (allocated so")
    assert str(error).startswith(str(start))
    assert issubclass(error.__class__, MemoryError)
    assert issubclass(real.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(real.cuda.compiler.CompileException, Exception)
