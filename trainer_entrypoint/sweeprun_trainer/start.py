"""The start check: is this attempt still the newest, is this slot ours, is the resume point what was pinned?

It fails closed. What it refuses costs one attempt; what it let pass wrongly could cost the run.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.environ import PodEnvironment, RunEnvironment
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.layout import MANIFEST, RunLayout
from sweeprun_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, digest_of
from sweeprun_protocol.reasons import Format
from sweeprun_protocol.records import StartRecord
from sweeprun_volume.claims import highest_epoch
from sweeprun_volume.clock import Clock
from sweeprun_volume.decisions import read_decision, read_seen
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError, VolumeError
from sweeprun_volume.formats.tree import facts_of
from sweeprun_volume.operations import FILE, Volume
from sweeprun_volume.records_io import publish_record, read_record

VOLUME_ERRORS = (VolumeError, UnsafeEntryError, TooManyEntriesError, RecordError, OSError)
"""All that can come of the volume's functions when the volume does not answer as it should."""


class StartRefusedError(Exception):
    """Training must not start in this pod."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Place:
    """The run directory as a pod sees it, and who this pod is."""

    volume: Volume
    layout: RunLayout
    run: RunEnvironment
    pod: PodEnvironment

    @staticmethod
    def of(run: RunEnvironment, pod: PodEnvironment) -> Place:
        # the volume's root is elsewhere in a pod: nothing outside its run's directory concerns it
        return Place(Volume(run.run_dir), RunLayout(""), run, pod)

    @property
    def checkpoint_directory(self) -> str:
        """Relative to the run directory."""
        return os.path.relpath(self.run.checkpoint_dir, self.run.run_dir)

    @property
    def resume_path(self) -> Optional[str]:
        """Relative to the run directory."""
        return os.path.relpath(self.run.resume_from, self.run.run_dir) if self.run.resume_from else None


def check_start(place: Place, *, clock: Clock, settle_seconds: float, unwrapped: bool = False) -> None:
    """Make this slot of this epoch ours, or raise StartRefusedError. `unwrapped`: nobody will record its end.

    What another node wrote may show late, so what is absent is asked for again, up to `settle_seconds`; what
    contradicts is final.
    """
    with _failing_closed():
        _check_epoch(place, clock, settle_seconds)
        _check_resume_point(place, clock, settle_seconds)
        _take_slot(place, clock, unwrapped)
        # a claim made while we looked: the record above told nobody, since its prepare was through already
        _check_epoch(place, clock, 0.0)


@contextmanager
def _failing_closed() -> Iterator[None]:
    try:
        yield
    except (*VOLUME_ERRORS, ValueError) as error:  # whatever a tenant's file holds, it must not let anything start
        raise StartRefusedError(ExitCode.VOLUME_UNUSABLE, f"the run directory cannot be used: {error}") from error


def _check_epoch(place: Place, clock: Clock, settle_seconds: float) -> None:
    epoch = place.run.epoch
    head = 0

    def visible() -> bool:
        nonlocal head
        if not os.path.isdir(place.run.run_dir):
            return False  # prepare made it on another node a moment ago
        head = highest_epoch(place.volume, place.layout, at_least=epoch)
        return head >= epoch

    if not clock.wait_for(visible, seconds=settle_seconds):
        highest_epoch(place.volume, place.layout, at_least=epoch)  # says more, where the directory is the trouble
        raise StartRefusedError(
            ExitCode.VOLUME_UNUSABLE,
            f"the claim of epoch {epoch} does not show in {place.run.run_dir}, whose newest is {head}: is this the "
            "volume that prepare has seen?",
        )
    if head > epoch:
        raise StartRefusedError(ExitCode.STALE_EPOCH, f"epoch {head} was claimed: this attempt, of {epoch}, is over")


def _take_slot(place: Place, clock: Clock, unwrapped: bool) -> None:
    run, pod = place.run, place.pod
    path = place.layout.start(run.epoch, pod.slot)
    mine = StartRecord(
        epoch=run.epoch,
        slot=pod.slot,
        pod_uid=pod.pod_uid,
        pod_name=pod.pod_name,
        node=pod.node,
        time=clock.now(),
        unwrapped=unwrapped,
    )
    if publish_record(place.volume, path, mine):
        return
    found = read_record(place.volume, path, StartRecord.from_value)
    if found is None:
        raise RecordError(path, "was published by somebody and cannot be opened")
    if found.pod_uid != pod.pod_uid:
        raise StartRefusedError(
            ExitCode.ATTEMPT_REUSED,
            f"pod {found.pod_name} (UID {found.pod_uid}, node {found.node}) already started as {pod.slot} in epoch "
            f"{run.epoch}: two processes in one slot may both live, so that this attempt is over",
        )


def _check_resume_point(place: Place, clock: Clock, settle_seconds: float) -> None:
    path = place.resume_path
    if path is None:
        return
    check = _check_own if place.run.resume_format == str(Format.SWEEPRUN) else _check_foreign
    verdict: Optional[str] = ""

    def settled() -> bool:
        nonlocal verdict
        verdict = check(place, path)
        return verdict != _ABSENT

    clock.wait_for(settled, seconds=settle_seconds)
    if verdict is not None:
        raise StartRefusedError(ExitCode.RESUME_POINT_LOST, f"resume point {path}: {verdict}")


_ABSENT = "it is not there"


def _check_own(place: Place, path: str) -> Optional[str]:
    """What is wrong with a checkpoint of ours by manifest and sizes; None: nothing. Prepare has read every byte."""
    name = posixpath.join(path, MANIFEST)
    data = _read(place.volume, name)
    if data is None:
        return _ABSENT
    if digest_of(data) != place.run.resume_digest:
        return f"its digest is {digest_of(data)}, {place.run.resume_digest} was pinned"
    for file in Manifest.decode(data, where=name).files:
        facts = place.volume.facts(posixpath.join(path, file.path))
        if facts is None or facts.kind != FILE:
            return f"{file.path} is missing"
        if facts.size != file.size:
            return f"{file.path} has {facts.size} bytes, {file.size} were pinned"
    return None


def _read(volume: Volume, path: str) -> Optional[bytes]:
    return volume.read(path, limit=MAX_MANIFEST_BYTES)


def _check_foreign(place: Place, path: str) -> Optional[str]:
    """Without a manifest: size and time of writing must be those that prepare saw when it read it."""
    if not place.volume.exists(path):
        return _ABSENT
    facts = facts_of(place.volume, path)
    if facts is None:
        return "it is no checkpoint: a device, a link inside, or too many files"
    decision = read_decision(place.volume, place.layout, place.run.epoch)
    if decision is None:
        return f"epoch {place.run.epoch} has no decision"
    pinned = read_seen(place.volume, place.layout, decision).get(path)
    if pinned is None:
        return "prepare did not see it"
    if not facts.same_content(pinned):
        return f"it was written again: {facts.size} bytes now, {pinned.size} when it was checked"
    return None
