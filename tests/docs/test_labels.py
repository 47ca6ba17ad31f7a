"""Which lines a label opens, and what is said of labels that lack something."""

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

EXTENSIONS = Path(__file__).resolve().parents[2] / "docs" / "_ext"


@pytest.fixture
def labels(monkeypatch):
    monkeypatch.syspath_prepend(EXTENSIONS)
    monkeypatch.delitem(sys.modules, "labels", raising=False)
    import labels

    return labels


@pytest.fixture
def project(tmp_path):
    """Write files of a project: project({"scratchvae/a.py": text, ...}) returns its root."""

    def write(files):
        for name in ("scratchvae", "tests"):
            (tmp_path / name).mkdir()
        for name, text in files.items():
            (tmp_path / name).write_text(dedent(text), encoding="utf-8")
        return tmp_path

    return write


CODE = '''
    """A module."""

    class A:
        def forward(self, x):
            text = """
            # [in-a-string]
            """
            # [first]  says more,
            # and goes on
            y = f(
                x  # a comment behind code ends nothing
            )
                # deeper, so it ends nothing
            y = g(y)
            # another kind of comment, no deeper
            z = y

            # [second]
            y = 2

            y = 3
            for i in range(3):
                # [third]
                y += i
            # [fourth]
            step = 1
            for i in range(3):
                y += i
                if i:
                    # [fifth]
                    y += 1
            # [mu | logvar] is no label
            return y


    # [sixth]
    last = 1
'''


def test_a_block_ends_where_its_statements_end(labels):
    text = dedent(CODE).strip() + "\n"
    found = {block.label: block for block in labels.blocks("scratchvae/a.py", text)}
    numbers = {line.strip(): n for n, line in enumerate(text.splitlines(), start=1)}
    assert list(found) == ["first", "second", "third", "fourth", "fifth", "sixth"]
    assert found["first"].code.splitlines() == [
        "# [first]  says more,",
        "# and goes on",
        "y = f(",
        "    x  # a comment behind code ends nothing",
        ")",
        "    # deeper, so it ends nothing",
        "y = g(y)",
    ]
    assert (found["first"].first, found["first"].last) == (
        numbers["# [first]  says more,"],
        numbers["y = g(y)"],
    )
    assert found["second"].code == "# [second]\ny = 2"  # to the blank line
    assert found["third"].code == "# [third]\ny += i"  # to what is less deep
    assert found["fourth"].code == "# [fourth]\nstep = 1"  # without the loop that holds the fifth
    assert found["fifth"].code == "# [fifth]\ny += 1"
    assert found["sixth"].code == "# [sixth]\nlast = 1"
    assert found["first"].owner == "A.forward"
    assert found["sixth"].owner == ""
    assert found["first"].module == "scratchvae.a"


def test_a_project_whose_labels_belong_together_has_no_problem(labels, project):
    tests = """
        import pytest

        class TestA:
            @pytest.mark.proves("a", "b")
            @pytest.mark.slow
            def test_both(self): ...

        @pytest.mark.proves("b")
        def test_b(): ...

        C, D = pytest.mark.proves("c"), pytest.mark.proves("d")
        E = pytest.mark.proves("e")
        MARKS = {"g": pytest.mark.proves("g"), "h": pytest.mark.proves("h")}

        @pytest.mark.parametrize("n", [pytest.param(1, marks=C), pytest.param(2, marks=D)])
        def test_named(n): ...

        @E
        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.proves("f", "e"))])
        def test_parameters(n): ...

        @pytest.mark.parametrize("n", [pytest.param(n, marks=MARKS[n]) for n in "gh"])
        def test_marks_of_a_table(n): ...

        @pytest.mark.parametrize(
            "n", [pytest.param(n, marks=pytest.mark.proves(n, f"{n}-x")) for n in TABLE]
        )
        def test_all_of_a_table(n): ...
    """
    names = [*"abcdefgh", "i", "i-x", "j", "j-x"]
    code = "".join(f"# [{label}]\nx = 1\n" for label in names) + 'TABLE = {"i": 1, "j": 2}\n'
    found = labels.read(project({"scratchvae/a.py": code, "tests/test_a.py": tests}))
    assert found.problems == []
    names = {label: [test.name for test in tests] for label, tests in found.tests.items()}
    assert names == {
        "a": ["TestA::test_both"],
        "b": ["TestA::test_both", "test_b"],
        "c": ["test_named"],
        "d": ["test_named"],
        "e": ["test_parameters"],
        "f": ["test_parameters"],
        "g": ["test_marks_of_a_table"],
        "h": ["test_marks_of_a_table"],
        **{label: ["test_all_of_a_table"] for label in ("i", "i-x", "j", "j-x")},
    }
    assert found.tests["b"][0].line == 7  # the def, not its decorators


@pytest.mark.parametrize(
    ("code", "tests", "where", "sentence"),
    [
        ("# [a]\nx = 1\n", "", "scratchvae/a.py:1", "No test proves [a]"),
        (
            "# [a]\nx = 1\n\n# [a]\nx = 1\n",
            "@mark.proves('a')\ndef test_a(): ...\n",
            "scratchvae/a.py:4",
            "The label [a] stands in scratchvae/a.py:1 too.",
        ),
        (
            "",
            "\n@mark.proves('b')\ndef test_b(): ...\n",
            "tests/test_a.py:3",
            'test_b proves "b", but no comment # [b] exists.',
        ),
        (
            "",
            "@mark.proves(LABEL)\ndef test_b(): ...\n",
            "tests/test_a.py:1",
            "needs labels, written out as strings",
        ),
        (
            "",
            "@parametrize([param(n, marks=mark.proves(n)) for n in TABLE])\ndef test_b(): ...\n",
            "tests/test_a.py:1",
            "needs labels, written out as strings",
        ),
        (
            "TABLE = {'b': 1}\n",
            "@parametrize([param(n, marks=mark.proves(n)) for n in TABLE])\ndef test_b(): ...\n",
            "tests/test_a.py:2",
            'test_b proves "b", but no comment # [b] exists.',
        ),
        (
            "# [a]\nx = 1\n",
            "@mark.proves()\n@mark.proves('a')\ndef test_a(): ...\n",
            "tests/test_a.py:1",
            "needs labels, written out as strings",
        ),
        (
            "# [a]\nx = 1\n",
            "@mark.proves('a')\ndef test_a(): ...\npytestmark = mark.proves('a')\n",
            "tests/test_a.py:3",
            "decorates no test",
        ),
    ],
)
def test_what_a_label_lacks_is_said_with_file_and_line(
    labels, project, code, tests, where, sentence
):
    found = labels.read(project({"scratchvae/a.py": code, "tests/test_a.py": tests}))
    assert [place for place, _ in found.problems] == [where]
    assert sentence in found.problems[0][1]


DERIVATIONS = EXTENSIONS.parent / "derivations"


def pages_in_order():
    names = re.findall(r"<([\w-]+)>$", (DERIVATIONS / "index.md").read_text("utf-8"), re.MULTILINE)
    return {name: (DERIVATIONS / f"{name}.md").read_text(encoding="utf-8") for name in names}


def test_every_derivation_has_its_place_and_a_figure():
    pages = pages_in_order()
    assert {*pages, "index"} == {path.stem for path in DERIVATIONS.glob("*.md")}
    without = [n for n, text in pages.items() if "{drawn}" not in text and "<svg" not in text]
    assert without == []


def test_a_derivation_uses_what_came_before_or_says_that_it_comes_later():
    pages = pages_in_order()
    home = {
        label: place
        for place, text in enumerate(pages.values())
        for label in re.findall(r"\$\$ \(([\w-]+)\)$", text, re.MULTILINE)
    }
    silent = [
        (name, label)
        for place, (name, text) in enumerate(pages.items())
        for sentence in re.split(r"(?<=[.?!])\s", text.partition("\n## Where it goes wrong")[0])
        for label in re.findall(r"\{eq\}`([\w-]+)`", sentence)
        if home[label] > place and "later" not in sentence
    ]
    assert silent == []


def test_every_label_has_a_derivation(labels):
    """That it is a whole one is checked where the pages are built."""
    root = EXTENSIONS.parents[1]
    pages = [path.read_text(encoding="utf-8") for path in (root / "docs").glob("derivations/*.md")]
    named = re.findall(r"\{derivation\} (.*)", "\n".join(pages))
    missing = set(labels.read(root).blocks) - {label for line in named for label in line.split()}
    assert not missing, (
        "derive what the code computes on a page of docs/derivations, under "
        + " and ".join(f":::{{derivation}} {label}" for label in sorted(missing))
    )
