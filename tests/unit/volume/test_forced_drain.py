"""After pods were deleted by force their processes may live: what they write from then on changes nothing."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from support.safetensors_checkpoints import safetensors, tensor
from support.volume_checkpoints import context_at, flip, rewrite, saved
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import BlockedReason, Format, Level, Outcome, RefusalReason, StartReason
from sweeprun_volume import copying
from sweeprun_volume.decisions import read_seen
from sweeprun_volume.errors import OutOfTimeError
from sweeprun_volume.operations import Volume


def begun(sweep, step=200):
    sweep.prepare()
    return sweep.put(f"step-{step}.pt", saved({"step": step}))


def place_of(sweep, report):
    return sweep.directory() / report.checkpoint.path


def test_the_resume_point_is_a_copy_in_the_new_epoch_with_the_same_digest(sweep):
    source = begun(sweep)
    report = sweep.prepare(drain_forced=True)
    assert (report.outcome, report.reason, report.checkpoint.step) == (
        Outcome.RESUME,
        StartReason.NEWEST_CHECKPOINT,
        200,
    )
    copy = place_of(sweep, report)
    assert copy.relative_to(sweep.directory()).parts[:3] == ("epochs", "2", "resume")
    assert (copy.name, copy.read_bytes()) == (source.name, source.read_bytes())
    assert copy.stat().st_ino != source.stat().st_ino
    assert "copy" in report.message
    assert report.checkpoint.digest is not None
    assert [ref.path for ref in sweep.decision(2).eligible] == [report.checkpoint.path]


def test_a_drain_that_was_confirmed_needs_no_copy(sweep):
    source = begun(sweep)
    report = sweep.prepare()
    assert place_of(sweep, report) == source
    assert not (sweep.directory() / "epochs" / "2" / "resume").exists()


def test_own_checkpoints_need_no_copy(sweep):
    sweep.prepare()
    source = sweep.save(100)
    assert place_of(sweep, sweep.prepare(drain_forced=True)) == source
    zombie = sweep.save(900, epoch=1)
    assert sweep.prepare().checkpoint.step == 100
    assert zombie.exists()


def test_a_run_without_a_checkpoint_restarts(sweep):
    sweep.prepare()
    report = sweep.prepare(drain_forced=True)
    assert (report.outcome, report.reason) == (Outcome.RESTART, StartReason.NOTHING_COMMITTED)


def test_the_copy_is_among_what_prepare_saw_for_the_start_check_compares_with_that(sweep):
    begun(sweep)
    report = sweep.prepare(drain_forced=True)
    volume, layout = Volume(str(sweep.directory())), RunLayout("")
    seen = read_seen(volume, layout, sweep.decision(2))
    assert seen[report.checkpoint.path].inode == place_of(sweep, report).stat().st_ino


@pytest.mark.parametrize("act", ["overwrites it", "removes it", "cuts it off"])
def test_whatever_a_zombie_does_to_the_old_place_the_answer_stays_and_the_copy_is_whole(sweep, act):
    source = begun(sweep)
    whole = source.read_bytes()
    request = sweep.next_request(drain_forced=True)
    first = sweep.last = sweep.ask(request)
    if act == "removes it":
        source.unlink()
    else:
        source.write_bytes(saved({"step": 200, "zombie": True}) if act == "overwrites it" else whole[:-9])
    assert sweep.ask(request).checkpoint == first.checkpoint
    assert place_of(sweep, first).read_bytes() == whole


def test_an_attempt_that_got_nowhere_is_followed_by_one_from_the_same_copy(sweep):
    begun(sweep)
    first = sweep.prepare(drain_forced=True)
    again = sweep.prepare()
    assert again.checkpoint == first.checkpoint
    assert sweep.prepare(drain_forced=True).checkpoint == first.checkpoint, "a copy is not copied"


def test_a_later_attempt_resumes_from_what_it_saved_itself(sweep):
    begun(sweep)
    sweep.prepare(drain_forced=True)
    newer = sweep.put("step-300.pt", saved({"step": 300}))
    report = sweep.prepare()
    assert place_of(sweep, report) == newer
    newer.write_bytes(b"torn")
    assert sweep.prepare().checkpoint.step == 200, "the copy is what is walked back to"


def test_damage_in_a_copy_is_seen_though_its_time_has_changed(sweep):
    """Nobody of ours writes there: it is no new checkpoint of the attempt."""
    begun(sweep)
    copy = place_of(sweep, sweep.prepare(drain_forced=True))
    copy.write_bytes(saved({"step": 200, "another": True}))
    report = sweep.prepare()
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.DIGEST_MISMATCH]


def test_in_a_directory_of_its_own_a_zombies_file_is_never_taken_for_the_new_attempts(sweep):
    directory = {"checkpoint_directory": "out/{epoch}"}
    sweep.prepare(**directory)
    old = sweep.directory() / "out" / "1"
    old.mkdir(parents=True)
    (old / "step-100.pt").write_bytes(saved({"step": 100}))
    (old / "last.pt").write_bytes(saved({"step": 200}))
    report = sweep.prepare(**directory, drain_forced=True)
    assert report.checkpoint.step == 200
    for name, step in (("last.pt", 900), ("step-100.pt", 901), ("step-950.pt", 950)):
        (old / name).write_bytes(saved({"step": step, "zombie": True}))
    assert sweep.prepare(**directory).checkpoint == report.checkpoint


@pytest.fixture
def interrupted_copy(monkeypatch):
    """Runs something between the judgement and the copy."""

    def before_copying(act):
        copy = copying._copy

        def after_act(volume, source, target, deadline):
            act()
            copy(volume, source, target, deadline)

        monkeypatch.setattr(copying, "_copy", after_act)

    yield before_copying
    monkeypatch.undo()


@pytest.mark.parametrize("act", ["overwrites it", "keeps its time", "removes it", "puts a link there"])
def test_what_changes_between_judgement_and_copy_blocks_and_is_judged_anew(sweep, interrupted_copy, monkeypatch, act):
    source = begun(sweep)

    def zombie():
        if act == "overwrites it":
            source.write_bytes(saved({"step": 200, "zombie": True}))
        elif act == "keeps its time":
            data = source.read_bytes()
            rewrite(source, flip(data, len(data) // 2), keep_time=True)
        else:
            source.unlink()
            if act == "puts a link there":
                os.symlink("/etc/passwd", source)

    interrupted_copy(zombie)
    request = sweep.next_request(drain_forced=True)
    report = sweep.ask(request)
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.CHECKPOINT_CHANGED)
    assert "deleted by force" in report.message
    assert not (sweep.directory() / "epochs" / "2" / "decision.json").exists()
    monkeypatch.undo()
    again = sweep.ask(request)
    if act == "overwrites it":
        assert again.outcome is Outcome.RESUME
        assert place_of(sweep, again).read_bytes() == source.read_bytes()
        assert not any((sweep.directory() / ".sweeprun-trash").iterdir()), "what was copied in vain is gone"


def test_a_copy_that_was_damaged_before_it_was_decided_on_blocks(sweep, monkeypatch):
    """It is what a prepare that died left under its name."""
    begun(sweep)
    make = copying._make

    def damaged(context, claim, chosen, place):
        make(context, claim, chosen, place)
        (copy,) = (sweep.directory() / "epochs" / "2" / "resume").rglob("*.pt")
        rewrite(copy, flip(copy.read_bytes(), 100), keep_time=True)

    monkeypatch.setattr(copying, "_make", damaged)
    report = sweep.prepare(drain_forced=True)
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.CHECKPOINT_CHANGED)
    assert not (sweep.directory() / "epochs" / "2" / "decision.json").exists()


def test_the_copy_is_judged_in_full_though_the_level_is_fast(sweep):
    begun(sweep)
    report = sweep.prepare(drain_forced=True, level=Level.FAST)
    assert report.checkpoint.digest is not None
    assert report.checkpoint.path.startswith("epochs/2/resume/")


def test_a_directory_is_copied_with_all_below_it_and_its_name(sweep):
    chosen = {"format": Format.SAFETENSORS}
    sweep.prepare(**chosen)
    source = sweep.directory() / "checkpoints" / "step-300"
    (source / "more").mkdir(parents=True)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (source / name).write_bytes(safetensors({name[6:11]: tensor(0, 8)}, bytes(8)))
    index = {"weight_map": {name[6:11]: name for name in sorted(os.listdir(source)) if name != "more"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "more" / "notes.txt").write_text("by the script")
    report = sweep.prepare(**chosen, drain_forced=True)
    copy = place_of(sweep, report)
    assert (report.outcome, copy.name) == (Outcome.RESUME, source.name), report.message
    assert copy != source
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert files == {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    shutil.rmtree(source)
    assert sweep.prepare(**chosen).checkpoint == report.checkpoint


def test_a_copy_that_takes_too_long_is_asked_for_again(sweep):
    source = begun(sweep)
    context = context_at(sweep.directory(), seconds=-1)
    with pytest.raises(OutOfTimeError):
        copying._copy(context.volume, "checkpoints/step-200.pt", "copy.pt", context.deadline)
    assert source.exists()


def test_files_and_directories_of_the_copy_are_durable_before_it_appears(sweep, monkeypatch):
    begun(sweep)
    operations = []
    sweep.last = sweep.ask(sweep.next_request(drain_forced=True), before=lambda *call: operations.append(call))
    copied = [operation for operation, path in operations if path.endswith("/step-200.pt")]
    assert copied == ["create", "write", "fsync", "rename", "fsync-directory", "fsync-directory", "fsync-directory"]


# -- tracking ----------------------------------------------------------------------------------------------------------


def test_the_next_attempts_log_to_a_run_of_their_own_linked_by_name(sweep):
    first = sweep.prepare(wandb_run_id="mine")
    sweep.save(100)
    forced = sweep.prepare(wandb_run_id="mine", drain_forced=True)
    assert (first.wandb_run_id, forced.wandb_run_id) == ("mine", "mine-e2")
    sweep.save(200)
    assert sweep.prepare(wandb_run_id="mine").wandb_run_id == "mine-e2", "the zombie of epoch 1 may still live"
    assert sweep.prepare(wandb_run_id="mine", drain_forced=True).wandb_run_id == "mine-e4"


def test_a_run_that_completes_after_a_forced_drain_tells_of_the_run_it_logged_to(sweep):
    sweep.prepare()
    sweep.save(100)
    forced = sweep.prepare(drain_forced=True)
    sweep.starts()
    sweep.ends()
    request = sweep.next_request()
    completed = sweep.ask(request)
    assert (completed.outcome, completed.wandb_run_id) == (Outcome.COMPLETED, forced.wandb_run_id)
    assert sweep.ask(request).wandb_run_id == forced.wandb_run_id


def test_an_attempt_that_had_ended_well_before_it_was_deleted_by_force_completes(sweep):
    first = sweep.prepare()
    sweep.starts()
    sweep.ends()
    report = sweep.prepare(drain_forced=True)
    assert (report.outcome, report.wandb_run_id) == (Outcome.COMPLETED, first.wandb_run_id)
