"""The status is lost, as after a restore of the object: rebuilt from children and volume, without a second writer."""

from __future__ import annotations

import pytest

from support.observations import make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import State, SweepRunStatus
from sweeprun_protocol.prepare import Earlier
from sweeprun_protocol.reasons import Outcome


def lose_status(world: World, status: SweepRunStatus | None = None) -> World:
    world.run = world.run.model_copy(update={"status": status or SweepRunStatus()})
    return world


STAGES = {
    "Preparing": (lambda: World().settle(), 0, 0),
    "Starting": (lambda: World().settle().later(1).answer(make_report(0, Outcome.FRESH)), 0, 1),
    "Running": (lambda: World().begin(), 0, 1),
    "Draining": (lambda: World().begin().evict(), 0, 1),
    "Preparing again": (lambda: World().begin().interrupt(), 1, 0),
    "Running again": (lambda: World().begin().interrupt().go_on(make_resume(1, 500)), 1, 2),
}


@pytest.mark.parametrize(("stage", "prepare", "attempts"), STAGES.values(), ids=STAGES.keys())
def test_what_runs_is_stopped_and_the_next_prepare_goes_on(stage, prepare, attempts):
    world = lose_status(stage()).settle().later(6).pods_go().later(6)
    assert "StatusRebuilt" in world.reasons()
    assert world.workloads == {}
    assert (world.current.state, world.current.prepare) == (State.PREPARING, prepare + 1)
    assert world.created[-1] == f"digits-lr-0-p{prepare + 1}"
    assert world.status.counts.attempts == attempts
    request = world.request_of(prepare + 1)
    assert (request.started, request.known_epoch) == (False, 0), "the volume says which run it is"


def test_nothing_is_made_before_all_pods_of_the_unknown_attempt_are_gone():
    world = World().begin()
    made = list(world.created)
    lose_status(world).settle().later(600)
    assert world.current.state is State.DRAINING
    assert world.created == made
    world.pods_go().later(10)
    assert world.created == [*made, "digits-lr-0-p1"]


def test_the_attempt_after_it_has_a_number_of_its_own_and_the_counts_of_the_volume():
    world = lose_status(World().begin().interrupt()).settle().later(6)
    answer = make_resume(2, 500, epoch=3, earlier=Earlier(attempts=7, resumes=5, restarts=1))
    world.answer(answer).start_pods()
    assert world.current.state is State.RUNNING
    assert world.created[-1] == "digits-lr-0-a7"
    assert (world.status.counts.attempts, world.status.counts.resumes, world.status.counts.restarts) == (8, 6, 1)
    assert world.status.run_id == answer.run_id


def test_a_volume_cannot_set_the_counts_of_a_run_that_is_known():
    world = World().begin().interrupt()
    world.answer(make_resume(1, 500, earlier=Earlier(attempts=7, resumes=5, restarts=1)))
    assert world.status.counts.attempts == 2


def test_where_no_child_is_left_numbers_go_on_behind_the_volumes():
    world = World().settle().later(1)
    world.answer(make_report(0, Outcome.SUPERSEDED, head_prepare=6))
    assert world.current.state is State.BACKOFF
    world.when_wanted()
    assert world.created[-1] == "digits-lr-0-p7"
    world.answer(make_report(7, Outcome.COMPLETED, step=600, earlier=Earlier(attempts=3, resumes=2, restarts=0)))
    assert world.status.phase == "Completed"
    assert world.status.counts.attempts == 3


def test_a_status_that_was_set_back_closes_what_it_still_knows():
    world = World().begin()
    old = world.status
    world.interrupt().go_on(make_resume(1, 500))
    lose_status(world, old).settle().later(6).pods_go().later(6)
    first = world.status.history[0]
    assert (first.attempt, str(first.cause), str(first.kind)) == (0, "Retried", "Neutral")
    assert world.status.counts.attempts == 2
    assert world.created[-1] == "digits-lr-0-p2"
    assert world.request_of(2).known_epoch == 1


def test_deletion_comes_first():
    world = World().begin()
    metadata = world.run.metadata.model_copy(update={"deletion_timestamp": world.now})
    lose_status(world)
    world.run = world.run.model_copy(update={"metadata": metadata})
    before = world.writes
    world.settle()
    assert world.writes == before
