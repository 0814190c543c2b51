"""When and how a training is ended before it is done."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from support.ranks import Ranks

POLL_SECONDS = 0.001
STOP_SECONDS = 90.0
AT_THE_END = 0.1
"""Share of kills behind the last step: the next attempt goes on there, and has no step that could repair anything."""
HOW = (
    "SIGTERM to one",
    "SIGTERM to all",
    "SIGKILL to one",
    "SIGKILL to all",
    "SIGKILL to one during a save",
    "SIGKILL to all during a save",
    "SIGTERM, then SIGKILL",
)


@dataclass(frozen=True)
class Kill:
    how: str
    rank: int
    step: int
    """That the rank has reached, at least; one more than the last: the last is done, and the end is not told yet."""
    delay: float
    """Seconds after that."""

    @staticmethod
    def drawn(draw: random.Random, *, steps: int, world: int) -> Kill:
        how, rank, delay = draw.choice(HOW), draw.randrange(world), draw.random() * 0.06
        at_the_end = draw.random() < AT_THE_END and "during" not in how
        return Kill(how, rank, steps + 1 if at_the_end else draw.randrange(1, steps), delay)

    def strike(self, ranks: Ranks, place: Path, checkpoints: Path, *, world: int) -> bool:
        """Returns when the attempt has ended; False: it was over before."""
        while ranks.running and _seen(place, self.rank) < self.step:
            time.sleep(POLL_SECONDS)
        time.sleep(self.delay)
        if "during" in self.how:
            while ranks.running and not list(checkpoints.glob(".staging-*")):
                time.sleep(POLL_SECONDS / 4)
        if not ranks.running:
            return False
        victims = range(world) if "to all" in self.how else [self.rank]
        for victim in victims:
            ranks.signal(victim, signal.SIGTERM if self.how.startswith("SIGTERM") else signal.SIGKILL)
        if self.how == "SIGTERM, then SIGKILL":
            time.sleep(self.delay / 2)
            ranks.signal(self.rank, signal.SIGKILL)
        ranks.wait(STOP_SECONDS)
        return True


def _seen(place: Path, rank: int) -> int:
    try:
        return int((place / f"seen-{rank}").read_text() or 0)
    except FileNotFoundError:
        return 0
