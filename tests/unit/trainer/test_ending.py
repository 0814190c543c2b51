"""The end of a slot: how long it is tried to record, how long a leader waits, and what does not cost the exit code."""

import errno
import os
import threading

import pytest

from support.run_directory import RunDirectory
from sweeprun_protocol.environ import PodEnvironment
from sweeprun_protocol.records import EndRecord
from sweeprun_trainer import ending
from sweeprun_trainer.ending import GOOD_END_PATIENCE_SECONDS, patience, publish_end, publish_seconds, within
from sweeprun_trainer.start import Place
from sweeprun_volume.operations import Volume


def end(code=0, *, told=False):
    return EndRecord(1, "master-0", "uid", code, told, False, None, None, 0.0)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "volume")


def place_of(run, failing):
    """The place as a pod sees it; `failing(operation)` says whether the volume refuses a change."""

    def before(operation, path):
        number = failing(operation)
        if number:
            raise OSError(number, os.strerror(number))

    pod = PodEnvironment("master-0", "uid", "pod", "node")
    return Place(Volume(str(run.path), before=before), run.layout, run.environment(), pod)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_volume_that_refuses_costs_the_record_and_no_more_than_its_time(run, number, capfd):
    assert not publish_end(place_of(run, lambda _: number), end(), seconds=0.1)
    assert os.strerror(number) in capfd.readouterr().err
    assert run.end_record() is None


def test_a_volume_that_recovers_in_time_gets_the_record(run, monkeypatch):
    monkeypatch.setattr(ending, "RETRY_SECONDS", 0.01)
    refusals = iter([errno.ESTALE, errno.EIO])
    assert publish_end(place_of(run, lambda _: next(refusals, 0)), end(), seconds=10)
    assert run.end_record() == end()


@pytest.mark.timeout(30)
def test_a_volume_that_never_answers_is_left_behind(run, capfd):
    answer = threading.Event()
    try:
        assert not publish_end(place_of(run, lambda _: answer.wait() and 0), end(), seconds=0.1)
        assert "does not answer" in capfd.readouterr().err
    finally:
        answer.set()


def test_without_a_thread_to_spare_the_end_is_recorded_all_the_same(run, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert publish_end(place_of(run, lambda _: 0), end(), seconds=1)


@pytest.mark.timeout(30)
def test_what_does_not_return_in_time_is_none():
    answer = threading.Event()
    assert within(0.01, answer.wait) is None
    answer.set()


@pytest.mark.parametrize(("grace", "seconds"), [(1, 2), (30, 7.5), (600, 15)])
def test_recording_takes_a_quarter_of_the_grace_within_bounds(grace, seconds):
    assert publish_seconds(grace) == seconds


@pytest.mark.parametrize(
    ("record", "since_told", "seconds"),
    [
        (end(0), 0, GOOD_END_PATIENCE_SECONDS),
        (end(1), 0, 15),
        (end(0, told=True), 5, 15),
        (end(0, told=True), 25, 3),  # of a grace of 30: the kubelet kills at its end
        (end(0, told=True), 40, -12),
        (end(143, told=True), 5, 0),
    ],
    ids=["good", "failed", "stopped early", "stopped late", "overdue", "stopped and failed"],
)
def test_how_long_a_leader_waits_follows_from_how_it_ended(record, since_told, seconds):
    assert patience(record, grace_seconds=30, since_told=since_told) == seconds
