"""One pass over one SweepRun: gather, decide, execute. Knows no clock but the one it is given."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sweeprun_operator.api.status import State
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.execute import Executed, Result, Transition, emit, execute, warning
from sweeprun_operator.cluster.fields import labels_of
from sweeprun_operator.cluster.gateway import Gateway, Raw
from sweeprun_operator.cluster.gather import Gathered, UnreadableRunError, gather
from sweeprun_operator.core.observation import JobPhase, Observation, Refusal, Role
from sweeprun_operator.core.plan import Action, Create, Plan
from sweeprun_protocol.keys import ROLE_LABEL

from .prepare_slots import PrepareSlots
from .queue import Key
from .rest import Rest

_log = logging.getLogger(__name__)

BETWEEN_ATTEMPTS = frozenset({State.DRAINING, State.PREPARING, State.INITIALIZING, State.BACKOFF})

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
    between_attempts: bool = False
    """The run waits for its next attempt: it goes before others of its namespace."""


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
        slots: PrepareSlots | None = None,
        survey_slots: PrepareSlots | None = None,
        rest: Rest | None = None,
    ) -> None:
        """`clock` gives the time in UTC; `told` hears of every status written, `seen` of everything read. Whoever has
        watches fills `departures`. Without `slots` any number of prepare Jobs runs at once, and without
        `survey_slots` of surveys. `rest` learns which runs need no pass until something changes."""
        self._gateway = gateway
        self._decisions = decisions
        self._clock = clock
        self._told = told
        self._seen = seen
        self._departures = departures if departures is not None else Departures()
        self._slots = slots
        self._survey_slots = survey_slots
        self._rest = rest
        self._cluster_id: str | None = None
        self._complaints: dict[Key, str] = {}
        self._refused: dict[Key, Refusal] = {}

    async def reconcile(self, key: Key) -> Next:
        """Raises GatewayError: the pass is to be repeated with backoff."""
        if self._rest is not None:
            self._rest.disturbed(key)
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
                refused=self._refused.pop(key, None),
            )
        except UnreadableRunError as error:
            self._release(key)
            await self._complain(key, error.raw, "Unreadable", f"stored under another version of the CRD: {error}")
            return Next(failed=True)
        self._seen(key, gathered.observation if gathered is not None else None)
        if gathered is None:
            self._release(key)
            self._complaints.pop(key, None)
            return Next(gone=True)
        plan = self._decisions.decide(gathered.observation)
        if not self._may_go_on(key, gathered.observation, plan):
            return Next(between_attempts=True)
        is_nothing = _is_nothing(gathered.observation, plan)
        plan = self._with_few_surveys(key, gathered.observation, plan)
        executed = await execute(self._gateway, gathered, plan, told=self._told)
        if self._rest is not None and executed.result is Result.DONE and is_nothing:
            self._rest.found(key, gathered.versions)
        if executed.result is not Result.DONE and _makes(plan, Role.PREPARE):
            # A quota may refuse it for hours.
            self._release(key)
        return await self._next(key, gathered, plan, executed)

    def _may_go_on(self, key: Key, seen: Observation, plan: Plan) -> bool:
        """False: a prepare Job is due, but no slot is free; nothing of the plan is written then."""
        if self._slots is None:
            return True
        if _prepares(seen):
            self._slots.occupy(key)
            return True
        if _makes(plan, Role.PREPARE):
            return self._slots.take(key)
        self._slots.release(key)
        return True

    def _with_few_surveys(self, key: Key, seen: Observation, plan: Plan) -> Plan:
        """Where many runs lose their pods at once, the later ones do without."""
        slots = self._survey_slots
        if slots is None:
            return plan
        if any(job.role is Role.SURVEY and job.phase is JobPhase.ACTIVE for job in seen.jobs):
            slots.occupy(key)
        elif not _makes(plan, Role.SURVEY):
            slots.release(key)
        elif not slots.take_free(key):
            return replace(plan, actions=tuple(action for action in plan.actions if not _is_of(action, Role.SURVEY)))
        return plan

    def _release(self, key: Key) -> None:
        for slots in (self._slots, self._survey_slots):
            if slots is not None:
                slots.release(key)

    async def _next(self, key: Key, gathered: Gathered, plan: Plan, executed: Executed) -> Next:
        if executed.result is Result.DONE:
            self._complaints.pop(key, None)
            waits = _is_between_attempts(gathered.observation, plan)
            return Next(after_seconds=plan.requeue_seconds, between_attempts=waits)
        if executed.refusal is not None:
            self._refused[key] = executed.refusal
        if executed.result is Result.NAME_TAKEN:
            await self._complain(key, gathered.raw, "NameTaken", executed.message)
        _log.info("%s: %s: %s", key, executed.result.value, executed.message)
        return Next(failed=True, after_seconds=executed.retry_seconds)

    async def _complain(self, key: Key, raw: Raw, reason: str, message: str) -> None:
        """A Warning once, not with every repetition."""
        if self._complaints.get(key) != message:
            self._complaints[key] = message
            await emit(self._gateway, raw, warning(reason, message))


def _prepares(seen: Observation) -> bool:
    """A prepare Job runs or is about to: not one that a queue or a quota may hold for hours."""
    active = any(job.role is Role.PREPARE and job.phase is JobPhase.ACTIVE and not job.suspended for job in seen.jobs)
    return active and seen.refusal is None


def _is_nothing(seen: Observation, plan: Plan) -> bool:
    return plan.status in (None, seen.run.status) and not plan.actions and not plan.events


def _is_between_attempts(seen: Observation, plan: Plan) -> bool:
    status = plan.status if plan.status is not None else seen.run.status
    return status.current is not None and status.current.state in BETWEEN_ATTEMPTS


def _makes(plan: Plan, role: Role) -> bool:
    return any(_is_of(action, role) for action in plan.actions)


def _is_of(action: Action, role: Role) -> bool:
    return isinstance(action, Create) and labels_of(action.manifest).get(ROLE_LABEL) == role
