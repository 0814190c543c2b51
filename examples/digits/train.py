"""Trains on scikit-learn's digits with the library: exact state on every rank, saved when told to stop, one W&B run."""

from __future__ import annotations

import sys
from pathlib import Path

from digits import Config, Training, arguments, join_ranks

import sweeprun_trainer as sweeprun


def main() -> int:
    parser = arguments()
    parser.add_argument("--polite-exit-code", type=int, default=sweeprun.STOPPED, help="after a save on SIGTERM")
    options = parser.parse_args()
    rank, world = join_ranks()
    run = sweeprun.current()
    config = Config.read(run.config_file)
    training = Training(config, steps=options.steps, rank=rank, world=world)
    wandb = run.track(config=vars(config))
    checkpoints = run.checkpointer(
        shared={"model": training.model, "optimizer": training.optimizer, "scheduler": training.scheduler},
        per_rank={"loader": training.loader},
    )
    for step in range(checkpoints.restore() + 1, options.steps + 1):
        wandb.log(step, training.step(at_least=options.step_seconds))
        stop = run.should_stop(step)
        if stop or step % options.checkpoint_every == 0 or step == options.steps:
            checkpoints.save(step)
        if stop and step < options.steps:
            return run.finish(options.polite_exit_code)
    digest = training.digest()
    if rank == 0:
        Path(run.directory, "final_digest.txt").write_text(digest + "\n")
    run.complete({"final_digest": digest, "accuracy": training.accuracy()}, step=options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
