"""All ranks load the same step, or none trains and all end alike, in bounded time: whatever befalls one of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from support.ranks import Ranks, context
from support.run_directory import RunDirectory
from sweeprun_protocol.exit_codes import ExitCode

SCRIPT = Path(__file__).with_name("agreement_script.py")
TIMEOUT = 4.0
"""Of the votes."""
BOUND = 60.0
"""Starts of processes, two votes, and a busy machine."""
SLOTS = ("worker-0", "worker-1")
MODES = ("data parallel", "sharded")


class Saved:
    """A run with checkpoints of steps 1 and 2, pinned to step 2."""

    def __init__(self, place: Path, mode: str, forking: object) -> None:
        self.place, self.mode, self.forking = place, mode, forking
        self.run = RunDirectory(place / "volume", slots=SLOTS)
        codes, _ = self.attempt("first", world=2)
        assert codes == [0, 0]
        assert self.run.prepare().checkpoint.step == 2

    def attempt(self, name, *, world=2, **environ):
        for told in self.place.glob("*ed-*"):
            told.unlink()
        known = {**self.run.environment().encode(), "PATH": os.environ["PATH"], "PLACE": str(self.place)}
        given = {**known, "MODE": self.mode, "TIMEOUT": str(TIMEOUT), **environ}
        ranks = Ranks(self.forking, SCRIPT, [given] * world, place=self.place, name=name)
        try:
            # one that hangs is left behind: the others are what is asked about
            faulty = int(environ.get("FAULT", "-1").split(";")[0])
            began = time.monotonic()
            while any(code is None for rank, code in enumerate(ranks.exit_codes) if rank != faulty):
                assert time.monotonic() - began < BOUND, [ranks.said(rank) for rank in range(world)]
                time.sleep(0.01)
            if "hang" not in environ.get("FAULT", ""):
                ranks.wait(BOUND)
            codes = ranks.exit_codes
        finally:
            ranks.end()
        return codes, [ranks.said(rank) for rank in range(world)]

    def forget(self):
        """What an attempt that trained has committed."""
        for path in self.run.checkpoints.glob("step-*.e2"):
            shutil.rmtree(path)

    def told(self, word):
        return {path.name: path.read_text() for path in self.place.glob(f"{word}-*")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    forking = context()
    made = {}

    def of(mode):
        if mode not in made:
            place = tmp_path_factory.mktemp(mode.replace(" ", "-"))
            made[mode] = Saved(place, mode, forking)
        return made[mode]

    return of


def check_that_nobody_trained(saved, codes, logs, *, but=()):
    for rank, code in enumerate(codes):
        if rank not in but:
            assert code == ExitCode.NO_AGREEMENT, logs[rank]
    assert saved.told("started") == {}, "a rank trained"


@pytest.mark.parametrize("mode", MODES)
def test_without_a_fault_all_ranks_go_on_from_the_same_step(saved, mode):
    one = saved(mode)
    ended = one.told("ended")
    codes, logs = one.attempt("whole", SEED="7")
    assert codes == [0, 0], logs
    steps = {name: told.split() for name, told in one.told("started").items()}
    assert {name: told[0] for name, told in steps.items()} == {"started-0": "2", "started-1": "2"}
    assert {told[1] for told in steps.values()} == {"2", "4"}, "the state of each rank"
    assert {told[2] for told in steps.values()} == set(ended.values()), "the same weights as were saved"
    one.forget()


SEEN = [
    ("data parallel", "stale", 1, "manifest.json"),
    ("data parallel", "stale", 0, "model.pt"),
    ("data parallel", "stale", 1, "counts-rank-1.pt"),
    ("data parallel", "missing", 1, "manifest.json"),
    ("data parallel", "missing", 1, "model.pt"),
    ("data parallel", "missing", 0, "rng-rank-0.pt"),
    ("sharded", "stale", 1, "__1_0.distcp"),
    ("sharded", "stale", 0, "optimizer-rank-0.pt"),
    ("sharded", "missing", 1, ".metadata"),
    ("sharded", "missing", 0, "__0_0.distcp"),
    ("sharded", "missing", 1, "optimizer-rank-1.pt"),
]
"""Stale: what one rank sees under this name is the file of step 1."""


@pytest.mark.parametrize(("mode", "what", "rank", "file"), SEEN)
def test_a_file_that_one_rank_sees_as_it_is_not_keeps_all_from_training(saved, mode, what, rank, file):
    one = saved(mode)
    codes, logs = one.attempt(f"{what}-{file}", FAULT=f"{rank};{what};{file}")
    check_that_nobody_trained(one, codes, logs)
    assert "no rank trains" in logs[0]
    assert logs[0].splitlines()[-1] == logs[1].splitlines()[-1], "the same error on all of them"


GONE = [
    ("data parallel", "die", 1, "at the sweep"),
    ("data parallel", "die", 0, "before it verifies"),
    ("data parallel", "die", 1, "before it loads"),
    ("data parallel", "hang", 1, "before it verifies"),
    ("data parallel", "hang", 0, "between the votes"),
    ("sharded", "die", 1, "before it loads"),
    ("sharded", "die", 0, "in the load of shards"),
    ("sharded", "hang", 1, "in the load of shards"),
]


@pytest.mark.parametrize(("mode", "what", "rank", "place"), GONE)
def test_a_rank_that_is_gone_or_silent_keeps_the_other_from_training(saved, mode, what, rank, place):
    one = saved(mode)
    codes, logs = one.attempt(f"{what}-{rank}-{place}", FAULT=f"{rank};{what};{place}")
    check_that_nobody_trained(one, codes, logs, but=[rank])


@pytest.mark.parametrize(("mode", "world"), [("data parallel", 1), ("sharded", 3)])
def test_another_number_of_ranks_is_refused_before_training(saved, mode, world):
    one = saved(mode)
    codes, logs = one.attempt(f"resized-{world}", world=world)
    check_that_nobody_trained(one, codes, logs)
    assert f"written by 2 ranks, {world} are here" in logs[0]


@pytest.mark.parametrize(("mode", "world"), [("data parallel", 1), ("sharded", 3)])
def test_another_number_of_ranks_goes_on_with_all_but_the_states_of_ranks(saved, mode, world):
    one = saved(mode)
    one.attempt(f"same-{world}", SEED="7")
    expected = {told.split()[2] for told in one.told("started").values()}
    one.forget()
    codes, logs = one.attempt(f"dropped-{world}", world=world, RESIZE="drop_per_rank", SEED="8")
    assert codes == [0] * world, logs
    told = [told.split() for told in one.told("started").values()]
    assert [(step, batches) for step, batches, _ in told] == [("2", "0")] * world
    assert {digest for _, _, digest in told} == expected
    manifest = json.loads((one.run.checkpoints / "step-000000004.e2" / "manifest.json").read_text())
    assert manifest["worldSize"] == world
    one.forget()
