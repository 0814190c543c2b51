"""`sweeprun get`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from .cluster.connection import Connection, ask, raw_without_noise
from .cluster.kubeconfig import Place
from .cluster.machine import machine
from .cluster.options import Context, Everywhere, Format, Kubeconfig, Namespace
from .cluster.runs import Row
from .plain import NOTHING, age, optional
from .tables import console, plain_table


def get(
    name: Annotated[str | None, typer.Argument(help="A SweepRun; absent: all.", show_default=False)] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Only runs of this sweep.", show_default=False)] = None,
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
    everywhere: Everywhere = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List SweepRuns: phase, attempt, step, resumes, and the steps that resumes kept.

    In JSON and YAML, values of environment variables and of the configuration whose names say that they are secret are
    masked.
    """
    if name is not None and (sweep is not None or everywhere):
        raise typer.BadParameter("a NAME goes with neither --sweep nor --all-namespaces")

    async def work(connection: Connection) -> list[dict[str, object]]:
        if name is not None:
            return [await connection.run_named(name)]
        return await connection.runs(everywhere=everywhere, sweep=sweep)

    found = ask(Place(namespace, context, kubeconfig), work)
    if output in (Format.JSON, Format.YAML):
        items = [raw_without_noise(raw) for raw in found]
        whole = items[0] if name is not None else {"apiVersion": "v1", "kind": "List", "items": items}
        typer.echo(machine(whole, output))
        return
    if not found:
        where = "the cluster" if everywhere else "this namespace: -A looks at all"
        of = f" of sweep {sweep}" if sweep is not None else ""
        typer.echo(f"There is no SweepRun{of} in {where}.", err=True)
        return
    columns, rows = listed([Row.of(raw) for raw in found], datetime.now(UTC), everywhere, output is Format.WIDE)
    console().print(plain_table(columns, rows))


def listed(
    runs: Sequence[Row], now: datetime, everywhere: bool, wide: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows, as `kubectl get srun` has them."""
    before = ("NAMESPACE",) if everywhere else ()
    more = ("SWEEP", "RUN", "CHECKPOINT", "ACCEPTED") if wide else ()
    columns = (*before, "NAME", "PHASE", "ATTEMPT", "STEP", "RESUMES", "KEPT", *more, "AGE")
    rows = [
        (
            *((run.namespace,) if everywhere else ()),
            run.name,
            run.phase,
            *(optional(value) for value in (run.attempt, run.step, run.resumes, run.kept)),
            *((run.sweep or NOTHING, *map(optional, (run.run_id, run.checkpoint, run.accepted))) if wide else ()),
            age(run.created, now),
        )
        for run in runs
    ]
    return columns, rows
