"""spec.suspend: what runs is stopped with full grace, what has not begun is withdrawn, nothing starts until it ends."""

from __future__ import annotations

from sweeprun_operator.api.status import Cause, Interruption, State

from . import draining, preparing
from .draft import Draft


def hold(draft: Draft) -> Draft:
    """From Preparing, Initializing or Backoff. What prepare did on the volume stands: the next one builds on it."""
    if draft.current.state is State.BACKOFF and draft.current.outcome is not None:
        asked = Interruption(cause=Cause.SUSPENDED, evidence="spec.suspend is true", time=draft.now)
        return draining.begin(draft, asked)
    return preparing.withdraw(draft).enter(State.HELD, outcome=None, not_before=None).unstuck()


def go_on(draft: Draft) -> Draft:
    return preparing.begin_prepare(draft)
