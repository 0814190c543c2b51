"""Committing shards with digests and manifest, against torch.distributed.checkpoint with fsync of the same tensors."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeprun_volume.operations import Volume

from .measuring import Bench, Row

TENSORS = 8


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("commit of shards", "torch is not installed")
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import Shard, distribute_tensor

    size = bench.mib("SAVE", 256)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = dist.init_device_mesh("cpu", (1,))
    whole = [torch.randint(256, (size // TENSORS,), dtype=torch.uint8) for _ in range(TENSORS)]
    tensors = {f"model/{number}": distribute_tensor(one, mesh, [Shard(0)]) for number, one in enumerate(whole)}
    found = bench.ratio(_committing(bench.place, tensors), _saving(bench.place, tensors))
    name = f"time to commit {size >> 20} MiB of shards, of dcp.save and fsync"
    yield Row.at_most(name, 100 / found.speedup, 105, "%", found.rates(size))
    dist.destroy_process_group()


def _committing(place: Path, tensors: dict[str, Any]) -> Any:
    from sweeprun_trainer.commit import Captured, Committer, Place
    from sweeprun_trainer.ranks import Ranks
    from sweeprun_volume.hashing import preferred_algorithm

    run = place / "run"
    run.mkdir()
    committer = Committer(Place(Volume(str(run)), "run-1", 1, "checkpoints", fenced=False), Ranks(timeout_seconds=60))
    steps = itertools.count()

    def commit() -> None:
        captured = Captured(next(steps), tensors=tensors)
        done = committer.commit(captured, algorithm=preferred_algorithm(), began=0.0, parent=None, waited=0.0)
        if done.problem is not None:
            raise RuntimeError(done.problem)
        shutil.rmtree(run / "checkpoints")

    return commit


def _saving(place: Path, tensors: dict[str, Any]) -> Any:
    import torch.distributed.checkpoint as dcp

    path = place / "plain"

    def save() -> None:
        dcp.save(dict(tensors), storage_writer=dcp.FileSystemWriter(path, sync_files=True))
        shutil.rmtree(path)

    return save
