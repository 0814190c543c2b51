"""The operator's Gateway over the objects of local mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sweeprun_operator.cluster.gateway import RefusedError
from sweeprun_protocol.keys import UID_LABEL

from .store import Raw, Store

CLUSTER = "local"
NAMESPACE = "default"
NODE = "this-machine"


@dataclass(frozen=True, slots=True)
class Told:
    """An Event about the run."""

    time: datetime
    type: str
    reason: str
    message: str


class LocalGateway:
    """Reads and writes the store as the operator reads and writes an API server."""

    def __init__(self, store: Store, *, told: Callable[[Told], None]) -> None:
        self._store = store
        self._told = told

    async def cluster_id(self) -> str:
        return CLUSTER

    async def get_run(self, namespace: str, name: str) -> Raw | None:
        return self._store.get("SweepRun", namespace, name)

    async def list_metadata(
        self, kind: str, namespace: str | None, *, limit: int, token: str | None
    ) -> tuple[list[Raw], str | None]:
        found = self._store.find(kind, namespace=namespace)
        first = int(token or 0)
        return found[first : first + limit], str(first + limit) if first + limit < len(found) else None

    async def list_children(self, kind: str, namespace: str, owner_uid: str) -> list[Raw]:
        found = self._store.find(kind, namespace=namespace)
        return [raw for raw in found if raw["metadata"].get("labels", {}).get(UID_LABEL) == owner_uid]

    async def get_child(self, kind: str, namespace: str, name: str) -> Raw | None:
        return self._store.get(kind, namespace, name)

    async def get_claim(self, namespace: str, name: str) -> Raw | None:
        return self._store.get("PersistentVolumeClaim", namespace, name)

    async def get_node(self, name: str) -> Raw | None:
        return self._store.get("Node", NAMESPACE, name)

    async def create(self, kind: str, namespace: str, manifest: Raw, *, dry_run: bool = False) -> Raw:
        if kind == "PyTorchJob":
            check_pytorchjob(manifest)
        return self._store.create(kind, namespace, manifest, dry_run=dry_run)

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str, force: bool = False) -> None:  # noqa: ARG002  (no node is lost here)
        self._store.delete(kind, namespace, name, uid=uid)

    async def replace_status(self, raw: Raw) -> Raw:
        return self._store.replace_status("SweepRun", raw)

    async def delete_run(self, namespace: str, name: str, *, uid: str) -> None:
        self._store.delete("SweepRun", namespace, name, uid=uid)

    async def emit(self, run: Raw, *, type_: str, reason: str, message: str) -> None:  # noqa: ARG002  (one run only)
        self._told(Told(datetime.now(UTC), str(type_), reason, message))


def check_pytorchjob(manifest: Raw) -> None:
    """What training-operator's webhook refuses and people get wrong. Raises RefusedError."""
    replicas = manifest.get("spec", {}).get("pytorchReplicaSpecs")
    if not isinstance(replicas, dict) or not replicas:
        raise RefusedError("spec.pytorchReplicaSpecs: Required value: must hold Master or Worker")
    for kind, replica in replicas.items():
        path = f"spec.pytorchReplicaSpecs[{kind}]"
        if kind not in ("Master", "Worker"):
            raise RefusedError(f"{path}: Invalid value: must be Master or Worker")
        count = replica.get("replicas", 1)
        if not isinstance(count, int) or count < 0:
            raise RefusedError(f"{path}.replicas: Invalid value: {count!r}: must be a whole number")
        if kind == "Master" and count != 1:
            raise RefusedError(f"{path}.replicas: Invalid value: {count}: must be 1")
        if "pytorch" not in (container.get("name") for container in _containers(replica)):
            raise RefusedError(f"{path}.template.spec.containers: Required value: there must be one named pytorch")


def _containers(replica: Raw) -> list[dict[str, Any]]:
    found = replica.get("template", {}).get("spec", {}).get("containers", [])
    return [container for container in found if isinstance(container, dict)]
