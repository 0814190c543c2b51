"""A rank that restores, where one rank may see another volume than the rest, hang or die; then it trains, or not."""

from __future__ import annotations

import atexit
import hashlib
import os
import sys
import threading
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import sweeprun_trainer as sweeprun
from sweeprun_trainer import checkpointer, dcp_storage
from sweeprun_trainer.commit import Committer
from sweeprun_volume.operations import Volume

PLACE = Path(os.environ["PLACE"])
TIMEOUT = float(os.environ["TIMEOUT"])
WHERE = {
    "at the sweep": (Committer, "sweep"),
    "before it verifies": (checkpointer, "verify"),
    "before it loads": (checkpointer.Checkpointer, "_load"),
    "in the load of shards": (dcp_storage._Reader, "read_data"),
    "between the votes": (checkpointer, "read_state"),
}


def spoil(what: str, where: str) -> None:
    """From now on this rank alone dies or hangs at a place, or sees a file as it is not."""
    if where in WHERE:
        owner, name = WHERE[where]

        def strike(*_, **__):
            if what == "die":
                os._exit(9)
            threading.Event().wait()

        setattr(owner, name, strike)
        return
    real = Volume.open_file

    def open_file(self, path):
        if path.endswith(where):
            if what == "missing":
                raise FileNotFoundError(f"{path} is not there")
            path = path.replace("step-000000002", "step-000000001")
        return real(self, path)

    Volume.open_file = open_file


def digest(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Of whole tensors, however they are cut."""
    found = hashlib.sha256()
    states = [optimizer.state[parameter]["exp_avg"] for parameter in model.parameters() if optimizer.state]
    for tensor in [*model.state_dict().values(), *states]:
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        found.update(whole.detach().numpy().tobytes())
    return found.hexdigest()


def main() -> int:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    store = f"file://{os.environ['RENDEZVOUS']}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    atexit.register(dist.destroy_process_group)
    run = sweeprun.current(timeout_seconds=TIMEOUT)
    torch.manual_seed(int(os.environ.get("SEED", "1")))
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    if os.environ["MODE"] == "sharded":
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.AdamW(model.parameters())
    counts = {"batches": 0}
    parts = {"model": model, "optimizer": optimizer}
    named = {"sharded": parts} if os.environ["MODE"] == "sharded" else {"shared": parts}
    resize = os.environ.get("RESIZE", "refuse")
    checkpoints = run.checkpointer(**named, per_rank={"counts": counts}, when_world_changes=resize)
    faulty, what, where = (os.environ.get("FAULT") or "-1;;").split(";")
    if rank == int(faulty):
        spoil(what, where)
    done = checkpoints.restore()
    (PLACE / f"started-{rank}").write_text(f"{done} {counts['batches']} {digest(model, optimizer)}")
    for step in range(done + 1, done + 3):
        counts["batches"] += rank + 1
        model(torch.ones(2, 5)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if not checkpoints.save(step):
            return 1
    (PLACE / f"ended-{rank}").write_text(digest(model, optimizer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
