"""Texts of tenants, made harmless for a terminal and a page, and numbers as people read them."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

UNKNOWN = "unknown"
NOTHING = "-"
_PICTURES = 0x2400
_DELETE = "\u2421"
_REPLACEMENT = "\ufffd"
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls (escape sequences), formats (what reverses or hides text), surrogates, line and paragraph separators."""


def neutral(text: str) -> str:
    """The same text, of the same length, that moves no cursor, changes no colour and reverses nothing.

    What is not printable is shown as its control picture, or as a replacement character; line ends become spaces.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_neutral, text))


def _neutral(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if unicodedata.category(character) not in _HARMFUL:
        return character
    if ord(character) < 0x20:
        return chr(_PICTURES + ord(character))
    return _DELETE if character == "\x7f" else _REPLACEMENT


def neutralised(value: Any) -> Any:
    """All texts of a value as JSON has it, keys too."""
    if isinstance(value, str):
        return neutral(value)
    if isinstance(value, list):
        return [neutralised(item) for item in value]
    if isinstance(value, dict):
        return {neutralised(key): neutralised(item) for key, item in value.items()}
    return value


def duration(seconds: float | None) -> str:
    """Two units at most, as 2 min 5 s; `unknown` for None."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds % 1 and seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            count, rest = divmod(whole, size)
            rest //= below
            return f"{count} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def age(since: datetime | None, now: datetime) -> str:
    """As kubectl writes it: 5s, 3m, 2h, 4d."""
    if since is None:
        return UNKNOWN
    seconds = max(0, int((now - since).total_seconds()))
    for size, unit, most in ((1, "s", 120), (60, "m", 120 * 60), (3600, "h", 48 * 3600)):
        if seconds < most:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def moment(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time is not None else UNKNOWN


def number(value: float | None) -> str:
    """With thousands apart; `unknown` for None."""
    return UNKNOWN if value is None else f"{value:,}"


def optional(value: object | None) -> str:
    """For cells of tables, where unknown is the normal case."""
    return NOTHING if value is None else str(value)
