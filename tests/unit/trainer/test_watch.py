"""What is watched beside the command, without threads."""

import pytest

from support.run_directory import RunDirectory
from sweeprun_protocol.environ import PodEnvironment
from sweeprun_trainer.channel import PROGRESS_SOCKET, Receiver, Sender
from sweeprun_trainer.progress import Progress
from sweeprun_trainer.settings import Settings
from sweeprun_trainer.stall import Stall
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
def stalled():
    return []


@pytest.fixture
def new_watch(run, fenced, stalled):
    place = Place.of(run.environment(), PodEnvironment("master-0", "uid", "pod", "node"))

    def new(progress, receiver=None):
        return Watch(
            place, progress, settings=Settings(), fenced=fenced.append, stalled=stalled.append, receiver=receiver
        )

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


AT_ONCE = 1e-9
"""A limit that any time without a sign is longer than."""


def at_once():
    return Stall(AT_ONCE, every_seconds=1, now=0.0)


def rewritten(run, progress):
    (run.checkpoints / "last.pt").write_bytes(b"longer than before")


def another_step(run, progress):
    progress.heard({"step": 3})


def an_earlier_step(run, progress):
    progress.heard({"step": 1})


def a_checkpoint(run, progress):
    run.save(7)


def completed(run, progress):
    progress.heard({"completed": True})


@pytest.mark.parametrize("sign", [rewritten, another_step, an_earlier_step, a_checkpoint, completed])
def test_what_changes_is_a_sign_of_progress_and_what_stands_still_is_none(new_watch, run, stalled, sign):
    run.checkpoints.mkdir()
    (run.checkpoints / "last.pt").write_bytes(b"state")
    progress = Progress(base_step=None)
    progress.heard({"step": 2})
    watch, stall = new_watch(progress), at_once()
    watch.check_stall(stall, 30)
    sign(run, progress)
    watch.check_stall(stall, 30)
    assert stalled == []
    progress.heard({"step": progress.snapshot().step} if sign is another_step else {})
    watch.check_stall(stall, 30)
    assert stalled == [30]


def test_while_the_checkpoint_directory_cannot_be_read_nothing_is_called_a_stall(new_watch, run, stalled):
    run.checkpoints.write_text("a file in the place of a directory")
    watch, stall = new_watch(Progress(base_step=None)), at_once()
    for _ in range(3):
        watch.check_stall(stall, 30)
    assert stalled == []
    run.checkpoints.unlink()
    for _ in range(2):
        watch.check_stall(stall, 30)
    assert stalled == [30]
