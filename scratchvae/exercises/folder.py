"""A reader's folder: the files that were handed out, what is solved, hints and solutions."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from scratchvae.checkpoint import write_atomically
from scratchvae.errors import Count, InputError, check_type

from .judging import Sheet, Verdict, exercises, find, judge

PROGRESS, FOLDER = "progress.json", Path("exercises")
FAILURES = 2  # after so many the solution is shown
POLL = 0.3  # seconds between two looks at the files


class _One(TypedDict, total=False):
    done: bool
    failures: Count
    hints: Count


def is_of_exercises(path: Path) -> bool:
    """Tell whether a folder holds exercises, as a reader's or an exported one does."""
    return any((path / f"{sheet.name}.py").is_file() for sheet in exercises())


class Folder:
    """The folder in which a reader solves the exercises.

    Parameters
    ----------
    path : str or Path
        Made when the first exercise is written.

    Raises
    ------
    InputError
        If the file of the progress is damaged, or the folder cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_file():
            raise InputError(f"{self.path}: is a file, expected a folder")
        self._file = self.path / PROGRESS
        self._read()

    def command(self, words: str) -> str:
        """Return what a reader has to type, from where the present command was typed."""
        default = self.path in (Path(), FOLDER)
        there = "" if default else f" --folder {shlex.quote(str(self.path))}"
        return f"scratchvae exercise {words}{there}"

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return the progress, read anew: another terminal may have asked for a hint meanwhile."""
        if not self._file.is_file():
            return {}
        try:
            progress = json.loads(self._file.read_text("utf-8"))
            check_type("the progress", progress, dict[str, _One])
        except OSError as error:
            raise InputError(f"{self._file}: cannot be read ({error.strerror})") from None
        except ValueError:
            raise InputError(
                f"{self._file}: is damaged, or not of these exercises; move it away to begin anew, "
                "the exercises stay"
            ) from None
        found: dict[str, dict[str, Any]] = progress
        return found

    def of(self, sheet: Sheet) -> dict[str, Any]:
        """Return what is known of an exercise: done, failures and hints."""
        return {"done": False, "failures": 0, "hints": 0, **self._read().get(sheet.name, {})}

    def file(self, sheet: Sheet) -> Path:
        """Return where the reader's file of an exercise is, or would be."""
        return self.path / f"{sheet.name}.py"

    def todo(self) -> Sheet | None:
        """Return the first exercise that is not done, or None."""
        return next((s for s in exercises() if not self.of(s)["done"]), None)

    def current(self, name: str | None) -> Sheet:
        """Return the exercise of that name or, without one, the one the reader is at.

        That is the first that was written and is not done; else the last that was written.
        """
        if name is not None:
            return find(name)
        written = [s for s in exercises() if self.file(s).exists()]
        if not written:
            raise InputError(
                f"{self.path} holds no exercise yet: `{self.command('next')}` writes the first"
            )
        return next((s for s in written if not self.of(s)["done"]), written[-1])

    def write(self, name: str | None = None) -> tuple[Sheet, bool]:
        """Write the next exercise, or the one of that name; a file that is there already stays.

        Returns
        -------
        sheet : Sheet
        written : bool
            False if its file was there already.
        """
        sheet = self.todo() if name is None else find(name)
        if sheet is None:
            raise InputError("all exercises are done: there is no next one")
        path = self.file(sheet)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:
                file.write(sheet.text)
        except FileExistsError:
            if not self.path.is_dir():
                raise InputError(f"{self.path}: is a file, expected a folder") from None
            return sheet, False
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{path}: cannot be written ({reason})") from error
        self._note(sheet)
        return sheet, True

    def check(self, sheet: Sheet) -> Verdict:
        """Judge the reader's file of an exercise, and remember how it went."""
        self._require(sheet)
        verdict = judge(self.file(sheet), sheet.name)
        now = self.of(sheet)
        if verdict.ok:
            self._note(sheet, done=True)
        elif verdict.tried and not now["done"]:
            self._note(sheet, failures=now["failures"] + 1)
        return verdict

    def hint(self, sheet: Sheet) -> tuple[int, str]:
        """Return the next hint with its number, from 1; after the last one that one again."""
        self._require(sheet)
        hints = sheet.exercise.hints
        number = min(self.of(sheet)["hints"] + 1, len(hints))
        self._note(sheet, hints=number)
        return number, hints[number - 1]

    def solution(self, sheet: Sheet) -> str:
        """Return the derivation and the package's lines; InputError before two failures."""
        now = self.of(sheet)
        if not now["done"] and now["failures"] < FAILURES:
            raise InputError(
                f"the solution of {sheet.name} is shown after {FAILURES} answers that are not "
                f"right, and there are {now['failures']} so far; "
                f"`{self.command(f'hint {sheet.name[3:]}')}` helps"
            )
        return sheet.solution()

    def watch(self) -> Iterator[tuple[Sheet, Verdict]]:
        """Judge the present exercise, then each one whose file is saved; it never ends."""
        seen = self._times()
        current = self.current(None)
        yield current, self.check(current)
        while True:
            time.sleep(POLL)
            now = self._times()
            for sheet, stamp in now.items():
                if seen.get(sheet) != stamp:
                    yield sheet, self.check(sheet)
            seen = now

    def _times(self) -> dict[Sheet, int]:
        found = {}
        for sheet in exercises():
            try:
                found[sheet] = os.stat(self.file(sheet)).st_mtime_ns
            except OSError:  # not handed out; or an editor is just replacing it
                continue
        return found

    def _require(self, sheet: Sheet) -> None:
        """Raise InputError unless the reader has the file of an exercise."""
        if not self.file(sheet).is_file():
            how = f"`{self.command(f'next {sheet.name[3:]}')}` writes it"
            raise InputError(f"{self.file(sheet)}: there is no such file; {how}")

    def _note(self, sheet: Sheet, **values: Any) -> None:
        progress = self._read() | {sheet.name: self.of(sheet) | values}
        text = json.dumps(progress, indent=1, sort_keys=True) + "\n"
        write_atomically(self._file, lambda path: path.write_text(text, "utf-8"))


TESTS = '''"""One test for each exercise; pytest and scratchvae are all that it needs.

Run `pytest` in this folder, or `pytest -k relu`. A failure shows what `scratchvae exercise check`
says. Arguments are drawn anew at each run, so an answer cannot be fitted to them.
"""

from pathlib import Path

from scratchvae.exercises import judge

HERE = Path(__file__).parent


def holds(name):
    __tracebackhide__ = True
    verdict = judge(HERE / f"{name}.py")
    assert verdict.ok, f"\\n{verdict}"
'''

TEST = '''

def test_{name}():
    """{title}"""
    holds("{name}")
'''


def export(path: str | Path) -> Path:
    """Write a folder for a course: every exercise, and a file of tests for pytest; return it.

    Raises
    ------
    InputError
        If the folder exists and is not empty, or cannot be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise InputError(f"{path}: is not empty; expected a new folder to export to")
        tests = TESTS
        for sheet in exercises():
            (path / f"{sheet.name}.py").write_text(sheet.text, "utf-8")
            title = sheet.title if sheet.title.endswith("?") else f"{sheet.title}."
            tests += TEST.format(name=sheet.name, title=title)
        (path / "test_exercises.py").write_text(tests, "utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path
