"""A run's story against a real API server, pass by pass: no watches, no timers, a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from support.cluster import Cluster
from support.mortal import KilledError, Mortal
from support.played import Played
from support.reports import FRESH
from sweeprun_operator.cluster.gateway import Gateway
from sweeprun_operator.controller.queue import Key
from sweeprun_operator.controller.reconcile import Decisions, Next, Reconciler
from sweeprun_protocol.prepare import PrepareReport

Raw = dict[str, Any]
MOST_PASSES = 60


class Passes:
    """Repeats passes over one run until nothing changes; an operator that is killed is followed by a new one."""

    def __init__(
        self, gateway: Gateway, decisions: Decisions, cluster: Cluster, name: str, *, dies_after: Collection[int] = ()
    ) -> None:
        self.gateway = Mortal(gateway, dies_after=dies_after)
        self.played = Played(cluster)
        self.cluster = cluster
        self.key = Key(cluster.namespace, name)
        self.deaths = 0
        self.decisions = decisions
        self._ahead = timedelta()
        self._reconciler = self._born()

    def _born(self) -> Reconciler:
        return Reconciler(
            self.gateway,  # type: ignore[arg-type]  # it stands for whatever Gateway it wraps
            self.decisions,
            clock=lambda: datetime.now(UTC) + self._ahead,
            told=lambda before, after: None,
        )

    async def one(self) -> Next:
        try:
            return await self._reconciler.reconcile(self.key)
        except KilledError:
            self.deaths += 1
            self._reconciler = self._born()
            return Next(failed=True)

    async def settle(self) -> Next:
        """Passes until one wrote nothing: only tests change anything beside the operator."""
        for _ in range(MOST_PASSES):
            before = len(self.gateway.writes)
            coming = await self.one()
            if not coming.failed and len(self.gateway.writes) == before:
                return coming
        raise AssertionError(f"still not settled: {self.status}")

    async def until(self, look: Callable[[], Any], what: str) -> None:
        """Settles, and moves the clock to when the next pass was wanted, until `look` is satisfied."""
        for _ in range(MOST_PASSES):
            coming = await self.settle()
            if await asyncio.to_thread(look):
                return
            assert coming.after_seconds is not None, f"nothing more will happen, and not: {what}\n{self.status}"
            self.advance(coming.after_seconds + 0.01)
        raise AssertionError(f"never: {what}\n{self.status}")

    async def child(self, kind: str, name: str) -> Raw:
        await self.until(lambda: self.cluster.get(kind, name), f"{kind} {name} is made")
        found = self.cluster.get(kind, name)
        assert found is not None
        return found

    async def starts(self, report: PrepareReport = FRESH, *, attempt: int = 0) -> None:
        """Until the attempt's PyTorchJob is made, after its prepare has answered so."""
        prepare = f"{self.key.name}-p{report.prepare}"
        await self.child("Job", prepare)
        self.played.answer(prepare, report)
        await self.child("PyTorchJob", f"{self.key.name}-a{attempt}")

    async def trains(self, report: PrepareReport = FRESH, *, attempt: int = 0) -> None:
        """Until all pods of the attempt run."""
        await self.starts(report, attempt=attempt)
        self.played.start_attempt(f"{self.key.name}-a{attempt}")
        await self.state("Running")

    async def state(self, name: str) -> None:
        await self.until(lambda: self.status.get("current", {}).get("state") == name, f"the state is {name}")

    def advance(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)

    @property
    def status(self) -> Raw:
        found = self.cluster.get("SweepRun", self.key.name)
        return found.get("status", {}) if found is not None else {}

    def condition(self, kind: str) -> Raw:
        found = [one for one in self.status.get("conditions", []) if one["type"] == kind]
        return found[0] if found else {}

    def created(self) -> list[str]:
        """Without surveys, on which nothing depends."""
        made = [name for method, name in self.gateway.writes if method == "create"]
        return [name for name in made if not name.startswith(f"{self.key.name}-s")]
