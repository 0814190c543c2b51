"""Chunks that child processes map: the verdict is that of reading, whatever becomes of the child."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import zlib

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.volume_checkpoints import context_at, flip
from sweeprun_protocol.reasons import BlockedReason, RefusalReason
from sweeprun_volume import forked
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.errors import OutOfTimeError, VolumeError
from sweeprun_volume.formats import Refused, chunks, contents
from sweeprun_volume.formats.chunks import Plan, Span
from sweeprun_volume.formats.contents import read_contents
from sweeprun_volume.operations import Volume

# newer Pythons warn of forking while other threads run; those of the test runner hold nothing that a child needs
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CHUNK = 4 * 4096
WINDOW = 4096
DATA = bytes(os.urandom(3 * CHUNK + 700))
SPANS = [(100, 500), (CHUNK - 10, 30), (CHUNK + 100, 2 * CHUNK), (3 * CHUNK + 200, 500)]


class Cached(Volume):
    """All files are in the page cache. `in_child` happens in the child whenever it has mapped something."""

    def __init__(self, root, in_child=lambda mapped: None):
        super().__init__(str(root))
        self._in_child = in_child
        self.read = 0

    def is_cached(self, descriptor, offset):
        return True

    def map_at(self, descriptor, offset, size):
        mapped = super().map_at(descriptor, offset, size)
        self._in_child(mapped)
        return mapped

    def read_at(self, descriptor, buffer, offset, path):
        count = super().read_at(descriptor, buffer, offset, path)
        self.read += count
        return count


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """Numbers of the children; those of this test are mapped, whatever the test runner has of threads."""
    found, fork = [], os.fork

    def noting():
        found.append(fork())
        return found[-1]

    monkeypatch.setattr(chunks, "CHUNK", CHUNK)
    monkeypatch.setattr(contents, "WINDOW", WINDOW)
    monkeypatch.setattr(contents, "PIECE_BYTES", 1000)
    monkeypatch.setattr(contents, "MAPPED_BYTES", 1)
    monkeypatch.setattr(contents, "threads_for", lambda plans: 2)
    monkeypatch.setattr(contents, "may_fork", lambda: True)
    monkeypatch.setattr(os, "fork", noting)
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left(made):
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before
    for child in made:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def plan(root, *, name="a", spans=SPANS, data=DATA, written=None):
    path = root / name
    path.write_bytes(data if written is None else written)
    sums = [Span(f"at-{at}", at, size, zlib.crc32(data[at : at + size])) for at, size in spans]
    return Plan(name, name, len(data), path.stat().st_mtime_ns, sums, digests_of(data, spans))


def digests_of(data, spans):
    """Of the bytes of each chunk that no span covers."""
    covered = {byte for at, size in spans for byte in range(at, at + size)}
    others = [byte for byte in range(len(data)) if byte not in covered]
    chunk_of = [range(at, min(at + CHUNK, len(data))) for at in range(0, len(data), CHUNK)]
    return [xxhash.xxh3_128_hexdigest(bytes(data[byte] for byte in others if byte in chunk)) for chunk in chunk_of]


def outcome(volume, plans):
    """Contents, or what the refusal says."""
    try:
        return read_contents(context_at(volume), plans)
    except Refused as refused:
        return refused.reason, refused.message, refused.entry, refused.offset


def test_children_read_every_byte_and_this_process_none(tmp_path, made):
    volume, plans = Cached(tmp_path), [plan(tmp_path), plan(tmp_path, name="b", data=DATA[:5000], spans=[])]
    assert outcome(volume, plans) == outcome(Volume(str(tmp_path)), plans)
    assert (volume.read, len(made)) == (0, 4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(DATA) - 1), other=st.integers(0, len(DATA) - 1), digests=st.booleans())
def test_damage_is_told_as_reading_tells_it(tmp_path, monkeypatch, at, other, digests):
    damaged = plan(tmp_path, written=flip(flip(DATA, at), other))
    if not digests:
        damaged = Plan(damaged.path, damaged.name, damaged.size, damaged.mtime_ns, damaged.spans)
    mapped = outcome(Cached(tmp_path), [damaged])
    with monkeypatch.context() as patched:
        patched.setattr(contents, "may_fork", lambda: False)
        assert outcome(Cached(tmp_path), [damaged]) == mapped


def test_a_file_that_is_cut_off_while_it_is_mapped_kills_the_child_and_is_refused(tmp_path):
    whole = plan(tmp_path)
    volume = Cached(tmp_path, lambda mapped: os.truncate(tmp_path / "a", 10))
    reason, message, _, offset = outcome(volume, [whole])
    assert (reason, offset) == (RefusalReason.TRUNCATED, 10)
    assert "ended at byte 10 while it was read" in message


def test_a_file_that_was_cut_off_before_it_is_mapped_is_refused(tmp_path):
    reason, _, _, offset = outcome(Cached(tmp_path), [plan(tmp_path, written=DATA[: CHUNK + 50])])
    assert (reason, offset) == (RefusalReason.TRUNCATED, CHUNK + 50)


def test_a_file_that_cannot_be_read_is_no_verdict(tmp_path):
    """As storage that fails: the child dies of it, and reading says why."""

    class Failing(Cached):
        def read_at(self, descriptor, buffer, offset, path):
            raise VolumeError(BlockedReason.IO_ERROR, "EIO")

    whole = plan(tmp_path)
    with pytest.raises(VolumeError, match="EIO"):
        read_contents(context_at(Failing(tmp_path, lambda mapped: os.kill(os.getpid(), signal.SIGBUS))), [whole])
    assert outcome(Failing(tmp_path), [whole]) == outcome(Volume(str(tmp_path)), [whole])


def fail(error):
    def failing(mapped):
        raise error

    return failing


BROKEN = {
    "killed": lambda mapped: os.kill(os.getpid(), signal.SIGKILL),
    "ended": lambda mapped: os._exit(0),
    "no mapping": fail(OSError(errno.ENODEV, "no mapping")),
    "an error of ours": fail(ZeroDivisionError()),
}


@pytest.mark.parametrize("in_child", BROKEN.values(), ids=BROKEN.keys())
def test_what_children_cannot_do_is_read(tmp_path, in_child):
    volume, whole = Cached(tmp_path, in_child), plan(tmp_path)
    assert outcome(volume, [whole]) == outcome(Volume(str(tmp_path)), [whole])
    assert volume.read == len(DATA)


def test_where_no_process_can_be_made_all_is_read(tmp_path, monkeypatch):
    def none_left():
        raise OSError(errno.EAGAIN, "too many processes")

    monkeypatch.setattr(os, "fork", none_left)
    volume, whole = Cached(tmp_path), plan(tmp_path)
    assert outcome(volume, [whole]) == outcome(Volume(str(tmp_path)), [whole])
    assert volume.read == len(DATA)


def test_what_is_not_cached_whole_is_read(tmp_path):
    class Partly(Cached):
        def is_cached(self, descriptor, offset):
            return offset != CHUNK + 2 * WINDOW

    volume = Partly(tmp_path)
    outcome(volume, [plan(tmp_path)])
    assert volume.read == CHUNK


def test_the_file_system_says_what_is_cached(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        try:
            os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            pytest.skip(f"this file system does not tell what it has cached: {error}")
        volume = Volume(str(tmp_path))
        assert volume.is_cached(descriptor, len(DATA) - 1)
        assert not volume.is_cached(descriptor, len(DATA))
    finally:
        os.close(descriptor)


def test_children_keep_to_the_deadline(tmp_path):
    late = Deadline(-1.0, Clock(monotonic=lambda: 0.0))
    with pytest.raises(OutOfTimeError):
        read_contents(context_at(Cached(tmp_path), deadline=late), [plan(tmp_path)])


def test_a_child_maps_no_more_than_a_window(tmp_path):
    def bounded(mapped):
        if len(mapped) > WINDOW:
            raise MemoryError

    volume = Cached(tmp_path, bounded)
    outcome(volume, [plan(tmp_path)])
    assert volume.read == 0


def test_small_files_are_read_without_children(tmp_path, monkeypatch, made):
    monkeypatch.setattr(contents, "MAPPED_BYTES", len(DATA) + 1)
    volume = Cached(tmp_path)
    outcome(volume, [plan(tmp_path)])
    assert (volume.read, made) == (len(DATA), [])


def test_a_process_with_threads_is_not_forked():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert not forked.may_fork()
    finally:
        end.set()
        thread.join()


CHILD = """
import os, signal
from sweeprun_volume.forked import Forked, may_fork

assert may_fork()
one = Forked(lambda request: request, beside=[])
other = Forked(lambda request: request + 1, beside=[one])
print(one.ask(1), other.ask(1), flush=True)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("os._exit(0)", 0), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
    ids=["it ends", "it is killed"],
)
def test_children_end_with_the_process_that_made_them(ending, code):
    """They hold its output open: it ends when all of them did."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD + ending]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("1 2\n", code)
