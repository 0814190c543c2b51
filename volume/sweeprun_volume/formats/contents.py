"""Every byte of a checkpoint's files, read once: chunk digests of all of it, CRC-32 of the spans that have one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.manifest import CHUNK, ManifestFile
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.hashing import READ_BYTES, ChunkHasher, preferred_algorithm

from . import Contents, Context, Refused


@dataclass(frozen=True)
class Span:
    """Consecutive bytes of a file with a checksum of their own."""

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
        Refused: the first damage in the order of the plans: FILE_MISSING, FILE_EXTRA (against `context.known`),
            NOT_A_REGULAR_FILE, TRUNCATED, CRC_MISMATCH, DIGEST_MISMATCH, CHANGED; with file, offset and bytes read.
        OutOfTimeError: before the verdict.
        VolumeError: I/O errors, or the library of a digest is missing.
    """
    known = {file.path: file for file in context.known.files} if context.known is not None else None
    if algorithm is None:
        algorithm = context.known.algorithm if context.known is not None else preferred_algorithm()
    if known is not None:
        _check_names(known, plans)
    files: list[ManifestFile] = []
    for plan in plans:
        expected = plan.expected if known is None or plan.expected is not None else known[plan.name].chunks
        files.append(_read_file(context, plan, algorithm, expected))
    return Contents(algorithm, tuple(sorted(files, key=lambda file: file.path)))


def _check_names(known: dict[str, ManifestFile], plans: Sequence[Plan]) -> None:
    names = {plan.name for plan in plans}
    for name in sorted(known.keys() - names):
        raise Refused(RefusalReason.FILE_MISSING, f"{name} was there when it was first read", entry=name)
    for name in sorted(names - known.keys()):
        raise Refused(RefusalReason.FILE_EXTRA, f"{name} was not there when it was first read", entry=name)


def _read_file(context: Context, plan: Plan, algorithm: str, expected: Optional[Sequence[str]]) -> ManifestFile:
    hasher = ChunkHasher(algorithm)
    buffer = memoryview(bytearray(READ_BYTES))
    try:
        with context.volume.open_file(plan.path) as (descriptor, _):

            def take(end: int, crc: int) -> int:
                while hasher.size < end:
                    context.deadline.check()
                    count = context.volume.read_at(
                        descriptor, buffer[: min(READ_BYTES, end - hasher.size)], hasher.size, plan.path
                    )
                    if count == 0:
                        text = f"{plan.name} ended at byte {hasher.size} while it was read"
                        raise Refused(RefusalReason.TRUNCATED, text, entry=plan.name, offset=hasher.size)
                    crc = zlib.crc32(buffer[:count], crc)
                    hasher.update(buffer[:count])
                return crc

            for span in plan.spans:
                take(span.offset, 0)
                found = take(span.offset + span.size, 0)
                if found != span.crc:
                    raise Refused(
                        RefusalReason.CRC_MISMATCH,
                        f"{span.entry}: CRC-32 is {found:08x}, {span.crc:08x} was written",
                        entry=span.entry,
                        offset=span.offset,
                        bytes_read=hasher.size,
                    )
            take(plan.size, 0)
    except FileNotFoundError:
        raise Refused(RefusalReason.FILE_MISSING, f"{plan.name} vanished", entry=plan.name) from None
    except UnsafeEntryError as error:
        raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=plan.name) from None
    chunks = hasher.finish()
    for index, (one, other) in enumerate(zip(chunks, expected or chunks)):
        if one != other:
            raise Refused(
                RefusalReason.DIGEST_MISMATCH,
                f"{plan.name}: {min(CHUNK, plan.size - index * CHUNK)} bytes from offset {index * CHUNK} are not what "
                "was written",
                entry=plan.name,
                offset=index * CHUNK,
                bytes_read=plan.size,
            )
    facts = context.volume.facts(plan.path)
    if facts is None or (facts.size, facts.mtime_ns) != (plan.size, plan.mtime_ns):
        text = f"{plan.name} changed while it was read: somebody still writes it"
        raise Refused(RefusalReason.CHANGED, text, entry=plan.name, bytes_read=plan.size)
    return ManifestFile(plan.name, plan.size, chunks)
