"""How long eight ranks take to agree on a checkpoint: both votes of a restore, without the reading between them."""

from __future__ import annotations

import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from typing import Any

from .measuring import Bench, Row

WORLD = 8
VOTES = 12


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("agreement", "torch is not installed")
        return
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["sweeprun_trainer.run"])
    answers = forking.Queue()
    store = f"file://{bench.place}/rendezvous"
    ranks = [forking.Process(target=_vote, args=(rank, store, answers)) for rank in range(WORLD)]
    for rank in ranks:
        rank.start()
    found = [answers.get(timeout=300) for _ in ranks]
    for rank in ranks:
        rank.join()
    # of each restore the slowest rank, since all of them wait for it
    slowest = [max(seconds) for seconds in zip(*found, strict=True)][2:]
    detail = f"{min(slowest) * 1000:.0f} to {max(slowest) * 1000:.0f} ms in {len(slowest)} restores"
    name = f"two votes of {WORLD} ranks on one checkpoint"
    yield Row.at_most(name, statistics.median(slowest) * 1000, 100, "ms", detail)


def _vote(rank: int, store: str, answers: Any) -> None:
    import torch
    import torch.distributed as dist

    from sweeprun_trainer.agreement import Pinned, agree
    from sweeprun_trainer.ranks import Ranks

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    ranks = Ranks(timeout_seconds=60)
    pinned = Pinned("run-1", 2, 500, "checkpoints/step-000000500.e1", "sha256:" + "0" * 64, "SweepRun")
    seconds = []
    for _ in range(VOTES):
        ranks.most([0])()
        began = time.monotonic()
        agree(ranks, pinned, None)
        agree(ranks, pinned, None)
        seconds.append(time.monotonic() - began)
    answers.put(seconds)
    dist.destroy_process_group()
