"""A Gateway whose operator dies after a chosen write; what it had written stays, and nothing more follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sweeprun_operator.cluster.gateway import Gateway

WRITES = {"create", "delete", "replace_status", "delete_run", "emit"}


class KilledError(BaseException):
    """No handler may survive it: it is the process that ends."""


class Mortal:
    """Counts and records writes that were applied; raises KilledError right after the `dies_after`-th one."""

    def __init__(self, gateway: Gateway, *, dies_after: int | None = None) -> None:
        self._gateway = gateway
        self.dies_after = dies_after
        self.writes: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call: Callable[..., Awaitable[Any]] = getattr(self._gateway, name)
        if name not in WRITES:
            return call

        async def write(*arguments: Any, **options: Any) -> Any:
            answer = await call(*arguments, **options)
            if not options.get("dry_run"):
                self.writes.append((name, _subject(name, arguments, options)))
                if len(self.writes) == self.dies_after:
                    raise KilledError
            return answer

        return write


def _subject(method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    if method == "create":
        return str(arguments[2]["metadata"]["name"])
    if method == "emit":
        return str(options["reason"])
    if method == "replace_status":
        return str(arguments[0]["status"].get("phase"))
    return str(arguments[-1])
