"""`checkpoint-<step>` by the real Trainer: whole ones pass, and whatever is lost, torn or damaged is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support.huggingface_checkpoints import shard_as_deepspeed, shard_as_fsdp, write_trainer_samples
from support.safetensors_checkpoints import safetensors, tensor
from support.volume_checkpoints import context_at, flip, largest_entry, rewrite, saved, zero
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import Format, Level, Outcome, RefusalReason
from sweeprun_volume.formats import Refused, Sighting, huggingface
from sweeprun_volume.formats.finding import find_checkpoints
from sweeprun_volume.formats.huggingface import HuggingFaceFormat
from sweeprun_volume.operations import DIRECTORY, FILE, Entry, Volume

STATE = "trainer_state.json"
VETO = "checkpoint-is-incomplete.txt"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trainer")
    write_trainer_samples(directory)
    return directory


@pytest.fixture(scope="module")
def fsdp(samples, tmp_path_factory):
    place = tmp_path_factory.mktemp("fsdp") / "checkpoint-2"
    shutil.copytree(samples / "ranks" / "checkpoint-2", place)
    shard_as_fsdp(place)
    return place


@pytest.fixture(scope="module")
def deepspeed(samples, tmp_path_factory):
    place = tmp_path_factory.mktemp("deepspeed") / "checkpoint-2"
    shutil.copytree(samples / "ranks" / "checkpoint-2", place)
    shard_as_deepspeed(place, step=2, ranks=2)
    return place


@pytest.fixture
def whole(samples, tmp_path):
    return copied(samples / "whole" / "checkpoint-2", tmp_path)


def copied(place, to):
    return Path(shutil.copytree(place, to / place.name))


def check(place, **asked):
    return HuggingFaceFormat().check(
        context_at(place.parent, **asked), place.name, step=int(place.name.rpartition("-")[2]), epoch=0
    )


def refusal(place, **options):
    with pytest.raises(Refused) as refused:
        check(place, **options)
    return refused.value


def size_of(place):
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


WHOLE = {"whole": 1, "sharded": 1, "ranks": 2}


@pytest.mark.parametrize(("name", "world_size"), WHOLE.items())
def test_what_trainer_wrote_is_read_whole_and_passes(name, world_size, samples):
    place = samples / name / "checkpoint-2"
    checked = check(place)
    assert (checked.world_size, checked.bytes, checked.digest) == (world_size, size_of(place), checked.contents.digest)
    model = sum(path.stat().st_size for path in place.glob("*.safetensors"))
    torch_files = sum(path.stat().st_size for path in place.iterdir() if path.suffix in (".pt", ".pth", ".bin"))
    assert model < checked.uncovered < checked.bytes - 0.9 * torch_files
    assert "safetensors carries no checksums" in checked.note


def test_that_a_last_rank_may_be_lost_is_said(samples):
    assert "2 random states" in check(samples / "ranks" / "checkpoint-2").note
    assert "random states" not in check(samples / "whole" / "checkpoint-2").note


@pytest.mark.parametrize("name", WHOLE)
def test_fast_reads_structure_only(name, samples):
    checked = check(samples / name / "checkpoint-2", level=Level.FAST)
    assert (checked.digest, checked.bytes, checked.world_size) == (None, 0, WHOLE[name])
    assert "contents were not" in checked.note


def test_a_save_that_was_stopped_is_vetoed_by_its_own_word(samples, tmp_path):
    place = copied(samples / "stopped" / "checkpoint-3", tmp_path)
    assert (refusal(place).reason, refusal(place).entry) == (RefusalReason.NO_MANIFEST, VETO)
    (place / VETO).unlink()
    assert (refusal(place).reason, refusal(place).entry) == (RefusalReason.NO_MANIFEST, STATE)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere")])
def test_the_veto_counts_whatever_it_is(make, whole):
    assert check(whole)
    make(whole / VETO)
    found = refusal(whole)
    assert (found.reason, "never finished" in found.message) == (RefusalReason.NO_MANIFEST, True)


def test_weights_alone_are_passed_over_unless_the_format_was_chosen(samples):
    place = samples / "weights" / "checkpoint-2"
    found = refusal(place)
    assert (found.reason, "save_only_model" in found.message) == (RefusalReason.NOT_RESUMABLE, True)
    checked = check(place, resumable_only=False)
    assert (checked.bytes, checked.world_size) == (size_of(place), None)
    assert "weights only" in checked.note


# -- damage ------------------------------------------------------------------------------------------------------------


def change(name, damage):
    return lambda place: rewrite(place / name, damage((place / name).read_bytes()))


def remove(name):
    return lambda place: (place / name).unlink()


def replaced(name, make):
    def damage(place):
        (place / name).unlink()
        make(place / name)

    return damage


def in_payload(data):
    return flip(data, largest_entry(data).offset + 100)


def state(**changes):
    def damage(place):
        told = json.loads((place / STATE).read_bytes())
        (place / STATE).write_text(json.dumps({**told, **changes}))

    return damage


def without_step(place):
    told = json.loads((place / STATE).read_bytes())
    told.pop("global_step")
    (place / STATE).write_text(json.dumps(told))


SEEN_BY_FAST = {
    "no state": (remove(STATE), "NoManifest", STATE),
    "a torn state": (change(STATE, lambda data: data[:200]), "Truncated", STATE),
    "an empty state": (change(STATE, lambda data: b""), "Truncated", STATE),
    "a state of zeros": (change(STATE, lambda data: bytes(len(data))), "StructureInvalid", STATE),
    "another step's state": (state(global_step=4), "WrongEpoch", STATE),
    "a state without a step": (without_step, "WrongEpoch", STATE),
    "a step that is no number": (state(global_step="2"), "StructureInvalid", STATE),
    "a step that is not a number": (state(global_step=float("nan")), "StructureInvalid", STATE),
    "a step with a fraction": (state(global_step=2.0), "StructureInvalid", STATE),
    "a negative step": (state(global_step=-2), "StructureInvalid", STATE),
    "two steps": (change(STATE, lambda data: b'{"global_step":4,' + data[1:]), "StructureInvalid", STATE),
    "a state that is a list": (change(STATE, lambda data: b"[2]"), "StructureInvalid", STATE),
    "a deep state": (change(STATE, lambda data: b'{"x":' + b"[" * 100_000), "LimitExceeded", STATE),
    "something behind the state": (change(STATE, lambda data: data + b"}"), "StructureInvalid", STATE),
    "no model": (remove("model.safetensors"), "FileMissing", None),
    "a model one byte short": (change("model.safetensors", lambda data: data[:-1]), "Truncated", "model.safetensors"),
    "an empty model": (change("model.safetensors", lambda data: b""), "Truncated", "model.safetensors"),
    "no optimizer": (remove("optimizer.pt"), "FileMissing", "optimizer.pt"),
    "no scheduler": (remove("scheduler.pt"), "FileMissing", "scheduler.pt"),
    "no random state": (remove("rng_state.pth"), "FileMissing", "rng_state.pth"),
    "half an optimizer": (change("optimizer.pt", lambda data: data[:99_999]), "Truncated", "optimizer.pt"),
    "an optimizer of zeros": (change("optimizer.pt", lambda data: bytes(len(data))), "UnknownFormat", "optimizer.pt"),
    "an empty scheduler": (change("scheduler.pt", lambda data: b""), "Truncated", "scheduler.pt"),
    "torn arguments": (change("training_args.bin", lambda data: data[:-1]), "Truncated", "training_args.bin"),
    "a scaler that is none": (lambda place: (place / "scaler.pt").write_bytes(b"x" * 99), "UnknownFormat", "scaler.pt"),
    "a torn config": (change("config.json", lambda data: data[:99]), "Truncated", "config.json"),
    "a link": (
        replaced("scheduler.pt", lambda path: path.symlink_to("/etc/passwd")),
        "NotARegularFile",
        "scheduler.pt",
    ),
    "a FIFO": (replaced("rng_state.pth", os.mkfifo), "NotARegularFile", "rng_state.pth"),
    "a directory for a file": (replaced("optimizer.pt", Path.mkdir), "FileMissing", "optimizer.pt"),
    "a directory for the state": (replaced(STATE, Path.mkdir), "NoManifest", STATE),
}
SEEN_BY_CRC = {
    name: (change(name, in_payload), "CrcMismatch", name)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
}


@pytest.mark.parametrize(("damage", "reason", "entry"), SEEN_BY_FAST.values(), ids=SEEN_BY_FAST.keys())
def test_what_is_missing_or_torn_is_refused_at_either_level(damage, reason, entry, whole):
    damage(whole)
    for level in Level:
        found = refusal(whole, level=level)
        assert (found.reason, found.entry) == (reason, entry), found.message


@pytest.mark.parametrize(("damage", "reason", "entry"), SEEN_BY_CRC.values(), ids=SEEN_BY_CRC.keys())
def test_a_flipped_bit_in_a_torch_file_is_refused(damage, reason, entry, whole):
    damage(whole)
    found = refusal(whole)
    assert (found.reason, found.entry.partition(":")[0]) == (reason, entry), found.message


UNCOVERED = ("model.safetensors", "config.json", STATE, "notes.txt", "tokenizer.bin")


@pytest.mark.parametrize("name", UNCOVERED)
def test_later_damage_where_nothing_has_a_checksum_is_seen_against_the_first_look(name, whole):
    (whole / "notes.txt").write_text("spaces   and words")
    (whole / "tokenizer.bin").write_bytes(b"pieces     of words")
    known = check(whole).contents
    assert check(whole, known=known).digest == known.digest
    data = (whole / name).read_bytes()
    at = len(data) - 2 if name == "model.safetensors" else data.rindex(b" ")
    rewrite(whole / name, data[:at] + (b"\t" if data[at] == 0x20 else b"\1") + data[at + 1 :], keep_time=True)
    assert check(whole).digest != known.digest
    found = refusal(whole, known=known)
    assert (found.reason, found.entry) == (RefusalReason.DIGEST_MISMATCH, name)


def test_a_file_that_came_or_went_since_the_first_look_is_seen(whole):
    known = check(whole).contents
    (whole / "new.txt").touch()
    assert refusal(whole, known=known).reason is RefusalReason.FILE_EXTRA
    (whole / "new.txt").unlink()
    (whole / "generation_config.json").unlink()
    assert refusal(whole, known=known).reason is RefusalReason.FILE_MISSING


def test_losses_that_are_no_numbers_are_no_damage(whole):
    """Trainer logs what it got: NaN and Infinity, as Python writes them."""
    state(log_history=[{"loss": float("nan"), "grad_norm": float("inf"), "step": 1}], best_metric=float("-inf"))(whole)
    assert b"NaN" in (whole / STATE).read_bytes()
    assert check(whole).bytes


def test_a_state_beyond_its_bound_is_refused_before_it_is_read(whole, monkeypatch):
    size = (whole / STATE).stat().st_size
    monkeypatch.setattr(huggingface, "MAX_STATE_BYTES", size)
    assert check(whole).bytes
    monkeypatch.setattr(huggingface, "MAX_STATE_BYTES", size - 1)
    assert refusal(whole).reason is RefusalReason.LIMIT_EXCEEDED


def test_a_torch_file_without_crcs_passes_and_is_named(whole, torch_samples):
    (whole / "scheduler.pt").write_bytes(torch_samples["unchecked.pt"])
    assert "scheduler.pt: the file carries no CRCs" in check(whole).note


def test_a_file_of_no_concern_may_hold_anything(whole):
    """Its suffix alone makes no torch file of it."""
    (whole / "spiece.bin").write_bytes(b"\x80\x02 no archive")
    (whole / "custom.pt").write_bytes(b"")
    assert check(whole).bytes == size_of(whole)
    (whole / "custom.pt").write_bytes(saved({})[:-1])
    assert refusal(whole).entry == "custom.pt"


# -- parts of the model ------------------------------------------------------------------------------------------------


def test_a_part_of_the_model_lost_is_refused(samples, tmp_path):
    place = copied(samples / "sharded" / "checkpoint-2", tmp_path)
    assert check(place)
    part = "model-00002-of-00007.safetensors"
    (place / part).rename(tmp_path / part)
    assert (refusal(place).reason, refusal(place).entry) == (RefusalReason.FILE_MISSING, part)
    (tmp_path / part).rename(place / part)
    (place / "model.safetensors.index.json").unlink()
    found = refusal(place)
    assert (found.reason, "index is missing" in found.message) == (RefusalReason.FILE_MISSING, True)


def test_an_adapter_is_a_model(whole):
    (whole / "model.safetensors").unlink()
    assert refusal(whole).reason is RefusalReason.FILE_MISSING
    adapter = safetensors({"lora_A": tensor(0, 8)}, bytes(8))
    (whole / "default").mkdir()
    for name in ("adapter_model.safetensors", "default/adapter_model.safetensors"):
        (whole / name).write_bytes(adapter)
        assert check(whole).bytes
        (whole / name).write_bytes(adapter[:-1])
        assert (refusal(whole).reason, refusal(whole).entry) == (RefusalReason.TRUNCATED, name)
        (whole / name).unlink()


def test_a_model_of_torch_files_needs_all_that_its_index_names(whole):
    (whole / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1.5e3}, "weight_map": {}}
    for number in (1, 2):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        (whole / name).write_bytes(saved({"w": number}))
        index["weight_map"][f"w{number}"] = name
    assert refusal(whole).reason is RefusalReason.FILE_MISSING
    (whole / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert check(whole).bytes == size_of(whole)
    change("pytorch_model-00002-of-00002.bin", in_payload)(whole)
    assert refusal(whole).reason is RefusalReason.CRC_MISMATCH
    (whole / "pytorch_model-00002-of-00002.bin").unlink()
    assert refusal(whole).reason is RefusalReason.FILE_MISSING


# -- ranks -------------------------------------------------------------------------------------------------------------


def test_a_rank_lost_is_refused(samples, tmp_path):
    place = copied(samples / "ranks" / "checkpoint-2", tmp_path)
    data = (place / "rng_state_1.pth").read_bytes()
    (place / "rng_state_2.pth").write_bytes(data)
    assert check(place).world_size == 3
    (place / "rng_state_1.pth").unlink()
    assert (refusal(place).reason, refusal(place).entry) == (RefusalReason.FILE_MISSING, "rng_state_1.pth")
    (place / "rng_state_2.pth").unlink()
    assert (refusal(place).reason, refusal(place).entry) == (RefusalReason.FILE_MISSING, "rng_state_1.pth")


def test_random_states_of_two_saves_leave_the_ranks_unknown(samples, tmp_path):
    place = copied(samples / "ranks" / "checkpoint-2", tmp_path)
    (place / "rng_state.pth").write_bytes((place / "rng_state_0.pth").read_bytes())
    checked = check(place)
    assert (checked.world_size, "two saves" in checked.note) == (None, True)


def test_a_model_of_fsdp_is_checked_as_dcp(fsdp, tmp_path):
    assert check(fsdp).bytes == size_of(fsdp)
    place = copied(fsdp, tmp_path)
    shard = next((place / "optimizer_0").glob("*.distcp"))
    data = shard.read_bytes()
    rewrite(shard, zero(data, len(data) // 2, 64))
    assert (refusal(place).reason, check(place, level=Level.FAST).digest) == (RefusalReason.CRC_MISMATCH, None)
    rewrite(shard, data[:-1])
    assert refusal(place, level=Level.FAST).reason is RefusalReason.TRUNCATED
    rewrite(shard, data)
    assert check(place).bytes
    (place / "pytorch_model_fsdp_0" / ".metadata").unlink()
    assert refusal(place).reason is RefusalReason.NO_MANIFEST


def test_fsdp_by_files_of_ranks_needs_each(whole):
    data = (whole / "optimizer.pt").read_bytes()
    (whole / "optimizer.pt").unlink()
    for rank in range(3):
        (whole / f"optimizer_0_rank{rank}.bin").write_bytes(data)
    assert check(whole).bytes
    (whole / "optimizer_0_rank1.bin").unlink()
    assert (refusal(whole).reason, refusal(whole).entry) == (RefusalReason.FILE_MISSING, "optimizer_0_rank1.bin")


def test_deepspeed_states_are_torch_files_and_need_no_other_model_or_scheduler(deepspeed):
    checked = check(deepspeed)
    assert (checked.bytes, checked.world_size) == (size_of(deepspeed), 2)
    assert checked.uncovered < checked.bytes / 5


_STEP = "global_step2"
_OPTIMIZER_1 = f"{_STEP}/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
DEEPSPEED_DAMAGE = {
    "the first rank's": (remove(_OPTIMIZER_1.replace("rank_1", "rank_0")), "FileMissing", "rank_0"),
    "one rank of three": (
        lambda place: (place / "rng_state_2.pth").write_bytes((place / "rng_state_1.pth").read_bytes()),
        "FileMissing",
        "rank_2",
    ),
    "a rank more than random states": (
        lambda place: (place / _OPTIMIZER_1.replace("rank_1", "rank_2")).write_bytes(saved({})),
        "FileMissing",
        "rank_3",
    ),
    "a flipped bit": (change(_OPTIMIZER_1, in_payload), "CrcMismatch", _OPTIMIZER_1),
    "no latest": (remove("latest"), "FileMissing", "latest"),
    "an empty latest": (change("latest", lambda data: b""), "Truncated", "latest"),
    "a latest that names another": (change("latest", lambda data: b"global_step3"), "FileMissing", "latest"),
    "a latest that leads out": (change("latest", lambda data: b"../checkpoint-2/" + data), "FileMissing", "latest"),
    "a latest without end": (change("latest", lambda data: b"x" * 10_000), "StructureInvalid", "latest"),
    "no states at all": (lambda place: shutil.rmtree(place / _STEP), "FileMissing", None),
}


@pytest.mark.parametrize(("damage", "reason", "entry"), DEEPSPEED_DAMAGE.values(), ids=DEEPSPEED_DAMAGE.keys())
def test_damage_to_deepspeed_states_is_refused(damage, reason, entry, deepspeed, tmp_path):
    place = copied(deepspeed, tmp_path)
    damage(place)
    found = refusal(place)
    assert found.reason == reason, found.message
    assert entry is None or entry in found.entry


# -- what is a checkpoint of Trainer -----------------------------------------------------------------------------------


def recognised(place):
    volume = Volume(str(place.parent))
    kind = DIRECTORY if place.is_dir() else FILE
    listing = volume.entries(place.name) if place.is_dir() else None
    return HuggingFaceFormat().recognise(Sighting(volume, place.name, Entry(place.name, kind), listing))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("checkpoint-0", 0),
        ("tmp-checkpoint-500", None),
        ("checkpoint-500.tmp", None),
        ("checkpoint-best", None),
        ("checkpoint--5", None),
        ("checkpoint-9999999999999", None),
        ("checkpoint-\u0665", None),
        ("Checkpoint-500", None),
    ],
)
def test_the_name_is_exactly_that_of_trainer(name, step, whole):
    place = whole.rename(whole.parent / name)
    found = recognised(place)
    assert (found.step if found else None) == step


@pytest.mark.parametrize(
    "mark",
    [
        "optimizer.pt",
        "rng_state_1.pth",
        "adapter_model.safetensors",
        "model-00001-of-00003.safetensors",
        VETO,
    ],
)
def test_one_part_makes_the_directory_a_checkpoint_however_torn(mark, tmp_path):
    place = tmp_path / "checkpoint-5"
    place.mkdir()
    (place / "config.json").touch()
    assert recognised(place) is None
    (place / mark).touch()
    assert recognised(place).step == 5
    assert refusal(place).reason is RefusalReason.NO_MANIFEST
    (place / mark).rename(place / STATE)
    assert recognised(place).step == 5


@pytest.mark.parametrize("mark", ["global_step5", "pytorch_model_fsdp_0"])
def test_directories_of_states_are_marks_too(mark, tmp_path):
    (tmp_path / "checkpoint-5" / mark).mkdir(parents=True)
    assert recognised(tmp_path / "checkpoint-5").step == 5


def test_a_file_of_that_name_is_none(tmp_path):
    (tmp_path / "checkpoint-5").touch()
    assert recognised(tmp_path / "checkpoint-5") is None


def test_a_state_of_accelerate_is_passed_over_and_not_put_aside(whole):
    """Scripts without Trainer save so under the same names; nothing in it tells that it is whole."""
    (whole / STATE).unlink()
    (whole / "random_states_0.pkl").write_bytes(b"x")
    assert refusal(whole).reason is RefusalReason.NOT_RESUMABLE


def test_of_what_trainer_leaves_checkpoints_are_found_and_none_of_their_parts(samples):
    found = find_checkpoints(Volume(str(samples)), RunLayout(""), "", Format.AUTO)
    assert sorted((item.format, item.path, item.step) for item in found) == [
        (Format.HUGGING_FACE, "ranks/checkpoint-2", 2),
        (Format.HUGGING_FACE, "sharded/checkpoint-2", 2),
        (Format.HUGGING_FACE, "stopped/checkpoint-3", 3),
        (Format.HUGGING_FACE, "weights/checkpoint-2", 2),
        (Format.HUGGING_FACE, "whole/checkpoint-2", 2),
        (Format.HUGGING_FACE, "whole/checkpoint-4", 4),
    ]


def test_a_run_resumes_from_the_newest_checkpoint_that_is_whole(sweep, samples):
    sweep.prepare()
    place = sweep.directory() / "checkpoints"
    shutil.copytree(samples / "whole", place)
    shutil.copytree(samples / "stopped" / "checkpoint-3", place / "checkpoint-5")
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint.path) == (Outcome.RESUME, "checkpoints/checkpoint-4")
    assert [(item.path, item.reason) for item in report.refused] == [
        ("checkpoints/checkpoint-5", RefusalReason.NO_MANIFEST)
    ]
