"""Exit codes of `sweeprun`. Each says one thing; scripts may rely on them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    """The answer is bad news: the watched run failed, a check found damage."""
    USAGE = 2
    """A wrong option or argument, or a file that is not there."""
    TIMED_OUT = 3
    """--timeout was over before what was waited for came true."""
    NOT_FOUND = 4
    """There is no such SweepRun."""
    NO_CLUSTER = 5
    """No kubeconfig, or no answer from the API server."""
    FORBIDDEN = 6
    """The API server knows who asks, or does not, and says no."""
    REFUSED = 7
    """The API server or the operator understood and refused."""
    NOT_INSTALLED = 8
    """The cluster does not know SweepRuns."""
    UNREADABLE = 9
    """The object was written by another version and cannot be read by this one."""
    BUG = 70
    """A bug in SweepRun."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CommandError(Exception):
    """What a person can do something about: one message, one exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


EPILOG = (
    "Exit codes: 0 done; 2 wrong use; 4 no such SweepRun; 5 no cluster; 6 forbidden; 7 refused; "
    "8 SweepRun is not installed there; 9 written by another version. `sweeprun explain` tells more."
)
