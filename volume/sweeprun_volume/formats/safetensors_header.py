"""The header of a .safetensors file: which tensors it holds, and that they tile the rest of the file exactly.

Layout (safetensors 0.8, README "Format"): 8 bytes little-endian length n, n bytes of JSON, then the tensors' bytes. The
loader refuses holes, overlaps and a file that is longer or shorter, and so does this.
"""

from __future__ import annotations

import re
import struct
from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import MAX_STEP
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import Volume

from . import Context, Refused
from .foreign_json import Cursor
from .zip_directory import Source

SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 100_000_000
"""The loader's own bound for one file; here for all files of a checkpoint together."""
MAX_TENSORS = 1_000_000
"""Of all files of a checkpoint together."""
MAX_DIMENSIONS = 64
MAX_METADATA = 100_000
"""Entries of `__metadata__`."""

METADATA = "__metadata__"
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of one element, by the names of safetensors 0.8."""

_LENGTH = struct.Struct("<Q")
_N = rb"(?:0|[1-9][0-9]{0,14})"
_USUAL = re.compile(
    rb'\{"dtype":"([A-Z0-9_]{1,16})","shape":\[((?:' + _N + rb",){0,8}" + _N + rb"|)\],"
    rb'"data_offsets":\[(' + _N + rb"),(" + _N + rb")\]\}"
)
"""A tensor as the library writes it."""
_STEP_KEYS = ("step", "global_step")
_STEP = re.compile(r"[0-9]{1,12}")
_LOOK_BYTES = 64 << 10
"""Of a header, where only the step is wanted: `__metadata__` comes first."""


@dataclass(frozen=True)
class Header:
    names: list[str]
    """Of the tensors."""
    tensor_bytes: int
    size: int
    """Bytes of the file."""
    mtime_ns: int


class Headers:
    """Reads the headers of one checkpoint's files within the bounds that they have together."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bytes_left = MAX_HEADER_BYTES
        self._tensors_left = MAX_TENSORS

    def read(self, place: str, name: str) -> Header:
        """`place`: the file from the volume's root. `name`: as messages tell it, empty where it is the checkpoint.

        Raises Refused, OutOfTimeError, VolumeError.
        """
        entry = name or None
        try:
            with self._context.volume.open_file(place) as (descriptor, facts):
                source = Source(self._context.volume, descriptor, place, facts.size)
                length = _header_length(source)
                if length > self._bytes_left:
                    text = f"headers of more than {MAX_HEADER_BYTES} bytes (this one: {length})"
                    raise Refused(RefusalReason.LIMIT_EXCEEDED, text)
                text_read = source.read(_LENGTH.size, length)
        except FileNotFoundError:
            raise Refused(RefusalReason.FILE_MISSING, "the file vanished before it was read", entry=entry) from None
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=entry) from None
        except Refused as refused:
            text = f"{name}: {refused.message}" if name else refused.message
            raise Refused(refused.reason, text, entry=entry, offset=refused.offset) from None
        self._bytes_left -= length
        names, intervals = self._tensors(Cursor(name, text_read, self._context.deadline, base=_LENGTH.size))
        self._tensors_left -= len(names)
        tensor_bytes = facts.size - _LENGTH.size - length
        _check_tiling(name, intervals, tensor_bytes)
        return Header(names, tensor_bytes, facts.size, facts.mtime_ns)

    def _tensors(self, cursor: Cursor) -> tuple[list[str], list[int]]:
        names: list[str] = []
        intervals: list[int] = []
        for name in cursor.members(self._tensors_left + 1):
            if name == METADATA:
                for _ in cursor.members(MAX_METADATA):
                    if not cursor.next_is_string():
                        cursor.refuse("__metadata__ maps to something other than a string")
                    cursor.skip()
            else:
                names.append(name)
                intervals.append(_interval(cursor, name))
        cursor.end()
        return names, intervals


def step_inside(volume: Volume, place: str) -> int:
    """From `__metadata__`; 0 where the file does not say: it is then older than every one that does."""
    try:
        with volume.open_file(place) as (descriptor, facts):
            source = Source(volume, descriptor, place, facts.size)
            length = min(_header_length(source), _LOOK_BYTES)
            return _step_of(Cursor("", source.read(_LENGTH.size, length)))
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return 0  # not judged here: whoever is first in line is checked whole


def _step_of(cursor: Cursor) -> int:
    for name in cursor.members(1):
        if name != METADATA:
            break
        steps = {}
        for key in cursor.members(MAX_METADATA):
            if key in _STEP_KEYS:
                steps[key] = cursor.string()
            else:
                cursor.skip()
        for key in _STEP_KEYS:
            if _STEP.fullmatch(steps.get(key, "")) and int(steps[key]) <= MAX_STEP:
                return int(steps[key])
        break
    return 0


def _header_length(source: Source) -> int:
    (length,) = _LENGTH.unpack(source.read(0, _LENGTH.size))
    if length > MAX_HEADER_BYTES:
        text = f"a header of {length} bytes, the format allows {MAX_HEADER_BYTES}: damaged, or no safetensors file"
        raise Refused(RefusalReason.LIMIT_EXCEEDED, text)
    if length < 2 or source.read(_LENGTH.size, 1) != b"{":
        raise Refused(RefusalReason.UNKNOWN_FORMAT, "no safetensors file: its header does not begin with {")
    return int(length)


def _interval(cursor: Cursor, name: str) -> int:
    """Begin and end of a tensor's bytes as begin << 64 | end: a million of them take a third of what pairs take."""
    usual = cursor.match(_USUAL)
    if usual is None:
        dtype, elements, begin, end = _read_tensor(cursor, name)
    else:
        dtype, elements = usual.group(1).decode(), 1
        for size in filter(None, usual.group(2).split(b",")):
            elements *= int(size)
        begin, end = int(usual.group(3)), int(usual.group(4))
    if dtype not in BITS:
        cursor.refuse(f"tensor {ascii(name)[:80]} has the unknown dtype {ascii(dtype)[:80]}")
    if end < begin:
        cursor.refuse(f"tensor {ascii(name)[:80]} ends before it begins")
    if elements * BITS[dtype] != (end - begin) * 8:
        cursor.refuse(f"tensor {ascii(name)[:80]}: {elements} elements of {dtype} do not take {end - begin} bytes")
    return begin << 64 | end


def _read_tensor(cursor: Cursor, name: str) -> tuple[str, int, int, int]:
    """(dtype, elements, begin, end), whatever the order and the spaces between them."""
    dtype: Optional[str] = None
    elements: Optional[int] = None
    begin = end = -1
    for key in cursor.members(8):
        if key == "dtype":
            dtype = cursor.string()
        elif key == "shape":
            elements = 1
            for _ in cursor.items(MAX_DIMENSIONS):
                elements *= cursor.integer()
        elif key == "data_offsets":
            offsets = [cursor.integer() for _ in cursor.items(2)]
            begin, end = offsets if len(offsets) == 2 else (-1, -1)
        else:
            cursor.refuse(f"tensor {ascii(name)[:80]} has the unknown field {ascii(key)[:80]}")
    if dtype is None or elements is None or begin < 0:
        cursor.refuse(f"tensor {ascii(name)[:80]} lacks its dtype, its shape or its offsets")
    return dtype, elements, begin, end


def _check_tiling(name: str, intervals: list[int], available: int) -> None:
    """From 0 to the end of the file without hole and overlap."""
    label = f"{name}: " if name else ""
    at = 0
    for interval in sorted(intervals):
        begin, end = interval >> 64, interval & ((1 << 64) - 1)
        if begin != at:
            what = "a hole before" if begin > at else "an overlap at"
            text = f"{label}{what} byte {max(begin, at)} of the tensors' data"
            raise Refused(RefusalReason.STRUCTURE, text, entry=name or None)
        at = end
    if at > available:
        text = f"{label}its tensors need {at} bytes, the file holds {available}: it was cut off"
        raise Refused(RefusalReason.TRUNCATED, text, entry=name or None)
    if at < available:
        text = f"{label}{available - at} bytes follow the last tensor"
        raise Refused(RefusalReason.STRUCTURE, text, entry=name or None)
