"""SweepRuns whose next attempt is decided, as the builders get them: `decided(resume=500)`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from support.manifests import make_container, make_pod, make_run, make_template
from sweeprun_operator.api.status import CheckpointStatus, Current, State, SweepRunStatus
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_protocol.reasons import Format, Outcome, StartReason

Raw = dict[str, Any]

IMAGES = HelperImages(image="registry.test/operator:1")
CLUSTER = "cluster-1"
RUN_ID = "digits-lr.r.1"
DIGEST = "sha256:" + "ab" * 32
BUILD = Manifests(IMAGES)


def decided(
    *,
    attempt: int = 0,
    epoch: int = 1,
    resume: int | None = None,
    path: str | None = None,
    checkpoint_format: Format = Format.SWEEPRUN,
    **spec: Any,
) -> SweepRun:
    """The attempt starts at step 0, or resumes from the checkpoint of a step, in `path` where that matters."""
    checkpoint = None
    if resume is not None:
        where = path or f"checkpoints/step-{resume:09d}.e{epoch - 1 or 1}"
        checkpoint = CheckpointStatus(
            step=resume, epoch=epoch - 1 or 1, path=where, digest=DIGEST, format=checkpoint_format
        )
    current = Current(
        attempt=attempt,
        prepare=attempt,
        state=State.STARTING,
        since=datetime(2026, 3, 1, tzinfo=UTC),
        epoch=epoch,
        outcome=Outcome.RESUME if resume is not None else Outcome.FRESH,
        reason=StartReason.NEWEST_CHECKPOINT if resume is not None else StartReason.FIRST_START,
    )
    status = SweepRunStatus(run_id=RUN_ID, volume_id="volume-1", checkpoint=checkpoint, current=current)
    return make_run(**spec).model_copy(update={"status": status})


def of_container(*, pod: Raw | None = None, **changes: Any) -> Raw:
    """spec.template whose training containers have these fields, and whose pods have those of `pod`."""
    return make_template(pod=make_pod(make_container(**changes), **(pod or {})))


def pod_of(manifest: Raw, kind: str = "Master") -> Raw:
    pod: Raw = manifest["spec"]["pytorchReplicaSpecs"][kind]["template"]["spec"]
    return pod


def trainer_of(manifest: Raw, kind: str = "Master", *, name: str = "pytorch") -> Raw:
    return next(item for item in pod_of(manifest, kind)["containers"] if item["name"] == name)


def environment(container: Raw) -> dict[str, Any]:
    """Names and values; those by reference as `valueFrom`."""
    found = {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}
    assert len(found) == len(container["env"]), "no name twice"
    return found
