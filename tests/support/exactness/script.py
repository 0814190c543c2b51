"""What is killed and resumed: a small training with every kind of state, data parallel or sharded, on the CPU.

Every step depends on all of it: dropout, augmentation from each generator, momentum, a schedule, a scaler, an average
of the weights, accumulation over two batches, a shuffled pass with a rest.
"""

from __future__ import annotations

import atexit
import copy
import hashlib
import os
import random
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import sweeprun_trainer as sweeprun

MODE = os.environ["EXACT_MODE"]
WORKERS = int(os.environ["EXACT_WORKERS"])
LOADER = os.environ["EXACT_LOADER"]
STEPS = int(os.environ["EXACT_STEPS"])
EVERY = int(os.environ["EXACT_EVERY"])
PLACE = Path(os.environ["EXACT_PLACE"])
BACKGROUND = os.environ["EXACT_BACKGROUND"] == "1"
WAITS = os.environ.get("EXACT_WAITS") == "1"
"""At its very last step, to be killed there."""
ACCUMULATE = 2
LENGTH, BATCH = 46, 4


class Samples(Dataset[torch.Tensor]):
    """Drawn anew each time from all three generators of the process that loads."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = torch.rand(8) * random.random() + float(numpy.random.normal())
        return torch.linspace(0, index + 1, 8) / LENGTH + 0.1 * noise


class Losses:
    """State of the user's own."""

    def __init__(self) -> None:
        self.sums: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"sums": list(self.sums)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums = list(state_dict["sums"])


class Training:
    def __init__(self, rank: int, world: int) -> None:
        torch.use_deterministic_algorithms(True)
        seed_everything(5)
        self.model: Any = nn.Sequential(
            nn.Linear(8, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(16, 9),
            nn.ReLU(),
            nn.Linear(9, 1),
        )
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        self.average: Any = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=average, use_buffers=False)
        self.parallel: Any = self.model
        if MODE == "fsdp":
            from torch.distributed.fsdp import fully_shard

            mesh = dist.init_device_mesh("cpu", (world,))
            for module in (self.model, self.average.module):
                fully_shard(module[0], mesh=mesh)
                fully_shard(module, mesh=mesh)
        elif world > 1:
            # without the broadcast every rank's buffers follow its own batches alone
            self.parallel = nn.parallel.DistributedDataParallel(self.model, broadcast_buffers=MODE == "ddp")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.02)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=STEPS)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
        self.own = torch.Generator().manual_seed(100 + rank)
        self.counts = {"batches": 0, "best": 1e9}
        self.losses = Losses()
        self.loader = sweeprun.ResumableLoader(self.make_loader(rank, world))
        seed_everything(6 + rank)

    def make_loader(self, rank: int, world: int) -> Any:
        if LOADER == "distributed":
            sampler: Any = DistributedSampler(range(LENGTH), world, rank, seed=3)
            return DataLoader(Samples(), BATCH, sampler=sampler, num_workers=WORKERS)
        shuffled: Any = {"batch_size": BATCH, "shuffle": True, "num_workers": WORKERS}
        if LOADER == "generator":
            return DataLoader(Samples(), generator=torch.Generator().manual_seed(9 + rank), **shuffled)
        if LOADER == "stateful":
            from torchdata.stateful_dataloader import StatefulDataLoader

            return StatefulDataLoader(Samples(), generator=torch.Generator().manual_seed(9 + rank), **shuffled)
        return DataLoader(Samples(), **shuffled)

    def parts(self) -> dict[str, Any]:
        tensors = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        shared = {"scheduler": self.scheduler, "scaler": self.scaler}
        mine = {"loader": self.loader, "own": self.own, "counts": self.counts, "losses": self.losses}
        if MODE == "fsdp":
            return {"sharded": tensors, "shared": shared, "per_rank": mine}
        return {"shared": {**tensors, **shared}, "per_rank": mine}

    def kept(self) -> dict[str, Any]:
        """All parts, but one that a test leaves out."""
        forgotten = os.environ.get("EXACT_FORGET")
        return {
            kind: {name: part for name, part in parts.items() if name != forgotten}
            for kind, parts in self.parts().items()
        }

    def batch(self, inputs: torch.Tensor) -> bool:
        """Whether an optimizer step was made."""
        inputs = inputs + 0.01 * torch.rand(inputs.shape, generator=self.own)
        loss = (self.parallel(inputs) - inputs.mean(dim=1, keepdim=True)).square().mean() / ACCUMULATE
        self.scaler.scale(loss).backward()
        self.counts["batches"] += 1
        self.counts["best"] = min(self.counts["best"], loss.item())
        self.losses.sums.append(loss.item())
        del self.losses.sums[:-20]
        if self.counts["batches"] % ACCUMULATE:
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.average.update_parameters(self.model)
        return True

    def digest(self) -> str:
        """Of everything, on this rank."""
        parts = [part for some in self.parts().values() for part in some.values()]
        mine = hashlib.sha256()
        for part in parts:
            absorb(mine, part.get_state() if isinstance(part, torch.Generator) else stated(part))
        absorb(mine, [torch.get_rng_state(), random.getstate(), list(numpy.random.get_state())])
        return mine.hexdigest()


def stated(part: Any) -> Any:
    return copy.deepcopy(part) if isinstance(part, dict) else part.state_dict()


def seed_everything(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def absorb(digest: Any, value: Any) -> None:
    if isinstance(value, DTensor):
        value = value.to_local()
    if isinstance(value, torch.Tensor):
        digest.update(value.detach().contiguous().numpy().tobytes())
    elif isinstance(value, numpy.ndarray):
        digest.update(value.tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            absorb(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            absorb(digest, item)
    else:
        digest.update(repr(value).encode())


def main() -> int:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    store = f"file://{os.environ['RENDEZVOUS']}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    atexit.register(dist.destroy_process_group)
    run = sweeprun.current(timeout_seconds=120)
    training = Training(rank, world)
    checkpoints = run.checkpointer(**training.kept())
    save = checkpoints.save_async if BACKGROUND else checkpoints.save
    step = checkpoints.restore()
    while step < STEPS:
        for inputs in training.loader:
            # a checkpoint holds no gradients: it is saved where an optimizer step was made
            if not training.batch(inputs):
                continue
            step += 1
            (PLACE / f"seen-{rank}").write_text(str(step))
            stop = run.should_stop(step)
            if step % EVERY == 0:
                save(step)
            if stop:
                checkpoints.save(step)
                return run.finish(sweeprun.STOPPED)
            if step == STEPS:
                break
    while WAITS:
        (PLACE / f"seen-{rank}").write_text(str(step + 1))
        time.sleep(0.005)
        if run.should_stop(step):
            checkpoints.save(step)
            return run.finish(sweeprun.STOPPED)
    (PLACE / f"digest-{rank}").write_text(training.digest())
    run.complete({"step": step}, step=step)
    return 0


if __name__ == "__main__":
    sys.exit(main())
