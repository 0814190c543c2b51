"""Whether this process is worth keeping, and whether it does its work: what the kubelet's probes ask."""

from __future__ import annotations

from collections.abc import Callable

LEAST_PATIENCE_SECONDS = 600.0
"""An API server that is away for less is no reason to restart: a restart would not bring it back."""
SILENCE_SECONDS = 120.0


class Health:
    def __init__(self, *, monotonic: Callable[[], float], resync_seconds: float) -> None:
        self._monotonic = monotonic
        self._patience = max(LEAST_PATIENCE_SECONDS, 3 * resync_seconds)
        self._leading_since: float | None = None
        self._resynced: float | None = None
        self._silent_seconds: Callable[[], float] = lambda: 0.0
        self._deafest: Callable[[], tuple[str, float]] = lambda: ("", 0.0)

    def leads(self, silent_seconds: Callable[[], float], deafest: Callable[[], tuple[str, float]]) -> None:
        """The Lease is held. `silent_seconds` tells for how long the doorbell's event loop has not turned, `deafest`
        which watch has heard nothing for longest, not even a bookmark, and for how long."""
        self._leading_since = self._monotonic()
        self._silent_seconds = silent_seconds
        self._deafest = deafest

    def resynced(self) -> None:
        self._resynced = self._monotonic()

    def trouble(self) -> str | None:
        """Why this process should be restarted. One that waits for the Lease is well."""
        if self._leading_since is None:
            return None
        age = self._monotonic() - (self._resynced if self._resynced is not None else self._leading_since)
        if age > self._patience:
            return f"no complete list of SweepRuns for {age:.0f} s"
        silent = self._silent_seconds()
        if silent > SILENCE_SECONDS:
            return f"the watches have been silent for {silent:.0f} s"
        path, deaf = self._deafest()
        return f"the watch of {path} has heard nothing for {deaf:.0f} s" if deaf > self._patience else None

    def unready(self) -> str | None:
        """Why nothing is reconciled yet."""
        if self._leading_since is None:
            return "waiting for the Lease"
        return "waiting for the first list of SweepRuns" if self._resynced is None else self.trouble()
