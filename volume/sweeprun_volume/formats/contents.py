"""Every byte of a checkpoint's files, read once: CRC-32 of the spans that have one, chunk digests of all else.

Chunks of CHUNK bytes are read by a few threads in the order of the plans, each through one small buffer that stays in
the processor's second-level cache, so that the sums find the bytes there. Memory does not grow with the
size of a checkpoint. What is reported does not depend on which thread was faster: every problem has a place, that of
the byte with which it shows, and the first place counts.

Copying out of the page cache costs more than the digest. Of a chunk that lies there whole, each thread has a child
process map it and answer with its sums; what the child cannot do, or finds wrong, the thread reads itself, so that
there is one way to each verdict. A child that dies of a file that shrinks under it takes nothing with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Optional

from sweeprun_protocol.manifest import ManifestFile
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.crc import combine
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.forked import Answer, Forked, may_fork
from sweeprun_volume.hashing import PIECE_BYTES, aligned_buffer, preferred_algorithm

from . import Contents, Context, Refused
from .chunks import Chunk, Plan, Span, Sums, chunks_of, count_chunks, cut, end_of, misplaced

MAX_THREADS = 4
"""More do not help: storage is slower than two of them (measured)."""
WINDOW = 4 << 20
"""Bytes that a child maps at a time: larger ones are no faster (measured), and count as its memory."""
MAPPED_BYTES = 64 << 20
"""Fewer are read before a child is made that would map them."""


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
    reading.run(threads_for(plans))
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


def threads_for(plans: Sequence[Plan]) -> int:
    """No more than the processors that this process may use, or than there are chunks."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunks = sum(count_chunks(plan.size) for plan in plans)
    return max(1, min(MAX_THREADS, usable, chunks))


_Place = tuple[int, int, int]
"""Plan, offset of the byte behind the one that shows the problem, and rank of those that show with the same byte."""
_OF_SPAN, _OF_CHUNK, _OF_FILE = range(3)


@contextmanager
def _children(answer: Answer, count: int) -> Iterator[list[Forked]]:
    """As many as can be had."""
    made: list[Forked] = []
    try:
        with suppress(OSError):  # no more processes are allowed here: reading needs none
            for _ in range(count):
                made.append(Forked(answer, beside=made))
        yield made
    finally:
        for child in made:
            child.end()


class _Reading:
    """What the threads share. Whatever is written here is written under the lock."""

    def __init__(
        self, context: Context, plans: Sequence[Plan], algorithm: str, expected: Sequence[Optional[Sequence[str]]]
    ) -> None:
        self.context = context
        self.plans = plans
        self.algorithm = algorithm
        self.expected = expected
        self.digests = [[""] * count_chunks(plan.size) for plan in plans]
        self._bytes = 0
        self._lock = threading.Lock()
        self._chunks = cut(plans)
        self._parts: dict[tuple[int, int], dict[int, tuple[int, int]]] = {}
        """(CRC, bytes) by chunk, of the spans that no chunk holds whole."""
        self._problem: Optional[tuple[_Place, Exception]] = None

    def run(self, threads: int) -> None:
        """Read all chunks. Raises the first problem."""
        for number, plan in enumerate(self.plans):
            refused = misplaced(plan)
            if refused is not None:
                self.note((number, 0, _OF_SPAN), refused)
                break
        with _children(self.answer, threads if self._is_worth_children() else 0) as children:
            self._read_all([*children, *[None] * (threads - len(children))])
        self._conclude()

    def _is_worth_children(self) -> bool:
        return sum(plan.size for plan in self.plans) >= MAPPED_BYTES and may_fork()

    def _read_all(self, children: Sequence[Optional[Forked]]) -> None:
        """By one thread for each of `children`, this one among them."""
        mine, *theirs = children
        others = [threading.Thread(target=self._work, args=(child,), name="read", daemon=True) for child in theirs]
        for thread in others:
            thread.start()
        try:
            self._work(mine)
        except BaseException:
            self.note((-1, 0, 0), InterruptedError())
            raise
        finally:
            for thread in others:
                thread.join()

    def _work(self, child: Optional[Forked]) -> None:
        buffer = aligned_buffer(PIECE_BYTES)
        while True:
            with self._lock:
                chunk = next(self._chunks, None)
            if chunk is None or self.needless(chunk):
                return
            reader = _ChunkReader(self, chunk, buffer, child)
            try:
                reader.read()
            except Exception as error:  # noqa: BLE001 - raised again by the thread that asked for the contents
                self.note((chunk.plan, reader.at, _OF_FILE), error)
            with self._lock:
                self._bytes += reader.at - chunk.start

    def answer(self, request: Sequence[int]) -> tuple[str, list[tuple[int, int, int]]]:
        """In a child: digest and parts of spans of a chunk, mapped. Raises what tells no more than that it failed."""
        chunk = Chunk(*request)
        plan, volume = self.plans[chunk.plan], self.context.volume
        told = _Told()
        sums = Sums(told, plan, chunk, self.algorithm)
        with volume.open_file(plan.path) as (descriptor, _):
            while sums.at < chunk.end:
                self.context.deadline.check()
                size = min(WINDOW, chunk.end - sums.at)
                with volume.map_at(descriptor, sums.at, size) as mapped, memoryview(mapped) as window:
                    sums.take(window)
        sums.end()
        return told.digest, told.parts

    def needless(self, chunk: Chunk) -> bool:
        """A problem before this chunk is known already."""
        problem = self._problem
        return problem is not None and (chunk.plan, chunk.start) >= problem[0][:2]

    def note(self, place: _Place, problem: Exception) -> None:
        with self._lock:
            if self._problem is None or place < self._problem[0]:
                self._problem = (place, problem)

    def take_part(self, chunk: Chunk, number: int, crc: int, size: int) -> None:
        """A span's bytes in one chunk; with those of the last one its CRC is known."""
        span = self.plans[chunk.plan].spans[number]
        key = (chunk.plan, number)
        first, last = chunks_of(span)
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
            self.note((plan, end_of(span), _OF_SPAN), refused)

    def take_digest(self, chunk: Chunk, digest: str) -> None:
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


class _Told:
    """Of one chunk in a child, whose spans are all as they were written."""

    def __init__(self) -> None:
        self.digest = ""
        self.parts: list[tuple[int, int, int]] = []

    def compare(self, plan: int, span: Span, found: int) -> None:  # noqa: ARG002
        if found != span.crc:
            raise ValueError(span.entry)

    def take_part(self, chunk: Chunk, number: int, crc: int, size: int) -> None:  # noqa: ARG002
        self.parts.append((number, crc, size))

    def take_digest(self, chunk: Chunk, digest: str) -> None:  # noqa: ARG002
        self.digest = digest


class _ChunkReader:
    def __init__(self, reading: _Reading, chunk: Chunk, buffer: memoryview, child: Optional[Forked]) -> None:
        self._reading = reading
        self._chunk = chunk
        self._plan = reading.plans[chunk.plan]
        self._buffer = buffer
        self._child = child
        self.at = chunk.start
        """Offset up to which the chunk was read."""

    def read(self) -> None:
        """Raises Refused where the file is gone, no file or ends early; other problems are noted."""
        volume, plan = self._reading.context.volume, self._plan
        try:
            with volume.open_file(plan.path) as (descriptor, _):
                if not self._is_cached(descriptor) or not self._ask():
                    self._read(descriptor)
        except FileNotFoundError:
            raise Refused(RefusalReason.FILE_MISSING, f"{plan.name} vanished", entry=plan.name) from None
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=plan.name) from None

    def _is_cached(self, descriptor: int) -> bool:
        """Whether the chunk seems to be there. Storage is waited for better by a read, with its readahead."""
        chunk, volume = self._chunk, self._reading.context.volume
        if self._child is None or chunk.start == chunk.end:
            return False
        return all(volume.is_cached(descriptor, at) for at in (chunk.end - 1, *range(chunk.start, chunk.end, WINDOW)))

    def _ask(self) -> bool:
        """Have the child read the chunk; False: it could not, or found something wrong."""
        reading, chunk = self._reading, self._chunk
        reading.context.deadline.check()
        assert self._child is not None
        answer = self._child.ask([chunk.plan, chunk.index, chunk.start, chunk.end, chunk.first, chunk.last])
        if answer is None:
            return False
        digest, parts = answer
        for number, crc, size in parts:
            reading.take_part(chunk, number, crc, size)
        reading.take_digest(chunk, digest)
        self.at = chunk.end
        return True

    def _read(self, descriptor: int) -> None:
        reading, chunk, plan = self._reading, self._chunk, self._plan
        sums = Sums(reading, plan, chunk, reading.algorithm)
        while self.at < chunk.end:
            reading.context.deadline.check()
            if reading.needless(chunk):
                return
            wanted = self._buffer[: min(len(self._buffer), chunk.end - self.at)]
            count = reading.context.volume.read_at(descriptor, wanted, self.at, plan.path)
            if count == 0:
                text = f"{plan.name} ended at byte {self.at} while it was read"
                raise Refused(RefusalReason.TRUNCATED, text, entry=plan.name, offset=self.at)
            sums.take(wanted[:count])
            self.at = sums.at
        sums.end()
