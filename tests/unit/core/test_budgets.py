"""When a run has had enough, how long it waits, and what counts as progress."""

from __future__ import annotations

from datetime import timedelta

import pytest

from support.observations import make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.spec import Backoff, Limits
from sweeprun_operator.api.status import ConditionType, Counts, Kind, SinceProgress, State, SweepRunStatus
from sweeprun_operator.core.budgets import backoff_seconds, prepare_backoff_seconds, spent
from sweeprun_operator.core.history import since_progress
from sweeprun_protocol.reasons import Outcome

REASONS = {
    "maxDisruptions": ("MaxDisruptionsExceeded", "disruptions"),
    "maxFailures": ("MaxFailuresExceeded", "failures"),
    "maxNeverStarted": ("MaxNeverStartedExceeded", "never_started"),
    "maxAttemptsWithoutProgress": ("MaxAttemptsWithoutProgressExceeded", "attempts"),
}
GENEROUS = {"maxFailures": 99, "maxNeverStarted": 99, "maxAttemptsWithoutProgress": 99}


def status_with(field: str, count: int) -> SweepRunStatus:
    """`count` of one kind; disruptions count over the whole run, the others since the last progress."""
    if field == "disruptions":
        return SweepRunStatus(counts=Counts(disruptions=count), since_progress=SinceProgress(disruptions=count))
    return SweepRunStatus(since_progress=SinceProgress(**{field: count}))


@pytest.mark.parametrize("limit", REASONS)
def test_a_limit_of_n_allows_n_ends_of_its_kind(limit):
    reason, field = REASONS[limit]
    limits = Limits.model_validate({**GENEROUS, limit: 2})
    assert spent(limits, status_with(field, 2)) is None
    found = spent(limits, status_with(field, 3))
    assert found.reason == reason
    assert f"limits.{limit} is 2" in found.message


@pytest.mark.parametrize("limit", REASONS)
@pytest.mark.parametrize("other", REASONS)
def test_each_budget_is_counted_apart(limit, other):
    limits = Limits.model_validate({**GENEROUS, limit: 2})
    found = spent(limits, status_with(REASONS[other][1], 50))
    assert (found is not None) == (limit == other)


def test_without_a_limit_disruptions_are_never_too_many():
    assert spent(Limits(), status_with("disruptions", 10_000)) is None


def test_the_deadline_is_the_sum_of_running_time():
    limits = Limits.model_validate({"activeDeadlineSeconds": 100})
    assert spent(limits, SweepRunStatus(running_seconds=99)) is None
    assert spent(limits, SweepRunStatus(running_seconds=100)).reason == "ActiveDeadlineExceeded"


@pytest.mark.parametrize(
    ("kind", "field", "seconds"),
    [
        (Kind.FAILURE, "failures", [10, 20, 40, 80, 100, 100]),
        (Kind.NEVER_STARTED, "never_started", [10, 20, 40, 80, 100, 100]),
        (Kind.DISRUPTION, "disruptions", [0, 10, 20, 40, 80, 100]),
        (Kind.NEUTRAL, "failures", [0, 0]),
        (None, "failures", [0, 0]),
    ],
)
def test_backoff_doubles_up_to_its_cap(kind, field, seconds):
    backoff = Backoff.model_validate({"initialSeconds": 10, "maxSeconds": 100})
    found = [backoff_seconds(backoff, kind, SinceProgress(**{field: count})) for count in range(1, len(seconds) + 1)]
    assert found == seconds


def test_backoff_of_very_many_ends_is_the_cap():
    assert backoff_seconds(Backoff(), Kind.FAILURE, SinceProgress(failures=10**9)) == 600


def test_prepares_without_an_answer_have_their_own_backoff():
    seconds = [prepare_backoff_seconds(Backoff(), count) for count in (1, 2, 3, 7, 8, 10**6)]
    assert seconds == [10, 20, 40, 600, 600, 600]


BEFORE = SinceProgress(disruptions=3, failures=2, never_started=4, attempts=1)


@pytest.mark.parametrize(
    ("kind", "flags", "after"),
    [
        (Kind.FAILURE, {}, SinceProgress(disruptions=3, failures=3, never_started=4, attempts=2)),
        (Kind.DISRUPTION, {}, SinceProgress(disruptions=4, failures=2, never_started=4, attempts=1)),
        (Kind.DISRUPTION, {"refused": True}, SinceProgress(disruptions=4, failures=2, never_started=4, attempts=2)),
        (Kind.NEVER_STARTED, {}, SinceProgress(disruptions=3, failures=2, never_started=5, attempts=1)),
        (Kind.NEUTRAL, {}, BEFORE),
        (Kind.FAILURE, {"progressed": True}, SinceProgress(failures=1)),
        (Kind.DISRUPTION, {"progressed": True}, SinceProgress(disruptions=1)),
        (Kind.NEUTRAL, {"progressed": True}, SinceProgress()),
    ],
)
def test_what_has_happened_since_the_last_progress(kind, flags, after):
    assert since_progress(BEFORE, kind, **{"progressed": False, "refused": False, **flags}) == after


# -- in the life of a run ----------------------------------------------------------------------------------------------


def failing(times: int, **limits: int) -> World:
    """Fails `times` times without any progress; the answer to the last end is still missing."""
    world = World(limits={**GENEROUS, **limits}).begin()
    for number in range(1, times):
        world.break_down().go_on(make_report(number, Outcome.RESTART))
    return world.break_down()


def test_a_spent_budget_fails_the_run_once_prepare_has_answered():
    world = failing(2, maxFailures=1)
    assert world.failure() is None
    assert "digits-lr-0-p2" in world.created
    world.answer(make_report(2, Outcome.RESTART))
    assert world.failure() == "MaxFailuresExceeded"
    assert "digits-lr-0-a2" not in world.created
    assert world.status.counts.failures == 2
    assert world.status.counts.attempts == 2


def test_a_completion_wins_over_a_spent_budget():
    world = failing(2, maxFailures=1).answer(make_report(2, Outcome.COMPLETED, step=1000))
    assert world.status.is_true(ConditionType.COMPLETE)
    assert world.failure() is None


def test_progress_gives_a_run_its_budgets_back():
    world = World(limits={"maxFailures": 1}).begin()
    for number in range(1, 6):
        world.break_down().go_on(make_resume(number, 100 * number))
        assert world.status.since_progress == SinceProgress(failures=1)
    assert world.status.counts.failures == 5
    assert world.failure() is None


def test_going_on_from_the_same_step_is_no_progress():
    world = World(limits={"maxFailures": 1}).begin()
    world.break_down().go_on(make_resume(1, 100))
    world.break_down().later(1).answer(make_resume(2, 100, last_step=190))
    assert world.failure() == "MaxFailuresExceeded"


def test_evictions_before_the_first_checkpoint_are_no_strikes():
    world = World(limits={"maxFailures": 1, "maxAttemptsWithoutProgress": 1}).begin()
    for number in range(1, 8):
        world.interrupt().go_on(make_report(number, Outcome.RESTART))
    assert world.status.since_progress == SinceProgress(disruptions=7)
    assert world.failure() is None


def test_attempts_that_write_nothing_but_refused_checkpoints_are_limited():
    world = World(limits={"maxAttemptsWithoutProgress": 2}).begin()
    for number in (1, 2):
        world.interrupt().go_on(make_report(number, Outcome.RESTART, refused_count=3))
    world.interrupt().later(1).answer(make_report(3, Outcome.RESTART, refused_count=3))
    assert world.failure() == "MaxAttemptsWithoutProgressExceeded"


def test_disruptions_are_limited_over_the_whole_run_where_somebody_says_so():
    world = World(limits={"maxDisruptions": 2}).begin()
    for number in (1, 2):
        world.interrupt().go_on(make_resume(number, 100 * number))
    world.interrupt().later(1).answer(make_resume(3, 300))
    assert world.failure() == "MaxDisruptionsExceeded"


def test_a_failed_attempt_is_followed_after_a_wait():
    world = failing(1).answer(make_report(1, Outcome.RESTART))
    assert world.current.state is State.BACKOFF
    assert world.wants_again == 10
    world.later(9)
    assert "digits-lr-0-a1" not in world.created
    world.later(1)
    assert "digits-lr-0-a1" in world.created


def test_the_first_eviction_costs_no_wait():
    world = World().begin().interrupt().answer(make_resume(1, 100))
    assert world.current.state is State.STARTING
    assert "digits-lr-0-a1" in world.created


def test_the_deadline_ends_the_attempt_in_its_time_and_then_the_run():
    world = World(limits={"activeDeadlineSeconds": 100}).begin()
    world.later(60).interrupt().go_on(make_resume(1, 500))
    assert world.wants_again == 40
    world.when_wanted()
    assert world.current.state is State.DRAINING
    assert world.status.history[1].cause == "DeadlineExceeded"
    world.pods_go().answer(make_resume(2, 600))
    assert world.failure() == "ActiveDeadlineExceeded"


def test_time_in_the_queue_is_no_running_time():
    world = World(limits={"activeDeadlineSeconds": 100})
    world.settle().answer(make_report(0, Outcome.FRESH))
    world.change_workload(suspended=True).later(10_000)
    world.change_workload(suspended=False).start_pods().later(50)
    assert world.current.state is State.RUNNING


# -- starting ----------------------------------------------------------------------------------------------------------


def starting(**limits: int) -> World:
    return World(limits=limits).settle().answer(make_report(0, Outcome.FRESH))


def test_an_attempt_whose_pods_do_not_all_run_in_time_never_started():
    world = starting(startTimeoutSeconds=300)
    world.later(299)
    assert world.current.state is State.STARTING
    world.later(1)
    assert world.status.history[0].cause == "NeverStarted"
    assert "0 of 2 pods ran within 300 s" in world.status.history[0].evidence
    assert (world.status.counts.never_started, world.status.counts.failures) == (1, 0)


@pytest.mark.parametrize("hours", [-3, 3])
def test_the_start_time_is_counted_by_one_clock(hours):
    world = World(limits={"startTimeoutSeconds": 300}).settle()
    world.server_ahead = timedelta(hours=hours)
    world.answer(make_report(0, Outcome.FRESH)).later(299)
    assert world.current.state is State.STARTING
    world.later(1)
    assert world.status.history[0].cause == "NeverStarted"


def test_the_start_time_stands_still_in_the_queue():
    world = starting(startTimeoutSeconds=300)
    world.change_workload(suspended=True).later(10_000)
    assert world.current.state is State.STARTING
    assert world.status.phase == "Queued"
    world.change_workload(suspended=False).later(299)
    assert world.current.state is State.STARTING
    world.later(1)
    assert world.status.history[0].cause == "NeverStarted"


def test_attempts_that_never_started_have_a_budget_of_their_own():
    world = starting(startTimeoutSeconds=300, maxNeverStarted=1, maxFailures=1)
    world.later(300).answer(make_report(1, Outcome.RESTART)).when_wanted()
    world.later(300).answer(make_report(2, Outcome.RESTART))
    assert world.failure() == "MaxNeverStartedExceeded"


def test_a_run_that_failed_by_a_budget_counts_its_last_end_once():
    world = failing(2, maxFailures=1).answer(make_resume(2, 0, last_step=7))
    savings, counts = world.status.savings, world.status.counts
    world.edit(request={"id": "1", "action": "Retry"}).later(1).answer(make_report(3, Outcome.RESTART))
    assert world.failure() is None
    assert world.status.since_progress == SinceProgress()
    assert world.status.savings == savings
    assert world.status.counts == counts.model_copy(
        update={"attempts": counts.attempts + 1, "restarts": counts.restarts + 1}
    )
