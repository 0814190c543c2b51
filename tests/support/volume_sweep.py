"""A sweep on a volume that is a temporary directory: requests, attempts and what prepare answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeprun_protocol.codec import dump
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import Adoption, Configuration, PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import AdoptionScope, CompletionPolicy, Format, Level, OnNoValidCheckpoint
from sweeprun_protocol.records import CompleteRecord, Decision, EndRecord, LibraryRecord, Owner, StartRecord
from sweeprun_volume.clock import Clock
from sweeprun_volume.inits import make_init_directory
from sweeprun_volume.operations import Volume
from sweeprun_volume.prepare import finish_init, prepare

from .volume_checkpoints import own_checkpoint

OWNER = Owner(cluster="cluster-a", namespace="sweeps", name="digits-lr-0", uid="uid-0")
OTHER = Owner(cluster="cluster-a", namespace="sweeps", name="digits-lr-1", uid="uid-1")
CONFIG_NAME = "train_config_overrides.yaml"
CONFIG = "lr: '0.01'\n"
SLOTS = ("master-0", "worker-0")


def clock_without_waiting() -> Clock:
    """Time passes only where somebody sleeps."""
    elapsed = [0.0]

    def sleep(seconds: float) -> None:
        elapsed[0] += seconds

    return Clock(monotonic=lambda: elapsed[0], sleep=sleep)


def make_request(**changes: Any) -> PrepareRequest:
    """Of the first prepare of a SweepRun with a configuration and without sweep_init."""
    request = PrepareRequest(
        owner=OWNER,
        prepare=0,
        sweep_name="digits-lr",
        run_directory="sweep/{sweepName}/runs/{runId}",
        run_id=None,
        started=False,
        volume_id=None,
        known_epoch=0,
        pinned=None,
        slots=SLOTS,
        completion=CompletionPolicy.EXIT_CODE,
        configuration=Configuration(file_name=CONFIG_NAME, text=CONFIG),
        init_key=None,
        fresh_number=0,
        adoption=Adoption(scope=AdoptionScope.NONE, idle_seconds=900),
        checkpoint_directory="checkpoints",
        format=Format.AUTO,
        level=Level.FULL,
        timeout_seconds=900,
        resume=True,
        from_step=None,
        on_no_valid_checkpoint=OnNoValidCheckpoint.NEW_RUN,
        wandb_run_id=None,
    )
    return replace(request, **changes)


def with_init(**changes: Any) -> PrepareRequest:
    """sweep_init names the configuration."""
    configuration = Configuration(file_name=CONFIG_NAME, text=None)
    return make_request(**{"configuration": configuration, "init_key": "uid-0-0", **changes})


def adopting(scope: AdoptionScope = AdoptionScope.SWEEP, *, idle: int = 900, **take: Any) -> Adoption:
    return Adoption(scope=scope, idle_seconds=idle, **take)


class Sweep:
    """The volume at `root`, and one SweepRun whose prepares follow each other as the operator would ask them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.last: PrepareReport | None = None

    def ask(
        self, request: PrepareRequest, *, before: Callable[[str, str], None] | None = None, clock: Clock | None = None
    ) -> PrepareReport:
        volume = Volume(str(self.root)) if before is None else Volume(str(self.root), before=before)
        return prepare(volume, request, clock=clock or clock_without_waiting())

    def finish_init(
        self, request: PrepareRequest, staging: str, *, before: Callable[[str, str], None] | None = None
    ) -> PrepareReport:
        volume = Volume(str(self.root)) if before is None else Volume(str(self.root), before=before)
        return finish_init(volume, request, staging=staging, clock=clock_without_waiting())

    def next_request(self, **changes: Any) -> PrepareRequest:
        """What the operator asks after `last`: the number raised, and what it keeps in status."""
        if self.last is None:
            return make_request(**changes)
        known = {
            "prepare": self.last.prepare + 1,
            "run_id": self.last.run_id,
            "started": True,
            "volume_id": self.last.volume_id,
            "known_epoch": self.last.epoch,
            "pinned": self.last.checkpoint,
        }
        return make_request(**{**known, **changes})

    def prepare(self, **changes: Any) -> PrepareReport:
        self.last = self.ask(self.next_request(**changes))
        return self.last

    # -- the run directory -----------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        assert self.last is not None
        assert self.last.run_id is not None
        return self.last.run_id

    @property
    def epoch(self) -> int:
        assert self.last is not None
        return self.last.epoch

    def directory(self, run_id: str | None = None) -> Path:
        return self.root / "sweep" / "digits-lr" / "runs" / (run_id or self.run_id)

    def layout(self, run_id: str | None = None) -> RunLayout:
        return RunLayout(str(self.directory(run_id)))

    def runs(self) -> list[str]:
        parent = self.root / "sweep" / "digits-lr" / "runs"
        return sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.exists() else []

    def claims(self, run_id: str | None = None) -> list[dict[str, Any]]:
        found = sorted(Path(self.layout(run_id).claims).glob("[0-9]*.json"))
        return [json.loads(path.read_bytes()) for path in found]

    def decision(self, epoch: int, run_id: str | None = None) -> Decision:
        path = Path(self.layout(run_id).decision(epoch))
        return Decision.from_value(json.loads(path.read_bytes()), str(path))

    # -- what an attempt leaves ------------------------------------------------------------------------------------

    def save(self, step: int, *, epoch: int | None = None, content: bytes = b"", **manifest: Any) -> Path:
        """A whole checkpoint of the own format."""
        place = self.directory() / "checkpoints"
        return own_checkpoint(
            place, run_id=self.run_id, step=step, epoch=epoch or self.epoch, content=content, **manifest
        )

    def put(self, name: str, data: bytes) -> Path:
        """A foreign file in the checkpoint directory."""
        path = self.directory() / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def starts(self, *slots: str, pod: str = "pod", unwrapped: bool = False) -> None:
        for slot in slots or SLOTS:
            record = StartRecord(
                self.epoch, slot, f"{pod}-{slot}", pod_name=slot, node="node-1", time=1.0, unwrapped=unwrapped
            )
            self._record(self.layout().start(self.epoch, slot), record.to_dict())

    def ends(self, *slots: str, pod: str = "pod", **changes: Any) -> None:
        for slot in slots or SLOTS:
            record = EndRecord(
                epoch=self.epoch,
                slot=slot,
                pod_uid=f"{pod}-{slot}",
                exit_code=0,
                told_to_stop=False,
                completed=False,
                last_step=900,
                first_step_seconds=2.0,
                time=1.0,
            )
            self._record(self.layout().end(self.epoch, slot), replace(record, **changes).to_dict())

    def uses_library(self) -> None:
        self._record(self.layout().library(self.epoch), LibraryRecord(self.epoch, world_size=2).to_dict())

    def calls_complete(self, **changes: Any) -> None:
        record = CompleteRecord(epoch=self.epoch, world_size=2, step=1000, metrics={"loss": "0.25"})
        self._record(self.layout().completion(self.epoch), replace(record, **changes).to_dict())

    def init_leaves(self, staging: str, *, key: str = "uid-0-0", files: Iterable[tuple[str, bytes]]) -> None:
        place = make_init_directory(Volume(str(self.root)), key=key, staging=staging)
        for name, data in files:
            (self.root / place / name).write_bytes(data)

    @staticmethod
    def _record(path: str, value: dict[str, Any]) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(dump(value))
