"""One rank of a training that uses the library: the same file on every rank, as in a pod."""

from __future__ import annotations

import atexit
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import sweeprun_trainer as sweeprun

STEPS = int(os.environ["STEPS"])


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.value = state_dict["value"]


def main() -> int:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world > 1:
        store = f"file://{os.environ['RENDEZVOUS']}"
        timeout = timedelta(seconds=30)
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timeout)
        atexit.register(dist.destroy_process_group)
    run = sweeprun.current(timeout_seconds=30)
    torch.manual_seed(rank)
    model, counter = torch.nn.Linear(4, 4), Counter()
    wandb = run.track(config={"lr": 0.1})
    checkpoints = run.checkpointer({"model": model}, {"counter": counter})
    first = checkpoints.restore() + 1
    for step in range(first, STEPS + 1):
        counter.value += rank + 1
        wandb.log(step, {"value": float(counter.value)})
        Path(os.environ["SEEN"]).write_text(str(step))
        time.sleep(0.02)
        stop = run.should_stop(step)
        if stop or step % 5 == 0:
            checkpoints.save(step)
        if stop:
            return run.finish(sweeprun.STOPPED)
        while os.environ.get("HANG_AT") == str(step):
            time.sleep(0.1)
    run.complete({"value": counter.value}, step=STEPS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
