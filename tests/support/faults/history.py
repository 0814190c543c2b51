"""Every revision of what a schedule's namespace holds, as etcd had them: an independent watch from the first one on.

Revisions count over all kinds (they are etcd's), so that four watches merge into the one order in which it happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from support.cluster import PATHS

from .upstream import Upstream

Raw = dict[str, Any]
KINDS = ("SweepRun", "Job", "PyTorchJob", "Pod")


@dataclass(frozen=True, slots=True)
class Revision:
    number: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    kind: str
    raw: Raw
    told: float
    """When the watch told of it, by the event loop's clock."""

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])


@dataclass
class Namespace:
    """What happened in one namespace; `objects` is what is there now, by kind and name."""

    name: str
    revisions: list[Revision] = field(default_factory=list)
    objects: dict[str, dict[str, Raw]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, revision: Revision) -> None:
        self.revisions.append(revision)
        held = self.objects[revision.kind]
        if revision.type == "DELETED":
            held.pop(revision.name, None)
        else:
            held[revision.name] = revision.raw
        self.changed.set()

    def in_order(self) -> list[Revision]:
        return sorted(self.revisions, key=lambda revision: revision.number)

    def versions(self, kind: str, name: str) -> Iterator[Revision]:
        """The newest first."""
        return (one for one in reversed(self.revisions) if one.kind == kind and one.name == name)


class Historian:
    """One watch for each kind over all namespaces; each schedule asks for its own."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._namespaces: dict[str, Namespace] = {}
        self._seen: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Historian:
        start = await self._upstream.revision()
        for kind in KINDS:
            self._seen[kind] = start
            self._tasks.append(asyncio.create_task(self._watch(kind)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def of(self, name: str) -> Namespace:
        return self._namespaces.setdefault(name, Namespace(name))

    def forget(self, name: str) -> None:
        self._namespaces.pop(name, None)

    async def caught_up(self, namespace: Namespace) -> None:
        """Returns once everything that is there now has been told of."""
        for kind in KINDS:
            while not await self._agrees(namespace, kind):  # noqa: ASYNC110  compared with a server
                await asyncio.sleep(0.02)

    async def _agrees(self, namespace: Namespace, kind: str) -> bool:
        found = await self._upstream.json("GET", PATHS[kind].format(namespace=namespace.name))
        there = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in found["items"]}
        return there == {name: raw["metadata"]["resourceVersion"] for name, raw in namespace.objects[kind].items()}

    async def _watch(self, kind: str) -> None:
        path = PATHS[kind].replace("/namespaces/{namespace}", "")
        while True:
            query = {"watch": "true", "resourceVersion": str(self._seen[kind]), "timeoutSeconds": "3000"}
            with contextlib.suppress(aiohttp.ClientError):
                async with self._upstream.stream("GET", path, query) as answer:
                    async for line in lines(answer) if answer.status == 200 else _none():
                        event = json.loads(line)
                        if event["type"] == "ERROR" and event["object"].get("code") == 410:
                            await self._again(kind, path)
                        else:
                            self._read(kind, event)
            await asyncio.sleep(0.02)

    async def _again(self, kind: str, path: str) -> None:
        """An API server that was started again knows no revision before its start: what changed since the last one
        that was told is seen as one revision of each object."""
        async with self._upstream.stream("GET", path) as answer:
            if answer.status != 200:  # it fills its caches still: asked again
                return
            found = await answer.json()
        there = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in found["items"]}
        for namespace in self._namespaces.values():
            known = namespace.objects[kind]
            for name in [name for name in known if (namespace.name, name) not in there]:
                gone = copy.deepcopy(known[name])
                gone["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
                self._read(kind, {"type": "DELETED", "object": gone})
        for (within, name), raw in sorted(there.items(), key=lambda item: int(item[1]["metadata"]["resourceVersion"])):
            before = self._namespaces[within].objects[kind].get(name) if within in self._namespaces else None
            if before is None or before["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
                raw |= {"apiVersion": found["apiVersion"], "kind": kind}
                self._read(kind, {"type": "ADDED" if before is None else "MODIFIED", "object": raw})
        self._seen[kind] = int(found["metadata"]["resourceVersion"])

    def _read(self, kind: str, event: Raw) -> None:
        assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), f"the history has a hole: {event}"
        number = int(event["object"]["metadata"]["resourceVersion"])
        self._seen[kind] = number
        namespace = self._namespaces.get(event["object"]["metadata"].get("namespace", ""))
        if namespace is not None:
            now = asyncio.get_running_loop().time()
            namespace.told(Revision(number, event["type"], kind, event["object"], now))


async def _none() -> Any:
    """An answer that is no watch."""
    for line in ():
        yield line


async def lines(answer: aiohttp.ClientResponse) -> Any:
    """Of a stream, however long they are."""
    rest = b""
    async for chunk in answer.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
