"""Judging metadata of torch.distributed.checkpoint without unpickling it, against unpickling it; and its memory."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeprun_volume.formats.dcp_metadata import read_metadata
from sweeprun_volume.formats.dcp_tiling import check_tiling
from sweeprun_volume.formats.pickle_memo import Held
from sweeprun_volume.formats.pickle_tokens import Limits

from .measuring import Bench, Row

ITEMS = 100_000
SHAPES = {"8 ranks": 8, "1 rank": 1}
ROWS, COLUMNS = 8, 8
"""Of each item."""
_CHECK = """
import sys
from bench.own_manifest import full
from sweeprun_volume import prepare
from sweeprun_volume.formats.dcp import DcpFormat

DcpFormat().check(full(sys.argv[1]), sys.argv[2], step=1, epoch=0)
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("metadata of DCP", "torch is not installed")
        return
    for name, ranks in SHAPES.items():
        item = _item()
        metadata = _metadata(ITEMS // ranks, ranks, len(item))
        data = pickle.dumps(metadata)
        found = bench.ratio(lambda data=data: _judge(data), lambda data=data: pickle.loads(data))
        text = f"judging {ITEMS:,} items of DCP, {name}, times unpickling them"
        yield Row.at_most(text, 1 / found.speedup, 2, "times", f"{len(data) / 1e6:.0f} MB, {_seconds(found)}")
        checkpoint = bench.place / f"step-{ranks}"
        _write(checkpoint, data, item, ranks)
        size = sum(path.stat().st_size for path in checkpoint.iterdir())
        text = f"memory of prepare for {ITEMS:,} items of DCP, {name}"
        yield Row.at_most(text, _memory(checkpoint), 60, "MiB", f"all of the process, {size / 1e6:.0f} MB read")
        shutil.rmtree(checkpoint)


def _judge(data: bytes) -> None:
    check_tiling([read_metadata(Held(data), ".metadata", Limits())])


def _seconds(found: Any) -> str:
    ours, theirs = (min(took.cpu for took in rounds) for rounds in (found.ours, found.theirs))
    return f"best {ours:.2f} and {theirs:.2f} s of a processor"


def _memory(checkpoint: Path) -> float:
    """Peak of a process that checks it as prepare does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _CHECK, str(checkpoint.parent), checkpoint.name]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def _item() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16), stream)
    return stream.getvalue()


def _write(checkpoint: Path, metadata: bytes, item: bytes, ranks: int) -> None:
    checkpoint.mkdir()
    (checkpoint / ".metadata").write_bytes(metadata)
    for rank in range(ranks):
        with (checkpoint / f"__{rank}_0.distcp").open("wb") as shard:
            for _ in range(ITEMS // ranks):
                shard.write(item)


def _metadata(keys: int, ranks: int, length: int) -> Any:
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
    for key in range(keys):
        name = f"optimizer.state.layers.{key}.attention.wq.weight.exp_avg"
        cuts = [torch.Size([rank * ROWS, 0]) for rank in range(ranks)]
        chunks = [ChunkStorageMetadata(cut, torch.Size([ROWS, COLUMNS])) for cut in cuts]
        properties = TensorProperties(dtype=torch.bfloat16)
        tensors[name] = TensorStorageMetadata(properties, torch.Size([ranks * ROWS, COLUMNS]), chunks)
        paths[name] = ("optimizer", "state", f"layers.{key}.attention.wq.weight.exp_avg")
        for rank, cut in enumerate(cuts):
            places[MetadataIndex(name, cut, rank)] = _StorageInfo(files[rank], key * length, length)
    return Metadata(tensors, paths, places, version="1.0.0")
