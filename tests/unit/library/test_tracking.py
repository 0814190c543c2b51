"""What is sent to W&B, and when nothing is."""

from __future__ import annotations

import os
import sys
import types

import numpy
import pytest
import torch

from sweeprun_protocol.environ import HISTORY, PREVIOUS_WANDB_RUN
from sweeprun_trainer import tracking
from sweeprun_trainer.account import ATTEMPT, REPLAYED_FROM, REPLAYED_TO, STEP
from sweeprun_trainer.tracking import Tracker


class Recorder:
    """Takes what wandb's run takes."""

    def __init__(self, starting_step=0, broken=False):
        self.starting_step = starting_step
        self.broken = broken
        self.rows = []
        self.summary = {}
        self.exit_codes = []
        self.axes = {}

    def define_metric(self, name, *, step_metric):
        self.axes[name] = step_metric

    def log(self, row, *, step, commit):
        if self.broken:
            raise OSError("no route to host")
        assert commit, "a row that waits for the next one is lost with the process"
        self.rows.append((step, row))

    def finish(self, exit_code):
        if self.broken:
            raise TimeoutError("Timed out finishing run.")
        self.exit_codes.append(exit_code)

    @property
    def steps(self):
        return [step for step, _ in self.rows]


def test_each_step_is_sent_once_with_its_number_and_attempt():
    run = Recorder()
    tracker = Tracker(run, attempt=2)
    tracker.log(1, {"loss": 0.5})
    tracker.log(1, {"loss": 0.4})
    assert run.rows == [(1, {"loss": 0.5, STEP: 1, "sweeprun/attempt": 2})]


def test_steps_that_wandb_has_already_are_not_sent_again():
    run = Recorder(starting_step=8)
    tracker = Tracker(run, attempt=1)
    for step in range(5, 11):
        tracker.log(step, {"loss": 1.0})
    assert run.steps == [8, 9, 10]


def test_rows_that_a_killed_process_did_not_deliver_are_sent_from_the_checkpoint():
    killed = Tracker(Recorder(), attempt=0)
    for step in range(1, 11):
        killed.log(step, {"loss": float(step)})
    state = killed.state_dict()
    run = Recorder(starting_step=4)  # W&B saw 1 to 3
    successor = Tracker(run, attempt=1)
    successor.load_state_dict(state)
    successor.log(11, {"loss": 11.0})
    assert run.steps == list(range(4, 12))
    assert run.rows[0][1]["loss"] == 4.0


def test_the_rows_in_a_checkpoint_are_bounded():
    tracker = Tracker(None, attempt=0)
    for step in range(tracking.KEPT_ROWS + 50):
        tracker.log(step, {"loss": 1.0})
    rows = tracker.state_dict()["rows"]
    assert len(rows) == tracking.KEPT_ROWS
    assert rows[-1][0] == tracking.KEPT_ROWS + 49


def test_a_row_that_is_sent_again_keeps_the_attempt_that_computed_it():
    killed = Tracker(Recorder(), attempt=0)
    killed.log(1, {"loss": 1.0})
    run = Recorder()
    successor = Tracker(run, attempt=1)
    successor.load_state_dict(killed.state_dict())
    successor.log(2, {"loss": 2.0})
    assert [row[ATTEMPT] for _, row in run.rows] == [0, 1]


def test_steps_that_are_computed_again_are_noted_once_in_the_next_row():
    run = Recorder(starting_step=8)
    tracker = Tracker(run, attempt=1)
    for step in range(5, 11):
        tracker.log(step, {"loss": 1.0})
    noted = [(step, row[REPLAYED_FROM], row[REPLAYED_TO]) for step, row in run.rows if REPLAYED_FROM in row]
    assert noted == [(8, 5, 7)]


def test_without_a_walk_back_nothing_is_noted():
    run = Recorder(starting_step=5)
    tracker = Tracker(run, attempt=1)
    tracker.load_state_dict({"rows": [[3, 0, {"loss": 1.0}], [4, 0, {"loss": 1.0}]]})
    tracker.log(5, {"loss": 1.0})
    tracker.finish(0)
    assert run.rows == [(5, {"loss": 1.0, STEP: 5, ATTEMPT: 1})]
    assert run.summary == {}


def test_an_attempt_that_ends_within_the_steps_of_another_notes_them_in_the_summary():
    run = Recorder(starting_step=8)
    tracker = Tracker(run, attempt=1)
    tracker.log(5, {"loss": 1.0})
    tracker.log(6, {"loss": 1.0})
    tracker.finish(143)
    assert (run.rows, run.summary) == ([], {REPLAYED_FROM: 5, REPLAYED_TO: 6})
    assert run.exit_codes == [143]


@pytest.mark.parametrize("moment", ["a row", "the end"])
def test_what_wandb_does_not_take_is_kept_from_the_oldest_row_at_hand(moment):
    run, kept = Recorder(starting_step=3), Recorder()
    tracker = Tracker(run, attempt=1, keep=lambda: kept)
    tracker.summarize({"result/loss": 1.0})
    tracker.load_state_dict({"rows": [[1, 0, {"loss": 1.0}], [2, 0, {"loss": 1.0}]]})
    tracker.log(3, {"loss": 1.0})
    run.broken = True
    if moment == "a row":
        tracker.log(4, {"loss": 1.0})
    tracker.finish(143)
    assert kept.steps == ([1, 2, 3, 4] if moment == "a row" else [1, 2, 3])
    assert [row[ATTEMPT] for _, row in kept.rows[:3]] == [0, 0, 1]
    assert kept.summary == {"result/loss": 1.0}
    assert kept.exit_codes == [143]


def test_what_wandb_takes_is_not_kept_as_well():
    run, asked = Recorder(), []
    tracker = Tracker(run, attempt=0, keep=lambda: asked.append(1))
    tracker.log(1, {"loss": 1.0})
    tracker.finish(0)
    assert (run.steps, run.exit_codes, asked) == ([1], [0], [])


def test_a_volume_that_keeps_nothing_does_not_end_training(capfd):
    tracker = Tracker(Recorder(broken=True), attempt=0, keep=lambda: Recorder(broken=True))
    tracker.log(1, {"loss": 1.0})
    tracker.log(2, {"loss": 1.0})
    tracker.finish(0)
    assert capfd.readouterr().err.count("no route to host") == 2


def test_a_tracker_that_is_away_does_not_end_training(capfd):
    run = Recorder(broken=True)
    tracker = Tracker(run, attempt=0)
    tracker.log(1, {"loss": 0.5})
    tracker.log(2, {"loss": 0.5})
    tracker.finish(0)
    assert capfd.readouterr().err.count("no route to host") == 1


@pytest.mark.parametrize(
    ("leads", "environ"),
    [(False, {"WANDB_PROJECT": "p"}), (True, {}), (True, {"WANDB_PROJECT": "p", "WANDB_MODE": "disabled"})],
    ids=["another rank", "no project", "disabled"],
)
def test_nobody_speaks_to_wandb_where_nobody_should(monkeypatch, leads, environ):
    for name in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)  # importing it would raise
    tracker = tracking.begin(leads=leads, attempt=0, config={}, settings={})
    tracker.log(1, {"loss": 1.0})
    tracker.finish(0)


def test_what_is_no_number_is_left_out_and_does_not_end_training(capfd):
    run = Recorder()
    tracker = Tracker(run, attempt=0)
    for step in (1, 2):
        tracker.log(step, {"loss": torch.tensor(0.5), "best": numpy.float32(2), "note": "bad", "none": None})
    assert run.rows[0] == (1, {"loss": 0.5, "best": 2.0, STEP: 1, "sweeprun/attempt": 0})
    assert capfd.readouterr().err.count("note is not logged") == 1


def test_the_rows_of_a_checkpoint_are_plain_whatever_was_logged():
    tracker = Tracker(None, attempt=0)
    tracker.log(numpy.int64(3), {"loss": numpy.float64(1)})
    ((step, _, row),) = tracker.state_dict()["rows"]
    assert (type(step), type(row["loss"])) == (int, float)


class Settings:
    def __init__(self, *, init_timeout):
        self.init_timeout = init_timeout
        self.finish_timeout = 0.0


def fake_wandb(monkeypatch, *, run, settings=Settings, online=True):
    """Returns what init was given."""
    given = []

    def init(**settings):
        given.append(settings)
        if not online and settings.get("mode") != "offline":
            raise OSError("connection refused")
        return run

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_PROJECT", "p")
    module = types.SimpleNamespace(init=init, Settings=settings, teardown=lambda: given.append("teardown"))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return given


def test_the_end_does_not_wait_for_a_dead_server_for_ever(monkeypatch):
    given = fake_wandb(monkeypatch, run=Recorder())
    tracking.begin(leads=True, attempt=0, config={}, settings={}, finish_seconds=7)
    assert given[0]["settings"].finish_timeout == 7
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "90")
    tracking.begin(leads=True, attempt=0, config={}, settings={}, finish_seconds=7)
    assert given[1]["settings"].finish_timeout == 90


def test_a_server_that_is_away_at_the_start_costs_no_row(monkeypatch):
    run = Recorder()
    given = fake_wandb(monkeypatch, run=run, online=False)
    told = []
    tracker = tracking.begin(
        leads=True,
        attempt=0,
        config={"lr": 1},
        settings={"name": "n"},
        directory="/run/wandb/e1",
        tell=told.append,
    )
    tracker.log(1, {"loss": 1.0})
    assert told == [{"tracked": False}]
    assert given[1:] == ["teardown", {"config": {"lr": 1}, "name": "n", "mode": "offline", "dir": "/run/wandb/e1"}]
    assert run.steps == [1]


def test_a_server_that_goes_away_is_told_of_and_one_that_is_there_as_well(monkeypatch):
    run, told = Recorder(), []
    fake_wandb(monkeypatch, run=run)
    tracker = tracking.begin(leads=True, attempt=0, config={}, settings={}, tell=told.append)
    tracker.log(1, {"loss": 1.0})
    assert told == [{"tracked": True}]
    run.broken = True
    tracker.log(2, {"loss": 1.0})
    assert told == [{"tracked": True}, {"tracked": False}]


def test_charts_are_over_the_steps_of_the_training(monkeypatch):
    run = Recorder()
    fake_wandb(monkeypatch, run=run)
    tracking.begin(leads=True, attempt=0, config={}, settings={})
    assert run.axes == {"*": STEP}


def test_the_link_to_the_beginning_stands_in_the_configuration(monkeypatch):
    given = fake_wandb(monkeypatch, run=Recorder())
    monkeypatch.setenv(PREVIOUS_WANDB_RUN, "run-1")
    tracking.begin(leads=True, attempt=0, config={"lr": 1}, settings={})
    assert given[0]["config"] == {"lr": 1, "sweeprun/previous_wandb_run": "run-1"}


def test_a_history_that_cannot_be_read_stops_nothing(monkeypatch, capfd):
    run = Recorder()
    fake_wandb(monkeypatch, run=run)
    monkeypatch.setenv(HISTORY, '{"counts": 3}')
    tracking.begin(leads=True, attempt=0, config={}, settings={}).log(1, {"loss": 1.0})
    assert (run.steps, run.summary) == ([1], {})
    assert f"{HISTORY}.counts: not an object" in capfd.readouterr().err


def test_a_client_without_that_setting_is_used_as_it_is(monkeypatch):
    run = Recorder()
    given = fake_wandb(monkeypatch, run=run, settings=lambda init_timeout: types.SimpleNamespace())
    tracking.begin(leads=True, attempt=0, config={}, settings={"name": "n"}).log(1, {"loss": 1.0})
    assert given[0]["name"] == "n"
    assert run.steps == [1]


def test_a_client_that_does_not_know_where_the_run_stands_is_not_used(monkeypatch, capfd):
    fake_wandb(monkeypatch, run=object())
    tracking.begin(leads=True, attempt=0, config={}, settings={}).log(1, {"loss": 1.0})
    assert "training goes on without it" in capfd.readouterr().err


def test_a_client_that_cannot_be_imported_does_not_end_training(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("WANDB_PROJECT", "p")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb.py").write_text("raise TypeError('Descriptors cannot be created directly')")
    monkeypatch.syspath_prepend(tmp_path)
    tracking.begin(leads=True, attempt=0, config={}, settings={}).log(1, {"loss": 1.0})
    assert "Descriptors cannot be created" in capfd.readouterr().err
