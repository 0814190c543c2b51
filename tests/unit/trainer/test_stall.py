"""How long a command has made no progress, by a clock that the test sets."""

import pytest

from sweeprun_trainer.stall import Stall


def looks(stall, *moments, sign="same"):
    return [stall.is_over(sign, moment) for moment in moments]


def test_the_limit_is_reached_when_nothing_changed_for_so_long():
    stall = Stall(30, every_seconds=10, now=0.0)
    assert looks(stall, 10, 20, 30, 39.9, 40) == [False, False, False, False, True]


def test_a_change_begins_the_time_anew():
    stall = Stall(30, every_seconds=10, now=0.0)
    looks(stall, 10, 20, 30)
    assert not stall.is_over("another", 39)
    assert looks(stall, 49, 59, 69, sign="another") == [False, False, True]


@pytest.mark.parametrize("slept", [100, 86_400])
def test_a_process_that_was_suspended_does_not_count_that_time(slept):
    stall = Stall(30, every_seconds=10, now=0.0)
    looks(stall, 0)
    assert looks(stall, slept) == [False]
    assert looks(stall, slept + 8, slept + 9) == [False, True]  # 21 s for the look that came late


def test_time_in_which_nothing_could_be_seen_does_not_count():
    stall = Stall(30, every_seconds=10, now=0.0)
    looks(stall, 0, 10, 20)
    stall.was_blind(40)
    assert looks(stall, 49.9, 50) == [False, True]
