"""What every pod of ours has: the volume, a security context that PSA restricted admits, small resources."""

from __future__ import annotations

import copy
from typing import Any

from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.api.template import Node, Replica, mapping
from sweeprun_operator.api.v1alpha1 import SweepRun

from .metadata import Manifest
from .replicas import first, without_accelerators
from .tolerations import leaving_lost_nodes

DATA_VOLUME = "sweeprun-data"
HELPER_RESOURCES: Manifest = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "2", "memory": "2Gi"},
}
"""Reading a checkpoint takes some 30 MiB whatever its size, the metadata of DCP up to 300 MiB for 100,000 items
(measured). Two processors, because one alone reads slower than storage does."""
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
    identity = _identity(run)
    return {**identity, "runAsNonRoot": identity.get("runAsUser") != 0, "seccompProfile": {"type": "RuntimeDefault"}}


def pod_security_of_init(run: SweepRun) -> Manifest:
    """As prepare's, but the user's image may run as root where the template's may: our containers say of themselves
    that they do not."""
    security = pod_security(run)
    if run.spec.helper_pods.security_context is None and not _forbids_root(run):
        security.pop("runAsNonRoot")
    return security


def trainer_identity(run: SweepRun, replica: Replica) -> Manifest:
    """Of a container of ours in a training pod, which has to see the volume as training does."""
    pod, trainer = _securities(run, replica)
    names = ("runAsUser", "runAsGroup", "seLinuxOptions")
    return {name: copy.deepcopy(trainer.get(name, pod.get(name))) for name in names if name in trainer or name in pod}


def _identity(run: SweepRun) -> Manifest:
    pod, trainer = _securities(run, first(run))
    identity = {key: copy.deepcopy(pod[key]) for key in _FILE_IDENTITY if key in pod}
    return identity | {key: trainer[key] for key in ("runAsUser", "runAsGroup", "seLinuxOptions") if key in trainer}


def _forbids_root(run: SweepRun) -> bool:
    pod, trainer = _securities(run, first(run))
    return trainer.get("runAsNonRoot", pod.get("runAsNonRoot")) is True


def _securities(run: SweepRun, replica: Replica) -> tuple[Node, Node]:
    """Security contexts of a replica's pod and of its training container."""
    container = replica.container(run.spec.entrypoint.container_name)
    trainer = mapping(container.node.get("securityContext")) if container is not None else {}
    return mapping(replica.pod.get("securityContext")), trainer


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
    wanted = own.tolerations if own.tolerations is not None else tolerations
    values: Manifest = {
        "nodeSelector": own.node_selector if own.node_selector is not None else selector,
        "tolerations": leaving_lost_nodes(wanted, run.spec.unreachable.toleration_seconds),
        "imagePullSecrets": own.image_pull_secrets
        if own.image_pull_secrets is not None
        else pod.get("imagePullSecrets"),
        "priorityClassName": own.priority_class_name or pod.get("priorityClassName"),
        "schedulerName": pod.get("schedulerName"),
    }
    return {name: copy.deepcopy(value) for name, value in values.items() if value}


def helper_resources(run: SweepRun) -> dict[str, Any]:
    return copy.deepcopy(run.spec.helper_pods.resources or HELPER_RESOURCES)
