"""What ``scratchvae exercise`` does and prints."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from scratchvae.errors import InputError

from .folder import FOLDER, Folder, export, is_of_exercises
from .judging import Sheet, Verdict, exercises, find


def _about(action: str, folder: Folder, sheet: Sheet) -> str:
    """Return an action, with the name of its exercise where another one comes first."""
    return action if folder.current(None) == sheet else f"{action} {sheet.name[3:]}"


def run(action: str, name: str | None, path: Path | None) -> int:
    """Do one action; return the exit code: 1 if an answer is not right."""
    if action == "export":
        if name is None:
            raise InputError("export: expected the folder to write, as in exercise export course")
        written = export(name)
        print(f"Wrote {len(exercises())} exercises and {written / 'test_exercises.py'}")
        return 0
    if action in ("list", "watch") and name is not None:
        raise InputError(f"{action}: {name} is not expected: it is about all exercises")
    if name is not None and (Path(name).name != name or Path(name).is_file()):
        path, name = _named(Path(name), new=action == "next")
    if path is None:  # the present folder, if it is one of exercises
        path = Path() if is_of_exercises(Path()) else FOLDER
    actions: dict[str, Callable[[Folder, str | None], int]] = {
        "list": _list, "next": _next, "check": _check,
        "watch": _watch, "hint": _hint, "solution": _solution,
    }  # fmt: skip
    return actions[action](Folder(path), name)


def _named(file: Path, new: bool) -> tuple[Path, str]:
    """Return the folder of a file that is named, and its exercise."""
    sheet = find(file.name)
    if not new and not file.is_file():
        raise InputError(f"{file}: there is no such file")
    if file.name.removesuffix(".py") != sheet.name:
        raise InputError(f"{file}: is called otherwise than its exercise, {sheet.name}.py")
    return file.parent, sheet.name


def _list(folder: Folder, name: str | None) -> int:
    done = 0
    for sheet in exercises():
        now = folder.of(sheet)
        done += now["done"]
        mark = "x" if now["done"] else "." if folder.file(sheet).exists() else " "
        print(f"[{mark}] {sheet.name:18} {sheet.title}  ({sheet.minutes})")
    if done == len(exercises()):
        print(f"\nAll {done} are done.")
    else:
        where = "this folder" if folder.path == Path() else f"{folder.path}/"
        print(
            f"\n{done} of {len(exercises())} done [x], others begun [.]. "
            f"`{folder.command('next')}` writes the next one into {where}, "
            f"`{folder.command('check')}` judges it."
        )
    return 0


def _next(folder: Folder, name: str | None) -> int:
    sheet, written = folder.write(name)
    path = folder.file(sheet)
    check = folder.command(_about("check", folder, sheet))
    if written:
        print(f"Wrote {path}: {sheet.title} ({sheet.minutes})")
        print(f"Read it, write what is missing, then: {check}")
    else:
        state = "solved" if folder.of(sheet)["done"] else "not solved yet"
        print(f"{path} is there already and {state}; it stays as it is. {sheet.title}")
        print(f"Judge it: {check}. Skip to another: {folder.command('next NAME')}")
    return 0


def _check(folder: Folder, name: str | None) -> int:
    sheet = folder.current(name)
    if sheet.trains and folder.file(sheet).exists():
        print("This one trains a model: some seconds ...", file=sys.stderr)
    verdict = folder.check(sheet)
    _print(folder, sheet, verdict)
    if verdict.ok and folder.todo() is not None:
        print(f"Next: {folder.command('next')}")
    return 0 if verdict.ok else 1


def _print(folder: Folder, sheet: Sheet, verdict: Verdict) -> None:
    print(f"{folder.file(sheet)}: {'right' if verdict.ok else 'not yet'}")
    for line in verdict.sentence.splitlines():
        print(line if line[:1] == " " else textwrap.fill(line, 100))
    if verdict.table:
        print(verdict.table)
    if verdict.ok and folder.todo() is None:
        print("All exercises are done.")
    elif not verdict.ok and verdict.tried:
        failures = folder.of(sheet)["failures"]
        solution = folder.command(f"solution {sheet.name[3:]}")
        more = "" if failures < 2 else f", or: {solution}"
        print(f"Stuck? {folder.command(_about('hint', folder, sheet))}{more}")


def _watch(folder: Folder, name: str | None) -> int:
    folder.current(None)  # there has to be one
    print(f"Judging on every save in {folder.path}; Ctrl-C ends this.", flush=True)
    try:
        for sheet, verdict in folder.watch():
            print()
            _print(folder, sheet, verdict)
            if verdict.ok and folder.todo() is not None:
                _next(folder, None)
            print(end="", flush=True)
    except KeyboardInterrupt:
        print()
    return 0


def _hint(folder: Folder, name: str | None) -> int:
    sheet = folder.current(name)
    number, text = folder.hint(sheet)
    last = len(sheet.exercise.hints)
    print(textwrap.fill(f"{sheet.name}, hint {number} of {last}: {text}", 100))
    return 0


def _solution(folder: Folder, name: str | None) -> int:
    print(folder.solution(folder.current(name)))
    return 0
