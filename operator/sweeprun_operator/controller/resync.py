"""Every few minutes all SweepRuns come into the queue, because watches lose events and never say which."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from sweeprun_operator.cluster.fields import sub
from sweeprun_operator.cluster.gateway import Gateway, GatewayError

from .queue import Key, Queue

_log = logging.getLogger(__name__)

PAGE = 200
RETRY_SECONDS = 5.0


class Resync:
    def __init__(
        self,
        gateway: Gateway,
        queue: Queue,
        *,
        namespaces: Collection[str] | None,
        every_seconds: float,
        jitter: Callable[[], float],
        succeeded: Callable[[], None],
    ) -> None:
        """`namespaces` None: all. `jitter` gives 0 to 1. `succeeded` is called after each complete list."""
        self._gateway = gateway
        self._queue = queue
        self._namespaces = namespaces
        self._every_seconds = every_seconds
        self._jitter = jitter
        self._succeeded = succeeded
        self._known: set[Key] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.once()
            except GatewayError as error:
                _log.warning("the list of SweepRuns failed: %s", error)
                await asyncio.sleep(max(RETRY_SECONDS * (1 + self._jitter()), error.retry_seconds or 0.0))
                continue
            await asyncio.sleep(self._every_seconds * (0.9 + 0.2 * self._jitter()))

    async def once(self) -> None:
        """One complete list. Runs that were there at the last one and are gone come too, so that they are forgotten.

        Raises GatewayError; what was seen until then is in the queue.
        """
        found: set[Key] = set()
        for namespace in self._namespaces if self._namespaces is not None else (None,):
            token: str | None = None
            while True:
                page, token = await self._gateway.list_runs(namespace, limit=PAGE, token=token)
                for raw in page:
                    metadata = sub(raw, "metadata")
                    key = Key(str(metadata.get("namespace")), str(metadata.get("name")))
                    found.add(key)
                    self._queue.add(key)
                if not token:
                    break
        for key in self._known - found:
            self._queue.add(key)
        self._known = found
        self._succeeded()
