"""Pairs that the checker was not tuned on: they were written after it."""

from __future__ import annotations

from corpus import Corpus

HELD_OUT = Corpus()
