"""spec.suspend in every state, and suspension by a queue: nothing runs, nothing is lost, no budget is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.observations import make_report, make_resume
from support.simulated_states import (
    draining,
    initializing,
    preparing,
    running,
    starting,
    waiting_for_a_prepare,
    waiting_for_an_attempt,
)
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionType, State
from sweeprun_operator.core.observation import JobPhase, Role
from sweeprun_protocol.reasons import Outcome


def not_begun() -> World:
    return World(suspend=True).settle()


def queued() -> World:
    return World().settle().answer(make_report(0, Outcome.FRESH)).change_workload(suspended=True)


def judging_the_end() -> World:
    return World().begin().interrupt()


STATES = {
    found.__name__: found
    for found in (
        preparing,
        initializing,
        waiting_for_a_prepare,
        waiting_for_an_attempt,
        queued,
        starting,
        running,
        draining,
        judging_the_end,
    )
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_a_suspended_run_comes_to_rest_with_nothing_left(state: Callable[[], World]):
    world = state()
    counts = world.status.counts
    world.edit(suspend=True).later(5).pods_go()
    assert world.current.state is State.HELD
    assert world.condition(ConditionType.SUSPENDED).reason == "SuspendedBySpec"
    assert world.status.phase == "Suspended"
    assert not [job for job in world.jobs.values() if job.phase is JobPhase.ACTIVE]
    assert not world.workloads
    ended = (counts.failures, counts.never_started)
    assert (world.status.counts.failures, world.status.counts.never_started) == ended
    made = list(world.created)
    world.later(100_000)
    assert world.created == made
    assert world.wants_again is None


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_a_suspended_run_goes_on_with_the_next_prepare(state: Callable[[], World]):
    world = state()
    before = world.current.prepare
    world.edit(suspend=True).later(5).pods_go()
    world.later(100).edit(suspend=False)
    assert world.current.state is State.PREPARING
    assert world.current.prepare > before
    assert f"digits-lr-0-p{world.current.prepare}" in world.jobs
    assert not world.status.is_true(ConditionType.SUSPENDED)


def test_a_run_that_is_made_suspended_does_not_begin():
    world = not_begun()
    assert world.created == []
    assert world.status.phase == "Suspended"
    world.edit(suspend=False)
    assert world.created == ["digits-lr-0-p0"]


def test_what_runs_is_stopped_by_deleting_the_job_and_told_as_such():
    world = running().edit(suspend=True)
    assert not world.workloads
    assert all(pod.deleting for pod in world.pods.values())
    assert world.status.history[0].cause == "Suspended"
    assert world.status.history[0].kind == "Neutral"


def test_an_attempt_that_was_decided_and_never_made_is_closed():
    world = waiting_for_an_attempt().edit(suspend=True)
    assert world.current.state is State.HELD
    assert world.status.history[-1].cause == "Suspended"
    assert "digits-lr-0-a1" not in world.created


def test_an_eviction_during_the_drain_of_a_suspension_changes_nothing():
    world = running().edit(suspend=True)
    world.evict("worker-0").pods_go()
    assert world.status.history[0].cause == "Suspended"
    assert world.status.counts.disruptions == 0


def test_an_attempt_that_has_ended_well_is_judged_although_the_run_is_suspended():
    world = running().later(60).end_pods(0)
    world.edit(suspend=True).pods_go()
    assert world.current.state is State.PREPARING
    world.later(5).answer(make_report(1, Outcome.COMPLETED, step=1000))
    assert world.status.is_true(ConditionType.COMPLETE)


def test_a_good_end_that_was_none_leaves_a_suspended_run_at_rest():
    world = running().later(60).end_pods(0)
    world.edit(suspend=True).pods_go()
    world.answer(make_resume(1, 500))
    assert world.current.state is State.HELD
    assert "digits-lr-0-a1" not in world.created
    world.edit(suspend=False).answer(make_resume(2, 500, epoch=3)).when_wanted()
    assert "digits-lr-0-a1" in world.created
    assert world.status.history[0].cause == "ApplicationError"


def test_a_good_end_without_an_answer_leaves_a_suspended_run_at_rest():
    world = running().later(60).end_pods(0)
    world.edit(suspend=True).pods_go().fail_job()
    assert world.current.state is State.HELD


def test_an_answer_that_the_run_is_complete_counts_although_it_is_suspended():
    world = running().interrupt()
    job = world.jobs["digits-lr-0-p1"]
    assert job.report is None
    world.answer_unseen(make_report(1, Outcome.COMPLETED, step=1000))
    world.edit(suspend=True)
    assert world.status.is_true(ConditionType.COMPLETE)


@pytest.mark.parametrize("end", ["Completed", "Failed"])
def test_what_has_ended_is_not_suspended(end: str):
    world = running()
    if end == "Completed":
        world.end_pods(0).pods_go().answer(make_report(1, Outcome.COMPLETED))
    else:
        world.edit(request={"id": "1", "action": "Stop"}).pods_go()
    world.edit(suspend=True)
    assert world.current.state is State.FINISHED
    assert world.status.phase == end


# -- by a queue --------------------------------------------------------------------------------------------------------


def test_a_job_that_a_queue_has_not_admitted_waits_without_a_timer():
    world = queued()
    assert world.wants_again is None
    assert world.condition(ConditionType.SUSPENDED).reason == "Queued"
    assert world.later(10**7).current.state is State.STARTING


def test_a_job_that_a_queue_suspends_after_its_start_is_drained_and_queues_again():
    world = running().later(30)
    world.change_workload(suspended=True)
    assert world.current.state is State.DRAINING
    assert world.status.history[0].cause == "QueueSuspended"
    world.pods_go().go_on(make_resume(1, 500))
    assert "digits-lr-0-a1" in world.created
    counts = world.status.counts
    assert (counts.disruptions, counts.failures, counts.never_started) == (0, 0, 0)


def test_a_job_that_a_queue_suspends_before_all_pods_ran_is_drained_too():
    world = starting().start_pods_partly()
    world.change_workload(suspended=True)
    assert world.status.history[0].cause == "QueueSuspended"


def test_what_init_did_stands_when_it_was_answered_before_the_suspension():
    world = initializing()
    world.answer(make_report(0, Outcome.FRESH), role=Role.INIT)
    assert "digits-lr-0-a0" in world.created


@pytest.mark.parametrize("state", [preparing, initializing], ids=["prepare", "sweep_init"])
def test_a_helper_job_that_a_queue_holds_is_waited_for_without_a_timer(state: Callable[[], World]):
    world = state().change_job(suspended=True, podless=True)
    assert world.status.phase == "Queued"
    assert "Job digits-lr-0-" in world.condition(ConditionType.SUSPENDED).message
    assert world.wants_again is None
    world.later(10**7)
    assert world.is_stuck() is None
    world.change_job(suspended=False, podless=False)
    assert not world.status.is_true(ConditionType.SUSPENDED)
    assert world.status.phase == str(world.current.state)
