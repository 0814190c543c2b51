"""The journal of verdicts: what a look found spares the next one, and shows damage in what was whole before."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace

import pytest

from support.volume_checkpoints import flip, rewrite, saved, stored, without_crcs
from support.volume_crash import DiedError
from support.volume_sweep import clock_without_waiting
from sweeprun_protocol.codec import dump
from sweeprun_protocol.layout import VERDICTS, RunLayout, parse_verdict_name
from sweeprun_protocol.manifest import CHUNK, ManifestFile
from sweeprun_protocol.reasons import (
    BlockedReason,
    Format,
    Level,
    OnNoValidCheckpoint,
    Outcome,
    RefusalReason,
    StartReason,
    VerdictKind,
)
from sweeprun_protocol.verdicts import MAX_FIRST_BYTES, Verdict
from sweeprun_volume import hashing, validate
from sweeprun_volume.errors import TooManyEntriesError, VolumeError, volume_error
from sweeprun_volume.formats import Checked, Contents, Context, Refused
from sweeprun_volume.formats.tree import facts_of
from sweeprun_volume.lineage import Candidate
from sweeprun_volume.operations import Volume
from sweeprun_volume.verdicts import MAX_READ, Journal, Judge

FAIL = OnNoValidCheckpoint.FAIL


class Reading:
    """Counts the bytes that are read of each file whose contents are judged."""

    def __init__(self, monkeypatch):
        self.bytes = {}
        read_at = Volume.read_at

        def counted(volume, descriptor, buffer, offset, path):
            count = read_at(volume, descriptor, buffer, offset, path)
            name = path.rpartition("checkpoints/")[2]
            self.bytes[name] = self.bytes.get(name, 0) + count
            return count

        monkeypatch.setattr(Volume, "read_at", counted)

    def of(self, name):
        """Since it was last asked."""
        return self.bytes.pop(name, 0)


@pytest.fixture
def reading(monkeypatch):
    return Reading(monkeypatch)


UNCHECKED = without_crcs(saved({"step": 100}))


def rot(path):
    """One bit in tensor data, as a disk changes it: no time tells."""
    data = path.read_bytes()
    rewrite(path, flip(data, stored(data, "data/0").offset + 5), keep_time=True)


def verdicts(sweep):
    """Records by the path they are of and what their name says."""
    found = {}
    for path in sorted((sweep.directory() / VERDICTS).iterdir()):
        name = parse_verdict_name(path.name)
        assert name is not None
        record = Verdict.from_value(json.loads(path.read_bytes()), str(path))
        found[record.path.rpartition("/")[2], name.epoch, str(name.kind)] = record
    return found


def files(sweep, kind=""):
    return [path for path in sorted((sweep.directory() / VERDICTS).iterdir()) if kind in path.name]


def change(record, **fields):
    record.write_bytes(dump({**json.loads(record.read_bytes()), **fields}))


# -- digests of foreign checkpoints ------------------------------------------------------------------------------------


def test_the_first_full_look_at_a_foreign_checkpoint_is_recorded_with_its_digests(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    report = sweep.prepare()
    (verdict,) = verdicts(sweep).values()
    assert verdict.kind is VerdictKind.FIRST
    assert [(file.path, file.size) for file in verdict.files] == [("step-100.pt", len(UNCHECKED))]
    assert (verdict.format, verdict.level, verdict.epoch, verdict.prepare) == (Format.TORCH, Level.FULL, 2, 1)
    assert (verdict.size, verdict.bytes) == (len(UNCHECKED), len(UNCHECKED))
    assert "no CRCs" in verdict.note
    assert verdict.uncovered == len(UNCHECKED)
    assert report.checkpoint.digest == verdict.digest
    assert sweep.decision(2).base.digest == verdict.digest
    assert [ref.digest for ref in sweep.decision(2).eligible] == [verdict.digest]


def test_damage_without_checksums_is_seen_by_the_second_look_with_file_and_offset(sweep):
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    sweep.prepare()
    rot(path)
    report = sweep.prepare(on_no_valid_checkpoint=FAIL)
    assert report.blocked is BlockedReason.NO_VALID_CHECKPOINT
    (refusal,) = report.refused
    assert (refusal.reason, refusal.entry, refusal.offset) == (RefusalReason.DIGEST_MISMATCH, "step-100.pt", 0)
    assert "step-100.pt" in report.message
    assert ("step-100.pt", 3, "refused") in verdicts(sweep)


def test_damage_in_one_of_several_files_without_checksums_is_seen_with_file_and_offset(sweep):
    """Weights in shards, which the user goes on from: the format has no checksum at all."""
    chosen = {"format": Format.SAFETENSORS, "on_no_valid_checkpoint": FAIL}
    sweep.prepare(**chosen)
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        head = json.dumps({f"w{number}": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
        sweep.put(f"step-100/{name}", len(head).to_bytes(8, "little") + head + bytes(64))
    index = {"metadata": {"total_size": 128}, "weight_map": {"w0": names[0], "w1": names[1]}}
    sweep.put("step-100/model.safetensors.index.json", json.dumps(index).encode())
    first = sweep.prepare(**chosen)
    assert (first.outcome, first.checkpoint.format) == (Outcome.RESUME, Format.SAFETENSORS)
    assert sweep.prepare(**chosen).checkpoint == first.checkpoint
    path = sweep.directory() / "checkpoints" / "step-100" / names[1]
    rewrite(path, flip(path.read_bytes(), len(path.read_bytes()) - 1), keep_time=True)
    (refusal,) = sweep.prepare(**chosen).refused
    assert (refusal.reason, refusal.entry, refusal.offset) == (RefusalReason.DIGEST_MISMATCH, names[1], 0)


def test_what_is_undamaged_passes_the_second_look_and_is_not_recorded_as_a_first_one_again(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    first = sweep.prepare()
    again = sweep.prepare()
    assert (again.outcome, again.checkpoint) == (Outcome.RESUME, first.checkpoint)
    assert {key[1:] for key in verdicts(sweep)} == {(2, "first"), (3, "whole")}


def test_a_checkpoint_that_was_written_anew_is_looked_at_for_the_first_time(sweep):
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    first = sweep.prepare()
    rewrite(path, without_crcs(saved({"step": 101})))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10))
    again = sweep.prepare()
    assert again.outcome is Outcome.RESUME
    assert again.checkpoint.digest != first.checkpoint.digest
    assert {key[1:] for key in verdicts(sweep)} == {(2, "first"), (3, "first")}


def test_damage_is_seen_by_the_digest_in_status_where_the_journal_is_gone(sweep):
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    sweep.prepare()
    rot(path)
    for record in files(sweep):
        record.unlink()
    report = sweep.prepare(on_no_valid_checkpoint=FAIL)
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.DIGEST_MISMATCH]


def test_the_digest_in_status_outweighs_a_record_on_the_volume(sweep):
    """Somebody replaced content, record and decision together: each agrees with the others, and none with status."""
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    sweep.prepare()
    rot(path)
    (record,) = files(sweep)
    known = look(sweep, "step-100.pt").contents
    change(record, digest=known.digest, files=[file.to_dict() for file in known.files])
    decision = sweep.directory() / "epochs" / "2" / "decision.json"
    base = replace(sweep.decision(2).base, digest=known.digest).to_dict()
    change(decision, base=base, eligible=[base])
    request = sweep.next_request(on_no_valid_checkpoint=FAIL)
    report = sweep.ask(request)
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.DIGEST_MISMATCH]
    assert sweep.ask(replace(request, prepare=9, pinned=None)).outcome is Outcome.RESUME


def test_a_record_that_contradicts_the_digest_in_status_condemns_nothing(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    first = sweep.prepare()
    (record,) = files(sweep)
    lie = Contents("xxh3-128", (ManifestFile("step-100.pt", len(UNCHECKED), ("0" * 32,)),))
    change(record, digest=lie.digest, files=[file.to_dict() for file in lie.files])
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint) == (Outcome.RESUME, first.checkpoint)
    assert f"tells of another digest than {first.checkpoint.digest}" in report.message


def test_a_digest_of_another_format_is_no_evidence(sweep):
    """Formats cover different files of one directory: their digests differ without any damage."""
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    pinned = sweep.prepare().checkpoint
    other = replace(pinned, format=Format.DCP, digest="sha256:" + "0" * 64)
    change(sweep.directory() / "epochs" / "2" / "decision.json", base=other.to_dict(), eligible=[other.to_dict()])
    assert sweep.prepare(pinned=other).outcome is Outcome.RESUME


@pytest.mark.parametrize("journal", [True, False], ids=["with its record", "without it"])
def test_a_digest_by_another_algorithm_refuses_nothing(sweep, monkeypatch, journal):
    """The first look was that of an image without xxhash."""
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    with monkeypatch.context() as image:
        image.setattr(hashing, "HAS_XXHASH", False)
        first = sweep.prepare()
    assert [verdict.algorithm for verdict in verdicts(sweep).values()] == ["blake2b-128"]
    if not journal:
        files(sweep)[0].unlink()
    again = sweep.prepare()
    assert (again.outcome, again.checkpoint) == (Outcome.RESUME, first.checkpoint)
    rot(path)
    assert sweep.prepare(on_no_valid_checkpoint=FAIL).refused[0].reason is RefusalReason.DIGEST_MISMATCH


def test_checkpoints_of_the_own_format_keep_their_digests_in_their_manifest(sweep):
    sweep.prepare()
    sweep.save(100)
    report = sweep.prepare()
    (verdict,) = verdicts(sweep).values()
    assert (verdict.kind, verdict.files, verdict.world_size) == (VerdictKind.WHOLE, (), 2)
    assert verdict.digest == report.checkpoint.digest


# -- a prepare that was killed goes on where it was --------------------------------------------------------------------


def dies_before_the_decision(operation, path):
    if "/foreign-" in path:
        raise DiedError(path)


def test_a_prepare_that_was_killed_reads_nothing_again_that_it_had_judged(sweep, reading):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    rot(sweep.put("step-200.pt", saved({"step": 200})))
    request = sweep.next_request()
    with pytest.raises(DiedError):
        sweep.ask(request, before=dies_before_the_decision)
    assert reading.of("step-100.pt") > 0
    assert reading.of("step-200.pt") > 0
    report = sweep.ask(request)
    assert (report.outcome, report.reason) == (Outcome.RESUME, StartReason.WALKED_BACK)
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.CRC_MISMATCH]
    assert (reading.of("step-100.pt"), reading.of("step-200.pt"), report.checked_bytes) == (0, 0, 0)


def test_what_was_whole_is_read_again_by_the_next_epoch_and_what_was_refused_is_not(sweep, reading):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    rot(sweep.put("step-200.pt", saved({"step": 200})))
    request = sweep.next_request()
    with pytest.raises(DiedError):
        sweep.ask(request, before=dies_before_the_decision)
    assert reading.of("step-200.pt") > 0
    reading.of("step-100.pt")
    report = sweep.ask(replace(request, prepare=request.prepare + 1))
    assert [refusal.path for refusal in report.refused] == ["checkpoints/step-200.pt"]
    assert reading.of("step-200.pt") == 0
    assert reading.of("step-100.pt") > len(UNCHECKED) / 2


def test_a_prepare_without_enough_time_gets_further_each_time_it_is_asked(sweep, monkeypatch):
    """Each look takes the whole time that is allowed."""
    sweep.prepare()
    sweep.save(100)
    for step in (200, 300):
        path = sweep.save(step) / "model.pt"
        rewrite(path, flip(path.read_bytes(), 1000))
    clock = clock_without_waiting()
    check = validate._check

    def slow(context, candidate):
        try:
            return check(context, candidate)
        finally:
            context.deadline.clock.sleep(600)

    monkeypatch.setattr(validate, "_check", slow)
    answers = []
    for number in range(3):
        request = sweep.next_request(prepare=number + 1, timeout_seconds=500)
        answers.append(sweep.ask(request, clock=clock))
    assert [answer.blocked for answer in answers] == [BlockedReason.TIME_OUT, BlockedReason.TIME_OUT, None]
    assert (answers[2].outcome, answers[2].checkpoint.step) == (Outcome.RESUME, 100)


def test_a_refused_checkpoint_that_somebody_mended_is_read_again(sweep, reading):
    sweep.prepare()
    path = sweep.put("step-100.pt", saved({"step": 100}))
    whole, found = path.read_bytes(), path.stat()
    rot(path)
    assert sweep.prepare(on_no_valid_checkpoint=FAIL).blocked is BlockedReason.NO_VALID_CHECKPOINT
    reading.of("step-100.pt")
    assert sweep.prepare(on_no_valid_checkpoint=FAIL).blocked is BlockedReason.NO_VALID_CHECKPOINT
    assert reading.of("step-100.pt") == 0
    # from a backup, with size and time as they were
    other = path.with_name(".restored")
    other.write_bytes(whole)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)
    assert sweep.prepare(on_no_valid_checkpoint=FAIL).outcome is Outcome.RESUME


# -- which verdicts stand ----------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path, reading):
    return Bench(tmp_path, reading)


class Bench:
    """One foreign checkpoint, walked over again and again."""

    def __init__(self, root, reading):
        self.root = root
        self.reading = reading
        self.path = root / "run" / "checkpoints" / "step-100.pt"
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(UNCHECKED)
        self.volume = Volume(str(root))
        self.layout = RunLayout("run")

    def candidate(self, digest=None):
        facts = facts_of(self.volume, "run/checkpoints/step-100.pt")
        return Candidate(Format.TORCH, "checkpoints/step-100.pt", 100, 1, digest, facts)

    def walk(self, *, epoch=2, level=Level.FULL, chosen=Format.AUTO, digest=None):
        self.reading.bytes.clear()
        return validate.walk(
            self.volume,
            self.layout,
            [self.candidate(digest)],
            run_id="run",
            judge=Judge(epoch, prepare=epoch, level=level, chosen=chosen),
            timeout_seconds=60,
            clock=clock_without_waiting(),
        )

    @property
    def was_read(self):
        return self.reading.bytes.get("step-100.pt", 0) > len(UNCHECKED) / 2

    def record(self, found, *, epoch=2, level=Level.FULL, chosen=Format.AUTO):
        candidate = self.candidate()
        judge = Judge(epoch, prepare=epoch, level=level, chosen=chosen)
        verdict = judge.verdict(candidate, candidate.facts, found, seconds=1.0, time=5.0, first=True)
        journal = Journal(self.volume, self.layout)
        journal.publish(verdict)
        assert journal.remarks == []
        return verdict


DAMAGED = Refused(RefusalReason.CRC_MISMATCH, "it was seen", entry="archive/data/0", offset=64, bytes_read=9)
WEIGHTS = Refused(RefusalReason.NOT_RESUMABLE, "weights only")
WHOLE = Checked(digest=None, bytes=7)


def test_a_recorded_refusal_is_told_as_it_was(bench):
    bench.record(DAMAGED, epoch=1)
    (refusal,) = bench.walk(epoch=4).refused
    assert (refusal.message, refusal.entry, refusal.offset) == ("it was seen", "archive/data/0", 64)
    assert not bench.was_read


def test_a_refusal_of_another_state_of_the_path_does_not_count(bench):
    bench.record(DAMAGED, epoch=1)
    os.utime(bench.path, ns=(1, bench.path.stat().st_mtime_ns + 1))
    assert bench.walk(epoch=4).chosen is not None
    assert bench.was_read


def test_a_refusal_outweighs_that_it_was_whole_before_or_in_the_same_epoch(bench):
    bench.record(WHOLE, epoch=1)
    bench.record(WHOLE, epoch=2)
    assert bench.walk(epoch=2).chosen is not None
    assert not bench.was_read
    bench.record(DAMAGED, epoch=2)
    assert bench.walk(epoch=2).chosen is None
    assert bench.walk(epoch=3).chosen is None


def test_a_later_look_that_found_it_whole_takes_a_refusal_back(bench):
    bench.record(DAMAGED, epoch=1)
    bench.record(WHOLE, epoch=2)
    assert bench.walk(epoch=3).chosen is not None
    assert bench.was_read


@pytest.mark.parametrize("found", [WHOLE, DAMAGED], ids=["whole", "refused"])
def test_a_fast_verdict_never_stands_for_a_full_one(bench, found):
    bench.record(found, epoch=2, level=Level.FAST)
    assert bench.walk(epoch=2, level=Level.FULL).chosen is not None
    assert bench.was_read


def test_a_full_verdict_stands_for_a_fast_one(bench):
    bench.record(DAMAGED, epoch=1, level=Level.FULL)
    assert bench.walk(epoch=2, level=Level.FAST).chosen is None


@pytest.mark.parametrize(
    ("chosen", "spared"), [(Format.AUTO, True), (Format.TORCH, False)], ids=["asked the same", "chosen by the user"]
)
def test_that_weights_were_passed_over_stands_for_the_same_choice_only(bench, chosen, spared):
    bench.record(WEIGHTS, epoch=1, chosen=Format.AUTO)
    walked = bench.walk(epoch=2, chosen=chosen)
    assert (len(walked.passed), walked.refused) == (int(spared), ())
    assert bench.was_read is not spared


def test_that_it_was_whole_for_a_choice_stands_for_no_other(bench):
    bench.record(WHOLE, epoch=2, chosen=Format.TORCH)
    bench.walk(epoch=2, chosen=Format.AUTO)
    assert bench.was_read


def test_a_format_that_the_user_chose_is_taken_at_its_word(bench, monkeypatch):
    asked = []

    def check(context, candidate):
        asked.append(context.resumable_only)
        return WHOLE

    monkeypatch.setattr(validate, "_check", check)
    bench.walk(epoch=2, chosen=Format.AUTO)
    bench.walk(epoch=3, chosen=Format.TORCH)
    assert asked == [True, False]


def test_a_digest_that_was_not_asked_for_then_brings_another_look(bench):
    digest = bench.walk(epoch=2).chosen.digest
    bench.record(DAMAGED, epoch=3)
    assert bench.walk(epoch=4, digest=digest).chosen is not None
    assert bench.was_read


def test_whole_by_another_digest_than_is_asked_for_brings_another_look(bench):
    bench.walk(epoch=2)
    assert bench.walk(epoch=2, digest="sha256:" + "0" * 64).refused[0].reason is RefusalReason.DIGEST_MISMATCH
    assert bench.was_read


def test_what_changes_while_it_is_read_gets_no_record(bench, monkeypatch):
    check = validate._check

    def written_meanwhile(context, candidate):
        checked = check(context, candidate)
        os.utime(bench.path, ns=(1, bench.path.stat().st_mtime_ns + 1))
        return checked

    assert bench.walk(epoch=2).chosen is not None
    monkeypatch.setattr(validate, "_check", written_meanwhile)
    assert bench.walk(epoch=3).chosen is not None
    names = [parse_verdict_name(path.name).epoch for path in (bench.root / "run" / VERDICTS).iterdir()]
    assert names == [2]


# -- a journal that is damaged, hostile, full or in the way ------------------------------------------------------------


def broken(path):
    path.write_bytes(b"{")


def another_digest(path):
    """One digit of a chunk digest, as a disk changes it."""
    (file,) = json.loads(path.read_bytes())["files"]
    file["chunks"][0] = ("0" if file["chunks"][0][0] != "0" else "1") + file["chunks"][0][1:]
    change(path, files=[file])


def of_another_path(path):
    change(path, path="checkpoints/other.pt")


def too_large(path):
    with path.open("ab") as stream:
        stream.truncate(MAX_FIRST_BYTES + 1)


def a_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [broken, another_digest, of_another_path, too_large, a_link, a_pipe])
def test_a_record_that_cannot_be_used_is_said_and_costs_another_look(sweep, harm):
    """It neither blocks the run nor makes a good checkpoint look damaged; the digest in status still tells damage."""
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    first = sweep.prepare()
    (record,) = files(sweep)
    harm(record)
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint) == (Outcome.RESUME, first.checkpoint)
    assert f"a verdict cannot be read: {record.relative_to(sweep.root)}" in report.message
    rot(path)
    report = sweep.prepare(on_no_valid_checkpoint=FAIL)
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.DIGEST_MISMATCH]


def test_after_an_unreadable_first_look_the_next_one_is_recorded_in_its_place(sweep):
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    sweep.prepare()
    broken(files(sweep)[0])
    sweep.prepare()
    rot(path)
    report = sweep.prepare(on_no_valid_checkpoint=FAIL)
    assert (report.refused[0].entry, report.refused[0].offset) == ("step-100.pt", 0)


def test_an_unreadable_refusal_is_judged_anew_and_the_damage_is_seen_again(sweep, reading):
    sweep.prepare()
    rot(sweep.put("step-100.pt", saved({"step": 100})))
    sweep.prepare(on_no_valid_checkpoint=FAIL)
    broken(files(sweep, "refused")[0])
    reading.of("step-100.pt")
    report = sweep.prepare(on_no_valid_checkpoint=FAIL)
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.CRC_MISMATCH]
    assert reading.of("step-100.pt") > 0


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_record_that_cannot_even_be_opened_is_said_and_costs_another_look(sweep, monkeypatch, number):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    first = sweep.prepare()
    (record,) = files(sweep)
    read = Volume.read

    def fails_for_it(volume, path, *, limit):
        if path.endswith(record.name):
            raise volume_error(OSError(number, os.strerror(number)), path)
        return read(volume, path, limit=limit)

    monkeypatch.setattr(Volume, "read", fails_for_it)
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint) == (Outcome.RESUME, first.checkpoint)
    assert record.name in report.message


@pytest.mark.parametrize(
    "error", [TooManyEntriesError("verdicts", 100_000), VolumeError(BlockedReason.IO_ERROR, "verdicts: broken")]
)
def test_a_journal_that_cannot_be_listed_is_said_and_what_was_decided_still_tells_damage(sweep, monkeypatch, error):
    sweep.prepare()
    path = sweep.put("step-100.pt", UNCHECKED)
    first = sweep.prepare()
    entries = Volume.entries

    def fails_for_it(volume, place, **options):
        if place.endswith(VERDICTS):
            raise error
        return entries(volume, place, **options)

    monkeypatch.setattr(Volume, "entries", fails_for_it)
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint) == (Outcome.RESUME, first.checkpoint)
    assert f"earlier verdicts cannot be listed: {error}" in report.message
    rot(path)
    report = sweep.prepare(on_no_valid_checkpoint=FAIL)
    assert [refusal.reason for refusal in report.refused] == [RefusalReason.DIGEST_MISMATCH]


def test_a_journal_that_vanishes_while_it_is_written_is_said(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)

    def removed(operation, path):
        if operation == "create" and f"/{VERDICTS}/" in path:
            (sweep.directory() / VERDICTS).rmdir()

    report = sweep.ask(sweep.next_request(), before=removed)
    assert report.outcome is Outcome.RESUME
    assert "was not recorded" in report.message


def test_a_journal_that_is_no_directory_is_said_and_nothing_is_written_through_it(sweep, tmp_path):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    outside = tmp_path / "outside"
    outside.mkdir()
    (sweep.directory() / VERDICTS).symlink_to(outside)
    report = sweep.prepare()
    assert report.outcome is Outcome.RESUME
    assert "cannot be listed" in report.message
    assert list(outside.iterdir()) == []


def test_any_number_of_records_on_one_checkpoint_costs_a_bounded_number_of_reads(bench):
    verdict = bench.record(DAMAGED, epoch=9)
    place = bench.root / "run" / VERDICTS
    for epoch in range(10, 10 + 2 * MAX_READ):
        (place / str(replace(verdict, epoch=epoch).name)).write_bytes(b"{")
    walked = bench.walk(epoch=100)
    assert walked.chosen is not None
    assert any("more than" in remark for remark in walked.remarks)
    assert len(walked.remarks) == MAX_READ + 1


def fails(number, *, where=VERDICTS, at="create"):
    def before(operation, path):
        if operation == at and f"/{where}/" in path:
            raise OSError(number, os.strerror(number))

    return before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("at", ["create", "write", "link"])
def test_a_verdict_that_cannot_be_written_changes_no_verdict(sweep, number, at):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    rot(sweep.put("step-200.pt", saved({"step": 200})))
    report = sweep.ask(sweep.next_request(), before=fails(number, at=at))
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 100)
    assert [refusal.path for refusal in report.refused] == ["checkpoints/step-200.pt"]
    assert files(sweep) == []
    told = sweep.decision(2).message
    assert "the verdict on checkpoints/step-200.pt was not recorded" in told
    assert "1 more" in told


def test_where_the_decision_cannot_be_written_either_the_answer_is_blocked(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)

    def full(operation, path):
        fails(errno.ENOSPC)(operation, path)
        fails(errno.ENOSPC, where="2")(operation, path)

    report = sweep.ask(sweep.next_request(), before=full)
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.NOT_WRITABLE)


def test_a_volume_that_no_longer_creates_names_exclusively_stops_the_walk(sweep, monkeypatch):
    sweep.prepare()
    sweep.put("step-100.pt", UNCHECKED)
    link = os.link

    def refused(source, target, **options):
        if parse_verdict_name(target) is not None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refused)
    report = sweep.ask(sweep.next_request())
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.NO_EXCLUSIVE_CREATE)


def test_digests_that_would_make_a_record_too_large_are_left_out_and_that_is_noted(bench):
    candidate = bench.candidate()
    chunk = "0" * 32
    count = MAX_FIRST_BYTES // (len(chunk) + 3) + 1
    many = ManifestFile("step-100.pt", count * CHUNK, (chunk,) * count)
    verdict = Judge(2, prepare=2, level=Level.FULL, chosen=Format.AUTO).verdict(
        candidate, candidate.facts, WHOLE, seconds=1.0, time=5.0, first=True
    )
    journal = Journal(bench.volume, bench.layout)
    journal.publish(replace(verdict, algorithm="xxh3-128", files=(many,), digest="sha256:" + "0" * 64))
    (path,) = (bench.root / "run" / VERDICTS).iterdir()
    published = Verdict.from_value(json.loads(path.read_bytes()), "x")
    assert (published.kind, published.files) == (VerdictKind.WHOLE, ())
    assert "were not recorded" in published.note
    assert "were not recorded" in journal.remarks[0]


def look(sweep, name):
    """At a checkpoint of the run, by its format alone."""
    volume = Volume(str(sweep.root))
    layout = RunLayout(str(sweep.directory().relative_to(sweep.root)))
    deadline = validate.Deadline.after(60, clock_without_waiting())
    context = Context(volume, layout, sweep.run_id, Level.FULL, deadline)
    return validate.check(context, Candidate(Format.TORCH, f"checkpoints/{name}", 100, 1, None, None))
