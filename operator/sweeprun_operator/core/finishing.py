"""The two ways a run ends, and what happens afterwards."""

from __future__ import annotations

from datetime import timedelta

from sweeprun_operator.api.status import Cause, ConditionStatus, ConditionType, Current, State

from .draft import Draft
from .plan import DeleteRun


def complete(draft: Draft, message: str) -> Draft:
    draft = draft.condition(ConditionType.COMPLETE, ConditionStatus.TRUE, "Completed", message)
    return _finish(draft).tell("Completed", message)


def fail(draft: Draft, reason: str, message: str) -> Draft:
    """Terminal until a Retry; nothing on the volume is touched, and its marker stays."""
    draft = draft.condition(ConditionType.FAILED, ConditionStatus.TRUE, reason, message)
    return _finish(draft).warn("Failed", f"{reason}: {message}")


def stop(draft: Draft) -> Draft:
    return fail(draft, "Stopped", "a request said Stop; the checkpoints are kept")


def seems_complete(draft: Draft) -> bool:
    """Every rank ended well, and prepare has not judged it yet: it may, whatever was asked for meanwhile."""
    ended = draft.current.interruption
    return ended is not None and ended.cause is Cause.COMPLETED


def _finish(draft: Draft) -> Draft:
    if draft.status.current is None:
        draft = draft.update(current=Current(attempt=0, prepare=0, state=State.FINISHED, since=draft.now))
    return draft.unstuck().update(completion_time=draft.now).enter(State.FINISHED, not_before=None, doubt=None)


def finished(draft: Draft) -> Draft:
    """Delete the object once its time has come."""
    seconds, ended = draft.spec.ttl_seconds_after_finished, draft.status.completion_time
    if seconds is None or ended is None:
        return draft
    left = (ended + timedelta(seconds=seconds) - draft.now).total_seconds()
    if left > 0:
        return draft.look_again(left)
    return draft.act(DeleteRun(draft.seen.run.metadata.uid))
