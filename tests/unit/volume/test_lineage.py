"""Which checkpoints count: late commits and abandoned branches never do, however high their step."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.volume_checkpoints import saved
from support.volume_crash import DiedError
from support.volume_sweep import Sweep
from sweeprun_protocol.reasons import Outcome, StartReason
from sweeprun_volume.lineage import kept
from sweeprun_volume.operations import Volume


def test_a_late_commit_of_an_older_epoch_is_never_read(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.prepare()
    zombie = sweep.save(900, epoch=1)
    sweep.save(200)
    report = sweep.prepare()
    assert (report.checkpoint.step, report.checkpoint.epoch) == (200, 2)
    assert sweep.prepare().checkpoint.step == 200
    assert zombie.exists(), "it is not ours to delete"


def test_a_branch_abandoned_by_a_requested_step_is_never_read(sweep):
    sweep.prepare()
    for step in (100, 200, 300):
        sweep.save(step)
    assert sweep.prepare(from_step=150).checkpoint.step == 100
    sweep.save(150)
    assert sweep.prepare().checkpoint.step == 150
    assert sweep.prepare(from_step=120).checkpoint.step == 100
    assert sweep.prepare().checkpoint.step == 100


def test_a_branch_abandoned_by_a_walk_back_is_never_read_even_if_it_heals(sweep):
    sweep.prepare()
    sweep.save(100)
    damaged = sweep.save(200)
    whole = (damaged / "model.pt").read_bytes()
    (damaged / "model.pt").write_bytes(whole[:-1])
    assert sweep.prepare().checkpoint.step == 100
    (moved,) = (path for path in (sweep.directory() / "quarantine").iterdir() if path.is_dir())
    (moved / "model.pt").write_bytes(whole)
    moved.rename(damaged)
    assert sweep.prepare().checkpoint.step == 100


def test_of_a_sealed_set_only_what_is_at_or_below_the_base_is_inherited(sweep):
    sweep.prepare()
    for step in (100, 200):
        sweep.save(step)
    sweep.prepare()
    sealed = sweep.decision(2)
    assert [ref.step for ref in sealed.eligible] == [200, 100]
    lower = replace(sealed, base=sealed.eligible[1])
    assert [ref.step for ref in kept(lower).values()] == [100]
    assert kept(replace(sealed, base=None)) == {}


def test_an_epoch_that_was_claimed_and_never_decided_changes_nothing(sweep):
    """Its prepare was blocked: no attempt ran in it, and the epoch before is still the last one that wrote."""
    sweep.prepare()
    sweep.save(100)
    request = sweep.next_request()
    blocked = sweep.ask(sweep.next_request(from_step=1))
    assert blocked.outcome is Outcome.BLOCKED
    sweep.save(150, epoch=1)
    report = sweep.ask(sweep.next_request(prepare=request.prepare + 1))
    assert (report.epoch, report.checkpoint.step) == (3, 150)


def test_older_checkpoints_stay_in_reserve_across_epochs(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.save(200)
    sweep.prepare()
    newest = sweep.save(300)
    sweep.prepare()
    (newest / "model.pt").unlink()
    (sweep.directory() / "checkpoints" / "step-000000200.e1" / "model.pt").unlink()
    report = sweep.prepare()
    assert (report.outcome, report.reason, report.checkpoint.step) == (
        Outcome.RESUME,
        StartReason.WALKED_BACK,
        100,
    )
    assert [item.path.rpartition("/")[2] for item in report.refused] == ["step-000000300.e2", "step-000000200.e1"]


def test_a_foreign_file_of_an_abandoned_branch_is_not_read_and_one_written_anew_is(sweep):
    sweep.prepare()
    for step in (100, 200, 300):
        sweep.put(f"step-{step}.pt", saved({"step": step}))
    assert sweep.prepare(from_step=150).checkpoint.step == 100
    assert sweep.prepare().checkpoint.step == 100
    sweep.put("step-200.pt", saved({"step": 200, "anew": True}))
    report = sweep.prepare()
    assert (report.checkpoint.step, report.checkpoint.epoch) == (200, 3)


def test_what_a_prepare_saw_that_died_before_it_decided_is_not_what_its_retry_saw(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    request = sweep.next_request()

    def dies(operation, path):
        if path.endswith("decision.json"):
            raise DiedError(path)

    with pytest.raises(DiedError):
        sweep.ask(request, before=dies)
    sweep.put("step-200.pt", saved({"step": 200}))
    assert sweep.prepare(from_step=150).checkpoint.step == 100
    assert len(list((sweep.directory() / "epochs" / "2").glob("foreign-*.json"))) == 2
    assert sweep.prepare().checkpoint.step == 100, "step 200 was there when epoch 2 was decided: nobody committed it"


def test_where_training_code_commits_with_a_manifest_its_other_files_are_no_checkpoints(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.put("best-900.pt", saved({"step": 900}))
    assert sweep.prepare().checkpoint.step == 100


def test_a_commit_that_a_listing_lacks_is_found_by_the_name_that_the_end_records_tell(sweep, monkeypatch):
    """Network file systems list late."""
    sweep.prepare()
    sweep.save(100)
    sweep.starts()
    sweep.ends(told_to_stop=True, last_step=200)
    newest = sweep.save(200).name
    listed = Volume.entries
    monkeypatch.setattr(
        Volume,
        "entries",
        lambda self, path, **limit: [item for item in listed(self, path, **limit) if item.name != newest],
    )
    assert sweep.prepare().checkpoint.step == 200


def test_a_step_that_was_reached_and_not_committed_is_no_checkpoint(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.starts()
    sweep.ends(told_to_stop=True, last_step=170)
    assert sweep.prepare().checkpoint.step == 100


def test_a_checkpoint_still_in_its_staging_directory_does_not_exist(sweep):
    sweep.prepare()
    sweep.save(100)
    whole = sweep.save(200)
    whole.rename(whole.parent / ".staging-200-e1-abc")
    assert sweep.prepare().checkpoint.step == 100


# -- any history -------------------------------------------------------------------------------------------------------

Save = st.tuples(st.just("save"), st.integers(1, 40))
Zombie = st.tuples(st.just("zombie"), st.integers(1, 40))
Damage = st.tuples(st.just("damage"), st.integers(0, 5))
Prepare = st.tuples(st.just("prepare"), st.none() | st.integers(1, 40))


class Model:
    """The rule, told a second time in the simplest words: the path of commits that the current attempt stands on."""

    def __init__(self) -> None:
        self.path: dict[tuple[int, int], bool] = {}
        """(step, epoch) -> whole, of everything that may be read."""

    def start(self, limit: int | None) -> tuple[int, int] | None:
        readable = sorted((key for key in self.path if limit is None or key[0] <= limit), reverse=True)
        base = next((key for key in readable if self.path[key]), None)
        if base is None:
            return None
        self.path = {key: whole for key, whole in self.path.items() if key <= base and key[0] <= base[0]}
        return base


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(Save | Zombie | Damage | Prepare, max_size=10))
def test_in_any_history_the_base_lies_on_the_path_of_the_attempts_before_it(history):
    with tempfile.TemporaryDirectory() as directory:
        sweep, model = Sweep(Path(directory)), Model()
        sweep.prepare()
        for word, number in [*history, ("prepare", None)]:
            place = sweep.directory() / "checkpoints"
            if word == "save" and not (place / f"step-{number:09d}.e{sweep.epoch}").exists():
                sweep.save(number)
                model.path[number, sweep.epoch] = True
            elif word == "zombie" and sweep.epoch > 1:
                late = place / f"step-{number:09d}.e{sweep.epoch - 1}"
                moved = list((sweep.directory() / "quarantine").glob(f"*{late.name}*"))
                if not late.exists() and not moved:
                    sweep.save(number, epoch=sweep.epoch - 1)
            elif word == "damage" and model.path:
                step, epoch = sorted(model.path)[number % len(model.path)]
                (place / f"step-{step:09d}.e{epoch}" / "model.pt").write_bytes(b"torn")
                model.path[step, epoch] = False
            elif word == "prepare":
                request = sweep.next_request(from_step=number)
                before = dict(model.path)
                report = sweep.ask(request)
                base = model.start(number)
                if base is not None:
                    assert report.checkpoint is not None, (report.message, before)
                    assert (report.checkpoint.step, report.checkpoint.epoch) == base
                elif number is not None:
                    assert report.outcome is Outcome.BLOCKED, (report.message, before)
                    sweep.last = replace(sweep.last, prepare=report.prepare)
                    continue
                elif before:
                    assert report.outcome is Outcome.FRESH, report.message
                    return
                else:
                    assert report.outcome is Outcome.RESTART, report.message
                sweep.last = report
