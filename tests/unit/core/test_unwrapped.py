"""Attempts without an entrypoint: what Kubernetes shows of the pods tells a good end from being told to stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.manifests import make_container, make_template
from support.manifests import make_pod as make_pod_template
from support.observations import (
    make_pod,
    make_report,
    make_resume,
    make_scene,
    make_trainer,
    make_workload,
    seconds_ago,
)
from support.simulated_world import World
from sweeprun_operator.api.status import Cause, ConditionType, Doubt
from sweeprun_operator.core.classify import PEERS_SECONDS, classify
from sweeprun_operator.core.observation import PodPhase
from sweeprun_operator.core.verdicts import Ended, GoesOn, InDoubt
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.prepare import pods_digest
from sweeprun_protocol.reasons import Outcome

TEMPLATE = make_template(pod=make_pod_template(make_container(command=None)))


def pod(slot, exit_code=None, **fields):
    return make_pod(slot, exit_code=exit_code, unwrapped=True, **fields)


def cause_of(*pods, **scene):
    verdict = classify(make_scene(*pods, **scene))
    assert isinstance(verdict, Ended), verdict
    return verdict.interruption.cause


# -- one pod -----------------------------------------------------------------------------------------------------------


def test_pods_that_ended_with_0_by_themselves_are_a_seeming_completion():
    assert cause_of(pod("master-0", 0), pod("worker-0", 0)) is Cause.COMPLETED


TOLD = {
    "deleted by somebody": ({"deleting": True}, Cause.POD_LOST),
    "evicted": ({"deleting": True, "disruption": "EvictionByEvictionAPI"}, Cause.EVICTION_API),
    "evicted, not deleting yet": ({"disruption": "EvictionByEvictionAPI"}, Cause.EVICTION_API),
    "evicted by the kubelet": (
        {"phase": PodPhase.FAILED, "reason": "Evicted", "disruption": "TerminationByKubelet"},
        Cause.KUBELET,
    ),
}


@pytest.mark.parametrize(("fields", "cause"), TOLD.values(), ids=TOLD.keys())
def test_a_polite_exit_0_after_being_told_to_go_completes_nothing(fields, cause):
    told = pod("worker-0", 0, **fields)
    doubt = Doubt(since=seconds_ago(3))
    assert cause_of(pod("master-0", 0), told, doubt=doubt) is cause
    twin = replace(told, unwrapped=False)  # there the entrypoint's record says it
    assert cause_of(pod("master-0", 0), twin, doubt=doubt) in (cause, Cause.COMPLETED)


def test_a_pod_that_is_deleted_after_its_good_end_was_seen_has_ended_well():
    gone = pod("worker-0", 0, deleting=True)
    assert cause_of(pod("master-0", 0), gone, ended_uids=frozenset({gone.uid})) is Cause.COMPLETED


def test_a_trainer_that_ended_beside_a_sidecar_that_never_ends_has_ended():
    beside = (make_trainer(0), make_trainer(name="logs"))
    pods = [pod(slot, phase=PodPhase.RUNNING, containers=beside) for slot in ("master-0", "worker-0")]
    assert cause_of(*pods) is Cause.COMPLETED


# -- the master ends first ---------------------------------------------------------------------------------------------


def waiting(since, *pods, **fields):
    return make_scene(*pods, workload=make_workload(succeeded=True), doubt=Doubt(since=seconds_ago(since)), **fields)


def test_peers_of_a_master_that_has_succeeded_are_waited_for():
    scene = make_scene(pod("master-0", 0), pod("worker-0"), workload=make_workload(succeeded=True))
    assert isinstance(classify(scene), InDoubt)
    assert isinstance(classify(waiting(PEERS_SECONDS - 1, pod("master-0", 0), pod("worker-0"))), InDoubt)
    late = classify(waiting(PEERS_SECONDS + 1, pod("master-0", 0), pod("worker-0")))
    assert late.interruption.cause is Cause.COMPLETED  # prepare will find that it is none


def test_with_an_entrypoint_nobody_waits_for_them():
    scene = make_scene(make_pod("master-0", exit_code=0), make_pod(), workload=make_workload(succeeded=True))
    assert isinstance(classify(scene), Ended)


def test_a_peer_that_is_deleted_meanwhile_is_lost():
    assert classify(waiting(3, pod("master-0", 0), pod("worker-0", deleting=True))).interruption.cause is Cause.POD_LOST


def test_a_peer_that_vanishes_meanwhile_is_lost():
    verdict = classify(waiting(3, pod("master-0", 0), known_uids=frozenset({"uid-a0-master-0", "uid-a0-worker-0"})))
    assert verdict.interruption.cause is Cause.POD_LOST


def test_while_all_run_it_goes_on():
    assert isinstance(classify(make_scene(pod("master-0"), pod("worker-0"))), GoesOn)


# -- the start check ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (ExitCode.STALE_EPOCH, Cause.FENCED),
        (ExitCode.ATTEMPT_REUSED, Cause.POD_REPLACED),
        (ExitCode.VOLUME_UNUSABLE, Cause.NEVER_STARTED),
        (ExitCode.RESUME_POINT_LOST, Cause.NEVER_STARTED),
    ],
)
def test_a_start_check_that_refuses_is_the_cause(code, cause):
    check = make_trainer(int(code), name="sweeprun-check", init=True)
    refused = pod("worker-0", phase=PodPhase.FAILED, containers=(check, make_trainer(started=False)))
    assert cause_of(make_pod("master-0", unwrapped=True), refused) is cause


# -- whole lives -------------------------------------------------------------------------------------------------------


def begin(**spec):
    world = World(template=TEMPLATE, **spec).begin()
    for slot in ("master-0", "worker-0"):
        world.change_pod(slot, unwrapped=True)
    return world


def test_a_good_end_of_all_pods_is_told_to_prepare_as_one_digest():
    world = begin().later(60).end_pods(0).pods_go()
    uids = ["uid-a0-master-0", "uid-a0-worker-0"]
    assert world.request_of(1).ended_pods == pods_digest(uids)
    world.answer(make_report(1, Outcome.COMPLETED, step=1000))
    assert world.status.is_true(ConditionType.COMPLETE)


def test_a_slot_that_was_told_to_go_spoils_it():
    world = begin().later(60)
    world.change_pod("master-0", phase=PodPhase.SUCCEEDED, containers=(make_trainer(0),))
    world.evict("worker-0")
    world.change_pod("worker-0", phase=PodPhase.SUCCEEDED, containers=(make_trainer(0),)).later(6).pods_go()
    assert world.request_of(1).ended_pods is None
    world.later(3).answer(make_resume(1, 500, last_step=None))
    assert world.status.history[0].cause is Cause.EVICTION_API
    assert world.status.history[0].to_step == 500  # no end record tells; the checkpoint does


def test_the_condition_accepted_says_what_is_weaker():
    said = begin(limits={"stallTimeoutSeconds": 60}).condition(ConditionType.ACCEPTED).message
    for word in ("Master, Worker", "EnvOnly", "completion", "progress", "stallTimeoutSeconds does not apply"):
        assert word in said
    assert "EnvOnly" not in World().begin().condition(ConditionType.ACCEPTED).message
