"""The training container of one attempt: wrapped by the entrypoint unless it is to run as its image starts it, told by
environment what to do. No other container of the pod is touched."""

from __future__ import annotations

import copy
import posixpath
import shlex
from dataclasses import replace
from typing import Any

from sweeprun_operator.api.commands import shell_line
from sweeprun_operator.api.entrypoint import is_wrapped
from sweeprun_operator.api.mounts import ENTRYPOINT_PATH, existing_mount
from sweeprun_operator.api.template import Container, Replica, mapping, mappings
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol import environ
from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.layout import RunLayout, expand_run_directory
from sweeprun_protocol.reasons import Outcome

from .given import entries, name_in
from .kubernetes_text import expanded, field, variables
from .metadata import Manifest
from .pods import DATA_VOLUME, data_mount
from .replicas import grace_seconds, slots
from .wandb_env import NOTES, wandb_environment

ENTRYPOINT_VOLUME = "sweeprun-entrypoint"
TRAMPOLINE = f"{ENTRYPOINT_PATH}/run.sh"
REPLICA_INDEX_PATH = "metadata.labels['training.kubeflow.org/replica-index']"


def run_environment(run: SweepRun, replica: Replica) -> RunEnvironment:
    """What the pods of the decided attempt are told; resume arguments not yet filled in."""
    spec, status, current = run.spec, run.status, run.status.current
    assert current is not None, "an attempt is decided before it is made"
    assert status.run_id is not None, "an attempt is decided before it is made"
    directory = expand_run_directory(spec.storage.run_directory, sweep_name=spec.sweep_name, run_id=status.run_id)
    run_dir = posixpath.join(spec.storage.mount_path, directory)
    resumed = status.checkpoint if current.outcome is Outcome.RESUME else None
    return RunEnvironment(
        run_id=status.run_id,
        sweep_name=spec.sweep_name,
        run_dir=run_dir,
        checkpoint_dir=RunLayout(run_dir).checkpoints(spec.checkpoint.directory, current.epoch),
        config_file=posixpath.join(run_dir, status.config_file) if status.config_file else None,
        epoch=current.epoch,
        attempt=current.attempt,
        slots=list(slots(run)),
        grace_seconds=grace_seconds(replica),
        resume_from=posixpath.join(run_dir, resumed.path) if resumed else None,
        resume_step=resumed.step if resumed else None,
        resume_epoch=resumed.epoch if resumed else None,
        resume_digest=resumed.digest if resumed else None,
        resume_format=str(resumed.format) if resumed else None,
        resume_args="",
        stall_seconds=spec.limits.stall_timeout_seconds if wrapped(run, replica) else None,
    )


def wrapped(run: SweepRun, replica: Replica) -> bool:
    return is_wrapped(run.spec, _trainer(run, replica))


def _trainer(run: SweepRun, replica: Replica) -> Container:
    name = run.spec.entrypoint.container_name
    found = replica.container(name)
    if found is None:
        raise ValueError(f"{replica.path}.template.spec.containers has none named {name}")
    return found


def trainer_container(run: SweepRun, replica: Replica) -> Manifest:
    """Raises ValueError where the template has no such container, or none that can be wrapped as was asked for."""
    found = _trainer(run, replica)
    command = entries(found.node.get("command"), f"{found.path}.command")
    if not command and is_wrapped(run.spec, found):
        raise ValueError(f"{found.path}.command is not set: there is nothing to wrap")
    known = run_environment(run, replica)
    arguments = resume_arguments(run, known)
    container = copy.deepcopy(dict(found.node))
    container |= {
        "env": _environment(run, replica, known, arguments, entries(container.get("env"), f"{found.path}.env")),
        "volumeMounts": _mounts(run, replica, found),
        # the tail of a crashed program's log becomes the evidence of its end
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if is_wrapped(run.spec, found):
        container["command"] = ["/bin/sh", TRAMPOLINE, *command]
    # args of one's own would take the place of the image's where the template has none
    if arguments and shell_line(found.words) is None and (command or found.node.get("args")):
        container["args"] = [*entries(found.node.get("args"), f"{found.path}.args"), *arguments]
    return container


def resume_arguments(run: SweepRun, known: RunEnvironment) -> list[str]:
    """Empty unless the attempt resumes. References to our variables are replaced, others are left to the kubelet."""
    if known.resume_from is None:
        return []
    values = known.encode()
    return [expanded(argument, values) for argument in run.spec.resume.args]


def _environment(
    run: SweepRun, replica: Replica, known: RunEnvironment, arguments: list[str], given: list[Any]
) -> list[Any]:
    """Ours first, so that the template's own values may refer to them; the template's duplicates are dropped."""
    current = run.status.current
    assert current is not None
    values = replace(known, resume_args="").encode()
    values |= wandb_environment(run, run_dir=known.run_dir, epoch=current.epoch)
    if not wrapped(run, replica):
        values[environ.SHUTDOWN_TIMEOUT] = str(environ.shutdown_seconds(known.grace_seconds))
    elif run.spec.entrypoint.python_path is not None:
        values[environ.PYTHON_PATH] = run.spec.entrypoint.python_path
    for name in (NOTES, environ.SHUTDOWN_TIMEOUT):
        if any(name_in(item) == name for item in given):  # the template's own counts
            values.pop(name, None)
    # torchrun would start the ranks anew inside the pod, behind the records of this attempt
    values["PET_MAX_RESTARTS"] = "0"
    values[environ.REPLICA_TYPE] = replica.kind.lower()
    values.pop(environ.RESUME_ARGS)
    own: list[Manifest] = [
        field(environ.POD_UID, "metadata.uid"),
        field(environ.POD_NAME, "metadata.name"),
        field(environ.NODE_NAME, "spec.nodeName"),
        field(environ.REPLICA_INDEX, REPLICA_INDEX_PATH),
        *variables(values),
        # joined after expansion: its dollars are written for Kubernetes already
        {"name": environ.RESUME_ARGS, "value": shlex.join(arguments)},
    ]
    ours = {variable["name"] for variable in own}
    return [*own, *(item for item in given if name_in(item) not in ours)]


def _mounts(run: SweepRun, replica: Replica, container: Container) -> list[Any]:
    mounts = entries(container.node.get("volumeMounts"), f"{container.path}.volumeMounts")
    reused = existing_mount(replica, container, run.spec.storage)
    if reused is not None and reused.get("name") not in _writable(run, replica):
        raise ValueError(f"{container.path}.volumeMounts: {run.spec.storage.mount_path} is readOnly by its volume")
    if reused is None:
        if any(mapping(mount).get("mountPath") == run.spec.storage.mount_path for mount in mounts):
            raise ValueError(f"{container.path}.volumeMounts: {run.spec.storage.mount_path} is another volume")
        mounts.append(data_mount(run.spec, volume=data_volume_name(run, replica)))
    if is_wrapped(run.spec, container):
        mounts.append({"name": ENTRYPOINT_VOLUME, "mountPath": ENTRYPOINT_PATH, "readOnly": True})
    return mounts


def data_volume_name(run: SweepRun, replica: Replica) -> str:
    """The template's own volume of the claim where it has one: a claim twice in a pod is legal, but needless."""
    return min(_writable(run, replica), default=DATA_VOLUME)


def _writable(run: SweepRun, replica: Replica) -> set[str]:
    known = replica.claim_volumes(run.spec.storage.persistent_volume_claim.claim_name)
    volumes = mappings(replica.pod.get("volumes"))
    read_only = {
        name_in(volume) for volume in volumes if mapping(volume.get("persistentVolumeClaim")).get("readOnly") is True
    }
    return known - read_only
