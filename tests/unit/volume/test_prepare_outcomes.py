"""What prepare answers, by its public entry, on real directories."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import pytest

from support.volume_checkpoints import flip, rewrite, saved
from support.volume_sweep import CONFIG, CONFIG_NAME, OTHER, make_request
from sweeprun_protocol.reasons import BlockedReason, OnNoValidCheckpoint, Outcome, RefusalReason, StartReason
from sweeprun_volume.clock import Clock


def damage(checkpoint):
    """One bit in the middle of the data, with the file's time as it was."""
    path = checkpoint / "model.pt"
    rewrite(path, flip(path.read_bytes(), 1000), keep_time=True)


def test_a_new_run_starts_fresh_with_its_marker_configuration_and_claim(sweep):
    report = sweep.prepare()
    assert (report.outcome, report.reason) == (Outcome.FRESH, StartReason.FIRST_START)
    assert (report.epoch, report.adopted, report.checkpoint) == (1, False, None)
    directory = sweep.directory()
    assert (directory / ".incomplete").exists()
    assert (directory / CONFIG_NAME).read_text() == CONFIG
    assert [claim["owner"]["uid"] for claim in sweep.claims()] == ["uid-0"]
    assert report.wandb_run_id == report.run_id


def test_an_interrupted_run_resumes_from_its_newest_checkpoint(sweep):
    first = sweep.prepare()
    sweep.save(100)
    newest = sweep.save(200)
    report = sweep.prepare()
    assert (report.outcome, report.reason) == (Outcome.RESUME, StartReason.NEWEST_CHECKPOINT)
    assert (report.run_id, report.epoch, report.checkpoint.step) == (first.run_id, 2, 200)
    assert report.checkpoint.path == f"checkpoints/{newest.name}"
    assert report.checkpoint.digest.startswith("sha256:")
    assert (report.checked_count, report.refused) == (1, ())
    assert report.checked_bytes > 16384


def test_a_damaged_checkpoint_is_walked_back_from_and_quarantined_with_its_verdict(sweep):
    sweep.prepare()
    sweep.save(100)
    damage(sweep.save(200))
    report = sweep.prepare()
    assert (report.outcome, report.reason, report.checkpoint.step) == (Outcome.RESUME, StartReason.WALKED_BACK, 100)
    (refusal,) = report.refused
    assert (refusal.reason, refusal.entry, refusal.offset) == (RefusalReason.DIGEST_MISMATCH, "model.pt", 0)
    moved = sorted(path.name for path in (sweep.directory() / "quarantine").iterdir())
    name = "checkpoints__step-000000200.e1.moved-e2"
    assert moved == [name, f"{name}.verdict.json"]
    assert sorted(path.name for path in (sweep.directory() / "checkpoints").iterdir()) == ["step-000000100.e1"]


def test_a_run_interrupted_before_its_first_checkpoint_restarts_as_the_same_run(sweep):
    first = sweep.prepare()
    report = sweep.prepare()
    assert (report.outcome, report.reason) == (Outcome.RESTART, StartReason.NOTHING_COMMITTED)
    assert (report.run_id, report.epoch, report.config_digest) == (first.run_id, 2, first.config_digest)
    assert report.wandb_run_id == first.wandb_run_id
    assert sweep.runs() == [first.run_id]


def test_when_all_are_refused_a_new_run_takes_the_place_and_the_old_one_says_so(sweep):
    first = sweep.prepare()
    damage(sweep.save(100))
    report = sweep.prepare(fresh_number=1)
    assert (report.outcome, report.reason) == (Outcome.FRESH, StartReason.ALL_REFUSED)
    assert report.previous_run_id == first.run_id
    assert report.run_id != first.run_id
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.DIGEST_MISMATCH]
    old = sweep.directory(first.run_id)
    assert report.run_id in (old / "superseded-by.json").read_text()
    assert (old / ".incomplete").exists()
    assert (sweep.directory() / CONFIG_NAME).read_text() == CONFIG
    assert report.wandb_run_id == report.run_id


def test_a_new_run_never_gets_the_name_of_the_one_whose_place_it_takes(sweep):
    """The number of fresh starts is part of its name, and the answer that would have raised it may be lost."""
    first = sweep.prepare()
    damage(sweep.save(100))
    report = sweep.prepare(fresh_number=0)
    assert (report.outcome, report.previous_run_id) == (Outcome.FRESH, first.run_id)
    assert report.run_id != first.run_id


def test_whoever_asks_for_a_run_that_gave_way_is_led_to_the_one_in_its_place(sweep):
    first = sweep.prepare()
    damage(sweep.save(100))
    request = sweep.next_request(fresh_number=1)
    new = sweep.ask(request)
    later = sweep.ask(replace(request, prepare=request.prepare + 1))
    assert (later.run_id, later.epoch) == (new.run_id, 2)
    assert len(sweep.claims(first.run_id)) == 2


def pinned_then_refused(sweep):
    """What is asked once the checkpoint that the last attempt resumed from is damaged: (request, its answer)."""
    sweep.prepare()
    checkpoint = sweep.put("step-100.pt", saved({"step": 100, "optimizer": 1}))
    assert sweep.prepare().checkpoint is not None
    rewrite(checkpoint, flip(checkpoint.read_bytes(), 1000), keep_time=True)
    request = sweep.next_request(fresh_number=1)
    return request, sweep.ask(request)


def test_what_was_pinned_of_a_run_that_gave_way_is_not_missed_in_the_one_in_its_place(sweep):
    """The answer that named the new run is lost, so that the next request still tells of the old one."""
    request, new = pinned_then_refused(sweep)
    later = sweep.ask(replace(request, prepare=request.prepare + 1))
    assert (later.run_id, later.epoch) == (new.run_id, 2)
    assert (later.outcome, later.reason) == (Outcome.RESTART, StartReason.NOTHING_COMMITTED)


def test_what_was_pinned_of_a_run_that_gave_way_says_nothing_of_a_file_of_the_same_name(sweep):
    request, new = pinned_then_refused(sweep)
    path = sweep.directory(new.run_id) / "checkpoints" / "step-100.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(saved({"step": 100, "optimizer": 2}))
    later = sweep.ask(replace(request, prepare=request.prepare + 1))
    assert (later.outcome, later.refused) == (Outcome.RESUME, ())
    assert later.checkpoint is not None
    assert later.checkpoint.digest != request.pinned.digest


def test_a_new_run_in_the_place_of_a_refused_one_gets_a_tracking_run_of_its_own(sweep):
    assert sweep.prepare(wandb_run_id="mine").wandb_run_id == "mine"
    damage(sweep.save(100))
    report = sweep.prepare(fresh_number=1, wandb_run_id="mine")
    assert report.wandb_run_id == report.run_id


def test_when_all_are_refused_the_run_may_restart_under_its_id_with_a_linked_tracking_run(sweep):
    first = sweep.prepare()
    damage(sweep.save(100))
    sweep.put("notes.pt", b"not a checkpoint at all")
    restart = OnNoValidCheckpoint.RESTART_RUN
    report = sweep.prepare(on_no_valid_checkpoint=restart)
    assert (report.outcome, report.reason, report.run_id) == (
        Outcome.RESTART,
        StartReason.ALL_REFUSED,
        first.run_id,
    )
    assert report.wandb_run_id == f"{first.run_id}-e2"
    assert [path.name for path in (sweep.directory() / "abandoned" / "e2").iterdir()] == [
        "checkpoints__notes.pt.moved-e2"
    ]
    assert list((sweep.directory() / "checkpoints").iterdir()) == []
    assert sweep.prepare(on_no_valid_checkpoint=restart).wandb_run_id == f"{first.run_id}-e2"


def test_when_all_are_refused_and_the_user_wants_to_decide_nothing_is_moved(sweep):
    sweep.prepare()
    checkpoint = sweep.save(100)
    damage(checkpoint)
    report = sweep.prepare(on_no_valid_checkpoint=OnNoValidCheckpoint.FAIL)
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.NO_VALID_CHECKPOINT)
    assert [refusal.path for refusal in report.refused] == [f"checkpoints/{checkpoint.name}"]
    assert checkpoint.exists()
    assert not (sweep.directory() / "quarantine").exists()


def test_without_resume_the_run_restarts_and_its_checkpoints_are_put_aside(sweep):
    first = sweep.prepare()
    sweep.save(100)
    report = sweep.prepare(resume=False)
    assert (report.outcome, report.reason) == (Outcome.RESTART, StartReason.RESUME_NEVER)
    assert (report.run_id, report.wandb_run_id) == (first.run_id, f"{first.run_id}-e2")
    aside = sweep.directory() / "abandoned" / "e2" / "checkpoints__step-000000100.e1.moved-e2"
    assert (aside / "manifest.json").exists()
    # and is not read later either
    assert sweep.prepare().outcome is Outcome.RESTART


def test_a_requested_step_is_the_newest_at_or_below_it(sweep):
    sweep.prepare()
    for step in (100, 200, 300):
        sweep.save(step)
    report = sweep.prepare(from_step=250)
    assert (report.outcome, report.reason, report.checkpoint.step) == (
        Outcome.RESUME,
        StartReason.REQUESTED_STEP,
        200,
    )


def test_a_requested_step_that_nothing_holds_is_blocked(sweep):
    sweep.prepare()
    sweep.save(100)
    report = sweep.prepare(from_step=50)
    assert report.blocked is BlockedReason.STEP_NOT_FOUND
    assert sweep.directory().joinpath("checkpoints/step-000000100.e1").exists()


def test_the_answer_is_the_same_however_often_one_prepare_asks(sweep):
    sweep.prepare()
    sweep.save(100)
    damage(sweep.save(200))
    request = sweep.next_request()
    answers = [sweep.ask(request) for _ in range(3)]
    assert {(item.outcome, item.reason, item.epoch, item.checkpoint) for item in answers} == {
        (Outcome.RESUME, StartReason.WALKED_BACK, 2, answers[0].checkpoint)
    }
    assert len(sweep.claims()) == 2
    assert len({item.refused for item in answers}) == 1


def test_an_older_prepare_of_the_same_owner_is_superseded(sweep):
    sweep.prepare()
    late = sweep.next_request()
    sweep.prepare()
    sweep.prepare()
    sweep.save(100)
    report = sweep.ask(late)
    assert report.outcome is Outcome.SUPERSEDED
    assert len(sweep.claims()) == 3


def test_a_run_whose_head_is_another_owners_is_never_taken(sweep):
    sweep.prepare()
    run_id = sweep.run_id
    stolen = sweep.ask(sweep.next_request(owner=OTHER))
    assert (stolen.outcome, stolen.blocked) == (Outcome.BLOCKED, BlockedReason.CLAIM_LOST)
    assert "sweeps/digits-lr-0" in stolen.message
    named = sweep.ask(make_request(owner=OTHER, run_id=run_id))
    assert named.blocked is BlockedReason.RUN_ID_TAKEN
    assert len(sweep.claims()) == 1


# -- nothing starts over by accident -----------------------------------------------------------------------------------


def test_a_run_directory_that_is_gone_is_blocked_and_nothing_is_made(sweep):
    sweep.prepare()
    shutil.rmtree(sweep.directory())
    report = sweep.ask(sweep.next_request())
    assert report.blocked is BlockedReason.RUN_DIRECTORY_MISSING
    assert sweep.runs() == []


def test_an_empty_mount_is_blocked_and_stays_empty(sweep, tmp_path):
    sweep.prepare()
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    report = sweep.ask(sweep.next_request())
    assert report.blocked is BlockedReason.VOLUME_CHANGED
    assert "not mounted" in report.message
    assert list(tmp_path.iterdir()) == []


def test_a_mount_that_is_missing_altogether_is_blocked(sweep, tmp_path):
    sweep.prepare()
    shutil.rmtree(tmp_path)
    assert sweep.ask(sweep.next_request()).blocked is BlockedReason.IO_ERROR
    assert not tmp_path.exists()


def test_another_volume_is_blocked(sweep, tmp_path):
    sweep.prepare()
    request = sweep.next_request()
    (tmp_path / ".sweeprun-volume.json").write_text('{"volumeId": "another"}')
    report = sweep.ask(request)
    assert report.blocked is BlockedReason.VOLUME_CHANGED
    assert len(sweep.claims()) == 1


def test_an_older_copy_of_the_volume_is_blocked(sweep, tmp_path):
    sweep.prepare()
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    shutil.copytree(tmp_path, copy)
    sweep.prepare()
    request = sweep.next_request()
    shutil.rmtree(tmp_path)
    copy.rename(tmp_path)
    report = sweep.ask(request)
    assert report.blocked is BlockedReason.VOLUME_CHANGED
    assert "older copy" in report.message


def test_a_run_begun_on_another_volume_is_blocked(sweep, tmp_path):
    """Its directory was copied to a volume of its own ID."""
    sweep.prepare()
    request = sweep.next_request(volume_id=None)
    (tmp_path / ".sweeprun-volume.json").write_text('{"volumeId": "another"}')
    assert sweep.ask(request).blocked is BlockedReason.VOLUME_CHANGED


def test_a_pinned_checkpoint_that_is_gone_is_blocked_after_it_was_asked_for_by_name(sweep):
    sweep.prepare()
    old, new = sweep.save(100), sweep.save(200)
    sweep.prepare()
    shutil.rmtree(new)
    report = sweep.ask(sweep.next_request())
    assert report.blocked is BlockedReason.CHECKPOINT_MISSING
    assert new.name in report.message
    assert old.exists()


def test_a_pinned_checkpoint_that_shows_late_is_waited_for(sweep):
    sweep.prepare()
    sweep.save(100)
    newest = sweep.save(200)
    sweep.prepare()
    hidden = newest.rename(newest.parent / ".hidden")
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if sum(waited) >= 40:
            hidden.rename(newest)

    clock = Clock(monotonic=lambda: sum(waited), sleep=sleep)
    report = sweep.ask(sweep.next_request(), clock=clock)
    assert report.checkpoint.step == 200
    assert 40 <= sum(waited) < 90


def test_nothing_is_waited_for_where_a_newer_checkpoint_shows(sweep):
    """Scripts that keep the last few remove the one they began from."""
    sweep.prepare()
    old = sweep.save(100)
    sweep.prepare()
    sweep.save(300)
    shutil.rmtree(old)

    def sleep(seconds):
        raise AssertionError("it waits")

    assert sweep.ask(sweep.next_request(), clock=Clock(sleep=sleep)).checkpoint.step == 300


def test_the_base_that_the_volume_itself_tells_of_is_missed_too(sweep):
    """Whoever adopted the run, or lost the status, pins nothing."""
    sweep.prepare()
    checkpoint = sweep.save(100)
    sweep.prepare()
    shutil.rmtree(checkpoint)
    assert sweep.ask(sweep.next_request(pinned=None)).blocked is BlockedReason.CHECKPOINT_MISSING


def test_a_pinned_checkpoint_that_is_gone_does_not_matter_where_a_newer_one_is_whole(sweep):
    sweep.prepare()
    old = sweep.save(100)
    sweep.prepare()
    sweep.save(300)
    shutil.rmtree(old)
    assert sweep.ask(sweep.next_request()).checkpoint.step == 300


def test_claims_that_somebody_removed_are_blocked(sweep):
    sweep.prepare()
    shutil.rmtree(sweep.directory() / "claims")
    report = sweep.ask(sweep.next_request(known_epoch=0))
    assert report.blocked is BlockedReason.CLAIM_LOST


def test_decisions_that_somebody_removed_are_blocked_where_checkpoints_tell_of_them(sweep):
    sweep.prepare()
    checkpoint = sweep.save(100)
    shutil.rmtree(sweep.directory() / "epochs")
    report = sweep.ask(sweep.next_request())
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.RECORD_INVALID)
    assert "step-000000100.e1" in report.message
    assert checkpoint.exists()


def test_a_torn_record_of_ours_is_blocked(sweep):
    sweep.prepare()
    sweep.save(100)
    path = sweep.directory() / "epochs" / "1" / "decision.json"
    path.write_bytes(path.read_bytes()[:40])
    assert sweep.ask(sweep.next_request()).blocked is BlockedReason.RECORD_INVALID


def test_validation_that_takes_too_long_is_no_verdict(sweep):
    sweep.prepare()
    checkpoint = sweep.save(100)

    slow = itertools.count(0, 10)
    report = sweep.ask(sweep.next_request(timeout_seconds=5), clock=Clock(monotonic=lambda: float(next(slow))))
    assert report.blocked is BlockedReason.TIME_OUT
    assert checkpoint.exists()


def test_a_request_without_slots_is_refused(sweep):
    assert sweep.prepare(slots=()).blocked is BlockedReason.REQUEST_INVALID


@pytest.mark.parametrize("directory", ["checkpoints/{epoch}", "{epoch}/checkpoints"])
def test_a_directory_for_each_epoch_keeps_late_writers_apart(sweep, directory):
    def put(epoch, name, step):
        path = sweep.directory() / directory.replace("{epoch}", str(epoch)) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved({"step": step}))

    sweep.prepare(checkpoint_directory=directory)
    put(1, "step-100.pt", 100)
    assert sweep.prepare(checkpoint_directory=directory).checkpoint.step == 100
    put(1, "step-900.pt", 900)
    put(2, "step-200.pt", 200)
    report = sweep.prepare(checkpoint_directory=directory)
    assert (report.checkpoint.step, report.checkpoint.epoch) == (200, 2)
