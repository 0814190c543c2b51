"""Whether the training container's own mounts agree with spec.storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .spec import Storage
from .template import Container, Node, Replica, mappings

ENTRYPOINT_PATH = "/sweeprun"
"""Where the operator mounts the entrypoint."""


def existing_mount(replica: Replica, container: Container, storage: Storage) -> Node | None:
    """The container's own mount of the claim at mountPath, which is used instead of another one."""
    volumes = replica.claim_volumes(storage.persistent_volume_claim.claim_name)
    for mount in mappings(container.node.get("volumeMounts")):
        if _path(mount) == storage.mount_path and mount.get("name") in volumes:
            return mount
    return None


def is_mount_of(storage: Storage, mount: Any) -> bool:
    """Whether it shows the volume where spec.storage says."""
    return isinstance(mount, Mapping) and _path(mount) == storage.mount_path


def mount_problems(replica: Replica, container: Container, storage: Storage) -> Iterator[str]:
    claim = storage.persistent_volume_claim
    volumes = replica.claim_volumes(claim.claim_name)
    for mount in mappings(container.node.get("volumeMounts")):
        path = _path(mount)
        where = f"{container.path}.volumeMounts ({path})"
        if path == ENTRYPOINT_PATH:
            yield f"{where}: the operator mounts its entrypoint there; use another path"
        elif path == storage.mount_path and mount.get("name") not in volumes:
            yield (
                f"{where} is another volume than claim {claim.claim_name}, which spec.storage.mountPath puts there: "
                "change one of the two paths"
            )
        elif path == storage.mount_path:
            yield from _differences(mount, storage, where)
        elif mount.get("name") in volumes and _same_files(mount, storage):
            yield (
                f"{where} shows the files of claim {claim.claim_name} that spec.storage.mountPath shows at "
                f"{storage.mount_path}: set spec.storage.mountPath to {path}, remove the mount, or make it readOnly"
            )


def _differences(mount: Node, storage: Storage, where: str) -> Iterator[str]:
    """Of the claim's own mount at mountPath."""
    if mount.get("readOnly") is True:
        yield f"{where} is readOnly: checkpoints are written there; remove readOnly"
    if mount.get("subPathExpr"):
        yield f"{where} has a subPathExpr, which differs between pods: use subPath, or remove the mount"
    elif _sub_path(mount) != (storage.persistent_volume_claim.sub_path or ""):
        yield (
            f"{where} has subPath {_sub_path(mount) or '(none)'}, spec.storage.persistentVolumeClaim.subPath is "
            f"{storage.persistent_volume_claim.sub_path or '(none)'}: make them equal, or remove the mount"
        )


def _same_files(mount: Node, storage: Storage) -> bool:
    """A second way to the run's files, on which a script could write past what prepare looks at. Another directory of
    the same claim, a data set for example, is none."""
    if mount.get("readOnly") is True or mount.get("subPathExpr"):
        return False
    own, other = storage.persistent_volume_claim.sub_path or "", _sub_path(mount)
    return other in ("", own) or own == "" or own.startswith(f"{other}/") or other.startswith(f"{own}/")


def _path(mount: Node) -> str:
    return str(mount.get("mountPath", "")).rstrip("/") or "/"


def _sub_path(mount: Node) -> str:
    return str(mount.get("subPath") or "").strip("/")
