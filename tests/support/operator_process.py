"""The operator's process inside a test: its own Lease, free ports on the loopback, and an end that is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeprun_operator.controller.lease import LeaseTimes
from sweeprun_operator.controller.reconcile import Decisions
from sweeprun_operator.handlers.process import Cluster, Process
from sweeprun_operator.settings import PREFIX, Settings

QUICK = LeaseTimes(duration=2, renew=0.3, give_up=1.5, look=0.05)


def settings(kubeconfig: Path, namespace: str, **more: Any) -> Settings:
    """Resync is rare, so that a test which passes shows that the watches work, unless it says otherwise."""
    least = {"IMAGE": "sweeprun/operator:test", "NAMESPACES": namespace, "LEASE_NAMESPACE": namespace}
    read = Settings.read({PREFIX + name: value for name, value in least.items()})
    chosen: dict[str, Any] = {
        "identity": f"operator-{secrets.token_hex(4)}",
        "resync_seconds": 3600.0,
        "listen": "127.0.0.1",
        "health_port": 0,
        "metrics_port": 0,
        "progress_seconds": 0.0,
        "kubeconfig": str(kubeconfig),
    }
    return replace(read, **{**chosen, **more})


async def until(look: Callable[[], Any], seconds: float = 15.0) -> None:
    """Until `look`, which asks a server, gives something true. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(look):  # noqa: ASYNC110  what is waited for is on a server
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(cluster: Cluster, decisions: Decisions, chosen: Settings) -> AsyncIterator[Process]:
    """A process that works until the block ends; raises what ended it before."""
    process, stop = Process(cluster, decisions, chosen, lease_times=QUICK), asyncio.Event()
    task = asyncio.create_task(process.run(stop))
    try:
        yield process
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)
