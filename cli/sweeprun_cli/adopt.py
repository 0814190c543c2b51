"""`sweeprun adopt`: which incomplete runs could be taken over, and why not. The operator does the taking, at the
first start of a SweepRun; this command only looks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.cluster.fields import sub
from sweeprun_operator.cluster.gateway import Raw
from sweeprun_operator.cluster.owners import owner_states
from sweeprun_operator.core.observation import OwnerState
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import Candidate
from sweeprun_protocol.reasons import AdoptionScope
from sweeprun_volume.errors import UnsafeEntryError, VolumeError
from sweeprun_volume.operations import Volume
from sweeprun_volume.standings import idle_seconds

from .cluster.connection import Connection, ask
from .cluster.kubeconfig import Place
from .cluster.options import Context, Kubeconfig, Namespace, RunName
from .cluster.runs import Run
from .exits import CommandError, Exit
from .inspect.reading import NothingFoundError, find_runs, read_run
from .plain import NOTHING, duration, neutral
from .tables import console, table

SCOPES: dict[AdoptionScope, str] = {
    AdoptionScope.NONE: "no other run is ever taken over",
    AdoptionScope.SAME_RUN_ID: "only the run that spec.runId names",
    AdoptionScope.SAME_CONFIG: "runs of the sweep with the same configuration",
    AdoptionScope.SWEEP: "any incomplete run of the sweep",
}
YES = "yes"


@dataclass(frozen=True, slots=True)
class Answer:
    scope: AdoptionScope
    run: Run
    rows: list[tuple[str, ...]]
    looked_at: str


def adopt(
    name: RunName,
    volume: Annotated[
        Path | None,
        typer.Option(help="Directory of the sweep's runs on the mounted volume: finds what no SweepRun tells of."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show which incomplete runs a SweepRun could take over, and why not the others. Changes nothing.

    Taking over is the operator's: it happens at the first start of a SweepRun, by spec.resume.adoption.
    """

    async def work(connection: Connection) -> Answer:
        raw = await connection.run_named(name)
        run, spec = Run.of(raw), _spec(raw)
        if volume is None:
            rows = [row for other in await connection.runs(sweep=spec.sweep_name) if (row := _of_object(raw, other))]
            return Answer(spec.adoption_scope(), run, rows, "the SweepRuns of this namespace")
        candidates = await asyncio.to_thread(_candidates, volume)
        idle = spec.resume.adoption.idle_seconds
        cluster = await connection.cluster_id()
        states = await owner_states(connection, candidates, cluster_id=cluster, idle_seconds=idle)
        rows = [_of_candidate(one, states[one.run_id], run.uid, cluster, idle) for one in candidates]
        return Answer(spec.adoption_scope(), run, rows, str(volume))

    _print(ask(Place(namespace, context, kubeconfig), work), on_volume=volume is not None)


def _print(answer: Answer, *, on_volume: bool) -> None:
    out, status = console(), answer.run.status
    lines = [f"{answer.run.name} may take over: {SCOPES[answer.scope]} (scope {answer.scope})."]
    if status.run_id is not None:
        lines.append(f"It has run {status.run_id} and takes over no other one: that is decided at the first start.")
    elif answer.scope is AdoptionScope.NONE:
        lines.append("Set spec.resume.adoption.scope to let it.")
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if answer.rows:
        columns = ("run", "owner", "silent for", "could be taken over")
        out.print(table(f"Incomplete runs, by {answer.looked_at}", columns, answer.rows))
    else:
        out.print(f"No other incomplete run is known to {answer.looked_at}.", markup=False, highlight=False)
    if not on_volume:
        text = "Runs whose SweepRun is deleted are known to the volume alone: mount it and give --volume DIR."
        out.print(text, markup=False, highlight=False, soft_wrap=True)


def _spec(raw: Raw) -> SweepRunSpec:
    try:
        return SweepRunSpec.model_validate(raw["spec"])
    except ValidationError as error:
        message = f"the spec cannot be read by this version of sweeprun: {error.error_count()} wrong field(s)"
        raise CommandError(Exit.UNREADABLE, message) from None


def _of_object(own: Raw, other: Raw) -> tuple[str, ...] | None:
    """None for what is no incomplete run on the same place of the same volume."""
    if sub(own, "metadata").get("uid") == sub(other, "metadata").get("uid"):
        return None
    run = Run.of(other)
    if run.row.run_id is None or run.row.phase == "Completed" or _storage(own) != _storage(other):
        return None
    if run.row.phase == "Failed":
        return run.row.run_id, run.name, NOTHING, f"{YES}, if none of its pods is left: its SweepRun has failed"
    return run.row.run_id, run.name, NOTHING, f"no: its SweepRun lives ({run.row.phase})"


def _storage(raw: Raw) -> tuple[object, ...]:
    storage = sub(raw, "spec", "storage")
    claim = sub(storage, "persistentVolumeClaim")
    return claim.get("claimName"), claim.get("subPath"), storage.get("runDirectory")


def _candidates(directory: Path) -> list[Candidate]:
    """Incomplete runs in or below `directory`. Raises CommandError."""
    try:
        found = find_runs(directory)
    except NothingFoundError as error:
        raise CommandError(Exit.USAGE, str(error)) from None
    candidates = []
    for path in found:
        view = read_run(path, level=None, timeout_seconds=60)
        if view.result is not None or view.superseded_by is not None:
            continue
        place = path.resolve()
        claim = view.epochs[-1].claim if view.epochs else None
        try:
            silent = idle_seconds(Volume(str(place.parent)), RunLayout(place.name), now=time.time())
        except (UnsafeEntryError, VolumeError) as error:
            raise CommandError(Exit.FAILED, f"{path} cannot be looked through: {error}") from None
        owner = claim.owner if claim is not None else view.marker.owner if view.marker is not None else None
        candidates.append(Candidate(place.name, view.head, owner, silent))
    return candidates


def _of_candidate(one: Candidate, state: OwnerState, uid: str, cluster: str, idle: int) -> tuple[str, ...]:
    owner, gone = one.owner, state is OwnerState.GONE
    name = neutral(f"{owner.namespace}/{owner.name}") if owner is not None else "nobody"
    silent = duration(one.idle_seconds)
    if owner is not None and owner.uid == uid:
        return neutral(one.run_id), name, silent, "it is its own"
    if owner is None or owner.cluster != cluster:
        who = "nobody claims it" if owner is None else "its owner is of another cluster"
        wait = f"{who}, and it was silent for {'at least' if gone else 'less than'} {duration(idle)}"
        return neutral(one.run_id), name, silent, f"{YES if gone else 'no'}: {wait}"
    why = "its owner is gone or has ended, and none of its pods is left"
    not_yet = "no: its owner lives, or you may not look there"
    if state is OwnerState.ENDING:
        not_yet = "not yet: its owner is gone or has ended, and some of its pods are left"
    return neutral(one.run_id), name, silent, f"{YES}: {why}" if gone else not_yet
