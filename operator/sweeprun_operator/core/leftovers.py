"""Children by their numbers: those that the status does not know yet, and older ones, which are leftovers."""

from __future__ import annotations

from sweeprun_operator.api.status import Current, State

from .draft import Draft
from .observation import HelperJob, Observation, Role
from .plan import ChildKind, Delete

ENDED = frozenset({State.PREPARING, State.INITIALIZING, State.HELD, State.FINISHED})
"""States in which nothing of the newest attempt may be left; so is Backoff before the next prepare."""


def newer_than_status(seen: Observation) -> bool:
    """There is a child that the status has not numbered yet.

    It was made by a pass whose status this read does not show, or the status was lost or set back since. A write that
    has this read as its precondition tells the one from the other.
    """
    status = seen.run.status
    prepare, attempt = newest_numbers(seen)
    known = status.current.prepare if status.current is not None else -1
    decided = status.counts.attempts
    if prepare > known or attempt >= decided:
        return True
    waits = status.current is not None and status.current.state is State.BACKOFF and status.current.outcome is not None
    return waits and attempt == decided - 1


def newest_numbers(seen: Observation) -> tuple[int, int]:
    """Of the children that are there: prepare and attempt; -1 where there is none."""
    prepares = [job.number for job in seen.jobs if job.owned]
    attempts = [workload.attempt for workload in seen.workloads if workload.owned]
    attempts += [pod.attempt for pod in seen.pods]
    return max(prepares, default=-1), max(attempts, default=-1)


def remove(draft: Draft) -> Draft:
    if draft.status.current is None:
        return draft
    current = draft.current
    for job in draft.seen.jobs:
        if job.owned and not job.deleting and _is_over(job, current):
            draft = draft.act(Delete(ChildKind.JOB, job.name, job.uid))
    oldest = current.attempt + (1 if has_ended(draft) else 0)
    for workload in draft.seen.workloads:
        if workload.owned and not workload.deleting and workload.attempt < oldest:
            draft = draft.act(Delete(ChildKind.PYTORCHJOB, workload.name, workload.uid))
    return remove_orphans(draft, before=oldest)


def _is_over(job: HelperJob, current: Current) -> bool:
    """Of an earlier number, or a survey whose drain has ended."""
    surveyed = job.role is Role.SURVEY and current.state is not State.DRAINING
    return surveyed or job.number < current.prepare


def remove_orphans(draft: Draft, *, before: int) -> Draft:
    """Pods of attempts below `before` whose job is gone: the garbage collector would take them, later."""
    jobs = {workload.attempt for workload in draft.seen.workloads}
    for pod in draft.seen.pods:
        if pod.attempt < before and pod.attempt not in jobs and not pod.deleting:
            draft = draft.act(Delete(ChildKind.POD, pod.name, pod.uid))
    return draft


def has_ended(draft: Draft) -> bool:
    """Nothing of the newest attempt may be left."""
    current = draft.current
    return current.state in ENDED or (current.state is State.BACKOFF and current.outcome is None)


def are_gone(draft: Draft) -> bool:
    """No workload and no pod of any attempt but a decided one that may start."""
    keep = -1 if has_ended(draft) else draft.current.attempt
    children = [item.attempt for item in draft.seen.workloads if item.owned]
    children += [item.attempt for item in draft.seen.pods]
    return all(attempt == keep for attempt in children)
