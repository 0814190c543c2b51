"""One active process: a Lease, judged by this process's monotonic clock alone.

Somebody else's Lease counts as abandoned once this process has seen the same version of it for its whole duration;
clocks of two machines are never compared. A holder that could not renew gives up before that can have happened
elsewhere. Losing the Lease early or late harms nothing that is written (each write has its own precondition): it only
keeps two processes from doing the same work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sweeprun_operator.cluster.fields import number, sub, text
from sweeprun_operator.cluster.gateway import AlreadyExistsError, ConflictError, GatewayError, Raw

_log = logging.getLogger(__name__)


class LeaseStore(Protocol):
    """Raises the errors of the Gateway; replacing takes metadata.resourceVersion for its precondition."""

    async def get_lease(self, namespace: str, name: str) -> Raw | None: ...

    async def create_lease(self, namespace: str, lease: Raw) -> Raw: ...

    async def replace_lease(self, namespace: str, name: str, lease: Raw) -> Raw: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds. A holder stops `renewed + give_up`, others take over `duration` after they saw the last renewal."""

    duration: int = 15
    renew: float = 4.0
    give_up: float = 10.0
    look: float = 1.0


class Lease:
    def __init__(
        self,
        store: LeaseStore,
        *,
        namespace: str,
        name: str,
        identity: str,
        monotonic: Callable[[], float],
        times: LeaseTimes | None = None,
    ) -> None:
        """`identity` is the pod's name: a container that was restarted goes on with what its predecessor held."""
        self._store = store
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self._times = times if times is not None else LeaseTimes()
        self._held: Raw | None = None
        self._renewed = 0.0
        self._seen_version = ""
        self._complaint = ""
        self._seen_since = 0.0

    @property
    def holds(self) -> bool:
        """The Lease is ours and nobody can have taken it yet."""
        return self._held is not None and self._monotonic() < self._renewed + self._times.give_up

    async def acquire(self) -> None:
        """Returns once the Lease is held."""
        while not await self._try(self._take):  # noqa: ASYNC110  what is waited for is on another machine
            await asyncio.sleep(self._times.look)
        _log.info("holding Lease %s/%s as %s", self._namespace, self._name, self._identity)

    async def keep(self) -> None:
        """Renews; returns when the Lease is lost or could not be renewed in time: all work must stop at once."""
        while self.holds:
            asked = self._monotonic()
            try:
                # A call that hangs must not hide that the time is up.
                async with asyncio.timeout(self._left()):
                    renewed = await self._try(self._renew)
            except TimeoutError:
                break
            # Where renewals take long, the pause is what they leave: the next one may take twice as long.
            pause = self._left() - 2 * (self._monotonic() - asked)
            await asyncio.sleep(max(0.0, min(self._times.renew if renewed else self._times.look, pause)))
        self._held = None
        _log.error("Lease %s/%s is lost", self._namespace, self._name)

    def _left(self) -> float:
        return self._renewed + self._times.give_up - self._monotonic()

    async def release(self) -> None:
        """So that the next process need not wait; a failure only makes it wait."""
        if self.holds:
            await self._try(self._let_go)
        self._held = None

    async def _try(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except (ConflictError, AlreadyExistsError):
            return False
        except GatewayError as error:
            if str(error) != self._complaint:  # it is tried every second: once is enough
                self._complaint = str(error)
                _log.warning("Lease %s/%s: %s", self._namespace, self._name, error)
            return False

    async def _take(self) -> bool:
        asked = self._monotonic()
        found = await self._store.get_lease(self._namespace, self._name)
        if found is None:
            self._held = await self._store.create_lease(self._namespace, self._body({}, self._identity))
        elif self._is_free(found):
            body = self._body(found, self._identity)
            self._held = await self._store.replace_lease(self._namespace, self._name, body)
        else:
            return False
        self._renewed = asked
        return True

    def _is_free(self, found: Raw) -> bool:
        spec = sub(found, "spec")
        holder = text(spec, "holderIdentity")
        if holder is None or holder == self._identity:
            return True
        now = self._monotonic()
        version = str(sub(found, "metadata").get("resourceVersion"))
        if version != self._seen_version:
            self._seen_version, self._seen_since = version, now
        return now - self._seen_since >= max(self._times.duration, number(spec, "leaseDurationSeconds") or 0)

    async def _renew(self) -> bool:
        assert self._held is not None
        asked = self._monotonic()
        try:
            body = self._body(self._held, self._identity)
            self._held = await self._store.replace_lease(self._namespace, self._name, body)
        except ConflictError:
            # Either another took it, or an earlier renewal of ours was applied without an answer.
            found = await self._store.get_lease(self._namespace, self._name)
            ours = found is not None and sub(found, "spec").get("holderIdentity") == self._identity
            self._held = found if ours else None
            return False
        self._renewed = asked
        return True

    async def _let_go(self) -> bool:
        assert self._held is not None
        await self._store.replace_lease(self._namespace, self._name, self._body(self._held, None))
        return True

    def _body(self, found: Raw, holder: str | None) -> Raw:
        spec = sub(found, "spec")
        before = spec.get("holderIdentity")
        # Wall-clock times are for people who look at the Lease; nothing here reads them.
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**sub(found, "metadata"), "namespace": self._namespace, "name": self._name},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": self._times.duration,
                "acquireTime": spec.get("acquireTime") if before == holder else now,
                "renewTime": now,
                "leaseTransitions": (number(spec, "leaseTransitions") or 0) + (before != holder),
            },
        }
