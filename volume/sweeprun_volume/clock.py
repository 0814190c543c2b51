"""Time, as it is handed to what needs it, so that tests need not wait."""

from __future__ import annotations

import time
from typing import Callable

from sweeprun_protocol.frozen import dataclass

from .errors import OutOfTimeError


@dataclass(frozen=True)
class Clock:
    now: Callable[[], float] = time.time
    """Seconds since 1970 UTC."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait_for(self, condition: Callable[[], bool], *, seconds: float, poll: float = 1.0) -> bool:
        """Ask until the condition holds, at most `seconds`; network file systems show changes late (NFS: 60 s)."""
        end = self.monotonic() + seconds
        while not condition():
            left = end - self.monotonic()
            if left <= 0:
                return False
            self.sleep(min(poll, left))
        return True


@dataclass(frozen=True)
class Deadline:
    end: float
    clock: Clock

    @staticmethod
    def after(seconds: float, clock: Clock) -> Deadline:
        return Deadline(clock.monotonic() + seconds, clock)

    def is_ahead(self) -> bool:
        return self.clock.monotonic() <= self.end

    def check(self) -> None:
        """Raises OutOfTimeError."""
        if not self.is_ahead():
            raise OutOfTimeError
