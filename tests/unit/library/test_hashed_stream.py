"""What is written through the stream is in the file, and so is its hash, whatever sizes torch writes in."""

from __future__ import annotations

import os
import threading

import pytest
import xxhash

from sweeprun_protocol.manifest import XXH3_128
from sweeprun_protocol.reasons import BlockedReason
from sweeprun_trainer import hashed_stream
from sweeprun_trainer.hashed_stream import HashedStream
from sweeprun_volume import hashing
from sweeprun_volume.errors import VolumeError
from sweeprun_volume.operations import Volume

CHUNK, APART, PIECE, FLUSH = 4096, 1000, 1500, 6000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", CHUNK)
    for name, value in {"APART": APART, "PIECE_BYTES": PIECE, "FLUSH_BYTES": FLUSH}.items():
        monkeypatch.setattr(hashed_stream, name, value)


class Watched(Volume):
    """Storage that takes what it is told to, or fails."""

    def __init__(self, root, *, error=None):
        super().__init__(str(root))
        self.flushed = threading.Event()
        self._error = error

    def flush(self, descriptor, path):
        self.flushed.set()
        if self._error is not None:
            raise self._error
        super().flush(descriptor, path)


def written(volume, parts):
    with volume.create_file("a") as descriptor, HashedStream(volume, descriptor, "a", XXH3_128) as stream:
        for part in parts:
            assert stream.write(part) == len(part)
    return stream.hasher


@pytest.mark.parametrize(
    "sizes",
    [[1], [APART - 1, APART], [PIECE * 4 + 7, 3, APART, 2], [CHUNK, CHUNK, 1], [10, 5 * CHUNK, 10], []],
    ids=str,
)
def test_file_and_hash_hold_all_parts_in_order(tmp_path, sizes):
    parts = [os.urandom(size) for size in sizes]
    hasher = written(Volume(str(tmp_path)), parts)
    data = b"".join(parts)
    assert (tmp_path / "a").read_bytes() == data
    assert hasher.size == len(data)
    assert hasher.finish() == tuple(
        xxhash.xxh3_128_hexdigest(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)
    )


def test_the_memory_is_the_callers_again_when_write_returns(tmp_path):
    hash_it, data = threading.Event(), bytearray(os.urandom(CHUNK))
    with Volume(str(tmp_path)).create_file("a") as descriptor:
        with HashedStream(Volume(str(tmp_path)), descriptor, "a", XXH3_128) as stream:
            stream._hashing.submit(hash_it.wait)  # the hash comes long after the bytes were written
            writing = threading.Thread(target=stream.write, args=(data,))
            writing.start()
            writing.join(0.2)
            assert writing.is_alive()
            hash_it.set()
            writing.join()
        expected = xxhash.xxh3_128_hexdigest(bytes(data))
        assert stream.hasher.finish() == (expected,)


def test_storage_begins_before_all_is_written(tmp_path):
    volume = Watched(tmp_path)
    with volume.create_file("a") as descriptor, HashedStream(volume, descriptor, "a", XXH3_128) as stream:
        stream.write(bytes(FLUSH - 1))
        assert not volume.flushed.is_set()
        stream.write(b"1")
        assert volume.flushed.wait(20)


@pytest.mark.parametrize("more", [0, 3 * FLUSH], ids=["at the end", "while more is written"])
def test_what_storage_could_not_take_is_told_though_the_sync_at_the_end_succeeds(tmp_path, more):
    error = VolumeError(BlockedReason.IO_ERROR, "EIO")
    with pytest.raises(VolumeError, match="EIO"):
        written(Watched(tmp_path, error=error), [bytes(FLUSH), bytes(more)])
    (tmp_path / "a").unlink()
    written(Watched(tmp_path), [bytes(FLUSH), bytes(more)])
