"""The W&B run of a SweepRun: the same one in every attempt, no step twice, none missing, one writer.

Measured with W&B's own client (0.31): `allow` resumes at the last step it knows and drops what is logged below it; a
process that is killed loses the rows of its last seconds, which a checkpoint may be ahead of. So the newest rows travel
in the checkpoint, and those that W&B lacks are sent again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Any, Optional

from sweeprun_protocol.environ import PREVIOUS_WANDB_RUN

from .log import say

STEP = "trainer/global_step"
PREVIOUS = "sweeprun/previous_wandb_run"
KEPT_ROWS = 2000
"""Rows in a checkpoint; W&B's client sends every 15 s at the latest, so that fewer are ever in flight."""
INIT_TIMEOUT = "WANDB_INIT_TIMEOUT"
INIT_SECONDS = "60"
"""The other ranks wait meanwhile: less than W&B's own 90 s, unless the environment says otherwise."""

FINISH_TIMEOUT = "WANDB_FINISH_TIMEOUT"
FINISH_SECONDS = 60.0
"""Without a limit W&B's client waits for a dead server for ever, at the end of training as anywhere else."""

Row = tuple[int, dict[str, float]]


class Tracker:
    """Logs on rank 0, and nowhere where W&B is off, not installed, or away: training goes on without it."""

    def __init__(self, run: Optional[Any], *, attempt: int) -> None:
        self._run = run
        self._attempt = attempt
        self._odd: set[str] = set()
        self._next = int(run.starting_step) if run is not None else 0
        self._rows: deque[Row] = deque(maxlen=KEPT_ROWS)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row for each step, in rising order. What W&B has already is not sent again."""
        step = int(step)  # as the values: what a checkpoint holds has to be plain
        row = self._numbers(metrics)
        self._rows.append((step, row))
        if self._run is None or step < self._next:
            return
        self._next = step + 1
        try:
            # explicit and committed at once: a row that waits for the next step is lost with the process
            self._run.log({**row, STEP: step, "sweeprun/attempt": self._attempt}, step=step, commit=True)
        except Exception as error:  # noqa: BLE001 - the client raises what it likes, and none of it ends training
            self._lose(error)

    def _numbers(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        row = {str(name): self._number(str(name), value) for name, value in metrics.items()}
        return {name: value for name, value in row.items() if value is not None}

    def _number(self, name: str, value: Any) -> Optional[float]:
        try:
            return float(value)
        except Exception as error:  # noqa: BLE001 - after days of training a metric is not worth its end
            if name not in self._odd:
                self._odd.add(name)
                say(f"metric {name} is not logged: {type(value).__name__} is no number: {error}")
            return None

    def summarize(self, values: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        try:
            self._run.summary.update(dict(values))
        except Exception as error:  # noqa: BLE001 - as above
            self._lose(error)

    def finish(self, exit_code: int) -> None:
        """Waits until W&B has everything. A code other than 0 leaves the run open for the next attempt."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - as above
            say(f"W&B did not take the end of the run: {error}")

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [[step, dict(row)] for step, row in self._rows]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Sends what W&B lacks of the rows before the checkpoint."""
        for step, row in state_dict["rows"]:
            self.log(step, row)

    def _lose(self, error: Exception) -> None:
        self._run = None
        say(f"W&B is lost, training goes on without it: {type(error).__name__}: {error}")


def begin(
    *,
    leads: bool,
    attempt: int,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    finish_seconds: float = FINISH_SECONDS,
) -> Tracker:
    """The environment says which run, since W&B heeds nothing else inside sweeps; the caller says what it is like."""
    if not leads or not os.environ.get("WANDB_PROJECT") or os.environ.get("WANDB_MODE") == "disabled":
        return Tracker(None, attempt=attempt)
    try:
        import wandb
    except ImportError:
        say("wandb is not installed in this image: nothing is logged to W&B")
        return Tracker(None, attempt=attempt)
    except Exception as error:  # noqa: BLE001 - a package that does not fit the others fails as it likes
        say(f"wandb cannot be imported, nothing is logged to W&B: {type(error).__name__}: {error}")
        return Tracker(None, attempt=attempt)
    try:
        limits = wandb.Settings(init_timeout=float(os.environ.get(INIT_TIMEOUT) or INIT_SECONDS))
        if hasattr(limits, "finish_timeout"):  # newer clients
            limits.finish_timeout = float(os.environ.get(FINISH_TIMEOUT) or finish_seconds)
        run = wandb.init(config=_linked(config), settings=limits, **dict(settings))
        return Tracker(run, attempt=attempt)
    except Exception as error:  # noqa: BLE001 - refused keys, dead servers, full disks: training does not depend on it
        say(f"W&B cannot be used, training goes on without it: {type(error).__name__}: {error}")
        return Tracker(None, attempt=attempt)


def _linked(config: Mapping[str, Any]) -> dict[str, Any]:
    """With the name of the W&B run that holds the beginning, where the attempt logs to another one."""
    previous = os.environ.get(PREVIOUS_WANDB_RUN)
    return {**config, PREVIOUS: previous} if previous else dict(config)
