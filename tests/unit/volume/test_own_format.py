"""The own format: every byte named by the manifest, and nothing else, or the checkpoint is refused with its reason."""

from __future__ import annotations

import builtins
import os
from dataclasses import replace

import pytest

from support.volume_checkpoints import context_at, flip, own_checkpoint, rewrite, zero
from sweeprun_protocol.layout import MANIFEST
from sweeprun_protocol.manifest import BLAKE2B_128, CHUNK, Manifest, digest_of
from sweeprun_protocol.reasons import BlockedReason, Format, Level, RefusalReason
from sweeprun_volume import hashing
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.errors import OutOfTimeError, VolumeError
from sweeprun_volume.formats import Refused, format_of
from sweeprun_volume.hashing import ChunkHasher


def check(root, path, *, step=100, epoch=1, fmt=Format.SWEEPRUN, **asked):
    return format_of(fmt).check(context_at(root, **asked), path, step=step, epoch=epoch)


@pytest.fixture
def checkpoint(tmp_path):
    return own_checkpoint(tmp_path, run_id="run-1", step=100, epoch=1)


def edit(directory, **changes):
    path = directory / MANIFEST
    path.write_bytes(replace(Manifest.decode(path.read_bytes(), where="x"), **changes).encode())


def change(name, damage):
    return lambda directory: rewrite(directory / name, damage((directory / name).read_bytes()))


def replaced_by(make):
    def damage(directory):
        (directory / "model.pt").unlink()
        make(directory)

    return damage


def swap_manifest(directory):
    """That of an earlier save of the same step."""
    other = own_checkpoint(directory.parent / "other", run_id="run-1", step=100, epoch=1, content=b"before")
    (directory / MANIFEST).write_bytes((other / MANIFEST).read_bytes())


DAMAGE = {
    "one bit in the data": (change("model.pt", lambda data: flip(data, 9000)), "DigestMismatch", "model.pt"),
    "a page of zeros": (change("model.pt", lambda data: zero(data, 4096, 4096)), "DigestMismatch", "model.pt"),
    "one bit in a small file": (change("rank-0/rng.pt", lambda data: flip(data, 0)), "DigestMismatch", "rank-0/rng.pt"),
    "one byte short": (change("model.pt", lambda data: data[:-1]), "Truncated", "model.pt"),
    "empty": (change("model.pt", lambda data: b""), "Truncated", "model.pt"),
    "trailing garbage": (change("model.pt", lambda data: data + b"x"), "SizeMismatch", "model.pt"),
    "a byte in what was empty": (change("empty.txt", lambda data: b"x"), "SizeMismatch", "empty.txt"),
    "a file missing": (lambda directory: (directory / "rank-0/rng.pt").unlink(), "FileMissing", "rank-0/rng.pt"),
    "a file extra": (lambda directory: (directory / "rank-0/x").touch(), "FileExtra", "rank-0/x"),
    "no manifest": (lambda directory: (directory / MANIFEST).unlink(), "NoManifest", None),
    "a torn manifest": (change(MANIFEST, lambda data: data[:50]), "ManifestInvalid", MANIFEST),
    "a manifest of zeros": (change(MANIFEST, lambda data: bytes(len(data))), "ManifestInvalid", MANIFEST),
    "an earlier save's manifest": (swap_manifest, "SizeMismatch|Truncated", "model.pt"),
    "another run's": (lambda directory: edit(directory, run_id="run-2"), "WrongRun", MANIFEST),
    "another epoch's": (lambda directory: edit(directory, epoch=2), "WrongEpoch", MANIFEST),
    "another step's": (lambda directory: edit(directory, step=200), "WrongEpoch", MANIFEST),
    "weights only": (lambda directory: edit(directory, resumable=False), "NotResumable", MANIFEST),
    "a manifest that names no file": (lambda directory: edit(directory, files=()), "ManifestInvalid", MANIFEST),
    "a symbolic link": (
        replaced_by(lambda directory: (directory / "model.pt").symlink_to("/etc/passwd")),
        "NotARegularFile",
        "model.pt",
    ),
    "a link to a directory": (
        lambda directory: (directory / "more").symlink_to("/etc"),
        "NotARegularFile",
        "more",
    ),
    "a pipe": (replaced_by(lambda directory: os.mkfifo(directory / "model.pt")), "NotARegularFile", "model.pt"),
    "a directory in a file's place": (
        replaced_by(lambda directory: (directory / "model.pt").mkdir()),
        "FileMissing",
        "model.pt",
    ),
    "directories without end": (
        lambda directory: (directory / "/".join("d" * 1 for _ in range(12))).mkdir(parents=True),
        "LimitExceeded",
        None,
    ),
}


@pytest.mark.parametrize(("damage", "reason", "entry"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_refused_with_its_reason_and_place(damage, reason, entry, checkpoint, tmp_path):
    assert check(tmp_path, checkpoint.name).digest == digest_of((checkpoint / MANIFEST).read_bytes())
    damage(checkpoint)
    with pytest.raises(Refused) as refused:
        check(tmp_path, checkpoint.name)
    assert refused.value.reason in reason.split("|")
    assert refused.value.entry == entry


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "a//b", ".", "./x"])
def test_a_manifest_that_names_a_path_outside_is_refused(path, checkpoint, tmp_path):
    data = (checkpoint / MANIFEST).read_bytes().replace(b'"empty.txt"', b'"%s"' % path.encode())
    (checkpoint / MANIFEST).write_bytes(data)
    with pytest.raises(Refused) as refused:
        check(tmp_path, checkpoint.name)
    assert refused.value.reason is RefusalReason.MANIFEST_INVALID


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size":300', b'"size":300000000000000000000'),
        (b'"size":300', b'"size":-1'),
        (b'"version":1', b'"version":2'),
        (b'"algorithm":"xxh3-128"', b'"algorithm":"crc8"'),
        (b'"empty.txt"', b'"model.pt"'),
    ],
)
def test_a_manifest_with_absurd_numbers_is_refused_before_a_byte_is_read(old, new, checkpoint, tmp_path):
    data = (checkpoint / MANIFEST).read_bytes()
    assert old in data
    (checkpoint / MANIFEST).write_bytes(data.replace(old, new))
    with pytest.raises(Refused) as refused:
        check(tmp_path, checkpoint.name)
    assert refused.value.reason is RefusalReason.MANIFEST_INVALID


def test_any_bit_of_any_file_counts(checkpoint, tmp_path):
    """Seeded: every 97th byte of each file, one bit each; the manifest's own bytes change its digest."""
    whole = check(tmp_path, checkpoint.name).digest
    for path in [item for item in checkpoint.rglob("*") if item.is_file()]:
        data = path.read_bytes()
        for offset in range(0, len(data), 97 if len(data) < 2000 else 1009):
            path.write_bytes(flip(data, offset, offset % 8))
            try:
                found = check(tmp_path, checkpoint.name).digest
            except Refused:
                found = None
            assert found != whole, f"{path.name} byte {offset}"
        path.write_bytes(data)
    assert check(tmp_path, checkpoint.name).digest == whole


def test_fast_compares_sizes_and_says_that_contents_were_not(checkpoint, tmp_path):
    change("model.pt", lambda data: flip(data, 9000))(checkpoint)
    checked = check(tmp_path, checkpoint.name, level=Level.FAST)
    assert "contents were not" in checked.note
    change("model.pt", lambda data: data[:-1])(checkpoint)
    with pytest.raises(Refused):
        check(tmp_path, checkpoint.name, level=Level.FAST)


def test_damage_in_a_later_chunk_is_told_by_its_offset(checkpoint, tmp_path, monkeypatch):
    """Files of several chunks: a sparse one of 129 MiB."""
    path = checkpoint / "model.pt"
    with path.open("wb") as stream:
        stream.truncate(2 * CHUNK + (1 << 20))
    hasher = ChunkHasher("xxh3-128")
    zeros = memoryview(bytes(1 << 20))
    for _ in range(129):
        hasher.update(zeros)
    manifest = Manifest.decode((checkpoint / MANIFEST).read_bytes(), where="x")
    files = tuple(
        replace(item, size=hasher.size, chunks=hasher.finish()) if item.path == "model.pt" else item
        for item in manifest.files
    )
    edit(checkpoint, files=files)
    assert check(tmp_path, checkpoint.name).bytes == 2 * CHUNK + (1 << 20) + 300
    with path.open("r+b") as stream:
        stream.seek(2 * CHUNK - 1)
        stream.write(b"\1")
    with pytest.raises(Refused) as refused:
        check(tmp_path, checkpoint.name)
    assert (refused.value.reason, refused.value.offset) == (RefusalReason.DIGEST_MISMATCH, CHUNK)


def test_without_xxhash_nothing_is_judged(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "HAS_XXHASH", False)
    with pytest.raises(VolumeError) as error:
        check(tmp_path, checkpoint.name)
    assert error.value.reason is BlockedReason.IO_ERROR
    assert hashing.preferred_algorithm() == BLAKE2B_128


def test_a_manifest_of_the_standard_librarys_digest_is_checked_too(checkpoint, tmp_path):
    manifest = Manifest.decode((checkpoint / MANIFEST).read_bytes(), where="x")

    def hashed(item):
        hasher = ChunkHasher(BLAKE2B_128)
        hasher.update(memoryview((checkpoint / item.path).read_bytes()))
        return replace(item, chunks=hasher.finish())

    edit(checkpoint, algorithm=BLAKE2B_128, files=tuple(hashed(item) for item in manifest.files))
    assert check(tmp_path, checkpoint.name).bytes > 16384
    change("model.pt", lambda data: flip(data, 9000))(checkpoint)
    with pytest.raises(Refused):
        check(tmp_path, checkpoint.name)


def test_time_that_runs_out_is_no_verdict(checkpoint, tmp_path):
    passing = iter(range(10**6))
    deadline = Deadline(0.5, Clock(monotonic=lambda: float(next(passing))))
    with pytest.raises(OutOfTimeError):
        check(tmp_path, checkpoint.name, deadline=deadline)


def test_names_that_network_file_systems_keep_for_removed_files_are_no_extra_files(checkpoint, tmp_path):
    (checkpoint / ".nfs000001").write_bytes(b"x")
    assert check(tmp_path, checkpoint.name).bytes > 0


# -- through prepare ---------------------------------------------------------------------------------------------------


def test_a_whole_checkpoint_of_another_content_is_refused_by_the_digest_that_was_pinned(sweep):
    """Whole in itself, by its own manifest: only what is kept elsewhere can tell."""
    sweep.prepare()
    base = sweep.save(100)
    sweep.prepare()
    pinned = sweep.last.checkpoint
    other = own_checkpoint(sweep.root / "other", run_id=sweep.run_id, step=100, epoch=1, content=b"other")
    for path in other.rglob("*"):
        if path.is_file():
            (base / path.relative_to(other)).write_bytes(path.read_bytes())
    decision = sweep.directory() / "epochs" / "2" / "decision.json"
    forged = digest_of((base / MANIFEST).read_bytes())
    decision.write_bytes(decision.read_bytes().replace(pinned.digest.encode(), forged.encode()))
    report = sweep.ask(sweep.next_request(fresh_number=1))
    assert [item.reason for item in report.refused] == [RefusalReason.DIGEST_MISMATCH]


def test_a_step_directory_that_is_a_link_a_file_or_a_pipe_is_refused_and_put_aside(sweep, tmp_path):
    sweep.prepare()
    whole = sweep.save(100)
    place = whole.parent
    (place / "step-000000200.e1").symlink_to(whole)
    (place / "step-000000300.e1").write_bytes(b"x")
    os.mkfifo(place / "step-000000400.e1")
    report = sweep.prepare()
    assert report.checkpoint.step == 100
    assert {item.reason for item in report.refused} == {RefusalReason.NOT_A_REGULAR_FILE}
    assert len(report.refused) == 3
    assert [path.name for path in place.iterdir()] == [whole.name]
    assert len(list((sweep.directory() / "quarantine").iterdir())) == 6
    assert (whole / MANIFEST).exists(), "the link was moved, not what it names"


def test_nothing_is_unpickled(sweep, monkeypatch):
    real = builtins.__import__

    def guarded(name, *arguments, **options):
        assert name not in ("pickle", "torch"), f"{name} was imported"
        return real(name, *arguments, **options)

    sweep.prepare()
    sweep.save(100)
    monkeypatch.setattr(builtins, "__import__", guarded)
    assert sweep.prepare().checkpoint.step == 100
