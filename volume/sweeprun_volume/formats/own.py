"""The own format: a directory whose manifest, written last, names every byte of it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import MANIFEST, RunLayout, parse_step_name
from sweeprun_protocol.manifest import CHUNK, MAX_FILES, MAX_MANIFEST_BYTES, Manifest, ManifestFile, digest_of
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError
from sweeprun_volume.formats import Checked, Context, Refused
from sweeprun_volume.hashing import READ_BYTES, new_digest
from sweeprun_volume.lineage import Found
from sweeprun_volume.operations import DIRECTORY, FILE, Volume

MAX_DEPTH = 8
_THREADS = 4


class OwnFormat:
    def find(self, volume: Volume, layout: RunLayout, directory: str) -> list[Found]:
        found = []
        for entry in volume.entries(posixpath.join(layout.directory, directory)):
            parsed = parse_step_name(entry.name)
            if parsed is not None:
                path = posixpath.join(directory, entry.name)
                found.append(Found(Format.SWEEPRUN, path, parsed[0], parsed[1], None))
        return found

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:
        place = posixpath.join(context.layout.directory, path)
        try:
            manifest, digest = _read_manifest(context.volume, place)
            _check_identity(manifest, run_id=context.run_id, step=step, epoch=epoch)
            _check_file_set(context.volume, place, manifest)
            if context.level is Level.FAST:
                return Checked(digest, 0, "sizes were compared, contents were not (validation level Fast)")
            return Checked(digest, _check_contents(context, place, manifest))
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=posixpath.basename(error.path)) from None
        except TooManyEntriesError as error:
            raise Refused(RefusalReason.LIMIT_EXCEEDED, str(error)) from None


def manifest_digest(volume: Volume, place: str) -> str:
    """Digest of the checkpoint at `place` by its manifest alone. Raises Refused."""
    return _read_manifest(volume, place)[1]


def _read_manifest(volume: Volume, place: str) -> tuple[Manifest, str]:
    path = posixpath.join(place, MANIFEST)
    data = volume.read(path, limit=MAX_MANIFEST_BYTES)
    if data is None:
        raise Refused(RefusalReason.NO_MANIFEST, f"{path} does not exist: the checkpoint was never committed")
    try:
        return Manifest.decode(data, where=path), digest_of(data)
    except RecordError as error:
        raise Refused(RefusalReason.MANIFEST_INVALID, str(error), entry=MANIFEST) from None


def _check_identity(manifest: Manifest, *, run_id: str, step: int, epoch: int) -> None:
    if manifest.run_id != run_id:
        raise Refused(RefusalReason.WRONG_RUN, f"the manifest is that of run {manifest.run_id}", entry=MANIFEST)
    if (manifest.step, manifest.epoch) != (step, epoch):
        raise Refused(
            RefusalReason.WRONG_EPOCH,
            f"the manifest is that of step {manifest.step}, epoch {manifest.epoch}; the name says otherwise",
            entry=MANIFEST,
        )
    if not manifest.resumable:
        raise Refused(RefusalReason.NOT_RESUMABLE, "the manifest says that this holds weights only", entry=MANIFEST)


def _check_file_set(volume: Volume, place: str, manifest: Manifest) -> None:
    expected = {file.path: file.size for file in manifest.files}
    if not expected:
        raise Refused(RefusalReason.MANIFEST_INVALID, "the manifest names no file", entry=MANIFEST)
    if MANIFEST in expected:
        raise Refused(RefusalReason.MANIFEST_INVALID, "the manifest names itself", entry=MANIFEST)
    found = dict(_sizes(volume, place))
    for path, size in sorted(expected.items()):
        if path not in found:
            raise Refused(RefusalReason.FILE_MISSING, f"{path} is missing", entry=path)
        if found[path] != size:
            reason = RefusalReason.TRUNCATED if found[path] < size else RefusalReason.SIZE_MISMATCH
            raise Refused(reason, f"{path} has {found[path]} bytes, the manifest says {size}", entry=path)
    for path in sorted(found):
        if path not in expected and path != MANIFEST:
            raise Refused(RefusalReason.FILE_EXTRA, f"{path} is not in the manifest", entry=path)


def _sizes(volume: Volume, place: str) -> Iterator[tuple[str, int]]:
    """(path, bytes) of every file below `place`. Raises Refused for what is neither file nor directory."""
    pending = [("", 1)]
    count = 0
    while pending:
        below, depth = pending.pop()
        for entry in volume.entries(posixpath.join(place, below), limit=MAX_FILES + 1):
            path = posixpath.join(below, entry.name)
            count += 1
            if count > MAX_FILES + 1 or depth > MAX_DEPTH:
                raise Refused(RefusalReason.LIMIT_EXCEEDED, f"more than {MAX_FILES} files or {MAX_DEPTH} levels")
            if entry.kind == DIRECTORY:
                pending.append((path, depth + 1))
            elif entry.kind != FILE:
                raise Refused(RefusalReason.NOT_A_REGULAR_FILE, f"{path} is a {entry.kind}", entry=path)
            elif not entry.name.startswith(".nfs"):  # NFS keeps removed files that are still open under such names
                facts = volume.facts(posixpath.join(place, path))
                yield path, facts.size if facts is not None else -1


def _check_contents(context: Context, place: str, manifest: Manifest) -> int:
    """Compare every chunk, several at a time; returns bytes. Raises the first Refused in the manifest's order."""
    new_digest(manifest.algorithm)  # says at once where the library is missing
    chunks = [(file, index) for file in manifest.files for index in range(len(file.chunks))]
    threads = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        futures = [pool.submit(_check_chunk, context, place, manifest, file, index) for file, index in chunks]
        try:
            return sum(future.result() for future in futures)
        finally:
            for future in futures:
                future.cancel()


def _check_chunk(context: Context, place: str, manifest: Manifest, file: ManifestFile, index: int) -> int:
    offset = index * CHUNK
    size = min(CHUNK, file.size - offset)
    digest = new_digest(manifest.algorithm)
    buffer = memoryview(bytearray(READ_BYTES))
    try:
        with context.volume.open_file(posixpath.join(place, file.path)) as (descriptor, _):
            done = 0
            while done < size:
                context.deadline.check()
                count = context.volume.read_at(descriptor, buffer[: size - done], offset + done, file.path)
                if count == 0:
                    raise Refused(RefusalReason.TRUNCATED, f"{file.path} ended while it was read", entry=file.path)
                digest.update(buffer[:count])
                done += count
    except FileNotFoundError:
        raise Refused(RefusalReason.FILE_MISSING, f"{file.path} vanished while it was read", entry=file.path) from None
    if digest.hexdigest() != file.chunks[index]:
        raise Refused(
            RefusalReason.DIGEST_MISMATCH,
            f"{file.path}: {size} bytes from offset {offset} are not what was written",
            entry=file.path,
            offset=offset,
        )
    return size
