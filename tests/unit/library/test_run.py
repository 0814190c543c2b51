"""What a run tells the volume: that the library is used, and that it is complete."""

from __future__ import annotations

import json

import pytest

from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.records import CompleteRecord
from sweeprun_trainer import run as runs
from sweeprun_trainer.ranks import Ranks
from sweeprun_trainer.run import NotCompletedError, Run
from sweeprun_trainer.stop import StopFlag


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
