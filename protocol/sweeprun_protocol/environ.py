"""The environment of a trainer's container: encoded by the operator, decoded by the entrypoint.

Everything the pod must know travels here; pods hold no token and read no API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Optional

from .frozen import dataclass
from .names import is_run_id, is_slot

RUN_ID = "SWEEPRUN_RUN_ID"
"""ID of the run; the same in every attempt."""
SWEEP_NAME = "SWEEPRUN_SWEEP_NAME"
"""Name of the sweep."""
RUN_DIR = "SWEEPRUN_RUN_DIR"
"""Absolute path of the run directory in the pod."""
CHECKPOINT_DIR = "SWEEPRUN_CHECKPOINT_DIR"
"""Absolute path of the directory that this epoch writes checkpoints into."""
CONFIG_FILE = "SWEEPRUN_CONFIG_FILE"
"""Absolute path of the configuration file; absent where the run has none."""
EPOCH = "SWEEPRUN_EPOCH"
"""The volume's number for this attempt; a later one exists once the run has been claimed anew."""
ATTEMPT = "SWEEPRUN_ATTEMPT"
"""Number of the attempt in status, from 0."""
REPLICA_TYPE = "SWEEPRUN_REPLICA_TYPE"
"""Replica type of this pod's slot: `worker` and index `1` make `worker-1`."""
REPLICA_INDEX = "SWEEPRUN_REPLICA_INDEX"
"""Index of this pod's slot."""
POD_UID = "SWEEPRUN_POD_UID"
"""UID of this pod."""
POD_NAME = "SWEEPRUN_POD_NAME"
"""Name of this pod."""
NODE_NAME = "SWEEPRUN_NODE_NAME"
"""Node that this pod runs on."""
RESUME_FROM = "SWEEPRUN_RESUME_FROM"
"""Absolute path of the verified checkpoint; absent: start at step 0."""
RESUME_STEP = "SWEEPRUN_RESUME_STEP"
"""Step of that checkpoint; absent with it."""
RESUME_EPOCH = "SWEEPRUN_RESUME_EPOCH"
"""Epoch that committed that checkpoint; absent with it."""
RESUME_DIGEST = "SWEEPRUN_RESUME_DIGEST"
"""Digest of that checkpoint, where its format has one; absent with it."""
RESUME_FORMAT = "SWEEPRUN_RESUME_FORMAT"
"""Format of that checkpoint; absent with it."""
RESUME_ARGS = "SWEEPRUN_RESUME_ARGS"
"""The resume arguments in one string, for shell lines; empty when not resuming."""
GRACE_SECONDS = "SWEEPRUN_GRACE_SECONDS"
"""terminationGracePeriodSeconds of the pod."""
SLOTS = "SWEEPRUN_SLOTS"
"""All slots of the attempt, comma separated: the master waits for their end records."""
STALL_SECONDS = "SWEEPRUN_STALL_SECONDS"
"""spec.limits.stallTimeoutSeconds; absent: a command may be silent for ever."""
PYTHON_PATH = "SWEEPRUN_PYTHON"
"""Interpreter chosen by spec.entrypoint.pythonPath; absent: the trampoline searches."""
INIT_DIR = "SWEEPRUN_INIT_DIR"
"""sweep_init only: staging directory for the configuration file and, optionally, `run.json`."""
INIT_KEY = "SWEEPRUN_INIT_KEY"
"""sweep_init only: the same for every try of one fresh start; make things elsewhere under this key."""

SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""torchrun kills its workers this many seconds after a signal; 30 unless told, whatever the pod's grace."""
_SHUTDOWN_MARGIN = 5

WANDB_RUN_ID = "WANDB_RUN_ID"
"""W&B run of this SweepRun, with spec.tracking; WANDB_RESUME is `allow` beside it."""
PREVIOUS_WANDB_RUN = "SWEEPRUN_PREVIOUS_WANDB_RUN"
"""The W&B run in which this run's curve began, where the attempt logs to another one; absent otherwise."""
HISTORY = "SWEEPRUN_HISTORY"
"""What happened before this attempt, as sweeprun_protocol.history has it; absent without tracking."""


class EnvironError(ValueError):
    """The environment that the operator sets is absent or contradicts itself; says which variable."""


@dataclass(frozen=True)
class RunEnvironment:
    run_id: str
    sweep_name: str
    run_dir: str
    checkpoint_dir: str
    config_file: Optional[str]
    epoch: int
    attempt: int
    slots: list[str]
    grace_seconds: int
    resume_from: Optional[str]
    resume_step: Optional[int]
    resume_epoch: Optional[int]
    resume_digest: Optional[str]
    resume_format: Optional[str]
    resume_args: str
    stall_seconds: Optional[int] = None

    def encode(self) -> dict[str, str]:
        """Variables in a fixed order; those of the pod itself come by the downward API and are not here."""
        values: dict[str, Optional[str]] = {
            RUN_ID: self.run_id,
            SWEEP_NAME: self.sweep_name,
            RUN_DIR: self.run_dir,
            CHECKPOINT_DIR: self.checkpoint_dir,
            CONFIG_FILE: self.config_file,
            EPOCH: str(self.epoch),
            ATTEMPT: str(self.attempt),
            SLOTS: ",".join(self.slots),
            GRACE_SECONDS: str(self.grace_seconds),
            RESUME_FROM: self.resume_from,
            RESUME_STEP: _text(self.resume_step),
            RESUME_EPOCH: _text(self.resume_epoch),
            RESUME_DIGEST: self.resume_digest,
            RESUME_FORMAT: self.resume_format,
            RESUME_ARGS: self.resume_args,
            STALL_SECONDS: _text(self.stall_seconds),
        }
        return {name: value for name, value in values.items() if value is not None}

    @staticmethod
    def decode(environ: Mapping[str, str]) -> RunEnvironment:
        """Raises EnvironError."""
        run_id = _required(environ, RUN_ID)
        if not is_run_id(run_id):
            raise EnvironError(f"{RUN_ID}={run_id!r} is no valid run ID")
        slots = [name for name in _required(environ, SLOTS).split(",") if name]
        if not slots or not all(is_slot(name) for name in slots):
            raise EnvironError(f"{SLOTS} holds something that is no slot name")
        return RunEnvironment(
            run_id=run_id,
            sweep_name=_required(environ, SWEEP_NAME),
            run_dir=_required(environ, RUN_DIR),
            checkpoint_dir=_required(environ, CHECKPOINT_DIR),
            config_file=environ.get(CONFIG_FILE) or None,
            epoch=_integer(environ, EPOCH),
            attempt=_integer(environ, ATTEMPT),
            slots=slots,
            grace_seconds=_integer(environ, GRACE_SECONDS),
            resume_from=environ.get(RESUME_FROM) or None,
            resume_step=_integer(environ, RESUME_STEP) if environ.get(RESUME_STEP) else None,
            resume_epoch=_integer(environ, RESUME_EPOCH) if environ.get(RESUME_EPOCH) else None,
            resume_digest=environ.get(RESUME_DIGEST) or None,
            resume_format=environ.get(RESUME_FORMAT) or None,
            resume_args=environ.get(RESUME_ARGS, ""),
            stall_seconds=_integer(environ, STALL_SECONDS) if environ.get(STALL_SECONDS) else None,
        )


@dataclass(frozen=True)
class PodEnvironment:
    """Who this pod is, by the downward API."""

    NAMES: ClassVar[tuple[str, ...]] = (REPLICA_TYPE, REPLICA_INDEX, POD_UID, POD_NAME, NODE_NAME)

    slot: str
    pod_uid: str
    pod_name: str
    node: str

    @staticmethod
    def decode(environ: Mapping[str, str]) -> PodEnvironment:
        """Raises EnvironError."""
        slot = f"{_required(environ, REPLICA_TYPE).lower()}-{_integer(environ, REPLICA_INDEX)}"
        if not is_slot(slot):
            raise EnvironError(f"{slot!r} is no slot name")
        return PodEnvironment(
            slot=slot,
            pod_uid=_required(environ, POD_UID),
            pod_name=_required(environ, POD_NAME),
            node=environ.get(NODE_NAME, ""),
        )


def shutdown_seconds(grace_seconds: int) -> int:
    """What SHUTDOWN_TIMEOUT is set to: the launcher has to end, and its end has to be recorded, within the grace."""
    return max(grace_seconds - _SHUTDOWN_MARGIN, 1)


def _text(value: Optional[int]) -> Optional[str]:
    return None if value is None else str(value)


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise EnvironError(f"{name} is not set: this container was not started by the SweepRun operator")
    return value


def _integer(environ: Mapping[str, str], name: str) -> int:
    value = _required(environ, name)
    if not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise EnvironError(f"{name}={value!r} is not a whole number")
    return int(value)
