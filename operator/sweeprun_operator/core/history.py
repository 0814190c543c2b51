"""Entries of history and what is counted from them: how an attempt began, how it ended, what a resume kept."""

from __future__ import annotations

from sweeprun_operator.api.status import (
    HISTORY,
    Attempt,
    Cause,
    Counts,
    Interruption,
    Kind,
    PhaseSeconds,
    RefusedCheckpoint,
    Savings,
    SinceProgress,
)
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Outcome

from .classify import KINDS
from .conditions import clip
from .draft import Draft


def newest(draft: Draft) -> Attempt | None:
    return draft.status.history[-1] if draft.status.history else None


def change_newest(draft: Draft, **changes: object) -> Draft:
    history = draft.status.history
    assert history, "an attempt was decided"
    return draft.update(history=[*history[:-1], history[-1].model_copy(update=changes)])


def append(draft: Draft, entry: Attempt) -> Draft:
    return draft.update(history=[*draft.status.history, entry][-HISTORY:])


def with_seconds(draft: Draft, **seconds: float) -> Draft:
    """Phases of the recovery that led to the newest attempt."""
    entry = newest(draft)
    assert entry is not None, "an attempt was decided"
    changes = {name: round(max(0.0, value), 3) for name, value in seconds.items()}
    return change_newest(draft, seconds=entry.seconds.model_copy(update=changes))


def interrupt(draft: Draft, interruption: Interruption) -> Draft:
    """Close the newest entry. Its end counts once, here; a seeming completion counts when prepare has judged it."""
    current = draft.current
    ran = 0.0
    if current.running_time is not None:
        ran = max(0.0, (interruption.time - current.running_time).total_seconds())
    entry, progress = newest(draft), draft.status.progress
    if progress is not None and entry is not None and entry.start_time is not None and progress.time < entry.start_time:
        progress = None  # of an attempt before
    draft = draft.update(running_seconds=draft.status.running_seconds + round(ran))
    draft = change_newest(
        draft, end_time=interruption.event_time or interruption.time, to_step=progress.step if progress else None
    )
    return draft if interruption.cause is Cause.COMPLETED else conclude(draft, interruption)


def conclude(draft: Draft, interruption: Interruption) -> Draft:
    """Write the cause, which is final, and count it."""
    kind = KINDS[interruption.cause]
    draft = change_newest(
        draft, cause=interruption.cause, kind=kind, evidence=clip(interruption.evidence), node=interruption.node
    )
    return draft.update(counts=_counted(draft.status.counts, kind))


def _counted(counts: Counts, kind: Kind) -> Counts:
    field = {Kind.DISRUPTION: "disruptions", Kind.FAILURE: "failures", Kind.NEVER_STARTED: "never_started"}.get(kind)
    return counts if field is None else counts.model_copy(update={field: getattr(counts, field) + 1})


def since_progress(before: SinceProgress, kind: Kind, *, progressed: bool, refused: bool) -> SinceProgress:
    """What has happened since the last progress, this end included.

    An attempt without progress is one that trained and got nowhere. One that was disrupted before its first
    checkpoint is none (how often it is disrupted is not its fault), unless what it wrote was `refused`.
    """
    base = SinceProgress() if progressed else before
    strike = not progressed and (kind is Kind.FAILURE or (kind is Kind.DISRUPTION and refused))
    return SinceProgress(
        disruptions=base.disruptions + (kind is Kind.DISRUPTION),
        failures=base.failures + (kind is Kind.FAILURE),
        never_started=base.never_started + (kind is Kind.NEVER_STARTED),
        attempts=base.attempts + strike,
    )


def recovery_seconds(draft: Draft, report: PrepareReport) -> PhaseSeconds:
    """Up to the decision: of the interruption before it; empty for a first start."""
    current = draft.current
    interruption = current.interruption
    if interruption is None:
        return PhaseSeconds(validation=report.validate_seconds)
    drained = current.drained_time or draft.now
    detect = None
    if interruption.event_time is not None:
        detect = max(0.0, (interruption.time - interruption.event_time).total_seconds())
    return PhaseSeconds(
        detect=detect,
        drain=max(0.0, (drained - interruption.time).total_seconds()),
        prepare=draft.seconds_since(drained),
        validation=report.validate_seconds,
    )


def refused_checkpoints(report: PrepareReport) -> list[RefusedCheckpoint]:
    return [
        RefusedCheckpoint(path=item.path, reason=item.reason, message=item.message, entry=item.entry)
        for item in report.refused[:5]
    ]


def gpu_seconds_in_base(draft: Draft, report: PrepareReport) -> int:
    """GPU time that went into the checkpoint from which the next attempt starts, seconds.

    The time of the ended attempt counts by the share of its steps that the checkpoint kept; where the checkpoint is
    older than that attempt's base, what the base held shrinks in the same proportion.
    """
    current, entry = draft.current, newest(draft)
    if report.outcome is not Outcome.RESUME or report.checkpoint is None:
        return 0
    if entry is None or current.interruption is None:
        return 0
    base, step = entry.from_step or 0, report.checkpoint.step
    if step < base:
        return round(current.base_gpu_seconds * step / base)
    if current.running_time is None:
        return current.base_gpu_seconds
    reached = max(entry.to_step or step, step)
    share = (step - base) / (reached - base) if reached > base else 0.0
    ran = max(0.0, (current.interruption.time - current.running_time).total_seconds())
    return current.base_gpu_seconds + round(ran * draft.children.gpus(draft.run) * share)


def with_savings(
    savings: Savings, *, outcome: Outcome, base_step: int, to_step: int | None, gpu_seconds: int
) -> Savings:
    """After each interruption: starting over would have repeated all steps up to the base, and its GPU time; what lies
    between the base and the highest step that was reached is repeated."""
    kept = base_step if outcome is Outcome.RESUME else 0
    return Savings(
        steps_kept=savings.steps_kept + kept,
        steps_repeated=savings.steps_repeated + max(0, (to_step or 0) - kept),
        gpu_seconds_kept=savings.gpu_seconds_kept + (gpu_seconds if outcome is Outcome.RESUME else 0),
    )
