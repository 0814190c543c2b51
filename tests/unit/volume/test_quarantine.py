"""What was refused or left behind is moved after the decision that says so, and never the work of a new attempt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.volume_checkpoints import own_checkpoint, saved
from support.volume_sweep import adopting, make_request
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import REPORT_BYTES, PrepareReport
from sweeprun_protocol.reasons import OnNoValidCheckpoint, Outcome
from sweeprun_volume.operations import Volume
from sweeprun_volume.quarantine import surplus


def tear(checkpoint):
    (checkpoint / "model.pt").write_bytes(b"torn")


def test_the_verdict_lies_beside_what_was_refused(sweep):
    sweep.prepare()
    sweep.save(100)
    tear(sweep.save(200))
    sweep.prepare()
    name = "checkpoints__step-000000200.e1.moved-e2"
    place = sweep.directory() / "quarantine"
    verdict = json.loads((place / f"{name}.verdict.json").read_bytes())
    assert (verdict["epoch"], verdict["verdict"]["reason"], verdict["verdict"]["entry"]) == (2, "Truncated", "model.pt")
    assert (place / name / "model.pt").read_bytes() == b"torn"


def test_nothing_moves_before_the_decision_is_durable(sweep):
    sweep.prepare()
    sweep.save(100)
    tear(sweep.save(200))
    trace = []
    sweep.ask(sweep.next_request(), before=lambda operation, path: trace.append((operation, path.rpartition("/")[2])))
    moved = trace.index(("rename", "step-000000200.e1"))
    assert trace.index(("fsync-directory", "decision.json")) < moved
    assert trace.index(("fsync-directory", "checkpoints__step-000000200.e1.moved-e2.verdict.json")) < moved


def test_a_later_claim_stops_a_prepare_before_it_moves_anything(sweep):
    sweep.prepare()
    sweep.save(100)
    torn = sweep.save(200)
    tear(torn)
    request = sweep.next_request()

    def before(operation, path):
        if operation == "fsync-directory" and path.endswith("epochs/2/decision.json"):
            claim = json.loads(Path(sweep.layout().claim(2)).read_bytes())
            Path(sweep.layout().claim(3)).write_text(json.dumps({**claim, "epoch": 3, "prepare": 2}))

    report = sweep.ask(request, before=before)
    assert report.outcome is Outcome.SUPERSEDED
    assert torn.exists()
    assert not (sweep.directory() / "quarantine").exists()


def test_a_late_pod_of_the_same_prepare_does_not_touch_what_the_attempt_wrote_under_the_same_name(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    sweep.put("last-200.pt", b"torn")
    request = sweep.next_request()
    assert sweep.ask(request).outcome is Outcome.RESUME
    again = sweep.put("last-200.pt", saved({"step": 200, "by": "the attempt that runs now"}))
    written = again.read_bytes()
    assert sweep.ask(request).outcome is Outcome.RESUME
    assert again.read_bytes() == written


def test_a_late_pod_of_a_restart_leaves_the_new_attempts_checkpoints_where_they_are(sweep):
    sweep.prepare()
    sweep.save(100)
    request = sweep.next_request(resume=False)
    sweep.last = sweep.ask(request)
    mine, foreign = sweep.save(50), sweep.put("step-60.pt", saved({"step": 60}))
    assert sweep.ask(request).outcome is Outcome.RESTART
    assert mine.exists()
    assert foreign.exists()


def test_nothing_in_quarantine_is_ever_replaced(sweep):
    sweep.prepare()
    sweep.save(100)
    for epoch in (1, 2, 3):
        sweep.put("other.txt", b"")
        tear(own_checkpoint(sweep.directory() / "checkpoints", run_id=sweep.run_id, step=200, epoch=epoch))
        assert sweep.prepare().checkpoint.step == 100
    names = sorted(path.name for path in (sweep.directory() / "quarantine").iterdir() if path.is_dir())
    assert names == [f"checkpoints__step-000000200.e{epoch}.moved-e{epoch + 1}" for epoch in (1, 2, 3)]


def test_what_an_earlier_prepare_left_undone_is_done_by_the_next(sweep):
    """It decided, and died before it moved anything."""
    sweep.prepare()
    torn = sweep.save(100)
    tear(torn)
    restart = OnNoValidCheckpoint.RESTART_RUN
    sweep.last = sweep.ask(sweep.next_request(on_no_valid_checkpoint=restart))
    moved = next((sweep.directory() / "quarantine").glob("*.moved-e2"))
    moved.rename(torn)
    (sweep.directory() / "abandoned" / "e2").rmdir()
    report = sweep.prepare(on_no_valid_checkpoint=restart)
    assert not torn.exists()
    assert report.wandb_run_id == f"{sweep.run_id}-e2"


def test_long_names_keep_their_end_and_stay_apart(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    for folder in ("a", "b"):
        sweep.put(f"{folder * 100}/{'d' * 100}/step-200.pt", b"torn")
    assert sweep.prepare().checkpoint.step == 100
    moved = [path.name for path in (sweep.directory() / "quarantine").iterdir() if not path.name.endswith(".json")]
    assert len(moved) == 2
    assert all(name.endswith("step-200.pt.moved-e2") for name in moved)


def test_an_answer_fits_into_a_termination_message_whatever_was_refused(sweep):
    sweep.prepare()
    sweep.put("step-1.pt", saved({"step": 1}))
    for number in range(2, 60):
        sweep.put(f"{'é' * 60}/step-{number}.pt", b"torn")
    report = sweep.prepare()
    data = report.encode()
    assert len(data) <= REPORT_BYTES
    told = PrepareReport.decode(data)
    assert (told.refused_count, told.checkpoint.step) == (58, 1)


def test_a_report_whose_owner_alone_is_too_long_ends_without_its_candidate(sweep):
    owner = make_request().owner
    long = type(owner)(cluster="é" * 120, namespace="é" * 250, name="é" * 250, uid="é" * 120)
    sweep.ask(make_request(owner=long))
    report = sweep.ask(make_request(adoption=adopting()))
    assert report.outcome is Outcome.CANDIDATES
    assert len(report.encode()) <= REPORT_BYTES


def test_long_names_of_other_scripts_fit_into_a_file_system(sweep):
    """255 bytes, and most characters are more than one."""
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    sweep.put(f"{'模' * 80}/{'型' * 70}/step-200.pt", b"torn")
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 100), report.message
    (moved,) = (path.name for path in (sweep.directory() / "quarantine").iterdir() if not path.name.endswith(".json"))
    assert moved.endswith("step-200.pt.moved-e2")


# -- its bound ---------------------------------------------------------------------------------------------------------


def quarantined(sweep):
    return sorted(path.name for path in (sweep.directory() / "quarantine").iterdir())


def three_refused(sweep, **last):
    """One in each of three epochs, the last prepare with `last`; the first is a foreign file."""
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    sweep.put("step-200.pt", b"torn")
    sweep.prepare()
    sweep.save(300)
    tear(sweep.save(400))
    sweep.prepare()
    tear(sweep.save(500))
    return sweep.prepare(**last)


FIRST = ["checkpoints__step-200.pt.moved-e2", "checkpoints__step-200.pt.moved-e2.verdict.json"]
SECOND = [f"checkpoints__step-000000400.e2.moved-e3{end}" for end in ("", ".verdict.json")]
THIRD = [f"checkpoints__step-000000500.e3.moved-e4{end}" for end in ("", ".verdict.json")]


@pytest.mark.parametrize(
    ("keep_last", "left"),
    [
        (None, [*SECOND, *THIRD, *FIRST]),
        (3, [*SECOND, *THIRD, *FIRST]),
        (2, [*SECOND, *THIRD]),
        (1, THIRD),
    ],
)
def test_the_newest_of_quarantine_are_kept_with_their_verdicts(keep_last, left, sweep):
    report = three_refused(sweep, quarantine_keep_last=keep_last)
    assert report.outcome is Outcome.RESUME
    assert quarantined(sweep) == left
    assert ("entries of quarantine deleted" in report.message) == (len(left) < 6)
    assert not list((sweep.directory() / ".sweeprun-trash").glob("*"))


def test_of_one_epoch_the_last_by_name_are_kept(sweep):
    sweep.prepare()
    sweep.save(100)
    for step in (200, 300, 400):
        tear(sweep.save(step))
    sweep.prepare(quarantine_keep_last=2)
    names = [f"checkpoints__step-000000{step}.e1.moved-e2" for step in (300, 400)]
    assert quarantined(sweep) == [name + end for name in names for end in ("", ".verdict.json")]


def test_what_others_put_into_quarantine_and_what_a_later_epoch_moves_is_not_ours_to_delete(sweep):
    three_refused(sweep)
    place = sweep.directory() / "quarantine"
    (place / "notes.txt").write_text("mine")
    (place / "checkpoints__step-000000900.e8.moved-e9").mkdir()
    sweep.prepare(quarantine_keep_last=1)
    assert quarantined(sweep) == [*THIRD, "checkpoints__step-000000900.e8.moved-e9", "notes.txt"]


def test_a_verdict_whose_checkpoint_somebody_deleted_is_an_entry_too(sweep):
    three_refused(sweep)
    (sweep.directory() / "quarantine" / FIRST[0]).unlink()
    sweep.prepare(quarantine_keep_last=2)
    assert quarantined(sweep) == [*SECOND, *THIRD]


def test_what_was_abandoned_is_never_deleted(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.prepare(resume=False)
    sweep.prepare(quarantine_keep_last=1, keep_last=1)
    assert len(list((sweep.directory() / "abandoned" / "e2").iterdir())) == 1


def test_quarantine_is_left_alone_once_a_later_claim_exists(sweep):
    three_refused(sweep)
    before = quarantined(sweep)

    def claims(operation, path):
        if operation == "fsync-directory" and path.endswith("epochs/5/decision.json"):
            claim = json.loads(Path(sweep.layout().claim(5)).read_bytes())
            Path(sweep.layout().claim(6)).write_text(json.dumps({**claim, "epoch": 6, "prepare": 9}))

    report = sweep.ask(sweep.next_request(quarantine_keep_last=1), before=claims)
    assert report.outcome is Outcome.SUPERSEDED
    assert quarantined(sweep) == before


def test_a_bound_of_quarantine_is_never_less_than_one(sweep):
    three_refused(sweep)
    volume, layout = Volume(str(sweep.root)), RunLayout(str(sweep.directory().relative_to(sweep.root)))
    kept = [surplus(volume, layout, keep_last=bound, epoch=9) for bound in (0, -1, 1)]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 2
