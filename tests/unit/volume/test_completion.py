"""Only proof completes a run; then the record is durable before the markers go."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from support.volume_crash import Mortality
from support.volume_sweep import OTHER, make_request
from sweeprun_protocol.prepare import pods_digest
from sweeprun_protocol.reasons import BlockedReason, CompletionPolicy, Outcome
from sweeprun_volume.clock import Clock


def test_a_run_is_complete_when_every_slot_ended_with_0(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.ends()
    report = sweep.prepare()
    assert (report.outcome, report.step, report.last_step) == (Outcome.COMPLETED, 900, 900)
    result = json.loads((sweep.directory() / "result.json").read_bytes())
    assert (result["epoch"], result["step"], result["owner"]["uid"]) == (1, 900, "uid-0")
    assert not (sweep.directory() / ".incomplete").exists()


@pytest.mark.parametrize(
    ("name", "play"),
    [
        ("a stopped slot saved politely and exited 0", lambda sweep: sweep.ends("worker-0", told_to_stop=True)),
        ("a slot failed", lambda sweep: sweep.ends("worker-0", exit_code=1)),
        ("a slot has no end", lambda sweep: None),
        ("a slot's end is another pod's", lambda sweep: sweep.ends("worker-0", pod="replacement")),
        ("a slot's end is of another epoch", lambda sweep: sweep.ends("worker-0", epoch=7)),
        ("a slot's end is another slot's", lambda sweep: sweep.ends("worker-0", slot="master-0")),
    ],
)
def test_a_run_is_not_complete_where(name, play, sweep):
    sweep.prepare()
    sweep.starts()
    sweep.ends("master-0")
    play(sweep)
    report = sweep.prepare()
    assert report.outcome is Outcome.RESTART, name
    assert (sweep.directory() / ".incomplete").exists()
    assert not (sweep.directory() / "result.json").exists()


def test_a_slot_that_never_started_has_not_ended(sweep):
    sweep.prepare()
    sweep.starts("master-0")
    sweep.ends()
    assert sweep.prepare().outcome is Outcome.RESTART


def test_an_end_that_cannot_be_read_proves_nothing(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.ends()
    path = sweep.directory() / "epochs" / "1" / "end-worker-0.json"
    path.write_bytes(path.read_bytes()[:20])
    assert sweep.prepare().outcome is Outcome.RESTART


def test_a_library_that_never_called_complete_has_not_completed(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.uses_library()
    sweep.ends()
    assert sweep.prepare().outcome is Outcome.RESTART


def test_a_library_record_that_cannot_be_read_still_says_that_there_is_a_library(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.uses_library()
    (sweep.directory() / "epochs" / "1" / "library.json").write_bytes(b"{")
    sweep.ends()
    assert sweep.prepare().outcome is Outcome.RESTART


def test_complete_of_the_library_completes_with_its_metrics(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.uses_library()
    sweep.calls_complete()
    report = sweep.prepare()
    assert (report.outcome, report.step, report.metrics) == (Outcome.COMPLETED, 1000, {"loss": "0.25"})


def test_complete_of_another_epoch_completes_nothing(sweep):
    sweep.prepare()
    sweep.uses_library()
    sweep.calls_complete(epoch=9)
    assert sweep.prepare().outcome is Outcome.RESTART


def test_with_policy_explicit_an_exit_code_completes_nothing(sweep):
    sweep.prepare(completion=CompletionPolicy.EXPLICIT)
    sweep.starts()
    sweep.ends()
    assert sweep.prepare(completion=CompletionPolicy.EXPLICIT).outcome is Outcome.RESTART
    sweep.calls_complete()
    assert sweep.prepare(completion=CompletionPolicy.EXPLICIT).outcome is Outcome.COMPLETED


def test_ends_that_show_while_checkpoints_are_read_complete_the_run(sweep):
    """They were written on other nodes; attributes are cached for a minute on network file systems."""
    sweep.prepare()
    sweep.save(100)
    sweep.starts()
    request = sweep.next_request()
    asked = []

    def monotonic():
        asked.append(None)
        if len(asked) == 4:
            sweep.ends()
        return 0.0

    report = sweep.ask(request, clock=Clock(monotonic=monotonic))
    assert (report.outcome, report.last_step) == (Outcome.COMPLETED, 900)
    assert not (sweep.directory() / "epochs" / "2").exists()


def test_ends_that_show_after_the_decision_do_not_change_it(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.starts()
    request = sweep.next_request()
    assert sweep.ask(request).outcome is Outcome.RESUME
    sweep.ends()
    assert sweep.ask(request).outcome is Outcome.RESUME
    assert not (sweep.directory() / "result.json").exists()


def test_the_policy_is_that_of_the_attempt_not_that_of_today(sweep):
    sweep.prepare(completion=CompletionPolicy.EXPLICIT)
    sweep.starts()
    sweep.ends()
    assert sweep.prepare(completion=CompletionPolicy.EXIT_CODE).outcome is Outcome.RESTART


def test_the_slots_are_those_of_the_attempt_not_those_of_today(sweep):
    sweep.prepare(slots=("master-0", "worker-0", "worker-1"))
    sweep.starts()
    sweep.ends()
    assert sweep.prepare().outcome is Outcome.RESTART


def test_an_older_epoch_that_ended_well_late_completes_nothing(sweep):
    """A zombie of epoch 1 ends with 0 when epoch 2 runs."""
    sweep.prepare()
    sweep.starts()
    first = sweep.last
    sweep.prepare()
    second, sweep.last = sweep.last, first
    sweep.ends()
    sweep.last = second
    assert sweep.prepare().outcome is Outcome.RESTART


def test_the_result_is_durable_before_any_marker_goes(sweep):
    sweep.prepare()
    run_id = sweep.run_id
    beside = sweep.directory().parent / f"{run_id}.incomplete"
    inside = sweep.directory() / f"{run_id}.incomplete"
    beside.touch()
    inside.touch()
    sweep.starts()
    sweep.ends()
    trace = []
    report = sweep.ask(sweep.next_request(), before=lambda operation, path: trace.append((operation, path)))
    assert report.outcome is Outcome.COMPLETED
    result = f"sweep/digits-lr/runs/{run_id}/result.json"
    removed = [index for index, (operation, path) in enumerate(trace) if operation == "unlink" and "incomplete" in path]
    assert len(removed) == 3
    assert trace.index(("fsync-directory", result)) < min(removed)
    assert not beside.exists()
    assert not inside.exists()


def test_an_older_prepare_is_superseded_even_where_the_run_is_complete_by_now(sweep):
    sweep.prepare()
    late = sweep.next_request()
    sweep.prepare()
    sweep.starts()
    sweep.ends()
    sweep.last = replace(sweep.last, prepare=5)
    assert sweep.prepare().outcome is Outcome.COMPLETED
    assert sweep.ask(late).outcome is Outcome.SUPERSEDED


def test_a_complete_run_stays_complete_and_is_nobody_elses(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.ends()
    sweep.prepare()
    request = sweep.next_request()
    lives = Mortality()
    assert sweep.ask(request, before=lives).outcome is Outcome.COMPLETED
    assert len(sweep.claims()) == 2, "nothing is left to claim"
    other = sweep.ask(make_request(owner=OTHER, run_id=sweep.run_id))
    assert other.blocked is BlockedReason.RUN_COMPLETED


# -- slots without an entrypoint ---------------------------------------------------------------------------------------

SEEN = pods_digest(["pod-master-0", "pod-worker-0"])
"""As the operator tells it where the cluster showed that both pods ended well by themselves."""


def test_slots_without_an_entrypoint_complete_by_what_the_cluster_showed(sweep):
    sweep.prepare()
    sweep.starts(unwrapped=True)
    sweep.save(300)
    report = sweep.prepare(ended_pods=SEEN)
    assert (report.outcome, report.step) == (Outcome.COMPLETED, 300)
    assert not (sweep.directory() / ".incomplete").exists()


@pytest.mark.parametrize(
    ("name", "seen", "play"),
    [
        ("the cluster showed nothing", None, lambda sweep: sweep.starts(unwrapped=True)),
        ("other pods", pods_digest(["pod-master-0", "other"]), lambda sweep: sweep.starts(unwrapped=True)),
        ("one pod alone", pods_digest(["pod-master-0"]), lambda sweep: sweep.starts(unwrapped=True)),
        ("a slot never started", SEEN, lambda sweep: sweep.starts("master-0", unwrapped=True)),
        ("slots that have an entrypoint, which recorded no end", SEEN, lambda sweep: sweep.starts()),
        (
            "a slot of either kind, and no record of the wrapped one",
            SEEN,
            lambda sweep: (sweep.starts("master-0"), sweep.starts("worker-0", unwrapped=True)),
        ),
        (
            "an end record that says something else",
            SEEN,
            lambda sweep: (sweep.starts(unwrapped=True), sweep.ends("worker-0", told_to_stop=True)),
        ),
        (
            "a library that never called complete()",
            SEEN,
            lambda sweep: (sweep.starts(unwrapped=True), sweep.uses_library()),
        ),
    ],
)
def test_slots_without_an_entrypoint_are_not_complete_where(name, seen, play, sweep):
    sweep.prepare()
    play(sweep)
    assert sweep.prepare(ended_pods=seen).outcome is Outcome.RESTART, name


def test_a_master_with_an_entrypoint_and_a_worker_without_complete_together(sweep):
    sweep.prepare()
    sweep.starts("master-0")
    sweep.ends("master-0")
    sweep.starts("worker-0", unwrapped=True)
    assert sweep.prepare(ended_pods=SEEN).outcome is Outcome.COMPLETED


def test_with_policy_explicit_what_the_cluster_showed_completes_nothing(sweep):
    sweep.prepare(completion=CompletionPolicy.EXPLICIT)
    sweep.starts(unwrapped=True)
    assert sweep.prepare(completion=CompletionPolicy.EXPLICIT, ended_pods=SEEN).outcome is Outcome.RESTART
