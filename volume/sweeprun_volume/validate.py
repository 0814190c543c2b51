"""Walk back from the newest checkpoint until one is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import Level, RefusalReason
from sweeprun_protocol.records import MAX_REFUSED, CheckpointRef, Refusal

from .clock import Clock, Deadline
from .formats import Checked, Context, Refused, format_of
from .lineage import Candidate
from .operations import Volume


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
    seconds: float
    note: str
    """What the check of the chosen one could not cover."""


def walk(
    volume: Volume,
    layout: RunLayout,
    candidates: Sequence[Candidate],
    *,
    run_id: str,
    level: Level,
    timeout_seconds: float,
    clock: Clock,
) -> Walk:
    """`candidates` newest first. Raises OutOfTimeError, VolumeError: no verdict then."""
    began = clock.monotonic()
    context = Context(volume, layout, run_id, level, Deadline.after(timeout_seconds, clock))
    refused: list[Refusal] = []
    passed: list[Refusal] = []
    total = 0
    for index, candidate in enumerate(candidates):
        try:
            checked = check(context, candidate)
        except Refused as error:
            total += error.bytes_read
            verdict = Refusal(candidate.path, error.reason, error.message[:300], error.entry, error.offset)
            (passed if error.reason is RefusalReason.NOT_RESUMABLE else refused).append(verdict)
            continue
        return Walk(
            chosen=candidate.ref(checked.digest or candidate.digest),
            older=tuple(item.ref(item.digest) for item in candidates[index + 1 :]),
            refused=tuple(refused[:MAX_REFUSED]),
            passed=tuple(passed),
            checked=index + 1,
            bytes=total + checked.bytes,
            seconds=clock.monotonic() - began,
            note=checked.note,
        )
    seconds = clock.monotonic() - began
    return Walk(None, (), tuple(refused[:MAX_REFUSED]), tuple(passed), len(candidates), total, seconds, "")


def check(context: Context, candidate: Candidate) -> Checked:
    """One checkpoint. Raises Refused, OutOfTimeError, VolumeError."""
    context.deadline.check()
    checked = format_of(candidate.format).check(context, candidate.path, step=candidate.step, epoch=candidate.epoch)
    if candidate.digest is not None and checked.digest not in (None, candidate.digest):
        raise Refused(
            RefusalReason.DIGEST_MISMATCH,
            f"its digest was {candidate.digest} when it was last judged and is {checked.digest} now",
            bytes_read=checked.bytes,
        )
    return checked
