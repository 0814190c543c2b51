"""The leader's exit makes training-operator stop the others: it stays until their ends show, and no longer."""

import signal
import subprocess
import time

import pytest

from support.pod import sh, wait_until

POLITE = "trap 'exit 0' TERM; echo ready > ready; while :; do sleep 0.02; done"


@pytest.mark.parametrize("code", [0, 3])
def test_the_leader_stays_until_every_other_slot_has_ended(new_pod, two, code):
    pod = new_pod("master-0", two).start(sh(f"exit {code}"))
    pod.ended_command()
    assert stays(pod)
    two.end("worker-0")
    assert pod.end().code == code


def stays(pod):
    """Still there after a time in which a process that has nothing to wait for is gone."""
    try:
        pod.process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return True
    return False


def test_a_leader_that_is_told_to_go_while_it_waits_goes(new_pod, two):
    pod = new_pod("master-0", two).start(sh("exit 0"))
    pod.ended_command()
    pod.send(signal.SIGTERM)
    assert pod.end(seconds=5).code == 0


def test_a_leader_that_was_told_to_stop_goes_when_told_again(new_pod, two):
    environ = new_pod("master-0", two).environ(SWEEPRUN_GRACE_SECONDS="60")
    pod = new_pod("master-0", two).start(sh(POLITE), environ=environ)
    pod.trace("ready")
    pod.send(signal.SIGTERM)
    pod.ended_command()
    pod.send(signal.SIGTERM)
    assert pod.end(seconds=5).code == 0
    assert two.end_record().told_to_stop is True


def test_a_failed_leader_waits_no_longer_than_half_of_the_grace(new_pod, two):
    pod = new_pod("master-0", two).start(sh("exit 3"))
    pod.ended_command()
    began = time.monotonic()
    assert pod.end(seconds=10).code == 3
    assert time.monotonic() - began < 4  # the grace is 4 s


def test_any_other_slot_leaves_at_once(new_pod, two):
    pod = new_pod("worker-0", two)
    assert pod.run(sh("exit 0")).code == 0
    assert two.end_record("worker-0").exit_code == 0


def test_without_a_master_the_first_worker_leads(new_pod, workers):
    pod = new_pod("worker-0", workers).start(sh("exit 0"))
    wait_until(lambda: workers.end_record("worker-0"), "its end is recorded")
    assert stays(pod)
    assert new_pod("worker-1", workers).run(sh("exit 0")).code == 0
    assert pod.end().code == 0


def test_a_leader_that_cannot_see_the_others_leaves(new_pod, two):
    pod = new_pod("master-0", two).start(sh("exit 0"))
    pod.ended_command()
    (two.path / "epochs").rename(two.path / "away")
    (two.path / "epochs").write_text("a file in the place of a directory")
    done = pod.end(seconds=5)
    assert done.code == 0
    assert "other slots' ends cannot be seen" in done.ours
