"""Status as an attempt is told of it, for its W&B run."""

from __future__ import annotations

from collections.abc import Iterable

from sweeprun_operator.api.status import PhaseSeconds, SweepRunStatus
from sweeprun_protocol.history import MAX_CAUSES, MAX_PREVIOUS_RUNS, RunHistory

_FIELDS = {"first_step": "firstStep"}


def run_history(status: SweepRunStatus) -> RunHistory:
    """Of the decided attempt, which status counts already."""
    recoveries = [entry.seconds for entry in status.history if entry.attempt > 0]
    return RunHistory(
        counts=_counts(status),
        causes=[str(entry.cause) for entry in status.history if entry.cause is not None][-MAX_CAUSES:],
        recovery_seconds={
            _FIELDS.get(name, name): seconds
            for name in PhaseSeconds.model_fields
            if (seconds := _sum(getattr(recovery, name) for recovery in recoveries)) is not None
        },
        previous_run_ids=[item.run_id for item in status.previous_run_ids][-MAX_PREVIOUS_RUNS:],
    )


def _counts(status: SweepRunStatus) -> dict[str, int]:
    counts, savings = status.counts, status.savings
    return {
        "attempts": counts.attempts,
        "resumes": counts.resumes,
        "restarts": counts.restarts,
        "freshStarts": counts.fresh_starts,
        "disruptions": counts.disruptions,
        "failures": counts.failures,
        "neverStarted": counts.never_started,
        "stepsKept": savings.steps_kept,
        "stepsRepeated": savings.steps_repeated,
        "gpuSecondsKept": savings.gpu_seconds_kept,
    }


def _sum(seconds: Iterable[float | None]) -> float | None:
    """None where nothing is known."""
    known = [value for value in seconds if value is not None]
    return round(sum(known), 3) if known else None
