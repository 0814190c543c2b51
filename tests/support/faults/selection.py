"""Which schedules are run: every fault at every request of an undisturbed operator, and seeded sets of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

from .schedule import READS, WATCHES, WRITES, Fault, Kind, Schedule

WRITTEN = ("create-Job", "create-PyTorchJob", "delete-Job", "delete-PyTorchJob", "delete-Pod", "put-SweepRun")
LISTED = ("list-Job", "list-PyTorchJob", "list-Pod")
WATCHED = ("SweepRun", "Job", "PyTorchJob", "Pod")
BACK = (1, 2, 4)
OTHERS = (2, 9, 16)
"""Writes of its successor that a frozen process sleeps through: a few, or an attempt or two."""


def every(scenario: str, counts: Counter[str]) -> list[Schedule]:
    """`counts` are the requests of the undisturbed scenario."""
    return [Schedule(scenario, (fault,)) for fault in _faults(counts)]


def _faults(counts: Counter[str]) -> Iterator[Fault]:
    for request in WRITTEN:
        for ordinal in range(1, counts[request] + 1):
            yield from (Fault(kind, request, ordinal) for kind in (*WRITES, Kind.LATE, Kind.AWAY))
            yield from (Fault(Kind.FREEZE, request, ordinal, back) for back in OTHERS)
    for request in ("create-Lease", "create-Event", "dry-PyTorchJob"):
        yield from (Fault(kind, request, 1) for kind in WRITES if counts[request])
    for ordinal in range(1, counts["put-Lease"] + 1, 3):
        yield from (Fault(kind, "put-Lease", ordinal) for kind in WRITES)
    for ordinal in range(1, counts["get-SweepRun"] + 1):
        for kind in (Kind.STALE, Kind.SNAPSHOT):
            yield from (Fault(kind, "get-SweepRun", ordinal, back) for back in BACK)
        yield Fault(READS[ordinal % len(READS)], "get-SweepRun", ordinal)
    for request in LISTED:
        for ordinal in range(1, counts[request] + 1):
            yield Fault(READS[ordinal % len(READS)], request, ordinal)
            yield Fault(Kind.GONE, request, ordinal)
            yield Fault(Kind.FREEZE, request, ordinal, OTHERS[ordinal % len(OTHERS)])
    for kind in WATCHED:
        yield from (Fault(fault, f"bell-watch-{kind}", 1) for fault in WATCHES)
        yield from (Fault(fault, f"bell-list-{kind}", 1) for fault in (Kind.ERROR, Kind.GONE, Kind.STALE, Kind.CUT))
    yield from (Fault(fault, "list-SweepRun", 1) for fault in (*READS, Kind.GONE))


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
