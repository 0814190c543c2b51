"""Applies a plan: the status, then the actions in order and beside them the events. Knows the Gateway, not Kubernetes.

Each request waits for an answer of the API server, which is slow when many runs are evicted at once: what does not
depend on another is asked beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar, assert_never

from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.api.v1alpha1 import ObjectMeta
from sweeprun_operator.core.observation import Refusal
from sweeprun_operator.core.plan import Action, ChildKind, Create, Delete, DeleteRun, Event, EventType, Plan

from .fields import controlled_by, name_of
from .gateway import AlreadyExistsError, ConflictError, Gateway, GatewayError, NotFoundError, Raw, RefusedError
from .gather import Gathered
from .missing_pods import HELPERS, MESSAGE_CHARACTERS, TEMPLATE

_log = logging.getLogger(__name__)
T = TypeVar("T")

OPTIONAL_SECONDS = 2.0
"""How long a pass waits for the making of a child that nothing depends on."""

Transition = Callable[[SweepRunStatus, SweepRunStatus], None]
"""Told of every status that was written, with the one before it."""


class Result(Enum):
    DONE = "done"
    STALE = "stale"
    """A precondition did not hold: read again."""
    NAME_TAKEN = "name taken"
    """A child's name belongs to something else: wait until that is gone."""
    REFUSED = "refused"
    """The server refused a child (quota, admission); it may think otherwise later."""


@dataclass(frozen=True, slots=True)
class Executed:
    result: Result
    message: str = ""
    retry_seconds: float | None = None
    refusal: Refusal | None = None
    """Set with REFUSED, for the next decision."""


async def execute(gateway: Gateway, gathered: Gathered, plan: Plan, *, told: Transition) -> Executed:
    """Raises GatewayError for calls that failed without an answer that means something: the pass is repeated."""
    run = gathered.observation.run
    changed = plan.status if plan.status != run.status else None
    if changed is not None or plan.actions:
        # Where nothing changes it is written all the same: the server stores nothing, but refuses what was read too
        # long ago. A process that slept since would make or delete children that a later status has numbered anew.
        wanted = {**gathered.raw, "status": changed.to_wire()} if changed is not None else gathered.raw
        try:
            await gateway.replace_status(wanted)
        except (ConflictError, NotFoundError) as error:
            return Executed(Result.STALE, str(error))
    if changed is not None:
        told(run.status, changed)
    # Events tell what the status says, which is written: they are due whatever becomes of the children.
    ended, told_of = await asyncio.gather(
        _carry_out(gateway, run.metadata, plan.actions),
        emit(gateway, gathered.raw, plan.events),
        return_exceptions=True,
    )
    _or_raise(told_of)
    return _or_raise(ended)


async def _carry_out(gateway: Gateway, of: ObjectMeta, actions: tuple[Action, ...]) -> Executed:
    """Up to the first step that is not done."""
    for step in _steps(actions):
        answers = await asyncio.gather(*(_act(gateway, of, action) for action in step), return_exceptions=True)
        for ended in [_or_raise(answer) for answer in answers]:
            if ended.result is not Result.DONE:
                return ended
    return Executed(Result.DONE)


def _steps(actions: tuple[Action, ...]) -> Iterator[list[Action]]:
    """One by one, but for deletions that follow each other."""
    step: list[Action] = []
    for action in actions:
        if step and not (isinstance(action, Delete) and isinstance(step[-1], Delete)):
            yield step
            step = []
        step.append(action)
    if step:
        yield step


def _or_raise(answer: T | BaseException) -> T:
    if isinstance(answer, BaseException):
        raise answer
    return answer


async def _act(gateway: Gateway, of: ObjectMeta, action: Action) -> Executed:
    match action:
        case Create():
            make = _try if action.optional else _create
            return await make(gateway, of, action)
        case Delete():
            try:
                await gateway.delete(action.kind, of.namespace, action.name, uid=action.uid, force=action.force)
            except NotFoundError:
                return Executed(Result.DONE)
            except ConflictError as error:
                return Executed(Result.STALE, str(error))
            return Executed(Result.DONE)
        case DeleteRun():
            try:
                await gateway.delete_run(of.namespace, of.name, uid=action.uid)
            except (NotFoundError, ConflictError):
                return Executed(Result.DONE)
            return Executed(Result.DONE)
        case _ as never:
            assert_never(never)


async def _create(gateway: Gateway, of: ObjectMeta, action: Create) -> Executed:
    name = name_of(action.manifest)
    try:
        await gateway.create(action.kind, of.namespace, action.manifest)
    except AlreadyExistsError:
        taken = await gateway.get_child(action.kind, of.namespace, name)
        if taken is None:
            return Executed(Result.STALE, f"{action.kind} {name} was there and is gone")
        if not controlled_by(taken, of.uid):
            return Executed(Result.NAME_TAKEN, f"{action.kind} {name} belongs to something else: delete or rename it")
    except RefusedError as error:
        field = TEMPLATE if action.kind is ChildKind.PYTORCHJOB else HELPERS
        refusal = Refusal(what=f"{action.kind} {name}", message=str(error)[:MESSAGE_CHARACTERS], field=field)
        return Executed(
            Result.REFUSED, f"{action.kind} {name}: {error}", retry_seconds=error.retry_seconds, refusal=refusal
        )
    return Executed(Result.DONE)


async def _try(gateway: Gateway, of: ObjectMeta, action: Create) -> Executed:
    """A child that nothing depends on: whatever hinders it is told in the log and changes nothing."""
    try:
        async with asyncio.timeout(OPTIONAL_SECONDS):
            executed = await _create(gateway, of, action)
    except (GatewayError, TimeoutError) as error:
        executed = Executed(Result.REFUSED, f"{action.kind} {name_of(action.manifest)}: {error!r}")
    if executed.result is not Result.DONE:
        _log.info("done without: %s", executed.message)
    return Executed(Result.DONE)


async def emit(gateway: Gateway, raw: Raw, events: tuple[Event, ...]) -> None:
    """Events are for people: losing one is logged and changes nothing."""
    for event in events:
        try:
            await gateway.emit(raw, type_=event.type, reason=event.reason, message=event.message)
        except GatewayError as error:
            _log.warning("event %s of %s was lost: %s", event.reason, name_of(raw), error)


def warning(reason: str, message: str) -> tuple[Event, ...]:
    return (Event(EventType.WARNING, reason, message),)
