"""Killed and resumed, a run ends in the state of an undisturbed one, bit for bit; `make exactness` at length."""

from __future__ import annotations

import pytest

from support.exactness.campaign import STEPS, Campaign, Kind
from support.exactness.kills import Kill

pytestmark = pytest.mark.timeout(400)
TRIES = 5
"""On a busy machine a training may be over before its killer comes to look."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("exactness"))


RUNS = {
    "data parallel, two workers, in the background": (
        Kind("ddp", "generator", 2, background=True),
        [Kill("SIGKILL to one during a save", 0, 7, 0.0), Kill("SIGTERM to one", 1, 13, 0.01)],
    ),
    "sharded, in the background": (
        Kind("fsdp", "distributed", 0, background=True),
        [Kill("SIGTERM to one", 1, 5, 0.0), Kill("SIGKILL to all during a save", 0, 9, 0.0)],
    ),
    "data parallel, at its very last step": (
        Kind("ddp", "plain", 0, background=False),
        [Kill("SIGKILL to one", 1, STEPS + 1, 0.0)],
    ),
    "data parallel with buffers of each rank": (
        Kind("ddp with buffers of each rank", "plain", 0, background=True),
        [Kill("SIGTERM to one", 0, 5, 0.0)],
    ),
    "sharded, while training waits": (
        Kind("fsdp", "distributed", 0, background=False),
        [Kill("SIGKILL to one", 1, 8, 0.0), Kill("SIGTERM, then SIGKILL", 0, 14, 0.002)],
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_killed_and_resumed_it_ends_in_the_same_state(campaign, run):
    kind, kills = RUNS[run]
    for _ in range(TRIES):
        told = campaign.follow(1, kind, kills, every=3)
        assert told.divergence == ""
        if told.kills and told.resumed:
            return
    pytest.fail("nothing was killed, or no attempt went on from a checkpoint: this test shows nothing")


def test_its_twin_that_forgets_a_part_does_not(campaign):
    """Without the average of the weights losses are the same, and the final state is not."""
    kind = Kind("ddp", "generator", 2, background=True)
    for _ in range(TRIES):
        told = campaign.follow(1, kind, [Kill("SIGTERM to one", 0, 7, 0.0)], every=3, EXACT_FORGET="average")
        if told.resumed:
            assert told.divergence.startswith("final digests")
            return
    pytest.fail("no attempt went on from a checkpoint: this test shows nothing")
