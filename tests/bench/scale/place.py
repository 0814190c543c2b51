"""What a subject gets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from .client import Bare


@dataclass(frozen=True)
class Place:
    bare: Bare
    kubeconfig: Path
    directory: Path
    runs: int
    seconds: float
    """How long a state without events is watched."""
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        print(f"  {time.monotonic() - self.began:6.0f} s  {text}", flush=True)
