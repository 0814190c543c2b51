"""Metrics come from the step between two statuses: what was written twice counts once."""

from datetime import UTC, datetime

import pytest

from sweeprun_operator.api.status import (
    Attempt,
    Cause,
    Condition,
    ConditionStatus,
    ConditionType,
    Current,
    Kind,
    PhaseSeconds,
    RefusedCheckpoint,
    Savings,
    State,
    SweepRunStatus,
)
from sweeprun_operator.core.classify import KINDS
from sweeprun_operator.core.lifecycle import PHASES, derive_phase
from sweeprun_operator.metric_catalogue import CATALOGUE, End, ResumeResult
from sweeprun_operator.metrics import Metrics, Sample, samples
from sweeprun_protocol.reasons import Outcome, RefusalReason, StartReason

FIRST = Attempt(attempt=0, epoch=1, outcome=Outcome.FRESH, reason=StartReason.FIRST_START)
EVICTED = FIRST.model_copy(update={"cause": Cause.EVICTION_API, "kind": Kind.DISRUPTION})


def status(*history, **more):
    return SweepRunStatus(history=list(history), **more)


def happened(before, after):
    return list(samples(before, after))


def test_the_first_attempt_is_no_fresh_start():
    assert happened(status(), status(FIRST)) == [Sample("attempts", labels=("Fresh", "FirstStart"))]


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


def ended(cause, *, outcome=Outcome.RESUME, to_step=None):
    return Attempt(attempt=1, epoch=2, outcome=outcome, from_step=500, to_step=to_step, cause=cause, kind=KINDS[cause])


@pytest.mark.parametrize(
    ("cause", "to_step", "result"),
    [
        (Cause.EVICTION_API, 501, ResumeResult.GOT_FURTHER),
        (Cause.APPLICATION, 501, ResumeResult.GOT_FURTHER),
        (Cause.COMPLETED, 500, ResumeResult.GOT_FURTHER),  # it was evicted after its last checkpoint
        (Cause.EVICTION_API, 500, ResumeResult.DISRUPTED),
        (Cause.SUSPENDED, None, ResumeResult.DISRUPTED),
        (Cause.APPLICATION, 500, ResumeResult.FAILED),
        (Cause.NEVER_STARTED, None, ResumeResult.FAILED),
    ],
)
def test_a_resume_succeeds_where_it_gets_beyond_its_checkpoint(cause, to_step, result):
    after = ended(cause, to_step=to_step)
    going = after.model_copy(update={"cause": None, "kind": None})
    found = [sample for sample in happened(status(going), status(after)) if sample.name == "resumes_ended"]
    assert found == [Sample("resumes_ended", labels=(str(result),))]
    assert not [sample for sample in happened(status(after), status(after)) if sample.name == "resumes_ended"]


def test_the_end_of_an_attempt_from_step_0_is_no_resume():
    assert "resumes_ended" not in {sample.name for sample in happened(status(), status(EVICTED))}


def test_running_time_counts_when_it_is_added():
    assert happened(status(running_seconds=30), status(running_seconds=90)) == [Sample("running_seconds", 60.0)]


@pytest.fixture
def metrics():
    return Metrics(queue_length=lambda: 3, prepares=lambda: 2, prepares_waiting=lambda: 1)


def test_runs_are_counted_where_they_stand_now(metrics):
    value = metrics.registry.get_sample_value
    for phase in ("Preparing", "Stuck", "Stuck"):
        metrics.stands("a", phase)
    metrics.stands("b", "Stuck")
    assert value("sweeprun_runs", {"phase": "Preparing"}) == 0
    assert value("sweeprun_runs", {"phase": "Stuck"}) == 2
    metrics.stands("a", None)
    metrics.stands("a", None)
    assert value("sweeprun_runs", {"phase": "Stuck"}) == 1


def test_what_alerts_ask_an_increase_of_is_0_before_it_happens(metrics):
    value = metrics.registry.get_sample_value
    assert value("sweeprun_checkpoints_refused_total", {"reason": "Truncated"}) == 0
    assert value("sweeprun_attempts_total", {"outcome": "Fresh", "reason": "AllCheckpointsRefused"}) == 0
    assert value("sweeprun_watches_ended_total", {"reason": "Deaf"}) == 0


def test_series_exist_for_words_of_the_catalogue_only(metrics):
    known = {metric.full_name: metric for metric in CATALOGUE}
    served = {sample.name: sample for family in metrics.registry.collect() for sample in family.samples}
    assert set(known) <= set(served) | {"sweeprun_recovery_seconds", "sweeprun_reconcile_seconds"}
    for family in metrics.registry.collect():
        for sample in family.samples:
            for label, word in sample.labels.items():
                if not sample.name.endswith(("_bucket", "_created")):
                    assert word in known[sample.name].labels[label]


def test_an_error_of_an_unknown_class_makes_no_series_of_its_own(metrics):
    metrics.passed(0.1, "SomeLibrarysError")
    assert metrics.registry.get_sample_value("sweeprun_reconcile_errors_total", {"error": "Bug"}) == 1


def test_the_words_of_the_catalogue_are_those_that_are_said():
    (watches,) = (metric for metric in CATALOGUE if metric.name == "watches_ended")
    assert set(watches.labels["reason"]) == set(End)
    phases = {derive_phase(status(current=current(state))) for state in State if state is not State.FINISHED}
    assert phases | {"Pending", "NotAccepted", "Queued", "Suspended", "Stuck", "Completed", "Failed"} == set(PHASES)


def current(state):
    return Current(attempt=0, prepare=0, state=state, since=datetime(2026, 1, 1, tzinfo=UTC))


def test_every_sample_has_a_metric(metrics):
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
