"""`sweeprun watch`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Self

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from sweeprun_operator.api.status import ConditionType
from sweeprun_operator.cluster.gateway import GatewayError, Raw

from .cluster.connection import Connection, ask, explained, warn
from .cluster.kubeconfig import Place
from .cluster.options import Context, Everywhere, Kubeconfig, Namespace
from .cluster.runs import Row, Run
from .exits import Exit
from .get import listed
from .plain import NOTHING, optional
from .tables import console, plain_table
from .why.command import render
from .why.story import Story

SILENCE_SECONDS = 60.0
"""Without an answer for this long, watching makes no sense any more."""


def watch(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A SweepRun; absent: all.", show_default=False)
    ] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Only runs of this sweep.", show_default=False)] = None,
    every: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 2,
    everywhere: Everywhere = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show runs live until Ctrl-C, or one until it has ended: exit code 0 complete, 1 failed.

    Where the output is no terminal, every change is one line.
    """
    if name is not None and (sweep is not None or everywhere):
        raise typer.BadParameter("a RUN goes with neither --sweep nor --all-namespaces")
    screen = _Screen(console())

    async def work(connection: Connection) -> Exit:
        return await _watch(connection, screen, name, sweep, every, everywhere)

    with screen:
        code = ask(Place(namespace, context, kubeconfig), work)
    raise typer.Exit(code)


class _Screen:
    """A live picture on a terminal, a line for each change elsewhere."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, auto_refresh=False, transient=False) if out.is_terminal else None
        self._lines: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: list[Row], picture: Callable[[], RenderableType]) -> None:
        if self._live is not None:
            self._live.update(picture(), refresh=True)
            return
        for row in rows:
            key, line = f"{row.namespace}/{row.name}", _line(row)
            if self._lines.get(key) != line:
                self._lines[key] = line
                stamp = datetime.now(UTC).strftime("%H:%M:%S")
                self._out.print(f"{stamp} {line}", markup=False, highlight=False, soft_wrap=True)
        known = {f"{row.namespace}/{row.name}" for row in rows}
        for gone in sorted(set(self._lines) - known):
            del self._lines[gone]
            self._out.print(f"{gone} is gone", markup=False, highlight=False, soft_wrap=True)


def _line(row: Row) -> str:
    counts = f"attempt {optional(row.attempt)} step {optional(row.step)} resumes {optional(row.resumes)}"
    return f"{row.namespace}/{row.name} {row.phase} {counts} kept {optional(row.kept)}"


async def _watch(
    connection: Connection, screen: _Screen, name: str | None, sweep: str | None, every: float, everywhere: bool
) -> Exit:
    heard = time.monotonic()
    while True:
        try:
            found = await _read(connection, name, sweep, everywhere)
        except GatewayError as error:
            if _is_final(error) or time.monotonic() - heard > SILENCE_SECONDS:
                raise
            warn(f"{explained(error, connection.access)}; it is tried again")
            await asyncio.sleep(every)
            continue
        heard = time.monotonic()
        rows = [Row.of(raw) for raw in found]
        if name is None:
            screen.show(rows, partial(_list, rows, everywhere))
        else:
            run = Run.of(found[0])
            screen.show(rows, partial(_one, run))
            if run.status.is_true(ConditionType.COMPLETE):
                return Exit.OK
            if run.status.is_true(ConditionType.FAILED):
                return Exit.FAILED
        await asyncio.sleep(every)


def _is_final(error: GatewayError) -> bool:
    """An API server that restarts or is overloaded answers again; one that says no means it."""
    return error.code is not None and error.code < 500 and error.code != 429


async def _read(connection: Connection, name: str | None, sweep: str | None, everywhere: bool) -> list[Raw]:
    if name is None:
        return await connection.runs(everywhere=everywhere, sweep=sweep)
    return [await connection.run_named(name)]


def _list(rows: list[Row], everywhere: bool) -> RenderableType:
    columns, cells = listed(rows, datetime.now(UTC), everywhere, False)
    return plain_table(columns, cells) if rows else Text("There is no SweepRun.", style="dim")


def _one(run: Run) -> RenderableType:
    row = run.row
    head = Text(f"run {row.run_id or NOTHING}  attempt {optional(row.attempt)}  step {optional(row.step)}  ")
    head.append(f"resumes {optional(row.resumes)}  steps kept {optional(row.kept)}")
    return Group(head, render(Story.of(run, datetime.now(UTC))))
