"""Plays the controllers: Jobs and PyTorchJobs make pods and tell how they ended; what lost its owner goes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from .gateway import NODE
from .kubelet import free_port, set_condition
from .store import Raw, Store, timestamp

REPLICA_TYPE = "training.kubeflow.org/replica-type"
REPLICA_INDEX = "training.kubeflow.org/replica-index"
OWNERS = ("SweepRun", "Job", "PyTorchJob")
MAX_JOB_PODS = 7
"""backoffLimit 6, Kubernetes' default."""


def sync(store: Store) -> None:
    """One pass over everything."""
    collect(store)
    for job in store.find("Job"):
        _sync_job(store, job)
    for job in store.find("PyTorchJob"):
        _sync_pytorchjob(store, job)


def collect(store: Store) -> None:
    """The garbage collector: objects whose owner has gone are deleted, pods with their grace."""
    living = {raw["metadata"]["uid"] for kind in OWNERS for raw in store.find(kind)}
    for kind in ("Job", "PyTorchJob", "Pod"):
        for raw in store.find(kind):
            owners = {owner["uid"] for owner in raw["metadata"].get("ownerReferences", [])}
            if owners and not owners & living:
                metadata = raw["metadata"]
                store.delete(kind, metadata["namespace"], metadata["name"], uid=metadata["uid"])


def pods_of(store: Store, job: Raw) -> list[Raw]:
    uid = job["metadata"]["uid"]
    return [
        pod
        for pod in store.find("Pod")
        if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences", []))
    ]


def _is_over(job: Raw) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(one["type"] in ("Complete", "Failed", "Succeeded") and one["status"] == "True" for one in conditions)


def _phase(pod: Raw) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _sync_job(store: Store, job: Raw) -> None:
    if _is_over(job):
        return
    pods = pods_of(store, job)
    limit = min(job["spec"].get("backoffLimit", MAX_JOB_PODS - 1) + 1, MAX_JOB_PODS)
    failed = sum(_phase(pod) == "Failed" for pod in pods)
    if any(_phase(pod) == "Succeeded" for pod in pods):
        _end(store, "Job", job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    elif failed >= limit:
        _end(store, "Job", job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    elif failed == len(pods):
        name = f"{job['metadata']['name']}-{secrets.token_hex(3)}"
        _create_pod(store, "Job", job, name, job["spec"]["template"], {})


def _sync_pytorchjob(store: Store, job: Raw) -> None:
    pods = pods_of(store, job)
    if _is_over(job):
        if job["spec"].get("runPolicy", {}).get("cleanPodPolicy", "None") == "Running":
            _delete(store, [pod for pod in pods if _phase(pod) not in ("Succeeded", "Failed")])
        return
    if job["spec"].get("runPolicy", {}).get("suspend"):
        _delete(store, pods)
        return
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    slots = list(_slots(job))
    for kind, index, replica in slots:
        failed = [pod for pod in pods if _is_of(pod, kind) and _phase(pod) == "Failed"]
        if failed:
            text = f"PyTorchJob {job['metadata']['name']} is failed because {len(failed)} {kind} replica(s) failed."
            _end(store, "PyTorchJob", job, "Failed", "PyTorchJobFailed", text)
            return
        name = f"{job['metadata']['name']}-{kind.lower()}-{index}"
        if name not in by_name:
            _create_replica(store, job, name, kind, index, replica, slots)
    deciding = "Master" if "Master" in job["spec"]["pytorchReplicaSpecs"] else "Worker"
    chief = [pod for pod in pods if _is_of(pod, deciding)]
    due = sum(kind == deciding for kind, _, _ in slots)
    if due and due == sum(_phase(pod) == "Succeeded" for pod in chief):
        text = f"PyTorchJob {job['metadata']['name']} is successfully completed."
        _end(store, "PyTorchJob", job, "Succeeded", "PyTorchJobSucceeded", text)


def _slots(job: Raw) -> Iterator[tuple[str, int, Raw]]:
    replicas = job["spec"]["pytorchReplicaSpecs"]
    for kind in sorted(replicas):
        for index in range(replicas[kind].get("replicas", 1)):
            yield kind, index, replicas[kind]


def _is_of(pod: Raw, kind: str) -> bool:
    return bool(pod["metadata"]["labels"].get(REPLICA_TYPE) == kind.lower())


def _create_replica(
    store: Store, job: Raw, name: str, kind: str, index: int, replica: Raw, slots: list[tuple[str, int, Raw]]
) -> None:
    rank = next(number for number, slot in enumerate(slots) if slot[:2] == (kind, index))
    port = str(_master_port(store, job))
    network = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "RANK": str(rank),
        "WORLD_SIZE": str(len(slots)),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": port,
        "PET_NODE_RANK": str(rank),
        "PET_NNODES": str(len(slots)),
    }
    labels = {
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
        "training.kubeflow.org/job-name": job["metadata"]["name"],
        REPLICA_TYPE: kind.lower(),
        REPLICA_INDEX: str(index),
    }
    template = {**replica["template"], "spec": {**replica["template"]["spec"], "restartPolicy": "Never"}}
    _create_pod(store, "PyTorchJob", job, name, template, labels, environ=network)


def _master_port(store: Store, job: Raw) -> int:
    """One free port for all pods of a job; what the template's container port says may be taken on this machine."""
    for pod in pods_of(store, job):
        for item in reversed(pod["spec"]["containers"][0].get("env", [])):
            if item["name"] == "MASTER_PORT":
                return int(item["value"])
    return free_port()


def _create_pod(
    store: Store,
    kind: str,
    job: Raw,
    name: str,
    template: Raw,
    labels: dict[str, str],
    *,
    environ: dict[str, str] | None = None,
) -> None:
    metadata = template.get("metadata", {})
    added = [{"name": key, "value": value} for key, value in (environ or {}).items()]
    spec = {**template["spec"], "nodeName": NODE}
    # Appended after the user's own, as training-operator does: the last one wins.
    spec["containers"] = [{**one, "env": [*one.get("env", []), *added]} for one in spec["containers"]]
    owner = {"kind": kind, "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**metadata.get("labels", {}), **labels},
            "annotations": dict(metadata.get("annotations", {})),
            "ownerReferences": [owner],
        },
        "spec": spec,
        "status": {"phase": "Pending"},
    }
    store.create("Pod", job["metadata"]["namespace"], manifest)


def _delete(store: Store, pods: list[Raw]) -> None:
    for pod in pods:
        metadata = pod["metadata"]
        store.delete("Pod", metadata["namespace"], metadata["name"], uid=metadata["uid"])


def _end(store: Store, kind: str, job: Raw, condition: str, reason: str, text: str) -> None:
    def edit(raw: Raw) -> None:
        status = raw.setdefault("status", {})
        set_condition(status, condition, reason, text)
        status["completionTime"] = timestamp()

    store.change(kind, job, edit)
