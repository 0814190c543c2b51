"""A command that makes no progress is ended, with a code of its own; one that does is left alone."""

import signal

import pytest

from support.pod import alive, python, sh, wait_until
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_trainer.channel import PROGRESS_SOCKET

HANGS = "echo ready > ready; while :; do sleep 0.02; done"
POLITE = f"trap 'echo saved > saved; exit 0' TERM; {HANGS}"
STUBBORN = f"trap 'echo asked > asked' TERM; {HANGS}"


def with_limit(pod, seconds="1", **more):
    return pod.environ(SWEEPRUN_STALL_SECONDS=seconds, **more)


def test_a_command_that_hangs_is_asked_to_end_and_its_good_exit_counts_for_nothing(pod, run):
    done = pod.run(sh(POLITE), environ=with_limit(pod))
    assert done.code == ExitCode.STALLED
    assert pod.trace("saved") == "saved"
    assert "no progress for 1 s" in done.ours
    assert "no step was seen" in done.ours
    record = run.end_record()
    assert (record.exit_code, record.told_to_stop) == (ExitCode.STALLED, False)
    assert pod.termination_log.read_text() == ""  # the log's tail becomes the evidence
    assert run.prepare().outcome != "Completed"


def test_one_that_does_not_listen_is_killed_after_the_grace_with_all_that_it_started(pod, run):
    text = f"sleep 600 & echo $! > child; {STUBBORN}"
    done = pod.run(sh(text), environ=with_limit(pod, SWEEPRUN_GRACE_SECONDS="1"))
    assert done.code == ExitCode.STALLED
    assert pod.trace("asked") == "asked"
    child = int(pod.trace("child"))
    wait_until(lambda: not alive(child), "what it started ends", seconds=2)


def test_without_a_limit_a_command_may_be_silent(pod):
    assert pod.run(sh("sleep 1.5; exit 4")).code == 4


REPORTS = f"""
import os, socket, time
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for step in range(12):
    out.sendto(b'{{"step": %d}}' % step, chr(0) + os.environ["{PROGRESS_SOCKET}"])
    time.sleep(0.2)
raise SystemExit(4)
"""
SAVES = """
import os, time
os.makedirs(os.environ["SWEEPRUN_CHECKPOINT_DIR"], exist_ok=True)
for number in range(12):
    with open(os.path.join(os.environ["SWEEPRUN_CHECKPOINT_DIR"], "last.pt"), "ab") as file:
        file.write(b"more")
    time.sleep(0.2)
raise SystemExit(4)
"""


@pytest.mark.parametrize("text", [REPORTS, SAVES], ids=["reports", "one file, written again"])
def test_a_command_that_gets_on_is_left_alone_however_long_it_takes(pod, text):
    assert pod.run(python(text), environ=with_limit(pod)).code == 4  # 2.4 s, more than twice the limit


def test_told_to_stop_it_has_its_grace_and_not_the_stall_limit(pod, run):
    leaving = "trap 'sleep 1.5; exit 5' TERM; echo ready > ready; while :; do sleep 0.02; done"
    pod.start(sh(leaving), environ=with_limit(pod))
    pod.trace("ready")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 5
    assert run.end_record().told_to_stop is True


def test_a_limit_that_is_none_starts_nothing(pod):
    done = pod.run(sh("exit 0"), environ=with_limit(pod, "soon"))
    assert done.code == ExitCode.CONFIGURATION
    assert "SWEEPRUN_STALL_SECONDS" in done.ours
