"""A control plane that goes away in mid-run and comes back: the run ends as ever, and no attempt is made twice.

`make faults ARGS="--away 120"` is the same with minutes for seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.control_plane import ControlPlane
from support.control_plane import running as control_plane_running
from support.faults.absences import absences
from support.faults.operators import TIMES
from support.faults.schedule import Schedule
from sweeprun_operator.handlers import doorbell

AWAY_SECONDS = 5.0


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    """One of its own: processes that a thread started again end with that thread, and other tests need theirs."""
    with control_plane_running() as plane:
        yield plane


@pytest.fixture
def short(monkeypatch):
    """Whatever waits for the API server has given up before it is back: watches, their silence, and the Lease."""
    monkeypatch.setattr(doorbell, "WATCH_SECONDS", 2)
    monkeypatch.setattr(doorbell, "INACTIVE_SECONDS", 3.0)
    monkeypatch.setattr(doorbell, "DEAF_SECONDS", 4.0)
    assert max(doorbell.DEAF_SECONDS, TIMES.give_up) < AWAY_SECONDS


@pytest.mark.usefixtures("short")
async def test_a_run_ends_as_ever_though_the_control_plane_was_away(told, control_plane):
    usual = await told.undisturbed("evicted")
    for scenario in absences(control_plane, AWAY_SECONDS):
        found = await told.tell(Schedule(scenario.name), scenario=scenario)
        assert found.violations == [], scenario.name
        assert found.lives >= 2, "a process that cannot renew its Lease leaves"
        assert found.outcome == usual.outcome, scenario.name
