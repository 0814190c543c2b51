"""Why an attempt ended, from what the cluster shows of its pods and its workload; never from the exit code alone.

The rules stand in order: the first one that says something wins. Sources: KEP-3329 (DisruptionTarget and failures
without it, by decision), training-operator 1.9, and what was seen on kind (docs/causes.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sweeprun_operator.api.status import Cause, Doubt, Interruption, Kind
from sweeprun_protocol.exit_codes import ExitCode

from .conditions import clip
from .observation import ContainerState, PodPhase, PodState
from .scene import Scene

DOUBT_SECONDS = 60.0
"""A node's death shows up to 48 s after the survivors' errors (measured)."""
DELETION_SECONDS = 2.0
"""Lists of jobs and pods are not read at one instant: a queue's suspension may show in the next pass only."""


@dataclass(frozen=True, slots=True)
class Ended:
    interruption: Interruption


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Something ended; its cause is not clear yet."""

    doubt: Doubt
    look_again_seconds: float


@dataclass(frozen=True, slots=True)
class GoesOn:
    pass


Verdict = Ended | InDoubt | GoesOn

KINDS: dict[Cause, Kind] = {
    Cause.COMPLETED: Kind.COMPLETION,
    Cause.EVICTION_API: Kind.DISRUPTION,
    Cause.PREEMPTION: Kind.DISRUPTION,
    Cause.TAINT: Kind.DISRUPTION,
    Cause.POD_GC: Kind.DISRUPTION,
    Cause.KUBELET: Kind.DISRUPTION,
    Cause.DISRUPTION_OTHER: Kind.DISRUPTION,
    Cause.POD_LOST: Kind.DISRUPTION,
    Cause.POD_REPLACED: Kind.DISRUPTION,
    Cause.WORKLOAD_LOST: Kind.DISRUPTION,
    Cause.OOM_KILLED: Kind.FAILURE,
    Cause.STORAGE_LIMIT: Kind.FAILURE,
    Cause.DEADLINE: Kind.FAILURE,
    Cause.APPLICATION: Kind.FAILURE,
    Cause.NEVER_STARTED: Kind.NEVER_STARTED,
    Cause.QUEUE_SUSPENDED: Kind.NEUTRAL,
    Cause.SUSPENDED: Kind.NEUTRAL,
    Cause.STOPPED: Kind.NEUTRAL,
    Cause.RETRIED: Kind.NEUTRAL,
    Cause.FENCED: Kind.NEUTRAL,
}

DISRUPTIONS: dict[str, Cause] = {
    "EvictionByEvictionAPI": Cause.EVICTION_API,
    "PreemptionByScheduler": Cause.PREEMPTION,
    "PreemptionByKubeScheduler": Cause.PREEMPTION,
    "DeletionByTaintManager": Cause.TAINT,
    "DeletionByPodGC": Cause.POD_GC,
    "TerminationByKubelet": Cause.KUBELET,
}
"""Reasons of DisruptionTarget. They are informational and may grow: others are disruptions all the same."""

_KUBELET_REASONS = frozenset({"Preempting", "Terminated", "Shutdown", "NodeShutdown"})
"""Pod reasons of kubelets that write no condition (before 1.26)."""
_ADMISSION_REASONS = ("UnexpectedAdmissionError", "OutOf", "Outof", "NodeAffinity", "InvalidNodeInfo", "NodeName")

_OWN_CODES: dict[int, tuple[Cause, str]] = {
    ExitCode.STALE_EPOCH: (Cause.FENCED, "a later claim was there before it started"),
    ExitCode.FENCED: (Cause.FENCED, "a later claim appeared while it trained"),
    ExitCode.ATTEMPT_REUSED: (Cause.POD_REPLACED, "another pod had started in this slot of the attempt"),
    ExitCode.VOLUME_UNUSABLE: (Cause.NEVER_STARTED, "the run directory could not be read or written"),
    ExitCode.RESUME_POINT_LOST: (Cause.NEVER_STARTED, "the pinned checkpoint was not what had been pinned"),
    ExitCode.CONFIGURATION: (Cause.APPLICATION, "the container's environment contradicts itself"),
    ExitCode.NO_PYTHON: (
        Cause.APPLICATION,
        "the image has no Python 3.9 or newer where one is searched for: set spec.entrypoint.pythonPath",
    ),
}
"""The entrypoint's own codes, hints which torchrun may hide. NoAgreement and Stalled may follow from a lost peer: they
are judged as any other error."""
_MEANINGS: dict[int, str] = {
    ExitCode.NO_AGREEMENT: "the ranks did not agree on the pinned checkpoint",
    ExitCode.STALLED: "no progress for longer than the stall limit",
}


def classify(scene: Scene) -> Verdict:
    for rule in _RULES:
        verdict = rule(scene)
        if verdict is not None:
            return verdict
    return GoesOn()


def disruption_of(scene: Scene, pod: PodState) -> Interruption:
    """Of a pod with DisruptionTarget."""
    reason = pod.disruption or "Unknown"
    said = f": {pod.disruption_message}" if pod.disruption_message else ""
    return _interruption(
        scene,
        DISRUPTIONS.get(reason, Cause.DISRUPTION_OTHER),
        f"DisruptionTarget {reason} on {pod.name}{said}",
        pod=pod,
        event_time=pod.disruption_time,
    )


# -- the rules, in order -----------------------------------------------------------------------------------------------


def _queue(scene: Scene) -> Verdict | None:
    """Before anything else: training-operator deletes the pods of a suspended job, which looks like a loss."""
    if scene.workload is None or not scene.workload.suspended or not (scene.pods or scene.known_uids):
        return None
    return _ended(scene, Cause.QUEUE_SUSPENDED, "a queue suspended the job after its start")


def _disruption(scene: Scene) -> Verdict | None:
    """On any pod of the attempt, whatever its exit code and whatever errors of its peers follow.

    The condition is written before the deletion and removed if that does not follow: alone it ends nothing.
    """
    struck = [pod for pod in scene.pods if pod.disruption is not None and (pod.deleting or _is_terminal(pod))]
    if struck:
        first = min(struck, key=lambda pod: (pod.disruption_time or scene.now, pod.name))
        return Ended(disruption_of(scene, first))
    remembered = scene.disruption
    if remembered is not None and all(pod.name != remembered.pod for pod in scene.pods):
        return Ended(remembered.model_copy(update={"time": scene.now}))
    return None


def _workload_gone(scene: Scene) -> Verdict | None:
    if scene.workload_uid is None:
        return None
    if scene.workload is None or scene.workload.uid != scene.workload_uid or scene.workload.deleting:
        return _ended(scene, Cause.WORKLOAD_LOST, "somebody deleted the PyTorchJob")
    return None


def _own_code(scene: Scene) -> Verdict | None:
    for pod in _failed(scene):
        trainer = scene.trainer_of(pod)
        if trainer is not None and trainer.exit_code in _OWN_CODES:
            cause, text = _OWN_CODES[trainer.exit_code]
            evidence = f"{pod.name} ended with {trainer.exit_code}: {text}{_tail(trainer)}"
            return _ended(scene, cause, evidence, pod=pod, event_time=trainer.finished)
    return None


def _replaced(scene: Scene) -> Verdict | None:
    if not 0 < scene.expected <= len(scene.known_uids):
        return None
    new = [pod for pod in scene.pods if pod.uid not in scene.known_uids]
    if not new:
        return None
    return _ended(
        scene,
        Cause.POD_REPLACED,
        f"{new[0].name} is another pod than before: its predecessor vanished and training-operator refilled the slot",
        pod=new[0],
        event_time=new[0].created,
    )


def _failure(scene: Scene) -> Verdict | None:
    """The first rank that failed in time tells the cause; what follows is clean-up."""
    failed = _failed(scene)
    if not failed:
        return None
    pod = failed[0]
    verdict = _certain_failure(scene, pod)
    if verdict is not None:
        return verdict
    return _application(scene, pod, _in_words(scene, pod))


def _lost(scene: Scene) -> Verdict | None:
    if not scene.missing:
        return None
    count = len(scene.missing)
    what = "a pod" if count == 1 else f"{count} pods"
    return _ended(scene, Cause.POD_LOST, f"{what} of the attempt vanished without having ended")


def _deleted(scene: Scene) -> Verdict | None:
    """Every disruption that Kubernetes makes writes its condition first: this is somebody's deletion."""
    going = [pod for pod in scene.pods if pod.deleting and not scene.ended_well(pod)]
    if not going:
        return None
    doubt = scene.doubt or Doubt(since=scene.now)
    waited = (scene.now - doubt.since).total_seconds()
    if waited < DELETION_SECONDS:
        return InDoubt(doubt, DELETION_SECONDS - waited)
    text = f"{going[0].name} was deleted, without the condition of an eviction"
    return _ended(scene, Cause.POD_LOST, text, pod=going[0])


def _completed(scene: Scene) -> Verdict | None:
    """Provisional: only prepare says that a run is complete."""
    if scene.workload is not None and scene.workload.succeeded:
        return _ended(scene, Cause.COMPLETED, "the PyTorchJob succeeded", event_time=scene.workload.finished)
    well = {pod.uid for pod in scene.pods if scene.ended_well(pod)} | scene.ended_uids
    if 0 < scene.expected <= len(well):
        return _ended(scene, Cause.COMPLETED, "every training container ended with exit code 0")
    return None


def _workload_failed(scene: Scene) -> Verdict | None:
    workload = scene.workload
    if workload is None or not workload.failed:
        return None
    message = workload.failure_message or "no message"
    if not scene.pods and not scene.known_uids:
        return _ended(
            scene, Cause.NEVER_STARTED, f"the PyTorchJob failed without a pod: {message}", event_time=workload.finished
        )
    return _application(scene, None, f"the PyTorchJob failed, and no pod says why: {message}")


_RULES: tuple[Callable[[Scene], Verdict | None], ...] = (
    _queue,
    _disruption,
    _workload_gone,
    _own_code,
    _replaced,
    _failure,
    _completed,
    _lost,
    _deleted,
    _workload_failed,
)


# -- failures ----------------------------------------------------------------------------------------------------------


def _certain_failure(scene: Scene, pod: PodState) -> Verdict | None:
    """What a failed pod without DisruptionTarget says by itself, whatever its peers do."""
    began = any(container.started for container in pod.containers)
    reason = pod.reason or ""
    words = f"{pod.name} failed: {reason}" + (f": {pod.message}" if pod.message else "")
    if reason in _KUBELET_REASONS and (began or reason != "NodeShutdown"):
        return _ended(scene, Cause.KUBELET, words, pod=pod, event_time=scene.end_of(pod))
    if reason == "Evicted" and began:
        cause = Cause.KUBELET if "low on resource" in (pod.message or "") else Cause.STORAGE_LIMIT
        return _ended(scene, cause, words, pod=pod, event_time=scene.end_of(pod))
    if reason == "DeadlineExceeded":
        return _ended(scene, Cause.DEADLINE, words, pod=pod, event_time=scene.end_of(pod))
    if reason.startswith(_ADMISSION_REASONS) and scene.all_ran:
        # a kubelet that starts again refuses the pods that it ran before, and overwrites what they ended with
        return _ended(scene, Cause.KUBELET, f"{words}; it ran before: its node was restarted", pod=pod)
    if not began and pod.phase is PodPhase.FAILED:
        return _ended(scene, Cause.NEVER_STARTED, words or f"{pod.name} failed before a container started", pod=pod)
    failure = scene.first_failure(pod)
    if failure is not None and failure.reason == "OOMKilled":
        text = f"container {failure.name} of {pod.name} needed more memory than its limit (OOMKilled)"
        return _ended(scene, Cause.OOM_KILLED, text, pod=pod, event_time=failure.finished)
    return None


def _application(scene: Scene, pod: PodState | None, evidence: str) -> Verdict:
    """An error is the program's own only once nothing speaks for a lost peer any more."""
    peers = [peer for peer in scene.pods if peer is not pod and not _is_terminal(peer) and not scene.failed(peer)]
    silent = next((peer.node for peer in peers if peer.node in scene.unready_nodes), None)
    before = scene.doubt or Doubt(since=scene.now, peers_missing=bool(scene.missing))
    doubt = before.model_copy(update={"node": before.node or silent})
    waiting = doubt.peers_missing or doubt.node is not None or any(peer.deleting for peer in peers)
    left = DOUBT_SECONDS - (scene.now - doubt.since).total_seconds()
    healthy_job = pod is None and not scene.missing
    if (waiting or healthy_job) and left > 0:
        return InDoubt(doubt, left)
    event_time = scene.end_of(pod) if pod is not None else scene.workload.finished if scene.workload else None
    if doubt.node is not None:
        text = f"node {doubt.node} does not answer; {evidence}"
        return Ended(_interruption(scene, Cause.POD_GC, text, node=doubt.node, event_time=event_time))
    if pod is None and scene.missing:
        return _ended(scene, Cause.POD_LOST, f"a pod vanished without having ended; {evidence}")
    return _ended(scene, Cause.APPLICATION, evidence, pod=pod, event_time=event_time)


def _in_words(scene: Scene, pod: PodState) -> str:
    failure = scene.first_failure(pod)
    if failure is None or failure.exit_code is None:
        return (
            f"{pod.name} failed"
            + (f": {pod.reason}" if pod.reason else "")
            + (f": {pod.message}" if pod.message else "")
        )
    meaning = _MEANINGS.get(failure.exit_code)
    text = f" ({meaning})" if meaning else ""
    return f"container {failure.name} of {pod.name} ended with exit code {failure.exit_code}{text}{_tail(failure)}"


def _tail(container: ContainerState) -> str:
    return f": {container.message}" if container.message else ""


def _failed(scene: Scene) -> list[PodState]:
    """In the order in which they failed. Pods that a succeeded job's clean-up stops have not failed."""
    cleaned = scene.workload is not None and scene.workload.succeeded
    failed = [pod for pod in scene.pods if scene.failed(pod) and not (cleaned and pod.deleting)]
    return sorted(failed, key=lambda pod: (scene.end_of(pod), pod.name))


def _is_terminal(pod: PodState) -> bool:
    return pod.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)


def _ended(
    scene: Scene, cause: Cause, evidence: str, *, pod: PodState | None = None, event_time: datetime | None = None
) -> Ended:
    return Ended(_interruption(scene, cause, evidence, pod=pod, event_time=event_time))


def _interruption(
    scene: Scene,
    cause: Cause,
    evidence: str,
    *,
    pod: PodState | None = None,
    node: str | None = None,
    event_time: datetime | None = None,
) -> Interruption:
    return Interruption(
        cause=cause,
        evidence=clip(evidence),
        node=pod.node if pod is not None else node,
        pod=pod.name if pod is not None else None,
        time=scene.now,
        event_time=event_time,
    )
