"""The walk that finds checkpoints: each one once whatever its format, none of its parts, and nothing that is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.safetensors_checkpoints import safetensors, tensor
from support.volume_checkpoints import own_checkpoint, saved
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import Format
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError, VolumeError
from sweeprun_volume.formats import finding
from sweeprun_volume.formats.finding import MAX_DEPTH, MAX_PATH, find_checkpoints
from sweeprun_volume.operations import Volume

STATE = saved({"step": 5, "optimizer": {"state": {}}})
WEIGHTS = safetensors({"w": tensor(0, 8)}, bytes(8))


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "run" / "checkpoints"
    directory.mkdir(parents=True)
    return directory


def find(place, chosen=Format.AUTO):
    return find_checkpoints(Volume(str(place.parent.parent)), RunLayout("run"), "checkpoints", chosen)


def names(place, chosen=Format.AUTO):
    return sorted(item.path.partition("/")[2] for item in find(place, chosen))


def put(place, name, data=STATE):
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def trainer(place, step):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        put(place, f"checkpoint-{step}/{name}")
    put(place, f"checkpoint-{step}/model.safetensors", WEIGHTS)
    put(place, f"checkpoint-{step}/trainer_state.json", b"{}")
    put(place, f"checkpoint-{step}/global_step{step}/mp_rank_00_model_states.pt")


def mixed(place):
    own_checkpoint(place, run_id="run-1", step=100, epoch=1)
    trainer(place, 200)
    put(place, "dcp/step-300/.metadata", b"x")
    put(place, "dcp/step-300/__0_0.distcp", b"x")
    put(place, "dcp/step-300/extra.pt")
    put(place, "weights/step-400/model.safetensors.index.json", b"{}")
    put(place, "weights/step-400/model-00001-of-00002.safetensors", WEIGHTS)
    put(place, "weights/step-450.safetensors", WEIGHTS)
    put(place, "torch/step-500.pt")
    put(place, "lightning/epoch=1-step=600.ckpt", saved({"pytorch-lightning_version": "2.5", "global_step": 600}))
    put(place, "notes/readme.txt", b"x")


MIXED = {
    "step-000000100.e1": (Format.SWEEPRUN, 100),
    "checkpoint-200": (Format.HUGGING_FACE, 200),
    "dcp/step-300": (Format.DCP, 300),
    "weights/step-400": (Format.SAFETENSORS, 400),
    "weights/step-450.safetensors": (Format.SAFETENSORS, 450),
    "torch/step-500.pt": (Format.TORCH, 500),
    "lightning/epoch=1-step=600.ckpt": (Format.LIGHTNING, 600),
}


def test_every_checkpoint_of_a_mixed_tree_is_found_once_with_its_format_and_step(place):
    mixed(place)
    found = find(place)
    assert {item.path.partition("/")[2]: (item.format, item.step) for item in found} == MIXED
    assert len(found) == len(MIXED)


@pytest.mark.parametrize("chosen", [Format.SWEEPRUN, Format.HUGGING_FACE, Format.DCP, Format.LIGHTNING])
def test_a_format_that_was_chosen_sees_its_own_alone(chosen, place):
    mixed(place)
    assert names(place, chosen) == [name for name, (kind, _) in MIXED.items() if kind is chosen]


def test_foreign_checkpoints_come_with_facts_and_ours_without(place):
    mixed(place)
    facts = {item.format: item.facts for item in find(place)}
    assert facts.pop(Format.SWEEPRUN) is None
    assert all(told is not None and told.size > 0 for told in facts.values())
    assert facts[Format.TORCH].size == len(STATE)


def test_the_facts_of_a_directory_change_with_any_of_its_files(place):
    trainer(place, 200)
    (before,) = find(place)
    put(place, "checkpoint-200/global_step200/mp_rank_00_model_states.pt", STATE + b"x")
    (after,) = find(place)
    assert after.facts.size == before.facts.size + 1
    assert not after.facts.same_content(before.facts)


def test_our_own_format_lies_directly_in_the_checkpoint_directory(place):
    own_checkpoint(place / "copies", run_id="run-1", step=100, epoch=1)
    put(place, "copies/step-5.pt")
    assert names(place) == ["copies/step-5.pt"]


def test_ours_is_found_by_its_name_and_nothing_is_looked_for_in_it(place):
    put(place, "step-000000100.e1/step-5.pt")
    (place / "step-000000200.e1").symlink_to("/nowhere")
    assert [(item.format, item.step, item.epoch) for item in sorted(find(place), key=lambda item: item.step)] == [
        (Format.SWEEPRUN, 100, 1),
        (Format.SWEEPRUN, 200, 1),
    ]


def test_hidden_entries_are_passed_over(place):
    put(place, ".step-5.pt")
    put(place, ".staging-5-e1-abc/step-5.pt")
    put(place, ".cache/checkpoint-5/trainer_state.json", b"{}")
    assert names(place) == []
    put(place, "step-5.pt")
    assert names(place) == ["step-5.pt"]


def test_links_are_passed_over_to_files_and_to_directories(place, tmp_path):
    target = put(place, "step-5.pt")
    outside = put(tmp_path / "outside", "step-900.pt")
    trainer(place, 6)
    (place / "last.ckpt").symlink_to(target)
    (place / "checkpoint-7").symlink_to(place / "checkpoint-6")
    (place / "more").symlink_to(outside.parent)
    (place / "loop").symlink_to(place)
    assert names(place) == ["checkpoint-6", "step-5.pt"]


def test_what_is_no_file_under_a_checkpoints_name_is_found_to_be_refused(place):
    os.mkfifo(place / "step-5.pt")
    os.mkfifo(place / "step-6.safetensors")
    os.mkfifo(place / "checkpoint-7")
    found = {item.path.partition("/")[2]: item.facts for item in find(place)}
    assert found == {"step-5.pt": None, "step-6.safetensors": None}


def test_trainers_staging_directory_and_its_arguments_are_no_checkpoints(place):
    """Each part of the former is a whole file of torch.save, and so are the latter."""
    trainer(place, 7)
    (place / "checkpoint-7").rename(place / "tmp-checkpoint-7")
    put(place, "training_args.bin")
    assert names(place) == []
    trainer(place, 6)
    assert names(place) == ["checkpoint-6"]


def test_directories_that_are_no_checkpoint_are_looked_into(place):
    put(place, "a/b/c/step-5.pt")
    trainer(place / "run-1" / "trial-2", 8)
    assert names(place) == ["a/b/c/step-5.pt", "run-1/trial-2/checkpoint-8"]


def test_nothing_is_looked_for_below_the_deepest_level(place):
    deepest = "/".join(["d"] * (MAX_DEPTH - 1))
    put(place, f"{deepest}/step-5.pt")
    put(place, f"{deepest}/d/step-6.pt")
    assert names(place) == [f"{deepest}/step-5.pt"]


def test_more_entries_than_are_looked_at_are_told_and_no_part_of_the_answer_is_given(place, monkeypatch):
    for step in range(3):
        put(place, f"more/step-{step}.pt")
    monkeypatch.setattr(finding, "MAX_FOUND", 4)
    assert len(find(place)) == 3
    monkeypatch.setattr(finding, "MAX_FOUND", 3)
    with pytest.raises(TooManyEntriesError):
        find(place)


def _with_length(place, length, character):
    """A checkpoint whose path, as records carry it, has so many characters."""
    left = length - len(json.dumps("checkpoints/"))
    each = len(json.dumps(character)) - 2
    parts = []
    while left > 160:
        count = 80 // each
        parts.append(character * count)
        left -= count * each + 1
    put(place, "/".join([*parts, "x" * (left - len(".pt")) + ".pt"]))


@pytest.mark.parametrize("character", ["d", "\u00e9"])
def test_a_path_that_no_record_carries_is_told(character, place, monkeypatch):
    monkeypatch.setattr(finding, "MAX_DEPTH", 100)
    _with_length(place, MAX_PATH, character)
    (found,) = find(place)
    assert len(json.dumps(found.path)) == MAX_PATH
    _with_length(place, MAX_PATH + 1, character)
    with pytest.raises(UnsafeEntryError, match="move it away"):
        find(place)


def test_a_name_that_is_no_utf8_is_found_to_be_refused(place):
    with open(os.fsencode(place) + b"/\xff-5.pt", "wb") as stream:
        stream.write(STATE)
    assert [item.step for item in find(place)] == [5]


def test_nothing_there_is_no_error_and_a_missing_volume_is(place, tmp_path):
    assert find(place) == []
    place.rmdir()
    assert find(place) == []
    with pytest.raises(VolumeError):
        find_checkpoints(Volume(str(tmp_path / "not-mounted")), RunLayout("run"), "checkpoints", Format.AUTO)


def test_a_checkpoint_directory_that_is_a_link_is_not_followed(place, tmp_path):
    put(tmp_path / "outside", "step-5.pt")
    place.rmdir()
    place.symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeEntryError):
        find(place)


def test_the_walk_leaves_the_tree_as_it_is(place):
    mixed(place)
    before = {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")}
    find(place)
    assert {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")} == before
