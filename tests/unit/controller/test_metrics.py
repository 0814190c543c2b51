"""Metrics come from the step between two statuses: what was written twice counts once."""

from datetime import UTC, datetime

import pytest

from sweeprun_operator.api.status import (
    Attempt,
    Cause,
    Condition,
    ConditionStatus,
    ConditionType,
    Kind,
    PhaseSeconds,
    RefusedCheckpoint,
    Savings,
    SweepRunStatus,
)
from sweeprun_operator.metrics import Metrics, Sample, samples
from sweeprun_protocol.reasons import Outcome, RefusalReason, StartReason

FIRST = Attempt(attempt=0, epoch=1, outcome=Outcome.FRESH, reason=StartReason.FIRST_START)
EVICTED = FIRST.model_copy(update={"cause": Cause.EVICTION_API, "kind": Kind.DISRUPTION})


def status(*history, **more):
    return SweepRunStatus(history=list(history), **more)


def happened(before, after):
    return list(samples(before, after))


def test_the_first_attempt_is_no_fresh_start():
    assert happened(status(), status(FIRST)) == [Sample("attempts", labels=("Fresh",))]


def test_nothing_happened_between_equal_statuses():
    assert happened(status(EVICTED), status(EVICTED)) == []


def test_an_end_is_counted_with_its_cause():
    assert happened(status(FIRST), status(EVICTED)) == [Sample("attempts_ended", labels=("EvictionAPI", "Disruption"))]


def test_an_attempt_that_came_and_ended_in_one_step_counts_for_both():
    assert {sample.name for sample in happened(status(), status(EVICTED))} == {"attempts", "attempts_ended"}


def test_a_fresh_start_has_a_reason_and_what_was_refused():
    refused = RefusedCheckpoint(path="p", reason=RefusalReason.TRUNCATED, message="m")
    second = Attempt(attempt=1, epoch=2, outcome=Outcome.FRESH, reason=StartReason.ALL_REFUSED, refused=[refused] * 2)
    found = happened(status(EVICTED), status(EVICTED, second))
    assert Sample("fresh_starts", labels=("AllCheckpointsRefused",)) in found
    assert found.count(Sample("checkpoints_refused", labels=("Truncated",))) == 2


def test_recovery_is_told_by_phase_and_by_what_interrupted():
    second = Attempt(attempt=1, epoch=2, outcome=Outcome.RESUME, seconds=PhaseSeconds(detect=0.5, drain=4))
    later = second.model_copy(update={"seconds": PhaseSeconds(detect=0.5, drain=4, start=6)})
    assert happened(status(EVICTED, second), status(EVICTED, later)) == [
        Sample("recovery_seconds", 6.0, ("start", "EvictionAPI"))
    ]
    assert len([s for s in happened(status(EVICTED), status(EVICTED, second)) if s.name == "recovery_seconds"]) == 2


def test_the_start_of_a_run_is_no_recovery():
    started = FIRST.model_copy(update={"seconds": PhaseSeconds(prepare=3)})
    assert happened(status(FIRST), status(started)) == []


def test_savings_grow():
    after = status(savings=Savings(steps_kept=70, steps_repeated=10, gpu_seconds_kept=5))
    assert happened(status(savings=Savings(steps_kept=50)), after) == [
        Sample("steps_kept", 20.0),
        Sample("steps_repeated", 10.0),
        Sample("gpu_seconds_kept", 5.0),
    ]


@pytest.mark.parametrize("kind", [ConditionType.COMPLETE, ConditionType.FAILED])
def test_an_end_of_a_run_is_counted_once(kind):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    condition = Condition(
        type=kind,
        status=ConditionStatus.TRUE,
        reason="Because",
        message="",
        last_transition_time=now,
        observed_generation=1,
    )
    ended = status(conditions=[condition])
    assert happened(status(), ended) == [Sample("runs_finished", labels=(str(kind),))]
    assert happened(ended, ended) == []


def test_every_sample_has_a_metric():
    metrics = Metrics(queue_length=lambda: 3, prepares=lambda: 2, prepares_waiting=lambda: 1)
    second = Attempt(
        attempt=1,
        epoch=2,
        outcome=Outcome.FRESH,
        reason=StartReason.ALL_REFUSED,
        seconds=PhaseSeconds(drain=4),
        refused=[RefusedCheckpoint(path="p", reason=RefusalReason.TRUNCATED, message="m")],
    )
    metrics.told(status(), status(EVICTED, second, savings=Savings(steps_kept=1, steps_repeated=1, gpu_seconds_kept=1)))
    metrics.passed(0.1, "GatewayError")
    value = metrics.registry.get_sample_value
    assert value("sweeprun_fresh_starts_total", {"reason": "AllCheckpointsRefused"}) == 1
    assert value("sweeprun_recovery_seconds_sum", {"phase": "drain", "cause": "EvictionAPI"}) == 4
    assert value("sweeprun_steps_kept_total") == 1
    assert value("sweeprun_reconcile_errors_total", {"error": "GatewayError"}) == 1
    assert value("sweeprun_queue_length") == 3
    assert value("sweeprun_prepares") == 2
    assert value("sweeprun_prepares_waiting") == 1
