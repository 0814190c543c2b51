"""What happened to a run before an attempt, in one variable: no pod reads the API, and W&B shows it.

It is for people. What cannot be read of it is left out, and stops nothing.
"""

from __future__ import annotations

from typing import Any

from .codec import Fields, dump, parse
from .frozen import dataclass

MAX_HISTORY_BYTES = 4096
MAX_CAUSES = 10
MAX_PREVIOUS_RUNS = 5
MAX_NAME = 64
PHASES = ("detect", "drain", "prepare", "validation", "queue", "start", "firstStep")
"""Of a recovery, in their order; validation is a part of prepare."""
COUNTS = (
    "attempts",
    "resumes",
    "restarts",
    "freshStarts",
    "disruptions",
    "failures",
    "neverStarted",
    "stepsKept",
    "stepsRepeated",
    "gpuSecondsKept",
)


@dataclass(frozen=True)
class RunHistory:
    counts: dict[str, int]
    """By the names of COUNTS, this attempt included."""
    causes: list[str]
    """Why the last attempts ended, newest last; MAX_CAUSES at most."""
    recovery_seconds: dict[str, float]
    """By the names of PHASES: sums over the recoveries that led to the last MAX_CAUSES attempts, this one's included as
    far as they are known before it starts."""
    previous_run_ids: list[str]
    """Runs that were given up for this one, newest last."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "causes": self.causes,
            "recoverySeconds": self.recovery_seconds,
            "previousRunIds": self.previous_run_ids,
        }

    def encode(self) -> str:
        return dump(self.to_dict()).decode("ascii").rstrip("\n")

    @staticmethod
    def decode(text: str, *, where: str) -> RunHistory:
        """Raises RecordError."""
        fields = Fields(parse(text.encode("utf-8", "surrogateescape"), where=where, limit=MAX_HISTORY_BYTES), where)
        counts = fields.record("counts", Fields)
        seconds = fields.record("recoverySeconds", Fields)
        return RunHistory(
            counts={name: counts.integer(name) for name in COUNTS if counts.has(name)},
            causes=fields.texts("causes", most=MAX_CAUSES, longest=MAX_NAME),
            recovery_seconds={name: seconds.number(name) for name in PHASES if seconds.has(name)},
            previous_run_ids=fields.texts("previousRunIds", most=MAX_PREVIOUS_RUNS, longest=MAX_NAME),
        )
