"""transformers' Trainer with the callback, two ranks: killed and told to stop, a run ends as an undisturbed one."""

from __future__ import annotations

import random
import signal

import pytest
import torch
from safetensors.torch import load_file

from support.framework_runs import differences, framework_run
from sweeprun_protocol.reasons import Format

SCRIPT = "transformers/train.py"
SIZE = ("--epochs", "2", "--checkpoint-every", "10")
SLOW = (*SIZE, "--step-seconds", "0.1")
STEPS = 50


def final(run):
    newest = run.newest()
    assert (newest.format, newest.step) == (Format.HUGGING_FACE, STEPS)
    place = run.root / newest.path
    parts = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth")
    loaded = {name: torch.load(place / name, weights_only=False) for name in parts}
    for name in parts[2:]:
        loaded[name]["numpy"] = [str(part) for part in loaded[name]["numpy"]]
    return {"model": load_file(place / "model.safetensors"), **loaded}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with framework_run(tmp_path_factory.mktemp("undisturbed"), SCRIPT) as run:
        assert run.attempt(*SIZE).codes() == [0, 0]
        yield run


def test_it_completes_with_its_metrics(undisturbed):
    done = undisturbed.completion()
    assert (done["step"], done["worldSize"]) == (STEPS, 2)
    assert {"loss", "eval_loss", "train_loss"} <= done["metrics"].keys()


def test_killed_and_then_stopped_it_ends_in_the_state_of_the_undisturbed_run(tmp_path, undisturbed):
    with framework_run(tmp_path, SCRIPT) as run:
        first = run.attempt(*SLOW)
        first.wait_step(random.Random(5).randrange(12, 17))
        first.kill()
        assert first.codes() == [-9, -9]
        assert (run.newest().format, run.newest().step) == (Format.HUGGING_FACE, 10)
        assert run.completion() is None

        second = run.attempt(*SLOW)
        second.wait_step(31)  # an epoch ends with steps 25 and 50: there a stop is not exact
        second.send(signal.SIGTERM, 1)
        assert second.codes() == [143, 143]
        stopped = run.newest().step
        assert 31 <= stopped < 40
        assert sorted(set(second.committed)) == [20, 30, stopped]
        assert run.completion() is None, "a stop is no completion"

        assert run.attempt(*SIZE).codes() == [0, 0]
        assert run.completion()["step"] == STEPS
        assert differences(final(run), final(undisturbed)) == []
