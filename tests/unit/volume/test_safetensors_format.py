"""Weights in .safetensors, by the real libraries: headers and indexes are checked; what no checksum covers is said."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.safetensors_checkpoints import (
    edit_header,
    safetensors,
    tensor,
    with_header,
    write_safetensors_samples,
)
from support.volume_checkpoints import context_at, flip, rewrite, saved
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.errors import OutOfTimeError
from sweeprun_volume.formats import Refused, Sighting
from sweeprun_volume.formats import safetensors_header as header_module
from sweeprun_volume.formats.finding import find_checkpoints
from sweeprun_volume.formats.safetensors import SafetensorsFormat
from sweeprun_volume.operations import DIRECTORY, FILE, Entry, Volume

INDEX = "model.safetensors.index.json"
PART = "model-00002-of-00007.safetensors"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    directory = tmp_path_factory.mktemp("safetensors")
    write_safetensors_samples(directory)
    return directory


@pytest.fixture
def every(samples):
    return (samples / "every.safetensors").read_bytes()


@pytest.fixture
def sharded(samples, tmp_path):
    shutil.copytree(samples / "sharded", tmp_path / "sharded")
    return tmp_path / "sharded"


def check(root, path, **asked):
    context = context_at(root, **{"resumable_only": False, **asked})
    return SafetensorsFormat().check(context, path, step=0, epoch=0)


def refusal(root, path, **options):
    with pytest.raises(Refused) as refused:
        check(root, path, **options)
    return refused.value


def file_refusal(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    return refusal(tmp_path, "x.safetensors")


def recognised(root, name):
    place = Path(root) / name
    volume = Volume(str(root))
    if place.is_dir():
        return SafetensorsFormat().recognise(Sighting(volume, name, Entry(name, DIRECTORY), volume.entries(name)))
    return SafetensorsFormat().recognise(Sighting(volume, name, Entry(name, FILE), None))


def size_of(place):
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) or place.stat().st_size


WHOLE = ("every.safetensors", "model-00001-of-00001.safetensors", "sharded", "view", "dcp-one", "dcp-consolidated")


@pytest.mark.parametrize("name", WHOLE)
def test_what_the_libraries_wrote_is_read_whole_and_passes(name, samples):
    checked = check(samples, name)
    assert checked.bytes == checked.uncovered == size_of(samples / name)
    assert checked.digest == checked.contents.digest
    assert "no checksums" in checked.note


@pytest.mark.parametrize("name", WHOLE)
def test_fast_reads_headers_only(name, samples):
    checked = check(samples, name, level=Level.FAST)
    assert (checked.digest, checked.bytes, checked.contents) == (None, 0, None)
    assert "contents were not" in checked.note


@pytest.mark.parametrize("name", WHOLE)
def test_a_flipped_bit_shows_against_the_digest_of_the_first_look_alone(name, samples, tmp_path):
    copy = tmp_path / name
    (shutil.copytree if (samples / name).is_dir() else shutil.copy)(samples / name, copy)
    known = check(tmp_path, name).contents
    victim = max(copy.glob("*.safetensors"), key=lambda path: path.stat().st_size) if copy.is_dir() else copy
    rewrite(victim, flip(victim.read_bytes(), victim.stat().st_size - 3), keep_time=True)
    assert check(tmp_path, name).digest != known.digest
    found = refusal(tmp_path, name, known=known)
    assert (found.reason, found.entry) == (RefusalReason.DIGEST_MISMATCH, victim.name)


def test_sizes_that_the_index_counts_with_the_buffer_are_no_damage(samples):
    """A tensor that is a part of a larger buffer: transformers counts the buffer."""
    index = json.loads((samples / "view" / INDEX).read_bytes())
    held = sum(path.stat().st_size for path in (samples / "view").glob("*.safetensors"))
    assert index["metadata"]["total_size"] > held


def test_the_parts_of_ranks_without_an_index_are_never_judged_complete(samples):
    assert refusal(samples, "dcp-ranks").reason is RefusalReason.NO_MANIFEST
    assert recognised(samples, "dcp-ranks") is not None


# -- one file ----------------------------------------------------------------------------------------------------------


DAMAGE = {
    "empty": (lambda data: b"", "Truncated"),
    "seven bytes": (lambda data: data[:7], "Truncated"),
    "cut in its header": (lambda data: data[:500], "Truncated"),
    "one byte short": (lambda data: data[:-1], "Truncated"),
    "half of it": (lambda data: data[: len(data) // 2], "Truncated"),
    "ten bytes longer": (lambda data: data + bytes(10), "StructureInvalid"),
    "zeros of the same size": (lambda data: bytes(len(data)), "UnknownFormat"),
    "an absurd header length": (lambda data: b"\xff" * 8 + data[8:], "LimitExceeded"),
    "a header length beyond the end": (lambda data: (1 << 20).to_bytes(8, "little") + data[8:], "Truncated"),
    "no JSON": (lambda data: with_header(b"{" + b"x" * 50, b""), "StructureInvalid"),
    "a list": (lambda data: with_header(b"[]   ", b""), "UnknownFormat"),
    "one bit in a dtype": (lambda data: flip(data, data.index(b'"F64"') + 2), "StructureInvalid"),
    "a torch file": (lambda data: saved({}), "LimitExceeded"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_refused_with_its_reason(damage, reason, every, tmp_path):
    found = file_refusal(tmp_path, damage(every))
    assert found.reason == reason, found.message


def test_a_file_cut_anywhere_is_refused(every, tmp_path):
    for size in range(0, len(every), 997):
        assert file_refusal(tmp_path, every[:size]).reason is RefusalReason.TRUNCATED


BIG = 1 << 53
CONTRADICTIONS = {
    "a hole": ({"a": tensor(0, 4), "b": tensor(5, 8)}, "StructureInvalid", "hole"),
    "a hole at the beginning": ({"a": tensor(1, 8)}, "StructureInvalid", "hole"),
    "an overlap": ({"a": tensor(0, 5), "b": tensor(4, 8)}, "StructureInvalid", "overlap"),
    "one tensor twice": ({"a": tensor(0, 8), "b": tensor(0, 8)}, "StructureInvalid", "overlap"),
    "bytes that no tensor has": ({"a": tensor(0, 7)}, "StructureInvalid", "follow"),
    "no tensor at all": ({}, "StructureInvalid", "follow"),
    "an end before its begin": ({"a": tensor(8, 0, shape=[0])}, "StructureInvalid", "before"),
    "a shape that needs more": ({"a": tensor(0, 8, shape=[9])}, "StructureInvalid", "9 elements"),
    "a shape of absurd size": ({"a": tensor(0, 8, shape=[BIG - 1] * 60)}, "StructureInvalid", "elements"),
    "a negative size": ({"a": tensor(0, 8, shape=[-8])}, "StructureInvalid", "integer"),
    "a size that is no number": ({"a": tensor(0, 8, shape=[float("nan")])}, "StructureInvalid", "integer"),
    "a size that is no whole number": ({"a": tensor(0, 8, shape=[8.0])}, "StructureInvalid", "integer"),
    "an unknown dtype": ({"a": tensor(0, 8, "F128")}, "StructureInvalid", "dtype"),
    "half a byte": ({"a": tensor(0, 8, "F4", [17])}, "StructureInvalid", "elements"),
    "offsets beyond the file": ({"a": tensor(0, 9)}, "Truncated", "cut off"),
    "one offset": ({"a": {"dtype": "U8", "shape": [8], "data_offsets": [8]}}, "StructureInvalid", "lacks"),
    "three offsets": ({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8, 8]}}, "LimitExceeded", "items"),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 8]}}, "StructureInvalid", "lacks"),
    "a tensor that is a number": ({"a": 8}, "StructureInvalid", "missing"),
    "a field of its own": ({"a": {**tensor(0, 8), "b": 1}}, "StructureInvalid", "unknown field"),
    "metadata that is no text": ({"__metadata__": {"a": 1}, "b": tensor(0, 8)}, "StructureInvalid", "string"),
    "a name without end": ({"a" * 2000: tensor(0, 8)}, "LimitExceeded", "characters"),
    "dimensions without end": ({"a": tensor(0, 8, shape=[1] * 100)}, "LimitExceeded", "items"),
}


@pytest.mark.parametrize(("header", "reason", "text"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_header_that_contradicts_itself_or_the_file_is_refused(header, reason, text, tmp_path):
    found = file_refusal(tmp_path, safetensors(header, bytes(8)))
    assert found.reason == reason, found.message
    assert text in found.message


def test_what_the_contradictions_are_made_from_passes(tmp_path):
    header = {"__metadata__": {"a": "1"}, "a": tensor(0, 4), "b": tensor(4, 8, "F4", [2, 4]), "c": tensor(8, 8)}
    for text in (json.dumps(header), json.dumps(header, separators=(",", ":")), json.dumps(header, indent=1) + "  "):
        (tmp_path / "x.safetensors").write_bytes(with_header(text.encode(), bytes(8)))
        assert check(tmp_path, "x.safetensors").bytes == len(text) + 16


HOSTILE = {
    "a key twice": (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},' * 2)[:-1] + b"}",
    "a field twice": b'{"a":{"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]}}',
    "metadata twice": b'{"__metadata__":{},"__metadata__":{}}',
    "depth": b'{"a":' * 100_000,
    "depth in metadata": b'{"__metadata__":{"a":' + b"[" * 100_000,
    "a number without end": b'{"a":{"dtype":"U8","shape":[' + b"1" * 100_000 + b'],"data_offsets":[0,4]}}',
    "no UTF-8": b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "half a surrogate": rb'{"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "quotes that are escaped": b'{"' + rb"\"" * 100_000,
    "backslashes": b'{"' + b"\\" * 100_001,
    "something behind it": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}} x',
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_refused(header, tmp_path):
    assert isinstance(file_refusal(tmp_path, with_header(header)), Refused)


def test_the_count_of_tensors_is_bounded_over_all_files(samples, monkeypatch):
    tensors = len(json.loads((samples / "sharded" / INDEX).read_bytes())["weight_map"])
    monkeypatch.setattr(header_module, "MAX_TENSORS", tensors)
    assert check(samples, "sharded")
    monkeypatch.setattr(header_module, "MAX_TENSORS", tensors - 1)
    assert refusal(samples, "sharded").reason is RefusalReason.LIMIT_EXCEEDED


def test_the_bytes_of_headers_are_bounded_over_all_files(samples, monkeypatch):
    files = (samples / "sharded").glob("*.safetensors")
    header_bytes = sum(int.from_bytes(path.read_bytes()[:8], "little") for path in files)
    monkeypatch.setattr(header_module, "MAX_HEADER_BYTES", header_bytes)
    assert check(samples, "sharded")
    monkeypatch.setattr(header_module, "MAX_HEADER_BYTES", header_bytes - 1)
    assert refusal(samples, "sharded").reason is RefusalReason.LIMIT_EXCEEDED


def test_a_header_of_many_tensors_ends_with_the_time_that_is_allowed(tmp_path):
    header = {f"t{number}": tensor(0, 0) for number in range(5000)}
    (tmp_path / "x.safetensors").write_bytes(safetensors(header, b""))
    assert check(tmp_path, "x.safetensors").bytes
    now = iter(range(10_000))
    clock = Clock(monotonic=lambda: float(next(now)))
    with pytest.raises(OutOfTimeError):
        check(tmp_path, "x.safetensors", level=Level.FAST, deadline=Deadline(0.5, clock))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=6))
def test_bytes_written_over_any_place_never_end_in_anything_but_a_verdict(tmp_path_factory, position, data):
    root = tmp_path_factory.getbasetemp()
    whole = safetensors({"__metadata__": {"step": "1"}, "a": tensor(0, 4), "b": tensor(4, 8, "F16", [2])}, bytes(8))
    at = position % len(whole)
    (root / "fuzzed.safetensors").write_bytes(whole[:at] + data + whole[at + len(data) :])
    recognised(root, "fuzzed.safetensors")
    with contextlib.suppress(Refused):
        check(root, "fuzzed.safetensors")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_is_refused(make, tmp_path):
    make(tmp_path / "x.safetensors")
    assert refusal(tmp_path, "x.safetensors").reason is RefusalReason.NOT_A_REGULAR_FILE


def test_a_single_part_is_no_checkpoint(samples):
    assert refusal(samples / "sharded", PART).reason is RefusalReason.NO_MANIFEST


# -- a directory -------------------------------------------------------------------------------------------------------


def edit_index(change):
    def damage(directory):
        path = directory / INDEX
        index = json.loads(path.read_bytes())
        change(index)
        path.write_text(json.dumps(index))

    return damage


def rename_tensor(directory):
    def change(header):
        first = next(name for name in header if name != "__metadata__")
        header["another"] = header.pop(first)

    path = directory / PART
    path.write_bytes(edit_header(path.read_bytes(), change))


def add_tensor(directory):
    def change(header):
        end = max(value["data_offsets"][1] for name, value in header.items() if name != "__metadata__")
        header["more"] = tensor(end, end)

    path = directory / PART
    path.write_bytes(edit_header(path.read_bytes(), change))


def point(target):
    def change(index):
        index["weight_map"][next(iter(index["weight_map"]))] = target

    return edit_index(change)


def swap(directory):
    one, other = directory / PART, directory / "model-00003-of-00007.safetensors"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def write(name, data):
    return lambda directory: (directory / name).write_bytes(data)


def replaced(name, make):
    def damage(directory):
        (directory / name).unlink()
        make(directory / name)

    return damage


def cut(name, size):
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:size])


ONE = safetensors({"a": tensor(0, 8)}, bytes(8))
DIRECTORY_DAMAGE = {
    "no index": (lambda directory: (directory / INDEX).unlink(), "NoManifest", None),
    "a torn index": (cut(INDEX, 700), "Truncated", INDEX),
    "an empty index": (cut(INDEX, 0), "Truncated", INDEX),
    "an index of zeros": (write(INDEX, bytes(500)), "StructureInvalid", INDEX),
    "a part missing": (lambda directory: (directory / PART).unlink(), "FileMissing", PART),
    "a part one byte short": (cut(PART, -1), "Truncated", PART),
    "an empty part": (cut(PART, 0), "Truncated", PART),
    "two parts in each other's place": (swap, "StructureInvalid", PART),
    "a tensor under another name": (rename_tensor, "StructureInvalid", PART),
    "a tensor that the index does not name": (add_tensor, "StructureInvalid", PART),
    "a tensor that no part holds": (
        edit_index(lambda index: index["weight_map"].update(more=PART)),
        "StructureInvalid",
        PART,
    ),
    "a part that the index does not name": (
        write("model-00008-of-00008.safetensors", ONE),
        "FileExtra",
        "model-00008-of-00008.safetensors",
    ),
    "the file of an earlier save": (write("model.safetensors", ONE), "FileExtra", "model.safetensors"),
    "less than there is": (
        edit_index(lambda index: index["metadata"].update(total_size=9)),
        "SizeMismatch",
        INDEX,
    ),
    "a total that is no number": (
        edit_index(lambda index: index["metadata"].update(total_size=float("nan"))),
        "SizeMismatch",
        INDEX,
    ),
    "a way out": (point("../every.safetensors"), "StructureInvalid", INDEX),
    "an absolute path": (point("/etc/passwd"), "StructureInvalid", INDEX),
    "another kind of file": (point("config.json"), "StructureInvalid", INDEX),
    "no map": (edit_index(lambda index: index.pop("weight_map")), "StructureInvalid", INDEX),
    "an empty map": (edit_index(lambda index: index.update(weight_map={})), "StructureInvalid", INDEX),
    "a map of numbers": (edit_index(lambda index: index.update(weight_map={"a": 1})), "StructureInvalid", INDEX),
    "a map that is a list": (edit_index(lambda index: index.update(weight_map=[])), "StructureInvalid", INDEX),
    "a key twice": (
        write(INDEX, b'{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}'),
        "StructureInvalid",
        INDEX,
    ),
    "depth": (write(INDEX, b'{"x":' + b"[" * 100_000), "LimitExceeded", INDEX),
    "a torn config": (cut("config.json", 100), "Truncated", "config.json"),
    "a link in a part's place": (replaced(PART, lambda path: path.symlink_to("/etc/passwd")), "NotARegularFile", PART),
    "a FIFO in a part's place": (replaced(PART, os.mkfifo), "NotARegularFile", PART),
    "a directory in a part's place": (replaced(PART, Path.mkdir), "FileMissing", PART),
    "a FIFO in the index's place": (replaced(INDEX, os.mkfifo), "NotARegularFile", INDEX),
}


@pytest.mark.parametrize(("damage", "reason", "entry"), DIRECTORY_DAMAGE.values(), ids=DIRECTORY_DAMAGE.keys())
def test_a_damaged_directory_is_refused_with_its_reason_and_entry(damage, reason, entry, sharded):
    assert check(sharded.parent, "sharded").bytes
    damage(sharded)
    for level in Level:
        found = refusal(sharded.parent, "sharded", level=level)
        assert found.reason == reason, found.message
        if entry is not None:
            assert entry in (found.entry or "")


def test_an_index_that_names_fewer_parts_than_their_names_count_is_refused(sharded):
    index = json.loads((sharded / INDEX).read_bytes())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != PART}
    (sharded / INDEX).write_text(json.dumps(index))
    (sharded / PART).unlink()
    found = refusal(sharded.parent, "sharded")
    assert (found.reason, "6 of the 7 parts" in found.message) == (RefusalReason.FILE_MISSING, True)


def test_a_name_that_is_no_utf8_is_refused(sharded):
    with open(os.fsencode(sharded) + b"/\xff.txt", "wb"):
        pass
    found = refusal(sharded.parent, "sharded")
    assert found.reason is RefusalReason.STRUCTURE
    found.message.encode()


# -- steps, and what is a checkpoint -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("every.safetensors", 70),
        ("step-500.safetensors", 500),
        ("step-500-00001-of-00001.safetensors", 500),
        ("model-00001-of-00001.safetensors", 70),
        ("weights.safetensors", 70),
    ],
)
def test_the_step_is_that_of_the_name_or_of_the_metadata(name, step, every, tmp_path):
    (tmp_path / name).write_bytes(every)
    assert recognised(tmp_path, name).step == step


@pytest.mark.parametrize(("name", "step"), [("step-500", 500), ("v1.5-step-30", 30), ("last", 70)])
def test_the_step_of_a_directory_is_that_of_its_name_or_of_its_first_part(name, step, samples, tmp_path):
    place = shutil.copytree(samples / "sharded", tmp_path / name)
    first = place / "model-00001-of-00007.safetensors"
    first.write_bytes(edit_header(first.read_bytes(), lambda header: header["__metadata__"].update(step="70")))
    first.write_bytes(_metadata_first(first.read_bytes()))
    assert recognised(tmp_path, name).step == step


def _metadata_first(data):
    def change(header):
        rest = {name: header.pop(name) for name in list(header) if name != "__metadata__"}
        header.update(rest)

    return edit_header(data, change)


@pytest.mark.parametrize("told", ["x", "-1", "9999999999999", "", "1e3", "\u0661"])
def test_metadata_that_tell_no_step_make_it_the_oldest(told, tmp_path):
    header = {"__metadata__": {"step": told}, "a": tensor(0, 0)}
    (tmp_path / "x.safetensors").write_bytes(safetensors(header, b""))
    assert recognised(tmp_path, "x.safetensors").step == 0


def test_a_directory_of_weights_is_one_checkpoint_and_that_of_trainer_is_none(samples, tmp_path):
    shutil.copytree(samples / "sharded", tmp_path / "step-5")
    shutil.copytree(samples / "sharded", tmp_path / "output")
    (tmp_path / "output" / "trainer_state.json").write_text("{}")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "model.json").write_text("{}")
    assert recognised(tmp_path, "step-5").step == 5
    assert recognised(tmp_path, "output") is None
    assert recognised(tmp_path, "config") is None


def test_every_checkpoint_is_found_once(samples):
    found = find_checkpoints(Volume(str(samples)), RunLayout(""), "", Format.SAFETENSORS)
    assert sorted(item.path for item in found) == sorted([*WHOLE, "dcp-ranks"])


def test_format_auto_passes_weights_over_unread_and_the_chosen_format_takes_them(samples, tmp_path):
    for name in ("every.safetensors", "sharded", "dcp-ranks"):
        found = refusal(samples, name, resumable_only=True)
        assert (found.reason, found.bytes_read) == (RefusalReason.NOT_RESUMABLE, 0)


def test_weights_beside_a_checkpoint_stay_where_they_are(sweep, samples):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100, "optimizer": {"state": {}}}))
    weights = sweep.put("step-900.safetensors", (samples / "every.safetensors").read_bytes()[:-1])
    report = sweep.prepare()
    assert report.checkpoint.path == "checkpoints/step-100.pt"
    assert report.refused == ()
    assert weights.exists()


def test_the_chosen_format_resumes_from_weights(sweep, samples):
    sweep.prepare()
    sweep.put("step-100.safetensors", (samples / "every.safetensors").read_bytes())
    report = sweep.prepare(format=Format.SAFETENSORS)
    assert (report.checkpoint.step, report.checkpoint.format) == (100, Format.SAFETENSORS)
