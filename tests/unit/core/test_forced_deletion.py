"""spec.unreachable.policy ForceDelete: a drain does not wait for nodes that do not answer, and says so for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from support.observations import NOW, make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import State
from sweeprun_operator.core.plan import Delete
from sweeprun_protocol.reasons import BlockedReason, Outcome

NAME = "digits-lr-0"
LOST = f"{NAME}-a0-worker-0"
NODE = "node-of-worker-0"
FORCE = {"unreachable": {"policy": "ForceDelete", "tolerationSeconds": 60}}


def cut_off(*, grace=30, **spec) -> World:
    """The worker's node does not answer, its pod is Terminating; the master's pod is gone."""
    world = World(**{**FORCE, **spec}).begin()
    world.unready_nodes = frozenset({NODE})
    world.evict("worker-0", reason="DeletionByTaintManager").change_pod("worker-0", grace_seconds=grace)
    return world.pods_go("master-0")


def is_forced(world: World) -> bool:
    return not world.pods


def test_the_pods_of_a_silent_node_are_deleted_by_force_after_its_time():
    world = cut_off().later(59)
    assert not is_forced(world)
    assert world.is_stuck() == "NodeUnreachable"
    world.later(1)
    assert is_forced(world)
    assert f"{NAME}-p1" in world.created
    assert world.is_stuck() is None


def test_twin_without_the_policy_the_node_is_waited_for():
    world = cut_off(unreachable={"tolerationSeconds": 60}).later(10**6)
    assert list(world.pods) == [LOST]
    assert world.current.state is State.DRAINING
    assert "ForceDeleted" not in world.reasons()


def test_the_policy_may_be_given_while_the_drain_hangs():
    world = cut_off(unreachable={"tolerationSeconds": 60}).later(600)
    world.edit(**FORCE)
    assert is_forced(world)


def test_the_grace_of_the_pod_is_over_first():
    world = cut_off(grace=300).later(299)
    assert not is_forced(world)
    assert is_forced(world.later(1))


def test_a_node_that_answers_again_has_its_time_anew():
    world = cut_off().later(50)
    world.unready_nodes = frozenset()
    world.later(10)
    world.unready_nodes = frozenset({NODE})
    world.later(5).later(55)
    assert not is_forced(world)
    assert is_forced(world.later(5))


def test_each_node_has_a_time_of_its_own():
    world = World(**FORCE).begin()
    world.unready_nodes = frozenset({NODE})
    world.evict("worker-0", reason="DeletionByTaintManager").later(50)
    world.unready_nodes = frozenset({NODE, "node-of-master-0"})
    world.later(1).later(15)
    assert [pod.slot for pod in world.pods.values()] == ["master-0"]
    assert is_forced(world.later(45))
    assert world.status.history[-1].forced.nodes == [NODE, "node-of-master-0"]


def test_a_pod_that_is_not_terminating_is_not_touched():
    """The garbage collector deletes it the ordinary way first."""
    world = cut_off()
    world.pods[LOST] = replace(world.pods[LOST], deleting=False)
    world.now += timedelta(hours=1)
    (deletion,) = [action for action in world.one_pass().actions if isinstance(action, Delete)]
    assert not deletion.force


def test_a_pod_on_a_node_that_answers_is_not_touched():
    world = World(**FORCE).begin().evict("worker-0").later(10**5)
    assert len(world.pods) == 2


def test_the_uid_is_the_condition_of_the_deletion():
    world = cut_off()
    world.now = world.now.replace(hour=13)
    (deletion,) = [action for action in world.one_pass().actions if isinstance(action, Delete)]
    assert (deletion.name, deletion.uid, deletion.force) == (LOST, "uid-a0-worker-0", True)


def test_it_is_written_before_it_is_done_and_told_once():
    world = cut_off()
    world.held = {LOST}
    world.later(60).later(10).later(10)
    assert world.reasons().count("ForceDeleted") == 1
    (event,) = [event for event in world.events if event.reason == "ForceDeleted"]
    assert LOST in event.message
    assert NODE in event.message
    forced = world.status.history[-1].forced
    assert (forced.pods, forced.nodes) == ([LOST], [NODE])
    assert world.current.drain_forced
    assert world.is_stuck() == "PodHeld"
    told = len(world.events)
    world.later(10).later(10)
    assert len(world.events) == told, "each is said once"
    world.pods_go()
    assert f"{NAME}-p1" in world.created


def test_an_operator_that_dies_between_any_two_writes_forces_all_the_same():
    whole = cut_off().later(60)
    for dies_after in range(1, whole.writes + 1):
        world = World(dies_after=dies_after, **FORCE).begin()
        world.unready_nodes = frozenset({NODE})
        world.evict("worker-0", reason="DeletionByTaintManager").change_pod("worker-0", grace_seconds=30)
        world.pods_go("master-0").later(60)
        assert world.request_of(1).drain_forced, dies_after
        assert world.status.history[-1].forced.pods == [LOST], dies_after


def test_prepare_is_told_until_one_has_decided():
    world = cut_off().later(60)
    assert world.request_of(1).drain_forced
    blocked = make_report(1, Outcome.BLOCKED, blocked=BlockedReason.CHECKPOINT_CHANGED)
    world.answer(blocked).when_wanted()
    assert world.request_of(2).drain_forced
    world.answer(make_resume(2, 500))
    assert not world.current.drain_forced
    world.later(2).start_pods().interrupt()
    assert not world.request_of(3).drain_forced


def test_twin_a_drain_that_was_confirmed_is_not_called_forced():
    world = World(**FORCE).begin().interrupt()
    assert not world.request_of(1).drain_forced
    assert world.status.history[-1].forced is None


def test_prepare_has_time_for_the_copy():
    def deadline(world: World) -> int:
        return world.manifests[f"{NAME}-p1"]["spec"]["activeDeadlineSeconds"]

    validation = 900
    assert deadline(cut_off().later(60)) - deadline(World(**FORCE).begin().interrupt()) == validation


def test_a_suspended_run_does_not_forget_it():
    world = cut_off(suspend=False)
    world.edit(suspend=True).later(60)
    assert world.current.state is State.HELD
    world.edit(suspend=False)
    assert world.request_of(1).drain_forced


@pytest.mark.parametrize("forced", [True, False])
def test_the_next_attempt_logs_to_another_run_that_knows_the_one_before(forced):
    tracking = {"type": "WandB", "wandb": {"project": "digits"}}
    world = World(**FORCE, tracking=tracking).begin(wandb_run_id="first").evict("worker-0").later(6).pods_go()
    world.later(1).answer(make_resume(1, 500, wandb_run_id="first-e2" if forced else "first")).later(1)
    pod = world.manifests[f"{NAME}-a1"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    environment = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert environment["WANDB_RUN_ID"] == ("first-e2" if forced else "first")
    assert environment.get("SWEEPRUN_PREVIOUS_WANDB_RUN") == ("first" if forced else None)
    assert world.status.previous_wandb_run_id == ("first" if forced else None)


def test_what_history_names_is_bounded():
    world = World(**FORCE)
    world.run.spec.template.spec["pytorchReplicaSpecs"]["Worker"]["replicas"] = 40
    world.begin()
    world.unready_nodes = frozenset(f"node-of-worker-{index}" for index in range(40))
    for index in range(40):
        world.evict(f"worker-{index}", reason="DeletionByTaintManager")
    world.later(61)
    forced = world.status.history[-1].forced
    assert (len(forced.pods), len(forced.nodes)) == (16, 16)
    assert [pod.slot for pod in world.pods.values()] == ["master-0"]
    assert forced.time > NOW
    assert "and 35 more" in next(event.message for event in world.events if event.reason == "ForceDeleted")
