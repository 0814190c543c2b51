"""The start check's patience with a file system that shows late what another node wrote; and wrong usage."""

import pytest

from support.run_directory import RunDirectory
from sweeprun_protocol.environ import PodEnvironment
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_trainer.__main__ import USAGE, main
from sweeprun_trainer.execute import child_environ
from sweeprun_trainer.start import Place, StartRefusedError, check_start
from sweeprun_volume.clock import Clock


class Waiting:
    """A clock that does `then` while somebody sleeps for the `after`th time."""

    def __init__(self, after, then):
        self.slept = 0.0
        self._left = after
        self._then = then

    @property
    def clock(self):
        return Clock(now=lambda: 0.0, monotonic=lambda: self.slept, sleep=self._sleep)

    def _sleep(self, seconds):
        self.slept += seconds
        self._left -= 1
        if self._left == 0:
            self._then()


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "volume")


def place(run, **changes):
    return Place.of(run.environment(**changes), PodEnvironment("master-0", "uid", "pod", "node"))


def test_a_claim_that_shows_late_is_waited_for(run):
    waiting = Waiting(60, lambda: run.claim(2))
    check_start(place(run, epoch=2), clock=waiting.clock, settle_seconds=90)
    assert waiting.slept == 60


def test_a_run_directory_that_shows_late_is_waited_for(run, tmp_path):
    hidden = run.path.rename(tmp_path / "hidden")
    waiting = Waiting(5, lambda: hidden.rename(run.path))
    check_start(place(run), clock=waiting.clock, settle_seconds=90)
    assert waiting.slept == 5


def test_a_resume_point_that_shows_late_is_waited_for(run, tmp_path):
    checkpoint = run.commit(5)
    run.prepare()
    hidden = checkpoint.rename(tmp_path / "hidden")
    waiting = Waiting(30, lambda: hidden.rename(checkpoint))
    check_start(place(run), clock=waiting.clock, settle_seconds=90)
    assert waiting.slept == 30


def test_what_never_shows_is_refused_after_the_time_allowed(run):
    waiting = Waiting(0, lambda: None)
    with pytest.raises(StartRefusedError) as refused:
        check_start(place(run, epoch=2), clock=waiting.clock, settle_seconds=90)
    assert refused.value.code is ExitCode.VOLUME_UNUSABLE
    assert waiting.slept == 90


def test_what_contradicts_is_refused_at_once(run):
    run.claim(2)
    waiting = Waiting(0, lambda: None)
    with pytest.raises(StartRefusedError) as refused:
        check_start(place(run), clock=waiting.clock, settle_seconds=90)
    assert refused.value.code is ExitCode.STALE_EPOCH
    assert waiting.slept == 0


def test_a_claim_made_while_the_slot_was_taken_is_seen(run):
    clock = Clock(now=lambda: run.claim(2) or 0.0, monotonic=lambda: 0.0, sleep=lambda _: None)  # asked for the record
    with pytest.raises(StartRefusedError) as refused:
        check_start(place(run), clock=clock, settle_seconds=90)
    assert refused.value.code is ExitCode.STALE_EPOCH


@pytest.mark.parametrize("arguments", [[], ["exec"], ["exec", "--"], ["exec", "sh"], ["install"], ["--help"]])
def test_wrong_usage_is_told_apart_from_everything_else(arguments, capfd):
    assert main(arguments) == USAGE
    assert "usage: exec -- COMMAND" in capfd.readouterr().err


def test_installing_from_anything_but_the_zipapp_says_how(tmp_path, capfd):
    assert main(["install", "--to", str(tmp_path)]) == 1
    assert "is no zipapp" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "kept"),
    [({"LC_CTYPE"}, True), (set(), False), (None, True)],
    ids=["the container's own", "the interpreter's", "not known"],
)
def test_a_locale_that_the_interpreter_chose_for_itself_is_not_the_commands(given, kept):
    values = child_environ({"LC_CTYPE": "C.UTF-8"}, 30, None, given=given)
    assert ("LC_CTYPE" in values) is kept
    assert values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "25"
