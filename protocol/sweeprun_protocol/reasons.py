"""Closed sets of words that prepare answers with and that status, Events and metrics repeat."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    def __str__(self) -> str:
        return str(self.value)


class Outcome(_Word):
    """What prepare decided."""

    RESUME = "Resume"
    RESTART = "Restart"
    FRESH = "Fresh"
    COMPLETED = "Completed"
    BLOCKED = "Blocked"
    SUPERSEDED = "Superseded"
    """A later prepare of the same owner holds the head: this answer must be ignored."""
    INIT_REQUIRED = "InitRequired"
    """A new run ID is needed and sweep_init makes it: nothing was claimed yet."""
    CANDIDATES = "Candidates"
    """Incomplete runs that could be adopted: the operator proves that their owners are gone and asks again."""


class StartReason(_Word):
    """Why an attempt starts at step 0 (Restart, Fresh), or from where it resumes (Resume)."""

    FIRST_START = "FirstStart"
    """Fresh: nothing of this run existed."""
    NEWEST_CHECKPOINT = "NewestCheckpoint"
    WALKED_BACK = "WalkedBack"
    """Resume: newer checkpoints were refused."""
    REQUESTED_STEP = "RequestedStep"
    NOTHING_COMMITTED = "NothingCommitted"
    """Restart: interrupted before the first checkpoint."""
    RESUME_NEVER = "ResumeNever"
    """Restart: spec.resume.policy says so."""
    ALL_REFUSED = "AllCheckpointsRefused"
    """Restart or Fresh: checkpoints existed, none was valid, onNoValidCheckpoint chose."""


class BlockedReason(_Word):
    NO_EXCLUSIVE_CREATE = "NoExclusiveCreate"
    NOT_WRITABLE = "NotWritable"
    IO_ERROR = "IOError"
    VOLUME_CHANGED = "VolumeChanged"
    RUN_DIRECTORY_MISSING = "RunDirectoryMissing"
    CHECKPOINT_MISSING = "CheckpointMissing"
    CHECKPOINT_CHANGED = "CheckpointChanged"
    """Somebody wrote to it while it was copied: a process of an attempt that was deleted by force."""
    CLAIM_LOST = "ClaimLost"
    RUN_ID_TAKEN = "RunIdTaken"
    RUN_COMPLETED = "RunAlreadyCompleted"
    """The named run is complete and belongs to another owner."""
    ADOPTION_LOST = "AdoptionLost"
    NO_VALID_CHECKPOINT = "NoValidCheckpoint"
    """onNoValidCheckpoint: Fail."""
    STEP_NOT_FOUND = "RequestedStepNotFound"
    INIT_INVALID = "InitInvalid"
    """sweep_init left nothing usable in its directory."""
    RECORD_INVALID = "RecordInvalid"
    """A record of ours on the volume cannot be read as what it should be."""
    TIME_OUT = "ValidationTimeout"
    REQUEST_INVALID = "RequestInvalid"


class RefusalReason(_Word):
    """Why a checkpoint was not used."""

    NO_MANIFEST = "NoManifest"
    MANIFEST_INVALID = "ManifestInvalid"
    WRONG_RUN = "WrongRun"
    WRONG_EPOCH = "WrongEpoch"
    FILE_MISSING = "FileMissing"
    FILE_EXTRA = "FileExtra"
    SIZE_MISMATCH = "SizeMismatch"
    DIGEST_MISMATCH = "DigestMismatch"
    NOT_A_REGULAR_FILE = "NotARegularFile"
    TRUNCATED = "Truncated"
    CRC_MISMATCH = "CrcMismatch"
    STRUCTURE = "StructureInvalid"
    LIMIT_EXCEEDED = "LimitExceeded"
    NOT_RESUMABLE = "NotResumable"
    WORLD_SIZE = "WorldSizeMismatch"
    UNKNOWN_FORMAT = "UnknownFormat"
    CHANGED = "ChangedWhileRead"


class Format(_Word):
    """How a checkpoint is stored."""

    AUTO = "Auto"
    SWEEPRUN = "SweepRun"
    """Own format: a directory with a manifest, written by the library."""
    TORCH = "Torch"
    """One file written by torch.save (zip)."""
    LIGHTNING = "Lightning"
    """One file written by Lightning's Trainer: torch.save with the loops' and optimizers' states."""
    DCP = "DCP"
    """A directory written by torch.distributed.checkpoint."""
    HUGGING_FACE = "HuggingFace"
    """A directory `checkpoint-<step>` written by the Trainer of transformers."""
    SAFETENSORS = "Safetensors"
    """One .safetensors file, or a directory with the index of several."""


class Level(_Word):
    FULL = "Full"
    FAST = "Fast"


class VerdictKind(_Word):
    """What a look at a checkpoint found, as the names of records tell it."""

    FIRST = "first"
    """Whole; the first full look at a foreign checkpoint: the digests of its files are in the record."""
    WHOLE = "whole"
    REFUSED = "refused"


class OnNoValidCheckpoint(_Word):
    NEW_RUN = "NewRun"
    RESTART_RUN = "RestartRun"
    FAIL = "Fail"


class AdoptionScope(_Word):
    NONE = "None"
    SAME_RUN_ID = "SameRunId"
    SAME_CONFIG = "SameConfig"
    SWEEP = "Sweep"


class CompletionPolicy(_Word):
    EXIT_CODE = "ExitCode"
    EXPLICIT = "Explicit"


class ResumePolicy(_Word):
    ALWAYS = "Always"
    ON_DISRUPTION = "OnDisruption"
    NEVER = "Never"
