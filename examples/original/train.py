"""Trains on scikit-learn's digits and saves one `trainer_state.pt`, with `trainer_checkpoint.json` beside it, over and
over under the same names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "digits"))
from digits import Config, Training, arguments, join_ranks
from plain import load, save


def main() -> None:
    parser = arguments()
    parser.add_argument("--config", required=True)
    parser.add_argument("--checkpoint-dir", type=Path, required=True)
    parser.add_argument("--resume-from", type=Path)
    options = parser.parse_args()
    rank, world = join_ranks()
    training = Training(Config.read(options.config), steps=options.steps, rank=rank, world=world)
    done = load(training, options.resume_from) if options.resume_from else 0
    for step in range(done + 1, options.steps + 1):
        metrics = training.step(at_least=options.step_seconds)
        if step % options.checkpoint_every and step != options.steps:
            continue
        save(training, options.checkpoint_dir / "trainer_state.pt", step)
        if rank == 0:
            told = {"global_step": step, "loss": metrics["loss"], "torch": torch.__version__}
            (options.checkpoint_dir / "trainer_checkpoint.json").write_text(json.dumps(told))
            print(f"step {step} loss {metrics['loss']:.4f}", flush=True)
    if rank == 0:
        print(f"digest {training.digest()}", flush=True)


if __name__ == "__main__":
    main()
