"""Attempts of scripts that use another library's training loop: two ranks that are killed or told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from support.cluster import eventually
from support.ports import free_port
from support.volume_checkpoints import context_at
from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import Format
from sweeprun_trainer.channel import PROGRESS_SOCKET, Receiver
from sweeprun_volume.formats import Refused, format_of
from sweeprun_volume.formats.finding import find_checkpoints
from sweeprun_volume.lineage import Found
from sweeprun_volume.operations import Volume

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = "run-1"
SECONDS = 120
WORLD = 2


@dataclass
class Attempt:
    """The processes of one attempt, and what they tell of their progress."""

    processes: list[subprocess.Popen[str]]
    receiver: Receiver
    step: int = 0
    committed: list[int] = field(default_factory=list)

    def _listen(self) -> None:
        while (message := self.receiver.receive()) is not None:
            self.step = max(self.step, message.get("step", 0))
            if "committed" in message:
                self.committed.append(message["committed"])

    def wait_step(self, step: int) -> None:
        def reached() -> bool:
            self._listen()
            assert all(one.poll() is None for one in self.processes), self.ends()
            return self.step >= step

        eventually(reached, f"step {step}", timeout=SECONDS, every=0.01)

    def send(self, number: signal.Signals, rank: int) -> None:
        self.processes[rank].send_signal(number)

    def kill(self) -> None:
        for one in self.processes:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)

    def ends(self) -> list[tuple[int, str]]:
        """(exit code, what it said) of each rank."""
        ended = []
        for one in self.processes:
            said, _ = one.communicate(timeout=SECONDS)
            ended.append((one.returncode, said))
        self._listen()
        return ended

    def codes(self) -> list[int]:
        ended = self.ends()
        print(*(said for _, said in ended), sep="\n")  # shown where the test fails
        return [code for code, _ in ended]


@dataclass
class FrameworkRun:
    """One run directory, and its attempts one after the other."""

    root: Path
    script: Path
    stack: ExitStack
    epoch: int = 0

    def attempt(self, *arguments: str, **environ: str) -> Attempt:
        """Starts the next one, from the newest checkpoint that prepare would take."""
        self.epoch += 1
        receiver = Receiver()
        self.stack.callback(receiver.close)
        shared = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **self.environment().encode(),
            PROGRESS_SOCKET: receiver.name,
            "OMP_NUM_THREADS": "1",
            "WORLD_SIZE": str(WORLD),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            **environ,
        }
        processes = [
            subprocess.Popen(
                [sys.executable, str(self.script), *arguments],
                env={**shared, "RANK": str(rank)},
                cwd=self.root.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            for rank in range(WORLD)
        ]
        attempt = Attempt(processes, receiver)
        for one in processes:
            self.stack.enter_context(one)
        self.stack.callback(attempt.kill)
        return attempt

    def environment(self) -> RunEnvironment:
        known = RunEnvironment(
            run_id=RUN,
            sweep_name="sweep",
            run_dir=str(self.root),
            checkpoint_dir=str(self.root / "checkpoints"),
            config_file=None,
            epoch=self.epoch,
            attempt=self.epoch - 1,
            slots=["master-0", "worker-0"],
            grace_seconds=30,
            resume_from=None,
            resume_step=None,
            resume_epoch=None,
            resume_digest=None,
            resume_format=None,
            resume_args="",
        )
        newest = self.newest()
        if newest is None:
            return known
        return replace(
            known,
            resume_from=str(self.root / newest.path),
            resume_step=newest.step,
            resume_epoch=self.epoch - 1,
            resume_format=str(newest.format),
        )

    def newest(self) -> Found | None:
        """As prepare judges with format Auto: the newest that is whole and resumable, every byte read."""
        found = find_checkpoints(Volume(str(self.root)), RunLayout(""), "checkpoints", Format.AUTO)
        for one in sorted(found, key=lambda one: one.step, reverse=True):
            try:
                context = context_at(self.root, run_id=RUN, seconds=30)
                format_of(one.format).check(context, one.path, step=one.step, epoch=1)
            except Refused as refused:
                print(f"{one.path} is refused: {refused.message}")
                continue
            return one
        return None

    def completion(self) -> dict[str, Any] | None:
        path = self.root / "epochs" / str(self.epoch) / "complete.json"
        return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def framework_run(directory: Path, script: str) -> Iterator[FrameworkRun]:
    """`script` is one of examples/."""
    root = directory / "run"
    root.mkdir(parents=True)
    with ExitStack() as stack:
        yield FrameworkRun(root, EXAMPLES / script, stack)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two loaded checkpoints differ, bit by bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: keys"]
        return [found for key in one for found in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{place}: length"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, (a, b) in pairs for found in differences(a, b, f"{place}/{index}")]
    return [] if one == other else [f"{place}: {one!r} {other!r}"]
