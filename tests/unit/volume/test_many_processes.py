"""Fifty real processes on one directory: one owner wins, the others are told so, and one decision stands."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from support.volume_sweep import OTHER, OWNER, Sweep, adopting, make_request
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import BlockedReason, Outcome
from sweeprun_volume.operations import Volume
from sweeprun_volume.prepare import prepare

MANY = 50
STARTS = (Outcome.RESUME, Outcome.RESTART, Outcome.FRESH)


def heirs(count):
    return [replace(OWNER, name=f"heir-{number}", uid=f"heir-{number}") for number in range(count)]


def _run(root, texts, gate, answers):
    gate.wait(timeout=120)
    for text in texts:
        report = prepare(Volume(root), PrepareRequest.decode(text), settle_seconds=0)
        answers.put(report.encode())


def forked(root, requests):
    """Each list of requests in a process of its own, let go together once all stand ready."""
    processes = multiprocessing.get_context("fork")
    gate, answers = processes.Barrier(len(requests)), processes.Queue()
    racers = [
        processes.Process(target=_run, args=(str(root), [item.encode() for item in some], gate, answers))
        for some in requests
    ]
    for racer in racers:
        racer.start()
    found = [PrepareReport.decode(answers.get(timeout=120)) for some in requests for _ in some]
    for racer in racers:
        racer.join(timeout=60)
        assert racer.exitcode == 0
    return found


def launched(root, requests, place):
    """Each as `python -m sweeprun_volume prepare`, as a Job's pod runs it."""
    racers = []
    for number, request in enumerate(requests):
        report = place / f"report-{number}"
        command = [sys.executable, "-m", "sweeprun_volume", "prepare", "--root", str(root), "--report", str(report)]
        environment = {**os.environ, REQUEST_ENV: request.encode()}
        racer = subprocess.Popen([*command, "--settle-seconds", "0"], env=environment, stdout=subprocess.DEVNULL)
        racers.append((racer, report))
    for racer, _ in racers:
        assert racer.wait(timeout=120) == 0
    return [PrepareReport.decode(report.read_bytes()) for _, report in racers]


def one_won(reports, lost):
    won = [report for report in reports if report.outcome in STARTS]
    others = Counter((report.outcome, report.blocked) for report in reports if report.outcome not in STARTS)
    assert len(won) == 1, [(report.outcome.value, report.message) for report in reports]
    assert others == {(Outcome.BLOCKED, lost): len(reports) - 1}
    return won[0]


@pytest.fixture
def roots(tmp_path):
    root, place = tmp_path / "root", tmp_path / "reports"
    root.mkdir()
    place.mkdir()
    return root, place


@pytest.fixture
def sweep(roots):
    return Sweep(roots[0])


def test_of_fifty_programs_that_adopt_one_run_one_gets_it(sweep, roots):
    sweep.prepare(owner=OTHER)
    sweep.save(100)
    taking = adopting(take=sweep.run_id, take_epoch=1)
    reports = launched(roots[0], [make_request(owner=owner, adoption=taking) for owner in heirs(MANY)], roots[1])
    won = one_won(reports, BlockedReason.ADOPTION_LOST)
    assert (won.outcome, won.epoch, won.checkpoint.step) == (Outcome.RESUME, 2, 100)
    claims = sweep.claims()
    assert [item["epoch"] for item in claims] == [1, 2]
    decision = json.loads((sweep.directory() / "epochs" / "2" / "decision.json").read_bytes())
    assert (decision["base"]["step"], decision["prepare"]) == (100, 0)
    assert len(list((sweep.directory() / "epochs").iterdir())) == 2


def test_of_fifty_owners_that_name_one_new_run_one_gets_it(sweep, roots):
    reports = forked(roots[0], [[make_request(owner=owner, run_id="wanted")] for owner in heirs(MANY)])
    won = one_won(reports, BlockedReason.RUN_ID_TAKEN)
    (claim,) = sweep.claims("wanted")
    assert (won.outcome, won.epoch, won.run_id) == (Outcome.FRESH, 1, "wanted")
    assert len({report.volume_id for report in reports}) == 1
    marker = json.loads((sweep.directory("wanted") / ".incomplete").read_bytes())
    assert marker["owner"] == claim["owner"]


def test_fifty_pods_of_one_prepare_give_one_answer_from_one_decision(sweep, roots):
    sweep.prepare()
    sweep.save(100)
    (sweep.save(200) / "model.pt").write_bytes(b"torn")
    reports = forked(roots[0], [[sweep.next_request()]] * MANY)
    assert {(item.outcome, item.epoch, item.checkpoint) for item in reports} == {
        (Outcome.RESUME, 2, reports[0].checkpoint)
    }, [item.message for item in reports]
    assert len(sweep.claims()) == 2
    assert (sweep.directory() / reports[0].checkpoint.path / "model.pt").exists()


def test_the_owner_and_fifty_that_take_its_run_from_it_never_both_go_on(sweep, roots):
    """The proof that the owner is gone was wrong: the claim decides, and the loser hears of it."""
    sweep.prepare()
    sweep.save(100)
    taking = adopting(take=sweep.run_id, take_epoch=1)
    takers = [[make_request(owner=owner, adoption=taking)] for owner in heirs(MANY - 1)]
    reports = forked(roots[0], [[sweep.next_request()], *takers])
    going = [report for report in reports if report.outcome in STARTS]
    assert len(going) == 1, [(report.outcome.value, report.message) for report in reports]
    assert len(sweep.claims()) == 2
    assert {report.blocked for report in reports if report not in going} <= {
        BlockedReason.CLAIM_LOST,
        BlockedReason.ADOPTION_LOST,
    }


def test_prepares_of_one_owner_that_overlap_end_at_one_head(sweep, roots):
    sweep.prepare()
    sweep.save(100)
    request = sweep.next_request()
    reports = forked(roots[0], [[replace(request, prepare=number)] for number in range(1, MANY + 1)])
    claims = sweep.claims()
    prepares = [item["prepare"] for item in claims]
    assert prepares == sorted(set(prepares))
    assert prepares[-1] == MANY
    for report in reports:
        assert report.outcome in (Outcome.RESUME, Outcome.SUPERSEDED), report.message
        if report.outcome is Outcome.RESUME:
            assert report.checkpoint.step == 100
            assert sweep.decision(report.epoch).base == report.checkpoint
