"""The interval that is recommended, what it rests on, and what is said where something is missing."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.shown import NOW, running_attempt, shown_attempt, shown_run, shown_status
from sweeprun_cli.advise.command import advice, measured_rows
from sweeprun_cli.advise.interval import Measured, daly_seconds, lost_share, young_seconds
from sweeprun_cli.advise.volume import Saves, saves_of
from sweeprun_cli.cluster.runs import Run
from sweeprun_protocol.manifest import BLAKE2B_128, Manifest

THEN = datetime.fromisoformat(NOW)


def measured(**status):
    return Measured.of(Run.of(shown_run(status=shown_status(**status))), THEN)


def manifest(step, *, epoch=1, time=0.0, seconds=None):
    return Manifest("r", epoch, step, 1, BLAKE2B_128, (), True, save_seconds=seconds, time=time)


def test_young_and_daly_as_published():
    # Daly 2006: delta = 5 min, M = 24 h gives about 115 min
    assert young_seconds(300, 86_400) == pytest.approx(7200)
    assert daly_seconds(300, 86_400) == pytest.approx(7001, abs=2)
    assert daly_seconds(200, 100) == 100


@given(st.floats(0.1, 100), st.floats(1_000, 1e6))
def test_no_other_interval_loses_clearly_less(cost, between):
    best = daly_seconds(cost, between)
    least = min(lost_share(best * factor, cost, between) for factor in (0.25, 0.5, 0.8, 1.25, 2, 4))
    assert lost_share(best, cost, between) <= least * 1.02


def test_a_status_tells_how_often_it_was_interrupted_and_what_was_repeated():
    found = measured()
    assert found.between_seconds == 1800
    assert found.step_seconds == pytest.approx(1800 / 740)
    assert found.repeated_seconds == pytest.approx(40 * 1800 / 740)
    assert found.interval_seconds == pytest.approx(80 * 1800 / 740)
    assert found.recovery_seconds == pytest.approx(39.5)


def test_time_in_a_queue_is_no_time_of_steps():
    queued = shown_attempt(seconds={"queue": 900, "start": 160})
    assert measured(history=[queued, running_attempt()]).step_seconds == pytest.approx(1)


def test_an_attempt_that_runs_counts_up_to_now():
    assert measured(current={"runningTime": "2026-01-02T03:30:30Z"}).running_seconds == 1830


def test_without_an_interruption_nothing_is_recommended():
    lines = advice(measured(counts={"attempts": 1}), None, 3.0, None)
    assert "no interruption was measured" in lines[0]
    assert lines[-1] == "Without them no interval can be recommended."


def test_without_the_cost_of_a_save_nothing_is_recommended_and_the_way_to_it_is_told():
    lines = advice(measured(), None, None, None)
    assert "--volume" in lines[0]
    assert not [line for line in lines if line.startswith("Save every")]


def test_with_both_it_says_how_often_and_what_is_lost_today_and_then():
    lines = advice(measured(), None, 2.0, 300.0)
    assert lines[0].startswith("Save every 1 min 24 s (Daly")
    assert "every 34 steps" in lines[1]
    assert lines[2].endswith(": 4.7 % of the running time.")
    assert lines[3] == "Lost today, at an interval of 5 min: 9 % of the running time."
    assert "Only 1 interruption(s)" in lines[-1]


def test_an_interval_that_nobody_knows_is_unknown():
    unseen = measured(savings={}, history=[shown_attempt(toStep=None)])
    assert "Lost today: unknown, since the present interval is. Give --interval-seconds or --volume." in advice(
        unseen, None, 2.0, None
    )
    rows = {row[0]: row[1] for row in measured_rows(unseen, None, None, None)}
    assert rows["time for a step"] == rows["cost of a save"] == rows["interval between saves"] == "unknown"


def test_manifests_tell_cost_and_interval_within_each_epoch():
    saves = saves_of(
        [
            manifest(300, time=1300, seconds=9.0),
            manifest(100, time=1100, seconds=1.0),
            manifest(200, time=1190, seconds=2.0),
            manifest(400, epoch=2, time=9000, seconds=2.0),
        ]
    )
    assert saves == Saves(count=4, save_seconds=2.0, interval_seconds=100)
    assert saves_of([]) == Saves(0, None, None)
    assert saves_of([manifest(100)]) == Saves(1, None, None)
