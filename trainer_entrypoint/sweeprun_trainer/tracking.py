"""The W&B run of a SweepRun: the same one in every attempt, no step twice, none missing, one writer.

Measured with W&B's own client (0.31): `allow` resumes at the last step it knows and drops what is logged below it; a
process that is killed loses the rows of its last seconds, which a checkpoint may be ahead of. So the newest rows travel
in the checkpoint, and those that W&B lacks are sent again. What cannot be sent at all is kept on the volume, as W&B's
client keeps an offline run.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Any, Callable, Optional

from .account import ATTEMPT, REPLAYED_FROM, REPLAYED_TO, STEP, linked, summary
from .log import say

KEPT_ROWS = 2000
"""Rows in a checkpoint; W&B's client sends every 15 s at the latest, so that fewer are ever in flight."""
INIT_TIMEOUT = "WANDB_INIT_TIMEOUT"
INIT_SECONDS = "60"
"""The other ranks wait meanwhile: less than W&B's own 90 s, unless the environment says otherwise."""

FINISH_TIMEOUT = "WANDB_FINISH_TIMEOUT"
FINISH_SECONDS = 60.0
"""Without a limit W&B's client waits for a dead server for ever, at the end of training as anywhere else."""

Row = tuple[int, int, dict[str, float]]
"""Step, the attempt that computed it, values."""
Heard = Callable[[int, dict[str, float]], None]
Keep = Callable[[], Any]
"""Opens an offline run on the volume."""
Tell = Callable[[Mapping[str, Any]], object]
"""Tells the entrypoint whether W&B takes what is logged."""


def _nobody(_message: Mapping[str, Any]) -> None:
    """Outside a pod of ours."""


class Tracker:
    """Logs on rank 0, and nowhere where W&B is off or not installed: training goes on without it."""

    def __init__(self, run: Optional[Any], *, attempt: int, keep: Optional[Keep] = None, tell: Tell = _nobody) -> None:
        self._run = run
        self._tell = tell
        self._keep = keep
        self._attempt = attempt
        self._odd: set[str] = set()
        self._known = int(run.starting_step) if run is not None else 0
        """Steps below it are W&B's from attempts before."""
        self._next = self._known
        self._replayed: Optional[tuple[int, int]] = None
        """First and last step that this attempt computes again, until it is noted."""
        self._told: dict[str, Any] = {}
        self.heard: Optional[Heard] = None
        """Told of every row that this attempt computes, W&B or not."""
        self._rows: deque[Row] = deque(maxlen=KEPT_ROWS)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row for each step, in rising order. What W&B has already is not sent again."""
        step = int(step)  # as the values: what a checkpoint holds has to be plain
        row = self._numbers(metrics)
        self._rows.append((step, self._attempt, row))
        if self.heard is not None:
            self.heard(step, row)
        if step < self._known:
            first = step if self._replayed is None else self._replayed[0]
            self._replayed = (first, step)
        else:
            self._send(step, self._attempt, {**row, **self._note()})

    def _send(self, step: int, attempt: int, row: Mapping[str, float]) -> None:
        if self._run is None or step < self._next:
            return
        self._next = step + 1
        try:
            # explicit and committed at once: a row that waits for the next step is lost with the process
            self._run.log({**row, STEP: step, ATTEMPT: attempt}, step=step, commit=True)
        except Exception as error:  # noqa: BLE001 - the client raises what it likes, and none of it ends training
            self._lose(error)

    def _note(self) -> dict[str, int]:
        """Once, in the first row after steps that were computed again: their first values stay in W&B."""
        replayed, self._replayed = self._replayed, None
        return {} if replayed is None else {REPLAYED_FROM: replayed[0], REPLAYED_TO: replayed[1]}

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
        self._told.update(values)
        if self._run is None:
            return
        try:
            self._run.summary.update(dict(values))
        except Exception as error:  # noqa: BLE001 - as above
            self._lose(error)

    def finish(self, exit_code: int) -> None:
        """Waits until W&B has everything, or until that is on the volume. A code other than 0 leaves the run open for
        the next attempt."""
        if self._replayed is not None:
            self.summarize(self._note())
        run = self._run
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - as above
            self._lose(error)
            self._finish_kept(exit_code)
        self._run = None

    def _finish_kept(self, exit_code: int) -> None:
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - as above
            say(f"the end of the W&B run could not be kept: {error}")

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [[step, attempt, dict(row)] for step, attempt, row in self._rows]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Sends what W&B lacks of the rows before the checkpoint."""
        for step, attempt, row in state_dict["rows"]:
            self._rows.append((step, attempt, row))
            self._send(step, attempt, row)

    def _lose(self, error: Exception) -> None:
        """From now on on the volume, from the oldest row at hand: which of them W&B has is not known."""
        say(f"W&B is lost, training goes on without it: {type(error).__name__}: {error}")
        self._tell({"tracked": False})
        keep, self._keep = self._keep, None
        self._run = keep() if keep is not None else None
        if self._run is None:
            return
        self._known = self._next = 0
        self.summarize(self._told)
        for step, attempt, row in tuple(self._rows):
            self._send(step, attempt, row)


def begin(
    *,
    leads: bool,
    attempt: int,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    finish_seconds: float = FINISH_SECONDS,
    directory: Optional[str] = None,
    tell: Tell = _nobody,
) -> Tracker:
    """The environment says which run, since W&B heeds nothing else inside sweeps; the caller says what it is like.

    Args:
        directory: where what W&B does not take is kept; None: nowhere.
    """
    nobody = Tracker(None, attempt=attempt)
    if not leads or not os.environ.get("WANDB_PROJECT") or os.environ.get("WANDB_MODE") == "disabled":
        return nobody
    try:
        import wandb
    except ImportError:
        say("wandb is not installed in this image: nothing is logged to W&B")
        return nobody
    except Exception as error:  # noqa: BLE001 - a package that does not fit the others fails as it likes
        say(f"wandb cannot be imported, nothing is logged to W&B: {type(error).__name__}: {error}")
        return nobody

    def keep() -> Optional[Any]:
        return _keep(wandb, directory, config, settings) if directory is not None else None

    try:
        limits = wandb.Settings(init_timeout=float(os.environ.get(INIT_TIMEOUT) or INIT_SECONDS))
        if hasattr(limits, "finish_timeout"):  # newer clients
            limits.finish_timeout = float(os.environ.get(FINISH_TIMEOUT) or finish_seconds)
        if hasattr(limits, "finish_timeout_raises"):
            limits.finish_timeout_raises = True
        run = _open(wandb, config, {**settings, "settings": limits})
        tracker = Tracker(run, attempt=attempt, keep=keep, tell=tell)
        tell({"tracked": True})
    except Exception as error:  # noqa: BLE001 - refused keys, dead servers, full disks: training does not depend on it
        say(f"W&B cannot be used, training goes on without it: {type(error).__name__}: {error}")
        tracker = Tracker(keep(), attempt=attempt, tell=tell)
        tell({"tracked": False})
    tracker.summarize(summary())
    return tracker


def _open(wandb: Any, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    run = wandb.init(config=linked(config), **settings)
    # charts over the step of the training, whoever computed it; every row has it, and the attempt's number too
    run.define_metric("*", step_metric=STEP)
    return run


def _keep(wandb: Any, directory: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Optional[Any]:
    """An offline run of the same ID in `directory`; None where that fails as well."""
    try:
        wandb.teardown()  # its helper process still holds the run that failed
        run = _open(wandb, config, {**settings, "mode": "offline", "dir": directory})
    except Exception as error:  # noqa: BLE001 - as above
        say(f"what W&B lacks cannot be kept in {directory}: {type(error).__name__}: {error}")
        return None
    say(f"what W&B lacks is kept in {directory}: `sweeprun tracking sync` sends it")
    return run
