"""When a run has had enough, and how long the next attempt waits. Applied only once prepare has answered: the answer
may be that the run is complete."""

from __future__ import annotations

from dataclasses import dataclass

from sweeprun_operator.api.spec import Backoff, Limits
from sweeprun_operator.api.status import Kind, SinceProgress, SweepRunStatus

PREPARE_FAILURES_UNTIL_STUCK = 3


@dataclass(frozen=True, slots=True)
class Spent:
    reason: str
    message: str


def spent(limits: Limits, status: SweepRunStatus) -> Spent | None:
    """The budget that is exceeded. A limit of n allows n ends of its kind; the next one fails the run, as a Job's
    backoffLimit does."""
    since, counts = status.since_progress, status.counts
    if limits.active_deadline_seconds is not None and status.running_seconds >= limits.active_deadline_seconds:
        return Spent(
            "ActiveDeadlineExceeded",
            f"the attempts ran {status.running_seconds} s together; limits.activeDeadlineSeconds is "
            f"{limits.active_deadline_seconds}",
        )
    budgets = (
        ("MaxDisruptionsExceeded", "disruptions", counts.disruptions, limits.max_disruptions, "maxDisruptions"),
        ("MaxFailuresExceeded", "failures since the last progress", since.failures, limits.max_failures, "maxFailures"),
        (
            "MaxNeverStartedExceeded",
            "attempts that never started since the last progress",
            since.never_started,
            limits.max_never_started,
            "maxNeverStarted",
        ),
        (
            "MaxAttemptsWithoutProgressExceeded",
            "attempts without progress",
            since.attempts,
            limits.max_attempts_without_progress,
            "maxAttemptsWithoutProgress",
        ),
    )
    for reason, what, count, limit, field in budgets:
        if limit is not None and count > limit:
            return Spent(reason, f"{count} {what}; limits.{field} is {limit}")
    return None


def backoff_seconds(backoff: Backoff, kind: Kind | None, since: SinceProgress) -> float:
    """Before the next attempt. The first disruption after progress costs no wait: the run did nothing wrong."""
    count = (
        {
            Kind.DISRUPTION: since.disruptions - 1,
            Kind.FAILURE: since.failures,
            Kind.NEVER_STARTED: since.never_started,
        }.get(kind, 0)
        if kind is not None
        else 0
    )
    return _doubled(backoff.initial_seconds, backoff.max_seconds, count)


def prepare_backoff_seconds(backoff: Backoff, failures: int) -> float:
    """Before the next prepare, after so many in a row without a usable answer."""
    return _doubled(backoff.initial_seconds, backoff.max_seconds, failures)


def _doubled(initial: float, most: float, count: int) -> float:
    if count <= 0:
        return 0.0
    return float(min(most, initial * 2 ** min(count - 1, 32)))
