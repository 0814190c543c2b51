"""The interval between checkpoints that loses the least time. Pure.

J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974; J. T. Daly, "A higher
order estimate of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.history import recovery_seconds
from sweeprun_operator.api.status import Attempt, State

FEW = 5
"""With fewer interruptions the mean between them may be wrong by half and more."""


def young_seconds(save_seconds: float, between_seconds: float) -> float:
    """sqrt(2 C M), for a save cost C and a mean time M between interruptions."""
    return math.sqrt(2 * save_seconds * between_seconds)


def daly_seconds(save_seconds: float, between_seconds: float) -> float:
    """Daly's equation 37; M where a save takes longer than half of M, since nothing can be won then."""
    if save_seconds >= 2 * between_seconds:
        return between_seconds
    share = save_seconds / (2 * between_seconds)
    return young_seconds(save_seconds, between_seconds) * (1 + math.sqrt(share) / 3 + share / 9) - save_seconds


def lost_share(interval_seconds: float, save_seconds: float, between_seconds: float) -> float:
    """Share of the running time that goes into saves and into repeating half an interval per interruption."""
    return save_seconds / (interval_seconds + save_seconds) + interval_seconds / (2 * between_seconds)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a status tells; None: it does not."""

    running_seconds: float
    interruptions: int
    repeated_steps: int
    step_seconds: float | None
    recovery_seconds: float | None
    """Mean of the recoveries that were measured."""

    @staticmethod
    def of(run: Run, now: datetime) -> Measured:
        status, current = run.status, run.status.current
        running = float(status.running_seconds)
        if current is not None and current.state is State.RUNNING and current.running_time is not None:
            running += max(0.0, (now - current.running_time).total_seconds())
        recoveries = [recovery_seconds(one.seconds) for one in status.history if one.attempt]
        known = [seconds for seconds in recoveries if seconds is not None]
        return Measured(
            running_seconds=running,
            interruptions=status.counts.disruptions + status.counts.failures,
            repeated_steps=status.savings.steps_repeated,
            step_seconds=_step_seconds(status.history),
            recovery_seconds=sum(known) / len(known) if known else None,
        )

    @property
    def between_seconds(self) -> float | None:
        """Mean running time between interruptions."""
        return self.running_seconds / self.interruptions if self.interruptions and self.running_seconds else None

    @property
    def repeated_seconds(self) -> float | None:
        """Per interruption."""
        if self.step_seconds is None or not self.interruptions:
            return None
        return self.repeated_steps * self.step_seconds / self.interruptions

    @property
    def interval_seconds(self) -> float | None:
        """An interruption at a random moment costs half an interval: twice what was repeated is a guess at it."""
        return 2 * self.repeated_seconds if self.repeated_seconds else None


def _step_seconds(history: list[Attempt]) -> float | None:
    """Running time for each step, over the attempts whose steps and times are known."""
    steps, seconds = 0, 0.0
    for one in history:
        if one.start_time is None or one.end_time is None or one.to_step is None:
            continue
        done = one.to_step - (one.from_step or 0)
        took = (one.end_time - one.start_time).total_seconds() - (one.seconds.queue or 0) - (one.seconds.start or 0)
        if done > 0 and took > 0:
            steps, seconds = steps + done, seconds + took
    return seconds / steps if steps else None
