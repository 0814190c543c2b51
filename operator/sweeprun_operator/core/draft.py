"""A plan in the making: every step of a decision takes a draft and gives a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.api.status import ConditionStatus, ConditionType, Current, State, SweepRunStatus
from sweeprun_operator.api.v1alpha1 import SweepRun

from .children import Children
from .conditions import MESSAGE_CHARACTERS, clip, with_condition
from .observation import Observation, Workload
from .plan import Action, Event, EventType, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    seen: Observation
    children: Children
    status: SweepRunStatus
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_seconds: float | None = None

    @staticmethod
    def begin(seen: Observation, children: Children) -> Draft:
        return Draft(seen=seen, children=children, status=seen.run.status)

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.seen.now

    @property
    def spec(self) -> SweepRunSpec:
        return self.seen.run.spec

    @property
    def current(self) -> Current:
        assert self.status.current is not None, "the run has begun"
        return self.status.current

    @property
    def run(self) -> SweepRun:
        """The run as it is once this draft's status is written: children are made from it."""
        return self.seen.run.model_copy(update={"status": self.status})

    @property
    def workload(self) -> Workload | None:
        """The PyTorchJob of the current attempt."""
        return next((item for item in self.seen.workloads if item.owned and item.attempt == self.current.attempt), None)

    @property
    def accepted(self) -> bool:
        """This generation of the spec was judged and may have children."""
        found = self.status.condition(ConditionType.ACCEPTED)
        generation = self.seen.run.metadata.generation
        return found is not None and found.status is ConditionStatus.TRUE and found.observed_generation == generation

    def seconds_since(self, moment: datetime) -> float:
        """Never negative: clocks of two machines may differ."""
        return max(0.0, (self.now - moment).total_seconds())

    # -- writing -------------------------------------------------------------------------------------------------------

    def update(self, **changes: Any) -> Draft:
        """Change fields of the status."""
        return replace(self, status=self.status.model_copy(update=changes))

    def move(self, **changes: Any) -> Draft:
        """Change fields of status.current."""
        return self.update(current=self.current.model_copy(update=changes))

    def enter(self, state: State, **changes: Any) -> Draft:
        """Change the state; the next pass comes at once."""
        return self.move(state=state, since=self.now, **changes).look_again(0)

    def condition(self, kind: ConditionType, value: ConditionStatus, reason: str, message: str) -> Draft:
        conditions = with_condition(
            self.status.conditions,
            kind=kind,
            status=value,
            reason=reason,
            message=message,
            now=self.now,
            generation=self.seen.run.metadata.generation,
        )
        return self.update(conditions=conditions)

    def stuck(self, reason: str, message: str, *, event: str = "Stuck") -> Draft:
        """Somebody has to do something; told as a Warning once."""
        before = self.status.condition(ConditionType.STUCK)
        known = before is not None and before.status is ConditionStatus.TRUE and before.reason == reason
        draft = self.condition(ConditionType.STUCK, ConditionStatus.TRUE, reason, message)
        return draft if known else draft.warn(event, f"{reason}: {message}")

    def unstuck(self, *reasons: str) -> Draft:
        """Whatever it was, or only if it was one of these."""
        before = self.status.condition(ConditionType.STUCK)
        if before is None or before.status is not ConditionStatus.TRUE or (reasons and before.reason not in reasons):
            return self
        return self.condition(ConditionType.STUCK, ConditionStatus.FALSE, "GoesOn", "the run goes on")

    def act(self, *actions: Action) -> Draft:
        new = tuple(action for action in actions if action not in self.actions)
        return replace(self, actions=self.actions + new)

    def tell(self, reason: str, message: str) -> Draft:
        return self._event(EventType.NORMAL, reason, message)

    def warn(self, reason: str, message: str) -> Draft:
        return self._event(EventType.WARNING, reason, message)

    def _event(self, kind: EventType, reason: str, message: str) -> Draft:
        event = Event(kind, reason, clip(message, MESSAGE_CHARACTERS))
        return replace(self, events=(*self.events, event))

    def look_again(self, seconds: float) -> Draft:
        """The soonest one counts."""
        soonest = seconds if self.requeue_seconds is None else min(self.requeue_seconds, seconds)
        return replace(self, requeue_seconds=max(0.0, soonest))

    def plan(self) -> Plan:
        changed = self.status if self.status != self.seen.run.status else None
        return Plan(status=changed, actions=self.actions, events=self.events, requeue_seconds=self.requeue_seconds)
