"""Claims and epochs: one claim for each epoch, one decision for each epoch, whoever races."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from support.volume_sweep import OTHER, OWNER, adopting, make_request
from sweeprun_protocol.layout import MAX_EPOCH, RunLayout
from sweeprun_protocol.prepare import PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import BlockedReason, Outcome
from sweeprun_protocol.records import Claim
from sweeprun_volume.claims import claim_epoch, highest_epoch, read_head, still_head
from sweeprun_volume.errors import Stopped
from sweeprun_volume.fence import later_claim
from sweeprun_volume.operations import Volume
from sweeprun_volume.prepare import prepare

LAYOUT = RunLayout("run")


def claim(volume, *, owner=OWNER, prepare=0, head=None, take=False):
    return claim_epoch(
        volume,
        LAYOUT,
        run_id="r",
        owner=owner,
        prepare=prepare,
        head=head,
        take=take,
        lost=BlockedReason.CLAIM_LOST,
        now=lambda: 1.0,
    )


def test_each_prepare_claims_the_next_epoch(tmp_path):
    volume = Volume(str(tmp_path))
    first = claim(volume)
    second = claim(volume, prepare=1, head=first)
    assert (first.epoch, second.epoch) == (1, 2)
    assert read_head(volume, LAYOUT) == second


def test_the_same_prepare_gets_the_epoch_it_has(tmp_path):
    volume = Volume(str(tmp_path))
    first = claim(volume)
    assert claim(volume) == first, "it did not see its own claim, as after a death"
    assert claim(volume, head=first) == first
    assert highest_epoch(volume, LAYOUT) == 1


def test_whoever_is_slower_loses_and_is_told_to_whom(tmp_path):
    volume = Volume(str(tmp_path))
    claim(volume, owner=OTHER)
    with pytest.raises(Stopped) as stopped:
        claim(volume)
    assert stopped.value.blocked is BlockedReason.CLAIM_LOST
    assert "uid-1" in stopped.value.message


def test_the_head_of_another_owner_is_followed_only_by_an_adopter(tmp_path):
    volume = Volume(str(tmp_path))
    head = claim(volume, owner=OTHER)
    with pytest.raises(Stopped) as stopped:
        claim(volume, head=head)
    assert stopped.value.blocked is BlockedReason.CLAIM_LOST
    assert claim(volume, head=head, take=True).epoch == 2


def test_a_directory_that_we_made_is_not_ours_once_another_claimed_it(sweep):
    """Between our mkdir and our look."""
    run_id = "wanted"

    def before(operation, path):
        if operation == "fsync-directory" and path.endswith(f"runs/{run_id}") and not sweep.claims(run_id):
            assert sweep.ask(make_request(owner=OTHER, run_id=run_id)).outcome is Outcome.FRESH

    report = sweep.ask(make_request(run_id=run_id), before=before)
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.RUN_ID_TAKEN)
    assert [item["owner"]["uid"] for item in sweep.claims(run_id)] == ["uid-1"]


def test_an_older_prepare_finds_a_later_one_at_the_head(tmp_path):
    volume = Volume(str(tmp_path))
    claim(volume, prepare=4)
    with pytest.raises(Stopped) as stopped:
        claim(volume, prepare=3)
    assert stopped.value.outcome is Outcome.SUPERSEDED


def test_nothing_is_decided_once_a_later_claim_exists(tmp_path):
    volume = Volume(str(tmp_path))
    first = claim(volume)
    still_head(volume, LAYOUT, first)
    second = claim(volume, prepare=1, head=first)
    with pytest.raises(Stopped) as stopped:
        still_head(volume, LAYOUT, first)
    assert stopped.value.outcome is Outcome.SUPERSEDED
    third = claim(volume, owner=OTHER, head=second, take=True)
    with pytest.raises(Stopped) as stopped:
        still_head(volume, LAYOUT, second)
    assert stopped.value.blocked is BlockedReason.CLAIM_LOST
    assert later_claim(volume, LAYOUT, epoch=1) == third.epoch == 3
    assert later_claim(volume, LAYOUT, epoch=3) is None


@pytest.mark.parametrize("ended", [False, True], ids=["a decision", "a result"])
def test_a_claim_that_appears_while_a_prepare_judges_stops_it_before(ended, sweep):
    sweep.prepare()
    sweep.save(100)
    if ended:
        sweep.starts()
        sweep.ends()

    def before(operation, path):
        if operation == "rename" and path.endswith("/.incomplete"):
            held = json.loads(Path(sweep.layout().claim(2)).read_bytes())
            Path(sweep.layout().claim(3)).write_text(json.dumps({**held, "epoch": 3, "prepare": 2}))

    assert sweep.ask(sweep.next_request(), before=before).outcome is Outcome.SUPERSEDED
    assert not Path(sweep.layout().decision(2)).exists()
    assert not Path(sweep.layout().result).exists()


def test_a_listing_that_lags_does_not_hide_the_head(tmp_path, monkeypatch):
    """Network file systems list late; the next names are tried as well."""
    volume = Volume(str(tmp_path))
    head = claim(volume)
    monkeypatch.setattr(volume, "entries", lambda path, **_: [])
    assert highest_epoch(volume, LAYOUT) == 1
    second = claim(volume, prepare=1, head=head)
    assert highest_epoch(volume, LAYOUT) == highest_epoch(volume, LAYOUT, at_least=2) == second.epoch


def test_no_epoch_follows_the_last_one(tmp_path):
    volume = Volume(str(tmp_path))
    with pytest.raises(Stopped) as stopped:
        claim(volume, head=Claim(MAX_EPOCH, "r", OWNER, -1, 1.0))
    assert stopped.value.blocked is BlockedReason.RECORD_INVALID


def test_a_claim_of_another_epoch_under_this_name_is_no_claim(sweep):
    sweep.prepare()
    path = sweep.directory() / "claims" / "000001.json"
    (sweep.directory() / "claims" / "000002.json").write_bytes(path.read_bytes())
    assert sweep.ask(sweep.next_request()).blocked is BlockedReason.RECORD_INVALID


# -- processes ---------------------------------------------------------------------------------------------------------


def _run(root, text, gate, answers, number):
    gate.wait(timeout=60)
    report = prepare(Volume(str(root)), PrepareRequest.decode(text), settle_seconds=0)
    answers.put((number, report.encode()))


def race(root, requests):
    """Each request in a process of its own, let go together once all stand ready."""
    processes = multiprocessing.get_context("fork")
    gate, answers = processes.Barrier(len(requests)), processes.Queue()
    racers = [
        processes.Process(target=_run, args=(root, request.encode(), gate, answers, number))
        for number, request in enumerate(requests)
    ]
    for racer in racers:
        racer.start()
    found = dict(answers.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join(timeout=60)
        assert racer.exitcode == 0
    return [PrepareReport.decode(found[number]) for number in range(len(requests))]


def test_of_ten_owners_in_ten_processes_one_adopts_the_run(sweep, tmp_path):
    sweep.prepare(owner=OTHER)
    sweep.save(100)
    run_id = sweep.run_id
    taking = adopting(take=run_id, take_epoch=1)
    owners = [replace(OWNER, name=f"heir-{number}", uid=f"heir-{number}") for number in range(10)]
    reports = race(tmp_path, [make_request(owner=owner, adoption=taking) for owner in owners])
    won = [report for report in reports if report.outcome is Outcome.RESUME]
    lost = [report for report in reports if report.blocked is BlockedReason.ADOPTION_LOST]
    assert (len(won), len(lost)) == (1, 9), [(report.outcome.value, report.message) for report in reports]
    assert (won[0].run_id, won[0].epoch, won[0].checkpoint.step) == (run_id, 2, 100)
    assert [item["epoch"] for item in sweep.claims(run_id)] == [1, 2]


def test_of_ten_owners_that_name_one_new_run_one_gets_it(sweep, tmp_path):
    owners = [replace(OWNER, name=f"heir-{number}", uid=f"heir-{number}") for number in range(10)]
    reports = race(tmp_path, [make_request(owner=owner, run_id="wanted") for owner in owners])
    won = [report for report in reports if report.outcome is Outcome.FRESH]
    lost = [report for report in reports if report.blocked is BlockedReason.RUN_ID_TAKEN]
    assert (len(won), len(lost)) == (1, 9), [(report.outcome.value, report.message) for report in reports]
    assert len(sweep.claims("wanted")) == 1
    assert len({report.volume_id for report in reports}) == 1


def test_ten_pods_of_one_prepare_give_one_answer_from_one_decision(sweep, tmp_path):
    sweep.prepare()
    sweep.save(100)
    broken = sweep.save(200)
    (broken / "model.pt").write_bytes(b"torn")
    reports = race(tmp_path, [sweep.next_request()] * 10)
    assert {(item.outcome, item.epoch, item.checkpoint) for item in reports} == {
        (Outcome.RESUME, 2, reports[0].checkpoint)
    }, [item.message for item in reports]
    assert len(sweep.claims()) == 2
    assert [path.name for path in (sweep.directory() / "epochs" / "2").glob("decision*")] == ["decision.json"]
    verdicts = list((sweep.directory() / "quarantine").glob("*.verdict.json"))
    assert json.loads(verdicts[0].read_bytes())["verdict"]["reason"] == "Truncated"
    assert len(verdicts) == 1


def test_prepares_of_one_owner_that_overlap_end_at_one_head(sweep, tmp_path):
    """Ten prepares whose Jobs were given up too early: each epoch is claimed once, and the last one stands."""
    sweep.prepare()
    sweep.save(100)
    request = sweep.next_request()
    reports = race(tmp_path, [replace(request, prepare=number) for number in range(1, 11)])
    claims = sweep.claims()
    assert [item["epoch"] for item in claims] == list(range(1, len(claims) + 1))
    prepares = [item["prepare"] for item in claims]
    assert prepares == sorted(set(prepares))
    assert claims[-1]["prepare"] == 10
    for number, report in enumerate(reports, 1):
        assert report.outcome in (Outcome.RESUME, Outcome.SUPERSEDED), (number, report.message)
        if report.outcome is Outcome.RESUME:
            assert report.checkpoint.step == 100
