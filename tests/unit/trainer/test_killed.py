"""Killed at any write of its records, a pod leaves what the next one and prepare read rightly."""

import pytest

from support.run_directory import RunDirectory
from sweeprun_protocol.environ import PodEnvironment
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.reasons import Outcome
from sweeprun_protocol.records import EndRecord
from sweeprun_trainer.ending import publish_end
from sweeprun_trainer.start import Place, StartRefusedError, check_start
from sweeprun_volume.clock import Clock
from sweeprun_volume.operations import Volume
from sweeprun_volume.records_io import publish_record

MOST_WRITES = 40
CLOCK = Clock(now=lambda: 1.0, monotonic=lambda: 0.0, sleep=lambda _: None)


class Killed(BaseException):
    """Nothing survives it."""


class Dying:
    """Counts the changes of a volume, and dies before one of them."""

    def __init__(self, at=None):
        self.at = at
        self.writes = 0

    def __call__(self, operation, path):
        if self.writes == self.at:
            raise Killed
        self.writes += 1


@pytest.fixture
def new_run(tmp_path):
    made = iter(range(10_000))
    return lambda: RunDirectory(tmp_path / f"volume-{next(made)}")


def place_of(run, *, uid="first", before=None):
    volume = Volume(str(run.path), before=before) if before is not None else Volume(str(run.path))
    return Place(volume, run.layout, run.environment(), PodEnvironment("master-0", uid, uid, "node"))


def start(run, **place):
    """Exit code of the start check; None where training may start."""
    try:
        check_start(place_of(run, **place), clock=CLOCK, settle_seconds=0)
    except StartRefusedError as error:
        return error.code
    return None


def end_of(run, *, code=0, told=False):
    return EndRecord(run.epoch, "master-0", "first", code, told, False, 900, None, 2.0)


def deaths(new_run, life):
    """(number, run) for each write of `life` at which the process can die."""
    whole = Dying()
    life(new_run(), whole)
    assert 0 < whole.writes < MOST_WRITES
    for number in range(whole.writes):
        run = new_run()
        with pytest.raises(Killed):
            life(run, Dying(number))
        yield number, run


def test_killed_in_its_start_check_a_pod_may_begin_anew_and_no_two_pods_start(new_run):
    for number, run in deaths(new_run, lambda run, before: start(run, before=before)):
        taken = run.start_record() is not None
        assert start(run, uid="second") == (ExitCode.ATTEMPT_REUSED if taken else None), number
        assert start(run) == (None if taken else ExitCode.ATTEMPT_REUSED), number
        assert run.prepare().outcome is Outcome.RESTART, number


def whole_life(run, before):
    assert start(run) is None
    # in this thread: a death in another one is an answer that does not come
    publish_record(place_of(run, before=before).volume, run.layout.end(run.epoch, "master-0"), end_of(run))


def test_killed_while_it_records_its_end_a_run_completes_only_by_a_whole_record(new_run):
    outcomes = set()
    for number, run in deaths(new_run, whole_life):
        recorded = run.end_record() is not None
        outcome = run.prepare().outcome
        assert outcome is (Outcome.COMPLETED if recorded else Outcome.RESTART), number
        outcomes.add(outcome)
    assert outcomes == {Outcome.COMPLETED, Outcome.RESTART}  # killed after the link: what was recorded counts


@pytest.mark.parametrize(("code", "told"), [(0, True), (1, False), (143, True), (88, False)])
def test_an_end_that_is_none_never_completes(new_run, code, told):
    run = new_run()
    assert start(run) is None
    assert publish_end(place_of(run), end_of(run, code=code, told=told), seconds=5)
    assert run.prepare().outcome is Outcome.RESTART


def test_twin_a_good_end_completes(new_run):
    run = new_run()
    assert start(run) is None
    assert publish_end(place_of(run), end_of(run), seconds=5)
    assert run.prepare().outcome is Outcome.COMPLETED
