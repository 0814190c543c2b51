"""Jobs on the volume: prepare, and sweep_init, whose last container finishes the prepare that asked for it."""

from __future__ import annotations

import copy

from sweeprun_operator.api.template import mapping, mappings
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol import environ, keys
from sweeprun_protocol.layout import INITS
from sweeprun_protocol.prepare import REQUEST_ENV

from .images import HelperImages
from .kubernetes_text import field, literal, variables
from .metadata import Manifest, child_metadata, init_key, init_name, own_labels, prepare_name
from .pods import container_security, data_mount, data_volume, helper_resources, pod_security, scheduling
from .prepare_request import encoded, prepare_request

ATTACH_SECONDS = 900
"""For scheduling, pulling the image and attaching the volume, beside the time that validation may take."""
_STAGING = f"$({environ.POD_UID})"
"""Name of a pod's staging directory, expanded by the kubelet."""


def prepare_job(run: SweepRun, images: HelperImages, *, cluster_id: str) -> Manifest:
    """Raises ValueError where the spec allows none."""
    current = run.status.current
    assert current is not None, "numbers are in the status before children are made"
    container = _ours(run, images, "prepare", ["prepare", "--root", run.spec.storage.mount_path])
    container["env"] += variables({REQUEST_ENV: encoded(prepare_request(run, cluster_id=cluster_id))})
    pod: Manifest = {
        **scheduling(run),
        "containers": [container],
        "volumes": [data_volume(run.spec)],
        "securityContext": pod_security(run),
    }
    name = prepare_name(run, current.prepare)
    return _job(run, name, keys.ROLE_PREPARE, current.prepare, pod, deadline=_deadline(run))


def init_job(run: SweepRun, images: HelperImages, *, cluster_id: str) -> Manifest:
    """Raises ValueError where the spec allows none."""
    current, init = run.status.current, run.spec.init
    assert current is not None, "numbers are in the status before children are made"
    assert init is not None, "prepare asks for sweep_init only where there is one"
    template = copy.deepcopy(init.template)
    pod = dict(mapping(template.get("spec")))
    containers = mappings(pod.get("containers"))
    if len(containers) != 1:
        raise ValueError("spec.init.template.spec.containers must hold exactly one container")
    root = run.spec.storage.mount_path
    staging = ["--root", root, "--staging", _STAGING]
    make = _ours(run, images, "make-init-dir", ["make-init-dir", *staging, "--key", init_key(run)])
    finish = _ours(run, images, "finish-init", ["finish-init", *staging])
    finish["env"] += variables({REQUEST_ENV: encoded(prepare_request(run, cluster_id=cluster_id))})
    pod |= {
        "initContainers": [*mappings(pod.get("initContainers")), make, _users(run, dict(containers[0]))],
        "containers": [finish],
        "volumes": [*mappings(pod.get("volumes")), data_volume(run.spec)],
        "securityContext": pod.get("securityContext") or pod_security(run),
    }
    own = scheduling(run)
    pod = {**{name: value for name, value in own.items() if name != "nodeSelector"}, **pod}
    deadline = init.active_deadline_seconds + _deadline(run)
    name = init_name(run, current.prepare)
    return _job(run, name, keys.ROLE_INIT, current.prepare, pod, deadline=deadline, metadata=template.get("metadata"))


def _users(run: SweepRun, container: Manifest) -> Manifest:
    """sweep_init itself: told where to write; everything else is as the user wrote it."""
    directory = f"{literal(run.spec.storage.mount_path)}/{INITS}/{init_key(run)}/{_STAGING}/"
    own = [
        field(environ.POD_UID, "metadata.uid"),
        {"name": environ.INIT_DIR, "value": directory},
        *variables({environ.INIT_KEY: init_key(run), environ.SWEEP_NAME: run.spec.sweep_name}),
    ]
    mounts = mappings(container.get("volumeMounts"))
    if all(mount.get("mountPath") != run.spec.storage.mount_path for mount in mounts):
        mounts = [*mounts, data_mount(run.spec)]
    return container | {"env": [*own, *mappings(container.get("env"))], "volumeMounts": mounts}


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
    return run.spec.checkpoint.validation.timeout_seconds + ATTACH_SECONDS


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
    given = mapping(metadata)
    own = own_labels(run, role=role, number=number)
    annotations = {**mapping(given.get("annotations")), **(helper.annotations or {})}
    template_metadata: Manifest = {"labels": {**mapping(given.get("labels")), **(helper.labels or {}), **own}}
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
