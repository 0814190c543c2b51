"""A Gateway between the operator and a simulated cluster on which anything may go wrong, and what must hold all the
same: stale reads, errors before and after a write, deaths, two operators at once."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from support.mortal import KilledError
from support.simulated_cluster import SimulatedCluster
from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.cluster.gateway import GatewayError

READS = ("get_", "list_", "cluster_id")


class Unsteady:
    def __init__(self, cluster: SimulatedCluster, rng: Random) -> None:
        self.trouble = 0.0
        """The chance that a call goes wrong."""
        self._cluster = cluster
        self._rng = rng
        self._stale: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._cluster, name)

        async def call(*args: Any, **keywords: Any) -> Any:
            for _ in range(self._rng.randrange(3)):
                await asyncio.sleep(0)
            self._go_wrong(name, "before")
            answer = await method(*args, **keywords)
            if name == "get_run":
                return self._perhaps_stale(answer)
            self._go_wrong(name, "after")
            return answer

        return call

    def _go_wrong(self, name: str, when: str) -> None:
        if self._rng.random() >= self.trouble:
            return
        if self._rng.random() < 0.3:
            raise KilledError(f"the operator died {when} {name}")
        if when == "before" or not name.startswith(READS):
            raise GatewayError(f"{name} failed {when} it was done")

    def _perhaps_stale(self, raw: Any) -> Any:
        stale, self._stale = self._stale, copy.deepcopy(raw)
        return stale if stale and self._rng.random() < self.trouble * 2 else raw


class Chronicle:
    """Every status that was written, and what must hold from one to the next."""

    def __init__(self, cluster: SimulatedCluster, *, rebuilt: bool = False) -> None:
        """`rebuilt`: the status was lost before, and catches up with its children and with the volume."""
        self._cluster = cluster
        self._rebuilt = rebuilt
        self.causes: dict[int, str] = {}

    def __call__(self, before: SweepRunStatus, after: SweepRunStatus) -> None:
        self._only_grows(before, after)
        if not self._rebuilt:
            self._one_attempt_per_interruption(before, after)
        if self._cluster.is_true("Complete"):
            assert self._cluster.volume.said_complete, "only prepare says that a run is complete"

    def _only_grows(self, before: SweepRunStatus, after: SweepRunStatus) -> None:
        if before.current is None or after.current is None:
            assert before.current is None, "a state is never lost"
            return
        for name in ("attempt", "prepare", "epoch"):
            assert getattr(after.current, name) >= getattr(before.current, name), f"{name} only grows"
        assert self._rebuilt or after.current.prepare - before.current.prepare <= 1
        for kind, count in before.counts.to_wire().items():
            assert after.counts.to_wire()[kind] >= count, f"counts.{kind} only grows"

    def _one_attempt_per_interruption(self, before: SweepRunStatus, after: SweepRunStatus) -> None:
        new = after.counts.attempts - before.counts.attempts
        assert new in (0, 1)
        if new and before.counts.attempts:
            assert after.history[-2].cause is not None, "an attempt follows an interruption that is written down"
            assert after.history[-1].epoch > after.history[-2].epoch, "under an epoch of its own"
        for entry in after.history:
            if entry.cause is not None:
                known = self.causes.setdefault(entry.attempt, entry.cause)
                assert known == entry.cause, "a cause, once written down, stands"
        counts = after.counts
        counted = counts.disruptions + counts.failures + counts.never_started
        assert counted <= len(self.causes), "each end counts once at most"
