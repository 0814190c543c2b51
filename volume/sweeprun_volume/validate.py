"""Walk back from the newest checkpoint until one is whole."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional, Union

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.manifest import ALGORITHMS
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_protocol.records import MAX_REFUSED, CheckpointRef, Refusal

from .clock import Clock, Deadline
from .formats import Checked, Context, Refused, format_of
from .formats.tree import facts_of
from .lineage import Candidate
from .operations import Volume
from .verdicts import Journal, Judge, refusal_of


@dataclass(frozen=True)
class Walk:
    chosen: Optional[CheckpointRef]
    """Newest checkpoint that is whole."""
    older: tuple[CheckpointRef, ...]
    """Not looked at: behind the chosen one."""
    refused: tuple[Refusal, ...]
    passed: tuple[Refusal, ...]
    """Nothing is wrong with them, but they hold weights only: they stay where they are."""
    checked: int
    bytes: int
    """That this walk read; a verdict that stood from before costs none."""
    seconds: float
    note: str
    """What the check of the chosen one could not cover."""
    remarks: tuple[str, ...] = ()
    """What could not be read from or written into the journal of verdicts."""


@dataclass(frozen=True)
class _Opinion:
    """Of one checkpoint, by a look or by a verdict that stands."""

    refusal: Optional[Refusal]
    digest: Optional[str]
    note: str
    bytes: int


def walk(
    volume: Volume,
    layout: RunLayout,
    candidates: Sequence[Candidate],
    *,
    run_id: str,
    judge: Judge,
    timeout_seconds: float,
    clock: Clock,
    volume_time: Optional[float] = None,
) -> Walk:
    """`candidates` newest first; `volume_time` as Journal takes it.

    Raises OutOfTimeError, VolumeError: no verdict then; those before are recorded.
    """
    began = clock.monotonic()
    deadline = Deadline.after(timeout_seconds, clock)
    context = Context(volume, layout, run_id, judge.level, deadline, resumable_only=judge.chosen is Format.AUTO)
    journal = Journal(volume, layout, volume_time=volume_time)
    refused: list[Refusal] = []
    passed: list[Refusal] = []
    chosen: Optional[CheckpointRef] = None
    checked = total = 0
    note = ""
    for candidate in candidates:
        opinion = _judge(context, journal, judge, candidate)
        checked += 1
        total += opinion.bytes
        if opinion.refusal is None:
            chosen, note = candidate.ref(opinion.digest or candidate.digest), opinion.note
            break
        weights_only = opinion.refusal.reason is RefusalReason.NOT_RESUMABLE
        (passed if weights_only else refused).append(opinion.refusal)
    return Walk(
        chosen=chosen,
        older=tuple(item.ref(item.digest) for item in candidates[checked:]),
        refused=tuple(refused[:MAX_REFUSED]),
        passed=tuple(passed),
        checked=checked,
        bytes=total,
        seconds=clock.monotonic() - began,
        note=note,
        remarks=tuple(journal.remarks),
    )


def _judge(context: Context, journal: Journal, judge: Judge, candidate: Candidate) -> _Opinion:
    """By the verdict that stands, else by a look, which is recorded."""
    context.deadline.check()
    clock = context.deadline.clock
    place = posixpath.join(context.layout.directory, candidate.path)
    facts = facts_of(context.volume, place)
    known = None
    if facts is not None:
        stands = journal.standing(judge, candidate, facts)
        if stands is not None:
            return _Opinion(stands.refusal, stands.digest, stands.note, 0)
        if judge.level is Level.FULL and candidate.format is not Format.SWEEPRUN:
            known = journal.known(candidate, facts)
    began = clock.monotonic()
    found = look_at(replace(context, known=known), candidate)
    seconds = clock.monotonic() - began
    # what changes meanwhile is of no state that could be named, and none to be seen again
    changed = isinstance(found, Refused) and found.reason is RefusalReason.CHANGED
    if facts is not None and not changed and facts_of(context.volume, place) == facts:
        first = known is None
        verdict = judge.verdict(candidate, facts, found, seconds=seconds, time=clock.now(), first=first)
        journal.publish(verdict)
    if isinstance(found, Refused):
        return _Opinion(refusal_of(candidate.path, found), None, "", found.bytes_read)
    return _Opinion(None, found.digest, found.note, found.bytes)


def look_at(context: Context, candidate: Candidate) -> Union[Checked, Refused]:
    try:
        return check(context, candidate)
    except Refused as refused:
        return refused


def check(context: Context, candidate: Candidate) -> Checked:
    """One checkpoint. Raises Refused, OutOfTimeError, VolumeError."""
    checked = _check(context, candidate)
    if candidate.digest is None or checked.digest in (None, candidate.digest):
        return checked
    if checked.contents is not None and context.known is None:
        # whoever judged it then may have had another algorithm, and the digest does not tell
        for algorithm in ALGORITHMS:
            if algorithm != checked.contents.algorithm:
                again = _check(replace(context, algorithm=algorithm), candidate)
                if again.digest == candidate.digest:
                    return again
    raise Refused(
        RefusalReason.DIGEST_MISMATCH,
        f"its digest was {candidate.digest} when it was last judged and is {checked.digest} now",
        bytes_read=checked.bytes,
    )


def _check(context: Context, candidate: Candidate) -> Checked:
    context.deadline.check()
    judge = format_of(candidate.format)
    return judge.check(context, candidate.path, step=candidate.step, epoch=candidate.epoch)
