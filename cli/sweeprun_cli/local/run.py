"""Executes one SweepRun on this machine, with the operator's own queue, decisions and passes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import re
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sweeprun_operator.api.status import ConditionStatus, ConditionType, State, SweepRunStatus
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.controller.decisions import BoundDecisions
from sweeprun_operator.controller.queue import Key, Queue
from sweeprun_operator.controller.reconcile import Reconciler
from sweeprun_operator.controller.workers import Workers
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_LABEL, ROLE_PREPARE
from sweeprun_protocol.layout import RunLayout, expand_run_directory

from .cluster import LocalCluster
from .containers import IMAGE_EXAMPLES, Machine, inherited
from .faults import Damage, Disturber, Fault, flip_bit, newest_checkpoint
from .gateway import NAMESPACE
from .manifest import Manifest
from .picture import Note, Picture
from .progress import Progress, Steps
from .store import Raw

IMAGE = "this-installation"
"""Of our own containers, which are played by this interpreter."""
LOCK = ".sweeprun-local.lock"


class RootInUseError(Exception):
    """Another local run works on this directory: which owner lives is known within one process only."""


class End(Enum):
    COMPLETE = "complete"
    FAILED = "failed"
    REFUSED = "not accepted"
    TIMED_OUT = "timed out"
    BROKEN = "broken"
    """A pass failed: on one machine, where no call can be lost, that is a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    root: Path
    """Stands for the volume."""
    logs: Path
    faults: tuple[Fault, ...] = ()
    damage: Damage | None = None
    timeout_seconds: float
    paths: tuple[tuple[str, str], ...] = ()
    """Further paths in containers and what they are here."""


class LocalRun:
    def __init__(self, manifest: Manifest, options: Options, *, told: Callable[[Note], None]) -> None:
        self._manifest = manifest
        self._options = options
        self._spec = manifest.run.spec
        self._damaged = options.damage is None
        self._struck = False
        self._ended: asyncio.Future[End] | None = None
        self.picture = Picture(name=manifest.run.metadata.name, total_steps=total_steps(manifest.raw), told=told)

    async def run(self) -> End:
        """Until the run is finished. Raises RootInUseError."""
        with locked(self._options.root):
            return await self._run()

    async def _run(self) -> End:
        self._ended = asyncio.get_running_loop().create_future()
        cluster = LocalCluster(
            self._machine(),
            directory=self._options.logs,
            container=self._spec.entrypoint.container_name,
            before=self._before,
            told=self.picture.event,
            warn=lambda text: self.picture.note(text, is_warning=True),
        )
        queue = Queue(jitter=random.random)
        key = Key(NAMESPACE, self._manifest.run.metadata.name)
        reconciler = Reconciler(
            cluster.gateway,
            BoundDecisions(Manifests(HelperImages(image=IMAGE))),
            clock=lambda: datetime.now(UTC),
            told=lambda _before, _after: None,
        )
        workers = Workers(queue, reconciler.reconcile, watcher=self._passed, count=1)
        disturber = Disturber(cluster, list(self._options.faults), pods=self._pods())
        progress = Progress(cluster, number_label=NUMBER_LABEL, told=lambda steps: self._look(disturber, steps))

        def changed(kind: str, raw: Raw) -> None:
            self._changed(kind, raw)
            queue.add(key)

        async with cluster:
            cluster.store.watch(changed)
            cluster.add_claim(self._spec.storage.persistent_volume_claim.claim_name)
            cluster.add_run(self._manifest.raw)
            try:
                return await self._first_end(workers.run(), progress.run())
            finally:
                queue.close()
                for fault in disturber.waiting:
                    self.picture.note(f"no pod was {fault.means} {fault}: the run did not get there", is_warning=True)

    async def _first_end(self, *work: Coroutine[Any, Any, None]) -> End:
        """The end of the run, or the bug that ended a part."""
        assert self._ended is not None, "set by _run"
        tasks = [asyncio.create_task(part) for part in work]
        try:
            waited: list[asyncio.Future[Any]] = [self._ended, *tasks]
            await asyncio.wait(waited, timeout=self._options.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            return self._ended.result() if self._ended.done() else End.TIMED_OUT
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _changed(self, kind: str, raw: Raw) -> None:
        self.picture.changed(kind, raw)
        status = self.picture.status
        if status.run_id is not None:
            self.picture.run_directory = self._options.root / expand_run_directory(
                self._spec.storage.run_directory, sweep_name=self._spec.sweep_name, run_id=status.run_id
            )
        end = _end(status)
        if end is not None:
            self._end(end)

    def _passed(self, _seconds: float, error: str) -> None:
        if error:
            self._end(End.BROKEN)

    def _end(self, end: End) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(end)

    def _look(self, disturber: Disturber, steps: Steps) -> None:
        self.picture.progressed(steps)
        before = disturber.waiting
        disturber.look(steps)
        for fault in before:
            if fault not in disturber.waiting:
                self._struck = True
                self.picture.note(f"a pod is {fault.means} {fault}, as asked", is_warning=True)

    def _before(self, pod: Raw) -> None:
        """Damage is done between an interruption and the prepare that judges what it left."""
        if self._damaged or not self._struck or pod["metadata"]["labels"].get(ROLE_LABEL) != ROLE_PREPARE:
            return
        directory, current = self.picture.run_directory, self.picture.status.current
        if directory is None or current is None:
            return
        self._damaged = True
        found = newest_checkpoint(
            Path(RunLayout(str(directory)).checkpoints(self._spec.checkpoint.directory, current.epoch))
        )
        if found is None:
            self.picture.note("there is no checkpoint to corrupt", is_warning=True)
            return
        victim = flip_bit(found)
        self.picture.note(f"one bit of {victim.relative_to(directory)} is flipped, as asked", is_warning=True)

    def _pods(self) -> int:
        replicas = self._spec.template.spec.get("pytorchReplicaSpecs", {})
        return sum(replica.get("replicas", 1) for replica in replicas.values())

    def _machine(self) -> Machine:
        directory = self._manifest.path.resolve().parent
        return Machine(
            python=sys.executable,
            paths=(
                *self._options.paths,
                (self._spec.storage.mount_path, str(self._options.root.resolve())),
                (IMAGE_EXAMPLES, str(examples_directory(directory))),
            ),
            environ=inherited(os.environ, python=sys.executable),
            directory=str(directory),
        )


def _end(status: SweepRunStatus) -> End | None:
    if status.is_true(ConditionType.COMPLETE):
        return End.COMPLETE
    if status.is_true(ConditionType.FAILED):
        return End.FAILED
    accepted = status.condition(ConditionType.ACCEPTED)
    if accepted is not None and accepted.status is ConditionStatus.FALSE:
        return End.REFUSED
    if status.current is not None and status.current.state is State.FINISHED:
        return End.FAILED  # stopped
    return None


def examples_directory(directory: Path) -> Path:
    """What stands for the examples folder of the image: the one that holds the manifest, else the manifest's own."""
    for above in (directory, *directory.parents):
        if above.name == "examples":
            return above
    return directory


def total_steps(raw: Raw) -> int | None:
    """`--steps 200` or `--steps=200` among the arguments, which is what most scripts call it."""
    match = re.search(r"--(?:max[-_])?steps(?:=|', ')'?(\d+)", str(raw.get("spec", {}).get("template")))
    return int(match.group(1)) if match else None


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One local run at a time works on a directory. Raises RootInUseError."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootInUseError(
                f"{root}: another local run works on this directory; wait for it, or use another --root"
            ) from None
        yield
