"""Checkpoints of torch.distributed.checkpoint, by the real torch in processes of their own, and ways to damage them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SCRIPT = '''
import io, multiprocessing, os, socket, sys, warnings
warnings.simplefilter("ignore")
import torch, torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint._extension import StreamTransformExtension
from torch.distributed.checkpoint.state_dict import get_state_dict

ROOT = sys.argv[1]


def place(name):
    return os.path.join(ROOT, name)


def state():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.BatchNorm1d(30), torch.nn.Linear(30, 7))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 40)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optim": optimizer.state_dict(),
        "step": 500,
        "rng": torch.get_rng_state(),
        "big": torch.randn(200, 100),
        "empty": torch.zeros(0, 4),
        "lists": [1, torch.arange(5), {"a": None}],
    }


def alone():
    full = state()
    dcp.save(full, checkpoint_id=place("plain/step-500"), no_dist=True)
    dcp.save(full, storage_writer=FileSystemWriter(place("threads/step-500"), thread_count=4), no_dist=True)
    few = {"a": torch.ones(3)}
    dcp.save(few, storage_writer=FileSystemWriter(place("idle-threads/step-500"), thread_count=3), no_dist=True)
    writer = FileSystemWriter(place("file-per-item/step-500"), single_file_per_rank=False)
    dcp.save(full, storage_writer=writer, no_dist=True)
    dcp.save(full, checkpoint_id=place("no-collectives-alone/step-500"), no_dist=True, use_collectives=False)
    dcp.save({"model": full["model"]}, checkpoint_id=place("weights/step-500"), no_dist=True)
    dcp.save(full["model"], checkpoint_id=place("bare-weights/step-500"), no_dist=True)
    dcp.save(full, checkpoint_id=place("lightning/epoch=1-step=500.ckpt"), no_dist=True)
    torch.save({"global_step": 500, "loops": {}}, place("lightning/epoch=1-step=500.ckpt/meta.pt"))
    torch.serialization.set_crc32_options(False)
    dcp.save(full, checkpoint_id=place("unchecked/step-500"), no_dist=True)
    torch.serialization.set_crc32_options(True)
    writer = FileSystemWriter(place("transformed/step-500"), _extensions=[Inverted()])
    dcp.save(full, storage_writer=writer, no_dist=True)


class Inverting(io.RawIOBase):
    def __init__(self, below):
        self.below = below

    def writable(self):
        return True

    def write(self, data):
        return self.below.write(bytes(255 - byte for byte in bytes(data)))


class Inverted(StreamTransformExtension):
    """Stands for compression, which needs a package."""

    @staticmethod
    def from_descriptor(version):
        return Inverted()

    @staticmethod
    def registry_name():
        return "stream.inverted"

    def get_descriptor(self):
        return "stream.inverted/1"

    def transform_to(self, output):
        return Inverting(output)

    def transform_from(self, input):
        raise NotImplementedError


def ranks(rank, size, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    dist.init_process_group("gloo")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    mesh = init_device_mesh("cpu", (size,))
    torch.manual_seed(1)
    sharded = {
        "rows": distribute_tensor(torch.randn(13, 6), mesh, [Shard(0)]),
        "columns": distribute_tensor(torch.randn(6, 14), mesh, [Shard(1)]),
        "one": distribute_tensor(torch.randn(1), mesh, [Shard(0)]),
        "same": distribute_tensor(torch.randn(5, 5), mesh, [Replicate()]),
        "local": torch.randn(9),
        "step": 500,
        f"rng.{rank}": torch.get_rng_state(),
    }
    name = f"ranks-{size}"
    dcp.save(sharded, checkpoint_id=place(f"{name}/step-500"))
    if size == 2:
        dcp.save(sharded, checkpoint_id=place("no-collectives/step-500"), use_collectives=False)
        dcp.async_save(sharded, checkpoint_id=place("async/step-500")).result()
        dcp.save({"a": torch.ones(3)}, checkpoint_id=place("idle-rank/step-500"))
        fsdp(mesh)
    else:
        grid = init_device_mesh("cpu", (2, 2))
        cut = {"grid": distribute_tensor(torch.randn(10, 12), grid, [Shard(0), Shard(1)]), "step": 1}
        dcp.save(cut, checkpoint_id=place("grid/step-500"))
    dist.barrier()
    dist.destroy_process_group()


def fsdp(mesh):
    from torch.distributed.fsdp import fully_shard
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(33, 17), torch.nn.Linear(17, 1))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 33)).sum().backward()
    optimizer.step()
    weights, optim = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optim": optim}, checkpoint_id=place("fsdp/step-500"))


torch.set_num_threads(1)
fork = multiprocessing.get_context("fork")  # importing torch again in each costs seconds
for size in (2, 4):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [fork.Process(target=ranks, args=(rank, size, port)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
alone()
'''

REAL = (
    "plain",
    "threads",
    "idle-threads",
    "file-per-item",
    "no-collectives-alone",
    "weights",
    "bare-weights",
    "lightning",
    "unchecked",
    "transformed",
    "ranks-2",
    "ranks-4",
    "grid",
    "no-collectives",
    "async",
    "idle-rank",
    "fsdp",
)


def write_dcp_samples(directory: Path) -> None:
    """One directory for each of REAL below `directory`, which holds the checkpoint."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _SCRIPT, str(directory)], check=True)


def copied(samples: Path, name: str, to: Path) -> Path:
    """A copy of the checkpoint `name`, to be damaged; its place."""
    to.mkdir(parents=True, exist_ok=True)
    (source,) = (samples / name).iterdir()
    return Path(shutil.copytree(source, to / source.name))


def metadata_of(checkpoint: Path, name: str = ".metadata") -> Any:
    """By unpickling: these are ours."""
    return pickle.loads((checkpoint / name).read_bytes())


def rewrite_metadata(checkpoint: Path, change: Callable[[Any], None], name: str = ".metadata") -> None:
    metadata = metadata_of(checkpoint, name)
    change(metadata)
    (checkpoint / name).write_bytes(pickle.dumps(metadata))
