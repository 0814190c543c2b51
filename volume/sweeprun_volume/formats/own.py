"""The own format: a directory whose manifest, written last, names every byte of it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import MANIFEST, parse_step_name
from sweeprun_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, digest_of
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import Facts, Volume

from . import Checked, Context, Recognised, Refused, Sighting
from .chunks import Plan
from .contents import read_contents
from .tree import walk_files


class OwnFormat:
    kind = Format.SWEEPRUN

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        """By its name alone: prepare waits for names that records tell of."""
        parsed = parse_step_name(sighting.entry.name)
        return Recognised(*parsed) if parsed is not None else None

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:
        place = posixpath.join(context.layout.directory, path)
        try:
            manifest, digest = read_manifest(context.volume, place)
            _check_identity(manifest, run_id=context.run_id, step=step, epoch=epoch)
            found = _check_file_set(context.volume, place, manifest)
            if context.level is Level.FAST:
                note = "sizes were compared, contents were not (validation level Fast)"
                return Checked(digest, 0, sum(file.size for file in manifest.files), note, manifest.world_size)
            size = _check_contents(context, place, manifest, found)
            return Checked(digest, size, world_size=manifest.world_size)
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=posixpath.basename(error.path)) from None


def read_manifest(volume: Volume, place: str) -> tuple[Manifest, str]:
    """Of the checkpoint at `place`, and its digest. Raises Refused, UnsafeEntryError, VolumeError."""
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


def _check_file_set(volume: Volume, place: str, manifest: Manifest) -> dict[str, Facts]:
    """Files by their paths below `place`: those that the manifest names, with their sizes, and no others."""
    expected = {file.path: file.size for file in manifest.files}
    if not expected:
        raise Refused(RefusalReason.MANIFEST_INVALID, "the manifest names no file", entry=MANIFEST)
    if MANIFEST in expected:
        raise Refused(RefusalReason.MANIFEST_INVALID, "the manifest names itself", entry=MANIFEST)
    found = dict(walk_files(volume, place))
    for path, size in sorted(expected.items()):
        if path not in found:
            raise Refused(RefusalReason.FILE_MISSING, f"{path} is missing", entry=path)
        there = found[path].size
        if there != size:
            reason = RefusalReason.TRUNCATED if there < size else RefusalReason.SIZE_MISMATCH
            raise Refused(reason, f"{path} has {there} bytes, the manifest says {size}", entry=path)
    for path in sorted(found):
        if path not in expected and path != MANIFEST:
            raise Refused(RefusalReason.FILE_EXTRA, f"{path} is not in the manifest", entry=path)
    return found


def _check_contents(context: Context, place: str, manifest: Manifest, found: Mapping[str, Facts]) -> int:
    """Every byte against the manifest's chunk digests; returns bytes."""
    plans = [
        Plan(posixpath.join(place, file.path), file.path, file.size, found[file.path].mtime_ns, expected=file.chunks)
        for file in manifest.files
    ]
    read_contents(context, plans, algorithm=manifest.algorithm)
    return sum(file.size for file in manifest.files)
