"""What has to hold after an interruption in mid-training: the same run goes on, and all is counted once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import yaml

from support.cluster import Raw
from support.story import Story, example, with_arguments
from support.wandb_server.journal import Run

MIDDLE = 100
"""A step by which checkpoints are there and most of the training is not done."""
EARLY = 20
SLOWLY = ("--step-seconds", "0.5")
"""For an end that takes its time to come: two minutes of training are left at step EARLY."""


def begin(story: Callable[[str], Story], kind: str, name: str, *arguments: str) -> Story:
    """Apply the example and wait until it is in the middle of its training."""
    told = story(name).apply(with_arguments(example(kind, name), *arguments))
    told.wait_step(MIDDLE)
    return told


def pace(told: Story, seconds: float = 0.05) -> None:
    """Of the next attempt, which the template counts for: the one that runs keeps its own."""
    template = with_arguments(told.run, "--step-seconds", str(seconds))["spec"]["template"]
    told.cluster.patch("SweepRun", told.name, {"spec": {"template": template}})


def check_continued(
    told: Story,
    kind: str,
    undisturbed: Callable[[str], Story],
    *,
    cause: str,
    counted: str = "disruptions",
    attempts: int = 2,
    since: int = MIDDLE,
) -> Raw:
    """Same run, same configuration, the cause and its count, a resume from `since` or later, the same final state."""
    before = told.status
    configuration = _digest_of_configuration(told)
    status = told.wait_complete()
    assert status["runId"] == before["runId"]
    assert not status.get("previousRunIds")
    assert _digest_of_configuration(told) == configuration
    counts = status["counts"]
    assert (counts["attempts"], counts["resumes"], counts["restarts"]) == (attempts, attempts - 1, 0), counts
    ends = {end: counts[end] for end in ("disruptions", "failures", "neverStarted")}
    assert ends == {"disruptions": 0, "failures": 0, "neverStarted": 0, counted: attempts - 1}
    interrupted, resumed = told.history()[0], told.history()[-1]
    assert interrupted["cause"] == cause, yaml.safe_dump(interrupted)
    assert resumed["outcome"] == "Resume"
    assert resumed["fromStep"] >= since
    assert told.digest() == undisturbed(kind).digest(), "the final state differs from the undisturbed run's"
    return status


def _digest_of_configuration(told: Story) -> str:
    return hashlib.sha256(told.run_directory.joinpath("train_config_overrides.yaml").read_bytes()).hexdigest()


def check_wandb_continued(told: Story, journal: Callable[[str], Run], *, attempts: int = 2) -> None:
    """One W&B run, written by one process at a time, with every step once."""
    run = journal(told.status["wandbRunId"])
    assert run.inserted_count == 1, "one W&B run"
    assert len(run.process_ids) == attempts
    assert run.duplicate_steps() == []
    assert run.missing_steps(run.steps[0], run.steps[-1]) == []
    assert run.overlapping_writers() == []
    assert run.conflicts == []
    assert run.exit_codes[-1] == 0
    assert run.summary["sweeprun/attempts"] == told.status["counts"]["attempts"]


def wait_stuck(told: Story, node: str) -> Raw:
    """The attempt has ended, its cause stands, and nothing follows while its pods may still write."""
    stuck = told.wait_condition("Stuck", timeout=120)
    assert stuck["reason"] == "NodeUnreachable"
    assert node in stuck["message"]
    assert told.status["counts"]["attempts"] == 1
    assert told.status["current"]["state"] == "Draining"
    return stuck
