"""Rows, rounds and sizes of the measurements."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """A measurement beside its target."""

    name: str
    value: float | None
    """None: skipped, `detail` says why."""
    target: float
    higher: bool
    """More is better."""
    unit: str
    detail: str = ""

    @staticmethod
    def at_least(name: str, value: float, target: float, unit: str, detail: str = "") -> Row:
        return Row(name, value, target, True, unit, detail)

    @staticmethod
    def at_most(name: str, value: float, target: float, unit: str, detail: str = "") -> Row:
        return Row(name, value, target, False, unit, detail)

    @staticmethod
    def skipped(name: str, why: str) -> Row:
        return Row(name, None, 0.0, True, "", why)

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.target if self.higher else self.value <= self.target

    def cells(self) -> tuple[str, ...]:
        if self.value is None:
            return self.name, "skipped", "", "", self.detail
        sign = ">=" if self.higher else "<="
        answer = "met" if self.met else "MISSED"
        return self.name, f"{self.value:.3g} {self.unit}", f"{sign} {self.target:g} {self.unit}", answer, self.detail


@dataclass(frozen=True)
class Took:
    """Seconds, of the clock and of all processors, of this process and of the children that it waited for."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """Two ways of doing the same, in pairs."""

    ours: tuple[Took, ...]
    theirs: tuple[Took, ...]

    @property
    def speedup(self) -> float:
        """How many times faster ours is: the median over the pairs."""
        return statistics.median(other.wall / one.wall for one, other in zip(self.ours, self.theirs, strict=True))

    def rates(self, size: int) -> str:
        """The best round of each, in GB/s, and of what the processors did, which neighbours disturb less."""
        wall, other = (min(took.wall for took in rounds) for rounds in (self.ours, self.theirs))
        cpu, other_cpu = (min(took.cpu for took in rounds) for rounds in (self.ours, self.theirs))
        gigabytes = size / 1e9
        return (
            f"best {gigabytes / wall:.1f} and {gigabytes / other:.1f} GB/s, "
            f"CPU {cpu / gigabytes:.3f} and {other_cpu / gigabytes:.3f} s/GB"
        )


@dataclass(frozen=True)
class Bench:
    place: Path
    """An empty directory, removed afterwards."""
    rounds: int

    def mib(self, name: str, default: int) -> int:
        """Bytes."""
        return int(os.environ.get(f"SWEEPRUN_BENCH_{name}_MIB", default)) * MIB

    def ratio(
        self, ours: Callable[[], object], theirs: Callable[[], object], *, before: Callable[[], object] = lambda: None
    ) -> Ratio:
        """Once each to warm up, then in turns, each first as often as the other; `before` each, uncounted."""
        ours()
        theirs()
        pairs = []
        for number in range(self.rounds):
            if number % 2:
                later = took(theirs, before)
                pairs.append((took(ours, before), later))
            else:
                pairs.append((took(ours, before), took(theirs, before)))
        return Ratio(tuple(one for one, _ in pairs), tuple(other for _, other in pairs))


def took(action: Callable[[], object], before: Callable[[], object] = lambda: None) -> Took:
    before()
    began, used = time.perf_counter(), _used()
    action()
    return Took(time.perf_counter() - began, _used() - used)


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def write_random(path: Path, size: int) -> None:
    """A block that is repeated: quick to make, and no file system here compresses."""
    block = os.urandom(min(size, 64 * MIB))
    with path.open("wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: size - at])
