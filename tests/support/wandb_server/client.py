"""The real wandb client in a process of its own, doing step by step what a test says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SCRIPT = Path(__file__).with_name("training_script.py")
QUICK = {
    # The client collects rows for 15 s and retries after 2 s otherwise; what it sends stays the same. It takes whole
    # seconds only, and a fraction for "as usual".
    "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
    "WANDB__FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB__FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
}


class Client:
    """One attempt. Leaving the context kills what is left of it, like a pod's end: the client's helper dies too."""

    def __init__(self, environ: Mapping[str, str], **init: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(init)],
            env={**QUICK, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._begun: dict[str, Any] | None = None

    @property
    def begun(self) -> dict[str, Any]:
        """What `wandb.init` gave: id, resumed, starting_step, sweep; or error. Waits for it."""
        if self._begun is None:
            self._begun = self._answer()
        return self._begun

    def log(self, first: int, last: int, *, value: str = "") -> None:
        """Log the steps, both ends included, each with its explicit number and `commit=True`."""
        self._order({"steps": [first, last + 1], "value": value})

    def finish(self, exit_code: int = 0) -> None:
        """End the run as the library does, which delivers everything, and the process."""
        self._order({"finish": exit_code})
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def kill(self) -> None:
        """SIGKILL the process and those it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _order(self, order: dict[str, Any]) -> None:
        assert "error" not in self.begun, self.begun
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._process.__exit__(kind, error, at)
