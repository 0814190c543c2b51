"""Whole lives of a run, played by the world; and the same ones with an operator that dies after every write."""

from __future__ import annotations

import pytest

from support.manifests import make_init
from support.observations import make_report, make_resume, make_trainer
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionType, State
from sweeprun_operator.core.observation import PodPhase, Role
from sweeprun_protocol.reasons import Outcome


def complete(world, *, number):
    world.later(60)
    world.end_pods(0)
    world.later(1)
    world.pods_go()
    return world.answer(make_report(number, Outcome.COMPLETED, step=1000, metrics={"loss": "0.1"}))


def undisturbed(world):
    return complete(world.begin(), number=1)


def evicted_once(world):
    world.begin().later(30)
    world.interrupt().go_on(make_resume(1, 500, last_step=540))
    return complete(world, number=2)


def broken_down_once(world):
    world.begin().later(30)
    world.break_down().go_on(make_report(1, Outcome.RESTART))
    return complete(world, number=2)


def held_once(world):
    world.begin().later(30)
    world.edit(suspend=True).later(5).pods_go()
    world.later(100).edit(suspend=False)
    world.go_on(make_resume(1, 500))
    return complete(world, number=2)


def blocked_once(world):
    world.begin().later(30).interrupt()
    world.fail_job().when_wanted()
    world.go_on(make_resume(2, 500))
    return complete(world, number=3)


def with_sweep_init(world):
    world.settle().answer(make_report(0, Outcome.INIT_REQUIRED))
    world.answer(make_report(0, Outcome.FRESH), role=Role.INIT)
    return complete(world.start_pods(), number=1)


STORIES = {story.__name__: story for story in (undisturbed, evicted_once, broken_down_once, held_once, blocked_once)}


def test_an_undisturbed_run_has_one_attempt_and_two_prepares():
    world = undisturbed(World())
    assert world.created == ["digits-lr-0-p0", "digits-lr-0-a0", "digits-lr-0-p1"]
    assert world.status.is_true(ConditionType.COMPLETE)
    assert world.current.state is State.FINISHED
    assert world.status.counts.attempts == 1
    assert world.status.counts.disruptions == 0
    assert world.status.result.step == world.status.progress.step == 1000
    assert world.status.history[0].cause == "Completed"
    assert world.reasons() == ["Started", "Running", "Ended", "Completed"]


def test_an_evicted_run_goes_on_from_its_checkpoint():
    world = evicted_once(World())
    assert world.created == [f"digits-lr-0-{child}" for child in ("p0", "a0", "p1", "a1", "p2")]
    assert world.status.is_true(ConditionType.COMPLETE)
    counts = world.status.counts
    assert (counts.attempts, counts.resumes, counts.disruptions, counts.failures) == (2, 1, 1, 0)
    first, second = world.status.history
    assert (first.cause, first.to_step, first.node) == ("EvictionAPI", 540, "node-of-worker-0")
    assert (second.outcome, second.from_step, second.epoch) == (Outcome.RESUME, 500, 2)
    assert world.status.savings.steps_kept == 500
    assert world.status.savings.steps_repeated == 40
    assert second.seconds.drain == 6
    assert second.seconds.prepare == 3
    assert second.seconds.start == 1
    expected = ["Started", "Running", "Interrupted", "Resumed", "Running", "Ended", "Completed"]
    assert world.reasons() == expected


def test_sweep_init_runs_before_the_first_attempt_and_answers_for_its_prepare():
    world = with_sweep_init(World(init=make_init()))
    assert world.created == [f"digits-lr-0-{child}" for child in ("p0", "i0", "a0", "p1")]
    assert world.status.is_true(ConditionType.COMPLETE)


def test_the_next_prepare_waits_for_the_last_pod_of_the_attempt():
    world = World().begin()
    world.evict("worker-0").later(6).pods_go("worker-0")
    assert world.current.state is State.DRAINING
    world.later(600)
    assert "digits-lr-0-p1" not in world.created
    world.pods_go()
    assert "digits-lr-0-p1" in world.created


def test_only_prepare_says_that_a_run_is_complete():
    world = World().begin().later(30).end_pods(0).pods_go()
    assert world.current.interruption.cause == "Completed"
    assert not world.status.is_true(ConditionType.COMPLETE)
    assert world.status.history[0].cause is None
    world.answer(make_resume(1, 500))
    assert not world.status.is_true(ConditionType.COMPLETE)
    assert world.status.history[0].cause == "ApplicationError"
    assert world.status.counts.failures == 1


def test_a_good_end_of_which_a_late_condition_tells_was_a_disruption():
    world = World().begin().later(30).end_pods(0)
    assert world.current.state is State.DRAINING
    world.evict("worker-0").pods_go()
    world.answer(make_resume(1, 500))
    assert world.status.history[0].cause == "EvictionAPI"
    assert (world.status.counts.failures, world.status.counts.disruptions) == (0, 1)


def test_a_mark_seen_before_the_pod_was_deleted_is_kept():
    world = World().begin().later(30)
    world.change_pod("worker-0", disruption="PreemptionByScheduler")
    assert world.current.state is State.RUNNING
    world.pods_go("worker-0")
    assert world.status.history[0].cause == "Preemption"


LATER = {
    "a kubelet that starts again overwrites it": {"phase": PodPhase.FAILED, "reason": "UnexpectedAdmissionError"},
    "the program's own error shows": {"phase": PodPhase.FAILED, "exit_code": 1},
    "another condition is written": {"disruption": "DeletionByPodGC"},
    "it ends well": {"phase": PodPhase.SUCCEEDED, "exit_code": 0},
}


@pytest.mark.parametrize("change", LATER.values(), ids=LATER.keys())
def test_the_first_classification_and_what_the_pods_showed_are_final(change):
    fields = dict(change)
    code = fields.pop("exit_code", None)
    world = World().begin().later(30).evict("worker-0")
    before = world.status.history[0]
    (seen,) = before.pods
    assert (seen.name, seen.disruption, seen.exit_code) == ("digits-lr-0-a0-worker-0", "EvictionByEvictionAPI", None)
    world.change_pod("worker-0", **fields, containers=(make_trainer(code),)).later(10)
    assert world.status.history[0] == before
    world.pods_go().later(1).answer(make_resume(1, 500)).later(1)
    after = world.status.history[0]
    assert (after.cause, after.evidence, after.node, after.pods) == (
        before.cause,
        before.evidence,
        before.node,
        before.pods,
    )
    assert world.status.counts.disruptions == 1
    assert world.status.counts.failures == 0


def test_pods_are_known_by_status_as_soon_as_they_are_seen():
    world = World().begin()
    assert world.current.pod_uids == ["uid-a0-master-0", "uid-a0-worker-0"]
    world.pods_go("worker-0")
    assert world.current.state is State.RUNNING, "a watch may still tell why"
    world.when_wanted()
    assert world.status.history[0].cause == "PodLost"


@pytest.mark.parametrize("story", [*STORIES.values(), with_sweep_init], ids=lambda story: story.__name__)
def test_an_operator_that_dies_after_any_write_changes_nothing(story):
    spec = {"init": make_init()} if story is with_sweep_init else {}
    alive = story(World(**spec))
    assert alive.status.is_true(ConditionType.COMPLETE)
    for write in range(1, alive.writes + 1):
        mortal = story(World(dies_after=write, **spec))
        assert mortal.created == alive.created, f"died after write {write}"
        assert mortal.status == alive.status, f"died after write {write}"
