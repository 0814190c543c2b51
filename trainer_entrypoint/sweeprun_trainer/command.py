"""The user's command as a child process: its signals, its end, and everything that is left to reap."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Optional

from .processes import adopt_orphans, children, descendants, dying_with_parent

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_BY_SIGNAL = 128
_KILL_SECONDS = 2.0
_KILL_POLL_SECONDS = 0.02


class Command:
    """Made before the first signal may arrive; signals that come before the child exists are kept for it."""

    def __init__(self) -> None:
        self.stops = 0
        """How many stopping signals have reached us, whether or not the command still ran."""
        self.stopped_at: Optional[float] = None
        """When the first of them came, by time.monotonic()."""
        self.problem = ""
        """Why it could not be started."""
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._kept: list[int] = []
        self._ended = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    @property
    def told_to_stop(self) -> bool:
        return self.stops > 0

    @property
    def ended(self) -> bool:
        return self._ended

    def forward_signals(self) -> None:
        """From now on. SIGKILL and SIGSTOP cannot be forwarded; the kernel ends the child of a killed entrypoint."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, self._forward)

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> Optional[int]:
        """Start it with our standard streams.

        Returns:
            None; or the exit code a shell would give where it cannot be started.
        """
        # who ignores it, as our parent may have, never learns an end
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        adopt_orphans()
        try:
            # a session of its own: what a terminal sends to everybody would otherwise arrive twice
            self._process = subprocess.Popen(
                command,
                env=dict(environ),
                start_new_session=True,
                # training without its entrypoint has no fence
                preexec_fn=dying_with_parent(),  # noqa: PLW1509 - no thread was made yet
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        for number in self._kept:
            self._send(number)
        return None

    def wait(self) -> int:
        """Until the command ends; meanwhile reap what was orphaned, as process 1 has to.

        Returns:
            Its exit code as a shell would say it: 128 + signal where a signal ended it.
        """
        assert self._process is not None, "started before"
        pid, status = os.waitpid(-1, os.WNOHANG)
        while pid != self._process.pid:
            if pid == 0:
                self._sleep()
            pid, status = os.waitpid(-1, os.WNOHANG)
        self._ended = True
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # it must not wait for itself any more
        return code if code >= 0 else _BY_SIGNAL - code

    def stop(self) -> None:
        """Ask it to end, as the kubelet would."""
        self._send(signal.SIGTERM)

    def see_the_rest_out(self, seconds: float) -> None:
        """After its end, when it was told to stop: a launcher or a shell that died of the signal left a program behind
        that was told nothing. Tell it, and give it up to `seconds`; with us its container ends."""
        end = time.monotonic() + seconds
        for pid in children(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        while descendants(os.getpid()) and time.monotonic() < end:
            time.sleep(_KILL_POLL_SECONDS)

    def kill(self) -> None:
        """End it and all that it started, at once: what outlived it by a moment could end politely in its stead."""
        if self._process is None:
            return
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not self._ended:  # where the system has no /proc
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill_the_rest(self) -> None:
        """After its end: kill until nothing is left that was started meanwhile, at most two seconds."""
        end = time.monotonic() + _KILL_SECONDS
        while descendants(os.getpid()) and time.monotonic() < end:
            self.kill()
            time.sleep(_KILL_POLL_SECONDS)

    def _forward(self, number: int, _frame: Optional[FrameType]) -> None:
        if number in STOPPING:
            self.stops += 1
            self.stopped_at = self.stopped_at or time.monotonic()
        if self._process is None:
            self._kept.append(number)
        else:
            self._send(number)

    def _sleep(self) -> None:
        """Until a signal comes. Handlers run between two instructions of the main thread, so one that came just before
        a blocking waitpid, or that the kernel gave to another thread, would wait for the command's end."""
        os.read(self._woken, 512)

    def _send(self, number: int) -> None:
        # to the child alone: a loader's worker processes that got it too would make a polite save fail
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
