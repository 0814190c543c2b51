"""Metrics over steps as the library kept them on the volume: a line of JSON for a step. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.inspect.reading import NothingFoundError, find_runs
from sweeprun_operator.api.status import Attempt
from sweeprun_protocol.curve import MAX_BYTES, MAX_ROWS, decode_row
from sweeprun_protocol.layout import CURVE, RunLayout
from sweeprun_volume.errors import UnsafeEntryError, VolumeError
from sweeprun_volume.operations import Volume

Points = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One metric in one attempt."""

    attempt: Attempt
    metric: str
    points: Points


def read_lines(directory: Path, attempts: list[Attempt]) -> list[Line]:
    """Of the one run that lies in `directory` or below it, for the attempts that status knows. Raises CommandError."""
    try:
        found = find_runs(directory)
    except NothingFoundError as error:
        raise CommandError(Exit.USAGE, str(error)) from None
    if len(found) != 1:
        raise CommandError(Exit.USAGE, f"{len(found)} runs lie in {directory}: name the directory of one")
    volume = Volume(str(found[0].resolve()))
    return [line for attempt in attempts for line in _of_attempt(volume, attempt)]


def _of_attempt(volume: Volume, attempt: Attempt) -> Iterator[Line]:
    path = RunLayout("").curve(attempt.epoch)
    try:
        data = volume.read(path, limit=MAX_BYTES)
    except (UnsafeEntryError, VolumeError, OSError) as error:
        raise CommandError(Exit.USAGE, f"{CURVE} of epoch {attempt.epoch} cannot be read: {error}") from None
    points: dict[str, Points] = {}
    for row in map(decode_row, (data or b"").splitlines()[:MAX_ROWS]):
        if row is not None:
            step, metrics = row
            for metric, value in metrics.items():
                points.setdefault(metric, []).append((step, value))
    for metric, found in points.items():
        yield Line(attempt, metric, sorted(found))
