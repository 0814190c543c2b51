"""Checkpoints by the real Trainer of transformers, on a model of 30,000 parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.ports import HOST, free_port

_TRAINER_SCRIPT = """
import functools, os, sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.trainer_jit_checkpoint import CheckpointManager

def trainer(place, **changes):
    torch.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=32, bos_token_id=1, eos_token_id=2)
    )
    arguments = dict(
        output_dir=place, max_steps=4, save_steps=2, logging_steps=1, per_device_train_batch_size=2, use_cpu=True,
        report_to=[], disable_tqdm=True, dataloader_num_workers=0, save_total_limit=None,
    )
    data = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 32
    return Trainer(model=model, args=TrainingArguments(**{**arguments, **changes}), train_dataset=data)

place = sys.argv[1]
if "RANK" in os.environ:
    trainer(os.path.join(place, "ranks"), ddp_backend="gloo", max_steps=2).train()
    torch.distributed.destroy_process_group()
    sys.exit()
trainer(os.path.join(place, "whole")).train()
sharded = trainer(os.path.join(place, "sharded"), max_steps=2)
sharded.model.save_pretrained = functools.partial(sharded.model.save_pretrained, max_shard_size="20KB")
sharded.train()
trainer(os.path.join(place, "weights"), max_steps=2, save_only_model=True).train()

# SIGTERM asked for a checkpoint, and the process ended while it was written
stopped = trainer(os.path.join(place, "stopped"), max_steps=3, save_strategy="no")
stopped.train()
def ends(output_dir):
    raise OSError("the disk is full")
stopped._save_rng_state = ends
try:
    CheckpointManager(stopped).execute_jit_checkpoint()
except OSError:
    pass
"""

_RANKS = 2


def write_trainer_samples(directory: Path) -> None:
    """`whole` (steps 2 and 4), `sharded`, `weights` (save_only_model) and `ranks` (two processes), each of step 2;
    `stopped` (3) was never finished."""
    command = [sys.executable, "-W", "ignore", "-c", _TRAINER_SCRIPT, str(directory)]
    plain = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment = {**plain, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    shared = {**environment, "WORLD_SIZE": str(_RANKS), "MASTER_ADDR": HOST, "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(_RANKS)
    ]
    output = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise AssertionError(b"\n".join(output).decode(errors="replace"))


_DCP_SCRIPT = """
import sys
import torch
import torch.distributed.checkpoint as dcp
place = sys.argv[1]
model = {"model": {"wte.weight": torch.randn(100, 32), "bias": torch.randn(32)}}
optimizer = {"optimizer": {"state": {"wte.weight": {"exp_avg": torch.randn(100, 32), "step": torch.tensor(2.0)}}}}
dcp.save(model, storage_writer=dcp.FileSystemWriter(place + "/pytorch_model_fsdp_0"))
dcp.save(optimizer, storage_writer=dcp.FileSystemWriter(place + "/optimizer_0"))
"""


def shard_as_fsdp(checkpoint: Path) -> None:
    """Model and optimizer as Accelerate saves them for Trainer with FSDP and SHARDED_STATE_DICT."""
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "optimizer.pt").unlink()
    command = [sys.executable, "-W", "ignore", "-c", _DCP_SCRIPT, str(checkpoint)]
    subprocess.run(command, check=True, capture_output=True)


def shard_as_deepspeed(checkpoint: Path, *, step: int, ranks: int) -> None:
    """Model and optimizer under DeepSpeed's names for ZeRO-3; what the files hold is that of optimizer.pt."""
    data = (checkpoint / "optimizer.pt").read_bytes()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (checkpoint / name).unlink()
    directory = checkpoint / f"global_step{step}"
    directory.mkdir()
    for rank in range(ranks):
        (directory / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").write_bytes(data)
        (directory / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(data)
    (checkpoint / "latest").write_text(directory.name)
    (checkpoint / "zero_to_fp32.py").write_text("print()\n")
