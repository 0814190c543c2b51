"""How far training is, as the library reports it or as the names of new checkpoints show it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Optional

from sweeprun_protocol.codec import Fields
from sweeprun_protocol.layout import MAX_STEP, parse_step_name
from sweeprun_volume.formats.torch_zip import SUFFIXES, step_in_name


@dataclass(frozen=True)
class Snapshot:
    step: Optional[int]
    """Highest step reported or committed."""
    committed_step: Optional[int]
    """Highest step committed by this attempt."""
    first_step_seconds: Optional[float]
    """From the entrypoint's start to the first step after the base."""
    completed: bool
    save_seconds: Optional[float] = None
    """How long training waited for its newest save, as the library measured it."""
    reports: int = 0
    """How often another step than the one before was reported, back to an earlier one too."""
    tracked: Optional[bool] = None
    """Whether W&B takes what is logged; False: it is kept on the volume, or lost. None: nobody said."""


class Progress:
    """Shared by the threads that learn of progress and those that tell of it."""

    def __init__(self, *, base_step: Optional[int], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._base = base_step or 0
        self._monotonic = monotonic
        self._began = monotonic()
        self._lock = threading.Lock()
        self._reported: Optional[int] = None
        self._now = Snapshot(step=base_step, committed_step=None, first_step_seconds=None, completed=False)

    def reached(self, step: int) -> None:
        with self._lock:
            self._now = self._with(step, self._now.committed_step)
            if step != self._reported:
                self._reported = step
                self._now = replace(self._now, reports=self._now.reports + 1)

    def committed(self, step: int) -> None:
        with self._lock:
            self._now = self._with(step, max(step, self._now.committed_step or 0))

    def saved(self, seconds: float) -> None:
        with self._lock:
            self._now = replace(self._now, save_seconds=seconds)

    def complete(self) -> None:
        with self._lock:
            self._now = replace(self._now, completed=True)

    def snapshot(self) -> Snapshot:
        with self._lock:
            return self._now

    def heard(self, message: dict[str, Any]) -> None:
        """Take over what the library of this pod says. Raises RecordError where that is no message of ours."""
        fields = Fields(message, "progress message")
        step = fields.optional("step", lambda name: fields.integer(name, most=MAX_STEP))
        committed = fields.optional("committed", lambda name: fields.integer(name, most=MAX_STEP))
        if step is not None:
            self.reached(step)
        if committed is not None:
            self.committed(committed)
        seconds = fields.optional("saveSeconds", fields.number)
        if seconds is not None:
            self.saved(seconds)
        if fields.has("completed") and fields.flag("completed"):
            self.complete()
        tracked = fields.optional("tracked", fields.flag)
        if tracked is not None:
            with self._lock:
                self._now = replace(self._now, tracked=tracked)

    def _with(self, step: int, committed: Optional[int]) -> Snapshot:
        first = self._now.first_step_seconds
        if first is None and step > self._base:
            first = self._monotonic() - self._began
        highest = max(step, self._now.step or 0)
        return replace(self._now, step=highest, committed_step=committed, first_step_seconds=first)


def step_of_entry(name: str, *, epoch: int) -> Optional[int]:
    """Step of an entry of the checkpoint directory by its name; None where it is no checkpoint of this epoch."""
    parsed = parse_step_name(name)
    if parsed is not None:
        return parsed[0] if parsed[1] == epoch else None
    if name.startswith(".") or not name.endswith(SUFFIXES):
        return None
    return step_in_name(name)
