"""Status as an attempt is told of it, for its W&B run."""

from __future__ import annotations

from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_protocol.history import COUNTS, MAX_CAUSES, MAX_PREVIOUS_RUNS, PHASES, RunHistory


def run_history(status: SweepRunStatus) -> RunHistory:
    """Of the decided attempt, which status counts already."""
    recoveries = [entry.seconds.to_wire() for entry in status.history if entry.attempt > 0]
    known = {**status.counts.to_wire(), **status.savings.to_wire()}
    return RunHistory(
        counts={name: known[name] for name in COUNTS},
        causes=[str(entry.cause) for entry in status.history if entry.cause is not None][-MAX_CAUSES:],
        recovery_seconds={
            phase: round(sum(seconds), 3)
            for phase in PHASES
            if (seconds := [recovery[phase] for recovery in recoveries if phase in recovery])
        },
        previous_run_ids=[item.run_id for item in status.previous_run_ids][-MAX_PREVIOUS_RUNS:],
    )
