"""What a pass wants: one status, a few writes, events. `cluster.execute` applies them in this order:

1. the status, with the observed resourceVersion (write-ahead: numbers before the children that carry them);
2. the actions, in order, and beside them the events. A conflict on 1 ends the pass: nothing else is done, the key is
queued again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sweeprun_operator.api.status import SweepRunStatus


class ChildKind(StrEnum):
    JOB = "Job"
    PYTORCHJOB = "PyTorchJob"
    POD = "Pod"


@dataclass(frozen=True, slots=True)
class Create:
    """Create a child. "Already exists" under our UID is success; under another one the pass ends and waits."""

    kind: ChildKind
    manifest: dict[str, Any]
    optional: bool = False
    """Nothing depends on it: where it cannot be made the pass goes on, and nobody tries again."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a child with a UID precondition and background propagation; absent is success."""

    kind: ChildKind
    name: str
    uid: str
    force: bool = False
    """Without waiting for the kubelet: the object goes, its processes may stay."""


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Delete the SweepRun itself (ttlSecondsAfterFinished)."""

    uid: str


Action = Create | Delete | DeleteRun


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Event:
    type: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    status: SweepRunStatus | None = None
    """Complete new status; None: unchanged."""
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_seconds: float | None = None
    """Look again after this long even if nothing happens; 0: at once."""
