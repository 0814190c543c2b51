"""Children by their numbers: new ones are counted, leftovers go, foreign objects are never touched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from support.observations import make_job, make_observation, make_pod, make_report, make_resume, make_workload
from support.simulated_world import World
from sweeprun_operator.api.status import State
from sweeprun_operator.core.decide import decide
from sweeprun_operator.core.observation import JobPhase, Role
from sweeprun_operator.core.plan import ChildKind, Delete, Plan
from sweeprun_protocol.reasons import Outcome

NAME = "digits-lr-0"


def newer_children(world: World):
    prepare, attempts = world.current.prepare, world.status.counts.attempts
    return {
        "a prepare": {"jobs": (make_job(prepare + 1),)},
        "an init Job": {"jobs": (make_job(prepare + 1, role=Role.INIT),)},
        "a PyTorchJob": {"workloads": (make_workload(attempt=attempts),)},
        "a pod": {"pods": (make_pod("worker-0", attempt=attempts),)},
    }


def changes_nothing_but_the_status(plan: Plan) -> bool:
    """Its precondition is the read: where that was stale, the write is refused and nothing has happened."""
    return plan.status is not None and plan.actions == ()


@pytest.mark.parametrize("what", ["a prepare", "an init Job", "a PyTorchJob", "a pod"])
def test_children_newer_than_the_status_are_counted_in_it_before_anything_else(what):
    world = World().begin().evict()
    seen = replace(world.observe(), **newer_children(world)[what])
    plan = decide(seen, world.children)
    assert changes_nothing_but_the_status(plan)
    attempts = world.status.counts.attempts + (what in ("a PyTorchJob", "a pod"))
    assert plan.status.counts.attempts == attempts
    assert plan.status.current.attempt == attempts - 1
    assert plan.status.current.prepare == world.current.prepare + (what in ("a prepare", "an init Job"))
    assert [event.reason for event in plan.events] == ["StatusRebuilt"]


def test_children_of_a_run_that_has_not_begun_are_counted_too():
    world = World()
    seen = make_observation(world.run, jobs=(make_job(0),), acceptance=world.acceptance)
    plan = decide(seen, world.children)
    assert changes_nothing_but_the_status(plan)
    assert (plan.status.current.prepare, plan.status.current.state) == (0, State.BACKOFF)


def test_a_workload_of_an_attempt_that_still_waits_is_stopped():
    world = World().begin().break_down().answer(make_report(1, Outcome.RESTART))
    assert world.current.state is State.BACKOFF
    seen = replace(world.observe(), workloads=(make_workload(attempt=1),))
    plan = decide(seen, world.children)
    assert changes_nothing_but_the_status(plan)
    assert (plan.status.current.attempt, plan.status.current.state) == (1, State.DRAINING)
    assert plan.status.counts.attempts == 2


def test_a_foreign_child_with_a_later_number_proves_nothing():
    world = World().begin()
    foreign = replace(make_job(9), owned=False)
    plan = decide(replace(world.observe(), jobs=(*world.jobs.values(), foreign)), world.children)
    assert plan.status is None
    assert plan.actions == ()


def test_what_a_transition_leaves_behind_goes_with_it():
    world = World().begin().evict().later(6)
    world.pods.clear()
    plan = world.one_pass()
    assert world.current.state is State.PREPARING
    made, *removed = plan.actions
    assert made.manifest["metadata"]["name"] == f"{NAME}-p1"
    assert [(action.kind, action.name) for action in removed] == [
        (ChildKind.JOB, f"{NAME}-p0"),
        (ChildKind.JOB, f"{NAME}-s0"),
    ]


def test_what_was_left_before_a_transition_is_deleted_before_a_child_is_made():
    """A quota that leftovers fill would refuse the child for ever."""
    world = World().begin().evict().later(6)
    world.pods.clear()
    old = make_job(0, role=Role.INIT, uid="old")
    world.run = world.run.model_copy(
        update={"status": world.status.model_copy(update={"current": world.current.model_copy(update={"prepare": 1})})}
    )
    plan = decide(replace(world.observe(), jobs=(old,)), world.children)
    assert [type(action).__name__ for action in plan.actions] == ["Delete", "Create"]


def test_jobs_of_older_prepares_are_deleted_by_their_uid():
    world = World().begin().interrupt()
    old = make_job(0, uid="old")
    plan = decide(replace(world.observe(), jobs=(old, *world.jobs.values())), world.children)
    assert plan.actions == (Delete(ChildKind.JOB, f"{NAME}-p0", "old"),)


def second_attempt() -> World:
    return World().begin().interrupt().go_on(make_resume(1, 500))


def test_a_workload_of_an_older_attempt_is_deleted_by_its_uid():
    world = second_attempt()
    old = make_workload(attempt=0, uid="old")
    plan = decide(replace(world.observe(), workloads=(old, *world.workloads.values())), world.children)
    assert plan.actions == (Delete(ChildKind.PYTORCHJOB, f"{NAME}-a0", "old"),)


def test_a_pod_of_an_older_attempt_without_its_workload_is_deleted_by_its_uid():
    world = second_attempt()
    old = make_pod("worker-0", attempt=0, uid="old")
    plan = decide(replace(world.observe(), pods=(old, *world.pods.values())), world.children)
    assert plan.actions == (Delete(ChildKind.POD, f"{NAME}-a0-worker-0", "old"),)


def test_what_is_being_deleted_is_not_deleted_again():
    world = second_attempt()
    seen = replace(
        world.observe(),
        jobs=(make_job(0, deleting=True), *world.jobs.values()),
        workloads=(make_workload(attempt=0, deleting=True), *world.workloads.values()),
        pods=(make_pod("worker-0", attempt=0, deleting=True), *world.pods.values()),
    )
    assert decide(seen, world.children).actions == ()


def test_foreign_objects_are_never_deleted():
    world = second_attempt()
    seen = replace(
        world.observe(),
        jobs=(make_job(0, owned=False), *world.jobs.values()),
        workloads=(make_workload(attempt=0, owned=False), *world.workloads.values()),
    )
    assert decide(seen, world.children).actions == ()


def test_nothing_new_is_made_beside_a_pod_of_an_older_attempt():
    world = World().begin().interrupt()
    zombie = make_pod("worker-0", attempt=0, deleting=True)
    world.pods[zombie.name] = zombie
    world.answer(make_resume(1, 500)).later(600)
    assert f"{NAME}-a1" not in world.created
    world.pods_go().later(5)
    assert f"{NAME}-a1" in world.created


def test_a_workload_that_comes_back_while_prepare_looks_is_removed():
    world = World().begin().interrupt()
    late = make_workload(attempt=0, uid="late")
    world.workloads[late.name] = late
    world.settle()
    assert late.name not in world.workloads


# -- names that belong to something else -------------------------------------------------------------------------------


def test_a_prepare_waits_while_its_name_belongs_to_something_else():
    world = World()
    taken = make_job(0, owned=False, phase=JobPhase.SUCCEEDED, report=make_report(0, Outcome.FRESH))
    world.jobs[taken.name] = taken
    world.settle()
    assert world.is_stuck() == "NameTaken"
    assert world.status.run_id is None, "its answer is not believed"
    world.later(3600)
    assert world.jobs == {taken.name: taken}
    world.jobs.clear()
    world.later(30)
    assert world.created == [f"{NAME}-p0"]
    assert world.is_stuck() is None


def test_an_attempt_waits_while_its_name_belongs_to_something_else():
    world = World().settle()
    taken = make_workload(owned=False, uid="foreign")
    world.workloads[taken.name] = taken
    world.answer(make_report(0, Outcome.FRESH))
    assert world.is_stuck() == "NameTaken"
    world.later(3600)
    assert list(world.workloads.values()) == [taken]
    world.workloads.clear()
    world.later(30)
    assert world.created[-1] == f"{NAME}-a0"
    assert world.is_stuck() is None


def test_a_foreign_workload_of_a_drained_attempt_is_not_waited_for():
    world = World().begin().evict()
    world.workloads[f"{NAME}-a0"] = make_workload(owned=False, uid="foreign")
    world.pods_go()
    assert f"{NAME}-p1" in world.created


# -- unreachable nodes -------------------------------------------------------------------------------------------------


def test_a_drain_that_hangs_on_a_silent_node_says_what_an_admin_can_do():
    world = World().begin().evict()
    world.pods_go("master-0")
    assert world.is_stuck() is None
    world.unready_nodes = frozenset({"node-of-worker-0"})
    world.later(10)
    assert world.is_stuck() == "NodeUnreachable"
    text = world.condition("Stuck").message
    assert "kubectl taint node node-of-worker-0 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute" in text
    world.later(10**6)
    assert [pod.slot for pod in world.pods.values()] == ["worker-0"], "nothing is deleted by force"
    assert f"{NAME}-p1" not in world.created
    world.pods_go().later(10)
    assert world.is_stuck() is None
    assert f"{NAME}-p1" in world.created


# -- the end of the object ---------------------------------------------------------------------------------------------


def test_nothing_is_done_for_a_run_that_is_being_deleted():
    world = World().begin()
    gone = world.run.metadata.model_copy(update={"deletion_timestamp": datetime(2026, 3, 1, tzinfo=UTC)})
    world.run = world.run.model_copy(update={"metadata": gone})
    world.pods.clear()
    assert decide(world.observe(), world.children) == Plan()


def finished(**spec: int) -> World:
    return World(**spec).begin().end_pods(0).pods_go().answer(make_report(1, Outcome.COMPLETED))


def test_a_finished_run_is_kept_unless_somebody_says_otherwise():
    assert not finished().later(10**8).deleted_run


def test_a_finished_run_is_deleted_after_its_time():
    world = finished(ttlSecondsAfterFinished=100)
    assert not world.later(99).deleted_run
    assert world.later(1).deleted_run


def test_zero_seconds_delete_a_finished_run_at_once():
    assert finished(ttlSecondsAfterFinished=0).deleted_run


def test_a_finished_run_keeps_its_last_prepare_as_evidence():
    assert list(finished().later(1000).jobs) == [f"{NAME}-p1"]
