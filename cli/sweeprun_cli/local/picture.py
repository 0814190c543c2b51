"""What is known of a run while it goes on: the views show it, the closing table and the demo read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.keys import ROLE_ATTEMPT, ROLE_LABEL
from sweeprun_protocol.prepare import PrepareReport

from .gateway import Told
from .progress import Steps
from .store import Raw


@dataclass(frozen=True, slots=True)
class Note:
    """A line for people."""

    time: datetime
    is_warning: bool
    text: str


@dataclass(slots=True)
class Picture:
    name: str
    total_steps: int | None
    """Where the arguments tell it; only for the progress bar."""
    told: Callable[[Note], None]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: SweepRunStatus = field(default_factory=SweepRunStatus)
    steps: Steps = field(default_factory=lambda: Steps(None, None, 0))
    furthest: dict[int, int] = field(default_factory=dict)
    """Highest step seen of each attempt."""
    notes: list[Note] = field(default_factory=list)
    reports: dict[int, PrepareReport] = field(default_factory=dict)
    """Answers of prepares, by their numbers; of an attempt, the last one that was asked before it."""
    run_directory: Path | None = None

    def note(self, text: str, *, is_warning: bool = False) -> None:
        self._add(Note(datetime.now(UTC), is_warning, text))

    def event(self, event: Told) -> None:
        self._add(Note(event.time, event.type == "Warning", f"{event.reason}: {event.message}"))

    def progressed(self, steps: Steps) -> None:
        self.steps = steps
        if steps.attempt is not None and steps.step is not None:
            self.furthest[steps.attempt] = max(steps.step, self.furthest.get(steps.attempt, 0))

    def changed(self, kind: str, raw: Raw) -> None:
        if kind == "SweepRun" and raw.get("status"):
            self.status = SweepRunStatus.model_validate(raw["status"])
        elif kind == "Pod" and raw["metadata"]["labels"].get(ROLE_LABEL) not in (None, ROLE_ATTEMPT):
            self._hear(raw)

    def _hear(self, pod: Raw) -> None:
        for container in pod.get("status", {}).get("containerStatuses", []):
            ended = container["state"].get("terminated", {})
            if ended.get("exitCode") == 0 and ended.get("message"):
                try:
                    report = PrepareReport.decode(ended["message"].encode())
                except RecordError:
                    continue  # sweep_init's own container, which may say what it likes
                self.reports[report.prepare] = report

    def _add(self, note: Note) -> None:
        self.notes.append(note)
        self.told(note)
