"""Checkpoints as the library and torch.save write them, and ways to damage them."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from sweeprun_protocol.layout import MANIFEST, RunLayout, step_name
from sweeprun_protocol.manifest import XXH3_128, Manifest, ManifestFile
from sweeprun_protocol.reasons import Level
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.formats import Context
from sweeprun_volume.operations import Volume

CONTENT = bytes(range(256)) * 64


def own_checkpoint(place: Path, *, run_id: str, step: int, epoch: int, content: bytes = b"", **manifest: Any) -> Path:
    """Committed as the library commits: every file, then the manifest that names every byte."""
    directory = place / step_name(step, epoch)
    (directory / "rank-0").mkdir(parents=True)
    files = {"model.pt": CONTENT + content + step.to_bytes(8, "big"), "rank-0/rng.pt": b"rng" * 100, "empty.txt": b""}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    made = manifest_of(files, run_id=run_id, step=step, epoch=epoch)
    (directory / MANIFEST).write_bytes(replace(made, **manifest).encode())
    return directory


def manifest_of(files: dict[str, bytes], *, run_id: str, step: int, epoch: int) -> Manifest:
    """Of files shorter than one chunk."""
    described = tuple(
        ManifestFile(name, len(data), (xxhash.xxh3_128_hexdigest(data),) if data else ())
        for name, data in sorted(files.items())
    )
    return Manifest(
        run_id=run_id, epoch=epoch, step=step, world_size=2, algorithm=XXH3_128, files=described, resumable=True
    )


def saved(state: dict[str, Any]) -> bytes:
    """Laid out as torch.save does it, without importing torch."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickle.dumps(state, protocol=2))
        archive.writestr(zipfile.ZipInfo("archive/data/0"), CONTENT)
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")
    return stream.getvalue()


def without_crcs(data):
    """As torch.save writes it with CRC32 switched off: zeros in the directory."""
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data = data[: at + 16] + bytes(4) + data[at + 20 :]
        at = data.find(b"PK\x01\x02", at + 4)
    return data


def context_at(root: Path | Volume, *, seconds: float = 60, deadline: Deadline | None = None, **asked: Any) -> Context:
    """Of a full check of what lies in `root`, as a run directory; `asked` changes what a Context holds."""
    given: dict[str, Any] = {
        "volume": root if isinstance(root, Volume) else Volume(str(root)),
        "layout": RunLayout(""),
        "run_id": "run-1",
        "level": Level.FULL,
        "deadline": deadline or Deadline.after(seconds, Clock()),
    }
    return Context(**{**given, **asked})


_TORCH_SCRIPT = """
import os, sys, torch
torch.manual_seed(1)
model = torch.nn.Linear(300, 20)
state = {"model": model.state_dict(), "optimizer": {"lr": 0.1}, "rng": torch.get_rng_state(), "step": 500}
torch.save(state, os.path.join(sys.argv[1], "plain.pt"))
named = {"global_step": 70_000, "epoch": 3, "state_dict": model.state_dict()}
torch.save(named, os.path.join(sys.argv[1], "last.ckpt"))
torch.save(model.state_dict(), os.path.join(sys.argv[1], "weights.pt"))
torch.save(state, os.path.join(sys.argv[1], "legacy.pt"), _use_new_zipfile_serialization=False)
torch.serialization.set_crc32_options(False)
torch.save(state, os.path.join(sys.argv[1], "unchecked.pt"))
torch.save(model.state_dict(), os.path.join(sys.argv[1], "weights-unchecked.pt"))
torch.serialization.set_crc32_options(True)
tensor = torch.arange(3)
weights = {
    "parameters": dict(model.named_parameters()),
    "with-buffers": torch.nn.BatchNorm1d(3).state_dict(),
    "half": {name: value.half() for name, value in model.state_dict().items()},
    "one-tensor": {"w": tensor},
    "tensor": tensor,
    "list": [tensor, torch.nn.Parameter(tensor.float())],
    "tuple": (tensor, tensor),
    "protocol-4": dict(model.state_dict()),
}
states = {
    "nested": {"model": model.state_dict()},
    "with-step": {**model.state_dict(), "step": 3},
    "with-step-as-tensor": {**model.state_dict(), "step": tensor},
    "with-text": {"w": tensor, "note": "trained on digits"},
    "with-nothing": {"w": tensor, "scheduler": None},
    "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
    "list": [tensor, 7],
    "empty": {},
    "number": 7,
    "module": model,
}
for kind, saved in (("weights", weights), ("state", states)):
    for name, value in saved.items():
        protocol = 4 if name == "protocol-4" else 2
        torch.save(value, os.path.join(sys.argv[1], f"{kind}-of-{name}.pt"), pickle_protocol=protocol)
"""


def write_torch_samples(directory: Path) -> None:
    """By the real torch, in a process of its own."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _TORCH_SCRIPT, str(directory)], check=True)


_LIGHTNING_SCRIPT = """
import os, sys, torch, lightning
from lightning.pytorch.callbacks import ModelCheckpoint

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"lr": 0.1})
        self.layer = torch.nn.Linear(32, 2)

    def training_step(self, batch, _):
        return self.layer(batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 32)), batch_size=2)
place = sys.argv[1]
callbacks = [
    ModelCheckpoint(place, filename="{epoch}-{step}", every_n_train_steps=3, save_top_k=-1),
    ModelCheckpoint(place, filename="{epoch}-{step}", every_n_train_steps=6, save_top_k=-1),
    ModelCheckpoint(place, filename="best", every_n_train_steps=4),
]
trainer = lightning.Trainer(
    max_epochs=2, callbacks=callbacks, logger=False, accelerator="cpu", enable_progress_bar=False,
    enable_model_summary=False, default_root_dir=place,
)
trainer.fit(Module(), data)
trainer.save_checkpoint(os.path.join(place, "hpc_ckpt_1.ckpt"))
trainer.save_checkpoint(os.path.join(place, "weights-step=12.ckpt"), weights_only=True)
"""


def write_lightning_samples(directory: Path) -> None:
    """By the real Lightning, in a process of its own."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LIGHTNING_SCRIPT, str(directory)], check=True, capture_output=True
    )


@dataclass(frozen=True)
class Stored:
    """Where an entry's bytes lie in a zip file."""

    name: str
    offset: int
    size: int


def stored(data: bytes, ending: str) -> Stored:
    """The entry whose name ends so; the largest where several do."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        fitting = [item for item in archive.infolist() if item.filename.endswith(ending)]
    entry = max(fitting, key=lambda item: item.file_size)
    name_length, extra_length = (
        int.from_bytes(data[entry.header_offset + at : entry.header_offset + at + 2], "little") for at in (26, 28)
    )
    return Stored(entry.filename, entry.header_offset + 30 + name_length + extra_length, entry.file_size)


def largest_entry(data: bytes) -> Stored:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = max(archive.infolist(), key=lambda item: item.file_size).filename
    return stored(data, name)


def flip(data: bytes, offset: int, bit: int = 4) -> bytes:
    return data[:offset] + bytes([data[offset] ^ (1 << bit)]) + data[offset + 1 :]


def zero(data: bytes, offset: int, size: int) -> bytes:
    return data[:offset] + bytes(size) + data[offset + size :]


def rewrite(path: Path, data: bytes, *, keep_time: bool = False) -> None:
    """Change a file in place; with `keep_time` as a disk would do it: nobody wrote."""
    found = path.stat()
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def contents(root: Path) -> dict[str, list[bytes]]:
    """Content of every file that a training run made, by its last name; wherever it lies."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(root.rglob("*")):
        name = path.name.split("__")[-1].split(".moved-")[0]
        if path.is_file() and name.endswith(".pt") and not path.name.endswith(".json"):
            found.setdefault(name, []).append(path.read_bytes())
    return {name: sorted(copies) for name, copies in found.items()}
