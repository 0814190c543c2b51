"""Pickles read as data: a stack machine that imports nothing, calls nothing and builds no object of the pickle's wish.

It reads what pickle.dump writes with protocol 2 to 5, in time and memory bounded by Limits. What a pickle would call
becomes a list of Python that tells of the call:

    list, set, frozenset [LIST, None, None, item, ...], [SET, ...], [FROZENSET, ...]
    dict                 [DICT, None, None, key, value, key, value, ...]
    bytearray            [BYTEARRAY, bytes, None]
    an object            [what would be called, its arguments, its state or None, item or key, value, ...]
    called by keywords   [[KEYWORDS, what would be called, keywords], its arguments, ...]
    a persistent id      [PERSISTENT, the id, None]
    a class, a function  Global(module, name), one for each name
    tuples, texts, bytes, numbers, truth values, None: themselves

Parts may be shared, and hold themselves: whoever walks through them bounds the walk. Hashing or comparing a tuple of
them is not bounded, a tuple of tuples that are shared has exponentially many paths: ask for the type of each first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, Optional

from sweeprun_protocol.frozen import dataclass

Value = Any
"""One of the above."""


class PickleError(Exception):
    """The bytes are no pickle of this kind; `offset` of the byte after the one that was wrong."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} (at byte {offset})")
        self.offset = offset


class EndsEarlyError(PickleError):
    """The bytes end before the pickle does."""


class TooLargeError(PickleError):
    """It is larger than the limits allow."""


class Tag:
    """The kind of a part, first in its list; no pickle can name one."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


LIST = Tag("LIST")
DICT = Tag("DICT")
SET = Tag("SET")
FROZENSET = Tag("FROZENSET")
BYTEARRAY = Tag("BYTEARRAY")
PERSISTENT = Tag("PERSISTENT")
KEYWORDS = Tag("KEYWORDS")

FIRST = 3
"""Index of the first item in a list that stands for a part."""


class Global:
    """What the pickle would import."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __repr__(self) -> str:
        return f"{self.module}.{self.name}"


def _unwatched() -> None:
    """Default of `beat`."""


@dataclass(frozen=True)
class Limits:
    bytes: int = 256 << 20
    """Of the pickle."""
    parts: int = 1 << 27
    """Containers, objects, texts, and items in containers, all together: bounds the memory."""
    nesting: int = 1000
    """Marks that are open at a time; pickle itself recurses as deep."""
    stack: int = 1 << 22
    """Parts that wait at a time."""
    beat: Callable[[], None] = _unwatched
    """Called after every SEGMENT bytes; may raise, to end it."""


def items_of(value: Value, kind: Tag = LIST) -> Optional[list[Value]]:
    """Items of a list or set; None where it is none."""
    return value[FIRST:] if type(value) is list and value[0] is kind else None


def pairs_of(value: Value) -> Optional[Iterator[tuple[Value, Value]]]:
    """Keys and values of a dict in their order, a key as often as it was set; None where it is none."""
    if type(value) is not list or value[0] is not DICT:
        return None
    rest = iter(value)
    for _ in range(FIRST):
        next(rest)
    return zip(rest, rest)
