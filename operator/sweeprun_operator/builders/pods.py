"""What every pod of ours has: the volume, a security context that PSA restricted admits, small resources."""

from __future__ import annotations

import copy
from typing import Any

from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.api.template import mapping
from sweeprun_operator.api.v1alpha1 import SweepRun

from .metadata import Manifest
from .replicas import first, without_accelerators

DATA_VOLUME = "sweeprun-data"
HELPER_RESOURCES: Manifest = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}
_FILE_IDENTITY = (
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "fsGroupChangePolicy",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxOptions",
)
"""What decides which files a pod may read and write: prepare has to see the volume as training does."""


def data_volume(spec: SweepRunSpec) -> Manifest:
    claim = spec.storage.persistent_volume_claim.claim_name
    return {"name": DATA_VOLUME, "persistentVolumeClaim": {"claimName": claim}}


def data_mount(spec: SweepRunSpec, *, volume: str = DATA_VOLUME) -> Manifest:
    mount: Manifest = {"name": volume, "mountPath": spec.storage.mount_path}
    sub_path = spec.storage.persistent_volume_claim.sub_path
    return mount | {"subPath": sub_path} if sub_path is not None else mount


def pod_security(run: SweepRun) -> Manifest:
    """The template's user and groups; restricted otherwise. spec.helperPods.securityContext replaces all of it."""
    own = run.spec.helper_pods.security_context
    if own is not None:
        return copy.deepcopy(own)
    replica = first(run)
    pod = mapping(replica.pod.get("securityContext"))
    container = replica.container(run.spec.entrypoint.container_name)
    trainer = mapping(container.node.get("securityContext")) if container is not None else {}
    identity = {key: copy.deepcopy(pod[key]) for key in _FILE_IDENTITY if key in pod}
    identity |= {key: trainer[key] for key in ("runAsUser", "runAsGroup", "seLinuxOptions") if key in trainer}
    return {
        **identity,
        "runAsNonRoot": identity.get("runAsUser") != 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def scheduling(run: SweepRun) -> Manifest:
    """Where helper pods may run: as the template says, less its wish for accelerators."""
    pod, own = first(run).pod, run.spec.helper_pods
    selector, tolerations = without_accelerators(pod)
    values: Manifest = {
        "nodeSelector": own.node_selector if own.node_selector is not None else selector,
        "tolerations": own.tolerations if own.tolerations is not None else tolerations,
        "imagePullSecrets": own.image_pull_secrets
        if own.image_pull_secrets is not None
        else pod.get("imagePullSecrets"),
        "priorityClassName": own.priority_class_name or pod.get("priorityClassName"),
        "schedulerName": pod.get("schedulerName"),
    }
    return {name: copy.deepcopy(value) for name, value in values.items() if value}


def helper_resources(run: SweepRun) -> dict[str, Any]:
    return copy.deepcopy(run.spec.helper_pods.resources or HELPER_RESOURCES)
