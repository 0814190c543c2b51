"""A Gateway whose operator dies after chosen writes; what it had written stays, and nothing more follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from sweeprun_operator.cluster.gateway import Gateway

WRITES = {"create", "delete", "replace_status", "delete_run", "emit"}


class KilledError(BaseException):
    """No handler may survive it: it is the process that ends."""


class Mortal:
    """Counts and records writes that were applied; raises KilledError right after those counted in `dies_after`."""

    def __init__(self, gateway: Gateway, *, dies_after: Collection[int] = ()) -> None:
        self._gateway = gateway
        self.dies_after = dies_after
        self.writes: list[tuple[str, str]] = []

    @property
    def counted(self) -> int:
        """Writes that change something; Events come last in a pass, and a death among them loses Events only."""
        return sum(name != "emit" for name, _ in self.writes)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call: Callable[..., Awaitable[Any]] = getattr(self._gateway, name)
        if name not in WRITES:
            return call

        async def write(*arguments: Any, **options: Any) -> Any:
            answer = await call(*arguments, **options)
            if not options.get("dry_run"):
                self.writes.append((name, _subject(name, arguments, options)))
                if name != "emit" and self.counted in self.dies_after:
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
