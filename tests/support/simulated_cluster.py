"""A cluster in memory that moves in small steps: training-operator, Job controller, kubelets, garbage collection.

It writes raw objects into a MemoryGateway, as the real ones would into an API server, so that the operator's own
gather, decide and execute run against it. Nothing happens by itself: a test calls `step`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from support.manifests import UID, make_sweeprun
from support.memory_gateway import MemoryGateway
from support.simulated_volume import SimulatedVolume
from sweeprun_operator.cluster.observe import REPLICA_INDEX_LABEL, REPLICA_TYPE_LABEL
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_LABEL, ROLE_SURVEY
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareRequest

Raw = dict[str, Any]
NAMESPACE, NAME = "default", "digits-lr-0"


class SimulatedCluster(MemoryGateway):
    def __init__(self, rng: Random, **spec: Any) -> None:
        super().__init__()
        self.rng = rng
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.volume = SimulatedVolume()
        self.silent: set[str] = set()
        """Nodes that do not answer."""
        self.attempts_made: list[int] = []
        self._uids = 0
        raw = make_sweeprun(NAME, **spec)
        raw["metadata"] |= {"uid": UID, "generation": 1}
        self.put("SweepRun", raw)
        self.put("PersistentVolumeClaim", {"metadata": {"name": "sweeps"}, "spec": {"accessModes": ["ReadWriteMany"]}})
        for node in ("node-1", "node-2"):
            self.put("Node", {"metadata": {"name": node}, "status": {"conditions": [_condition("Ready")]}})

    def put(self, kind: str, raw: Raw, *, namespace: str = NAMESPACE) -> Raw:
        if "uid" not in raw.setdefault("metadata", {}):
            self._uids += 1
            raw["metadata"]["uid"] = f"uid-{self._uids}"
        raw["metadata"].setdefault("creationTimestamp", self.time())
        if kind == "PyTorchJob" and raw["metadata"]["name"] not in self.names(kind):
            self._made(raw)
        return super().put(kind, raw, namespace=namespace)

    def _made(self, job: Raw) -> None:
        """What must hold whenever a PyTorchJob is made."""
        attempt = _number(job)
        assert not self.names("PyTorchJob"), "at most one live PyTorchJob"
        others = [pod["metadata"]["name"] for pod in self.trainers() if _number(pod) != attempt]
        assert not others, f"no attempt beside pods of another one: {others}"
        status = self.run["status"]
        assert status["counts"]["attempts"] == attempt + 1, "the status is written first"
        self.attempts_made.append(attempt)

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Raw:
        return self.objects["SweepRun", NAMESPACE, NAME]

    @property
    def status(self) -> Raw:
        found: Raw = self.run.get("status", {})
        return found

    def is_true(self, condition: str) -> bool:
        return any(item["type"] == condition and item["status"] == "True" for item in self.status.get("conditions", []))

    def time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def all(self, kind: str) -> list[Raw]:
        return [raw for (found, _, _), raw in sorted(self.objects.items()) if found == kind]

    def trainers(self) -> list[Raw]:
        return [pod for pod in self.all("Pod") if REPLICA_TYPE_LABEL in pod["metadata"]["labels"]]

    def edit(self, **spec: Any) -> None:
        raw = self.run
        raw["spec"] |= spec
        raw["metadata"]["generation"] += 1
        self.put("SweepRun", raw)

    # -- moving --------------------------------------------------------------------------------------------------------

    def step(self, seconds: float, *, trouble: float = 0.0) -> None:
        """`trouble` is the chance that a prepare gives no answer."""
        self.now += timedelta(seconds=seconds)
        for job in self.all("PyTorchJob"):
            self._operate(job)
        jobs = {raw["metadata"]["uid"] for kind in ("PyTorchJob", "Job") for raw in self.all(kind)}
        for pod in self.all("Pod"):
            orphan = pod["metadata"]["ownerReferences"][0]["uid"] not in jobs
            if orphan and REPLICA_TYPE_LABEL in pod["metadata"]["labels"]:
                self.terminate(pod)
            elif orphan:
                self.remove("Pod", pod["metadata"]["name"])
        for job in self.all("Job"):
            self._answer(job, trouble)
        for pod in self.trainers():
            if pod["spec"]["nodeName"] not in self.silent:
                self._kubelet(pod)
        self._train()
        attempts = {_number(pod) for pod in self.trainers()}
        assert len(attempts) <= 1, f"pods of one attempt at a time: {attempts}"

    def _operate(self, job: Raw) -> None:
        """training-operator: makes missing pods, marks the end, stops the survivors; stops all while suspended."""
        pods = [
            pod for pod in self.trainers() if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        ]
        phases = {pod["metadata"]["name"]: pod["status"]["phase"] for pod in pods}
        if job["spec"]["runPolicy"].get("suspend"):
            for pod in pods:
                self.terminate(pod)
            return
        conditions = job.setdefault("status", {}).setdefault("conditions", [])
        name = job["metadata"]["name"]
        if not conditions and "Failed" in phases.values():
            conditions.append(_condition("Failed", message="a replica failed", time=self.time()))
        elif not conditions and phases.get(f"{name}-master-0") == "Succeeded":
            conditions.append(_condition("Succeeded", time=self.time()))
        if conditions:
            for pod in pods:
                if pod["status"]["phase"] in ("Pending", "Running"):
                    self.terminate(pod)
            return
        for kind, replica in job["spec"]["pytorchReplicaSpecs"].items():
            for index in range(replica["replicas"]):
                if f"{name}-{kind.lower()}-{index}" not in phases:
                    self._make_pod(job, kind, index, replica["template"])

    def _make_pod(self, job: Raw, kind: str, index: int, template: Raw) -> None:
        labels = {REPLICA_TYPE_LABEL: kind.lower(), REPLICA_INDEX_LABEL: str(index)}
        annotations = template["metadata"]["annotations"]
        owner = {"kind": "PyTorchJob", "uid": job["metadata"]["uid"], "controller": True}
        name = f"{job['metadata']['name']}-{kind.lower()}-{index}"
        if self.read("Pod", name) is not None:
            return  # of another job of that name: its slot is not free yet
        self.put(
            "Pod",
            {
                "metadata": {
                    "name": name,
                    "labels": {**template["metadata"]["labels"], **labels},
                    "annotations": dict(annotations),
                    "ownerReferences": [owner],
                },
                "spec": {"nodeName": f"node-{index % 2 + 1}" if kind == "Worker" else "node-1"},
                "status": {"phase": "Pending"},
            },
        )

    def terminate(self, pod: Raw) -> None:
        if "deletionTimestamp" not in pod["metadata"]:
            pod["metadata"]["deletionTimestamp"] = self.time()
            self.put("Pod", pod)

    def _answer(self, job: Raw, trouble: float) -> None:
        """A Job on the volume gets its pod, which answers or fails, now or later."""
        name = job["metadata"]["name"]
        if self.read("Pod", f"{name}-x") is not None or job.get("status") or self.rng.random() < 0.3:
            return
        if job["metadata"]["labels"][ROLE_LABEL] == ROLE_SURVEY:
            self._survey(job)
            return
        (container,) = job["spec"]["template"]["spec"]["containers"]
        (request,) = [item["value"] for item in container["env"] if item["name"] == REQUEST_ENV]
        decided = self.rng.random()
        message = ""
        if decided >= trouble / 2:
            message = self.volume.prepare(PrepareRequest.decode(request.replace("$$", "$"))).encode().decode()
        failed = decided < trouble
        if failed:
            job["status"] = {"conditions": [_condition("Failed", reason="BackoffLimitExceeded", time=self.time())]}
            self.put("Job", job)
            return
        self.put(
            "Pod",
            {
                "metadata": {
                    "name": f"{name}-x",
                    "labels": dict(job["spec"]["template"]["metadata"]["labels"]),
                    "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
                },
                "spec": {"nodeName": "node-1"},
                "status": {"phase": "Succeeded", "containerStatuses": [_ended("prepare", 0, self.time(), message)]},
            },
        )

    def _survey(self, job: Raw) -> None:
        """It ends well, fails, or its pod never comes; whatever it says is no answer."""
        if self.rng.random() < 0.3:
            return
        kind = self.rng.choice(["Complete", "Failed"])
        job["status"] = {"conditions": [_condition(kind, reason="R", time=self.time())]}
        self.put("Job", job)

    # -- kubelets ------------------------------------------------------------------------------------------------------

    def _kubelet(self, pod: Raw) -> None:
        phase = pod["status"]["phase"]
        if "deletionTimestamp" in pod["metadata"]:
            if phase == "Running":
                self.finish(pod, self.rng.choice([143, 143, 137, 0]))
            elif self.rng.random() < 0.6:
                self.remove("Pod", pod["metadata"]["name"])
        elif phase == "Pending" and self.rng.random() < 0.6:
            pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "pytorch", "state": {"running": {}}}]}
            self.put("Pod", pod)
            refused = self.volume.start(_epoch(pod), _slot(pod), pod["metadata"]["uid"])
            if refused is not None:
                self.finish(pod, refused)

    def finish(self, pod: Raw, code: int, *, reason: str = "Completed") -> None:
        told = "deletionTimestamp" in pod["metadata"]
        self.volume.end(_epoch(pod), _slot(pod), pod["metadata"]["uid"], code, told=told)
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        pod["status"]["containerStatuses"] = [_ended("pytorch", code, self.time(), reason=reason)]
        self.put("Pod", pod)

    def _train(self) -> None:
        """A collective: all ranks of the newest epoch, or none."""
        running = [pod for pod in self.trainers() if pod["status"]["phase"] == "Running" and self._answers(pod)]
        epochs = {_epoch(pod) for pod in running}
        if epochs != {self.volume.head}:
            return
        if {_slot(pod) for pod in running} != set(self.volume.epochs[-1].slots):
            return
        if self.volume.train(self.volume.head, self.rng.randrange(40)):
            for pod in running:
                if "deletionTimestamp" not in pod["metadata"]:
                    self.finish(pod, 0)

    def _answers(self, pod: Raw) -> bool:
        return pod["spec"]["nodeName"] not in self.silent


def _condition(kind: str, *, reason: str = "R", message: str = "", time: str = "2026-03-01T12:00:00Z") -> Raw:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": time}


def _ended(name: str, code: int, time: str, message: str = "", *, reason: str = "Completed") -> Raw:
    ended = {"exitCode": code, "reason": reason, "startedAt": time, "finishedAt": time, "message": message}
    return {"name": name, "state": {"terminated": ended}}


def _number(raw: Raw) -> int:
    return int(raw["metadata"]["labels"][NUMBER_LABEL])


def _epoch(pod: Raw) -> int:
    return int(pod["metadata"]["annotations"]["sweeprun.dev/epoch"])


def _slot(pod: Raw) -> str:
    labels = pod["metadata"]["labels"]
    return f"{labels[REPLICA_TYPE_LABEL]}-{labels[REPLICA_INDEX_LABEL]}"
