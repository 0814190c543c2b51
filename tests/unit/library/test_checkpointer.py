"""A checkpoint is there whole or not at all, and holds everything that training goes on from."""

from __future__ import annotations

import collections
import enum
import json
import shutil
from dataclasses import replace

import numpy
import pytest
import torch

from support.training import DIRECTORY, RUN, Rig, checkpointer, claims, pinned_to, unpinned
from support.volume_checkpoints import context_at
from sweeprun_protocol.layout import step_name
from sweeprun_trainer import commit, state
from sweeprun_trainer.agreement import NotAgreedError
from sweeprun_trainer.state import check_names
from sweeprun_volume import hashing
from sweeprun_volume.formats import Refused
from sweeprun_volume.formats.own import OwnFormat


class Killed(BaseException):
    """The process ends here."""


def judged(root, step, epoch=1):
    """The verdict of prepare, which reads every byte."""
    context = context_at(root, run_id=RUN, seconds=30)
    return OwnFormat().check(context, f"{DIRECTORY}/{step_name(step, epoch)}", step=step, epoch=epoch)


def found(root):
    return sorted(path.name for path in (root / DIRECTORY).glob("step-*"))


def leftovers(root):
    return sorted(path.name for path in (root / DIRECTORY).glob(".*"))


def test_what_is_committed_passes_the_check_of_prepare(tmp_path):
    rig = Rig()
    assert checkpointer(tmp_path, rig).save(7)
    assert judged(tmp_path, 7).digest.startswith("sha256:")
    manifest = json.loads((tmp_path / DIRECTORY / step_name(7, 1) / "manifest.json").read_text())
    names = {file["path"] for file in manifest["files"]}
    assert names == {"model.pt", "optimizer.pt", "loader-rank-0.pt", "rng-rank-0.pt"}
    assert (manifest["step"], manifest["epoch"], manifest["worldSize"], manifest["resumable"]) == (7, 1, 1, True)
    assert leftovers(tmp_path) == []


def test_a_restored_run_goes_on_bit_for_bit(tmp_path):
    rig = Rig()
    for _ in range(5):
        rig.step()
    checkpointer(tmp_path, rig).save(5)
    expected = [rig.step() for _ in range(20)]

    other = Rig(seed=99)
    assert checkpointer(tmp_path, other, pinned=pinned_to(tmp_path, 5)).restore() == 5
    assert [other.step() for _ in range(20)] == expected
    assert other.loader.value == rig.loader.value
    for name, value in rig.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.parametrize("part", ["model", "optimizer", "loader", "rng"])
def test_no_part_of_the_state_is_needless(tmp_path, part, monkeypatch):
    """The twin of the test above: without one part, training goes on differently."""
    rig = Rig()
    for _ in range(5):
        rig.step()
    checkpointer(tmp_path, rig).save(5)
    expected = [rig.step() for _ in range(20)], rig.loader.value
    other = Rig(seed=99)
    restored = checkpointer(tmp_path, other, pinned=pinned_to(tmp_path, 5))
    restored._items = [item for item in restored._items if not item.file.startswith(part)]
    restored.restore()
    assert ([other.step() for _ in range(20)], other.loader.value) != expected


def test_an_iterator_made_after_restore_draws_and_the_random_state_is_set_once_more(tmp_path):
    checkpointer(tmp_path, Rig()).save(1)
    expected = torch.rand(3)
    restored = checkpointer(tmp_path, Rig(seed=2), pinned=pinned_to(tmp_path, 1))
    restored.restore()
    torch.rand(1)  # as iter(DataLoader) does
    shutil.rmtree(tmp_path / DIRECTORY)  # one rank alone may not see its volume any more: no rank may fail here
    restored.restore_random_state()
    assert torch.equal(torch.rand(3), expected)


def test_without_a_pinned_checkpoint_nothing_is_restored_whatever_lies_there(tmp_path):
    checkpointer(tmp_path, Rig()).save(7)
    assert checkpointer(tmp_path, Rig(), pinned=unpinned(epoch=2)).restore() == 0


def test_a_step_that_is_committed_is_not_written_again(tmp_path):
    rig = Rig()
    saved = checkpointer(tmp_path, rig)
    assert saved.save(3)
    before = judged(tmp_path, 3).digest
    rig.step()
    assert saved.save(3)
    assert judged(tmp_path, 3).digest == before


def operations_of_a_save(root):
    """The second one in its directory."""
    seen = []
    assert checkpointer(root, Rig()).save(1)
    assert checkpointer(root, Rig(), before=lambda operation, path: seen.append((operation, path))).save(2)
    return seen


def test_a_save_that_is_killed_anywhere_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    count = len(operations_of_a_save(tmp_path / "counted"))
    assert count > 20
    for number in range(count):
        root = tmp_path / str(number)
        rig = Rig()
        assert checkpointer(root, rig).save(1)
        remaining = iter(range(number))

        def before(operation, path, remaining=remaining):
            if next(remaining, None) is None:
                raise Killed

        with pytest.raises(Killed):
            checkpointer(root, rig, before=before).save(2)
        judged(root, 1)
        for name in found(root):
            judged(root, int(name.split(".")[0][5:]))
        # the next epoch sweeps what lies about, and commits
        heir = checkpointer(root, rig, pinned=pinned_to(root, 1))
        assert heir.restore() == 1
        assert leftovers(root) == []
        assert heir.save(2)
        judged(root, 2, epoch=2)


@pytest.mark.parametrize("operation", ["create", "write", "fsync", "link", "rename", "mkdir"])
def test_a_volume_that_fails_costs_the_checkpoint_and_not_the_training(tmp_path, operation, capfd):
    rig = Rig()
    assert checkpointer(tmp_path, rig).save(1)
    broken = True

    def before(name, path):
        if broken and name == operation:
            raise OSError(28, "No space left on device")

    saved = checkpointer(tmp_path, rig, before=before)
    assert not saved.save(2)
    assert "No space left on device" in capfd.readouterr().err
    assert found(tmp_path) == [step_name(1, 1)]
    broken = False
    assert saved.save(3)
    assert judged(tmp_path, 3).digest


def test_an_attempt_whose_run_was_claimed_by_another_commits_nothing(tmp_path, capfd):
    rig = Rig()
    zombie = checkpointer(tmp_path, rig)
    claims(tmp_path).mkdir()
    (claims(tmp_path) / "000002.json").write_text("{}")
    assert not zombie.save(5)
    assert found(tmp_path) == []
    assert "epoch 2 was claimed" in capfd.readouterr().err


def test_its_twin_with_the_claim_that_is_its_own_commits(tmp_path):
    claims(tmp_path).mkdir()
    (claims(tmp_path) / "000001.json").write_text("{}")
    assert checkpointer(tmp_path, Rig()).save(5)


def damage_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("model.pt", damage_a_bit, "model.pt is not what was written"),
        ("rng-rank-0.pt", lambda path: path.unlink(), "rng-rank-0.pt"),
        ("optimizer.pt", lambda path: path.write_bytes(path.read_bytes()[:-1]), "optimizer.pt is not what was written"),
        ("optimizer.pt", lambda path: path.write_bytes(path.read_bytes() + b"x"), "optimizer.pt is not what was"),
        ("manifest.json", damage_a_bit, "was pinned"),
        ("manifest.json", lambda path: path.unlink(), "is not there"),
    ],
)
def test_a_checkpoint_that_is_not_what_was_pinned_is_not_loaded(tmp_path, file, spoil, said, capfd):
    checkpointer(tmp_path, Rig()).save(5)
    pinned = pinned_to(tmp_path, 5)
    spoil(tmp_path / pinned.path / file)
    with pytest.raises(NotAgreedError, match=said):
        checkpointer(tmp_path, Rig(), pinned=pinned).restore()
    assert "no rank trains" in capfd.readouterr().err


def test_another_number_of_ranks_is_refused_with_the_reason(tmp_path, monkeypatch):
    checkpointer(tmp_path, Rig()).save(5)
    restored = checkpointer(tmp_path, Rig(), pinned=pinned_to(tmp_path, 5))
    restored._ranks.world = 2
    monkeypatch.setattr(restored._ranks, "gather", lambda value: [value, value])
    with pytest.raises(NotAgreedError, match="written by 1 ranks, 2 are here"):
        restored.restore()


def test_a_state_that_needs_arbitrary_code_is_not_loaded(tmp_path, monkeypatch):
    rig = Rig()
    rig.loader = Holder({"object": Rig})
    monkeypatch.setattr(state, "_require_readable", lambda file, found: None)  # as if somebody else had written it
    assert checkpointer(tmp_path, rig).save(5)
    with pytest.raises(NotAgreedError, match=r"loader-rank-0\.pt cannot be loaded"):
        checkpointer(tmp_path, rig, pinned=pinned_to(tmp_path, 5)).restore()


@pytest.mark.parametrize("name", ["../escape", "rng", "a/b", "", "x-rank-1"])
def test_names_of_parts_are_plain_and_free(name):
    with pytest.raises(ValueError, match="cannot name a part"):
        check_names([name])


def test_damage_is_seen_by_prepare_too(tmp_path):
    checkpointer(tmp_path, Rig()).save(5)
    damage_a_bit(tmp_path / DIRECTORY / step_name(5, 1) / "model.pt")
    with pytest.raises(Refused, match=r"model\.pt"):
        judged(tmp_path, 5)


class Colour(enum.Enum):
    RED = 1


class Holder:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return self.value

    def load_state_dict(self, state_dict):
        self.value = state_dict


UNREADABLE = {
    "numpy scalar": {"best": numpy.float64(0.5)},
    "numpy key": {numpy.int64(3): 1},
    "deep": {"a": [({"b": numpy.float32(1)},)]},
    "defaultdict": collections.defaultdict(list),
    "enumeration": [Colour.RED],
    "function": {"fn": print},
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_a_state_that_could_never_be_read_back_is_not_committed(tmp_path, value, capfd):
    rig = Rig()
    rig.loader = Holder(value)
    assert not checkpointer(tmp_path, rig).save(5)
    assert "loader-rank-0.pt could not be read back" in capfd.readouterr().err
    assert found(tmp_path) == leftovers(tmp_path) == []


READABLE = {
    "ordered": collections.OrderedDict(a=torch.ones(2, dtype=torch.bfloat16)),
    "empty": {},
    "numbers": {"a": [1, -2.5, float("inf"), True, None, 1 << 80], (1, 2): b"x", "c": 1j},
    "size and dtype": {"shape": torch.Size([2, 3]), "dtype": torch.float16, "device": torch.device("cpu")},
    "parameter": [torch.nn.Parameter(torch.zeros(0)), torch.tensor(7)],
}


@pytest.mark.parametrize("value", READABLE.values(), ids=READABLE)
def test_its_twin_is_committed_and_comes_back_the_same(tmp_path, value):
    rig, other = Rig(), Rig()
    rig.loader, other.loader = Holder(value), Holder(None)
    assert checkpointer(tmp_path, rig).save(5)
    checkpointer(tmp_path, other, pinned=pinned_to(tmp_path, 5)).restore()
    assert repr(other.loader.value) == repr(value)
    assert type(other.loader.value) is type(value)


@pytest.mark.parametrize("kind", [numpy.int64, torch.tensor])
def test_a_step_may_be_any_kind_of_integer(tmp_path, kind):
    saved = checkpointer(tmp_path, Rig())
    assert saved.save(kind(5))
    assert saved.save(5)
    assert judged(tmp_path, 5).digest


def test_a_step_that_no_name_can_hold_is_not_committed(tmp_path, capfd):
    assert not checkpointer(tmp_path, Rig()).save(-1)
    assert "cannot be the step" in capfd.readouterr().err
    assert found(tmp_path) == []


def test_whatever_rank_0_runs_into_is_told_and_not_raised(tmp_path, monkeypatch, capfd):
    """The others wait for it."""

    def fail(*_, **__):
        raise ValueError("unheard of")

    monkeypatch.setattr(commit, "later_claim", fail)
    assert not checkpointer(tmp_path, Rig()).save(5)
    assert "unheard of" in capfd.readouterr().err
    assert found(tmp_path) == leftovers(tmp_path) == []


def test_whatever_a_rank_runs_into_when_it_verifies_is_a_vote(tmp_path, monkeypatch):
    checkpointer(tmp_path, Rig()).save(5)
    restored = checkpointer(tmp_path, Rig(), pinned=pinned_to(tmp_path, 5))

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(restored._place.volume, "read_at", fail)
    with pytest.raises(NotAgreedError, match="rank 0: MemoryError"):
        restored.restore()


def test_ranks_at_different_steps_commit_nothing(tmp_path, monkeypatch, capfd):
    saved = checkpointer(tmp_path, Rig())
    monkeypatch.setattr(saved._ranks, "gather", lambda told: [told, replace(told, step=told.step + 1)])
    assert not saved.save(5)
    assert "different steps, [5, 6]" in capfd.readouterr().err
    assert found(tmp_path) == []


def test_ranks_whose_images_hash_differently_agree_on_what_all_can(tmp_path, monkeypatch):
    if not hashing.HAS_XXHASH:
        pytest.skip("needs xxhash")
    saved = checkpointer(tmp_path, Rig())
    gather = saved._ranks.gather

    def with_another(told):
        return gather(told) + ([replace(told, algorithm="blake2b-128")] if hasattr(told, "algorithm") else [])

    monkeypatch.setattr(saved._ranks, "gather", with_another)
    assert saved.save(5)
    manifest = json.loads((tmp_path / DIRECTORY / step_name(5, 1) / "manifest.json").read_text())
    assert manifest["algorithm"] == "blake2b-128"
    assert judged(tmp_path, 5).digest


def test_the_tracker_is_told_the_code_when_no_rank_trains(tmp_path):
    checkpointer(tmp_path, Rig()).save(5)
    pinned = pinned_to(tmp_path, 5)
    damage_a_bit(tmp_path / pinned.path / "model.pt")
    codes = []
    with pytest.raises(NotAgreedError):
        checkpointer(tmp_path, Rig(), pinned=pinned, leave=codes.append).restore()
    assert codes == [87]


def test_a_file_that_does_not_show_as_long_as_it_was_written_is_not_committed(tmp_path, monkeypatch, capfd):
    def longer(*args, **settings):
        return replace(written := state.write_state(*args, **settings), size=written.size + 1)

    monkeypatch.setattr(commit, "write_state", longer)
    assert not checkpointer(tmp_path, Rig()).save(5)
    assert "does not show with its" in capfd.readouterr().err
    assert found(tmp_path) == []


def test_a_checkpoint_names_the_one_before_it(tmp_path):
    def parent(step, epoch):
        manifest = json.loads((tmp_path / DIRECTORY / step_name(step, epoch) / "manifest.json").read_text())
        return manifest.get("parentStep")

    saved = checkpointer(tmp_path, Rig())
    assert saved.save(1)
    assert saved.save(2)
    heir = checkpointer(tmp_path, Rig(), pinned=pinned_to(tmp_path, 2))
    assert heir.save(3)
    assert [parent(1, 1), parent(2, 1), parent(3, 2)] == [None, 1, 2]


def test_the_random_state_is_restored_last(tmp_path):
    class Drawing(Holder):
        def load_state_dict(self, state_dict):
            torch.rand(1)

    rig, other = Rig(), Rig(seed=2)
    rig.loader, other.loader = Holder({}), Drawing({})
    checkpointer(tmp_path, rig).save(1)
    expected = torch.rand(3)
    checkpointer(tmp_path, other, pinned=pinned_to(tmp_path, 1)).restore()
    assert torch.equal(torch.rand(3), expected)
