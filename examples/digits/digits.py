"""What both scripts of this example train: a small network on scikit-learn's handwritten digits, with everything that
a resume can get wrong: dropout, batch normalisation, momentum, a schedule, shuffling, augmentation."""

from __future__ import annotations

import argparse
import atexit
import hashlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy
import torch
import torch.distributed as dist
import yaml
from sklearn.datasets import load_digits
from torch import nn

COLLECTIVE_SECONDS = 60


@dataclass(frozen=True)
class Config:
    lr: float = 0.05
    batch_size: int = 32
    seed: int = 17

    @staticmethod
    def read(path: str | None) -> Config:
        """From train_config_overrides.yaml."""
        if not path:
            return Config()
        with open(path) as file:
            given = yaml.safe_load(file) or {}
        return Config(
            lr=float(given.get("lr", Config.lr)),
            batch_size=int(given.get("batch_size", Config.batch_size)),
            seed=int(given.get("seed", Config.seed)),
        )


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--checkpoint-every", type=int, default=20)
    parser.add_argument("--step-seconds", type=float, default=0.0, help="a step takes at least this long")
    return parser


def join_ranks() -> tuple[int, int]:
    """(rank, world size); without a launcher there is one rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(backend, timeout=timedelta(seconds=COLLECTIVE_SECONDS))
        if backend == "gloo":  # its threads must end before the interpreter does
            atexit.register(dist.destroy_process_group)
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def seed_everything(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


class Batches:
    """An endless stream of one rank's batches, shuffled anew for each pass; its state says where in it we are."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, *, size: int, rank: int, world: int, seed: int):
        self._inputs, self._labels = inputs, labels
        self._size, self._rank, self._world, self._seed = size, rank, world, seed
        self._pass, self._position = 0, 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        share = len(self._inputs) // self._world
        if self._position + self._size > share:
            self._pass, self._position = self._pass + 1, 0
        generator = torch.Generator().manual_seed(self._seed + self._pass)
        order = torch.randperm(len(self._inputs), generator=generator)[self._rank :: self._world]
        chosen = order[self._position : self._position + self._size]
        self._position += self._size
        noise = 0.1 * torch.randn(len(chosen), self._inputs.shape[1])
        return self._inputs[chosen] + noise, self._labels[chosen]

    def state_dict(self) -> dict[str, int]:
        return {"pass": self._pass, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._pass, self._position = state["pass"], state["position"]


class Training:
    def __init__(self, config: Config, *, steps: int, rank: int, world: int) -> None:
        torch.use_deterministic_algorithms(True)
        seed_everything(config.seed)
        self.rank, self.world = rank, world
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        data = load_digits()
        inputs = torch.tensor(data.data / 16.0, dtype=torch.float32)
        labels = torch.tensor(data.target)
        train = int(0.9 * len(inputs))
        self._test = inputs[train:], labels[train:]
        self.loader = Batches(
            inputs[:train], labels[:train], size=config.batch_size, rank=rank, world=world, seed=config.seed
        )
        self.model = nn.Sequential(
            nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 256), nn.ReLU(),
            nn.Linear(256, 10),
        ).to(self.device)  # fmt: skip
        self._parallel = nn.parallel.DistributedDataParallel(self.model) if world > 1 else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.lr / 10)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)
        seed_everything(config.seed + 1 + rank)  # each rank has its own dropout and its own noise

    def step(self, *, at_least: float = 0.0) -> dict[str, float]:
        """One optimizer step; takes `at_least` seconds."""
        began = time.monotonic()
        inputs, labels = next(self.loader)
        loss = nn.functional.cross_entropy(self._parallel(inputs.to(self.device)), labels.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        learning_rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        time.sleep(max(0.0, began + at_least - time.monotonic()))
        return {"loss": loss.item(), "lr": learning_rate}

    def accuracy(self) -> float:
        inputs, labels = self._test
        self.model.eval()
        with torch.no_grad():
            found = self.model(inputs.to(self.device)).argmax(dim=1).cpu()
        self.model.train()
        return (found == labels).float().mean().item()

    def digest(self) -> str:
        """Of the complete state on all ranks: parameters, buffers, optimizer, schedule, loader, random generator."""
        parts = [self.model, self.optimizer, self.scheduler, self.loader]
        mine = hashlib.sha256()
        for state in (*(part.state_dict() for part in parts), torch.get_rng_state(), random.getstate()):
            _absorb(mine, state)
        digests = [mine.hexdigest()] * self.world
        if self.world > 1:
            dist.all_gather_object(digests, mine.hexdigest())
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def _absorb(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _absorb(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _absorb(digest, item)
    else:
        digest.update(repr(value).encode())
