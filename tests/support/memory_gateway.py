"""The Gateway and the Lease's store in memory: resourceVersions, UIDs and preconditions behave as on a server."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from sweeprun_operator.cluster.gateway import AlreadyExistsError, ConflictError, GatewayError, NotFoundError
from sweeprun_protocol.keys import UID_LABEL

Raw = dict[str, Any]
Fault = Callable[[str, str, str], GatewayError | None]
"""Asked before every call with its method, kind and name; what it gives is raised instead."""


class MemoryGateway:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Raw] = {}
        self.events: list[tuple[str, str, str]] = []
        self.calls: list[tuple[str, str, str]] = []
        self.fault: Fault = lambda method, kind, name: None
        self.after_apply: Fault = lambda method, kind, name: None
        """As `fault`, but the write has been applied: a time-out on the way back."""
        self._versions = itertools.count(1)

    def put(self, kind: str, raw: Raw, *, namespace: str = "default") -> Raw:
        """As some other client would."""
        metadata = raw.setdefault("metadata", {})
        metadata.setdefault("namespace", namespace)
        metadata.setdefault("uid", f"uid-of-{kind}-{metadata['name']}")
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[kind, metadata["namespace"], metadata["name"]] = raw
        return raw

    def read(self, kind: str, name: str, namespace: str = "default") -> Raw | None:
        return self.objects.get((kind, namespace, name))

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        self.objects.pop((kind, namespace, name), None)

    def names(self, kind: str) -> list[str]:
        return sorted(name for found, _, name in self.objects if found == kind)

    async def cluster_id(self) -> str:
        self._called("get", "Namespace", "kube-system")
        return "cluster-1"

    async def get_run(self, namespace: str, name: str) -> Raw | None:
        return self._get("SweepRun", namespace, name)

    async def list_metadata(
        self, kind: str, namespace: str | None, *, limit: int, token: str | None
    ) -> tuple[list[Raw], str | None]:
        self._called("list", kind, namespace or "*")
        found = [
            {"metadata": copy.deepcopy(raw["metadata"])}
            for (found, within, _), raw in sorted(self.objects.items())
            if found == kind and namespace in (None, within)
        ]
        first = int(token or 0)
        more = first + limit < len(found)
        return copy.deepcopy(found[first : first + limit]), str(first + limit) if more else None

    async def list_children(self, kind: str, namespace: str, owner_uid: str) -> list[Raw]:
        self._called("list", kind, owner_uid)
        return [
            copy.deepcopy(raw)
            for (found, within, _), raw in sorted(self.objects.items())
            if (found, within) == (kind, namespace) and raw["metadata"].get("labels", {}).get(UID_LABEL) == owner_uid
        ]

    async def get_child(self, kind: str, namespace: str, name: str) -> Raw | None:
        return self._get(kind, namespace, name)

    async def get_claim(self, namespace: str, name: str) -> Raw | None:
        return self._get("PersistentVolumeClaim", namespace, name)

    async def get_node(self, name: str) -> Raw | None:
        return self._get("Node", "default", name)

    async def create(self, kind: str, namespace: str, manifest: Raw, *, dry_run: bool = False) -> Raw:
        name = manifest["metadata"]["name"]
        self._called("dry-run" if dry_run else "create", kind, name)
        if (kind, namespace, name) in self.objects:
            raise AlreadyExistsError(f"{name} already exists")
        created = copy.deepcopy(manifest)
        if not dry_run:
            self.put(kind, created, namespace=namespace)
            self._applied("create", kind, name)
        return copy.deepcopy(created)

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str, force: bool = False) -> None:
        self._called("force-delete" if force else "delete", kind, name)
        found = self.objects.get((kind, namespace, name))
        if found is None:
            raise NotFoundError(f"{name} not found")
        if found["metadata"]["uid"] != uid:
            raise ConflictError("the UID in the precondition does not match")
        self.remove(kind, name, namespace)
        self._applied("delete", kind, name)

    async def replace_status(self, raw: Raw) -> Raw:
        return self._replace("SweepRun", raw, "status")

    async def delete_run(self, namespace: str, name: str, *, uid: str) -> None:
        await self.delete("SweepRun", namespace, name, uid=uid)

    async def emit(self, run: Raw, *, type_: str, reason: str, message: str) -> None:
        self._called("emit", "Event", reason)
        self.events.append((str(type_), reason, message))

    async def get_lease(self, namespace: str, name: str) -> Raw | None:
        return self._get("Lease", namespace, name)

    async def create_lease(self, namespace: str, lease: Raw) -> Raw:
        return await self.create("Lease", namespace, lease)

    async def replace_lease(self, namespace: str, name: str, lease: Raw) -> Raw:
        return self._replace("Lease", lease, "spec")

    def _get(self, kind: str, namespace: str, name: str) -> Raw | None:
        self._called("get", kind, name)
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    def _replace(self, kind: str, raw: Raw, part: str) -> Raw:
        metadata = raw["metadata"]
        self._called("replace", kind, metadata["name"])
        found = self.objects.get((kind, metadata["namespace"], metadata["name"]))
        if found is None:
            raise NotFoundError(f"{metadata['name']} not found")
        if found["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ConflictError("the object has been modified")
        self.put(kind, {**found, part: copy.deepcopy(raw[part])})
        self._applied("replace", kind, metadata["name"])
        return copy.deepcopy(self.objects[kind, metadata["namespace"], metadata["name"]])

    def _called(self, method: str, kind: str, name: str) -> None:
        self.calls.append((method, kind, name))
        error = self.fault(method, kind, name)
        if error is not None:
            raise error

    def _applied(self, method: str, kind: str, name: str) -> None:
        error = self.after_apply(method, kind, name)
        if error is not None:
            raise error
