"""After the start everything of ours fails open: the command runs on and its exit code is kept."""

import os
import socket

import pytest

from support.pod import sh, wait_until
from support.ports import free_port

UNTIL_GO = "echo ready > ready; until [ -e go ]; do sleep 0.02; done; exit 7"


@pytest.fixture
def program(pyz):
    return pyz


def go(pod):
    (pod.directory / "go").touch()
    return pod.end()


def in_place_of(directory):
    """Nothing below it can be read or written any more, whoever asks."""
    directory.rename(directory.with_name(f"{directory.name}.away"))
    directory.write_text("a file in the place of a directory")


def test_a_checkpoint_directory_that_cannot_be_read_is_told_once(pod, run):
    run.checkpoints.write_text("a file in the place of a directory")
    done = pod.run(sh("sleep 0.6; exit 7"))  # a few looks, at the fence as well
    assert done.code == 7
    assert done.ours.count("checkpoints cannot be seen") == 1
    assert run.end_record().exit_code == 7


def test_claims_that_cannot_be_read_during_training_are_told_and_survived(pod, run):
    log = pod.directory / "log"
    with log.open("w") as stderr:
        pod.start(sh(UNTIL_GO), stderr=stderr)
    pod.trace("ready")
    in_place_of(run.path / "claims")
    wait_until(lambda: "claims cannot be seen" in log.read_text(), "it is told")
    assert go(pod).code == 7
    assert run.end_record().exit_code == 7


def test_a_port_that_is_taken_costs_the_numbers_only(pod):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pod.port = taken.getsockname()[1]
        done = pod.run(sh("exit 7"))
    assert done.code == 7
    assert f"port {pod.port} cannot be served" in done.ours


def test_a_run_directory_that_is_gone_costs_the_end_record_and_no_more_time_than_it_may_take(pod, run):
    pod.start(sh(UNTIL_GO))
    pod.trace("ready")
    in_place_of(run.path)
    done = go(pod)
    assert done.code == 7
    assert "the end of master-0 could not be recorded" in done.ours


def test_a_run_directory_that_was_away_for_a_while_costs_nothing(pod, run):
    log = pod.directory / "log"
    with log.open("w") as stderr:
        pod.start(sh(UNTIL_GO), stderr=stderr)
    pod.trace("ready")
    away = run.path.with_name("away")
    run.path.rename(away)
    run.path.write_text("a file in the place of a directory")
    wait_until(lambda: "claims cannot be seen" in log.read_text(), "it is told")
    run.path.unlink()
    away.rename(run.path)
    assert go(pod).code == 7
    assert run.end_record().exit_code == 7
    assert log.read_text().count("checkpoints cannot be seen") == 1


def test_an_end_that_somebody_else_has_recorded_is_left_as_it_is(pod, run):
    pod.start(sh(UNTIL_GO))
    pod.trace("ready")
    run.end("master-0")
    done = go(pod)
    assert done.code == 7
    assert "another process has ended in this slot before" in done.ours
    assert run.end_record().exit_code == 0


def test_a_termination_message_that_cannot_be_written_is_told_and_survived(pod):
    done = pod.run(sh("exit 0"), environ=pod.environ(SWEEPRUN_TERMINATION_LOG=str(pod.directory)))
    assert done.code == 0
    assert "termination message could not be written" in done.ours


def test_a_log_that_nobody_reads_any_more_changes_no_exit_code(pod):
    reading, writing = os.pipe()
    os.close(reading)
    pod.start(["/nonexistent"], stderr=writing)
    os.close(writing)
    assert pod.end().code == 127


def test_closed_streams_change_no_exit_code_and_no_file(pod, run):
    closed = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *pod.entrypoint, "exec", "--"]
    assert pod.run(["/nonexistent"], wrapper=closed).code == 127
    assert run.end_record().exit_code == 127
    assert b"sweeprun: " not in b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())


def test_nothing_outside_the_standard_library_is_needed(pod, run):
    pod.port = free_port()
    run.commit(5)
    run.prepare()
    assert pod.entrypoint[1:3] == ["-I", "-S"]  # no site-packages, nothing of the environment
    assert pod.run(sh("exit 0")).code == 0


def test_a_hanging_volume_does_not_keep_the_pod(pod, run):
    fifo = run.path / "epochs" / "1" / "end-master-0.json"
    fifo.parent.mkdir(exist_ok=True)
    os.mkfifo(fifo)
    done = pod.run(sh("exit 7"))
    assert done.code == 7
    assert "could not be recorded" in done.ours
