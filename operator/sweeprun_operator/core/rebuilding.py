"""A status that knows less than its children do: lost, or set back, as by a restore from a backup.

Numbers go on behind the newest child, what runs is stopped, and the next prepare reads on the volume what the status no
longer says. Where the read was merely stale, the write of this status is refused, and nothing has happened.
"""

from __future__ import annotations

from sweeprun_operator.api.status import Cause, Current, Interruption, State

from . import history
from .draft import Draft
from .leftovers import newest_numbers

_EVIDENCE = "the status was lost or set back while the attempt was there"


def rebuild(draft: Draft) -> Draft:
    prepare, attempt = newest_numbers(draft.seen)
    before, counts = draft.status.current, draft.status.counts
    draft = _close(draft)
    attempts = max(counts.attempts, attempt + 1)
    current = Current(
        attempt=max(0, attempts - 1),
        prepare=max(prepare, before.prepare if before is not None else 0),
        state=State.DRAINING if attempt >= 0 else State.BACKOFF,
        since=draft.now,
        epoch=before.epoch if before is not None else 0,
        adoption_done=before.adoption_done if before is not None else False,
    )
    draft = draft.update(
        current=current,
        counts=counts.model_copy(update={"attempts": attempts}),
        start_time=draft.status.start_time or draft.now,
    )
    text = (
        f"there are children that the status does not know (prepare {prepare}, attempt {attempt}): it was lost or set "
        "back. What runs is stopped with full grace, and the run goes on from what the volume knows"
    )
    return draft.warn("StatusRebuilt", text).look_again(0)


def _close(draft: Draft) -> Draft:
    """The newest entry that the status has: how its attempt ended nobody knows any more."""
    newest = history.newest(draft)
    if newest is None or newest.cause is not None:
        return draft
    return history.conclude(draft, Interruption(cause=Cause.RETRIED, evidence=_EVIDENCE, time=draft.now))
