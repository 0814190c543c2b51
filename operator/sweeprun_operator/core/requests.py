"""spec.request: each id is handled once, and what became of it stands in status.lastRequest."""

from __future__ import annotations

from sweeprun_operator.api.spec import Request, RequestAction
from sweeprun_operator.api.status import (
    Cause,
    ConditionStatus,
    ConditionType,
    Interruption,
    LastRequest,
    SinceProgress,
    State,
)

from . import draining, finishing, preparing
from .draft import Draft


def take(draft: Draft) -> Draft:
    request, last = draft.spec.request, draft.status.last_request
    if request is None or (last is not None and last.id == request.id):
        return draft
    return _stop(draft, request) if request.action is RequestAction.STOP else _retry(draft, request)


def _note(draft: Draft, request: Request, message: str) -> Draft:
    return draft.update(last_request=LastRequest(id=request.id, time=draft.now, message=message))


def _refuse(draft: Draft, request: Request, message: str) -> Draft:
    text = f"{request.action} refused: {message}"
    return _note(draft, request, text).warn("RequestRefused", text)


def _stop(draft: Draft, request: Request) -> Draft:
    state = draft.status.current.state if draft.status.current is not None else None
    if state is State.FINISHED:
        return _refuse(draft, request, "the run has ended")
    draft = _note(draft, request, "Stop accepted").tell("StopRequested", f"request {request.id} says Stop")
    if state in (State.STARTING, State.RUNNING, State.DRAINING):
        return draft.move(stopping=True)
    if state is State.PREPARING and finishing.seems_complete(draft):
        return draft.move(stopping=True)
    if state is not None:
        draft = _close_undone(preparing.withdraw(draft), Cause.STOPPED, "a request said Stop")
    return finishing.stop(draft)


def _retry(draft: Draft, request: Request) -> Draft:
    if draft.status.current is None:
        return _refuse(draft, request, "the run has not begun")
    state = draft.current.state
    failed = state is State.FINISHED and draft.status.is_true(ConditionType.FAILED)
    if not failed and state is not State.BACKOFF:
        return _refuse(draft, request, f"the run is {state}: Retry is for runs that have failed or wait")
    step = f" from step {request.from_step}" if request.from_step is not None else ""
    draft = _note(draft, request, f"Retry accepted{step}").tell("Retried", f"request {request.id} says Retry{step}")
    draft = draft.update(since_progress=SinceProgress()).move(prepare_failures=0)
    if failed:
        return _leave_failed(draft, request)
    if draft.current.outcome is None:
        return draft.move(not_before=None, from_step=request.from_step)
    if request.from_step is None:
        return draft.move(not_before=None)
    asked = Interruption(cause=Cause.RETRIED, evidence=f"request {request.id} says Retry{step}", time=draft.now)
    return draining.begin(draft, asked).move(from_step=request.from_step)


def _leave_failed(draft: Draft, request: Request) -> Draft:
    text = f"request {request.id} says Retry"
    draft = draft.condition(ConditionType.FAILED, ConditionStatus.FALSE, "Retried", text)
    draft = draft.update(completion_time=None)
    return preparing.begin_prepare(draft, from_step=request.from_step, adoption_done=False, stopping=False)


def _close_undone(draft: Draft, cause: Cause, evidence: str) -> Draft:
    """An attempt that was decided and never made has ended too."""
    if draft.current.state is not State.BACKOFF or draft.current.outcome is None:
        return draft
    return draining.begin(draft, Interruption(cause=cause, evidence=evidence, time=draft.now))
