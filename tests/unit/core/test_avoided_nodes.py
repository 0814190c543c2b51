"""A node on which a run was lost twice by its fault is avoided for a while, or until the run does well elsewhere."""

from __future__ import annotations

from datetime import timedelta

import pytest

from support.observations import NOW, make_report, make_resume, seconds_ago
from support.simulated_world import World
from sweeprun_operator.api.status import Attempt, Cause
from sweeprun_operator.core.avoiding import AVOID_SECONDS, FAULTS, LOSSES, avoided
from sweeprun_protocol.reasons import Outcome

BAD = "node-of-worker-0"


def lost(number: int, node: str | None = BAD, cause: Cause = Cause.TAINT, *, ago: float = 100, base: int | None = None):
    outcome = Outcome.RESTART if base is None else Outcome.RESUME
    ended = seconds_ago(ago - number)
    return Attempt(
        attempt=number, epoch=number + 1, outcome=outcome, cause=cause, node=node, end_time=ended, from_step=base
    )


def nodes(*history: Attempt, now=NOW) -> list[str]:
    return [item.node for item in avoided(history, now)]


@pytest.mark.parametrize("cause", sorted(FAULTS))
def test_two_losses_by_its_fault_make_a_node_one_to_avoid(cause):
    assert nodes(lost(0, cause=cause), lost(1, cause=cause)) == [BAD]
    assert nodes(lost(0, cause=cause)) == []


@pytest.mark.parametrize("cause", sorted(set(Cause) - FAULTS))
def test_what_is_no_fault_of_the_node_does_not_count(cause):
    assert nodes(lost(0, cause=cause), lost(1, cause=cause), lost(2)) == []


def test_losses_on_different_nodes_do_not_add_up():
    assert nodes(lost(0, "a"), lost(1, "b"), lost(2, None), lost(3, None)) == []
    assert nodes(lost(0, "a"), lost(1, "b"), lost(2, "a")) == ["a"]


def test_it_ends_after_a_while():
    history = (lost(0), lost(1))
    last = history[-1].end_time
    assert nodes(*history, now=last + timedelta(seconds=AVOID_SECONDS - 1)) == [BAD]
    assert nodes(*history, now=last + timedelta(seconds=AVOID_SECONDS)) == []


def test_it_ends_with_progress_elsewhere():
    elsewhere = lost(2, "other", Cause.EVICTION_API, base=100)
    assert nodes(lost(0), lost(1), elsewhere) == [BAD]
    assert nodes(lost(0), lost(1), elsewhere, lost(3, "other", base=100)) == [BAD], "from the same step: no progress"
    assert nodes(lost(0), lost(1), elsewhere, lost(3, "other", base=200)) == []


def test_progress_on_the_node_itself_forgives_nothing():
    assert nodes(lost(0), lost(1), lost(2, base=100), lost(3, base=200)) == [BAD]


def test_after_it_has_ended_two_more_losses_are_needed():
    before = (lost(0), lost(1), lost(2, "other", Cause.EVICTION_API, base=100), lost(3, base=200))
    assert nodes(*before) == []
    assert nodes(*before, lost(4, base=200)) == [BAD]


def test_what_is_shown_is_bounded_and_the_latest_comes_first():
    history = [lost(number, f"node-{number // LOSSES}") for number in range(20)]
    found = avoided(history, NOW)
    assert [item.node for item in found] == ["node-9", "node-8", "node-7", "node-6", "node-5"]
    many = avoided([lost(number) for number in range(10)], NOW)
    assert len(many[0].reason) <= 256
    assert many[0].losses == 10


# -- in the life of a run ----------------------------------------------------------------------------------------------


def taken_down(world: World) -> World:
    return world.evict("worker-0", reason="DeletionByTaintManager").later(6).pods_go()


def wishes(manifest) -> list[dict]:
    affinity = manifest["spec"]["template"]["spec"].get("affinity", {}).get("nodeAffinity", {})
    return affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])


def replica(manifest, kind="Worker"):
    return {"spec": manifest["spec"]["pytorchReplicaSpecs"][kind]}


AVOIDS = [
    {
        "weight": 100,
        "preference": {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [BAD]}]},
    }
]


def test_prepare_and_the_next_attempt_avoid_it_and_people_are_told_once():
    world = taken_down(World().begin())
    assert wishes(world.manifests["digits-lr-0-p1"]) == []
    taken_down(world.go_on(make_report(1, Outcome.RESTART)))
    assert [item.node for item in world.status.avoided_nodes] == [BAD]
    assert "attempt 0: Taint, attempt 1: Taint" in world.status.avoided_nodes[0].reason
    assert wishes(world.manifests["digits-lr-0-p2"]) == AVOIDS
    world.go_on(make_report(2, Outcome.RESTART))
    assert wishes(replica(world.manifests["digits-lr-0-a2"], "Master")) == AVOIDS
    assert wishes(replica(world.manifests["digits-lr-0-a2"])) == AVOIDS
    assert world.reasons().count("NodeAvoided") == 1


def test_twin_evictions_by_people_make_nobody_avoid_anything():
    world = World().begin().interrupt().go_on(make_report(1, Outcome.RESTART)).interrupt()
    world.go_on(make_report(2, Outcome.RESTART))
    assert world.status.avoided_nodes == []
    assert wishes(replica(world.manifests["digits-lr-0-a2"])) == []


def test_an_attempt_that_progresses_elsewhere_ends_it():
    world = taken_down(taken_down(World().begin()).go_on(make_report(1, Outcome.RESTART)))
    world.go_on(make_report(2, Outcome.RESTART)).evict("master-0").later(6).pods_go()
    assert [item.node for item in world.status.avoided_nodes] == [BAD]
    world.go_on(make_resume(3, 500))
    assert world.status.avoided_nodes == []
    assert wishes(replica(world.manifests["digits-lr-0-a3"])) == []


def test_pods_that_never_start_on_one_node_are_its_fault():
    world = World().settle().later(1).answer(make_report(0, Outcome.FRESH)).later(1).start_pods_partly().later(1800)
    assert (world.status.history[-1].cause, world.status.history[-1].node) == (Cause.NEVER_STARTED, BAD)


def test_pods_that_wait_for_the_scheduler_are_no_nodes_fault():
    world = World().settle().later(1).answer(make_report(0, Outcome.FRESH)).later(1).start_pods_partly()
    world.change_pod("worker-0", node=None).later(1800)
    assert (world.status.history[-1].cause, world.status.history[-1].node) == (Cause.NEVER_STARTED, None)
