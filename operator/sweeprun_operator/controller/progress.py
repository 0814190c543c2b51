"""How far running attempts are, asked of one of their pods now and then. For people only: no decision reads it.

What a pod answers is a tenant's word: bounded in size and time, checked, and believed only for the current epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import aiohttp

from sweeprun_operator.api.status import State
from sweeprun_operator.cluster.fields import digits, labels_of, sub, text, uid_of
from sweeprun_operator.cluster.gateway import ConflictError, Gateway, GatewayError, NotFoundError, Raw
from sweeprun_operator.cluster.observe import attempt_pods
from sweeprun_operator.cluster.versions import version
from sweeprun_operator.core.observation import Observation, PodPhase, PodState
from sweeprun_protocol.codec import Fields, RecordError, parse
from sweeprun_protocol.keys import NUMBER_LABEL
from sweeprun_protocol.layout import MAX_EPOCH, MAX_STEP

from .queue import Key
from .rest import Rest

_log = logging.getLogger(__name__)

ANSWER_BYTES = 4096
ANSWER_SECONDS = 2.0
AT_ONCE = 16
MOST_PER_SECOND = 4.0
"""Runs that are asked. Progress is for people: asking thousands of runs must not cost more than looking after them."""


@dataclass(slots=True)
class Running:
    uid: str
    attempt: int
    epoch: int
    address: str | None = None
    """Of the pod that answered last; a pass, which every change of a pod asks for, forgets it, and the step."""
    step: int | None = None
    """What the status shows."""


class ProgressPoller:
    def __init__(
        self, gateway: Gateway, *, port: int, every_seconds: float, clock: Callable[[], datetime], rest: Rest
    ) -> None:
        """`rest` learns of what is written here, which no pass has to see."""
        self._gateway = gateway
        self._port = port
        self._every_seconds = every_seconds
        self._clock = clock
        self._rest = rest
        self._running: dict[Key, Running] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def seen(self, key: Key, observation: Observation | None) -> None:
        """A pass has read this; None: the run is gone."""
        current = observation.run.status.current if observation is not None else None
        if observation is None or current is None or current.state is not State.RUNNING:
            self._running.pop(key, None)
        else:
            self._running[key] = Running(observation.run.metadata.uid, current.attempt, current.epoch)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_seconds)
            await self.once()

    async def once(self) -> None:
        """Ask every running attempt, MOST_PER_SECOND at most; what fails is asked again the next time."""
        async with asyncio.TaskGroup() as group:
            for number, (key, running) in enumerate(tuple(self._running.items())):
                if number:
                    await asyncio.sleep(1 / MOST_PER_SECOND)
                if self._running.get(key) is running:
                    group.create_task(self._ask(key, running))

    async def _ask(self, key: Key, running: Running) -> None:
        async with self._gate:
            try:
                step = await self._asked(key, running)
                if step is not None and step != running.step:
                    await self._note(key, running, step)
                    running.step = step
            except (ConflictError, NotFoundError):
                _log.debug("%s: the run has gone on meanwhile", key)
            except (GatewayError, RecordError, aiohttp.ClientError, OSError, TimeoutError) as error:
                _log.debug("%s: no progress to be had: %s", key, error)

    async def _asked(self, key: Key, running: Running) -> int | None:
        address, running.address = running.address, None
        address = address or await self._address(key, running)
        if address is None:
            return None
        step = await self._step(address, running.epoch)
        running.address = address
        return step

    async def _address(self, key: Key, running: Running) -> str | None:
        """IP of the attempt's running pod of the lowest slot: the master's where there is one."""
        raws = await self._gateway.list_children("Pod", key.namespace, running.uid)
        raws = [raw for raw in raws if digits(labels_of(raw), NUMBER_LABEL) == running.attempt]
        by_uid = {uid_of(raw): raw for raw in raws}
        pods = [pod for pod in attempt_pods(raws) if _answers(pod)]
        if not pods:
            return None
        first = min(pods, key=lambda pod: (not pod.slot.startswith("master-"), pod.slot))
        return text(sub(by_uid[first.uid], "status"), "podIP", most=64)

    async def _step(self, address: str, epoch: int) -> int | None:
        assert self._session is not None, "used as a context manager"
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/progress"
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            try:
                data = await answer.content.readexactly(ANSWER_BYTES + 1)
            except asyncio.IncompleteReadError as whole:
                data = whole.partial
        fields = Fields(parse(data, where=url, limit=ANSWER_BYTES), url)
        if fields.integer("epoch", most=MAX_EPOCH) != epoch:
            return None
        return fields.optional("step", lambda name: fields.integer(name, most=MAX_STEP))

    async def _note(self, key: Key, running: Running, step: int) -> None:
        raw = await self._gateway.get_run(key.namespace, key.name)
        if raw is None or not _is_still(raw, running):
            return
        status = sub(raw, "status")
        if sub(status, "progress").get("step") == step:
            return
        time = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {**raw, "status": {**status, "progress": {"step": step, "time": time}}}
        with self._rest.writing(key, version(raw)) as written:
            written(version(await self._gateway.replace_status(told)))


def _answers(pod: PodState) -> bool:
    return pod.phase is PodPhase.RUNNING and not pod.deleting and not pod.unwrapped


def _is_still(raw: Raw, running: Running) -> bool:
    current = sub(raw, "status", "current")
    return (
        uid_of(raw) == running.uid
        and current.get("state") == State.RUNNING
        and current.get("epoch") == running.epoch
        and current.get("attempt") == running.attempt
    )
