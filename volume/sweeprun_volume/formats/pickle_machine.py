"""The machine that reads a pickle as tokens: what they are stands in pickle_tokens.

Bytes are read window by window, and only parts that are asked for again are kept (pickle_memo): where somebody takes
what is told in portions, neither the pickle nor that is ever there as a whole.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, Optional

from .pickle_memo import BLOCK_BITS, Held, Memo, Source
from .pickle_tokens import (
    BYTEARRAY,
    DICT,
    FROZENSET,
    KEYWORDS,
    LIST,
    PERSISTENT,
    SET,
    EndsEarlyError,
    Global,
    Limits,
    PickleError,
    TooLargeError,
    Value,
)

SEGMENT = 1 << 18
"""Bytes between two looks at the limits."""
MARGIN = 1 << 16
"""Bytes behind a segment that are there as well: no opcode is longer, but for those that carry a text of any length."""
MAX_LONG_BYTES = 1024
"""Of one number: Python refuses to print larger ones."""
MAX_NAME = 1024
"""Bytes of the name of a module or of a class, where it is a line."""

_MARK, _STOP, _POP, _POP_MARK = 0x28, 0x2E, 0x30, 0x31
_BININT, _BININT1, _BININT2, _LONG1, _LONG4, _BINFLOAT = 0x4A, 0x4B, 0x4D, 0x8A, 0x8B, 0x47
_NONE, _NEWTRUE, _NEWFALSE = 0x4E, 0x88, 0x89
_BINUNICODE, _SHORT_BINUNICODE, _BINUNICODE8 = 0x58, 0x8C, 0x8D
_BINBYTES, _SHORT_BINBYTES, _BINBYTES8, _BYTEARRAY8 = 0x42, 0x43, 0x8E, 0x96
_EMPTY_TUPLE, _TUPLE, _TUPLE1, _TUPLE2, _TUPLE3 = 0x29, 0x74, 0x85, 0x86, 0x87
_EMPTY_LIST, _APPEND, _APPENDS = 0x5D, 0x61, 0x65
_EMPTY_DICT, _SETITEM, _SETITEMS = 0x7D, 0x73, 0x75
_EMPTY_SET, _ADDITEMS, _FROZENSET = 0x8F, 0x90, 0x91
_GLOBAL, _STACK_GLOBAL, _REDUCE, _BUILD, _NEWOBJ, _NEWOBJ_EX = 0x63, 0x93, 0x52, 0x62, 0x81, 0x92
_BINPERSID, _PROTO, _FRAME = 0x51, 0x80, 0x95
_BINGET, _LONG_BINGET, _BINPUT, _LONG_BINPUT, _MEMOIZE = 0x68, 0x6A, 0x71, 0x72, 0x94

_SIZED_TEXT = {_BINUNICODE: 4, _BINUNICODE8: 8, _SHORT_BINUNICODE: 1}
_SIZED_BYTES = {_BINBYTES: 4, _SHORT_BINBYTES: 1, _BINBYTES8: 8, _BYTEARRAY8: 8}
_LONGS = {_LONG1: 1, _LONG4: 4}
_CONSTANTS: dict[int, Value] = {_NONE: None, _NEWTRUE: True, _NEWFALSE: False}
_EMPTY = {_EMPTY_LIST: LIST, _EMPTY_SET: SET}

_INT = struct.Struct("<i")
_UINT = struct.Struct("<I")
_DOUBLE = struct.Struct(">d")


Take = Callable[[str, Value, "list[Value]"], None]
"""Name of an attribute that is a dict, the dict, and keys and values in turns that are put into it."""


def tokenise(data: bytes, *, limits: Limits) -> Value:
    """The value that the pickle stands for; nothing may follow its end.

    Raises PickleError, EndsEarlyError, TooLargeError, and what `limits.beat` raises.
    """
    return _read(Held(data), limits, None)


def tokenise_in_portions(source: Source, take: Take, *, limits: Limits) -> Value:
    """As tokenise; but dicts that are values in the outermost dict, or in the state of the outermost object, stay empty
    and their items are given to `take` as they come, some thousand at a time; so are those of the one dict in a dict of
    one item. What becomes of an item after that is not seen: pickle.dump changes only what holds itself.

    Raises also what `source` and `take` raise.
    """
    return _read(source, limits, take)


def _read(source: Source, limits: Limits, take: Optional[Take]) -> Value:
    if source.size > limits.bytes:
        raise TooLargeError(f"{source.size} bytes, at most {limits.bytes} are read", 0)
    with uncollected():
        return _Machine(source, limits, take).run()


@contextmanager
def uncollected() -> Iterator[None]:
    """Millions of lists are made and none of them is garbage: the collector would look through them for nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _Machine:
    def __init__(self, source: Source, limits: Limits, take: Optional[Take]) -> None:
        self._source = source
        self._limits = limits
        self._give = take
        self._data = b""
        """A window of the source, and `_base`, where it begins there."""
        self._base = 0
        self._at = 0
        """In the window."""
        self._stack: list[Value] = []
        self._below: list[list[Value]] = []
        """Stacks of the marks that are open."""
        self._memo = Memo(source, limits.beat)
        self._remembered = 0
        self._parts = 0
        self._globals: dict[tuple[str, str], Global] = {}
        self._done = False

    def run(self) -> Value:
        try:
            while not self._done:
                self._look_on()
                self._run_segment(self._at + SEGMENT)
                self._check_limits()
        except (IndexError, struct.error):  # of the data, or of the stack
            if self._offset(self._at) >= self._source.size - 8:
                raise self._ends_early() from None
            raise self._error("it takes what is not there", self._at) from None
        except UnicodeDecodeError:
            rest = self._data[self._at :]
            if rest and len(rest) <= rest[0]:  # a short text whose last character was cut
                raise self._ends_early() from None
            raise self._error("a text is no UTF-8", self._at) from None
        if len(self._stack) != 1 or self._below:
            raise self._error(f"it ends with {len(self._stack)} values", self._at)
        if self._offset(self._at) != self._source.size:
            raise self._error("something follows its end", self._at)
        return self._stack[0]

    def _look_on(self) -> None:
        """The window shows a segment and a margin from here."""
        base = self._offset(self._at)
        if base + len(self._data) - self._at < self._source.size and len(self._data) - self._at < SEGMENT + MARGIN:
            self._data = self._source.read(base, min(SEGMENT + MARGIN, self._source.size - base))
            self._base, self._at = base, 0

    def _offset(self, at: int) -> int:
        return self._base + at

    def _error(self, message: str, at: int, kind: type[PickleError] = PickleError) -> PickleError:
        return kind(message, self._offset(at))

    def _ends_early(self) -> PickleError:
        return EndsEarlyError("it ends early", self._source.size)

    def _check_limits(self) -> None:
        limits = self._limits
        if self._parts > limits.parts or self._remembered > limits.parts:
            raise self._error(f"more than {limits.parts} parts", self._at, TooLargeError)
        if len(self._below) > limits.nesting:
            raise self._error(f"more than {limits.nesting} levels", self._at, TooLargeError)
        if len(self._stack) + sum(map(len, self._below)) > limits.stack:
            raise self._error(f"more than {limits.stack} parts wait", self._at, TooLargeError)
        limits.beat()

    def _run_segment(self, stop: int) -> None:  # noqa: C901 - one loop on local variables: it is run for every opcode
        """Ordered by how often DCP's metadata has them. Frequent pairs are taken at once."""
        data, stack, memo, below = self._data, self._stack, self._memo, self._below
        kept, places, before, keep = memo.kept, memo.places, memo.before, memo.keep
        unpack_int, unpack_uint = _INT.unpack_from, _UINT.unpack_from
        push, pop = stack.append, stack.pop
        at, parts, count, nesting = self._at, self._parts, self._remembered, self._limits.nesting
        try:
            while at < stop:
                code = data[at]
                at += 1
                if code == _LONG_BINGET:
                    number = unpack_uint(data, at)[0]
                    if number >= count:
                        raise self._error(f"part {number} is asked for, and is not there", at)
                    push(kept[before[number >> BLOCK_BITS] + places[number]])
                    at += 4
                elif code == _BINGET:
                    push(kept[data[at] + 1])
                    at += 1
                elif code == _BININT1:
                    push(data[at])
                    at += 1
                elif code == _EMPTY_TUPLE:
                    if data[at] == _NEWOBJ:
                        at += 1
                        made = [pop(), (), None]
                        push(made)
                        parts += 1
                        if data[at] == _MEMOIZE:
                            at += 1
                            if places[count]:
                                keep(count, made)
                            count += 1
                    else:
                        push(())
                elif code == _TUPLE1:
                    value: Value = (pop(),)
                    parts += 1
                    if data[at] == _MEMOIZE:
                        at += 1
                        if places[count]:
                            keep(count, value)
                        count += 1
                    if data[at] == _REDUCE:
                        at += 1
                        value = [pop(), value, None]
                        parts += 1
                        if data[at] == _MEMOIZE:
                            at += 1
                            if places[count]:
                                keep(count, value)
                            count += 1
                    push(value)
                elif code == _TUPLE2:
                    last = pop()
                    value = (pop(), last)
                    push(value)
                    parts += 1
                    if data[at] == _MEMOIZE:
                        at += 1
                        if places[count]:
                            keep(count, value)
                        count += 1
                elif code == _EMPTY_DICT:
                    made = [DICT, None, None]
                    push(made)
                    parts += 1
                    if data[at] == _MEMOIZE:
                        at += 1
                        if places[count]:
                            keep(count, made)
                        count += 1
                elif code == _SETITEMS:
                    items = stack
                    self._stack = stack = below.pop()
                    push, pop = stack.append, stack.pop
                    target = stack[-1]
                    if len(items) & 1 or type(target) is not list:
                        raise self._error("no pairs, or nothing to put them in", at)
                    parts += len(items)
                    if len(below) > 1 or not self._gives(target, items):
                        target += items
                elif code == _BUILD:
                    state = pop()
                    target = stack[-1]
                    if type(target) is not list or target[2] is not None:
                        raise self._error("a state for what can have none", at)
                    target[2] = state
                elif code == _MARK:
                    below.append(stack)
                    if len(below) > nesting:
                        raise self._error(f"more than {nesting} levels", at, TooLargeError)
                    self._stack = stack = []
                    push, pop = stack.append, stack.pop
                elif code == _BININT2:
                    push(data[at] | data[at + 1] << 8)
                    at += 2
                elif code == _BININT:
                    push(unpack_int(data, at)[0])
                    at += 4
                    parts += 1
                elif code == _MEMOIZE:
                    if places[count]:
                        keep(count, stack[-1])
                    count += 1
                elif code == _SHORT_BINUNICODE:
                    end = at + 1 + data[at]
                    push(str(data[at + 1 : end], "utf-8", "surrogatepass"))
                    at = end
                    parts += 1
                elif code == _NEWFALSE:
                    push(False)
                elif code == _TUPLE:
                    items = stack
                    self._stack = stack = below.pop()
                    push, pop = stack.append, stack.pop
                    push(tuple(items))
                    parts += len(items) + 1
                elif code == _BINPUT:
                    self._remembered = count
                    at = self._put(data[at], at + 1)
                    count = self._remembered
                elif code in (_REDUCE, _NEWOBJ):
                    last = pop()
                    push([pop(), last, None])
                    parts += 1
                else:
                    self._at, self._parts, self._remembered = at, parts, count
                    if not self._take(code):
                        self._take_rare(code)
                    at, parts, count, stack = self._at, self._parts, self._remembered, self._stack
                    if data is not self._data:
                        return  # a long text: the window begins behind it
                    push, pop = stack.append, stack.pop
                    if self._done:
                        return
        finally:
            self._at, self._parts, self._remembered = at, parts, count

    def _put(self, number: int, at: int) -> int:
        if number > self._remembered:  # pickle numbers them one after the other
            raise self._error(f"part {number} is remembered, {self._remembered} came before", at)
        if number < self._remembered:
            self._memo.replace(number, self._stack[-1])
            return at
        if self._memo.places[number]:
            self._memo.keep(number, self._stack[-1])
        self._remembered += 1
        return at

    def _gives(self, target: list[Value], items: list[Value]) -> bool:
        """Whether somebody takes these keys and values: then the dict stays empty."""
        stack = self._stack
        if self._give is None or target[0] is not DICT or len(stack) < 2 or type(stack[-2]) is not str:
            return False
        self._give(stack[-2], target, items)
        return True

    def _take(self, code: int) -> bool:
        """Opcodes that push something, as often as a part has text or numbers. False: it is none of them."""
        size = _SIZED_TEXT.get(code)
        if size is not None:
            self._push(str(self._sized(size), "utf-8", "surrogatepass"))
            return True
        size = _SIZED_BYTES.get(code)
        if size is not None:
            raw = self._sized(size)
            self._push([BYTEARRAY, raw, None] if code == _BYTEARRAY8 else raw)
            return True
        size = _LONGS.get(code)
        if size is not None:
            raw = self._sized(size)
            if len(raw) > MAX_LONG_BYTES:
                raise self._error(f"a number of {len(raw)} bytes", self._at, TooLargeError)
            self._push(int.from_bytes(raw, "little", signed=True))
            return True
        if code in _CONSTANTS:
            self._stack.append(_CONSTANTS[code])
            return True
        if code in _EMPTY:
            self._push([_EMPTY[code], None, None])
            return True
        return False

    def _take_rare(self, code: int) -> None:  # noqa: C901 - one case for each opcode
        stack = self._stack
        if code == _APPEND:
            item = stack.pop()
            self._target().append(item)
            self._parts += 1
        elif code in (_APPENDS, _ADDITEMS):
            items = self._close()
            self._target().extend(items)
            self._parts += len(items)
        elif code == _SETITEM:
            value, key = stack.pop(), stack.pop()
            target = self._target()
            if len(self._below) > 1 or not self._gives(target, [key, value]):
                target.extend((key, value))
            self._parts += 2
        elif code == _FROZENSET:
            items = self._close()
            self._parts += len(items)
            self._push([FROZENSET, None, None, *items])
        elif code == _TUPLE3:
            third, second, first = stack.pop(), stack.pop(), stack.pop()
            self._push((first, second, third))
        elif code == _NEWOBJ_EX:
            keywords, arguments, called = stack.pop(), stack.pop(), stack.pop()
            self._push([[KEYWORDS, called, keywords], arguments, None])
        elif code == _BINFLOAT:
            self._push(_DOUBLE.unpack_from(self._data, self._at)[0])
            self._at += 8
        elif code == _STACK_GLOBAL:
            name, module = stack.pop(), stack.pop()
            self._push_global(module, name)
        elif code == _GLOBAL:
            module, name = self._line(), self._line()
            self._push_global(module, name)
        elif code == _BINPERSID:
            self._push([PERSISTENT, stack.pop(), None])
        elif code == _LONG_BINPUT:
            self._at = self._put(_UINT.unpack_from(self._data, self._at)[0], self._at + 4)
        elif code == _POP:
            if stack:
                stack.pop()
            else:
                self._close()
        elif code == _POP_MARK:
            self._close()
        elif code == _FRAME:
            self._at += 8
        elif code == _PROTO:
            if not 2 <= self._data[self._at] <= 5:
                raise self._error(f"protocol {self._data[self._at]}, 2 to 5 are read", self._at)
            self._at += 1
        elif code == _STOP:
            self._done = True
        else:
            raise self._error(f"opcode 0x{code:02x} is none that pickle.dump writes with protocol 2 to 5", self._at)

    def _push(self, value: Value) -> None:
        self._stack.append(value)
        self._parts += 1

    def _close(self) -> list[Value]:
        """What was pushed since the last mark."""
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _target(self) -> list[Value]:
        target = self._stack[-1]
        if type(target) is not list:
            raise self._error("items for what can have none", self._at)
        return target

    def _sized(self, size: int) -> bytes:
        """Bytes after their number, which has `size` bytes itself."""
        begin = self._at + size
        count = int.from_bytes(self._data[self._at : begin], "little")
        end = begin + count
        if self._offset(end) > self._source.size:
            raise self._ends_early()
        self._at = end
        if end <= len(self._data):
            return self._data[begin:end]
        data = self._source.read(self._offset(begin), count)
        self._look_on()
        return data

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + MAX_NAME)
        if end < 0:
            if self._at + MAX_NAME > len(self._data):
                raise self._ends_early()
            raise self._error(f"a name of more than {MAX_NAME} bytes", self._at, TooLargeError)
        line = self._data[self._at : end]
        self._at = end + 1
        return str(line, "utf-8")

    def _push_global(self, module: Value, name: Value) -> None:
        if type(module) is not str or type(name) is not str:
            raise self._error("a class that is not told by two texts", self._at)
        self._push(self._globals.setdefault((module, name), Global(module, name)))
