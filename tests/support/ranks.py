"""Ranks of one attempt, forked from a process that has imported torch already: a start costs a tenth of a second."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any
from unittest import mock

PRELOADED = [
    "numpy.random",
    "sweeprun_trainer.dcp_storage",
    "sweeprun_trainer.loader",
    "sweeprun_trainer.run",
    "sweeprun_trainer.sharded",
    "torch._dynamo",  # by the first optimizer, a second of imports
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "torch.optim.swa_utils",
    "torch.utils.data",
    "torchdata.stateful_dataloader",
]


def context() -> Any:
    """Of processes that are forked from one with nothing but its main thread: what has none yet cannot be torn."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # OpenBLAS starts its threads when it is loaded
        ensure_running()
    return forking


def run_rank(script: str, environ: Mapping[str, str], log: str) -> None:
    """The script as the main program of this process, which leads a session of its own and has no other environment."""
    threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environ)
    # as in a process that a shell has started: workers of loaders would inherit ours, and import torch each
    multiprocessing.set_start_method("fork", force=True)
    try:
        assert threads == 1, f"the process that forks ranks has {threads} threads: one of them may have held a lock"
        runpy.run_path(script, run_name="__main__")
    finally:
        # in the order of an interpreter's end; processes of multiprocessing leave without the second
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()


class Ranks:
    """All ranks of one attempt; each has RANK, WORLD_SIZE and RENDEZVOUS, and a log in `place`."""

    def __init__(
        self, forking: Any, script: Path, environs: list[Mapping[str, str]], *, place: Path, name: str
    ) -> None:
        self.logs = [place / f"log-{name}-{rank}" for rank in range(len(environs))]
        own = {
            "WORLD_SIZE": str(len(environs)),
            "RENDEZVOUS": str(place / f"rendezvous-{name}"),
            "OMP_NUM_THREADS": "1",
        }
        self._processes = [
            forking.Process(target=run_rank, args=(str(script), {**environ, **own, "RANK": str(rank)}, str(log)))
            for rank, (environ, log) in enumerate(zip(environs, self.logs, strict=True))
        ]
        for process in self._processes:
            process.start()

    def signal(self, rank: int, number: int) -> None:
        """To the rank itself, as the entrypoint forwards it; SIGKILL to all that it started, as the kernel does it."""
        process = self._processes[rank]
        if process.exitcode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                _kill_session(process.pid)
            else:
                os.kill(process.pid, number)

    @property
    def exit_codes(self) -> list[int | None]:
        return [process.exitcode for process in self._processes]

    @property
    def running(self) -> bool:
        return None in self.exit_codes

    def wait(self, seconds: float) -> list[int | None]:
        """Exit codes; None: still running."""
        end = time.monotonic() + seconds
        for process in self._processes:
            process.join(max(0.0, end - time.monotonic()))
        return self.exit_codes

    def said(self, rank: int) -> str:
        return self.logs[rank].read_text(errors="replace")

    def end(self) -> None:
        for rank, process in enumerate(self._processes):
            self.signal(rank, signal.SIGKILL)
            process.join()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def _kill_session(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # before its setsid
        os.kill(pid, signal.SIGKILL)
