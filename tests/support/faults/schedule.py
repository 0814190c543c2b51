"""What goes wrong, and when: a fault strikes the n-th request of a class, as the operator's processes make them.

A class is verb and kind: `create-Job`, `put-SweepRun`, `list-Pod`, `get-SweepRun`, `watch-Pod`. Requests of kopf's
watches have classes of their own: `bell-list-Pod`. Counting goes on over the deaths of a process.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    KILL_BEFORE = "kill-before"
    """The process dies, and its request never arrived."""
    KILL_AFTER = "kill-after"
    """The process dies right after its request was applied."""
    CONFLICT = "conflict"
    BUSY = "busy"
    """429 with Retry-After."""
    ERROR = "error"
    """500, nothing applied."""
    CUT = "cut"
    """Applied, and the connection ends without an answer."""
    DELAY = "delay"
    """It arrives late."""
    LATE = "late"
    """The process dies; its request arrives all the same, when its successor has gone on."""
    FREEZE = "freeze"
    """The process stands still until another one has taken its Lease, then goes on."""
    STALE = "stale"
    """The answer shows what was true some revisions ago."""
    SNAPSHOT = "snapshot"
    """The whole pass reads what was true some revisions ago: it was slow, or asleep, before it acted."""
    UNAUTHORIZED = "unauthorized"
    """401."""
    FORBIDDEN = "forbidden"
    """403."""
    GONE = "gone"
    """410: the revision, or the continue token, has expired."""
    BROKEN_410 = "error-410"
    """An ERROR event of code 410 in the stream."""
    BROKEN_500 = "error-500"
    DEAF = "deaf"
    """The watch stays open and tells of nothing any more for a while."""
    DROP = "drop"
    """Every second event of the watch is lost."""
    MERGE = "merge"
    """Events are held back, and only the last one of each object is told."""
    LAG = "lag"
    """Each event of the watch is told late, and the next one after it."""
    AWAY = "away"
    """The API server is away for a while: all connections end, none is accepted."""


WRITES = (Kind.KILL_BEFORE, Kind.KILL_AFTER, Kind.CONFLICT, Kind.BUSY, Kind.ERROR, Kind.CUT, Kind.DELAY)
READS = (Kind.KILL_BEFORE, Kind.BUSY, Kind.ERROR, Kind.CUT, Kind.DELAY)
WATCHES = (Kind.GONE, Kind.BROKEN_410, Kind.BROKEN_500, Kind.DEAF, Kind.DROP, Kind.MERGE, Kind.LAG, Kind.CUT)

_FAULT = re.compile(r"(?P<kind>[a-z0-9-]+)@(?P<request>[A-Za-z-]+)#(?P<ordinal>\d+)(?:~(?P<back>\d+))?")


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    request: str
    ordinal: int
    """From 1."""
    back: int = 1
    """Of stale answers: how many revisions ago; of late and frozen ones: after how many writes of others."""

    def __str__(self) -> str:
        back = f"~{self.back}" if self.kind in (Kind.STALE, Kind.SNAPSHOT, Kind.LATE, Kind.FREEZE) else ""
        return f"{self.kind}@{self.request}#{self.ordinal}{back}"

    @staticmethod
    def read(text: str) -> Fault:
        """Raises ValueError."""
        found = _FAULT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text} is no fault such as kill-after@create-Job#1")
        return Fault(Kind(found["kind"]), found["request"], int(found["ordinal"]), int(found["back"] or 1))


@dataclass(frozen=True, slots=True)
class Schedule:
    scenario: str
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return ":".join((self.scenario, *map(str, self.faults)))

    @staticmethod
    def read(text: str) -> Schedule:
        """Raises ValueError."""
        scenario, *faults = text.split(":")
        return Schedule(scenario, tuple(map(Fault.read, faults)))


class Ledger:
    """Counts the requests of one schedule and says which of them is struck."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self.pending = list(faults)
        self.struck: list[Fault] = []

    def next(self, request: str) -> Fault | None:
        self.counts[request] += 1
        for fault in self.pending:
            if fault.request == request and fault.ordinal == self.counts[request]:
                self.pending.remove(fault)
                self.struck.append(fault)
                return fault
        return None
