"""The engine that reads bytes: what it finds is the same with any number of threads, in bounded memory and time."""

from __future__ import annotations

import itertools
import os
import threading
import tracemalloc
import zlib
from dataclasses import replace

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.volume_checkpoints import context_at, flip
from sweeprun_protocol.manifest import BLAKE2B_128, XXH3_128, ManifestFile
from sweeprun_protocol.reasons import BlockedReason, RefusalReason
from sweeprun_protocol.records import Refusal
from sweeprun_volume import crc
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.errors import OutOfTimeError, VolumeError
from sweeprun_volume.formats import Contents, Refused, chunks, contents
from sweeprun_volume.formats.chunks import Plan, Span
from sweeprun_volume.formats.contents import read_contents
from sweeprun_volume.operations import Volume

CHUNK = 4096
READ = 1000
DATA = bytes(os.urandom(3 * CHUNK + 700))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", CHUNK)
    monkeypatch.setattr(contents, "PIECE_BYTES", READ)


@pytest.fixture(params=[1, 2, 4])
def threads(request, monkeypatch):
    monkeypatch.setattr(contents, "threads_for", lambda plans: request.param)
    return request.param


@pytest.fixture
def noted(monkeypatch):
    """Set as soon as a thread has noted a problem."""
    event, note = threading.Event(), contents._Reading.note

    def noting(reading, place, problem):
        note(reading, place, problem)
        event.set()

    monkeypatch.setattr(contents._Reading, "note", noting)
    return event


def plan(root, name, data, *, spans=(), expected=None, written=None):
    """Of a file that holds `written`, planned as if it held `data`."""
    path = root / name
    path.write_bytes(data if written is None else written)
    return Plan(name, name, len(data), path.stat().st_mtime_ns, spans, expected)


def span(offset, size, *, data=DATA, name=None):
    return Span(name or f"at-{offset}", offset, size, zlib.crc32(data[offset : offset + size]))


def digests(data):
    return tuple(xxhash.xxh3_128_hexdigest(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))


def refusal(*arguments, **keywords):
    with pytest.raises(Refused) as refused:
        read_contents(*arguments, **keywords)
    return refused.value


# -- what is read ------------------------------------------------------------------------------------------------------


def test_every_file_has_the_digests_of_its_chunks_in_the_order_of_the_paths(tmp_path, threads):
    plans = [plan(tmp_path, "b", DATA), plan(tmp_path, "a", DATA[:CHUNK]), plan(tmp_path, "c", b"")]
    found = read_contents(context_at(tmp_path), plans)
    assert found == Contents(
        XXH3_128,
        (
            ManifestFile("a", CHUNK, digests(DATA[:CHUNK])),
            ManifestFile("b", len(DATA), digests(DATA)),
            ManifestFile("c", 0, ()),
        ),
    )


def test_the_algorithm_can_be_that_of_the_standard_library(tmp_path):
    found = read_contents(context_at(tmp_path), [plan(tmp_path, "a", b"abc")], algorithm=BLAKE2B_128)
    assert (found.algorithm, len(found.files[0].chunks[0])) == (BLAKE2B_128, 32)


LAYOUTS = {
    "inside a chunk": (100, 500),
    "a whole chunk": (CHUNK, CHUNK),
    "over one border": (CHUNK - 10, 30),
    "over every border": (5, 3 * CHUNK + 600),
    "up to a border": (CHUNK - 100, 100),
    "from a border": (2 * CHUNK, 50),
    "up to the end": (3 * CHUNK + 1, 699),
}


@pytest.mark.parametrize(("offset", "size"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_span_is_refused_where_any_of_its_bytes_differs_and_only_then(tmp_path, threads, offset, size):
    spans = [span(offset, size)]
    read_contents(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans)])
    for at in (offset, offset + size // 2, offset + size - 1):
        found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans, written=flip(DATA, at))])
        assert (found.reason, found.entry, found.offset) == (RefusalReason.CRC_MISMATCH, f"at-{offset}", offset)
    for at in (offset - 1, offset + size):
        if 0 <= at < len(DATA):
            read_contents(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans, written=flip(DATA, at))])


@pytest.mark.parametrize("offset", [0, 50, CHUNK, len(DATA)])
def test_an_empty_span_has_the_crc_of_nothing(tmp_path, threads, offset):
    read_contents(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=[Span("e", offset, 0, 0)])])
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=[Span("e", offset, 0, 7)])])
    assert found.reason is RefusalReason.CRC_MISMATCH


def test_an_empty_file_may_hold_an_empty_span(tmp_path):
    read_contents(context_at(tmp_path), [plan(tmp_path, "a", b"", spans=[Span("e", 0, 0, 0)])])
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", b"", spans=[Span("e", 0, 0, 7)])])
    assert found.reason is RefusalReason.CRC_MISMATCH


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(DATA)), max_size=12),
    at=st.integers(0, len(DATA) - 1),
    threads=st.integers(1, 4),
    skipped=st.integers(0, 2),
)
def test_a_flipped_bit_is_found_exactly_where_a_span_covers_it(tmp_path, monkeypatch, cuts, at, threads, skipped):
    monkeypatch.setattr(contents, "threads_for", lambda plans: threads)
    borders = [0, *sorted(cuts), len(DATA)]
    spans = [span(one, other - one) for one, other in itertools.pairwise(borders)][skipped:]
    damaged = plan(tmp_path, "a", DATA, spans=spans, written=flip(DATA, at))
    owner = next((item for item in spans if item.offset <= at < item.offset + item.size), None)
    if owner is None:
        read_contents(context_at(tmp_path), [damaged])
    else:
        found = refusal(context_at(tmp_path), [damaged])
        assert (found.reason, found.offset) == (RefusalReason.CRC_MISMATCH, owner.offset)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(DATA)), max_size=12),
    at=st.integers(0, len(DATA) - 1),
    kept=st.lists(st.booleans(), min_size=13, max_size=13),
)
def test_a_flipped_bit_is_found_anywhere_once_the_file_was_read_whole(tmp_path, cuts, at, kept):
    borders = [0, *sorted(cuts), len(DATA)]
    every = [span(one, other - one) for one, other in itertools.pairwise(borders)]
    spans = [item for item, keep in zip(every, kept, strict=False) if keep]
    context = context_at(tmp_path)
    known = replace(context, known=read_contents(context, [plan(tmp_path, "a", DATA, spans=spans)]))
    read_contents(known, [plan(tmp_path, "a", DATA, spans=spans)])
    covered = any(item.offset <= at < item.offset + item.size for item in spans)
    reason = RefusalReason.CRC_MISMATCH if covered else RefusalReason.DIGEST_MISMATCH
    assert refusal(known, [plan(tmp_path, "a", DATA, spans=spans, written=flip(DATA, at))]).reason is reason


def test_the_digests_are_those_of_the_bytes_that_no_span_has(tmp_path, threads):
    spans = [span(10, 90), span(CHUNK - 5, CHUNK + 10)]
    found = read_contents(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans)])
    rest = [DATA[:10] + DATA[100 : CHUNK - 5], b"", DATA[2 * CHUNK + 5 : 3 * CHUNK], DATA[3 * CHUNK :]]
    assert found.files[0].chunks == tuple(map(xxhash.xxh3_128_hexdigest, rest))


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([span(0, 100), span(99, 5)], RefusalReason.STRUCTURE),
        ([span(200, 5), span(0, 100)], RefusalReason.STRUCTURE),
        ([Span("x", len(DATA) - 5, 6, 0)], RefusalReason.TRUNCATED),
    ],
    ids=["overlap", "no order", "beyond the end"],
)
def test_spans_that_no_reading_could_check_are_refused(tmp_path, threads, spans, reason):
    assert refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans)]).reason is reason


# -- expectations ------------------------------------------------------------------------------------------------------


def test_a_chunk_that_is_not_what_was_written_is_named_by_its_offset(tmp_path, threads):
    expected = digests(DATA)
    read_contents(context_at(tmp_path), [plan(tmp_path, "a", DATA, expected=expected)])
    written = flip(DATA, 2 * CHUNK + 1)
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, expected=expected, written=written)])
    assert (found.reason, found.entry, found.offset) == (RefusalReason.DIGEST_MISMATCH, "a", 2 * CHUNK)


def test_a_file_with_more_chunks_than_are_known_is_not_what_was_written(tmp_path, threads):
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, expected=digests(DATA)[:2])])
    assert (found.reason, found.offset) == (RefusalReason.DIGEST_MISMATCH, 2 * CHUNK)


@pytest.mark.parametrize(
    ("names", "size", "reason"),
    [
        ("a", 10, None),
        ("ab", 10, RefusalReason.FILE_EXTRA),
        ("", 10, RefusalReason.FILE_MISSING),
        ("a", 11, RefusalReason.TRUNCATED),
        ("a", 9, RefusalReason.SIZE_MISMATCH),
    ],
)
def test_what_was_known_of_a_foreign_checkpoint_must_still_be_so(tmp_path, names, size, reason):
    data = b"0123456789"
    known = Contents(XXH3_128, (ManifestFile("a", size, digests(data)),))
    plans = [plan(tmp_path, name, data) for name in names]
    if reason is None:
        assert read_contents(context_at(tmp_path, known=known), plans) == known
    else:
        assert refusal(context_at(tmp_path, known=known), plans).reason is reason


# -- the first problem -------------------------------------------------------------------------------------------------


class Held(Volume):
    """Reads at `held` wait until something was read at `until`."""

    def __init__(self, root, *, held, until):
        super().__init__(str(root))
        self._held, self._until, self._free = held, until, threading.Event()

    def read_at(self, descriptor, buffer, offset, path):
        if self._held == (path, offset // CHUNK):
            assert self._free.wait(20), "no other thread read on"
        count = super().read_at(descriptor, buffer, offset, path)
        if self._until == (path, offset // CHUNK):
            self._free.set()
        return count


def test_the_first_damage_is_told_though_a_later_one_is_found_before(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "threads_for", lambda plans: 2)
    written = flip(flip(DATA, CHUNK + 5), 3 * CHUNK + 5)
    one = plan(tmp_path, "a", DATA, expected=digests(DATA), written=written)
    volume = Held(tmp_path, held=("a", 1), until=("a", 3))
    assert refusal(context_at(volume), [one]).offset == CHUNK


def test_a_span_that_ends_before_the_damage_is_told_first_though_it_is_found_later(tmp_path, monkeypatch):
    """Whole only when its first chunk was read, which is held back until after the damage behind it."""
    monkeypatch.setattr(contents, "threads_for", lambda plans: 2)
    written = flip(flip(DATA, 10), 2 * CHUNK + 9)
    spans = [span(0, CHUNK + 5), span(2 * CHUNK, 20)]
    volume = Held(tmp_path, held=("a", 0), until=("a", 2))
    assert refusal(context_at(volume), [plan(tmp_path, "a", DATA, spans=spans, written=written)]).offset == 0


def test_of_a_span_and_a_chunk_that_end_together_the_span_is_told(tmp_path, monkeypatch, noted):
    monkeypatch.setattr(contents, "threads_for", lambda plans: 2)

    class Late(Volume):
        def read_at(self, descriptor, buffer, offset, path):
            if offset < CHUNK:
                assert noted.wait(20), "nobody reads the damaged chunk"
            return super().read_at(descriptor, buffer, offset, path)

    written = flip(DATA, 2 * CHUNK - 9)
    spans = [span(10, 2 * CHUNK - 10)]
    expected = [*digests(DATA[:10]), "another", *digests(DATA)[2:]]
    one = plan(tmp_path, "a", DATA, spans=spans, expected=expected, written=written)
    assert refusal(context_at(Late(str(tmp_path))), [one]).reason is RefusalReason.CRC_MISMATCH


def test_damage_of_an_earlier_file_is_told_first(tmp_path, threads):
    plans = [
        plan(tmp_path, name, DATA, expected=digests(DATA), written=flip(DATA, at))
        for name, at in (("b", len(DATA) - 1), ("a", 0))
    ]
    assert refusal(context_at(tmp_path), plans).entry == "b"


class Failing(Volume):
    """An I/O error in one chunk."""

    def __init__(self, root, chunk):
        super().__init__(str(root))
        self._chunk = chunk

    def read_at(self, descriptor, buffer, offset, path):
        if offset // CHUNK == self._chunk:
            raise VolumeError(BlockedReason.IO_ERROR, "EIO")
        return super().read_at(descriptor, buffer, offset, path)


def test_an_io_error_before_the_damage_is_no_verdict_and_one_behind_it_does_not_hide_it(tmp_path, threads):
    one = plan(tmp_path, "a", DATA, expected=digests(DATA), written=flip(DATA, 2 * CHUNK))
    with pytest.raises(VolumeError):
        read_contents(context_at(Failing(tmp_path, 1)), [one])
    assert refusal(context_at(Failing(tmp_path, 3)), [one]).reason is RefusalReason.DIGEST_MISMATCH


# -- files that change -------------------------------------------------------------------------------------------------


def test_a_file_that_ends_early_is_refused_with_the_place(tmp_path, threads):
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, written=DATA[: CHUNK + 50])])
    assert (found.reason, found.offset) == (RefusalReason.TRUNCATED, CHUNK + 50)


@pytest.mark.parametrize("data", [DATA, b""], ids=["full", "empty"])
def test_a_file_that_vanished_is_refused(tmp_path, threads, data):
    one = plan(tmp_path, "a", data)
    (tmp_path / "a").unlink()
    assert refusal(context_at(tmp_path), [one]).reason is RefusalReason.FILE_MISSING


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path, threads):
    one = plan(tmp_path, "a", DATA)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert refusal(context_at(tmp_path), [one]).reason is RefusalReason.NOT_A_REGULAR_FILE


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damage in the file behind it"])
def test_a_file_that_was_written_meanwhile_is_refused(tmp_path, threads, damaged):
    plans = [plan(tmp_path, "a", DATA), plan(tmp_path, "b", DATA, expected=digests(flip(DATA, 3) if damaged else DATA))]
    os.utime(tmp_path / "a", ns=(1, 1))
    found = refusal(context_at(tmp_path), plans)
    assert (found.reason, found.entry) == (RefusalReason.CHANGED, "a")


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_no_thread_reads_on_behind_the_damage(tmp_path, threads, noted):
    others = threading.Semaphore(0)

    class Slow(Volume):
        """The damaged chunk is read last of the first eight, and nothing behind them before it."""

        def read_at(self, descriptor, buffer, offset, path):
            if offset >= 8 * CHUNK:
                others.release()
                assert noted.wait(20), "nobody reads the damaged chunk"
            elif offset == 0:
                assert all(others.acquire(timeout=20) for _ in range(threads - 1))
            return super().read_at(descriptor, buffer, offset, path)

    data = DATA * 20
    one = plan(tmp_path, "a", data, expected=digests(data), written=flip(data, 10))
    found = refusal(context_at(Slow(str(tmp_path))), [one])
    read = CHUNK if threads == 1 else 8 * CHUNK + (threads - 1) * READ
    assert found.bytes_read == read


def test_all_bytes_of_a_verdict_that_took_them_are_counted(tmp_path, threads):
    written = flip(DATA, len(DATA) - 1)
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, expected=digests(DATA), written=written)])
    assert found.bytes_read == len(DATA)


def test_every_thread_keeps_to_the_deadline(tmp_path, threads):
    ticks = itertools.count()
    clock = Clock(monotonic=lambda: float(next(ticks)))
    data = DATA * 10
    one = plan(tmp_path, "a", data)
    read_contents(context_at(tmp_path, deadline=Deadline(10_000, clock)), [one])
    used = next(ticks)
    read = []

    class Counted(Volume):
        def read_at(self, descriptor, buffer, offset, path):
            read.append(offset)
            return super().read_at(descriptor, buffer, offset, path)

    with pytest.raises(OutOfTimeError):
        read_contents(context_at(Counted(str(tmp_path)), deadline=Deadline(used + 20, clock)), [one])
    assert len(read) <= 20


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 160 << 20)
    one = Plan("a", "a", 160 << 20, (tmp_path / "a").stat().st_mtime_ns)
    tracemalloc.start()
    try:
        read_contents(context_at(tmp_path), [one])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_threads_are_bounded_by_processors_and_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    whole, small = plan(tmp_path, "a", DATA * 4), plan(tmp_path, "b", b"x")
    assert contents.threads_for([whole]) == contents.MAX_THREADS
    assert contents.threads_for([small]) == contents.threads_for([]) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert contents.threads_for([whole]) == 1


# -- what is told ------------------------------------------------------------------------------------------------------

HOSTILE = ["x" * 10_000, "a\x00b\x1b[31m\n", "\udcff.pt", "\u202egpj", "\U0010ffff" * 400]


@pytest.mark.parametrize("name", HOSTILE, ids=["long", "control", "surrogate", "bidirectional", "private"])
def test_a_hostile_name_is_told_in_a_form_that_a_record_carries(tmp_path, name):
    spans = [Span(name, 0, 10, 1)]
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans)])
    assert found.reason is RefusalReason.CRC_MISMATCH
    told = Refusal("a", found.reason, found.message[:300], found.entry, found.offset)
    assert Refusal.from_value(told.to_dict(), "x") == told
    assert found.entry.isprintable()
    assert found.message.isprintable()
    (found.entry + found.message).encode()


def test_a_usual_name_is_told_as_it_is():
    found = Refused(RefusalReason.STRUCTURE, "größer als 12 Bytes: 模型.pt", entry="rank-0/模型.pt:archive/data/3")
    assert (found.message, found.entry) == ("größer als 12 Bytes: 模型.pt", "rank-0/模型.pt:archive/data/3")


# -- CRC-32 ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_two_crcs_give_that_of_both_pieces(one, other):
    first, second = zlib.crc32(one), zlib.crc32(other)
    assert crc.combined(first, second, len(other)) == zlib.crc32(one + other)
    assert crc.combine(first, second, len(other)) == zlib.crc32(one + other)


@pytest.mark.parametrize("size", [1 << 20, (1 << 32) + 5, 1 << 45])
def test_pieces_of_any_size_are_combined_as_zlib_does(size):
    zlib_ng = pytest.importorskip("zlib_ng.zlib_ng")
    assert crc.combined(0x12345678, 0x9ABCDEF0, size) == zlib_ng.crc32_combine(0x12345678, 0x9ABCDEF0, size)


def test_without_the_fast_library_the_standard_one_computes_the_same(tmp_path, threads, monkeypatch):
    monkeypatch.setattr(chunks, "crc32", zlib.crc32)
    monkeypatch.setattr(contents, "combine", crc.combined)
    spans = [span(5, 3 * CHUNK)]
    read_contents(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans)])
    found = refusal(context_at(tmp_path), [plan(tmp_path, "a", DATA, spans=spans, written=flip(DATA, 2 * CHUNK))])
    assert found.reason is RefusalReason.CRC_MISMATCH
