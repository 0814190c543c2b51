"""Metrics over steps that the library keeps for people: a line of JSON for a step, in `epochs/<E>/metrics.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Optional

from .layout import MAX_STEP

MAX_ROWS = 2000
MAX_METRICS = 16
MAX_NAME = 64
MAX_BYTES = 4 << 20
"""More than so many rows take."""
_LARGEST = 1e300
"""Differences and ratios of such values are still numbers."""


def encode_row(step: int, metrics: Mapping[str, float]) -> bytes:
    """The first MAX_METRICS that are numbers and have short names."""
    kept = {name: value for name, value in metrics.items() if _fits(name, value)}
    return json.dumps({"step": step, "metrics": dict(list(kept.items())[:MAX_METRICS])}).encode() + b"\n"


def decode_row(line: bytes) -> Optional[tuple[int, dict[str, float]]]:
    """None where the line is none, or was cut off: what it would have said is left out."""
    try:
        row = json.loads(line)
        step, metrics = row["step"], list(row["metrics"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if type(step) is not int or not 0 <= step <= MAX_STEP:
        return None
    return step, {name: float(value) for name, value in metrics[:MAX_METRICS] if _fits(name, value)}


def _fits(name: str, value: object) -> bool:
    if type(value) not in (int, float):
        return False
    return len(name) <= MAX_NAME and abs(value) < _LARGEST and math.isfinite(value)  # type: ignore[arg-type]
