"""Power is lost before each call of a prepare, a commit, a start or an end; what was not durable is there or not.

Whoever asks next gets the answer that was due, from the old or the new, never from a mixture; and what was answered
before the loss still holds. Besides the loss of all that can be lost, SWEEPRUN_TEST_SEEDS choices by chance are tried
for each call (default: one for every second call).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from support.lossy_disk import KeepAll, KeepNothing, KeepSome, LossyDisk, every_choice
from support.run_directory import RunDirectory
from support.training import DIRECTORY, RUN, Rig, checkpointer
from support.volume_checkpoints import context_at
from support.volume_crash import STORIES, DiedError, Mortality, answer, check, contents_of, copy_of
from support.volume_sweep import CONFIG_NAME, OWNER, Sweep, make_request, with_init
from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.environ import PodEnvironment
from sweeprun_protocol.layout import parse_step_name
from sweeprun_protocol.reasons import Outcome
from sweeprun_protocol.records import Claim, EndRecord, StartRecord
from sweeprun_trainer.ending import publish_end
from sweeprun_trainer.start import Place, check_start
from sweeprun_volume.clock import Clock
from sweeprun_volume.formats import Refused, format_of
from sweeprun_volume.lineage import Format
from sweeprun_volume.operations import Volume
from sweeprun_volume.records_io import publish_record, read_record

SEEDS = int(os.environ.get("SWEEPRUN_TEST_SEEDS", "1"))

CLAIM = Claim(epoch=1, run_id="r", owner=OWNER, prepare=0, time=1.0)


@pytest.fixture
def tmp_path(tmp_path):
    """In memory where that is possible: thousands of trees are built."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


def losses(at):
    """What may be lost before call `at`: all that can be, and by chance."""
    seeds = range(SEEDS) if SEEDS > 1 or at % 2 else range(0)
    return [KeepNothing(), *(KeepSome(1000 * at + seed) for seed in seeds)]


def trees(disk, target):
    """(where, whether it is the end) for each tree that can be found, once."""
    told = set()
    for at in range(len(disk.calls) + 1):
        for keep in losses(at):
            tree = disk.after_power_loss(at, target, keep)
            end = at == len(disk.calls)
            if (tree, end) not in told:
                told.add((tree, end))
                yield f"power lost before call {at}, after {disk.calls[at - 1] if at else 'nothing'}\n{tree}", end


# -- one record --------------------------------------------------------------------------------------------------------


class WithoutFsync(LossyDisk):
    """The same program as if it asked for no fsync of files, or of directories."""

    lost = "files"

    def fsync(self, descriptor):
        directory = self._directories[self._of(descriptor)]
        if directory != (self.lost == "directories"):
            super().fsync(descriptor)


class WithoutFsyncOfDirectories(WithoutFsync):
    lost = "directories"


def publish_and_lose(disk_kind, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with disk_kind(root) as disk:
        assert publish_record(Volume(str(root)), "run/claims/000001.json", CLAIM)
    for at in range(len(disk.calls) + 1):
        for tree in every_choice(lambda keep, at=at: disk.after_power_loss(at, tmp_path / "lost", keep)):
            found = read_record(Volume(str(tmp_path / "lost")), "run/claims/000001.json", Claim.from_value)
            assert found in (None, CLAIM), tree
            assert found == CLAIM or at < len(disk.calls), tree


def test_a_record_is_there_whole_or_not_at_all_and_whole_once_that_was_said(tmp_path):
    publish_and_lose(LossyDisk, tmp_path)


@pytest.mark.parametrize("kind", [WithoutFsync, WithoutFsyncOfDirectories])
def test_a_record_without_its_fsyncs_would_be_found_torn_or_lost(kind, tmp_path):
    """The disk is as lossy as it should be."""
    with pytest.raises((AssertionError, RecordError)):
        publish_and_lose(kind, tmp_path)


def test_a_record_in_a_directory_that_a_dead_process_made_stays(tmp_path):
    """It died before the fsync of what holds the directory."""
    for at in range(8):
        root = tmp_path / f"root-{at}"
        root.mkdir()
        with LossyDisk(root) as disk:
            calls = []

            def before(operation, path, at=at, calls=calls):
                calls.append(operation)
                if len(calls) > at:
                    raise DiedError(operation)

            with pytest.raises(DiedError):
                publish_record(Volume(str(root), before=before), "run/claims/000001.json", CLAIM)
            assert publish_record(Volume(str(root)), "run/claims/000001.json", CLAIM)
        disk.after_power_loss(len(disk.calls), tmp_path / "lost", KeepNothing())
        assert Volume(str(tmp_path / "lost")).exists("run/claims/000001.json"), f"death before operation {at}"


# -- prepare -----------------------------------------------------------------------------------------------------------


def played(story, tmp_path):
    sweep = Sweep(tmp_path / "played")
    sweep.root.mkdir()
    return sweep, story.play(sweep)


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_a_power_loss_before_any_call_changes_no_answer(story, tmp_path):
    sweep, request = played(story, tmp_path)
    whole = copy_of(sweep, "whole")
    with LossyDisk(whole.root) as disk:
        due = story.ask(whole, request)
    assert (due.outcome, due.reason) == (story.outcome, story.reason), due.message
    lost = Sweep(tmp_path / "lost")
    for where, end in trees(disk, lost.root):
        number = request.prepare + int(len(where) % 2 and not end)
        if end:
            lost.last = due
            again = story.ask(lost, replace(lost.next_request(), **told(due, request)))
            assert answer(again) == answer(due), where
        else:
            check(story, due, lost, replace(request, prepare=number), f"{where}\nthen prepare {number}")
        assert contents_of(story, lost) == contents_of(story, sweep), where


def told(due, request):
    """The operator has the answer in status, and asks the same prepare again."""
    return {
        "prepare": request.prepare,
        "configuration": request.configuration,
        "resume": request.resume,
        "drain_forced": request.drain_forced,
        "on_no_valid_checkpoint": request.on_no_valid_checkpoint,
        "fresh_number": request.fresh_number,
        "init_key": request.init_key,
        "adoption": request.adoption,
    }


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_an_answer_that_stands_on_what_a_dead_prepare_left_outlives_a_power_loss(story, tmp_path):
    """The dead one had not made durable what it did last, and the next one found it done."""
    sweep, request = played(story, tmp_path)
    lives = Mortality()
    due = story.ask(copy_of(sweep, "whole"), request, before=lives)
    for at in range(1, len(lives.operations)):
        dead = copy_of(sweep, "dead")
        with LossyDisk(dead.root) as disk:
            with pytest.raises(DiedError) as death:
                story.ask(dead, request, before=Mortality(at))
            given = story.ask(dead, request, attempt=int(bool(story.staging)))
        lost = Sweep(tmp_path / "lost")
        disk.after_power_loss(len(disk.calls), lost.root, KeepNothing())
        lost.last = given
        again = story.ask(lost, replace(lost.next_request(), **told(due, request)))
        assert answer(again) == answer(given), f"death {at}: {death.value}\n{again.message}"


def test_what_sweep_init_left_is_durable_before_it_is_the_result(tmp_path):
    """A script writes as scripts do: without fsync."""
    root = tmp_path / "root"
    root.mkdir()
    sweep = Sweep(root)
    sweep.init_leaves("pod-a", files=[])
    with LossyDisk(root) as disk:
        holder = os.open(root / ".sweeprun-inits" / "uid-0-0" / "pod-a", os.O_RDONLY)
        for name, data in ((CONFIG_NAME, b"lr: '0.02'\n"), ("run.json", b'{"runId":"one"}')):
            descriptor = disk.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=holder)
            disk.write(descriptor, data)
            os.close(descriptor)
        os.close(holder)
        due = sweep.finish_init(with_init(), "pod-a")
    assert due.outcome is Outcome.FRESH, due.message
    lost = Sweep(tmp_path / "lost")
    for where, _ in trees(disk, lost.root):
        if (lost.root / ".sweeprun-inits" / "uid-0-0.json").exists():
            report = lost.ask(with_init(prepare=0))
            assert (report.outcome, report.run_id, report.config_digest) == (
                Outcome.FRESH,
                "one",
                due.config_digest,
            ), f"{where}\n{report.message}"


def test_a_volume_whose_id_was_told_keeps_it(tmp_path):
    """The first prepare dies with its record linked and not durable; the second one tells the ID."""
    root = tmp_path / "root"
    root.mkdir()
    sweep = Sweep(root)

    def before(operation, path):
        if (operation, path) == ("unlink", ".sweeprun-volume.json"):
            raise DiedError(path)

    with LossyDisk(root) as disk:
        with pytest.raises(DiedError):
            sweep.ask(make_request(), before=before)
        sweep.prepare()
    lost = Sweep(tmp_path / "lost")
    disk.after_power_loss(len(disk.calls), lost.root, KeepNothing())
    lost.last = sweep.last
    assert lost.prepare().outcome is Outcome.RESTART


# -- what pods do; KeepAll: the process dies alone ---------------------------------------------------------------------


def commit_and_lose(disk_kind, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    commits = checkpointer(root, Rig())
    with disk_kind(root) as disk:
        assert commits.save(10)
        first = len(disk.calls)
        assert commits.save(20)
    lost = tmp_path / "lost"
    for at in range(len(disk.calls) + 1):
        for keep in (KeepAll(), *losses(at)):
            tree = disk.after_power_loss(at, lost, keep)
            volume = Volume(str(lost))
            names = [entry.name for entry in volume.entries(DIRECTORY) if parse_step_name(entry.name)]
            context = context_at(volume, run_id=RUN)
            for name in names:
                step, epoch = parse_step_name(name)
                format_of(Format.SWEEPRUN).check(context, f"{DIRECTORY}/{name}", step=step, epoch=epoch)
            due = ["step-000000010.e1"] * (at >= first) + ["step-000000020.e1"] * (at == len(disk.calls))
            assert set(due) <= set(names), tree


def test_a_checkpoint_is_there_whole_or_not_at_all_and_whole_once_it_was_called_committed(tmp_path):
    commit_and_lose(LossyDisk, tmp_path)


@pytest.mark.parametrize("kind", [WithoutFsync, WithoutFsyncOfDirectories])
def test_a_checkpoint_without_its_fsyncs_would_be_found_torn_or_lost(kind, tmp_path):
    with pytest.raises((AssertionError, Refused)):
        commit_and_lose(kind, tmp_path)


def test_starts_and_ends_are_there_whole_or_not_at_all_and_whole_before_anything_follows(tmp_path):
    run = RunDirectory(tmp_path / "root")
    place = Place.of(run.environment(), PodEnvironment("master-0", "uid", "pod", "node"))
    end = EndRecord(1, "master-0", "uid", 0, False, False, 100, 1.0, 2.0)
    with LossyDisk(run.root) as disk:
        check_start(place, clock=Clock(), settle_seconds=0)
        started = len(disk.calls)
        assert publish_end(place, end, seconds=1)
    for at in range(len(disk.calls) + 1):
        for keep in (KeepAll(), *losses(at)):
            tree = disk.after_power_loss(at, tmp_path / "lost", keep)
            volume = Volume(str(tmp_path / "lost" / run.path.relative_to(run.root)))
            start = read_record(volume, run.layout.start(1, "master-0"), StartRecord.from_value)
            assert start is None or start.pod_uid == "uid", tree
            assert start is not None or at < started, tree
            found = read_record(volume, run.layout.end(1, "master-0"), EndRecord.from_value)
            assert found in (None, end), tree
            assert found == end or at < len(disk.calls), tree
