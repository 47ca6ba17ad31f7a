"""Exercises: write the missing lines, and be told at once whether they hold, and if not, why.

`exercises` lists them in their order. `judge` judges a reader's file in a process of its own, with
a limit of time, and returns a `Verdict`. The command ``scratchvae exercise`` keeps a folder of them
with the reader's progress; see `folder`.

To add an exercise, add one file to ``scratchvae/exercises/sheets``: above the line `MARK` what the
reader is given, below it ``exercise``, which judges the answer. ``import scratchvae`` does not load
this package.
"""

from .folder import Folder
from .judging import MARK, Sheet, Verdict, exercises, find, judge, judge_here
from .kinds import Derive, Exercise, Formula, Predict, Repair, Wrong

__all__ = [
    "MARK",
    "Derive",
    "Exercise",
    "Folder",
    "Formula",
    "Predict",
    "Repair",
    "Sheet",
    "Verdict",
    "Wrong",
    "exercises",
    "find",
    "judge",
    "judge_here",
]
