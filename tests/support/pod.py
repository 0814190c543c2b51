"""A training pod's main process: the entrypoint as a real process around a small command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.run_directory import RunDirectory

SECONDS = 15.0
"""Nothing here takes a tenth of it on an idle machine."""


def wait_until(condition: Callable[[], Any], what: str, *, seconds: float = SECONDS) -> Any:
    """The condition's first true value; fails the test where it does not come."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """Whether it runs; a zombie that its parent has not asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


def python(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


@dataclass
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def ours(self) -> str:
        """What the entrypoint said."""
        return "\n".join(line for line in self.stderr.splitlines() if line.startswith("sweeprun: "))


class Pod:
    """One slot. `program` is the zipapp, or a directory of the same files.

    `directory` is for what the command leaves as traces; it is the command's working directory.
    """

    def __init__(self, program: Path, run: RunDirectory, directory: Path, *, slot: str = "master-0") -> None:
        self.run_directory = run
        self.directory = directory
        self.termination_log = directory / f"termination-{slot}"
        self.termination_log.touch()
        self.port: int | None = None
        self.entrypoint = [sys.executable, "-I", "-S", str(program)]
        self._slot = slot
        self._process: subprocess.Popen[Any] | None = None

    def environ(self, **changes: str | None) -> dict[str, str]:
        replica, _, index = self._slot.rpartition("-")
        values: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            **self.run_directory.environment().encode(),
            "SWEEPRUN_REPLICA_TYPE": replica,
            "SWEEPRUN_REPLICA_INDEX": index,
            "SWEEPRUN_POD_UID": f"uid-{self._slot}",
            "SWEEPRUN_POD_NAME": f"run-a0-{self._slot}",
            "SWEEPRUN_NODE_NAME": "node-1",
            "SWEEPRUN_PORT": str(self.port) if self.port is not None else "off",
            "SWEEPRUN_HOST": "127.0.0.1",
            "SWEEPRUN_TERMINATION_LOG": str(self.termination_log),
            "SWEEPRUN_FENCE_SECONDS": "0.1",
            "SWEEPRUN_SAMPLE_SECONDS": "0.05",
            "SWEEPRUN_SETTLE_SECONDS": "0",
            **changes,
        }
        return {name: value for name, value in values.items() if value is not None}

    def start(
        self,
        command: Sequence[str],
        *,
        wrapper: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **streams: Any,
    ) -> Pod:
        ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
        arguments = [*(wrapper or [*self.entrypoint, "exec", "--"]), *command]
        given = dict(environ or self.environ())
        self._process = subprocess.Popen(arguments, env=given, cwd=self.directory, **{**ends, **streams})
        return self

    @property
    def process(self) -> subprocess.Popen[Any]:
        assert self._process is not None, "started before"
        return self._process

    def run(self, command: Sequence[str], **more: Any) -> Ended:
        return self.start(command, **more).end()

    def end(self, *, seconds: float = SECONDS) -> Ended:
        stdout, stderr = self.process.communicate(timeout=seconds)
        return Ended(self.process.returncode, stdout or "", stderr or "")

    def trace(self, name: str, *, seconds: float = SECONDS) -> str:
        """What the command wrote into a file of this name, once it is there with a line's end."""
        path = self.directory / name
        written = f"the command writes {name}"
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), written, seconds=seconds)
        return path.read_text().strip()

    def ended_command(self) -> None:
        """Wait until the command's end is recorded; the entrypoint may still run."""
        wait_until(lambda: self.run_directory.end_record(self._slot), "the end is recorded")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def get(self, path: str) -> tuple[str, bytes]:
        """Content type and body of what the entrypoint's port answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=SECONDS) as answer:
            return answer.headers["Content-Type"], answer.read()

    def progress(self) -> dict[str, Any]:
        """Of /progress, once the port answers."""

        def ask() -> dict[str, Any] | None:
            try:
                return dict(json.loads(self.get("/progress")[1]))
            except OSError:
                return None

        return dict(wait_until(ask, "the port answers"))

    def destroy(self) -> None:
        """What a test that failed left running."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
