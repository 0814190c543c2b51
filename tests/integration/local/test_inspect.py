"""`sweeprun inspect` on the volume of a run that was interrupted, damaged and completed."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.objects import run as sweep_run
from sweeprun_cli.inspect.reading import NothingFoundError, find_runs, read_run
from sweeprun_cli.local.faults import Damage, Fault, Means, flip_bit
from sweeprun_cli.local.manifest import load
from sweeprun_cli.local.run import End, LocalRun, Options
from sweeprun_protocol.reasons import Level, Outcome, StartReason

SCRIPT = Path(__file__).with_name("plain_training.py")
SWEEPRUN = Path(sys.executable).with_name("sweeprun")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A run that was evicted, lost its newest checkpoint, and was completed."""
    directory = tmp_path_factory.mktemp("inspected")
    raw = sweep_run("plain", resume={"args": ["--resume-from", "$(SWEEPRUN_RESUME_FROM)"]})
    replica = raw["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]
    replica["template"]["spec"]["containers"][0].update(command=["python", str(SCRIPT)], args=["--steps", "30"])
    (directory / "run.yaml").write_text(yaml.safe_dump(raw))
    options = Options(
        root=directory / "volume",
        logs=directory / "logs",
        faults=(Fault(Means.EVICT, 12, None),),
        damage=Damage.NEWEST,
        timeout_seconds=60,
    )
    one = LocalRun(load(directory / "run.yaml"), options, told=lambda note: print(note.text))
    assert asyncio.run(one.run()) is End.COMPLETE
    return directory / "volume"


def view(volume, level=None):
    (directory,) = find_runs(volume)
    return read_run(directory, level=level, timeout_seconds=60)


def content(volume):
    files = sorted(path for path in volume.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


def test_it_tells_the_decisions_of_a_run(volume):
    seen = view(volume)
    first, second = (one.decision for one in seen.epochs[:2])
    assert (first.outcome, first.reason) == (Outcome.FRESH, StartReason.FIRST_START)
    assert (second.outcome, second.reason) == (Outcome.RESUME, StartReason.WALKED_BACK)
    assert [end.told_to_stop for one in seen.epochs for end in one.ends] == [True, False]
    assert seen.result is not None
    assert not seen.has_marker
    assert len(seen.quarantined) == 2
    assert seen.problems == []


def test_checkpoints_are_judged_only_where_that_is_asked_for(volume):
    assert {one.sound for one in view(volume).checkpoints} == {None}
    assert {one.sound for one in view(volume, Level.FULL).checkpoints} == {True}


def test_it_changes_nothing(volume):
    before = content(volume)
    view(volume, Level.FULL)
    assert content(volume) == before


def test_damage_is_found_and_has_an_exit_code(volume):
    newest = max(view(volume).checkpoints, key=lambda one: one.step)
    (directory,) = find_runs(volume)
    flip_bit(directory / newest.path)
    try:
        found = {one.path: one.sound for one in view(volume, Level.FULL).checkpoints}
        assert found.pop(newest.path) is False
        assert set(found.values()) == {True}
        done = command("--check", "Full", volume)
        assert done.returncode == 1
        assert "CrcMismatch" in done.stdout
    finally:
        flip_bit(directory / newest.path)
    assert command("--check", "Full", volume).returncode == 0


def test_a_record_that_cannot_be_read_is_told_and_the_rest_is_shown(volume):
    (directory,) = find_runs(volume)
    record = directory / "epochs" / "1" / "end-master-0.json"
    whole = record.read_bytes()
    record.write_text("{")
    try:
        seen = view(volume)
        assert "end-master-0.json" in seen.problems[0]
        assert seen.epochs[1].decision is not None
        assert command(volume).returncode == 1
    finally:
        record.write_bytes(whole)


def test_where_no_run_is_that_is_told(tmp_path):
    with pytest.raises(NothingFoundError, match="no run lies in"):
        find_runs(tmp_path)
    done = command(tmp_path)
    assert done.returncode == 2
    assert "no run lies in" in done.stderr


def command(*arguments):
    return subprocess.run(
        [SWEEPRUN, "inspect", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
