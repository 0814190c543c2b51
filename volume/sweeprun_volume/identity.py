"""What tells that a checkpoint is, byte for byte, the one that was read a moment ago, without reading it again.

A write gives a file a new change time, which nobody can set, unless two writes fall into one tick of the volume's
clock. Git's index knows the problem as "racily clean": what was changed within a short moment before it was looked at
may be changed once more without a sign. Of such files no identity is believed.
"""

from __future__ import annotations

import hashlib
import posixpath
from typing import Optional

from sweeprun_protocol.frozen import dataclass

from .errors import UnsafeEntryError
from .formats import Refused
from .formats.tree import walk_files
from .operations import DIRECTORY, FILE, Volume

RACY_SECONDS = 2.0
"""The coarsest times of file systems that are in use: FAT and SMB count in steps of two seconds, some NFS in one."""


@dataclass(frozen=True)
class Identity:
    digest: str
    """SHA-256 over path, size, modification time, change time and inode of every file."""
    changed_ns: int
    """The newest of these times; by the volume's own clock, but for modification times that somebody set."""

    def is_racy(self, *, volume_time: float) -> bool:
        """`volume_time`: seconds since 1970, read from the volume no later than the identity was taken."""
        return self.changed_ns > (volume_time - RACY_SECONDS) * 1e9


def identity_of(volume: Volume, place: str) -> Optional[Identity]:
    """None where there is nothing that could be a checkpoint, or where it changes meanwhile. Raises VolumeError.

    Every file is opened for it: clients of network file systems ask the server for its times then, and answer from
    their memory otherwise (close-to-open consistency).
    """
    facts = volume.facts(place)
    if facts is None or facts.kind not in (FILE, DIRECTORY):
        return None
    told = hashlib.sha256(b"%d\0" % facts.inode)
    newest = 0
    try:
        below = sorted(path for path, _ in walk_files(volume, place)) if facts.kind == DIRECTORY else [""]
        for path in below:
            stamp = volume.stamp(posixpath.join(place, path) if path else place)
            name = path.encode("utf-8", "surrogatepass")
            told.update(b"%s\0%d\0%d\0%d\0%d\0" % (name, stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode))
            newest = max(newest, stamp.mtime_ns, stamp.ctime_ns)
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return None
    return Identity("sha256:" + told.hexdigest(), newest)
