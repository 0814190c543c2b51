"""Why an attempt ended: every row of `support.ends`, and what happens where there is more than one sign."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from support.ends import (
    DISRUPTED,
    FAILED,
    KUBELETS_WITHOUT_THE_CONDITION,
    OURS,
    ROWS,
    RUNNING_MASTER,
    STOPPED_MASTER,
    VANISHED,
    worker,
)
from support.observations import NOW, make_pod, make_scene, make_trainer, make_workload, seconds_ago
from sweeprun_operator.api.status import Cause, Interruption, Kind
from sweeprun_operator.core.classify import KINDS, classify
from sweeprun_operator.core.observation import PodPhase
from sweeprun_operator.core.verdicts import Ended, GoesOn
from sweeprun_protocol.exit_codes import ExitCode


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_end_has_the_cause_that_its_objects_show(row):
    pods = (row.master, row.worker) if row.worker is not None else (row.master,)
    verdict = classify(make_scene(**{"pods": pods, **row.scene}))
    assert isinstance(verdict, Ended), verdict
    assert verdict.interruption.cause is row.cause
    assert KINDS[verdict.interruption.cause] is row.kind
    assert row.says in verdict.interruption.evidence
    assert verdict.interruption.time == NOW


@pytest.mark.parametrize("row", [*DISRUPTED, *KUBELETS_WITHOUT_THE_CONDITION, *FAILED, *OURS], ids=lambda row: row.name)
def test_the_end_names_the_pod_and_its_node(row):
    verdict = classify(make_scene(row.master, row.worker))
    assert verdict.interruption.pod == "digits-lr-0-a0-worker-0"
    assert verdict.interruption.node == "node-of-worker-0"


@pytest.mark.parametrize("row", DISRUPTED, ids=lambda row: row.name)
@pytest.mark.parametrize("code", [1, 134, 137, int(ExitCode.STALLED)])
def test_a_disruption_of_any_pod_outweighs_the_errors_of_its_peers(row, code):
    master = make_pod("master-0", containers=(make_trainer(code, finished=seconds_ago(50)),), phase=PodPhase.FAILED)
    assert classify(make_scene(master, row.worker)).interruption.cause is row.cause


def test_every_cause_counts_as_something():
    assert set(KINDS) == set(Cause)


GOES_ON = {
    "all is well": worker(),
    "the condition alone, which is taken back where no deletion follows": worker(disruption="EvictionByEvictionAPI"),
    "a pod that waits for its image": worker(
        phase=PodPhase.PENDING, containers=(make_trainer(started=False, waiting_reason="ImagePullBackOff"),)
    ),
    "a pod on a node that does not answer, with the taint manager off": worker(
        phase=PodPhase.RUNNING, reason="NodeLost"
    ),
    "a pod whose state nobody knows": worker(phase=PodPhase.UNKNOWN),
    "one rank that has ended well": worker(0),
    "a container beside the trainer that has failed": worker(
        containers=(make_trainer(), make_trainer(1, name="sidecar"))
    ),
}


@pytest.mark.parametrize("pod", GOES_ON.values(), ids=GOES_ON.keys())
def test_an_attempt_goes_on_with(pod):
    assert isinstance(classify(make_scene(RUNNING_MASTER, pod)), GoesOn)


def test_a_rank_that_ended_well_may_vanish():
    scene = make_scene(RUNNING_MASTER, ended_uids=frozenset({"uid-a0-worker-0"}))
    assert isinstance(classify(scene), GoesOn)


# -- more than one sign ------------------------------------------------------------------------------------------------


def test_the_first_disruption_in_time_is_named():
    first = make_pod("worker-0", deleting=True, disruption="PreemptionByScheduler", disruption_time=seconds_ago(9))
    second = make_pod("master-0", deleting=True, disruption="EvictionByEvictionAPI", disruption_time=seconds_ago(3))
    interruption = classify(make_scene(second, first)).interruption
    assert interruption.cause is Cause.PREEMPTION
    assert interruption.event_time == seconds_ago(9)


def remembered(pod: str = "digits-lr-0-a0-worker-0") -> Interruption:
    return Interruption(cause=Cause.EVICTION_API, evidence="seen before", pod=pod, time=seconds_ago(10))


def test_a_pod_that_was_marked_and_is_gone_was_disrupted():
    interruption = classify(make_scene(RUNNING_MASTER, disruption=remembered())).interruption
    assert interruption.cause is Cause.EVICTION_API
    assert interruption.time == NOW


def test_a_pod_that_was_marked_and_whose_slot_was_refilled_was_disrupted():
    scene = make_scene(RUNNING_MASTER, worker(uid="another"), disruption=remembered())
    assert classify(scene).interruption.cause is Cause.EVICTION_API


def gone(**fields):
    return worker(**{"deleting": True, "disruption": "PreemptionByScheduler", **fields})


@pytest.mark.parametrize("deleting", [True, False], ids=["seen Terminating", "seen marked only"])
def test_a_pod_that_was_gone_before_a_pass_saw_it_has_the_cause_that_a_watch_told(deleting):
    interruption = classify(make_scene(RUNNING_MASTER, departed=(gone(deleting=deleting),))).interruption
    assert interruption.cause is Cause.PREEMPTION
    assert interruption.pod == "digits-lr-0-a0-worker-0"
    assert interruption.node == "node-of-worker-0"


def test_what_a_watch_told_outweighs_the_survivors_errors_and_a_refilled_slot():
    failed = make_pod("master-0", phase=PodPhase.FAILED, containers=(make_trainer(1, finished=seconds_ago(1)),))
    assert classify(make_scene(failed, departed=(gone(),))).interruption.cause is Cause.PREEMPTION
    refilled = make_scene(RUNNING_MASTER, worker(uid="another"), departed=(gone(),))
    assert classify(refilled).interruption.cause is Cause.PREEMPTION


def test_a_mark_that_was_taken_back_means_nothing():
    assert isinstance(classify(make_scene(RUNNING_MASTER, worker(), disruption=remembered())), GoesOn)


def test_the_first_rank_that_failed_tells_the_cause_and_later_ones_are_its_clean_up():
    first = worker(phase=PodPhase.FAILED, containers=(make_trainer(1, finished=seconds_ago(30), message="the bug"),))
    killed = make_pod("master-0", phase=PodPhase.FAILED, containers=(make_trainer(137, finished=seconds_ago(1)),))
    interruption = classify(make_scene(killed, first)).interruption
    assert interruption.pod == first.name
    assert "the bug" in interruption.evidence
    assert interruption.event_time == seconds_ago(30)


def test_lack_of_memory_long_after_another_ranks_error_is_not_the_cause():
    first = worker(phase=PodPhase.FAILED, containers=(make_trainer(1, finished=seconds_ago(30)),))
    later = make_pod(
        "master-0", phase=PodPhase.FAILED, containers=(make_trainer(137, reason="OOMKilled", finished=seconds_ago(5)),)
    )
    assert classify(make_scene(later, first)).interruption.cause is Cause.APPLICATION


def test_within_what_clocks_differ_a_certain_sign_outweighs_a_bare_exit_code():
    survivor = make_pod("master-0", phase=PodPhase.FAILED, containers=(make_trainer(1, finished=seconds_ago(5)),))
    killed = worker(phase=PodPhase.FAILED, containers=(make_trainer(137, reason="OOMKilled", finished=seconds_ago(4)),))
    interruption = classify(make_scene(survivor, killed)).interruption
    assert interruption.cause is Cause.OOM_KILLED
    assert interruption.pod == killed.name


def test_the_kubelets_zero_is_no_time():
    nowhere = datetime(1970, 1, 1, tzinfo=UTC)
    pod = worker(phase=PodPhase.FAILED, containers=(make_trainer(255, reason="Unknown", finished=nowhere),))
    alone = classify(make_scene(RUNNING_MASTER, pod)).interruption
    assert alone.event_time is None


def test_a_node_that_came_back_explains_the_error_of_a_rank_on_another_one():
    survivor = make_pod("master-0", phase=PodPhase.FAILED, containers=(make_trainer(1, finished=seconds_ago(40)),))
    killed = worker(phase=PodPhase.FAILED, containers=(make_trainer(255, reason="Unknown", finished=seconds_ago(3)),))
    assert classify(make_scene(survivor, killed)).interruption.cause is Cause.KUBELET


def test_own_exit_codes_count_wherever_they_stand_in_time():
    survivor = make_pod("master-0", phase=PodPhase.FAILED, containers=(make_trainer(1, finished=seconds_ago(40)),))
    fenced = worker(ExitCode.FENCED)
    assert classify(make_scene(survivor, fenced)).interruption.cause is Cause.FENCED


def test_an_own_exit_code_of_a_container_beside_the_trainer_means_nothing_special():
    pod = worker(phase=PodPhase.FAILED, containers=(make_trainer(ExitCode.FENCED, name="sidecar"),))
    assert classify(make_scene(STOPPED_MASTER, pod)).interruption.cause is Cause.APPLICATION


def test_the_first_container_that_failed_speaks_for_its_pod():
    setup = make_trainer(3, name="download", init=True, finished=seconds_ago(5), message="no route")
    pod = worker(phase=PodPhase.FAILED, containers=(setup, make_trainer(started=False)))
    interruption = classify(make_scene(STOPPED_MASTER, pod)).interruption
    assert interruption.cause is Cause.APPLICATION
    assert "container download" in interruption.evidence
    assert "no route" in interruption.evidence


def test_evidence_is_bounded():
    pod = worker(deleting=True, disruption="EvictionByEvictionAPI", disruption_message="x" * 5000)
    assert len(classify(make_scene(RUNNING_MASTER, pod)).interruption.evidence) <= 1024


# -- queues ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [*DISRUPTED, *VANISHED[:2], *FAILED[:3]], ids=lambda row: row.name)
def test_a_queue_that_suspends_a_started_job_explains_all_else(row):
    pods = (RUNNING_MASTER, row.worker) if row.worker is not None else (RUNNING_MASTER,)
    interruption = classify(make_scene(*pods, workload=make_workload(suspended=True))).interruption
    assert interruption.cause is Cause.QUEUE_SUSPENDED
    assert KINDS[interruption.cause] is Kind.NEUTRAL


def test_a_queue_that_has_not_admitted_the_job_yet_ends_nothing():
    scene = make_scene(workload=make_workload(suspended=True), pods=(), known_uids=frozenset(), all_ran=False)
    assert isinstance(classify(scene), GoesOn)


# -- good ends ---------------------------------------------------------------------------------------------------------


def test_every_rank_that_ended_well_is_a_seeming_completion():
    interruption = classify(make_scene(make_pod("master-0", exit_code=0), worker(0))).interruption
    assert interruption.cause is Cause.COMPLETED


def test_a_trainer_that_ended_well_beside_a_container_that_runs_on_has_ended():
    pods = [
        make_pod(slot, containers=(make_trainer(0), make_trainer(name="sidecar"))) for slot in ("master-0", "worker-0")
    ]
    assert classify(make_scene(*pods)).interruption.cause is Cause.COMPLETED


def test_ranks_that_ended_well_count_when_their_objects_are_gone():
    scene = make_scene(make_pod("master-0", exit_code=0), ended_uids=frozenset({"uid-a0-worker-0"}))
    assert classify(scene).interruption.cause is Cause.COMPLETED


def test_a_job_that_succeeded_is_a_seeming_completion_whatever_its_clean_up_stops():
    cleaned = worker(143, deleting=True)
    scene = make_scene(make_pod("master-0", exit_code=0), cleaned, workload=make_workload(succeeded=True))
    assert classify(scene).interruption.cause is Cause.COMPLETED


def test_one_ranks_good_end_is_no_completion_when_another_was_evicted():
    evicted = worker(deleting=True, disruption="EvictionByEvictionAPI")
    scene = make_scene(make_pod("master-0", exit_code=0), evicted, workload=make_workload(succeeded=True))
    assert classify(scene).interruption.cause is Cause.EVICTION_API
