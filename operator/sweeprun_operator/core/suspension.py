"""spec.suspend: what runs is stopped with full grace, what has not begun is withdrawn, nothing starts until it ends."""

from __future__ import annotations

from sweeprun_operator.api.status import Cause, Interruption, State
from sweeprun_protocol.reasons import Outcome

from . import draining, finishing, preparing
from .draft import Draft
from .observation import HelperJob


def hold(draft: Draft) -> Draft:
    """From Preparing, Initializing or Backoff. What prepare did on the volume stands: the next one builds on it."""
    if draft.current.state is State.BACKOFF and draft.current.outcome is not None:
        asked = Interruption(cause=Cause.SUSPENDED, evidence="spec.suspend is true", time=draft.now)
        return draining.begin(draft, asked)
    return preparing.withdraw(draft).enter(State.HELD, outcome=None, not_before=None).unstuck()


def is_judged(draft: Draft, job: HelperJob | None) -> bool:
    """Suspended or not: a run that seems to be complete is not held before prepare has said whether it is."""
    if job is not None and job.report is not None:
        return job.report.outcome is Outcome.COMPLETED
    if job is not None and preparing.no_answer(job) is not None:
        return False
    return finishing.seems_complete(draft)


def go_on(draft: Draft) -> Draft:
    return preparing.begin_prepare(draft)
