"""The items in a shard of torch.distributed.checkpoint: each a little archive of torch.save."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Callable, Union, overload

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.reasons import RefusalReason

from . import Refused
from .chunks import Span
from .dcp_saved import Interval, shown
from .zip_directory import Source, read_directory

MAX_SPANS = 16_000_000
"""Entries of all archives in one shard: seven are usual."""

_WINDOW = 4096
"""Bytes at either end of an item that are read at once: they hold the archive's directory and most headers."""
_ARCHIVE = b"PK\x03\x04"
_PICKLE = b"\x80"
"""What torch.save wrote before it wrote archives."""
_PROBE = 64


class ItemSpans(Sequence[Span]):
    """Entries of the archives of a shard, in order; a shard may have millions, so each is made when it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._keys: list[str] = []
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._key = array("I")
        self._member = array("I")
        self._offset = array("Q")
        self._size = array("Q")
        self._crc = array("I")

    def begin(self, key: str) -> None:
        """What is added from now on belongs to this item."""
        self._keys.append(key)

    def add(self, member: str, offset: int, size: int, crc: int) -> None:
        """Raises Refused: LIMIT_EXCEEDED."""
        if len(self._crc) >= MAX_SPANS:
            text = f"{self._name}: more than {MAX_SPANS} entries"
            raise Refused(RefusalReason.LIMIT_EXCEEDED, text, entry=self._name)
        self._key.append(len(self._keys) - 1)
        number = self._numbers.setdefault(member, len(self._names))
        if number == len(self._names):
            self._names.append(member)
        self._member.append(number)
        self._offset.append(offset)
        self._size.append(size)
        self._crc.append(crc)

    def __len__(self) -> int:
        return len(self._crc)

    @overload
    def __getitem__(self, index: int) -> Span: ...

    @overload
    def __getitem__(self, index: slice) -> list[Span]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[Span, list[Span]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        entry = f"{self._name}:{shown(self._keys[self._key[index]])}:{self._names[self._member[index]]}"
        return Span(entry, self._offset[index], self._size[index], self._crc[index])


def read_items(
    source: Source, name: str, intervals: Sequence[Interval], beat: Callable[[], None]
) -> tuple[ItemSpans, str]:
    """Directories of the archives in the shard `source`, whose file is called `name`.

    `intervals` follow one another from its first byte to its last. `beat` is called before each; what it raises ends
    it. The second value tells, as a sentence, of items in which damage would go unseen; else it is empty.

    Raises Refused: STRUCTURE, TRUNCATED, LIMIT_EXCEEDED; the entry names the item, the offset is that in the shard.
    """
    spans = ItemSpans(name)
    unchecked = 0
    for interval in intervals:
        beat()
        try:
            unchecked += not _read_item(source, interval, spans)
        except Refused as refused:
            item = f"{name}:{shown(interval.key)}"
            entry = f"{item}:{refused.entry}" if refused.entry else item
            offset = interval.offset + (refused.offset or 0)
            raise Refused(refused.reason, f"{item}: {refused.message}", entry=entry, offset=offset) from None
    if not unchecked:
        return spans, ""
    return spans, f"{unchecked} of {len(intervals)} items of {name} carry no CRCs: damage inside them would go unseen"


def _read_item(source: Source, interval: Interval, spans: ItemSpans) -> bool:
    """Whether it carries CRCs."""
    part = _part_of(source, interval)
    if interval.transformed:
        return False
    if not part.head.startswith(_ARCHIVE):
        _check_raw(part.head, interval)
        return False
    members = [member for member in read_directory(part) if member.size]
    if not any(member.crc for member in members):
        return False  # saved with CRC32 switched off
    spans.begin(interval.key)
    for member in sorted(members, key=lambda item: item.offset):
        spans.add(member.name, interval.offset + member.offset, member.size, member.crc)
    return True


def _check_raw(head: bytes, interval: Interval) -> None:
    """A planner may write what is no tensor as it likes, but nothing begins with zeros; torch.load reads tensors."""
    if interval.tensor and not head.startswith(_PICKLE):
        raise Refused(RefusalReason.STRUCTURE, "no archive of torch.save at its place")
    if not any(head[:_PROBE]):
        raise Refused(RefusalReason.STRUCTURE, "zeros in its place")


@dataclass(frozen=True)
class _Part(Source):
    """An interval of a file, as if it were one."""

    base: int
    head: bytes
    tail: bytes
    """First and last bytes; all that small ones have."""

    def read(self, offset: int, size: int) -> bytes:
        end = offset + size
        if offset < 0 or end > self.size:
            raise Refused(RefusalReason.TRUNCATED, f"byte {end} is needed, the item has {self.size}")
        if end <= len(self.head):
            return self.head[offset:end]
        start = self.size - len(self.tail)
        if offset >= start:
            return self.tail[offset - start : end - start]
        return Source(self.volume, self.descriptor, self.path, self.base + self.size).read(self.base + offset, size)


def _part_of(source: Source, interval: Interval) -> _Part:
    length = interval.length
    if length <= 2 * _WINDOW:
        head = tail = source.read(interval.offset, length)
    else:
        head = source.read(interval.offset, _WINDOW)
        tail = source.read(interval.offset + length - _WINDOW, _WINDOW)
    return _Part(source.volume, source.descriptor, source.path, length, interval.offset, head, tail)
