"""`retry`, `stop`, `suspend` and `resume` change a real object; the operator's answer is played."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.cluster import eventually
from support.shown import NOW, shown_condition, shown_status
from sweeprun_cli.exits import Exit


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as made:
        yield made


def request_of(shell):
    return shell.cluster.get("SweepRun", "digits-lr-0")["spec"].get("request")


def answered(shell, threads, message, *arguments):
    """The command's result, once the operator has said `message` about its request."""
    before = request_of(shell)
    asking = threads.submit(shell, *arguments, "--wait", "--timeout", "90")
    asked = eventually(lambda: (new := request_of(shell)) != before and new, "the request is there", timeout=60)
    last = {"id": asked["id"], "time": NOW, "message": message}
    shell.tell("digits-lr-0", shown_status(lastRequest=last))
    return asked, asking.result(timeout=120)


def test_retry_and_stop_ask_once_each_and_wait_for_the_answer(shell, threads):
    shell.make()
    asked, shown = answered(shell, threads, "Retry accepted from step 500", "retry", "digits-lr-0", "--from", "500")
    assert (asked["action"], asked["fromStep"]) == ("Retry", 500)
    assert shown.exit_code == 0, shown.output
    assert "Retry accepted from step 500" in shown.stdout
    refused, shown = answered(shell, threads, "Stop refused: the run has ended", "stop", "digits-lr-0")
    assert (refused["action"], "fromStep" in refused) == ("Stop", False)
    assert refused["id"] != asked["id"]
    assert shown.exit_code == Exit.REFUSED
    assert "the run has ended" in shown.stderr


def test_without_wait_it_asks_and_leaves(shell):
    shell.make()
    assert shell("stop", "digits-lr-0").exit_code == 0
    assert request_of(shell)["action"] == "Stop"
    assert shell("stop", "nobody").exit_code == Exit.NOT_FOUND


def test_an_operator_that_does_not_answer_is_waited_for_and_no_longer(shell):
    shell.make()
    shown = shell("retry", "digits-lr-0", "--wait", "--timeout", "1")
    assert shown.exit_code == Exit.TIMED_OUT
    assert request_of(shell)["action"] == "Retry"


def test_suspend_and_resume_change_the_spec_and_wait_for_what_follows(shell, threads):
    shell.make()

    def suspended():
        return shell.cluster.get("SweepRun", "digits-lr-0")["spec"]["suspend"]

    asking = threads.submit(shell, "suspend", "digits-lr-0", "--wait", "--timeout", "90")
    eventually(suspended, "spec.suspend is true", timeout=60)
    held = shown_condition("Suspended", reason="SuspendedBySpec", message="spec.suspend is true; nothing runs")
    shell.tell("digits-lr-0", shown_status(state="Held", conditions=[held]))
    shown = asking.result(timeout=120)
    assert shown.exit_code == 0, shown.output
    assert "nothing runs" in shown.stdout

    asking = threads.submit(shell, "resume", "digits-lr-0", "--wait", "--timeout", "90")
    eventually(lambda: not suspended(), "spec.suspend is false", timeout=60)
    generation = shell.cluster.get("SweepRun", "digits-lr-0")["metadata"]["generation"]
    over = shown_condition("Suspended", "False", reason="GoesOn")
    shell.tell("digits-lr-0", shown_status("Preparing", observedGeneration=generation, conditions=[over]))
    shown = asking.result(timeout=120)
    assert shown.exit_code == 0, shown.output
    assert "Preparing" in shown.stdout
