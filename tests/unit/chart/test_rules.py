"""What the rules of the chart say, on what the operator's own metrics show: each alert fires, and its twin does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.promql import rules
from support.promql_values import Moments, sampled
from sweeprun_operator.api.status import (
    Attempt,
    Cause,
    PhaseSeconds,
    RefusedCheckpoint,
    Savings,
    SweepRunStatus,
)
from sweeprun_operator.core.classify import KINDS
from sweeprun_operator.metrics import Metrics
from sweeprun_protocol.reasons import Outcome, RefusalReason, StartReason

EXPRESSIONS = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
NONE = SweepRunStatus()


@pytest.fixture
def metrics():
    return Metrics(queue_length=lambda: 0, prepares=lambda: 0, prepares_waiting=lambda: 0)


class Watch:
    """An operator's metrics, and what was there before."""

    def __init__(self, metrics):
        self.metrics = metrics
        self.origin = sampled(metrics.registry)
        self.start = self.origin

    def later(self):
        """What was told until now is the time before the window."""
        self.start = sampled(self.metrics.registry)

    def value(self, name, *, time=0.0):
        moments = Moments(sampled(self.metrics.registry), self.start, self.origin, time)
        return moments.value(EXPRESSIONS[name])

    def figure(self, name):
        return self.value(name).get(frozenset())

    def told(self, *attempts, **status):
        self.metrics.told(NONE, SweepRunStatus(history=list(attempts), **status))


@pytest.fixture
def watch(metrics):
    return Watch(metrics)


def first(**changes):
    return Attempt(attempt=0, epoch=1, outcome=Outcome.FRESH, reason=StartReason.FIRST_START, **changes)


def next_(reason, outcome=Outcome.RESUME, **changes):
    return Attempt(attempt=1, epoch=2, outcome=outcome, reason=reason, from_step=500, **changes)


def ended(cause, **changes):
    return {"cause": cause, "kind": KINDS[cause], **changes}


EVICTED = ended(Cause.EVICTION_API)


def test_no_operator_at_work_is_told(watch):
    assert watch.value("SweepRunOperatorDown")
    watch.metrics.leading(True)
    assert not watch.value("SweepRunOperatorDown")
    watch.metrics.leading(False)
    assert watch.value("SweepRunOperatorDown")
    assert Moments({}).value(EXPRESSIONS["SweepRunOperatorDown"])


def test_lists_that_stop_coming_are_told(watch):
    watch.metrics.resynced()
    now = datetime.now(UTC).timestamp()
    assert not watch.value("SweepRunNotReconciling", time=now + 800)
    assert watch.value("SweepRunNotReconciling", time=now + 1000)


def test_watches_that_end_now_and_then_are_not_told(watch):
    for _ in range(5):
        watch.metrics.watches_ended("Expired")
    watch.metrics.watches_ended("Deaf")
    assert not watch.value("SweepRunWatchesEnding")
    watch.metrics.watches_ended("Expired")
    assert watch.value("SweepRunWatchesEnding") == {frozenset({("reason", "Expired")}): 6}


@pytest.mark.parametrize(
    ("failed", "error", "fires"), [(3, "Bug", True), (2, "Bug", False), (9, "ConflictError", False)]
)
def test_passes_that_fail_are_told_but_not_those_that_came_too_late(failed, error, fires, watch):
    for number in range(10):
        watch.metrics.passed(0.1, error if number < failed else "")
    assert bool(watch.value("SweepRunReconcileErrors")) is fires


def test_an_operator_with_nothing_to_do_fails_at_nothing(watch):
    assert not watch.value("SweepRunReconcileErrors")


def test_a_run_that_is_stuck_is_told_until_it_goes_on(watch):
    watch.metrics.stands("a", "Running")
    assert not watch.value("SweepRunStuck")
    watch.metrics.stands("a", "Stuck")
    assert watch.value("SweepRunStuck") == {frozenset(): 1}
    watch.metrics.stands("a", "Preparing")
    assert not watch.value("SweepRunStuck")


@pytest.mark.parametrize(("resumed", "fires"), [(8, True), (9, False)])
def test_fresh_starts_are_told_when_more_than_one_in_ten(resumed, fires, watch):
    for _ in range(resumed):
        watch.told(first(**EVICTED), next_(StartReason.NEWEST_CHECKPOINT))
    assert not watch.value("SweepRunFreshStartsRising")
    watch.told(first(**EVICTED), next_(StartReason.ALL_REFUSED, Outcome.FRESH))
    assert bool(watch.value("SweepRunFreshStartsRising")) is fires


def test_what_was_told_before_the_window_is_no_rise(watch):
    watch.told(first(**EVICTED), next_(StartReason.ALL_REFUSED, Outcome.FRESH))
    watch.later()
    watch.told(first(**EVICTED), next_(StartReason.NEWEST_CHECKPOINT))
    assert not watch.value("SweepRunFreshStartsRising")


@pytest.mark.parametrize(
    ("reason", "count", "fires"),
    [
        (RefusalReason.CRC_MISMATCH, 3, True),
        (RefusalReason.CRC_MISMATCH, 2, False),
        (RefusalReason.NOT_RESUMABLE, 5, False),  # a script that saves weights only: its own business
    ],
)
def test_checkpoints_that_are_refused_are_told_by_reason(reason, count, fires, watch):
    refused = [RefusedCheckpoint(path="p", reason=reason, message="m")] * count
    watch.told(first(**EVICTED), next_(StartReason.WALKED_BACK, refused=refused))
    found = watch.value("SweepRunCheckpointsRejected")
    assert found == ({frozenset({("reason", str(reason))}): count} if fires else {})


@pytest.mark.parametrize(("before", "now", "fires"), [(20.0, 100.0, True), (80.0, 100.0, False), (4.0, 20.0, False)])
def test_recovery_is_slow_where_it_is_long_and_was_not(before, now, fires, watch):
    watch.told(first(**EVICTED), next_(StartReason.NEWEST_CHECKPOINT, seconds=PhaseSeconds(prepare=before, drain=5)))
    watch.later()
    watch.told(first(**EVICTED), next_(StartReason.NEWEST_CHECKPOINT, seconds=PhaseSeconds(prepare=now, drain=5)))
    found = watch.value("SweepRunRecoverySlow")
    assert set(found) == ({frozenset({("phase", "prepare")})} if fires else set())


def test_runs_that_wait_for_a_slot_are_told():
    waiting = [0]
    watch = Watch(Metrics(queue_length=lambda: 9, prepares=lambda: 9, prepares_waiting=lambda: waiting[0]))
    assert not watch.value("SweepRunPreparesWaiting")
    waiting[0] = 2
    assert watch.value("SweepRunPreparesWaiting") == {frozenset(): 2}


def test_every_alert_is_tried_here():
    source = Path(__file__).read_text()
    assert [name for name in EXPRESSIONS if f'"{name}"' not in source] == []


def test_the_success_rate_leaves_out_what_says_nothing_of_the_checkpoint(watch):
    assert watch.figure("sweeprun:resume_success:ratio_increase1d") is None
    for cause, to_step in [
        (Cause.EVICTION_API, 600),
        (Cause.COMPLETED, 900),
        (Cause.APPLICATION, 700),
        (Cause.APPLICATION, 500),
        (Cause.EVICTION_API, 500),
    ]:
        watch.told(first(**EVICTED), next_(StartReason.NEWEST_CHECKPOINT, to_step=to_step, **ended(cause)))
    assert watch.figure("sweeprun:resume_success:ratio_increase1d") == 3 / 4


def test_time_saved_is_what_resumes_kept(watch):
    watch.told(savings=Savings(gpu_seconds_kept=100))
    watch.later()
    watch.told(savings=Savings(gpu_seconds_kept=900))
    assert watch.figure("sweeprun:gpu_seconds_kept:increase1d") == 900
    assert watch.value("sweeprun:gpu_seconds_kept:increase1d") == {frozenset(): 900}


def test_utilisation_is_the_share_of_time_in_which_it_trained(watch):
    assert watch.figure("sweeprun:utilisation:ratio_increase1d") is None
    watch.told(running_seconds=300)
    assert watch.figure("sweeprun:utilisation:ratio_increase1d") == 1
    spent = PhaseSeconds(detect=10, drain=30, prepare=40, validation=35, queue=500, start=30, first_step=40)
    watch.told(first(**EVICTED), next_(StartReason.NEWEST_CHECKPOINT, seconds=spent))
    assert watch.figure("sweeprun:utilisation:ratio_increase1d") == (300 - 10 - 40) / (300 + 30 + 40 + 30)


def test_the_failure_rate_counts_the_programs_own_failures(watch):
    for cause in (Cause.APPLICATION, Cause.OOM_KILLED, Cause.EVICTION_API, Cause.COMPLETED, Cause.NEVER_STARTED):
        watch.told(first(**ended(cause)))
    assert watch.figure("sweeprun:attempt_failure:ratio_increase1d") == 2 / 5
    assert watch.value("sweeprun:attempt_failure:ratio_increase1d")


def test_the_fallback_rate_is_of_attempts_after_the_first(watch):
    watch.told(first())
    assert watch.figure("sweeprun:fallback:ratio_increase1d") is None
    watch.told(first(**EVICTED), next_(StartReason.ALL_REFUSED, Outcome.RESTART))
    for reason in (StartReason.WALKED_BACK, StartReason.NEWEST_CHECKPOINT):
        watch.told(first(**EVICTED), next_(reason))
    watch.told(first(**EVICTED), next_(StartReason.NOTHING_COMMITTED, Outcome.RESTART))
    assert watch.figure("sweeprun:fallback:ratio_increase1d") == 1 / 4
