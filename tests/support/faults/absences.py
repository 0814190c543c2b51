"""A control plane that is really away in the middle of a run: its processes are stopped, and started again later.

The API server forgets its caches and its watches; what it answers afterwards is what etcd has kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from support.control_plane import ControlPlane

from .player import Player
from .scenarios import COMPLETE, RESUMED, Act, Look, Scenario, completes, draining, ended, is_evicted, running

Away = Callable[[], None]


def absences(plane: ControlPlane, seconds: float) -> Iterator[Scenario]:
    """An evicted run: the API server is away for `seconds` while it trains, or with etcd while its pods end."""
    yield _absent("away-training", running(0), _away(plane, seconds, with_etcd=False))
    yield _absent("away-draining", draining, _away(plane, seconds, with_etcd=True))


def _absent(name: str, when: Look, away: Away) -> Scenario:
    def is_away(_player: Player) -> None:
        away()

    steps: list[tuple[Look, Act]] = [(running(0), is_evicted(0)), (running(1), completes(1))]
    steps.insert(1 if when is draining else 0, (when, is_away))
    return Scenario(
        name,
        tuple(steps),
        ended("Complete"),
        {**COMPLETE, "counts": {**RESUMED, "disruptions": 1, "failures": 0}},
    )


def _away(plane: ControlPlane, seconds: float, *, with_etcd: bool) -> Away:
    def away() -> None:
        plane.server.stop()
        if with_etcd:
            plane.etcd.stop()
        time.sleep(seconds)
        if with_etcd:
            plane.etcd.start()
        plane.server.start()
        plane.wait_ready()

    return away
