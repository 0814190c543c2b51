"""Tasks that take keys from the queue; a key is never worked on twice at once, and no failure ends a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from sweeprun_operator.cluster.gateway import GatewayError

from .queue import Key, Queue
from .reconcile import Next

_log = logging.getLogger(__name__)

FOR_OTHERS = 4
"""Workers beyond those that one namespace may keep busy."""


class PassWatcher(Protocol):
    """Hears of every pass: how long it took, and how it failed, in one word; empty: it did not."""

    def __call__(self, seconds: float, error: str, /) -> None: ...


class Workers:
    def __init__(
        self,
        queue: Queue,
        reconcile: Callable[[Key], Awaitable[Next]],
        *,
        watcher: PassWatcher,
        count: int,
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._watcher = watcher
        self._count = count

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for index in range(self._count):
                group.create_task(self._work(), name=f"worker-{index}")

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        # asyncio.gather forgets a cancellation that comes just after one of its parts failed: a worker that went on
        # then would write without the Lease
        while not task.cancelling():
            key = await self._queue.take()
            try:
                await self.one_pass(key)
            finally:
                self._queue.done(key)

    async def one_pass(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        error = ""
        try:
            coming = await self._reconcile(key)
        except GatewayError as failure:
            error = type(failure).__name__
            delay = self._queue.retry(key, least=failure.retry_seconds)
            _log.warning("%s: %s; again in %.1f s", key, failure, delay)
        except Exception as failure:  # noqa: BLE001  one run's bug must not stop the others
            error = type(failure).__name__
            delay = self._queue.retry(key)
            _log.exception("%s: a bug; again in %.1f s", key, delay)
        else:
            self._schedule(key, coming)
        self._watcher(loop.time() - started, error)

    def _schedule(self, key: Key, coming: Next) -> None:
        if coming.failed:
            self._queue.retry(key, least=coming.after_seconds)
            return
        self._queue.forget(key)
        self._queue.prefer(key, coming.between_attempts)
        if coming.after_seconds is not None:
            self._queue.add_after(key, coming.after_seconds)
