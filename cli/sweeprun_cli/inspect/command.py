"""`sweeprun inspect`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from sweeprun_cli.cluster.connection import ask, told
from sweeprun_cli.cluster.kubeconfig import Place
from sweeprun_cli.cluster.options import Context, Kubeconfig, Namespace
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.tables import console, size, table
from sweeprun_protocol.reasons import Level

from .checkpoints import CheckpointView, at
from .cluster import render_run
from .reading import EpochView, NothingFoundError, RunView, find_runs, read_checkpoints, read_run

DAMAGED, USAGE = 1, 2
_RUN_NAME = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
EXIT_CODES = (
    "Exit codes: 0 everything could be read; 1 --check found damage or did not finish, or a record cannot be read; "
    "2 neither a run nor a checkpoint is there; for a RUN those of `get`."
)


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|RUN",
            help="A run's directory, one above some, or checkpoints without one; or the name of a SweepRun.",
            show_default=False,
        ),
    ],
    level: Annotated[
        Level | None, typer.Option("--check", help="Check every checkpoint: Full (every byte) or Fast (structure).")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each checkpoint.")] = 900,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what lies on a volume: claims, decisions, ends, checkpoints, verdicts. Changes nothing.

    Checkpoints of every format are shown, also those of a directory that SweepRun has never seen. Where no directory
    has the name and it may be one of a SweepRun, the cluster is asked: what the status knows, and how to look.
    """
    if not path.exists() and _RUN_NAME.fullmatch(str(path)) and level is None:
        name = str(path)
        raw = ask(Place(namespace, context, kubeconfig), lambda connection: connection.run_named(name))
        with told():
            console().print(render_run(Run.of(raw)), soft_wrap=True)
        return
    try:
        views = _read(path, level, timeout)
    except NothingFoundError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    out = console()
    damaged = False
    for view in views:
        out.print(render(view))
        damaged |= bool(view.problems) or any(one.found is not None and not one.sound for one in view.checkpoints)
    raise typer.Exit(DAMAGED if damaged else 0)


def _read(path: Path, level: Level | None, timeout: float) -> Iterator[RunView]:
    """Raises NothingFoundError at once; each run is read when it is shown."""
    try:
        directories = find_runs(path)
    except NothingFoundError:
        return iter([read_checkpoints(path, level=level, timeout_seconds=timeout)])
    return (read_run(directory, level=level, timeout_seconds=timeout) for directory in directories)


def render(view: RunView) -> RenderableType:
    parts: list[RenderableType] = [Text(str(view.directory), style="bold"), Text(state(view)), *_facts(view), Text()]
    if view.epochs:
        columns = ("epoch", "claimed", "by", "decided", "ends")
        parts += [table("Epochs", columns, [_epoch(view, one) for one in view.epochs]), Text()]
    if view.checkpoints:
        parts += [_checkpoints(view.checkpoints), *_remarks(view.checkpoints), Text()]
    if view.quarantined:
        parts += [table("Quarantine", ("entry",), [(name,) for name in view.quarantined]), Text()]
    parts += [Text(f"cannot be read: {problem}", style="red") for problem in view.problems]
    return Group(*parts)


def state(view: RunView) -> str:
    if view.alone:
        return "no run: checkpoints alone, of which no record tells more"
    if view.superseded_by is not None:
        return f"given up: run {view.superseded_by.run_id} took its place"
    if view.result is not None:
        step = f" at step {view.result.step}" if view.result.step is not None else ""
        return f"complete{step} since {at(view.result.time)}, by the attempt of epoch {view.result.epoch}"
    last = view.epochs[-1].claim if view.epochs else None
    if last is not None:
        return f"incomplete; epoch {last.epoch} belongs to {_owner(view.epochs[-1])}"
    return "incomplete; nobody has claimed it" if view.has_marker else "no marker and no claim"


def _facts(view: RunView) -> list[Text]:
    record = view.record
    if record is None:
        return []
    facts = [("configuration", record.config_file), ("W&B run", record.wandb_run_id)]
    facts.append(("in the place of", record.previous_run_id))
    return [Text(f"{name}: {value}", style="dim") for name, value in facts if value is not None]


def _epoch(view: RunView, one: EpochView) -> tuple[str, ...]:
    claimed = at(one.claim.time) if one.claim is not None else "-"
    return str(one.epoch), claimed, _owner(one), _decided(view, one), "; ".join(_ends(one)) or "-"


def _owner(one: EpochView) -> str:
    if one.claim is None:
        return "-"
    owner = one.claim.owner
    return f"{owner.namespace}/{owner.name} (prepare {one.claim.prepare}, cluster {owner.cluster})"


def _decided(view: RunView, one: EpochView) -> str:
    decision = one.decision
    if decision is None:
        # That a run is complete is said once, by result.json.
        return "Completed" if view.result is not None and one.epoch > view.result.epoch else "nothing yet"
    base = f" from step {decision.base.step}" if decision.base is not None else ""
    reason = f" ({decision.reason})" if decision.reason is not None else ""
    refused = "".join(f"; refused {one.path}: {one.reason}" for one in decision.refused)
    return f"{decision.outcome}{base}{reason}{refused}"


def _ends(one: EpochView) -> list[str]:
    return [f"{end.slot} {end.exit_code}{' when told to stop' if end.told_to_stop else ''}" for end in one.ends]


def _checkpoints(views: list[CheckpointView]) -> RenderableType:
    """Columns of which nothing is known are left out."""
    rows = [_checkpoint(one) for one in views]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    return table("Checkpoints", columns, [[row[name] or "-" for name in columns] for row in rows])


def _checkpoint(one: CheckpointView) -> dict[str, str]:
    told = one.told
    uncovered = told.uncovered if told is not None else None
    recorded = one.recorded
    return {
        "checkpoint": one.path,
        "format": str(one.format),
        "step": str(one.step),
        "epoch": "" if one.epoch is None else str(one.epoch),
        "size": "" if one.size is None else size(one.size),
        "uncovered": "" if uncovered is None else size(uncovered) if uncovered else "none",
        "ranks": "" if told is None or told.world_size is None else str(told.world_size),
        "next prepare": "" if one.eligible is None else "may use it" if one.eligible else "passes it over",
        "recorded": "" if recorded is None else f"{recorded.finding.word} ({recorded.level}) {at(recorded.time)}",
        "verdict": one.verdict,
    }


def _remarks(views: list[CheckpointView]) -> Iterator[Text]:
    """What has no room in a table: where damage is, and what was not covered."""
    for one in views:
        told = one.told
        if one.replaced:
            yield Text(f"{one.path}: digest, size and time do not fit: it is not what was recorded", style="red")
        elif told is not None and told.detail:
            yield Text(f"{one.path}: {told.detail}", style="red")
    notes = Counter(told.note for one in views if (told := one.told) is not None and told.note)
    for note, count in notes.items():
        yield Text(f"{count} of {len(views)}: {note}", style="dim")
