"""Lightning's Trainer with the callback, two ranks: killed and told to stop, a run ends as an undisturbed one does."""

from __future__ import annotations

import random
import signal

import pytest
import torch

from support.framework_runs import differences, framework_run
from sweeprun_protocol.reasons import Format

SCRIPT = "lightning/train.py"
SIZE = ("--epochs", "3", "--checkpoint-every", "10")
SLOW = (*SIZE, "--step-seconds", "0.05")
STEPS = 75


def final(run):
    newest = run.newest()
    assert (newest.format, newest.step) == (Format.LIGHTNING, STEPS)
    return torch.load(run.root / newest.path, weights_only=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with framework_run(tmp_path_factory.mktemp("undisturbed"), SCRIPT) as run:
        assert run.attempt(*SIZE).codes() == [0, 0]
        yield run


def test_it_completes_with_its_metrics_and_tells_what_it_committed(undisturbed):
    done = undisturbed.completion()
    assert (done["step"], done["worldSize"]) == (STEPS, 2)
    assert float(done["metrics"]["accuracy"]) > 0.5
    names = sorted(path.name for path in (undisturbed.root / "checkpoints").iterdir())
    assert names == sorted(f"attempt-0-step-{step}.ckpt" for step in (10, 20, 30, 40, 50, 60, 70, 75))


def test_killed_and_then_stopped_it_ends_in_the_state_of_the_undisturbed_run(tmp_path, undisturbed):
    with framework_run(tmp_path, SCRIPT) as run:
        first = run.attempt(*SLOW)
        first.wait_step(random.Random(5).randrange(22, 29))
        first.kill()
        assert first.codes() == [-9, -9]
        assert (run.newest().format, run.newest().step) == (Format.LIGHTNING, 20)
        assert run.completion() is None

        second = run.attempt(*SLOW)
        second.wait_step(33)
        second.send(signal.SIGTERM, 1)
        assert second.codes() == [143, 143]
        stopped = run.newest().step
        assert stopped >= 33
        assert sorted(set(second.committed)) == [30, stopped]
        assert run.completion() is None, "a stop is no completion"

        assert run.attempt(*SIZE).codes() == [0, 0]
        assert run.completion()["step"] == STEPS
        assert run.completion()["metrics"] == undisturbed.completion()["metrics"]
        assert differences(final(run), final(undisturbed)) == []
