"""Why an attempt ended, from what the cluster shows of its pods and its workload; never from the exit code alone.

The rules stand in order: the first one that says something wins. Sources: KEP-3329 (DisruptionTarget and failures
without it, by decision), training-operator 1.9, and what was seen on kind.
"""

from __future__ import annotations

from collections.abc import Callable

from sweeprun_operator.api.status import Cause, Doubt, Interruption, Kind
from sweeprun_protocol.exit_codes import ExitCode

from .failures import failed_pods, failure, tail, workload_failed
from .observation import PodState, Workload
from .scene import Scene
from .verdicts import Ended, GoesOn, InDoubt, Verdict, ended, interruption

DELETION_SECONDS = 2.0
"""Lists of jobs and pods are not read at one instant, and watches lag behind them: a queue's suspension, or the mark of
a pod that is gone, may show in the next pass only."""
PEERS_SECONDS = 120.0
"""A peer may upload or evaluate longer than the master, as with an entrypoint (GOOD_END_PATIENCE_SECONDS)."""

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
    Cause.STALLED: Kind.FAILURE,
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
    return interruption(
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
    text = f"a queue suspended {scene.workload.name} after its start: the Events of that PyTorchJob say why"
    return ended(scene, Cause.QUEUE_SUSPENDED, text)


def _disruption(scene: Scene) -> Verdict | None:
    """On any pod of the attempt, whatever its exit code and whatever errors of its peers follow.

    The condition is written before the deletion and removed if that does not follow: alone it ends nothing.
    """
    going = [pod for pod in scene.pods if pod.deleting or scene.is_terminal(pod)]
    struck = [pod for pod in (*going, *scene.departed) if pod.disruption is not None]
    if struck:
        first = min(struck, key=lambda pod: (pod.disruption_time or scene.now, pod.name))
        return Ended(disruption_of(scene, first))
    remembered = scene.disruption
    # a pod of that name that nobody has seen before is its successor: training-operator refilled the slot
    if remembered is not None and not any(pod.name == remembered.pod for pod in scene.pods if scene.is_known(pod)):
        return Ended(remembered.model_copy(update={"time": scene.now}))
    return None


def _workload_gone(scene: Scene) -> Verdict | None:
    if scene.workload_uid is None:
        return None
    if scene.workload is None or scene.workload.uid != scene.workload_uid or scene.workload.deleting:
        return ended(scene, Cause.WORKLOAD_LOST, "somebody deleted the PyTorchJob")
    return None


def _own_code(scene: Scene) -> Verdict | None:
    for pod in failed_pods(scene):
        for container in (scene.trainer_of(pod), scene.check_of(pod)):
            if container is not None and container.exit_code in _OWN_CODES:
                cause, text = _OWN_CODES[container.exit_code]
                evidence = f"{pod.name} ended with {container.exit_code}: {text}{tail(container)}"
                return ended(scene, cause, evidence, pod=pod, event_time=scene.ended_at(pod))
    return None


def _replaced(scene: Scene) -> Verdict | None:
    if not 0 < scene.expected <= len(scene.known_uids):
        return None
    new = [pod for pod in scene.pods if not scene.is_known(pod)]
    if not new:
        return None
    return ended(
        scene,
        Cause.POD_REPLACED,
        f"{new[0].name} is another pod than before: its predecessor vanished and training-operator refilled the slot",
        pod=new[0],
        event_time=new[0].created,
    )


def _vanished(scene: Scene) -> Verdict | None:
    """Before errors: those of its peers follow from the loss."""
    doubt = scene.doubt
    if doubt is None or not doubt.pod_vanished or not scene.missing:
        return None
    left = DELETION_SECONDS - (scene.now - doubt.since).total_seconds()
    return InDoubt(doubt, left) if left > 0 else _without_a_word(scene)


def _succeeded(scene: Scene, workload: Workload) -> Verdict | None:
    """training-operator says so when the master ends. An entrypoint there waits for its peers; without one we do."""
    unwrapped = [pod for pod in scene.pods if pod.unwrapped and not scene.ended_well(pod)]
    lost = scene.missing and any(pod.unwrapped for pod in scene.pods)  # nothing of ours removes a pod of such a job
    if lost or any(pod.deleting for pod in unwrapped):
        return None
    doubt = scene.doubt or Doubt(since=scene.now)
    left = PEERS_SECONDS - (scene.now - doubt.since).total_seconds()
    if unwrapped and left > 0:
        return InDoubt(doubt, left)
    return ended(scene, Cause.COMPLETED, "the PyTorchJob succeeded", event_time=workload.finished)


def _lost(scene: Scene) -> Verdict | None:
    """A list may be ahead of the watch that tells why a pod went."""
    if not scene.missing:
        return None
    if scene.doubt is not None:
        return _without_a_word(scene)
    return InDoubt(Doubt(since=scene.now, pod_vanished=True), DELETION_SECONDS)


def _without_a_word(scene: Scene) -> Ended:
    count = len(scene.missing)
    what = "a pod" if count == 1 else f"{count} pods"
    return ended(scene, Cause.POD_LOST, f"{what} of the attempt vanished without having ended")


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
    return ended(scene, Cause.POD_LOST, text, pod=going[0])


def _completed(scene: Scene) -> Verdict | None:
    """Provisional: only prepare says that a run is complete."""
    if scene.workload is not None and scene.workload.succeeded:
        return _succeeded(scene, scene.workload)
    well = {pod.uid for pod in scene.pods if scene.ended_well(pod)} | scene.ended_uids
    if 0 < scene.expected <= len(well):
        return ended(scene, Cause.COMPLETED, "every training container ended with exit code 0")
    return None


_RULES: tuple[Callable[[Scene], Verdict | None], ...] = (
    _queue,
    _disruption,
    _workload_gone,
    _own_code,
    _replaced,
    _vanished,
    failure,
    _completed,
    _lost,
    _deleted,
    workload_failed,
)
