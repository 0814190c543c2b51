"""The own format: a directory whose manifest, written last, names every byte of it."""

from __future__ import annotations

import posixpath
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import MANIFEST, parse_step_name
from sweeprun_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, digest_of
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import Volume

from . import Checked, Context, Recognised, Refused, Sighting
from .contents import Plan, read_contents
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
            manifest, digest = _read_manifest(context.volume, place)
            _check_identity(manifest, run_id=context.run_id, step=step, epoch=epoch)
            _check_file_set(context.volume, place, manifest)
            if context.level is Level.FAST:
                note = "sizes were compared, contents were not (validation level Fast)"
                return Checked(digest, 0, sum(file.size for file in manifest.files), note, manifest.world_size)
            return Checked(digest, _check_contents(context, place, manifest), world_size=manifest.world_size)
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=posixpath.basename(error.path)) from None


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
    found = {path: facts.size for path, facts in walk_files(volume, place)}
    for path, size in sorted(expected.items()):
        if path not in found:
            raise Refused(RefusalReason.FILE_MISSING, f"{path} is missing", entry=path)
        if found[path] != size:
            reason = RefusalReason.TRUNCATED if found[path] < size else RefusalReason.SIZE_MISMATCH
            raise Refused(reason, f"{path} has {found[path]} bytes, the manifest says {size}", entry=path)
    for path in sorted(found):
        if path not in expected and path != MANIFEST:
            raise Refused(RefusalReason.FILE_EXTRA, f"{path} is not in the manifest", entry=path)


def _check_contents(context: Context, place: str, manifest: Manifest) -> int:
    """Every byte against the manifest's chunk digests; returns bytes."""
    plans = []
    for file in manifest.files:
        path = posixpath.join(place, file.path)
        facts = context.volume.facts(path)
        if facts is None:
            raise Refused(RefusalReason.FILE_MISSING, f"{file.path} vanished while it was read", entry=file.path)
        plans.append(Plan(path, file.path, file.size, facts.mtime_ns, expected=file.chunks))
    read_contents(context, plans, algorithm=manifest.algorithm)
    return sum(file.size for file in manifest.files)
