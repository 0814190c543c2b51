"""What a run tells the volume: that the library is used, and that it is complete."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy
import pytest
import torch

from sweeprun_protocol.curve import decode_row
from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.records import CompleteRecord
from sweeprun_trainer import run as runs
from sweeprun_trainer.agreement import NotAgreedError
from sweeprun_trainer.ranks import Ranks
from sweeprun_trainer.run import NotCompletedError, Run
from sweeprun_trainer.stop import StopFlag
from sweeprun_trainer.tracking import Tracker


@pytest.fixture
def run(tmp_path):
    environment = RunEnvironment(
        run_id="run-1",
        sweep_name="sweep",
        run_dir=str(tmp_path),
        checkpoint_dir=str(tmp_path / "checkpoints"),
        config_file=str(tmp_path / "train_config_overrides.yaml"),
        epoch=3,
        attempt=2,
        slots=["master-0"],
        grace_seconds=30,
        resume_from=None,
        resume_step=None,
        resume_epoch=None,
        resume_digest=None,
        resume_format=None,
        resume_args="",
    )
    return Run(environment, Ranks(timeout_seconds=5), StopFlag())


def record(tmp_path, name):
    return json.loads((tmp_path / "epochs" / "3" / name).read_text())


def test_the_use_of_the_library_is_recorded_before_the_first_step(run, tmp_path):
    run.announce()
    assert record(tmp_path, "library.json") == {"epoch": 3, "worldSize": 1}


def test_a_use_that_cannot_be_recorded_ends_before_the_first_step(run, tmp_path):
    (tmp_path / "epochs").write_text("in the way")
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        run.announce()


def test_what_is_logged_is_kept_for_the_report_with_and_without_wandb(run, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run.announce()
    run.track().log(10, {"loss": 0.5})
    run.complete(step=10)
    line = (tmp_path / "epochs" / "3" / "metrics.jsonl").read_bytes()
    assert decode_row(line) == (10, {"loss": 0.5})


def test_completion_is_recorded_with_step_and_metrics(run, tmp_path):
    run.complete({"loss": 0.25, "epochs": 3, "name": "best"}, step=500)
    found = CompleteRecord.from_value(record(tmp_path, "complete.json"), "complete.json")
    assert (found.epoch, found.step, found.world_size) == (3, 500, 1)
    assert found.metrics == {"loss": "0.25", "epochs": "3", "name": "best"}


def test_metrics_that_do_not_fit_do_not_keep_a_run_from_being_complete(run, tmp_path, capfd):
    metrics = {"x" * 65: 1, "long": "y" * 500, **{f"m{number}": number for number in range(40)}}
    run.complete(metrics, step=1)
    found = CompleteRecord.from_value(record(tmp_path, "complete.json"), "complete.json")
    assert len(found.metrics) == 32
    assert found.metrics["long"] == "y" * 64
    assert "is not reported" in capfd.readouterr().err


def test_a_completion_that_cannot_be_recorded_is_an_error_not_a_good_end(run, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "COMPLETE_SECONDS", 0.0)
    (tmp_path / "epochs").write_text("in the way")
    with pytest.raises(NotCompletedError, match="cannot be recorded"):
        run.complete(step=1)


def test_completing_twice_alike_is_no_error(run, tmp_path):
    run.complete(step=1)
    run.complete(step=1)


def test_a_checkpoint_names_the_configuration_that_it_was_trained_with(run, tmp_path):
    (tmp_path / "train_config_overrides.yaml").write_text("lr: '0.1'\n")
    run.checkpointer({}).save(1)
    manifest = json.loads((tmp_path / "checkpoints" / "step-000000001.e3" / "manifest.json").read_text())
    assert manifest["configDigest"].startswith("sha256:")
    assert manifest["runId"] == "run-1"


class Recorder:
    """The end that W&B takes."""

    starting_step = 0

    def __init__(self):
        self.exit_codes, self.summary = [], {}

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


def test_ranks_that_have_not_joined_do_not_take_themselves_for_the_only_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"after torch\.distributed\.init_process_group"):
        runs.begin(timeout_seconds=5)


def test_numbers_of_other_libraries_are_numbers(run, tmp_path):
    assert not run.should_stop(numpy.int64(3))
    run.complete({"loss": torch.tensor(0.5)}, step=numpy.int64(7))
    assert record(tmp_path, "complete.json")["step"] == 7


def test_a_metric_that_cannot_be_told_does_not_keep_a_run_from_being_complete(run, tmp_path, capfd):
    class Broken:
        def __str__(self):
            raise ValueError("no text")

    run.complete({"broken": Broken(), 3: 4}, step=1)
    assert record(tmp_path, "complete.json")["metrics"] == {"3": "4"}
    assert "no text" in capfd.readouterr().err


@pytest.mark.parametrize("call", ["announce", "complete"])
def test_whatever_rank_0_runs_into_is_told_to_the_others(run, monkeypatch, call):
    def fail(*_):
        raise ValueError("unheard of")

    told = []
    monkeypatch.setattr(runs, "COMPLETE_SECONDS", 0.0)
    monkeypatch.setattr(runs, "publish_record", fail)
    monkeypatch.setattr(run._ranks, "share", lambda problem: told.append(problem) or problem)
    with pytest.raises(RuntimeError, match="unheard of"):
        getattr(run, call)()
    assert told == ["unheard of"]


def test_a_part_that_is_called_as_ours_is_refused_and_not_lost(run):
    with pytest.raises(ValueError, match="'tracking' cannot name"):
        run.checkpointer({"tracking": torch.nn.Linear(1, 1)})


def test_no_rank_trains_and_wandb_is_told_so(run, tmp_path):
    run._tracker = Tracker(Recorder(), attempt=0)
    wandb = run._tracker._run
    checkpoints = run.checkpointer({})
    checkpoints._pinned = replace(checkpoints._pinned, path="checkpoints/step-000000001.e2", format="SweepRun")
    with pytest.raises(NotAgreedError):
        checkpoints.restore()
    assert wandb.exit_codes == [87]


def test_a_second_start_outside_a_sweeprun_saves_beside_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        checkpoints = Run(None, Ranks(timeout_seconds=5), StopFlag()).checkpointer({})
        assert checkpoints.restore() == 0
        assert checkpoints.save(5)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000005.e1",
        "step-000000005.e2",
    ]


def test_a_start_outside_a_sweeprun_does_not_sweep_what_another_is_writing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Run(None, Ranks(timeout_seconds=5), StopFlag()).checkpointer({})
    first.save(5)
    _, staging = first._committer.begin(6)
    Run(None, Ranks(timeout_seconds=5), StopFlag()).checkpointer({}).restore()
    assert (tmp_path / staging).is_dir()


def test_the_end_of_wandb_leaves_most_of_the_grace(run):
    assert run._finish_seconds() == 10
    assert Run(None, run._ranks, StopFlag())._finish_seconds() == 60


def test_importing_the_library_needs_neither_torch_nor_wandb():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'wandb', 'numpy'])); "
        "import sweeprun_trainer, sweeprun_trainer.__main__; assert sweeprun_trainer.STOPPED == 143"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_completing_ends_the_run_of_wandb_well_and_once(run):
    run._tracker = Tracker(Recorder(), attempt=0)
    wandb = run._tracker._run
    run.complete(step=1)
    run.finish(143)
    assert wandb.exit_codes == [0]


def test_a_completion_that_says_something_else_is_an_error(run):
    run.complete(step=1)
    with pytest.raises(NotCompletedError, match="says something else"):
        run.complete(step=2)


def test_only_rank_0_writes_records(run, tmp_path):
    run._ranks.rank = 1
    run.announce()
    run.complete(step=1)
    assert not (tmp_path / "epochs").exists()
