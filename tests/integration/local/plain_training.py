"""A training script that knows nothing of SweepRun: `training.py --steps N [--resume-from FILE]`.

Its files are laid out as those of torch.save, so that prepare checks them and torch.load reads them, and hold all of
its state; importing torch would take longer than the whole test.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import time
import zipfile
from pathlib import Path

WEIGHTS = 2000
EVERY = 5


def save(path: Path, step: int, weights: list[float], rng: random.Random) -> None:
    """The same state gives the same bytes."""
    state = {"step": step, "model": {"weights": weights}, "rng": rng.getstate()}
    entries = {"archive/data.pkl": pickle.dumps(state, protocol=2), "archive/version": b"3\n"}
    staging = path.with_suffix(".tmp")
    with zipfile.ZipFile(staging, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    staging.replace(path)


def load(path: Path) -> tuple[int, list[float], random.Random]:
    with zipfile.ZipFile(path) as archive:
        state = pickle.loads(archive.read("archive/data.pkl"))
    rng = random.Random()
    rng.setstate(state["rng"])
    return state["step"], state["model"]["weights"], rng


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--resume-from", type=Path)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--crash-at", type=int)
    parser.add_argument("--forget-rng", action="store_true")
    arguments = parser.parse_args()
    directory = Path(os.environ["SWEEPRUN_CHECKPOINT_DIR"])
    directory.mkdir(parents=True, exist_ok=True)
    step, weights, rng = 0, [0.0] * WEIGHTS, random.Random(7)
    if arguments.resume_from is not None:
        step, weights, restored = load(arguments.resume_from)
        rng = rng if arguments.forget_rng else restored
    while step < arguments.steps:
        step += 1
        weights = [weight + rng.gauss(0, 1) for weight in weights]
        time.sleep(arguments.pause)
        if step == arguments.crash_at:
            raise SystemExit(f"loss is nan at step {step}")
        if step % EVERY == 0 and os.environ["RANK"] == "0":
            save(directory / f"step-{step}.pt", step, weights, rng)


if __name__ == "__main__":
    main()
