"""`check`: the start check of a container that its image starts by itself, which is all of ours that runs there."""

import signal

import pytest

from support.pod import sh, wait_until
from sweeprun_protocol.exit_codes import ExitCode


@pytest.fixture
def program(pyz):
    return pyz


def check(pod, **changes):
    return pod.run([], wrapper=[*pod.entrypoint, "check"], environ=pod.environ(**changes))


def test_it_takes_the_slot_and_says_that_nobody_will_record_its_end(pod, run):
    done = check(pod)
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    record = run.start_record()
    assert (record.pod_uid, record.unwrapped) == ("uid-master-0", True)
    assert run.end_record() is None


def test_with_an_entrypoint_the_record_says_nothing_of_the_kind(pod, run):
    assert pod.run(sh("exit 0")).code == 0
    assert run.start_record().unwrapped is False


def test_the_same_pod_may_check_again_and_another_may_not(pod, run):
    assert check(pod).code == 0
    assert check(pod).code == 0
    refused = check(pod, SWEEPRUN_POD_UID="another")
    assert refused.code == ExitCode.ATTEMPT_REUSED
    assert "already started as master-0" in refused.ours


def test_a_stale_epoch_a_lost_resume_point_and_a_wrong_environment_are_told_by_exit_code(pod, run):
    file = run.save(500)
    run.prepare()
    file.unlink()
    assert check(pod).code == ExitCode.RESUME_POINT_LOST
    run.claim(3)
    assert check(pod).code == ExitCode.STALE_EPOCH
    assert check(pod, SWEEPRUN_EPOCH=None).code == ExitCode.CONFIGURATION
    assert run.start_record() is None


def test_told_to_stop_while_it_waits_for_the_volume_it_goes(pod, run, tmp_path):
    environ = pod.environ(SWEEPRUN_RUN_DIR=str(tmp_path / "later"), SWEEPRUN_SETTLE_SECONDS="60")
    pod.start([], wrapper=[*pod.entrypoint, "check"], environ=environ)
    status = f"/proc/{pod.process.pid}/status"
    wait_until(lambda: _catches(status, signal.SIGTERM), "it listens to signals")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 128 + signal.SIGTERM


def _catches(status, number):
    with open(status) as file:
        mask = next(line.split()[1] for line in file if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_leader_with_an_entrypoint_does_not_wait_for_ends_that_nobody_records(new_pod, two):
    assert check(new_pod("worker-0", two)).code == 0
    assert new_pod("master-0", two).run(sh("exit 0")).code == 0  # else it would stay for two minutes
