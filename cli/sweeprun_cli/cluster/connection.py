"""SweepRuns on a cluster: the operator's gateway, with what people need beside it, and its errors in people's words."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from rich.console import Console

from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.plain import neutral
from sweeprun_operator.api.v1alpha1 import API_VERSION, PLURAL
from sweeprun_operator.cluster.fields import sub, text
from sweeprun_operator.cluster.gateway import ConflictError, GatewayError, NotFoundError, Raw, RefusedError
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway

from .kubeconfig import Access, Place, find_access

T = TypeVar("T")

PAGE = 250
MAX_RUNS = 10_000
CHANGE_TRIES = 5
_GROUP_PATH = f"/apis/{API_VERSION}"
_MERGE_PATCH = "application/merge-patch+json"
_DENIED = frozenset({401, 403})


class Connection(KubernetesGateway):
    """Open as an async context manager; every method raises CommandError or GatewayError."""

    def __init__(self, access: Access) -> None:
        super().__init__(access.configuration)
        self.access = access

    @property
    def namespace(self) -> str:
        return self.access.namespace

    async def run_named(self, name: str) -> Raw:
        """Raises CommandError where there is none, or no SweepRuns at all."""
        raw = await self.get_run(self.namespace, name)
        if raw is not None:
            return raw
        await self.require_installed()
        message = f"there is no SweepRun {name} in namespace {self.namespace}: `sweeprun get -A` lists all"
        raise CommandError(Exit.NOT_FOUND, message)

    async def runs(self, *, everywhere: bool = False, sweep: str | None = None) -> list[Raw]:
        """Of the namespace, or of all; of one sweep. By namespace and name; MAX_RUNS at most."""
        within = "" if everywhere else f"/namespaces/{self.namespace}"
        query = {"limit": str(PAGE), **({"fieldSelector": f"spec.sweepName={sweep}"} if sweep is not None else {})}
        found: list[Raw] = []
        while True:
            try:
                page = await self._call("GET", f"{_GROUP_PATH}{within}/{PLURAL}", query=query)
            except NotFoundError:
                await self.require_installed()
                raise
            found += [item for item in page.get("items") or () if isinstance(item, dict)]
            token = text(sub(page, "metadata"), "continue", most=1 << 20)
            if token is None or len(found) >= MAX_RUNS:
                return sorted(found[:MAX_RUNS], key=_place)
            query["continue"] = token

    async def require_installed(self) -> None:
        try:
            served = await self._call("GET", _GROUP_PATH)
        except NotFoundError:
            served = {}
        if any(item.get("name") == PLURAL for item in served.get("resources") or () if isinstance(item, dict)):
            return
        raise CommandError(
            Exit.NOT_INSTALLED,
            f"the cluster of {self.access.source} does not know SweepRuns ({API_VERSION}): install the chart "
            "charts/sweeprun there, or choose another --context",
        )

    async def change(self, name: str, patch: Raw) -> Raw:
        """Merge `patch` into the run as it was read: what somebody else changed meanwhile is read again."""
        for _ in range(CHANGE_TRIES):
            raw = await self.run_named(name)
            body = {**patch, "metadata": {"resourceVersion": sub(raw, "metadata").get("resourceVersion")}}
            path = f"{_GROUP_PATH}/namespaces/{self.namespace}/{PLURAL}/{name}"
            try:
                query = {"fieldManager": "sweeprun-cli"}
                return await self._call("PATCH", path, query=query, body=body, content=_MERGE_PATCH)
            except ConflictError:
                continue
        raise CommandError(Exit.REFUSED, f"SweepRun {name} changed {CHANGE_TRIES} times meanwhile: try again")


def _place(raw: Raw) -> tuple[str, str]:
    metadata = sub(raw, "metadata")
    return str(metadata.get("namespace")), str(metadata.get("name"))


def ask(place: Place, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do `work` on the cluster that is meant. Ends the process with a message where that fails."""

    async def connected() -> T:
        async with Connection(await find_access(place)) as connection:
            try:
                return await work(connection)
            except GatewayError as error:
                raise explained(error, connection.access) from error

    with told():
        return asyncio.run(connected())


def explained(error: GatewayError, access: Access) -> CommandError:
    said = str(error)
    if error.code in _DENIED:
        who = "not logged in" if error.code == 401 else "no rights"
        advice = "ask an administrator for a role with the verbs get and list (to read) and patch on sweepruns"
        return CommandError(Exit.FORBIDDEN, f"{who}: {said} ({access.source}); {advice}")
    if isinstance(error, (RefusedError, ConflictError)):
        return CommandError(Exit.REFUSED, f"the API server refuses: {said}")
    if isinstance(error, NotFoundError):
        return CommandError(Exit.NOT_FOUND, said)
    return CommandError(
        Exit.NO_CLUSTER, f"no answer from the cluster of {access.source} ({access.configuration.host}): {said}"
    )


@contextmanager
def told() -> Iterator[None]:
    """What a person can do something about is one red message and an exit code."""
    try:
        yield
    except CommandError as error:
        complain(str(error))
        raise typer.Exit(error.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def complain(message: str) -> None:
    console = Console(stderr=True, file=sys.stderr)
    console.print(neutral(message), style="red", markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    console = Console(stderr=True, file=sys.stderr)
    console.print(neutral(message), style="yellow", markup=False, highlight=False, soft_wrap=True)


def raw_without_noise(raw: Raw) -> dict[str, Any]:
    """Without what only machines read."""
    metadata = {key: value for key, value in sub(raw, "metadata").items() if key != "managedFields"}
    return {**raw, "metadata": metadata}
