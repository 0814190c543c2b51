"""Checkpoints as they lie there: what was recorded of them, and, where that is asked for, what a look finds now."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_protocol.records import Refusal
from sweeprun_protocol.verdicts import Verdict
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.errors import OutOfTimeError, UnsafeEntryError, VolumeError
from sweeprun_volume.formats import Checked, Context, Refused, formats_of
from sweeprun_volume.formats.finding import find_checkpoints, recognise
from sweeprun_volume.formats.own import read_manifest
from sweeprun_volume.formats.tree import facts_of
from sweeprun_volume.lineage import Candidate, FileFacts, Found
from sweeprun_volume.operations import Entry, Volume
from sweeprun_volume.validate import check
from sweeprun_volume.verdicts import Journal, refusal_of

WHOLE = "whole"
WEIGHTS_ONLY = "weights only"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found, of now or of a record."""

    word: str
    """WHOLE, WEIGHTS_ONLY, the reason of a refusal, or that there is no verdict."""
    sound: bool | None
    """None: no verdict."""
    detail: str = ""
    """Where the damage is and what it is."""
    note: str = ""
    """What the look could not cover."""
    digest: str | None = None
    uncovered: int | None = None
    """Bytes; None: unknown."""
    world_size: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    finding: Finding
    level: Level
    time: float
    """Seconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class CheckpointView:
    path: str
    format: Format
    step: int
    epoch: int | None
    eligible: bool | None
    """The next prepare may resume from it; None: there is no run, so nobody decides."""
    size: int | None
    """Bytes of all files; None: it is nothing that could be read, a link among its files, say."""
    recorded: Recorded | None
    found: Finding | None
    """By this check; None where none was asked for."""

    @property
    def sound(self) -> bool | None:
        """By this check."""
        if self.found is None or not self.found.sound:
            return self.found.sound if self.found is not None else None
        return not self.replaced

    @property
    def replaced(self) -> bool:
        """Whole, and not what it was when that was recorded, though size and time are the same."""
        if self.recorded is None or self.found is None or not (self.found.sound and self.recorded.finding.sound):
            return False
        return None not in (before := self.recorded.finding.digest, now := self.found.digest) and before != now

    @property
    def told(self) -> Finding | None:
        """The newer of both."""
        return self.found or (self.recorded.finding if self.recorded is not None else None)

    @property
    def verdict(self) -> str:
        """Of this check, against what was recorded; empty where none was asked for."""
        if self.found is None or self.recorded is None or self.found.sound is None:
            return self.found.word if self.found is not None else ""
        if self.replaced:
            return f"{self.found.word}, but replaced"
        same = self.found.word == self.recorded.finding.word
        return f"{self.found.word}, {'as recorded' if same else f'was {self.recorded.finding.word}'}"


class Examiner:
    """Looks at the checkpoints of one directory. Nothing is written, no verdict either."""

    def __init__(
        self, volume: Volume, layout: RunLayout, *, run_id: str | None, level: Level | None, timeout_seconds: float
    ) -> None:
        """`run_id` None: there is no run; a checkpoint of the own format may be that of any. `level` None: no check."""
        self._volume = volume
        self._layout = layout
        self._run_id = run_id
        self._level = level
        self._timeout_seconds = timeout_seconds
        self._journal = Journal(volume, layout)
        self._errors: list[str] = []

    @property
    def problems(self) -> list[str]:
        """What could not be read, and why."""
        return [*self._journal.remarks, *self._errors]

    def examine(self, item: Found, usable: Candidate | None) -> CheckpointView:
        """`usable`: as the next prepare would take it."""
        candidate = usable or Candidate(item.format, item.path, item.step, item.epoch or 0, None, item.facts)
        facts = facts_of(self._volume, posixpath.join(self._layout.directory, item.path))
        newest = self._journal.newest(candidate, facts) if facts is not None else None
        return CheckpointView(
            path=item.path,
            format=item.format,
            step=item.step,
            epoch=usable.epoch if usable is not None else item.epoch,
            eligible=None if self._run_id is None else usable is not None,
            size=facts.size if facts is not None else None,
            recorded=_recorded(newest) if newest is not None else None,
            found=self._find(self._level, candidate, facts) if self._level is not None else None,
        )

    def _find(self, level: Level, candidate: Candidate, facts: FileFacts | None) -> Finding:
        known = None
        if facts is not None and level is Level.FULL and candidate.format is not Format.SWEEPRUN:
            known = self._journal.known(candidate, facts)
        run_id = self._run_id or self._written_by(candidate)
        deadline = Deadline.after(self._timeout_seconds, Clock())
        context = Context(self._volume, self._layout, run_id, level, deadline, known=known)
        try:
            return _look(context, candidate)
        except OutOfTimeError:
            return Finding(f"not checked within {self._timeout_seconds:g} s", None)
        except VolumeError as error:
            self._errors.append(error.message)
            return Finding("cannot be read", None)

    def _written_by(self, candidate: Candidate) -> str:
        """Run of the manifest, where no run says which one it should be; empty where the check will refuse it."""
        if candidate.format is not Format.SWEEPRUN:
            return ""
        place = posixpath.join(self._layout.directory, candidate.path)
        try:
            return read_manifest(self._volume, place)[0].run_id
        except (Refused, UnsafeEntryError, VolumeError):
            return ""


def _look(context: Context, candidate: Candidate) -> Finding:
    """Raises OutOfTimeError, VolumeError."""
    try:
        return _whole(check(context, candidate), WHOLE)
    except Refused as refused:
        if refused.reason is not RefusalReason.NOT_RESUMABLE or refused.bytes_read:
            return _refused(refusal_of(candidate.path, refused))
    # passed over before its contents were read: weights may be damaged as well
    try:
        return _whole(check(replace(context, resumable_only=False), candidate), WEIGHTS_ONLY)
    except Refused as refused:
        return _refused(refusal_of(candidate.path, refused))


def _whole(checked: Checked, word: str) -> Finding:
    return Finding(word, True, "", checked.note, checked.digest, checked.uncovered, checked.world_size)


def _recorded(verdict: Verdict) -> Recorded:
    finding = Finding(WHOLE, True, "", verdict.note, verdict.digest, verdict.uncovered, verdict.world_size)
    if verdict.refusal is not None:
        finding = _refused(verdict.refusal)
    return Recorded(finding, verdict.level, verdict.time)


def _refused(refusal: Refusal) -> Finding:
    if refusal.reason is RefusalReason.NOT_RESUMABLE:
        return Finding(WEIGHTS_ONLY, True)
    return Finding(str(refusal.reason), False, _detail(refusal.message, refusal.entry, refusal.offset))


def _detail(message: str, entry: str | None, offset: int | None) -> str:
    place = entry if entry is not None and entry not in message else ""
    if offset is not None and str(offset) not in message:
        place = f"{place} at byte {offset}".strip()
    return f"{message} ({place})" if place else message


def checkpoints_in(volume: Volume) -> list[Found]:
    """Of a directory without a run. Raises TooManyEntriesError, UnsafeEntryError, VolumeError."""
    found = find_checkpoints(volume, RunLayout(""), "", Format.AUTO)
    return sorted(found, key=lambda item: (item.step, item.path))


def checkpoint_at(volume: Volume, name: str) -> Found | None:
    """The entry `name` of the volume's root, where that is a checkpoint. Raises UnsafeEntryError, VolumeError."""
    facts = volume.facts(name)
    if facts is None:
        return None
    return recognise(volume, name, name, Entry(name, facts.kind), formats_of(Format.AUTO), own=True)


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
