"""`sweeprun history`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from sweeprun_operator.api.status import HISTORY, Attempt, PhaseSeconds
from sweeprun_operator.cluster.fields import sub

from .cluster.connection import ask, told
from .cluster.kubeconfig import Place
from .cluster.machine import machine
from .cluster.options import Context, Format, Kubeconfig, Namespace, RunName
from .cluster.runs import Run
from .plain import NOTHING, duration, moment, optional
from .tables import console, table

PHASES = tuple(PhaseSeconds.model_fields)


def history(
    name: RunName,
    output: Annotated[Format, typer.Option("--output", "-o", help="wide: phases one by one.")] = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the attempts of a run: why each ended, where, from and to which step, and what recovery cost.

    The status keeps the newest ten attempts. Seconds are those of the recovery before the attempt.
    """
    raw = ask(Place(namespace, context, kubeconfig), lambda connection: connection.run_named(name))
    if output in (Format.JSON, Format.YAML):
        typer.echo(machine({"history": sub(raw, "status").get("history") or []}, output))
        return
    with told():
        run = Run.of(raw)
    console().print(render(run, wide=output is Format.WIDE))


def render(run: Run, *, wide: bool) -> RenderableType:
    attempts = run.status.history
    parts: list[RenderableType] = [Text(f"{run.name}  {_counted(run)}")]
    if not attempts:
        return Group(*parts, Text("No attempt has been decided yet."))
    count = run.status.counts.attempts
    if count > len(attempts):
        parts.append(Text(f"The newest {HISTORY} of {count} attempts:", style="dim"))
    columns: tuple[str, ...] = ("attempt", "began as", "from step", "to step", "ended", "cause", "node", "recovery")
    rows: list[tuple[str, ...]] = [_row(one) for one in attempts]
    if wide:
        columns = (*columns, *(phase.replace("_", " ") for phase in PHASES), "evidence")
        rows = [(*row, *_phases(one.seconds), one.evidence or NOTHING) for row, one in zip(rows, attempts, strict=True)]
    parts += [Text(), table("Attempts", columns, rows)]
    refused = [
        (str(one.attempt), item.path, str(item.reason), item.message, item.entry or NOTHING)
        for one in attempts
        for item in one.refused
    ]
    if refused:
        columns = ("before attempt", "checkpoint", "reason", "message", "entry")
        parts += [Text(), table("Refused checkpoints", columns, refused)]
    return Group(*parts)


def recovery_seconds(seconds: PhaseSeconds) -> float | None:
    """Detection to first step, as far as it was measured; None where nothing was. Validation is a part of prepare."""
    known = [getattr(seconds, phase) for phase in PHASES if phase != "validation"]
    measured = [value for value in known if value is not None]
    return sum(measured) if measured else None


def _counted(run: Run) -> str:
    counts, savings = run.status.counts, run.status.savings
    return (
        f"{run.row.phase}: {counts.attempts} attempts, {counts.resumes} resumed, {counts.disruptions} disruptions, "
        f"{counts.failures} failures, {counts.never_started} never started; {savings.steps_kept} steps kept, "
        f"{savings.steps_repeated} repeated"
    )


def _row(one: Attempt) -> tuple[str, ...]:
    began = f"{one.outcome} ({one.reason})" if one.reason is not None else str(one.outcome)
    # A first start recovers from nothing: all that it has is the look at the volume.
    recovered = recovery_seconds(one.seconds) if one.attempt else None
    return (
        str(one.attempt),
        began,
        str(one.from_step or 0),
        optional(one.to_step),
        moment(one.end_time) if one.end_time is not None else "not yet",
        optional(one.cause),
        optional(one.node),
        duration(recovered) if recovered is not None else NOTHING,
    )


def _phases(seconds: PhaseSeconds) -> tuple[str, ...]:
    values = (getattr(seconds, phase) for phase in PHASES)
    return tuple(NOTHING if value is None else duration(value) for value in values)
