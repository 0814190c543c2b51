"""What scripts left unfinished, with their marker or after an exit trap removed it, is taken over and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from support.cluster import eventually
from sweeprun_cli.local.containers import IMAGE_EXAMPLES
from sweeprun_cli.local.manifest import load
from sweeprun_cli.local.run import End, LocalRun, Options

EXAMPLES = Path(__file__).parents[3] / "examples"
ORIGINAL = EXAMPLES / "original"
SWEEP = "digits-original"
SECONDS = 120
STEPS = 60

pytestmark = pytest.mark.timeout(300)


def by_hand(root, *, until):
    """sweep_init.py and train.sh as people ran them; the training ends by `until` after its second checkpoint."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environ = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, str(ORIGINAL / "sweep_init.py"), str(root), SWEEP], env=environ, capture_output=True, text=True
    )
    run_id = told.stdout.strip()
    directory = root / "sweep" / SWEEP / "runs" / run_id
    known = {"ROOT": str(root), "SWEEP": SWEEP, "RUN_ID": run_id}
    size = {"TRAIN_ARGS": f"--steps={STEPS} --step-seconds=0.1"}
    training = subprocess.Popen(
        [str(ORIGINAL / "train.sh")], env={**environ, **known, **size}, stdout=subprocess.PIPE, start_new_session=True
    )
    record = directory / "checkpoints" / "trainer_checkpoint.json"
    eventually(
        lambda: record.exists() and '"global_step": 40,' in record.read_text(), "step 40", timeout=SECONDS, every=0.05
    )
    if until is signal.SIGKILL:  # as when a node dies: torchrun's workers, which lead sessions of their own, as well
        for pid in processes_of(f"ROOT={root}"):
            os.kill(pid, signal.SIGKILL)
    else:
        training.send_signal(until)
    training.communicate(timeout=SECONDS)
    then = time.time() - 3600
    for found in (directory, *directory.rglob("*")):
        os.utime(found, (then, then))
    return run_id, directory


def processes_of(variable):
    """Those that have it in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def taken_over(tmp_path, *, run_id=None):
    raw = yaml.safe_load((ORIGINAL / "sweeprun.yaml").read_text())
    container = raw["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "TRAIN_ARGS", "value": f"--steps={STEPS}"}]
    if run_id is not None:
        del raw["spec"]["init"]
        raw["spec"]["runId"] = run_id
        raw["spec"]["resume"]["onNoValidCheckpoint"] = "Fail"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(raw))
    options = Options(
        root=tmp_path / "volume",
        logs=tmp_path / "logs",
        timeout_seconds=SECONDS,
        paths=((IMAGE_EXAMPLES, str(EXAMPLES)),),
    )
    one = LocalRun(load(path), options, told=lambda note: print(note.text))
    return asyncio.run(one.run()), one.picture


def check_that_it_went_on(end, picture, run_id, directory):
    assert end is End.COMPLETE
    assert picture.status.run_id == run_id
    assert picture.status.counts.resumes == 1
    assert (directory / "result.json").exists()
    assert not (directory / f"{run_id}.incomplete").exists()
    assert not (directory / ".incomplete").exists()
    (ended,) = (directory / "checkpoints" / "1").glob("*.pt")
    assert torch.load(ended, weights_only=True)["step"] == STEPS
    assert torch.load(directory / "checkpoints" / "trainer_state.pt", weights_only=True)["step"] == 40


def test_a_killed_run_that_kept_its_marker_is_found_and_ended(tmp_path):
    run_id, directory = by_hand(tmp_path / "volume", until=signal.SIGKILL)
    assert (directory / f"{run_id}.incomplete").exists()
    configuration = (directory / "train_config_overrides.yaml").read_bytes()
    end, picture = taken_over(tmp_path)
    check_that_it_went_on(end, picture, run_id, directory)
    assert (directory / "train_config_overrides.yaml").read_bytes() == configuration


def test_a_stopped_run_whose_marker_the_trap_removed_is_ended_where_it_is_named(tmp_path):
    run_id, directory = by_hand(tmp_path / "volume", until=signal.SIGTERM)
    assert not (directory / f"{run_id}.incomplete").exists(), "the trap did not fire: this test shows nothing"
    end, picture = taken_over(tmp_path, run_id=run_id)
    check_that_it_went_on(end, picture, run_id, directory)
