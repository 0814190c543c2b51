"""The library with W&B's own client: one run, every step once, whatever was lost with the process."""

from __future__ import annotations

from support.wandb_server import serve
from support.wandb_server.client import QUICK

ENTITY, PROJECT, RUN = "team", "project", "run-1"
# As long as W&B's client collects by default: what is logged meanwhile dies with the process.
COLLECTS = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "600"}


def environ(server, directory, writer):
    known = {"WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT, "WANDB_RUN_ID": RUN, "WANDB_RESUME": "allow"}
    return {**QUICK, **server.client_environ(str(directory), writer=writer), **known}


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
        assert run.inserted_count == 1
        assert run.exit_codes == [0]
        assert [writer.key for writer in run.writers][-1] == "attempt-1"
        assert run.overlapping_writers() == []


def test_a_wandb_that_is_away_costs_nothing_but_its_rows(attempt, tmp_path):
    with serve() as server:
        away = environ(server, tmp_path, "attempt-0")
    (rank,) = attempt.start(world=1, steps=5, WANDB_INIT_TIMEOUT="2", **away)
    code, output = rank.wait()
    assert code == 0, output
    assert "training goes on without it" in output


def test_a_wandb_that_goes_away_does_not_hold_up_the_end(attempt, tmp_path):
    """Its client would wait for ever."""
    with serve() as server:
        known = {**environ(server, tmp_path, "attempt-0"), "WANDB_FINISH_TIMEOUT": "3"}
        (rank,) = attempt.start(world=1, steps=100, **known)
        rank.wait_step(20)
    code, output = rank.wait()
    assert code == 0, output
    assert (attempt.root / "epochs" / "1" / "complete.json").exists()
