"""`spec` of a SweepRun. Markers in the docstrings: [I] immutable, [O] set once, [A] editable and in effect with the
next attempt, [L] editable and in effect now."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from sweeprun_protocol.names import FILE_NAME_PATTERN, RUN_ID_PATTERN, SWEEP_NAME_PATTERN
from sweeprun_protocol.reasons import AdoptionScope, CompletionPolicy, Format, Level, OnNoValidCheckpoint, ResumePolicy

from .base import ApiModel, Count, Opaque, PositiveCount, Seconds

MAX_NAME = 44
"""Children are called <name>-a9999-worker-9999, and pod names are labels: 63 characters."""
MAX_TEMPLATE_BYTES = 256 << 10
MAX_CONFIG_BYTES = 64 << 10

Text = Annotated[str, Field(min_length=1, max_length=253)]
Path = Annotated[str, Field(min_length=1, max_length=512)]
Argument = Annotated[str, Field(max_length=1024)]


class PersistentVolumeClaim(ApiModel):
    claim_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    """claimName is the PersistentVolumeClaim in the SweepRun's namespace that keeps the runs."""
    sub_path: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^/].*$")] | None = None
    """subPath is the directory of the volume that is mounted; absent: its root."""


class Storage(ApiModel):
    """storage [I] says where runs live."""

    type: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    persistent_volume_claim: PersistentVolumeClaim
    mount_path: Annotated[str, Field(min_length=2, max_length=512, pattern=r"^/.+$")] = "/data"
    """mountPath is where the volume appears in every pod; an existing mount of this claim is reused."""
    run_directory: Path = "sweep/{sweepName}/runs/{runId}"
    """runDirectory is the directory of one run below the mount; it must end with /{runId}."""


class Init(ApiModel):
    """init [I] is sweep_init: it runs at least once per fresh start and never on a resume."""

    template: Opaque
    """template is a pod template with exactly one container, which writes into $SWEEPRUN_INIT_DIR."""
    active_deadline_seconds: Seconds = 900


class EntrypointMode(StrEnum):
    AUTO = "Auto"
    WRAP = "Wrap"


class Entrypoint(ApiModel):
    """entrypoint [A] says how the training command is run."""

    mode: EntrypointMode = EntrypointMode.AUTO
    container_name: Annotated[str, Field(min_length=1, max_length=63)] = "pytorch"
    """containerName is the one container of each replica that is touched."""
    python_path: Path | None = None
    """pythonPath is a Python 3.9 or newer in the image; absent: it is searched for."""


class Completion(ApiModel):
    """completion [A] says when a run is complete."""

    policy: CompletionPolicy = CompletionPolicy.EXIT_CODE


class Validation(ApiModel):
    level: Level = Level.FULL
    """level is Full (every byte) or Fast (structure and sizes)."""
    timeout_seconds: Seconds = 900


class Checkpoint(ApiModel):
    directory: Path = "checkpoints"
    """directory [I] is below the run directory; {epoch} in it keeps foreign formats apart."""
    format: Format = Format.AUTO
    """format [A]."""
    validation: Validation = Validation()
    """validation [A]."""


class AdoptionSpec(ApiModel):
    scope: AdoptionScope | None = None
    """scope says which incomplete runs may be taken over; absent: Sweep with init, SameConfig with config, else
    SameRunId."""
    idle_seconds: Count = 900
    """idleSeconds of silence are asked of runs whose owner cannot be looked up."""


class Resume(ApiModel):
    """resume [A] says how an interrupted run goes on."""

    policy: ResumePolicy = ResumePolicy.ALWAYS
    adoption: AdoptionSpec = AdoptionSpec()
    args: Annotated[list[Argument], Field(max_length=64)] = []
    """args are appended to the command on a resume; $(SWEEPRUN_RESUME_FROM) is the verified checkpoint."""
    on_no_valid_checkpoint: OnNoValidCheckpoint = OnNoValidCheckpoint.NEW_RUN
    """onNoValidCheckpoint applies only where checkpoints existed and all were refused."""


class Backoff(ApiModel):
    initial_seconds: Seconds = 10
    max_seconds: Seconds = 600


class Limits(ApiModel):
    """limits [L]; absent means unlimited."""

    max_disruptions: PositiveCount | None = None
    active_deadline_seconds: Seconds | None = None
    """activeDeadlineSeconds is the sum of running time over all attempts."""
    max_failures: PositiveCount = 3
    """maxFailures since the last progress."""
    max_never_started: PositiveCount = 20
    """maxNeverStarted since the last progress."""
    max_attempts_without_progress: PositiveCount = 10
    start_timeout_seconds: Seconds = 1800
    """startTimeoutSeconds until all pods run; stands still while the job is queued."""
    backoff: Backoff = Backoff()


class UnreachablePolicy(StrEnum):
    WAIT = "Wait"


class Unreachable(ApiModel):
    """unreachable [L] says what happens on nodes that do not answer."""

    toleration_seconds: Seconds = 60
    policy: UnreachablePolicy = UnreachablePolicy.WAIT


class WandbMode(StrEnum):
    ONLINE = "Online"
    OFFLINE = "Offline"
    DISABLED = "Disabled"


class Wandb(ApiModel):
    mode: WandbMode = WandbMode.ONLINE
    entity: Text | None = None
    project: Text | None = None
    group: Text | None = None
    sweep_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    run_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    """runId of W&B; absent: the run ID."""


class Tracking(ApiModel):
    """tracking [A]."""

    type: Literal["WandB"] = "WandB"
    wandb: Wandb = Wandb()


class HelperPods(ApiModel):
    """helperPods [A] shapes prepare and init pods; what is absent is copied from the template's first replica."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    security_context: Opaque | None = None
    image_pull_secrets: Annotated[list[Opaque], Field(max_length=16)] | None = None
    node_selector: dict[str, str] | None = None
    tolerations: Annotated[list[Opaque], Field(max_length=64)] | None = None
    priority_class_name: Text | None = None
    resources: Opaque | None = None


class RequestAction(StrEnum):
    RETRY = "Retry"
    STOP = "Stop"


class Request(ApiModel):
    """request [L] is handled once per id."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    action: RequestAction
    from_step: Annotated[int, Field(ge=0, le=999_999_999_999)] | None = None
    """fromStep with Retry: go on from the newest eligible checkpoint at or below it."""


class WorkloadTemplate(ApiModel):
    """template [A] is the whole workload; proved by a server-side dry run before anything is created."""

    api_version: Literal["kubeflow.org/v1"] = "kubeflow.org/v1"
    kind: Literal["PyTorchJob"] = "PyTorchJob"
    metadata: Opaque = {}
    """metadata: labels and annotations only."""
    spec: Opaque


class SweepRunSpec(ApiModel):
    sweep_name: Annotated[str, Field(min_length=1, max_length=63, pattern=SWEEP_NAME_PATTERN)]
    """sweepName [I] is the identity of the sweep that this run belongs to."""
    run_id: Annotated[str, Field(min_length=1, max_length=63, pattern=RUN_ID_PATTERN)] | None = None
    """runId [O]; absent: allocated, or named by init. Not together with onNoValidCheckpoint NewRun."""
    config: Opaque | None = None
    """config [I] is written once as configFileName; at most 64 KiB; not with init."""
    config_file_name: Annotated[str, Field(max_length=128, pattern=FILE_NAME_PATTERN)] = "train_config_overrides.yaml"
    """configFileName [I]."""
    suspend: bool = False
    """suspend [L] stops the run with full grace and keeps its place; false goes on."""
    request: Request | None = None
    storage: Storage
    init: Init | None = None
    entrypoint: Entrypoint = Entrypoint()
    completion: Completion = Completion()
    checkpoint: Checkpoint = Checkpoint()
    resume: Resume = Resume()
    limits: Limits = Limits()
    unreachable: Unreachable = Unreachable()
    tracking: Tracking | None = None
    helper_pods: HelperPods = HelperPods()
    ttl_seconds_after_finished: Count | None = None
    """ttlSecondsAfterFinished [L] deletes the SweepRun object, never the volume; absent: keep; 0: at once."""
    template: WorkloadTemplate

    def adoption_scope(self) -> AdoptionScope:
        if self.resume.adoption.scope is not None:
            return self.resume.adoption.scope
        if self.init is not None:
            return AdoptionScope.SWEEP
        return AdoptionScope.SAME_CONFIG if self.config is not None else AdoptionScope.SAME_RUN_ID
