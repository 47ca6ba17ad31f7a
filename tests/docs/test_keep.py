"""docs/_ext/keep.py: what two processes compute at the same time is kept once and whole."""

from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).resolve().parents[2] / "docs" / "_ext"


@pytest.fixture
def keep(monkeypatch):
    monkeypatch.syspath_prepend(EXTENSIONS)
    import keep

    return keep


def writes(text):
    def make(folder):
        folder.mkdir()
        (folder / "text").write_text(text)

    return make


def test_it_is_made_once_for_what_it_depends_on(keep, tmp_path):
    first = keep.kept(tmp_path, "run", b"1", writes("first"))
    assert keep.kept(tmp_path, "run", b"1", writes("second")) == first
    assert (first / "text").read_text() == "first"
    other = keep.kept(tmp_path, "run", b"2", writes("second"))
    assert (other / "text").read_text() == "second"


def test_a_process_that_comes_second_takes_what_the_first_has_kept(keep, tmp_path):
    def slowly(folder):
        keep.kept(tmp_path, "run", b"1", writes("first"))  # meanwhile, in another process
        writes("second")(folder)

    found = keep.kept(tmp_path, "run", b"1", slowly)
    assert (found / "text").read_text() == "first"
    assert list(tmp_path.iterdir()) == [found]


def test_what_cannot_be_kept_is_an_error(keep, tmp_path):
    with pytest.raises(FileNotFoundError):
        keep.kept(tmp_path, "run", b"1", lambda folder: None)
    assert not list(tmp_path.iterdir())
