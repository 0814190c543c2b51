"""The operator has lost what it knew of a run: the volume says where its numbers stand and what was begun."""

from __future__ import annotations

from dataclasses import replace

from support.volume_sweep import OTHER, adopting, make_request
from sweeprun_protocol.prepare import Earlier, PrepareReport
from sweeprun_protocol.reasons import Outcome


def forgetful(number, **fields):
    """A request of an operator that knows of no run."""
    return make_request(prepare=number, **fields)


def interrupted(sweep):
    """An attempt that began and was told to stop."""
    sweep.starts()
    sweep.ends(exit_code=143, told_to_stop=True)


def test_a_number_that_is_behind_is_told_where_the_head_stands(sweep):
    first = sweep.prepare()
    for _ in range(3):
        sweep.prepare()
    report = sweep.ask(forgetful(0))
    assert report.outcome is Outcome.SUPERSEDED
    assert report.head_prepare == 3
    assert report.run_id == first.run_id


def test_the_same_run_goes_on_and_attempts_that_were_started_are_counted(sweep):
    first = sweep.prepare()
    sweep.save(500)
    interrupted(sweep)
    sweep.prepare()
    interrupted(sweep)
    sweep.prepare()  # decided, and never started
    report = sweep.ask(forgetful(3))
    assert (report.outcome, report.run_id) == (Outcome.RESUME, first.run_id)
    assert report.earlier == Earlier(attempts=2, resumes=1, restarts=0)


def test_a_run_that_is_known_is_not_counted_again(sweep):
    sweep.prepare()
    interrupted(sweep)
    assert sweep.prepare().earlier is None


def test_a_retry_of_the_first_prepare_counts_nothing(sweep):
    assert sweep.ask(forgetful(0)).earlier is None
    assert sweep.ask(forgetful(0)).earlier is None


def test_attempts_of_the_owner_before_are_not_counted(sweep):
    left = sweep.prepare(owner=OTHER)
    interrupted(sweep)
    report = sweep.ask(make_request(adoption=adopting(take=left.run_id, take_epoch=left.epoch)))
    assert report.adopted
    assert report.earlier is None
    assert sweep.ask(forgetful(1)).earlier is None


def test_both_survive_the_wire():
    report = PrepareReport(prepare=1, outcome=Outcome.SUPERSEDED, message="m", head_prepare=7, earlier=Earlier(3, 1, 1))
    assert PrepareReport.decode(report.encode()) == report
    assert PrepareReport.decode(replace(report, head_prepare=None, earlier=None).encode()).earlier is None
