"""A schedule of faults is stuck where nothing moves though the operator looks, and not where the machine is slow."""

import asyncio
from types import SimpleNamespace

import pytest

from support.faults import patience
from support.faults.patience import LOOKS, Patience, StuckError, within


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(patience, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(patience, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.2)


class Scene:
    """A schedule of which only the counters move: `each` is called with every turn of the loop."""

    def __init__(self, each=lambda scene: None):
        self.namespace = SimpleNamespace(revisions=[])
        self.wire = SimpleNamespace(striking=False, looks=0)
        self._each = each

    async def forever(self):
        while True:
            await asyncio.sleep(0)
            self._each(self)

    async def for_turns(self, turns):
        for _ in range(turns):
            await asyncio.sleep(0.001)
            self._each(self)
        return "done"

    def patience(self):
        return Patience(self.namespace, self.wire)


def looks(scene):
    scene.wire.looks += 1


def moves(scene):
    looks(scene)
    scene.namespace.revisions.append(1)


def strikes(scene):
    looks(scene)
    scene.wire.striking = True


async def stuck(scene):
    await scene.patience().over(scene.forever())


async def test_nothing_moves_though_it_looks():
    with pytest.raises(StuckError, match="looked"):
        await stuck(Scene(looks))


async def test_nothing_moves_and_it_does_not_look():
    with pytest.raises(StuckError, match="only 0 looks"):
        await stuck(Scene())


async def test_something_moves_for_ever(monkeypatch):
    monkeypatch.setattr(patience, "MOST_REVISIONS", 50)
    with pytest.raises(StuckError, match="no end"):
        await stuck(Scene(moves))


@pytest.mark.parametrize(
    "each", [moves, strikes, lambda scene: None], ids=["moves", "is struck", "has no time to look"]
)
async def test_a_long_schedule_is_not_stuck(each):
    scene = Scene(each)
    assert await scene.patience().over(scene.for_turns(80)) == "done"


async def test_few_looks_are_a_slow_machine(monkeypatch):
    monkeypatch.setattr(patience, "LOOKS", LOOKS * 100)
    scene = Scene(looks)
    assert await scene.patience().over(scene.for_turns(80)) == "done"


async def test_what_the_work_raises_is_raised():
    async def fails():
        raise ValueError("of the scenario")

    with pytest.raises(ValueError, match="of the scenario"):
        await Scene().patience().over(fails())


async def test_within_counts_beats():
    assert await within(5, asyncio.sleep(0.01, "done")) == "done"
    with pytest.raises(TimeoutError):
        await within(0.02, asyncio.sleep(30))
