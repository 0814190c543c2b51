"""Weights by the real safetensors, transformers and torch.distributed.checkpoint, and headers of any content."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SCRIPT = """
import os, sys
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from transformers import GPT2Config, GPT2LMHeadModel

place = sys.argv[1]
torch.manual_seed(1)
floats = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
          "float8_e5m2fnuz", "float8_e8m0fnu", "complex64"]
whole = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]
state = {name: torch.zeros(3, 5, dtype=getattr(torch, name)) for name in floats + whole}
state.update(scalar=torch.tensor(1.5), empty=torch.zeros(0, 7), weight=torch.randn(300, 20))
save_file(state, os.path.join(place, "every.safetensors"), metadata={"step": "70", "note": 'a "quoted" } \\u00e9'})
save_file({"w": torch.randn(40, 40)}, os.path.join(place, "model-00001-of-00001.safetensors"))

model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=32))
model.save_pretrained(os.path.join(place, "sharded"), max_shard_size="20KB")
weight = torch.randn(1000, 32)
model.transformer.wpe.weight.data = weight[:32]
model.save_pretrained(os.path.join(place, "view"), max_shard_size="20KB")

tensors = {"a": torch.randn(1000), "b": torch.ones(3, 5, dtype=torch.bfloat16), "c.d": torch.ones(7)}
for name, options in {
    "dcp-one": {},
    "dcp-ranks": {"save_distributed": True},
    "dcp-consolidated": {"save_distributed": True, "enable_consolidation": True},
}.items():
    mapping = {"a": 1, "b": 2, "c.d": 2}
    writer = HuggingFaceStorageWriter(os.path.join(place, name), fqn_to_index_mapping=mapping, **options)
    dcp.save(dict(tensors), storage_writer=writer)
"""


def write_safetensors_samples(directory: Path) -> None:
    """In a process of its own. Files: `every.safetensors` (all dtypes, step 70 inside), `model-00001-of-00001...`.

    Directories: `sharded`, `view` (total_size counts a buffer of which a part was saved), and what
    HuggingFaceStorageWriter leaves: `dcp-one`, `dcp-consolidated`, and `dcp-ranks` without an index.
    """
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(directory)]
    subprocess.run(command, check=True, capture_output=True)


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def tensor(begin: int, end: int, dtype: str = "U8", shape: Sequence[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape or [end - begin]), "data_offsets": [begin, end]}


def safetensors(tensors: dict[str, Any], data: bytes) -> bytes:
    """As the format's text says; `tensors` may say anything."""
    return with_header(json.dumps(tensors).encode(), data)


def edit_header(data: bytes, change: Any) -> bytes:
    """The same file, its header changed by `change`."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    return safetensors(header, data[8 + length :])
