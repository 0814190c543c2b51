"""Conditions of the status: a transition time moves only with the status, the generation with every judgement."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sweeprun_operator.api.status import Condition, ConditionStatus, ConditionType

MESSAGE_CHARACTERS = 1024


def clip(text: str, most: int = MESSAGE_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def with_condition(
    conditions: Iterable[Condition],
    *,
    kind: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
    now: datetime,
    generation: int,
) -> list[Condition]:
    """The conditions with this one set, in their order; new ones come last."""
    known = {condition.type: condition for condition in conditions}
    before = known.get(kind)
    unmoved = before is not None and before.status is status
    known[kind] = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=clip(message),
        last_transition_time=before.last_transition_time if before is not None and unmoved else now,
        observed_generation=generation,
    )
    return list(known.values())
