"""What can go wrong on a volume, kept apart: the volume fails, an entry is unsafe, or prepare has its answer."""

from __future__ import annotations

import errno
from typing import Optional

from sweeprun_protocol.prepare import Candidate
from sweeprun_protocol.reasons import BlockedReason, Outcome, StartReason
from sweeprun_protocol.records import Refusal

NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT})


class VolumeError(Exception):
    """The volume cannot be used as it is. Never a verdict on data: whatever was asked is to be asked again."""

    def __init__(self, reason: BlockedReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def volume_error(error: OSError, path: str, *, detail: str = "") -> VolumeError:
    """Sort an operating system's error; `detail` is added where permissions or space are the cause."""
    reason = BlockedReason.NOT_WRITABLE if error.errno in NOT_WRITABLE else BlockedReason.IO_ERROR
    text = f"{path}: {error.strerror or error}"
    if detail and reason is BlockedReason.NOT_WRITABLE:
        text = f"{text}; {detail}"
    return VolumeError(reason, text)


def no_exclusive_create(path: str, what: str) -> VolumeError:
    return VolumeError(
        BlockedReason.NO_EXCLUSIVE_CREATE,
        f"{path}: {what}: two prepares could both take this run; use a file system that creates a name exclusively by "
        "link(2), for example NFS, CephFS, Lustre or a block volume, or mount this one with hard links",
    )


class UnsafeEntryError(Exception):
    """A link, a device, a FIFO or a file in the place of a directory: refused, never followed."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what


class TooManyEntriesError(Exception):
    """More entries than any run of ours has: the walk was given up."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(f"{path}: more than {limit} entries")
        self.path = path


class OutOfTimeError(Exception):
    """The time allowed for validation ran out: no verdict."""


class Stopped(Exception):  # noqa: N818 - an answer, no error
    """Prepare ends here with this answer; nothing more is claimed, decided or moved."""

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        blocked: Optional[BlockedReason] = None,
        reason: Optional[StartReason] = None,
        run_id: Optional[str] = None,
        previous_run_id: Optional[str] = None,
        epoch: int = 0,
        candidates: tuple[Candidate, ...] = (),
        refused: tuple[Refusal, ...] = (),
        head_prepare: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message
        self.blocked = blocked
        self.reason = reason
        self.run_id = run_id
        self.previous_run_id = previous_run_id
        self.epoch = epoch
        self.candidates = candidates
        self.refused = refused
        self.head_prepare = head_prepare


def blocked(reason: BlockedReason, message: str, *, refused: tuple[Refusal, ...] = ()) -> Stopped:
    return Stopped(Outcome.BLOCKED, message, blocked=reason, refused=refused)
