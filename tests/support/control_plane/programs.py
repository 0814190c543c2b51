"""Where the programs are, and how they are started so that none outlives the tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("SWEEPRUN_CACHE", Path.home() / ".cache" / "sweeprun"))
PR_SET_PDEATHSIG = 1


class ControlPlaneError(Exception):
    """The control plane cannot be started; the message says what to do, or shows what the program said last."""


def program(name: str) -> Path:
    """The one built by hack/control-plane.sh, else the one on PATH."""
    built = CACHE / "cluster" / "bin" / name
    if built.exists():
        return built
    found = shutil.which(name)
    if found is None:
        raise ControlPlaneError(f"{name} is neither in {built.parent} nor on PATH: run `make control-plane`")
    return Path(found)


class Process:
    """A program that writes to a log file of its own and is ended with `stop`, or with us at the latest."""

    def __init__(self, name: str, *arguments: str, directory: Path) -> None:
        self.name = name
        self._command = [str(program(name)), *arguments]
        self._directory = directory
        self._log = directory / f"{name}.log"
        self._process = self._started()

    def start(self) -> None:
        """Once more, after `stop`, with the data that it left."""
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (one system call, no lock taken)
            )

    def check(self) -> None:
        """Raises ControlPlaneError where the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise ControlPlaneError(f"{self.name} ended with {code}:\n{self.tail()}")

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, *, grace_seconds: float = 5) -> None:
        self._process.terminate()
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    """A killed pytest runs no teardown; the kernel tells its children. Linux only, elsewhere they may stay."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except AttributeError:
        return
