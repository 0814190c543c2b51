"""Ranks of one attempt as processes, on a real run directory."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.cluster import eventually
from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.layout import step_name
from sweeprun_protocol.manifest import digest_of

SCRIPT = Path(__file__).with_name("ranks_script.py")
RUN = "run-1"
SECONDS = 90


@dataclass
class Rank:
    process: subprocess.Popen[str]
    seen: Path

    @property
    def step(self) -> int:
        return int(self.seen.read_text() or 0) if self.seen.exists() else 0

    def wait_step(self, step: int) -> None:
        eventually(lambda: self.step >= step, f"step {step}", timeout=SECONDS, every=0.02)

    def wait(self) -> tuple[int, str]:
        """(exit code, what it said)."""
        said, _ = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Attempt:
    """Starts ranks with what the operator tells them."""

    root: Path
    known: RunEnvironment
    scratch: Path
    stack: ExitStack

    def wait_commit(self, step: int, *, of_epoch: int) -> None:
        """Until the checkpoint can be read: a script that has logged a step has not saved it yet."""
        manifest = self._checkpoint(step, of_epoch) / "manifest.json"
        eventually(manifest.exists, f"the commit of step {step}", timeout=SECONDS, every=0.02)

    def _checkpoint(self, step: int, epoch: int) -> Path:
        return self.root / "checkpoints" / step_name(step, epoch)

    def resume(self, step: int, *, of_epoch: int) -> Attempt:
        """The next epoch, pinned to a checkpoint."""
        path = self._checkpoint(step, of_epoch)
        known = replace(
            self.known,
            epoch=of_epoch + 1,
            attempt=of_epoch,
            resume_from=str(path),
            resume_step=step,
            resume_epoch=of_epoch,
            resume_digest=digest_of((path / "manifest.json").read_bytes()),
            resume_format="SweepRun",
        )
        return replace(self, known=known)

    def start(
        self, *, world: int = 2, steps: int = 20, by_rank: Mapping[int, RunEnvironment] | None = None, **environ: str
    ) -> list[Rank]:
        number = next(_numbers)
        return [
            self._start(
                rank, world, number, {"STEPS": str(steps), **(by_rank or {}).get(rank, self.known).encode(), **environ}
            )
            for rank in range(world)
        ]

    def _start(self, rank: int, world: int, number: int, environ: dict[str, str]) -> Rank:
        seen = self.scratch / f"seen-{number}-{rank}"
        own = {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "RENDEZVOUS": str(self.scratch / f"rendezvous-{number}"),
            "SEEN": str(seen),
            "OMP_NUM_THREADS": "1",
        }
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env={**inherited, **environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        rank_process = Rank(process, seen)
        self.stack.enter_context(process)
        self.stack.callback(rank_process.kill)
        return rank_process


_numbers = itertools.count()


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    """Epoch 1 of a new run."""
    root, scratch = tmp_path / "run", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    known = RunEnvironment(
        run_id=RUN,
        sweep_name="sweep",
        run_dir=str(root),
        checkpoint_dir=str(root / "checkpoints"),
        config_file=None,
        epoch=1,
        attempt=0,
        slots=["master-0", "worker-0"],
        grace_seconds=30,
        resume_from=None,
        resume_step=None,
        resume_epoch=None,
        resume_digest=None,
        resume_format=None,
        resume_args="",
    )
    with ExitStack() as stack:
        yield Attempt(root, known, scratch, stack)
