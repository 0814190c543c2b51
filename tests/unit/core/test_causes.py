"""Why an attempt ended: one row for each way in which Kubernetes, training-operator, a queue or the program ends it.

Sources of the rows: KEP-3329's table of pod states, the kubelet, PodGC, KEP-2268, training-operator 1.9, and what was
seen on a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from support.observations import NOW, make_pod, make_scene, make_trainer, make_workload, seconds_ago
from sweeprun_operator.api.status import Cause, Interruption, Kind
from sweeprun_operator.core.classify import KINDS, Ended, GoesOn, classify
from sweeprun_operator.core.observation import ContainerState, PodPhase, PodState
from sweeprun_protocol.exit_codes import ExitCode

RUNNING_MASTER = make_pod("master-0")
RUNNING_WORKER = make_pod("worker-0")
STILL_RUNNING = (make_trainer(),)
NO_CONTAINERS: tuple[ContainerState, ...] = ()


@dataclass(frozen=True)
class Row:
    name: str
    worker: PodState | None
    """What the worker's pod shows; None: its object is gone."""
    cause: Cause
    kind: Kind
    says: str = ""
    """Part of the evidence."""
    scene: dict[str, Any] = field(default_factory=dict)


def worker(exit_code: int | None = None, **fields: Any) -> PodState:
    return make_pod("worker-0", exit_code=exit_code, **fields)


def ended(code: int, **fields: Any) -> tuple[ContainerState, ...]:
    return (make_trainer(code, finished=seconds_ago(1), **fields),)


DISRUPTED = [
    Row(
        "Eviction API (drain, autoscaler, descheduler), in its grace period",
        worker(deleting=True, disruption="EvictionByEvictionAPI", disruption_message="Eviction API: evicting"),
        Cause.EVICTION_API,
        Kind.DISRUPTION,
        "DisruptionTarget EvictionByEvictionAPI on digits-lr-0-a0-worker-0: Eviction API: evicting",
    ),
    Row(
        "Eviction API, the program ended with its own error meanwhile",
        worker(1, deleting=True, disruption="EvictionByEvictionAPI"),
        Cause.EVICTION_API,
        Kind.DISRUPTION,
    ),
    Row(
        "Eviction API, the program saved and ended with 0: no completion",
        worker(0, disruption="EvictionByEvictionAPI"),
        Cause.EVICTION_API,
        Kind.DISRUPTION,
    ),
    Row(
        "preemption by the scheduler",
        worker(143, deleting=True, disruption="PreemptionByScheduler"),
        Cause.PREEMPTION,
        Kind.DISRUPTION,
    ),
    Row(
        "preemption by the scheduler, alpha wording",
        worker(deleting=True, disruption="PreemptionByKubeScheduler"),
        Cause.PREEMPTION,
        Kind.DISRUPTION,
    ),
    Row(
        "taint manager: node not ready, unreachable, out of service, or a taint of somebody's",
        worker(deleting=True, disruption="DeletionByTaintManager"),
        Cause.TAINT,
        Kind.DISRUPTION,
    ),
    Row(
        "node object gone: PodGC, the container may still be shown as running",
        worker(phase=PodPhase.FAILED, disruption="DeletionByPodGC", containers=STILL_RUNNING),
        Cause.POD_GC,
        Kind.DISRUPTION,
    ),
    Row(
        "kubelet: node pressure",
        worker(
            137, reason="Evicted", message="The node was low on resource: memory.", disruption="TerminationByKubelet"
        ),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "kubelet: node pressure, no container state at all",
        worker(phase=PodPhase.FAILED, reason="Evicted", disruption="TerminationByKubelet", containers=NO_CONTAINERS),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "kubelet makes room for a critical pod",
        worker(137, reason="Preempting", disruption="TerminationByKubelet"),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "graceful node shutdown",
        worker(143, reason="Terminated", disruption="TerminationByKubelet"),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "graceful node shutdown, the program ended with 0: no completion",
        worker(0, reason="Terminated", disruption="TerminationByKubelet"),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "node-wide lack of memory kills the container and the kubelet evicts: the condition wins",
        worker(phase=PodPhase.FAILED, disruption="TerminationByKubelet", containers=ended(137, reason="OOMKilled")),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "a reason that this version does not know is a disruption all the same",
        worker(deleting=True, disruption="EvictionByVolcano"),
        Cause.DISRUPTION_OTHER,
        Kind.DISRUPTION,
        "EvictionByVolcano",
    ),
]

KUBELETS_WITHOUT_THE_CONDITION = [
    Row(
        "node pressure, kubelet before 1.26",
        worker(137, reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row("critical pod, kubelet before 1.26", worker(137, reason="Preempting"), Cause.KUBELET, Kind.DISRUPTION),
    Row("node shutdown, kubelet before 1.26", worker(143, reason="Terminated"), Cause.KUBELET, Kind.DISRUPTION),
    Row("node shutdown, kubelet 1.20", worker(143, reason="Shutdown"), Cause.KUBELET, Kind.DISRUPTION),
    Row("node shutdown, kubelet 1.21", worker(143, reason="NodeShutdown"), Cause.KUBELET, Kind.DISRUPTION),
    Row(
        "a kubelet that starts again refuses what it ran before, and overwrites how it ended",
        worker(phase=PodPhase.FAILED, reason="UnexpectedAdmissionError", containers=NO_CONTAINERS),
        Cause.KUBELET,
        Kind.DISRUPTION,
        "it ran before",
    ),
    Row(
        "the same by a reason that nobody listed",
        worker(phase=PodPhase.FAILED, reason="TopologyAffinityError", containers=NO_CONTAINERS),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "a node that was switched off and came back: the runtime does not know how the container ended",
        worker(phase=PodPhase.FAILED, containers=ended(255, reason="Unknown")),
        Cause.KUBELET,
        Kind.DISRUPTION,
        "node was restarted",
    ),
    Row(
        "the kubelet does not find the container any more",
        worker(phase=PodPhase.FAILED, containers=ended(137, reason="ContainerStatusUnknown")),
        Cause.KUBELET,
        Kind.DISRUPTION,
    ),
    Row(
        "marked Failed by PodGC without the condition, the container still shown as running",
        worker(phase=PodPhase.FAILED, containers=STILL_RUNNING),
        Cause.POD_GC,
        Kind.DISRUPTION,
        "no container of it has ended",
    ),
]

VANISHED = [
    Row("a pod of a live attempt that vanished", None, Cause.POD_LOST, Kind.DISRUPTION, "vanished"),
    Row(
        "training-operator refilled the slot of a pod that vanished",
        worker(uid="another"),
        Cause.POD_REPLACED,
        Kind.DISRUPTION,
        "another pod than before",
    ),
    Row(
        "the PyTorchJob was deleted by somebody",
        RUNNING_WORKER,
        Cause.WORKLOAD_LOST,
        Kind.DISRUPTION,
        scene={"workload": None},
    ),
    Row(
        "the PyTorchJob is being deleted by somebody",
        RUNNING_WORKER,
        Cause.WORKLOAD_LOST,
        Kind.DISRUPTION,
        scene={"workload": make_workload(deleting=True)},
    ),
    Row(
        "the PyTorchJob is another one of the same name",
        RUNNING_WORKER,
        Cause.WORKLOAD_LOST,
        Kind.DISRUPTION,
        scene={"workload": make_workload(uid="another")},
    ),
]

FAILED = [
    Row(
        "own storage limit: Evicted without the condition",
        worker(137, reason="Evicted", message="Container pytorch exceeded its local ephemeral storage limit"),
        Cause.STORAGE_LIMIT,
        Kind.FAILURE,
        "exceeded its local ephemeral storage limit",
    ),
    Row(
        "emptyDir's limit, the kubelet kept no container state",
        worker(
            phase=PodPhase.FAILED,
            reason="Evicted",
            message='Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".',
            containers=NO_CONTAINERS,
        ),
        Cause.STORAGE_LIMIT,
        Kind.FAILURE,
    ),
    Row(
        "own memory limit",
        worker(phase=PodPhase.FAILED, containers=ended(137, reason="OOMKilled")),
        Cause.OOM_KILLED,
        Kind.FAILURE,
        "OOMKilled",
    ),
    Row(
        "own memory limit, the pod's phase still Running",
        worker(phase=PodPhase.RUNNING, containers=ended(137, reason="OOMKilled")),
        Cause.OOM_KILLED,
        Kind.FAILURE,
    ),
    Row("activeDeadlineSeconds of the pod", worker(143, reason="DeadlineExceeded"), Cause.DEADLINE, Kind.FAILURE),
    Row("the program's error", worker(1), Cause.APPLICATION, Kind.FAILURE, "ended with exit code 1"),
    Row("killed, nobody says by whom", worker(137), Cause.APPLICATION, Kind.FAILURE, "137"),
    Row("NCCL abort", worker(134), Cause.APPLICATION, Kind.FAILURE),
    Row("SIGTERM that nobody of Kubernetes sent", worker(143), Cause.APPLICATION, Kind.FAILURE),
    Row(
        "the tail of the log is the evidence",
        worker(phase=PodPhase.FAILED, containers=ended(1, message="RuntimeError: CUDA error")),
        Cause.APPLICATION,
        Kind.FAILURE,
        "RuntimeError: CUDA error",
    ),
    Row("the ranks did not agree", worker(ExitCode.NO_AGREEMENT), Cause.APPLICATION, Kind.FAILURE, "did not agree"),
    Row("no progress", worker(ExitCode.STALLED), Cause.APPLICATION, Kind.FAILURE, "stall limit"),
]

OURS = [
    Row("a later claim before the start", worker(ExitCode.STALE_EPOCH), Cause.FENCED, Kind.NEUTRAL, "later claim"),
    Row("a later claim while it trained", worker(ExitCode.FENCED), Cause.FENCED, Kind.NEUTRAL, "later claim"),
    Row(
        "another pod had started in the slot",
        worker(ExitCode.ATTEMPT_REUSED),
        Cause.POD_REPLACED,
        Kind.DISRUPTION,
        "another pod had started in this slot",
    ),
    Row(
        "the pinned checkpoint is gone",
        worker(ExitCode.RESUME_POINT_LOST),
        Cause.NEVER_STARTED,
        Kind.NEVER_STARTED,
        "pinned checkpoint",
    ),
    Row(
        "the volume cannot be used",
        worker(ExitCode.VOLUME_UNUSABLE),
        Cause.NEVER_STARTED,
        Kind.NEVER_STARTED,
        "run directory",
    ),
    Row("the environment contradicts itself", worker(ExitCode.CONFIGURATION), Cause.APPLICATION, Kind.FAILURE),
    Row("no Python in the image", worker(ExitCode.NO_PYTHON), Cause.APPLICATION, Kind.FAILURE, "pythonPath"),
]

NEVER_STARTED = [
    Row(
        f"refused by the kubelet: {reason}",
        worker(phase=PodPhase.FAILED, reason=reason, containers=NO_CONTAINERS),
        Cause.NEVER_STARTED,
        Kind.NEVER_STARTED,
        reason,
        scene={"all_ran": False},
    )
    for reason in (
        "UnexpectedAdmissionError",
        "OutOfcpu",
        "OutOfnvidia.com/gpu",
        "NodeAffinity",
        "NodeShutdown",
        "TopologyAffinityError",
    )
] + [
    Row(
        "refused on a node under pressure: Evicted, but nothing had started",
        worker(
            phase=PodPhase.FAILED,
            reason="Evicted",
            message="The node had condition: [MemoryPressure].",
            containers=NO_CONTAINERS,
        ),
        Cause.NEVER_STARTED,
        Kind.NEVER_STARTED,
        scene={"all_ran": False},
    ),
    Row(
        "the PyTorchJob failed before it had a pod",
        None,
        Cause.NEVER_STARTED,
        Kind.NEVER_STARTED,
        "no such image policy",
        scene={
            "pods": (),
            "known_uids": frozenset(),
            "workload": make_workload(failed=True, failure_message="no such image policy"),
            "all_ran": False,
        },
    ),
]

ROWS = [*DISRUPTED, *KUBELETS_WITHOUT_THE_CONDITION, *VANISHED, *FAILED, *OURS, *NEVER_STARTED]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_end_has_the_cause_that_its_objects_show(row):
    pods = (RUNNING_MASTER, row.worker) if row.worker is not None else (RUNNING_MASTER,)
    verdict = classify(make_scene(**{"pods": pods, **row.scene}))
    assert isinstance(verdict, Ended), verdict
    assert verdict.interruption.cause is row.cause
    assert KINDS[verdict.interruption.cause] is row.kind
    assert row.says in verdict.interruption.evidence
    assert verdict.interruption.time == NOW


@pytest.mark.parametrize("row", [*DISRUPTED, *KUBELETS_WITHOUT_THE_CONDITION, *FAILED, *OURS], ids=lambda row: row.name)
def test_the_end_names_the_pod_and_its_node(row):
    verdict = classify(make_scene(RUNNING_MASTER, row.worker))
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


def test_a_mark_that_was_taken_back_means_nothing():
    assert isinstance(classify(make_scene(RUNNING_MASTER, RUNNING_WORKER, disruption=remembered())), GoesOn)


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
    assert classify(make_scene(RUNNING_MASTER, pod)).interruption.cause is Cause.APPLICATION


def test_the_first_container_that_failed_speaks_for_its_pod():
    setup = make_trainer(3, name="download", init=True, finished=seconds_ago(5), message="no route")
    pod = worker(phase=PodPhase.FAILED, containers=(setup, make_trainer(started=False)))
    interruption = classify(make_scene(RUNNING_MASTER, pod)).interruption
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
