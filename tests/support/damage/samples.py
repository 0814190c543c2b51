"""The checkpoints that are damaged: of every format, by the real libraries."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from support.damage.kinds import Sample
from support.volume_checkpoints import own_checkpoint
from sweeprun_protocol.layout import MANIFEST, step_name
from sweeprun_protocol.reasons import Format

RUN_ID = "run-1"
STEP = 2
EPOCH = 3


@dataclass(frozen=True)
class Writer:
    """How checkpoints of a format look on a volume."""

    format: Format
    name: str
    """Of the checkpoint at STEP, below the checkpoint directory."""
    metadata: tuple[str, ...] = ()


WRITERS = {
    "own": Writer(Format.SWEEPRUN, step_name(STEP, EPOCH), (MANIFEST,)),
    "torch": Writer(Format.TORCH, "step-2.pt"),
    "torch-without-crc": Writer(Format.TORCH, "step-2.pt"),
    "lightning": Writer(Format.LIGHTNING, "step=2.ckpt"),
    "dcp": Writer(Format.DCP, "step-2", (".metadata",)),
    "hugging-face": Writer(Format.HUGGING_FACE, "checkpoint-2", ("trainer_state.json",)),
    "safetensors": Writer(Format.SAFETENSORS, "step-2.safetensors"),
    "safetensors-sharded": Writer(Format.SAFETENSORS, "step-2", ("model.safetensors.index.json",)),
}


def write_samples(directory: Path) -> dict[str, Sample]:
    """By name of the writer; takes some 20 s."""
    script = Path(__file__).with_name("write_samples.py")
    done = subprocess.run([sys.executable, "-W", "ignore", str(script), str(directory)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    samples = {
        name: Sample(
            name, *(directory / f"{name}.{part}" for part in ("here", "later", "other")), None, writer.metadata
        )
        for name, writer in WRITERS.items()
        if name != "own"
    }
    return {"own": _own(directory), **samples}


def _own(directory: Path) -> Sample:
    def write(part: str, *, run_id: str = RUN_ID, step: int = STEP, epoch: int = EPOCH) -> Path:
        content = Random(part).randbytes(100_000)
        return own_checkpoint(directory / f"own.{part}", run_id=run_id, step=step, epoch=epoch, content=content)

    return Sample(
        "own",
        here=write("here"),
        later=write("later", step=2 * STEP),
        other=write("other", run_id="run-2"),
        earlier_epoch=write("earlier", epoch=EPOCH - 1),
        metadata=(MANIFEST,),
    )
