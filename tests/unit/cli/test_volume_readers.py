"""`adopt` and `advise` on a mounted volume."""

from __future__ import annotations

import pytest

from support.run_directory import OWNER, RUN_ID, RunDirectory
from support.volume_checkpoints import own_checkpoint
from sweeprun_cli.adopt import _candidates, _of_candidate
from sweeprun_cli.advise.volume import Saves, read_saves
from sweeprun_cli.exits import CommandError
from sweeprun_operator.core.observation import OwnerState
from sweeprun_protocol.prepare import Candidate


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "volume")


def test_saves_are_read_from_the_manifests_of_a_run(run):
    for step, seconds in ((100, 1.0), (200, 3.0), (300, 2.0)):
        own_checkpoint(
            run.checkpoints, run_id=RUN_ID, step=step, epoch=run.epoch, save_seconds=seconds, time=1000.0 + step
        )
    assert read_saves(run.path) == Saves(count=3, save_seconds=2.0, interval_seconds=100.0)


def test_a_directory_without_a_run_is_wrong_use(tmp_path):
    for read in (read_saves, _candidates):
        with pytest.raises(CommandError, match="no run lies in"):
            read(tmp_path)


def test_an_incomplete_run_on_the_volume_is_found_with_its_owner(run):
    (found,) = _candidates(run.root)
    assert (found.run_id, found.epoch, found.owner) == (RUN_ID, run.epoch, OWNER)
    assert found.idle_seconds < 3600


@pytest.mark.parametrize(
    ("owner", "state", "uid", "cluster", "said"),
    [
        (OWNER, OwnerState.GONE, "mine", "local", "yes: its owner is gone"),
        (OWNER, OwnerState.ALIVE, "mine", "local", "no: its owner lives"),
        (OWNER, OwnerState.ENDING, "mine", "local", "not yet: its owner is gone or has ended, and some of its pods"),
        (OWNER, OwnerState.ALIVE, OWNER.uid, "local", "it is its own"),
        (OWNER, OwnerState.GONE, "mine", "other", "yes: its owner is of another cluster"),
        (
            OWNER,
            OwnerState.ALIVE,
            "mine",
            "other",
            "no: its owner is of another cluster, and it was silent for less than 15 min",
        ),
        (None, OwnerState.GONE, "mine", "local", "yes: nobody claims it"),
    ],
)
def test_each_answer_says_why(owner, state, uid, cluster, said):
    row = _of_candidate(Candidate("r", 3, owner, 60), state, uid, cluster, 900)
    assert row[3].startswith(said)
    assert row[2] == "1 min"
