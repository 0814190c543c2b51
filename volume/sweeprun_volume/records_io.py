"""Records of sweeprun_protocol, read from and published on a volume."""

from __future__ import annotations

from typing import Any, Callable, Optional, Protocol, TypeVar

from sweeprun_protocol.codec import MAX_RECORD_BYTES, dump, parse

from .operations import Volume

T = TypeVar("T")


class Record(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


def read_record(
    volume: Volume, path: str, read: Callable[[Any, str], T], *, limit: int = MAX_RECORD_BYTES
) -> Optional[T]:
    """None where absent.

    Raises:
        RecordError: it is there and is not what it should be.
        UnsafeEntryError, VolumeError: as Volume.read.
    """
    data = volume.read(path, limit=limit)
    if data is None:
        return None
    return read(parse(data, where=path, limit=limit), path)


def publish_record(volume: Volume, path: str, record: Record) -> bool:
    """As Volume.publish; the directory is made where it is missing."""
    directory = path.rpartition("/")[0]
    if directory:
        volume.make_directories(directory)
    return volume.publish(path, dump(record.to_dict()))
