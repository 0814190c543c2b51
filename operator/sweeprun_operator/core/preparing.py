"""Prepare and sweep_init: their Jobs by number, their answers, and what happens where none comes."""

from __future__ import annotations

from datetime import timedelta

from sweeprun_operator.api.status import State

from . import budgets, finishing, refusals
from .draft import Draft
from .leftovers import are_gone
from .observation import HelperJob, JobPhase, Role
from .plan import ChildKind, Create, Delete

NAME_TAKEN_SECONDS = 30.0
DRAIN_SECONDS = 5.0
PENDING_SECONDS = 120.0
"""A helper pod that has not answered and complains for this long is worth a word to people."""


def begin_prepare(draft: Draft, **changes: object) -> Draft:
    """Raise the number and make the Job: the status is written before the Job exists."""
    draft = draft.enter(
        State.PREPARING,
        prepare=draft.current.prepare + 1,
        replicas={},
        outcome=None,
        not_before=None,
        **changes,
    )
    return make_job(draft, Role.PREPARE)


def make_job(draft: Draft, role: Role) -> Draft:
    """Create the current number's Job; again where it vanished: the volume knows what it did."""
    if not draft.accepted:
        return draft
    if not are_gone(draft):
        return draft.look_again(DRAIN_SECONDS)
    if not draft.current.replicas:
        # not when the number is raised: the template may be refused then, and a refused one need not have any
        draft = draft.move(replicas=draft.children.replicas(draft.run))
    draft = draft.unstuck("NameTaken")
    if draft.seen.refusal is not None:
        draft = refusals.show(draft, draft.seen.refusal)
    make = draft.children.prepare_job if role is Role.PREPARE else draft.children.init_job
    return draft.act(Create(ChildKind.JOB, make(draft.run, cluster_id=draft.seen.cluster_id)))


def find_job(draft: Draft, role: Role) -> HelperJob | None:
    number = draft.current.prepare
    return next((job for job in draft.seen.jobs if job.role is role and job.number == number), None)


def complain(draft: Draft, job: HelperJob) -> Draft:
    """Of a Job that goes on: a pod that cannot be made or cannot start is shown before the deadline ends it. While a
    queue holds the Job, its deadline stands still, and so do we."""
    if draft.seen.refusal is not None:
        return refusals.show(draft, draft.seen.refusal)
    if not job.podless or job.suspended:
        draft = refusals.forget(draft)
    elif draft.seconds_since(draft.current.since) < refusals.ASK_SECONDS:
        draft = draft.look_again(refusals.ASK_SECONDS - draft.seconds_since(draft.current.since))
    if job.problem is None or job.created is None:
        return draft
    left = (job.created + timedelta(seconds=PENDING_SECONDS) - draft.now).total_seconds()
    if left > 0:
        return draft.look_again(left)
    return draft.stuck("PreparePending", f"Job {job.name} has no answer yet: {job.problem}")


def name_taken(draft: Draft, job: HelperJob) -> Draft:
    text = f"Job {job.name} belongs to something else: delete it, or give this SweepRun another name"
    return draft.stuck("NameTaken", text).look_again(NAME_TAKEN_SECONDS)


def failed(draft: Draft, problem: str, *, stuck: str | None = None, event: str = "Stuck") -> Draft:
    """No usable answer: never taken for "no checkpoint". The next number is tried after a backoff.

    `stuck` names what people have to see at once; else they see it after three in a row.
    """
    if draft.current.stopping:
        return finishing.stop(draft)
    draft, seconds = _wait(draft)
    failures = draft.current.prepare_failures
    if stuck is not None:
        return draft.stuck(stuck, problem, event=event)
    if failures < budgets.PREPARE_FAILURES_UNTIL_STUCK:
        return draft.warn("PrepareFailed", f"{problem}; tried again in {seconds:.0f} s")
    text = f"{failures} prepares in a row gave no answer, the last one: {problem}. Look at its pod's events and log"
    return draft.stuck("PrepareFailing", text)


def adoption_lost(draft: Draft, message: str) -> Draft:
    """Another SweepRun was faster. Many that begin together ask for the same candidates: they must not ask in step with
    each other for ever, but nobody has to do anything."""
    if draft.current.stopping:
        return finishing.stop(draft)
    draft, seconds = _wait(draft)
    return draft.tell("AdoptionLost", f"{message}; looked for another run in {seconds:.0f} s")


def _wait(draft: Draft) -> tuple[Draft, float]:
    """Until the next number is tried; and for how many seconds."""
    failures = draft.current.prepare_failures + 1
    seconds = budgets.prepare_backoff_seconds(draft.spec.limits.backoff, failures)
    draft = draft.enter(
        State.BACKOFF,
        outcome=None,
        prepare_failures=failures,
        not_before=draft.now + timedelta(seconds=seconds),
        adopt_run_id=None,
        adopt_epoch=None,
    )
    return draft, seconds


def no_answer(job: HelperJob) -> str | None:
    """Why a Job that ended gives no answer; None while it may still give one."""
    if job.phase is JobPhase.ACTIVE or job.deleting:
        return None
    return f"Job {job.name}: {job.problem or 'it ended without an answer'}"


def withdraw(draft: Draft) -> Draft:
    """Delete the current number's Jobs: nothing waits for their answers any more."""
    for job in draft.seen.jobs:
        if job.owned and not job.deleting and job.number == draft.current.prepare:
            draft = draft.act(Delete(ChildKind.JOB, job.name, job.uid))
    return draft
