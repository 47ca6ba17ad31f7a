"""Which sentences of the README and the guide promise a behaviour, and which tests hold them to it.

A note stands directly below the paragraph, list item or table. It is a comment, so no page shows
it, and names the words with which the sentence begins, as they stand there, and its tests:

    % tested "The result is bitwise": test_run.py::test_stopped, fuzz/test_kills.py::test_killed
    % tested "`--beta 4`": test_options.py::test_an_option_acts[train --beta]

In a table the words begin a row. Lines go on after another ``%``, without "tested". The README,
which other sites show too, has ``<!-- tested "...": ... -->``. Files are named from the folder of
the tests; what stands in brackets is a string of the file, in double quotes, such as a row of the
table of options. Like labels.py, this file needs nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import labels

NOTE = re.compile(
    r"^ *(?:% tested(?P<page>.*(?:\n *%(?! tested).*)*)|<!-- tested(?P<readme>[^>]*)-->)",
    re.MULTILINE,
)
FORM = re.compile(r'\s*"([^"]+)":\s*(\S.*)', re.DOTALL)
END = re.compile(r"(?<=[.?!])\s|(?<=[.?!][)*])\s|\n\s*(?=- |\d+\. )")  # of a sentence or an item


@dataclass(frozen=True)
class Promise:
    """A sentence, and the tests of which one would fail were it false."""

    path: str  # of the page, from the root of the project
    line: int  # of the note
    text: str  # Markdown without links
    tests: tuple[labels.Test, ...]


def read(root: Path, problems: list[tuple[str, str]], tests: str = "tests") -> Iterator[Promise]:
    """Yield the promises of the project in `root`; note what is wrong with their notes."""
    sources = dict(labels.sources(root, tests))
    known = {f"{test.path}::{test.name}": test for test in labels.all_tests(root, tests)}
    for page in [*root.glob("README.md"), *sorted((root / "docs" / "guide").glob("*.md"))]:
        path = page.relative_to(root).as_posix()
        for line, sentence, names in notes(page.read_text(encoding="utf-8")):
            where, found = f"{path}:{line}", []
            if not names:
                problems.append((where, 'A note reads: tested "words": test_a.py::test_b, ...'))
            elif not sentence:
                problems.append((where, "No sentence directly above this note has its words."))
            for name in names:
                full_name, _, row = f"{tests}/{name}".removesuffix("]").partition("[")
                test = known.get(full_name)
                if test and row:
                    test = _at_row(test, row, sources[test.path])
                if test:
                    found.append(test)
                else:
                    problems.append((where, f"There is no test {tests}/{name}."))
            yield Promise(path, line, sentence, tuple(found))


def _at_row(test: labels.Test, row: str, text: str) -> labels.Test | None:
    """Return the test, named and linked as its case `row`; None if the file has no such string."""
    before, there, _ = text.partition(f'"{row}"')
    line = before.count("\n") + 1
    return replace(test, name=f"{test.name}[{row}]", line=line) if there else None


def notes(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line, sentence and names of tests of every note in a page; "" and [] if unreadable."""
    prose = NOTE.sub(lambda note: re.sub(r"[^\n]", " ", note[0]), text)
    for note in NOTE.finditer(text):
        line = text.count("\n", 0, note.start()) + 1
        form = FORM.fullmatch(re.sub(r"\n *%", " ", note["page"] or note["readme"]).strip())
        if not form:
            yield line, "", []
            continue
        above = prose[: note.start()].rpartition("\n\n")[2]  # the paragraph, item or table
        words = r"\s+".join(map(re.escape, form[1].split()))
        begins = [match.start() for match in re.finditer(words, above)]
        sentence = ""
        if begins:
            row = above.rfind("\n", 0, begins[-1]) + 1
            if above[row] == "|":
                cells = above[row:].partition("\n")[0].strip("| ").split("|")
                sentence = ": ".join(cell.strip() for cell in cells)
            else:
                sentence = END.split(above[begins[-1] :], maxsplit=1)[0]
        sentence = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", sentence)  # links lead from one page
        yield line, " ".join(sentence.split()), [name.strip() for name in form[2].split(",")]
