"""Whole lives of a run, played by the world; and the same ones with an operator that dies after every write."""

from __future__ import annotations

from support.observations import make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionType, State
from sweeprun_protocol.reasons import Outcome


def begin(world):
    """To the first attempt in full run."""
    world.settle()
    world.later(1)
    world.answer(make_report(0, Outcome.FRESH))
    world.now = world.now
    world.later(2)
    return world.start_pods()


def complete(world, *, number):
    world.later(60)
    world.end_pods(0)
    world.later(1)
    world.pods_go()
    return world.answer(make_report(number, Outcome.COMPLETED, step=1000, metrics={"loss": "0.1"}))


def undisturbed(world):
    return complete(begin(world), number=1)


def evicted_once(world):
    begin(world)
    world.later(30)
    world.evict("worker-0")
    world.later(6)
    world.pods_go()
    world.later(3)
    world.answer(make_resume(1, 500, last_step=540))
    world.later(1)
    world.start_pods()
    return complete(world, number=2)


def test_an_undisturbed_run_has_one_attempt_and_two_prepares():
    world = undisturbed(World())
    assert world.created == ["digits-lr-0-p0", "digits-lr-0-a0", "digits-lr-0-p1"]
    assert world.status.is_true(ConditionType.COMPLETE)
    assert world.current.state is State.FINISHED
    assert world.status.counts.attempts == 1
    assert world.status.counts.disruptions == 0
    assert world.status.result.step == 1000
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
