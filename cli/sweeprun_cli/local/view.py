"""What people see while runs go on: bars and the last events on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeprun_operator.api.status import State

from .picture import Note, Picture

LAST_NOTES = 8
REFRESH_PER_SECOND = 8

_WORDS = {
    State.PREPARING: "looking at the volume",
    State.INITIALIZING: "sweep_init runs",
    State.BACKOFF: "waits a moment",
    State.STARTING: "starting",
    State.RUNNING: "training",
    State.DRAINING: "the interrupted attempt is leaving",
    State.HELD: "suspended",
    State.FINISHED: "finished",
}


class Viewer:
    """Shows any number of pictures; notes become lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pictures: list[Picture] = []
        self._began: datetime | None = None

    def add(self, picture: Picture) -> None:
        self._pictures.append(picture)

    def told(self, name: str, note: Note) -> None:
        if self._console.is_terminal:
            return
        if self._began is None:
            self._began = note.time
        seconds = (note.time - self._began).total_seconds()
        mark = "WARNING " if note.is_warning else ""
        # One line each, however wide: logs are searched by line.
        self._console.print(
            f"{seconds:7.1f}s  {name}: {mark}{note.text}", markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def showing(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND):
            yield

    def _render(self) -> RenderableType:
        return Group(*(render(picture) for picture in self._pictures))


def render(picture: Picture) -> RenderableType:
    return Group(_headline(picture), Padding(_bar(picture), (0, 0, 0, 2)), Padding(_notes(picture), (0, 0, 1, 2)))


def _headline(picture: Picture) -> Text:
    current = picture.status.current
    text = Text.from_markup(f"[bold]{escape(picture.name)}[/]  ")
    if current is None:
        return text.append("not begun", style="dim")
    text.append(_WORDS[current.state], style="green" if current.state is State.RUNNING else "yellow")
    text.append(f"  attempt {current.attempt}", style="dim")
    if picture.status.history and picture.status.history[-1].from_step is not None:
        text.append(f", went on from step {picture.status.history[-1].from_step}", style="dim")
    return text


def _bar(picture: Picture) -> RenderableType:
    ended, step = picture.status.result, picture.steps.step
    if ended is not None and ended.step is not None:
        step = ended.step
    elif step is None:
        step = max(picture.furthest.values(), default=0)
    total = picture.total_steps
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=total or 100, completed=step if total else 0, width=40, pulse=not total)
    row.add_row(bar, f"step {step}" + (f" of {total}" if total else ""))
    return row


def _notes(picture: Picture) -> RenderableType:
    rows = Table.grid(padding=(0, 1))
    for note in picture.notes[-LAST_NOTES:]:
        seconds = (note.time - picture.started).total_seconds()
        style = "yellow" if note.is_warning else ""
        rows.add_row(
            Text(f"{seconds:6.1f}s", style="dim"), Text(note.text, style=style, overflow="ellipsis", no_wrap=True)
        )
    return rows
