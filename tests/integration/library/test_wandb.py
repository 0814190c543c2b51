"""The library with W&B's own client: one run, every step once, whatever was lost with the process."""

from __future__ import annotations

import os
import signal

import pytest

from support.wandb_server import serve
from support.wandb_server.client import QUICK
from sweeprun_protocol.environ import HISTORY, PREVIOUS_WANDB_RUN
from sweeprun_protocol.history import RunHistory
from sweeprun_trainer import STOPPED
from sweeprun_trainer.account import ATTEMPT, REPLAYED_FROM, REPLAYED_TO, STEP

ENTITY, PROJECT, RUN = "team", "project", "run-1"
# As long as W&B's client collects by default: what is logged meanwhile dies with the process.
COLLECTS = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "600"}


def environ(server, directory, writer):
    known = {"WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT, "WANDB_RUN_ID": RUN, "WANDB_RESUME": "allow"}
    return {**QUICK, **server.client_environ(str(directory), writer=writer), **known}


def killed(attempt, server, directory, *, at):
    """Epoch 1 ends by SIGKILL at this step, which W&B has and the volume too."""
    (rank,) = attempt.start(world=1, steps=100, HANG_AT=str(at), **environ(server, directory, "attempt-0"))
    server.wait(lambda journal: (run := journal.find(ENTITY, PROJECT, RUN)) and at in run.steps, timeout=90)
    attempt.wait_commit(at, of_epoch=1)
    rank.kill()
    rank.wait()


def test_rows_that_died_with_a_killed_process_are_sent_by_the_next_attempt(attempt, tmp_path):
    with serve() as server:
        lost = {**environ(server, tmp_path, "attempt-0"), **COLLECTS}
        ranks = attempt.start(steps=100, HANG_AT="17", **lost)
        ranks[0].wait_step(17)
        for rank in ranks:
            rank.kill()
            rank.wait()
        before = server.journal().find(ENTITY, PROJECT, RUN)
        assert before is not None
        assert 15 not in before.steps, "nothing was lost: this test shows nothing"

        resumed = attempt.resume(15, of_epoch=1).start(steps=30, **environ(server, tmp_path, "attempt-1"))
        assert [rank.wait()[0] for rank in resumed] == [0, 0]
        run = server.run(ENTITY, PROJECT, RUN)
        assert run.steps == list(range(1, 31))
        assert run.values(ATTEMPT) == [0] * 15 + [1] * 15
        assert run.inserted_count == 1
        assert run.exit_codes == [0]
        assert [writer.key for writer in run.writers][-1] == "attempt-1"
        assert run.overlapping_writers() == []


@pytest.mark.parametrize(("base", "noted"), [(15, None), (10, (11, 15))], ids=["newest checkpoint", "walk-back"])
def test_a_walk_back_repeats_no_step_in_wandb_and_is_noted(attempt, tmp_path, base, noted):
    with serve() as server:
        killed(attempt, server, tmp_path, at=15)
        back = attempt.resume(base, of_epoch=1)
        (rank,) = back.start(world=1, steps=20, **environ(server, tmp_path, "attempt-1"))
        assert rank.wait()[0] == 0
        run = server.run(ENTITY, PROJECT, RUN)
    assert run.steps == list(range(1, 21))
    assert run.values(STEP) == run.steps
    assert run.values(ATTEMPT) == [0] * 15 + [1] * 5
    rows = [(row["_step"], (row[REPLAYED_FROM], row[REPLAYED_TO])) for row in run.history if REPLAYED_FROM in row]
    assert rows == ([] if noted is None else [(16, noted)])
    assert (run.summary.get(REPLAYED_FROM), run.summary.get(REPLAYED_TO)) == (noted or (None, None))
    assert (run.conflicts, run.overlapping_writers()) == ([], [])


def test_a_stopped_attempt_is_not_shown_as_finished(attempt, tmp_path):
    with serve() as server:
        (rank,) = attempt.start(world=1, steps=1000, **environ(server, tmp_path, "attempt-0"))
        rank.wait_step(10)
        os.kill(rank.process.pid, signal.SIGTERM)
        code, output = rank.wait()
        run = server.run(ENTITY, PROJECT, RUN)
    assert code == STOPPED, output
    assert run.exit_codes == [STOPPED]
    assert run.raw["preempting"] == []
    assert run.steps == list(range(1, len(run.steps) + 1))


def test_a_completed_run_is_finished_with_its_account_and_its_link(attempt, tmp_path):
    history = RunHistory(
        counts={"attempts": 2, "disruptions": 1, "stepsKept": 15},
        causes=["Preemption"],
        recovery_seconds={"drain": 2.5, "firstStep": 4.0},
        previous_run_ids=["run-0"],
    )
    told = {HISTORY: history.encode(), PREVIOUS_WANDB_RUN: "run-0"}
    with serve() as server:
        (rank,) = attempt.start(world=1, steps=3, **environ(server, tmp_path, "attempt-1"), **told)
        code, output = rank.wait()
        run = server.run(ENTITY, PROJECT, RUN)
    assert code == 0, output
    assert (run.steps, run.exit_codes) == ([1, 2, 3], [0])
    assert {name: value for name, value in run.summary.items() if name.startswith("sweeprun/")} == {
        "sweeprun/attempt": 0,
        "sweeprun/attempts": 2,
        "sweeprun/disruptions": 1,
        "sweeprun/steps_kept": 15,
        "sweeprun/causes": "Preemption",
        "sweeprun/recovery_seconds/drain": 2.5,
        "sweeprun/recovery_seconds/first_step": 4,
        "sweeprun/previous_run_ids": "run-0",
    }
    assert run.raw["config"]["sweeprun/previous_wandb_run"]["value"] == "run-0"
    assert kept(attempt) == [], "W&B has it all"


def test_a_wandb_that_is_away_costs_training_a_bounded_wait(attempt, tmp_path):
    with serve() as server:
        away = environ(server, tmp_path, "attempt-0")
    (rank,) = attempt.start(world=1, steps=5, WANDB_INIT_TIMEOUT="2", **away)
    code, output = rank.wait()
    assert code == 0, output
    assert "training goes on without it" in output
    assert kept(attempt) == ["e1"]


def test_a_wandb_that_goes_away_does_not_hold_up_the_end(attempt, tmp_path):
    """Its client would wait for ever."""
    with serve() as server:
        known = {**environ(server, tmp_path, "attempt-0"), "WANDB_FINISH_TIMEOUT": "3"}
        (rank,) = attempt.start(world=1, steps=100, **known)
        rank.wait_step(20)
    code, output = rank.wait()
    assert code == 0, output
    assert (attempt.root / "epochs" / "1" / "complete.json").exists()
    assert kept(attempt) == ["e1"]


def kept(attempt):
    """Epochs whose rows are on the volume."""
    return sorted(path.name for path in (attempt.root / "wandb").glob("e*") if list(path.glob("wandb/offline-run-*")))
