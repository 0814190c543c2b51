"""Deaths at every operation, and many prepares in a row: nothing that is needed is ever lost by retention."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from support.volume_crash import DiedError, Mortality
from support.volume_retention import damage, in_trash, steps, three_interruptions
from support.volume_sweep import OTHER, OWNER, Sweep, adopting
from sweeprun_protocol.reasons import OnNoValidCheckpoint, Outcome


def test_a_death_before_any_operation_loses_no_checkpoint_that_is_needed(sweep, tmp_path_factory):
    """Before each changing operation in turn; then the same prepare again, or the next one."""
    three_interruptions(sweep)
    damage(sweep.save(650))
    sweep.put("step-1.pt", b"junk")
    for step in (700, 800):
        sweep.save(step)
    request = sweep.next_request(keep_last=2, quarantine_keep_last=1)
    places = tmp_path_factory.mktemp("deaths")

    def copy(of, name):
        shutil.rmtree(places / name, ignore_errors=True)
        shutil.copytree(of.root, places / name)
        return Sweep(places / name)

    def with_last(copied):
        copied.last = sweep.last
        return copied

    whole = with_last(copy(sweep, "whole"))
    lives = Mortality()
    due = whole.ask(request, before=lives)
    # 600 was verified before: with 800 it makes two
    assert (due.checkpoint.step, steps(whole)) == (800, [600, 650, 700, 800])
    for at in range(len(lives.operations)):
        dead = with_last(copy(sweep, "dead"))
        with pytest.raises(DiedError) as death:
            dead.ask(request, before=Mortality(at))
        assert {600, 650, 700, 800} <= set(steps(dead)), death.value
        for number in (request.prepare, request.prepare + 1):
            again = with_last(copy(dead, "again"))
            report = again.ask(replace(request, prepare=number))
            where = f"{death.value}, then prepare {number}"
            assert (report.outcome, report.checkpoint) == (due.outcome, due.checkpoint), where
            assert (steps(again), in_trash(again)) == ([600, 650, 700, 800], []), where


STORY = [
    "save",
    "save",
    "lost answer",
    "save",
    "rot the newest",
    "save",
    "rot the base",
    "idle",
    "save",
    "from an older step",
    "save",
    "adopt",
    "save",
    "rot all",
    "save",
    "save",
    "never",
    "save",
    "idle",
    "lost answer",
    "from an older step",
    "adopt",
    "save",
    "rot the newest",
    "idle",
]


class Story:
    """A run with retention, its events one after the other."""

    def __init__(self, sweep, keep_last):
        self.sweep = sweep
        self.step = 0
        self.owner = OWNER
        self.bounds = {
            "keep_last": keep_last,
            "quarantine_keep_last": 1,
            "on_no_valid_checkpoint": OnNoValidCheckpoint.RESTART_RUN,
        }
        sweep.prepare(**self.bounds)

    def tell(self, event):
        """What happens, and the prepare that follows it."""
        if event != "idle":
            for _ in range(3):
                self.step += 10
                self.sweep.save(self.step)
        if event == "lost answer":
            return self._asked_twice()
        if event == "adopt":
            return self._adopted()
        self._rot(event)
        asked = {"from an older step": {"from_step": self.step - 10}, "never": {"resume": False}}
        return self.sweep.prepare(owner=self.owner, **self.bounds, **asked.get(event, {}))

    def _rot(self, event):
        place = self.sweep.directory() / "checkpoints"
        base = self.sweep.last.checkpoint
        if event == "rot the newest":
            damage(place / f"step-{self.step:09d}.e{self.sweep.epoch}")
        elif event == "rot the base" and base is not None:
            damage(self.sweep.directory() / base.path)
        elif event == "rot all":
            for path in place.glob("step-*"):
                damage(path)

    def _asked_twice(self):
        """The operator never heard the first answer: its pinned checkpoint is that of the answer before."""
        lost = self.sweep.ask(self.sweep.next_request(owner=self.owner, **self.bounds))
        assert lost.outcome is not Outcome.BLOCKED, lost.message
        return self.sweep.prepare(owner=self.owner, prepare=lost.prepare + 1, **self.bounds)

    def _adopted(self):
        """By a SweepRun that knows nothing of the run: nothing is pinned."""
        before, run_id = self.sweep.last, self.sweep.run_id
        self.owner, self.sweep.last = (OTHER if self.owner is OWNER else OWNER), None
        take = adopting(take=run_id, take_epoch=before.epoch)
        return self.sweep.prepare(owner=self.owner, prepare=before.prepare + 1, adoption=take, **self.bounds)


@pytest.mark.parametrize("turn", range(0, len(STORY), 4))
@pytest.mark.parametrize("keep_last", [1, 2])
def test_no_run_ever_misses_a_checkpoint_that_retention_deleted(turn, keep_last, sweep):
    """Each turn begins elsewhere in the story."""
    story = Story(sweep, keep_last)
    for event in [*STORY[turn:], *STORY[:turn]]:
        report = story.tell(event)
        assert report.outcome in (Outcome.RESUME, Outcome.RESTART), (event, report.message)
        assert "left to be deleted" not in report.message
        if event in ("save", "lost answer", "adopt"):
            assert report.checkpoint.step == story.step, event
        if event in ("rot the base", "from an older step", "rot the newest"):
            assert report.checkpoint.step >= story.step - 10, event
        if report.checkpoint is not None:
            assert (sweep.directory() / report.checkpoint.path).is_dir()
