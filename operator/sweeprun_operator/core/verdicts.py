"""What a look at an attempt says: it has ended and why, it may have, or it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sweeprun_operator.api.status import Cause, Doubt, Interruption

from .conditions import clip
from .observation import PodState
from .scene import Scene


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


def ended(
    scene: Scene, cause: Cause, evidence: str, *, pod: PodState | None = None, event_time: datetime | None = None
) -> Ended:
    return Ended(interruption(scene, cause, evidence, pod=pod, event_time=event_time))


def interruption(
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
