"""Every few minutes all SweepRuns and what belongs to them are listed, because watches lose events and never say which.

Only metadata is asked for: a run comes into the queue unless these are the versions that its last pass has read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection

from sweeprun_operator.api.v1alpha1 import KIND
from sweeprun_operator.cluster.fields import labels_of, sub, uid_of
from sweeprun_operator.cluster.gateway import Gateway, GatewayError, NotFoundError, Raw
from sweeprun_operator.cluster.versions import version
from sweeprun_protocol.keys import UID_LABEL

from .queue import Key, Queue
from .rest import Rest

_log = logging.getLogger(__name__)

PAGE = 500
CHILDREN = ("Job", "PyTorchJob", "Pod")
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
        rest: Rest,
        succeeded: Callable[[], None],
    ) -> None:
        """`namespaces` None: all. `jitter` gives 0 to 1. `succeeded` is called after each complete list."""
        self._gateway = gateway
        self._queue = queue
        self._namespaces = namespaces
        self._every_seconds = every_seconds
        self._jitter = jitter
        self._rest = rest
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

        Raises GatewayError; what was seen is in the queue, and one namespace, which may have been deleted with its
        roles, hides no other.
        """
        found: set[Key] = set()
        failure: GatewayError | None = None
        for namespace in self._namespaces if self._namespaces is not None else (None,):
            try:
                await self._list(namespace, found)
            except GatewayError as error:
                failure = error
        if failure is not None:
            raise failure
        for key in self._known - found:
            self._queue.add(key)
        self._known = found
        self._succeeded()

    async def _list(self, namespace: str | None, found: set[Key]) -> None:
        # Children first: one that a pass makes meanwhile is then missing, which costs a pass and hides nothing.
        children = await self._children(namespace)
        async for raw in self._pages(KIND, namespace):
            metadata = sub(raw, "metadata")
            key = Key(str(metadata.get("namespace")), str(metadata.get("name")))
            found.add(key)
            if not self._rest.holds(key, frozenset([version(raw), *children.get(uid_of(raw), ())])):
                self._queue.add(key)

    async def _children(self, namespace: str | None) -> dict[str, list[int]]:
        """Versions by the UID of the run that a label names."""
        found: dict[str, list[int]] = {}
        for kind in CHILDREN:
            try:
                async for raw in self._pages(kind, namespace):
                    owner = str(labels_of(raw).get(UID_LABEL))
                    found.setdefault(owner, []).append(version(raw))
            except NotFoundError:
                _log.debug("the cluster knows no %s", kind)
        return found

    async def _pages(self, kind: str, namespace: str | None) -> AsyncIterator[Raw]:
        token: str | None = None
        while True:
            page, token = await self._gateway.list_metadata(kind, namespace, limit=PAGE, token=token)
            for raw in page:
                yield raw
            if not token:
                return
