"""One text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    meaning: str
    """What it says: sentences for somebody who reads the word for the first time."""
    advice: str = ""
    """What to do; empty where nothing has to be done."""
