"""What may go goes; what is needed, or is not ours, or was never verified, stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from support.volume_checkpoints import contents, saved
from support.volume_retention import attempt, in_trash, steps, three_interruptions
from sweeprun_protocol.layout import MANIFEST, TRASH
from sweeprun_protocol.manifest import Manifest
from sweeprun_protocol.reasons import Format, Level, StartReason
from sweeprun_protocol.records import CheckpointRef


def shorten(checkpoint):
    (checkpoint / "model.pt").write_bytes(b"short")


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_without_a_bound_nothing_is_deleted(sweep):
    report = three_interruptions(sweep)
    assert steps(sweep) == [100, 200, 300, 400, 500, 600]
    assert not (sweep.directory() / TRASH).exists()
    assert "deleted" not in report.message


@pytest.mark.parametrize(
    ("keep_last", "left"),
    [
        (1, [600]),
        (2, [400, 500, 600]),
        (3, [200, 300, 400, 500, 600]),
        (4, [100, 200, 300, 400, 500, 600]),
        (1_000_000, [100, 200, 300, 400, 500, 600]),
    ],
)
def test_what_is_older_than_enough_verified_ones_goes(keep_last, left, sweep):
    report = three_interruptions(sweep, keep_last=keep_last, pinned=None)
    assert steps(sweep) == left
    assert in_trash(sweep) == []
    assert report.checkpoint.step == 600
    assert ("old checkpoints deleted" in report.message) == (len(left) < 6)


def test_what_nobody_verified_does_not_count(sweep):
    """Only the newest of five was read."""
    sweep.prepare()
    attempt(sweep, 100, 200, 300, 400, 500, keep_last=2)
    assert steps(sweep) == [100, 200, 300, 400, 500]
    attempt(sweep, 600, keep_last=2)
    assert steps(sweep) == [500, 600]


@pytest.mark.parametrize("spoil", [shorten, shutil.rmtree, lambda place: (place / MANIFEST).write_bytes(b"{}")])
def test_what_was_verified_and_no_longer_is_what_it_was_does_not_count(spoil, sweep):
    sweep.prepare()
    attempt(sweep, 100, 200)
    attempt(sweep, 300, 400)
    spoil(sweep.directory() / "checkpoints" / "step-000000400.e2")
    attempt(sweep, 500, 600, keep_last=2, pinned=None)
    assert {200, 300, 500, 600} <= set(steps(sweep)), "200 is the second one that is whole"
    assert 100 not in steps(sweep)


def test_the_pinned_one_stays_until_the_operator_knows_a_newer_one(sweep):
    sweep.prepare(keep_last=1)
    attempt(sweep, 100, 200, keep_last=1)
    assert steps(sweep) == [200]
    attempt(sweep, 300, 400, keep_last=1)
    assert steps(sweep) == [200, 400]
    sweep.prepare(keep_last=1)
    assert steps(sweep) == [400]


def test_nothing_goes_where_the_base_is_not_what_was_decided(sweep):
    """Though an older one is verified."""
    sweep.prepare()
    attempt(sweep, 100, 200)
    sweep.save(300)
    request = sweep.next_request(keep_last=1, pinned=None)
    assert sweep.ask(replace(request, keep_last=None)).checkpoint.step == 300
    shorten(sweep.directory() / "checkpoints" / "step-000000300.e2")
    assert sweep.ask(request).checkpoint.step == 300, "the decision stands; the pods' start check refuses it"
    assert steps(sweep) == [100, 200, 300]


def test_a_base_that_is_whole_lets_the_same_question_delete(sweep):
    sweep.prepare()
    attempt(sweep, 100, 200)
    sweep.save(300)
    request = sweep.next_request(keep_last=1, pinned=None)
    sweep.ask(replace(request, keep_last=None))
    sweep.ask(request)
    assert steps(sweep) == [300]


def test_what_a_decision_left_behind_is_not_touched(sweep):
    three_interruptions(sweep)
    report = sweep.prepare(from_step=400, keep_last=1, pinned=None)
    assert report.checkpoint.step == 400
    assert steps(sweep) == [400, 500, 600], "a branch that was left is no member of the sealed set"


def test_a_restart_deletes_nothing(sweep):
    three_interruptions(sweep)
    before = contents(sweep.root)
    report = sweep.prepare(resume=False, keep_last=1, quarantine_keep_last=1)
    assert report.reason is StartReason.RESUME_NEVER
    assert contents(sweep.root) == before
    assert len(list((sweep.directory() / "abandoned" / "e5").iterdir())) == 6


def test_each_epoch_may_have_a_directory_of_its_own(sweep):
    directory = "out/{epoch}"
    sweep.prepare(checkpoint_directory=directory)
    for epoch, step in ((1, 100), (2, 200), (3, 300)):
        made = sweep.save(step)
        place = sweep.directory() / "out" / str(epoch)
        place.mkdir(parents=True)
        made.rename(place / made.name)
        sweep.prepare(checkpoint_directory=directory, keep_last=2, pinned=None)
    found = sorted(path.name for path in (sweep.directory() / "out").glob("*/step-*"))
    assert found == ["step-000000200.e2", "step-000000300.e3"]


def test_level_fast_verifies_as_the_user_wants_it(sweep):
    sweep.prepare()
    attempt(sweep, 100, 200, level=Level.FAST)
    attempt(sweep, 300, 400, level=Level.FAST, keep_last=2)
    assert steps(sweep) == [200, 300, 400]


# -- what is not ours --------------------------------------------------------------------------------------------------


def test_foreign_files_never_go(sweep):
    sweep.prepare(keep_last=1)
    for step in (100, 200, 300):
        sweep.put(f"step-{step}.pt", saved({"step": step}))
        assert sweep.prepare(keep_last=1, pinned=None).checkpoint.step == step
    assert len(list((sweep.directory() / "checkpoints").iterdir())) == 3


def test_neighbours_of_ours_stay(sweep):
    sweep.prepare()
    kept = [sweep.put("notes.txt", b"mine"), sweep.put("step-50.pt", saved({"step": 50}))]
    staging = sweep.directory() / "checkpoints" / ".staging-50-e1-abcd"
    staging.mkdir()
    attempt(sweep, 100, 200, keep_last=1)
    assert steps(sweep) == [200]
    assert all(path.exists() for path in [*kept, staging])


def sealed_as(sweep, step, epoch, path):
    """Put one more into the sealed set of the last decision, as anybody who can write to the volume may."""
    place = Path(sweep.layout().decision(sweep.epoch))
    decision = json.loads(place.read_bytes())
    ref = CheckpointRef(step, epoch, path, None, Format.SWEEPRUN).to_dict()
    decision["eligible"] = [item for item in decision["eligible"] if item["path"] != path] + [ref]
    place.write_text(json.dumps(decision))


def changed_manifest(checkpoint, **changes):
    path = checkpoint / MANIFEST
    path.write_bytes(replace(Manifest.decode(path.read_bytes(), where="x"), **changes).encode())
    return checkpoint


def through_a_link(sweep, checkpoint):
    kept = sweep.directory() / "kept"
    checkpoint.rename(kept)
    checkpoint.symlink_to(kept)
    return kept


def elsewhere(sweep, checkpoint):
    place = sweep.directory() / "published" / checkpoint.name
    place.parent.mkdir()
    return checkpoint.rename(place)


def without_manifest(sweep, checkpoint):
    (checkpoint / MANIFEST).unlink()
    return checkpoint


NOT_OURS = {
    "weights": lambda sweep, place: changed_manifest(place, resumable=False),
    "another run's": lambda sweep, place: changed_manifest(place, run_id="other"),
    "another step's": lambda sweep, place: changed_manifest(place, step=7),
    "no manifest": without_manifest,
    "a link": through_a_link,
    "another directory": elsewhere,
}


@pytest.mark.parametrize("make", [None, *NOT_OURS.values()], ids=["ours", *NOT_OURS])
def test_only_what_says_that_it_is_ours_goes(make, sweep):
    sweep.prepare()
    place = sweep.save(100)
    sweep.save(200)
    request = sweep.next_request()
    sweep.last = sweep.ask(request)
    kept = place if make is None else make(sweep, place)
    path = "published/step-000000100.e1" if "published" in str(kept) else "checkpoints/step-000000100.e1"
    sealed_as(sweep, 100, 1, path)
    sweep.ask(replace(request, keep_last=1))
    assert kept.exists() == (make is not None)
    assert steps(sweep)[-1] == 200


def test_what_the_running_attempt_commits_stays_whatever_a_record_says(sweep):
    sweep.prepare()
    sweep.save(200)
    request = sweep.next_request(keep_last=1)
    sweep.last = sweep.ask(request)
    mine = sweep.save(100)
    sealed_as(sweep, 100, 2, f"checkpoints/{mine.name}")
    sweep.ask(request)
    assert mine.exists()


def test_what_somebody_gave_another_name_stays_whatever_a_record_says(sweep):
    sweep.prepare()
    place = sweep.save(100)
    sweep.save(200)
    request = sweep.next_request(keep_last=1)
    sweep.last = sweep.ask(replace(request, keep_last=None))
    best = place.rename(place.parent / "best")
    sealed_as(sweep, 100, 1, "checkpoints/best")
    sweep.ask(request)
    assert best.exists()
