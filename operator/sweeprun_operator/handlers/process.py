"""The operator's process: the Lease first, then watches, resync and workers, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.gateway import Gateway, Raw
from sweeprun_operator.controller.health import Health
from sweeprun_operator.controller.lease import Lease, LeaseStore, LeaseTimes
from sweeprun_operator.controller.prepare_slots import PrepareSlots
from sweeprun_operator.controller.progress import ProgressPoller
from sweeprun_operator.controller.queue import Key, Queue
from sweeprun_operator.controller.reconcile import Decisions, Reconciler
from sweeprun_operator.controller.rest import Rest
from sweeprun_operator.controller.resync import Resync
from sweeprun_operator.controller.workers import FOR_OTHERS, Workers
from sweeprun_operator.core.lifecycle import derive_phase
from sweeprun_operator.core.observation import Observation
from sweeprun_operator.metrics import Metrics
from sweeprun_operator.settings import Settings

from .doorbell import Doorbell
from .probes import Probes

_log = logging.getLogger(__name__)


class Cluster(Gateway, LeaseStore, Protocol):
    """What the process needs of a cluster."""


class LeaseLostError(Exception):
    """Another process may be active: this one must leave."""


class Process:
    def __init__(
        self, cluster: Cluster, decisions: Decisions, settings: Settings, *, lease_times: LeaseTimes | None = None
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self.queue = Queue(jitter=random.random, most_per_namespace=settings.workers)
        slots = PrepareSlots(
            most=settings.prepares, most_per_namespace=settings.prepares_per_namespace, wake=self.queue.add
        )
        self.metrics = Metrics(
            queue_length=self.queue.__len__, prepares=lambda: slots.held, prepares_waiting=lambda: slots.waiting
        )
        self.health = Health(monotonic=time.monotonic, resync_seconds=settings.resync_seconds)
        self._lease = Lease(
            cluster,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            monotonic=time.monotonic,
            times=lease_times,
        )
        self._rest = Rest(monotonic=time.monotonic, wake=self.queue.add)
        self._poller = ProgressPoller(
            cluster,
            port=settings.progress_port,
            every_seconds=settings.progress_seconds,
            clock=_now,
            rest=self._rest,
        )
        self._departures = Departures()
        reconciler = Reconciler(
            cluster,
            decisions,
            clock=_now,
            told=self.metrics.told,
            seen=self._seen,
            departures=self._departures,
            slots=slots,
            survey_slots=PrepareSlots(
                most=settings.prepares, most_per_namespace=settings.prepares_per_namespace, wake=_nobody_waits
            ),
            rest=self._rest,
        )
        self._workers = Workers(
            self.queue, reconciler.reconcile, watcher=self.metrics.passed, count=settings.workers + FOR_OTHERS
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises LeaseLostError, OSError (a port is taken), or the bug that ended a part."""
        probes = Probes(
            health=self.health,
            registry=self.metrics.registry,
            health_port=self._settings.health_port,
            metrics_port=self._settings.metrics_port,
            host=self._settings.listen,
        )
        async with probes:
            stopped = asyncio.create_task(stop.wait(), name="stop")
            try:
                await _first(stopped, self._lease.acquire())
                if not stopped.done():
                    await self._lead(stopped)
            finally:
                stopped.cancel()
                self.queue.close()
                await self._lease.release()

    async def _lead(self, stopped: asyncio.Task[bool]) -> None:
        loop = asyncio.get_running_loop()

        def ring(key: Key, version: int | None) -> None:
            loop.call_soon_threadsafe(self._rung, key, version)

        def tell(pod: Raw) -> None:
            loop.call_soon_threadsafe(self._departures.heard, pod)

        doorbell = Doorbell(
            ring,
            tell,
            namespaces=self._settings.namespaces,
            kubeconfig=self._settings.kubeconfig,
            ended=self.metrics.watches_ended,
        )
        resync = Resync(
            self._cluster,
            self.queue,
            namespaces=self._settings.namespaces,
            every_seconds=self._settings.resync_seconds,
            jitter=random.random,
            rest=self._rest,
            succeeded=self._resynced,
        )
        self.health.leads(lambda: doorbell.silent_seconds, doorbell.hearing.deafest)
        self.metrics.leading(True)
        doorbell.start()
        try:
            async with self._poller:
                parts = [self._workers.run(), resync.run(), self._lease.keep()]
                if self._settings.progress_seconds > 0:
                    parts.append(self._poller.run())
                await _first(stopped, *parts)
        finally:
            self.metrics.leading(False)
            await asyncio.to_thread(doorbell.stop)
        if not stopped.done():
            raise LeaseLostError(f"Lease {self._settings.lease_namespace}/{self._settings.lease_name} is lost")

    def _rung(self, key: Key, version: int | None) -> None:
        if self._rest.rings(key, version):
            self.queue.add(key)

    def _seen(self, key: Key, observation: Observation | None) -> None:
        self._poller.seen(key, observation)
        # what this pass writes is read by the next one, which the write itself rings for
        self.metrics.stands(key, derive_phase(observation.run.status) if observation is not None else None)

    def _resynced(self) -> None:
        self.health.resynced()
        self.metrics.resynced()


def _nobody_waits(_key: Key) -> None:
    """Of a slot for a survey: who gets none does without."""


def _now() -> datetime:
    return datetime.now(UTC)


async def _first(stopped: asyncio.Task[bool], *work: Coroutine[Any, Any, None]) -> None:
    """Returns once `stopped` or a part of `work` has ended, and the rest is cancelled; raises what a part raised."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome
