"""Any history of owners, prepares, pods and zombies on one volume, interleaved call by call: see support/lives.py.

SWEEPRUN_TEST_SEEDS multiplies the number of histories (default 1: some 20 s).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.lives import World
from support.network_cache import NetworkFileSystem
from support.volume_sweep import OTHER, adopting, make_request
from sweeprun_protocol.reasons import BlockedReason, Outcome

HISTORIES = 60 * int(os.environ.get("SWEEPRUN_TEST_SEEDS", "1"))

NAMES = (
    *("live", "live", "live", "live", "overtake", "overtake", "ask", "act", "act", "finish"),
    *("commit", "commit", "end", "damage", "kill", "delete", "create"),
)
EVENTS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 400)), min_size=5, max_size=40)


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(events=EVENTS, seed=st.integers(0, 10**6))
def test_in_any_history_one_owner_acts_and_nothing_whole_is_lost(events, seed):
    play(events, seed)


@pytest.mark.parametrize(
    ("checkpoints", "network"),
    [("out/{epoch}", False), ("out", False), ("checkpoints", True), ("out/{epoch}", True), ("out", True)],
)
@settings(max_examples=HISTORIES // 6, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(events=EVENTS, seed=st.integers(0, 10**6))
def test_so_in_those_of_scripts_that_use_torch_save_and_of_three_nodes(checkpoints, network, events, seed):
    play(events, seed, checkpoints=checkpoints, below=NetworkFileSystem() if network else os)


def play(events, seed, **world):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, World(Path(root), seed, **world) as world:
        for name, number in events:
            getattr(world, name)(number % 60 if name == "act" else number)
            world.check()
        world.finish()
        world.check()
        world.settle()


# -- the races that such histories meet too rarely ---------------------------------------------------------------------


def interrupted_at(sweep, operation, ending, meanwhile):
    """The next prepare; before its first such operation, `meanwhile` happens."""
    happened = []

    def before(name, path):
        if not happened and name == operation and path.endswith(ending):
            happened.append(path)
            meanwhile()

    report = sweep.ask(sweep.next_request(), before=before)
    assert happened
    return report


def test_a_prepare_that_wakes_late_decides_nothing_once_a_later_one_went_on(sweep):
    sweep.prepare()
    sweep.save(100)
    second = sweep.next_request(prepare=2)
    answers = []
    late = interrupted_at(sweep, "link", "epochs/2/decision.json", lambda: answers.append(sweep.ask(second)))
    assert (answers[0].outcome, answers[0].epoch) == (Outcome.RESUME, 3)
    assert late.outcome is Outcome.SUPERSEDED
    assert sweep.decision(2).outcome is Outcome.SUPERSEDED
    assert sweep.ask(second).checkpoint == answers[0].checkpoint


def test_a_prepare_that_wakes_late_moves_nothing_that_a_later_one_stands_on(sweep):
    """The earlier one was told to leave all checkpoints behind."""
    sweep.prepare()
    sweep.save(100)
    second = sweep.next_request(prepare=2)
    answers = []
    request, happened = sweep.next_request(resume=False), []

    def before(name, path):
        if not happened and name == "link" and path.endswith("epochs/2/decision.json"):
            happened.append(path)
            answers.append(sweep.ask(second))

    assert sweep.ask(request, before=before).outcome is Outcome.SUPERSEDED
    assert sweep.ask(second).checkpoint == answers[0].checkpoint
    assert (sweep.directory() / answers[0].checkpoint.path).exists()


def test_a_marker_that_is_written_late_does_not_stay_on_a_complete_run(sweep):
    sweep.prepare()
    sweep.starts()
    sweep.ends()
    second = sweep.next_request(prepare=2)
    answers = []
    late = interrupted_at(sweep, "rename", "/.incomplete", lambda: answers.append(sweep.ask(second)))
    assert [item.outcome for item in answers] == [Outcome.COMPLETED]
    assert late.outcome is Outcome.SUPERSEDED
    assert not (sweep.directory() / ".incomplete").exists()


def test_a_prepare_that_gives_way_late_supersedes_nothing_once_another_owner_holds_the_run(sweep):
    sweep.prepare()
    (sweep.save(100) / "model.pt").write_bytes(b"torn")
    run_id = sweep.run_id
    taking = make_request(owner=OTHER, adoption=adopting(take=run_id, take_epoch=2))
    answers = []
    late = interrupted_at(sweep, "fsync-directory", "epochs/2/decision.json", lambda: answers.append(sweep.ask(taking)))
    assert late.blocked is BlockedReason.CLAIM_LOST
    assert (answers[0].outcome, answers[0].previous_run_id) == (Outcome.FRESH, run_id)
    assert sweep.ask(taking).run_id == answers[0].run_id
    assert sweep.runs() == sorted([run_id, answers[0].run_id])
