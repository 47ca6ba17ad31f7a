"""Which sentences the guide and the README promise, and which tests their notes name."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def promises(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    monkeypatch.delitem(sys.modules, "promises", raising=False)
    import promises

    return promises


@pytest.fixture
def read(promises, tmp_path):
    """Return promises and problems of a project with one page, README.md or in docs/guide."""

    def read(text, page="docs/guide/page.md"):
        tests = (
            'ROWS = ["train --lr"]\n\ndef test_b(): ...\n\nclass TestC:\n    def test_d(): ...\n'
        )
        for name, content in {page: dedent(text), "tests/more/test_a.py": tests}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        problems = []
        return list(promises.read(tmp_path, problems)), problems

    return read


PAGE = """\
    # A page

    Nothing is promised here. The *first* promise
    goes on, see [there](there.md "a title"). No promise follows.
    % tested "The *first* promise": more/test_a.py::test_b
    % tested "goes on, see": more/test_a.py::TestC::test_d,
    %   more/test_a.py::test_b

    - An item.
    - Another item, that promises
      more. And says more.
      % tested "Another item, that promises more": more/test_a.py::test_b
    - One (it ends here.) Not here.
      % tested "One": more/test_a.py::test_b

    | option | what it does |
    |---|---|
    | `--lr` | the rate |
    | `--seed` | the seed. And more. |
    % tested "`--lr`": more/test_a.py::test_b[train --lr]
    """


def test_a_promise_is_the_sentence_item_or_row_that_begins_with_the_words(read):
    found, problems = read(PAGE)
    assert problems == []
    assert [(p.line, p.text, [(t.name, t.line) for t in p.tests]) for p in found] == [
        (5, "The *first* promise goes on, see there.", [("test_b", 3)]),
        (6, "goes on, see there.", [("TestC::test_d", 6), ("test_b", 3)]),
        (12, "Another item, that promises more.", [("test_b", 3)]),
        (14, "One (it ends here.)", [("test_b", 3)]),
        (20, "`--lr`: the rate", [("test_b[train --lr]", 1)]),
    ]
    assert {p.path for p in found} == {"docs/guide/page.md"}
    assert {t.path for p in found for t in p.tests} == {"tests/more/test_a.py"}


def test_the_readme_has_comments_of_html(read):
    text = """\
        A promise. No promise.
        <!-- tested "A promise": more/test_a.py::test_b,
             more/test_a.py::TestC::test_d -->
        <!-- another comment -->
        """
    (promise,), problems = read(text, "README.md")
    assert problems == []
    assert (promise.path, promise.line, promise.text) == ("README.md", 2, "A promise.")
    assert [test.name for test in promise.tests] == ["test_b", "TestC::test_d"]


@pytest.mark.parametrize(
    ("note", "sentence"),
    [
        ('"A promise": more/test_a.py::test_c', "There is no test tests/more/test_a.py::test_c."),
        ('"A promise": test_a.py::test_b', "There is no test tests/test_a.py::test_b."),
        ('"A promise": more/test_a.py::test_d', "There is no test tests/more/test_a.py::test_d."),
        (
            '"A promise": more/test_a.py::test_b[train --beta]',
            "There is no test tests/more/test_a.py::test_b[train --beta].",
        ),
        ('"Other words": more/test_a.py::test_b', "No sentence directly above this note has its"),
        ('"Far": more/test_a.py::test_b', "No sentence directly above this note has its words."),
        ('"A promise"', 'A note reads: tested "words": test_a.py::test_b, ...'),
        (": more/test_a.py::test_b", 'A note reads: tested "words": test_a.py::test_b, ...'),
    ],
)
def test_what_a_note_lacks_is_said_with_file_and_line(read, note, sentence):
    _, problems = read(f"Far above.\n\nA promise.\n% tested {note}\n")
    assert [where for where, _ in problems] == ["docs/guide/page.md:4"]
    assert problems[0][1].startswith(sentence)


def test_every_test_that_the_guide_and_the_readme_name_exists(promises):
    """That the table lists them is checked where the pages are built, in test_build_fails."""
    problems = []
    found = list(promises.read(ROOT, problems))
    assert [f"{where}: {sentence}" for where, sentence in problems] == []
    pages = [ROOT / "README.md", *(ROOT / "docs" / "guide").glob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert len(found) == sum(t.count("% tested") + t.count("<!-- tested") for t in texts) > 0
