"""spec.request: Retry and Stop, each handled once per id, in every state."""

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
from sweeprun_operator.api.status import ConditionType, SinceProgress, State
from sweeprun_protocol.reasons import BlockedReason, Outcome

RETRY = {"id": "1", "action": "Retry"}
STOP = {"id": "1", "action": "Stop"}


def held() -> World:
    return World().begin().edit(suspend=True).pods_go()


def failed() -> World:
    answer = make_report(1, Outcome.BLOCKED, blocked=BlockedReason.NO_VALID_CHECKPOINT)
    return World().begin().interrupt().answer(answer)


def completed() -> World:
    return World().begin().end_pods(0).pods_go().answer(make_report(1, Outcome.COMPLETED))


def named(*states: Callable[[], World]) -> dict[str, Callable[[], World]]:
    return {state.__name__: state for state in states}


ALIVE = named(preparing, initializing, waiting_for_a_prepare, waiting_for_an_attempt, starting, running, draining, held)


@pytest.mark.parametrize("state", ALIVE.values(), ids=ALIVE.keys())
def test_stop_ends_the_run_with_nothing_left(state):
    world = state().edit(request=STOP).later(5).pods_go()
    assert world.failure() == "Stopped"
    assert world.current.state is State.FINISHED
    assert not world.workloads
    assert not world.pods
    made = list(world.created)
    assert world.later(10**6).created == made
    assert world.status.last_request.id == "1"
    assert all(entry.cause is not None for entry in world.status.history)


def test_stop_before_the_run_has_begun_ends_it():
    world = World(request=STOP).settle()
    assert world.failure() == "Stopped"
    assert world.created == []


def test_a_run_that_is_stopped_while_it_runs_is_drained_first():
    world = running().edit(request=STOP)
    assert world.current.state is State.DRAINING
    assert world.failure() is None
    assert world.pods_go().failure() == "Stopped"
    assert world.status.history[0].cause == "Stopped"
    assert world.status.counts.failures == 0


@pytest.mark.parametrize("state", named(completed, failed).values(), ids=named(completed, failed).keys())
def test_stop_is_refused_where_the_run_has_ended(state):
    world = state()
    before = (world.failure(), world.status.is_true(ConditionType.COMPLETE), world.status.completion_time)
    world.edit(request=STOP)
    assert world.reasons()[-1] == "RequestRefused"
    after = (world.failure(), world.status.is_true(ConditionType.COMPLETE), world.status.completion_time)
    assert after == before


def test_retry_leaves_failed_with_new_budgets():
    world = failed().edit(request=RETRY)
    assert world.failure() is None
    assert world.condition(ConditionType.FAILED).reason == "Retried"
    assert world.status.completion_time is None
    assert world.status.since_progress == SinceProgress()
    world.answer(make_resume(2, 500)).start_pods()
    assert world.current.state is State.RUNNING
    assert world.status.counts.attempts == 2


def test_a_stopped_run_may_be_retried():
    world = running().edit(request=STOP).pods_go()
    world.edit(request={"id": "2", "action": "Retry"}).answer(make_resume(1, 500))
    assert "digits-lr-0-a1" in world.created
    world.start_pods().interrupt().later(1)
    assert world.current.state is State.PREPARING, "the Stop is over"


def test_each_id_is_handled_once():
    world = failed().edit(request=RETRY)
    world.answer(make_report(2, Outcome.BLOCKED, blocked=BlockedReason.NO_VALID_CHECKPOINT))
    assert world.failure() == "NoValidCheckpoint"
    world.later(1000)
    assert world.failure() == "NoValidCheckpoint"
    assert world.reasons().count("Retried") == 1
    world.edit(request={"id": "2", "action": "Retry"})
    assert world.failure() is None


def test_retry_from_a_step_is_told_to_prepare_and_forgotten_with_its_attempt():
    world = failed().edit(request={**RETRY, "fromStep": 300})
    assert world.request_of(2).from_step == 300
    world.fail_job().when_wanted()
    assert world.request_of(3).from_step == 300, "still wanted where prepare gave no answer"
    world.answer(make_resume(3, 300)).start_pods().interrupt()
    assert world.request_of(4).from_step is None


def test_retry_while_a_prepare_waits_makes_the_next_one_at_once():
    world = waiting_for_a_prepare().edit(request=RETRY)
    assert world.current.state is State.PREPARING
    assert world.current.prepare_failures == 0
    assert world.created[-1] == "digits-lr-0-p1"


def test_retry_while_an_attempt_waits_makes_it_at_once():
    world = waiting_for_an_attempt().edit(request=RETRY)
    assert world.created[-1] == "digits-lr-0-a1"
    assert world.status.counts.attempts == 2


def test_retry_from_a_step_while_an_attempt_waits_asks_prepare_again():
    world = waiting_for_an_attempt().edit(request={**RETRY, "fromStep": 0})
    assert "digits-lr-0-a1" not in world.created
    assert world.status.history[-1].cause == "Retried"
    assert world.request_of(2).from_step == 0


REFUSED = named(preparing, initializing, starting, running, draining, held, completed)


@pytest.mark.parametrize("state", REFUSED.values(), ids=REFUSED.keys())
def test_retry_is_refused_where_there_is_nothing_to_retry(state):
    world = state()
    before = world.current.state
    world.edit(request=RETRY)
    assert world.current.state is before
    assert world.status.last_request.message.startswith("Retry refused")
    assert world.reasons()[-1] == "RequestRefused"


def test_retry_before_the_run_has_begun_is_refused():
    world = World(request=RETRY, suspend=True).settle()
    assert world.status.last_request.message == "Retry refused: the run has not begun"


def test_a_retry_that_comes_with_a_template_that_is_refused_waits_for_a_better_one():
    world = failed()
    template = world.run.spec.template.to_wire()
    bad = {**template, "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": "many"}}}}
    world.edit(request=RETRY, template=bad)
    assert not world.status.is_true(ConditionType.ACCEPTED)
    assert "digits-lr-0-p2" not in world.created
    world.edit(template=template)
    assert "digits-lr-0-p2" in world.created


# -- Stop while a good end is judged -----------------------------------------------------------------------------------


def ended_well() -> World:
    return World().begin().later(60).end_pods(0)


@pytest.mark.parametrize("drained", [False, True])
def test_a_run_that_proves_complete_is_complete_although_stop_came_before_the_answer(drained):
    world = ended_well()
    if drained:
        world.pods_go()
    world.edit(request=STOP).pods_go().answer(make_report(1, Outcome.COMPLETED, step=1000))
    assert world.status.is_true(ConditionType.COMPLETE)
    assert world.failure() is None


def test_stop_ends_a_run_whose_good_end_was_none():
    world = ended_well().pods_go().edit(request=STOP).answer(make_resume(1, 500))
    assert world.failure() == "Stopped"
    assert world.status.history[0].cause == "ApplicationError"
    assert "digits-lr-0-a1" not in world.created


def test_stop_does_not_wait_for_a_prepare_that_gives_no_answer():
    world = ended_well().pods_go().edit(request=STOP).fail_job()
    assert world.failure() == "Stopped"
