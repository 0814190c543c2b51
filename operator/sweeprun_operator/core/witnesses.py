"""What is kept of the pods of an attempt that has ended, since their objects go within seconds."""

from __future__ import annotations

from datetime import datetime

from sweeprun_operator.api.status import MAX_EVIDENCE, PodEvidence

from .observation import PodState
from .scene import Scene


def witnesses(scene: Scene, first: str | None) -> list[PodEvidence]:
    """`first` is the pod that the evidence names. Those that neither failed nor went tell nothing."""
    pods = {pod.uid: pod for pod in (*scene.departed, *scene.pods)}.values()
    told = [pod for pod in pods if pod.name == first or _tells(scene, pod)]
    told.sort(key=lambda pod: (pod.name != first, _time(scene, pod) or scene.now, pod.name))
    return [_evidence(scene, pod) for pod in told[:MAX_EVIDENCE]]


def _tells(scene: Scene, pod: PodState) -> bool:
    return pod.deleting or pod.disruption is not None or scene.failed(pod)


def _time(scene: Scene, pod: PodState) -> datetime | None:
    return scene.ended_at(pod) or pod.disruption_time


def _evidence(scene: Scene, pod: PodState) -> PodEvidence:
    container = scene.first_failure(pod) or scene.trainer_of(pod)
    return PodEvidence(
        name=pod.name,
        node=pod.node,
        phase=str(pod.phase),
        reason=pod.reason,
        disruption=pod.disruption,
        deleting=pod.deleting,
        container=container.name if container is not None else None,
        exit_code=container.exit_code if container is not None else None,
        container_reason=container.reason if container is not None else None,
        time=_time(scene, pod),
    )
