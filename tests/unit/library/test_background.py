"""Saves in the background: of the state at the call, one at a time, and what goes wrong in one is heard of."""

from __future__ import annotations

import threading

import pytest
import torch

from support.training import DIRECTORY, RUN, Rig, checkpointer, claims, pinned_to
from support.volume_checkpoints import context_at
from sweeprun_protocol.layout import step_name
from sweeprun_trainer.ranks import PeerLostError
from sweeprun_trainer.staging import StagingCopy
from sweeprun_volume.formats.own import OwnFormat

SECONDS = 30


class Gate:
    """Holds up the first operation of a kind until it is opened."""

    def __init__(self, operation="fsync"):
        self.operation = operation
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, operation, path):
        if operation == self.operation and "staging" in path:
            self.reached.set()
            assert self.opened.wait(SECONDS)


def found(root):
    return sorted(path.name for path in (root / DIRECTORY).glob("step-*"))


def whole(root, step):
    return OwnFormat().check(
        context_at(root, run_id=RUN, seconds=30), f"{DIRECTORY}/{step_name(step, 1)}", step=step, epoch=1
    )


def test_what_is_committed_is_the_state_at_the_call(tmp_path):
    rig, gate = Rig(), Gate()
    for _ in range(3):
        rig.step()
    saved = checkpointer(tmp_path, rig, before=gate)
    assert saved.save_async(3)
    assert gate.reached.wait(SECONDS)
    expected = [rig.step() for _ in range(5)]
    assert found(tmp_path) == []
    gate.opened.set()
    assert saved.wait()
    assert whole(tmp_path, 3).digest

    other = Rig(seed=99)
    assert checkpointer(tmp_path, other, pinned=pinned_to(tmp_path, 3)).restore() == 3
    assert [other.step() for _ in range(5)] == expected


@pytest.mark.parametrize("call", ["save", "save_async"])
def test_a_second_save_waits_for_the_first(tmp_path, call):
    gate = Gate()
    saved = checkpointer(tmp_path, Rig(), before=gate)
    assert saved.save_async(1)
    assert gate.reached.wait(SECONDS)
    second = threading.Thread(target=getattr(saved, call), args=(2,))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert found(tmp_path) == []
    gate.opened.set()
    second.join(SECONDS)
    assert saved.wait()
    assert found(tmp_path) == [step_name(1, 1), step_name(2, 1)]


def test_a_volume_that_fails_in_the_background_is_told_by_the_next_call(tmp_path, capfd):
    broken = True

    def before(operation, path):
        if broken and operation == "write":
            raise OSError(28, "No space left on device")

    saved = checkpointer(tmp_path, Rig(), before=before)
    assert saved.save_async(1), "nothing went wrong before it"
    assert not saved.wait()
    broken = False
    assert not saved.save_async(2), "the one before it was lost"
    assert "step 1 is not committed" in capfd.readouterr().err
    assert saved.wait()
    assert saved.save_async(3)
    assert saved.wait()
    assert found(tmp_path) == [step_name(2, 1), step_name(3, 1)]


def test_a_peer_that_is_lost_in_the_background_is_raised_by_the_next_call(tmp_path):
    saved = checkpointer(tmp_path, Rig())
    siblings = saved._ranks.sibling()
    saved._ranks.sibling = lambda: siblings

    def gone(value):
        raise PeerLostError("a rank is gone")

    siblings.gather = gone
    assert saved.save_async(1)
    with pytest.raises(PeerLostError):
        saved.save(2)
    assert found(tmp_path) == []


def test_a_state_that_cannot_be_copied_is_told_and_not_raised(tmp_path, capfd):
    rig = Rig()
    rig.loader.state_dict = lambda: 1 / 0
    saved = checkpointer(tmp_path, rig)
    saved.save_async(1)
    assert not saved.wait()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_step_that_is_committed_in_the_background_is_not_written_again(tmp_path):
    saved = checkpointer(tmp_path, Rig())
    assert saved.save_async(1)
    assert saved.save(1)
    assert saved.save_async(1)
    assert found(tmp_path) == [step_name(1, 1)]


class Grace:
    def __init__(self):
        self.left = None

    def __call__(self):
        return self.left


def test_told_to_stop_the_outstanding_save_is_finished_and_the_last_step_is_saved_too(tmp_path):
    grace = Grace()
    saved = checkpointer(tmp_path, Rig(), grace_left=grace)
    saved.save_async(1)
    grace.left = 30.0
    assert saved.save(2)
    assert found(tmp_path) == [step_name(1, 1), step_name(2, 1)]


def test_told_to_stop_with_a_save_that_does_not_end_nothing_else_is_begun(tmp_path, capfd):
    gate, grace = Gate(), Grace()
    saved = checkpointer(tmp_path, Rig(), before=gate, grace_left=grace)
    saved.save_async(1)
    grace.left = 2.2
    assert not saved.save(2)
    assert "does not end within the grace" in capfd.readouterr().err
    gate.opened.set()
    assert saved.wait()
    assert found(tmp_path) == [step_name(1, 1)]


@pytest.mark.parametrize(("took", "committed"), [(40.0, False), (20.0, True), (None, True)])
def test_told_to_stop_a_save_is_begun_where_the_grace_is_long_enough_for_it(tmp_path, capfd, took, committed):
    grace = Grace()
    saved = checkpointer(tmp_path, Rig(), grace_left=grace)
    if took is not None:
        saved.save(1)
        saved._took.append(took)
    grace.left = 30.0
    assert saved.save(2) is committed
    assert (step_name(2, 1) in found(tmp_path)) is committed
    assert ("the newest checkpoint is of step 1" in capfd.readouterr().err) is not committed


def test_told_to_stop_a_step_that_is_committed_wins(tmp_path):
    grace = Grace()
    saved = checkpointer(tmp_path, Rig(), grace_left=grace)
    saved.save(1)
    saved._took.append(1000.0)
    grace.left = 1.0
    assert saved.save(1)


@pytest.mark.parametrize("call", ["save", "save_async"])
def test_an_attempt_whose_run_was_claimed_by_another_hears_of_it(tmp_path, call):
    told = []
    zombie = checkpointer(tmp_path, Rig(), fenced=told.append)
    claims(tmp_path).mkdir()
    (claims(tmp_path) / "000002.json").write_text("{}")
    getattr(zombie, call)(5)
    assert not zombie.wait() or call == "save"
    assert told == [2]
    assert found(tmp_path) == []


def test_what_training_waited_for_is_reported(tmp_path):
    sent = []
    saved = checkpointer(tmp_path, Rig())
    saved._sender.send = sent.append
    saved.save(1)
    saved.save_async(2)
    saved.wait()
    assert [message["saveSeconds"] >= 0 for message in sent if "saveSeconds" in message] == [True, True]
    assert [message["committed"] for message in sent if "committed" in message] == [1, 2]


def test_a_copy_shares_nothing_with_the_state_and_tied_weights_stay_one():
    weight = torch.zeros(1000)
    state = {"a": weight, "b": weight.detach(), "c": [(torch.ones(2), {"n": 1})], "view": torch.zeros(100, 2)[:, 0]}
    copy = StagingCopy()
    found = copy.of(state)
    weight.add_(1)
    state["c"][0][1]["n"] = 2
    assert float(found["a"].sum()) == 0
    assert found["a"] is found["b"]
    assert found["c"][0][1] == {"n": 1}
    assert copy.bytes == 4000 + 8 + 400
