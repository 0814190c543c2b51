"""Spec and status -> what prepare is asked."""

from __future__ import annotations

import yaml

from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.api.status import Cause, Current, Kind
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.prepare import MAX_REQUEST_BYTES, Adoption, Configuration, PrepareRequest, pods_digest
from sweeprun_protocol.reasons import AdoptionScope, ResumePolicy
from sweeprun_protocol.records import CheckpointRef, Owner

from .metadata import fresh_number, init_key
from .replicas import slots


def prepare_request(run: SweepRun, *, cluster_id: str) -> PrepareRequest:
    """Of prepare `status.current.prepare`. Raises ValueError where the spec allows none."""
    spec, status, current = run.spec, run.status, run.status.current
    assert current is not None, "the number of a prepare stands in the status before its request is made"
    wandb = spec.tracking.wandb if spec.tracking is not None else None
    retention, quarantine = spec.checkpoint.retention, spec.checkpoint.quarantine
    return PrepareRequest(
        owner=Owner(cluster=cluster_id, namespace=run.metadata.namespace, name=run.metadata.name, uid=run.metadata.uid),
        prepare=current.prepare,
        sweep_name=spec.sweep_name,
        run_directory=spec.storage.run_directory,
        run_id=status.run_id or spec.run_id,
        started=status.run_id is not None,
        volume_id=status.volume_id,
        known_epoch=current.epoch if status.run_id is not None else 0,
        pinned=_pinned(run),
        slots=slots(run),
        completion=spec.completion.policy,
        configuration=Configuration(file_name=spec.config_file_name, text=config_text(spec)),
        init_key=init_key(run) if spec.init is not None else None,
        fresh_number=fresh_number(run),
        adoption=_adoption(run),
        checkpoint_directory=spec.checkpoint.directory,
        format=spec.checkpoint.format,
        level=spec.checkpoint.validation.level,
        timeout_seconds=spec.checkpoint.validation.timeout_seconds,
        resume=_may_resume(run),
        from_step=current.from_step,
        on_no_valid_checkpoint=spec.on_no_valid_checkpoint(),
        wandb_run_id=wandb.run_id if wandb is not None else None,
        keep_last=retention.keep_last if retention is not None else None,
        quarantine_keep_last=quarantine.keep_last if quarantine is not None else None,
        drain_forced=current.drain_forced,
        ended_pods=_ended_pods(current),
    )


def encoded(request: PrepareRequest) -> str:
    """Raises ValueError where it is too long for one environment variable."""
    text = request.encode()
    if len(text) > MAX_REQUEST_BYTES:
        raise ValueError(f"spec.config is too large: with it the request to prepare has {len(text)} bytes")
    return text


def config_text(spec: SweepRunSpec) -> str | None:
    """Keys sorted: an API server keeps no order, and the digest of the file must not depend on one."""
    if spec.config is None:
        return None
    return yaml.safe_dump(spec.config, sort_keys=True, allow_unicode=True, default_flow_style=False)


def _pinned(run: SweepRun) -> CheckpointRef | None:
    found = run.status.checkpoint
    if found is None:
        return None
    return CheckpointRef(step=found.step, epoch=found.epoch, path=found.path, digest=found.digest, format=found.format)


def _adoption(run: SweepRun) -> Adoption:
    """Only before the object has a run: afterwards its run is its own, whatever lies beside it."""
    current = run.status.current
    assert current is not None
    idle = run.spec.resume.adoption.idle_seconds
    if run.status.run_id is not None or current.adoption_done:
        return Adoption(scope=AdoptionScope.NONE, idle_seconds=idle)
    return Adoption(
        scope=run.spec.adoption_scope(),
        idle_seconds=idle,
        take=current.adopt_run_id,
        take_epoch=current.adopt_epoch or 0,
    )


def _ended_pods(current: Current) -> str | None:
    """Where every pod of the attempt was seen to have ended well. Its slots are compared with the volume's records."""
    pods = set(current.pod_uids)
    return pods_digest(pods) if pods and pods <= set(current.ended_pod_uids) else None


def _may_resume(run: SweepRun) -> bool:
    """A step that was asked for outweighs the policy."""
    current = run.status.current
    assert current is not None
    policy = run.spec.resume.policy
    if current.from_step is not None or policy is ResumePolicy.ALWAYS:
        return True
    return policy is ResumePolicy.ON_DISRUPTION and not _failed(run)


def _failed(run: SweepRun) -> bool:
    """The newest attempt ended by its own fault; a seeming completion that is none counts as that."""
    current, history = run.status.current, run.status.history
    interruption = current.interruption if current is not None else None
    if current is not None and interruption is not None and interruption.cause is Cause.COMPLETED:
        return current.disruption is None
    return bool(history) and history[-1].kind is Kind.FAILURE
