"""Is this the volume that it should be, and can it be written?"""

from __future__ import annotations

import secrets
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import VOLUME_RECORD
from sweeprun_protocol.reasons import BlockedReason
from sweeprun_protocol.records import VolumeRecord

from .errors import VolumeError, blocked, no_exclusive_create
from .operations import TEMPORARY_PREFIX, Volume
from .records_io import publish_record, read_record


def identify(volume: Volume, *, known: Optional[str]) -> str:
    """ID of the volume, made by the first prepare that sees it. Nothing is written where another was expected.

    Raises:
        Stopped: Blocked(VolumeChanged).
    """
    record = _read(volume)
    if known is not None and (record is None or record.volume_id != known):
        raise blocked(BlockedReason.VOLUME_CHANGED, _changed(volume, known, record))
    if record is not None:
        return record.volume_id
    record = VolumeRecord(volume_id=secrets.token_hex(16))
    if not publish_record(volume, VOLUME_RECORD, record):
        record = _read(volume)
        if record is None:
            raise RecordError(VOLUME_RECORD, "was published by somebody and cannot be opened")
    return record.volume_id


def probe_write(volume: Volume) -> float:
    """Create and link a file at the root and remove it.

    Returns:
        The volume's own time (seconds since 1970, the file's mtime): ages on the volume are measured by it.

    Raises:
        VolumeError: NotWritable, with owner and mode; NoExclusiveCreate; IOError.
    """
    name = f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
    volume.publish(name, b"probe\n")
    facts = volume.facts(name)
    if facts is None:
        raise VolumeError(BlockedReason.IO_ERROR, f"{name}: a file that was just written cannot be found")
    replaced = volume.publish(name, b"another\n")
    volume.remove_file(name)
    if replaced:
        raise no_exclusive_create(name, "link(2) says that it made a name that was there already")
    return facts.mtime_ns / 1e9


def _read(volume: Volume) -> Optional[VolumeRecord]:
    return read_record(volume, VOLUME_RECORD, VolumeRecord.from_value)


def _changed(volume: Volume, known: str, record: Optional[VolumeRecord]) -> str:
    if record is not None:
        return f"the volume is {record.volume_id}, this run lives on {known}: another volume is mounted"
    if not volume.entries(""):
        return f"the volume is empty, this run lives on {known}: it is not mounted, or another one is"
    return f"the volume has no {VOLUME_RECORD}, this run lives on {known}: another volume or subPath is mounted"
