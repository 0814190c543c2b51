"""Chunk digests of the own format."""

from __future__ import annotations

import hashlib
import mmap
from typing import Optional, Protocol

from sweeprun_protocol.manifest import BLAKE2B_128, CHUNK, XXH3_128
from sweeprun_protocol.reasons import BlockedReason

from .errors import VolumeError

try:
    import xxhash
except ImportError:  # an image without it writes and reads blake2b manifests
    HAS_XXHASH = False
else:
    HAS_XXHASH = True

PIECE_BYTES = 256 << 10
"""Read or written at a time, and hashed meanwhile: the second-level cache still has them, which halves the cost of the
digest (measured with 512 KiB of it to a processor; larger pieces were slower)."""


def aligned_buffer(size: int) -> memoryview:
    """To read into. It begins with a page: a copy to an address that is no multiple of 64, as that of a large bytearray
    is, takes three times as long on some processors (measured on an AMD EPYC)."""
    return memoryview(mmap.mmap(-1, size))


class Digest(Protocol):
    def update(self, data: memoryview) -> None: ...

    def hexdigest(self) -> str: ...


def preferred_algorithm() -> str:
    return XXH3_128 if HAS_XXHASH else BLAKE2B_128


def new_digest(algorithm: str) -> Digest:
    """Raises VolumeError where this process lacks the library: a verdict on data would be a lie."""
    if algorithm == BLAKE2B_128:
        blake: Digest = hashlib.blake2b(digest_size=16)
        return blake
    if not HAS_XXHASH:
        raise VolumeError(
            BlockedReason.IO_ERROR,
            f"the checkpoint's manifest uses {algorithm} and this image has no xxhash: install it, nothing was judged",
        )
    xxh: Digest = xxhash.xxh3_128()
    return xxh


class ChunkHasher:
    """Digests of consecutive chunks of a stream of bytes."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._chunks: list[str] = []
        self._current: Optional[Digest] = None
        self._filled = 0
        self.size = 0

    def update(self, data: memoryview) -> None:
        while data:
            if self._current is None:
                self._current = new_digest(self._algorithm)
            part = data[: CHUNK - self._filled]
            self._current.update(part)
            self._filled += len(part)
            self.size += len(part)
            data = data[len(part) :]
            if self._filled == CHUNK:
                self._close()

    def finish(self) -> tuple[str, ...]:
        if self._current is not None:
            self._close()
        return tuple(self._chunks)

    def _close(self) -> None:
        assert self._current is not None
        self._chunks.append(self._current.hexdigest())
        self._current = None
        self._filled = 0
