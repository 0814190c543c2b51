"""kopf's watches, which say that something happened to a run, and what they last saw of its pods.

kopf has a thread and an event loop to itself: it cancels every task of its loop when it stops, and it stops on several
watch errors. A doorbell that fell silent is hung up again, and so is one that hears nothing any more; what rang
meanwhile comes with the first list of the next watch, and with the resync. Absence is never learned here: kopf does not
tell of objects that vanished while a watch was broken.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import aiohttp
import kopf

from sweeprun_operator.cluster.connection import Connection
from sweeprun_operator.cluster.gateway import Raw
from sweeprun_operator.cluster.versions import version
from sweeprun_operator.controller.queue import Key
from sweeprun_operator.metric_catalogue import End
from sweeprun_protocol.keys import GROUP, NAME_LABEL, UID_LABEL

from .hearing import Hearing

_log = logging.getLogger(__name__)

RUNS = "sweepruns"
WATCHED_CHILDREN = {
    "pytorchjobs": ("kubeflow.org", "v1"),
    "jobs": ("batch", "v1"),
    "pods": ("", "v1"),
}
TOLD_BY_METADATA = frozenset({RUNS, *WATCHED_CHILDREN} - {"pods"})
"""Kinds of which a ring says all there is to say; of pods the conditions matter too (departures.py)."""
HEARTBEAT_SECONDS = 1.0
HANG_UP_SECONDS = 3.0
TLS_SECONDS = 0.25
FIRST_BACKOFF = 1.0
MOST_BACKOFF = 30.0
STEADY_SECONDS = 120.0
"""A doorbell that hung this long has earned a fresh backoff."""
WATCH_SECONDS = 60
"""After which the API server is asked to end each watch. Life, even where nothing happens (hearing.py)."""
INACTIVE_SECONDS = 90.0
"""kopf gives a watch up that told of nothing for longer, and makes it again."""
DEAF_SECONDS = 180.0
"""Two watches in a row told of nothing: the doorbell is hung up again. So it is where the API server did not know a
kind, which may have been installed since."""
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Ring = Callable[[Key, int | None], None]
"""With the version of what the watch told of; None: it is gone."""
Tell = Callable[[Raw], None]


class Doorbell:
    def __init__(
        self,
        ring: Ring,
        tell: Tell,
        *,
        namespaces: Collection[str] | None,
        kubeconfig: str | None,
        ended: Callable[[End], None],
    ) -> None:
        """`ring`, and before it `tell` with every pod, is called in a thread of its own, and so is `ended` whenever the
        watches end unasked; `namespaces` None: all."""
        self._ring = ring
        self._tell = tell
        self._namespaces = namespaces
        self._kubeconfig = kubeconfig
        self._ended = ended
        self.hearing = Hearing(frozenset({RUNS, *WATCHED_CHILDREN}), monotonic=time.monotonic)
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_flag: asyncio.Event | None = None
        self._beat = time.monotonic()
        # It must never keep the process alive: what it does is repeated by the next one.
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks for up to HANG_UP_SECONDS."""
        self._stopping.set()
        loop, flag = self._loop, self._stop_flag
        if loop is not None and flag is not None:
            try:
                loop.call_soon_threadsafe(flag.set)
            except RuntimeError:
                _log.debug("the doorbell's loop had ended by itself")
        if self._thread.is_alive():
            self._thread.join(HANG_UP_SECONDS)

    @property
    def silent_seconds(self) -> float:
        """How long ago its event loop last turned; grows while kopf is being restarted or hangs."""
        return time.monotonic() - self._beat

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping.is_set():
            began = time.monotonic()
            end, why = End.OTHER, "kopf returned"
            try:
                asked = asyncio.run(self._hang())
                end, why = asked if asked is not None else (end, why)
            except Exception as error:  # noqa: BLE001  whatever kopf dies of, it is hung up again
                end, why = reason_of(error), f"{type(error).__name__}: {error}"
            if time.monotonic() - began > STEADY_SECONDS:
                backoff = FIRST_BACKOFF
            self._beat = time.monotonic()
            if self._stopping.is_set():
                return
            self._ended(end)
            _log.warning("the watches ended (%s) and start again in %.0f s: %s", end, backoff, why)
            self._stopping.wait(backoff)
            backoff = min(MOST_BACKOFF, backoff * 2)

    async def _hang(self) -> tuple[End, str] | None:
        """Until it is told to stop or hears nothing any more, and then says so; raises what kopf dies of."""
        self._loop = asyncio.get_running_loop()
        self._stop_flag = asyncio.Event()
        if self._stopping.is_set():
            return None
        connection = await Connection.open(self._kubeconfig)
        async with session(connection, self.hearing) as opened:
            work = asyncio.create_task(
                kopf.operator(
                    registry=make_registry(self._ring, self._tell, login_once(connection.server, opened)),
                    settings=make_settings(),
                    namespaces=self._namespaces or (),
                    clusterwide=self._namespaces is None,
                    standalone=True,
                    stop_flag=self._stop_flag,
                )
            )
            heart = asyncio.create_task(self._heartbeat(opened))
            await asyncio.wait([work, heart], return_when=asyncio.FIRST_COMPLETED)
            self._stop_flag.set()
            await asyncio.wait([work], timeout=HANG_UP_SECONDS)
            for task in (work, heart):
                task.cancel()
            (ended, told) = await asyncio.gather(work, heart, return_exceptions=True)
        # TLS connections close in some turns of the loop after their session, and aiohttp has nothing to wait for.
        await asyncio.sleep(TLS_SECONDS)
        if isinstance(ended, RuntimeError) and "closed" in str(ended) and self.hearing.refused is not None:
            # kopf that is refused closes the session under its other watches, and one of those may say so first
            return reason_of_status(self.hearing.refused), f"kopf gave up after {self.hearing.refused}: {ended}"
        if isinstance(ended, Exception):
            raise ended
        return told if isinstance(told, tuple) else None

    async def _heartbeat(self, opened: aiohttp.ClientSession) -> tuple[End, str]:
        """Until there is a reason to end."""
        began, closed = time.monotonic(), 0
        while True:
            self._beat = time.monotonic()
            self.hearing.look()
            # kopf that dies of one watch closes its session, and the others may wait for another login for ever
            closed = closed + 1 if opened.closed else 0
            if closed > HANG_UP_SECONDS:
                status = self.hearing.refused
                return reason_of_status(status), f"kopf gave up after an answer of {status} and did not end"
            if self._beat - began > DEAF_SECONDS:
                path, age = self.hearing.deafest()
                unknown = self.hearing.unasked(began)
                if age > DEAF_SECONDS:
                    return End.DEAF, f"the watch of {path} has heard nothing for {age:.0f} s"
                if unknown:
                    return End.KIND_UNKNOWN, f"the API server did not know {', '.join(sorted(unknown))}"
            await asyncio.sleep(HEARTBEAT_SECONDS)


def reason_of(error: Exception) -> End:
    if isinstance(error, kopf.LoginError):
        return End.UNAUTHORIZED
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return End.UNREACHABLE
    return reason_of_status(getattr(error, "status", None))  # of an answer of the API server, as kopf raises it


def reason_of_status(status: int | None) -> End:
    if status is None:
        return End.OTHER
    known = {401: End.UNAUTHORIZED, 403: End.FORBIDDEN, 410: End.EXPIRED}
    return known.get(status, End.SERVER_ERROR if status >= 500 else End.REFUSED)


class Answer(aiohttp.ClientResponse):
    """An empty list of metadata has `items: null`, which kopf does not take."""

    async def json(self, **how: Any) -> Any:
        found = await super().json(**how)
        return {**found, "items": []} if isinstance(found, dict) and found.get("items", []) is None else found


def session(connection: Connection, hearing: Hearing) -> aiohttp.ClientSession:
    """Of all requests of kopf."""

    async def carry(request: aiohttp.ClientRequest, go_on: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        authorization = await connection.authorization()
        if authorization is not None:
            request.headers["Authorization"] = authorization
        if request.url.name in TOLD_BY_METADATA:
            request.headers["Accept"] = _METADATA if request.url.query.get("watch") == "true" else _METADATA_LIST
        hearing.asks(request.url)
        answer = await go_on(request)
        hearing.answered(request.url, answer)
        return answer

    connector = aiohttp.TCPConnector(limit=0, ssl=connection.tls)
    return aiohttp.ClientSession(
        connector=connector, proxy=connection.proxy, middlewares=(carry,), trust_env=False, response_class=Answer
    )


Login = Callable[[], kopf.AiohttpSession | None]


def login_once(server: str, opened: aiohttp.ClientSession) -> Login:
    """Asked a second time, it means that the API server does not know us (401): kopf would ask on and on, without a
    pause. With nothing to offer it ends, and is started again with a pause and whatever the token is by then."""
    offered = iter((kopf.AiohttpSession(server=server, aiohttp_session=opened),))
    return lambda: next(offered, None)


def make_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    for plural in WATCHED_CHILDREN:
        settings.watching.label_selectors[plural] = UID_LABEL
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.inactivity_timeout = INACTIVE_SECONDS
    settings.watching.reconnect_backoff = 1.0
    # A task per object keeps the object's body until it has been idle for so long: with a first list of thousands, by
    # default for five seconds, most of them are in memory at once.
    settings.queueing.idle_timeout = 0.2
    settings.networking.request_timeout = 30
    settings.posting.enabled = False
    # Watching namespaces and CRDs would need rights on the whole cluster.
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.diffbase_storage = NoDiffs()
    return settings


class NoDiffs(kopf.DiffBaseStorage):
    """kopf copies and compares every object of every event, for handlers of changes; there are none here."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return None


def make_registry(ring: Ring, tell: Tell, login: Login) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def on_run(namespace: str | None, name: str | None, event: kopf.RawEvent, **_: Any) -> None:
        if namespace and name:
            ring(Key(namespace, name), _version(event))

    async def on_child(namespace: str | None, labels: kopf.Labels, event: kopf.RawEvent, **_: Any) -> None:
        key = owner(namespace, labels)
        if key is not None:
            ring(key, _version(event))

    async def on_pod(namespace: str | None, labels: kopf.Labels, event: kopf.RawEvent, **_: Any) -> None:
        tell(dict(event["object"]))
        await on_child(namespace, labels, event)

    def log_in(**_: Any) -> kopf.AiohttpSession | None:
        return login()

    kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY)(log_in)
    kopf.on.event(GROUP, "v1alpha1", RUNS, registry=registry)(on_run)
    for plural, (group, served) in WATCHED_CHILDREN.items():
        kopf.on.event(group, served, plural, registry=registry)(on_pod if plural == "pods" else on_child)
    return registry


def _version(event: kopf.RawEvent) -> int | None:
    return version(dict(event["object"])) if event["type"] != "DELETED" else None


def owner(namespace: str | None, labels: Any) -> Key | None:
    """The key of the run that a child belongs to, by its label. A wrong label costs one needless pass."""
    name = labels.get(NAME_LABEL) if labels else None
    return Key(namespace, name) if namespace and isinstance(name, str) and name else None
