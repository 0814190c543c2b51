"""What a SweepRun needs next, from one observation: no clock, no randomness, no IO. Read it as the life of a run.

A plan is a new status, written first, and the writes that it allows. Numbers of prepares and attempts are in the
status before the children that carry them exist, so that a crash between any two writes is harmless: the same
observation gives the same plan, and the next one shows what is missing.
"""

from __future__ import annotations

from typing import assert_never

from sweeprun_operator.api.status import Current, State

from . import (
    acceptance,
    attempts,
    draining,
    finishing,
    leftovers,
    lifecycle,
    preparing,
    rebuilding,
    report,
    requests,
    suspension,
)
from .children import Children
from .draft import Draft
from .observation import Observation, Role
from .plan import Plan


def decide(seen: Observation, children: Children) -> Plan:
    if seen.run.metadata.deletion_timestamp is not None:
        return Plan()  # the garbage collector follows the owner references
    draft = Draft.begin(seen, children)
    if leftovers.newer_than_status(seen):
        return lifecycle.describe(rebuilding.rebuild(draft)).plan()
    # Leftovers go first, so that a child fits into a quota that they fill, and those of a transition go with it.
    for step in (acceptance.judge, leftovers.remove, requests.take, _advance, leftovers.remove, lifecycle.describe):
        draft = step(draft)
    return draft.plan()


def _advance(draft: Draft) -> Draft:
    """One transition at most; what a request has moved already rests until the next pass."""
    if draft.status.current is None:
        return _first(draft)
    before = draft.seen.run.status.current
    if before is None or draft.current.state is not before.state or draft.current.prepare != before.prepare:
        return draft
    match draft.current.state:
        case State.PREPARING | State.INITIALIZING:
            return _prepare(draft, Role.PREPARE if draft.current.state is State.PREPARING else Role.INIT)
        case State.BACKOFF:
            return _backoff(draft)
        case State.STARTING | State.RUNNING:
            return attempts.watch(draft)
        case State.DRAINING:
            return draining.drain(draft)
        case State.HELD:
            return draft if draft.spec.suspend else suspension.go_on(draft)
        case State.FINISHED:
            return finishing.finished(draft)
        case _ as never:
            assert_never(never)


def _first(draft: Draft) -> Draft:
    """Prepare 0 looks whether there is a run to go on with before a new one is named."""
    if not draft.accepted or draft.spec.suspend:
        return draft
    current = Current(attempt=0, prepare=0, state=State.PREPARING, since=draft.now)
    draft = draft.update(current=current, start_time=draft.now).look_again(0)
    return preparing.make_job(draft, Role.PREPARE)


def _prepare(draft: Draft, role: Role) -> Draft:
    job = preparing.find_job(draft, role)
    if draft.spec.suspend and not suspension.is_judged(draft, job):
        return suspension.hold(draft)
    if job is None:
        return preparing.make_job(draft, role)
    if not job.owned:
        return preparing.name_taken(draft, job)
    if job.report is not None:
        return report.apply(draft, job.report)
    problem = preparing.no_answer(job)
    return preparing.complain(draft, job) if problem is None else preparing.failed(draft, problem)


def _backoff(draft: Draft) -> Draft:
    """A decided attempt waits, or the next prepare after one without a usable answer."""
    if draft.spec.suspend:
        return suspension.hold(draft)
    until = draft.current.not_before
    if until is not None and until > draft.now:
        return draft.look_again((until - draft.now).total_seconds())
    return attempts.start(draft) if draft.current.outcome is not None else preparing.begin_prepare(draft)
