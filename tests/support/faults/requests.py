"""A request as a schedule counts it: who asks, the verb and the kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

PLURALS = {
    "sweepruns": "SweepRun",
    "jobs": "Job",
    "pytorchjobs": "PyTorchJob",
    "pods": "Pod",
    "events": "Event",
    "leases": "Lease",
    "persistentvolumeclaims": "Claim",
    "nodes": "Node",
    "namespaces": "Namespace",
}
WRITES = ("create", "put", "delete")
_VERBS = {"POST": "create", "PUT": "put", "DELETE": "delete"}
_DROPPED = ("Host", "Authorization", "Content-Length", "Transfer-Encoding", "Connection", "Accept-Encoding")


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    verb: str
    kind: str
    bell: bool
    """Asked by kopf's watches."""

    @property
    def label(self) -> str:
        return f"{'bell-' if self.bell else ''}{self.verb}-{self.kind}"

    @property
    def writes(self) -> bool:
        return self.verb in WRITES

    @property
    def name(self) -> str:
        """Of the object that is written."""
        parts = self.path.strip("/").split("/")
        if self.verb == "create":
            found: dict[str, Any] = json.loads(self.body)
            return str(found["metadata"]["name"])
        return parts[-2] if parts[-1] == "status" else parts[-1]

    @staticmethod
    async def of(request: web.BaseRequest) -> Asked:
        query = dict(request.query)
        kind, named = _subject(request.path)
        verb = _VERBS.get(request.method, "get" if named else "list")
        if query.get("watch") == "true":
            verb = "watch"
        elif verb == "create" and "dryRun" in query:
            verb = "dry"
        return Asked(
            method=request.method,
            path=request.path,
            query=query,
            headers={name: value for name, value in request.headers.items() if name not in _DROPPED},
            body=await request.read(),
            verb=verb,
            kind=kind,
            bell=request.headers.get("User-Agent", "").startswith("kopf"),
        )


def _subject(path: str) -> tuple[str, bool]:
    """The kind, and whether one object of it is named; `Other` for what describes the API."""
    parts = path.strip("/").split("/")
    if parts[-1] == "status":
        parts.pop()
    for back, part in enumerate(reversed(parts[-2:])):
        if part in PLURALS:
            return PLURALS[part], back == 1
    return "Other", False
