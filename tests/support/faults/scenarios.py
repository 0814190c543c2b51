"""What happens to a run, whatever faults meet its operator, and how it must end all the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.manifests import make_sweeprun, make_template
from support.simulated_volume import STEPS

from .player import Player

Raw = dict[str, Any]
Look = Callable[[Player], Any]
Act = Callable[[Player], None]
PART = 260
"""Steps that an attempt gets to before it is disturbed: some of them are committed."""


@dataclass(frozen=True)
class Scenario:
    name: str
    steps: tuple[tuple[Look, Act], ...]
    over: Look
    ends: Raw
    """Fields of `outcome` that are known beforehand; the undisturbed run says the rest."""
    spec: Raw = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        found: int = self.ends.get("counts", {}).get("attempts", 1)
        return found

    def manifest(self) -> Raw:
        limits = {"backoff": {"initialSeconds": 1, "maxSeconds": 1}, **self.spec.get("limits", {})}
        return make_sweeprun("run", **{**self.spec, "limits": limits})


def outcome(status: Raw) -> Raw:
    """What is the same however the operator fared. Causes are not: a pod that went unseen only counts as lost."""
    history = [
        {key: entry.get(key) for key in ("attempt", "epoch", "outcome", "kind", "fromStep", "toStep")}
        for entry in status.get("history", [])
    ]
    kept = {key: status.get(key) for key in ("phase", "runId", "result")}
    since = status.get("sinceProgress", {})
    checkpoint = (status.get("checkpoint") or {}).get("step")
    return {**kept, "counts": status.get("counts", {}), "since": since, "checkpoint": checkpoint, "history": history}


# -- conditions --------------------------------------------------------------------------------------------------------


def running(attempt: int) -> Look:
    return lambda player: player.runs_attempt(attempt)


def is_true(kind: str) -> Look:
    return lambda player: player.condition(kind).get("status") == "True"


def ended(kind: str) -> Look:
    """Nothing of it is left, either."""
    return lambda player: is_true(kind)(player) and not player.all("PyTorchJob") and not player.trainers()


def _nothing_left(player: Player) -> bool:
    return not any(player.all(kind) for kind in ("SweepRun", "Job", "PyTorchJob", "Pod"))


def held(player: Player) -> bool:
    return bool(player.status.get("current", {}).get("state") == "Held")


def draining(player: Player) -> bool:
    return bool(player.status.get("current", {}).get("state") == "Draining")


def suspended(player: Player) -> bool:
    return ended("Suspended")(player) and player.status["current"]["state"] == "Held"


# -- actions -----------------------------------------------------------------------------------------------------------


def completes(attempt: int) -> Act:
    def act(player: Player) -> None:
        player.train(attempt, STEPS)
        for pod in player.trainers(attempt):
            player.finish(pod, 0)

    return act


def is_evicted(attempt: int) -> Act:
    def act(player: Player) -> None:
        player.train(attempt, PART)
        player.cluster.evict(f"run-a{attempt}-worker-0")

    return act


def fails(attempt: int) -> Act:
    def act(player: Player) -> None:
        player.train(attempt, 10)
        (worker,) = [pod for pod in player.trainers(attempt) if "worker" in pod["metadata"]["name"]]
        player.finish(worker, 1)

    return act


def trains(attempt: int) -> Act:
    return lambda player: player.train(attempt, PART)


def both(first: Act, second: Act) -> Act:
    def act(player: Player) -> None:
        first(player)
        second(player)

    return act


def edits(**spec: Any) -> Act:
    def act(player: Player) -> None:
        player.cluster.patch("SweepRun", "run", {"spec": copy.deepcopy(spec)})

    return act


def is_deleted(player: Player) -> None:
    player.cluster.delete("SweepRun", "run")


def is_made(manifest: Raw) -> Act:
    def act(player: Player) -> None:
        player.cluster.create(manifest)

    return act


def _template(image: str) -> Raw:
    template = make_template()
    for replica in template["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["containers"][0]["image"] = image
    return template


COMPLETE = {"phase": "Completed", "runId": "run"}
RESUMED = {"attempts": 2, "resumes": 1, "restarts": 0, "freshStarts": 0}
RECREATED = Scenario(
    "recreated",
    (
        (running(0), is_evicted(0)),
        (draining, is_deleted),
        (lambda player: player.run is None, is_made(Scenario("", (), is_true(""), {}).manifest())),
        (running(0), completes(0)),
    ),
    ended("Complete"),
    {**COMPLETE, "counts": {"attempts": 1}},
)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "undisturbed", ((running(0), completes(0)),), ended("Complete"), {**COMPLETE, "counts": {"attempts": 1}}
        ),
        Scenario(
            "evicted",
            ((running(0), is_evicted(0)), (running(1), completes(1))),
            ended("Complete"),
            {**COMPLETE, "counts": {**RESUMED, "disruptions": 1, "failures": 0}},
        ),
        Scenario(
            "failing",
            ((running(0), fails(0)), (running(1), fails(1))),
            ended("Failed"),
            {"phase": "Failed", "counts": {"attempts": 2, "failures": 2, "disruptions": 0}},
            {"limits": {"maxFailures": 1}},
        ),
        Scenario(
            "suspended",
            (
                (running(0), both(trains(0), edits(suspend=True))),
                (suspended, edits(suspend=False)),
                (running(1), completes(1)),
            ),
            ended("Complete"),
            {**COMPLETE, "counts": {**RESUMED, "disruptions": 0, "failures": 0}},
        ),
        Scenario(
            "stopped",
            (
                (running(0), both(trains(0), edits(request={"id": "1", "action": "Stop"}))),
                (ended("Failed"), edits(request={"id": "2", "action": "Retry"})),
                (running(1), completes(1)),
            ),
            ended("Complete"),
            {**COMPLETE, "counts": {**RESUMED, "disruptions": 0, "failures": 0}},
        ),
        Scenario(
            "hasty",
            (
                (lambda player: len(player.trainers(0)) == 2, edits(suspend=True)),
                (held, edits(suspend=False)),
                (running(1), completes(1)),
            ),
            ended("Complete"),
            {**COMPLETE, "counts": {"attempts": 2, "resumes": 0, "restarts": 1, "disruptions": 0, "failures": 0}},
        ),
        Scenario("deleted", ((running(0), both(trains(0), is_deleted)),), _nothing_left, {}),
        RECREATED,
        Scenario(
            "edited",
            (
                (running(0), both(edits(template=_template("registry.test/trainer:2")), is_evicted(0))),
                (running(1), completes(1)),
            ),
            ended("Complete"),
            {**COMPLETE, "counts": {**RESUMED, "disruptions": 1}},
        ),
    )
}
