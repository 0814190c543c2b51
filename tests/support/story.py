"""One SweepRun on a real cluster, told step by step: apply, wait for training to get somewhere, disturb, look."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.cluster import Cluster, Raw, eventually
from sweeprun_protocol.layout import RunLayout, parse_step_name

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"
MANIFESTS = {"library": EXAMPLES / "sweeprun.yaml", "plain": EXAMPLES / "sweeprun-plain.yaml"}

SOON = 4
"""Steps between two saves of a training of one rank."""

SIDECAR: Raw = {
    "name": "sidecar",
    "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"],
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
}


def example(kind: str, name: str) -> Raw:
    """The example as people apply it, under another name and in a sweep of its own, with a container beside."""
    manifest: Raw = yaml.safe_load(MANIFESTS[kind].read_text())
    manifest["metadata"] = {"name": name}
    spec = manifest["spec"]
    spec["sweepName"] = name
    spec["limits"] = {"backoff": {"initialSeconds": 1, "maxSeconds": 5}}
    for replica in replicas(manifest):
        pod = replica["template"]["spec"]
        trainer = named(pod, "pytorch")
        pod["containers"].append(
            copy.deepcopy(SIDECAR) | {"image": trainer["image"], "securityContext": trainer["securityContext"]}
        )
        pod["affinity"] = one_per_node(name)
        replica["template"].setdefault("metadata", {}).setdefault("labels", {})["story"] = name
    return manifest


def of_one_rank(kind: str, name: str) -> Raw:
    """A short training without a peer to lose, saved every SOON steps."""
    manifest = with_arguments(example(kind, name), "--steps", "100", "--checkpoint-every", str(SOON))
    del manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Worker"]
    return manifest


def one_per_node(name: str) -> Raw:
    return {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"story": name}}, "topologyKey": "kubernetes.io/hostname"}
            ]
        }
    }


def replicas(manifest: Raw) -> list[Raw]:
    return list(manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"].values())


def named(pod: Raw, name: str) -> Raw:
    return next(container for container in pod["containers"] if container["name"] == name)


def with_arguments(manifest: Raw, *arguments: str) -> Raw:
    """Later arguments win, as argparse has it."""
    for replica in replicas(manifest):
        trainer = named(replica["template"]["spec"], "pytorch")
        trainer["args"] = [*trainer.get("args", []), *arguments]
    return manifest


@dataclass(frozen=True)
class Story:
    cluster: Cluster
    name: str
    volume: Path
    """The shared volume, as the test sees it."""

    def apply(self, manifest: Raw) -> Story:
        self.cluster.create(manifest)
        return self

    @property
    def run(self) -> Raw:
        run = self.cluster.get("SweepRun", self.name)
        assert run is not None, f"SweepRun {self.name} is gone"
        return run

    @property
    def status(self) -> Raw:
        status: Raw = self.run.get("status", {})
        return status

    def condition(self, kind: str) -> Raw:
        for condition in self.status.get("conditions", []):
            if condition["type"] == kind:
                found: Raw = condition
                return found
        return {"type": kind, "status": "Unknown", "reason": "", "message": ""}

    def wait(self, look: Callable[[Raw], Any], what: str, *, timeout: float = 180) -> Raw:
        """Until `look(status)` is true; a run that has failed meanwhile ends the wait at once."""

        def seen() -> Raw | None:
            status = self.status
            if not status:  # the operator has not seen it yet
                return None
            if look(status):
                return status
            failed = self.condition("Failed")
            assert failed["status"] != "True", f"{self.name} failed while waiting for {what}: {failed}"
            return None

        try:
            return eventually(seen, f"{self.name}: {what}", timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{yaml.safe_dump(self.status)}") from error

    def wait_condition(self, kind: str, *, status: str = "True", timeout: float = 180) -> Raw:
        def seen() -> Raw | None:
            condition = self.condition(kind)
            return condition if condition["status"] == status else None

        try:
            return eventually(seen, f"{self.name}: {kind}={status}", timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{yaml.safe_dump(self.status)}") from error

    def wait_complete(self, *, timeout: float = 300) -> Raw:
        self.wait(lambda _: self.condition("Complete")["status"] == "True", "complete", timeout=timeout)
        return self.status

    def wait_attempt(self, number: int, *, state: str = "Running", timeout: float = 180) -> Raw:
        return self.wait(
            lambda status: (
                (current := status.get("current", {})).get("attempt", -1) == number and current.get("state") == state
            ),
            f"attempt {number} {state}",
            timeout=timeout,
        )

    @property
    def run_directory(self) -> Path:
        run = self.run
        return self.volume / "sweep" / str(run["spec"]["sweepName"]) / "runs" / str(run["status"]["runId"])

    @property
    def layout(self) -> RunLayout:
        return RunLayout(str(self.run_directory))

    def checkpoints(self) -> list[tuple[int, int, Path]]:
        """(step, epoch, path) of what looks committed, by the example's names: both scripts put the step last."""
        found = []
        # a commit renames its directory under the walk, which os.walk passes over and Path.glob does not
        for directory, below, files in os.walk(self.run_directory / "checkpoints"):
            place = Path(directory)
            for name in below:
                parsed = parse_step_name(name)
                if parsed and (place / name / "manifest.json").exists():
                    found.append((*parsed, place / name))
            below[:] = [name for name in below if not name.startswith(".") and not parse_step_name(name)]
            for name in files:
                path = place / name
                if path.suffix == ".pt" and path.stem.startswith("step-"):
                    epoch = int(place.name) if place.name.isdigit() else 0
                    found.append((int(path.stem.split("-")[-1]), epoch, path))
        return sorted(found, key=lambda item: item[:2])

    def wait_step(self, step: int, *, timeout: float = 180) -> None:
        """Until a checkpoint of `step` or later is there, of whatever epoch."""
        self.wait(
            lambda status: status.get("runId") and any(found >= step for found, _, _ in self.checkpoints()),
            f"a checkpoint of step {step}",
            timeout=timeout,
        )

    def pod(self, slot: str) -> str:
        attempt = self.status["current"]["attempt"]
        return f"{self.name}-a{attempt}-{slot}"

    def digest(self) -> str:
        """Digest of the final state, as both scripts leave it in the run directory."""
        return (self.run_directory / "final_digest.txt").read_text().strip()

    def history(self) -> list[Raw]:
        history: list[Raw] = self.status["history"]
        return history

    def event_reasons(self) -> list[str]:
        return [event["reason"] for event in self.cluster.events_of(self.name)]

    def decision(self, epoch: int) -> Raw:
        found: Raw = json.loads(Path(self.layout.decision(epoch)).read_text())
        return found
