"""`sweeprun advise`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sweeprun_cli.cluster.connection import ask, told
from sweeprun_cli.cluster.kubeconfig import Place
from sweeprun_cli.cluster.options import Context, Kubeconfig, Namespace, RunName
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.plain import NOTHING, UNKNOWN, duration, number
from sweeprun_cli.tables import console, table

from .interval import FEW, Measured, daly_seconds, lost_share, young_seconds
from .volume import Saves, read_saves


def advise(
    name: RunName,
    volume: Annotated[
        Path | None,
        typer.Option(help="The run's directory on the mounted volume: tells what saves cost.", show_default=False),
    ] = None,
    save: Annotated[
        float | None,
        typer.Option("--save-seconds", min=0.001, help="What one save costs, if you know it.", show_default=False),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option("--interval-seconds", min=0.001, help="Between two saves today.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say how often to save, by Young and Daly, and what is lost today and at the optimum.

    It needs interruptions that were measured and the cost of a save, which the library writes into its manifests on
    the volume. What is missing is said, and nothing is made up for it.
    """
    raw = ask(Place(namespace, context, kubeconfig), lambda connection: connection.run_named(name))
    with told():
        measured = Measured.of(Run.of(raw), datetime.now(UTC))
        saves = read_saves(volume) if volume is not None else None
    out = console()
    out.print(table(f"Measured of {name}", ("what", "value", "from"), measured_rows(measured, saves, save, interval)))
    for line in advice(measured, saves, save, interval):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def measured_rows(
    measured: Measured, saves: Saves | None, save: float | None, interval: float | None
) -> list[tuple[str, ...]]:
    cost, cost_from = _cost(saves, save)
    gap, gap_from = _interval(measured, saves, interval)
    step = UNKNOWN if measured.step_seconds is None else f"{measured.step_seconds:.3g} s"
    return [
        ("running time", duration(measured.running_seconds), "status"),
        ("interruptions (disruptions and failures)", number(measured.interruptions), "status"),
        ("mean time between them", duration(measured.between_seconds), "status"),
        ("steps repeated", number(measured.repeated_steps), "status"),
        ("time for a step", step, "status.history"),
        ("repeated per interruption", duration(measured.repeated_seconds), "both of these"),
        ("recovery per interruption", duration(measured.recovery_seconds), "status.history"),
        ("cost of a save", duration(cost), cost_from),
        ("interval between saves", duration(gap), gap_from),
    ]


def advice(measured: Measured, saves: Saves | None, save: float | None, interval: float | None) -> list[str]:
    """Sentences; what is missing is one of them."""
    cost, between = _cost(saves, save)[0], measured.between_seconds
    gap = _interval(measured, saves, interval)[0]
    lines = []
    if between is None:
        ran = duration(measured.running_seconds)
        lines.append(
            f"Missing: no interruption was measured in {ran} of running time, so that the time between them is unknown."
        )
    if cost is None:
        lines.append(
            "Missing: what a save costs. Give --volume with the run's directory (checkpoints of the library carry it), "
            "or --save-seconds."
        )
    if cost is None or between is None:
        return [*lines, "Without them no interval can be recommended."]
    best = daly_seconds(cost, between)
    lines.append(f"Save every {duration(best)} (Daly; Young says {duration(young_seconds(cost, between))}).")
    if measured.step_seconds:
        lines.append(f"That is every {max(1, round(best / measured.step_seconds)):,} steps.")
    lines.append(f"Lost to saves and repetition at that interval: {_share(lost_share(best, cost, between))}.")
    if gap is None:
        lines.append("Lost today: unknown, since the present interval is. Give --interval-seconds or --volume.")
    else:
        lines.append(f"Lost today, at an interval of {duration(gap)}: {_share(lost_share(gap, cost, between))}.")
    if measured.recovery_seconds is not None:
        share = measured.recovery_seconds / between
        lines.append(f"Recovery itself costs {_share(share)} beside that, whatever the interval is.")
    if measured.interruptions < FEW:
        count = measured.interruptions
        lines.append(f"Only {count} interruption(s) were measured: take this for a first guess.")
    return lines


def _cost(saves: Saves | None, given: float | None) -> tuple[float | None, str]:
    if given is not None:
        return given, "--save-seconds"
    if saves is not None and saves.save_seconds is not None:
        return saves.save_seconds, f"median of {saves.count} manifests"
    return None, NOTHING


def _interval(measured: Measured, saves: Saves | None, given: float | None) -> tuple[float | None, str]:
    if given is not None:
        return given, "--interval-seconds"
    if saves is not None and saves.interval_seconds is not None:
        return saves.interval_seconds, "manifests"
    if measured.interval_seconds is not None:
        return measured.interval_seconds, "estimate: twice what was repeated"
    return None, NOTHING


def _share(share: float) -> str:
    return f"{share * 100:.2g} % of the running time"
