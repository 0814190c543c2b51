"""`status` of a SweepRun. Conditions are the truth; phase is derived; `current` is where the state machine stands."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic.config import JsonDict

from sweeprun_protocol.reasons import Format, Outcome, RefusalReason, StartReason

from .base import Count, StatusModel

HISTORY = 10
MAX_POD_UIDS = 512
MAX_FORCED = 16
"""Pods deleted by force that history names."""
MAX_SILENT = 512
MAX_AVOIDED = 5
MAX_EVIDENCE = 4
"""Pods of an ended attempt that history describes."""

Message = Annotated[str, Field(max_length=1024)]


class ConditionType(StrEnum):
    ACCEPTED = "Accepted"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    STUCK = "Stuck"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    type: ConditionType
    status: ConditionStatus
    reason: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Message
    last_transition_time: datetime
    observed_generation: Count


class State(StrEnum):
    """Where the run's current attempt stands."""

    PREPARING = "Preparing"
    INITIALIZING = "Initializing"
    BACKOFF = "Backoff"
    """Prepare has answered; the attempt (or the next prepare after a block) waits until `notBefore`."""
    STARTING = "Starting"
    RUNNING = "Running"
    DRAINING = "Draining"
    HELD = "Held"
    """Drained and suspended: nothing of the attempt is left, the next prepare waits."""
    FINISHED = "Finished"


class Cause(StrEnum):
    """Why an attempt ended."""

    COMPLETED = "Completed"
    EVICTION_API = "EvictionAPI"
    PREEMPTION = "Preemption"
    TAINT = "Taint"
    POD_GC = "NodeGone"
    KUBELET = "KubeletEviction"
    DISRUPTION_OTHER = "OtherDisruption"
    """DisruptionTarget with a reason that this version does not know."""
    POD_LOST = "PodLost"
    POD_REPLACED = "PodReplaced"
    """A slot got another pod within the attempt."""
    OOM_KILLED = "OOMKilled"
    STORAGE_LIMIT = "StorageLimit"
    DEADLINE = "DeadlineExceeded"
    APPLICATION = "ApplicationError"
    STALLED = "Stalled"
    """The entrypoint ended a command that made no progress for limits.stallTimeoutSeconds."""
    NEVER_STARTED = "NeverStarted"
    QUEUE_SUSPENDED = "QueueSuspended"
    SUSPENDED = "Suspended"
    STOPPED = "Stopped"
    RETRIED = "Retried"
    WORKLOAD_LOST = "WorkloadLost"
    """The PyTorchJob was deleted by somebody else."""
    FENCED = "Fenced"
    """The attempt found a later claim on the volume and ended itself."""


class Kind(StrEnum):
    """What a cause counts as."""

    COMPLETION = "Completion"
    DISRUPTION = "Disruption"
    FAILURE = "Failure"
    NEVER_STARTED = "NeverStarted"
    NEUTRAL = "Neutral"
    """Asked for by people or queues: no budget."""


class CheckpointStatus(StatusModel):
    step: Count
    epoch: Count
    path: Annotated[str, Field(max_length=1024)]
    digest: Annotated[str, Field(max_length=80)] | None = None
    format: Format
    verified_time: datetime | None = None


class RefusedCheckpoint(StatusModel):
    path: Annotated[str, Field(max_length=1024)]
    reason: RefusalReason
    message: Annotated[str, Field(max_length=300)]
    entry: Annotated[str, Field(max_length=300)] | None = None


class Interruption(StatusModel):
    """How the current attempt ended; first classification, final."""

    cause: Cause
    evidence: Message
    node: Annotated[str, Field(max_length=253)] | None = None
    pod: Annotated[str, Field(max_length=253)] | None = None
    time: datetime
    """When it was detected."""
    event_time: datetime | None = None
    """When it happened, by the cluster's word; absent where it says nothing."""


class PodEvidence(StatusModel):
    """What a pod showed when its attempt ended; its object is gone soon after."""

    name: Annotated[str, Field(max_length=253)]
    node: Annotated[str, Field(max_length=253)] | None = None
    phase: Annotated[str, Field(max_length=32)]
    reason: Annotated[str, Field(max_length=128)] | None = None
    """Of the pod: Evicted, OutOfcpu, ..."""
    disruption: Annotated[str, Field(max_length=128)] | None = None
    """Reason of DisruptionTarget."""
    deleting: bool = False
    container: Annotated[str, Field(max_length=128)] | None = None
    """The one that failed first, with its code and reason; else the training container."""
    exit_code: int | None = None
    container_reason: Annotated[str, Field(max_length=128)] | None = None
    time: datetime | None = None
    """When the container ended, else when the pod was marked."""


class ForcedDeletion(StatusModel):
    """Pods that were deleted without their node's word: their processes may have gone on."""

    time: datetime
    """Of the first one."""
    pods: Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=MAX_FORCED)] = []
    """The first ones."""
    nodes: Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=MAX_FORCED)] = []


class Doubt(StatusModel):
    """An end whose cause is not clear yet: better evidence is waited for."""

    since: datetime
    peers_missing: bool = False
    """Another pod of the attempt was gone already when the end was first seen."""
    pod_vanished: bool = False
    """A pod was gone while no other had failed: what tells why may come late."""
    node: Annotated[str, Field(max_length=253)] | None = None
    """A node of another pod that did not answer meanwhile."""


class Current(StatusModel):
    attempt: Count
    """Number of the newest attempt; 0 before the first one."""
    prepare: Count
    """Number of the newest prepare; raised before its Job is made."""
    state: State
    since: datetime
    epoch: Count = 0
    outcome: Outcome | None = None
    """What prepare decided for this attempt: Resume, Restart or Fresh."""
    reason: StartReason | None = None
    template_hash: Annotated[str, Field(max_length=64)] | None = None
    workload_uid: Annotated[str, Field(max_length=64)] | None = None
    pod_uids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=MAX_POD_UIDS)] = []
    ended_pod_uids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=MAX_POD_UIDS)] = []
    """Those seen to have ended well: their objects may go."""
    replicas: Annotated[dict[str, Count], Field(max_length=8)] = {}
    """Pods of each replica type that the newest prepare was told of: an attempt with others needs another prepare."""
    doubt: Doubt | None = None
    disruption: Interruption | None = None
    """First DisruptionTarget seen on a pod that had not ended yet, or while an attempt that seemed complete drained."""
    interruption: Interruption | None = None
    not_before: datetime | None = None
    """In Backoff: what comes next waits until then."""
    prepare_failures: Count = 0
    """Prepares without a usable answer, or with Blocked, since the last one that answered."""
    adopt_run_id: Annotated[str, Field(max_length=64)] | None = None
    """Second step of an adoption: the candidate whose owner was proved to be gone."""
    adopt_epoch: Count | None = None
    adoption_done: bool = False
    """No candidate's owner could be proved to be gone: a run of its own is allocated."""
    from_step: Count | None = None
    """Of the Retry request in work."""
    stopping: bool = False
    """Stop was requested: the drain ends the run."""
    base_gpu_seconds: Count = 0
    """GPU time that the checkpoint holds from which the attempt started."""
    admitted_time: datetime | None = None
    """When the workload was first seen not suspended by a queue; startTimeoutSeconds counts from here."""
    running_time: datetime | None = None
    """When all pods of the attempt ran."""
    silent_nodes: Annotated[dict[str, datetime], Field(max_length=MAX_SILENT)] = {}
    """While it drains: nodes with Terminating pods that do not answer, and since when without a break."""
    drain_forced: bool = False
    """Pods of the attempt were deleted by force, and no prepare has decided since."""
    drained_time: datetime | None = None
    prepared_time: datetime | None = None
    seen_time: datetime | None = None
    """When the workload was first seen, by the operator's clock: the API server's may go hours before or behind it."""


class PhaseSeconds(StatusModel):
    """Recovery, phase by phase; seconds."""

    detect: float | None = None
    drain: float | None = None
    prepare: float | None = None
    validation: float | None = None
    queue: float | None = None
    start: float | None = None
    first_step: float | None = None


class Attempt(StatusModel):
    """One entry of history: an attempt, how it began and how it ended."""

    attempt: Count
    epoch: Count
    outcome: Outcome
    reason: StartReason | None = None
    from_step: Count | None = None
    """Step of the checkpoint that it went on from; absent: step 0."""
    to_step: Count | None = None
    """Highest step seen of it."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    cause: Cause | None = None
    kind: Kind | None = None
    evidence: Message | None = None
    node: Annotated[str, Field(max_length=253)] | None = None
    pods: Annotated[list[PodEvidence], Field(max_length=MAX_EVIDENCE)] = []
    """When the end was first seen: the one that evidence names, then those that failed or went, in time."""
    forced: ForcedDeletion | None = None
    """Set where its end was not confirmed by the nodes of all its pods."""
    template_hash: Annotated[str, Field(max_length=64)] | None = None
    refused: Annotated[list[RefusedCheckpoint], Field(max_length=5)] = []
    """Checkpoints that prepare refused before this attempt."""
    seconds: PhaseSeconds = PhaseSeconds()


class AvoidedNode(StatusModel):
    """A node on which attempts of this run were lost repeatedly: the next ones rather go elsewhere."""

    node: Annotated[str, Field(max_length=253)]
    losses: Count
    reason: Annotated[str, Field(max_length=256)]
    until: datetime


class Counts(StatusModel):
    attempts: Count = 0
    resumes: Count = 0
    restarts: Count = 0
    fresh_starts: Count = 0
    """New run IDs after the first one."""
    disruptions: Count = 0
    failures: Count = 0
    never_started: Count = 0


class SinceProgress(StatusModel):
    disruptions: Count = 0
    failures: Count = 0
    never_started: Count = 0
    attempts: Count = 0


class Progress(StatusModel):
    step: Count
    time: datetime


class Result(StatusModel):
    step: Count | None = None
    metrics: Annotated[dict[str, Annotated[str, Field(max_length=64)]], Field(max_length=32)] = {}


class LastRequest(StatusModel):
    id: Annotated[str, Field(max_length=64)]
    time: datetime
    message: Message


class PreviousRun(StatusModel):
    run_id: Annotated[str, Field(max_length=64)]
    reason: StartReason
    time: datetime


class Savings(StatusModel):
    steps_kept: Count = 0
    steps_repeated: Count = 0
    gpu_seconds_kept: Count = 0


_BY_TYPE: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class SweepRunStatus(StatusModel):
    observed_generation: Count = 0
    phase: Annotated[str, Field(max_length=32)] = "Pending"
    run_id: Annotated[str, Field(max_length=64)] | None = None
    previous_run_ids: Annotated[list[PreviousRun], Field(max_length=5)] = []
    config_digest: Annotated[str, Field(max_length=80)] | None = None
    config_file: Annotated[str, Field(max_length=128)] | None = None
    volume_id: Annotated[str, Field(max_length=64)] | None = None
    wandb_run_id: Annotated[str, Field(max_length=64)] | None = None
    previous_wandb_run_id: Annotated[str, Field(max_length=64)] | None = None
    """W&B run of the same run before it restarted, or before an attempt of it was deleted by force."""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=_BY_TYPE)] = []
    start_time: datetime | None = None
    completion_time: datetime | None = None
    last_request: LastRequest | None = None
    progress: Progress | None = None
    result: Result | None = None
    counts: Counts = Counts()
    since_progress: SinceProgress = SinceProgress()
    checkpoint: CheckpointStatus | None = None
    current: Current | None = None
    history: Annotated[list[Attempt], Field(max_length=HISTORY)] = []
    """Newest last."""
    avoided_nodes: Annotated[list[AvoidedNode], Field(max_length=MAX_AVOIDED)] = []
    running_seconds: Count = 0
    """Sum over ended attempts; activeDeadlineSeconds counts it."""
    savings: Savings = Savings()

    def condition(self, kind: ConditionType) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def is_true(self, kind: ConditionType) -> bool:
        found = self.condition(kind)
        return found is not None and found.status == ConditionStatus.TRUE
