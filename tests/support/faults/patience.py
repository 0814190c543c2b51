"""When a schedule counts as stuck: nothing has moved although the operator has looked often enough.

Time is counted in beats of this event loop, which a machine without a free processor gives fewer of, and looks are the
lists of the operator's resync: a slow machine makes a schedule long, never stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from .history import Namespace
from .wire import Wire

T = TypeVar("T")

BEAT_SECONDS = 0.25
QUIET_SECONDS = 30.0
"""Without a revision. The longest pause that the operator makes by itself is 10 s: after a dry run without answer."""
LOOKS = 10
"""Complete lists since the last revision: whatever the watches have lost is found by one."""
SILENT_SECONDS = 180.0
"""Without a revision, and without looks: the operator hangs."""
MOST_REVISIONS = 1000
"""A whole scenario has about a hundred."""


class StuckError(Exception):
    """Nothing happens any more, or it does not end."""


class Patience:
    def __init__(self, namespace: Namespace, wire: Wire) -> None:
        self._namespace = namespace
        self._wire = wire

    async def ends(self) -> None:
        """Raises StuckError; a fault that is under way is waited for."""
        revisions, looks, quiet = 0, 0, 0.0
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            quiet += BEAT_SECONDS
            if len(self._namespace.revisions) != revisions or self._wire.striking:
                revisions, looks, quiet = len(self._namespace.revisions), self._wire.looks, 0.0
            if revisions > MOST_REVISIONS:
                raise StuckError(f"no end after {revisions} revisions")
            if quiet > QUIET_SECONDS and self._wire.looks - looks >= LOOKS:
                raise StuckError(f"no revision for {quiet:.0f} s, though it looked {self._wire.looks - looks} times")
            if quiet > SILENT_SECONDS:
                raise StuckError(f"no revision for {quiet:.0f} s, and only {self._wire.looks - looks} looks")

    async def over(self, work: Awaitable[T]) -> T:
        """What `work` gives; raises StuckError where it does not come to an end."""
        ends, working = asyncio.ensure_future(self.ends()), asyncio.ensure_future(work)
        try:
            await asyncio.wait([ends, working], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await ends
            return await working
        finally:
            for task in (ends, working):
                task.cancel()
            await asyncio.gather(ends, working, return_exceptions=True)


async def within(seconds: float, work: Awaitable[T]) -> T:
    """As asyncio.wait_for, with beats. Raises TimeoutError."""
    working = asyncio.ensure_future(work)
    beats = int(seconds / BEAT_SECONDS)
    try:
        while not working.done():
            if beats <= 0:
                raise TimeoutError
            beats -= 1
            await asyncio.wait([working], timeout=BEAT_SECONDS)
        return await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
