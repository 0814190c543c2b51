"""The parts of a cluster that a bare API server lacks, played by tests: Job controller, training-operator, scheduler,
kubelet and garbage collector. Everything is a condition of the real API: pods are bound, evicted and terminate.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from support.cluster import Cluster
from sweeprun_protocol.prepare import PrepareReport

Raw = dict[str, Any]
NODE = "node-1"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def owned_by(owner: Raw) -> list[Raw]:
    meta = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return [{**reference, "controller": True}]


def container_status(pod: Raw, state: Raw) -> Raw:
    """Of its first container."""
    container = pod["spec"]["containers"][0]
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }


@dataclass(frozen=True)
class Played:
    cluster: Cluster

    def answer(self, job: str, report: PrepareReport) -> None:
        """The Job's pod ran and ended with this answer."""
        pod = self.start_helper(job)
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}
        state = {"terminated": {**ended, "message": report.encode().decode()}}
        self.status(pod, {"phase": "Succeeded", "containerStatuses": [self.container(pod, state)]})

    def fail_helper(self, job: str, code: int, *, reason: str = "Error") -> None:
        """The Job's pod ended badly, and the Job gave up."""
        pod = self.start_helper(job)
        ended = {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}
        self.status(pod, {"phase": "Failed", "containerStatuses": [self.container(pod, {"terminated": ended})]})
        condition = {"status": "True", "lastTransitionTime": now(), "reason": "BackoffLimitExceeded", "message": "m"}
        body = {
            "startTime": now(),
            "failed": 1,
            "conditions": [{"type": kind, **condition} for kind in ("FailureTarget", "Failed")],
        }
        self.cluster.patch("Job", job, {"status": body}, subresource="/status")

    def start_helper(self, job: str) -> str:
        """The Job controller's work; gives the pod's name."""
        found = self.cluster.get("Job", job)
        assert found is not None, f"no Job {job}"
        return self._pod(found, found["spec"]["template"], f"{job}-{found['status'].get('failed', 0)}", {})

    def start_attempt(self, name: str) -> list[str]:
        """training-operator makes all pods of a PyTorchJob, and the kubelet runs them; gives their names."""
        job = self.cluster.get("PyTorchJob", name)
        assert job is not None, f"no PyTorchJob {name}"
        made = []
        for replica, spec in job["spec"]["pytorchReplicaSpecs"].items():
            for index in range(spec.get("replicas", 1)):
                labels = {
                    "training.kubeflow.org/job-name": name,
                    "training.kubeflow.org/replica-type": replica.lower(),
                    "training.kubeflow.org/replica-index": str(index),
                }
                pod = f"{name}-{replica.lower()}-{index}"
                made.append(self._pod(job, spec["template"], pod, labels))
        for pod in made:
            running = {"running": {"startedAt": now()}}
            self.status(
                pod, {"phase": "Running", "startTime": now(), "containerStatuses": [self.container(pod, running)]}
            )
        self.job_status(name, "Running")
        return made

    def end_pod(self, pod: str, code: int, message: str = "") -> None:
        ended = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": now(),
            "finishedAt": now(),
        }
        state = {"terminated": {**ended, "message": message}}
        phase = "Succeeded" if code == 0 else "Failed"
        self.status(pod, {"phase": phase, "containerStatuses": [self.container(pod, state)]})

    def job_status(self, name: str, kind: str) -> None:
        """`Running`, `Succeeded` or `Failed`, as training-operator says it."""
        condition = {"type": kind, "status": "True", "reason": f"PyTorchJob{kind}", "message": f"it is {kind}"}
        times = {"lastUpdateTime": now(), "lastTransitionTime": now()}
        self.cluster.patch(
            "PyTorchJob", name, {"status": {"conditions": [{**condition, **times}]}}, subresource="/status"
        )

    def vanish(self, pod: str) -> None:
        """The kubelet confirmed, or the node was deleted: the object is gone."""
        self.cluster.delete("Pod", pod, grace=0)

    def collect_garbage(self) -> None:
        """What belonged to a run, a PyTorchJob or a Job that is gone goes, as quickly as pods can go."""
        for owners, kinds in ((("SweepRun",), ("PyTorchJob", "Job")), (("PyTorchJob", "Job"), ("Pod",))):
            alive = {one["metadata"]["uid"] for kind in owners for one in self.cluster.list(kind)}
            for kind in kinds:
                for child in self.cluster.list(kind):
                    meta = child["metadata"]
                    references = meta.get("ownerReferences", [])
                    if references and not any(reference["uid"] in alive for reference in references):
                        self.cluster.delete(kind, meta["name"], grace=0, uid=meta["uid"])

    def container(self, pod: str, state: Raw) -> Raw:
        spec = self.cluster.get("Pod", pod)
        assert spec is not None
        return container_status(spec, state)

    def status(self, pod: str, body: Raw) -> None:
        self.cluster.patch("Pod", pod, {"status": body}, subresource="/status")

    def _pod(self, owner: Raw, template: Raw, name: str, labels: dict[str, str]) -> str:
        template = copy.deepcopy(template)
        metadata = template.get("metadata") or {}
        kept = {**(metadata.get("labels") or {}), **labels}
        spec = {**template["spec"], "nodeName": NODE}
        # A bare API server knows no priority class, and no service account.
        spec.pop("priorityClassName", None)
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": kept,
                "annotations": metadata.get("annotations") or {},
                "ownerReferences": owned_by(owner),
            },
            "spec": spec,
        }
        self.cluster.ensure(made)
        return name
