"""The few calls that SweepRun makes on a cluster, as a protocol: Kubernetes implements it, and so does local mode.

All bodies are plain dicts as on the wire. All methods raise the errors below and nothing else.
"""

from __future__ import annotations

from typing import Any, Protocol

Raw = dict[str, Any]


class GatewayError(Exception):
    """The call failed; `retry_seconds` says when another try makes sense, where the server said so, and `code` is the
    HTTP status, where it answered at all."""

    def __init__(self, message: str, *, retry_seconds: float | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.code = code


class NotFoundError(GatewayError):
    """404: the object is not there."""


class ConflictError(GatewayError):
    """409 on an update or a delete: a precondition did not hold."""


class AlreadyExistsError(GatewayError):
    """409 on a create: the name is taken."""


class RefusedError(GatewayError):
    """The server understood and refused (400, 403 by admission, 422): the message is for the user."""


class Gateway(Protocol):
    async def cluster_id(self) -> str:
        """UID of the kube-system namespace; `local` in local mode."""

    async def get_run(self, namespace: str, name: str) -> Raw | None: ...

    async def list_metadata(
        self, kind: str, namespace: str | None, *, limit: int, token: str | None
    ) -> tuple[list[Raw], str | None]:
        """One page of metadata alone and the token of the next: of SweepRuns, or of children with our label.

        Raises NotFoundError where the cluster does not know the kind.
        """

    async def list_children(self, kind: str, namespace: str, owner_uid: str) -> list[Raw]:
        """Consistent list (no resourceVersion) by label sweeprun.dev/uid; kind: Job, PyTorchJob or Pod."""

    async def get_child(self, kind: str, namespace: str, name: str) -> Raw | None: ...

    async def get_claim(self, namespace: str, name: str) -> Raw | None: ...

    async def get_node(self, name: str) -> Raw | None: ...

    async def create(self, kind: str, namespace: str, manifest: Raw, *, dry_run: bool = False) -> Raw: ...

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str, force: bool = False) -> None:
        """`force`: with a grace period of 0, so that no kubelet is waited for."""

    async def replace_status(self, raw: Raw) -> Raw:
        """PUT of the status subresource; metadata.resourceVersion of `raw` is the precondition."""

    async def delete_run(self, namespace: str, name: str, *, uid: str) -> None: ...

    async def emit(self, run: Raw, *, type_: str, reason: str, message: str) -> None:
        """Create a core/v1 or events.k8s.io Event about the run; loss is tolerated by callers, errors are raised."""
