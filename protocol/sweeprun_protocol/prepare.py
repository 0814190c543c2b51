"""The two messages of prepare: the request that the operator puts into the Job, the report that comes back.

The report travels as the container's termination message, at most REPORT_BYTES; the operator treats it as untrusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Optional

from .codec import Fields, RecordError, as_dicts, dump, parse, plain
from .frozen import dataclass
from .layout import MAX_EPOCH, MAX_STEP, check_relative, check_run_directory
from .names import is_run_id, is_sweep_name
from .reasons import (
    AdoptionScope,
    BlockedReason,
    CompletionPolicy,
    Format,
    Level,
    OnNoValidCheckpoint,
    Outcome,
    StartReason,
)
from .records import (
    MAX_METRICS,
    MAX_SLOTS,
    CheckpointRef,
    EndRecord,
    Owner,
    Refusal,
    read_digest,
    read_file_name,
    read_run_id,
)

REQUEST_ENV = "SWEEPRUN_PREPARE_REQUEST"
REPORT_BYTES = 3072
"""Kubernetes keeps 4096 bytes of a termination message; the rest is margin."""

MAX_PREPARE = 99_999_999
"""Numbers stand in labels and in names of Jobs."""

MAX_EARLIER = 5_000
"""Attempts that are counted again: their numbers stand in names of pods, which end at 9999."""

MAX_KEPT = 1_000_000
"""Of checkpoints and of what was refused: the largest bound that a user may set."""

MAX_CONFIG_BYTES = 64 << 10
MAX_REQUEST_BYTES = 120 << 10
"""Below the kernel's 128 KiB for one environment string."""


def pods_digest(uids: Iterable[str]) -> str:
    """Of a set of pods: constant in size, where an attempt may have hundreds."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(set(uids))).encode()).hexdigest()


@dataclass(frozen=True)
class Configuration:
    """The configuration file: written once per run, kept byte for byte."""

    file_name: str
    text: Optional[str]
    """Content from spec.config; absent where sweep_init writes the file, or where there is none."""

    def to_dict(self) -> dict[str, Any]:
        return plain({"fileName": self.file_name, "text": self.text})

    @staticmethod
    def from_value(value: Any, where: str) -> Configuration:
        fields = Fields(value, where)
        return Configuration(
            file_name=read_file_name(fields, "fileName"),
            text=fields.optional("text", lambda name: fields.text(name, most=MAX_CONFIG_BYTES)),
        )


@dataclass(frozen=True)
class Adoption:
    """What may be taken over. First `scope` alone: candidates come back. Then `take` and `take_epoch`: that one."""

    scope: AdoptionScope
    idle_seconds: int
    """Silence required in the run directory of bare or foreign markers and of owners in other clusters."""
    take: Optional[str] = None
    """Run ID whose owner the operator proved to be gone."""
    take_epoch: int = 0
    """Epoch at its head when the candidate was listed; a moved head makes the adoption fail. 0: bare marker."""

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "scope": str(self.scope),
                "idleSeconds": self.idle_seconds,
                "take": self.take,
                "takeEpoch": self.take_epoch,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> Adoption:
        fields = Fields(value, where)
        return Adoption(
            scope=fields.choice("scope", AdoptionScope),
            idle_seconds=fields.integer("idleSeconds", most=10**9),
            take=fields.optional("take", lambda name: read_run_id(fields, name)),
            take_epoch=fields.integer("takeEpoch", most=MAX_EPOCH),
        )


@dataclass(frozen=True)
class PrepareRequest:
    owner: Owner
    prepare: int
    """Number of this prepare, raised in status before its Job was made."""
    sweep_name: str
    run_directory: str
    """Template with {sweepName} and {runId}, below the mounted root."""
    run_id: Optional[str]
    """From status once known, else from spec.runId; absent: adopt, let init name it, or allocate."""
    started: bool
    """The operator knows that this run was claimed before: a missing run directory is then Blocked."""
    volume_id: Optional[str]
    """From status: another ID on the volume is Blocked."""
    known_epoch: int
    """Highest epoch that the operator has in status; a lower head on the volume is Blocked."""
    pinned: Optional[CheckpointRef]
    """The checkpoint in status, of the run `run_id`: known to exist, its digest kept off the volume."""
    slots: tuple[str, ...]
    """Slots of the next attempt."""
    completion: CompletionPolicy
    configuration: Configuration
    init_key: Optional[str]
    """Set where the SweepRun has sweep_init; stable for one fresh start. Absent: no init."""
    fresh_number: int
    """How many fresh starts this SweepRun has had: part of the allocated run ID."""
    adoption: Adoption
    checkpoint_directory: str
    format: Format
    level: Level
    timeout_seconds: int
    """For validation of all candidates together."""
    resume: bool
    """False: policy Never (or OnDisruption after a failure): Restart whatever is there."""
    from_step: Optional[int]
    """Retry with fromStep: the newest eligible checkpoint at or below it."""
    on_no_valid_checkpoint: OnNoValidCheckpoint
    wandb_run_id: Optional[str]
    """From spec.tracking; absent: the run ID."""
    keep_last: Optional[int] = None
    """Verified checkpoints of the own format that are kept; absent: nothing is deleted."""
    quarantine_keep_last: Optional[int] = None
    """Entries of quarantine that are kept; absent: all."""
    drain_forced: bool = False
    """Pods of the last attempt were deleted by force: their processes may live, and may write."""
    ended_pods: Optional[str] = None
    """pods_digest of all pods of the last attempt, where the cluster showed of each that its training container ended
    with 0 before anything had asked the pod to go."""

    def encode(self) -> str:
        data = dump(
            plain(
                {
                    "owner": self.owner.to_dict(),
                    "prepare": self.prepare,
                    "sweepName": self.sweep_name,
                    "runDirectory": self.run_directory,
                    "runId": self.run_id,
                    "started": self.started,
                    "volumeId": self.volume_id,
                    "knownEpoch": self.known_epoch,
                    "pinned": self.pinned.to_dict() if self.pinned else None,
                    "slots": list(self.slots),
                    "completion": str(self.completion),
                    "configuration": self.configuration.to_dict(),
                    "initKey": self.init_key,
                    "freshNumber": self.fresh_number,
                    "adoption": self.adoption.to_dict(),
                    "checkpointDirectory": self.checkpoint_directory,
                    "format": str(self.format),
                    "level": str(self.level),
                    "timeoutSeconds": self.timeout_seconds,
                    "resume": self.resume,
                    "fromStep": self.from_step,
                    "onNoValidCheckpoint": str(self.on_no_valid_checkpoint),
                    "wandbRunId": self.wandb_run_id,
                    "keepLast": self.keep_last,
                    "quarantineKeepLast": self.quarantine_keep_last,
                    "drainForced": self.drain_forced,
                    "endedPods": self.ended_pods,
                }
            )
        )
        return data.decode("ascii").strip()

    @staticmethod
    def decode(text: str, *, where: str = REQUEST_ENV) -> PrepareRequest:
        """Raises RecordError."""
        fields = Fields(parse(text.encode(), where=where, limit=MAX_REQUEST_BYTES), where)
        request = PrepareRequest(
            owner=fields.record("owner", Owner.from_value),
            prepare=fields.integer("prepare"),
            sweep_name=fields.text("sweepName", most=64),
            run_directory=fields.text("runDirectory", most=512),
            run_id=fields.optional("runId", lambda name: read_run_id(fields, name)),
            started=fields.flag("started"),
            volume_id=fields.optional("volumeId", lambda name: fields.text(name, most=64)),
            known_epoch=fields.integer("knownEpoch", most=MAX_EPOCH),
            pinned=fields.optional("pinned", lambda name: fields.record(name, CheckpointRef.from_value)),
            slots=tuple(fields.texts("slots", most=MAX_SLOTS, longest=32)),
            completion=fields.choice("completion", CompletionPolicy),
            configuration=fields.record("configuration", Configuration.from_value),
            init_key=fields.optional("initKey", lambda name: read_file_name(fields, name)),
            fresh_number=fields.integer("freshNumber", most=10**6),
            adoption=fields.record("adoption", Adoption.from_value),
            checkpoint_directory=fields.text("checkpointDirectory", most=512),
            format=fields.choice("format", Format),
            level=fields.choice("level", Level),
            timeout_seconds=fields.integer("timeoutSeconds", least=1, most=10**6),
            resume=fields.flag("resume"),
            from_step=fields.optional("fromStep", lambda name: fields.integer(name, most=MAX_STEP)),
            on_no_valid_checkpoint=fields.choice("onNoValidCheckpoint", OnNoValidCheckpoint),
            wandb_run_id=fields.optional("wandbRunId", lambda name: fields.text(name, most=64)),
            keep_last=fields.optional("keepLast", lambda name: fields.integer(name, least=1, most=MAX_KEPT)),
            quarantine_keep_last=fields.optional(
                "quarantineKeepLast", lambda name: fields.integer(name, least=1, most=MAX_KEPT)
            ),
            drain_forced=fields.flag("drainForced"),
            ended_pods=fields.optional("endedPods", read_digest(fields)),
        )
        if not is_sweep_name(request.sweep_name):
            raise RecordError(where, "field 'sweepName' is no valid sweep name")
        try:
            check_run_directory(request.run_directory)
            check_relative(request.checkpoint_directory, what="checkpointDirectory")
        except ValueError as error:
            raise RecordError(where, str(error)) from None
        return request


@dataclass(frozen=True)
class Candidate:
    """An incomplete run that could be adopted."""

    run_id: str
    epoch: int
    """Head of its claims; 0: a bare or foreign marker without any claim."""
    owner: Optional[Owner]
    idle_seconds: int
    """Since the last change seen in the run directory."""

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "runId": self.run_id,
                "epoch": self.epoch,
                "owner": self.owner.to_dict() if self.owner else None,
                "idleSeconds": self.idle_seconds,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> Candidate:
        fields = Fields(value, where)
        run_id = fields.text("runId", most=64)
        if not is_run_id(run_id):
            fields.fail("runId", "is no valid run ID")
        return Candidate(
            run_id=run_id,
            epoch=fields.integer("epoch", most=MAX_EPOCH),
            owner=fields.optional("owner", lambda name: fields.record(name, Owner.from_value)),
            idle_seconds=fields.integer("idleSeconds"),
        )


@dataclass(frozen=True)
class Earlier:
    """What the volume knows of an owner's earlier attempts at a run of which the operator knows nothing."""

    attempts: int
    resumes: int
    restarts: int

    def to_dict(self) -> dict[str, Any]:
        return {"attempts": self.attempts, "resumes": self.resumes, "restarts": self.restarts}

    @staticmethod
    def from_value(value: Any, where: str) -> Earlier:
        fields = Fields(value, where)
        found = [fields.integer(name, most=MAX_EARLIER) for name in ("attempts", "resumes", "restarts")]
        return Earlier(*found)


@dataclass(frozen=True)
class PrepareReport:
    """What prepare answers. Which fields are set follows from `outcome`."""

    prepare: int
    outcome: Outcome
    message: str
    """One or two sentences for people; at most 500 characters."""
    reason: Optional[StartReason] = None
    """Resume, Restart, Fresh."""
    blocked: Optional[BlockedReason] = None
    """Blocked."""
    run_id: Optional[str] = None
    epoch: int = 0
    """The epoch that was claimed; 0 where none was."""
    volume_id: Optional[str] = None
    checkpoint: Optional[CheckpointRef] = None
    """Resume: where to go on. Completed: the last one, if any."""
    previous_run_id: Optional[str] = None
    """Fresh after AllCheckpointsRefused: the run left behind. Adopted runs keep their ID."""
    config_digest: Optional[str] = None
    config_file: Optional[str] = None
    wandb_run_id: Optional[str] = None
    adopted: bool = False
    step: Optional[int] = None
    """Completed: final step."""
    metrics: Optional[dict[str, str]] = None
    """Completed."""
    last_step: Optional[int] = None
    """Highest step that the epoch before reached or committed, as far as records tell."""
    first_step_seconds: Optional[float] = None
    """Of the epoch before: entrypoint start to first step, the slowest slot's."""
    ends: tuple[EndRecord, ...] = ()
    """Of the epoch before; dropped first when space runs out."""
    refused: tuple[Refusal, ...] = ()
    refused_count: int = 0
    checked_count: int = 0
    checked_bytes: int = 0
    seconds: float = 0.0
    """Whole prepare."""
    validate_seconds: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    head_prepare: Optional[int] = None
    """Superseded: number of the prepare of this owner that claimed the newest epoch."""
    earlier: Optional[Earlier] = None
    """Where the request does not say that the run was started, and this owner had claimed it before."""

    def _dict(self) -> dict[str, Any]:
        return plain(
            {
                "prepare": self.prepare,
                "outcome": str(self.outcome),
                "message": self.message.replace("\x00", " ")[:500],
                "reason": str(self.reason) if self.reason else None,
                "blocked": str(self.blocked) if self.blocked else None,
                "runId": self.run_id,
                "epoch": self.epoch,
                "volumeId": self.volume_id,
                "checkpoint": self.checkpoint.to_dict() if self.checkpoint else None,
                "previousRunId": self.previous_run_id,
                "configDigest": self.config_digest,
                "configFile": self.config_file,
                "wandbRunId": self.wandb_run_id,
                "adopted": self.adopted,
                "step": self.step,
                "metrics": self.metrics,
                "lastStep": self.last_step,
                "firstStepSeconds": self.first_step_seconds,
                "ends": as_dicts(self.ends) or None,
                "refused": as_dicts(self.refused) or None,
                "refusedCount": self.refused_count,
                "checkedCount": self.checked_count,
                "checkedBytes": self.checked_bytes,
                "seconds": round(self.seconds, 3),
                "validateSeconds": round(self.validate_seconds, 3),
                "candidates": as_dicts(self.candidates) or None,
                "headPrepare": self.head_prepare,
                "earlier": self.earlier.to_dict() if self.earlier else None,
            }
        )

    def encode(self) -> bytes:
        """At most REPORT_BYTES: ends, then refusals and candidates, then metrics are shortened until it fits.

        Raises RecordError where names alone, which cannot be shortened, are too long.
        """
        report = replace(
            self,
            refused_count=max(self.refused_count, len(self.refused)),
            refused=self.refused[:5],
            candidates=self.candidates[:8],
            ends=self.ends[:8],
        )
        while True:
            data = dump(report._dict())
            if len(data) <= REPORT_BYTES:
                return data
            report = report._shortened()

    def _shortened(self) -> PrepareReport:
        if self.ends:
            return replace(self, ends=self.ends[:-1])
        if len(self.candidates) > 1:
            return replace(self, candidates=self.candidates[:-1])
        if self.refused:
            return replace(self, refused=self.refused[:-1])
        if self.metrics:
            return replace(self, metrics=dict(list(self.metrics.items())[:-1]))
        if self.message:
            return replace(self, message=self.message[: len(self.message) // 2])
        if self.candidates:
            return replace(self, candidates=())
        raise RecordError("prepare's report", f"does not fit into {REPORT_BYTES} bytes")

    @staticmethod
    def decode(data: bytes, *, where: str = "prepare's report") -> PrepareReport:
        """Raises RecordError; never trusts a size or a type."""
        fields = Fields(parse(data, where=where, limit=REPORT_BYTES + 1024), where)
        return PrepareReport(
            prepare=fields.integer("prepare"),
            outcome=fields.choice("outcome", Outcome),
            message=fields.text("message", most=500),
            reason=fields.optional("reason", lambda name: fields.choice(name, StartReason)),
            blocked=fields.optional("blocked", lambda name: fields.choice(name, BlockedReason)),
            run_id=fields.optional("runId", lambda name: read_run_id(fields, name)),
            epoch=fields.integer("epoch", most=MAX_EPOCH),
            volume_id=fields.optional("volumeId", lambda name: fields.text(name, most=64)),
            checkpoint=fields.optional("checkpoint", lambda name: fields.record(name, CheckpointRef.from_value)),
            previous_run_id=fields.optional("previousRunId", lambda name: read_run_id(fields, name)),
            config_digest=fields.optional("configDigest", read_digest(fields)),
            config_file=fields.optional("configFile", lambda name: read_file_name(fields, name)),
            wandb_run_id=fields.optional("wandbRunId", lambda name: fields.text(name, most=64)),
            adopted=fields.flag("adopted"),
            step=fields.optional("step", lambda name: fields.integer(name, most=MAX_STEP)),
            metrics=fields.optional("metrics", lambda name: fields.mapping(name, most=MAX_METRICS, longest=64)),
            last_step=fields.optional("lastStep", lambda name: fields.integer(name, most=MAX_STEP)),
            first_step_seconds=fields.optional("firstStepSeconds", fields.number),
            ends=_records(fields, "ends", EndRecord.from_value, 8),
            refused=_records(fields, "refused", Refusal.from_value, 5),
            refused_count=fields.integer("refusedCount"),
            checked_count=fields.integer("checkedCount"),
            checked_bytes=fields.integer("checkedBytes"),
            seconds=fields.number("seconds"),
            validate_seconds=fields.number("validateSeconds"),
            candidates=_records(fields, "candidates", Candidate.from_value, 8),
            head_prepare=fields.optional("headPrepare", lambda name: fields.integer(name, most=MAX_PREPARE)),
            earlier=fields.optional("earlier", lambda name: fields.record(name, Earlier.from_value)),
        )


def _records(fields: Fields, name: str, read: Any, most: int) -> tuple[Any, ...]:
    items: Optional[list[Any]] = fields.optional(name, lambda key: fields.records(key, read, most=most))
    return tuple(items or ())
