"""Reads run directories: claims, epochs, decisions, ends, checkpoints, verdicts, quarantine; and checkpoints that lie
there without a run. Changes and unpickles nothing."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sweeprun_protocol.codec import MAX_RECORD_BYTES, RecordError
from sweeprun_protocol.layout import CLAIMS, EPOCH_PLACEHOLDER, QUARANTINE, RESULT, RunLayout, parse_end_name
from sweeprun_protocol.reasons import Format, Level
from sweeprun_protocol.records import Claim, Decision, EndRecord, Marker, Result, RunRecord, SupersededBy
from sweeprun_volume.claims import highest_epoch, read_claim
from sweeprun_volume.decisions import read_decision, read_seen
from sweeprun_volume.discovery import take_inventory
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError, VolumeError
from sweeprun_volume.lineage import Found, eligible
from sweeprun_volume.operations import Volume
from sweeprun_volume.records_io import read_record

from .checkpoints import CheckpointView, Examiner, checkpoint_at, checkpoints_in

T = TypeVar("T")

MAX_DEPTH = 6
"""A run lies at most this deep below what is inspected."""
_UNREADABLE = (RecordError, UnsafeEntryError, VolumeError, TooManyEntriesError)


class NothingFoundError(Exception):
    """Nothing of this kind lies there; the message says where was looked."""


@dataclass(frozen=True, slots=True)
class EpochView:
    claim: Claim | None
    epoch: int
    decision: Decision | None
    ends: tuple[EndRecord, ...]


@dataclass(slots=True)
class RunView:
    directory: Path
    alone: bool = False
    """Checkpoints without a run: there are no records of ours."""
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
        if CLAIMS in below or (RESULT in files and _is_ours(directory)):
            yield directory
            below.clear()
        elif directory.count(os.sep) - top.count(os.sep) >= MAX_DEPTH:
            below.clear()
        else:
            below[:] = [name for name in below if not name.startswith(".")]


def _is_ours(directory: str) -> bool:
    """Other programs write files of this name as well."""
    try:
        return read_record(Volume(directory), RESULT, Result.from_value) is not None
    except _UNREADABLE:
        return False


def read_checkpoints(path: Path, *, level: Level | None, timeout_seconds: float) -> RunView:
    """Of a directory without a run, or `path` itself where that is a checkpoint. Raises NothingFoundError."""
    view = RunView(path, alone=True)
    place = path.resolve()
    volume = Volume(str(place.parent))
    try:
        one = checkpoint_at(volume, place.name)
        if one is None and place.is_dir():
            volume = Volume(str(place))
        found = [one] if one is not None else checkpoints_in(volume) if place.is_dir() else []
        if not found:
            raise NothingFoundError(f"neither a run nor a checkpoint lies in {path}, nor in directories below it")
        examiner = Examiner(volume, RunLayout(""), run_id=None, level=level, timeout_seconds=timeout_seconds)
        view.checkpoints = [examiner.examine(item, None) for item in found]
        view.problems = examiner.problems
    except _UNREADABLE as error:
        view.problems.append(str(error))
    return view


def read_run(directory: Path, *, level: Level | None, timeout_seconds: float) -> RunView:
    """`level` None: checkpoints are listed, not checked."""
    return _Reader(directory, level, timeout_seconds).read()


class _Reader:
    def __init__(self, directory: Path, level: Level | None, timeout_seconds: float) -> None:
        place = directory.resolve()  # a link to a run is followed here, and no link below it
        self._volume = Volume(str(place.parent))
        self._layout = RunLayout(place.name)
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
        seen = read_seen(volume, layout, decided)
        usable = {one.path: one for one in eligible(found.judged, decided=decided, seen=seen)}
        ordered = sorted(every.values(), key=lambda item: (item.step, item.path))
        examiner = Examiner(
            volume,
            layout,
            run_id=self._view.record.run_id if self._view.record is not None else posixpath.basename(layout.directory),
            level=self._level,
            timeout_seconds=self._timeout_seconds,
        )
        try:
            return [examiner.examine(item, usable.get(item.path)) for item in ordered]
        finally:
            self._view.problems += examiner.problems

    def _of_epoch(self, directory: str, epoch: int) -> list[Found]:
        """What lies in the directory of another epoch, where each has its own."""
        inventory = take_inventory(
            self._volume, self._layout, decided=None, directory=directory, epoch=epoch, chosen=Format.AUTO
        )
        return list(inventory.present)

    def _record(self, path: str, read: Callable[[Any, str], T]) -> T | None:
        return self._try(lambda: read_record(self._volume, path, read, limit=MAX_RECORD_BYTES))

    def _try(self, ask: Callable[[], T]) -> T | None:
        """What cannot be read is told, and the rest is shown all the same."""
        try:
            return ask()
        except _UNREADABLE as error:
            self._view.problems.append(str(error))
            return None
