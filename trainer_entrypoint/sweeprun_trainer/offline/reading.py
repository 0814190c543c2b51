"""Offline runs of a run directory, one for each process that W&B's client could not send."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from sweeprun_protocol.layout import WANDB, RunLayout, parse_wandb_name
from sweeprun_volume.operations import DIRECTORY, FILE, Volume

from .transaction_log import TransactionLog

OFFLINE, ONLINE = "offline-run-", "run-"
SUFFIX = ".wandb"
MAX_LEVELS = 16
OWN_FILES = frozenset(
    {
        "config.yaml",
        "wandb-metadata.json",
        "wandb-summary.json",
        "requirements.txt",
        "output.log",
        "conda-environment.yaml",
    }
)
"""W&B's client makes these of the process it runs in; they would tell of the one that sends."""
Json = dict[str, Any]


@dataclass
class OfflineRun:
    """What one process logged."""

    epoch: int
    path: str
    """Relative to the run directory."""
    run_id: str = ""
    entity: str = ""
    project: str = ""
    sweep_id: str = ""
    init: Json = field(default_factory=dict)
    """group, job_type, name, notes, tags for wandb.init, where they were given."""
    config: Json = field(default_factory=dict)
    rows: dict[int, Json] = field(default_factory=dict)
    """By W&B's step, in the order they were written."""
    summary: Json = field(default_factory=dict)
    metrics: list[Json] = field(default_factory=list)
    """Arguments of define_metric."""
    explicit_steps: bool = False
    exit_code: Optional[int] = None
    """None: it was killed."""
    problem: Optional[str] = None
    """Why not all of the file could be read."""

    @property
    def address(self) -> tuple[str, str, str]:
        return self.entity, self.project, self.run_id


def has_offline_runs(volume: Volume, epoch: int) -> bool:
    return bool(_named(volume, posixpath.join(RunLayout("").wandb(epoch), "wandb"), OFFLINE))


def read_all(volume: Volume) -> Iterator[OfflineRun]:
    """By epoch, then by the time in their names. Those of processes that were online are not among them: their file
    holds what W&B has as well."""
    for epoch in epochs(volume):
        holder = posixpath.join(RunLayout("").wandb(epoch), "wandb")
        for name in _named(volume, holder, OFFLINE):
            path = posixpath.join(holder, name)
            for entry in volume.entries(path):
                if entry.kind == FILE and entry.name.endswith(SUFFIX):
                    yield _read(volume, path, entry.name, epoch)


def epochs(volume: Volume) -> list[int]:
    found = [parse_wandb_name(entry.name) for entry in volume.entries(WANDB) if entry.kind == DIRECTORY]
    return sorted(epoch for epoch in found if epoch is not None)


def online_runs(volume: Volume) -> list[str]:
    """Paths of directories that processes wrote which spoke to W&B."""
    holders = [posixpath.join(RunLayout("").wandb(epoch), "wandb") for epoch in epochs(volume)]
    return [posixpath.join(holder, name) for holder in holders for name in _named(volume, holder, ONLINE)]


def own_files(volume: Volume, run: OfflineRun) -> list[str]:
    """What the training saved (media, models), relative to the directory `files` of the run; links are left out."""
    root = posixpath.join(run.path, "files")
    return [name for name in _walk(volume, root, "", MAX_LEVELS) if name not in OWN_FILES]


def _walk(volume: Volume, root: str, below: str, levels: int) -> Iterator[str]:
    for entry in volume.entries(posixpath.join(root, below) if below else root):
        name = posixpath.join(below, entry.name)
        if entry.kind == DIRECTORY and levels > 0:
            yield from _walk(volume, root, name, levels - 1)
        elif entry.kind == FILE:
            yield name


def _named(volume: Volume, holder: str, prefix: str) -> list[str]:
    found = [entry.name for entry in volume.entries(holder) if entry.kind == DIRECTORY]
    return [name for name in found if name.startswith(prefix)]


def _read(volume: Volume, path: str, file: str, epoch: int) -> OfflineRun:
    # with the client itself, which only who sends has
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    record_type: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined]
    run = OfflineRun(epoch, path)
    with volume.open_file(f"{path}/{file}") as (descriptor, _), os.fdopen(os.dup(descriptor), "rb") as stream:
        log = TransactionLog(stream)
        try:
            for data in log:
                _take(run, record_type.FromString(data))
        except (DecodeError, ValueError, RecursionError) as error:
            run.problem = f"{path}/{file} holds a record that cannot be read: {error}"
            return run
    if log.problem is not None:
        run.problem = f"{path}/{file} {log.problem}"
    return run


def _take(run: OfflineRun, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        _identify(run, record.run)
    elif kind == "config":
        _update(run.config, record.config.update)
    elif kind == "summary":
        _update(run.summary, record.summary.update)
    elif kind == "history":
        row: Json = {}
        _update(row, record.history.item)
        run.rows[int(record.history.step.num)] = row
    elif kind == "metric" and record.metric.step_metric:
        name = record.metric.name or record.metric.glob_name
        run.metrics.append({"name": name, "step_metric": record.metric.step_metric})
    elif kind == "telemetry":
        run.explicit_steps |= record.telemetry.feature.set_step_log
    elif kind == "exit":
        run.exit_code = int(record.exit.exit_code)


def _identify(run: OfflineRun, told: Any) -> None:
    run.run_id, run.entity, run.project, run.sweep_id = told.run_id, told.entity, told.project, told.sweep_id
    _update(run.config, told.config.update)
    given = {
        "group": told.run_group,
        "job_type": told.job_type,
        "name": told.display_name,
        "notes": told.notes,
        "tags": list(told.tags),
    }
    run.init.update({name: value for name, value in given.items() if value})


def _update(values: Json, items: Iterable[Any]) -> None:
    """Raises ValueError."""
    for item in items:
        *holders, last = item.nested_key or [item.key]
        target = values
        for key in holders:
            inner = target.setdefault(key, {})
            if not isinstance(inner, dict):
                inner = target[key] = {}
            target = inner
        target[last] = json.loads(item.value_json)
