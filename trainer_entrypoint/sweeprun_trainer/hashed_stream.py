"""A file that is hashed while it is written, and made durable while the rest is written."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Optional

from sweeprun_volume.hashing import ChunkHasher
from sweeprun_volume.operations import Volume

APART = 1 << 20
"""Bytes from which on it pays to hash in another thread."""
PIECE_BYTES = 16 << 20
"""Written at a time."""
FLUSH_BYTES = 64 << 20
"""Written before storage is told to begin."""


class HashedStream:
    """What torch.save needs of a file; torch writes its archives from front to back.

    Hashing and writing let go of the interpreter's lock, and storage works by itself: what takes longest is all that
    is waited for. At the end of the block the hash is complete; the file is durable once its owner has synced it.
    """

    def __init__(self, volume: Volume, descriptor: int, path: str, algorithm: str) -> None:
        self._volume, self._descriptor, self._path = volume, descriptor, path
        self._hashing, self._flushing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._flush: Optional[Future[None]] = None
        self._unflushed = 0
        self.hasher = ChunkHasher(algorithm)

    def __enter__(self) -> HashedStream:
        return self

    def __exit__(self, *raised: object) -> None:
        self._hashing.shutdown()
        self._flushing.shutdown()
        if self._flush is not None and raised[0] is None:
            self._flush.result()

    def write(self, data: Any) -> int:
        """Raises VolumeError, of this piece or of one before it that storage could not take."""
        view = memoryview(data).cast("B")
        if len(view) < APART:
            self.hasher.update(view)
            self._write(view)
        else:
            hashed = self._hashing.submit(self.hasher.update, view)
            try:
                for at in range(0, len(view), PIECE_BYTES):
                    self._write(view[at : at + PIECE_BYTES])
            finally:  # the memory is torch's, who may use it anew
                hashed.result()
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.hasher.size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def _write(self, piece: memoryview) -> None:
        self._volume.write(self._descriptor, piece, self._path)
        self._unflushed += len(piece)
        if self._unflushed >= FLUSH_BYTES and (self._flush is None or self._flush.done()):
            if self._flush is not None:
                self._flush.result()  # an error is told once: the sync at the end would not tell it
            self._flush = self._flushing.submit(self._volume.flush, self._descriptor, self._path)
            self._unflushed = 0
