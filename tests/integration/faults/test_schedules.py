"""Faults between the operator's process and the API server change nothing of how a run ends, at any revision.

The full set is `make faults`; here a seeded part of it. SWEEPRUN_FAULTS_SEED and SWEEPRUN_FAULTS_COUNT choose another.
"""

from __future__ import annotations

import os

import pytest

from support.faults.__main__ import chosen
from support.faults.schedule import Fault, Kind, Schedule

SEED = int(os.environ.get("SWEEPRUN_FAULTS_SEED", "1"))
COUNT = int(os.environ.get("SWEEPRUN_FAULTS_COUNT", "24"))
AT_ONCE = 4


@pytest.mark.timeout(60 + 60 * COUNT)
async def test_a_seeded_set_of_schedules_ends_as_without_faults(told):
    schedules = await chosen(told, SEED, COUNT)
    done = await told.all(schedules, at_once=AT_ONCE)
    diverged = [str(one) for one in done if one.violations]
    assert not diverged, "\n".join(diverged)
    struck = sum(one.struck > 0 for one in done)
    # on a busy machine passes fall together, and a request of some ordinal is never made
    assert struck > len(done) * 0.5, "faults that meet no request test nothing"


async def test_an_operator_killed_after_its_write_is_followed_by_one_that_goes_on(struck):
    found = await struck(Schedule("evicted", (Fault(Kind.KILL_AFTER, "create-PyTorchJob", 2),)))
    assert (found.struck, found.lives, found.violations) == (1, 2, [])


async def test_a_conflict_is_read_again(struck):
    found = await struck(Schedule("evicted", (Fault(Kind.CONFLICT, "put-SweepRun", 3),)))
    assert (found.struck, found.lives, found.violations) == (1, 1, [])
