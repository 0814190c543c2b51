"""Objects in memory that behave as on an API server: UIDs, resourceVersions, preconditions, graceful deletion."""

from __future__ import annotations

import asyncio
import copy
import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sweeprun_operator.cluster.gateway import AlreadyExistsError, ConflictError, NotFoundError

Raw = dict[str, Any]

DEFAULT_GRACE_SECONDS = 30
"""Of a pod that does not say terminationGracePeriodSeconds, as in Kubernetes."""


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 in UTC. Microseconds are kept: local recoveries take less than the second that Kubernetes keeps."""
    return (moment or datetime.now(UTC)).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Store:
    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Raw] = {}
        self._versions = itertools.count(1)
        self._watchers: list[Callable[[str, Raw], None]] = []
        self._changed = asyncio.Event()

    def watch(self, watcher: Callable[[str, Raw], None]) -> None:
        """Called with the kind and the object after every change, deletions included; must neither block nor raise."""
        self._watchers.append(watcher)

    async def changed(self) -> None:
        """Until something has changed since the last call. One waiter only."""
        await self._changed.wait()
        self._changed.clear()

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def find(self, kind: str, *, namespace: str | None = None) -> list[Raw]:
        return [copy.deepcopy(raw) for raw in self._of(kind, namespace)]

    def _of(self, kind: str, namespace: str | None) -> Iterator[Raw]:
        for (found, within, _), raw in sorted(self._objects.items()):
            if found == kind and namespace in (None, within):
                yield raw

    def create(self, kind: str, namespace: str, manifest: Raw, *, dry_run: bool = False) -> Raw:
        """Raises AlreadyExistsError."""
        raw = copy.deepcopy(manifest)
        metadata = raw.setdefault("metadata", {})
        key = (kind, namespace, metadata["name"])
        if key in self._objects:
            raise AlreadyExistsError(f'{kind} "{metadata["name"]}" already exists')
        metadata.update(namespace=namespace, uid=str(uuid.uuid4()), generation=1, creationTimestamp=timestamp())
        if not dry_run:
            self._put(kind, raw)
        return copy.deepcopy(raw)

    def change(self, kind: str, raw: Raw, edit: Callable[[Raw], None]) -> Raw | None:
        """Apply `edit` to the stored object, as a controller does that retries its conflicts. None: it is gone."""
        found = self._same(kind, raw)
        if found is None:
            return None
        edited = copy.deepcopy(found)
        edit(edited)
        if edited != found:
            self._put(kind, edited)
        return copy.deepcopy(edited)

    def replace_status(self, kind: str, raw: Raw) -> Raw:
        """Raises NotFoundError, and ConflictError where metadata.resourceVersion or the UID is not the stored one."""
        metadata = raw["metadata"]
        found = self._objects.get((kind, metadata["namespace"], metadata["name"]))
        if found is None:
            raise NotFoundError(f'{kind} "{metadata["name"]}" not found')
        stored = found["metadata"]
        if any(stored[name] != metadata.get(name) for name in ("uid", "resourceVersion")):
            raise ConflictError(f'{kind} "{metadata["name"]}": the object has been modified')
        edited = {**copy.deepcopy(found), "status": copy.deepcopy(raw.get("status", {}))}
        if edited != found:
            self._put(kind, edited)
        return copy.deepcopy(edited)

    def delete(self, kind: str, namespace: str, name: str, *, uid: str) -> None:
        """Pods are marked and go when their processes are gone; everything else goes at once.

        Raises NotFoundError and ConflictError (another UID).
        """
        found = self._objects.get((kind, namespace, name))
        if found is None:
            raise NotFoundError(f'{kind} "{name}" not found')
        if found["metadata"]["uid"] != uid:
            raise ConflictError(f'{kind} "{name}": the UID in the precondition does not match')
        if kind == "Pod":
            self._mark(found)
        else:
            self.finalize(kind, found)

    def finalize(self, kind: str, raw: Raw) -> None:
        """Remove the object, if it is still this one."""
        found = self._same(kind, raw)
        if found is not None:
            del self._objects[self._key(kind, found)]
            self._tell(kind, found)

    def _mark(self, pod: Raw) -> None:
        if pod["metadata"].get("deletionTimestamp"):
            return
        grace = pod.get("spec", {}).get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        edited = copy.deepcopy(pod)
        edited["metadata"]["deletionGracePeriodSeconds"] = grace
        edited["metadata"]["deletionTimestamp"] = timestamp(datetime.now(UTC) + timedelta(seconds=grace))
        self._put("Pod", edited)

    def _same(self, kind: str, raw: Raw) -> Raw | None:
        found = self._objects.get(self._key(kind, raw))
        return found if found is not None and found["metadata"]["uid"] == raw["metadata"]["uid"] else None

    @staticmethod
    def _key(kind: str, raw: Raw) -> tuple[str, str, str]:
        return kind, raw["metadata"]["namespace"], raw["metadata"]["name"]

    def _put(self, kind: str, raw: Raw) -> None:
        raw["metadata"]["resourceVersion"] = str(next(self._versions))
        self._objects[self._key(kind, raw)] = raw
        self._tell(kind, raw)

    def _tell(self, kind: str, raw: Raw) -> None:
        self._changed.set()
        for watcher in self._watchers:
            watcher(kind, raw)
