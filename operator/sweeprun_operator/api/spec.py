"""`spec` of a SweepRun. Markers in the docstrings: [I] immutable, [O] set at creation or never, [A] editable and in
effect with the next attempt, [L] editable and in effect now."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sweeprun_protocol.layout import ABANDONED, CLAIMS, EPOCHS, QUARANTINE, TRASH, VERDICTS
from sweeprun_protocol.names import FILE_NAME_PATTERN, RUN_ID_PATTERN, SWEEP_NAME_PATTERN
from sweeprun_protocol.reasons import AdoptionScope, CompletionPolicy, Format, Level, OnNoValidCheckpoint, ResumePolicy

from .base import Annotations, ApiModel, Count, Labels, NodeSelector, Opaque, PositiveCount, Seconds
from .rules import Rule, absolute_path, immutable, placeholders, relative_path

MAX_NAME = 44
"""Children are called <name>-a9999-worker-9999, and pod names are labels: 63 characters."""
MAX_TEMPLATE_BYTES = 256 << 10
MAX_CONFIG_BYTES = 64 << 10

Text = Annotated[str, Field(min_length=1, max_length=253)]
Path = Annotated[str, Field(min_length=1, max_length=512)]
Argument = Annotated[str, Field(max_length=1024)]


RUN_ID_PLACEHOLDER = "/{runId}"
OWN_DIRECTORIES = (ABANDONED, CLAIMS, EPOCHS, QUARANTINE, TRASH, VERDICTS)

_DIRECTORY_OF_ONE_RUN = Rule(
    expression="self.endsWith('/{runId}') && self.indexOf('{runId}') == self.size() - 7",
    message="runDirectory must end with /{runId} and hold it once: it is the directory of one run",
    holds=lambda path: path.endswith(RUN_ID_PLACEHOLDER) and path.count("{runId}") == 1,
)
_NO_MARKER = Rule(
    expression="!self.endsWith('.incomplete')",
    message="runId must not end with .incomplete: <runId>.incomplete is the marker of an interrupted run",
    holds=lambda run_id: not run_id.endswith(".incomplete"),
)
_NOT_OURS = Rule(
    expression=f"!(self.split('/')[0] in [{', '.join(repr(name) for name in OWN_DIRECTORIES)}])",
    message=f"checkpoint.directory must not lie in {', '.join(OWN_DIRECTORIES)}: those hold SweepRun's own records",
    holds=lambda path: path.split("/")[0] not in OWN_DIRECTORIES,
)
_NOT_THE_ENTRYPOINT = Rule(
    expression="self != '/sweeprun' && !self.startsWith('/sweeprun/')",
    message="mountPath must not be /sweeprun or below it: the entrypoint is mounted there",
    holds=lambda path: path != "/sweeprun" and not path.startswith("/sweeprun/"),
)


class PersistentVolumeClaim(ApiModel):
    claim_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    """claimName is the PersistentVolumeClaim in the SweepRun's namespace that keeps the runs."""
    sub_path: Annotated[str, Field(min_length=1, max_length=512), relative_path("subPath")] | None = None
    """subPath is the directory of the volume that is mounted; absent: its root."""


class Storage(ApiModel):
    """storage [I] says where runs live."""

    RULES: ClassVar[tuple[Rule, ...]] = (immutable("storage", "the run's records and checkpoints lie there"),)

    type: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    persistent_volume_claim: PersistentVolumeClaim
    mount_path: Annotated[str, Field(min_length=1, max_length=512), absolute_path("mountPath"), _NOT_THE_ENTRYPOINT] = (
        "/data"
    )
    """mountPath is where the volume appears in every pod; an existing mount of this claim is reused."""
    run_directory: Annotated[
        str,
        Field(min_length=1, max_length=512),
        relative_path("runDirectory"),
        placeholders("runDirectory", "sweepName", "runId"),
        _DIRECTORY_OF_ONE_RUN,
    ] = "sweep/{sweepName}/runs/{runId}"
    """runDirectory is the directory of one run below the mount; it must end with /{runId}."""


class Init(ApiModel):
    """init [I] is sweep_init: it runs at least once per fresh start and never on a resume."""

    RULES: ClassVar[tuple[Rule, ...]] = (immutable("init", "the run was begun with it"),)

    template: Opaque
    """template is a pod template with exactly one container, which writes into $SWEEPRUN_INIT_DIR."""
    active_deadline_seconds: Seconds = 900


class EntrypointMode(StrEnum):
    AUTO = "Auto"
    WRAP = "Wrap"
    ENV_ONLY = "EnvOnly"


class Entrypoint(ApiModel):
    """entrypoint [A] says how the training command is run."""

    mode: EntrypointMode = EntrypointMode.AUTO
    """mode Wrap puts the entrypoint around command; EnvOnly sets the environment alone; Auto: by whether command is
    set."""
    container_name: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = "pytorch"
    """containerName is the one container of each replica that is touched."""
    python_path: Annotated[str, Field(max_length=512), absolute_path("pythonPath")] | None = None
    """pythonPath is the absolute path of a Python 3.9 or newer in the image; absent: it is searched for."""


class Completion(ApiModel):
    """completion [A] says when a run is complete."""

    policy: CompletionPolicy = CompletionPolicy.EXIT_CODE


class Validation(ApiModel):
    level: Level = Level.FULL
    """level is Full (every byte) or Fast (structure and sizes)."""
    timeout_seconds: Seconds = 900


class Retention(ApiModel):
    keep_last: PositiveCount
    """keepLast verified checkpoints of the library's format are kept; what is older goes. What nobody verified does not
    count, nor goes before as many newer ones were verified."""


class QuarantineSpec(ApiModel):
    keep_last: PositiveCount
    """keepLast refused checkpoints are kept as evidence, with their verdicts; what was moved there before goes."""


class Checkpoint(ApiModel):
    directory: Annotated[
        str,
        Field(min_length=1, max_length=512),
        relative_path("checkpoint.directory"),
        placeholders("checkpoint.directory", "epoch"),
        _NOT_OURS,
        immutable("checkpoint.directory", "earlier checkpoints would no longer be found"),
    ] = "checkpoints"
    """directory [I] is below the run directory; {epoch} in it keeps foreign formats apart."""
    format: Format = Format.AUTO
    """format [A]."""
    validation: Validation = Validation()
    """validation [A]."""
    retention: Retention | None = None
    """retention [A] is applied before each attempt; absent: no checkpoint is deleted. Foreign files never are, nor is
    the checkpoint that the attempt starts from."""
    quarantine: QuarantineSpec | None = None
    """quarantine [A] bounds what was refused; absent: all is kept."""


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
    on_no_valid_checkpoint: OnNoValidCheckpoint | None = None
    """onNoValidCheckpoint applies only where checkpoints existed and all were refused; absent: Fail with runId,
    else NewRun."""


class Backoff(ApiModel):
    """backoff doubles from initialSeconds up to maxSeconds."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            expression="self.initialSeconds <= self.maxSeconds",
            message="backoff.initialSeconds must not be more than backoff.maxSeconds (10 and 600 unless set)",
            holds=lambda backoff: backoff.initial_seconds <= backoff.max_seconds,
        ),
    )

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
    stall_timeout_seconds: Seconds | None = None
    """stallTimeoutSeconds [A] without a reported step or a change in the checkpoint directory are a failure."""
    start_timeout_seconds: Seconds = 1800
    """startTimeoutSeconds until all pods run; stands still while the job is queued."""
    backoff: Backoff = Backoff()


class UnreachablePolicy(StrEnum):
    WAIT = "Wait"
    FORCE_DELETE = "ForceDelete"


class Unreachable(ApiModel):
    """unreachable [L] says what happens on nodes that do not answer."""

    toleration_seconds: Seconds = 60
    policy: UnreachablePolicy = UnreachablePolicy.WAIT
    """policy ForceDelete does not wait for such a node: its pods are deleted by force once they have been Terminating
    for tolerationSeconds and their grace. Their processes may live on: the next attempt reads a copy and logs to
    another W&B run."""


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

    labels: Labels | None = None
    annotations: Annotations | None = None
    security_context: Opaque | None = None
    image_pull_secrets: Annotated[list[Opaque], Field(max_length=16)] | None = None
    node_selector: NodeSelector | None = None
    tolerations: Annotated[list[Opaque], Field(max_length=64)] | None = None
    priority_class_name: Text | None = None
    resources: Opaque | None = None


class RequestAction(StrEnum):
    RETRY = "Retry"
    STOP = "Stop"


class Request(ApiModel):
    """request [L] is handled once per id."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            expression="!has(self.fromStep) || self.action == 'Retry'",
            message="request.fromStep goes with action Retry only",
            holds=lambda request: request.from_step is None or request.action is RequestAction.RETRY,
            field=".fromStep",
        ),
        Rule(
            expression="self.id != oldSelf.id || self == oldSelf",
            message="request: each id is handled once; give a new id to ask for something else",
            field=".id",
        ),
    )

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


SPEC_RULES = (
    Rule(
        expression="!has(self.config) || !has(self.init)",
        message="config and init exclude each other: with init, sweep_init writes the configuration file",
        holds=lambda spec: spec.config is None or spec.init is None,
        field=".config",
    ),
    Rule(
        expression="has(self.config) == has(oldSelf.config) && (!has(self.config) || self.config == oldSelf.config)",
        message="config cannot be changed, added or removed: the run keeps its configuration; make another SweepRun",
        field=".config",
    ),
    Rule(
        expression="has(self.init) == has(oldSelf.init)",
        message="init cannot be added or removed: the run was begun with or without it; make another SweepRun",
        field=".init",
    ),
    Rule(
        expression="has(self.runId) == has(oldSelf.runId) && (!has(self.runId) || self.runId == oldSelf.runId)",
        message="runId is given when the SweepRun is created or never; make another SweepRun for another run",
        field=".runId",
    ),
    Rule(
        expression=(
            "!has(self.runId) || !has(self.resume.onNoValidCheckpoint) || self.resume.onNoValidCheckpoint != 'NewRun'"
        ),
        message="runId names one run, onNoValidCheckpoint: NewRun would begin another: use RestartRun or Fail",
        holds=lambda spec: spec.run_id is None or spec.resume.on_no_valid_checkpoint is not OnNoValidCheckpoint.NEW_RUN,
        field=".resume.onNoValidCheckpoint",
    ),
    Rule(
        expression=(
            "has(self.config) || !has(self.resume.adoption.scope) || self.resume.adoption.scope != 'SameConfig'"
        ),
        message="resume.adoption.scope: SameConfig compares spec.config, which is absent: use SameRunId or Sweep",
        holds=lambda spec: spec.config is not None or spec.resume.adoption.scope is not AdoptionScope.SAME_CONFIG,
        field=".resume.adoption.scope",
    ),
)


class SweepRunSpec(ApiModel):
    """spec. Markers: [I] immutable, [O] set at creation or never, [A] editable, in effect with the next attempt,
    [L] editable, in effect now."""

    RULES: ClassVar[tuple[Rule, ...]] = SPEC_RULES

    sweep_name: Annotated[
        str,
        Field(min_length=1, max_length=63, pattern=SWEEP_NAME_PATTERN),
        immutable("sweepName", "it is part of where the run lies"),
    ]
    """sweepName [I] is the identity of the sweep that this run belongs to."""
    run_id: Annotated[str, Field(min_length=1, max_length=63, pattern=RUN_ID_PATTERN), _NO_MARKER] | None = None
    """runId [O]; absent: allocated, or named by init. Not together with onNoValidCheckpoint NewRun."""
    config: Opaque | None = None
    """config [I] is written once as configFileName; at most 64 KiB; not with init."""
    config_file_name: Annotated[
        str, Field(max_length=128, pattern=FILE_NAME_PATTERN), immutable("configFileName", "the file is written once")
    ] = "train_config_overrides.yaml"
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

    def on_no_valid_checkpoint(self) -> OnNoValidCheckpoint:
        """A run that was named is never replaced by another one silently."""
        if self.resume.on_no_valid_checkpoint is not None:
            return self.resume.on_no_valid_checkpoint
        return OnNoValidCheckpoint.NEW_RUN if self.run_id is None else OnNoValidCheckpoint.FAIL
