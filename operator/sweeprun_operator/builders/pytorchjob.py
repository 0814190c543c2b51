"""The template -> the PyTorchJob of one attempt. What is overridden is told to people by api.acceptance.warnings."""

from __future__ import annotations

import copy
from typing import Any

from sweeprun_operator.api.mounts import ENTRYPOINT_PATH
from sweeprun_operator.api.template import Replica, mapping, replicas
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol import keys

from .affinity import avoiding
from .given import entries, fields, name_in
from .images import HelperImages
from .metadata import Manifest, attempt_name, child_metadata, own_labels, template_hash
from .pods import DATA_VOLUME, container_security, data_volume
from .tolerations import leaving_lost_nodes
from .trainer_container import ENTRYPOINT_VOLUME, data_volume_name, trainer_container

ZIPAPP = "/opt/sweeprun/sweeprun.pyz"
"""In the operator's image; it brings itself and the trampoline into the shared volume."""
INSTALL = "sweeprun-install"
_METADATA = "spec.template.metadata"
_NOT_THE_USERS = ("suspend", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds")
"""Of runPolicy: with these a finished job could vanish, or be revived, behind the operator's back."""
_BORROWED = ("cpu", "memory", "ephemeral-storage")


def pytorchjob(run: SweepRun, images: HelperImages) -> Manifest:
    """Of attempt `status.current.attempt`. Raises ValueError where the template cannot be used."""
    current = run.status.current
    assert current is not None, "an attempt is decided before it is made"
    template = run.spec.template
    labels = own_labels(run, role=keys.ROLE_ATTEMPT, number=current.attempt)
    annotations = {keys.EPOCH_ANNOTATION: str(current.epoch), keys.TEMPLATE_HASH_ANNOTATION: template_hash(run)}
    spec = copy.deepcopy(template.spec)
    spec["runPolicy"] = _run_policy(fields(spec.get("runPolicy"), "spec.template.spec.runPolicy"))
    spec["pytorchReplicaSpecs"] = {
        replica.kind: _replica(run, replica, images, labels, annotations) for replica in replicas(template.spec)
    }
    if isinstance(spec.get("elasticPolicy"), dict):
        spec["elasticPolicy"] |= {"maxRestarts": 0}
    return {
        "apiVersion": template.api_version,
        "kind": template.kind,
        "metadata": child_metadata(
            run,
            attempt_name(run, current.attempt),
            labels={**fields(template.metadata.get("labels"), f"{_METADATA}.labels"), **labels},
            annotations={**fields(template.metadata.get("annotations"), f"{_METADATA}.annotations"), **annotations},
        ),
        "spec": spec,
    }


def _run_policy(given: Manifest) -> Manifest:
    """Running: finished pods stay as evidence, survivors are stopped with full grace (seen on a cluster)."""
    kept = {name: value for name, value in given.items() if name not in _NOT_THE_USERS}
    return kept | {"cleanPodPolicy": "Running"}


def _replica(
    run: SweepRun, replica: Replica, images: HelperImages, labels: dict[str, str], annotations: dict[str, str]
) -> Manifest:
    path = f"{replica.path}.template"
    node = fields(replica.node, replica.path)
    template = fields(node.get("template"), path)
    metadata = fields(template.get("metadata"), f"{path}.metadata")
    metadata["labels"] = {**fields(metadata.get("labels"), f"{path}.metadata.labels"), **labels}
    metadata["annotations"] = {**fields(metadata.get("annotations"), f"{path}.metadata.annotations"), **annotations}
    template |= {"metadata": metadata, "spec": _pod(run, replica, images)}
    # training-operator would start a failed replica anew, without its peers and without a check
    return node | {"restartPolicy": "Never", "template": template}


def _pod(run: SweepRun, replica: Replica, images: HelperImages) -> Manifest:
    path = f"{replica.path}.template.spec"
    pod = copy.deepcopy(dict(replica.pod))
    name = run.spec.entrypoint.container_name
    wrapped = trainer_container(run, replica)
    volumes = entries(pod.get("volumes"), f"{path}.volumes")
    setup = entries(pod.get("initContainers"), f"{path}.initContainers")
    containers = entries(pod.get("containers"), f"{path}.containers")
    _check_names(volumes, (ENTRYPOINT_VOLUME, DATA_VOLUME), f"{path}.volumes")
    _check_names([*setup, *containers], (INSTALL,), path)
    volumes.append({"name": ENTRYPOINT_VOLUME, "emptyDir": {"sizeLimit": "64Mi"}})
    if data_volume_name(run, replica) == DATA_VOLUME:
        volumes.append(data_volume(run.spec))
    pod |= {
        "initContainers": [_install(pod, wrapped, images), *setup],
        "containers": [wrapped if name_in(item) == name else item for item in containers],
        "volumes": volumes,
        **avoiding(run, pod.get("affinity"), f"{path}.affinity"),
        "tolerations": leaving_lost_nodes(
            entries(pod.get("tolerations"), f"{path}.tolerations"), run.spec.unreachable.toleration_seconds
        ),
    }
    return pod


def _check_names(given: list[Any], ours: tuple[str, ...], path: str) -> None:
    """The schema of a PyTorchJob lets a name occur twice; the pods would be refused, one by one."""
    taken = [name for name in map(name_in, given) if name in ours]
    if taken:
        raise ValueError(f"{path} holds {taken[0]}, a name that the operator uses itself: choose another one")


def _install(pod: Manifest, trainer: Manifest, images: HelperImages) -> Manifest:
    return {
        "name": INSTALL,
        "image": images.image,
        "imagePullPolicy": images.pull_policy,
        "command": ["python", ZIPAPP, "install", "--to", ENTRYPOINT_PATH],
        "volumeMounts": [{"name": ENTRYPOINT_VOLUME, "mountPath": ENTRYPOINT_PATH}],
        "resources": _as_much_as(trainer),
        "securityContext": {
            **container_security(),
            "runAsNonRoot": mapping(pod.get("securityContext")).get("runAsUser") != 0,
        },
    }


def _as_much_as(trainer: Manifest) -> Manifest:
    """It runs before the training container, whose share it borrows: the pod asks for no more than it did, and whatever
    judges requests (its quality of service, a LimitRange, a queue that knows only GPUs) says what it would have said.
    """
    given = mapping(trainer.get("resources"))
    shared = {
        kind: {name: value for name, value in mapping(given.get(kind)).items() if name in _BORROWED}
        for kind in ("requests", "limits")
    }
    return {kind: values for kind, values in shared.items() if values}
