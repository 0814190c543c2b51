"""What one pass knows: a frozen snapshot, made by `cluster.gather`, of one SweepRun and everything that belongs to it.

Decisions read nothing else. Lists are consistent reads made in this pass; an absent object was absent then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.prepare import PrepareReport


class JobPhase(StrEnum):
    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Role(StrEnum):
    PREPARE = "prepare"
    INIT = "init"
    SURVEY = "survey"
    """Reads ahead during a drain; nothing waits for it, and it gives no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperJob:
    """A prepare or init Job, with what its newest pod says."""

    name: str
    uid: str
    role: Role
    number: int
    owned: bool
    """Our SweepRun's UID controls it. False: the name is taken by something else."""
    phase: JobPhase
    deleting: bool = False
    suspended: bool = False
    """spec.suspend is true, by a queue's hand: we never set it."""
    podless: bool = False
    """No pod of it is there."""
    report: PrepareReport | None = None
    problem: str | None = None
    """Why there is no report: unreadable answer, failed pod, deadline, unschedulable, image, ...; one sentence."""
    created: datetime | None = None
    finished: datetime | None = None


class OwnerState(StrEnum):
    """Of the SweepRun that an incomplete run on the volume belongs to."""

    ALIVE = "Alive"
    """Or nothing is proved of it."""
    ENDING = "Ending"
    """It is gone or has ended, and something of it still acts: it will be gone by itself."""
    GONE = "Gone"
    """Proved: nobody acts for it any more."""


class PodPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    name: str
    init: bool = False
    started: bool = False
    waiting_reason: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    """`OOMKilled`, `Error`, `Completed`, `ContainerStatusUnknown`, ..."""
    message: str | None = None
    """Termination message or the log's tail: the last 512 characters."""
    finished: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    name: str
    uid: str
    attempt: int
    slot: str
    phase: PodPhase
    deleting: bool = False
    reason: str | None = None
    message: str | None = None
    disruption: str | None = None
    """Reason of DisruptionTarget=True, if set."""
    disruption_message: str | None = None
    disruption_time: datetime | None = None
    scheduled: bool = False
    unschedulable: str | None = None
    """Message of PodScheduled=False, if set."""
    node: str | None = None
    containers: tuple[ContainerState, ...] = ()
    created: datetime | None = None
    unwrapped: bool = False
    """No entrypoint is around its command: its end stands nowhere but here."""
    grace_seconds: int | None = None
    """Of a pod that is being deleted: what its processes are given to end. 0: only finalizers hold the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A PyTorchJob of ours."""

    name: str
    uid: str
    attempt: int
    owned: bool
    deleting: bool = False
    succeeded: bool = False
    failed: bool = False
    failure_message: str | None = None
    suspended: bool = False
    """spec.runPolicy.suspend is true, by a queue's hand: we never set it."""
    created: datetime | None = None
    finished: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The PersistentVolumeClaim of spec.storage, read while acceptance is judged."""

    found: bool
    access_modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What the API server says of this generation, read only while it has not been accepted yet."""

    claim: Claim
    problem: str | None
    """Message of the server-side dry run of the workload, None where it passed or was not made."""
    transient: bool = False
    """The dry run could not be made (API server or webhook away): neither accepted nor refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The API server refuses a child, or a pod that a child lacks."""

    what: str
    """`PyTorchJob run-a0`, `the pod of Job run-p0`."""
    message: str
    """In the server's words."""
    field: str
    """Where people can change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    run: SweepRun
    now: datetime
    cluster_id: str
    jobs: tuple[HelperJob, ...] = ()
    workloads: tuple[Workload, ...] = ()
    pods: tuple[PodState, ...] = ()
    """Pods of attempts; those of helper Jobs are folded into HelperJob."""
    departed: tuple[PodState, ...] = ()
    """Pods of attempts that are gone, as a watch last told of them: with DisruptionTarget."""
    acceptance: Acceptance | None = None
    refusal: Refusal | None = None
    """Of what the run needs next: its child was refused in the pass before, or a pod of it would be."""
    claim: Claim | None = None
    """Read while something of a running attempt goes wrong."""
    unready_nodes: frozenset[str] = frozenset()
    """Among the nodes of this run's pods: Ready is not True, or the node object is gone."""
    owners: Mapping[str, OwnerState] = field(default_factory=dict)
    """For each candidate run ID of a Candidates report."""
