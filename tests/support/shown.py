"""Statuses that people look at: an evicted run in every state, and what `sweeprun` prints of it."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

from rich.console import Console, RenderableType

from support.manifests import make_sweeprun

Raw = dict[str, Any]
BEGAN, EVICTED, NOW = "2026-01-02T03:00:00Z", "2026-01-02T03:30:00Z", "2026-01-02T03:31:00Z"
HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202eevil\x9b31m"
"""Clears a screen, names a window, runs in a page, reverses what follows, and colours without an ESC."""


def shown_condition(kind: str, status: str = "True", *, reason: str = "Because", message: str = "so") -> Raw:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": EVICTED,
        "observedGeneration": 1,
    }


def shown_attempt(number: int = 0, **changes: Any) -> Raw:
    """Attempt 0 trained from step 0 to 740 and was evicted."""
    attempt: Raw = {
        "attempt": number,
        "epoch": number + 1,
        "outcome": "Fresh" if number == 0 else "Resume",
        "reason": "FirstStart" if number == 0 else "NewestCheckpoint",
        "toStep": 740,
        "startTime": BEGAN,
        "endTime": EVICTED,
        "cause": "EvictionAPI",
        "kind": "Disruption",
        "evidence": "DisruptionTarget EvictionByEvictionAPI on run-a0-worker-0",
        "node": "gpu-7",
        "seconds": {},
        **changes,
    }
    return {key: value for key, value in attempt.items() if value is not None}


def running_attempt(number: int = 1, **changes: Any) -> Raw:
    """It resumed from step 700 and has not ended."""
    seconds = {"detect": 1.0, "drain": 12.5, "prepare": 6.0, "validation": 2.5, "queue": 0.0, "start": 20.0}
    open_ended = {"endTime": None, "cause": None, "kind": None, "evidence": None, "node": None, "toStep": None}
    return shown_attempt(number, **{"fromStep": 700, "startTime": NOW, "seconds": seconds, **open_ended, **changes})


def shown_status(state: str = "Running", **changes: Any) -> Raw:
    """Evicted once, resumed once."""
    current = {"attempt": 1, "prepare": 1, "state": state, "since": NOW, **changes.pop("current", {})}
    return {
        "observedGeneration": 1,
        "phase": state,
        "runId": "digits-lr.7",
        "current": current,
        "progress": {"step": 720, "time": NOW},
        "counts": {"attempts": 2, "resumes": 1, "disruptions": 1},
        "savings": {"stepsKept": 700, "stepsRepeated": 40, "gpuSecondsKept": 1600},
        "runningSeconds": 1800,
        "history": [shown_attempt(), running_attempt()],
        "conditions": [shown_condition("Accepted", reason="Accepted")],
        **changes,
    }


def shown_run(name: str = "digits-lr-0", *, status: Raw | None = None, namespace: str = "sweeps", **spec: Any) -> Raw:
    raw = make_sweeprun(name, **spec)
    raw["metadata"] |= {
        "namespace": namespace,
        "uid": f"uid-of-{name}",
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": BEGAN,
    }
    return {**raw, "status": shown_status() if status is None else status}


def printed(shown: RenderableType, *, width: int = 250) -> str:
    """As a terminal gets it, colours and all."""
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=width, color_system="truecolor").print(shown)
    return out.getvalue()


def text_of(shown: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=400).print(shown)
    return out.getvalue()


def harmless(text: str) -> bool:
    """No control character but line ends, and none that reverses text."""
    spaces = "\n", *(character for character in text if unicodedata.category(character) == "Zs")
    return all(character in spaces or character.isprintable() for character in text)
