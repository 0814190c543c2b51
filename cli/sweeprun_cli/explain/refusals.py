"""Why checkpoints are refused, and why prepare is blocked."""

from __future__ import annotations

from sweeprun_protocol.reasons import BlockedReason, RefusalReason

from .entry import Entry

_DAMAGED = "The one before it is used. If it happens often, look at the volume: full disks and lost writes look so."

REFUSALS: dict[RefusalReason, Entry] = {
    RefusalReason.NO_MANIFEST: Entry("It has no manifest, which is written last: the save was interrupted."),
    RefusalReason.MANIFEST_INVALID: Entry("Its manifest cannot be read as one.", _DAMAGED),
    RefusalReason.WRONG_RUN: Entry("It belongs to another run: somebody copied or moved it."),
    RefusalReason.WRONG_EPOCH: Entry(
        "It was committed by an attempt that was over: a late writer's work never counts."
    ),
    RefusalReason.FILE_MISSING: Entry("A file that it needs is not there.", _DAMAGED),
    RefusalReason.FILE_EXTRA: Entry("A file lies in it that its manifest does not name."),
    RefusalReason.SIZE_MISMATCH: Entry("A file is longer or shorter than was recorded.", _DAMAGED),
    RefusalReason.DIGEST_MISMATCH: Entry("Bytes of it are not those that were saved.", _DAMAGED),
    RefusalReason.NOT_A_REGULAR_FILE: Entry("A link, a device or a directory lies where a file should be."),
    RefusalReason.TRUNCATED: Entry("A file ends too early: the save was interrupted, or the disk was full.", _DAMAGED),
    RefusalReason.CRC_MISMATCH: Entry("A checksum inside the file does not match its bytes.", _DAMAGED),
    RefusalReason.STRUCTURE: Entry("The file is not built as its format demands.", _DAMAGED),
    RefusalReason.LIMIT_EXCEEDED: Entry("It holds more entries, or larger ones, than a checkpoint may have."),
    RefusalReason.NOT_RESUMABLE: Entry(
        "It holds weights alone: it can be loaded, but training cannot go on exactly from it.",
        "Save the optimizer's state too. A format set in spec.checkpoint.format makes weights count.",
    ),
    RefusalReason.WORLD_SIZE: Entry(
        "It was saved by another number of ranks than will load it, and its format allows no change.",
        "Set the old number of replicas in the template.",
    ),
    RefusalReason.UNKNOWN_FORMAT: Entry("It is none of the formats that are known.", "docs/checkpoints.md lists them."),
    RefusalReason.CHANGED: Entry("Somebody wrote it while it was checked.", "Look for a writer beside this run."),
}

BLOCKED: dict[BlockedReason, Entry] = {
    BlockedReason.NO_EXCLUSIVE_CREATE: Entry(
        "The volume cannot create a file exclusively (link): two writers could not be told apart.",
        "Use another kind of volume: NFS 3 or later, CephFS, Lustre, EBS and local disks can.",
    ),
    BlockedReason.NOT_WRITABLE: Entry(
        "Prepare may not write on the volume.",
        "Look at fsGroup and runAsUser of the template, at the mount's readOnly, and for a full disk.",
    ),
    BlockedReason.IO_ERROR: Entry(
        "The volume answered with an I/O error. Nothing was decided by what could not be read.",
        "Look at the volume and its driver; it is tried again by itself.",
    ),
    BlockedReason.VOLUME_CHANGED: Entry(
        "The volume is not the one that the run began on: another, or an empty one, is mounted.",
        "Mount the right one: spec.storage names the claim.",
    ),
    BlockedReason.RUN_DIRECTORY_MISSING: Entry(
        "The run directory is not there though the run has begun.",
        "Bring it back from a backup or mount the right volume. Nothing starts fresh by accident.",
    ),
    BlockedReason.CHECKPOINT_MISSING: Entry(
        "A checkpoint that was known is gone, and no record says that it was deleted.",
        "Bring it back, or ask for an older step: `sweeprun retry RUN --from STEP`.",
    ),
    BlockedReason.CHECKPOINT_CHANGED: Entry(
        "The checkpoint changed while it was copied: a process of an attempt deleted by force may still write.",
        "It is judged anew by itself. Power the old node off if it goes on.",
    ),
    BlockedReason.CLAIM_LOST: Entry(
        "Another owner has claimed the run on the volume: SweepRun never steals one.",
        "`sweeprun adopt RUN` shows who holds it. Stop one of both.",
    ),
    BlockedReason.RUN_ID_TAKEN: Entry(
        "The run ID that was named belongs to another run.", "Name another spec.runId, or let it be allocated."
    ),
    BlockedReason.RUN_COMPLETED: Entry(
        "The run that was named is complete and belongs to another owner.", "Name another spec.runId."
    ),
    BlockedReason.ADOPTION_LOST: Entry("The run that was to be taken over moved on meanwhile: it is looked again."),
    BlockedReason.NO_VALID_CHECKPOINT: Entry(
        "Checkpoints existed, every one was refused, and spec.resume.onNoValidCheckpoint is Fail.",
        "Look at what was refused in `sweeprun history RUN`. NewRun or RestartRun would start over; then "
        "`sweeprun retry RUN`.",
    ),
    BlockedReason.STEP_NOT_FOUND: Entry(
        "No checkpoint at or below the step that was asked for may be used.", "Ask for a later step, or none."
    ),
    BlockedReason.INIT_INVALID: Entry(
        "sweep_init left nothing usable in its directory.",
        "Read its log: `kubectl logs -l sweeprun.dev/name=RUN,sweeprun.dev/role=init`; then `sweeprun retry RUN`.",
    ),
    BlockedReason.RECORD_INVALID: Entry(
        "A record of SweepRun on the volume cannot be read as what it should be.",
        "`sweeprun inspect DIR` names it. Bring it back from a backup; never edit one by hand while the run lives.",
    ),
    BlockedReason.TIME_OUT: Entry(
        "Checking the checkpoints took longer than spec.checkpoint.validation.timeoutSeconds.",
        "Raise it, or use level Fast.",
    ),
    BlockedReason.REQUEST_INVALID: Entry(
        "Operator and image of prepare do not understand each other: two versions are mixed.",
        "Upgrade the chart whole.",
    ),
}
