"""The user's command as a child process: its signals, its end, and everything that is left to reap."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Callable, Optional

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_BY_SIGNAL = 128
_PR_SET_PDEATHSIG = 1


class Command:
    """Made before the first signal may arrive; signals that come before the child exists are kept for it."""

    def __init__(self) -> None:
        self.told_to_stop = False
        """A stopping signal has reached us, whether or not the command still ran."""
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._kept: list[int] = []
        self._ended = False

    def forward_signals(self) -> None:
        """From now on. SIGKILL and SIGSTOP cannot be forwarded; the kernel ends the child of a killed entrypoint."""
        for number in FORWARDED:
            signal.signal(number, self._forward)

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> Optional[int]:
        """Start it with our standard streams.

        Returns:
            None; or the exit code a shell would give where it cannot be started.
        """
        try:
            # a session of its own: what a terminal sends to everybody would otherwise arrive twice
            self._process = subprocess.Popen(
                command,
                env=dict(environ),
                start_new_session=True,
                preexec_fn=_dies_with_us(),  # noqa: PLW1509 - no thread was made yet
            )
        except FileNotFoundError:
            return NOT_FOUND
        except OSError:
            return NOT_EXECUTABLE
        for number in self._kept:
            self._send(number)
        return None

    def wait(self) -> int:
        """Until the command ends; meanwhile reap what was orphaned, as process 1 has to.

        Returns:
            Its exit code as a shell would say it: 128 + signal where a signal ended it.
        """
        assert self._process is not None, "started before"
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._process.pid:
                break
        self._ended = True
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # it must not wait for itself any more
        return code if code >= 0 else _BY_SIGNAL - code

    def kill(self) -> None:
        """End it and what it started, at once."""
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _forward(self, number: int, _frame: Optional[FrameType]) -> None:
        if number in STOPPING:
            self.told_to_stop = True
        if self._process is None:
            self._kept.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        # to the child alone: a loader's worker processes that got it too would make a polite save fail
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _dies_with_us() -> Optional[Callable[[], None]]:
    """Training without its entrypoint has no fence: where we are killed, it ends too. Linux only."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

    return ask
