"""Ends that a failed pod or a failed workload shows, where no DisruptionTarget does: the node's doing, the program's,
or nobody's for sure yet."""

from __future__ import annotations

from datetime import timedelta

from sweeprun_operator.api.status import Cause, Doubt
from sweeprun_protocol.exit_codes import ExitCode

from .observation import ContainerState, PodPhase, PodState
from .scene import Scene
from .verdicts import Ended, InDoubt, Verdict, ended, interruption

DOUBT_SECONDS = 60.0
"""A node's death shows up to 48 s after the survivors' errors (measured)."""
LOOK_SECONDS = 5.0
"""Nodes are not watched: a doubt looks at them this often, or one that is deleted soon after its death goes unseen."""
SKEW = timedelta(seconds=2)
"""Kubelets write whole seconds, and the clocks of two nodes differ."""

_KUBELET_REASONS = frozenset({"Preempting", "Terminated", "Shutdown", "NodeShutdown"})
"""Pod reasons of kubelets that write no condition (before 1.26)."""
_UNKNOWN_ENDS = frozenset({"ContainerStatusUnknown", "Unknown"})
"""Container reasons of a kubelet and a runtime that were not there when the container ended."""
_POLICIES = frozenset({"Evicted", "DeadlineExceeded"})
"""Pod reasons that the program can cause; the kubelet may have lost the container's state beside them."""
_MEANINGS: dict[int, str] = {
    ExitCode.NO_AGREEMENT: "the ranks did not agree on the pinned checkpoint",
    ExitCode.STALLED: "no progress for longer than limits.stallTimeoutSeconds",
}


def failure(scene: Scene) -> Verdict | None:
    """The first rank that failed in time tells the cause; what follows is clean-up. A node's doing on any pod of the
    attempt comes before all of them: its peers' errors may be older than its own word."""
    failed = failed_pods(scene)
    if not failed:
        return None
    for pod in failed:
        verdict = _by_its_node(scene, pod)
        if verdict is not None:
            return verdict
    first = scene.end_of(failed[0])
    for pod in failed:
        verdict = _certain(scene, pod) if scene.end_of(pod) - first <= SKEW else None
        if verdict is not None:
            return verdict
    stalled = next((pod for pod in failed if _has_stalled(scene, pod)), None)
    # a peer's error follows from the rank that was ended first, and may be written down before it
    told = stalled or failed[0]
    return _application(scene, told, _in_words(scene, told), Cause.APPLICATION if stalled is None else Cause.STALLED)


def workload_failed(scene: Scene) -> Verdict | None:
    workload = scene.workload
    if workload is None or not workload.failed:
        return None
    message = workload.failure_message or "no message"
    if not scene.pods and not scene.known_uids:
        text = f"the PyTorchJob failed without a pod: {message}"
        return ended(scene, Cause.NEVER_STARTED, text, event_time=workload.finished)
    return _application(scene, None, f"the PyTorchJob failed, and no pod says why: {message}")


def failed_pods(scene: Scene) -> list[PodState]:
    """In the order in which they failed. Pods that a succeeded job's clean-up stops have not failed."""
    cleaned = scene.workload is not None and scene.workload.succeeded
    failed = [pod for pod in scene.pods if scene.failed(pod) and not (cleaned and pod.deleting)]
    return sorted(failed, key=lambda pod: (scene.end_of(pod), pod.name))


def tail(container: ContainerState) -> str:
    return f": {container.message}" if container.message else ""


# -- one failed pod ----------------------------------------------------------------------------------------------------


def _by_its_node(scene: Scene, pod: PodState) -> Ended | None:
    """What kubelets and the garbage collector of pods do without the condition."""
    reason, text, when = pod.reason or "", _reason_in_words(pod), scene.ended_at(pod)
    if reason in _KUBELET_REASONS and (scene.began(pod) or reason != "NodeShutdown"):
        return ended(scene, Cause.KUBELET, text, pod=pod, event_time=when)
    if reason == "Evicted" and scene.began(pod) and "low on resource" in (pod.message or ""):
        return ended(scene, Cause.KUBELET, text, pod=pod, event_time=when)
    if reason in _POLICIES or not scene.began(pod):
        return None
    lost = next((item for item in pod.containers if item.exit_code and item.reason in _UNKNOWN_ENDS), None)
    if lost is not None:
        text = f"nobody saw how container {lost.name} of {pod.name} ended ({lost.reason}): its node was restarted"
        return ended(scene, Cause.KUBELET, text, pod=pod, event_time=when)
    if any(item.exit_code is not None for item in pod.containers):
        return None
    if reason and scene.all_ran:
        # a kubelet that starts again refuses the pods that it ran before, and overwrites what they ended with
        return ended(scene, Cause.KUBELET, f"{text}; it ran before: its node was restarted", pod=pod)
    if not reason:
        text = f"{pod.name} was declared failed, though no container of it has ended: its node is gone"
        return ended(scene, Cause.POD_GC, text, pod=pod)
    return None


def _certain(scene: Scene, pod: PodState) -> Ended | None:
    """What the pod says by itself, whatever its peers do."""
    reason, when = pod.reason or "", scene.ended_at(pod)
    if reason == "Evicted" and scene.began(pod):
        return ended(scene, Cause.STORAGE_LIMIT, _reason_in_words(pod), pod=pod, event_time=when)
    if reason == "DeadlineExceeded":
        return ended(scene, Cause.DEADLINE, _reason_in_words(pod), pod=pod, event_time=when)
    if not scene.began(pod) and pod.phase is PodPhase.FAILED:
        return ended(scene, Cause.NEVER_STARTED, f"{_reason_in_words(pod)}; no container had started", pod=pod)
    failed = scene.first_failure(pod)
    if failed is not None and failed.reason == "OOMKilled":
        text = f"container {failed.name} of {pod.name} needed more memory than its limit (OOMKilled)"
        return ended(scene, Cause.OOM_KILLED, text, pod=pod, event_time=when)
    return None


def _has_stalled(scene: Scene, pod: PodState) -> bool:
    trainer = scene.trainer_of(pod)
    return trainer is not None and trainer.exit_code == ExitCode.STALLED


def _application(scene: Scene, pod: PodState | None, evidence: str, cause: Cause = Cause.APPLICATION) -> Verdict:
    """An error is the program's own only once nothing speaks for a lost peer any more; `pod` is None where only the
    workload tells of one, and its pods may still."""
    peers = [peer for peer in scene.pods if peer is not pod and not scene.is_over(peer)]
    silent = next((peer.node for peer in peers if peer.node in scene.unready_nodes), None)
    before = scene.doubt or Doubt(since=scene.now, peers_missing=bool(scene.missing))
    doubt = before.model_copy(update={"node": before.node or silent})
    # a peer that seems well may be on a node that died a moment ago; others end soon: the job's failure stops them
    waiting = pod is None or doubt.peers_missing or doubt.node is not None or bool(peers)
    left = DOUBT_SECONDS - (scene.now - doubt.since).total_seconds()
    if waiting and left > 0:
        return InDoubt(doubt, min(left, LOOK_SECONDS))
    when = scene.workload.finished if pod is None and scene.workload is not None else None
    when = scene.ended_at(pod) if pod is not None else when
    if doubt.node is not None:
        text = f"node {doubt.node} does not answer; {evidence}"
        return Ended(interruption(scene, Cause.POD_GC, text, node=doubt.node, event_time=when))
    return ended(scene, cause, evidence, pod=pod, event_time=when)


# -- in words ----------------------------------------------------------------------------------------------------------


def _reason_in_words(pod: PodState) -> str:
    return (
        f"{pod.name} failed" + (f": {pod.reason}" if pod.reason else "") + (f": {pod.message}" if pod.message else "")
    )


def _in_words(scene: Scene, pod: PodState) -> str:
    failed = scene.first_failure(pod)
    if failed is None or failed.exit_code is None:
        return _reason_in_words(pod)
    meaning = _MEANINGS.get(failed.exit_code)
    text = f" ({meaning})" if meaning else ""
    return f"container {failed.name} of {pod.name} ended with exit code {failed.exit_code}{text}{tail(failed)}"
