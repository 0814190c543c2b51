"""Trains a small network whose parameters, gradients and optimizer states are cut over the ranks by fully_shard.

torchrun --nproc-per-node=2 train.py
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import sweeprun_trainer as sweeprun


def make_loader(rank: int, world: int) -> sweeprun.ResumableLoader:
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16.0, dtype=torch.float32), torch.tensor(digits.target))
    sampler = DistributedSampler(data, world, rank, seed=17)
    return sweeprun.ResumableLoader(DataLoader(data, batch_size=32, sampler=sampler))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--checkpoint-every", type=int, default=20)
    options = parser.parse_args()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(dist.destroy_process_group)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))

    run = sweeprun.current()
    torch.manual_seed(17)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10)).to(device)
    mesh = dist.init_device_mesh(device, (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    loader = make_loader(dist.get_rank(), dist.get_world_size())
    torch.manual_seed(18 + dist.get_rank())  # each rank has its own dropout

    checkpoints = run.checkpointer(sharded={"model": model, "optimizer": optimizer}, per_rank={"loader": loader})
    step = checkpoints.restore()
    loss = torch.zeros(())
    for _ in range(loader.epoch, options.epochs):
        for inputs, labels in loader:
            step += 1
            loss = nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % options.checkpoint_every == 0:
                checkpoints.save_async(step)
            if run.should_stop(step):
                checkpoints.save(step)
                return run.finish(sweeprun.STOPPED)
    run.complete({"loss": loss.item()}, step=step)
    return 0


if __name__ == "__main__":
    sys.exit(main())
