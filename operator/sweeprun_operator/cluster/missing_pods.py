"""Why a child has no pod: a server-side dry run of the pod that it lacks, answered by the same admission plug-ins.

The other way to know are Events: they may be lost, are dropped after an hour, and reading them is a right to read what
happens to everything else in the namespace. Whoever may create Jobs, as the operator may, can have any pod made anyway.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime

from sweeprun_operator.api.status import Current, State
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.core.observation import HelperJob, JobPhase, PodState, Refusal, Role, Workload
from sweeprun_operator.core.refusals import ASK_SECONDS

from .fields import name_of, sub, uid_of
from .gateway import AlreadyExistsError, Gateway, GatewayError, Raw, RefusedError

_log = logging.getLogger(__name__)

MESSAGE_CHARACTERS = 600
HELPERS = "spec.helperPods"
TEMPLATE = "spec.template"
_ROLES = {State.PREPARING: Role.PREPARE, State.INITIALIZING: Role.INIT}


async def refusal_of_missing(
    gateway: Gateway,
    run: SweepRun,
    now: datetime,
    *,
    refused: Refusal | None,
    helpers: Iterable[HelperJob],
    workloads: Iterable[Workload],
    pods: Iterable[PodState],
    raws: Iterable[Raw],
) -> Refusal | None:
    """`refused`: a child that the last pass could not make; nothing is asked then. `raws`: the Jobs and PyTorchJobs as
    listed. None: nothing is missing for long, or the server would take it."""
    current = run.status.current
    if current is None or refused is not None:
        return refused
    by_uid = {uid_of(raw): raw for raw in raws}
    job = _podless_job(current, now, helpers)
    if job is not None:
        pod = _pod(by_uid[job.uid], sub(by_uid[job.uid], "spec", "template"), f"{job.name}-pod", kind="Job")
        return await _ask(gateway, run.metadata.namespace, pod, f"the pod of Job {job.name}", HELPERS)
    workload = _incomplete_workload(current, now, workloads)
    if workload is None:
        return None
    there = {pod.name for pod in pods}
    missing = next((item for item in _slots(by_uid[workload.uid]) if name_of(item) not in there), None)
    if missing is None:
        return None
    return await _ask(gateway, run.metadata.namespace, missing, f"pod {name_of(missing)}", TEMPLATE)


def _podless_job(current: Current, now: datetime, helpers: Iterable[HelperJob]) -> HelperJob | None:
    role = _ROLES.get(current.state)
    if role is None or (now - current.since).total_seconds() < ASK_SECONDS:
        return None
    for job in helpers:
        waits = job.podless and not job.suspended and not job.deleting and job.phase is JobPhase.ACTIVE
        if waits and job.owned and job.role is role and job.number == current.prepare:
            return job
    return None


def _incomplete_workload(current: Current, now: datetime, workloads: Iterable[Workload]) -> Workload | None:
    began = current.admitted_time
    if current.state is not State.STARTING or began is None or (now - began).total_seconds() < ASK_SECONDS:
        return None
    for item in workloads:
        waits = not (item.suspended or item.deleting or item.failed or item.succeeded)
        if waits and item.owned and item.attempt == current.attempt:
            return item
    return None


def _slots(raw: Raw) -> Iterator[Raw]:
    """The pods that training-operator makes of a PyTorchJob, by its names."""
    for kind, replica in sub(raw, "spec", "pytorchReplicaSpecs").items():
        count = sub({"of": replica}, "of").get("replicas", 1)
        for index in range(count if isinstance(count, int) else 0):
            name = f"{name_of(raw)}-{kind.lower()}-{index}"
            yield _pod(raw, sub({"of": replica}, "of", "template"), name, kind="PyTorchJob")


def _pod(owner: Raw, template: Raw, name: str, *, kind: str) -> Raw:
    metadata = sub(template, "metadata")
    reference = {
        "apiVersion": "batch/v1" if kind == "Job" else "kubeflow.org/v1",
        "kind": kind,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": dict(sub(metadata, "labels")),
            "annotations": dict(sub(metadata, "annotations")),
            "ownerReferences": [reference],
        },
        "spec": {**copy.deepcopy(sub(template, "spec")), "restartPolicy": "Never"},
    }


async def _ask(gateway: Gateway, namespace: str, pod: Raw, what: str, field: str) -> Refusal | None:
    try:
        await gateway.create("Pod", namespace, pod, dry_run=True)
    except AlreadyExistsError:
        return None
    except GatewayError as error:
        said = str(error)
        if _is_of_pod(error, name_of(pod)):
            return Refusal(what=what, message=said[:MESSAGE_CHARACTERS], field=field)
        # A dry run explains what is seen anyway: whatever keeps it from being made must not keep the run from going on.
        _log.info("no dry run of %s: %s", what, said)
    return None


def _is_of_pod(error: GatewayError, name: str) -> bool:
    """Not a missing right to ask, and not a webhook that knows no dry run: those say nothing of the pod."""
    said = str(error)
    if isinstance(error, RefusedError):
        return f'"{name}"' in said or "denied the request" in said
    return "failed calling webhook" in said
