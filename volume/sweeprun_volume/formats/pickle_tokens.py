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

import gc
import struct
from collections.abc import Iterator
from contextlib import contextmanager
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


SEGMENT = 1 << 18
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


def tokenise(data: bytes, *, limits: Limits) -> Value:
    """The value that the pickle stands for; nothing may follow its end.

    Raises PickleError, EndsEarlyError, TooLargeError, and what `limits.beat` raises.
    """
    if len(data) > limits.bytes:
        raise TooLargeError(f"{len(data)} bytes, at most {limits.bytes} are read", 0)
    with uncollected():
        return _Machine(data, limits).run()


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
    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._at = 0
        self._stack: list[Value] = []
        self._below: list[list[Value]] = []
        """Stacks of the marks that are open."""
        self._memo: list[Value] = []
        self._parts = 0
        self._globals: dict[tuple[str, str], Global] = {}
        self._done = False

    def run(self) -> Value:
        try:
            while not self._done:
                self._run_segment(self._at + SEGMENT)
                self._check_limits()
        except (IndexError, struct.error):  # of the data, or of the stack or memo
            if self._at >= len(self._data) - 8:
                raise EndsEarlyError("it ends early", len(self._data)) from None
            raise PickleError("it takes what is not there", self._at) from None
        except UnicodeDecodeError:
            rest = self._data[self._at :]
            if rest and len(rest) <= rest[0]:  # a short text whose last character was cut
                raise EndsEarlyError("it ends early", len(self._data)) from None
            raise PickleError("a text is no UTF-8", self._at) from None
        if len(self._stack) != 1 or self._below:
            raise PickleError(f"it ends with {len(self._stack)} values", self._at)
        if self._at != len(self._data):
            raise PickleError("something follows its end", self._at)
        return self._stack[0]

    def _check_limits(self) -> None:
        limits = self._limits
        if self._parts > limits.parts or len(self._memo) > limits.parts:
            raise TooLargeError(f"more than {limits.parts} parts", self._at)
        if len(self._below) > limits.nesting:
            raise TooLargeError(f"more than {limits.nesting} levels", self._at)
        if len(self._stack) + sum(map(len, self._below)) > limits.stack:
            raise TooLargeError(f"more than {limits.stack} parts wait", self._at)
        limits.beat()

    def _run_segment(self, stop: int) -> None:  # noqa: C901 - one loop on local variables: it is run for every opcode
        """Ordered by how often DCP's metadata has them. Frequent pairs are taken at once."""
        data, memo, stack = self._data, self._memo, self._stack
        unpack_int, unpack_uint = _INT.unpack_from, _UINT.unpack_from
        remember, push, pop = memo.append, stack.append, stack.pop
        at, parts, nesting = self._at, self._parts, self._limits.nesting
        try:
            while at < stop:
                code = data[at]
                at += 1
                if code == _LONG_BINGET:
                    push(memo[unpack_uint(data, at)[0]])
                    at += 4
                elif code == _BINGET:
                    push(memo[data[at]])
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
                            remember(made)
                            at += 1
                    else:
                        push(())
                elif code == _TUPLE1:
                    value: Value = (pop(),)
                    parts += 1
                    if data[at] == _MEMOIZE:
                        remember(value)
                        at += 1
                    if data[at] == _REDUCE:
                        at += 1
                        value = [pop(), value, None]
                        parts += 1
                        if data[at] == _MEMOIZE:
                            remember(value)
                            at += 1
                    push(value)
                elif code == _TUPLE2:
                    last = pop()
                    value = (pop(), last)
                    push(value)
                    parts += 1
                    if data[at] == _MEMOIZE:
                        remember(value)
                        at += 1
                elif code == _EMPTY_DICT:
                    made = [DICT, None, None]
                    push(made)
                    parts += 1
                    if data[at] == _MEMOIZE:
                        remember(made)
                        at += 1
                elif code == _SETITEMS:
                    items = stack
                    self._stack = stack = self._below.pop()
                    push, pop = stack.append, stack.pop
                    target = stack[-1]
                    if len(items) & 1 or type(target) is not list:
                        raise PickleError("no pairs, or nothing to put them in", at)
                    target += items
                    parts += len(items)
                elif code == _BUILD:
                    state = pop()
                    target = stack[-1]
                    if type(target) is not list or target[2] is not None:
                        raise PickleError("a state for what can have none", at)
                    target[2] = state
                elif code == _MARK:
                    self._below.append(stack)
                    if len(self._below) > nesting:
                        raise TooLargeError(f"more than {nesting} levels", at)
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
                    remember(stack[-1])
                elif code == _SHORT_BINUNICODE:
                    end = at + 1 + data[at]
                    push(str(data[at + 1 : end], "utf-8", "surrogatepass"))
                    at = end
                    parts += 1
                elif code == _NEWFALSE:
                    push(False)
                elif code == _TUPLE:
                    items = stack
                    self._stack = stack = self._below.pop()
                    push, pop = stack.append, stack.pop
                    push(tuple(items))
                    parts += len(items) + 1
                elif code == _BINPUT:
                    at = self._put(data[at], at + 1)
                elif code in (_REDUCE, _NEWOBJ):
                    last = pop()
                    push([pop(), last, None])
                    parts += 1
                else:
                    self._at, self._parts = at, parts
                    if not self._take(code):
                        self._take_rare(code)
                    at, parts, stack = self._at, self._parts, self._stack
                    push, pop = stack.append, stack.pop
                    if self._done:
                        return
        finally:
            self._at, self._parts = at, parts

    def _put(self, index: int, at: int) -> int:
        if index == len(self._memo):
            self._memo.append(self._stack[-1])
        elif index < len(self._memo):
            self._memo[index] = self._stack[-1]
        else:  # pickle numbers them one after the other
            raise PickleError(f"part {index} is remembered, {len(self._memo)} came before", at)
        return at

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
                raise TooLargeError(f"a number of {len(raw)} bytes", self._at)
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
            self._target().extend((key, value))
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
                raise PickleError(f"protocol {self._data[self._at]}, 2 to 5 are read", self._at)
            self._at += 1
        elif code == _STOP:
            self._done = True
        else:
            raise PickleError(f"opcode 0x{code:02x} is none that pickle.dump writes with protocol 2 to 5", self._at)

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
            raise PickleError("items for what can have none", self._at)
        return target

    def _sized(self, size: int) -> bytes:
        """Bytes after their number, which has `size` bytes itself."""
        begin = self._at + size
        end = begin + int.from_bytes(self._data[self._at : begin], "little")
        if end > len(self._data):
            raise EndsEarlyError("it ends early", len(self._data))
        self._at = end
        return self._data[begin:end]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + MAX_NAME)
        if end < 0:
            if self._at + MAX_NAME > len(self._data):
                raise EndsEarlyError("it ends early", len(self._data))
            raise TooLargeError(f"a name of more than {MAX_NAME} bytes", self._at)
        line = self._data[self._at : end]
        self._at = end + 1
        return str(line, "utf-8")

    def _push_global(self, module: Value, name: Value) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError("a class that is not told by two texts", self._at)
        self._push(self._globals.setdefault((module, name), Global(module, name)))
