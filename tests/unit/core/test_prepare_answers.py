"""What prepare answers, or does not: how a run goes on, waits, starts over or fails. An answer is untrusted input."""

from __future__ import annotations

import pytest

from support.manifests import make_init
from support.observations import DIGEST, NOW, RUN_ID, make_checkpoint, make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionType, State
from sweeprun_operator.core.observation import OwnerState, Role
from sweeprun_operator.core.preparing import PENDING_SECONDS
from sweeprun_operator.core.report import FATAL
from sweeprun_protocol.prepare import Candidate
from sweeprun_protocol.reasons import AdoptionScope, BlockedReason, Outcome, RefusalReason, StartReason
from sweeprun_protocol.records import Refusal

# -- no answer ---------------------------------------------------------------------------------------------------------

PROBLEMS = {
    "evicted": "its pod was disrupted: EvictionByEvictionAPI",
    "out of memory": "container sweeprun-prepare ended with 137 (OOMKilled)",
    "timed out or pending for too long": "DeadlineExceeded: Job was active longer than specified deadline",
    "unreadable": "the answer cannot be read: prepare's report is no JSON",
    "over quota": 'FailedCreate: pods "digits-lr-0-p1-x" is forbidden: exceeded quota',
    "silent": "the pod ended with 0, but gave no answer",
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_prepare_without_an_answer_is_never_taken_for_no_checkpoint(problem):
    world = World().begin().later(30).interrupt()
    checkpoint = world.status.checkpoint
    for failures, seconds in enumerate((10, 20, 40), start=1):
        world.fail_job(problem)
        assert world.current.state is State.BACKOFF
        assert world.wants_again == seconds
        assert world.current.prepare_failures == failures
        assert world.created[-1] == f"digits-lr-0-p{failures}"
        assert world.status.checkpoint == checkpoint
        assert world.is_stuck() == (None if failures < 3 else "PrepareFailing")
        world.when_wanted()
        assert world.created[-1] == f"digits-lr-0-p{failures + 1}"
    assert problem in world.condition(ConditionType.STUCK).message
    assert world.status.counts.attempts == 1
    world.answer(make_resume(4, 500))
    assert world.is_stuck() is None
    assert world.status.counts.failures == 0
    assert world.current.prepare_failures == 0
    assert "digits-lr-0-a1" in world.created


def test_the_first_prepare_without_an_answer_is_tried_again_too():
    world = World().settle().fail_job()
    world.when_wanted().answer(make_report(1, Outcome.FRESH))
    assert world.created == ["digits-lr-0-p0", "digits-lr-0-p1", "digits-lr-0-a0"]


def test_the_wait_between_prepares_has_a_cap():
    world = World().settle()
    for _ in range(12):
        world.fail_job()
        seconds = world.wants_again
        world.when_wanted()
    assert seconds == 600


def test_a_pod_of_prepare_that_cannot_start_is_told_before_its_deadline():
    world = World().settle().complain("its pod is not scheduled: 0/3 nodes are available")
    assert world.is_stuck() is None
    world.later(PENDING_SECONDS)
    assert world.is_stuck() == "PreparePending"
    assert "0/3 nodes are available" in world.condition(ConditionType.STUCK).message
    world.answer(make_report(0, Outcome.FRESH))
    assert world.is_stuck() is None


@pytest.mark.parametrize("outcome", [Outcome.INIT_REQUIRED, Outcome.CANDIDATES])
def test_an_answer_that_asks_for_more_ends_the_complaint(outcome):
    world = World(init=make_init()).settle().complain("its pod is not scheduled: no room").later(PENDING_SECONDS)
    assert world.is_stuck() == "PreparePending"
    world.answer(make_report(0, outcome))
    assert world.is_stuck() is None


def test_a_prepare_job_that_vanished_is_made_again_under_its_number():
    world = World().begin().interrupt()
    world.jobs.clear()
    world.settle()
    assert list(world.jobs) == ["digits-lr-0-p1"]
    assert world.current.prepare == 1
    assert world.status.counts.attempts == 1


# -- answers that cannot be used ---------------------------------------------------------------------------------------

UNUSABLE = {
    "Resume without a checkpoint": make_report(1, Outcome.RESUME),
    "Restart with a checkpoint": make_report(1, Outcome.RESTART, checkpoint=make_checkpoint(5)),
    "Fresh without a run ID": make_report(1, Outcome.FRESH, run_id=None),
    "Fresh without a volume ID": make_report(1, Outcome.FRESH, volume_id=None),
    "Resume without a reason": make_resume(1, 500, reason=None),
    "Resume of an epoch that was decided before": make_resume(1, 500, epoch=1),
    "Resume without an epoch": make_resume(1, 500, epoch=0),
    "Blocked without a reason": make_report(1, Outcome.BLOCKED),
    "InitRequired where there is no sweep_init": make_report(1, Outcome.INIT_REQUIRED),
    "Candidates for a run that has its ID": make_report(1, Outcome.CANDIDATES),
    "Superseded": make_report(1, Outcome.SUPERSEDED),
}


@pytest.mark.parametrize("report", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_answer_that_cannot_be_used_is_no_answer(report):
    world = World().begin().interrupt()
    before = (world.status.counts, world.status.history, world.status.run_id, world.status.checkpoint)
    world.answer(report)
    assert world.current.state is State.BACKOFF
    assert world.current.prepare_failures == 1
    assert (world.status.counts, world.status.history, world.status.run_id, world.status.checkpoint) == before
    world.when_wanted()
    assert world.created[-1] == "digits-lr-0-p2"


def test_another_run_than_the_one_that_was_named_is_no_answer():
    world = World(runId="mine").settle().answer(make_report(0, Outcome.FRESH, run_id="yours"))
    assert world.status.run_id is None
    assert world.current.prepare_failures == 1


def test_sweep_init_that_is_asked_for_once_more_is_no_answer():
    world = World(init=make_init()).settle().answer(make_report(0, Outcome.INIT_REQUIRED))
    world.answer(make_report(0, Outcome.INIT_REQUIRED), role=Role.INIT)
    assert world.current.state is State.BACKOFF
    assert world.current.prepare_failures == 1


# -- Blocked -----------------------------------------------------------------------------------------------------------


def blocked(reason: BlockedReason, number: int = 1):
    return make_report(number, Outcome.BLOCKED, blocked=reason, message="as the volume shows")


@pytest.mark.parametrize("reason", sorted(set(BlockedReason) - FATAL - {BlockedReason.ADOPTION_LOST}, key=str))
def test_a_blocked_run_says_so_and_goes_on_when_it_can(reason):
    world = World().begin().interrupt().answer(blocked(reason))
    assert world.is_stuck() == str(reason)
    assert world.condition(ConditionType.STUCK).message == "as the volume shows"
    assert world.reasons()[-1] == "Blocked"
    assert world.status.phase == "Stuck"
    world.when_wanted()
    assert world.is_stuck() == str(reason), "until an answer says otherwise"
    world.answer(blocked(reason, number=2))
    assert world.reasons().count("Blocked") == 1, "told once"
    world.when_wanted().answer(make_resume(3, 500))
    assert world.is_stuck() is None
    assert "digits-lr-0-a1" in world.created
    assert world.status.counts.attempts == 2


@pytest.mark.parametrize("reason", sorted(FATAL, key=str))
def test_what_waiting_does_not_change_fails_the_run_until_a_retry(reason):
    world = World().begin().interrupt().answer(blocked(reason))
    assert world.failure() == str(reason)
    assert world.later(10**6).created[-1] == "digits-lr-0-p1"
    world.edit(request={"id": "1", "action": "Retry"})
    assert world.failure() is None
    assert world.created[-1] == "digits-lr-0-p2"


def test_no_valid_checkpoint_fails_the_run_with_what_was_refused():
    refused = (Refusal(path="checkpoints/a", reason=RefusalReason.DIGEST_MISMATCH, message="damaged"),)
    answer = make_report(
        1, Outcome.BLOCKED, blocked=BlockedReason.NO_VALID_CHECKPOINT, refused=refused, refused_count=1
    )
    world = World().begin().interrupt().answer(answer)
    assert world.failure() == "NoValidCheckpoint"
    assert "CheckpointRefused" in world.reasons()
    assert "checkpoints/a: DigestMismatch: damaged" in [event.message for event in world.events]


# -- starting over -----------------------------------------------------------------------------------------------------


def test_a_fresh_start_is_told_everywhere():
    world = World().begin().interrupt()
    world.answer(make_report(1, Outcome.FRESH, run_id="digits-lr.r.2", epoch=1, reason=StartReason.ALL_REFUSED))
    status = world.status
    assert status.run_id == "digits-lr.r.2"
    assert [(left.run_id, left.reason) for left in status.previous_run_ids] == [(RUN_ID, StartReason.ALL_REFUSED)]
    assert (status.counts.fresh_starts, status.counts.attempts) == (1, 2)
    assert (status.history[1].outcome, status.history[1].reason) == (Outcome.FRESH, StartReason.ALL_REFUSED)
    assert status.checkpoint is None
    assert "FreshStart" in world.reasons()
    assert [str(event.type) for event in world.events if event.reason == "FreshStart"] == ["Warning"]


def test_the_first_start_is_no_fresh_start():
    world = World().begin()
    assert world.status.counts.fresh_starts == 0
    assert world.status.previous_run_ids == []
    assert world.reasons()[0] == "Started"


def test_the_newest_five_runs_left_behind_are_kept():
    world = World().begin()
    for number in range(1, 8):
        world.interrupt()
        fresh = make_report(number, Outcome.FRESH, run_id=f"r.{number}", epoch=1, reason=StartReason.ALL_REFUSED)
        world.go_on(fresh)
    assert [left.run_id for left in world.status.previous_run_ids] == ["r.2", "r.3", "r.4", "r.5", "r.6"]
    assert world.status.counts.fresh_starts == 7


def test_a_restart_keeps_the_run_and_forgets_its_checkpoint():
    world = World(resume={"onNoValidCheckpoint": "RestartRun"}).begin().interrupt().go_on(make_resume(1, 500))
    restart = make_report(2, Outcome.RESTART, reason=StartReason.ALL_REFUSED, wandb_run_id="linked")
    world.interrupt().later(1).answer(restart)
    status = world.status
    assert status.run_id == RUN_ID
    assert status.previous_run_ids == []
    assert (status.counts.restarts, status.counts.fresh_starts) == (1, 0)
    assert status.checkpoint is None
    assert status.wandb_run_id == "linked"
    assert "Restarted" in world.reasons()


def test_the_pinned_checkpoint_stands_in_the_status_and_is_told_to_the_next_prepare():
    world = World().begin().interrupt().go_on(make_resume(1, 500))
    pinned = world.status.checkpoint
    assert (pinned.step, pinned.epoch, pinned.digest) == (500, 1, DIGEST)
    world.interrupt()
    asked = world.request_of(2)
    assert asked.pinned == make_checkpoint(500)
    assert (asked.known_epoch, asked.volume_id, asked.run_id, asked.started) == (2, "volume-1", RUN_ID, True)


def test_history_keeps_the_newest_ten_attempts():
    world = World().begin()
    for number in range(1, 13):
        world.interrupt().go_on(make_resume(number, 100 * number))
    assert [entry.attempt for entry in world.status.history] == list(range(3, 13))
    assert world.status.counts.attempts == 13


# -- resume.policy -----------------------------------------------------------------------------------------------------

POLICIES = [
    ("Always", "interrupt", True),
    ("Always", "break_down", True),
    ("OnDisruption", "interrupt", True),
    ("OnDisruption", "break_down", False),
    ("Never", "interrupt", False),
    ("Never", "break_down", False),
]


@pytest.mark.parametrize(("policy", "end", "resume"), POLICIES)
def test_the_policy_says_whether_prepare_may_resume(policy, end, resume):
    world = World(resume={"policy": policy}).begin()
    getattr(world, end)()
    assert world.request_of(1).resume is resume


def test_on_disruption_a_seeming_completion_that_is_none_is_the_programs_failure():
    world = World(resume={"policy": "OnDisruption"}).begin().end_pods(0).pods_go()
    assert world.request_of(1).resume is False


def test_a_step_that_was_asked_for_outweighs_the_policy():
    world = World(resume={"policy": "Never"}).begin().interrupt().fail_job()
    world.edit(request={"id": "1", "action": "Retry", "fromStep": 300})
    assert (world.request_of(2).resume, world.request_of(2).from_step) == (True, 300)


# -- adoption ----------------------------------------------------------------------------------------------------------


def candidate(run_id: str, epoch: int = 3) -> Candidate:
    return Candidate(run_id=run_id, epoch=epoch, owner=None, idle_seconds=10_000)


def offered(number: int, *run_ids: str):
    return make_report(number, Outcome.CANDIDATES, candidates=tuple(candidate(run_id) for run_id in run_ids))


def test_the_first_candidate_whose_owner_is_gone_is_taken():
    world = World(resume={"adoption": {"scope": "Sweep"}})
    world.owners = {"a": OwnerState.ALIVE, "b": OwnerState.GONE, "c": OwnerState.GONE}
    world.settle()
    assert world.request_of(0).adoption.take is None
    world.answer(offered(0, "a", "b", "c"))
    assert (world.request_of(1).adoption.take, world.request_of(1).adoption.take_epoch) == ("b", 3)
    world.answer(make_resume(1, 500, run_id="b", epoch=4, adopted=True))
    assert world.status.run_id == "b"
    assert world.status.counts.fresh_starts == 0
    assert "Adopted" in world.reasons()
    world.start_pods().interrupt()
    assert world.request_of(2).adoption.scope is AdoptionScope.NONE


def test_without_a_candidate_whose_owner_is_gone_the_run_is_a_new_one():
    world = World(resume={"adoption": {"scope": "Sweep"}}).settle().answer(offered(0, "a"))
    assert world.request_of(1).adoption.scope is AdoptionScope.NONE
    world.answer(make_report(1, Outcome.FRESH))
    assert "digits-lr-0-a0" in world.created


def test_a_candidate_whose_owner_still_ends_is_waited_for():
    world = World(resume={"adoption": {"scope": "Sweep"}})
    world.owners = {"a": OwnerState.ALIVE, "b": OwnerState.ENDING}
    world.settle().answer(offered(0, "a", "b"))
    assert world.created == ["digits-lr-0-p0"]
    assert world.wants_again == 5
    assert world.is_stuck() is None
    world.later(121).settle()
    assert world.is_stuck() == "OwnerEnding"
    world.owners = {"a": OwnerState.ALIVE, "b": OwnerState.GONE}
    world.when_wanted()
    assert world.request_of(1).adoption.take == "b"
    assert world.is_stuck() is None


def test_a_candidate_whose_owner_is_gone_is_taken_before_one_whose_owner_still_ends():
    world = World(resume={"adoption": {"scope": "Sweep"}})
    world.owners = {"a": OwnerState.ENDING, "b": OwnerState.GONE}
    world.settle().answer(offered(0, "a", "b"))
    assert world.request_of(1).adoption.take == "b"


def lose(world, number):
    """Another SweepRun is faster; gives how long this one waits."""
    world.answer(offered(number, "a")).answer(blocked(BlockedReason.ADOPTION_LOST, number + 1))
    waits = world.wants_again
    world.when_wanted()
    return waits


def test_a_candidate_that_moved_is_looked_for_anew_after_a_while():
    world = World(resume={"adoption": {"scope": "Sweep"}}, limits={"backoff": {"initialSeconds": 10, "maxSeconds": 30}})
    world.owners = {"a": OwnerState.GONE}
    world.settle()
    assert [lose(world, number) for number in (0, 2, 4, 6)] == [10, 20, 30, 30]
    assert world.reasons().count("AdoptionLost") == 4
    asked = world.request_of(8).adoption
    assert (asked.scope, asked.take) == (AdoptionScope.SWEEP, None)
    assert world.is_stuck() is None


def test_candidates_that_were_not_asked_for_are_no_answer():
    world = World(resume={"adoption": {"scope": "Sweep"}}).settle().answer(offered(0, "a"))
    world.answer(offered(1, "a"))
    assert world.current.prepare_failures == 1


def test_a_named_run_waits_until_its_owner_is_gone():
    world = World(runId="mine").settle().answer(offered(0, "mine"))
    assert world.is_stuck() == "OwnerNotGone"
    world.when_wanted()
    world.owners = {"mine": OwnerState.GONE}
    world.answer(offered(1, "mine"))
    assert world.request_of(2).adoption.take == "mine"
    world.answer(make_resume(2, 500, run_id="mine"))
    assert world.is_stuck() is None


def test_everything_is_decided_at_the_time_of_the_observation():
    world = World().begin()
    assert world.status.history[0].start_time >= NOW
