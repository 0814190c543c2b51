"""Files of torch.save, by the real torch: every byte of an entry counts, and nothing of them is executed."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.volume_checkpoints import context_at, flip, largest_entry, rewrite, saved, stored, zero
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import BlockedReason, Format, Level, Outcome, RefusalReason, StartReason
from sweeprun_volume.formats import Refused, torch_zip
from sweeprun_volume.formats.finding import find_checkpoints
from sweeprun_volume.formats.torch_pickle import MAX_PAIRS
from sweeprun_volume.formats.torch_zip import TorchFormat, plan_file, step_in_name, step_in_pickle
from sweeprun_volume.operations import Volume

GOOD = ("plain.pt", "last.ckpt", "weights.pt")


def check(root, path, *, level=Level.FULL, resumable_only=True):
    context = context_at(root, level=level, resumable_only=resumable_only)
    return TorchFormat().check(context, path, step=0, epoch=0)


def refusal(tmp_path, data):
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(Refused) as refused:
        check(tmp_path, "x.pt")
    return refused.value


@pytest.mark.parametrize("name", GOOD)
def test_an_undamaged_file_is_read_whole_and_passes(name, torch_samples, tmp_path):
    (tmp_path / name).write_bytes(torch_samples[name])
    checked = check(tmp_path, name, resumable_only=False)
    assert (checked.bytes, checked.note) == (len(torch_samples[name]), "")
    assert checked.digest.startswith("sha256:")


def test_a_file_saved_without_crcs_passes_and_says_what_was_not_covered(torch_samples, tmp_path):
    (tmp_path / "x.pt").write_bytes(torch_samples["unchecked.pt"])
    assert "no CRCs" in check(tmp_path, "x.pt").note


DAMAGE = {
    "one bit in tensor data": (lambda data: flip(data, largest_entry(data).offset + 5000), "CrcMismatch", "data/"),
    "one bit in the pickle": (lambda data: flip(data, stored(data, "data.pkl").offset + 9), "CrcMismatch", "data.pkl"),
    "one bit in the version": (lambda data: flip(data, stored(data, "/version").offset), "CrcMismatch", "version"),
    "a page of zeros": (lambda data: zero(data, largest_entry(data).offset + 4096, 4096), "CrcMismatch", "data/"),
    "one byte short": (lambda data: data[:-1], "Truncated", None),
    "half of it": (lambda data: data[: len(data) // 2], "Truncated", None),
    "ten bytes": (lambda data: data[:10], "Truncated", None),
    "empty": (lambda data: b"", "Truncated", None),
    "zeros of the same size": (lambda data: bytes(len(data)), "UnknownFormat", None),
    "its second half zeros": (lambda data: zero(data, len(data) // 2, len(data)), "Truncated", None),
    "trailing garbage": (lambda data: data + b"x" * 70, "StructureInvalid", None),
    "trailing zeros, as preallocated": (lambda data: data + bytes(100_000), "StructureInvalid", None),
    "another file behind it": (lambda data: data + data, "StructureInvalid", None),
    "a header that is gone": (lambda data: zero(data, 0, 30), "UnknownFormat", None),
    "one bit in an entry's name": (lambda data: flip(data, 30), "StructureInvalid", None),
    "one bit in the length of an entry's name": (lambda data: flip(data, 26, 0), "StructureInvalid", "data.pkl"),
    "one bit in an entry's CRC": (
        lambda data: flip(data, data.index(b"PK\x01\x02") + 16),
        "CrcMismatch",
        "data.pkl",
    ),
    "a damaged directory": (lambda data: flip(data, data.index(b"PK\x01\x02") + 1), "StructureInvalid", None),
}


@pytest.mark.parametrize(("damage", "reason", "entry"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_refused_with_its_reason_and_entry(damage, reason, entry, torch_samples, tmp_path):
    found = refusal(tmp_path, damage(torch_samples["plain.pt"]))
    assert found.reason == reason, found.message
    if entry is not None:
        assert entry in found.entry


def test_every_sampled_bit_of_every_entry_counts(torch_samples, tmp_path):
    data = torch_samples["last.ckpt"]
    rng = random.Random(1)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [item.filename for item in archive.infolist() if item.file_size]
    for name in names:
        entry = stored(data, name)
        for offset in rng.sample(range(entry.size), min(entry.size, 12)):
            found = refusal(tmp_path, flip(data, entry.offset + offset, rng.randrange(8)))
            assert (found.reason, found.entry) == (RefusalReason.CRC_MISMATCH, name)


def test_a_file_cut_anywhere_is_refused(torch_samples, tmp_path):
    data = torch_samples["plain.pt"]
    for size in random.Random(2).sample(range(len(data)), 60):
        assert refusal(tmp_path, data[:size]).reason is RefusalReason.TRUNCATED


def test_the_format_before_zip_is_not_understood(torch_samples, tmp_path):
    assert refusal(tmp_path, torch_samples["legacy.pt"]).reason is RefusalReason.UNKNOWN_FORMAT


def zipped(entries, *, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def with_end(data, **changes):
    """The end record with some of its numbers changed."""
    fields = dict(zip(("count", "size", "start"), struct.unpack_from("<HLL", data, len(data) - 12), strict=True))
    fields.update(changes)
    return data[:-12] + struct.pack("<HLLH", fields["count"], fields["size"], fields["start"], 0)


def _last_points_into_the_one_before():
    inner = zipped([("a/data/1", b"inner")])
    inner = inner[: inner.index(b"PK\x01\x02")]
    data = zipped([("a/data.pkl", b"\x80\x02."), ("a/data/0", inner), ("a/data/1", b"inner")])
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 42] + struct.pack("<L", data.index(inner)) + data[at + 46 :]


ABSURD = {
    "a bomb": (
        lambda: zipped([("a/data.pkl", b""), ("a/data/0", bytes(10 << 20))], compression=zipfile.ZIP_DEFLATED),
        "StructureInvalid",
    ),
    "a small compressed entry": (
        lambda: zipped([("a/data.pkl", b"\x80\x02."), ("a/data/0", b"abc")], compression=zipfile.ZIP_DEFLATED),
        "StructureInvalid",
    ),
    "an entry inside another one": (_last_points_into_the_one_before, "StructureInvalid"),
    "an entry that reaches into the directory": (lambda: _last_is_longer(saved({})), "StructureInvalid"),
    "no data.pkl": (lambda: zipped([("a/x", b"1")]), "UnknownFormat"),
    "more entries announced than there are": (lambda: with_end(saved({}), count=9), "StructureInvalid"),
    "a directory beyond the end": (lambda: with_end(saved({}), start=1 << 30), "StructureInvalid"),
    "a directory larger than any": (lambda: with_end(saved({}), size=0xFFFFFFF0), "LimitExceeded"),
    "a directory that is the file": (
        lambda: with_end(saved({}), start=0, size=len(saved({})) - 22),
        "StructureInvalid",
    ),
    "two entries of one name": (
        lambda: zipped([("a/data.pkl", b"1"), ("a/data/0", b"2"), ("a/data/1", b"3")]).replace(b"data/1", b"data/0"),
        "StructureInvalid",
    ),
    "an entry in another one's place": (
        lambda: _second_points_to_first(zipped([("a/data.pkl", b"11"), ("a/data.pkm", b"22")])),
        "StructureInvalid",
    ),
    "an entry whose zip64 numbers are missing": (lambda: _with_wide_entry(saved({}), tag=9), "StructureInvalid"),
    "an encrypted entry": (lambda: _encrypted(saved({})), "StructureInvalid"),
    "a zip64 record with a count without end": (
        lambda: _with_zip64(saved({}), count=1 << 40),
        "LimitExceeded",
    ),
    "two end records that contradict each other": (
        lambda: _with_zip64(saved({}), count=3, small=4),
        "StructureInvalid",
    ),
    "an archive of several parts": (lambda: saved({})[:-18] + b"\x01\0" + saved({})[-16:], "StructureInvalid"),
}


def test_an_entry_whose_sizes_and_place_are_wide_is_read_as_zip64_has_them(tmp_path):
    """Above 4 GiB in truth; the reader has no other way to know it."""
    data = saved({"step": 3})
    (tmp_path / "x.pt").write_bytes(_with_wide_entry(data))
    assert check(tmp_path, "x.pt").bytes == len(data) + 28
    last = largest_entry(data)
    assert refusal(tmp_path, flip(_with_wide_entry(data), last.offset + 7)).reason is RefusalReason.CRC_MISMATCH


def _with_wide_entry(data, *, tag=1):
    """The entry with the tensor's bytes, its numbers moved into the extra field."""
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    packed, size = struct.unpack_from("<2L", data, at + 20)
    header = struct.unpack_from("<L", data, at + 42)[0]
    name_length = struct.unpack_from("<H", data, at + 28)[0]
    behind = at + 46 + name_length
    absent = struct.pack("<L", 0xFFFFFFFF)
    central = data[at : at + 20] + absent * 2 + data[at + 28 : at + 30] + struct.pack("<H", 28)
    central += data[at + 32 : at + 42] + absent + data[at + 46 : behind]
    central += struct.pack("<2H3Q", tag, 24, size, packed, header)
    end = len(data) - 22
    count, directory = struct.unpack_from("<HL", data, end + 10)
    return data[:at] + central + data[behind:end] + with_end(data, count=count, size=directory + 28)[end:]


def _last_is_longer(data):
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 20] + struct.pack("<2L", 60, 60) + data[at + 28 :]


def _encrypted(data):
    at = data.index(b"PK\x01\x02")
    return data[: at + 8] + b"\x01" + data[at + 9 :]


def _second_points_to_first(data):
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    return data[: at + 42] + bytes(4) + data[at + 46 :]


def _with_zip64(data, *, count, small=0xFFFF):
    """`small` is what the end record of 32 bits says: that the count does not fit, unless it is given."""
    size, start = struct.unpack_from("<LL", data, len(data) - 10)
    body = data[:-22]
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body), 1)
    return body + record + locator + data[-22:-14] + struct.pack("<2H", small, small) + data[-10:]


def test_an_archive_with_both_end_records_is_read(tmp_path):
    (tmp_path / "x.pt").write_bytes(_with_zip64(saved({}), count=3))
    assert check(tmp_path, "x.pt").bytes > 0


@pytest.mark.parametrize(("make", "reason"), ABSURD.values(), ids=ABSURD.keys())
def test_an_archive_that_contradicts_itself_is_refused_without_its_numbers_being_believed(make, reason, tmp_path):
    assert refusal(tmp_path, make()).reason == reason


def test_a_zip64_archive_is_read(tmp_path):
    data = saved({"step": 3})
    (tmp_path / "x.pt").write_bytes(_with_zip64(data, count=3))
    assert check(tmp_path, "x.pt").bytes > 0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_bytes_written_over_any_place_never_end_in_anything_but_a_verdict(tmp_path_factory, position, data):
    root = tmp_path_factory.getbasetemp()
    whole = saved({"step": 7, "rest": "x" * 50})
    at = position % len(whole)
    (root / "fuzzed.pt").write_bytes(whole[:at] + data + whole[at + len(data) :])
    with contextlib.suppress(Refused):
        check(root, "fuzzed.pt")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_pickle_of_any_bytes_gives_a_step_or_none(data):
    step = step_in_pickle(data)
    assert step is None or type(step) is int


@pytest.mark.parametrize(
    ("state", "step"),
    [
        ({"step": 7}, 7),
        ({"global_step": 7, "epoch": 2}, 7),
        ({"epoch": 2}, 2),
        ({"optimizer": {"state": {"step": 5}}, "trainer": {"step": 7}}, 7),
        ({"optimizer": {"step": 5}, "global_step": 7}, 7),
        (OrderedDict(step=7), 7),
        ({"step": True}, None),
        ({"step": -1}, None),
        ({"step": 1 << 70}, None),
        ({"step": "7"}, None),
        ({"steps": 7}, None),
        ([("step", 7)], None),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_step_inside_is_that_of_the_outermost_mapping_that_has_one(state, step, protocol):
    assert step_in_pickle(pickle.dumps(state, protocol=protocol)) == step


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "inside"])
def test_the_step_is_searched_for_in_a_bounded_number_of_keys(nested):
    """One mapping may be the value of a hundred thousand keys: all of them together would take hours."""

    def among(others):
        state = {**{f"key-{number}": "" for number in range(others)}, "step": 7}
        return pickle.dumps({"trainer": state} if nested else state, protocol=2)

    assert step_in_pickle(among(MAX_PAIRS - 1)) == 7
    assert step_in_pickle(among(MAX_PAIRS)) is None


# -- weights only ------------------------------------------------------------------------------------------------------

WEIGHTS = ("parameters", "with-buffers", "half", "one-tensor", "tensor", "list", "tuple", "protocol-4")
STATES = (
    *("nested", "with-step", "with-step-as-tensor", "with-text", "with-nothing", "optimizer", "list", "empty"),
    *("number", "module"),
)


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("name", ["weights.pt", "weights-unchecked.pt", *(f"weights-of-{kind}.pt" for kind in WEIGHTS)])
def test_what_holds_tensors_alone_is_not_resumable_and_said_so_before_it_is_read(name, level, torch_samples, tmp_path):
    (tmp_path / "x.pt").write_bytes(torch_samples[name])
    with pytest.raises(Refused) as refused:
        check(tmp_path, "x.pt", level=level)
    assert refused.value.reason is RefusalReason.NOT_RESUMABLE
    assert refused.value.bytes_read < len(torch_samples[name])
    check(tmp_path, "x.pt", level=level, resumable_only=False)


@pytest.mark.parametrize("name", STATES)
def test_what_holds_anything_else_counts_as_resumable(name, torch_samples, tmp_path):
    (tmp_path / "x.pt").write_bytes(torch_samples[f"state-of-{name}.pt"])
    assert check(tmp_path, "x.pt").digest


@pytest.mark.parametrize("called", [b"torch._utils\nload", b"mine\n_rebuild_trainer"])
def test_what_other_functions_make_counts_as_resumable(called, tmp_path):
    tensor = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n)Rs."
    (tmp_path / "x.pt").write_bytes(zipped([("a/data.pkl", tensor)]))
    with pytest.raises(Refused):
        check(tmp_path, "x.pt")
    (tmp_path / "x.pt").write_bytes(
        zipped([("a/data.pkl", tensor.replace(b"torch._utils\n_rebuild_tensor_v2", called))])
    )
    assert check(tmp_path, "x.pt").digest


def test_weights_with_a_damaged_pickle_are_damaged(torch_samples, tmp_path):
    data = torch_samples["weights.pt"]
    begin = stored(data, "data.pkl").offset
    for at in (begin + 9, data.index(b"weight", begin)):  # no pickle any more; a tensor of another name
        assert refusal(tmp_path, flip(data, at, 0)).reason is RefusalReason.CRC_MISMATCH


def test_a_pickle_too_large_to_look_into_counts_as_resumable(torch_samples, tmp_path, monkeypatch):
    (tmp_path / "x.pt").write_bytes(torch_samples["weights.pt"])
    monkeypatch.setattr(torch_zip, "MAX_PICKLE_BYTES", 100)
    assert check(tmp_path, "x.pt").digest


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"\x80\x02}.trailing", b"c\n\n.", b"no pickle"])
def test_a_pickle_with_other_opcodes_counts_as_resumable(data, tmp_path):
    (tmp_path / "x.pt").write_bytes(zipped([("a/data.pkl", data), ("a/data/0", b"abc")]))
    assert check(tmp_path, "x.pt").digest


@pytest.mark.parametrize(("chosen", "step"), [(Format.AUTO, 100), (Format.TORCH, 200)])
def test_weights_are_passed_over_and_stay_where_they_are_unless_the_format_was_chosen(
    chosen, step, sweep, torch_samples
):
    sweep.prepare()
    sweep.put("step-100.pt", torch_samples["plain.pt"])
    weights = sweep.put("step-200.pt", torch_samples["weights.pt"])
    report = sweep.prepare(format=chosen)
    assert (report.checkpoint.step, report.refused) == (step, ())
    assert weights.exists()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_pickle_is_not_executed(sweep, tmp_path):
    trap = str(tmp_path / "executed")
    sweep.prepare()
    state = {"step": 5, "trap": Malicious(trap)}
    sweep.put("model.pt", saved(state))
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 5)
    assert not os.path.exists(trap)
    pickle.loads(pickle.dumps(state))
    assert os.path.exists(trap), "it would have been seen"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-500.pt", 500),
        ("epoch=3-step=1500.ckpt", 1500),
        ("epoch=3-step=1500-v2.ckpt", 1500),
        ("checkpoint_0007.pth", 7),
        ("last.ckpt", None),
        ("x-9999999999999999999.pt", None),
    ],
)
def test_the_step_is_the_last_number_of_the_name(name, step):
    assert step_in_name(name) == step


def test_a_file_of_several_is_named_in_front_of_its_entries(torch_samples, tmp_path):
    data = torch_samples["plain.pt"]
    context = context_at(tmp_path)
    (tmp_path / "optimizer.pt").write_bytes(data)
    file = plan_file(context, "optimizer.pt", "optimizer.pt")
    spans = file.plan.spans
    assert {span.entry.partition(":")[0] for span in spans} == {"optimizer.pt"}
    assert file.pickle.name.endswith("/data.pkl")
    assert file.uncovered == len(data) - sum(span.size for span in spans)
    assert [zlib.crc32(data[span.offset : span.offset + span.size]) for span in spans] == [span.crc for span in spans]
    (tmp_path / "optimizer.pt").write_bytes(flip(data, data.index(b"PK\x03\x04", 4) + 30))
    with pytest.raises(Refused) as refused:
        plan_file(context, "optimizer.pt", "optimizer.pt")
    assert refused.value.entry.startswith("optimizer.pt:")


def test_of_a_file_without_crcs_nothing_is_covered(torch_samples, tmp_path):
    (tmp_path / "x.pt").write_bytes(torch_samples["unchecked.pt"])
    context = context_at(tmp_path)
    file = plan_file(context, "x.pt", "x.pt")
    assert (file.uncovered, file.plan.spans) == (file.plan.size, [])
    assert "no CRCs" in file.note


# -- through prepare ---------------------------------------------------------------------------------------------------


def test_the_newest_whole_file_is_resumed_from_and_its_step_read_inside(sweep, torch_samples):
    sweep.prepare()
    sweep.put("step-100.pt", torch_samples["plain.pt"])
    sweep.put("last.ckpt", torch_samples["last.ckpt"])
    report = sweep.prepare()
    assert (report.checkpoint.path, report.checkpoint.step) == ("checkpoints/last.ckpt", 70_000)


def test_links_are_passed_over_and_what_is_no_file_is_refused(sweep, torch_samples, tmp_path):
    sweep.prepare()
    whole = sweep.put("step-100.pt", torch_samples["plain.pt"])
    (whole.parent / "last-900.pt").symlink_to(whole)
    os.mkfifo(whole.parent / "step-200.pt")
    report = sweep.prepare()
    assert report.checkpoint.step == 100
    assert [(item.path, item.reason) for item in report.refused] == [
        ("checkpoints/step-200.pt", RefusalReason.NOT_A_REGULAR_FILE)
    ]
    with pytest.raises(Refused) as refused:
        check(whole.parent, "last-900.pt")
    assert refused.value.reason is RefusalReason.NOT_A_REGULAR_FILE


def test_damage_after_the_first_full_look_is_seen_where_the_file_has_no_crcs(sweep, torch_samples):
    """No write, no other time, no CRC: only the digest that was recorded then."""
    sweep.prepare()
    path = sweep.put("step-100.pt", torch_samples["unchecked.pt"])
    assert sweep.prepare().checkpoint.step == 100
    data = path.read_bytes()
    rewrite(path, flip(data, largest_entry(data).offset + 100), keep_time=True)
    report = sweep.prepare(pinned=None, fresh_number=1)
    assert (report.outcome, report.reason) == (Outcome.FRESH, StartReason.ALL_REFUSED)
    assert report.refused[0].reason is RefusalReason.DIGEST_MISMATCH


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path, torch_samples, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(torch_samples["plain.pt"])
    read = os.preadv

    def written(descriptor, buffers, offset):
        count = read(descriptor, buffers, offset)
        os.utime(path, ns=(1, 1))
        return count

    monkeypatch.setattr(os, "preadv", written)
    with pytest.raises(Refused) as refused:
        check(tmp_path, "x.pt")
    assert refused.value.reason is RefusalReason.CHANGED


def test_fast_reads_the_directory_only(tmp_path, torch_samples):
    data = torch_samples["plain.pt"]
    (tmp_path / "x.pt").write_bytes(flip(data, largest_entry(data).offset + 50))
    checked = check(tmp_path, "x.pt", level=Level.FAST)
    assert (checked.digest, "contents were not" in checked.note) == (None, True)
    (tmp_path / "x.pt").write_bytes(data[:-1])
    with pytest.raises(Refused):
        check(tmp_path, "x.pt", level=Level.FAST)


def test_a_format_that_was_chosen_hides_the_other(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.put("step-200.pt", saved({"step": 200}))
    assert sweep.prepare(format=Format.TORCH).checkpoint.step == 200


def test_a_name_that_is_no_utf8_is_refused_and_put_aside(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    name = os.fsencode(sweep.directory() / "checkpoints") + b"/\xff-200.pt"
    with open(name, "wb") as stream:
        stream.write(saved({"step": 200}))
    report = sweep.prepare()
    assert report.checkpoint.step == 100
    assert [item.reason for item in report.refused] == [RefusalReason.STRUCTURE]
    assert report.encode()
    assert not os.path.exists(name)
    assert sweep.prepare().checkpoint.step == 100


def test_a_path_longer_than_a_record_carries_is_blocked_before_anything_is_decided(sweep):
    sweep.prepare()
    sweep.put("/".join(["d" * 200] * 6) + "/step-1.pt", saved({"step": 1}))
    for _ in range(2):
        report = sweep.ask(sweep.next_request())
        assert report.blocked is BlockedReason.RECORD_INVALID
        assert "move it away" in report.message


# -- files that a script writes under one name, with a record beside them ----------------------------------------------


def steps_found(root):
    found = find_checkpoints(Volume(str(root)), RunLayout(""), "checkpoints", Format.AUTO)
    return {item.path.partition("/")[2]: (item.format, item.step) for item in found}


def with_record(root, record, *, state=None, name="trainer_state.pt"):
    directory = root / "checkpoints" / "newest"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(saved(state or {"model": {"weights": [1.0]}, "optimizer": {}}))
    if record is not None:
        (directory / "trainer_checkpoint.json").write_text(record)
    return steps_found(root)[f"newest/{name}"]


@pytest.mark.parametrize(
    ("record", "step"),
    [
        ('{"step": 120, "epoch": 3}', 120),
        ('{"global_step": 120, "loss": NaN, "nested": {"step": 7}}', 120),
        ('{"epoch": 3}', 3),
        ("{}", 0),
        (None, 0),
        ('{"step": -1}', 0),
        ('{"step": 1e9}', 0),
        ('{"step": true}', 0),
        ('{"step": 9999999999999999}', 0),
        ('{"step": 120', 0),
        ('[{"step": 120}]', 0),
        ('{"step": 120} trailing', 0),
        ('{"step": 1, "step": 2}', 0),
        ("{" + '"a":[' * 1000, 0),
        ('{"step": 120, "text": "' + "x" * 70_000 + '"}', 0),
    ],
)
def test_a_file_without_a_number_has_the_step_of_the_record_beside_it(record, step, tmp_path):
    assert with_record(tmp_path, record) == (Format.TORCH, step)


def test_a_record_never_outweighs_what_the_file_or_its_name_says(tmp_path):
    assert with_record(tmp_path, '{"step": 120}', state={"step": 80, "optimizer": {}})[1] == 80
    assert with_record(tmp_path, '{"step": 120}', name="trainer_state-100.pt")[1] == 100


def test_a_record_that_is_a_link_is_not_followed(tmp_path):
    with_record(tmp_path, None)
    (tmp_path / "elsewhere.json").write_text('{"step": 120}')
    (tmp_path / "checkpoints" / "newest" / "trainer_checkpoint.json").symlink_to(tmp_path / "elsewhere.json")
    assert with_record(tmp_path, None)[1] == 0
