"""What is left of an ended command: the end record, the termination message, and what prepare makes of them."""

import json
import signal

import pytest

from support.pod import python, sh
from sweeprun_protocol.reasons import Outcome, StartReason

POLITE = "trap 'exit 0' TERM; echo ready > ready; while :; do sleep 0.02; done"


def test_a_command_that_ends_well_completes_the_run(pod, run):
    assert pod.run(sh("exit 0")).code == 0
    end = run.end_record()
    assert (end.epoch, end.slot, end.pod_uid) == (1, "master-0", "uid-master-0")
    assert (end.exit_code, end.told_to_stop, end.completed) == (0, False, False)
    assert json.loads(pod.termination_log.read_bytes()) == end.to_dict()
    assert run.prepare().outcome is Outcome.COMPLETED


def test_a_stopped_command_that_exits_0_completes_nothing(pod, run):
    pod.start(sh(POLITE))
    pod.trace("ready")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 0
    end = run.end_record()
    assert (end.exit_code, end.told_to_stop) == (0, True)
    assert json.loads(pod.termination_log.read_bytes()) == end.to_dict()
    report = run.prepare()
    assert (report.outcome, report.reason) == (Outcome.RESTART, StartReason.NOTHING_COMMITTED)


@pytest.mark.parametrize("code", [1, 143])
def test_a_failed_command_leaves_the_message_to_the_logs_tail(pod, code):
    assert pod.run(sh(f"exit {code}")).code == code
    assert pod.termination_log.read_bytes() == b""


def test_a_stopped_command_that_fails_says_that_it_was_stopped(pod, run):
    pod.start(sh("echo ready > ready; while :; do sleep 0.02; done"))
    pod.trace("ready")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 143
    assert json.loads(pod.termination_log.read_bytes())["toldToStop"] is True
    assert run.end_record().told_to_stop is True


TOLD_LATE = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
from sweeprun_trainer import execute

def told_first(seconds, action, before=execute.within):
    os.kill(os.getpid(), signal.SIGTERM)
    return before(seconds, action)

execute.within = told_first
sys.exit(execute.execute(sys.argv[1:], os.environ))
"""


def test_a_signal_after_the_commands_end_says_nothing_of_how_it_ended(pod, run, unpacked):
    # between the two a listing of the volume may take its time
    assert pod.run(sh("exit 0"), wrapper=[*python(TOLD_LATE), str(unpacked)]).code == 0
    assert run.end_record().told_to_stop is False
