"""Committing a checkpoint with digests and manifest, against torch.save and fsync of the same state."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeprun_volume.operations import Volume

from .measuring import Bench, Row

TENSORS = 4


class _State:
    def __init__(self, size: int) -> None:
        import torch

        parts = range(TENSORS)
        self._tensors = {str(part): torch.randint(256, (size // TENSORS,), dtype=torch.uint8) for part in parts}

    def state_dict(self) -> dict[str, Any]:
        return self._tensors

    def load_state_dict(self, state_dict: Any) -> None:
        raise NotImplementedError("nothing is read here")


def measure(bench: Bench) -> Iterator[Row]:
    size = bench.mib("SAVE", 256)
    state = _State(size)
    found = bench.ratio(_committing(bench.place, state), _saving(bench.place, state))
    name = f"time to commit {size >> 20} MiB, of torch.save and fsync"
    yield Row.at_most(name, 100 / found.speedup, 105, "%", found.rates(size))


def _committing(place: Path, state: _State) -> Any:
    from sweeprun_trainer.agreement import Pinned
    from sweeprun_trainer.channel import Sender
    from sweeprun_trainer.checkpointer import Checkpointer
    from sweeprun_trainer.commit import Place
    from sweeprun_trainer.ranks import Ranks
    from sweeprun_trainer.state import items

    run = place / "run"
    run.mkdir()
    checkpointer = Checkpointer(
        Place(Volume(str(run)), "run-1", 1, "checkpoints", fenced=False),
        Ranks(timeout_seconds=60),
        items({"model": state}, {}, rank=0),
        pinned=Pinned("run-1", 1, 0, None, None, None),
        sender=Sender({}),
        leave=lambda code: None,
    )
    steps = itertools.count()

    def commit() -> None:
        if not checkpointer.save(next(steps)):
            raise RuntimeError("nothing was committed: the log says why")
        shutil.rmtree(run / "checkpoints")

    return commit


def _saving(place: Path, state: _State) -> Any:
    import torch

    path = place / "plain.pt"

    def save() -> None:
        with path.open("wb") as file:
            torch.save(state.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        path.unlink()

    return save
