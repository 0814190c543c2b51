"""Two processes at once, each sure that it is the one: a frozen one wakes, clocks differ, the Lease is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from support.faults.schedule import Fault, Kind, Schedule


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.FREEZE, "create-PyTorchJob", 1, 9),
        Fault(Kind.FREEZE, "put-SweepRun", 4, 9),
        Fault(Kind.FREEZE, "list-Pod", 8, 16),
    ],
    ids=str,
)
async def test_a_process_that_slept_while_another_took_over_does_no_harm(struck, fault):
    found = await struck(Schedule("evicted", (fault,)))
    assert found.violations == []
    assert found.struck == 1
    assert found.lives >= 2


@pytest.mark.parametrize("minutes", [-180, 180])
async def test_clocks_that_differ_change_nothing_where_the_lease_goes_over(struck, minutes):
    """The first process has the odd clock; it loses its Lease in the middle."""
    fault = Fault(Kind.FREEZE, "put-SweepRun", 6, 4)
    found = await struck(Schedule("evicted", (fault,)), ahead=timedelta(minutes=minutes))
    assert found.violations == []
    assert found.lives >= 2


async def test_a_request_that_arrives_after_its_process_died_makes_no_second_attempt(struck):
    found = await struck(Schedule("evicted", (Fault(Kind.LATE, "create-PyTorchJob", 1),)))
    assert found.violations == []
    assert found.lives == 2
