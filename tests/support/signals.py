"""How attempts end, as pod objects that Kubernetes wrote: one signal for each row of the table in docs/causes.md.

Sources: KEP-3329 and its reproduction, the kubelet, PodGC, the taint manager, KEP-2268, training-operator 1.9, and what
was seen on kind. Each is the worker's pod of an attempt with two; the master runs on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sweeprun_operator.api.status import Cause
from sweeprun_operator.cluster.observe import REPLICA_INDEX_LABEL, REPLICA_TYPE_LABEL
from sweeprun_operator.core.classify import DELETION_SECONDS
from sweeprun_operator.core.failures import DOUBT_SECONDS
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_ATTEMPT, ROLE_LABEL

Raw = dict[str, Any]
TIME = "2026-03-01T11:59:50Z"
NAME = "digits-lr-0-a0-worker-0"
NODE = "node-2"


@dataclass(frozen=True)
class Signal:
    pod: Raw | None
    """The worker's pod; None: its object is gone."""
    cause: Cause | None
    """None: the attempt goes on."""
    started: bool = True
    """All pods of the attempt had run before."""
    scene: Raw = field(default_factory=dict)
    """Of the workload, and the seconds since somebody doubted first."""


def pod(
    phase: str = "Running",
    *containers: Raw,
    reason: str | None = None,
    message: str | None = None,
    disruption: tuple[str, str] | None = None,
    deleted: bool = False,
    uid: str = "uid-a0-worker-0",
    slot: str = "worker-0",
) -> Raw:
    labels = {ROLE_LABEL: ROLE_ATTEMPT, NUMBER_LABEL: "0"}
    kind, index = slot.split("-")
    metadata: Raw = {
        "name": f"digits-lr-0-a0-{slot}",
        "uid": uid,
        "labels": {**labels, REPLICA_TYPE_LABEL: kind, REPLICA_INDEX_LABEL: index},
        "creationTimestamp": "2026-03-01T11:50:00Z",
    }
    if deleted:
        metadata |= {"deletionTimestamp": "2026-03-01T12:00:20Z", "deletionGracePeriodSeconds": 30}
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": TIME}]
    if disruption is not None:
        why, said = disruption
        conditions.append(
            {"type": "DisruptionTarget", "status": "True", "reason": why, "message": said, "lastTransitionTime": TIME}
        )
    status: Raw = {"phase": phase, "conditions": conditions, "containerStatuses": list(containers)}
    status |= {"reason": reason} if reason else {}
    status |= {"message": message} if message else {}
    return {"metadata": metadata, "spec": {"nodeName": NODE}, "status": status}


def running() -> Raw:
    return {"name": "pytorch", "state": {"running": {"startedAt": "2026-03-01T11:51:00Z"}}}


def ended(code: int, reason: str = "Error", **more: Any) -> Raw:
    state = {"exitCode": code, "reason": reason, "startedAt": "2026-03-01T11:51:00Z", "finishedAt": TIME, **more}
    return {"name": "pytorch", "state": {"terminated": state}}


def lost() -> Raw:
    """The kubelet does not know how it ended."""
    told = "The container could not be located when the pod was terminated"
    return {"name": "pytorch", "state": {"terminated": ended_unknown(told)}}


def ended_unknown(message: str) -> Raw:
    return {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": message,
        "startedAt": None,
        "finishedAt": None,
    }


PRESSURE = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51916Ki."
BY_KUBELET = ("TerminationByKubelet", PRESSURE)
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
TAINT = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
GONE = ("DeletionByPodGC", "PodGC: node no longer exists")
PREEMPTED = ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")
EVICTED = ("EvictionByEvictionAPI", "Eviction API: evicting")

SIGNALS: dict[str, Signal] = {
    "kubelet: node pressure": Signal(
        pod("Failed", lost(), reason="Evicted", message=PRESSURE, disruption=BY_KUBELET), Cause.KUBELET
    ),
    "kubelet: node pressure, before 1.26": Signal(
        pod("Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage. "), Cause.KUBELET
    ),
    "own ephemeral storage or emptyDir limit": Signal(
        pod(
            "Failed",
            ended(137),
            reason="Evicted",
            message="Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        ),
        Cause.STORAGE_LIMIT,
    ),
    "refused on a node under pressure": Signal(
        pod("Failed", reason="Evicted", message="The node had condition: [MemoryPressure]. "),
        Cause.NEVER_STARTED,
        started=False,
    ),
    "kubelet makes room for a critical pod": Signal(
        pod(
            "Failed",
            ended(137),
            reason="Preempting",
            message="Preempted in order to admit critical pod",
            disruption=("TerminationByKubelet", "Pod was preempted by Kubelet to accommodate a critical pod."),
        ),
        Cause.KUBELET,
    ),
    "graceful node shutdown": Signal(
        pod("Failed", ended(143), reason="Terminated", message=SHUTDOWN, disruption=("TerminationByKubelet", SHUTDOWN)),
        Cause.KUBELET,
    ),
    "graceful node shutdown, exit code 0": Signal(
        pod(
            "Succeeded",
            ended(0, "Completed"),
            reason="Terminated",
            message=SHUTDOWN,
            disruption=("TerminationByKubelet", SHUTDOWN),
        ),
        Cause.KUBELET,
    ),
    "pod arrives during a node shutdown": Signal(
        pod("Failed", reason="NodeShutdown", message="Pod was rejected as the node is shutting down."),
        Cause.NEVER_STARTED,
        started=False,
    ),
    "node shutdown, kubelets of 1.20 and 1.21": Signal(
        pod("Failed", ended(143), reason="Shutdown", message="Node is shutting, evicting pods"), Cause.KUBELET
    ),
    "preemption by the scheduler": Signal(
        pod("Running", running(), disruption=PREEMPTED, deleted=True), Cause.PREEMPTION
    ),
    "preemption by Volcano": Signal(
        pod("Failed", ended(143), disruption=("PreemptionByScheduler", "volcano: preempting"), deleted=True),
        Cause.PREEMPTION,
    ),
    "NoExecute taint": Signal(pod("Running", running(), disruption=TAINT, deleted=True), Cause.TAINT),
    "Eviction API": Signal(pod("Running", running(), disruption=EVICTED, deleted=True), Cause.EVICTION_API),
    "node object gone": Signal(pod("Failed", running(), disruption=GONE, deleted=True), Cause.POD_GC),
    "node object gone, no condition": Signal(pod("Failed", running()), Cause.POD_GC),
    "out-of-service taint": Signal(pod("Failed", running(), disruption=TAINT, deleted=True), Cause.TAINT),
    "taint manager disabled": Signal(
        pod("Running", running(), reason="NodeLost", message="Node node-2 which was running pod is unresponsive"), None
    ),
    "own memory limit": Signal(pod("Failed", ended(137, "OOMKilled")), Cause.OOM_KILLED),
    "own memory limit, reason lost": Signal(
        pod("Failed", ended(137)), Cause.APPLICATION, scene={"looked": DOUBT_SECONDS}
    ),
    "node out of memory and evicted": Signal(
        pod("Failed", ended(137, "OOMKilled"), reason="Evicted", message=PRESSURE, disruption=BY_KUBELET),
        Cause.KUBELET,
    ),
    "activeDeadlineSeconds of the pod": Signal(
        pod(
            "Failed",
            ended(143),
            reason="DeadlineExceeded",
            message="Pod was active on the node longer than the specified deadline",
        ),
        Cause.DEADLINE,
    ),
    "deleted by somebody": Signal(
        pod("Running", running(), deleted=True), Cause.POD_LOST, scene={"looked": DELETION_SECONDS}
    ),
    "deleted by force, slot refilled": Signal(pod("Running", running(), uid="another"), Cause.POD_REPLACED),
    "kubelet admission": Signal(
        pod(
            "Failed",
            reason="UnexpectedAdmissionError",
            message="Allocate failed due to no healthy devices present; cannot allocate unhealthy devices "
            "nvidia.com/gpu, which is unexpected",
        ),
        Cause.NEVER_STARTED,
        started=False,
    ),
    "kubelet admission after a node reboot": Signal(
        pod("Failed", reason="OutOfnvidia.com/gpu", message="Node didn't have enough resource: nvidia.com/gpu"),
        Cause.KUBELET,
    ),
    "program killed or crashed": Signal(
        pod("Failed", ended(139, message="Fatal Python error: Segmentation fault")),
        Cause.APPLICATION,
        scene={"looked": DOUBT_SECONDS},
    ),
    "exit code 88: no progress for `limits.stallTimeoutSeconds`": Signal(
        pod("Failed", ended(ExitCode.STALLED, message="sweeprun: no progress for 600 s")),
        Cause.STALLED,
        scene={"looked": DOUBT_SECONDS},
    ),
    "preemption by Kueue": Signal(None, Cause.QUEUE_SUSPENDED, scene={"suspended": True}),
}
