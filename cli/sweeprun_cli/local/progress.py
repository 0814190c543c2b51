"""How far the attempt is, asked of its entrypoints as Prometheus and the operator ask them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sweeprun_protocol.codec import Fields, RecordError, parse
from sweeprun_protocol.layout import MAX_STEP

from .cluster import LocalCluster
from .store import Raw

EVERY_SECONDS = 0.1
ANSWER_SECONDS = 1.0
ANSWER_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Steps:
    """What the pods of the living attempt say."""

    attempt: int | None
    step: int | None
    """The furthest of all pods; None: none was made yet."""
    running: int
    """Pods with a process."""


class Progress:
    """Polls; `told` hears of every look, also where nothing is new."""

    def __init__(self, cluster: LocalCluster, *, number_label: str, told: Callable[[Steps], None]) -> None:
        self._cluster = cluster
        self._label = number_label
        self._told = told

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._told(await self.look())
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> Steps:
        pods = self._cluster.trainers(running=True)
        if not pods:
            return Steps(None, None, 0)
        answers = await asyncio.gather(*(self._step(pod) for pod in pods))
        steps = [step for step in answers if step is not None]
        attempt = int(pods[0]["metadata"]["labels"][self._label])
        return Steps(attempt, max(steps) if steps else None, len(pods))

    async def _step(self, pod: Raw) -> int | None:
        port = self._cluster.port(pod)
        if port is None:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                fields = Fields(parse(await _get(port), where="/progress", limit=ANSWER_BYTES), "/progress")
                return fields.optional("step", lambda name: fields.integer(name, most=MAX_STEP))
        except (OSError, TimeoutError, RecordError, asyncio.IncompleteReadError):
            return None  # not serving yet, or no more


async def _get(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /progress HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        await writer.drain()
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if b" 200 " in head.split(b"\r\n", 1)[0] else b"{}"
