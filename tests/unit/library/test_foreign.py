"""Checkpoints that another library writes: which one is loaded, when one counts, and what its callback refuses."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

import sweeprun_trainer
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_trainer.agreement import NotAgreedError, Pinned
from sweeprun_trainer.channel import Sender
from sweeprun_trainer.foreign import ForeignCheckpoints
from sweeprun_trainer.ranks import Ranks
from sweeprun_volume.operations import Volume


@pytest.fixture
def left():
    """Exit codes that were told."""
    return []


def checkpoints(directory, left, *, step=0, kind="Torch"):
    path = "checkpoints/x" if step else None
    pinned = Pinned("run-1", 2, step, path, None, kind if step else None)
    return ForeignCheckpoints(Volume(str(directory)), Ranks(timeout_seconds=5), Sender({}), pinned, leave=left.append)


def test_places_come_by_the_environment_and_have_a_default_outside(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (sweeprun_trainer.resume_path(), sweeprun_trainer.checkpoint_directory()) == (
        None,
        str(tmp_path / "checkpoints"),
    )
    monkeypatch.setenv("SWEEPRUN_CHECKPOINT_DIR", "/data/run/checkpoints/2")
    monkeypatch.setenv("SWEEPRUN_RESUME_FROM", "/data/run/checkpoints/1/x.ckpt")
    assert (sweeprun_trainer.resume_path(), sweeprun_trainer.checkpoint_directory()) == (
        "/data/run/checkpoints/1/x.ckpt",
        "/data/run/checkpoints/2",
    )


def test_a_checkpoint_that_is_there_is_agreed_on(tmp_path, left, monkeypatch):
    (tmp_path / "x").touch()
    monkeypatch.setenv("SWEEPRUN_RESUME_FROM", str(tmp_path / "x"))
    checkpoints(tmp_path, left, step=5).agree()
    assert left == []


@pytest.mark.parametrize(
    ("kind", "problem", "said"),
    [
        ("Torch", None, "x is not there"),
        ("SweepRun", None, "which has to restore it"),
        ("Torch", "it is wet", "rank 0: it is wet"),
    ],
)
def test_what_is_not_agreed_on_is_not_trained_from(kind, problem, said, tmp_path, left, monkeypatch):
    monkeypatch.setenv("SWEEPRUN_RESUME_FROM", str(tmp_path / "x"))
    with pytest.raises(NotAgreedError, match=said):
        checkpoints(tmp_path, left, step=5, kind=kind).agree(problem)
    assert left == [ExitCode.NO_AGREEMENT]


def test_a_checkpoint_gets_its_name_when_it_is_whole(tmp_path, left):
    (tmp_path / ".one").mkdir()
    (tmp_path / ".one" / "part").write_text("x")
    (tmp_path / ".two").write_text("y")
    found = checkpoints(tmp_path, left)
    found.publish(".one", "one", step=1)
    found.publish(".two", "two", step=2)
    assert (tmp_path / "one" / "part").read_text() == "x"
    assert (tmp_path / "two").read_text() == "y"
    (tmp_path / ".two").write_text("z")
    with pytest.raises(OSError, match="two cannot be committed: the name is taken"):
        found.publish(".two", "two", step=2)
    assert (tmp_path / "two").read_text() == "y"


def test_one_that_is_not_there_cannot_be_made_durable(tmp_path, left):
    (tmp_path / "one").write_text("x")
    checkpoints(tmp_path, left).make_durable("one", step=1)
    with pytest.raises(OSError, match="two cannot be made durable: rank 0"):
        checkpoints(tmp_path, left).make_durable("two", step=2)


@pytest.mark.parametrize(
    ("changed", "step", "said"),
    [
        ({}, 0, None),
        ({"output_dir": "elsewhere"}, 0, "output_dir is elsewhere: set it to"),
        ({"save_only_model": True}, 0, "save_only_model"),
        ({"enable_jit_checkpoint": True}, 0, "enable_jit_checkpoint"),
        ({}, 7, "starts after step 0, and Trainer after step 7"),
    ],
)
def test_transformers_arguments_that_would_lose_the_run_are_refused(changed, step, said, tmp_path, left, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import: not ours
        from sweeprun_trainer.transformers import SweepRunCallback
    monkeypatch.setenv("SWEEPRUN_CHECKPOINT_DIR", str(tmp_path))
    callback = SweepRunCallback()
    callback._checkpoints = checkpoints(tmp_path, left)
    arguments = {"output_dir": str(tmp_path), "save_only_model": False, "enable_jit_checkpoint": False, **changed}
    problem = callback._problem(SimpleNamespace(**arguments), SimpleNamespace(global_step=step))
    assert (problem is None) if said is None else (said in problem)
