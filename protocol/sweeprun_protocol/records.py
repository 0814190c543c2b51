"""The records of a run directory. Each is one small JSON file that holds one fact and is published once.

`to_dict` / `from_value` are exact inverses; `from_value` takes untrusted input and raises `RecordError`.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Optional

from .codec import Fields, as_dicts, plain
from .frozen import dataclass
from .layout import MAX_EPOCH, MAX_STEP
from .names import is_file_name, is_run_id, is_slot
from .reasons import (
    CompletionPolicy,
    Format,
    Outcome,
    RefusalReason,
    StartReason,
)

MAX_ELIGIBLE = 4096
MAX_REFUSED = 256
MAX_SLOTS = 1024
MAX_METRICS = 32
MAX_METRIC_LENGTH = 64
"""Characters of a name, and of a value."""

_WHOLE = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True)
class Owner:
    """The SweepRun object that acts on a run. `cluster` is the UID of its kube-system namespace, or `local`."""

    cluster: str
    namespace: str
    name: str
    uid: str

    def to_dict(self) -> dict[str, Any]:
        return {"cluster": self.cluster, "namespace": self.namespace, "name": self.name, "uid": self.uid}

    @staticmethod
    def from_value(value: Any, where: str) -> Owner:
        fields = Fields(value, where)
        return Owner(
            cluster=fields.text("cluster", most=128),
            namespace=fields.text("namespace", most=253),
            name=fields.text("name", most=253),
            uid=fields.text("uid", most=128),
        )


@dataclass(frozen=True)
class Marker:
    """`.incomplete`: this run has begun and has no completion record. For people and for scripts."""

    run_id: str
    owner: Owner
    epoch: int
    time: float
    """Seconds since 1970 UTC, of the writer's clock: for people, never compared."""

    def to_dict(self) -> dict[str, Any]:
        return {"runId": self.run_id, "owner": self.owner.to_dict(), "epoch": self.epoch, "time": self.time}

    @staticmethod
    def from_value(value: Any, where: str) -> Marker:
        fields = Fields(value, where)
        return Marker(
            run_id=read_run_id(fields, "runId"),
            owner=fields.record("owner", Owner.from_value),
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            time=fields.number("time"),
        )


@dataclass(frozen=True)
class Claim:
    """`claims/NNNNNN.json`: who made which epoch of a run. The highest one fences all others."""

    epoch: int
    run_id: str
    owner: Owner
    prepare: int
    """Number of the owner's prepare that claimed: (owner.uid, prepare) identifies a retry."""
    time: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "runId": self.run_id,
            "owner": self.owner.to_dict(),
            "prepare": self.prepare,
            "time": self.time,
        }

    @staticmethod
    def from_value(value: Any, where: str) -> Claim:
        fields = Fields(value, where)
        return Claim(
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            run_id=read_run_id(fields, "runId"),
            owner=fields.record("owner", Owner.from_value),
            prepare=fields.integer("prepare"),
            time=fields.number("time"),
        )


@dataclass(frozen=True)
class CheckpointRef:
    """One checkpoint, by name and content."""

    step: int
    epoch: int
    """Epoch that committed it."""
    path: str
    """Relative to the run directory."""
    digest: Optional[str]
    """`sha256:<64 hex digits>`; absent where nobody has read it whole yet."""
    format: Format

    def to_dict(self) -> dict[str, Any]:
        told = {"step": self.step, "epoch": self.epoch, "path": self.path, "digest": self.digest}
        return plain({**told, "format": self.format})

    @staticmethod
    def from_value(value: Any, where: str) -> CheckpointRef:
        fields = Fields(value, where)
        return CheckpointRef(
            format=fields.choice("format", Format),
            step=fields.integer("step", most=MAX_STEP),
            epoch=fields.integer("epoch", most=MAX_EPOCH),
            path=read_relative(fields, "path"),
            digest=fields.optional("digest", read_digest(fields)),
        )


@dataclass(frozen=True)
class Refusal:
    """A checkpoint that was judged and not used."""

    path: str
    reason: RefusalReason
    message: str
    """A sentence; at most 300 characters."""
    entry: Optional[str] = None
    """File, or file and entry, where the damage is: `model.pt:data/3`."""
    offset: Optional[int] = None
    """Byte offset in `entry`'s file, where known."""

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "path": self.path,
                "reason": str(self.reason),
                "message": self.message[:300],
                "entry": self.entry[:300] if self.entry else None,
                "offset": self.offset,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> Refusal:
        fields = Fields(value, where)
        return Refusal(
            path=fields.text("path"),
            reason=fields.choice("reason", RefusalReason),
            message=fields.text("message", most=300),
            entry=fields.optional("entry", lambda name: fields.text(name, most=300)),
            offset=fields.optional("offset", fields.integer),
        )


@dataclass(frozen=True)
class Decision:
    """`epochs/<E>/decision.json`: what the prepare of epoch E decided, once. Blocked is never a decision."""

    epoch: int
    prepare: int
    outcome: Outcome
    """Resume, Restart, Fresh or Completed."""
    reason: Optional[StartReason]
    message: str
    base: Optional[CheckpointRef]
    """Where the attempt of this epoch starts; absent: step 0."""
    eligible: tuple[CheckpointRef, ...]
    """The sealed set: what may be read at this epoch and, at or below the base's step, in later ones."""
    refused: tuple[Refusal, ...]
    slots: tuple[str, ...]
    """Slots of the attempt that may start in this epoch: all of them must end well for completion."""
    completion: CompletionPolicy
    checkpoint_directory: str
    """As in spec.checkpoint.directory, `{epoch}` not expanded: the next prepare finds this epoch's files by it."""
    foreign: Optional[str] = None
    """Name, beside the decision, of the record of all foreign checkpoints as they were when it was made. By name, since
    a prepare that died before it decided may have left another one. Absent where no attempt may start."""
    forced_epoch: Optional[int] = None
    """Newest epoch, this one or one before it, that began though processes of an older one may live."""

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "epoch": self.epoch,
                "prepare": self.prepare,
                "outcome": str(self.outcome),
                "reason": str(self.reason) if self.reason else None,
                "message": self.message[:1000],
                "base": self.base.to_dict() if self.base else None,
                "eligible": as_dicts(self.eligible),
                "refused": as_dicts(self.refused),
                "slots": list(self.slots),
                "completion": str(self.completion),
                "checkpointDirectory": self.checkpoint_directory,
                "foreign": self.foreign,
                "forcedEpoch": self.forced_epoch,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> Decision:
        fields = Fields(value, where)
        slots = fields.texts("slots", most=MAX_SLOTS, longest=32)
        if not all(is_slot(slot) for slot in slots):
            fields.fail("slots", "holds something that is no slot name")
        return Decision(
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            prepare=fields.integer("prepare"),
            outcome=fields.choice("outcome", Outcome),
            reason=fields.optional("reason", lambda name: fields.choice(name, StartReason)),
            message=fields.text("message", most=1000),
            base=fields.optional("base", lambda name: fields.record(name, CheckpointRef.from_value)),
            eligible=tuple(fields.records("eligible", CheckpointRef.from_value, most=MAX_ELIGIBLE)),
            refused=tuple(fields.records("refused", Refusal.from_value, most=MAX_REFUSED)),
            slots=tuple(slots),
            completion=fields.choice("completion", CompletionPolicy),
            checkpoint_directory=read_relative(fields, "checkpointDirectory"),
            foreign=fields.optional("foreign", lambda name: read_file_name(fields, name)),
            forced_epoch=fields.optional("forcedEpoch", lambda name: fields.integer(name, least=1, most=MAX_EPOCH)),
        )


@dataclass(frozen=True)
class StartRecord:
    """`start-<slot>.json`: the pod that owns a slot in an epoch, published before training starts."""

    epoch: int
    slot: str
    pod_uid: str
    pod_name: str
    node: str
    time: float
    unwrapped: bool = False
    """No entrypoint is around the command: it records no end."""

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "epoch": self.epoch,
                "slot": self.slot,
                "podUid": self.pod_uid,
                "podName": self.pod_name,
                "node": self.node,
                "time": self.time,
                "unwrapped": True if self.unwrapped else None,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> StartRecord:
        fields = Fields(value, where)
        return StartRecord(
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            slot=read_slot(fields),
            pod_uid=fields.text("podUid", most=128),
            pod_name=fields.text("podName", most=253),
            node=fields.text("node", most=253),
            time=fields.number("time"),
            unwrapped=fields.has("unwrapped") and fields.flag("unwrapped"),
        )


@dataclass(frozen=True)
class EndRecord:
    """`end-<slot>.json`: how the command of a slot ended."""

    epoch: int
    slot: str
    pod_uid: str
    exit_code: int
    """As a shell would say it: 128 + signal where a signal ended it."""
    told_to_stop: bool
    """A termination signal reached the entrypoint before the command ended: exit 0 is then no completion."""
    completed: bool
    """The library's complete() was called by this slot's ranks."""
    last_step: Optional[int]
    """Highest step seen committed or reported, if any."""
    first_step_seconds: Optional[float]
    """From the entrypoint's start to the first step after the base, if seen."""
    time: float

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "epoch": self.epoch,
                "slot": self.slot,
                "podUid": self.pod_uid,
                "exitCode": self.exit_code,
                "toldToStop": self.told_to_stop,
                "completed": self.completed,
                "lastStep": self.last_step,
                "firstStepSeconds": self.first_step_seconds,
                "time": self.time,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> EndRecord:
        fields = Fields(value, where)
        return EndRecord(
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            slot=read_slot(fields),
            pod_uid=fields.text("podUid", most=128),
            exit_code=fields.integer("exitCode", least=0, most=255),
            told_to_stop=fields.flag("toldToStop"),
            completed=fields.flag("completed"),
            last_step=fields.optional("lastStep", lambda name: fields.integer(name, most=MAX_STEP)),
            first_step_seconds=fields.optional("firstStepSeconds", fields.number),
            time=fields.number("time"),
        )


@dataclass(frozen=True)
class LibraryRecord:
    """`library.json`: training code of this epoch uses the library; only complete() completes the run."""

    epoch: int
    world_size: int

    def to_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "worldSize": self.world_size}

    @staticmethod
    def from_value(value: Any, where: str) -> LibraryRecord:
        fields = Fields(value, where)
        return LibraryRecord(
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            world_size=fields.integer("worldSize", least=1, most=1 << 20),
        )


@dataclass(frozen=True)
class CompleteRecord:
    """`complete.json`: all ranks of an epoch called complete() together."""

    epoch: int
    world_size: int
    step: Optional[int]
    metrics: dict[str, str]
    """At most 32 names; decimal strings, since floats do not survive every reader."""

    def to_dict(self) -> dict[str, Any]:
        return plain({"epoch": self.epoch, "worldSize": self.world_size, "step": self.step, "metrics": self.metrics})

    @staticmethod
    def from_value(value: Any, where: str) -> CompleteRecord:
        fields = Fields(value, where)
        return CompleteRecord(
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            world_size=fields.integer("worldSize", least=1, most=1 << 20),
            step=fields.optional("step", lambda name: fields.integer(name, most=MAX_STEP)),
            metrics=fields.mapping("metrics", most=MAX_METRICS, longest=MAX_METRIC_LENGTH),
        )


@dataclass(frozen=True)
class Result:
    """`result.json`: the run is complete. The marker is removed only after this is durable."""

    run_id: str
    epoch: int
    """Epoch of the attempt that completed the run."""
    owner: Owner
    step: Optional[int]
    metrics: dict[str, str]
    time: float

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "runId": self.run_id,
                "epoch": self.epoch,
                "owner": self.owner.to_dict(),
                "step": self.step,
                "metrics": self.metrics,
                "time": self.time,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> Result:
        fields = Fields(value, where)
        return Result(
            run_id=read_run_id(fields, "runId"),
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            owner=fields.record("owner", Owner.from_value),
            step=fields.optional("step", lambda name: fields.integer(name, most=MAX_STEP)),
            metrics=fields.mapping("metrics", most=MAX_METRICS, longest=MAX_METRIC_LENGTH),
            time=fields.number("time"),
        )


@dataclass(frozen=True)
class RunRecord:
    """`run.json`: what a run is, written once before its first attempt and never changed."""

    run_id: str
    sweep_name: str
    volume_id: str
    config_file: Optional[str]
    """Plain file name in the run directory; absent where neither config nor init gave one."""
    config_digest: Optional[str]
    """`sha256:...` over the bytes of the configuration file."""
    wandb_run_id: Optional[str]
    previous_run_id: Optional[str]
    """The run that this one took the place of (onNoValidCheckpoint: NewRun)."""

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "runId": self.run_id,
                "sweepName": self.sweep_name,
                "volumeId": self.volume_id,
                "configFile": self.config_file,
                "configDigest": self.config_digest,
                "wandbRunId": self.wandb_run_id,
                "previousRunId": self.previous_run_id,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> RunRecord:
        fields = Fields(value, where)
        return RunRecord(
            run_id=read_run_id(fields, "runId"),
            sweep_name=fields.text("sweepName", most=64),
            volume_id=fields.text("volumeId", most=64),
            config_file=fields.optional("configFile", lambda name: read_file_name(fields, name)),
            config_digest=fields.optional("configDigest", read_digest(fields)),
            wandb_run_id=fields.optional("wandbRunId", lambda name: fields.text(name, most=64)),
            previous_run_id=fields.optional("previousRunId", lambda name: read_run_id(fields, name)),
        )


@dataclass(frozen=True)
class SupersededBy:
    """`superseded-by.json` in an old run: a fresh start took its place; adopters skip it, retries follow it."""

    run_id: str
    owner: Owner

    def to_dict(self) -> dict[str, Any]:
        return {"runId": self.run_id, "owner": self.owner.to_dict()}

    @staticmethod
    def from_value(value: Any, where: str) -> SupersededBy:
        fields = Fields(value, where)
        return SupersededBy(run_id=read_run_id(fields, "runId"), owner=fields.record("owner", Owner.from_value))


@dataclass(frozen=True)
class InitRecord:
    """`<key>.json` below INITS: the staging directory of sweep_init that won, and what it says of the run."""

    key: str
    staging: str
    """Name of the winning staging directory."""
    run_id: Optional[str]
    wandb_run_id: Optional[str]

    def to_dict(self) -> dict[str, Any]:
        return plain({"key": self.key, "staging": self.staging, "runId": self.run_id, "wandbRunId": self.wandb_run_id})

    @staticmethod
    def from_value(value: Any, where: str) -> InitRecord:
        fields = Fields(value, where)
        return InitRecord(
            key=read_file_name(fields, "key"),
            staging=read_file_name(fields, "staging"),
            run_id=fields.optional("runId", lambda name: read_run_id(fields, name)),
            wandb_run_id=fields.optional("wandbRunId", lambda name: fields.text(name, most=64)),
        )


@dataclass(frozen=True)
class VolumeRecord:
    """VOLUME_RECORD at the root: which volume this is."""

    volume_id: str

    def to_dict(self) -> dict[str, Any]:
        return {"volumeId": self.volume_id}

    @staticmethod
    def from_value(value: Any, where: str) -> VolumeRecord:
        return VolumeRecord(volume_id=Fields(value, where).text("volumeId", most=64))


def read_run_id(fields: Fields, name: str) -> str:
    value = fields.text(name, most=64)
    if not is_run_id(value):
        fields.fail(name, "is no valid run ID")
    return value


def read_slot(fields: Fields, name: str = "slot") -> str:
    value = fields.text(name, most=32)
    if not is_slot(value):
        fields.fail(name, "is no slot name")
    return value


def read_file_name(fields: Fields, name: str) -> str:
    value = fields.text(name, most=128)
    if not is_file_name(value):
        fields.fail(name, "is no plain file name")
    return value


def read_relative(fields: Fields, name: str) -> str:
    """A path that stays below where it starts, whatever a tenant wrote into a record."""
    value = fields.text(name)
    parts = value.split("/")
    if not value or value.startswith("/") or any(part in ("", ".", "..") for part in parts):
        fields.fail(name, "is no path below the run directory")
    return value


def read_whole(fields: Fields, name: str) -> int:
    """A whole number that is kept as text, since not every JSON reader keeps integers beyond 2**53."""
    text = fields.text(name, most=21)
    if not _WHOLE.fullmatch(text):
        fields.fail(name, "is no whole number")
    return int(text)


def read_digest(fields: Fields) -> Callable[[str], str]:
    def read(name: str) -> str:
        value = fields.text(name, most=80)
        head, _, digits = value.partition(":")
        if head != "sha256" or len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
            fields.fail(name, "is no digest of the form sha256:<64 hex digits>")
        return value

    return read
