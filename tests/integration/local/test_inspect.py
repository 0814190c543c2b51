"""`sweeprun inspect` on the volume of a run that was interrupted, damaged and completed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.objects import run as sweep_run
from support.volume_checkpoints import own_checkpoint, saved, without_crcs
from sweeprun_cli.inspect import checkpoints
from sweeprun_cli.inspect.reading import NothingFoundError, find_runs, read_checkpoints, read_run
from sweeprun_cli.local.faults import Damage, Fault, Means, flip_bit
from sweeprun_cli.local.manifest import load
from sweeprun_cli.local.run import End, LocalRun, Options
from sweeprun_protocol.layout import VERDICTS
from sweeprun_protocol.reasons import Format, Level, Outcome, RefusalReason, StartReason
from sweeprun_volume.formats import Refused
from sweeprun_volume.validate import check

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


def test_where_nothing_is_that_is_told(tmp_path):
    with pytest.raises(NothingFoundError, match="no run lies in"):
        find_runs(tmp_path)
    (tmp_path / "result.json").write_text('{"of": "another program"}')
    for path in (tmp_path, tmp_path / "result.json", tmp_path / "absent"):
        done = command(path)
        assert done.returncode == 2
        assert "neither a run nor a checkpoint lies in" in done.stderr


def test_it_shows_what_prepare_recorded_of_the_checkpoint_that_it_resumed_from(volume):
    seen = view(volume)
    base = next(one.decision.base for one in seen.epochs if one.decision.base is not None)
    told = {one.path: one for one in seen.checkpoints}[base.path]
    assert told.format is Format.TORCH
    assert (told.recorded.finding.word, told.recorded.level) == ("whole", Level.FULL)
    assert told.recorded.finding.digest == base.digest
    assert told.size == (seen.directory / base.path).stat().st_size
    assert {one.path: one.verdict for one in view(volume, Level.FULL).checkpoints}[base.path] == "whole, as recorded"
    shown = command(volume).stdout
    assert re.search(rf"{base.path} +Torch .*whole \(Full\) 20\d\d-", shown), shown


def test_damage_is_told_against_what_was_recorded(volume):
    seen = view(volume)
    base = next(one.decision.base for one in seen.epochs if one.decision.base is not None)
    place = seen.directory / base.path
    keep = place.stat()
    flip_bit(place)
    os.utime(place, ns=(keep.st_atime_ns, keep.st_mtime_ns))
    try:
        found = {one.path: one for one in view(volume, Level.FULL).checkpoints}[base.path]
        assert (found.sound, found.verdict) == (False, "CrcMismatch, was whole")
        assert "CRC-32 is" in found.found.detail
    finally:
        flip_bit(place)
        os.utime(place, ns=(keep.st_atime_ns, keep.st_mtime_ns))


# -- checkpoints without a run -----------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    """As people have them who never saw the operator."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "model-100.pt").write_bytes(saved({"step": 100, "optimizer": {"state": {}, "param_groups": []}}))
    (tmp_path / "deep" / "er" / "model-200.pt").write_bytes(
        saved({"step": 200, "optimizer": {"state": {}, "param_groups": []}})
    )
    own_checkpoint(tmp_path, run_id="of-some-run", step=300, epoch=2)
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def look(path, level=None):
    return {one.path: one for one in read_checkpoints(path, level=level, timeout_seconds=60).checkpoints}


def test_checkpoints_of_a_directory_without_a_run_are_listed_and_judged(plain):
    listed = look(plain)
    assert {path: (str(one.format), one.step, one.eligible) for path, one in listed.items()} == {
        "model-100.pt": ("Torch", 100, None),
        "deep/er/model-200.pt": ("Torch", 200, None),
        "step-000000300.e2": ("SweepRun", 300, None),
    }
    assert {one.verdict for one in listed.values()} == {""}
    before = content(plain)
    judged = look(plain, Level.FULL)
    assert {one.verdict for one in judged.values()} == {"whole"}
    assert judged["step-000000300.e2"].found.world_size == 2
    assert content(plain) == before
    done = command("--check", "Full", plain)
    assert done.returncode == 0
    assert "next prepare" not in done.stdout
    assert "recorded" not in done.stdout.replace("as recorded", "")


@pytest.mark.parametrize("name", ["model-100.pt", "step-000000300.e2"])
def test_a_checkpoint_itself_may_be_named(plain, name):
    assert list(look(plain / name)) == [name]
    assert command("--check", "Full", plain / name).returncode == 0
    (plain / "link").symlink_to(plain / name)
    assert list(look(plain / "link")) == [name]


def test_damage_in_a_directory_without_a_run_is_told_with_its_place(plain):
    flip_bit(plain / "model-100.pt")
    done = command("--check", "Full", plain)
    assert done.returncode == 1
    assert "CrcMismatch" in done.stdout
    assert "archive/data/0: CRC-32 is" in done.stdout
    assert command(plain).returncode == 0


def test_weights_alone_are_no_damage_and_are_checked_all_the_same(plain):
    own_checkpoint(plain, run_id="of-some-run", step=400, epoch=2, resumable=False)
    judged = look(plain, Level.FULL)
    assert (judged["step-000000400.e2"].verdict, judged["step-000000400.e2"].sound) == ("weights only", True)


def test_weights_that_are_damaged_are_damaged(plain, monkeypatch):
    def passed_over_first(context, candidate):
        if context.resumable_only:
            raise Refused(RefusalReason.NOT_RESUMABLE, "weights only")
        return check(context, candidate)

    monkeypatch.setattr(checkpoints, "check", passed_over_first)
    assert {one.verdict for one in look(plain, Level.FULL).values()} == {"weights only"}
    flip_bit(plain / "model-100.pt")
    assert look(plain, Level.FULL)["model-100.pt"].verdict == "CrcMismatch"


def test_what_the_format_does_not_cover_is_told(plain):
    data = (plain / "model-100.pt").read_bytes()
    (plain / "model-100.pt").write_bytes(without_crcs(data))
    found = look(plain, Level.FULL)["model-100.pt"].found
    assert found.uncovered == len(data)
    shown = command("--check", "Full", plain).stdout
    assert "1 of 3: the file carries no CRCs" in shown


def test_a_check_that_did_not_finish_is_no_good_end(plain):
    done = read_checkpoints(plain, level=Level.FULL, timeout_seconds=0)
    assert {one.sound for one in done.checkpoints} == {None}
    assert {one.verdict for one in done.checkpoints} == {"not checked within 0 s"}
    assert {one.sound for one in look(plain, Level.FULL).values()} == {True}


def test_a_record_of_a_verdict_that_cannot_be_read_is_told(volume):
    (directory,) = find_runs(volume)
    seen = view(volume)
    base = next(one.decision.base for one in seen.epochs if one.decision.base is not None)
    record = next((directory / VERDICTS).glob("*.first.json"))
    whole = record.read_bytes()
    record.write_text("{")
    try:
        seen = view(volume)
        assert record.name in seen.problems[0]
        assert {one.path: one.recorded for one in seen.checkpoints}[base.path] is None
    finally:
        record.write_bytes(whole)


def test_a_run_behind_a_link_is_read(volume, tmp_path):
    (directory,) = find_runs(volume)
    (tmp_path / "link").symlink_to(directory)
    seen = read_run(tmp_path / "link", level=None, timeout_seconds=60)
    assert (seen.problems, len(seen.checkpoints)) == ([], len(view(volume).checkpoints))


def command(*arguments):
    return subprocess.run(
        [SWEEPRUN, "inspect", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
