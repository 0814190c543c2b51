"""Any history of owners, prepares, pods and zombies on one volume, interleaved call by call: see support/lives.py.

SWEEPRUN_TEST_SEEDS multiplies the number of histories (default 1: some 20 s).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.lives import World

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


def play(events, seed):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a fresh directory in it
    with tempfile.TemporaryDirectory(dir=memory) as root, World(Path(root), seed) as world:
        for name, number in events:
            getattr(world, name)(number % 60 if name == "act" else number)
            world.check()
        world.finish()
        world.check()
        world.settle()
