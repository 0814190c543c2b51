"""Every byte of a checkpoint's files, read once: chunk digests of all of it, CRC-32 of the spans that have one.

Chunks of CHUNK bytes are read by a few threads in the order of the plans, each through one small buffer that stays in
the processor's second-level cache, so that the digest and the CRC find the bytes there. Memory does not grow with the
size of a checkpoint. What is reported does not depend on which thread was faster: every problem has a place, that of
the byte with which it shows, and the first place counts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.manifest import CHUNK, ManifestFile
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.crc import combine, crc32
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.hashing import PIECE_BYTES, new_digest, preferred_algorithm

from . import Contents, Context, Refused

MAX_THREADS = 4
"""More do not help: storage is slower than two of them (measured)."""


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


def read_contents(context: Context, plans: Sequence[Plan], *, algorithm: Optional[str] = None) -> Contents:
    """Read every file of `plans`.

    `context.known` says what is expected of a plan that does not. `algorithm` None: that of `context.known`, else the
    fastest here.

    Raises:
        Refused: the first damage, in the order of the plans and of the byte with which it shows: FILE_MISSING,
            FILE_EXTRA, SIZE_MISMATCH (against `context.known`), NOT_A_REGULAR_FILE, TRUNCATED, CRC_MISMATCH,
            DIGEST_MISMATCH, CHANGED, STRUCTURE (spans that overlap); with file, offset and the bytes that were read.
        OutOfTimeError: before the verdict.
        VolumeError: I/O errors, or the library of a digest is missing.
    """
    known = {file.path: file for file in context.known.files} if context.known is not None else {}
    if context.known is not None:
        _check_known(known, plans)
    if algorithm is None:
        algorithm = context.known.algorithm if context.known is not None else context.algorithm
    algorithm = algorithm or preferred_algorithm()
    expected = [
        known[plan.name].chunks if plan.expected is None and plan.name in known else plan.expected for plan in plans
    ]
    reading = _Reading(context, plans, algorithm, expected)
    reading.run(_threads(plans))
    files = [ManifestFile(plan.name, plan.size, tuple(reading.digests[index])) for index, plan in enumerate(plans)]
    return Contents(algorithm, tuple(sorted(files, key=lambda file: file.path)))


def _check_known(known: dict[str, ManifestFile], plans: Sequence[Plan]) -> None:
    names = {plan.name for plan in plans}
    for name in sorted(known.keys() - names):
        raise Refused(RefusalReason.FILE_MISSING, f"{name} was there when it was first read", entry=name)
    for name in sorted(names - known.keys()):
        raise Refused(RefusalReason.FILE_EXTRA, f"{name} was not there when it was first read", entry=name)
    for plan in plans:
        size = known[plan.name].size
        if plan.size != size:
            reason = RefusalReason.TRUNCATED if plan.size < size else RefusalReason.SIZE_MISMATCH
            text = f"{plan.name} has {plan.size} bytes and had {size} when it was first read"
            raise Refused(reason, text, entry=plan.name)


def _threads(plans: Sequence[Plan]) -> int:
    """No more than the processors that this process may use, or than there are chunks."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunks = sum(_chunks(plan.size) for plan in plans)
    return max(1, min(MAX_THREADS, usable, chunks))


def _chunks(size: int) -> int:
    return -(-size // CHUNK)


@dataclass(frozen=True)
class _Chunk:
    """What one thread reads at a time; an empty file has one as well, for it has to be opened."""

    plan: int
    index: int
    start: int
    end: int
    first: int
    """Index of the first span that reaches into it; `last` is behind the last one."""
    last: int


_Place = tuple[int, int, int]
"""Plan, offset of the byte behind the one that shows the problem, and rank of those that show with the same byte."""
_OF_SPAN, _OF_CHUNK, _OF_FILE = range(3)


def _cut(plans: Sequence[Plan]) -> Iterator[_Chunk]:
    for number, plan in enumerate(plans):
        first = 0
        for index in range(max(1, _chunks(plan.size))):
            start = index * CHUNK
            end = min(start + CHUNK, plan.size)
            last = first
            while last < len(plan.spans) and _reaches(plan.spans[last], end):
                last += 1
            yield _Chunk(number, index, start, end, first, last)
            first = last - 1 if last > first and _end(plan.spans[last - 1]) > end else last


def _end(span: Span) -> int:
    return span.offset + span.size


def _reaches(span: Span, end: int) -> bool:
    """An empty one at the very end of a chunk belongs to it: there may be none behind."""
    return span.offset < end or _end(span) <= end


def _misplaced(plan: Plan) -> Optional[Refused]:
    behind = 0
    for span in plan.spans:
        if span.offset < behind or span.size < 0:
            text = f"{span.entry} reaches into the one before"
            return Refused(RefusalReason.STRUCTURE, text, entry=span.entry, offset=span.offset)
        behind = _end(span)
        if behind > plan.size:
            text = f"{span.entry} ends at byte {behind} of {plan.size}"
            return Refused(RefusalReason.TRUNCATED, text, entry=span.entry, offset=span.offset)
    return None


class _Reading:
    """What the threads share. Whatever is written here is written under the lock."""

    def __init__(
        self, context: Context, plans: Sequence[Plan], algorithm: str, expected: Sequence[Optional[Sequence[str]]]
    ) -> None:
        self.context = context
        self.plans = plans
        self.algorithm = algorithm
        self.expected = expected
        self.digests = [[""] * _chunks(plan.size) for plan in plans]
        self._bytes = 0
        self._lock = threading.Lock()
        self._chunks = _cut(plans)
        self._parts: dict[tuple[int, int], dict[int, tuple[int, int]]] = {}
        """(CRC, bytes) by chunk, of the spans that no chunk holds whole."""
        self._problem: Optional[tuple[_Place, Exception]] = None

    def run(self, threads: int) -> None:
        """Read all chunks. Raises the first problem."""
        for number, plan in enumerate(self.plans):
            refused = _misplaced(plan)
            if refused is not None:
                self.note((number, 0, _OF_SPAN), refused)
                break
        others = [threading.Thread(target=self._work, name=f"read-{n}", daemon=True) for n in range(1, threads)]
        for thread in others:
            thread.start()
        try:
            self._work()
        except BaseException:
            self.note((-1, 0, 0), InterruptedError())
            raise
        finally:
            for thread in others:
                thread.join()
        self._conclude()

    def _work(self) -> None:
        buffer = memoryview(bytearray(PIECE_BYTES))
        while True:
            with self._lock:
                chunk = next(self._chunks, None)
            if chunk is None or self.needless(chunk):
                return
            reader = _ChunkReader(self, chunk, buffer)
            try:
                reader.read()
            except Exception as error:  # noqa: BLE001 - raised again by the thread that asked for the contents
                self.note((chunk.plan, reader.at, _OF_FILE), error)
            with self._lock:
                self._bytes += reader.at - chunk.start

    def needless(self, chunk: _Chunk) -> bool:
        """A problem before this chunk is known already."""
        problem = self._problem
        return problem is not None and (chunk.plan, chunk.start) >= problem[0][:2]

    def note(self, place: _Place, problem: Exception) -> None:
        with self._lock:
            if self._problem is None or place < self._problem[0]:
                self._problem = (place, problem)

    def take_part(self, chunk: _Chunk, number: int, crc: int, size: int) -> None:
        """A span's bytes in one chunk; with those of the last one its CRC is known."""
        span = self.plans[chunk.plan].spans[number]
        key = (chunk.plan, number)
        first, last = span.offset // CHUNK, (_end(span) - 1) // CHUNK
        with self._lock:
            parts = self._parts.setdefault(key, {})
            parts[chunk.index] = (crc, size)
            if len(parts) <= last - first:
                return
            del self._parts[key]
        found, _ = parts[first]
        for index in range(first + 1, last + 1):
            found = combine(found, *parts[index])
        self.compare(chunk.plan, span, found)

    def compare(self, plan: int, span: Span, found: int) -> None:
        if found != span.crc:
            text = f"{span.entry}: CRC-32 is {found:08x}, {span.crc:08x} was written"
            refused = Refused(RefusalReason.CRC_MISMATCH, text, entry=span.entry, offset=span.offset)
            self.note((plan, _end(span), _OF_SPAN), refused)

    def take_digest(self, chunk: _Chunk, digest: str) -> None:
        self.digests[chunk.plan][chunk.index] = digest
        expected = self.expected[chunk.plan]
        if expected is None or (chunk.index < len(expected) and expected[chunk.index] == digest):
            return
        name = self.plans[chunk.plan].name
        text = f"{name}: {chunk.end - chunk.start} bytes from offset {chunk.start} are not what was written"
        refused = Refused(RefusalReason.DIGEST_MISMATCH, text, entry=name, offset=chunk.start)
        self.note((chunk.plan, chunk.end, _OF_CHUNK), refused)

    def _conclude(self) -> None:
        place, problem = self._problem or ((len(self.plans), 0, 0), None)
        try:
            for plan in self.plans[: place[0]]:
                self._check_unchanged(plan)
            if problem is not None:
                raise problem
        except Refused as refused:
            refused.bytes_read = self._bytes
            raise

    def _check_unchanged(self, plan: Plan) -> None:
        facts = self.context.volume.facts(plan.path)
        if facts is None or (facts.size, facts.mtime_ns) != (plan.size, plan.mtime_ns):
            text = f"{plan.name} changed while it was read: somebody still writes it"
            raise Refused(RefusalReason.CHANGED, text, entry=plan.name)


class _ChunkReader:
    def __init__(self, reading: _Reading, chunk: _Chunk, buffer: memoryview) -> None:
        self._reading = reading
        self._chunk = chunk
        self._plan = reading.plans[chunk.plan]
        self._buffer = buffer
        self._span = chunk.first
        self._crc = 0
        self.at = chunk.start
        """Offset up to which the chunk was read."""

    def read(self) -> None:
        """Raises Refused where the file is gone, no file or ends early; other problems are noted."""
        volume, plan = self._reading.context.volume, self._plan
        try:
            with volume.open_file(plan.path) as (descriptor, _):
                self._read(descriptor)
        except FileNotFoundError:
            raise Refused(RefusalReason.FILE_MISSING, f"{plan.name} vanished", entry=plan.name) from None
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=plan.name) from None

    def _read(self, descriptor: int) -> None:
        reading, chunk, plan = self._reading, self._chunk, self._plan
        digest = new_digest(reading.algorithm)
        while self.at < chunk.end:
            reading.context.deadline.check()
            if reading.needless(chunk):
                return
            wanted = self._buffer[: min(len(self._buffer), chunk.end - self.at)]
            count = reading.context.volume.read_at(descriptor, wanted, self.at, plan.path)
            if count == 0:
                text = f"{plan.name} ended at byte {self.at} while it was read"
                raise Refused(RefusalReason.TRUNCATED, text, entry=plan.name, offset=self.at)
            piece = wanted[:count]
            digest.update(piece)
            self._take_spans(piece)
            self.at += count
        if self._span < chunk.last:  # it goes on in the next chunk, or is as empty as the file
            begun = max(plan.spans[self._span].offset, chunk.start)
            reading.take_part(chunk, self._span, self._crc, chunk.end - begun)
        if chunk.end > chunk.start:
            reading.take_digest(chunk, digest.hexdigest())

    def _take_spans(self, piece: memoryview) -> None:
        """CRCs of what the spans have in `piece`, which begins at `self.at`."""
        spans, chunk = self._plan.spans, self._chunk
        end = self.at + len(piece)
        while self._span < chunk.last:
            span = spans[self._span]
            behind = span.offset + span.size
            if span.offset < end:
                self._crc = crc32(piece[max(0, span.offset - self.at) : behind - self.at], self._crc)
            if behind > end:
                return
            if span.offset >= chunk.start:
                self._reading.compare(chunk.plan, span, self._crc)
            else:
                self._reading.take_part(chunk, self._span, self._crc, behind - chunk.start)
            self._span += 1
            self._crc = 0
