"""The API server itself, asked over one pool of connections."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp

from support.control_plane import ControlPlane

Raw = dict[str, Any]


class Upstream:
    def __init__(self, plane: ControlPlane) -> None:
        self.url = plane.url
        self.token = plane.token
        self._tls = ssl.create_default_context(cafile=str(plane.certificate))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Upstream:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None, connect=20),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def stream(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._session is not None
        sent = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": "identity", **(headers or {})}
        return self._session.request(method, self.url + path, params=query, headers=sent, data=body)

    async def json(self, method: str, path: str, query: dict[str, str] | None = None) -> Raw:
        async with self.stream(method, path, query) as answer:
            found: Raw = await answer.json()
            assert answer.status < 300, f"{method} {path}: {found}"
            return found

    async def revision(self) -> int:
        """The newest one of etcd."""
        found = await self.json("GET", "/api/v1/namespaces", {"limit": "1"})
        return int(found["metadata"]["resourceVersion"])
