"""One pass over one SweepRun: gather, decide, execute. Knows no clock but the one it is given."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.execute import Executed, Result, Transition, emit, execute, warning
from sweeprun_operator.cluster.gateway import Gateway, Raw
from sweeprun_operator.cluster.gather import UnreadableRunError, gather
from sweeprun_operator.core.observation import Observation
from sweeprun_operator.core.plan import Plan

from .queue import Key

_log = logging.getLogger(__name__)

_EVENT_REASONS = {Result.NAME_TAKEN: "NameTaken", Result.REFUSED: "ChildRefused"}

Seen = Callable[[Key, Observation | None], None]
"""Told what a pass has read; None: the run is gone."""


def _unheard(_key: Key, _observation: Observation | None) -> None:
    return


class Decisions(Protocol):
    """What the core decides, bound to the images and settings of this installation."""

    def decide(self, observation: Observation) -> Plan: ...

    def proof(self, run: SweepRun) -> Raw:
        """The first attempt's workload, for the dry run. Raises ValueError with a message for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """When to come again; nothing set: when something happens."""

    after_seconds: float | None = None
    failed: bool = False
    """Back off; `after_seconds` is then the least."""
    gone: bool = False
    """The SweepRun does not exist."""


class Reconciler:
    def __init__(
        self,
        gateway: Gateway,
        decisions: Decisions,
        *,
        clock: Callable[[], datetime],
        told: Transition,
        seen: Seen = _unheard,
        departures: Departures | None = None,
    ) -> None:
        """`clock` gives the time in UTC; `told` hears of every status written, `seen` of everything read. Whoever has
        watches fills `departures`."""
        self._gateway = gateway
        self._decisions = decisions
        self._clock = clock
        self._told = told
        self._seen = seen
        self._departures = departures if departures is not None else Departures()
        self._cluster_id: str | None = None
        self._complaints: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> Next:
        """Raises GatewayError: the pass is to be repeated with backoff."""
        if self._cluster_id is None:
            self._cluster_id = await self._gateway.cluster_id()
        try:
            gathered = await gather(
                self._gateway,
                namespace=key.namespace,
                name=key.name,
                now=self._clock(),
                cluster_id=self._cluster_id,
                proof=self._decisions.proof,
                departures=self._departures,
            )
        except UnreadableRunError as error:
            await self._complain(key, error.raw, "Unreadable", f"stored under another version of the CRD: {error}")
            return Next(failed=True)
        self._seen(key, gathered.observation if gathered is not None else None)
        if gathered is None:
            self._complaints.pop(key, None)
            return Next(gone=True)
        plan = self._decisions.decide(gathered.observation)
        executed = await execute(self._gateway, gathered, plan, told=self._told)
        return await self._next(key, gathered.raw, plan, executed)

    async def _next(self, key: Key, raw: Raw, plan: Plan, executed: Executed) -> Next:
        if executed.result is Result.DONE:
            self._complaints.pop(key, None)
            return Next(after_seconds=plan.requeue_seconds)
        reason = _EVENT_REASONS.get(executed.result)
        if reason is not None:
            await self._complain(key, raw, reason, executed.message)
        _log.info("%s: %s: %s", key, executed.result.value, executed.message)
        return Next(failed=True, after_seconds=executed.retry_seconds)

    async def _complain(self, key: Key, raw: Raw, reason: str, message: str) -> None:
        """A Warning once, not with every repetition."""
        if self._complaints.get(key) != message:
            self._complaints[key] = message
            await emit(self._gateway, raw, warning(reason, message))
