"""The sheets in their order, and the judging of a reader's file in a process of its own."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import math
import pkgutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from scratchvae.backend import RandomSource
from scratchvae.errors import InputError

from . import sheets
from .kinds import Exercise, Wrong

MARK = "# --- what judges it"  # from here on a sheet is not the reader's


@dataclass(frozen=True)
class Sheet:
    """An exercise as it is listed, handed out and judged.

    Attributes
    ----------
    number : int
    name : str
        Such as "01_relu": the reader's file is ``01_relu.py``.
    title : str
        Such as "Derive: the gradient of relu".
    minutes : str
        How long it takes, such as "10 minutes".
    text : str
        The reader's file, untouched.
    exercise : Exercise
    """

    number: int
    name: str
    title: str
    minutes: str
    text: str
    exercise: Exercise

    @property
    def trains(self) -> bool:
        """Whether judging it takes more than a moment, since a model is trained for it."""
        return self.exercise.limit > Exercise.limit

    def solution(self) -> str:
        """Return the derivation, the page of the documentation and the package's own lines."""
        parts = [_dedent(self.exercise.derivation)]
        parts.append(f"In the documentation: {self.exercise.page}.html")
        for function in self.exercise.solution:
            function = inspect.unwrap(function)
            lines, first = inspect.getsourcelines(function)
            place = f"{function.__module__.replace('.', '/')}.py, line {first}"
            parts.append(f"{place}:\n\n{textwrap.dedent(''.join(lines)).rstrip()}")
        if self.exercise.code:
            parts.append(f"And one way to write the rest:\n\n{_dedent(self.exercise.code)}")
        return "\n\n".join(parts)

    def solved(self) -> str:
        """Return the text of the reader's file, solved by the package's own lines."""
        answer = (self.text, self.exercise.answer, self.exercise.code)
        return "\n\n\n".join(_dedent(part) for part in answer if part) + "\n"


def _dedent(text: str) -> str:
    return textwrap.dedent(text).strip()


@dataclass(frozen=True)
class Verdict:
    """What was found in a reader's file: a sentence, and perhaps a small table of values."""

    ok: bool
    sentence: str
    table: str = ""
    tried: bool = True  # False: there is no answer yet

    def __str__(self) -> str:
        return self.sentence + (f"\n{self.table}" if self.table else "")


@functools.cache
def exercises() -> tuple[Sheet, ...]:
    """Return all exercises in their order."""
    names = sorted(m.name for m in pkgutil.iter_modules(sheets.__path__) if m.name[0] == "e")
    return tuple(map(_sheet, names))


def _sheet(module_name: str) -> Sheet:
    module = importlib.import_module(f"{sheets.__name__}.{module_name}")
    doc = inspect.getdoc(module) or ""
    text = inspect.getsource(module).partition(MARK)[0].rstrip()
    minutes = doc.split("\n\n")[1].partition(".")[0].removeprefix("About ")
    name = module_name.removeprefix("e")
    title = doc.splitlines()[0].rstrip(".")
    return Sheet(int(name[:2]), name, title, minutes, f"{text}\n", module.exercise)


def find(name: str) -> Sheet:
    """Return the exercise called "01_relu", "relu" or "1", or that of the file 01_relu.py.

    Raises
    ------
    InputError
        If there is none.
    """
    wanted = Path(name).name.removesuffix(".py")
    for sheet in exercises():
        if wanted in (sheet.name, sheet.name[3:], str(sheet.number), sheet.name[:2]):
            return sheet
    import difflib

    known = [n for s in exercises() for n in (s.name, s.name[3:])]
    close = difflib.get_close_matches(wanted, known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InputError(f"there is no exercise {name!r}: `scratchvae exercise` lists them{hint}")


# The reader's file may do anything, and for ever, so another Python runs it. It looks for modules
# where this one does, and not in the present folder: -P.
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from scratchvae.exercises.judging import main; main(*sys.argv[1:])"
)


def judge(path: str | Path, name: str | None = None, limit: float | None = None) -> Verdict:
    """Judge a reader's file in a process of its own.

    Parameters
    ----------
    path : str or Path
    name : str, optional
        Of the exercise, if the file is not called like it.
    limit : float, optional
        After how many seconds to stop; by default as the exercise says.

    Returns
    -------
    Verdict

    Raises
    ------
    InputError
        If there is no such exercise or file.
    """
    path = Path(path)
    sheet = find(name or path.name)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    limit = sheet.exercise.limit if limit is None else limit
    what = f"{path.name}{', or an answer beside it,' * sheet.exercise.beside}"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "verdict.json")
        command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path)]
        command += [sheet.name, str(path.resolve()), str(result), str(math.ceil(limit) + 1)]
        try:
            # In a session of its own, which Ctrl-C does not reach: `run` kills it then, quietly.
            done = subprocess.run(
                command, timeout=limit, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            more = ", or too large a model" if sheet.trains else ""
            sentence = (
                f"{what} did not end within {limit:g} seconds: is there an endless loop{more}?"
            )
            return Verdict(False, sentence)
        if not result.exists():
            code = done.returncode
            return Verdict(False, f"{what} ended Python itself, with exit code {code}.")
        return Verdict(**json.loads(result.read_text("utf-8")))


def main(name: str, path: str, result: str, limit: str) -> None:
    """Judge one file and write the verdict as JSON: what the process of its own does."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(int(limit))  # ends this process where nobody waits for it any more
    verdict = judge_here(find(name), Path(path))
    Path(result).write_text(json.dumps(asdict(verdict)), "utf-8")


def judge_here(sheet: Sheet, path: Path, rng: RandomSource = None) -> Verdict:
    """Judge a reader's file in this process, without a limit of time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with np.errstate(all="ignore"):
                answer = load(path)
            with np.errstate(all="ignore"):  # whatever the file has set
                sentence = sheet.exercise.judge(answer, np.random.default_rng(rng))
        return Verdict(True, sentence)
    except Wrong as wrong:
        return Verdict(False, wrong.sentence, wrong.table, wrong.tried)
    except NotImplementedError as error:
        place = _place(error, path)
        if place is None:
            raise
        what = f"{place.name} is not written yet: replace `raise NotImplementedError`"
        return Verdict(False, f"{what} in line {place.lineno} of {path.name}.", tried=False)
    except SyntaxError as error:
        file = Path(error.filename or path).name  # or of something that the file imports
        line = f", line {error.lineno}" if error.lineno else ""
        sentence = f"{file}{line}: {error.msg}; Python cannot read this."
        return Verdict(False, sentence, tried=False)
    except BaseException as error:  # pytest's and sys.exit's too
        kind = type(error).__name__
        said = " ".join(str(error).split())[:300]
        said = f"{kind}: {said}" if said else kind
        place = _place(error, path)
        if place is None:
            # Our own code tripped over what the file holds or returned.
            if isinstance(error, KeyboardInterrupt):
                raise
            return Verdict(False, f"{path.name} cannot be judged ({said}).")
        file = Path(place.filename).name  # or an answer beside it, which it uses
        return Verdict(False, f"{file}, line {place.lineno}, in {place.name}: {said}")


def load(path: Path) -> ModuleType:
    """Return a reader's file as a module."""
    spec = importlib.util.spec_from_file_location(f"answer_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for it
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder is the reader's
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


def _place(error: BaseException, path: Path) -> Any:
    """Return the last frame of the traceback in the reader's file or one beside it, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if Path(f.filename).parent == path.parent]
    return mine[-1] if mine else None
