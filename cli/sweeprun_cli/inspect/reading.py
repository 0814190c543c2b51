"""Reads run directories: claims, epochs, decisions, ends, checkpoints, quarantine. Changes and unpickles nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sweeprun_protocol.codec import MAX_RECORD_BYTES, RecordError
from sweeprun_protocol.layout import CLAIMS, EPOCH_PLACEHOLDER, QUARANTINE, RESULT, RunLayout, parse_end_name
from sweeprun_protocol.reasons import Format, Level
from sweeprun_protocol.records import Claim, Decision, EndRecord, Marker, Result, RunRecord, SupersededBy
from sweeprun_volume.claims import highest_epoch, read_claim
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.decisions import read_decision, read_seen
from sweeprun_volume.discovery import take_inventory
from sweeprun_volume.errors import OutOfTimeError, TooManyEntriesError, UnsafeEntryError, VolumeError
from sweeprun_volume.formats import Context, Refused
from sweeprun_volume.lineage import Candidate, Found, eligible
from sweeprun_volume.operations import Volume
from sweeprun_volume.records_io import read_record
from sweeprun_volume.validate import check

T = TypeVar("T")

MAX_DEPTH = 6
"""A run lies at most this deep below what is inspected."""
_UNREADABLE = (RecordError, UnsafeEntryError, VolumeError, TooManyEntriesError)


class NothingFoundError(Exception):
    """No run lies there; the message says where was looked."""


@dataclass(frozen=True, slots=True)
class EpochView:
    claim: Claim | None
    epoch: int
    decision: Decision | None
    ends: tuple[EndRecord, ...]


@dataclass(frozen=True, slots=True)
class CheckpointView:
    path: str
    step: int
    epoch: int | None
    eligible: bool
    """The next prepare may resume from it."""
    verdict: str
    """Of this check; empty where none was asked for."""
    sound: bool | None = None


@dataclass(slots=True)
class RunView:
    directory: Path
    head: int = 0
    marker: Marker | None = None
    has_marker: bool = False
    result: Result | None = None
    record: RunRecord | None = None
    superseded_by: SupersededBy | None = None
    epochs: list[EpochView] = field(default_factory=list)
    checkpoints: list[CheckpointView] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be read, and why."""


def find_runs(path: Path) -> list[Path]:
    """`path` itself where it is a run directory, else the run directories below it. Raises NothingFoundError."""
    if not path.is_dir():
        raise NothingFoundError(f"{path} is no directory")
    found = [Path(directory) for directory in _run_directories(path)]
    if not found:
        raise NothingFoundError(f"no run lies in {path}, nor up to {MAX_DEPTH} directories below it")
    return sorted(found)


def _run_directories(path: Path) -> Iterator[str]:
    top = str(path)
    for directory, below, files in os.walk(top):
        if CLAIMS in below or RESULT in files:
            yield directory
            below.clear()
        elif directory.count(os.sep) - top.count(os.sep) >= MAX_DEPTH:
            below.clear()
        else:
            below[:] = [name for name in below if not name.startswith(".")]


def read_run(directory: Path, *, level: Level | None, timeout_seconds: float) -> RunView:
    """`level` None: checkpoints are listed, not checked."""
    return _Reader(directory, level, timeout_seconds).read()


class _Reader:
    def __init__(self, directory: Path, level: Level | None, timeout_seconds: float) -> None:
        self._volume = Volume(str(directory.parent))
        self._layout = RunLayout(directory.name)
        self._level = level
        self._timeout_seconds = timeout_seconds
        self._view = RunView(directory)

    def read(self) -> RunView:
        view, layout = self._view, self._layout
        view.has_marker = bool(self._try(lambda: self._volume.exists(layout.marker)))
        view.marker = self._record(layout.marker, Marker.from_value)
        view.result = self._record(layout.result, Result.from_value)
        view.record = self._record(layout.run_record, RunRecord.from_value)
        view.superseded_by = self._record(layout.superseded_by, SupersededBy.from_value)
        view.head = self._try(lambda: highest_epoch(self._volume, layout)) or 0
        view.epochs = [self._epoch(number) for number in range(1, view.head + 1)]
        decided = next((one.decision for one in reversed(view.epochs) if one.decision is not None), None)
        if decided is not None:
            view.checkpoints = self._try(lambda: self._checkpoints(decided)) or []
        entries = self._try(lambda: self._volume.entries(layout.quarantine)) or []
        view.quarantined = [f"{QUARANTINE}/{entry.name}" for entry in entries]
        return view

    def _epoch(self, number: int) -> EpochView:
        volume, layout = self._volume, self._layout
        entries = self._try(lambda: volume.entries(layout.epoch(number))) or []
        slots = [slot for entry in entries if (slot := parse_end_name(entry.name)) is not None]
        ends = [self._record(layout.end(number, slot), EndRecord.from_value) for slot in slots]
        return EpochView(
            claim=self._try(lambda: read_claim(volume, layout, number)),
            epoch=number,
            decision=self._try(lambda: read_decision(volume, layout, number)),
            ends=tuple(end for end in ends if end is not None),
        )

    def _checkpoints(self, decided: Decision) -> list[CheckpointView]:
        volume, layout = self._volume, self._layout
        directory = decided.checkpoint_directory
        found = take_inventory(
            volume, layout, decided=decided, directory=directory, epoch=decided.epoch, chosen=Format.AUTO
        )
        earlier = [self._of_epoch(directory, one.epoch) for one in self._view.epochs if EPOCH_PLACEHOLDER in directory]
        every = {item.path: item for items in (*earlier, list(found.present)) for item in items}
        seen = read_seen(volume, layout, decided.epoch)
        usable = {one.path: one for one in eligible(found.judged, decided=decided, seen=seen)}
        ordered = sorted(every.values(), key=lambda item: (item.step, item.path))
        return [self._checkpoint(item, usable.get(item.path)) for item in ordered]

    def _of_epoch(self, directory: str, epoch: int) -> list[Found]:
        """What lies in the directory of another epoch, where each has its own."""
        inventory = take_inventory(
            self._volume, self._layout, decided=None, directory=directory, epoch=epoch, chosen=Format.AUTO
        )
        return list(inventory.present)

    def _checkpoint(self, item: Found, usable: Candidate | None) -> CheckpointView:
        epoch = usable.epoch if usable is not None else item.epoch
        verdict, sound = self._judge(item, usable) if self._level is not None else ("", None)
        return CheckpointView(item.path, item.step, epoch, usable is not None, verdict, sound)

    def _judge(self, item: Found, usable: Candidate | None) -> tuple[str, bool | None]:
        assert self._level is not None, "a check was asked for"
        run_id = self._view.record.run_id if self._view.record is not None else self._view.directory.name
        deadline = Deadline.after(self._timeout_seconds, Clock())
        context = Context(self._volume, self._layout, run_id, self._level, deadline)
        own = usable or Candidate(item.format, item.path, item.step, item.epoch or 0, None, item.facts)
        try:
            checked = check(context, own)
        except Refused as refused:
            return f"{refused.reason}: {refused.message}", False
        except OutOfTimeError:
            return f"not checked within {self._timeout_seconds:g} s", None
        return f"whole{f'; {checked.note}' if checked.note else ''}", True

    def _record(self, path: str, read: Callable[[Any, str], T]) -> T | None:
        return self._try(lambda: read_record(self._volume, path, read, limit=MAX_RECORD_BYTES))

    def _try(self, ask: Callable[[], T]) -> T | None:
        """What cannot be read is told, and the rest is shown all the same."""
        try:
            return ask()
        except _UNREADABLE as error:
            self._view.problems.append(str(error))
            return None
