"""kopf's watches, which say that something happened to a run, and what they last saw of its pods.

kopf has a thread and an event loop to itself: it cancels every task of its loop when it stops, and it stops on several
watch errors. A doorbell that fell silent is hung up again; what rang meanwhile comes with the first list of the next
watch, and with the resync. Absence is never learned here: kopf does not tell of objects that vanished while a watch was
broken.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import kopf

from sweeprun_operator.cluster.gateway import Raw
from sweeprun_operator.cluster.versions import version
from sweeprun_operator.controller.queue import Key
from sweeprun_protocol.keys import GROUP, NAME_LABEL, UID_LABEL

_log = logging.getLogger(__name__)

WATCHED_CHILDREN = {
    "pytorchjobs": ("kubeflow.org", "v1"),
    "jobs": ("batch", "v1"),
    "pods": ("", "v1"),
}
HEARTBEAT_SECONDS = 1.0
HANG_UP_SECONDS = 3.0
TLS_SECONDS = 0.25
FIRST_BACKOFF = 1.0
MOST_BACKOFF = 30.0
STEADY_SECONDS = 120.0
"""A doorbell that hung this long has earned a fresh backoff."""

Ring = Callable[[Key, int | None], None]
"""With the version of what the watch told of; None: it is gone."""
Tell = Callable[[Raw], None]


class Doorbell:
    def __init__(self, ring: Ring, tell: Tell, *, namespaces: Collection[str] | None, kubeconfig: str | None) -> None:
        """`ring`, and before it `tell` with every pod, is called in a thread of its own; `namespaces` None: all."""
        self._ring = ring
        self._tell = tell
        self._namespaces = namespaces
        self._kubeconfig = kubeconfig
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
            try:
                asyncio.run(self._hang())
            except Exception as error:  # noqa: BLE001  whatever kopf dies of, it is hung up again
                _log.warning("the watches ended: %s: %s", type(error).__name__, error)
            if time.monotonic() - began > STEADY_SECONDS:
                backoff = FIRST_BACKOFF
            self._beat = time.monotonic()
            self._stopping.wait(backoff)
            backoff = min(MOST_BACKOFF, backoff * 2)

    async def _hang(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_flag = asyncio.Event()
        if self._stopping.is_set():
            return
        heart = asyncio.create_task(self._heartbeat())
        try:
            await kopf.operator(
                registry=make_registry(self._ring, self._tell, kubeconfig=self._kubeconfig),
                settings=make_settings(),
                namespaces=self._namespaces or (),
                clusterwide=self._namespaces is None,
                standalone=True,
                stop_flag=self._stop_flag,
            )
        finally:
            heart.cancel()
            # TLS connections close in some turns of the loop after their session, and aiohttp has nothing to wait for.
            await asyncio.sleep(TLS_SECONDS)

    async def _heartbeat(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)


def make_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    for plural in WATCHED_CHILDREN:
        settings.watching.label_selectors[plural] = UID_LABEL
    settings.watching.chunk_size = 500
    settings.watching.reconnect_backoff = 1.0
    # A task per object keeps the object's body until it has been idle for so long: with a first list of thousands, by
    # default for five seconds, most of them are in memory at once.
    settings.queueing.idle_timeout = 0.2
    settings.networking.request_timeout = 30
    settings.posting.enabled = False
    # Watching namespaces and CRDs would need rights on the whole cluster.
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/unused"
    return settings


def make_registry(ring: Ring, tell: Tell, *, kubeconfig: str | None) -> kopf.OperatorRegistry:
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

    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is not None:
            return kopf.login_with_kubeconfig(**kwargs)
        found = kopf.login_with_service_account(**kwargs)
        return dataclasses.replace(found, server=in_cluster(os.environ)) if found is not None else None

    kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY)(login)
    kopf.on.event(GROUP, "v1alpha1", "sweepruns", registry=registry)(on_run)
    for plural, (group, served) in WATCHED_CHILDREN.items():
        kopf.on.event(group, served, plural, registry=registry)(on_pod if plural == "pods" else on_child)
    return registry


def _version(event: kopf.RawEvent) -> int | None:
    return version(dict(event["object"])) if event["type"] != "DELETED" else None


def in_cluster(environ: Mapping[str, str]) -> str:
    """The API server as the kubelet tells of it: the watches then need no name service, like all other calls."""
    host = environ["KUBERNETES_SERVICE_HOST"]
    return f"https://{f'[{host}]' if ':' in host else host}:{environ['KUBERNETES_SERVICE_PORT']}"


def owner(namespace: str | None, labels: Any) -> Key | None:
    """The key of the run that a child belongs to, by its label. A wrong label costs one needless pass."""
    name = labels.get(NAME_LABEL) if labels else None
    return Key(namespace, name) if namespace and isinstance(name, str) and name else None
