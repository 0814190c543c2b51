"""What the library, and the entrypoint beside it, cost a training of 100 steps a second."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .measuring import Bench, Row

STEP_SECONDS = 0.01
STEPS = 400
WORLD = 2
ENTRYPOINT_SECONDS = 6.0


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("overhead", "torch is not installed")
        return
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["sweeprun_trainer.run"])
    for world in (1, WORLD):
        answers = forking.Queue()
        store = f"file://{bench.place}/rendezvous-{world}"
        ranks = [forking.Process(target=_train, args=(rank, world, store, answers)) for rank in range(world)]
        for rank in ranks:
            rank.start()
        share = max(answers.get(timeout=300) for _ in ranks)
        for rank in ranks:
            rank.join()
        name = f"time in should_stop() at 100 steps a second, {world} rank{'s' if world > 1 else ''}"
        yield Row.at_most(name, share * 100, 0.5, "%", f"of {STEPS} steps")
    used = _entrypoint(bench)
    yield Row.at_most(
        "processor time of the entrypoint meanwhile", used * 100, 0.5, "%", f"of one, in {ENTRYPOINT_SECONDS:g} s"
    )


def _train(rank: int, world: int, store: str, answers: Any) -> None:
    """Steps that do nothing: what is measured is the time of the calls, waiting for peers included."""
    import torch
    import torch.distributed as dist

    from sweeprun_trainer.ranks import Ranks
    from sweeprun_trainer.run import Run
    from sweeprun_trainer.stop import StopFlag

    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    ranks = Ranks(timeout_seconds=60)
    run = Run(None, ranks, StopFlag())
    spent = 0.0
    began = time.perf_counter()
    for step in range(1, STEPS + 1):
        while time.perf_counter() < began + step * STEP_SECONDS:
            time.sleep(0.0005)
        if world > 1 and run._together._left == 1:
            ranks.most([0])()  # steps of data parallel training begin together: what ranks wait for is not the library
        before = time.perf_counter()
        run.should_stop(step)
        spent += time.perf_counter() - before
    answers.put(spent / (STEPS * STEP_SECONDS))
    if world > 1:
        dist.destroy_process_group()


_SENDER = """
import os, time
from sweeprun_trainer.channel import Sender
sender = Sender(os.environ)
end = time.monotonic() + float(os.environ["SECONDS"])
step = 0
while time.monotonic() < end:
    step += 20
    sender.send({"step": step})
    time.sleep(0.2)
"""


def _entrypoint(bench: Bench) -> float:
    """As the library reports to it: five times a second. Its start is left out."""
    from support.run_directory import RunDirectory

    run = RunDirectory(bench.place / "volume")
    pod = {
        "SWEEPRUN_REPLICA_TYPE": "master",
        "SWEEPRUN_REPLICA_INDEX": "0",
        "SWEEPRUN_POD_UID": "uid",
        "SWEEPRUN_POD_NAME": "pod",
        "SWEEPRUN_PORT": "0",
        "SWEEPRUN_TERMINATION_LOG": str(bench.place / "termination"),
        "SECONDS": str(ENTRYPOINT_SECONDS + 4),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-m", "sweeprun_trainer", "exec", "--", sys.executable, "-c", _SENDER]
    with subprocess.Popen(command, env={**run.environment().encode(), **pod}) as process:
        time.sleep(2)
        before = _processor_seconds(process.pid)
        time.sleep(ENTRYPOINT_SECONDS)
        used = _processor_seconds(process.pid) - before
    if process.returncode != 0:
        raise RuntimeError(f"the entrypoint ended with {process.returncode}")
    return used / ENTRYPOINT_SECONDS


def _processor_seconds(pid: int) -> float:
    """Of all its threads, in nanoseconds by the scheduler: ticks would be too coarse."""
    threads = [Path(f"/proc/{pid}/task/{task}/schedstat").read_text() for task in os.listdir(f"/proc/{pid}/task")]
    return sum(int(thread.split()[0]) for thread in threads) / 1e9
