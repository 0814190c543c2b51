"""Metrics for the report are thinned and bounded, and whatever happens to them training goes on."""

from __future__ import annotations

import json
import os

import pytest

from sweeprun_protocol.curve import MAX_METRICS, MAX_ROWS
from sweeprun_trainer import curve
from sweeprun_trainer.curve import Curve


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_kept_a_second_apart_and_less_often_later(tmp_path, clock):
    path = tmp_path / "metrics.jsonl"
    kept = Curve(str(path), monotonic=clock)
    for step in range(1, 401):
        clock.now = step / 2
        kept.add(step, {"loss": 1 / step})
        if step % curve.WAITING_ROWS == 0:
            kept.close()
    kept.close()
    steps = [row["step"] for row in rows(path)]
    assert steps[:3] == [1, 3, 5]
    assert steps[100] - steps[99] == 2
    assert steps[102] - steps[101] == 4
    assert rows(path)[0] == {"step": 1, "metrics": {"loss": 1.0}}


def test_rows_names_and_metrics_are_bounded(tmp_path, clock):
    path = tmp_path / "metrics.jsonl"
    kept = Curve(str(path), monotonic=clock)
    for step in range(MAX_ROWS + 10):
        clock.now += 1e9
        kept.add(step, {"x" * 100: 1.0, "nan": float("nan"), **{str(number): 1.0 for number in range(40)}})
        kept.close()
    found = rows(path)
    assert len(found) == MAX_ROWS
    assert set(found[0]["metrics"]) == {str(number) for number in range(MAX_METRICS)}


@pytest.mark.parametrize("harm", ["no directory", "a link"])
def test_a_file_that_cannot_be_written_is_told_once_and_left(harm, tmp_path, clock, capfd):
    path = tmp_path / ("gone/metrics.jsonl" if harm == "no directory" else "metrics.jsonl")
    if harm == "a link":
        os.symlink(tmp_path / "elsewhere", path)
    kept = Curve(str(path), monotonic=clock)
    for step in range(3):
        clock.now += 10
        kept.add(step, {"loss": 1.0})
        kept.close()
    assert capfd.readouterr().err.count("metrics are not kept") == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_volume_that_does_not_answer_makes_no_step_wait(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(curve, "CLOSE_SECONDS", 0.01)
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)  # opening it for writing waits until somebody reads
    kept = Curve(str(path), monotonic=clock)
    for step in range(3 * curve.WAITING_ROWS):
        clock.now += 1e6
        kept.add(step, {"loss": 1.0})
    kept.close()
    assert os.read(os.open(path, os.O_RDONLY), 1000).startswith(b'{"step": 0')
