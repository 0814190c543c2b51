"""Adoption in two steps: prepare lists, somebody who can know proves, a second prepare takes at the listed claim."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from support.volume_checkpoints import saved
from support.volume_sweep import CONFIG, CONFIG_NAME, OTHER, adopting, make_request
from sweeprun_protocol.prepare import Configuration
from sweeprun_protocol.reasons import AdoptionScope, BlockedReason, Outcome, StartReason
from sweeprun_volume import standings

ABROAD = replace(OTHER, cluster="cluster-b", uid="uid-abroad")


def left_behind(sweep, *, owner=OTHER, step=100, **changes):
    sweep.prepare(owner=owner, **changes)
    sweep.save(step)
    run_id, sweep.last = sweep.run_id, None
    return run_id


def scripted(sweep, name="scripted", *, marker=".incomplete", config=CONFIG):
    directory = sweep.directory(name)
    (directory / "checkpoints").mkdir(parents=True)
    (directory / marker).touch()
    if config is not None:
        (directory / CONFIG_NAME).write_text(config)
    (directory / "checkpoints" / "step-100.pt").write_bytes(saved({"step": 100}))
    return name


def silent_for(directory, seconds):
    then = time.time() - seconds
    for path in [directory, *directory.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


def test_candidates_are_listed_with_their_owners_and_nothing_is_claimed(sweep):
    run_id = left_behind(sweep)
    report = sweep.ask(make_request(adoption=adopting()))
    assert report.outcome is Outcome.CANDIDATES
    (candidate,) = report.candidates
    assert (candidate.run_id, candidate.epoch, candidate.owner) == (run_id, 1, OTHER)
    assert len(sweep.claims(run_id)) == 1
    assert sweep.runs() == [run_id]


def test_the_longest_silent_candidate_comes_first(sweep):
    names = [scripted(sweep, f"run-{number}") for number in range(3)]
    for name, seconds in zip(names, (100, 5000, 2000), strict=True):
        silent_for(sweep.directory(name), seconds)
    report = sweep.ask(make_request(adoption=adopting()))
    assert [item.run_id for item in report.candidates] == ["run-1", "run-2", "run-0"]
    assert report.candidates[0].idle_seconds in range(4990, 5100)


def test_a_candidate_is_taken_with_its_run_id_its_configuration_and_its_checkpoint(sweep):
    run_id = left_behind(sweep)
    before = (sweep.directory(run_id) / CONFIG_NAME).read_bytes()
    other = Configuration(CONFIG_NAME, "lr: '0.9'\n")
    taking = adopting(take=run_id, take_epoch=1)
    report = sweep.ask(make_request(adoption=taking, configuration=other))
    assert (report.outcome, report.run_id, report.epoch, report.adopted) == (Outcome.RESUME, run_id, 2, True)
    assert report.checkpoint.step == 100
    assert (sweep.directory(run_id) / CONFIG_NAME).read_bytes() == before
    assert b"uid-0" in (sweep.directory(run_id) / ".incomplete").read_bytes()


def test_a_candidate_whose_claim_moved_is_not_taken(sweep):
    run_id = left_behind(sweep)
    sweep.ask(make_request(owner=OTHER, run_id=run_id, started=True, prepare=1))
    report = sweep.ask(make_request(adoption=adopting(take=run_id, take_epoch=1)))
    assert report.blocked is BlockedReason.ADOPTION_LOST
    assert [item["owner"]["uid"] for item in sweep.claims(run_id)] == ["uid-1", "uid-1"]


def test_a_candidate_whose_claim_moves_while_it_is_taken_is_not_taken(sweep):
    run_id = left_behind(sweep)

    def before(operation, path):
        if operation == "link" and path.endswith("claims/000002.json") and len(sweep.claims(run_id)) == 1:
            sweep.ask(make_request(owner=OTHER, run_id=run_id, started=True, prepare=1))

    report = sweep.ask(make_request(adoption=adopting(take=run_id, take_epoch=1)), before=before)
    assert report.blocked is BlockedReason.ADOPTION_LOST
    assert len(sweep.claims(run_id)) == 2


def test_a_run_that_was_completed_meanwhile_is_not_taken(sweep):
    sweep.prepare(owner=OTHER)
    sweep.starts()
    sweep.ends()
    run_id = sweep.run_id
    sweep.prepare(owner=OTHER)
    report = sweep.ask(make_request(adoption=adopting(take=run_id, take_epoch=2)))
    assert report.blocked is BlockedReason.ADOPTION_LOST
    assert sweep.ask(make_request(adoption=adopting())).outcome is Outcome.FRESH


def test_a_candidate_outside_the_scope_is_not_taken_whoever_says_so(sweep):
    run_id = left_behind(sweep)
    taking = adopting(AdoptionScope.SAME_CONFIG, take=run_id, take_epoch=1)
    request = make_request(adoption=taking, configuration=Configuration(CONFIG_NAME, "lr: '0.9'\n"))
    assert sweep.ask(request).blocked is BlockedReason.ADOPTION_LOST
    assert len(sweep.claims(run_id)) == 1


def test_a_run_in_whose_place_a_new_one_stands_is_no_candidate(sweep):
    sweep.prepare(owner=OTHER)
    (sweep.save(100) / "model.pt").write_bytes(b"torn")
    old = sweep.run_id
    new = sweep.prepare(owner=OTHER, fresh_number=1).run_id
    report = sweep.ask(make_request(adoption=adopting()))
    assert [item.run_id for item in report.candidates] == [new]
    assert new != old


def test_the_previous_owner_is_fenced_once_its_run_is_adopted(sweep):
    run_id = left_behind(sweep)
    sweep.ask(make_request(adoption=adopting(take=run_id, take_epoch=1)))
    late = sweep.ask(make_request(owner=OTHER, run_id=run_id, started=True, prepare=1, known_epoch=1))
    assert late.blocked is BlockedReason.CLAIM_LOST


@pytest.mark.parametrize(
    ("scope", "configuration", "listed"),
    [
        (AdoptionScope.SWEEP, CONFIG, True),
        (AdoptionScope.SWEEP, "lr: '0.9'\n", True),
        (AdoptionScope.SAME_CONFIG, CONFIG, True),
        (AdoptionScope.SAME_CONFIG, "lr: '0.9'\n", False),
        (AdoptionScope.SAME_CONFIG, None, False),
        (AdoptionScope.SAME_RUN_ID, CONFIG, False),
        (AdoptionScope.NONE, CONFIG, False),
    ],
)
@pytest.mark.parametrize("leave", [left_behind, scripted])
def test_the_scope_says_which_runs_are_candidates(scope, configuration, listed, leave, sweep):
    leave(sweep)
    report = sweep.ask(make_request(adoption=adopting(scope), configuration=Configuration(CONFIG_NAME, configuration)))
    assert (report.outcome is Outcome.CANDIDATES) == listed


def test_a_named_run_is_a_candidate_under_scope_same_run_id(sweep):
    run_id = left_behind(sweep)
    scope = AdoptionScope.SAME_RUN_ID
    report = sweep.ask(make_request(run_id=run_id, adoption=adopting(scope)))
    assert [item.run_id for item in report.candidates] == [run_id]
    taken = sweep.ask(make_request(run_id=run_id, adoption=adopting(scope, take=run_id, take_epoch=1)))
    assert (taken.outcome, taken.adopted) == (Outcome.RESUME, True)


def test_a_named_run_outside_the_scope_is_refused(sweep):
    run_id = left_behind(sweep)
    report = sweep.ask(make_request(run_id=run_id))
    assert report.blocked is BlockedReason.RUN_ID_TAKEN


# -- markers of scripts, and owners whom no API server here can vouch for ----------------------------------------------


@pytest.mark.parametrize("marker", [".incomplete", "scripted.incomplete", "../scripted.incomplete"])
def test_a_bare_marker_makes_a_candidate_that_is_taken_after_its_silence(marker, sweep):
    name = scripted(sweep, marker=marker)
    report = sweep.ask(make_request(adoption=adopting()))
    assert [(item.run_id, item.epoch, item.owner) for item in report.candidates] == [(name, 0, None)]
    taking = make_request(adoption=adopting(take=name))
    early = sweep.ask(taking)
    assert early.blocked is BlockedReason.ADOPTION_LOST
    assert "900 s" in early.message
    silent_for(sweep.directory(name), 1000)
    taken = sweep.ask(taking)
    assert (taken.outcome, taken.run_id, taken.adopted) == (Outcome.RESUME, name, True)
    assert taken.checkpoint.path == "checkpoints/step-100.pt"


def test_a_file_that_grows_deep_in_the_run_directory_breaks_the_silence(sweep):
    name = scripted(sweep)
    silent_for(sweep.directory(name), 1000)
    log = sweep.directory(name) / "logs" / "rank-0" / "out.txt"
    log.parent.mkdir(parents=True)
    log.touch()
    silent_for(sweep.directory(name), 1000)
    log.write_text("still here")
    assert sweep.ask(make_request(adoption=adopting(take=name))).blocked is BlockedReason.ADOPTION_LOST


def test_a_directory_too_large_to_be_looked_through_is_not_silent(sweep, monkeypatch):
    name = scripted(sweep)
    silent_for(sweep.directory(name), 1000)
    monkeypatch.setattr(standings, "_WHOLE_ENTRIES", 2)
    assert sweep.ask(make_request(adoption=adopting(take=name))).blocked is BlockedReason.ADOPTION_LOST


def test_an_owner_in_another_cluster_must_have_been_silent_too(sweep):
    run_id = left_behind(sweep, owner=ABROAD)
    taking = make_request(adoption=adopting(take=run_id, take_epoch=1))
    assert sweep.ask(taking).blocked is BlockedReason.ADOPTION_LOST
    silent_for(sweep.directory(run_id), 1000)
    assert sweep.ask(taking).outcome is Outcome.RESUME


def test_a_scripted_run_without_checkpoints_restarts_under_its_name(sweep):
    name = scripted(sweep)
    (sweep.directory(name) / "checkpoints" / "step-100.pt").unlink()
    report = sweep.ask(make_request(adoption=adopting(idle=0, take=name)))
    assert (report.outcome, report.reason, report.run_id) == (
        Outcome.RESTART,
        StartReason.NOTHING_COMMITTED,
        name,
    )


def test_a_directory_without_any_marker_is_no_candidate_and_its_name_is_taken(sweep):
    name = scripted(sweep)
    (sweep.directory(name) / ".incomplete").unlink()
    assert sweep.ask(make_request(adoption=adopting())).outcome is Outcome.FRESH
    assert sweep.ask(make_request(run_id=name, owner=OTHER)).blocked is BlockedReason.RUN_ID_TAKEN


@pytest.mark.parametrize("scope", [AdoptionScope.SAME_RUN_ID, AdoptionScope.SAME_CONFIG, AdoptionScope.SWEEP])
def test_a_run_whose_marker_an_exit_trap_removed_is_taken_where_it_is_named(scope, sweep):
    name = scripted(sweep)
    (sweep.directory(name) / ".incomplete").unlink()
    configuration = Configuration(CONFIG_NAME, CONFIG)
    listed = sweep.ask(make_request(run_id=name, adoption=adopting(scope), configuration=configuration))
    assert [(item.run_id, item.epoch, item.owner) for item in listed.candidates] == [(name, 0, None)]
    taking = make_request(run_id=name, adoption=adopting(scope, take=name), configuration=configuration)
    early = sweep.ask(taking)
    assert early.blocked is BlockedReason.ADOPTION_LOST
    assert "900 s" in early.message
    silent_for(sweep.directory(name), 1000)
    taken = sweep.ask(taking)
    assert (taken.outcome, taken.run_id, taken.adopted, taken.checkpoint.step) == (Outcome.RESUME, name, True, 100)
    assert (sweep.directory(name) / ".incomplete").exists()


# -- what others leave must not hinder ---------------------------------------------------------------------------------


def test_a_run_of_others_with_a_result_of_another_kind_hinders_nobody(sweep):
    name = scripted(sweep)
    (sweep.directory(name) / "result.json").write_text('{"accuracy": 0.98}')
    assert sweep.ask(make_request(adoption=adopting())).outcome is Outcome.FRESH


def test_a_run_of_others_whose_configuration_is_a_link_hinders_nobody(sweep):
    name = scripted(sweep, config=None)
    (sweep.directory(name) / CONFIG_NAME).symlink_to("/etc/passwd")
    report = sweep.ask(make_request(adoption=adopting(AdoptionScope.SAME_CONFIG)))
    assert report.outcome is Outcome.FRESH


def test_our_own_run_with_a_record_that_cannot_be_read_is_not_forgotten(sweep):
    """Its answer was lost; a new run in its place would be a fresh start by accident."""
    sweep.prepare()
    (sweep.directory() / "result.json").write_text("{}")
    assert sweep.ask(make_request(prepare=1, fresh_number=1)).blocked is BlockedReason.RECORD_INVALID


def test_an_answer_that_was_lost_is_given_again_before_anything_is_adopted(sweep):
    left_behind(sweep)
    mine = sweep.ask(make_request())
    again = sweep.ask(make_request(adoption=adopting()))
    assert (again.outcome, again.run_id, again.epoch) == (Outcome.FRESH, mine.run_id, 1)
    later = sweep.ask(make_request(prepare=1, adoption=adopting()))
    assert (later.run_id, later.epoch) == (mine.run_id, 2)
