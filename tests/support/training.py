"""A small training state, and checkpointers of one rank or several on a real directory."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

from sweeprun_protocol.layout import RunLayout, step_name
from sweeprun_protocol.manifest import digest_of
from sweeprun_trainer.agreement import Pinned
from sweeprun_trainer.channel import Sender
from sweeprun_trainer.checkpointer import Checkpointer
from sweeprun_trainer.commit import Place
from sweeprun_trainer.ranks import Ranks
from sweeprun_trainer.state import items
from sweeprun_trainer.stateful import Stateful
from sweeprun_volume.operations import Volume

RUN = "run-1"
DIRECTORY = "checkpoints"


class Position:
    """Stands for a data loader."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


class Rig:
    """Model, optimizer and loader of one rank."""

    def __init__(self, seed: int = 1) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.loader = Position()

    def step(self) -> float:
        """Draws from every generator."""
        self.loader.value += 1
        inputs = torch.randn(4, 8) * random.random() + float(numpy.random.normal())
        loss = self.model(inputs).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    @property
    def shared(self) -> dict[str, Stateful]:
        return {"model": self.model, "optimizer": self.optimizer}

    @property
    def per_rank(self) -> dict[str, Stateful]:
        return {"loader": self.loader}


def unpinned(epoch: int = 1) -> Pinned:
    return Pinned(RUN, epoch, 0, None, None, None)


def pinned_to(root: Path, step: int, *, of_epoch: int = 1, epoch: int = 2) -> Pinned:
    """As the operator pins what prepare has verified."""
    path = f"{DIRECTORY}/{step_name(step, of_epoch)}"
    digest = digest_of((root / path / "manifest.json").read_bytes())
    return Pinned(RUN, epoch, step, path, digest, "SweepRun")


def checkpointer(
    root: Path,
    rig: Rig,
    *,
    pinned: Pinned | None = None,
    ranks: Ranks | None = None,
    before: Callable[[str, str], None] | None = None,
    leave: Callable[[int], object] = int,
    **settings: Any,
) -> Checkpointer:
    root.mkdir(parents=True, exist_ok=True)
    pinned = pinned or unpinned()
    ranks = ranks or Ranks(timeout_seconds=30)
    volume = Volume(str(root), before=before) if before is not None else Volume(str(root))
    place = Place(volume, RUN, pinned.epoch, DIRECTORY)
    found = items(rig.shared, rig.per_rank, rank=ranks.rank)
    return Checkpointer(place, ranks, found, pinned=pinned, sender=Sender({}), leave=leave, **settings)


def claims(root: Path) -> Path:
    return root / RunLayout("").claims
