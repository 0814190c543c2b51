"""What the callbacks for Lightning's and transformers' Trainers share: the run that they train."""

from __future__ import annotations

from typing import ClassVar, Optional

from . import current
from .foreign import ForeignCheckpoints
from .run import Run


class RunCallback:
    """Knows the run once the ranks have joined; a second training of the same process is of the same run."""

    BEGINNING: ClassVar[str]
    """When that is, in the framework's words."""

    def __init__(self, *, completes: bool, timeout_seconds: float) -> None:
        self._completes = completes
        self._timeout_seconds = timeout_seconds
        self._stops = False
        self._run: Optional[Run] = None
        self._checkpoints: Optional[ForeignCheckpoints] = None

    def _join(self) -> None:
        """Collective."""
        if self._run is None:
            self._run = current(timeout_seconds=self._timeout_seconds)
            self._checkpoints = self._run.foreign_checkpoints()

    @property
    def run(self) -> Run:
        """Known from the beginning of training."""
        if self._run is None:
            raise RuntimeError(f"the run is known once {self.BEGINNING}")
        return self._run

    @property
    def _known(self) -> ForeignCheckpoints:
        assert self._checkpoints is not None, "the ranks join first"
        return self._checkpoints
