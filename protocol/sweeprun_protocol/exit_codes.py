"""Exit codes of the entrypoint that mean something to the operator.

All lie in 80..95: above what shells and sysexits.h use for the program's own errors (64..78), below 126..165, where
shells and the kernel put their own meanings. The operator takes them as hints only: torchrun turns every worker's code
into 1 (measured), and the records on the volume are what prepare judges by.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    COMPLETED = 0
    CONFIGURATION = 80
    """The environment that the operator sets is absent or contradicts itself."""
    NO_PYTHON = 81
    """The trampoline found no Python 3.9 or newer in the image."""
    STALE_EPOCH = 82
    """The start check found a later claim: this attempt is over."""
    ATTEMPT_REUSED = 83
    """Another pod already started in this slot of this epoch (training-operator refilled it)."""
    RESUME_POINT_LOST = 84
    """The pinned resume point is not what was pinned."""
    VOLUME_UNUSABLE = 85
    """The start check could not read or write the run directory."""
    FENCED = 86
    """A later claim appeared while training ran."""
    NO_AGREEMENT = 87
    """The ranks did not agree on the pinned checkpoint: none of them trained."""
    STALLED = 88
    """No progress for longer than the stall limit."""


def is_ours(code: int) -> bool:
    return code != 0 and code in ExitCode._value2member_map_
