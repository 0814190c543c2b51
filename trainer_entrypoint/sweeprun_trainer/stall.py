"""Training that hangs: how long nothing was heard of it and nothing of it was seen on the volume."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Optional

LOOKS = 20
"""Looks at the volume within one limit, at most: they cost a request for each file without a step in its name."""
MOST_LOOKED_AT = 1000
"""Files of the checkpoint directory whose facts are compared."""


class Stall:
    """Counts the time between looks, as far as this process lived it.

    A look that comes late counts as one in time: a machine that slept, a container that was frozen and a volume that
    did not answer say nothing of the command.

    Args:
        limit_seconds: without a sign of progress.
        every_seconds: between two looks.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, limit_seconds: float, *, every_seconds: float, now: float) -> None:
        self._limit = limit_seconds
        self._longest = 2 * every_seconds + 1
        self._looked = now
        self._silent = 0.0
        self._sign: Optional[Hashable] = None

    def is_over(self, sign: Hashable, now: float) -> bool:
        """Whether `sign`, which says how far training is, has stood still for longer than the limit."""
        elapsed, self._looked = min(now - self._looked, self._longest), now
        if sign != self._sign:
            self._sign, self._silent = sign, 0.0
            return False
        self._silent += elapsed
        return self._silent >= self._limit

    def was_blind(self, now: float) -> None:
        """Nothing could be seen: this time does not count."""
        self._looked = now
