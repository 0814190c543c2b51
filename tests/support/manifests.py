"""SweepRuns as people would write them, small, with one difference each: `make_sweeprun(suspend=True)`."""

from __future__ import annotations

import copy
from typing import Any

from sweeprun_operator.api.v1alpha1 import API_VERSION, KIND, SweepRun

Raw = dict[str, Any]

UID = "0b5d1f0e-6a53-4c0a-9d2e-1f6c3b2a7d11"


def make_container(**changes: Any) -> Raw:
    """The training container. A field set to None is left out."""
    container = {"name": "pytorch", "image": "registry.test/trainer:1", "command": ["python", "train.py"], **changes}
    return {key: value for key, value in container.items() if value is not None}


def make_pod(*containers: Raw, **fields: Any) -> Raw:
    """A pod template: the training container, unless others are given; `fields` go into the pod's spec."""
    return {"spec": {"containers": list(containers) or [make_container()], **fields}}


def make_template(*, workers: int = 1, pod: Raw | None = None, **spec: Any) -> Raw:
    """A PyTorchJob with one master and `workers` workers; `spec` goes beside pytorchReplicaSpecs."""
    pod = pod or make_pod()
    replicas = {"Master": {"replicas": 1, "template": copy.deepcopy(pod)}}
    if workers:
        replicas["Worker"] = {"replicas": workers, "template": copy.deepcopy(pod)}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": replicas, **spec}}


def make_init(**changes: Any) -> Raw:
    container = {"name": "init", "image": "registry.test/init:1", "command": ["python", "sweep_init.py"]}
    return {"template": {"spec": {"containers": [container]}}, **changes}


def make_sweeprun(name: str = "digits-lr-0", **spec: Any) -> Raw:
    """A manifest that is accepted. Keywords are fields of spec as on the wire and replace what stands there."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {
            "sweepName": "digits-lr",
            "storage": {"persistentVolumeClaim": {"claimName": "sweeps"}},
            "template": make_template(),
            **spec,
        },
    }


def make_claim(name: str = "sweeps") -> Raw:
    """The PersistentVolumeClaim that make_sweeprun names."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def merged(base: Any, changes: Any) -> Any:
    """`changes` over `base`, field by field; lists are replaced."""
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


def make_run(name: str = "digits-lr-0", *, uid: str = UID, namespace: str = "sweeps", **spec: Any) -> SweepRun:
    """The same as the operator reads it; raises pydantic.ValidationError where the manifest is wrong."""
    raw = make_sweeprun(name, **spec)
    raw["metadata"] |= {"namespace": namespace, "uid": uid, "resourceVersion": "1", "generation": 1}
    return SweepRun.from_wire(raw)


def with_value(manifest: Raw, path: str, value: Any) -> Raw:
    """A copy with one field changed: `with_value(run, "spec.storage.mountPath", "/x")`; None removes the field."""
    changed = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    return changed
