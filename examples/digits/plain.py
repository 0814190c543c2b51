"""Trains on scikit-learn's digits and knows nothing of SweepRun: torch.save, --resume-from, and that is all."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from digits import Config, Training, arguments, join_ranks


def save(training: Training, path: Path, step: int) -> None:
    """Rank 0 writes one file for all ranks: each has a place in the data and a random generator of its own."""
    mine = {"loader": training.loader.state_dict(), "rng": torch.get_rng_state()}
    ranks = [mine] * training.world
    if training.world > 1:
        dist.all_gather_object(ranks, mine)
    if training.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": step,
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "scheduler": training.scheduler.state_dict(),
            "ranks": ranks,
        }
        # whole under its name or not there: another suffix first, then the rename
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(path)


def load(training: Training, path: Path) -> int:
    state = torch.load(path, map_location="cpu", weights_only=True)
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.scheduler.load_state_dict(state["scheduler"])
    mine = state["ranks"][training.rank]
    training.loader.load_state_dict(mine["loader"])
    torch.set_rng_state(mine["rng"])
    return int(state["step"])


def main() -> None:
    parser = arguments()
    parser.add_argument("--config")
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("checkpoints"))
    parser.add_argument("--resume-from", type=Path)
    parser.add_argument("--digest-file", type=Path, default=Path("final_digest.txt"))
    parser.add_argument("--crash-at", type=int, help="raise at this step")
    parser.add_argument("--eat-memory-at", type=int, help="allocate until the kernel says no")
    options = parser.parse_args()
    rank, world = join_ranks()
    training = Training(Config.read(options.config), steps=options.steps, rank=rank, world=world)
    done = load(training, options.resume_from) if options.resume_from else 0
    hoard = []
    for step in range(done + 1, options.steps + 1):
        metrics = training.step(at_least=options.step_seconds)
        if step == options.crash_at:
            raise RuntimeError(f"crashed on request at step {step}")
        while options.eat_memory_at is not None and step >= options.eat_memory_at:
            hoard.append(b"\1" * (16 << 20))
        if step % options.checkpoint_every == 0 or step == options.steps:
            save(training, options.checkpoint_dir / f"step-{step}.pt", step)
        if rank == 0 and (step == done + 1 or step % options.checkpoint_every == 0):
            print(f"step {step} loss {metrics['loss']:.4f}", flush=True)
    digest = training.digest()
    if rank == 0:
        options.digest_file.write_text(digest + "\n")
        print(f"accuracy {training.accuracy():.3f} digest {digest}", flush=True)


if __name__ == "__main__":
    main()
