"""What the next attempt starts from. Pure: everything was read before."""

from __future__ import annotations

from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import BlockedReason, OnNoValidCheckpoint, Outcome, StartReason
from sweeprun_protocol.records import MAX_ELIGIBLE, CheckpointRef, Decision, Refusal

from .errors import blocked
from .lineage import kept
from .validate import Walk


@dataclass(frozen=True)
class Situation:
    request: PrepareRequest
    epoch: int
    decided: Optional[Decision]
    """Of the newest decided epoch before; None: no attempt of ours was ever allowed."""
    adopted: bool
    """Somebody else began this run."""
    replaces: Optional[str]
    """Run whose checkpoints were all refused and whose place this one takes."""
    candidates: int
    """Checkpoints that could be read, refused ones included."""

    @property
    def begins(self) -> bool:
        return self.decided is None and not self.adopted


def needs_walk(situation: Situation) -> bool:
    return situation.request.resume and situation.candidates > 0


def choose(situation: Situation, walk: Optional[Walk], *, pinned_present: bool) -> Decision:
    """Raises Stopped: Blocked. A decision without slots says that a new run has to take this one's place."""
    request = situation.request
    if walk is not None and walk.chosen is not None:
        _check_pinned(situation, walk.chosen, pinned_present)
        return _resume(situation, walk, walk.chosen)
    refused, passed = (walk.refused, walk.passed) if walk is not None else ((), ())
    if not request.resume:
        if situation.begins:
            return _from_zero(situation, Outcome.FRESH, _fresh_reason(situation))
        return _from_zero(situation, Outcome.RESTART, StartReason.RESUME_NEVER)
    if request.from_step is not None:
        raise blocked(
            BlockedReason.STEP_NOT_FOUND,
            f"no whole checkpoint at or below step {request.from_step} may be read",
            refused=refused,
        )
    _check_pinned(situation, None, pinned_present)
    if refused:
        return _all_refused(situation, refused)
    if situation.begins:
        return _from_zero(situation, Outcome.FRESH, _fresh_reason(situation), passed)
    return _from_zero(situation, Outcome.RESTART, StartReason.NOTHING_COMMITTED, passed)


def known_to_exist(request: PrepareRequest, decided: Optional[Decision]) -> Optional[CheckpointRef]:
    """The pinned checkpoint, or the base of the last attempt, where records say that it may still be read: it must
    be there."""
    if decided is None:
        return None
    pinned, base = request.pinned, decided.base
    if pinned is None or not _may_be_read(pinned, decided) or (base is not None and base.step > pinned.step):
        return base
    return pinned


def _may_be_read(pinned: CheckpointRef, decided: Decision) -> bool:
    refused_before = any(refusal.path == pinned.path for refusal in decided.refused)
    return pinned.path in kept(decided) or (pinned.epoch == decided.epoch and not refused_before)


def _check_pinned(situation: Situation, chosen: Optional[CheckpointRef], present: bool) -> None:
    pinned = known_to_exist(situation.request, situation.decided)
    if pinned is None or present or situation.request.from_step is not None:
        return
    if chosen is None or chosen.step < pinned.step:
        raise blocked(
            BlockedReason.CHECKPOINT_MISSING,
            f"{pinned.path} (step {pinned.step}) was verified before and is gone, and no record says that it was "
            "removed: nothing older is used without your word (request Retry with fromStep)",
        )


def _resume(situation: Situation, walk: Walk, chosen: CheckpointRef) -> Decision:
    if situation.request.from_step is not None:
        reason = StartReason.REQUESTED_STEP
    else:
        reason = StartReason.WALKED_BACK if walk.refused else StartReason.NEWEST_CHECKPOINT
    sealed = (chosen, *(ref for ref in walk.older if ref.step <= chosen.step))
    message = f"resume from step {chosen.step} ({chosen.path})"
    if walk.refused:
        message += f"; {len(walk.refused)} newer refused, the newest {walk.refused[0].path}: {walk.refused[0].message}"
    if walk.note:
        message += f"; {walk.note}"
    message += _passed_over(walk.passed)
    return _decision(
        situation, Outcome.RESUME, reason, message, base=chosen, sealed=sealed[:MAX_ELIGIBLE], refused=walk.refused
    )


def _all_refused(situation: Situation, refused: tuple[Refusal, ...]) -> Decision:
    message = f"all {len(refused)} checkpoints refused, the newest {refused[0].path}: {refused[0].message}"
    policy = situation.request.on_no_valid_checkpoint
    if policy is OnNoValidCheckpoint.FAIL:
        raise blocked(BlockedReason.NO_VALID_CHECKPOINT, message, refused=refused)
    if policy is OnNoValidCheckpoint.RESTART_RUN:
        message = f"{message}; the run restarts from step 0 under its ID"
        return _decision(situation, Outcome.RESTART, StartReason.ALL_REFUSED, message, refused=refused)
    message = f"{message}; a new run takes its place"
    return _decision(situation, Outcome.FRESH, StartReason.ALL_REFUSED, message, refused=refused, slots=())


def _from_zero(
    situation: Situation, outcome: Outcome, reason: StartReason, passed: tuple[Refusal, ...] = ()
) -> Decision:
    texts = {
        StartReason.FIRST_START: "a new run starts",
        StartReason.ALL_REFUSED: f"a new run takes the place of {situation.replaces}, whose checkpoints were refused",
        StartReason.NOTHING_COMMITTED: "no checkpoint was committed: the same run starts again from step 0",
        StartReason.RESUME_NEVER: "the resume policy says so: the same run starts again from step 0",
    }
    return _decision(situation, outcome, reason, texts[reason] + _passed_over(passed))


def _passed_over(passed: tuple[Refusal, ...]) -> str:
    if not passed:
        return ""
    count = "1 checkpoint holds" if len(passed) == 1 else f"{len(passed)} checkpoints hold"
    return (
        f"; not used: {count} weights only, the newest {passed[0].path}: {passed[0].message} (a script that "
        "goes on from weights alone sets checkpoint.format)"
    )


def _fresh_reason(situation: Situation) -> StartReason:
    return StartReason.ALL_REFUSED if situation.replaces is not None else StartReason.FIRST_START


def _decision(
    situation: Situation,
    outcome: Outcome,
    reason: StartReason,
    message: str,
    *,
    base: Optional[CheckpointRef] = None,
    sealed: tuple[CheckpointRef, ...] = (),
    refused: tuple[Refusal, ...] = (),
    slots: Optional[tuple[str, ...]] = None,
) -> Decision:
    request = situation.request
    return Decision(
        epoch=situation.epoch,
        prepare=request.prepare,
        outcome=outcome,
        reason=reason,
        message=message[:1000],
        base=base,
        eligible=sealed,
        refused=refused,
        slots=request.slots if slots is None else slots,
        completion=request.completion,
        checkpoint_directory=request.checkpoint_directory,
    )
