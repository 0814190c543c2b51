"""Files that are to be read whole, cut into chunks, and what the bytes of a chunk add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional, Protocol

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.manifest import CHUNK
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.crc import crc32
from sweeprun_volume.hashing import new_digest

from . import Refused


@dataclass(frozen=True)
class Span:
    """Consecutive bytes of a file with a checksum of their own."""

    __slots__ = ("crc", "entry", "offset", "size")  # an archive may have a hundred thousand entries

    entry: str
    """As messages name it."""
    offset: int
    size: int
    crc: int
    """CRC-32 that they must have."""


@dataclass(frozen=True)
class Plan:
    """A file that is to be read whole."""

    path: str
    """From the volume's root."""
    name: str
    """Relative to the checkpoint, or the file's name where it is the checkpoint."""
    size: int
    mtime_ns: int
    spans: Sequence[Span] = ()
    """In order of their offsets, without overlap."""
    expected: Optional[Sequence[str]] = None
    """Chunk digests that it must have, where somebody knows them."""


def count_chunks(size: int) -> int:
    return -(-size // CHUNK)


@dataclass(frozen=True)
class Chunk:
    """What one thread reads at a time; an empty file has one as well, for it has to be opened."""

    plan: int
    index: int
    start: int
    end: int
    first: int
    """Index of the first span that reaches into it; `last` is behind the last one."""
    last: int


def cut(plans: Sequence[Plan]) -> Iterator[Chunk]:
    for number, plan in enumerate(plans):
        first = 0
        for index in range(max(1, count_chunks(plan.size))):
            start = index * CHUNK
            end = min(start + CHUNK, plan.size)
            last = first
            while last < len(plan.spans) and _reaches(plan.spans[last], end):
                last += 1
            yield Chunk(number, index, start, end, first, last)
            first = last - 1 if last > first and end_of(plan.spans[last - 1]) > end else last


def chunks_of(span: Span) -> tuple[int, int]:
    """The first and the last chunk that hold bytes of a span that is not empty."""
    return span.offset // CHUNK, (end_of(span) - 1) // CHUNK


def end_of(span: Span) -> int:
    return span.offset + span.size


def _reaches(span: Span, end: int) -> bool:
    """An empty one at the very end of a chunk belongs to it: there may be none behind."""
    return span.offset < end or end_of(span) <= end


def misplaced(plan: Plan) -> Optional[Refused]:
    behind = 0
    for span in plan.spans:
        if span.offset < behind or span.size < 0:
            text = f"{span.entry} reaches into the one before"
            return Refused(RefusalReason.STRUCTURE, text, entry=span.entry, offset=span.offset)
        behind = end_of(span)
        if behind > plan.size:
            text = f"{span.entry} ends at byte {behind} of {plan.size}"
            return Refused(RefusalReason.TRUNCATED, text, entry=span.entry, offset=span.offset)
    return None


class Sink(Protocol):
    """Takes what the bytes of a chunk add up to."""

    def compare(self, plan: int, span: Span, found: int) -> None: ...

    def take_part(self, chunk: Chunk, number: int, crc: int, size: int) -> None: ...

    def take_digest(self, chunk: Chunk, digest: str) -> None: ...


class Sums:
    """What the bytes of a chunk add up to, piece by piece: a CRC for those of each span, one digest for all others.

    Each byte is summed once. The CRCs that the spans must have lie in the file too (in an archive's directory), and in
    no span: of a file whose spans are as they must be, the digest stands for all of its bytes.
    """

    def __init__(self, sink: Sink, plan: Plan, chunk: Chunk, algorithm: str) -> None:
        self._sink = sink
        self._plan = plan
        self._chunk = chunk
        self._digest = new_digest(algorithm)
        self._span = chunk.first
        self._crc = 0
        self.at = chunk.start
        """Offset up to which the chunk was taken."""

    def take(self, piece: memoryview) -> None:
        spans, chunk = self._plan.spans, self._chunk
        begin = at = self.at
        self.at = end = begin + len(piece)
        while self._span < chunk.last:
            span = spans[self._span]
            behind = span.offset + span.size
            if span.offset > at:
                stop = min(span.offset, end)
                self._digest.update(piece[at - begin : stop - begin])
                at = stop
            if span.offset < end:
                stop = min(behind, end)
                self._crc = crc32(piece[at - begin : stop - begin], self._crc)
                at = stop
            if behind > end:
                return
            if span.offset >= chunk.start:
                self._sink.compare(chunk.plan, span, self._crc)
            else:
                self._sink.take_part(chunk, self._span, self._crc, behind - chunk.start)
            self._span += 1
            self._crc = 0
        if at < end:
            self._digest.update(piece[at - begin :])

    def end(self) -> None:
        chunk = self._chunk
        if self._span < chunk.last:  # it goes on in the next chunk, or is as empty as the file
            begun = max(self._plan.spans[self._span].offset, chunk.start)
            self._sink.take_part(chunk, self._span, self._crc, chunk.end - begun)
        if chunk.end > chunk.start:
            self._sink.take_digest(chunk, self._digest.hexdigest())
