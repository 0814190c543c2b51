"""What the operator counts reaches W&B's summary: status, one variable, the keys that the library writes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.decided import BUILD, decided, environment, trainer_of
from sweeprun_operator.api.status import HISTORY as MOST_ATTEMPTS
from sweeprun_operator.api.status import (
    Attempt,
    Cause,
    Counts,
    PhaseSeconds,
    PreviousRun,
    Savings,
    SweepRunStatus,
)
from sweeprun_operator.builders.run_history import run_history
from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.environ import HISTORY
from sweeprun_protocol.history import COUNTS, MAX_CAUSES, MAX_HISTORY_BYTES, PHASES, RunHistory
from sweeprun_protocol.reasons import Outcome, StartReason
from sweeprun_trainer import account

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = PhaseSeconds(detect=1.5, drain=2, prepare=3, validation=1, queue=4, start=5, first_step=6)


def attempt(number: int, **fields) -> Attempt:
    return Attempt(attempt=number, epoch=number + 1, outcome=Outcome.RESUME, start_time=NOON, **fields)


def told(**status) -> dict[str, object]:
    """The summary of an attempt that is made from this status."""
    run = decided(attempt=2, tracking={"type": "WandB"})
    run = run.model_copy(update={"status": run.status.model_copy(update=status)})
    return account.summary(environment(trainer_of(BUILD.workload(run))))


def test_the_summary_says_what_status_counts():
    found = told(
        counts=Counts(attempts=3, resumes=1, restarts=2, fresh_starts=1, disruptions=1, failures=4, never_started=5),
        savings=Savings(steps_kept=500, steps_repeated=20, gpu_seconds_kept=60),
        history=[
            attempt(0, cause=Cause.EVICTION_API),
            attempt(1, cause=Cause.OOM_KILLED, seconds=SECONDS),
            attempt(2, seconds=PhaseSeconds(detect=0.5, drain=1, prepare=2)),
        ],
        previous_run_ids=[PreviousRun(run_id="digits.1", reason=StartReason.ALL_REFUSED, time=NOON)],
    )
    assert found == {
        "sweeprun/attempts": 3,
        "sweeprun/resumes": 1,
        "sweeprun/restarts": 2,
        "sweeprun/fresh_starts": 1,
        "sweeprun/disruptions": 1,
        "sweeprun/failures": 4,
        "sweeprun/never_started": 5,
        "sweeprun/steps_kept": 500,
        "sweeprun/steps_repeated": 20,
        "sweeprun/gpu_seconds_kept": 60,
        "sweeprun/causes": "EvictionAPI, OOMKilled",
        "sweeprun/recovery_seconds/detect": 2.0,
        "sweeprun/recovery_seconds/drain": 3.0,
        "sweeprun/recovery_seconds/prepare": 5.0,
        "sweeprun/recovery_seconds/validation": 1.0,
        "sweeprun/recovery_seconds/queue": 4.0,
        "sweeprun/recovery_seconds/start": 5.0,
        "sweeprun/recovery_seconds/first_step": 6.0,
        "sweeprun/previous_run_ids": "digits.1",
    }
    assert set(found) == set(account.SUMMARY_KEYS)


def test_a_run_that_was_never_interrupted_has_counts_only():
    found = told(counts=Counts(attempts=1), history=[attempt(0, seconds=PhaseSeconds(validation=1))])
    assert found == dict.fromkeys(account.COUNT_KEYS.values(), 0) | {"sweeprun/attempts": 1}


def test_without_tracking_nothing_is_told():
    assert HISTORY not in environment(trainer_of(BUILD.workload(decided())))


def test_the_fullest_status_fits_and_is_read_back():
    most = (1 << 53) - 1
    long = SECONDS.model_copy(update=dict.fromkeys(PhaseSeconds.model_fields, 12345678.123))
    status = SweepRunStatus(
        counts=Counts.model_construct(**dict.fromkeys(Counts.model_fields, most)),
        savings=Savings.model_construct(**dict.fromkeys(Savings.model_fields, most)),
        history=[attempt(number, cause=max(Cause, key=len), seconds=long) for number in range(1, MOST_ATTEMPTS + 1)],
        previous_run_ids=[
            PreviousRun(run_id="r" * 64, reason=StartReason.ALL_REFUSED, time=NOON + timedelta(hours=number))
            for number in range(5)
        ],
    )
    history = run_history(status)
    text = history.encode()
    assert len(text) < MAX_HISTORY_BYTES / 2
    assert RunHistory.decode(text, where=HISTORY) == history
    assert (set(history.counts), set(history.recovery_seconds)) == (set(COUNTS), set(PHASES))
    assert len(history.causes) == MAX_CAUSES


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ('{"counts": {"attempts": -1}, "recoverySeconds": {}, "causes": [], "previousRunIds": []}', "attempts"),
        ('{"counts": {}, "recoverySeconds": {"drain": "long"}, "causes": [], "previousRunIds": []}', "drain"),
        (json.dumps({"counts": {}, "recoverySeconds": {}, "causes": ["c"] * 11, "previousRunIds": []}), "causes"),
        (" " * (MAX_HISTORY_BYTES + 1), "more than"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(text, problem):
    with pytest.raises(RecordError, match=problem):
        RunHistory.decode(text, where=HISTORY)


def test_every_key_is_documented():
    document = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    rows = re.findall(r"^\| `([a-z_/]+)` \|", document, re.MULTILINE)
    assert sorted(rows) == sorted({*account.SUMMARY_KEYS, *account.ROW_KEYS, account.PREVIOUS})
