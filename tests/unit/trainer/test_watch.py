"""What is watched beside the command, without threads."""

import pytest

from support.run_directory import RunDirectory
from sweeprun_protocol.environ import PodEnvironment
from sweeprun_trainer.channel import PROGRESS_SOCKET, Receiver, Sender
from sweeprun_trainer.progress import Progress
from sweeprun_trainer.settings import Settings
from sweeprun_trainer.start import Place
from sweeprun_trainer.watch import MAX_DRAINED, Watch


class Endless:
    """A receiver for which there is always one more message: a process that the command left sends for ever."""

    def __init__(self):
        self.received = 0

    def receive(self):
        self.received += 1
        return {"step": self.received}


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "volume")


@pytest.fixture
def fenced():
    return []


@pytest.fixture
def new_watch(run, fenced):
    place = Place.of(run.environment(), PodEnvironment("master-0", "uid", "pod", "node"))

    def new(progress, receiver=None):
        return Watch(place, progress, settings=Settings(), fenced=fenced.append, receiver=receiver)

    return new


def test_messages_that_wait_when_the_command_ends_are_taken(new_watch):
    receiver, progress = Receiver(), Progress(base_step=None)
    sender = Sender({PROGRESS_SOCKET: receiver.name})
    sender.send({"step": 3})
    sender.send({"completed": True})
    new_watch(progress, receiver).finish()
    assert (progress.snapshot().step, progress.snapshot().completed) == (3, True)
    sender.close()
    receiver.close()


@pytest.mark.timeout(30)
def test_a_sender_that_never_ends_keeps_nobody(new_watch):
    receiver = Endless()
    new_watch(Progress(base_step=None), receiver).finish()
    assert receiver.received == MAX_DRAINED


def test_a_later_claim_is_told_with_its_epoch(new_watch, run, fenced):
    watch = new_watch(Progress(base_step=None))
    watch.check_fence()
    assert fenced == []
    run.claim(2)
    run.claim(3)
    watch.check_fence()
    assert fenced == [3]


def test_an_outage_is_told_again_only_after_the_volume_answered_between(new_watch, run, capfd):
    watch = new_watch(Progress(base_step=None))
    claims, away = run.path / "claims", run.path / "away"
    for _ in range(2):
        claims.rename(away)
        claims.write_text("a file in the place of a directory")
        watch.check_fence()
        watch.check_fence()
        claims.unlink()
        away.rename(claims)
        watch.check_fence()
    assert capfd.readouterr().err.count("claims cannot be seen") == 2
