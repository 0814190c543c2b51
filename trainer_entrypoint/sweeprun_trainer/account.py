"""What W&B shows of a run's interruptions: the keys in its rows, summary and configuration, and what stands there.

docs/tracking.md has the same keys; a test compares both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.environ import HISTORY, PREVIOUS_WANDB_RUN
from sweeprun_protocol.history import COUNTS, PHASES, RunHistory

from .log import say

STEP = "trainer/global_step"
ATTEMPT = "sweeprun/attempt"
REPLAYED_FROM = "sweeprun/replayed_from"
REPLAYED_TO = "sweeprun/replayed_to"
ROW_KEYS = (STEP, ATTEMPT, REPLAYED_FROM, REPLAYED_TO)

PREVIOUS = "sweeprun/previous_wandb_run"
"""In the configuration."""

CAUSES = "sweeprun/causes"
PREVIOUS_RUN_IDS = "sweeprun/previous_run_ids"


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


COUNT_KEYS = {name: f"sweeprun/{_snake(name)}" for name in COUNTS}
SECONDS_KEYS = {name: f"sweeprun/recovery_seconds/{_snake(name)}" for name in PHASES}
SUMMARY_KEYS = (*COUNT_KEYS.values(), CAUSES, *SECONDS_KEYS.values(), PREVIOUS_RUN_IDS)


def summary(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """By SUMMARY_KEYS, from what the operator knew when this attempt began; empty where it said nothing."""
    text = environ.get(HISTORY)
    if not text:
        return {}
    try:
        history = RunHistory.decode(text, where=HISTORY)
    except RecordError as error:
        say(f"W&B is not told what happened to this run before: {error}")
        return {}
    values: dict[str, Any] = {COUNT_KEYS[name]: count for name, count in history.counts.items()}
    values.update({SECONDS_KEYS[name]: seconds for name, seconds in history.recovery_seconds.items()})
    if history.causes:
        values[CAUSES] = ", ".join(history.causes)
    if history.previous_run_ids:
        values[PREVIOUS_RUN_IDS] = ", ".join(history.previous_run_ids)
    return values


def linked(config: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """With the name of the W&B run that holds the beginning, where the attempt logs to another one."""
    previous = environ.get(PREVIOUS_WANDB_RUN)
    return {**config, PREVIOUS: previous} if previous else dict(config)
