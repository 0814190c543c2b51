"""Which schedules are run: every fault at every request of an undisturbed operator, and seeded sets of them."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from .schedule import READS, WATCHES, WRITES, Fault, Kind, Schedule

T = TypeVar("T")

WRITTEN = ("create-Job", "create-PyTorchJob", "delete-Job", "delete-PyTorchJob", "delete-Pod", "put-SweepRun")
LISTED = ("list-Job", "list-PyTorchJob", "list-Pod")
WATCHED = ("SweepRun", "Job", "PyTorchJob", "Pod")
BACK = (1, 2, 3, 5, 8)
OTHERS = (2, 9, 16)
"""Writes of its successor that a frozen process sleeps through: a few, or an attempt or two."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`-th of `count` parts, from 1: by name, so that machines need not agree on the whole."""

    number: int
    count: int

    @staticmethod
    def read(text: str) -> Shard:
        """Raises ValueError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"{text} is no part such as 1/4")
        return Shard(int(found[1]), int(found[2]))

    def has(self, schedule: Schedule) -> bool:
        return zlib.crc32(str(schedule).encode()) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def every(scenario: str, counts: Counter[str]) -> list[Schedule]:
    """`counts` are the requests of the undisturbed scenario."""
    return [Schedule(scenario, (fault,)) for fault in _faults(counts)]


def _faults(counts: Counter[str]) -> Iterator[Fault]:
    """Writes meet every fault; of reads, which are many and alike, each meets the next one in turn."""
    for request in WRITTEN:
        for ordinal in range(1, counts[request] + 1):
            yield from (Fault(kind, request, ordinal) for kind in (*WRITES, Kind.AWAY))
            yield from (Fault(kind, request, ordinal, _turn(OTHERS, ordinal)) for kind in (Kind.LATE, Kind.FREEZE))
    for request in ("create-Lease", "create-Event", "dry-PyTorchJob"):
        yield from (Fault(kind, request, 1) for kind in WRITES if counts[request])
    for ordinal, kind in enumerate(WRITES, 1):
        yield Fault(kind, "put-Lease", ordinal)
    for ordinal in range(1, counts["get-SweepRun"] + 1):
        yield Fault(_turn((Kind.STALE, Kind.SNAPSHOT), ordinal), "get-SweepRun", ordinal, _turn(BACK, ordinal // 2))
    for request in LISTED:
        for ordinal in range(1, counts[request] + 1, 3):
            yield Fault(_turn((*READS, Kind.GONE), ordinal // 3), request, ordinal)
        for ordinal in range(2, counts[request] + 1, 6):
            yield Fault(Kind.FREEZE, request, ordinal, _turn(OTHERS, ordinal // 6))
    for kind in WATCHED:
        yield from (Fault(fault, f"bell-watch-{kind}", 1) for fault in WATCHES)
    yield from (Fault(fault, "bell-list-Pod", 1) for fault in (Kind.ERROR, Kind.GONE, Kind.STALE, Kind.CUT))
    yield from (Fault(fault, "list-SweepRun", 1) for fault in (*READS, Kind.GONE))


def _turn(kinds: Sequence[T], ordinal: int) -> T:
    return kinds[ordinal % len(kinds)]


def several(schedules: list[Schedule], rng: Random, count: int) -> list[Schedule]:
    """Two or three faults at once, all of one scenario; requests that do not come are no fault."""
    by_scenario: dict[str, list[Schedule]] = {}
    for schedule in schedules:
        by_scenario.setdefault(schedule.scenario, []).append(schedule)
    made = []
    for _ in range(count):
        scenario = rng.choice(sorted(by_scenario))
        chosen = rng.sample(by_scenario[scenario], rng.choice((2, 2, 3)))
        made.append(Schedule(scenario, tuple(fault for one in chosen for fault in one.faults)))
    return made
