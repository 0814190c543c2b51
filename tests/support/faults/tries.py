"""A schedule told again where it met nothing: which request a fault or a gap meets is a matter of how passes fall."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

TRIES = 3


async def told_until(met: Callable[[T], bool], tell: Callable[[], Awaitable[T]]) -> list[T]:
    """What `tell` gave, time by time, to the first that has met it; TRIES at most."""
    found = [await tell()]
    while not met(found[-1]) and len(found) < TRIES:
        found.append(await tell())
    return found
