"""Draws one point of the sweep's search space: runs once per fresh start, never on a resume."""

from __future__ import annotations

import os
import random
from pathlib import Path

import yaml

DIRECTORY = Path(os.environ["SWEEPRUN_INIT_DIR"])
# The key stays the same where this pod is evicted and another takes its place: so does the draw.
draw = random.Random(os.environ["SWEEPRUN_INIT_KEY"])

overrides = {"lr": round(10 ** draw.uniform(-2.5, -1), 5), "batch_size": draw.choice([16, 32]), "seed": 17}
(DIRECTORY / "train_config_overrides.yaml").write_text(yaml.safe_dump(overrides))
print(overrides)
