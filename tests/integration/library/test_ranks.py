"""Several ranks, as processes: they save, stop, resume and complete together, or not at all."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest

from support.volume_checkpoints import context_at
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.layout import parse_step_name
from sweeprun_volume.formats.own import OwnFormat

from .conftest import RUN


def committed(root):
    """(step, epoch) of everything that prepare would take, after it read every byte."""
    found = []
    for path in (root / "checkpoints").glob("step-*"):
        step, epoch = parse_step_name(path.name)
        context = context_at(root, run_id=RUN, seconds=30)
        OwnFormat().check(context, f"checkpoints/{path.name}", step=step, epoch=epoch)
        found.append((step, epoch))
    return sorted(found)


def record(root, epoch, name):
    path = root / "epochs" / str(epoch) / name
    return json.loads(path.read_text()) if path.exists() else None


def test_all_ranks_complete_together(attempt):
    ranks = attempt.start(steps=10)
    assert [rank.wait()[0] for rank in ranks] == [0, 0]
    assert committed(attempt.root) == [(5, 1), (10, 1)]
    assert record(attempt.root, 1, "library.json")["worldSize"] == 2
    complete = record(attempt.root, 1, "complete.json")
    assert (complete["step"], complete["worldSize"], complete["metrics"]) == (10, 2, {"value": "10"})


@pytest.mark.parametrize("told", [0, 1])
def test_one_rank_is_told_to_stop_and_all_save_the_same_step(attempt, told):
    ranks = attempt.start(steps=100_000)
    ranks[told].wait_step(7)
    ranks[told].process.send_signal(signal.SIGTERM)
    assert [rank.wait()[0] for rank in ranks] == [143, 143]
    assert ranks[0].step == ranks[1].step
    assert committed(attempt.root)[-1] == (ranks[0].step, 1)
    assert record(attempt.root, 1, "complete.json") is None, "a stop is no completion"


def test_a_stopped_run_goes_on_where_it_was(attempt):
    first = attempt.start(steps=5)
    assert [rank.wait()[0] for rank in first] == [0, 0]
    second = attempt.resume(5, of_epoch=1).start(steps=12)
    assert [rank.wait()[0] for rank in second] == [0, 0]
    assert committed(attempt.root) == [(5, 1), (10, 2)]
    assert record(attempt.root, 2, "complete.json")["metrics"] == {"value": "12"}, "5 before and 7 after"


def check_that_nobody_trained(ranks, said):
    for rank in ranks:
        code, output = rank.wait()
        assert code == ExitCode.NO_AGREEMENT, output
        assert said in output
        assert rank.step == 0, "a rank trained"


def test_ranks_that_were_told_different_steps_do_not_train(attempt):
    assert [rank.wait()[0] for rank in attempt.start(steps=10)] == [0, 0]
    newer, older = attempt.resume(10, of_epoch=1), attempt.resume(5, of_epoch=1)
    ranks = newer.start(by_rank={1: older.known})
    check_that_nobody_trained(ranks, "start from different points: epoch 2, step 10, epoch 2, step 5")


def test_a_rank_that_was_told_to_begin_does_not_train_beside_one_that_resumes(attempt):
    assert [rank.wait()[0] for rank in attempt.start(steps=5)] == [0, 0]
    resumed = attempt.resume(5, of_epoch=1)
    fresh = replace(resumed.known, resume_from=None, resume_step=None, resume_digest=None, resume_format=None)
    check_that_nobody_trained(resumed.start(by_rank={1: fresh}), "different points")


def test_damage_that_only_one_rank_can_see_keeps_all_from_training(attempt):
    assert [rank.wait()[0] for rank in attempt.start(steps=5)] == [0, 0]
    resumed = attempt.resume(5, of_epoch=1)
    file = attempt.root / "checkpoints" / "step-000000005.e1" / "counter-rank-1.pt"
    data = bytearray(file.read_bytes())
    data[-200] ^= 4
    file.write_bytes(data)
    check_that_nobody_trained(resumed.start(), "rank 1: checkpoints/step-000000005.e1/counter-rank-1.pt is not what")


def test_a_rank_that_is_killed_takes_the_others_along_and_leaves_whole_checkpoints(attempt):
    ranks = attempt.start(steps=100_000)
    ranks[0].wait_step(12)
    ranks[1].kill()
    code, _ = ranks[0].wait()
    assert code not in (0, 143)
    assert committed(attempt.root)[-1] >= (10, 1)
    assert record(attempt.root, 1, "complete.json") is None


def test_an_attempt_that_is_over_notices_at_its_next_save_and_leaves(attempt):
    ranks = attempt.start(steps=100_000)
    ranks[0].wait_step(7)
    (attempt.root / "claims").mkdir()
    (attempt.root / "claims" / "000002.json").write_text("{}")
    claimed = committed(attempt.root)
    assert [rank.wait()[0] for rank in ranks] == [ExitCode.FENCED, ExitCode.FENCED]
    assert committed(attempt.root)[: len(claimed) + 1] == committed(attempt.root), "one that was under way, at most"
    assert record(attempt.root, 1, "complete.json") is None


def test_outside_a_sweeprun_the_same_script_runs(attempt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unmanaged = dict.fromkeys(attempt.known.encode(), "")
    (rank,) = attempt.start(world=1, steps=10, **unmanaged)
    code, output = rank.wait()
    assert code == 0, output
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000005.e1",
        "step-000000010.e1",
    ]
