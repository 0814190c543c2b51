"""What people see of the state: the conditions Running and Suspended, and the phase, which is only shown."""

from __future__ import annotations

from sweeprun_operator.api.status import ConditionStatus, ConditionType, State, SweepRunStatus

from . import preparing
from .draft import Draft
from .observation import Role

_HELPERS = {State.PREPARING: Role.PREPARE, State.INITIALIZING: Role.INIT}
_TEXTS: dict[State, str] = {
    State.PREPARING: "the volume is looked at",
    State.INITIALIZING: "sweep_init runs",
    State.BACKOFF: "the next try waits",
    State.STARTING: "the attempt starts",
    State.RUNNING: "all pods of the attempt run",
    State.DRAINING: "the pods of the ended attempt go",
    State.HELD: "nothing runs until the run goes on",
    State.FINISHED: "the run has ended",
}

PHASES = (
    "Pending",
    "NotAccepted",
    *(str(state) for state in State if state is not State.FINISHED),
    "Queued",
    "Suspended",
    "Stuck",
    "Completed",
    "Failed",
)
"""What derive_phase can say of a run; Finished is always Completed or Failed."""


def describe(draft: Draft) -> Draft:
    if draft.status.current is not None:
        state = draft.current.state
        value = ConditionStatus.TRUE if state is State.RUNNING else ConditionStatus.FALSE
        draft = draft.condition(ConditionType.RUNNING, value, str(state), _TEXTS[state])
    draft = _suspended(draft)
    return draft.update(phase=derive_phase(draft.status))


def _suspended(draft: Draft) -> Draft:
    current = draft.status.current
    state = current.state if current is not None else None
    workload = draft.workload if current is not None else None
    if draft.spec.suspend and state in (None, State.HELD):
        return draft.condition(
            ConditionType.SUSPENDED, ConditionStatus.TRUE, "SuspendedBySpec", "spec.suspend is true; nothing runs"
        )
    if state is State.STARTING and workload is not None and workload.suspended:
        text = "a queue has not admitted the job"
        return draft.condition(ConditionType.SUSPENDED, ConditionStatus.TRUE, "Queued", text)
    job = preparing.find_job(draft, _HELPERS[state]) if state in _HELPERS else None
    if job is not None and job.owned and job.suspended:
        text = f"a queue has not admitted Job {job.name}: spec.helperPods.labels can name a queue for it"
        return draft.condition(ConditionType.SUSPENDED, ConditionStatus.TRUE, "Queued", text)
    if draft.status.is_true(ConditionType.SUSPENDED):
        return draft.condition(ConditionType.SUSPENDED, ConditionStatus.FALSE, "GoesOn", "the run goes on")
    return draft


def derive_phase(status: SweepRunStatus) -> str:
    """One word for `kubectl get`; never read by a decision."""
    if status.is_true(ConditionType.COMPLETE):
        return "Completed"
    if status.is_true(ConditionType.FAILED):
        return "Failed"
    if status.is_true(ConditionType.STUCK):
        return "Stuck"
    suspended = status.condition(ConditionType.SUSPENDED)
    if suspended is not None and suspended.status is ConditionStatus.TRUE:
        return "Queued" if suspended.reason == "Queued" else "Suspended"
    if status.current is not None:
        return str(status.current.state)
    accepted = status.condition(ConditionType.ACCEPTED)
    return "NotAccepted" if accepted is not None and accepted.status is ConditionStatus.FALSE else "Pending"
