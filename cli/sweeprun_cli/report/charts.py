"""The pictures: attempts in time, steps in time, recovery by phase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.plain import duration, moment
from sweeprun_operator.api.status import Attempt, Kind, PhaseSeconds

from .markup import Child, Markup, element, figure
from .metrics import Line

WIDTH, LEFT, RIGHT = 960.0, 170.0, 20.0
LANE, BAR = 34.0, 22.0
PLOT_HEIGHT = 260.0
LABEL_CHARACTERS = 24
TICKS = 5
RUNNING = "running"
PHASES = ("detect", "drain", "prepare", "queue", "start", "first_step")
"""One after the other; validation is a part of prepare."""
COLOURS: dict[Kind | None, str] = {
    Kind.COMPLETION: "completion",
    Kind.DISRUPTION: "disruption",
    Kind.FAILURE: "failure",
    Kind.NEVER_STARTED: "never-started",
    Kind.NEUTRAL: "neutral",
    None: RUNNING,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt in time."""

    attempt: Attempt
    begin: datetime
    end: datetime

    @property
    def label(self) -> str:
        return str(self.attempt.cause) if self.attempt.cause is not None else "not ended"

    @property
    def told(self) -> str:
        where = f" on {self.attempt.node}" if self.attempt.node else ""
        steps = f"step {self.attempt.from_step or 0} to {optional_step(self.attempt.to_step)}"
        return (
            f"Attempt {self.attempt.attempt}: {moment(self.begin)} to {moment(self.end)}, {self.label}{where}, {steps}"
        )


def optional_step(step: int | None) -> str:
    return "unknown" if step is None else str(step)


def bars(run: Run, now: datetime) -> list[Bar]:
    """Attempts whose beginning is known; one that goes on ends now."""
    ended = run.status.completion_time or now
    return [
        Bar(one, one.start_time, max(one.start_time, one.end_time or ended))
        for one in run.status.history
        if one.start_time is not None
    ]


@dataclass(frozen=True, slots=True)
class Axis:
    """Time from left to right."""

    begin: datetime
    seconds: float

    @staticmethod
    def of(found: Sequence[Bar]) -> Axis:
        begin = min(bar.begin for bar in found)
        return Axis(begin, max(1.0, *((bar.end - begin).total_seconds() for bar in found)))

    def x(self, time: datetime) -> float:
        share = (time - self.begin).total_seconds() / self.seconds
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    def ticks(self, bottom: float) -> Iterator[Markup]:
        for number in range(TICKS + 1):
            after = self.seconds * number / TICKS
            x = self.x(self.begin + timedelta(seconds=after))
            yield element("line", x1=x, x2=x, y1=0, y2=bottom, class_="grid")
            anchor = "start" if number == 0 else "end" if number == TICKS else "middle"
            yield element("text", f"+{duration(after)}", x=x, y=bottom + 16, text_anchor=anchor, class_="tick")


def timeline(title: str, lanes: Sequence[tuple[str, Sequence[Bar]]]) -> Markup | None:
    """A lane for each name; None where no beginning is known."""
    everything = [bar for _, found in lanes for bar in found]
    if not everything:
        return None
    axis, bottom = Axis.of(everything), LANE * len(lanes)
    drawn: list[Child] = list(axis.ticks(bottom))
    for number, (name, found) in enumerate(lanes):
        top = LANE * number + (LANE - BAR) / 2
        drawn.append(element("text", _clip(name), x=LEFT - 8, y=top + BAR * 0.7, text_anchor="end", class_="label"))
        drawn += [_bar(axis, bar, top) for bar in found]
    text = f"From {moment(axis.begin)}, over {duration(axis.seconds)}. The table below says the same."
    return figure(title, text, WIDTH, bottom + 24, *drawn)


def _bar(axis: Axis, bar: Bar, top: float) -> Markup:
    left, right = axis.x(bar.begin), axis.x(bar.end)
    width = max(2.0, right - left)
    kind = f"bar {COLOURS[bar.attempt.kind]}"
    shape = element("rect", x=left, y=top, width=width, height=BAR, rx=3, class_=kind)
    fits = width > 8 * len(bar.label)
    text = element("text", bar.label, x=left + 5, y=top + BAR * 0.7, class_="inside") if fits else None
    return element("g", element("title", bar.told), shape, text)


def steps(title: str, run: Run, now: datetime) -> Markup | None:
    """Step over time across attempts; what was repeated drops straight down. None where no step is known."""
    found = bars(run, now)
    points = [_points(run, bar) for bar in found]
    highest = max((step for line in points for _, step in line), default=0)
    if not found or highest == 0:
        return None
    axis = Axis.of(found)
    drawn: list[Child] = list(axis.ticks(PLOT_HEIGHT))

    def y(step: int) -> float:
        return PLOT_HEIGHT - step / highest * (PLOT_HEIGHT - 12)

    drawn += _grid((y(step), str(step)) for step in (0, highest // 2, highest))
    before: tuple[datetime, int] | None = None
    for bar, line in zip(found, points, strict=True):
        if before is not None:
            (left, high), (right, low) = before, line[0]
            lost = f"{max(0, high - low)} steps repeated by attempt {bar.attempt.attempt}"
            places = f"M {axis.x(left):.1f} {y(high):.1f} L {axis.x(right):.1f} {y(low):.1f}"
            drawn.append(element("g", element("title", lost), element("path", d=places, class_="lost")))
        drawn.append(_line([(axis.x(time), y(step)) for time, step in line], bar.attempt, bar.told))
        before = line[-1]
    text = f"Steps 0 to {highest}. A dashed line is an interruption: it falls to the step that was resumed from."
    return figure(title, text, WIDTH, PLOT_HEIGHT + 24, *drawn)


def _points(run: Run, bar: Bar) -> list[tuple[datetime, int]]:
    """From its base; to the highest step that was seen of it, or where it is now, if that is known."""
    base = bar.attempt.from_step or 0
    line = [(bar.begin, base)]
    progress = run.status.progress
    if bar.attempt.to_step is not None:
        line.append((bar.end, max(base, bar.attempt.to_step)))
    elif bar.attempt is run.status.history[-1] and progress is not None and progress.time >= bar.begin:
        line.append((min(progress.time, bar.end), max(base, progress.step)))
    return line


def _grid(marks: Iterable[tuple[float, str]]) -> Iterator[Child]:
    """Lines across the plot, by height and label."""
    for y, label in marks:
        yield element("text", label, x=LEFT - 8, y=y + 4, text_anchor="end", class_="tick")
        yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")


def _line(places: Sequence[tuple[float, float]], attempt: Attempt, told: str) -> Markup:
    path = " L ".join(f"{x:.1f} {y:.1f}" for x, y in places)
    shape = element("path", d=f"M {path}", class_=f"steps {COLOURS[attempt.kind]}")
    return element("g", element("title", told), shape)


def curves(title: str, lines: Sequence[Line]) -> Markup | None:
    """One metric over steps, a line for each attempt: what was repeated lies over what it repeats."""
    points = [point for line in lines for point in line.points]
    if not points:
        return None
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    drawn: list[Child] = []

    def x(step: int) -> float:
        return LEFT + (step - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return PLOT_HEIGHT - 6 - (value - low) / ((high - low) or 1.0) * (PLOT_HEIGHT - 18)

    drawn += _grid((y(value), f"{value:.4g}") for value in dict.fromkeys((low, (low + high) / 2, high)))
    for step, anchor in {first: "start", last: "end"}.items():
        drawn.append(element("text", f"step {step}", x=x(step), y=PLOT_HEIGHT + 16, text_anchor=anchor, class_="tick"))
    for line in lines:
        told = f"Attempt {line.attempt.attempt}: {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
        drawn.append(_line([(x(step), y(value)) for step, value in line.points], line.attempt, told))
    text = f"Steps {first} to {last}; {low:.4g} to {high:.4g}. The table below has each attempt's last value."
    return figure(title, text, WIDTH, PLOT_HEIGHT + 24, *drawn)


def recovery(title: str, attempts: Sequence[Attempt]) -> Markup | None:
    """A bar for each recovery, in phases. None where none was measured."""
    measured = [one for one in attempts if one.attempt and any(_phases(one.seconds).values())]
    if not measured:
        return None
    longest = max(sum(_phases(one.seconds).values()) for one in measured)
    drawn: list[Child] = []
    for number, one in enumerate(measured):
        top, left = LANE * number + (LANE - BAR) / 2, LEFT
        name = f"attempt {one.attempt}"
        drawn.append(element("text", name, x=LEFT - 8, y=top + BAR * 0.7, text_anchor="end", class_="label"))
        for phase, seconds in _phases(one.seconds).items():
            width = seconds / longest * (WIDTH - LEFT - RIGHT - 90)
            told = element("title", f"{phase.replace('_', ' ')}: {duration(seconds)}")
            kind = f"bar phase-{phase.replace('_', '-')}"
            drawn.append(element("g", told, element("rect", x=left, y=top, width=width, height=BAR, class_=kind)))
            left += width
        total = duration(sum(_phases(one.seconds).values()))
        drawn.append(element("text", total, x=left + 6, y=top + BAR * 0.7, class_="label"))
    text = "Seconds from detection to the first step. The table below says the same."
    return figure(title, text, WIDTH, LANE * len(measured), *drawn)


def _phases(seconds: PhaseSeconds) -> dict[str, float]:
    found = {phase: getattr(seconds, phase) for phase in PHASES}
    return {phase: value for phase, value in found.items() if value}


def _clip(name: str) -> str:
    return name if len(name) <= LABEL_CHARACTERS else f"{name[: LABEL_CHARACTERS - 1]}…"
