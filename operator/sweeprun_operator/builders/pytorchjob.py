"""The template -> the PyTorchJob of one attempt. What is overridden is told to people by api.acceptance.warnings."""

from __future__ import annotations

import copy

from sweeprun_operator.api.mounts import ENTRYPOINT_PATH
from sweeprun_operator.api.template import Replica, mapping, mappings, replicas
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol import keys

from .images import HelperImages
from .metadata import Manifest, attempt_name, child_metadata, own_labels, template_hash
from .pods import DATA_VOLUME, container_security, data_volume
from .trainer_container import ENTRYPOINT_VOLUME, data_volume_name, trainer_container

ZIPAPP = "/opt/sweeprun/sweeprun.pyz"
"""In the operator's image; it brings itself and the trampoline into the shared volume."""
_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_NOT_THE_USERS = ("suspend", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds")
"""Of runPolicy: with these a finished job could vanish, or be revived, behind the operator's back."""


def pytorchjob(run: SweepRun, images: HelperImages) -> Manifest:
    """Of attempt `status.current.attempt`. Raises ValueError where the template cannot be used."""
    current = run.status.current
    assert current is not None, "an attempt is decided before it is made"
    template = run.spec.template
    labels = own_labels(run, role=keys.ROLE_ATTEMPT, number=current.attempt)
    annotations = {keys.EPOCH_ANNOTATION: str(current.epoch), keys.TEMPLATE_HASH_ANNOTATION: template_hash(run)}
    spec = copy.deepcopy(template.spec)
    spec["runPolicy"] = _run_policy(mapping(spec.get("runPolicy")))
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
            labels={**mapping(template.metadata.get("labels")), **labels},
            annotations={**mapping(template.metadata.get("annotations")), **annotations},
        ),
        "spec": spec,
    }


def _run_policy(given: object) -> Manifest:
    """Running: finished pods stay as evidence, survivors are stopped with full grace (seen on a cluster)."""
    kept = {name: value for name, value in mapping(given).items() if name not in _NOT_THE_USERS}
    return kept | {"cleanPodPolicy": "Running"}


def _replica(
    run: SweepRun, replica: Replica, images: HelperImages, labels: dict[str, str], annotations: dict[str, str]
) -> Manifest:
    node = copy.deepcopy(dict(replica.node))
    template = dict(mapping(node.get("template")))
    metadata = dict(mapping(template.get("metadata")))
    metadata["labels"] = {**mapping(metadata.get("labels")), **labels}
    metadata["annotations"] = {**mapping(metadata.get("annotations")), **annotations}
    template |= {"metadata": metadata, "spec": _pod(run, replica, images)}
    # training-operator would start a failed replica anew, without its peers and without a check
    return node | {"restartPolicy": "Never", "template": template}


def _pod(run: SweepRun, replica: Replica, images: HelperImages) -> Manifest:
    pod = copy.deepcopy(dict(replica.pod))
    name = run.spec.entrypoint.container_name
    wrapped = trainer_container(run, replica)
    volumes = [*mappings(pod.get("volumes")), {"name": ENTRYPOINT_VOLUME, "emptyDir": {"sizeLimit": "64Mi"}}]
    if data_volume_name(run, replica) == DATA_VOLUME:
        volumes.append(data_volume(run.spec))
    pod |= {
        "initContainers": [_install(pod, images), *mappings(pod.get("initContainers"))],
        "containers": [wrapped if item.get("name") == name else item for item in mappings(pod.get("containers"))],
        "volumes": volumes,
        "tolerations": _tolerations(pod, run.spec.unreachable.toleration_seconds),
    }
    return pod


def _install(pod: Manifest, images: HelperImages) -> Manifest:
    """Requests equal limits: the quality of service of the user's pod stays what it was."""
    resources = {"cpu": "100m", "memory": "64Mi"}
    return {
        "name": "sweeprun-install",
        "image": images.image,
        "imagePullPolicy": images.pull_policy,
        "command": ["python", ZIPAPP, "install", "--to", ENTRYPOINT_PATH],
        "volumeMounts": [{"name": ENTRYPOINT_VOLUME, "mountPath": ENTRYPOINT_PATH}],
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            **container_security(),
            "runAsNonRoot": mapping(pod.get("securityContext")).get("runAsUser") != 0,
        },
    }


def _tolerations(pod: Manifest, seconds: int) -> list[Manifest]:
    """Kubernetes' own 300 s make a lost node cost six minutes. The shortest matching toleration counts, so that ours
    also bounds one without an end; one that sets its own time is left alone."""
    given = [dict(item) for item in mappings(pod.get("tolerations"))]
    timed = {item.get("key") for item in given if item.get("tolerationSeconds") is not None}
    own = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key in _NODE_TAINTS
        if key not in timed
    ]
    return [*given, *own]
