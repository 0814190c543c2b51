"""Sends the offline runs of a run directory to W&B: each step once, whatever W&B has, and as often as one likes.

`wandb sync` renumbers the steps of a second attempt behind those of the first, and sends rows that W&B has once more
(measured, 0.31). So the rows are logged anew under their own steps, from where W&B's history ends.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from sweeprun_protocol.layout import RunLayout
from sweeprun_volume.claims import highest_epoch
from sweeprun_volume.operations import Volume

from .reading import Json, OfflineRun, has_offline_runs, online_runs, own_files, read_all

INIT_SECONDS = 60.0
FINISH_SECONDS = 3600.0
"""Until all is sent: much may have gathered."""
OWN_COLUMNS = ("_step", "_runtime")
"""Of the process that sends; when a row was logged stays as it was."""
KILLED = 1
"""Exit code that W&B is told of a process that left none: the run is not finished."""


class NotSentError(Exception):
    """Nothing was sent, or not all; says why and what to do."""


@dataclass
class Plan:
    """One W&B run and what the volume has for it."""

    entity: str
    project: str
    run_id: str
    parts: list[OfflineRun] = field(default_factory=list)
    """In the order they were written."""

    @property
    def rows(self) -> dict[int, Json]:
        """By step. What a later attempt computed again takes the place of what was left behind by the walk-back."""
        merged: dict[int, Json] = {}
        for part in self.parts:
            merged.update(part.rows)
        return {step: merged[step] for step in sorted(merged)}

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.run_id) if part)

    @property
    def exit_code(self) -> int:
        code = self.parts[-1].exit_code
        return KILLED if code is None else code


@dataclass(frozen=True)
class Sent:
    """What became of one W&B run."""

    name: str
    parts: tuple[str, ...]
    rows: int
    """That were sent; with dry_run: that would be."""
    known: int
    """That W&B had, or lies behind."""
    exit_code: Optional[int]
    """None: W&B was told none, since nothing was sent."""


@dataclass(frozen=True)
class Found:
    plans: tuple[Plan, ...]
    problems: tuple[str, ...]
    """What is left out, and why."""


def find(root: str) -> Found:
    """Everything of a run directory that can be sent.

    Raises:
        NotSentError: W&B's client is not installed, or another process may be writing to W&B.
    """
    try:
        import wandb.proto.wandb_internal_pb2  # noqa: F401
    except ImportError as error:
        raise NotSentError(f"W&B's client is needed to read its files: pip install wandb ({error})") from None
    volume = Volume(root)
    _check_writer(volume)
    plans: dict[tuple[str, str, str], Plan] = {}
    problems = [
        f"{path} is of a process that spoke to W&B, which has its rows: left out" for path in online_runs(volume)
    ]
    for run in read_all(volume):
        if run.problem is not None:
            problems.append(f"{run.problem}: what comes after is lost")
        if not run.run_id:
            problems.append(f"{run.path} does not say which run it is of: left out")
        elif run.rows and not run.explicit_steps:
            problems.append(
                f"{run.path} was logged without step=, so that nobody can know what W&B has of it: left out; "
                "`wandb sync` sends it, once, in the order of the epochs"
            )
        else:
            plans.setdefault(run.address, Plan(*run.address)).parts.append(run)
    return Found(tuple(plans.values()), tuple(problems))


def _check_writer(volume: Volume) -> None:
    layout = RunLayout("")
    epoch = highest_epoch(volume, layout)
    if volume.exists(layout.marker) and not has_offline_runs(volume, epoch):
        raise NotSentError(
            f"the run is not complete, and its attempt of epoch {epoch} may be speaking to W&B: two writers would mix "
            "their rows; suspend the run or wait for its end, or remove .incomplete if no SweepRun owns it any more"
        )


def send(root: str, plan: Plan, *, dry_run: bool = False) -> Sent:
    """Raises NotSentError; what was sent until then is not sent again by the next call."""
    import wandb

    rows = plan.rows
    parts = tuple(part.path for part in plan.parts)
    try:
        _choose(wandb, plan)
        last = _last_step(wandb, plan)
        lacking = {step: row for step, row in rows.items() if step > last}
        if dry_run or not lacking:
            return Sent(plan.name, parts, len(lacking), len(rows) - len(lacking), None)
        return Sent(plan.name, parts, *_log(wandb, root, plan, lacking, len(rows)), plan.exit_code)
    except Exception as error:
        raise NotSentError(f"{plan.name}: {_explained(error)}") from error
    finally:
        wandb.teardown()  # its settings are those of one run


def _choose(wandb: Any, plan: Plan) -> None:
    """By the environment, since W&B heeds nothing else inside sweeps."""
    known = {
        "WANDB_RUN_ID": plan.run_id,
        "WANDB_ENTITY": plan.entity,
        "WANDB_PROJECT": plan.project,
        "WANDB_SWEEP_ID": plan.parts[-1].sweep_id,
        "WANDB_RESUME": "allow",
        "WANDB_MODE": "online",
    }
    for name, value in known.items():
        os.environ.pop(name, None)
        if value:
            os.environ[name] = value
    wandb.teardown()  # what it read before


def _last_step(wandb: Any, plan: Plan) -> int:
    """Of W&B's history; -1 where there is no such run."""
    try:
        run = wandb.Api(timeout=int(INIT_SECONDS)).run(plan.name)
    except (ValueError, wandb.errors.CommError) as error:
        if "Could not find run" in str(error):
            return -1
        raise
    return int(run.lastHistoryStep)


def _log(wandb: Any, root: str, plan: Plan, rows: dict[int, Json], all_rows: int) -> tuple[int, int]:
    """(sent, not sent since W&B has them)."""
    with tempfile.TemporaryDirectory(prefix="sweeprun-sync-") as scratch:
        run = _open(wandb, plan, scratch)
        sent = 0
        for step, row in rows.items():
            if step >= run.starting_step:
                row = {name: value for name, value in row.items() if name not in OWN_COLUMNS}
                run.log(row, step=step, commit=True)
                sent += 1
        run.summary.update(_summary(plan))
        for path, name in _files(root, plan):
            run.save(os.path.join(path, name), base_path=path, policy="now")
        run.finish(exit_code=plan.exit_code)
        return sent, all_rows - sent


def _open(wandb: Any, plan: Plan, directory: str) -> Any:
    config: Json = {}
    init: Json = {}
    for part in plan.parts:
        config.update(part.config)
        init.update(part.init)
    config.pop("_wandb", None)
    limits = wandb.Settings(
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        console="off",
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
        silent=True,
    )
    run = wandb.init(config=config, dir=directory, settings=limits, **init)
    for metric in plan.parts[-1].metrics:
        run.define_metric(**metric)
    return run


def _summary(plan: Plan) -> Json:
    merged: Json = {}
    for part in plan.parts:
        merged.update(part.summary)
    return {name: value for name, value in merged.items() if not name.startswith("_")}


def _files(root: str, plan: Plan) -> Iterator[tuple[str, str]]:
    """(directory, name in it) of what the training saved."""
    volume = Volume(root)
    for part in plan.parts:
        for name in own_files(volume, part):
            yield os.path.join(root, part.path, "files"), posixpath.normpath(name)


def _explained(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "previously created and deleted" in text:
        return f"the run was deleted in W&B: restore it there, then send again ({text})"
    return text
