"""From the start of a process to its first step on a resume, against a script that loads the same files by hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

from .measuring import Bench, Row

_MODEL = """
import torch
torch.manual_seed(1)
model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(8)))
optimizer = torch.optim.AdamW(model.parameters())

def step():
    model(torch.ones(1, 1024)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
_OURS = (
    _MODEL
    + """
import sweeprun_trainer as sweeprun
run = sweeprun.current()
checkpoints = run.checkpointer(shared={"model": model, "optimizer": optimizer})
done = checkpoints.restore()
step()
if done == 0:
    assert checkpoints.save(1)
"""
)
_BY_HAND = (
    _MODEL
    + """
import os
directory = os.environ["SWEEPRUN_RESUME_FROM"]
for name, part in (("model", model), ("optimizer", optimizer)):
    part.load_state_dict(torch.load(os.path.join(directory, name + ".pt"), weights_only=True))
step()
"""
)


def measure(bench: Bench) -> Iterator[Row]:
    if importlib.util.find_spec("torch") is None:
        yield Row.skipped("start of a resume", "torch is not installed")
        return
    from support.run_directory import RunDirectory

    run = RunDirectory(bench.place / "volume")
    _run(_OURS, run.environment().encode())
    run.prepare()
    given = run.environment().encode()
    found = bench.ratio(lambda: _run(_OURS, given), lambda: _run(_BY_HAND, given))
    ours, theirs = (min(took.wall for took in rounds) for rounds in (found.ours, found.theirs))
    beyond = f"best {ours:.2f} and {theirs:.2f} s; every byte is read once more, and compared"
    yield Row.at_most(
        "start to first step of a resume of 96 MiB, of loading by hand", 100 / found.speedup, 115, "%", beyond
    )


def _run(code: str, given: Mapping[str, str]) -> None:
    environ = {**given, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
