"""What --evict-after, --kill-after and --corrupt do."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .cluster import LocalCluster
from .progress import Steps
from .store import Raw

_TRIGGER = re.compile(r"(\d+(?:\.\d+)?)s|(\d+)")


class Means(StrEnum):
    EVICT = "evicted"
    KILL = "killed"


class Damage(StrEnum):
    NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Fault:
    """Once, to one pod: when a step is reached, or some time after all pods run."""

    means: Means
    step: int | None
    seconds: float | None

    @staticmethod
    def parse(means: Means, text: str) -> Fault:
        """`500` is a step, `5s` a time. Raises ValueError."""
        match = _TRIGGER.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is neither a step, as 500, nor seconds, as 5s")
        seconds, step = match.groups()
        return Fault(means, int(step) if step else None, float(seconds) if seconds else None)

    def __str__(self) -> str:
        return f"at step {self.step}" if self.step is not None else f"after {self.seconds:g} s"


class Disturber:
    """Looks at every progress report and strikes when a fault is due; the last pod is hit, never the master first."""

    def __init__(self, cluster: LocalCluster, faults: list[Fault], *, pods: int) -> None:
        """`pods` is how many an attempt has: a time runs from when all of them do."""
        self._cluster = cluster
        self._due = list(faults)
        self._pods = pods
        self._all_running: float | None = None

    @property
    def waiting(self) -> list[Fault]:
        """Faults that have not happened."""
        return list(self._due)

    def look(self, steps: Steps) -> None:
        if self._all_running is None and steps.running >= self._pods:
            self._all_running = time.monotonic()
        for fault in list(self._due):
            if self._is_due(fault, steps) and self._strike(fault):
                self._due.remove(fault)

    def _is_due(self, fault: Fault, steps: Steps) -> bool:
        if fault.step is not None:
            return steps.step is not None and steps.step >= fault.step
        assert fault.seconds is not None, "a fault has a step or a time"
        return self._all_running is not None and time.monotonic() - self._all_running >= fault.seconds

    def _strike(self, fault: Fault) -> bool:
        pods: list[Raw] = self._cluster.trainers(running=True)
        if not pods:
            return False
        return self._cluster.evict(pods[-1]) if fault.means is Means.EVICT else self._cluster.kill(pods[-1])


def flip_bit(checkpoint: Path) -> Path:
    """Flip one bit in the middle of the largest file of a checkpoint (a directory, or one file). Gives that file."""
    files = [path for path in checkpoint.rglob("*") if path.is_file()] if checkpoint.is_dir() else [checkpoint]
    victim = max(files, key=lambda path: path.stat().st_size)
    with victim.open("r+b") as target:
        middle = os.fstat(target.fileno()).st_size // 2
        target.seek(middle)
        byte = target.read(1)[0]
        target.seek(middle)
        target.write(bytes([byte ^ 0x10]))
    return victim


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint below a checkpoint directory by its time, whatever its format; None: there is none."""
    found = [
        path
        for path in directory.glob("*")
        if not path.name.startswith(".") and (path.is_dir() or path.suffix in (".pt", ".pth", ".ckpt", ".bin"))
    ]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
