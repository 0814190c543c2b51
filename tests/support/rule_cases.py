"""For every rule of the CRD one manifest that it lets pass and one that it refuses, both as people would write them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.manifests import Raw, make_init, make_sweeprun, with_value

CRD = Path(__file__).parents[2] / "crds" / "sweeprun.dev_sweepruns.yaml"


@dataclass(frozen=True)
class Case:
    words: str
    """Part of the message, of one rule only."""
    path: str
    good: Any
    bad: Any
    spec: Raw = field(default_factory=dict)
    """Beside it in spec, in both manifests."""

    def accepted(self) -> Raw:
        return with_value(make_sweeprun(**self.spec), self.path, self.good)

    def refused(self) -> Raw:
        return with_value(make_sweeprun(**self.spec), self.path, self.bad)

    def __str__(self) -> str:
        return f"{self.path}: {self.words}".replace(" ", "_")


LONGEST = "n" * 44
STORAGE = make_sweeprun()["spec"]["storage"]

AT_CREATION = [
    Case("at most 44 characters", "metadata.name", LONGEST, LONGEST + "n"),
    Case("begin with a letter", "metadata.name", "lr-0", "0-lr"),
    Case("config and init exclude each other", "spec.init", None, make_init(), spec={"config": {"lr": "0.01"}}),
    Case("marker of an interrupted run", "spec.runId", "digits.7", "digits.7.incomplete"),
    Case("would begin another", "spec.resume.onNoValidCheckpoint", "RestartRun", "NewRun", spec={"runId": "r.7"}),
    Case("compares spec.config", "spec.resume.adoption.scope", "SameRunId", "SameConfig"),
    Case("subPath must be a relative", "spec.storage.persistentVolumeClaim.subPath", "a/b", "a/../../b"),
    Case("mountPath must be an absolute", "spec.storage.mountPath", "/mnt/data", "/mnt/../etc"),
    Case("entrypoint is mounted there", "spec.storage.mountPath", "/sweeprun2", "/sweeprun"),
    Case("runDirectory must be a relative", "spec.storage.runDirectory", "a/{runId}", "../{runId}"),
    Case("{sweepName} and {runId} and no", "spec.storage.runDirectory", "{sweepName}/{runId}", "{user}/{runId}"),
    Case("end with /{runId}", "spec.storage.runDirectory", "runs/{runId}", "{runId}/runs"),
    Case("pythonPath must be an absolute", "spec.entrypoint.pythonPath", "/opt/conda/bin/python", "python3"),
    Case("checkpoint.directory must be a relative", "spec.checkpoint.directory", "out/ckpt", "/out/ckpt"),
    Case("{epoch} and no other", "spec.checkpoint.directory", "ckpt/{epoch}", "ckpt/{runId}"),
    Case("SweepRun's own records", "spec.checkpoint.directory", "out/epochs", "epochs/out"),
    Case("SweepRun's own records", "spec.checkpoint.directory", "trash/out", ".sweeprun-trash/out"),
    Case("SweepRun's own records", "spec.checkpoint.directory", "out/verdicts", "verdicts/out"),
    Case(
        "backoff.initialSeconds must not",
        "spec.limits.backoff",
        {"initialSeconds": 5, "maxSeconds": 5},
        {"initialSeconds": 601},
    ),
    Case(
        "fromStep goes with action Retry",
        "spec.request",
        {"id": "1", "action": "Retry", "fromStep": 500},
        {"id": "1", "action": "Stop", "fromStep": 500},
    ),
]

ON_CHANGE = [
    Case("sweepName cannot be changed", "spec.sweepName", "digits-lr", "digits-wd"),
    Case("config cannot be changed", "spec.config", {"lr": "0.01"}, {"lr": "0.1"}, spec={"config": {"lr": "0.01"}}),
    Case("config cannot be changed", "spec.config", None, {"lr": "0.1"}),
    Case("config cannot be changed", "spec.config", {"lr": "0.01"}, None, spec={"config": {"lr": "0.01"}}),
    Case("configFileName cannot be changed", "spec.configFileName", "train_config_overrides.yaml", "other.yaml"),
    Case("storage cannot be changed", "spec.storage", STORAGE, {**STORAGE, "mountPath": "/mnt"}),
    Case(
        "init cannot be changed",
        "spec.init",
        make_init(),
        make_init(activeDeadlineSeconds=5),
        spec={"init": make_init()},
    ),
    Case("init cannot be added or removed", "spec.init", None, make_init()),
    Case("init cannot be added or removed", "spec.init", make_init(), None, spec={"init": make_init()}),
    Case("checkpoint.directory cannot be changed", "spec.checkpoint.directory", "checkpoints", "elsewhere"),
    Case("runId is given when", "spec.runId", "r.7", "r.8", spec={"runId": "r.7"}),
    Case("runId is given when", "spec.runId", None, "r.8"),
    Case("runId is given when", "spec.runId", "r.7", None, spec={"runId": "r.7"}),
    Case(
        "each id is handled once",
        "spec.request",
        {"id": "2", "action": "Stop"},
        {"id": "1", "action": "Stop"},
        spec={"request": {"id": "1", "action": "Retry"}},
    ),
]
"""`make_sweeprun(**spec)` is there already, and is then changed."""


@functools.cache
def messages() -> list[str]:
    """Of every rule in the CRD."""
    return [rule["message"] for rule in _rules(yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"])]


def message_of(case: Case) -> str:
    """The whole message of the rule that the case is about."""
    found = {message for message in messages() if case.words in message}
    assert len(found) == 1, f"{case.words!r} is part of {len(found)} messages"
    return found.pop()


def _rules(node: Any) -> Iterator[Raw]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", [])
        for child in node.values():
            yield from _rules(child)
    elif isinstance(node, list):
        for child in node:
            yield from _rules(child)
