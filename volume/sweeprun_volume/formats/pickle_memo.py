"""Which parts of a pickle have to be kept, for it asks for them again.

A pickle numbers and remembers every part that it writes, and asks for few of them. Looking for the numbers that it may
ask for costs a tenth of reading it; keeping all of its parts costs ten times its size.
"""

from __future__ import annotations

import re
import struct
from array import array
from typing import Callable, Protocol

from .pickle_tokens import Value

WINDOW = 1 << 18
"""Bytes that are looked through at a time."""


class Source(Protocol):
    """Where a pickle lies."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """All of them. May raise."""
        ...


class Held:
    """A pickle in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


_ASKS = re.compile(rb"j(?=(.{4}))", re.DOTALL)
"""LONG_BINGET, and what looks like it inside of texts and numbers: that keeps a part too many, never one too few."""
_ALWAYS = 256
"""Parts that BINGET can ask for."""
BLOCK_BITS = 7


class Memo:
    """Parts by their numbers: those that may be asked for.

    Of each number one byte is kept, the place of its part within those of its block, and of each block where its first
    part is: a pickle of 100,000 tensors has millions of numbers.
    """

    def __init__(self, source: Source, beat: Callable[[], None]) -> None:
        """Raises what `source` and `beat` raise."""
        self.places = bytearray()
        """By number. 0: nobody asks for it; else, once it is there, its place in its block, counted from 1."""
        for begin in range(0, source.size, WINDOW):
            window = source.read(begin, min(WINDOW + 4, source.size - begin))
            # a part is remembered by one of three opcodes: so many there are at most
            numbered = sum(window.count(opcode, 0, WINDOW) for opcode in (b"\x94", b"q", b"r"))
            self.places += bytes(numbered)
            self._ask_for(b"".join(_ASKS.findall(window)))
            beat()
        self.places[:_ALWAYS] = b"\x01" * min(_ALWAYS, len(self.places))
        self.before = array("I", bytes(4 * (1 + (len(self.places) >> BLOCK_BITS))))
        """By block: how many parts are kept before its first one."""
        self.kept: list[Value] = [None]
        """Part `number` is at before[number >> BLOCK_BITS] + places[number]."""
        self._block = -1

    def _ask_for(self, numbers: bytes) -> None:
        places, count = self.places, len(self.places)
        for number in set(struct.unpack(f"<{len(numbers) // 4}I", numbers)):
            if number < count:  # a later one is asked for before it is there
                places[number] = 1

    def keep(self, number: int, value: Value) -> None:
        """The parts come in the order of their numbers."""
        block = number >> BLOCK_BITS
        if block != self._block:
            self._block = block
            self.before[block] = len(self.kept) - 1
        self.places[number] = len(self.kept) - self.before[block]
        self.kept.append(value)

    def replace(self, number: int, value: Value) -> None:
        """Another part gets a number that one had."""
        if self.places[number]:
            self.kept[self.before[number >> BLOCK_BITS] + self.places[number]] = value
