"""Judging metadata of torch.distributed.checkpoint without unpickling it, against unpickling it; and its memory."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from sweeprun_volume.formats.dcp import check_tiling
from sweeprun_volume.formats.dcp_metadata import read_metadata
from sweeprun_volume.formats.pickle_tokens import Limits

from .measuring import Bench, Row

ITEMS = 100_000
SHAPES = {"8 ranks": 8, "1 rank": 1}
_MEMORY = """
import sys
from sweeprun_volume.formats.dcp_metadata import read_metadata
from sweeprun_volume.formats.pickle_tokens import Limits


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


data = open(sys.argv[1], "rb").read()
before = peak()
saved = read_metadata(data, ".metadata", Limits())
print(peak() - before)
"""


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("metadata of DCP", "torch is not installed")
        return
    for name, ranks in SHAPES.items():
        data = pickle.dumps(_metadata(ITEMS // ranks, ranks))
        found = bench.ratio(lambda data=data: _judge(data), lambda data=data: pickle.loads(data))
        text = f"judging {ITEMS:,} items of DCP, {name}, times unpickling them"
        yield Row.at_most(text, 1 / found.speedup, 2, "times", f"{len(data) / 1e6:.0f} MB, {_seconds(found)}")
        path = bench.place / f"{ranks}.metadata"
        path.write_bytes(data)
        yield Row.at_most(f"memory for {ITEMS:,} items of DCP, {name}", _memory(str(path)), 60, "MiB")


def _judge(data: bytes) -> None:
    check_tiling([read_metadata(data, ".metadata", Limits())])


def _seconds(found: Any) -> str:
    ours, theirs = (min(took.cpu for took in rounds) for rounds in (found.ours, found.theirs))
    return f"best {ours:.2f} and {theirs:.2f} s of a processor"


def _memory(path: str) -> float:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _MEMORY, path]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def _metadata(keys: int, ranks: int) -> Any:
    """Of tensors that are cut in `ranks` rows, as fully_shard cuts them; nothing of them exists."""
    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    tensors, paths, places = {}, {}, {}
    files = [f"__{rank}_0.distcp" for rank in range(ranks)]
    length = 64 * 128 * 2 + 1300
    for key in range(keys):
        name = f"model.layers.{key}.attention.wq.weight"
        cuts = [torch.Size([rank * 64, 0]) for rank in range(ranks)]
        chunks = [ChunkStorageMetadata(cut, torch.Size([64, 128])) for cut in cuts]
        properties = TensorProperties(dtype=torch.bfloat16)
        tensors[name] = TensorStorageMetadata(properties, torch.Size([ranks * 64, 128]), chunks)
        paths[name] = ("model", f"layers.{key}.attention.wq.weight")
        for rank, cut in enumerate(cuts):
            places[MetadataIndex(name, cut, rank)] = _StorageInfo(files[rank], key * length, length)
    return Metadata(tensors, paths, places, version="1.0.0")
