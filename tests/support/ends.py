"""How attempts end: one row for each way in which Kubernetes, training-operator, a queue or the program ends one.

Sources: KEP-3329's table of pod states, the kubelet, PodGC, KEP-2268, training-operator 1.9, and what was seen on a
cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from support.observations import make_pod, make_trainer, make_workload, seconds_ago
from sweeprun_operator.api.status import Cause, Doubt, Kind
from sweeprun_operator.core.classify import DELETION_SECONDS
from sweeprun_operator.core.observation import ContainerState, PodPhase, PodState
from sweeprun_protocol.exit_codes import ExitCode

RUNNING_MASTER = make_pod("master-0")
RUNNING_WORKER = make_pod("worker-0")
STOPPED_MASTER = make_pod(
    "master-0", phase=PodPhase.FAILED, deleting=True, containers=(make_trainer(137, finished=seconds_ago(-5)),)
)
"""By the clean-up of a job that has failed."""
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

    @property
    def master(self) -> PodState:
        """The error of a program is believed once its peers have ended as well."""
        return STOPPED_MASTER if self.cause in (Cause.APPLICATION, Cause.STALLED) else RUNNING_MASTER


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
    Row(
        "a pod of a live attempt that vanished a while ago",
        None,
        Cause.POD_LOST,
        Kind.DISRUPTION,
        "vanished",
        scene={"doubt": Doubt(since=seconds_ago(DELETION_SECONDS), pod_vanished=True)},
    ),
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
    Row("no progress", worker(ExitCode.STALLED), Cause.STALLED, Kind.FAILURE, "limits.stallTimeoutSeconds"),
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
