"""Processes that play containers: own process group, output into a file, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from .containers import POD_ENV, Program

MESSAGE_BYTES = 4096
"""What the kubelet keeps of a termination message."""
LOG_BYTES, LOG_LINES = 2048, 80
"""What the kubelet takes of a log as message: at most both."""


class Running:
    """One container's process."""

    def __init__(self, process: asyncio.subprocess.Process, *, pod_uid: str) -> None:
        self._process = process
        self._pod_uid = pod_uid

    @staticmethod
    async def start(program: Program, *, log: Path, pod_uid: str) -> Running:
        """Raises OSError where the program cannot be started."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *program.arguments,
                env=program.environ,
                cwd=program.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(process, pod_uid=pod_uid)

    async def ended(self) -> int:
        """The exit code as the kubelet reports it; as in a container, nothing outlives the first process."""
        code = await self._process.wait()
        self.kill()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM to the first process alone, as container runtimes do."""
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to the whole group and to whatever left it."""
        # Where the group ended already, its number may be another's by now.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in _marked(self._pod_uid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _marked(pod_uid: str) -> list[int]:
    """Processes of this user that carry the pod's mark. Where /proc is not there, the group has to do."""
    mark = f"{POD_ENV}={pod_uid}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue  # another user's, or gone
    return found


def message(path: Path, log: Path, *, code: int, fall_back: bool) -> str:
    """The termination message; with `fall_back` the end of the log where a failed container wrote none."""
    said = path.read_bytes()[:MESSAGE_BYTES] if path.exists() else b""
    if not said and fall_back and code != 0 and log.exists():
        said = b"".join(log.read_bytes().splitlines(keepends=True)[-LOG_LINES:])[-LOG_BYTES:]
    return said.decode("utf-8", errors="replace")
