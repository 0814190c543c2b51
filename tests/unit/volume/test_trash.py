"""Deleting takes two steps, for the head alone and in bounded time; what fails is told and tried again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from support.volume_retention import attempt, in_trash, steps
from support.volume_sweep import clock_without_waiting
from sweeprun_protocol.layout import TRASH, RunLayout
from sweeprun_protocol.reasons import BlockedReason, Format, Outcome, StartReason
from sweeprun_volume.clock import Clock
from sweeprun_volume.formats.finding import find_checkpoints
from sweeprun_volume.operations import Volume

# -- two steps ---------------------------------------------------------------------------------------------------------


def test_nothing_is_renamed_before_the_decision_is_durable_and_nothing_removed_before_it_is_renamed(sweep):
    sweep.prepare()
    for step in (100, 200):
        sweep.save(step)
    trace = []
    sweep.ask(sweep.next_request(keep_last=1), before=lambda operation, path: trace.append((operation, path)))
    run = "sweep/digits-lr/runs/" + sweep.run_id
    renamed = trace.index(("rename", f"{run}/checkpoints/step-000000100.e1"))
    trash = f"{run}/{TRASH}/checkpoints__step-000000100.e1.moved-e2"
    assert trace.index(("fsync-directory", f"{run}/epochs/2/decision.json")) < renamed
    assert trace[renamed + 1 : renamed + 3] == [
        ("fsync-directory", trash),
        ("fsync-directory", f"{run}/checkpoints/step-000000100.e1"),
    ]
    removals = [at for at, (operation, path) in enumerate(trace) if operation in ("unlink", "rmdir") and path == trash]
    assert removals
    assert min(removals) > renamed + 2


def test_nothing_in_the_trash_is_a_checkpoint(sweep):
    sweep.prepare()
    place = sweep.save(100)
    (sweep.directory() / TRASH).mkdir()
    volume = Volume(str(sweep.root))
    layout = RunLayout(os.path.relpath(sweep.directory(), sweep.root))
    assert len(find_checkpoints(volume, layout, "", Format.AUTO)) == 0, "it lies in a directory below"
    place.rename(sweep.directory() / TRASH / "step-000000100.e1")
    assert find_checkpoints(volume, layout, "", Format.AUTO) == []
    assert sweep.prepare().reason is StartReason.NOTHING_COMMITTED


def claims_meanwhile(sweep, at):
    """A later prepare claims just before the operation `at`; nothing else of it is seen."""

    def before(operation, path):
        if at(operation, path):
            claim = json.loads(Path(sweep.layout().claim(2)).read_bytes())
            Path(sweep.layout().claim(3)).write_text(json.dumps({**claim, "epoch": 3, "prepare": 2}))

    return before


@pytest.mark.parametrize(
    ("at", "renames"),
    [
        (lambda operation, path: operation == "fsync-directory" and path.endswith("decision.json"), 0),
        (lambda operation, path: operation == "rename" and path.endswith("step-000000100.e1"), 2),
    ],
    ids=["before it looks at the head", "between the look and the rename"],
)
def test_a_later_claim_leaves_everything_where_it_was(at, renames, sweep):
    sweep.prepare()
    for step in (100, 200):
        sweep.save(step)
    claims, renamed = claims_meanwhile(sweep, at), []

    def before(operation, path):
        claims(operation, path)
        if operation == "rename" and "step-" in path:
            renamed.append(path)

    report = sweep.ask(sweep.next_request(keep_last=1), before=before)
    assert report.outcome is Outcome.SUPERSEDED
    assert steps(sweep) == [100, 200]
    assert in_trash(sweep) == []
    assert len(renamed) == renames, "there and back, or not at all"


def test_without_a_later_claim_the_same_question_deletes(sweep):
    sweep.prepare()
    for step in (100, 200):
        sweep.save(step)
    request = sweep.next_request(keep_last=1)
    assert sweep.ask(request, before=claims_meanwhile(sweep, lambda *_: False)).outcome is Outcome.RESUME
    assert steps(sweep) == [200]


def test_a_base_that_an_older_prepare_took_too_late_is_put_back(sweep):
    """It renamed what a later decision had just chosen, and its node died before it saw that."""
    sweep.prepare()
    attempt(sweep, 100)
    (sweep.directory() / TRASH).mkdir()
    place = sweep.directory() / "checkpoints" / "step-000000100.e1"
    place.rename(sweep.directory() / TRASH / "checkpoints__step-000000100.e1.moved-e1")
    report = sweep.prepare(keep_last=1)
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 100)
    assert place.exists()
    assert in_trash(sweep) == []


def test_what_is_gone_and_not_in_the_trash_is_missed(sweep):
    sweep.prepare()
    attempt(sweep, 100)
    shutil.rmtree(sweep.directory() / "checkpoints" / "step-000000100.e1")
    assert sweep.prepare(keep_last=1).blocked is BlockedReason.CHECKPOINT_MISSING


def test_the_trash_is_emptied_but_for_what_is_needed(sweep):
    sweep.prepare()
    sweep.save(100)
    trash = sweep.directory() / TRASH

    def before(operation, path):
        if operation == "fsync-directory" and path.endswith("epochs/2/decision.json"):
            trash.mkdir()
            (trash / "checkpoints__step-000000050.e1.moved-e1").mkdir()
            place = sweep.directory() / "checkpoints" / "step-000000100.e1"
            place.rename(trash / "checkpoints__step-000000100.e1.moved-e1")

    sweep.last = sweep.ask(sweep.next_request(keep_last=1), before=before)
    assert in_trash(sweep) == ["checkpoints__step-000000100.e1.moved-e1"]
    assert sweep.prepare(keep_last=1).checkpoint.step == 100


@pytest.mark.parametrize("bounds", [{}, {"keep_last": 1}])
def test_what_an_earlier_prepare_did_not_finish_is_removed_even_where_the_bound_is_gone(bounds, sweep):
    sweep.prepare()
    left = sweep.directory() / TRASH / "checkpoints__step-000000050.e1.moved-e1"
    (left / "rank-0").mkdir(parents=True)
    (left / "rank-0" / "rng.pt").write_bytes(b"x")
    mine = sweep.directory() / TRASH / "somebody's"
    mine.mkdir()
    sweep.prepare(**bounds)
    assert in_trash(sweep) == ["somebody's"], "what prepare did not put there stays"


def test_completion_empties_the_trash(sweep):
    sweep.prepare()
    (sweep.directory() / TRASH / "checkpoints__step-000000050.e1.moved-e1").mkdir(parents=True)
    sweep.starts()
    sweep.ends()
    assert sweep.prepare().outcome is Outcome.COMPLETED
    assert in_trash(sweep) == []


def test_nothing_outside_the_run_directory_is_removed(sweep, tmp_path):
    outside = tmp_path / "outside"
    (outside / "checkpoints__step-000000050.e1.moved-e1").mkdir(parents=True)
    sweep.prepare()
    inside = sweep.save(100)
    (inside / "more").symlink_to(outside)
    sweep.save(200)
    (sweep.directory() / TRASH).symlink_to(outside)
    report = sweep.prepare(keep_last=1)
    assert report.outcome is Outcome.RESUME
    assert "left to be deleted" in report.message
    assert len(list(outside.iterdir())) == 1
    (sweep.directory() / TRASH).unlink()
    sweep.prepare(keep_last=1)
    assert steps(sweep) == [200]
    assert len(list(outside.iterdir())) == 1


# -- what cannot be deleted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), [("rename", errno.EACCES), ("unlink", errno.EBUSY), ("rmdir", errno.EIO)])
def test_what_cannot_be_deleted_is_told_and_tried_again(name, code, sweep, monkeypatch):
    sweep.prepare()
    for step in (100, 200, 300):
        sweep.save(step)
    usual = getattr(os, name)

    def fails(path, *arguments, **options):
        if "step-000000" in str(path) or path in ("model.pt", "rank-0"):
            raise OSError(code, os.strerror(code))
        return usual(path, *arguments, **options)

    monkeypatch.setattr(os, name, fails)
    sweep.last = sweep.ask(sweep.next_request(keep_last=1))
    assert (sweep.last.outcome, sweep.last.checkpoint.step) == (Outcome.RESUME, 300)
    assert "left to be deleted by the next prepare: 2" in sweep.last.message
    assert os.strerror(code) in sweep.last.message
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    report = sweep.prepare(keep_last=1)
    assert "left to be deleted" not in report.message
    assert (steps(sweep), in_trash(sweep)) == ([300], [])


def test_an_unreadable_volume_after_the_decision_does_not_change_the_answer(sweep, monkeypatch):
    sweep.prepare()
    for step in (100, 200):
        sweep.save(step)
    decided = []
    scandir = os.scandir

    def fails(path):
        if decided:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(path)

    def before(operation, path):
        if operation == "fsync-directory" and path.endswith("decision.json"):
            decided.append(path)

    monkeypatch.setattr(os, "scandir", fails)
    report = sweep.ask(sweep.next_request(keep_last=1, quarantine_keep_last=1), before=before)
    monkeypatch.setattr(os, "scandir", scandir)
    assert report.outcome is Outcome.RESUME
    assert "left to be deleted" in report.message
    assert steps(sweep) == [100, 200]


def clock_of_a_slow_volume():
    """A second passes with every look at the clock."""
    elapsed = [0.0]

    def monotonic():
        elapsed[0] += 1.0
        return elapsed[0]

    return Clock(monotonic=monotonic, sleep=lambda seconds: None)


def test_deleting_is_given_up_in_time_and_the_next_prepare_goes_on(sweep):
    sweep.prepare()
    for step in range(100, 2100, 100):
        sweep.save(step)
    asked = 0
    while steps(sweep) != [2000] or in_trash(sweep):
        clock = clock_of_a_slow_volume()
        sweep.last = sweep.ask(sweep.next_request(keep_last=1), clock=clock)
        assert sweep.last.outcome is Outcome.RESUME
        assert clock.monotonic() < 100, "no more than is spent on everything else and the 30 s"
        if asked == 0:
            assert "left to be deleted" in sweep.last.message
            assert 1 < len(steps(sweep)) < 20, "some were not even renamed"
        asked += 1
        assert asked < 60
    assert asked > 1


def test_a_large_tree_is_removed_by_several_prepares(sweep):
    sweep.prepare()
    left = sweep.directory() / TRASH / "checkpoints__step-000000050.e1.moved-e1"
    left.mkdir(parents=True)
    for number in range(50):
        (left / str(number)).touch()
    sweep.last = sweep.ask(sweep.next_request(), clock=clock_of_a_slow_volume())
    assert "left to be deleted by the next prepare: 1" in sweep.last.message
    assert 10 < len(list(left.iterdir())) < 50
    sweep.last = sweep.ask(sweep.next_request(), clock=clock_of_a_slow_volume())
    assert in_trash(sweep) == []


def test_time_enough_deletes_all_at_once(sweep):
    sweep.prepare()
    for step in range(100, 2100, 100):
        sweep.save(step)
    sweep.ask(sweep.next_request(keep_last=1), clock=clock_without_waiting())
    assert (steps(sweep), in_trash(sweep)) == ([2000], [])
