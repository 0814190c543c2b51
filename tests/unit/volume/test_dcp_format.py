"""Directories of torch.distributed.checkpoint, by the real torch: committed, whole and nothing of them executed."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from support.dcp_checkpoints import REAL, copied, metadata_of, rewrite_metadata, write_dcp_samples
from support.volume_checkpoints import context_at, flip, saved, zero
from sweeprun_protocol.reasons import Format, Level, Outcome, RefusalReason
from sweeprun_volume.errors import OutOfTimeError
from sweeprun_volume.formats import Context, Refused, Sighting, dcp, dcp_items, dcp_metadata
from sweeprun_volume.formats.dcp import DcpFormat, plan_directory
from sweeprun_volume.formats.dcp_metadata import read_metadata
from sweeprun_volume.formats.dcp_tiling import Corners
from sweeprun_volume.formats.pickle_memo import Held
from sweeprun_volume.formats.pickle_tokens import Limits
from sweeprun_volume.formats.zip_directory import Source
from sweeprun_volume.operations import Entry, Volume

LEVELS = (Level.FULL, Level.FAST)
WEIGHTS = {"weights", "bare-weights", "idle-rank", "idle-threads"}
RANKS = {"ranks-2": 2, "ranks-4": 4, "grid": 4, "no-collectives": 2, "async": 2, "idle-rank": 2, "fsdp": 2}


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Checkpoints of the real torch by name; read only."""
    directory = tmp_path_factory.mktemp("dcp")
    write_dcp_samples(directory)
    return directory


def check(checkpoint: Path, **asked):
    return DcpFormat().check(
        context_at(checkpoint.parent, **{"resumable_only": False, **asked}), checkpoint.name, step=0, epoch=0
    )


def refusal(checkpoint: Path, **asked):
    with pytest.raises(Refused) as refused:
        check(checkpoint, **asked)
    return refused.value


def only(directory: Path) -> Path:
    (found,) = directory.iterdir()
    return found


# -- what is whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", REAL)
def test_a_checkpoint_of_torch_passes(name, level, samples):
    checkpoint = only(samples / name)
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    checked = check(checkpoint, level=level)
    assert checked.world_size == RANKS.get(name, 1)
    if level is Level.FAST:
        assert (checked.digest, checked.contents, checked.bytes, checked.uncovered) == (None, None, 0, size)
    else:
        assert checked.bytes == size
        assert [file.path for file in checked.contents.files] == sorted(os.listdir(checkpoint))
        assert 0 < checked.uncovered <= size


@pytest.mark.parametrize("name", sorted(set(REAL) - {"unchecked", "transformed"}))
def test_the_tensors_of_every_item_are_covered_by_its_crcs(name, samples):
    checkpoint = only(samples / name)
    checked = check(checkpoint)
    payload = 0
    for file in [".metadata"] if (checkpoint / ".metadata").exists() else sorted(checkpoint.glob("__*.metadata")):
        for item in metadata_of(checkpoint, getattr(file, "name", file)).state_dict_metadata.values():
            for chunk in getattr(item, "chunks", ()):
                payload += math.prod(chunk.sizes) * item.properties.dtype.itemsize
    assert checked.note == ""
    assert checked.bytes - checked.uncovered >= payload


@pytest.mark.parametrize("name", ["unchecked", "transformed"])
def test_items_without_crcs_pass_and_the_note_says_what_would_go_unseen(name, samples):
    checkpoint = only(samples / name)
    checked = check(checkpoint)
    count = len(metadata_of(checkpoint).storage_data)
    assert f"{count} of {count} items of __0_0.distcp carry no CRCs" in checked.note
    assert checked.uncovered == checked.bytes


def test_an_item_that_is_no_archive_is_counted_as_uncovered(samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path)
    where = place_of(checkpoint, "step")
    damage(checkpoint, lambda data: data[: where.offset] + b"r" * where.length + data[where.offset + where.length :])
    assert "1 of 46 items" in check(checkpoint).note


@pytest.mark.parametrize("name", REAL)
def test_what_holds_weights_only_is_passed_over_where_no_format_was_chosen(name, samples):
    checkpoint = only(samples / name)
    if name in WEIGHTS:
        assert refusal(checkpoint, resumable_only=True).reason is RefusalReason.NOT_RESUMABLE
    else:
        assert check(checkpoint, resumable_only=True).digest
    assert check(checkpoint, resumable_only=False).digest


def test_a_file_of_torch_beside_weights_may_hold_the_rest(samples, tmp_path):
    checkpoint = copied(samples, "weights", tmp_path)
    (checkpoint / "state.pt").write_bytes(saved({"step": 1}))
    assert check(checkpoint, resumable_only=True).digest


def test_other_files_belong_to_the_digest(samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "notes").mkdir()
    (checkpoint / "notes" / "a.bin").write_text("no archive of torch.save")
    one = check(checkpoint)
    (checkpoint / "config.json").write_text("[]")
    assert {"config.json", "notes/a.bin"} <= {file.path for file in one.contents.files}
    assert check(checkpoint).digest != one.digest


def test_a_part_of_another_checkpoint_is_planned_under_its_name(samples, tmp_path):
    copied(samples, "plain", tmp_path / "checkpoint-5").rename(tmp_path / "checkpoint-5" / "optimizer_0")
    context = context_at(tmp_path, resumable_only=False)
    planned = plan_directory(context, "checkpoint-5/optimizer_0", "optimizer_0/")
    assert [plan.name for plan in planned.plans] == ["optimizer_0/.metadata", "optimizer_0/__0_0.distcp"]
    assert planned.plans[1].spans[0].entry.startswith("optimizer_0/__0_0.distcp:")
    (tmp_path / "checkpoint-5/optimizer_0/__0_0.distcp").unlink()
    with pytest.raises(Refused) as refused:
        plan_directory(context, "checkpoint-5/optimizer_0", "optimizer_0/")
    assert refused.value.entry == "optimizer_0/__0_0.distcp"


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(checkpoint, change, name="__0_0.distcp"):
    path = checkpoint / name
    path.write_bytes(change(path.read_bytes()))


def place_of(checkpoint, key):
    """Where the first chunk of a key lies."""
    return next(info for index, info in metadata_of(checkpoint).storage_data.items() if index.fqn == key)


def payload_of(checkpoint, key="big"):
    where = place_of(checkpoint, key)
    return where.offset + where.length // 2


def storage(metadata, key):
    return next(info for index, info in metadata.storage_data.items() if index.fqn == key)


def _shift(metadata):
    storage(metadata, "model.0.weight").offset += 1


def _forget(metadata):
    index = next(index for index in metadata.storage_data if index.fqn == "big")
    del metadata.storage_data[index]


def _shorten(metadata):
    """The item is too short for its tensor; what was cut belongs to the next one."""
    places = sorted(metadata.storage_data.values(), key=lambda info: info.offset)
    at = next(n for n, info in enumerate(places) if info is storage(metadata, "big"))
    places[at].length -= 50_000
    places[at + 1].offset -= 50_000
    places[at + 1].length += 50_000


def _lead_out(metadata):
    for info in metadata.storage_data.values():
        info.relative_path = "../outside"


def _name_twice(metadata):
    metadata.storage_data[MetadataIndex("ghost", None)] = _StorageInfo("__0_0.distcp", 0, 5)


def _cut_hole(metadata):
    metadata.state_dict_metadata["big"].size = torch.Size([201, 100])


def _overlap(metadata):
    chunks = metadata.state_dict_metadata["big"].chunks
    chunks.append(ChunkStorageMetadata(torch.Size([199, 0]), torch.Size([1, 100])))
    info = storage(metadata, "big")
    info.length -= 500
    added = _StorageInfo("__0_0.distcp", info.offset + info.length, 500)
    metadata.storage_data[MetadataIndex("big", torch.Size([199, 0]))] = added


def changed(change):
    return lambda checkpoint: rewrite_metadata(checkpoint, change)


def sharded(change, name="__0_0.distcp"):
    return lambda checkpoint: damage(checkpoint, lambda data: change(data, checkpoint), name)


DAMAGE = {
    "a shard is missing": (lambda at: (at / "__0_0.distcp").unlink(), "FileMissing", "__0_0.distcp"),
    "a shard is one byte short": (sharded(lambda data, _: data[:-1]), "Truncated", "__0_0.distcp"),
    "a shard is 8 kB short": (sharded(lambda data, _: data[:-8192]), "Truncated", "__0_0.distcp"),
    "a shard is empty": (sharded(lambda data, _: b""), "Truncated", "__0_0.distcp"),
    "a shard is longer": (sharded(lambda data, _: data + bytes(512)), "SizeMismatch", "__0_0.distcp"),
    "a shard of another save": (
        lambda at: (at / "__7_0.distcp").write_bytes(b"x"),
        "FileExtra",
        "__7_0.distcp",
    ),
    "no metadata": (lambda at: (at / ".metadata").unlink(), "NoManifest", ".metadata"),
    "metadata that was never renamed": (
        lambda at: (at / ".metadata").rename(at / ".metadata.tmp"),
        "NoManifest",
        ".metadata.tmp",
    ),
    "another save was begun over it": (
        lambda at: (at / ".metadata.tmp").write_bytes(b""),
        "NoManifest",
        ".metadata.tmp",
    ),
    "metadata cut in half": (
        lambda at: damage(at, lambda data: data[: len(data) // 2], ".metadata"),
        "Truncated",
        ".metadata",
    ),
    "empty metadata": (lambda at: damage(at, lambda data: b"", ".metadata"), "Truncated", ".metadata"),
    "metadata of zeros": (lambda at: damage(at, lambda data: bytes(len(data)), ".metadata"), "StructureInvalid", None),
    "zeros behind the metadata": (
        lambda at: damage(at, lambda data: data + bytes(10), ".metadata"),
        "StructureInvalid",
        ".metadata",
    ),
    "another pickle for metadata": (
        lambda at: (at / ".metadata").write_bytes(pickle.dumps({"a": 1})),
        "StructureInvalid",
        ".metadata",
    ),
    "an interval that leaves a hole": (changed(_shift), "StructureInvalid", "__0_0.distcp"),
    "a chunk that is in no file": (changed(_forget), "StructureInvalid", ".metadata"),
    "an item shorter than its tensor": (changed(_shorten), "SizeMismatch", "__0_0.distcp"),
    "an item that nobody described": (changed(_name_twice), "StructureInvalid", ".metadata"),
    "a name that leads out": (changed(_lead_out), "FileMissing", "../outside"),
    "a tensor with a hole": (changed(_cut_hole), "StructureInvalid", None),
    "chunks that overlap": (changed(_overlap), "StructureInvalid", None),
    "a pipe beside": (lambda at: os.mkfifo(at / "pipe"), "NotARegularFile", "pipe"),
    "a link in the place of a shard": (
        lambda at: ((at / "__0_0.distcp").rename(at / "x"), (at / "__0_0.distcp").symlink_to(at / "x")),
        "NotARegularFile",
        "__0_0.distcp",
    ),
}
INSIDE = {
    "one bit in tensor data": (sharded(lambda data, at: flip(data, payload_of(at))), "CrcMismatch"),
    "512 zeros in tensor data": (sharded(lambda data, at: zero(data, payload_of(at), 512)), "CrcMismatch"),
    "one bit in the name of an entry": (
        sharded(lambda data, at: flip(data, place_of(at, "big").offset + 30)),
        "StructureInvalid",
    ),
    "the end of an item's archive": (
        sharded(lambda data, at: zero(data, place_of(at, "big").offset + place_of(at, "big").length - 22, 22)),
        "Truncated",
    ),
    "zeros where a tensor begins": (
        sharded(lambda data, at: zero(data, place_of(at, "big").offset, 4096)),
        "StructureInvalid",
    ),
    "zeros in the place of an object": (
        sharded(lambda data, at: zero(data, place_of(at, "step").offset, place_of(at, "step").length)),
        "StructureInvalid",
    ),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("make", "reason", "entry"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_torn_is_refused_with_its_reason_and_file(make, reason, entry, level, samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path)
    assert check(checkpoint, level=level)
    make(checkpoint)
    found = refusal(checkpoint, level=level)
    assert found.reason == reason, found.message
    assert entry is None or found.entry == entry


@pytest.mark.parametrize(("make", "reason"), INSIDE.values(), ids=INSIDE.keys())
def test_damage_inside_a_shard_is_refused_with_its_item_and_offset(make, reason, samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path)
    make(checkpoint)
    found = refusal(checkpoint)
    assert found.reason == reason, found.message
    assert re.match(r"__0_0\.distcp:(big|step)", found.entry)
    where = place_of(checkpoint, found.entry.split(":")[1])
    assert where.offset <= found.offset < where.offset + where.length
    assert check(checkpoint, level=Level.FAST), "contents are not looked at there"


def test_every_sampled_bit_of_every_tensor_counts(samples, tmp_path):
    checkpoint = copied(samples, "ranks-2", tmp_path)
    rng = random.Random(3)
    for name in ("__0_0.distcp", "__1_0.distcp"):
        whole = (checkpoint / name).read_bytes()
        planned = plan_directory(context_at(tmp_path, resumable_only=False), "step-500", "")
        (spans,) = [plan.spans for plan in planned.plans if plan.name == name]
        for span in spans:
            offset = span.offset + rng.randrange(span.size)
            (checkpoint / name).write_bytes(flip(whole, offset, rng.randrange(8)))
            found = refusal(checkpoint)
            assert (found.reason, found.entry) == (RefusalReason.CRC_MISMATCH, span.entry)
        (checkpoint / name).write_bytes(whole)
    assert check(checkpoint)


def test_a_missing_shard_of_any_rank_is_seen(samples, tmp_path):
    for rank in range(4):
        checkpoint = copied(samples, "ranks-4", tmp_path / str(rank))
        (checkpoint / f"__{rank}_0.distcp").unlink()
        assert refusal(checkpoint).entry == f"__{rank}_0.distcp"


def test_a_shard_of_another_step_is_seen(samples, tmp_path):
    checkpoint = copied(samples, "ranks-2", tmp_path)
    other = only(samples / "fsdp") / "__1_0.distcp"
    (checkpoint / "__1_0.distcp").write_bytes(other.read_bytes())
    assert refusal(checkpoint).reason in (RefusalReason.SIZE_MISMATCH, RefusalReason.TRUNCATED)


@pytest.mark.parametrize(
    ("gone", "reason", "entry"),
    [
        (["__1.metadata"], "NoManifest", "__1.metadata"),
        (["__0.metadata"], "NoManifest", "__0.metadata"),
        (["__0.metadata", "__1.metadata"], "NoManifest", ".metadata"),
        (["__1_0.distcp"], "FileMissing", "__1_0.distcp"),
        (["__1_0.distcp", "__1.metadata"], "StructureInvalid", None),
    ],
)
def test_without_collectives_every_rank_has_ended_its_save(gone, reason, entry, samples, tmp_path):
    """The last case: a rank of which nothing is left, but the tensors of the other have holes."""
    checkpoint = copied(samples, "no-collectives", tmp_path)
    assert check(checkpoint)
    for name in gone:
        (checkpoint / name).unlink()
    found = refusal(checkpoint)
    assert (found.reason, found.entry) == (reason, entry)


def test_a_directory_of_lightning_has_its_own_part_beside(samples, tmp_path):
    checkpoint = copied(samples, "lightning", tmp_path)
    meta = checkpoint / "meta.pt"
    data = meta.read_bytes()
    meta.write_bytes(flip(data, data.index(b"global_step")))
    found = refusal(checkpoint)
    assert (found.reason, found.entry) == (RefusalReason.CRC_MISMATCH, "meta.pt:meta/data.pkl")
    meta.unlink()
    assert refusal(checkpoint).reason is RefusalReason.FILE_MISSING


def test_damage_of_the_metadata_is_seen_against_what_was_recorded(samples, tmp_path):
    """One bit of a name in planner_data: no structure tells of it."""
    checkpoint = copied(samples, "plain", tmp_path)
    whole = check(checkpoint)
    damage(checkpoint, lambda data: flip(data, data.index(b"save_id") + 12, 0), ".metadata")
    assert check(checkpoint).digest != whole.digest
    context = context_at(tmp_path, resumable_only=False)
    known = Context(**{**context.__dict__, "known": whole.contents})
    with pytest.raises(Refused) as refused:
        DcpFormat().check(known, "step-500", step=0, epoch=0)
    assert (refused.value.reason, refused.value.entry) == (RefusalReason.DIGEST_MISMATCH, ".metadata")


# -- what is hostile ---------------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _in_place_of_metadata(checkpoint, trap):
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Malicious(trap)))


def _in_planner_data(checkpoint, trap):
    rewrite_metadata(checkpoint, lambda metadata: metadata.planner_data.update(trap=Malicious(trap)))


def _in_storage_data(checkpoint, trap):
    rewrite_metadata(checkpoint, lambda metadata: metadata.storage_data.update({Malicious(trap): Malicious(trap)}))


def _in_an_item(checkpoint, trap):
    """The last item of the shard is another one."""
    metadata = metadata_of(checkpoint)
    last = max(metadata.storage_data.values(), key=lambda info: info.offset)
    item = saved({"trap": Malicious(trap)})
    damage(checkpoint, lambda data: data[: last.offset] + item)

    def tell(metadata):
        max(metadata.storage_data.values(), key=lambda info: info.offset).length = len(item)

    rewrite_metadata(checkpoint, tell)


def _beside(checkpoint, trap):
    (checkpoint / "meta.pt").write_bytes(saved({"trap": Malicious(trap)}))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("put", "passes"),
    [
        (_in_place_of_metadata, False),
        (_in_planner_data, True),
        (_in_storage_data, False),
        (_in_an_item, True),
        (_beside, True),
    ],
)
def test_a_malicious_pickle_is_never_executed(put, passes, level, samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path / "volume")
    trap = str(tmp_path / "executed")
    put(checkpoint, trap)
    if passes:
        assert check(checkpoint, level=level)
    else:
        assert refusal(checkpoint, level=level).reason is RefusalReason.STRUCTURE
    assert not os.path.exists(trap)


def test_the_trap_would_have_been_seen(samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path / "volume")
    _in_planner_data(checkpoint, str(tmp_path / "executed"))
    metadata_of(checkpoint)
    assert os.path.exists(tmp_path / "executed")


def _absurd_shape(metadata):
    metadata.state_dict_metadata["big"].size = torch.Size([1 << 60, 1 << 60])


def _absurd_offset(metadata):
    storage(metadata, "big").offset = 1 << 61


def _endless_offset(metadata):
    storage(metadata, "big").offset = 1 << 4000


def _absurd_chunk(metadata):
    metadata.state_dict_metadata["big"].chunks[0].sizes = torch.Size([1 << 62, 1])


def _other_dimensions(metadata):
    metadata.state_dict_metadata["big"].chunks[0].sizes = torch.Size([1] * 3)


def _many_dimensions(metadata):
    metadata.state_dict_metadata["big"].size = torch.Size([1] * 100)


def _shared_tuples(metadata):
    """As a key: its hash would take longer than the universe lasts."""
    value = ()
    for _ in range(60):
        value = (value, value)
    metadata.state_dict_metadata = {Keyed(value): 1}


class Keyed:
    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return Keyed, (self.value,)


@pytest.mark.parametrize(
    "change",
    [
        _absurd_shape,
        _absurd_offset,
        _endless_offset,
        _absurd_chunk,
        _other_dimensions,
        _many_dimensions,
        _shared_tuples,
    ],
)
def test_absurd_numbers_cost_nothing(change, samples, tmp_path):
    checkpoint = copied(samples, "plain", tmp_path)
    rewrite_metadata(checkpoint, change)
    began = time.process_time()
    assert refusal(checkpoint).reason in (RefusalReason.STRUCTURE, RefusalReason.SIZE_MISMATCH)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("module", "name", "bound"),
    [(dcp, "MAX_METADATA_BYTES", 2000), (dcp_metadata, "MAX_ITEMS", 20), (dcp_items, "MAX_SPANS", 50)],
)
def test_what_exceeds_a_bound_is_refused(module, name, bound, samples, monkeypatch):
    monkeypatch.setattr(module, name, bound)
    assert refusal(only(samples / "plain")).reason is RefusalReason.LIMIT_EXCEEDED


def test_without_time_there_is_no_verdict(samples):
    with pytest.raises(OutOfTimeError):
        check(only(samples / "plain"), seconds=-1)


@pytest.mark.parametrize("name", ["plain", "ranks-2", "fsdp"])
def test_changed_metadata_ends_in_a_verdict_and_nothing_else(name, samples, tmp_path):
    checkpoint = copied(samples, name, tmp_path)
    whole = (checkpoint / ".metadata").read_bytes()
    rng = random.Random(name)
    began = time.process_time()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(Refused):
            (checkpoint / ".metadata").write_bytes(data)
            check(checkpoint, level=Level.FAST)
    assert time.process_time() - began < 60


@given(st.binary(max_size=200))
def test_any_bytes_for_metadata_are_refused(data):
    with pytest.raises(Refused):
        read_metadata(Held(b"\x80\x04" + data), ".metadata", Limits())


class Changing:
    """Metadata that somebody writes while it is read."""

    def __init__(self, monkeypatch, path):
        read, self.reads = Source.read, 0

        def reading(source, offset, size):
            if source.path.endswith(path.name):
                self.reads += 1
                if self.reads == 2:
                    data = path.read_bytes()
                    path.write_bytes(data[:200] + bytes(len(data) - 200))
                    os.utime(path, ns=(1, 1))
            return read(source, offset, size)

        monkeypatch.setattr(Source, "read", reading)


@pytest.mark.parametrize("level", LEVELS)
def test_metadata_that_changes_between_its_two_readings_is_no_damage(level, samples, tmp_path, monkeypatch):
    checkpoint = copied(samples, "plain", tmp_path)
    changing = Changing(monkeypatch, checkpoint / ".metadata")
    assert refusal(checkpoint, level=level).reason is RefusalReason.CHANGED
    assert changing.reads >= 2


def test_the_order_in_which_metadata_tells_does_not_matter(samples, tmp_path):
    checkpoint = copied(samples, "ranks-4", tmp_path)
    whole = check(checkpoint)

    def turn(metadata):
        fields = dict(reversed(metadata.__dict__.items()))
        fields["storage_data"] = dict(reversed(metadata.storage_data.items()))
        metadata.__dict__.clear()
        metadata.__dict__.update(fields)

    rewrite_metadata(checkpoint, turn)
    assert list(metadata_of(checkpoint).__dict__)[-1] == "state_dict_metadata"
    turned = check(checkpoint)
    covered = turned.bytes - turned.uncovered
    assert (covered, turned.note, turned.world_size) == (whole.bytes - whole.uncovered, whole.note, whole.world_size)
    rewrite_metadata(checkpoint, _forget_one)
    assert refusal(checkpoint).reason is RefusalReason.STRUCTURE


def _forget_one(metadata):
    del metadata.storage_data[next(index for index in metadata.storage_data if index.fqn == "rows")]


def test_the_memory_for_metadata_is_small_beside_what_unpickling_takes():
    """A tenth: names and numbers of each item."""
    metadata = many_items(10_000)
    data = pickle.dumps(metadata)
    del metadata
    used = []
    for act in (lambda: read_metadata(Held(data), ".metadata", Limits()), lambda: pickle.loads(data)):
        tracemalloc.start()
        kept = act()
        used.append((tracemalloc.get_traced_memory()[0], tracemalloc.get_traced_memory()[1]))
        del kept
        tracemalloc.stop()
    (kept, peak), (other, _) = used
    assert kept < other / 5
    assert peak < other / 2


def many_items(count):
    tensors, places = {}, {}
    for number in range(count):
        key = f"model.layers.{number}.attention.wq.weight"
        chunk = ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([8, 8]))
        tensors[key] = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size([8, 8]), [chunk])
        places[MetadataIndex(key, chunk.offsets, 0)] = _StorageInfo("__0_0.distcp", number * 500, 500)
    return Metadata(tensors, {key: (key,) for key in tensors}, places)


# -- tiling ------------------------------------------------------------------------------------------------------------


def _covers(shape, chunks):
    """By counting every element."""
    counts = torch.zeros(shape, dtype=torch.int)
    for offsets, sizes in chunks:
        if any(at + size > extent for at, size, extent in zip(offsets, sizes, shape, strict=True)) and 0 not in sizes:
            return False
        counts[tuple(slice(at, at + size) for at, size in zip(offsets, sizes, strict=True))] += 1
    return bool((counts == 1).all())


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(st.data())
def test_tiling_says_what_counting_says(data):
    shape = data.draw(SHAPES)
    box = st.tuples(
        st.tuples(*(st.integers(0, extent) for extent in shape)),
        st.tuples(*(st.integers(0, extent) for extent in shape)),
    )
    chunks = data.draw(st.lists(box, max_size=5))
    assert Corners().tiles(shape, chunks) == _covers(shape, chunks)


@given(st.data())
def test_a_box_that_is_cut_again_and_again_is_tiled_and_without_a_piece_it_is_not(data):
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple))
    chunks = [((0,) * len(shape), shape)]
    for _ in range(data.draw(st.integers(0, 6))):
        offsets, sizes = chunks.pop(data.draw(st.integers(0, len(chunks) - 1)))
        axis = data.draw(st.integers(0, len(shape) - 1))
        at = data.draw(st.integers(0, sizes[axis]))
        chunks.append((offsets, (*sizes[:axis], at, *sizes[axis + 1 :])))
        behind = (*offsets[:axis], offsets[axis] + at, *offsets[axis + 1 :])
        chunks.append((behind, (*sizes[:axis], sizes[axis] - at, *sizes[axis + 1 :])))
    assert Corners().tiles(shape, chunks)
    solid = [chunk for chunk in chunks if 0 not in chunk[1]]
    assert not Corners().tiles(shape, solid[1:])
    assert not Corners().tiles(shape, [*solid, solid[0]])


def test_chunks_that_are_cut_in_too_many_dimensions_are_not_counted():
    shape = (2,) * 40
    with pytest.raises(Refused) as refused:
        Corners().tiles(shape, [((0,) * 40, (1,) * 40), ((1,) * 40, (1,) * 40)])
    assert refused.value.reason is RefusalReason.LIMIT_EXCEEDED


# -- finding, and through prepare --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-500", 500),
        ("checkpoint_step500", 500),
        ("iter_0000500", 500),
        ("epoch=1-step=20.ckpt", 20),
        ("epoch=1-step=20-v1.ckpt", 20),
        ("step.500", 500),
        ("latest", 0),
    ],
)
@pytest.mark.parametrize("part", [".metadata", ".metadata.tmp", "__0.metadata", "__3.metadata.tmp", "__0_0.distcp"])
def test_a_directory_with_a_part_of_a_save_is_recognised_and_its_name_tells_the_step(name, step, part):
    sighting = Sighting(Volume("/"), name, Entry(name, "directory"), [Entry("x", "file"), Entry(part, "file")])
    assert DcpFormat().recognise(sighting).step == step


@pytest.mark.parametrize(
    "listing", [None, [], [Entry("model.pt", "file")], [Entry(".metadata", "directory")], [Entry("x.metadata", "file")]]
)
def test_what_has_no_part_of_a_save_is_none(listing):
    assert DcpFormat().recognise(Sighting(Volume("/"), "x", Entry("x", "directory"), listing)) is None


def test_the_newest_whole_checkpoint_is_resumed_from_and_a_torn_one_set_aside(sweep, samples):
    sweep.prepare()
    place = sweep.directory() / "checkpoints"
    copied(samples, "ranks-2", place)
    copied(samples, "plain", place / "x").rename(place / "step-600")
    (place / "x").rmdir()
    (place / "step-600" / ".metadata").unlink()
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint.step, report.checkpoint.format) == (Outcome.RESUME, 500, Format.DCP)
    assert [(item.path, item.reason) for item in report.refused] == [
        ("checkpoints/step-600", RefusalReason.NO_MANIFEST)
    ]
    assert not (place / "step-600").exists()
    assert (place / "step-500").exists()
