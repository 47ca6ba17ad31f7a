"""Every demo computes on a device too: on the stand-in, quick, with noise drawn there.

A demo that mixes host and device arrays, or lets one become the other unasked, fails.
"""

import sys

import pytest
import standin

from scratchvae import demo_tools
from scratchvae.cli import main

ENTRIES = list(demo_tools.entries())


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_a_demos_claim_holds_on_the_device(entry, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    with standin.counting() as count:
        argv = ["demo", entry.name, "--quick", "--device", "cuda", "--out", str(tmp_path)]
        assert main(argv) == 0
    assert count.copies > 0  # it did run there
    assert "Holds: " in capsys.readouterr().out
    assert list(tmp_path.iterdir())
