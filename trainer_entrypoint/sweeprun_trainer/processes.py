"""What Linux lets a process know and ask about those below it; elsewhere nothing, and nothing fails."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Callable, Optional

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Be their parent as process 1 is, where this is not process 1 (a pod's shared process namespace, one machine)."""
    prctl = _prctl()
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def dying_with_parent() -> Optional[Callable[[], None]]:
    """For a new process, between fork and exec: where its parent is killed, it ends too."""
    prctl = _prctl()
    if prctl is None:
        return None
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


def descendants(root: int) -> list[int]:
    """Living processes below `root`, whatever their session or group: torchrun's workers have sessions of their own."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def children(parent: int) -> list[int]:
    """Living processes that `parent` started or has adopted."""
    return [pid for pid, above in _parents() if above == parent]


def initial_environment() -> Optional[frozenset[str]]:
    """Names of the variables that this process was started with; the interpreter adds to them in a C locale."""
    try:
        with open("/proc/self/environ", "rb") as block:
            entries = block.read().split(b"\0")
    except OSError:
        return None
    return frozenset(os.fsdecode(entry.partition(b"=")[0]) for entry in entries if entry)


def _parents() -> list[tuple[int, int]]:
    """(process, its parent) of all that run; zombies are over."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            known = _parent_of(name) if name.isdigit() else None
            if known is not None:
                found.append((int(name), known))
    return found


def _parent_of(name: str) -> Optional[int]:
    try:
        with open(f"/proc/{name}/stat", "rb") as stat:
            # the name in parentheses may hold anything, parentheses included
            state, parent = stat.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):  # it has ended meanwhile
        return None
    return None if state in (b"Z", b"X") else int(parent)


def _prctl() -> Optional[Callable[..., int]]:
    try:
        function = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None

    def prctl(option: int, value: int) -> int:
        return int(function(option, value, 0, 0, 0))

    return prctl
