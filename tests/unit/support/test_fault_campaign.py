"""The campaign of faults can be shared between machines and goes on where it stopped."""

from __future__ import annotations

import pytest

from support.faults.campaign import Told
from support.faults.journal import Journal
from support.faults.schedule import Fault, Kind, Schedule
from support.faults.selection import Shard

ALL = [Schedule("evicted", (Fault(Kind.CUT, "put-SweepRun", number),)) for number in range(1, 101)]


def test_each_schedule_is_in_one_shard():
    shards = [Shard.read(f"{number}/4") for number in range(1, 5)]
    assert all(sum(shard.has(schedule) for shard in shards) == 1 for schedule in ALL)
    assert all(sum(map(shard.has, ALL)) > 10 for shard in shards)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match="is no part such as 1/4"):
        Shard.read(text)


def test_a_journal_goes_on_with_what_is_left(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.plan(ALL[:3])
    journal.note(Told(ALL[0]))
    journal.note(Told(ALL[2], violations=["it is stuck"]))
    later = Journal(tmp_path / "journal")
    assert later.planned == ALL[:3]
    assert later.left == [ALL[1]]
    assert later.diverged == [str(ALL[2])]
    assert str(later) == "2 of 3 schedules, 1 divergences"
