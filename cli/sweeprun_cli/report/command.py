"""`sweeprun report`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sweeprun_cli.cluster.connection import Connection, ask, told
from sweeprun_cli.cluster.kubeconfig import Place
from sweeprun_cli.cluster.options import Context, Everywhere, Kubeconfig, Namespace
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.exits import CommandError, Exit

from .metrics import read_lines
from .page import page_of_run, page_of_sweep


def report(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A SweepRun; or --sweep.", show_default=False)
    ] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="All runs of this sweep.", show_default=False)] = None,
    volume: Annotated[
        Path | None,
        typer.Option(
            "--volume",
            help="The run's directory on the mounted volume: metrics over steps, which the library keeps there.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; - writes to stdout.")] = Path(
        "report.html"
    ),
    everywhere: Everywhere = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write one HTML file about a run or a sweep: attempts by cause, steps over time, recovery by phase, savings.

    It needs no network, runs no script, and may be attached to a mail or kept beside the results.
    """
    if (name is None) == (sweep is None) or (name is not None and everywhere):
        raise typer.BadParameter("give a RUN, or --sweep NAME (with -A for all namespaces)")
    if volume is not None and name is None:
        raise typer.BadParameter("--volume holds one run: give its RUN")

    async def work(connection: Connection) -> list[dict[str, object]]:
        if name is not None:
            return [await connection.run_named(name)]
        found = await connection.runs(everywhere=everywhere, sweep=sweep)
        if not found:
            raise CommandError(Exit.NOT_FOUND, f"no SweepRun of sweep {sweep} is in namespace {connection.namespace}")
        return found

    found = ask(Place(namespace, context, kubeconfig), work)
    now = datetime.now(UTC)
    with told():
        runs = [Run.of(raw) for raw in found]
        if sweep is not None:
            page = page_of_sweep(sweep, runs, now)
        else:
            lines = read_lines(volume, runs[0].status.history) if volume is not None else []
            page = page_of_run(runs[0], now, lines)
        _write(output, page)


def _write(output: Path, page: str) -> None:
    if str(output) == "-":
        typer.echo(page, nl=False)
        return
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{output} cannot be written: {error.strerror}") from None
    typer.echo(f"{output}: open it in a browser", err=True)
