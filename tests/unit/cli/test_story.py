"""`why` and `history`: what a status says in plain words, in every state."""

from __future__ import annotations

from datetime import datetime

import pytest

from support.shown import (
    HOSTILE,
    NOW,
    harmless,
    printed,
    running_attempt,
    shown_attempt,
    shown_condition,
    shown_run,
    shown_status,
    text_of,
)
from sweeprun_cli import history
from sweeprun_cli.cluster.runs import Row, Run
from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.why.command import render
from sweeprun_cli.why.story import Story
from sweeprun_operator.api.status import State

THEN = datetime.fromisoformat(NOW)


def story(**status):
    return Story.of(Run.of(shown_run(status=shown_status(**status))), THEN)


def test_the_latest_interruption_is_told_with_its_evidence():
    ending = story().ending
    assert ending is not None
    assert (ending.attempt, ending.cause, ending.node, ending.to_step) == (0, "EvictionAPI", "gpu-7", 740)
    assert "EvictionByEvictionAPI" in ending.evidence
    assert ending.kind.startswith("Disruption")
    shown = text_of(render(story()))
    assert "Evidence: DisruptionTarget" in shown
    assert "reached step 740" in shown


def test_what_its_pods_showed_is_told_after_they_are_gone():
    pod = {"name": "run-a0-worker-0", "node": "gpu-7", "phase": "Failed", "reason": "Evicted", "deleting": True}
    ended = {**pod, "container": "main", "exitCode": 137, "containerReason": "OOMKilled"}
    forced = {"time": NOW, "pods": ["run-a0-worker-0"], "nodes": ["gpu-7"]}
    ending = story(history=[shown_attempt(pods=[ended], forced=forced), running_attempt()]).ending
    assert ending is not None
    assert ending.pods == (
        "run-a0-worker-0 on gpu-7: Failed, Evicted, being deleted, container main ended with exit code 137 (OOMKilled)",
        "Deleted by force, so that nobody knows whether its processes on gpu-7 have ended.",
    )
    assert "exit code 137" in text_of(render(story(history=[shown_attempt(pods=[ended])])))


def test_a_node_that_is_avoided_is_named_until_it_is_not():
    node = {"node": "gpu-7", "losses": 2, "reason": "attempt 0: NodeGone", "until": "2026-01-02T09:00:00Z"}
    assert story(avoidedNodes=[node]).next[-1].startswith("Node gpu-7 is avoided until 2026-01-02 09:00:00 UTC")
    over = {**node, "until": "2026-01-02T03:00:00Z"}
    assert not [line for line in story(avoidedNodes=[over]).next if "avoided" in line]


def test_a_run_that_was_never_interrupted_says_so():
    told = story(history=[running_attempt(0, fromStep=None)])
    assert told.ending is None
    assert "No attempt of it has ended" in text_of(render(told))


@pytest.mark.parametrize("state", list(State))
def test_every_state_says_what_comes_next(state):
    assert all(line.strip() for line in story(state=str(state)).next)
    assert story(state=str(state)).next


def test_backoff_says_until_when_and_what_then():
    (line,) = story(
        state="Backoff",
        current={"outcome": "Resume", "reason": "NewestCheckpoint", "notBefore": "2026-01-02T03:31:40Z"},
    ).next
    assert line == "Attempt 1 goes on from the checkpoint in 40 s (at 2026-01-02 03:31:40 UTC)."


def test_a_wait_for_the_next_prepare_says_how_many_gave_no_answer():
    (line,) = story(state="Backoff", current={"prepareFailures": 2}).next
    assert "2 prepare(s)" in line


def test_a_start_says_how_long_it_may_take():
    (line,) = story(state="Starting", current={"admittedTime": NOW}).next
    assert "within 30 min" in line


def test_a_queued_start_says_that_no_limit_runs():
    conditions = [shown_condition("Suspended", reason="Queued", message="a queue has not admitted the job")]
    (line,) = story(state="Starting", conditions=conditions).next
    assert "queue" in line
    assert "No limit" in line


def test_a_stuck_run_says_what_an_administrator_can_do():
    told = story(
        state="Draining", conditions=[shown_condition("Stuck", reason="NodeUnreachable", message="node gpu-7")]
    )
    assert "NodeUnreachable" in told.next[0]
    assert "gpu-7" in told.next[0]
    assert "out-of-service" in told.todo[0]


def test_a_failed_run_says_how_it_goes_on():
    told = story(
        state="Finished", conditions=[shown_condition("Failed", reason="MaxFailuresExceeded", message="4 failures")]
    )
    assert "4 failures" in told.next[0]
    assert "sweeprun retry digits-lr-0" in told.todo[0]


def test_a_complete_run_asks_for_nothing():
    told = story(state="Finished", conditions=[shown_condition("Complete")], result={"step": 1000})
    assert told.next == ("Nothing: the run is complete at step 1000.",)
    assert told.todo == ()


def test_a_spec_that_is_not_accepted_says_that_nothing_starts():
    refused = [shown_condition("Accepted", "False", reason="ClaimMissing", message="claim sweeps is not there")]
    told = Story.of(Run.of(shown_run(status={"conditions": refused})), THEN)
    assert "claim sweeps is not there" in told.next[0]
    assert told.todo == ("Create it: the run is looked at again by itself.",)


def test_a_run_that_nobody_has_looked_at_asks_for_the_operator():
    assert "operator" in Story.of(Run.of(shown_run(status={})), THEN).next[0]


def test_an_end_in_doubt_is_said_to_be_in_doubt():
    assert "not clear yet" in story(current={"doubt": {"since": NOW}}).next[0]


def test_every_rank_ended_well_is_no_completion_before_prepare_has_judged():
    ended = {"cause": "Completed", "evidence": "all ended with 0", "time": NOW}
    told = story(state="Preparing", current={"interruption": ended})
    assert told.ending is not None
    assert told.ending.kind == "not judged yet"


def test_budgets_show_what_is_used_up():
    assert story(sinceProgress={"failures": 2}).budgets == (
        "failures since the last progress: 2 of 3 allowed",
        "disruptions: 1, no limit",
    )


@pytest.mark.parametrize("wide", [False, True])
def test_hostile_texts_of_a_status_move_no_terminal(wide):
    refused = [{"path": HOSTILE, "reason": "CrcMismatch", "message": HOSTILE, "entry": HOSTILE}]
    hostile = shown_status(
        phase=HOSTILE[:32],
        runId=HOSTILE,
        history=[shown_attempt(evidence=HOSTILE, node=HOSTILE, refused=refused)],
        conditions=[shown_condition("Stuck", message=HOSTILE)],
    )
    run = Run.of(shown_run(status=hostile))
    for shown in (render(Story.of(run, THEN)), history.render(run, wide=wide)):
        assert harmless(text_of(shown))
        assert "\x1b]" not in printed(shown)
        assert "\x1b[2J" not in printed(shown)
        assert "evil" in text_of(shown)


def test_history_lists_attempts_and_what_recovery_cost():
    shown = text_of(history.render(Run.of(shown_run()), wide=True))
    assert "EvictionAPI" in shown
    assert "gpu-7" in shown
    assert "12 s" in shown  # drain
    assert "40 s" in shown  # detect, drain, prepare, queue and start; validation is a part of prepare
    assert "2 attempts, 1 resumed" in shown


def test_history_says_when_it_is_not_all():
    counts = {"attempts": 12, "resumes": 11}
    assert "of 12 attempts" in text_of(
        history.render(Run.of(shown_run(status=shown_status(counts=counts))), wide=False)
    )


def test_history_lists_what_was_refused():
    refused = [{"path": "checkpoints/step-740", "reason": "CrcMismatch", "message": "byte 7", "entry": "data/0"}]
    status = shown_status(history=[shown_attempt(), running_attempt(refused=refused)])
    shown = text_of(history.render(Run.of(shown_run(status=status)), wide=False))
    assert "Refused checkpoints" in shown
    assert "CrcMismatch" in shown


def test_history_without_attempts_says_so():
    assert "No attempt" in text_of(history.render(Run.of(shown_run(status={})), wide=False))


def test_a_status_of_another_version_is_an_error_and_still_has_a_row():
    raw = shown_run(status=shown_status(history=[shown_attempt(cause="Teleported")]))
    with pytest.raises(CommandError, match=r"status.history.0.cause") as raised:
        Run.of(raw)
    assert raised.value.code is Exit.UNREADABLE
    assert Row.of(raw).step == 720


@pytest.mark.parametrize("raw", [{}, {"metadata": 3, "status": []}, {"status": {"current": "x", "conditions": [1]}}])
def test_whatever_an_object_holds_it_has_a_row(raw):
    assert Row.of(raw).phase == "Pending"
