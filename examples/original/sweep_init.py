"""Draws a suggestion and a run ID, as scripts did before: makes the run directory, its configuration and its marker.

sweep_init.py ROOT SWEEP    by hand: prints the run ID
sweep_init.py               by a SweepRun, which makes directory and marker itself: runs once per fresh start
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import yaml


def suggestion(draw: random.Random) -> dict[str, float]:
    return {"lr": round(10 ** draw.uniform(-2.5, -1), 5), "batch_size": draw.choice([16, 32]), "seed": 17}


def run_id(draw: random.Random) -> str:
    return f"run-{draw.randrange(16**8):08x}"


def main() -> None:
    staging = os.environ.get("SWEEPRUN_INIT_DIR")
    if staging:
        draw = random.Random(os.environ["SWEEPRUN_INIT_KEY"])  # the same where the pod is evicted and runs again
        overrides = yaml.safe_dump(suggestion(draw))
        Path(staging, "train_config_overrides.yaml").write_text(overrides)
        Path(staging, "run.json").write_text(json.dumps({"runId": run_id(draw)}))
        return
    root, sweep = sys.argv[1:]
    draw = random.Random()
    overrides, name = yaml.safe_dump(suggestion(draw)), run_id(draw)
    directory = Path(root, "sweep", sweep, "runs", name)
    directory.mkdir(parents=True)
    (directory / "train_config_overrides.yaml").write_text(overrides)
    (directory / f"{name}.incomplete").touch()
    print(name)


if __name__ == "__main__":
    main()
