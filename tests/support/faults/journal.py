"""What a campaign has planned and done, on disk where it is to go on another time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .campaign import Told
from .schedule import Schedule


class Journal:
    """Lines of JSON: the plan first, since undisturbed runs differ by a request or two; then what was done."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.planned: list[Schedule] = []
        self.done: dict[str, list[str]] = {}
        """The violations of each schedule, by its name."""
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            self._read(json.loads(line))

    def _read(self, line: dict[str, Any]) -> None:
        if "plan" in line:
            self.planned = [Schedule.read(name) for name in line["plan"]]
        else:
            self.done[line["schedule"]] = line["violations"]

    def plan(self, schedules: list[Schedule]) -> None:
        self.planned = schedules
        self._write({"plan": [str(schedule) for schedule in schedules]})

    def note(self, told: Told) -> None:
        self.done[str(told.schedule)] = told.violations
        self._write(
            {
                "schedule": str(told.schedule),
                "violations": told.violations,
                "struck": told.struck,
                "lives": told.lives,
                "seconds": round(told.seconds, 1),
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    @property
    def left(self) -> list[Schedule]:
        return [schedule for schedule in self.planned if str(schedule) not in self.done]

    @property
    def diverged(self) -> list[str]:
        return [name for name, violations in self.done.items() if violations]

    def __str__(self) -> str:
        planned = f" of {len(self.planned)}" if self.planned else ""
        return f"{len(self.done)}{planned} schedules, {len(self.diverged)} divergences"
