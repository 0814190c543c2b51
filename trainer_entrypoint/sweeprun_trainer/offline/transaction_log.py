"""The file `run-<ID>.wandb`: LevelDB's log format (blocks of 32 KiB) behind a header of W&B's own, with plain CRC32."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Optional

IDENTITY = b":W&B\xe1\xbe\x00"
BLOCK = 32 * 1024
_HEAD = struct.Struct("<IHB")
"""CRC32 of type and data, length, type."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAX_RECORD_BYTES = 64 << 20


class TransactionLog:
    """Iterate once for the records, up to the first that is damaged. A process that was killed leaves a torn end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.problem: Optional[str] = None
        """Set when the iteration is over: why it ended before the end."""

    def __iter__(self) -> Iterator[bytes]:
        if self._stream.read(len(IDENTITY)) != IDENTITY:
            self.problem = "is no transaction log of W&B"
            return
        parts: list[bytes] = []
        for kind, data in self._fragments():
            if kind in (FULL, FIRST) and parts:
                self.problem = "holds a record without its end"
                return
            if kind in (MIDDLE, LAST) and not parts:
                self.problem = "holds a record without its beginning"
                return
            parts.append(data)
            if sum(map(len, parts)) > MAX_RECORD_BYTES:
                self.problem = f"holds a record of more than {MAX_RECORD_BYTES >> 20} MiB"
                return
            if kind in (FULL, LAST):
                yield b"".join(parts)
                parts = []
        if parts and self.problem is None:
            self.problem = "ends within a record"

    def _fragments(self) -> Iterator[tuple[int, bytes]]:
        left = BLOCK - len(IDENTITY)
        while block := self._stream.read(left):
            left, position = BLOCK, 0
            while len(block) - position >= _HEAD.size:
                check, length, kind = _HEAD.unpack_from(block, position)
                if (check, length, kind) == (0, 0, 0):
                    break  # the rest of the block was never written
                position += _HEAD.size
                data = block[position : position + length]
                if len(data) < length:
                    self.problem = "ends within a record"
                    return
                if kind not in (FULL, FIRST, MIDDLE, LAST) or zlib.crc32(data, zlib.crc32(bytes([kind]))) != check:
                    self.problem = "is damaged"
                    return
                position += length
                yield kind, data
