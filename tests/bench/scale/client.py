"""A bare client of the API server: one session, no models, no reads that nobody asked for."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp

from support.control_plane import ControlPlane
from sweeprun_protocol.keys import UID_LABEL

Raw = dict[str, Any]
T = TypeVar("T")

PLACES = {
    "SweepRun": ("/apis/sweeprun.dev/v1alpha1", "sweepruns"),
    "Job": ("/apis/batch/v1", "jobs"),
    "PyTorchJob": ("/apis/kubeflow.org/v1", "pytorchjobs"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
}
MERGE = "application/merge-patch+json"
AT_ONCE = 16


class RefusedError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Server(NamedTuple):
    """Of the API; another process may be given it."""

    url: str
    token: str
    certificate: str

    @classmethod
    def of(cls, plane: ControlPlane) -> Server:
        return cls(plane.url, plane.token, str(plane.certificate))


class Bare:
    def __init__(self, server: Server) -> None:
        self.server = server
        self._url = server.url
        self._headers = {"Authorization": f"Bearer {server.token}"}
        self._tls = ssl.create_default_context(cafile=server.certificate)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=4 * AT_ONCE),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=60),
            trust_env=False,
            read_bufsize=1 << 22,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Raw | None = None,
        *,
        content: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> Raw:
        """Raises RefusedError."""
        assert self._session is not None
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": content, "Accept": accept}
        async with self._session.request(method, self._url + path, data=data, headers=headers, params=query) as answer:
            text = await answer.read()
        if answer.status >= 400:
            raise RefusedError(answer.status, text.decode(errors="replace")[:512])
        found: Raw = json.loads(text)
        return found

    async def text(self, path: str) -> str:
        assert self._session is not None
        async with self._session.get(self._url + path) as answer:
            return await answer.text()

    async def create(self, kind: str, namespace: str, body: Raw) -> Raw:
        return await self.call("POST", place(kind, namespace), body)

    async def status(self, kind: str, namespace: str, name: str, status: Raw) -> Raw:
        path = f"{place(kind, namespace, name)}/status"
        return await self.call("PATCH", path, {"status": status}, content=MERGE)

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        try:
            await self.call("DELETE", place(kind, namespace, name), {"gracePeriodSeconds": 0})
        except RefusedError as error:
            if error.code != 404:
                raise

    async def list(self, kind: str, namespace: str | None = None, **query: str) -> list[Raw]:
        found: list[Raw] = []
        token = ""
        while True:
            more = {"continue": token} if token else {}
            page = await self.call("GET", place(kind, namespace), limit="500", **query, **more)
            word = {"apiVersion": page["apiVersion"], "kind": kind}  # which the items of a list do without
            found += [{**raw, **word} for raw in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                return found

    async def watch(self, kind: str, namespace: str | None = None) -> AsyncIterator[tuple[str, Raw]]:
        """From now on, all that belongs to runs; in every namespace where none is named."""
        assert self._session is not None
        seen = await self.call("GET", place(kind, namespace), limit="1", labelSelector=UID_LABEL)
        version = seen["metadata"]["resourceVersion"]
        while True:  # a server that is busy ends watches now and then
            query = {"watch": "1", "labelSelector": UID_LABEL, "resourceVersion": version}
            async with self._session.get(self._url + place(kind, namespace), params=query) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RefusedError(event["object"].get("code", 0), event["object"].get("message", ""))
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event["type"], event["object"]


def place(kind: str, namespace: str | None, name: str | None = None) -> str:
    root, plural = PLACES[kind]
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{within}/{plural}" + (f"/{name}" if name else "")


async def side_by_side(work: Callable[[T], Awaitable[object]], things: Iterable[T], *, at_once: int = AT_ONCE) -> None:
    """`work` on every one of `things`, some at a time. Raises what the first one that failed raised."""
    waiting = iter(things)

    async def worker() -> None:
        for thing in waiting:
            await work(thing)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
