"""The operator's program as its container runs it, and what it costs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from support.cluster import eventually
from support.ports import free_port

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 300.0


@dataclass(frozen=True)
class Cost:
    at: float
    """Monotonic seconds."""
    cpu: float
    """Seconds of a core, since the start."""
    resident: int
    peak: int
    """Bytes."""
    passes: float


class Operator:
    """The process, from `with` to the end of its block."""

    def __init__(self, kubeconfig: Path, directory: Path, **settings: str) -> None:
        self._metrics = free_port()
        self._health = free_port()
        self.log = directory / "operator.log"
        self._environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ},
            "KUBECONFIG": str(kubeconfig),
            "SWEEPRUN_OPERATOR_IMAGE": "sweeprun/operator:bench",
            "SWEEPRUN_OPERATOR_NAMESPACES": "*",
            "SWEEPRUN_OPERATOR_LEASE_NAMESPACE": "default",
            "SWEEPRUN_OPERATOR_LISTEN": "127.0.0.1",
            "SWEEPRUN_OPERATOR_HEALTH_PORT": str(self._health),
            "SWEEPRUN_OPERATOR_METRICS_PORT": str(self._metrics),
            "SWEEPRUN_OPERATOR_PROGRESS_SECONDS": "0",
            **{f"SWEEPRUN_OPERATOR_{name.upper()}": value for name, value in settings.items()},
        }

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "sweeprun_operator"]
        profile = os.environ.get("SWEEPRUN_BENCH_PROFILE")
        if profile:
            command = [sys.executable, "-m", "cProfile", "-o", profile, "-m", "sweeprun_operator"]
        self._command = command
        self._start()
        eventually(self._ready, "the operator is ready", timeout=START_SECONDS)
        return self

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environ, stderr=log)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cost(self) -> Cost:
        process = Path("/proc") / str(self._process.pid)
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        sizes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE))
        return Cost(
            at=time.monotonic(),
            cpu=(int(fields[11]) + int(fields[12])) / TICKS,
            resident=int(sizes["VmRSS"]) * 1024,
            peak=int(sizes["VmHWM"]) * 1024,
            passes=self.metric("sweeprun_reconcile_seconds_count"),
        )

    def metric(self, name: str) -> float:
        text = requests.get(f"http://127.0.0.1:{self._metrics}/metrics", timeout=60).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            if "is lost" not in self.log.read_text()[-200:]:
                raise RuntimeError(f"the operator ended: {self.log.read_text()[-2000:]}")
            # On a machine too busy to renew a Lease in time; a kubelet would start it again.
            self._start()
        try:
            return requests.get(f"http://127.0.0.1:{self._health}/readyz", timeout=10).ok
        except requests.RequestException:
            return False


async def settled(operator: Operator, passes: int) -> None:
    """At least so many passes were made, and nothing waits for five seconds."""
    quiet = 0
    while quiet < 5:
        await asyncio.sleep(1)
        idle = operator.metric("sweeprun_queue_length") == 0 and operator.cost().passes >= passes
        quiet = quiet + 1 if idle else 0
