"""The template -> the PyTorchJob of one attempt. What is overridden is told to people by api.acceptance.warnings."""

from __future__ import annotations

import copy
from typing import Any

from sweeprun_operator.api.entrypoint import CHECK, clean_pod_policy
from sweeprun_operator.api.mounts import ENTRYPOINT_PATH, is_mount_of
from sweeprun_operator.api.template import Replica, mapping, replicas
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol import keys
from sweeprun_protocol.environ import PodEnvironment

from .affinity import avoiding
from .given import entries, fields, name_in
from .images import HelperImages
from .metadata import Manifest, attempt_name, child_metadata, own_labels, template_hash
from .pods import DATA_VOLUME, container_security, data_volume, trainer_identity
from .tolerations import leaving_lost_nodes
from .trainer_container import ENTRYPOINT_VOLUME, data_volume_name, run_environment, trainer_container, wrapped

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
    given = fields(spec.get("runPolicy"), "spec.template.spec.runPolicy")
    spec["runPolicy"] = {name: value for name, value in given.items() if name not in _NOT_THE_USERS}
    spec["runPolicy"]["cleanPodPolicy"] = clean_pod_policy(run.spec)
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
    trainer = trainer_container(run, replica)
    volumes = entries(pod.get("volumes"), f"{path}.volumes")
    setup = entries(pod.get("initContainers"), f"{path}.initContainers")
    containers = entries(pod.get("containers"), f"{path}.containers")
    _check_names(volumes, (ENTRYPOINT_VOLUME, DATA_VOLUME), f"{path}.volumes")
    _check_names([*setup, *containers], (INSTALL, CHECK), path)
    if wrapped(run, replica):
        setup = [_install(pod, trainer, images), *setup]
        volumes.append({"name": ENTRYPOINT_VOLUME, "emptyDir": {"sizeLimit": "64Mi"}})
    else:
        setup = [*setup, _check(run, replica, trainer, images)]
    if data_volume_name(run, replica) == DATA_VOLUME:
        volumes.append(data_volume(run.spec))
    pod |= {
        "initContainers": setup,
        "containers": [trainer if name_in(item) == name else item for item in containers],
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
    user = mapping(pod.get("securityContext")).get("runAsUser")
    return {
        **_ours(INSTALL, ["install", "--to", ENTRYPOINT_PATH], trainer, images, root=user == 0),
        "volumeMounts": [{"name": ENTRYPOINT_VOLUME, "mountPath": ENTRYPOINT_PATH}],
    }


def _check(run: SweepRun, replica: Replica, trainer: Manifest, images: HelperImages) -> Manifest:
    """The last of the init containers: nothing of the user's comes between it and training."""
    user = trainer_identity(run, replica)
    container = _ours(CHECK, ["check"], trainer, images, root=user.get("runAsUser") == 0)
    container["securityContext"] |= user
    names = set(PodEnvironment.NAMES) | set(run_environment(run, replica).encode())
    return container | {
        "env": [item for item in trainer["env"] if name_in(item) in names],
        "volumeMounts": [item for item in trainer["volumeMounts"] if is_mount_of(run.spec.storage, item)],
        # why it refused becomes the evidence of the attempt's end
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _ours(name: str, words: list[str], trainer: Manifest, images: HelperImages, *, root: bool) -> Manifest:
    return {
        "name": name,
        "image": images.image,
        "imagePullPolicy": images.pull_policy,
        "command": ["python", ZIPAPP, *words],
        "resources": _as_much_as(trainer),
        "securityContext": {**container_security(), "runAsNonRoot": not root},
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
