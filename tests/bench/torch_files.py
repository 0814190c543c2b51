"""Validating a file of torch.save that has no manifest, against zipfile.testzip() on the same file."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sweeprun_volume.formats.torch_zip import TorchFormat

from .measuring import Bench, Row
from .own_manifest import full

STORAGES = 16
_SAVE = """
import sys, torch

path, size, storages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tensors = {str(number): torch.randint(256, (size // storages,), dtype=torch.uint8) for number in range(storages)}
torch.save({"model": tensors, "step": 1}, path)
"""


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("validation of a torch.save file", "torch is not installed")
        return
    size = bench.mib("TORCH", 1024)
    path = bench.place / "step-1.pt"
    _write(path, size)
    context = full(bench.place)
    found = bench.ratio(lambda: TorchFormat().check(context, path.name, step=1, epoch=0), lambda: _testzip(path))
    name = f"validation of a torch.save file of {size >> 20} MiB, of testzip()"
    yield Row.at_least(name, found.speedup, 4, "x", found.rates(path.stat().st_size))


def _write(path: Path, size: int) -> None:
    """By another process: torch starts threads, and a process with threads maps nothing."""
    subprocess.run([sys.executable, "-c", _SAVE, str(path), str(size), str(STORAGES)], check=True)


def _testzip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
