"""The runs that lie beside each other below one template: whose they are and whether they are complete."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Optional

from sweeprun_protocol.codec import MAX_RECORD_BYTES, RecordError
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import MARKER, RunLayout, expand_run_directory
from sweeprun_protocol.manifest import digest_of
from sweeprun_protocol.names import is_run_id
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.records import Claim, InitRecord, Marker, Result, RunRecord, SupersededBy

from .claims import read_head
from .errors import TooManyEntriesError, UnsafeEntryError
from .operations import DIRECTORY, Volume
from .records_io import read_record

INIT_OF_RUN = "init.json"
"""In the run directory: which result of sweep_init this run was made from; no other run may use it again."""

_IDLE_ENTRIES = 5000
_IDLE_DEPTH = 4
_WHOLE_ENTRIES = 200_000
_WHOLE_DEPTH = 32


@dataclass(frozen=True)
class Standing:
    """One run directory as it is found."""

    run_id: str
    layout: RunLayout
    head: Optional[Claim]
    result: Optional[Result]
    superseded_by: Optional[SupersededBy]
    foreign_marker: bool
    """A marker that is not ours: `.incomplete` without any claim, or `<run_id>.incomplete` inside or beside."""

    @property
    def incomplete(self) -> bool:
        return self.result is None and self.superseded_by is None and (self.head is not None or self.foreign_marker)

    @property
    def unmarked(self) -> bool:
        """No marker, no claim and no result: a script's, finished or not."""
        return self.head is None and self.result is None and self.superseded_by is None and not self.foreign_marker

    def held_by(self, uid: str) -> bool:
        return self.head is not None and self.head.owner.uid == uid


def layout_of(request: PrepareRequest, run_id: str) -> RunLayout:
    directory = expand_run_directory(request.run_directory, sweep_name=request.sweep_name, run_id=run_id)
    return RunLayout(directory)


def parent_of(request: PrepareRequest) -> str:
    return posixpath.dirname(layout_of(request, "x").directory)


def look(volume: Volume, request: PrepareRequest, run_id: str, *, at_least: int = 0) -> Standing:
    layout = layout_of(request, run_id)
    head = read_head(volume, layout, at_least=at_least)
    return Standing(
        run_id=run_id,
        layout=layout,
        head=head,
        result=read_record(volume, layout.result, Result.from_value),
        superseded_by=read_record(volume, layout.superseded_by, SupersededBy.from_value),
        foreign_marker=any(volume.exists(path) for path in foreign_markers(layout, run_id))
        or (volume.exists(layout.marker) and (head is None or not _is_ours(volume, layout))),
    )


def _is_ours(volume: Volume, layout: RunLayout) -> bool:
    try:
        return read_record(volume, layout.marker, Marker.from_value) is not None
    except (RecordError, UnsafeEntryError):
        return False  # a script's: empty, or with words of its own


def foreign_markers(layout: RunLayout, run_id: str) -> tuple[str, str]:
    """`<run_id>.incomplete` inside the run directory and beside it: what scripts leave."""
    name = f"{run_id}{MARKER}"
    return posixpath.join(layout.directory, name), posixpath.join(posixpath.dirname(layout.directory), name)


def siblings(volume: Volume, request: PrepareRequest) -> Iterator[Standing]:
    """Every run of the sweep, by name. One of others that cannot be read hinders nobody: it is no candidate.

    Raises RecordError where it is ours, or where its claims do not even tell whose it is.
    """
    for entry in volume.entries(parent_of(request)):
        if entry.kind != DIRECTORY or not is_run_id(entry.name):
            continue
        try:
            standing = look(volume, request, entry.name)
        except (RecordError, UnsafeEntryError):
            head = read_head(volume, layout_of(request, entry.name))
            if head is not None and head.owner.uid == request.owner.uid:
                raise
            continue
        yield standing


def read_run(volume: Volume, layout: RunLayout) -> Optional[RunRecord]:
    return read_record(volume, layout.run_record, RunRecord.from_value)


def read_init_of_run(volume: Volume, layout: RunLayout) -> Optional[InitRecord]:
    return read_record(volume, posixpath.join(layout.directory, INIT_OF_RUN), InitRecord.from_value)


def configuration_digest(volume: Volume, layout: RunLayout, file_name: str) -> Optional[str]:
    """Of the run's record, or of the file itself where a script made the run."""
    record = read_run(volume, layout)
    if record is not None:
        return record.config_digest
    data = volume.read(posixpath.join(layout.directory, file_name), limit=MAX_RECORD_BYTES)
    return digest_of(data) if data is not None else None


def idle_seconds(volume: Volume, layout: RunLayout, *, now: float, whole: bool = False) -> int:
    """Since the newest change in the run directory, by the volume's own time `now`.

    Among its first entries, for a list of candidates; among all with `whole`, where the answer is a condition: a
    directory too large to be looked through counts as changed just now.
    """
    most, deepest = (_WHOLE_ENTRIES, _WHOLE_DEPTH) if whole else (_IDLE_ENTRIES, _IDLE_DEPTH)
    newest = 0
    seen = 0
    pending: list[tuple[str, int]] = [(layout.directory, 1)]
    while pending and seen < most:
        below, depth = pending.pop()
        try:
            entries = volume.entries(below)
        except UnsafeEntryError:
            continue  # it was replaced while we walked: its time is seen on the directory above
        except TooManyEntriesError:
            if whole:
                return 0
            continue
        seen += len(entries)
        for entry in entries:
            path = posixpath.join(below, entry.name)
            facts = volume.facts(path)
            newest = max(newest, facts.mtime_ns if facts is not None else 0)
            if entry.kind == DIRECTORY and depth < deepest:
                pending.append((path, depth + 1))
    if whole and pending:
        return 0
    facts = volume.facts(layout.directory)
    newest = max(newest, facts.mtime_ns if facts is not None else 0)
    return max(0, int(now - newest / 1e9))
