"""Prepare dies before each of its changing operations in turn; whoever asks again gets the answer that was due.

Each story is played once undisturbed, which counts its operations and gives the answer that was due; then once for each
operation with a death before it. The next prepare is either the same one again (the pod was replaced) or one with the
next number (its Job was given up).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.volume_crash import STORIES, DiedError, Mortality, check, contents_of, copy_of, records
from support.volume_sweep import Sweep


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_a_death_before_any_operation_changes_no_answer(story, tmp_path):
    played = Sweep(tmp_path / "played")
    played.root.mkdir()
    request = story.play(played)
    lives = Mortality()
    due = story.ask(copy_of(played, "whole"), request, before=lives)
    assert (due.outcome, due.reason) == (story.outcome, story.reason), due.message
    for at in range(len(lives.operations)):
        dead = copy_of(played, "dead")
        with pytest.raises(DiedError) as death:
            story.ask(dead, request, before=Mortality(at))
        where = f"death {at}: {death.value}"
        for number in (request.prepare, request.prepare + 1):
            sweep = copy_of(dead, "again")
            check(story, due, sweep, replace(request, prepare=number), f"{where}, then prepare {number}")
            assert contents_of(story, sweep) == contents_of(story, played), where
            now = records(sweep)
            assert all(now[path] == data for path, data in records(dead).items()), where
