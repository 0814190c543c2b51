"""`sweeprun local demo`: an evicted run beside an undisturbed one, and what is said where they do not end alike."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.objects import run as sweep_run
from sweeprun_cli.local.containers import IMAGE_EXAMPLES

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("plain_training.py")
SWEEPRUN = Path(sys.executable).with_name("sweeprun")
SECONDS = 200

pytestmark = pytest.mark.timeout(240)


def demo(directory, *arguments, **spec):
    raw = sweep_run("plain", **{"resume": {"args": ["--resume-from", "$(SWEEPRUN_RESUME_FROM)"]}, **spec})
    replica = raw["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]
    container = replica["template"]["spec"]["containers"][0]
    container.update(command=["python", str(SCRIPT)], args=["--steps", "30", *arguments])
    path = directory / "run.yaml"
    path.write_text(yaml.safe_dump(raw))
    return subprocess.run(
        [SWEEPRUN, "local", "demo", path], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_what_make_demo_runs_ends_in_the_same_state_and_that_is_said(tmp_path):
    """Its very command, for one rank."""
    said = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    *words, example = next(shlex.split(line) for line in said.splitlines() if " local demo " in line)
    raw = yaml.safe_load((ROOT / example).read_text())
    del raw["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Worker"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(raw))
    words += [path, "--map", f"{IMAGE_EXAMPLES}={ROOT / 'examples'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "evicted: WARNING a pod is evicted at step 120, as asked" in done.stdout
    assert "ended in exactly the state of the undisturbed one" in done.stdout
    for part in ("model", "optimizer", "loader-rank-0", "tracking"):
        assert any(line.split()[:1] == [part] and "same" in line for line in done.stdout.splitlines())


def test_a_script_that_does_not_restore_all_its_state_is_found_out(tmp_path):
    done = demo(tmp_path, "--forget-rng")
    assert done.returncode == 1
    assert "model differs in model/weights/0" in done.stdout
    assert "exactly the state" not in done.stdout


def test_the_same_state_without_a_resume_shows_nothing(tmp_path):
    done = demo(tmp_path, resume={"policy": "Never"})
    assert done.returncode == 1
    assert "nothing was resumed" in done.stdout
    assert "differ" not in done.stdout
    assert "exactly the state" not in done.stdout
