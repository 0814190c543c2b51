"""Jobs on the volume: prepare, and sweep_init, whose last container finishes the prepare that asked for it."""

from __future__ import annotations

import copy
from typing import Any

from sweeprun_operator.api.template import Node, mapping
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol import environ, keys
from sweeprun_protocol.layout import INITS
from sweeprun_protocol.prepare import REQUEST_ENV

from .affinity import avoiding
from .given import entries, fields, name_in
from .images import HelperImages
from .kubernetes_text import field, literal, variables
from .metadata import Manifest, child_metadata, init_key, init_name, own_labels, prepare_name, survey_name
from .pods import (
    container_security,
    data_mount,
    data_volume,
    helper_resources,
    pod_security,
    pod_security_of_init,
    scheduling,
)
from .prepare_request import encoded, prepare_request
from .replicas import longest_grace_seconds
from .tolerations import leaving_lost_nodes

ATTACH_SECONDS = 900
"""For scheduling, pulling the image and attaching the volume, beside the time that validation may take."""
SURVEY_SECONDS = 60
MOST_SURVEY_SECONDS = 900
"""A survey looks on for SURVEY_SECONDS beyond the grace of the pods, since their deletion takes its time; its pod may
be as late as that."""
_STAGING = f"$({environ.POD_UID})"
"""Name of a pod's staging directory, expanded by the kubelet."""


def prepare_job(run: SweepRun, images: HelperImages, *, cluster_id: str) -> Manifest:
    """Raises ValueError where the spec allows none."""
    current = run.status.current
    assert current is not None, "numbers are in the status before children are made"
    pod = _reading(run, images, "prepare", cluster_id=cluster_id)
    name = prepare_name(run, current.prepare)
    return _job(run, name, keys.ROLE_PREPARE, current.prepare, pod, deadline=_deadline(run))


def survey_job(run: SweepRun, images: HelperImages, *, cluster_id: str) -> Manifest:
    """A prepare that only reads, while the attempt of prepare `current.prepare` is drained: until its pods' grace is
    over, and nobody waits for it. Raises ValueError where the spec allows none."""
    current = run.status.current
    assert current is not None, "an attempt was there before it is drained"
    seconds = min(longest_grace_seconds(run) + SURVEY_SECONDS, MOST_SURVEY_SECONDS)
    pod = _reading(run, images, "survey", "--seconds", str(seconds), cluster_id=cluster_id)
    # it leaves at once when it is told to
    pod["terminationGracePeriodSeconds"] = 1
    name = survey_name(run, current.prepare)
    return _job(run, name, keys.ROLE_SURVEY, current.prepare, pod, deadline=seconds + SURVEY_SECONDS)


def _reading(run: SweepRun, images: HelperImages, command: str, *arguments: str, cluster_id: str) -> Manifest:
    """Pod of a command that is asked what prepare is asked."""
    container = _ours(run, images, command, [command, "--root", run.spec.storage.mount_path, *arguments])
    container["env"] += variables({REQUEST_ENV: encoded(prepare_request(run, cluster_id=cluster_id))})
    return {
        **scheduling(run),
        **avoiding(run, None, "affinity"),
        "containers": [container],
        "volumes": [data_volume(run.spec)],
        "securityContext": pod_security(run),
    }


def init_job(run: SweepRun, images: HelperImages, *, cluster_id: str) -> Manifest:
    """Raises ValueError where the spec allows none."""
    current, init = run.status.current, run.spec.init
    assert current is not None, "numbers are in the status before children are made"
    assert init is not None, "prepare asks for sweep_init only where there is one"
    path = "spec.init.template"
    template = copy.deepcopy(init.template)
    pod = fields(template.get("spec"), f"{path}.spec")
    containers = entries(pod.get("containers"), f"{path}.spec.containers")
    volumes = entries(pod.get("volumes"), f"{path}.spec.volumes")
    if len(containers) != 1:
        raise ValueError("spec.init.template.spec.containers must hold exactly one container")
    root = run.spec.storage.mount_path
    staging = ["--root", root, "--staging", _STAGING]
    make = _ours(run, images, "make-init-dir", ["make-init-dir", *staging, "--key", init_key(run)])
    finish = _ours(run, images, "finish-init", ["finish-init", *staging])
    finish["env"] += variables({REQUEST_ENV: encoded(prepare_request(run, cluster_id=cluster_id))})
    pod |= {
        "initContainers": [
            *entries(pod.get("initContainers"), f"{path}.spec.initContainers"),
            make,
            _users(run, fields(containers[0], f"{path}.spec.containers[0]"), volumes),
        ],
        "containers": [finish],
        "volumes": [*volumes, data_volume(run.spec)],
        "securityContext": pod.get("securityContext") or pod_security_of_init(run),
    }
    if mapping(pod["securityContext"]).get("runAsUser") != 0:
        for container in (make, finish):
            container["securityContext"]["runAsNonRoot"] = True
    own = scheduling(run)
    pod = {**{name: value for name, value in own.items() if name != "nodeSelector"}, **pod}
    pod |= avoiding(run, pod.get("affinity"), f"{path}.spec.affinity")
    given = entries(pod.get("tolerations"), f"{path}.spec.tolerations")
    pod["tolerations"] = leaving_lost_nodes(given, run.spec.unreachable.toleration_seconds)
    deadline = init.active_deadline_seconds + _deadline(run)
    name = init_name(run, current.prepare)
    return _job(run, name, keys.ROLE_INIT, current.prepare, pod, deadline=deadline, metadata=template.get("metadata"))


def _users(run: SweepRun, container: Manifest, volumes: list[Any]) -> Manifest:
    """sweep_init itself: told where to write; everything else is as the user wrote it."""
    directory = f"{literal(run.spec.storage.mount_path)}/{INITS}/{init_key(run)}/{_STAGING}/"
    own = [
        field(environ.POD_UID, "metadata.uid"),
        {"name": environ.INIT_DIR, "value": directory},
        *variables({environ.INIT_KEY: init_key(run), environ.SWEEP_NAME: run.spec.sweep_name}),
    ]
    path = "spec.init.template.spec.containers[0]"
    mounts = entries(container.get("volumeMounts"), f"{path}.volumeMounts")
    there = [mapping(mount) for mount in mounts if mapping(mount).get("mountPath") == run.spec.storage.mount_path]
    if any(not _is_claim(run, mount, volumes) for mount in there):
        raise ValueError(f"{path}.volumeMounts: {run.spec.storage.mount_path} is another volume")
    if not there:
        mounts = [*mounts, data_mount(run.spec)]
    return container | {"env": [*own, *entries(container.get("env"), f"{path}.env")], "volumeMounts": mounts}


def _is_claim(run: SweepRun, mount: Node, volumes: list[Any]) -> bool:
    """Of spec.storage, and the same directory of it."""
    storage = run.spec.storage.persistent_volume_claim
    claims = {name_in(item): mapping(mapping(item).get("persistentVolumeClaim")).get("claimName") for item in volumes}
    same = str(mount.get("subPath") or "").strip("/") == (storage.sub_path or "")
    return same and claims.get(str(mount.get("name"))) == storage.claim_name


def _ours(run: SweepRun, images: HelperImages, name: str, arguments: list[str]) -> Manifest:
    return {
        "name": f"sweeprun-{name}",
        "image": images.image,
        "imagePullPolicy": images.pull_policy,
        "command": ["python", "-m", "sweeprun_volume", *arguments],
        "env": [field(environ.POD_UID, "metadata.uid"), {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "volumeMounts": [data_mount(run.spec)],
        "resources": helper_resources(run),
        "securityContext": container_security(),
        # the answer of prepare: a file, never the log
        "terminationMessagePolicy": "File",
    }


def _deadline(run: SweepRun) -> int:
    """After a forced deletion the resume point is judged, copied, and the copy judged."""
    current = run.status.current
    times = 2 if current is not None and current.drain_forced else 1
    return times * run.spec.checkpoint.validation.timeout_seconds + ATTACH_SECONDS


def _job(
    run: SweepRun,
    name: str,
    role: str,
    number: int,
    pod: Manifest,
    *,
    deadline: int,
    metadata: object = None,
) -> Manifest:
    helper = run.spec.helper_pods
    given = fields(metadata, "spec.init.template.metadata")
    own = own_labels(run, role=role, number=number)
    annotations = {**fields(given.get("annotations"), "annotations"), **(helper.annotations or {})}
    template_metadata: Manifest = {"labels": {**fields(given.get("labels"), "labels"), **(helper.labels or {}), **own}}
    if annotations:
        template_metadata["annotations"] = annotations
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(run, name, labels={**(helper.labels or {}), **own}),
        "spec": {
            # a failed prepare is retried under the next number, which fences this one
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline,
            "template": {
                "metadata": template_metadata,
                "spec": {"automountServiceAccountToken": False, **pod, "restartPolicy": "Never"},
            },
        },
    }
