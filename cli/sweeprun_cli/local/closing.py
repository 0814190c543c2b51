"""The closing tables: how each attempt began and ended, what was checked, what was kept, how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.text import Text

from sweeprun_cli.tables import size, table
from sweeprun_operator.api.status import Attempt, Kind, PhaseSeconds
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Outcome, StartReason

from .picture import Picture

_PHASES = {
    "detect": "noticed",
    "drain": "old attempt gone",
    "prepare": "volume judged",
    "validation": "of it, checking",
    "queue": "waited",
    "start": "pods running",
    "first_step": "first step",
}
NEVER_SAVED = (
    "An attempt found nothing to go on from. A script is resumed from what it saves in $SWEEPRUN_CHECKPOINT_DIR: one "
    "whole file for each checkpoint, the step last in its name. If it saves, but was interrupted earlier, save more "
    "often. docs/your-script.md says more; --root DIR keeps the volume, and `sweeprun inspect` shows what lies in it."
)


def closing(picture: Picture) -> RenderableType:
    """Nothing where no attempt was ever decided: a manifest that is refused has its own message."""
    parts: list[RenderableType] = []
    if picture.status.history:
        attempts = [_attempt(picture, one) for one in picture.status.history]
        parts.append(table("Attempts", ("", "began", "ended", "evidence"), attempts))
    if picture.reports:
        prepares = [_prepare(one) for _, one in sorted(picture.reports.items())]
        parts.append(table("Volume", ("prepare", "decided", "checked", "why"), prepares))
    refused = [row for _, report in sorted(picture.reports.items()) for row in _refused(report)]
    if refused:
        parts.append(table("Refused checkpoints", ("checkpoint", "reason", "where"), refused))
    recoveries = [one for one in picture.status.history[1:] if any(_seconds(one.seconds))]
    if recoveries:
        parts.append(table("Recovery, seconds", ("attempt", *_PHASES.values()), [_recovery(one) for one in recoveries]))
    if picture.status.counts.attempts:
        parts.append(Text(kept(picture)))
    if _never_saved(picture):
        parts.append(Text(NEVER_SAVED, style="yellow"))
    return Group(*(item for part in parts for item in (part, Text())))


def _never_saved(picture: Picture) -> bool:
    """Of a program that fails before its first step there is nothing that it could have saved."""
    history = picture.status.history
    return any(
        after.reason is StartReason.NOTHING_COMMITTED and (before.kind is not Kind.FAILURE or before.to_step)
        for before, after in pairwise(history)
    )


def kept(picture: Picture) -> str:
    counts, savings = picture.status.counts, picture.status.savings
    if not counts.disruptions and not counts.failures:
        return "Never interrupted."
    interruptions = f"{counts.disruptions} disrupted, {counts.failures} failed"
    return (
        f"{counts.attempts} attempts ({interruptions}): {_count(savings.steps_kept, 'step')} kept, "
        f"{savings.steps_repeated} repeated; {_count(counts.resumes, 'resume')}, {_count(counts.restarts, 'restart')}, "
        f"{_count(counts.fresh_starts, 'fresh start')}."
    )


def _attempt(picture: Picture, one: Attempt) -> tuple[str, str, str, str]:
    reason = f" ({one.reason})" if one.reason else ""
    began = f"{one.outcome}{reason}, from step {one.from_step or 0}"
    step = one.to_step if one.to_step is not None else picture.furthest.get(one.attempt)
    reached = f" at step {step}" if step is not None else ""
    ended = f"{one.cause}{reached}" if one.cause is not None else "-"
    return str(one.attempt), began, ended, one.evidence or ""


def _prepare(report: PrepareReport) -> tuple[str, str, str, str]:
    decided = str(report.outcome)
    if report.outcome is Outcome.RESUME and report.checkpoint is not None:
        decided += f" from step {report.checkpoint.step}"
    elif report.outcome is Outcome.COMPLETED and report.step is not None:
        decided += f" at step {report.step}"
    elif report.blocked is not None:
        decided += f" ({report.blocked})"
    checked = "nothing to check"
    if report.checked_count or report.refused_count:
        counted = _count(report.checked_count, "checkpoint")
        checked = f"{counted}, {size(report.checked_bytes)}, {report.refused_count} refused"
    return str(report.prepare), decided, checked, report.message


def _refused(report: PrepareReport) -> Iterator[tuple[str, str, str]]:
    for one in report.refused:
        where = f"{one.entry}: " if one.entry else ""
        yield one.path, str(one.reason), f"{where}{one.message}"


def _seconds(seconds: PhaseSeconds) -> list[float | None]:
    return [getattr(seconds, name) for name in _PHASES]


def _recovery(one: Attempt) -> tuple[str, ...]:
    return str(one.attempt), *("-" if value is None else f"{value:.2f}" for value in _seconds(one.seconds))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
