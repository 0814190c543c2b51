"""Raw objects as an API server would show them, for tests of the operator; each builder takes only what matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeprun_protocol.keys import NAME_LABEL, NUMBER_LABEL, ROLE_LABEL, UID_LABEL
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Outcome

Raw = dict[str, Any]
TIME = "2026-01-02T03:04:05Z"
UID = "uid-of-SweepRun-run"


def run(name: str = "run", *, uid: str = UID, status: Raw | None = None, **spec: Any) -> Raw:
    """A SweepRun that is valid."""
    container = {"name": "pytorch", "image": "trainer", "command": ["python", "train.py"]}
    replica = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "sweeprun.dev/v1alpha1",
        "kind": "SweepRun",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "sweepName": "sweep",
            "storage": {"persistentVolumeClaim": {"claimName": "sweeps"}},
            "template": {"spec": {"pytorchReplicaSpecs": {"Master": replica}}},
            **spec,
        },
        **({"status": status} if status is not None else {}),
    }


def condition(kind: str, status: str = "True", **more: Any) -> Raw:
    return {
        "type": kind,
        "status": status,
        "reason": "Because",
        "message": "so",
        "lastTransitionTime": TIME,
        "observedGeneration": 1,
        **more,
    }


def current(state: str, **more: Any) -> Raw:
    return {"attempt": 0, "prepare": 0, "state": state, "since": TIME, **more}


def metadata(name: str, *, role: str, number: int | str, uid: str = UID, **more: Any) -> Raw:
    return {
        "name": name,
        "namespace": "default",
        "uid": f"uid-of-{name}",
        "creationTimestamp": TIME,
        "labels": {UID_LABEL: uid, NAME_LABEL: "run", ROLE_LABEL: role, NUMBER_LABEL: str(number)},
        "ownerReferences": [{"kind": "SweepRun", "name": "run", "uid": uid, "controller": True}],
        **more,
    }


def job(number: int = 0, *, role: str = "prepare", status: Raw | None = None, **more: Any) -> Raw:
    name = f"run-{role[0]}{number}"
    return {"metadata": metadata(name, role=role, number=number, **more), "spec": {}, "status": status or {}}


def job_pod(of: Raw, *, created: str = TIME, status: Raw | None = None) -> Raw:
    labels = of["metadata"]["labels"]
    name = f"{of['metadata']['name']}-{created[-3:-1]}"
    owner = {"kind": "Job", "name": of["metadata"]["name"], "uid": of["metadata"]["uid"], "controller": True}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-of-{name}",
            "creationTimestamp": created,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "node-1"},
        "status": status or {"phase": "Pending"},
    }


def ended(code: int, message: str | None = None, *, reason: str = "Completed", **more: Any) -> Raw:
    """The state of a container that ended."""
    state = {"exitCode": code, "reason": reason, "startedAt": TIME, "finishedAt": TIME, **more}
    return {"terminated": {**state, **({"message": message} if message is not None else {})}}


def answering(message: str | None, *, phase: str = "Succeeded") -> Raw:
    """The status of a helper's pod that ended with 0 and this termination message."""
    return {"phase": phase, "containerStatuses": [{"name": "prepare", "state": ended(0, message)}]}


def report(number: int = 0, outcome: Outcome = Outcome.FRESH, **more: Any) -> str:
    return PrepareReport(prepare=number, outcome=outcome, message="said", **more).encode().decode()


def workload(attempt: int = 0, *, status: Raw | None = None, spec: Raw | None = None, **more: Any) -> Raw:
    name = f"run-a{attempt}"
    return {
        "metadata": metadata(name, role="attempt", number=attempt, **more),
        "spec": spec or {},
        "status": status or {},
    }


def trainer_pod(
    attempt: int = 0, kind: str = "worker", index: int | str = 0, *, status: Raw | None = None, node: str = "node-1"
) -> Raw:
    meta = metadata(f"run-a{attempt}-{kind}-{index}", role="attempt", number=attempt)
    meta["labels"].update(
        {"training.kubeflow.org/replica-type": kind, "training.kubeflow.org/replica-index": str(index)}
    )
    return {"metadata": meta, "spec": {"nodeName": node}, "status": status or {"phase": "Running"}}


def with_labels(raw: Raw, labels: Mapping[str, str | None]) -> Raw:
    """`raw` with some labels changed; None removes one."""
    for name, value in labels.items():
        raw["metadata"]["labels"].pop(name, None)
        if value is not None:
            raw["metadata"]["labels"][name] = value
    return raw
