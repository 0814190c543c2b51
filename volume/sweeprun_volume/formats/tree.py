"""The files of a checkpoint that is a directory, and what tells that one was written again."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Optional

from sweeprun_protocol.manifest import MAX_FILES
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError
from sweeprun_volume.lineage import FileFacts
from sweeprun_volume.operations import DIRECTORY, FILE, Facts, Volume

from . import Refused

MAX_DEPTH = 8


def require_text(path: str) -> None:
    """Raises Refused where the path of a checkpoint is no text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Refused(RefusalReason.STRUCTURE, "its name is no UTF-8: no pod could be told of it") from None


def walk_files(volume: Volume, place: str) -> Iterator[tuple[str, Facts]]:
    """(path below `place`, facts) of every file, in no order.

    Raises Refused: NOT_A_REGULAR_FILE for what is neither file nor directory, LIMIT_EXCEEDED.
    """
    pending = [("", 1)]
    count = 0
    while pending:
        below, depth = pending.pop()
        try:
            entries = volume.entries(posixpath.join(place, below), limit=MAX_FILES + 1)
        except TooManyEntriesError as error:
            raise Refused(RefusalReason.LIMIT_EXCEEDED, str(error)) from None
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=below or None) from None
        for entry in entries:
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
                if facts is None or facts.kind != FILE:
                    raise Refused(RefusalReason.CHANGED, f"{path} vanished while it was looked at", entry=path)
                yield path, facts


def facts_of(volume: Volume, place: str) -> Optional[FileFacts]:
    """Of a file, or of a directory's files together: their bytes, the newest time, the directory's number.

    None where there is nothing, or something that is no checkpoint: a device, a link among its files, too many files.
    """
    facts = volume.facts(place)
    if facts is None:
        return None
    if facts.kind == FILE:
        return FileFacts(facts.size, facts.mtime_ns, facts.inode)
    if facts.kind != DIRECTORY:
        return None
    try:
        files = [found for _, found in walk_files(volume, place)]
    except Refused:
        return None
    newest = max((found.mtime_ns for found in files), default=facts.mtime_ns)
    return FileFacts(sum(found.size for found in files), newest, facts.inode)
