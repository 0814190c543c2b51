"""What prepare answered, applied to the status. The answer is untrusted input: what contradicts itself is no answer."""

from __future__ import annotations

from datetime import timedelta

from sweeprun_operator.api.status import (
    Attempt,
    Cause,
    CheckpointStatus,
    Current,
    Interruption,
    Kind,
    PreviousRun,
    Progress,
    Result,
    State,
)
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import BlockedReason, Outcome, StartReason

from . import attempts, avoiding, budgets, finishing, history, preparing
from .draft import Draft
from .observation import OwnerState, Role

FATAL = frozenset(
    {
        BlockedReason.NO_VALID_CHECKPOINT,
        BlockedReason.RUN_ID_TAKEN,
        BlockedReason.RUN_COMPLETED,
        BlockedReason.STEP_NOT_FOUND,
        BlockedReason.INIT_INVALID,
    }
)
"""Waiting changes nothing: somebody has to decide. A Retry goes on."""
MAX_PREVIOUS_RUNS = 5
STARTS = frozenset({Outcome.RESUME, Outcome.RESTART, Outcome.FRESH})


def apply(draft: Draft, report: PrepareReport) -> Draft:
    wrong = _contradiction(draft, report)
    if wrong is not None:
        return preparing.failed(draft, f"prepare {report.prepare} gave an answer that cannot be used: {wrong}")
    if report.outcome in STARTS:
        return _start(draft, report)
    if report.outcome is Outcome.COMPLETED:
        return _complete(draft, report)
    if report.outcome is Outcome.CANDIDATES:
        return _adopt(draft, report)
    if report.outcome is Outcome.INIT_REQUIRED:
        return preparing.make_job(draft.unstuck().enter(State.INITIALIZING), Role.INIT)
    if report.outcome is Outcome.SUPERSEDED:
        return _superseded(draft, report)
    return _blocked(draft, report)


def _contradiction(draft: Draft, report: PrepareReport) -> str | None:
    """Why the answer cannot be used, or None."""
    if report.outcome is Outcome.BLOCKED and report.blocked is None:
        return "Blocked without a reason"
    if report.outcome is Outcome.INIT_REQUIRED and draft.spec.init is None:
        return "InitRequired, but spec.init is absent"
    if report.outcome is Outcome.INIT_REQUIRED and draft.current.state is State.INITIALIZING:
        return "InitRequired once more"
    if report.outcome is Outcome.CANDIDATES and (draft.status.run_id is not None or draft.current.adoption_done):
        return "Candidates, though none were asked for"
    if report.outcome not in STARTS:
        return None
    if report.run_id is None or report.epoch < 1 or report.volume_id is None or report.reason is None:
        return f"{report.outcome} without run ID, epoch, volume ID or reason"
    if draft.spec.run_id is not None and report.run_id != draft.spec.run_id:
        return f"run {report.run_id}, but spec.runId names {draft.spec.run_id}"
    if (report.outcome is Outcome.RESUME) != (report.checkpoint is not None):
        return f"{report.outcome} and its checkpoint do not go together"
    if report.run_id == draft.status.run_id and report.epoch <= draft.current.epoch:
        return f"epoch {report.epoch} is not later than epoch {draft.current.epoch}, which was decided before"
    return None


# -- answers that ask for more -----------------------------------------------------------------------------------------


def _adopt(draft: Draft, report: PrepareReport) -> Draft:
    """The first candidate whose owner is proved to be gone; prepare lists them in its order of preference."""
    states = [(item, draft.seen.owners.get(item.run_id, OwnerState.ALIVE)) for item in report.candidates]
    gone = next((item for item, state in states if state is OwnerState.GONE), None)
    if gone is not None:
        return preparing.begin_prepare(draft.unstuck(), adopt_run_id=gone.run_id, adopt_epoch=gone.epoch)
    if draft.spec.run_id is not None:
        # the named run is wanted and no other: its owner may be on its way out
        text = f"run {draft.spec.run_id} is incomplete and its owner is not proved to be gone: {report.message}"
        return preparing.failed(draft, text, stuck="OwnerNotGone")
    ending = next((item for item, state in states if state is OwnerState.ENDING), None)
    if ending is not None:
        return _wait_for(draft, ending.run_id)
    return preparing.begin_prepare(draft.unstuck(), adoption_done=True, adopt_run_id=None, adopt_epoch=None)


def _wait_for(draft: Draft, run_id: str) -> Draft:
    """A SweepRun was deleted, or has ended, and this one follows it: begun at once, it would begin at step 0."""
    draft = draft.look_again(preparing.DRAIN_SECONDS)
    if draft.seconds_since(draft.current.since) < preparing.PENDING_SECONDS:
        return draft
    text = f"run {run_id} can be taken over once the pods of its SweepRun, which is gone or has ended, are gone too"
    return draft.stuck("OwnerEnding", text)


def _superseded(draft: Draft, report: PrepareReport) -> Draft:
    """By another pass whose status this one is to read; or the status was lost since: numbers go on behind the
    volume's."""
    head = report.head_prepare or 0
    if head > draft.current.prepare:
        draft = draft.move(prepare=head)
    return preparing.failed(draft, f"prepare {report.prepare} was superseded by a later one: {report.message}")


def _blocked(draft: Draft, report: PrepareReport) -> Draft:
    reason = report.blocked
    assert reason is not None, "checked before"
    if reason is BlockedReason.ADOPTION_LOST:
        return preparing.adoption_lost(draft, report.message)
    draft = _tell_refused(draft, report)
    if reason in FATAL:
        if draft.current.interruption is not None:
            draft = _conclude_unfinished(draft)
        return finishing.fail(draft.move(from_step=None), str(reason), report.message)
    return preparing.failed(draft, report.message, stuck=str(reason), event="Blocked")


def _tell_refused(draft: Draft, report: PrepareReport) -> Draft:
    for item in report.refused[:5]:
        entry = f" ({item.entry})" if item.entry else ""
        draft = draft.warn("CheckpointRefused", f"{item.path}{entry}: {item.reason}: {item.message}")
    return draft


# -- how the attempt before ended --------------------------------------------------------------------------------------


def _recall(draft: Draft, report: PrepareReport) -> Draft:
    """Of a run whose status was lost: the attempts that the volume knows of."""
    earlier, counts = report.earlier, draft.status.counts
    if draft.status.run_id is not None or earlier is None:
        return draft
    known = {"attempts": earlier.attempts, "resumes": earlier.resumes, "restarts": earlier.restarts}
    return draft.update(
        counts=counts.model_copy(update={name: max(count, getattr(counts, name)) for name, count in known.items()})
    )


def _settle(draft: Draft, report: PrepareReport) -> Draft:
    """Close the books of the attempt before: what it reached, whether that was progress, what its end counts as."""
    entry = history.newest(draft)
    if entry is None or draft.current.interruption is None:
        return draft
    saved = report.checkpoint.step if report.checkpoint is not None else None
    if saved is not None and saved <= (entry.from_step or 0):
        saved = None  # it was there before
    reached = [step for step in (report.last_step, entry.to_step, saved) if step is not None]
    draft = history.change_newest(draft, to_step=max(reached, default=None))
    if report.first_step_seconds is not None:
        draft = history.with_seconds(draft, first_step=report.first_step_seconds)
    if report.outcome is Outcome.COMPLETED:
        return _conclude_completed(draft)
    draft = _conclude_unfinished(draft)
    closed = history.newest(draft)
    assert closed is not None
    pinned = report.checkpoint.step if report.checkpoint is not None else 0
    since = history.since_progress(
        draft.status.since_progress,
        closed.kind or Kind.NEUTRAL,
        progressed=pinned > (closed.from_step or 0),
        refused=report.refused_count > 0,
    )
    return draft.update(since_progress=since)


def _conclude_completed(draft: Draft) -> Draft:
    interruption = draft.current.interruption
    assert interruption is not None
    return history.conclude(draft, interruption) if interruption.cause is Cause.COMPLETED else draft


def _conclude_unfinished(draft: Draft) -> Draft:
    """An attempt that seemed complete and was not: told to stop where a disruption was seen, else its own error."""
    interruption = draft.current.interruption
    if interruption is None or interruption.cause is not Cause.COMPLETED:
        return draft
    cause = draft.current.disruption or Interruption(
        cause=Cause.APPLICATION,
        evidence=f"{interruption.evidence}, but the run is not complete: a slot was told to stop, has no end record, "
        "or did not call complete()",
        time=interruption.time,
    )
    return history.conclude(draft.move(interruption=cause), cause)


def _complete(draft: Draft, report: PrepareReport) -> Draft:
    draft = _identify(_settle(_recall(draft, report), report), report)
    draft = draft.update(result=Result(step=report.step, metrics=report.metrics or {}))
    if report.step is not None:
        draft = draft.update(progress=Progress(step=report.step, time=draft.now))
    where = f" at step {report.step}" if report.step is not None else ""
    return finishing.complete(draft, f"run {report.run_id or draft.status.run_id} is complete{where}")


# -- the next attempt --------------------------------------------------------------------------------------------------


def _start(draft: Draft, report: PrepareReport) -> Draft:
    if draft.current.stopping:
        return finishing.stop(_settle(draft, report).move(interruption=None))
    if not draft.accepted:
        return draft
    if draft.children.replicas(draft.run) != draft.current.replicas:
        # prepare sealed the slots of another template: completion could never be judged by them
        return preparing.begin_prepare(draft)
    base_seconds = 0
    before = draft.current.interruption
    draft = _tell_refused(_settle(_recall(draft, report), report), report).unstuck()
    closed = history.newest(draft)
    if before is not None and closed is not None:
        base_seconds = history.gpu_seconds_in_base(draft, report)
        draft = draft.update(
            savings=history.with_savings(
                draft.status.savings,
                outcome=report.outcome,
                base_step=report.checkpoint.step if report.checkpoint is not None else 0,
                to_step=closed.to_step,
                gpu_seconds=base_seconds,
            )
        )
    seconds = history.recovery_seconds(draft, report)
    fresh = draft.status.run_id is not None and report.run_id != draft.status.run_id
    draft = _identify(draft, report)
    limit = budgets.spent(draft.spec.limits, draft.status)
    if limit is not None:
        # its end is settled: a Retry must not count it again
        draft = draft.move(epoch=report.epoch, from_step=None, interruption=None)
        return finishing.fail(draft, limit.reason, limit.message)
    entry = Attempt(
        attempt=draft.status.counts.attempts,
        epoch=report.epoch,
        outcome=report.outcome,
        reason=report.reason,
        from_step=report.checkpoint.step if report.checkpoint is not None else None,
        start_time=draft.now,
        template_hash=draft.children.template_hash(draft.run),
        refused=history.refused_checkpoints(report),
        seconds=seconds,
    )
    kind = closed.kind if before is not None and closed is not None else None
    draft = _count(avoiding.judge(history.append(draft, entry)), report, fresh=fresh)
    draft = _tell_start(draft, report, entry)
    return _decided(draft, entry, kind, base_seconds)


def _decided(draft: Draft, entry: Attempt, ended: Kind | None, base_seconds: int) -> Draft:
    """In Backoff until the wait is over; without a wait the workload is made at once, after the status."""
    seconds = budgets.backoff_seconds(draft.spec.limits.backoff, ended, draft.status.since_progress)
    before = draft.current
    current = Current(
        attempt=entry.attempt,
        prepare=before.prepare,
        state=State.BACKOFF if seconds else State.STARTING,
        since=draft.now,
        epoch=entry.epoch,
        outcome=entry.outcome,
        reason=entry.reason,
        template_hash=entry.template_hash,
        replicas=before.replicas,
        not_before=draft.now + timedelta(seconds=seconds) if seconds else None,
        adoption_done=before.adoption_done,
        base_gpu_seconds=base_seconds,
        prepared_time=draft.now,
    )
    draft = draft.update(current=current).look_again(0)
    if seconds:
        return draft.tell("Waiting", f"attempt {entry.attempt} starts in {seconds:.0f} s")
    return attempts.start(draft)


def _identify(draft: Draft, report: PrepareReport) -> Draft:
    """Who the run is now; the run left behind is kept in previousRunIds."""
    status = draft.status
    old, new = status.run_id, report.run_id or status.run_id
    if old is not None and new != old:
        left = PreviousRun(run_id=old, reason=report.reason or StartReason.ALL_REFUSED, time=draft.now)
        draft = draft.update(previous_run_ids=[*status.previous_run_ids, left][-MAX_PREVIOUS_RUNS:])
    tracked = report.wandb_run_id or status.wandb_run_id
    if new != old:
        draft = draft.update(previous_wandb_run_id=None)
    elif tracked != status.wandb_run_id:
        draft = draft.update(previous_wandb_run_id=status.wandb_run_id)
    draft = draft.update(
        run_id=new,
        volume_id=report.volume_id or status.volume_id,
        config_digest=report.config_digest or status.config_digest,
        config_file=report.config_file or status.config_file,
        wandb_run_id=tracked,
    )
    if report.checkpoint is not None:
        return draft.update(
            checkpoint=CheckpointStatus(
                step=report.checkpoint.step,
                epoch=report.checkpoint.epoch,
                path=report.checkpoint.path,
                digest=report.checkpoint.digest,
                format=report.checkpoint.format,
                verified_time=draft.now,
            )
        )
    return draft if report.outcome is Outcome.COMPLETED else draft.update(checkpoint=None)


def _count(draft: Draft, report: PrepareReport, *, fresh: bool) -> Draft:
    counts = draft.status.counts
    return draft.update(
        counts=counts.model_copy(
            update={
                "attempts": counts.attempts + 1,
                "resumes": counts.resumes + (report.outcome is Outcome.RESUME),
                "restarts": counts.restarts + (report.outcome is Outcome.RESTART),
                "fresh_starts": counts.fresh_starts + fresh,
            }
        )
    )


def _tell_start(draft: Draft, report: PrepareReport, entry: Attempt) -> Draft:
    if report.adopted and entry.attempt == 0:
        draft = draft.tell("Adopted", f"run {report.run_id} was left incomplete by another owner and is taken over")
    number = f"attempt {entry.attempt} of run {report.run_id}"
    if report.outcome is Outcome.RESUME and report.checkpoint is not None:
        where = f"step {report.checkpoint.step} ({report.checkpoint.path})"
        return draft.tell("Resumed", f"{number} goes on from {where}: {report.reason}: {report.message}")
    text = f"{number} starts at step 0: {report.reason}: {report.message}"
    if report.reason is StartReason.ALL_REFUSED:
        return draft.warn("FreshStart" if report.outcome is Outcome.FRESH else "Restarted", text)
    return draft.tell("Started" if report.outcome is Outcome.FRESH else "Restarted", text)
