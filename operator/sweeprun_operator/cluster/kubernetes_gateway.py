"""The Gateway on a Kubernetes API server.

Bodies are plain dicts: of the official client only the connection is used (addresses, certificates, tokens that
rotate), none of its models. Lists carry no resourceVersion, so that each is consistent; every call has a time limit.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config

from sweeprun_operator.api.v1alpha1 import API_VERSION, KIND, PLURAL
from sweeprun_protocol.keys import UID_LABEL

from .connection import authorization, configure
from .fields import sub, text
from .gateway import AlreadyExistsError, ConflictError, GatewayError, NotFoundError, Raw, RefusedError
from .listing import read_page, token_of

CALL_SECONDS = 10.0
PAGE = 500
REPORTER = "sweeprun-operator"
MESSAGE_CHARACTERS = 1024

_RUNS = f"/apis/{API_VERSION}"
_CHILDREN = {
    "Job": ("/apis/batch/v1", "jobs"),
    "PyTorchJob": ("/apis/kubeflow.org/v1", "pytorchjobs"),
    "Pod": ("/api/v1", "pods"),
}
_KINDS = {KIND: (_RUNS, PLURAL), **_CHILDREN}
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_LEASES = ("/apis/coordination.k8s.io/v1", "leases")
_LIMIT = aiohttp.ClientTimeout(total=CALL_SECONDS)
_REFUSALS = frozenset({400, 403, 405, 413, 422})


class KubernetesGateway:
    def __init__(self, configuration: Any) -> None:
        self._client = client.ApiClient(configuration=configuration)

    @staticmethod
    async def connect(kubeconfig: str | None = None) -> KubernetesGateway:
        """With the pod's service account; else, or where `kubeconfig` names a file, with a kubeconfig.

        Raises GatewayError where neither is to be had.
        """
        return KubernetesGateway(await configure(kubeconfig))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def cluster_id(self) -> str:
        found = await self._call("GET", "/api/v1/namespaces/kube-system")
        return str(sub(found, "metadata").get("uid"))

    async def get_run(self, namespace: str, name: str) -> Raw | None:
        return await self._get(_path(_RUNS, namespace, PLURAL, name))

    async def list_metadata(
        self, kind: str, namespace: str | None, *, limit: int, token: str | None
    ) -> tuple[list[Raw], str | None]:
        root, plural = _KINDS[kind]
        query = {"limit": str(limit), **({"continue": token} if token else {})}
        if kind != KIND:
            query["labelSelector"] = UID_LABEL
        path = _path(root, namespace, plural)
        data = await self._answer("GET", path, query=query, accept=_METADATA)
        try:
            return read_page(data)
        except ValueError as error:
            raise GatewayError(f"GET {path}: no list of metadata: {error}"[:MESSAGE_CHARACTERS]) from error

    async def list_children(self, kind: str, namespace: str, owner_uid: str) -> list[Raw]:
        """Raises NotFoundError where the cluster does not know the kind."""
        root, plural = _CHILDREN[kind]
        query = {"labelSelector": f"{UID_LABEL}={owner_uid}", "limit": str(PAGE)}
        found: list[Raw] = []
        while True:
            page = await self._call("GET", _path(root, namespace, plural), query=query)
            found += _items(page)
            token = token_of(page)
            if token is None:
                return found
            query["continue"] = token

    async def get_child(self, kind: str, namespace: str, name: str) -> Raw | None:
        root, plural = _CHILDREN[kind]
        return await self._get(_path(root, namespace, plural, name))

    async def get_claim(self, namespace: str, name: str) -> Raw | None:
        return await self._get(_path("/api/v1", namespace, "persistentvolumeclaims", name))

    async def get_node(self, name: str) -> Raw | None:
        return await self._get(_path("/api/v1", None, "nodes", name))

    async def create(self, kind: str, namespace: str, manifest: Raw, *, dry_run: bool = False) -> Raw:
        root, plural = _CHILDREN[kind]
        query = {"dryRun": "All"} if dry_run else {}
        return await self._call("POST", _path(root, namespace, plural), query=query, body=manifest)

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str, force: bool = False) -> None:
        root, plural = _CHILDREN[kind]
        await self._delete(_path(root, namespace, plural, name), uid, force=force)

    async def replace_status(self, raw: Raw) -> Raw:
        metadata = sub(raw, "metadata")
        path = _path(_RUNS, metadata["namespace"], PLURAL, metadata["name"])
        return await self._call("PUT", f"{path}/status", body={"apiVersion": API_VERSION, "kind": KIND, **raw})

    async def delete_run(self, namespace: str, name: str, *, uid: str) -> None:
        await self._delete(_path(_RUNS, namespace, PLURAL, name), uid)

    async def emit(self, run: Raw, *, type_: str, reason: str, message: str) -> None:
        metadata = sub(run, "metadata")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion"),
            },
            "type": str(type_),
            "reason": reason,
            "message": message[:MESSAGE_CHARACTERS],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": REPORTER},
        }
        await self._call("POST", _path("/api/v1", metadata["namespace"], "events"), body=event)

    async def get_lease(self, namespace: str, name: str) -> Raw | None:
        root, plural = _LEASES
        return await self._get(_path(root, namespace, plural, name))

    async def create_lease(self, namespace: str, lease: Raw) -> Raw:
        root, plural = _LEASES
        return await self._call("POST", _path(root, namespace, plural), body=lease)

    async def replace_lease(self, namespace: str, name: str, lease: Raw) -> Raw:
        root, plural = _LEASES
        return await self._call("PUT", _path(root, namespace, plural, name), body=lease)

    async def _get(self, path: str) -> Raw | None:
        try:
            return await self._call("GET", path)
        except NotFoundError:
            return None

    async def _delete(self, path: str, uid: str, *, force: bool = False) -> None:
        body: Raw = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        if force:
            body["gracePeriodSeconds"] = 0
        await self._call("DELETE", path, body=body)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Raw | None = None,
        content: str = _JSON,
    ) -> Raw:
        decoded = _decode(await self._answer(method, path, query=query, body=body, content=content))
        if decoded is None:
            raise GatewayError(f"{method} {path}: the answer is no JSON object")
        return decoded

    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Raw | None = None,
        content: str = _JSON,
        accept: str = _JSON,
    ) -> bytes:
        """Raises what the status means."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                token = await authorization(self._client.configuration)
                headers = {"Accept": accept, "Content-Type": content, "User-Agent": REPORTER}
                if token is not None:
                    headers["Authorization"] = token
                url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
                answer = await self._client.call_api(method, url, headers, body, _request_timeout=_LIMIT)
                data = await answer.read()
        except TimeoutError:
            raise GatewayError(f"{method} {path}: no answer within {CALL_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError, config.ConfigException) as error:
            raise GatewayError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if 200 <= answer.status < 300:
            return bytes(data)
        raise _error(method, path, answer.status, _decode(data) or {}, answer.headers.get("Retry-After"))


def _path(root: str, namespace: str | None, plural: str, name: str | None = None) -> str:
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace is not None else ""
    return f"{root}{within}/{plural}" + (f"/{quote(name, safe='')}" if name is not None else "")


def _items(page: Raw) -> list[Raw]:
    found = page.get("items")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _decode(data: bytes) -> Raw | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _error(method: str, path: str, code: int, status: Raw, retry_after: str | None) -> GatewayError:
    """The Status body's own message is what a user has to see; a body that is none gets the request instead."""
    message = text(status, "message", most=MESSAGE_CHARACTERS) or f"{method} {path}: HTTP {code}"
    retry = float(retry_after) if retry_after is not None and retry_after.isdigit() and len(retry_after) < 6 else None
    if code == 404:
        return NotFoundError(message, retry_seconds=retry, code=code)
    if code == 409:
        taken = method == "POST" and status.get("reason") == "AlreadyExists"
        return (AlreadyExistsError if taken else ConflictError)(message, retry_seconds=retry, code=code)
    if code in _REFUSALS:
        return RefusedError(message, retry_seconds=retry, code=code)
    return GatewayError(f"{method} {path}: {code}: {message}"[:MESSAGE_CHARACTERS], retry_seconds=retry, code=code)
