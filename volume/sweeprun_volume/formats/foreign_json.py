"""JSON that others wrote, read with a cursor: nothing larger than one name or number is built.

json.loads makes 24 bytes of objects out of one byte of text such as `{},`, so that a bound on the text alone bounds
nothing: a header of 100 MB would need more memory than prepare has. NaN and Infinity are let pass where a value is not
looked at: Python writes them, and Trainer logs them.
"""

from __future__ import annotations

import codecs
import json
import posixpath
import re
from collections.abc import Iterator
from typing import NoReturn, Optional

from sweeprun_protocol.codec import MAX_INTEGER
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.clock import Deadline
from sweeprun_volume.errors import UnsafeEntryError

from . import Context, Refused

MAX_DEPTH = 64
"""Deepest nesting that is followed."""
MAX_NAME = 1024
"""Characters of a key or a string that is looked at."""
MAX_DOCUMENT_BYTES = 8 << 20
"""Of a document that nothing is taken from: a larger one (a tokenizer's merges, say) is not parsed."""

_S = rb"[ \t\n\r]*"
_PLAIN = rb'"[^"\\\x00-\x1f]*"'
_SIMPLE = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity"
_SPACE = re.compile(_S)
_PLAIN_STRING = re.compile(_PLAIN)
_SCALAR = re.compile(_SIMPLE)
_FLAT = {
    b"}": re.compile(_S + _PLAIN + _S + rb":" + _S + rb"(?:" + _PLAIN + rb"|" + _SIMPLE + rb")" + _S + rb","),
    b"]": re.compile(_S + rb"(?:" + _PLAIN + rb"|" + _SIMPLE + rb")" + _S + rb","),
}
"""A member of an object and an item of an array that have another one behind them: one match instead of eight steps."""
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]{0,15})(?![0-9.eE])")
_CHECK_EVERY = 4096
"""Values between two looks at the time."""


class Cursor:
    """Stands before a value of `text`; every method moves it behind what it read.

    Raises Refused: TRUNCATED where the text ends too early, STRUCTURE, LIMIT_EXCEEDED; OutOfTimeError.
    """

    def __init__(self, name: str, text: bytes, deadline: Optional[Deadline] = None, *, base: int = 0) -> None:
        """`name`: the file as messages tell it, empty for the checkpoint itself; `base`: offset of the text in it."""
        self._deadline = deadline
        self._name = name
        self._text = text
        self._base = base
        self._at = 0
        self._values = 0
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for begin in range(0, len(text), 1 << 20):
                decoder.decode(text[begin : begin + (1 << 20)])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            self.refuse("not UTF-8")

    def refuse(self, what: str, reason: RefusalReason = RefusalReason.STRUCTURE) -> NoReturn:
        offset = self._base + self._at
        text = f"{self._name or 'the file'}: {what} at byte {offset}"
        raise Refused(reason, text, entry=self._name or None, offset=offset)

    def members(self, most: int) -> Iterator[str]:
        """Keys of an object; the caller moves the cursor behind each one's value. A key may stand there once."""
        self._take(b"{")
        if self._peek() == b"}":
            self._at += 1
            return
        seen: set[str] = set()
        while True:
            key = self.string()
            if key in seen:
                self.refuse(f"{ascii(key)[:80]} is there twice")
            seen.add(key)
            if len(seen) > most:
                self.refuse(f"more than {most} keys", RefusalReason.LIMIT_EXCEEDED)
            self._take(b":")
            yield key
            if self._peek() != b",":
                break
            self._at += 1
        self._take(b"}")

    def items(self, most: int) -> Iterator[None]:
        """Once before each item of an array."""
        self._take(b"[")
        if self._peek() == b"]":
            self._at += 1
            return
        for _ in range(most):
            yield None
            if self._peek() != b",":
                self._take(b"]")
                return
            self._at += 1
        self.refuse(f"more than {most} items", RefusalReason.LIMIT_EXCEEDED)

    def string(self, most: int = MAX_NAME) -> str:
        begin = self._begin_value()
        plain = _PLAIN_STRING.match(self._text, begin)
        if plain is not None and plain.end() - begin <= most:
            self._at = plain.end()
            return self._text[begin + 1 : self._at - 1].decode()
        self._skip_string()
        if self._at - begin > 6 * most + 2:  # an escape has at most six bytes to a character
            self.refuse(f"a string of more than {most} characters", RefusalReason.LIMIT_EXCEEDED)
        try:
            value = str(json.loads(self._text[begin : self._at]))
            value.encode()  # a lone surrogate is no text
        except ValueError:
            self.refuse("not a string")
        if len(value) > most:
            self.refuse(f"a string of more than {most} characters", RefusalReason.LIMIT_EXCEEDED)
        return value

    def integer(self) -> int:
        """0 to MAX_INTEGER."""
        begin = self._begin_value()
        match = _INTEGER.match(self._text, begin)
        if match is None or not 0 <= int(match.group()) <= MAX_INTEGER:
            self.refuse(f"no integer between 0 and {MAX_INTEGER}")
        self._at = match.end()
        return int(match.group())

    def number(self) -> float:
        begin = self._begin_value()
        match = _SCALAR.match(self._text, begin)
        try:
            value = float(match.group()) if match is not None else None
        except ValueError:
            value = None
        if match is None or value is None:
            self.refuse("no number")
        self._at = match.end()
        return value

    def match(self, pattern: re.Pattern[bytes]) -> Optional[re.Match[bytes]]:
        """Past what `pattern` matches at the cursor, which is JSON of the form that writers usually choose."""
        match = pattern.match(self._text, self._begin_value())
        if match is not None:
            self._at = match.end()
        return match

    def next_is_string(self) -> bool:
        return self._peek() == b'"'

    def skip(self) -> None:
        """Past a value of any kind; its grammar is checked."""
        closers: list[bytes] = []
        while True:
            if self._skip_opening(closers):
                continue
            while closers and self._peek() == closers[-1]:
                closers.pop()
                self._at += 1
            if not closers:
                return
            self._take(b",")
            self._skip_flat(closers[-1])

    def end(self) -> None:
        if self._peek():
            self.refuse("something follows the JSON value")

    # -- parts -----------------------------------------------------------------------------------------------------

    def _skip_opening(self, closers: list[bytes]) -> bool:
        """True where an object or array with content was entered, False where a value is behind the cursor."""
        begin = self._begin_value()
        first = self._text[begin : begin + 1]
        if first == b'"':
            self._skip_string()
            return False
        if first not in (b"{", b"["):
            match = _SCALAR.match(self._text, begin)
            if match is None:
                self.refuse("no JSON value")
            self._at = match.end()
            return False
        if len(closers) >= MAX_DEPTH:
            self.refuse(f"nested deeper than {MAX_DEPTH} levels", RefusalReason.LIMIT_EXCEEDED)
        self._at += 1
        closers.append(b"}" if first == b"{" else b"]")
        if self._peek() == closers[-1]:
            closers.pop()
            self._at += 1
            return False
        self._skip_flat(closers[-1])
        return True

    def _skip_flat(self, closer: bytes) -> None:
        """From behind a comma to the next value that is not simple, or is the last one."""
        pattern = _FLAT[closer]
        while True:
            match = pattern.match(self._text, self._at)
            if match is None:
                break
            self._at = match.end()
            self._count()
        if closer == b"}":
            self._skip_key()

    def _skip_key(self) -> None:
        if not self.next_is_string():
            self.refuse("no key")
        self._skip_string()
        self._take(b":")

    def _begin_value(self) -> int:
        self._count()
        if not self._peek():
            self.refuse("the JSON text ends too early", RefusalReason.TRUNCATED)
        return self._at

    def _count(self) -> None:
        self._values += 1
        if self._deadline is not None and self._values % _CHECK_EVERY == 0:
            self._deadline.check()

    def _skip_string(self) -> None:
        plain = _PLAIN_STRING.match(self._text, self._at)
        if plain is not None:
            self._at = plain.end()
            return
        if self._peek() != b'"':
            self.refuse("no string")
        quote = self._at
        while True:
            quote = self._text.find(b'"', quote + 1)
            if quote < 0:
                self.refuse("a string without end", RefusalReason.TRUNCATED)
            before = quote
            while self._text[before - 1] == 0x5C:  # backslashes: an odd number of them escapes the quote
                before -= 1
            if (quote - before) % 2 == 0:
                break
        self._at = quote + 1

    def _peek(self) -> bytes:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _take(self, token: bytes) -> None:
        found = self._peek()
        if not found:
            self.refuse("the JSON text ends too early", RefusalReason.TRUNCATED)
        if found != token:
            self.refuse(f"{token.decode()} is missing")
        self._at += 1


def open_document(context: Context, place: str, name: str, *, limit: int) -> Cursor:
    """Before the value of the file `name` of the checkpoint at `place`. Raises Refused, VolumeError."""
    path = posixpath.join(place, name)
    try:
        facts = context.volume.facts(path)
        if facts is not None and facts.size > limit:
            text = f"{name} has {facts.size} bytes, more than the {limit} allowed"
            raise Refused(RefusalReason.LIMIT_EXCEEDED, text, entry=name)
        text_read = context.volume.read(path, limit=limit)
    except UnsafeEntryError as error:
        raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=name) from None
    if text_read is None:
        raise Refused(RefusalReason.FILE_MISSING, f"{name} is missing", entry=name)
    return Cursor(name, text_read, context.deadline)


def check_document(context: Context, place: str, name: str, size: int) -> None:
    """That it is one JSON value, where it is not too large to be asked."""
    if size > MAX_DOCUMENT_BYTES:
        return
    cursor = open_document(context, place, name, limit=MAX_DOCUMENT_BYTES)
    cursor.skip()
    cursor.end()
