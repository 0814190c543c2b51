"""A status in plain words. Pure: the same status and time give the same words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.explain.causes import CAUSES, KINDS
from sweeprun_cli.explain.words import advice_for
from sweeprun_cli.plain import duration, moment
from sweeprun_operator.api.status import Attempt, Condition, ConditionStatus, ConditionType, Current, State
from sweeprun_protocol.reasons import Outcome

DOUBT = "An end was seen whose cause is not clear yet: better evidence is waited for, a minute at most."


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    attempt: int
    cause: str
    kind: str
    meaning: str
    evidence: str | None
    node: str | None
    time: datetime | None
    from_step: int | None
    to_step: int | None
    advice: str
    pods: tuple[str, ...]
    """What its pods showed; their objects are gone."""


@dataclass(frozen=True, slots=True)
class Story:
    name: str
    phase: str
    ending: Ending | None
    """The latest one; None: no attempt has ended."""
    next: tuple[str, ...]
    """What happens next, or what it waits for."""
    todo: tuple[str, ...]
    """What a person can do; empty where nothing has to be done."""
    budgets: tuple[str, ...]

    @staticmethod
    def of(run: Run, now: datetime) -> Story:
        return Story(
            name=run.name,
            phase=run.row.phase,
            ending=_ending(run),
            next=tuple(_next(run, now)),
            todo=tuple(_todo(run)),
            budgets=tuple(_budgets(run)),
        )


def _ending(run: Run) -> Ending | None:
    entry = next((item for item in reversed(run.status.history) if item.cause is not None), None)
    current = run.status.current
    pending = current.interruption if current is not None else None
    newest = run.status.history[-1] if run.status.history else None
    if pending is not None and newest is not None and newest.cause is None:
        # Every rank ended well; prepare has not judged yet whether that completes the run.
        text = "Every rank ended well. Prepare looks on the volume whether the run is complete."
        return _of(newest, str(pending.cause), "not judged yet", text, pending.evidence, pending.node, "")
    if entry is None or entry.cause is None:
        return None
    known = CAUSES[entry.cause]
    kind = f"{entry.kind}: {KINDS[entry.kind].meaning}" if entry.kind is not None else ""
    return _of(entry, str(entry.cause), kind, known.meaning, entry.evidence, entry.node, known.advice)


def _of(
    entry: Attempt, cause: str, kind: str, meaning: str, evidence: str | None, node: str | None, advice: str
) -> Ending:
    return Ending(
        attempt=entry.attempt,
        cause=cause,
        kind=kind,
        meaning=meaning,
        evidence=evidence,
        node=node,
        time=entry.end_time,
        from_step=entry.from_step,
        to_step=entry.to_step,
        advice=advice,
        pods=tuple(_pods(entry)),
    )


def _pods(entry: Attempt) -> Iterator[str]:
    for pod in entry.pods:
        words = [pod.phase, pod.reason, pod.disruption, "being deleted" if pod.deleting else None]
        if pod.exit_code is not None:
            why = f" ({pod.container_reason})" if pod.container_reason is not None else ""
            words.append(f"container {pod.container} ended with exit code {pod.exit_code}{why}")
        where = f" on {pod.node}" if pod.node is not None else ""
        when = f", at {moment(pod.time)}" if pod.time is not None else ""
        yield f"{pod.name}{where}: {', '.join(word for word in words if word)}{when}"
    if entry.forced is not None:
        nodes = ", ".join(entry.forced.nodes) or "a node that did not answer"
        yield f"Deleted by force, so that nobody knows whether its processes on {nodes} have ended."


# -- what comes --------------------------------------------------------------------------------------------------------


def _next(run: Run, now: datetime) -> list[str]:
    status, current = run.status, run.status.current
    if status.is_true(ConditionType.COMPLETE):
        step = f" at step {status.result.step}" if status.result is not None and status.result.step is not None else ""
        return [f"Nothing: the run is complete{step}."]
    failed = _true(run, ConditionType.FAILED)
    if failed is not None:
        return [f"Nothing by itself: the run has failed ({failed.reason}): {failed.message}"]
    said = []
    accepted = status.condition(ConditionType.ACCEPTED)
    if accepted is not None and accepted.status is not ConditionStatus.TRUE:
        said.append(f"Nothing starts: the spec is not accepted ({accepted.reason}): {accepted.message}")
    if current is None:
        return said or ["The operator has not looked at it yet: is it running, and does it watch this namespace?"]
    stuck = _true(run, ConditionType.STUCK)
    if stuck is not None:
        said.append(f"It is stuck since {moment(stuck.last_transition_time)} ({stuck.reason}): {stuck.message}")
    if current.doubt is not None:
        said.append(DOUBT)
    said.append(_by_state(run, current, now))
    said += [
        f"Node {one.node} is avoided until {moment(one.until)} ({one.losses} losses: {one.reason})."
        for one in status.avoided_nodes
        if one.until > now
    ]
    return said


def _by_state(run: Run, current: Current, now: datetime) -> str:
    since = duration(max(0.0, (now - current.since).total_seconds()))
    if current.state is State.BACKOFF:
        return _backoff(current, now)
    if current.state is State.STARTING:
        return _starting(run, current, now)
    if current.state is State.DRAINING:
        text = "It goes on once all of them are gone"
        text = "The run then ends, as was asked for" if current.stopping else text
        return f"The pods of attempt {current.attempt} are being stopped, since {since}. {text}."
    if current.state is State.RUNNING:
        progress = run.status.progress
        step = f"; step {progress.step} was seen at {moment(progress.time)}" if progress is not None else ""
        return f"Attempt {current.attempt} trains, for {since}{step}."
    return {
        State.PREPARING: f"Prepare {current.prepare} looks at the volume, for {since}; it decides how the run goes on.",
        State.INITIALIZING: f"sweep_init runs, for {since}; it makes the run.",
        State.HELD: "Nothing until spec.suspend is false.",
        State.FINISHED: "Nothing: the run has ended.",
    }[current.state]


def _backoff(current: Current, now: datetime) -> str:
    left = max(0.0, (current.not_before - now).total_seconds()) if current.not_before is not None else 0.0
    when = f"in {duration(left)} (at {moment(current.not_before)})" if left else "now"
    if current.outcome is None:
        count = current.prepare_failures
        return f"The volume is looked at again {when}: {count} prepare(s) in a row gave no answer that can be used."
    how = {Outcome.RESUME: "goes on from the checkpoint", Outcome.FRESH: "begins a new run at step 0"}
    return f"Attempt {current.attempt} {how.get(current.outcome, 'starts at step 0')} {when}."


def _starting(run: Run, current: Current, now: datetime) -> str:
    text = f"The pods of attempt {current.attempt} are starting"
    suspended = _true(run, ConditionType.SUSPENDED)
    if suspended is not None:
        return (
            f"Attempt {current.attempt} waits for a queue to admit it ({suspended.message}). No limit runs meanwhile."
        )
    if run.limits is None or current.admitted_time is None:
        return f"{text}."
    end = current.admitted_time + timedelta(seconds=run.limits.start_timeout_seconds)
    left = (end - now).total_seconds()
    return f"{text}; if not all of them run within {duration(max(0.0, left))}, another attempt is made."


def _true(run: Run, kind: ConditionType) -> Condition | None:
    found = run.status.condition(kind)
    return found if found is not None and found.status is ConditionStatus.TRUE else None


# -- what people can do ------------------------------------------------------------------------------------------------


def _todo(run: Run) -> list[str]:
    found = [_true(run, kind) for kind in (ConditionType.FAILED, ConditionType.STUCK, ConditionType.SUSPENDED)]
    accepted = run.status.condition(ConditionType.ACCEPTED)
    if accepted is not None and accepted.status is not ConditionStatus.TRUE:
        found.append(accepted)
    known = [advice_for(condition.reason) for condition in found if condition is not None]
    said = [entry.advice.replace("RUN", run.name) for entry in known if entry is not None and entry.advice]
    ending = _ending(run)
    finished = run.status.is_true(ConditionType.COMPLETE)
    if ending is not None and ending.advice and not finished:
        said.append(f"About the last end: {ending.advice.replace('RUN', run.name)}")
    return list(dict.fromkeys(said))


def _budgets(run: Run) -> list[str]:
    if run.limits is None or run.status.is_true(ConditionType.COMPLETE):
        return []
    since, counts, limits = run.status.since_progress, run.status.counts, run.limits
    rows = (
        ("failures since the last progress", since.failures, limits.max_failures),
        ("never started since the last progress", since.never_started, limits.max_never_started),
        ("attempts without progress", since.attempts, limits.max_attempts_without_progress),
        ("disruptions", counts.disruptions, limits.max_disruptions),
    )
    return [
        f"{name}: {count}" + (f" of {most} allowed" if most else ", no limit") for name, count, most in rows if count
    ]
